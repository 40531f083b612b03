//! The promise about secrets: whatever an agent does with one, not one byte of it is stored, logged or shown; it is in no key;
//! it reaches nobody else; and one that is not there is refused, never read as "".
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;
#[path = "support/wild.rs"]
mod wild;

use std::path::{Path, PathBuf};

use support::{Flow, Ran, until};
use wild::{USEFUL, Wild, below, processes_of};

const FROM_VARIABLE: &str = "sent1nel/Qx7+variable\"Vd93kd02";
const FROM_FILE: &str = "sent2nel-Hw48sk1-file-Zz09a";
const FROM_COMMAND: &str = "sent3nel_command_Lp30dj2m";
const ALL: [&str; 3] = [FROM_VARIABLE, FROM_FILE, FROM_COMMAND];

/// A pipeline whose candidate `wild` is given three secrets.
fn keyed(script: &str) -> Wild {
    let mut wild = Wild::new(&format!("secrets = [os.environ[n] for n in ['KEY_A', 'KEY_B', 'KEY_C']]\n{script}"));
    wild.flow.write("wild.kdl", "flow 1\nagent wild { run \"python3\" \"{file.script}\" \"{out}\"; version \"1\"; trajectory \"deep/t.json\" }\n");
    let secrets = "file script \"wild.py\"\n        secret KEY_A\n        secret KEY_B file=\"b.key\"\n        secret KEY_C { command \"cat\" \"c.key\" }";
    wild.flow.replace("m.kdl", "file script \"wild.py\"", secrets);
    wild.flow.write("b.key", &format!("{FROM_FILE}\n"));
    wild.flow.write("c.key", &format!("{FROM_COMMAND}\n"));
    wild.flow.env("KEY_A", FROM_VARIABLE);
    let private = wild.flow.path("../private");
    std::fs::create_dir_all(&private).unwrap();
    wild.flow.env("XDG_RUNTIME_DIR", private.to_str().unwrap());
    wild
}

