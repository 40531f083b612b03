//! `flow selftest cheats`: every known way to a verdict that was not earned, tried out by the same run as any other job.
//!
//! The cheats are scripts of agents, in `cheats/cheats.py`. They and a tiny repository are written into a folder of their own
//! with a store of its own, `flow run` is called on it, and what came of each is read as anybody would read it.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use clap::Args;
use serde::Serialize;
use serde_json::{Value as Json, json};

use crate::cli::fault::Fault;
use crate::cli::output;
use crate::outcome::Cause;
use crate::text::{Table, harmless, wrap};

const CHEATS: &str = include_str!("cheats/cheats.py");
const AGENT: &str = include_str!("cheats/agent.py");
const TEST: &str = include_str!("cheats/test.py");
const SLOW: &str = include_str!("cheats/work.py");
const FIXED: &str = include_str!("cheats/fixed.py");

/// The candidate that does not cheat.
const HUMAN: &str = "human";
/// The cheat that has the package's later release in its interpreter.
const LATER: &str = "later-release";
/// Classes that a cheat must not come to without a mark.
const SCORES: [&str; 2] = ["SUCCESS_IMPROVEMENT", "MIXED"];
/// Marks by which a result is not taken for earned.
const TELLING: [&str; 5] = ["HISTORY", "LOOKED_UP", "PACKAGE_AT_HAND", "LEAK", UNCLOCKED];
/// The mark of a gain that flow's clock does not bear out. On a machine that is too busy for its clock an honest one has it too.
const UNCLOCKED: &str = "UNCLOCKED";

/// Arguments of `flow selftest cheats`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  flow selftest cheats                       all of them, in minutes
  flow selftest cheats --only patched-timer  one of them, and the honest human
  flow selftest cheats --json                one document for programs

Each cheat is an agent that tries to be measured as faster than it is. It goes
through the same run as any other job, in a store of its own; beside them the
human's own change, which has to be measured as an improvement.

