//! The promise about bad input, through the whole program: exit 2, every flaw underlined with a hint, nothing executed; and no
//! input, however absurd, makes flow crash, hang or eat the machine. What each report looks like is `manifest_flaws`'s.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use support::{Flow, Ran};

/// What reading anything may take, in a debug build on a busy machine.
const LONGEST: Duration = Duration::from_secs(30);

#[track_caller]
fn nothing_executed(flow: &Flow) {
    let records = flow.cache().join("records/v1");
    let files = std::fs::read_dir(&records).into_iter().flatten().count();
    assert_eq!(files, 0, "there are records in {}", records.display());
}

/// Ends with 2, a hint and nothing executed.
#[track_caller]
fn refuses(flow: &Flow, says: &[&str]) -> Ran {
    let began = Instant::now();
    let ran = flow.flow(&["run", "m.kdl"]);
    assert!(began.elapsed() < LONGEST, "it took {:?}", began.elapsed());
    ran.exits(2).says("help:");
    for text in says {
        ran.says(text);
    }
    nothing_executed(flow);
    assert_eq!(ran.stdout, "", "a refusal is no data");
    ran
}

/// As `refuses`, underlined in the file; `check` and `plan` refuse it too.
#[track_caller]
fn is_a_flaw(flow: &Flow, says: &[&str]) {
    let ran = refuses(flow, says);
    let drawn = ran.stderr.contains('╰') && (ran.stderr.contains('─') || ran.stderr.contains('▲'));
    assert!(drawn, "nothing is underlined:\n{}", ran.stderr);
    for verb in ["check", "plan"] {
        flow.flow(&[verb, "m.kdl"]).exits(2);
    }
    nothing_executed(flow);
}

/// The sample with something more in its pipeline.
fn with(children: &str) -> Flow {
    let flow = Flow::sample();
    let children = flow.fill(children);
    flow.edit("m.kdl", |text| {
        let at = text.rfind('}').unwrap();
        format!("{}    {children}\n}}\n", &text[..at])
    });
    flow
}

fn with_config(config: &str, children: &str) -> Flow {
    let flow = with(&format!("candidate c agent=nop {{ config \"c.yaml\" {{ {children} }} }}"));
    flow.write("c.yaml", config);
    flow
}

#[test]
fn an_unknown_node_gets_a_suggestion() {
    is_a_flaw(&with("step agent { timout \"3m\" }"), &["timout", "timeout"]);
}

#[test]
fn a_wrong_type_is_named() {
    is_a_flaw(&with("step agent { timeout 3 }"), &["timeout"]);
}

#[test]
fn a_missing_file_is_named_with_its_path() {
    let flow = Flow::sample();
    flow.replace("m.kdl", "\"agents.kdl\"", "\"agents.kdl\" \"none/other.kdl\"");
    is_a_flaw(&flow, &["none/other.kdl"]);
    let flow = Flow::sample();
    flow.replace("m.kdl", "commits.txt", "commit.txt");
    is_a_flaw(&flow, &["commit.txt"]);
}

#[test]
fn a_missing_file_of_a_candidate_stops_the_run() {
    let flow =
        with("candidate c agent=scripted { file patch \"none.patch\"; file script \"none.json\" optional=#true }");
    refuses(&flow, &["none.patch"]);
}

#[test]
fn a_duplicate_name_shows_both() {
    is_a_flaw(&with("candidate human agent=nop"), &["human", "first here"]);
}

#[test]
fn a_cycle_is_shown_as_a_path() {
    is_a_flaw(&with("step baseline { after agent }"), &["baseline", "agent"]);
}

#[test]
fn an_unknown_needs_gets_a_suggestion() {
    is_a_flaw(&with("step patch { needs agents }"), &["agents", "`agent`"]);
}

#[test]
fn an_ambiguous_input_names_both() {
    is_a_flaw(&with("step again uses=checkout\n    step agent { needs checkout again }"), &["checkout", "again"]);
}

