//! The driver of one [`Raft`]: it does what its [`Ready`] says, with the node's disk, the network and a state machine.

mod snapshots;

use std::collections::VecDeque;

use duva_raft::{
    AppliedLog, Body, Entry, EntryKind, Index, Membership, Message, Proposal, Raft, ReadOutcome, Ready,
    ReplicaId, Restored, Role, SnapshotMeta, Term, Write,
};

use super::{
    check::{Event as Happened, Outcome},
    client::{Refusal, Request},
    disk::Disk,
    flaw::Flaw,
    image::{Image, Record},
    machine::{Command, Effect, Machine, MachineFlaws, Reply, TAG_COMMAND, TAG_TICK},
    outside::Outside,
    queue::{Event, Reading},
};

/// The node around a replica.
pub(crate) struct Host<'a> {
    pub(crate) node: usize,
    pub(crate) life: u32,
    pub(crate) local_ns: u64,
    pub(crate) wall_ms: u64,
    pub(crate) disk: &'a mut Disk,
    pub(crate) outside: &'a mut Outside,
}

/// A write that was proposed here.
struct Proposed {
    index: Index,
    term: Term,
    request: Request,
}

/// A read that was accepted here.
struct Read {
    context: u64,
    request: Request,
    /// What must be applied, once it is known.
    index: Option<Index>,
}

/// A snapshot that is coming.
struct Incoming {
    meta: SnapshotMeta,
    bytes: Vec<u8>,
}

/// A replica and its driver. All of it is gone when the node stops.
pub(crate) struct Replica {
    pub(crate) id: ReplicaId,
    group: usize,
    pub(crate) raft: Raft,
    pub(crate) machine: Machine,
    ready: Ready,
    /// Committed, not yet applied.
    backlog: VecDeque<Entry>,
    /// The last entry that was applied, and the membership that was in force there.
    applied_term: Term,
    membership: Membership,
    proposed: VecDeque<Proposed>,
    reads: Vec<Read>,
    contexts: u64,
    incoming: Option<Incoming>,
    /// The last snapshot that was begun here, and whether its mark is still to become durable.
    saved: Index,
    is_saving: bool,
    /// The last term in which it was seen to lead.
    led: Term,
    /// Proposals are not timed before this.
    time_ms: u64,
    /// The last tick that was proposed.
    tick: Index,
}

impl Replica {
    pub(crate) fn new(host: &mut Host<'_>, group: usize, image: &Image) -> Self {
        let snapshot = &image.snapshot;
        let setup = &host.outside.setup;
        let (keys, clients) = (setup.keys, setup.clients);
        let mut hard_state = image.hard_state;
        if host.outside.is(Flaw::ForgetVote) {
            hard_state.vote = None;
        }
        let mut entries = image.recovered_entries();
        host.outside.checks.see(Happened::Started {
            group,
            replica: image.replica,
            snapshot: (snapshot.meta.index, snapshot.meta.term),
            entries: &entries,
        });
        let config = setup.config(image.replica);
        // What is known to be committed is applied, and some of it not even kept.
        let commit = image.recovered_commit();
        let known = entries.iter().take_while(|entry| entry.index <= commit).count();
        let dropped = if commit.is_multiple_of(2) { known } else { known / 2 };
        let committed = entries[..known].to_vec();
        let applied = applied_log(&committed, dropped);
        entries.drain(..dropped);
        let restored = Restored { hard_state, snapshot: snapshot.meta.clone(), entries };
        let seed = host.outside.random.bits();
        let mut raft = Raft::with_applied(config, restored, applied, host.local_ns, seed);
        if let Some(Flaw::Raft(mutation)) = host.outside.flaw {
            raft.set_mutation(Some(mutation));
        }
        let machine = match snapshot.meta.index {
            0 => Machine::new(keys, clients),
            _ => Machine::decode(&snapshot.bytes, keys, clients),
        };
        let mut replica = Self {
            id: image.replica,
            group,
            raft,
            time_ms: machine.time_ms(),
            machine,
            ready: Ready::default(),
            backlog: VecDeque::new(),
            applied_term: snapshot.meta.term,
            membership: snapshot.meta.membership.clone(),
            proposed: VecDeque::new(),
            reads: Vec::new(),
            contexts: 0,
            incoming: None,
            saved: snapshot.meta.index,
            is_saving: false,
            led: 0,
            tick: 0,
        };
        for entry in &committed {
            replica.apply_entry(host, entry);
        }
        replica.time_ms = replica.machine.time_ms();
        replica
    }