/// What gives a secret away: itself, its middle, and what common encodings make of it.
fn traces() -> Vec<Vec<u8>> {
    let mut traces = Vec::new();
    for secret in ALL {
        traces.push(secret.as_bytes().to_vec());
        traces.push(secret.as_bytes()[4..16].to_vec());
        traces.push(secret.bytes().map(|b| format!("{b:02x}")).collect::<String>().into_bytes());
        for skip in 0..3 {
            let padded = [&b"xxx"[..skip], secret.as_bytes()].concat();
            let encoded = base64(&padded);
            // Without the digits that also depend on what stands beside it.
            traces.push(encoded.as_bytes()[4..encoded.len() - 4].to_vec());
        }
    }
    traces
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = bytes.chunks(3).flat_map(|chunk| {
        let word = chunk.iter().fold(0_u32, |word, b| word << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
        (0..=chunk.len()).map(move |n| char::from(DIGITS[(word >> (18 - 6 * n)) as usize & 63]))
    });
    digits.collect()
}

#[track_caller]
fn holds_none(what: &str, bytes: &[u8]) {
    for trace in traces() {
        let found = bytes.windows(trace.len()).position(|part| part == trace);
        if let Some(at) = found {
            let around =
                String::from_utf8_lossy(&bytes[at.saturating_sub(60)..(at + 60).min(bytes.len())]).into_owned();
            panic!("{what} holds {}: …{around}…", String::from_utf8_lossy(&trace));
        }
    }
}

/// Not in the store, not in the private folder, not on the screen of any reader.
#[track_caller]
fn nowhere(flow: &Flow, ran: &Ran) {
    for path in below(&flow.cache()) {
        holds_none("the name of a file", path.as_os_str().as_encoded_bytes());
        if path.is_symlink() {
            holds_none("a link", std::fs::read_link(&path).unwrap().as_os_str().as_encoded_bytes());
        } else if path.is_file() {
            holds_none(&path.display().to_string(), &std::fs::read(&path).unwrap());
        }
    }
    assert_eq!(below(&flow.path("../private")), Vec::<PathBuf>::new(), "a private copy was left");
    holds_none("standard output", ran.stdout.as_bytes());
    holds_none("standard error", ran.stderr.as_bytes());
    let job = flow.fill("pkg/{one}/wild/1");
    let readers: [&[&str]; 11] = [
        &["run", "m.kdl"],
        &["plan", "m.kdl", "--all"],
        &["plan", "m.kdl", "--json"],
        &["why", "{one}", "m.kdl"],
        &["why", "{one}", "m.kdl", "--json"],
        &["status", "m.kdl"],
        &["show", &job],
        &["show", &job, "--json"],
        &["log", &job, "agent"],
        &["log", &job, "patched"],
        &["check", "m.kdl"],
    ];
    for args in readers {
        let read = flow.flow(args);
        holds_none(&format!("{args:?}"), read.stdout.as_bytes());
        holds_none(&format!("{args:?}"), read.stderr.as_bytes());
    }
}

fn logs(wild: &Wild, step: &str, log: &str) -> String {
    let line = wild
        .records()
        .into_iter()
        .rfind(|line| line["line"] == "ended" && line["axes"]["candidate"] == "wild" && line["step"] == step);
    let digest = line.unwrap()["logs"][log].as_str().unwrap().to_owned();
    String::from_utf8(wild.blob(&digest).unwrap()).unwrap()
}

#[test]
fn what_an_agent_prints_is_redacted_however_it_prints_it() {
    let wild = keyed(&format!(
        "{USEFUL}
import base64, json, urllib.parse
for secret in secrets:
    print('whole', secret, flush=True)
    for fd in (1, 2):
        for part in (secret[:7], secret[7:9], secret[9:]):
            os.write(fd, part.encode()); time.sleep(0.02)
        os.write(fd, b'\\n')
    for n in range(3): print('base64', base64.b64encode(b'x' * n + secret.encode()).decode())
    print('json', json.dumps({{'k': [secret]}}), json.dumps(json.dumps(secret)))
    print('url', urllib.parse.quote(secret), urllib.parse.quote_plus(secret))
    print('hex', secret.encode().hex(), secret.encode().hex().upper())
    print('twice', secret + secret)
    subprocess.run(['true', secret, '--key=' + secret])
    subprocess.run(['ls', '/none/' + secret])
"
    ));
    let came = wild.runs(0);
    came.is("SUCCESS_IMPROVEMENT");
    let said = logs(&wild, "agent", "stdout");
    for name in ["KEY_A", "KEY_B", "KEY_C"] {
        assert!(said.contains(&format!("whole [secret {name}]")), "{said}");
        assert!(said.contains(&format!("twice [secret {name}][secret {name}]")), "{said}");
    }
    nowhere(&wild.flow, &came.ran);
}

#[test]
fn where_a_long_output_is_cut_no_part_of_a_secret_is_left() {
    // Each length puts the cuts elsewhere within a secret.
    for pad in [0, 7, 13] {
        let wild = keyed(&format!(
            "{USEFUL}
for fd in (1, 2):
    os.write(fd, b'x' * {pad})
    for n in range(4000): os.write(fd, secrets[n % 3].encode())
"
        ))
        .step("agent", "limit \"32KiB\"");
        let came = wild.runs(0);
        came.is("SUCCESS_IMPROVEMENT");
        assert!(came.notes.contains("was cut"), "{}", came.notes);
        assert!(logs(&wild, "agent", "stdout").contains("bytes of the output were left out here"));
        nowhere(&wild.flow, &came.ran);
    }
}

#[test]
fn evidence_of_a_crash_holds_no_secret() {
    let wild = keyed("raise SystemExit('rejected: ' + ' '.join(secrets))");
    let came = wild.runs(0);
    came.is("AGENT_ERROR").because("CRASHED", "rejected: [secret KEY_A] [secret KEY_B] [secret KEY_C]");
    nowhere(&wild.flow, &came.ran);
}

#[test]
fn a_trajectory_is_kept_without_its_secrets() {
    let script = "
import json
os.makedirs(sys.argv[1] + '/deep')
with open(sys.argv[1] + '/deep/t.json', 'w') as f: json.dump({'headers': {'x-key': secrets}, 'said': 'ok'}, f)
with open(sys.argv[1] + '/other.txt', 'w') as f: f.write(secrets[0])
";
    let wild = keyed(&format!("{USEFUL}{script}"));
    let came = wild.runs(0);
    came.is("SUCCESS_IMPROVEMENT");
    let kept = logs(&wild, "agent", "trajectory");
    assert_eq!(
        kept,
        "{\"headers\": {\"x-key\": [\"[secret KEY_A]\", \"[secret KEY_B]\", \"[secret KEY_C]\"]}, \"said\": \"ok\"}"
    );
    nowhere(&wild.flow, &came.ran);
}

#[test]
fn a_trajectory_behind_a_link_is_not_read() {
    let script = "
os.rmdir(sys.argv[1])
os.makedirs('../else/deep')
with open('../else/deep/t.json', 'w') as f: f.write('elsewhere')
os.symlink('else', sys.argv[1])
";
    let wild = keyed(&format!("{USEFUL}{script}")).step("agent", "sandbox off");
    let came = wild.runs(0);
    came.is("SUCCESS_IMPROVEMENT");
    assert!(came.notes.contains("the trajectory was not kept"), "{}", came.notes);
}

#[test]
fn a_patch_that_holds_a_secret_is_not_stored() {
    for script in [
        "open('pkg/key.py', 'w').write('KEY = ' + repr(secrets[1]))",
        "import base64; open('pkg/key.py', 'w').write(base64.b64encode(secrets[2].encode()).decode())",
        "open('pkg/' + secrets[1], 'w').write('')",
        "os.makedirs('x/' + secrets[2] + '/y'); open('x/' + secrets[2] + '/y/z', 'w').write('')",
        "os.symlink(secrets[1], 'pkg/link')",
        "subprocess.run(['git', 'config', 'user.key', secrets[1]]); open('pkg/key.py', 'wb').write(b'\\0' * 70000 + secrets[2].encode())",
    ] {
        let wild = keyed(&format!("{USEFUL}{script}"));
        let came = wild.runs(0);
        came.is("PATCH_INVALID").because("HOLDS_SECRET", "the value of a secret is in");
        nowhere(&wild.flow, &came.ran);
    }
}

#[test]
fn notes_of_what_was_left_out_hold_no_secret() {
    let script = "
os.mkfifo('pkg/' + secrets[1])
os.makedirs(secrets[2] + '/.git')
";
    let wild = keyed(&format!("{USEFUL}{script}"));
    let came = wild.runs(0);
    came.is("SUCCESS_IMPROVEMENT");
    assert!(came.notes.contains("it is a fifo"), "{}", came.notes);
    nowhere(&wild.flow, &came.ran);
}

#[test]
fn a_secret_written_past_the_filter_is_redacted_all_the_same() {
    let script = "
for name in ['../agent.out', '../agent.err']:
    with open(name, 'w') as f: f.write('\\n'.join(secrets))
sys.exit(3)
";
    let wild = keyed(script).step("agent", "sandbox off");
    let came = wild.runs(0);
    came.is("AGENT_ERROR").because("CRASHED", "[secret KEY_C]");
    nowhere(&wild.flow, &came.ran);
}

#[test]
fn what_a_secrets_command_complains_of_tells_neither_its_own_nor_another() {
    let wild = keyed(USEFUL);
    wild.flow.replace("m.kdl", "command \"cat\" \"c.key\"", "command \"sh\" \"c.sh\"");
    wild.flow.write("c.sh", "cat c.key\necho \"refused: $KEY_A $(cat b.key) $(cat c.key)\" >&2\nexit 5\n");
    wild.flow.replace("steps.kdl", "attempts 3", "attempts 1");
    let came = wild.runs(3);
    let said = "refused: [secret KEY_A] [secret KEY_B] [secret that it printed]";
    came.because("SECRET_MISSING", said);
    nowhere(&wild.flow, &came.ran);
}

#[test]
fn another_candidate_and_the_tests_do_not_get_it() {
    let wild = keyed(USEFUL);
    let looks = "import os\nfor name in ['KEY_A', 'KEY_B', 'KEY_C', 'XDG_RUNTIME_DIR']:\n    assert name not in os.environ, name\n";
    wild.flow.edit("tests/{one}.py", |test| format!("{looks}{test}"));
    wild.flow.write("other.py", &format!("{looks}{USEFUL}\nopen('other.py', 'w').write('')\n"));
    wild.flow.edit("m.kdl", |text| {
        let at = text.rfind('}').unwrap();
        format!("{}    candidate other agent=wild {{ file script \"other.py\" }}\n}}\n", &text[..at])
    });
    let came = wild.runs(0);
    came.is("SUCCESS_IMPROVEMENT");
    assert_eq!(came.ran.class("{one}/other/1"), "SUCCESS_IMPROVEMENT");
}

#[test]
fn a_tested_tree_that_tells_a_tests_secret_is_redacted() {
    let tells = "import os\nprint(os.environ['KEY_A'])\nKEY = os.environ['KEY_A']\n";
    let wild = keyed(&format!("{USEFUL}\nwith open('pkg/work.py', 'a') as f: f.write({tells:?})"))
        .step("patched", "secret KEY_A");
    wild.flow.replace("tests/{one}.py", "\"sha256:\" + str(result)", "getattr(pkg.work, 'KEY', 'none')");
    let came = wild.runs(0);
    came.is("PATCHED_WRONG_RESULT");
    nowhere(&wild.flow, &came.ran);
}

#[test]
fn an_output_of_a_command_that_holds_a_secret_is_not_stored() {
    let mut flow = Flow::empty();
    flow.env("KEY_A", FROM_VARIABLE);
    flow.write("m.kdl", "flow 1\npipeline keyed {\n    axis n \"1\"\n    step one uses=command { secret KEY_A; run \"sh\" \"-c\" \"echo $KEY_A; echo $KEY_A > $0; echo {n}\" \"{out.o}\"; output o \"o.txt\" publish=\"published.txt\" }\n}\n");
    let ran = flow.run();
    ran.settles();
    assert!(ran.stdout.contains("HOLDS_SECRET"), "{}", ran.stdout);
    assert!(!flow.path("published.txt").exists());
    for path in below(&flow.cache()).iter().filter(|path| path.is_file()) {
        holds_none(&path.display().to_string(), &std::fs::read(path).unwrap());
    }
}

/// A candidate whose config is filled with a secret.
fn configured(script: &str) -> Wild {
    let wild = keyed(script);
    wild.flow
        .write("wild.kdl", "flow 1\nagent wild { run \"python3\" \"{file.script}\" \"{config}\"; version \"1\" }\n");
    wild.flow.write("c.yaml", "# ours\nmodel:\n  api_key: \"{secret.KEY_B}\"\n  steps: 3\n");
    wild.flow.replace("m.kdl", "file script \"wild.py\"", "file script \"wild.py\"\n        config \"c.yaml\"");
    wild
}

#[test]
fn a_config_is_filled_outside_the_store_and_removed() {
    let wild = configured(&format!(
        "{USEFUL}
import stat
text = open(sys.argv[1]).read()
assert 'api_key: \"' + secrets[1] + '\"' in text, 'not filled'
assert '/private/' in sys.argv[1], sys.argv[1]
folder = os.stat(os.path.dirname(sys.argv[1]))
assert stat.S_IMODE(folder.st_mode) == 0o700, oct(folder.st_mode)
"
    ));
    let came = wild.runs(0);
    came.is("SUCCESS_IMPROVEMENT");
    nowhere(&wild.flow, &came.ran);
}

#[test]
fn a_secret_changes_nothing_else_of_a_config() {
    const TWISTED: &str = "x\", \"safe\": true, \"y\": \"twisted-Lw93";
    let wild = configured(&format!(
        "{USEFUL}
import json
config = json.load(open(sys.argv[1]))
assert config == {{'header': 'Bearer ' + secrets[1], 'safe': False}}, sorted(config)
"
    ));
    wild.flow.write("b.key", TWISTED);
    wild.flow.write("c.json", "{\"header\": \"Bearer {secret.KEY_B}\", \"safe\": false}\n");
    wild.flow.replace("m.kdl", "config \"c.yaml\"", "config \"c.json\" { require \"safe\" #false }");
    let came = wild.runs(0);
    came.is("SUCCESS_IMPROVEMENT");
    nowhere(&wild.flow, &came.ran);
    holds_twisted_nowhere(&wild, &came.ran);
}

#[test]
fn a_secret_that_would_say_something_else_in_a_config_is_refused() {
    let wild = configured(USEFUL);
    wild.flow.write("b.key", "twisted-Lw93\nsafe: true");
    wild.flow.write("c.yaml", "# ours\nheader: Bearer {secret.KEY_B}\nsafe: false\n");
    let came = wild.runs(3);
    came.because("AGENT_CONFIG", "c.yaml: line 2: the value of the secret KEY_B would say something else there");
    holds_twisted_nowhere(&wild, &came.ran);
}

#[track_caller]
fn holds_twisted_nowhere(wild: &Wild, ran: &Ran) {
    let files = below(&wild.flow.cache()).into_iter().filter(|path| path.is_file());
    let texts = files.map(|path| std::fs::read(path).unwrap());
    for bytes in texts.chain([ran.stdout.clone().into_bytes(), ran.stderr.clone().into_bytes()]) {
        assert!(!bytes.windows(12).any(|part| part == b"twisted-Lw93"), "{}", String::from_utf8_lossy(&bytes));
    }
}

#[test]
fn a_comment_in_a_config_with_a_secret_runs_nothing() {
    let wild = configured(USEFUL);
    wild.runs(0).is("SUCCESS_IMPROVEMENT");
    wild.flow.replace("c.yaml", "# ours", "# theirs");
    wild.flow.run().settles().executes_nothing();
}

/// Starts a run and waits until its agent sits there; gives the run, the supervisor and the config's path.
fn sitting(wild: &Wild) -> (std::process::Child, i32, PathBuf) {
    let told = wild.flow.path("told");
    let run = wild.flow.start();
    until("the agent is there", || told.exists());
    let text = std::fs::read_to_string(&told).unwrap();
    let (supervisor, config) = text.split_once(' ').unwrap();
    (run, supervisor.parse().unwrap(), PathBuf::from(config))
}

fn sits() -> Wild {
    let wild = configured("").step("agent", "sandbox off");
    let told = wild.flow.path("told").display().to_string();
    let script = format!(
        "import os, sys, time
if not os.path.exists('{told}'):
    with open('{told}.new', 'w') as f: f.write(f'{{os.getppid()}} {{sys.argv[1]}}')
    os.rename('{told}.new', '{told}')
    while True: time.sleep(1000)
{USEFUL}"
    );
    std::fs::write(wild.flow.path("wild.py"), script).unwrap();
    wild
}

fn kill(pid: i32) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
}

