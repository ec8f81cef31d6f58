//! Writes of gathers in the journal: groups on one core, transactions over several.
//!
//! A command whose keys lie in several journals is journalled as a part in each. Invariants, under the locks of all keys:
//!
//! - **Prepared first.** Every part is durable before any of them is applied, whatever `appendfsync` says.
//! - **One for all.** A part that says that the transaction happens decides it: after a crash, parts that are only
//!   prepared are applied if any participant's journal says so, and dropped if none does.
//! - **Nothing is refused when it is applied.** What a client sends was within the limits when it was read, and what was
//!   read under locks is written as it was, whatever the limits are by then: the entries of gathers know none.
//! - Participants keep what they prepared, and their journals what was said of it, until the coordinator gives the
//!   locks back: by then all of them have finished.

use duva_engine::{KeyHash, Settings, Shards, Step, command::Run, parse_i64};

use super::{
    batch::{Answer, GatherKey, PIECE_BYTES_MAX, PIECE_KEYS_MAX, Work},
    locks::TransactionId,
    log::{Admission, AppendAs, Deferred, Log, Proposal, Refusal, What, payload, room_bytes_max},
    node::{Node, Origin, handler_of},
    request::OwnedRequest,
};

/// What holds for the entries of gathers.
const SETTINGS: Settings = Settings { bulk_len_bytes_max: u64::MAX, once_ttl_ms: 0 };

/// Writes that belong together and are in the log, and how far they are applied. Their keys are locked, so that nobody sees
/// half of them; and until all are applied no snapshot for the journal begins.
pub(super) struct Applying {
    origin: Origin,
    /// What is not applied, or not wholly.
    writes: std::vec::IntoIter<OwnedRequest>,
    /// How many keys of the first one are done.
    position: usize,
    proposal: Proposal,
    /// The first reply.
    reply: Vec<u8>,
    /// The sum of all replies, as long as they are integers.
    sum: Option<i64>,
}

impl Applying {
    /// A key of what comes next.
    fn next_key(&self) -> &[KeyHash] {
        let next = self.writes.as_slice().first();
        next.map_or(&[], |write| &write.keys[self.position..write.keys.len().min(self.position + 1)])
    }

    fn add_reply(&mut self, reply: &[u8]) {
        let integer = reply.strip_prefix(b":").and_then(|rest| parse_i64(rest.strip_suffix(b"\r\n")?));
        if self.reply.is_empty() {
            self.reply.extend_from_slice(reply);
            self.sum = integer;
        } else {
            self.sum = self.sum.zip(integer).map(|(sum, own)| sum + own);
        }
    }

    /// What counts is counted for all; any other reply is the first one's.
    fn take_reply(&mut self) -> Vec<u8> {
        match self.sum {
            Some(sum) => format!(":{sum}\r\n").into_bytes(),
            None => std::mem::take(&mut self.reply),
        }
    }
}

/// A key for every run of keys in one shard: what the shards' time depends on.
pub(super) fn keys_of_shards(writes: &[OwnedRequest], shards: &Shards) -> Vec<KeyHash> {
    let mut last = None;
    let keys = writes.iter().flat_map(|write| &write.keys);
    keys.filter(|key| {
        let number = Some(shards.number_of(key.slot));
        std::mem::replace(&mut last, number) != number
    })
    .copied()
    .collect()
}

impl Node {
    /// Does the writes of a gather whose coordinator is `core`, and which holds its locks.
    pub(super) fn take_writes(&mut self, core: usize, gather: GatherKey, work: Work) {
        assert!(self.groups.is_none(), "in a cluster writes go through their shards' groups");
        let origin = Origin::Gather { core, gather, release: false };
        let transaction = gather.transaction;
        let Self { log: Some(log), .. } = self else { panic!("only journals need transactions") };
        let refusal = log.refusal().filter(|refusal| refusal.is_final() || !matches!(work, Work::Finish));
        if let Some(refusal) = refusal {
            return self.respond(origin, Answer::Reply, refusal.reply().as_bytes());
        }
        match work {
            Work::Apply(writes) => {
                let writes = log.or_staged(transaction, writes);
                self.begin_writes(core, gather, AppendAs::Entry, writes);
            }
            Work::Prepare(writes) => {
                let writes = log.or_staged(transaction, writes);
                self.begin_writes(core, gather, AppendAs::Prepare(transaction.0), writes);
            }
            Work::Finish => {
                let writes = log.take_prepared(transaction);
                let room_bytes = log.finish_room_bytes(&writes);
                self.append_writes(origin, AppendAs::Finish(transaction.0), writes, room_bytes);
            }
            _ => panic!("no other work brings its own requests"),
        }
    }

