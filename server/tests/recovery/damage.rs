//! Damaged and mixed-up directories.

use super::*;

/// Bytes of the values that fill several segments.
const VALUE_BYTES: usize = 1000;

/// A directory with several synced segments of core 0, of a server of one core.
fn filled_directory() -> TemporaryDirectory {
    let data = TemporaryDirectory::new();
    let server = options(&data, 1).option("appendfsync", &["always"]).start();
    fill(&mut server.connect(), 0..4000, VALUE_BYTES);
    kill(server);
    assert!(segments(&data, 0).len() > 3);
    data
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).expect("the name is made by the server")
}

#[test]
fn a_flipped_byte_is_refused_by_file_and_offset_and_truncated_on_demand() {
    let data = filled_directory();
    let damaged = segments(&data, 0)[1].clone();
    edit(&damaged, |bytes| bytes[500_000] ^= 1);
    let found = fs::read(&damaged).expect("the file is there");
    let said = refusal(&data, &[]);
    assert!(said.contains(&format!("{} is damaged at offset ", name(&damaged))), "{said}");
    assert!(said.contains("--recover truncate"), "{said}");
    let text = said.split("is damaged at offset ").nth(1).and_then(|rest| rest.split(':').next());
    let offset: usize = text.and_then(|digits| digits.parse().ok()).expect("an offset");
    assert!((400_000..=500_000).contains(&offset), "{said}");
    assert_eq!(refusal(&data, &[]), said, "a refusal changes nothing");

    let server = options(&data, 1).option("recover", &["truncate"]).start();
    assert!(server.log().contains("data was lost"), "{}", server.log());
    let there = filled(&mut server.connect(), 0..4000, VALUE_BYTES);
    let kept = there.iter().filter(|&&is_there| is_there).count();
    assert!((1000..2000).contains(&kept), "{kept} keys");
    assert!(there.is_sorted_by(|a, b| a >= b), "the beginning is kept, and nothing behind the damage");
    let copy = folder(&data).join(format!("{}.damaged", name(&damaged)));
    assert_eq!(fs::read(copy).expect("a copy is kept"), found);
    assert!(server.connect().words("SET new value").is_status("OK"));
    let before = content(&server);
    kill(server);
    let server = options(&data, 2).start();
    assert_eq!(content(&server), before);
}

#[test]
fn a_torn_tail_is_no_damage() {
    let data = TemporaryDirectory::new();
    // Nothing is synced: power may have failed at any place.
    let server = options(&data, 1).option("appendfsync", &["no"]).start();
    fill(&mut server.connect(), 0..100, VALUE_BYTES);
    kill(server);
    let path = segments(&data, 0)[0].clone();
    let needle = format!("{:0VALUE_BYTES$}", 90);
    edit(&path, |bytes| {
        let found = bytes.windows(VALUE_BYTES).position(|window| window == needle.as_bytes());
        bytes[found.expect("the value is in the journal")] ^= 1;
    });
    let server = options(&data, 2).start();
    let there = filled(&mut server.connect(), 0..100, VALUE_BYTES);
    assert!(there.is_sorted_by(|a, b| a >= b) && !there[90], "what follows the tear is gone");
    let before = content(&server);
    assert!(server.connect().words("SET next life").is_status("OK"));
    kill(server);
    let server = options(&data, 1).start();
    assert_eq!(server.connect().words("GET next").bytes(), Some(&b"life"[..]));
    server.connect().words("DEL next");
    assert_eq!(content(&server), before);
}

#[test]
fn a_missing_segment_is_refused_by_name() {
    let data = filled_directory();
    let missing = segments(&data, 0)[1].clone();
    fs::remove_file(&missing).expect("the file is there");
    let said = refusal(&data, &[]);
    assert!(said.contains(&format!("{} is missing", name(&missing))), "{said}");
}

/// A directory as small data leaves it: one segment with everything on each core, and spares. Some of it was written by
/// a server of one core, the rest by one of two.
fn small_directory() -> TemporaryDirectory {
    let data = TemporaryDirectory::new();
    for (cores, keys) in [(1, 0..50), (2, 50..100)] {
        let server = options(&data, cores).start();
        fill(&mut server.connect(), keys, 10);
        wait_until_there_is_a_spare(&server);
        kill(server);
    }
    data
}

/// A segment is prepared beside the writes, which may be faster.
fn wait_until_there_is_a_spare(server: &Server) {
    let mut client = server.connect();
    server.wait_until("a segment is prepared", || {
        let info = client.words("INFO persistence");
        let info = String::from_utf8_lossy(info.bytes().expect("INFO answers with a text")).into_owned();
        info.lines().any(|line| line.starts_with("journal_spare_segments:") && !line.ends_with(":0"))
    });
}

