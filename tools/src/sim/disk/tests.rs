//! The simulated disk beside a real one, and what crashes leave.

use std::{env, fs, process};

use duva_net::{
    files::Storage,
    io::{Digest, Io, Wait},
    ring::{Ring, RingOptions, WakeHandle},
};

use super::{
    task::{BAD_DESCRIPTOR, EXISTS, NO_ENTRY},
    *,
};

/// A checksum for a test: the bytes' count and sum.
#[derive(Debug, Default)]
struct CountAndSum(u32, u32);

impl Digest for CountAndSum {
    fn update(&mut self, bytes: &[u8]) {
        self.0 += bytes.len() as u32;
        self.1 += bytes.iter().copied().map(u32::from).sum::<u32>();
    }

    fn value(&self) -> [u8; 8] {
        (u64::from(self.0) << 32 | u64::from(self.1)).to_be_bytes()
    }
}

/// Tasks that succeed and fail in every way that this disk knows, with the names under `base`. Those that make whole files
/// and the others have names and numbers of their own, because they do not wait for each other.
fn tasks(base: &Path) -> Vec<FileTask> {
    let path = |name: &str| base.join(name);
    let prepare = |file, name, length_bytes, recycle: Option<&str>| FileTask::Prepare {
        file: File(file),
        path: path(name),
        length_bytes,
        recycle: recycle.map(path),
        is_written: true,
    };
    let create = |file, name| FileTask::Create { file: File(file), path: path(name), digest: None };
    let discard = |file, name| FileTask::Discard { file: File(file), path: path(name) };
    let append = |file, bytes: &str| FileTask::Append { file: File(file), bytes: bytes.into() };
    let publish = |file, from, to| FileTask::Publish { file: File(file), from: path(from), to: path(to) };
    let replace = |name, bytes: &str| FileTask::Replace { path: path(name), bytes: bytes.into() };
    let read =
        |name, offset_bytes, length_bytes| FileTask::Read { path: path(name), offset_bytes, length_bytes };
    let remove = |names: &[&str]| FileTask::Remove { paths: names.iter().map(|name| path(name)).collect() };
    vec![
        prepare(0, "a", 100, None),
        prepare(1, "a", 100, None),
        prepare(1, "b", 200, Some("missing")),
        replace("old", "what was there"),
        prepare(1, "b", 20, Some("old")),
        replace("old", "what was there"),
        prepare(2, "c", 8, Some("old")),
        create(3, "d.part"),
        append(3, "one "),
        append(3, "two"),
        append(4, "nowhere"),
        publish(4, "d.part", "d"),
        create(5, "d"),
        append(5, "replaced"),
        discard(5, "missing"),
        publish(3, "d.part", "d"),
        append(3, "closed"),
        create(3, "e.tmp"),
        append(3, "begun anew"),
        discard(3, "missing"),
        create(3, "e.tmp"),
        append(3, "shorter"),
        create(4, "f.tmp"),
        discard(4, "f.tmp"),
        discard(5, "missing"),
        FileTask::Create { file: File(4), path: path("g.tmp"), digest: Some(Box::<CountAndSum>::default()) },
        append(4, "sum"),
        append(4, "med"),
        publish(4, "g.tmp", "g"),
        create(4, "h"),
        discard(4, "missing"),
        remove(&["h", "missing"]),
        FileTask::Close { file: File(6) },
        FileTask::Close { file: File(2) },
        prepare(2, "i", 5, None),
        FileTask::Close { file: File(2) },
        prepare(2, "i", 9, Some("i")),
        prepare(7, "nothing", 9, Some("nothing")),
        read("d", 0, 100),
        read("g", 3, 3),
        read("d", 7, 1),
        read("d", 8, 1),
        read("missing", 0, 1),
    ]
}

/// How a task ended, and what it brought.
type End = (u64, Result<(), i32>, Vec<u8>);

/// How every task ended, and the files that there are then.
type Outcome = (Vec<End>, BTreeMap<PathBuf, Vec<u8>>);

/// Sorts the ends by the tasks' numbers: threads answer when they like.
fn in_order(mut ends: Vec<End>) -> Vec<End> {
    ends.sort_unstable();
    ends
}

fn simulated(base: &Path) -> Outcome {
    let (mut disk, mut files, mut ready) = (Disk::default(), CoreFiles::default(), VecDeque::new());
    for (number, task) in (0..).zip(tasks(base)) {
        // Later tasks would end earlier, by themselves.
        files.give(number, task, 1000 - number);
    }
    while let Some(next_ns) = files.next_ns() {
        files.advance(&mut disk, next_ns, &mut ready);
    }
    files.write(File(0), b"written", 96);
    let ends = ready.into_iter().map(|event| match event {
        Event::FileDone { ticket, result, buffer } => (ticket, result, buffer),
        other => panic!("{other:?}"),
    });
    let contents = disk.names.into_iter().map(|(path, content)| (path, content.borrow().shown().to_vec()));
    (in_order(ends.collect()), contents.collect())
}

