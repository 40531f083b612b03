//! The promise of kept caches: a tree compiles once and its measured processes find that, each the same; nothing gets from one
//! tree to the other or from one measured process to the next; and where nobody asked for it nothing is kept.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeSet;

use serde_json::{Value, json};
use support::Flow;

/// Compiles what it does not find, and tells in `seen`: the work of its tree, whether it found a kernel and whose, how many
/// processes had left a line in the cache, and where that is.
const COMPILES: &str = r#"
cache = os.environ.get('TRITON_CACHE_DIR') or os.path.join(os.environ['HOME'], '.triton')
os.makedirs(cache, exist_ok=True)
kernel, lines = os.path.join(cache, 'kernel'), os.path.join(cache, 'lines')
found = open(kernel).read() if os.path.exists(kernel) else 'none'
if found == 'none':
    open(kernel, 'w').write(str(ops))
with open(lines, 'a+') as f:
    f.seek(0)
    before = len(f.readlines())
    f.write('x\n')
print(ops, found, before, cache, os.environ.get('FLOW_MODE', '-'), file=open(SEEN, 'a'))
"#;

/// One commit, the candidate `tidy`, which halves the work of 1000, and a step of the tests that says more.
fn counted(step: &str, script: &str) -> Flow {
    let flow = Flow::sample();
    flow.write("commits.txt", "{one:40}\n");
    flow.replace("m.kdl", "    candidate human agent=human\n", "");
    flow.replace("m.kdl", "    tool python", &format!("    step patched {{ {step} }}\n    tool python"));
    // Where nothing is held nothing need be opened.
    let seen = if step.contains("sandbox off") { flow.beside("seen") } else { flow.signs().join("seen") };
    let seen = format!("{:?}", seen.display().to_string());
    flow.edit("tests/{one}.py", |text| {
        let ends = format!("ops = pkg.work.OPS[0]\n{}\n", script.replace("SEEN", &seen));
        text.replacen("out = ", &format!("{ends}out = "), 1).replace("\"ops\": pkg.work.OPS[0]", "\"ops\": ops")
    });
    flow
}

/// The same, measured in time on one slot: a millisecond for each piece of work.
fn timed(step: &str, script: &str) -> Flow {
    let flow = counted(&format!("holds cpu=1; {step}"), script);
    flow.replace("m.kdl", "metric ops better=lower kind=count", "metric time_s better=lower");
    flow.replace("m.kdl", "    tool python", "    slots { cpu \"a\" }\n    tool python");
    flow.replace("tests/{one}.py", "\"ops\": ops", "\"time_s\": ops / 1000");
    flow
}

/// What a process told.
struct Told {
    ops: String,
    found: String,
    before: usize,
    cache: String,
    mode: String,
}

fn told(flow: &Flow) -> Vec<Told> {
    let seen = [flow.beside("seen"), flow.beside("signs/seen")].into_iter().find(|seen| seen.exists()).unwrap();
    let text = std::fs::read_to_string(seen).unwrap();
    let told = |line: &str| {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let [ops, found, before, cache, mode] = words.try_into().unwrap();
        Told { ops, found, before: before.parse().unwrap(), cache, mode }
    };
    text.lines().map(told).collect()
}

#[track_caller]
fn comes_to(flow: &Flow, class: &str) -> Value {
    let run = flow.run();
    assert_eq!(run.settles().class("{one}/tidy/1"), class, "{}\n{}", run.stdout, run.stderr);
    show(flow)
}

fn show(flow: &Flow) -> Value {
    flow.flow(&["show", "pkg/{one}/tidy/1", "--json"]).settles().json()
}

/// The stored result of the measurement.
fn result(flow: &Flow) -> Value {
    let ended = flow.ends("patched", "succeeded").pop().unwrap();
    let digest = ended["outputs"]["result"]["blob"].as_str().unwrap_or_default().to_owned();
    let text = find(&flow.cache().join("cas"), &digest).unwrap_or_else(|| panic!("no blob {digest}: {ended}"));
    serde_json::from_slice(&text).unwrap()
}

/// A blob of the store, by its digest.
fn find(dir: &std::path::Path, digest: &str) -> Option<Vec<u8>> {
    let digest = digest.trim_start_matches("sha256:");
    std::fs::read_dir(dir).ok()?.find_map(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return find(&path, digest);
        }
        let name = path.file_name()?.to_str()?;
        (digest.ends_with(name)).then(|| std::fs::read(&path).unwrap())
    })
}

