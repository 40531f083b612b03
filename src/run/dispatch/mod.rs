//! The dispatcher: owns every state of a run, decides what happens next, and talks by events. Executors only do work.
//!
//! It reads no manifest and runs no process itself. Its truth is the records: a state here is what they and this run's own
//! attempts imply.

use std::cmp::Reverse;
use std::collections::hash_map::Entry;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};

use crate::attempt::{Ended, Line, Reserved, Started};
use crate::event::{Against, Disagreement, Event, GitState, Reason, Told};
use crate::key::{ActionKey, KeyRecord, Value};
use crate::manifest::Kind;
use crate::names::{AttemptId, RunId, SlotKind};
use crate::outcome::{Cause, Failure, Outcome};
use crate::plan::{Ask, Plan};
use crate::run::budget::Purse;
use crate::run::decide::{ATTEMPTS, Decision, continued, decide_again, held, lost};
use crate::run::execute::{Left, Work, adoptable, caught, execute};
use crate::run::hooks::Hooks;
use crate::run::journal::Journal;
use crate::run::leases::{Granted, Leases, Taken};
use crate::run::outbox::{Outbox, Ticket};
use crate::run::recover::interrupted;
use crate::run::state::{By, State, States};
use crate::run::writer::{Writer, Written};
use crate::step::{Context, Done, End, Ends, Progress, SomeEnds, Stop, classify, command};
use crate::store::{Index, KeyLock};

mod again;
mod begin;
mod end;
mod lanes;
mod orphans;
mod over;
mod parts;
mod pause;
mod pay;
mod progress;
mod rank;
mod recheck;
mod room;
mod traffic;

use over::settled_event;
pub use parts::{Observer, Options, Order, Parts, Report};
use rank::{Rank, commit_ranks, gated_jobs};
use room::{Claim, Room};
use traffic::Traffic;

/// How often a key or a slot that somebody else holds is asked for again.
const ASK_AGAIN: Duration = Duration::from_millis(20);

/// How many lines may wait to become durable before nothing more is begun: what a kill would make this run do again.
const BACKLOG: usize = 32;

/// What a line that became durable lets happen.
enum Token {
    /// A started line: the executor may spawn.
    Go(oneshot::Sender<Result<(), String>>),
    /// An ended line: the action may be told as settled, and its key let go.
    Ended { event: Ticket, lock: KeyLock },
    /// The end of an agent that nobody asks for: its place may go.
    Orphan { attempt: AttemptId, lock: KeyLock },
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
    /// What it may cost.
    reserved: Reserved,
}

/// What an executor sends back.
struct Finished {
    node: usize,
    attempt: AttemptId,
    adopts: Option<RunId>,
    /// When it began, where a line says so.
    began: Option<Timestamp>,
    /// The pipeline whose budget it is on.
    pipeline: Option<String>,
    /// What was reserved for it there.
    reserved: Option<Reserved>,
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
    git: Option<GitState>,
    index: Index,
    options: Options,
    states: States,
    /// What can begin: what holds slots or lanes, which bound it, and the rest, which `--jobs` bounds.
    ready: [BinaryHeap<Rank>; 2],
    /// Actions that wait for slots or lanes of this run, each with what it lacks.
    aside: Vec<(usize, SlotKind)>,
    /// What the builds under way claim of memory and disk.
    claims: HashMap<usize, Claim>,
    contended: Vec<usize>,
    /// Since when.
    contends: HashMap<usize, Instant>,
    records: HashMap<usize, (KeyRecord, Reason)>,
    owners: HashMap<ActionKey, usize>,
    sharing: HashMap<usize, Vec<usize>>,
    tried: HashMap<usize, u32>,
    /// What came out otherwise than before and should not have.
    disagreements: Vec<Disagreement>,
    /// How many actions were executed again to see whether they come out the same.
    rechecked: usize,
    /// What this run did not execute although it executed something upstream, and that.
    stirred: HashMap<usize, Vec<usize>>,
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
    told: mpsc::UnboundedSender<Progress>,
    /// How far actions say they are.
    progress: mpsc::UnboundedReceiver<Progress>,
    draining: Option<Instant>,
    broken: Option<String>,
    fresh: BinaryHeap<Reverse<usize>>,
    jobs_told: Vec<bool>,
    commit_ranks: Vec<usize>,
    /// How many jobs each build is for.
    gated_jobs: Vec<usize>,
    traffic: Traffic,
    hooks: Hooks,
    /// What agents may cost, if the manifest says an amount.
    purse: Option<Purse>,
    /// Agents that wait for others to tell what they cost.
    unpaid: Vec<usize>,
}

