//! Applying what is committed, on every replica alike, and answering who proposed it here.

use duva_engine::command::{Flags, Run, transaction::is_transaction};
use duva_raft::{Entry, EntryKind};

use super::{
    APPLIED_BYTES_A_GROUP, Group, Groups, Pending,
    locked::{CHECK_NS, LOCK_PATIENCE_NS},
    near,
};
use crate::cluster::{
    feature_level::{FIRST, of_entry},
    session::Position,
};
use crate::core::{
    batch::Answer,
    levels::Observed,
    log::{Proposal, payload::Decoder, replicated::TAG_TICK},
    node::{Node, Origin},
    request::Mode,
};

/// Entries that a tick looks at together.
const TICK_ENTRIES: usize = 4096;

impl Groups {
    /// Takes note of entries that are committed.
    pub(super) fn add_committed(&mut self, group: &mut Group, entries: impl Iterator<Item = Entry>) {
        for entry in entries {
            self.committed_bytes += entry.cost_bytes();
            group.committed.push_back(entry);
        }
    }

    /// Whether what else is committed in a group is left to the next turn.
    pub(super) fn has_applied_enough(&self, group: &Group) -> bool {
        self.to_apply_bytes == 0 && group.applied_bytes >= APPLIED_BYTES_A_GROUP
    }

    /// Nothing of that is applied any more.
    pub(super) fn drop_committed(committed_bytes: &mut usize, group: &mut Group) {
        *committed_bytes -= group.committed.drain(..).map(|entry| entry.cost_bytes()).sum::<usize>();
    }
}

impl Node {
    /// Applies what is committed, as far as a save lets it, and serves the reads that waited for it.
    pub(super) fn apply_group(&mut self, groups: &mut Groups, group: &mut Group) {
        let mut applied = None;
        while let Some(entry) = group.committed.pop_front() {
            // What may be served as of the entry before sees nothing of this one.
            self.serve_reads(groups, group, entry.index - 1);
            let must_wait =
                group.reads.front().is_some_and(|read| read.context.is_some() && entry.index > read.limit);
            if must_wait || groups.has_applied_enough(group) {
                group.committed.push_front(entry);
                break;
            }
            if !self.apply_entry(groups, group, &entry) {
                group.committed.push_front(entry);
                break;
            }
            applied = Some(entry.index);
            group.applied_bytes += entry.cost_bytes();
            groups.to_apply_bytes = groups.to_apply_bytes.saturating_sub(entry.cost_bytes());
            groups.committed_bytes -= entry.cost_bytes();
        }
        if let Some(index) = applied {
            group.raft.applied(index);
            if let Some(log) = &mut self.log {
                log.note_applied(group.shard, index);
            }
        }
        self.serve_reads(groups, group, group.raft.applied_index());
        self.serve_near_reads(groups, group);
    }

    /// Applies one entry; false: a save must catch up first.
    fn apply_entry(&mut self, groups: &mut Groups, group: &mut Group, entry: &Entry) -> bool {
        let shard = group.shard;
        match entry.kind {
            EntryKind::Empty | EntryKind::Membership => self.settle_pending(groups, group, entry),
            EntryKind::Data(TAG_TICK) => {
                self.apply_tick(shard, entry.timestamp_ms);
                self.settle_pending(groups, group, entry);
            }
            EntryKind::Data(_) => {
                let mut decoder = std::mem::take(&mut groups.decoder);
                let is_applied = self.apply_command(groups, group, entry, &mut decoder);
                groups.decoder = decoder;
                return is_applied;
            }
        }
        true
    }

