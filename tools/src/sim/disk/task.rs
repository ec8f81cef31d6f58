//! What each file task does, step by step: a crash may come between two steps, or in the middle of one.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    path::{Path, PathBuf},
    rc::Rc,
};

use duva_net::io::{Digest, File, FileTask};

use super::{Change, Disk, Shared, content::Content};
use crate::sim::random::Random;

/// ENOENT, EBADF, EEXIST and ENOSPC, as Linux numbers them.
pub(super) const NO_ENTRY: i32 = 2;
pub(super) const BAD_DESCRIPTOR: i32 = 9;
pub(super) const EXISTS: i32 = 17;
const NO_SPACE: i32 = 28;

/// What a task that was cut off would have returned; nobody sees it.
const CUT_OFF: i32 = 4;

/// How much of a task is done.
pub(super) struct Steps {
    left: u32,
    /// Of the last step, of 256 parts.
    parts: usize,
}

impl Steps {
    /// All of it.
    pub(super) fn all() -> Self {
        Self { left: u32::MAX, parts: 0 }
    }

    /// Its first few steps.
    pub(super) fn few(random: &mut Random) -> Self {
        Self { left: random.below(6) as u32, parts: random.index(256) }
    }

    /// Whether the next step, which is done whole or not at all, is done.
    fn go(&mut self) -> Result<(), i32> {
        if self.left == 0 {
            return Err(CUT_OFF);
        }
        self.left -= 1;
        Ok(())
    }

    /// How much of the next step is done, whose whole is `length`.
    fn go_to(&mut self, length: usize) -> usize {
        if self.left > 0 { length } else { length * self.parts / 256 }
    }
}

/// A file that a storage thread has open.
pub(super) struct Stored {
    content: Shared,
    digest: Option<Box<dyn Digest>>,
    /// Why something could not be added: nothing may follow it.
    failed: Option<i32>,
}

/// What a task opened.
type Opened = Option<(File, Shared)>;

impl Disk {
    /// Does a task of the storage thread that has `stored` open; returns what it opened.
    pub(super) fn perform(
        &mut self,
        stored: &mut BTreeMap<u32, Stored>,
        task: FileTask,
        buffer: &mut Vec<u8>,
        now_ns: u64,
        steps: &mut Steps,
    ) -> Result<Opened, i32> {
        let is_full = now_ns < self.full_until_ns;
        match task {
            FileTask::Prepare { file, path, length_bytes, recycle, is_written: _ } => {
                let content = self.prepare(path, length_bytes as usize, recycle, is_full, steps)?;
                open(stored, file, &content, None);
                Ok(Some((file, content)))
            }
            FileTask::Create { .. } if is_full => Err(NO_SPACE),
            FileTask::Create { file, path, digest } => {
                steps.go()?;
                let content = self.create(path);
                open(stored, file, &content, digest);
                Ok(Some((file, content)))
            }
            FileTask::Append { file, mut bytes } => {
                let open = stored.get_mut(&file.0);
                let result = open.map_or(Err(BAD_DESCRIPTOR), |open| {
                    if is_full {
                        open.failed.get_or_insert(NO_SPACE);
                    }
                    let length = steps.go_to(bytes.len());
                    open.failed.map_or(Ok(()), Err)?;
                    open.content.borrow_mut().append(&bytes[..length]);
                    if let Some(digest) = &mut open.digest {
                        digest.update(&bytes);
                    }
                    Ok(())
                });
                bytes.clear();
                *buffer = bytes;
                result.map(|()| None)
            }
            FileTask::Publish { file, from, to } => {
                let open = stored.remove(&file.0).ok_or(BAD_DESCRIPTOR)?;
                steps.go()?;
                if let Some(failed) = open.failed {
                    self.unlink(from);
                    return Err(failed);
                }
                if let Some(digest) = open.digest {
                    open.content.borrow_mut().append(&digest.value());
                    steps.go()?;
                }
                open.content.borrow_mut().sync_all();
                self.rename(from, to, steps)?;
                Ok(None)
            }
            FileTask::Discard { file, path } => {
                stored.remove(&file.0);
                steps.go()?;
                self.unlink(path);
                Ok(None)
            }
            FileTask::Close { file } => {
                stored.remove(&file.0);
                Ok(None)
            }
            FileTask::Remove { paths } => {
                for path in paths {
                    steps.go()?;
                    self.unlink(path);
                }
                steps.go()?;
                self.sync_names();
                Ok(None)
            }
            FileTask::Read { path, offset_bytes, length_bytes } => {
                let content = self.names.get(&path).ok_or(NO_ENTRY)?.borrow();
                let shown = content.shown();
                let start = shown.len().min(usize::try_from(offset_bytes).unwrap_or(usize::MAX));
                let end = shown.len().min(start.saturating_add(length_bytes));
                buffer.extend_from_slice(&shown[start..end]);
                Ok(None)
            }
            FileTask::Replace { .. } if is_full => Err(NO_SPACE),
            FileTask::Replace { path, mut bytes } => {
                let mut temporary = path.clone().into_os_string();
                temporary.push(".tmp");
                let temporary = PathBuf::from(temporary);
                steps.go()?;
                let content = self.create(temporary.clone());
                content.borrow_mut().append(&bytes[..steps.go_to(bytes.len())]);
                steps.go()?;
                content.borrow_mut().sync_all();
                self.rename(temporary, path, steps)?;
                bytes.clear();
                *buffer = bytes;
                Ok(None)
            }
        }
    }

