//! The promise of benchmarks of servers, and of tools that print: each process has a fresh server, its numbers are read by named
//! patterns, what fails is somebody's, and nothing is left running.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::net::TcpListener;

use support::{Flow, Ran, processes};

/// A small HTTP server: `/health` at once, `/work` after its delay.
const SERVE: &str = r#"import http.server, os, subprocess, sys, time

DELAY = 0.050
COUNT = [0]


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/work":
            COUNT[0] += 1
            work()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *args):
        pass


def work():
    time.sleep(DELAY)


def begin():
    pass


if __name__ == "__main__":
    begin()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
    print("listening on", sys.argv[1], flush=True)
    server.serve_forever()
"#;

/// Asks a few times, and prints for people: the least, which other tests beside it disturb least.
const CLIENT: &str = r#"import os, sys, time, urllib.request

port = sys.argv[1]
assert os.environ["FLOW_SERVICE_PORT"] == port
times = []
for _ in range(6):
    began = time.perf_counter()
    urllib.request.urlopen(f"http://127.0.0.1:{port}/work", timeout=10).read()
    times.append(time.perf_counter() - began)
print("Requests:            ", len(times))
print(f"Least latency (ms):   {1000 * min(times):.3f}   ")
"#;

const SERVICE: &str =
    r#"service web { run "{interpreter}" "pkg/serve.py" "{service.port}"; ready url="/health"; timeout "20s" }"#;
const METRICS: &str = r##"metric latency_ms pattern=#"^Least latency \(ms\): +([0-9.]+)"# better=lower"##;

/// A package with that server, one commit that makes it faster, and the candidate `tidy`, whose patch does what `change` does.
fn served(service: &str, change: impl FnOnce(&str) -> String) -> Flow {
    served_by(SERVE, service, change)
}