    fn apply_command(
        &mut self,
        groups: &mut Groups,
        group: &mut Group,
        entry: &Entry,
        decoder: &mut Decoder,
    ) -> bool {
        let place = (group.shard, entry.index);
        let hasher = self.executor.hasher.clone();
        let decoded = decoder
            .decode(&entry.payload, &hasher)
            .unwrap_or_else(|error| panic!("entry {place:?} is committed and cannot be read: {}", error.0));
        let settings = decoded.settings;
        let mut request = decoded.request(&entry.payload, &mut []);
        if self.must_not_apply(request.keys) {
            return false;
        }
        if self.finds_locked(group.shard, &request) {
            // No replica executes it.
            if let Some(pending) = self.take_pending(groups, group, entry) {
                request.mode = pending.mode;
                let request = Box::new(request.to_owned());
                groups.keep_locked(group, pending.asked, request, LOCK_PATIENCE_NS);
            }
            return true;
        }
        let pending = self.take_pending(groups, group, entry);
        if let Some(Pending { mode: Mode { protocol, touch, .. }, .. }) = &pending {
            request.mode.protocol = *protocol;
            request.mode.touch = *touch;
        }
        let proposal = Proposal { timestamp_ms: entry.timestamp_ms, seed: entry.seed, settings };
        let number = usize::from(group.shard);
        let slot = self.executor.shards.slots_of(number).start;
        let is_here = |slot| self.executor.shards.number_of(slot) == number;
        assert!(
            request.command.flags.contains(Flags::WRITE) && request.keys.iter().all(|key| is_here(key.slot)),
            "entry {place:?} is no write of its shard"
        );
        assert!(
            self.speaks(&mut request),
            "entry {place:?} is of a later feature level than this node's version speaks"
        );
        let shard = self.executor.shards.of(slot);
        shard.advance(entry.timestamp_ms);
        if is_transaction(request.command) {
            // It says itself which keys it changes.
            groups.transactions_ns = groups.transactions_ns.min(groups.now_ns + CHECK_NS);
        } else {
            shard.note_changed(request.keys);
        }
        let mut output = std::mem::take(&mut self.scratch);
        output.clear();
        match request.command.run {
            Run::Single(handler) | Run::Split(handler, _) | Run::Staged(handler, _) => {
                self.executor.apply(handler, &mut request, proposal, &mut output);
            }
            Run::Everywhere(handler, _) => {
                self.executor.apply_to_shard(number, handler, &mut request, proposal, &mut output);
            }
            _ => panic!("entry {place:?} holds a command that is none of a shard"),
        }
        if let Some(pending) = pending {
            self.end_overtaken(groups, group.shard, &pending.asked);
            if !group.locked.is_empty() {
                self.end_passed(groups, group, &pending.asked, &request);
            }
            self.observed = pending.mode.reading.is_tracked().then_some(Observed {
                shard: group.shard,
                position: Position { index: entry.index, term: entry.term },
            });
            self.respond(pending.asked.origin, Answer::Reply, &output);
        }
        self.scratch = output;
        true
    }

    /// Moves shard time on, and removes all that is due.
    fn apply_tick(&mut self, shard: u16, timestamp_ms: u64) {
        let slot = self.executor.shards.slots_of(usize::from(shard)).start;
        let shard = self.executor.shards.of(slot);
        let now_ms = shard.advance(timestamp_ms);
        while shard.next_due_ms().is_some_and(|due_ms| due_ms <= now_ms) {
            shard.tick(now_ms, TICK_ENTRIES);
        }
        self.executor.has_garbage |= shard.has_garbage();
        self.executor.due_ms = self.executor.due_ms.min(shard.next_due_ms().unwrap_or(u64::MAX));
    }

    /// The write that was proposed here and is this entry. What was proposed for its place and is another entry is lost,
    /// and proposed anew; what was proposed for a place in front of it is in a snapshot or not, and nobody knows.
    fn take_pending(&mut self, groups: &mut Groups, group: &mut Group, entry: &Entry) -> Option<Pending> {
        while let Some(first) = group.pending.front()
            && first.index <= entry.index
        {
            let pending = group.pending.pop_front()?;
            if (pending.index, pending.term) == (entry.index, entry.term) {
                return Some(pending);
            }
            if pending.index < entry.index {
                self.end_uncertain(groups, group.shard, &pending.asked);
            } else {
                self.propose_anew(groups, group.shard, &pending);
            }
        }
        None
    }

