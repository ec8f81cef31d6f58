//! Restarts after a crash of the process.

use super::*;
use crate::support::random::Random;

#[test]
fn everything_acknowledged_is_there_after_a_kill_whatever_the_cores() {
    let data = TemporaryDirectory::new();
    let mut server = options(&data, 2).start();
    let mut client = server.connect();
    fill(&mut client, 0..4000, 1000);
    for line in [
        "MSET a 1 b 2 c 3 d 4 {t}x 5 {t}y 6",
        "APPEND a tail",
        "INCRBY b 40",
        "INCRBYFLOAT c 0.5",
        "SETRANGE d 3 range",
        "RENAME a renamed-across-shards",
        "RENAME {t}x {t}z",
        "COPY b copied",
        "COPY copied b DB 3",
        "DEL key:7 key:8 key:9",
        "GETDEL key:10",
        "SET volatile here PX 100000000",
        "EXPIREAT key:11 4000000000",
        "SET kept once NX EX 100000",
        "SET kept twice NX",
        "PERSIST kept",
        "MSETNX m1 1 m2 2 m3 3",
    ] {
        let reply = client.words(line);
        assert!(!reply.is_error(), "{line}: {reply:?}");
    }
    // Longer than a segment.
    let large = Random::new(1).bytes(3 << 20);
    assert!(client.call(&[&b"SET"[..], b"large", &large]).is_status("OK"));
    for line in
        ["SELECT 5", "MSET one 1 two 2", "SELECT 9", "SET gone 1", "FLUSHDB", "SET back 1", "SWAPDB 5 6"]
    {
        assert!(client.words(line).is_status("OK"), "{line}");
    }
    let before = content(&server);
    assert!(before[0].len() > 4000 && before[6].len() == 2 && before[9].len() == 1, "it did happen");
    assert!(before[3].len() == 1, "a copy in another database");
    assert!(segments(&data, 0).len() > 3, "the journal has several segments");
    for cores in [1, 3, 2] {
        kill(server);
        server = options(&data, cores).start();
        assert_eq!(content(&server), before, "{cores} cores");
        // What a life adds, the next one finds as well.
        server.connect().words(&format!("SET {{life}}{cores} {cores}"));
        server.connect().words(&format!("DEL {{life}}{cores}"));
    }
    let mut client = server.connect();
    assert!(client.words("FLUSHALL").is_status("OK"));
    assert!(client.words("SET after flush").is_status("OK"));
    kill(server);
    let server = options(&data, 4).start();
    let after = content(&server);
    assert_eq!(after.iter().map(Vec::len).sum::<usize>(), 1);
    assert_eq!(server.connect().words("GET after").bytes(), Some(&b"flush"[..]));
}

#[test]
fn a_key_that_expired_never_comes_back() {
    let data = TemporaryDirectory::new();
    let server = options(&data, 2).start();
    let mut client = server.connect();
    for line in ["SET short 1 PX 5", "SET long 1 PX 5", "PERSIST long", "SET stays 1"] {
        assert!(!client.words(line).is_error(), "{line}");
    }
    server.wait_until("the key expires", || server.connect().words("GET short").is_null());
    // Something after it in each shard's log, whose time goes on from there.
    fill(&mut client, 0..300, 10);
    let before = content(&server);
    kill(server);
    for cores in [1, 2] {
        let server = options(&data, cores).start();
        assert_eq!(content(&server), before, "{cores} cores");
        kill(server);
    }
}

#[test]
fn lives_without_writes_change_nothing() {
    let data = TemporaryDirectory::new();
    let server = options(&data, 2).start();
    fill(&mut server.connect(), 0..100, 10);
    let before = content(&server);
    kill(server);
    for cores in [2, 1, 4, 4, 1] {
        let server = options(&data, cores).start();
        assert_eq!(content(&server), before);
        kill(server);
    }
    // An orderly end as well.
    let server = options(&data, 2).start();
    server.signal(libc::SIGTERM);
    let (status, _directory) = server.wait_for_exit();
    assert!(status.success());
    let server = options(&data, 1).start();
    assert_eq!(content(&server), before);
    // Nor do they leave anything: what the first one wrote is there, and what the running core has.
    let counts = [1, 2, 3].map(|core| segments(&data, core).len());
    assert_eq!(counts, [1, 0, 0]);
}

#[test]
fn what_is_loaded_is_counted() {
    let data = TemporaryDirectory::new();
    let server = options(&data, 2).start();
    fill(&mut server.connect(), 0..100, 10);
    kill(server);
    let server = options(&data, 2).start();
    let info = server.connect().words("INFO persistence");
    let info = String::from_utf8_lossy(info.bytes().expect("INFO answers with a text")).into_owned();
    assert!(info.contains("rdb_last_load_keys_loaded:100\r\n"), "{info}");
    assert!(server.log().contains("keys=100"), "{}", server.log());
}

#[test]
fn the_number_of_shards_stays() {
    let data = TemporaryDirectory::new();
    let server = options(&data, 1).option("shards", &["16"]).start();
    fill(&mut server.connect(), 0..100, 10);
    let before = content(&server);
    kill(server);
    let said = refusal(&data, &["--shards", "32"]);
    assert!(said.contains("has 16 shards") && said.contains("fixed when a directory is created"), "{said}");
    for options in [options(&data, 2), options(&data, 4).option("shards", &["16"])] {
        let server = options.start();
        assert_eq!(content(&server), before);
        kill(server);
    }
    let said = refusal(&data, &["--cores", "17"]);
    assert!(said.contains("too few for 17 cores"), "{said}");
}

#[test]
fn a_second_server_on_the_same_directory_refuses_to_start() {
    let data = TemporaryDirectory::new();
    let first = options(&data, 1).start();
    let process = fs::read_to_string(folder(&data).join("lock")).expect("the lock is there");
    let said = refusal(&data, &[]);
    let path = folder(&data);
    assert!(said.contains(path.to_str().expect("the path is made here")), "{said}");
    assert!(said.contains(&format!("in use by another server (process {})", process.trim())), "{said}");
    assert!(first.connect().words("SET still serving").is_status("OK"));
}

#[test]
fn a_place_that_cannot_be_a_directory_is_refused() {
    let data = TemporaryDirectory::new();
    fs::write(folder(&data), "a file").expect("the directory is ours");
    let said = refusal(&data, &[]);
    assert!(said.contains("appendonlydir is not a directory"), "{said}");
    // A directory whose lock cannot be written to is like one that is read-only, which nothing is for root.
    fs::remove_file(folder(&data)).expect("the directory is ours");
    fs::create_dir_all(folder(&data).join("lock")).expect("the directory is ours");
    let said = refusal(&data, &[]);
    assert!(said.contains("cannot be written to"), "{said}");
}
