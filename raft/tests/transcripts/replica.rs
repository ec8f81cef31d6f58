//! One replica of a transcript with what a driver keeps around it: disk, state machine, work to be done.

use std::collections::VecDeque;

use duva_raft::{
    Config, Entry, EntryKind, Fetch, Index, Membership, Raft, Ready, ReplicaId, Restored, Role, SnapshotMeta,
    SnapshotRead, SnapshotWrite, Term, mutation::Mutation,
};

use crate::harness::disk::Disk;

/// One replica.
pub struct Replica {
    /// How it is set up.
    pub config: Config,
    /// `None` while it is down.
    pub raft: Option<Raft>,
    /// Filled again and again.
    pub ready: Ready,
    /// What survives.
    pub disk: Disk,
    /// What was applied.
    pub machine: Machine,
    /// Committed, and not applied while `is_lazy`.
    pub unapplied: VecDeque<Entry>,
    /// Reads and stores of its disk that are due.
    pub chores: VecDeque<Chore>,
    /// Its disk does nothing by itself.
    pub is_stalled: bool,
    /// Nothing reaches it, and its timers do not run.
    pub is_paused: bool,
    /// It does not apply.
    pub is_lazy: bool,
    /// Nobody takes what it has ready.
    pub is_held: bool,
    /// What was last said about it.
    pub shown: (Role, Term, Option<ReplicaId>),
    starts: u64,
}

/// Work for a disk besides writes.
pub enum Chore {
    /// Read entries for a follower.
    Fetch(Fetch),
    /// Read a piece of a snapshot for a follower.
    Read(SnapshotRead),
    /// Store a piece of a snapshot that came.
    Store(SnapshotWrite),
}

impl Replica {
    /// A replica that is down.
    pub fn new(config: Config, disk: Disk) -> Self {
        Self {
            config,
            raft: None,
            ready: Ready::default(),
            disk,
            machine: Machine::default(),
            unapplied: VecDeque::new(),
            chores: VecDeque::new(),
            is_stalled: false,
            is_paused: false,
            is_lazy: false,
            is_held: false,
            shown: (Role::Follower, 0, None),
            starts: 0,
        }
    }

    /// Starts it from its disk.
    pub fn start(&mut self, now_ns: u64, mutation: Option<Mutation>) {
        self.machine = Machine::default();
        self.machine.load(&self.disk.snapshot, &self.disk.snapshot_bytes);
        let restored = Restored {
            hard_state: self.disk.hard_state,
            snapshot: self.disk.snapshot.clone(),
            entries: self.disk.restored_entries(),
        };
        self.starts += 1;
        let seed = self.config.id.0 * 100 + self.starts;
        let mut raft = Raft::new(self.config.clone(), restored, now_ns, seed);
        raft.set_mutation(mutation);
        self.shown = (raft.role(), raft.term(), raft.leader());
        self.raft = Some(raft);
    }

    /// Stops it. Its disk remains, and works again.
    pub fn stop(&mut self) {
        self.raft = None;
        self.is_stalled = false;
        self.unapplied.clear();
        self.chores.clear();
    }

    /// Whether it does anything at all.
    pub fn is_up(&self) -> bool {
        self.raft.is_some() && !self.is_paused
    }
}

/// A state machine: the payloads that were applied.
#[derive(Default)]
pub struct Machine {
    /// The last entry that was applied.
    pub index: Index,
    /// Its term.
    pub term: Term,
    /// The membership in force at it.
    pub membership: Membership,
    lines: Vec<String>,
}

impl Machine {
    /// Applies an entry.
    pub fn apply(&mut self, entry: &Entry) {
        assert_eq!(entry.index, self.index + 1, "entries are applied in order, each once");
        self.index = entry.index;
        self.term = entry.term;
        match entry.kind {
            EntryKind::Empty => {}
            EntryKind::Membership => {
                self.membership = Membership::decode(&entry.payload).expect("a membership as it was encoded");
            }
            EntryKind::Data(_) => self.lines.push(String::from_utf8_lossy(&entry.payload).into_owned()),
        }
    }

    /// What a snapshot taken now stands for, and its bytes.
    pub fn snapshot(&self) -> (SnapshotMeta, Vec<u8>) {
        let meta = SnapshotMeta { index: self.index, term: self.term, membership: self.membership.clone() };
        (meta, self.lines.join("\n").into_bytes())
    }

    /// Becomes what a snapshot says.
    pub fn load(&mut self, meta: &SnapshotMeta, bytes: &[u8]) {
        self.index = meta.index;
        self.term = meta.term;
        self.membership = meta.membership.clone();
        self.lines = String::from_utf8_lossy(bytes).lines().map(str::to_owned).collect();
    }

    /// Everything that was applied, in one line.
    pub fn show(&self) -> String {
        if self.lines.is_empty() { "nothing".to_owned() } else { self.lines.join(" ") }
    }
}
