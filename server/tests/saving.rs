//! Saving beside everything else: `dump.rdb` by SAVE and its kin, and rewrites of the journal.
//!
//! What is saved is read by the real Redis, and by servers started on it.

mod support;

#[path = "saving/dump.rs"]
mod dump;
#[path = "saving/failure.rs"]
mod failure;
#[path = "saving/replies.rs"]
mod replies;
#[path = "saving/rewrite.rs"]
mod rewrite;
#[path = "saving/stop.rs"]
mod stop;

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use support::connection::Connection;
use support::process::{Server, ServerOptions, TemporaryDirectory};
use support::resp::{self, Reply};

/// A server on so many cores that keeps everything in `data`.
fn options(data: &TemporaryDirectory, cores: usize) -> ServerOptions {
    ServerOptions::duva(cores).option("dir", &[directory(data)])
}

/// The same with a journal of small segments.
fn journalling(data: &TemporaryDirectory, cores: usize) -> ServerOptions {
    options(data, cores).option("appendonly", &["yes"]).option("segment-size", &["1mb"])
}

fn directory(data: &TemporaryDirectory) -> &str {
    data.path().to_str().expect("the path is made here")
}

fn dump_path(data: &TemporaryDirectory) -> PathBuf {
    data.path().join("dump.rdb")
}

/// The real Redis, started on the dump in `data`, which redis-check-rdb has found to be in order.
fn redis_on(data: &TemporaryDirectory) -> Server {
    let output = Command::new("redis-check-rdb").arg(dump_path(data)).output();
    let output = output.unwrap_or_else(|error| {
        panic!("cannot run redis-check-rdb: {error}; .ci/test-setup installs what the tests need")
    });
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("RDB looks OK!"), "{said}");
    ServerOptions::redis().option("dir", &[directory(data)]).start()
}

/// A field of INFO persistence.
fn field(client: &mut Connection, name: &str) -> String {
    let reply = client.words("INFO persistence");
    let text = String::from_utf8(reply.bytes().expect("INFO answers with a text").to_vec()).expect("UTF-8");
    let value = text.split("\r\n").find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value.unwrap_or_else(|| panic!("{name} in\n{text}")).to_owned()
}

fn number(client: &mut Connection, name: &str) -> u64 {
    field(client, name).parse().unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Waits until the save or rewrite under way, and what is scheduled behind it, is over.
fn wait_until_saved(server: &Server) {
    let mut client = server.connect();
    server.wait_until("nothing is saved any more", || {
        let fields = ["rdb_bgsave_in_progress", "aof_rewrite_in_progress", "aof_rewrite_scheduled"];
        fields.into_iter().all(|name| number(&mut client, name) == 0)
    });
}

/// Sets so many keys, each to a value of `length` bytes that begins with its number and repeats `version`.
fn fill(client: &mut Connection, keys: std::ops::Range<usize>, length: usize, version: usize) {
    for chunk in keys.collect::<Vec<_>>().chunks(1000) {
        let mut requests = Vec::new();
        for &number in chunk {
            resp::encode_request(
                &["SET".to_owned(), format!("key:{number}"), value(number, length, version)],
                &mut requests,
            );
        }
        let replies = client.exchange(&requests, chunk.len()).expect("the server answers");
        assert!(replies.iter().all(|reply| reply.is_status("OK")), "{:?}", replies[0]);
    }
}

fn value(number: usize, length: usize, version: usize) -> String {
    let mut value = format!("{number}:");
    while value.len() < length {
        value.push_str(&format!("{version} "));
    }
    value.truncate(length);
    value
}

/// The values of so many keys.
fn values(client: &mut Connection, keys: std::ops::Range<usize>) -> Vec<Option<Vec<u8>>> {
    let mut values = Vec::new();
    for chunk in keys.collect::<Vec<_>>().chunks(1000) {
        let mut requests = Vec::new();
        for number in chunk {
            resp::encode_request(&["GET".to_owned(), format!("key:{number}")], &mut requests);
        }
        let replies = client.exchange(&requests, chunk.len()).expect("the server answers");
        values.extend(replies.iter().map(|reply| reply.bytes().map(<[u8]>::to_vec)));
    }
    values
}

/// Asserts that so many keys have the values that [`fill`] gave them.
#[track_caller]
fn expect_filled(client: &mut Connection, keys: std::ops::Range<usize>, length: usize, version: usize) {
    for (number, found) in keys.clone().zip(values(client, keys)) {
        assert_eq!(found.as_deref(), Some(value(number, length, version).as_bytes()), "key:{number}");
    }
}

/// Runs `write` over and over in threads of their own, numbered, on a connection each, while `then` runs.
fn beside<T>(
    server: &Server,
    threads: usize,
    write: impl Fn(usize, u64, &mut Connection) + Sync,
    then: impl FnOnce() -> T,
) -> T {
    let is_over = AtomicBool::new(false);
    /// Ends the threads even when `then` panics.
    struct End<'a>(&'a AtomicBool);
    impl Drop for End<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (write, is_over) = (&write, &is_over);
            let mut client = server.connect();
            scope.spawn(move || {
                let mut round = 0;
                while !is_over.load(Ordering::Relaxed) {
                    round += 1;
                    write(thread, round, &mut client);
                }
            });
        }
        let _end = End(&is_over);
        then()
    })
}

/// Names of files in the folder of the journal that end so.
fn journal_files(data: &TemporaryDirectory, suffix: &str) -> Vec<String> {
    let entries = fs::read_dir(data.path().join("appendonlydir")).expect("the folder is there");
    let names = entries.map(|entry| entry.expect("the folder can be listed").file_name());
    names.map(|name| name.to_string_lossy().into_owned()).filter(|name| name.ends_with(suffix)).collect()
}

/// Ends a server as a crash of its process does.
fn kill(server: Server) {
    server.signal(libc::SIGKILL);
    let (status, _directory) = server.wait_for_exit();
    assert!(!status.success());
}

fn integer(reply: &Reply) -> i64 {
    match reply {
        Reply::Null(_) => 0,
        reply => {
            let text = String::from_utf8_lossy(reply.bytes().expect("a string"));
            text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
        }
    }
}
