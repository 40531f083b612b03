//! Tests of `guard`: what readings come to, and what breaks.

use super::*;
use crate::host::Time;

const SECOND: Duration = Duration::from_secs(1);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Two readings ten seconds apart, of a machine that tells all and is quiet.
fn quiet() -> [Reading; 2] {
    let at = |seconds: u32| Reading {
        at: seconds * SECOND,
        load: Some(1.5),
        runnable: Some(2),
        time: Some(Time { busy: seconds * SECOND, idle: seconds * SECOND, ..Time::default() }),
        throttled: Some(7 * SECOND),
        pressure: Some(9 * SECOND),
        heat: Some(3 * SECOND),
        celsius: Some(40.0 + f64::from(seconds)),
        mhz: Some(3000.0),
        gpus: vec![Gpu {
            uuid: "GPU-1".into(),
            celsius: Some(50.0),
            mhz: Some(1980.0),
            reasons: Some(0x4),
            heat: Some(SECOND),
            listed: Some(Vec::new()),
            strangers: Vec::new(),
        }],
    };
    [at(10), at(20)]
}

/// What breaks by default when the later of two quiet readings is changed.
fn breaks(change: impl FnOnce(&mut Reading)) -> Vec<String> {
    by(&Guards::default(), change)
}

fn by(limits: &Guards, change: impl FnOnce(&mut Reading)) -> Vec<String> {
    let mut readings = quiet();
    change(&mut readings[1]);
    broken(limits, &seen(&readings)).iter().map(ToString::to_string).collect()
}

#[test]
fn a_quiet_machine_breaks_nothing_and_neither_does_a_busy_one() {
    assert_eq!(breaks(|_| {}), Vec::<String>::new());
    let busy = |reading: &mut Reading| {
        reading.load = Some(64.0);
        reading.runnable = Some(64);
        reading.pressure = Some(19 * SECOND);
        reading.time = Some(Time { busy: 30 * SECOND, idle: 10 * SECOND, iowait: 5 * SECOND, steal: ms(1900) });
        reading.throttled = Some(ms(7900));
    };
    assert_eq!(breaks(busy), Vec::<String>::new());
}

#[test]
fn each_disturbance_breaks_its_guard() {
    let time = |reading: &mut Reading, steal| reading.time = reading.time.map(|time| Time { steal, ..time });
    assert_eq!(breaks(|reading| time(reading, 10 * SECOND)), ["steal 50\u{a0}%"]);
    assert_eq!(breaks(|reading| reading.throttled = Some(10 * SECOND)), ["throttled 30\u{a0}%"]);
    assert_eq!(breaks(|reading| reading.heat = Some(5 * SECOND)), ["slowed by heat 20\u{a0}%"]);
    assert_eq!(breaks(|reading| reading.gpus[0].heat = Some(6 * SECOND)), ["GPU slowed by heat 50\u{a0}%"]);
    let limits = Guards { pressure: Some(0.5), iowait: Some(0.2), ..Guards::OFF };
    assert_eq!(by(&limits, |reading| reading.pressure = Some(15 * SECOND)), ["pressure 60\u{a0}%"]);
    let waits = |reading: &mut Reading| reading.time = reading.time.map(|time| Time { iowait: 10 * SECOND, ..time });
    assert_eq!(by(&limits, waits), ["iowait 33\u{a0}%"]);
    assert_eq!(by(&Guards::OFF, waits), Vec::<String>::new());
}

#[test]
fn a_hundredth_of_a_second_breaks_nothing_however_short_the_block() {
    let mut readings = quiet();
    readings[1] = Reading { at: readings[0].at + ms(40), ..readings[0].clone() };
    readings[1].time = readings[0].time.map(|time| Time { busy: time.busy + ms(40), steal: ms(90), ..time });
    let seen = seen(&readings);
    assert!(seen.steal.is_some_and(|steal| steal.share > 0.6));
    assert_eq!(broken(&Guards::default(), &seen), Vec::new());
}

