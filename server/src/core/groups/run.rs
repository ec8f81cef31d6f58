//! What a core does for its groups in every turn.

use duva_engine::command::Flags;
use duva_net::io::Io;
use duva_raft::{Body, Raft, Ready, ReplicaId, Role, codec};

use super::{
    APPLIED_BYTES_A_TURN, APPLIED_TURNS, Group, Groups, Hearsay, PATIENCE_NS, WaitingRead,
    departed::ASKS_TO_LEAVE, forward, forward::Status, leading, placement::TRANSFER_NS,
};
use crate::cluster::node_of;
use crate::core::{
    batch::Answer,
    levels::Observed,
    log::replicated::INSTALLED,
    node::{Node, Origin},
    peer::frame::{FrameHeader, Kind},
};

/// How long a request rests that its shard's leader has refused, in nanoseconds.
pub(super) const REFUSED_REST_NS: u64 = 5_000_000;

/// A flag of Raft's frames: a heartbeat whose answer may wait for something else to leave.
const UNHURRIED: u8 = 1;

/// How long after the last request a shard's leader is in a hurry to renew its lease, in nanoseconds.
const IDLE_NS: u64 = 1_000_000_000;

/// How long followers may wait to be told what is committed, in nanoseconds, if nothing else leaves for them. It is told along
/// with the next entries, most often; each message costs both nodes more than what it says here.
const COMMIT_TOLD_NS: u64 = 1_000_000;

/// How long answers of who led before are waited for once another leader is known, in nanoseconds.
const OVERDUE_NS: u64 = 500_000_000;

/// How long a write may wait to be told what became of it by another leader, in nanoseconds.
const UNSETTLED_NS: u64 = 2_000_000_000;

impl Groups {
    /// When a replica has something to do. Heartbeats of all leaders are due together.
    fn deadline_of(&self, raft: &Raft) -> u64 {
        let at_ns = raft.next_deadline_ns();
        if raft.role() == Role::Leader && at_ns != u64::MAX {
            at_ns.next_multiple_of(self.options.heartbeat_ns())
        } else {
            at_ns
        }
    }

    /// Lets the replicas' timers run that are due; with a lost journal those of leaders alone, for no vote can be kept.
    fn tick(&mut self, is_lost: bool) {
        if self.deadline_ns > self.now_ns {
            return;
        }
        let mut next_ns = u64::MAX;
        for place in 0..self.by_shard.len() {
            let Some(group) = &self.by_shard[place] else { continue };
            if is_lost && group.raft.role() != Role::Leader {
                continue;
            }
            if self.deadline_of(&group.raft) <= self.now_ns {
                let now_ns = self.now_ns;
                if let Some(group) = &mut self.by_shard[place] {
                    group.raft.tick(now_ns);
                }
                self.mark_dirty(place as u16);
            }
            if let Some(group) = &self.by_shard[place] {
                next_ns = next_ns.min(self.deadline_of(&group.raft));
            }
        }
        self.deadline_ns = next_ns;
    }

    /// This core was away: its replicas wait for the others anew.
    fn were_away(&mut self) {
        for group in self.by_shard.iter_mut().flatten() {
            group.raft.was_away(self.now_ns);
        }
    }

    /// A node says that it leads a shard, and perhaps who votes. A replica here that should be here knows better who leads in
    /// its own term.
    fn hear_of_leader(&mut self, shard: u16, from: u32, (term, mut voters): (u64, Vec<ReplicaId>)) {
        let place = usize::from(shard);
        let route = &mut self.routes[place];
        if let Some(known) = &mut route.hearsay {
            if known.term > term {
                return;
            }
            if voters.is_empty() && (known.node, known.term) == (from, term) {
                voters = std::mem::take(&mut known.voters);
            }
        }
        route.hearsay = Some(Hearsay { node: from, term, voters });
        match &self.by_shard[place] {
            Some(_) => self.mark_dirty(shard),
            None => {
                self.set_route(shard, Some(from), term);
            }
        }
    }

