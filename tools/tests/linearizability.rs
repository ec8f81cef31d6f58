//! The checker of histories accepts what one register can have done and refuses what none can.

use std::time::Instant;

use duva_tools::linearizability::{Action, Answer, Operation, Violation, check};

/// A seeded sequence of numbers (SplitMix64), so that a failure replays from its seed.
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.bits() % limit
    }
}

/// An operation in words: `SET a -> OK`, `GET -> nothing`, `INCR -> 3`, `APPEND x -> unknown`.
fn operation(client: usize, key: &str, invoked_ns: u64, returned_ns: u64, text: &str) -> Operation {
    let (asked, answered) = text.split_once(" -> ").expect("an action and its answer");
    let (name, argument) = asked.split_once(' ').unwrap_or((asked, ""));
    let action = match name {
        "GET" => Action::Get,
        "SET" => Action::Set(argument.into()),
        "DEL" => Action::Delete,
        "INCR" => Action::Increment,
        "APPEND" => Action::Append(argument.into()),
        _ => panic!("no action: {name}"),
    };
    let answer = match answered {
        "unknown" => None,
        "OK" => Some(Answer::Done),
        "nothing" => Some(Answer::Value(None)),
        "refused" => Some(Answer::NotANumber),
        value if action == Action::Get => Some(Answer::Value(Some(value.into()))),
        number => Some(Answer::Integer(number.parse().expect("a number"))),
    };
    Operation {
        client,
        key: key.into(),
        invoked_ns,
        action,
        returned: answer.map(|answer| (returned_ns, answer)),
    }
}

/// Checks the operations of one key, each by a client of its own.
fn check_one(history: &[(u64, u64, &str)]) -> Result<(), Violation> {
    let operations: Vec<Operation> = history
        .iter()
        .enumerate()
        .map(|(client, &(invoked_ns, returned_ns, text))| {
            operation(client, "key", invoked_ns, returned_ns, text)
        })
        .collect();
    check(&operations)
}

#[track_caller]
fn accepted(history: &[(u64, u64, &str)]) {
    if let Err(violation) = check_one(history) {
        panic!("{violation}");
    }
}

#[track_caller]
fn refused(history: &[(u64, u64, &str)]) {
    let violation = check_one(history).expect_err("no order explains this");
    assert!(!violation.is_undecided, "{violation}");
}

#[test]
fn one_after_the_other_every_command_does_what_it_does() {
    accepted(&[
        (1, 2, "GET -> nothing"),
        (3, 4, "SET 41 -> OK"),
        (5, 6, "INCR -> 42"),
        (7, 8, "APPEND x -> 3"),
        (9, 10, "INCR -> refused"),
        (11, 12, "GET -> 42x"),
        (13, 14, "DEL -> 1"),
        (15, 16, "DEL -> 0"),
        (17, 18, "INCR -> 1"),
        (19, 20, "GET -> 1"),
    ]);
    for wrong in ["GET -> x", "INCR -> 2", "INCR -> refused", "DEL -> 1", "APPEND abc -> 4", "SET x -> 1"] {
        refused(&[(1, 2, wrong)]);
    }
}

#[test]
fn what_overlaps_happens_in_any_order() {
    for last in ["GET -> a", "GET -> b"] {
        accepted(&[(1, 4, "SET a -> OK"), (2, 5, "SET b -> OK"), (3, 6, "GET -> nothing"), (7, 8, last)]);
    }
    for value in ["GET -> xy", "GET -> yx"] {
        // Who was first is told by the lengths.
        let (first, second) = if value == "GET -> xy" { (1, 2) } else { (2, 1) };
        let (x, y) = (format!("APPEND x -> {first}"), format!("APPEND y -> {second}"));
        accepted(&[(1, 4, &x), (1, 4, &y), (5, 6, value)]);
        let (x, y) = (format!("APPEND x -> {second}"), format!("APPEND y -> {first}"));
        refused(&[(1, 4, &x), (1, 4, &y), (5, 6, value)]);
    }
    // A reply in the nanosecond in which another is sent may be before or after it.
    accepted(&[(1, 2, "SET a -> OK"), (2, 3, "GET -> nothing")]);
}

