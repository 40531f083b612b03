//! The commands of `on`: somebody is told, and whatever comes of it the run goes on.

use std::path::Path;

use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::event::{Event, Told};
use crate::manifest::{Moment, On, SecretFrom};
use crate::process;
use crate::step::context::Machine;
use crate::step::secrets::at_hand;

/// The commands of a pipeline, and those under way.
pub struct Hooks {
    /// Each with the end of its last call: one command is told one thing at a time, in the order of the events.
    on: Vec<(On, Option<oneshot::Receiver<()>>)>,
    machine: Machine,
    /// What no complaint of theirs may tell.
    secrets: Vec<SecretFrom>,
    /// What every command is told beside the event.
    frame: serde_json::Map<String, serde_json::Value>,
    under_way: JoinSet<Option<String>>,
}

impl Hooks {
    /// The commands of a pipeline. They get flow's own environment.
    #[must_use]
    pub fn new(
        on: Vec<On>,
        machine: Machine,
        secrets: Vec<SecretFrom>,
        frame: serde_json::Map<String, serde_json::Value>,
    ) -> Self {
        let on = on.into_iter().map(|on| (on, None)).collect();
        Self { on, machine, secrets, frame, under_way: JoinSet::new() }
    }

    /// Starts what is to be run at an event.
    pub fn see(&mut self, told: &Told) {
        let moment = match &told.event {
            // Told when it closes, not each time that it is tried in vain.
            Event::LaneClosed { tries: 0, .. } => Moment::LaneClosed,
            Event::Breaker { .. } => Moment::Breaker,
            Event::RunFinished { .. } => Moment::RunFinished,
            _ => return,
        };
        for (on, last) in self.on.iter_mut().filter(|(on, _)| on.moments.contains(&moment)) {
            let Ok(serde_json::Value::Object(mut text)) = serde_json::to_value(told) else { continue };
            for (name, value) in &self.frame {
                text.entry(name.clone()).or_insert_with(|| value.clone());
            }
            let input = serde_json::Value::Object(text).to_string().into_bytes();
            let (argv, machine, secrets) = (on.command.clone(), self.machine.clone(), self.secrets.clone());
            let (ended, end) = oneshot::channel();
            let before = last.replace(end);
            self.under_way.spawn(async move {
                if let Some(before) = before {
                    // It says nothing: it is dropped when the call before this one ends, however that ended.
                    let _ = before.await;
                }
                let _ended = ended;
                let known = at_hand(&machine, &secrets, &[]);
                let limit = process::ANSWER_LIMIT;
                let told =
                    process::answer_to(Some(input), &argv, &machine.variables, Path::new("."), limit, &known).await;
                told.err().map(|why| format!("the command of `on`, `{}`: {why}", argv.join(" ")))
            });
        }
    }

    /// Waits for one that is under way; says what went wrong. Never comes back if none is.
    pub async fn ended(&mut self) -> Option<String> {
        match self.under_way.join_next().await {
            Some(result) => result.ok().flatten(),
            None => std::future::pending().await,
        }
    }

    /// The end of the run: waits for all that are under way, tells the end to whoever wants to know, and waits for that too. Each
    /// has its limit. What is seen later starts nothing.
    pub async fn end(&mut self, finished: &Told) -> Vec<String> {
        let mut wrong = self.last().await;
        self.see(finished);
        wrong.extend(self.last().await);
        self.on.clear();
        wrong
    }

    async fn last(&mut self) -> Vec<String> {
        let mut wrong = Vec::new();
        while let Some(result) = self.under_way.join_next().await {
            wrong.extend(result.ok().flatten());
        }
        wrong
    }
}
