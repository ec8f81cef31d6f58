//! A cluster in a transcript: replicas, a network, one clock, and what happens between them.
//!
//! After everything that a replica is told, what it has ready is taken and done: messages go into the network's
//! queues, writes to the disk's (which syncs them when it is told to), committed entries are applied.

use std::{collections::BTreeMap, mem};

use duva_raft::{
    ENTRY_OVERHEAD_BYTES, Fetch, Ready, ReplicaId, Role, SnapshotRead, SnapshotWrite, mutation::Mutation,
};

use crate::harness::{
    checks::Checks,
    network::{IDS, Link, Network},
    print,
    replica::{Chore, Replica},
};

/// Rounds of messages after which a cluster must have come to rest.
const ROUNDS_MAX: usize = 200;

/// A cluster.
#[derive(Default)]
pub struct World {
    /// The clock of all replicas.
    pub now_ns: u64,
    /// By id.
    pub replicas: BTreeMap<u64, Replica>,
    /// Between them.
    pub network: Network,
    /// What must hold.
    pub checks: Checks,
    /// Whether only changes of roles, and reads' ends, are shown.
    pub is_quiet: bool,
    /// A rule that every replica breaks.
    pub mutation: Option<Mutation>,
    output: Vec<String>,
}

impl World {
    /// A world without replicas.
    pub fn new(mutation: Option<Mutation>) -> Self {
        Self { mutation, ..Self::default() }
    }

    /// Starts a replica from its disk.
    pub fn start(&mut self, id: u64) {
        let (now_ns, mutation) = (self.now_ns, self.mutation);
        self.replica(id).start(now_ns, mutation);
    }

    /// What was printed since the last call.
    pub fn take_output(&mut self) -> Vec<String> {
        mem::take(&mut self.output)
    }

    /// Prints a line.
    pub fn say(&mut self, line: String) {
        if !self.is_quiet {
            self.output.push(line);
        }
    }

    /// A replica that exists.
    pub fn replica(&mut self, id: u64) -> &mut Replica {
        self.replicas.get_mut(&id).unwrap_or_else(|| panic!("there is no replica {id}"))
    }

    /// Tells a replica that is up something, and does what follows from it.
    pub fn tell<T>(&mut self, id: u64, tell: impl FnOnce(&mut duva_raft::Raft, u64) -> T) -> T {
        let now_ns = self.now_ns;
        let raft = self.replica(id).raft.as_mut().unwrap_or_else(|| panic!("replica {id} is down"));
        let result = tell(raft, now_ns);
        self.pump(id);
        result
    }

    /// Does what a replica has ready, until it has nothing more.
    pub fn pump(&mut self, id: u64) {
        for _ in 0..ROUNDS_MAX {
            self.show_role(id);
            let now_ns = self.now_ns;
            let replica = self.replica(id);
            let Some(raft) = replica.raft.as_mut().filter(|_| !replica.is_held) else { return };
            let is_ready = raft.has_ready();
            let mut ready = mem::take(&mut replica.ready);
            raft.take_ready(now_ns, &mut ready);
            if !is_ready {
                assert_eq!(ready, Ready::default(), "replica {id} had something ready and did not say so");
                return;
            }
            self.show_role(id);
            self.handle(id, &ready);
            self.replica(id).ready = ready;
        }
        panic!("replica {id} does not come to an end");
    }

    fn show_role(&mut self, id: u64) {
        let replica = self.replica(id);
        let Some(raft) = &replica.raft else { return };
        let state = (raft.role(), raft.term(), raft.leader());
        if mem::replace(&mut replica.shown, state) == state {
            return;
        }
        let (role, term, leader) = state;
        let line = match role {
            Role::Leader => format!("{id} leads, term {term}"),
            Role::Candidate => format!("{id} is a candidate, term {term}"),
            Role::PreCandidate => format!("{id} is a pre-candidate, term {term}"),
            Role::Follower => match leader {
                Some(leader) => format!("{id} follows {}, term {term}", leader.0),
                None => format!("{id} follows nobody, term {term}"),
            },
        };
        if role == Role::Leader {
            self.checks.leads(ReplicaId(id), term);
        }
        self.output.push(line);
    }

