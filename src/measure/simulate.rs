//! The rates of false verdicts, by simulation: made-up sessions through the code that schedules and judges real ones.
//!
//! The noise models and the figures beside are those of harnesses.md sections 2.3 to 2.5. Where these leave a choice, the one
//! that gives the published table was taken, and each is told where it is made. It is a model: blocks are exchangeable in it,
//! and what a change does to the layout of code in memory is outside of it.

use serde::Serialize;

use super::course::Course;
use super::metric::MetricSpec;
use super::protocol::{Arm, Protocol, splitmix64};
use super::stats::{self, Effect};

/// Noise on the logarithm of a time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Noise {
    /// Its letter in the tables.
    pub name: char,
    /// The standard deviation from run to run.
    pub sd: f64,
    /// How far the machine drifts, linearly, from the first run of a session to its end. Upwards or downwards with equal
    /// chance, or a rule that always measures the base first would have another rate than the published 0.5.
    pub drift: f64,
    /// The standard deviation of each step of a random walk, from run to run.
    pub walk: f64,
    /// The share of runs that are outliers.
    pub outliers: f64,
    /// The most that an outlier is slower; any amount up to it is as likely. Added to the logarithm.
    pub outlier_max: f64,
}

/// Quiet; typical; wandering ("R"); noisy.
pub const MODELS: [Noise; 4] = [
    Noise { name: 'Q', sd: 0.01, drift: 0.0, walk: 0.0, outliers: 0.0, outlier_max: 0.0 },
    Noise { name: 'T', sd: 0.02, drift: 0.03, walk: 0.0, outliers: 0.02, outlier_max: 0.30 },
    Noise { name: 'R', sd: 0.02, drift: 0.0, walk: 0.01, outliers: 0.02, outlier_max: 0.30 },
    Noise { name: 'N', sd: 0.05, drift: 0.05, walk: 0.005, outliers: 0.05, outlier_max: 0.40 },
];

/// What sessions came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Tally {
    /// How many sessions.
    pub trials: u32,
    /// How many were improvements.
    pub improvement: u32,
    /// How many were regressions.
    pub regression: u32,
    /// How many were neutral.
    pub neutral: u32,
    /// How many runs, all together; warm-ups apart.
    pub runs: u64,
    /// The sum of the squares of each one's number of runs.
    pub runs_squared: u64,
}

impl Tally {
    /// How many were inconclusive.
    #[must_use]
    pub fn inconclusive(&self) -> u32 {
        self.trials - self.improvement - self.regression - self.neutral
    }

    /// The mean number of runs of a session, and its variance.
    #[must_use]
    pub fn mean_runs(&self) -> (f64, f64) {
        let n = f64::from(self.trials.max(1));
        let mean = self.runs as f64 / n;
        (mean, (self.runs_squared as f64 / n - mean * mean).max(0.0))
    }

    fn add(&mut self, effect: Effect, runs: u32) {
        self.trials += 1;
        match effect {
            Effect::Improvement => self.improvement += 1,
            Effect::Regression => self.regression += 1,
            Effect::Neutral => self.neutral += 1,
            Effect::Inconclusive { .. } => {}
        }
        self.runs += u64::from(runs);
        self.runs_squared += u64::from(runs).pow(2);
    }

    fn join(mut self, other: &Self) -> Self {
        self.trials += other.trials;
        self.improvement += other.improvement;
        self.regression += other.regression;
        self.neutral += other.neutral;
        self.runs += other.runs;
        self.runs_squared += other.runs_squared;
        self
    }
}

/// Sessions of one kind.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sessions {
    /// How they are measured; its seed is replaced by each session's own.
    pub protocol: Protocol,
    /// The least effect that counts, a fraction.
    pub min_effect: f64,
    /// The noise.
    pub noise: Noise,
    /// By how much the patched tree is faster, on the logarithm: 0.03 for "3 %", 0 for base against base.
    pub effect: f64,
}

impl Sessions {
    /// Runs so many of them, on as many threads. The same seed gives the same sessions, whatever the threads.
    #[must_use]
    pub fn run(&self, trials: u32, seed: u64, threads: u32) -> Tally {
        spread(
            trials,
            seed,
            threads,
            Tally::default(),
            |tally, rng| {
                let (effect, runs) = self.one(rng);
                tally.add(effect, runs);
            },
            |a, b| a.join(&b),
        )
    }

