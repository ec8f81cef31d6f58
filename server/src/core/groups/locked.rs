//! Requests for keys that commands over several shards have locked, and what becomes of such commands without their coordinators.
//!
//! Invariants:
//!
//! - **No read is served of a locked key**, at whatever level, and **no write of one takes effect**: where a write's entry comes
//!   behind the entry that locked its key, no replica executes it, and who proposed it proposes it anew once the key is
//!   free. It was not executed before, so it takes effect once.
//! - A whole shard's command (FLUSHALL) waits for every lock of the shard; while one waits, nothing more is prepared there.
//! - **No deadlock**: what waits here and may hold something elsewhere, a preparation, is older than all who hold what it waits for, or
//!   waits for a moment only, since most locks last no longer, and is refused then. Everything else holds nothing.
//! - What waits here does so for a bounded time, then gets an error: it was not executed.
//! - What is prepared, or committed and not confirmed, for too long is brought to its end by its shard's leader.

use std::collections::BTreeMap;

use duva_engine::{
    TransactionName,
    command::{
        Flags,
        transaction::{is_transaction, subject},
    },
};
use duva_raft::Role;

use super::{
    Asked, Group, Groups,
    propose::{Course, OVERTAKEN},
};
use crate::core::{
    node::{Node, Origin},
    request::{OwnedRequest, Request},
    spread::Recovery,
};

/// How long a request waits for a key, in nanoseconds; a preparation that is older than who holds it; and one that is not.
pub(super) const LOCK_PATIENCE_NS: u64 = 3_000_000_000;
const OLDER_PATIENCE_NS: u64 = 500_000_000;
const YOUNGER_PATIENCE_NS: u64 = 20_000_000;

/// How often transactions are looked at, and how old one is that is brought to its end, in nanoseconds.
pub(super) const CHECK_NS: u64 = 250_000_000;
const OLD_NS: u64 = 1_000_000_000;

/// How many are brought to their end at once, a shard.
const RECOVERIES_MAX: usize = 64;

/// What a request gets whose key stays locked.
const STILL_LOCKED: &str =
    "CLUSTERDOWN A command over several shards that has not ended holds the key; nothing was executed";

/// What a preparation gets that has to begin again.
pub(super) const REFUSED: &str = "REFUSED another command over several shards holds one of the keys";

/// A request that waits for its keys.
pub(super) struct Locked {
    asked: Asked,
    request: Box<OwnedRequest>,
    deadline_ns: u64,
}

impl Locked {
    /// Whether a request must not pass this one: it is, or may be, of the same connection.
    fn is_before(&self, asked: &Asked, request: &Request<'_>) -> bool {
        if self.asked.order > asked.order {
            return false;
        }
        // What concerns all keys is behind everything, and in front of it.
        if self.request.keys.is_empty() || request.keys.is_empty() {
            return true;
        }
        if let (Origin::Peer { node, .. }, Origin::Peer { node: other, .. }) =
            (&self.asked.origin, &asked.origin)
        {
            // Connections of other nodes are not known: what their requests share are keys.
            return node == other && self.request.keys.iter().any(|key| request.keys.contains(key));
        }
        self.asked.origin.is_of_same_connection(&asked.origin)
    }
}

/// Whether a request may go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Bar {
    Open,
    /// It has to wait, for so many nanoseconds at most.
    Waits(u64),
    Refused,
}

impl Node {
    /// Whether a request may have to wait for locks: most have not.
    #[inline]
    pub(super) fn may_be_barred(&self, group: &Group) -> bool {
        !group.locked.is_empty() || self.has_locks(group.shard)
    }

    #[inline]
    fn has_locks(&self, shard: u16) -> bool {
        let shards = &self.executor.shards;
        let slot = shards.slots_of(usize::from(shard)).start;
        shards.get(slot).is_some_and(|shard| shard.transactions().has_locks())
    }

    /// Whether a request of clients finds one of its keys locked.
    #[inline]
    pub(super) fn finds_locked(&self, shard: u16, request: &Request<'_>) -> bool {
        if is_transaction(request.command) || !self.has_locks(shard) {
            return false;
        }
        self.finds_some_locked(shard, request)
    }

    #[cold]
    fn finds_some_locked(&self, shard: u16, request: &Request<'_>) -> bool {
        let shards = &self.executor.shards;
        let slot = shards.slots_of(usize::from(shard)).start;
        let Some(state) = shards.get(slot).map(|shard| shard.transactions()) else { return false };
        if state.locks(request.keys) {
            return true;
        }
        let hasher = &self.executor.hasher;
        duva_engine::command::transaction::internal(request.command.name.as_bytes()).is_some_and(|command| {
            let argument = |index: usize| argument(request, index);
            let (_, names) = subject(command, request.ranges.len(), argument);
            names.into_iter().any(|name| state.holder(hasher.key(name)).is_some())
        })
    }

