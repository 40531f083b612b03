//! The promise of assets: fetched once and before what needs them, exactly what the manifest says, seen and not written by who uses
//! them, in the key by their content and never by their place; and whatever keeps one from being had is nobody's fault but the
//! environment's.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use support::Flow;

/// A server on the loopback: what it gives by path, and what it was asked for.
struct Server {
    port: u16,
    gives: Arc<Mutex<BTreeMap<String, Given>>>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

#[derive(Clone)]
enum Given {
    File(Vec<u8>),
    /// Only so much of it, once; then the whole.
    Cut(Vec<u8>, usize),
    /// Piece by piece of its first half, until somebody says that it was seen; then the rest.
    Until(Vec<u8>, Arc<AtomicBool>),
    To(String),
}

#[derive(Clone, Debug)]
struct Asked {
    path: String,
    host: String,
    range: Option<usize>,
    token: Option<String>,
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = Self { port, gives: Arc::default(), asked: Arc::default() };
        let (gives, asked) = (server.gives.clone(), server.asked.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (gives, asked) = (gives.clone(), asked.clone());
                std::thread::spawn(move || answer(stream, &gives, &asked));
            }
        });
        server
    }

    fn gives(&self, path: &str, given: Given) -> String {
        self.gives.lock().unwrap().insert(path.to_owned(), given);
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

fn answer(mut stream: TcpStream, gives: &Mutex<BTreeMap<String, Given>>, asked: &Mutex<Vec<Asked>>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let first = lines.next().unwrap_or_default();
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut one = Asked { path: path.clone(), host: String::new(), range: None, token: None };
    for line in lines.by_ref().take_while(|line| !line.is_empty()) {
        let (name, value) = line.split_once(": ").unwrap_or_default();
        match name.to_lowercase().as_str() {
            "host" => one.host = value.to_owned(),
            "range" => one.range = value.trim_start_matches("bytes=").trim_end_matches('-').parse().ok(),
            "authorization" => one.token = Some(value.to_owned()),
            _ => {}
        }
    }
    let from = one.range;
    asked.lock().unwrap().push(one);
    let given = gives.lock().unwrap().get(path.split('?').next().unwrap()).cloned();
    let told = match given {
        None => b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec(),
        Some(Given::To(url)) => {
            format!("HTTP/1.1 302 Found\r\nLocation: {url}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                .into_bytes()
        }
        Some(Given::Cut(bytes, upto)) => {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", bytes.len());
            gives.lock().unwrap().insert(path, Given::File(bytes.clone()));
            [head.as_bytes(), &bytes[..upto]].concat()
        }
        Some(Given::Until(bytes, seen)) => {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", bytes.len());
            let _ = stream.write_all(head.as_bytes());
            let limit = Instant::now() + Duration::from_secs(60);
            let mut at = 0;
            while at < bytes.len() / 2 && !seen.load(Ordering::Acquire) && Instant::now() < limit {
                let _ = stream.write_all(&bytes[at..at + 1000]);
                at += 1000;
                std::thread::sleep(Duration::from_millis(20));
            }
            bytes[at..].to_vec()
        }
        Some(Given::File(bytes)) => {
            let (status, range) = match from {
                Some(from) => {
                    let range = format!("Content-Range: bytes {from}-{}/{}\r\n", bytes.len() - 1, bytes.len());
                    ("206 Partial Content", range)
                }
                None => ("200 OK", String::new()),
            };
            let body = &bytes[from.unwrap_or(0)..];
            let head =
                format!("HTTP/1.1 {status}\r\n{range}Content-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            [head.as_bytes(), body].concat()
        }
    };
    let _ = stream.write_all(&told);
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The sample, whose tests read the asset `data` by a variable, and would fail where they could write it.
fn with_asset(asset: &str) -> Flow {
    let flow = Flow::sample();
    flow.edit("steps.kdl", |text| {
        text.replace("needs checkout build; timeout", "needs checkout build; set DATA \"{asset.data}\"; timeout")
            .replace("against baseline; timeout", "against baseline; set DATA \"{asset.data}\"; timeout")
    });
    for name in ["one", "two"] {
        flow.edit(&format!("tests/{{{name}}}.py"), |text| {
            format!(
                r#"import os
path = os.environ["DATA"]
assert open(path).read().startswith("forty-two"), path
try:
    open(path, "a")
    open("written", "w")
    raise SystemExit("the asset can be written")
except OSError:
    pass
{text}"#
            )
        });
    }
    flow.add(asset);
    flow
}

#[test]
fn a_local_file_is_read_in_place_and_decides_by_its_content_what_runs_again() {
    let flow = with_asset("asset data \"data.txt\"");
    flow.flow(&["plan", "m.kdl"]).settles().says("the asset data cannot be read");
    flow.flow(&["doctor", "m.kdl"]).exits(1).says("put it there, or correct its path");
    flow.run().exits(2).says("put it there, or correct its path");
    flow.write("data.txt", "forty-two\n");
    assert_eq!(flow.run().settles().classes().len(), 4);
    flow.run().executes_nothing();
    assert!(!flow.cache().join("assets").exists(), "nothing is copied");
    flow.write("elsewhere.txt", "forty-two\n");
    flow.replace("m.kdl", "data.txt", "elsewhere.txt");
    flow.run().settles().executes_nothing();
    flow.write("elsewhere.txt", "forty-two and more\n");
    flow.flow(&["plan", "m.kdl"]).settles().says("asset data");
    let ran = flow.run();
    let executed = ran.settles().executed();
    let of = |step: &str| executed.iter().filter(|action| action.ends_with(step)).count();
    assert_eq!((of(" baseline"), of(" patched"), of(" agent"), of(" rebuild")), (2, 4, 0, 0), "{executed:?}");
}

#[test]
fn a_link_in_a_local_folder_is_as_what_it_leads_to_and_one_that_leads_out_is_refused() {
    let mut flow = with_asset("asset data \"data\"");
    flow.env("COLUMNS", "400");
    flow.edit("steps.kdl", |text| text.replace("{asset.data}", "{asset.data}/n"));
    flow.write("data/inner/n", "forty-two\n");
    std::os::unix::fs::symlink("inner/n", flow.path("data/n")).unwrap();
    assert_eq!(flow.run().settles().classes().len(), 4);
    flow.run().executes_nothing();
    flow.write("data/inner/n", "forty-two and more\n");
    flow.flow(&["plan", "m.kdl"]).settles().says("asset data");
    flow.write("blobs/n", "forty-two\n");
    for out in ["../blobs/n".to_owned(), flow.path("blobs/n").display().to_string(), "../data/inner/n".to_owned()] {
        std::fs::remove_file(flow.path("data/n")).unwrap();
        std::os::unix::fs::symlink(&out, flow.path("data/n")).unwrap();
        let says = format!("n is a link to {out}, which is not in the folder");
        flow.flow(&["plan", "m.kdl"]).says("the asset data cannot be read");
        // However it is broken into lines.
        let plain = |text: &str| text.chars().filter(|c| !c.is_whitespace() && *c != '│').collect::<String>();
        let ran = flow.run();
        assert!(plain(&ran.exits(2).stderr).contains(&plain(&says)), "{}", ran.stderr);
    }
}

#[test]
fn an_url_is_asked_as_it_stands_and_is_no_argument_that_others_see() {
    let server = Server::start();
    let bytes = b"forty-two\n";
    let url = server.gives("/[1-3]{a,b}.txt", Given::File(bytes.to_vec()));
    let mut flow = with_asset(&format!("asset data url=\"{url}\" sha256=\"{}\"", sha256(bytes)));
    let seen = flow.beside("seen");
    let curl = std::env::split_paths(support::search_path()).map(|dir| dir.join("curl")).find(|path| path.exists());
    let curl = curl.unwrap().display().to_string();
    let bin = flow.beside("bin");
    std::fs::create_dir_all(&bin).unwrap();
    let script = format!("#!/bin/sh\necho \"$@\" >> '{}'\nexec '{curl}' \"$@\"\n", seen.display());
    std::fs::write(bin.join("curl"), script).unwrap();
    std::fs::set_permissions(bin.join("curl"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    flow.env("PATH", &format!("{}:{}", bin.display(), support::search_path()));
    assert_eq!(flow.run().settles().classes().len(), 4);
    let asked: Vec<String> = server.asked().into_iter().map(|one| one.path).collect();
    assert_eq!(asked, ["/[1-3]{a,b}.txt"]);
    let seen = std::fs::read_to_string(seen).unwrap();
    assert!(seen.contains("--max-redirs") && !seen.contains("127.0.0.1"), "{seen}");
}

#[test]
fn a_secret_in_an_url_is_a_flaw_and_is_not_shown() {
    for url in [
        "https://bob:hunter2@host/x",
        "https://host/x?sig=hunter2",
        "https://host/x?a=b&X-Amz-Signature=hunter2",
        "https://host/x?access_token=hunter2",
    ] {
        let flow = with_asset(&format!("asset data url=\"{url}\" sha256=\"{}\"", sha256(b"x")));
        let check = flow.flow(&["check", "m.kdl"]);
        check.exits(2).says("secret-in-url").says("secret HOST_TOKEN");
        assert!(!format!("{}{}", check.stdout, check.stderr).contains("hunter2"), "{}", check.stderr);
    }
    let flow = with_asset(&format!("asset data url=\"https://host/x@y?v=2\" sha256=\"{}\"", sha256(b"x")));
    flow.flow(&["check", "m.kdl"]).exits(0);
}

#[test]
fn a_file_is_fetched_once_for_all_that_need_it_and_never_for_what_is_served() {
    let server = Server::start();
    let url = server.gives("/some/data.txt", Given::File(b"forty-two\n".to_vec()));
    let flow = with_asset(&format!("asset data url=\"{url}\" sha256=\"{}\"", sha256(b"forty-two\n")));
    flow.flow(&["plan", "m.kdl"]).settles().says("1 asset, 0 there, 1 to fetch: unknown how much");
    flow.flow(&["doctor", "m.kdl"]).says("not fetched yet");
    assert!(server.asked().is_empty(), "neither asks anybody");
    let (mut one, mut two) = (flow.start(), flow.start());
    assert!(one.wait().unwrap().success() & two.wait().unwrap().success());
    assert_eq!(server.asked().len(), 1, "{:?}", server.asked());
    flow.flow(&["plan", "m.kdl"]).settles().says("1 asset, 1 there, 0 to fetch");
    flow.run().settles().executes_nothing();
    let gone = flow.flow(&["gc", "--json"]).settles().json();
    assert!(gone["gone"].as_array().unwrap().iter().any(|thing| thing["kind"] == "asset"), "{gone:#}");
    flow.run().settles().executes_nothing();
    assert_eq!(server.asked().len(), 1);
    flow.edit("tests/{one}.py", |text| format!("{text}# another\n"));
    flow.run().settles();
    assert_eq!(server.asked().len(), 2);
    // The same content by another URL is the same asset.
    let other = server.gives("/else/data.txt", Given::File(b"forty-two\n".to_vec()));
    flow.replace("m.kdl", &url, &other);
    flow.run().settles().executes_nothing();
}

#[test]
fn one_that_is_not_what_the_manifest_says_is_the_environments_failure_and_no_agent_begins() {
    let server = Server::start();
    let url = server.gives("/data.txt", Given::File(b"forty-three\n".to_vec()));
    let (right, wrong) = (sha256(b"forty-two\n"), sha256(b"forty-three\n"));
    let flow = with_asset(&format!("asset data url=\"{url}\" sha256=\"{right}\""));
    flow.replace("steps.kdl", "set DATA", "attempts 1; set DATA");
    let ran = flow.run();
    ran.exits(3);
    let lines = flow.ends("baseline", "ASSET_FAILED");
    assert!(!lines.is_empty(), "{}", ran.stdout);
    let evidence = lines[0].to_string();
    assert!(evidence.contains(&right) && evidence.contains(&wrong) && evidence.contains(&url), "{evidence}");
    assert!(ran.executed().iter().all(|action| !action.ends_with(" agent")), "{:?}", ran.executed());
    let shown = flow.flow(&["show", "pkg/{one}/tidy/1", "--json"]).settles().json();
    assert_eq!(
        (shown["owner"].as_str(), shown["cause"].as_str()),
        (Some("environment"), Some("ASSET_FAILED")),
        "{shown:#}"
    );
    server.gives("/data.txt", Given::File(b"forty-two\n".to_vec()));
    assert_eq!(flow.run_with(&["--retry", "*"]).settles().classes().len(), 4);
}

#[test]
fn a_fetching_that_was_cut_goes_on_where_it_was() {
    let server = Server::start();
    let bytes = [b"forty-two\n".to_vec(), vec![b'x'; 100_000]].concat();
    let url = server.gives("/data.txt", Given::Cut(bytes.clone(), 40_000));
    let flow = with_asset(&format!("asset data url=\"{url}\" sha256=\"{}\"", sha256(&bytes)));
    flow.run_with(&["--jobs", "1"]);
    flow.run().settles();
    let ranges: Vec<Option<usize>> = server.asked().iter().map(|asked| asked.range).collect();
    assert_eq!(ranges, [None, Some(40_000)]);
}

#[test]
fn who_watches_sees_how_much_is_there() {
    let server = Server::start();
    let bytes = [b"forty-two\n".to_vec(), vec![b'x'; 4_000_000]].concat();
    let seen = Arc::new(AtomicBool::default());
    let url = server.gives("/data.txt", Given::Until(bytes.clone(), seen.clone()));
    let flow = with_asset(&format!("asset data url=\"{url}\" sha256=\"{}\"", sha256(&bytes)));
    let mut child = flow.command(&["run", "m.kdl", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let told = lines.by_ref().find(|line| line.contains("action-progress")).unwrap_or_default();
    seen.store(true, Ordering::Release);
    assert!(told.contains("fetching asset data: "), "{told}");
    lines.for_each(drop);
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_repository_of_a_hub_is_fetched_at_its_commit_and_the_secret_is_shown_to_that_host_alone() {
    let server = Server::start();
    let revision = "a".repeat(40);
    let listing = r#"{"siblings":[{"rfilename":"config.json"},{"rfilename":"sub/some weights.bin"}]}"#;
    server.gives(&format!("/api/models/org/model/revision/{revision}"), Given::File(listing.into()));
    server.gives(&format!("/org/model/resolve/{revision}/config.json"), Given::File(b"forty-two\n".to_vec()));
    let far = format!("http://localhost:{}/far", server.port);
    server.gives("/far", Given::File(b"weights".to_vec()));
    server.gives(&format!("/org/model/resolve/{revision}/sub/some%20weights.bin"), Given::To(far));
    let asset = format!("asset data hf=\"org/model\" revision=\"{revision}\" {{ secret HF_TOKEN }}");
    let mut flow = with_asset(&asset);
    flow.env("HF_ENDPOINT", &format!("http://127.0.0.1:{}", server.port));
    flow.env("HF_TOKEN", "hub-token-of-somebody-0123456789");
    for name in ["one", "two"] {
        flow.replace(
            &format!("tests/{{{name}}}.py"),
            "path = os.environ[\"DATA\"]",
            "path = os.environ[\"DATA\"] + \"/config.json\"",
        );
    }
    assert_eq!(flow.run().settles().classes().len(), 4);
    let asked = server.asked();
    assert_eq!(asked.len(), 4, "{asked:?}");
    for one in &asked {
        let shown = one.token.as_deref() == Some("Bearer hub-token-of-somebody-0123456789");
        assert_eq!(shown, one.host.starts_with("127.0.0.1"), "{one:?}");
        assert!(shown || one.token.is_none() && one.path == "/far", "{one:?}");
    }
    let found =
        std::process::Command::new("grep").args(["-rl", "hub-token-of-somebody"]).arg(flow.cache()).output().unwrap();
    assert!(found.stdout.is_empty(), "{}", String::from_utf8_lossy(&found.stdout));
    flow.run().executes_nothing();
}

#[test]
fn a_hub_that_lists_what_leads_elsewhere_writes_nothing_there() {
    let server = Server::start();
    let revision = "b".repeat(40);
    let listing = r#"{"siblings":[{"rfilename":"../../../../out.txt"}]}"#;
    server.gives(&format!("/api/models/org/model/revision/{revision}"), Given::File(listing.into()));
    let mut flow = with_asset(&format!("asset data hf=\"org/model\" revision=\"{revision}\""));
    flow.env("HF_ENDPOINT", &format!("http://127.0.0.1:{}", server.port));
    flow.replace("steps.kdl", "set DATA", "attempts 1; set DATA");
    flow.run().exits(3);
    assert!(flow.ends("baseline", "ASSET_FAILED")[0].to_string().contains("leads elsewhere"));
    assert_eq!(server.asked().len(), 2, "{:?}", server.asked());
}

#[test]
fn what_moves_or_cannot_be_told_is_a_flaw() {
    let check = |asset: &str, says: &str| {
        with_asset(asset).flow(&["check", "m.kdl"]).exits(2).says(says);
    };
    check("asset data hf=\"org/model\" revision=\"main\"", "a branch or a tag");
    check("asset data url=\"https://host/x\"", "no-digest");
    check("asset data url=\"ftp://host/x\" sha256=\"00\"", "bad-url");
    check("asset data", "comes from nowhere");
    check("asset data \"x\" url=\"https://host/x\"", "two places");
    check("asset other \"x\"", "asset.data");
}
