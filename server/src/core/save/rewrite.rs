//! A core's part of a rewrite: a snapshot file for each changed shard, then the journal before it goes.
//!
//! A shard's snapshot holds the shard up to the index that was applied last when it began. Invariants:
//!
//! - **Nothing prepared is below it**, of which the journal does not say yet what becomes of it: of what a snapshot covers a
//!   start asks no other journal. So a shard waits until none of it is prepared. When transactions follow one another
//!   so closely that such a moment does not come, the core makes one by taking all of its locks.
//! - **A snapshot has a name of its own.** A shard that goes on from a leader's snapshot before its turn comes is passed over: one of
//!   the same index would have that one's name, and end with its removal as an older one.
//! - What transactions that go on have said stays in the journal: that is kept from before the first such part.

use duva_engine::DATABASE_COUNT;
use duva_net::io::{FileTask, Io};
use duva_persist::{format::Position, names};

use super::{
    Cut, PIECES_MAX, Part, SNAPSHOT_FILE, SaveMessage, ShardSnapshot,
    encoder::{self, Encoder},
    output::Output,
};
use crate::{
    core::{node::Node, tickets::Ticket},
    storage::{SnapshotHeader, snapshot_header, write_transactions},
};

/// How long shards wait for a moment at which nothing of one of them is prepared.
const PREPARED_WAIT_MS: u64 = 200;

/// One core's part of a rewrite.
pub(super) struct Rewrite {
    phase: Phase,
    /// Shards that are not begun, by number; the last is next, unless something of it is prepared.
    shards: Vec<u16>,
    /// Since when all of them wait because something of each is prepared.
    waits_since_ms: Option<u64>,
    /// Whether all locks of the core are asked for.
    is_locking: bool,
    current: Option<Current>,
    /// Everything before this is covered by snapshots that begin now or later.
    keep_from: Position,
    /// Whether it was given up.
    is_abandoned: bool,
    /// Entries of the shards that are done.
    entries: u64,
}

/// How far it is. Core 0 is told of the end of each phase, and says when the next begins.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Shards are being saved.
    Saving,
    /// All snapshots are published, and their marks are to be durable.
    Marking,
    /// The journal is to be durable up to where it was.
    Settling,
    /// The journal is to be trimmed, or is not.
    Trimming(bool),
    /// Core 0 is to speak.
    Waiting,
}

/// The shard whose snapshot is being written.
struct Current {
    shard: u16,
    /// Its first.
    slot: u16,
    index: u64,
    term: u64,
    encoder: Encoder,
    /// `None` until the first turn.
    output: Option<Output>,
    /// Whether every entry was encoded, or given up.
    is_walked: bool,
    /// Whether the journal was asked to be durable as far as the snapshot goes.
    is_settling: bool,
    is_publishing: bool,
}

impl Rewrite {
    pub(super) fn abandon(&mut self) {
        self.is_abandoned = true;
    }

    /// Whether the snapshot of this shard is being written.
    pub(super) fn is_walking(&self, shard: u16) -> bool {
        self.current.as_ref().is_some_and(|current| current.shard == shard)
    }

    /// A shard has a snapshot that is newer than where this rewrite began.
    pub(super) fn pass_over(&mut self, shard: u16) {
        self.shards.retain(|&waiting| waiting != shard);
    }

    pub(super) fn entries(&self) -> u64 {
        self.entries + self.current.as_ref().map_or(0, |current| current.encoder.entries)
    }

    /// Memory of the pieces, in bytes.
    pub(super) fn piece_bytes(&mut self) -> usize {
        self.current.as_mut().map_or(0, |current| {
            current.encoder.piece().capacity() + current.output.as_ref().map_or(0, Output::append_bytes)
        })
    }

    pub(super) fn task_done(&mut self, buffer: Vec<u8>, result: Result<(), i32>) -> Option<(usize, Vec<u8>)> {
        self.current.as_mut()?.output.as_mut()?.completed(buffer, result)
    }

