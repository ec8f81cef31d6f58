//! What each mode of the journal promises, seen from outside: order behind a write, syncs, large values, a full disk,
//! the ends of a server, and everything besides plain strings that must be there again.
//!
//! `DUVA_LARGE_MIB` sets how long the largest value is.

mod support;

#[path = "journal_modes/content.rs"]
mod content;
#[path = "journal_modes/full_disk.rs"]
mod full_disk;
#[path = "journal_modes/large.rs"]
mod large;

use support::connection::Connection;
use support::process::{Server, ServerOptions, TemporaryDirectory};
use support::random::Random;
use support::resp;
use support::workload::Workload;

const MODES: [&str; 3] = ["always", "everysec", "no"];

/// A server on so many cores that journals in `directory`, in small segments.
fn options(directory: &TemporaryDirectory, cores: usize, mode: &str) -> ServerOptions {
    ServerOptions::duva(cores)
        .journal(directory.path())
        .option("appendfsync", &[mode])
        .option("segment-size", &["1mb"])
}

/// A field of INFO's persistence section.
fn persistence(client: &mut Connection, field: &str) -> String {
    let reply = client.words("INFO persistence");
    let text = String::from_utf8_lossy(reply.bytes().expect("INFO answers with a text")).into_owned();
    let value = text.split("\r\n").find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    value.unwrap_or_else(|| panic!("no {field} in {text}")).to_owned()
}

fn number(client: &mut Connection, field: &str) -> u64 {
    let value = persistence(client, field);
    value.parse().unwrap_or_else(|_| panic!("{field} is a number: {value}"))
}

/// Sends requests at once, and takes their replies.
fn pipeline(client: &mut Connection, requests: &[Vec<Vec<u8>>]) -> Vec<resp::Reply> {
    let mut bytes = Vec::new();
    requests.iter().for_each(|request| resp::encode_request(request, &mut bytes));
    client.exchange(&bytes, requests.len()).unwrap_or_else(|error| panic!("a pipeline: {error}"))
}

fn request(words: &[&[u8]]) -> Vec<Vec<u8>> {
    words.iter().map(|word| word.to_vec()).collect()
}

#[test]
fn a_read_behind_a_write_of_its_connection_sees_it() {
    for mode in MODES {
        let directory = TemporaryDirectory::new();
        let server = options(&directory, 2, mode).start();
        let mut random = Random::new(1);
        // Connections on both cores.
        let mut clients = [server.connect(), server.connect()];
        for round in 0..150 {
            for (number, client) in clients.iter_mut().enumerate() {
                let mut requests = Vec::new();
                let mut expected = Vec::new();
                for _ in 0..=random.below(10) {
                    // The connections write different keys, which lie on both cores.
                    let key = format!("{number}:{}", random.below(40)).into_bytes();
                    let length = match random.below(100) {
                        0 => 1_500_000,
                        1 => 300_000,
                        2 => 70_000,
                        _ => 10,
                    };
                    let value = random.bytes(length);
                    requests.push(request(&[b"SET", &key, &value]));
                    expected.push(resp::Reply::Line(b'+', b"OK".to_vec()));
                    for _ in 0..random.below(3) {
                        requests.push(request(&[b"GET", &key]));
                        expected.push(resp::Reply::Text(b'$', value.clone()));
                    }
                    if random.one_in(5) {
                        requests.push(request(&[b"APPEND", &key, b"end"]));
                        expected.push(resp::Reply::Line(b':', (length + 3).to_string().into_bytes()));
                        requests.push(request(&[b"STRLEN", &key]));
                        expected.push(resp::Reply::Line(b':', (length + 3).to_string().into_bytes()));
                    }
                }
                for (index, reply) in pipeline(client, &requests).into_iter().enumerate() {
                    let (shown, expected) = (resp::show_request(&requests[index]), &expected[index]);
                    assert!(
                        reply == *expected,
                        "{mode}, round {round}: {shown}: {reply} instead of {expected}"
                    );
                }
            }
        }
    }
}

