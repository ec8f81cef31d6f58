//! What becomes of a request for a shard: proposed or read where its shard's leader is, sent there otherwise.

use duva_engine::{
    Reply,
    command::{Flags, Handler},
};
use duva_raft::{Proposal, ProposeError, ReadOutcome, Role};

use super::{
    Asked, COMMAND_BYTES_MAX, Group, Groups, PATIENCE_NS, Pending, Waiting, WaitingRead,
    forward::{self, ForwardHead, Forwarded, Status},
    leave,
    locked::{Bar, REFUSED},
    near::applied,
    run::REFUSED_REST_NS,
};
use crate::cluster::feature_level::{FIRST, of_entry};
use crate::core::{
    batch::Answer,
    log::{
        payload::{self, Selection},
        replicated::TAG_COMMAND,
    },
    node::{Node, Origin, Submitted},
    peer::{
        frame::{self, Kind},
        links::Pushed,
    },
    request::Request,
};

/// What a request that waited for a leader in vain gets.
const NO_LEADER: &str = "CLUSTERDOWN The shard has no leader now; nothing was executed";

/// What a request gets that lost its leader, or waited for a locked key, and would be executed behind a later one of its connection.
pub(super) const OVERTAKEN: &str = "CLUSTERDOWN The shard's leader was lost, or a key locked, and a later write of this connection came first; this was not executed";

/// What a request that is too large for a log gets.
const TOO_LARGE: &str = "ERR the command is longer than 64 MiB, the most that is replicated";

/// The longest reply that travels between nodes, in bytes, and what is sent instead of a longer one.
const REPLY_BYTES_MAX: usize = frame::PAYLOAD_BYTES_MAX - 64;
const TOO_LONG: &[u8] = b"-ERR the reply is longer than 80 MiB: ask the node that leads the shard\r\n";

/// What a write gets of which nobody can tell in time whether it takes effect.
const UNCERTAIN: &str =
    "UNCERTAIN The shard's leader was lost before it confirmed this write: it may take effect or not";

/// What a write gets where the journal has no room, and others do not make up for that.
const NO_ROOM: &str =
    "MISCONF Errors writing to the AOF file: the shard's leader has no room for its journal";

/// How long a write waits at most to be committed before a leader without room takes no more, in nanoseconds.
const UNCOMMITTED_NS: u64 = 1_000_000_000;

/// How a request that was looked at goes on.
pub(super) enum Course {
    /// A read to be executed now.
    Execute,
    /// It waits, or is elsewhere.
    Waiting,
    /// It gets this error.
    Error(&'static str),
    /// This replica does not lead any more.
    Lost,
}

impl Node {
    /// What the shard's group makes of a request whose keys are all in one shard of this core; `None`: it is a read to be
    /// executed now.
    pub(in crate::core) fn group_first(
        &mut self,
        origin: Origin,
        handler: Handler,
        request: &mut Request<'_>,
        output: &mut Vec<u8>,
        is_ordered: bool,
    ) -> Option<Submitted> {
        if let Some(refusal) = self.refusal_by_level(request) {
            Reply::new(output, request.mode.protocol).error(&refusal);
            return Some(Submitted::Done);
        }
        let mut groups = self.groups.take().expect("whoever asks has groups");
        let course = if request.keys.is_empty() && request.command.flags.contains(Flags::WRITE) {
            self.fan_out(&mut groups, (origin, handler), request);
            Course::Waiting
        } else if request.keys.is_empty() {
            // What this node's replicas hold.
            self.executor.read_ms = self.read_time_of_all_ms();
            Course::Execute
        } else {
            let shard = self.executor.shards.number_of(request.keys[0].slot) as u16;
            let asked = groups.asked(origin, handler, is_ordered);
            self.take_request(&mut groups, shard, asked, request)
        };
        self.groups = Some(groups);
        match course {
            Course::Execute => None,
            Course::Waiting => Some(Submitted::Waiting),
            Course::Error(error) => {
                Reply::new(output, request.mode.protocol).error(error);
                Some(Submitted::Done)
            }
            Course::Lost => unreachable!("a request that is not served here is sent on"),
        }
    }

