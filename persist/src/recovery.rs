//! Reading journals again after any crash: what is kept, what every shard comes to, and every entry once more.
//!
//! Nothing here does I/O itself or changes a file. [`scan`] reads everything once, finds where each journal ends, and refuses
//! what no crash explains. [`Scan::replay`], called by every core for its shards, visits the entries behind the shards'
//! snapshots that are to be applied; [`Scan::replay_log`] visits the logs as they stand. Then the caller makes the start durable, in this order:
//!
//! 1. what is kept, as [`Segment::synced_to`] says;
//! 2. the epoch, and where the earlier journals end: [`Scan::next_manifest`];
//! 3. the first segment of every core's journal, with a header of all its shards and an empty block
//!    ([`crate::journal::Journal::begin`]), or with records that count from then on, whether the start ends or not;
//! 4. that they are begun: [`Scan::begun_manifest`].
//!
//! Only then does it acknowledge or remove anything. After a crash in between, the next start finds the same.
//!
//! Invariants:
//!
//! - A shard's records order by (epoch, ownership, sequence, offset). A later one at index `i` replaces everything at `i` and
//!   after, whatever the terms; a segment's header, which names the log's last index, replaces everything after that.
//! - In the newest epoch, the first thing that is wrong at or above the highest `synced_to` of any sound block of that
//!   journal is its tail, which is dropped, valid or not. What is wrong below it is corruption. Earlier journals end at
//!   their cuts, and whatever is wrong before those is corruption.
//! - A group of records is kept whole or dropped whole; a record with fragments too.
//! - What is kept of each shard is contiguous from its snapshot on. A gap that the snapshot covers is none.
//! - A snapshot whose last entry has another term than the log's entry at that index, or that the log lacks, replaced the log:
//!   nothing behind that index counts. The next header, which ends the log there with the snapshot's term, keeps it so.
//! - A header that names neither an entry nor a snapshot of a shard lets go of all that was known of the shard before: its log
//!   begins anew there. An earlier snapshot serves if it is there, and is not demanded.
//! - What a hard state says to be committed counts for the log as the records before it leave it, and as far as no later
//!   record or header replaces that. Where something of the directory was lost it says nothing.
//! - No file can be missing that holds something needed. A sealed segment demands the next one, the manifest every journal of
//!   its epoch, and the headers of those, which name every shard's last index and snapshot, whatever holds the entries
//!   up to there. While the epoch is not begun the manifest demands the earlier journals themselves.
//!
//! What writers must do for this: a segment's file is there, durably, before its predecessor is sealed; a shard's first
//! record on another core comes behind a segment header that lists it, with a higher ownership; a snapshot gets its
//! name only once the journal is synced up to where its last entry ends, and its predecessor is removed only once
//! its mark is synced; a snapshot either ends where no prepared part of a transaction is unfinished, or holds those that
//! are; segments of a journal are removed or recycled oldest first, and not while they hold the prepared part of a
//! transaction that no snapshot covers as finished, or a decision that somebody may still ask for; and only up to a segment
//! whose header is durable.

mod error;
mod files;
mod merge;
mod replay;
pub mod segment;
mod walk;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

pub use error::{RecoveryError, ReplayError};
pub use replay::{Entry, EntryKind, Replayed, Unfinished};

use self::{files::CoreScan, walk::JournalScan};
use crate::{
    format::{Position, ShardState},
    manifest::{Cut, Manifest, Start, Truncation},
    names,
};

/// The data directory, as recovery sees it.
pub trait Directory: Sync {
    /// The names of all files, in any order.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Replaces what the buffer holds by a whole file.
    fn read(&self, name: &str, buffer: &mut Vec<u8>) -> io::Result<()>;

    /// Replaces what the buffer holds by a file's first bytes, or all of it if it is shorter.
    fn read_head(&self, name: &str, bytes: usize, buffer: &mut Vec<u8>) -> io::Result<()> {
        self.read(name, buffer)?;
        buffer.truncate(bytes);
        Ok(())
    }

