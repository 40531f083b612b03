//! The promise of builds that go wrong, pry or leave something: no secret stays, what is lost is noticed, what could not be held is
//! marked, and an error says what to mend.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use support::{Flow, Ran};

/// The sample whose tests run in what a recipe builds. `recipe` is all that stands in it.
fn sample(recipe: &str) -> Flow {
    let mut flow = Flow::sample();
    flow.env("COLUMNS", "300");
    flow.write("recipes.kdl", &format!("flow 1\nrecipe made {{\n{recipe}\n}}\n"));
    flow.replace("m.kdl", "\"steps.kdl\"", "\"steps.kdl\" \"recipes.kdl\"");
    flow.replace("steps.kdl", "recipe interpreter", "recipe made");
    flow
}

fn envs(flow: &Flow) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(flow.cache().join("envs")) else { return Vec::new() };
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// The environments that a run built.
fn built(ran: &Ran) -> usize {
    ran.executed().iter().filter(|title| title.ends_with(" build") || title.ends_with(" rebuild")).count()
}

fn show(flow: &Flow, job: &str) -> Value {
    flow.flow(&["show", &format!("pkg/{job}"), "m.kdl", "--json"]).json()
}

fn marks(flow: &Flow, job: &str) -> Vec<String> {
    let shown = show(flow, job);
    shown["marks"].as_array().unwrap().iter().map(|mark| mark.as_str().unwrap().to_owned()).collect()
}

/// The evidence of each build that failed so.
fn evidence(flow: &Flow, step: &str, cause: &str) -> String {
    let ended = flow.ends(step, cause);
    ended.first().unwrap_or_else(|| panic!("no {step} ended by {cause}"))["outcome"]["failed"]["evidence"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// The files below a folder that hold a text.
fn holding(folder: &Path, text: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let meta = path.symlink_metadata().unwrap();
        if meta.is_dir() {
            found.extend(holding(&path, text));
        } else if meta.is_file() {
            let bytes = std::fs::read(&path).unwrap();
            if bytes.windows(text.len()).any(|window| window == text.as_bytes()) {
                found.push(path);
            }
        }
    }
    found
}

const TOKEN: &str = "s3cr3t-tok-9183746";

#[test]
fn what_a_build_prints_and_what_tells_its_identity_hold_no_secret_and_no_password_of_a_url() {
    let mut flow = sample(
        r#"    from "pkg/__init__.py"
    secret INDEX_TOKEN
    pass INDEX hash=#false optional=#true
    fetch "sh" "-c" "echo with $INDEX_TOKEN from $INDEX"
    run "sh" "-c" "echo $INDEX_TOKEN | cut -c1-9 | tr -d '\\n' > $0/a; echo $INDEX_TOKEN | cut -c10- > $0/b" "{out}"
    identity "sh" "-c" "cat $0/a $0/b; echo one" "{out}""#,
    );
    flow.env("INDEX_TOKEN", TOKEN);
    flow.env("INDEX", "https://bob:hunter2@index.example/simple");
    flow.run().settles();
    let log = flow.flow(&["log", "pkg/{one}/tidy/1", "build", "m.kdl"]);
    log.settles().says("with [secret INDEX_TOKEN] from https://[secret INDEX]@index.example/simple");
    let identity = flow.ends("build", "succeeded")[0]["outputs"]["identity"].to_string();
    assert!(identity.contains("[secret INDEX_TOKEN]") && identity.contains("one"), "{identity}");
    for secret in [TOKEN, "hunter2"] {
        assert!(!log.stdout.contains(secret), "{}", log.stdout);
        assert_eq!(holding(&flow.cache(), secret), Vec::<PathBuf>::new());
    }
}

#[test]
fn a_build_that_leaves_a_secret_where_others_read_has_failed() {
    let mut flow = sample(
        r#"    from "pkg/__init__.py"
    secret INDEX_TOKEN
    fetch "sh" "-c" "mkdir $0/.git; echo url=https://$INDEX_TOKEN@index > $0/.git/config; chmod 0 $0/.git/config" "{downloads}"
    run "true""#,
    );
    flow.env("INDEX_TOKEN", TOKEN);
    flow.run_with(&["--until", "build"]).exits(3);
    let said = evidence(&flow, "build", "ENVIRONMENT_FAILED");
    assert!(said.contains("the secret INDEX_TOKEN in downloads/.git/config") && !said.contains(TOKEN), "{said}");
    assert!(envs(&flow).is_empty(), "nothing of it stays");
}

/// A patch that brings files, behind the one that `tidy` has.
fn brings(flow: &Flow, files: &[&str]) {
    let new = |name: &&str| {
        format!("diff --git a/{name} b/{name}\nnew file mode 100644\n--- /dev/null\n+++ b/{name}\n@@ -0,0 +1 @@\n+x\n")
    };
    let more: String = files.iter().map(new).collect();
    flow.edit("patches/tidy/{one}.patch", |text| format!("{text}{more}"));
}

#[test]
fn what_the_case_of_a_tree_is_not_built_from_is_not_built_whatever_another_case_covers() {
    let recipe = r#"    when exists="pkg/missing.py" { from "kernels/**" "setup.py"; run "true" }
    when exists="pkg/work.py" { from "pkg/__init__.py" "csrc/**"; run "touch" "{out}/part.so" }
    overlay "part.so""#;
    let flow = sample(recipe);
    brings(&flow, &["csrc/b.c", "kernels/a.cu", "loops.c.src", "notes.c.md", "setup.py"]);
    flow.run_with(&["--commit", "{one}"]).settles();
    assert!(marks(&flow, "{one}/tidy/1").contains(&"NOT_BUILT".to_owned()));
    let shown = flow.flow(&["show", "pkg/{one}/tidy/1", "m.kdl"]);
    shown.says("the patch changes 3 files of a compiled build that no `from` covers, such as kernels/a.cu");

    let flow = sample(recipe);
    brings(&flow, &["csrc/b.c", "notes.c.md"]);
    flow.run_with(&["--commit", "{one}"]).settles();
    assert!(!marks(&flow, "{one}/tidy/1").contains(&"NOT_BUILT".to_owned()));

    // What says how Python is packed decides nothing where nothing is compiled.
    let flow = sample("    from \"pkg/__init__.py\"\n    run \"true\"");
    brings(&flow, &["setup.py", "pyproject.toml"]);
    flow.run_with(&["--commit", "{one}"]).settles();
    assert!(!marks(&flow, "{one}/tidy/1").contains(&"NOT_BUILT".to_owned()));
}

#[test]
fn an_environment_that_lost_a_file_is_noticed_before_anybody_runs_in_it_and_built_again() {
    let flow = sample(
        "    from \"pkg/__init__.py\"\n    run \"sh\" \"-c\" \"mkdir $0/d; echo a > $0/d/a; echo b > $0/d/b\" \"{out}\"",
    );
    flow.run().settles();
    let folder = envs(&flow)[0].join("out/d");
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755)).unwrap();
    // Byte code that Python wrote is no loss.
    std::fs::write(folder.join("a.cpython-311.pyc"), "byte code").unwrap();
    flow.edit("tests/{one}.py", |text| format!("{text}\n# a word\n"));
    assert_eq!(built(flow.run().settles()), 0);
    std::fs::remove_file(folder.join("b")).unwrap();
    flow.edit("tests/{one}.py", |text| format!("{text}\n# another\n"));
    flow.run().exits(3);
    let said = evidence(&flow, "baseline", "BLOB_LOST");
    assert!(said.contains("was changed since it was built: it had 2 files, 4 bytes"), "{said}");
    assert_eq!(built(flow.run().settles()), 1);
    assert!(folder.join("b").exists());
    flow.run().executes_nothing();
}