impl Dispatcher {
    /// Makes a dispatcher for a plan whose files are in the store.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let Parts { context, run, manifest, git, index, records, journal, leases, options, purse, observers } = parts;
        let (done, written) = mpsc::unbounded_channel();
        let (told, progress) = mpsc::unbounded_channel();
        let writer = Writer::start(records, done);
        let actions = context.plan.nodes.len();
        let jobs = context.plan.jobs.len();
        let commit_ranks = commit_ranks(&context.plan);
        let gated_jobs = gated_jobs(&context.plan);
        let traffic = Traffic::new(&context.plan, options.go_on, adoptable(&context.store, &index));
        let mut frame = serde_json::Map::new();
        frame.insert("run".into(), run.as_str().into());
        frame.insert("pipeline".into(), context.plan.manifest.pipeline.name.value.clone().into());
        frame.insert("manifest".into(), manifest.clone().into());
        let on = context.plan.manifest.pipeline.on.clone();
        let secrets = context.plan.manifest.pipeline.secrets().cloned().collect();
        let hooks = Hooks::new(on, context.machine.clone(), secrets, frame);
        Self {
            context,
            run,
            manifest,
            git,
            index,
            options,
            states: States::new(actions),
            ready: [BinaryHeap::new(), BinaryHeap::new()],
            aside: Vec::new(),
            claims: HashMap::new(),
            contended: Vec::new(),
            contends: HashMap::new(),
            records: HashMap::new(),
            owners: HashMap::new(),
            sharing: HashMap::new(),
            tried: HashMap::new(),
            disagreements: Vec::new(),
            rechecked: 0,
            stirred: HashMap::new(),
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
            told,
            progress,
            draining: None,
            broken: None,
            fresh: BinaryHeap::new(),
            jobs_told: vec![false; jobs],
            commit_ranks,
            gated_jobs,
            traffic,
            hooks,
            purse,
            unpaid: Vec::new(),
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
            self.hooks.see(&told);
            for observer in &mut self.observers {
                observer.see(&told);
            }
        }
    }

    /// Runs the plan to its end, or to where it is told to stop.
    pub async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>) -> Report {
        let wanted = self.options.wanted.iter().filter(|wanted| **wanted).count();
        let own = |job: &&usize| !self.context.plan.jobs[**job].control;
        let (jobs, git) = (self.options.about.iter().filter(own).count(), self.git.take());
        self.tell(Event::RunStarted {
            run: self.run.clone(),
            pipeline: self.plan().manifest.pipeline.name.value.clone(),
            manifest: self.manifest.clone(),
            jobs,
            actions: wanted,
            git,
        });
        let (finished, mut results) = mpsc::unbounded_channel::<Finished>();
        let mut cleared = false;
        for node in 0..self.plan().nodes.len() {
            if self.options.wanted[node] {
                self.consider(node);
                self.settle_fresh();
            }
        }
        loop {
            let goes_on = self.draining.is_none() && self.broken.is_none();
            if goes_on {
                self.pump();
                self.start_ready(&finished);
                // Whoever was let in may have found that another has to go first.
                while self.could_pump() {
                    self.pump();
                    self.start_ready(&finished);
                }
                self.give_up();
                self.settle_fresh();
            }
            if self.is_over() && !std::mem::replace(&mut cleared, true) {
                self.end_orphans();
            }
            if self.is_over() {
                break;
            }
            let moment = self.next_moment().filter(|_| goes_on).map(tokio::time::Instant::from_std);
            let ask_again = !self.contended.is_empty() && self.draining.is_none();
            let grace = self.draining.map(|since| self.options.drain.saturating_sub(since.elapsed()));
            tokio::select! {
                Some(result) = results.recv() => self.finish(result),
                written = self.written.recv(), if self.writes => match written {
                    Some(written) => self.durable(written),
                    None => self.cannot_write(),
                },
                Some(order) = orders.recv() => self.obey(order),
                Some(answer) = self.traffic.heard.recv() => self.hear(answer),
                Some(progress) = self.progress.recv() => self.pass_on(progress),
                text = self.hooks.ended() => {
                    if let Some(text) = text {
                        self.tell(Event::Notice { text });
                    }
                }
                () = tokio::time::sleep_until(moment.unwrap_or_else(tokio::time::Instant::now)), if moment.is_some() => {}
                () = tokio::time::sleep(ASK_AGAIN), if ask_again => self.ask_again(),
                () = tokio::time::sleep(pay::ASK_BUDGET), if !self.unpaid.is_empty() => self.ask_budget(),
                () = tokio::time::sleep(grace.unwrap_or_default()), if grace.is_some() && *self.stop.borrow() == Stop::No => {
                    self.halt(Stop::Polite);
                }
            }
            self.settle_fresh();
        }
        let finished = self.close();
        // Whoever is told of the end is told before flow goes, and after what came before it.
        for text in self.hooks.end(&Told { event: finished.clone(), at: Timestamp::now() }).await {
            self.tell(Event::Notice { text });
        }
        let exit = if let Event::RunFinished { exit, .. } = &finished { *exit } else { 3 };
        self.tell(finished.clone());
        Report { finished, exit }
    }

    fn halt(&mut self, level: Stop) {
        self.stop.send_replace(level);
        self.traffic.stop_all(level);
    }

    fn is_over(&self) -> bool {
        let idle = self.states.running() == 0 && self.unwritten == 0;
        let stopped = self.draining.is_some() || self.broken.is_some();
        let waiting = self.ready.iter().all(BinaryHeap::is_empty)
            && self.aside.is_empty()
            && self.contended.is_empty()
            && self.unpaid.is_empty()
            && self.traffic.held() == 0;
        idle && (stopped || waiting)
    }

    /// The pipeline whose budget an action's attempts are on, if they cost anything.
    fn paid_by(&self, node: usize) -> Option<String> {
        let costs = self.plan().kind(node) == Kind::Agent || !self.plan().nodes[node].holds.is_empty();
        costs.then(|| self.plan().manifest.pipeline.name.value.clone())
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
                self.over(node, End::open(because));
            }
            Decision::Reopened { last, .. } => {
                self.states.set_key(node, last.key);
                self.over(node, End::Reopened(last));
            }
            Decision::Exhausted { last, counted } => {
                self.remember(node, &last.key);
                let failure =
                    last.outcome.failure().map(|failure| format!("{}: {}", failure.cause, failure.evidence.as_str()));
                let said = failure.unwrap_or_default();
                let because =
                    format!("its attempts are used up, the last of {counted} by {said}; `--retry JOB` tries again");
                self.over(node, End::open_after(because, &last));
            }
            Decision::Served { ref ended, lost: false, .. } | Decision::Reused { ref ended, .. }
                if held(ended, &self.context.store) && lost(ended, &self.context.store).is_some() =>
            {
                // It was taken away between the look and the hold.
                self.options.again[node].remake = true;
                let (plan, store, again) = (&self.context.plan, &self.context.store, self.options.again[node]);
                let decision = decide_again(plan, node, &self.states, store, &self.index, again);
                self.act_on(node, decision);
            }
            Decision::Served { ended, over_limit, .. } => {
                self.states.set_key(node, ended.key);
                let mut marks = if over_limit { vec!["OVER_LIMIT".to_owned()] } else { Vec::new() };
                marks.extend(self.otherwise(node, &ended.key));
                self.served(node, ended, By::Cached, marks);
            }
            Decision::Reused { key, ended, rule, .. } => {
                self.states.set_key(node, key);
                self.reused(node, ended, rule);
            }
            Decision::Execute { record, reason, counted } => self.execute(node, record, reason, counted),
        }
    }

    fn execute(&mut self, node: usize, record: KeyRecord, reason: Reason, counted: u32) {
        if self.options.pure && !matches!(self.plan().kind(node), Kind::Patch | Kind::Classify) {
            return self.over(node, End::open("left to `flow run`"));
        }
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
                    self.rank_again(owner);
                    self.states.set(node, State::Sharing { with: owner });
                }
            }
            return;
        }
        if let Entry::Vacant(first) = self.tried.entry(node) {
            first.insert(counted);
            self.remember(node, &key);
        }
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
                End::Open(_) | End::Reopened(_) => {
                    shut = Some(End::open(format!("waits for {}", self.plan().title(gate))))
                }
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
            None if self.backs_off(node) => {}
            None => {
                self.states.set(node, State::Ready);
                self.make_ready(node);
            }
        }
    }
}
