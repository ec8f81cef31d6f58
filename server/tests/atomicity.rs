//! Commands over several keys are all or nothing, wherever their keys live.
//!
//! Clients on both cores work on the same keys at once; readers check an invariant that every whole command
//! keeps and any half of one breaks. Each test ends after a fixed number of commands; which of them meet is
//! left to the machine, and no interleaving may fail.

mod support;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use support::connection::Connection;
use support::process::{Server, ServerOptions};
use support::random::Random;
use support::resp::{self, Reply};
use support::transcript::scan;

/// Keys enough that every core has several.
const KEYS: usize = 16;
/// Commands of each writer.
const STEPS: usize = 400;
const WRITERS: usize = 3;
const READERS: usize = 3;

fn duva() -> Server {
    ServerOptions::duva(2).tcp().start()
}

/// Connections by turns over TCP and the Unix socket, so that both cores have some.
fn connect(server: &Server, number: usize) -> Connection {
    if number.is_multiple_of(2) { server.connect_tcp() } else { server.connect() }
}

fn keys() -> Vec<String> {
    (0..KEYS).map(|number| format!("key:{number}")).collect()
}

fn command(name: &str, keys: &[String]) -> Vec<String> {
    [name.to_owned()].into_iter().chain(keys.iter().cloned()).collect()
}

fn mset(name: &str, keys: &[String], value: &str) -> Vec<String> {
    [name.to_owned()].into_iter().chain(keys.iter().flat_map(|key| [key.clone(), value.to_owned()])).collect()
}

/// The keys in some other order: locking must not depend on it.
fn shuffled(random: &mut Random, mut keys: Vec<String>) -> Vec<String> {
    for last in (1..keys.len()).rev() {
        keys.swap(last, random.below(last + 1));
    }
    keys
}

/// Runs writers to their end and readers until then.
fn storm(
    server: &Server,
    write: impl Fn(usize, &mut Connection) + Sync,
    read: impl Fn(&mut Random, &mut Connection) + Sync,
) {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let (done, write, read) = (&done, &write, &read);
        let readers: Vec<_> = (0..READERS)
            .map(|reader| {
                scope.spawn(move || {
                    let mut random = Random::new(reader as u64);
                    let mut client = connect(server, reader);
                    // At least once after the last write: the end state is checked as well.
                    loop {
                        let last = done.load(Ordering::Acquire);
                        read(&mut random, &mut client);
                        if last {
                            break;
                        }
                    }
                })
            })
            .collect();
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| scope.spawn(move || write(writer, &mut connect(server, writer))))
            .collect();
        let failed = writers.into_iter().any(|writer| writer.join().is_err());
        done.store(true, Ordering::Release);
        let failed = readers.into_iter().any(|reader| reader.join().is_err()) || failed;
        assert!(!failed, "a client failed; its message is above");
    });
}

fn values(reply: &Reply) -> BTreeSet<Option<&[u8]>> {
    reply.items().unwrap_or_else(|| panic!("not an array: {reply}")).iter().map(Reply::bytes).collect()
}

#[test]
fn nobody_sees_half_an_mset() {
    let server = duva();
    assert!(server.connect().call(&mset("MSET", &keys(), "start")).is_status("OK"));
    let write = |writer: usize, client: &mut Connection| {
        let mut random = Random::new(100 + writer as u64);
        for step in 0..STEPS {
            let keys = shuffled(&mut random, keys());
            let reply = client.call(&mset("MSET", &keys, &format!("{writer}:{step}")));
            assert!(reply.is_status("OK"), "{reply}");
        }
    };
    let read = |random: &mut Random, client: &mut Connection| {
        let reply = client.call(&command("MGET", &shuffled(random, keys())));
        assert_eq!(values(&reply).len(), 1, "half an MSET: {reply}");
    };
    storm(&server, write, read);
}