#[test]
fn a_killed_flow_leaves_no_private_config() {
    let wild = sits();
    let (mut run, _, config) = sitting(&wild);
    assert!(std::fs::read_to_string(&config).unwrap().contains(FROM_FILE));
    run.kill().unwrap();
    run.wait().unwrap();
    until("the supervisor removes the config", || !config.parent().unwrap().exists());
    let came = wild.runs(0);
    came.is("SUCCESS_IMPROVEMENT");
    nowhere(&wild.flow, &came.ran);
}

#[test]
fn where_the_supervisor_was_killed_too_the_next_run_removes_it() {
    let wild = sits();
    let (mut run, supervisor, config) = sitting(&wild);
    run.kill().unwrap();
    kill(supervisor);
    run.wait().unwrap();
    until("the agent is dead", || processes_of(&wild.flow.path("")).is_empty());
    let came = wild.runs(0);
    came.is("SUCCESS_IMPROVEMENT");
    assert!(!config.exists());
    nowhere(&wild.flow, &came.ran);
}

#[test]
fn another_value_is_no_other_key() {
    let mut wild = keyed(USEFUL);
    wild.runs(0).is("SUCCESS_IMPROVEMENT");
    wild.flow.env("KEY_A", "another-value-altogether");
    wild.flow.write("b.key", "renewed-yesterday");
    wild.flow.run().settles().executes_nothing();
    wild.flow.env("KEY_A", "");
    std::fs::remove_file(wild.flow.path("b.key")).unwrap();
    // What is served needs no secret.
    wild.flow.run().settles().executes_nothing();
}

