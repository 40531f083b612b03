//! The promise of lanes: nothing is paid or counted for a login that ran out, what waits goes on by itself or in the next run,
//! retries keep their distance, and an agent that fails always alike is not begun again and again.
//!
//! The agent is a program that asks a "provider", a folder with one file a token: how many calls it still takes, and what is
//! said to the others.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use std::collections::BTreeMap;
use std::process::Child;

use serde_json::Value;
use support::{Flow, Ran, outcome_of, until};

const AGENT: &str = r#"import fcntl, os, sys, time
place, tokens = sys.argv[1], [os.environ[name] for name in sys.argv[2:]]
token = tokens[0] if tokens else "none"
def log(line):
    with open(place + "/log", "a") as f:
        f.write(line + "\n")
log("start " + token + " " + " ".join(sorted(name for name in os.environ if name.startswith("TOKEN"))))
with open(place + "/lock", "a") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    left = int(open(place + "/" + token).read()) if os.path.exists(place + "/" + token) else 0
    if left > 0:
        with open(place + "/" + token, "w") as f:
            f.write(str(left - 1))
print("usage: input=100 output=10", flush=True)
if left <= 0:
    print("error: " + open(place + "/says").read(), file=sys.stderr)
    sys.exit(1)
while os.path.exists(place + "/hold"):
    time.sleep(0.01)
text = open("pkg/work.py").read()
if not os.path.exists(place + "/idle"):
    with open("pkg/work.py", "w") as f:
        f.write(text.replace("OPS[0] += 10", "OPS[0] += 5"))
print("done")
"#;

const EXPIRED: &str = "The security token included in the request is expired";

/// Twelve jobs of one candidate, `acme`: two commits, six samples.
struct Office {
    flow: Flow,
}

impl Office {
    /// With these nodes in `provider acme { … }`, of which its secret `TOKEN` is one, and these in the candidate.
    fn new(provider: &str, candidate: &str) -> Self {
        let flow = Flow::sample();
        let office = Self { flow };
        office.flow.write("agent.py", AGENT);
        std::fs::create_dir_all(office.place()).unwrap();
        office.says(EXPIRED);
        office.token("pass-0001");
        office.flow.write(
            "acme.kdl",
            &format!(
                r#"flow 1
agent acme {{
    run "python3" "{agent}" "{place}" "TOKEN"
    reading {{
        finished text=stdout match="(?m)^done$"
        error text=stderr match="(?m)^error: (.*)$"
        usage text=stdout match="usage: input=(?P<input>\\d+) output=(?P<output>\\d+)"
    }}
}}
provider acme {{ secret TOKEN file="token"; {provider} }}
"#,
                agent = office.flow.path("agent.py").display(),
                place = office.place(),
            ),
        );
        office.flow.edit("m.kdl", |text| {
            let text = text.replace("\"agents.kdl\"", "\"agents.kdl\" \"acme.kdl\"");
            let (head, _) = text.split_once("    candidate human").unwrap();
            format!(
                "{head}    candidate acme agent=acme {{ model \"m1\" provider=acme; samples 6; {candidate} }}\n}}\n"
            )
        });
        office
    }

    fn place(&self) -> String {
        self.flow.signs().display().to_string()
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.flow.signs().join(name)
    }

    /// What the provider says to a token that is good for nothing.
    fn says(&self, text: &str) {
        std::fs::write(self.file("says"), text).unwrap();
    }

    /// The token that the secret's file holds.
    fn token(&self, token: &str) {
        self.flow.write("token", &format!("{token}\n"));
    }

    /// How many calls the provider takes for a token.
    fn good_for(&self, token: &str, calls: usize) {
        std::fs::write(self.file(token), calls.to_string()).unwrap();
    }

