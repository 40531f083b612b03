//! Tests of `protocol`: orders, balance, looks and warm-ups.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const TWO: [Arm; 2] = [Arm::Base, Arm::Patched];

fn word(turns: &[Turn]) -> String {
    let letter = |turn: &Turn| match turn.arm {
        Arm::Base => 'A',
        Arm::Patched => 'B',
        Arm::Human => 'H',
    };
    turns.iter().map(|turn| if turn.warmup { letter(turn).to_ascii_lowercase() } else { letter(turn) }).collect()
}

fn blocks(protocol: &Protocol, n: u32, arms: &[Arm]) -> Vec<Turn> {
    (0..n).flat_map(|number| block(protocol, number, arms)).collect()
}

#[test]
fn schedules_read_as_they_should() {
    let seeded = |seed| Protocol { seed, ..Protocol::new(Profile::Screen) };
    let begins = |seed| block(&seeded(seed), 0, &TWO)[0].arm;
    let screen = seeded((0..).find(|&seed| begins(seed) == Arm::Base).unwrap());
    assert_eq!(word(&blocks(&screen, 5, &TWO)), "ABBABAABABBABAABABBA");
    assert_eq!(word(&warm_ups(&screen, &TWO)), "ab");
    assert_eq!(word(&warm_ups(&screen, &[Arm::Patched])), "b");
    let pairs = Protocol { shape: Shape::Pair, ..screen };
    assert_eq!(word(&blocks(&pairs, 5, &TWO)), "ABBAABBAAB");
    assert_eq!(word(&exact(&TWO)), "ABBA");
    assert_eq!(word(&exact(&Arm::ALL)), "ABHHBA");
    assert_eq!(word(&gate(false)), "AA");
}

#[test]
fn looks_end_with_the_most_blocks() {
    let looks = |profile, blocks_max| Protocol { blocks_max, ..Protocol::new(profile) }.looks();
    assert_eq!(Protocol::new(Profile::Screen).looks(), LOOKS);
    assert_eq!(Protocol::new(Profile::Headline).looks(), LOOKS);
    assert_eq!(Protocol::new(Profile::Fixed).looks(), [5]);
    assert_eq!(looks(Profile::Fixed, 30), [30]);
    assert_eq!(looks(Profile::Screen, 10), [5, 8, 10]);
    assert_eq!(looks(Profile::Screen, 5), [5]);
    assert_eq!(looks(Profile::Screen, 3), [3]);
    assert_eq!(looks(Profile::Screen, 0), [1]);
    assert_eq!(looks(Profile::Screen, 60), [5, 8, 12, 18, 26, 39, 58, 60]);
    let most = looks(Profile::Screen, u32::MAX);
    assert!(most.is_sorted() && most.ends_with(&[BLOCKS_MAX]) && most.len() < 16, "{most:?}");
}

#[test]
fn seeds_decide_and_neither_arm_is_favoured() {
    let begins = |seed| block(&Protocol { seed, ..Protocol::new(Profile::Screen) }, 0, &TWO)[0].arm;
    let base = (0..1000).filter(|&seed| begins(seed) == Arm::Base).count();
    assert!((430..570).contains(&base), "{base}");
}

#[test]
fn warm_ups_end_when_two_agree_or_at_five() {
    let protocol = Protocol::new(Profile::Screen);
    let cold = |values: &[f64]| cold(&protocol, values);
    assert!(cold(&[]) && cold(&[1.0]), "one alone agrees with nothing");
    assert!(!cold(&[1.0, 1.02]) && !cold(&[1.02, 1.0]));
    assert!(cold(&[2.0, 1.0]) && !cold(&[2.0, 1.0, 1.01]));
    assert!(cold(&[1.0, 1.0, 2.0, 1.0]), "the last two count");
    assert!(!cold(&[1.0, 2.0, 3.0, 4.0, 5.0]));
    assert!(!super::cold(&Protocol { warmup: 0, ..protocol }, &[]));
    let many = Protocol { warmup: 7, ..protocol };
    assert!(super::cold(&many, &[1.0; 6]) && !super::cold(&many, &[1.0; 7]));
}

proptest! {
    #[test]
    fn blocks_are_balanced_and_cancel_a_linear_drift(seed: u64, number in 0u32..2000, pair: bool, three: bool) {
        let shape = if pair { Shape::Pair } else { Shape::Mirror };
        let arms: &[Arm] = if three { &Arm::ALL } else { &TWO };
        let protocol = Protocol { seed, shape, ..Protocol::new(Profile::Screen) };
        // The sum of the places of an arm, over one mirrored block or over two that mirror each other.
        let turns: Vec<Turn> = match shape {
            Shape::Mirror => block(&protocol, number, arms),
            Shape::Pair => {
                let even = number & !1;
                [block(&protocol, even, arms), block(&protocol, even + 1, arms)].concat()
            }
        };
        let places = |arm| turns.iter().enumerate().filter(|(_, t)| t.arm == arm).map(|(i, _)| i).sum::<usize>();
        for arm in arms {
            prop_assert_eq!(places(*arm), places(arms[0]));
            prop_assert_eq!(turns.iter().filter(|t| t.arm == *arm).count(), 2);
        }
        // The second half is the first one backwards.
        let backwards: Vec<Turn> = turns.iter().rev().map(|t| Turn { block: 0, ..*t }).collect();
        prop_assert_eq!(turns.iter().map(|t| Turn { block: 0, ..*t }).collect::<Vec<_>>(), backwards);
    }

    #[test]
    fn six_blocks_of_three_arms_hold_every_order_once(seed: u64, six in 0u32..300) {
        let protocol = Protocol { seed, ..Protocol::new(Profile::Screen) };
        let orders: BTreeSet<Vec<Arm>> = (six * 6..six * 6 + 6)
            .map(|number| block(&protocol, number, &Arm::ALL)[..3].iter().map(|t| t.arm).collect())
            .collect();
        prop_assert_eq!(orders.len(), 6);
    }

    #[test]
    fn a_block_is_the_same_whatever_came_before_it(seed: u64, number in 0u32..100) {
        let protocol = Protocol { seed, ..Protocol::new(Profile::Screen) };
        let more = Protocol { blocks_max: 1000, ..protocol };
        prop_assert_eq!(block(&protocol, number, &TWO), block(&more, number, &TWO));
        prop_assert!(block(&protocol, number, &TWO).iter().all(|turn| turn.block == number));
    }
}
