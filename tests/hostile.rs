//! The promise about hostile agents and patches: whatever they do, the run ends in bounded time and space, the class is the
//! right one, other jobs are not touched, nothing stays alive, and no place is left behind.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;
#[path = "support/wild.rs"]
mod wild;

use std::path::Path;

use wild::{Came, USEFUL, Wild, below};

fn git(args: &str) -> String {
    format!("subprocess.run('git {args}', shell=True, check=True, capture_output=True)\n")
}

#[test]
fn an_agent_that_commits_its_work_is_measured_like_any_other() {
    let wild = Wild::new(&format!("{USEFUL}{}{}", git("add -A"), git("commit -qm done")));
    wild.runs(0).is("SUCCESS_IMPROVEMENT").changes(&["+        OPS[0] += 5"]);
}

#[test]
fn a_detached_head_a_rewritten_history_and_pruned_objects_change_nothing() {
    let script = [
        USEFUL.to_owned(),
        git("checkout -q --detach"),
        git("commit -qam one"),
        git("commit -q --amend --allow-empty -m two"),
        git("update-ref -d refs/heads/main"),
        git("reflog expire --expire=now --all"),
        git("gc -q --prune=now"),
        git("checkout -q --orphan fresh"),
    ];
    wild_is(&script.concat(), "SUCCESS_IMPROVEMENT");
}

#[track_caller]
fn wild_is(script: &str, class: &str) -> Came {
    let came = Wild::new(script).runs(0);
    came.is(class);
    came
}

#[test]
fn an_agent_may_delete_its_repository() {
    wild_is(&format!("{USEFUL}\nimport shutil; shutil.rmtree('.git')"), "SUCCESS_IMPROVEMENT");
}

#[test]
fn an_agent_may_put_another_thing_in_its_repositorys_place() {
    wild_is(
        &format!("{USEFUL}\nimport shutil; shutil.rmtree('.git'); os.symlink('/etc', '.git')"),
        "SUCCESS_IMPROVEMENT",
    );
}

#[test]
fn a_daemon_that_goes_on_writing_dies_before_the_tree_is_taken() {
    let daemon = "
ready = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for name in list(os.environ): del os.environ[name]
        sys.stdout.close()
        n = 0
        while True:
            with open('pkg/daemon.py', 'w') as f: f.write(f'# {n}\\n' * 1000)
            n += 1
            if n == 1: os.write(ready[1], b'x')
    os._exit(0)
os.read(ready[0], 1)
";
    let came = wild_is(&format!("{USEFUL}{daemon}"), "SUCCESS_IMPROVEMENT");
    assert!(came.notes.contains("left behind were killed"), "{}", came.notes);
    // Whole, or not there: the file is not read while it is written.
    came.changes(&["pkg/daemon.py"]);
}

#[test]
fn two_hundred_children_die_with_their_agent() {
    let script = "
for n in range(200):
    if os.fork() == 0:
        if n % 2: os.setsid()
        while True: time.sleep(1000)
";
    let came = wild_is(&format!("{USEFUL}{script}"), "SUCCESS_IMPROVEMENT");
    assert!(came.notes.contains("200 processes"), "{}", came.notes);
}

#[test]
fn a_flood_of_output_is_cut_and_the_agent_goes_on() {
    let script = "
block = b'x' * (1 << 20)
for _ in range(1024): os.write(1, block)
";
    let came = wild_is(&format!("{script}{USEFUL}"), "SUCCESS_IMPROVEMENT");
    assert!(came.notes.contains("was cut"), "{}", came.notes);
}

