//! What the protocol says of real processes: A/A controls on the machine as it is, and `screen` beside a fixed 26 blocks.
//!
//!     cargo bench --bench protocol              200 A/A controls; 24 changes of known size under both profiles
//!     cargo bench --bench protocol -- 40        another number of controls
//!
//! Each run of a test is a Python process that adds numbers for some 40 ms. Prints how often base against base was called different,
//! what the rules of others make of the same runs, and for each size of change the verdicts, runs and wall clock of the two
//! profiles. Nothing is asserted. It takes half an hour or more: every run of a test holds a slot, of which there is one for each core.
#![allow(clippy::unwrap_used, reason = "a benchmark ends by panicking")]

mod support;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{git, number_or};

/// By how many per cent the commits of the second part are faster; below 0 slower. A control is made of each commit of the first.
const CHANGES: [i32; 6] = [0, 3, 6, 12, 30, -10];
/// How many commits have each of them.
const OF_EACH: usize = 4;
/// Rounds of the loop on the base.
const ROUNDS: i32 = 500_000;

fn main() {
    let controls = number_or(200);
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let ids = write(dir, controls.max(CHANGES.len() * OF_EACH));
    println!("{controls} A/A controls under `screen`, {} slots, load as it is ({})", cores(), load());
    manifest(dir, "aa", &ids[..controls], "screen");
    let began = Instant::now();
    let said = run(dir, &["calibrate", "aa.kdl", "--share", "100%", "--json"]);
    let calibration = said.iter().find(|event| event["event"] == "calibration").unwrap();
    print!("{}{}", told(calibration), lean(&said));
    println!("  {:.0} s; load at the end {}", began.elapsed().as_secs_f64(), load());

    let ids = &ids[..CHANGES.len() * OF_EACH];
    println!("\n{} changes of known size, `screen` beside a fixed 26 blocks", ids.len());
    let [screen, fixed] = ["screen", "fixed { blocks max=26 }"].map(|protocol| {
        let name = protocol.split(' ').next().unwrap();
        manifest(dir, name, ids, protocol);
        run(dir, &["run", &format!("{name}.kdl"), "--until", "baseline", "--json"]);
        let began = Instant::now();
        run(dir, &["run", &format!("{name}.kdl"), "--json"]);
        (results(dir, name, ids), began.elapsed())
    });
    compare(ids, &screen, &fixed);
}

type Results = (BTreeMap<String, Value>, Duration);

/// What was found for each commit.
fn results(dir: &Path, name: &str, ids: &[String]) -> BTreeMap<String, Value> {
    let of = |id: &String| {
        let job = format!("r/{}/human/1", &id[..8]);
        (id.clone(), run(dir, &["show", &job, &format!("{name}.kdl"), "--json"]).remove(0))
    };
    ids.iter().map(of).collect()
}

fn compare(ids: &[String], (screen, screen_took): &Results, (fixed, fixed_took): &Results) {
    println!("  faster by   screen: verdicts, blocks            fixed: verdicts, blocks             the same");
    let (mut same, mut blocks) = (0, [0, 0]);
    for (n, change) in CHANGES.iter().enumerate() {
        let of_change: Vec<&String> = ids.iter().skip(n).step_by(CHANGES.len()).collect();
        let agree = of_change.iter().filter(|id| screen[**id]["class"] == fixed[**id]["class"]).count();
        let mut cells = Vec::new();
        for (at, profile) in [screen, fixed].into_iter().enumerate() {
            let mut verdicts: BTreeMap<String, usize> = BTreeMap::new();
            let mut sum = 0;
            for id in &of_change {
                let class = profile[*id]["class"].as_str().unwrap_or("none").trim_start_matches("SUCCESS_");
                *verdicts.entry(class.to_owned()).or_default() += 1;
                sum += profile[*id]["explained"]["blocks"].as_array().map_or(0, Vec::len);
            }
            blocks[at] += sum;
            let said: Vec<String> = verdicts.iter().map(|(class, count)| format!("{count} {class}")).collect();
            cells.push(format!("{}; {:.1}", said.join(", "), sum as f64 / of_change.len() as f64));
        }
        println!("  {:>6} %    {:<35} {:<35} {agree} of {}", change, cells[0], cells[1], of_change.len());
        same += agree;
    }
    let (screen_s, fixed_s) = (screen_took.as_secs_f64(), fixed_took.as_secs_f64());
    println!(
        "  all: {same} of {} the same; blocks {} against {}; {screen_s:.0} s against {fixed_s:.0} s: {:.2} of the time",
        ids.len(),
        blocks[0],
        blocks[1],
        screen_s / fixed_s
    );
}

/// The control's line and the rules of others.
fn told(event: &Value) -> String {
    let (of, percent) = (&event["calibration"], |share: &Value| format!("{:.1} %", 100.0 * share.as_f64().unwrap()));
    let mut text = format!(
        "  flow: {} of {} called different, {} [{}, {}]; promised at most {}\n",
        of["false_verdicts"],
        of["measured"],
        percent(&of["rate"]),
        percent(&of["wilson"][0]),
        percent(&of["wilson"][1]),
        percent(&of["promised"])
    );
    for rule in event["others"].as_array().unwrap() {
        let share = rule["alarms"].as_f64().unwrap() / rule["pairs"].as_f64().unwrap().max(1.0);
        let said = (rule["rule"].as_str().unwrap(), &rule["alarms"], &rule["pairs"], 100.0 * share);
        let _ = writeln!(text, "  {}: {} of {}, {:.1} %", said.0, said.1, said.2, said.3);
    }
    text
}

