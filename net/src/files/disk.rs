//! What each task does to the disk, with blocking calls.
//!
//! A name is durable once its directory was synced, so every task that gives or takes one, and says that it is durable,
//! ends with that. Numbers name what this thread has open.
//!
//! A file is written out while it grows: at most two steps of it are in the page cache and not on the disk, so its
//! last sync is short, and no other sync has to compete with gigabytes.

use std::{
    collections::HashMap,
    fs::{self, OpenOptions},
    io::{self, ErrorKind, Read, Seek, SeekFrom, Write},
    ops::Range,
    os::{
        fd::AsRawFd,
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use super::{Change, Done};
use crate::io::{Digest, File, FileTask};

/// A growing file is written out in steps of so many bytes.
const WRITE_OUT_BYTES: u64 = 4 << 20;

/// Zeros are written in pieces of this size: the kernel takes the CPU from no system call.
const PIECE_BYTES: usize = 64 << 10;

/// After so long at work the CPU is offered to a core that waits for it, which otherwise got it only when the thread's slice of
/// some milliseconds is over. An offer that is taken costs that slice.
const WORK_MAX: Duration = Duration::from_micros(200);

/// A removed file's bytes are freed in steps of so many.
const TAKE_DOWN_BYTES: u64 = 2 << 20;

/// So many files are open at most while they are removed.
const REMOVED_MAX: usize = 8;

/// An open file.
struct Open {
    file: Arc<fs::File>,
    digest: Option<Box<dyn Digest>>,
    /// Bytes appended.
    appended: u64,
    write_out: WriteOut,
    /// The errno of the append that failed: there may be part of its bytes, so nothing may follow them.
    failed: Option<i32>,
}

/// The files of one core, as its storage thread has them open.
#[derive(Default)]
pub(super) struct Disk {
    files: HashMap<u32, Open>,
}

impl Disk {
    /// Does a task.
    pub(super) fn perform(&mut self, ticket: u64, task: FileTask) -> Done {
        let mut buffer = Vec::new();
        let mut change = task.closes().map_or(Change::None, Change::Closed);
        let result = match task {
            FileTask::Prepare { file, path, length_bytes, recycle, is_written } => {
                prepare(&path, length_bytes, recycle.as_deref(), is_written)
                    .map(|prepared| change = self.open(file, prepared, None))
            }
            FileTask::Create { file, path, digest } => {
                fs::File::create(path).map_err(errno).map(|created| change = self.open(file, created, digest))
            }
            FileTask::Append { file, bytes } => {
                let result = self.append(file, &bytes);
                buffer = bytes;
                result
            }
            FileTask::Publish { file, from, to } => self.publish(file, &from, &to),
            FileTask::Discard { file, path } => {
                let result = remove(&path);
                self.files.remove(&file.0);
                result
            }
            FileTask::Close { file } => {
                self.files.remove(&file.0);
                Ok(())
            }
            FileTask::Remove { paths } => remove_durably(&paths),
            FileTask::Replace { path, bytes } => {
                let result = replace(&path, &bytes);
                buffer = bytes;
                result
            }
            FileTask::Read { path, offset_bytes, length_bytes } => {
                let read = read(&path, offset_bytes, length_bytes);
                return Done {
                    ticket,
                    result: read.as_ref().map(|_| ()).map_err(|&errno| errno),
                    buffer: read.unwrap_or_default(),
                    change,
                };
            }
        };
        buffer.clear();
        Done { ticket, buffer, result, change }
    }

    fn open(&mut self, number: File, file: fs::File, digest: Option<Box<dyn Digest>>) -> Change {
        let file = Arc::new(file);
        let open = Open {
            file: Arc::clone(&file),
            digest,
            appended: 0,
            write_out: WriteOut::default(),
            failed: None,
        };
        assert!(self.files.insert(number.0, open).is_none(), "file {} was open already", number.0);
        Change::Opened(number, file)
    }

    fn append(&mut self, number: File, bytes: &[u8]) -> Result<(), i32> {
        self.files.get_mut(&number.0).ok_or(libc::EBADF)?.append(bytes)
    }

    fn publish(&mut self, number: File, from: &Path, to: &Path) -> Result<(), i32> {
        let mut open = self.files.remove(&number.0).ok_or(libc::EBADF)?;
        let checksum = open.digest.take().map(|digest| digest.value());
        let whole = open.append(checksum.as_ref().map_or(&[], |checksum| checksum));
        let renamed =
            whole.and_then(|()| open.file.sync_all().and_then(|()| fs::rename(from, to)).map_err(errno));
        if let Err(failed) = renamed {
            // The first error is the one to be told.
            let _ = remove(from);
            return Err(failed);
        }
        sync_directories([from, to])
    }
}

impl Open {
    /// Adds bytes at the end, and writes out what has come to a step.
    fn append(&mut self, bytes: &[u8]) -> Result<(), i32> {
        if let Some(failed) = self.failed {
            return Err(failed);
        }
        if let Some(digest) = &mut self.digest {
            digest.update(bytes);
        }
        let result = (&*self.file).write_all(bytes).and_then(|()| {
            self.appended += bytes.len() as u64;
            self.write_out.grown(&self.file, self.appended)
        });
        let result = result.map_err(errno);
        self.failed = result.err();
        result
    }
}

/// Offers the CPU to others every [`WORK_MAX`].
struct Pauses {
    since: Instant,
}

impl Pauses {
    fn new() -> Self {
        Self { since: Instant::now() }
    }

    fn pause_if_due(&mut self) {
        if self.since.elapsed() >= WORK_MAX {
            thread::yield_now();
            self.since = Instant::now();
        }
    }
}

/// How far a growing file is written out.
#[derive(Default)]
struct WriteOut {
    /// Up to where that has begun, in bytes.
    begun: u64,
    /// Up to where it has ended.
    ended: u64,
}

impl WriteOut {
    /// The file has `length_bytes` by now: once that is a step more, begins to write it out, and waits for the one before.
    fn grown(&mut self, file: &fs::File, length_bytes: u64) -> io::Result<()> {
        if length_bytes - self.begun < WRITE_OUT_BYTES {
            return Ok(());
        }
        let wait = libc::SYNC_FILE_RANGE_WAIT_BEFORE
            | libc::SYNC_FILE_RANGE_WRITE
            | libc::SYNC_FILE_RANGE_WAIT_AFTER;
        sync_range(file, self.begun..length_bytes, libc::SYNC_FILE_RANGE_WRITE)?;
        sync_range(file, self.ended..self.begun, wait)?;
        (self.ended, self.begun) = (self.begun, length_bytes);
        Ok(())
    }
}

/// Writes part of a file out; where the file system cannot, the file's sync has to do all of it.
fn sync_range(file: &fs::File, range: Range<u64>, flags: libc::c_uint) -> io::Result<()> {
    // A length of zero would mean all that there is.
    if range.is_empty() {
        return Ok(());
    }
    let (start, length) = (range.start as libc::off64_t, (range.end - range.start) as libc::off64_t);
    // SAFETY: the call takes no pointers, and the descriptor is open.
    if unsafe { libc::sync_file_range(file.as_raw_fd(), start, length, flags) } == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EINVAL | libc::ENOSYS | libc::EOPNOTSUPP | libc::ESPIPE) => Ok(()),
        _ => Err(error),
    }
}