#[test]
fn what_the_machine_does_not_tell_is_unknown_and_breaks_nothing() {
    let silent = [Reading::default(), Reading { at: SECOND, ..Reading::default() }];
    let told = seen(&silent);
    assert_eq!(told, Seen { wall_ms: 1000, ..Seen::default() });
    let none = Guards { iowait: Some(0.0), pressure: Some(0.0), ..Guards::default() };
    assert_eq!(broken(&none, &told), Vec::new());
    let half = [quiet()[0].clone(), silent[1].clone()];
    assert_eq!(seen(&half).steal, None, "one of two readings says nothing of the time between");
    let back = [quiet()[1].clone(), Reading { at: 30 * SECOND, ..quiet()[0].clone() }];
    assert_eq!(seen(&back).steal, None, "a counter that goes back was begun anew");
    let guarded = Guarded { blocks: vec![Block { block: 0, seen: told, broken: Vec::new() }], ..Guarded::default() };
    let text = guarded.text();
    for name in ["steal", "throttled", "heat", "iowait", "pressure", "load", "temperature", "clock"] {
        assert!(text.split_once("unknown: ").unwrap().1.contains(name), "{name}: {text}");
    }
    assert!(!text.contains("0\u{a0}%"), "{text}");
}

#[test]
fn who_is_on_the_device_before_and_after_is_somebody_else() {
    let on = |before: &[i32], after: &[i32], strangers: &[i32]| {
        let mut readings = quiet();
        readings[0].gpus[0].listed = Some(before.to_vec());
        readings[1].gpus[0].listed = Some(after.to_vec());
        let within = Reading {
            at: 15 * SECOND,
            gpus: vec![Gpu {
                listed: Some(vec![77, 78]),
                strangers: strangers.to_vec(),
                ..readings[0].gpus[0].clone()
            }],
            ..Reading::default()
        };
        let [first, last] = readings;
        seen(&[first, within, last])
    };
    let broken_by =
        |seen: &Seen| -> Vec<String> { broken(&Guards::default(), seen).iter().map(ToString::to_string).collect() };
    // Whoever is on it within the block alone may be the block's own.
    assert_eq!(broken_by(&on(&[], &[], &[])), Vec::<String>::new());
    assert_eq!(broken_by(&on(&[5], &[5], &[])), ["another process on GPU-1: 5"]);
    assert_eq!(broken_by(&on(&[], &[], &[77])), ["another process on GPU-1: 77"]);
    // One that is just ending, or just came: not told.
    let untold = on(&[5], &[6], &[]);
    assert_eq!((broken_by(&untold), untold.gpus[0].untold), (Vec::new(), 2));
    let shared = Guards { alone: false, ..Guards::default() };
    assert_eq!(broken(&shared, &on(&[5], &[5], &[])), Vec::new());
    // Without counters of its own, the readings tell how long it was hot.
    let mut readings = quiet();
    for reading in &mut readings {
        reading.gpus[0].heat = None;
    }
    readings[1].gpus[0].reasons = Some(0x44);
    assert_eq!(seen(&readings).gpus[0].heat, Some(Share { share: 0.5, ms: 5000 }));
    assert_eq!(seen(&readings).gpus[0].reasons, Some(0x44));
}

#[test]
fn a_guard_knows_nothing_of_what_was_measured() {
    // The types say so: neither takes a run, a sample or an arm.
    let _: fn(&[Reading]) -> Seen = seen;
    let _: fn(&Guards, &Seen) -> Vec<Broken> = broken;
}

#[test]
fn a_line_says_what_was_dropped_and_why() {
    let seen = seen(&quiet());
    let steal = |share| Broken::Steal(Share { share, ms: 900 });
    let block = |number, broken| Block { block: number, seen: seen.clone(), broken };
    let shared = || Broken::Shared { gpu: "GPU-1".into(), processes: BTreeSet::from([4242]) };
    let blocks = vec![
        block(0, vec![]),
        block(1, vec![shared()]),
        block(1, vec![steal(0.3)]),
        block(1, vec![steal(0.2)]),
        block(1, vec![]),
    ];
    let pinned = Some(Pinned { named: vec![2, 3], held: vec![2, 3] });
    let guarded = Guarded { limits: Guards::default(), pinned, blocks };
    assert_eq!(
        guarded.text().replace('\u{a0}', " "),
        "2 blocks kept, 3 dropped (steal 30 % (2 blocks); another process on GPU-1: 4242); pinned to cores 2,3; at most \
         steal 0 %, throttled 0 %, heat 0 %, iowait 0 %, pressure 0 %; load 1.5; 50-60 °C; 3000 MHz; GPU-1: 50 °C, 1980 MHz, \
         heat at most 0 %, held back by its cap on power, alone"
    );
    let all = Guarded { pinned: Some(Pinned { named: vec![90], held: vec![] }), ..Guarded::default() };
    assert_eq!(all.text(), "0 blocks, none dropped; not pinned: the kernel refuses cores 90");
    let text = serde_json::to_string(&guarded).unwrap();
    assert_eq!(serde_json::from_str::<Guarded>(&text).unwrap(), guarded);
}
