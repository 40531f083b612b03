//! The promise of `flow gc`: what can be made again goes and nothing else; a run after it executes nothing; what a run at work
//! relies on stays; and what was paid for goes only when a person says so.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde_json::Value;
use support::{Flow, until};

/// The sample, whose environments are built: from each tree's package, by a shell.
fn built() -> Flow {
    let flow = Flow::sample();
    flow.replace("m.kdl", "pipeline sample {", "recipe lib {\n    from \"pkg/**\"\n    run \"sh\" \"-c\" \"mkdir -p {out}/lib; cp pkg/work.py {out}/lib/work.txt\"\n}\npipeline sample {");
    flow.add("step build { recipe lib tool=python }");
    flow
}

fn gc(flow: &Flow, more: &[&str]) -> Value {
    flow.flow(&[&["gc", "--json"], more].concat()).settles().json()
}

/// The names of what went of a kind.
fn gone(document: &Value, kind: &str) -> Vec<String> {
    let things = document["gone"].as_array().unwrap().iter().filter(|thing| thing["kind"] == kind);
    things.map(|thing| thing["name"].as_str().unwrap().to_owned()).collect()
}

fn folders(path: &Path) -> Vec<PathBuf> {
    let found = std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut found: Vec<PathBuf> = found.collect();
    found.sort();
    found
}

fn blobs(flow: &Flow) -> Vec<PathBuf> {
    folders(&flow.cache().join("cas/v1")).iter().flat_map(|shard| folders(shard)).collect()
}

#[test]
fn after_a_gc_a_run_executes_nothing_and_a_change_rebuilds_what_it_needs() {
    let flow = built();
    let first = flow.run();
    first.settles();
    let (envs, kept) = (folders(&flow.cache().join("envs")), blobs(&flow));
    assert!(envs.len() >= 4, "{envs:?}");
    let said = gc(&flow, &["--dry-run"]);
    assert_eq!(gone(&said, "environment").len(), envs.len());
    assert_eq!(folders(&flow.cache().join("envs")), envs, "a dry run takes nothing");
    let told = said["gone"].as_array().unwrap().iter().filter(|thing| thing["kind"] == "environment");
    for thing in told {
        let of = thing["of"].as_str().unwrap_or_default();
        assert!(of.starts_with("build pkg/") || of.starts_with("rebuild pkg/"), "{thing}");
        assert!(thing["made_ms"].is_u64(), "{thing}");
    }
    let shown = flow.flow(&["gc", "--dry-run"]);
    let one = flow.id("one")[..8].to_owned();
    assert!(shown.stdout.contains(&format!("build pkg/{one}")), "{}", shown.stdout);
    let done = gc(&flow, &[]);
    assert_eq!(gone(&done, "environment"), gone(&said, "environment"));
    assert_eq!(done["after"], said["after"]);
    for folder in ["envs", "index/packs", "index/inflated", "tmp"] {
        assert!(folders(&flow.cache().join(folder)).iter().all(|path| path.ends_with("places")), "{folder}");
    }
    assert_eq!(blobs(&flow), kept, "records name them");
    let again = flow.run();
    again.settles().executes_nothing();
    assert_eq!(again.classes(), first.classes());
    assert!(folders(&flow.cache().join("envs")).is_empty(), "nobody needed one");
    // One script: its tests run again, in environments that are made again; no agent does, and the other commit is left alone.
    flow.edit("tests/{one}.py", |text| format!("{text}# another\n"));
    let ran = flow.run();
    let executed = ran.settles().executed();
    assert!(executed.iter().all(|action| action.starts_with(flow.id("one").get(..8).unwrap())), "{executed:?}");
    let of = |step: &str| executed.iter().filter(|action| action.ends_with(step)).count();
    assert_eq!(
        (of(" build"), of(" rebuild"), of(" baseline"), of(" patched"), of(" agent")),
        (1, 2, 1, 2, 0),
        "{executed:?}"
    );
    assert_eq!(ran.classes(), first.classes());
    flow.run().executes_nothing();
}

