//! Builds what a test measures and compares: metrics, the rule by which results are equal, and checks.

use super::flaw::{Draft, Report, suggest};
use super::node::{Node, Value};
use super::{Spanned, Template, argv};
use crate::measure::metric::Better;
use crate::measure::{Equal, Guards, Kind as MetricKind, MetricSpec, Pattern, Preset};

/// The smallest effect that matters, where a metric does not say.
const MIN_EFFECT: f64 = 0.02;

/// Builds the rule of an `equal` node. Each rule has properties of its own, and the others' mean nothing beside it.
pub(super) fn equal(node: Node<'_>, report: &Report) -> Option<Spanned<Equal>> {
    let word = node.arg(0)?;
    let (own, example): (&[&str], _) = match word.str()? {
        "close" => (&["rtol", "atol"], "equal close rtol=1e-3 atol=1e-6"),
        "score" => (&["band", "better"], "equal score band=\"1%\""),
        "digest" => (&[], "equal digest"),
        "script" => (&[], "equal script"),
        _ => return None,
    };
    let written = format!("it is written: {example}");
    let rule = word.str().unwrap_or_default();
    for other in node.entries().filter(|entry| entry.key().is_some_and(|key| !own.contains(&key))) {
        let key = other.key().unwrap_or_default();
        if ["rtol", "atol", "band", "better"].contains(&key) {
            let draft = Draft::new("foreign-property", other.place(), format!("`equal {rule}` has no `{key}`"));
            report.add(draft.label("belongs to another rule").help(written.clone()));
        }
    }
    let number = |name: &str| node.prop(name).and_then(Value::number);
    let value = match rule {
        "close" => {
            if node.prop("rtol").is_none() && node.prop("atol").is_none() {
                let draft = Draft::new("no-tolerance", node.place(), "`equal close` says not how close");
                report.add(draft.label("needs `rtol`, `atol` or both").help(written));
                return None;
            }
            Equal::Close { rtol: number("rtol").unwrap_or(0.0), atol: number("atol").unwrap_or(0.0) }
        }
        "score" => {
            let Some(band) = node.prop("band") else {
                let draft = Draft::new("no-tolerance", node.place(), "`equal score` says not how close");
                report.add(draft.label("needs a `band`").help(written));
                return None;
            };
            let better = node.prop("better").and_then(Value::str);
            let better = better.map(|word| if word == "higher" { Better::Higher } else { Better::Lower });
            Equal::Score { band: band.percent()?.value, better }
        }
        "script" => Equal::Script,
        _ => Equal::Digest,
    };
    Some(Spanned { value, place: node.place() })
}

/// Builds what is borne of a disturbed machine.
pub(super) fn guards(node: Node<'_>) -> Guards {
    let from = if node.arg(0).is_some() { Guards::OFF } else { Guards::default() };
    let share = |name: &str, unsaid: Option<f64>| match node.prop(name) {
        Some(said) => said.percent().map(|share| share.value),
        None => unsaid,
    };
    let dropped = node.prop("dropped").and_then(Value::whole::<u32>);
    Guards {
        steal: share("steal", from.steal),
        throttle: share("throttle", from.throttle),
        heat: share("heat", from.heat),
        iowait: share("iowait", from.iowait),
        pressure: share("pressure", from.pressure),
        alone: node.prop("alone").and_then(Value::flag).unwrap_or(from.alone),
        dropped: dropped.unwrap_or(from.dropped),
    }
}

/// Builds checks: an argv each.
pub(super) fn checks<'a>(nodes: impl Iterator<Item = Node<'a>>, report: &Report) -> Vec<Vec<Spanned<Template>>> {
    nodes.map(|node| argv::run(node, report)).collect()
}

