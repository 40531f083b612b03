//! What the command line says: help of every verb, and refusals with what to do. Read the snapshots: they are the manual.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use support::Flow;

/// Standard output and standard error of a command, and its exit code.
fn said(flow: &Flow, args: &[&str]) -> String {
    let ran = flow.flow(args);
    let project = flow.path("").display().to_string();
    let project = project.trim_end_matches('/');
    let text = format!("exit {}\n{}{}", ran.code.unwrap_or(-1), ran.stdout, ran.stderr);
    let text = text.replace(project, "PROJECT");
    let text = text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n");
    for line in text.lines() {
        assert!(line.chars().count() <= 80, "more than 80 columns: {line}");
    }
    text
}

#[test]
fn help_teaches_by_example() {
    let flow = Flow::empty();
    insta::assert_snapshot!("help", said(&flow, &["--help"]));
    for verb in [
        "run",
        "plan",
        "why",
        "check",
        "doctor",
        "status",
        "vet",
        "calibrate",
        "extend",
        "show",
        "log",
        "gc",
        "completions",
    ] {
        let text = said(&flow, &[verb, "--help"]);
        assert!(text.contains("Examples:"), "{text}");
        insta::assert_snapshot!(format!("help_{verb}"), text);
    }
}

#[test]
fn refusals_say_what_to_do() {
    let flow = Flow::sample();
    insta::assert_snapshot!("unknown_verb", said(&flow, &["statsu"]));
    insta::assert_snapshot!("missing_manifest", said(&flow, &["run", "absent.kdl"]));
    insta::assert_snapshot!("unknown_class", said(&flow, &["run", "m.kdl", "--class", "SUCCESS_IMPROVMENT"]));
    insta::assert_snapshot!("unknown_repo", said(&flow, &["run", "m.kdl", "--repo", "pgk=/tmp"]));
    insta::assert_snapshot!("no_run", said(&flow, &["status"]));
    insta::assert_snapshot!("no_run_for_show", said(&flow, &["show", "pkg/{one}/tidy/1"]));
    assert!(!flow.cache().join("runs").exists() || std::fs::read_dir(flow.cache().join("runs")).unwrap().count() == 0);
}

#[test]
fn completions_are_there_for_every_shell() {
    let flow = Flow::empty();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        flow.flow(&["completions", shell]).settles().says("status");
    }
}

#[test]
fn the_table_explains_itself_and_job_lines_follow_what_they_speak_of() {
    let flow = Flow::sample();
    let ran = flow.flow(&["run", "m.kdl"]);
    ran.settles().says("4 of 4 jobs improved").says("base divided by patched").says("pkg/{one}/  one");
    for line in ran.stdout.lines().chain(ran.stderr.lines()) {
        assert!(line.chars().count() <= 80 || ran.stderr.contains(line), "more than 80 columns: {line}");
    }
    let at = |text: &str| {
        let text = flow.fill(text);
        ran.stderr.lines().position(|line| line.starts_with(&text)).unwrap_or_else(|| panic!("{text}: {}", ran.stderr))
    };
    assert!(at("pkg/{one}/tidy/1 patched  done") < at("pkg/{one}/tidy/1  SUCCESS_IMPROVEMENT"));
    assert!(!ran.stderr.contains(" classify ") && !ran.stderr.contains(" checkout "), "{}", ran.stderr);
    // What was settled before is in the table, and not news.
    let again = flow.flow(&["run", "m.kdl"]);
    again.settles();
    assert!(!again.stderr.contains("SUCCESS_IMPROVEMENT"), "{}", again.stderr);
    assert!(again.stdout.contains("SUCCESS_IMPROVEMENT"));
}