    pub(super) fn take_request(
        &mut self,
        groups: &mut Groups,
        shard: u16,
        asked: Asked,
        request: &mut Request<'_>,
    ) -> Course {
        if payload::len_bytes_max(request, Selection::All) > COMMAND_BYTES_MAX {
            return Course::Error(TOO_LARGE);
        }
        if request.mode.reading.is_near() {
            match self.read_near(groups, shard, asked, request) {
                Course::Lost => {}
                course => return course,
            }
        }
        if groups.routes[usize::from(shard)].waiting.is_empty() {
            match self.lead(groups, shard, asked, request) {
                Course::Lost => {}
                course => return course,
            }
            if self.send_on(groups, shard, asked, request) {
                return Course::Waiting;
            }
        }
        groups.keep(shard, asked, request);
        Course::Waiting
    }

    /// Serves a request if this core's replica leads.
    pub(super) fn lead(
        &mut self,
        groups: &mut Groups,
        shard: u16,
        asked: Asked,
        request: &mut Request<'_>,
    ) -> Course {
        let (now_ns, is_behind) = (groups.now_ns, groups.is_behind());
        let is_stale = groups.routes[usize::from(shard)].is_stale;
        let Some(group) = &mut groups.by_shard[usize::from(shard)] else { return Course::Lost };
        // While it hands leadership over nothing is proposed, and reads are not to overtake what is not.
        if group.raft.role() != Role::Leader || group.raft.transfer_target().is_some() {
            return Course::Lost;
        }
        // A connection's earlier requests, sent elsewhere or proposed under an earlier term, may have to be proposed anew, and
        // are not to be overtaken.
        group.asked_ns = now_ns;
        let is_unsettled = group.pending.front().is_some_and(|first| first.term < group.raft.term());
        if (is_stale || is_unsettled) && !matches!(asked.origin, Origin::Peer { .. }) {
            return Course::Lost;
        }
        if self.may_be_barred(group) {
            match self.bar(group, &asked, request) {
                Bar::Open => {}
                Bar::Refused => return Course::Error(REFUSED),
                Bar::Waits(patience_ns) => {
                    groups.wait_for_keys(shard, asked, request, patience_ns);
                    return Course::Waiting;
                }
            }
        }
        if request.command.flags.contains(Flags::WRITE) {
            // It is tried again, as when too much is uncommitted.
            if is_behind {
                return Course::Lost;
            }
            let course = self.propose_to(group, asked, request, now_ns);
            groups.mark_dirty(shard);
            return course;
        }
        let context = groups.next_context;
        groups.next_context += 1;
        // What its connection wrote before is in the log by now.
        let behind = if asked.is_ordered { group.raft.last_index() } else { 0 };
        let (index, context) = match group.raft.read(now_ns, context) {
            Ok(ReadOutcome::At(index)) => (index.max(behind), None),
            Ok(ReadOutcome::Pending) => (behind, Some(context)),
            Err(_) => return Course::Lost,
        };
        if context.is_none() && index <= group.raft.applied_index() {
            self.observed = request.mode.reading.is_tracked().then(|| applied(shard, &group.raft));
            self.executor.read_ms = self.read_time_ms(shard);
            return Course::Execute;
        }
        let request = groups.requests.own(request);
        let limit = group.raft.last_index();
        let limit_term = if asked.is_ordered { group.raft.term_at(limit) } else { None };
        group.reads.push_back(WaitingRead { context, index, limit, limit_term, asked, request });
        groups.mark_dirty(shard);
        Course::Waiting
    }

