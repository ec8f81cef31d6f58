//! A replica's disk in a transcript: what is durable, what is only written, and what is neither yet.

use std::collections::VecDeque;

use duva_raft::{Entry, HardState, Index, SnapshotMeta, Write};

/// How much of what was not synced survives a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// The machine lost power: what was synced.
    Synced,
    /// The process died: what was written.
    Written,
    /// The unsynced writes got there by luck.
    Everything,
}

/// A replica's disk.
#[derive(Default)]
pub struct Disk {
    /// Durable.
    pub hard_state: HardState,
    /// Durable: the newest snapshot, or the first membership.
    pub snapshot: SnapshotMeta,
    /// The newest snapshot's bytes.
    pub snapshot_bytes: Vec<u8>,
    /// Durable entries; those that no snapshot needs any more are dropped from the front.
    pub entries: Vec<Entry>,
    /// A snapshot that is coming, and as much of it as is there.
    pub incoming: Option<(SnapshotMeta, Vec<u8>)>,
    /// Not synced yet, oldest first.
    queue: VecDeque<Write>,
    /// The last write that survives the process.
    written: u64,
    /// The last write that was handed over.
    last: u64,
}

impl Disk {
    /// A disk that holds a group's first membership and nothing else.
    pub fn new(snapshot: SnapshotMeta) -> Self {
        Self { snapshot, ..Self::default() }
    }

    /// Takes a write, which is neither written nor synced yet.
    pub fn append(&mut self, write: &Write) {
        assert!(write.number > self.last, "write {} after {}", write.number, self.last);
        self.last = write.number;
        self.queue.push_back(write.clone());
    }

    /// The first write that is not written yet.
    pub fn first_unwritten(&self) -> Option<u64> {
        self.queue.iter().map(|write| write.number).find(|&number| number > self.written)
    }

    /// The last write that is not synced yet.
    pub fn last_unsynced(&self) -> Option<u64> {
        self.queue.back().map(|write| write.number)
    }

    /// Writes up to `number` survive the process.
    pub fn write(&mut self, number: u64) {
        self.written = self.written.max(number);
    }

    /// Writes up to `number` survive everything.
    pub fn sync(&mut self, number: u64) {
        self.write(number);
        while self.queue.front().is_some_and(|write| write.number <= number) {
            let write = self.queue.pop_front().expect("there is a first one");
            apply(&mut self.hard_state, &mut self.entries, write);
        }
    }

    /// Loses what does not survive, and numbers writes from the beginning again.
    pub fn crash(&mut self, keep: Keep) {
        match keep {
            Keep::Synced => {}
            Keep::Written => self.sync(self.written),
            Keep::Everything => self.sync(self.last),
        }
        self.queue.clear();
        self.written = 0;
        self.last = 0;
    }

    /// The log with everything that was handed over, durable or not.
    pub fn log(&self) -> Vec<Entry> {
        let mut entries = self.entries.clone();
        for write in &self.queue {
            apply(&mut HardState::default(), &mut entries, write.clone());
        }
        entries
    }

    /// The entries that follow the snapshot, as a restart finds them.
    pub fn restored_entries(&self) -> Vec<Entry> {
        self.entries.iter().filter(|entry| entry.index > self.snapshot.index).cloned().collect()
    }

    /// Forgets the log up to `index`.
    pub fn forget(&mut self, index: Index) {
        self.entries.retain(|entry| entry.index > index);
    }

    /// Stores a snapshot of this replica's own state machine.
    pub fn store_snapshot(&mut self, meta: SnapshotMeta, bytes: Vec<u8>) {
        self.snapshot = meta;
        self.snapshot_bytes = bytes;
    }

    /// Stores a piece of a leader's snapshot. Returns how much of it is there.
    pub fn store_piece(&mut self, meta: &SnapshotMeta, offset: u64, bytes: &[u8]) -> u64 {
        if offset == 0 {
            self.incoming = Some((meta.clone(), Vec::new()));
        }
        let (incoming, there) = self.incoming.as_mut().expect("a snapshot begins at 0");
        assert_eq!((incoming.index, incoming.term), (meta.index, meta.term), "a piece of another snapshot");
        assert_eq!(there.len() as u64, offset, "a piece that does not follow");
        there.extend_from_slice(bytes);
        there.len() as u64
    }

    /// Puts the snapshot that came in the place of the log, or of as much of the log as it covers.
    pub fn install_snapshot(&mut self, keeps_log: bool) {
        let (meta, bytes) = self.incoming.take().expect("a snapshot came");
        self.entries.retain(|entry| keeps_log && entry.index > meta.index);
        self.store_snapshot(meta, bytes);
    }
}

/// Does what a write says.
fn apply(hard_state: &mut HardState, entries: &mut Vec<Entry>, write: Write) {
    if let Some(new) = write.hard_state {
        *hard_state = new;
    }
    if let Some(first) = write.entries.first() {
        entries.retain(|entry| entry.index < first.index);
        entries.extend(write.entries);
    }
}
