//! ONCE on one server: a request takes effect once, whoever sends it again, whenever, and over every kind of restart.

mod support;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use support::connection::Connection;
use support::process::{Server, ServerOptions, TemporaryDirectory};
use support::resp::{self, Reply};

/// Requests whose replies are compared, each with a request id of its own; most would change something, or say something
/// else, if they were executed again.
const REQUESTS: &[&str] = &[
    "INCR counter",
    "INCRBY counter 10",
    "APPEND text abc",
    "INCR text",
    "SET {t}a 1 GET",
    "MSET {t}b 2 {t}c 3",
    "RENAME {t}b {t}d",
    "GETDEL {t}c",
    "INCRBYFLOAT float 0.5",
    "DEL missing",
];

fn journalling(data: &TemporaryDirectory, cores: usize) -> ServerOptions {
    ServerOptions::duva(cores)
        .journal(data.path())
        .option("segment-size", &["1mb"])
        .option("auto-aof-rewrite-percentage", &["0"])
}

/// Sends every request of [`REQUESTS`] at once.
fn send(client: &mut Connection, client_id: &str) -> Vec<Reply> {
    let mut bytes = Vec::new();
    for (number, line) in REQUESTS.iter().enumerate() {
        let mut arguments = vec!["ONCE".to_owned(), client_id.to_owned(), number.to_string()];
        arguments.extend(line.split(' ').map(str::to_owned));
        resp::encode_request(&arguments, &mut bytes);
    }
    client.exchange(&bytes, REQUESTS.len()).expect("the server answers")
}

/// What the requests have done.
fn effects(client: &mut Connection) -> Vec<Reply> {
    ["GET counter", "GET text", "MGET {t}a {t}b {t}c {t}d", "GET float", "DBSIZE"]
        .into_iter()
        .map(|line| client.words(line))
        .collect()
}

fn dedup(client: &mut Connection, name: &str) -> u64 {
    let reply = client.words("INFO dedup");
    let text = String::from_utf8(reply.bytes().expect("INFO answers with a text").to_vec()).expect("UTF-8");
    let value = text.split("\r\n").find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{name} in\n{text}"))
}

/// Ends a server as a crash of its process does.
fn kill(server: Server) {
    server.signal(libc::SIGKILL);
    let (status, _directory) = server.wait_for_exit();
    assert!(!status.success());
}

fn rewrite(server: &Server) {
    let mut client = server.connect();
    assert!(!client.words("BGREWRITEAOF").is_error());
    server.wait_until("the rewrite ends", || {
        let reply = client.words("INFO persistence");
        let text = String::from_utf8_lossy(reply.bytes().unwrap_or_default()).into_owned();
        text.contains("aof_rewrite_in_progress:0")
            && text.contains("aof_rewrite_scheduled:0")
            && text.contains("aof_last_bgrewrite_status:ok")
    });
}

fn snapshots(data: &TemporaryDirectory) -> Vec<PathBuf> {
    let entries = fs::read_dir(data.path().join("appendonlydir")).expect("the folder is there");
    let paths = entries.map(|entry| entry.expect("the folder can be listed").path());
    paths.filter(|path| path.to_string_lossy().ends_with(".snapshot.rdb")).collect()
}

#[test]
fn retries_get_the_recorded_reply_in_memory() {
    for cores in [1, 3] {
        let server = ServerOptions::duva(cores).start();
        let mut client = server.connect();
        let first = send(&mut client, "c");
        let done = effects(&mut client);
        assert_eq!(first[0].integer(), Some(1), "{}", first[0]);
        assert!(first[3].is_error() && first[4].is_null(), "{} {}", first[3], first[4]);
        // On other connections, which may be on other cores.
        for _ in 0..4 {
            assert_eq!(send(&mut server.connect(), "c"), first);
        }
        assert_eq!(effects(&mut client), done);
        let count = REQUESTS.len() as u64;
        assert_eq!(dedup(&mut client, "dedup_cached"), count);
        assert_eq!(dedup(&mut client, "dedup_unique_requests"), count);
        assert_eq!(dedup(&mut client, "dedup_duplicate_requests"), 4 * count);
        assert_eq!(dedup(&mut client, "dedup_evicted"), 0);
        let second = send(&mut client, "d");
        assert_eq!(second[0].integer(), Some(12));
        // What is gone is gone; what was recorded is known.
        assert!(client.words("FLUSHALL").is_status("OK"));
        assert_eq!(send(&mut client, "d"), second);
        assert_eq!(client.words("DBSIZE").integer(), Some(0));
    }
}

