//! Assets for whoever uses them: those that are not in the store yet are fetched, once, whoever else needs them.
//!
//! What is fetched goes through this process into a file that is not yet the asset: a flow that dies ends the fetching, and the next
//! one goes on where it was. Then its digest is compared, and only then it lies under its name, read-only, with a last file that says
//! that it is whole. The program that fetches is `curl`: it knows proxies and certificates, and shows a secret to no other host than
//! the one that was asked.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use ignore::WalkBuilder;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::digest::{Digest, Hasher};
use crate::hostile;
use crate::manifest::{Asset, AssetSource};
use crate::outcome::{Cause, Failure};
use crate::plan::{AssetAt, AssetFact};
use crate::redact::Secret;
use crate::step::context::{Context, Place, Progress, Stop, fault};
use crate::step::secrets::redactor;
use crate::store::{Store, write_durable};
use crate::units::{human_size, human_span};

/// The last file of one that was fetched.
const COMPLETE: &str = "complete.json";
/// The largest of those, and of a hub's listings, in bytes.
const LISTING: u64 = 16 << 20;
/// The most files of one asset.
const MOST: usize = 20_000;
/// How long another run that fetches it is waited for.
const OTHERS: Duration = Duration::from_secs(24 * 3600);
/// How often it is told how much is there.
const TOLD: Duration = Duration::from_millis(500);
/// What of curl's own words is kept, in bytes.
const SAID: u64 = 8192;
/// Variables of flow's own environment that say how hosts are reached.
const REACHED_BY: [&str; 10] = [
    "PATH",
    "HTTPS_PROXY",
    "https_proxy",
    "HTTP_PROXY",
    "http_proxy",
    "ALL_PROXY",
    "NO_PROXY",
    "no_proxy",
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
];

/// What the last file says.
#[derive(Debug, Serialize, Deserialize)]
struct Complete {
    identity: String,
    files: Vec<(String, u64)>,
}

/// A file that is to be fetched.
struct Wanted {
    name: String,
    url: String,
    sha256: Option<Digest>,
    /// In bytes, where that was said.
    size: Option<u64>,
}

/// Whether a fetched asset is in the store, whole.
#[must_use]
pub fn is_there(store: &Store, fact: &AssetFact) -> bool {
    let AssetAt::Store { folder, .. } = &fact.at else { return true };
    let place = store.assets().join(folder);
    let Ok(Some(bytes)) = hostile::read_regular(&place.join(COMPLETE), LISTING) else { return false };
    let Ok(complete) = serde_json::from_slice::<Complete>(&bytes) else { return false };
    let whole = |(name, len): &(String, u64)| {
        std::fs::symlink_metadata(place.join("data").join(name)).is_ok_and(|meta| meta.is_file() && meta.len() == *len)
    };
    complete.identity == fact.identity && complete.files.iter().all(whole)
}

/// The stat of a file, or of all below a folder: changes when one of them does. What lies behind a link is below the folder too.
///
/// # Errors
/// If something cannot be looked at, a link leads out of the folder, or it has more than 20,000 files.
pub fn stat(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let root = path.canonicalize()?;
    for (number, entry) in
        WalkBuilder::new(path).standard_filters(false).sort_by_file_name(Ord::cmp).build().enumerate()
    {
        let entry = entry.map_err(io::Error::other)?;
        if number > MOST {
            return Err(io::Error::other(format!("it has more than {MOST} files")));
        }
        let meta = if entry.depth() == 0 { std::fs::metadata(path)? } else { std::fs::symlink_metadata(entry.path())? };
        if entry.depth() == 0 && !(meta.is_file() || meta.is_dir()) {
            return Err(io::Error::other("it is no file and no folder"));
        }
        if meta.is_symlink() {
            stays_within(&root, path, entry.path())?;
        }
        let (at, name) = (format!("{}.{:09}", meta.ctime(), meta.ctime_nsec()), entry.path().display());
        let _ = writeln!(text, "{name} {} {} {at}", meta.ino(), meta.size());
    }
    Ok(Digest::of(text.as_bytes()).hex())
}

/// Whether a link of a folder leads to something in it, at whose content somebody looks too.
fn stays_within(root: &Path, folder: &Path, link: &Path) -> io::Result<()> {
    let to = std::fs::read_link(link)?;
    let name = link.strip_prefix(folder).unwrap_or(link);
    let mut above = name.components().count().saturating_sub(1);
    // One that leads out and in again leads out.
    let by_name = to.is_absolute()
        || to.components().all(|part| match part {
            Component::ParentDir => above.checked_sub(1).map(|less| above = less).is_some(),
            Component::Normal(_) => {
                above += 1;
                true
            }
            _ => true,
        });
    match link.canonicalize() {
        Ok(end) if by_name && end.starts_with(root) => Ok(()),
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Err(_) => {
            Err(io::Error::other(format!("{} is a link to {}, which is not there", name.display(), to.display())))
        }
        Ok(_) => {
            let text = format!("{} is a link to {}, which is not in the folder", name.display(), to.display());
            Err(io::Error::other(format!("{text}: its content would be in no key")))
        }
    }
}

