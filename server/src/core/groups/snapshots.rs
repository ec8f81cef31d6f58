//! Snapshots of shards: read for followers that lack too much, and put in the place of what a follower has.
//!
//! The snapshots that let the journal go are the ones that followers get. Invariants:
//!
//! - A follower's shard is replaced whole, between two entries, once the snapshot's file is published and the journal
//!   says so, both durably.
//! - A shard is not replaced while a save walks it.
//! - One snapshot comes to a core at a time, in pieces that are loaded as they come. The next piece is asked for only after a
//!   rest of several times as long as the last one took, so that clients keep most of the core. Rests that end too late
//!   say that the CPU is wanted, by this core's clients or by others, and make the next ones longer.

use std::path::PathBuf;

use duva_engine::Shard;
use duva_net::io::{File, FileTask, Io};
use duva_persist::names;
use duva_raft::{ReplicaId, SnapshotMeta, SnapshotRead, SnapshotWrite};

use super::{Group, Groups};
use crate::{
    core::{node::Node, save, tickets::Ticket},
    storage::SnapshotLoader,
};

/// Snapshots that come at a time; others wait until they are asked for.
pub(in crate::core) const INCOMING_MAX: u32 = 1;

/// How long the first piece of a snapshot that was asked for is waited for before another one is, in nanoseconds.
const INVITED_PATIENCE_NS: u64 = 300_000_000;

/// How many times as long as a piece took to be loaded no other one comes, at least and at most.
pub(super) const RESTS_MIN: u64 = 4;
const RESTS_MAX: u64 = 24;

/// A rest that ended so much too late says that others want the CPU, in nanoseconds.
const LATE_NS: u64 = 300_000;

/// The longest such rest, in nanoseconds.
const REST_NS_MAX: u64 = 100_000_000;

/// How long the next piece of a snapshot is waited for, in nanoseconds, and how long while other snapshots wait for its place: its
/// leader may lead no more.
const INCOMING_PATIENCE_NS: u64 = 10_000_000_000;
const INCOMING_HURRY_NS: u64 = 2_000_000_000;

/// A piece that is being read for a follower.
pub(super) struct Outgoing {
    number: u32,
    shard: u16,
    peer: ReplicaId,
    meta: SnapshotMeta,
    offset: u64,
    length_bytes: usize,
}

/// A snapshot that comes from a leader.
pub(super) struct Incoming {
    meta: SnapshotMeta,
    /// Its number among those that come.
    place: u32,
    temporary: PathBuf,
    /// Until the last piece has come.
    loader: Option<SnapshotLoader>,
    /// From then on.
    shard: Option<Box<Shard>>,
    bytes: u64,
    /// File tasks that were given and are not done.
    tasks: u32,
    /// Whether the journal is told of it.
    is_recorded: bool,
    /// Whether it is only waited for its file tasks.
    has_failed: bool,
    /// When a piece came last, or was asked for.
    heard_ns: u64,
    /// When the next one may be asked for, and whether all but that is done.
    rest_ns: u64,
    is_resting: bool,
}

/// What became of a snapshot's beginning.
enum Beginning {
    Begun,
    /// An earlier one of the shard is not out of the way.
    InTheWay,
    /// As many come as can.
    NoPlace,
}

impl Groups {
    fn free_place(&self) -> Option<u32> {
        (0..INCOMING_MAX).find(|place| self.incoming_places & 1 << place == 0)
    }

    /// When the next snapshot may be asked for, if there is one, and a place.
    pub(super) fn next_invitation_ns(&self) -> u64 {
        let may_invite = !self.refused_snapshots.is_empty() && self.free_place().is_some();
        if may_invite { self.invite_ns } else { u64::MAX }
    }

    /// Asks for the next pieces, where the rest is over.
    pub(super) fn end_rests(&mut self) {
        if self.rest_ns > self.now_ns {
            return;
        }
        self.rest_ns = u64::MAX;
        for shard in 0..self.by_shard.len() {
            let Some(group) = &mut self.by_shard[shard] else { continue };
            let Some(incoming) = group.incoming.as_mut().filter(|incoming| incoming.is_resting) else {
                continue;
            };
            if incoming.rest_ns > self.now_ns {
                self.rest_ns = self.rest_ns.min(incoming.rest_ns);
                continue;
            }
            incoming.is_resting = false;
            incoming.heard_ns = self.now_ns;
            let is_late = self.now_ns - incoming.rest_ns > LATE_NS;
            self.rests = if is_late { self.rests + 4 } else { self.rests - 1 }.clamp(RESTS_MIN, RESTS_MAX);
            group.raft.snapshot_stored(incoming.meta.index, incoming.meta.term, incoming.bytes);
            self.mark_dirty(shard as u16);
        }
    }