/// Whether a server wrote anything to the segment.
fn is_spare(path: &Path) -> bool {
    let bytes = fs::read(path).expect("the file is there");
    !bytes.starts_with(b"DUVASEG\n")
}

#[test]
fn every_missing_segment_is_refused_however_few_there_are() {
    let data = small_directory();
    let aside = data.path().join("aside");
    let all: Vec<PathBuf> = [segments(&data, 0), segments(&data, 1)].concat();
    let (spares, needed): (Vec<_>, Vec<_>) = all.iter().partition(|path| is_spare(path));
    assert!(!spares.is_empty() && needed.len() >= 3, "{all:?}");
    for path in needed {
        fs::rename(path, &aside).expect("the file is there");
        let said = refusal(&data, &[]);
        assert!(said.contains("missing"), "{}: {said}", path.display());
        fs::rename(&aside, path).expect("the place is free");
    }
    for core in [0, 1] {
        let own = segments(&data, core);
        fs::create_dir(&aside).expect("the place is free");
        let places: Vec<_> = own.iter().map(|path| (path, aside.join(name(path)))).collect();
        places.iter().for_each(|(path, place)| fs::rename(path, place).expect("the file is there"));
        let said = refusal(&data, &[]);
        assert!(said.contains(&format!("{core}-")) && said.contains(" is missing: the manifest"), "{said}");
        places.iter().for_each(|(path, place)| fs::rename(place, path).expect("the place is free"));
        fs::remove_dir(&aside).expect("it is empty");
    }
    // Of spares nobody takes notice.
    spares.iter().for_each(|path| fs::remove_file(path).expect("the file is there"));
    let server = options(&data, 1).start();
    assert!(filled(&mut server.connect(), 0..100, 10).into_iter().all(|is_there| is_there));
}

#[test]
fn what_is_left_without_a_journal_is_served_on_demand_and_stays_so() {
    let data = small_directory();
    segments(&data, 1).iter().for_each(|path| fs::remove_file(path).expect("the file is there"));
    assert!(refusal(&data, &[]).contains("--recover truncate"));
    let server = options(&data, 2).option("recover", &["truncate"]).start();
    assert!(server.log().contains("data was lost"), "{}", server.log());
    let there = filled(&mut server.connect(), 0..100, 10);
    assert!(there[..50].iter().all(|&is_there| is_there), "what the first server had written");
    assert!(there[50..].contains(&true) && there[50..].contains(&false), "and what core 0 of the second");
    let before = content(&server);
    kill(server);
    for cores in [3, 1] {
        let server = options(&data, cores).start();
        assert_eq!(content(&server), before);
        kill(server);
    }
}

#[test]
fn a_foreign_segment_is_refused_by_name() {
    let (data, other) = (filled_directory(), filled_directory());
    let (own, foreign) = (segments(&data, 0), segments(&other, 0));
    copy(&foreign[1], &own[1]);
    let said = refusal(&data, &[]);
    assert!(said.contains(&format!("{} belongs to another cluster", name(&own[1]))), "{said}");
}

#[test]
fn a_missing_manifest_is_refused_and_so_is_a_damaged_one() {
    let data = filled_directory();
    let manifest = folder(&data).join("manifest");
    edit(&manifest, |bytes| bytes[30] ^= 1);
    let said = refusal(&data, &[]);
    assert!(said.contains(manifest.to_str().expect("the path is made here")), "{said}");
    fs::remove_file(&manifest).expect("the file is there");
    let said = refusal(&data, &[]);
    assert!(said.contains("has segments but no manifest"), "{said}");
}

#[test]
fn an_append_only_file_of_redis_is_not_passed_over() {
    let data = TemporaryDirectory::new();
    let directory = data.path().to_str().expect("the path is made here");
    let redis = ServerOptions::redis().option("appendonly", &["yes"]).option("dir", &[directory]).start();
    assert!(redis.connect().words("SET key value").is_status("OK"));
    kill(redis);
    let said = refusal(&data, &[]);
    assert!(said.contains("append-only file of Redis"), "{said}");
}

#[test]
fn what_a_killed_server_left_unfinished_is_removed() {
    let data = filled_directory();
    let left =
        ["manifest.tmp", "3-00000000000000000009.snapshot.rdb.tmp"].map(|name| folder(&data).join(name));
    for path in &left {
        fs::write(path, "half").expect("the directory is ours");
    }
    let foreign = folder(&data).join("notes.tmp");
    fs::write(&foreign, "mine").expect("the directory is ours");
    let server = options(&data, 1).start();
    assert!(left.iter().all(|path| !path.exists()));
    assert!(foreign.exists(), "what is not a server's own stays");
    assert!(filled(&mut server.connect(), 0..4000, VALUE_BYTES).into_iter().all(|is_there| is_there));
}