impl Context {
    /// Has every asset of an action at hand. Gives notes of what was fetched.
    ///
    /// # Errors
    /// If one cannot be had, or is not what the plan says.
    pub async fn have_assets(&self, node: usize, place: &Place) -> Result<Vec<String>, Failure> {
        let mut notes = Vec::new();
        for name in self.plan.nodes[node].ask.assets() {
            let Some(Ok(fact)) = self.plan.facts.assets.get(name) else { continue };
            let asset = self.plan.manifest.pipeline.assets.iter().find(|asset| asset.name.value == name);
            if let (AssetAt::Store { folder, .. }, Some(asset)) = (&fact.at, asset) {
                self.store.hold(folder);
                if !tokio::task::block_in_place(|| is_there(&self.store, fact)) {
                    notes.extend(self.fetch(node, (asset, fact), folder, place).await?);
                }
                let used =
                    File::options().create(true).append(true).open(self.store.assets().join(folder).join("used"));
                // Not worth a failure: it tells what was not used for longest.
                let _ = used.and_then(|file| file.set_modified(std::time::SystemTime::now()));
            }
        }
        self.changed_asset(node).map_or(Ok(notes), Err)
    }

    /// The first asset of an action that is read in place and is no longer what it was when the plan was made.
    #[must_use]
    pub fn changed_asset(&self, node: usize) -> Option<Failure> {
        let facts = &self.plan.facts.assets;
        self.plan.nodes[node].ask.assets().into_iter().find_map(|name| match facts.get(name) {
            Some(Ok(AssetFact { at: AssetAt::Place { path, stat: was }, .. })) => {
                let why = match tokio::task::block_in_place(|| stat(path)) {
                    Ok(now) if now == *was => return None,
                    Ok(_) => String::new(),
                    Err(error) => format!(": {error}"),
                };
                let why = format!("asset {name}: {} changed since the run was planned{why}", path.display());
                Some(Failure::new(Cause::AssetFailed, &why))
            }
            _ => None,
        })
    }

