//! Tests of `stats`: table values, properties, and what five blocks looked at once are worth.

use proptest::prelude::*;

use super::super::metric::{Better, MetricSpec};
use super::super::protocol::{Arm, FIXED_ALPHA, Profile, Protocol, SCREEN_ALPHA, Shape, Turn, block};
use super::super::simulate::Rng;
use super::*;

const ALPHA: f64 = FIXED_ALPHA;

/// Student's t, two-sided 5 %, 1 % and 0.25 %: Abramowitz and Stegun, table 26.10, and scipy.stats.t.ppf(1 - a/2, df).
#[test]
fn t_is_as_in_tables() {
    for (freedom, five, one) in [
        (1, 12.706, 63.657),
        (2, 4.303, 9.925),
        (3, 3.182, 5.841),
        (4, 2.776, 4.604),
        (7, 2.365, 3.499),
        (10, 2.228, 3.169),
        (25, 2.060, 2.787),
        (30, 2.042, 2.750),
        (120, 1.980, 2.617),
    ] {
        assert!((t_quantile(0.05, freedom) - five).abs() < 6e-4, "{freedom}: {}", t_quantile(0.05, freedom));
        assert!((t_quantile(0.01, freedom) - one).abs() < 6e-4, "{freedom}: {}", t_quantile(0.01, freedom));
    }
    assert!((t_quantile(0.05, 4) - 2.776_445_105_198).abs() < 1e-9);
    assert!((t_quantile(0.05, 255) - 1.969_310_561).abs() < 1e-6, "{}", t_quantile(0.05, 255));
    assert!(t_quantile(0.05, 0).is_infinite() && t_quantile(0.0, 5).is_infinite());
}

#[test]
fn an_estimate_by_hand() {
    // Mean 0.3, sd 0.1, t(4) = 2.776: half width 0.1242.
    let d = [0.2, 0.25, 0.3, 0.35, 0.4];
    let e = estimate(&d, ALPHA).unwrap();
    assert_eq!((e.n, e.alpha), (5, 0.05));
    assert!((e.log_mean - 0.3).abs() < 1e-12);
    assert!((e.log_sd - 0.079_056_941_5).abs() < 1e-9);
    assert!((e.speedup - 0.3f64.exp()).abs() < 1e-12);
    assert!((e.low.ln() - (0.3 - 2.776_445 * 0.079_056_94 / 5f64.sqrt())).abs() < 1e-6);
    // t = 0.3 / (0.0790569 / √5) = 8.485 with 4 degrees of freedom.
    assert!((p_value(&e) - 0.001_057).abs() < 2e-6, "{}", p_value(&e));
    assert_eq!(judge(&e, 0.02), Effect::Improvement);
    assert_eq!(estimate(&[0.1], ALPHA), None);
    assert_eq!(estimate(&[0.1, f64::NAN], ALPHA), None);
}

#[test]
fn each_verdict_has_its_case() {
    let of = |mean: f64, sd: f64| Estimate { log_mean: mean, log_sd: sd, ..estimate(&[0.0; 5], ALPHA).unwrap() };
    assert_eq!(judge(&of(0.03, 0.01), 0.02), Effect::Improvement);
    assert_eq!(judge(&of(-0.03, 0.01), 0.02), Effect::Regression);
    assert_eq!(judge(&of(0.0, 0.01), 0.02), Effect::Neutral);
    // Off zero, but too small to count and not shown to be small.
    assert!(matches!(judge(&of(0.015, 0.01), 0.02), Effect::Inconclusive { needed_blocks: Some(n) } if n > 5));
    // Large, but not off zero: about (1.98 · 0.1 / 0.03)^2 blocks.
    assert_eq!(judge(&of(0.03, 0.1), 0.02), Effect::Inconclusive { needed_blocks: Some(46) });
    assert_eq!(judge(&of(0.001, 0.9), 0.02), Effect::Inconclusive { needed_blocks: None });
    // A least effect of 0 knows no equivalence; no noise at all is no obstacle.
    assert_eq!(judge(&of(0.0, 0.0), 0.0), Effect::Inconclusive { needed_blocks: None });
    assert_eq!(judge(&of(0.0, 0.0), 0.02), Effect::Neutral);
    assert_eq!(judge(&of(1e-9, 0.0), 0.0), Effect::Improvement);
}

