//! From a manifest to a plan on this machine: tools are probed, commits resolved, devices named, files taken.
//!
//! What is lacking is noted in the plan, not refused: `run` refuses, `plan` and `check` say so and go on.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::digest::Digest;
use crate::git::Source;
use crate::manifest::{Body, Manifest, Pipeline, RepoSource, Template, Tool};
use crate::names::SlotKind;
use crate::plan::expand::{expand, set_heights};
use crate::plan::tools::{packages, source_listing, source_stat, stat_below, tool_stat};
use crate::plan::{Facts, Intake, Missing, Plan, SourceFact, ToolFact, Trees};
use crate::process::{ANSWER_LIMIT, answer};
use crate::run::commits::Asking;
use crate::run::durations::Durations;
use crate::run::memory::Memory;
use crate::run::{assets, images};
use crate::step::context::Machine;
use crate::step::environment::StoreTrees;
use crate::step::processes::identity;
use crate::store::{Index, Store};

/// How the advice begins where a repository is not here and a run brings it by itself.
pub const FETCHES: &str = "`flow run` fetches it";

/// A plan and what it was made with.
pub struct Prepared {
    /// The plan.
    pub plan: Plan,
    /// The files it took.
    pub intake: Intake,
    /// Where each repository comes from.
    pub sources: Vec<Source>,
    /// Things worth saying.
    pub notices: Vec<String>,
}

/// How a plan is to be made.
#[derive(Clone, Debug, Default)]
pub struct Wishes {
    /// Fetch repositories that are not here.
    pub fetch: bool,
    /// Local clones to use in place of what the manifest names: in no key.
    pub repos: BTreeMap<String, PathBuf>,
}

/// Makes the plan of a manifest on this machine.
pub async fn prepare(
    manifest: Arc<Manifest>,
    machine: &Machine,
    store: &Store,
    index: &Index,
    wishes: &Wishes,
) -> Prepared {
    let pipeline = &manifest.pipeline;
    let sources = sources(pipeline, &wishes.repos);
    let mut notices: Vec<String> = manifest.notices.iter().map(|notice| notice.value.clone()).collect();
    let mut facts = Facts {
        variables: machine.variables.clone(),
        platform: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        ..Facts::default()
    };
    let mut memory = Memory::load(store);
    let mut intake = Intake::of(manifest.version.clone());
    for tool in &pipeline.tools {
        let fact = probe(tool, machine, &mut memory, &mut intake).await;
        facts.tools.insert(tool.name.value.clone(), fact);
    }
    facts.images = images::facts(pipeline, &machine.variables, &mut memory, wishes.fetch, &mut notices).await;
    memory.save(store);
    facts.assets = tokio::task::block_in_place(|| assets::facts(pipeline, store));
    facts.devices = devices(pipeline, machine).await;
    tokio::task::block_in_place(|| {
        let asking = Asking { pipeline, sources: &sources, store, index, wishes };
        facts.commits = asking.commits(&mut notices);
        facts.described = asking.described(&facts.commits, &mut notices);
    });
    let mut plan = tokio::task::block_in_place(|| expand(manifest.clone(), facts, &mut intake));
    let trees: Arc<dyn Trees> = Arc::new(StoreTrees::new(store, sources.clone(), wishes.fetch));
    // Nobody set it before: the plan is new.
    let _ = plan.trees.set(trees);
    let durations = Durations::read(index);
    let typical = durations.of_all(&plan);
    set_heights(&mut plan, &|node| typical[node]);
    Prepared { plan, intake, sources, notices }
}

/// Where each repository comes from; of one with a local clone in place of it, from there.
#[must_use]
pub fn sources(pipeline: &Pipeline, local: &BTreeMap<String, PathBuf>) -> Vec<Source> {
    let source = |repo: &crate::manifest::Repo| match (local.get(repo.name.value.as_str()), &repo.source.value) {
        (Some(path), _) => Source::Local(path.clone()),
        (None, RepoSource::Url(url)) => Source::Url(url.clone()),
        (None, RepoSource::Path(path)) if path.is_file() => Source::Stream(path.clone()),
        (None, RepoSource::Path(path)) => Source::Local(path.clone()),
    };
    pipeline.repos.iter().map(source).collect()
}

/// A declared tool with its paths and arguments filled. Nothing was asked of it.
pub struct Located {
    /// The program.
    pub path: PathBuf,
    /// The folders that it watches.
    pub watch: Vec<PathBuf>,
    /// The arguments of its probes.
    pub probes: Vec<Vec<String>>,
    /// Its own source tree.
    pub source: Option<PathBuf>,
}