    fn propose_to(
        &mut self,
        group: &mut Group,
        asked: Asked,
        request: &mut Request<'_>,
        now_ns: u64,
    ) -> Course {
        if self.is_journal_lost() {
            return Course::Error("MISCONF Errors writing to the AOF file: this node's journal has failed");
        }
        // The others may have room, and commit without this copy: for as long as they do, and what waits here is bounded.
        let first_ns = group.pending.front().map_or(u64::MAX, |first| first.asked.deadline_ns);
        let is_stuck = first_ns < now_ns + PATIENCE_NS - UNCOMMITTED_NS;
        if self.log.as_ref().is_some_and(|log| log.has_no_room(is_stuck)) {
            return Course::Error(NO_ROOM);
        }
        let slot = self.executor.shards.slots_of(usize::from(group.shard)).start;
        let shard_ms = self.executor.shards.of(slot).time_ms();
        let timestamp_ms = self.shard_now_ms.max(group.proposed_ms).max(shard_ms);
        let mut bytes = std::mem::take(&mut self.scratch_payload);
        bytes.clear();
        payload::write(request, Selection::All, &self.executor.settings, &mut bytes);
        let payload = group.payloads.copy(&bytes);
        self.scratch_payload = bytes;
        let seed = self.executor.next_seed();
        // An entry of a later level would have to ask whether the cluster has agreed on it.
        const { assert!(of_entry(TAG_COMMAND) == FIRST) };
        let proposal = Proposal { timestamp_ms, seed, tag: TAG_COMMAND, payload: payload.clone() };
        match group.raft.propose(now_ns, proposal) {
            Ok((index, term)) => {
                group.proposed_ms = timestamp_ms;
                let mode = request.mode;
                // What was proposed in an earlier term may be for a place behind this one, and is not settled yet.
                let place = group.pending.iter().rposition(|other| other.index <= index);
                let pending = Pending { index, term, asked, mode, payload, deadline_ns: u64::MAX };
                group.pending.insert(place.map_or(0, |place| place + 1), pending);
                Course::Waiting
            }
            Err(
                ProposeError::NotLeader { .. }
                | ProposeError::Transferring { .. }
                | ProposeError::Busy
                | ProposeError::ChangePending
                | ProposeError::InvalidMembership
                | ProposeError::NotVoter,
            ) => Course::Lost,
        }
    }

    /// The time that reads of a shard see: no deadline lies between that and what the shard's log has passed.
    pub(super) fn read_time_ms(&mut self, shard: u16) -> u64 {
        let now_ms = self.shard_now_ms;
        let slot = self.executor.shards.slots_of(usize::from(shard)).start;
        let shard = self.executor.shards.of(slot);
        let before_due_ms = shard.next_due_ms().map_or(u64::MAX, |due_ms| due_ms.saturating_sub(1));
        now_ms.min(before_due_ms).max(shard.time_ms())
    }

    /// The same for reads of all shards of this core.
    fn read_time_of_all_ms(&mut self) -> u64 {
        let now_ms = self.shard_now_ms;
        let due_ms = self.executor.shards.iter().filter_map(duva_engine::Shard::next_due_ms).min();
        now_ms.min(due_ms.map_or(u64::MAX, |due_ms| due_ms.saturating_sub(1)))
    }

    /// Whether answers of another node can come: it sends them on its own link, which belongs to this core, or, if the nodes have
    /// other numbers of cores, perhaps to another.
    fn can_hear(&self, node: u32) -> bool {
        self.peers.hears(node)
            || self.cluster.as_ref().is_some_and(|cluster| cluster.hears_all_of(node, self.cores))
    }