#[test]
fn a_commit_id_written_as_a_number_is_shown_with_quotes() {
    let flow = Flow::sample();
    flow.replace("m.kdl", "commits file=\"commits.txt\"", "commits { commit 0000012 }");
    is_a_flaw(&flow, &["\"0000012\""]);
}

#[test]
fn a_commit_that_is_not_in_the_repository_stops_the_run_and_no_plan() {
    let flow = Flow::sample();
    flow.write("commits.txt", "{one:40}\n0123456789012345678901234567890123456789\n");
    refuses(&flow, &["0123456789", "commits.txt"]);
    flow.flow(&["check", "m.kdl"]).exits(0);
    flow.flow(&["plan", "m.kdl"]).exits(0).says("0123456789");
    nothing_executed(&flow);
}

#[test]
fn an_unset_variable_stops_the_run_and_is_named_by_plan() {
    for children in [
        "step agent { set A \"{var.NOT_SET_HERE}\" }",
        "step agent { pass NOT_SET_HERE }",
        "tool other \"{var.NOT_SET_HERE}/python\"\n    step build { recipe interpreter tool=python }\n    step patched { run \"{tool.other}\" \"{script}\" }",
    ] {
        let flow = with(children);
        refuses(&flow, &["NOT_SET_HERE is not set", "export NOT_SET_HERE"]);
        flow.flow(&["check", "m.kdl"]).exits(0);
        flow.flow(&["plan", "m.kdl"]).exits(0).says("NOT_SET_HERE");
        nothing_executed(&flow);
    }
}

#[test]
fn a_config_that_agents_read_differently_or_that_a_secret_would_change_is_refused() {
    for end in ["\u{2028}", "\u{2029}", "\u{85}"] {
        let config = format!("model:\n  parallel: false # note{end}  parallel: true\n");
        is_a_flaw(
            &with_config(&config, "require \"model.parallel\" #false"),
            &["ends a line for some agents", "line 2"],
        );
    }
    is_a_flaw(
        &with_config("model:\n  key: {secret.KEY}\n", "require \"model\" 1"),
        &["does not stand within a text", "line 2"],
    );
    is_a_flaw(&with_config("password: 12345678901\n", "require \"steps\" 1"), &["`password` holds a secret"]);
    let prefixed = with_config("auth_token: \"Bearer {secret.KEY}\"\n", "require \"steps\" 1");
    let said = prefixed.flow(&["check", "m.kdl"]);
    assert!(!said.stderr.contains("written out"), "{}", said.stderr);
}

#[test]
fn a_require_that_the_config_does_not_meet_shows_both_values() {
    let flow = with_config("model:\n  parallel: true\n", "require \"model.parallel\" #false");
    is_a_flaw(&flow, &["model.parallel", "true", "false"]);
    is_a_flaw(&with_config("model: {}\n", "require \"model.parallel\" #false"), &["model.parallel"]);
}

#[test]
fn a_key_twice_in_a_config_is_a_flaw() {
    is_a_flaw(&with_config("a: 1\nb: 2\na: 3\n", ""), &["c.yaml", "`a`"]);
}

#[test]
fn a_literal_key_in_a_config_is_a_flaw_and_not_shown() {
    let flow = with_config("model:\n  api_key: hunter2hunter2\n", "");
    is_a_flaw(&flow, &["model.api_key"]);
    let ran = flow.flow(&["run", "m.kdl"]);
    assert!(!ran.stderr.contains("hunter2"), "{}", ran.stderr);
}

#[test]
fn a_config_that_is_hostile_is_a_flaw() {
    let bomb = "a: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e,*e]\ng: &g [*f,*f,*f,*f,*f,*f,*f,*f,*f,*f]\nh: [*g,*g,*g,*g,*g,*g,*g,*g,*g,*g]\n";
    for config in [bomb.to_owned(), "[".repeat(100_000), "a: {".repeat(50_000), "\0".to_owned(), "a: [1".to_owned()] {
        is_a_flaw(&with_config(&config, ""), &["c.yaml"]);
    }
}

