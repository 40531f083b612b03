#![allow(clippy::unwrap_used, reason = "a test may panic")]

use proptest::prelude::*;

use super::*;

const NONE: PerMinute = PerMinute { requests: None, tokens: None };

fn at(start: Instant, seconds: u64) -> Instant {
    start + Duration::from_secs(seconds)
}

fn clock(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn noon() -> Timestamp {
    clock("2026-01-01T12:00:00Z")
}

fn gate(lane: &Lane, now: Instant) -> Gate {
    lane.gate(Rate::default(), None, now, noon())
}

fn expired() -> Word {
    Word::Shut(Cause::CredentialsExpired, "The security token included in the request is expired".into())
}

#[test]
fn a_lane_is_as_wide_as_it_says() {
    let now = Instant::now();
    let mut lane = Lane::new(Some(2), NONE, false, false);
    for node in 0..2 {
        assert_eq!(gate(&lane, now), Gate::Go);
        lane.begin(node, Rate::default(), now);
    }
    assert_eq!(gate(&lane, now), Gate::Full);
    lane.end(0, Word::Good, now, 0.5);
    assert_eq!(gate(&lane, now), Gate::Go);
}

#[test]
fn an_expired_credential_closes_it_at_once_and_one_agent_tries_before_all() {
    let start = Instant::now();
    let mut lane = Lane::new(Some(4), NONE, false, false);
    (0..4).for_each(|node| lane.begin(node, Rate::default(), start));
    assert_eq!(lane.end(0, expired(), start, 0.5), Some(Turn::Closed));
    assert_eq!(lane.end(1, expired(), start, 0.5), None, "it is told once");
    lane.end(2, Word::Nothing, start, 0.5);
    lane.end(3, Word::Good, start, 0.5);
    assert_eq!(gate(&lane, start), Gate::Shut, "what ends well now had begun before");
    assert_eq!(lane.pass(at(start, 29)), None);
    assert_eq!(lane.pass(at(start, 31)), Some(Turn::HalfOpened));
    assert_eq!(gate(&lane, at(start, 31)), Gate::Go);
    lane.begin(5, Rate::default(), at(start, 31));
    assert_eq!(gate(&lane, at(start, 31)), Gate::Shut, "one alone");
    assert_eq!(lane.end(5, expired(), at(start, 40), 0.5), Some(Turn::Closed));
    assert_eq!(lane.shut().unwrap().since, start);
    assert_eq!(lane.pass(at(start, 90)), None, "each wait is twice the one before");
    assert_eq!(lane.pass(at(start, 101)), Some(Turn::HalfOpened));
    lane.begin(6, Rate::default(), at(start, 101));
    assert_eq!(lane.end(6, Word::Nothing, at(start, 102), 0.5), None);
    assert_eq!(gate(&lane, at(start, 102)), Gate::Go, "another tries in its place");
    lane.begin(7, Rate::default(), at(start, 102));
    assert_eq!(lane.end(7, Word::Good, at(start, 110), 0.5), Some(Turn::Opened));
    assert_eq!(gate(&lane, at(start, 110)), Gate::Go);
}

#[test]
fn a_lane_that_closes_as_soon_as_it_opens_is_tried_ever_more_rarely() {
    let start = Instant::now();
    let mut lane = Lane::new(None, NONE, true, false);
    lane.question(true, start);
    lane.told(Question::All, Ok(None), start, 0.5);
    let mut now = start;
    for round in 0..5_u64 {
        let node = 2 * round as usize;
        lane.begin(node, Rate::default(), now);
        lane.end(node, expired(), now, 0.5);
        let next = lane.next(true).unwrap();
        assert_eq!(next - now, Duration::from_secs(2 << round));
        now = next;
        assert_eq!(lane.question(true, now), Some(Question::All));
        lane.told(Question::All, Ok(None), now, 0.5);
        lane.begin(node + 1, Rate::default(), now);
        lane.end(node + 1, Word::Good, now, 0.5);
        now += Duration::from_secs(1);
    }
}

#[test]
fn a_probe_is_asked_before_the_first_agent_and_then_opens_what_was_closed() {
    let start = Instant::now();
    let mut lane = Lane::new(None, NONE, true, false);
    assert_eq!(gate(&lane, start), Gate::Ask);
    assert_eq!(lane.question(false, start), None, "nobody wants to know");
    assert_eq!(lane.question(true, start), Some(Question::All));
    assert_eq!(lane.question(true, start), None, "it is being asked");
    let refused = Err("exit status: 255: the token has expired".to_owned());
    assert_eq!(lane.told(Question::All, refused.clone(), start, 0.5), Some(Turn::Closed));
    assert_eq!(gate(&lane, start), Gate::Shut);
    assert_eq!(lane.question(true, at(start, 1)), None);
    assert_eq!(lane.question(true, at(start, 3)), Some(Question::All));
    assert_eq!(lane.told(Question::All, refused, at(start, 3), 0.5), None, "told once");
    assert_eq!(lane.question(true, at(start, 10)), Some(Question::All));
    assert_eq!(lane.told(Question::All, Ok(None), at(start, 10), 0.5), Some(Turn::HalfOpened));
    lane.begin(1, Rate::default(), at(start, 10));
    assert_eq!(gate(&lane, at(start, 10)), Gate::Shut);
    assert_eq!(lane.end(1, Word::Good, at(start, 11), 0.5), Some(Turn::Opened));
}

#[test]
fn a_provider_that_says_yes_and_refuses_the_agent_is_believed_no_more_than_one_that_says_nothing() {
    let start = Instant::now();
    let mut lane = Lane::new(None, NONE, true, false);
    lane.question(true, start);
    lane.told(Question::All, Ok(None), start, 0.5);
    lane.begin(0, Rate::default(), start);
    lane.end(0, expired(), start, 0.5);
    let mut now = lane.next(true).unwrap();
    assert_eq!(now - start, Duration::from_secs(2));
    for (node, wait) in [60, 120, 240, 480, 600, 600].into_iter().enumerate() {
        lane.question(true, now);
        assert_eq!(lane.told(Question::All, Ok(None), now, 0.5), Some(Turn::HalfOpened));
        lane.begin(node + 1, Rate::default(), now);
        assert_eq!(lane.end(node + 1, expired(), now, 0.5), Some(Turn::Closed));
        let next = lane.next(true).unwrap();
        assert_eq!(next - now, Duration::from_secs(wait), "each try may cost a call");
        now = next;
    }
    lane.question(true, now);
    lane.told(Question::All, Ok(None), now, 0.5);
    lane.begin(8, Rate::default(), now);
    assert_eq!(lane.end(8, Word::Good, now, 0.5), Some(Turn::Opened));
}

#[test]
fn what_was_begun_before_the_lane_opened_closes_it_no_more() {
    let start = Instant::now();
    let mut lane = Lane::new(None, NONE, true, false);
    lane.question(true, start);
    lane.told(Question::All, Ok(None), start, 0.5);
    lane.begin(1, Rate::default(), start);
    lane.begin(2, Rate::default(), start);
    lane.end(1, expired(), start, 0.5);
    lane.question(true, at(start, 3));
    lane.told(Question::All, Ok(None), at(start, 3), 0.5);
    lane.begin(3, Rate::default(), at(start, 3));
    lane.end(3, Word::Good, at(start, 4), 0.5);
    assert_eq!(lane.end(2, expired(), at(start, 5), 0.5), None);
    assert_eq!(gate(&lane, at(start, 5)), Gate::Go);
    assert_eq!(lane.end(99, expired(), at(start, 5), 0.5), None, "nor what another run had begun");
}

#[test]
fn what_cannot_be_done_before_the_credential_expires_waits() {
    let start = Instant::now();
    let mut lane = Lane::new(None, NONE, true, true);
    lane.question(true, start);
    let until = clock("2026-01-01T13:00:00Z");
    lane.told(Question::All, Ok(Some(until)), start, 0.5);
    let gate = |lane: &Lane, minutes: Option<u64>, now, clock| {
        lane.gate(Rate::default(), minutes.map(|minutes| Duration::from_secs(60 * minutes)), now, clock)
    };
    assert_eq!(gate(&lane, Some(59), start, noon()), Gate::Go);
    assert_eq!(gate(&lane, Some(61), start, noon()), Gate::Expires(until));
    assert_eq!(gate(&lane, None, start, noon()), Gate::Go, "what is not known is not held against it");
    assert_eq!(gate(&lane, None, start, until), Gate::Expires(until), "expired is expired");
    assert_eq!(gate(&lane, Some(61), at(start, 60), noon()), Gate::Ask, "an answer ages");
    assert_eq!(lane.question(true, at(start, 60)), Some(Question::Expiry));
    lane.told(Question::Expiry, Ok(Some(clock("2026-01-01T14:00:00Z"))), at(start, 60), 0.5);
    assert_eq!(gate(&lane, Some(61), at(start, 60), noon()), Gate::Go, "it was renewed");
    assert_eq!(lane.question(true, at(start, 120)), Some(Question::Expiry));
    assert_eq!(lane.told(Question::Expiry, Err("no such file".into()), at(start, 120), 0.5), Some(Turn::Closed));
}

#[test]
fn a_complaint_halves_it_and_it_grows_back() {
    let start = Instant::now();
    let mut lane = Lane::new(Some(8), NONE, false, false);
    (0..8).for_each(|node| lane.begin(node, Rate::default(), start));
    assert_eq!(lane.end(0, Word::Patience, start, 0.5), Some(Turn::Narrowed(4)));
    assert_eq!(lane.end(1, Word::Patience, at(start, 1), 0.5), None, "together they count as one");
    (2..6).for_each(|node| assert_eq!(lane.end(node, Word::Good, at(start, 2), 0.5), None));
    assert_eq!(lane.room(start), Some(2));
    lane.pass(at(start, 61));
    assert_eq!(lane.room(start), Some(4));
    lane.pass(at(start, 121));
    assert_eq!(lane.room(start), Some(6), "as wide as it was");
    let mut lane = Lane::new(None, NONE, false, false);
    lane.begin(0, Rate::default(), start);
    assert_eq!(lane.end(0, Word::Patience, start, 0.5), None, "one alone can be no fewer");
}

#[test]
fn what_a_minute_allows_is_kept_as_far_as_it_is_known() {
    let now = Instant::now();
    let limits = PerMinute { requests: Some(50), tokens: Some(1000) };
    let mut lane = Lane::new(None, limits, false, false);
    let rate = |requests, tokens| Rate { requests: Some(requests), tokens: Some(tokens) };
    let gate = |lane: &Lane, rate| lane.gate(rate, None, now, noon());
    assert_eq!(gate(&lane, rate(70.0, 0.0)), Gate::Go, "one may always work");
    lane.begin(1, rate(30.0, 400.0), now);
    assert_eq!(gate(&lane, rate(20.0, 600.0)), Gate::Go);
    assert_eq!(gate(&lane, rate(21.0, 0.0)), Gate::Full);
    assert_eq!(gate(&lane, rate(0.0, 601.0)), Gate::Full);
    assert_eq!(gate(&lane, Rate::default()), Gate::Go, "what is not known counts as nothing");
}

#[derive(Clone, Debug)]
enum Step {
    Begin,
    End(usize, u8),
    Wait(u64),
    Tell(bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => Just(Step::Begin),
        4 => (0_usize..9, 0_u8..4).prop_map(|(which, word)| Step::End(which, word)),
        2 => (1_u64..400).prop_map(Step::Wait),
        2 => any::<bool>().prop_map(Step::Tell),
    ];
    proptest::collection::vec(step, 0..120)
}

proptest! {
    /// Whatever happens: never more at once than it is wide, nobody begins while it is closed, one alone while it is half open,
    /// and a closed lane always has a next moment, so that no job waits for nothing.
    #[test]
    fn it_holds_what_it_promises(width in 1_u32..6, asks: bool, steps in steps()) {
        let mut now = Instant::now();
        let mut lane = Lane::new(Some(width), NONE, asks, false);
        let (mut node, mut running): (usize, Vec<usize>) = (0, Vec::new());
        let mut pending = None;
        let mut trial = None;
        for step in steps {
            if pending.is_none() {
                pending = lane.question(true, now);
            }
            match step {
                Step::Begin => {
                    if gate(&lane, now) == Gate::Go {
                        prop_assert_eq!(trial, None, "a second one while one tries");
                        trial = lane.shut().map(|_| node);
                        prop_assert_ne!(lane.room(now), Some(0));
                        lane.begin(node, Rate::default(), now);
                        running.push(node);
                        node += 1;
                    }
                }
                Step::End(which, word) if !running.is_empty() => {
                    let node = running.remove(which % running.len());
                    let word = match word {
                        0 => Word::Good,
                        1 => Word::Patience,
                        2 => Word::Nothing,
                        _ => expired(),
                    };
                    lane.end(node, word, now, 0.5);
                    trial = trial.filter(|trial| *trial != node);
                }
                Step::End(..) => {}
                Step::Wait(seconds) => {
                    now += Duration::from_secs(seconds);
                    lane.pass(now);
                }
                Step::Tell(good) => {
                    if let Some(question) = pending.take() {
                        let answer = if good { Ok(None) } else { Err("no".to_owned()) };
                        lane.told(question, answer, now, 0.5);
                    }
                }
            }
            prop_assert!(lane.running().count() <= width as usize + 1);
            if gate(&lane, now) == Gate::Shut && running.is_empty() && pending.is_none() && !lane.asking() {
                prop_assert!(lane.next(true).is_some());
            }
        }
    }
}