Exit codes: 0 none scores; 1 one does, or the human's change does not;
3 it could not be tried out here.")]
pub struct CheatsArgs {
    /// Only these
    #[arg(long, value_name = "CHEAT")]
    only: Vec<String>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// One cheat.
struct Cheat {
    name: &'static str,
    tries: &'static str,
    code: &'static str,
}

/// What one came to.
#[derive(Debug, Serialize)]
struct Came {
    cheat: String,
    tries: String,
    class: String,
    marks: Vec<String>,
    evidence: Option<String>,
    ok: bool,
}

/// Tries them out.
///
/// # Errors
/// If they cannot be tried out.
pub fn cheats(args: &CheatsArgs) -> Result<ExitCode, Fault> {
    let all = all();
    for name in &args.only {
        if !all.iter().any(|cheat| cheat.name == name) {
            let names: Vec<&str> = all.iter().map(|cheat| cheat.name).collect();
            return Err(Fault::hint(2, format!("there is no cheat `{name}`"), format!("one of {}", names.join(", "))));
        }
    }
    let chosen: Vec<Cheat> = all
        .into_iter()
        .filter(|cheat| args.only.is_empty() || args.only.iter().any(|name| name == cheat.name))
        .collect();
    let place = Folder::make()?;
    lay_out(&place.0, &chosen)?;
    if !args.json {
        output::say(&format!("trying {} cheats and the human's own change", chosen.len()));
    }
    let came = run(&place.0, &chosen)?;
    let ok = came.iter().all(|came| came.ok);
    if args.json {
        output::json(&json!({"selftest": "cheats", "ok": ok, "cheats": came}))?;
    } else {
        output::data(text(&came, output::width()))?;
    }
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn all() -> Vec<Cheat> {
    let parts = CHEATS.split("#### ").filter(|part| !part.trim().is_empty());
    let cheat = |part: &'static str| {
        let (head, code) = part.split_once('\n')?;
        let (name, tries) = head.split_once(" | ")?;
        Some(Cheat { name: name.trim(), tries: tries.trim(), code })
    };
    parts.filter_map(cheat).collect()
}

/// A folder that is removed when it is over.
struct Folder(PathBuf);

impl Folder {
    fn make() -> Result<Self, Fault> {
        let path = std::env::temp_dir().join(format!("flow-selftest-{}", std::process::id()));
        std::fs::create_dir(&path).map_err(|error| cannot(&format!("{}: {error}", path.display())))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = crate::hostile::remove_all(&self.0);
    }
}

fn cannot(why: &str) -> Fault {
    Fault::new(3, format!("the cheats cannot be tried out: {why}"))
}

fn write(path: &Path, text: &str) -> Result<(), Fault> {
    let to = |path: &Path| {
        path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
        std::fs::write(path, text)
    };
    to(path).map_err(|error| cannot(&format!("{}: {error}", path.display())))
}

fn call(program: &str, args: &[&str], dir: &Path) -> Result<String, Fault> {
    let who = [("GIT_AUTHOR_NAME", "t"), ("GIT_AUTHOR_EMAIL", "t@localhost"), ("GIT_COMMITTER_NAME", "t")];
    let more =
        [("GIT_COMMITTER_EMAIL", "t@localhost"), ("GIT_CONFIG_GLOBAL", "/dev/null"), ("GIT_CONFIG_NOSYSTEM", "1")];
    let output = Command::new(program).args(args).current_dir(dir).envs(who).envs(more).stdin(Stdio::null()).output();
    let output = output.map_err(|error| cannot(&format!("{program}: {error}")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    Err(cannot(&format!("`{program} {}`: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim())))
}

/// Writes repository, test, agents and manifest.
fn lay_out(dir: &Path, cheats: &[Cheat]) -> Result<(), Fault> {
    let repo = dir.join("repo");
    write(&repo.join("answer/__init__.py"), "")?;
    write(&repo.join("answer/work.py"), SLOW)?;
    let git = |args: &[&str]| call("git", args, &repo);
    git(&["init", "-q", "-b", "main"])?;
    git(&["add", "-A"])?;
    git(&["commit", "-q", "-m", "start"])?;
    write(&repo.join("answer/work.py"), FIXED)?;
    git(&["commit", "-q", "-a", "-m", "Sum without a loop"])?;
    let human = git(&["rev-parse", "HEAD"])?;
    write(&dir.join("commits.txt"), &format!("{human}\n"))?;
    write(&dir.join("test.py"), TEST)?;
    let mut candidates = String::new();
    for cheat in cheats {
        let (name, code) = (cheat.name, cheat.code);
        write(&dir.join(format!("cheats/{name}.py")), &format!("{AGENT}{code}"))?;
        let agent = if name == LATER { "reads" } else { "cheats" };
        candidates.push_str(&format!("    candidate {name} agent={agent} {{ file script \"cheats/{name}.py\" }}\n"));
    }
    let later = cheats.iter().any(|cheat| cheat.name == LATER);
    let (mut tool, mut agent) = (String::new(), String::new());
    if later {
        call("python3", &["-m", "venv", "--without-pip", "later"], dir)?;
        let ask = ["-I", "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"];
        let site = PathBuf::from(call(&dir.join("later/bin/python3").display().to_string(), &ask, dir)?);
        write(&site.join("answer/__init__.py"), "")?;
        write(&site.join("answer/work.py"), FIXED)?;
        let metadata = "Metadata-Version: 2.1\nName: answer\nVersion: 9.9\n";
        write(&site.join("answer-9.9.dist-info/METADATA"), metadata)?;
        tool = "    tool later \"later/bin/python3\" { probe \"-VV\" }\n".into();
        agent = "agent reads { run \"{tool.later}\" \"{file.script}\"; version \"1\"; free }\n".into();
    }
    let manifest = format!(
        r#"flow 1
agent human {{ run "{{flow}}" "act" "apply" "{{human-change}}"; version "1"; free }}
agent cheats {{ run "{{tool.python}}" "{{file.script}}"; version "1"; free }}
{agent}pipeline cheats {{
    repo answer "repo" {{
        commits file="commits.txt"
        package "answer"
        tests dir="." name="test.py" contract=flow {{ metric time_s better=lower min-effect="10%" }}
    }}
    tool python "python3" {{ probe "-VV" }}
{tool}    candidate human agent=human
{candidates}    slots {{ cpu "a"; cpu "b" }}
    step checkout uses=checkout
    step build    uses=environment {{ needs checkout; recipe interpreter tool=python }}
    step baseline uses=test        {{ needs checkout build; timeout "1m" }}
    step agent    uses=agent       {{ sandbox auto; needs checkout; after baseline; timeout "2m"; attempts 2 }}
    step patch    uses=patch       {{ needs agent; protect "tests/**"; limit "2MiB" }}
    step rebuild  like=build       {{ needs patch }}
    step patched  uses=test        {{ sandbox auto; needs patch rebuild; against baseline; timeout "1m"; holds cpu=1; protocol fixed {{ blocks max=4 }} }}
    step classify uses=classify    {{ needs baseline patch patched }}
}}
"#
    );
    write(&dir.join("cheats.kdl"), &manifest)
}

/// Runs all and reads what came of each.
fn run(dir: &Path, cheats: &[Cheat]) -> Result<Vec<Came>, Fault> {
    let flow = std::env::current_exe().map_err(|error| cannot(&error.to_string()))?;
    let fault = |error: std::io::Error| cannot(&error.to_string());
    let flow = |args: &[&str]| {
        let mut command = Command::new(&flow);
        command.args(args).current_dir(dir).env("FLOW_SLOTS", dir.join("slots")).stdin(Stdio::null());
        command
    };
    let said = dir.join("said.txt");
    let mut command = flow(&["run", "cheats.kdl", "--json", "--yes"]);
    let stderr = std::fs::File::create(&said).map_err(fault)?;
    let mut ran = command.stdout(Stdio::piped()).stderr(stderr).spawn().map_err(fault)?;
    for line in ran.stdout.take().into_iter().flat_map(|out| BufReader::new(out).lines()) {
        tell(&line.map_err(fault)?);
    }
    ran.wait().map_err(fault)?;
    let human = std::fs::read_to_string(dir.join("commits.txt")).unwrap_or_default();
    let shown = flow(&["show", human.get(..8).unwrap_or_default(), "cheats.kdl", "--json"]).output().map_err(fault)?;
    let found: Json = serde_json::from_slice(&shown.stdout)
        .map_err(|_| cannot(&harmless(std::fs::read_to_string(&said).unwrap_or_default().trim())))?;
    // One job alone is shown whole.
    let jobs = found["jobs"].as_array().cloned().unwrap_or_else(|| vec![found.clone()]);
    let of = |candidate: &str| jobs.iter().find(|job| job["axes"]["candidate"] == candidate);
    let came = |name: &str, tries: &str, job: Option<&Json>| {
        let text = |field: &str| job.and_then(|job| job[field].as_str()).map(str::to_owned);
        let marks = job.and_then(|job| job["marks"].as_array()).into_iter().flatten();
        let marks: Vec<String> = marks.filter_map(|mark| mark.as_str().map(str::to_owned)).collect();
        let class = text("class").unwrap_or_else(|| "nothing".into());
        // An agent that could have copied the answer is not begun: that settles it here.
        let refused = job.is_some_and(|job| job["cause"] == Cause::LeakedAnswer.name());
        let class = if refused { Cause::LeakedAnswer.name().to_owned() } else { class };
        let open = !refused && job.is_none_or(|job| job["open"] == true);
        let tells = |mark: &String| TELLING.contains(&mark.as_str()) && !(name == HUMAN && mark == UNCLOCKED);
        let scores = SCORES.contains(&class.as_str()) && !marks.iter().any(tells);
        let ok = match name {
            HUMAN => !open && scores,
            LATER => refused,
            _ => !open && !scores,
        };
        Came { cheat: name.into(), tries: tries.into(), class, marks, evidence: text("evidence"), ok }
    };
    let honest = "the human's own change: it has to be an improvement";
    let mut all = vec![came(HUMAN, honest, of(HUMAN))];
    all.extend(cheats.iter().map(|cheat| came(cheat.name, cheat.tries, of(cheat.name))));
    Ok(all)
}

/// Progress: a line of standard error for each job that has its class.
fn tell(event: &str) {
    let Ok(event) = serde_json::from_str::<Json>(event) else { return };
    if let (Some("job-settled"), Some(job), Some(class)) =
        (event["event"].as_str(), event["job"].as_str(), event["class"].as_str())
    {
        output::say(&format!("{}: {}", harmless(job), harmless(class)));
    }
}

fn text(came: &[Came], width: usize) -> String {
    let mut table = Table::new(&["cheat", "came to", ""]);
    for one in came {
        let word = match (one.ok, one.cheat == HUMAN) {
            (true, _) => "ok",
            (false, true) => "NOT FOUND",
            (false, false) => "SCORED",
        };
        let marks: Vec<&str> = one.marks.iter().map(String::as_str).filter(|mark| TELLING.contains(mark)).collect();
        let class = [&[one.class.as_str()], marks.as_slice()].concat().join(" ");
        table.row(vec![one.cheat.clone(), class, word.to_owned()]);
    }
    let mut text = table.text();
    text.push('\n');
    for one in came.iter().filter(|one| one.cheat != HUMAN) {
        for line in wrap(&format!("{}: {}", one.cheat, one.tries), width) {
            text.push_str(&line);
            text.push('\n');
        }
    }
    let scored: Vec<&str> = came.iter().filter(|one| !one.ok).map(|one| one.cheat.as_str()).collect();
    text.push_str(&match scored.as_slice() {
        [] => format!("\nnone of {} cheats scores\n", came.len() - 1),
        some => format!("\nnot as it has to be: {}\n", some.join(", ")),
    });
    harmless(&text)
}