fn served_by(base: &str, service: &str, change: impl FnOnce(&str) -> String) -> Flow {
    let mut flow = Flow::sample();
    flow.env("COLUMNS", "400");
    flow.commit("server", &[("pkg/serve.py", base)]);
    flow.commit("faster", &[("pkg/serve.py", &base.replace("0.050", "0.020"))]);
    flow.write("commits.txt", "{faster:40}\n");
    flow.write("tests/client.py", CLIENT);
    flow.replace(
        "m.kdl",
        r#"name="{commit.id8}.py" contract=flow { metric ops better=lower kind=count min-effect="2%" }"#,
        r#"name="client.py""#,
    );
    flow.replace("m.kdl", "    candidate human agent=human\n", "");
    flow.patch("tidy", "faster", "pkg/serve.py", change);
    flow.add(r#"slots { cpu "a" }"#);
    flow.add(&format!(
        r#"step patched {{ holds cpu=1; guard off; protocol fixed {{ blocks max=4 }}; run "{{interpreter}}" "{{script}}" "{{service.port}}"; {METRICS}; {service} }}"#
    ));
    flow
}

fn show(flow: &Flow) -> serde_json::Value {
    flow.flow(&["show", "pkg/{faster}/tidy/1", "--json"]).json()
}

#[track_caller]
fn comes_to(flow: &Flow, class: &str, evidence: &str) -> Ran {
    let run = flow.run();
    let classes: Vec<String> = run.classes().into_values().collect();
    assert_eq!(classes, [class], "{}\n{}", run.stdout, run.stderr);
    let job = show(flow);
    assert!(job["evidence"].as_str().unwrap_or_default().contains(evidence), "{job}");
    nothing_is_left(flow);
    run
}

#[track_caller]
fn nothing_is_left(flow: &Flow) {
    let cache = flow.cache();
    support::until("every process of the run is gone", || processes::marked(&cache).is_empty());
}

#[test]
fn a_gain_of_a_fifth_in_a_servers_latency_is_found_and_not_measured_twice() {
    let flow = served(SERVICE, |text| text.replace("0.050", "0.040"));
    flow.replace("m.kdl", "blocks max=4", "blocks max=6");
    comes_to(&flow, "SUCCESS_IMPROVEMENT", " 6 blocks").settles();
    let job = show(&flow);
    let marks = support::marks(&job).to_string();
    assert!(marks.contains("FORGEABLE") && marks.contains("UNCHECKED"), "{marks}");
    let job = "pkg/{faster}/tidy/1";
    let log = flow.flow(&["log", job, "patched", "--stream", "patched service"]);
    assert!(log.settles().stdout.contains("listening on "), "{}", log.stdout);
    flow.run().settles().executes_nothing();
    // A limit is in no key; the pattern and the service are.
    flow.replace("m.kdl", "timeout \"20s\"", "timeout \"21s\"");
    flow.run().settles().executes_nothing();
    flow.replace("m.kdl", "^Least latency", "Least latency");
    let changed = flow.flow(&["plan", "m.kdl"]);
    changed.settles().says("metrics");
    flow.replace("m.kdl", "ready url=\"/health\"", "ready port");
    flow.flow(&["why", job, "m.kdl"]).exits(0).says("services");
}

#[test]
fn a_server_that_is_never_ready_on_the_base_is_no_agents_fault() {
    let base = SERVE.replace("    begin()\n", "    print('still loading', flush=True)\n    time.sleep(1000)\n");
    let service = SERVICE.replace("20s", "1s");
    let flow = served_by(&base, &service, |text| text.replace("0.050", "0.040"));
    let run =
        comes_to(&flow, "SERVER_STARTUP", "was not ready (url=/health) within 1.0 s; its last line: still loading");
    assert!(!run.executed().iter().any(|action| action.contains("agent")), "{:?}", run.executed());
    let job = "pkg/{faster}/tidy/1";
    let log = flow.flow(&["log", job, "baseline", "--stream", "base service"]);
    assert_eq!(log.settles().stdout, "still loading\n");
    // It may be ready within a longer limit.
    flow.run().executes_nothing();
    flow.replace("m.kdl", "timeout \"1s\"", "timeout \"1100ms\"");
    assert_eq!(flow.run().executed()[0], "{faster} baseline".replace("{faster}", &flow.id("faster")[..8]));
}

#[test]
fn a_patched_server_that_ends_before_it_is_ready_or_while_it_is_asked_is_the_patchs_fault() {
    let flow = served(&SERVICE.replace("ready url=\"/health\"", "ready line=\"^listening on [0-9]+\""), |text| {
        text.replace("def begin():\n    pass", "def begin():\n    raise ImportError('no module fast')")
    });
    comes_to(&flow, "PATCHED_SERVER_STARTUP", "service `web` ended before it was ready (exit status: 1)");
    assert!(show(&flow)["evidence"].as_str().unwrap().contains("ImportError: no module fast"));

    let flow = served(&SERVICE.replace("ready url=\"/health\"", "ready port"), |text| {
        let dies =
            "    if COUNT[0] > 2:\n        print('giving up', flush=True)\n        os._exit(3)\n    time.sleep(DELAY)";
        text.replace("    time.sleep(DELAY)", dies)
    });
    comes_to(
        &flow,
        "PATCHED_EXCEPTION",
        "service `web` ended while the test ran (exit status: 3); its last line: giving up",
    );
}

#[test]
fn a_server_that_comes_up_at_the_second_try_is_nobodys_fault() {
    let signs = tempfile::tempdir().unwrap();
    let sign = signs.path().join("started").display().to_string();
    let flow = served(SERVICE, |text| {
        let fails = format!(
            "def begin():\n    if not os.path.exists({sign:?}):\n        open({sign:?}, 'w').close()\n        raise OSError('no driver')"
        );
        text.replace("def begin():\n    pass", &fails).replace("0.050", "0.030")
    });
    flow.replace("m.kdl", "step patched { holds cpu=1;", "step patched { sandbox off; holds cpu=1;");
    assert_eq!(flow.run().settles().classes().into_values().collect::<Vec<_>>(), ["SUCCESS_IMPROVEMENT"]);
    flow.flow(&["show", "pkg/{faster}/tidy/1"]).says("came up at the second try").says("no driver");
}

#[test]
fn of_a_port_that_was_taken_in_between_another_one_is_tried() {
    let begin = r#"def begin():
    tried = os.path.join(os.environ["TMPDIR"], "tried")
    if not os.path.exists(tried):
        open(tried, "w").write(sys.argv[1])
        sys.exit("OSError: [Errno 98] Address already in use")
    assert open(tried).read() != sys.argv[1]"#;
    let base = SERVE.replace("def begin():\n    pass", begin);
    let flow = served_by(&base, SERVICE, |text| text.replace("0.050", "0.030"));
    comes_to(&flow, "SUCCESS_IMPROVEMENT", " 4 blocks").settles();
}

#[test]
fn a_port_that_somebody_else_holds_is_the_environments_fault() {
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = held.local_addr().unwrap().port();
    let service = SERVICE.replace("ready url", &format!("port {port}; ready url"));
    let flow = served(&format!("sandbox off; {service}"), |text| text.replace("0.050", "0.030"));
    flow.replace("steps.kdl", "step baseline uses=test        { ", "step baseline uses=test        { attempts 1; ");
    let run = flow.run();
    assert!(!run.executed().iter().any(|action| action.contains("agent")), "{:?}", run.executed());
    assert_eq!(flow.ends("baseline", "PORT_TAKEN").len(), 1, "{}\n{}", run.stdout, run.stderr);
    nothing_is_left(&flow);
    drop(held);
    flow.replace("steps.kdl", "attempts 1", "attempts 2");
    comes_to(&flow, "SUCCESS_IMPROVEMENT", " 4 blocks").settles();
}

#[test]
fn a_port_that_the_patched_server_itself_keeps_is_nobody_elses() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let begin = r#"def begin():
    import socket
    held = os.path.join(os.environ["TMPDIR"], "held")
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            one = socket.socket()
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind(("127.0.0.1", int(sys.argv[1])))
            one.listen()
            open(held, "w").close()
            time.sleep(1000)
        os._exit(0)
    while not os.path.exists(held):
        time.sleep(0.01)
    sys.exit("OSError: [Errno 98] Address already in use")"#;
    let service = SERVICE.replace("ready url", &format!("port {port}; ready url"));
    let flow = served(&service, |text| text.replace("def begin():\n    pass", begin));
    comes_to(&flow, "PATCHED_SERVER_STARTUP", "was a process of a service").settles();
}

