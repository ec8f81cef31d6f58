//! A node's disk: one journal for all groups of the node.
//!
//! Records go from the queue to the page cache (*written*) and from there to the medium (*synced*), always as a prefix of their
//! order. A crash of the process loses what is not written; a power loss keeps some prefix of what is not synced, and perhaps
//! the beginning of the record after it. Recovery syncs what it keeps.

use std::collections::VecDeque;

use duva_raft::{Durability, ReplicaId, Write};

use super::{
    image::{Image, Record, Snapshot},
    random::Random,
};

/// How fast a disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speed {
    Normal,
    Slow,
    /// Nothing finishes.
    Stalled,
}

/// How a node stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The process dies.
    Process,
    /// The machine does.
    Power,
}

/// A record in the queue, and whose it is.
#[derive(Clone, Debug)]
struct Item {
    group: usize,
    replica: ReplicaId,
    record: Record,
}

/// What became durable of one replica.
#[derive(Debug)]
pub(crate) enum Progress {
    /// Its writes up to this number are in the page cache.
    Written { group: usize, replica: ReplicaId, number: u64 },
    /// Its writes up to this number survive anything.
    Synced { group: usize, replica: ReplicaId, number: u64 },
    /// The mark of a snapshot does.
    Marked { group: usize, replica: ReplicaId, snapshot: Snapshot },
}

/// What a disk begins to do: it takes so long.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Started {
    pub(crate) write_ns: Option<u64>,
    pub(crate) sync_ns: Option<u64>,
}

/// A disk. Records are numbered from the node's birth on.
pub(crate) struct Disk {
    /// What a power loss leaves, by group.
    pub(crate) synced: Vec<Option<Image>>,
    /// What a crash of the process leaves, by group.
    pub(crate) written: Vec<Option<Image>>,
    /// What is not synced.
    queue: VecDeque<Item>,
    first: u64,
    written_to: u64,
    writing_to: Option<u64>,
    syncing_to: Option<u64>,
    pub(crate) speed: Speed,
    durability: Durability,
}

impl Disk {
    pub(crate) fn new(groups: usize, durability: Durability) -> Self {
        Self {
            synced: vec![None; groups],
            written: vec![None; groups],
            queue: VecDeque::new(),
            first: 0,
            written_to: 0,
            writing_to: None,
            syncing_to: None,
            speed: Speed::Normal,
            durability,
        }
    }

    /// A replica is born, or forgotten.
    pub(crate) fn set(&mut self, group: usize, image: Option<Image>) {
        self.synced[group].clone_from(&image);
        self.written[group] = image;
    }

    pub(crate) fn add(&mut self, group: usize, replica: ReplicaId, record: Record) {
        self.queue.push_back(Item { group, replica, record });
    }

    /// Begins what can begin: one write and one sync at a time.
    pub(crate) fn start(&mut self, random: &mut Random) -> Started {
        let mut started = Started::default();
        let end = self.first + self.queue.len() as u64;
        if self.writing_to.is_none() && end > self.written_to {
            self.writing_to = Some(end);
            started.write_ns = Some(self.duration_ns(random, 20_000, 60_000));
        }
        if self.syncing_to.is_none() && self.needs_sync() {
            self.syncing_to = Some(self.written_to);
            started.sync_ns = Some(self.duration_ns(random, 200_000, 1_500_000));
        }
        started
    }

    /// In memory mode only terms, votes and snapshots are worth a sync.
    fn needs_sync(&self) -> bool {
        let mut written = self.queue.iter().take((self.written_to - self.first) as usize);
        match self.durability {
            Durability::Fsync => written.next().is_some(),
            Durability::Memory => written.any(|item| match &item.record {
                Record::Write(write) => write.hard_state.is_some(),
                Record::Mark(_) => true,
                Record::Committed(_) => false,
            }),
        }
    }

    fn duration_ns(&self, random: &mut Random, least_ns: u64, most_ns: u64) -> u64 {
        let factor = if self.speed == Speed::Slow { random.between(20, 100) } else { 1 };
        random.between(least_ns, most_ns) * factor
    }

    /// The write that was started has finished.
    ///
    /// # Errors
    ///
    /// If the records contradict one another.
    pub(crate) fn finish_write(&mut self, progress: &mut Vec<Progress>) -> Result<(), String> {
        let to = self.writing_to.take().expect("a write was started");
        let from = std::mem::replace(&mut self.written_to, to);
        for item in self.queue.range((from - self.first) as usize..(to - self.first) as usize) {
            add(&mut self.written, item)?;
            note(progress, item, false);
        }
        Ok(())
    }

    /// The sync that was started has finished.
    ///
    /// # Errors
    ///
    /// If the records contradict one another.
    pub(crate) fn finish_sync(&mut self, progress: &mut Vec<Progress>) -> Result<(), String> {
        let to = self.syncing_to.take().expect("a sync was started");
        while self.first < to {
            let item = self.queue.pop_front().expect("what is synced is in the queue");
            self.first += 1;
            add(&mut self.synced, &item)?;
            note(progress, &item, true);
        }
        Ok(())
    }

    /// The node stops. What is left is what it will find.
    ///
    /// # Errors
    ///
    /// If the records contradict one another.
    pub(crate) fn stop(&mut self, how: Stop, random: &mut Random) -> Result<(), String> {
        let issued = self.writing_to.take().unwrap_or(self.written_to);
        self.syncing_to = None;
        let kept_at_least = if how == Stop::Process { self.written_to } else { self.first };
        let kept = random.between(kept_at_least, issued);
        while self.first < kept {
            let item = self.queue.pop_front().expect("what is kept is in the queue");
            self.first += 1;
            add(&mut self.synced, &item)?;
        }
        if kept < issued && random.coin() {
            let torn = self.queue.pop_front().expect("what was issued is in the queue");
            if let Some(item) = tear(torn, random) {
                add(&mut self.synced, &item)?;
            }
        }
        self.queue.clear();
        self.written_to = self.first;
        self.written.clone_from(&self.synced);
        Ok(())
    }

    /// What counts as durable.
    pub(crate) fn image(&self, group: usize, durability: Durability) -> Option<&Image> {
        match durability {
            Durability::Fsync => self.synced[group].as_ref(),
            Durability::Memory => self.written[group].as_ref(),
        }
    }
}

fn add(images: &mut [Option<Image>], item: &Item) -> Result<(), String> {
    match &mut images[item.group] {
        Some(image) if image.replica == item.replica => image.add(&item.record),
        _ => Ok(()),
    }
}

fn note(progress: &mut Vec<Progress>, item: &Item, is_synced: bool) {
    let (group, replica) = (item.group, item.replica);
    progress.push(match &item.record {
        Record::Write(write) if is_synced => Progress::Synced { group, replica, number: write.number },
        Record::Write(write) => Progress::Written { group, replica, number: write.number },
        Record::Mark(snapshot) if is_synced => {
            Progress::Marked { group, replica, snapshot: snapshot.clone() }
        }
        Record::Mark(_) | Record::Committed(_) => return,
    });
}

/// The beginning of a record, if it has one that can be told from damage.
fn tear(item: Item, random: &mut Random) -> Option<Item> {
    let Record::Write(write) = item.record else { return None };
    let parts = usize::from(write.hard_state.is_some()) + write.entries.len();
    let mut kept = random.index(parts);
    if kept == 0 {
        return None;
    }
    if write.hard_state.is_some() {
        kept -= 1;
    }
    let entries = write.entries[..kept].to_vec();
    Some(Item {
        record: Record::Write(Write { number: write.number, hard_state: write.hard_state, entries }),
        ..item
    })
}
