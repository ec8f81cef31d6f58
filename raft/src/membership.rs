//! Who replicates a group, and what a majority of it is.
//!
//! A change of voters goes through a joint membership (thesis, section 4.3): majorities of the old and of the new
//! voters are needed until it is left. The new voters' list is [`Membership::voters`] throughout; the old one is
//! [`Membership::outgoing`] while the change lasts.

use crate::{
    ReplicaId,
    codec::{DecodeError, Reader},
};

/// Replicas in one list of a membership.
pub const MEMBERS_MAX: usize = 255;

/// Values that a majority's search sorts without allocating.
const VALUES_ON_STACK: usize = 16;

/// Who replicates a group. Lists are sorted, and no replica is a voter and a learner, except that one that is
/// only an outgoing voter may be a learner of the new membership.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// Who votes; while the membership is joint, the new voters.
    pub voters: Vec<ReplicaId>,
    /// While the membership is joint, the old voters; empty otherwise.
    pub outgoing: Vec<ReplicaId>,
    /// Who gets the log without a say.
    pub learners: Vec<ReplicaId>,
}

impl Membership {
    /// A membership that is not joint. `None` if it has no voter, or more than [`MEMBERS_MAX`] of a kind, or names a
    /// replica twice.
    pub fn new(voters: &[ReplicaId], learners: &[ReplicaId]) -> Option<Self> {
        let mut membership =
            Self { voters: voters.to_vec(), outgoing: Vec::new(), learners: learners.to_vec() };
        membership.voters.sort_unstable();
        membership.learners.sort_unstable();
        (!voters.is_empty() && membership.is_valid()).then_some(membership)
    }

    /// Whether a change of voters is under way.
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether the replica has a vote: an old or a new one.
    pub fn is_voter(&self, replica: ReplicaId) -> bool {
        self.voters.binary_search(&replica).is_ok() || self.outgoing.binary_search(&replica).is_ok()
    }

    /// Whether the replica gets the log.
    pub fn is_member(&self, replica: ReplicaId) -> bool {
        self.is_voter(replica) || self.learners.binary_search(&replica).is_ok()
    }

    /// Whether this replica is the only one whose vote counts.
    pub fn is_sole_voter(&self, replica: ReplicaId) -> bool {
        self.voters == [replica] && !self.is_joint()
    }

    /// All voters, old and new, each once: the new ones, then those that are only outgoing.
    pub fn all_voters(&self) -> impl Iterator<Item = ReplicaId> {
        let outgoing = self.outgoing.iter().filter(|replica| self.voters.binary_search(replica).is_err());
        self.voters.iter().chain(outgoing).copied()
    }

    /// All who get the log, each once: voters as in [`Self::all_voters`], then learners.
    pub fn members(&self) -> impl Iterator<Item = ReplicaId> {
        let learners = self.learners.iter().filter(|replica| self.outgoing.binary_search(replica).is_err());
        self.all_voters().chain(learners.copied())
    }

    /// What comes into force when this joint membership is left.
    pub fn left(&self) -> Self {
        Self { voters: self.voters.clone(), outgoing: Vec::new(), learners: self.learners.clone() }
    }

    /// As the payload of an entry of kind [`crate::EntryKind::Membership`]: for each of the three lists its length in
    /// one byte and its ids, little-endian.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.encoded_bytes());
        self.encode_into(&mut bytes);
        bytes
    }

    /// Reads what [`Self::encode`] wrote, and nothing else.
    ///
    /// # Errors
    ///
    /// The bytes end early or go on, or the lists are not as the type says.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let membership = Self::decode_from(&mut reader)?;
        if reader.is_empty() { Ok(membership) } else { Err(DecodeError::Invalid) }
    }

    pub(crate) fn encoded_bytes(&self) -> usize {
        3 + 8 * (self.voters.len() + self.outgoing.len() + self.learners.len())
    }

    pub(crate) fn encode_into(&self, bytes: &mut Vec<u8>) {
        for list in [&self.voters, &self.outgoing, &self.learners] {
            bytes.push(u8::try_from(list.len()).expect("a list is no longer than MEMBERS_MAX"));
            for replica in list {
                bytes.extend_from_slice(&replica.0.to_le_bytes());
            }
        }
    }

    pub(crate) fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let voters = decode_list(reader)?;
        let outgoing = decode_list(reader)?;
        let learners = decode_list(reader)?;
        let membership = Self { voters, outgoing, learners };
        if membership.is_valid() { Ok(membership) } else { Err(DecodeError::Invalid) }
    }

    /// Whether the lists are sorted and not too long, and nobody is in two that exclude each other.
    pub(crate) fn is_valid(&self) -> bool {
        let lists = [&self.voters, &self.outgoing, &self.learners];
        lists.iter().all(|list| list.len() <= MEMBERS_MAX && list.is_sorted_by(|a, b| a < b))
            && !self.learners.iter().any(|replica| self.voters.binary_search(replica).is_ok())
            && (self.outgoing.is_empty() || !self.voters.is_empty())
    }
}

