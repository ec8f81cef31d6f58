//! A data directory through all its lives, and what must be found in it at each start.

use std::{io, mem::offset_of, rc::Rc};

use duva_persist::{
    format::{BLOCK_ALIGN, BlockHeader},
    journal::Journal,
    manifest::{Cut, Manifest},
    names,
    recovery::{Directory, EntryKind, RecoveryError, Scan, ScanOptions, scan},
};
use zerocopy::{FromBytes, IntoBytes};

use crate::{
    Mutation,
    disk::Disk,
    life::{Life, Used, home, journals},
    model::{Log, Op, Open, Visit},
    random::Random,
};

const SHARDS: u16 = 5;
const CORES_MAX: u64 = 4;

pub(crate) struct World {
    random: Random,
    disk: Disk,
    mutation: Option<Mutation>,
    /// The shards at the last start that came to its end.
    base: Vec<Log>,
    /// By core: what was appended since.
    journals: Vec<Appended>,
    /// The same of all earlier lives.
    past: Vec<(Vec<Log>, Vec<Appended>)>,
    /// In that epoch.
    epoch: u64,
    used: Used,
    /// Snapshots may cover prepared parts that are not finished.
    snapshots_hold_parts: bool,
    /// Something acknowledged was given up: transactions may be halved.
    truncated: bool,
    seen: Seen,
}

struct Appended {
    ops: Vec<Op>,
    /// So many are acknowledged.
    acknowledged: usize,
    /// So many will be there even if power is lost before they are recovered.
    synced: usize,
}

/// How often what happened.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    lives: u64,
    power_losses: u64,
    crashed_starts: u64,
    /// Ops that were not acknowledged: kept, and dropped.
    kept: u64,
    dropped: u64,
    visited: u64,
    snapshots: u64,
    unfinished: u64,
    /// Shards of which something behind the snapshot was known to be committed.
    known: u64,
    recycled: u64,
    disk_failures: u64,
    flips_refused: u64,
    flips_harmless: u64,
    truncations: u64,
    losses_refused: u64,
    losses_harmless: u64,
}

impl Seen {
    pub(crate) fn add(&mut self, other: Self) {
        let mut sums = self.numbers();
        for (sum, number) in sums.iter_mut().zip(other.clone().numbers()) {
            **sum += *number;
        }
    }

    /// Whether everything that the test is about happened at all.
    pub(crate) fn check(&mut self) {
        assert!(self.numbers().iter().all(|number| **number > 0), "{self:?}");
    }

    fn numbers(&mut self) -> [&mut u64; 16] {
        [
            &mut self.lives,
            &mut self.power_losses,
            &mut self.crashed_starts,
            &mut self.kept,
            &mut self.dropped,
            &mut self.visited,
            &mut self.snapshots,
            &mut self.unfinished,
            &mut self.known,
            &mut self.recycled,
            &mut self.disk_failures,
            &mut self.flips_refused,
            &mut self.flips_harmless,
            &mut self.truncations,
            &mut self.losses_refused,
            &mut self.losses_harmless,
        ]
    }
}

/// A start that was found to be right, before it changed anything.
struct Found {
    scan: Scan,
    logs: Vec<Log>,
}

/// By shard: what was visited, and what is unfinished.
type Replayed = (Vec<Vec<Visit>>, Vec<Vec<Open>>);

/// A start that has come to its end.
struct Started {
    manifest: Manifest,
    found: Found,
    journals: Vec<Journal>,
}

/// What is left of a start that crashed.
struct Crashed;

/// When a start crashes: after so many more places where it can; 0: never.
struct Crash {
    places: u64,
}

impl Crash {
    fn is_here(&mut self) -> bool {
        self.places = self.places.wrapping_sub(1);
        self.places == 0
    }

    fn here(&mut self) -> Result<(), Crashed> {
        if self.is_here() { Err(Crashed) } else { Ok(()) }
    }
}