#[test]
fn three_flaws_are_told_at_once() {
    let flow = with("step agent { timout \"3m\" }\n    candidate human agent=nop\n    step patch { needs agents }");
    is_a_flaw(&flow, &["timout", "human", "agents"]);
}

#[test]
fn an_absent_tool_stops_the_run() {
    let flow = Flow::sample();
    flow.replace("m.kdl", "\"python3\"", "\"no-such-python\"");
    refuses(&flow, &["no-such-python"]);
    flow.flow(&["check", "m.kdl"]).exits(0);
    flow.flow(&["plan", "m.kdl"]).exits(0).says("no-such-python");
}

#[test]
fn a_tool_whose_probe_fails_stops_the_run() {
    let flow = Flow::sample();
    flow.replace("m.kdl", "probe \"-VV\"", "probe \"-c\" \"import sys; sys.exit('broken here')\"");
    refuses(&flow, &["broken here"]);
}

#[test]
fn an_unreachable_repository_stops_the_run() {
    for place in ["none", "file:///none/such.git", "https://localhost:1/x.git", "ext::sh -c 'touch canary'"] {
        let flow = Flow::sample();
        flow.replace("m.kdl", "repo pkg \"repo\"", &format!("repo pkg \"{place}\""));
        let ran = flow.flow(&["run", "m.kdl"]);
        ran.exits(2).says("help:");
        nothing_executed(&flow);
        assert!(!flow.path("canary").exists(), "a URL was executed");
        flow.flow(&["check", "m.kdl"]);
        flow.flow(&["plan", "m.kdl"]);
        nothing_executed(&flow);
    }
}

#[test]
fn what_is_no_manifest_is_refused() {
    let deep = "a { ".repeat(100_000);
    let closed = format!("{}{}", "a {".repeat(100_000), "}".repeat(100_000));
    let comments = "/*".repeat(100_000);
    let values = format!("flow 1\npipeline p {{ a {} }}", "(x)".repeat(50_000));
    let slashes = "/-".repeat(100_000);
    let hashes = format!("{}\"", "#".repeat(200_000));
    let garbage = ["}", "/- ", "/-/**/", "x=", "\"\"", "=#", "[] ", "(x)1"]
        .map(|piece| format!("flow 1\npipeline p {{ a {} }}", piece.repeat(5_000)));
    let mut texts: Vec<&[u8]> = vec![
        b"",
        b"\n\n",
        b"\xef\xbb\xbf",
        b"\xff\xfe\x00\x01",
        b"\x7fELF\x02\x01\x01\0\0\0\0",
        b"flow 1",
        b"flow 2\npipeline p { }\n",
        b"{\"json\": true}",
        b"flow 1\npipeline p {\n",
        b"flow 1\0\npipeline p { }\n",
        deep.as_bytes(),
        closed.as_bytes(),
        comments.as_bytes(),
        values.as_bytes(),
        slashes.as_bytes(),
        hashes.as_bytes(),
    ];
    texts.extend(garbage.iter().map(String::as_bytes));
    for text in texts {
        let flow = Flow::empty();
        std::fs::write(flow.path("m.kdl"), text).unwrap();
        let ran = refuses(&flow, &[]);
        assert!(ran.stderr.len() < 200_000, "a report of {} bytes", ran.stderr.len());
    }
}

#[test]
fn a_huge_manifest_is_refused_unread() {
    let flow = Flow::empty();
    std::fs::File::create(flow.path("m.kdl")).unwrap().set_len(8 << 30).unwrap();
    refuses(&flow, &["m.kdl"]);
}

#[test]
fn a_manifest_that_is_no_file_is_refused() {
    for make in [
        |path: &Path| std::fs::create_dir(path).unwrap(),
        |path: &Path| nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap(),
        |path: &Path| std::os::unix::fs::symlink("m.kdl", path).unwrap(),
        |path: &Path| std::os::unix::fs::symlink("/dev/zero", path).unwrap(),
        |path: &Path| std::os::unix::fs::symlink("/none/such", path).unwrap(),
        |_: &Path| (),
    ] {
        let flow = Flow::empty();
        make(&flow.path("m.kdl"));
        refuses(&flow, &["m.kdl"]);
    }
}