#[test]
fn each_look_has_its_level_and_equivalence_twice_its_error_rate() {
    let of = |mean: f64, sd: f64, alpha: f64| Estimate {
        log_mean: mean,
        log_sd: sd,
        alpha,
        ..estimate(&[0.0; 5], alpha).unwrap()
    };
    // t(4) is 2.776 at 5 % and about 4.05 at 1.58 %: half widths of 0.0124 and 0.0181 at a deviation of 0.01.
    let found = |mean, alpha| judge(&of(mean, 0.015, alpha), 0.02) == Effect::Improvement;
    assert!(found(0.0215, ALPHA) && !found(0.0215, SCREEN_ALPHA) && found(0.03, SCREEN_ALPHA));
    // 0.0154 either side at 5 %, 0.0118 at 10 %: the least effect is 0.0198.
    assert_eq!(judge(&of(0.006, 0.0124, ALPHA), 0.02), Effect::Neutral);
    assert!(matches!(judge(&of(0.009, 0.0124, ALPHA), 0.02), Effect::Inconclusive { .. }));
}

#[test]
fn several_tests_are_corrected_for_their_number() {
    // Holm's own way: 3 · 0.01, then 2 · 0.02, then 1 · 0.03 held up by the one before.
    let corrected = holm(&[0.03, 0.01, 0.02]);
    assert!(corrected.iter().zip([0.04, 0.03, 0.04]).all(|(a, b)| (a - b).abs() < 1e-12), "{corrected:?}");
    assert_eq!(holm(&[0.6, 0.5]), [1.0, 1.0]);
    assert!(holm(&[]).is_empty());
}

#[test]
fn two_sessions_are_told_apart_by_welch() {
    // R: t.test(x, y) of samples with these means, deviations and sizes has 7.97 degrees of freedom.
    let of = difference([0.3, 0.02, 5.0], [0.1, 0.021, 5.0], 0.05);
    assert_eq!(of.n, 8);
    assert!((of.log_mean - 0.2).abs() < 1e-12);
    let error = (0.02f64.powi(2) / 5.0 + 0.021f64.powi(2) / 5.0).sqrt();
    assert!((of.high.ln() - 0.2 - 2.364_624 * error).abs() < 1e-6, "{}", of.high.ln());
    assert_eq!(judge(&of, 0.02), Effect::Improvement);
    let none = difference([0.1, 0.0, 5.0], [0.1, 0.0, 5.0], 0.05);
    assert_eq!(judge(&none, 0.02), Effect::Neutral);
}

#[test]
fn counts_are_judged_exactly() {
    let low = MetricSpec::count("ops");
    let high = MetricSpec { better: Better::Higher, ..low.clone() };
    let say = |b: &[f64], p: &[f64], s: &MetricSpec| judge_count(b, p, s);
    assert_eq!(say(&[1000.0, 1000.0], &[500.0, 500.0], &low), (Effect::Improvement, Some(2.0)));
    assert_eq!(say(&[1000.0, 1000.0], &[500.0, 500.0], &high), (Effect::Regression, Some(0.5)));
    assert_eq!(say(&[102.0], &[100.0], &low).0, Effect::Improvement);
    assert_eq!(say(&[100.0], &[102.0], &low).0, Effect::Regression);
    assert_eq!(say(&[101.0], &[100.0], &low).0, Effect::Neutral);
    assert_eq!(say(&[7.0], &[7.0], &MetricSpec { min_effect: 0.0, ..low.clone() }), (Effect::Neutral, Some(1.0)));
    assert_eq!(say(&[5.0], &[0.0], &low), (Effect::Improvement, None));
    assert_eq!(say(&[0.0], &[5.0], &low), (Effect::Regression, None));
    assert_eq!(say(&[0.0], &[0.0], &low), (Effect::Neutral, Some(1.0)));
    let unsure = Effect::Inconclusive { needed_blocks: None };
    assert_eq!(say(&[5.0, 6.0], &[1.0, 1.0], &low), (unsure, None));
    assert_eq!(say(&[], &[1.0], &low), (unsure, None));
}

