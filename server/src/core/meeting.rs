//! CLUSTER MEET, as far as the cores have to do with it: who asks waits for what a thread finds out, and a node that is to give up
//! its own cluster stops for that. Invariant: a node that has others enter its cluster does not enter one of theirs meanwhile, so
//! that no two nodes wait for each other.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use duva_net::io::Token;

use super::{node::Node, replies::Sequence};

/// Who has to be told what came of CLUSTER MEET.
#[derive(Clone, Copy, Debug)]
pub struct Asker {
    /// The core of the connection.
    pub core: usize,
    /// The connection.
    pub token: Token,
    /// Its reply slot.
    pub sequence: Sequence,
}

/// What the cores and the process share about meeting other clusters.
#[derive(Default)]
pub struct Meetings {
    /// Whether a thread is at it.
    is_busy: AtomicBool,
    /// What it found out: a whole reply.
    found: Mutex<Option<(Asker, String)>>,
    has_found: AtomicBool,
    /// A node of the cluster to join once the server has stopped.
    seed: Mutex<Option<String>>,
    /// Keys that cores held when they ended.
    keys_left: AtomicUsize,
}

impl Meetings {
    /// Lets one thread begin; false: another is at it, or the server is to join another cluster.
    pub fn begin(&self) -> bool {
        let seed = self.seed.lock().unwrap_or_else(PoisonError::into_inner);
        seed.is_none() && !self.is_busy.swap(true, Ordering::AcqRel)
    }

    /// The thread has found out what to answer; it ends.
    pub fn end(&self, asker: Asker, reply: String) {
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = Some((asker, reply));
        self.has_found.store(true, Ordering::Release);
    }

    /// What a connection of this core is to be answered.
    fn take_found(&self, core: usize) -> Option<(Asker, String)> {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = found.take_if(|(asker, _)| asker.core == core)?;
        self.has_found.store(false, Ordering::Release);
        self.is_busy.store(false, Ordering::Release);
        Some(taken)
    }

    /// The server is to join the cluster of this node once it has stopped; false: it is to join another, or tells other nodes to
    /// join its own, unless it is its own thread that wants this.
    pub fn set_seed(&self, seed: &str, is_own: bool) -> bool {
        let mut known = self.seed.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_some() || (!is_own && self.is_busy.load(Ordering::Acquire)) {
            return false;
        }
        *known = Some(seed.to_owned());
        true
    }

    /// The server is to stop for good.
    pub fn forget_seed(&self) {
        *self.seed.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Whether the server is to stop for another cluster.
    pub fn has_seed(&self) -> bool {
        self.seed.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Which cluster to join, now that the server has stopped, and how many keys it held.
    pub fn take_seed(&self) -> Option<(String, usize)> {
        let seed = self.seed.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        Some((seed, self.keys_left.load(Ordering::Acquire)))
    }
}

impl Node {
    /// Answers a connection of this core that waits for what came of CLUSTER MEET.
    #[cold]
    pub(super) fn answer_meeting(&mut self) {
        if !self.shared.meetings.has_found.load(Ordering::Acquire) {
            return;
        }
        if let Some((asker, reply)) = self.shared.meetings.take_found(self.core) {
            self.deliver(asker.token, asker.sequence, reply.as_bytes(), true);
        }
    }

    /// This core has ended: what it holds is what it will always hold.
    pub(super) fn note_keys_left(&self) {
        let shards = self.executor.shards.iter();
        let keys: usize = shards
            .map(|shard| {
                (0..duva_engine::DATABASE_COUNT).map(|number| shard.key_count(number)).sum::<usize>()
            })
            .sum();
        // A log that is not applied yet, or a snapshot that is not in memory, may hold keys as well.
        let hidden = usize::from(self.groups.as_ref().is_some_and(|groups| groups.has_more_than_memory()));
        self.shared.meetings.keys_left.fetch_add(keys + hidden, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_meets_others_is_taken_by_nobody_meanwhile() {
        let meetings = Meetings::default();
        assert!(meetings.begin());
        assert!(!meetings.begin());
        assert!(!meetings.set_seed("127.0.0.1:7001", false));
        assert!(meetings.set_seed("127.0.0.1:7001", true));
        assert_eq!(meetings.take_seed(), Some(("127.0.0.1:7001".to_owned(), 0)));
    }

    #[test]
    fn who_is_to_join_meets_nobody() {
        let meetings = Meetings::default();
        assert!(meetings.set_seed("127.0.0.1:7001", false));
        assert!(!meetings.set_seed("127.0.0.1:7002", false));
        assert!(!meetings.begin());
        meetings.forget_seed();
        assert_eq!(meetings.take_seed(), None);
        assert!(meetings.begin());
    }
}
