//! The beginning of an action: its key's lock, its slots, its attempt's place in the records, and the task that does it.

use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};

use super::*;
use crate::plan::Role;

impl Dispatcher {
    /// Starts what is ready, as far as there is room, slots and keys.
    pub(super) fn start_ready(&mut self, finished: &mpsc::UnboundedSender<Finished>) {
        while self.unwritten < BACKLOG {
            // A slot that is free is not kept waiting by agents that wait for their provider.
            let free = self.states.running() - self.holding < self.options.jobs;
            let next = self.ready[0].pop().or_else(|| if free { self.ready[1].pop() } else { None });
            let Some(Rank { node, .. }) = next else { break };
            match self.reserved(node) {
                Some(kind) => self.aside.push((node, kind)),
                None if self.hold(node) => {}
                None => self.start(node, finished),
            }
            self.settle_fresh();
        }
    }

    /// What an action wants that is kept for one that goes before it and needs more of it than is free now: otherwise narrow
    /// ones would take each slot as it comes free, and the wide one would be the last of all.
    fn reserved(&self, node: usize) -> Option<SlotKind> {
        let rank = self.rank(node);
        let holds = &self.plan().nodes[node].holds;
        let before = self.aside.iter().filter(|(other, _)| self.rank(*other) > rank);
        before.map(|(_, kind)| kind).find(|kind| holds.iter().any(|(own, _)| own == *kind)).cloned()
    }

    pub(super) fn start(&mut self, node: usize, finished: &mpsc::UnboundedSender<Finished>) {
        let Some(key) = self.states.key(node) else { return };
        match self.room(node) {
            Room::Enough => {}
            Room::Wait(what) => return self.aside.push((node, what)),
            Room::Never(held) => {
                self.records.remove(&node);
                return self.over(node, End::open(held));
            }
        }
        let lock = match self.context.store.locks.try_lock(&key) {
            Ok(Some(lock)) => lock,
            Ok(None) => {
                self.states.set(node, State::Contended);
                self.contended.push(node);
                return;
            }
            Err(error) => return self.break_off(error.to_string()),
        };
        // Somebody else may have settled it since this run looked.
        if let Err(error) = self.index.refresh() {
            return self.break_off(error.to_string());
        }
        let again = self.options.again[node];
        match decide_again(&self.context.plan, node, &self.states, &self.context.store, &self.index, again) {
            Decision::Execute { reason, .. } => {
                if let Some((_, known)) = self.records.get_mut(&node) {
                    *known = reason;
                }
            }
            // Served by another run's attempt, or its attempts were used up there.
            other => {
                self.records.remove(&node);
                return self.act_on(node, other);
            }
        }
        let left = match Left::find(&self.context.store, &self.index, &key, &self.run) {
            Ok(left) => left,
            Err(error) => return self.break_off(error.to_string()),
        };
        // What is adopted was paid for.
        let reserved = if left.finished.is_none() { self.afford(node, &key) } else { Some(Reserved::default()) };
        let Some(reserved) = reserved else { return };
        let attempt = match &left.finished {
            Some(finished) => finished.attempt.clone(),
            None => {
                self.attempts += 1;
                AttemptId::new(format!("{}-{}", self.run, self.attempts))
            }
        };
        let avoid = self.first_session_on(node);
        let granted = match self.leases.take(&self.context.plan, node, &attempt, &avoid) {
            Ok(Taken::Granted(granted)) => granted,
            Ok(Taken::Here(kind)) => {
                self.not_paid();
                return self.aside.push((node, kind));
            }
            Ok(Taken::Elsewhere) => {
                self.not_paid();
                self.states.set(node, State::Contended);
                return self.contended.push(node);
            }
            Err(error) => return self.break_off(error),
        };
        self.spawn(node, Granting { key, attempt, left, lock, granted, reserved }, finished);
    }

    /// The slots that the first session of a second one was measured on.
    fn first_session_on(&self, node: usize) -> Vec<String> {
        let plan = &self.context.plan;
        let again = matches!(&plan.nodes[node].ask, Ask::Test(ask) if ask.again);
        let first = plan.linked(node, &Role::Again).filter(|_| again);
        first.and_then(|up| self.states.end(up).settled().map(|ended| ended.slots.clone())).unwrap_or_default()
    }

