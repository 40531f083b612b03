//! The dispatcher: owns every state of a run, decides what happens next, and talks by events. Executors only do work.
//!
//! It reads no manifest and runs no process itself. Its truth is the records: a state here is what they and this run's own
//! attempts imply.

use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};

use crate::attempt::{Ended, Line, Started};
use crate::event::{Event, Reason, Told};
use crate::key::{ActionKey, KeyRecord, Value};
use crate::manifest::Kind;
use crate::names::{AttemptId, RunId, SlotKind};
use crate::outcome::{Cause, Failure, Outcome};
use crate::plan::{Ask, Plan};
use crate::run::decide::{ATTEMPTS, Again, Decision, decide_again};
use crate::run::execute::{Left, Work, caught, execute};
use crate::run::journal::Journal;
use crate::run::leases::{Granted, Leases, Taken};
use crate::run::outbox::{Outbox, Ticket};
use crate::run::recover::interrupted;
use crate::run::state::{By, State, States};
use crate::run::writer::{Writer, Written};
use crate::step::{Context, Done, End, Ends, SomeEnds, Stop, classify, command};
use crate::store::{Index, KeyLock, RecordWriter};

/// How often a key or a slot that somebody else holds is asked for again.
const ASK_AGAIN: Duration = Duration::from_millis(20);

/// How many lines may wait to become durable before nothing more is begun: what a kill would make this run do again.
const BACKLOG: usize = 32;

/// What a person may tell a run while it works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Begin nothing more; what runs may end within the grace.
    Drain,
    /// End now.
    Kill,
}

/// Someone who watches. Cannot answer back.
pub trait Observer: Send {
    /// Sees an event.
    fn see(&mut self, told: &Told);
}

/// How a run is to go.
pub struct Options {
    /// At most so many actions at once.
    pub jobs: usize,
    /// How long running actions may go on after a drain was asked for.
    pub drain: Duration,
    /// Which actions are wanted; the others are not part of this run.
    pub wanted: Vec<bool>,
    /// Which actions are executed though an attempt is there, and why.
    pub again: Vec<Again>,
}

/// What a run is made of.
pub struct Parts {
    /// The plan, the store and this machine.
    pub context: Arc<Context>,
    /// The run's name.
    pub run: RunId,
    /// The manifest's path as it was written.
    pub manifest: String,
    /// What the store knows.
    pub index: Index,
    /// Where this run writes its attempts.
    pub records: RecordWriter,
    /// Where this run writes its events.
    pub journal: Journal,
    /// The slots of this machine.
    pub leases: Leases,
    /// How it is to go.
    pub options: Options,
    /// Who watches.
    pub observers: Vec<Box<dyn Observer>>,
}

/// How a run ended.
#[derive(Debug)]
pub struct Report {
    /// The last event.
    pub finished: Event,
    /// The exit code.
    pub exit: i32,
}

/// What a line that became durable lets happen.
enum Token {
    /// A started line: the executor may spawn.
    Go(oneshot::Sender<Result<(), String>>),
    /// An ended line: the action may be told as settled, and its key let go.
    Ended { event: Ticket, lock: KeyLock },
    /// Nothing.
    Nothing,
}

/// What an action has that may be executed: its attempt and all it holds.
struct Granting {
    key: ActionKey,
    attempt: AttemptId,
    left: Left,
    lock: KeyLock,
    granted: Granted,
}

/// What an executor sends back.
struct Finished {
    node: usize,
    attempt: AttemptId,
    adopts: Option<RunId>,
    done: Done,
    wall: Duration,
    granted: Granted,
    lock: KeyLock,
}

/// One run in progress.
pub struct Dispatcher {
    context: Arc<Context>,
    run: RunId,
    manifest: String,
    index: Index,
    options: Options,
    states: States,
    /// What can begin: what holds slots or lanes, which bound it, and the rest, which `--jobs` bounds.
    ready: [BinaryHeap<Rank>; 2],
    /// Actions that wait for slots or lanes of this run, each with what it lacks.
    aside: Vec<(usize, SlotKind)>,
    contended: Vec<usize>,
    records: HashMap<usize, (KeyRecord, Reason)>,
    owners: HashMap<ActionKey, usize>,
    sharing: HashMap<usize, Vec<usize>>,
    tried: HashMap<usize, u32>,
    leases: Leases,
    writer: Option<Writer<Token>>,
    written: mpsc::UnboundedReceiver<Written<Token>>,
    unwritten: usize,
    /// Whether the thread that writes is there.
    writes: bool,
    attempts: u32,
    /// How many of the running actions hold slots or lanes.
    holding: usize,
    observers: Vec<Box<dyn Observer>>,
    journal: Journal,
    outbox: Outbox,
    stop: watch::Sender<Stop>,
    draining: Option<Instant>,
    broken: Option<String>,
    fresh: Vec<usize>,
    jobs_told: Vec<bool>,
    commit_ranks: Vec<usize>,
}

