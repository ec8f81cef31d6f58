//! The checker of histories knows what commands of several keys do at one moment, and refuses what half of one would do.

use duva_tools::linearizability::{
    Action, Answer, Operation, check,
    places::{Change, join},
};

const PLACES: usize = 3;

/// A seeded sequence of numbers (SplitMix64), so that a failure replays from its seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}

type Places = [Option<Vec<u8>>; PLACES];

fn shown(places: &Places) -> Answer {
    Answer::Value(join(&places.iter().map(Option::as_deref).collect::<Vec<_>>()))
}

/// What real keys do; written apart from the checker's own.
fn perform(change: &Change, places: &mut Places) -> Answer {
    let is_in = |set: u32, place: usize| set & (1 << place) != 0;
    let count =
        |places: &Places, set: u32| (0..PLACES).filter(|&it| is_in(set, it) && places[it].is_some()).count();
    match change {
        Change::Get(place) => Answer::Value(places[*place].clone()),
        Change::Set(set, value) => {
            (0..PLACES).filter(|&it| is_in(*set, it)).for_each(|it| places[it] = Some(value.clone()));
            Answer::Done
        }
        Change::SetIfNone(set, _) if count(places, *set) > 0 => Answer::Integer(0),
        Change::SetIfNone(set, value) => {
            (0..PLACES).filter(|&it| is_in(*set, it)).for_each(|it| places[it] = Some(value.clone()));
            Answer::Integer(1)
        }
        Change::Delete(set) => {
            let removed = count(places, *set) as i64;
            (0..PLACES).filter(|&it| is_in(*set, it)).for_each(|it| places[it] = None);
            Answer::Integer(removed)
        }
        Change::Clear(set) => {
            (0..PLACES).filter(|&it| is_in(*set, it)).for_each(|it| places[it] = None);
            Answer::Done
        }
        Change::Rename(from, _) | Change::RenameIfNone(from, _) if places[*from].is_none() => Answer::NoKey,
        Change::RenameIfNone(_, to) if places[*to].is_some() => Answer::Integer(0),
        Change::Rename(from, to) | Change::RenameIfNone(from, to) => {
            places[*to] = places[*from].take();
            if matches!(change, Change::Rename(..)) { Answer::Done } else { Answer::Integer(1) }
        }
        Change::Copy(from, _) | Change::CopyOver(from, _) if places[*from].is_none() => Answer::Integer(0),
        Change::Copy(_, to) if places[*to].is_some() => Answer::Integer(0),
        Change::Copy(from, to) | Change::CopyOver(from, to) => {
            places[*to] = places[*from].clone();
            Answer::Integer(1)
        }
    }
}

/// A history in which commands take effect one after the other, each somewhere between its request and its reply.
/// `is_halved` says that one that puts a value somewhere leaves it where it was, or does not put it at the last place.
fn generated(random: &mut Random, is_halved: bool) -> Vec<Operation> {
    let mut places = Places::default();
    let mut history = Vec::new();
    for number in 0..150_u64 {
        let at_ns = (number + 10) * 100;
        let value = format!("v{number}").into_bytes();
        let from = random.below(PLACES as u64) as usize;
        let to = (from + 1 + random.below(PLACES as u64 - 1) as usize) % PLACES;
        let set = 1 + random.below(7) as u32;
        let change = match random.below(10) {
            0 => Some(Change::Get(from)),
            1 => Some(Change::Set(set, value)),
            2 => Some(Change::SetIfNone(set, value)),
            3 => Some(Change::Delete(set)),
            4 => Some(Change::Rename(from, to)),
            5 => Some(Change::RenameIfNone(from, to)),
            6 => Some(Change::Copy(from, to)),
            7 => Some(Change::CopyOver(from, to)),
            8 if number % 5 == 0 => Some(Change::Clear(set)),
            _ => None,
        };
        let is_unknown = change.is_some() && random.below(20) == 0;
        let before = places.clone();
        let answer = match &change {
            None => shown(&places),
            Some(_) if is_unknown && random.below(2) == 0 => Answer::Done,
            Some(change) => perform(change, &mut places),
        };
        if is_halved {
            match change {
                Some(Change::RenameIfNone(from, _)) => places[from] = before[from].clone(),
                Some(Change::SetIfNone(0b111, _)) => places[2] = before[2].clone(),
                Some(Change::Copy(_, to)) => places[to] = before[to].clone(),
                _ => {}
            }
        }
        history.push(Operation {
            client: random.below(20) as usize,
            key: b"shelf".to_vec(),
            invoked_ns: at_ns - random.below(250),
            action: change.map_or(Action::Get, Action::Places),
            returned: (!is_unknown).then(|| (at_ns + random.below(250), answer)),
        });
    }
    history
}

