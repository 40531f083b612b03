//! The image of an environment: brought by whichever engine is there, and tried once.
//!
//! One that cannot be had, or in which nothing can begin, fails here, before anybody is paid for the commit.

use std::path::Path;
use std::time::Duration;

use crate::container::Kind;
use crate::manifest::{ImageSource, SandboxDecl};
use crate::outcome::{Cause, Failure};
use crate::plan::{CaseAsk, EnvAsk, ImageAsk, Role};
use crate::process::Exit;
use crate::step::container::{Boxed, Where};
use crate::step::context::{Context, OUTPUT_LIMIT};
use crate::step::environment::build::{Builder, Log};
use crate::step::environment::{FOLDER, kept};
use crate::step::processes::Command;
use crate::step::sandbox::{Holding, Network};
use crate::step::secrets::redactor;

/// How long a container may take to begin and to end.
const BEGINS: Duration = Duration::from_secs(5 * 60);
/// What is run to see whether the image has its interpreter.
const LOOK: &str = "command -v \"$0\" >/dev/null || echo none";

/// What an image is for whoever runs in it, given the folder of its environment.
pub(super) fn boxed(context: &Context, image: &ImageAsk, place: &Path) -> Boxed {
    Boxed {
        stat: image.fact(&context.plan.facts).stat,
        image: image.fact(&context.plan.facts).runs,
        file: matches!(image.source, ImageSource::File(_)),
        pulled: kept::image(place),
        interpreter: image.interpreter.clone(),
        programs: None,
    }
}

impl Builder<'_> {
    /// The image of a case, which can be run from now on; nothing where it has none.
    pub(super) async fn image(
        &self,
        case: &CaseAsk,
        into: &Path,
        log: &mut Log,
        notes: &mut Vec<String>,
    ) -> Result<Option<Boxed>, Failure> {
        let Some(image) = &case.image else { return Ok(None) };
        let failed = |why: &str| Failure::new(Cause::EnvironmentFailed, why);
        if let Some(why) = image.fact(&self.context.plan.facts).trouble {
            return Err(failed(&why));
        }
        let boxed = boxed(self.context, image, into);
        let engine = self.context.engine(boxed.file).await?;
        let (variables, name) = (&self.context.machine.variables, image.source.to_string());
        let there = match engine.kind {
            Kind::Apptainer => boxed.file || self.copied(&boxed),
            Kind::Podman | Kind::Docker => engine.image(&boxed.image, variables).await.is_ok(),
        };
        if !there {
            let argv = engine.pull(&boxed.image, &boxed.pulled);
            log.text.push_str(&format!("$ {}\n", crate::text::shell(argv.iter().cloned())));
            let said = self.said(argv, Where::Client, self.left()?, log).await?;
            said.map_err(|why| failed(&format!("{} cannot bring {name}: {why}", engine.kind.word())))?;
        }
        log.text.push_str(&format!("the image is {name}, run by {} {}\n", engine.kind.word(), engine.version));
        let argv = ["/bin/sh", "-c", LOOK, &boxed.interpreter].map(str::to_owned).to_vec();
        let said = self.said(argv, Where::Image(boxed.clone()), self.left()?.min(BEGINS), log).await?;
        let said = said.map_err(|why| failed(&format!("nothing begins in {name}: {why}")))?;
        if said.trim() == "none" {
            notes.push(format!("the image has no `{}`", boxed.interpreter));
        }
        Ok(Some(boxed))
    }

    /// What a command prints, or what it complains of in its last line.
    async fn said(
        &self,
        argv: Vec<String>,
        inside: Where,
        timeout: Duration,
        log: &mut Log,
    ) -> Result<Result<String, String>, Failure> {
        let (decl, env) = (SandboxDecl::default(), EnvAsk::default());
        let (own, see, hidden) = (Vec::new(), Vec::new(), Vec::new());
        let network = Network::None;
        let holding = Holding { decl: &decl, own, see, hidden, unseen_tests: false, network };
        let command = Command {
            argv,
            env: &env,
            extra: Vec::new(),
            secrets: &[],
            stdin: None,
            cwd: self.context.folder(self.place, "home")?,
            mark: None,
            serve: None,
            label: "image".into(),
            timeout: Some(timeout),
            limit: OUTPUT_LIMIT,
            private: None,
            aside: None,
            group: false,
            sandbox: matches!(inside, Where::Image(_)).then_some(holding),
            inside,
            durable: false,
        };
        let end = self.context.supervised(self.place, command).await?;
        let stream = |file: &str| self.context.stream(self.place, file, OUTPUT_LIMIT, &redactor(&[]));
        let printed = tokio::task::block_in_place(|| ["image.out", "image.err"].map(stream));
        let [out, err] = printed.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        log.text.push_str(&out);
        log.text.push_str(&err);
        let last = || err.lines().chain(out.lines()).map(str::trim).rfind(|line| !line.is_empty()).map(str::to_owned);
        Ok(match &end.exit {
            Exit::Code(0) => Ok(out),
            Exit::Interrupted { .. } => return Err(Failure::new(Cause::Interrupted, "stopped before its end")),
            Exit::TimedOut { limit_ms } => Err(format!("no answer within {} s", limit_ms / 1000)),
            Exit::NotStarted { why } => Err(why.clone()),
            Exit::Code(code) => Err(last().unwrap_or_else(|| format!("exit code {code}"))),
            Exit::Signal(signal) => Err(last().unwrap_or_else(|| format!("killed by signal {signal}"))),
            Exit::OverLimit { .. } => Err("it printed too much".to_owned()),
        })
    }

    /// Whether what apptainer brought for the base is the image of a patched tree too, and is there now.
    fn copied(&self, boxed: &Boxed) -> bool {
        let Ok(base) = self.inputs.text(&Role::Environment, FOLDER) else { return false };
        if kept::complete(&self.context.store, base).is_none() || self.base_image().as_ref() != Some(&boxed.image) {
            return false;
        }
        let from = kept::image(&kept::place(&self.context.store, base));
        tokio::task::block_in_place(|| std::fs::copy(from, &boxed.pulled)).is_ok()
    }

    /// What the base's environment runs in.
    fn base_image(&self) -> Option<String> {
        let base = self.case(self.tree(false).ok()?).ok()?;
        Some(base.image.as_ref()?.fact(&self.context.plan.facts).runs)
    }
}