/// The order in which ready actions go: commits in the plan's order, within one the longest way to its end first.
#[derive(Debug, PartialEq)]
struct Rank {
    commit: usize,
    height: f64,
    node: usize,
}

impl Eq for Rank {}

impl Ord for Rank {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        // The greatest comes out first.
        other.commit.cmp(&self.commit).then(self.height.total_cmp(&other.height)).then(other.node.cmp(&self.node))
    }
}

impl PartialOrd for Rank {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Dispatcher {
    /// Makes a dispatcher for a plan whose files are in the store.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let Parts { context, run, manifest, index, records, journal, leases, options, observers } = parts;
        let (done, written) = mpsc::unbounded_channel();
        let writer = Writer::start(records, done);
        let actions = context.plan.nodes.len();
        let jobs = context.plan.jobs.len();
        let commit_ranks = commit_ranks(&context.plan);
        Self {
            context,
            run,
            manifest,
            index,
            options,
            states: States::new(actions),
            ready: [BinaryHeap::new(), BinaryHeap::new()],
            aside: Vec::new(),
            contended: Vec::new(),
            records: HashMap::new(),
            owners: HashMap::new(),
            sharing: HashMap::new(),
            tried: HashMap::new(),
            leases,
            writer: Some(writer),
            written,
            unwritten: 0,
            writes: true,
            attempts: 0,
            holding: 0,
            observers,
            journal,
            outbox: Outbox::default(),
            stop: watch::channel(Stop::No).0,
            draining: None,
            broken: None,
            fresh: Vec::new(),
            jobs_told: vec![false; jobs],
            commit_ranks,
        }
    }

    fn plan(&self) -> &Plan {
        &self.context.plan
    }

    fn tell(&mut self, event: Event) {
        self.outbox.push(Told { event, at: Timestamp::now() });
        self.send();
    }

    /// The same for what is true only if every record before it becomes durable.
    fn tell_if_durable(&mut self, event: Event) {
        self.outbox.follow(Told { event, at: Timestamp::now() });
        self.send();
    }

    /// Tells what may be told: events keep their order, and wait for their records.
    fn send(&mut self) {
        while let Some(told) = self.outbox.pop() {
            self.journal.see(&told);
            for observer in &mut self.observers {
                observer.see(&told);
            }
        }
    }