impl World {
    /// Lives several lives; an error says what is wrong.
    pub(crate) fn run(seed: u64, mutation: Option<Mutation>) -> Result<Seen, String> {
        let mut random = Random::new(seed);
        let mut world = Self {
            snapshots_hold_parts: random.once_in(2),
            random,
            disk: Disk::default(),
            mutation,
            base: vec![Log::default(); usize::from(SHARDS)],
            journals: Vec::new(),
            past: Vec::new(),
            epoch: 0,
            used: Used::default(),
            truncated: false,
            seen: Seen::default(),
        };
        let manifest = Manifest {
            cluster: [1; 16],
            node: [2; 16],
            kernel_boot: [3; 16],
            hash_seed: 0,
            hash_algorithm: 1,
            shards: SHARDS,
            epoch: 0,
            must_not_vote: false,
            starts: Vec::new(),
            cuts: Vec::new(),
            truncations: Vec::new(),
        };
        world.disk.create(names::MANIFEST);
        world.write_durably(names::MANIFEST, &manifest.encode());
        world.disk.sync_names();
        for _ in 0..2 + world.random.below(4) {
            world.live()?;
        }
        // Once more, to see what the last one left.
        world.find(false)?;
        Ok(world.seen)
    }

    /// One life: starts, runs, crashes.
    fn live(&mut self) -> Result<(), String> {
        self.seen.lives += 1;
        self.lose_files()?;
        let truncate = self.flip()?;
        let Started { manifest, found, journals } = loop {
            let may_crash = !truncate && self.random.once_in(2);
            match self.start(truncate, may_crash)? {
                Ok(started) => break started,
                Err(Crashed) => self.seen.crashed_starts += 1,
            }
            if self.random.once_in(2) {
                self.lose_power();
            }
            self.lose_files()?;
        };
        let base = std::mem::replace(&mut self.base, found.logs.clone());
        self.past.push((base, std::mem::take(&mut self.journals)));
        self.epoch = manifest.epoch;
        if self.random.once_in(6) {
            self.disk.fails_in = Some(self.random.below(40) as u32);
        }
        let steps = 20 + self.random.below(400);
        let mut life = Life::new(
            &mut self.disk,
            &mut self.random,
            &mut self.used,
            self.mutation,
            (&manifest, &found.scan),
            journals,
            found.logs,
        );
        life.snapshots_hold_parts = self.snapshots_hold_parts;
        life.run(steps);
        life.end();
        self.seen.recycled += life.recycled;
        self.journals = std::mem::take(&mut life.cores)
            .into_iter()
            .map(|core| Appended {
                acknowledged: core.ops_before(core.journal.written_to()),
                synced: core.ops_before(core.journal.synced_to()),
                ops: core.ops,
            })
            .collect();
        self.seen.disk_failures += u64::from(self.disk.fails_in == Some(0));
        self.disk.fails_in = None;
        if self.random.once_in(2) {
            self.lose_power();
        }
        Ok(())
    }

    fn lose_power(&mut self) {
        self.seen.power_losses += 1;
        self.disk.lose_power(&mut self.random);
        self.journals.iter_mut().for_each(|journal| journal.acknowledged = journal.synced);
    }

    /// A server's start, up to where it serves, or to a crash.
    fn start(&mut self, truncate: bool, may_crash: bool) -> Result<Result<Started, Crashed>, String> {
        // Somewhere in the first few places where it can.
        let mut crash = Crash { places: if may_crash { self.random.below(24) + 1 } else { 0 } };
        let found = self.find(truncate)?;
        let manifest = self.manifest()?;
        let mut next = found.scan.next_manifest(&manifest);
        match self.mutation {
            Some(Mutation::ReuseEpoch) if manifest.epoch > 0 => {
                next.epoch = manifest.epoch;
                next.cuts.retain(|cut| cut.epoch < manifest.epoch);
            }
            Some(Mutation::CutLate) => {
                let late = |cut: &mut Cut| cut.end.0 |= u64::from(u32::MAX);
                next.cuts.iter_mut().filter(|cut| cut.epoch == manifest.epoch).for_each(late);
            }
            _ => {}
        }
        let cores = 1 + self.random.below(CORES_MAX) as u16;
        let mut journals = journals((&next, &found.scan), cores, self.mutation);
        let begun = found.scan.begun_manifest(&next, cores);
        let mut steps = || {
            self.keep(&found.scan, &mut crash)?;
            self.record(&next, &mut crash)?;
            if self.mutation == Some(Mutation::RemoveEarly) {
                self.remove_idle(&found.scan, &mut crash)?;
            }
            self.begin(&mut journals, &mut crash)?;
            self.record(&begun, &mut crash)?;
            self.remove_idle(&found.scan, &mut crash)
        };
        let result = steps();
        Ok(result.map(|()| Started { manifest: begun, found, journals }))
    }

