//! The promise of the guards: a block in which the machine was disturbed counts for nothing, whatever was measured in it; too
//! many of them are the environment's failure and never a verdict; and what the machine does not tell is said to be unknown.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use flow::host::{self, Time};
use serde_json::Value;
use support::Flow;

/// The id of a process that this machine does not know, as of one in another namespace of ids.
const FOREIGN: &str = "GPU-1, 1999999999";
/// The processes before the first block: two of the gate, and of each tree two that warm it up.
const BEFORE: usize = 6;

/// One commit and the candidate `tidy`, whose patch halves the work, measured on a GPU. What `nvidia-smi` tells of it is `state`;
/// who computes on it, `apps` says, a shell's words in which `$n` is how many processes were measured so far.
fn on_a_gpu(time: &str, state: &str, apps: &str) -> Flow {
    let mut flow = timed(time);
    flow.replace("m.kdl", "slots { cpu \"a\" }", "slots { gpu \"0\" }");
    flow.replace("m.kdl", "holds cpu=1", "holds gpu=1");
    let seen = flow.signs().join("seen").display().to_string();
    let text = format!(
        "#!/bin/sh\nn=$(cat {seen} 2>/dev/null | wc -l)\ncase \"$1\" in\n--query-gpu=index*) echo '0, GPU-1, Model A' ;;\n\
         --query-gpu=uuid*) {state} ;;\n--query-compute-apps*) {apps} ;;\n*) exit 2 ;;\nesac\n"
    );
    flow.program("bin/nvidia-smi", &text);
    let path = format!("{}:{}", flow.path("bin").display(), support::search_path());
    flow.env("PATH", &path);
    flow
}

fn timed(time: &str) -> Flow {
    let flow = Flow::timed(time);
    flow.write("commits.txt", "{one:40}\n");
    flow.replace("m.kdl", "    candidate human agent=human\n", "");
    flow
}

const WELL: &str = "echo 'GPU-1, 41, 1980, 0x0000000000000004, 0, 0'";
const NOBODY: &str = "true";

fn listed(from: usize, to: usize) -> String {
    format!("[ $n -ge {from} ] && [ $n -le {to} ] && echo '{FOREIGN}'; true")
}

fn processes(flow: &Flow) -> usize {
    std::fs::read_to_string(flow.signs().join("seen")).unwrap().lines().count()
}

fn show(flow: &Flow) -> Value {
    flow.flow(&["show", "pkg/{one}/tidy/1", "--json"]).json()
}

