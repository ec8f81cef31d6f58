//! The manifest: who owns the data directory, and where every earlier journal ends.
//!
//! It is small, written whole beside the old one, synced and renamed over it. docs/format.md has it byte by byte.
//!
//! Invariants:
//!
//! - `epoch` is that of the running server, or the one that ran last: it grows at every start, durably, before anything
//!   is written to a journal of the new epoch.
//! - A start records a manifest twice. The first has no `starts`: the epoch is taken, and nothing of it is promised to
//!   anybody. The second names every journal of the epoch, each of which has its first segment with a header by then,
//!   durably. Only then is anything acknowledged, or anything earlier removed.
//! - Every journal of an earlier epoch that has a file has a cut. What lies at or behind the cut is dropped, valid or
//!   not, at this and every later recovery. As long as there are no `starts`, every journal with a cut has its files.

use std::fmt;

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    little_endian::{U16, U32, U64},
};

use crate::format::Position;

/// The version of the manifest that is written.
pub const MANIFEST_VERSION: u16 = 1;

const MAGIC: [u8; 8] = *b"DUVAMAN\n";
const HEADER_BYTES: usize = size_of::<Header>();
const ENTRY_BYTES: usize = size_of::<EntryBytes>();

/// What [`Header::flags`] may have.
const MUST_NOT_VOTE: u16 = 1;

/// What is true of a data directory as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Names the cluster.
    pub cluster: [u8; 16],
    /// Names the node.
    pub node: [u8; 16],
    /// The kernel's boot id when the epoch began.
    pub kernel_boot: [u8; 16],
    /// The seed of the hash that orders keys.
    pub hash_seed: u64,
    /// Which hash that is.
    pub hash_algorithm: u16,
    /// How many shards there are; never zero.
    pub shards: u16,
    /// The number of the server start.
    pub epoch: u64,
    /// Something acknowledged may be lost: the replicas here never vote again under their ids.
    pub must_not_vote: bool,
    /// The journals of this epoch, one for each core, once all of them are begun; none before.
    pub starts: Vec<Start>,
    /// Where the journals of earlier epochs end.
    pub cuts: Vec<Cut>,
    /// Where logs end of which a later part was given up.
    pub truncations: Vec<Truncation>,
}

/// The first segment of a core's journal. It, or a later one once it was trimmed, is there and has a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Start {
    /// The core.
    pub core: u16,
    /// The segment's sequence.
    pub sequence: u32,
}

/// Where the journal of a core and epoch ends. What lies at or behind it is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cut {
    /// The journal's epoch.
    pub epoch: u64,
    /// The journal's core.
    pub core: u16,
    /// The first byte that is dropped.
    pub end: Position,
}

/// A shard's records from a place on, up to the end of an epoch, are dropped: what came right before them was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Truncation {
    /// The shard.
    pub shard: u16,
    /// The first of them lies in a journal of this epoch,
    pub from_epoch: u64,
    /// in which the shard had changed its core so often,
    pub from_ownership: u32,
    /// at or behind this place.
    pub from: Position,
    /// The last epoch whose records are dropped.
    pub to_epoch: u64,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Header {
    magic: [u8; 8],
    format_version: U16,
    reader_version: U16,
    /// CRC32C of the whole manifest, this field as zero.
    crc: U32,
    /// Bytes of the whole manifest.
    len: U32,
    shards: U16,
    flags: U16,
    cluster: [u8; 16],
    node: [u8; 16],
    kernel_boot: [u8; 16],
    hash_seed: U64,
    epoch: U64,
    hash_algorithm: U16,
    reserved: U16,
    cuts: U32,
    truncations: U32,
    starts: U32,
}

/// A cut, a start or a truncation.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct EntryBytes {
    /// A cut's; a truncation's `from_epoch`; zero in a start.
    epoch: U64,
    /// A cut's end; a start's segment, offset 0; a truncation's `from`.
    position: U64,
    /// A truncation's `to_epoch`, otherwise zero.
    to_epoch: U64,
    /// A truncation's `from_ownership`, otherwise zero.
    ownership: U32,
    /// A cut's or start's core; a truncation's shard.
    owner: U16,
    reserved: U16,
}