    pub(super) fn discard(&mut self, io: &mut impl Io) {
        if let Some(output) = self.current.as_mut().and_then(|current| current.output.as_mut()) {
            output.discard(io);
        }
    }
}

impl Node {
    pub(super) fn begin_rewrite(&mut self) {
        assert!(self.saver.part.is_none(), "one save or rewrite at a time");
        self.let_idle_snapshots_go();
        let Self { saver, log, executor, .. } = self;
        let log = log.as_deref_mut().expect("only a journal is rewritten");
        let numbers = executor.shards.iter().map(|shard| executor.shards.number_of(shard.slots().start));
        let is_changed = |&number: &usize| log.applied(number) != saver.snapshots[number].index;
        let mut shards: Vec<u16> = numbers.filter(is_changed).map(|number| number as u16).collect();
        shards.reverse();
        // So that all of what is there now can go; and so that this start's own journal is there, whatever there is in it,
        // before those of earlier ones go.
        log.roll(executor.now_ms);
        let keys = shards.iter().map(|&number| {
            let slot = executor.shards.slots_of(usize::from(number)).start;
            let shard = executor.shards.get(slot).expect("it is one of this core's");
            (0..DATABASE_COUNT).map(|database| shard.key_count(database) as u64).sum::<u64>()
        });
        saver.keys_total = keys.sum();
        saver.part = Some(Part::Rewrite(Rewrite {
            phase: Phase::Saving,
            shards,
            waits_since_ms: None,
            is_locking: false,
            current: None,
            keep_from: log.applied_to(),
            is_abandoned: false,
            entries: 0,
        }));
        saver.has_work = true;
        self.close_gate();
    }

    /// The end of each phase is waited for by all cores.
    pub(super) fn begin_settling(&mut self) {
        let Self { saver, log: Some(log), .. } = self else { return };
        let Some(Part::Rewrite(rewrite)) = &mut saver.part else { return };
        rewrite.phase = Phase::Settling;
        log.settle();
        saver.has_work = true;
    }

    pub(super) fn begin_trimming(&mut self, may_trim: bool) {
        let Some(Part::Rewrite(rewrite)) = &mut self.saver.part else { return };
        rewrite.phase = Phase::Trimming(may_trim);
        self.saver.has_work = true;
    }

    pub(super) fn run_rewrite(&mut self, io: &mut impl Io) {
        let Self { saver, log: Some(log), .. } = self else { return };
        let Some(Part::Rewrite(rewrite)) = &mut saver.part else { return };
        let is_lost = log.refusal().is_some_and(|refusal| refusal.is_final());
        match rewrite.phase {
            Phase::Saving if rewrite.is_abandoned || is_lost => {
                rewrite.is_abandoned = true;
                self.abandon_shard(io);
            }
            Phase::Saving if rewrite.current.is_some() => self.run_shard(io),
            // Locks that were asked for come first: later they would be nobody's. Their coming makes a turn.
            Phase::Saving if rewrite.shards.is_empty() && rewrite.is_locking => {}
            Phase::Saving if rewrite.shards.is_empty() => {
                // One fsync for all marks. Its end makes a turn.
                log.settle();
                rewrite.phase = Phase::Marking;
            }
            Phase::Saving => self.begin_next_shard(),
            Phase::Marking | Phase::Settling if is_lost => {
                rewrite.is_abandoned = true;
                self.end_phase(false);
            }
            Phase::Marking | Phase::Settling if log.is_settled() => self.end_phase(true),
            Phase::Trimming(may_trim) => self.trim_journal(io, may_trim),
            Phase::Marking | Phase::Settling | Phase::Waiting => {}
        }
    }

    fn end_phase(&mut self, is_ok: bool) {
        let Some(Part::Rewrite(rewrite)) = &mut self.saver.part else { return };
        rewrite.phase = Phase::Waiting;
        self.tell(0, SaveMessage::StepDone(is_ok));
    }

