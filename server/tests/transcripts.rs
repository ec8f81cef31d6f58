//! Duva answers every command as Redis does.
//!
//! Each file of `transcripts/` holds one family's commands. A test sends them to a Redis and a Duva of its
//! own and compares the replies: on one core and on two, one command at a time, in pipelines, and in
//! pipelines torn into small pieces. `support::transcript` says what a file may contain.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use support::process::ServerOptions;
use support::transcript::{Mode, Transcript};

/// One test a file, named as the file.
macro_rules! transcripts {
    ($($name:ident)*) => {
        const FILES: &[&str] = &[$(stringify!($name)),*];
        $(#[test] fn $name() { check(stringify!($name)); })*
    };
}

transcripts! {
    strings_get_set
    strings_expiring
    strings_ranges
    strings_numbers
    strings_many
    strings_lcs
    keys
    keys_copy_rename
    keys_databases
    keys_scan
    keys_object
    keys_dump
    expiry
    connection
    connection_client
    protocol
    resp3
    server
    server_config
    server_command
}

fn check(name: &str) {
    let text = fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    let mut differences = Vec::new();
    for (cores, mode) in [
        (1, Mode::Lockstep),
        (2, Mode::Lockstep),
        (1, Mode::Pipelined),
        (2, Mode::Pipelined),
        (2, Mode::Fragmented(7)),
    ] {
        let redis = ServerOptions::redis().start();
        let duva = ServerOptions::duva(cores).start();
        let found = Transcript::parse(name, &text).run(&redis, &duva, mode);
        differences.extend(found.into_iter().map(|sentence| format!("[{cores} cores] {sentence}")));
        // What one command at a time shows is easier to read than the same in every other mode.
        if !differences.is_empty() {
            break;
        }
    }
    assert!(differences.is_empty(), "{} differences\n{}", differences.len(), differences.join("\n"));
}

#[test]
fn every_file_is_run() {
    let found: BTreeSet<String> = fs::read_dir(folder())
        .expect("the folder of transcripts")
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .map(|path| path.file_stem().expect("a file name").to_string_lossy().into_owned())
        .collect();
    let listed: BTreeSet<String> = FILES.iter().map(|&name| name.to_owned()).collect();
    assert_eq!(found, listed);
}

/// What Redis has not, or not so, and other tests try: `once`, `consistency`, `topology`.
const OTHERS: [&str; 6] =
    ["ONCE", "CLIENT CONSISTENCY", "CLIENT TOKEN", "CLIENT TOPOLOGY", "SUBSCRIBE", "UNSUBSCRIBE"];

#[test]
fn every_command_the_server_lists_has_a_transcript() {
    let tried: BTreeSet<String> = FILES
        .iter()
        .flat_map(|name| {
            let text = fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
            Transcript::parse(name, &text).commands().collect::<Vec<_>>()
        })
        .flat_map(|words| {
            let first = words.split(' ').next().unwrap_or_default().to_owned();
            [words, first]
        })
        .collect();
    let duva = ServerOptions::duva(1).start();
    let listed = duva.connect().words("COMMAND LIST");
    let missing: Vec<String> = listed
        .items()
        .expect("COMMAND LIST is an array")
        .iter()
        .map(|name| String::from_utf8_lossy(name.bytes().expect("a name")).to_uppercase().replace('|', " "))
        .filter(|name| !OTHERS.contains(&name.as_str()) && !tried.contains(name))
        .collect();
    assert!(missing.is_empty(), "no transcript tries {}", missing.join(", "));
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts")
}

fn path(name: &str) -> PathBuf {
    folder().join(format!("{name}.txt"))
}
