//! A disk that forgets: what was not synced may be there after a power loss or not, sector by sector and in any mixture.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use duva_persist::recovery::Directory;

use crate::random::Random;

const SECTOR_BYTES: usize = 512;

/// The disk said no.
#[derive(Debug)]
pub(crate) struct DiskError;

/// Files in one folder.
///
/// Renames and the like reach the disk in order, but when is open until the folder is synced. A file is as long as
/// the furthest byte that was written: what comes behind reads as nothing, where a preallocated file would have zeros.
#[derive(Default)]
pub(crate) struct Disk {
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    pending: Vec<Change>,
    stamp: u64,
    /// After so many more writes and syncs, one fails.
    pub(crate) fails_in: Option<u32>,
}

#[derive(Clone, Default)]
struct Inode {
    /// As processes see it.
    content: Vec<u8>,
    /// As a power loss leaves it at worst.
    durable: Vec<u8>,
    /// By sector: what it has been since it was last synced.
    versions: BTreeMap<usize, Vec<Version>>,
    /// Sectors whose writing failed: the system thinks that they are clean, and no later sync writes them.
    forgotten: BTreeSet<usize>,
}

#[derive(Clone)]
struct Version {
    stamp: u64,
    bytes: Vec<u8>,
}

#[derive(Clone)]
enum Change {
    Create(String, usize),
    Rename(String, String),
    Remove(String),
}

/// A sync under way: what was written before it.
pub(crate) struct Ticket {
    inode: usize,
    stamp: u64,
}

/// A file that nobody sees.
pub(crate) struct Hidden(String, usize);

impl Disk {
    pub(crate) fn create(&mut self, name: &str) {
        self.inodes.push(Inode::default());
        self.change(Change::Create(name.to_owned(), self.inodes.len() - 1));
    }

    pub(crate) fn rename(&mut self, from: &str, to: &str) {
        self.change(Change::Rename(from.to_owned(), to.to_owned()));
    }

    pub(crate) fn remove(&mut self, name: &str) {
        self.change(Change::Remove(name.to_owned()));
    }

    /// Takes a file out of sight, until [`Self::show`].
    pub(crate) fn hide(&mut self, name: &str) -> Hidden {
        Hidden(name.to_owned(), self.names.remove(name).expect("the file is there"))
    }

    pub(crate) fn show(&mut self, Hidden(name, inode): Hidden) {
        self.names.insert(name, inode);
    }

    pub(crate) fn sync_names(&mut self) {
        self.durable_names.clone_from(&self.names);
        self.pending.clear();
    }

