//! The promise of measuring: results are compared before any speed is believed, and no time is spent on what is decided.

mod support;

use support::Flow;

/// The sample, measured in time on one slot; the digest is what the function returns.
fn timed() -> Flow {
    let flow = Flow::sample();
    flow.replace("m.kdl", "metric ops better=lower kind=count", "metric time_s better=lower");
    flow.replace("m.kdl", "tool python", "slots { cpu \"a\" }\n    step patched { holds cpu=1 }\n    tool python");
    for test in ["tests/{one}.py", "tests/{two}.py"] {
        flow.replace(test, "\"ops\": pkg.work.OPS[0]", "\"time_s\": 1.0");
    }
    flow
}

#[test]
fn a_wrong_result_costs_one_block() {
    let flow = timed();
    flow.replace("patches/tidy/{one}.patch", "+        OPS[0] += 5", "+        n += 5");
    let run = flow.run();
    run.settles();
    assert_eq!(run.class("{one}/tidy/1"), "PATCHED_WRONG_RESULT");
    assert_eq!(run.class("{one}/human/1"), "SUCCESS_NEUTRAL");
    let records = std::fs::read_dir(flow.cache().join("records/v1")).unwrap();
    let lines: String = records.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap()).collect();
    let stopped = lines.lines().filter(|line| line.contains("stopped after block 1: the results differ"));
    assert_eq!(stopped.count(), 1, "{lines}");
}

#[test]
fn flow_and_its_supervisors_keep_off_the_cores_that_are_measured_on() {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap().trim();
    if allowed.parse::<u32>().is_ok() {
        println!("skipped: there is one core, and nowhere to go");
        return;
    }
    let core = allowed.rsplit([',', '-']).next().unwrap();
    let flow = Flow::sample();
    flow.replace("m.kdl", "tool python", &format!("slots {{ cpu \"a\" cores=\"{core}\" }}\n    tool python"));
    flow.replace("steps.kdl", "against baseline;", "against baseline; holds cpu=1;");
    let seen = flow.signs().join("seen");
    let look = r#"
def parent(pid):
    return int(open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[1])
supervisor = os.getppid()
flow = parent(supervisor)
threads = [sorted(os.sched_getaffinity(int(t))) for p in (supervisor, flow) for t in os.listdir(f"/proc/{p}/task")]
with open("SEEN", "a") as f:
    f.write(json.dumps({"own": sorted(os.sched_getaffinity(0)), "others": threads}) + "\n")
"#;
    for test in ["tests/{one}.py", "tests/{two}.py"] {
        flow.edit(test, |text| text.to_owned() + &look.replace("SEEN", &seen.display().to_string()));
    }
    flow.run().settles();
    let core: u32 = core.parse().unwrap();
    let text = std::fs::read_to_string(seen).unwrap();
    for line in text.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["own"], serde_json::json!([core]));
        let others = line["others"].as_array().unwrap();
        assert!(others.len() > 2, "{line}");
        for cores in others {
            assert!(!cores.as_array().unwrap().contains(&core.into()), "{line}");
        }
    }
    assert!(text.lines().count() > 4, "{text}");
}