#[test]
fn a_tree_compiles_once_and_its_samples_find_that_and_nothing_of_each_other() {
    let flow = timed("caches triton", COMPILES);
    let job = comes_to(&flow, "SUCCESS_IMPROVEMENT");
    let all = told(&flow);
    // The gate is a session of its own, and has a place of its own.
    let (gate, session) = all.split_at(2);
    assert_eq!(gate.iter().map(|one| one.found.as_str()).collect::<Vec<_>>(), ["none", "1000"]);
    for ops in ["1000", "500"] {
        let own: Vec<&Told> = session.iter().filter(|one| one.ops == ops).collect();
        assert!(own.iter().skip(1).all(|one| one.found == ops), "each finds its own tree's kernel");
        // Two warm-ups agree: the second goes on with what the first left, and every later one finds what both left.
        let before: Vec<usize> = own.iter().map(|one| one.before).collect();
        assert_eq!(before, [vec![0, 1], vec![2; 10]].concat());
    }
    let paths = |told: &[Told]| told.iter().map(|one| one.cache.clone()).collect::<BTreeSet<_>>().len();
    assert_eq!((paths(gate), paths(session)), (1, 1), "the same path for both trees");
    assert_eq!(support::marks(&job), json!(["CACHES_KEPT", "WRITE_OPEN"]));
    let kept = &result(&flow)["caches"];
    for (arm, bytes) in [("base", 8), ("patched", 7)] {
        assert_eq!((&kept[arm]["files"], &kept[arm]["bytes"]), (&json!(2), &json!(bytes)), "{kept}");
    }
    assert_ne!(kept["base"]["listing"], kept["patched"]["listing"]);
    let shown = flow.flow(&["show", "pkg/{one}/tidy/1"]);
    shown.settles().says("CACHES_KEPT").says("caches kept: base 2 files, 8 B; patched 2 files, 7 B");
    flow.flow(&["status"]).settles().says("marked CACHES_KEPT");
    flow.run().executes_nothing();
}

#[test]
fn where_nobody_asks_for_it_nothing_is_kept() {
    let flow = timed("", COMPILES);
    let job = comes_to(&flow, "SUCCESS_IMPROVEMENT");
    assert!(told(&flow).iter().all(|one| one.found == "none" && one.before == 0));
    assert_eq!(support::marks(&job), json!(["WRITE_OPEN"]));
    assert!(result(&flow).get("caches").is_none());
}

#[test]
fn exact_counts_are_those_of_processes_that_find_their_caches() {
    // What compiles does more work, in an own metric that both trees have to agree in too.
    let script = format!("{COMPILES}\nif found == 'none': ops += 70\ntokens = 7 if found == 'none' else 5\n");
    let flow = counted("caches triton", &script);
    flow.replace(
        "m.kdl",
        "min-effect=\"2%\" }",
        "min-effect=\"2%\"; metric tokens better=lower kind=count equal=#true }",
    );
    flow.replace("tests/{one}.py", "\"ops\": ops", "\"ops\": ops, \"tokens\": tokens");
    let job = comes_to(&flow, "SUCCESS_IMPROVEMENT");
    assert_eq!(job["speedup"], 2.0);
    let found: Vec<String> = told(&flow).into_iter().map(|one| one.found).collect();
    // The gate's two, a warm-up of each tree, and the four that count.
    assert_eq!(found.iter().filter(|found| *found == "none").count(), 3);
    assert_eq!(found.len(), 2 + 2 + 4);
    // What a process that does not fill counts otherwise is as wrong as ever.
    flow.replace("tests/{one}.py", "else 5", "else (5 if ops == 1000 else 4)");
    comes_to(&flow, "PATCHED_WRONG_RESULT");
}

#[test]
fn every_session_fills_its_own() {
    // Neither five blocks nor six settle it.
    let flow = timed("caches triton; protocol screen { blocks max=6 }", COMPILES);
    flow.replace(
        "tests/{one}.py",
        "ops / 1000",
        "(1 + ops / 20000) * [1, 1.12, 0.92, 1.05, 0.95][len(open(SEEN).readlines()) * 7 % 5]",
    );
    let seen = format!("{:?}", flow.signs().join("seen").display().to_string());
    flow.replace("tests/{one}.py", "SEEN", &seen);
    flow.run().settles();
    let compiled = |flow: &Flow| told(flow).iter().filter(|one| one.found == "none").count();
    assert_eq!(compiled(&flow), 3);
    flow.flow(&["extend", "pkg/{one}/tidy/1", "--blocks", "9"]).settles();
    assert_eq!(compiled(&flow), 5, "the extension has warm-ups of its own");
    assert_eq!(result(&flow)["caches"]["patched"]["files"], 2);

    let flow = timed("caches triton; aa", COMPILES);
    flow.run().settles();
    assert_eq!(compiled(&flow), 3, "an identical second base shares nothing with the first");

    let flow = timed("caches triton; second-session", COMPILES);
    let job = comes_to(&flow, "SUCCESS_IMPROVEMENT");
    assert_eq!(compiled(&flow), 5);
    assert_eq!(support::marks(&job), json!(["CACHES_KEPT", "CONFIRMED", "WRITE_OPEN"]));
}