#[test]
fn always_syncs_for_every_lone_write() {
    const WRITES: u64 = 60;
    let directory = TemporaryDirectory::new();
    let server = options(&directory, 2, "always").start();
    let mut client = server.connect();
    let syncs = number(&mut client, "journal_fsyncs");
    let bytes = number(&mut client, "journal_bytes");
    for count in 1..=WRITES {
        let reply = client.call(&["SET", &format!("key:{count}"), "value"]);
        assert!(reply.is_status("OK"), "{reply}");
        // A reply leaves after the fsync of its write, and nobody else writes.
        assert!(number(&mut client, "journal_fsyncs") >= syncs + count, "write {count} was not synced");
    }
    assert!(number(&mut client, "journal_bytes") > bytes);
    assert_eq!(number(&mut client, "aof_current_size"), number(&mut client, "journal_bytes"));
    assert!(number(&mut client, "journal_fsync_max_us") >= number(&mut client, "journal_fsync_p50_us"));
    assert_ne!(persistence(&mut client, "journal_fsync_histogram_us"), "");
}

#[test]
fn many_writers_share_a_sync() {
    const CLIENTS: u64 = 40;
    const WRITES: u64 = 20;
    let directory = TemporaryDirectory::new();
    let server = options(&directory, 1, "always").start();
    let mut client = server.connect();
    let syncs = number(&mut client, "journal_fsyncs");
    std::thread::scope(|scope| {
        for writer in 0..CLIENTS {
            let mut client = server.connect();
            scope.spawn(move || {
                for count in 0..WRITES {
                    let reply = client.call(&["SET", &format!("{writer}:{count}"), "value"]);
                    assert!(reply.is_status("OK"), "{reply}");
                }
            });
        }
    });
    let syncs = number(&mut client, "journal_fsyncs") - syncs;
    assert!(syncs >= WRITES, "{syncs} fsyncs for {WRITES} writes one after the other");
    assert!(syncs < CLIENTS * WRITES, "{syncs} fsyncs: nobody shared one");
    println!("{syncs} fsyncs for {} writes of {CLIENTS} clients", CLIENTS * WRITES);
}

#[test]
fn everysec_syncs_by_itself_and_no_does_not() {
    for mode in ["everysec", "no"] {
        let directory = TemporaryDirectory::new();
        let server = options(&directory, 1, mode).start();
        let mut client = server.connect();
        let syncs = number(&mut client, "journal_fsyncs");
        assert!(client.words("SET key value").is_status("OK"));
        if mode == "no" {
            // Another policy shows that it was left to be done.
            assert_eq!(number(&mut client, "journal_fsyncs"), syncs);
            assert!(client.words("CONFIG SET appendfsync everysec").is_status("OK"));
        }
        server.wait_until("the journal is synced", || number(&mut client, "journal_fsyncs") > syncs);
    }
}

#[test]
fn the_mode_changes_under_load() {
    let directory = TemporaryDirectory::new();
    let mut workload = Workload::new(2, 8);
    for cores in [2, 1] {
        let server = options(&directory, cores, "no").start();
        workload.verify(&server);
        workload.run(&server, |progress| {
            let mut client = server.connect();
            let mut random = Random::new(3);
            for _ in 0..20 {
                let mode = random.pick(&MODES);
                assert!(client.call(&["CONFIG", "SET", "appendfsync", mode]).is_status("OK"));
                let reply = client.words("CONFIG GET appendfsync");
                let value = reply.items().and_then(|items| items.get(1)).and_then(resp::Reply::bytes);
                assert_eq!(value, Some(mode.as_bytes()), "{reply}");
                progress.wait_for(progress.acknowledged() + 50);
            }
            progress.expect_end();
            server.signal(libc::SIGKILL);
        });
        drop(server.wait_for_exit());
    }
    workload.verify(&options(&directory, 2, "everysec").start());
}

#[test]
fn a_told_end_loses_nothing() {
    for mode in MODES {
        let directory = TemporaryDirectory::new();
        let mut workload = Workload::new(4, 6);
        let server = options(&directory, 2, mode).start();
        workload.run(&server, |progress| {
            progress.wait_for(300);
            progress.expect_end();
            server.signal(libc::SIGTERM);
        });
        let (status, _directory) = server.wait_for_exit();
        assert!(status.success(), "{status}");
        let server = options(&directory, 1, mode).start();
        workload.verify(&server);
    }
}

/// Kills a server and starts another in its directory.
fn restart(server: Server, options: &ServerOptions) -> Server {
    server.kill();
    options.start()
}