/// Runs it where the kernel gives no namespaces; nothing where that cannot be had.
fn without_namespaces(flow: &Flow) -> Option<Ran> {
    let inner = flow.command(&["run", "m.kdl", "--json"]);
    let mut command = Command::new("unshare");
    let script = "echo 0 > /proc/sys/user/max_user_namespaces && exec setpriv --bounding-set=-sys_admin --inh-caps=-sys_admin \"$@\"";
    command.args(["-U", "-r", "sh", "-c", script, "sh"]).arg(inner.get_program()).args(inner.get_args());
    command.current_dir(inner.get_current_dir()?).env_clear();
    command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let ran = command.output().ok()?;
    (ran.status.code() == Some(0)).then(|| flow.ran(ran))
}

#[test]
fn a_patch_that_was_built_without_a_sandbox_says_so() {
    let flow = sample("    from \"pkg/work.py\"\n    run \"cp\" \"pkg/work.py\" \"{out}/part\"");
    if without_namespaces(&flow).is_none() {
        return eprintln!("skipped: no place without namespaces can be made here");
    }
    assert!(
        marks(&flow, "{one}/tidy/1").contains(&"NO_SANDBOX rebuild".to_owned()),
        "{:?}",
        marks(&flow, "{one}/tidy/1")
    );
    // Of a patch that nobody built there is nothing to say.
    let flow = sample("    from \"pkg/__init__.py\"\n    run \"true\"");
    assert!(without_namespaces(&flow).is_some());
    let marks = marks(&flow, "{one}/tidy/1");
    assert!(marks.contains(&"NO_SANDBOX patched".to_owned()), "{marks:?}");
    assert!(!marks.iter().any(|mark| mark.ends_with("build")), "{marks:?}");
}

const DEEP: &str = "import os, sys; os.chdir(sys.argv[1]); [(os.mkdir('d' * 200), os.chdir('d' * 200)) for _ in range(30)]; open('x', 'w')";

