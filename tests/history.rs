//! The promise of history: what differs between two versions of a manifest is told without a run, and each difference is traced to
//! the commit, the file and the line that brought it; what no commit brought is said to be in none.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use std::process::Command;

use serde_json::Value;
use support::Flow;

/// A commit that changes something, and what `why` has to blame for it.
struct Made {
    subject: &'static str,
    id: String,
    /// `step ingredient file:line`; nothing where no action differs.
    blame: Option<(&'static str, &'static str, String)>,
}

/// A project in git.
struct Project {
    flow: Flow,
    made: Vec<Made>,
}

impl Project {
    /// The sample, with a prompt, a config and a variable, in a first commit.
    fn new() -> Self {
        let flow = Flow::sample();
        flow.write("prompts/task.md", "Make it faster.\n\nDo not touch the tests.\n");
        flow.write("configs/tidy.yaml", "# how it works\nmodel:\n  temperature: 0.2\n  steps: 10\n");
        flow.edit("agents.kdl", |text| {
            let shown = "agent scripted { run \"sh\" \"-c\" \"cat $0 $1 >/dev/null; shift; exec \\\"$@\\\"\" \"{config}\" \"{prompt}\" ";
            text.replace("agent scripted { run ", shown)
        });
        flow.replace("m.kdl", "agent=scripted {", "agent=scripted {\n        config \"configs/tidy.yaml\"");
        flow.add("step agent { prompt file=\"prompts/task.md\" }");
        flow.add("step patched {\n        set MODE \"plain\"\n    }");
        flow.write(".gitignore", "/cache/\n/repo/\n");
        let mut project = Self { flow, made: Vec::new() };
        project.git(&["init", "-q", "-b", "main"]);
        project.commit("the first version", None);
        project
    }

    fn git(&self, args: &[&str]) -> String {
        self.git_as("Ann Author", args)
    }