/// Simulated sessions of five mirrored blocks: log noise `sd` a run and a linear drift of `drift` over the session, of a
/// patched tree that is faster by `effect` on the log scale. How many of 4,000 became each verdict.
fn simulate(seed: u64, sd: f64, drift: f64, effect: f64) -> (u32, u32, u32, u32) {
    simulate_as(Shape::Mirror, seed, sd, drift, effect)
}

fn simulate_as(shape: Shape, seed: u64, sd: f64, drift: f64, effect: f64) -> (u32, u32, u32, u32) {
    let mut rng = Rng::new(seed, 0);
    let mut seen = (0, 0, 0, 0);
    for session in 0..4000 {
        let protocol = Protocol { seed: session, warmup: 0, shape, ..Protocol::new(Profile::Screen) };
        let turns: Vec<Turn> = (0..5).flat_map(|number| block(&protocol, number, &[Arm::Base, Arm::Patched])).collect();
        let mut blocks = vec![(vec![], vec![]); 5];
        for (i, turn) in turns.iter().enumerate() {
            let log = sd * rng.normal() + drift * i as f64 / turns.len() as f64;
            let pair = &mut blocks[turn.block as usize];
            match turn.arm {
                Arm::Base => pair.0.push(log.exp()),
                _ => pair.1.push((log - effect).exp()),
            }
        }
        let ratios: Vec<f64> = blocks.iter().map(|(b, p)| block_log_ratio(b, p, Better::Lower).unwrap()).collect();
        match settles(&estimate(&ratios, ALPHA).unwrap(), 0.02) {
            Some(Effect::Improvement) => seen.0 += 1,
            Some(Effect::Regression) => seen.1 += 1,
            Some(Effect::Neutral) => seen.2 += 1,
            _ => seen.3 += 1,
        }
    }
    seen
}

#[test]
fn base_against_base_is_rarely_called_an_effect() {
    // Noise far above the least effect, where only the interval protects: 2.5 % a side are due, 1 % is allowed for chance.
    for (seed, sd, drift) in [(1, 0.05, 0.0), (2, 0.05, 0.3), (3, 0.2, 0.0)] {
        let (better, worse, _, _) = simulate(seed, sd, drift, 0.0);
        assert!(better <= 140 && worse <= 140, "{better} and {worse} of 4000 at noise {sd}, drift {drift}");
        assert!(better + worse >= 60, "an interval far too wide: {better} and {worse}");
    }
    // Noise below the least effect: hardly ever, and most are shown to be neutral.
    let (better, worse, neutral, _) = simulate(4, 0.01, 0.03, 0.0);
    assert!(better + worse <= 12 && neutral >= 3500, "{better} {worse} {neutral}");
    // Blocks of pairs keep the rate as well, but show far fewer to be neutral.
    let (better, worse, neutral, _) = simulate_as(Shape::Pair, 4, 0.01, 0.03, 0.0);
    assert!(better + worse <= 40 && neutral <= 2700, "{better} {worse} {neutral}");
}

#[test]
fn true_effects_are_found() {
    let (better, worse, _, _) = simulate(5, 0.01, 0.03, 0.06);
    assert!(better >= 3990 && worse == 0, "{better} {worse}");
    let (better, worse, _, _) = simulate(6, 0.01, 0.03, -0.06);
    assert!(worse >= 3990 && better == 0, "{better} {worse}");
}

