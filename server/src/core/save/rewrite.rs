//! A core's part of a rewrite: a snapshot file for each changed shard, then the journal before it goes.
//!
//! A shard's snapshot holds the shard up to the index that was applied last when it began. What is prepared by then of a
//! transaction that goes on stays in the journal: that is kept from before the first such part.

use duva_engine::{DATABASE_COUNT, Shards};
use duva_net::io::{FileTask, Io};
use duva_persist::{format::Position, names};

use super::{
    PIECES_MAX, Part, SNAPSHOT_FILE, SaveMessage, ShardSnapshot,
    encoder::{self, Encoder},
    output::Output,
};
use crate::{
    core::{node::Node, tickets::Ticket},
    storage::{SnapshotHeader, snapshot_header},
};

/// One core's part of a rewrite.
pub(super) struct Rewrite {
    phase: Phase,
    /// Shards that are not begun, by number; the last is next.
    shards: Vec<u16>,
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

    pub(super) fn entries(&self) -> u64 {
        self.entries + self.current.as_ref().map_or(0, |current| current.encoder.entries)
    }

    /// Memory of what changes have forced out, and of the piece.
    pub(super) fn memory(&mut self, shards: &mut Shards) -> (usize, usize) {
        self.current.as_mut().map_or((0, 0), |current| {
            (shards.of(current.slot).saved_early_bytes(), current.encoder.piece().capacity())
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
        let Self { saver, log, executor, .. } = self;
        let log = log.as_deref_mut().expect("only a journal is rewritten");
        let numbers = executor.shards.iter().map(|shard| executor.shards.number_of(shard.slots().start));
        let is_changed = |&number: &usize| log.applied(number) != saver.snapshots[number].index;
        let mut shards: Vec<u16> = numbers.filter(is_changed).map(|number| number as u16).collect();
        shards.reverse();
        if !shards.is_empty() {
            // So that all of what is there now can go.
            log.roll(executor.now_ms);
        }
        let keys = shards.iter().map(|&number| {
            let slot = executor.shards.slots_of(usize::from(number)).start;
            let shard = executor.shards.get(slot).expect("it is one of this core's");
            (0..DATABASE_COUNT).map(|database| shard.key_count(database) as u64).sum::<u64>()
        });
        saver.keys_total = keys.sum();
        saver.part = Some(Part::Rewrite(Rewrite {
            phase: Phase::Saving,
            shards,
            current: None,
            keep_from: log.applied_to(),
            is_abandoned: false,
            entries: 0,
        }));
        saver.has_work = true;
        self.set_gate();
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
            Phase::Saving => match rewrite.shards.pop() {
                Some(shard) => self.begin_shard(shard),
                None => {
                    // One fsync for all marks. Its end makes a turn.
                    log.settle();
                    rewrite.phase = Phase::Marking;
                }
            },
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

    fn begin_shard(&mut self, number: u16) {
        let options = self.rdb_options();
        let Self { saver, log: Some(log), executor, .. } = self else { return };
        let Some(Part::Rewrite(rewrite)) = &mut saver.part else { return };
        let index = log.applied(usize::from(number));
        let slot = executor.shards.slots_of(usize::from(number)).start;
        let shard = executor.shards.of(slot);
        shard.begin_snapshot();
        let header = SnapshotHeader {
            shard: number,
            index,
            term: log.last_term(number),
            time_ms: shard.time_ms(),
            node: saver.node,
        };
        let mut encoder = Encoder::new(options);
        snapshot_header(encoder.piece(), &header);
        rewrite.current = Some(Current {
            shard: number,
            slot,
            index,
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
            current.is_walked = current.encoder.step(executor.shards.of(current.slot));
        }
        let has_room = output.appends() < PIECES_MAX;
        if current.encoder.is_full() {
            if has_room {
                let spare = saver.spare.pop().unwrap_or_default();
                output.append(io, current.encoder.take(spare), Some(*core));
                saver.has_work = true;
            }
        } else if !current.is_walked {
            saver.has_work = true;
        } else if !std::mem::replace(&mut current.is_settling, true) {
            // The end of the fsync makes a turn.
            log.settle();
        } else if has_room && !current.is_publishing && log.is_settled() {
            current.is_publishing = true;
            output.publish(io, current.encoder.take(Vec::new()));
        } else if output.is_published() {
            self.finish_shard();
        }
    }

    /// The snapshot of a shard is in its place, durably.
    fn finish_shard(&mut self) {
        let directory = self.journal_directory();
        let Self { saver, log: Some(log), executor, .. } = self else { return };
        let Some(Part::Rewrite(rewrite)) = &mut saver.part else { return };
        let Some(Current { shard, index, encoder, output, .. }) = rewrite.current.take() else { return };
        log.append_mark(shard, index);
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
        let Self { saver, log: Some(log), executor, .. } = self else { return };
        let Some(Part::Rewrite(rewrite)) = &mut saver.part else { return };
        if rewrite.is_abandoned || !may_trim {
            return self.end_part(false, Vec::new());
        }
        log.trim(rewrite.keep_from, io);
        let paths = std::mem::take(&mut saver.obsolete);
        if !paths.is_empty() {
            io.file_task(Ticket::Ignored.number(), FileTask::Remove { paths });
        }
        let shards = &executor.shards;
        let numbers = shards.iter().map(|shard| shards.number_of(shard.slots().start));
        let snapshots = numbers.map(|number| (number as u16, saver.snapshots[number].index)).collect();
        self.end_part(true, snapshots);
    }

    /// Gives up what is being written, for a budget, and then this core's part.
    fn abandon_shard(&mut self, io: &mut impl Io) {
        let Self { saver, executor, .. } = self;
        let Some(Part::Rewrite(rewrite)) = &mut saver.part else { return };
        let Some(current) = &mut rewrite.current else { return self.end_phase(false) };
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
