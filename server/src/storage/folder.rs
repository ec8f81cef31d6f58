//! The folder with journal and snapshots: locked, listed, read, and changed durably.
//!
//! Invariants:
//!
//! - While a [`Folder`] exists no other server uses the folder: the lock is the kernel's and goes with the process.
//! - A name is durable only once the folder was synced ([`Folder::sync`]); [`Folder::replace`] includes that.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, ErrorKind, Read, Write},
    ops::Range,
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use duva_persist::{names, recovery};

/// Files are read and written in pieces of this size.
pub(super) const PIECE_BYTES: usize = 1 << 20;

/// What the names of unfinished files end in.
pub(super) const TEMPORARY_SUFFIX: &str = ".tmp";

/// Permission bits of the folder and of files in it: the data is the owner's alone.
const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// A data folder that this process has locked.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// Holds the lock.
    _lock: File,
}

impl Folder {
    /// Makes the folder if it is missing, and locks it.
    ///
    /// # Errors
    /// A sentence that names the path, when it cannot be used or another server uses it.
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        let shown = path.display();
        match DirBuilder::new().mode(FOLDER_MODE).create(path) {
            Ok(()) => sync_directory(path.parent().unwrap_or(Path::new(".")))?,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => {
                return Err(format!(
                    "the data directory {shown} cannot be made ({error}): change the rights of its parent, or dir"
                ));
            }
        }
        if !path.is_dir() {
            return Err(format!("{shown} is not a directory: move it away, or change appenddirname"));
        }
        let lock_path = path.join(names::LOCK);
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .open(&lock_path)
            .map_err(|error| {
                format!(
                    "the data directory {shown} cannot be written to ({error}): change its rights, or dir"
                )
            })?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let holder =
                    holder_of(&lock).map_or_else(String::new, |process| format!(" (process {process})"));
                return Err(format!(
                    "the data directory {shown} is in use by another server{holder}: stop that one, or change dir"
                ));
            }
            Err(TryLockError::Error(error)) => {
                return Err(format!("the data directory {shown} cannot be locked ({error}): change dir"));
            }
        }
        lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id())).map_err(|error| {
            format!("{} cannot be written ({error}): make room, or change its rights", lock_path.display())
        })?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// Where the folder is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The path of a file in it.
    pub(super) fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The names of everything in it that can have been put there by a server.
    pub(super) fn names(&self) -> Result<Vec<String>, String> {
        list(&self.path)
            .map_err(|error| format!("the data directory {} cannot be listed ({error})", self.path.display()))
    }

    /// A small file's bytes; `None`: there is no such file.
    pub(super) fn read_small(&self, name: &str) -> Result<Option<Vec<u8>>, String> {
        match fs::read(self.path_of(name)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(format!(
                "{} cannot be read ({error}): change the rights of the file",
                self.path_of(name).display()
            )),
        }
    }

    /// Replaces a small file by these bytes, whole or not at all, durably.
    pub(super) fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), String> {
        let temporary = self.path_of(&format!("{name}{TEMPORARY_SUFFIX}"));
        let mut file = self.create(&temporary)?;
        file.write_all(bytes).map_err(|error| cannot("written", &temporary, &error))?;
        self.publish(file, &temporary, name)?;
        self.sync()
    }

    /// Makes a file, empty, for this process alone.
    pub(super) fn create(&self, path: &Path) -> Result<File, String> {
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(FILE_MODE)
            .open(path)
            .map_err(|error| cannot("created", path, &error))
    }

    /// Makes a file that is not there yet, with these bytes, durable but for its name: see [`Self::sync`].
    pub(super) fn create_whole(&self, name: &str, bytes: &[u8]) -> Result<(), String> {
        let path = self.path_of(name);
        let write = || {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&path)?;
            file.write_all(bytes)?;
            file.sync_all()
        };
        write().map_err(|error| cannot("written", &path, &error))
    }

    /// Gives a finished file its name. The name is durable after [`Self::sync`].
    pub(super) fn publish(&self, file: File, temporary: &Path, name: &str) -> Result<(), String> {
        file.sync_all().map_err(|error| cannot("synced", temporary, &error))?;
        drop(file);
        fs::rename(temporary, self.path_of(name)).map_err(|error| cannot("renamed", temporary, &error))
    }

    /// Writes a part of a file once more, as it is, and makes that durable.
    pub(super) fn write_again(&self, name: &str, mut part: Range<u64>) -> Result<(), String> {
        let path = self.path_of(name);
        let mut write = || {
            let file = OpenOptions::new().read(true).write(true).open(&path)?;
            let mut piece = vec![0; PIECE_BYTES];
            while part.start < part.end {
                let length = (part.end - part.start).min(PIECE_BYTES as u64) as usize;
                file.read_exact_at(&mut piece[..length], part.start)?;
                file.write_all_at(&piece[..length], part.start)?;
                part.start += length as u64;
            }
            file.sync_all()
        };
        write().map_err(|error| cannot("written", &path, &error))
    }

    /// Makes all names durable.
    pub(super) fn sync(&self) -> Result<(), String> {
        sync_directory(&self.path)
    }

    /// Removes a file; a missing one is fine.
    pub(super) fn remove(&self, name: &str) -> Result<(), String> {
        let path = self.path_of(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(cannot("removed", &path, &error)),
            _ => Ok(()),
        }
    }

    /// Lets go of what a file has beyond so many bytes.
    pub(super) fn shorten(&self, name: &str, length_bytes: u64) -> Result<(), String> {
        let path = self.path_of(name);
        let shorten = || {
            let file = OpenOptions::new().write(true).open(&path)?;
            if file.metadata()?.len() > length_bytes { file.set_len(length_bytes) } else { Ok(()) }
        };
        shorten().map_err(|error| cannot("shortened", &path, &error))
    }

    /// Keeps a durable copy of a file under the first free name that `suffix` makes; returns that name.
    pub(super) fn keep_copy(&self, name: &str, suffix: &str) -> Result<String, String> {
        let mut copy = format!("{name}{suffix}");
        let mut number = 1;
        while self.path_of(&copy).exists() {
            number += 1;
            copy = format!("{name}{suffix}-{number}");
        }
        let (from, to) = (self.path_of(name), self.path_of(&copy));
        let temporary = self.path_of(&format!("{copy}{TEMPORARY_SUFFIX}"));
        fs::copy(&from, &temporary).map_err(|error| {
            format!("{} cannot be copied to {} ({error}): make room", from.display(), to.display())
        })?;
        let file = File::open(&temporary).map_err(|error| cannot("opened", &temporary, &error))?;
        self.publish(file, &temporary, &copy)?;
        Ok(copy)
    }
}

