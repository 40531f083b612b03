//! What `nvidia-smi` tells of GPUs: their heat and clocks, and who computes on them.
//!
//! Its answers are another program's: bounded, within a time limit, and what is not understood is not told. Which fields there
//! are depends on the driver: the fullest question that it answers is found once.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::time::{Duration, Instant};

use super::Gpu;
use crate::process::{answer, own_processes};

/// How long one answer may take. A driver that is slower is not asked again.
const LIMIT: Duration = Duration::from_secs(10);
/// The most processes of one GPU that are read.
const MOST: usize = 1024;
/// The kernel's number of the first namespace of process ids: only there are the driver's ids those of `/proc`.
const FIRST_NAMESPACE: &str = "pid:[4026531836]";

/// Questions of one GPU's state, the fullest first; each begins with its UUID, temperature and clock.
const QUESTIONS: [&str; 4] = [
    "uuid,temperature.gpu,clocks.sm,clocks_event_reasons.active,clocks_event_reasons_counters.sw_thermal_slowdown,clocks_event_reasons_counters.hw_thermal_slowdown",
    "uuid,temperature.gpu,clocks.sm,clocks_event_reasons.active",
    "uuid,temperature.gpu,clocks.sm,clocks_throttle_reasons.active",
    "uuid,temperature.gpu,clocks.sm",
];

/// What to ask of which GPUs.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The GPUs, by UUID.
    pub uuids: Vec<String>,
    /// The variables in which `nvidia-smi` is found.
    pub variables: BTreeMap<String, String>,
    /// The attempt whose processes are its own.
    pub attempt: String,
}

/// A driver that is asked again and again.
#[derive(Clone, Debug)]
pub struct Nvidia {
    asked: Asked,
    /// The first question that may still be answered.
    question: usize,
    silent: bool,
}

impl Nvidia {
    /// Nothing is asked yet.
    #[must_use]
    pub fn new(asked: Asked) -> Self {
        Self { silent: asked.uuids.is_empty(), asked, question: 0 }
    }

    /// What it tells now: one entry for each GPU that was asked for.
    pub async fn read(&mut self) -> Vec<Gpu> {
        let mut gpus: Vec<Gpu> =
            self.asked.uuids.iter().map(|uuid| Gpu { uuid: uuid.clone(), ..Gpu::default() }).collect();
        self.state(&mut gpus).await;
        self.processes(&mut gpus).await;
        gpus
    }

    async fn ask(&mut self, question: String) -> Option<String> {
        if self.silent {
            return None;
        }
        let argv = ["nvidia-smi".to_owned(), question, "--format=csv,noheader,nounits".to_owned()];
        let began = Instant::now();
        let said = answer(&argv, &self.asked.variables, Path::new("/"), LIMIT).await;
        self.silent = began.elapsed() >= LIMIT;
        Some(String::from_utf8_lossy(&said.ok()?).into_owned())
    }

    async fn state(&mut self, gpus: &mut [Gpu]) {
        for (number, fields) in QUESTIONS.iter().enumerate().skip(self.question) {
            if let Some(said) = self.ask(format!("--query-gpu={fields}")).await {
                said.lines().for_each(|row| tell_state(row, gpus));
                self.question = number;
                return;
            }
        }
    }

    async fn processes(&mut self, gpus: &mut [Gpu]) {
        let Some(said) = self.ask("--query-compute-apps=gpu_uuid,pid".to_owned()).await else { return };
        for gpu in gpus.iter_mut() {
            gpu.listed = listed(&said, &gpu.uuid);
        }
        if gpus.iter().all(|gpu| gpu.listed.as_ref().is_none_or(Vec::is_empty)) {
            return;
        }
        let attempt = self.asked.attempt.clone();
        let own = tokio::task::spawn_blocking(move || own(&attempt)).await.ok().flatten();
        let Some(own) = own else { return };
        for gpu in gpus {
            let seen = gpu.listed.iter().flatten().copied();
            gpu.strangers = seen.filter(|pid| !own.contains(pid) && alive(*pid)).collect();
        }
    }
}

/// The attempt's own processes; nothing where the driver's ids mean something else than those of `/proc`.
fn own(attempt: &str) -> Option<HashSet<i32>> {
    let namespace = std::fs::read_link("/proc/self/ns/pid").ok()?;
    if namespace.to_str() != Some(FIRST_NAMESPACE) {
        return None;
    }
    Some(own_processes(attempt).ok()?.into_iter().collect())
}

fn alive(pid: i32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

/// `GPU-5d…, 41, 1980, 0x0000000000000000, 0, 0` as far as the question went.
fn tell_state(row: &str, gpus: &mut [Gpu]) {
    let cells: Vec<&str> = row.split(',').map(str::trim).collect();
    let Some(gpu) = gpus.iter_mut().find(|gpu| cells.first() == Some(&gpu.uuid.as_str())) else { return };
    let number = |at: usize| cells.get(at)?.parse::<f64>().ok().filter(|value| value.is_finite() && *value >= 0.0);
    gpu.celsius = number(1);
    gpu.mhz = number(2);
    let bits = |cell: &&str| u64::from_str_radix(cell.strip_prefix("0x")?, 16).ok();
    gpu.reasons = cells.get(3).and_then(bits);
    let micros = |at: usize| cells.get(at)?.parse::<u64>().ok();
    gpu.heat = micros(4).zip(micros(5)).map(|(soft, hard)| Duration::from_micros(soft.saturating_add(hard)));
}

/// The processes of one GPU; unknown where one has no number.
fn listed(said: &str, uuid: &str) -> Option<Vec<i32>> {
    let rows = said.lines().filter_map(|row| row.split_once(',')).filter(|(of, _)| of.trim() == uuid);
    rows.take(MOST).map(|(_, pid)| pid.trim().parse().ok()).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_understood_is_not_told() {
        let gpu = || vec![Gpu { uuid: "GPU-1".into(), ..Gpu::default() }];
        let mut gpus = gpu();
        tell_state("GPU-1, 41, 1980, 0x0000000000000024, 1500, 500", &mut gpus);
        let told = &gpus[0];
        assert_eq!((told.celsius, told.mhz, told.reasons), (Some(41.0), Some(1980.0), Some(0x24)));
        assert_eq!(told.heat, Some(Duration::from_millis(2)));
        for row in
            ["GPU-2, 41, 1980, 0x0", "", "0, GPU-1, Model A", "GPU-1, [N/A], [N/A], Not Active", "GPU-1, -1, nan"]
        {
            let mut gpus = gpu();
            tell_state(row, &mut gpus);
            assert_eq!(gpus, gpu(), "{row}");
        }
    }

    #[test]
    fn processes_are_those_of_the_gpu_and_unknown_where_one_has_no_number() {
        let said = "GPU-1, 7\nGPU-2, 8\nGPU-1, 9\nrubbish\n";
        assert_eq!(listed(said, "GPU-1"), Some(vec![7, 9]));
        assert_eq!(listed(said, "GPU-3"), Some(vec![]));
        assert_eq!(listed("GPU-1, [Insufficient Permissions]", "GPU-1"), None);
    }
}
