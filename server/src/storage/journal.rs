//! A directory with a journal: its manifest, what its journals and snapshots hold, and the next epoch.

use std::{
    collections::{BTreeMap, HashSet},
    fmt::Display,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use duva_engine::rdb::RdbOptions;
use duva_persist::{
    format::{BLOCK_BYTES_MAX, ShardState},
    journal::{Journal, JournalOptions, Write},
    manifest::Manifest,
    names,
    record::Record,
    recovery::{self, Directory, EntryKind, Replayed, Scan, ScanOptions, Unfinished},
};

use duva_raft::{AppliedLog, Payload, ReplicaId};

use super::{
    Birth, CoreLoad, EarlierSegment, EarlierSegments, ShardLog, SnapshotHeader, exists,
    folder::{Folder, TEMPORARY_SUFFIX},
    import, key_count, length_bytes, owners,
    progress::Progress,
    random,
    replay::Replayer,
    replicated::{Found, ReplicatedLogs},
    snapshot,
};
use crate::{
    cluster::{
        file::CLUSTER_FILE_NAME,
        recover::{self, LogSummary},
    },
    config::{AppendFsync, Config, Recovery, SHARD_COUNT_MAX, SHARDS_PER_CORE_MIN},
    core::{commit::Executor, log::LogOptions, save::ShardSnapshot},
};

/// Which hash orders the keys: [`duva_engine::Hasher`]'s.
const HASH_ALGORITHM: u16 = 1;

/// The index of the snapshots that an import makes: a shard's log begins behind it.
const IMPORT_INDEX: u64 = 1;

/// What the copy of a damaged file is called behind that file's name.
const DAMAGED_SUFFIX: &str = ".damaged";

/// Redis's own manifest, by which a folder of Redis's is recognised.
const REDIS_MANIFEST_SUFFIX: &str = ".aof.manifest";

/// A locked data directory, and what it holds.
pub(super) struct JournalStore {
    folder: Folder,
    /// As it will be once the epoch is taken, before the journals are begun.
    manifest: Manifest,
    scan: Scan,
    /// What the journals of the cores that are loaded begin with.
    beginnings: Mutex<Vec<Beginning>>,
    /// The `dump.rdb` that a new directory begins with.
    import: Option<PathBuf>,
    earlier: Arc<EarlierSegments>,
    /// Whether the machine was started anew since this directory was used.
    has_other_boot: bool,
    options: Options,
}

/// What a core's journal begins with.
struct Beginning {
    core: u16,
    write: Write,
}

/// What the configuration says.
struct Options {
    segment_bytes: u32,
    fsync: AppendFsync,
    cores: u16,
    rdb: RdbOptions,
    has_checksum: bool,
}

impl JournalStore {
    /// Opens the directory that `config` names; a new one begins with what is in `dump`, if that is there.
    pub(super) fn open(config: &Config, dump: &Path, birth: Option<&Birth>) -> Result<Self, String> {
        let folder = Folder::open(&config.directory.join(&config.append_directory_name))?;
        let names = remove_temporaries(&folder)?;
        let (before, is_new) = match folder.read_small(names::MANIFEST)? {
            Some(bytes) => (decode(&folder, &bytes)?, false),
            None => (new_manifest(config.shards, birth)?, true),
        };
        let mut import = None;
        if is_new {
            import = exists(dump)?.then(|| dump.to_owned());
            check_new(&folder, &names, import.is_some())?;
        } else {
            check_shards(&folder, config, before.shards)?;
        }
        let scan = scan(&folder, config, &before)?;
        let manifest = Manifest { kernel_boot: kernel_boot(), ..scan.next_manifest(&before) };
        let earlier = Arc::new(EarlierSegments::new(earlier(&folder, &scan)));
        let options = Options {
            segment_bytes: config.segment_size_bytes,
            fsync: config.append_fsync,
            cores: config.cores,
            rdb: RdbOptions { compress: config.snapshot_is_compressed },
            has_checksum: config.snapshot_has_checksum,
        };
        let store = Self {
            has_other_boot: before.kernel_boot != manifest.kernel_boot,
            folder,
            manifest,
            scan,
            beginnings: Mutex::new(Vec::new()),
            import,
            earlier,
            options,
        };
        store.check_segment_size()?;
        Ok(store)
    }

    pub(super) fn directory(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn has_other_boot(&self) -> bool {
        self.has_other_boot
    }

    /// The directory counts as one that lost nothing, once the start is durable.
    pub(super) fn accept_loss(&mut self) {
        self.manifest.must_not_vote = false;
    }

    /// What the shards' logs come to, by shard.
    pub(super) fn summaries(&self) -> Result<Vec<LogSummary>, String> {
        let progress = Progress::new("looking at the shards' logs");
        let mut memberships: Vec<Vec<u8>> = Vec::new();
        for found in self.scan.snapshots() {
            let membership = found.as_ref().map(|found| {
                let mut head = Vec::new();
                self.folder.read_head(&found.name, snapshot::FIELDS_BYTES_MAX, &mut head).map_err(
                    |error| format!("{} cannot be read: {error}", self.folder.path_of(&found.name).display()),
                )?;
                Ok::<_, String>(snapshot::snapshot_membership(&head))
            });
            memberships.push(membership.transpose()?.unwrap_or_default());
        }
        for segment in self.scan.segments() {
            progress.expect_bytes(segment.end.into());
        }
        let directory = Watched { folder: &self.folder, scan: Some(&self.scan), progress: &progress };
        let snapshots = self.scan.snapshots();
        let wants =
            |shard: u16| Some(snapshots.get(usize::from(shard))?.as_ref().map_or(0, |found| found.index));
        let replayed = self.scan.replay_log(&directory, wants, |entry| {
            if entry.kind == EntryKind::Membership {
                memberships[usize::from(entry.shard)] = entry.payload.to_vec();
            }
            Ok::<(), &'static str>(())
        });
        self.check_log(&replayed.map_err(|error| self.refused(&error))?)?;
        let summary = |(state, membership): (ShardState, Vec<u8>)| {
            let membership = recover::last_membership(&membership, std::iter::empty())
                .map_err(|what| self.refused(&format!("shard {}: {what}", state.shard.get())))?;
            Ok(LogSummary {
                last_index: state.last_index.get(),
                last_term: state.last_term.get(),
                membership,
            })
        };
        self.scan.states().into_iter().zip(memberships).map(summary).collect()
    }

    pub(super) fn read_small(&self, name: &str) -> Result<Option<Vec<u8>>, String> {
        self.folder.read_small(name)
    }

    pub(super) fn write_small(&self, name: &str, bytes: &[u8]) -> Result<(), String> {
        self.folder.replace(name, bytes)
    }

    pub(super) fn remove_small(&self, name: &str) -> Result<(), String> {
        self.folder.remove(name)?;
        self.folder.sync()
    }

    pub(super) fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    pub(super) fn earlier(&self) -> &Arc<EarlierSegments> {
        &self.earlier
    }

    /// The snapshots that these shards go on from, by shard number.
    pub(super) fn snapshots(&self, states: &[ShardState]) -> Vec<ShardSnapshot> {
        let mut snapshots = vec![ShardSnapshot::default(); usize::from(self.manifest.shards)];
        for state in states {
            let (shard, index) = (state.shard.get(), state.snapshot_index.get());
            if index > 0 {
                let path = self.folder.path_of(&names::snapshot(shard, index));
                // The size only says when a rewrite pays.
                let bytes = length_bytes(&path).unwrap_or(0);
                snapshots[usize::from(shard)] = ShardSnapshot { index, bytes };
            }
        }
        snapshots
    }

    /// The file that is imported.
    pub(super) fn import(&self) -> Option<&Path> {
        self.import.as_deref()
    }

    /// Says how much the cores will read.
    pub(super) fn expect_bytes(&self, cores: usize, progress: &Progress) -> Result<(), String> {
        for snapshot in self.scan.snapshots().iter().flatten() {
            progress.expect_bytes(length_bytes(&self.folder.path_of(&snapshot.name))?);
        }
        let owners = owners(self.manifest.shards, cores as u16);
        for segment in self.scan.segments() {
            let mut readers: Vec<u16> = segment
                .shards
                .iter()
                .filter_map(|&(shard, _)| owners.get(usize::from(shard)).copied())
                .collect();
            readers.sort_unstable();
            readers.dedup();
            progress.expect_bytes(u64::from(segment.end) * readers.len() as u64);
        }
        Ok(())
    }

    /// Fills a core's shards: those of an import, or from their snapshots and the journals. Returns what the core goes on with,
    /// and how many keys were left out because they had expired at `now_ms`. `alone` names replicas that are to be their groups'
    /// only members.
    pub(super) fn load_core(
        &self,
        core: usize,
        owners: &[u16],
        executor: &mut Executor,
        now_ms: u64,
        progress: &Progress,
        (is_cluster, alone): (bool, Option<&[Option<ReplicaId>]>),
    ) -> Result<(CoreLoad, u64), String> {
        let mut states = self.scan.states();
        let mut expired = 0;
        let mut unfinished = Vec::new();
        let (mut logs, mut kept_bytes) = (Vec::new(), 0);
        let memberships = if let Some(path) = &self.import {
            expired = import::load(path, executor, now_ms, progress)?;
            self.save_imported(&mut states, executor)?;
            BTreeMap::new()
        } else {
            self.load_snapshots(&mut states, executor, progress)?
        };
        if is_cluster {
            let found = self.read_logs((core, owners), &states, memberships, executor, progress)?;
            (logs, kept_bytes) = (found.logs, found.kept_bytes);
        } else if self.import.is_none() {
            unfinished = self.replay(core, owners, executor, progress)?;
        }
        for shard in executor.shards.iter() {
            let state = &mut states[executor.shards.number_of(shard.slots().start)];
            state.time_ms = state.time_ms.get().max(shard.time_ms()).into();
        }
        let begun = match alone {
            Some(replicas) => make_alone(&mut logs, &mut states, replicas)?,
            None => Vec::new(),
        };
        // By shard: none of another core's was applied here.
        let is_own = |shard: u16| usize::from(owners[usize::from(shard)]) == core;
        let in_cluster: BTreeMap<u16, u64> =
            logs.iter().map(|log| (log.shard, log.applied_index())).collect();
        let last_index = |state: &ShardState| match is_own(state.shard.get()) {
            true if is_cluster => in_cluster.get(&state.shard.get()).copied().unwrap_or(0),
            true => state.last_index.get(),
            false => 0,
        };
        let applied = states.iter().map(last_index).collect();
        states.retain(|state| is_own(state.shard.get()));
        let log = LogOptions {
            journal: self.begin_journal(core as u16, states, &begun, now_ms),
            directory: self.folder.path().to_owned(),
            segment_len_bytes: self.options.segment_bytes,
            fsync: self.options.fsync,
            applied,
            begun: begun.iter().map(|(record, _)| (record.shard, record.index)).collect(),
            kept_bytes,
            earlier_bytes: self.earlier_bytes(core),
        };
        Ok((CoreLoad { log: Some(log), unfinished, logs }, expired))
    }

    /// The journal that a core goes on with, which counts as begun with these records: [`Self::commit`] makes it so.
    fn begin_journal(
        &self,
        core: u16,
        states: Vec<ShardState>,
        records: &[FirstRecord],
        now_ms: u64,
    ) -> Journal {
        let first_sequence = self.scan.next_sequence(core);
        let mut journal = Journal::new(self.journal_options(core), first_sequence, states);
        let write = journal.begin_with(now_ms, |journal| {
            for (record, payload) in records {
                journal.append(record, |out| out.extend_from_slice(payload));
            }
        });
        self.beginnings.lock().unwrap_or_else(PoisonError::into_inner).push(Beginning { core, write });
        journal
    }

    /// Writes what was imported into a core's shards as their first snapshots.
    fn save_imported(&self, states: &mut [ShardState], executor: &mut Executor) -> Result<(), String> {
        let shift = executor.shards.slot_shift();
        for shard in executor.shards.iter_mut() {
            if key_count(shard) == 0 {
                continue;
            }
            let header = SnapshotHeader {
                shard: shard.slots().start >> shift,
                index: IMPORT_INDEX,
                term: 0,
                time_ms: shard.time_ms(),
                node: self.manifest.node,
                membership: Vec::new(),
            };
            snapshot::write(&self.folder, &header, shard, self.options.rdb, self.options.has_checksum)?;
            let state = &mut states[usize::from(header.shard)];
            state.last_index = IMPORT_INDEX.into();
            state.snapshot_index = IMPORT_INDEX.into();
        }
        Ok(())
    }

    /// Loads the snapshots of the executor's shards, and lets the states know what only the files do. Returns who replicated
    /// each shard, where a file says that.
    fn load_snapshots(
        &self,
        states: &mut [ShardState],
        executor: &mut Executor,
        progress: &Progress,
    ) -> Result<BTreeMap<u16, Vec<u8>>, String> {
        let hasher = executor.hasher.clone();
        let shift = executor.shards.slot_shift();
        let mut memberships = BTreeMap::new();
        for shard in executor.shards.iter_mut() {
            let number = shard.slots().start >> shift;
            let Some(found) = &self.scan.snapshots()[usize::from(number)] else { continue };
            let path = self.folder.path_of(&found.name);
            let expected = (number, found.index);
            let node = Some(&self.manifest.node);
            let header = snapshot::load(&path, expected, node, shard, &hasher, progress)?;
            let state = &mut states[usize::from(number)];
            state.snapshot_index = header.index.into();
            state.snapshot_term = header.term.into();
            if state.last_index.get() == header.index {
                state.last_term = header.term.into();
            }
            memberships.insert(number, header.membership);
        }
        Ok(memberships)
    }

    /// Reads the logs of a core's shards behind their snapshots, and applies what is known to be committed.
    fn read_logs(
        &self,
        (core, owners): (usize, &[u16]),
        states: &[ShardState],
        mut memberships: BTreeMap<u16, Vec<u8>>,
        executor: &mut Executor,
        progress: &Progress,
    ) -> Result<Found, String> {
        let own = states.iter().filter(|state| usize::from(owners[usize::from(state.shard.get())]) == core);
        let logs = own.map(|state| {
            let shard = state.shard.get();
            let log = ShardLog {
                shard,
                term: state.term.get(),
                vote: state.vote.get(),
                snapshot_index: state.snapshot_index.get(),
                snapshot_term: state.snapshot_term.get(),
                membership: memberships.remove(&shard).unwrap_or_default(),
                applied: AppliedLog::default(),
                entries: Vec::new(),
            };
            (log, self.scan.committed_to()[usize::from(shard)])
        });
        let mut logs = ReplicatedLogs::new(executor, logs.collect(), self.options.segment_bytes);
        let above = logs.wants();
        let directory = Watched { folder: &self.folder, scan: Some(&self.scan), progress };
        let replayed =
            self.scan.replay_log(&directory, |shard| above.get(&shard).copied(), |entry| logs.take(&entry));
        self.check_log(&replayed.map_err(|error| self.refused(&error))?)?;
        let found = logs.finish().map_err(|error| self.refused(&error))?;
        if found.applied + found.kept > 0 {
            tracing::info!(
                core,
                applied = found.applied,
                kept = found.kept,
                kept_bytes = found.kept_bytes,
                "applied what is known to be committed, and kept the other entries"
            );
        }
        Ok(found)
    }

    /// Refuses logs that hold parts of transactions that a server alone has not finished.
    fn check_log(&self, replayed: &Replayed) -> Result<(), String> {
        if replayed.unfinished.is_empty() {
            return Ok(());
        }
        Err(format!(
            "{} was left in the middle of a transaction: start the server once without cluster",
            self.folder.path().display()
        ))
    }

    /// Applies what the journals hold behind the snapshots of the executor's shards.
    fn replay(
        &self,
        core: usize,
        owners: &[u16],
        executor: &mut Executor,
        progress: &Progress,
    ) -> Result<Vec<Unfinished>, String> {
        let wants = |shard: u16| {
            let number = usize::from(shard);
            let is_own = usize::from(*owners.get(number)?) == core;
            is_own.then(|| self.scan.snapshots()[number].as_ref().map_or(0, |found| found.index))
        };
        let mut replayer = Replayer::new(executor);
        let directory = Watched { folder: &self.folder, scan: Some(&self.scan), progress };
        let replayed = self.scan.replay(&directory, wants, |entry| replayer.take(&entry));
        let flushed = replayer.flush();
        let unfinished = replayed.map_err(|error| self.refused(&error))?.unfinished;
        flushed.map_err(|error| self.refused(&error))?;
        Ok(unfinished)
    }

    /// Makes the start durable.
    pub(super) fn commit(&self) -> Result<(), String> {
        if let Some(lost) = self.scan.lost() {
            for (file, _) in &lost.places {
                // One that is missing has nothing to be kept.
                if exists(&self.folder.path_of(file))? {
                    let copy = self.folder.keep_copy(file, DAMAGED_SUFFIX)?;
                    tracing::warn!("kept {} as it was found, as {copy}", self.folder.path_of(file).display());
                }
            }
            tracing::warn!("{}: data was lost: {}", self.folder.path().display(), lost.sentence);
        }
        // What a killed server wrote may be in the page cache only. If a sync of it failed before, the cache may count as
        // clean: only what is written again is written out.
        for segment in self.scan.segments().iter().filter(|segment| segment.synced_to < segment.end) {
            self.folder.write_again(&segment.name, segment.synced_to.into()..segment.end.into())?;
        }
        self.folder.sync()?;
        self.folder.replace(names::MANIFEST, &self.manifest.encode())?;
        self.write_beginnings()?;
        let begun = self.scan.begun_manifest(&self.manifest, self.options.cores);
        self.folder.replace(names::MANIFEST, &begun.encode())?;
        self.remove_unneeded();
        Ok(())
    }

    /// Makes durable what every core's journal begins with. The files get their length later.
    fn write_beginnings(&self) -> Result<(), String> {
        let mut beginnings =
            std::mem::take(&mut *self.beginnings.lock().unwrap_or_else(PoisonError::into_inner));
        beginnings.sort_by_key(|beginning| beginning.core);
        let cores = beginnings.iter().map(|beginning| beginning.core);
        assert!(cores.eq(0..self.options.cores), "a start is committed once every core is loaded");
        let write = |Beginning { core, write }: &Beginning| {
            self.folder.create_whole(&names::segment(*core, write.sequence), &write.bytes)
        };
        // Each waits for the disk, and the disk can do several at a time.
        thread::scope(|scope| {
            let writers: Vec<_> =
                beginnings.iter().map(|beginning| scope.spawn(move || write(beginning))).collect();
            let mut written =
                writers.into_iter().map(|writer| writer.join().expect("writing does not panic"));
            written.try_for_each(|result| result)
        })?;
        self.folder.sync()
    }

    /// Removes segments that hold nothing, snapshots that newer ones replace, and what comes behind the end of journals, now
    /// that the journals are begun, which carry on all that those without an entry say. What cannot be removed does no harm.
    fn remove_unneeded(&self) {
        let newest = self.manifest.epoch - 1;
        for segment in
            self.scan.segments().iter().filter(|segment| segment.epoch == newest && segment.end > 0)
        {
            // The journal may end within a block, which stays whole.
            let kept_bytes = u64::from(segment.end) + BLOCK_BYTES_MAX as u64;
            if let Err(sentence) = self.folder.shorten(&segment.name, kept_bytes) {
                tracing::warn!("{sentence}");
            }
        }
        let chosen = |shard: u16| self.scan.snapshots().get(usize::from(shard))?.as_ref();
        let is_replaced = |name: &String| {
            let Some((shard, index)) = names::parse_snapshot(name) else { return false };
            chosen(shard).is_some_and(|chosen| index < chosen.index)
        };
        let names = self.folder.names().unwrap_or_default();
        let idle = self.scan.idle_segments().map(|segment| &segment.name);
        let replaced = names.iter().filter(|name| is_replaced(name));
        for name in self.scan.empty().iter().chain(idle).chain(replaced) {
            if let Err(sentence) = self.folder.remove(name) {
                tracing::warn!("{sentence}");
            }
        }
    }

    /// Bytes of earlier segments that count as this core's.
    fn earlier_bytes(&self, core: usize) -> u64 {
        let cores = usize::from(self.options.cores);
        let own = self.scan.segments().iter().filter(|segment| usize::from(segment.core) % cores == core);
        own.map(|segment| u64::from(segment.end)).sum()
    }

    fn journal_options(&self, core: u16) -> JournalOptions {
        JournalOptions {
            core,
            epoch: self.manifest.epoch,
            segment_len: self.options.segment_bytes,
            cluster: self.manifest.cluster,
            node: self.manifest.node,
            kernel_boot: self.manifest.kernel_boot,
        }
    }

    fn check_segment_size(&self) -> Result<(), String> {
        let shards = usize::from(self.manifest.shards).div_ceil(usize::from(self.options.cores));
        self.journal_options(0).check(shards).map_err(|error| format!("{error}: change segment-size"))
    }

    fn refused(&self, error: &dyn Display) -> String {
        refused(&self.folder, error)
    }
}

/// A record that a journal begins with, and its payload.
type FirstRecord = (Record, Payload);

/// Makes replicas, by shard, the only members of their groups; returns the entries that say so, for the logs that did not yet.
fn make_alone(
    logs: &mut [ShardLog],
    states: &mut [ShardState],
    replicas: &[Option<ReplicaId>],
) -> Result<Vec<FirstRecord>, String> {
    let mut records = Vec::new();
    for log in logs {
        let shard = log.shard;
        let Some(replica) = replicas.get(usize::from(shard)).copied().flatten() else { continue };
        if recover::make_alone(log, replica)?
            && let Some(entry) = log.entries.last()
        {
            let state = &mut states[usize::from(shard)];
            (state.term, state.vote) = (log.term.into(), log.vote.into());
            let record = Record { index: entry.index, term: entry.term, ..Record::new(entry.kind, shard) };
            records.push((record, entry.payload.clone()));
        }
    }
    Ok(records)
}

/// A folder that counts what is read.
struct Watched<'a> {
    folder: &'a Folder,
    /// Says how much of a segment is needed; `None`: all of it.
    scan: Option<&'a Scan>,
    progress: &'a Progress,
}

impl Directory for Watched<'_> {
    fn list(&self) -> io::Result<Vec<String>> {
        self.folder.list()
    }

    fn read(&self, name: &str, buffer: &mut Vec<u8>) -> io::Result<()> {
        let segment = self.scan.and_then(|scan| scan.segments().iter().find(|segment| segment.name == name));
        match segment {
            Some(segment) => self.folder.read_head(name, segment.end as usize, buffer)?,
            None => self.folder.read(name, buffer)?,
        }
        self.progress.add_bytes(buffer.len() as u64);
        Ok(())
    }

    fn read_head(&self, name: &str, bytes: usize, buffer: &mut Vec<u8>) -> io::Result<()> {
        self.folder.read_head(name, bytes, buffer)
    }

    fn snapshot_term(&self, name: &str) -> io::Result<Option<u64>> {
        let mut head = Vec::new();
        self.folder.read_head(name, snapshot::FIELDS_BYTES_MAX, &mut head)?;
        Ok(snapshot::snapshot_term(&head))
    }
}

