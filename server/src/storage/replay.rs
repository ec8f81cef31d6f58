//! Applying a core's part of the journal once more.
//!
//! Entries are taken in batches, so that the lookups of a batch overlap. Invariants:
//!
//! - Every entry is applied with its own timestamp, seed and settings, in the order of its shard.
//! - An entry changes its own shard and no other, whatever its bytes say.
//! - A write of a key that a command over several shards has locked is not executed, as on every replica.

use duva_engine::{
    Hasher, KeyHash, Settings, Shards,
    command::{Flags, Handler, Run, transaction::is_transaction},
};
use duva_persist::recovery::{Entry, EntryKind, Unfinished};

use crate::core::{
    commit::Executor,
    log::{Proposal, payload::Decoder},
    node::Node,
    request::Request,
};

/// Entries whose lookups overlap.
const BATCH_ENTRIES: usize = 16;

/// Payloads up to this length wait for a batch; longer ones are applied where they are.
const BATCHED_BYTES_MAX: usize = 4 << 10;

/// Entries that are looked at together when keys are due, or memory is to be freed.
const STEP_ENTRIES: usize = 4096;

/// Applies entries to a core's shards.
pub(super) struct Replayer<'a> {
    executor: &'a mut Executor,
    /// The payloads that wait, one after the other.
    bytes: Vec<u8>,
    waiting: Vec<Waiting>,
    decoders: [Decoder; BATCH_ENTRIES],
    /// Replies, which nobody reads.
    output: Vec<u8>,
}

/// Ends a transaction whose part was prepared when the server ended: applies it if another part says that it happened, and
/// journals what became of it, so that no later start needs to know.
///
/// # Errors
/// A sentence that names shard and index of an entry that cannot be applied.
pub fn finish(node: &mut Node, unfinished: &Unfinished) -> Result<(), String> {
    let Node { executor, log: Some(log), .. } = node else { panic!("only a journal has transactions") };
    let slot = executor.shards.slots_of(usize::from(unfinished.shard)).start;
    let timestamp_ms = executor.shards.of(slot).advance(executor.now_ms);
    // The prepared part says itself which settings hold for it.
    let proposal = Proposal { timestamp_ms, seed: unfinished.transaction, settings: Settings::default() };
    if unfinished.commit {
        let mut replayer = Replayer::new(executor);
        replayer.take(&Entry {
            shard: unfinished.shard,
            index: unfinished.index,
            term: 0,
            timestamp_ms,
            seed: proposal.seed,
            kind: EntryKind::Entry,
            payload: &unfinished.payload,
        })?;
        replayer.flush()?;
    }
    log.append_finish(unfinished.shard, unfinished.transaction, unfinished.commit, proposal);
    Ok(())
}

/// An entry whose payload is in `bytes`.
#[derive(Clone, Copy)]
struct Waiting {
    head: Head,
    start: usize,
    end: usize,
}

/// What an entry says besides its payload.
#[derive(Clone, Copy)]
struct Head {
    shard: u16,
    index: u64,
    proposal: Proposal,
}

impl<'a> Replayer<'a> {
    pub(super) fn new(executor: &'a mut Executor) -> Self {
        Self {
            executor,
            bytes: Vec::new(),
            waiting: Vec::with_capacity(BATCH_ENTRIES),
            decoders: Default::default(),
            output: Vec::new(),
        }
    }

    /// Takes the next entry of one of the core's shards.
    ///
    /// # Errors
    /// A sentence that names shard and index of an entry that cannot be applied.
    #[inline]
    pub(super) fn take(&mut self, entry: &Entry<'_>) -> Result<(), String> {
        let head = Head {
            shard: entry.shard,
            index: entry.index,
            // Its payload says which settings hold for it.
            proposal: Proposal {
                timestamp_ms: entry.timestamp_ms,
                seed: entry.seed,
                settings: Settings::default(),
            },
        };
        if entry.kind == EntryKind::Tick {
            self.flush()?;
            self.tick(head);
            return Ok(());
        }
        if entry.payload.len() > BATCHED_BYTES_MAX {
            self.flush()?;
            let hasher = self.executor.hasher.clone();
            let decoder = &mut self.decoders[0];
            let mut ready = Ready::new(decoder, head, entry.payload, &self.executor.shards, &hasher)?;
            ready.apply(self.executor, &mut self.output);
            return Ok(());
        }
        let start = self.bytes.len();
        self.bytes.extend_from_slice(entry.payload);
        self.waiting.push(Waiting { head, start, end: self.bytes.len() });
        if self.waiting.len() == BATCH_ENTRIES { self.flush() } else { Ok(()) }
    }