    /// What is known of a shard's leader has changed.
    pub(super) fn set_route(&mut self, shard: u16, leader: Option<u32>, term: u64) -> bool {
        let route = &mut self.routes[usize::from(shard)];
        if (route.leader, route.term) == (leader, term) {
            return false;
        }
        route.leader = leader;
        route.term = term;
        route.is_stale = route.in_flight > 0;
        if route.is_stale && leader.is_some() {
            // Whom they were sent to may hang, and they keep all that came later waiting.
            let deadline_ns = self.now_ns + OVERDUE_NS;
            self.forwards.hasten(shard, deadline_ns);
            self.patience_ns = self.patience_ns.min(deadline_ns);
        }
        self.retry_ns = 0;
        true
    }
}

impl Node {
    /// Takes a frame of another node for one of this core's groups.
    pub(in crate::core) fn take_group_frame(&mut self, from: u32, header: FrameHeader, payload: &[u8]) {
        let Some(mut groups) = self.groups.take() else { return };
        let shard = header.group;
        if usize::from(shard) < groups.by_shard.len() {
            match header.kind {
                Kind::Raft => self.take_raft_message(&mut groups, from, header, payload),
                Kind::Forward => self.take_forward(&mut groups, from, shard, payload),
                Kind::ForwardReply => self.take_forward_reply(&mut groups, from, shard, payload),
                Kind::Leaders if header.flags & ASKS_TO_LEAVE != 0 => {
                    self.take_wish_to_leave(&groups, from, shard, payload);
                }
                Kind::Leaders => {
                    groups.take_leave(shard, header.flags, payload);
                    if let Some((term, voters)) = leading::read(header.flags, payload) {
                        groups.hear_of_leader(shard, from, (term, voters));
                    }
                }
                Kind::Leaving => self.take_leaving(&mut groups, from, shard, header.flags),
                Kind::Hello | Kind::Gossip | Kind::Clock => {}
            }
        }
        self.groups = Some(groups);
    }

    fn take_raft_message(&mut self, groups: &mut Groups, from: u32, header: FrameHeader, payload: &[u8]) {
        let shard = header.group;
        let (now_ns, is_behind) = (groups.now_ns, groups.is_behind());
        let Some(group) = &mut groups.by_shard[usize::from(shard)] else { return };
        let lists = &mut groups.ready.lists;
        let message = match codec::decode_with(payload, &mut group.payloads, lists) {
            Ok((message, length)) if length == payload.len() && node_of(message.from) == from => message,
            _ => {
                tracing::warn!(node = from, shard, "a message of another node's replica cannot be read");
                return;
            }
        };
        // What cannot be kept is not taken: memory would grow with it.
        let needs_disk = match &message.body {
            Body::Append { entries, .. } => !entries.is_empty(),
            Body::TimeoutNow | Body::Snapshot { .. } => true,
            _ => false,
        };
        if needs_disk && self.is_journal_lost() {
            return;
        }
        // Nor what cannot be applied for now: its leader sends it again.
        let has_entries = matches!(&message.body, Body::Append { entries, .. } if !entries.is_empty());
        if is_behind && has_entries && !group.committed.is_empty() {
            return;
        }
        let is_asked = matches!(message.body, Body::TimeoutNow);
        match message.body {
            Body::Heartbeat { .. } => group.is_unhurried = header.flags & UNHURRIED != 0,
            Body::ReadIndex { .. } => group.asked_ns = now_ns,
            _ => {}
        }
        lists.give(group.raft.step(now_ns, message));
        groups.counts.taken_over += u64::from(is_asked && group.raft.role() == Role::Candidate);
        groups.mark_dirty(shard);
    }

