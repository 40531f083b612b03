//! Tests of `stats`: table values, properties, and false-verdict rates by simulation with a fixed seed.

use proptest::prelude::*;

use super::super::metric::{Better, Kind, MetricSpec};
use super::super::protocol::{Arm, Profile, Protocol, Shape, schedule};
use super::*;

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
    let e = estimate(&d).unwrap();
    assert_eq!(e.n, 5);
    assert!((e.log_mean - 0.3).abs() < 1e-12);
    assert!((e.log_sd - 0.079_056_941_5).abs() < 1e-9);
    assert!((e.speedup - 0.3f64.exp()).abs() < 1e-12);
    assert!((e.low.ln() - (0.3 - 2.776_445 * 0.079_056_94 / 5f64.sqrt())).abs() < 1e-6);
    assert_eq!(e.p_signflip, Some(2.0 / 32.0));
    assert_eq!(judge(&e, 0.02), Effect::Improvement);
    assert_eq!(estimate(&[0.1]), None);
    assert_eq!(estimate(&[0.1, f64::NAN]), None);
}

#[test]
fn each_verdict_has_its_case() {
    let of = |mean: f64, sd: f64| Estimate { log_mean: mean, log_sd: sd, ..estimate(&[0.0; 5]).unwrap() };
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

#[test]
fn the_permutation_test_is_exact() {
    let naive = |d: &[f64]| {
        let bound = d.iter().sum::<f64>().abs() - 1e-12;
        let far = (0..1u32 << d.len())
            .filter(|mask| {
                let sum: f64 = d.iter().enumerate().map(|(i, v)| if mask >> i & 1 == 0 { *v } else { -v }).sum();
                sum.abs() >= bound
            })
            .count();
        far as f64 / f64::from(1u32 << d.len())
    };
    let mut rng = Rng(7);
    for n in 1..=12 {
        let d: Vec<f64> = (0..n).map(|_| rng.normal() + 0.4).collect();
        let mut sorted = d.clone();
        sorted.sort_by(f64::total_cmp);
        assert!((sign_flip(&sorted).unwrap() - naive(&d)).abs() < 1e-12, "{d:?}");
    }
    assert_eq!(sign_flip(&[0.0; 26]), Some(1.0));
    assert!((sign_flip(&[1.0; 26]).unwrap() - 2f64.powi(-25)).abs() < 1e-15);
    assert_eq!(sign_flip(&[1.0; 33]), None);
}

/// A generator of its own, so that the simulations say the same for ever.
struct Rng(u64);

impl Rng {
    /// xorshift64* (Vigna 2016), uniform in (0, 1).
    fn uniform(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    /// Box and Muller 1958.
    fn normal(&mut self) -> f64 {
        (-2.0 * self.uniform().ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

/// Simulated sessions of five mirrored blocks: log noise `sd` a run and a linear drift of `drift` over the session, of a
/// patched tree that is faster by `effect` on the log scale. How many of 4,000 became each verdict.
fn simulate(seed: u64, sd: f64, drift: f64, effect: f64) -> (u32, u32, u32, u32) {
    simulate_as(Shape::Mirror, seed, sd, drift, effect)
}

fn simulate_as(shape: Shape, seed: u64, sd: f64, drift: f64, effect: f64) -> (u32, u32, u32, u32) {
    let mut rng = Rng(seed);
    let mut seen = (0, 0, 0, 0);
    for session in 0..4000 {
        let protocol = Protocol { seed: session, warmup: 0, shape, ..Protocol::new(Profile::Screen) };
        let turns = schedule(&protocol, Kind::Time);
        let mut blocks = vec![(vec![], vec![]); 5];
        for (i, turn) in turns.iter().enumerate() {
            let log = sd * rng.normal() + drift * i as f64 / turns.len() as f64;
            let pair = &mut blocks[turn.block as usize];
            match turn.arm {
                Arm::Base => pair.0.push(log.exp()),
                Arm::Patched => pair.1.push((log - effect).exp()),
            }
        }
        let ratios: Vec<f64> = blocks.iter().map(|(b, p)| block_log_ratio(b, p, Better::Lower).unwrap()).collect();
        let e = estimate(&ratios).unwrap();
        match settled(e.log_mean, half_width(e.log_sd, e.n, ALPHA), 0.02f64.ln_1p()) {
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
    assert!(better + worse <= 12 && neutral >= 3200, "{better} {worse} {neutral}");
    // Blocks of pairs keep the rate as well, but show less than half as many to be neutral.
    let (better, worse, neutral, _) = simulate_as(Shape::Pair, 4, 0.01, 0.03, 0.0);
    assert!(better + worse <= 40 && neutral <= 2000, "{better} {worse} {neutral}");
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
        let (a, b) = (estimate(&d).unwrap(), estimate(&swapped).unwrap());
        prop_assert!((a.log_mean + b.log_mean).abs() < 1e-12);
        prop_assert!((a.speedup * b.speedup - 1.0).abs() < 1e-9);
        prop_assert!((a.low * b.high - 1.0).abs() < 1e-9);
        prop_assert!((a.p_signflip.unwrap() - b.p_signflip.unwrap()).abs() < 1e-9);
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
        prop_assert_eq!(estimate(&d), estimate(&shuffled));
    }

    #[test]
    fn judgement_is_total_and_unique(mean in -0.5f64..0.5, sd in 0.0f64..0.5, n in 2u32..40, min in 0.0f64..0.3) {
        let e = Estimate { n, log_mean: mean, log_sd: sd, ..estimate(&[0.0, 0.0]).unwrap() };
        let (half, least) = (half_width(sd, n, ALPHA), min.ln_1p());
        let says = [
            mean - half > 0.0 && mean >= least,
            mean + half < 0.0 && mean <= -least,
            mean - half > -least && mean + half < least,
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
