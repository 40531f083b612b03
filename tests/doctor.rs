//! `flow doctor`: each kind of line can fail and says how to mend it; nothing is changed, nothing hangs, no secret is shown.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::{Duration, SystemTime};

use serde_json::Value;
use support::{Flow, git};

/// A value that no line may show.
const SENTINEL: &str = "sentinel-5up3r-53cr37";

/// The report as JSON, whatever it says.
#[track_caller]
fn report(flow: &Flow, more: &[&str]) -> Value {
    let ran = flow.flow(&[&["doctor", "m.kdl", "--json"], more].concat());
    let report = ran.json();
    let fails = report["counts"]["fail"].as_u64().unwrap() > 0;
    ran.exits(i32::from(fails));
    for line in report["lines"].as_array().unwrap() {
        assert!(line["level"] == "ok" || line["fix"].as_str().is_some_and(|fix| !fix.is_empty()), "no fix: {line}");
    }
    report
}

/// The first line of a check that is not `ok`, as `level: what | fix`; or the first that is.
fn line(report: &Value, check: &str) -> String {
    let lines: Vec<&Value> = report["lines"].as_array().unwrap().iter().filter(|line| line["check"] == check).collect();
    let bad = lines.iter().find(|line| line["level"] != "ok").or(lines.first());
    let text = |line: &Value, field: &str| line[field].as_str().unwrap_or("").to_owned();
    bad.map_or_else(
        || format!("no line `{check}` in {report:#}"),
        |line| format!("{}: {} | {}", text(line, "level"), text(line, "what"), text(line, "fix")),
    )
}

/// Asserts how the line of a check begins and what its fix holds.
#[track_caller]
fn says(flow: &Flow, check: &str, level: &str, what: &str, fix: &str) {
    let said = line(&report(flow, &[]), check);
    assert!(said.starts_with(&format!("{level}: ")), "{check} is not `{level}`: {said}");
    let (found, mended) = said.split_once(" | ").unwrap();
    let (what, fix) = (flow.fill(what), flow.fill(fix));
    assert!(found.contains(&what), "`{what}` is not in {said}");
    assert!(mended.contains(&fix), "`{fix}` is not in {said}");
}