/// Removes what a killed server had not finished; returns the names of the rest.
/// Removes what makes a folder a journal; `first` before all else.
pub(super) fn empty(path: &Path, first: &[&str]) -> Result<(), String> {
    let folder = Folder::open(path)?;
    for name in first.iter().chain(&[names::MANIFEST]) {
        folder.remove(name)?;
        folder.sync()?;
    }
    for name in folder.names()? {
        if names::parse_segment(&name).is_some() || names::parse_snapshot(&name).is_some() {
            folder.remove(&name)?;
        }
    }
    folder.sync()
}

fn remove_temporaries(folder: &Folder) -> Result<Vec<String>, String> {
    let is_unfinished = |name: &String| {
        name.strip_suffix(TEMPORARY_SUFFIX).is_some_and(|stem| {
            stem == names::MANIFEST || names::parse_snapshot(stem).is_some() || stem.contains(DAMAGED_SUFFIX)
        })
    };
    let (unfinished, rest): (Vec<_>, Vec<_>) = folder.names()?.into_iter().partition(is_unfinished);
    for name in &unfinished {
        folder.remove(name)?;
    }
    Ok(rest)
}

fn decode(folder: &Folder, bytes: &[u8]) -> Result<Manifest, String> {
    let path = folder.path_of(names::MANIFEST);
    let advice = "restore the directory from a copy";
    let manifest = Manifest::decode(bytes).map_err(|error| format!("{}: {error}", path.display()))?;
    if manifest.hash_algorithm != HASH_ALGORITHM {
        let algorithm = manifest.hash_algorithm;
        return Err(format!(
            "{} names hash {algorithm}, which this server does not have: {advice}",
            path.display()
        ));
    }
    if !manifest.shards.is_power_of_two() || manifest.shards > SHARD_COUNT_MAX {
        return Err(format!(
            "{} names {} shards, which cannot be: {advice}",
            path.display(),
            manifest.shards
        ));
    }
    Ok(manifest)
}