    /// Makes what is kept of the journals durable.
    fn keep(&mut self, scan: &Scan, crash: &mut Crash) -> Result<(), Crashed> {
        if self.mutation == Some(Mutation::KeepUnsynced) {
            return Ok(());
        }
        for segment in scan.segments().iter().filter(|segment| segment.synced_to < segment.end) {
            if self.mutation != Some(Mutation::TrustSync) {
                let content = self.disk.content(&segment.name).unwrap_or_default();
                let end = content.len().min(segment.end as usize);
                let bytes = content[segment.synced_to as usize..end].to_vec();
                let written =
                    self.disk.write(&segment.name, segment.synced_to as usize, &bytes, &mut self.random);
                written.expect("the disk does not fail now");
            }
            crash.here()?;
            self.disk.sync(&segment.name).expect("the disk does not fail now");
            crash.here()?;
        }
        Ok(())
    }

    /// Begins every core's journal, in any order.
    fn begin(&mut self, journals: &mut [Journal], crash: &mut Crash) -> Result<(), Crashed> {
        let early = self.mutation == Some(Mutation::BeginEarly);
        let cores = journals.len();
        let first = self.random.below(cores as u64) as usize;
        for core in (0..cores).map(|core| (first + core) % cores) {
            let write = journals[core].begin(self.epoch);
            let name = names::segment(core as u16, write.sequence);
            assert!(!self.disk.exists(&name), "sequences are above all files");
            self.disk.create(&name);
            crash.here()?;
            if crash.is_here() {
                self.disk.tear(&name, 0, &write.bytes, &mut self.random);
                return Err(Crashed);
            }
            let written = self.disk.write(&name, 0, &write.bytes, &mut self.random);
            written.expect("the disk does not fail now");
            crash.here()?;
            if !early {
                self.disk.sync(&name).expect("the disk does not fail now");
            }
            crash.here()?;
        }
        if !early {
            self.disk.sync_names();
        }
        crash.here()
    }

    /// Replaces the manifest.
    fn record(&mut self, manifest: &Manifest, crash: &mut Crash) -> Result<(), Crashed> {
        let new = "manifest.tmp";
        self.disk.create(new);
        self.write_durably(new, &manifest.encode());
        crash.here()?;
        self.disk.rename(new, names::MANIFEST);
        crash.here()?;
        self.disk.sync_names();
        crash.here()
    }

    /// Removes what the next journals' headers carry on, perhaps.
    fn remove_idle(&mut self, scan: &Scan, crash: &mut Crash) -> Result<(), Crashed> {
        if self.random.once_in(4) {
            return Ok(());
        }
        for segment in scan.idle_segments() {
            self.disk.remove(&segment.name);
            crash.here()?;
        }
        Ok(())
    }

    fn write_durably(&mut self, name: &str, bytes: &[u8]) {
        self.disk.write(name, 0, bytes, &mut self.random).expect("the disk does not fail now");
        self.disk.sync(name).expect("the disk does not fail now");
    }

    fn manifest(&self) -> Result<Manifest, String> {
        let bytes = self.disk.content(names::MANIFEST).ok_or("the manifest is missing")?;
        Manifest::decode(bytes).map_err(|error| error.to_string())
    }