    /// What a client wants.
    pub(crate) fn request(&mut self, host: &mut Host<'_>, request: Request) {
        match request.operation.write {
            Some(command) => self.propose(host, request, command),
            None => self.read(host, request),
        }
    }

    fn propose(&mut self, host: &mut Host<'_>, request: Request, command: Command) {
        if host.outside.is(Flaw::CheckOnceBeforeApply)
            && let Some(reply) = self.machine.reply_to(command.client, command.request)
        {
            return host.outside.answer(request, Ok(Outcome::Wrote(reply)));
        }
        let padding_bytes = host.outside.setup.padding_bytes;
        match self.propose_entry(host, TAG_COMMAND, &command.encode(padding_bytes)) {
            Ok((index, term)) => {
                if host.outside.is(Flaw::AnswerBeforeCommit) {
                    let reply = Reply { before: self.machine.read(command.key), is_written: true };
                    return host.outside.answer(request, Ok(Outcome::Wrote(reply)));
                }
                // What was proposed for this place and after it before is lost.
                while self.proposed.back().is_some_and(|proposed| proposed.index >= index)
                    && let Some(lost) = self.proposed.pop_back()
                {
                    host.outside.answer(lost.request, Err(Refusal::Unknown));
                }
                self.proposed.push_back(Proposed { index, term, request });
            }
            Err(refusal) => host.outside.answer(request, Err(refusal)),
        }
    }

    fn propose_entry(
        &mut self,
        host: &mut Host<'_>,
        tag: u8,
        payload: &[u8],
    ) -> Result<(Index, Term), Refusal> {
        self.time_ms = self.time_ms.max(host.wall_ms);
        let proposal = Proposal {
            timestamp_ms: self.time_ms,
            seed: host.outside.random.bits(),
            tag,
            payload: payload.into(),
        };
        self.raft.propose(host.local_ns, proposal).map_err(refusal)
    }

    fn read(&mut self, host: &mut Host<'_>, request: Request) {
        self.contexts += 1;
        let context = self.contexts;
        let index = match self.raft.read(host.local_ns, context) {
            _ if host.outside.is(Flaw::ReadWithoutAsking) => Some(0),
            Ok(ReadOutcome::At(index)) => Some(index),
            Ok(ReadOutcome::Pending) => None,
            Err(error) => return host.outside.answer(request, Err(refusal(error))),
        };
        self.reads.push(Read { context, request, index });
    }

    /// Does everything that there is to be done. True if something is left for another turn.
    pub(crate) fn work(&mut self, host: &mut Host<'_>) -> bool {
        self.tell_time(host);
        let mut budget = host.outside.setup.apply_max;
        loop {
            let mut ready = std::mem::take(&mut self.ready);
            let leads = self.raft.role() == Role::Leader && self.led == self.raft.term();
            self.raft.take_ready(host.local_ns, &mut ready);
            self.handle(host, &mut ready, leads);
            self.ready = ready;
            self.see_leadership(host);
            self.apply(host, &mut budget);
            self.serve_reads(host);
            if !self.raft.has_ready() {
                break;
            }
        }
        self.save(host);
        let last = self.raft.last_index();
        let last_term = self.raft.term_at(last).unwrap_or(0);
        host.outside.checks.see(Happened::Ends { replica: self.id, last: (last, last_term) });
        !self.backlog.is_empty()
    }