    /// One session: the course asks for blocks, the model answers, and the last estimate is judged.
    fn one(&self, rng: &mut Rng) -> (Effect, u32) {
        let protocol = Protocol { seed: rng.next(), ..self.protocol };
        let metric = MetricSpec { min_effect: self.min_effect, ..MetricSpec::time("time") };
        let mut course = Course::new(protocol, &metric, false);
        let mut machine = Machine::new(self.noise, 4 * protocol.most(), rng);
        let mut runs = 0;
        while let Ok(turns) = course.next() {
            let measure = |turn: &super::Turn| {
                let gain = if turn.arm == Arm::Patched { self.effect } else { 0.0 };
                (turn.arm, (machine.log_time(rng) - gain).exp())
            };
            let values: Vec<(Arm, f64)> = turns.iter().map(measure).collect();
            runs += values.len() as u32;
            course.took(&values);
        }
        let estimate = stats::estimate(course.ratios(), protocol.alpha());
        let settled = estimate.and_then(|estimate| stats::settles(&estimate, self.min_effect));
        (settled.unwrap_or(Effect::Inconclusive { needed_blocks: None }), runs)
    }
}

/// A rule that others judge by, for comparison: the base's runs first, then the patched tree's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grouped {
    /// One run each; improved if the ratio is above 1.
    AboveOne,
    /// One run each; improved or worse beyond 5 %.
    OneFive,
    /// Five runs each; improved or worse where the means differ by more than 5 %.
    MeansFive,
}

impl Grouped {
    fn runs(self) -> u32 {
        match self {
            Self::AboveOne | Self::OneFive => 1,
            Self::MeansFive => 5,
        }
    }

    /// Whether base against base is called different.
    fn differs(self, noise: Noise, rng: &mut Rng) -> bool {
        let mut machine = Machine::new(noise, 2 * self.runs(), rng);
        let mut mean = || (0..self.runs()).map(|_| machine.log_time(rng).exp()).sum::<f64>() / f64::from(self.runs());
        let speedup = mean() / mean();
        match self {
            Self::AboveOne => speedup > 1.0,
            Self::OneFive | Self::MeansFive => !(0.95..=1.05).contains(&speedup),
        }
    }

    /// How often it does.
    #[must_use]
    pub fn run(self, noise: Noise, trials: u32, seed: u64, threads: u32) -> u32 {
        spread(trials, seed, threads, 0, |count, rng| *count += u32::from(self.differs(noise, rng)), |a, b| a + b)
    }
}

/// How many trials are made from one seed: the grain in which work is given to threads.
const GRAIN: u32 = 100;

/// Makes trials on several threads. Each `GRAIN` has a generator of its own, so that threads change nothing.
fn spread<T: Copy + Send + Sync>(
    trials: u32,
    seed: u64,
    threads: u32,
    empty: T,
    one: impl Fn(&mut T, &mut Rng) + Sync,
    join: impl Fn(T, T) -> T + Sync,
) -> T {
    let (threads, one, join) = (threads.max(1), &one, &join);
    let work = |thread: u32| {
        let mut sum = empty;
        for grain in (thread..trials.div_ceil(GRAIN)).step_by(threads as usize) {
            let mut rng = Rng::new(seed, u64::from(grain));
            (grain * GRAIN..trials.min((grain + 1) * GRAIN)).for_each(|_| one(&mut sum, &mut rng));
        }
        sum
    };
    std::thread::scope(|scope| {
        let helpers: Vec<_> = (1..threads).map(|thread| scope.spawn(move || work(thread))).collect();
        helpers.into_iter().fold(work(0), |sum, helper| match helper.join() {
            Ok(other) => join(sum, other),
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })
}

/// A machine whose times have a noise.
struct Machine {
    noise: Noise,
    /// The drift of each run.
    slope: f64,
    /// Where the drift and the walk have come to.
    level: f64,
}

impl Machine {
    /// At the start of a session of at most so many runs.
    fn new(noise: Noise, runs: u32, rng: &mut Rng) -> Self {
        let sign = if rng.uniform() < 0.5 { -1.0 } else { 1.0 };
        Self { noise, slope: sign * noise.drift / f64::from(runs), level: 0.0 }
    }

    /// The logarithm of the time of the next run of a tree that takes 1.
    fn log_time(&mut self, rng: &mut Rng) -> f64 {
        let noise = self.noise;
        let mut log = self.level + noise.sd * rng.normal();
        if noise.outliers > 0.0 && rng.uniform() < noise.outliers {
            log += noise.outlier_max * rng.uniform();
        }
        self.level += self.slope;
        if noise.walk > 0.0 {
            self.level += noise.walk * rng.normal();
        }
        log
    }
}

/// xorshift64* (Vigna 2016), begun by SplitMix64: the same for ever, and on every machine.
pub struct Rng(u64);

impl Rng {
    /// A generator of its own for each stream of a seed.
    #[must_use]
    pub fn new(seed: u64, stream: u64) -> Self {
        Self(splitmix64(splitmix64(seed) ^ stream.wrapping_mul(0xd605_1e83_b8d7_3c05)).max(1))
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Uniform in (0, 1).
    pub fn uniform(&mut self) -> f64 {
        ((self.next() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    /// Normal with mean 0 and deviation 1 (Box and Muller 1958).
    pub fn normal(&mut self) -> f64 {
        (-2.0 * self.uniform().ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
    }
}