    fn scan(&self, truncate: bool) -> Result<Result<Scan, RecoveryError>, String> {
        let options = ScanOptions { truncate, threads: 1 };
        let mut manifest = self.manifest()?;
        if self.mutation == Some(Mutation::DemandNothing) {
            let names = self.disk.list().map_err(|error| error.to_string())?;
            let cores: Vec<u16> =
                names.iter().filter_map(|name| Some(names::parse_segment(name)?.0)).collect();
            manifest.starts.retain(|start| cores.contains(&start.core));
            manifest.cuts.retain(|cut| cores.contains(&cut.core));
        }
        Ok(if self.mutation == Some(Mutation::IgnoreSyncedTo) {
            scan(&Unsynced(&self.disk), &manifest, options)
        } else {
            scan(&self.disk, &manifest, options)
        })
    }

    /// Files are gone, perhaps: recovery must refuse, unless nothing in them was needed.
    fn lose_files(&mut self) -> Result<(), String> {
        if !self.random.once_in(2) {
            return Ok(());
        }
        let names = self.disk.list().map_err(|error| error.to_string())?;
        let is_segment = |name: &String| names::parse_segment(name).is_some();
        let mut lost: Vec<String> = names
            .into_iter()
            .filter(|name| is_segment(name) || names::parse_snapshot(name).is_some())
            .collect();
        if lost.is_empty() {
            return Ok(());
        }
        match self.random.below(4) {
            // All of one core.
            0 => {
                let core = self.random.below(CORES_MAX) as u16;
                lost.retain(|name| names::parse_segment(name).is_some_and(|(other, _)| other == core));
            }
            // All.
            1 if self.random.once_in(4) => lost.retain(is_segment),
            _ => lost = vec![lost.swap_remove(self.random.below(lost.len() as u64) as usize)],
        }
        let hidden: Vec<_> = lost.iter().map(|name| self.disk.hide(name)).collect();
        let found = match self.scan(false)? {
            Ok(scan) => self.replay(&scan).map(|_| ()),
            Err(
                error @ (RecoveryError::SequenceGap { .. }
                | RecoveryError::MissingSegment { .. }
                | RecoveryError::MissingSnapshot { .. }
                | RecoveryError::IndexGap { .. }
                // Of the next segment, whose header is torn: nothing tells that it is not the first.
                | RecoveryError::Damage { offset: 0, .. }),
            ) => Err(error.to_string()),
            Err(error) => return Err(format!("a missing file is no reason to say that {error}")),
        };
        if found.is_ok() {
            let found = self.find(false);
            found.map_err(|failure| format!("{lost:?} were taken away, and nobody noticed: {failure}"))?;
            self.seen.losses_harmless += 1;
        } else {
            self.seen.losses_refused += 1;
        }
        hidden.into_iter().for_each(|hidden| self.disk.show(hidden));
        Ok(())
    }

    /// Flips a bit of something that was durable, perhaps: recovery must refuse, unless the bit meant nothing. Returns whether
    /// the operator has it cut off.
    fn flip(&mut self) -> Result<bool, String> {
        if !self.random.once_in(5) {
            return Ok(false);
        }
        let scan = self.scan(false)?.map_err(|error| error.to_string())?;
        let durable: Vec<_> = if self.mutation == Some(Mutation::IgnoreSyncedTo) {
            let manifest = self.manifest()?;
            let options = ScanOptions { truncate: false, threads: 1 };
            let honest = duva_persist::recovery::scan(&self.disk, &manifest, options);
            honest.map_err(|error| error.to_string())?.segments().to_vec()
        } else {
            scan.segments().to_vec()
        };
        let durable: Vec<_> = durable.into_iter().filter(|segment| segment.synced_to > 0).collect();
        if durable.is_empty() {
            return Ok(false);
        }
        let segment = &durable[self.random.below(durable.len() as u64) as usize];
        let (offset, bit) =
            (self.random.below(u64::from(segment.synced_to)) as usize, self.random.below(8) as u8);
        self.disk.flip(&segment.name, offset, bit);
        match self.scan(false)? {
            Ok(_) => {
                self.find(false).map_err(|failure| {
                    format!("bit {bit} at {offset} of {} was flipped, and accepted: {failure}", segment.name)
                })?;
                self.seen.flips_harmless += 1;
            }
            Err(RecoveryError::Damage { .. } | RecoveryError::IndexGap { .. }) => {
                self.seen.flips_refused += 1;
                // What was prepared is in the journal alone, unless a snapshot may hold it.
                if !self.snapshots_hold_parts && self.random.once_in(2) {
                    let scan = self.scan(true)?.map_err(|error| format!("refused: {error}"))?;
                    let (visits, _) = self.replay(&scan)?;
                    if self.truncated_logs(&scan, &visits)?.is_some() {
                        self.truncated = true;
                        self.seen.truncations += 1;
                        return Ok(true);
                    }
                }
            }
            Err(error) => return Err(format!("a flipped bit is no reason to say that {error}")),
        }
        self.disk.flip(&segment.name, offset, bit);
        Ok(false)
    }

