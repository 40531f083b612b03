//! The promise of environments: each is built once, of the files that decide it and of nothing else; complete or absent; and what a
//! build's failure says of a patch is true.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::path::{Path, PathBuf};
use std::process::Stdio;

use support::processes::marked;
use support::{Flow, Ran, copy, until};

/// The native example: a package with one C file, two commits, five candidates.
fn native() -> Flow {
    let mut flow = Flow::empty();
    flow.env("COLUMNS", "300");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for folder in ["pipelines", "examples/native"] {
        copy(&root.join(folder), &flow.path(folder));
    }
    flow
}

const NATIVE: &str = "pipelines/native.kdl";

#[test]
fn the_humans_tree_that_is_measured_beside_a_patch_runs_in_a_build_of_its_own() {
    let flow = native();
    flow.edit(NATIVE, |text| {
        let without =
            |name: &str| text.lines().find(|line| line.contains(&format!("candidate {name} "))).unwrap().to_owned();
        let text = text.replace(&without("human"), "").replace(&without("nop"), "").replace(&without("broken"), "");
        text.replace("step agent {", "step patched { with human }\n    step agent {")
    });
    let ran = flow.flow(&["run", NATIVE, "--json"]);
    let classes = ran.settles().classes();
    assert!(classes.values().all(|class| class == "SUCCESS_IMPROVEMENT"), "{classes:?}");
    let human: Vec<String> = ran.executed().into_iter().filter(|action| action.ends_with(" rebuild-human")).collect();
    assert!(!human.is_empty() && human.len() <= 2, "one a commit, where no other build is the same: {human:?}");
    for commit in ["77ad838a", "06007822"] {
        let shown = flow.flow(&["show", &format!("tally/{commit}/python/1"), NATIVE, "--json"]).json();
        let gain = shown["human"]["gain"].as_f64();
        assert!(gain.is_some_and(|gain| gain > 1.1), "the human's change to C counts: {}", shown["human"]);
    }
    flow.flow(&["run", NATIVE, "--json"]).settles().executes_nothing();
}

#[test]
fn a_humans_tree_that_cannot_be_built_is_given_up_and_the_patch_is_measured() {
    let mut flow = sample(
        "    from \"pkg/work.py\"\n    run \"sh\" \"-c\" \"if grep -q 'OPS.0. += 1$' pkg/work.py; then echo 'work.py:7:3: error: no ones' >&2; exit 1; fi\"",
    );
    flow.env("COLUMNS", "300");
    flow.write("commits.txt", "{one:40}\n");
    flow.add("step patched { with human }");
    let ran = flow.run();
    assert_eq!(ran.settles().class("{one}/tidy/1"), "SUCCESS_IMPROVEMENT");
    assert_eq!(ran.class("{one}/human/1"), "PATCHED_BUILD_ERROR");
    let shown = flow.flow(&["show", "pkg/{one}/tidy/1", "m.kdl", "--json"]).json();
    assert!(shown["marks"].to_string().contains("HUMAN-FAILED"), "{}", shown["marks"]);
    flow.run().executes_nothing();
}

/// The sample whose tests run in what a recipe builds. `recipe` is all that stands in it.
fn sample(recipe: &str) -> Flow {
    let mut flow = Flow::sample();
    flow.env("COLUMNS", "300");
    flow.write("recipes.kdl", &format!("flow 1\nrecipe made {{\n{recipe}\n}}\n"));
    flow.replace("m.kdl", "\"steps.kdl\"", "\"steps.kdl\" \"recipes.kdl\"");
    flow.replace("steps.kdl", "recipe interpreter", "recipe made");
    flow
}

/// Built of a file that no patch touches.
const APART: &str = r#"    from "pkg/__init__.py"
    run "cp" "pkg/__init__.py" "{out}/part""#;
/// Built of the file that the patches touch.
const TOUCHED: &str = r#"    from "pkg/work.py"
    run "cp" "pkg/work.py" "{out}/part""#;

fn envs(flow: &Flow) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(flow.cache().join("envs"));
    let mut found: Vec<PathBuf> =
        entries.map(|dir| dir.map(|entry| entry.unwrap().path()).collect()).unwrap_or_default();
    found.sort();
    found
}

/// The environments that a run built, as `point step`.
fn built(ran: &Ran) -> Vec<String> {
    let is = |title: &String| title.ends_with(" build") || title.ends_with(" rebuild");
    ran.executed().into_iter().filter(is).collect()
}

/// The class of a job, settled or not.
fn class(flow: &Flow, job: &str) -> String {
    let shown = flow.flow(&["show", &format!("pkg/{job}"), "m.kdl", "--json"]);
    shown.json()["class"].as_str().unwrap_or_default().to_owned()
}

fn remove(path: &Path) {
    flow::hostile::remove_all(path).unwrap();
}

#[test]
fn patches_to_native_code_are_built_and_those_to_python_are_not() {
    let flow = native();
    let ran = flow.flow(&["run", NATIVE, "--json"]);
    let classes = ran.settles().classes();
    for commit in ["77ad838a", "06007822"] {
        let of = |candidate: &str| classes[&format!("{commit}/{candidate}/1")].as_str();
        assert_eq!([of("human"), of("python"), of("native")], ["SUCCESS_IMPROVEMENT"; 3]);
        assert_eq!([of("nop"), of("broken")], ["AGENT_NO_PATCH", "PATCHED_BUILD_ERROR"]);
    }
    // Each base, the human's tree that is no base, each patch to C; the broken ones end as failures. What the first human makes of
    // the C file is what the second commit begins with.
    assert_eq!(envs(&flow).len(), 5, "{:?}", built(&ran));
    assert!(!built(&ran).iter().any(|action| action.contains("python")), "{:?}", built(&ran));
    let shown = flow.flow(&["show", "tally/77ad838a/broken/1", NATIVE]);
    shown.settles().says("csrc/tally.c:20:5").says("error:");
    flow.flow(&["log", "tally/77ad838a/broken/1", "rebuild", NATIVE]).settles().says("the base's build passes");
    flow.flow(&["run", NATIVE, "--json"]).settles().executes_nothing();
}