/// Whether the second copy of the base leans to one side: the mean of the controls' ratios, and its standard error.
fn lean(said: &[Value]) -> String {
    let ratios =
        said.iter().filter(|event| event["event"] == "job-settled").filter_map(|event| event["speedup"].as_f64());
    let logs: Vec<f64> = ratios.map(f64::ln).collect();
    let n = logs.len().max(2) as f64;
    let mean = logs.iter().sum::<f64>() / n;
    let error = (logs.iter().map(|log| (log - mean).powi(2)).sum::<f64>() / (n - 1.0) / n).sqrt();
    format!(
        "  the second copy is {:+.2} % faster on average, with a standard error of {:.2} %, in {} controls\n",
        100.0 * mean,
        100.0 * error,
        logs.len()
    )
}

/// Runs flow, and gives each line that it printed; for a verdict that is none it ends with another code than 0.
fn run(dir: &Path, args: &[&str]) -> Vec<Value> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flow"));
    let output = command.args(args).current_dir(dir).stdin(Stdio::null()).stderr(Stdio::inherit()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let said: Result<Vec<Value>, _> = serde_json::Deserializer::from_str(&text).into_iter().collect();
    said.unwrap_or_else(|error| panic!("flow {args:?} ended with {:?}: {error}", output.status))
}

/// A slot for each core: what runs on the others is part of the noise.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, Into::into)
}

fn load() -> String {
    std::fs::read_to_string("/proc/loadavg").map_or_else(|_| "unknown".into(), |text| text.trim().to_owned())
}

/// Commits in pairs: the first has the whole loop, the second a shorter or longer one. Gives the second ones.
fn write(dir: &Path, pairs: usize) -> Vec<String> {
    let repo = dir.join("repo");
    std::fs::create_dir(&repo).unwrap();
    git(&repo, &["init", "-q", "-b", "main"], None);
    let mut stream = String::new();
    for n in 0..2 * pairs {
        let faster = if n % 2 == 0 { 0 } else { CHANGES[n / 2 % CHANGES.len()] };
        let rounds = f64::from(ROUNDS) / (1.0 + f64::from(faster) / 100.0);
        let work =
            format!("# {n}\ndef work():\n    total = 0\n    for n in range({rounds:.0}):\n        total += n & 7\n");
        let (message, time) = (format!("commit {n}"), 1_600_000_000 + n);
        let _ = writeln!(stream, "commit refs/heads/main\nmark :{}\ncommitter a <a@localhost> {time} +0000", n + 1);
        let _ = writeln!(stream, "data {}\n{message}", message.len());
        if n > 0 {
            let _ = writeln!(stream, "from :{n}");
        }
        let _ = writeln!(stream, "M 100644 inline work.py\ndata {}\n{work}", work.len());
    }
    git(&repo, &["fast-import", "--quiet", "--force"], Some(&stream));
    let listed = git(&repo, &["rev-list", "--reverse", "main"], None);
    let ids: Vec<String> = listed.lines().skip(1).step_by(2).map(str::to_owned).collect();
    let test = "import json, os, sys, time\nsys.path.insert(0, os.getcwd())\nimport work\nwork.work()\nbegan = time.perf_counter()\n\
                work.work()\ntook = time.perf_counter() - began\nout = json.dumps({'metrics': {'time_s': took}})\n\
                open(os.environ['FLOW_RESULT'], 'w').write(out + '\\n')\n";
    std::fs::create_dir(dir.join("tests")).unwrap();
    for id in &ids {
        std::fs::write(dir.join(format!("tests/{}.py", &id[..8])), test).unwrap();
    }
    ids
}

fn manifest(dir: &Path, name: &str, ids: &[String], protocol: &str) {
    std::fs::write(dir.join(format!("{name}.txt")), ids.iter().fold(String::new(), |text, id| text + id + "\n"))
        .unwrap();
    let slots: String = (0..cores()).map(|core| format!("cpu \"{core}\" cores=\"{core}\"; ")).collect();
    let text = format!(
        "flow 1\nagent human {{ run \"{{flow}}\" \"act\" \"apply\" \"{{human-change}}\"; version \"1\"; free }}\npipeline {name} {{\n    repo r \"repo\" {{\n        commits file=\"{name}.txt\"\n        \
         tests dir=\"tests\" name=\"{{commit.id8}}.py\" contract=flow {{ metric time_s better=lower min-effect=\"2%\" }}\n    }}\n    \
         tool python \"python3\" {{ probe \"-VV\" }}\n    candidate human agent=human\n    slots {{ {slots} }}\n    \
         step checkout uses=checkout\n    step build uses=environment {{ needs checkout; recipe interpreter }}\n    \
         step baseline uses=test {{ needs checkout build }}\n    step agent uses=agent {{ needs checkout; after baseline }}\n    \
         step patch uses=patch {{ needs agent }}\n    step rebuild like=build {{ needs patch }}\n    \
         step patched uses=test {{ needs patch rebuild; against baseline; protocol {protocol}; holds cpu=1; timeout \"5m\"; \
         run \"{{interpreter}}\" \"-I\" \"-S\" \"{{script}}\" }}\n    \
         step classify uses=classify {{ needs baseline patch patched }}\n}}\n"
    );
    std::fs::write(dir.join(format!("{name}.kdl")), text).unwrap();
}
