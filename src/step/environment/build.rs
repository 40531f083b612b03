//! Building an environment by its recipe: of a base tree, with what it fetches; of a patched tree without network and secrets, from
//! the downloads of the base's build. Whose fault a failure is `control` tells.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::attempt::LimitUse;
use crate::git;
use crate::hostile;
use crate::key::{ActionKey, Value};
use crate::manifest::{SandboxDecl, Template};
use crate::names::ObjectId;
use crate::outcome::{Cause, Failure, Outcome};
use crate::plan::{CaseAsk, EnvironmentAsk, Found, RecipeAsk, Role, TreeOf, Trees};
use crate::process::{self, Exit};
use crate::redact::Secret;
use crate::step::container::{Boxed, Where};
use crate::step::context::{Context, OUTPUT_LIMIT, Place, Progress, fault};
use crate::step::done::{Done, Inputs};
use crate::step::environment::clock::Clock;
use crate::step::environment::kept::{self, Complete};
use crate::step::environment::used::{distributions, overlaid};
use crate::step::environment::{FOLDER, IDENTITY, StoreTrees, told, untold};
use crate::step::processes::{Command, failure_of};
use crate::step::sandbox::{Holding, Network};
use crate::step::secrets::redactor;
use crate::text::shorten;

/// How long a build may take where the step says nothing.
const TIMEOUT: Duration = Duration::from_secs(2 * 60 * 60);
/// How often what a build printed is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How much of a command's own error is told, in columns: the command stands behind it.
const TOLD: usize = 240;
/// How much of a text that tells an identity is kept, in bytes.
const IDENTITY_BYTES: u64 = 1 << 20;

/// Builds it.
pub(super) async fn run(
    context: &Context,
    node: usize,
    ask: &EnvironmentAsk,
    recipe: &RecipeAsk,
    key: ActionKey,
    inputs: &Inputs,
    place: &Place,
) -> Done {
    let mut log = Log::default();
    let timeout = context.plan.step(node).timeout.as_ref().map_or(TIMEOUT, |timeout| timeout.value);
    let clock = Clock::start();
    let builder = Builder { context, node, ask, recipe, inputs, place, timeout, clock };
    let mut done = match builder.build(&key, &mut log).await {
        Ok(done) => done,
        Err(failure) => {
            // What is half there is no environment.
            let _ = tokio::task::block_in_place(|| {
                hostile::remove_all(&kept::place(&context.store, &kept::folder_of(&key)))
            });
            Done::failed(failure)
        }
    };
    done.sandbox = log.sandbox.take();
    let stored = tokio::task::block_in_place(|| context.keep(log.text.as_bytes()));
    if let Ok(Some(digest)) = stored {
        done.logs.insert("stdout".into(), digest);
        if let Outcome::Failed(failure) = &done.outcome {
            done.outcome = Outcome::Failed(failure.clone().log(Some(digest)));
        }
    }
    let used = u64::try_from(builder.clock.longest().as_millis()).unwrap_or(u64::MAX);
    let limit = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
    if context.plan.step(node).timeout.is_some() {
        done.limits.insert("timeout".into(), LimitUse { limit, used: used.min(limit), met: used >= limit });
    }
    done
}

/// What the commands printed, and what they were held to.
#[derive(Default)]
pub(super) struct Log {
    pub(super) text: String,
    sandbox: Option<process::Sandbox>,
}

pub(super) struct Builder<'a> {
    pub(super) context: &'a Context,
    node: usize,
    ask: &'a EnvironmentAsk,
    recipe: &'a RecipeAsk,
    pub(super) inputs: &'a Inputs,
    pub(super) place: &'a Place,
    timeout: Duration,
    clock: Clock,
}

/// One build.
pub(super) struct Site<'a> {
    /// The tree's files.
    pub(super) src: PathBuf,
    /// Where it builds into.
    pub(super) out: PathBuf,
    /// What was brought, or is to be.
    pub(super) downloads: PathBuf,
    /// Whether it fetches, with a network.
    pub(super) fetches: bool,
    pub(super) secrets: &'a [Secret],
    /// What is taken out of all that it prints.
    pub(super) known: &'a [Secret],
    /// The tree that its files are of.
    pub(super) tree: TreeOf<'a>,
    /// The image that its commands run in.
    pub(super) image: Option<Boxed>,
}

