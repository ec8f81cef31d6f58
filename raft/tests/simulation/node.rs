//! A node: replicas of several groups that share a disk, clocks and crashes.
//!
//! A node works in turns. What comes in between waits, as it does while the node is paused.

use duva_raft::{Membership, Message, ReplicaId};

use super::{
    check::Violation,
    client::{Refusal, Request},
    clock::Clock,
    disk::{Disk, Progress, Speed, Stop},
    flaw::Flaw,
    image::{Image, Rule},
    outside::Outside,
    queue::{Event, Reading, SnapshotFile},
    replica::{Host, Replica},
};

/// A node.
pub(crate) struct Node {
    pub(crate) id: usize,
    pub(crate) is_up: bool,
    pub(crate) is_paused: bool,
    /// Counts its starts: what was begun in an earlier life does not end in this one.
    pub(crate) life: u32,
    pub(crate) clock: Clock,
    pub(crate) disk: Disk,
    pub(crate) replicas: Vec<Option<Replica>>,
    inbox: Vec<(usize, Message)>,
    requests: Vec<Request>,
    progress: Vec<Progress>,
    /// Work that finished while the node was busy, or paused.
    finished: Vec<Finished>,
    unreachable: Vec<usize>,
    /// When the next turn is due.
    turn_ns: u64,
}

/// Work on files that finished.
pub(crate) enum Finished {
    PieceStored { file: SnapshotFile, next_offset: u64, whole: Option<std::sync::Arc<[u8]>> },
    SnapshotRoom { file: SnapshotFile },
    SnapshotSaved { file: SnapshotFile, bytes: std::sync::Arc<[u8]> },
    Read { group: usize, replica: ReplicaId, read: Reading },
}

impl Node {
    pub(crate) fn new(id: usize, outside: &mut Outside, clock: Clock) -> Self {
        let groups = outside.setup.groups;
        Self {
            id,
            is_up: true,
            is_paused: false,
            life: 0,
            clock,
            disk: Disk::new(groups, outside.setup.durability()),
            replicas: (0..groups).map(|_| None).collect(),
            inbox: Vec::new(),
            requests: Vec::new(),
            progress: Vec::new(),
            finished: Vec::new(),
            unreachable: Vec::new(),
            turn_ns: u64::MAX,
        }
    }

    /// A replica is born here.
    pub(crate) fn create(
        &mut self,
        outside: &mut Outside,
        group: usize,
        replica: ReplicaId,
        membership: Membership,
    ) {
        let rule = match outside.flaw {
            Some(Flaw::HighestTermWins) => Rule::HighestTerm,
            Some(Flaw::KeepReplacedTail) => Rule::LastOfIndex,
            _ => Rule::Last,
        };
        let image = Image::new(replica, membership, rule);
        self.disk.set(group, Some(image));
        if self.is_up {
            self.start_replica(outside, group);
            self.wake(outside);
        }
    }

    /// A replica is not needed any more.
    pub(crate) fn forget(&mut self, group: usize) {
        self.disk.set(group, None);
        self.replicas[group] = None;
    }

    /// The replica of a group, by what is on the disk.
    pub(crate) fn replica_id(&self, group: usize) -> Option<ReplicaId> {
        self.disk.written[group].as_ref().map(|image| image.replica)
    }

    /// How a group's replica stands.
    pub(crate) fn describe(&self, group: usize) -> String {
        let Some(replica) = &self.replicas[group] else { return "-".to_owned() };
        let raft = &replica.raft;
        format!(
            "{} {:?} in term {}, commit {} of {}, voters {:?} and {:?}",
            replica.id.0,
            raft.role(),
            raft.term(),
            raft.commit_index(),
            raft.last_index(),
            raft.membership().voters,
            raft.membership().outgoing
        )
    }

    pub(crate) fn deliver(&mut self, outside: &mut Outside, group: usize, message: Message) {
        if self.is_up {
            self.inbox.push((group, message));
            self.wake(outside);
        }
    }

    pub(crate) fn request(&mut self, outside: &mut Outside, request: Request) {
        if self.is_up {
            self.requests.push(request);
            self.wake(outside);
        }
    }