#[test]
fn nobody_sees_half_an_mset_in_pipelines() {
    const DEPTH: usize = 20;
    let server = duva();
    assert!(server.connect().call(&mset("MSET", &keys(), "start")).is_status("OK"));
    let write = |writer: usize, client: &mut Connection| {
        for round in 0..STEPS / DEPTH {
            let mut bytes = Vec::new();
            for step in 0..DEPTH {
                resp::encode_request(&mset("MSET", &keys(), &format!("{writer}:{round}:{step}")), &mut bytes);
            }
            let replies = client.exchange(&bytes, DEPTH).expect("the server answers");
            assert!(replies.iter().all(|reply| reply.is_status("OK")));
        }
    };
    let read = |_: &mut Random, client: &mut Connection| {
        let mut bytes = Vec::new();
        for _ in 0..DEPTH {
            resp::encode_request(&command("MGET", &keys()), &mut bytes);
        }
        for reply in client.exchange(&bytes, DEPTH).expect("the server answers") {
            assert_eq!(values(&reply).len(), 1, "half an MSET: {reply}");
        }
    };
    storm(&server, write, read);
}

#[test]
fn deletes_and_flushes_are_seen_whole() {
    let server = duva();
    let write = |writer: usize, client: &mut Connection| {
        for step in 0..STEPS {
            let reply = match (writer, step % 4) {
                (_, 0 | 2) => client.call(&mset("MSET", &keys(), &format!("{writer}:{step}"))),
                (_, 1) => client.call(&command("DEL", &keys())),
                _ => client.words("FLUSHALL"),
            };
            assert!(!reply.is_error(), "{reply}");
            if let Some(deleted) = reply.integer() {
                assert!(deleted == 0 || deleted == KEYS as i64, "DEL found {deleted} of {KEYS} keys");
            }
        }
    };
    let read = |random: &mut Random, client: &mut Connection| {
        let keys = shuffled(random, keys());
        if random.one_in(2) {
            let found = client.call(&command("EXISTS", &keys)).integer();
            assert!(found == Some(0) || found == Some(KEYS as i64), "EXISTS found {found:?} of {KEYS} keys");
        } else {
            let reply = client.call(&command("MGET", &keys));
            assert_eq!(values(&reply).len(), 1, "half a command: {reply}");
        }
    };
    storm(&server, write, read);
}

#[test]
fn a_renamed_key_is_at_one_place_at_any_time() {
    let server = duva();
    let keys = keys();
    assert!(server.connect().call(&["SET", &keys[0], "token"]).is_status("OK"));
    let write = |writer: usize, client: &mut Connection| {
        let mut random = Random::new(200 + writer as u64);
        for _ in 0..STEPS * 2 {
            let (from, to) = (&keys[random.below(KEYS)], &keys[random.below(KEYS)]);
            let name = if random.one_in(2) { "RENAME" } else { "RENAMENX" };
            let reply = client.call(&[name, from, to]);
            let refused = reply.bytes() == Some(b"ERR no such key");
            assert!(refused || reply.is_status("OK") || reply.integer().is_some(), "{reply}");
        }
    };
    let read = |random: &mut Random, client: &mut Connection| {
        let keys = shuffled(random, keys.clone());
        let found = client.call(&command("EXISTS", &keys)).integer();
        assert_eq!(found, Some(1), "the token is at one place");
        let reply = client.call(&command("MGET", &keys));
        let tokens = reply.items().expect("MGET is an array").iter().filter(|value| !value.is_null()).count();
        assert_eq!(tokens, 1, "the token is at one place: {reply}");
    };
    storm(&server, write, read);
    assert_eq!(server.connect().words("DBSIZE").integer(), Some(1));
}

