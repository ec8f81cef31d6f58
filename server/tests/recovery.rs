//! Starting on a data directory: what was acknowledged is there again, and what cannot be right is refused by name.
//!
//! Servers are killed without warning and started again on the same directory, with other numbers of cores.

mod support;

#[path = "recovery/damage.rs"]
mod damage;
#[path = "recovery/import.rs"]
mod import;
#[path = "recovery/restart.rs"]
mod restart;

use std::fs;
use std::path::{Path, PathBuf};

use support::connection::Connection;
use support::process::{Server, ServerOptions, TemporaryDirectory, run_to_its_end};
use support::resp::{self, Reply};

/// A server with a journal in `data`, of small segments.
fn options(data: &TemporaryDirectory, cores: usize) -> ServerOptions {
    let directory = data.path().to_str().expect("the path is made here");
    ServerOptions::duva(cores)
        .option("appendonly", &["yes"])
        .option("segment-size", &["1mb"])
        .option("dir", &[directory])
}

/// Starts a server that must refuse `data`; returns what it said.
fn refusal(data: &TemporaryDirectory, more: &[&str]) -> String {
    let directory = data.path().to_str().expect("the path is made here");
    let arguments = [
        "--cores",
        "2",
        "--port",
        "0",
        "--unixsocket",
        "socket",
        "--segment-size",
        "1mb",
        "--dir",
        directory,
    ];
    let (status, said) = run_to_its_end(&[&arguments, more].concat());
    assert_eq!(status.code(), Some(1), "{said}");
    let sentence = said.lines().find_map(|line| line.strip_prefix("duva-server: "));
    sentence.unwrap_or_else(|| panic!("it said {said}")).to_owned()
}

/// Ends a server as a crash of its process does.
fn kill(server: Server) {
    server.signal(libc::SIGKILL);
    let (status, _directory) = server.wait_for_exit();
    assert!(!status.success());
}

/// The folder with the journal.
fn folder(data: &TemporaryDirectory) -> PathBuf {
    data.path().join("appendonlydir")
}

/// The segments of a core, oldest first.
fn segments(data: &TemporaryDirectory, core: usize) -> Vec<PathBuf> {
    let prefix = format!("{core}-");
    files(&folder(data), |name| name.starts_with(&prefix) && name.ends_with(".segment"))
}

/// The files of a folder whose names are wanted, in order.
fn files(folder: &Path, is_wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("the folder is there");
    let mut found: Vec<PathBuf> = entries
        .map(|entry| entry.expect("the folder can be listed").path())
        .filter(|path| is_wanted(&path.file_name().expect("a file has a name").to_string_lossy()))
        .collect();
    found.sort();
    found
}

/// A key, its value, and when it expires.
type Content = Vec<(Vec<u8>, Reply, Reply)>;

/// Everything in all databases.
fn content(server: &Server) -> Vec<Content> {
    let mut client = server.connect();
    (0..16).map(|database| content_of(&mut client, database)).collect()
}

fn content_of(client: &mut Connection, database: usize) -> Content {
    assert!(client.words(&format!("SELECT {database}")).is_status("OK"));
    let reply = client.words("KEYS *");
    let mut keys: Vec<Vec<u8>> = reply
        .items()
        .expect("KEYS answers with an array")
        .iter()
        .map(|key| key.bytes().expect("a key is a string").to_vec())
        .collect();
    keys.sort();
    let size = client.words("DBSIZE").integer().expect("DBSIZE answers with a number");
    assert_eq!(keys.len() as i64, size, "all keys are live");
    let mut requests = Vec::new();
    for key in &keys {
        resp::encode_request(&[b"GET", &key[..]], &mut requests);
        resp::encode_request(&[b"PEXPIRETIME", &key[..]], &mut requests);
    }
    let replies = client.exchange(&requests, 2 * keys.len()).expect("the server answers");
    let pairs = replies.chunks_exact(2);
    keys.into_iter().zip(pairs).map(|(key, pair)| (key, pair[0].clone(), pair[1].clone())).collect()
}

/// Sets so many keys, each to a value of `length` bytes that says which it is.
fn fill(client: &mut Connection, keys: std::ops::Range<usize>, length: usize) {
    let count = keys.len();
    let mut requests = Vec::new();
    for number in keys {
        let value = format!("{number:0length$}");
        resp::encode_request(&["SET", &format!("key:{number}"), &value], &mut requests);
    }
    let replies = client.exchange(&requests, count).expect("the server answers");
    assert!(replies.iter().all(|reply| reply.is_status("OK")));
}

/// How many of the keys that [`fill`] set have the value that it gave them; none may have another one.
fn filled(client: &mut Connection, keys: std::ops::Range<usize>, length: usize) -> Vec<bool> {
    let mut requests = Vec::new();
    for number in keys.clone() {
        resp::encode_request(&["GET", &format!("key:{number}")], &mut requests);
    }
    let replies = client.exchange(&requests, keys.len()).expect("the server answers");
    let is_there = |(number, reply): (usize, Reply)| match reply {
        Reply::Null(_) => false,
        reply => {
            assert_eq!(reply.bytes(), Some(format!("{number:0length$}").as_bytes()), "key:{number}");
            true
        }
    };
    keys.zip(replies).map(is_there).collect()
}

/// Copies a file.
fn copy(from: &Path, to: &Path) {
    fs::copy(from, to).unwrap_or_else(|error| panic!("{} to {}: {error}", from.display(), to.display()));
}

/// Changes a file's bytes.
fn edit(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).expect("the file is there");
    change(&mut bytes);
    fs::write(path, bytes).expect("the file is ours");
}
