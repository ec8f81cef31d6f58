//! Bytes that nobody wrote: an error or a tail, never a panic, and never anything that is not there.

#[path = "../fuzz/journal_check.rs"]
mod journal_check;
mod reader;

use std::{collections::BTreeMap, fs, path::Path};

use duva_persist::{
    format::{Kind, Position, ShardState, record_flag},
    journal::{Fragments, Journal, JournalOptions, SEGMENT_BYTES_MIN},
    manifest::{Cut, Manifest, Start},
    names,
    record::Record,
};
use journal_check::{
    Folder, check_directory, check_file, check_folder, check_manifest, check_manifest_file, check_records,
    journal_recipe::{set, sign},
};
use proptest::prelude::*;
use reader::{Disk, read_segment, sync_all};

const OPTIONS: JournalOptions = JournalOptions {
    core: 0,
    epoch: 1,
    segment_len: SEGMENT_BYTES_MIN,
    cluster: *b"a cluster's name",
    node: *b"the node's name.",
    kernel_boot: *b"the kernel's id.",
};

fn log(kind: Kind, shard: u16, index: u64) -> Record {
    Record { index, term: 1, timestamp_ms: 1_000 + index, seed: index * 31, ..Record::new(kind, shard) }
}

fn append(journal: &mut Journal, record: Record, payload: &[u8]) {
    journal.append(&record, |buffer| buffer.extend_from_slice(payload));
}

/// The journal's files up to their ends, and where it ends.
fn finish(folder: &mut Folder, mut journal: Journal, mut disk: Disk, core: u16) -> Position {
    journal.close_block(9);
    disk.drain(&mut journal, 9);
    for (sequence, mut bytes) in disk.files {
        bytes.truncate(read_segment(&bytes).end);
        folder.files.insert(names::segment(core, sequence), bytes);
    }
    journal.appended_to()
}

/// What a server of two cores leaves after its second start, with some of everything.
fn two_lives() -> Folder {
    let manifest = Manifest {
        cluster: OPTIONS.cluster,
        node: OPTIONS.node,
        kernel_boot: OPTIONS.kernel_boot,
        hash_seed: 0x0123_4567_89AB_CDEF,
        hash_algorithm: 1,
        shards: 4,
        epoch: 2,
        must_not_vote: false,
        starts: vec![Start { core: 0, sequence: 3 }, Start { core: 1, sequence: 1 }],
        cuts: Vec::new(),
        truncations: Vec::new(),
    };
    let mut folder = Folder { files: BTreeMap::new(), manifest };
    let state = |shard: u16| ShardState { shard: shard.into(), ..ShardState::default() };
    let begin = |options, sequence, states| {
        let mut disk = Disk::new(SEGMENT_BYTES_MIN as usize);
        let mut journal = Journal::new(options, sequence, states);
        disk.apply(&journal.begin(1));
        (journal, disk)
    };
    let transaction = 7_u64.to_le_bytes();
    let committed = [&transaction[..], &[1]].concat();
    let grouped = |record: Record| Record { flags: record_flag::GROUP, ..record };

    let (mut journal, mut disk) = begin(OPTIONS, 1, vec![state(0), state(1)]);
    append(&mut journal, log(Kind::Entry, 0, 1), b"a");
    append(&mut journal, log(Kind::Prepare, 1, 1), &[&transaction[..], b"part"].concat());
    append(&mut journal, grouped(log(Kind::Entry, 0, 2)), b"b");
    append(&mut journal, log(Kind::Tick, 0, 3), b"");
    journal.close_block(2);
    disk.drain(&mut journal, 2);
    sync_all(&mut journal);
    let mut fragments = Fragments::begin(&mut journal, 0);
    fragments.push(&mut journal, b"one ");
    append(&mut journal, Record { term: 2, ..Record::new(Kind::HardState, 0) }, &1_u64.to_le_bytes());
    journal.roll(3);
    fragments.finish(&mut journal, &log(Kind::Entry, 0, 4), b"two");
    append(&mut journal, log(Kind::SnapshotMark, 0, 1), b"");
    let states = journal.states().to_vec();
    let end = finish(&mut folder, journal, disk, 0);
    folder.manifest.cuts.push(Cut { epoch: 1, core: 0, end });
    folder.files.insert(names::snapshot(0, 1), Vec::new());

    // The shards have changed places.
    let (mut journal, disk) = begin(JournalOptions { epoch: 2, ..OPTIONS }, 3, vec![states[1], state(2)]);
    append(&mut journal, log(Kind::Finish, 1, 2), &committed);
    append(&mut journal, log(Kind::Membership, 2, 1), b"voters");
    finish(&mut folder, journal, disk, 0);
    let options = JournalOptions { epoch: 2, core: 1, ..OPTIONS };
    let (mut journal, mut disk) = begin(options, 1, vec![states[0], state(3)]);
    append(&mut journal, log(Kind::Decision, 0, 5), &committed);
    append(&mut journal, log(Kind::Entry, 0, 6), b"again");
    journal.close_block(4);
    disk.drain(&mut journal, 4);
    append(&mut journal, Record { term: 2, ..log(Kind::Entry, 0, 5) }, b"instead");
    finish(&mut folder, journal, disk, 1);
    folder
}