    /// Journals what a gather writes, or prepares, on this core: now, over several turns, or once there is room.
    fn begin_writes(&mut self, core: usize, gather: GatherKey, how: AppendAs, mut writes: Vec<OwnedRequest>) {
        let origin = Origin::Gather { core, gather, release: false };
        let Self { log: Some(log), executor, .. } = self else { panic!("only journals need groups") };
        let (mut len_bytes, mut room_bytes) = (0, 0);
        for write in &mut writes {
            let own_bytes = payload::owned_len_bytes_max(write);
            let request = write.view();
            len_bytes += own_bytes;
            room_bytes += room_bytes_max(&request, own_bytes, &executor.shards);
        }
        if len_bytes > log.whole_bytes_max() && writes.iter().all(|write| !write.keys.is_empty()) {
            return log.begin_stream(origin, how, writes, SETTINGS, &executor.shards);
        }
        match log.admit(room_bytes) {
            Admission::Direct | Admission::Waiting => self.append_writes(origin, how, writes, room_bytes),
            Admission::Deferred => {
                let work = match how {
                    AppendAs::Prepare(_) => Work::Prepare(writes),
                    _ => Work::Apply(writes),
                };
                log.defer(Deferred::Writes(core, gather, work, room_bytes));
            }
            Admission::Refused(refusal) => {
                self.respond(origin, Answer::Reply, refusal.reply().as_bytes());
            }
        }
    }

    /// Journals `writes` as one group; applies them now, or once they are committed, or keeps them as prepared.
    fn append_writes(
        &mut self,
        origin: Origin,
        how: AppendAs,
        mut writes: Vec<OwnedRequest>,
        room_bytes: u64,
    ) {
        let Self { log: Some(log), executor, .. } = self else { panic!("only journals need groups") };
        let keys = keys_of_shards(&writes, &executor.shards);
        let proposal = Proposal { settings: SETTINGS, ..executor.proposal(&keys) };
        if let AppendAs::Prepare(transaction) = how {
            let start = log.applied_to();
            log.append_all(&mut writes, &executor.shards, proposal, (how, false), room_bytes);
            return log.keep_prepared(origin, TransactionId(transaction), start, writes);
        }
        let is_applied = log.is_direct(room_bytes);
        if !is_applied {
            log.begin_waiting(proposal.timestamp_ms);
        }
        log.append_all(&mut writes, &executor.shards, proposal, (how, is_applied), room_bytes);
        if is_applied {
            self.apply_writes(origin, writes, proposal);
        } else {
            log.wait_for_commit(origin, What::Writes(writes, proposal));
        }
    }

    /// Applies writes that belong together, now, or in pieces if their keys are locked and many.
    pub(super) fn apply_writes(&mut self, origin: Origin, writes: Vec<OwnedRequest>, proposal: Proposal) {
        let writes = writes.into_iter();
        self.go_on_applying(Applying { origin, writes, position: 0, proposal, reply: Vec::new(), sum: None });
    }

    /// Whether writes that are half applied can go on.
    pub(super) fn can_apply_more(&self) -> bool {
        let next = self.applying.front();
        next.is_some_and(|applying| !self.must_not_apply(applying.next_key()))
    }

    /// Applies the next piece of what is half applied.
    pub(super) fn apply_more(&mut self) {
        if self.can_apply_more()
            && let Some(applying) = self.applying.pop_front()
        {
            self.go_on_applying(applying);
        }
    }

    fn go_on_applying(&mut self, mut applying: Applying) {
        let mut output = std::mem::take(&mut self.scratch);
        let (mut keys_rest, mut bytes_rest) = (PIECE_KEYS_MAX, PIECE_BYTES_MAX);
        while let Some(write) = applying.writes.as_mut_slice().first_mut() {
            let handler = handler_of(write);
            let start = applying.position;
            // Without locks somebody would see the half of it.
            let is_in_pieces = applying.origin.holds_locks() && matches!(write.command.run, Run::Split(..));
            if is_in_pieces && (keys_rest == 0 || bytes_rest == 0) {
                self.applying.push_back(applying);
                self.scratch = output;
                return;
            }
            let mut end = write.keys.len();
            if is_in_pieces {
                end = write.piece_end(start, keys_rest, bytes_rest);
                keys_rest = keys_rest.saturating_sub(end - start);
                let piece_bytes = (start..end).map(|ordinal| write.key_bytes(ordinal)).sum();
                bytes_rest = bytes_rest.saturating_sub(piece_bytes);
            }
            output.clear();
            let is_whole = end - start == write.keys.len();
            let is_keyless = write.keys.is_empty();
            let mut request = if is_whole { write.view() } else { write.piece(start..end) };
            let step = self.executor.apply(handler, &mut request, applying.proposal, &mut output);
            assert!(matches!(step, Step::Done), "a write takes effect at once");
            // A command over all shards may be refused, by all of them alike; a part of another would be half of it.
            let must_succeed = applying.origin.holds_locks() && !is_keyless;
            assert!(!must_succeed || output.first() != Some(&b'-'), "a gather's write takes effect");
            applying.position = end;
            if end == write.keys.len() {
                applying.position = 0;
                applying.writes.next();
            }
            applying.add_reply(&output);
        }
        let reply = applying.take_reply();
        self.respond(applying.origin, Answer::Reply, &reply);
        self.scratch = output;
    }

    /// Answers those whose prepared parts are durable, or never will be.
    pub(super) fn answer_prepared(&mut self) {
        while let Some((origin, refusal)) = self.log.as_deref_mut().and_then(Log::next_prepared) {
            let reply = refusal.map_or_else(String::new, Refusal::reply);
            self.respond(origin, Answer::Reply, reply.as_bytes());
        }
    }
}
