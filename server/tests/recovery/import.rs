//! Beginning with a `dump.rdb` of Redis.

use super::*;

/// Fills a real Redis and lets it save a new `dump.rdb` in `data`; returns what it holds.
fn dump(data: &TemporaryDirectory, extra: &[&str]) -> Vec<Content> {
    // Redis would load an earlier one, which may not be there.
    let _ = fs::remove_file(data.path().join("dump.rdb"));
    let directory = data.path().to_str().expect("the path is made here");
    let redis = ServerOptions::redis().option("dir", &[directory]).start();
    let mut client = redis.connect();
    fill(&mut client, 0..2000, 30);
    let long = "compressible ".repeat(1000);
    for arguments in [
        &["SET", "long", &long][..],
        &["MSET", "i8", "-7", "i16", "12345", "i32", "-1234567890", "i64", "1234567890123", "empty", ""],
        &["SET", "volatile", "here", "PXAT", "4000000000123"],
        &["SET", "soon", "gone", "PX", "1"],
        &["SELECT", "7"],
        &["MSET", "\u{0}binary\r\n", "\u{1}", "other", "database"],
    ] {
        assert!(client.call(arguments).is_status("OK"), "{arguments:?}");
    }
    for line in extra {
        assert!(!client.words(line).is_error(), "{line}");
    }
    assert!(client.words("SELECT 0").is_status("OK"));
    assert!(client.words("SAVE").is_status("OK"));
    redis.wait_until("the key expires", || redis.connect().words("GET soon").is_null());
    content(&redis)
}

/// Duva without a journal in `data`.
fn without_journal(data: &TemporaryDirectory, cores: usize) -> ServerOptions {
    options(data, cores).option("appendonly", &["no"])
}

#[test]
fn a_dump_of_redis_is_imported_for_good() {
    let data = TemporaryDirectory::new();
    let expected = dump(&data, &[]);
    let server = options(&data, 2).start();
    assert_eq!(content(&server), expected);
    assert!(server.connect().words("SET later 1").is_status("OK"));
    fs::remove_file(data.path().join("dump.rdb")).expect("the file is there");
    kill(server);
    for cores in [1, 3] {
        let server = options(&data, cores).start();
        assert_eq!(server.connect().words("GETDEL later").bytes(), Some(&b"1"[..]));
        assert_eq!(content(&server), expected, "{cores} cores");
        assert!(server.connect().words("SET later 1").is_status("OK"));
        kill(server);
    }
}

#[test]
fn a_journal_counts_more_than_a_dump() {
    let data = TemporaryDirectory::new();
    let server = options(&data, 1).start();
    assert!(server.connect().words("SET journalled 1").is_status("OK"));
    let before = content(&server);
    kill(server);
    dump(&data, &[]);
    assert_eq!(content(&options(&data, 1).start()), before);
}

#[test]
fn an_import_that_was_killed_begins_again() {
    let data = TemporaryDirectory::new();
    let expected = dump(&data, &[]);
    kill(options(&data, 2).start());
    // As it was before the manifest: snapshots of some shards, and nothing else.
    let again = TemporaryDirectory::new();
    fs::create_dir(folder(&again)).expect("the directory is ours");
    let snapshots = files(&folder(&data), |name| name.ends_with(".snapshot.rdb"));
    assert!(snapshots.len() > 32, "most shards have keys");
    for path in snapshots.iter().step_by(3) {
        copy(path, &folder(&again).join(path.file_name().expect("a file has a name")));
    }
    let said = refusal(&again, &[]);
    assert!(said.contains("has snapshots but no manifest"), "{said}");
    copy(&data.path().join("dump.rdb"), &again.path().join("dump.rdb"));
    let server = options(&again, 1).start();
    assert_eq!(content(&server), expected);
}

#[test]
fn a_missing_snapshot_is_refused_and_so_is_a_damaged_one() {
    let data = TemporaryDirectory::new();
    dump(&data, &[]);
    let server = options(&data, 1).start();
    fill(&mut server.connect(), 0..2000, 10);
    kill(server);
    let snapshots = files(&folder(&data), |name| name.ends_with(".snapshot.rdb"));
    let path = &snapshots[0];
    let name = path.file_name().and_then(|name| name.to_str()).expect("the server named it");
    let whole = fs::read(path).expect("the file is there");
    edit(path, |bytes| bytes[300] ^= 1);
    let said = refusal(&data, &[]);
    assert!(said.contains(name), "{said}");
    fs::remove_file(path).expect("the file is there");
    let said = refusal(&data, &[]);
    assert!(said.contains(&format!("{name} is missing")), "{said}");
    // Another shard's in its place.
    copy(&snapshots[1], path);
    let said = refusal(&data, &[]);
    assert!(said.contains(name) && said.contains("renamed"), "{said}");
    fs::write(path, whole).expect("the file is ours");
    let server = options(&data, 1).start();
    assert!(filled(&mut server.connect(), 0..2000, 10).into_iter().all(|is_there| is_there));
}

#[test]
fn without_a_journal_the_dump_is_loaded_and_the_journal_left_alone() {
    let data = TemporaryDirectory::new();
    let expected = dump(&data, &[]);
    for cores in [1, 3] {
        let server = without_journal(&data, cores).start();
        assert_eq!(content(&server), expected, "{cores} cores");
        assert!(!folder(&data).exists());
        server.connect().words("SET not kept");
        kill(server);
    }
    let journalled = options(&data, 1).start();
    assert!(journalled.connect().words("SET journalled 1").is_status("OK"));
    kill(journalled);
    let server = without_journal(&data, 1).start();
    assert_eq!(content(&server), expected);
    assert!(server.log().contains("is ignored because appendonly is no"), "{}", server.log());
}

#[test]
fn a_dump_that_cannot_be_loaded_is_refused_by_file_and_place() {
    let data = TemporaryDirectory::new();
    dump(&data, &["RPUSH the-list a b c"]);
    let path = data.path().join("dump.rdb");
    let shown = path.to_str().expect("the path is made here");
    for more in [&[][..], &["--appendonly", "no"]] {
        let said = refusal(&data, more);
        assert!(said.contains(shown) && said.contains("list") && said.contains("the-list"), "{said}");
    }
    assert!(!folder(&data).join("manifest").exists());
    // The file is looked at again, so what is put right is loaded.
    let expected = dump(&data, &[]);
    let whole = fs::read(&path).expect("the file is there");
    for (what, bytes) in [
        ("the end is missing", whole[..whole.len() / 2].to_vec()),
        ("no RDB", b"hello, world".to_vec()),
        ("checksum", {
            let mut bytes = whole.clone();
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
            bytes
        }),
    ] {
        fs::write(&path, bytes).expect("the file is ours");
        let said = refusal(&data, &[]);
        assert!(said.contains(shown) && said.contains(what), "{what}: {said}");
    }
    fs::write(&path, whole).expect("the file is ours");
    assert_eq!(content(&options(&data, 2).start()), expected);
}
