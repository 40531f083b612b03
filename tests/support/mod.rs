//! The builder on which the promises are written: a project in a folder of its own, real git, real processes, the real program.
//!
//! ```ignore
//! let flow = Flow::sample();
//! flow.run().settles();
//! flow.run().executes_nothing();
//! flow.edit("patches/tidy/{one}.patch", |text| text.replace("x", "y"));
//! flow.run().executes(&["{one}/tidy/1 agent", "{one}/tidy/1 patch"]);
//! ```
//! `{one}` stands for the first eight digits of the commit made by that name.

#![allow(dead_code, unreachable_pub, reason = "each test file uses what it needs of this builder")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

pub mod processes;

/// A project: a manifest, its files, its repositories, a store and slot locks of its own.
pub struct Flow {
    dir: tempfile::TempDir,
    commits: BTreeMap<String, String>,
    env: BTreeMap<String, String>,
}

/// What a command did.
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    commits: BTreeMap<String, String>,
}

impl Flow {
    /// An empty project.
    pub fn empty() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("project")).unwrap();
        Self { dir, commits: BTreeMap::new(), env: BTreeMap::new() }
    }

    /// A small pipeline: a package of two functions, commits `one` and `two` that each make one of them do less work, exact
    /// counts, candidates `human` and `tidy` (replays `patches/tidy/ID8.patch`). Manifest `m.kdl`. About a second cold.
    pub fn sample() -> Self {
        let mut flow = Self::empty();
        let slow = "OPS = [0]\n\n\ndef one(n):\n    for _ in range(n):\n        OPS[0] += 10\n    return n\n\n\ndef two(n):\n    for _ in range(n):\n        OPS[0] += 10\n    return n + 1\n";
        let one = slow.replacen("OPS[0] += 10", "OPS[0] += 1", 1);
        let two = slow.replace("OPS[0] += 10", "OPS[0] += 1");
        flow.commit("start", &[("pkg/__init__.py", ""), ("pkg/work.py", slow), ("tests/test_work.py", "# tests\n")]);
        flow.commit("one", &[("pkg/work.py", &one)]);
        flow.commit("two", &[("pkg/work.py", &two)]);
        flow.write("commits.txt", "{one:40}\n{two:40}\n");
        for name in ["one", "two"] {
            flow.write(&format!("tests/{{{name}}}.py"), &test_script(name));
        }
        flow.patch("tidy", "one", "pkg/work.py", |text| text.replacen("OPS[0] += 10", "OPS[0] += 5", 1));
        flow.patch("tidy", "two", "pkg/work.py", |text| {
            let at = text.rfind("OPS[0] += 10").unwrap();
            format!("{}OPS[0] += 5{}", &text[..at], &text[at + 12..])
        });
        flow.write(
            "agents.kdl",
            r#"flow 1
agent human    { run "{flow}" "act" "apply" "{human-change}"; version "1" }
agent nop      { run "{flow}" "act" "nothing"; version "1" }
agent scripted { run "{flow}" "act" "scripted" "--patch" "{file.patch}" "--script" "{file.script}" "{args}"; version "1"; usage lines="flow-usage" }
"#,
        );
        flow.write(
            "steps.kdl",
            r#"flow 1
step checkout uses=checkout
step build    uses=environment { needs checkout; recipe interpreter }
step baseline uses=test        { needs checkout build; timeout "1m" }
step agent    uses=agent       { needs checkout; after baseline; timeout "1m"; attempts 3 }
step patch    uses=patch       { needs agent; protect "tests/**"; ignore "*.log"; limit "2MiB" }
step rebuild  like=build       { needs patch }
step patched  uses=test        { needs patch rebuild; against baseline; timeout "1m" }
step classify uses=classify    { needs baseline patch patched }
"#,
        );
        flow.write(
            "m.kdl",
            r#"flow 1
import "agents.kdl" "steps.kdl"
pipeline sample {
    repo pkg "repo" {
        commits file="commits.txt"
        tests dir="tests" name="{commit.id8}.py" contract=flow { metric ops better=lower kind=count min-effect="2%" }
    }
    tool python "python3" { probe "-VV" }
    candidate human agent=human
    candidate tidy agent=scripted {
        file patch "patches/tidy/{commit.id8}.patch" optional=#true
        file script "scripts/tidy/{commit.id8}.json" optional=#true
    }
}
"#,
        );
        flow
    }

    /// The sample, measured in time on one slot: the script reports what `time` makes of `ops`, the work done, and of `n`, how
    /// many processes of that tree ran before. 1000 is the base's work, 500 what `tidy` does, 100 the human.
    pub fn timed(time: &str) -> Self {
        let mut flow = Self::sample();
        flow.env("COLUMNS", "400");
        flow.replace("m.kdl", "metric ops better=lower kind=count", "metric time_s better=lower");
        flow.replace("m.kdl", "tool python", "slots { cpu \"a\" }\n    step patched { holds cpu=1 }\n    tool python");
        let seen = flow.signs().join("seen").display().to_string();
        for (name, test) in [("one", "tests/{one}.py"), ("two", "tests/{two}.py")] {
            flow.edit(test, |text| {
                let count = format!(
                    r#"ops = pkg.work.OPS[0]
with open({seen:?}, "a+") as f:
    f.seek(0)
    n = f.read().split().count("{name}-" + str(ops))
    f.write("{name}-" + str(ops) + "\n")
"#
                );
                let text = text.replace("\"ops\": pkg.work.OPS[0]", &format!("\"time_s\": {time}"));
                text.replacen("out = ", &format!("{count}out = "), 1)
            });
        }
        flow
    }

    /// A folder beside the project that the processes of agents and of tests may write to: by what they leave there a test sees how
    /// far they are.
    pub fn signs(&self) -> PathBuf {
        let dir = self.beside("signs");
        if !dir.exists() {
            std::fs::create_dir(&dir).unwrap();
            for step in ["step agent    uses=agent       {", "step patched  uses=test        {"] {
                self.replace("steps.kdl", step, &format!("{step} write \"{}\";", dir.display()));
            }
        }
        dir
    }

    /// The repository's own quickstart, copied.
    pub fn quickstart() -> Self {
        let flow = Self::empty();
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        for folder in ["pipelines", "examples/quickstart", "examples/native"] {
            copy(&root.join(folder), &flow.path(folder));
        }
        // A project is what holds `.git`: so its store lies beside `pipelines`, as in a clone.
        std::fs::create_dir_all(flow.path(".git")).unwrap();
        flow
    }

    /// A copy of the project as it is, in a folder of its own, store and all.
    pub fn twin(&self) -> Self {
        let dir = tempfile::tempdir().unwrap();
        copy(&self.dir.path().join("project"), &dir.path().join("project"));
        Self { dir, commits: self.commits.clone(), env: self.env.clone() }
    }

    /// Writes a program.
    pub fn program(&self, name: &str, text: &str) {
        use std::os::unix::fs::PermissionsExt;
        self.write(name, text);
        std::fs::set_permissions(self.path(name), std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// A path within the project; `{one}` is filled.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("project").join(self.fill(name))
    }

    /// The store.
    pub fn cache(&self) -> PathBuf {
        // A project without `.git` has its store beside the manifest.
        let manifest = self.dir.path().join("project").join(self.manifest());
        manifest.with_file_name("cache")
    }

    /// The folder that holds the project: files of a test that belong to none lie there.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// All lines of all records, in no order.
    pub fn lines(&self) -> Vec<Value> {
        let Ok(files) = std::fs::read_dir(self.cache().join("records/v1")) else { return Vec::new() };
        let texts = files.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap_or_default());
        // A line that a kill tore counts as not written.
        texts
            .flat_map(|text| text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect::<Vec<_>>())
            .collect()
    }

    /// The events of all runs, from their journals.
    pub fn journal(&self) -> Vec<Value> {
        let Ok(runs) = std::fs::read_dir(self.cache().join("runs")) else { return Vec::new() };
        let text = |run: std::io::Result<std::fs::DirEntry>| {
            std::fs::read_to_string(run.unwrap().path().join("journal.jsonl"))
        };
        let texts: Vec<String> = runs.filter_map(|run| text(run).ok()).collect();
        texts.iter().flat_map(|text| text.lines()).filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The ended lines of an action's step that say this outcome: `succeeded`, or a cause.
    pub fn ends(&self, step: &str, outcome: &str) -> Vec<Value> {
        let is = |line: &Value| line["line"] == "ended" && line["step"] == step && outcome_of(line) == outcome;
        self.lines().into_iter().filter(is).collect()
    }

    /// Every key was settled at most once: nothing finished was done again.
    #[track_caller]
    pub fn settled_each_action_once(&self) {
        let mut times: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
        for line in self.lines().iter().filter(|line| line["line"] == "ended") {
            if !["INTERRUPTED", "DISK_FULL", "HARNESS_FAULT"].contains(&outcome_of(line).as_str()) {
                let at = (line["key"].to_string(), line["step"].to_string());
                times.entry(at).or_default().push(line["attempt"].to_string());
            }
        }
        let twice: Vec<_> = times.iter().filter(|(_, attempts)| attempts.len() > 1).collect();
        assert!(twice.is_empty(), "settled more than once: {twice:#?}");
    }

    /// The full id of a commit made by name.
    pub fn id(&self, commit: &str) -> &str {
        &self.commits[commit]
    }

    /// Fills `{one}` by eight digits of a commit and `{one:40}` by all.
    pub fn fill(&self, text: &str) -> String {
        fill(text, &self.commits)
    }

    /// Sets a variable for every command from here on.
    pub fn env(&mut self, name: &str, value: &str) {
        self.env.insert(name.into(), value.into());
    }

    /// A variable that is set for the program no more.
    pub fn without(&mut self, name: &str) {
        self.env.remove(name);
    }

    /// Writes a file.
    pub fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, self.fill(text)).unwrap();
    }

    /// Changes a file; what it changes must be there.
    pub fn edit(&self, name: &str, change: impl FnOnce(&str) -> String) {
        let path = self.path(name);
        let before = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let after = change(&before);
        assert_ne!(before, after, "{name} was not changed");
        std::fs::write(path, after).unwrap();
    }

    /// Replaces a text in a file.
    pub fn replace(&self, name: &str, old: &str, new: &str) {
        let (old, new) = (self.fill(old), self.fill(new));
        self.edit(name, |text| text.replace(&old, &new));
    }

    /// Commits files to `repo`, on top of what is there, with fixed times so that ids are the same everywhere.
    pub fn commit(&mut self, name: &str, files: &[(&str, &str)]) {
        let repo = self.path("repo");
        if !repo.exists() {
            std::fs::create_dir_all(&repo).unwrap();
            git(&repo, &["init", "-q", "-b", "main"]);
        }
        for (file, text) in files {
            let path = repo.join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        git(&repo, &["add", "-A"]);
        git(&repo, &["commit", "-q", "--allow-empty", "-m", name]);
        let id = git(&repo, &["rev-parse", "HEAD"]);
        self.commits.insert(name.into(), id.trim().into());
    }

    /// Writes `patches/CANDIDATE/ID8.patch`: one file of the commit's base, changed.
    pub fn patch(&self, candidate: &str, commit: &str, file: &str, change: impl FnOnce(&str) -> String) {
        let repo = self.path("repo");
        let base = git(&repo, &["show", &format!("{}^:{file}", self.id(commit))]);
        let new = change(&base);
        let (a, b) = (self.dir.path().join("a"), self.dir.path().join("b"));
        for (folder, text) in [(&a, &base), (&b, &new)] {
            let path = folder.join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let diff = Command::new("git")
            .args(["diff", "--no-index", "--no-prefix", "a", "b"])
            .current_dir(self.dir.path())
            .output()
            .unwrap();
        let text = String::from_utf8(diff.stdout).unwrap();
        assert!(!text.is_empty(), "the patch changes nothing");
        self.write(&format!("patches/{candidate}/{{{commit}}}.patch"), &text.replace('{', "{{").replace("{{", "{"));
        std::fs::remove_dir_all(a).unwrap();
        std::fs::remove_dir_all(b).unwrap();
    }

    /// A command of the real program, in the project, with an environment of its own.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flow"));
        command.args(args.iter().map(|arg| self.fill(arg)));
        command.current_dir(self.dir.path().join("project")).env_clear().stdin(Stdio::null());
        command
            .env("PATH", search_path())
            .env("COLUMNS", "80")
            .env("FLOW_SLOTS", self.dir.path().join("slots"))
            .envs(&self.env);
        command
    }

    /// Runs the program to its end.
    pub fn flow(&self, args: &[&str]) -> Ran {
        let output = self.command(args).output().unwrap();
        self.ran(output)
    }

    /// What a finished command did.
    pub fn ran(&self, output: Output) -> Ran {
        Ran {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            commits: self.commits.clone(),
        }
    }

    /// `flow run m.kdl --json`, or of the quickstart.
    pub fn run(&self) -> Ran {
        self.flow(&["run", self.manifest(), "--json"])
    }

    /// `flow run --json` with more arguments.
    pub fn run_with(&self, more: &[&str]) -> Ran {
        self.flow(&[&["run", self.manifest(), "--json"], more].concat())
    }

    /// Adds nodes at the end of `m.kdl`'s pipeline.
    pub fn add(&self, nodes: &str) {
        self.edit("m.kdl", |text| format!("{}    {nodes}\n}}\n", text.trim_end().trim_end_matches('}')));
    }

    /// The manifest's path.
    pub fn manifest(&self) -> &'static str {
        if self.path("m.kdl").exists() { "m.kdl" } else { "pipelines/quickstart.kdl" }
    }

    /// Starts `flow run --json` and leaves it running, its output in files of the project's parent.
    pub fn start(&self) -> std::process::Child {
        self.command(&["run", self.manifest(), "--json"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }
}

impl Ran {
    /// Exit code 0.
    #[track_caller]
    pub fn settles(&self) -> &Self {
        self.exits(0)
    }

    /// An exit code.
    #[track_caller]
    pub fn exits(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "\n--- stdout\n{}\n--- stderr\n{}", self.stdout, self.stderr);
        self
    }

    /// Something on standard output or standard error.
    #[track_caller]
    pub fn says(&self, text: &str) -> &Self {
        let text = fill(text, &self.commits);
        let said = self.stdout.contains(&text) || self.stderr.contains(&text);
        assert!(said, "`{text}` is not in\n--- stdout\n{}\n--- stderr\n{}", self.stdout, self.stderr);
        self
    }

    /// The events of a run with `--json`.
    pub fn events(&self) -> Vec<Value> {
        self.stdout.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The one JSON document of a reader with `--json`.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}\n{}", self.stdout, self.stderr))
    }

    /// The last event of a run.
    #[track_caller]
    pub fn finished(&self) -> Value {
        let last = self.events().into_iter().rfind(|event| event["event"] == "run-finished");
        last.unwrap_or_else(|| panic!("the run did not finish\n{}\n{}", self.stdout, self.stderr))
    }

    /// The actions that were executed, as `commit8/candidate/sample step`, sorted.
    pub fn executed(&self) -> Vec<String> {
        let settled = |event: &&Value| event["event"] == "action-settled" && event["cached"] == false;
        let mut actions: Vec<String> = self.events().iter().filter(settled).map(title).collect();
        actions.sort();
        actions
    }

    /// Exactly these actions were executed.
    #[track_caller]
    pub fn executes(&self, actions: &[&str]) -> &Self {
        let mut wanted: Vec<String> = actions.iter().map(|action| fill(action, &self.commits)).collect();
        wanted.sort();
        assert_eq!(self.executed(), wanted, "\n--- stderr\n{}", self.stderr);
        self
    }

    /// Nothing was executed.
    #[track_caller]
    pub fn executes_nothing(&self) -> &Self {
        self.executes(&[])
    }

    /// The class of each job of a run that settled all, by job without the repository's name.
    pub fn classes(&self) -> BTreeMap<String, String> {
        let told = |event: Value| {
            let job = event["job"].as_str()?.split_once('/')?.1.to_owned();
            (event["event"] == "job-settled").then(|| (job, event["class"].as_str().unwrap_or("").to_owned()))
        };
        self.events().into_iter().filter_map(told).collect()
    }

    /// The class of one job, `{one}/tidy/1`.
    #[track_caller]
    pub fn class(&self, job: &str) -> String {
        let job = fill(job, &self.commits);
        let classes = self.classes();
        classes.get(&job).unwrap_or_else(|| panic!("{job} is not in {classes:?}\n{}", self.stderr)).clone()
    }
}

