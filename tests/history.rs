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
            let shown = "agent scripted { run \"sh\" \"-c\" \"cat $0 >/dev/null; exec \\\"$@\\\"\" \"{config}\" ";
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
        let line = all.lines().position(|line| line.contains(&text)).unwrap_or_else(|| panic!("{text} is not in {file}"));
        format!("{}:{}", self.flow.fill(file), line + 1)
    }

    /// Edits, commits, and expects the blame at the line that holds a text.
    fn change(&mut self, subject: &'static str, file: &str, (old, new): (&str, &str), blame: Option<(&'static str, &'static str)>) {
        self.flow.replace(file, old, new);
        let place = blame.map(|_| self.line(file, new.lines().next_back().unwrap_or(new)));
        self.commit(subject, blame.map(|(step, what)| (step, what)).zip(place.as_deref()).map(|((step, what), place)| (step, what, place)));
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
    p.change("another version of the adapter", "agents.kdl", ("lines=\"flow-usage\" }", "lines=\"flow-usage\"; set QUIET \"1\" }"), agent("env QUIET"));
    p.change("the tests' script", "tests/{one}.py", ("import pkg.work\nif", "import pkg.work\n# a thought\nif"), None);
    p.made.last_mut().unwrap().blame = Some(("baseline", "script", p.line("tests/{one}.py", "# a thought")));
    p.change("the other's script", "tests/{two}.py", ("import json", "import json  # other"), None);
    p.change("a better patch", "patches/tidy/{one}.patch", ("+        OPS[0] += 5", "+        OPS[0] += 4"), agent("file patch"));
    p.change("another mode", "m.kdl", ("set MODE \"plain\"", "set MODE \"fancy\""), Some(("baseline", "env MODE")));
    p.change("more time", "m.kdl", ("step agent {", "step agent {\n        timeout \"2m\";"), None);
    p.change("the standard step ignores more", "steps.kdl", ("ignore \"*.log\"", "ignore \"*.log\" \"*.tmp\""), Some(("patch", "ignore")));
    p.change("an amendment of it", "m.kdl", ("    step agent {", "    step patch { ignore \"*.log\" \"*.bak\"; }\n    step agent {"), None);
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
    p.change("the adapter's version", "lib/agents.kdl", ("version \"1\"; usage", "version \"2\"; usage"), agent("version"));
    p.change("cooler", "configs/tidy.yaml", ("temperature: 0.7", "temperature: 0.1"), agent("config"));
    p.change("fewer steps, and why", "configs/tidy.yaml", ("  steps: 10", "  # ten were too many\n  steps: 8"), agent("config"));
    p.change("more is protected", "steps.kdl", ("protect \"tests/**\"", "protect \"tests/**\" \"docs/**\""), Some(("checkout", "protect")));
    p.change("a metric that is stricter", "m.kdl", ("min-effect=\"2%\"", "min-effect=\"3%\""), Some(("baseline", "metrics")));
    p.change("another candidate", "m.kdl", ("    candidate human", "    candidate idle agent=nop\n    candidate human"), None);
    p.change("a question before much is paid", "m.kdl", ("    tool python", "    confirm (usd)5.00\n    tool python"), None);
    p.change("more attempts", "steps.kdl", ("attempts 3", "attempts 4"), None);
    p.change("a judgement", "m.kdl", ("    step agent {", "    step classify { judge min-effect=\"1%\"; }\n    step agent {"), None);
    p.made.last_mut().unwrap().blame = Some(("classify", "judge", p.line("m.kdl", "judge min-effect")));
    p.git(&["mv", "m.kdl", "main.kdl"]);
    p.commit("the manifest has another name", None);
    p.git(&["mv", "main.kdl", "m.kdl"]);
    p.commit("and its old one again", None);
    p.change("the candidate has another name", "m.kdl", ("candidate tidy ", "candidate neat "), None);
    p.change("another probe", "m.kdl", ("probe \"-VV\"", "probe \"-V\""), Some(("build", "interpreter")));
    p.change("a plain mode again", "m.kdl", ("set MODE \"fancy\"", "set MODE \"plain\""), Some(("baseline", "env MODE")));
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
                let changed: Vec<&Value> = roots
                    .iter()
                    .filter(|step| step["state"] == "changed")
                    .collect();
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
    let document = p.flow.flow(&["why", "pkg/{one}/neat/1", "m.kdl", "--between", first, last, "--json"]).exits(0).json();
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