#[test]
fn what_cannot_be_kept_is_the_builds_failure_and_not_flows() {
    let flow = sample(&format!(
        "    from \"pkg/work.py\"\n    run \"sh\" \"-c\" \"if grep -q 'OPS.0. += 5' pkg/work.py; then python3 -c \\\"{DEEP}\\\" $0; fi\" \"{{out}}\""
    ));
    let ran = flow.run_with(&["--commit", "{one}"]);
    assert_eq!(ran.settles().class("{one}/tidy/1"), "PATCHED_BUILD_ERROR");
    assert_eq!(ran.class("{one}/human/1"), "SUCCESS_IMPROVEMENT");
    let said = evidence(&flow, "rebuild", "BUILD_ERROR");
    assert!(said.contains("cannot be kept: out/ddd") && said.contains("File name too long"), "{said}");

    let flow = sample(&format!("    from \"pkg/__init__.py\"\n    run \"python3\" \"-c\" \"{DEEP}\" \"{{out}}\""));
    flow.run_with(&["--until", "build"]).exits(3);
    assert!(evidence(&flow, "build", "ENVIRONMENT_FAILED").contains("File name too long"));
    assert!(flow.ends("build", "HARNESS_FAULT").is_empty());
}

#[test]
fn an_error_stands_before_its_command_and_a_file_that_from_forgets_is_named() {
    let flow = sample("    from \"pkg/__init__.py\"\n    run \"cp\" \"pkg/work.py\" \"{out}/part\"");
    flow.run_with(&["--until", "build"]).exits(3);
    let said = evidence(&flow, "build", "ENVIRONMENT_FAILED");
    let (error, command) = said.split_once(" (`").unwrap();
    assert!(error.contains("pkg/work.py") && command.starts_with("cp pkg/work.py"), "{said}");
    assert!(error.ends_with("; the tree has pkg/work.py, which no `from` matches"), "{said}");

    let flow = sample(
        r#"    from "pkg/__init__.py"
    run "sh" "-c" "echo \"core.c:1:10: fatal error: test_work.py: No such file or directory\" >&2; echo more; exit 1""#,
    );
    flow.run_with(&["--until", "build"]).exits(3);
    let said = evidence(&flow, "build", "ENVIRONMENT_FAILED");
    assert!(said.starts_with("core.c:1:10: fatal error: test_work.py"), "{said}");
    assert!(said.contains("the tree has tests/test_work.py, which no `from` matches"), "{said}");
}

#[test]
fn the_tree_stays_first_where_overlay_and_provides_both_say_where_python_looks() {
    let recipe = |provides: &str| {
        format!(
            "    from \"pkg/__init__.py\"\n    run \"touch\" \"{{out}}/part.so\"\n    overlay \"part.so\"\n    provides PYTHONPATH \"{provides}\""
        )
    };
    for (provides, is) in [
        ("{out}/site", "p[0] == os.getcwd() and p[1].endswith('/site')"),
        ("{tree}/sub:/a", "p == [os.getcwd() + '/sub', '/a']"),
    ] {
        let flow = sample(&recipe(provides));
        flow.edit("tests/{one}.py", |text| {
            format!("import os\np = os.environ['PYTHONPATH'].split(':')\nassert {is}, p\n{text}")
        });
        let ran = flow.run_with(&["--commit", "{one}"]);
        assert_eq!(ran.settles().class("{one}/tidy/1"), "SUCCESS_IMPROVEMENT", "{provides}");
    }
}

#[test]
fn a_patched_build_reaches_no_service_of_the_machine_that_lies_in_a_file() {
    let flow = sample("");
    let socket = flow.signs().join("s");
    let listener = UnixListener::bind(&socket).unwrap();
    let script = format!(
        "import socket, sys\ntry: socket.socket(socket.AF_UNIX).connect('{}'); said = 'reached'\nexcept OSError: said = 'refused'\nopen(sys.argv[1] + '/said', 'w').write(said)",
        socket.display()
    );
    flow.write("ask.py", &script);
    flow.write("recipes.kdl", "flow 1\nrecipe made {\n    file ask \"ask.py\"\n    from \"pkg/work.py\"\n    run \"python3\" \"{file.ask}\" \"{out}\"\n}\n");
    flow.run_with(&["--only", "pkg/{one}/tidy/*"]).settles();
    drop(listener);
    let mut said: Vec<String> =
        envs(&flow).iter().map(|env| std::fs::read_to_string(env.join("out/said")).unwrap()).collect();
    said.sort();
    let held = flow.ends("rebuild", "succeeded")[0]["sandbox"]["held"].to_string();
    if !held.contains("files") || !held.contains("network") {
        return eprintln!("skipped: this kernel holds too little: {held}");
    }
    assert_eq!(said, ["reached", "refused"], "the base's build has the machine's network, the patched one's none");
}
