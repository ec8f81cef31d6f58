//! `duva-tools journal` on directories that the journal's own writer made, sound and damaged.

#[path = "journal/data.rs"]
mod data;

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
};

use data::{Data, FIRST_RECORD, Writer, command, full, half_synced, key, run, snapshot};
use duva_persist::{
    format::{Kind, Position, record_flag},
    manifest::Cut,
    names,
};

fn assert_lines(output: &str, wanted: &[&str]) {
    for line in wanted {
        assert!(output.lines().any(|there| there.contains(line)), "{line:?} is not in:\n{output}");
    }
}

#[test]
fn list_shows_manifest_segments_and_snapshots() {
    let data = Data::new();
    full(&data);
    fs::write(data.file("evil\n\x1b[31m"), "").unwrap();
    let listed = data.told("list", &[]);
    assert_lines(
        &listed,
        &[
            "manifest epoch 1, 4 shards, hash 1 with seed 0x0000000000000007",
            "node abababababababababababababababab",
            "snapshot shard 1 index 1: ",
            ", 1 keys, of 2024-03-01T00:00:00.001Z",
            "other evil\\n\\u{1b}[31m",
        ],
    );
    let row = |name: &str| {
        let line = listed.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().collect::<Vec<_>>()
    };
    let first = row("0-0000000001.segment");
    assert_eq!(first[1..5], ["0", "1", "1", "1048576"]);
    assert_eq!(first[8..], ["2024-03-01T00:00:00.001Z", "2024-03-01T00:00:00.001Z", "sealed"]);
    let second = row("0-0000000002.segment");
    assert_eq!(second[10..], ["open"]);
    let sum = |column: usize| -> u64 {
        [&first, &second].iter().map(|row| row[column].parse::<u64>().unwrap()).sum()
    };
    // Eight records, a mark, and a payload in eight pieces.
    assert_eq!(sum(7), 17, "{listed}");
    assert!(sum(5) > 1_500_000 && sum(5) < 1_510_000, "{listed}");
    assert_eq!(row("0-0000000003.segment")[10..], ["spare"]);
}