    /// Begins with the next shard of which nothing is prepared. The end of a transaction makes a turn.
    fn begin_next_shard(&mut self) {
        let Self { saver, log: Some(log), executor, .. } = self else { return };
        let Some(Part::Rewrite(rewrite)) = &mut saver.part else { return };
        if log.is_partly_applied() || !self.applying.is_empty() {
            // What waits is committed already, or was before `appendfsync` changed.
            return;
        }
        let is_free = |&number: &u16| !log.has_prepared(&executor.shards, usize::from(number));
        if let Some(index) = rewrite.shards.iter().rposition(is_free) {
            rewrite.waits_since_ms = None;
            let shard = rewrite.shards.remove(index);
            return self.begin_shard(shard);
        }
        let since_ms = *rewrite.waits_since_ms.get_or_insert(executor.now_ms);
        if executor.now_ms >= since_ms + PREPARED_WAIT_MS && !std::mem::replace(&mut rewrite.is_locking, true)
        {
            self.begin_cut(Cut::Shard);
        }
    }

    /// Under all locks of this core: so nothing is prepared.
    pub(super) fn rewrite_is_cut(&mut self) {
        let Some(Part::Rewrite(rewrite)) = &mut self.saver.part else {
            panic!("a rewrite waits for its cut")
        };
        rewrite.is_locking = false;
        self.saver.has_work = true;
        if !rewrite.is_abandoned && rewrite.current.is_none() && !rewrite.shards.is_empty() {
            self.begin_next_shard();
        }
    }

    fn begin_shard(&mut self, number: u16) {
        let options = self.rdb_options();
        let names =
            self.log.as_ref().and_then(|log| self.snapshot_names(number, log.applied(usize::from(number))));
        let Self { saver, log: Some(log), executor, .. } = self else { return };
        let Some(Part::Rewrite(rewrite)) = &mut saver.part else { return };
        let index = log.applied(usize::from(number));
        let (term, membership) = names.unwrap_or_else(|| (log.last_term(number), Vec::new()));
        let slot = executor.shards.slots_of(usize::from(number)).start;
        // Entries behind that index may be older than shard time is by now.
        let time_ms = executor.shards.of(slot).begin_snapshot(log.visible_ms(executor.now_ms));
        let header = SnapshotHeader { shard: number, index, term, time_ms, node: saver.node, membership };
        let mut encoder = Encoder::with_once(options, executor.shards.of(slot).once_snapshot());
        snapshot_header(encoder.piece(), &header);
        write_transactions(encoder.piece(), executor.shards.of(slot));
        rewrite.current = Some(Current {
            shard: number,
            slot,
            index,
            term,
            encoder,
            output: None,
            is_walked: false,
            is_settling: false,
            is_publishing: false,
        });
        saver.has_work = true;
    }

    /// Goes on with the snapshot of a shard for one budget.
    fn run_shard(&mut self, io: &mut impl Io) {
        let directory = self.journal_directory();
        let Self { saver, log: Some(log), executor, config, core, .. } = self else { return };
        let Some(Part::Rewrite(rewrite)) = &mut saver.part else { return };
        let Some(current) = &mut rewrite.current else { return };
        let output = current.output.get_or_insert_with(|| {
            let path = directory.join(names::snapshot(current.shard, current.index));
            let mut temporary = path.clone().into_os_string();
            temporary.push(".tmp");
            Output::create(io, SNAPSHOT_FILE, temporary.into(), path, config.snapshot_has_checksum)
        });
        if let Some(failure) = output.failure() {
            failure.log(output.path());
            rewrite.is_abandoned = true;
            saver.has_work = true;
            return;
        }
        if !current.is_walked && !current.encoder.is_full() {
            let shard = executor.shards.of(current.slot);
            current.is_walked = current.encoder.step(shard);
            executor.has_garbage |= shard.has_garbage();
        }
        let has_room = output.appends() < PIECES_MAX;
        if current.encoder.is_full() {
            if has_room {
                let spare = saver.spare.pop().unwrap_or_default();
                output.append(io, current.encoder.take(spare).bytes, Some(*core));
                saver.has_work = true;
            }
        } else if !current.is_walked {
            saver.has_work = true;
        } else if !std::mem::replace(&mut current.is_settling, true) {
            // The end of the fsync makes a turn.
            log.settle();
        } else if has_room && !current.is_publishing && log.is_settled() {
            current.is_publishing = true;
            output.publish(io, current.encoder.take(Vec::new()).bytes);
        } else if output.is_published() {
            self.finish_shard();
        }
    }

