//! A candidate that does what a script says, beside one that behaves; and what must hold whatever it does.

#![allow(dead_code, unreachable_pub, reason = "each test file uses what it needs of this builder")]

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Flow, Ran};

/// What every hostile run must keep to, in a debug build on a busy machine.
const LONGEST: Duration = Duration::from_secs(100);
/// The most that its store may hold.
const LARGEST: u64 = 64 << 20;

/// A pipeline with one commit and two candidates: `human`, and `wild`, which is a Python script run in the work tree as the
/// supervisor's own child.
pub struct Wild {
    pub flow: Flow,
}

/// What it came to.
pub struct Came {
    pub ran: Ran,
    pub class: String,
    pub cause: String,
    pub evidence: String,
    /// Its patch.
    pub patch: String,
    /// What was noted of the agent.
    pub notes: String,
}

/// Makes the code do less work.
pub const USEFUL: &str = "
import pathlib
work = pathlib.Path('pkg/work.py')
work.write_text(work.read_text().replace('OPS[0] += 10', 'OPS[0] += 5', 1))
";

impl Wild {
    pub fn new(script: &str) -> Self {
        let flow = Flow::sample();
        flow.write("commits.txt", "{one:40}\n");
        let head = "import os, subprocess, sys, time, socket, stat\ncanary = os.environ['CANARY']\n";
        std::fs::write(flow.path("wild.py"), format!("{head}{script}")).unwrap();
        flow.write("wild.kdl", "flow 1\nagent wild { run \"python3\" \"{file.script}\"; version \"1\" }\n");
        flow.replace("m.kdl", "import \"agents.kdl\"", "import \"wild.kdl\" \"agents.kdl\"");
        let canary = flow.path("canary").display().to_string();
        flow.edit("m.kdl", |text| {
            let at = text.find("    candidate tidy").unwrap();
            let wild = format!("    candidate wild agent=wild {{\n        file script \"wild.py\"\n        set CANARY \"{canary}\"\n    }}\n}}\n");
            format!("{}{wild}", &text[..at])
        });
        Self { flow }
    }

    pub fn step(self, name: &str, children: &str) -> Self {
        self.flow.edit("m.kdl", |text| {
            let at = text.rfind('}').unwrap();
            format!("{}    step {name} {{ {children} }}\n}}\n", &text[..at])
        });
        self
    }

    /// Runs, and checks what holds for every hostile run.
    #[track_caller]
    pub fn runs(&self, exit: i32) -> Came {
        self.ends(exit, || self.flow.run())
    }

    #[track_caller]
    pub fn ends(&self, exit: i32, run: impl FnOnce() -> Ran) -> Came {
        let began = Instant::now();
        let ran = run();
        let took = began.elapsed();
        assert!(took < LONGEST, "it took {took:?}");
        ran.exits(exit);
        assert_eq!(ran.class("{one}/human/1"), "SUCCESS_IMPROVEMENT", "the other job was touched");
        self.left_nothing();
        let ended = self.records().into_iter().rev();
        let of = |step: &str| {
            let wild = |line: &&Value| line["axes"]["candidate"] == "wild" && line["step"] == step;
            ended.clone().filter(|line| line["line"] == "ended").find(|line| wild(&line))
        };
        let failure = [of("agent"), of("patch"), of("patched")]
            .into_iter()
            .flatten()
            .find_map(|line| line["outcome"].get("failed").cloned())
            .unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let patch = of("patch").and_then(|line| self.blob(line["logs"]["patch"].as_str()?));
        Came {
            class: ran.classes().get(&self.flow.fill("{one}/wild/1")).cloned().unwrap_or_default(),
            cause: text(&failure["cause"]),
            evidence: text(&failure["evidence"]),
            patch: String::from_utf8_lossy(&patch.unwrap_or_default()).into_owned(),
            notes: of("agent").map(|line| line["notes"].to_string()).unwrap_or_default(),
            ran,
        }
    }

    /// The lines of all records.
    pub fn records(&self) -> Vec<Value> {
        let mut lines = Vec::new();
        for file in std::fs::read_dir(self.flow.cache().join("records/v1")).unwrap() {
            let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
            lines.extend(text.lines().filter_map(|line| {
                let value: Value = serde_json::from_str(line).ok()?;
                Some(value.get("data").cloned().unwrap_or(value))
            }));
        }
        lines
    }

    pub fn blob(&self, digest: &str) -> Option<Vec<u8>> {
        let hex = digest.rsplit(':').next()?;
        std::fs::read(self.flow.cache().join("cas/v1").join(&hex[..2]).join(&hex[2..])).ok()
    }

    #[track_caller]
    pub fn left_nothing(&self) {
        let project = self.flow.path("");
        let alive = processes_of(&project);
        assert!(alive.is_empty(), "alive: {alive:?}");
        // A blob that a killed flow was writing is swept a day later: its writer may be on another host.
        let is_place = |path: &PathBuf| !path.ends_with("places") && !path.to_string_lossy().contains("/tmp/blob-");
        let left: Vec<PathBuf> = below(&self.flow.cache().join("tmp")).into_iter().filter(is_place).collect();
        assert!(left.is_empty(), "left in the store's tmp: {left:?}");
        let size: u64 =
            below(&self.flow.cache()).iter().filter_map(|path| Some(path.symlink_metadata().ok()?.len())).sum();
        assert!(size < LARGEST, "the store holds {size} bytes");
        assert!(!self.flow.path("canary").exists(), "something that the agent left was executed by flow");
    }
}

impl Came {
    #[track_caller]
    pub fn is(&self, class: &str) -> &Self {
        let Self { cause, evidence, notes, .. } = self;
        assert_eq!(self.class, class, "{cause}: {evidence}; {notes}\n{}", self.ran.stderr);
        self
    }

    #[track_caller]
    pub fn because(&self, cause: &str, evidence: &str) -> &Self {
        assert_eq!(self.cause, cause, "{}", self.evidence);
        assert!(self.evidence.contains(evidence), "`{evidence}` is not in `{}`", self.evidence);
        self
    }

    #[track_caller]
    pub fn changes(&self, lines: &[&str]) -> &Self {
        for line in lines {
            assert!(self.patch.contains(line), "`{line}` is not in the patch:\n{}", self.patch);
        }
        self
    }
}

/// The processes whose environment names a folder.
pub fn processes_of(folder: &Path) -> Vec<String> {
    let named = folder.as_os_str().as_bytes().to_vec();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(environment) = std::fs::read(entry.path().join("environ")) else { continue };
        if environment.windows(named.len()).any(|part| part == named) {
            let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            found.push(String::from_utf8_lossy(&command).replace('\0', " "));
        }
    }
    found
}

/// Everything below a folder.
pub fn below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(entry.path());
            }
            found.push(entry.path());
        }
    }
    found
}