    /// As long as there is a place, asks for snapshots that were refused, one after the other: each one's first piece may take
    /// the place.
    pub(super) fn invite_snapshots(&mut self) {
        if self.invite_ns > self.now_ns || self.free_place().is_none() {
            return;
        }
        while let Some(shard) = self.refused_snapshots.pop_front() {
            let Some(group) = &mut self.by_shard[usize::from(shard)] else { continue };
            if group.raft.invite_snapshot() {
                self.invite_ns = self.now_ns + INVITED_PATIENCE_NS;
                return self.mark_dirty(shard);
            }
        }
    }
}

impl Node {
    /// Reads a piece of the newest snapshot for a follower, or sees to it that there is a newer one.
    pub(super) fn read_snapshot(
        &mut self,
        groups: &mut Groups,
        group: &mut Group,
        read: SnapshotRead,
        io: &mut impl Io,
    ) {
        let SnapshotRead { peer, snapshot, offset, bytes_max } = read;
        if groups.to_compact.contains(&group.shard) {
            self.compact(group);
        }
        let meta = group.raft.snapshot().clone();
        let newest = self.saver.newest(group.shard);
        // What follows it must be there as well, or the follower would only ask again.
        let next = meta.index + 1;
        let goes_on = next > group.raft.last_index()
            || !group.raft.entries(next..next + 1).is_empty()
            || self.log.as_ref().is_some_and(|log| log.entry_position(group.shard, next).is_some());
        let is_there = newest.index > 0 && newest.index == meta.index && goes_on;
        let is_wanted = snapshot.is_none_or(|(index, term)| (index, term) == (meta.index, meta.term));
        if !is_there || !is_wanted {
            if !is_there {
                save::ask_for_rewrite(self);
            }
            return group.raft.snapshot_unreadable(peer);
        }
        groups.next_read = groups.next_read.wrapping_add(1);
        let number = groups.next_read;
        let path = self.journal_directory().join(names::snapshot(group.shard, meta.index));
        groups.outgoing.push(Outgoing {
            number,
            shard: group.shard,
            peer,
            meta,
            offset,
            length_bytes: bytes_max,
        });
        let task = FileTask::Read { path, offset_bytes: offset, length_bytes: bytes_max };
        io.file_task(Ticket::GroupRead(number).number(), task);
    }

    /// A piece of a file was read, or could not be.
    pub(in crate::core) fn group_read_done(
        &mut self,
        number: u32,
        bytes: &[u8],
        result: Result<(), i32>,
        io: &mut impl Io,
    ) {
        let Some(mut groups) = self.groups.take() else { return };
        if let Some(place) = groups.outgoing.iter().position(|outgoing| outgoing.number == number) {
            let Outgoing { shard, peer, meta, offset, length_bytes, .. } = groups.outgoing.swap_remove(place);
            if let Some(group) = &mut groups.by_shard[usize::from(shard)] {
                match result {
                    Ok(()) => {
                        let is_last = bytes.len() < length_bytes;
                        groups.counts.snapshots_sent += u64::from(is_last);
                        group.raft.snapshot_read(peer, meta, offset, bytes.into(), is_last);
                    }
                    Err(_) => group.raft.snapshot_unreadable(peer),
                }
                groups.mark_dirty(shard);
            }
        } else if groups.returning.iter().any(|returning| returning.is_read(number)) {
            groups.take_returned(number, bytes, result);
        } else {
            self.take_piece(&mut groups, number, bytes, result, io);
        }
        self.groups = Some(groups);
    }