#[test]
fn dump_tells_every_kind_of_record() {
    let data = Data::new();
    full(&data);
    let dumped = data.told("dump", &["--width", "40"]);
    let (first, second) = (key(0), key(1));
    assert_lines(
        &dumped,
        &[
            "# 0-0000000001.segment: epoch 1, opened 2024-03-01T00:00:00.001Z",
            &format!(
                r#"0/1:{FIRST_RECORD} shard 0 index 1 Entry 2024-03-01T00:00:00.001Z - db 0 "set" "{first}" "a\n\"b\" \x1b""#
            ),
            "shard 0 index 2 Tick 2024-03-01T00:00:00.001Z -",
            &format!(r#"shard 0 index 3 Entry 2024-03-01T00:00:00.001Z group db 0 "mset" "{first}" "1""#),
            &format!(r#"shard 1 index 1 Entry 2024-03-01T00:00:00.001Z - db 0 "mset" "{second}" "2""#),
            &format!(
                r#"index 1 Prepare 2024-03-01T00:00:00.001Z - transaction 0x0000000000001234 db 0 "del" "{}""#,
                key(2)
            ),
            "index 2 Decision 2024-03-01T00:00:00.001Z - transaction 0x0000000000001234 commit",
            "index 3 Finish 2024-03-01T00:00:00.001Z - transaction 0x0000000000001234 commit",
            "shard 3 index 0 HardState - - term 3 vote 9",
            "shard 1 index 1 SnapshotMark - - snapshot of term 0 is durable",
            "shard 3 index 0 Fragment - - 6 of stream ",
            "shard 3 index 1 Entry 2024-03-01T00:00:00.001Z fragmented db 0 \"set\" ",
        ],
    );
    let large = dumped.lines().find(|line| line.contains("fragmented")).unwrap();
    let (head, cut) = large.split_once("\"... ").expect("the value is cut");
    let shown = head.len() - head.trim_end_matches('x').len();
    assert_eq!(cut, format!("{} more bytes", 1_500_000 - shown));
    assert!(large.len() < 160, "{large}");
}

#[test]
fn dump_selects_by_shard_core_place_and_number() {
    let data = Data::new();
    full(&data);
    let records = |more: &[&str]| -> Vec<String> {
        let dumped = data.told("dump", more);
        dumped.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    };
    let all = records(&[]);
    assert_eq!(all.len(), 17);
    let of_shard: Vec<_> = all.iter().filter(|line| line.contains(" shard 2 ")).cloned().collect();
    assert_eq!((records(&["--shard", "2"]), of_shard.len()), (of_shard, 3));
    assert_eq!(records(&["--limit", "5"]), all[..5]);
    assert_eq!(records(&["--core", "0"]), all);
    assert_eq!(records(&["--core", "1"]), [""; 0]);
    let place = |line: &str| line.split(['/', ' ']).nth(1).unwrap().to_owned();
    assert_eq!(records(&["--from", &place(&all[3])]), all[3..]);
    assert_eq!(records(&["--from", &place(&all[3]), "--limit", "2"]), all[3..5]);
    // The large payload began in a segment that is not read now.
    let late = records(&["--from", "2:0"]);
    assert!(late.last().unwrap().contains("fragments are not at hand"), "{late:?}");
}

#[test]
fn stat_counts_by_kind_shard_command_and_size() {
    let data = Data::new();
    full(&data);
    let counted = data.told("stat", &[]);
    let rows: Vec<Vec<&str>> = counted.lines().map(|line| line.split_whitespace().collect()).collect();
    let count = |name: &str, count: &str| {
        assert!(
            rows.iter().any(|row| row[0] == name && row.get(1) == Some(&count)),
            "{name} {count}:\n{counted}"
        );
    };
    for (name, records) in [
        ("Entry", "4"),
        ("Fragment", "7"),
        ("Prepare", "1"),
        ("Tick", "1"),
        ("HardState", "1"),
        ("SnapshotMark", "1"),
        ("set", "2"),
        ("mset", "2"),
        ("del", "1"),
        ("0", "3"),
        ("2", "3"),
    ] {
        count(name, records);
    }
    let large_bytes = command(&[b"set", key(3).as_bytes(), &[b'x'; 1_500_000]]).len();
    let small_bytes = command(&[b"set", key(0).as_bytes(), b"a\n\"b\" \x1b"]).len();
    assert_lines(&counted, &["1048576 to 2097151", "write amplification 1.00"]);
    let set = rows.iter().find(|row| row[0] == "set").unwrap();
    assert_eq!(set[2], (large_bytes + small_bytes).to_string());
}

#[test]
fn a_sound_directory_is_sound_under_either_name() {
    let data = Data::new();
    full(&data);
    let told = data.told("verify", &[]);
    assert_lines(
        &told,
        &["core 0 of epoch 1: 2 segments, ends at 2:", "snapshots: 1 sound, 1 keys", "sound"],
    );
    // All entries but the one that the snapshot covers; the prepared part counts where it is finished.
    assert_lines(&told, &["entries to apply: 5"]);
    let inner = data.0.join("appendonlydir");
    assert_eq!(run(&["journal", "verify", inner.to_str().unwrap()]).1, told);
    fs::rename(&inner, data.0.join("other")).unwrap();
    let renamed = run(&["journal", "verify", data.0.to_str().unwrap(), "--appenddirname", "other"]);
    assert_eq!(renamed.0, 0, "{}", renamed.2);
}

#[test]
fn damage_of_what_was_durable_is_told_by_file_and_offset() {
    let data = Data::new();
    let places = half_synced(&data);
    data.edit("0-0000000001.segment", |bytes| bytes[places[1]] ^= 1);
    let (status, told, _) = data.run("verify", &[]);
    assert_eq!(status, 1, "{told}");
    // The second block begins at the next multiple of 64 behind the first.
    let offset = told
        .split("0-0000000001.segment is damaged at offset ")
        .nth(1)
        .and_then(|rest| rest.split(':').next());
    let offset: usize = offset.expect("the place is named").parse().unwrap();
    assert!((places[0]..places[1]).contains(&offset), "{told}");
    assert_lines(
        &told,
        &[
            "DAMAGED: 0-0000000001.segment is damaged at offset ",
            &format!(
                "with --recover truncate would be lost: everything of core 0 from 0-0000000001.segment, offset {offset}"
            ),
            &format!("  0-0000000001.segment from offset {offset} on"),
        ],
    );
    let dumped = data.told("dump", &[]);
    assert_lines(
        &dumped,
        &[
            &format!("# 0/1:{offset} a record does not match its checksum; the next sound block begins at "),
            "value 5",
        ],
    );
    assert!(!dumped.contains("value 1"), "{dumped}");
    assert_lines(&data.told("list", &[]), &[&format!("at {offset} a record does not match its checksum")]);
    assert_lines(&data.told("stat", &[]), &["places that are not sound: 1"]);
}

#[test]
fn a_torn_tail_is_sound_and_what_lies_behind_it_is_counted() {
    let data = Data::new();
    let places = half_synced(&data);
    data.edit("0-0000000001.segment", |bytes| bytes[places[4]] ^= 1);
    let told = data.told("verify", &[]);
    assert_lines(
        &told,
        &["behind that 1 sound blocks, 1 sound records, which a start drops", "entries to apply: 4", "sound"],
    );
    data.edit("0-0000000001.segment", |bytes| bytes[places[5]] ^= 1);
    assert!(data.told("verify", &[]).contains("behind that 1 sound blocks, 0 sound records"));
}

#[test]
fn what_lies_behind_a_recorded_end_is_shown_as_dropped() {
    let data = Data::new();
    let places = half_synced(&data);
    // A block and a record begin 112 bytes before their payload at least.
    let block = (places[4] - 112) / 64 * 64;
    let end = Position::new(1, block as u32);
    data.write_manifest(|manifest| {
        manifest.epoch = 2;
        manifest.cuts = vec![Cut { epoch: 1, core: 0, end }];
    });
    assert_lines(
        &data.told("list", &[]),
        &[&format!("core 0 of epoch 1 ends at 1:{block}"), &format!("dropped from {block} on")],
    );
    let dumped = data.told("dump", &[]);
    let (kept, dropped) = dumped.split_once("the journal ends here").expect("the end is shown");
    assert!(kept.contains("value 3") && dropped.contains("value 4"), "{dumped}");
    assert_lines(&data.told("stat", &[]), &["records 4, ", "not counted: 2 records"]);
    assert_lines(
        &data.told("verify", &[]),
        &[
            &format!("ends at 1:{block}, as the manifest says"),
            "behind that 2 sound blocks, 2 sound records",
            "entries to apply: 4",
        ],
    );
}

#[test]
fn a_damaged_or_renamed_snapshot_is_told() {
    let data = Data::new();
    full(&data);
    let name = names::snapshot(1, 1);
    let sound = fs::read(data.file(&name)).unwrap();
    let refused = |bytes: &[u8], what: &str| {
        fs::write(data.file(&name), bytes).unwrap();
        let (status, told, _) = data.run("verify", &[]);
        assert_eq!(status, 1, "{told}");
        assert_lines(&told, &[&format!("DAMAGED: {name} cannot be loaded: "), what]);
        assert_lines(&data.told("list", &[]), &["snapshot shard 1 index 1: damaged: ", what]);
    };
    let mut flipped = sound.clone();
    let at = flipped.len() - 10;
    flipped[at] ^= 1;
    refused(&flipped, "the checksum is 0x");
    refused(&sound[..sound.len() - 1], "the end is missing");
    refused(&snapshot(2, 1, b"v"), "it is the snapshot of shard 2 at index 1, not the one in its name");
    fs::remove_file(data.file(&name)).unwrap();
    let (status, told, _) = data.run("verify", &[]);
    assert_eq!(status, 1);
    assert_lines(&told, &[&format!("DAMAGED: {name} is missing")]);
}

#[test]
fn an_entry_that_cannot_be_applied_is_told() {
    let data = Data::new();
    let mut writer = Writer::new(&data);
    writer.append(Kind::Entry, 0, 0, &command(&[b"get", key(0).as_bytes()]));
    writer.append(Kind::Entry, 1, 0, b"\x00\xff\xff\xff\xff\xff");
    writer.append(Kind::Entry, 2, 0, &command(&[b"set", key(3).as_bytes(), b"v"]));
    writer.close_synced();
    let (status, told, _) = data.run("verify", &[]);
    assert_eq!(status, 1);
    assert_lines(&told, &["DAMAGED: entry 1 of shard 0 cannot be applied: it is no write"]);
    assert_lines(
        &data.told("dump", &[]),
        &["shard 1 index 1 Entry", "6 bytes that are no command: it ends early"],
    );
    assert_lines(&data.told("stat", &[]), &["(no command)"]);
}

/// The checksums fit, but what the records say cannot be.
#[test]
fn records_that_say_nonsense_are_told() {
    let data = Data::new();
    let mut writer = Writer::new(&data);
    writer.append(Kind::Entry, 0, 0, &[]);
    writer.append(Kind::Prepare, 1, 0, b"short");
    writer.append(Kind::Finish, 2, 0, &[7; 9]);
    let mut announced = [0xFF; 24];
    announced[..8].fill(1);
    writer.append(Kind::Entry, 3, record_flag::FRAGMENTED, &announced);
    writer.close_synced();
    let (status, told, _) = data.run("verify", &[]);
    assert_eq!(status, 1, "{told}");
    assert_lines(&told, &["is damaged at offset ", "a prepared part names no transaction"]);
    assert_lines(
        &data.told("dump", &[]),
        &[
            "Entry 2024-03-01T00:00:00.001Z - 0 bytes that are no command",
            "no transaction 0 bytes that are no command",
            "transaction 0x0707070707070707 neither commit nor abort",
            "18446744073709551615 bytes, of which fragments are not at hand",
        ],
    );
    assert_lines(&data.told("stat", &[]), &["(fragments missing)", "(no command)"]);
}

#[test]
fn a_directory_without_a_sound_manifest_is_told() {
    let data = Data::new();
    half_synced(&data);
    data.edit(names::MANIFEST, |bytes| bytes[30] ^= 1);
    let (status, told, _) = data.run("verify", &[]);
    assert_eq!(status, 1);
    assert_lines(&told, &["DAMAGED: manifest: the manifest is damaged"]);
    assert_lines(&data.told("list", &[]), &["manifest damaged: ", "0-0000000001.segment"]);
    assert_lines(&data.told("dump", &[]), &["where journals end is not known", "value 5"]);
    fs::remove_file(data.file(names::MANIFEST)).unwrap();
    let (status, told, _) = data.run("verify", &[]);
    assert_eq!(status, 1);
    assert_lines(&told, &["DAMAGED: the manifest is missing"]);
    assert_lines(&data.told("list", &[]), &["manifest missing"]);
}

#[test]
fn what_cannot_be_read_and_wrong_arguments_have_status_2() {
    let data = Data::new();
    let (status, _, errors) = data.run("verify", &[]);
    assert_eq!(status, 2);
    assert!(errors.contains("holds no journal"), "{errors}");
    half_synced(&data);
    let directory = data.0.to_str().unwrap().to_owned();
    for arguments in [
        &[][..],
        &["journal"],
        &["journal", "list"],
        &["journal", "list", "/no/such/directory"],
        &["journal", "mend", &directory],
        &["journal", "dump", &directory, "--from", "1"],
        &["journal", "dump", &directory, "--shard", "65536"],
    ] {
        let (status, output, errors) = run(arguments);
        assert_eq!((status, &*output), (2, ""), "{arguments:?}");
        assert!(!errors.is_empty(), "{arguments:?}");
    }
    fs::create_dir(data.file("0-0000000002.segment.d")).unwrap();
    let segment = data.file("0-0000000009.segment");
    fs::create_dir(&segment).unwrap();
    for subcommand in ["list", "verify", "dump", "stat"] {
        let (status, _, errors) = data.run(subcommand, &[]);
        assert_eq!(status, 2, "{subcommand}");
        assert!(errors.contains("0-0000000009.segment cannot be read: it is no regular file"), "{errors}");
    }
}

#[test]
fn a_running_server_is_noticed_and_does_not_stop_the_reading() {
    let data = Data::new();
    half_synced(&data);
    let mut lock = File::create(data.file(names::LOCK)).unwrap();
    writeln!(lock, "4711").unwrap();
    assert!(data.told("verify", &[]).contains("sound"), "a file alone is no lock");
    lock.lock().unwrap();
    for subcommand in ["list", "verify", "dump", "stat"] {
        let (status, output, errors) = data.run(subcommand, &[]);
        assert_eq!(status, 0, "{errors}");
        assert!(errors.contains("a running server (process 4711) uses "), "{errors}");
        assert!(!output.is_empty());
    }
}

/// Whatever the bytes are, the answer is a status of its own, never a panic (101) or a signal.
#[test]
fn hostile_bytes_never_panic() {
    let data = Data::new();
    full(&data);
    let whole = data.content();
    // A generator of 64-bit numbers is enough to damage files: xorshift.
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below.max(1) as u64) as usize
    };
    let mut damaged = 0;
    for _ in 0..24 {
        for (path, bytes) in &whole {
            fs::write(path, bytes).unwrap();
        }
        let paths: Vec<&PathBuf> = whole.keys().collect();
        let path: &Path = paths[random(paths.len())];
        let mut bytes = whole[path].clone();
        match random(3) {
            0 => {
                let len = random(bytes.len());
                bytes.truncate(len);
            }
            1 => {
                // Headers lie at the beginning.
                for _ in 0..8 {
                    let at = random(bytes.len().min(2048));
                    bytes[at] = random(256) as u8;
                }
            }
            _ => {
                let at = random(bytes.len());
                let end = (at + random(10_000)).min(bytes.len());
                bytes[at..end].fill(random(256) as u8);
            }
        }
        fs::write(path, &bytes).unwrap();
        for subcommand in ["list", "verify", "dump", "stat"] {
            let (status, output, errors) = data.run(subcommand, &[]);
            assert!((0..=2).contains(&status), "{subcommand} after {}: {status} {errors}", path.display());
            let printable = output.chars().all(|letter| letter == '\n' || !letter.is_control());
            assert!(printable, "{subcommand} prints control characters");
            damaged += u32::from(subcommand == "verify" && status == 1);
        }
    }
    assert!(damaged > 0, "no damage was noticed");
}