#[test]
fn what_whole_commands_do_is_accepted() {
    for seed in 0..200 {
        if let Err(violation) = check(&generated(&mut Random(seed), false)) {
            panic!("seed {seed}: {violation}");
        }
    }
}

#[test]
fn what_half_a_command_does_is_refused() {
    // Unless it was made good at once by others.
    let violations = (0..50).filter_map(|seed| check(&generated(&mut Random(seed), true)).err());
    let count = violations.filter(|violation| !violation.is_undecided).count();
    assert!(count >= 45, "{count} of 50 are refused");
}

fn operation(times: (u64, u64), action: Action, answer: Option<Answer>) -> Operation {
    let (invoked_ns, returned_ns) = times;
    let returned = answer.map(|answer| (returned_ns, answer));
    Operation { client: 1, key: b"shelf".to_vec(), invoked_ns, action, returned }
}

#[test]
fn a_flush_comes_to_each_shard_by_itself_and_to_all_in_time() {
    let set = |times| operation(times, Action::Places(Change::Set(0b11, b"v".to_vec())), Some(Answer::Done));
    let clear = |place: u32| operation((3, 8), Action::Places(Change::Clear(1 << place)), Some(Answer::Done));
    let look = |times, value: Option<&[u8]>| {
        operation(times, Action::Get, Some(Answer::Value(value.map(<[u8]>::to_vec))))
    };
    let both = |last: Operation| check(&[set((1, 2)), clear(0), clear(1), last]);
    // Meanwhile one is gone and the other is not.
    for seen in [Some(&b"v|v"[..]), Some(b"v"), Some(b"|v"), None] {
        both(look((4, 7), seen)).unwrap();
    }
    // What was acknowledged before is gone behind it.
    both(look((9, 10), None)).unwrap();
    both(look((9, 10), Some(b"v"))).expect_err("it outlives the flush");
    // What comes behind it stays.
    check(&[clear(0), clear(1), set((9, 10)), look((11, 12), Some(b"v|v"))]).unwrap();
    check(&[clear(0), clear(1), set((9, 10)), look((11, 12), Some(b"v"))]).expect_err("it was flushed");
    // One shard is flushed at one moment.
    let whole = operation((3, 8), Action::Places(Change::Clear(0b111)), Some(Answer::Done));
    check(&[set((1, 2)), whole, look((4, 7), Some(b"v"))]).expect_err("half a shard is flushed");
}

#[test]
fn values_are_shown_and_compared_as_they_are() {
    assert_eq!(join(&[None, None]), None);
    assert_eq!(join(&[None, Some(b"x"), None]), Some(b"|x".to_vec()));
    let texts = [
        (Change::SetIfNone(0b101, b"x".to_vec()), "MSETNX x at 0,2"),
        (Change::CopyOver(1, 2), "COPY 1 to 2 REPLACE"),
        (Change::RenameIfNone(0, 1), "RENAMENX 0 to 1"),
    ];
    texts.into_iter().for_each(|(change, text)| assert_eq!(change.to_string(), text));
}