fn real(base: &Path) -> Outcome {
    fs::create_dir(base).expect("the directory is new");
    let wake = WakeHandle::new().expect("there is a descriptor");
    let mut ring = Ring::new(RingOptions {
        submission_entries: 8,
        completion_entries: 64,
        buffer_count: 2,
        buffer_size_bytes: 4096,
        listeners: Vec::new(),
        storage: Storage::start(0, wake.clone()).expect("there is a thread"),
        wake,
        worker_cpus: None,
    })
    .expect("there is a ring");
    let tasks = tasks(base);
    let count = tasks.len();
    for (number, task) in (0..).zip(tasks) {
        ring.file_task(number, task);
    }
    let mut ends = Vec::new();
    while ends.len() < count {
        ring.turn(Wait::Block { events: 1, timeout: None });
        while let Some(event) = ring.next_event() {
            if let Event::FileDone { ticket, result, buffer } = event {
                ends.push((ticket, result, buffer));
            }
        }
    }
    assert_eq!(ring.write_file(File(0), b"written", 96), Ok(()));
    let contents = fs::read_dir(base)
        .expect("the directory is there")
        .map(|entry| entry.expect("it can be read").path())
        .map(|path| (path.clone(), fs::read(path).expect("it can be read")))
        .collect();
    fs::remove_dir_all(base).expect("it can be removed");
    (in_order(ends), contents)
}

#[test]
fn the_simulated_disk_does_what_a_real_one_does() {
    let base = env::temp_dir().join(format!("duva-sim-disk-{}", process::id()));
    let (expected, expected_files) = real(&base);
    let (ends, files) = simulated(&base);
    assert_eq!(ends, expected);
    assert_eq!(files, expected_files);
    let names: Vec<_> = files.keys().filter_map(|path| path.file_name()?.to_str()).collect();
    assert_eq!(names, ["a", "b", "c", "d", "e.tmp", "g", "i"]);
    assert_eq!(files[&base.join("d")], b"one two");
    assert_eq!(files[&base.join("b")], b"what was there\0\0\0\0\0\0");
    assert_eq!(files[&base.join("i")].len(), 9);
    assert_eq!(files[&base.join("g")], b"summed\0\0\0\x06\0\0\x02\x8b");
    let read: Vec<_> = ends.iter().filter(|(_, _, bytes)| !bytes.is_empty()).map(|end| &end.2[..]).collect();
    assert_eq!(read, [b"one two", &b"med"[..]]);
    let failed: Vec<_> =
        ends.iter().filter_map(|&(ticket, result, _)| Some((ticket, result.err()?))).collect();
    assert_eq!(
        failed,
        [
            (1, EXISTS),
            (2, NO_ENTRY),
            (10, BAD_DESCRIPTOR),
            (11, BAD_DESCRIPTOR),
            (16, BAD_DESCRIPTOR),
            (37, NO_ENTRY),
            (42, NO_ENTRY)
        ]
    );
}

#[test]
fn a_sync_ends_in_its_time() {
    let (mut disk, mut files, mut ready) = (Disk::default(), CoreFiles::default(), VecDeque::new());
    let (file, path) = (File(0), PathBuf::from("a"));
    files.give(
        0,
        FileTask::Prepare { file, path: path.clone(), length_bytes: 4, recycle: None, is_written: true },
        10,
    );
    files.advance(&mut disk, 9, &mut ready);
    assert!(ready.is_empty());
    files.advance(&mut disk, 10, &mut ready);
    assert!(matches!(ready.pop_front(), Some(Event::FileDone { ticket: 0, result: Ok(()), .. })));
    files.begin_sync(1, file, 30, false);
    files.write(file, b"wxyz", 2);
    files.begin_sync(2, file, 20, false);
    assert_eq!(files.next_ns(), Some(20));
    files.advance(&mut disk, 20, &mut ready);
    assert!(matches!(ready.pop_front(), Some(Event::Synced { ticket: 2, result: Ok(()) })));
    assert_eq!(disk.names[&path].borrow().shown(), b"\0\0wxyz");
    files.advance(&mut disk, 30, &mut ready);
    assert!(matches!(ready.pop_front(), Some(Event::Synced { ticket: 1, result: Ok(()) })));
    assert_eq!((files.next_ns(), ready.len()), (None, 0));
}
