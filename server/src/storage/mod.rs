//! What is kept on disk, from a start to its first turn: which directory, what is in it, and how it comes back.
//!
//! A start has three steps. [`Store::open`], before any core exists, locks the directory, reads what the journals hold,
//! and refuses what cannot be right. [`Store::load_core`], on every core's own thread, fills its shards.
//! [`Store::commit`], once all of them succeeded, makes the start durable; only then may anything be journalled.
//!
//! Invariants:
//!
//! - Before [`Store::commit`] nothing that is needed was changed or removed, and within it nothing before the last step: a
//!   start that fails, or is killed, can be repeated.
//! - No core serves before every core's journal has its first segment, and the manifest says so: from then on a missing file
//!   is noticed.
//! - Whatever a start has shown to clients stays: what is kept of the journals is synced before the manifest says so.
//! - A directory without a manifest and without segments holds nothing yet, except an import that was not finished.
//! - A journal, once there is one, is what counts; `dump.rdb` is read only without one.

mod earlier;
mod folder;
mod import;
mod journal;
mod progress;
mod replay;
mod replicated;
mod snapshot;

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::Arc,
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use duva_engine::{DATABASE_COUNT, Shard};
use duva_persist::{
    format::{Kind, ShardState},
    names,
    recovery::Unfinished,
};

use duva_raft::{AppliedLog, Membership, Payload, ReplicaId};

use crate::{
    cluster::recover::LogSummary,
    config::Config,
    core::{commit::Executor, log::LogOptions, save::ShardSnapshot},
};
use journal::JournalStore;
use progress::Progress;

pub use earlier::{EarlierSegment, EarlierSegments};
pub use replay::finish;
pub use snapshot::{
    FIELDS_BYTES_MAX, SNAPSHOT_FORMAT, SnapshotFields, SnapshotHeader, SnapshotLoader, snapshot_header,
    snapshot_term, write_once, write_transactions,
};

/// What is on disk, and how it is loaded.
pub struct Store {
    source: Source,
    shards: u16,
    hash_seed: u64,
    /// When the start began, in milliseconds since the Unix epoch.
    now_ms: u64,
    progress: Progress,
    keys_loaded: AtomicU64,
    keys_expired: AtomicU64,
    /// Whether the directory belongs to a cluster: what is behind the snapshots is its replicas' to apply.
    is_cluster: bool,
    /// By shard the replica that is to be its group's only member; `None`: groups stay what they are.
    alone: Option<Vec<Option<ReplicaId>>>,
}

/// What a directory is given at birth instead of choosing it: it belongs to a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Birth {
    /// The cluster's id.
    pub cluster: [u8; 16],
    /// The node's id.
    pub node: [u8; 16],
    /// How many shards there are.
    pub shards: u16,
    /// The seed of the keyspace's hash.
    pub hash_seed: u64,
}

/// Where the data comes from.
enum Source {
    /// Nowhere, and nothing is journalled.
    Nothing,
    /// From this `dump.rdb`, and nothing is journalled.
    Dump(PathBuf),
    /// From a directory with a journal.
    Journal(Box<JournalStore>),
}

/// What a core goes on with.
pub struct CoreLoad {
    /// For its log; `None`: nothing is journalled.
    pub log: Option<LogOptions>,
    /// Parts of transactions that were prepared on its shards and never finished. Those to commit are to be applied, and
    /// all of them to be journalled as finished.
    pub unfinished: Vec<Unfinished>,
    /// In a cluster: what is behind the snapshots of its shards.
    pub logs: Vec<ShardLog>,
}

/// What the disk holds of a shard's Raft log.
#[derive(Debug)]
pub struct ShardLog {
    /// The shard.
    pub shard: u16,
    /// The last term.
    pub term: u64,
    /// Who got this replica's vote in it; 0: nobody.
    pub vote: u64,
    /// The last entry that the snapshot covers; 0: there is no snapshot.
    pub snapshot_index: u64,
    /// Its term.
    pub snapshot_term: u64,
    /// Who replicated the shard at the snapshot, as Raft encodes it; empty: as at birth.
    pub membership: Vec<u8>,
    /// What was applied behind the snapshot, because it is known to be committed.
    pub applied: AppliedLog,
    /// The entries behind the snapshot, or behind what was applied and dropped, without gaps.
    pub entries: Vec<LogEntry>,
}