#[test]
fn a_plan_says_how_many_are_built_before_anything_is() {
    let apart = sample(APART);
    // Two commits with the same file, and a patch of each candidate to each.
    apart.flow(&["plan", "m.kdl"]).settles().says("1 environment, 0 there, 1 to build, and at most 4 more once");
    assert_eq!(built(apart.run().settles()).len(), 1);
    apart.flow(&["plan", "m.kdl"]).settles().says("1 environment, 1 there, 0 to build");

    let touched = sample(TOUCHED);
    touched.flow(&["plan", "m.kdl"]).settles().says("2 environments, 0 there, 2 to build");
    touched.flow(&["run", "m.kdl", "--until", "patch", "--json"]).settles();
    // The bases are built, and every patch is known.
    touched.flow(&["plan", "m.kdl"]).settles().says("5 environments, 2 there, 3 to build");
    assert_eq!(built(touched.run().settles()).len(), 3);
    assert_eq!(envs(&touched).len(), 5);
}

#[test]
fn other_files_to_build_from_are_named_with_who_asked_for_them() {
    let flow = sample(APART);
    flow.write(".gitignore", "/cache\n/repo\n");
    let git = |args: &[&str]| support::git(&flow.path(""), args);
    git(&["init", "-q"]);
    git(&["add", "-A"]);
    git(&["commit", "-q", "-m", "Begin"]);
    flow.run().settles();
    flow.replace("recipes.kdl", "from \"pkg/__init__.py\"", "from \"pkg/__init__.py\" \"pkg/work.py\"");
    git(&["commit", "-q", "-a", "-m", "Build from the work too"]);
    let why = flow.flow(&["why", "{one}", "m.kdl"]);
    why.settles().says("added pkg/work.py").says("recipes.kdl:3").says("Build from the work too");
    let plan = flow.flow(&["plan", "m.kdl"]);
    plan.settles().says("files: what `from` matched -> others that it matches").says("recipes.kdl:3").says("1 root");
    let between = flow.flow(&["why", "{one}", "m.kdl", "--between", "HEAD~1", "HEAD"]);
    between.settles().says("from pkg/__init__.py -> from pkg/__init__.py pkg/work.py").says("recipes.kdl:3");
    // What was brought for its base is another thing because the base's build is, and no edit of anybody's.
    flow.run().settles();
    flow.edit("recipes.kdl", |text| text.replace("{out}/part", "{out}/other"));
    git(&["commit", "-q", "-a", "-m", "Elsewhere"]);
    flow.run().settles();
    let why = flow.flow(&["why", "{one}", "m.kdl", "--run"]);
    why.settles().says("downloads: ").says("Elsewhere");
    assert!(!why.stdout.contains("not in git"), "{}", why.stdout);
}

#[test]
fn commits_whose_files_agree_share_one_build_and_patches_outside_of_it_build_nothing() {
    let flow = sample(APART);
    let ran = flow.run();
    ran.settles();
    assert_eq!(built(&ran).len(), 1, "{:?}", built(&ran));
    assert_eq!(envs(&flow).len(), 1);
    let part = envs(&flow)[0].join("out/part");
    assert!(std::fs::metadata(&part).unwrap().permissions().readonly(), "sealed");
    flow.run().executes_nothing();

    let flow = sample(TOUCHED);
    let ran = flow.run();
    // Two bases, two patches and the second human's tree: the first human's is the second base.
    assert_eq!(built(ran.settles()).len(), 5, "{:?}", built(&ran));
}

#[test]
fn a_file_that_from_forgets_fails_the_build_aloud() {
    let flow = sample("    from \"pkg/__init__.py\"\n    run \"cp\" \"pkg/work.py\" \"{out}/part\"");
    let ran = flow.run();
    ran.exits(3);
    assert_eq!(class(&flow, "{one}/tidy/1"), "ENVIRONMENT_FAILED");
    let agents = ran.executed().into_iter().filter(|action| action.ends_with(" agent")).count();
    assert_eq!(agents, 0, "nobody is paid for a commit that cannot be built");
    flow.flow(&["show", "pkg/{one}/tidy/1"]).says("pkg/work.py");
    assert!(envs(&flow).is_empty(), "what is half there is no environment");
}

#[test]
fn another_line_of_the_recipe_builds_anew_and_a_limit_does_not() {
    let flow = sample(APART);
    flow.run().settles();
    flow.add("step build { timeout \"5m\" }");
    flow.run().settles().executes_nothing();
    flow.replace("recipes.kdl", "{out}/part", "{out}/other");
    flow.flow(&["plan", "m.kdl"]).settles().says("recipe: run cp").says("{out}/other");
    assert_eq!(built(flow.run().settles()).len(), 1);
}

#[test]
fn a_line_of_the_users_own_requirements_is_named_with_what_it_costs() {
    let flow = sample(
        "    file base \"base.txt\"\n    from \"pkg/__init__.py\"\n    run \"cp\" \"{file.base}\" \"{out}/base\"",
    );
    flow.write("base.txt", "numpy==1.26.0\nscipy==1.11.0\n");
    flow.write(".gitignore", "/cache\n/repo\n");
    let git = |args: &[&str]| support::git(&flow.path(""), args);
    git(&["init", "-q"]);
    git(&["add", "-A"]);
    git(&["commit", "-q", "-m", "Begin"]);
    flow.run().settles();
    assert_eq!(std::fs::read_to_string(envs(&flow)[0].join("out/base")).unwrap(), "numpy==1.26.0\nscipy==1.11.0\n");
    flow.replace("base.txt", "scipy==1.11.0", "scipy==1.12.0");
    git(&["commit", "-q", "-a", "-m", "Newer scipy"]);
    let why = flow.flow(&["why", "{one}", "m.kdl"]);
    why.settles().says("+scipy==1.12.0").says("base.txt:2").says("Newer scipy");
    why.says("one build for 2 commits; the last one took");
    flow.flow(&["plan", "m.kdl"]).settles().says("base.txt:2").says("1 build").says("11 of 26 actions");
    assert_eq!(built(flow.run().settles()).len(), 1);
}

#[test]
fn what_is_gone_is_built_again_only_where_somebody_needs_it() {
    let flow = sample(APART);
    flow.run().settles();
    remove(&flow.cache().join("envs"));
    flow.run().settles().executes_nothing();
    flow.edit("tests/{one}.py", |text| format!("{text}\n# a word\n"));
    let ran = flow.run();
    let mut executed = ran.settles().executed();
    executed.retain(|action| !action.ends_with(" classify"));
    assert_eq!(executed.len(), 4, "the build, the gate and two measurements: {executed:?}");
    assert_eq!(built(&ran).len(), 1);
    flow.run().executes_nothing();
}

#[test]
fn who_classifies_needs_no_environment() {
    let flow = sample(TOUCHED);
    flow.flow(&["run", "m.kdl", "--until", "patched", "--json"]).settles();
    remove(&flow.cache().join("envs"));
    let ran = flow.run();
    let executed = ran.settles().executed();
    assert!(!executed.is_empty() && executed.iter().all(|action| action.ends_with(" classify")), "{executed:?}");
}

