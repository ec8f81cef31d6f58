//! The Hello: who dials a link, and from which core.
//!
//! Its length is fixed within a version, so that it can be received by itself before anything else of the link is. Its
//! beginning (magic and version) is the same in every version, so that nodes of different ones can say why they refuse
//! each other.
//!
//! | bytes | field |
//! | --- | --- |
//! | 0..8 | `DUVAPEER` |
//! | 8..10 | version |
//! | 10..26 | cluster |
//! | 26..42 | node |
//! | 42..46 | the node's number |
//! | 46..48 | the dialling core |
//! | 48..50 | how many cores the dialler has |
//! | 50..54 | the number of the node that is dialled: another may have its address by now |
//! | 54..62 | the dialler's life: another one in every process |
//! | 62..70 | the epoch of its directory: a greater one in every start of it |
//!
//! The spare bytes of its frame's header are the feature level that the dialler's process speaks (2) and the one that it knows the
//! cluster to have agreed on (2); zeros, of who knows nothing of levels, mean the first.

use std::fmt;

use crate::cluster::feature_level::{FIRST, too_old};

use super::frame::{self, FrameError, HEADER_BYTES, Kind, LINK_GROUP};

const MAGIC: [u8; 8] = *b"DUVAPEER";

/// The version of the protocol between nodes.
pub const VERSION: u16 = 1;

const PAYLOAD_BYTES: usize = 70;

/// Bytes of a Hello, its frame's header included.
pub const HELLO_BYTES: usize = HEADER_BYTES + PAYLOAD_BYTES;

/// Who one core of a node is, among all cores of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    /// The cluster's id.
    pub cluster: [u8; 16],
    /// The node's id.
    pub node: [u8; 16],
    /// The node's number in the cluster.
    pub number: u32,
    /// The core.
    pub core: u16,
    /// How many cores the node has.
    pub cores: u16,
    /// Tells this process of the node from others, earlier ones and those of a copied directory.
    pub life: u64,
    /// The directory's epoch, which grows with every start.
    pub epoch: u64,
    /// The feature level that the process speaks.
    pub level: u16,
    /// The feature level that it knows the cluster to have agreed on.
    pub agreed: u16,
}

/// Why a link is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HelloError {
    /// It does not begin with a Hello.
    Garbage,
    /// Its first frame is damaged.
    Frame(FrameError),
    /// The dialler speaks another version.
    Version {
        /// The dialler's version.
        version: u16,
    },
    /// The dialler's core is none of its cores.
    Core {
        /// The core.
        core: u16,
        /// How many cores there are.
        cores: u16,
    },
    /// It is of another cluster.
    ForeignCluster {
        /// The dialler's cluster.
        cluster: [u8; 16],
    },
    /// It is this node that dials.
    OwnNode,
    /// It looks for a node that is not here any more.
    OtherNode {
        /// The number of that node.
        number: u32,
    },
    /// It is another node that bears this node's number.
    OwnNumber {
        /// The number.
        number: u32,
    },
    /// It does not speak the feature level that the cluster has agreed on.
    LevelTooLow {
        /// What it speaks.
        level: u16,
        /// What the cluster has agreed on.
        agreed: u16,
    },
    /// This node does not.
    OwnLevelTooLow {
        /// What this node speaks.
        level: u16,
        /// What the cluster has agreed on.
        agreed: u16,
    },
}

/// Sixteen bytes as people read them.
struct Hexadecimal<'a>(&'a [u8; 16]);

impl fmt::Display for Hexadecimal<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Display for HelloError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Garbage => formatter.write_str("it does not speak the protocol between nodes"),
            Self::Frame(error) => error.fmt(formatter),
            Self::Version { version } => write!(
                formatter,
                "it speaks version {version} of the protocol between nodes, this node version {VERSION}"
            ),
            Self::Core { core, cores } => write!(formatter, "it claims to be core {core} of {cores}"),
            Self::ForeignCluster { cluster } => {
                write!(formatter, "it belongs to another cluster, {}", Hexadecimal(cluster))
            }
            Self::OwnNode => formatter.write_str(
                "it is this node itself: another node's address leads here, or its directory was copied",
            ),
            Self::OtherNode { number } => {
                write!(formatter, "it looks for node {number}, which this one is not")
            }
            Self::OwnNumber { number } => {
                write!(formatter, "it is another node with this node's number, {number}")
            }
            Self::LevelTooLow { level, agreed } => write!(
                formatter,
                "it speaks feature level {level}, and the cluster has agreed on {agreed}: it needs a later version"
            ),
            Self::OwnLevelTooLow { level, agreed } => formatter.write_str(&too_old(*agreed, *level)),
        }
    }
}

