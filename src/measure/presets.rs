//! Presets: the metrics of benchmarks that many use, with the patterns that read them from what those print.
//!
//! A preset names only lines that every version of its benchmark prints, for a pattern that never matches is a failure. The
//! first metric is the primary one. Where a benchmark says how many requests succeeded, that is a count that must be the same in
//! both trees: a server that refuses work is no faster.

use super::metric::{Better, Kind, MetricSpec};
use super::pattern::{BadPattern, Pattern};

/// A named set of metrics.
#[derive(Debug)]
pub struct Preset {
    /// Its name in a manifest.
    pub name: &'static str,
    /// What it reads.
    pub of: &'static str,
    /// Its metrics, the primary one first.
    rows: &'static [Row],
}

#[derive(Debug)]
struct Row {
    name: &'static str,
    pattern: &'static str,
    what: What,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Lower,
    Higher,
    /// A count of work, the same in both trees.
    Same,
}

const fn row(name: &'static str, what: What, pattern: &'static str) -> Row {
    Row { name, pattern, what }
}

/// The names, in the order of the presets.
pub const NAMES: [&str; 4] = ["vllm-serving", "vllm-latency", "vllm-throughput", "sglang-serving"];

/// Every preset.
pub const ALL: [Preset; 4] = [
    Preset {
        name: NAMES[0],
        of: "vLLM's `benchmark_serving.py` and `vllm bench serve`",
        rows: &[
            row("output_throughput", What::Higher, r"^Output token throughput(?: \(tok/s\))?:\s+([0-9.]+)"),
            row("request_throughput", What::Higher, r"^Request throughput(?: \(req/s\))?:\s+([0-9.]+)"),
            row("mean_ttft_ms", What::Lower, r"^Mean TTFT(?: \(ms\))?:\s+([0-9.]+)"),
            row("median_ttft_ms", What::Lower, r"^Median TTFT(?: \(ms\))?:\s+([0-9.]+)"),
            row("mean_tpot_ms", What::Lower, r"^Mean TPOT(?: \(ms\))?:\s+([0-9.]+)"),
            row("successful_requests", What::Same, r"^Successful requests:\s+([0-9]+)"),
        ],
    },
    Preset {
        name: NAMES[1],
        of: "vLLM's `benchmark_latency.py` and `vllm bench latency`",
        rows: &[row("avg_latency_s", What::Lower, r"^Avg latency:\s+([0-9.eE+-]+) seconds")],
    },
    Preset {
        name: NAMES[2],
        of: "vLLM's `benchmark_throughput.py` and `vllm bench throughput`",
        rows: &[
            row("requests_per_s", What::Higher, r"^Throughput:\s+([0-9.]+) requests/s"),
            row("tokens_per_s", What::Higher, r"^Throughput:.*,\s+([0-9.]+) (?:total )?tokens/s"),
        ],
    },
    Preset {
        name: NAMES[3],
        of: "SGLang's `bench_serving`",
        rows: &[
            row("output_throughput", What::Higher, r"^Output token throughput \(tok/s\):\s+([0-9.]+)"),
            row("request_throughput", What::Higher, r"^Request throughput \(req/s\):\s+([0-9.]+)"),
            row("mean_e2e_ms", What::Lower, r"^Mean E2E Latency \(ms\):\s+([0-9.]+)"),
            row("mean_ttft_ms", What::Lower, r"^Mean TTFT \(ms\):\s+([0-9.]+)"),
            row("successful_requests", What::Same, r"^Successful requests:\s+([0-9]+)"),
        ],
    },
];

impl Preset {
    /// The preset of a name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        static EVERY: [Preset; 4] = ALL;
        EVERY.iter().find(|preset| preset.name == name)
    }

    /// Its metrics, the primary one first.
    ///
    /// # Errors
    /// If a pattern of the table is none.
    pub fn metrics(&self) -> Result<Vec<MetricSpec>, BadPattern> {
        let metric = |row: &Row| {
            let spec = MetricSpec { pattern: Some(Pattern::new(row.pattern)?), ..MetricSpec::time(row.name) };
            Ok(match row.what {
                What::Lower => spec,
                What::Higher => MetricSpec { better: Better::Higher, ..spec },
                What::Same => MetricSpec { better: Better::Higher, kind: Kind::Count, equal: true, ..spec },
            })
        };
        self.rows.iter().map(metric).collect()
    }
}
