//! The folder with journal and snapshots: found, listed and read, never changed.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Read},
    path::{Path, PathBuf},
};

use duva_persist::{manifest::Manifest, names, recovery};
use duva_server::config::SHARD_COUNT_MAX;
use duva_server::storage;

use super::Failure;

/// The largest file that is read whole, in bytes: no segment may be larger.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// A folder as it was when it was listed.
pub(super) struct Folder {
    path: PathBuf,
    /// All files' names, in order.
    names: Vec<String>,
    lock_note: Option<String>,
}

/// A segment's file.
pub(super) struct SegmentFile {
    pub(super) core: u16,
    pub(super) sequence: u32,
    pub(super) name: String,
}

/// A snapshot's file.
pub(super) struct SnapshotFile {
    pub(super) shard: u16,
    pub(super) index: u64,
    pub(super) name: String,
}

/// What there is of a manifest.
pub(super) enum Found {
    Sound(Box<Manifest>),
    Missing,
    /// What is wrong with it.
    Damaged(String),
}

impl Folder {
    /// The folder that `directory` is, or the one called `name` in it.
    pub(super) fn find(directory: &Path, name: &Path) -> Result<Self, Failure> {
        let own = list(directory)?;
        let inner = directory.join(name);
        let (path, names) = if holds_journal(&own) || !inner.is_dir() {
            (directory.to_owned(), own)
        } else {
            (inner.clone(), list(&inner)?)
        };
        if !holds_journal(&names) {
            return Err(Failure::Unusable(format!(
                "{} holds no journal: there is neither a manifest nor a segment in it",
                path.display()
            )));
        }
        let lock_note = lock_note(&path);
        Ok(Self { path, names, lock_note })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What to say if a server is using it.
    pub(super) fn lock_note(&self) -> Option<&str> {
        self.lock_note.as_deref()
    }

    /// The segments, in order of core and sequence.
    pub(super) fn segments(&self) -> Vec<SegmentFile> {
        let parsed = self.names.iter().filter_map(|name| {
            let (core, sequence) = names::parse_segment(name)?;
            Some(SegmentFile { core, sequence, name: name.clone() })
        });
        let mut files: Vec<_> = parsed.collect();
        files.sort_unstable_by_key(|file| (file.core, file.sequence));
        files
    }

    /// The snapshots, in order of shard and index.
    pub(super) fn snapshots(&self) -> Vec<SnapshotFile> {
        let parsed = self.names.iter().filter_map(|name| {
            let (shard, index) = names::parse_snapshot(name)?;
            Some(SnapshotFile { shard, index, name: name.clone() })
        });
        let mut files: Vec<_> = parsed.collect();
        files.sort_unstable_by_key(|file| (file.shard, file.index));
        files
    }

    /// Files that are none of the journal's.
    pub(super) fn others(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str).filter(|name| {
            ![names::MANIFEST, names::LOCK].contains(name)
                && names::parse_segment(name).is_none()
                && names::parse_snapshot(name).is_none()
        })
    }

    /// The manifest.
    pub(super) fn manifest(&self) -> Result<Found, Failure> {
        if !self.names.iter().any(|name| name == names::MANIFEST) {
            return Ok(Found::Missing);
        }
        let mut bytes = Vec::new();
        self.load(names::MANIFEST, &mut bytes)?;
        Ok(match Manifest::decode(&bytes) {
            Ok(manifest) if !manifest.shards.is_power_of_two() || manifest.shards > SHARD_COUNT_MAX => {
                Found::Damaged(format!("the manifest names {} shards, which cannot be", manifest.shards))
            }
            Ok(manifest) => Found::Sound(Box::new(manifest)),
            Err(error) => Found::Damaged(error.to_string()),
        })
    }

    /// Replaces what the buffer holds by a whole file.
    pub(super) fn load(&self, name: &str, buffer: &mut Vec<u8>) -> Result<(), Failure> {
        recovery::Directory::read(self, name, buffer).map_err(|error| self.unreadable(name, &error))
    }

    /// Opens a file to read it, and tells its length in bytes.
    pub(super) fn open(&self, name: &str) -> io::Result<(File, u64)> {
        let path = self.path.join(name);
        // Opening a pipe could wait for ever.
        let metadata = fs::metadata(&path)?;
        if !metadata.is_file() {
            return Err(io::Error::other("it is no regular file"));
        }
        Ok((File::open(path)?, metadata.len()))
    }

    /// That a file cannot be read.
    pub(super) fn unreadable(&self, name: &str, error: &io::Error) -> Failure {
        Failure::Unusable(format!("{} cannot be read: {error}", self.path.join(name).display()))
    }
}

impl recovery::Directory for Folder {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.names.clone())
    }

    fn read(&self, name: &str, buffer: &mut Vec<u8>) -> io::Result<()> {
        self.read_head(name, FILE_BYTES_MAX as usize, buffer)
    }

    fn read_head(&self, name: &str, bytes: usize, buffer: &mut Vec<u8>) -> io::Result<()> {
        let (file, _) = self.open(name)?;
        buffer.clear();
        file.take(bytes as u64).read_to_end(buffer)?;
        Ok(())
    }

    fn snapshot_term(&self, name: &str) -> io::Result<Option<u64>> {
        let mut head = Vec::new();
        recovery::Directory::read_head(self, name, storage::FIELDS_BYTES_MAX, &mut head)?;
        Ok(storage::snapshot_term(&head))
    }
}

/// Whether a folder with these files has, or had, a journal.
fn holds_journal(names: &[String]) -> bool {
    names.iter().any(|name| {
        name == names::MANIFEST
            || names::parse_segment(name).is_some()
            || names::parse_snapshot(name).is_some()
    })
}

/// Names that are not UTF-8 are none of a server's.
fn list(path: &Path) -> Result<Vec<String>, Failure> {
    let names = || -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(path)? {
            names.extend(entry?.file_name().into_string());
        }
        names.sort_unstable();
        Ok(names)
    };
    names().map_err(|error| Failure::Unusable(format!("{} cannot be listed: {error}", path.display())))
}

/// Asks the kernel whether a server holds the lock. It takes a shared lock for a moment, which needs no right to write.
fn lock_note(folder: &Path) -> Option<String> {
    let path = folder.join(names::LOCK);
    if !path.is_file() {
        return None;
    }
    let file = File::open(&path).ok()?;
    let shown = folder.display();
    match file.try_lock_shared() {
        Ok(()) => None,
        Err(TryLockError::WouldBlock) => {
            let process =
                holder_of(&file).map_or_else(String::new, |process| format!(" (process {process})"));
            Some(format!(
                "a running server{process} uses {shown}: files change while they are read, so what follows is of a moment, \
                 and an end or damage that it shows may be a write under way"
            ))
        }
        Err(TryLockError::Error(error)) => {
            Some(format!("whether a running server uses {shown} cannot be told: {error}"))
        }
    }
}

/// The process that wrote itself into the lock's file.
fn holder_of(lock: &File) -> Option<u32> {
    const DIGITS_MAX: u64 = 16;
    let mut text = String::new();
    lock.take(DIGITS_MAX).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}
