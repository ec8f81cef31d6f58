//! The write path: propose, commit, apply, reply.
//!
//! Every write, whatever its origin, becomes an entry here: the proposer gives it a timestamp that is never below its
//! shard's time, and a seed. Without a journal an entry commits when it is proposed, so the four
//! steps are one inlined call: no encoding, no copy. With one, see [`super::log`]. Reads take the other function and
//! never get a timestamp of their own.

use duva_engine::{
    Hasher, KeyHash, SLOT_COUNT, Settings, Shard, Shards, Step,
    command::{Flags, Handler, Run},
};

use super::{log::Proposal, request::Request, stats::ExecutionTimes};

/// One core's state machines, and what applying an entry depends on.
pub struct Executor {
    /// The shards of this core.
    pub shards: Shards,
    /// Settings that can change a command's result.
    pub settings: Settings,
    /// The keyspace's hash.
    pub hasher: Hasher,
    /// The turn's clock, in milliseconds since the Unix epoch; never goes back.
    pub now_ms: u64,
    /// The clock by which reads see what is due: `now_ms`, unless entries with earlier timestamps wait to be applied.
    pub read_ms: u64,
    /// No shard has anything due before this time.
    pub due_ms: u64,
    /// Whether memory of removed data is left to free.
    pub has_garbage: bool,
    /// Shards that others have taken the place of, to be freed.
    departed: Vec<Shard>,
    /// Which shard the last tick began with.
    tick_first: usize,
    /// Where the next entry's seed comes from.
    pub seed: u64,
    /// How long executions take.
    pub times: ExecutionTimes,
}

impl Executor {
    /// A core's executor over `shards`.
    pub fn new(shards: Shards, settings: Settings, hasher: Hasher, seed: u64) -> Self {
        Self {
            shards,
            settings,
            hasher,
            now_ms: 0,
            read_ms: 0,
            due_ms: u64::MAX,
            has_garbage: false,
            departed: Vec::new(),
            tick_first: 0,
            seed,
            times: ExecutionTimes::default(),
        }
    }

    /// Executes `request`, all of whose keys are on this core and free, and writes its reply to `output`.
    #[inline(always)]
    pub fn execute(&mut self, handler: Handler, request: &mut Request<'_>, output: &mut Vec<u8>) -> Step {
        if request.command.flags.contains(Flags::WRITE) {
            let proposal = self.proposal(request.keys);
            self.apply(handler, request, proposal, output)
        } else {
            let (now_ms, seed) = (self.read_ms, self.next_seed());
            let timing = self.times.begin(request.command);
            let step = handler(&mut request.call(&mut self.shards, &self.settings, now_ms, seed, output));
            self.times.end(request.command, timing);
            step
        }
    }

    /// What an entry for `keys` that is proposed now depends on.
    #[inline]
    pub fn proposal(&mut self, keys: &[KeyHash]) -> Proposal {
        let (timestamp_ms, seed) = (self.timestamp_ms(keys), self.next_seed());
        Proposal { timestamp_ms, seed, settings: self.settings }
    }

    /// How often the shards of `keys`, or of a command without keys all shards, have changed. That a due key was removed
    /// counts: no tick will find it any more.
    #[inline]
    pub fn changes(&mut self, keys: &[KeyHash]) -> u64 {
        let of = |shard: &Shard| shard.changes_total().wrapping_add(shard.expired_total());
        if let [key] = keys {
            return of(self.shards.of(key.slot));
        }
        if keys.is_empty() {
            return self.shards.iter().map(of).fold(0, u64::wrapping_add);
        }
        keys.iter().fold(0, |sum: u64, key| sum.wrapping_add(of(self.shards.of(key.slot))))
    }

    /// Applies a committed entry.
    #[inline(always)]
    pub fn apply(
        &mut self,
        handler: Handler,
        request: &mut Request<'_>,
        proposal: Proposal,
        output: &mut Vec<u8>,
    ) -> Step {
        // Not the settings in force: the journal's entry says these.
        let Proposal { timestamp_ms, seed, settings } = proposal;
        let keys = request.keys;
        let timing = self.times.begin(request.command);
        let step = handler(&mut request.call(&mut self.shards, &settings, timestamp_ms, seed, output));
        self.times.end(request.command, timing);
        self.note_deadlines(keys);
        if let Run::Everywhere(..) = request.command.run {
            self.has_garbage = true;
        }
        step
    }