/// The outcome of an ended line: `succeeded`, or the cause.
pub fn outcome_of(line: &Value) -> String {
    let failed = line["outcome"]["failed"]["cause"].as_str();
    failed.or(line["outcome"].as_str()).unwrap_or("?").to_owned()
}

/// The marks of a job as `show --json` has them, but for what depends on the machine: that it holds no sandbox, or is so busy that
/// flow's clock does not bear a short saving out.
pub fn marks(job: &Value) -> Value {
    let of_machine = |mark: &str| mark.starts_with("NO_SANDBOX") || mark == "UNCLOCKED";
    let said = |mark: &&Value| !of_machine(mark.as_str().unwrap());
    job["marks"].as_array().unwrap().iter().filter(said).cloned().collect()
}

/// `PATH` with the real interpreter first: what stands for it may be a shell script that takes longer than the tests.
pub fn search_path() -> &'static str {
    static PATH: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    PATH.get_or_init(|| {
        let path = std::env::var("PATH").unwrap();
        let python = Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output().unwrap();
        let python = String::from_utf8(python.stdout).unwrap();
        match Path::new(python.trim()).parent() {
            Some(dir) => format!("{}:{path}", dir.display()),
            None => path,
        }
    })
}

/// An action as `commit8/candidate/sample step`; of axes of the manifest's own, their values.
pub fn title(event: &Value) -> String {
    let axes = &event["axes"];
    let mut parts: Vec<String> = Vec::new();
    if let Some(commit) = axes["commit"].as_str() {
        parts.push(commit[..8].to_owned());
    }
    for axis in ["candidate", "sample"] {
        parts.extend(axes[axis].as_str().map(str::to_owned));
    }
    if parts.is_empty()
        && let Some(own) = axes.as_object()
    {
        parts.extend(own.values().filter_map(|value| value.as_str().map(str::to_owned)));
    }
    format!("{} {}", parts.join("/"), event["step"].as_str().unwrap_or("?"))
}