    /// Scans and replays, and compares with what must be found.
    fn find(&mut self, truncate: bool) -> Result<Found, String> {
        let scan = self.scan(truncate)?.map_err(|error| format!("refused: {error}"))?;
        let (visits, open) = self.replay(&scan)?;
        let mut logs = self.base.clone();
        let cores = self.journals.len();
        for core in 0..cores {
            let journal = &self.journals[core];
            let of_core = self.shards_of(core);
            let from = if truncate { 0 } else { journal.acknowledged };
            let mut failures = Vec::new();
            let mut kept = None;
            let mut grown: Vec<_> =
                of_core.iter().map(|shard| self.base[usize::from(*shard)].clone()).collect();
            for length in 0..=journal.ops.len() {
                if let Some(op) = length.checked_sub(1).map(|last| &journal.ops[last]) {
                    let place = of_core.iter().position(|shard| *shard == op.shard);
                    grown[place.expect("ops are of the core's shards")].apply(&op.what);
                    if op.grouped {
                        continue;
                    }
                }
                if length < from {
                    continue;
                }
                let compared = of_core.iter().zip(&grown).try_for_each(|(shard, log)| {
                    let place = usize::from(*shard);
                    self.compare(&scan, *shard, log, &visits[place], &open[place])
                });
                match compared {
                    Ok(()) => kept = Some(length),
                    Err(failure) => failures.push(format!("{length} ops: {failure}")),
                }
            }
            match kept {
                Some(kept) => {
                    let journal = &self.journals[core];
                    journal.ops[..kept].iter().for_each(|op| logs[usize::from(op.shard)].apply(&op.what));
                    self.seen.kept += (kept - journal.acknowledged.min(kept)) as u64;
                    self.seen.dropped += (journal.ops.len() - kept) as u64;
                }
                None if truncate => {}
                None => {
                    let (acknowledged, all) = (journal.acknowledged, journal.ops.len());
                    failures.reverse();
                    failures.truncate(4);
                    return Err(format!(
                        "core {core}: not what its first {acknowledged} to {all} ops make: {}",
                        failures.join("; ")
                    ));
                }
            }
        }
        if truncate {
            logs = self.truncated_logs(&scan, &visits)?.ok_or("a log does not go on from its snapshot")?;
            if scan.lost().is_none() {
                return Err("something was cut off without a word".to_owned());
            }
        } else if cores == 0 {
            for shard in 0..SHARDS {
                let place = usize::from(shard);
                self.compare(&scan, shard, &logs[place], &visits[place], &open[place])?;
            }
        }
        self.check_transactions(&scan, &logs)?;
        for (log, snapshot) in logs.iter_mut().zip(scan.snapshots()) {
            log.marked = snapshot.as_ref().map_or(0, |snapshot| snapshot.index);
            self.seen.snapshots += u64::from(snapshot.is_some());
            self.seen.known += u64::from(log.known > log.marked);
        }
        self.seen.visited += visits.iter().map(|visits| visits.len() as u64).sum::<u64>();
        self.seen.unfinished += open.iter().map(|open| open.len() as u64).sum::<u64>();
        Ok(Found { scan, logs })
    }

    /// The shards that the core had.
    fn shards_of(&self, core: usize) -> Vec<u16> {
        let cores = self.journals.len() as u16;
        (0..SHARDS).filter(|shard| usize::from(home(*shard, self.epoch, cores)) == core).collect()
    }