#[test]
fn what_gc_takes_away_is_made_again_by_whoever_needs_it_the_mirror_too() {
    let flow = native();
    flow.flow(&["run", NATIVE]).settles();
    flow.flow(&["gc", NATIVE]).settles();
    flow.flow(&["run", NATIVE, "--json"]).settles().executes_nothing();
    flow.edit("examples/native/tests/work.py", |text| format!("{text}\n# a word\n"));
    let ran = flow.flow(&["run", NATIVE, "--json"]);
    assert_eq!(built(ran.settles()).len(), 5, "{:?}", built(&ran));
    let agents = ran.executed().into_iter().filter(|action| action.ends_with(" agent")).count();
    assert_eq!(agents, 0, "nobody is paid twice");
    remove(&flow.cache().join("index/trees"));
    flow.flow(&["gc", NATIVE]).settles();
    flow.flow(&["run", NATIVE, "--json"]).settles().executes_nothing();
}

#[test]
fn an_environment_that_was_moved_is_not_used_and_moving_runs_nothing() {
    let flow = sample("    from \"pkg/__init__.py\"\n    run \"sh\" \"-c\" \"echo $0 > $0/where\" \"{out}\"");
    flow.run().settles();
    let moved = flow.twin();
    moved.run().settles().executes_nothing();
    moved.edit("tests/{one}.py", |text| format!("{text}\n# a word\n"));
    let ran = moved.run();
    assert_eq!(built(ran.settles()).len(), 1);
    let place = envs(&moved)[0].join("out");
    assert_eq!(std::fs::read_to_string(place.join("where")).unwrap().trim(), place.display().to_string());
}

#[test]
fn a_recipe_knows_what_its_base_is_called_and_nobody_else_does() {
    let flow = sample(
        r#"    from "pkg/__init__.py"
    set VERSION "{commit.version}"
    run "sh" "-c" "echo $VERSION {commit.describe} > $0/version" "{out}""#,
    );
    let repo = flow.path("repo");
    let git = |args: &[&str]| support::git(&repo, args);
    let said = || {
        let text = |env: &PathBuf| std::fs::read_to_string(env.join("out/version")).unwrap().trim().to_owned();
        let mut said: Vec<String> = envs(&flow).iter().map(text).collect();
        said.sort();
        said
    };
    let wanted = |versions: [&str; 2], names: [&str; 2]| {
        let base = |commit: &str| git(&["rev-parse", &format!("{}^", flow.id(commit))])[..8].to_owned();
        let filled = |text: &str, commit: &str| text.replace("ID", &base(commit));
        let commits = ["one", "two"];
        let line = |n: usize| filled(&format!("{} {}", versions[n], names[n]), commits[n]);
        let mut lines = vec![line(0), line(1)];
        lines.sort();
        lines
    };
    flow.run().settles();
    assert_eq!(said(), wanted(["0.1.dev1+gID", "0.1.dev2+gID"], ["ID", "ID"]), "without a tag");
    flow.run().settles().executes_nothing();

    let root = git(&["rev-list", "--max-parents=0", "HEAD"]).trim().to_owned();
    git(&["tag", "-a", "-m", "First", "v1.2.3", &root]);
    git(&["tag", "9-lives-later", "HEAD"]);
    git(&["tag", "nightly", &format!("{}^", flow.id("two"))]);
    git(&["pack-refs", "--all"]);
    remove(&flow.cache().join("envs"));
    flow.run().settles();
    let names = ["v1.2.3-0-gID", "v1.2.3-1-gID"];
    assert_eq!(said(), wanted(["1.2.3", "1.2.4.dev1+gID"], names));
    for (commit, name) in ["one", "two"].into_iter().zip(names) {
        let base = format!("{}^", flow.id(commit));
        let git = git(&["describe", "--tags", "--long", "--abbrev=8", "--match", "*[0-9]*", &base]);
        let (own, digits) = name.split_once("ID").unwrap();
        assert!(git.starts_with(own) && digits.is_empty(), "{git}");
    }
    flow.flow(&["doctor", "m.kdl"]).exits(0);
    // What was told needs no repository again.
    std::fs::rename(&repo, flow.path("elsewhere")).unwrap();
    flow.run().settles().executes_nothing();

    flow.add("step agent { set VERSION \"{commit.version}\" }");
    flow.flow(&["check", "m.kdl"]).exits(2).says("`{commit.version}` is not known here").says("of a `recipe` know it");
}

/// A build that tells that it began, and waits for a word. Both are said in `signs`, which it can read but not write: it begins when
/// its own folder is there.
fn waits(flow: &Flow) -> PathBuf {
    let go = flow.signs().join("go");
    let line = format!("touch $0/half; while [ ! -e {} ]; do sleep 0.05; done; touch $0/whole", go.display());
    flow.write(
        "recipes.kdl",
        &format!(
            "flow 1\nrecipe made {{\n    from \"pkg/__init__.py\"\n    run \"sh\" \"-c\" \"{line}\" \"{{out}}\"\n}}\n"
        ),
    );
    go
}