    /// The term of the last entry that a snapshot covers, as its file says. Nothing: it is not known, or no snapshot ever
    /// replaces a log in this directory; then a log of another term is not noticed.
    fn snapshot_term(&self, name: &str) -> io::Result<Option<u64>> {
        let _ = name;
        Ok(None)
    }
}

/// How to scan.
#[derive(Clone, Copy, Debug)]
pub struct ScanOptions {
    /// Drop what is damaged, and everything that depends on it, instead of refusing.
    pub truncate: bool,
    /// So many threads read at once.
    pub threads: usize,
}

/// What the journals hold, as far as it is kept.
pub struct Scan {
    /// In order of epoch, then core.
    journals: Vec<JournalScan>,
    cuts: Vec<Cut>,
    truncations: Vec<Truncation>,
    /// By shard.
    states: Vec<ShardState>,
    /// By shard.
    snapshots: Vec<Option<Snapshot>>,
    segments: Vec<Segment>,
    empty: Vec<String>,
    /// By core: the highest sequence of a file.
    last_sequences: Vec<(u16, u32)>,
    lost: Option<Lost>,
    /// Transactions, in order.
    committed: Vec<u64>,
    /// By shard.
    committed_to: Vec<u64>,
}

/// The snapshot that a shard's replay begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Its file.
    pub name: String,
    /// The index of the last entry that it covers.
    pub index: u64,
}

/// A segment file that belongs to a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its file.
    pub name: String,
    /// The core that wrote it.
    pub core: u16,
    /// The epoch in which that was.
    pub epoch: u64,
    /// Its number.
    pub sequence: u32,
    /// What lies here or behind, in bytes, is dropped; 0: nothing of the file is needed.
    pub end: u32,
    /// What lies from here to `end` was perhaps never durable: it is to be written again, then synced, before the next manifest
    /// is recorded. A sync alone does not do if an earlier one failed.
    pub synced_to: u32,
    /// Its shards, and the highest index of a record of each, 0 if there is none.
    pub shards: Vec<(u16, u64)>,
}

impl Segment {
    /// Whether there is no entry in it.
    fn is_idle(&self) -> bool {
        self.shards.iter().all(|(_, last_index)| *last_index == 0)
    }
}

/// What was safely on disk once, or should have been, and is dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// What, in sentences.
    pub sentence: String,
    /// Files that something is dropped of, and from which offset on, in bytes.
    pub places: Vec<(String, u32)>,
}

/// Scans all journals of a directory.
pub fn scan<D: Directory>(
    directory: &D,
    manifest: &Manifest,
    options: ScanOptions,
) -> Result<Scan, RecoveryError> {
    let mut names = directory.list().map_err(RecoveryError::List)?;
    names.sort_unstable();
    names.dedup();
    let mut cores: BTreeMap<u16, Vec<u32>> =
        files::demanded(manifest).map(|(_, core)| (core, vec![])).collect();
    for (core, sequence) in names.iter().filter_map(|name| names::parse_segment(name)) {
        cores.entry(core).or_default().push(sequence);
    }
    let mut cores: Vec<(u16, Vec<u32>)> = cores.into_iter().collect();
    cores.iter_mut().for_each(|(_, sequences)| sequences.sort_unstable());
    let scans = in_parallel(options.threads, &cores, |(core, sequences)| {
        files::scan_core(directory, manifest, options, *core, sequences)
    });
    let scans: Vec<CoreScan> = scans.into_iter().collect::<Result<_, _>>()?;
    let snapshots = names.iter().filter_map(|name| names::parse_snapshot(name));
    merge::merge(manifest, options, scans, snapshots, |name| directory.snapshot_term(name))
}

impl Scan {
    /// Where all earlier journals end that have a file left, those of the newest epoch included: to be recorded durably in
    /// the manifest, with the next epoch, before anything is written to a journal.
    pub fn cuts(&self) -> &[Cut] {
        &self.cuts
    }