    pub(super) fn spawn(&mut self, node: usize, granting: Granting, finished: &mpsc::UnboundedSender<Finished>) {
        let Granting { key, attempt, left, lock, granted, reserved } = granting;
        let Some((record, reason)) = self.records.get(&node).cloned() else { return };
        // The record is a blob under its key, so that `why` can always show old and new.
        if let Err(error) = self.context.store.cas.put_as(&key.0, &record.encode()) {
            return self.break_off(error.to_string());
        }
        for started in &left.dead {
            let end = interrupted(&self.context.store, started, &self.run);
            self.index.add(Arc::new(end.clone()));
            self.write(Line::Ended(end), Token::Nothing);
        }
        self.contends.remove(&node);
        let earlier = continued(&reason, &key, &self.index);
        let adopts = left.finished.as_ref().map(|finished| finished.run.clone());
        self.states.set(node, State::Running);
        self.holding += usize::from(self.bounded(node));
        self.claim(node);
        // What another run's agent had finished is only read.
        let own = if adopts.is_none() { self.enter(node) } else { None };
        let plan = self.context.plan.clone();
        let step = plan.step(node).name.value.to_string();
        let axes = plan.nodes[node].axes.clone();
        let reason = if adopts.is_some() { Reason { state: "adopted".into(), ..reason } } else { reason };
        self.tell(Event::ActionStarted {
            node,
            key,
            axes: axes.clone(),
            step: step.clone(),
            attempt: attempt.clone(),
            slots: granted.names(),
            why: reason,
        });
        let durable_first = plan.kind(node) == Kind::Agent;
        let mut go = None;
        let mut began = left.finished.as_ref().map(|finished| finished.at);
        let (pipeline, on_record) = match &left.finished {
            Some(finished) => (finished.pipeline.clone(), finished.reserved),
            None => (self.paid_by(node), reserved.on_record()),
        };
        if adopts.is_none() {
            let at = Timestamp::now();
            let started = Line::Started(Started {
                attempt: attempt.clone(),
                run: self.run.clone(),
                key,
                kind: plan.kind(node).word().into(),
                step,
                axes,
                at,
                slots: granted.names(),
                host: self.context.machine.host.clone(),
                pipeline: pipeline.clone(),
                reserved: on_record,
            });
            // What costs money is on record before it is begun; the rest would be repeated for nothing but seconds.
            let supervised = matches!(plan.kind(node), Kind::Agent | Kind::Test) || !granted.is_empty();
            began = (durable_first || supervised).then_some(at);
            if durable_first {
                if let Some(purse) = &mut self.purse {
                    purse.reserve(node, reserved.amount());
                }
                let (sender, receiver) = oneshot::channel();
                go = Some(receiver);
                self.write(started, Token::Go(sender));
            } else if supervised {
                self.write(started, Token::Nothing);
            }
        }
        let mut ends = SomeEnds::default();
        for link in &plan.nodes[node].links {
            ends.0.insert(link.node, self.states.end(link.node).clone());
        }
        let work = Work {
            context: self.context.clone(),
            node,
            attempt: attempt.clone(),
            ends,
            left,
            earlier,
            locks: granted.descriptors(&lock),
            slots: granted.pairs(),
            cores: self.leases.cores(&granted),
            stop: own.unwrap_or_else(|| self.stop.subscribe()),
            told: self.told.clone(),
        };
        let finished = finished.clone();
        let unbegun = if durable_first { Done::no_agent_began } else { Done::failed };
        tokio::spawn(async move {
            let clock = Instant::now();
            let mut refused = None;
            if let Some(go) = go {
                refused = match go.await {
                    Ok(Ok(())) => None,
                    Ok(Err(why)) => Some(why),
                    Err(_) => Some("the record could not be written".to_owned()),
                };
            }
            let done = match refused {
                Some(why) => unbegun(Failure::new(Cause::HarnessFault, &why)),
                None if *work.stop.borrow() != Stop::No => {
                    unbegun(Failure::new(Cause::Interrupted, "stopped before it began"))
                }
                None => caught(execute(work)).await,
            };
            // The dispatcher outlives every executor: it waits until none is running.
            let _ = finished.send(Finished {
                node,
                attempt,
                adopts,
                began,
                pipeline,
                reserved: on_record,
                done,
                wall: clock.elapsed(),
                granted,
                lock,
            });
        });
    }

    /// Queues a line, with what is to happen once it is durable.
    pub(super) fn write(&mut self, line: Line, token: Token) {
        if let (Some(writer), true) = (&self.writer, self.writes) {
            self.unwritten += 1;
            writer.send(line, token);
        }
    }
}