/// Refused before anything is executed, with the name and without a value; `check` and `plan` go on.
#[track_caller]
fn refuses(wild: &Wild, what: &str) {
    let ran = wild.flow.run();
    ran.exits(2).says(what).says("secret KEY_");
    assert!(wild.records().is_empty(), "something was executed");
    let plan = wild.flow.flow(&["plan", "m.kdl"]);
    plan.exits(0).says(what);
    wild.flow.flow(&["check", "m.kdl"]).exits(0);
    for ran in [ran, plan] {
        holds_none("the refusal", ran.stdout.as_bytes());
        holds_none("the refusal", ran.stderr.as_bytes());
    }
}

#[test]
fn an_unset_secret_is_refused() {
    let wild = keyed(USEFUL);
    wild.flow.replace("m.kdl", "secret KEY_A\n", "secret KEY_UNSET\n");
    refuses(&wild, "the secret KEY_UNSET is not set");
}

#[test]
fn an_empty_secret_is_refused() {
    let mut wild = keyed(USEFUL);
    wild.flow.env("KEY_A", " \n");
    refuses(&wild, "the secret KEY_A is empty");
    wild.flow.env("KEY_A", FROM_VARIABLE);
    wild.flow.write("b.key", "\n");
    refuses(&wild, "it is empty");
}