const _: () = assert!(HEADER_BYTES == 104);
const _: () = assert!(ENTRY_BYTES == 32);
/// Where the checksum lies.
const CRC_AT: usize = core::mem::offset_of!(Header, crc);

impl Manifest {
    /// The bytes of the manifest's file.
    pub fn encode(&self) -> Vec<u8> {
        let count = |entries: usize| U32::new(u32::try_from(entries).expect("cuts are few"));
        let len = HEADER_BYTES + ENTRY_BYTES * (self.cuts.len() + self.truncations.len() + self.starts.len());
        let header = Header {
            magic: MAGIC,
            format_version: U16::new(MANIFEST_VERSION),
            reader_version: U16::new(MANIFEST_VERSION),
            crc: U32::ZERO,
            len: count(len),
            shards: U16::new(self.shards),
            flags: U16::new(if self.must_not_vote { MUST_NOT_VOTE } else { 0 }),
            cluster: self.cluster,
            node: self.node,
            kernel_boot: self.kernel_boot,
            hash_seed: U64::new(self.hash_seed),
            epoch: U64::new(self.epoch),
            hash_algorithm: U16::new(self.hash_algorithm),
            reserved: U16::ZERO,
            cuts: count(self.cuts.len()),
            truncations: count(self.truncations.len()),
            starts: count(self.starts.len()),
        };
        let mut bytes = Vec::with_capacity(len);
        bytes.extend_from_slice(header.as_bytes());
        let entry = |epoch, position: Position, owner| EntryBytes {
            epoch: U64::new(epoch),
            position: U64::new(position.0),
            to_epoch: U64::ZERO,
            ownership: U32::ZERO,
            owner: U16::new(owner),
            reserved: U16::ZERO,
        };
        let cuts = self.cuts.iter().map(|cut| entry(cut.epoch, cut.end, cut.core));
        let truncations = self.truncations.iter().map(|given_up| EntryBytes {
            to_epoch: U64::new(given_up.to_epoch),
            ownership: U32::new(given_up.from_ownership),
            ..entry(given_up.from_epoch, given_up.from, given_up.shard)
        });
        let starts = self.starts.iter().map(|start| entry(0, Position::new(start.sequence, 0), start.core));
        for entry in cuts.chain(truncations).chain(starts) {
            bytes.extend_from_slice(entry.as_bytes());
        }
        let crc = crc32c::crc32c(&bytes);
        bytes[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads the bytes of a manifest's file.
    pub fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        let (header, rest) = Header::ref_from_prefix(bytes).map_err(|_| ManifestError::NotAManifest)?;
        if header.magic != MAGIC {
            return Err(ManifestError::NotAManifest);
        }
        let crc = crc32c::crc32c(&bytes[..CRC_AT]);
        let crc = crc32c::crc32c_append(crc, &[0; 4]);
        let crc = crc32c::crc32c_append(crc, &bytes[CRC_AT + 4..]);
        if header.len.get() as usize != bytes.len() || header.crc.get() != crc {
            return Err(ManifestError::Damaged);
        }
        // In every version the fields up to the length lie here and mean the same.
        let reader_version = header.reader_version.get();
        if reader_version > MANIFEST_VERSION {
            return Err(ManifestError::Newer { reader_version });
        }
        let counts = [&header.cuts, &header.truncations, &header.starts].map(|count| count.get() as usize);
        let entries = <[EntryBytes]>::ref_from_bytes(rest).map_err(|_| ManifestError::Damaged)?;
        if counts.iter().try_fold(0_usize, |sum, count| sum.checked_add(*count)) != Some(entries.len()) {
            return Err(ManifestError::Damaged);
        }
        let (cuts, rest) = entries.split_at(counts[0]);
        let (truncations, starts) = rest.split_at(counts[1]);
        let manifest = Self {
            cluster: header.cluster,
            node: header.node,
            kernel_boot: header.kernel_boot,
            hash_seed: header.hash_seed.get(),
            hash_algorithm: header.hash_algorithm.get(),
            shards: header.shards.get(),
            epoch: header.epoch.get(),
            must_not_vote: header.flags.get() & MUST_NOT_VOTE != 0,
            starts: starts
                .iter()
                .map(|start| Start {
                    core: start.owner.get(),
                    sequence: Position(start.position.get()).sequence(),
                })
                .collect(),
            cuts: cuts
                .iter()
                .map(|cut| Cut {
                    epoch: cut.epoch.get(),
                    core: cut.owner.get(),
                    end: Position(cut.position.get()),
                })
                .collect(),
            truncations: truncations
                .iter()
                .map(|given_up| Truncation {
                    shard: given_up.owner.get(),
                    from_epoch: given_up.epoch.get(),
                    from_ownership: given_up.ownership.get(),
                    from: Position(given_up.position.get()),
                    to_epoch: given_up.to_epoch.get(),
                })
                .collect(),
        };
        manifest.check().map_err(ManifestError::Contradiction)?;
        Ok(manifest)
    }

    /// Whether the journals of this epoch are begun: until then none of them holds anything that counts.
    pub fn is_begun(&self) -> bool {
        !self.starts.is_empty()
    }

    /// The first segment of a core's journal of this epoch, if that is begun.
    pub fn start(&self, core: u16) -> Option<u32> {
        self.starts.iter().find(|start| start.core == core).map(|start| start.sequence)
    }

    /// The cut of a journal.
    pub fn cut(&self, epoch: u64, core: u16) -> Option<Position> {
        self.cuts.iter().find(|cut| cut.epoch == epoch && cut.core == core).map(|cut| cut.end)
    }

    /// What is impossible about it.
    fn check(&self) -> Result<(), &'static str> {
        if self.shards == 0 {
            return Err("it says that there are no shards");
        }
        if self.epoch == u64::MAX {
            return Err("no epoch can follow its own");
        }
        let mut cuts: Vec<_> = self.cuts.iter().map(|cut| (cut.epoch, cut.core)).collect();
        cuts.sort_unstable();
        if cuts.iter().any(|&(epoch, _)| epoch >= self.epoch) {
            return Err("it cuts a journal of its own epoch or a later one");
        }
        if cuts.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err("it cuts a journal twice");
        }
        let mut starts: Vec<_> = self.starts.iter().map(|start| start.core).collect();
        starts.sort_unstable();
        if starts.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err("it begins a journal twice");
        }
        if self
            .truncations
            .iter()
            .any(|given_up| given_up.to_epoch >= self.epoch || given_up.shard >= self.shards)
        {
            return Err("it gives up a part of a log that cannot exist");
        }
        Ok(())
    }
}

