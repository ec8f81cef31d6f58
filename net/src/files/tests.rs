use std::{
    env,
    ffi::CString,
    io::Read,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
    process::{Command, id},
    sync::atomic::{AtomicU32, Ordering},
};

use super::*;
use crate::io::Digest;

/// A directory of its own for each test, removed afterwards.
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = env::temp_dir().join(format!("duva-net-{}-{number}", id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn storage() -> Storage {
    Storage::start(0, WakeHandle::new().unwrap()).unwrap()
}

impl Storage {
    /// Gives a task and waits for its answer.
    fn perform(&self, task: FileTask) -> Done {
        self.give(7, task);
        let done = self.answers.recv().unwrap();
        assert_eq!(done.ticket, 7);
        done
    }
}

const FILE: File = File(3);

fn prepare(path: PathBuf, length_bytes: u64, recycle: Option<PathBuf>) -> FileTask {
    FileTask::Prepare { file: FILE, path, length_bytes, recycle, is_written: true }
}

fn publish(directory: &Directory, from: &str, to: &str) -> FileTask {
    FileTask::Publish { file: FILE, from: directory.path(from), to: directory.path(to) }
}

fn append(bytes: &[u8]) -> FileTask {
    FileTask::Append { file: FILE, bytes: bytes.to_vec() }
}

#[test]
fn a_prepared_file_is_all_zeros_and_allocated() {
    let (directory, storage) = (Directory::new(), storage());
    let length_bytes = (2 << 20) + 12345;
    let done = storage.perform(prepare(directory.path("a"), length_bytes, None));
    assert_eq!(done.result, Ok(()));
    assert!(matches!(done.change, Change::Opened(FILE, _)));
    let content = fs::read(directory.path("a")).unwrap();
    assert_eq!(content.len() as u64, length_bytes);
    assert!(content.iter().all(|&byte| byte == 0));
    assert!(fs::metadata(directory.path("a")).unwrap().blocks() * 512 >= length_bytes);
}

#[test]
fn a_recycled_file_is_renamed_and_cut_or_extended() {
    for (old_bytes, length_bytes) in [(3 << 20, 1 << 20), (1000, 1 << 20), (4096, 4096), (0, 1)] {
        let (directory, storage) = (Directory::new(), storage());
        fs::write(directory.path("old"), vec![b'x'; old_bytes]).unwrap();
        let done =
            storage.perform(prepare(directory.path("new"), length_bytes as u64, Some(directory.path("old"))));
        assert_eq!(done.result, Ok(()));
        assert_eq!(directory.names(), ["new"]);
        let content = fs::read(directory.path("new")).unwrap();
        assert_eq!(content.len(), length_bytes);
        let kept = old_bytes.min(length_bytes);
        assert!(content[..kept].iter().all(|&byte| byte == b'x'));
        assert!(content[kept..].iter().all(|&byte| byte == 0));
    }
}

#[test]
fn a_file_that_is_there_can_be_prepared_where_it_is_and_is_never_removed() {
    let (directory, storage) = (Directory::new(), storage());
    let path = directory.path("a");
    fs::write(&path, "kept").unwrap();
    // More than any file may have; only reserved, so that the disk is not filled to find out.
    let too_long = FileTask::Prepare {
        file: FILE,
        path: path.clone(),
        length_bytes: i64::MAX as u64,
        recycle: Some(path.clone()),
        is_written: false,
    };
    assert!(storage.perform(too_long).result.is_err());
    assert!(fs::read(&path).unwrap().starts_with(b"kept"));
    fs::write(&path, "kept").unwrap();
    assert_eq!(storage.perform(prepare(path.clone(), 100, Some(path.clone()))).result, Ok(()));
    assert_eq!(fs::read(&path).unwrap(), [&b"kept"[..], &[0; 96]].concat());
    let missing = directory.path("missing");
    let done = storage.perform(prepare(missing.clone(), 100, Some(missing)));
    assert_eq!(done.result, Err(libc::ENOENT));
}

#[test]
fn preparing_overwrites_nothing() {
    let (directory, storage) = (Directory::new(), storage());
    fs::write(directory.path("a"), "kept").unwrap();
    fs::write(directory.path("old"), "old").unwrap();
    for recycle in [None, Some(directory.path("old"))] {
        let done = storage.perform(prepare(directory.path("a"), 100, recycle));
        assert_eq!(done.result, Err(libc::EEXIST));
        assert!(matches!(done.change, Change::None));
    }
    assert_eq!(fs::read(directory.path("a")).unwrap(), b"kept");
    assert_eq!(fs::read(directory.path("old")).unwrap(), b"old");
}

#[test]
fn preparing_says_why_it_failed_and_leaves_nothing() {
    let (directory, storage) = (Directory::new(), storage());
    fs::write(directory.path("plain"), "").unwrap();
    fs::create_dir(directory.path("folder")).unwrap();
    let missing = directory.path("missing");
    let attempts = [
        (directory.path("missing/a"), None, libc::ENOENT),
        (directory.path("plain/a"), None, libc::ENOTDIR),
        (directory.path("plain/a"), Some(missing.clone()), libc::ENOTDIR),
        (directory.path("a"), Some(missing), libc::ENOENT),
        (directory.path(&"n".repeat(300)), None, libc::ENAMETOOLONG),
        (directory.path("zero\0byte"), None, libc::EINVAL),
    ];
    for (path, recycle, errno) in attempts {
        let done = storage.perform(prepare(path.clone(), 100, recycle));
        assert_eq!(done.result, Err(errno), "{}", path.display());
    }
    assert_eq!(directory.names(), ["folder", "plain"]);
    // Every failure left the number free.
    assert_eq!(storage.perform(prepare(directory.path("a"), 1, None)).result, Ok(()));
}

#[test]
fn what_is_appended_is_published_as_a_whole() {
    let (directory, storage) = (Directory::new(), storage());
    fs::write(directory.path("a.tmp"), "left by an earlier start").unwrap();
    fs::write(directory.path("a"), "earlier").unwrap();
    let create = FileTask::Create { file: FILE, path: directory.path("a.tmp"), digest: None };
    assert_eq!(storage.perform(create).result, Ok(()));
    for piece in [b"one, ".as_slice(), b"two, ", b"three"] {
        let done = storage.perform(append(piece));
        assert_eq!(done.result, Ok(()));
        assert!(done.buffer.is_empty() && done.buffer.capacity() >= piece.len());
    }
    assert_eq!(fs::read(directory.path("a")).unwrap(), b"earlier");
    let done = storage.perform(publish(&directory, "a.tmp", "a"));
    assert_eq!(done.result, Ok(()));
    assert!(matches!(done.change, Change::Closed(FILE)));
    assert_eq!(directory.names(), ["a"]);
    assert_eq!(fs::read(directory.path("a")).unwrap(), b"one, two, three");
}

#[test]
fn a_failed_publish_removes_what_it_could_not_publish() {
    let (directory, storage) = (Directory::new(), storage());
    fs::create_dir(directory.path("folder")).unwrap();
    fs::write(directory.path("folder/inside"), "").unwrap();
    for (to, errno) in [("missing/a", libc::ENOENT), ("folder", libc::EISDIR)] {
        let create = FileTask::Create { file: FILE, path: directory.path("a.tmp"), digest: None };
        assert_eq!(storage.perform(create).result, Ok(()));
        assert_eq!(storage.perform(publish(&directory, "a.tmp", to)).result, Err(errno));
        assert_eq!(directory.names(), ["folder"]);
    }
    assert_eq!(directory.names(), ["folder"]);
    assert_eq!(storage.perform(append(b"closed")).result, Err(libc::EBADF));
}

#[test]
fn tasks_on_a_number_that_is_not_open_fail() {
    let (directory, storage) = (Directory::new(), storage());
    let create = FileTask::Create { file: FILE, path: directory.path("missing/a.tmp"), digest: None };
    assert_eq!(storage.perform(create).result, Err(libc::ENOENT));
    let done = storage.perform(append(b"bytes"));
    assert_eq!(done.result, Err(libc::EBADF));
    assert!(done.buffer.is_empty() && done.buffer.capacity() >= 5, "the buffer comes back all the same");
    assert_eq!(storage.perform(publish(&directory, "a.tmp", "a")).result, Err(libc::EBADF));
    let discard = FileTask::Discard { file: FILE, path: directory.path("a.tmp") };
    assert_eq!(storage.perform(discard).result, Ok(()));
    assert_eq!(storage.perform(FileTask::Close { file: FILE }).result, Ok(()));
}

#[test]
fn a_discarded_file_is_closed_and_gone() {
    let (directory, storage) = (Directory::new(), storage());
    let create = FileTask::Create { file: FILE, path: directory.path("a.tmp"), digest: None };
    assert_eq!(storage.perform(create).result, Ok(()));
    assert_eq!(storage.perform(append(b"bytes")).result, Ok(()));
    let discard = FileTask::Discard { file: FILE, path: directory.path("a.tmp") };
    assert_eq!(storage.perform(discard).result, Ok(()));
    assert!(directory.names().is_empty());
    assert_eq!(storage.perform(append(b"bytes")).result, Err(libc::EBADF));
}

#[test]
fn a_closed_file_stays_and_its_number_is_free() {
    let (directory, storage) = (Directory::new(), storage());
    assert_eq!(storage.perform(prepare(directory.path("a"), 10, None)).result, Ok(()));
    let done = storage.perform(FileTask::Close { file: FILE });
    assert_eq!(done.result, Ok(()));
    assert!(matches!(done.change, Change::Closed(FILE)));
    assert_eq!(storage.perform(prepare(directory.path("b"), 10, None)).result, Ok(()));
    assert_eq!(directory.names(), ["a", "b"]);
}

#[test]
fn removing_goes_on_after_an_error_and_tells_the_first() {
    let (directory, storage) = (Directory::new(), storage());
    for name in ["a", "b", "c"] {
        fs::write(directory.path(name), "").unwrap();
    }
    fs::create_dir(directory.path("folder")).unwrap();
    let paths =
        |names: &[&str]| FileTask::Remove { paths: names.iter().map(|n| directory.path(n)).collect() };
    assert_eq!(storage.perform(paths(&["a", "was never there", "no folder/a"])).result, Ok(()));
    assert_eq!(directory.names(), ["b", "c", "folder"]);
    assert_eq!(storage.perform(paths(&["b", "folder", "b/a", "c"])).result, Err(libc::EISDIR));
    assert_eq!(directory.names(), ["folder"]);
    assert_eq!(storage.perform(paths(&[])).result, Ok(()));
}

#[test]
fn a_small_file_is_replaced_as_a_whole_or_not_at_all() {
    let (directory, storage) = (Directory::new(), storage());
    let replace =
        |name: &str, bytes: &[u8]| FileTask::Replace { path: directory.path(name), bytes: bytes.to_vec() };
    for text in [b"a longer first text".as_slice(), b"second"] {
        let done = storage.perform(replace("a", text));
        assert_eq!(done.result, Ok(()));
        assert!(done.buffer.is_empty() && done.buffer.capacity() >= text.len());
        assert_eq!(fs::read(directory.path("a")).unwrap(), text);
    }
    // A folder cannot be replaced by a file.
    fs::create_dir(directory.path("folder")).unwrap();
    assert_eq!(storage.perform(replace("folder", b"text")).result, Err(libc::EISDIR));
    assert_eq!(storage.perform(replace("missing/a", b"text")).result, Err(libc::ENOENT));
    assert_eq!(directory.names(), ["a", "folder"]);
}

#[test]
fn tasks_are_answered_in_order_and_dropping_waits_for_them() {
    let (directory, storage) = (Directory::new(), storage());
    storage.give(0, FileTask::Create { file: FILE, path: directory.path("b.tmp"), digest: None });
    let mut expected = Vec::new();
    for number in 1..100_u64 {
        let bytes = vec![number as u8; 1000];
        expected.extend_from_slice(&bytes);
        storage.give(number, FileTask::Append { file: FILE, bytes });
    }
    for ticket in 0..50 {
        let done = storage.answers.recv().unwrap();
        assert_eq!((done.ticket, done.result), (ticket, Ok(())));
    }
    storage.give(100, publish(&directory, "b.tmp", "b"));
    storage.give(101, prepare(directory.path("a"), 8 << 20, None));
    drop(storage);
    assert_eq!(directory.names(), ["a", "b"]);
    assert_eq!(fs::read(directory.path("b")).unwrap(), expected);
}

#[test]
fn what_the_journal_waits_for_does_not_wait_for_files_that_are_written() {
    let (directory, storage) = (Directory::new(), storage());
    let path = directory.path("pipe");
    let name = CString::new(path.as_os_str().as_bytes()).unwrap();
    // SAFETY: the name is a string that ends with a zero byte.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    // Opening it waits until somebody reads.
    storage.give(1, FileTask::Create { file: FILE, path: path.clone(), digest: None });
    storage.give(2, append(b"through"));
    let file = File(9);
    let prepare = |name| FileTask::Prepare {
        file,
        path: directory.path(name),
        length_bytes: 100,
        recycle: None,
        is_written: true,
    };
    for (ticket, task) in [(3, prepare("a")), (4, FileTask::Close { file }), (5, prepare("b"))] {
        storage.give(ticket, task);
        let done = storage.answers.recv().unwrap();
        assert_eq!((done.ticket, done.result), (ticket, Ok(())));
    }
    let mut reader = fs::File::open(&path).unwrap();
    for ticket in [1, 2] {
        let done = storage.answers.recv().unwrap();
        assert_eq!((done.ticket, done.result), (ticket, Ok(())));
    }
    storage.give(6, FileTask::Discard { file: FILE, path });
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "through");
}

/// A checksum for a test: the last byte and the count of all.
#[derive(Debug, Default)]
struct LastAndCount(u8, u32);

impl Digest for LastAndCount {
    fn update(&mut self, bytes: &[u8]) {
        self.0 = bytes.last().copied().unwrap_or(self.0);
        self.1 += bytes.len() as u32;
    }

    fn value(&self) -> [u8; 8] {
        [[self.0; 4], self.1.to_le_bytes()].concat().try_into().unwrap()
    }
}

#[test]
fn a_checksum_is_that_of_all_pieces_and_a_long_file_is_whole() {
    let (directory, storage) = (Directory::new(), storage());
    let digest: Option<Box<dyn Digest>> = Some(Box::<LastAndCount>::default());
    let create = FileTask::Create { file: FILE, path: directory.path("a.tmp"), digest };
    assert_eq!(storage.perform(create).result, Ok(()));
    let mut expected = Vec::new();
    // Longer than several steps in which it is written out, in pieces shorter and longer than one.
    for length in [0, 100, 3 << 20, 1 << 20, 9 << 20, 1, 5 << 20, 7] {
        let piece: Vec<u8> = (0..length).map(|place| (place / 3000) as u8 ^ length as u8).collect();
        assert_eq!(storage.perform(append(&piece)).result, Ok(()));
        expected.extend_from_slice(&piece);
    }
    let last = *expected.last().unwrap();
    let count = expected.len() as u32;
    expected.extend_from_slice(&[last; 4]);
    expected.extend_from_slice(&count.to_le_bytes());
    assert_eq!(storage.perform(publish(&directory, "a.tmp", "a")).result, Ok(()));
    assert!(fs::read(directory.path("a")).unwrap() == expected);
}

#[test]
fn a_removed_file_keeps_its_bytes_where_it_has_another_name() {
    let (directory, storage) = (Directory::new(), storage());
    let content = vec![7; 5 << 20];
    fs::write(directory.path("a"), &content).unwrap();
    fs::hard_link(directory.path("a"), directory.path("backup")).unwrap();
    fs::write(directory.path("b"), &content).unwrap();
    let open = fs::File::open(directory.path("b")).unwrap();
    let paths = vec![directory.path("a"), directory.path("b"), directory.path("missing")];
    assert_eq!(storage.perform(FileTask::Remove { paths }).result, Ok(()));
    assert!(fs::read(directory.path("backup")).unwrap() == content);
    assert!(!directory.path("a").exists() && !directory.path("b").exists());
    assert!(open.metadata().unwrap().len() < 5 << 20, "it is freed step by step");
}

#[test]
fn a_storage_thread_yields_to_the_cores() {
    // SAFETY: the call takes no pointer; 0 names the calling thread.
    let policy = || unsafe { libc::sched_getscheduler(0) };
    let before = policy();
    let seen = thread::spawn(move || {
        yield_to_cores(NICE);
        // SAFETY: as above.
        (policy(), unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) })
    });
    let (yielding, nice) = seen.join().unwrap();
    assert_eq!(yielding, libc::SCHED_BATCH);
    assert!(nice >= NICE, "{nice}");
    assert_eq!(policy(), before, "only the thread itself yields");
}

