//! The `cluster` file in the journal's directory: that the directory belongs to a cluster, as which node, and the whole of
//! the meta group's replica.
//!
//! It is small, and replaced as a whole. Numbers are little-endian:
//!
//! ```text
//! offset  magic                  [8]  "DUVACLU\n"
//!      8  version                u16  1
//!     10  flags                  u16  1: the shards' logs are still to be made this node's alone; see `recover`
//!                                     2: there are kept replicas
//!     12  CRC32C                 u32  of the whole file, this field as zero
//!     16  length                 u32  of the whole file
//!     20  own node number        u32
//!     24  cluster                [16]
//!     40  term                   u64
//!     48  vote                   u64  0: none
//!     56  snapshot's index       u64  0: the state at the group's birth
//!     64  snapshot's term        u64
//!     72  membership             length u32, bytes as raft::Membership::encode
//!         state at the snapshot  length u32, bytes as MetaState::encode
//!         entries                number u32, entries; their indexes follow the snapshot's
//!         kept replicas          number u32, for each: shard u16, replica u64; in order of their shards
//! entry   term u64, timestamp u64, seed u64, kind u8 (0 Empty, 1 Membership, 2 Data), tag u8 (0 unless Data),
//!         length u32, payload
//! ```

use duva_raft::{Entry, EntryKind, HardState, Membership, ReplicaId, SnapshotMeta};

use super::{
    DecodeError,
    bytes::{Reader, length_of, put_bytes},
    meta::MetaState,
    node_of,
};

/// The file's name in the journal's directory.
pub const CLUSTER_FILE_NAME: &str = "cluster";

const MAGIC: [u8; 8] = *b"DUVACLU\n";
const VERSION: u16 = 1;
/// The flag of [`ClusterFile::is_recovering`].
const RECOVERING: u16 = 1;
/// The flag of [`ClusterFile::kept`].
const KEEPS: u16 = 1 << 1;
const CRC_AT: usize = 12;
const LENGTH_AT: usize = 16;
/// Bytes of an entry without its payload.
const ENTRY_BYTES: usize = 8 + 8 + 8 + 1 + 1 + 4;
/// Bytes of a kept replica.
const KEPT_BYTES: usize = 2 + 8;

/// What the file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterFile {
    /// The own node's number.
    pub number: u32,
    /// Whether the node has been made the only one of a new cluster, and its shards' logs may not say so yet.
    pub is_recovering: bool,
    /// Names the cluster.
    pub cluster: [u8; 16],
    /// The meta group's term, and whom this replica voted for in it.
    pub hard_state: HardState,
    /// Where the meta group's log begins.
    pub snapshot: SnapshotMeta,
    /// The meta state at the snapshot.
    pub state: MetaState,
    /// The log behind the snapshot, without gaps.
    pub entries: Vec<Entry>,
    /// Shards and this node's replicas of them that the state does not name any more, and that have not ended: others may count on
    /// them.
    pub kept: Vec<(u16, ReplicaId)>,
}

