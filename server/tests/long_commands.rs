//! Commands of very many keys: whole or not at all for whoever looks, and before and after a kill, and the cores serve others
//! meanwhile.

mod support;

#[allow(dead_code, reason = "each test program uses a part of it")]
#[path = "turns/machine.rs"]
mod machine;

use duva_server::config::AppendFsync;
use machine::{Bench, Client};
use support::resp::Reply;

/// Keys of one command.
const KEYS: usize = 100_000;

fn is_ok(reply: &Reply) -> bool {
    reply.is_status("OK")
}

fn name(number: usize) -> String {
    format!("key:{number}")
}

/// A command with every key, in an order that is not that of slots.
fn send_keys(bench: &mut Bench, client: Client, command: &str, count: usize) {
    let names: Vec<String> = (0..count).map(name).collect();
    let words: Vec<&[u8]> =
        std::iter::once(command.as_bytes()).chain(names.iter().map(String::as_bytes)).collect();
    bench.send(client, &words);
}

fn send_pairs(bench: &mut Bench, client: Client, command: &str, value: &str, count: usize) {
    let names: Vec<String> = (0..count).map(name).collect();
    let pairs = names.iter().flat_map(|name| [name.as_bytes(), value.as_bytes()]);
    let words: Vec<&[u8]> = std::iter::once(command.as_bytes()).chain(pairs).collect();
    bench.send(client, &words);
}

/// Lets every core run one turn; false: all sleep.
fn step_all(bench: &mut Bench, cores: u16) -> bool {
    (0..usize::from(cores)).fold(false, |is_busy, core| bench.step(core) | is_busy)
}

/// Every way to keep data.
fn benches() -> impl Iterator<Item = (String, u16, Bench)> {
    [1, 2].into_iter().flat_map(|cores| {
        let journalled = [AppendFsync::Always, AppendFsync::EverySecond];
        let journalled = journalled.map(|fsync| (format!("{fsync:?}"), Some(fsync)));
        journalled.into_iter().chain([("in memory".to_owned(), None)]).map(move |(name, fsync)| {
            let bench = match fsync {
                Some(fsync) => Bench::with_segments(cores, fsync, 16),
                None => Bench::in_memory(cores),
            };
            (format!("{name}, {cores} cores"), cores, bench)
        })
    })
}

/// What a reader sees of the keys: the one value that all of them have.
fn only_value(reply: &Reply) -> Option<Vec<u8>> {
    let elements = reply.items().unwrap_or_else(|| panic!("{reply}"));
    let first = elements[0].bytes().map(<[u8]>::to_vec);
    let count = elements.iter().filter(|element| element.bytes() != first.as_deref()).count();
    assert!(count == 0, "{count} of {} keys differ from the first", elements.len());
    first
}

#[test]
fn nobody_sees_half_of_a_command_and_others_are_served_meanwhile() {
    for (what, cores, mut bench) in benches() {
        let [writer, counter, reader, looker, other] = [(); 5].map(|()| bench.connect());
        let spread = format!("MGET {} {} {}", name(0), name(KEYS / 2), name(KEYS - 1));
        let (mut served, mut readings) = (0, 0);
        let (mut counts, mut values) = (Vec::new(), Vec::new());
        for round in 0..3 {
            let value = format!("value:{round}");
            match round {
                0 => send_pairs(&mut bench, writer, "MSETNX", &value, KEYS),
                1 => send_pairs(&mut bench, writer, "MSET", &value, KEYS),
                _ => send_keys(&mut bench, writer, "DEL", KEYS),
            }
            send_keys(&mut bench, counter, "EXISTS", KEYS);
            send_keys(&mut bench, reader, "MGET", KEYS);
            bench.send_words(looker, &spread);
            bench.send_words(other, "INCR count");
            let mut answer = None;
            let expected = counts.len() + 1;
            loop {
                if !step_all(&mut bench, cores) {
                    if answer.is_some() && counts.len() == expected && readings == expected {
                        break;
                    }
                    // Somebody was refused, and rests.
                    bench.pass_ms(1);
                    bench.wake_all();
                }
                for _ in bench.replies(other) {
                    served += 1;
                    if answer.is_none() {
                        bench.send_words(other, "INCR count");
                    }
                }
                for reply in bench.replies(looker) {
                    values.push(only_value(&reply));
                    if answer.is_none() {
                        bench.send_words(looker, &spread);
                    }
                }
                counts.extend(bench.replies(counter).iter().map(Reply::integer));
                for reply in bench.replies(reader) {
                    readings += 1;
                    values.push(only_value(&reply));
                }
                answer = bench.replies(writer).pop().or(answer);
            }
            let answer = answer.unwrap_or_else(|| panic!("{what}: round {round} has no answer"));
            match round {
                0 => assert_eq!(answer.integer(), Some(1), "{what}"),
                1 => assert!(is_ok(&answer), "{what}: {answer}"),
                _ => assert_eq!(answer.integer(), Some(KEYS as i64), "{what}"),
            }
            let expected = (round < 2).then(|| value.into_bytes());
            let now = bench.call(looker, &spread);
            assert_eq!(only_value(&now), expected, "{what}");
        }
        assert_eq!(counts.len(), 3, "{what}");
        assert!(
            counts.iter().all(|&count| count == Some(0) || count == Some(KEYS as i64)),
            "{what}: {counts:?}"
        );
        let known = [None, Some(b"value:0".to_vec()), Some(b"value:1".to_vec())];
        assert!(values.iter().all(|value| known.contains(value)), "{what}: {values:?}");
        assert!(served > 100, "{what}: only {served} requests were served beside the long commands");
        bench.settle();
        assert_eq!(bench.call(other, "DBSIZE").integer(), Some(1), "{what}");
    }
}