    /// Whether a request that the leader has been sent may go on.
    #[cold]
    pub(super) fn bar(&self, group: &Group, asked: &Asked, request: &Request<'_>) -> Bar {
        if !is_transaction(request.command) {
            let is_behind =
                asked.is_ordered && group.locked.iter().any(|locked| locked.is_before(asked, request));
            return if is_behind || self.finds_locked(group.shard, request) {
                Bar::Waits(LOCK_PATIENCE_NS)
            } else {
                Bar::Open
            };
        }
        let argument = |index: usize| argument(request, index);
        let (name, names) = subject(request.command, request.ranges.len(), argument);
        let (Some(name), false) = (name, names.is_empty()) else { return Bar::Open };
        let waits_for_all = |locked: &Locked| {
            locked.request.keys.is_empty() && locked.request.command.flags.contains(Flags::WRITE)
        };
        if group.locked.iter().any(waits_for_all) {
            return Bar::Refused;
        }
        let shards = &self.executor.shards;
        let slot = shards.slots_of(usize::from(group.shard)).start;
        let Some(state) = shards.get(slot).map(|shard| shard.transactions()) else { return Bar::Open };
        let holders = names.into_iter().filter_map(|key| state.holder(self.executor.hasher.key(key)));
        let are_younger = holders.map(|holder| name.is_older(holder)).reduce(|all, is| all && is);
        are_younger.map_or(Bar::Open, |are_younger| {
            Bar::Waits(if are_younger { OLDER_PATIENCE_NS } else { YOUNGER_PATIENCE_NS })
        })
    }

    /// Lets what waited for keys that were unlocked go on once the group is back in its place; everything, where this
    /// replica does not lead.
    pub(super) fn release_locked(&mut self, groups: &mut Groups, group: &mut Group) {
        if group.locked.is_empty() {
            return;
        }
        let slot = self.executor.shards.slots_of(usize::from(group.shard)).start;
        let unlocks = self.executor.shards.of(slot).transactions().unlocks();
        let leads = group.raft.role() == Role::Leader && group.raft.transfer_target().is_none();
        let may_go_on = !leads || unlocks != group.seen_unlocks || !self.has_locks(group.shard);
        group.seen_unlocks = unlocks;
        if may_go_on {
            groups.unlocked.extend(group.locked.drain(..).map(|locked| (group.shard, locked)));
        }
    }

    /// Goes on with what waited for keys.
    pub(super) fn serve_unlocked(&mut self, groups: &mut Groups) {
        for (shard, mut locked) in std::mem::take(&mut groups.unlocked) {
            groups.waiting_bytes -= locked.request.kept_bytes();
            let asked = locked.asked;
            let mut request = locked.request.view();
            match self.lead(groups, shard, asked, &mut request) {
                Course::Execute => self.execute_waiting(asked, &mut request),
                Course::Waiting => {}
                Course::Error(error) => self.respond_error(asked.origin, error),
                Course::Lost => self.send_locked_on(groups, shard, asked, &mut request),
            }
        }
    }

    fn send_locked_on(&mut self, groups: &mut Groups, shard: u16, asked: Asked, request: &mut Request<'_>) {
        if let Origin::Peer { node, id, .. } = asked.origin {
            self.refuse_forward(groups, node, shard, id);
        } else {
            groups.keep(shard, asked, request);
        }
    }

    /// A replica ends: what waits here goes where its shard is led.
    pub(super) fn give_locked_of(&mut self, groups: &mut Groups, group: &mut Group) {
        for mut locked in std::mem::take(&mut group.locked) {
            groups.waiting_bytes -= locked.request.kept_bytes();
            self.send_locked_on(groups, group.shard, locked.asked, &mut locked.request.view());
        }
    }

    /// Ends the patience of what waits for keys.
    pub(super) fn give_locked_up(&mut self, groups: &mut Groups) {
        for place in 0..groups.by_shard.len() {
            let mut given_up = Vec::new();
            while let Some(group) = &mut groups.by_shard[place]
                && let Some(at) = group.locked.iter().position(|it| it.deadline_ns <= groups.now_ns)
                && let Some(locked) = group.locked.remove(at)
            {
                groups.waiting_bytes -= locked.request.kept_bytes();
                let error = if is_transaction(locked.request.command) { REFUSED } else { STILL_LOCKED };
                self.respond_error(locked.asked.origin, error);
                given_up.push(locked);
            }
            // What waited behind it may go on.
            let Some(group) = groups.by_shard[place].as_mut().filter(|_| !given_up.is_empty()) else {
                continue;
            };
            for mut locked in std::mem::take(&mut group.locked) {
                let (asked, request) = (locked.asked, locked.request.view());
                if given_up.iter().any(|before| before.is_before(&asked, &request)) {
                    groups.unlocked.push((group.shard, locked));
                } else {
                    group.locked.push_back(locked);
                }
            }
        }
    }