#[test]
fn a_manifest_with_a_mark_and_carriage_returns_is_read() {
    let flow = Flow::sample();
    flow.edit("m.kdl", |text| format!("\u{feff}{}", text.replace('\n', "\r\n")));
    flow.edit("commits.txt", |text| text.replace('\n', "\r\n"));
    flow.run().settles();
}

#[test]
fn imports_in_a_circle_are_a_flaw() {
    let flow = Flow::sample();
    flow.edit("agents.kdl", |text| text.replacen("flow 1\n", "flow 1\nimport \"more.kdl\"\n", 1));
    flow.write("more.kdl", "flow 1\nimport \"agents.kdl\"\n");
    is_a_flaw(&flow, &["agents.kdl"]);
    let flow = Flow::sample();
    flow.edit("agents.kdl", |text| text.replacen("flow 1\n", "flow 1\nimport \"agents.kdl\"\n", 1));
    is_a_flaw(&flow, &["agents.kdl"]);
}

#[test]
fn an_import_through_a_loop_of_links_is_a_flaw() {
    let flow = Flow::sample();
    std::os::unix::fs::symlink("b.kdl", flow.path("a.kdl")).unwrap();
    std::os::unix::fs::symlink("a.kdl", flow.path("b.kdl")).unwrap();
    flow.replace("m.kdl", "\"agents.kdl\"", "\"agents.kdl\" \"a.kdl\"");
    is_a_flaw(&flow, &["a.kdl"]);
}

#[test]
fn imports_a_thousand_deep_are_read_or_refused() {
    let flow = Flow::sample();
    for n in 0..1000 {
        flow.write(&format!("i/{n}.kdl"), &format!("flow 1\nimport \"{}.kdl\"\n", n + 1));
    }
    flow.write("i/1000.kdl", "flow 1\n");
    flow.replace("m.kdl", "\"agents.kdl\"", "\"agents.kdl\" \"i/0.kdl\"");
    let code = flow.flow(&["check", "m.kdl"]).code;
    assert!(matches!(code, Some(0 | 2)), "{code:?}");
}

#[test]
fn an_absurd_list_of_commits_is_a_flaw() {
    let million: String = (0..1_000_000).map(|n| format!("line {n}\n")).collect();
    let twice = "0123456789012345678901234567890123456789\n".repeat(100_000);
    for text in [
        "HEAD\n".to_owned(),
        "--upload-pack=touch\n".to_owned(),
        "0123456\0\n".to_owned(),
        "\0".repeat(1000),
        "f".repeat(10_000_000),
        "\u{feff}\u{202e}01234567\n".to_owned(),
        million,
        twice,
    ] {
        let flow = Flow::sample();
        std::fs::write(flow.path("commits.txt"), text).unwrap();
        let ran = refuses(&flow, &["commits.txt"]);
        assert!(ran.stderr.len() < 200_000, "a report of {} bytes", ran.stderr.len());
    }
}

#[test]
fn a_list_without_a_commit_is_told() {
    let flow = Flow::sample();
    flow.write("commits.txt", "# none\n\n");
    refuses(&flow, &["commits.txt"]);
}

#[test]
fn a_store_that_cannot_be_written_is_told_before_anything_runs() {
    let flow = Flow::sample();
    std::fs::write(flow.path("file"), "").unwrap();
    std::os::unix::fs::symlink("/proc/self", flow.path("link")).unwrap();
    for cache in ["file", "file/below", "link", "/proc/none", "/dev/null"] {
        let ran = flow.flow(&["run", "m.kdl", "--cache", cache]);
        assert!(matches!(ran.code, Some(2 | 3)), "{cache}: {:?}\n{}", ran.code, ran.stderr);
        ran.says(cache);
        assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
    }
    nothing_executed(&flow);
}

