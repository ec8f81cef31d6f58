//! What a core does turn by turn, on a machine of the test's own: nothing leaves before it is written, whatever the disk
//! does, and no core keeps itself busy while it waits.
//!
//! Unlike the other tests here this one drives the cores themselves.

mod support;

#[allow(dead_code, reason = "each test program uses a part of it")]
#[path = "turns/machine.rs"]
mod machine;

use duva_server::config::AppendFsync;
use machine::{Bench, Client};
use support::resp::Reply;

const MIB: usize = 1 << 20;

fn is_ok(reply: &Reply) -> bool {
    reply.is_status("OK")
}

fn is_misconf(reply: &Reply) -> bool {
    reply.is_error() && reply.to_string().starts_with("-MISCONF Errors writing to the AOF file")
}

/// Sets a key to so many bytes; nothing runs.
fn send_set(bench: &mut Bench, client: Client, key: &str, length: usize) {
    bench.send(client, &[b"SET", key.as_bytes(), &vec![b'v'; length]]);
}

fn length(bench: &mut Bench, client: Client, key: &str) -> i64 {
    bench.call(client, &format!("STRLEN {key}")).integer().expect("a length")
}

/// Two keys of different shards of one core.
fn keys_of_two_shards(bench: &Bench) -> (String, String) {
    let first = bench.key("first", |bench, key| bench.owner(key) == 0);
    let shard = bench.shard(&first);
    let second = bench.key("second", |bench, key| bench.owner(key) == 0 && bench.shard(key) != shard);
    (first, second)
}

/// Several clients write until there is no room, with no segment in sight; what was answered is there after a kill.
fn write_to_the_end_of_the_room(fsync: AppendFsync, value_bytes: usize) {
    const CLIENTS: usize = 8;
    const WRITES: usize = 3;
    let mut bench = Bench::new(1, fsync);
    let clients: Vec<Client> = (0..CLIENTS).map(|_| bench.connect()).collect();
    bench.set_disk(|disk| disk.holds_tasks = true);
    let mut counts = [0; CLIENTS];
    for round in 0..30 {
        for (number, &client) in clients.iter().enumerate() {
            for at in 0..WRITES {
                send_set(&mut bench, client, &format!("{}:{number}", round * WRITES + at), value_bytes);
            }
        }
        bench.settle();
        for (count, &client) in counts.iter_mut().zip(&clients) {
            let replies = bench.replies(client);
            assert!(replies.iter().all(is_ok), "{replies:?}");
            *count += replies.len();
        }
    }
    let bytes = counts.iter().sum::<usize>() * value_bytes;
    assert!((MIB..3 * MIB).contains(&bytes), "there was room for {bytes} bytes");
    let mut bench = bench.restart(0);
    let client = bench.connect();
    for (number, count) in counts.into_iter().enumerate() {
        for index in 0..count {
            let key = format!("{index}:{number}");
            assert_eq!(
                length(&mut bench, client, &key),
                value_bytes as i64,
                "{key} was answered ({value_bytes} bytes)"
            );
        }
    }
}

#[test]
fn no_reply_leaves_before_its_write_when_the_room_ends_within_a_turn() {
    for fsync in [AppendFsync::EverySecond, AppendFsync::No] {
        for value_bytes in (2_000..40_000).step_by(3_700) {
            write_to_the_end_of_the_room(fsync, value_bytes);
        }
    }
}

#[test]
fn what_waits_for_room_is_done_in_order_once_there_is_some() {
    for fsync in [AppendFsync::Always, AppendFsync::EverySecond] {
        for cores in [1, 2] {
            let mut bench = Bench::new(cores, fsync);
            let (near, far) = (bench.connect(), bench.connect());
            let key = bench.key("key", |bench, key| bench.owner(key) == 0);
            bench.set_disk(|disk| disk.holds_tasks = true);
            let mut expected = 0;
            for number in 0..150 {
                // Both are in order for their connections: each reads its own writes.
                let own = format!("{key}:{number}");
                for client in [near, far] {
                    send_set(&mut bench, client, &own, 20_000);
                    bench.send_words(client, &format!("APPEND {own} x"));
                    bench.send_words(client, &format!("STRLEN {own}"));
                    bench.settle();
                }
                expected += 3;
            }
            // The disk goes on by and by, and nobody is kept busy meanwhile.
            bench.set_disk(|disk| (disk.holds_tasks, disk.holds_syncs) = (false, true));
            bench.settle();
            bench.set_disk(|disk| disk.holds_syncs = false);
            bench.settle();
            for client in [near, far] {
                let replies = bench.replies(client);
                assert_eq!(replies.len(), expected, "{fsync:?}, {cores} cores");
                for replies in replies.chunks(3) {
                    assert!(is_ok(&replies[0]));
                    let lengths = [&replies[1], &replies[2]].map(Reply::integer);
                    assert!(lengths[0] >= Some(20_001) && lengths[1] >= lengths[0], "{replies:?}");
                }
            }
            let mut bench = bench.restart(0);
            let client = bench.connect();
            for number in 0..150 {
                let length = length(&mut bench, client, &format!("{key}:{number}"));
                assert!(length > 20_000, "{number}: {length}");
            }
        }
    }
}