    /// The snapshot of a shard is in its place, durably.
    fn finish_shard(&mut self) {
        let directory = self.journal_directory();
        let Self { saver, log: Some(log), executor, .. } = self else { return };
        let Some(Part::Rewrite(rewrite)) = &mut saver.part else { return };
        let Some(Current { shard, index, term, encoder, output, .. }) = rewrite.current.take() else {
            return;
        };
        log.append_mark(shard, index, term);
        rewrite.entries += encoder.entries;
        let newest = &mut saver.snapshots[usize::from(shard)];
        if newest.index > 0 {
            saver.obsolete.push(directory.join(names::snapshot(shard, newest.index)));
        }
        *newest = ShardSnapshot { index, bytes: output.map_or(0, |output| output.bytes()) };
        // Memory that only the snapshot kept.
        executor.has_garbage = true;
        saver.has_work = true;
    }

    /// The marks of all snapshots are durable: the journal before them goes, and older snapshots.
    fn trim_journal(&mut self, io: &mut impl Io, may_trim: bool) {
        let directory = self.journal_directory();
        let Self { saver, log: Some(log), executor, .. } = self else { return };
        let Some(Part::Rewrite(rewrite)) = &mut saver.part else { return };
        if rewrite.is_abandoned || !may_trim {
            return self.end_part(false, Vec::new());
        }
        log.trim(rewrite.keep_from, io);
        let keep_from = rewrite.keep_from;
        let mut paths = std::mem::take(&mut saver.obsolete);
        if keep_from > Position::default() {
            let is_idle =
                |shard| self.groups.as_ref().is_some_and(|groups| groups.is_idle(usize::from(shard)));
            let departed = saver.take_departed(is_idle);
            paths
                .extend(departed.iter().map(|&(shard, index)| directory.join(names::snapshot(shard, index))));
        }
        if !paths.is_empty() {
            io.file_task(Ticket::Ignored.number(), FileTask::Remove { paths });
        }
        let shards = &executor.shards;
        let numbers = shards.iter().map(|shard| shards.number_of(shard.slots().start));
        // Of a shard that has left, no later start wants what is behind its snapshot: this journal says so.
        let has_left = |number: usize| {
            let is_idle = self.groups.as_ref().is_some_and(|groups| groups.is_idle(number));
            is_idle && keep_from > Position::default()
        };
        let covered = |number| if has_left(number) { u64::MAX } else { saver.snapshots[number].index };
        let snapshots = numbers.map(|number| (number as u16, covered(number))).collect();
        self.compact_groups();
        self.end_part(true, snapshots);
    }

    /// Gives up what is being written, for a budget, and then this core's part.
    fn abandon_shard(&mut self, io: &mut impl Io) {
        let Self { saver, executor, .. } = self;
        let Some(Part::Rewrite(rewrite)) = &mut saver.part else { return };
        let Some(current) = &mut rewrite.current else {
            // The locks that were asked for are given back first.
            if !rewrite.is_locking {
                self.end_phase(false);
            }
            return;
        };
        if !current.is_walked {
            let shard = executor.shards.of(current.slot);
            shard.abandon_snapshot();
            current.is_walked = encoder::step_abandoned(shard);
        }
        let is_gone = current.output.as_mut().is_none_or(|output| {
            output.discard(io);
            output.is_discarded() || output.is_published()
        });
        saver.has_work = !current.is_walked;
        if current.is_walked && is_gone {
            rewrite.current = None;
            saver.has_work = true;
        }
    }
}