#[test]
fn every_connection_gets_the_reply_in_its_own_protocol() {
    let server = ServerOptions::duva(2).start();
    let mut client = server.connect();
    assert_eq!(client.words("ONCE c 1 SET key value GET"), resp::parse(b"$-1\r\n").unwrap().unwrap().0);
    let mut other = server.connect();
    assert!(!other.words("HELLO 3").is_error());
    assert_eq!(other.words("ONCE c 1 SET key value GET"), resp::parse(b"_\r\n").unwrap().unwrap().0);
    assert_eq!(client.words("ONCE c 1 SET key value GET"), resp::parse(b"$-1\r\n").unwrap().unwrap().0);
}

#[test]
fn what_is_no_write_of_one_slot_is_refused_and_not_recorded() {
    for has_journal in [false, true] {
        let data = TemporaryDirectory::new();
        let options = if has_journal { journalling(&data, 2) } else { ServerOptions::duva(2) };
        let server = options.start();
        let mut client = server.connect();
        let long = "x".repeat(65);
        for (line, error) in [
            ("ONCE c 1 INCR".to_owned(), "ERR wrong number of arguments for 'once' command"),
            ("ONCE c 1 SET key".to_owned(), "ERR wrong number of arguments for 'set' command"),
            ("ONCE c 1 BOGUS key".to_owned(), "ERR unknown command 'BOGUS' behind ONCE"),
            ("ONCE c 1 GET key".to_owned(), "ERR ONCE takes writes of keys alone, and 'get' is none"),
            ("ONCE c 1 ONCE c 2 INCR key".to_owned(), "ERR ONCE cannot be nested"),
            ("ONCE c 1 MSET a 1 b 2".to_owned(), "CROSSSLOT Keys in request don't hash to the same slot"),
            (format!("ONCE {long} 1 INCR key"), "ERR client-id and request-id may have 64 bytes at most"),
        ] {
            let reply = client.words(&line);
            assert!(reply.is_error(), "{line}: {reply}");
            assert_eq!(reply.bytes(), Some(error.as_bytes()), "{line}: {reply}");
        }
        assert_eq!(dedup(&mut client, "dedup_unique_requests"), 0);
        assert_eq!(client.words("ONCE c 1 INCR key").integer(), Some(1));
        let keys = client.words("COMMAND GETKEYS ONCE c 1 MSET a 1 b 2");
        assert_eq!(keys.items().map(<[Reply]>::len), Some(2), "{keys}");
    }
}

#[test]
fn records_survive_a_kill_whatever_the_cores_and_when_the_journal_is_synced() {
    for fsync in ["always", "everysec"] {
        let data = TemporaryDirectory::new();
        let options = |cores| journalling(&data, cores).option("appendfsync", &[fsync]);
        let server = options(2).start();
        let mut client = server.connect();
        // The second while the first may be pending.
        let mut bytes = Vec::new();
        for _ in 0..20 {
            resp::encode_request(&["ONCE", "early", "1", "INCR", "early"], &mut bytes);
        }
        let replies = client.exchange(&bytes, 20).expect("the server answers");
        assert!(replies.iter().all(|reply| reply.integer() == Some(1)), "{}", replies[19]);
        let first = send(&mut client, "c");
        // Received into an allocation of its own, and journalled in fragments.
        let large = vec![b'x'; 600 << 10];
        let append: [&[u8]; 6] = [b"ONCE", b"c", b"large", b"APPEND", b"large", &large];
        let appended = client.call(&append);
        assert_eq!(appended.integer(), Some(600 << 10));
        let done = effects(&mut client);
        kill(server);
        for cores in [1, 3] {
            let server = options(cores).start();
            let mut client = server.connect();
            assert_eq!(send(&mut client, "c"), first, "{fsync}, {cores} cores");
            assert_eq!(client.call(&append), appended);
            assert_eq!(client.words("ONCE early 1 INCR early").integer(), Some(1));
            assert_eq!(effects(&mut client), done);
            assert_eq!(client.words("STRLEN large").integer(), Some(600 << 10));
            kill(server);
        }
    }
}