    /// Runs the plan to its end, or to where it is told to stop.
    pub async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>) -> Report {
        let wanted = self.options.wanted.iter().filter(|wanted| **wanted).count();
        let jobs = self.wanted_jobs().len();
        self.tell(Event::RunStarted {
            run: self.run.clone(),
            pipeline: self.plan().manifest.pipeline.name.value.clone(),
            manifest: self.manifest.clone(),
            jobs,
            actions: wanted,
        });
        let (finished, mut results) = mpsc::unbounded_channel::<Finished>();
        for node in 0..self.plan().nodes.len() {
            if self.options.wanted[node] {
                self.consider(node);
                self.settle_fresh();
            }
        }
        loop {
            if self.draining.is_none() && self.broken.is_none() {
                self.start_ready(&finished);
            }
            if self.is_over() {
                break;
            }
            let ask_again = !self.contended.is_empty() && self.draining.is_none();
            let grace = self.draining.map(|since| self.options.drain.saturating_sub(since.elapsed()));
            tokio::select! {
                Some(result) = results.recv() => self.finish(result),
                written = self.written.recv(), if self.writes => match written {
                    Some(written) => self.durable(written),
                    None => self.cannot_write(),
                },
                Some(order) = orders.recv() => self.obey(order),
                () = tokio::time::sleep(ASK_AGAIN), if ask_again => self.ask_again(),
                () = tokio::time::sleep(grace.unwrap_or_default()), if grace.is_some() && *self.stop.borrow() == Stop::No => {
                    self.stop.send_replace(Stop::Polite);
                }
            }
            self.settle_fresh();
        }
        self.close()
    }

    fn is_over(&self) -> bool {
        let idle = self.states.running() == 0 && self.unwritten == 0;
        let stopped = self.draining.is_some() || self.broken.is_some();
        let waiting = self.ready.iter().all(BinaryHeap::is_empty) && self.aside.is_empty() && self.contended.is_empty();
        idle && (stopped || waiting)
    }

    fn wanted_jobs(&self) -> Vec<usize> {
        let last = |job: &crate::plan::Job| job.classify.or(job.nodes.last().copied());
        let wanted = |index: &usize| last(&self.plan().jobs[*index]).is_some_and(|node| self.options.wanted[node]);
        (0..self.plan().jobs.len()).filter(wanted).collect()
    }

    /// Looks at an action whose inputs may have ended.
    fn consider(&mut self, node: usize) {
        if !self.options.wanted[node] || !matches!(self.states.get(node), State::Waiting | State::Gated) {
            return;
        }
        let decision = decide_again(
            &self.context.plan,
            node,
            &self.states,
            &self.context.store,
            &self.index,
            self.options.again[node],
        );
        self.act_on(node, decision);
    }

    fn act_on(&mut self, node: usize, decision: Decision) {
        match decision {
            Decision::Wait { .. } => {}
            Decision::Over(end) => self.over(node, end),
            Decision::Lacking => {
                let what: Vec<&str> = self.plan().nodes[node].missing.iter().map(|m| m.what.as_str()).collect();
                let because = what.join("; ");
                self.over(node, End::Open(because));
            }
            Decision::Exhausted { last, counted } => {
                let word = last.outcome.word();
                self.over(node, End::Open(format!("{counted} attempts ended in {word}; --retry tries again")));
            }
            Decision::Served { ended, over_limit, .. } => {
                self.states.set_key(node, ended.key);
                let marks = if over_limit { vec!["OVER_LIMIT".to_owned()] } else { Vec::new() };
                self.served(node, ended, By::Cached, marks);
            }
            Decision::Execute { record, reason, counted } => self.execute(node, record, reason, counted),
        }
    }

    fn execute(&mut self, node: usize, record: KeyRecord, reason: Reason, counted: u32) {
        let key = record.key();
        self.states.set_key(node, key);
        let owner = *self.owners.entry(key).or_insert(node);
        if owner != node {
            match self.states.get(owner) {
                State::Over { end, .. } => {
                    let end = end.clone();
                    match end {
                        End::Settled(ended) => self.served(node, ended, By::Shared(owner), Vec::new()),
                        other => self.over(node, other),
                    }
                }
                _ => {
                    self.sharing.entry(owner).or_default().push(node);
                    self.states.set(node, State::Sharing { with: owner });
                }
            }
            return;
        }
        self.tried.entry(node).or_insert(counted);
        self.records.insert(node, (record, reason));
        self.pass_gates(node);
    }

    /// A gate holds execution back until its action has ended well; it never keeps what is there from being served.
    fn pass_gates(&mut self, node: usize) {
        let gates = self.plan().nodes[node].gates.clone();
        let mut shut = None;
        for gate in gates {
            match self.states.end(gate) {
                End::Pending => {
                    if !matches!(self.states.get(node), State::Gated) {
                        self.states.set(node, State::Gated);
                    }
                    return;
                }
                End::Settled(ended) if ended.outcome.failure().is_none() => {}
                End::Open(_) => shut = Some(End::Open(format!("waits for {}", self.plan().title(gate)))),
                _ => {
                    shut = Some(End::Blocked { by: gate });
                    break;
                }
            }
        }
        match shut {
            Some(end) => {
                self.records.remove(&node);
                self.over(node, end);
            }
            None => {
                self.states.set(node, State::Ready);
                self.make_ready(node);
            }
        }
    }

    fn make_ready(&mut self, node: usize) {
        let rank = self.rank(node);
        let holds_nothing = self.plan().nodes[node].holds.is_empty();
        self.ready[usize::from(holds_nothing)].push(rank);
    }

    fn rank(&self, node: usize) -> Rank {
        Rank { commit: self.commit_ranks[node], height: self.plan().nodes[node].height, node }
    }

    fn served(&mut self, node: usize, ended: Arc<Ended>, by: By, marks: Vec<String>) {
        // Another action's attempt may have published elsewhere, and what was published may be gone.
        if let Ask::Command(ask) = &self.context.plan.nodes[node].ask
            && ended.outcome.failure().is_none()
            && let Err(failure) = command::publish(&self.context, ask, &ended.outputs)
        {
            return self.over(node, End::Open(format!("cannot publish: {}", failure.evidence.as_str())));
        }
        let event = settled_event(self.plan(), node, &ended, by, marks);
        self.states.set(node, State::Over { end: End::Settled(ended), by });
        self.fresh.push(node);
        match by {
            // The other's line may not be durable yet, and may never be.
            By::Shared(_) => self.tell_if_durable(event),
            _ => self.tell(event),
        }
    }

    fn over(&mut self, node: usize, end: End) {
        let (word, because) = match &end {
            End::Skipped(cause) => ("skipped", format!("{cause}: {}", cause.next_action())),
            End::Blocked { by } => ("blocked", format!("{} left nothing to go on with", self.plan().title(*by))),
            End::Open(because) => ("open", because.clone()),
            End::Pending | End::Settled(_) => ("open", "it did not end".to_owned()),
        };
        let event = Event::ActionOver {
            node,
            axes: self.plan().nodes[node].axes.clone(),
            step: self.plan().step(node).name.value.to_string(),
            end: word.into(),
            because,
        };
        self.states.set(node, State::Over { end, by: By::Nobody });
        self.fresh.push(node);
        self.tell(event);
    }

    /// Looks at everything that waited for actions which are over now.
    fn settle_fresh(&mut self) {
        while let Some(node) = self.fresh.pop() {
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

    fn tell_jobs(&mut self, node: usize) {
        if self.plan().kind(node) != Kind::Classify {
            return;
        }
        let Some(job) = self.plan().jobs.iter().position(|job| job.classify == Some(node)) else { return };
        let cached = matches!(self.states.get(node), State::Over { by: By::Cached, .. });
        let Some(ended) = self.states.end(node).settled() else { return };
        let text = |name: &str| ended.outputs.get(name).and_then(Value::as_text);
        let speedup = text("speedup").and_then(|text| text.parse().ok());
        if let (Some(class), false) = (text("class").map(str::to_owned), self.jobs_told[job]) {
            self.jobs_told[job] = true;
            let job = self.plan().jobs[job].id.clone();
            self.tell_if_durable(Event::JobSettled { job, class, speedup, cached });
        }
    }

    /// Starts what is ready, as far as there is room, slots and keys.
    fn start_ready(&mut self, finished: &mpsc::UnboundedSender<Finished>) {
        while self.unwritten < BACKLOG {
            // A slot that is free is not kept waiting by agents that wait for their provider.
            let free = self.states.running() - self.holding < self.options.jobs;
            let next = self.ready[0].pop().or_else(|| if free { self.ready[1].pop() } else { None });
            let Some(Rank { node, .. }) = next else { break };
            match self.reserved(node) {
                Some(kind) => self.aside.push((node, kind)),
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

    fn start(&mut self, node: usize, finished: &mpsc::UnboundedSender<Finished>) {
        let Some(key) = self.states.key(node) else { return };
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
        let attempt = match &left.finished {
            Some(finished) => finished.attempt.clone(),
            None => {
                self.attempts += 1;
                AttemptId::new(format!("{}-{}", self.run, self.attempts))
            }
        };
        let granted = match self.leases.take(&self.context.plan, node, &attempt) {
            Ok(Taken::Granted(granted)) => granted,
            Ok(Taken::Here(kind)) => return self.aside.push((node, kind)),
            Ok(Taken::Elsewhere) => {
                self.states.set(node, State::Contended);
                return self.contended.push(node);
            }
            Err(error) => return self.break_off(error),
        };
        self.spawn(node, Granting { key, attempt, left, lock, granted }, finished);
    }

    fn spawn(&mut self, node: usize, granting: Granting, finished: &mpsc::UnboundedSender<Finished>) {
        let Granting { key, attempt, left, lock, granted } = granting;
        let Some((record, reason)) = self.records.get(&node).cloned() else { return };
        // The record is a blob under its key, so that `why` can always show old and new.
        if let Err(error) = self.context.store.cas.put_as(&key.0, &record.encode()) {
            return self.break_off(error.to_string());
        }
        for started in &left.dead {
            let end = interrupted(started, &self.run);
            self.index.add(Arc::new(end.clone()));
            self.write(Line::Ended(end), Token::Nothing);
        }
        let adopts = left.finished.as_ref().map(|finished| finished.run.clone());
        self.states.set(node, State::Running);
        self.holding += usize::from(!self.plan().nodes[node].holds.is_empty());
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
        if adopts.is_none() {
            let started = Line::Started(Started {
                attempt: attempt.clone(),
                run: self.run.clone(),
                key,
                kind: plan.kind(node).word().into(),
                step,
                axes,
                at: Timestamp::now(),
                slots: granted.names(),
                host: self.context.machine.host.clone(),
            });
            // What costs money is on record before it is begun; the rest would be repeated for nothing but seconds.
            let supervised = matches!(plan.kind(node), Kind::Agent | Kind::Test) || !granted.is_empty();
            if durable_first {
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
            locks: granted.descriptors(&lock),
            slots: granted.pairs(),
            cores: self.leases.cores(&granted),
            stop: self.stop.subscribe(),
        };
        let finished = finished.clone();
        tokio::spawn(async move {
            let began = Instant::now();
            let mut refused = None;
            if let Some(go) = go {
                refused = match go.await {
                    Ok(Ok(())) => None,
                    Ok(Err(why)) => Some(why),
                    Err(_) => Some("the record could not be written".to_owned()),
                };
            }
            let done = match refused {
                Some(why) => Done::failed(Failure::new(Cause::HarnessFault, &why)),
                None => caught(execute(work)).await,
            };
            // The dispatcher outlives every executor: it waits until none is running.
            let _ = finished.send(Finished { node, attempt, adopts, done, wall: began.elapsed(), granted, lock });
        });
    }

    /// Queues a line, with what is to happen once it is durable.
    fn write(&mut self, line: Line, token: Token) {
        if let (Some(writer), true) = (&self.writer, self.writes) {
            self.unwritten += 1;
            writer.send(line, token);
        }
    }

    /// Takes what an executor did: the action is over, or tried again.
    fn finish(&mut self, finished: Finished) {
        let Finished { node, attempt, adopts, mut done, wall, granted, lock } = finished;
        let plan = self.context.plan.clone();
        let Some(key) = self.states.key(node) else { return };
        if let Ask::Command(ask) = &plan.nodes[node].ask
            && done.outcome.failure().is_none()
            && let Err(failure) = command::publish(&self.context, ask, &done.outputs)
        {
            done.outcome = Outcome::Failed(failure);
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
            wall_ms: u64::try_from(wall.as_millis()).unwrap_or(u64::MAX),
            outcome: done.outcome,
            outputs: done.outputs,
            logs: done.logs,
            limits: done.limits,
            notes: done.notes,
            usage: done.usage,
            slots: granted.names(),
        });
        self.leases.give_back(granted);
        self.holding -= usize::from(!plan.nodes[node].holds.is_empty());
        for (node, _) in std::mem::take(&mut self.aside) {
            self.make_ready(node);
        }
        self.index.add(ended.clone());
        let settles = ended.outcome.settles();
        let event = if settles {
            settled_event(&plan, node, &ended, By::Executed, Vec::new())
        } else {
            self.unsettled_event(node, &ended)
        };
        let event = self.outbox.hold(Told { event, at: Timestamp::now() });
        self.write(Line::Ended((*ended).clone()), Token::Ended { event, lock });
        if settles {
            self.records.remove(&node);
            self.states.set(node, State::Over { end: End::Settled(ended), by: By::Executed });
            self.fresh.push(node);
        } else {
            self.unsettled(node, &ended);
        }
    }

    fn again(&self, node: usize, ended: &Ended) -> bool {
        let counts = ended.outcome.failure().is_some_and(|failure| failure.cause.counts());
        let cap = self.plan().step(node).attempts.as_ref().map_or(ATTEMPTS, |attempts| attempts.value);
        let tried = self.tried.get(&node).copied().unwrap_or(0) + 1;
        counts && tried < cap && self.draining.is_none() && self.broken.is_none()
    }

    fn unsettled_event(&self, node: usize, ended: &Ended) -> Event {
        Event::AttemptFailed {
            node,
            axes: ended.axes.clone(),
            step: ended.step.clone(),
            attempt: ended.attempt.clone(),
            outcome: ended.outcome.word().into(),
            evidence: ended.outcome.failure().map(|failure| failure.evidence.as_str().to_owned()).unwrap_or_default(),
            again: self.again(node, ended),
        }
    }

    fn unsettled(&mut self, node: usize, ended: &Arc<Ended>) {
        let again = self.again(node, ended);
        if ended.outcome.failure().is_some_and(|failure| failure.cause.counts()) {
            *self.tried.entry(node).or_insert(0) += 1;
        }
        if again {
            self.states.set(node, State::Ready);
            self.make_ready(node);
            return;
        }
        self.records.remove(&node);
        let because = ended.outcome.failure().map_or_else(String::new, |failure| {
            format!("{}: {}; {}", failure.cause, failure.evidence.as_str(), failure.cause.next_action())
        });
        self.states.set(node, State::Over { end: End::Open(because), by: By::Executed });
        self.fresh.push(node);
    }

    /// Lines became durable: what they say may be told now.
    fn durable(&mut self, written: Written<Token>) {
        let (tokens, error) = match written {
            Ok(tokens) => (tokens, None),
            Err((error, tokens)) => (tokens, Some(error.to_string())),
        };
        for token in tokens {
            self.unwritten -= 1;
            match token {
                Token::Go(go) => {
                    let _ = go.send(error.clone().map_or(Ok(()), Err));
                }
                Token::Ended { event, lock } => {
                    self.outbox.release(event, error.is_none());
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
    fn cannot_write(&mut self) {
        self.writes = false;
        self.unwritten = 0;
        self.outbox.abandon();
        self.break_off("the thread that writes the records died".to_owned());
    }

    /// The store cannot be written: nothing more is begun, and the run says so.
    fn break_off(&mut self, why: String) {
        if self.broken.is_none() {
            self.tell(Event::Notice { text: format!("the run stops: {why}") });
            self.broken = Some(why);
        }
    }

    fn ask_again(&mut self) {
        for node in std::mem::take(&mut self.contended) {
            self.states.set(node, State::Ready);
            self.make_ready(node);
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Drain if self.draining.is_none() => {
                self.draining = Some(Instant::now());
                let running = self.states.running();
                self.tell(Event::Draining { running });
            }
            Order::Drain | Order::Kill => {
                self.draining.get_or_insert_with(Instant::now);
                self.stop.send_replace(Stop::Now);
            }
        }
    }

    fn close(mut self) -> Report {
        // The writer ends when all it was sent is durable.
        self.writer = None;
        self.outbox.abandon();
        let mut classes: BTreeMap<String, usize> = BTreeMap::new();
        let mut open = 0;
        let jobs = self.wanted_jobs();
        for job in &jobs {
            let job = &self.context.plan.jobs[*job];
            match job.classify {
                Some(node) => {
                    let settled = self.states.end(node).settled();
                    let class = settled.and_then(|ended| ended.outputs.get("class")?.as_text().map(str::to_owned));
                    if class.is_none() {
                        open += 1;
                    }
                    let class = class.unwrap_or_else(|| {
                        classify::provisional(&self.context.plan, node, &self.states).class.name().to_owned()
                    });
                    *classes.entry(class).or_default() += 1;
                }
                None => {
                    let unsettled = |node: &usize| {
                        self.options.wanted[*node] && matches!(self.states.end(*node), End::Pending | End::Open(_))
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
        let exit = match (&self.broken, self.draining, open) {
            (Some(_), ..) => 3,
            (None, Some(_), _) => 130,
            (None, None, 0) => 0,
            (None, None, _) => 3,
        };
        let finished = Event::RunFinished { run: self.run.clone(), jobs: jobs.len(), actions, classes, open, exit };
        self.tell(finished.clone());
        Report { finished, exit }
    }
}

/// The place of each action's commit in the plan's order.
fn commit_ranks(plan: &Plan) -> Vec<usize> {
    let mut first: HashMap<Option<(usize, usize)>, usize> = HashMap::new();
    plan.nodes.iter().enumerate().map(|(index, node)| *first.entry(node.point.commit).or_insert(index)).collect()
}

fn settled_event(plan: &Plan, node: usize, ended: &Ended, by: By, marks: Vec<String>) -> Event {
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
    }
}
