//! A full disk: writes are refused, reads are served, and it ends by itself when there is room.

use std::iter;

use crate::support::connection::Connection;
use crate::support::process::{Server, ServerOptions};
use crate::support::random::Random;
use crate::support::small_disk::{Filler, SmallDisk};

const MIB: u64 = 1 << 20;

/// Enough for the spare segments of two cores, and a few MiB.
const DISK_BYTES: usize = 48 << 20;

/// What is left to the server once it has started.
const LEFT_BYTES: u64 = 3 * MIB;

/// Values so long that a few hundred fill what is left.
const VALUE_BYTES: usize = 20_000;

fn value(number: u64) -> Vec<u8> {
    Random::new(number).bytes(VALUE_BYTES)
}

fn set(client: &mut Connection, number: u64) -> Result<(), String> {
    let reply = client.call(&[&b"SET"[..], format!("key:{number}").as_bytes(), &value(number)]);
    if reply.is_status("OK") { Ok(()) } else { Err(reply.to_string()) }
}

fn check(server: &Server, written: &[u64], refused: &[u64]) {
    let mut client = server.connect();
    for number in written {
        let reply = client.call(&["GET", &format!("key:{number}")]);
        assert!(reply.bytes() == Some(&value(*number)[..]), "key:{number} was acknowledged");
    }
    for number in refused {
        let reply = client.call(&["GET", &format!("key:{number}")]);
        assert!(reply.is_null(), "key:{number} was refused");
    }
    assert_eq!(client.words("DBSIZE").integer(), Some(written.len() as i64));
}

#[test]
fn a_full_disk_refuses_writes_until_there_is_room() {
    let disk = match SmallDisk::mount(DISK_BYTES) {
        Ok(disk) => disk,
        Err(error) => {
            eprintln!("skipped: cannot mount a tmpfs here ({error})");
            return;
        }
    };
    for (mode, cores) in [("everysec", 1), ("always", 2), ("no", 2)] {
        let directory = disk.path().join(mode);
        std::fs::create_dir(&directory).expect("the disk has room for a directory");
        let options = ServerOptions::duva(cores)
            .journal(&directory)
            .option("appendfsync", &[mode])
            .option("segment-size", &["1mb"])
            .option("auto-aof-rewrite-percentage", &["0"]);
        let mut server = options.start();
        let (mut written, mut refused) = (Vec::new(), Vec::new());
        for (round, ends_full) in [(0, false), (1, true), (2, false)] {
            let mut filler = Some(fill(&disk, &server, round, &mut written, &mut refused));
            if !ends_full {
                filler = None;
                go_on(&server, round, &mut written, &mut refused);
            }
            server.kill();
            drop(filler);
            server = options.start();
            check(&server, &written, &refused);
        }
        drop(server);
        std::fs::remove_dir_all(&directory).expect("nobody uses it any more");
    }
}

fn first_number(round: u64) -> u64 {
    round * 100_000
}

/// Writes until the disk is full.
fn fill(
    disk: &SmallDisk,
    server: &Server,
    round: u64,
    written: &mut Vec<u64>,
    refused: &mut Vec<u64>,
) -> Filler {
    let mut client = server.connect();
    let filler = disk.fill(LEFT_BYTES);
    let before = written.len();
    let first = first_number(round);
    let mut refusal = None;
    for number in first..first + 10_000 {
        match set(&mut client, number) {
            Ok(()) => written.push(number),
            Err(error) => {
                refusal = Some((number, error));
                break;
            }
        }
    }
    let (last, error) = refusal.expect("the disk has an end");
    refused.push(last);
    assert!(error.starts_with("-MISCONF Errors writing to the AOF file: No space left on device"), "{error}");
    assert!(written.len() > before + 20, "there was room for more than {}", written.len() - before);
    // On that key's core it stays so, for every kind of write; a long value is refused as well.
    let key = format!("key:{last}");
    for arguments in [["SET", &key, "short"], ["APPEND", &key, "short"], ["GETSET", &key, "short"]] {
        let reply = client.call(&arguments);
        assert!(reply.to_string().starts_with("-MISCONF"), "{arguments:?}: {reply}");
    }
    let long = vec![b'.'; 2 << 20];
    let reply = client.call(&[&b"SET"[..], key.as_bytes(), &long]);
    assert!(reply.to_string().starts_with("-MISCONF"), "{reply}");
    assert_eq!(crate::persistence(&mut client, "aof_last_write_status"), "err");
    assert_eq!(crate::persistence(&mut client, "journal_poisoned"), "0");
    check(server, written, refused);
    filler
}

/// Writes once there is room again.
fn go_on(server: &Server, round: u64, written: &mut Vec<u64>, refused: &mut Vec<u64>) {
    let mut client = server.connect();
    let last = refused.pop().expect("a write was refused");
    // Each core finds out by itself.
    let more = first_number(round) + 50_000..first_number(round) + 50_040;
    for number in iter::once(last).chain(more) {
        server.wait_until("writes are accepted again", || set(&mut client, number).is_ok());
        written.push(number);
    }
    assert_eq!(crate::persistence(&mut client, "aof_last_write_status"), "ok");
}