#[test]
fn a_job_is_found_by_name_prefix_glob_and_commit_and_several_are_listed() {
    let flow = Flow::sample();
    flow.run().settles();
    flow.flow(&["show", "pkg/{one}/tidy/1"])
        .settles()
        .says("the base needs 2.00 times")
        .says("flow log pkg/{one}/tidy/1 patch");
    flow.flow(&["show", "*/{one}/tidy/*", "m.kdl"]).settles();
    flow.flow(&["show", "pkg/{one}/ti"]).settles();
    flow.flow(&["show", "{one}"]).settles().says("human/1").says("SUCCESS_IMPROVEMENT").says("flow show JOB");
    flow.flow(&["log", "{one}", "patch"]).exits(2).says("means 2 jobs").says("pkg/{one}/human/1");
    flow.flow(&["show", "pkg/{one}/tydi/1"]).exits(2).says("such as pkg/{one}/tidy/1");
    flow.flow(&["log", "pkg/{one}/tidy/1", "patch"]).settles().says("+        OPS[0] += 5");
    flow.flow(&["log", "pkg/{one}/tidy/1", "patch", "--list"]).settles().says("patch, ");
    flow.flow(&["log", "pkg/{one}/tidy/1", "ptch"]).exits(2).says("its steps are: checkout, build");
    flow.flow(&["log", "pkg/{one}/tidy/1", "patch", "--stream", "x"]).exits(2).says("it has: patch");
    flow.flow(&["log", "pkg/{one}/tidy/1", "patch", "--attempt", "7"]).exits(2).says("it has: 1 (");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let flow = Flow::sample();
    flow.run().settles();
    for args in
        [&["show", "pkg/{one}/tidy/1"][..], &["log", "pkg/{one}/tidy/1", "patch"], &["status"], &["run", "m.kdl"]]
    {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let both = writer.try_clone().unwrap();
        let code = flow.command(args).stdout(writer).stderr(both).status().unwrap().code();
        assert_eq!(code, Some(0), "{args:?}");
    }
}

#[test]
fn what_cannot_be_printed_is_an_error_and_the_run_keeps_its_records() {
    let flow = Flow::sample();
    let full = || std::fs::File::options().write(true).open("/dev/full").unwrap();
    let to_full = |args: &[&str]| flow.ran(flow.command(args).stdout(full()).output().unwrap());
    to_full(&["run", "m.kdl", "--json"]).exits(3).says("cannot write to standard output: No space left");
    flow.run().settles().executes_nothing();
    for args in [&["run", "m.kdl"][..], &["plan", "m.kdl"], &["status"], &["show", "pkg/{one}/tidy/1"], &["--help"]] {
        to_full(args).exits(3).says("cannot write to standard output");
    }
}

#[test]
fn events_nobody_reads_lose_no_record() {
    let flow = Flow::sample();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let ran = flow.ran(flow.command(&["run", "m.kdl", "--json"]).stdout(writer).output().unwrap());
    ran.settles();
    assert_eq!(ran.stderr, "");
    flow.run().settles().executes_nothing();
}

#[test]
fn an_empty_selector_selects_nothing() {
    let flow = Flow::sample();
    flow.run().settles();
    for option in ["--only", "--commit", "--class", "--until", "--retry"] {
        flow.flow(&["run", "m.kdl", option, ""]).exits(2).says("it is empty").says("leave the option out");
        flow.flow(&["run", "m.kdl", option, " "]).exits(2).says("it is empty");
    }
    flow.flow(&["show", ""]).exits(2).says("has a job ``");
    flow.flow(&["show", "", "m.kdl"]).exits(2).says("has no job ``");
    flow.flow(&["why", ""]).exits(2);
}

#[test]
fn a_class_is_suggested_only_if_it_is_near() {
    let flow = Flow::sample();
    let asks = |class: &str| flow.flow(&["plan", "m.kdl", "--class", class]);
    asks("sucess_neutral").exits(2).says("did you mean SUCCESS_NEUTRAL?");
    let far = asks("NOPE");
    far.exits(2).says("the classes are:").says("AGENT_TIMEOUT");
    assert!(!far.stderr.contains("did you mean"), "{}", far.stderr);
}