    /// The agents that were started, by token.
    fn started(&self) -> BTreeMap<String, usize> {
        let mut started = BTreeMap::new();
        for line in std::fs::read_to_string(self.file("log")).unwrap_or_default().lines() {
            *started.entry(line.split(' ').nth(1).unwrap().to_owned()).or_default() += 1;
        }
        started
    }

    /// How often the agent's attempts ended in what, over all runs.
    fn ends(&self) -> BTreeMap<String, usize> {
        let mut ends = BTreeMap::new();
        for line in self.flow.lines().iter().filter(|line| line["line"] == "ended" && line["step"] == "agent") {
            *ends.entry(outcome_of(line)).or_default() += 1;
        }
        ends
    }

    fn stop(&self, mut child: Child, signal: &str) -> Option<i32> {
        let pid = child.id().to_string();
        std::process::Command::new("kill").args([signal, &pid]).status().unwrap();
        child.wait().unwrap().code()
    }

    /// The journal holds such an event.
    fn told(&self, event: &str) -> bool {
        self.flow.journal().iter().any(|told| told["event"] == event)
    }
}

/// The events of one kind.
fn events(ran: &Ran, kind: &str) -> Vec<Value> {
    ran.events().into_iter().filter(|event| event["event"] == kind).collect()
}

/// How many agents were begun after the first event that is so.
fn begun_after(events: &[Value], is: impl Fn(&Value) -> bool) -> usize {
    let after = events.iter().skip_while(|event| !is(event));
    after.filter(|event| event["event"] == "action-started" && event["step"] == "agent").count()
}