#[test]
fn a_command_of_many_small_arguments_is_journalled_whole_before_its_reply() {
    let mut bench = Bench::new(1, AppendFsync::EverySecond);
    let client = bench.connect();
    // Longer than all ready segments together.
    let value = vec![b'v'; 60_000];
    let keys: Vec<String> = (0..100).map(|number| format!("key:{number}")).collect();
    let mut words: Vec<&[u8]> = vec![b"MSET"];
    words.extend(keys.iter().flat_map(|key| [key.as_bytes(), &value]));
    bench.set_disk(|disk| disk.holds_tasks = true);
    bench.send(client, &words);
    bench.settle();
    assert_eq!(bench.replies(client), [], "not without room");
    bench.set_disk(|disk| disk.holds_tasks = false);
    bench.settle();
    assert!(bench.replies(client).iter().all(is_ok));
    let mut bench = bench.restart(0);
    let client = bench.connect();
    for key in &keys {
        assert_eq!(length(&mut bench, client, key), 60_000, "{key}");
    }
}

#[test]
fn a_large_value_is_moved_whole_or_not_at_all() {
    for cores in [1, 2] {
        let mut bench = Bench::new(cores, AppendFsync::EverySecond);
        let client = bench.connect();
        let (from, to) = if cores == 1 {
            keys_of_two_shards(&bench)
        } else {
            (bench.key("from", |b, key| b.owner(key) == 0), bench.key("to", |b, key| b.owner(key) == 1))
        };
        send_set(&mut bench, client, &from, 5 * MIB);
        bench.settle();
        assert!(bench.replies(client).iter().all(is_ok));
        // The limit concerns what clients send, not what is there.
        assert!(is_ok(&bench.call(client, "CONFIG SET proto-max-bulk-len 1mb")));
        assert_eq!(bench.call(client, &format!("COPY {from} copy")).integer(), Some(1));
        assert!(is_ok(&bench.call(client, &format!("RENAME {from} {to}"))));
        for key in [&to, "copy"] {
            assert_eq!(length(&mut bench, client, key), 5 * MIB as i64, "{key}, {cores} cores");
        }
        assert!(bench.unwritten_bytes() == 0);
        let mut bench = bench.restart(0);
        let client = bench.connect();
        assert_eq!(length(&mut bench, client, &from), 0);
        for key in [&to, "copy"] {
            assert_eq!(
                length(&mut bench, client, key),
                5 * MIB as i64,
                "{key}, {cores} cores, after a restart"
            );
        }
    }
}

#[test]
fn a_large_value_is_moved_over_several_turns() {
    let mut bench = Bench::new(1, AppendFsync::EverySecond);
    let client = bench.connect();
    let (from, to) = keys_of_two_shards(&bench);
    send_set(&mut bench, client, &from, 5 * MIB);
    bench.settle();
    assert!(bench.replies(client).iter().all(is_ok));
    bench.send_words(client, &format!("RENAME {from} {to}"));
    bench.take_written_bytes();
    let mut most = 0;
    while bench.step(0) {
        most = most.max(bench.take_written_bytes());
    }
    assert!(bench.replies(client).iter().all(is_ok));
    assert!(most < MIB, "{most} bytes in one turn");
}