impl std::error::Error for HelloError {}

/// Adds the Hello of `identity` to the node numbered `to` at the end of `out`, as a frame.
pub fn push(out: &mut Vec<u8>, identity: &PeerIdentity, to: u32) {
    let [level, agreed] = [identity.level, identity.agreed].map(u16::to_le_bytes);
    let spare = [level[0], level[1], agreed[0], agreed[1]];
    frame::push_with_spare(out, Kind::Hello, 0, (LINK_GROUP, spare), |out| {
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&identity.cluster);
        out.extend_from_slice(&identity.node);
        out.extend_from_slice(&identity.number.to_le_bytes());
        out.extend_from_slice(&identity.core.to_le_bytes());
        out.extend_from_slice(&identity.cores.to_le_bytes());
        out.extend_from_slice(&to.to_le_bytes());
        out.extend_from_slice(&identity.life.to_le_bytes());
        out.extend_from_slice(&identity.epoch.to_le_bytes());
    });
}

/// Who dials `own`, by the first [`HELLO_BYTES`] bytes of a link.
///
/// # Errors
/// [`HelloError`]: the link is to be closed.
pub fn decode(bytes: &[u8; HELLO_BYTES], own: &PeerIdentity) -> Result<PeerIdentity, HelloError> {
    // The frame of another version may be longer or shorter: its beginning comes first.
    let payload: &[u8; PAYLOAD_BYTES] = bytes.last_chunk().expect("it is shorter");
    let is_hello = bytes[8] == Kind::Hello as u8 && payload[..8] == MAGIC;
    if !is_hello {
        return Err(HelloError::Garbage);
    }
    let version = u16::from_le_bytes([payload[8], payload[9]]);
    if version != VERSION {
        return Err(HelloError::Version { version });
    }
    frame::only(bytes).map_err(HelloError::Frame)?.ok_or(HelloError::Garbage)?;
    let id = |start: usize| {
        let mut id = [0; 16];
        id.copy_from_slice(&payload[start..start + 16]);
        id
    };
    let long = |start: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&payload[start..start + 8]);
        u64::from_le_bytes(bytes)
    };
    let short = |start: usize| u16::from_le_bytes([payload[start], payload[start + 1]]);
    let level = |start: usize| u16::from_le_bytes([bytes[start], bytes[start + 1]]).max(FIRST);
    let peer = PeerIdentity {
        cluster: id(10),
        node: id(26),
        number: u32::from_le_bytes([payload[42], payload[43], payload[44], payload[45]]),
        core: short(46),
        cores: short(48),
        life: long(54),
        epoch: long(62),
        level: level(12),
        agreed: level(14),
    };
    if peer.cluster != own.cluster {
        return Err(HelloError::ForeignCluster { cluster: peer.cluster });
    }
    if peer.node == own.node {
        return Err(HelloError::OwnNode);
    }
    if peer.number == own.number {
        return Err(HelloError::OwnNumber { number: peer.number });
    }
    let wanted = u32::from_le_bytes([payload[50], payload[51], payload[52], payload[53]]);
    if wanted != own.number {
        return Err(HelloError::OtherNode { number: wanted });
    }
    if peer.core >= peer.cores {
        return Err(HelloError::Core { core: peer.core, cores: peer.cores });
    }
    if peer.level < own.agreed {
        return Err(HelloError::LevelTooLow { level: peer.level, agreed: own.agreed });
    }
    if own.level < peer.agreed {
        return Err(HelloError::OwnLevelTooLow { level: own.level, agreed: peer.agreed });
    }
    Ok(peer)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: PeerIdentity = PeerIdentity {
        cluster: [0xAB; 16],
        node: [1; 16],
        number: 1,
        core: 0,
        cores: 2,
        life: 7,
        epoch: 3,
        level: 4,
        agreed: 3,
    };
    const PEER: PeerIdentity = PeerIdentity {
        cluster: [0xAB; 16],
        node: [2; 16],
        number: 2,
        core: 3,
        cores: 4,
        life: u64::MAX - 8,
        epoch: 1 << 40,
        level: 300,
        agreed: 3,
    };

    fn encode(identity: &PeerIdentity) -> [u8; HELLO_BYTES] {
        let mut bytes = Vec::new();
        push(&mut bytes, identity, OWN.number);
        bytes.try_into().expect("a Hello's length is fixed")
    }

    /// Puts a right checksum into a Hello that was changed.
    fn sign(bytes: &mut [u8; HELLO_BYTES]) {
        let checksum = crc32c::crc32c(&bytes[8..]);
        bytes[4..8].copy_from_slice(&checksum.to_le_bytes());
    }

    #[test]
    fn a_hello_says_who_dials() {
        assert_eq!(decode(&encode(&PEER), &OWN), Ok(PEER));
    }

    #[test]
    fn a_link_is_refused_for_a_reason() {
        let refusal = |peer: PeerIdentity| decode(&encode(&peer), &OWN).unwrap_err().to_string();
        assert_eq!(
            refusal(PeerIdentity { cluster: [0xCD; 16], ..PEER }),
            "it belongs to another cluster, cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd"
        );
        assert!(refusal(PeerIdentity { node: OWN.node, ..PEER }).starts_with("it is this node itself"));
        assert_eq!(
            refusal(PeerIdentity { number: 1, ..PEER }),
            "it is another node with this node's number, 1"
        );
        let mut bytes = Vec::new();
        push(&mut bytes, &PEER, 7);
        let refused = decode(bytes.first_chunk().expect("it is as long as any"), &OWN);
        assert_eq!(refused, Err(HelloError::OtherNode { number: 7 }));
        assert_eq!(refusal(PeerIdentity { core: 4, ..PEER }), "it claims to be core 4 of 4");
        assert_eq!(refusal(PeerIdentity { core: 0, cores: 0, ..PEER }), "it claims to be core 0 of 0");
    }

    #[test]
    fn whoever_does_not_speak_what_is_agreed_on_is_refused() {
        let decoded = |peer: PeerIdentity, own: PeerIdentity| decode(&encode(&peer), &own);
        for (level, agreed) in [(3, 3), (3, 1), (4, 4), (9, 4)] {
            let peer = PeerIdentity { level, agreed, ..PEER };
            assert_eq!(decoded(peer, OWN), Ok(peer));
        }
        let error = decoded(PeerIdentity { level: 2, agreed: 2, ..PEER }, OWN).unwrap_err();
        assert_eq!(
            error.to_string(),
            "it speaks feature level 2, and the cluster has agreed on 3: it needs a later version"
        );
        let error = decoded(PeerIdentity { agreed: 5, ..PEER }, OWN).unwrap_err();
        assert_eq!(error, HelloError::OwnLevelTooLow { level: 4, agreed: 5 });
        assert!(error.to_string().ends_with("start a version that speaks 5"), "{error}");
        // One from before there were levels.
        let mut bytes = encode(&PEER);
        bytes[12..16].fill(0);
        sign(&mut bytes);
        assert_eq!(decode(&bytes, &OWN), Err(HelloError::LevelTooLow { level: 1, agreed: 3 }));
        let own = PeerIdentity { agreed: 1, ..OWN };
        assert_eq!(decode(&bytes, &own), Ok(PeerIdentity { level: 1, agreed: 1, ..PEER }));
    }

    #[test]
    fn another_version_is_named_whatever_its_length() {
        let mut bytes = encode(&PEER);
        bytes[HEADER_BYTES + 8] = 2;
        bytes[0] += 10;
        let error = decode(&bytes, &OWN).unwrap_err();
        assert_eq!(error, HelloError::Version { version: 2 });
        assert_eq!(
            error.to_string(),
            "it speaks version 2 of the protocol between nodes, this node version 1"
        );
    }

    #[test]
    fn no_changed_byte_is_believed() {
        for place in 0..HELLO_BYTES {
            for bit in 0..8 {
                let mut bytes = encode(&PEER);
                bytes[place] ^= 1 << bit;
                assert!(decode(&bytes, &OWN).is_err(), "bit {bit} of byte {place}");
            }
        }
        let mut bytes = [0; HELLO_BYTES];
        bytes.iter_mut().zip(b"*1\r\n$4\r\nPING\r\n".iter().cycle()).for_each(|(to, from)| *to = *from);
        assert_eq!(decode(&bytes, &OWN), Err(HelloError::Garbage));
        let mut bytes = encode(&PEER);
        bytes[8] = Kind::Raft as u8;
        sign(&mut bytes);
        assert_eq!(decode(&bytes, &OWN), Err(HelloError::Garbage));
        let mut bytes = encode(&PEER);
        bytes[0] -= 1;
        assert_eq!(decode(&bytes, &OWN), Err(HelloError::Frame(FrameError::Damaged)));
    }
}