/// Waits until something holds; panics after a minute.
#[track_caller]
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(60), "not within a minute: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Runs git in a folder with no configuration but a fixed author and time.
pub fn git(dir: &Path, args: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "user.name=t", "-c", "user.email=t@localhost", "-c", "commit.gpgsign=false"])
        .args(args)
        .current_dir(dir)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_AUTHOR_DATE", "2020-01-01T00:00:00Z")
        .env("GIT_COMMITTER_DATE", "2020-01-01T00:00:00Z")
        .output()
        .unwrap();
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn fill(text: &str, commits: &BTreeMap<String, String>) -> String {
    let mut filled = text.to_owned();
    for (name, id) in commits {
        filled = filled.replace(&format!("{{{name}:40}}"), id).replace(&format!("{{{name}}}"), &id[..8]);
    }
    filled
}

fn test_script(function: &str) -> String {
    format!(
        r#"import json, os, sys
sys.path.insert(0, os.getcwd())
import pkg.work
if not pkg.work.__file__.startswith(os.getcwd()):
    sys.exit(3)
if not hasattr(pkg.work, "{function}"):
    sys.exit(4)
result = pkg.work.{function}(100)
out = {{"metrics": {{"ops": pkg.work.OPS[0]}}, "digest": "sha256:" + str(result)}}
with open(os.environ["FLOW_RESULT"], "w") as f:
    json.dump(out, f)
"#
    )
}

/// Copies a folder.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