    fn take_forward_reply(&mut self, groups: &mut Groups, from: u32, shard: u16, payload: &[u8]) {
        let Some((id, status, reply)) = forward::read_reply(payload) else {
            tracing::warn!(node = from, "a reply of another node cannot be read");
            return;
        };
        let Some(mut forwarded) = groups.forwards.take(id, from, shard) else { return };
        groups.end_flight(forwarded.shard, forwarded.request.kept_bytes());
        match status {
            Status::Done | Status::DoneAt(_) => {
                if forwarded.request.command.flags.contains(Flags::WRITE) {
                    self.end_overtaken(groups, shard, &forwarded.asked);
                }
                if let Status::DoneAt(position) = status {
                    self.observed = Some(Observed { shard, position });
                }
                self.respond(forwarded.asked.origin, Answer::Reply, reply);
            }
            Status::NotLeader => {
                // What was sent behind it is refused as well: it is waited for, so that all of it goes again in order.
                let route = &mut groups.routes[usize::from(shard)];
                route.is_stale = route.in_flight > 0;
                groups.keep(shard, forwarded.asked, &mut forwarded.request.view());
            }
        }
        groups.requests.give(forwarded.request);
        if !groups.leavers.is_empty() {
            self.confirm_leaving(groups, from, shard);
        }
    }

    /// The link to or from a node broke: what is on its way there has an unknown fate.
    pub(in crate::core) fn peer_is_lost(&mut self, node: u32) {
        let Some(mut groups) = self.groups.take() else { return };
        groups.forget_leaver(node);
        for forwarded in groups.forwards.take_if(|forwarded| forwarded.to == node) {
            self.give_forwarded_up(&mut groups, forwarded);
        }
        for place in 0..groups.by_shard.len() {
            let Some(group) = &mut groups.by_shard[place] else { continue };
            let replicas: Vec<ReplicaId> =
                group.raft.membership().members().filter(|&replica| node_of(replica) == node).collect();
            for replica in replicas {
                group.raft.unreachable(replica);
                group.drop_fetches(replica);
            }
            groups.mark_dirty(place as u16);
        }
        self.groups = Some(groups);
    }

    /// The link to a node is up: it learns which shards it need not look for elsewhere.
    pub(in crate::core) fn peer_is_up(&mut self, node: u32) {
        let Some(groups) = &mut self.groups else { return };
        groups.forget_leaver(node);
        for (shard, raft) in groups.replicas().filter(|(_, raft)| raft.role() == Role::Leader) {
            leading::tell(&mut self.peers, node, shard, raft.term(), &leading::who_votes(raft));
        }
    }

    /// Whether nothing can be journalled any more, until the next start.
    pub(super) fn is_journal_lost(&self) -> bool {
        self.log.as_ref().is_some_and(|log| log.is_lost())
    }

    /// Lets the groups go on: what the disk has done, timers, messages, entries, replies.
    pub(in crate::core) fn run_groups(&mut self, io: &mut impl Io) {
        let Some(mut groups) = self.groups.take() else { return };
        if groups.absence.take() {
            groups.were_away();
        }
        self.tell_of_disk(&mut groups);
        groups.tick(self.is_journal_lost());
        self.compare_groups(&mut groups);
        self.run_returning(&mut groups, io);
        groups.has_backlog = false;
        groups.to_apply_bytes = APPLIED_BYTES_A_TURN.max(groups.committed_bytes / APPLIED_TURNS);
        self.compact_next(&mut groups);
        groups.invite_snapshots();
        groups.end_rests();
        for shard in std::mem::take(&mut groups.paused) {
            groups.mark_dirty(shard);
        }
        let mut ready = std::mem::take(&mut groups.ready);
        while let Some(shard) = groups.dirty.pop() {
            let Some(mut group) = groups.by_shard[usize::from(shard)].take() else { continue };
            group.is_dirty = false;
            self.run_group(&mut groups, &mut group, &mut ready, io);
            groups.by_shard[usize::from(shard)] = Some(group);
        }
        groups.ready = ready;
        self.serve_unlocked(&mut groups);
        self.end_old_transactions(&mut groups);
        if groups.retry_ns <= groups.now_ns {
            self.retry_waiting(&mut groups);
        }
        self.end_patience(&mut groups);
        self.serve_unlocked(&mut groups);
        if groups.incoming_places != 0 {
            self.end_incoming(&mut groups, io);
        }
        self.take_fanned(&mut groups);
        self.begin_pass(&mut groups, io);
        self.groups = Some(groups);
    }