    pub(crate) fn exists(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    pub(crate) fn content(&self, name: &str) -> Option<&[u8]> {
        self.names.get(name).map(|inode| &self.inodes[*inode].content[..])
    }

    /// Writes; if that fails, only a part.
    pub(crate) fn write(
        &mut self,
        name: &str,
        offset: usize,
        bytes: &[u8],
        random: &mut Random,
    ) -> Result<(), DiskError> {
        let fails = self.fails();
        let bytes = if fails { &bytes[..random.below(bytes.len() as u64 + 1) as usize] } else { bytes };
        self.put(name, offset, bytes);
        if fails { Err(DiskError) } else { Ok(()) }
    }

    /// Begins to sync a file.
    pub(crate) fn begin_sync(&mut self, name: &str) -> Ticket {
        Ticket { inode: self.names[name], stamp: self.stamp }
    }

    /// Completes a sync, or fails it; then what it should have written is never written.
    pub(crate) fn end_sync(&mut self, ticket: &Ticket) -> Result<(), DiskError> {
        let fails = self.fails();
        let Inode { durable, versions, forgotten, .. } = &mut self.inodes[ticket.inode];
        for (sector, versions) in versions.iter_mut() {
            let covered = versions.partition_point(|version| version.stamp <= ticket.stamp);
            if covered == 0 || forgotten.contains(sector) {
                continue;
            }
            if fails {
                forgotten.insert(*sector);
            } else {
                put_sector(durable, *sector, &versions[covered - 1].bytes);
                versions.drain(..covered);
            }
        }
        versions.retain(|_, versions| !versions.is_empty());
        if fails { Err(DiskError) } else { Ok(()) }
    }

    pub(crate) fn sync(&mut self, name: &str) -> Result<(), DiskError> {
        let ticket = self.begin_sync(name);
        self.end_sync(&ticket)
    }

    /// The process dies in the middle of a write.
    pub(crate) fn tear(&mut self, name: &str, offset: usize, bytes: &[u8], random: &mut Random) {
        self.put(name, offset, &bytes[..random.below(bytes.len() as u64 + 1) as usize]);
    }

    /// Power is lost: of what was not synced, any part is there.
    pub(crate) fn lose_power(&mut self, random: &mut Random) {
        self.fails_in = None;
        let kept = random.below(self.pending.len() as u64 + 1) as usize;
        let pending: Vec<_> = self.pending.drain(..).take(kept).collect();
        self.names.clone_from(&self.durable_names);
        for change in pending {
            apply(&mut self.names, &change);
        }
        self.durable_names.clone_from(&self.names);
        for inode in &mut self.inodes {
            let mut content = std::mem::take(&mut inode.durable);
            // All, nothing, or sector by sector.
            let mood = random.below(4);
            for (sector, versions) in std::mem::take(&mut inode.versions) {
                let choice = match mood {
                    0 => versions.len() as u64,
                    1 => 0,
                    _ => random.below(versions.len() as u64 + 1),
                };
                if let Some(version) = (choice as usize).checked_sub(1) {
                    put_sector(&mut content, sector, &versions[version].bytes);
                }
            }
            inode.forgotten.clear();
            inode.content.clone_from(&content);
            inode.durable = content;
        }
    }

    /// Flips a bit, in memory and on disk.
    pub(crate) fn flip(&mut self, name: &str, offset: usize, bit: u8) {
        let inode = &mut self.inodes[self.names[name]];
        inode.content[offset] ^= 1 << bit;
        if let Some(byte) = inode.durable.get_mut(offset) {
            *byte ^= 1 << bit;
        }
        if let Some(versions) = inode.versions.get_mut(&(offset / SECTOR_BYTES)) {
            for version in versions {
                if let Some(byte) = version.bytes.get_mut(offset % SECTOR_BYTES) {
                    *byte ^= 1 << bit;
                }
            }
        }
    }

    fn put(&mut self, name: &str, offset: usize, bytes: &[u8]) {
        let Inode { content, versions, forgotten, .. } = &mut self.inodes[self.names[name]];
        let end = offset + bytes.len();
        if content.len() < end {
            content.resize(end, 0);
        }
        content[offset..end].copy_from_slice(bytes);
        for sector in offset / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES) {
            self.stamp += 1;
            let range = sector * SECTOR_BYTES..content.len().min((sector + 1) * SECTOR_BYTES);
            let bytes = content[range].to_vec();
            versions.entry(sector).or_default().push(Version { stamp: self.stamp, bytes });
            forgotten.remove(&sector);
        }
    }

    fn change(&mut self, change: Change) {
        apply(&mut self.names, &change);
        self.pending.push(change);
    }

    fn fails(&mut self) -> bool {
        match &mut self.fails_in {
            None => false,
            Some(0) => true,
            Some(left) => {
                *left -= 1;
                false
            }
        }
    }
}

fn apply(names: &mut BTreeMap<String, usize>, change: &Change) {
    match change {
        Change::Create(name, inode) => {
            names.insert(name.clone(), *inode);
        }
        Change::Rename(from, to) => {
            let inode = names.remove(from).expect("renames are of files that are there");
            names.insert(to.clone(), inode);
        }
        Change::Remove(name) => {
            names.remove(name);
        }
    }
}

fn put_sector(content: &mut Vec<u8>, sector: usize, bytes: &[u8]) {
    let start = sector * SECTOR_BYTES;
    if content.len() < start + bytes.len() {
        content.resize(start + bytes.len(), 0);
    }
    content[start..start + bytes.len()].copy_from_slice(bytes);
}

impl Directory for Disk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.names.keys().cloned().collect())
    }

    fn read(&self, name: &str, buffer: &mut Vec<u8>) -> io::Result<()> {
        buffer.clear();
        buffer.extend_from_slice(self.content(name).ok_or(io::ErrorKind::NotFound)?);
        Ok(())
    }
}
