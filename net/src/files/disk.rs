//! What each task does to the disk, with blocking calls.
//!
//! A name is durable once its directory was synced, so every task that gives or takes one, and says that it is durable,
//! ends with that. Numbers name what this thread has open.

use std::{
    collections::HashMap,
    fs::{self, OpenOptions},
    io::{self, ErrorKind, Seek, SeekFrom, Write},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{Change, Done};
use crate::io::{File, FileTask};

/// Zeros are written in pieces of this size.
const PIECE_BYTES: usize = 1 << 20;

/// An open file.
struct Open {
    file: Arc<fs::File>,
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
                    .map(|prepared| change = self.open(file, prepared))
            }
            FileTask::Create { file, path } => {
                fs::File::create(path).map_err(errno).map(|created| change = self.open(file, created))
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
        };
        buffer.clear();
        Done { ticket, buffer, result, change }
    }

    fn open(&mut self, number: File, file: fs::File) -> Change {
        let file = Arc::new(file);
        let open = Open { file: Arc::clone(&file), failed: None };
        assert!(self.files.insert(number.0, open).is_none(), "file {} was open already", number.0);
        Change::Opened(number, file)
    }

    fn append(&mut self, number: File, bytes: &[u8]) -> Result<(), i32> {
        let open = self.files.get_mut(&number.0).ok_or(libc::EBADF)?;
        if let Some(failed) = open.failed {
            return Err(failed);
        }
        let result = (&*open.file).write_all(bytes).map_err(errno);
        open.failed = result.err();
        result
    }

    fn publish(&mut self, number: File, from: &Path, to: &Path) -> Result<(), i32> {
        let open = self.files.remove(&number.0).ok_or(libc::EBADF)?;
        let renamed = match open.failed {
            Some(failed) => Err(failed),
            None => open.file.sync_all().and_then(|()| fs::rename(from, to)).map_err(errno),
        };
        if let Err(failed) = renamed {
            // The first error is the one to be told.
            let _ = remove(from);
            return Err(failed);
        }
        sync_directories([from, to])
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
    match recycle {
        None => {
            options.create_new(true);
        }
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
            // Only a file that was renamed is this task's to remove.
            if recycle.is_some() {
                let _ = remove(path);
            }
            return Err(errno(error));
        }
    };
    let filled = fill(&file, length_bytes, is_written)
        .map_err(errno)
        .and_then(|()| sync_directories([path].into_iter().chain(recycle)));
    if let Err(failed) = filled {
        // The first error is the one to be told.
        let _ = remove(path);
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
        file.seek(SeekFrom::Start(position))?;
        while position < length_bytes {
            let piece = (length_bytes - position).min(PIECE_BYTES as u64);
            file.write_all(&zeros[..piece as usize])?;
            position += piece;
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

fn remove_durably(paths: &[PathBuf]) -> Result<(), i32> {
    let mut result = Ok(());
    for path in paths {
        result = result.and(remove(path));
    }
    let synced = match sync_directories(paths.iter().map(PathBuf::as_path)) {
        // With its directory the file is missing as well.
        Err(libc::ENOENT) => Ok(()),
        synced => synced,
    };
    result.and(synced)
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