fn counts(pairs: &[(&str, usize)]) -> BTreeMap<String, usize> {
    pairs.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

#[test]
fn a_login_that_runs_out_harms_nobody_and_three_such_nights_exhaust_nobody() {
    let office = Office::new("lane 1", "");
    office.good_for("pass-0001", 4);
    let first = office.flow.run();
    first.exits(3);
    assert_eq!(office.ends(), counts(&[("succeeded", 4), ("CREDENTIALS_EXPIRED", 1)]));
    assert_eq!(first.classes().len(), 4, "exactly four jobs are settled");
    let closed = |event: &Value| event["event"] == "lane-closed";
    let told = first.events();
    let lane = told.iter().find(|event| closed(event)).unwrap();
    assert_eq!((&lane["lane"], &lane["cause"]), (&"acme".into(), &"CREDENTIALS_EXPIRED".into()));
    assert!(lane["evidence"].as_str().unwrap().contains(EXPIRED), "{lane}");
    assert_eq!(begun_after(&told, closed), 0);
    let left = &first.finished()["lanes"][0];
    assert_eq!((&left["lane"], &left["waiting"]), (&"acme".into(), &8.into()));
    assert_eq!(first.finished()["open"], 8);

    for _ in 0..2 {
        let night = office.flow.flow(&["run", "m.kdl"]);
        night.exits(3).says("8 agents wait for lane acme: CREDENTIALS_EXPIRED").says("log in to the provider again");
        night.says("; 1 attempt settled nothing");
        assert_eq!(night.stderr.matches("  flow run m.kdl\n").count(), 1, "the command once:\n{}", night.stderr);
    }
    office.flow.flow(&["status"]).says("lane acme is closed since");
    assert_eq!(office.ends(), counts(&[("succeeded", 4), ("CREDENTIALS_EXPIRED", 3)]));

    office.token("pass-0002");
    office.good_for("pass-0002", 100);
    let last = office.flow.run();
    last.settles();
    assert_eq!(office.started()["pass-0002"], 8, "the other eight, none of them twice");
    assert_eq!(office.ends(), counts(&[("succeeded", 12), ("CREDENTIALS_EXPIRED", 3)]));
    office.flow.run().settles().executes_nothing();
}

#[test]
fn a_login_renewed_while_the_run_waits_lets_it_go_on_by_itself_one_job_first() {
    let office = Office::new(
        r#"lane 4; probe "python3" "-c" "import os,sys; p = os.environ['OFFICE'] + '/' + os.environ['TOKEN']; sys.exit(not (os.path.exists(p) and int(open(p).read()) > 0))"; set OFFICE "{var.OFFICE}""#,
        "",
    );
    let mut office = office;
    let place = office.place();
    office.flow.env("OFFICE", &place);
    office.good_for("pass-0001", 4);
    let run = office.flow.command(&["run", "m.kdl", "--json", "--wait"]);
    let run = { run }.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    until("the lane closed and nothing is left to do", || {
        let waits = |event: &Value| event["text"].as_str().is_some_and(|text| text.starts_with("waits for acme"));
        office.flow.journal().iter().any(waits)
    });
    office.token("pass-0002");
    office.good_for("pass-0002", 100);
    let ran = office.flow.ran(run.wait_with_output().unwrap());
    ran.settles();
    assert_eq!(office.ends()["succeeded"], 12);
    assert!(!office.ends().contains_key("LANE_CLOSED") || office.ends()["LANE_CLOSED"] < 4, "{:?}", office.ends());
    let told = ran.events();
    let opened = |trial: bool| move |event: &Value| event["event"] == "lane-opened" && event["trial"] == trial;
    let first = told.iter().position(opened(true)).unwrap();
    let all = told.iter().position(opened(false)).unwrap();
    assert_eq!(begun_after(&told[first..all], |_| true), 1, "one tries for all");
    let closed = told.iter().position(|event| event["event"] == "lane-closed").unwrap();
    assert_eq!(begun_after(&told[closed..first], |_| true), 0);
}

#[test]
fn agents_under_way_on_a_closed_lane_are_stopped_and_uncharged_and_what_they_used_is_known() {
    let office = Office::new("lane 2", "");
    office.good_for("pass-0001", 1);
    std::fs::write(office.file("hold"), "").unwrap();
    let ran = office.flow.run();
    ran.exits(3);
    assert_eq!(office.ends(), counts(&[("LANE_CLOSED", 1), ("CREDENTIALS_EXPIRED", 1)]));
    let stopped = &office.flow.ends("agent", "LANE_CLOSED")[0];
    assert_eq!((&stopped["usage"]["input"], &stopped["usage"]["output"]), (&100.into(), &10.into()), "{stopped}");
    assert_eq!(events(&ran, "lane-closed")[0]["stopped"], 1);
    std::fs::remove_file(office.file("hold")).unwrap();
    office.good_for("pass-0001", 100);
    office.flow.run().settles();
    assert_eq!(office.ends()["succeeded"], 12);
}

#[test]
fn the_lanes_of_others_go_on_and_no_agent_gets_anothers_secret() {
    let office = Office::new("", "");
    office.flow.write("other", "pass-0009");
    office.good_for("pass-0009", 100);
    office.flow.edit("acme.kdl", |text| {
        let other = text.split_once("agent acme").unwrap().1.split_once("provider acme").unwrap().0;
        format!(
            "{text}agent other{}provider other {{ secret TOKEN2 file=\"other\" }}\n",
            other.replace("\"TOKEN\"", "\"TOKEN2\"")
        )
    });
    office.flow.add("candidate other agent=other { model \"m2\" provider=other }");
    let ran = office.flow.run();
    ran.exits(3);
    assert_eq!(ran.classes().len(), 2, "both jobs of the other: {:?}", ran.classes());
    let log = std::fs::read_to_string(office.file("log")).unwrap();
    for line in log.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!(words[2..], [if words[1] == "pass-0009" { "TOKEN2" } else { "TOKEN" }], "{line}");
    }
    // A provider's name, its secrets and its lane are in no key.
    office.flow.write("other", "pass-0008");
    office.good_for("pass-0008", 100);
    office.flow.replace("acme.kdl", "provider other {", "provider renamed { lane 3; expires \"echo\" \"36000\";");
    office.flow.replace("m.kdl", "provider=other", "provider=renamed");
    let again = office.flow.run();
    let ends = again.executed();
    assert!(ends.iter().all(|title| !title.contains("/other/")), "{ends:?}");
}