    async fn fetch(
        &self,
        node: usize,
        (asset, fact): (&Asset, &AssetFact),
        folder: &str,
        place: &Place,
    ) -> Result<Option<String>, Failure> {
        let failed = |why: &str| Failure::of_flow(Cause::AssetFailed, &format!("asset {}: {why}", asset.name.value));
        let key = AssetFact::lock(folder).ok_or_else(|| fault("a folder that is no digest"))?;
        let began = Instant::now();
        let _alone = loop {
            if let Some(lock) = self.store.locks.try_lock(&key).map_err(|error| fault(&error.to_string()))? {
                break lock;
            }
            if *place.stop.borrow() != Stop::No {
                return Err(Failure::new(Cause::Interrupted, "stopped before its asset was there"));
            }
            if began.elapsed() > OTHERS {
                return Err(failed("another run has been fetching it for a day"));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        if is_there(&self.store, fact) {
            return Ok(None);
        }
        let secrets = self.secrets(&asset.secret).await?;
        let mut told = Telling { node, name: &asset.name.value, place, began, before: 0, all: None, last: began };
        let dir = self.store.assets().join(folder);
        let io = |error: io::Error| failed(&format!("{}: {error}", dir.display()));
        std::fs::create_dir_all(dir.join("data")).map_err(io)?;
        let _ = std::fs::remove_file(dir.join(COMPLETE));
        let wanted = match &asset.source.value {
            AssetSource::Path(_) => return Ok(None),
            AssetSource::Url { url, sha256 } => {
                let name = fact.path(Path::new("")).file_name().map(|name| name.to_string_lossy().into_owned());
                vec![Wanted { name: name.unwrap_or_default(), url: url.clone(), sha256: Some(*sha256), size: None }]
            }
            AssetSource::Hub { repo, revision } => {
                let base = self.machine.variables.get("HF_ENDPOINT").map_or("https://huggingface.co", String::as_str);
                let base = base.trim_end_matches('/');
                let url = format!("{base}/api/models/{repo}/revision/{revision}?blobs=true");
                let part = dir.join("listing.part");
                let _ = std::fs::remove_file(&part);
                self.bring(&url, &secrets, &part, &mut told).await.map_err(|why| why.failure(&failed, &url))?;
                let bytes = hostile::read_regular(&part, LISTING).map_err(io)?.unwrap_or_default();
                let _ = std::fs::remove_file(&part);
                files_of(&bytes, &format!("{base}/{repo}/resolve/{revision}"))
                    .map_err(|why| failed(&format!("{url}: {why}")))?
            }
        };
        told.all = wanted.iter().map(|wanted| wanted.size).sum();
        let mut complete = Complete { identity: fact.identity.clone(), files: Vec::new() };
        for (number, wanted) in wanted.iter().enumerate() {
            let to = dir.join("data").join(&wanted.name);
            let part = dir.join(format!("{number}.part"));
            let again = part.exists();
            let mut brought = self.bring(&wanted.url, &secrets, &part, &mut told).await;
            let wrong = |brought: &Result<(Digest, u64), Unbrought>| {
                brought.as_ref().is_ok_and(|(found, _)| wanted.sha256.is_some_and(|sha256| sha256 != *found))
            };
            if again && (wrong(&brought) || matches!(brought, Err(Unbrought::Refused(_)))) {
                // What an earlier fetching left may be of another file, or the server does not go on in the middle.
                let _ = std::fs::remove_file(&part);
                brought = self.bring(&wanted.url, &secrets, &part, &mut told).await;
            }
            let is_wrong = wrong(&brought);
            let (found, len) = brought.map_err(|why| why.failure(&failed, &wanted.url))?;
            if let Some(sha256) = wanted.sha256.filter(|_| is_wrong) {
                let _ = std::fs::remove_file(&part);
                return Err(failed(&format!("{}: its sha256 is {found}, and not {sha256}", wanted.url)));
            }
            let kept = || -> io::Result<()> {
                to.parent().map_or(Ok(()), std::fs::create_dir_all)?;
                std::fs::set_permissions(&part, std::fs::Permissions::from_mode(0o444))?;
                File::open(&part)?.sync_all()?;
                std::fs::rename(&part, &to)
            };
            kept().map_err(io)?;
            told.before += len;
            complete.files.push((wanted.name.clone(), len));
        }
        // What the last file promises must not be lost when the machine goes down.
        nix::unistd::syncfs(File::open(&dir).map_err(io)?).map_err(|error| io(error.into()))?;
        let bytes = serde_json::to_vec(&complete).unwrap_or_default();
        write_durable(&dir.join(COMPLETE), &bytes).map_err(|error| fault(&error.to_string()))?;
        let bytes: u64 = complete.files.iter().map(|(_, len)| len).sum();
        let took = began.elapsed();
        let rate = (bytes as f64 / took.as_secs_f64().max(0.001)) as u64;
        Ok(Some(format!(
            "fetched asset {}: {} in {}, {} a second",
            asset.name.value,
            human_size(bytes),
            human_span(took),
            human_size(rate)
        )))
    }

    /// Brings a file, behind what is there of it already. Gives the digest and the length of the whole.
    async fn bring(
        &self,
        url: &str,
        secrets: &[Secret],
        part: &Path,
        told: &mut Telling<'_>,
    ) -> Result<(Digest, u64), Unbrought> {
        let mut file = File::options().create(true).read(true).append(true).open(part).map_err(Unbrought::Disk)?;
        let mut hasher = Hasher::default();
        let mut len = 0u64;
        let mut piece = vec![0; 256 * 1024];
        loop {
            let n = tokio::task::block_in_place(|| file.read(&mut piece)).map_err(Unbrought::Disk)?;
            if n == 0 {
                break;
            }
            hasher.update(&piece[..n]);
            len += n as u64;
        }
        let mut command = tokio::process::Command::new("curl");
        command.args(["-q", "-g", "-sS", "-f", "-L", "--proto", "=http,https", "--proto-redir", "=http,https"]);
        command.args(["--max-redirs", "10", "--connect-timeout", "30", "--speed-limit", "1", "--speed-time", "60"]);
        if len > 0 {
            command.args(["-C", &len.to_string()]);
        }
        command.args(["-K", "-"]).env_clear();
        let variables = &self.machine.variables;
        command.envs(REACHED_BY.iter().filter_map(|name| Some((*name, variables.get(*name)?))));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| Unbrought::Failed(format!("curl cannot be run: {error}")))?;
        if let Some(mut stdin) = child.stdin.take() {
            // None of it an argument: those are seen by everybody on the machine.
            let mut said = format!("url = \"{}\"\n", quoted(url)?);
            for secret in secrets {
                let value = String::from_utf8_lossy(secret.expose());
                if value.contains(['"', '\\', '\n', '\r']) {
                    return Err(Unbrought::Failed(format!("the secret {} is no token", secret.name())));
                }
                let _ = writeln!(said, "header = \"Authorization: Bearer {value}\"");
            }
            let _ = stdin.write_all(said.as_bytes()).await;
        }
        let (Some(mut out), Some(err)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(Unbrought::Failed("curl has no output".into()));
        };
        let complaint = tokio::spawn(async move {
            let mut said = Vec::new();
            let _ = err.take(SAID).read_to_end(&mut said).await;
            said
        });
        let mut stop = told.place.stop.clone();
        loop {
            let read = tokio::select! {
                read = out.read(&mut piece) => read,
                _ = stop.wait_for(|stop| *stop != Stop::No) => return Err(Unbrought::Stopped),
            };
            match read {
                Ok(0) => break,
                Ok(n) => {
                    tokio::task::block_in_place(|| file.write_all(&piece[..n])).map_err(Unbrought::Disk)?;
                    hasher.update(&piece[..n]);
                    len += n as u64;
                    told.tell(len);
                }
                Err(error) => return Err(Unbrought::Failed(error.to_string())),
            }
        }
        let status = child.wait().await.map_err(|error| Unbrought::Failed(error.to_string()))?;
        if status.success() {
            return Ok((hasher.finish(), len));
        }
        let said = redactor(secrets).clean(&complaint.await.unwrap_or_default());
        let said = String::from_utf8_lossy(&said).trim().to_owned();
        Err(match status.code() {
            // The server does not go on in the middle, or says no to what was asked.
            Some(22 | 33 | 36) => Unbrought::Refused(said),
            _ => Unbrought::Failed(if said.is_empty() { format!("curl: {status}") } else { said }),
        })
    }
}

/// A URL as curl's config has it between quotes.
fn quoted(url: &str) -> Result<String, Unbrought> {
    match url.contains(char::is_control) {
        true => Err(Unbrought::Failed("it holds a control character".to_owned())),
        false => Ok(url.replace('\\', "\\\\").replace('"', "\\\"")),
    }
}

/// Tells who watches how much of an asset is there.
struct Telling<'a> {
    node: usize,
    name: &'a str,
    place: &'a Place,
    began: Instant,
    /// Of the files before this one, in bytes.
    before: u64,
    /// What it will come to, where that is known.
    all: Option<u64>,
    last: Instant,
}