impl ShardLog {
    /// The last entry and its term; the snapshot's if there is none behind it.
    pub fn last(&self) -> (u64, u64) {
        match (self.entries.last(), self.applied.terms.last()) {
            (Some(last), _) => (last.index, last.term),
            (None, Some(&(_, term))) => (self.applied.dropped_to, term),
            (None, None) => (self.snapshot_index, self.snapshot_term),
        }
    }

    /// The last entry that is applied, by the snapshot or behind it.
    pub fn applied_index(&self) -> u64 {
        self.applied.index.max(self.snapshot_index)
    }

    /// Who replicated the shard in front of the entries, as Raft encodes it; empty: as at birth.
    pub fn first_membership(&self) -> Vec<u8> {
        let dropped = self.applied.memberships.last().map(|(_, membership)| membership);
        dropped.map_or_else(|| self.membership.clone(), Membership::encode)
    }
}

/// An entry of a shard's Raft log.
#[derive(Debug)]
pub struct LogEntry {
    /// Its index.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// Its timestamp, in milliseconds since the Unix epoch.
    pub timestamp_ms: u64,
    /// Its randomness.
    pub seed: u64,
    /// What it is: an entry, a tick, or a membership.
    pub kind: Kind,
    /// Its payload.
    pub payload: Payload,
}

impl Store {
    /// Finds out what `config` says is on disk. Its directory is absolute, and the working directory.
    ///
    /// # Errors
    /// A sentence that names the path, and says what to do.
    pub fn open(config: &Config, birth: Option<&Birth>) -> Result<Self, String> {
        let dump = config.directory.join(&config.snapshot_file_name);
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        let mut store = Self {
            source: Source::Nothing,
            shards: config.shards,
            hash_seed: random()?,
            now_ms,
            progress: Progress::new("loading"),
            keys_loaded: AtomicU64::new(0),
            keys_expired: AtomicU64::new(0),
            is_cluster: false,
            alone: None,
        };
        if config.append_only {
            let journal = JournalStore::open(config, &dump, birth)?;
            store.shards = journal.manifest().shards;
            store.hash_seed = journal.manifest().hash_seed;
            store.source = Source::Journal(Box::new(journal));
        } else {
            warn_of_ignored_journal(&config.directory.join(&config.append_directory_name));
            if exists(&dump)? {
                store.source = Source::Dump(dump);
            }
        }
        store.expect_bytes(usize::from(config.cores))?;
        Ok(store)
    }

    /// Whether there is a directory with a journal already.
    ///
    /// # Errors
    /// A sentence that names the path.
    pub fn exists(config: &Config) -> Result<bool, String> {
        exists(&config.directory.join(&config.append_directory_name).join(names::MANIFEST))
    }

