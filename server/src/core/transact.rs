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

use duva_engine::{KeyHash, Settings, Step};

use super::{
    batch::{Answer, GatherKey, Work},
    locks::TransactionId,
    log::{Admission, AppendAs, Deferred, Log, Proposal, Refusal, What, payload, room_bytes_max},
    node::{Node, Origin, handler_of},
    request::OwnedRequest,
};

/// What holds for the entries of gathers.
const SETTINGS: Settings = Settings { bulk_len_bytes_max: u64::MAX };

impl Node {
    /// Does the writes of a gather whose coordinator is `core`, and which holds its locks.
    pub(super) fn take_writes(&mut self, core: usize, gather: GatherKey, work: Work) {
        let origin = Origin::Gather { core, gather, release: false };
        let transaction = gather.transaction;
        let Self { log: Some(log), .. } = self else { panic!("only journals need transactions") };
        let refusal = log.refusal().filter(|refusal| refusal.is_final() || !matches!(work, Work::Finish));
        if let Some(refusal) = refusal {
            return self.respond(origin, Answer::Reply, refusal.reply().as_bytes());
        }
        match work {
            Work::Apply(writes) => self.begin_writes(core, gather, AppendAs::Entry, writes),
            Work::Prepare(writes) => {
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
            let request = write.view();
            let own_bytes = payload::len_bytes_max(&request, payload::Selection::All);
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
        let keys: Vec<KeyHash> = writes.iter().flat_map(|write| write.keys.iter().copied()).collect();
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

    /// Applies writes that belong together; the reply is the first one's.
    pub(super) fn apply_writes(&mut self, origin: Origin, writes: Vec<OwnedRequest>, proposal: Proposal) {
        let mut output = std::mem::take(&mut self.scratch);
        output.clear();
        let mut end = None;
        for mut write in writes {
            let handler = handler_of(&write);
            let start = output.len();
            let step = self.executor.apply(handler, &mut write.view(), proposal, &mut output);
            assert!(matches!(step, Step::Done), "a write takes effect at once");
            // A command over all shards may be refused, by all of them alike; a part of another would be half of it.
            let must_succeed = origin.holds_locks() && !write.keys.is_empty();
            assert!(!must_succeed || output.get(start) != Some(&b'-'), "a gather's write takes effect");
            end.get_or_insert(output.len());
        }
        output.truncate(end.unwrap_or(0));
        self.respond(origin, Answer::Reply, &output);
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