impl Telling<'_> {
    fn tell(&mut self, len: u64) {
        if self.last.elapsed() < TOLD {
            return;
        }
        self.last = Instant::now();
        let all = self.all.map_or(String::new(), |all| format!(" of {}", human_size(all)));
        let line = format!("fetching asset {}: {}{all}", self.name, human_size(self.before + len));
        let wall_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        // Nobody may be listening.
        let _ = self.place.told.send(Progress { node: self.node, line, wall_ms });
    }
}

/// Why a file was not brought.
enum Unbrought {
    Disk(io::Error),
    Stopped,
    Refused(String),
    Failed(String),
}

impl Unbrought {
    fn failure(self, failed: &dyn Fn(&str) -> Failure, url: &str) -> Failure {
        match self {
            Self::Disk(error) => failed(&format!("{url}: {error}")),
            Self::Stopped => Failure::new(Cause::Interrupted, "stopped before its asset was there"),
            Self::Refused(said) | Self::Failed(said) => failed(&format!("{url}: {said}")),
        }
    }
}

/// The files that a hub's answer lists.
fn files_of(answer: &[u8], base: &str) -> Result<Vec<Wanted>, String> {
    let answer: serde_json::Value = serde_json::from_slice(answer).map_err(|error| format!("its answer: {error}"))?;
    let listed = answer["siblings"].as_array().ok_or("its answer lists no files")?;
    if listed.is_empty() || listed.len() > MOST {
        return Err(format!("it lists {} files", listed.len()));
    }
    let mut files = Vec::new();
    for one in listed {
        let name = one["rfilename"].as_str().unwrap_or_default();
        let plain = !name.is_empty()
            && name.len() < 1000
            && PathBuf::from(name).components().all(|part| matches!(part, Component::Normal(_)));
        if !plain {
            return Err(format!("it lists a file {name:?}, which leads elsewhere"));
        }
        let mut url = base.to_owned();
        for part in name.split('/') {
            url.push('/');
            for byte in part.bytes() {
                match byte {
                    b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => url.push(char::from(byte)),
                    _ => drop(write!(url, "%{byte:02X}")),
                }
            }
        }
        let sha256 = one["lfs"]["sha256"].as_str().and_then(|sha256| sha256.parse().ok());
        files.push(Wanted { name: name.to_owned(), url, sha256, size: one["size"].as_u64() });
    }
    Ok(files)
}
