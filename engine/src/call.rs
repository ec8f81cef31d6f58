//! One execution of a command.

use std::ops::Range;

use crate::{Args, Deadline, DetachedEntry, EntryRef, KeyHash, Reply, Shard, Shards, Value};

/// Settings that can change a command's result. They travel through the log once there is one, so that every
/// replica applies an entry alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The longest string that a command may make, in bytes (`proto-max-bulk-len`).
    pub bulk_len_bytes_max: u64,
    /// How long the reply to a request of ONCE is recorded, in milliseconds (`dedup-ttl`).
    pub once_ttl_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { bulk_len_bytes_max: 512 << 20, once_ttl_ms: 3_600_000 }
    }
}

/// Everything that a command may depend on, and where its reply goes.
pub struct Call<'a> {
    /// The shards of the core that executes; every key of `keys` is in one of them.
    pub shards: &'a mut Shards,
    /// The arguments, the command's name first.
    pub args: Args<'a>,
    /// Slot and hash of every key, in the order of the command's key arguments.
    pub keys: &'a [KeyHash],
    /// The database that the connection has selected.
    pub database: u8,
    /// The entry's timestamp, or for a read the leader's clock: milliseconds since the Unix epoch.
    pub now_ms: u64,
    /// The entry's randomness.
    pub seed: u64,
    /// Whether reading a key counts as an access for OBJECT IDLETIME (CLIENT NO-TOUCH turns it off).
    pub touch: bool,
    /// Settings that can change the result.
    pub settings: &'a Settings,
    /// Where the reply is written.
    pub reply: Reply<'a>,
}

impl<'a> Call<'a> {
    /// The place of key number `ordinal`, which is argument `position`, beside the arguments and the reply.
    #[inline(always)]
    pub(crate) fn place(
        &mut self,
        ordinal: usize,
        position: usize,
    ) -> (Place<'_>, &Args<'a>, &mut Reply<'a>) {
        let key = self.keys[ordinal];
        let place = Place {
            shard: self.shards.of(key.slot),
            name: self.args.get(position),
            key,
            database: self.database,
            now_ms: self.now_ms,
            touch: self.touch,
        };
        (place, &self.args, &mut self.reply)
    }

    /// The place of the only key, the first argument.
    #[inline(always)]
    pub(crate) fn first(&mut self) -> (Place<'_>, &Args<'a>, &mut Reply<'a>) {
        self.place(0, 1)
    }

    /// Asks the processor for what the lookups of these keys will read: first every table, then every entry.
    pub(crate) fn prefetch(&self, keys: &[KeyHash]) {
        if keys.len() < 2 {
            return;
        }
        for key in keys {
            if let Some(shard) = self.shards.get(key.slot) {
                shard.prefetch_table(self.database, *key);
            }
        }
        for key in keys {
            if let Some(shard) = self.shards.get(key.slot) {
                shard.prefetch_entry(self.database, *key);
            }
        }
    }
}

/// Keys whose lookups overlap when a command names several.
pub(crate) const PREFETCH_KEYS: usize = 16;

/// One key of a call, in its shard.
pub(crate) struct Place<'c> {
    shard: &'c mut Shard,
    name: &'c [u8],
    key: KeyHash,
    database: u8,
    now_ms: u64,
    touch: bool,
}