/// Names the directory in which the test below runs as a process of its own.
const LIMITED_IN: &str = "DUVA_TEST_FILE_SIZE_LIMITED_IN";

/// Files that may not grow stand for a disk that is full: the limit is one of the process, hence one of its own.
#[test]
fn when_a_file_cannot_grow_nothing_half_made_is_left() {
    let Ok(directory) = env::var(LIMITED_IN) else {
        let directory = Directory::new();
        let output = Command::new(env::current_exe().unwrap())
            .args(["--exact", "files::tests::when_a_file_cannot_grow_nothing_half_made_is_left"])
            .env(LIMITED_IN, directory.path(""))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
        // Only what the child left on purpose.
        assert_eq!(directory.names(), ["small"]);
        return;
    };
    limit_file_size(1_500_000);
    let storage = storage();
    let path = |name: &str| Path::new(&directory).join(name);
    // The limit falls into the second piece.
    assert_eq!(storage.perform(prepare(path("new"), 4 << 20, None)).result, Err(libc::EFBIG));
    assert!(!path("new").exists());
    fs::write(path("old"), vec![1; 1000]).unwrap();
    assert_eq!(storage.perform(prepare(path("new"), 4 << 20, Some(path("old")))).result, Err(libc::EFBIG));
    assert!(!path("new").exists() && !path("old").exists());

    let replace = |length| FileTask::Replace { path: path("small"), bytes: vec![2; length] };
    assert_eq!(storage.perform(replace(10)).result, Ok(()));
    assert_eq!(storage.perform(replace(2_000_000)).result, Err(libc::EFBIG));
    assert_eq!(fs::read(path("small")).unwrap(), [2; 10]);

    // An append that failed has left part of its bytes: nothing may follow, and the file is not published.
    let create = FileTask::Create { file: FILE, path: path("a.tmp"), digest: None };
    assert_eq!(storage.perform(create).result, Ok(()));
    assert_eq!(storage.perform(append(&[3; 1_000_000])).result, Ok(()));
    assert_eq!(storage.perform(append(&[3; 1_000_000])).result, Err(libc::EFBIG));
    limit_file_size(libc::RLIM_INFINITY);
    assert_eq!(storage.perform(append(&[3; 10])).result, Err(libc::EFBIG));
    let publish = FileTask::Publish { file: FILE, from: path("a.tmp"), to: path("a") };
    assert_eq!(storage.perform(publish).result, Err(libc::EFBIG));
    assert!(!path("a.tmp").exists() && !path("a").exists());
}