    fn handle(&mut self, id: u64, ready: &Ready) {
        if let Some(write) = &ready.write {
            self.replica(id).disk.append(write);
            self.say(format!("{id} {}", print::write(write)));
        }
        for message in &ready.messages {
            assert_eq!(message.from, ReplicaId(id), "a replica sends in its own name");
            let arrives = self.network.send(message.clone());
            self.say(format!("{}{}", print::message(message), if arrives { "" } else { " (lost)" }));
        }
        if !ready.committed.is_empty() {
            let replica = self.replica(id);
            let handed = replica.unapplied.back().map_or(replica.machine.index, |entry| entry.index);
            replica.unapplied.extend(ready.committed.iter().cloned());
            self.checks.commits(handed, &ready.committed);
            self.say(format!("{id} commits {}", print::entries(&ready.committed)));
            if !self.replica(id).is_lazy {
                self.apply(id);
            }
        }
        for read in &ready.reads {
            self.checks.read_passes(id, read.context, read.index);
            self.output.push(format!("{id} may read {} at {}", read.context, read.index));
        }
        for &context in &ready.failed_reads {
            self.checks.read_fails(id, context);
            self.output.push(format!("{id} fails read {context}"));
        }
        let chores = &mut self.replica(id).chores;
        chores.extend(ready.fetches.iter().copied().map(Chore::Fetch));
        chores.extend(ready.snapshot_reads.iter().cloned().map(Chore::Read));
        chores.extend(ready.snapshot_writes.iter().cloned().map(Chore::Store));
        for Fetch { peer, from, to, .. } in &ready.fetches {
            self.say(format!("{id} wants entries {from}..{} for {}", to - 1, peer.0));
        }
        for SnapshotRead { peer, snapshot, offset, .. } in &ready.snapshot_reads {
            let which =
                snapshot.map_or("the newest".to_owned(), |(index, term)| format!("snapshot {index}/{term}"));
            self.say(format!("{id} wants {which} from byte {offset} for {}", peer.0));
        }
        for SnapshotWrite { meta, offset, bytes, is_last } in &ready.snapshot_writes {
            let piece = print::piece(*offset, bytes.len(), *is_last);
            self.say(format!("{id} stores {piece} of snapshot {}/{}", meta.index, meta.term));
        }
    }

    /// Applies everything that a replica was given.
    pub fn apply(&mut self, id: u64) {
        let replica = self.replica(id);
        for entry in mem::take(&mut replica.unapplied) {
            replica.machine.apply(&entry);
        }
        let index = replica.machine.index;
        replica.raft.as_mut().expect("only a running replica applies").applied(index);
    }

    /// Everything up to a write survives the process.
    pub fn written(&mut self, id: u64, number: u64) {
        self.replica(id).disk.write(number);
        self.say(format!("{id} wrote #{number}"));
        self.tell(id, |raft, _| raft.written(number));
    }

    /// Everything up to a write survives everything.
    pub fn synced(&mut self, id: u64, number: u64) {
        self.replica(id).disk.sync(number);
        self.say(format!("{id} synced #{number}"));
        self.tell(id, |raft, _| raft.synced(number));
    }

    /// Does the oldest of a replica's chores; `false`: there is none.
    pub fn chore(&mut self, id: u64) -> bool {
        match self.replica(id).chores.pop_front() {
            None => return false,
            Some(Chore::Fetch(fetch)) => self.fetch(id, &fetch),
            Some(Chore::Read(read)) => self.read_snapshot(id, &read),
            Some(Chore::Store(write)) => self.store_snapshot(id, &write),
        }
        true
    }

    fn fetch(&mut self, id: u64, fetch: &Fetch) {
        let log = self.replica(id).disk.log();
        let mut bytes = 0;
        let entries: Vec<_> = log
            .into_iter()
            .filter(|entry| (fetch.from..fetch.to).contains(&entry.index))
            .take_while(|entry| {
                let is_first = entry.index == fetch.from;
                bytes += if is_first { 0 } else { entry.payload.len() + ENTRY_OVERHEAD_BYTES };
                bytes <= fetch.bytes_max
            })
            .collect();
        let entries = entries.first().is_some_and(|first| first.index == fetch.from).then_some(entries);
        let found = entries.as_deref().map_or("nothing".to_owned(), print::entries);
        self.say(format!("{id} finds {found} for {}", fetch.peer.0));
        self.tell(id, |raft, _| raft.fetched(fetch.peer, fetch.from, entries));
    }

    fn read_snapshot(&mut self, id: u64, read: &SnapshotRead) {
        let disk = &self.replica(id).disk;
        let meta = disk.snapshot.clone();
        let is_there = meta.index > 0 && read.snapshot.is_none_or(|which| which == (meta.index, meta.term));
        if !is_there {
            self.say(format!("{id} cannot read that for {}", read.peer.0));
            self.tell(id, |raft, _| raft.snapshot_unreadable(read.peer));
            return;
        }
        let bytes = &disk.snapshot_bytes;
        let begin = usize::try_from(read.offset).expect("a small snapshot").min(bytes.len());
        let end = bytes.len().min(begin + read.bytes_max);
        let (piece, is_last) = (bytes[begin..end].into(), end == bytes.len());
        self.tell(id, |raft, _| raft.snapshot_read(read.peer, meta, read.offset, piece, is_last));
    }

    /// Fails at the oldest of a replica's chores, a read of a snapshot.
    pub fn fail_read(&mut self, id: u64) {
        let Some(Chore::Read(read)) = self.replica(id).chores.pop_front() else {
            panic!("replica {id} reads no snapshot");
        };
        self.say(format!("{id} cannot read that for {}", read.peer.0));
        self.tell(id, |raft, _| raft.snapshot_unreadable(read.peer));
    }

