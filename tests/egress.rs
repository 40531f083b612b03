//! The promise of `network`: an agent reaches the hosts that the manifest names and no other, without a setting of its own, and
//! what it reached and what it asked for in vain is on record, however it ended.
//!
//! All servers are on loopback. A machine whose kernel refuses such a network skips what cannot be shown there, and says so.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use support::processes::kill;
use support::{Flow, until};

/// A server of this machine, its port, and what it does with each call. It lives as long as the test.
fn server(serve: impl Fn(TcpStream) + Send + Clone + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for call in listener.incoming().flatten() {
            let serve = serve.clone();
            std::thread::spawn(move || serve(call));
        }
    });
    port
}

/// Hears all that is said, and then answers with so many bytes.
fn answers(length: usize) -> u16 {
    server(move |mut call| {
        let _ = call.read_to_end(&mut Vec::new());
        let _ = call.write_all(&vec![b'x'; length]);
    })
}

/// A project whose agent is a script of Python, in a sandbox with some nodes.
fn with_agent(script: &str, step: &str) -> Flow {
    let mut flow = Flow::sample();
    flow.env("COLUMNS", "300");
    flow.write("probe.py", &format!("import socket, sys, os, time\n{script}"));
    flow.replace(
        "steps.kdl",
        "step agent    uses=agent       {",
        &format!("step agent    uses=agent       {{ {step};"),
    );
    flow.edit("agents.kdl", |text| {
        format!("{text}agent probe {{ run \"python3\" \"{{file.probe}}\"; version \"1\" }}\n")
    });
    flow.replace(
        "m.kdl",
        "candidate human agent=human",
        "candidate human agent=human\n    candidate probe agent=probe { file probe \"probe.py\" }",
    );
    flow.write("commits.txt", "{one:40}\n");
    flow
}

const JOB: &str = "pkg/{one}/probe/1";

fn ended(flow: &Flow) -> Value {
    let is = |line: &Value| line["line"] == "ended" && line["axes"]["candidate"] == "probe" && line["kind"] == "agent";
    flow.lines().into_iter().filter(is).max_by_key(|line| line["at"].to_string()).unwrap()
}

/// What the agent of a project reached, by its record; none where this kernel holds no network.
fn reached(flow: &Flow) -> Option<Value> {
    let ended = ended(flow);
    if !ended["sandbox"]["held"].as_array().is_some_and(|held| held.contains(&json!("network"))) {
        eprintln!("skipped: this kernel holds no network: {}", ended["sandbox"]);
        return None;
    }
    let said = flow.flow(&["log", JOB, "agent", "--stream", "network"]);
    Some(serde_json::from_str(&said.stdout).unwrap_or_else(|_| panic!("{}{}", said.stdout, said.stderr)))
}

fn said(flow: &Flow) -> String {
    flow.flow(&["log", JOB, "agent", "--stream", "stdout"]).stdout
}

fn marks(flow: &Flow) -> Value {
    flow.flow(&["show", JOB, "--json"]).json()["marks"].clone()
}

/// What every script needs: a conversation that is counted by its lengths.
const TALK: &str = r#"
def talk(where, out):
    s = socket.create_connection(where, 20)
    s.sendall(b"y" * out)
    s.shutdown(socket.SHUT_WR)
    got = 0
    while True:
        piece = s.recv(65536)
        if not piece:
            return got
        got += len(piece)

def cannot(what, call):
    try:
        print("reached", what, call())
    except OSError:
        print("no", what)
"#;