#[test]
fn a_clone_that_is_not_there_is_refused_though_nothing_needs_it() {
    let flow = Flow::sample();
    flow.run().settles();
    for args in [&["run", "m.kdl"][..], &["plan", "m.kdl"], &["show", "pkg/{one}/tidy/1", "m.kdl"]] {
        flow.flow(&[args, &["--repo", "pkg=/nonexistent"]].concat())
            .exits(2)
            .says("--repo pkg=/nonexistent")
            .says("clone");
        flow.flow(&[args, &["--repo", "pkg=tests"]].concat()).exits(2).says("--repo pkg=tests");
        flow.flow(&[args, &["--repo", "pkg=repo"]].concat()).settles();
    }
}

#[test]
fn places_that_cannot_be_used_say_what_to_do_and_nothing_runs() {
    use std::os::unix::ffi::OsStrExt;
    let flow = Flow::sample();
    flow.add("slots { cpu \"a\" cores=\"0\" }");
    flow.replace("steps.kdl", "against baseline;", "against baseline; holds cpu=1;");
    for slots in ["/proc/none", "/nonexistent/slots", "/etc/passwd", "/sys"] {
        let ran = flow.ran(flow.command(&["run", "m.kdl"]).env("FLOW_SLOTS", slots).output().unwrap());
        ran.exits(2).says(slots).says("FLOW_SLOTS=DIR");
    }
    let odd = flow.beside("").join(std::ffi::OsStr::from_bytes(b"c\xff"));
    let ran = flow.ran(flow.command(&["run", "m.kdl", "--cache"]).arg(&odd).output().unwrap());
    ran.exits(2).says("not UTF-8").says("--cache DIR");
    assert!(!odd.exists() && flow.lines().is_empty() && flow.journal().is_empty());
}

#[test]
fn a_clock_that_was_set_back_does_not_hide_the_newest_run() {
    let flow = Flow::sample();
    flow.run().settles();
    // As it looks when the first run was made by a clock that was years ahead.
    let runs = flow.cache().join("runs");
    let names = || {
        let all = std::fs::read_dir(&runs).unwrap().map(|run| run.unwrap());
        let folders = all.filter(|run| run.file_type().unwrap().is_dir());
        folders.map(|run| run.file_name().into_string().unwrap()).collect::<Vec<String>>()
    };
    let [first] = names().try_into().unwrap();
    std::fs::rename(runs.join(&first), runs.join("29990101T000000Z-0000")).unwrap();
    let order = runs.join("order");
    let text = std::fs::read_to_string(&order).unwrap();
    std::fs::write(&order, text.replace(&first, "29990101T000000Z-0000")).unwrap();
    flow.run().settles();
    let second = names().into_iter().find(|name| !name.starts_with("2999")).unwrap();
    assert_eq!(flow.flow(&["status", "--json"]).json()["run"], second.as_str());
    // Without the order the names have to do.
    std::fs::remove_file(&order).unwrap();
    assert_eq!(flow.flow(&["status", "--json"]).json()["run"], "29990101T000000Z-0000");
}

#[test]
fn used_up_attempts_say_why_and_what_tries_again() {
    let flow = Flow::sample();
    flow.replace("m.kdl", "tool python \"python3\" { probe \"-VV\" }", "");
    flow.replace("steps.kdl", "step build    uses=environment { needs checkout; recipe interpreter }", "");
    flow.replace("steps.kdl", "step rebuild  like=build       { needs patch }", "");
    flow.replace("steps.kdl", "needs checkout build; timeout", "needs checkout; attempts 1; timeout");
    flow.replace("steps.kdl", "needs patch rebuild", "needs patch");
    let first = flow.flow(&["run", "m.kdl", "--commit", "{one}"]);
    first.exits(3);
    for _ in 0..2 {
        let again = flow.flow(&["run", "m.kdl", "--commit", "{one}"]);
        again.exits(3).says("baseline ended in NOT_STARTED once").says("Permission denied");
        again.says("NOT_STARTED: install the program").says("--retry pkg/{one}/human/1");
        flow.flow(&["status"]).settles().says("m.kdl --commit {one} --retry '*'").says("left open");
        assert!(!again.stdout.contains("run the same command again"), "{}", again.stdout);
        assert!(!again.stderr.contains("takes up the rest"), "{}", again.stderr);
    }
    let shown = flow.flow(&["show", "pkg/{one}/tidy/1"]);
    shown.settles().says("NOT_STARTED").says("Permission denied").says("--retry pkg/{one}/tidy/1");
}