    /// Sends a request to the node that leads its shard; false: none is known, or the way there is not free.
    fn send_on(&mut self, groups: &mut Groups, shard: u16, asked: Asked, request: &mut Request<'_>) -> bool {
        let own = groups.options.number;
        let route = &mut groups.routes[usize::from(shard)];
        let Some(to) = route.leader.filter(|&leader| leader != own && !route.is_stale) else { return false };
        if groups.by_shard[usize::from(shard)].as_ref().is_some_and(|group| !group.pending.is_empty()) {
            return false;
        }
        // One that came from another node is not sent further: that one knows no less.
        let is_there = !leave::is_leaving(&groups.leavers, to, shard, groups.now_ns);
        let has_way = is_there && self.peers.is_up(to) && self.peers.has_room(to) && self.can_hear(to);
        if matches!(asked.origin, Origin::Peer { .. }) || !has_way {
            return false;
        }
        let id = groups.forwards.next_id();
        let names = (id, route.term);
        let order = (asked.is_ordered, route.in_flight == 0);
        let settings = &self.executor.settings;
        let pushed = self.peers.push(to, Kind::Forward, 0, shard, |out| {
            forward::write_forward(out, names, order, request, settings);
        });
        if pushed == Pushed::Dropped {
            return false;
        }
        route.in_flight += 1;
        groups.counts.forwarded += 1;
        let request = groups.requests.own(request);
        groups.waiting_bytes += request.kept_bytes();
        let deadline_ns = groups.now_ns + PATIENCE_NS;
        groups.patience_ns = groups.patience_ns.min(deadline_ns);
        let forwarded = Forwarded { shard, to, asked, request, deadline_ns };
        groups.forwards.insert(id, forwarded);
        true
    }

    /// A request of another node.
    pub(super) fn take_forward(&mut self, groups: &mut Groups, from: u32, shard: u16, bytes: &[u8]) {
        let Some(ForwardHead { id, term, is_ordered, is_first, protocol, touch, reading, command }) =
            forward::read_forward(bytes)
        else {
            tracing::warn!(node = from, "a request of another node cannot be read");
            return;
        };
        if is_first {
            groups.refused.remove(&(from, shard));
        }
        // Replies that do not leave are not piled up: the request comes again.
        let leads = self.peers.has_room(from)
            && !groups.refused.contains(&(from, shard))
            && groups.by_shard[usize::from(shard)]
                .as_ref()
                .is_some_and(|group| group.raft.role() == Role::Leader && group.raft.term() == term);
        if !leads {
            return self.refuse_forward(groups, from, shard, id);
        }
        let mut decoder = std::mem::take(&mut groups.decoder);
        let hasher = self.executor.hasher.clone();
        match decoder.decode(command, &hasher) {
            Ok(decoded) => {
                groups.counts.served += 1;
                let origin = Origin::Peer { node: from, shard, id, command: decoded.command };
                let mut request = decoded.request(command, &mut []);
                request.mode.protocol = protocol;
                request.mode.touch = touch;
                request.mode.reading = reading;
                let is_here = |slot| self.executor.shards.number_of(slot) == usize::from(shard);
                if self.refusal_by_level(&mut request).is_some() {
                    // The sender knows that the cluster has agreed, and so will this node in a moment.
                    self.refuse_forward(groups, from, shard, id);
                } else if !request.keys.iter().all(|key| is_here(key.slot)) {
                    self.respond(origin, Answer::Reply, b"-ERR the request is of another shard\r\n");
                } else {
                    self.serve_forward(groups, shard, origin, is_ordered, &mut request);
                }
            }
            Err(error) => {
                tracing::warn!(node = from, "a request of another node cannot be read: {}", error.0);
                let reply = b"-ERR the node that leads the shard does not understand the request\r\n";
                self.reply_to_peer(from, shard, id, reply);
            }
        }
        groups.decoder = decoder;
    }

    fn serve_forward(
        &mut self,
        groups: &mut Groups,
        shard: u16,
        origin: Origin,
        is_ordered: bool,
        request: &mut Request<'_>,
    ) {
        let Origin::Peer { node, id, .. } = origin else { panic!("a forward comes from a peer") };
        let Some(handler) = single_handler(request) else {
            return self.respond(origin, Answer::Reply, b"-ERR the request is none of a single shard\r\n");
        };
        let asked = groups.asked(origin, handler, is_ordered);
        match self.lead(groups, shard, asked, request) {
            Course::Execute => self.execute_waiting(asked, request),
            Course::Waiting => {}
            Course::Error(error) => self.respond_error(origin, error),
            Course::Lost => self.refuse_forward(groups, node, shard, id),
        }
    }