    fn git_as(&self, author: &str, args: &[&str]) -> String {
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

    fn commit(&mut self, subject: &'static str, blame: Option<(&'static str, &'static str, &str)>) -> String {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "-m", subject]);
        let id = self.git(&["rev-parse", "HEAD"]);
        let blame = blame.map(|(step, ingredient, place)| (step, ingredient, self.flow.fill(place)));
        self.made.push(Made { subject, id: id.clone(), blame });
        id
    }

    /// The line of a file that holds a text, as `file:line`.
    fn line(&self, file: &str, text: &str) -> String {
        let text = self.flow.fill(text);
        let all = std::fs::read_to_string(self.flow.path(file)).unwrap();
        let line =
            all.lines().position(|line| line.contains(&text)).unwrap_or_else(|| panic!("{text} is not in {file}"));
        format!("{}:{}", self.flow.fill(file), line + 1)
    }

    /// Edits, commits, and expects the blame at the line that holds a text.
    fn change(
        &mut self,
        subject: &'static str,
        file: &str,
        (old, new): (&str, &str),
        blame: Option<(&'static str, &'static str)>,
    ) {
        self.flow.replace(file, old, new);
        let place = self.line(file, new.lines().next_back().unwrap_or(new));
        self.commit(subject, blame.map(|(step, what)| (step, what, place.as_str())));
    }
}

/// More than thirty commits, each of which changes one thing, and the list of what each is to be blamed for.
fn long_history() -> Project {
    let mut p = Project::new();
    let agent = |what| Some(("agent", what));
    p.change("a shorter prompt", "prompts/task.md", ("Make it faster.", "Be fast."), agent("prompt"));
    p.change("warmer", "configs/tidy.yaml", ("temperature: 0.2", "temperature: 0.7"), agent("config"));
    p.change("a comment in the config", "configs/tidy.yaml", ("# how it works", "# how it really works"), None);
    p.change("a comment in the manifest", "m.kdl", ("flow 1\n", "flow 1\n// the sample\n"), None);
    p.change(
        "another version of the adapter",
        "agents.kdl",
        ("lines=\"flow-usage\" }", "lines=\"flow-usage\"; set QUIET \"1\" }"),
        agent("env QUIET"),
    );
    p.change("the tests' script", "tests/{one}.py", ("import pkg.work\nif", "import pkg.work\n# a thought\nif"), None);
    p.made.last_mut().unwrap().blame = Some(("baseline", "script", p.line("tests/{one}.py", "# a thought")));
    p.change("the other's script", "tests/{two}.py", ("import json", "import json  # other"), None);
    p.change(
        "a better patch",
        "patches/tidy/{one}.patch",
        ("+        OPS[0] += 5", "+        OPS[0] += 4"),
        agent("file patch"),
    );
    p.change("another mode", "m.kdl", ("set MODE \"plain\"", "set MODE \"fancy\""), Some(("baseline", "env MODE")));
    p.change("more time", "m.kdl", ("step agent {", "step agent {\n        timeout \"2m\";"), None);
    p.change(
        "the standard step ignores more",
        "steps.kdl",
        ("ignore \"*.log\"", "ignore \"*.log\" \"*.tmp\""),
        Some(("patch", "ignore")),
    );
    p.change(
        "an amendment of it",
        "m.kdl",
        ("    step agent {", "    step patch { ignore \"*.log\" \"*.bak\"; }\n    step agent {"),
        None,
    );
    p.made.last_mut().unwrap().blame = Some(("patch", "ignore", p.line("m.kdl", "\"*.bak\"")));
    p.change("arguments", "m.kdl", ("config \"configs", "args \"--exit\" \"0\"\n        config \"configs"), None);
    p.made.last_mut().unwrap().blame = Some(("agent", "argv", p.line("m.kdl", "args \"--exit\"")));
    p.git(&["mv", "prompts/task.md", "prompts/work.md"]);
    p.change("the prompt has another name", "m.kdl", ("prompts/task.md", "prompts/work.md"), None);
    p.change("and other words", "prompts/work.md", ("the tests.", "any test."), agent("prompt"));
    p.flow.write("lib/agents.kdl", &std::fs::read_to_string(p.flow.path("agents.kdl")).unwrap());
    std::fs::remove_file(p.flow.path("agents.kdl")).unwrap();
    p.change("adapters have a folder", "m.kdl", ("\"agents.kdl\"", "\"lib/agents.kdl\""), None);
    p.change("the adapter is silent", "lib/agents.kdl", ("QUIET \"1\"", "QUIET \"2\""), agent("env QUIET"));
    p.change(
        "the adapter's version",
        "lib/agents.kdl",
        ("version \"1\"; usage", "version \"2\"; usage"),
        agent("version"),
    );
    p.change("cooler", "configs/tidy.yaml", ("temperature: 0.7", "temperature: 0.1"), agent("config"));
    p.change(
        "fewer steps, and why",
        "configs/tidy.yaml",
        ("  steps: 10", "  # ten were too many\n  steps: 8"),
        agent("config"),
    );
    p.change(
        "more is protected",
        "steps.kdl",
        ("protect \"tests/**\"", "protect \"tests/**\" \"docs/**\""),
        Some(("checkout", "protect")),
    );
    p.change(
        "a metric that is stricter",
        "m.kdl",
        ("min-effect=\"2%\"", "min-effect=\"3%\""),
        Some(("baseline", "metrics")),
    );
    p.change(
        "another candidate",
        "m.kdl",
        ("    candidate human", "    candidate idle agent=nop\n    candidate human"),
        None,
    );
    p.change(
        "a question before much is paid",
        "m.kdl",
        ("    tool python", "    confirm (usd)5.00\n    tool python"),
        None,
    );
    p.change("more attempts", "steps.kdl", ("attempts 3", "attempts 4"), None);
    p.change(
        "a judgement",
        "m.kdl",
        ("    step agent {", "    step classify { judge min-effect=\"1%\"; }\n    step agent {"),
        None,
    );
    p.made.last_mut().unwrap().blame = Some(("classify", "judge", p.line("m.kdl", "judge min-effect")));
    p.git(&["mv", "m.kdl", "main.kdl"]);
    p.commit("the manifest has another name", None);
    p.git(&["mv", "main.kdl", "m.kdl"]);
    p.commit("and its old one again", None);
    p.change("the candidate has another name", "m.kdl", ("candidate tidy ", "candidate neat "), None);
    p.change("another probe", "m.kdl", ("probe \"-VV\"", "probe \"-V\""), Some(("build", "interpreter")));
    p.change(
        "a plain mode again",
        "m.kdl",
        ("set MODE \"fancy\"", "set MODE \"plain\""),
        Some(("baseline", "env MODE")),
    );
    p.flow.write("NOTES.md", "Nothing that a manifest names.\n");
    p.commit("notes", None);
    assert!(p.made.len() > 32);
    p
}

/// The first root of a `why` document, for a candidate.
fn roots(document: &Value) -> Vec<Value> {
    let jobs = document["jobs"].as_array().unwrap().iter();
    let steps = jobs.flat_map(|job| job["steps"].as_array().unwrap().clone());
    steps.filter(|step| step["root"] == true && !step["changes"].as_array().unwrap().is_empty()).collect()
}

#[track_caller]
fn names(origin: &Value, id: &str, place: &str, what: &str) {
    let said = format!("{}:{}", origin["path"].as_str().unwrap_or("?"), origin["line"]);
    assert_eq!((origin["commit"].as_str(), said.as_str()), (Some(id), place), "{what}: {origin}");
}

#[test]
fn each_of_more_than_thirty_commits_is_blamed_for_what_it_changed() {
    let p = long_history();
    for (before, made) in p.made.iter().zip(&p.made[1..]) {
        let ran = p.flow.flow(&["why", "{one}", "m.kdl", "--between", &before.id, &made.id, "--json"]);
        let document = ran.exits(0).json();
        let roots = roots(&document);
        match &made.blame {
            None => {
                let changed: Vec<&Value> = roots.iter().filter(|step| step["state"] == "changed").collect();
                assert!(changed.is_empty(), "{}: {changed:#?}", made.subject);
            }
            Some((step, ingredient, place)) => {
                let first = roots.first().unwrap_or_else(|| panic!("{}: nothing is blamed", made.subject));
                let change = &first["changes"][0];
                let said = (first["step"].as_str().unwrap(), change["ingredient"].as_str().unwrap());
                assert_eq!(said, (*step, *ingredient), "{}", made.subject);
                names(&change["origin"], &made.id, place, made.subject);
                assert_eq!(change["origin"]["subject"], made.subject);
                assert_eq!(change["origin"]["author"], "Ann Author");
            }
        }
    }
}

#[test]
fn over_many_commits_each_change_is_traced_to_the_last_that_brought_it() {
    let p = long_history();
    let (first, last) = (&p.made.first().unwrap().id, &p.made.last().unwrap().id);
    let document =
        p.flow.flow(&["why", "pkg/{one}/neat/1", "m.kdl", "--between", first, last, "--json"]).exits(0).json();
    let by = |subject: &str| p.made.iter().find(|made| made.subject == subject).unwrap();
    let wanted = [
        ("agent", "prompt", "and other words"),
        ("agent", "config", "fewer steps, and why"),
        ("agent", "argv", "arguments"),
        ("agent", "env QUIET", "the adapter is silent"),
        ("agent", "version", "the adapter's version"),
        ("agent", "file patch", "a better patch"),
        ("patch", "ignore", "an amendment of it"),
        ("checkout", "protect", "more is protected"),
        ("baseline", "script", "the tests' script"),
        ("baseline", "metrics", "a metric that is stricter"),
        ("classify", "judge", "a judgement"),
        ("build", "interpreter", "another probe"),
    ];
    let all = roots(&document);
    for (step, ingredient, subject) in wanted {
        let step = all.iter().find(|known| known["step"] == step).unwrap_or_else(|| panic!("{step} is no root"));
        let change = step["changes"].as_array().unwrap().iter().find(|change| change["ingredient"] == ingredient);
        let change = change.unwrap_or_else(|| panic!("{ingredient} is not said to have changed: {step}"));
        assert_eq!(change["origin"]["commit"], by(subject).id, "{ingredient}: {change}");
    }
    assert!(!document.to_string().contains("env MODE"), "it is plain at both ends");
    let text = p.flow.flow(&["why", "pkg/{one}/neat/1", "m.kdl", "--against", first]);
    text.exits(0).says(", Ann Author: and other words").says("prompts/work.md:3");
    assert!(text.stdout.lines().all(|line| line.chars().count() <= 80), "{}", text.stdout);
}

#[test]
fn after_a_run_why_names_the_commit_that_each_new_value_came_with() {
    let mut p = Project::new();
    p.flow.run().settles().says("\"run-finished\"");
    p.change("a shorter prompt", "prompts/task.md", ("Make it faster.", "Be fast."), None);
    let prompt = p.made.last().unwrap().id.clone();
    p.change("another mode", "m.kdl", ("set MODE \"plain\"", "set MODE \"fancy\""), None);
    let mode = p.made.last().unwrap().id.clone();
    let place = p.line("m.kdl", "set MODE");
    let check = |document: &Value| {
        let all = roots(document);
        let agent = all.iter().find(|step| step["step"] == "agent").unwrap();
        names(&agent["changes"][0]["origin"], &prompt, "prompts/task.md:1", "the prompt");
        let patched = all.iter().find(|step| step["step"] == "patched").unwrap();
        let changes = patched["changes"].as_array().unwrap();
        let change = changes.iter().find(|change| change["ingredient"] == "env MODE").unwrap();
        names(&change["origin"], &mode, &place, "the mode");
    };
    let before = p.flow.flow(&["why", "{one}", "m.kdl", "--json"]);
    check(&before.exits(0).json());
    p.flow.flow(&["why", "{one}", "m.kdl"]).exits(0).says(", Ann Author: a shorter prompt").says("prompts/task.md:1");
    p.flow.run().settles();
    // Later commits are not what that run was about.
    p.change("a longer prompt", "prompts/task.md", ("Be fast.", "Be really fast."), None);
    check(&p.flow.flow(&["why", "{one}", "--run", "--json"]).exits(0).json());
}

#[test]
fn what_is_not_committed_is_said_to_be_so_with_its_file_and_line() {
    let mut p = Project::new();
    p.flow.run().settles();
    p.flow.flow(&["status"]).exits(0).says("  commit    ");
    p.flow.replace("prompts/task.md", "Do not touch", "Never touch");
    let agent = |document: Value| roots(&document).into_iter().find(|step| step["step"] == "agent").unwrap();
    let origin =
        agent(p.flow.flow(&["why", "{one}", "m.kdl", "--json"]).exits(0).json())["changes"][0]["origin"].clone();
    assert_eq!(
        (&origin["commit"], &origin["path"], &origin["line"]),
        (&Value::Null, &"prompts/task.md".into(), &3.into())
    );
    assert!(origin["age_s"].is_number() && origin["date"].is_string(), "{origin}");
    p.flow.flow(&["why", "{one}", "m.kdl"]).exits(0).says("uncommitted, edited ").says(" ago: prompts/task.md:3");
    p.flow.flow(&["history", "m.kdl"]).exits(0).says("uncommitted: prompts/task.md");
    let ran = p.flow.flow(&["run", "m.kdl", "--quiet"]);
    ran.exits(0).says("UNCOMMITTED: prompts/task.md: not as commit");
    p.flow.flow(&["status"]).says("UNCOMMITTED: prompts/task.md: not as commit");
    p.flow
        .flow(&["why", "{one}", "--run"])
        .exits(0)
        .says("UNCOMMITTED: ")
        .says("uncommitted, edited ")
        .says(" ago: prompts/task.md:3");
    let status = p.flow.flow(&["status", "--json"]).json();
    assert_eq!(status["git"]["dirty"], serde_json::json!(["prompts/task.md"]));
    let begun = |event: &Value| event["event"] == "run-started" && event["git"] == status["git"];
    assert!(p.flow.journal().iter().any(begun), "the run's first event has it too");
    p.commit("now it is", None);
    let events = p.flow.run().settles().events();
    let id = p.made.last().unwrap().id.clone();
    assert_eq!(events[0]["git"], serde_json::json!({"commit": id, "dirty": []}));
    // What that run used was committed later: now it is known by whom, and where.
    let (edited, ask) = (status["run"].as_str().unwrap(), ["why", "{one}", "--run"]);
    let said = format!("uncommitted then, committed since by {}", &id[..8]);
    p.flow.flow(&[&ask[..], &[edited]].concat()).exits(0).says(&said).says("prompts/task.md:3");
    let document = p.flow.flow(&[&ask[..], &[edited, "--json"]].concat()).exits(0).json();
    let origin = agent(document)["changes"][0]["origin"].clone();
    assert_eq!((&origin["commit"], &origin["uncommitted_then"]), (&id.as_str().into(), &true.into()), "{origin}");
    let since = format!("UNCOMMITTED then: prompts/task.md; committed since as it was, by {}", &id[..8]);
    let said = p.flow.flow(&[&ask[..], &[edited]].concat());
    assert!(!said.exits(0).says(&since).stderr.contains("nobody else"), "{}", said.stderr);
    // What nobody ever committed says so, with the file.
    p.flow.replace("prompts/task.md", "Never touch", "Hardly ever touch");
    let lost = p.flow.run().settles().finished()["run"].as_str().unwrap().to_owned();
    p.flow.replace("prompts/task.md", "Hardly ever touch", "Never touch");
    let said = "not in git: prompts/task.md was edited for the run, and never";
    p.flow.flow(&[&ask[..], &[&lost]].concat()).exits(0).says(said);
    p.flow.flow(&["run", "m.kdl", "--quiet"]).exits(0);
    let status = p.flow.flow(&["status", "--json"]).json();
    assert_eq!(status["git"], serde_json::json!({"commit": p.made.last().unwrap().id, "dirty": []}));
    // A file that is there and was never added is not committed either.
    p.flow.write("scripts/tidy/{one}.json", "{}");
    p.flow.flow(&["why", "{one}", "m.kdl"]).exits(0).says("file script: (none) -> ").says("uncommitted, edited ");
}

#[test]
fn what_this_machine_decides_is_not_in_git() {
    use std::os::unix::fs::PermissionsExt as _;
    let mut flow_env = Project::new();
    let p = &mut flow_env;
    p.flow.write("../bin/python", "#!/bin/sh\n[ \"$1\" = -VV ] && { echo one; exit; }\nexec python3 \"$@\"\n");
    std::fs::set_permissions(p.flow.path("../bin/python"), std::fs::Permissions::from_mode(0o755)).unwrap();
    p.flow.replace("m.kdl", "tool python \"python3\"", "tool python \"../bin/python\"");
    p.flow.replace("m.kdl", "set MODE \"plain\"", "set MODE \"{var.MODE}\"; pass SPEED");
    p.flow.env("MODE", "plain");
    p.flow.env("SPEED", "1");
    p.commit("a tool of the machine's", None);
    p.flow.run().settles();
    p.flow.replace("../bin/python", "echo one", "echo two");
    p.flow.env("MODE", "fancy");
    p.flow.env("SPEED", "2");
    let text = p.flow.flow(&["why", "{one}", "m.kdl"]);
    text.exits(0)
        .says("not in git: the probe of tool python answered otherwise")
        .says("not in git: the variable MODE had another value")
        .says("not in git: the variable SPEED, which is passed on, had another value");
    assert!(!text.stdout.contains("Ann Author"), "{}", text.stdout);
    // What is asked of it otherwise is, although the tool changed too.
    p.change("ask more", "m.kdl", ("probe \"-VV\"", "probe \"-VV\"; probe \"-V\""), None);
    p.flow.flow(&["why", "{one}", "m.kdl"]).exits(0).says("Ann Author: ask more");
}

#[test]
fn a_version_with_flaws_hides_nothing_that_is_older() {
    let mut p = Project::new();
    p.flow.run().settles();
    p.change("a shorter prompt", "prompts/task.md", ("Make it faster.", "Be fast."), None);
    let id = p.made.last().unwrap().id.clone();
    p.change("a slip", "m.kdl", ("pipeline sample {", "pipelin sample {"), None);
    p.change("mended", "m.kdl", ("pipelin sample {", "pipeline sample {"), None);
    let document = p.flow.flow(&["why", "pkg/{one}/tidy/1", "m.kdl", "--json"]).exits(0).json();
    let agent = roots(&document).into_iter().find(|step| step["step"] == "agent").unwrap();
    names(&agent["changes"][0]["origin"], &id, "prompts/task.md:1", "the prompt");
    p.flow
        .flow(&["history", "m.kdl"])
        .exits(0)
        .says("it cannot be planned: ")
        .says("the version before cannot be planned: ");
    p.flow.flow(&["why", "{one}", "m.kdl", "--against", "HEAD~1"]).exits(2).says("cannot be planned");
}

#[test]
fn a_linked_work_tree_and_references_of_another_kind_are_told_apart() {
    let mut p = Project::new();
    p.change("a shorter prompt", "prompts/task.md", ("Make it faster.", "Be fast."), None);
    let beside = p.flow.beside("linked");
    p.git(&["worktree", "add", "-q", "-b", "linked", beside.to_str().unwrap(), "HEAD~1"]);
    let manifest = beside.join("m.kdl");
    std::os::unix::fs::symlink(p.flow.path("repo"), beside.join("repo")).unwrap();
    let history = p.flow.flow(&["history", manifest.to_str().unwrap(), "--json"]).exits(0).json();
    assert_eq!(history["versions"].as_array().unwrap().len(), 1, "its own HEAD: {history}");
    p.flow.flow(&["plan", manifest.to_str().unwrap(), "--at", "main"]).exits(0).says("a shorter prompt");
    std::fs::create_dir(p.flow.path(".git/reftable")).unwrap();
    std::fs::write(p.flow.path(".git/HEAD"), "ref: refs/heads/.invalid\n").unwrap();
    p.flow.flow(&["history", "m.kdl"]).exits(3).says("reftable");
    std::fs::write(p.flow.path(".git/HEAD"), format!("{}\n", "a".repeat(64))).unwrap();
    p.flow.flow(&["history", "m.kdl"]).exits(3).says("not sha1");
}

#[test]
fn a_new_candidate_is_traced_to_the_line_that_added_it() {
    let mut p = Project::new();
    p.flow.run().settles();
    p.change(
        "someone idle",
        "m.kdl",
        ("    candidate human", "    candidate idle agent=nop\n    candidate human"),
        None,
    );
    let id = p.made.last().unwrap().id.clone();
    let place = p.line("m.kdl", "candidate idle");
    p.change("something else", "prompts/task.md", ("Make", "Do make"), None);
    let document = p.flow.flow(&["why", "pkg/{one}/idle/1", "m.kdl", "--json"]).exits(0).json();
    let steps = document["jobs"][0]["steps"].as_array().unwrap();
    let agent = steps.iter().find(|step| step["step"] == "agent").unwrap();
    assert_eq!(agent["state"], "new");
    names(&agent["origin"], &id, &place, "the candidate");
    p.flow.flow(&["why", "pkg/{one}/idle/1", "m.kdl"]).exits(0).says("Ann Author: someone idle");
}

#[test]
fn a_version_is_planned_without_touching_the_work_tree() {
    let mut p = Project::new();
    p.flow.run().settles();
    p.change("a shorter prompt", "prompts/task.md", ("Make it faster.", "Be fast."), None);
    p.git(&["mv", "m.kdl", "main.kdl"]);
    p.commit("the manifest has another name", None);
    p.flow.write("prompts/task.md", "rubbish {");
    let listing = || p.git(&["status", "--porcelain"]);
    let before = listing();
    let plan = |rev: &str| p.flow.flow(&["plan", "main.kdl", "--at", rev, "--json"]).exits(0).json();
    assert_eq!(plan("HEAD~2")["execute"], 0, "it is what was run");
    let now = plan("HEAD");
    assert_eq!(now["at"], p.made.last().unwrap().id);
    let agents = now["actions"].as_array().unwrap().iter().filter(|action| action["state"] == "changed");
    assert_eq!(agents.count(), 2, "two commits of the candidate that reads it");
    assert_eq!(plan(&p.made[0].id[..7])["execute"], 0, "by the first digits");
    p.git(&["tag", "-a", "-m", "published", "v1", "HEAD~2"]);
    p.git(&["pack-refs", "--all"]);
    assert_eq!(plan("v1")["execute"], 0, "by an annotated tag that is packed");
    p.flow.flow(&["plan", "main.kdl"]).exits(2);
    p.flow
        .flow(&["plan", "main.kdl", "--at", "v2"])
        .exits(2)
        .says("`v2` names no commit of")
        .says("give a commit's id");
    p.flow.flow(&["plan", "main.kdl", "--at", "HEAD~99"]).exits(2).says("names no commit of");
    assert_eq!(listing(), before);
}

#[test]
fn history_lists_the_versions_and_what_each_would_run_again() {
    let p = long_history();
    let all = p.flow.flow(&["history", "m.kdl", "-n", "100", "--json"]).exits(0).json();
    let versions = all["versions"].as_array().unwrap();
    let subjects: Vec<&str> = versions.iter().map(|version| version["subject"].as_str().unwrap()).collect();
    let wanted: Vec<&str> =
        p.made.iter().rev().map(|made| made.subject).filter(|subject| *subject != "notes").collect();
    assert_eq!(subjects, wanted, "each commit that touches it, however it is called, and no other");
    assert!(all.get("more").is_none());
    let of = |subject: &str| versions.iter().find(|version| version["subject"] == subject).unwrap();
    assert_eq!(of("a comment in the manifest")["again"]["steps"], serde_json::json!([]));
    assert_eq!(of("the prompt has another name")["again"]["steps"], serde_json::json!([]));
    assert_eq!(of("more time")["again"]["limits"], 4);
    let prompt = &of("a shorter prompt")["again"];
    assert_eq!(prompt["steps"], serde_json::json!([["agent", 2]]), "of the one that reads it: {prompt}");
    assert_eq!(prompt["at_most"], serde_json::json!([["patch", 2], ["patched", 2], ["classify", 2]]), "{prompt}");
    let cause = &prompt["causes"][0];
    assert_eq!((&cause["change"]["ingredient"], &cause["line"]), (&"prompt".into(), &1.into()), "{prompt}");
    assert_eq!((&cause["actions"], &prompt["causes"][1]), (&2.into(), &Value::Null), "one line is one cause: {prompt}");
    assert_eq!(
        of("another candidate")["again"]["new"],
        8,
        "four steps of two commits; a rebuild is the build that is there"
    );
    assert_eq!(of("the first version")["because"], "the first version");
    let few = p.flow.flow(&["history", "m.kdl", "-n", "3"]);
    few.exits(0).says("older versions are listed with a larger -n").says("Ann Author: a plain mode again");
    assert!(few.stdout.lines().all(|line| line.chars().count() <= 80), "{}", few.stdout);
}

#[test]
fn without_a_repository_or_a_commit_that_is_said() {
    let flow = Flow::sample();
    flow.run().settles();
    flow.replace("patches/tidy/{one}.patch", "+        OPS[0] += 5", "+        OPS[0] += 4");
    let why = flow.flow(&["why", "{one}", "m.kdl"]);
    why.exits(0).says("file patch");
    assert!(!why.stdout.contains("git") && !why.stdout.contains("uncommitted"), "{}", why.stdout);
    flow.flow(&["history", "m.kdl"]).exits(2).says("m.kdl lies in no git repository").says("git init");
    flow.flow(&["plan", "m.kdl", "--at", "HEAD"]).exits(2).says("lies in no git repository");
    assert!(flow.flow(&["status", "--json"]).json().get("git").is_none());
    // Before the first commit, and with a manifest that was never added.
    support::git(&flow.path("."), &["init", "-q", "-b", "main"]);
    flow.flow(&["why", "{one}", "m.kdl"]).exits(0).says("not in git: the project has no commit yet");
    flow.flow(&["history", "m.kdl"]).exits(0).says("the project has no commit yet");
    flow.write(".gitignore", "/repo\n/cache\n");
    support::git(&flow.path("."), &["add", ".gitignore"]);
    support::git(&flow.path("."), &["commit", "-q", "-m", "nothing yet"]);
    flow.flow(&["why", "{one}", "m.kdl"]).exits(0).says("not in git: m.kdl was never committed");
}

#[test]
fn a_shallow_clone_and_a_rewritten_history_are_told_from_a_whole_one() {
    let mut p = Project::new();
    p.flow.run().settles();
    p.change("a shorter prompt", "prompts/task.md", ("Make it faster.", "Be fast."), None);
    let old = p.made.last().unwrap().id.clone();
    p.change("a comment", "m.kdl", ("flow 1\n", "flow 1\n// comment\n"), None);
    p.flow.flow(&["why", "{one}", "m.kdl"]).exits(0).says(": a shorter prompt");
    // The same change under another id.
    p.git(&["reset", "-q", "--soft", "HEAD~2"]);
    p.git(&["commit", "-q", "-m", "both at once"]);
    let why = p.flow.flow(&["why", "{one}", "m.kdl", "--json"]).exits(0).json();
    let agent = roots(&why).into_iter().find(|step| step["step"] == "agent").unwrap();
    let origin = &agent["changes"][0]["origin"];
    assert_eq!(origin["subject"], "both at once");
    assert_ne!(origin["commit"], old);
    // The history begins with a commit that has it already.
    let head = p.git(&["rev-parse", "HEAD"]);
    p.flow.write("m.kdl", &format!("{}// more\n", std::fs::read_to_string(p.flow.path("m.kdl")).unwrap()));
    p.commit("a comment", None);
    std::fs::write(p.flow.path(".git/shallow"), format!("{head}\n")).unwrap();
    let why = p.flow.flow(&["why", "{one}", "m.kdl"]);
    why.exits(0).says(&format!("the history here begins with {}", &head[..8]));
    p.flow.flow(&["history", "m.kdl"]).exits(0).says("the history here is shallow");
}

#[test]
fn a_merge_names_the_commit_of_the_side_that_brought_it() {
    let mut p = Project::new();
    p.flow.run().settles();
    p.git(&["checkout", "-q", "-b", "side"]);
    p.change("warmer", "configs/tidy.yaml", ("temperature: 0.2", "temperature: 0.9"), None);
    let side = p.made.last().unwrap().id.clone();
    p.git(&["checkout", "-q", "main"]);
    p.change("a shorter prompt", "prompts/task.md", ("Make it faster.", "Be fast."), None);
    let main = p.made.last().unwrap().id.clone();
    p.git(&["merge", "-q", "--no-ff", "-m", "both", "side"]);
    let document = p.flow.flow(&["why", "pkg/{one}/tidy/1", "m.kdl", "--json"]).exits(0).json();
    let agent = roots(&document).into_iter().find(|step| step["step"] == "agent").unwrap();
    let changes = agent["changes"].as_array().unwrap();
    let of = |what: &str| &changes.iter().find(|change| change["ingredient"] == what).unwrap()["origin"];
    names(of("prompt"), &main, "prompts/task.md:1", "of main");
    names(of("config"), &side, "configs/tidy.yaml:3", "of the side");
    let history = p.flow.flow(&["history", "m.kdl", "--json"]).exits(0).json();
    let subjects: Vec<&str> =
        history["versions"].as_array().unwrap().iter().map(|v| v["subject"].as_str().unwrap()).collect();
    assert_eq!(subjects.len(), 4, "the merge is another version than each of its parents: {subjects:?}");
}

#[test]
fn a_hostile_author_commands_no_terminal_and_links_lead_nowhere() {
    let mut p = Project::new();
    p.flow.run().settles();
    p.flow.replace("prompts/task.md", "Make it", "Make this");
    p.git(&["add", "-A"]);
    p.git_as("Eve \u{1b}[2J\u{202e}\u{7}", &["commit", "-q", "-m", "harm\u{1b}]0;x\u{7} \u{202e}done"]);
    for verb in [&["why", "{one}", "m.kdl"][..], &["history", "m.kdl"], &["plan", "m.kdl", "--at", "HEAD"]] {
        let ran = p.flow.flow(verb);
        ran.exits(0);
        for text in [&ran.stdout, &ran.stderr] {
            assert!(!text.contains(['\u{1b}', '\u{202e}', '\u{7}']), "{text:?}");
        }
    }
    p.flow.flow(&["why", "{one}", "m.kdl"]).says("Eve");
    // A link out of the project is followed neither in a commit nor blamed.
    std::fs::write(p.flow.beside("outside.md"), "Be evil.\n").unwrap();
    std::fs::remove_file(p.flow.path("prompts/task.md")).unwrap();
    std::os::unix::fs::symlink("../../outside.md", p.flow.path("prompts/task.md")).unwrap();
    p.commit("a link", None);
    let ran = p.flow.flow(&["plan", "m.kdl", "--at", "HEAD"]);
    ran.exits(2).says("prompts/task.md");
    // One within it is.
    std::fs::remove_file(p.flow.path("prompts/task.md")).unwrap();
    p.flow.write("prompts/real.md", "Be good.\n");
    std::os::unix::fs::symlink("real.md", p.flow.path("prompts/task.md")).unwrap();
    p.commit("a link within", None);
    p.flow.replace("prompts/real.md", "good", "better");
    p.commit("what it leads to", None);
    p.flow.flow(&["plan", "m.kdl", "--at", "HEAD"]).exits(0);
    let document = p.flow.flow(&["why", "{one}", "m.kdl", "--between", "HEAD~1", "HEAD", "--json"]).exits(0).json();
    let change = &roots(&document)[0]["changes"][0];
    assert_eq!((&change["ingredient"], &change["origin"]["subject"]), (&"prompt".into(), &"what it leads to".into()));
}

#[test]
fn a_history_without_end_is_looked_at_up_to_a_bound_and_that_is_said() {
    let mut p = Project::new();
    p.flow.run().settles();
    p.change("a shorter prompt", "prompts/task.md", ("Make it faster.", "Be fast."), None);
    let mut stream = String::from("reset refs/heads/main\nfrom HEAD\n\n");
    for n in 0..10_020 {
        stream.push_str(&format!("commit refs/heads/main\ncommitter Ann Author <a@b> {} +0000\n", 1_900_000_000 + n));
        let from = if n == 0 { "from refs/heads/main^0\n" } else { "" };
        stream.push_str(&format!("data 4\nbusy\n{from}M 100644 inline NOTES\ndata {}\n{n}\n", n.to_string().len()));
    }
    let mut import = Command::new("git")
        .args(["fast-import", "--quiet", "--force"])
        .current_dir(p.flow.path("."))
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut import.stdin.take().unwrap(), stream.as_bytes()).unwrap();
    assert!(import.wait().unwrap().success());
    p.flow.flow(&["why", "{one}", "m.kdl"]).exits(0).says("beyond which nothing was looked at");
    // What is within the bound is found.
    p.change("another mode", "m.kdl", ("set MODE \"plain\"", "set MODE \"fancy\""), None);
    p.flow.flow(&["why", "{one}", "m.kdl"]).exits(0).says(", Ann Author: another mode");
}