#[test]
fn a_stale_read_is_refused() {
    refused(&[(1, 2, "SET a -> OK"), (3, 4, "SET b -> OK"), (5, 6, "GET -> a")]);
    refused(&[(1, 2, "SET a -> OK"), (3, 4, "GET -> nothing")]);
}

#[test]
fn a_lost_write_is_refused() {
    refused(&[(1, 2, "INCR -> 1"), (3, 4, "INCR -> 1")]);
    refused(&[(1, 2, "APPEND x -> 1"), (3, 4, "APPEND y -> 2"), (5, 6, "GET -> y")]);
    refused(&[(1, 2, "SET a -> OK"), (3, 4, "DEL -> 0")]);
}

#[test]
fn a_write_applied_twice_is_refused() {
    refused(&[(1, 2, "INCR -> 1"), (3, 4, "INCR -> 3")]);
    refused(&[(1, 2, "APPEND x -> 1"), (3, 4, "GET -> xx")]);
    // Even one of unknown fate happens once.
    accepted(&[(1, 0, "INCR -> unknown"), (3, 4, "INCR -> 2")]);
    refused(&[(1, 0, "INCR -> unknown"), (3, 4, "INCR -> 3")]);
    refused(&[(1, 0, "APPEND x -> unknown"), (3, 4, "GET -> x"), (5, 6, "GET -> xx")]);
    refused(&[
        (1, 0, "SET a -> unknown"),
        (2, 3, "GET -> a"),
        (4, 5, "SET b -> OK"),
        (6, 7, "GET -> b"),
        (8, 9, "GET -> a"),
    ]);
}

#[test]
fn a_write_of_unknown_fate_happens_late_or_never() {
    let write = (1, 0, "SET a -> unknown");
    accepted(&[write, (2, 3, "GET -> nothing"), (4, 5, "GET -> nothing")]);
    accepted(&[
        write,
        (2, 3, "GET -> nothing"),
        (4, 5, "SET b -> OK"),
        (6, 7, "GET -> b"),
        (8, 9, "GET -> a"),
    ]);
    // Once seen it has happened.
    refused(&[write, (2, 3, "GET -> a"), (4, 5, "GET -> nothing")]);
    // It does not happen before it is sent.
    refused(&[(5, 0, "SET a -> unknown"), (2, 3, "GET -> a")]);
    accepted(&[
        (5, 0, "DEL -> unknown"),
        (1, 2, "SET a -> OK"),
        (6, 7, "GET -> a"),
        (8, 9, "GET -> nothing"),
    ]);
}

#[test]
fn reads_do_not_go_backwards() {
    let writes = [(1, 20, "SET a -> OK"), (2, 21, "SET b -> OK")];
    let [a, b] = writes;
    accepted(&[a, b, (3, 4, "GET -> a"), (5, 6, "GET -> b"), (7, 8, "GET -> b")]);
    refused(&[a, b, (3, 4, "GET -> a"), (5, 6, "GET -> b"), (7, 8, "GET -> a")]);
    refused(&[a, (3, 4, "GET -> a"), (5, 6, "GET -> nothing")]);
}

#[test]
fn the_shortest_failing_key_is_named_with_its_history() {
    let mut operations = Vec::new();
    for (key, fill) in [("good", 1), ("long", 30), ("short", 3)] {
        for number in 0..fill {
            operations.push(operation(7, key, 10 * number, 10 * number + 1, &format!("SET v{number} -> OK")));
        }
        if key != "good" {
            operations.push(operation(8, key, 1000, 1001, "GET -> v0"));
            operations.push(operation(9, key, 1010, 1011, "GET -> elsewhere"));
        }
    }
    let violation = check(&operations).expect_err("two keys are wrong");
    assert_eq!((violation.key.as_slice(), violation.history.len()), (&b"short"[..], 4));
    assert_eq!(violation.possible, [Some(b"v2".to_vec())]);
    let text = violation.to_string();
    for part in ["key short: no order explains", "client   8", "GET -> \"v0\"", "one of: \"v2\""] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    assert!(!text.contains("elsewhere"), "what came later is of no interest:\n{text}");
}