#[test]
fn a_copy_of_a_project_is_about_itself_and_a_moved_one_still_speaks() {
    let flow = Flow::sample();
    flow.run().settles();
    let copy = flow.beside("copy");
    let copied = std::process::Command::new("cp").arg("-r").arg(flow.path("")).arg(&copy).status().unwrap();
    assert!(copied.success());
    let here = |args: &[&str]| flow.ran(flow.command(args).current_dir(&copy).output().unwrap());
    here(&["why", "{one}"]).settles().says("/copy/m.kdl");
    here(&["show", "pkg/{one}/tidy/1"]).settles().says("/copy/m.kdl");
    std::fs::rename(flow.path(""), flow.beside("gone")).unwrap();
    here(&["show", "pkg/{one}/tidy/1"]).settles().says("SUCCESS_IMPROVEMENT");
    here(&["status"]).settles().says("/copy/m.kdl");
}

#[test]
fn the_command_that_goes_on_is_the_whole_command() {
    let flow = Flow::sample();
    flow.replace("m.kdl", "tool python \"python3\"", "tool python \"/bin/false\"");
    flow.replace("m.kdl", "{ probe \"-VV\" }", "");
    flow.replace("steps.kdl", "attempts 3", "attempts 1");
    let args = ["run", "m.kdl", "--cache", "other store", "--only", "*/tidy/*"];
    let cache = flow.path("other store").display().to_string();
    let says = format!("--cache '{cache}' --only '*/tidy/*'");
    flow.write("scripts/tidy/{one}.json", "{\"delay\": \"1h\"}");
    flow.flow(&[&args[..], &["--until", "build"]].concat()).settles();
    // A run that was killed before it did anything.
    let runs = flow.path("other store/runs");
    let run = std::fs::read_dir(&runs).unwrap().map(|run| run.unwrap()).find(|run| run.path().is_dir()).unwrap();
    let journal = run.path().join("journal.jsonl");
    let text = std::fs::read_to_string(&journal).unwrap();
    std::fs::write(&journal, text.lines().next().unwrap().to_owned() + "\n").unwrap();
    let status = flow.flow(&["status", "--cache", "other store"]);
    status.settles().says("its last word came").says(&says).says("--until build");
}

#[test]
fn a_run_of_some_steps_tells_of_its_jobs() {
    let flow = Flow::sample();
    let ran = flow.flow(&["run", "m.kdl", "--only", "*/tidy/*", "--until", "patch"]);
    ran.settles().says("pkg/{one}/  one").says("tidy/1").says("done").says("2 jobs, 0 failed");
    flow.flow(&["status"]).settles().says("2 of 2 jobs settled");
    let empty = Flow::empty();
    empty.write("m.kdl", "flow 1\npipeline p {\n    axis n \"1\" \"2\"\n    step one uses=command { each n; run \"sh\" \"-c\" \"sort -Z\" }\n}\n");
    empty.flow(&["run", "m.kdl"]).says("invalid option").says("2 jobs, 2 failed");
    empty.flow(&["status"]).settles().says("2 of 2 jobs settled");
    empty.flow(&["why", "sorted"]).exits(2).says("the recorded runs hold");
}