#[test]
fn while_the_disk_has_no_room_for_a_write_nothing_tells_of_it() {
    for errno in [libc::ENOSPC, libc::EDQUOT] {
        let mut bench = Bench::new(2, AppendFsync::EverySecond);
        let key = bench.key("key", |bench, key| bench.owner(key) == 0);
        let other = bench.key("other", |bench, key| bench.owner(key) == 1);
        let (writer, _, reader, far) = (bench.connect(), bench.connect(), bench.connect(), bench.connect());
        assert!(is_ok(&bench.call(writer, &format!("SET {key} old"))));
        bench.set_disk(|disk| disk.write_error = Some(errno));
        assert_eq!(bench.ask(writer, &format!("SET {key} new")), None);
        // Who reads on that core would learn of it, from wherever.
        assert_eq!(bench.ask(reader, &format!("GET {key}")), None);
        assert_eq!(bench.ask(far, &format!("GET {key}")), None);
        bench.pass_to_next_timer();
        assert_eq!([writer, reader, far].map(|client| bench.replies(client).len()), [0; 3]);
        bench.set_disk(|disk| disk.write_error = None);
        bench.pass_to_next_timer();
        bench.pass_ms(500);
        bench.pass_to_next_timer();
        assert!(bench.replies(writer).iter().all(is_ok));
        for client in [reader, far] {
            assert_eq!(bench.replies(client)[0].bytes(), Some(&b"new"[..]));
        }
        assert!(is_ok(&bench.call(writer, &format!("SET {other} value"))));
        let mut bench = bench.restart(0);
        let client = bench.connect();
        assert_eq!(bench.call(client, &format!("GET {key}")).bytes(), Some(&b"new"[..]));
    }
}

#[test]
fn in_always_reads_go_on_while_a_write_has_no_room() {
    let mut bench = Bench::new(1, AppendFsync::Always);
    let (writer, other) = (bench.connect(), bench.connect());
    assert!(is_ok(&bench.call(writer, "SET key old")));
    bench.set_disk(|disk| disk.write_error = Some(libc::ENOSPC));
    assert_eq!(bench.ask(writer, "SET key new"), None);
    assert_eq!(bench.call(other, "GET key").bytes(), Some(&b"old"[..]));
    assert!(is_misconf(&bench.call(other, "SET another value")));
    bench.set_disk(|disk| disk.write_error = None);
    bench.pass_ms(500);
    bench.pass_to_next_timer();
    assert!(bench.replies(writer).iter().all(is_ok));
    assert!(is_ok(&bench.call(other, "SET another value")));
    assert_eq!(bench.call(other, "GET key").bytes(), Some(&b"new"[..]));
}

#[test]
fn a_full_disk_refuses_what_waits_and_what_comes() {
    for fsync in [AppendFsync::Always, AppendFsync::EverySecond] {
        let mut bench = Bench::new(2, fsync);
        let (near, far) = (bench.connect(), bench.connect());
        let key = bench.key("key", |bench, key| bench.owner(key) == 0);
        bench.set_disk(|disk| (disk.holds_tasks, disk.is_full) = (true, true));
        let mut counts = [0; 2];
        for round in 0..100 {
            for client in [near, far] {
                send_set(&mut bench, client, &format!("{key}:{round}"), 30_000);
            }
            bench.settle();
        }
        for (count, client) in counts.iter_mut().zip([near, far]) {
            let replies = bench.replies(client);
            assert!(replies.iter().all(is_ok));
            *count += replies.len();
        }
        assert!(counts.iter().sum::<usize>() < 200, "there was room for all");
        // Now it is known that there is no room: nobody waits any longer, and small writes are refused as well.
        bench.set_disk(|disk| disk.holds_tasks = false);
        bench.settle();
        for (count, client) in counts.iter_mut().zip([near, far]) {
            let replies = bench.replies(client);
            assert_eq!(*count + replies.len(), 100, "{fsync:?}: somebody hangs");
            let refused = replies.iter().filter(|reply| is_misconf(reply)).count();
            assert!(replies.iter().all(|reply| is_ok(reply) || is_misconf(reply)), "{replies:?}");
            assert!(refused > 0, "{fsync:?}");
        }
        // Over both cores, with little or much to say: refused as well, and no key stays locked.
        let there = bench.key("there", |bench, key| bench.owner(key) == 1);
        let reply = bench.call(near, &format!("MSET {key} 1 {there} 1"));
        assert!(is_misconf(&reply), "{reply}");
        bench.send(near, &[b"MSET", key.as_bytes(), &vec![b'v'; MIB], there.as_bytes(), b"1"]);
        bench.settle();
        assert!(bench.replies(near).iter().all(is_misconf));
        for client in [near, far] {
            for key in [&key, &there] {
                assert!(bench.call(client, &format!("GET {key}")).is_null());
            }
        }
        bench.set_disk(|disk| disk.is_full = false);
        bench.pass_ms(500);
        bench.pass_to_next_timer();
        let reply = bench.call(near, &format!("MSET {key} 1 {there} 1"));
        assert!(is_ok(&reply), "{fsync:?}: {reply}");
    }
}