    /// The manifest that is to be recorded before anything is written to a journal: of the next epoch, with all cuts.
    /// `manifest` is the one that was scanned with.
    pub fn next_manifest(&self, manifest: &Manifest) -> Manifest {
        Manifest {
            epoch: manifest.epoch + 1,
            must_not_vote: manifest.must_not_vote || self.lost.is_some(),
            starts: Vec::new(),
            cuts: self.cuts.clone(),
            truncations: self.truncations.clone(),
            ..manifest.clone()
        }
    }

    /// The manifest that is to be recorded once the journals of so many cores are begun; `next` is [`Scan::next_manifest`].
    pub fn begun_manifest(&self, next: &Manifest, cores: u16) -> Manifest {
        let starts = (0..cores).map(|core| Start { core, sequence: self.next_sequence(core) });
        Manifest { starts: starts.collect(), ..next.clone() }
    }

    /// The first segment of the core's next journal, which must begin with just this one: no segment file of the core, spare
    /// ones included, has it or a higher one.
    pub fn next_sequence(&self, core: u16) -> u32 {
        let last = self.last_sequences.iter().find(|(known, _)| *known == core);
        last.map_or(1, |(_, sequence)| sequence + 1)
    }

    /// What every shard comes to, by shard: for the header of the first segment that holds it. Ownership is zero.
    ///
    /// Term and vote are the newest that a record or a segment's header has. If the snapshot is newer than everything that is
    /// kept of the log, as a truncation or a snapshot from another replica may leave it, `last_index` is the snapshot's. Its
    /// term is 0 unless a mark or [`Directory::snapshot_term`] tells it, and shard time that of the log: the
    /// snapshot's file knows both.
    pub fn states(&self) -> Vec<ShardState> {
        self.states.clone()
    }

    /// By shard, up to which index its log is known to be committed; 0: nothing is known of that. It may be below the snapshot's
    /// index, never above the log's last one.
    ///
    /// What was committed is final: it is the same entry in every later log of the shard, whoever holds it.
    pub fn committed_to(&self) -> &[u64] {
        &self.committed_to
    }

    /// The snapshot that each shard's replay begins with, by shard.
    pub fn snapshots(&self) -> &[Option<Snapshot>] {
        &self.snapshots
    }

    /// The segments that belong to journals, in order of epoch, core and sequence. Those of one epoch and core may be removed
    /// in this order, once the next journals are begun and snapshots cover their entries.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Those of [`Self::segments`] that are not needed once the next journals are begun: all of each journal that holds no
    /// entry.
    pub fn idle_segments(&self) -> impl Iterator<Item = &Segment> {
        let journals =
            self.segments.chunk_by(|one, other| (one.epoch, one.core) == (other.epoch, other.core));
        journals.filter(|journal| journal.iter().all(Segment::is_idle)).flatten()
    }

    /// Segment files that hold nothing: once the next journals are begun they can be removed, or recycled under a higher
    /// sequence.
    pub fn empty(&self) -> &[String] {
        &self.empty
    }

    /// What was dropped because of [`ScanOptions::truncate`]. The caller copies the files before it goes on.
    pub fn lost(&self) -> Option<&Lost> {
        self.lost.as_ref()
    }
}

/// Does something with every item, on so many threads; returns what came of each, in order.
fn in_parallel<T: Sync, R: Send>(threads: usize, items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::with_capacity(items.len()));
    let run = || {
        while let Some((place, item)) = {
            let place = next.fetch_add(1, Ordering::Relaxed);
            items.get(place).map(|item| (place, item))
        } {
            let result = work(item);
            results.lock().unwrap_or_else(PoisonError::into_inner).push((place, result));
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.min(items.len()) {
            scope.spawn(run);
        }
        run();
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_unstable_by_key(|(place, _)| *place);
    results.into_iter().map(|(_, result)| result).collect()
}

/// Where a segment's record lies in order, within its journal.
const fn place(sequence: u32, offset: usize) -> Position {
    Position::new(sequence, offset as u32)
}