/// Finds a declared tool on this machine.
///
/// # Errors
/// If a variable is not set, or the program is not there.
pub fn locate(tool: &Tool, machine: &Machine) -> Result<Located, Missing> {
    let missing =
        |what: String, hint: &str| Missing { what, hint: hint.to_owned(), place: Some(tool.path.place), fatal: true };
    let fill = |template: &Template, prefix: Option<&Path>| {
        template.fill(|name| match (name, name.strip_prefix("var."), prefix) {
            ("prefix", _, Some(prefix)) => Ok(prefix.display().to_string()),
            (_, Some(variable), _) => machine.variables.get(variable).cloned().ok_or_else(|| {
                missing(format!("the variable {variable} is not set"), &format!("export {variable}=… first"))
            }),
            _ => Err(missing(format!("`{{{name}}}` means nothing in a tool"), "only `{var.NAME}` and `{prefix}` do")),
        })
    };
    let written = fill(&tool.path.value, None)?;
    let path = find(&written, &tool.dir, machine).ok_or_else(|| {
        let what = format!("the program `{written}` is not there");
        match !written.contains('/') && tool.dir.join(&written).is_file() {
            true => {
                missing(what, &format!("a bare name is looked for in PATH: write `./{written}` for the file beside it"))
            }
            false => missing(what, "install it, or correct the tool's path"),
        }
    })?;
    let prefix = path.parent().and_then(Path::parent);
    let watch =
        tool.watch.iter().map(|watch| Ok(tool.dir.join(fill(&watch.value, prefix)?))).collect::<Result<_, _>>()?;
    let probes = tool
        .probes
        .iter()
        .map(|probe| probe.value.iter().map(|argument| fill(argument, prefix)).collect())
        .collect::<Result<_, _>>()?;
    let source = match &tool.source {
        None => None,
        Some(source) => Some(tool.dir.join(fill(&source.value, prefix)?)),
    };
    Ok(Located { path, watch, probes, source })
}

async fn probe(tool: &Tool, machine: &Machine, memory: &mut Memory, intake: &mut Intake) -> Result<ToolFact, Missing> {
    let missing =
        |what: String, hint: &str| Missing { what, hint: hint.to_owned(), place: Some(tool.path.place), fatal: true };
    let Located { path, watch, probes, source } = locate(tool, machine)?;
    let stat = tool_stat(&path);
    let mut watched = String::new();
    for (path, written) in watch.iter().zip(&tool.watch) {
        let stat = stat_below(path).map_err(|error| Missing {
            what: format!(
                "the path {}, which tool {} watches, cannot be watched: {error}",
                path.display(),
                tool.name.value
            ),
            hint: "watch a smaller folder in it, or the files that matter".into(),
            place: Some(written.place),
            fatal: true,
        })?;
        watched.push_str(&stat);
    }
    for folder in packages(&path) {
        watched.push_str(&tool_stat(&folder));
    }
    let source = match (&tool.source, source) {
        (Some(source), Some(dir)) => {
            let fact = source_fact(&dir, memory, intake).map_err(|error| Missing {
                what: format!("the source tree {} cannot be read: {error}", dir.display()),
                hint: "correct the path of the tool's `source`, or leave it out".into(),
                place: Some(source.place),
                fatal: true,
            })?;
            Some(fact)
        }
        _ => None,
    };
    let script = is_script(&path);
    if !probes.is_empty() {
        let asked: Vec<String> = probes.iter().map(|arguments| arguments.join("\u{1f}")).collect();
        let question = format!("{}\n{stat}\n{watched}\n{}", path.display(), asked.join("\n"));
        let question = Digest::of(question.as_bytes()).hex();
        // Asked in the root folder, so that no file of the project's decides which program a shim starts.
        let known = match memory.recall(&question) {
            Some(known) => known,
            None => {
                let said = identity(&path, &probes, &machine.variables, Path::new("/")).await;
                let said =
                    said.map_err(|why| missing(format!("the probe {why}"), "run it by hand, in the folder /"))?;
                memory.learn(question, said)
            }
        };
        let (identity, asked) = (known.answer().to_owned(), known.at());
        return Ok(ToolFact { path, identity, asked, stat, probes, source, script });
    }
    let bytes = memory.bytes_of(&path, &stat);
    let (digest, asked) =
        bytes.map_err(|error| missing(format!("{} cannot be read: {error}", path.display()), "make it readable"))?;
    let identity = format!("sha256:{digest}");
    Ok(ToolFact { path, identity, asked, stat, probes, source, script: false })
}