    /// Takes a piece of a snapshot from the leader.
    pub(super) fn take_snapshot(
        &mut self,
        groups: &mut Groups,
        group: &mut Group,
        piece: SnapshotWrite,
        io: &mut impl Io,
    ) {
        let SnapshotWrite { meta, offset, bytes, is_last } = piece;
        let (index, term) = (meta.index, meta.term);
        if group.raft.keeps_log(index, term) {
            // Its leader does not know how far this replica has come, and would send it again and again.
            group.raft.snapshot_needless(index, term);
            return;
        }
        if offset == 0 {
            match self.begin_incoming(groups, group, &meta, io) {
                Beginning::Begun => {}
                Beginning::InTheWay => return group.raft.snapshot_failed(index, term),
                Beginning::NoPlace => {
                    group.raft.snapshot_refused(index, term);
                    if !groups.refused_snapshots.contains(&group.shard) {
                        groups.refused_snapshots.push_back(group.shard);
                    }
                    return;
                }
            }
        }
        let ticket = Ticket::Install(group.shard.into()).number();
        let Some(incoming) = group.incoming.as_mut().filter(|it| it.meta == meta && it.loader.is_some())
        else {
            return group.raft.snapshot_failed(index, term);
        };
        let begin_ns = io.clock().monotonic_ns;
        let fed = incoming.loader.as_mut().expect("it was looked at above").feed(&bytes);
        let end_ns = io.clock().monotonic_ns;
        incoming.rest_ns = end_ns + (end_ns.saturating_sub(begin_ns) * groups.rests).min(REST_NS_MAX);
        incoming.bytes = offset + bytes.len() as u64;
        incoming.heard_ns = groups.now_ns;
        let mut task = |task: FileTask| {
            incoming.tasks += 1;
            io.file_task(ticket, task);
        };
        let file = file_of(incoming.place);
        task(FileTask::Append { file, bytes: bytes.to_vec() });
        let end = fed.and_then(|()| {
            if !is_last {
                return Ok(None);
            }
            let (header, shard) = incoming.loader.take().expect("it was looked at above").finish()?;
            if (header.shard, header.index, header.term) != (group.shard, index, term) {
                return Err("it is of another moment than its leader says".to_owned());
            }
            Ok(Some(shard))
        });
        match end {
            Ok(None) => {}
            Ok(Some(shard)) => {
                incoming.shard = Some(shard);
                let from = incoming.temporary.clone();
                let to = self.journal_directory().join(names::snapshot(group.shard, index));
                incoming.tasks += 1;
                io.file_task(ticket, FileTask::Publish { file, from, to });
            }
            Err(error) => {
                tracing::warn!(
                    shard = group.shard,
                    index,
                    "a snapshot from the leader is of no use: {error}"
                );
                self.give_incoming_up(group, io);
            }
        }
    }

    /// Begins to take a snapshot, if that can be.
    fn begin_incoming(
        &mut self,
        groups: &mut Groups,
        group: &mut Group,
        meta: &SnapshotMeta,
        io: &mut impl Io,
    ) -> Beginning {
        if group.incoming.is_some() {
            self.give_incoming_up(group, io);
            return Beginning::InTheWay;
        }
        let Some(place) = groups.free_place() else { return Beginning::NoPlace };
        groups.incoming_places |= 1 << place;
        groups.invite_ns = 0;
        let name = format!("{}.tmp", names::snapshot(group.shard, meta.index));
        let temporary = self.journal_directory().join(name);
        let shards = &self.executor.shards;
        let slots = shards.slots_of(usize::from(group.shard));
        let loader = SnapshotLoader::new(group.shard, slots, self.executor.hasher.clone());
        let create = FileTask::Create { file: file_of(place), path: temporary.clone(), digest: None };
        io.file_task(Ticket::Install(group.shard.into()).number(), create);
        tracing::info!(shard = group.shard, index = meta.index, "a snapshot comes from the leader");
        group.incoming = Some(Incoming {
            meta: meta.clone(),
            place,
            temporary,
            loader: Some(loader),
            shard: None,
            bytes: 0,
            tasks: 1,
            is_recorded: false,
            has_failed: false,
            heard_ns: groups.now_ns,
            rest_ns: 0,
            is_resting: false,
        });
        Beginning::Begun
    }

    fn give_incoming_up(&mut self, group: &mut Group, io: &mut impl Io) {
        let Some(incoming) = &mut group.incoming else { return };
        if std::mem::replace(&mut incoming.has_failed, true) {
            return;
        }
        incoming.loader = None;
        incoming.shard = None;
        incoming.tasks += 1;
        let discard = FileTask::Discard { file: file_of(incoming.place), path: incoming.temporary.clone() };
        io.file_task(Ticket::Install(group.shard.into()).number(), discard);
        group.raft.snapshot_failed(incoming.meta.index, incoming.meta.term);
    }

    /// Gives up the snapshots that do not come any more.
    pub(super) fn end_incoming(&mut self, groups: &mut Groups, io: &mut impl Io) {
        let now_ns = groups.now_ns;
        let patience_ns =
            if groups.refused_snapshots.is_empty() { INCOMING_PATIENCE_NS } else { INCOMING_HURRY_NS };
        for group in groups.by_shard.iter_mut().flatten() {
            let is_late = group.incoming.as_ref().is_some_and(|it| {
                let is_waiting = it.loader.is_some() && it.tasks == 0 && !it.is_resting;
                is_waiting && now_ns >= it.heard_ns + patience_ns
            });
            if is_late {
                self.give_incoming_up(group, io);
            }
        }
    }

    /// A file task of a snapshot that comes is done.
    pub(in crate::core) fn install_step_done(
        &mut self,
        shard: u16,
        result: Result<(), i32>,
        io: &mut impl Io,
    ) {
        let Some(mut groups) = self.groups.take() else { return };
        if let Some(mut group) = groups.by_shard[usize::from(shard)].take() {
            self.take_install_step(&mut groups, &mut group, result, io);
            groups.by_shard[usize::from(shard)] = Some(group);
            groups.mark_dirty(shard);
        }
        self.groups = Some(groups);
    }