#[test]
fn on_a_full_disk_expiry_takes_no_memory_and_the_end_comes() {
    let mut bench = Bench::new(1, AppendFsync::EverySecond);
    let client = bench.connect();
    for number in 0..3_000 {
        bench.send_words(client, &format!("SET key:{number} value PX {}", 1_000 + number));
    }
    bench.settle();
    assert_eq!(bench.replies(client).len(), 3_000);
    bench.set_disk(|disk| disk.is_full = true);
    let mut number = 0;
    while !is_misconf(&{
        send_set(&mut bench, client, &format!("fill:{number}"), 30_000);
        bench.settle();
        bench.replies(client).pop().expect("an answer")
    }) {
        number += 1;
    }
    for _ in 0..4_000 {
        bench.pass_ms(1);
        bench.wake_all();
        bench.settle();
        assert!(bench.unwritten_bytes() < 300_000, "ticks pile up");
    }
    assert!(bench.call(client, "GET key:2999").is_null());
    let bench = bench.stop();
    let mut bench = bench.restart(0);
    let client = bench.connect();
    for number in 0..number {
        assert_eq!(length(&mut bench, client, &format!("fill:{number}")), 30_000);
    }
}

#[test]
fn a_server_ends_though_what_waits_has_no_room() {
    let mut bench = Bench::new(1, AppendFsync::Always);
    let client = bench.connect();
    bench.set_disk(|disk| disk.write_error = Some(libc::ENOSPC));
    assert_eq!(bench.ask(client, "SET key value"), None);
    let mut bench = bench.stop().restart(0);
    let client = bench.connect();
    assert!(bench.call(client, "GET key").is_null(), "it was not answered, nor written");
}

#[test]
fn one_wanted_sync_does_not_make_the_next_ones() {
    let mut bench = Bench::new(2, AppendFsync::EverySecond);
    let client = bench.connect();
    let key = bench.key("key", |bench, key| bench.owner(key) == 0);
    let other = bench.key("other", |bench, key| bench.owner(key) == 1);
    bench.set_disk(|disk| disk.holds_syncs = true);
    bench.send_words(client, &format!("MSET {key} 1 {other} 2"));
    let writer = bench.connect();
    let mut begun = 0;
    // Somebody writes all the time, so that something is unsynced whenever a sync ends.
    for number in 0..100 {
        bench.send_words(writer, &format!("SET {key}:{number} value"));
        bench.settle();
        bench.set_disk(|disk| disk.holds_syncs = false);
        bench.set_disk(|disk| disk.holds_syncs = true);
        bench.send_words(writer, &format!("SET {key}:{number} value"));
        bench.settle();
        begun = bench.syncs_begun();
    }
    assert!(bench.replies(client).iter().all(is_ok));
    assert!(begun <= 4, "{begun} syncs within half a second");
}

#[test]
fn what_was_held_back_is_answered_when_the_sync_ends() {
    let mut bench = Bench::new(1, AppendFsync::EverySecond);
    let client = bench.connect();
    bench.set_disk(|disk| disk.holds_syncs = true);
    assert!(is_ok(&bench.call(client, "SET key 1")));
    bench.pass_ms(600);
    bench.wake_all();
    bench.settle();
    bench.pass_ms(500);
    assert_eq!(bench.ask(client, "SET key 2"), None, "the disk is a second behind");
    bench.set_disk(|disk| disk.holds_syncs = false);
    bench.settle();
    let replies = bench.replies(client);
    assert!(replies.len() == 1 && is_ok(&replies[0]), "{replies:?}");
}

