//! The `starts` file in the journal's directory: the last start that this node has seen of every other node. A directory that is an
//! older state of a node is told by it, after all nodes were started anew, too.
//!
//! It is a help and no promise: what was seen in the last moments before a crash may be missing, and a file that cannot be read
//! counts as none. It is replaced as a whole. Numbers are little-endian:
//!
//! ```text
//! offset  magic      [8]  "DUVASTA\n"
//!      8  version    u16  1
//!     10  spare      u16  0
//!     12  CRC32C     u32  of all that follows
//!     16  cluster    [16]
//!     32  starts     number u32, starts in the order of their nodes
//! start   node u32, life u64, epoch u64
//! ```

use std::collections::BTreeMap;

use super::{
    DecodeError,
    bytes::{Reader, length_of},
};

/// The file's name in the journal's directory.
pub const STARTS_FILE_NAME: &str = "starts";

const MAGIC: [u8; 8] = *b"DUVASTA\n";
const VERSION: u16 = 1;
/// Where the checked bytes begin.
const CHECKED_FROM: usize = 16;
const START_BYTES: usize = 4 + 8 + 8;

/// A start of a node, as its links say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastStart {
    /// Another one in every process.
    pub life: u64,
    /// The epoch of its directory: a greater one in every start of it.
    pub epoch: u64,
}

/// The last starts that were seen, by the nodes' numbers, which a cluster never gives twice.
pub type Starts = BTreeMap<u32, LastStart>;

/// The file's bytes.
pub fn encode<'a>(
    cluster: &[u8; 16],
    starts: impl ExactSizeIterator<Item = (&'a u32, &'a LastStart)>,
) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    // Spare, and the checksum.
    bytes.extend_from_slice(&[0; 6]);
    bytes.extend_from_slice(cluster);
    bytes.extend_from_slice(&length_of(starts.len()).to_le_bytes());
    for (node, LastStart { life, epoch }) in starts {
        bytes.extend_from_slice(&node.to_le_bytes());
        bytes.extend_from_slice(&life.to_le_bytes());
        bytes.extend_from_slice(&epoch.to_le_bytes());
    }
    let crc = crc32c::crc32c(&bytes[CHECKED_FROM..]);
    bytes[CHECKED_FROM - 4..CHECKED_FROM].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Reads what [`encode`] wrote for this cluster. What was seen in another one is nothing.
///
/// # Errors
/// The bytes are not such a file, not a whole one, or damaged.
pub fn decode(bytes: &[u8], cluster: &[u8; 16]) -> Result<Starts, DecodeError> {
    let mut reader = Reader::of_file(bytes, MAGIC, VERSION)?;
    let (_spare, crc) = (reader.u16()?, reader.u32()?);
    if crc32c::crc32c(&bytes[CHECKED_FROM..]) != crc {
        return Err(DecodeError::Checksum);
    }
    let seen_in: [u8; 16] = reader.array()?;
    let count = reader.count(START_BYTES)?;
    let mut starts = Starts::new();
    for _ in 0..count {
        let node = reader.u32()?;
        let start = LastStart { life: reader.u64()?, epoch: reader.u64()? };
        if starts.last_key_value().is_some_and(|(last, _)| *last >= node) {
            return Err(DecodeError::Invalid("the nodes are not in order"));
        }
        starts.insert(node, start);
    }
    reader.end()?;
    Ok(if seen_in == *cluster { starts } else { Starts::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: [u8; 16] = [7; 16];

    fn example() -> Starts {
        Starts::from([
            (2, LastStart { life: 1 << 60, epoch: 3 }),
            (5, LastStart { life: 9, epoch: u64::MAX }),
        ])
    }

    fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
        let crc = crc32c::crc32c(&bytes[CHECKED_FROM..]);
        bytes[CHECKED_FROM - 4..CHECKED_FROM].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    #[test]
    fn starts_come_back_in_their_cluster_alone() {
        let bytes = encode(&CLUSTER, example().iter());
        assert_eq!(decode(&bytes, &CLUSTER), Ok(example()));
        assert_eq!(decode(&bytes, &[8; 16]), Ok(Starts::new()));
        let none = encode(&CLUSTER, Starts::new().iter());
        assert_eq!(decode(&none, &CLUSTER), Ok(Starts::new()));
    }

    #[test]
    fn damage_and_hostile_bytes_give_an_error() {
        let bytes = encode(&CLUSTER, example().iter());
        for end in 0..bytes.len() {
            assert!(decode(&bytes[..end], &CLUSTER).is_err(), "{end}");
            if end >= CHECKED_FROM {
                assert!(decode(&sealed(bytes[..end].to_vec()), &CLUSTER).is_err(), "{end}");
            }
        }
        for place in (0..bytes.len()).filter(|place| !(10..12).contains(place)) {
            let mut damaged = bytes.clone();
            damaged[place] ^= 4;
            assert!(decode(&damaged, &CLUSTER).is_err(), "{place}");
        }
        let mut many = bytes.clone();
        many[32..36].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(decode(&sealed(many), &CLUSTER), Err(DecodeError::Short));
        assert_eq!(decode(&sealed([&bytes[..], b"x"].concat()), &CLUSTER), Err(DecodeError::Long));
        let mut twice = bytes.clone();
        twice[36 + START_BYTES] = 2;
        assert!(matches!(decode(&sealed(twice), &CLUSTER), Err(DecodeError::Invalid(_))));
        let mut other = bytes;
        other[8] = 2;
        assert_eq!(decode(&other, &CLUSTER), Err(DecodeError::Version(2)));
    }
}
