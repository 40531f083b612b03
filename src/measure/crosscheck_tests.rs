//! Tests of `crosscheck`.

use super::super::simulate::Rng;
use super::super::stats::estimate;
use super::*;

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
    let mut rng = Rng::new(7, 0);
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

#[test]
fn the_bootstrap_is_the_seeds_and_lies_where_the_blocks_do() {
    let mut rng = Rng::new(3, 0);
    let d: Vec<f64> = (0..26).map(|_| 0.1 + 0.05 * rng.normal()).collect();
    let e = estimate(&d, 0.05).unwrap();
    let checks = Checks::of(&d, &e, 1);
    assert_eq!(checks, Checks::of(&d, &e, 1));
    let ([low, high], [inner, outer]) = (checks.bootstrap, checks.bootstrap_twice);
    assert!(low < inner && inner < outer && outer < high, "{checks:?}");
    assert_ne!(checks.bootstrap, Checks::of(&d, &e, 2).bootstrap);
    let backwards: Vec<f64> = d.iter().rev().copied().collect();
    assert_eq!(checks, Checks::of(&backwards, &e, 1));
    // Of 26 blocks both intervals are about the same.
    let [low, high] = checks.bootstrap;
    assert!((low / e.low - 1.0).abs() < 0.01 && (high / e.high - 1.0).abs() < 0.01, "{checks:?} {e:?}");
    let five = Checks::of(&d[..5], &estimate(&d[..5], 0.05).unwrap(), 1);
    assert!(
        five.bootstrap[1] - five.bootstrap[0]
            < estimate(&d[..5], 0.05).unwrap().high - estimate(&d[..5], 0.05).unwrap().low
    );
}

#[test]
fn a_contradiction_is_seen_and_agreement_is_none() {
    let clear = [0.3, 0.31, 0.29, 0.3, 0.32];
    let e = estimate(&clear, 0.0158).unwrap();
    let checks = Checks::of(&clear, &e, 0);
    assert!(!checks.flips_disagree(&e, Effect::Improvement) && !checks.bootstrap_disagrees(Effect::Improvement, 0.02));
    // Five blocks cannot have a p below 1/16: that alone is no contradiction.
    assert_eq!(checks.p_signflip, Some(1.0 / 16.0));
    assert!(checks.bootstrap_disagrees(Effect::Regression, 0.02) && checks.bootstrap_disagrees(Effect::Neutral, 0.02));
    let mixed = Checks { p_signflip: Some(0.3), bootstrap: [0.9, 1.1], bootstrap_twice: [0.99, 1.01] };
    assert!(mixed.flips_disagree(&e, Effect::Improvement) && mixed.bootstrap_disagrees(Effect::Improvement, 0.02));
    assert!(!mixed.bootstrap_disagrees(Effect::Neutral, 0.02) && mixed.bootstrap_disagrees(Effect::Neutral, 0.005));
    let unsure = Effect::Inconclusive { needed_blocks: None };
    assert!(!mixed.flips_disagree(&e, unsure) && !mixed.bootstrap_disagrees(unsure, 0.02));
}