#[test]
fn retries_keep_the_distance_that_is_asked_for_and_never_exceed_their_cap_over_three_runs() {
    let office = Office::new("lane 4", "canary 0");
    office.flow.replace("steps.kdl", "attempts 3", "attempts 2");
    office.says("Error code: 429 - Rate limit reached for m1. Please retry after 1s");
    for _ in 0..3 {
        office.flow.run().exits(3);
    }
    assert_eq!(office.ends(), counts(&[("RATE_LIMITED", 24)]));
    let mut times: BTreeMap<String, Vec<jiff::Timestamp>> = BTreeMap::new();
    let mut begun: BTreeMap<String, Vec<jiff::Timestamp>> = BTreeMap::new();
    for line in office.flow.lines().iter().filter(|line| line["step"] == "agent") {
        let list = if line["line"] == "ended" { &mut times } else { &mut begun };
        list.entry(line["key"].to_string()).or_default().push(line["at"].as_str().unwrap().parse().unwrap());
    }
    assert_eq!(times.len(), 12);
    for (key, mut ended) in times {
        let mut began = begun.remove(&key).unwrap();
        ended.sort();
        began.sort();
        assert_eq!((began.len(), ended.len()), (2, 2), "the cap counts over all runs");
        assert!(began[1].duration_since(ended[0]).as_millis() >= 1000, "{began:?} {ended:?}");
    }
    let failed = office.flow.journal().into_iter().filter(|event| event["event"] == "attempt-failed");
    let waits: Vec<u64> = failed.filter_map(|event| event["retry_in_ms"].as_u64()).collect();
    assert!(waits.len() == 12 && waits.iter().all(|ms| (1000..1200).contains(ms)), "{waits:?}");
    assert!(office.told("lane-narrowed"));
}

#[test]
fn an_agent_that_fails_always_alike_is_paused_at_the_canary_until_somebody_says_to_go_on() {
    let office = Office::new("lane 4", "");
    office.says("Error code: 400 - No tool output found for function call call_1");
    let first = office.flow.run();
    first.exits(3);
    assert_eq!(office.ends(), counts(&[("TOOL_OUTPUT_MISSING", 5)]));
    let breaker = &events(&first, "breaker")[0];
    assert_eq!((&breaker["count"], &breaker["of"], &breaker["canary"]), (&5.into(), &5.into(), &true.into()));
    assert_eq!(first.finished()["paused"][0]["waiting"], 7);
    let second = office.flow.flow(&["run", "m.kdl"]);
    second.exits(3).says("candidate acme is paused").says("7 jobs not begun: read");
    second.says("this takes up the rest:\n  flow run m.kdl\nor, without mending what paused a candidate:\n");
    second.says("  flow run m.kdl --continue\n");
    assert_eq!(office.ends(), counts(&[("TOOL_OUTPUT_MISSING", 5)]), "it is paused in the next run too");
    let third = office.flow.run_with(&["--continue"]);
    third.settles();
    assert_eq!(office.ends(), counts(&[("TOOL_OUTPUT_MISSING", 12)]));
    assert_eq!(events(&third, "breaker")[0]["overridden"], true, "on record");
}

#[test]
fn a_pause_for_what_settles_nothing_is_remembered_by_the_next_run_which_lets_one_agent_try() {
    let office = Office::new("lane 2", "canary 2");
    office.flow.replace("steps.kdl", "attempts 3", "attempts 6");
    office.says("Error code: 503 overloaded_error, retry after 0.1s");
    office.flow.run().exits(3);
    let first = office.ends()["OVERLOADED"];
    assert!(first >= 8 && office.told("breaker"), "{first}");
    for more in 1..3 {
        let ran = office.flow.run();
        ran.exits(3).says("one agent tries before the others begin");
        assert_eq!(office.ends()["OVERLOADED"], first + more, "one that tried");
        assert_eq!(events(&ran, "breaker").len(), 1);
    }
    // The provider has recovered: the one that tries lets the others begin.
    office.good_for("pass-0001", 100);
    let last = office.flow.run();
    let begun: Vec<Value> = events(&last, "action-started").into_iter().filter(|e| e["step"] == "agent").collect();
    assert!(begun.len() >= 11 && last.events().iter().all(|event| event["event"] != "breaker"), "{}", last.stderr);
}

