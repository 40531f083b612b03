//! Tests of `course`: which blocks are asked for, and when it is over.

use super::*;

/// Drives a session with values by arm and block; how many blocks it took, why it ended, and which arms each block had.
fn drive(mut course: Course, value: impl Fn(Arm, u32) -> f64) -> (u32, Stop, Vec<Vec<Arm>>) {
    let mut arms = Vec::new();
    loop {
        match course.next() {
            Err(stop) => return (course.blocks(), stop, arms),
            Ok(turns) => {
                arms.push(course.arms());
                let number = course.blocks();
                assert!(turns.iter().all(|turn| turn.block == number && !turn.warmup));
                course.took(&turns.iter().map(|turn| (turn.arm, value(turn.arm, number))).collect::<Vec<_>>());
            }
        }
    }
}

fn course(profile: Profile, human: bool) -> Course {
    Course::new(Protocol::new(profile), &MetricSpec::time("time_s"), human)
}

/// A wobble that no five blocks settle, nor twelve.
fn wobble(number: u32) -> f64 {
    1.0 + 0.2 * f64::from(number * 7 % 5)
}

fn steady(number: u32) -> f64 {
    1.0 + 0.001 * f64::from(number % 3)
}

#[test]
fn what_is_clear_ends_at_the_first_look() {
    let clear = |arm, number| if arm == Arm::Base { 1.1 * steady(number) } else { 1.0 };
    for profile in [Profile::Screen, Profile::Headline] {
        let (blocks, stop, _) = drive(course(profile, false), clear);
        assert_eq!((blocks, stop), (5, Stop::Settled));
    }
    let (blocks, stop, _) = drive(course(Profile::Screen, false), |_, number| steady(number));
    assert_eq!((blocks, stop), (5, Stop::Settled), "no effect at all is settled too");
}

#[test]
fn what_stays_open_ends_with_the_bound() {
    let noisy = |arm, number| if arm == Arm::Base { wobble(number) } else { 1.4 };
    let (blocks, stop, _) = drive(course(Profile::Screen, false), noisy);
    assert_eq!((blocks, stop), (26, Stop::BlocksMax));
    let most = |blocks_max| {
        Course::new(Protocol { blocks_max, ..Protocol::new(Profile::Screen) }, &MetricSpec::time("t"), false)
    };
    assert_eq!(drive(most(7), noisy).0, 7);
    assert_eq!(drive(most(45), noisy).0, 45);
}

#[test]
fn fixed_runs_all_and_counts_need_no_second_look() {
    let clear = |arm, number| if arm == Arm::Base { 2.0 * steady(number) } else { 1.0 };
    let fixed = Course::new(Protocol { blocks_max: 9, ..Protocol::new(Profile::Fixed) }, &MetricSpec::time("t"), true);
    let (blocks, stop, arms) = drive(fixed, clear);
    assert_eq!((blocks, stop), (9, Stop::Settled));
    assert!(arms.iter().all(|arms| *arms == Arm::ALL));
    let count = Course::new(Protocol::new(Profile::Screen), &MetricSpec::count("ops"), false);
    assert_eq!(drive(count, |_, _| 7.0).0, 5);
}

#[test]
fn an_arm_is_dropped_once_it_is_decided() {
    // Patched against human is clear at once; patched against base takes longer: the human's tree is not run for it.
    let (blocks, stop, arms) = drive(course(Profile::Screen, true), |arm, number| match arm {
        Arm::Base => wobble(number),
        Arm::Patched => 1.4,
        Arm::Human => 2.0 * steady(number),
    });
    assert_eq!((blocks, stop), (26, Stop::BlocksMax));
    assert!(arms[..5].iter().all(|arms| *arms == Arm::ALL));
    assert!(arms[5..].iter().all(|arms| *arms == [Arm::Base, Arm::Patched]), "{arms:?}");
    // The other way round the base is not run any more.
    let (_, _, arms) = drive(course(Profile::Screen, true), |arm, number| match arm {
        Arm::Base => 3.0 * steady(number),
        Arm::Patched => 1.4,
        Arm::Human => wobble(number),
    });
    assert!(arms[5..].iter().all(|arms| *arms == [Arm::Patched, Arm::Human]) && arms.len() == 26, "{arms:?}");
}

#[test]
fn an_arm_that_is_given_up_is_not_waited_for() {
    let mut given = course(Profile::Screen, true);
    given.give_up(Arm::Human);
    let (blocks, stop, arms) = drive(given, |arm, number| if arm == Arm::Base { 2.0 * steady(number) } else { 1.0 });
    assert_eq!((blocks, stop), (5, Stop::Settled));
    assert!(arms.iter().all(|arms| *arms == [Arm::Base, Arm::Patched]));
}
