//! Tests of `contract`: small outputs of our own writing, and the real ones of ISO-Bench where they are at hand.

use std::path::PathBuf;

use proptest::prelude::*;

use super::compare::Comparison;
use super::contract::*;
use super::equal::Equal;
use super::metric::{Better, MetricSpec};
use super::pattern::Pattern;
use super::presets::Preset;
use crate::outcome::{Cause, Failure};

fn end<'a>(exit: i32, stdout: &'a str, stderr: &'a str) -> ProcessEnd<'a> {
    ProcessEnd {
        exit: Some(exit),
        signal: None,
        timed_out: false,
        wall_ms: 490,
        oom_kills: None,
        stdout: stdout.as_bytes(),
        stderr: stderr.as_bytes(),
        result: None,
    }
}

fn flow(exit: i32, result: &str) -> Result<Sample, Failure> {
    read(Contract::Flow, &ProcessEnd { result: Some(result.as_bytes()), ..end(exit, "", "") }, &[])
}

fn iso(exit: i32, stdout: &str) -> Result<Sample, Failure> {
    read(Contract::Isobench, &end(exit, stdout, ""), &[])
}

fn cause(read: Result<Sample, Failure>) -> Cause {
    read.unwrap_err().cause
}

const GOOD: &str =
    r#"{"metrics": {"time_s": 0.21}, "samples": [0.1, 0.11], "lower_is_better": true, "digest": "sha256:00ff"}"#;
const TRACE: &str = "Traceback (most recent call last):\n  File \"t.py\", line 3, in <module>\n    f(1)\n";

#[test]
fn flow_measures() {
    let sample = flow(0, GOOD).unwrap();
    assert_eq!(sample.metrics["time_s"], 0.21);
    assert_eq!((sample.samples.len(), sample.digest.as_deref()), (2, Some("sha256:00ff")));
    assert_eq!((sample.wall_ms, sample.exit, sample.forgeable), (490, 0, false));
}

#[test]
fn flow_believes_its_file_and_never_standard_output() {
    let failure = read(Contract::Flow, &end(0, GOOD, ""), &[]).unwrap_err();
    assert_eq!(failure.cause, Cause::NoResult);
    let printed = GOOD.replace("0.21", "0.01");
    let both = ProcessEnd { result: Some(GOOD.as_bytes()), ..end(0, &printed, "") };
    assert_eq!(read(Contract::Flow, &both, &[]).unwrap().metrics["time_s"], 0.21);
}