#[test]
fn an_agent_reaches_what_is_allowed_and_nothing_else() {
    let (allowed, other) = (answers(5000), answers(7));
    let abstract_name = format!("flow-egress-{}", std::process::id());
    let _heard = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&abstract_name).unwrap()).unwrap();
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("service.sock");
    let _service = UnixListener::bind(&path).unwrap();
    let script = format!(
        r#"{TALK}
print("got", talk(("127.0.0.1", {allowed}), 1000))
print("got", talk(("localhost", {allowed}), 500))
def unix(address):
    s = socket.socket(socket.AF_UNIX)
    s.connect(address)
cannot("another port", lambda: talk(("127.0.0.1", {other}), 1))
cannot("an address", lambda: socket.create_connection(("1.1.1.1", 443), 20))
cannot("an address of IPv6", lambda: socket.create_connection(("2606:4700:4700::1111", 443), 20))
cannot("a name", lambda: socket.getaddrinfo("elsewhere.example", 443))
cannot("a name", lambda: socket.getaddrinfo("elsewhere.example", 80))
cannot("packets", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("1.1.1.1", 53)))
cannot("an abstract socket", lambda: unix("\0{abstract_name}"))
cannot("a socket in a file", lambda: unix("{}"))
cannot("a family of no network", lambda: socket.socket(40, socket.SOCK_STREAM))
print(socket.gethostbyname("api.example"))
"#,
        path.display()
    );
    let flow = with_agent(
        &script,
        &format!("sandbox auto; network \"127.0.0.1:{allowed}\" \"localhost:{allowed}\" \"api.example\""),
    );
    // All that it does not reach is there.
    assert_eq!(TcpStream::connect(("127.0.0.1", other)).map(drop).map_err(|e| e.to_string()), Ok(()));
    std::os::unix::net::UnixStream::connect(&path).unwrap();
    flow.run().settles();
    let Some(reached) = reached(&flow) else { return };
    let told = said(&flow);
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(
        lines,
        [
            "got 5000",
            "got 5000",
            "no another port",
            "no an address",
            "no an address of IPv6",
            "no a name",
            "no a name",
            "no packets",
            "no an abstract socket",
            "no a socket in a file",
            "no a family of no network",
            "127.83.0.1",
        ],
        "{}",
        ended(&flow)
    );
    let host = reached["hosts"].as_array().unwrap().iter().find(|host| host["host"] == format!("127.0.0.1:{allowed}"));
    let host = host.unwrap();
    assert_eq!([&host["connections"], &host["bytes_out"], &host["bytes_in"]], [2, 1500, 10_000], "{reached:#}");
    assert!(host["first"].is_string() && host["last"].is_string());
    assert_eq!(reached["refused"], json!([{"name": "elsewhere.example", "times": 2}]));
    assert_eq!(marks(&flow), json!([]));
    let shown = flow.flow(&["show", JOB]);
    shown.says("network only to").says("2 connections, 1.5 KiB out");
    shown.says("refused: elsewhere.example x2");
    assert!(!flow.flow(&["show", "{one}"]).stdout.contains("EGRESS_OPEN"));
    flow.flow(&["why", JOB, "m.kdl", "--key", "--step", "agent"])
        .says(&format!("network 127.0.0.1:{allowed}, api.example, localhost:{allowed}: what it may reach"));
    // The list is in no key.
    flow.replace("steps.kdl", " \"api.example\"", "");
    flow.run().settles().executes_nothing();
}

#[test]
fn long_streams_pass_both_ways_at_once_and_every_byte_is_counted() {
    const MIB: usize = 1 << 20;
    let port = server(|call| {
        let mut reading = call.try_clone().unwrap();
        let reader = std::thread::spawn(move || std::io::copy(&mut reading, &mut std::io::sink()));
        let mut writing = call;
        for n in 0..12_u8 {
            writing.write_all(&vec![n; MIB]).unwrap();
        }
        reader.join().unwrap().unwrap();
    });
    let script = format!(
        r#"
import threading, hashlib
s = socket.create_connection(("127.0.0.1", {port}), 60)
def send():
    s.sendall(b"y" * (5 << 20))
    s.shutdown(socket.SHUT_WR)
t = threading.Thread(target=send)
t.start()
h = hashlib.sha256()
while True:
    piece = s.recv(1 << 20)
    if not piece:
        break
    h.update(piece)
t.join()
want = hashlib.sha256(b"".join(bytes([n]) * (1 << 20) for n in range(12)))
print("whole", h.digest() == want.digest())
"#
    );
    let flow = with_agent(&script, &format!("sandbox auto; network \"127.0.0.1:{port}\""));
    flow.run().settles();
    let Some(reached) = reached(&flow) else { return };
    assert_eq!(said(&flow), "whole True\n");
    let host = &reached["hosts"][0];
    assert_eq!([&host["connections"], &host["bytes_out"], &host["bytes_in"]], [1, 5 * MIB, 12 * MIB]);
}