/// A wild agent whose words are read by a table, and of whose output little is kept.
fn talkative(script: &str) -> Wild {
    let wild = Wild::new(script).step("agent", "limit \"64KiB\"");
    let reading = "
    trajectory \"t.jsonl\"
    reading {
        finished jsonl=stdout exit=0 { where \"/type\" \"result\" }
        error text=stderr
        signature CONTEXT_LENGTH \"window is full\"
        usage jsonl=stdout cached=beside { where \"/type\" \"result\"; at \"/usage\"; input \"/in\"; output \"/out\" }
        usage jsonl=trajectory cached=beside { input \"/in\"; output \"/out\" }
    }";
    let agent = format!(
        "flow 1\nagent wild {{\n    run \"python3\" \"{{file.script}}\" \"{{out}}\"\n    version \"1\"{reading}\n}}\n"
    );
    std::fs::write(wild.flow.path("wild.kdl"), agent).unwrap();
    wild
}

fn usage_of(wild: &Wild) -> serde_json::Value {
    let ends = wild.records().into_iter().filter(|line| line["line"] == "ended" && line["step"] == "agent");
    ends.filter(|line| line["axes"]["candidate"] == "wild").map(|line| line["usage"].clone()).next_back().unwrap()
}

#[test]
fn the_last_words_behind_a_flood_tell_why_it_ended() {
    let flood = "for n in range(40000): print('line', n, file=sys.stderr)\n";
    let wild = Wild::new(&format!("{flood}sys.exit('the disk is full')")).step("agent", "limit \"64KiB\"");
    wild.runs(0).is("AGENT_ERROR").because("CRASHED", "the disk is full");

    let wild = talkative(&format!("{flood}sys.exit('the window is full')"));
    let came = wild.runs(0);
    came.is("AGENT_ERROR").because("CONTEXT_LENGTH", "the window is full");
    assert!(came.notes.contains("longer than 64.0 KiB and was cut: its two ends are kept"), "{}", came.notes);
}

#[test]
fn a_result_behind_a_flood_is_read_and_what_it_used_says_that_a_part_was_left_out() {
    let flood = "for n in range(40000): print('line', n)\n";
    let result = "print('{\"type\": \"result\", \"usage\": {\"in\": 700, \"out\": 5}}')\n";
    let wild = talkative(&format!("{USEFUL}{flood}{result}"));
    wild.runs(0).is("SUCCESS_IMPROVEMENT");
    let usage = usage_of(&wild);
    assert_eq!((usage["input"].as_u64(), usage["output"].as_u64()), (Some(700), Some(5)));
    assert!(usage["unknown_because"].as_str().unwrap().contains("its output was cut"), "{usage}");

    // The result itself is in the part that was left out: nobody can tell, and that is no failure without a reason.
    let wild = talkative(&format!("{USEFUL}{flood}{result}{flood}"));
    let came = wild.runs(0);
    came.because("OVER_LIMIT", "what is kept of it does not tell how it ended");
    let usage = usage_of(&wild);
    assert!(usage["input"].is_null(), "{usage}");
    assert!(usage["unknown_because"].as_str().unwrap().contains("a part was left out"), "{usage}");
}

#[test]
fn a_trajectory_too_long_to_be_kept_makes_its_figures_unknown_and_says_so() {
    let long = "
with open(sys.argv[1] + '/t.jsonl', 'w') as f:
    f.write('{\"in\": 1, \"out\": 1}\\n')
    f.truncate((64 << 20) + 1)
print('{\"type\": \"result\"}')
";
    let wild = talkative(&format!("{USEFUL}{long}"));
    let came = wild.runs(0);
    came.is("SUCCESS_IMPROVEMENT");
    assert!(came.notes.contains("the trajectory was not kept: longer than"), "{}", came.notes);
    let usage = usage_of(&wild);
    assert!(usage["input"].is_null(), "{usage}");
    assert_eq!(usage["unknown_because"], "its trajectory, which tells, was too long to be kept");
}

#[test]
fn links_out_of_the_tree_are_taken_as_links() {
    let script = "
import shutil
os.symlink('/etc', 'etc'); os.symlink('/etc/passwd', 'pkg/passwd'); os.symlink('../../../../../../etc/shadow', 'up')
shutil.move('tests', 'moved'); os.symlink('moved', 'tests'); os.remove('tests'); shutil.move('moved', 'tests')
os.mkdir('real'); shutil.rmtree('real'); os.symlink('/etc', 'real')
";
    let came = wild_is(&format!("{USEFUL}{script}"), "PATCH_INVALID");
    came.changes(&["120000", "+/etc/passwd", "+../../../../../../etc/shadow"]);
    assert!(!came.patch.contains("root:"), "the target's content was taken:\n{}", came.patch);
}

#[test]
fn a_link_in_a_folders_place_takes_the_folder_away() {
    let script = "
import shutil
shutil.copytree('pkg', os.environ['TMPDIR'] + '/copy')
shutil.rmtree('pkg'); os.symlink('/etc', 'pkg')
shutil.rmtree(os.environ['TMPDIR'] + '/copy')
";
    let came = wild_is(script, "PATCH_INVALID");
    came.changes(&["deleted file mode", "120000"]);
    assert!(!came.patch.contains("root:"));
}

#[test]
fn nothing_that_is_put_into_the_repositorys_config_is_ever_executed() {
    let script = "
run = f'#!/bin/sh\\ntouch {canary}\\n'
for name in ['pre-commit', 'post-checkout', 'post-index-change', 'reference-transaction', 'fsmonitor-watchman', 'pre-auto-gc']:
    for folder in ['.git/hooks', 'hooks']:
        os.makedirs(folder, exist_ok=True)
        with open(f'{folder}/{name}', 'w') as f: f.write(run)
        os.chmod(f'{folder}/{name}', 0o755)
with open('.git/config', 'a') as f: f.write(f'''
[core]
    hooksPath = hooks
    fsmonitor = touch {canary}; false
    sshCommand = touch {canary}
    pager = touch {canary}
    editor = touch {canary}
    worktree = /etc
[filter \"x\"]
    clean = touch {canary}; cat
    smudge = touch {canary}; cat
    process = touch {canary}
    required = true
[diff \"x\"]
    textconv = touch {canary}; cat
    command = touch {canary}
[merge \"x\"]
    driver = touch {canary}
[include]
    path = ../evil.config
[alias]
    status = !touch {canary}
''')
with open('evil.config', 'w') as f: f.write(f'[core]\\nfsmonitor = touch {canary}\\n')
with open('.gitattributes', 'w') as f: f.write('* filter=x diff=x merge=x\\n')
with open('.git/objects/info/alternates', 'w') as f: f.write('/etc\\n')
";
    wild_is(&format!("{script}{USEFUL}"), "SUCCESS_IMPROVEMENT").changes(&[
        "evil.config",
        ".gitattributes",
        "hooks/pre-commit",
    ]);
}

#[test]
fn what_an_agent_adds_to_gitignore_hides_nothing() {
    let script = "
with open('.gitignore', 'w') as f: f.write('*\\n!.gitignore\\n')
with open('.git/info/exclude', 'a') as f: f.write('*\\n')
with open('pkg/hidden.py', 'w') as f: f.write('HIDDEN = 1\\n')
";
    wild_is(&format!("{USEFUL}{script}"), "SUCCESS_IMPROVEMENT").changes(&[
        "pkg/hidden.py",
        "+HIDDEN = 1",
        ".gitignore",
    ]);
}

#[test]
fn a_work_tree_that_is_gone_is_no_patch() {
    // In a sandbox it cannot even be tried.
    let wild = Wild::new("import shutil; shutil.rmtree(os.getcwd())").step("agent", "sandbox off");
    let came = wild.runs(0);
    came.is("PATCH_INVALID").because("BAD_TREE", "is not there any more");
}

#[test]
fn an_empty_work_tree_is_a_patch_that_deletes_everything() {
    let script = "
import shutil
for name in ['pkg']: shutil.rmtree(name)
";
    wild_is(script, "PATCHED_IMPORT_ERROR").changes(&["deleted file mode"]);
}

#[test]
fn another_folder_in_the_work_trees_place_is_not_followed() {
    let script = "
cwd = os.getcwd()
os.chdir('/')
os.rename(cwd, cwd + '-moved'); os.symlink('/etc', cwd)
";
    let came = Wild::new(script).step("agent", "sandbox off").runs(0);
    came.is("PATCH_INVALID").because("BAD_TREE", "");
}

/// Root may read everything: run as somebody else where we are root.
#[test]
fn closed_files_and_folders_are_taken_and_removed() {
    let script = "
os.makedirs('closed/deep/er')
for n in range(3):
    with open(f'closed/deep/er/{n}', 'w') as f: f.write('closed\\n')
    os.chmod(f'closed/deep/er/{n}', 0)
for name in ['closed/deep/er', 'closed/deep', 'closed']: os.chmod(name, 0)
os.chmod('pkg/work.py', 0o200)
os.chmod('pkg', 0o500)
os.mkdir('../home/x')
os.chmod('../home', 0)
os.chmod('.', 0)
";
    let wild = Wild::new(&format!("{USEFUL}{script}"));
    let came = if nix::unistd::geteuid().is_root() {
        let nobody = 65534;
        for path in [vec![wild.flow.path(".."), wild.flow.path("")], below(&wild.flow.path(""))].concat() {
            std::os::unix::fs::lchown(path, Some(nobody), Some(nobody)).unwrap();
        }
        let mut command = wild.flow.command(&["run", "m.kdl", "--json"]);
        std::os::unix::process::CommandExt::uid(&mut command, nobody);
        std::os::unix::process::CommandExt::gid(&mut command, nobody);
        wild.ends(0, || wild.flow.ran(command.output().unwrap()))
    } else {
        wild.runs(0)
    };
    came.is("SUCCESS_IMPROVEMENT").changes(&["closed/deep/er/1", "+closed", "OPS[0] += 5"]);
}

#[test]
fn fifos_sockets_and_devices_are_left_out_and_named() {
    let script = "
os.mkfifo('fifo')
os.mkfifo('pkg/__init__.pyc')
s = socket.socket(socket.AF_UNIX); s.bind('socket')
try: os.mknod('device', 0o600 | stat.S_IFCHR, os.makedev(1, 5))
except PermissionError: pass
os.remove('tests/test_work.py') if False else None
";
    let came = wild_is(&format!("{USEFUL}{script}"), "SUCCESS_IMPROVEMENT");
    for odd in ["`fifo`: it is a fifo", "`socket`: it is a socket"] {
        assert!(came.notes.contains(odd), "{odd} is not in {}", came.notes);
    }
}

#[test]
fn a_hundred_thousand_files_are_too_many() {
    let script = "
for folder in range(100):
    os.mkdir(f'many{folder}')
    for n in range(1000): open(f'many{folder}/{n}', 'w').close()
";
    wild_is(script, "PATCH_INVALID").because("OVER_LIMIT", "changed files");
}

#[test]
fn a_sparse_gigabyte_is_too_large_and_not_read() {
    wild_is("open('huge', 'w').truncate(1 << 30)", "PATCH_INVALID").because("OVER_LIMIT", "huge");
}

#[test]
fn a_tree_deeper_than_any_path_is_refused_and_removed() {
    let script = "
for _ in range(20000):
    os.mkdir('d'); os.chdir('d')
";
    wild_is(script, "PATCH_INVALID").because("OVER_LIMIT", "directories within each other");
}

#[test]
fn names_of_all_kinds_are_carried_over_byte_by_byte() {
    let script = r"
for name in [b'new\nline', b'\xff\xfe', b'..x', b'...', b'-rf', b'a b\t', b'\x1b[31mred', 'ü€'.encode(), b'%2e%2e', b'x' * 255]:
    with open(b'pkg/' + name, 'w') as f: f.write('odd\n')
";
    let came = wild_is(&format!("{USEFUL}{script}"), "SUCCESS_IMPROVEMENT");
    came.changes(&["\\n", "\\377\\376", "..x"]);
    assert!(!came.ran.stderr.contains('\x1b'), "a name reached the terminal raw");
}

#[test]
fn a_second_repository_in_disguise_is_left_out_and_named() {
    let script = "
for name in ['.GIT', 'pkg/.git', 'git~1', '.git ']:
    os.makedirs(name + '/hooks')
    with open(name + '/config', 'w') as f: f.write('[core]\\n')
";
    let came = wild_is(&format!("{USEFUL}{script}"), "SUCCESS_IMPROVEMENT");
    assert!(came.notes.contains(".GIT") && came.notes.contains("left out"), "{}", came.notes);
    assert!(!came.patch.contains("[core]"));
}

#[test]
fn forged_ends_and_files_beside_the_work_tree_do_not_count() {
    let script = r#"
import json
end = {"attempt": os.environ['FLOW_ATTEMPT'], "exit": {"code": 0}, "wall_ms": 1, "started_at": "2020-01-01T00:00:00Z",
       "ended_at": "2020-01-01T00:00:00Z", "stdout_bytes": 0, "stderr_bytes": 0, "stdout_kept": 0, "stderr_kept": 0,
       "truncated": False, "killed_descendants": 0, "max_rss_kib": 0, "cpu_ms": 0}
for name in ['../agent.end.json', '../end.json', '../../end.json']:
    with open(name, 'w') as f: json.dump(end, f)
with open('../files/human-change', 'w') as f: f.write('forged')
with open('../out/x', 'w') as f: f.write('forged')
os.remove('../../end.json')
print('as it was', flush=True)
sys.exit(7)
"#;
    // In a sandbox none of them can be written.
    let came = Wild::new(script).step("agent", "sandbox off").runs(0);
    came.is("AGENT_ERROR").because("CRASHED", "as it was");
}

#[test]
fn captured_output_that_was_replaced_is_not_followed() {
    let script = "
os.remove('../agent.out'); os.symlink('/etc/passwd', '../agent.out')
os.remove('../agent.err'); os.mkfifo('../agent.err')
";
    let wild = Wild::new(&format!("{USEFUL}{script}")).step("agent", "sandbox off");
    wild.runs(0).is("SUCCESS_IMPROVEMENT");
    for path in below(&wild.flow.cache()).iter().filter(|path| path.is_file()) {
        let bytes = std::fs::read(path).unwrap();
        assert!(!bytes.windows(12).any(|part| part == b"root:x:0:0:r"), "{} holds /etc/passwd", path.display());
    }
}

/// Who kills its supervisor has not ended: that is no success, whatever it wrote before.
#[test]
fn an_agent_that_kills_its_supervisor_has_not_finished() {
    let script = r#"
import json, signal
end = {"attempt": os.environ['FLOW_ATTEMPT'], "exit": {"code": 0}, "wall_ms": 1, "started_at": "2020-01-01T00:00:00Z",
       "ended_at": "2020-01-01T00:00:00Z", "stdout_bytes": 0, "stderr_bytes": 0, "stdout_kept": 0, "stderr_kept": 0,
       "truncated": False, "killed_descendants": 0, "max_rss_kib": 0, "cpu_ms": 0}
with open('../agent.end.json', 'w') as f: json.dump(end, f)
parent = os.getppid()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        while True: time.sleep(1000)
    os._exit(0)
os.kill(parent, signal.SIGKILL)
while True: time.sleep(1000)
"#;
    let wild = Wild::new(&format!("{USEFUL}{script}")).step("agent", "attempts 2; sandbox off");
    let came = wild.runs(3);
    came.because("HARNESS_FAULT", "was killed by signal 9");
    assert!(!came.class.starts_with("SUCCESS"), "{}", came.class);
    assert_eq!(came.ran.finished()["open"], 1);
    let ended =
        wild.records().into_iter().filter(|line| line["line"] == "ended" && line["axes"]["candidate"] == "wild");
    assert_eq!(ended.filter(|line| line["kind"] == "agent").count(), 2, "not tried as often as allowed");
}

#[test]
fn an_agent_that_removes_its_place_leaves_the_run_standing() {
    let script = "
import shutil
place = os.path.dirname(os.getcwd())
os.chdir('/')
shutil.rmtree(place)
";
    let came = Wild::new(script).step("agent", "attempts 1; sandbox off").runs(3);
    assert!(!came.class.starts_with("SUCCESS"), "{}", came.class);
    assert!(!came.cause.is_empty() && !came.evidence.is_empty());
}

/// A candidate `tidy` whose patch is the given text.
fn patch_of(text: &str) -> Came {
    let wild = Wild::new("");
    wild.flow.edit("m.kdl", |manifest| {
        let at = manifest.find("    candidate wild").unwrap();
        format!("{}    candidate wild agent=scripted {{ file patch \"x.patch\" }}\n}}\n", &manifest[..at])
    });
    wild.flow.write("x.patch", text);
    let outside = wild.flow.path("cache/tmp/places/outside");
    let came = wild.runs(0);
    assert!(!outside.exists());
    came
}

fn adds(path: &str) -> String {
    format!(
        "diff --git a/{path} b/{path}\nnew file mode 100644\n--- /dev/null\n+++ b/{path}\n@@ -0,0 +1 @@\n+hostile\n"
    )
}

#[test]
fn a_patch_that_leads_out_of_the_tree_is_refused() {
    for path in ["../outside", "pkg/../../../outside", "../../outside", "/tmp/flow-outside", "./../outside"] {
        patch_of(&adds(path)).is("AGENT_ERROR").because("CRASHED", "outside");
        assert!(!Path::new("/tmp/flow-outside").exists());
    }
}

#[test]
fn a_patch_into_the_repository_is_refused() {
    for path in [".git/hooks/pre-commit", ".GIT/config", "pkg/.git/x", "git~1/config"] {
        patch_of(&adds(path)).is("AGENT_ERROR").because("CRASHED", "");
    }
}

#[test]
fn a_patch_through_a_link_of_its_own_is_refused() {
    let link = "diff --git a/out b/out\nnew file mode 120000\n--- /dev/null\n+++ b/out\n@@ -0,0 +1 @@\n+/tmp\n\\ No newline at end of file\n";
    patch_of(&format!("{link}{}", adds("out/flow-outside"))).is("AGENT_ERROR");
    assert!(!Path::new("/tmp/flow-outside").exists());
}

#[test]
fn a_patch_that_is_none_is_an_error_of_the_agent() {
    for text in
        ["\0\0\0binary", "diff --git a/x b/x\n", "--- a/pkg/work.py\n+++ b/pkg/work.py\n@@ -999,1 +999,1 @@\n-x\n+y\n"]
    {
        patch_of(text).is("AGENT_ERROR").because("CRASHED", "files/patch: ");
    }
}

#[test]
fn a_pipe_where_a_file_should_be_keeps_nobody_waiting() {
    let flow = support::Flow::sample();
    let script = flow.path(&flow.fill("tests/{one}.py"));
    std::fs::remove_file(&script).unwrap();
    nix::unistd::mkfifo(&script, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for verb in ["plan", "doctor", "run"] {
        let said = flow.flow(&[verb, "m.kdl"]);
        assert!(
            format!("{}{}", said.stdout, said.stderr).contains("regular file"),
            "{verb}: {}{}",
            said.stdout,
            said.stderr
        );
    }
}

#[test]
fn a_file_with_holes_is_copied_with_its_holes() {
    use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
    let folder = tempfile::tempdir().unwrap();
    let [from, to] = ["from", "to"].map(|name| folder.path().join(name));
    let file = std::fs::File::create(&from).unwrap();
    file.set_len(64 << 20).unwrap();
    file.write_all_at(b"in the middle", 20 << 20).unwrap();
    file.set_permissions(std::fs::Permissions::from_mode(0o555)).unwrap();
    flow::hostile::copy_file(&from, &to).unwrap();
    assert!(std::fs::read(&from).unwrap() == std::fs::read(&to).unwrap(), "the copy differs");
    let meta = std::fs::metadata(&to).unwrap();
    assert_eq!(meta.permissions().mode() & 0o777, 0o555);
    assert!(meta.blocks() * 512 < 1 << 20, "{} bytes of the disk", meta.blocks() * 512);
    assert!(flow::hostile::copy_file(&from, &to).is_err(), "nothing that is there is written over");
}