#[test]
fn what_runs_before_the_warm_ups_fills_nothing() {
    let script = format!(
        "{COMPILES}\nif os.environ['FLOW_MODE'] == 'reference':\n    open(os.environ['FLOW_REFERENCE'], 'w').write('x'); sys.exit(0)\n"
    );
    let flow = timed("caches triton; equal script; check \"sh\" \"-c\" \"test -z \\\"$TRITON_CACHE_DIR\\\"\"", &script);
    comes_to(&flow, "SUCCESS_IMPROVEMENT");
    let all = told(&flow);
    let references: Vec<&Told> = all.iter().filter(|one| one.mode == "reference").collect();
    assert!(
        references.len() == 2 && references.iter().all(|one| one.found == "none"),
        "in the gate and beside the patch"
    );
    // The first base process that is measured compiles again: no tree gets a process more than the other.
    assert_eq!(all.iter().filter(|one| one.mode == "check" && one.found == "none").count(), 3);
}

/// Looks for what is kept, and tries to write there and beside its own caches.
const LOOKS: &str = r#"
assert os.path.isdir(os.environ['MY_CACHE'])
kept = os.path.join(cache, '../../kept')
assert os.listdir(kept) == [], 'it sees what is kept'
for place in (kept, os.path.join(cache, '..')):
    try: os.mkdir(os.path.join(place, 'x'))
    except OSError: continue
    assert False, 'it can write to ' + place
"#;

#[test]
fn in_a_sandbox_a_process_sees_its_own_copy_alone() {
    // It cannot tell by the file that the others tell by.
    let script = COMPILES.replace("SEEN", "os.devnull") + LOOKS;
    let flow = timed("sandbox auto; caches triton mine=MY_CACHE", &script);
    let run = flow.run();
    run.settles();
    let held = flow.lines().into_iter().find(|line| line["line"] == "ended" && line["step"] == "baseline").unwrap();
    if !held["sandbox"]["held"].as_array().is_some_and(|held| held.iter().any(|part| part == "files")) {
        eprintln!("skipped: this kernel holds no files: {}", held["sandbox"]);
        return;
    }
    assert_eq!(run.class("{one}/tidy/1"), "SUCCESS_IMPROVEMENT", "{}", run.stdout);
    assert_eq!(result(&flow)["caches"]["patched"]["files"], 2);
}

#[test]
fn what_is_kept_of_the_base_is_no_ground_for_the_patched_tree() {
    let script = format!(
        "{COMPILES}\nbase = os.path.join(cache, '../../kept/base/triton/kernel')\nif ops == 500 and os.path.exists(base): open(base, 'w').write('slow')"
    );
    let job = comes_to(&timed("sandbox off; caches triton", &script), "SUSPECT");
    let evidence = job["evidence"].as_str().unwrap();
    assert!(evidence.contains("changed the caches that are kept of the base tree"), "{evidence}");
}

#[test]
fn a_link_that_leads_out_or_a_pipe_is_not_kept_and_said() {
    let script = format!(
        "{COMPILES}\nif found == 'none':\n    os.symlink('/etc/passwd', cache + '/out'); os.symlink('kernel', cache + '/near')\nif not os.path.lexists(cache + '/pipe'): os.mkfifo(cache + '/pipe')\nif before == 2: assert os.path.lexists(cache + '/near') and not os.path.lexists(cache + '/out')"
    );
    let flow = timed("caches triton", &script);
    comes_to(&flow, "SUCCESS_IMPROVEMENT");
    assert!(told(&flow).iter().any(|one| one.before == 2));
    flow.flow(&["show", "pkg/{one}/tidy/1"]).says("not kept of the patched tree's caches: 1, such as triton/pipe");
    assert_eq!(result(&flow)["caches"]["base"]["left_out"], 1);

    // A cache that is a link itself, or was taken away, is an empty one.
    let script = format!("{COMPILES}\nimport shutil\nshutil.rmtree(cache)\nif ops == 500: os.symlink('/etc', cache)");
    let flow = timed("sandbox off; caches triton", &script);
    comes_to(&flow, "SUCCESS_IMPROVEMENT");
    assert!(told(&flow).iter().all(|one| one.found == "none"));
}

#[test]
fn a_cache_too_large_is_a_failure_that_says_so() {
    for (arm, class, owner) in [("1000", "BASELINE_EXCEPTION", "test"), ("500", "PATCHED_EXCEPTION", "agent")] {
        // Sparse: it takes no room until it is copied.
        let script = format!("{COMPILES}\nif ops == {arm}: open(cache + '/huge', 'w').truncate(21 << 30)");
        let job = comes_to(&timed("caches triton", &script), class);
        let tree = if arm == "1000" { "base" } else { "patched" };
        let evidence = format!("the caches of the {tree} tree hold more than 20.0 GiB");
        assert!(job["evidence"].as_str().unwrap().contains(&evidence), "{job}");
        assert_eq!(job["owner"], owner);
    }
}