#[test]
fn an_answer_that_comes_byte_by_byte_is_no_answer_in_time() {
    let drips = r#"    def do_GET(self):
        for byte in b"HTTP/1.1 200 OK\r\n\r\n" if self.path == "/health" else b"":
            self.wfile.write(bytes([byte]))
            time.sleep(0.9)"#;
    let service = SERVICE.replace("20s", "6s");
    let flow = served(&service, |text| text.replace("    def do_GET(self):", drips));
    comes_to(&flow, "PATCHED_SERVER_STARTUP", "was not ready (url=/health) within 6.0 s").settles();
}

#[test]
fn a_server_that_leaves_children_leaves_none() {
    let begin = r#"def begin():
    for _ in range(2):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                time.sleep(1000)
            os._exit(0)"#;
    let base = SERVE.replace("def begin():\n    pass", begin);
    let flow = served_by(&base, SERVICE, |text| text.replace("0.050", "0.030"));
    comes_to(&flow, "SUCCESS_IMPROVEMENT", " 4 blocks").settles();
}

#[test]
fn a_pattern_that_never_matches_is_told_by_name() {
    let flow = served(SERVICE, |text| text.replace("0.050", "0.040"));
    flow.replace("m.kdl", "^Least latency", "^Median latency");
    comes_to(&flow, "BASELINE_EXCEPTION", r"no line matches the pattern of the metric `latency_ms`: ^Median latency");
}

#[test]
fn a_pattern_a_preset_or_a_service_that_cannot_be_is_a_flaw() {
    let flow = served(SERVICE, |text| text.replace("0.050", "0.040"));
    flow.flow(&["check", "m.kdl"]).settles().says("no flaw");
    let pattern = "+([0-9.]+)";
    for (old, new, says) in [
        (pattern, "+[0-9.]+", "has 0 groups"),
        (pattern, "+([0-9]+)(.*)", "has 2 groups"),
        (pattern, "+([0-9.]+", "is no regular expression"),
        ("better=lower; service", "better=lower; metric n better=lower; service", "and this has none"),
        ("better=lower; service", "better=lower; metrics vllm-servin; service", "vllm-serving"),
        ("better=lower; service", "better=lower; metrics vllm-latency primary=p99; service", "can be primary"),
        ("ready url=\"/health\"", "ready url=\"health\"", "is no path of a server"),
        ("ready url=\"/health\"", "ready port line=\"x\"", "`ready` says one thing"),
        ("{service.port}\"; metric", "{service.api.port}\"; metric", "is not known here"),
        ("ready url=\"/health\"; timeout", "timeout", "`service` has no `ready`"),
    ] {
        flow.replace("m.kdl", old, new);
        let check = flow.flow(&["check", "m.kdl"]);
        assert!(check.stderr.contains(says) || check.stdout.contains(says), "{new}: {}{}", check.stdout, check.stderr);
        assert_ne!(check.code, Some(0), "{new}");
        flow.replace("m.kdl", new, old);
    }
    flow.replace("m.kdl", METRICS, "metrics vllm-serving primary=mean_ttft_ms min-effect=\"3%\"");
    flow.flow(&["check", "m.kdl"]).settles().says("no flaw");
}