    /// Applies a committed entry that concerns a whole shard to that one alone.
    #[cold]
    pub fn apply_to_shard(
        &mut self,
        number: usize,
        handler: Handler,
        request: &mut Request<'_>,
        proposal: Proposal,
        output: &mut Vec<u8>,
    ) {
        let shard = self.shards.release(number).expect("the shard is on this core");
        let mut alone = Shards::new(usize::from(SLOT_COUNT) >> self.shards.slot_shift());
        alone.adopt(number, shard);
        std::mem::swap(&mut self.shards, &mut alone);
        self.apply(handler, request, proposal, output);
        std::mem::swap(&mut self.shards, &mut alone);
        let shard = alone.release(number).expect("it was taken out above");
        self.shards.adopt(number, shard);
    }

    /// Randomness for one command. A Weyl sequence has full period; commands that draw mix it.
    #[inline]
    pub(crate) fn next_seed(&mut self) -> u64 {
        self.seed = self.seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
        self.seed
    }

    /// The timestamp of an entry for `keys`, to which the time of their shards moves.
    #[inline(always)]
    pub fn timestamp_ms(&mut self, keys: &[KeyHash]) -> u64 {
        let mut timestamp_ms = self.now_ms;
        if let [key] = keys {
            return self.shards.of(key.slot).advance(timestamp_ms);
        }
        for key in keys {
            timestamp_ms = timestamp_ms.max(self.shards.of(key.slot).advance(timestamp_ms));
        }
        timestamp_ms
    }

    /// Remembers when the shards of `keys` have something due.
    #[inline(always)]
    pub fn note_deadlines(&mut self, keys: &[KeyHash]) {
        for key in keys {
            let shard = self.shards.of(key.slot);
            if let Some(due_ms) = shard.next_due_ms() {
                self.due_ms = self.due_ms.min(due_ms);
            }
            self.has_garbage |= shard.has_garbage();
        }
    }

    /// Applies ticks with timestamp `now_ms` to the shards that have something due, looking at no more than `budget`
    /// entries, and frees memory. `ticked` is told the first slot of each shard where keys expired.
    pub fn tick(&mut self, now_ms: u64, mut budget: usize, mut ticked: impl FnMut(u16)) {
        self.due_ms = u64::MAX;
        // Every tick begins with another shard, so that a busy one does not keep the others waiting.
        self.tick_first = self.tick_first.wrapping_add(1);
        let count = self.shards.iter().count().max(1);
        let first = self.tick_first % count;
        let mut order: Vec<&mut Shard> = self.shards.iter_mut().collect();
        order.rotate_left(first);
        for shard in order {
            let is_due = shard.next_due_ms().is_some_and(|due_ms| due_ms <= now_ms);
            if is_due && budget > 0 {
                let share = budget.min(TICK_SHARE);
                let expired = shard.expired_total();
                shard.tick(now_ms, share);
                budget -= share;
                if shard.expired_total() != expired {
                    ticked(shard.slots().start);
                }
            }
            if let Some(due_ms) = shard.next_due_ms() {
                self.due_ms = self.due_ms.min(due_ms);
            }
        }
    }

    /// Frees memory of flushed databases and removed large values, of at most `budget` entries.
    pub fn reclaim(&mut self, budget: usize) {
        self.has_garbage = self.shards.iter_mut().any(|shard| shard.has_garbage() && shard.reclaim(budget));
        if !self.has_garbage
            && let Some(departed) = self.departed.last_mut()
        {
            if !departed.reclaim(budget) {
                self.departed.pop();
            }
            self.has_garbage = !self.departed.is_empty();
        }
    }

    /// Puts a shard in the place of another, whose memory is freed by and by; it is not being saved.
    pub fn replace(&mut self, number: usize, shard: Box<Shard>) {
        if let Some(mut departed) = self.shards.release(number) {
            departed.flush(None);
            self.departed.push(*departed);
            self.has_garbage = true;
        }
        self.due_ms = self.due_ms.min(shard.next_due_ms().unwrap_or(u64::MAX));
        self.shards.adopt(number, shard);
    }
}

/// Entries one shard's tick looks at before the next shard has its turn.
const TICK_SHARE: usize = 256;