    /// Replays as another number of cores would, each its own shards. By shard: what was visited, and what is unfinished.
    fn replay(&mut self, scan: &Scan) -> Result<Replayed, String> {
        let cores = 1 + self.random.below(CORES_MAX) as u16;
        let mut visits = vec![Vec::new(); usize::from(SHARDS)];
        let mut open = vec![Vec::new(); usize::from(SHARDS)];
        for core in 0..cores {
            let above =
                |shard: u16| scan.snapshots()[usize::from(shard)].as_ref().map_or(0, |taken| taken.index);
            let wants = |shard: u16| (shard % cores == core).then(|| above(shard));
            let replayed = scan.replay(&self.disk, wants, |entry| {
                let payload = (entry.kind == EntryKind::Entry).then(|| Rc::from(entry.payload));
                visits[usize::from(entry.shard)].push((
                    entry.index,
                    entry.term,
                    entry.timestamp_ms,
                    entry.seed,
                    payload,
                ));
                Ok::<_, String>(())
            });
            for part in replayed.map_err(|error| error.to_string())?.unfinished {
                open[usize::from(part.shard)].push((part.transaction, part.index, part.payload.into()));
            }
        }
        Ok((visits, open))
    }

    /// Compares a shard with a log.
    fn compare(
        &self,
        scan: &Scan,
        shard: u16,
        log: &Log,
        visits: &[Visit],
        open: &[Open],
    ) -> Result<(), String> {
        let state = scan.states()[usize::from(shard)];
        let fail = |what: &str, found: String, expected: String| {
            Err(format!("shard {shard}: {what} is {found}, not {expected}"))
        };
        let snapshot = scan.snapshots()[usize::from(shard)].as_ref();
        let above = snapshot.map_or(0, |snapshot| snapshot.index);
        if state.last_index.get() != log.last_index() {
            return fail("last index", state.last_index.to_string(), log.last_index().to_string());
        }
        if above > log.last_index() || above < log.marked {
            return fail("snapshot", above.to_string(), format!("{} to {}", log.marked, log.last_index()));
        }
        if let Some(snapshot) = snapshot
            && self.disk.content(&snapshot.name) != Some(&log.snapshot(above))
        {
            return fail("snapshot", format!("{} of another past", snapshot.name), "of this".to_owned());
        }
        let last_term = log.items.last().map_or(0, |item| item.term);
        if state.last_term.get() != last_term && log.last_index() > above {
            return fail("last term", state.last_term.to_string(), last_term.to_string());
        }
        if (state.term.get(), state.vote.get()) != (log.term, log.vote) {
            return fail(
                "vote",
                format!("{:?}", (state.term, state.vote)),
                format!("{:?}", (log.term, log.vote)),
            );
        }
        let known = scan.committed_to()[usize::from(shard)];
        // What said more may have been trimmed, with all that it said it of.
        let is_right = known == log.known || known <= log.known && log.known <= above;
        if !(is_right || self.truncated && known <= log.last_index()) {
            return fail("what is committed", known.to_string(), log.known.to_string());
        }
        if log.items[above as usize..].iter().any(|item| item.time_ms > state.time_ms.get()) {
            return fail("time", state.time_ms.to_string(), "that of all entries, or later".to_owned());
        }
        if log.visits(above) != visits {
            let short = |visits: &[Visit]| {
                let visit = |visit: &Visit| (visit.0, visit.1, visit.4.as_ref().map(|payload| payload.len()));
                format!("{:?}", visits.iter().map(visit).collect::<Vec<_>>())
            };
            return fail("what is visited", short(visits), short(&log.visits(above)));
        }
        let expected: Vec<Open> = log.open().into_iter().filter(|part| part.1 > above).collect();
        if expected != open {
            let short = |open: &[Open]| format!("{:?}", open.iter().map(|part| part.0).collect::<Vec<_>>());
            return fail("what is unfinished", short(open), short(&expected));
        }
        Ok(())
    }