/// Builds the metrics of a preset, the primary one first.
fn of_preset(node: Node<'_>, report: &Report) -> Vec<MetricSpec> {
    let preset = node.arg(0).and_then(Value::str).and_then(Preset::named);
    let Some(mut metrics) = preset.and_then(|preset| preset.metrics().ok()) else { return Vec::new() };
    if let Some(primary) = node.prop("primary") {
        let timed = |metric: &&MetricSpec| !metric.equal;
        let at = primary.str().and_then(|name| metrics.iter().position(|metric| metric.name == name && !metric.equal));
        match at {
            Some(at) => metrics[..=at].rotate_right(1),
            None => report.add(
                Draft::new("unknown-metric", primary.place(), "no metric of this preset that can be primary")
                    .label("not of the preset")
                    .help(suggest(
                        primary.str().unwrap_or_default(),
                        metrics.iter().filter(timed).map(|metric| metric.name.as_str()),
                        "metric",
                    )),
            ),
        }
    }
    if let Some(least) = node.prop("min-effect").and_then(Value::percent) {
        metrics.iter_mut().for_each(|metric| metric.min_effect = least.value);
    }
    metrics
}

/// Builds metrics: those of a preset, and those that are written out.
pub(super) fn metrics<'a>(
    preset: Option<Node<'a>>,
    nodes: impl Iterator<Item = Node<'a>>,
    report: &Report,
) -> Vec<MetricSpec> {
    let mut metrics = preset.map(|node| of_preset(node, report)).unwrap_or_default();
    // Of these each may be written anew once.
    let mut preset: Vec<String> = metrics.iter().map(|metric| metric.name.clone()).collect();
    let mut unread = None;
    for node in nodes {
        let Some(name) = node.text() else { continue };
        let pattern = node.prop("pattern").and_then(Value::str);
        if pattern.is_none() {
            unread = unread.or(Some(node.place()));
        }
        let anew = preset.iter().position(|known| *known == name.value);
        let at =
            anew.map(|at| preset.remove(at)).and_then(|name| metrics.iter().position(|metric| metric.name == name));
        let first = metrics.is_empty() || at == Some(0);
        let guard = node.prop("guard").and_then(Value::flag).unwrap_or(false);
        if at.is_none() && metrics.iter().any(|metric| metric.name == name.value) {
            report.add(
                Draft::new("duplicate-name", name.place, format!("metric `{}` is declared twice", name.value))
                    .label("again here")
                    .help("leave one out"),
            );
            continue;
        }
        if guard && first {
            report.add(
                Draft::new("guard-first", node.place(), "the first metric is primary and cannot be a guard")
                    .label("first metric")
                    .help("put the metric that the verdict is about first"),
            );
        }
        let equal = node.prop("equal").and_then(Value::flag).unwrap_or(false);
        let counts = node.prop("kind").and_then(Value::str) == Some("count");
        if equal && (!counts || first) {
            let what = if counts {
                "the first metric is primary and cannot be equal in both trees"
            } else {
                "only a `count` can be equal in both trees"
            };
            report.add(
                Draft::new("equal-metric", node.place(), what)
                    .label("would decide nothing")
                    .help("put the metric that the verdict is about first, then: metric tokens better=lower kind=count equal=#true"),
            );
        }
        let better = node.prop("better").and_then(Value::str);
        let metric = MetricSpec {
            name: name.value,
            better: if better == Some("higher") { Better::Higher } else { Better::Lower },
            kind: if counts { MetricKind::Count } else { MetricKind::Time },
            min_effect: node.prop("min-effect").and_then(Value::percent).map_or(MIN_EFFECT, |percent| percent.value),
            guard,
            equal,
            bound: node.prop("bound").and_then(Value::times),
            pattern: pattern.and_then(|text| Pattern::new(text).ok()),
        };
        match at {
            Some(at) => metrics[at] = metric,
            None => metrics.push(metric),
        }
    }
    if let Some(place) = unread.filter(|_| metrics.iter().any(|metric| metric.pattern.is_some())) {
        report.add(
            Draft::new("mixed-metrics", place, "some metrics of this test have a `pattern`, and this has none")
                .label("would be read from a result file")
                .help("give it a pattern, or take the patterns away and let the test write $FLOW_RESULT"),
        );
    }
    metrics
}