#[test]
fn a_secret_whose_file_is_not_there_is_refused() {
    let wild = keyed(USEFUL);
    std::fs::remove_file(wild.flow.path("b.key")).unwrap();
    refuses(&wild, "b.key: it is not there");
    std::fs::create_dir(wild.flow.path("b.key")).unwrap();
    refuses(&wild, "the secret KEY_B cannot be read from");
}

#[test]
fn a_command_that_gives_no_secret_starts_no_agent() {
    for key in ["", "\u{0}x"] {
        let wild = keyed(&format!("{USEFUL}\nopen('started', 'w')")).step("agent", "attempts 1");
        wild.flow.write("c.key", key);
        let came = wild.runs(3);
        came.because("SECRET_MISSING", "the secret KEY_C");
    }
    let wild = keyed(USEFUL).step("agent", "attempts 1");
    std::fs::remove_file(wild.flow.path("c.key")).unwrap();
    wild.runs(3).because("SECRET_MISSING", "was not given by `cat c.key`");
}

#[test]
fn a_config_that_uses_a_secret_nobody_declares_is_a_flaw() {
    let wild = configured(USEFUL);
    wild.flow.replace("c.yaml", "{secret.KEY_B}", "{secret.KEY_D}");
    let ran = wild.flow.run();
    ran.exits(2).says("the config uses `{secret.KEY_D}`, which is not declared").says("secret KEY_D");
    assert!(!Path::new(&wild.flow.cache()).join("records").exists());
}