#[test]
fn agents_that_change_nothing_are_paused_too_and_one_that_does_lets_the_others_go() {
    let office = Office::new("lane 4", "");
    office.good_for("pass-0001", 100);
    std::fs::write(office.file("idle"), "").unwrap();
    let ran = office.flow.run();
    ran.exits(3);
    assert_eq!(events(&ran, "breaker")[0]["cause"], "NO_PATCH");
    assert_eq!(office.started()["pass-0001"], 5);
    std::fs::remove_file(office.file("idle")).unwrap();
    // Another config is another agent: its canaries are its own.
    office.flow.replace("m.kdl", "\"m1\"", "\"m2\"");
    office.flow.run().settles();
    assert_eq!(office.started()["pass-0001"], 17);
}

#[test]
fn an_agent_that_cannot_work_at_all_is_not_begun_again() {
    let office = Office::new("lane 1", "");
    office.says("ModuleNotFoundError: No module named 'mcp'");
    let ran = office.flow.run();
    ran.exits(3);
    assert_eq!(office.started(), counts(&[("pass-0001", 1)]));
    assert_eq!(ran.finished()["paused"][0]["cause"], "MISSING_MODULE");
    // It was mended, and nothing was counted.
    office.good_for("pass-0001", 100);
    office.flow.run().settles();
}

#[test]
fn a_provider_that_refuses_its_probe_or_its_secret_gets_no_agent() {
    let office = Office::new("lane 4; probe \"sh\" \"-c\" \"echo no session for $TOKEN >&2; exit 1\"", "");
    office.good_for("pass-0001", 100);
    let ran = office.flow.run();
    ran.exits(3);
    let closed = &events(&ran, "lane-closed")[0];
    assert!(closed["evidence"].as_str().unwrap().contains("no session for"), "{closed}");
    assert!(!closed["evidence"].as_str().unwrap().contains("pass-0001"), "the secret is taken out: {closed}");
    assert_eq!(office.started(), counts(&[]));
    office.flow.replace(
        "acme.kdl",
        "secret TOKEN file=\"token\"; lane 4; probe \"sh\" \"-c\" \"echo no session for $TOKEN >&2; exit 1\"",
        "secret TOKEN { command \"sh\" \"-c\" \"echo the SSO session has expired >&2; exit 255\" }",
    );
    let ran = office.flow.run();
    ran.exits(3).says("the SSO session has expired");
    assert_eq!(office.started(), counts(&[]));
    assert!(
        office.ends().keys().all(|cause| ["CREDENTIALS_EXPIRED", "LANE_CLOSED"].contains(&cause.as_str())),
        "{:?}",
        office.ends()
    );
}