#[test]
fn a_build_that_was_killed_is_no_environment() {
    let flow = sample(APART);
    let go = waits(&flow);
    let mut run =
        flow.command(&["run", "m.kdl", "--json"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    until("the build began", || envs(&flow).first().is_some_and(|env| env.join("out/half").exists()));
    run.kill().unwrap();
    run.wait().unwrap();
    until("no process is left", || marked(&flow.cache()).is_empty());
    assert!(!envs(&flow)[0].join("complete.json").exists());
    std::fs::write(&go, "").unwrap();
    let ran = flow.run();
    assert_eq!(built(ran.settles()).len(), 1);
    assert!(envs(&flow)[0].join("out/whole").exists());
    flow.run().executes_nothing();
}

#[test]
fn the_last_line_of_a_build_is_told_while_it_runs_without_secrets() {
    let mut flow = sample(APART);
    flow.env("INDEX_TOKEN", "t0ken-of-the-index");
    let go = waits(&flow);
    flow.edit("recipes.kdl", |text| {
        let text =
            text.replace("touch $0/half;", "echo first; printf '\\\\033[32mfrom %s\\\\033[0m\\\\n' $INDEX_TOKEN;");
        text.replace("    run ", "    secret INDEX_TOKEN\n    run ")
    });
    let out = flow.beside("events");
    let events = std::fs::File::create(&out).unwrap();
    let mut run = flow.command(&["run", "m.kdl", "--json"]).stdout(events).stderr(Stdio::null()).spawn().unwrap();
    let told = || {
        let text = std::fs::read_to_string(&out).unwrap();
        let events = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        events.filter(|event| event["event"] == "action-progress").collect::<Vec<_>>()
    };
    until("it is told", || !told().is_empty());
    std::fs::write(&go, "").unwrap();
    assert!(run.wait().unwrap().success());
    let line = told()[0]["line"].as_str().unwrap().to_owned();
    assert!(line.starts_with("from ") && !line.contains("t0ken") && !line.contains('\u{1b}'), "{line}");
    assert_eq!(told()[0]["step"], "build");
    let kept = flow.journal().iter().filter(|event| event["event"] == "action-progress").count();
    assert_eq!(kept, 0, "it is for who watches");
}

#[test]
fn two_runs_at_once_build_once() {
    let flow = sample(APART);
    let go = waits(&flow);
    let start =
        || flow.command(&["run", "m.kdl", "--json"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let runs = [start(), start()];
    until("the build began", || envs(&flow).first().is_some_and(|env| env.join("out/half").exists()));
    std::fs::write(&go, "").unwrap();
    let ran = runs.map(|run| flow.ran(run.wait_with_output().unwrap()));
    let builds: usize = ran.iter().map(|ran| built(ran.settles()).len()).sum();
    assert_eq!(builds, 1);
}

#[test]
fn a_patched_build_finds_the_downloads_of_its_base_and_no_network_of_its_own() {
    let flow = sample(
        r#"    from "pkg/work.py"
    fetch "sh" "-c" "echo brought > $0/wheel" "{downloads}"
    run "sh" "-c" "cp $1/wheel $0/wheel && wc -l < /proc/net/route > $0/routes" "{out}" "{downloads}""#,
    );
    flow.run().settles();
    let routes = |env: &PathBuf| std::fs::read_to_string(env.join("out/routes")).unwrap().trim().to_owned();
    assert!(envs(&flow).iter().all(|env| env.join("out/wheel").exists()), "all found it");
    if support_sandbox(&flow) {
        // One line is the heading.
        assert!(
            envs(&flow).iter().any(|env| routes(env) == "1"),
            "{:?}",
            envs(&flow).iter().map(routes).collect::<Vec<_>>()
        );
    }
    let brought = |env: &&PathBuf| env.join("downloads/wheel").exists();
    assert_eq!(
        envs(&flow).iter().filter(brought).count(),
        3,
        "each base and each human's tree fetched, and no patch's"
    );
}

/// Whether this machine holds processes to a network of their own.
fn support_sandbox(flow: &Flow) -> bool {
    let said = flow.flow(&["doctor", "m.kdl"]);
    !format!("{}{}", said.stdout, said.stderr).contains("cannot be held")
}

#[test]
fn what_fails_for_the_base_too_is_not_the_agents_doing() {
    let flow = sample(APART);
    let there = flow.signs().join("index-is-up");
    let recipe = format!(
        "flow 1\nrecipe made {{\n    from \"pkg/work.py\"\n    run \"sh\" \"-c\" \"test -e {} || {{{{ echo index is down >&2; exit 7; }}}}\"\n}}\n",
        there.display()
    );
    flow.write("recipes.kdl", &recipe);
    std::fs::write(&there, "").unwrap();
    flow.run_with(&["--until", "agent"]).settles();
    std::fs::remove_file(&there).unwrap();
    let ran = flow.run();
    ran.exits(3);
    assert_eq!(class(&flow, "{one}/tidy/1"), "ENVIRONMENT_FAILED");
    flow.flow(&["show", "pkg/{one}/tidy/1"]).says("the base cannot be rebuilt").says("index is down");
    std::fs::write(&there, "").unwrap();
    let ran = flow.run_with(&["--retry", "pkg/*"]);
    assert_eq!(ran.settles().class("{one}/tidy/1"), "SUCCESS_IMPROVEMENT");
}

#[test]
fn what_only_the_patch_breaks_is_the_agents() {
    let flow = sample(
        "    from \"pkg/work.py\"\n    run \"sh\" \"-c\" \"if grep -q 'OPS.0. += 5' pkg/work.py; then echo 'work.py:7:3: error: no fives' >&2; exit 1; fi\"",
    );
    let ran = flow.run();
    assert_eq!(ran.settles().class("{one}/tidy/1"), "PATCHED_BUILD_ERROR");
    assert_eq!(ran.class("{one}/human/1"), "SUCCESS_IMPROVEMENT");
    flow.flow(&["show", "pkg/{one}/tidy/1"]).says("work.py:7:3: error: no fives");
    flow.run().executes_nothing();
}

#[test]
fn a_build_that_leaves_out_what_overlay_names_has_failed() {
    let flow = sample(
        "    from \"pkg/work.py\"\n    overlay \"part.so\"\n    run \"sh\" \"-c\" \"if grep -q 'OPS.0. += 5' pkg/work.py; then echo 'work.py: warning: part is left out'; else cp pkg/work.py $0/part.so; fi\" \"{out}\"",
    );
    assert_eq!(flow.run().settles().class("{one}/tidy/1"), "PATCHED_BUILD_ERROR");
    let shown = flow.flow(&["show", "pkg/{one}/tidy/1"]);
    shown.says("none of the files that `overlay` of recipe made names was built below {out}").says("part is left out");
}

#[test]
fn a_patch_whose_build_fills_the_disk_twice_is_the_patchs_own() {
    let flow = sample(
        "    from \"pkg/work.py\"\n    run \"sh\" \"-c\" \"if grep -q 'OPS.0. += 5' pkg/work.py; then head -c 300M /dev/zero > $0/junk; fi\" \"{out}\"",
    );
    let small = flow.beside("small");
    std::fs::create_dir_all(&small).unwrap();
    let mounts = ["-m", "sh", "-c", "mount -t tmpfs -o size=100m none \"$0\" && exec \"$@\""];
    let tries = std::process::Command::new("unshare").args(mounts).arg(&small).arg("true").status();
    if !tries.is_ok_and(|status| status.success()) {
        println!("skipped: a small disk can be mounted by root alone");
        return;
    }
    let store = small.join("cache").display().to_string();
    let args = ["run", "m.kdl", "--json", "--jobs", "1", "--commit", "{one}", "--cache", &store];
    let inner = flow.command(&args);
    let mut outer = std::process::Command::new("unshare");
    outer.args(mounts).arg(&small).arg(inner.get_program()).args(inner.get_args());
    outer.current_dir(inner.get_current_dir().unwrap()).env_clear();
    outer.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let ran = flow.ran(outer.output().unwrap());
    assert_eq!(ran.settles().class("{one}/tidy/1"), "PATCHED_BUILD_ERROR");
    assert_eq!(ran.class("{one}/human/1"), "SUCCESS_IMPROVEMENT");
}

#[test]
fn submodules_are_in_the_key_and_the_humans_move_of_one_is_no_part_of_a_verdict() {
    let mut flow =
        sample("    from \"third/**\" \"pkg/__init__.py\"\n    run \"cp\" \"pkg/__init__.py\" \"{out}/part\"");
    let repo = flow.path("repo");
    let points = |id: &str| {
        std::fs::create_dir_all(repo.join("third/lib")).unwrap();
        support::git(&repo, &["update-index", "--add", "--cacheinfo", &format!("160000,{id},third/lib")])
    };
    let work = |ops: u32| {
        format!("OPS = [0]\n\n\ndef two(n):\n    for _ in range(n):\n        OPS[0] += {ops}\n    return n + 1\n")
    };
    let (first, second) = (flow.id("one").to_owned(), flow.id("two").to_owned());
    points(&first);
    flow.commit("sub", &[("pkg/work.py", &work(100))]);
    points(&second);
    flow.commit("moved", &[("pkg/work.py", &work(50))]);
    flow.commit("next", &[("pkg/work.py", &work(20))]);
    flow.write("commits.txt", "{moved:40}\n{next:40}\n");
    let script = std::fs::read_to_string(flow.path("tests/{two}.py")).unwrap();
    flow.write("tests/{moved}.py", &script);
    flow.write("tests/{next}.py", &script);
    let ran = flow.run_with(&["--only", "*/human/*"]);
    assert_eq!(ran.settles().class("{moved}/human/1"), "SUCCESS_IMPROVEMENT");
    assert_eq!(envs(&flow).len(), 2, "one for each commit of the submodule");
    let marks = |commit: &str| {
        let shown = flow.flow(&["show", &format!("pkg/{{{commit}}}/human/1"), "m.kdl", "--json"]);
        support::marks(&shown.json()).to_string()
    };
    assert!(marks("moved").contains("SUBMODULES"), "{}", marks("moved"));
    assert!(!marks("next").contains("SUBMODULES"), "{}", marks("next"));
    flow.run_with(&["--only", "*/human/*"]).executes_nothing();
}

#[test]
fn what_a_patched_build_leaves_or_takes_is_not_held_against_the_base() {
    // What is in the home of a build is gone before the next, and a patch whose build hangs leaves the base's its time.
    let flow = sample(
        "    from \"pkg/work.py\"\n    run \"sh\" \"-c\" \"test ! -e $HOME/left -a ! -e $TMPDIR/left || exit 9; if grep -q 'OPS.0. += 5' pkg/work.py; then touch $HOME/left $TMPDIR/left; sleep 300; fi\"",
    );
    flow.add("step build { timeout \"8s\" }");
    flow.add("step rebuild { timeout \"8s\" }");
    let ran = flow.run_with(&["--commit", "{one}"]);
    assert_eq!(ran.settles().class("{one}/tidy/1"), "PATCHED_BUILD_ERROR");
    flow.flow(&["show", "pkg/{one}/tidy/1"]).says("the limit is 8.0 s");
}

#[test]
fn a_rebuild_that_comes_out_otherwise_is_what_is_measured_in_from_then_on() {
    let flow = sample(APART);
    let version = flow.signs().join("version");
    std::fs::write(&version, "1.0\n").unwrap();
    flow.edit("recipes.kdl", |text| {
        text.replace("    run ", &format!("    identity \"cat\" \"{}\"\n    run ", version.display()))
    });
    flow.run().settles();
    std::fs::write(&version, "1.1\n").unwrap();
    remove(&flow.cache().join("envs"));
    flow.run().settles().executes_nothing();
    flow.edit("tests/{one}.py", |text| format!("{text}\n# a word\n"));
    let ran = flow.run();
    assert_eq!(built(ran.settles()).len(), 1);
    assert!(ran.executed().iter().any(|action| action.ends_with("baseline")), "{:?}", ran.executed());
    // The other commit was served before it was known that the build they share is another one now.
    let ran = flow.run();
    assert!(built(ran.settles()).is_empty(), "{:?}", built(&ran));
    assert_eq!(ran.executed().iter().filter(|action| action.ends_with("patched")).count(), 2, "{:?}", ran.executed());
    flow.run().settles().executes_nothing();
    let why = flow.flow(&["why", "{one}", "m.kdl", "--key"]);
    why.settles().says("1.1");
}

#[test]
fn a_patch_does_not_choose_what_runs_its_test() {
    let flow = sample(
        "    from \"pkg/work.py\"\n    run \"sh\" \"-c\" \"if grep -q 'OPS.0. += 5' pkg/work.py; then mkdir $0/bin; echo '#!/bin/sh' > $0/bin/python; chmod +x $0/bin/python; fi\" \"{out}\"",
    );
    let ran = flow.run();
    assert_eq!(ran.settles().class("{one}/tidy/1"), "SUSPECT");
    flow.flow(&["show", "pkg/{one}/tidy/1"]).says("another Python than the base's: bin/python");
    assert_eq!(ran.class("{one}/human/1"), "SUCCESS_IMPROVEMENT");
}

#[test]
fn a_patch_that_no_case_fits_or_whose_identity_fails_is_the_agents_doing() {
    let mut flow = sample("    when exists=\"case.txt\" { from \"pkg/*.py\"; run \"true\" }");
    let whole = "OPS = [0]\n\n\ndef two(n):\n    for _ in range(n):\n        OPS[0] += 10\n    return n + 1\n";
    flow.commit("cased", &[("case.txt", "x\n"), ("pkg/work.py", whole)]);
    flow.commit("three", &[("pkg/work.py", &whole.replace("+= 10", "+= 5"))]);
    flow.write("commits.txt", "{three:40}\n");
    let script = std::fs::read_to_string(flow.path("tests/{two}.py")).unwrap();
    flow.write("tests/{three}.py", &script);
    let gone = "diff --git a/case.txt b/case.txt\ndeleted file mode 100644\n--- a/case.txt\n+++ /dev/null\n@@ -1 +0,0 @@\n-x\n";
    flow.write("patches/tidy/{three}.patch", gone);
    let ran = flow.run();
    assert_eq!(ran.settles().class("{three}/tidy/1"), "PATCHED_BUILD_ERROR");
    flow.flow(&["show", "pkg/{three}/tidy/1"]).says("no case of recipe made fits");

    let flow = sample(
        "    from \"pkg/work.py\"\n    run \"true\"\n    identity \"sh\" \"-c\" \"! grep 'OPS.0. += 5' pkg/work.py\"",
    );
    let ran = flow.run_with(&["--commit", "{one}"]);
    assert_eq!(ran.settles().class("{one}/tidy/1"), "PATCHED_BUILD_ERROR");
}

#[test]
fn what_the_base_says_that_it_imported_the_patch_says_too() {
    let flow = native();
    flow.edit("examples/native/tests/work.py", |text| {
        text.replace("with open(", "if 'low' in open(tally.__file__).read():\n    del result['imported']\nwith open(")
    });
    let ran = flow.flow(&["run", NATIVE, "--only", "tally/77ad838a/*", "--json"]);
    assert_eq!(ran.settles().class("77ad838a/python/1"), "SUSPECT");
    flow.flow(&["show", "tally/77ad838a/python/1", NATIVE]).says("does not say where it imported tally from");
}

#[test]
fn a_compiled_file_of_the_base_is_not_what_is_measured_either() {
    let mut flow =
        sample("    from \"pkg/work.py\"\n    run \"cp\" \"pkg/work.py\" \"{out}/part.so\"\n    overlay \"part.so\"");
    let half = "OPS = [0]\n\n\ndef two(n):\n    for _ in range(n):\n        OPS[0] += 5\n    return n + 1\n";
    let whole = half.replace("+= 5", "+= 10");
    flow.commit("stale", &[("part.so", "built of what was there once"), ("pkg/work.py", &whole)]);
    flow.commit("three", &[("pkg/work.py", half)]);
    flow.write("commits.txt", "{three:40}\n");
    let script = std::fs::read_to_string(flow.path("tests/{two}.py")).unwrap();
    let same = "assert open('part.so').read() == open('pkg/work.py').read(), open('part.so').read()\n";
    flow.write("tests/{three}.py", &format!("{same}{script}"));
    let ran = flow.run_with(&["--only", "*/human/*"]);
    assert_eq!(ran.settles().class("{three}/human/1"), "SUCCESS_IMPROVEMENT");
}

#[test]
fn a_store_has_one_path_by_whatever_links_it_is_come_to() {
    let flow = sample(APART);
    flow.run().settles();
    let link = flow.beside("link");
    std::os::unix::fs::symlink(flow.path(""), &link).unwrap();
    flow.edit("tests/{one}.py", |text| format!("{text}\n# a word\n"));
    let ran = flow.flow(&["run", "m.kdl", "--json", "--cache", &link.join("cache").display().to_string()]);
    assert!(!ran.settles().executed().is_empty());
    assert!(built(&ran).is_empty(), "{:?}", built(&ran));
}

#[test]
fn a_base_that_is_a_humans_tree_before_is_built_of_its_own_downloads() {
    let flow = sample(
        r#"    from "pkg/work.py"
    fetch "sh" "-c" "cp pkg/work.py $0/brought" "{downloads}"
    run "sh" "-c" "cp $1/brought $0/" "{out}" "{downloads}""#,
    );
    // The second commit's base is what the first human made; a patch of the second is built from what was brought for that.
    flow.run_with(&["--commit", "{one}"]).settles();
    flow.run().settles();
    assert_eq!(class(&flow, "{two}/tidy/1"), "SUCCESS_IMPROVEMENT");
    let brought = |env: &PathBuf| std::fs::read_to_string(env.join("out/brought")).unwrap();
    let twos = envs(&flow)
        .iter()
        .filter(|env| brought(env).contains("OPS[0] += 1\n") && brought(env).contains("+= 10"))
        .count();
    assert_eq!(twos, 2, "the second base, and the second patch by its downloads");
}

#[test]
fn the_first_case_that_fits_a_tree_is_taken_and_a_tree_without_one_fails_alone() {
    let flow = sample(
        r#"    when exists="pkg/missing.py" { from "pkg/*.py"; run "false" }
    when exists="pkg/work.py" { from "pkg/__init__.py"; run "touch" "{out}/second" }"#,
    );
    flow.run().settles();
    assert!(envs(&flow)[0].join("out/second").exists());
    flow.replace("recipes.kdl", "pkg/work.py", "pkg/other.py");
    let ran = flow.run();
    ran.exits(3);
    assert_eq!(class(&flow, "{one}/tidy/1"), "ENVIRONMENT_FAILED");
    flow.flow(&["show", "pkg/{one}/tidy/1"])
        .says("no case of recipe made fits: the tree has no pkg/missing.py, no pkg/other.py");
}

#[test]
fn a_build_begins_only_where_it_has_the_memory_and_the_disk_that_it_wants() {
    let flow = sample(APART);
    flow.add("step build { memory \"90000GiB\" }");
    let ran = flow.run();
    ran.exits(3);
    assert!(built(&ran).is_empty());
    ran.says("the build wants 87.9 TiB of memory");
    let shown = flow.flow(&["show", "pkg/{one}/tidy/1", "m.kdl", "--json"]).json();
    assert_eq!([&shown["class"], &shown["cause"], &shown["owner"]], ["NOT_RUN", "ENVIRONMENT_FAILED", "environment"]);
    flow.replace("m.kdl", "memory \"90000GiB\"", "disk \"90000GiB\"");
    flow.run().exits(3);
    flow.flow(&["run", "m.kdl"]).exits(3).says("the build wants 87.9 TiB of disk").says("`flow gc` would free");
    assert_eq!(flow.ends("agent", "succeeded").len(), 0, "nobody is paid for what cannot be built");
    flow.replace("m.kdl", "disk \"90000GiB\"", "disk \"1MiB\"; memory \"1MiB\"");
    assert_eq!(built(flow.run().settles()).len(), 1);
    flow.replace("m.kdl", "memory \"1MiB\"", "memory \"2MiB\"");
    flow.run().settles().executes_nothing();
}

#[test]
fn the_build_that_most_jobs_wait_for_begins_first() {
    let mut flow = sample("    from \"pkg/kind.txt\"\n    run \"touch\" \"{out}/made\"");
    flow.commit("other", &[("pkg/kind.txt", "another kind\n")]);
    for (name, text) in [("three", "3"), ("four", "4")] {
        flow.commit(name, &[("pkg/more.txt", text)]);
        let script = std::fs::read_to_string(flow.path("tests/{one}.py")).unwrap();
        flow.write(&format!("tests/{{{name}}}.py"), &script);
    }
    flow.replace("m.kdl", "tool python", "slots { lane build 1 }\n    step build { holds build=1 }\n    tool python");
    // Of the bases of `one` and `two` none has that file; those of `three` and `four` have the same.
    for (commits, shared) in [(["one", "two", "three"], "one two"), (["one", "three", "four"], "three four")] {
        remove(&flow.cache());
        flow.write("commits.txt", &commits.map(|name| format!("{{{name}:40}}\n")).concat());
        // All builds are ready at once.
        flow.run_with(&["--until", "checkout"]).settles();
        let ran = flow.run_with(&["--until", "build"]);
        let is = |event: &&serde_json::Value| event["event"] == "action-started" && event["step"] == "build";
        let events = ran.settles().events();
        let started: Vec<&str> =
            events.iter().filter(is).filter_map(|event| event["axes"]["commit"].as_str()).collect();
        assert_eq!(started.len(), 2, "{started:?}");
        assert!(shared.split(' ').any(|name| flow.id(name) == started[0]), "{commits:?}: {started:?}");
    }
}

#[test]
fn builds_that_would_not_fit_beside_each_other_go_one_after_another() {
    let told = std::fs::read_to_string("/proc/meminfo").unwrap();
    let available = told.lines().find_map(|line| line.strip_prefix("MemAvailable:")).unwrap();
    let kib: u64 = available.trim().trim_end_matches(" kB").parse().unwrap();
    let most_at_once = |memory: &str| {
        let flow = sample("    from \"pkg/work.py\"\n    run \"sleep\" \"0.3\"");
        flow.add(&format!("step build {{ {memory} }}"));
        let ran = flow.run_with(&["--until", "build", "--jobs", "4"]);
        assert_eq!(built(ran.settles()).len(), 2);
        let (mut now, mut most) = (0_i32, 0);
        for event in ran.events().iter().filter(|event| event["step"] == "build") {
            match event["event"].as_str() {
                Some("action-started") => now += 1,
                Some("action-settled") => now -= 1,
                _ => {}
            }
            most = most.max(now);
        }
        most
    };
    assert_eq!(most_at_once(""), 2);
    assert_eq!(most_at_once(&format!("memory \"{}KiB\"", kib * 51 / 100)), 1);
}

#[test]
fn an_environment_is_used_by_tests_and_by_agents() {
    let flow = sample(
        r#"    from "pkg/__init__.py"
    run "sh" "-c" "mkdir $0/bin && printf '#!/bin/sh\necho hello from the environment' > $0/bin/greet && chmod +x $0/bin/greet" "{out}"
    provides GREETING "{tree}/hello""#,
    );
    flow.replace("steps.kdl", "needs checkout; after baseline", "needs checkout build; after baseline");
    flow.write("scripts/tidy/{one}.json", r#"{"argv": ["greet"]}"#);
    flow.edit("tests/{one}.py", |text| {
        format!("import os, subprocess\nassert subprocess.check_output(['greet']).startswith(b'hello')\nassert os.environ['GREETING'] == os.getcwd() + '/hello'\n{text}")
    });
    let ran = flow.run();
    assert_eq!(ran.settles().class("{one}/tidy/1"), "SUCCESS_IMPROVEMENT");
    flow.flow(&["log", "pkg/{one}/tidy/1", "agent"]).settles().says("hello from the environment");
}

#[test]
fn another_environment_draws_no_agent_again_unless_the_manifest_is_strict() {
    let flow = sample(
        r#"    file listed "listed.txt"
    from "pkg/__init__.py"
    run "cp" "{file.listed}" "{out}/listed"
    identity "cat" "{out}/listed""#,
    );
    flow.write("listed.txt", "numpy-1.26.0\nscipy-1.11.0\n");
    flow.replace("steps.kdl", "needs checkout; after baseline", "needs checkout build; after baseline");
    flow.run().settles();
    let drawn = |ran: &Ran| ran.executed().into_iter().filter(|action| action.ends_with(" agent")).count();
    flow.replace("listed.txt", "scipy-1.11.0", "scipy-1.12.0");
    let ran = flow.run();
    assert_eq!((drawn(ran.settles()), built(&ran).len()), (0, 1), "{:?}", ran.executed());
    assert_eq!(ran.class("{one}/tidy/1"), "SUCCESS_IMPROVEMENT");
    assert_eq!(ran.finished()["actions"]["reused"], 4, "each draw stands, and is told to");
    let shown = flow.flow(&["show", "pkg/{one}/tidy/1", "m.kdl", "--json"]).json();
    assert!(shown["marks"].to_string().contains("REUSED"), "{}", shown["marks"]);
    let why = flow.flow(&["why", "pkg/{one}/tidy/1", "m.kdl"]);
    why.settles().says("reused").says("scipy-1.11.0 -> scipy-1.12.0");
    flow.run().executes_nothing();

    flow.replace("m.kdl", "candidate tidy agent=scripted {", "candidate tidy agent=scripted {\n        reuse strict");
    let ran = flow.run();
    assert_eq!(drawn(ran.settles()), 2, "the strict one's alone: {:?}", ran.executed());
    flow.run().executes_nothing();
}

#[test]
fn what_was_imported_from_elsewhere_is_not_measured() {
    let flow = sample(APART);
    flow.edit("tests/{one}.py", |text| {
        text.replacen("\"metrics\"", "\"imported\": {\"pkg\": \"/usr/lib/pkg.py\"}, \"metrics\"", 1)
    });
    let ran = flow.run();
    ran.exits(3);
    assert_eq!(class(&flow, "{one}/tidy/1"), "ENVIRONMENT_FAILED");
    flow.flow(&["show", "pkg/{one}/tidy/1"]).says("pkg was imported from /usr/lib/pkg.py");
    assert_eq!(ran.class("{two}/tidy/1"), "SUCCESS_IMPROVEMENT");
}

#[test]
fn a_patched_build_gets_no_secret() {
    let mut flow = sample(
        r#"    from "pkg/work.py"
    secret INDEX_TOKEN
    run "sh" "-c" "echo ${{INDEX_TOKEN:+given}} > $0/token" "{out}""#,
    );
    flow.env("INDEX_TOKEN", "tok-4711-4711");
    flow.run().settles();
    let given = |env: &PathBuf| std::fs::read_to_string(env.join("out/token")).unwrap().trim() == "given";
    let all: Vec<bool> = envs(&flow).iter().map(given).collect();
    assert_eq!(
        (all.iter().filter(|given| **given).count(), all.len()),
        (3, 5),
        "the bases and the humans' trees alone"
    );
}

#[test]
fn a_patch_to_compiled_sources_that_nothing_is_built_from_says_so() {
    let flow = native();
    flow.replace("pipelines/recipes/native.kdl", "from \"csrc/**\"", "from \"csrc/tally.h\"");
    // A compiled part that comes from elsewhere, whatever the patch makes of the sources.
    let made = flow.path("prebuilt.so").display().to_string();
    flow.flow(&["run", NATIVE, "--only", "tally/77ad838a/nop/1"]);
    let tree = flow.beside("tree");
    std::fs::create_dir_all(&tree).unwrap();
    support::git(&tree, &["init", "-q"]);
    let stream = std::fs::File::open(flow.path("examples/native/history.fi")).unwrap();
    let import =
        std::process::Command::new("git").args(["fast-import", "--quiet"]).current_dir(&tree).stdin(stream).status();
    assert!(import.unwrap().success());
    support::git(&tree, &["checkout", "-q", "77ad838a~1"]);
    let built = std::process::Command::new("cc")
        .args(["-O2", "-shared", "-fPIC", "-o", &made, "csrc/tally.c"])
        .current_dir(&tree)
        .status();
    assert!(built.unwrap().success());
    flow.edit("pipelines/recipes/native.kdl", |text| {
        let from = text.find("    run \"{tool.cc}\"").unwrap();
        let to = from + text[from..].find('\n').unwrap();
        format!("{}    run \"cp\" \"{made}\" \"{{out}}/tally/_native.so\"{}", &text[..from], &text[to..])
    });
    flow.flow(&["run", NATIVE, "--only", "tally/77ad838a/*"]);
    let job = flow.flow(&["show", "tally/77ad838a/native/1", NATIVE, "--json"]).json();
    assert!(job["marks"].as_array().unwrap().contains(&"NOT_BUILT".into()), "{}", job["marks"]);
    flow.flow(&["show", "tally/77ad838a/native/1", NATIVE]).says("no `from` covers, such as csrc/tally.c");
    let job = flow.flow(&["show", "tally/77ad838a/python/1", NATIVE, "--json"]).json();
    assert!(!job["marks"].as_array().unwrap().contains(&"NOT_BUILT".into()), "{}", job["marks"]);
}

#[test]
fn a_compiled_file_that_the_patch_brings_is_not_what_is_measured() {
    let flow =
        sample("    from \"pkg/work.py\"\n    run \"cp\" \"pkg/work.py\" \"{out}/part.so\"\n    overlay \"part.so\"");
    let brings = |name: &str| {
        format!(
            "diff --git a/{name} b/{name}\nnew file mode 100644\n--- /dev/null\n+++ b/{name}\n@@ -0,0 +1 @@\n+\x7fELF of mine\n"
        )
    };
    flow.edit("patches/tidy/{one}.patch", |text| format!("{text}{}{}", brings("part.so"), brings("other")));
    flow.edit("tests/{one}.py", |text| {
        format!("assert open('part.so').read() == open('pkg/work.py').read(), open('part.so').read()\n{text}")
    });
    flow.run().settles();
    let job = flow.flow(&["show", "pkg/{one}/tidy/1", "m.kdl", "--json"]).json();
    assert!(job["marks"].as_array().unwrap().contains(&"BINARY".into()), "{job}");
    flow.flow(&["show", "pkg/{one}/tidy/1", "m.kdl"]).says("the patch brings 2 compiled files, such as other");
    let job = flow.flow(&["show", "pkg/{one}/human/1", "m.kdl", "--json"]).json();
    assert!(!job["marks"].as_array().unwrap().contains(&"BINARY".into()), "{job}");
}

#[test]
fn a_recipe_that_cannot_be_meant_is_a_flaw() {
    let flow = sample(APART);
    flow.replace("steps.kdl", "recipe made", "recipe mede");
    flow.flow(&["check", "m.kdl"]).exits(2).says("there is no recipe `mede`").says("did you mean `made`");
    for (recipe, says) in [
        ("    from \"./a\"\n    run \"true\"", "`./a` never matches a file of the tree"),
        ("    from \"a/**\" \"../b\"\n    run \"true\"", "is given as `file NAME"),
        ("    from \"a\"\n    run \"true\"\n    overlay \"x.so \"", "write \"x.so\""),
        ("    from \"{nope}\"\n    run \"true\"", "`{nope}` is not filled in here"),
        ("    from \"\"\n    run \"true\"", "never matches a file"),
        ("    from \"a\"\n    run \"true\"\n    overlay \"{asset.nope}\"", "`{asset.nope}` is not filled in here"),
        ("    from \"a\"\n    run \"true\"\n    overlay \"a\" root=\"{out}/ext\"", "`{out}/ext` is no folder below"),
        ("    from \"a\"\n    run \"true\"\n    overlay \"a\" root=\"ext/../..\"", "`ext/../..` is no folder below"),
        ("    from \"a\"\n    run \"true\"\n    overlay \"a\" root=\"/etc\"", "`/etc` is no folder below"),
        ("    from \"a\"\n    when exists=\"../x\" { run \"true\" }", "`../x` never matches"),
        ("    from \"a\"\n    when exists=\"/etc\" { run \"true\" }", "write \"etc\""),
        ("    from \"a\"\n    when exists=\"{nope}\" { run \"true\" }", "`{nope}` is not filled in here"),
        ("    run \"true\"", "does not say which files of the tree"),
        ("    from \"a\"", "has nothing to run"),
        (
            "    from \"a\"\n    run \"true\"\n    when { run \"true\" }\n    when exists=\"x\" { run \"true\" }",
            "never reached",
        ),
        ("    from \"a\"\n    run \"{nothing}\"", "`{nothing}` is not known here"),
    ] {
        sample(recipe).flow(&["check", "m.kdl"]).exits(2).says(says);
    }
    sample("    from \"a/*.{c,h}\"\n    run \"true\"\n    overlay \"a\" root=\"ext\"")
        .flow(&["check", "m.kdl"])
        .exits(0);
}

#[test]
fn what_a_flaw_quotes_is_cut_and_does_nothing_to_a_terminal() {
    let long = format!("\\u{{1b}}[31m{}/../x", "a".repeat(100_000));
    let check = sample(&format!("    from \"{long}\"\n    run \"true\"")).flow(&["check", "m.kdl"]);
    check.exits(2).says("`^[[31maaa").says("aaa/../x` never matches a file of the");
    let said = format!("{}{}", check.stdout, check.stderr);
    assert!(!said.contains('\u{1b}') && said.len() < 20_000, "{} bytes", said.len());
}