impl Builder<'_> {
    async fn build(&self, key: &ActionKey, log: &mut Log) -> Result<Done, Failure> {
        if let Some(failure) = self.context.changed_tool(&self.recipe.tools) {
            return Err(failure);
        }
        let folder = kept::folder_of(key);
        let place = kept::place(&self.context.store, &folder);
        self.context.store.hold(&folder);
        if let Some(other) = tokio::task::block_in_place(|| kept::otherwise_called(&place)) {
            // Whoever works in it by that path would lose it.
            let (place, other) = (place.display(), other.display());
            let evidence = format!("{place} was built as {other}, which is the same folder: give the store one path");
            return Err(Failure::new(Cause::EnvironmentFailed, &evidence));
        }
        tokio::task::block_in_place(|| {
            // Nobody else builds under this key; what is there was left by one that was killed, or is of another place.
            hostile::remove_all(&place)?;
            [kept::out(&place), kept::downloads(&place)].iter().try_for_each(std::fs::create_dir_all)
        })
        .map_err(|error| fault(&format!("{}: {error}", place.display())))?;
        let patched = self.ask.human || self.inputs.has(&Role::Patch);
        // What the human made of the base is no stranger's: it is built as a base is, and may want what that did not.
        let trusted = !patched || self.ask.human || self.is_human_tree();
        let tree = self.tree(patched)?;
        let case = match self.case(tree) {
            Err(failure) if patched && self.case(TreeOf { changes: None, ..tree }).is_ok() => {
                // The base has one.
                return Err(Failure::new(Cause::BuildError, failure.evidence.as_str()));
            }
            case => case?,
        };
        let src = self.place.dir.join("src");
        self.context.folder(self.place, "files")?;
        let mut notes = Vec::new();
        let image = self.image(case, &place, log, &mut notes).await?;
        if case.from.is_empty() {
            tokio::task::block_in_place(|| std::fs::create_dir_all(&src))
                .map_err(|error| fault(&format!("{}: {error}", src.display())))?;
        } else {
            tokio::task::block_in_place(|| self.write(tree, case, &src, true))?;
        }
        // Without a command the environment is the image as it is.
        let builds = !(case.run.is_empty() && case.fetch.is_empty());
        let secrets = match trusted && builds {
            true => self.context.secrets(&self.recipe.env.secrets).await?,
            false => Vec::new(),
        };
        let known = untold::known(self.context, self.recipe, &secrets);
        if builds {
            let downloads = if trusted { kept::downloads(&place) } else { self.base_downloads()? };
            let (src, out, image) = (src.clone(), kept::out(&place), image.clone());
            let (secrets, known) = (&secrets, &known);
            let site = Site { src, out, downloads, fetches: trusted, secrets, known, tree, image };
            match patched {
                true => self.patched(tree, case, &site, &mut notes, log).await?,
                false => self.once(case, &site, log).await?,
            }
        }
        if let Some(failure) = self.context.changed_tool(&self.recipe.tools) {
            return Err(failure);
        }
        let identity = self.identity(&kept::out(&place), &known, tree, image, log).await;
        let mut identity = identity.map_err(|failure| match failure.cause {
            // The base's own build passed the same command.
            Cause::EnvironmentFailed if !trusted => Failure::new(Cause::BuildError, failure.evidence.as_str()),
            _ => failure,
        })?;
        tokio::task::block_in_place(|| nothing_left(&place, &secrets))?;
        identity.extend(case.image.as_ref().map(|image| image.fact(&self.context.plan.facts).identity));
        let wall_ms = u64::try_from(self.clock.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let python = tokio::task::block_in_place(|| kept::Python::of(&kept::out(&place)));
        let (at, boxed) = (place.clone(), case.image.is_some());
        let complete =
            Complete { place: at, identity: identity.clone(), files: 0, bytes: 0, holds: None, wall_ms, python, boxed };
        let sealed = tokio::task::block_in_place(|| kept::seal(&place, complete));
        let sealed = sealed.map_err(|error| unkept(&place, &error))?;
        let mut done = Done::succeeded();
        done.output(FOLDER, Value::text(folder));
        done.output(IDENTITY, Value::List(identity));
        done.notes = notes;
        done.notes.push(format!(
            "built: {}, {}",
            crate::text::counted(usize::try_from(sealed.files).unwrap_or(usize::MAX), "file"),
            crate::units::human_size(sealed.bytes)
        ));
        Ok(done)
    }

    /// What was brought for the base.
    fn base_downloads(&self) -> Result<PathBuf, Failure> {
        let base = self.inputs.text(&Role::Environment, FOLDER)?;
        let base = tokio::task::block_in_place(|| kept::whole(&self.context.store, base));
        let (base, _) = base.map_err(|why| Failure::new(Cause::BlobLost, &format!("of the base: {why}")))?;
        kept::note_use(&base);
        Ok(kept::downloads(&base))
    }

    /// Whether the patched tree is the one that the human's change makes.
    fn is_human_tree(&self) -> bool {
        let tree = |role: &Role, name: &str| self.inputs.text(role, name).ok().map(str::to_owned);
        let patched = tree(&Role::Patch, "tree");
        patched.is_some() && patched == tree(&Role::Checkout, "human tree")
    }

    /// The tree that is built: the base's, or the patched one.
    pub(super) fn tree(&self, patched: bool) -> Result<TreeOf<'_>, Failure> {
        let (repo, _) =
            self.context.plan.nodes[self.node].point.commit.ok_or_else(|| fault("an environment without a commit"))?;
        let changes = match (self.ask.human, patched) {
            (true, true) => Some(self.inputs.blob(&Role::Checkout, "human change")?),
            (false, true) => Some(self.inputs.blob(&Role::Patch, "changes")?),
            (_, false) => None,
        };
        Ok(TreeOf { repo, base: self.inputs.text(&Role::Checkout, "tree")?, changes })
    }

    /// How much of its time is left.
    pub(super) fn left(&self) -> Result<Duration, Failure> {
        let left = self.timeout.saturating_sub(self.clock.taken());
        match left.is_zero() {
            true => Err(Failure::new(Cause::EnvironmentFailed, "the step's `timeout` was reached")),
            false => Ok(left),
        }
    }

    fn trees(&self) -> StoreTrees {
        StoreTrees::new(&self.context.store, self.context.sources.clone(), true)
    }

    /// The case of the recipe that fits a tree.
    pub(super) fn case(&self, tree: TreeOf<'_>) -> Result<&CaseAsk, Failure> {
        let found = tokio::task::block_in_place(|| self.trees().find(tree, &self.recipe.cases));
        match found.map_err(|why| Failure::new(Cause::CheckoutFailed, &why))? {
            Found::Case { case, .. } => self.recipe.cases.get(case).ok_or_else(|| fault("a case that is not there")),
            Found::NoCase => {
                let asked: Vec<&str> = self.recipe.cases.iter().filter_map(|case| case.exists.as_deref()).collect();
                let evidence =
                    format!("no case of recipe {} fits: the tree has no {}", self.recipe.name, asked.join(", no "));
                Err(Failure::new(Cause::EnvironmentFailed, &evidence))
            }
        }
    }

    /// Writes the files of a tree that a case is built from, and keeps their listing for who asks why.
    pub(super) fn write(&self, tree: TreeOf<'_>, case: &CaseAsk, to: &Path, keep: bool) -> Result<(), Failure> {
        hostile::remove_all(to).map_err(|error| fault(&format!("{}: {error}", to.display())))?;
        let failed = |error: git::GitError| Failure::new(Cause::CheckoutFailed, &error.to_string());
        let listed = self.trees().listing(tree, case).map_err(|why| Failure::new(Cause::CheckoutFailed, &why))?;
        let (listing, files) = listed;
        if keep {
            self.context.put(&listing)?;
        }
        let mirror = self.context.mirror(tree.repo)?;
        let changes =
            tree.changes.map_or_else(|| Ok(git::Changes::default()), |digest| self.context.changes(digest))?;
        let files: BTreeSet<git::TreePath> = files.into_iter().collect();
        let (blobs, cache) = (self.context.blobs(), self.context.store.inflated());
        let base = ObjectId::new(tree.base);
        git::write_files(&mirror, &base, &changes, &blobs, to, Some(&cache), &files).map_err(failed)?;
        Ok(())
    }

    /// An empty folder at a path.
    pub(super) fn fresh(&self, path: &Path) -> Result<PathBuf, Failure> {
        tokio::task::block_in_place(|| {
            hostile::remove_all(path)?;
            std::fs::create_dir_all(path)
        })
        .map_err(|error| fault(&format!("{}: {error}", path.display())))?;
        Ok(path.to_owned())
    }

    /// Runs the commands of a case once.
    pub(super) async fn once(&self, case: &CaseAsk, site: &Site<'_>, log: &mut Log) -> Result<(), Failure> {
        self.clock.next();
        let mut complaint = None;
        let fetch = case.fetch.iter().filter(|_| site.fetches).map(|argv| (argv, true));
        for (argv, fetches) in fetch.chain(case.run.iter().map(|argv| (argv, false))) {
            let open = site.fetches && (fetches || !self.recipe.offline);
            let network = if open { Network::Open("the recipe brings what it needs") } else { Network::Sealed };
            let (end, printed) = self.command(argv, site, network, log).await?;
            if let Some(failure) = failure_of(&end, Cause::EnvironmentFailed, Cause::EnvironmentFailed) {
                let argv: Vec<String> = argv.iter().map(ToString::to_string).collect();
                let told =
                    told::first_error(&printed).map_or_else(|| failure.evidence.as_str().to_owned(), str::to_owned);
                let forgotten = tokio::task::block_in_place(|| self.forgotten(case, site, &[&told, &printed]));
                let told = shorten(&told, TOLD);
                let evidence = format!("{told}{forgotten} (`{}`)", crate::text::shell(argv));
                let cause = if failure.cause == Cause::Killed { Cause::EnvironmentFailed } else { failure.cause };
                return Err(Failure::new(cause, &evidence).exit(failure.exit));
            }
            complaint = complaint.or_else(|| told::first_error(&printed).map(str::to_owned));
        }
        let built = [Some(&site.out), site.fetches.then_some(&site.downloads)];
        let counted = tokio::task::block_in_place(|| kept::count(built.into_iter().flatten()));
        counted.map_err(|error| unkept(&site.out, &error))?;
        if self.recipe.overlay.is_empty() {
            return Ok(());
        }
        // A build that leaves a part out says so at most in its output.
        match tokio::task::block_in_place(|| overlaid(self.recipe, &site.out)) {
            Ok(_) => Ok(()),
            Err(failure) => {
                let complaint = complaint.map_or(String::new(), |line| format!("; it printed: {line}"));
                Err(Failure::new(failure.cause, &format!("{}{complaint}", failure.evidence.as_str())))
            }
        }
    }

    /// A file that a build did not find, by the first of some texts that names any, and that its tree has: words for the end of its
    /// error, or none.
    fn forgotten(&self, case: &CaseAsk, site: &Site<'_>, printed: &[&str]) -> String {
        let here = format!("{}/", site.src.display());
        let names = printed.iter().map(|text| told::missing(&text.replace(&here, ""))).find(|names| !names.is_empty());
        // Where that cannot be told, the error says what it says.
        let path = names.and_then(|names| self.trees().outside(site.tree, case, &names).ok().flatten());
        path.map_or(String::new(), |path| format!("; the tree has {path}, which no `from` matches"))
    }

    /// Tells the line that it printed last, if that is another one.
    fn tell(&self, site: &Site<'_>, last: &mut Option<String>) {
        let streams = ["build.out", "build.err"].map(|name| self.place.dir.join(name));
        let line = told::last_line(&[&streams[0], &streams[1]], &redactor(site.known));
        if let Some(line) = line.filter(|line| last.as_ref() != Some(line)) {
            *last = Some(line.clone());
            let wall_ms = u64::try_from(self.clock.began.elapsed().as_millis()).unwrap_or(u64::MAX);
            // Nobody listens once the run is over.
            let _ = self.place.told.send(Progress { node: self.node, line, wall_ms });
        }
    }

    async fn command(
        &self,
        argv: &[Template],
        site: &Site<'_>,
        network: Network<'_>,
        log: &mut Log,
    ) -> Result<(process::End, String), Failure> {
        let tool = self.ask.tool.as_ref().and_then(|tool| self.context.plan.facts.tools.get(tool));
        let given = |name: &str| {
            let digest = self.recipe.files.get(name)?;
            let path = self.place.dir.join("files").join(name);
            (path.exists() || self.context.store.cas.copy_to(digest, &path).unwrap_or(false))
                .then(|| path.display().to_string())
        };
        let places = |name: &str| match name {
            file if file.starts_with("file.") => given(&file["file.".len()..]),
            "out" => Some(site.out.display().to_string()),
            "downloads" => Some(site.downloads.display().to_string()),
            "interpreter" if site.image.is_some() => site.image.as_ref().map(|image| image.interpreter.clone()),
            "interpreter" => Some(tool?.as_ref().ok()?.path.display().to_string()),
            _ => None,
        };
        let filled = self.context.fill(argv, &places)?;
        log.text.push_str(&format!("$ {}\n", crate::text::shell(argv.iter().map(ToString::to_string))));
        let left = self.left()?;
        let decl = SandboxDecl::default();
        let mut own = vec![site.src.clone(), site.out.clone()];
        let mut see = Vec::new();
        if site.fetches {
            own.push(site.downloads.clone())
        } else {
            see.push(site.downloads.clone())
        }
        let extra = [("PIP_DISABLE_PIP_VERSION_CHECK", "1"), ("PIP_NO_INPUT", "1"), ("SOURCE_DATE_EPOCH", "315532800")];
        // Without secrets, also such as stand in the URL of an index: a patch runs here.
        let mut env = self.recipe.env.clone();
        if !site.fetches {
            env.secrets.clear();
            env.unhashed.retain(|_, value| !untold::names_a_user(value));
        }
        let command = Command {
            argv: filled,
            env: &env,
            extra: extra.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
            secrets: site.secrets,
            stdin: None,
            cwd: site.src.clone(),
            mark: None,
            serve: None,
            label: "build".into(),
            timeout: Some(left),
            limit: OUTPUT_LIMIT,
            private: None,
            aside: None,
            group: true,
            inside: site.image.clone().map_or(Where::Here, Where::Image),
            durable: false,
            sandbox: Some(Holding { decl: &decl, own, see, hidden: Vec::new(), unseen_tests: false, network }),
        };
        let mut work = std::pin::pin!(self.context.supervised(self.place, command));
        let mut last = None;
        let end = loop {
            tokio::select! {
                end = &mut work => break end?,
                () = tokio::time::sleep(LOOK) => self.tell(site, &mut last),
            }
        };
        if let Some(held) = &end.sandbox {
            log.sandbox = Some(log.sandbox.take().map_or_else(|| held.clone(), |all| all.and(held)));
        }
        let printed = tokio::task::block_in_place(|| {
            let redactor = redactor(site.known);
            ["build.out", "build.err"]
                .map(|file| {
                    String::from_utf8_lossy(&self.context.stream(self.place, file, OUTPUT_LIMIT, &redactor))
                        .into_owned()
                })
                .concat()
        });
        log.text.push_str(&printed);
        match &end.exit {
            Exit::Interrupted { .. } => Err(Failure::new(Cause::Interrupted, "stopped before its end")),
            Exit::NotStarted { why } => Err(Failure::new(
                Cause::EnvironmentFailed,
                &format!("`{}`: {why}", argv.first().map(ToString::to_string).unwrap_or_default()),
            )),
            _ => Ok((end, printed)),
        }
    }

    /// Which environment was built: what the recipe's own command prints, or its installed distributions.
    async fn identity(
        &self,
        out: &Path,
        known: &[Secret],
        tree: TreeOf<'_>,
        image: Option<Boxed>,
        log: &mut Log,
    ) -> Result<Vec<String>, Failure> {
        if self.recipe.identity.is_empty() {
            return Ok(tokio::task::block_in_place(|| distributions(out)));
        }
        let src = self.place.dir.join("src");
        let downloads = self.fresh(&self.place.dir.join("none"))?;
        let site = Site { src, out: out.to_owned(), downloads, fetches: false, secrets: &[], known, tree, image };
        let (end, _) = self.command(&self.recipe.identity, &site, Network::Sealed, log).await?;
        if let Some(failure) = failure_of(&end, Cause::EnvironmentFailed, Cause::EnvironmentFailed) {
            return Err(Failure::new(Cause::EnvironmentFailed, &format!("`identity`: {}", failure.evidence.as_str())));
        }
        let said = self.context.stream(self.place, "build.out", IDENTITY_BYTES, &redactor(known));
        Ok(String::from_utf8_lossy(&said).lines().map(str::to_owned).collect())
    }
}

/// Whose doing it is that what was built cannot be kept: the build's, or the disk's.
fn unkept(place: &Path, error: &std::io::Error) -> Failure {
    match kept::is_of_what_was_built(error) {
        true => Failure::new(Cause::EnvironmentFailed, &format!("what was built cannot be kept: {error}")),
        false => fault(&format!("{}: {error}", place.display())),
    }
}

/// Sees that no secret of the recipe lies in what was built.
fn nothing_left(place: &Path, secrets: &[Secret]) -> Result<(), Failure> {
    let failed = |evidence: String| Failure::new(Cause::EnvironmentFailed, &evidence);
    let left = untold::left_in(&[kept::out(place), kept::downloads(place)], secrets);
    let left = left.map_err(|error| failed(format!("what was built cannot be searched for secrets: {error}")))?;
    let Some((path, name)) = left else { return Ok(()) };
    let path = path.strip_prefix(place).unwrap_or(&path).display().to_string();
    Err(failed(format!(
        "the build left the secret {name} in {path}, where patched trees' builds, tests and agents read it"
    )))
}