#[test]
fn half_an_answer_is_broken_to_the_agent_as_it_was_to_flow_and_who_does_not_listen_is_on_record() {
    let port = server(|mut call| {
        let _ = call.read(&mut [0; 64]);
        let _ = call.write_all(b"half");
        // What was not read makes the end of it a broken one.
        let _ = call.set_linger_zero();
    });
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let script = format!(
        r#"
def ends(port):
    try:
        # The end may be there before the call is seen to have come through.
        s = socket.create_connection(("127.0.0.1", port), 20)
        s.sendall(b"y" * 1000)
        while s.recv(1000):
            pass
        return "whole"
    except OSError as e:
        return type(e).__name__
print(ends({port}))
print(ends({nobody}))
"#
    );
    let flow = with_agent(&script, &format!("sandbox auto; network \"127.0.0.1:{port}\" \"127.0.0.1:{nobody}\""));
    flow.run().settles();
    let Some(reached) = reached(&flow) else { return };
    assert_eq!(said(&flow), "ConnectionResetError\nConnectionResetError\n");
    let of = |port: u16| {
        let is = |host: &&Value| host["host"] == format!("127.0.0.1:{port}");
        reached["hosts"].as_array().unwrap().iter().find(is).unwrap().clone()
    };
    assert_eq!([&of(nobody)["connections"], &of(nobody)["failed"]], [0, 1]);
    assert!(of(nobody)["why"].as_str().unwrap().contains("refused"), "{reached:#}");
}

/// Closes with what says that the connection is broken.
trait Broken {
    fn set_linger_zero(&self) -> nix::Result<()>;
}

impl Broken for TcpStream {
    fn set_linger_zero(&self) -> nix::Result<()> {
        let linger = libc::linger { l_onoff: 1, l_linger: 0 };
        nix::sys::socket::setsockopt(self, nix::sys::socket::sockopt::Linger, &linger)
    }
}

#[test]
fn what_an_agent_reached_that_met_its_time_limit_is_on_record() {
    let port = answers(3);
    let script = format!("{TALK}\ntalk((\"127.0.0.1\", {port}), 5)\nwhile True: time.sleep(1)\n");
    let flow = with_agent(&script, &format!("sandbox auto; network \"127.0.0.1:{port}\""));
    flow.replace(
        "steps.kdl",
        "after baseline; timeout \"1m\"; attempts 3",
        "after baseline; timeout \"4s\"; attempts 1",
    );
    flow.run();
    assert_eq!(support::outcome_of(&ended(&flow)), "TIMEOUT");
    let Some(reached) = reached(&flow) else { return };
    let host = &reached["hosts"][0];
    assert_eq!([&host["connections"], &host["bytes_out"], &host["bytes_in"]], [1, 5, 3]);
}

#[test]
fn what_a_finished_agent_reached_is_kept_when_flow_was_killed() {
    let port = answers(3);
    let go = tempfile::tempdir().unwrap();
    let wait = go.path().join("go");
    let script = format!(
        "{TALK}\nopen(\"at-work\", \"w\").close()\nwhile not os.path.exists(\"{}\"): time.sleep(0.01)\ntalk((\"127.0.0.1\", {port}), 5)\n",
        wait.display()
    );
    let flow = with_agent(&script, &format!("sandbox auto; network \"127.0.0.1:{port}\""));
    let mut child = flow.start();
    let place = || {
        let is =
            |line: &Value| line["line"] == "started" && line["axes"]["candidate"] == "probe" && line["kind"] == "agent";
        let line = flow.lines().into_iter().find(is)?;
        Some(flow.cache().join("tmp/places").join(line["attempt"].as_str().unwrap()))
    };
    until("the agent is at work", || place().is_some_and(|place| place.join("work/at-work").exists()));
    // Stopped, flow cannot read the end of its agent.
    kill(i32::try_from(child.id()).unwrap(), libc::SIGSTOP);
    std::fs::write(&wait, "").unwrap();
    until("the agent's end is written", || place().is_some_and(|place| place.join("agent.end.json").exists()));
    child.kill().unwrap();
    child.wait().unwrap();
    flow.run().settles();
    assert!(ended(&flow)["adopts"].is_string(), "{:#}", ended(&flow));
    let Some(reached) = reached(&flow) else { return };
    let host = &reached["hosts"][0];
    assert_eq!([&host["connections"], &host["bytes_out"], &host["bytes_in"]], [1, 5, 3]);
}