/// A history made by real registers: operations take effect one after the other at random moments, and each is sent and
/// answered at random times around its own.
fn generated(random: &mut Random, operations: u64, keys: u64, unknown_in: u64) -> Vec<Operation> {
    /// A moment is this long, and an operation overlaps with those of some moments around it.
    const MOMENT_NS: u64 = 100;
    let mut values: Vec<Option<Vec<u8>>> = vec![None; keys as usize];
    let mut history = Vec::new();
    for number in 0..operations {
        let at_ns = (number + 100) * MOMENT_NS;
        let key = random.below(keys) as usize;
        let value = &mut values[key];
        let action = match random.below(10) {
            0..4 => Action::Get,
            4..6 => Action::Set(format!("{number}").into()),
            6 => Action::Delete,
            7 => Action::Increment,
            8 if random.below(8) == 0 => Action::Clear,
            8 => Action::Increment,
            _ => Action::Append(format!("<{number}.>").into()),
        };
        let is_unknown = random.below(unknown_in) == 0;
        let answer = if is_unknown && random.below(2) == 0 {
            // It is never executed.
            Answer::Done
        } else {
            perform(&action, value)
        };
        let spread_ns = MOMENT_NS * keys * 3;
        let returned_ns = at_ns + random.below(spread_ns);
        history.push(Operation {
            client: random.below(20) as usize,
            key: format!("key:{key}").into(),
            invoked_ns: at_ns.saturating_sub(random.below(spread_ns)),
            action,
            returned: (!is_unknown).then_some((returned_ns, answer)),
        });
    }
    history
}

/// What a register does; written apart from the checker's own.
fn perform(action: &Action, value: &mut Option<Vec<u8>>) -> Answer {
    match action {
        Action::Get => Answer::Value(value.clone()),
        Action::Set(new) => {
            *value = Some(new.clone());
            Answer::Done
        }
        Action::Delete => Answer::Integer(i64::from(value.take().is_some())),
        Action::Increment => {
            let text = value.as_ref().map_or("0".into(), |bytes| String::from_utf8_lossy(bytes).into_owned());
            match text.parse::<i64>() {
                Ok(number) => {
                    *value = Some((number + 1).to_string().into_bytes());
                    Answer::Integer(number + 1)
                }
                Err(_) => Answer::NotANumber,
            }
        }
        Action::Append(token) => {
            let bytes = value.get_or_insert_default();
            bytes.extend_from_slice(token);
            Answer::Integer(bytes.len() as i64)
        }
        Action::Clear => {
            *value = None;
            Answer::Done
        }
        Action::Places(_) => panic!("a register has one place"),
    }
}

#[test]
fn histories_of_a_register_are_accepted() {
    for seed in 0..200 {
        let mut random = Random(seed);
        let keys = 1 + random.below(4);
        let history = generated(&mut random, 150, keys, 25);
        if let Err(violation) = check(&history) {
            panic!("seed {seed}: {violation}");
        }
    }
}