    fn take_install_step(
        &mut self,
        groups: &mut Groups,
        group: &mut Group,
        result: Result<(), i32>,
        io: &mut impl Io,
    ) {
        let Some(incoming) = &mut group.incoming else { return };
        incoming.tasks -= 1;
        if let Err(errno) = result
            && !incoming.has_failed
        {
            let error = std::io::Error::from_raw_os_error(errno);
            tracing::warn!(shard = group.shard, %error, "a snapshot from the leader cannot be kept");
            return self.give_incoming_up(group, io);
        }
        if incoming.tasks > 0 {
            return;
        }
        if incoming.has_failed {
            groups.incoming_places &= !(1 << incoming.place);
            group.incoming = None;
        } else if incoming.loader.is_some() {
            // The next piece may come, after a rest: this one is not only in memory.
            incoming.is_resting = true;
            groups.rest_ns = groups.rest_ns.min(incoming.rest_ns);
        } else if incoming.shard.is_some() && !incoming.is_recorded {
            let (index, term) = (incoming.meta.index, incoming.meta.term);
            if group.raft.keeps_log(index, term) {
                // It has come this far by itself: nothing is to be replaced.
                group.raft.snapshot_needless(index, term);
                return self.give_incoming_up(group, io);
            }
            incoming.is_recorded = true;
            if let Some(log) = &mut self.log {
                log.record_installed(group.shard, index, term);
            }
        }
    }

    /// The journal says, durably, that a shard goes on from the snapshot that came.
    pub(super) fn install(&mut self, groups: &mut Groups, shard: u16) {
        // What walks the shard is let finish.
        if self.saver.is_walking_shard(shard) {
            if !groups.installs.contains(&shard) {
                groups.installs.push(shard);
            }
            return;
        }
        let Some(group) = &mut groups.by_shard[usize::from(shard)] else { return };
        let Some(Incoming { meta, place, shard: Some(fresh), bytes, .. }) = group.incoming.take() else {
            return;
        };
        groups.incoming_places &= !(1 << place);
        groups.counts.snapshots_installed += 1;
        let number = usize::from(shard);
        self.replace_shard(number, fresh);
        self.executor.due_ms = 0;
        Groups::drop_committed(&mut groups.committed_bytes, group);
        group.raft.snapshot_installed(meta.index, meta.term);
        // Its unlocks are counted anew.
        group.seen_unlocks = u64::MAX;
        if let Some(log) = &mut self.log {
            log.note_applied(shard, meta.index);
        }
        let directory = self.journal_directory();
        self.saver.take_over(shard, meta.index, bytes, &directory);
        tracing::info!(shard, index = meta.index, bytes, "the shard goes on from the leader's snapshot");
        groups.mark_dirty(shard);
    }

    /// Goes on with what had to wait for a save.
    pub(super) fn run_installs(&mut self, groups: &mut Groups) {
        for shard in std::mem::take(&mut groups.installs) {
            self.install(groups, shard);
        }
    }

    /// The journal was trimmed up to these snapshots: the groups forget what lies before, one after the other, since each lets go
    /// of all that memory holds of that.
    pub(in crate::core) fn compact_groups(&mut self) {
        let Some(groups) = &mut self.groups else { return };
        let there = groups.by_shard.iter().flatten().map(|group| group.shard);
        groups.to_compact = there.collect();
    }

    /// Lets one of them forget.
    pub(super) fn compact_next(&mut self, groups: &mut Groups) {
        let Some(shard) = groups.to_compact.pop() else { return };
        groups.has_backlog |= !groups.to_compact.is_empty();
        if let Some(group) = &mut groups.by_shard[usize::from(shard)] {
            self.compact(group);
            groups.mark_dirty(shard);
        }
    }

    fn compact(&self, group: &mut Group) {
        let index = self.saver.newest(group.shard).index;
        if index > group.raft.snapshot().index && index <= group.raft.applied_index() {
            group.raft.compact(index);
        }
    }

    /// The term and membership at a shard's last applied entry, as a snapshot says them; `None`: it has no group.
    pub(in crate::core) fn snapshot_names(&self, shard: u16, index: u64) -> Option<(u64, Vec<u8>)> {
        let raft = self.groups.as_ref()?.raft(usize::from(shard))?;
        Some((raft.term_at(index)?, raft.membership_at(index).encode()))
    }
}

fn file_of(place: u32) -> File {
    File(save::FILE_COUNT_OF_SAVER + place)
}