/// What a tool's source tree is. Its files are read again only if the stat of one of them changed.
fn source_fact(dir: &Path, memory: &mut Memory, intake: &mut Intake) -> std::io::Result<SourceFact> {
    let stat = source_stat(dir)?;
    let question = Digest::of(format!("{}\n{stat}\nsource", dir.display()).as_bytes()).hex();
    let listing = match memory.recall(&question) {
        Some(known) => known.answer().as_bytes().to_vec(),
        None => {
            let listing = source_listing(dir)?;
            memory.learn(question, String::from_utf8_lossy(&listing).into_owned());
            listing
        }
    };
    Ok(SourceFact { dir: dir.to_owned(), listing: intake.bytes(listing), stat })
}

/// Whether a program is a script: what it starts may depend on more than its bytes.
#[must_use]
pub fn is_script(path: &Path) -> bool {
    use std::io::Read;
    let mut first = [0; 2];
    crate::hostile::open_regular(path).and_then(|mut file| file.read_exact(&mut first)).is_ok() && first == *b"#!"
}

/// Where a program is: a path against the file that says it, a bare name in `PATH`.
fn find(written: &str, dir: &Path, machine: &Machine) -> Option<PathBuf> {
    if written.contains('/') {
        let path = dir.join(written);
        return path.is_file().then_some(path);
    }
    let path = machine.variables.get("PATH")?;
    let executable = |path: &PathBuf| path.metadata().is_ok_and(|meta| meta.is_file() && meta.mode() & 0o111 != 0);
    std::env::split_paths(path).map(|folder| folder.join(written)).find(executable)
}

/// What the slots are, one text a kind (the device that steps are keyed by) and one a GPU slot (its lock's name).
async fn devices(pipeline: &Pipeline, machine: &Machine) -> BTreeMap<String, Result<String, Missing>> {
    let used = |step: &crate::manifest::Step| matches!(step.body, Body::Test(_)) || !step.holds.is_empty();
    let used = pipeline.steps.iter().any(used);
    let kinds: BTreeSet<&SlotKind> = pipeline.slots.iter().map(|slot| &slot.kind.value).collect();
    let mut devices = BTreeMap::new();
    for kind in kinds.into_iter().filter(|_| used) {
        let fact = if kind.as_str() == "gpu" { gpus(pipeline, machine, &mut devices).await } else { Ok(processor()) };
        devices.insert(kind.to_string(), fact);
    }
    devices
}

/// The GPUs of this machine: number, UUID and model of each.
///
/// # Errors
/// What `nvidia-smi` said, or why it said nothing.
pub async fn gpu_rows(machine: &Machine, limit: Duration) -> Result<Vec<[String; 3]>, String> {
    let argv = ["nvidia-smi", "--query-gpu=index,uuid,name", "--format=csv,noheader"].map(str::to_owned);
    let bytes = answer(&argv, &machine.variables, Path::new("/"), limit).await?;
    let text = String::from_utf8_lossy(&bytes);
    let row = |line: &str| {
        let cells: Vec<String> = line.split(", ").map(|cell| cell.trim().to_owned()).collect();
        <[String; 3]>::try_from(cells).ok()
    };
    Ok(text.lines().filter_map(row).collect())
}

async fn gpus(
    pipeline: &Pipeline,
    machine: &Machine,
    devices: &mut BTreeMap<String, Result<String, Missing>>,
) -> Result<String, Missing> {
    let first = pipeline.slots.iter().find(|slot| slot.kind.value.as_str() == "gpu");
    let missing = |what: String| Missing {
        what,
        hint: "run on a machine with the devices that `slots` declares, or correct `slots`".into(),
        place: first.map(|slot| slot.name.place),
        fatal: true,
    };
    let rows =
        gpu_rows(machine, ANSWER_LIMIT).await.map_err(|why| missing(format!("no GPU answers: nvidia-smi: {why}")))?;
    let mut models = BTreeSet::new();
    for slot in pipeline.slots.iter().filter(|slot| slot.kind.value.as_str() == "gpu") {
        let name = slot.name.value.as_str();
        let Some([_, uuid, model]) = rows.iter().find(|[index, uuid, _]| index == name || uuid == name) else {
            return Err(missing(format!("there is no GPU {name} on this machine")));
        };
        models.insert(model.clone());
        devices.insert(format!("gpu/{name}"), Ok(uuid.clone()));
    }
    match models.len() {
        1 => Ok(models.into_iter().collect()),
        _ => Err(missing(format!(
            "the GPUs of `slots` are of different models: {}",
            models.into_iter().collect::<Vec<_>>().join(", ")
        ))),
    }
}

fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    model.map_or_else(|| "unknown processor".to_owned(), |(_, name)| name.trim().to_owned())
}
