//! Which commands count as an access for OBJECT IDLETIME, on one core and wherever the keys lie on several.

mod support;

#[allow(dead_code, reason = "each test program uses a part of it")]
#[path = "turns/machine.rs"]
mod machine;

use duva_server::config::AppendFsync;
use machine::{Bench, Client};

const IDLE_MS: u64 = 5_000;

/// The idle times of two keys that had been idle before the command, in seconds; -1 without a key.
fn idle_after(bench: &mut Bench, client: Client, line: &str, keys: [&str; 2]) -> [i64; 2] {
    bench.call(client, "FLUSHALL");
    bench.call(client, "MSET a text b text");
    bench.pass_ms(IDLE_MS);
    let reply = bench.call(client, line);
    assert!(!reply.is_error() || reply.to_string().contains("BUSYKEY"), "{line}: {reply}");
    keys.map(|key| bench.call(client, &format!("OBJECT IDLETIME {key}")).integer().unwrap_or(-1))
}

#[test]
fn looking_whether_a_key_exists_is_no_access_but_finding_it_in_the_way_is() {
    for mut bench in [1, 2, 3]
        .into_iter()
        .flat_map(|cores| [Bench::new(cores, AppendFsync::EverySecond), Bench::in_memory(cores)])
    {
        let client = bench.connect();
        for (line, keys, expected) in [
            ("EXISTS a b", ["a", "b"], [5, 5]),
            ("TTL a", ["a", "b"], [5, 5]),
            ("TYPE a", ["a", "b"], [5, 5]),
            ("TOUCH a", ["a", "b"], [0, 5]),
            ("STRLEN a", ["a", "b"], [0, 5]),
            ("RENAME a b", ["a", "b"], [-1, 0]),
            ("RENAME a a", ["a", "b"], [0, 5]),
            ("RENAME a c", ["c", "b"], [0, 5]),
            ("RENAMENX a b", ["a", "b"], [0, 0]),
            ("RENAMENX a c", ["c", "b"], [0, 5]),
            ("COPY a b", ["a", "b"], [0, 0]),
            ("COPY a b REPLACE", ["a", "b"], [0, 0]),
            ("COPY a c", ["a", "c"], [0, 0]),
            ("MSETNX a 1", ["a", "b"], [0, 5]),
            ("MSETNX c 1 b 1", ["a", "b"], [5, 0]),
            ("RESTORE a 0 x", ["a", "b"], [0, 5]),
            ("MOVE a 1", ["a", "b"], [-1, 5]),
        ] {
            assert_eq!(idle_after(&mut bench, client, line, keys), expected, "{line}");
        }
        bench.call(client, "CLIENT NO-TOUCH ON");
        for (line, keys) in [("RENAMENX a b", ["a", "b"]), ("MSETNX a 1 b 1", ["a", "b"])] {
            assert_eq!(idle_after(&mut bench, client, line, keys), [5, 5], "{line}");
        }
    }
}