#[test]
fn what_is_kept_is_in_the_key_and_why_names_it() {
    let flow = counted("", COMPILES);
    comes_to(&flow, "SUCCESS_IMPROVEMENT");
    flow.replace("m.kdl", "step patched {", "step patched { caches triton");
    let why = flow.flow(&["why", "pkg/{one}/tidy/1", "m.kdl", "--json"]).exits(0).json();
    let steps = why["jobs"][0]["steps"].as_array().unwrap();
    for step in ["baseline", "patched"] {
        let changes = &steps.iter().find(|told| told["step"] == step).unwrap()["changes"];
        assert!(changes.as_array().unwrap().iter().any(|change| change["ingredient"] == "caches"), "{changes}");
    }
    flow.flow(&["why", "pkg/{one}/tidy/1", "m.kdl"]).exits(0).says("caches").says("triton=TRITON_CACHE_DIR");
    flow.run().settles().executes(&["{one} baseline", "{one}/tidy/1 patched", "{one}/tidy/1 classify"]);
    // In which order they are named is nothing; which variable moves them is.
    flow.replace("m.kdl", "caches triton", "caches own=OWN_CACHE triton");
    assert_ne!(flow.run().settles().executed(), Vec::<String>::new());
    flow.replace("m.kdl", "caches own=OWN_CACHE triton", "caches triton own=OWN_CACHE");
    flow.run().settles().executes_nothing();
    flow.replace("m.kdl", "OWN_CACHE", "OTHER_CACHE");
    assert_ne!(flow.run().settles().executed(), Vec::<String>::new());
    // Without them it is what it was.
    flow.replace("m.kdl", "caches triton own=OTHER_CACHE", "");
    flow.run().settles().executes_nothing();
}

#[test]
fn what_cannot_be_a_cache_is_a_flaw() {
    for (step, code, help) in [
        ("step patched { caches trition }", "unknown-word", "did you mean `triton`?"),
        ("step patched { caches ccache }", "unknown-word", "`inductor`"),
        ("step patched { caches }", "missing-property", "caches triton inductor"),
        ("step patched { caches mine=HOME }", "bad-variable", "moves the one cache"),
        ("step patched { caches mine=TMPDIR }", "bad-variable", "moves the one cache"),
        ("step patched { caches mine=FLOW_RESULT }", "bad-variable", "flow sets"),
        ("step patched { caches mine=\"a b\" }", "bad-variable", "a name such as"),
        ("step patched { caches triton triton }", "duplicate-name", "leave one out"),
        ("step patched { caches triton mine=TRITON_CACHE_DIR }", "duplicate-name", "leave one out"),
        ("step patched { caches triton=MY_CACHE }", "known-cache", "write `caches triton`"),
        ("step patched { caches triton; set TRITON_CACHE_DIR \"x\" }", "duplicate-name", "keep one of the two"),
        ("step patched { caches triton }\n    step baseline { caches numba }", "drift", "the gate takes it over"),
        ("step agent { caches triton }", "unknown-node", "stands in a step that uses `test`"),
    ] {
        let flow = Flow::sample();
        flow.replace("m.kdl", "    tool python", &format!("    {step}\n    tool python"));
        let checked = flow.flow(&["check", "m.kdl"]);
        assert_ne!(checked.code, Some(0), "{step}\n{}{}", checked.stdout, checked.stderr);
        checked.says(code);
        let all = format!("{}{}", checked.stdout, checked.stderr);
        let words = all.split_whitespace().filter(|word| *word != "│").collect::<Vec<_>>().join(" ");
        assert!(words.contains(help), "{step}: {help}\n{all}");
    }
}

/// The limit of it, said aloud: whoever keeps caches has to read the patch for that.
#[test]
fn an_answer_left_in_a_kept_cache_scores_with_a_mark_and_without_caches_it_does_not() {
    let memo = |step: &str| {
        let flow = timed(step, "");
        flow.patch("tidy", "one", "pkg/work.py", |text| {
            text.replacen(
                "def one(n):\n",
                "def one(n):\n    import os\n    memo = os.environ.get('TRITON_CACHE_DIR', os.environ['HOME']) + '/memo'\n    if os.path.exists(memo):\n        OPS[0] += 1\n        return int(open(memo).read())\n    open(memo, 'w').write(str(n))\n",
                1,
            )
        });
        flow
    };
    let job = comes_to(&memo("caches triton"), "SUCCESS_IMPROVEMENT");
    assert_eq!(support::marks(&job), json!(["CACHES_KEPT", "WRITE_OPEN"]));
    comes_to(&memo(""), "SUCCESS_NEUTRAL");
}