#[test]
fn what_selects_nothing_or_is_not_there_is_said() {
    let flow = Flow::sample();
    flow.run().settles();
    flow.flow(&["run", "m.kdl", "--retry", "zzz"]).exits(2).says("--retry zzz: no job").says("such as pkg/");
    flow.flow(&["why", "{one}", "--job", "*/nix/*"]).exits(2).says("matches --job */nix/*");
    flow.flow(&["show", "9f4"]).exits(2).says("at least 4 digits");
    flow.flow(&["check", "m.kdl", "agents.kdl"]).settles().says("agents.kdl: no pipeline, to be imported");
    flow.replace("steps.kdl", "timeout \"1m\"; attempts 3", "timeout 2; attempts 3");
    flow.flow(&["check", "m.kdl"]).exits(2).says("say the unit, in quotes: \"2s\" or \"2m\"");
    flow.replace("steps.kdl", "timeout 2; attempts 3", "timeout \"1ms\"; attempts 3");
    flow.flow(&["run", "m.kdl"]).settles().says("OVER_LIMIT: its attempt used more than today's limit");
    flow.flow(&["show", "pkg/{one}/tidy/1"]).settles().says("OVER_LIMIT");
    std::fs::rename(flow.path("repo"), flow.path("repo2")).unwrap();
    flow.flow(&["run", "m.kdl"]).settles().says("note: repository pkg is not at");
    flow.flow(&["check", "m.kdl"]).settles().says("repositories that are not there: pkg");
}

#[test]
fn status_of_a_manifest_is_of_its_own_newest_run_and_show_of_its_own_attempts() {
    let flow = Flow::sample();
    flow.run().settles();
    let first = flow.flow(&["status", "--json"]).json()["run"].clone();
    let text = std::fs::read_to_string(flow.path("m.kdl")).unwrap();
    flow.write("other.kdl", &text.replace("pipeline sample", "pipeline other"));
    flow.flow(&["status", "other.kdl"]).exits(2).says("no run of other.kdl in").says("flow run other.kdl");
    // Another agent of the same name, and a run that is newer.
    flow.replace("other.kdl", "\"patches/tidy/{commit.id8}.patch\"", "\"patches/none/{commit.id8}.patch\"");
    flow.flow(&["run", "other.kdl"]).settles();
    assert_eq!(flow.flow(&["status", "m.kdl", "--json"]).json()["run"], first);
    assert_ne!(flow.flow(&["status", "--json"]).json()["run"], first);
    assert_ne!(flow.flow(&["status", "other.kdl", "--json"]).json()["run"], first);
    let attempts = |manifest: &str| {
        let shown = flow.flow(&["show", "pkg/{one}/tidy/1", manifest, "--json"]).json();
        shown["spent"]["attempts"].as_u64().unwrap()
    };
    assert_eq!((attempts("m.kdl"), attempts("other.kdl")), (1, 1));
}

#[test]
fn an_option_whose_time_stands_after_a_space_is_told_how_it_is_written() {
    let flow = Flow::sample();
    flow.flow(&["run", "m.kdl", "--wait", "8h"]).exits(2).says("--wait=8h");
}

#[test]
fn status_why_and_check_fit_into_a_narrow_terminal() {
    let mut flow = Flow::sample();
    flow.run().settles();
    flow.replace("tests/{one}.py", "import", "# another byte\nimport");
    for columns in [44, 60] {
        flow.env("COLUMNS", &columns.to_string());
        for args in [&["status"][..], &["why", "{one}", "m.kdl"], &["why", "{one}", "--run"], &["check", "m.kdl"]] {
            let said = flow.flow(args);
            said.exits(0);
            let alone = |line: &str| line.split_whitespace().count() < 2;
            // What is to be copied stays on one line, and so does a path.
            let copied = |line: &str| line.starts_with("  goes on ") || line.starts_with("  manifest ");
            // A table of figures is not cut.
            let lines = said.stdout.lines().take_while(|line| !line.starts_with("spent "));
            for line in lines.filter(|line| !alone(line) && !copied(line)) {
                assert!(line.chars().count() <= columns, "{args:?} at {columns} columns: `{line}`");
            }
        }
    }
}