#[test]
fn a_credential_that_is_renewed_while_the_agent_works_is_found_too() {
    const NEW: &str = "sent4nel-renewed-Tq82hv5s";
    for file in ["b.key", "c.key"] {
        // In a sandbox it may write to the file only where the step says `write`.
        let wild = keyed("").step("agent", "sandbox off");
        let path = wild.flow.path(file).display().to_string();
        let script = format!("{USEFUL}\nopen({path:?}, 'w').write({NEW:?})\nprint('using', open({path:?}).read())\n");
        let head = std::fs::read_to_string(wild.flow.path("wild.py")).unwrap();
        std::fs::write(wild.flow.path("wild.py"), format!("{head}\n{script}")).unwrap();
        wild.runs(0).is("SUCCESS_IMPROVEMENT");
        assert!(logs(&wild, "agent", "stdout").contains("using [secret KEY_"));
        // What it writes into its work tree is its own: such a tree is not stored.
        std::fs::write(
            wild.flow.path("wild.py"),
            format!("{head}\n{script}\nopen('pkg/leaked.py', 'w').write({NEW:?})\n"),
        )
        .unwrap();
        wild.flow.write(file, "renewed-yesterday-01");
        wild.flow.run().settles();
        assert_eq!(wild.flow.ends("agent", "HOLDS_SECRET").len(), 1);
        let new = NEW.as_bytes();
        for path in below(&wild.flow.cache()).into_iter().filter(|path| path.is_file()) {
            // The script that was given holds the value, being the test's own.
            let bytes = std::fs::read(&path).unwrap();
            let given = bytes.windows(10).any(|part| part == b"canary = o");
            assert!(given || !bytes.windows(new.len()).any(|part| part == new), "{}", path.display());
        }
    }
}

#[test]
fn what_a_reader_would_see_of_a_secret_without_colours_and_escapes_is_in_no_record() {
    for print in [
        r#"sys.stderr.write('error: bad ' + s[:5] + '\x1b[0m' + s[5:] + '\n')"#,
        r#"sys.stderr.write('error: bad ' + s[:5] + '\x00\x08' + s[5:] + '\n')"#,
        r#"print('{"error": "bad \\u00' + format(ord(s[0]), '02x') + s[1:] + '", "model": "\\u00' + format(ord(s[0]), '02x') + s[1:] + '"}')"#,
    ] {
        let wild = keyed(&format!("s = secrets[1]\n{print}\nsys.exit(1)"));
        wild.flow.edit("wild.kdl", |text| {
            let reading = "reading { finished jsonl=stdout { where \"/ok\" #true }; error jsonl=stdout { at \"/error\" }; error text=stderr match=\"(?m)^error: (.*)$\"; model jsonl=stdout { at \"/model\" } }";
            text.replace("version \"1\"", &format!("version \"1\"; {reading}"))
        });
        let came = wild.runs(0);
        came.because("UNKNOWN", "bad [secret KEY_B]");
        nowhere(&wild.flow, &came.ran);
    }
}

