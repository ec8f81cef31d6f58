//! The state of every shard on the core: what all records so far come to, as the next segment's header will say it.

use zerocopy::{
    FromBytes, IntoBytes,
    little_endian::{U16, U32, U64},
};

use crate::{
    format::{Kind, MembershipHeader, ShardState},
    record::Record,
};

/// Stands for a shard that is not on this core.
const ABSENT: u16 = u16::MAX;

/// The shards' states, in order of shard.
pub(super) struct States {
    states: Vec<ShardState>,
    /// Beside each state: the shard's membership, empty if it has none.
    memberships: Vec<Vec<u8>>,
    /// Where each shard's state is, by shard.
    places: Vec<u16>,
}

impl States {
    /// # Panics
    ///
    /// Panics if a shard occurs twice.
    pub(super) fn new(mut states: Vec<ShardState>) -> Self {
        states.sort_by_key(|state| state.shard.get());
        let memberships = vec![Vec::new(); states.len()];
        let mut new = Self { states, memberships, places: Vec::new() };
        new.index();
        new
    }

    pub(super) fn all(&self) -> &[ShardState] {
        &self.states
    }

    /// # Panics
    ///
    /// Panics if the shard is not on this core.
    #[inline]
    pub(super) fn state_mut(&mut self, shard: u16) -> &mut ShardState {
        let place = self.place(shard);
        &mut self.states[place]
    }

    pub(super) fn membership_mut(&mut self, shard: u16) -> &mut Vec<u8> {
        let place = self.place(shard);
        &mut self.memberships[place]
    }

    pub(super) fn add(&mut self, state: ShardState, membership: Vec<u8>) {
        let shard = state.shard.get();
        let place = self.states.partition_point(|other| other.shard.get() < shard);
        self.states.insert(place, state);
        self.memberships.insert(place, membership);
        self.index();
    }

    pub(super) fn remove(&mut self, shard: u16) -> (ShardState, Vec<u8>) {
        let place = self.place(shard);
        let removed = (self.states.remove(place), self.memberships.remove(place));
        self.index();
        removed
    }

    /// Takes note of a record: what it says of its shard's log, its term and vote, or its snapshot.
    #[inline]
    pub(super) fn note(&mut self, record: &Record, payload: &[u8]) {
        if record.kind == Kind::Fragment {
            return;
        }
        let state = self.state_mut(record.shard);
        if record.in_log() {
            state.last_index = U64::new(record.index);
            state.last_term = U64::new(record.term);
            state.time_ms = U64::new(state.time_ms.get().max(record.timestamp_ms));
        } else if record.kind == Kind::HardState {
            state.term = U64::new(record.term);
            state.vote = U64::read_from_bytes(payload).expect("a hard state's payload is its vote");
        } else if record.kind == Kind::SnapshotMark {
            state.snapshot_index = U64::new(record.index);
            state.snapshot_term = U64::new(record.term);
        }
    }

    /// Bytes of all memberships with their headers.
    pub(super) fn membership_bytes(&self) -> usize {
        let held = self.memberships.iter().filter(|membership| !membership.is_empty());
        held.map(|membership| size_of::<MembershipHeader>() + membership.len()).sum()
    }

    /// Appends all states, then all memberships.
    pub(super) fn write(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(self.states.as_bytes());
        for (state, membership) in self.states.iter().zip(&self.memberships) {
            if membership.is_empty() {
                continue;
            }
            let len =
                U32::new(u32::try_from(membership.len()).expect("a membership fits a segment's header"));
            let header = MembershipHeader { shard: state.shard, reserved: U16::ZERO, len };
            bytes.extend_from_slice(header.as_bytes());
            bytes.extend_from_slice(membership);
        }
    }

    #[inline]
    fn place(&self, shard: u16) -> usize {
        match self.places.get(usize::from(shard)) {
            Some(&place) if place != ABSENT => usize::from(place),
            _ => panic!("shard {shard} is not on this core"),
        }
    }

    fn index(&mut self) {
        self.places.clear();
        for (place, state) in self.states.iter().enumerate() {
            let shard = usize::from(state.shard.get());
            assert!(shard >= self.places.len(), "shard {shard} has one state");
            self.places.resize(shard, ABSENT);
            self.places.push(u16::try_from(place).expect("there are fewer shards than slots"));
        }
    }
}