#[test]
fn a_full_journal_holds_writers_back_on_all_cores_and_nobody_spins() {
    const WRITES: usize = 600;
    let mut bench = Bench::with_segments(2, AppendFsync::Always, 64);
    let (near, far) = (bench.connect(), bench.connect());
    let key = bench.key("key", |bench, key| bench.owner(key) == 0);
    assert!(is_ok(&bench.call(near, &format!("SET {key} value"))));
    bench.set_disk(|disk| disk.holds_syncs = true);
    for number in 0..WRITES {
        for client in [near, far] {
            send_set(&mut bench, client, &format!("{key}:{number}"), 60_000);
        }
        bench.settle();
        assert!(bench.unwritten_bytes() < 18 << 20, "{} bytes wait", bench.unwritten_bytes());
    }
    // Others read meanwhile.
    let reader = bench.connect();
    assert_eq!(bench.call(reader, &format!("GET {key}")).bytes(), Some(&b"value"[..]));
    bench.set_disk(|disk| disk.holds_syncs = false);
    bench.settle();
    for client in [near, far] {
        let replies = bench.replies(client);
        assert_eq!(replies.len(), WRITES);
        assert!(replies.iter().all(is_ok));
    }
}

#[test]
fn a_write_takes_effect_with_the_settings_that_it_came_with() {
    for fsync in [AppendFsync::Always, AppendFsync::EverySecond] {
        let mut bench = Bench::new(1, fsync);
        let (client, admin) = (bench.connect(), bench.connect());
        bench.set_disk(|disk| (disk.holds_syncs, disk.holds_tasks) = (true, true));
        bench.send_words(client, "SETRANGE small 2000000 x");
        // In fragments: those come before the record that counts.
        bench.send(client, &[b"SETRANGE", b"large", b"1500000", &vec![b'v'; 300_000]]);
        for _ in 0..3 {
            bench.step(0);
        }
        assert!(is_ok(&bench.call(admin, "CONFIG SET proto-max-bulk-len 1mb")));
        bench.set_disk(|disk| (disk.holds_syncs, disk.holds_tasks) = (false, false));
        bench.settle();
        let lengths: Vec<Option<i64>> = bench.replies(client).iter().map(Reply::integer).collect();
        let expected = |bench: &mut Bench| {
            let client = bench.connect();
            ["small", "large"].map(|key| length(bench, client, key))
        };
        let before = expected(&mut bench);
        assert_eq!(lengths.len(), 2);
        assert_eq!(before[0], 2_000_001, "{fsync:?}");
        assert_eq!(expected(&mut bench.restart(0)), before, "{fsync:?}");
    }
}

#[test]
fn flushes_wait_for_what_is_half_done() {
    let steps_of = |steps: usize, flush: &str| {
        let mut bench = Bench::new(1, AppendFsync::EverySecond);
        let (client, other) = (bench.connect(), bench.connect());
        let (from, to) = keys_of_two_shards(&bench);
        assert!(is_ok(&bench.call(client, &format!("SET {from} value"))));
        bench.send_words(client, &format!("RENAME {from} {to}"));
        for _ in 0..steps {
            bench.step(0);
        }
        bench.send_words(other, flush);
        bench.settle();
        let (renamed, flushed) = (bench.replies(client), bench.replies(other));
        assert!(is_ok(&flushed[0]), "{flushed:?}");
        let left = bench.call(client, "DBSIZE").integer();
        // Either came first; both leave nothing.
        assert_eq!(left, Some(0), "{flush} after {steps} steps, RENAME: {renamed:?}");
    };
    for steps in 0..20 {
        steps_of(steps, "FLUSHALL");
        steps_of(steps, "FLUSHDB");
    }
}

#[test]
fn a_due_key_that_a_write_met_does_not_come_back_with_an_older_clock() {
    for line in ["DEL key", "GETDEL key", "SETNX other value", "EXPIRE key 100", "PERSIST key"] {
        let mut bench = Bench::new(1, AppendFsync::EverySecond);
        let client = bench.connect();
        assert!(is_ok(&bench.call(client, "SET key value PX 100")));
        bench.pass_ms(200);
        bench.call(client, line);
        let mut bench = bench.restart(-5_000);
        let client = bench.connect();
        assert!(bench.call(client, "GET key").is_null(), "{line}");
    }
}

#[test]
fn a_start_with_an_older_clock_moves_no_deadline() {
    let mut bench = Bench::new(1, AppendFsync::EverySecond);
    let client = bench.connect();
    assert!(is_ok(&bench.call(client, "SET key value PX 10000")));
    bench.pass_ms(4_000);
    assert!(is_ok(&bench.call(client, "SET other value")));
    let mut bench = bench.restart(-5_000);
    let client = bench.connect();
    assert_eq!(bench.call(client, "PTTL key").integer(), Some(6_000));
    // Time goes on with the other clock.
    bench.pass_ms(1_000);
    assert_eq!(bench.call(client, "PTTL key").integer(), Some(5_000));
}