/// Makes the file that [`FileTask::Prepare`] describes.
fn prepare(
    path: &Path,
    length_bytes: u64,
    recycle: Option<&Path>,
    is_written: bool,
) -> Result<fs::File, i32> {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    // A file that is there already is not this task's to remove.
    let is_there = recycle == Some(path);
    match recycle {
        None => {
            options.create_new(true);
        }
        Some(_) if is_there => {}
        Some(old) => {
            match fs::symlink_metadata(path) {
                Ok(_) => return Err(libc::EEXIST),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(errno(error)),
            }
            fs::rename(old, path).map_err(errno)?;
        }
    }
    let file = match options.open(path) {
        Ok(file) => file,
        Err(error) => {
            // Nor is what was in the way of a new one.
            if recycle.is_some() && !is_there {
                let _ = remove(path);
            }
            return Err(errno(error));
        }
    };
    let filled = fill(&file, length_bytes, is_written)
        .map_err(errno)
        .and_then(|()| sync_directories([path].into_iter().chain(recycle)));
    if let Err(failed) = filled {
        if !is_there {
            // The first error is the one to be told.
            let _ = remove(path);
        }
        return Err(failed);
    }
    Ok(file)
}

/// Cuts a file to its length, or extends it by zeros, written or reserved, and makes that durable.
fn fill(mut file: &fs::File, length_bytes: u64, is_written: bool) -> io::Result<()> {
    let mut position = file.metadata()?.len();
    if position > length_bytes {
        file.set_len(length_bytes)?;
    }
    if !is_written && position < length_bytes && reserve(file, position, length_bytes)? {
        position = length_bytes;
    }
    if position < length_bytes {
        let zeros = vec![0; PIECE_BYTES];
        let mut write_out = WriteOut { begun: position, ended: position };
        let mut pauses = Pauses::new();
        file.seek(SeekFrom::Start(position))?;
        while position < length_bytes {
            let piece = (length_bytes - position).min(PIECE_BYTES as u64);
            file.write_all(&zeros[..piece as usize])?;
            position += piece;
            write_out.grown(file, position)?;
            pauses.pause_if_due();
        }
    }
    file.sync_data()
}