#[test]
fn a_manifest_may_lie_under_any_name() {
    for name in ["a b/m n.kdl", "ü €/日本.kdl", "-r/--help.kdl", "{commit.id}/{x}.kdl", "quo'te\"/$(touch canary).kdl"]
    {
        let flow = Flow::sample();
        let text = std::fs::read_to_string(flow.path("m.kdl")).unwrap();
        let name = name.replace("{x}", "y");
        let path = flow.path("").join(&name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        for (old, new) in [
            ("\"agents.kdl\"", "\"../agents.kdl\""),
            ("\"steps.kdl\"", "\"../steps.kdl\""),
            ("\"repo\"", "\"../repo\""),
            ("\"commits.txt\"", "\"../commits.txt\""),
            ("dir=\"tests\"", "dir=\"../tests\""),
            ("\"patches/", "\"../patches/"),
        ] {
            assert!(text.contains(old), "{old}");
            let _ = new;
        }
        let text = text
            .replace("\"agents.kdl\" \"steps.kdl\"", "\"../agents.kdl\" \"../steps.kdl\"")
            .replace("\"repo\"", "\"../repo\"")
            .replace("\"commits.txt\"", "\"../commits.txt\"")
            .replace("dir=\"tests\"", "dir=\"../tests\"")
            .replace("\"patches/", "\"../patches/");
        std::fs::write(&path, text).unwrap();
        let output = flow.command(&["run", "--json", "--"]).arg(&path).output().unwrap();
        flow.ran(output).settles();
        assert!(!flow.path("canary").exists());
    }
}

#[test]
fn a_manifest_under_a_name_that_is_no_text_is_read_or_refused() {
    let flow = Flow::sample();
    let path = flow.path("").join(std::ffi::OsStr::from_bytes(b"m\xff.kdl"));
    std::fs::copy(flow.path("m.kdl"), &path).unwrap();
    let output = flow.command(&["run"]).arg(&path).output().unwrap();
    let ran = flow.ran(output);
    assert!(matches!(ran.code, Some(0 | 2)), "{:?}\n{}", ran.code, ran.stderr);
}

#[test]
fn arguments_that_mean_nothing_are_refused() {
    let flow = Flow::sample();
    for args in [
        &["run"][..],
        &["run", "m.kdl", "--no-such"],
        &["run", "m.kdl", "--jobs", "-1"],
        &["run", "m.kdl", "--repo", "none=repo"],
        &["run", "m.kdl", "--repo", "pkg"],
        &["run", "m.kdl", "--only", "["],
        &["run", "m.kdl", "--until", "nothing"],
        &["run", "m.kdl", "--drain", "soon"],
        &["nothing"],
    ] {
        let ran = flow.flow(args);
        ran.exits(2);
        assert!(!ran.stderr.is_empty(), "{args:?} says nothing");
        nothing_executed(&flow);
    }
}

#[test]
fn goals_that_nobody_can_mean_are_refused() {
    is_a_flaw(&with("goals { minimum improved=\"80%\"; target improved=\"70%\" }"), &["asks for less than `minimum`"]);
    is_a_flaw(&with("goals { minimum improved=\"180%\" }"), &["at most 100 %"]);
    is_a_flaw(&with("goals { minimum improvd=\"80%\" }"), &["did you mean `improved`?"]);
    is_a_flaw(&with("goals { minimum }"), &["`minimum` says nothing"]);
    is_a_flaw(&with("goals { }"), &["`goals` says nothing"]);
    let flow = with("goals { minimum at-least-human=\"12.5%\" improved=\"50%\"; target improved=\"50%\" }");
    let said = flow.flow(&["check", "m.kdl"]);
    said.settles().says("minimum 50 % improved").says("12.5 % at-least-human");
}

#[test]
fn a_folder_of_tests_knows_variables_alone() {
    let flow = Flow::sample();
    flow.replace("m.kdl", "dir=\"tests\"", "dir=\"{commit.id8}\"");
    is_a_flaw(&flow, &["`{commit.id8}` is not known here"]);
}

#[test]
fn a_command_line_in_one_text_is_a_flaw_that_says_how_it_is_written() {
    let provider = |node: &str| {
        let flow = Flow::sample();
        flow.replace("m.kdl", "pipeline sample", &format!("provider far {{ {node} }}\npipeline sample"));
        flow.replace(
            "m.kdl",
            "candidate human agent=human",
            "candidate human agent=human { model \"m\" provider=far }",
        );
        flow
    };
    let says = ["no shell", "not a whole command line"];
    is_a_flaw(&provider("probe \"curl -fsS http://127.0.0.1:1\""), &[says[0], says[1], "probe \"curl\" \"-fsS\""]);
    is_a_flaw(&provider("secret K { command \"pass show bench | head -1\" }"), &[says[1], "command \"sh\" \"-c\""]);
    let flow = Flow::sample();
    flow.replace("agents.kdl", "run \"{flow}\" \"act\" \"nothing\"", "run \"{flow} act nothing\"");
    is_a_flaw(&flow, &[says[0], says[1]]);
    // A path with a blank in it is a path, if it is there.
    flow.program("my agent", "#!/bin/sh\n");
    flow.replace("agents.kdl", "\"{flow} act nothing\"", "\"my agent\"");
    flow.flow(&["check", "m.kdl"]).settles();
}

#[test]
fn a_reading_that_cannot_be_meant_is_a_flaw() {
    let reading = |nodes: &str| {
        let flow = Flow::sample();
        flow.edit("agents.kdl", |text| format!("{text}agent own {{ run \"x\"; reading {{ {nodes} }} }}\n"));
        flow.add("candidate own agent=own");
        flow
    };
    is_a_flaw(&reading("error text=stderr"), &["no attempt succeeds", "add `finished"]);
    let finished = "finished jsonl=stdout { where \"/type\" \"end\" }";
    let half = format!("{finished}; usage jsonl=stdout {{ output \"/out\" }}");
    is_a_flaw(&reading(&half), &["finds the input tokens", "add `input`"]);
    let odd = format!("{finished}; usage text=stdout match=\"(?P<inp>[0-9]+) in, (?<output>[0-9]+) out\"");
    is_a_flaw(&reading(&odd), &["no figure is called `inp`", "`cache_read`"]);
    reading("message text=stdout").flow(&["check", "m.kdl"]).settles().says("neither `finished` nor `error`");
}

#[test]
fn a_tool_that_is_not_declared_and_a_file_that_is_not_imported_are_named_as_such() {
    let flow = Flow::sample();
    flow.replace("agents.kdl", "run \"{flow}\" \"act\" \"nothing\"", "run \"{tool.node}\" \"x\"");
    flow.replace("m.kdl", "candidate human agent=human", "candidate nop agent=nop; candidate human agent=human");
    is_a_flaw(&flow, &["`{tool.node}` is not known", "declare it in the pipeline: tool node"]);
    let flow = with("candidate far agent=far");
    is_a_flaw(&flow, &["no agent `far`", "has to be imported", "there is `human`"]);
    flow.write("agents/far.kdl", "flow 1\nagent far { run \"x\" }\n");
    is_a_flaw(&flow, &["no agent `far`", "add `import \"agents/far.kdl\"`"]);
}

#[test]
fn an_unmet_require_names_the_line_in_every_format() {
    let require = |file: &str, text: &str| {
        let flow = with(&format!("candidate c agent=nop {{ config \"{file}\" {{ require \"model.steps\" 3 }} }}"));
        flow.write(file, text);
        flow
    };
    is_a_flaw(&require("c.yaml", "model:\n  steps: 4\n"), &["c.yaml:2 says `steps: 4`"]);
    is_a_flaw(&require("c.toml", "[model]\n# steps\nsteps = 4\n"), &["c.toml:3 says `steps = 4`"]);
    is_a_flaw(&require("c.json", "{\"steps\": 3,\n \"model\": {\n  \"steps\": 4\n}}"), &["c.json:3 says"]);
}

#[test]
fn of_a_mistyped_amount_only_the_mistake_is_said() {
    let flow = with("budget (usd)1 perjob=(usd)1");
    let ran = refuses(&flow, &["did you mean `per-job`?"]);
    assert!(!ran.stderr.contains("annotation"), "{}", ran.stderr);
}