/// Why a manifest cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ManifestError {
    /// It does not begin like a manifest, or is too short to be one.
    NotAManifest,
    /// Only a newer server can read it.
    Newer {
        /// The oldest version that can.
        reader_version: u16,
    },
    /// Length or checksum do not fit.
    Damaged,
    /// The checksum fits, but what it says cannot be.
    Contradiction(&'static str),
}

impl fmt::Display for ManifestError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAManifest => formatter.write_str("the manifest does not begin like one"),
            Self::Newer { reader_version } => write!(
                formatter,
                "the manifest was written by a newer server: reading it takes format version {reader_version}, and this \
                 server knows up to {MANIFEST_VERSION}"
            ),
            Self::Damaged => {
                formatter.write_str("the manifest is damaged: its length or checksum does not fit")
            }
            Self::Contradiction(what) => write!(formatter, "the manifest contradicts itself: {what}"),
        }
    }
}

impl std::error::Error for ManifestError {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> Manifest {
        Manifest {
            cluster: *b"cluster-name-16b",
            node: *b"node-name-16byte",
            kernel_boot: *b"kernel-boot-id-1",
            hash_seed: 0x0123_4567_89AB_CDEF,
            hash_algorithm: 1,
            shards: 64,
            epoch: 5,
            must_not_vote: true,
            starts: vec![Start { core: 1, sequence: 17 }],
            cuts: vec![
                Cut { epoch: 3, core: 0, end: Position::new(7, 4096) },
                Cut { epoch: 4, core: 1, end: Position::new(2, 640) },
            ],
            truncations: vec![Truncation {
                shard: 9,
                from_epoch: 2,
                from_ownership: 5,
                from: Position::new(6, 256),
                to_epoch: 3,
            }],
        }
    }

