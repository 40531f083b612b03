//! The end of an action, and of the run: what an executor did becomes a record, an event, another try, or the last word.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::*;
use crate::event::Held;

/// How long an action may wait for another run before that is said.
const QUIET: Duration = Duration::from_secs(10);

impl Dispatcher {
    /// Takes what an executor did: the action is over, or tried again.
    pub(super) fn finish(&mut self, finished: Finished) {
        let Finished { node, attempt, adopts, began, pipeline, reserved, mut done, wall, granted, lock } = finished;
        let plan = self.context.plan.clone();
        let Some(key) = self.states.key(node) else { return };
        let recheck = self.options.again[node].recheck;
        let earlier = self.earlier(node, &key);
        // What a recheck makes is compared and goes nowhere.
        if let Ask::Command(ask) = &plan.nodes[node].ask
            && !recheck
            && done.outcome.failure().is_none()
            && let Err(failure) = command::publish(&self.context, ask, &done.outputs)
        {
            done.outcome = Outcome::Failed(failure);
        }
        let unread = done.unread.take();
        if unread.is_none() {
            self.traffic.adoptable.remove(&key);
        }
        if self.traffic.gone(node) {
            self.uncharged(node, &mut done);
        }
        let ended = Arc::new(Ended {
            attempt,
            run: self.run.clone(),
            adopts,
            key,
            kind: plan.kind(node).word().into(),
            step: plan.step(node).name.value.to_string(),
            axes: plan.nodes[node].axes.clone(),
            at: Timestamp::now(),
            began,
            pipeline,
            reserved,
            wall_ms: u64::try_from(wall.as_millis()).unwrap_or(u64::MAX),
            outcome: done.outcome,
            outputs: done.outputs,
            logs: done.logs,
            limits: done.limits,
            notes: done.notes,
            process: done.process,
            read_by: done.read_by,
            usage: done.usage,
            slots: granted.names(),
            sandbox: done.sandbox,
        });
        if let Some(why) = unread {
            return self.leave_unread(node, ended, &why, granted);
        }
        self.give_back(node, granted);
        self.index.add(ended.clone());
        if let Some(purse) = &mut self.purse {
            purse.release(node);
        }
        self.ask_budget();
        let earlier_speaks = earlier.clone().filter(|_| recheck);
        let settles = ended.outcome.settles() || earlier_speaks.is_some();
        let next = (!settles).then(|| self.next(node, &ended));
        let event = match &next {
            None => settled_event(&plan, node, &ended, (By::Executed, Vec::new()), Vec::new()),
            Some(next) => Self::unsettled_event(node, &ended, next),
        };
        let event = self.outbox.hold(Told { event, at: Timestamp::now() });
        self.write(Line::Ended((*ended).clone()), Token::Ended { event, lock });
        self.leave(node, &ended);
        self.observe_attempt(node, &ended, next.as_ref().is_some_and(|next| !next.ends()));
        if let Some(earlier) = earlier_speaks {
            return self.rechecked(node, earlier, &ended);
        }
        if let Some(earlier) = earlier {
            self.compare(node, &earlier, &ended);
        }
        match next {
            None => {
                self.records.remove(&node);
                self.states.set(node, State::Over { end: End::Settled(ended), by: By::Executed });
                self.fresh.push(Reverse(node));
            }
            Some(next) => self.unsettled(node, &ended, next),
        }
    }

    fn give_back(&mut self, node: usize, granted: Granted) {
        self.leases.give_back(granted);
        self.claims.remove(&node);
        self.holding -= usize::from(self.bounded(node));
        for (node, _) in std::mem::take(&mut self.aside) {
            self.make_ready(node);
        }
    }

    /// What a finished agent left is paid for: where the secrets that may be in it, the repository or the disk are not to be
    /// had, it waits for a run that has them, and its attempt gets no end.
    fn leave_unread(&mut self, node: usize, ended: Arc<Ended>, why: &Failure, granted: Granted) {
        self.give_back(node, granted);
        self.leave_silent(node);
        if let Some(purse) = &mut self.purse {
            purse.release(node);
            if ended.adopts.is_none() {
                purse.leave(ended);
            }
        }
        self.ask_budget();
        self.records.remove(&node);
        let evidence = format!("its agent has finished, but {}", why.evidence.as_str());
        let mend = match why.cause {
            Cause::CheckoutFailed => "make the repository readable again",
            Cause::CredentialsExpired | Cause::CredentialsMissing | Cause::SecretMissing => {
                "see that the secret can be had"
            }
            _ => "see that the disk can be written",
        };
        let next = format!("{mend}: the next run reads what the agent left, and pays for no other");
        self.over(
            node,
            End::open(Held { cause: Some(why.cause.name().into()), owner: why.cause.owner(), evidence, next }),
        );
    }

