//! The promise of containers: a test runs in the image that its manifest names and in nothing else, whichever engine there is; the
//! image's digest decides what is measured again; and nothing that an engine does is anybody's fault but the environment's.
//!
//! The engines here are a stand-in that notes what it is told and does it on this machine. What the real ones take is in their
//! manuals; one test asks a real one, where there is one that works.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use support::processes::{alive, kill, supervisors};
use support::{Flow, Ran, until};

const ENGINES: [&str; 3] = ["podman", "docker", "apptainer"];

/// An id or a digest that is easily told from others.
fn hex(digit: char) -> String {
    digit.to_string().repeat(64)
}

/// A project whose tests run in an image, and a stand-in for engines.
struct Boxed {
    flow: Flow,
}

impl std::ops::Deref for Boxed {
    type Target = Flow;
    fn deref(&self) -> &Flow {
        &self.flow
    }
}

impl Boxed {
    /// With these engines; `recipe` is all that stands in it.
    fn with(engines: &[&str], recipe: &str) -> Self {
        let mut flow = Flow::sample();
        flow.env("COLUMNS", "300");
        let path = std::env::var("PATH").unwrap();
        let bin = flow.beside("engines/bin");
        // A real engine of this machine is none of this test.
        let path = path.split(':').filter(|dir| ENGINES.iter().all(|engine| !Path::new(dir).join(engine).exists()));
        flow.env("PATH", &format!("{}:{}", bin.display(), path.collect::<Vec<_>>().join(":")));
        flow.write("recipes.kdl", &format!("flow 1\nrecipe made {{\n    {recipe}\n}}\n"));
        flow.replace("m.kdl", "\"steps.kdl\"", "\"steps.kdl\" \"recipes.kdl\"");
        flow.replace("steps.kdl", "recipe interpreter", "recipe made");
        std::fs::create_dir_all(&bin).unwrap();
        let boxed = Self { flow };
        boxed.engines(engines);
        boxed.say("registry", &format!(r#"{{"python:3": {}, "python:4": {}}}"#, one('a', 'b'), one('c', 'd')));
        boxed
    }

    /// Installs these and no others.
    fn engines(&self, engines: &[&str]) {
        let text = include_str!("support/engine.py");
        for engine in ENGINES {
            let path = self.beside("engines/bin").join(engine);
            let _ = std::fs::remove_file(&path);
            if engines.contains(&engine) {
                use std::os::unix::fs::PermissionsExt;
                std::fs::write(&path, format!("#!/usr/bin/python3 -ES\n{text}")).unwrap();
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
            }
        }
    }

    fn state(&self, name: &str) -> PathBuf {
        self.beside("engines").join(name)
    }

    fn say(&self, name: &str, text: &str) {
        std::fs::write(self.state(name), text).unwrap();
    }

    /// What the engines were told, each as its words.
    fn told(&self) -> Vec<Vec<String>> {
        let text = std::fs::read_to_string(self.state("log")).unwrap_or_default();
        let lines = text.lines().map(|line| serde_json::from_str::<Vec<Value>>(line).unwrap());
        let argvs = lines.filter(|line| line[0] == "argv");
        argvs.map(|line| line[1..].iter().map(|word| word.as_str().unwrap().to_owned()).collect()).collect()
    }

    /// What they were told of one kind.
    fn told_to(&self, verb: &str) -> Vec<Vec<String>> {
        self.told().into_iter().filter(|words| words[1] == verb).collect()
    }

    fn forget(&self) {
        let _ = std::fs::remove_file(self.state("log"));
    }

    /// The daemon, by which podman and docker run things from now on.
    fn daemon(&self) -> Daemon {
        let program = self.beside("engines/bin/podman");
        let child = Command::new(program).arg("serve").stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        let daemon = Daemon(child);
        until("the daemon is up", || self.state("daemon").exists());
        daemon
    }

    /// The processes of tests' containers that are there.
    fn containers(&self) -> Vec<i32> {
        let files = std::fs::read_dir(self.beside("engines")).unwrap().flatten();
        let files = files.filter(|file| {
            let name = file.file_name().to_string_lossy().into_owned();
            name.starts_with("container-flow-") && name.contains("-run-") && !name.ends_with(".over")
        });
        files
            .filter_map(|file| std::fs::read_to_string(file.path()).ok()?.parse().ok())
            .filter(|pid| alive(*pid))
            .collect()
    }
}

struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn one(id: char, digest: char) -> String {
    format!(r#"{{"id": "{}", "digest": "sha256:{}"}}"#, hex(id), hex(digest))
}

/// By its digest.
fn pinned() -> String {
    format!("image \"python@sha256:{}\"", hex('b'))
}

fn class(flow: &Flow, job: &str) -> String {
    let shown = flow.flow(&["show", &format!("pkg/{job}"), "m.kdl", "--json"]);
    shown.json()["class"].as_str().unwrap_or_default().to_owned()
}

fn agents(ran: &Ran) -> usize {
    ran.executed().iter().filter(|action| action.ends_with(" agent")).count()
}

/// The words after an option.
fn of<'a>(words: &'a [String], option: &str) -> Vec<&'a str> {
    words.windows(2).filter(|pair| pair[0] == option).map(|pair| pair[1].as_str()).collect()
}

#[test]
fn every_engine_runs_the_same_tests_and_the_other_one_finds_them_done() {
    for engine in ENGINES {
        let flow = Boxed::with(&[engine], &pinned());
        let ran = flow.run();
        ran.settles();
        assert_eq!(
            ran.classes()["{one}/human/1".replace("{one}", &flow.id("one")[..8]).as_str()],
            "SUCCESS_IMPROVEMENT"
        );
        assert_eq!(flow.told_to("pull").len(), 1, "{:?}", flow.told_to("pull"));
        let runs = flow.told_to(if engine == "apptainer" { "exec" } else { "run" });
        let base = runs.iter().filter(|words| words.iter().any(|word| word.ends_with("/tree-a"))).count();
        let patched = runs.iter().filter(|words| words.iter().any(|word| word.ends_with("/tree-b"))).count();
        assert!(base > 0 && patched > 0, "{runs:?}");
        flow.run().settles().executes_nothing();
        for other in ENGINES {
            flow.engines(&[other]);
            flow.run().settles().executes_nothing();
        }
    }
}

#[test]
fn podman_and_docker_are_told_what_their_manuals_say() {
    for engine in ["podman", "docker"] {
        let flow = Boxed::with(&[engine], &pinned());
        flow.add("slots { cpu \"a\" cores=\"0\" }");
        flow.add("step patched { holds cpu=1 }");
        flow.run().settles();
        let runs = flow.told_to("run");
        let words = runs.iter().find(|words| words.iter().any(|word| word.ends_with("/tree-b"))).unwrap();
        let attempt = of(words, "--label")[0].strip_prefix("flow.attempt=").unwrap();
        let user = format!("{}:{}", nix::unistd::geteuid(), nix::unistd::getegid());
        let place = flow.cache().canonicalize().unwrap().join("tmp/places").join(attempt);
        let name = of(words, "--name")[0];
        assert!(name.starts_with(&format!("flow-{attempt}-run-")), "{name}");
        let begin = ["run", "--rm", "--init", "--name", name, "--label", &format!("flow.attempt={attempt}")];
        assert_eq!(words[1..8], begin.map(str::to_owned));
        let then =
            ["--pull", "never", "--log-driver", "none", "--network", "none", "--user", &user, "--cap-drop", "all"];
        assert_eq!(words[8..18], then.map(str::to_owned));
        let then = ["--security-opt", "no-new-privileges", "--security-opt", "label=disable", "--shm-size", "16g"];
        assert_eq!(words[18..24], then.map(str::to_owned));
        assert_eq!(words[24..26], ["--cpuset-cpus", "0"].map(str::to_owned));
        assert_eq!(of(words, "--workdir"), [place.join("tree-b").display().to_string()]);
        let entry = words.iter().position(|word| word == "--entrypoint").unwrap();
        assert_eq!(words[entry + 1], "/bin/sh");
        assert_eq!(words[entry + 2], format!("python@sha256:{}", hex('b')));
        let last = [words[words.len() - 2].as_str(), words[words.len() - 1].as_str()];
        let script = place.join(format!("script/{}.py", of_commit(&flow, words, &place)));
        assert_eq!(last, ["python3", &script.display().to_string()]);

        // Each at its own path; what is written to is the attempt's own; the store is not there.
        for mount in of(words, "-v") {
            let parts: Vec<&str> = mount.split(':').collect();
            assert_eq!(parts[0], parts[1]);
            let path = Path::new(parts[0]);
            assert!(
                path.starts_with(&place) && path != place || path.starts_with(flow.cache().join("envs")),
                "{mount}"
            );
            assert!(parts[2] == "ro" || path.starts_with(&place), "{mount}");
        }
        let own = |name: &str| format!("{0}:{0}:rw", place.join(name).display());
        for folder in ["home", "tmp", "tree-b"] {
            assert!(of(words, "-v").contains(&own(folder).as_str()), "{folder}: {words:?}");
        }
        let seen = format!("{0}:{0}:ro", place.join("script").display());
        assert!(of(words, "-v").contains(&seen.as_str()), "{words:?}");
        // By name alone, but for what the client needs itself.
        let env = of(words, "-e");
        assert!(
            env.contains(&"FLOW_RESULT") && env.contains(&"FLOW_SLOT") && env.contains(&"CUDA_VISIBLE_DEVICES"),
            "{env:?}"
        );
        assert!(
            !env.iter().any(|name| name.starts_with("PATH") || name.starts_with("HOME")),
            "the image's own: {env:?}"
        );
        // Each is removed by its name, whether it is there or not.
        let removed: Vec<String> = flow.told_to("rm").iter().map(|words| words[3].clone()).collect();
        let started: Vec<String> = runs.iter().map(|words| of(words, "--name")[0].to_owned()).collect();
        assert!(started.iter().all(|name| removed.contains(name)), "{removed:?}");
    }
}

/// The commit of an attempt, told by its script.
fn of_commit(flow: &Flow, words: &[String], place: &Path) -> String {
    let script = words.last().unwrap();
    let name = Path::new(script).strip_prefix(place.join("script")).unwrap().file_stem().unwrap();
    let name = name.to_string_lossy().into_owned();
    assert!(["one", "two"].iter().any(|commit| flow.id(commit).starts_with(&name)), "{name}");
    name
}

#[test]
fn apptainer_is_told_what_its_manual_says() {
    let flow = Boxed::with(&["apptainer"], &pinned());
    flow.run().settles();
    let pulls = flow.told_to("pull");
    assert_eq!(pulls.len(), 1);
    let image = pulls[0][3].clone();
    assert_eq!(pulls[0][2..], ["--force".to_owned(), image.clone(), format!("docker://python@sha256:{}", hex('b'))]);
    assert!(Path::new(&image).starts_with(flow.cache().canonicalize().unwrap().join("envs")), "{image}");
    let runs = flow.told_to("exec");
    let words = runs.iter().find(|words| words.iter().any(|word| word.ends_with("/tree-b"))).unwrap();
    let begin = ["exec", "--containall", "--cleanenv", "--no-home", "--net", "--network", "none", "--bind"];
    assert_eq!(words[1..9], begin.map(str::to_owned));
    let pwd = words.iter().position(|word| word == "--pwd").unwrap();
    assert!(words[pwd + 1].ends_with("/tree-b"));
    assert_eq!(words[pwd + 2..pwd + 5], [image, "/bin/sh".to_owned(), "-c".to_owned()]);
    assert_eq!(flow.told_to("kill").len() + flow.told_to("rm").len(), 0, "its processes are flow's own");
}

#[test]
fn a_tag_is_taken_for_its_digest_and_another_one_measures_again_and_pays_no_agent_twice() {
    let flow = Boxed::with(&["podman"], "image \"python:3\"");
    let plan = flow.flow(&["plan", "m.kdl"]);
    plan.settles().says("podman does not have the image python:3");
    assert_eq!(flow.told_to("pull").len(), 0, "a plan only looks");
    flow.run().settles();
    let record = flow.flow(&["show", "pkg/{one}/tidy/1"]);
    record.settles();
    flow.run().settles().executes_nothing();
    // Docker knows it by the same digest.
    flow.engines(&["docker"]);
    flow.run().settles().executes_nothing();
    // Its name is in no key.
    flow.write("recipes.kdl", &format!("flow 1\nrecipe made {{ {} }}\n", pinned()));
    flow.run().settles().executes_nothing();

    flow.write("recipes.kdl", "flow 1\nrecipe made { image \"python:3\" }\n");
    flow.say("images", &format!(r#"{{"python:3": {}}}"#, one('c', 'd')));
    let why = flow.flow(&["plan", "m.kdl"]);
    why.settles().says("image:").says(&format!("sha256:{}", &hex('d')[..8]));
    let ran = flow.run();
    let executed = ran.settles().executed();
    assert!(executed.iter().any(|action| action.ends_with(" patched")), "{executed:?}");
    assert_eq!(agents(&ran), 0, "{executed:?}");
    let runs = flow.told_to("run");
    assert!(
        runs.last().unwrap().contains(&format!("sha256:{}", hex('c'))),
        "the image itself, whatever becomes of the tag"
    );
}

#[test]
fn an_image_that_cannot_be_had_is_the_environments_fault_and_nobody_is_paid() {
    for image in [format!("image \"python@sha256:{}\"", hex('e')), "image \"python:9\"".to_owned()] {
        let flow = Boxed::with(&["podman"], &image);
        let ran = flow.run();
        ran.exits(3);
        assert_eq!(agents(&ran), 0);
        assert_eq!(class(&flow, "{one}/tidy/1"), "ENVIRONMENT_FAILED");
        flow.flow(&["show", "pkg/{one}/tidy/1"]).says("manifest unknown");
        // It was only not there yet.
        let there = format!(r#"{{"python:9": {}}}"#, one('a', 'e'));
        flow.say("registry", &there);
        flow.run_with(&["--retry", "pkg/*"]).settles();
    }
}

#[test]
fn an_image_in_which_nothing_begins_fails_before_anybody_is_paid() {
    let flow = Boxed::with(&["docker"], &pinned());
    flow.say("broken", r#"{"cwd": "/home", "why": "exec /bin/sh: exec format error"}"#);
    let ran = flow.run();
    ran.exits(3);
    assert_eq!(agents(&ran), 0);
    flow.flow(&["show", "pkg/{one}/tidy/1"]).says("ENVIRONMENT_FAILED").says("exec format error");
}

#[test]
fn an_engine_that_fails_under_a_patch_is_not_the_agents_fault() {
    let flow = Boxed::with(&["docker"], &pinned());
    flow.say("broken", r#"{"cwd": "tree-b", "why": "cannot connect to the daemon"}"#);
    flow.run().exits(3);
    assert_eq!(class(&flow, "{one}/tidy/1"), "NOT_RUN");
    flow.flow(&["show", "pkg/{one}/tidy/1"]).says("ENVIRONMENT_FAILED").says("cannot connect to the daemon");
    std::fs::remove_file(flow.state("broken")).unwrap();
    let ran = flow.run_with(&["--retry", "pkg/*"]);
    ran.settles();
    assert_eq!(agents(&ran), 0, "what was paid for stays");
    assert_eq!(class(&flow, "{one}/tidy/1"), "SUCCESS_IMPROVEMENT");
}

#[test]
fn a_script_that_ends_as_an_engine_would_is_still_the_scripts() {
    let flow = Boxed::with(&["docker"], &pinned());
    for name in ["tests/{one}.py", "tests/{two}.py"] {
        flow.edit(name, |text| format!("{text}\nif 'tree-b' in os.getcwd():\n    sys.exit(125)\n"));
    }
    flow.run();
    assert!(class(&flow, "{one}/tidy/1").starts_with("PATCHED_"), "{}", class(&flow, "{one}/tidy/1"));
}

#[test]
fn what_takes_too_long_is_killed_by_its_name_with_all_that_it_started() {
    let flow = Boxed::with(&["docker", "podman"], &pinned());
    let _daemon = flow.daemon();
    flow.add("step baseline { timeout \"2s\" }");
    for name in ["tests/{one}.py", "tests/{two}.py"] {
        flow.edit(name, |text| {
            format!("import subprocess\nsubprocess.Popen(['sleep', '600'])\nimport time\ntime.sleep(600)\n{text}")
        });
    }
    for engine in ["docker", "podman"] {
        flow.forget();
        flow.run_with(&["--engine", engine]);
        assert_eq!(class(&flow, "{one}/tidy/1"), "BASELINE_TIMEOUT");
        let killed: Vec<String> = flow.told_to("kill").iter().map(|words| words[2].clone()).collect();
        assert!(killed.iter().any(|name| name.starts_with("flow-") && name.contains("-run-")), "{killed:?}");
        until("no container is left", || flow.containers().is_empty());
        flow.write(
            "recipes.kdl",
            &format!("flow 1\nrecipe made {{ {} interpreter=\"/usr/bin/python3\" }}\n", pinned()),
        );
    }
}

#[test]
fn containers_of_a_flow_that_was_killed_are_gone_and_those_of_its_supervisors_too() {
    let flow = Boxed::with(&["podman"], &pinned());
    let _daemon = flow.daemon();
    let wait = flow.signs().join("wait");
    std::fs::write(&wait, "").unwrap();
    for name in ["tests/{one}.py", "tests/{two}.py"] {
        let line =
            format!("import os, time\nwhile os.path.exists({:?}):\n    time.sleep(0.05)\n", wait.display().to_string());
        flow.edit(name, |text| format!("{line}{text}"));
    }
    // Their supervisors outlive flow, and end what it began.
    let mut run = flow.start();
    until("a test runs", || !flow.containers().is_empty());
    run.kill().unwrap();
    run.wait().unwrap();
    until("no container is left", || flow.containers().is_empty());

    // Where they die with it, the next run does.
    let mut run = flow.start();
    until("a test runs", || !flow.containers().is_empty());
    let left = flow.containers();
    kill(i32::try_from(run.id()).unwrap(), libc::SIGSTOP);
    for pid in supervisors(&flow.cache()) {
        kill(pid, libc::SIGKILL);
    }
    run.kill().unwrap();
    run.wait().unwrap();
    assert!(left.iter().any(|pid| alive(*pid)), "nobody is left to end them");
    std::fs::remove_file(&wait).unwrap();
    flow.run().settles();
    assert!(left.iter().all(|pid| !alive(*pid)));
    let asked: Vec<String> = flow.told_to("ps").iter().map(|words| words.last().unwrap().clone()).collect();
    assert!(asked.iter().any(|filter| filter.starts_with("label=flow.attempt=")), "{asked:?}");
}

#[test]
fn secrets_are_in_no_argv_and_reach_the_test_all_the_same() {
    for engine in ENGINES {
        let mut boxed = Boxed::with(&[engine], &pinned());
        boxed.flow.env("TOKEN", "tw1sted-Hk55q");
        let flow = &boxed;
        flow.add("step patched { secret TOKEN; set SEED \"7\" }");
        for name in ["tests/{one}.py", "tests/{two}.py"] {
            let line = "if 'patched' in __file__ or os.environ.get('SEED'):\n    assert os.environ['TOKEN'] == 'tw1sted-Hk' + '55q'\n    print('it is', os.environ['TOKEN'])\nassert os.environ['IMAGE'] == '1'\nassert 'FLOW_ENGINE' not in os.environ\n";
            flow.edit(name, |text| text.replace("import pkg.work\n", &format!("{line}import pkg.work\n")));
        }
        let ran = flow.run();
        ran.settles();
        let told = flow.told();
        assert!(told.iter().flatten().any(|word| word == "TOKEN") || engine == "apptainer");
        assert!(!told.iter().flatten().any(|word| word.contains("tw1sted")), "{engine}");
        let log = flow.flow(&["log", "pkg/{one}/tidy/1", "patched"]);
        assert!(!log.stdout.contains("tw1sted"), "{}", log.stdout);
        assert_eq!(class(flow, "{one}/tidy/1"), "SUCCESS_IMPROVEMENT");
    }
}

#[test]
fn the_timed_window_is_marked_from_within_and_flows_clock_begins_with_the_process() {
    let flow = Boxed::with(&["docker"], &pinned());
    for name in ["tests/{one}.py", "tests/{two}.py"] {
        flow.edit(name, |text| {
            let mark = "os.write(int(os.environ['FLOW_MARK']), b'x')\n";
            text.replace("result = ", &format!("{mark}result = ")).replace("out = ", &format!("{mark}out = "))
        });
    }
    flow.run().settles();
    let ends = flow.lines();
    let results: Vec<String> = ends
        .iter()
        .filter(|line| line["line"] == "ended" && line["step"] == "patched")
        .filter_map(|line| line["outputs"]["result"]["blob"].as_str().map(str::to_owned))
        .collect();
    assert!(!results.is_empty(), "{:?}", ends.iter().find(|line| line["step"] == "patched"));
    for digest in results {
        let hex = digest.trim_start_matches("sha256:");
        let bytes = std::fs::read(flow.cache().join("cas/v1").join(&hex[..2]).join(&hex[2..])).unwrap();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        assert!(text.contains("\"windows\":1"), "{text}");
    }
}

#[test]
fn what_held_a_test_is_on_record_and_it_is_not_marked_as_unheld() {
    let flow = Boxed::with(&["podman"], &pinned());
    flow.run().settles();
    let shown = flow.flow(&["show", "pkg/{one}/tidy/1"]);
    assert!(!shown.settles().stdout.contains("NO_SANDBOX"), "{}", shown.stdout);
    let ended = flow.lines().into_iter().find(|line| line["line"] == "ended" && line["step"] == "patched").unwrap();
    assert_eq!(ended["sandbox"]["by"], "podman");
    assert_eq!(ended["sandbox"]["held"], serde_json::json!(["files", "devices", "network", "processes"]));
    flow.add("step patched { sandbox off }");
    flow.run().settles();
    let shown = flow.flow(&["show", "pkg/{one}/tidy/1"]);
    shown.settles().says("NO_SANDBOX patched");
    assert!(of(flow.told_to("run").last().unwrap(), "--network").contains(&"host"));
}

#[test]
fn cases_choose_images_and_commands_build_inside_of_them() {
    let flow = Boxed::with(
        &["docker"],
        &format!(
            "when exists=\"absent\" {{ image \"python@sha256:{}\" }}\n    when exists=\"pkg/work.py\" {{ {}; from \"pkg/__init__.py\"\n \
             run \"/bin/sh\" \"-c\" \"test $IMAGE = 1 && mkdir -p $0/bin && cp pkg/__init__.py $0/part && \
             ln -s /usr/bin/python3 $0/bin/python\" \"{{out}}\" }}",
            hex('e'),
            pinned()
        ),
    );
    let ran = flow.run();
    ran.settles();
    assert_eq!(ran.executed().iter().filter(|action| action.ends_with(" build")).count(), 1, "{:?}", ran.executed());
    let envs: Vec<PathBuf> =
        std::fs::read_dir(flow.cache().join("envs")).unwrap().map(|dir| dir.unwrap().path()).collect();
    assert!(envs[0].join("out/part").exists());
    let build = flow.told_to("run").into_iter().find(|words| of(words, "--name")[0].ends_with("-build")).unwrap();
    assert_eq!(of(&build, "--network"), ["host"], "a base's build has a network");
    let test =
        flow.told_to("run").into_iter().find(|words| words.iter().any(|word| word.ends_with("/tree-b"))).unwrap();
    let python = envs[0].canonicalize().unwrap().join("out/bin/python");
    assert!(test.contains(&python.display().to_string()), "{test:?}");
    let out = envs[0].canonicalize().unwrap().join("out");
    assert!(of(&test, "-v").contains(&format!("{0}:{0}:ro", out.display()).as_str()), "{test:?}");
    flow.run().settles().executes_nothing();
}

#[test]
fn patched_trees_are_built_inside_without_a_network_and_bring_no_image_again() {
    let recipe = format!(
        "{}; from \"pkg/work.py\"; run \"/bin/sh\" \"-c\" \"test $IMAGE = 1 && cp pkg/work.py $0/part\" \"{{out}}\"",
        pinned()
    );
    for (engine, runs) in [("docker", "run"), ("apptainer", "exec")] {
        let flow = Boxed::with(&[engine], &recipe);
        let ran = flow.run();
        let executed = ran.settles().executed();
        let built = executed.iter().filter(|action| action.ends_with("build")).count();
        // Two bases, two patches and the second human's tree: the first human's is the second base.
        assert_eq!(built, 5, "{executed:?}");
        assert!(flow.told_to("pull").len() <= 3, "one a base and a human's tree at most: {:?}", flow.told_to("pull"));
        let builds = flow.told_to(runs).into_iter().filter(|words| words.iter().any(|word| word.contains("$IMAGE")));
        let closed = builds.filter(|words| of(words, "--network").contains(&"none")).count();
        assert_eq!(closed, 2, "those of patches: the human's trees are built as bases are");
    }
}

#[test]
fn a_sif_file_is_what_its_bytes_are_and_only_apptainer_runs_it() {
    let flow = Boxed::with(&["podman", "apptainer"], "image \"images/bench.sif\"");
    flow.flow(&["plan", "m.kdl"]).settles().says("images/bench.sif");
    flow.flow(&["run", "m.kdl"]).exits(2).says("images/bench.sif");
    flow.write("images/bench.sif", "one");
    flow.run().settles();
    assert_eq!((flow.told_to("exec").is_empty(), flow.told_to("run").is_empty()), (false, true));
    assert_eq!(flow.told_to("pull").len(), 0);
    flow.run().settles().executes_nothing();
    flow.write("images/bench.sif", "two");
    let ran = flow.run();
    assert!(!ran.settles().executed().is_empty());
    assert_eq!(agents(&ran), 0);
    // Replaced while its tests run: what they say is of neither.
    let file = flow.path("images/bench.sif").display().to_string();
    flow.edit("tests/{one}.py", |text| format!("open({file:?}, 'a').write('x')\n{text}"));
    let ran = flow.run();
    assert!(ran.exits(3).stdout.contains("changed since the run was planned"), "{}", ran.stdout);
}

#[test]
fn an_engine_that_does_not_answer_is_not_used_and_without_any_a_tag_stops_the_run() {
    let flow = Boxed::with(&["podman", "docker"], "image \"python:3\"");
    flow.say("down", r#"{"podman": "cannot find newuidmap"}"#);
    flow.run().settles();
    assert!(!flow.told_to("run").is_empty() && flow.told_to("run").iter().all(|words| words[0] == "docker"));
    let asked = flow.flow(&["run", "m.kdl", "--engine", "podman"]);
    asked.exits(2).says("cannot find newuidmap");

    flow.say("down", r#"{"podman": "cannot find newuidmap", "docker": "Cannot connect to the Docker daemon"}"#);
    flow.flow(&["run", "m.kdl"])
        .exits(2)
        .says("no container engine answers")
        .says("Cannot connect to the Docker daemon");
    // By its digest all is known, and nobody need be asked.
    flow.write("recipes.kdl", &format!("flow 1\nrecipe made {{ {} }}\n", pinned()));
    flow.run().settles().executes_nothing();
    flow.edit("tests/{one}.py", |text| format!("{text}\n# a word\n"));
    flow.run().exits(3);
    assert_eq!(class(&flow, "{one}/tidy/1"), "ENVIRONMENT_FAILED");
    flow.engines(&["apptainer"]);
    flow.write("recipes.kdl", "flow 1\nrecipe made { image \"python:3\" }\n");
    flow.flow(&["run", "m.kdl"]).exits(2).says("python:3@sha256:");
}

#[test]
fn doctor_says_which_engine_is_there_and_what_is_wrong_with_the_others() {
    let flow = Boxed::with(&["podman", "docker"], &pinned());
    flow.say("down", r#"{"docker": "Cannot connect to the Docker daemon"}"#);
    let lines = |ran: &Ran| -> Vec<Value> {
        let lines = ran.json()["lines"].as_array().unwrap().clone();
        lines.into_iter().filter(|line| line["check"] == "engine").collect()
    };
    let found = lines(&flow.flow(&["doctor", "m.kdl", "--json"]));
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!((&found[0]["subject"], &found[0]["level"]), (&"podman".into(), &"ok".into()), "{found:?}");
    assert!(found[0]["what"].as_str().unwrap().contains("5.4.0, used for images"), "{found:?}");
    assert_eq!((&found[1]["subject"], &found[1]["level"]), (&"docker".into(), &"warn".into()), "{found:?}");
    assert!(found[1]["what"].as_str().unwrap().contains("Cannot connect to the Docker daemon"));
    assert!(found[1]["fix"].as_str().unwrap().contains("daemon"));
    flow.say("down", r#"{"docker": "no", "podman": "no"}"#);
    let found = lines(&flow.flow(&["doctor", "m.kdl", "--json"]));
    assert!(found.iter().any(|line| line["level"] == "fail"), "{found:?}");
    flow.engines(&[]);
    let found = lines(&flow.flow(&["doctor", "--json"]));
    assert_eq!(found.len(), 1);
    assert_eq!(found[0]["level"], "ok", "nobody asks for one: {found:?}");
}

#[test]
fn what_does_not_go_together_with_an_image_is_said_before_anything_runs() {
    let says = |recipe: &str, more: &str, code: &str, what: &str| {
        let flow = Boxed::with(&[], recipe);
        if !more.is_empty() {
            flow.add(more);
        }
        let ran = flow.flow(&["check", "m.kdl"]);
        ran.exits(2);
        assert!(ran.stderr.contains(code) && ran.stderr.contains(what), "{}", ran.stderr);
    };
    says(&pinned(), "step agent { needs checkout build }", "not-in-image", "an agent does not run in an image");
    says(
        &pinned(),
        "step patched { service web { run \"python3\" \"x.py\"; ready port } }",
        "not-in-image",
        "a test with a `service` does not run in an image",
    );
    says(&pinned(), "step patched { run \"{tool.python}\" \"{script}\" }", "not-in-image", "a program of this machine");
    says(&format!("{}; overlay \"*.so\"", pinned()), "", "nothing-built", "nothing is built");
    says("image \"--privileged\"", "", "bad-image", "is no name of an image");
    says("image \"python@sha256:12\"", "", "bad-image", "64 lower-case hex digits");
    says(&format!("{}; run \"make\"", pinned()), "", "missing-node", "from");
    says(&format!("{}; from \"a\"; run \"{{tool.python}}\" \"x\"", pinned()), "", "tool-in-image", "not of the image");
}

/// An engine of this machine that works, an image that it was given, and the variables that it needs for that.
struct Real {
    engine: &'static str,
    image: &'static str,
    env: Vec<(String, String)>,
}

const IMAGE: &str = "localhost/flow-test:1";

/// This machine's own shell and Python, as the files of an image.
const STAGE: &str = r#"set -e
mkdir -p "$0/usr/bin" "$0/usr/lib" "$0/usr/lib64" "$0/tmp" "$0/etc" "$0/proc" "$0/sys" "$0/dev"
for l in bin lib lib64; do ln -s usr/$l "$0/$l"; done
python=$(/usr/bin/python3 -c 'import sys; print(sys.executable and "/usr/bin/python%d.%d" % sys.version_info[:2])')
cp -L /bin/sh "$0/usr/bin/sh"
cp -L $python "$0/usr/bin/python3"
cp -r /usr/lib/$(basename $python) "$0/usr/lib/"
for l in $(ldd /bin/sh $python /usr/lib/$(basename $python)/lib-dynload/*.so 2>/dev/null | grep -o '/[^ :]*[.]so[^ :]*' | sort -u); do
    to=$(dirname $l); to="$0/usr${to#/usr}"
    mkdir -p "$to"; cp -L $l "$to/"
done"#;

impl Real {
    fn says(&self, args: &[&str]) -> Result<String, String> {
        let mut command = Command::new(self.engine);
        command.args(args).stdin(Stdio::null()).envs(self.env.iter().cloned());
        let out = command.output().map_err(|error| error.to_string())?;
        let last = String::from_utf8_lossy(&out.stderr).lines().last().unwrap_or_default().to_owned();
        if out.status.success() { Ok(String::from_utf8_lossy(&out.stdout).trim().to_owned()) } else { Err(last) }
    }

    /// Gives it the image, and runs something there.
    fn works(&self, root: &Path) -> Result<(), String> {
        self.says(&["info"])?;
        let bring = format!("tar -C {} -c . | {} import - {}", root.display(), self.engine, self.image);
        let out = Command::new("sh").args(["-c", &bring]).envs(self.env.iter().cloned()).output();
        let out = out.map_err(|error| error.to_string())?;
        if !out.status.success() {
            return Err(String::from_utf8_lossy(&out.stderr).lines().last().unwrap_or_default().to_owned());
        }
        let run = ["run", "--rm", "--network", "none", self.image, "/bin/sh", "-c", "exec python3 -c 'import json'"];
        self.says(&run).map(drop)
    }

    /// The first that works; where a machine refuses what podman does by itself, without that.
    fn find(dir: &Path) -> Result<Self, String> {
        let root = dir.join("root");
        let staged = Command::new("sh").args(["-c", STAGE, &root.display().to_string()]).output();
        if !staged.is_ok_and(|out| out.status.success()) {
            return Err("no image can be made of this machine's own programs".to_owned());
        }
        let conf = dir.join("containers.conf");
        let plain = "[containers]\ndefault_ulimits=[]\n[engine]\ncgroup_manager=\"cgroupfs\"\nruntime=\"runc\"\n";
        std::fs::write(&conf, plain).unwrap();
        let plain = vec![("CONTAINERS_CONF".to_owned(), conf.display().to_string())];
        let mut why = Vec::new();
        for (engine, env) in [("podman", Vec::new()), ("podman", plain), ("docker", Vec::new())] {
            let real = Self { engine, image: IMAGE, env };
            match real.works(&root) {
                Ok(()) => return Ok(real),
                Err(error) => why.push(format!("{engine}: {error}")),
            }
        }
        Err(why.join("; "))
    }
}

#[test]
fn a_real_engine_runs_the_pipeline_and_leaves_nothing_where_there_is_one() {
    let dir = tempfile::tempdir().unwrap();
    let real = match Real::find(dir.path()) {
        Ok(real) => real,
        Err(why) => {
            println!("skipped: no container engine works here: {why}");
            return;
        }
    };
    println!("by {}", real.engine);
    let mut boxed = Boxed::with(&[], &format!("image \"{}\"", real.image));
    for name in ["PATH", "HOME", "XDG_RUNTIME_DIR"] {
        if let Ok(value) = std::env::var(name) {
            boxed.flow.env(name, &value);
        }
    }
    for (name, value) in &real.env {
        boxed.flow.env(name, value);
    }
    boxed.flow.env("FLOW_ENGINE", real.engine);
    for name in ["tests/{one}.py", "tests/{two}.py"] {
        let cache = boxed.cache().display().to_string();
        let inside = format!(
            "assert not os.path.exists({cache:?} + '/records'), 'the store'\nassert not os.path.exists('/root/.profile')\n\
             import socket\ntry:\n    socket.create_connection(('1.1.1.1', 53), 1)\n    sys.exit('a network')\nexcept OSError:\n    pass\n"
        );
        boxed.edit(name, |text| {
            let mark = "os.write(int(os.environ['FLOW_MARK']), b'x')\n";
            let text = text.replace("import pkg.work\n", &format!("{inside}import pkg.work\n"));
            text.replace("result = ", &format!("{mark}result = ")).replace("out = ", &format!("{mark}out = "))
        });
    }
    boxed.run().settles();
    assert_eq!(class(&boxed, "{one}/tidy/1"), "SUCCESS_IMPROVEMENT");
    boxed.run().settles().executes_nothing();

    boxed.add("step baseline { timeout \"3s\" }");
    for name in ["tests/{one}.py", "tests/{two}.py"] {
        boxed.edit(name, |text| format!("import time\ntime.sleep(600)\n{text}"));
    }
    boxed.run();
    assert_eq!(class(&boxed, "{one}/tidy/1"), "BASELINE_TIMEOUT");
    let left = real.says(&["ps", "--all", "--quiet", "--filter", "label=flow.attempt"]).unwrap();
    assert_eq!(left, "", "containers are left");
    let _ = real.says(&["rmi", "-f", real.image]);
}
