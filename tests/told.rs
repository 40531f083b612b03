//! The promise of what is told: each change is told as what it was when it was used, with its own commit and its own line; causes
//! are told apart by who brought them; a run that would refuse is said to refuse; what looks like a key is never printed.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use std::process::Command;

use serde_json::Value;
use support::{Flow, until};

/// A project in git, with a config.
struct Project {
    flow: Flow,
}

impl Project {
    fn new() -> Self {
        let flow = Flow::sample();
        flow.write("configs/tidy.yaml", "model:\n  temperature: 0.2\n  top_p: 0.9\n  steps: 10\n");
        flow.edit("agents.kdl", |text| {
            let shown = "agent scripted { run \"sh\" \"-c\" \"cat $0 >/dev/null; exec \\\"$@\\\"\" \"{config}\" ";
            text.replace("agent scripted { run ", shown)
        });
        flow.replace("m.kdl", "agent=scripted {", "agent=scripted {\n        config \"configs/tidy.yaml\"");
        flow.write(".gitignore", "/cache/\n/repo/\n");
        let project = Self { flow };
        project.git("Ann", &["init", "-q", "-b", "main"]);
        project.commit("Ann", "the first version");
        project
    }

    fn git(&self, author: &str, args: &[&str]) -> String {
        let output = Command::new("git")
            .args(["-c", &format!("user.name={author}"), "-c", "user.email=a@localhost", "-c", "commit.gpgsign=false"])
            .args(args)
            .current_dir(self.flow.path("."))
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .output()
            .unwrap();
        assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// In a second of its own: git's clock knows no less, and by it a commit is held against a run.
    fn commit(&self, author: &str, subject: &str) -> String {
        let second = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let next = |then: u64| until("the next second", || second() > then);
        next(second());
        self.git(author, &["add", "-A"]);
        self.git(author, &["commit", "-q", "-m", subject]);
        next(second());
        self.git(author, &["rev-parse", "HEAD"])
    }

    /// What `why` says of the config of `tidy`.
    fn config(&self, more: &[&str]) -> Value {
        let args = [&["why", "pkg/{one}/tidy/1", "--json"], more].concat();
        let document = self.flow.flow(&args).exits(0).json();
        let steps = document["jobs"][0]["steps"].as_array().unwrap();
        let agent = steps.iter().find(|step| step["step"] == "agent").unwrap();
        let changes = agent["changes"].as_array().unwrap();
        changes.iter().find(|change| change["ingredient"] == "config").unwrap_or_else(|| panic!("{agent:#}")).clone()
    }
}

/// The commits behind the first, each by whom and on which line.
fn also(change: &Value) -> Vec<(String, u64)> {
    let also = change["origin"]["also"].as_array().cloned().unwrap_or_default();
    also.iter().map(|by| (by["author"].as_str().unwrap().to_owned(), by["line"].as_u64().unwrap())).collect()
}

#[test]
fn what_a_run_used_is_told_as_committed_or_not_as_it_was_then() {
    let p = Project::new();
    p.flow.run().settles();
    p.flow.replace("configs/tidy.yaml", "steps: 10", "steps: 12");
    p.commit("Ida", "more steps");
    p.flow.replace("configs/tidy.yaml", "top_p: 0.9", "top_p: 0.8");
    let before = p.config(&["m.kdl"]);
    assert_eq!((&before["origin"]["commit"], also(&before)), (&Value::Null, vec![("Ida".into(), 4)]), "{before:#}");
    p.flow.run().settles();
    let still = p.config(&["--run"]);
    assert_eq!((&still["origin"]["line"], also(&still)), (&3.into(), vec![("Ida".into(), 4)]), "{still:#}");
    // Committed since: her part was not uncommitted then.
    let kim = p.commit("Kim", "less of it");
    let since = p.config(&["--run"]);
    assert_eq!(since["origin"]["commit"], kim.as_str(), "{since:#}");
    assert_eq!((&since["origin"]["uncommitted_then"], also(&since)), (&true.into(), vec![("Ida".into(), 4)]));
    assert_eq!(since["origin"]["also"][0].get("uncommitted_then"), None);
}

#[test]
fn what_was_taken_back_after_a_run_was_never_committed_and_the_rest_was() {
    let p = Project::new();
    p.flow.run().settles();
    p.flow.replace("configs/tidy.yaml", "temperature: 0.2", "temperature: 0.6");
    let ned = p.commit("Ned", "warmer");
    p.flow.replace("configs/tidy.yaml", "top_p: 0.9", "top_p: 0.8");
    p.flow.run().settles();
    p.git("Ned", &["checkout", "-q", "--", "configs"]);
    let told = p.config(&["--run"]);
    assert_eq!(
        (&told["origin"]["commit"], &told["origin"]["never_committed"]),
        (&Value::Null, &true.into()),
        "{told:#}"
    );
    assert_eq!(also(&told), [("Ned".into(), 2)], "{told:#}");
    let text = p.flow.flow(&["why", "pkg/{one}/tidy/1", "--run"]);
    text.exits(0).says("uncommitted then, and never committed so: configs/tidy.yaml");
    text.says(&format!("by {}", &ned[..8]));
}

/// The sample with a `tests` of its own for each of its two commits.
fn two_tests() -> Project {
    let p = Project::new();
    p.flow.replace(
        "m.kdl",
        "        tests dir",
        "        tests dir=\"tests\" name=\"{commit.id8}.py\" contract=flow {\n            only \"{two:40}\"\n            metric ops better=lower kind=count min-effect=\"3%\"\n        }\n        tests dir",
    );
    p.commit("Ann", "two kinds of tests");
    p.flow.run().settles();
    p
}

fn line_of(p: &Project, what: &str) -> u64 {
    let text = std::fs::read_to_string(p.flow.path("m.kdl")).unwrap();
    text.lines().position(|line| line.contains(what)).unwrap() as u64 + 1
}

#[test]
fn of_two_metrics_each_is_told_by_its_own_line() {
    let p = two_tests();
    p.flow.replace("m.kdl", "min-effect=\"3%\"", "min-effect=\"5%\"");
    p.flow.replace("m.kdl", "min-effect=\"2%\"", "min-effect=\"4%\"");
    p.commit("Bob", "less is no effect");
    for (commit, what) in [("{one}", "\"4%\""), ("{two}", "\"5%\"")] {
        let document = p.flow.flow(&["why", &format!("pkg/{commit}/tidy/1"), "m.kdl", "--json"]).exits(0).json();
        let steps = document["jobs"][0]["steps"].as_array().unwrap();
        let mut changes = steps.iter().flat_map(|step| step["changes"].as_array().unwrap());
        let change = changes.find(|change| change["ingredient"] == "metrics").unwrap();
        assert_eq!(change["origin"]["line"], line_of(&p, what), "{change:#}");
    }
}

#[test]
fn causes_that_read_the_same_are_told_apart_by_who_brought_them() {
    let p = two_tests();
    p.flow.replace("m.kdl", "min-effect=\"3%\"", "min-effect=\"2%\"");
    p.commit("Ann", "the same for both");
    p.flow.run().settles();
    p.flow.replace("m.kdl", "kind=count min-effect=\"2%\"\n", "kind=count min-effect=\"4%\"\n");
    p.commit("Bob", "of the first");
    p.flow.replace("m.kdl", "kind=count min-effect=\"2%\"", "kind=count min-effect=\"4%\"");
    p.commit("Cleo", "of the second");
    let plan = p.flow.flow(&["plan", "m.kdl"]).exits(0).stdout.clone();
    let parts: Vec<&str> = plan.split("\n\n").filter(|part| part.contains("metrics")).collect();
    assert_eq!(parts.len(), 2, "{plan}");
    // It is not looked for long: a part may have no author, and never that of the other.
    for (author, commit) in [("Bob", "{two}"), ("Cleo", "{one}")] {
        let commit = p.flow.fill(commit);
        assert!(parts.iter().all(|part| !part.contains(author) || part.contains(&commit)), "{plan}");
        assert_eq!(parts.iter().filter(|part| part.contains(&commit)).count(), 1, "{plan}");
    }
    assert!(plan.contains("2 roots of"), "{plan}");
    let explained = p.flow.flow(&["plan", "m.kdl", "--explain", "--json"]).exits(0).json();
    let causes: Vec<&Value> = explained["causes"].as_array().unwrap().iter().collect();
    assert_eq!(causes.len(), 2, "{causes:#?}");
    assert!(causes.iter().all(|cause| cause["by"].as_array().unwrap().len() == 1), "{causes:#?}");
    let document = p.flow.flow(&["why", "**", "m.kdl", "--json"]).exits(0).json();
    assert_eq!(document["roots"], 2);
}

#[test]
fn a_limit_that_was_raised_has_its_author_in_a_plan() {
    let p = Project::new();
    p.flow.edit("tests/{one}.py", |text| format!("import time\ntime.sleep(60)\n{text}"));
    p.flow.replace(
        "steps.kdl",
        "step baseline uses=test        { needs checkout build; timeout \"1m\" }",
        "step baseline uses=test        { needs checkout build; timeout \"1s\" }",
    );
    p.commit("Ann", "a test that hangs");
    p.flow.run();
    p.flow.replace("steps.kdl", "timeout \"1s\"", "timeout \"2s\"");
    let oda = p.commit("Oda", "more time");
    let plan = p.flow.flow(&["plan", "m.kdl"]);
    plan.exits(0).says("limit timeout").says(&format!("by {}, Oda: more time; steps.kdl:", &oda[..8]));
}

#[test]
fn what_looks_like_a_key_is_never_printed() {
    let flow = Flow::empty();
    let key = format!("sk-ant-api03-{}", "Ab3dE6gH9".repeat(10));
    flow.write(
        "m.kdl",
        "flow 1\npipeline keys {\n    axis n \"1\"\n    step one uses=command { input a \"a.txt\"; input c \"c.yaml\"; run \"cp\" \"{in.a}\" \"{out.o}\"; output o \"o.txt\" }\n}\n",
    );
    flow.write("a.txt", &format!("token {key}\n"));
    flow.write("c.yaml", &format!("note: \"{key}\"\nz: 1\n"));
    flow.write(".gitignore", "/cache/\n");
    let p = Project { flow };
    p.git("Ann", &["init", "-q", "-b", "main"]);
    p.commit("Ann", &format!("with {key}"));
    p.flow.run();
    p.flow.write("a.txt", "token\n");
    p.flow.write("c.yaml", "note: \"x\"\nz: 1\n");
    p.commit("Ann", "mend it");
    for args in [
        &["why", "**", "m.kdl"][..],
        &["why", "**", "m.kdl", "--json"],
        &["why", "**", "m.kdl", "--key"],
        &["why", "**", "m.kdl", "--between", "HEAD~1", "HEAD"],
        &["why", "**", "m.kdl", "--against", "HEAD~1"],
        &["plan", "m.kdl", "--at", "HEAD~1"],
        &["plan", "m.kdl"],
        &["history", "m.kdl"],
    ] {
        let ran = p.flow.flow(args);
        ran.exits(0);
        for text in [&ran.stdout, &ran.stderr] {
            assert!(!text.contains("Ab3dE6gH9"), "{args:?}: {text}");
        }
    }
    p.flow.flow(&["why", "**", "m.kdl"]).says("[what looks like a key]");
}

#[test]
fn where_the_history_cannot_be_read_that_is_said() {
    let p = Project::new();
    p.flow.run().settles();
    p.flow.replace("configs/tidy.yaml", "steps: 10", "steps: 12");
    for (head, said) in [("ref: refs/heads/../../x", "HEAD names no reference"), ("ref: HEAD", "in a circle")] {
        p.flow.write(".git/HEAD", &format!("{head}\n"));
        let config = p.config(&["m.kdl"]);
        assert!(config["unexplained"].as_str().is_some_and(|why| why.contains(said)), "{config:#}");
    }
    p.flow.write(".git/HEAD", "ref: refs/heads/main\n");
    std::fs::remove_file(p.flow.path(".git/refs/heads/main")).unwrap();
    assert!(Command::new("mkfifo").arg(p.flow.path(".git/refs/heads/main")).status().unwrap().success());
    let config = p.config(&["m.kdl"]);
    let why = config["unexplained"].as_str().unwrap_or_default();
    assert!(why.contains("refs/heads/main cannot be read"), "{config:#}");
}

#[test]
fn a_run_that_would_refuse_is_said_to_refuse() {
    let mut p = Project::new();
    p.flow.replace("m.kdl", "agent=scripted {", "agent=scripted {\n        set STYLE \"{var.STYLE}\"");
    p.flow.env("STYLE", "plain");
    p.flow.run().settles();
    p.flow.without("STYLE");
    let why = p.flow.flow(&["why", "pkg/{one}/tidy/1", "m.kdl"]);
    why.exits(0).says("a run would not start: the variable STYLE").says("would be executed if it had that");
    let document = p.flow.flow(&["why", "pkg/{one}/tidy/1", "m.kdl", "--json"]).exits(0).json();
    assert!(document["missing"][0]["what"].as_str().unwrap().contains("STYLE"), "{document:#}");
}

#[test]
fn a_run_is_not_explained_by_another_manifest() {
    let flow = Flow::sample();
    flow.run().settles();
    std::fs::copy(flow.path("m.kdl"), flow.path("other.kdl")).unwrap();
    let status = flow.flow(&["why", "{one}", "--run", "--json"]).exits(0).json();
    let run = status["run"].as_str().unwrap();
    flow.flow(&["why", "{one}", "other.kdl", "--run", run]).exits(2).says("other.kdl").says("leave the manifest out");
    flow.flow(&["why", "{one}", "m.kdl", "--run", run]).exits(0);
}

#[test]
fn a_damaged_end_of_an_attempt_has_one_word_before_and_after() {
    let flow = Flow::sample();
    flow.run().settles();
    for file in std::fs::read_dir(flow.cache().join("records/v1")).unwrap() {
        let path = file.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let damaged =
            text.lines().map(|line| match line.contains("\"ended\"") && line.contains("\"step\":\"agent\"") {
                true => line.replacen("\"step\"", "\"stop\"", 1) + "\n",
                false => format!("{line}\n"),
            });
        std::fs::write(&path, damaged.collect::<String>()).unwrap();
    }
    let _ = std::fs::remove_dir_all(flow.cache().join("index"));
    let agent = |more: &[&str]| {
        let document = flow.flow(&[&["why", "pkg/{one}/tidy/1", "m.kdl", "--json"], more].concat()).exits(0).json();
        document["jobs"][0]["steps"].as_array().unwrap().iter().find(|step| step["step"] == "agent").unwrap().clone()
    };
    let before = agent(&[]);
    assert_eq!(before["state"], "retry", "{before:#}");
    assert!(before["because"].as_str().unwrap().contains("no end of it is recorded"), "{before:#}");
    flow.run().settles();
    assert_eq!(agent(&["--run"])["state"], "retry");
}

#[test]
fn no_line_of_a_plan_is_wider_than_a_terminal() {
    let plan = Flow::sample().flow(&["plan", "m.kdl"]).exits(0).stdout.clone();
    assert!(plan.contains("critical path: checkout"), "{plan}");
    assert!(plan.lines().all(|line| line.chars().count() <= 80), "{plan}");
}