    /// A small file of the directory, before that is opened; `None`: there is no such file.
    ///
    /// # Errors
    /// A sentence that names the file.
    pub fn peek(config: &Config, name: &str) -> Result<Option<Vec<u8>>, String> {
        let path = config.directory.join(&config.append_directory_name).join(name);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            // What is no directory at all is for the start to refuse.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
            Err(error) => Err(format!("{} cannot be read ({error})", path.display())),
        }
    }

    /// Removes all that makes the directory a journal, these files first, durably and under its lock. After a crash within, what is
    /// left is no journal either, unless those are still there.
    ///
    /// # Errors
    /// A sentence that names the path.
    pub fn empty(config: &Config, first: &[&str]) -> Result<(), String> {
        journal::empty(&config.directory.join(&config.append_directory_name), first)
    }

    /// An id for a node, or a cluster, that is to be born.
    ///
    /// # Errors
    /// A sentence, if there is no randomness.
    pub fn new_id() -> Result<[u8; 16], String> {
        journal::random_id()
    }

    /// The directory belongs to a cluster.
    pub fn set_cluster(&mut self) {
        self.is_cluster = true;
    }

    /// Makes these replicas, by shard, the only members of their groups, as durably as the start itself: that the directory
    /// may have lost something is accepted with it.
    pub fn set_alone(&mut self, replicas: Vec<Option<ReplicaId>>) {
        if let Source::Journal(journal) = &mut self.source {
            journal.accept_loss();
        }
        self.alone = Some(replicas);
    }

    /// What the shards' logs come to, by shard.
    ///
    /// # Errors
    /// A sentence that names what cannot be read.
    pub fn summaries(&self) -> Result<Vec<LogSummary>, String> {
        self.journal().map_or(Ok(Vec::new()), JournalStore::summaries)
    }

    fn journal(&self) -> Option<&JournalStore> {
        match &self.source {
            Source::Journal(journal) => Some(journal),
            Source::Nothing | Source::Dump(_) => None,
        }
    }

    /// The folder of the journal; `None`: there is none.
    pub fn directory(&self) -> Option<&Path> {
        self.journal().map(JournalStore::directory)
    }

    /// The node's id.
    pub fn node_id(&self) -> Option<[u8; 16]> {
        self.journal().map(|journal| journal.manifest().node)
    }

    /// The cluster's id.
    pub fn cluster_id(&self) -> Option<[u8; 16]> {
        self.journal().map(|journal| journal.manifest().cluster)
    }

    /// Whether the directory may have lost what it had acknowledged.
    pub fn must_not_vote(&self) -> bool {
        self.journal().is_some_and(|journal| journal.manifest().must_not_vote)
    }

    /// Whether the machine was started anew since the directory was used: what was only in the page cache may be lost.
    pub fn has_other_boot(&self) -> bool {
        self.journal().is_some_and(JournalStore::has_other_boot)
    }

    /// A small file of the journal's folder; `None`: it is not there.
    ///
    /// # Errors
    /// A sentence that names the file.
    pub fn read_small(&self, name: &str) -> Result<Option<Vec<u8>>, String> {
        self.journal().map_or(Ok(None), |journal| journal.read_small(name))
    }

    /// Replaces a small file of the journal's folder, durably.
    ///
    /// # Errors
    /// A sentence that names the file.
    pub fn write_small(&self, name: &str, bytes: &[u8]) -> Result<(), String> {
        self.journal().map_or(Ok(()), |journal| journal.write_small(name, bytes))
    }

    /// Removes a small file of the directory, durably; a missing one is fine.
    ///
    /// # Errors
    /// A sentence that names the file.
    pub fn remove_small(&self, name: &str) -> Result<(), String> {
        self.journal().map_or(Ok(()), |journal| journal.remove_small(name))
    }

    /// How many shards there are: fixed once there is a directory.
    pub fn shards(&self) -> u16 {
        self.shards
    }

    /// The seed of the keyspace's hash: fixed like the shards, and new where nothing is kept.
    pub fn hash_seed(&self) -> u64 {
        self.hash_seed
    }

    /// Segments that earlier starts wrote; `None`: nothing is journalled.
    pub fn earlier(&self) -> Option<&Arc<EarlierSegments>> {
        match &self.source {
            Source::Journal(journal) => Some(journal.earlier()),
            Source::Nothing | Source::Dump(_) => None,
        }
    }

    /// The id of the node, and the snapshots that the journal of a core goes on from, by shard number, once it is loaded;
    /// `None`: nothing is journalled.
    pub fn snapshots(&self, states: &[ShardState]) -> Option<([u8; 16], Vec<ShardSnapshot>)> {
        match &self.source {
            Source::Journal(journal) => Some((journal.manifest().node, journal.snapshots(states))),
            Source::Nothing | Source::Dump(_) => None,
        }
    }

    /// Keys that were loaded, and those that were left out because they had expired.
    pub fn keys(&self) -> (u64, u64) {
        (self.keys_loaded.load(Ordering::Relaxed), self.keys_expired.load(Ordering::Relaxed))
    }

    /// Fills the shards of core `core`, which are empty. `owners` names every shard's core. To be called on the core's own
    /// thread, once.
    ///
    /// # Errors
    /// A sentence that names the file, and what in it cannot be loaded.
    pub fn load_core(
        &self,
        core: usize,
        owners: &[u16],
        executor: &mut Executor,
    ) -> Result<CoreLoad, String> {
        let (load, expired) = match &self.source {
            Source::Nothing => return Ok(CoreLoad { log: None, unfinished: Vec::new(), logs: Vec::new() }),
            Source::Dump(path) => {
                let expired = import::load(path, executor, self.now_ms, &self.progress)?;
                (CoreLoad { log: None, unfinished: Vec::new(), logs: Vec::new() }, expired)
            }
            Source::Journal(journal) => {
                let kind = (self.is_cluster, self.alone.as_deref());
                journal.load_core(core, owners, executor, self.now_ms, &self.progress, kind)?
            }
        };
        let shards = &executor.shards;
        executor.now_ms = shards.iter().map(Shard::time_ms).fold(executor.now_ms, u64::max);
        executor.due_ms = shards.iter().filter_map(Shard::next_due_ms).fold(u64::MAX, u64::min);
        executor.has_garbage = shards.iter().any(Shard::has_garbage);
        let keys: usize = shards.iter().map(key_count).sum();
        self.keys_loaded.fetch_add(keys as u64, Ordering::Relaxed);
        self.keys_expired.fetch_add(expired, Ordering::Relaxed);
        Ok(load)
    }

    /// Makes the start durable: to be called when every core has loaded, and before any of them goes on.
    ///
    /// # Errors
    /// A sentence that names the path.
    pub fn commit(&self) -> Result<(), String> {
        let bytes = self.progress.bytes_done();
        if bytes > 0 {
            let (seconds, mebibytes) = (self.progress.seconds(), bytes as f64 / f64::from(1 << 20));
            let (keys, expired) = self.keys();
            tracing::info!(
                keys,
                expired,
                "loaded {mebibytes:.1} MiB in {seconds:.3} s ({:.0} MiB/s)",
                mebibytes / seconds
            );
        }
        match &self.source {
            Source::Journal(journal) => journal.commit(),
            Source::Nothing | Source::Dump(_) => Ok(()),
        }
    }

    /// Says how much there is to load.
    fn expect_bytes(&self, cores: usize) -> Result<(), String> {
        let whole = match &self.source {
            Source::Nothing => return Ok(()),
            Source::Dump(path) => Some(path.as_path()),
            Source::Journal(journal) => journal.import(),
        };
        match (whole, &self.source) {
            // Every core reads the whole file.
            (Some(path), _) => self.progress.expect_bytes(length_bytes(path)? * cores as u64),
            (None, Source::Journal(journal)) => journal.expect_bytes(cores, &self.progress)?,
            (None, _) => {}
        }
        Ok(())
    }
}