/// The manifest of a directory that has never been used.
fn new_manifest(shards: u16, birth: Option<&Birth>) -> Result<Manifest, String> {
    let birth = match birth {
        Some(birth) => *birth,
        None => Birth { cluster: random_id()?, node: random_id()?, shards, hash_seed: random()? },
    };
    let Birth { cluster, node, shards, hash_seed } = birth;
    Ok(Manifest {
        cluster,
        node,
        kernel_boot: kernel_boot(),
        hash_seed,
        hash_algorithm: HASH_ALGORITHM,
        shards,
        epoch: 0,
        must_not_vote: false,
        starts: Vec::new(),
        cuts: Vec::new(),
        truncations: Vec::new(),
    })
}

pub(super) fn random_id() -> Result<[u8; 16], String> {
    let value = u128::from(random()?) << 64 | u128::from(random()?);
    Ok(value.to_be_bytes())
}

/// The kernel's boot id; zero if it does not tell.
fn kernel_boot() -> [u8; 16] {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    u128::from_str_radix(&digits, 16).unwrap_or(0).to_be_bytes()
}

/// Refuses a directory that has data but no manifest; removes what an import left that was not finished.
fn check_new(folder: &Folder, names: &[String], is_import: bool) -> Result<(), String> {
    let path = folder.path().display();
    let advice = "restore the manifest from a copy, or move the directory away";
    if names.iter().any(|name| names::parse_segment(name).is_some()) {
        return Err(format!("the data directory {path} has segments but no manifest: {advice}"));
    }
    if names.iter().any(|name| name.ends_with(REDIS_MANIFEST_SUFFIX)) {
        return Err(format!(
            "{path} holds an append-only file of Redis, which this server does not read: save a dump.rdb with Redis, \
             and move {path} away"
        ));
    }
    let snapshots: Vec<_> =
        names.iter().filter_map(|name| Some((name, names::parse_snapshot(name)?))).collect();
    if snapshots.iter().any(|&(_, (_, index))| !is_import || index != IMPORT_INDEX) {
        return Err(format!("the data directory {path} has snapshots but no manifest: {advice}"));
    }
    snapshots.iter().try_for_each(|(name, _)| folder.remove(name))
}

