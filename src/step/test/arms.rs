//! The trees of a test: written before the first process, looked at after each, put back where a process changed its own.
//!
//! Knows nothing of schedules and results.

use std::path::{Path, PathBuf};

use crate::git;
use crate::measure::Arm;
use crate::names::ObjectId;
use crate::outcome::{Cause, Failure};
use crate::plan::Role;
use crate::step::context::fault;
use crate::step::environment::{Built, FOLDER};
use crate::step::pristine::{Pristine, Touched};
use crate::step::processes::identity;
use crate::step::test::Session;

impl Session<'_> {
    /// Whether trees are compared, as opposed to a gate.
    pub(super) fn compares(&self) -> bool {
        self.ask.aa || self.inputs.has(&Role::Patch)
    }

    /// Whether the human's tree is measured beside the patched one: not where it is the same tree.
    pub(super) fn with_human(&self) -> bool {
        let tree = |role: &Role, name: &str| self.inputs.text(role, name).ok();
        self.ask.human
            && self.inputs.has(&Role::Patch)
            && !self.ask.aa
            && tree(&Role::Patch, "tree") != tree(&Role::Checkout, "human tree")
            && !self.human_unbuilt()
    }

    /// Whether the human's tree was to be built and could not be.
    pub(super) fn human_unbuilt(&self) -> bool {
        self.inputs.has(&Role::HumanBuilt) && self.inputs.text(&Role::HumanBuilt, FOLDER).is_err()
    }

    /// The environment that an arm's processes run in, where one was built.
    pub(super) fn built(&self, arm: Arm) -> Result<Option<Built<'_>>, Failure> {
        let role = match arm {
            Arm::Patched if self.inputs.has(&Role::Rebuilt) && !self.ask.aa => Role::Rebuilt,
            Arm::Human if self.inputs.has(&Role::HumanBuilt) => Role::HumanBuilt,
            Arm::Base | Arm::Patched | Arm::Human => Role::Environment,
        };
        Built::of(self.context, self.node, self.inputs, &role)
    }

    /// What that environment gives an arm's processes.
    pub(super) fn built_variables(&self, arm: Arm) -> Result<Vec<(String, String)>, Failure> {
        match self.built(arm)? {
            Some(built) => built.variables(self.context, &self.tree(arm)?, true),
            None => Ok(Vec::new()),
        }
    }

    /// All arms of the session.
    pub(super) fn arms(&self) -> Vec<Arm> {
        let wanted = |arm: &Arm| match arm {
            Arm::Base => true,
            Arm::Patched => self.compares(),
            Arm::Human => self.with_human(),
        };
        Arm::ALL.into_iter().filter(wanted).collect()
    }

    pub(super) fn pristine(&self) -> Result<Pristine, Failure> {
        let tree = |arm| Ok((arm, self.tree(arm)?));
        let trees: Vec<(Arm, PathBuf)> = self.arms().into_iter().map(tree).collect::<Result<_, Failure>>()?;
        let script = self.ask.script.map(|_| self.script()).transpose()?;
        Pristine::of(&trees, script.as_deref()).map_err(|error| gone(&error))
    }

    /// After a process: its own tree is put back if it changed it; what it changed of others is a failure of its own.
    pub(super) fn put_back(&self, pristine: &mut Pristine, arm: Arm) -> Result<Option<Failure>, Failure> {
        if !self.place.dir.join("results").is_dir() {
            return Err(fault("the attempt's place was removed while it was measured"));
        }
        match tokio::task::block_in_place(|| pristine.after(arm)).map_err(|error| gone(&error))? {
            Touched::Nothing => Ok(None),
            Touched::Others(what) if arm == Arm::Patched && !self.ask.aa => {
                let evidence = format!("a process of the patched tree changed {what}");
                Ok(Some(Failure::new(Cause::Tampered, &evidence)))
            }
            Touched::Others(what) => {
                Ok(Some(Failure::new(Cause::Exception, &format!("a process of the {arm} tree changed {what}"))))
            }
            Touched::OwnTree => {
                tokio::task::block_in_place(|| {
                    let dir = self.tree(arm)?;
                    crate::hostile::remove_all(&dir).map_err(|error| gone(&error))?;
                    self.write_arm(arm)?;
                    pristine.renew(arm).map_err(|error| gone(&error))
                })?;
                Ok(None)
            }
        }
    }

    /// A shim may start another program in a tree that says so (`.python-version`): what the key calls the interpreter would
    /// then not be what is measured. Asked anew in each tree, of scripts only: a program is itself wherever it is started.
    pub(super) async fn other_program(&self, tools: &[String]) -> Result<Option<(Arm, Failure)>, Failure> {
        if let Some(base) = self.built(Arm::Base)? {
            for arm in self.arms().into_iter().filter(|arm| *arm == Arm::Patched) {
                let built = self.built(arm)?;
                let other = built.as_ref().filter(|built| built.program() != base.program());
                if let Some(other) = other {
                    let say = |program: Option<(&Path, &str)>| {
                        program.map_or_else(|| "none".to_owned(), |(at, is)| format!("{} ({is})", at.display()))
                    };
                    let (has, had) = (say(other.program()), say(base.program()));
                    let evidence =
                        format!("the build of the {arm} tree has another Python than the base's: {has}, and {had}");
                    // A patch that chooses what runs the test would be measured by its own clock.
                    return Ok(Some((arm, Failure::new(Cause::Tampered, &evidence))));
                }
            }
        }
        let facts = &self.context.plan.facts;
        let shims = tools.iter().filter_map(|tool| facts.tools.get(tool)?.as_ref().ok()).filter(|fact| fact.script);
        for fact in shims {
            for arm in self.arms() {
                let tree = self.tree(arm)?;
                let said = identity(&fact.path, &fact.probes, &self.context.machine.variables, &tree).await;
                if said.as_ref().ok() != Some(&fact.identity) {
                    let said = said.unwrap_or_else(|why| why);
                    let evidence = format!("in the {arm} tree {} is another program: {said}", fact.path.display());
                    return Ok(Some((arm, Failure::new(Cause::OtherProgram, &evidence))));
                }
            }
        }
        Ok(None)
    }

    /// Writes the tree of one arm.
    pub(super) fn write_arm(&self, arm: Arm) -> Result<(), Failure> {
        let failed = |error: git::GitError| Failure::new(Cause::CheckoutFailed, &error.to_string());
        let mirror = self.context.mirror(self.repo)?;
        let base = ObjectId::new(self.inputs.text(&Role::Checkout, "tree")?);
        let changes = match arm {
            Arm::Patched if self.inputs.has(&Role::Patch) && !self.ask.aa => {
                self.context.changes(self.inputs.blob(&Role::Patch, "changes")?)?
            }
            Arm::Human => self.context.changes(self.inputs.blob(&Role::Checkout, "human change")?)?,
            Arm::Base | Arm::Patched => git::Changes::default(),
        };
        let (blobs, cache) = (self.context.blobs(), self.context.store.inflated());
        let tree = self.tree(arm)?;
        git::write_tree(&mirror, &base, &changes, &blobs, &tree, Some(&cache)).map_err(failed)?;
        if let Some(built) = self.built(arm)? {
            let mut brought = built.laid_at(&changes)?;
            if !brought.is_empty() {
                let before = git::select(&mirror, &base, &git::Changes::default(), &|path| brought.contains(path));
                let before = before.map_err(failed)?;
                brought.retain(|path| !before.contains_key(path));
            }
            built.lay_over(&tree, &brought)?;
        }
        Ok(())
    }

    pub(super) fn materialise(&self) -> Result<(), Failure> {
        self.arms().into_iter().try_for_each(|arm| self.write_arm(arm))?;
        if let Some(script) = self.ask.script {
            let path = self.script()?;
            let bytes = self.context.get(&script)?;
            std::fs::write(&path, bytes).map_err(|error| fault(&format!("{}: {error}", path.display())))?;
        }
        Ok(())
    }

    /// The trees' paths are equally long and alike, so that no arm is favoured by its path.
    pub(super) fn tree(&self, arm: Arm) -> Result<PathBuf, Failure> {
        self.context.folder(
            self.place,
            match arm {
                Arm::Base => "tree-a",
                Arm::Patched => "tree-b",
                Arm::Human => "tree-h",
            },
        )
    }

    pub(super) fn script(&self) -> Result<PathBuf, Failure> {
        let name = self.ask.script_path.file_name().map_or_else(|| "test".into(), std::ffi::OsStr::to_os_string);
        Ok(self.context.folder(self.place, "script")?.join(name))
    }
}

/// What is wrong with a place that cannot be looked at.
fn gone(error: &std::io::Error) -> Failure {
    fault(&format!("the attempt's place cannot be read: {error}"))
}