#[test]
fn records_survive_in_snapshots_which_redis_reads() {
    let data = TemporaryDirectory::new();
    let server = journalling(&data, 2).start();
    let mut client = server.connect();
    let first = send(&mut client, "c");
    // More than one piece of records, in one shard.
    let count = 3000;
    let mut bytes = Vec::new();
    for number in 0..count {
        resp::encode_request(&["ONCE", "many", &number.to_string(), "INCR", "many"], &mut bytes);
    }
    let many = client.exchange(&bytes, count).expect("the server answers");
    assert_eq!(many[count - 1].integer(), Some(count as i64));
    rewrite(&server);
    // Behind the snapshot.
    let behind = send(&mut client, "d");
    let done = effects(&mut client);
    kill(server);
    for path in snapshots(&data) {
        let output = Command::new("redis-check-rdb").arg(&path).output();
        let output = output.unwrap_or_else(|error| {
            panic!("cannot run redis-check-rdb: {error}; .ci/test-setup installs what the tests need")
        });
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("RDB looks OK!"), "{said}");
    }
    let with_records: Vec<PathBuf> = snapshots(&data)
        .into_iter()
        .filter(|path| fs::read(path).expect("it is there").windows(9).any(|bytes| bytes == b"duva-once"))
        .collect();
    assert!(!with_records.is_empty(), "records are in the snapshots");
    // And the real Redis starts on each: on that of a shard that remembers a DEL, without any key.
    let mut keys = 0;
    for path in with_records {
        let folder = TemporaryDirectory::new();
        fs::copy(&path, folder.path().join("dump.rdb")).expect("the file is there");
        let directory = folder.path().to_str().expect("the path is made here");
        let redis = ServerOptions::redis().option("dir", &[directory]).start();
        keys += redis.connect().words("DBSIZE").integer().expect("a number");
    }
    assert_eq!(Some(keys), done.last().and_then(Reply::integer));
    for cores in [3, 1] {
        let server = journalling(&data, cores).start();
        let mut client = server.connect();
        assert_eq!(client.exchange(&bytes, count).expect("the server answers"), many, "{cores} cores");
        assert_eq!(send(&mut client, "c"), first);
        assert_eq!(send(&mut client, "d"), behind);
        assert_eq!(effects(&mut client), done);
        // Of a snapshot of what a snapshot held, too.
        assert!(client.words("INCR many").integer().is_some());
        assert!(client.words("DECR many").integer().is_some());
        rewrite(&server);
        kill(server);
    }
}

#[test]
fn records_are_over_after_their_time() {
    let data = TemporaryDirectory::new();
    let server = journalling(&data, 2).option("dedup-ttl", &["1"]).start();
    let mut client = server.connect();
    assert_eq!(client.words("ONCE c short INCR key").integer(), Some(1));
    // The time that held when it came is the request's own, and travels with its entry.
    assert!(client.words("CONFIG SET dedup-ttl 1000").is_status("OK"));
    assert_eq!(client.words("ONCE c long INCR key").integer(), Some(2));
    server.wait_until("the first is over", || {
        client.words("ONCE c short INCR key").integer().is_some_and(|value| value == 3)
    });
    assert_eq!(client.words("ONCE c long INCR key").integer(), Some(2));
    kill(server);
    let server = journalling(&data, 1).option("dedup-ttl", &["1"]).start();
    let mut client = server.connect();
    assert_eq!(client.words("ONCE c long INCR key").integer(), Some(2));
    assert_eq!(client.words("ONCE c short INCR key").integer(), Some(3));
    assert_eq!(client.words("GET key").bytes(), Some(&b"3"[..]));
}
