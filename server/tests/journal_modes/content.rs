//! Deadlines and databases are there again after a kill.

use crate::support::connection::Connection;
use crate::support::process::{Server, TemporaryDirectory};
use crate::support::workload::read_all;
use crate::{MODES, options, restart};

const DATABASES: usize = 16;

/// Everything in every database.
fn everything(server: &Server) -> Vec<crate::support::model::Keys> {
    let mut client = server.connect();
    (0..DATABASES)
        .map(|database| {
            ok(&mut client, &format!("SELECT {database}"));
            read_all(&mut client)
        })
        .collect()
}

fn ok(client: &mut Connection, line: &str) {
    let reply = client.words(line);
    assert!(reply.is_status("OK"), "{line}: {reply}");
}

fn one(client: &mut Connection, line: &str) {
    let reply = client.words(line);
    assert_eq!(reply.integer(), Some(1), "{line}: {reply}");
}

#[test]
fn expired_keys_stay_away_and_deadlines_stay() {
    for mode in MODES {
        let directory = TemporaryDirectory::new();
        let mut server = options(&directory, 2, mode).start();
        let mut client = server.connect();
        for number in 0..20 {
            ok(&mut client, &format!("SET short:{number} value PX 30"));
            ok(&mut client, &format!("SET long:{number} value PX {}", 10_000_000 + number));
            ok(&mut client, &format!("SET kept:{number} value PX 10000000"));
            one(&mut client, &format!("PERSIST kept:{number}"));
            ok(&mut client, &format!("SET later:{number} value"));
            one(&mut client, &format!("PEXPIREAT later:{number} {}", 4_000_000_000_000_u64 + number));
            // Alive again before it was due: another value, which the old deadline must not take away.
            ok(&mut client, &format!("SET again:{number} value PX 30"));
            ok(&mut client, &format!("SET again:{number} other"));
        }
        // The first of them by reading, the rest without anybody's looking.
        server.wait_until("a key expires", || client.words("GET short:0").is_null());
        for number in 10..20 {
            server.wait_until("keys expire", || {
                client.words(&format!("EXISTS short:{number}")).integer() == Some(0)
            });
        }
        server.wait_until("expired keys go", || client.words("DBSIZE").integer() == Some(80));
        let before = everything(&server);
        // What is due while no server runs does not come back either.
        ok(&mut client, "SET unattended value PX 1");
        for cores in [1, 2] {
            server = restart(server, &options(&directory, cores, mode));
            let mut client = server.connect();
            server.wait_until("the last key expires", || {
                client.words("EXISTS unattended").integer() == Some(0)
            });
            let after = everything(&server);
            assert!(after == before, "{mode}: {after:?} instead of {before:?}");
            assert_eq!(client.words("TTL kept:3").integer(), Some(-1));
            assert_eq!(client.words("PEXPIRETIME later:3").integer(), Some(4_000_000_000_003));
            assert_eq!(client.words("GET again:3").bytes(), Some(&b"other"[..]));
        }
    }
}

#[test]
fn databases_are_there_again() {
    for (mode, cores) in [("always", 2), ("everysec", 3), ("no", 1)] {
        let directory = TemporaryDirectory::new();
        let mut server = options(&directory, cores, mode).start();
        let mut client = server.connect();
        for database in 0..DATABASES {
            ok(&mut client, &format!("SELECT {database}"));
            for number in 0..20 {
                ok(&mut client, &format!("SET key:{number} {database}"));
            }
        }
        ok(&mut client, "SWAPDB 1 2");
        ok(&mut client, "SWAPDB 2 9");
        ok(&mut client, "SELECT 3");
        ok(&mut client, "FLUSHDB");
        ok(&mut client, "SET after flush");
        ok(&mut client, "SELECT 4");
        ok(&mut client, "FLUSHDB ASYNC");
        ok(&mut client, "SELECT 5");
        for number in 0..10 {
            one(&mut client, &format!("DEL key:{number}"));
            one(&mut client, &format!("MOVE key:{} 4", number + 10));
            ok(&mut client, &format!("SELECT {}", 6));
            one(&mut client, &format!("COPY key:{number} copy:{number} DB 7"));
            one(&mut client, &format!("COPY key:{number} key:{number} DB 8 REPLACE"));
            one(&mut client, &format!("EXPIREAT key:{number} 4000000000"));
            ok(&mut client, &format!("RENAME key:{number} renamed:{number}"));
            ok(&mut client, "SELECT 5");
        }
        let before = everything(&server);
        // What the commands above should have done, in a few places.
        let text = |database: usize, key: &str| {
            before[database].get(key).map(|value| String::from_utf8_lossy(&value.bytes).into_owned())
        };
        assert_eq!(text(1, "key:0").as_deref(), Some("2"));
        assert_eq!(text(2, "key:0").as_deref(), Some("9"));
        assert_eq!(text(9, "key:0").as_deref(), Some("1"));
        assert_eq!((before[3].len(), before[4].len(), before[5].len()), (1, 10, 0));
        assert_eq!(text(7, "copy:3").as_deref(), Some("6"));
        assert_eq!(text(8, "key:3").as_deref(), Some("6"));
        assert_eq!(before[6]["renamed:3"].deadline_ms, Some(4_000_000_000_000));
        for cores in [2, 1, 3] {
            server = restart(server, &options(&directory, cores, mode));
            assert!(everything(&server) == before, "{mode}: {:?} instead of {before:?}", everything(&server));
        }
        ok(&mut server.connect(), "FLUSHALL");
        ok(&mut server.connect(), "SET last value");
        server = restart(server, &options(&directory, cores, mode));
        let after = everything(&server);
        assert_eq!(after.iter().map(|keys| keys.len()).sum::<usize>(), 1);
        assert!(after[0].contains_key("last"));
    }
}
