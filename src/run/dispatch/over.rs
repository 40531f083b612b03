//! The end of an action for a run: what serves it or leaves it open is told, and what waited for it is looked at.

use super::*;

/// Why an action is reopened, and what to do.
fn reopened(ended: &Ended) -> String {
    format!("reopened: its attempt reads as {} today, which settles nothing; --retry draws again", ended.outcome.word())
}

impl Dispatcher {
    pub(super) fn served(&mut self, node: usize, ended: Arc<Ended>, by: By, marks: Vec<String>) {
        // Another action's attempt may have published elsewhere, and what was published may be gone.
        if let Ask::Command(ask) = &self.context.plan.nodes[node].ask
            && ended.outcome.failure().is_none()
            && let Err(failure) = command::publish(&self.context, ask, &ended.outputs)
        {
            return self.over(node, End::open(format!("cannot publish: {}", failure.evidence.as_str())));
        }
        let follows = if by == By::Cached { self.stirs(node) } else { Vec::new() };
        let event = settled_event(self.plan(), node, &ended, (by, follows), marks);
        self.serve(node, ended, by, event);
    }

    /// An earlier draw stands for an action, by a rule of the manifest.
    pub(super) fn reused(&mut self, node: usize, ended: Arc<Ended>, rule: String) {
        let mut event = settled_event(self.plan(), node, &ended, (By::Reused, Vec::new()), vec!["REUSED".to_owned()]);
        if let Event::ActionSettled { because, .. } = &mut event {
            *because = Some(rule);
        }
        self.serve(node, ended, By::Reused, event);
    }

    fn serve(&mut self, node: usize, ended: Arc<Ended>, by: By, event: Event) {
        self.states.set(node, State::Over { end: End::Settled(ended), by });
        self.fresh.push(Reverse(node));
        match by {
            // The other's line may not be durable yet, and may never be.
            By::Shared(_) => self.tell_if_durable(event),
            _ => self.tell(event),
        }
    }

    /// The nearest actions upstream of one, not executed itself, that this run executed.
    fn stirs(&mut self, node: usize) -> Vec<usize> {
        let mut by: Vec<usize> = Vec::new();
        for link in &self.plan().nodes[node].links {
            match self.states.get(link.node) {
                // The earlier attempt speaks on: nothing follows it.
                _ if self.options.again[link.node].recheck => {}
                State::Over { by: By::Executed, .. } => by.push(link.node),
                State::Over { by: By::Shared(owner), .. } => by.push(*owner),
                _ => by.extend(self.stirred.get(&link.node).into_iter().flatten()),
            }
        }
        by.sort_unstable();
        by.dedup();
        if !by.is_empty() {
            self.stirred.insert(node, by.clone());
        }
        by
    }

    pub(super) fn over(&mut self, node: usize, end: End) {
        let held = match &end {
            End::Open(open) => open.held.as_deref().cloned(),
            _ => None,
        };
        let (word, because) = match &end {
            End::Skipped(cause) => ("skipped", format!("{cause}: {}", cause.next_action())),
            End::Blocked { by } => ("blocked", format!("{} left nothing to go on with", self.plan().title(*by))),
            End::Open(open) => ("open", open.because.clone()),
            End::Reopened(ended) => ("open", reopened(ended)),
            End::Pending | End::Settled(_) => ("open", "it did not end".to_owned()),
        };
        let follows = self.stirs(node);
        let event = Event::ActionOver {
            node,
            axes: self.plan().nodes[node].axes.clone(),
            step: self.plan().step(node).name.value.to_string(),
            end: word.into(),
            because,
            follows,
            held,
        };
        self.states.set(node, State::Over { end, by: By::Nobody });
        self.fresh.push(Reverse(node));
        self.tell(event);
    }

    /// Looks at everything that waited for actions which are over now.
    pub(super) fn settle_fresh(&mut self) {
        // In the order of the plan: of those that have one key the first executes it, as was announced.
        while let Some(Reverse(node)) = self.fresh.pop() {
            self.observe_end(node);
            for sharer in self.sharing.remove(&node).unwrap_or_default() {
                match self.states.end(node).clone() {
                    End::Settled(ended) => self.served(sharer, ended, By::Shared(node), Vec::new()),
                    other => self.over(sharer, other),
                }
            }
            for dependent in self.plan().dependents[node].clone() {
                match self.states.get(dependent) {
                    State::Waiting => self.consider(dependent),
                    State::Gated => self.pass_gates(dependent),
                    _ => {}
                }
            }
            self.tell_jobs(node);
        }
    }

    pub(super) fn tell_jobs(&mut self, node: usize) {
        if self.plan().kind(node) != Kind::Classify {
            return;
        }
        let Some(job) = self.plan().jobs.iter().position(|job| job.classify == Some(node)) else { return };
        let cached = matches!(self.states.get(node), State::Over { by: By::Cached, .. });
        let Some(ended) = self.states.end(node).settled() else { return };
        let text = |name: &str| ended.outputs.get(name).and_then(Value::as_text);
        let speedup = text("speedup").and_then(|text| text.parse().ok());
        let human = match ended.outputs.get("human") {
            Some(Value::List(said)) => said.first().map(|says| Against {
                says: says.clone(),
                ratio: said.get(1).and_then(|ratio| ratio.parse().ok()),
                measured: "same session".to_owned(),
            }),
            _ => None,
        };
        let marks = match ended.outputs.get("marks") {
            Some(Value::List(marks)) => marks.clone(),
            _ => Vec::new(),
        };
        if let (Some(class), false) = (text("class").map(str::to_owned), self.jobs_told[job]) {
            self.jobs_told[job] = true;
            let (control, job) = (self.plan().jobs[job].control, self.plan().jobs[job].id.clone());
            self.tell_if_durable(Event::JobSettled { job, class, speedup, marks, cached, control, human });
        }
    }
}

/// The event of an action that an attempt speaks for: who did it, and what it was to follow.
pub(super) fn settled_event(
    plan: &Plan,
    node: usize,
    ended: &Ended,
    (by, follows): (By, Vec<usize>),
    marks: Vec<String>,
) -> Event {
    Event::ActionSettled {
        node,
        key: ended.key,
        axes: plan.nodes[node].axes.clone(),
        step: plan.step(node).name.value.to_string(),
        attempt: ended.attempt.clone(),
        cached: by != By::Executed,
        shared_with: if let By::Shared(with) = by { Some(with) } else { None },
        outcome: ended.outcome.word().into(),
        evidence: ended.outcome.failure().map(|failure| failure.evidence.as_str().to_owned()),
        wall_ms: ended.wall_ms,
        marks,
        because: None,
        follows,
    }
}