impl ClusterFile {
    /// The file's bytes.
    ///
    /// # Panics
    ///
    /// Panics if the entries do not follow the snapshot without gaps, or all of it is beyond 4 GiB.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        let flags = if self.is_recovering { RECOVERING } else { 0 };
        let flags = if self.kept.is_empty() { flags } else { flags | KEEPS };
        bytes.extend_from_slice(&flags.to_le_bytes());
        // Checksum and length.
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(&self.number.to_le_bytes());
        bytes.extend_from_slice(&self.cluster);
        for number in [
            self.hard_state.term,
            self.hard_state.vote.map_or(0, |replica| replica.0),
            self.snapshot.index,
            self.snapshot.term,
        ] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        put_bytes(&self.snapshot.membership.encode(), &mut bytes);
        put_bytes(&self.state.encode(), &mut bytes);
        bytes.extend_from_slice(&length_of(self.entries.len()).to_le_bytes());
        for (index, entry) in (self.snapshot.index + 1..).zip(&self.entries) {
            assert_eq!(entry.index, index, "entries follow the snapshot");
            for number in [entry.term, entry.timestamp_ms, entry.seed] {
                bytes.extend_from_slice(&number.to_le_bytes());
            }
            bytes.extend_from_slice(&match entry.kind {
                EntryKind::Empty => [0, 0],
                EntryKind::Membership => [1, 0],
                EntryKind::Data(tag) => [2, tag],
            });
            put_bytes(&entry.payload, &mut bytes);
        }
        if !self.kept.is_empty() {
            bytes.extend_from_slice(&length_of(self.kept.len()).to_le_bytes());
            for (shard, replica) in &self.kept {
                bytes.extend_from_slice(&shard.to_le_bytes());
                bytes.extend_from_slice(&replica.0.to_le_bytes());
            }
        }
        let length = length_of(bytes.len());
        bytes[LENGTH_AT..LENGTH_AT + 4].copy_from_slice(&length.to_le_bytes());
        let crc = crc32c::crc32c(&bytes);
        bytes[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads what [`Self::encode`] wrote, and nothing else.
    ///
    /// # Errors
    ///
    /// The bytes are not such a file, not a whole one, or damaged, or contradict themselves.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::of_file(bytes, MAGIC, VERSION)?;
        let flags = reader.u16()?;
        let (crc, length) = (reader.u32()?, reader.u32()? as usize);
        if bytes.len() != length {
            return Err(if bytes.len() < length { DecodeError::Short } else { DecodeError::Long });
        }
        let summed = crc32c::crc32c_append(crc32c::crc32c(&bytes[..CRC_AT]), &[0; 4]);
        if crc32c::crc32c_append(summed, &bytes[CRC_AT + 4..]) != crc {
            return Err(DecodeError::Checksum);
        }
        let (number, cluster) = (reader.u32()?, reader.array()?);
        let (term, vote) = (reader.u64()?, reader.u64()?);
        let hard_state = HardState { term, vote: (vote != 0).then_some(ReplicaId(vote)) };
        let (index, snapshot_term) = (reader.u64()?, reader.u64()?);
        let membership = Membership::decode(reader.bytes()?)
            .map_err(|_| DecodeError::Invalid("the meta group's membership is none"))?;
        let snapshot = SnapshotMeta { index, term: snapshot_term, membership };
        let state = MetaState::decode(reader.bytes()?)?;
        let count = reader.count(ENTRY_BYTES)?;
        let mut entries: Vec<Entry> = Vec::with_capacity(count);
        for nth in 1..=count as u64 {
            let index = index.checked_add(nth).ok_or(DecodeError::Invalid("the log is too long"))?;
            entries.push(decode_entry(index, &mut reader)?);
        }
        let mut kept = Vec::new();
        if flags & KEEPS != 0 {
            for _ in 0..reader.count(KEPT_BYTES)? {
                kept.push((reader.u16()?, ReplicaId(reader.u64()?)));
            }
            let is_own =
                |&(shard, replica): &(u16, ReplicaId)| shard < state.shards && node_of(replica) == number;
            if kept.is_empty()
                || !kept.iter().all(is_own)
                || !kept.is_sorted_by(|one: &(u16, ReplicaId), next| one.0 < next.0)
            {
                return Err(DecodeError::Invalid("the kept replicas are none of this node's"));
            }
        }
        reader.end()?;
        if flags & !(RECOVERING | KEEPS) != 0 || number == 0 || cluster != state.cluster {
            return Err(DecodeError::Invalid("the node or its cluster is not the one that the state knows"));
        }
        let terms = || std::iter::once(snapshot_term).chain(entries.iter().map(|entry| entry.term));
        if !terms().is_sorted() || terms().any(|entry_term| entry_term > term) {
            return Err(DecodeError::Invalid("the terms of the log are not in order"));
        }
        let is_recovering = flags & RECOVERING != 0;
        Ok(Self { number, is_recovering, cluster, hard_state, snapshot, state, entries, kept })
    }
}