#[test]
fn a_file_that_git_lfs_keeps_is_what_it_stands_for() {
    let mut p = Project::new();
    let prompt = "Be fast, and be large.\n";
    let digest = flow::digest::Digest::of(prompt.as_bytes()).hex();
    let pointer = |digest: &str| format!("version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize 23\n");
    p.flow.write("prompts/task.md", &pointer(&digest));
    p.commit("large", None);
    // As a checkout with git-lfs would leave it.
    p.flow.write("prompts/task.md", prompt);
    p.flow.write(&format!(".git/lfs/objects/{}/{}/{digest}", &digest[..2], &digest[2..4]), prompt);
    let ran = p.flow.flow(&["run", "m.kdl", "--quiet"]);
    assert!(!ran.exits(0).stdout.contains("UNCOMMITTED"), "{}", ran.stdout);
    assert_eq!(p.flow.flow(&["plan", "m.kdl", "--at", "HEAD", "--json"]).exits(0).json()["execute"], 0);
}

#[test]
fn against_means_a_run_before_a_job_and_a_job_before_a_revision() {
    let mut p = Project::new();
    let run = p.flow.run().settles().finished()["run"].as_str().unwrap().to_owned();
    p.change("warmer", "configs/tidy.yaml", ("temperature: 0.2", "temperature: 0.7"), None);
    let id = p.made.last().unwrap().id.clone();
    let flow = &p.flow;
    let against = |what: &str, more: &[&str]| {
        flow.flow(&[&["why", "pkg/{one}/tidy/1", "m.kdl", "--against", what, "--json"], more].concat())
    };
    let agent = |document: &Value| {
        let steps = document["jobs"][0]["steps"].as_array().unwrap();
        steps.iter().find(|step| step["step"] == "agent").unwrap().clone()
    };
    // Names of commits that are also those of a run and of a job.
    p.git(&["tag", &run, "HEAD"]);
    p.git(&["tag", &flow.fill("pkg/{one}/human/1"), "HEAD"]);
    p.git(&["tag", "v1", "HEAD~1"]);
    let with_run = against(&run, &[]).exits(0).json();
    assert_eq!(with_run["jobs"][0]["against"], format!("what it was in run {run}"));
    assert_eq!(agent(&with_run)["changes"][0]["diff"], "model.temperature: 0.2 -> 0.7");
    let with_job = against("pkg/{one}/human/1", &["--step", "agent"]).exits(0).json();
    assert_eq!(with_job["jobs"][0]["against"], flow.fill("pkg/{one}/human/1"));
    assert_eq!(with_job["jobs"][0]["steps"].as_array().unwrap().len(), 1, "only the agent");
    let place = p.line("configs/tidy.yaml", "temperature");
    for revision in ["v1", "HEAD~1"] {
        let older = against(revision, &["--step", "agent", "--key"]).exits(0).json();
        let (agent, steps) = (agent(&older), older["jobs"][0]["steps"].as_array().unwrap().len());
        assert_eq!((steps, &agent["changes"][0]["diff"]), (1, &"model.temperature: 0.2 -> 0.7".into()));
        names(&agent["changes"][0]["origin"], &id, &place, "the config");
        let held = agent["known"]["ingredients"].as_array().unwrap();
        assert!(held.iter().any(|held| held["ingredient"] == "config"), "{agent}");
    }
    // One line a step, whatever it is compared with.
    let short = |what: &str| flow.flow(&["why", "pkg/{one}/tidy/1", "m.kdl", "--against", what, "--short"]);
    for (what, said) in
        [(run.as_str(), "agent  differs  config\n"), ("pkg/{one}/human/1", "patched  "), ("v1", "config, by ")]
    {
        let ran = short(what);
        ran.exits(0).says(said);
        assert!(ran.stdout.lines().all(|line| line.starts_with("pkg/") || !line.contains("pkg/")), "{}", ran.stdout);
    }
    assert_eq!(short(&run).stdout.lines().count(), with_run["jobs"][0]["steps"].as_array().unwrap().len());
    against("nobody", &[]).exits(2).says("it is no run, no job and no git revision");
    against("pkg/*/nobody/1", &[]).exits(2).says("it is no run, no job and no git revision");
    flow.flow(&["why", "{one}", "--run", "--against", "v1"]).exits(2).says("that is a git revision");
}