fn limit_file_size(bytes: u64) {
    // SAFETY: the limit is a local; the signal is one that this process then only ignores.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
        assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit), 0);
    }
}

#[test]
fn a_part_of_a_file_is_read_as_far_as_it_goes() {
    let (directory, storage) = (Directory::new(), storage());
    let text: Vec<u8> = (0..200_000_u32).map(|place| (place / 7) as u8).collect();
    fs::write(directory.path("a"), &text).unwrap();
    let read = |name: &str, offset_bytes, length_bytes| {
        let path = directory.path(name);
        storage.perform(FileTask::Read { path, offset_bytes, length_bytes })
    };
    for (offset, length, expected) in [
        (0, 200_000, &text[..]),
        (0, usize::MAX, &text[..]),
        (150_000, 10_000, &text[150_000..160_000]),
        (150_000, 50_001, &text[150_000..]),
        (10, 0, &[]),
        (200_000, 10, &[]),
        (1 << 40, 10, &[]),
    ] {
        let done = read("a", offset, length);
        assert_eq!(done.result, Ok(()), "{length} bytes from {offset}");
        assert!(done.buffer == expected, "{length} bytes from {offset}");
        assert!(done.buffer.capacity() <= text.len(), "{length} bytes from {offset}");
    }
    for (name, offset, errno) in
        [("missing", 0, libc::ENOENT), ("", 0, libc::EISDIR), ("a", u64::MAX, libc::EINVAL)]
    {
        let done = read(name, offset, 10);
        assert_eq!((done.result, done.buffer.len()), (Err(errno), 0), "{name} from {offset}");
    }
}