    /// Replaces the checksum by the right one.
    fn sign(bytes: &mut [u8]) {
        bytes[CRC_AT..CRC_AT + 4].fill(0);
        let crc = crc32c::crc32c(bytes);
        bytes[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
    }

    #[test]
    fn format_is_golden() {
        let golden = "\
            445556414d414e0a01000100bb53e3f1e800000040000100636c75737465722d6e616d652d313662\
            6e6f64652d6e616d652d3136627974656b65726e656c2d626f6f742d69642d31efcdab8967452301\
            05000000000000000100000002000000010000000100000003000000000000000010000007000000\
            00000000000000000000000000000000040000000000000080020000020000000000000000000000\
            00000000010000000200000000000000000100000600000003000000000000000500000009000000\
            0000000000000000000000001100000000000000000000000000000001000000";
        let hex: String = sample().encode().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, golden);
    }

    #[test]
    fn reads_back() {
        let manifest = sample();
        assert_eq!(Manifest::decode(&manifest.encode()), Ok(manifest.clone()));
        assert_eq!(manifest.cut(4, 1), Some(Position::new(2, 640)));
        assert_eq!(manifest.cut(4, 0), None);
        assert_eq!((manifest.start(1), manifest.start(0)), (Some(17), None));
        assert!(manifest.is_begun());
        assert!(!Manifest { starts: Vec::new(), ..manifest }.is_begun());
    }

    #[test]
    fn every_flipped_bit_and_every_other_length_is_refused() {
        let bytes = sample().encode();
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Manifest::decode(&bytes).is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(Manifest::decode(&bytes[..len]).is_err(), "{len} bytes");
        }
        assert_eq!(Manifest::decode(&[&bytes[..], &[0]].concat()), Err(ManifestError::Damaged));
    }

    #[test]
    fn newer_version_is_named() {
        let mut bytes = sample().encode();
        bytes[10..12].copy_from_slice(&9u16.to_le_bytes());
        sign(&mut bytes);
        let error = Manifest::decode(&bytes).unwrap_err();
        assert_eq!(error, ManifestError::Newer { reader_version: 9 });
        assert!(error.to_string().contains("format version 9, and this server knows up to 1"), "{error}");
    }

    #[test]
    fn contradictions_are_refused() {
        let refused = |change: fn(&mut Manifest)| {
            let mut manifest = sample();
            change(&mut manifest);
            matches!(Manifest::decode(&manifest.encode()), Err(ManifestError::Contradiction(_)))
        };
        assert!(refused(|manifest| manifest.shards = 0));
        assert!(refused(|manifest| manifest.epoch = u64::MAX));
        assert!(refused(|manifest| manifest.cuts[1].epoch = 5));
        assert!(refused(|manifest| manifest.cuts[0] = Cut { end: Position(1), ..manifest.cuts[1] }));
        assert!(refused(|manifest| manifest.starts.push(Start { core: 1, sequence: 18 })));
        assert!(refused(|manifest| manifest.truncations[0].shard = 64));
        assert!(refused(|manifest| manifest.truncations[0].to_epoch = 5));
    }

    #[test]
    fn counts_that_the_bytes_do_not_bear_out_are_refused() {
        let mut bytes = sample().encode();
        bytes[92..96].copy_from_slice(&u32::MAX.to_le_bytes());
        sign(&mut bytes);
        assert_eq!(Manifest::decode(&bytes), Err(ManifestError::Damaged));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), signed: bool) {
            if signed && bytes.len() >= HEADER_BYTES {
                bytes[..8].copy_from_slice(&MAGIC);
                bytes[10..12].fill(0);
                let len = bytes.len() as u32;
                bytes[16..20].copy_from_slice(&len.to_le_bytes());
                sign(&mut bytes);
            }
            let _ = Manifest::decode(&bytes);
        }
    }
}