    fn tell_of_disk(&mut self, groups: &mut Groups) {
        let Some(log) = &mut self.log else { return };
        let mut installed = Vec::new();
        while let Some(arrived) = log.next_arrived() {
            for &(shard, number) in &arrived.writes {
                if number == INSTALLED {
                    if arrived.is_synced {
                        installed.push(shard);
                    }
                    continue;
                }
                if let Some(group) = &mut groups.by_shard[usize::from(shard)] {
                    if arrived.is_synced {
                        group.raft.synced(number);
                        group.synced_number = number;
                    } else {
                        group.raft.written(number);
                    }
                }
                groups.mark_dirty(shard);
            }
            log.end_arrival(arrived);
        }
        log.append_replicated();
        for shard in installed {
            self.install(groups, shard);
        }
        self.run_installs(groups);
    }

    fn run_group(&mut self, groups: &mut Groups, group: &mut Group, ready: &mut Ready, io: &mut impl Io) {
        let shard = group.shard;
        group.applied_bytes = 0;
        while group.raft.has_ready() {
            group.raft.take_ready(groups.now_ns, ready);
            let Ready { messages, lists, .. } = &mut *ready;
            for message in messages.drain(..) {
                let (to, encode) = (node_of(message.to), |out: &mut Vec<u8>| codec::encode(&message, out));
                let _ = match message.body {
                    Body::HeartbeatReply { .. } if group.is_unhurried => {
                        let until_ns = groups.now_ns.next_multiple_of(groups.options.heartbeat_ns());
                        self.peers.push_unhurried((to, until_ns), Kind::Raft, 0, shard, encode)
                    }
                    // It only tells what is committed.
                    Body::Append { commit, ref entries, .. } if entries.is_empty() && commit > 0 => {
                        let until_ns = groups.now_ns + COMMIT_TOLD_NS;
                        self.peers.push_unhurried((to, until_ns), Kind::Raft, 0, shard, encode)
                    }
                    Body::Heartbeat { .. } if groups.now_ns >= group.asked_ns + IDLE_NS => {
                        self.peers.push(to, Kind::Raft, UNHURRIED, shard, encode)
                    }
                    _ => self.peers.push(to, Kind::Raft, 0, shard, encode),
                };
                lists.give_of(message);
            }
            if let Some(write) = ready.write.take()
                && let Some(log) = &mut self.log
            {
                group.handed_number = write.number;
                ready.lists.give(log.replicate(shard, write));
            }
            groups.add_committed(group, ready.committed.drain(..));
            for state in ready.reads.drain(..) {
                if let Some(read) = group.reads.iter_mut().find(|read| read.context == Some(state.context)) {
                    read.context = None;
                    // All that was acknowledged before it came lies at or in front of its limit; what lies behind may be its own
                    // connection's later writes.
                    read.index = read.index.max(state.index.min(read.limit));
                }
            }
            self.fail_reads(groups, group, &ready.failed_reads);
            for fetch in ready.fetches.drain(..) {
                groups.fetch(group, fetch);
            }
            for read in ready.snapshot_reads.drain(..) {
                self.read_snapshot(groups, group, read, io);
            }
            for piece in ready.snapshot_writes.drain(..) {
                self.take_snapshot(groups, group, piece, io);
            }
            self.apply_group(groups, group);
        }
        self.apply_group(groups, group);
        self.release_locked(groups, group);
        if !group.committed.is_empty() {
            // A save stops it, or a read, whose ends make turns; or there is too much for one turn.
            groups.paused.push(shard);
            groups.has_backlog |= groups.has_applied_enough(group);
        }
        self.note_leader(groups, group);
        groups.deadline_ns = groups.deadline_ns.min(groups.deadline_of(&group.raft));
    }