    /// The connection with another node broke.
    pub(crate) fn lose_link(&mut self, outside: &mut Outside, other: usize) {
        if self.is_up {
            self.unreachable.push(other);
            self.wake(outside);
        }
    }

    pub(crate) fn finish(&mut self, outside: &mut Outside, life: u32, finished: Finished) {
        if self.is_up && life == self.life {
            self.finished.push(finished);
            self.wake(outside);
        }
    }

    /// The disk finished what it did; a stalled one will, later.
    pub(crate) fn disk_finished(&mut self, outside: &mut Outside, life: u32, is_sync: bool) {
        if life != self.life || !self.is_up {
            return;
        }
        if self.disk.speed == Speed::Stalled {
            let node = self.id;
            let event = if is_sync { Event::Synced { node, life } } else { Event::Written { node, life } };
            return outside.later(3_000_000, event);
        }
        let result = match is_sync {
            true => self.disk.finish_sync(&mut self.progress),
            false => self.disk.finish_write(&mut self.progress),
        };
        if let Err(what) = result {
            outside.checks.report(Violation::new("journal", format!("node {}: {what}", self.id)));
        }
        self.wake(outside);
    }

    /// There is something to do.
    pub(crate) fn wake(&mut self, outside: &mut Outside) {
        let at_ns = outside.now_ns + outside.random.below(30_000);
        self.wake_at(outside, at_ns);
    }

    fn wake_at(&mut self, outside: &mut Outside, at_ns: u64) {
        if at_ns < self.turn_ns && self.is_up && !self.is_paused {
            self.turn_ns = at_ns;
            outside.queue.add(at_ns, Event::Turn { node: self.id });
        }
    }

    /// Does what there is to do.
    pub(crate) fn turn(&mut self, outside: &mut Outside) {
        if self.turn_ns != outside.now_ns || !self.is_up || self.is_paused {
            return;
        }
        self.turn_ns = u64::MAX;
        let local_ns = self.clock.local_ns(outside.now_ns);
        let wall_ms = self.clock.wall_ms(outside.now_ns);
        let ticks_first = outside.random.coin();
        let mut host =
            Host { node: self.id, life: self.life, local_ns, wall_ms, disk: &mut self.disk, outside };
        if ticks_first {
            for replica in self.replicas.iter_mut().flatten() {
                replica.raft.tick(local_ns);
            }
        }
        for progress in self.progress.drain(..) {
            report(&mut self.replicas, &mut host, &progress);
        }
        for finished in self.finished.drain(..) {
            finish(&mut self.replicas, &mut host, finished);
        }
        for other in self.unreachable.drain(..) {
            for replica in self.replicas.iter_mut().flatten() {
                let there = (0..host.outside.homes.len()).filter(|&id| host.outside.homes[id] == other);
                there.for_each(|id| replica.raft.unreachable(ReplicaId(id as u64)));
            }
        }
        for (group, message) in self.inbox.drain(..) {
            if let Some(replica) = &mut self.replicas[group] {
                replica.raft.step(local_ns, message);
            }
        }
        for request in self.requests.drain(..) {
            match &mut self.replicas[request.operation.group] {
                Some(replica) => replica.request(&mut host, request),
                None => host.outside.answer(request, Err(Refusal::Unknown)),
            }
        }
        let mut next_ns = u64::MAX;
        let mut is_busy = false;
        for replica in self.replicas.iter_mut().flatten() {
            replica.raft.tick(local_ns);
            is_busy |= replica.work(&mut host);
            next_ns = next_ns.min(self.clock.world_ns(replica.raft.next_deadline_ns()));
            if let Some(in_ms) = replica.next_tick_ms(wall_ms) {
                next_ns = next_ns.min(host.outside.now_ns + in_ms.max(1) * 1_000_000);
            }
        }
        let started = self.disk.start(&mut outside.random);
        let (node, life) = (self.id, self.life);
        if let Some(write_ns) = started.write_ns {
            outside.later(write_ns, Event::Written { node, life });
        }
        if let Some(sync_ns) = started.sync_ns {
            outside.later(sync_ns, Event::Synced { node, life });
        }
        if is_busy {
            self.wake(outside);
        }
        // A timer that is due now is due in a moment: a node does not stand still in time.
        self.wake_at(outside, next_ns.max(outside.now_ns + 1_000));
    }