/// Reserves room between two places; false if this file system cannot.
fn reserve(file: &fs::File, start_bytes: u64, end_bytes: u64) -> io::Result<bool> {
    let (start, length) = (start_bytes as libc::off_t, (end_bytes - start_bytes) as libc::off_t);
    // SAFETY: the call takes no pointers, and the descriptor is open.
    if unsafe { libc::fallocate(file.as_raw_fd(), 0, start, length) } == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS)) { Ok(false) } else { Err(error) }
}

/// Replaces a file as [`FileTask::Replace`] describes it.
fn replace(path: &Path, bytes: &[u8]) -> Result<(), i32> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = PathBuf::from(temporary);
    let write = || {
        let mut file = fs::File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        drop(file);
        fs::rename(&temporary, path)
    };
    if let Err(error) = write() {
        // The first error is the one to be told.
        let _ = remove(&temporary);
        return Err(errno(error));
    }
    sync_directories([path])
}

/// Reads a part of a file as [`FileTask::Read`] describes it.
fn read(path: &Path, offset_bytes: u64, length_bytes: usize) -> Result<Vec<u8>, i32> {
    let read = || {
        let mut file = fs::File::open(path)?;
        let left_bytes = file.metadata()?.len().saturating_sub(offset_bytes);
        // What is asked for may be far more than there is.
        let mut bytes = Vec::with_capacity(left_bytes.min(length_bytes as u64) as usize);
        file.seek(SeekFrom::Start(offset_bytes))?;
        file.take(length_bytes as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map_err(errno)
}

fn remove_durably(paths: &[PathBuf]) -> Result<(), i32> {
    paths.chunks(REMOVED_MAX).map(remove_some).fold(Ok(()), Result::and)
}

/// Removes so many files that there are descriptors to spare for them.
fn remove_some(paths: &[PathBuf]) -> Result<(), i32> {
    let mut result = Ok(());
    let mut removed = Vec::with_capacity(paths.len());
    let mut options = OpenOptions::new();
    options.write(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    for path in paths {
        // Without a descriptor its bytes go at once.
        removed.extend(options.open(path));
        result = result.and(remove(path));
    }
    let synced = match sync_directories(paths.iter().map(PathBuf::as_path)) {
        // With its directory the file is missing as well.
        Err(libc::ENOENT) => Ok(()),
        synced => synced,
    };
    if synced.is_ok() {
        removed.iter().for_each(take_down);
    }
    result.and(synced)
}

/// Frees the bytes of a file that has no name any more, step by step: at once, closing it would keep the CPU for
/// milliseconds.
pub(super) fn take_down(file: &fs::File) {
    let Ok(metadata) = file.metadata() else { return };
    // Another name, that of a backup perhaps, keeps them.
    if metadata.nlink() > 0 {
        return;
    }
    let (mut rest, mut pauses) = (metadata.len(), Pauses::new());
    while rest > TAKE_DOWN_BYTES && file.set_len(rest - TAKE_DOWN_BYTES).is_ok() {
        rest -= TAKE_DOWN_BYTES;
        pauses.pause_if_due();
    }
}

/// Removes a file; a missing one is fine.
fn remove(path: &Path) -> Result<(), i32> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(errno(error)),
        _ => Ok(()),
    }
}

/// Syncs the directories that these paths are in, each once. The first error is told, after all were tried.
fn sync_directories<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Result<(), i32> {
    let mut directories: Vec<&Path> = paths.into_iter().map(directory_of).collect();
    directories.sort_unstable();
    directories.dedup();
    let mut result = Ok(());
    for directory in directories {
        let synced = fs::File::open(directory).and_then(|directory| directory.sync_all());
        result = result.and(synced.map_err(errno));
    }
    result
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        Some(_) => Path::new("."),
        None => path,
    }
}

/// The errno of an error; those that the standard library finds by itself have none.
pub(crate) fn errno(error: io::Error) -> i32 {
    error.raw_os_error().unwrap_or(match error.kind() {
        // A path with a zero byte in it.
        ErrorKind::InvalidInput => libc::EINVAL,
        _ => libc::EIO,
    })
}