#[test]
fn due_keys_that_were_called_missing_do_not_come_back_with_an_older_clock() {
    let mut bench = Bench::new(1, AppendFsync::EverySecond);
    let client = bench.connect();
    // More is due than a turn removes, in every shard.
    for number in 0..8_000 {
        bench.send_words(client, &format!("SET other:{number} value PX 100"));
    }
    let keys: Vec<String> =
        (0..16).map(|shard| bench.key("key", |bench, key| bench.shard(key) == shard)).collect();
    for key in &keys {
        bench.send_words(client, &format!("SET {key} value PX 100"));
    }
    bench.settle();
    bench.replies(client);
    bench.pass_ms(200);
    keys.iter().for_each(|key| bench.send_words(client, &format!("GET {key}")));
    let mut replies = 0;
    // The turns that answer, and no more.
    while replies < keys.len() && bench.step(0) {
        replies += bench.replies(client).iter().filter(|reply| reply.is_null()).count();
    }
    // Each core has a clock of its own.
    let mut bench = bench.restart_with(4, -5_000);
    let client = bench.connect();
    for key in &keys {
        assert!(bench.call(client, &format!("GET {key}")).is_null(), "{key}");
    }
}

#[test]
fn an_idle_core_rewrites_without_waiting_for_the_time() {
    for fsync in [AppendFsync::Always, AppendFsync::EverySecond, AppendFsync::No] {
        let mut bench = Bench::new(2, fsync);
        let client = bench.connect();
        assert!(is_ok(&bench.call(client, "SET key value")));
        for _ in 0..2 {
            bench.call(client, "BGREWRITEAOF");
            let info = bench.call(client, "INFO persistence");
            let text = String::from_utf8_lossy(info.bytes().expect("a text")).into_owned();
            assert!(text.contains("aof_rewrite_in_progress:0"), "{fsync:?}: {text}");
            assert!(text.contains("aof_last_bgrewrite_status:ok"), "{text}");
        }
    }
}

#[test]
fn a_background_save_keeps_no_reader_waiting_for_the_disk() {
    let mut bench = Bench::new(2, AppendFsync::Always);
    let (writer, _, client) = (bench.connect(), bench.connect(), bench.connect());
    assert!(is_ok(&bench.call(writer, "SET key old")));
    bench.set_disk(|disk| disk.holds_syncs = true);
    for number in 0..10 {
        bench.send_words(writer, &format!("SET key:{number} new"));
    }
    assert_eq!(bench.ask(writer, "SET key new"), None);
    assert!(bench.call(client, "BGSAVE").bytes().is_some_and(|text| text.starts_with(b"Background")));
    assert_eq!(bench.call(client, "GET key").bytes(), Some(&b"old"[..]));
    bench.set_disk(|disk| disk.holds_syncs = false);
    bench.settle();
    assert_eq!(bench.replies(writer).len(), 11);
    assert_eq!(bench.call(client, "GET key").bytes(), Some(&b"new"[..]));
}

#[test]
fn a_rewrite_keeps_a_key_whose_deadline_was_put_off_in_time() {
    let mut bench = Bench::new(1, AppendFsync::Always);
    let (client, other, admin) = (bench.connect(), bench.connect(), bench.connect());
    let key = "key".to_owned();
    let shard = bench.shard(&key);
    let neighbour = bench.key("neighbour", |bench, key| bench.shard(key) == shard);
    assert!(is_ok(&bench.call(client, "SET key value PX 100")));
    bench.set_disk(|disk| disk.holds_syncs = true);
    bench.pass_ms(97);
    assert_eq!(bench.ask(client, "EXPIRE key 100"), None);
    bench.pass_ms(5);
    // Shard time is beyond the old deadline by now, and neither of the two is committed.
    assert_eq!(bench.ask(other, &format!("SET {neighbour} value")), None);
    bench.call(admin, "BGREWRITEAOF");
    bench.set_disk(|disk| disk.holds_syncs = false);
    bench.settle();
    assert_eq!(bench.replies(client)[0].integer(), Some(1));
    assert!(bench.call(client, "GET key").bytes().is_some());
    let mut bench = bench.restart(0);
    let client = bench.connect();
    assert_eq!(bench.call(client, "GET key").bytes(), Some(&b"value"[..]));
}

