//! RDB streams: what Redis wrote is read, and written again byte for byte; whatever else is fed does no harm.
//!
//! `golden/generate.py` has made the golden files with a Redis 7.0.15.

#[path = "../fuzz/rdb_check.rs"]
mod rdb_check;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use duva_engine::rdb::{self, Checksum, Fault, Item, RdbError, RdbOptions, ReadError, Reader, Visitor};
use duva_engine::{Hasher, Shard, Value};
use proptest::prelude::*;
use rdb_check::{Entry, Event, cut, read, write};

fn golden(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name).with_extension("rdb");
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The entries of a golden file, by database and key.
fn entries(name: &str) -> BTreeMap<(u8, Vec<u8>), Entry> {
    let (events, end) = read([&golden(name)[..]]);
    assert_eq!(end, Ok(()), "{name}");
    let entries: Vec<_> = events.into_iter().filter_map(Event::into_entry).collect();
    let count = entries.len();
    let map: BTreeMap<_, _> =
        entries.into_iter().map(|entry| ((entry.database, entry.key.clone()), entry)).collect();
    assert_eq!(map.len(), count, "{name} has a key twice");
    map
}

#[test]
fn strings_of_redis_are_read() {
    let mut expected = BTreeMap::new();
    let mut expect = |database: u8, key: &[u8], value: &[u8], deadline_ms: Option<u64>| {
        expected.insert((database, key.to_vec()), (value.to_vec(), deadline_ms));
    };
    let powers = [i64::from(i8::MAX), i16::MAX.into(), i32::MAX.into()];
    for number in [0, 1, -1, i64::MAX, i64::MIN]
        .into_iter()
        .chain(powers.into_iter().flat_map(|power| [power, power + 1, -power - 1, -power - 2]))
    {
        expect(0, format!("int:{number}").as_bytes(), number.to_string().as_bytes(), None);
    }
    for text in ["007", "-0", "+1", " 1", "1.5", "99999999999999999999"] {
        expect(0, format!("text:{text}").as_bytes(), text.as_bytes(), None);
    }
    let all_bytes: Vec<u8> = (0..=255).collect();
    let words: Vec<_> =
        (0..300).map(|number| format!("word {} of a long text;", number * number % 97)).collect();
    expect(0, b"12345", b"an integer for a key", None);
    expect(0, b"", b"an empty key", None);
    expect(0, b"empty", b"", None);
    expect(0, b"\x00\xff\r\n", &all_bytes, None);
    expect(0, format!("key:{}", "k".repeat(300)).as_bytes(), b"a long key", None);
    expect(1, b"expires:far", b"v", Some(4_102_444_800_123));
    expect(1, b"expires:latest", b"5", Some((1 << 48) - 1));
    expect(15, b"20", &[b'x'; 20], None);
    expect(15, b"21", &[b'x'; 21], None);
    expect(15, b"1000", &[b'x'; 1000], None);
    expect(15, b"words", words.join(" ").as_bytes(), None);
    expect(15, b"20000", "0123456789abcdef".repeat(1250).as_bytes(), None);
    expect(15, b"expires:compressed", "abc".repeat(100).as_bytes(), Some(4_102_444_800_000));
    let found: BTreeMap<_, _> = entries("strings")
        .into_iter()
        .map(|(place, entry)| {
            assert_eq!((entry.idle_seconds, entry.frequency), (None, None));
            (place, (entry.value, entry.deadline_ms))
        })
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn what_redis_wrote_is_written_again_byte_for_byte() {
    let expected = golden("strings");
    let (events, _) = read([&expected[..]]);
    let (aux, content): (Vec<_>, Vec<_>) =
        events.into_iter().partition(|event| matches!(event, Event::Aux(..)));
    let aux: Vec<_> = aux
        .iter()
        .map(|event| match event {
            Event::Aux(name, value) => (str::from_utf8(name).expect("a name"), &value[..]),
            _ => unreachable!("partitioned above"),
        })
        .collect();
    let names: Vec<_> = aux.iter().map(|&(name, _)| name).collect();
    assert_eq!(names, ["redis-ver", "redis-bits", "ctime", "used-mem", "aof-base"]);
    let mut stream = Vec::new();
    rdb::write_header(&mut stream, &aux);
    for event in content {
        match event {
            Event::Aux(..) => unreachable!("partitioned above"),
            Event::Resize(database, keys, expiring) => {
                rdb::write_select(&mut stream, database);
                rdb::write_resize(&mut stream, keys, expiring);
            }
            Event::Entry(entry) => {
                let value = Value::String(&entry.value);
                let options = RdbOptions { compress: true };
                rdb::write_entry(&mut stream, &entry.key, value, entry.deadline_ms, options);
            }
        }
    }
    rdb::write_end(&mut stream);
    let checksum = Checksum::of(&stream);
    stream.extend_from_slice(&checksum.to_le_bytes());
    assert!(stream == expected, "{}\n\n{}", stream.escape_ascii(), expected.escape_ascii());
}

#[test]
fn what_redis_says_of_accesses_is_read() {
    let entry = |key: &str, deadline_ms, idle_seconds, frequency| Entry {
        key: key.into(),
        value: b"v".into(),
        deadline_ms,
        idle_seconds,
        frequency,
        ..Entry::default()
    };
    for (file, idle_seconds, frequency) in [("idle", Some(1000), None), ("frequency", None, Some(200))] {
        let expected = [
            entry("expires", Some(4_102_444_800_000), idle_seconds, frequency),
            entry("old", None, idle_seconds, frequency),
        ];
        assert_eq!(entries(file).into_values().collect::<Vec<_>>(), expected, "{file}");
    }
}

#[test]
fn a_file_without_keys_is_read() {
    let (events, end) = read([&golden("empty")[..]]);
    assert_eq!(end, Ok(()));
    assert!(events.iter().all(|event| matches!(event, Event::Aux(..))), "{events:?}");
    assert!(events.contains(&Event::Aux(b"redis-ver".into(), b"7.0.15".into())));
}

#[test]
fn other_types_are_refused_by_name_and_key() {
    for (file, expected) in [
        ("list", "this server cannot hold a list: 'a list'"),
        ("set", "this server cannot hold a set: 'a set'"),
        ("sorted_set", "this server cannot hold a sorted set: 'a sorted set'"),
        ("hash", "this server cannot hold a hash: 'a hash'"),
        ("stream", "this server cannot hold a stream: 'a stream'"),
        ("function", "this server cannot hold a function library: '#!lua name=library\\nredis."),
    ] {
        let (_, end) = read(cut(&golden(file), 1));
        let text = end.expect_err(file).to_string();
        assert!(text.starts_with(expected) && text.contains(" (at byte "), "{file}: {text}");
    }
}

#[test]
fn every_version_up_to_twelve_is_read() {
    let stream = golden("strings");
    for version in 0..=14 {
        let mut stream = stream[..stream.len() - 8].to_vec();
        stream[5..9].copy_from_slice(format!("{version:04}").as_bytes());
        if version >= 5 {
            let checksum = Checksum::of(&stream);
            stream.extend_from_slice(&checksum.to_le_bytes());
        }
        let (events, end) = read([&stream[..]]);
        if (1..=12).contains(&version) {
            assert_eq!(end, Ok(()), "{version}");
            assert_eq!(events.into_iter().filter_map(Event::into_entry).count(), 36);
        } else {
            assert_eq!(end, Err(RdbError { offset: 0, fault: Fault::Version(version) }));
        }
    }
}

#[test]
fn records_of_later_and_earlier_versions_are_read() {
    let records: &[&[u8]] = &[
        b"REDIS0003",
        b"\xf4\x40\x80\x05\x01",
        b"\xfd\x10\x00\x00\x00",
        b"\x00\x01a\x01b",
        b"\xfd\xff\xff\xff\xff",
        b"\x00\x01c\x01d",
        b"\xfc\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x00\x01e\x01f",
        b"\xfc\xfe\xff\xff\xff\xff\xff\xff\xff",
        b"\x00\x01g\x01h",
        b"\xff",
    ];
    let (events, end) = read([&records.concat()[..]]);
    assert_eq!(end, Ok(()));
    let deadlines: Vec<_> =
        events.into_iter().filter_map(Event::into_entry).map(|entry| entry.deadline_ms).collect();
    assert_eq!(deadlines, [Some(16_000), Some(0), None, Some(0)]);
}

#[test]
fn streams_end_once_and_whole() {
    let stream = golden("strings");
    for end in 0..stream.len() {
        let (_, result) = read([&stream[..end]]);
        assert_eq!(result.map_err(|error| error.fault), Err(Fault::Truncated), "{end}");
    }
    let mut longer = stream.clone();
    longer.push(b'\n');
    let (_, result) = read([&longer[..]]);
    assert_eq!(result, Err(RdbError { offset: stream.len() as u64, fault: Fault::Trailing }));

    let mut unchecked = stream.clone();
    let checksum_at = unchecked.len() - 8;
    unchecked[checksum_at..].fill(0);
    assert_eq!(read([&unchecked[..]]).1, Ok(()));
    unchecked[checksum_at] = 1;
    let stored = u64::from_le_bytes(*stream.last_chunk().expect("a checksum"));
    let fault = Fault::Checksum { stored: 1, computed: stored };
    assert_eq!(read([&unchecked[..]]).1, Err(RdbError { offset: checksum_at as u64, fault }));
}

#[test]
fn any_changed_bit_is_noticed() {
    let stream = golden("strings");
    for bit in 0..stream.len() * 8 {
        let mut damaged = stream.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(read([&damaged[..]]).1.is_err(), "bit {bit}");
    }
}

#[test]
fn errors_say_where_and_what() {
    let text = |records: &[u8]| {
        let stream = [b"REDIS0010", records].concat();
        read([&stream[..]]).1.expect_err("damaged").to_string()
    };
    assert_eq!(text(b"\x00\x01k\xc4"), "string encoding 4 is unknown (at byte 9)");
    assert_eq!(
        text(b"\xfe\x01\xfe\x10"),
        "database 16 does not exist; this server has databases 0 to 15 (at byte 11)"
    );
    assert_eq!(text(b"\xf0"), "opcode 240 is unknown (at byte 9)");
    assert_eq!(text(b"\x40\x02\x00k"), "value type 64 of key '\\x00k' is unknown (at byte 9)");
    assert_eq!(text(b"\xfe\x82"), "no length begins with byte 0x82 (at byte 9)");
    assert_eq!(text(b"\x00\xc3\x02\x05\x00kx"), "a compressed string is damaged (at byte 9)");
    assert_eq!(text(b"\x00"), "the end is missing (at byte 9)");
    assert_eq!(read([&b"HELLO"[..]]).1.map_err(|error| error.fault), Err(Fault::NotRdb));
    let long = [&b"\x01\x41\x00"[..], &[b'k'; 256]].concat();
    assert_eq!(text(&long), format!("this server cannot hold a list: '{}...' (at byte 9)", "k".repeat(128)));
}

#[test]
fn inputs_kept_from_fuzzing_pass() {
    for (target, check) in
        [("rdb", rdb_check::check_stream as fn(&[u8])), ("restore", rdb_check::check_payload)]
    {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
        let mut count = 0;
        for file in fs::read_dir(&corpus).unwrap_or_else(|error| panic!("{}: {error}", corpus.display())) {
            check(&fs::read(file.unwrap().path()).unwrap());
            count += 1;
        }
        assert!(count >= 20, "{count} inputs in {}", corpus.display());
    }
}

/// A visitor that refuses its second entry.
#[derive(Default)]
struct Once(u32);

impl Visitor for Once {
    type Error = &'static str;

    fn entry(&mut self, _: Item<'_>) -> Result<(), &'static str> {
        self.0 += 1;
        if self.0 > 1 { Err("enough") } else { Ok(()) }
    }
}

#[test]
fn a_visitor_can_end_the_reading() {
    let mut reader = Reader::new();
    let mut visitor = Once::default();
    let stream = golden("strings");
    assert_eq!(reader.feed(&stream, &mut visitor), Err(ReadError::Visitor("enough")));
    let again = reader.feed(&stream, &mut visitor);
    assert!(matches!(again, Err(ReadError::Rdb(RdbError { fault: Fault::Failed, .. }))));
    assert_eq!(reader.finish().map_err(|error| error.fault), Err(Fault::Failed));
    assert_eq!(visitor.0, 2);
}

struct Load {
    shard: Shard,
    hasher: Hasher,
}

const NOW_MS: u64 = 1_800_000_000_000;

impl Visitor for Load {
    type Error = std::convert::Infallible;

    fn entry(&mut self, item: Item<'_>) -> Result<(), Self::Error> {
        let key = self.hasher.key(item.key);
        item.store(&mut self.shard, key, NOW_MS);
        Ok(())
    }
}

#[test]
fn entries_are_stored_as_they_were_written() {
    for file in ["strings", "idle", "frequency"] {
        let hasher = Hasher::new(7);
        let mut load = Load { shard: Shard::new(0..16_384, hasher.clone()), hasher };
        let mut reader = Reader::new();
        for piece in cut(&golden(file), 3) {
            reader.feed(piece, &mut load).expect("a golden file");
        }
        reader.finish().expect("a whole file");
        let expected = entries(file);
        let Load { mut shard, hasher } = load;
        let stored: usize = (0..16).map(|database| shard.key_count(database)).sum();
        assert_eq!(stored, expected.len());
        for entry in expected.values() {
            let key = hasher.key(&entry.key);
            let found = shard.get(entry.database, &entry.key, key, NOW_MS).expect("stored");
            assert_eq!(found.value(), Value::String(&entry.value));
            assert_eq!(found.deadline_ms(), entry.deadline_ms);
            assert_eq!(found.idle_seconds(NOW_MS), entry.idle_seconds.unwrap_or(0));
        }
    }
}

#[test]
fn large_strings_come_whole() {
    let noise = |length: usize| {
        let mut state = 1_u64;
        (0..length).map(move |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
    };
    let entry = |key: &str, value: Vec<u8>| Entry { key: key.into(), value, ..Entry::default() };
    let entries: Vec<_> = [16_383, 16_384, 16_385, 65_535, 65_536, 65_537, 300_000]
        .into_iter()
        .flat_map(|length| {
            let mut text: Vec<u8> = noise(length).map(|byte| byte & 3).collect();
            text[length / 2..].fill(b'x');
            [
                entry(&format!("noise:{length}"), noise(length).collect()),
                Entry { database: 3, deadline_ms: Some(NOW_MS), ..entry(&"text:".repeat(20), text) },
            ]
        })
        .collect();
    for compress in [false, true] {
        rdb_check::check_round_trip(&entries, compress);
        let stream = write(&entries, compress);
        for length in [1, 1000, 65_536, 1 << 20] {
            let (events, end) = read(stream.chunks(length));
            assert_eq!(end, Ok(()));
            assert!(events.into_iter().filter_map(Event::into_entry).eq(entries.iter().cloned()), "{length}");
        }
    }
}

/// Strings of all forms: numbers, repetitive ones, and any bytes.
fn string() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        any::<i64>().prop_map(|number| number.to_string().into_bytes()),
        (any::<i64>(), 0..64_u32).prop_map(|(number, bits)| (number >> bits).to_string().into_bytes()),
        prop::collection::vec(any::<u8>(), 0..80),
        (prop::collection::vec(97..100_u8, 0..40), 0..30_usize).prop_map(|(part, times)| part.repeat(times)),
    ]
}

fn entry() -> impl Strategy<Value = Entry> {
    (0..16_u8, string(), string(), prop::option::of(0..i64::MAX as u64)).prop_map(
        |(database, key, value, deadline_ms)| Entry { database, key, value, deadline_ms, ..Entry::default() },
    )
}

proptest! {
    #[test]
    fn entries_come_back(entries in prop::collection::vec(entry(), 0..20), seed: u64) {
        for compress in [false, true] {
            rdb_check::check_round_trip(&entries, compress);
            rdb_check::check_whole_stream(&write(&entries, compress), seed);
        }
    }

    #[test]
    fn damaged_streams_are_read_like_the_model_says(
        entries in prop::collection::vec(entry(), 0..6),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        seed: u64,
    ) {
        let mut stream = write(&entries, true);
        for (place, byte) in damage {
            let place = place.index(stream.len());
            stream[place] = byte;
        }
        rdb_check::check_whole_stream(&stream, seed);
    }

    #[test]
    fn any_records_are_read_like_the_model_says(
        records in prop::collection::vec(record(), 0..12),
        choice: u8,
    ) {
        rdb_check::check_stream(&[&[choice], &records.concat()[..]].concat());
    }

    #[test]
    fn any_payload_is_restored_like_the_model_says(version in 0..14_u8, kind in 0..3_u8, content in string_form()) {
        rdb_check::check_payload(&[&[version, kind], &content[..]].concat());
    }
}

/// Something like a string's form in a stream.
fn string_form() -> impl Strategy<Value = Vec<u8>> {
    let lzf_part = prop_oneof![
        prop::collection::vec(any::<u8>(), 1..33).prop_map(|run| [&[run.len() as u8 - 1], &run[..]].concat()),
        (1..7_u8, 0..4_u8).prop_map(|(length, distance)| vec![length << 5, distance]),
        (0..=255_u8, 0..40_u8).prop_map(|(length, distance)| vec![0xE0, length, distance]),
    ];
    let compressed = (prop::collection::vec(lzf_part, 0..4), 0..300_u16, any::<bool>()).prop_map(
        |(parts, length, is_right)| {
            let compressed = parts.concat();
            let decompressed: usize = parts.iter().map(|part| lzf_length(part)).sum();
            let length = if is_right { decompressed as u16 } else { length };
            let mut form =
                vec![0xC3, compressed.len() as u8 & 0x3F, 0x40 | (length >> 8) as u8 & 0x3F, length as u8];
            form.extend(compressed);
            form
        },
    );
    prop_oneof![
        (0xC0..0xC5_u8, any::<u32>())
            .prop_map(|(encoding, number)| { [&[encoding], &number.to_le_bytes()[..]].concat() }),
        prop::collection::vec(any::<u8>(), 0..64)
            .prop_map(|bytes| [&[bytes.len() as u8], &bytes[..]].concat()),
        compressed,
        prop::collection::vec(any::<u8>(), 0..6),
    ]
}

/// How many bytes a part of compressed bytes stands for.
fn lzf_length(part: &[u8]) -> usize {
    match part[0] {
        control @ 0..32 => usize::from(control) + 1,
        0xE0.. => usize::from(part[1]) + 9,
        control => usize::from(control >> 5) + 2,
    }
}

/// Something like a record.
fn record() -> impl Strategy<Value = Vec<u8>> {
    let opcode = prop_oneof![Just(0), 0..30_u8, 240..=255_u8];
    prop_oneof![
        3 => (string_form(), string_form()).prop_map(|(key, value)| [&[0], &key[..], &value].concat()),
        1 => (string_form(), string_form()).prop_map(|(key, value)| [&[0xFA], &key[..], &value].concat()),
        1 => (opcode, prop::collection::vec(any::<u8>(), 0..9)).prop_map(|(opcode, rest)| {
            [&[opcode], &rest[..]].concat()
        }),
    ]
}