    /// A write was executed: what its connection asked for before, of the same keys, and waits for them, would undo it.
    pub(super) fn end_passed(
        &mut self,
        groups: &mut Groups,
        group: &mut Group,
        by: &Asked,
        request: &Request<'_>,
    ) {
        let is_passed = |locked: &Locked| {
            locked.is_before(by, request) && locked.request.keys.iter().any(|key| request.keys.contains(key))
        };
        while let Some(place) = group.locked.iter().position(is_passed)
            && let Some(passed) = group.locked.remove(place)
        {
            groups.waiting_bytes -= passed.request.kept_bytes();
            self.respond_error(passed.asked.origin, OVERTAKEN);
        }
    }

    /// Brings what is too old to its end, where this core leads.
    pub(super) fn end_old_transactions(&mut self, groups: &mut Groups) {
        if groups.transactions_ns > groups.now_ns {
            return;
        }
        groups.transactions_ns = u64::MAX;
        let now_ns = groups.now_ns;
        for group in groups.by_shard.iter_mut().flatten() {
            let shards = &self.executor.shards;
            let slot = shards.slots_of(usize::from(group.shard)).start;
            let state = shards.get(slot).map(|shard| shard.transactions());
            let Some(state) = state.filter(|state| !state.is_empty()) else {
                group.ages.clear();
                continue;
            };
            if group.raft.role() != Role::Leader {
                group.ages.clear();
                continue;
            }
            groups.transactions_ns = now_ns + CHECK_NS;
            let shard = group.shard;
            let asked =
                state.prepared().map(|(name, part)| (name, Recovery::Ask { shard, first: part.first }));
            let told = state
                .committed()
                .map(|(name, others)| (name, Recovery::Tell { shard, others: others.to_vec() }));
            let found: BTreeMap<TransactionName, Recovery> = asked.chain(told).collect();
            group.ages.retain(|name, _| found.contains_key(name));
            let mut due = Vec::new();
            for (name, recovery) in found {
                let since_ns = *group.ages.entry(name).or_insert(now_ns);
                if now_ns >= since_ns + OLD_NS {
                    due.push((since_ns, name, recovery));
                }
            }
            // Those that have waited for longest first: some may never come to an end.
            due.sort_unstable_by_key(|&(since_ns, name, _)| (since_ns, name));
            for (_, name, recovery) in due.into_iter().take(RECOVERIES_MAX) {
                group.ages.insert(name, now_ns);
                self.begin_recovery(name, recovery, now_ns);
            }
        }
    }
}

impl Groups {
    /// Keeps a request until its keys are free, in front of what came later.
    pub(super) fn keep_locked(
        &mut self,
        group: &mut Group,
        mut asked: Asked,
        request: Box<OwnedRequest>,
        patience_ns: u64,
    ) {
        // However often it is kept, its patience is one.
        asked.lock_until_ns = asked.lock_until_ns.min(self.now_ns + patience_ns);
        let deadline_ns = asked.deadline_ns.min(asked.lock_until_ns);
        self.patience_ns = self.patience_ns.min(deadline_ns);
        self.waiting_bytes += request.kept_bytes();
        let place = group.locked.iter().rposition(|other| other.asked.order < asked.order);
        group.locked.insert(place.map_or(0, |last| last + 1), Locked { asked, request, deadline_ns });
    }

    /// The same, of a request for a group that is in its place.
    pub(super) fn wait_for_keys(
        &mut self,
        shard: u16,
        asked: Asked,
        request: &mut Request<'_>,
        patience_ns: u64,
    ) {
        let Some(mut group) = self.by_shard[usize::from(shard)].take() else { return };
        let request = Box::new(request.to_owned());
        self.keep_locked(&mut group, asked, request, patience_ns);
        self.by_shard[usize::from(shard)] = Some(group);
    }

    /// When the first request's patience ends that waits for keys.
    pub(super) fn locked_deadline_ns(&self) -> Option<u64> {
        let locked = self.by_shard.iter().flatten().flat_map(|group| &group.locked);
        locked.map(|locked| locked.deadline_ns).min()
    }
}

fn argument<'a>(request: &'a Request<'_>, index: usize) -> &'a [u8] {
    let (offset, length) = request.ranges[index];
    if offset == duva_engine::LARGE_ARGUMENT {
        &request.large[length as usize]
    } else {
        &request.bytes[offset as usize..offset as usize + length as usize]
    }
}