#[test]
fn keys_may_be_named_often_and_the_last_value_counts() {
    for (what, _, mut bench) in benches() {
        let client = bench.connect();
        let names: Vec<String> = (0..2_000).map(|number| name(number % 700)).collect();
        let values: Vec<String> = (0..2_000).map(|number| number.to_string()).collect();
        for command in ["MSETNX", "MSET"] {
            let pairs =
                names.iter().zip(&values).flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()]);
            let words: Vec<&[u8]> = std::iter::once(command.as_bytes()).chain(pairs).collect();
            bench.send(client, &words);
            bench.settle();
            let replies = bench.replies(client);
            assert!(is_ok(&replies[0]) || replies[0].integer() == Some(1), "{what}: {replies:?}");
            for number in [0, 599, 600, 699] {
                let expected = if number < 600 { number + 1_400 } else { number + 700 };
                let value = bench.call(client, &format!("GET {}", name(number)));
                assert_eq!(value.bytes(), Some(expected.to_string().as_bytes()), "{what}");
            }
        }
        let words: Vec<&[u8]> =
            std::iter::once(&b"MGET"[..]).chain(names.iter().map(String::as_bytes)).collect();
        bench.send(client, &words);
        bench.settle();
        let replies = bench.replies(client);
        let found: Vec<Option<&[u8]>> =
            replies[0].items().expect("an array").iter().map(Reply::bytes).collect();
        let last = |number: usize| if number % 700 < 600 { number % 700 + 1_400 } else { number % 700 + 700 };
        let expected: Vec<String> = (0..2_000).map(|number| last(number).to_string()).collect();
        let expected: Vec<Option<&[u8]>> = expected.iter().map(|text| Some(text.as_bytes())).collect();
        assert_eq!(found, expected, "{what}");
        let words: Vec<&[u8]> = std::iter::once(&b"MSETNX"[..])
            .chain(names.iter().flat_map(|name| [name.as_bytes(), b"x"]))
            .collect();
        bench.send(client, &words);
        for (command, expected) in [("TOUCH", 2_000), ("EXISTS", 2_000), ("UNLINK", 700), ("DEL", 0)] {
            let words: Vec<&[u8]> =
                std::iter::once(command.as_bytes()).chain(names.iter().map(String::as_bytes)).collect();
            bench.send(client, &words);
            bench.settle();
            let last = bench.replies(client).pop().unwrap_or_else(|| panic!("{what}: no reply"));
            assert_eq!(last.integer(), Some(expected), "{command}, {what}");
        }
        assert_eq!(bench.call(client, "DBSIZE").integer(), Some(0), "{what}");
    }
}

#[test]
fn commands_that_meet_all_come_to_an_end() {
    for (what, _, mut bench) in benches() {
        let clients: Vec<Client> = (0..6).map(|_| bench.connect()).collect();
        for (number, &client) in clients.iter().enumerate() {
            let mut names: Vec<String> = (0..5_000).map(name).collect();
            // Every one begins elsewhere.
            names.rotate_left(number * 700);
            let value = number.to_string();
            let pairs = names.iter().flat_map(|name| [name.as_bytes(), value.as_bytes()]);
            let words: Vec<&[u8]> = std::iter::once(&b"MSET"[..]).chain(pairs).collect();
            bench.send(client, &words);
        }
        // A refused one rests before it asks again, so time must pass.
        let mut answered = 0;
        for _ in 0..1_000 {
            bench.settle();
            answered += clients.iter().map(|&client| bench.replies(client).len()).sum::<usize>();
            if answered == clients.len() {
                break;
            }
            bench.pass_ms(1);
            bench.wake_all();
        }
        assert_eq!(answered, clients.len(), "{what}");
        send_keys(&mut bench, clients[0], "MGET", 5_000);
        bench.settle();
        assert!(only_value(&bench.replies(clients[0])[0]).is_some(), "{what}");
    }
}