#[test]
fn writers_that_wait_for_a_save_do_not_keep_their_cores_busy() {
    let mut bench = Bench::with_segments(2, AppendFsync::EverySecond, 64);
    let (near, far) = (bench.connect(), bench.connect());
    let keys: Vec<String> = (0..40)
        .map(|number| bench.key(&format!("key{number}"), |bench, key| bench.owner(key) == 0))
        .collect();
    for key in &keys {
        send_set(&mut bench, near, key, MIB);
    }
    // The other core has something to save as well.
    for number in 0..8 {
        let key = bench.key(&format!("other{number}"), |bench, key| bench.owner(key) == 1);
        send_set(&mut bench, far, &key, MIB);
    }
    bench.settle();
    assert_eq!((bench.replies(near).len(), bench.replies(far).len()), (keys.len(), 8));
    // The file takes nothing, while its values are replaced.
    bench.set_disk(|disk| disk.holds_tasks = true);
    bench.call(near, "BGSAVE");
    let mut answered = [0; 2];
    for key in &keys {
        for client in [near, far] {
            bench.send_words(client, &format!("SET {key} short"));
        }
        bench.settle();
        for (count, client) in answered.iter_mut().zip([near, far]) {
            *count += bench.replies(client).len();
        }
    }
    assert!(answered.iter().all(|&count| count < keys.len()), "nobody was held back: {answered:?}");
    bench.set_disk(|disk| disk.holds_tasks = false);
    bench.settle();
    for (count, client) in answered.iter().zip([near, far]) {
        assert_eq!(count + bench.replies(client).len(), keys.len());
    }
}

/// Writers' replies that one sync lets go while writes for the next one are there: how many leave in each turn until all have,
/// and whether a read that comes behind the first of these turns is answered before the last.
fn replies_let_go_by_a_sync(writers: usize) -> (Vec<usize>, bool) {
    let mut bench = Bench::new(1, AppendFsync::Always);
    let clients: Vec<Client> = (0..writers).map(|_| bench.connect()).collect();
    let (early, reader) = (bench.connect(), bench.connect());
    bench.settle();
    let turn = |bench: &mut Bench| (bench.step(0), bench.step(0));
    bench.set_disk(|disk| disk.holds_syncs = true);
    bench.send_words(early, "SET early 1");
    bench.settle();
    for (number, &client) in clients.iter().enumerate() {
        bench.send_words(client, &format!("SET {number} value"));
    }
    bench.settle();
    // The first sync ends; the second is for all writers, and there is a write for the third.
    for _ in 0..2 {
        bench.set_disk(|disk| disk.holds_syncs = false);
        bench.set_disk(|disk| disk.holds_syncs = true);
        bench.send_words(early, "SET early 2");
        turn(&mut bench);
    }
    bench.send_words(reader, "GET early");
    let (mut counts, mut is_read) = (Vec::new(), false);
    while counts.iter().sum::<usize>() < writers {
        counts.push(clients.iter().map(|&client| bench.replies(client).len()).sum());
        is_read |= counts.iter().sum::<usize>() < writers && !bench.replies(reader).is_empty();
        turn(&mut bench);
    }
    (counts, is_read)
}

#[test]
fn reads_have_their_turn_among_the_replies_that_a_sync_lets_go() {
    let (counts, is_read) = replies_let_go_by_a_sync(50);
    assert_eq!(counts, [8, 8, 8, 8, 8, 8, 2]);
    assert!(is_read);
}

#[test]
fn very_many_replies_that_a_sync_lets_go_leave_at_once() {
    assert_eq!(replies_let_go_by_a_sync(65).0, [65]);
}

#[test]
fn replies_that_a_sync_has_let_go_leave_before_the_server_ends() {
    let mut bench = Bench::new(1, AppendFsync::Always);
    let clients: Vec<Client> = (0..50).map(|_| bench.connect()).collect();
    bench.settle();
    bench.set_disk(|disk| disk.holds_syncs = true);
    for round in 0..2 {
        for &client in &clients {
            bench.send_words(client, &format!("SET key {round}"));
        }
        bench.settle();
    }
    // What the first sync lets go leaves a few a turn, as the second is under way at once.
    bench.set_disk(|disk| disk.holds_syncs = false);
    let mut bench = bench.stop();
    let counts: Vec<usize> = clients.iter().map(|&client| bench.replies(client).len()).collect();
    assert!(counts.iter().all(|&count| count >= 1), "{counts:?}");
}