#[test]
fn what_was_not_used_for_longest_goes_first_and_no_more_than_has_to() {
    let flow = built();
    flow.run().settles();
    let envs = folders(&flow.cache().join("envs"));
    for (n, env) in (0u64..).zip(&envs) {
        let big = env.join("out");
        std::fs::set_permissions(&big, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        let text = std::fs::read_to_string(env.join("complete.json")).unwrap();
        let mut complete: Value = serde_json::from_str(&text).unwrap();
        complete["bytes"] = (1u64 << 30).into();
        std::fs::write(env.join("complete.json"), complete.to_string()).unwrap();
        // The first by name was used last.
        let at = SystemTime::now() - Duration::from_secs(3600 * n);
        for file in ["used", "complete.json"] {
            std::fs::File::options().append(true).create(true).open(env.join(file)).unwrap().set_modified(at).unwrap();
        }
    }
    let done = gc(&flow, &["--budget", "2600MiB"]);
    let left = folders(&flow.cache().join("envs"));
    assert_eq!(left, envs[..2], "{done:#}");
    assert!(done["after"].as_u64().unwrap() < 2600 << 20);
    assert!(done["stayed"].as_array().unwrap().iter().any(|thing| thing["stays"] == "there is room"));
    flow.flow(&["gc", "--budget", "1KiB"]).exits(3).says("does not hold");
    assert!(folders(&flow.cache().join("envs")).is_empty());
    flow.run().settles().executes_nothing();
}

#[test]
fn contents_that_no_record_names_go_and_whatever_a_record_names_stays() {
    let flow = Flow::sample();
    flow.run().settles();
    let kept = blobs(&flow);
    let stray = flow.cache().join("cas/v1/ab");
    std::fs::create_dir_all(&stray).unwrap();
    std::fs::write(stray.join("c".repeat(62)), "nobody's").unwrap();
    std::fs::write(flow.cache().join("tmp/blob-1-2"), "half").unwrap();
    let done = gc(&flow, &[]);
    assert_eq!(gone(&done, "unnamed"), [format!("ab{}", "c".repeat(62))]);
    assert_eq!(gone(&done, "temporary"), ["tmp/blob-1-2"]);
    assert_eq!(blobs(&flow), kept);
    flow.flow(&["show", "pkg/{one}/tidy/1"]).settles();
    flow.flow(&["log", "pkg/{one}/tidy/1", "agent"]).settles();
    flow.flow(&["why", "{one}"]).settles();
    flow.run().settles().executes_nothing();
}

#[test]
fn what_lies_behind_a_link_stays_and_odd_names_and_closed_folders_hinder_nothing() {
    let flow = built();
    flow.run().settles();
    let precious = flow.beside("precious");
    std::fs::create_dir_all(precious.join("deep")).unwrap();
    std::fs::write(precious.join("deep/file"), "mine").unwrap();
    let envs = flow.cache().join("envs");
    std::os::unix::fs::symlink(&precious, envs.join("link")).unwrap();
    std::os::unix::fs::symlink(&precious, flow.cache().join("tmp/link")).unwrap();
    let odd = envs.join("od\u{1b}[31md\nname");
    std::fs::create_dir_all(odd.join("shut")).unwrap();
    std::fs::write(odd.join("shut/file"), "x").unwrap();
    std::fs::set_permissions(odd.join("shut"), std::os::unix::fs::PermissionsExt::from_mode(0o000)).unwrap();
    let ran = flow.flow(&["gc"]);
    assert!(!ran.settles().stdout.contains('\u{1b}'), "{}", ran.stdout);
    assert_eq!(std::fs::read_to_string(precious.join("deep/file")).unwrap(), "mine");
    assert!(folders(&envs).is_empty(), "{:?}", folders(&envs));
    // A folder of the store that leads elsewhere is not the store's.
    std::fs::remove_dir(&envs).unwrap();
    std::os::unix::fs::symlink(&precious, &envs).unwrap();
    flow.flow(&["gc"]).settles();
    assert!(precious.join("deep/file").exists());
}

#[test]
fn a_run_at_work_keeps_what_it_relies_on_and_the_rest_goes_beside_it() {
    let flow = built();
    let (sign, go) = (flow.signs().join("began"), flow.signs().join("go"));
    flow.run().settles();
    flow.edit("tests/{one}.py", |text| {
        format!(
            "import os, time\nopen({:?}, 'a').close()\nwhile not os.path.exists({:?}): time.sleep(0.01)\n{text}",
            sign.display().to_string(),
            go.display().to_string()
        )
    });
    flow.replace("steps.kdl", "against baseline; timeout \"1m\"", "against baseline; timeout \"2m\"");
    flow.replace(
        "steps.kdl",
        "step baseline uses=test        { needs checkout build; timeout \"1m\" }",
        &format!(
            "step baseline uses=test {{ needs checkout build; timeout \"2m\"; write \"{}\" }}",
            flow.signs().display()
        ),
    );
    let stale = flow.cache().join("envs/0000000000000000000000000000000000000000");
    std::fs::create_dir_all(stale.join("out")).unwrap();
    let mut run = flow.start();
    until("a test is at work", || sign.exists());
    let envs = folders(&flow.cache().join("envs"));
    let done = gc(&flow, &[]);
    assert_eq!(done["at_work"], true);
    assert_eq!(gone(&done, "environment"), ["0000000000000000000000000000000000000000"]);
    let left = folders(&flow.cache().join("envs"));
    assert_eq!(left.len(), envs.len() - 1, "{left:?}");
    assert!(gone(&done, "pack").is_empty() && gone(&done, "unnamed").is_empty() && gone(&done, "temporary").is_empty());
    let why = |thing: &Value| thing["stays"].as_str().unwrap().to_owned();
    let stays: Vec<String> = done["stayed"].as_array().unwrap().iter().map(why).collect();
    assert!(
        stays.contains(&"a run relies on it".to_owned()) && stays.contains(&"a run is at work".to_owned()),
        "{stays:?}"
    );
    let at_work = flow.lines().last().unwrap()["run"].as_str().unwrap().to_owned();
    flow.flow(&["gc", "--forget", &at_work, "--yes"]).exits(2).says("is at work");
    std::fs::write(&go, "").unwrap();
    assert!(run.wait().unwrap().success());
    flow.run().settles().executes_nothing();
    assert_eq!(gc(&flow, &[])["at_work"], false);
    assert!(folders(&flow.cache().join("envs")).is_empty());
}

#[test]
fn runs_and_gcs_at_once_end_well_and_lose_nothing() {
    let flow = built();
    let mut run = flow.start();
    let mut gcs = 0;
    until("there is a store", || flow.cache().join("records/v1").is_dir());
    while run.try_wait().unwrap().is_none() {
        flow.flow(&["gc"]).settles();
        gcs += 1;
    }
    let first = flow.ran(run.wait_with_output().unwrap());
    assert!(first.settles().classes().len() == 4 && gcs > 0);
    flow.run().settles().executes_nothing();
    flow.settled_each_action_once();
}

#[test]
fn a_run_is_forgotten_only_when_asked_for_and_says_what_is_lost() {
    let flow = Flow::sample();
    flow.run().settles();
    let run = flow.lines()[0]["run"].as_str().unwrap().to_owned();
    let before = blobs(&flow);
    flow.flow(&["gc", "--forget", "20010101T000000Z-0000"]).exits(2).says("no run");
    flow.flow(&["gc", "--forget", "../../project"]).exits(2).says("no run");
    flow.flow(&["gc", "--forget", &run]).exits(2).says("--yes").says("4 of them to be paid for again");
    let said = gc(&flow, &["--forget", &run, "--dry-run"]);
    assert_eq!(said["loss"]["draws"], 4);
    assert!(!gone(&said, "unnamed").is_empty());
    assert_eq!(blobs(&flow), before);
    let done = gc(&flow, &["--forget", &run, "--yes"]);
    assert_eq!(done["forgotten"], run.as_str());
    let (mut would, mut went) = (gone(&said, "unnamed"), gone(&done, "unnamed"));
    would.sort();
    went.sort();
    assert_eq!(went, would);
    assert!(blobs(&flow).is_empty(), "{:?}", blobs(&flow));
    assert!(flow.lines().is_empty() && !flow.cache().join("runs").join(&run).exists());
    let again = flow.run();
    assert_eq!(again.settles().classes().len(), 4);
    assert!(again.executed().iter().any(|action| action.ends_with(" agent")));
}

#[test]
fn a_folder_that_is_no_store_is_left_alone() {
    let flow = Flow::sample();
    let other = flow.beside("other");
    std::fs::create_dir_all(other.join("envs/x")).unwrap();
    flow.flow(&["gc", "--cache", &other.display().to_string()]).exits(2).says("is no store");
    assert!(other.join("envs/x").exists());
}

#[test]
fn a_plan_says_how_many_environments_are_there_and_what_the_rest_may_take_of_the_disk() {
    let flow = built();
    let plan = || flow.flow(&["plan", "m.kdl", "--json"]).settles().json()["disk"].clone();
    // Nothing is known of sizes, and nothing of what the patches are.
    flow.flow(&["plan", "m.kdl"]).settles().says("unknown: none is there to tell by");
    flow.run().settles();
    let built = folders(&flow.cache().join("envs")).len() as u64;
    let disk = plan();
    assert_eq!((disk["environments"].as_u64(), disk["there"].as_u64()), (Some(built), Some(built)), "{disk}");
    assert_eq!((disk["to_build"].as_u64(), disk["unknown"].as_u64()), (Some(0), Some(0)), "{disk}");
    assert!(disk["free"].as_u64().unwrap() > 0 && disk["each"].as_u64().unwrap() > 0, "{disk}");
    gc(&flow, &[]);
    let disk = plan();
    assert_eq!((disk["there"].as_u64(), disk["to_build"].as_u64()), (Some(0), Some(0)), "nobody needs one: {disk}");
    flow.edit("tests/{one}.py", |text| format!("{text}# another\n"));
    let disk = plan();
    assert!(disk["to_build"].as_u64().unwrap() > 0 && disk["each"].is_null(), "{disk}");
    // The largest environment anybody saw: the plan says that there is no room, and what would make some.
    let env = flow.cache().join("envs").join("a".repeat(40));
    std::fs::create_dir_all(&env).unwrap();
    let complete = serde_json::json!({"place": env, "identity": [], "files": 1, "bytes": 1u64 << 60, "wall_ms": 1, "python": null, "boxed": false});
    std::fs::write(env.join("complete.json"), complete.to_string()).unwrap();
    flow.flow(&["plan", "m.kdl"]).settles().says("that is too little");
    // One that is merely an interpreter takes none.
    assert!(Flow::sample().flow(&["plan", "m.kdl", "--json"]).settles().json()["disk"].is_null());
}