/// The core that owns each shard: contiguous ranges, so that a walk over the slots visits core after core.
pub fn owners(shards: u16, cores: u16) -> Vec<u16> {
    let (shards, cores) = (usize::from(shards), usize::from(cores));
    (0..shards).map(|shard| (shard * cores / shards) as u16).collect()
}

/// Keys of all databases.
fn key_count(shard: &Shard) -> usize {
    (0..DATABASE_COUNT).map(|database| shard.key_count(database)).sum()
}

/// Random bytes from the kernel.
fn random() -> Result<u64, String> {
    crate::launch::random_u64().map_err(|error| format!("reading random bytes: {error}"))
}

fn exists(path: &Path) -> Result<bool, String> {
    path.try_exists()
        .map_err(|error| format!("{} cannot be looked at ({error}): change the rights", path.display()))
}

fn length_bytes(path: &Path) -> Result<u64, String> {
    let metadata = path.metadata();
    metadata.map(|metadata| metadata.len()).map_err(|error| {
        format!("{} cannot be read ({error}): change the rights of the file", path.display())
    })
}

fn warn_of_ignored_journal(directory: &Path) {
    if directory.join(names::MANIFEST).exists() {
        tracing::warn!("the journal in {} is ignored because appendonly is no", directory.display());
    }
}
