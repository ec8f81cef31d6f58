//! Writes of gathers in the journal: groups on one core, transactions over several.
//!
//! A command whose keys lie in several journals is journalled as a part in each. Invariants, under the locks of all keys:
//!
//! - **Prepared first.** Every part is durable before any of them is applied, whatever `appendfsync` says.
//! - **One for all.** A part that says that the transaction happens decides it: after a crash, parts that are only
//!   prepared are applied if any participant's journal says so, and dropped if none does.
//! - Participants keep what they prepared, and their journals what was said of it, until the coordinator gives the
//!   locks back: by then all of them have finished.

use duva_engine::{KeyHash, Step};

use super::{
    batch::{Answer, GatherKey, Work},
    log::{AppendAs, Log, Proposal, Refusal, What},
    node::{Node, Origin, handler_of},
    request::OwnedRequest,
};

impl Node {
    /// Does the writes of a gather whose coordinator is `core`, and which holds its locks.
    pub(super) fn take_writes(&mut self, core: usize, gather: GatherKey, work: Work) {
        let origin = Origin::Gather { core, gather, release: false };
        let transaction = gather.transaction;
        let Self { log: Some(log), executor, .. } = self else { panic!("only journals need transactions") };
        let refusal = log.refusal().filter(|refusal| refusal.is_final() || !matches!(work, Work::Finish));
        if let Some(refusal) = refusal {
            return self.respond(origin, Answer::Reply, refusal.reply().as_bytes());
        }
        match work {
            Work::Apply(writes) => self.append_writes(origin, AppendAs::Entry, writes),
            Work::Prepare(mut writes) => {
                let keys: Vec<KeyHash> = writes.iter().flat_map(|write| write.keys.iter().copied()).collect();
                let proposal = executor.proposal(&keys);
                let start = log.applied_to();
                log.append_all(&mut writes, executor, proposal, AppendAs::Prepare(transaction.0), false);
                log.keep_prepared(origin, transaction, start, writes);
            }
            Work::Finish => {
                let writes = log.take_prepared(transaction);
                self.append_writes(origin, AppendAs::Finish(transaction.0), writes);
            }
            _ => panic!("no other work brings its own requests"),
        }
    }

    /// Journals `writes` as one group; applies them now, or once they are committed.
    fn append_writes(&mut self, origin: Origin, how: AppendAs, mut writes: Vec<OwnedRequest>) {
        let Self { log: Some(log), executor, .. } = self else { panic!("only journals need groups") };
        let keys: Vec<KeyHash> = writes.iter().flat_map(|write| write.keys.iter().copied()).collect();
        let proposal = executor.proposal(&keys);
        let is_applied = log.is_direct();
        if !is_applied {
            log.begin_waiting(proposal.timestamp_ms);
        }
        log.append_all(&mut writes, executor, proposal, how, is_applied);
        if is_applied {
            self.apply_writes(origin, writes, proposal);
        } else {
            log.wait_for_commit(origin, What::Writes(writes, proposal));
        }
    }

    /// Applies a group's writes; the reply is the first one's.
    pub(super) fn apply_writes(&mut self, origin: Origin, writes: Vec<OwnedRequest>, proposal: Proposal) {
        let mut output = std::mem::take(&mut self.scratch);
        output.clear();
        let mut end = None;
        for mut write in writes {
            let handler = handler_of(&write);
            let step = self.executor.apply(handler, &mut write.view(), proposal, &mut output);
            assert!(matches!(step, Step::Done), "a write takes effect at once");
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