    /// Has no room for the oldest of a replica's chores, the first piece of a snapshot.
    pub fn refuse(&mut self, id: u64) {
        let Some(Chore::Store(write)) = self.replica(id).chores.pop_front() else {
            panic!("no snapshot comes to replica {id}");
        };
        let (index, term) = (write.meta.index, write.meta.term);
        self.say(format!("{id} has no room for snapshot {index}/{term}"));
        self.tell(id, |raft, _| raft.snapshot_refused(index, term));
    }

    /// Has room for it.
    pub fn invite(&mut self, id: u64) {
        self.tell(id, |raft, _| {
            raft.invite_snapshot();
        });
    }

    fn store_snapshot(&mut self, id: u64, write: &SnapshotWrite) {
        let (index, term) = (write.meta.index, write.meta.term);
        let next_offset = self.replica(id).disk.store_piece(&write.meta, write.offset, &write.bytes);
        self.say(format!("{id} has {next_offset} bytes of snapshot {index}/{term}"));
        self.tell(id, |raft, _| raft.snapshot_stored(index, term, next_offset));
        if !write.is_last {
            return;
        }
        // A snapshot is installed behind everything that was written before it.
        if let Some(number) = self.replica(id).disk.last_unsynced() {
            self.synced(id, number);
        }
        let replica = self.replica(id);
        let keeps_log = replica.raft.as_ref().is_some_and(|raft| raft.keeps_log(index, term));
        replica.disk.install_snapshot(keeps_log);
        replica.unapplied.clear();
        replica.machine.load(&replica.disk.snapshot, &replica.disk.snapshot_bytes);
        let log = if keeps_log { "keeps" } else { "drops" };
        self.say(format!("{id} installs snapshot {index}/{term}, {log} its log"));
        self.tell(id, |raft, _| raft.snapshot_installed(index, term));
    }

    /// Delivers the oldest message of a link; `false`: there is none that can be delivered.
    pub fn deliver(&mut self, link: Link) -> bool {
        let (from, to) = link;
        if self.replicas.get(&to).is_some_and(|replica| replica.is_paused) {
            return false;
        }
        let Some(message) = self.network.receive(link) else { return false };
        let name = print::name(&message.body);
        if self.replicas.get(&to).is_none_or(|replica| replica.raft.is_none()) {
            self.say(format!("{to}<-{from} {name} (down)"));
            return true;
        }
        self.say(format!("{to}<-{from} {name}"));
        self.tell(to, |raft, now_ns| raft.step(now_ns, message));
        true
    }

    /// Lets disks and network work until nothing is left to be done. No time passes.
    pub fn stabilize(&mut self) {
        for _ in 0..ROUNDS_MAX {
            let mut has_moved = false;
            for id in self.ids() {
                has_moved |= self.work(id);
            }
            for link in IDS.flat_map(|from| IDS.map(move |to| (from, to))) {
                for _ in 0..self.network.len(link) {
                    has_moved |= self.deliver(link);
                }
            }
            if !has_moved {
                return;
            }
        }
        panic!("the cluster does not come to rest");
    }

    /// Lets a replica's disk do what is due, unless it is stalled; `false`: nothing was.
    fn work(&mut self, id: u64) -> bool {
        let replica = self.replica(id);
        if !replica.is_up() || replica.is_stalled {
            return false;
        }
        let mut has_moved = false;
        if let Some(number) = replica.disk.last_unsynced() {
            self.synced(id, number);
            has_moved = true;
        }
        while self.chore(id) {
            has_moved = true;
        }
        has_moved
    }

    /// Lets time pass, with every timer when it is due; if `settles`, everything comes to rest after each.
    pub fn wait(&mut self, duration_ns: u64, settles: bool) {
        let end_ns = self.now_ns + duration_ns;
        while let Some((deadline_ns, id)) = self.next_deadline().filter(|(deadline, _)| *deadline <= end_ns) {
            self.now_ns = self.now_ns.max(deadline_ns);
            let printed = self.output.len();
            self.tell(id, |raft, now_ns| raft.tick(now_ns));
            if settles {
                self.stabilize();
            }
            if self.output.len() > printed {
                self.output.insert(printed, format!("at {}", print::time(self.now_ns)));
            }
            let next_ns = self.replica(id).raft.as_ref().map(duva_raft::Raft::next_deadline_ns);
            assert!(next_ns > Some(self.now_ns), "replica {id} had its tick and wants another at once");
        }
        self.now_ns = end_ns;
    }

    fn next_deadline(&self) -> Option<(u64, u64)> {
        let running = self.replicas.iter().filter(|(_, replica)| replica.is_up());
        running.filter_map(|(&id, replica)| Some((replica.raft.as_ref()?.next_deadline_ns(), id))).min()
    }

    /// All replicas.
    pub fn ids(&self) -> Vec<u64> {
        self.replicas.keys().copied().collect()
    }
}
