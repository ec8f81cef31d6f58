//! What a dump holds: everything, as it was at one moment.

use super::*;

/// Pairs of keys that are always set together, spread over all shards.
const PAIRS: usize = 64;

#[test]
fn everything_is_in_it() {
    let data = TemporaryDirectory::new();
    let server = options(&data, 3).start();
    let mut client = server.connect();
    fill(&mut client, 0..20_000, 30, 1);
    let long = value(1, 3 << 20, 7);
    assert!(client.call(&["SET", "long", &long]).is_status("OK"));
    assert!(client.call(&[&b"SET"[..], b"\0binary\xff", b"\r\n\0"]).is_status("OK"));
    assert!(client.words("SET later 1 PXAT 4102444800000").is_status("OK"));
    assert!(client.words("SELECT 9").is_status("OK"));
    assert!(client.words("SET ninth 12345").is_status("OK"));
    assert!(client.words("SAVE").is_status("OK"));
    for server in [redis_on(&data), options(&data, 2).start()] {
        let mut client = server.connect();
        assert_eq!(client.words("DBSIZE").integer(), Some(20_003));
        assert_eq!(number(&mut client, "rdb_changes_since_last_save"), 0, "loading changes nothing");
        expect_filled(&mut client, 0..20_000, 30, 1);
        assert_eq!(client.words("GET long").bytes(), Some(long.as_bytes()));
        assert_eq!(client.call(&[&b"GET"[..], b"\0binary\xff"]).bytes(), Some(&b"\r\n\0"[..]));
        assert_eq!(client.words("PEXPIRETIME later").integer(), Some(4_102_444_800_000));
        client.words("SELECT 9");
        assert_eq!(client.words("GET ninth").bytes(), Some(&b"12345"[..]));
        assert_eq!(client.words("DBSIZE").integer(), Some(1));
    }
}

/// While pairs of keys change together, and counters one after the other, dumps show a moment that there was.
fn is_one_moment(options: ServerOptions, data: &TemporaryDirectory) {
    let server = options.start();
    let mut client = server.connect();
    fill(&mut client, 0..20_000, 40, 1);
    let write = |thread: usize, round: u64, client: &mut Connection| {
        let pair = (round as usize * 7 + thread) % PAIRS;
        let text = format!("{thread}-{round}");
        let (left, right) = (format!("left:{pair}"), format!("right:{pair}"));
        assert!(client.call(&["MSET", &left, &text, &right, &text]).is_status("OK"));
        // Each is acknowledged before the next is sent.
        for counter in ["first", "second", "third"] {
            assert_eq!(client.words(&format!("INCR {counter}:{thread}")).integer(), Some(round as i64));
        }
    };
    for _ in 0..3 {
        beside(&server, 4, write, || assert!(client.words("SAVE").is_status("OK")));
        let redis = redis_on(data);
        let mut reader = redis.connect();
        expect_filled(&mut reader, 0..20_000, 40, 1);
        for pair in 0..PAIRS {
            let pair = reader.words(&format!("MGET left:{pair} right:{pair}"));
            let pair = pair.items().expect("an array");
            assert_eq!(pair[0], pair[1]);
        }
        for thread in 0..4 {
            let counts = reader.words(&format!("MGET first:{thread} second:{thread} third:{thread}"));
            let counts: Vec<i64> = counts.items().expect("an array").iter().map(integer).collect();
            assert!(counts.is_sorted_by(|a, b| a >= b) && counts[0] <= counts[2] + 1, "{counts:?}");
        }
        // The counters begin anew with the threads.
        for thread in 0..4 {
            client.words(&format!("DEL first:{thread} second:{thread} third:{thread}"));
        }
    }
}

#[test]
fn it_shows_one_moment_without_a_journal() {
    let data = TemporaryDirectory::new();
    is_one_moment(options(&data, 2), &data);
}

#[test]
fn it_shows_one_moment_with_a_journal() {
    let data = TemporaryDirectory::new();
    is_one_moment(journalling(&data, 3), &data);
}

#[test]
fn it_shows_one_moment_when_commits_wait_for_the_disk() {
    let data = TemporaryDirectory::new();
    is_one_moment(journalling(&data, 2).option("appendfsync", &["always"]), &data);
}

#[test]
fn large_values_that_change_meanwhile_are_saved_as_they_were() {
    let data = TemporaryDirectory::new();
    let server = options(&data, 2).start();
    let mut client = server.connect();
    // Far more than what may wait because changes have forced it out.
    const KEYS: usize = 256;
    const LENGTH: usize = 256 << 10;
    for round in 0..2 {
        fill(&mut client, 0..KEYS, LENGTH, round);
        assert!(client.words("BGSAVE").is_status("Background saving started"));
        // The cut comes at once, or after some of these: the dump has each value whole, of either version.
        fill(&mut client, 0..KEYS, LENGTH, round + 1);
        wait_until_saved(&server);
        assert_eq!(field(&mut client, "rdb_last_bgsave_status"), "ok");
        expect_filled(&mut client, 0..KEYS, LENGTH, round + 1);
        let saved = values(&mut redis_on(&data).connect(), 0..KEYS);
        for (number, saved) in saved.into_iter().enumerate() {
            let versions = [value(number, LENGTH, round), value(number, LENGTH, round + 1)];
            let saved = saved.expect("it was there before");
            assert!(versions.iter().any(|version| version.as_bytes() == saved), "key:{number}");
        }
    }
}

#[test]
fn options_of_dumps_are_obeyed() {
    let data = TemporaryDirectory::new();
    let server =
        options(&data, 1).option("rdbchecksum", &["no"]).option("dbfilename", &["other.rdb"]).start();
    let mut client = server.connect();
    client.call(&["SET", "key", &"x".repeat(1000)]);
    assert!(client.words("SAVE").is_status("OK"));
    let path = data.path().join("other.rdb");
    let compressed = fs::read(&path).expect("the dump is there");
    assert!(compressed.ends_with(&[0xff, 0, 0, 0, 0, 0, 0, 0, 0]), "no checksum");
    assert!(compressed.len() < 500, "compressed");
    assert!(client.words("CONFIG SET rdbcompression no").is_status("OK"));
    assert!(client.words("SAVE").is_status("OK"));
    assert!(fs::read(&path).expect("the dump is there").len() > 1000);
    fs::rename(&path, dump_path(&data)).expect("both are ours");
    assert_eq!(redis_on(&data).connect().words("STRLEN key").integer(), Some(1000));
}