    pub(crate) fn pause(&mut self) {
        self.is_paused = true;
        self.turn_ns = u64::MAX;
    }

    pub(crate) fn resume(&mut self, outside: &mut Outside) {
        if self.is_paused {
            self.is_paused = false;
            // Whether a driver notices is up to it.
            if outside.random.coin() {
                let local_ns = self.clock.local_ns(outside.now_ns);
                for replica in self.replicas.iter_mut().flatten() {
                    replica.raft.was_away(local_ns);
                }
            }
            self.wake(outside);
        }
    }

    /// The process, or the machine, is gone.
    pub(crate) fn stop(&mut self, outside: &mut Outside, how: Stop) {
        if !self.is_up {
            return;
        }
        self.is_up = false;
        self.is_paused = false;
        self.life += 1;
        self.turn_ns = u64::MAX;
        self.inbox.clear();
        self.requests.clear();
        self.progress.clear();
        self.finished.clear();
        self.unreachable.clear();
        self.replicas.fill_with(|| None);
        if let Err(what) = self.disk.stop(how, &mut outside.random) {
            outside.checks.report(Violation::new("journal", format!("node {}: {what}", self.id)));
        }
        if how == Stop::Power {
            self.clock.reboot(outside.now_ns);
        }
    }

    pub(crate) fn start(&mut self, outside: &mut Outside) {
        if self.is_up {
            return;
        }
        self.is_up = true;
        for group in 0..self.replicas.len() {
            self.start_replica(outside, group);
        }
        self.wake(outside);
    }

    fn start_replica(&mut self, outside: &mut Outside, group: usize) {
        let Some(image) = self.disk.written[group].clone() else { return };
        let local_ns = self.clock.local_ns(outside.now_ns);
        let wall_ms = self.clock.wall_ms(outside.now_ns);
        let now_ns = outside.now_ns;
        outside.trace.note(now_ns, [7, image.replica.0, image.last_index()], || {
            let (first, last) = (image.first_index(), image.last_index());
            format!(
                "start {group} {} with {:?} and entries {first}..={last}",
                image.replica.0, image.hard_state
            )
        });
        let mut host =
            Host { node: self.id, life: self.life, local_ns, wall_ms, disk: &mut self.disk, outside };
        self.replicas[group] = Some(Replica::new(&mut host, group, &image));
    }
}

/// A replica hears what became durable.
fn report(replicas: &mut [Option<Replica>], host: &mut Host<'_>, progress: &Progress) {
    let &(Progress::Written { group, replica: id, .. }
    | Progress::Synced { group, replica: id, .. }
    | Progress::Marked { group, replica: id, .. }) = progress;
    let Some(replica) = replicas[group].as_mut().filter(|replica| replica.id == id) else { return };
    match progress {
        Progress::Written { number, .. } => {
            replica.raft.written(*number);
            if host.outside.is(Flaw::SyncWithoutWaiting) {
                replica.raft.synced(*number);
            }
        }
        Progress::Synced { number, .. } => replica.raft.synced(*number),
        Progress::Marked { snapshot, .. } => replica.marked(host, snapshot),
    }
}

fn finish(replicas: &mut [Option<Replica>], host: &mut Host<'_>, finished: Finished) {
    let (group, id) = match &finished {
        Finished::PieceStored { file, .. }
        | Finished::SnapshotRoom { file }
        | Finished::SnapshotSaved { file, .. } => (file.group, file.replica),
        Finished::Read { group, replica, .. } => (*group, *replica),
    };
    let Some(replica) = replicas[group].as_mut().filter(|replica| replica.id == id) else { return };
    match finished {
        Finished::PieceStored { file, next_offset, whole } => {
            replica.piece_stored(host, file.meta, next_offset, whole);
        }
        Finished::SnapshotRoom { .. } => replica.has_room(),
        Finished::SnapshotSaved { file, bytes } => replica.snapshot_saved(host, file.meta, bytes),
        Finished::Read { read, .. } => replica.fetch(host, read),
    }
}