    /// Tells a node that its request was not executed here. Nor is what it has sent behind it.
    pub(super) fn refuse_forward(&mut self, groups: &mut Groups, node: u32, shard: u16, id: u64) {
        groups.refused.insert((node, shard));
        let write = |out: &mut Vec<u8>| forward::write_reply(out, id, Status::NotLeader, &[]);
        let _ = self.peers.push(node, Kind::ForwardReply, 0, shard, write);
    }

    /// Sends a reply to another node.
    pub(in crate::core) fn reply_to_peer(&mut self, node: u32, shard: u16, id: u64, reply: &[u8]) {
        let reply = if reply.len() > REPLY_BYTES_MAX { TOO_LONG } else { reply };
        let status = self.observed.take().map_or(Status::Done, |observed| Status::DoneAt(observed.position));
        let write = |out: &mut Vec<u8>| forward::write_reply(out, id, status, reply);
        let _ = self.peers.push(node, Kind::ForwardReply, 0, shard, write);
    }

    /// Serves what waited for the leader of a shard, in order, as far as there is one.
    pub(super) fn serve_waiting(&mut self, groups: &mut Groups, shard: u16) {
        let place = usize::from(shard);
        while let Some(mut waiting) = groups.routes[place].waiting.pop_front() {
            let asked = waiting.asked;
            let kept_bytes = waiting.request.kept_bytes();
            let mut request = waiting.request.view();
            match self.lead(groups, shard, asked, &mut request) {
                Course::Execute => self.execute_waiting(asked, &mut request),
                Course::Waiting => {}
                Course::Error(error) => self.respond_error(asked.origin, error),
                Course::Lost => {
                    if !self.send_on(groups, shard, asked, &mut request) {
                        groups.routes[place].waiting.push_front(waiting);
                        return;
                    }
                }
            }
            groups.waiting_bytes -= kept_bytes;
            groups.requests.give(waiting.request);
        }
    }

    /// Executes a read that has waited.
    pub(super) fn execute_waiting(&mut self, asked: Asked, request: &mut Request<'_>) {
        let Asked { origin, handler, .. } = asked;
        let mut output = std::mem::take(&mut self.scratch);
        output.clear();
        let step = self.executor.execute(handler, request, &mut output);
        if self.after_step(origin, step, request) == Submitted::Done {
            self.respond(origin, Answer::Reply, &output);
        }
        self.scratch = output;
    }

    pub(super) fn respond_error(&mut self, origin: Origin, error: &str) {
        self.respond(origin, Answer::Reply, format!("-{error}\r\n").as_bytes());
    }

    /// Ends the patience of what has waited too long.
    pub(super) fn end_patience(&mut self, groups: &mut Groups) {
        let now_ns = groups.now_ns;
        if groups.patience_ns > now_ns {
            return;
        }
        for place in 0..groups.routes.len() {
            while let Some(first) = groups.routes[place].waiting.front()
                && first.asked.deadline_ns <= now_ns
                && let Some(waiting) = groups.routes[place].waiting.pop_front()
            {
                groups.waiting_bytes -= waiting.request.kept_bytes();
                self.respond_error(waiting.asked.origin, NO_LEADER);
            }
        }
        groups.give_near_reads_up();
        self.give_locked_up(groups);
        for forwarded in groups.forwards.take_if(|forwarded| forwarded.deadline_ns <= now_ns) {
            self.give_forwarded_up(groups, forwarded);
        }
        for shard in 0..groups.by_shard.len() {
            // Those that this replica cannot learn of. Later ones may be in front of them.
            while let Some(group) = &mut groups.by_shard[shard]
                && let Some(place) = group.pending.iter().position(|pending| pending.deadline_ns <= now_ns)
                && let Some(pending) = group.pending.remove(place)
            {
                self.end_uncertain(groups, shard as u16, &pending.asked);
            }
        }
        let waiting = groups.routes.iter().filter_map(|route| route.waiting.front());
        let pending = groups.by_shard.iter().flatten().flat_map(|group| &group.pending);
        let deadlines = waiting.map(|waiting| waiting.asked.deadline_ns);
        let deadlines = deadlines.chain(pending.map(|pending| pending.deadline_ns));
        let deadlines = deadlines.chain(groups.forwards.deadline_ns()).chain(groups.near_deadline_ns());
        let deadlines = deadlines.chain(groups.locked_deadline_ns());
        groups.patience_ns = deadlines.min().unwrap_or(u64::MAX);
    }