    fn handle(&mut self, host: &mut Host<'_>, ready: &mut Ready, leads: bool) {
        for message in ready.messages.drain(..) {
            self.send(host, message);
        }
        if let Some(write) = ready.write.take() {
            self.write(host, write, leads);
        }
        self.backlog.extend(ready.committed.drain(..));
        for state in ready.reads.drain(..) {
            let index = if host.outside.is(Flaw::ReadBeforeApplied) { 0 } else { state.index };
            if let Some(read) = self.reads.iter_mut().find(|read| read.context == state.context) {
                read.index = Some(index);
            }
        }
        for context in ready.failed_reads.drain(..) {
            if let Some(place) = self.reads.iter().position(|read| read.context == context) {
                let read = self.reads.swap_remove(place);
                host.outside.answer(read.request, Err(Refusal::Unknown));
            }
        }
        let entries = ready.fetches.drain(..).map(Reading::Entries);
        for read in entries.chain(ready.snapshot_reads.drain(..).map(Reading::Piece)) {
            let (node, life, group, replica) = (host.node, host.life, self.group, self.id);
            let delay_ns = host.outside.random.between(10_000, 2_000_000);
            host.outside.later(delay_ns, Event::Read { node, life, group, replica, read });
        }
        for write in ready.snapshot_writes.drain(..) {
            self.store(host, write);
        }
    }

    fn send(&mut self, host: &mut Host<'_>, message: Message) {
        let durability = host.outside.setup.durability();
        let hard_state =
            host.disk.synced[self.group].as_ref().map(|image| image.hard_state).unwrap_or_default();
        let durable = host.disk.image(self.group, durability).map_or(0, Image::last_index);
        let (group, now_ns) = (self.group, host.outside.now_ns);
        host.outside.checks.see(Happened::Sent { message: &message, hard_state, durable });
        host.outside.trace.note(now_ns, [2, message.from.0, message.term], || {
            let (from, to, term) = (message.from.0, message.to.0, message.term);
            format!("send  {group} {from} -> {to} term {term}: {}", describe(&message.body))
        });
        host.outside.send(host.node, self.group, message);
    }

    fn write(&mut self, host: &mut Host<'_>, write: Write, leads: bool) {
        let (group, replica, now_ns) = (self.group, self.id, host.outside.now_ns);
        host.outside.checks.see(Happened::Wrote { group, replica, leads, entries: &write.entries });
        host.outside.trace.note(now_ns, [3, replica.0, write.number], || {
            let places: Vec<_> = write.entries.iter().map(|entry| (entry.index, entry.term)).collect();
            format!("write {group} {} number {} {:?} {places:?}", replica.0, write.number, write.hard_state)
        });
        let last = write.entries.iter().map(|entry| entry.timestamp_ms).max();
        self.time_ms = self.time_ms.max(last.unwrap_or(0));
        host.disk.add(group, replica, Record::Write(write));
    }

    fn see_leadership(&mut self, host: &mut Host<'_>) {
        let term = self.raft.term();
        if self.raft.role() == Role::Leader && self.led != term {
            self.led = term;
            let (group, replica, now_ns) = (self.group, self.id, host.outside.now_ns);
            host.outside
                .trace
                .note(now_ns, [4, replica.0, term], || format!("LEADS {group} {} in term {term}", replica.0));
            host.outside.checks.see(Happened::Led { group, replica, term });
            host.outside.new_leaders.push(host.node);
        }
    }

    fn apply(&mut self, host: &mut Host<'_>, budget: &mut usize) {
        let before = self.machine.applied;
        while *budget > 0
            && let Some(entry) = self.backlog.pop_front()
        {
            if entry.index <= self.machine.applied {
                // A snapshot was faster.
                continue;
            }
            *budget -= 1;
            self.apply_entry(host, &entry);
        }
        if self.machine.applied > before {
            self.raft.applied(self.machine.applied);
            if self.machine.applied.is_multiple_of(3) {
                // All that was handed out lies in front of this.
                host.disk.add(self.group, self.id, Record::Committed(self.machine.applied));
            }
        }
    }