fn decode_entry(index: u64, reader: &mut Reader<'_>) -> Result<Entry, DecodeError> {
    let (term, timestamp_ms, seed) = (reader.u64()?, reader.u64()?, reader.u64()?);
    let kind = match (reader.u8()?, reader.u8()?) {
        (0, 0) => EntryKind::Empty,
        (1, 0) => EntryKind::Membership,
        (2, tag) => EntryKind::Data(tag),
        _ => return Err(DecodeError::Invalid("no entry is of this kind")),
    };
    let payload = reader.bytes()?.into();
    Ok(Entry { index, term, timestamp_ms, seed, kind, payload })
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            GENESIS_REPLICA,
            meta::{MetaCommand, NodeInfo},
            replica,
        },
        *,
    };

    fn example() -> ClusterFile {
        // As the bytes below have them.
        let node = |id| NodeInfo {
            host: "10.0.0.1".to_owned(),
            port: 6379,
            peer_port: 16379,
            ..NodeInfo::example(id)
        };
        let state = MetaState::genesis(*b"cluster 89abcdef", 2, 0x0102_0304_0506_0708, 3, node(0xAA));
        let membership = Membership::new(&[GENESIS_REPLICA], &[replica(2, 2)]).unwrap();
        let entry = |index, term, kind, payload: &[u8]| Entry {
            index,
            term,
            timestamp_ms: 1_700_000_000_000,
            seed: 5,
            kind,
            payload: payload.into(),
        };
        ClusterFile {
            number: 1,
            is_recovering: false,
            cluster: state.cluster,
            hard_state: HardState { term: 4, vote: Some(GENESIS_REPLICA) },
            entries: vec![
                entry(8, 3, EntryKind::Empty, b""),
                entry(9, 3, EntryKind::Membership, &membership.encode()),
                entry(10, 4, EntryKind::Data(7), &MetaCommand::AddNode(node(0xBB)).encode()),
            ],
            snapshot: SnapshotMeta { index: 7, term: 2, membership },
            state,
            kept: Vec::new(),
        }
    }

    /// With the checksum and the length made right.
    fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
        let length = bytes.len() as u32;
        bytes[LENGTH_AT..LENGTH_AT + 4].copy_from_slice(&length.to_le_bytes());
        bytes[CRC_AT..CRC_AT + 4].fill(0);
        let crc = crc32c::crc32c(&bytes);
        bytes[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    #[test]
    fn the_bytes_are_those_of_version_1() {
        let hex: String = example().encode().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, GOLDEN);
    }

    const GOLDEN: &str = "\
        44555641434c550a010000001f3f3ba65601000001000000636c75737465722038396162636465660400000000000000\
        010000000100000007000000000000000200000000000000130000000101000000010000000001020000000200000063\
        00000001636c757374657220383961626364656602000807060504030201030100000000000000020000000200000001\
        00000001000000aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaeb18fb3f0831302e302e302e31010100000001000000010100\
        0000010000000300000003000000000000000068e5cf8b01000005000000000000000000000000000300000000000000\
        0068e5cf8b01000005000000000000000100130000000101000000010000000001020000000200000004000000000000\
        000068e5cf8b010000050000000000000002071f0000000101bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbeb18fb3f083130\
        2e302e302e31";

    #[test]
    fn bytes_come_back() {
        let mut file = example();
        assert_eq!(ClusterFile::decode(&file.encode()).as_ref(), Ok(&file));
        file.hard_state.vote = None;
        file.is_recovering = true;
        file.entries.clear();
        assert_eq!(ClusterFile::decode(&file.encode()).as_ref(), Ok(&file));
        file.kept = vec![(0, replica(1, 7)), (1, replica(1, 3))];
        let list =
            [&[2, 0, 0, 0, 0, 0, 7, 0, 0, 0, 1, 0, 0, 0][..], &[1, 0, 3, 0, 0, 0, 1, 0, 0, 0]].concat();
        assert!(file.encode().ends_with(&list) && file.encode()[10] == 3);
        assert_eq!(ClusterFile::decode(&file.encode()).as_ref(), Ok(&file));
        for wrong in [vec![(0, replica(2, 7))], vec![(2, replica(1, 7))], vec![(1, replica(1, 7)); 2]] {
            let file = ClusterFile { kept: wrong, ..file.clone() };
            assert!(
                matches!(ClusterFile::decode(&file.encode()), Err(DecodeError::Invalid(_))),
                "{:?}",
                file.kept
            );
        }
    }

    #[test]
    fn damage_is_found_wherever_it_is() {
        let bytes = example().encode();
        for end in 0..bytes.len() {
            assert_eq!(ClusterFile::decode(&bytes[..end]), Err(DecodeError::Short), "{end}");
        }
        let mut long = bytes.clone();
        long.push(0);
        assert_eq!(ClusterFile::decode(&long), Err(DecodeError::Long));
        for place in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[place] ^= 1 << bit;
                assert!(ClusterFile::decode(&damaged).is_err(), "byte {place}, bit {bit}");
            }
        }
    }

    /// Whoever makes the checksum right gets an error, or a file that says the same again, but no panic.
    #[test]
    fn hostile_bytes_give_an_error_or_a_file() {
        let bytes = example().encode();
        let mut accepted = 0;
        for place in 20..bytes.len() {
            for value in [0, 1, 0x7F, 0x80, 0xFF] {
                let mut hostile = bytes.clone();
                hostile[place] = value;
                if let Ok(file) = ClusterFile::decode(&sealed(hostile.clone())) {
                    assert_eq!(file.encode(), sealed(hostile), "byte {place}: {value}");
                    accepted += 1;
                }
            }
        }
        assert!(accepted > 0);
        for end in 20..bytes.len() {
            assert!(ClusterFile::decode(&sealed(bytes[..end].to_vec())).is_err(), "{end}");
        }
    }

    #[test]
    fn contradictions_are_refused() {
        let refused = |change: &dyn Fn(&mut ClusterFile)| {
            let mut file = example();
            change(&mut file);
            assert!(matches!(ClusterFile::decode(&file.encode()), Err(DecodeError::Invalid(_))), "{file:?}");
        };
        refused(&|file| file.number = 0);
        refused(&|file| file.cluster = [0; 16]);
        refused(&|file| file.hard_state.term = 3);
        refused(&|file| file.entries[2].term = 2);
        refused(&|file| file.snapshot.term = 4);
        let mut flags = example().encode();
        flags[10] = 4;
        assert!(matches!(ClusterFile::decode(&sealed(flags)), Err(DecodeError::Invalid(_))));
        let mut version = example().encode();
        version[8] = 2;
        assert_eq!(ClusterFile::decode(&sealed(version)), Err(DecodeError::Version(2)));
        let mut magic = example().encode();
        magic[0] = b'd';
        assert_eq!(ClusterFile::decode(&sealed(magic)), Err(DecodeError::Magic));
    }
}