    fn settle_pending(&mut self, groups: &mut Groups, group: &mut Group, entry: &Entry) {
        let none = self.take_pending(groups, group, entry);
        assert!(none.is_none(), "entries without a command are nobody's");
    }

    /// A write whose entry was replaced by another did not happen, and never will under that entry.
    fn propose_anew(&mut self, groups: &mut Groups, shard: u16, pending: &Pending) {
        if let Origin::Peer { node, id, .. } = pending.asked.origin {
            return self.refuse_forward(groups, node, shard, id);
        }
        let mut decoder = Decoder::default();
        let hasher = self.executor.hasher.clone();
        let decoded = decoder.decode(&pending.payload, &hasher).expect("it was written here");
        let mut request = decoded.request(&pending.payload, &mut []);
        request.mode = pending.mode;
        groups.keep(shard, pending.asked, &mut request);
    }

    /// Serves the reads whose index is applied, now that what is applied goes up to `applied`.
    fn serve_reads(&mut self, groups: &mut Groups, group: &mut Group, applied: u64) {
        while let Some(first) = group.reads.front()
            && first.context.is_none()
            && first.index <= applied
            && let Some(mut read) = group.reads.pop_front()
        {
            if read.limit_term.is_some() && group.raft.term_at(read.limit) != read.limit_term {
                // Another leader's entries took the place of its connection's, which are proposed anew: it goes behind them.
                self.ask_elsewhere(groups, group.shard, read);
                continue;
            }
            if self.finds_locked(group.shard, &read.request.view()) {
                groups.keep_locked(group, read.asked, read.request, LOCK_PATIENCE_NS);
                continue;
            }
            self.executor.read_ms = self.read_time_ms(group.shard);
            self.observed =
                read.request.mode.reading.is_tracked().then(|| near::at(group.shard, &group.raft, applied));
            self.execute_waiting(read.asked, &mut read.request.view());
            groups.requests.give(read.request);
        }
    }

    /// Proposes that shard time moves on, to the shards that this core leads and where something is due.
    pub(in crate::core) fn propose_ticks(&mut self) {
        let Some(mut groups) = self.groups.take() else { return };
        let now_ms = self.shard_now_ms;
        // A shard's time may lag the core's, by which it wakes.
        let lag_ms = self.executor.now_ms.saturating_sub(now_ms);
        self.executor.due_ms = u64::MAX;
        for shard in 0..groups.by_shard.len() {
            let Some(group) = &mut groups.by_shard[shard] else { continue };
            if group.raft.role() != duva_raft::Role::Leader {
                continue;
            }
            let slot = self.executor.shards.slots_of(shard).start;
            let state = self.executor.shards.of(slot);
            let Some(due_ms) = state.next_due_ms() else { continue };
            if due_ms > now_ms {
                self.executor.due_ms = self.executor.due_ms.min(due_ms.saturating_add(lag_ms));
                continue;
            }
            // One at a time: applying it looks again.
            if group.tick_index > group.raft.applied_index() {
                continue;
            }
            let timestamp_ms = now_ms.max(group.proposed_ms);
            const { assert!(of_entry(TAG_TICK) == FIRST) };
            let proposal =
                duva_raft::Proposal { timestamp_ms, seed: 0, tag: TAG_TICK, payload: Default::default() };
            match group.raft.propose(groups.now_ns, proposal) {
                Ok((index, _)) => {
                    group.proposed_ms = timestamp_ms;
                    group.tick_index = index;
                    groups.mark_dirty(shard as u16);
                }
                // A little later.
                Err(_) => self.executor.due_ms = self.executor.due_ms.min(now_ms + lag_ms + 1),
            }
        }
        self.groups = Some(groups);
    }
}