    fn prepare(
        &mut self,
        path: PathBuf,
        length: usize,
        recycle: Option<PathBuf>,
        is_full: bool,
        steps: &mut Steps,
    ) -> Result<Shared, i32> {
        let is_there = recycle.as_ref() == Some(&path);
        if self.names.contains_key(&path) != is_there {
            return Err(if is_there { NO_ENTRY } else { EXISTS });
        }
        steps.go()?;
        match recycle {
            None => self.change(Change::Link(path.clone(), Shared::default())),
            Some(_) if is_there => {}
            Some(old) if self.names.contains_key(&old) => self.change(Change::Rename(old, path.clone())),
            Some(_) => return Err(NO_ENTRY),
        }
        let content = Rc::clone(&self.names[&path]);
        let present = content.borrow().len();
        if is_full && present < length {
            if !is_there {
                self.unlink(path);
            }
            return Err(NO_SPACE);
        }
        content.borrow_mut().resize(if present < length {
            present + steps.go_to(length - present)
        } else {
            length
        });
        steps.go()?;
        content.borrow_mut().sync_all();
        steps.go()?;
        self.sync_names();
        Ok(content)
    }

    /// A new file, or an old one cut to nothing.
    fn create(&mut self, path: PathBuf) -> Shared {
        match self.names.get(&path) {
            Some(content) => content.borrow_mut().resize(0),
            None => self.change(Change::Link(path.clone(), Rc::new(RefCell::new(Content::default())))),
        }
        Rc::clone(&self.names[&path])
    }

    /// Gives a file another name, durably.
    fn rename(&mut self, from: PathBuf, to: PathBuf, steps: &mut Steps) -> Result<(), i32> {
        if !self.names.contains_key(&from) {
            return Err(NO_ENTRY);
        }
        steps.go()?;
        self.change(Change::Rename(from, to));
        steps.go()?;
        self.sync_names();
        Ok(())
    }

    fn unlink(&mut self, path: impl AsRef<Path>) {
        if self.names.contains_key(path.as_ref()) {
            self.change(Change::Unlink(path.as_ref().to_owned()));
        }
    }
}

fn open(stored: &mut BTreeMap<u32, Stored>, file: File, content: &Shared, digest: Option<Box<dyn Digest>>) {
    let earlier = stored.insert(file.0, Stored { content: Rc::clone(content), digest, failed: None });
    assert!(earlier.is_none(), "file {} was open already", file.0);
}
