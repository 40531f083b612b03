//! The promise of blame: a commit is named only if it brought the value, also where versions between cannot be planned, files lie
//! elsewhere, or parts of the history are not here; else it is said to be not known, and why.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use support::{Flow, until};

fn the_next_second() {
    let second = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let now = second();
    until("the next second", || second() > now);
}

/// A project in git.
struct Project {
    flow: Flow,
}

impl Project {
    /// The sample, with a prompt, a config and a variable, in a first commit.
    fn new() -> Self {
        let flow = Flow::sample();
        flow.write("prompts/task.md", "Make it faster.\n\nDo not touch the tests.\n\nGood luck.\n");
        flow.write("configs/tidy.yaml", "# how it works\nmodel:\n  temperature: 0.2\n  steps: 10\n");
        flow.edit("agents.kdl", |text| {
            let shown = "agent scripted { run \"sh\" \"-c\" \"cat $0 $1 >/dev/null; shift; exec \\\"$@\\\"\" \"{config}\" \"{prompt}\" ";
            text.replace("agent scripted { run ", shown)
        });
        flow.replace("m.kdl", "agent=scripted {", "agent=scripted {\n        config \"configs/tidy.yaml\"");
        flow.add("step agent { prompt file=\"prompts/task.md\" }");
        flow.add("step patched {\n        set MODE \"plain\"\n    }");
        flow.write(".gitignore", "/cache/\n/repo/\n");
        let project = Self { flow };
        project.git(&["init", "-q", "-b", "main"]);
        project.commit("Ann", "the first version");
        project
    }

    fn git_as(&self, author: &str, args: &[&str]) -> String {
        git(&self.flow.path("."), author, args)
    }

    fn git(&self, args: &[&str]) -> String {
        self.git_as("Ann", args)
    }

    /// In a second of its own: git's clock knows no less, and by it a commit is held against a run.
    fn commit(&self, author: &str, subject: &str) -> String {
        self.git(&["add", "-A"]);
        the_next_second();
        self.git_as(author, &["commit", "-q", "-m", subject]);
        the_next_second();
        self.git(&["rev-parse", "HEAD"])
    }

    /// What `why` says of a step of the candidate `tidy`.
    fn step(&self, step: &str, more: &[&str]) -> Value {
        let args = [&["why", "pkg/{one}/tidy/1", "m.kdl", "--json"], more].concat();
        let document = self.flow.flow(&args).exits(0).json();
        let steps = document["jobs"][0]["steps"].as_array().unwrap();
        steps.iter().find(|known| known["step"] == step).unwrap_or_else(|| panic!("no {step}: {document}")).clone()
    }

    /// What it says of a change of one of its ingredients.
    fn change(&self, step: &str, ingredient: &str) -> Value {
        change_of(&self.step(step, &[]), ingredient)
    }
}