#[test]
fn a_candidates_own_secret_that_is_not_to_be_had_counts_nothing_and_keeps_only_that_candidate() {
    let own = "secret OWN { command \"sh\" \"-c\" \"cat own || exit 4\" }";
    for provider in ["", " provider=acme"] {
        let office = Office::new("lane 4", own);
        office.good_for("pass-0001", 100);
        if provider.is_empty() {
            office.flow.replace("m.kdl", "model \"m1\" provider=acme", "model \"m1\"");
            office.flow.replace("m.kdl", own, &format!("{own}; secret TOKEN file=\"token\""));
        }
        let ran = office.flow.run();
        ran.exits(3).says("OWN was not given by").says("mend what the secret is taken from");
        let closed = events(&ran, "lane-closed");
        let paused = events(&ran, "breaker");
        match provider {
            "" => assert_eq!((closed[0]["lane"].as_str(), paused.len()), (Some("candidate acme"), 0)),
            _ => assert_eq!((closed.len(), paused[0]["cause"].as_str()), (0, Some("SECRET_MISSING"))),
        }
        assert_eq!(office.started(), counts(&[]));
        assert!(office.ends().contains_key("SECRET_MISSING"));
        let uncounted = |cause: &String| ["SECRET_MISSING", "LANE_CLOSED"].contains(&cause.as_str());
        assert!(office.ends().keys().all(uncounted), "{:?}", office.ends());
        // It was mended, and nothing was counted.
        office.flow.write("own", "x-own-secret\n");
        office.flow.run().settles();
    }
}

#[test]
fn what_cannot_be_done_before_the_credential_expires_is_not_begun() {
    let office = Office::new("lane 4; expires file=\"until.json\" pointer=\"/Expiration\"", "");
    office.good_for("pass-0001", 100);
    let until = |hours: i64| jiff::Timestamp::now() + jiff::SignedDuration::from_hours(hours);
    let renew = |hours| office.flow.write("until.json", &format!("{{\"Expiration\":\"{}\"}}", until(hours)));
    office.flow.replace("steps.kdl", "after baseline; timeout \"1m\"", "after baseline; timeout \"3h\"");
    renew(2);
    let ran = office.flow.run();
    ran.exits(3);
    assert_eq!(events(&ran, "lane-expires")[0]["expected_ms"], 3 * 3_600_000);
    assert_eq!(office.started(), counts(&[]));
    assert_eq!(ran.finished()["lanes"][0]["waiting"], 12);
    renew(4);
    office.flow.run_with(&["--commit", "{one}"]).settles();
    assert_eq!(office.started()["pass-0001"], 6);
    // What is known of earlier ones counts more than the limit.
    renew(2);
    office.flow.run().settles();
    assert_eq!(office.started()["pass-0001"], 12);
}