/// One of the directory's segment files.
fn file(folder: &mut Folder, number: usize) -> &mut Vec<u8> {
    let files = folder.files.values_mut().filter(|bytes| !bytes.is_empty());
    let mut files: Vec<_> = files.collect();
    let number = number % files.len();
    files.swap_remove(number)
}

fn sign_all(folder: &mut Folder) {
    folder.files.values_mut().for_each(|bytes| sign(bytes));
}

#[test]
fn what_was_written_is_recovered() {
    let mut folder = two_lives();
    assert_eq!(folder.files.len(), 5);
    assert!(check_folder(&folder));
    let before = folder.files.clone();
    sign_all(&mut folder);
    assert!(folder.files == before, "signing changes nothing");
    for (name, bytes) in &before {
        check_file(bytes, names::parse_segment(name).unwrap_or_default());
    }
    check_manifest_file(&folder.manifest.encode());
}

#[test]
fn journals_cut_anywhere_are_recovered_or_refused() {
    let whole = two_lives();
    let mut recovered = 0;
    for number in 0..4 {
        let len = file(&mut whole.clone(), number).len();
        for len in (0..len).step_by(8) {
            let mut folder = whole.clone();
            file(&mut folder, number).truncate(len);
            recovered += u32::from(check_folder(&folder));
        }
    }
    assert!(recovered > 10, "{recovered}");
}

#[test]
fn inputs_kept_from_fuzzing_pass() {
    type Check = fn(&[u8]);
    let targets: [(&str, Check); 3] =
        [("record", check_records), ("segment", check_directory), ("manifest", check_manifest)];
    for (target, check) in targets {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
        let mut count = 0;
        for file in fs::read_dir(&corpus).unwrap_or_else(|error| panic!("{}: {error}", corpus.display())) {
            check(&fs::read(file.unwrap().path()).unwrap());
            count += 1;
        }
        assert!(count >= 15, "{count} inputs in {}", corpus.display());
    }
}

fn likely_number() -> impl Strategy<Value = u64> {
    prop_oneof![0..9_u64, Just(u64::MAX), Just(u64::MAX - 1), Just(1 << 32), any::<u64>()]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn changed_bytes_do_no_harm(
        changes in prop::collection::vec((0..4_usize, any::<prop::sample::Index>(), any::<u8>()), 1..6),
        signed: bool,
    ) {
        let mut folder = two_lives();
        for (number, place, byte) in changes {
            let bytes = file(&mut folder, number);
            let at = place.index(bytes.len());
            bytes[at] = byte;
        }
        if signed {
            sign_all(&mut folder);
        }
        check_folder(&folder);
    }

    #[test]
    fn changed_numbers_do_no_harm(
        changes in prop::collection::vec((0..4_usize, any::<prop::sample::Index>(), 0..4_u32, likely_number()), 1..4),
    ) {
        let mut folder = two_lives();
        for (number, place, width, value) in changes {
            let bytes = file(&mut folder, number);
            let len = 1 << width;
            let at = place.index(bytes.len() / len) * len;
            set(bytes, at, len, value);
        }
        sign_all(&mut folder);
        check_folder(&folder);
    }

    #[test]
    fn moved_and_missing_files_do_no_harm(
        moves in prop::collection::vec((any::<prop::sample::Index>(), 0..3_u16, 0..6_u32), 1..4),
    ) {
        let mut folder = two_lives();
        for (place, core, sequence) in moves {
            let name = folder.files.keys().nth(place.index(folder.files.len())).unwrap().clone();
            let bytes = folder.files.remove(&name).unwrap();
            if sequence > 0 {
                folder.files.insert(names::segment(core, sequence), bytes);
            }
            if folder.files.is_empty() {
                break;
            }
        }
        check_folder(&folder);
    }

    #[test]
    fn any_directory_is_recovered_like_the_model_says(recipe in prop::collection::vec(any::<u8>(), 0..120)) {
        check_directory(&recipe);
    }

    #[test]
    fn changed_files_are_read_like_the_model_says(
        number in 0..4_usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), 0..4_u32, likely_number()), 0..4),
        choice: u8,
    ) {
        let mut folder = two_lives();
        let bytes = file(&mut folder, number);
        for (place, width, value) in changes {
            let len = 1 << width;
            let at = place.index(bytes.len() / len) * len;
            set(bytes, at, len, value);
        }
        check_records(&[&[choice & 0x0F], &bytes[..]].concat());
    }

    #[test]
    fn any_manifest_is_read_like_the_model_says(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        choice: u8,
    ) {
        check_manifest(&[&[choice], &bytes[..]].concat());
    }

    #[test]
    fn changed_manifests_are_read_like_the_model_says(
        changes in prop::collection::vec((any::<prop::sample::Index>(), likely_number()), 0..4),
        choice in 0..16_u8,
    ) {
        let mut bytes = two_lives().manifest.encode();
        for (place, value) in changes {
            let at = place.index(bytes.len() / 4) * 4;
            set(&mut bytes, at, 4, value);
        }
        check_manifest(&[&[choice], &bytes[..]].concat());
    }
}