#[test]
fn msetnx_has_one_winner() {
    let server = duva();
    for round in 0..60 {
        let keys: Vec<String> = (0..KEYS).map(|number| format!("round:{round}:{number}")).collect();
        let winners: Vec<usize> = thread::scope(|scope| {
            let clients: Vec<_> = (0..WRITERS)
                .map(|writer| {
                    let (server, keys) =
                        (&server, shuffled(&mut Random::new((round * 10 + writer) as u64), keys.clone()));
                    scope.spawn(move || {
                        connect(server, writer).call(&mset("MSETNX", &keys, &writer.to_string())).integer()
                    })
                })
                .collect();
            let results: Vec<_> =
                clients.into_iter().map(|client| client.join().expect("the client ended well")).collect();
            (0..WRITERS).filter(|writer| results[*writer] == Some(1)).collect()
        });
        assert_eq!(winners.len(), 1, "winners of round {round}");
        let reply = server.connect().call(&command("MGET", &keys));
        assert_eq!(values(&reply), BTreeSet::from([Some(winners[0].to_string().as_bytes())]), "{reply}");
    }
}

#[test]
fn overlapping_commands_never_block_one_another_for_ever() {
    let server = duva();
    let keys = keys();
    let write = |writer: usize, client: &mut Connection| {
        let mut random = Random::new(300 + writer as u64);
        for step in 0..STEPS * 2 {
            let first = random.below(KEYS);
            let some =
                [keys[first].clone(), keys[(first + 1) % KEYS].clone(), keys[(first + 5) % KEYS].clone()];
            let some = shuffled(&mut random, some.to_vec());
            let reply = match random.below(6) {
                0 => client.call(&mset("MSETNX", &some, "nx")),
                1 => client.call(&["COPY", &some[0], &some[1], "REPLACE"]),
                2 => client.call(&["LCS", &some[0], &some[1]]),
                3 => client.call(&command("DEL", &some)),
                4 => client.call(&command("MGET", &some)),
                _ => client.call(&mset("MSET", &some, &format!("{writer}:{step}"))),
            };
            assert!(!reply.is_error(), "{reply}");
        }
    };
    let read = |random: &mut Random, client: &mut Connection| {
        let reply = client.call(&command("EXISTS", &shuffled(random, keys.clone())));
        assert!(reply.integer().is_some_and(|found| (0..=KEYS as i64).contains(&found)), "{reply}");
    };
    storm(&server, write, read);
}

#[test]
fn a_copy_is_a_value_that_was_there() {
    let server = duva();
    // Long enough to be stored apart, of one letter each: a mixture would show.
    let value = |letter: usize| char::from(b'a' + (letter % 26) as u8).to_string().repeat(30_000);
    assert!(server.connect().call(&["MSET", "source", &value(0), "target", &value(0)]).is_status("OK"));
    let write = |writer: usize, client: &mut Connection| {
        for step in 0..STEPS {
            let reply = if writer == 0 {
                client.call(&["SET", "source", &value(step)])
            } else {
                client.call(&["COPY", "source", "target", "REPLACE"])
            };
            assert!(reply.is_status("OK") || reply.integer() == Some(1), "{reply}");
        }
    };
    let read = |_: &mut Random, client: &mut Connection| {
        let reply = client.words("GET target");
        let bytes = reply.bytes().expect("the target is never missing");
        assert!(
            bytes.len() == 30_000 && bytes.iter().all(|byte| *byte == bytes[0]),
            "a mixture of {} bytes",
            bytes.len()
        );
    };
    storm(&server, write, read);
}

#[test]
fn no_increment_is_lost() {
    const CLIENTS: usize = 6;
    const DEPTH: usize = 50;
    const ROUNDS: usize = 40;
    let server = duva();
    thread::scope(|scope| {
        for number in 0..CLIENTS {
            let server = &server;
            scope.spawn(move || {
                let mut client = connect(server, number);
                let mut bytes = Vec::new();
                for step in 0..DEPTH {
                    resp::encode_request(&["INCR", &format!("counter:{}", step % 10)], &mut bytes);
                }
                let mut last = [0; 10];
                for _ in 0..ROUNDS {
                    let replies = client.exchange(&bytes, DEPTH).expect("the server answers");
                    for (step, reply) in replies.iter().enumerate() {
                        let count = reply.integer().unwrap_or_else(|| panic!("not a number: {reply}"));
                        assert!(count > last[step % 10], "counters only grow");
                        last[step % 10] = count;
                    }
                }
            });
        }
    });
    let reply = server
        .connect()
        .call(&command("MGET", &(0..10).map(|number| format!("counter:{number}")).collect::<Vec<_>>()));
    let each = (CLIENTS * DEPTH * ROUNDS / 10).to_string();
    assert_eq!(values(&reply), BTreeSet::from([Some(each.as_bytes())]), "{reply}");
}