/// What `flow show` says, on one line and with plain blanks.
fn told(flow: &Flow) -> String {
    let said = flow.flow(&["show", "pkg/{one}/tidy/1"]).stdout.replace('\u{a0}', " ");
    said.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn a_block_with_another_process_on_the_device_counts_for_nothing() {
    // What the first block measures would spoil any verdict.
    let spoilt = "ops / 1000 * (50 if ops == 1000 and n in (4, 5) else 1)";
    let flow = on_a_gpu(spoilt, WELL, &listed(BEFORE, BEFORE + 4));
    assert_eq!(flow.run().settles().class("{one}/tidy/1"), "SUCCESS_IMPROVEMENT");
    assert_eq!(processes(&flow), BEFORE + 4 + 5 * 4, "its place in the schedule is taken again");
    let job = show(&flow);
    assert_eq!(job["evidence"], "2.00x [2.00, 2.00] 5 blocks");
    let guards = &job["explained"]["guards"];
    assert_eq!(guards["dropped"], 1);
    let numbers: Vec<&Value> = guards["blocks"].as_array().unwrap().iter().map(|block| &block["block"]).collect();
    assert_eq!(numbers, [0, 0, 1, 2, 3, 4]);
    assert_eq!(guards["blocks"][0]["broken"][0]["shared"]["processes"], serde_json::json!([1_999_999_999]));
    assert_eq!(guards["blocks"][0]["seen"]["gpus"][0]["mhz"], serde_json::json!([1980.0, 1980.0]));
    assert_eq!(guards["limits"]["alone"], true);
    let told = told(&flow);
    let machine = "Machine: 5 blocks kept, 1 dropped (another process on GPU-1: 1999999999);";
    assert!(told.contains(machine), "{told}");
    assert!(told.contains("GPU-1: 41 °C, 1980 MHz, heat at most 0 %, held back by its cap on power, "), "{told}");
    // Another limit is no other measurement.
    flow.replace("m.kdl", "holds gpu=1", "holds gpu=1; guard alone=#false steal=\"1%\"");
    flow.run().executes_nothing();
}

#[test]
fn a_real_process_on_the_device_is_noticed_and_the_own_ones_are_not() {
    let mut other = sleeper();
    // The measured processes are on the device too, by their own ids: the script says so.
    let flow = on_a_gpu("ops / 1000", WELL, "cat OWN 2>/dev/null; [ $n -le 10 ] && echo 'GPU-1, OTHER'; true");
    let own = flow.signs().join("own").display().to_string();
    flow.edit("bin/nvidia-smi", |text| text.replace("OWN", &own).replace("OTHER", &other.id().to_string()));
    flow.edit("tests/{one}.py", |text| {
        text.replacen("import json, os, sys", "import json, os, sys, time", 1)
            + &format!("with open({own:?}, 'w') as f:\n    f.write(f'GPU-1, {{os.getpid()}}\\n')\ntime.sleep(0.3)\n")
            + &format!("os.remove({own:?})\n")
    });
    assert_eq!(flow.run().settles().class("{one}/tidy/1"), "SUCCESS_IMPROVEMENT");
    let guards = show(&flow)["explained"]["guards"].clone();
    let broken: Vec<&Value> =
        guards["blocks"].as_array().unwrap().iter().filter(|block| block.get("broken").is_some()).collect();
    // Where ids are those of this machine, the reading before the second block tells already; else the one after has to agree.
    assert!((1..=2).contains(&broken.len()), "{guards}");
    for block in broken {
        assert_eq!(block["broken"][0]["shared"]["processes"], serde_json::json!([other.id()]));
    }
    other.kill().unwrap();
    other.wait().unwrap();
}

#[test]
fn a_failure_in_a_disturbed_block_is_nobody_s() {
    let apps = listed(BEFORE, BEFORE + 2);
    let flow = on_a_gpu("ops / 1000", WELL, &apps);
    // The device is full while somebody else is on it: the first patched process that is measured fails.
    let failed = flow.signs().join("failed").display().to_string();
    flow.edit("tests/{one}.py", |text| {
        let fails = format!(
            "if ops == 500 and n == 2 and not os.path.exists({failed:?}):\n    open({failed:?}, 'w').close()\n    \
             raise RuntimeError('CUDA error: out of memory')\n"
        );
        text.replacen("out = ", &format!("{fails}out = "), 1)
    });
    assert_eq!(flow.run().settles().class("{one}/tidy/1"), "SUCCESS_IMPROVEMENT");
    assert!(Path::new(&failed).exists());
    assert_eq!(show(&flow)["explained"]["guards"]["dropped"], 1);

    // The same failure in a block that nobody disturbed is the patch's.
    let flow = on_a_gpu("ops / 1000", WELL, NOBODY);
    flow.edit("tests/{one}.py", |text| {
        text.replacen("out = ", "if ops == 500 and n == 2:\n    raise RuntimeError('no')\nout = ", 1)
    });
    assert_eq!(flow.run().settles().class("{one}/tidy/1"), "PATCHED_RUNTIME_ERROR");
}

#[test]
fn a_wrong_result_is_wrong_in_a_disturbed_block_too() {
    let flow = on_a_gpu("ops / 1000", WELL, &listed(BEFORE, BEFORE + 4));
    flow.edit("tests/{one}.py", |text| {
        text.replace("str(result)}", "str(result) + ('!' if ops == 500 and n == 2 else '')}")
    });
    assert_eq!(flow.run().settles().class("{one}/tidy/1"), "PATCHED_WRONG_RESULT");
}

#[test]
fn too_many_dropped_are_the_environment_s_failure_and_no_verdict() {
    let flow = on_a_gpu("ops / 1000", WELL, &listed(BEFORE, 1000));
    flow.replace("m.kdl", "holds gpu=1", "holds gpu=1; attempts 1; guard dropped=2");
    flow.run().exits(3);
    let job = show(&flow);
    assert_eq!((&job["class"], &job["open"]), (&"NOT_RUN".into(), &true.into()));
    assert_eq!(processes(&flow), BEFORE + 3 * 4);
    let ends = flow.ends("patched", "MACHINE_DISTURBED");
    let failure = &ends[0]["outcome"]["failed"];
    assert_eq!(
        failure["evidence"],
        "3 of 3 blocks were dropped, 2 may be: another process on GPU-1: 1999999999 (3 blocks)"
    );
    let told = told(&flow);
    assert!(told.contains("MACHINE_DISTURBED") && told.contains("another process on GPU-1"), "{told}");
    assert!(told.contains("end what disturbs the machine, which the evidence names"), "{told}");
    let log = flow.flow(&["log", "pkg/{one}/tidy/1", "patched"]).settles().stdout.clone();
    assert!(log.contains("\"shared\""), "{log}");
}

#[test]
fn what_is_borne_is_dropped_by_nobody() {
    for guard in ["guard alone=#false", "guard off"] {
        let flow = on_a_gpu("ops / 1000", "echo 'GPU-1, 41, 1980, 0x0000000000000040'", &listed(0, 1000));
        flow.replace("m.kdl", "holds gpu=1", &format!("holds gpu=1; {guard} heat=\"100%\""));
        assert_eq!(flow.run().settles().class("{one}/tidy/1"), "SUCCESS_IMPROVEMENT");
        assert_eq!(processes(&flow), BEFORE + 5 * 4);
        let told = told(&flow);
        assert!(
            told.contains("5 blocks, none dropped;")
                && told.contains("held back by its temperature, with a process of others")
        );
    }
}

#[test]
fn a_gpu_that_is_slowed_by_heat_breaks_its_guard() {
    // So short a block would break nothing: a quarter of a second is the least.
    let slow = "(__import__('time').sleep(0.05), ops / 1000)[1]";
    let hot =
        "[ $n -le 10 ] && echo 'GPU-1, 91, 1200, 0x0000000000000040' || echo 'GPU-1, 60, 1980, 0x0000000000000004'";
    let flow = on_a_gpu(slow, hot, NOBODY);
    assert_eq!(flow.run().settles().class("{one}/tidy/1"), "SUCCESS_IMPROVEMENT");
    let guards = show(&flow)["explained"]["guards"].clone();
    let dropped = guards["dropped"].as_u64().unwrap();
    assert!((1..=2).contains(&dropped), "{guards}");
    assert!(guards["text"].as_str().unwrap().contains("GPU slowed by heat"), "{guards}");
}

#[test]
fn what_the_machine_does_not_tell_is_said_to_be_unknown() {
    let flow = on_a_gpu("ops / 1000", "exit 2", "echo 'GPU-1, [Insufficient Permissions]'");
    assert_eq!(flow.run().settles().class("{one}/tidy/1"), "SUCCESS_IMPROVEMENT");
    let told = told(&flow);
    assert!(told.contains("GPU-1: temperature unknown, clock unknown, heat unknown, whether alone unknown"), "{told}");
    let gpu = &show(&flow)["explained"]["guards"]["blocks"][0]["seen"]["gpus"][0];
    assert_eq!(gpu, &serde_json::json!({ "uuid": "GPU-1" }));
}

#[test]
fn exact_counts_need_no_guard() {
    let flow = Flow::sample();
    flow.run().settles();
    let job = flow.flow(&["show", "pkg/{one}/tidy/1", "--json"]).settles().json();
    assert!(job["explained"]["sentences"].is_array());
    assert!(job["explained"].get("guards").is_none(), "{job}");
}

#[test]
fn the_cores_of_the_slot_are_told() {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap().trim();
    let core = allowed.rsplit([',', '-']).next().unwrap();
    let flow = timed("ops / 1000");
    flow.replace("m.kdl", "cpu \"a\"", &format!("cpu \"a\" cores=\"{core}\""));
    flow.run().settles();
    assert!(told(&flow).contains(&format!("; pinned to cores {core};")), "{}", told(&flow));
    // A core that is not there holds nobody.
    let flow = timed("ops / 1000");
    flow.replace("m.kdl", "cpu \"a\"", "cpu \"a\" cores=\"1000\"");
    flow.run().settles();
    assert!(told(&flow).contains("; not pinned: the kernel refuses cores 1000;"), "{}", told(&flow));
}

#[test]
fn a_gpu_that_is_not_there_is_said_before_anything_runs() {
    let flow = on_a_gpu("ops / 1000", WELL, NOBODY);
    flow.write("bin/nvidia-smi", "#!/bin/sh\necho 'no NVIDIA driver' >&2; exit 9\n");
    let why = "no GPU answers: nvidia-smi: exit status: 9: no NVIDIA driver";
    flow.run().exits(2).says(why).says("with the devices that `slots` declares");
    flow.flow(&["plan", "m.kdl"]).says(why);
    let doctor = flow.flow(&["doctor", "m.kdl"]);
    assert!(format!("{}{}", doctor.stdout, doctor.stderr).contains("no GPU answers: nvidia-smi"), "{}", doctor.stdout);
    assert!(!flow.signs().join("seen").exists(), "nothing was run");
}

#[test]
fn the_files_of_a_machine_are_read_as_they_are_written() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let write = |name: &str, text: &str| {
        std::fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
        std::fs::write(root.join(name), text).unwrap();
    };
    assert_eq!(host::read(root, &[]), host::Reading::default(), "nothing is told");
    write("proc/loadavg", "2.50 1.00 0.50 4/103 9525\n");
    write(
        "proc/stat",
        "cpu  300 20 100 600 40 10 20 70 5 0\ncpu0 100 0 50 300 20 5 5 70 0 0\ncpu1 200 20 50 300 20 5 15 0 5 0\nintr 1 2 3\n",
    );
    write("proc/pressure/cpu", "some avg10=3.66 avg60=19.42 avg300=30.83 total=2500000\nfull avg10=0.00 total=7\n");
    write("proc/self/cgroup", "0::/job/7\n");
    write("sys/fs/cgroup/job/7/cpu.stat", "usage_usec 5\nnr_periods 10\nnr_throttled 3\nthrottled_usec 1500000\n");
    for (core, ms, khz) in [(0, 100, 2_000_000), (1, 900, 3_000_000)] {
        let cpu = format!("sys/devices/system/cpu/cpu{core}");
        write(&format!("{cpu}/thermal_throttle/core_throttle_total_time_ms"), &format!("{ms}\n"));
        write(&format!("{cpu}/cpufreq/scaling_cur_freq"), &format!("{khz}\n"));
    }
    write("sys/devices/system/cpu/cpufreq/none", "");
    write("sys/class/thermal/thermal_zone0/temp", "45000\n");
    write("sys/class/thermal/thermal_zone1/temp", "61500\n");
    write("sys/class/thermal/thermal_zone2/temp", "-274000\n");
    let ms = Duration::from_millis;
    let all = host::read(root, &[]);
    assert_eq!((all.load, all.runnable), (Some(2.5), Some(3)));
    let time = Time { busy: ms(4500), idle: ms(6000), iowait: ms(400), steal: ms(700) };
    assert_eq!(all.time, Some(time));
    assert_eq!((all.pressure, all.throttled, all.heat), (Some(ms(2500)), Some(ms(1500)), Some(ms(900))));
    assert_eq!((all.celsius, all.mhz), (Some(61.5), Some(2500.0)));
    let first = host::read(root, &[0]);
    assert_eq!(first.time.map(|time| time.steal), Some(ms(700)));
    assert_eq!((first.heat, first.mhz), (Some(ms(100)), Some(2000.0)));
    assert_eq!(host::read(root, &[0, 9]).time, None, "of a core that is not there nothing is known");
    // Version 1 of control groups, counted in nanoseconds; and a group that counts nothing.
    write("proc/self/cgroup", "4:cpu,cpuacct:/a\n0::/\n");
    write("sys/fs/cgroup/cpu,cpuacct/a/cpu.stat", "nr_periods 1\nnr_throttled 1\nthrottled_time 250000000\n");
    assert_eq!(host::read(root, &[]).throttled, Some(ms(250)));
    write("proc/self/cgroup", "0::/\n");
    write("sys/fs/cgroup/cpu.stat", "usage_usec 5\n");
    assert_eq!(host::read(root, &[]).throttled, None);
    // Rubbish is not told, and an endless file ends.
    for name in ["proc/loadavg", "proc/stat", "proc/pressure/cpu", "sys/class/thermal/thermal_zone0/temp"] {
        write(name, "cpu  some total=x nan nan/nan -\n");
    }
    let rubbish = host::read(root, &[]);
    assert_eq!((rubbish.load, rubbish.time, rubbish.pressure), (None, None, None));
    std::fs::remove_file(root.join("proc/stat")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", root.join("proc/stat")).unwrap();
    assert_eq!(host::read(root, &[]).time, None);
}

#[test]
fn this_machine_tells_what_linux_tells_everywhere() {
    let now = host::read(Path::new("/"), &[]);
    assert!(now.load.is_some() && now.time.is_some(), "{now:?}");
}

fn sleeper() -> Child {
    Command::new("sleep").arg("600").stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap()
}