    /// Lines became durable: what they say may be told now.
    pub(super) fn durable(&mut self, written: Written<Token>) {
        let (tokens, error) = match written {
            Ok(tokens) => (tokens, None),
            Err((error, tokens)) => (tokens, Some(error.to_string())),
        };
        for token in tokens {
            self.unwritten -= 1;
            match token {
                Token::Go(go) => {
                    if let Some(purse) = &mut self.purse {
                        purse.durable();
                    }
                    let _ = go.send(error.clone().map_or(Ok(()), Err));
                }
                Token::Ended { event, lock } => {
                    self.outbox.release(event, error.is_none());
                    drop(lock);
                }
                Token::Orphan { attempt, lock } => {
                    if error.is_none() {
                        self.clear_orphan(&attempt);
                    }
                    drop(lock);
                }
                Token::Nothing => {}
            }
        }
        self.send();
        if let Some(error) = error {
            self.break_off(error);
        }
    }

    /// The thread that writes is gone, which only a bug of its own can do: nobody answers for what was sent to it.
    pub(super) fn cannot_write(&mut self) {
        self.writes = false;
        self.unwritten = 0;
        self.outbox.abandon();
        self.break_off("the thread that writes the records died".to_owned());
    }

    /// The store cannot be written: nothing more is begun, and the run says so.
    pub(super) fn break_off(&mut self, why: String) {
        if self.broken.is_none() {
            self.tell(Event::Notice { text: format!("the run stops: {why}") });
            self.broken = Some(why);
        }
    }

    pub(super) fn ask_again(&mut self) {
        for node in std::mem::take(&mut self.contended) {
            let since = *self.contends.entry(node).or_insert_with(Instant::now);
            if since.elapsed() > QUIET {
                // Far in the future: it is told once.
                self.contends.insert(node, Instant::now() + Duration::from_secs(u64::from(u32::MAX)));
                let text = format!("{} waits: {}", self.plan().title(node), self.holder(node));
                self.tell(Event::Notice { text });
            }
            self.states.set(node, State::Ready);
            self.make_ready(node);
        }
    }

    /// Who has what an action waits for, as far as the records say.
    fn holder(&self, node: usize) -> String {
        let key = self.states.key(node);
        let open = self.index.unfinished().unwrap_or_default();
        match open.into_iter().find(|started| Some(started.key) == key && started.run != self.run) {
            Some(started) => format!(
                "attempt {} of run {} on {} is not over, or what is left of it still holds on",
                started.attempt, started.run, started.host
            ),
            None => "another run has it, or a slot that it needs".to_owned(),
        }
    }

    pub(super) fn obey(&mut self, order: Order) {
        match order {
            Order::Drain if self.draining.is_none() => {
                self.draining = Some(Instant::now());
                let running = self.states.running();
                self.tell(Event::Draining { running });
            }
            Order::Drain | Order::Kill => {
                self.draining.get_or_insert_with(Instant::now);
                self.halt(Stop::Now);
            }
        }
    }

    /// Ends the run; gives its last event, which is not told yet.
    pub(super) fn close(&mut self) -> Event {
        // The writer ends when all it was sent is durable.
        self.writer = None;
        self.outbox.abandon();
        let mut classes: BTreeMap<String, usize> = BTreeMap::new();
        let mut open = 0;
        let (mut jobs, mut controls, mut open_controls) = (0, 0, 0);
        for job in &self.options.about {
            let job = &self.context.plan.jobs[*job];
            *if job.control { &mut controls } else { &mut jobs } += 1;
            match job.classify.filter(|classify| self.options.wanted[*classify]) {
                Some(node) => {
                    let settled = self.states.end(node).settled();
                    let class = settled.and_then(|ended| ended.outputs.get("class")?.as_text().map(str::to_owned));
                    if class.is_none() {
                        *if job.control { &mut open_controls } else { &mut open } += 1;
                    }
                    let class = class.unwrap_or_else(|| {
                        classify::provisional(&self.context.plan, node, &self.states).class.name().to_owned()
                    });
                    if !job.control {
                        *classes.entry(class).or_default() += 1;
                    }
                }
                None => {
                    let unsettled = |node: &usize| {
                        let end = self.states.end(*node);
                        self.options.wanted[*node] && (end.is_open() || !end.is_over())
                    };
                    if job.nodes.iter().any(unsettled) {
                        open += 1;
                    }
                }
            }
        }
        // What the run was stopped before is not part of any other count.
        let mut actions = self.states.counts();
        let wanted = self.options.wanted.iter().filter(|wanted| **wanted).count();
        actions.blocked += wanted.saturating_sub(actions.total);
        actions.total = wanted;
        let exit = match (&self.broken, self.draining, open + open_controls) {
            (Some(_), ..) => 3,
            (None, Some(_), _) => 130,
            (None, None, 0) if self.disagreements.is_empty() => 0,
            (None, None, _) => 3,
        };
        let (lanes, paused) = (self.shut_lanes(), self.pauses());
        let (disagreements, rechecked) = (self.disagreements.clone(), self.rechecked);
        Event::RunFinished {
            run: self.run.clone(),
            jobs,
            controls,
            actions,
            classes,
            open,
            lanes,
            paused,
            disagreements,
            rechecked,
            exit,
        }
    }
}