/// A program of the project, as a shell script.
fn program(flow: &Flow, name: &str, script: &str) {
    flow.write(name, &format!("#!/bin/sh\n{script}\n"));
    std::fs::set_permissions(flow.path(name), std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// Puts a folder of the project's first in `PATH`.
fn before_all(flow: &mut Flow, folder: &str) {
    let path = flow.command(&[]).get_envs().find(|(name, _)| *name == "PATH").unwrap().1.unwrap().to_owned();
    let folder = flow.path(folder).display().to_string();
    flow.env("PATH", &format!("{folder}:{}", path.to_str().unwrap()));
}

/// Declares a tool beside the interpreter of the tests.
fn second_tool(flow: &Flow, node: &str) {
    flow.replace("steps.kdl", "recipe interpreter", "recipe interpreter tool=python");
    flow.add(node);
}

/// The sample with a provider and a candidate of it.
fn with_provider(children: &str) -> Flow {
    let flow = Flow::sample();
    flow.write("p.kdl", &format!("flow 1\nprovider cloud {{\n{children}\n}}\n"));
    flow.replace("m.kdl", "\"steps.kdl\"", "\"steps.kdl\" \"p.kdl\"");
    flow.add("candidate paid agent=nop { model \"m\" provider=cloud }");
    flow
}

#[test]
fn a_machine_that_has_all_is_told_so_and_nothing_is_changed() {
    let flow = Flow::sample();
    let ran = flow.flow(&["doctor", "m.kdl"]);
    ran.settles().says("all 2 are there with their bases").says("all 2 commits have their script").says("are needed");
    assert!(ran.stdout.lines().all(|line| line.chars().count() <= 80), "{}", ran.stdout);
    assert!(!flow.cache().exists(), "doctor made a store");
    flow.run().settles();
    let before = std::fs::read_dir(flow.cache().join("runs")).unwrap().count();
    flow.flow(&["doctor", "m.kdl"]).settles();
    assert_eq!(std::fs::read_dir(flow.cache().join("runs")).unwrap().count(), before);
}

#[test]
fn without_a_manifest_the_machine_alone_is_looked_at() {
    let flow = Flow::empty();
    let ran = flow.flow(&["doctor"]);
    ran.settles().says("git").says("python").says("are free");
    assert!(!ran.stdout.contains("commits"), "{}", ran.stdout);
    assert!(!flow.path("cache").exists());
}

#[test]
fn usage_and_flaws_are_no_findings() {
    let flow = Flow::sample();
    flow.flow(&["doctor", "m.kdl", "--repo", "pgk=/x"]).exits(2).says("no repository `pgk`").says("it has: pkg");
    flow.flow(&["doctor", "--repo", "pkg=/x"]).exits(2).says("it has none");
    flow.flow(&["doctor", "absent.kdl"]).exits(2);
    flow.add("step agent { timout \"3m\" }");
    flow.flow(&["doctor", "m.kdl"]).exits(2).says("did you mean `timeout`?");
}

#[test]
fn git_that_is_absent_or_old_is_named() {
    let mut flow = Flow::sample();
    std::fs::create_dir_all(flow.path("bin")).unwrap();
    symlink("/bin/sh", flow.path("bin/python3")).unwrap();
    flow.env("PATH", flow.path("bin").to_str().unwrap());
    says(&flow, "git", "fail", "git does not answer", "install git");
    program(&flow, "bin/git", "echo git version 2.20.1");
    says(&flow, "git", "warn", "2.20.1", "install 2.32");
}

#[test]
fn a_tool_that_is_absent_broken_or_silent_is_named() {
    let mut flow = Flow::sample();
    flow.replace("m.kdl", "tool python \"python3\"", "tool python \"no-such-python\"");
    says(&flow, "tool", "fail", "`no-such-python` is not there", "install it");
    flow.replace("m.kdl", "\"no-such-python\"", "\"{var.BENCH_PYTHON}\"");
    says(&flow, "tool", "fail", "BENCH_PYTHON is not set", "export BENCH_PYTHON=");
    flow.write("venv/bin/python3", "#!/gone/bin/python\n");
    flow.env("BENCH_PYTHON", flow.path("venv/bin/python3").to_str().unwrap());
    says(&flow, "tool", "fail", "names /gone/bin/python, which is not there", "make its environment anew");
    program(&flow, "venv/bin/python3", "echo no >&2; exit 3");
    says(&flow, "tool", "fail", "no", "run it by hand");
    program(&flow, "venv/bin/python3", "echo Python 3.14.0; echo more");
    says(&flow, "tool", "ok", "Python 3.14.0", "");
    flow.replace("m.kdl", "{ probe \"-VV\" }", "");
    says(&flow, "tool", "warn", "a script without a probe", "add a probe");
}

#[test]
fn an_editable_install_asks_for_its_source() {
    let flow = Flow::sample();
    program(&flow, "venv/bin/agent", "echo agent 1.0");
    flow.write("tree/agent/__init__.py", "");
    let from = flow.path("tree").display().to_string();
    let url = format!("{{\"dir_info\": {{\"editable\": true}}, \"url\": \"file://{from}\"}}");
    flow.write("venv/lib/python3.12/site-packages/my_agent-1.0.dist-info/direct_url.json", &url);
    second_tool(&flow, "tool agent \"venv/bin/agent\" { probe \"--version\" }");
    says(&flow, "editable", "warn", "my_agent is installed editable", "source \"");
    flow.replace("m.kdl", "{ probe \"--version\" }", "{ probe \"--version\"; source \"tree\" }");
    says(&flow, "editable", "ok", "which `source` names", "");
    flow.replace("m.kdl", "source \"tree\"", "source \"other\"");
    says(&flow, "tool", "fail", "it is no folder", "correct the path");
}

#[test]
fn a_credential_is_present_or_absent_and_from_where() {
    let mut flow = with_provider("secret CLOUD_KEY");
    says(&flow, "credential", "fail", "absent: the provider cloud asks for it", "export CLOUD_KEY=");
    flow.env("CLOUD_KEY", SENTINEL);
    says(&flow, "credential", "ok", "from the variable CLOUD_KEY", "");
    let flow = with_provider("secret CLOUD_KEY file=\"key.txt\"");
    says(&flow, "credential", "fail", "does not give it", "write it to");
    flow.write("key.txt", "\n");
    says(&flow, "credential", "fail", "empty: the provider cloud asks for it", "write it to");
    flow.write("key.txt", SENTINEL);
    std::fs::set_permissions(flow.path("key.txt"), std::fs::Permissions::from_mode(0o644)).unwrap();
    says(&flow, "credential", "warn", "which others may read", "chmod 600");
    std::fs::set_permissions(flow.path("key.txt"), std::fs::Permissions::from_mode(0o600)).unwrap();
    says(&flow, "credential", "ok", "present", "");
    let flow = with_provider("secret CLOUD_KEY { command \"sh\" \"-c\" \"exit 1\" }");
    says(&flow, "credential", "fail", "the command `sh …` does not give it", "by hand");
    let flow = with_provider("secret CLOUD_KEY { command \"sh\" \"-c\" \"true | cat\" }");
    says(&flow, "credential", "fail", "the command `sh …` prints nothing", "by hand");
    let gone = "{ command \"sh\" \"-c\" \"no-such-cloud login | head -1\" }";
    let flow = with_provider(&format!("secret CLOUD_KEY {gone}; secret CLOUD_ID {gone}"));
    says(&flow, "credential", "fail", "starts `no-such-cloud`, which is not there", "install no-such-cloud");
    flow.flow(&["doctor", "m.kdl"]).says("CLOUD_KEY, CLOUD_ID");
}

#[test]
fn a_provider_is_asked_with_its_credential_and_not_without() {
    let probe = "secret CLOUD_KEY\nset CLOUD_URL \"x\"\nprobe \"sh\" \"-c\" \"test \\\"$CLOUD_KEY$CLOUD_URL\\\" = key-of-goodx\"";
    let mut flow = with_provider(probe);
    says(&flow, "provider", "unknown", "CLOUD_KEY is not at hand", "mend the credential");
    flow.env("CLOUD_KEY", "key-of-bad");
    says(&flow, "provider", "fail", "the probe", "the credential, the account or the network");
    flow.env("CLOUD_KEY", "key-of-good");
    says(&flow, "provider", "ok", "takes calls", "");
}

#[test]
fn a_credential_that_ends_too_soon_is_told() {
    let flow = with_provider("expires \"cat\" \"until\"");
    says(&flow, "expiry", "fail", "is not told", "log in");
    flow.write("until", "2020-01-01T00:00:00Z");
    says(&flow, "expiry", "fail", "expired at 2020-01-01", "log in anew");
    flow.write("until", "30");
    says(&flow, "expiry", "warn", "an agent may take 1 m", "log in anew");
    flow.write("until", "7200");
    says(&flow, "expiry", "ok", "good until", "");
}

#[test]
fn a_repository_that_does_not_answer_is_named() {
    let flow = Flow::sample();
    flow.replace("m.kdl", "repo pkg \"repo\"", "repo pkg \"tests\"");
    says(&flow, "repository", "fail", "is not a git repository", "--repo pkg=PATH");
    flow.replace("m.kdl", "repo pkg \"tests\"", "repo pkg \"file:///nonexistent/x.git\"");
    says(&flow, "repository", "fail", "ls-remote", "--repo pkg=PATH");
    says(&flow, "commits", "unknown", "is told when it is in the store", "flow run");
    let url = format!("file://{}", flow.path("repo").display());
    flow.replace("m.kdl", "file:///nonexistent/x.git", &url);
    says(&flow, "repository", "ok", "`flow run` fetches it", "");
    says(&flow, "disk", "unknown", "while no repository is in the store", "ask again");
    flow.run().settles();
    says(&flow, "repository", "ok", "mirrored", "");
    says(&flow, "commits", "ok", "all 2", "");
    std::fs::rename(flow.path("repo"), flow.path("moved")).unwrap();
    says(&flow, "repository", "warn", "does not answer, but is mirrored", "nothing");
}

#[test]
fn a_commit_that_is_not_there_is_named() {
    let flow = Flow::sample();
    flow.edit("commits.txt", |text| format!("{text}{}\n", "5".repeat(40)));
    says(&flow, "commits", "fail", "1 of 3 are not there with their bases; the first: 5555", "take them off the list");
    let url = format!("file://{}", flow.path("repo").display());
    git(&flow.path(""), &["clone", "-q", "--depth", "1", &url, "shallow"]);
    let shallow = flow.path("shallow").display().to_string();
    let said = line(&report(&flow, &["--repo", &format!("pkg={shallow}")]), "commits");
    assert!(said.starts_with("fail: ") && said.contains("fetch --unshallow"), "{said}");
}

#[test]
fn submodules_and_large_files_are_named() {
    let mut flow = Flow::sample();
    let repo = flow.path("repo");
    let id = flow.id("one").to_owned();
    git(&repo, &["update-index", "--add", "--cacheinfo", &format!("160000,{id},vendor/lib")]);
    git(&repo, &["commit", "-q", "-m", "a submodule"]);
    std::fs::create_dir_all(repo.join("vendor/lib")).unwrap();
    flow.commit("large", &[("data/.gitattributes", "# none\n*.bin filter=lfs diff=lfs\n")]);
    flow.commit("late", &[("late.py", "")]);
    flow.edit("commits.txt", |text| format!("{text}{}\n", flow.id("late")));
    says(&flow, "submodules", "warn", "vendor/lib", "take commits");
    says(&flow, "LFS", "warn", "data/.gitattributes", "take commits");
}

#[test]
fn test_scripts_that_lack_are_counted() {
    let mut flow = Flow::sample();
    std::fs::remove_file(flow.path("tests/{one}.py")).unwrap();
    says(&flow, "tests", "warn", "1 of 2 commits have no script: no ", "NO_TEST_SCRIPT");
    std::fs::remove_file(flow.path("tests/{two}.py")).unwrap();
    says(&flow, "tests", "fail", "2 of 2 commits have no script", "NO_TEST_SCRIPT");
    // A command that names the script needs it just as well.
    flow.add("step patched { run \"{interpreter}\" \"{script}\" }");
    says(&flow, "tests", "fail", "2 of 2 commits have no script", "NO_TEST_SCRIPT");
    flow.run().settles();
    flow.replace("m.kdl", "dir=\"tests\"", "dir=\"{var.MY_TESTS}\"");
    says(&flow, "manifest", "fail", "the variable MY_TESTS is not set", "export MY_TESTS=");
    flow.env("MY_TESTS", "no/such/folder");
    says(&flow, "manifest", "fail", "the folder of test scripts", "put the scripts there");
    flow.flow(&["check", "m.kdl"]).settles().says("yours to give");
    flow.flow(&["plan", "m.kdl"]).settles().says("the folder of test scripts");
}

#[test]
fn devices_that_are_not_there_are_named() {
    let mut flow = Flow::sample();
    flow.add("slots { gpu \"0\"; gpu \"7\"; cpu \"a\" cores=\"0,999\" }");
    std::fs::create_dir_all(flow.path("bin")).unwrap();
    before_all(&mut flow, "bin");
    program(&flow, "bin/nvidia-smi", "echo no driver >&2; exit 9");
    says(&flow, "gpu", "fail", "no driver", "correct `slots`");
    says(&flow, "cores", "fail", "core 999 is not there for flow", "correct `cores=`");
    program(
        &flow,
        "bin/nvidia-smi",
        "case $1 in *compute-apps*) echo GPU-b, 17;; *) echo 0, GPU-a, H100; echo 1, GPU-b, H100;; esac",
    );
    says(&flow, "gpu", "fail", "there is no GPU 7", "correct `slots`");
    flow.replace("m.kdl", "gpu \"7\"", "gpu \"1\"");
    says(&flow, "gpu", "warn", "used by 1 processes already", "nvidia-smi");
    program(
        &flow,
        "bin/nvidia-smi",
        "case $1 in *compute-apps*) ;; *) echo 0, GPU-a, H100; echo 1, GPU-b, A100;; esac",
    );
    says(&flow, "gpu", "fail", "different models: H100, A100", "slots of one model");
    program(
        &flow,
        "bin/nvidia-smi",
        "case $1 in *compute-apps*) ;; *) echo 0, GPU-a, H100; echo 1, GPU-b, H100;; esac",
    );
    says(&flow, "gpu", "ok", "H100, GPU-a", "");
}

#[test]
fn a_store_that_cannot_be_used_is_named() {
    let flow = Flow::sample();
    flow.write("file", "");
    let blocked = flow.path("file/cache").display().to_string();
    let said = line(&report(&flow, &["--cache", &blocked]), "store");
    assert!(said.starts_with("fail: ") && said.contains("is no folder") && said.contains("--cache DIR"), "{said}");
    if nix::unistd::geteuid().is_root() {
        println!("not tried: nothing refuses root to write to a folder");
        return;
    }
    flow.run().settles();
    let records = flow.cache().join("records/v1");
    std::fs::set_permissions(&records, std::fs::Permissions::from_mode(0o555)).unwrap();
    says(&flow, "store", "fail", "cannot be written", "make it writable");
    std::fs::set_permissions(&records, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_clock_behind_the_store_and_locks_in_the_way_are_named() {
    let mut flow = Flow::sample();
    flow.add("slots { cpu \"a\" }");
    flow.run().settles();
    let record = std::fs::read_dir(flow.cache().join("records/v1")).unwrap().next().unwrap().unwrap().path();
    let file = std::fs::File::options().append(true).open(record).unwrap();
    file.set_modified(SystemTime::now() + Duration::from_secs(86_400)).unwrap();
    says(&flow, "clock", "fail", "records from after that", "set the clock");
    flow.write("in-the-way", "");
    flow.env("FLOW_SLOTS", flow.path("in-the-way").to_str().unwrap());
    says(&flow, "slot locks", "fail", "is no folder", "FLOW_SLOTS");
}

#[test]
fn whatever_else_a_run_would_refuse_is_told_with_its_place() {
    let flow = Flow::sample();
    flow.add("candidate more agent=scripted { pass NOT_SET_HERE; file patch \"patches/{commit.id8}.none\" }");
    let report = report(&flow, &[]);
    let lines: Vec<&Value> = report["lines"].as_array().unwrap().iter().filter(|l| l["check"] == "manifest").collect();
    let has = |text: &str| lines.iter().any(|line| line["what"].as_str().unwrap().contains(text));
    assert!(has("NOT_SET_HERE is not set") && has("there is no file"), "{lines:#?}");
    assert!(lines.iter().all(|line| line["at"].as_str().unwrap().starts_with("m.kdl:")), "{lines:#?}");
    flow.run().exits(2);
}

#[test]
fn no_secret_is_shown_wherever_it_comes_from_and_whoever_prints_it() {
    let provider = r#"
        secret FROM_VARIABLE
        secret FROM_FILE file="key.txt"
        secret FROM_COMMAND { command "sh" "-c" "cat key2.txt" }
        probe "sh" "-c" "echo $FROM_VARIABLE $FROM_FILE; echo $FROM_VARIABLE $FROM_FILE $FROM_COMMAND >&2; exit 1"
        expires "sh" "-c" "cat key.txt; cat key2.txt >&2; exit 1"
    "#;
    let mut flow = with_provider(provider);
    let [one, two, three, four, five] = ["a", "b", "c", "d", "e"].map(|end| format!("{SENTINEL}-{end}"));
    flow.env("FROM_VARIABLE", &one);
    flow.env("SOMEBODYS_API_KEY", &four);
    flow.write("key.txt", &two);
    flow.write("key2.txt", &three);
    // A command that fails and tells why, its own argument among it.
    flow.add("candidate other agent=nop { secret LOST { command \"sh\" \"-c\" \"cat key3.txt >&2; exit 1\" } }");
    flow.write("key3.txt", &five);
    // Tools are asked without any secret, but may find one.
    program(&flow, "tool.sh", &format!("cat '{}'; env", flow.path("key.txt").display()));
    second_tool(&flow, "tool prints \"./tool.sh\" { probe \"x\" }");
    flow.replace("m.kdl", "repo pkg \"repo\"", &format!("repo pkg \"https://me:{SENTINEL}-url@127.0.0.1:1/x.git\""));
    for more in [&[][..], &["--json"]] {
        let ran = flow.flow(&[&["doctor", "m.kdl"], more].concat());
        ran.exits(1).says("FROM_VARIABLE").says("FROM_COMMAND").says("LOST").says("[secret FROM_FILE]");
        assert!(!ran.stdout.contains(SENTINEL), "{}", ran.stdout);
        assert!(!ran.stderr.contains(SENTINEL), "{}", ran.stderr);
    }
}

#[test]
fn what_hangs_is_cut_off_and_leaves_nothing_behind() {
    let nap = "61749";
    let provider = format!("secret SLOW {{ command \"sh\" \"-c\" \"sleep {nap}; true\" }}");
    let mut flow = with_provider(&provider);
    flow.write("q.kdl", &format!("flow 1\nprovider far {{ probe \"sh\" \"-c\" \"sleep {nap}; true\" }}\n"));
    flow.replace("m.kdl", "\"p.kdl\"", "\"p.kdl\" \"q.kdl\"");
    flow.add("candidate remote agent=scripted { model \"m\" provider=far }");
    program(&flow, "tool.sh", &format!("sleep {nap}; true"));
    second_tool(&flow, "tool slow \"./tool.sh\" { probe \"x\" }");
    flow.add("slots { gpu \"0\" }");
    program(&flow, "bin/nvidia-smi", &format!("sleep {nap}; true"));
    before_all(&mut flow, "bin");
    let report = report(&flow, &["--limit", "1s"]);
    for check in ["tool", "credential", "provider", "gpu"] {
        let said = line(&report, check);
        assert!(said.starts_with("unknown: "), "{check}: {said}");
    }
    assert!(line(&report, "tool").contains("no answer within 1.0 s"), "{}", line(&report, "tool"));
    // Killed with their groups.
    support::until("the sleepers are dead", || {
        let commands = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
            entry.file_name().to_str()?.parse::<u32>().ok()?;
            std::fs::read(entry.path().join("cmdline")).ok()
        });
        commands.into_iter().all(|line| !line.starts_with(format!("sleep\0{nap}").as_bytes()))
    });
}