impl Place<'_> {
    /// The live entry: a read, and an access unless the client asked for none.
    #[inline(always)]
    pub(crate) fn read(&mut self) -> Option<EntryRef<'_>> {
        if self.touch { self.access() } else { self.peek() }
    }

    /// The live entry's string, as [`read`](Self::read).
    #[inline(always)]
    pub(crate) fn read_string(&mut self) -> Option<&[u8]> {
        self.read().map(|entry| string_of(&entry))
    }

    /// The live entry: a read, and an access whatever the client asked for.
    #[inline(always)]
    pub(crate) fn access(&mut self) -> Option<EntryRef<'_>> {
        self.shard.access(self.database, self.name, self.key, self.now_ms)
    }

    /// The live entry: a read, and no access.
    #[inline]
    pub(crate) fn peek(&mut self) -> Option<EntryRef<'_>> {
        self.shard.read(self.database, self.name, self.key, self.now_ms)
    }

    /// The live entry, for a command that changes it without returning it: no read, and an access unless the client asked
    /// for none.
    #[inline]
    pub(crate) fn take_up(&mut self) -> Option<EntryRef<'_>> {
        if self.touch {
            self.shard.touch(self.database, self.name, self.key, self.now_ms)
        } else {
            self.find()
        }
    }

    /// The live entry's string, as [`take_up`](Self::take_up).
    #[inline]
    pub(crate) fn take_up_string(&mut self) -> Option<&[u8]> {
        self.take_up().map(|entry| string_of(&entry))
    }

    /// The live entry: neither a read nor an access.
    #[inline]
    pub(crate) fn find(&mut self) -> Option<EntryRef<'_>> {
        self.shard.get(self.database, self.name, self.key, self.now_ms)
    }

    /// Sets the key to a string.
    #[inline]
    pub(crate) fn set(&mut self, value: &[u8], deadline: Deadline) {
        self.shard.set_string(self.database, self.name, self.key, value, deadline, self.now_ms);
    }

    /// Sets the key to an integer's text that INCRBYFLOAT printed, keeping the deadline.
    pub(crate) fn set_printed(&mut self, text: &[u8]) {
        self.shard.set_printed(self.database, self.name, self.key, text, self.now_ms);
    }

    /// Sets the key to a string that has an allocation of its own.
    pub(crate) fn set_owned(&mut self, value: Vec<u8>, deadline: Deadline) {
        self.shard.set_string_owned(self.database, self.name, self.key, value, deadline, self.now_ms);
    }

    /// Makes the string `length` bytes and edits those in `range` in place.
    pub(crate) fn edit(&mut self, length: usize, range: Range<usize>, edit: impl FnOnce(&mut [u8])) {
        self.shard.edit_string(self.database, self.name, self.key, length, range, self.now_ms, edit);
    }

    /// Changes the deadline of a live key; false if there is none.
    pub(crate) fn set_deadline(&mut self, deadline: Deadline) -> bool {
        self.shard.set_deadline(self.database, self.name, self.key, deadline, self.now_ms)
    }

    /// Removes the key; false if no live one was there.
    #[inline]
    pub(crate) fn remove(&mut self) -> bool {
        self.shard.remove(self.database, self.name, self.key, self.now_ms)
    }

    /// Takes the live value out.
    pub(crate) fn detach(&mut self) -> Option<DetachedEntry> {
        self.shard.detach(self.database, self.name, self.key, self.now_ms)
    }

    /// A copy of the live value.
    pub(crate) fn duplicate(&mut self) -> Option<DetachedEntry> {
        self.shard.duplicate(self.database, self.name, self.key, self.now_ms)
    }

    /// Puts a value under the key, replacing what is there.
    pub(crate) fn attach(&mut self, entry: DetachedEntry) {
        self.shard.attach(self.database, self.name, self.key, entry, self.now_ms);
    }

    /// The same key of another database.
    pub(crate) fn in_database(self, database: u8) -> Self {
        Self { database, ..self }
    }

    /// The time of the call, in milliseconds since the Unix epoch.
    #[inline]
    pub(crate) fn now_ms(&self) -> u64 {
        self.now_ms
    }
}

#[inline]
fn string_of<'a>(entry: &EntryRef<'a>) -> &'a [u8] {
    let Value::String(bytes) = entry.value();
    bytes
}

/// What a command's function returns.
pub enum Step {
    /// The reply is written.
    Done,
    /// The work's budget was used up, nothing was written to the reply, and the rest is in the state. The
    /// caller serves others before it resumes it.
    Continue(Box<dyn Resume>),
}

/// The rest of a command whose work exceeds one budget.
pub trait Resume: Send {
    /// Goes on for at most about half a millisecond. Whoever resumes passes the same arguments and keys again; the
    /// timestamp may have moved on. Returns true once the reply is written.
    fn resume(&mut self, call: &mut Call<'_>) -> bool;
}