    fn apply_entry(&mut self, host: &mut Host<'_>, entry: &Entry) {
        let flaws = MachineFlaws {
            wall_ms: host.outside.is(Flaw::ExpireByOwnClock).then_some(host.wall_ms),
            repeats: host.outside.is(Flaw::CheckOnceBeforeApply),
        };
        let effect = self.machine.apply(entry, flaws);
        self.applied_term = entry.term;
        let (group, replica, term, digest) = (self.group, self.id, self.raft.term(), self.machine.digest());
        host.outside.trace.note(host.outside.now_ns, [5, replica.0, digest], || {
            format!("apply {group} {} entry {} of term {}: {effect:?}", replica.0, entry.index, entry.term)
        });
        host.outside.checks.see(Happened::Applied { group, replica, term, entry, digest });
        let reply = match effect {
            Effect::Executed(command, reply) => {
                host.outside.checks.see(Happened::Executed { group, index: entry.index, command, reply });
                Some(reply)
            }
            Effect::Repeated(_, reply) => Some(reply),
            Effect::Outdated(_) | Effect::None => None,
        };
        if entry.kind == EntryKind::Membership {
            self.membership = Membership::decode(&entry.payload).expect("what Raft encoded");
            host.outside.memberships.push((group, entry.index, self.membership.clone()));
        }
        while self.proposed.front().is_some_and(|proposed| proposed.index <= entry.index)
            && let Some(proposed) = self.proposed.pop_front()
        {
            let is_this = (proposed.index, proposed.term) == (entry.index, entry.term);
            let result = reply.filter(|_| is_this).map(Outcome::Wrote).ok_or(Refusal::Unknown);
            host.outside.answer(proposed.request, result);
        }
    }

    fn serve_reads(&mut self, host: &mut Host<'_>) {
        let applied = self.machine.applied;
        let served = self.reads.extract_if(.., |read| read.index.is_some_and(|index| index <= applied));
        for read in served {
            let seen = self.machine.read(read.request.operation.key);
            host.outside.answer(read.request, Ok(Outcome::Read(seen)));
        }
    }

    /// A leader proposes an entry when a register is due, so that it expires though nobody writes.
    fn tell_time(&mut self, host: &mut Host<'_>) {
        let is_due = self.machine.next_expiry_ms().is_some_and(|expires_ms| expires_ms <= host.wall_ms);
        if is_due
            && self.raft.role() == Role::Leader
            && self.tick <= self.machine.applied
            && let Ok((index, _)) = self.propose_entry(host, TAG_TICK, &[])
        {
            self.tick = index;
        }
    }

    /// When the leader's clock makes a register due, in milliseconds from now.
    pub(crate) fn next_tick_ms(&self, wall_ms: u64) -> Option<u64> {
        let leads = self.raft.role() == Role::Leader;
        let expires_ms =
            self.machine.next_expiry_ms().filter(|_| leads && self.tick <= self.machine.applied)?;
        Some(expires_ms.saturating_sub(wall_ms))
    }
}

/// What is known of committed entries of which the first `dropped` are not kept.
fn applied_log(committed: &[Entry], dropped: usize) -> AppliedLog {
    let (dropped, mut terms) = (&committed[..dropped], Vec::<(Index, Term)>::new());
    for entry in dropped {
        if terms.last().is_none_or(|(_, term)| *term != entry.term) {
            terms.push((entry.index, entry.term));
        }
    }
    let memberships = dropped.iter().filter(|entry| entry.kind == EntryKind::Membership);
    let membership = |entry: &Entry| Membership::decode(&entry.payload).expect("what Raft encoded");
    AppliedLog {
        index: committed.last().map_or(0, |entry| entry.index),
        dropped_to: dropped.last().map_or(0, |entry| entry.index),
        terms,
        memberships: memberships.map(|entry| (entry.index, membership(entry))).collect(),
    }
}

/// A message without what would make its line long.
fn describe(body: &Body) -> String {
    match body {
        Body::Append { prev_index, prev_term, commit, entries } => {
            let terms: Vec<Term> = entries.iter().map(|entry| entry.term).collect();
            format!("Append after {prev_index} ({prev_term}), commit {commit}, terms {terms:?}")
        }
        Body::Snapshot { meta, offset, bytes, is_last } => {
            let (index, term, len) = (meta.index, meta.term, bytes.len());
            format!("Snapshot {index} ({term}), {len} bytes at {offset}, last {is_last}")
        }
        other => format!("{other:?}"),
    }
}

fn refusal(error: duva_raft::ProposeError) -> Refusal {
    match error {
        duva_raft::ProposeError::NotLeader { leader } => Refusal::NotLeader(leader),
        duva_raft::ProposeError::Transferring { to } => Refusal::NotLeader(Some(to)),
        _ => Refusal::Unknown,
    }
}