#[test]
fn a_read_of_what_was_replaced_before_it_began_is_refused() {
    let mut refused = 0;
    for seed in 0..200 {
        let mut random = Random(seed);
        let mut history = generated(&mut random, 150, 1, 1000);
        // A value that was read, then another one, both surely before the third read begins; the values of SET and
        // APPEND are unique, so the first never comes back.
        let ended = |one: &Operation| one.returned.as_ref().map_or(u64::MAX, |&(at_ns, _)| at_ns);
        let read = |one: &Operation| match &one.returned {
            Some((_, Answer::Value(Some(value)))) if value.contains(&b'.') => Some(value.clone()),
            _ => None,
        };
        let found = (0..history.len()).find_map(|last| {
            let last_read = read(&history[last])?;
            history[..last].iter().enumerate().find_map(|(middle, other)| {
                let value = read(other).filter(|value| *value != last_read)?;
                let first = history[..middle].iter().find_map(|first| {
                    let earlier = read(first).filter(|earlier| *earlier != value && *earlier != last_read)?;
                    (ended(first) < other.invoked_ns).then_some(earlier)
                })?;
                (ended(other) < history[last].invoked_ns).then_some((last, first))
            })
        });
        let Some((last, earlier)) = found else { continue };
        let at_ns = ended(&history[last]);
        history[last].returned = Some((at_ns, Answer::Value(Some(earlier))));
        let violation = check(&history).expect_err("a read goes backwards");
        assert!(!violation.is_undecided, "seed {seed}: {violation}");
        refused += 1;
    }
    assert!(refused > 50, "only {refused} histories could be changed");
}

#[test]
fn a_lost_increment_is_refused_in_any_history() {
    for seed in 0..100 {
        let mut random = Random(seed);
        let mut counter = 0;
        let lost = 20 + random.below(60);
        let mut history = Vec::new();
        for number in 0..100 {
            // Overlapping with its neighbours, never unknown.
            let at_ns = 1000 + 100 * number;
            counter += i64::from(number != lost);
            let answer = Answer::Integer(counter + i64::from(number == lost));
            history.push(Operation {
                client: 0,
                key: b"counter".to_vec(),
                invoked_ns: at_ns - random.below(500),
                action: Action::Increment,
                returned: Some((at_ns + random.below(500), answer)),
            });
        }
        check(&history).expect_err("two increments were answered the same");
    }
}

/// Many at once are decided in a time that a test can spend: the number of situations stays small.
#[test]
fn twenty_thousand_operations_are_decided() {
    let start = Instant::now();
    let history = generated(&mut Random(1), 20_000, 50, 200);
    assert!(history.iter().filter(|one| one.returned.is_none()).count() > 50);
    if let Err(violation) = check(&history) {
        panic!("{violation}");
    }
    eprintln!("decided in {:?}", start.elapsed());
}

#[test]
fn many_writes_of_unknown_fate_stay_decidable() {
    let mut history = Vec::new();
    for number in 0..60 {
        let at_ns = 10 * number;
        let name = ["SET u", "INCR", "DEL"][number as usize % 3];
        let asked = if name == "SET u" { format!("{name}{number}") } else { name.to_owned() };
        history.push(operation(1, "key", at_ns, 0, &format!("{asked} -> unknown")));
        history.push(operation(2, "key", at_ns + 1, at_ns + 2, &format!("SET v{number} -> OK")));
        history.push(operation(3, "key", at_ns + 3, at_ns + 4, &format!("GET -> v{number}")));
    }
    assert_eq!(check(&history), Ok(()));
    history.push(operation(3, "key", 1000, 1001, "GET -> v3"));
    assert!(!check(&history).expect_err("it was replaced").is_undecided);
}

#[test]
fn many_appends_of_unknown_fate_stay_decidable() {
    let mut history = Vec::new();
    for number in 0..40 {
        history.push(operation(1, "key", number, 0, &format!("APPEND <{number:02}> -> unknown")));
    }
    // Some were executed, in another order than that of sending; some whose tokens nobody sees; then there is a new value.
    history.push(operation(2, "key", 100, 101, "APPEND <a> -> 11"));
    history.push(operation(2, "key", 102, 103, "GET -> <07><03><a>"));
    history.push(operation(2, "key", 104, 105, "APPEND <b> -> 26"));
    history.push(operation(2, "key", 106, 107, "SET new -> OK"));
    assert_eq!(check(&history), Ok(()));
    let mut twice = history.clone();
    twice.push(operation(2, "key", 108, 109, "GET -> new<07>"));
    let mut partly = history;
    partly.push(operation(2, "key", 108, 109, "APPEND <c> -> 7"));
    for wrong in [twice, partly] {
        assert!(!check(&wrong).expect_err("no order explains it").is_undecided);
    }
}