#[test]
fn somebody_is_told_and_whatever_comes_of_it_the_run_goes_on() {
    let office = Office::new("lane 1", "");
    office.good_for("pass-0001", 4);
    let told = office.file("told");
    office.flow.write("tell.sh", &format!("#!/bin/sh\ncat >> {0}\necho >> {0}\n", told.display()));
    std::fs::set_permissions(office.flow.path("tell.sh"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    office.flow.add("on lane-closed run-finished { command \"./tell.sh\" }");
    office.flow.add("on lane-closed { command \"false\" }");
    office.flow.run().exits(3).says("the command of `on`, `false`");
    let text = std::fs::read_to_string(told).unwrap();
    let read = |line| serde_json::from_str(line).unwrap_or_else(|why| panic!("{why}: {text:?}"));
    let told: Vec<Value> = text.lines().map(read).collect();
    let kinds: Vec<&str> = told.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["lane-closed", "run-finished"]);
    assert_eq!((&told[0]["lane"], &told[0]["pipeline"]), (&"acme".into(), &"sample".into()));
    assert_eq!(told[1]["lanes"][0]["lane"], "acme");
}

#[test]
fn a_run_that_waits_to_retry_ends_at_once_when_it_is_asked_to_and_survives_a_kill() {
    let office = Office::new("lane 2", "canary 0");
    office.says("429 Too Many Requests: Retry-After: 600");
    for (signal, waits) in [("-INT", 12), ("-KILL", 24)] {
        let run = office.flow.start();
        until("all wait to be tried again", || {
            let told = office.flow.journal().into_iter();
            told.filter(|event| event["retry_in_ms"].as_u64().is_some()).count() == waits
        });
        let code = office.stop(run, signal);
        assert_eq!(code, (signal == "-INT").then_some(130));
        assert_eq!(office.ends(), counts(&[("RATE_LIMITED", 12)]), "the second run waits as the first one did");
    }
    office.good_for("pass-0001", 100);
    // A person need not wait.
    office.flow.run_with(&["--retry", "*"]).settles();
    assert_eq!(office.ends()["succeeded"], 12);
}

#[test]
fn a_job_that_was_not_begun_says_whose_doing_that_is_and_what_to_do() {
    let office = Office::new("lane 1", "");
    office.good_for("pass-0001", 4);
    let shown = |job: &str| office.flow.flow(&["show", job, "m.kdl", "--json"]).json();
    let ran = office.flow.flow(&["run", "m.kdl"]);
    ran.exits(3).says("waits for lane acme:").says("NOT_RUN                8  provider  log in to the provider again");
    let jobs: Vec<String> = (1..=6)
        .flat_map(|sample| ["{one}", "{two}"].map(|commit| office.flow.fill(&format!("pkg/{commit}/acme/{sample}"))))
        .collect();
    let all: Vec<Value> = jobs.iter().map(|job| shown(job)).collect();
    let left: Vec<&Value> = all.iter().filter(|job| job["class"] == "NOT_RUN").collect();
    assert_eq!(left.len(), 8);
    for job in &left {
        assert_eq!((&job["owner"], &job["cause"]), (&"provider".into(), &"CREDENTIALS_EXPIRED".into()), "{job:#}");
        assert!(job["next_action"].as_str().unwrap().contains("log in"), "{job:#}");
    }
    let tried = left.iter().filter(|job| job["tokens_unknown_because"] == "no attempt of its agent settled it");
    assert_eq!(tried.count(), 1, "one of them had an attempt");
    // Once somebody runs it, nothing of that is left.
    office.good_for("pass-0001", 100);
    office.flow.run().settles();
    assert!(jobs.iter().all(|job| shown(job)["owner"] != "provider"));
}

#[test]
fn a_candidate_that_is_paused_is_said_of_each_of_its_jobs() {
    let office = Office::new("lane 4", "canary 2");
    office.good_for("pass-0001", 100);
    std::fs::write(office.file("idle"), "").unwrap();
    office.flow.flow(&["run", "m.kdl"]).exits(3).says("acme is paused: NO_PATCH");
    office.flow.flow(&["plan", "m.kdl"]).settles().says("acme was paused by the last run, NO_PATCH").says("--continue");
    let left = (1..=6)
        .flat_map(|sample| ["{one}", "{two}"].map(|commit| office.flow.fill(&format!("pkg/{commit}/acme/{sample}"))))
        .map(|job| office.flow.flow(&["show", &job, "m.kdl", "--json"]).json())
        .filter(|job| job["class"] == "NOT_RUN");
    let mut count = 0;
    for job in left {
        count += 1;
        assert_eq!(job["owner"], "agent", "{job:#}");
        assert!(job["next_action"].as_str().unwrap().contains("--continue"), "{job:#}");
    }
    assert!(count >= 8, "{count}");
}

#[test]
fn a_run_that_somebody_stops_says_nothing_of_a_login() {
    let office = Office::new("lane 1", "");
    office.good_for("pass-0001", 100);
    std::fs::write(office.file("hold"), "").unwrap();
    let run = office.flow.start();
    until("an agent is at work", || office.started().values().sum::<usize>() > 0);
    std::process::Command::new("kill").args(["-INT", &run.id().to_string()]).status().unwrap();
    std::fs::remove_file(office.file("hold")).unwrap();
    let said = run.wait_with_output().unwrap();
    assert_eq!(said.status.code(), Some(130));
    let finished = office.flow.journal().into_iter().find(|event| event["event"] == "run-finished").unwrap();
    assert!(finished["lanes"].as_array().is_none_or(Vec::is_empty), "{finished:#}");
    office.flow.run().settles();
}