    /// Applies what waits.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub(super) fn flush(&mut self) -> Result<(), String> {
        let Self { executor, bytes, waiting, decoders, output } = self;
        let hasher = executor.hasher.clone();
        // All requests are made before the first is executed: one that was written a moment ago is read slowly.
        let mut batch: [Option<Ready<'_>>; BATCH_ENTRIES] = Default::default();
        for ((ready, decoder), entry) in batch.iter_mut().zip(decoders).zip(&*waiting) {
            *ready = Some(Ready::new(
                decoder,
                entry.head,
                &bytes[entry.start..entry.end],
                &executor.shards,
                &hasher,
            )?);
        }
        let keys = || {
            batch.iter().flatten().flat_map(|Ready { request, .. }| {
                request.keys.iter().map(|key| (request.mode.database, *key))
            })
        };
        let shards = &executor.shards;
        for (database, key) in keys() {
            if let Some(shard) = shards.get(key.slot) {
                shard.prefetch_table(database, key);
            }
        }
        for (database, key) in keys() {
            if let Some(shard) = shards.get(key.slot) {
                shard.prefetch_entry(database, key);
            }
        }
        for ready in batch.iter_mut().flatten() {
            ready.apply(executor, output);
        }
        waiting.clear();
        bytes.clear();
        if executor.has_garbage {
            executor.reclaim(STEP_ENTRIES);
        }
        Ok(())
    }

    /// Moves shard time on and removes what is due.
    fn tick(&mut self, head: Head) {
        let shards = &mut self.executor.shards;
        let first_slot = shards.slots_of(usize::from(head.shard)).start;
        let shard = shards.of(first_slot);
        let now_ms = shard.advance(head.proposal.timestamp_ms);
        while shard.next_due_ms().is_some_and(|due_ms| due_ms <= now_ms) {
            shard.tick(now_ms, STEP_ENTRIES);
        }
    }
}

/// An entry that was checked: it can be applied to its shard.
struct Ready<'a> {
    head: Head,
    request: Request<'a>,
    how: How,
}

/// How an entry is applied.
#[derive(Clone, Copy)]
enum How {
    /// As it was proposed.
    Keys(Handler),
    /// To its shard alone: every shard's log has an entry of its own.
    Shard(Handler),
}

impl<'a> Ready<'a> {
    #[inline]
    fn new(
        decoder: &'a mut Decoder,
        head: Head,
        payload: &'a [u8],
        shards: &Shards,
        hasher: &Hasher,
    ) -> Result<Self, String> {
        let decoded = decoder.decode(payload, hasher).map_err(|error| wrong(head, error.0))?;
        if !decoded.command.flags.contains(Flags::WRITE) {
            return Err(wrong(head, "it is no write"));
        }
        let is_here = |key: &KeyHash| shards.number_of(key.slot) == usize::from(head.shard);
        if !decoded.keys.iter().all(is_here) {
            return Err(wrong(head, "it names a key of another shard"));
        }
        let how = match decoded.command.run {
            Run::Single(handler) | Run::Split(handler, _) | Run::Staged(handler, _)
                if !decoded.keys.is_empty() =>
            {
                How::Keys(handler)
            }
            Run::Everywhere(handler, _) => How::Shard(handler),
            _ => return Err(wrong(head, "its command is none that is journalled")),
        };
        let proposal = Proposal { settings: decoded.settings, ..head.proposal };
        let head = Head { proposal, ..head };
        Ok(Self { head, request: decoded.request(payload, &mut []), how })
    }

    #[inline]
    fn apply(&mut self, executor: &mut Executor, output: &mut Vec<u8>) {
        let Head { shard, proposal, .. } = self.head;
        let number = usize::from(shard);
        let first_slot = executor.shards.slots_of(number).start;
        let target = executor.shards.of(first_slot);
        let locks = target.transactions();
        if locks.has_locks() && !is_transaction(self.request.command) && locks.locks(self.request.keys) {
            // No replica executes it: who proposed it proposed it anew.
            return;
        }
        target.advance(proposal.timestamp_ms);
        output.clear();
        match self.how {
            How::Keys(handler) => {
                executor.apply(handler, &mut self.request, proposal, output);
            }
            How::Shard(handler) => {
                executor.apply_to_shard(number, handler, &mut self.request, proposal, output);
            }
        }
    }
}

#[cold]
fn wrong(head: Head, what: &str) -> String {
    let Head { shard, index, .. } = head;
    format!(
        "entry {index} of shard {shard} cannot be applied: {what}. Start the server that wrote it, or restore the \
         directory from a copy"
    )
}