#[test]
fn a_kill_leaves_a_long_command_whole() {
    const FEW: usize = 20_000;
    for cores in [1, 2] {
        for fsync in [AppendFsync::Always, AppendFsync::EverySecond] {
            let mut seen = [false; 2];
            for steps in (0..).step_by(9) {
                let mut bench = Bench::with_segments(cores, fsync, 4);
                let client = bench.connect();
                send_pairs(&mut bench, client, "MSET", "value", FEW);
                let is_busy = (0..steps).all(|_| step_all(&mut bench, cores));
                let is_answered = bench.replies(client).len() == 1;
                let mut bench = bench.restart_with(3 - cores, 0);
                let client = bench.connect();
                let count = bench.call(client, "DBSIZE").integer();
                let is_there = count == Some(FEW as i64);
                assert!(
                    is_there || count == Some(0),
                    "{count:?} keys after {steps} steps, {cores} cores, {fsync:?}"
                );
                assert!(is_there || !is_answered, "an answered command is lost, {cores} cores, {fsync:?}");
                seen[usize::from(is_there)] = true;
                if !is_busy {
                    break;
                }
            }
            assert_eq!(seen, [true; 2], "{cores} cores, {fsync:?}");
        }
    }
}

#[test]
fn a_rewrite_amid_a_long_command_keeps_it_whole() {
    const FEW: usize = 20_000;
    for fsync in [AppendFsync::Always, AppendFsync::EverySecond] {
        for steps in (0..400).step_by(23) {
            let mut bench = Bench::with_segments(1, fsync, 4);
            let (client, admin) = (bench.connect(), bench.connect());
            send_pairs(&mut bench, client, "MSET", "old", FEW);
            bench.settle();
            send_pairs(&mut bench, client, "MSET", "new", FEW);
            for _ in 0..steps {
                bench.step(0);
            }
            bench.send_words(admin, "BGREWRITEAOF");
            bench.settle();
            assert!(bench.replies(client).iter().all(is_ok));
            let mut bench = bench.restart(0);
            let client = bench.connect();
            send_keys(&mut bench, client, "MGET", FEW);
            bench.settle();
            let value = only_value(&bench.replies(client)[0]);
            assert_eq!(value.as_deref(), Some(&b"new"[..]), "{fsync:?}, after {steps} steps");
        }
    }
}

/// Two keys, of the first and the second core.
fn keys_of_two_cores(bench: &Bench) -> [String; 2] {
    [0, 1].map(|core| bench.key(&format!("of:{core}"), |bench, key| bench.owner(key) == core))
}

#[test]
fn a_large_write_waits_for_a_locked_key_without_keeping_its_core_busy() {
    let mut bench = Bench::with_segments(2, AppendFsync::EverySecond, 4);
    let [near, far] = keys_of_two_cores(&bench);
    let [holder, own, other] = [(); 3].map(|()| bench.connect());
    bench.set_disk(|disk| disk.holds_syncs = true);
    bench.send_words(holder, &format!("MSET {near} small {far} small"));
    bench.settle();
    assert_eq!(bench.replies(holder), [], "it is prepared and holds its keys");
    // Each is large on one of the connections' own core and on the other core; what follows must not pass it.
    for client in [own, other] {
        bench.send(client, &[b"SET", near.as_bytes(), &vec![b'v'; 300_000]]);
        bench.send_words(client, &format!("APPEND {near} x"));
    }
    // That the cores come to rest is what is tested.
    bench.settle();
    assert_eq!(bench.replies(own), []);
    assert_eq!(bench.replies(other), []);
    bench.set_disk(|disk| disk.holds_syncs = false);
    bench.settle();
    assert!(bench.replies(holder).iter().all(is_ok));
    for client in [own, other] {
        let replies = bench.replies(client);
        assert!(is_ok(&replies[0]), "{replies:?}");
        assert!(matches!(replies[1].integer(), Some(300_001 | 300_002)), "{replies:?}");
    }
    let length = bench.call(own, &format!("STRLEN {near}"));
    let mut bench = bench.restart(0);
    let client = bench.connect();
    assert_eq!(bench.call(client, &format!("STRLEN {near}")), length);
}

#[test]
fn prepared_parts_of_several_commands_share_a_sync() {
    const CLIENTS: usize = 20;
    let mut bench = Bench::with_segments(2, AppendFsync::EverySecond, 4);
    let clients: Vec<Client> = (0..CLIENTS).map(|_| bench.connect()).collect();
    let pairs: Vec<[String; 2]> = (0..CLIENTS)
        .map(|number| {
            [0, 1].map(|core| bench.key(&format!("{number}:{core}"), |bench, key| bench.owner(key) == core))
        })
        .collect();
    bench.set_disk(|disk| disk.holds_syncs = true);
    let before = bench.syncs_begun();
    for (&client, [near, far]) in clients.iter().zip(&pairs) {
        bench.send_words(client, &format!("MSET {near} value {far} value"));
    }
    bench.settle();
    bench.set_disk(|disk| disk.holds_syncs = false);
    bench.settle();
    assert!(clients.iter().all(|&client| bench.replies(client).iter().all(is_ok)));
    let syncs = bench.syncs_begun() - before;
    // On each core one for what came first and one for all the rest.
    assert!(syncs <= 4, "{syncs} syncs for {CLIENTS} commands");
}