fn git(folder: &Path, author: &str, args: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", &format!("user.name={author}"), "-c", "user.email=a@localhost", "-c", "commit.gpgsign=false"])
        .args(["-c", "protocol.file.allow=always", "-c", "core.autocrlf=false"])
        .args(args)
        .current_dir(folder)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .output()
        .unwrap();
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn change_of(step: &Value, ingredient: &str) -> Value {
    let changes = step["changes"].as_array().unwrap();
    let found = changes.iter().find(|change| change["ingredient"] == ingredient);
    found.unwrap_or_else(|| panic!("{ingredient} is not said to have changed: {step:#}")).clone()
}

#[track_caller]
fn names(change: &Value, commit: &str, author: &str, place: &str) {
    let origin = &change["origin"];
    let said = format!("{}:{}", origin["path"].as_str().unwrap_or("?"), origin["line"]);
    assert_eq!(
        (origin["commit"].as_str(), origin["author"].as_str(), said.as_str()),
        (Some(commit), Some(author), place),
        "{change:#}"
    );
}

#[track_caller]
fn is_not_known(change: &Value, why: &str) {
    assert!(change.get("origin").is_none(), "{change:#}");
    let said = change["unexplained"].as_str().unwrap_or_default();
    assert!(said.contains(why), "{said:?} is not {why:?}");
}

#[test]
fn who_mends_a_manifest_is_not_blamed_for_what_came_with_the_flaw() {
    let p = Project::new();
    p.flow.run().settles();
    p.flow.replace("configs/tidy.yaml", "temperature: 0.2", "temperature: 0.9");
    p.flow.replace("prompts/task.md", "Make it faster.", "Be fast.");
    p.flow.replace("m.kdl", "set MODE \"plain\"", "set MODE \"fancy\"");
    p.flow.replace("m.kdl", "agent=scripted {", "agent=scriptd {");
    let max = p.commit("Max", "warmer, fancier, and a typing error");
    p.flow.replace("prompts/task.md", "Good luck.", "Good bye.");
    let moe = p.commit("Moe", "another word, with the flaw still there");
    p.flow.replace("m.kdl", "agent=scriptd {", "agent=scripted {");
    p.commit("Ned", "mend the manifest");
    names(&p.change("agent", "config"), &max, "Max", "configs/tidy.yaml:3");
    names(&p.change("agent", "prompt"), &moe, "Moe", "prompts/task.md:5");
    let text = std::fs::read_to_string(p.flow.path("m.kdl")).unwrap();
    let line = text.lines().position(|line| line.contains("set MODE")).unwrap() + 1;
    names(&p.change("patched", "env MODE"), &max, "Max", &format!("m.kdl:{line}"));
    let between = p.step("agent", &["--between", "HEAD~3", "HEAD"]);
    names(&change_of(&between, "config"), &max, "Max", "configs/tidy.yaml:3");
}

#[test]
fn who_adds_a_second_manifest_is_not_blamed_for_the_files_that_it_names() {
    let p = Project::new();
    p.flow.run().settles();
    p.flow.replace("configs/tidy.yaml", "temperature: 0.2", "temperature: 0.9");
    p.flow.replace("agents.kdl", "version \"1\"; usage", "version \"2\"; usage");
    let quin = p.commit("Quin", "warmer, another version");
    std::fs::copy(p.flow.path("m.kdl"), p.flow.path("second.kdl")).unwrap();
    p.commit("Rae", "a second manifest");
    let document = p.flow.flow(&["why", "pkg/{one}/tidy/1", "second.kdl", "--json"]).exits(0).json();
    let steps = document["jobs"][0]["steps"].as_array().unwrap();
    let agent = steps.iter().find(|step| step["step"] == "agent").unwrap();
    names(&change_of(agent, "config"), &quin, "Quin", "configs/tidy.yaml:3");
    names(&change_of(agent, "version"), &quin, "Quin", "agents.kdl:4");
}

#[test]
fn a_file_outside_of_the_repository_is_nobodys() {
    let p = Project::new();
    std::fs::write(p.flow.beside("outside.yaml"), "model:\n  temperature: 0.2\n").unwrap();
    std::fs::copy(p.flow.path("agents.kdl"), p.flow.beside("agents.kdl")).unwrap();
    p.flow.replace("m.kdl", "configs/tidy.yaml", "../outside.yaml");
    p.flow.replace("m.kdl", "import \"agents.kdl\"", "import \"../agents.kdl\"");
    p.commit("Ann", "from outside");
    p.flow.run().settles();
    std::fs::write(p.flow.beside("outside.yaml"), "model:\n  temperature: 0.3\n").unwrap();
    let adapters = std::fs::read_to_string(p.flow.beside("agents.kdl")).unwrap();
    let adapters = adapters.replace("version \"1\"; usage", "version \"2\"; usage");
    std::fs::write(p.flow.beside("agents.kdl"), adapters).unwrap();
    is_not_known(&p.change("agent", "config"), "outside.yaml lies outside of the repository");
    is_not_known(&p.change("agent", "version"), "agents.kdl");
}

#[test]
fn a_file_of_a_submodule_is_neither_uncommitted_nor_anybodys() {
    let p = Project::new();
    let lib = p.flow.beside("lib");
    std::fs::create_dir(&lib).unwrap();
    std::fs::write(lib.join("deep.yaml"), "model:\n  temperature: 0.2\n").unwrap();
    git(&lib, "Lib", &["init", "-q", "-b", "main"]);
    git(&lib, "Lib", &["add", "-A"]);
    git(&lib, "Lib", &["commit", "-q", "-m", "lib"]);
    p.git(&["submodule", "--quiet", "add", lib.to_str().unwrap(), "sub"]);
    p.flow.replace("m.kdl", "configs/tidy.yaml", "sub/deep.yaml");
    p.commit("Ann", "from a submodule");
    let ran = p.flow.flow(&["run", "m.kdl", "--quiet"]);
    assert!(!ran.exits(0).stdout.contains("UNCOMMITTED"), "{}", ran.stdout);
    assert_eq!(p.flow.flow(&["plan", "m.kdl", "--at", "HEAD", "--json"]).exits(0).json()["execute"], 0);
    p.flow.replace("prompts/task.md", "Make it faster.", "Be fast.");
    let bea = p.commit("Bea", "a shorter prompt");
    names(&p.change("agent", "prompt"), &bea, "Bea", "prompts/task.md:1");
    let history = p.flow.flow(&["history", "m.kdl"]);
    assert!(!history.exits(0).stdout.contains("uncommitted"), "{}", history.stdout);
    p.flow.replace("sub/deep.yaml", "0.2", "0.3");
    is_not_known(&p.change("agent", "config"), "sub/deep.yaml lies in a submodule");
    p.flow.flow(&["run", "m.kdl", "--quiet"]).exits(0).says("UNCOMMITTED");
}

#[test]
fn in_a_clone_without_old_contents_nobody_is_blamed_for_what_is_not_here() {
    let p = Project::new();
    p.flow.run().settles();
    p.flow.replace("configs/tidy.yaml", "temperature: 0.2", "temperature: 0.9");
    p.flow.replace("prompts/task.md", "Make it faster.", "Be fast.");
    let cem = p.commit("Cem", "warmer, and a shorter prompt");
    p.flow.replace("m.kdl", "set MODE \"plain\"", "set MODE \"fancy\"");
    p.commit("Deb", "another mode");
    for (rev, path) in [("HEAD~2", "configs/tidy.yaml"), ("HEAD~2", "prompts/task.md"), ("HEAD~1", "m.kdl")] {
        let blob = p.git(&["rev-parse", &format!("{rev}:{path}")]);
        std::fs::remove_file(p.flow.path(&format!(".git/objects/{}/{}", &blob[..2], &blob[2..]))).unwrap();
    }
    // That the prompt is another than in the commit before needs no content.
    let prompt = p.change("agent", "prompt");
    assert_eq!(prompt["origin"]["commit"], cem, "{prompt:#}");
    // Whether the config was more than a comment does.
    is_not_known(&p.change("agent", "config"), "is not here");
    is_not_known(&p.change("patched", "env MODE"), "is not here");
    let history = p.flow.flow(&["history", "m.kdl"]);
    history.exits(0).says("is not in this clone");
    assert!(!history.stdout.contains("(none)"), "{}", history.stdout);
}

#[test]
fn what_is_no_file_in_a_repository_is_not_waited_for() {
    for name in ["commondir", "objects/info/alternates", "packed-refs", "HEAD"] {
        let p = Project::new();
        let path = p.flow.path(&format!(".git/{name}"));
        let _ = std::fs::remove_file(&path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for verb in [&["why", "{one}", "m.kdl"][..], &["history", "m.kdl"], &["plan", "m.kdl", "--at", "HEAD"]] {
            // It ends at all; what needs the history says what is wrong with it.
            let ran = p.flow.flow(verb);
            assert!(ran.code.is_some(), "{name}: {verb:?}");
            if verb[0] != "why" {
                ran.exits(2).says("regular");
            }
        }
    }
}

#[test]
fn all_who_brought_a_part_of_one_change_are_named() {
    let p = Project::new();
    p.flow.run().settles();
    p.flow.replace("prompts/task.md", "Make it faster.", "Be fast.");
    let ivo = p.commit("Ivo", "shorter");
    p.flow.replace("prompts/task.md", "Good luck.", "Good bye.");
    let jim = p.commit("Jim", "colder");
    p.flow.replace("configs/tidy.yaml", "steps: 10", "steps: 11");
    p.commit("Lea", "a thought that is overwritten");
    p.flow.replace("configs/tidy.yaml", "steps: 11", "steps: 12");
    let kay = p.commit("Kay", "more steps");
    p.flow.replace("configs/tidy.yaml", "temperature: 0.2", "temperature: 0.9");
    let prompt = p.change("agent", "prompt");
    names(&prompt, &jim, "Jim", "prompts/task.md:5");
    let also = prompt["origin"]["also"].as_array().unwrap();
    assert_eq!((also.len(), &also[0]["commit"], &also[0]["line"]), (1, &ivo.as_str().into(), &1.into()), "{prompt:#}");
    let config = p.change("agent", "config");
    let origin = &config["origin"];
    assert_eq!((&origin["commit"], &origin["line"]), (&Value::Null, &3.into()), "{config:#}");
    let also = origin["also"].as_array().unwrap();
    assert_eq!((also.len(), &also[0]["commit"], &also[0]["line"]), (1, &kay.as_str().into(), &4.into()), "{config:#}");
    let text = p.flow.flow(&["why", "pkg/{one}/tidy/1", "m.kdl"]);
    text.exits(0).says("Ivo: shorter").says("Jim: colder").says("Kay: more steps").says("uncommitted, edited");
    assert!(!text.stdout.contains("Lea"), "{}", text.stdout);
    for (n, word) in ["one", "two", "three", "four"].iter().enumerate() {
        p.flow.edit("prompts/task.md", |text| format!("{text}\n{word}\n"));
        p.commit("Many", ["a", "b", "c", "d"][n]);
    }
    p.flow.flow(&["why", "pkg/{one}/tidy/1", "m.kdl"]).exits(0).says("and by 3 commits more");
}

#[test]
fn ends_of_lines_that_git_writes_are_no_edit() {
    let p = Project::new();
    p.flow.write(".gitattributes", "*.md text eol=crlf\n*.yaml ident\n");
    p.flow.edit("configs/tidy.yaml", |text| format!("# $Id$\n{text}"));
    p.commit("Ann", "other ends of lines");
    for path in ["prompts/task.md", "configs/tidy.yaml"] {
        std::fs::remove_file(p.flow.path(path)).unwrap();
    }
    p.git(&["checkout", "-q", "--", "."]);
    assert!(std::fs::read_to_string(p.flow.path("prompts/task.md")).unwrap().contains("\r\n"));
    assert!(std::fs::read_to_string(p.flow.path("configs/tidy.yaml")).unwrap().contains("$Id: "));
    assert_eq!(p.git(&["status", "--short"]), "");
    let ran = p.flow.flow(&["run", "m.kdl", "--quiet"]);
    assert!(!ran.exits(0).stdout.contains("UNCOMMITTED"), "{}", ran.stdout);
    assert_eq!(p.flow.flow(&["plan", "m.kdl", "--at", "HEAD", "--json"]).exits(0).json()["execute"], 0);
    p.flow.replace("prompts/task.md", "Make it faster.", "Be fast.");
    let bea = p.commit("Bea", "a shorter prompt");
    names(&p.change("agent", "prompt"), &bea, "Bea", "prompts/task.md:1");
    // An edit is one all the same.
    p.flow.replace("prompts/task.md", "Be fast.", "Be really fast.");
    assert_eq!(p.change("agent", "prompt")["origin"]["commit"], Value::Null);
    p.flow.flow(&["run", "m.kdl", "--quiet"]).exits(0).says("UNCOMMITTED");
}

#[test]
fn a_version_that_cannot_be_planned_is_said_to_be_that_version() {
    let p = Project::new();
    p.flow.replace("m.kdl", "agent=scripted {", "agent=scriptd {");
    p.commit("Max", "a typing error");
    p.flow.replace("m.kdl", "agent=scriptd {", "agent=scripted {");
    std::fs::copy(p.flow.path("m.kdl"), p.flow.path("second.kdl")).unwrap();
    p.commit("Ned", "mend it, and a second one");
    p.flow.flow(&["plan", "m.kdl", "--at", "HEAD~1"]).exits(2).says("(a typing error)");
    p.flow.flow(&["why", "{one}", "m.kdl", "--between", "HEAD~1", "HEAD"]).exits(2).says("(a typing error)");
    p.flow.flow(&["plan", "second.kdl", "--at", "HEAD~2"]).exits(2).says("second.kdl is not in ");
    p.flow.flow(&["why", "{one}", "m.kdl", "--between", "HEAD", "HEAD~2"]).exits(0).says("is newer than");
}

#[test]
fn what_only_tells_writes_nothing() {
    let p = Project::new();
    let asks = [
        &["history", "m.kdl"][..],
        &["plan", "m.kdl", "--at", "HEAD"],
        &["why", "{one}", "m.kdl", "--between", "HEAD", "HEAD"],
        &["why", "{one}", "m.kdl"],
        &["why", "{one}", "m.kdl", "--against", "HEAD"],
    ];
    for ask in asks {
        p.flow.flow(ask).exits(0);
        assert!(!p.flow.path("cache").exists(), "{ask:?} makes a store");
    }
    p.flow.run().settles();
    // What the tools answered is remembered by now.
    let times = || {
        let mut times = Vec::new();
        let mut next = vec![p.flow.path("cache")];
        while let Some(folder) = next.pop() {
            times.push((folder.clone(), folder.metadata().unwrap().modified().unwrap()));
            for entry in folder.read_dir().unwrap().map(Result::unwrap) {
                match entry.file_type().unwrap().is_dir() {
                    true => next.push(entry.path()),
                    false => times.push((entry.path(), entry.metadata().unwrap().modified().unwrap())),
                }
            }
        }
        times.sort();
        times
    };
    for ask in asks {
        let before = times();
        p.flow.flow(ask).exits(0);
        let touched: Vec<_> = times().into_iter().filter(|known| !before.contains(known)).collect();
        assert!(touched.is_empty(), "{ask:?} writes {touched:?}");
    }
}

#[test]
fn who_removed_a_file_is_named_with_its_path() {
    let p = Project::new();
    p.flow.run().settles();
    std::fs::remove_file(p.flow.path("patches/tidy/{one}.patch")).unwrap();
    let yan = p.commit("Yan", "drop a patch");
    let change = p.change("agent", "file patch");
    let path = p.flow.fill("patches/tidy/{one}.patch");
    assert_eq!((&change["origin"]["commit"], &change["origin"]["path"]), (&yan.into(), &path.into()), "{change:#}");
}

#[test]
fn a_script_of_the_project_that_is_a_tool_is_followed_in_git() {
    let p = Project::new();
    let script = |name: &str, text: &str| {
        p.flow.write(name, text);
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(p.flow.path(name), mode).unwrap();
    };
    script("glue.sh", "#!/bin/sh\n# first\necho 1 > \"$1\"\n");
    script("asked.sh", "#!/bin/sh\n[ \"$1\" = --version ] && exec /bin/cat \"${0%/*}/answer/text\"\necho 1 > \"$1\"\n");
    p.flow.write("answer/text", "1.0\n");
    p.flow.write(
        "g.kdl",
        r#"flow 1
pipeline glued {
    tool glue "./glue.sh"
    tool asked "./asked.sh" { probe "--version"; watch "answer" }
    axis n "1"
    step one uses=command { each n; run "{tool.glue}" "{out.m}"; output m "m.txt" }
    step two uses=command { each n; run "{tool.asked}" "{out.m}"; output m "m.txt" }
}
"#,
    );
    p.commit("Ann", "tools of the project's own");
    p.flow.flow(&["run", "g.kdl", "--quiet"]).exits(0);
    let change = |step: &str, ingredient: &str| {
        let document = p.flow.flow(&["why", "*", "g.kdl", "--json"]).exits(0).json();
        let steps = document["jobs"][0]["steps"].as_array().unwrap();
        change_of(steps.iter().find(|known| known["step"] == step).unwrap(), ingredient)
    };
    p.flow.replace("glue.sh", "# first", "# second");
    let edited = change("one", "tool glue");
    let origin = &edited["origin"];
    assert_eq!(
        (&origin["commit"], &origin["path"], &origin["line"]),
        (&Value::Null, &"glue.sh".into(), &2.into()),
        "{edited:#}"
    );
    let fi = p.commit("Fi", "another script");
    names(&change("one", "tool glue"), &fi, "Fi", "glue.sh:2");
    p.flow.flow(&["history", "g.kdl"]).exits(0).says("Fi: another script");
    let between = p.flow.flow(&["why", "*", "g.kdl", "--between", "HEAD~1", "HEAD"]);
    between.exits(0).says("Fi: another script").says("glue.sh:2");
    p.flow.write("answer/text", "1.1\n");
    let jon = p.commit("Jon", "another answer");
    let answered = change("two", "tool asked");
    assert_eq!((&answered["origin"]["commit"], &answered["origin"]["path"]), (&jon.into(), &"answer".into()));
}

#[test]
fn who_binds_a_step_otherwise_is_named_with_the_line() {
    let p = Project::new();
    p.flow.run().settles();
    p.flow.replace("steps.kdl", " against baseline;", "");
    let edited = p.change("patched", "reference");
    assert_eq!(
        (&edited["new"], &edited["origin"]["commit"], &edited["origin"]["path"], &edited["origin"]["line"]),
        (&Value::Null, &Value::Null, &"steps.kdl".into(), &8.into()),
        "{edited:#}"
    );
    let fi = p.commit("Fi", "measured alone");
    let patched = p.step("patched", &[]);
    for ingredient in ["reference", "base build"] {
        names(&change_of(&patched, ingredient), &fi, "Fi", "steps.kdl:8");
    }
    assert_eq!((&patched["root"], &p.step("classify", &[])["root"]), (&true.into(), &false.into()));
    let between = p.step("patched", &["--between", "HEAD~1", "HEAD"]);
    names(&change_of(&between, "reference"), &fi, "Fi", "steps.kdl:8");
    p.flow.run().settles();
    names(&change_of(&p.step("patched", &["--run"]), "reference"), &fi, "Fi", "steps.kdl:8");
}

#[test]
fn who_takes_a_test_away_or_reads_agents_otherwise_is_named_for_the_classes() {
    let p = Project::new();
    p.flow.run().settles();
    let path = p.flow.fill("tests/{one}.py");
    let text = std::fs::read_to_string(p.flow.path(&path)).unwrap();
    std::fs::remove_file(p.flow.path(&path)).unwrap();
    let yan = p.commit("Yan", "drop a test");
    let end = p.change("classify", "end of baseline");
    assert_eq!((&end["origin"]["commit"], &end["origin"]["path"]), (&yan.into(), &path.clone().into()), "{end:#}");
    p.flow.write(&path, &text);
    p.commit("Yan", "the test is back");
    p.flow.run().settles();
    p.flow.replace(
        "agents.kdl",
        "usage lines=\"flow-usage\"",
        "usage lines=\"flow-usage\"; reading { finished text=stdout match=\"(?m)^done$\" }",
    );
    let max = p.commit("Max", "another table");
    names(&p.change("classify", "end of agent"), &max, "Max", "agents.kdl:4");
    let agent = p.step("agent", &["--between", "HEAD~1", "HEAD"]);
    assert_eq!(agent["state"], "reread", "{agent:#}");
    names(&change_of(&agent, "reading"), &max, "Max", "agents.kdl:4");
}

#[test]
fn what_another_step_left_is_nobodys_doing() {
    let p = Project::new();
    p.flow.run().settles();
    p.flow.edit(&p.flow.fill("tests/{one}.py"), |text| text.replace("\"sha256:\" + ", "\"sha256:0\" + "));
    let lea = p.commit("Lea", "another way to say it");
    p.flow.run_with(&["--until", "baseline"]).settles();
    let patched = p.step("patched", &[]);
    names(&change_of(&patched, "script"), &lea, "Lea", &format!("{}:{}", p.flow.fill("tests/{one}.py"), line_of(&p)));
    is_not_known(&change_of(&patched, "reference"), "not of itself");
}

fn line_of(p: &Project) -> usize {
    let text = std::fs::read_to_string(p.flow.path(&p.flow.fill("tests/{one}.py"))).unwrap();
    text.lines().position(|line| line.contains("sha256:0")).unwrap() + 1
}

#[test]
fn history_lists_who_changed_what_a_tool_is_asked_of() {
    let p = Project::new();
    p.flow.program(
        "asked.sh",
        "#!/bin/sh\n[ \"$1\" = --version ] && exec /bin/cat \"${0%/*}/answer/text\"\necho 1 > \"$1\"\n",
    );
    p.flow.write("answer/text", "1.0\n");
    p.flow.write(
        "g.kdl",
        r#"flow 1
pipeline glued {
    tool asked "./asked.sh" { probe "--version"; watch "answer" }
    axis n "1"
    step one uses=command { each n; run "{tool.asked}" "{out.m}"; output m "m.txt" }
}
"#,
    );
    p.commit("Ann", "a tool that is asked");
    p.flow.write("answer/text", "1.1\n");
    let history = || p.flow.flow(&["history", "g.kdl", "-n", "1", "--json"]).exits(0).json()["versions"][0].clone();
    let edited = history();
    assert_eq!((&edited["commit"], &edited["paths"]), (&Value::Null, &serde_json::json!(["answer"])), "{edited:#}");
    let jon = p.commit("Jon", "another answer");
    let said = history();
    assert_eq!((&said["commit"], &said["again"]["steps"]), (&jon.into(), &serde_json::json!([])), "{said:#}");
    assert_eq!(said["again"]["at_most"], serde_json::json!([["one", 1]]), "it may answer the same");
    let between = p.flow.flow(&["why", "*", "g.kdl", "--between", "HEAD~1", "HEAD"]).exits(0).stdout.clone();
    assert!(between.contains("answer of tool asked differs"), "{between}");
}

#[test]
fn without_git_it_is_said_once_that_nobody_can_be_named() {
    let flow = Flow::sample();
    flow.run().settles();
    flow.replace("steps.kdl", "*.log", "*.tmp");
    let said = flow.flow(&["why", "{one}", "m.kdl"]);
    said.exits(0).says("lies in no git repository: who changed what, and when, is not known");
}

#[test]
fn a_commit_of_the_very_second_of_a_run_is_not_blamed_for_what_a_tool_answers() {
    let p = Project::new();
    // What is in no commit when a run begins leaves only the clocks to go by.
    p.flow.write("prompts/task.md", "Be fast.\n");
    p.flow.run().settles();
    let built = p.flow.ends("build", "succeeded");
    let at = built[0]["at"].as_str().unwrap();
    p.flow.replace("m.kdl", "probe \"-VV\"", "probe \"-V\"");
    let commit = |at: &str| {
        p.git(&["add", "-A"]);
        let mut amend = Command::new("git");
        amend.args(["-c", "user.name=Kim", "-c", "user.email=k@localhost", "commit", "-q", "-m", "another probe"]);
        amend.current_dir(p.flow.path(".")).env("GIT_COMMITTER_DATE", at).env("GIT_CONFIG_GLOBAL", "/dev/null");
        assert!(amend.status().unwrap().success());
    };
    commit(at);
    is_not_known(&p.change("build", "interpreter"), "of the very second");
}

#[test]
fn a_run_of_files_that_no_commit_has_says_so_whatever_they_are() {
    let p = Project::new();
    let script = |name: &str, text: &str| {
        p.flow.write(name, text);
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(p.flow.path(name), mode).unwrap();
    };
    script("glue.sh", "#!/bin/sh\necho 1 > \"$1\"\n");
    script("tree/act", "#!/bin/sh\n[ \"$1\" = -v ] && { echo 1; exit; }\n. \"${0%/*}/lib\"\n");
    p.flow.write("tree/lib", "echo 1 > \"$1\"\n");
    p.flow.write("given", "a\n");
    p.flow.write(
        "g.kdl",
        r#"flow 1
pipeline glued {
    tool glue "./glue.sh"
    tool act "tree/act" { probe "-v"; source "tree" }
    axis n "1"
    step one uses=command { each n; input a "given"; run "{tool.glue}" "{out.m}" "{in.a}"; output m "m.txt" }
    step two uses=command { each n; run "{tool.act}" "{out.m}"; output m "m.txt" }
}
"#,
    );
    p.commit("Ann", "tools of the project's own");
    let run = || p.flow.flow(&["run", "g.kdl", "--quiet"]).exits(0).stdout.replace("\n", " ");
    assert!(!run().contains("UNCOMMITTED"));
    p.flow.replace("glue.sh", "echo 1", "echo 2");
    assert!(run().contains("UNCOMMITTED: glue.sh: not as commit"));
    p.flow.replace("tree/lib", "echo 1", "echo 2");
    assert!(run().contains("UNCOMMITTED: glue.sh and 1 more: not as commit"));
    p.commit("Ann", "both");
    assert!(!run().contains("UNCOMMITTED"));
    let elsewhere = p.flow.beside("given");
    std::fs::write(&elsewhere, "b\n").unwrap();
    p.flow.replace("g.kdl", "input a \"given\"", "input a \"../given\"");
    p.commit("Ann", "from elsewhere");
    let said = run();
    assert!(
        said.contains("UNCOMMITTED: not in git: ") && said.contains("nobody else can make this run again"),
        "{said}"
    );
}

#[test]
fn a_plan_says_who_brought_its_causes() {
    let p = Project::new();
    p.flow.run().settles();
    p.flow.replace("prompts/task.md", "Good luck.", "Good bye.");
    let bea = p.commit("Bea", "another word");
    p.flow.replace("configs/tidy.yaml", "temperature: 0.2", "temperature: 0.9");
    let ivo = p.commit("Ivo", "warmer");
    // A plan looks for it as long as that is quick, which is at least one cause.
    let plan = p.flow.flow(&["plan", "m.kdl", "--only", "pkg/{one}/tidy/1"]);
    plan.exits(0).says(&format!("by {}, Bea: another word; prompts/task.md:5", &bea[..8]));
    p.flow.replace("m.kdl", "set MODE \"plain\"", "set MODE \"fancy\"");
    let plan = p.flow.flow(&["plan", "m.kdl", "--explain"]);
    plan.exits(0).says(&format!("by {}, Bea: another word; prompts/task.md:5", &bea[..8]));
    plan.says(&format!("by {}, Ivo: warmer; configs/tidy.yaml:3", &ivo[..8])).says("uncommitted: m.kdl:");
    plan.says("actions would be executed").says("what only follows is served after all");
    let plan = p.flow.flow(&["plan", "m.kdl", "--explain", "--json"]).exits(0).json();
    let by: Vec<&Value> = plan["causes"].as_array().unwrap().iter().map(|cause| &cause["by"]).collect();
    assert!(by.iter().any(|by| by.as_array().is_some_and(|by| by.len() == 2)), "{by:?}");
    let short = p.flow.flow(&["why", "pkg/{one}/tidy/1", "m.kdl", "--short"]);
    short.exits(0).says(&format!("prompt and 1 more, by {} and another", &bea[..8]));
}

#[test]
fn of_a_text_that_is_lost_that_is_said() {
    let p = Project::new();
    p.flow.run().settles();
    p.flow.replace("configs/tidy.yaml", "temperature: 0.2", "temperature: 0.9");
    let old = p.change("agent", "config")["old"].as_str().unwrap().replace("sha256:", "");
    let blob = p.flow.cache().join(format!("cas/v1/{}/{}", &old[..2], &old[2..]));
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(&blob, mode).unwrap();
    std::fs::write(&blob, "").unwrap();
    for _ in 0..2 {
        let said = p.change("agent", "config");
        assert_eq!(said["diff"], "(the old text is no longer in the store)", "{said:#}");
    }
}

/// Two steps of one kind at one point, of which the second reads a file.
fn chain() -> Project {
    let p = Project { flow: Flow::empty() };
    p.flow.write(
        "m.kdl",
        "flow 1\npipeline chain {\n    axis n \"alpha\"\n    step one uses=command {\n        input a \"a.txt\"\n        \
         run \"cp\" \"{in.a}\" \"{out.o}\"\n        output o \"one.txt\"\n    }\n    step two uses=command {\n        \
         needs one\n        input e \"e.txt\"\n        run \"cp\" \"{in.e}\" \"{out.o}\"\n        output o \"two.txt\"\n    }\n}\n",
    );
    p.flow.write("a.txt", "a1\n");
    p.flow.write("e.txt", "e1\n");
    p.flow.write(".gitignore", "/cache/\n");
    p.git(&["init", "-q", "-b", "main"]);
    p.commit("Ann", "the first version");
    p
}

fn in_chain(p: &Project, step: &str, ingredient: &str, more: &[&str]) -> Value {
    let document = p.flow.flow(&[&["why", "**", "m.kdl", "--json"], more].concat()).exits(0).json();
    let steps = document["jobs"][0]["steps"].as_array().unwrap();
    let step = steps.iter().find(|known| known["step"] == step).unwrap_or_else(|| panic!("no {step}: {document:#}"));
    change_of(step, ingredient)
}

#[test]
fn who_renames_a_step_is_not_blamed_for_what_it_reads() {
    let p = chain();
    p.flow.run().settles();
    p.flow.write("e.txt", "e2\n");
    let max = p.commit("Max", "another file");
    p.flow.replace("m.kdl", "step two ", "step zwei ");
    p.commit("Ned", "only a name");
    names(&in_chain(&p, "zwei", "in e", &[]), &max, "Max", "e.txt:1");
    names(&in_chain(&p, "zwei", "in e", &["--between", "HEAD~2", "HEAD"]), &max, "Max", "e.txt:1");
    p.flow.run().settles();
    names(&in_chain(&p, "zwei", "in e", &["--run"]), &max, "Max", "e.txt:1");
}

#[test]
fn who_brings_back_what_was_away_is_not_blamed_for_what_was_edited_before_or_meanwhile() {
    let p = Project::new();
    p.flow.run().settles();
    p.flow.replace("agents.kdl", "version \"1\"; usage", "version \"2\"; usage");
    let pia = p.commit("Pia", "another version");
    let list = std::fs::read_to_string(p.flow.path("commits.txt")).unwrap();
    let rest: Vec<&str> = list.lines().filter(|line| !line.contains(&p.flow.fill("{one}")[..8])).collect();
    p.flow.write("commits.txt", &format!("{}\n", rest.join("\n")));
    p.commit("Rob", "drop a commit");
    p.flow.replace("configs/tidy.yaml", "temperature: 0.2", "temperature: 0.9");
    let eve = p.commit("Eve", "warmer");
    p.flow.write("commits.txt", &list);
    p.commit("Sam", "take it back");
    names(&p.change("agent", "version"), &pia, "Pia", "agents.kdl:4");
    names(&p.change("agent", "config"), &eve, "Eve", "configs/tidy.yaml:3");
}

#[test]
fn an_edit_that_was_taken_back_is_nobodys_commit() {
    let p = Project::new();
    p.flow.replace("configs/tidy.yaml", "steps: 10", "steps: 11");
    p.commit("Kim", "more steps");
    p.flow.replace("configs/tidy.yaml", "temperature: 0.2", "temperature: 0.9");
    p.flow.run().settles();
    p.git(&["checkout", "-q", "configs"]);
    is_not_known(&p.change("agent", "config"), "an edit that was never committed was taken back");
}

#[test]
fn who_adds_a_second_manifest_is_not_blamed_for_what_was_so_before_the_run() {
    let p = Project::new();
    p.flow.run().settles();
    p.flow.replace("agents.kdl", "version \"1\"; usage", "version \"2\"; usage");
    p.commit("Quin", "another version");
    p.flow.replace("agents.kdl", "version \"2\"; usage", "version \"1\"; usage");
    p.flow.replace("m.kdl", "import \"agents.kdl\"", "import \"older.kdl\"");
    p.flow.write(
        "older.kdl",
        &std::fs::read_to_string(p.flow.path("agents.kdl")).unwrap().replace("\"1\"; usage", "\"0\"; usage"),
    );
    p.commit("Pia", "two adapters");
    p.flow.run().settles();
    std::fs::remove_dir_all(p.flow.path("cache/runs")).unwrap();
    let second = std::fs::read_to_string(p.flow.path("m.kdl")).unwrap().replace("older.kdl", "agents.kdl");
    p.flow.write("second.kdl", &second.replace("set MODE \"plain\"", "set MODE \"fancy\""));
    p.flow.write("configs/tidy.yaml", "model:\n  temperature: 0.3\n");
    let rae = p.commit("Rae", "a second manifest");
    let document = p.flow.flow(&["why", "pkg/{one}/tidy/1", "second.kdl", "--json"]).exits(0).json();
    let steps = document["jobs"][0]["steps"].as_array().unwrap();
    for change in steps.iter().flat_map(|step| step["changes"].as_array().into_iter().flatten()) {
        let path = change["origin"]["path"].as_str();
        assert!(path != Some("agents.kdl"), "{change:#}");
        assert!(change["origin"]["commit"].is_null() || change["origin"]["commit"] == rae, "{change:#}");
    }
}

#[test]
fn what_is_committed_is_not_called_uncommitted_for_a_flaw_or_a_new_name_of_the_manifest() {
    let p = Project::new();
    p.flow.run().settles();
    p.flow.replace("configs/tidy.yaml", "temperature: 0.2", "temperature: 0.9");
    p.flow.replace("m.kdl", "set MODE \"plain\"", "set MODE \"fancy\"");
    let max = p.commit("Max", "warmer, fancier");
    p.git(&["mv", "m.kdl", "n.kdl"]);
    let document = p.flow.flow(&["why", "pkg/{one}/tidy/1", "n.kdl", "--json"]).exits(0).json();
    let agent =
        document["jobs"][0]["steps"].as_array().unwrap().iter().find(|step| step["step"] == "agent").unwrap().clone();
    names(&change_of(&agent, "config"), &max, "Max", "configs/tidy.yaml:3");
    p.git(&["mv", "n.kdl", "m.kdl"]);
    p.flow.replace("m.kdl", "agent=scripted {", "agent=scriptd {");
    p.flow.replace("prompts/task.md", "Make it faster.", "Be fast.");
    let ned = p.commit("Ned", "a typing error");
    p.flow.replace("m.kdl", "agent=scriptd {", "agent=scripted {");
    names(&p.change("agent", "config"), &max, "Max", "configs/tidy.yaml:3");
    names(&p.change("agent", "prompt"), &ned, "Ned", "prompts/task.md:1");
    let line = line_of_text(&p, "m.kdl", "set MODE");
    names(&p.change("patched", "env MODE"), &max, "Max", &format!("m.kdl:{line}"));
    p.flow.replace("configs/tidy.yaml", "temperature: 0.9", "temperature: 0.8");
    let edited = p.change("agent", "config");
    assert!(edited["origin"]["commit"].is_null() && edited["origin"]["path"] == "configs/tidy.yaml", "{edited:#}");
}

fn line_of_text(p: &Project, file: &str, text: &str) -> usize {
    let all = std::fs::read_to_string(p.flow.path(file)).unwrap();
    all.lines().position(|line| line.contains(text)).unwrap() + 1
}

#[test]
fn in_a_clone_that_left_out_contents_nobody_is_blamed_for_what_is_not_here() {
    let p = chain();
    p.flow.run().settles();
    p.flow.write("e.txt", "e2\n");
    let max = p.commit("Max", "another file");
    p.flow.replace("m.kdl", "axis n", "axis  n");
    p.commit("Ned", "a blank");
    p.flow.write("a.txt", "a2\n");
    let moe = p.commit("Moe", "a two");
    p.git(&["config", "uploadpack.allowFilter", "true"]);
    let clone = p.flow.beside("clone");
    let from = format!("file://{}", p.flow.path(".").canonicalize().unwrap().display());
    git(&p.flow.path("."), "Ann", &["clone", "-q", "--no-local", "--filter=blob:none", &from, clone.to_str().unwrap()]);
    support::copy(&p.flow.path("cache"), &clone.join("cache"));
    let output = p.flow.command(&["why", "**", "m.kdl", "--json"]).current_dir(&clone).output().unwrap();
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let steps = document["jobs"][0]["steps"].as_array().unwrap();
    for change in steps.iter().flat_map(|step| step["changes"].as_array().into_iter().flatten()) {
        let right = if change["ingredient"] == "in e" { &max } else { &moe };
        let commit = &change["origin"]["commit"];
        assert!(commit.is_null() && change["unexplained"].is_string() || commit == right, "{change:#}");
    }
}

#[test]
fn whoever_was_there_when_another_tool_is_used_today_is_not_blamed_for_it() {
    let p = chain();
    let script = |text: &str| {
        p.flow.write("glue.sh", &format!("#!/bin/sh\n# {text}\ncp \"$1\" \"$2\"\n"));
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(p.flow.path("glue.sh"), mode).unwrap();
    };
    script("first");
    p.flow.replace("m.kdl", "axis n", "tool glue \"./glue.sh\"\n    axis n");
    p.flow.replace("m.kdl", "run \"cp\" \"{in.e}\"", "run \"{tool.glue}\" \"{in.e}\"");
    p.commit("Kim", "a tool of its own");
    p.flow.run().settles();
    script("second");
    let lea = p.commit("Lea", "another line");
    script("third");
    let max = p.commit("Max", "and another");
    let now = p.flow.flow(&["plan", "m.kdl", "--explain"]);
    now.exits(0).says(&format!("by {}, Max", &max[..8]));
    let then = p.flow.flow(&["plan", "m.kdl", "--at", "HEAD~1", "--explain"]);
    then.exits(0).says("tool glue");
    assert!(!then.stdout.contains(&lea[..8]) && !then.stdout.contains("Lea"), "{}", then.stdout);
}

#[test]
fn what_was_committed_before_a_run_is_told_beside_what_was_committed_since() {
    let p = Project::new();
    p.flow.run().settles();
    p.flow.replace("configs/tidy.yaml", "steps: 10", "steps: 11");
    let ida = p.commit("Ida", "more steps");
    p.flow.replace("configs/tidy.yaml", "temperature: 0.2", "temperature: 0.9");
    p.flow.run().settles();
    let told = || change_of(&p.step("agent", &["--run"]), "config");
    let before = told();
    assert!(before["origin"]["commit"].is_null(), "{before:#}");
    assert_eq!(before["origin"]["also"][0]["commit"], ida, "{before:#}");
    let kim = p.commit("Kim", "warmer, as it was run");
    let since = told();
    assert_eq!((&since["origin"]["commit"], &since["origin"]["also"][0]["commit"]), (&kim.into(), &ida.into()));
}

#[test]
fn an_edit_of_a_file_that_a_tool_is_installed_from_is_said_to_be_uncommitted() {
    let p = chain();
    p.flow.write("lib/x.py", "1\n");
    p.flow.write("lib/y.py", "1\n");
    p.flow.replace("m.kdl", "axis n", "tool copy \"cp\" { probe \"--version\"; source \"lib\" }\n    axis n");
    p.flow.replace("m.kdl", "run \"cp\" \"{in.e}\"", "run \"{tool.copy}\" \"{in.e}\"");
    p.commit("Kim", "a source");
    p.flow.run().settles();
    the_next_second();
    p.flow.write("lib/x.py", "2\n");
    let change = in_chain(&p, "two", "source copy", &[]);
    assert!(change["origin"]["commit"].is_null() && change["origin"]["path"] == "lib/x.py", "{change:#}");
}