#[test]
fn a_pipeline_keeps_its_order() {
    const COMMANDS: usize = 3000;
    let server = duva();
    thread::scope(|scope| {
        for number in 0..4 {
            let server = &server;
            scope.spawn(move || {
                let mut random = Random::new(400 + number as u64);
                let mut client = connect(server, number);
                // Keys of its own, near and far, so that the only order is this pipeline's.
                let mut model = vec![None::<usize>; KEYS];
                let (mut bytes, mut expected) = (Vec::new(), Vec::new());
                for step in 0..COMMANDS {
                    let index = random.below(KEYS);
                    let key = format!("{number}:{index}");
                    match random.below(4) {
                        0 => {
                            resp::encode_request(&["SET", &key, &step.to_string()], &mut bytes);
                            model[index] = Some(step);
                            expected.push(vec![Some("OK".to_owned())]);
                        }
                        1 => {
                            resp::encode_request(&["GETDEL", &key], &mut bytes);
                            expected.push(vec![model[index].take().map(|value| value.to_string())]);
                        }
                        2 => {
                            let all: Vec<String> =
                                (0..KEYS).map(|index| format!("{number}:{index}")).collect();
                            resp::encode_request(&command("MGET", &all), &mut bytes);
                            expected.push(
                                model.iter().map(|value| value.map(|value| value.to_string())).collect(),
                            );
                        }
                        _ => {
                            resp::encode_request(&["GET", &key], &mut bytes);
                            expected.push(vec![model[index].map(|value| value.to_string())]);
                        }
                    }
                }
                let replies = client.exchange(&bytes, COMMANDS).expect("the server answers");
                for (step, (reply, expected)) in replies.iter().zip(expected).enumerate() {
                    let of = |reply: &Reply| {
                        reply.bytes().map(|bytes| String::from_utf8_lossy(bytes).into_owned())
                    };
                    let found =
                        reply.items().map_or_else(|| vec![of(reply)], |items| items.iter().map(of).collect());
                    assert_eq!(found, expected, "reply {step} of client {number}");
                }
            });
        }
    });
}

#[test]
fn a_scan_returns_every_key_that_stays() {
    const STAYING: usize = 2000;
    let server = duva();
    let mut client = server.connect();
    let staying: Vec<String> = (0..STAYING).map(|number| format!("staying:{number:05}")).collect();
    for chunk in staying.chunks(500) {
        assert!(client.call(&mset("MSET", chunk, "v")).is_status("OK"));
    }
    // Others come and go meanwhile, many under one hash tag, so that tables grow.
    let write = |writer: usize, client: &mut Connection| {
        for round in 0..20 {
            let passing: Vec<String> = (0..200)
                .map(|number| format!("{{passing:{}}}:{writer}:{round}:{number}", number % 2))
                .collect();
            assert!(client.call(&mset("MSET", &passing, "v")).is_status("OK"));
            if round % 3 != 0 {
                assert_eq!(client.call(&command("DEL", &passing)).integer(), Some(200));
            }
        }
    };
    let read = |random: &mut Random, client: &mut Connection| {
        let count = random.pick(&["7", "50", "1000"]);
        let arguments: Vec<Vec<u8>> = ["SCAN", "0", "MATCH", "staying:*", "COUNT", count]
            .iter()
            .map(|word| word.as_bytes().to_vec())
            .collect();
        let found = scan(client, &arguments).expect("SCAN answers");
        let expected: Vec<Vec<u8>> = staying.iter().map(|key| key.as_bytes().to_vec()).collect();
        assert!(found == expected, "SCAN found {} of {STAYING} keys", found.len());
    };
    storm(&server, write, read);
}