    /// Reads that this replica cannot serve any more go to who can.
    fn fail_reads(&mut self, groups: &mut Groups, group: &mut Group, failed: &[u64]) {
        for context in failed {
            let Some(place) = group.reads.iter().position(|read| read.context == Some(*context)) else {
                continue;
            };
            let Some(read) = group.reads.remove(place) else { continue };
            self.ask_elsewhere(groups, group.shard, read);
        }
    }

    /// A read that is not served here: a node that sent it sends it to another, one of this node's waits to be sent.
    pub(super) fn ask_elsewhere(&mut self, groups: &mut Groups, shard: u16, mut read: WaitingRead) {
        if let Origin::Peer { node, id, .. } = read.asked.origin {
            self.refuse_forward(groups, node, shard, id);
        } else {
            groups.keep(shard, read.asked, &mut read.request.view());
        }
    }

    /// Takes note of who leads a group.
    fn note_leader(&mut self, groups: &mut Groups, group: &mut Group) {
        let (shard, raft) = (group.shard, &group.raft);
        let (leader, term) = (raft.leader().map(node_of), raft.term());
        let route = &groups.routes[usize::from(shard)];
        let before = route.leader;
        let (leader, term) = match &route.hearsay {
            // Nobody may tell this replica any more, or it cannot follow because its journal has failed.
            Some(heard)
                if heard.term > term && raft.role() != Role::Leader
                    || !group.is_placed && leader.is_none() && heard.term == term =>
            {
                (Some(heard.node), heard.term)
            }
            _ => (leader, term),
        };
        if !groups.set_route(shard, leader, term) {
            return;
        }
        let own = groups.options.number;
        let (leads, led) = (leader == Some(own), before == Some(own));
        if leads {
            tracing::info!(shard, term, "this node leads the shard");
            groups.counts.elections_won += 1;
            group.tick_index = 0;
            // Who handed it over may know a newer state of the cluster than this node.
            group.transfer_ns = groups.now_ns + TRANSFER_NS;
            // Entries of earlier leaders that are not applied may have later timestamps than this one's clock.
            let unapplied = group.raft.entries(group.raft.applied_index() + 1..group.raft.last_index() + 1);
            let latest_ms = unapplied.iter().map(|entry| entry.timestamp_ms).max().unwrap_or(0);
            group.proposed_ms = group.proposed_ms.max(latest_ms);
            // So are transactions that its shard takes part in.
            groups.transactions_ns = 0;
            // What is due here is this core's to propose from now on.
            self.executor.due_ms = 0;
            group.told_voters = leading::who_votes(raft);
            leading::tell_all(&mut self.peers, shard, term, &group.told_voters);
        } else {
            tracing::info!(shard, term, leader, "the shard has another leader, or none");
        }
        if led || leads {
            let deadline_ns = groups.now_ns + UNSETTLED_NS;
            for pending in group.pending.iter_mut().filter(|pending| pending.term < term || !leads) {
                pending.deadline_ns = pending.deadline_ns.min(deadline_ns);
            }
            groups.patience_ns = groups.patience_ns.min(deadline_ns);
        }
        groups.compare_ns = 0;
    }

    fn retry_waiting(&mut self, groups: &mut Groups) {
        groups.retry_ns = u64::MAX;
        for shard in 0..groups.routes.len() {
            if !groups.routes[shard].waiting.is_empty() {
                self.serve_waiting(groups, shard as u16);
            }
            if !groups.routes[shard].waiting.is_empty() {
                // Something will change; whatever it is, it is seen then.
                groups.retry_ns = groups.retry_ns.min(groups.now_ns + REFUSED_REST_NS);
            }
        }
        debug_assert!(groups.patience_ns <= groups.now_ns + PATIENCE_NS || groups.patience_ns == u64::MAX);
    }
}