#[test]
fn what_is_no_credential_is_refused_before_it_mangles_what_is_kept() {
    let mut wild = keyed(USEFUL);
    for (value, why) in
        [("x", "is only 1 bytes long"), ("EMPTY", "is only 5 bytes long"), ("products", "is a plain word")]
    {
        wild.flow.env("KEY_A", value);
        let ran = wild.flow.run();
        ran.exits(2).says(&format!("the secret KEY_A {why}")).says("written with `set`");
        assert!(wild.records().is_empty(), "something was executed");
    }
}

#[test]
fn a_secret_is_filled_into_nothing_that_is_kept() {
    let mut wild = keyed(USEFUL);
    wild.flow.env("HIDDEN", FROM_VARIABLE);
    for (from, to) in [
        ("file script \"wild.py\"", "file script \"wild.py\"\n        set SHOWN \"{var.KEY_A}\""),
        (
            "file script \"wild.py\"",
            "file script \"wild.py\"\n        secret HIDDEN\n        set SHOWN \"{var.HIDDEN}\"",
        ),
        ("file script \"wild.py\"", "file script \"wild.py\"\n        set SHOWN \"{var.MY_TOKEN}\""),
    ] {
        let before = std::fs::read_to_string(wild.flow.path("m.kdl")).unwrap();
        wild.flow.replace("m.kdl", from, to);
        wild.flow.flow(&["check", "m.kdl"]).exits(2).says("would store a secret");
        wild.flow.write("m.kdl", &before);
    }
    // Where a flaw stands the line is shown, and a key that was written there by mistake is not.
    wild.flow.replace("m.kdl", "secret KEY_A\n", "secret KEY_A \"sk-123456789012345678901234\"\n");
    let ran = wild.flow.flow(&["check", "m.kdl"]);
    ran.exits(2).says("takes no argument here");
    assert!(!ran.stderr.contains("sk-1234"), "{}", ran.stderr);
}

#[test]
fn what_a_command_of_on_complains_of_is_told_without_secrets() {
    let wild = keyed(USEFUL);
    wild.flow.add("on run-finished { command \"sh\" \"-c\" \"echo no $KEY_A >&2; exit 1\" }");
    let came = wild.runs(0);
    came.ran.says("the command of `on`").says("no [secret KEY_A]");
    nowhere(&wild.flow, &came.ran);
}

#[test]
fn what_an_older_version_had_written_out_is_not_told_by_why() {
    let wild = configured(USEFUL);
    // Written out where nothing says that it is a secret.
    wild.flow.write("c.yaml", &format!("model:\n  endpoint: \"https://me:{FROM_FILE}@host\"\n  steps: 3\n"));
    wild.flow.replace(
        "m.kdl",
        "config \"c.yaml\"",
        &format!("config \"c.yaml\"\n        set LOGIN \"{FROM_COMMAND}\""),
    );
    wild.flow.run().settles();
    wild.flow.write("c.yaml", "model:\n  endpoint: \"https://me:{secret.KEY_B}@host\"\n  steps: 3\n");
    wild.flow.replace("m.kdl", &format!("set LOGIN \"{FROM_COMMAND}\""), "set LOGIN \"none\"");
    // That of a command is known once it was asked.
    wild.flow.replace("m.kdl", "secret KEY_C { command \"cat\" \"c.key\" }", "secret KEY_C file=\"c.key\"");
    for arguments in [
        &["why", "{one}", "m.kdl", "--all"][..],
        &["why", "{one}", "m.kdl", "--json"],
        &["plan", "m.kdl", "--all"],
        &["plan", "m.kdl", "--json"],
    ] {
        let said = wild.flow.flow(arguments);
        said.exits(0).says("LOGIN");
        holds_none(&arguments.join(" "), said.stdout.as_bytes());
    }
}
