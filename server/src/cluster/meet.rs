//! CLUSTER MEET: a node that is a cluster of its own, and empty, gives that up for another cluster.
//!
//! ```text
//! asked to enter -> stops -> no keys, no other node? -> mark -> begins again -> let in -> emptied -> born -> mark removed
//!                                     otherwise: begins again as what it was       otherwise: mark removed
//! ```
//!
//! Invariants:
//!
//! - Nothing is given up before the process serves nobody any more and has seen that it holds no key.
//! - The mark is durable before anything else changes, and goes once the new membership is durable: from then on a start, after
//!   whatever crash, ends in the new membership, or, if that cluster refuses or is gone before anything was emptied, in the old
//!   one.
//! - The mark names the id under which the node is let in: asking again is as good as once.

use std::fmt::Write as _;

use super::join::split_address;

/// The mark's name in the journal's directory.
pub const MARK_NAME: &str = "joining";

/// The code of the error by which a node says that it stays what it is.
pub const REFUSED: &str = "MEETREFUSED";

const HEAD: &str = "duva joins 1";

/// That a directory is to be given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// A node of the cluster to join: `host:port`, for clients.
    pub seed: String,
    /// The id to join with.
    pub node: [u8; 16],
}

impl Mark {
    /// The mark's bytes: three lines.
    pub fn encode(&self) -> Vec<u8> {
        let mut text = format!("{HEAD}\n{}\n", self.seed);
        let _ = writeln!(text, "{:032x}", u128::from_be_bytes(self.node));
        text.into_bytes()
    }

    /// Reads what [`Self::encode`] wrote; `None`: it is none.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?.strip_suffix('\n')?;
        let mut lines = text.split('\n');
        let (head, seed, node) = (lines.next()?, lines.next()?, lines.next()?);
        if head != HEAD || lines.next().is_some() || split_address(seed).is_none() || node.len() != 32 {
            return None;
        }
        let node = u128::from_str_radix(node, 16).ok()?.to_be_bytes();
        let mark = Self { seed: seed.to_owned(), node };
        (mark.encode() == bytes).then_some(mark)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_come_back_and_nothing_else_is_one() {
        let mark = Mark { seed: "[::1]:7001".to_owned(), node: [0xA5; 16] };
        let bytes = mark.encode();
        assert_eq!(Mark::decode(&bytes), Some(mark));
        for end in 0..bytes.len() {
            assert_eq!(Mark::decode(&bytes[..end]), None, "{end} bytes");
        }
        for wrong in [
            [&bytes[..], b"more\n"].concat(),
            bytes.to_ascii_uppercase(),
            String::from_utf8_lossy(&bytes).replace("7001", "0").into_bytes(),
            String::from_utf8_lossy(&bytes).replacen("a5", "+5", 1).into_bytes(),
        ] {
            assert_eq!(Mark::decode(&wrong), None, "{}", wrong.escape_ascii());
        }
    }
}