    /// A write was executed, or may be: what its connection asked for before, and was refused and waits, would see it.
    pub(super) fn end_overtaken(&mut self, groups: &mut Groups, shard: u16, by: &Asked) {
        let waiting = &mut groups.routes[usize::from(shard)].waiting;
        while let Some(place) = waiting.iter().position(|earlier| {
            earlier.asked.order < by.order && earlier.asked.origin.is_of_same_connection(&by.origin)
        }) && let Some(earlier) = waiting.remove(place)
        {
            groups.waiting_bytes -= earlier.request.kept_bytes();
            self.respond_error(earlier.asked.origin, OVERTAKEN);
        }
    }

    /// Nobody can tell who asked for a write what becomes of it.
    pub(super) fn end_uncertain(&mut self, groups: &mut Groups, shard: u16, asked: &Asked) {
        groups.counts.uncertain += 1;
        self.end_overtaken(groups, shard, asked);
        self.respond_error(asked.origin, UNCERTAIN);
    }

    /// A forwarded request will not be answered: whether a write takes effect is unknown, a read is asked anew.
    pub(super) fn give_forwarded_up(&mut self, groups: &mut Groups, forwarded: Forwarded) {
        let Forwarded { shard, asked, mut request, .. } = forwarded;
        groups.end_flight(shard, request.kept_bytes());
        if request.command.flags.contains(Flags::WRITE) {
            self.end_uncertain(groups, shard, &asked);
        } else {
            groups.keep(shard, asked, &mut request.view());
        }
        groups.requests.give(request);
    }
}

impl Groups {
    /// What was asked for just now.
    pub(super) fn asked(&mut self, origin: Origin, handler: Handler, is_ordered: bool) -> Asked {
        self.next_order += 1;
        let deadline_ns = self.now_ns + PATIENCE_NS;
        Asked { origin, handler, is_ordered, order: self.next_order, deadline_ns, lock_until_ns: u64::MAX }
    }

    /// Keeps a request until its shard has a leader, in front of what came later.
    pub(super) fn keep(&mut self, shard: u16, asked: Asked, request: &mut Request<'_>) {
        self.patience_ns = self.patience_ns.min(asked.deadline_ns);
        self.retry_ns = self.retry_ns.min(self.now_ns + REFUSED_REST_NS);
        let request = self.requests.own(request);
        self.waiting_bytes += request.kept_bytes();
        let waiting = &mut self.routes[usize::from(shard)].waiting;
        let place = waiting.iter().rposition(|other| other.asked.order < asked.order);
        waiting.insert(place.map_or(0, |last| last + 1), Waiting { asked, request });
    }

    /// A request is not on its way to another node any more.
    pub(super) fn end_flight(&mut self, shard: u16, kept_bytes: usize) {
        let route = &mut self.routes[usize::from(shard)];
        route.in_flight -= 1;
        route.is_stale &= route.in_flight > 0;
        self.waiting_bytes -= kept_bytes;
    }
}

fn single_handler(request: &Request<'_>) -> Option<Handler> {
    use duva_engine::command::Run;
    match request.command.run {
        Run::Single(handler) | Run::Split(handler, _) | Run::Staged(handler, _)
            if !request.keys.is_empty() =>
        {
            Some(handler)
        }
        Run::Everywhere(handler, _) if request.command.flags.contains(Flags::WRITE) => Some(handler),
        _ => None,
    }
}