fn decode_list(reader: &mut Reader<'_>) -> Result<Vec<ReplicaId>, DecodeError> {
    let count = usize::from(reader.u8()?);
    if reader.remaining() / 8 < count {
        return Err(DecodeError::Short);
    }
    (0..count).map(|_| reader.u64().map(ReplicaId)).collect()
}

/// How many of so many voters are a majority.
pub(crate) fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

/// The largest value that a majority of the voters has reached. Without voters nothing is reached: 0.
pub(crate) fn majority_value(voters: &[ReplicaId], value_of: impl Fn(ReplicaId) -> u64) -> u64 {
    if voters.len() <= VALUES_ON_STACK {
        let mut values = [0; VALUES_ON_STACK];
        kth_largest(&mut values[..voters.len()], voters, value_of)
    } else {
        kth_largest(&mut vec![0; voters.len()], voters, value_of)
    }
}

fn kth_largest(values: &mut [u64], voters: &[ReplicaId], value_of: impl Fn(ReplicaId) -> u64) -> u64 {
    for (value, &voter) in values.iter_mut().zip(voters) {
        *value = value_of(voter);
    }
    values.sort_unstable();
    // The majority-th largest value: so many voters are at or above it.
    if values.is_empty() { 0 } else { values[values.len() - majority(values.len())] }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(ids: &[u64]) -> Vec<ReplicaId> {
        ids.iter().copied().map(ReplicaId).collect()
    }

    fn joint(voters: &[u64], outgoing: &[u64], learners: &[u64]) -> Membership {
        Membership { voters: ids(voters), outgoing: ids(outgoing), learners: ids(learners) }
    }

    #[test]
    fn the_majority_has_reached_the_middle_value() {
        let reached = |values: &[u64]| {
            let voters = ids(&(0..values.len() as u64).collect::<Vec<_>>());
            majority_value(&voters, |voter| values[voter.0 as usize])
        };
        assert_eq!(reached(&[]), 0);
        assert_eq!(reached(&[7]), 7);
        assert_eq!(reached(&[7, 9]), 7);
        assert_eq!(reached(&[7, 9, 3]), 7);
        assert_eq!(reached(&[7, 9, 3, 8]), 7);
        assert_eq!(reached(&[1, 9, 3, 8, 8]), 8);
        let many: Vec<u64> = (0..33).collect();
        assert_eq!(reached(&many), 16);
    }

    #[test]
    fn members_and_voters_are_named_once() {
        let membership = joint(&[1, 2, 4], &[1, 2, 3], &[3, 5]);
        assert_eq!(membership.all_voters().collect::<Vec<_>>(), ids(&[1, 2, 4, 3]));
        assert_eq!(membership.members().collect::<Vec<_>>(), ids(&[1, 2, 4, 3, 5]));
        assert!(membership.is_voter(ReplicaId(3)) && !membership.left().is_voter(ReplicaId(3)));
        assert!(membership.left().is_member(ReplicaId(3)) && !membership.is_member(ReplicaId(6)));
    }

    #[test]
    fn a_sole_voter_may_have_learners_but_no_old_voters() {
        assert!(joint(&[1], &[], &[2]).is_sole_voter(ReplicaId(1)));
        assert!(!joint(&[1], &[1, 2], &[]).is_sole_voter(ReplicaId(1)));
        assert!(!joint(&[1, 2], &[], &[]).is_sole_voter(ReplicaId(1)));
        assert!(!joint(&[], &[], &[]).is_sole_voter(ReplicaId(1)));
    }

    #[test]
    fn lists_are_sorted_and_checked() {
        let membership = Membership::new(&ids(&[3, 1]), &ids(&[9, 4])).unwrap();
        assert_eq!(membership, joint(&[1, 3], &[], &[4, 9]));
        assert_eq!(Membership::new(&[], &ids(&[1])), None);
        assert_eq!(Membership::new(&ids(&[1, 1]), &[]), None);
        assert_eq!(Membership::new(&ids(&[1]), &ids(&[1])), None);
        assert_eq!(Membership::new(&ids(&(0..256).collect::<Vec<_>>()), &[]), None);
    }

    #[test]
    fn bytes_come_back() {
        for membership in [
            Membership::default(),
            joint(&[1], &[], &[]),
            joint(&[1, 2, u64::MAX], &[1, 5], &[5, 6]),
            joint(&(0..255).collect::<Vec<_>>(), &[], &[]),
        ] {
            let bytes = membership.encode();
            assert_eq!(bytes.len(), membership.encoded_bytes());
            assert_eq!(Membership::decode(&bytes), Ok(membership));
        }
    }

    #[test]
    fn bad_bytes_are_refused() {
        let bytes = joint(&[1, 2], &[3], &[4]).encode();
        for short in 0..bytes.len() {
            assert_eq!(Membership::decode(&bytes[..short]), Err(DecodeError::Short));
        }
        let mut long = bytes.clone();
        long.push(0);
        assert_eq!(Membership::decode(&long), Err(DecodeError::Invalid));
        for invalid in [
            joint(&[2, 1], &[], &[]),
            joint(&[1, 1], &[], &[]),
            joint(&[1], &[], &[1]),
            joint(&[], &[1], &[]),
        ] {
            assert_eq!(Membership::decode(&invalid.encode()), Err(DecodeError::Invalid));
        }
    }
}