fn ratios() -> impl Strategy<Value = Vec<f64>> {
    (2usize..14, -1.0f64..1.0, 1e-4f64..0.5).prop_flat_map(|(n, shift, width)| {
        prop::collection::vec((-1.0f64..1.0).prop_map(move |x| shift + x * width), n)
    })
}

fn turned(effect: Effect) -> Effect {
    match effect {
        Effect::Improvement => Effect::Regression,
        Effect::Regression => Effect::Improvement,
        other => other,
    }
}

proptest! {
    #[test]
    fn swapping_the_arms_turns_the_sign(d in ratios(), min in 0.0f64..0.2) {
        let swapped: Vec<f64> = d.iter().map(|x| -x).collect();
        let (a, b) = (estimate(&d, ALPHA).unwrap(), estimate(&swapped, ALPHA).unwrap());
        prop_assert!((a.log_mean + b.log_mean).abs() < 1e-12);
        prop_assert!((a.speedup * b.speedup - 1.0).abs() < 1e-9);
        prop_assert!((a.low * b.high - 1.0).abs() < 1e-9);
        prop_assert!((p_value(&a) - p_value(&b)).abs() < 1e-9);
        prop_assert_eq!(judge(&a, min), turned(judge(&b, min)));
    }

    #[test]
    fn units_change_nothing(base in prop::collection::vec(1e-3f64..1e3, 1..4), patched in prop::collection::vec(1e-3f64..1e3, 1..4), unit in 1e-6f64..1e6) {
        let scale = |v: &[f64]| v.iter().map(|x| x * unit).collect::<Vec<_>>();
        let before = block_log_ratio(&base, &patched, Better::Lower).unwrap();
        let after = block_log_ratio(&scale(&base), &scale(&patched), Better::Lower).unwrap();
        prop_assert!((before - after).abs() < 1e-9);
        let higher = block_log_ratio(&base, &patched, Better::Higher).unwrap();
        prop_assert_eq!(higher, -before);
        prop_assert_eq!(block_log_ratio(&patched, &base, Better::Lower).unwrap(), -before);
    }

    #[test]
    fn the_order_of_blocks_changes_nothing((d, shuffled) in ratios().prop_flat_map(|d| (Just(d.clone()), Just(d).prop_shuffle()))) {
        prop_assert_eq!(estimate(&d, ALPHA), estimate(&shuffled, ALPHA));
    }

    #[test]
    fn judgement_is_total_and_unique(mean in -0.5f64..0.5, sd in 0.0f64..0.5, n in 2u32..40, min in 0.0f64..0.3) {
        let e = Estimate { n, log_mean: mean, log_sd: sd, ..estimate(&[0.0, 0.0], ALPHA).unwrap() };
        let (half, narrow, least) = (half_width(sd, n, ALPHA), half_width(sd, n, 2.0 * ALPHA), min.ln_1p());
        let says = [
            mean - half > 0.0 && mean >= least,
            mean + half < 0.0 && mean <= -least,
            mean - narrow > -least && mean + narrow < least,
        ];
        prop_assert!(says.iter().filter(|s| **s).count() <= 1, "{says:?}");
        let effect = judge(&e, min);
        let expected = match says {
            [true, ..] => Effect::Improvement,
            [_, true, _] => Effect::Regression,
            [.., true] => Effect::Neutral,
            _ => {
                let Effect::Inconclusive { needed_blocks } = effect else { return Err(TestCaseError::fail("settled")) };
                if let Some(more) = needed_blocks {
                    prop_assert!(more > n);
                    // So many blocks settle it, and one fewer does not.
                    let judged = |n| judge(&Estimate { n, ..e }, min);
                    let unsettled = |effect| matches!(effect, Effect::Inconclusive { .. });
                    prop_assert!(!unsettled(judged(more)));
                    prop_assert!(more - 1 == n || unsettled(judged(more - 1)));
                }
                effect
            }
        };
        prop_assert_eq!(effect, expected);
    }
}