#[test]
fn who_brought_a_change_is_told_beside_what_a_key_holds_and_on_one_line() {
    let mut p = Project::new();
    p.flow.run().settles();
    p.change("warmer", "configs/tidy.yaml", ("temperature: 0.2", "temperature: 0.7"), None);
    let id = p.made.last().unwrap().id.clone();
    let said = p.flow.flow(&["why", "pkg/{one}/tidy/1", "m.kdl", "--short"]);
    said.exits(0).says(&format!("agent  changed  config, by {}\n", &id[..8]));
    let said = p.flow.flow(&["why", "pkg/{one}/tidy/1", "m.kdl", "--key", "--step", "agent"]);
    said.exits(0).says(", Ann Author: warmer").says("model.temperature: 0.2 -> 0.7").says("in its key:");
    p.flow.replace("configs/tidy.yaml", "temperature: 0.7", "temperature: 0.9");
    p.flow.flow(&["why", "pkg/{one}/tidy/1", "m.kdl", "--short"]).exits(0).says("config, uncommitted\n");
    // A job that is served has nothing to be traced.
    let hits = p.flow.flow(&["why", "pkg/{one}/human/1", "m.kdl", "--json"]).exits(0).json();
    assert!(!hits.to_string().contains("\"origin\""), "{hits}");
}
