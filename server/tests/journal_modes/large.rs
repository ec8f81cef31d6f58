//! Values that fill many segments, and what others notice of them.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::connection::Connection;
use crate::support::process::{Server, TemporaryDirectory};
use crate::support::random::Random;
use crate::{MODES, options, restart};

/// The length of the largest value; Redis's limit is 512.
const LARGE_MIB: usize = 64;

const MIB: usize = 1 << 20;

/// Longer than this nobody may wait because of another client's large value. How fast it is belongs in benchmarks.
const WAIT_MAX: Duration = Duration::from_secs(2);

/// How long the large value itself may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// The value's mebibyte `index`: so the test never has more of it in memory.
fn piece(index: usize) -> Vec<u8> {
    Random::new(1_000 + index as u64).bytes(MIB)
}

fn set_large(client: &mut Connection, key: &str, mebibytes: usize) {
    client.set_patience(PATIENCE).expect("the connection is open");
    let header = format!("*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${}\r\n", key.len(), mebibytes * MIB);
    client.send(header.as_bytes()).expect("the server takes the request");
    for index in 0..mebibytes {
        client.send(&piece(index)).expect("the server takes the value");
    }
    client.send(b"\r\n").expect("the server takes the end of the value");
    let reply = client.receive().expect("the server answers");
    assert!(reply.is_status("OK"), "{reply}");
}

fn check_large(client: &mut Connection, key: &str, mebibytes: usize) {
    let length = client.call(&["STRLEN", key]).integer();
    assert_eq!(length, Some((mebibytes * MIB) as i64), "{key}");
    for index in 0..mebibytes {
        let (first, last) = (index * MIB, (index + 1) * MIB - 1);
        let reply = client.call(&["GETRANGE", key, &first.to_string(), &last.to_string()]);
        assert!(reply.bytes() == Some(&piece(index)[..]), "mebibyte {index} of {key} differs");
    }
}

/// Sends small requests until `is_done`; the longest that one took.
fn probe(client: &mut Connection, number: usize, is_done: &AtomicBool) -> Duration {
    let mut longest = Duration::ZERO;
    let mut count = 0_usize;
    while !is_done.load(Ordering::Relaxed) {
        let begin = Instant::now();
        let reply = if count.is_multiple_of(2) {
            client.words("PING")
        } else {
            client.call(&["SET", &format!("probe:{number}:{}", count % 64), "value"])
        };
        longest = longest.max(begin.elapsed());
        assert!(reply.is_status("PONG") || reply.is_status("OK"), "{reply}");
        count += 1;
    }
    longest
}

fn probed(server: &Server, work: impl FnOnce()) -> Duration {
    const PROBES: usize = 4;
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        let is_done = &is_done;
        let probes: Vec<_> = (0..PROBES)
            .map(|number| {
                let mut client = server.connect();
                scope.spawn(move || probe(&mut client, number, is_done))
            })
            .collect();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        is_done.store(true, Ordering::Relaxed);
        let longest = probes.into_iter().map(|probe| probe.join().expect("the probe is served")).max();
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        longest.unwrap_or_default()
    })
}

#[test]
fn a_value_of_many_segments_survives_and_stalls_nobody() {
    let mebibytes = std::env::var("DUVA_LARGE_MIB").map_or(LARGE_MIB, |value| {
        value.parse().unwrap_or_else(|_| panic!("DUVA_LARGE_MIB is a number: {value}"))
    });
    for mode in MODES {
        let directory = TemporaryDirectory::new();
        let options = options(&directory, 2, mode);
        let server = options.start();
        let mut client = server.connect();
        let begin = Instant::now();
        let longest = probed(&server, || set_large(&mut client, "large", mebibytes));
        let _ = writeln!(
            std::io::stdout(),
            "{mode}: {mebibytes} MiB set in {:?}; others waited at most {longest:?}",
            begin.elapsed()
        );
        assert!(longest < WAIT_MAX, "{mode}: another client waited {longest:?}");
        check_large(&mut client, "large", mebibytes);
        let server = restart(server, &options);
        check_large(&mut server.connect(), "large", mebibytes);
    }
}

#[test]
fn large_values_survive_in_every_command_that_takes_them() {
    for mode in MODES {
        let directory = TemporaryDirectory::new();
        let options = options(&directory, 2, mode);
        let mut server = options.start();
        let mut client = server.connect();
        let value = |number: usize| Random::new(number as u64).bytes(MIB + number);
        let keys: Vec<String> = (0..6).map(|number| format!("large:{number}")).collect();
        let mut mset = vec![b"MSET".to_vec()];
        mset.extend(
            keys.iter().enumerate().flat_map(|(number, key)| [key.clone().into_bytes(), value(number)]),
        );
        let reply = client.try_call(&mset).expect("the server answers");
        assert!(reply.is_status("OK"), "{reply}");
        let mut both = value(0);
        both.extend(value(10));
        let length = client.call(&[&b"APPEND"[..], b"large:0", &value(10)]).integer();
        assert_eq!(length, Some(both.len() as i64));
        // Several targets, so that some are on the other core.
        for number in 0..4 {
            let reply = client.call(&["COPY", "large:1", &format!("copy:{number}")]);
            assert_eq!(reply.integer(), Some(1), "{reply}");
            let reply = client.call(&["RENAME", &format!("copy:{number}"), &format!("moved:{number}")]);
            assert!(reply.is_status("OK"), "{reply}");
        }
        let reply = client.call(&[&b"SETRANGE"[..], b"large:2", b"3000000", &value(11)]);
        let mut padded = value(2);
        padded.resize(3_000_000, 0);
        padded.extend(value(11));
        assert_eq!(reply.integer(), Some(padded.len() as i64), "{reply}");
        let reply = client.call(&[&b"GETSET"[..], b"large:3", &value(12)]);
        assert!(reply.bytes() == Some(&value(3)[..]), "GETSET");
        let mut expected = vec![both, value(1), padded, value(12), value(4), value(5)];
        expected.extend((0..4).map(|_| value(1)));
        let moved = (0..4).map(|number| format!("moved:{number}"));
        let keys: Vec<String> = keys.into_iter().chain(moved).collect();
        for _ in 0..2 {
            let mut client = server.connect();
            assert_eq!(client.words("DBSIZE").integer(), Some(keys.len() as i64));
            for (key, expected) in keys.iter().zip(&expected) {
                assert!(client.call(&["GET", key]).bytes() == Some(&expected[..]), "{mode}: {key} differs");
            }
            server = restart(server, &options);
        }
    }
}