    /// Transactions happen everywhere or nowhere.
    fn check_transactions(&mut self, scan: &Scan, logs: &[Log]) -> Result<(), String> {
        let replayed = scan.replay(&self.disk, |_| Some(u64::MAX), |_| Ok::<_, String>(()));
        for part in replayed.map_err(|error| error.to_string())?.unfinished {
            let finished = logs[usize::from(part.shard)].finished(part.transaction).is_some();
            let decided = logs.iter().any(|log| log.decided(part.transaction) == Some(true));
            if !finished && part.commit != decided && !self.truncated {
                return Err(format!("transaction {}: commit is {}", part.transaction, part.commit));
            }
        }
        if self.truncated {
            return Ok(());
        }
        for id in 1..=self.used.transactions {
            let decided = logs.iter().find_map(|log| log.decided(id));
            let mut finished = logs.iter().filter_map(|log| log.finished(id));
            if finished.any(|(_, commit)| commit != decided.unwrap_or(false)) {
                return Err(format!("transaction {id} is {decided:?}, and otherwise in some shard"));
            }
        }
        Ok(())
    }

    /// What is left of every shard after something was cut off: a beginning of what it was at some time; nothing if what is
    /// left of a log does not go on from the shard's snapshot.
    fn truncated_logs(&self, scan: &Scan, visits: &[Vec<Visit>]) -> Result<Option<Vec<Log>>, String> {
        let mut logs = Vec::new();
        for shard in 0..SHARDS {
            let place = usize::from(shard);
            let state = scan.states()[place];
            let above = scan.snapshots()[place].as_ref().map_or(0, |snapshot| snapshot.index);
            let last = state.last_index.get();
            let mut past = Vec::new();
            let lives = self.past.iter().map(|(base, journals)| (base, journals));
            for (base, journals) in lives.chain([(&self.base, &self.journals)]) {
                let mut log = base[place].clone();
                past.push(log.clone());
                for op in journals.iter().flat_map(|journal| &journal.ops).filter(|op| op.shard == shard) {
                    log.apply(&op.what);
                    past.push(log.clone());
                }
            }
            let snapshot = scan.snapshots()[place].as_ref().map(|snapshot| self.disk.content(&snapshot.name));
            let beginnings = past.into_iter().rev().filter_map(|mut log| {
                log.items.truncate(last as usize);
                log.known = log.known.min(last);
                (log.last_index() == last && log.visits(above) == visits[place]).then_some(log)
            });
            let beginnings: Vec<_> = beginnings.collect();
            if beginnings.is_empty() {
                return Err(format!("shard {shard} was cut off to something that it never was"));
            }
            let fits = |log: &Log| snapshot.is_none_or(|content| content == Some(&log.snapshot(above)));
            // A snapshot may have been taken after entries were replaced, and the cut lie before that. Its term tells.
            let Some(mut log) = beginnings.into_iter().find(fits) else { return Ok(None) };
            (log.term, log.vote) = (state.term.get(), state.vote.get());
            logs.push(log);
        }
        Ok(Some(logs))
    }
}

/// The disk as one sees it who takes no notice of what was synced.
struct Unsynced<'a>(&'a Disk);

impl Directory for Unsynced<'_> {
    fn list(&self) -> io::Result<Vec<String>> {
        self.0.list()
    }

    fn read(&self, name: &str, buffer: &mut Vec<u8>) -> io::Result<()> {
        self.0.read(name, buffer)?;
        for offset in (0..buffer.len()).step_by(BLOCK_ALIGN) {
            let Ok((mut header, _)) = BlockHeader::read_from_prefix(&buffer[offset..]) else { break };
            let crc = header.crc;
            header.crc = 0.into();
            if header.magic == *b"DBLK" && crc32c::crc32c(header.as_bytes()) == crc.get() {
                header.synced_to = 0.into();
                header.crc = crc32c::crc32c(header.as_bytes()).into();
                let end = offset + offset_of!(BlockHeader, reserved) + 4;
                buffer[offset..end].copy_from_slice(header.as_bytes());
            }
        }
        Ok(())
    }
}