#[test]
fn the_hosts_of_a_provider_are_those_of_its_agents_alone() {
    let port = answers(3);
    let script = format!("{TALK}\nprint(\"got\", talk((\"127.0.0.1\", {port}), 5))\n");
    let flow = with_agent(&script, "sandbox auto");
    flow.edit("m.kdl", |text| {
        let text = text.replace("\npipeline", &format!("\nprovider acme {{ network \"127.0.0.1:{port}\" }}\npipeline"));
        let probe = "candidate probe agent=probe {";
        let open = "candidate open agent=probe { file probe \"probe.py\" }\n    ";
        text.replace(probe, &format!("{open}{probe} model \"m\" provider=acme;"))
    });
    flow.run().settles();
    let Some(reached) = reached(&flow) else { return };
    assert_eq!(reached["hosts"][0]["bytes_in"], 3);
    assert_eq!(marks(&flow), json!([]));
    let open = flow.flow(&["show", "pkg/{one}/open/1", "--json"]).json();
    assert_eq!(open["marks"], json!(["EGRESS_OPEN"]));
    flow.flow(&["show", "{one}"]).says("the agents' network was open in 1 of 4 jobs: EGRESS_OPEN");
}

#[test]
fn where_the_kernel_permits_no_network_of_its_own_that_is_said_and_what_requires_one_does_not_begin() {
    let flow = with_agent("print('began')\n", "sandbox auto; network \"api.example\"");
    // In a user namespace that may make no network.
    let within = |args: &[&str]| {
        let flow = flow.command(args);
        let mut all = Command::new("unshare");
        all.args(["-Ur", "sh", "-c", "echo 0 > /proc/sys/user/max_net_namespaces && exec \"$@\"", "sh"]);
        all.arg(flow.get_program()).args(flow.get_args()).current_dir(flow.get_current_dir().unwrap()).env_clear();
        all.envs(flow.get_envs().filter_map(|(name, value)| Some((name, value?)))).stdin(Stdio::null());
        all.output().unwrap()
    };
    if !Command::new("unshare").args(["-Ur", "true"]).status().is_ok_and(|status| status.success()) {
        eprintln!("skipped: no user namespaces can be made here");
        return;
    }
    let doctor = |flow: &Flow| {
        let lines = flow.ran(within(&["doctor", "m.kdl", "--json"])).json()["lines"].clone();
        lines.as_array().unwrap().iter().find(|line| line["check"] == "network").unwrap().clone()
    };
    assert_eq!(doctor(&flow)["level"], "warn", "{}", doctor(&flow));
    let run = || flow.ran(within(&["run", "m.kdl", "--json"]));
    run().settles();
    let open = ended(&flow)["sandbox"].clone();
    assert!(open["open"]["network"].as_str().unwrap().starts_with("the kernel refused: "), "{open}");
    assert_eq!(said(&flow), "began\n");
    assert!(marks(&flow).as_array().unwrap().contains(&json!("EGRESS_OPEN")), "{}", marks(&flow));
    flow.replace("steps.kdl", "sandbox auto; network", "sandbox require; network");
    flow.edit("probe.py", |text| format!("{text}# anew\n"));
    assert_eq!(doctor(&flow)["level"], "fail", "{}", doctor(&flow));
    run().exits(3);
    let ended = ended(&flow);
    assert_eq!(support::outcome_of(&ended), "NOT_STARTED", "{ended:#}");
    assert!(ended.to_string().contains("the sandbox cannot be held (network)"), "{ended:#}");
}