#[test]
fn flow_exits() {
    let wrong = flow(3, r#"{"error": "WRONG_PACKAGE", "message": "networkx was imported from '/usr'"}"#).unwrap_err();
    assert_eq!((wrong.cause, wrong.exit), (Cause::WrongPackage, Some(3)));
    assert!(wrong.evidence.as_str().contains("/usr"), "{}", wrong.evidence.as_str());
    let gone = r#"{"error": "TARGET_NOT_RESOLVED", "target": "networkx.all_triangles"}"#;
    for exit in [0, 1, 4] {
        let failure = flow(exit, gone).unwrap_err();
        assert_eq!((failure.cause, failure.exit), (Cause::TargetNotResolved, Some(exit)));
        assert_eq!(failure.evidence.as_str(), "TARGET_NOT_RESOLVED: networkx.all_triangles");
    }
    assert_eq!(cause(read(Contract::Flow, &end(4, "", ""), &[])), Cause::TargetNotResolved);
    // A whole result does not help a process that failed afterwards.
    let traced = format!("{TRACE}TypeError: f\n");
    let failed = ProcessEnd { result: Some(GOOD.as_bytes()), ..end(1, "", &traced) };
    assert_eq!(cause(read(Contract::Flow, &failed, &[])), Cause::TypeError);
    let silent = read(Contract::Flow, &end(7, "", ""), &[]).unwrap_err();
    assert_eq!((silent.cause, silent.evidence.as_str()), (Cause::Exception, "exit 7 without any output"));
}

#[test]
fn flow_refuses_what_is_no_result() {
    for bad in [
        "",
        "[]",
        "nonsense",
        r#"{"metrics": {}}"#,
        r#"{"metrics": {"time_s": null}}"#,
        r#"{"metrics": {"time_s": "0.2"}}"#,
        r#"{"metrics": {"time_s": true}}"#,
        r#"{"metrics": {"time_s": 0}}"#,
        r#"{"metrics": {"time_s": -0.2}}"#,
        r#"{"metrics": {"time_s": NaN}}"#,
        r#"{"metrics": {"time_s": 1e999}}"#,
        r#"{"metrics": 5}"#,
        r#"{"time_s": 0.2}"#,
        r#"{"metrics": {"time_s": 0.2}, "lower_is_better": false}"#,
        r#"{"metrics": {"time_s": 0.2}, "digest": 5}"#,
        r#"{"metrics": {"time_s": 0.2}, "digest": ""}"#,
        r#"{"metrics": {"time_s": 0.2}, "error": "half of it failed"}"#,
    ] {
        let failure = flow(0, bad).unwrap_err();
        assert_eq!(failure.cause, Cause::NoResult, "{bad}");
        assert!(failure.evidence.as_str().len() > 10, "{bad}");
    }
    let long = format!(r#"{{"metrics": {{"time_s": 0.2}}, "digest": "{}"}}"#, "x".repeat(DIGEST_MAX + 1));
    assert_eq!(cause(flow(0, &long)), Cause::NoResult);
    let huge = format!("{GOOD}{}", " ".repeat(RESULT_MAX));
    assert_eq!(cause(flow(0, &huge)), Cause::NoResult);
    assert_eq!(cause(flow(0, &"[".repeat(100_000))), Cause::NoResult);
    let many = format!(r#"{{"metrics": {{"time_s": 0.2}}, "samples": [{}1]}}"#, "1,".repeat(5000));
    assert_eq!(flow(0, &many).unwrap().samples.len(), SAMPLES_MAX);
}

#[test]
fn declared_metrics_are_all_needed_and_checked_by_kind() {
    let specs = [MetricSpec::count("ops"), MetricSpec { better: Better::Higher, ..MetricSpec::time("rate") }];
    let of = |text: &str| {
        let end = ProcessEnd { result: Some(text.as_bytes()), ..end(0, "", "") };
        read(Contract::Flow, &end, &specs)
    };
    assert_eq!(of(r#"{"metrics": {"ops": 0, "rate": 2.5, "other": 1}}"#).unwrap().metrics.len(), 2);
    assert_eq!(cause(of(r#"{"metrics": {"ops": 3}}"#)), Cause::NoResult);
    for ops in ["1.5", "-1", "1e17"] {
        assert_eq!(cause(of(&format!(r#"{{"metrics": {{"ops": {ops}, "rate": 1}}}}"#))), Cause::NoResult, "{ops}");
    }
}

#[test]
fn forced_ends() {
    let stopped = ProcessEnd { exit: None, signal: Some(9), timed_out: true, ..end(0, "", "step 3\n") };
    let failure = read(Contract::Flow, &stopped, &[]).unwrap_err();
    assert_eq!(failure.cause, Cause::TestTimeout);
    assert!(failure.evidence.as_str().contains("490 ms") && failure.evidence.as_str().contains("step 3"));
    let by = |signal, stderr| {
        let end = ProcessEnd { exit: None, signal: Some(signal), ..end(0, "", stderr) };
        read(Contract::Isobench, &end, &[]).unwrap_err()
    };
    assert_eq!((by(9, "").cause, by(9, "").evidence.as_str()), (Cause::Oom, "killed by signal 9"));
    let own = |oom_kills| ProcessEnd { exit: None, signal: Some(9), oom_kills, ..end(0, "", "") };
    assert_eq!(cause(read(Contract::Flow, &own(Some(1)), &[])), Cause::Oom);
    assert_eq!(cause(read(Contract::Flow, &own(Some(0)), &[])), Cause::Exception, "nobody ran out of memory");
    assert_eq!(by(11, "Segmentation fault").cause, Cause::Exception);
    assert_eq!(by(6, "  what():  CUDA error: an illegal memory access").cause, Cause::CudaError);
    let unknown = ProcessEnd { exit: None, ..end(0, "", "") };
    assert_eq!(cause(read(Contract::Flow, &unknown, &[])), Cause::HarnessFault);
}

const ISO: &str = r#"{"impl_tag": "child", "commit_hash": "09ab", "device": "cpu", "avg_ms": 0.5, "p50_ms": 0.4, "opt_path_hit": true}"#;

#[test]
fn isobench_takes_the_last_json_line() {
    let sample = iso(0, &format!("warming up\n{}\n\n{ISO}\n{{not json}}\nbye\n", ISO.replace("0.5", "9.5"))).unwrap();
    assert_eq!((sample.metrics["avg_ms"], sample.forgeable, sample.digest), (0.5, true, None));
    // An unreadable last result is not replaced by an earlier one.
    let broken = iso(0, &format!("{ISO}\n{}\n", ISO.replace("0.5", "NaN"))).unwrap_err();
    assert_eq!(broken.cause, Cause::NoResult);
    assert!(broken.evidence.as_str().contains("NaN"), "{}", broken.evidence.as_str());
    assert_eq!(cause(iso(0, "no json at all\n")), Cause::NoResult);
    assert_eq!(cause(iso(0, r#"{"p50_ms": 3}"#)), Cause::NoResult);
    let mut bytes = vec![0xff; 3 * STDOUT_MAX];
    bytes.extend_from_slice(format!("\n{ISO}\n\u{fffd}").as_bytes());
    bytes.push(0xfe);
    let end = ProcessEnd { stdout: &bytes, ..end(0, "", "") };
    assert_eq!(read(Contract::Isobench, &end, &[]).unwrap().metrics["avg_ms"], 0.5);
}

#[test]
fn isobench_exits() {
    let target = r#"{"target_resolved": false, "error": "No module named 'cbor2'", "attempted_module": "a.b", "attempted_symbol": "C"}"#;
    let failure = iso(1, target).unwrap_err();
    assert_eq!((failure.cause, failure.exit), (Cause::TargetNotResolved, Some(1)));
    assert_eq!(failure.evidence.as_str(), "No module named 'cbor2': (target a.b.C)");
    for (exit, text) in [
        (3, ""),
        (3, ISO),
        (
            1,
            r#"{"error_code": 3, "error_name": "OPT_PATH_NOT_TRIGGERED", "error_message": "the fast path was not taken"}"#,
        ),
        (0, r#"{"error_code": 3, "error_name": "OPT_PATH_NOT_TRIGGERED", "avg_ms": 1.0}"#),
        (0, &ISO.replace("true", "false")),
    ] {
        assert_eq!(cause(iso(exit, text)), Cause::OptPathNotHit, "{exit} {text}");
    }
    assert_eq!(cause(iso(1, ISO)), Cause::Exception);
    assert_eq!(cause(iso(1, r#"{"error_name": "TypeError", "error_message": "f()"}"#)), Cause::TypeError);
    assert_eq!(cause(iso(0, r#"{"error_name": "TypeError", "avg_ms": 1.0}"#)), Cause::NoResult);
    let traced =
        end(1, "", "Traceback (most recent call last):\n  File \"t\"\nModuleNotFoundError: No module named 'x'\n");
    assert_eq!(cause(read(Contract::Isobench, &traced, &[])), Cause::ImportError);
}

#[test]
fn contracts_have_names() {
    for contract in [Contract::Flow, Contract::Isobench] {
        assert_eq!(contract.to_string().parse::<Contract>(), Ok(contract));
    }
    assert!("pytest".parse::<Contract>().is_err());
}

proptest! {
    #[test]
    fn any_output_is_read(out in prop::collection::vec(any::<u8>(), 0..300), json in "\\{[\"a-z_:,{}\\[\\] 0-9.e-]{0,60}\\}", exit in -1i32..5) {
        let mut stdout = out.clone();
        stdout.extend_from_slice(b"\n");
        stdout.extend_from_slice(json.as_bytes());
        for contract in [Contract::Flow, Contract::Isobench] {
            let end = ProcessEnd { stdout: &stdout, stderr: &out, result: Some(json.as_bytes()), ..end(exit, "", "") };
            if let Ok(sample) = read(contract, &end, &[]) {
                prop_assert_eq!(exit, 0);
                prop_assert!(sample.metrics.values().all(|v| v.is_finite() && *v > 0.0));
            }
        }
    }
}

/// The folder of real outputs, where this machine has it.
fn real() -> Option<PathBuf> {
    let shared = std::env::var_os("FLOW_SHARED")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    let folder = shared.join("data/iso-bench");
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("skipped: there is no {} (FLOW_SHARED names another place)", folder.display());
    None
}

#[test]
fn real_outputs_of_iso_bench() {
    let Some(folder) = real() else { return };
    let text = |name: &str| std::fs::read_to_string(folder.join("test_output").join(name)).unwrap();

    let sample = iso(0, &text("sglang_001_09deb20d.test_stdout.txt")).unwrap();
    assert_eq!(sample.metrics["avg_ms"], 0.034_487_679_824_233_06);

    let oom = read(Contract::Isobench, &end(1, "", &text("sglang_023_564a898a_OOM.test_stderr.txt")), &[]).unwrap_err();
    assert_eq!((oom.cause, oom.exit), (Cause::Oom, Some(1)));
    assert!(
        oom.evidence.as_str().starts_with("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB")
    );

    for (name, expected) in [
        ("sglang_001_09deb20d_success_neutral", Ok((0.034_855_040_013_790_13, 0.034_487_679_824_233_06))),
        ("vllm_core-0048_success_neutral", Ok((0.010_745_779_873_104_766, 0.010_471_279_820_194_468))),
        ("sglang_core-0001_baseline_failed_ipython", Err("No module named 'IPython': (target sglang.srt.lora.")),
        ("vllm_core-0000_baseline_failed_nopatch", Err("Could not import module 'ProcessorMixin'.")),
        ("vllm_core-0023_baseline_failed_cbor2", Err("No module named 'cbor2': (target vllm.model_executor.")),
        ("vllm_core-0062_baseline_failed_target", Err("cannot import name 'ProcessorMixin' from 'transformers'")),
    ] {
        let path = folder.join("test_results").join(format!("{name}.test_results.json"));
        let json: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let (stdout, stderr) = (json["result"]["stdout"].as_str().unwrap(), json["result"]["stderr"].as_str().unwrap());
        // The file holds what the base's process said, an empty line, and what the patched one said.
        let outputs: Vec<&str> = stdout.split("\n\n").filter(|part| !part.trim().is_empty()).collect();
        let exit = i32::from(expected.is_err());
        let samples: Vec<_> =
            outputs.iter().map(|out| read(Contract::Isobench, &end(exit, out, stderr), &[])).collect();
        match expected {
            Ok((base, patched)) => {
                let [Ok(a), Ok(b)] = &samples[..] else { panic!("{name}: {samples:?}") };
                assert_eq!((a.metrics["avg_ms"], b.metrics["avg_ms"]), (base, patched), "{name}");
                assert!(a.forgeable && b.forgeable);
                let compared = super::compare::compare(std::slice::from_ref(a), std::slice::from_ref(b), Equal::Digest);
                assert_eq!(compared, Comparison::Unchecked, "{name}");
            }
            Err(evidence) => {
                assert!(!samples.is_empty());
                for sample in samples {
                    let failure = sample.unwrap_err();
                    assert_eq!((failure.cause, failure.exit), (Cause::TargetNotResolved, Some(1)), "{name}");
                    assert!(failure.evidence.as_str().starts_with(evidence), "{name}: {}", failure.evidence.as_str());
                }
            }
        }
    }
}

fn printed(stdout: &str, stderr: &str, metrics: &[MetricSpec]) -> Result<Sample, Failure> {
    read(Contract::Text, &end(0, stdout, stderr), metrics)
}

fn by(name: &str, pattern: &str) -> MetricSpec {
    MetricSpec { pattern: Some(Pattern::new(pattern).unwrap()), ..MetricSpec::time(name) }
}

#[test]
fn text_reads_each_metric_by_its_pattern_from_standard_output_and_else_from_standard_error() {
    let both = [by("a", r"a=([0-9.e+-]+)"), by("b", r"a=.* b=([0-9.]+)")];
    let sample = printed("a=1 b=2\na=0.5 b=4\n", "a=9 b=9\n", &both).unwrap();
    assert_eq!((sample.metrics["a"], sample.metrics["b"], sample.forgeable), (0.5, 4.0, true));
    assert_eq!((sample.digest, sample.score), (None, None));
    assert_eq!(printed("", "a=1e-3\r", &both[..1]).unwrap().metrics["a"], 0.001);
}

#[test]
fn text_says_which_pattern_found_nothing_or_no_number() {
    let metrics = [by("a", r"a=(\S+)"), by("ttft_ms", r"TTFT: (\S+)")];
    for (stdout, says) in [
        ("a=1\n", r"`ttft_ms`: TTFT: (\S+)"),
        ("a=1\nTTFT: 5\nTTFT: nan\n", "`ttft_ms` found `nan`"),
        ("a=1\nTTFT: 1,5\n", "`ttft_ms` found `1,5`"),
        ("a=1\nTTFT: 0\n", "`ttft_ms` is 0, which is not above 0"),
    ] {
        let failure = printed(stdout, "", &metrics).unwrap_err();
        assert_eq!(failure.cause, Cause::NoResult, "{stdout}");
        assert!(failure.evidence.as_str().contains(says), "{failure:?}");
    }
    let failure = read(Contract::Text, &end(3, "a=1\nTTFT: 5\n", "ValueError: x\n"), &metrics).unwrap_err();
    assert_eq!((failure.cause, failure.exit), (Cause::Exception, Some(3)));
}

/// What the benchmarks print, in the forms of several versions; the numbers are of our own making.
const VLLM_SERVING: [&str; 2] = [
    "Traffic request rate: inf\n100%|####| 40/40 [00:08<00:00,  4.9it/s]\n\
     ============ Serving Benchmark Result ============\n\
     Successful requests:                     40        \n\
     Benchmark duration (s):                  8.16      \n\
     Total input tokens:                      8800      \n\
     Total generated tokens:                  7350      \n\
     Request throughput (req/s):              4.90      \n\
     Output token throughput (tok/s):         900.74    \n\
     Peak output token throughput (tok/s):    1336.00   \n\
     Total Token throughput (tok/s):          1979.17   \n\
     ---------------Time to First Token----------------\n\
     Mean TTFT (ms):                          188.52    \n\
     Median TTFT (ms):                        166.04    \n\
     P99 TTFT (ms):                           404.83    \n\
     -----Time per Output Token (excl. 1st token)------\n\
     Mean TPOT (ms):                          25.62     \n\
     Median TPOT (ms):                        25.55     \n\
     ==================================================\n",
    "Successful requests: 40\nBenchmark duration: 8.163265 s\nTotal input tokens: 8800\n\
     Request throughput: 4.90 requests/s\nInput token throughput: 1078.43 tokens/s\n\
     Output token throughput: 900.74 tokens/s\nMean TTFT: 188.52 ms\nMedian TTFT: 166.04 ms\n\
     P99 TTFT: 404.83 ms\nMean TPOT: 25.62 ms\nMedian TPOT: 25.55 ms\nP99 TPOT: 31.91 ms\n",
];
const SGLANG_SERVING: &str = "\
     ============ Serving Benchmark Result ============\n\
     Backend:                                 sglang    \n\
     Successful requests:                     10        \n\
     Request throughput (req/s):              0.25      \n\
     Input token throughput (tok/s):          152.52    \n\
     Output token throughput (tok/s):         105.24    \n\
     Peak output token throughput (tok/s):    110.00    \n\
     ----------------End-to-End Latency----------------\n\
     Mean E2E Latency (ms):                   3998.40   \n\
     ---------------Time to First Token----------------\n\
     Mean TTFT (ms):                          153.00    \n";

fn preset(name: &str) -> Vec<MetricSpec> {
    Preset::named(name).unwrap().metrics().unwrap()
}

#[test]
fn presets_read_what_the_benchmarks_print() {
    for (at, stdout) in VLLM_SERVING.into_iter().enumerate() {
        let read = printed(stdout, "", &preset("vllm-serving")).unwrap().metrics;
        let wanted = [
            ("mean_tpot_ms", 25.62),
            ("mean_ttft_ms", 188.52),
            ("median_ttft_ms", 166.04),
            ("output_throughput", 900.74),
            ("request_throughput", 4.9),
            ("successful_requests", 40.0),
        ];
        assert_eq!(read, wanted.map(|(name, value)| (name.to_owned(), value)).into(), "form {at}");
    }
    let read = printed(SGLANG_SERVING, "", &preset("sglang-serving")).unwrap().metrics;
    assert_eq!((read["output_throughput"], read["mean_e2e_ms"], read["mean_ttft_ms"]), (105.24, 3998.4, 153.0));
    let latency = "Avg latency: 1.2345678 seconds\n10% percentile latency: 1.1 seconds\n";
    assert_eq!(printed(latency, "", &preset("vllm-latency")).unwrap().metrics["avg_latency_s"], 1.2345678);
    for line in [
        "Throughput: 7.15 requests/s, 4656.00 tokens/s\n",
        "Throughput: 7.15 requests/s, 4656.00 total tokens/s, 2328.50 output tokens/s\n",
    ] {
        let read = printed(line, "", &preset("vllm-throughput")).unwrap().metrics;
        assert_eq!((read["requests_per_s"], read["tokens_per_s"]), (7.15, 4656.0), "{line}");
    }
}

#[test]
fn a_server_that_answers_nothing_is_measured_by_no_preset() {
    let none = VLLM_SERVING[0].replace("900.74", "0.00").replace("4.90 ", "0.00 ");
    assert_eq!(cause(printed(&none, "", &preset("vllm-serving"))), Cause::NoResult);
}

/// The texts in a JSON value, whatever holds them.
fn texts(value: &serde_json::Value, found: &mut Vec<String>) {
    match value {
        serde_json::Value::String(text) => found.push(text.clone()),
        serde_json::Value::Array(all) => all.iter().for_each(|value| texts(value, found)),
        serde_json::Value::Object(all) => all.values().for_each(|value| texts(value, found)),
        _ => {}
    }
}

#[test]
fn presets_read_every_real_benchmark_output_that_is_at_hand() {
    let shared = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared");
    let mut open = vec![shared.join("data/iso-bench"), shared.join("reference")];
    let mut outputs = Vec::new();
    while let Some(path) = open.pop() {
        if let Ok(entries) = std::fs::read_dir(&path) {
            open.extend(entries.flatten().map(|entry| entry.path()));
        } else if let Ok(text) = std::fs::read_to_string(&path) {
            match serde_json::from_str(&text) {
                Ok(json) => texts(&json, &mut outputs),
                Err(_) => outputs.push(text),
            }
        }
    }
    let begin = |text: &str, line: &str| text.lines().any(|found| found.trim_start().starts_with(line));
    let mut read = 0;
    for output in &outputs {
        let serving = begin(output, "Mean TTFT") && begin(output, "Successful requests:");
        let sglang = serving && begin(output, "Mean E2E Latency");
        for (there, name) in [
            (serving && !sglang, "vllm-serving"),
            (sglang, "sglang-serving"),
            (begin(output, "Avg latency:"), "vllm-latency"),
            (begin(output, "Throughput:") && output.contains("requests/s"), "vllm-throughput"),
        ] {
            if there {
                printed(output, "", &preset(name)).unwrap_or_else(|failure| panic!("{name}: {failure:?}\n{output}"));
                read += 1;
            }
        }
    }
    if read == 0 {
        eprintln!("skipped: no output of these benchmarks lies in {}", shared.display());
    }
}