/// Refuses a configuration that does not go with the directory's number of shards.
fn check_shards(folder: &Folder, config: &Config, shards: u16) -> Result<(), String> {
    let path = folder.path().display();
    // A cluster's number holds, as its start says.
    let is_clusters = folder.path_of(CLUSTER_FILE_NAME).exists();
    if config.is_shard_count_given && config.shards != shards && !is_clusters {
        return Err(format!(
            "the data directory {path} has {shards} shards and shards is {}: the number is fixed when a directory is \
             created; leave shards away, or use another dir",
            config.shards
        ));
    }
    if shards < config.cores {
        return Err(format!(
            "the data directory {path} has {shards} shards, too few for {} cores: lower cores",
            config.cores
        ));
    }
    if shards < config.cores.saturating_mul(SHARDS_PER_CORE_MIN) {
        tracing::warn!(
            "the data directory {path} has {shards} shards, fewer than {SHARDS_PER_CORE_MIN} for each of {} cores",
            config.cores
        );
    }
    Ok(())
}

/// Reads what the journals hold.
fn scan(folder: &Folder, config: &Config, manifest: &Manifest) -> Result<Scan, String> {
    let progress = Progress::new("checking the journal");
    for name in folder.names()?.iter().filter(|name| names::parse_segment(name).is_some()) {
        progress.expect_bytes(length_bytes(&folder.path_of(name))?);
    }
    let directory = Watched { folder, scan: None, progress: &progress };
    let threads = thread::available_parallelism().map_or(1, usize::from).max(config.cores.into());
    let options = ScanOptions { truncate: config.recovery == Recovery::Truncate, threads };
    recovery::scan(&directory, manifest, options).map_err(|error| refused(folder, &error))
}

fn refused(folder: &Folder, error: &dyn Display) -> String {
    format!("the data directory {} cannot be recovered: {error}", folder.path().display())
}

fn earlier(folder: &Folder, scan: &Scan) -> Vec<EarlierSegment> {
    let segment = |segment: &recovery::Segment| EarlierSegment {
        path: folder.path_of(&segment.name),
        core: segment.core,
        bytes: segment.end.into(),
        last_indexes: segment.shards.clone(),
    };
    // The start itself removes those.
    let idle: HashSet<&str> = scan.idle_segments().map(|idle| idle.name.as_str()).collect();
    scan.segments().iter().filter(|segment| !idle.contains(&*segment.name)).map(segment).collect()
}