impl recovery::Directory for Folder {
    fn list(&self) -> io::Result<Vec<String>> {
        list(&self.path)
    }

    fn read(&self, name: &str, buffer: &mut Vec<u8>) -> io::Result<()> {
        let mut file = File::open(self.path_of(name))?;
        buffer.clear();
        file.read_to_end(buffer)?;
        Ok(())
    }

    fn read_head(&self, name: &str, len: usize, buffer: &mut Vec<u8>) -> io::Result<()> {
        let file = File::open(self.path_of(name))?;
        buffer.clear();
        file.take(len as u64).read_to_end(buffer)?;
        Ok(())
    }
}

/// The process that wrote itself into the lock's file.
fn holder_of(lock: &File) -> Option<u32> {
    const DIGITS_MAX: u64 = 16;
    let mut text = String::new();
    lock.take(DIGITS_MAX).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// Names that are not UTF-8 are none of a server's.
fn list(path: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path)? {
        names.extend(entry?.file_name().into_string());
    }
    Ok(names)
}

fn sync_directory(path: &Path) -> Result<(), String> {
    let path = if path == Path::new("") { Path::new(".") } else { path };
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .map_err(|error| cannot("synced", path, &error))
}

/// A sentence about a step that failed.
fn cannot(done: &str, path: &Path, error: &io::Error) -> String {
    format!("{} cannot be {done} ({error})", path.display())
}
