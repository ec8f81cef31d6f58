//! What a connection has seen of each shard, and the text by which it is carried to another connection.
//!
//! ```text
//! token   in hexadecimal digits: version (1), flags (1), cluster (16), count (2), so many places, CRC32C (4)
//! place   shard (2), index (8), term (8)
//! ```
//!
//! Integers are little-endian, shards ascend.
//!
//! Invariants:
//!
//! - A place is that of an entry that was applied, so committed: places of one shard are ordered by their terms, and
//!   within a term by their indexes. What is kept of a shard only grows.
//! - There are never more places than shards.
//!
//! Whether places were *current together* decides what a sequential connection may read from a replica near it. Each
//! time that the connection sees a shard go on, it moves to a moment at which that shard's place was the last one; the
//! other shards have to be read from their leaders once before they are known to be of that moment too.

use std::{collections::BTreeMap, error::Error, fmt};

use super::bytes::{DecodeError, Reader};

const VERSION: u8 = 1;

/// Bytes of a place in a token.
const PLACE_BYTES: usize = 18;

/// A whole database was emptied, which no place says.
const FLUSHED: u8 = 1;

/// An entry of a shard's log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Its index.
    pub index: u64,
    /// Its term.
    pub term: u64,
}

impl Position {
    fn order(self) -> (u64, u64) {
        (self.term, self.index)
    }
}

/// What was seen of one shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Seen {
    position: Position,
    /// The moment at which the position is known to have been the shard's last.
    moment: u64,
    /// How many times everything had been flushed when the shard was seen.
    flushes: u64,
}

/// What a connection has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Session {
    by_shard: BTreeMap<u16, Seen>,
    moment: u64,
    flushes: u64,
}

/// Why a token is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenError {
    /// It is of another cluster.
    Foreign,
    /// It is damaged, or of another version.
    Damaged(DecodeError),
}

impl fmt::Display for TokenError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign => formatter.write_str("the token is of another cluster"),
            Self::Damaged(error) => write!(formatter, "the token cannot be read: {error}"),
        }
    }
}

impl Error for TokenError {}

impl From<DecodeError> for TokenError {
    fn from(error: DecodeError) -> Self {
        Self::Damaged(error)
    }
}

impl Session {
    /// What a replica must have applied so that a read of the shard there goes back behind nothing that was seen of that
    /// shard; `None`: only the leader can say.
    pub fn floor(&self, shard: u16) -> Option<Position> {
        match self.by_shard.get(&shard) {
            Some(seen) => (seen.flushes == self.flushes).then_some(seen.position),
            None => (self.flushes == 0).then(Position::default),
        }
    }

    /// As [`Self::floor`], if the shard's place is known to be of the moment that the session is at.
    pub fn sequential_floor(&self, shard: u16) -> Option<Position> {
        let seen = self.by_shard.get(&shard).filter(|seen| seen.moment == self.moment)?;
        (seen.flushes == self.flushes).then_some(seen.position)
    }

    /// Something of the shard was seen that was at this position. Positions come in the order of the requests wherever
    /// the order of shards matters.
    pub fn observe(&mut self, shard: u16, position: Position) {
        let (moment, flushes) = (self.moment, self.flushes);
        let seen = self.by_shard.entry(shard).or_default();
        if position.order() > seen.position.order() {
            self.moment += 1;
            *seen = Seen { position, moment: self.moment, flushes };
        } else if position == seen.position {
            *seen = Seen { position, moment, flushes };
        }
    }

    /// What was seen up to now is of no common moment.
    pub fn forget_moments(&mut self) {
        self.moment += 1;
    }

    /// Everything was flushed, in places that are not known: each shard is read from its leader once.
    pub fn flush(&mut self) {
        self.flushes += 1;
        self.moment += 1;
    }

    /// The token of what was seen.
    pub fn export(&self, cluster: &[u8; 16]) -> String {
        // A shard that was not seen since a flush is not listed: nobody knows what there is to be seen of it.
        let known = || self.by_shard.iter().filter(|(_, seen)| seen.flushes == self.flushes);
        let mut bytes = vec![VERSION, if self.flushes > 0 { FLUSHED } else { 0 }];
        bytes.extend_from_slice(cluster);
        let count = u16::try_from(known().count()).expect("there are fewer shards than numbers for them");
        bytes.extend_from_slice(&count.to_le_bytes());
        for (shard, Seen { position, .. }) in known() {
            bytes.extend_from_slice(&shard.to_le_bytes());
            bytes.extend_from_slice(&position.index.to_le_bytes());
            bytes.extend_from_slice(&position.term.to_le_bytes());
        }
        let checksum = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Takes what another connection of a cluster of so many shards saw: of each shard the later.
    ///
    /// # Errors
    /// That the text is no token of this cluster; nothing is taken of it then.
    pub fn import(&mut self, text: &[u8], cluster: &[u8; 16], shards: u16) -> Result<(), TokenError> {
        let bytes = bytes_of(text, shards)?;
        let (body, checksum) = bytes.split_last_chunk().ok_or(DecodeError::Short)?;
        let mut reader = Reader::new(body);
        let version = reader.u8()?;
        if version != VERSION {
            return Err(DecodeError::Version(version.into()).into());
        }
        if crc32c::crc32c(body) != u32::from_le_bytes(*checksum) {
            return Err(DecodeError::Checksum.into());
        }
        let flags = reader.u8()?;
        if flags & !FLUSHED != 0 {
            return Err(DecodeError::Invalid("it has flags that are not known here").into());
        }
        if reader.array()? != *cluster {
            return Err(TokenError::Foreign);
        }
        let count = reader.u16()?;
        let mut places: Vec<(u16, Position)> = Vec::with_capacity(usize::from(count.min(shards)));
        for _ in 0..count {
            let shard = reader.u16()?;
            let position = Position { index: reader.u64()?, term: reader.u64()? };
            if shard >= shards || places.last().is_some_and(|(last, _)| *last >= shard) {
                return Err(DecodeError::Invalid("its shards are not those of the cluster").into());
            }
            places.push((shard, position));
        }
        reader.end()?;
        if flags & FLUSHED != 0 {
            self.flush();
        }
        self.forget_moments();
        for (shard, position) in places {
            let flushes = self.flushes;
            let seen = self.by_shard.entry(shard).or_default();
            if position.order() > seen.position.order() {
                *seen = Seen { position, moment: 0, flushes };
            } else if flags & FLUSHED != 0 && position == seen.position {
                // It was seen behind the flush that the token tells of.
                seen.flushes = flushes;
            }
        }
        Ok(())
    }
}

/// The bytes of hexadecimal digits, as far as a token of so many shards can be long.
fn bytes_of(text: &[u8], shards: u16) -> Result<Vec<u8>, DecodeError> {
    let len_bytes_max = 24 + PLACE_BYTES * usize::from(shards);
    if text.len() > 2 * len_bytes_max {
        return Err(DecodeError::Long);
    }
    let (pairs, rest) = text.as_chunks();
    if !rest.is_empty() {
        return Err(DecodeError::Short);
    }
    let digit = |byte: u8| (byte as char).to_digit(16).map(|digit| digit as u8);
    let byte = |&[high, low]: &[u8; 2]| Some(digit(high)? << 4 | digit(low)?);
    pairs
        .iter()
        .map(byte)
        .collect::<Option<_>>()
        .ok_or(DecodeError::Invalid("it has other than hexadecimal digits"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CLUSTER: [u8; 16] = [7; 16];

    const SHARDS: u16 = 16;

    fn at(term: u64, index: u64) -> Position {
        Position { index, term }
    }

    fn session(places: &[(u16, Position)]) -> Session {
        let mut session = Session::default();
        places.iter().for_each(|&(shard, position)| session.observe(shard, position));
        session
    }

    #[test]
    fn what_was_seen_only_grows() {
        let mut session = session(&[(3, at(1, 10))]);
        session.observe(3, at(1, 9));
        assert_eq!(session.floor(3), Some(at(1, 10)));
        session.observe(3, at(2, 11));
        assert_eq!(session.floor(3), Some(at(2, 11)));
        // Under a later term the log may have lost entries that were only promised.
        session.observe(3, at(3, 5));
        assert_eq!(session.floor(3), Some(at(3, 5)));
        assert_eq!(session.floor(4), Some(Position::default()), "nothing was seen of it");
    }

    #[test]
    fn shards_are_of_one_moment_only_once_the_leader_has_confirmed_it() {
        let mut session = session(&[(0, at(1, 5))]);
        assert_eq!(session.sequential_floor(0), Some(at(1, 5)));
        assert_eq!(session.sequential_floor(1), None, "it was never read");
        session.observe(1, at(1, 7));
        assert_eq!(session.sequential_floor(1), Some(at(1, 7)));
        assert_eq!(session.sequential_floor(0), None, "it may have gone on before the other did");
        session.observe(0, at(1, 5));
        assert_eq!(session.sequential_floor(0), Some(at(1, 5)), "it has not");
        assert_eq!(session.sequential_floor(1), Some(at(1, 7)));
        session.observe(0, at(1, 6));
        assert_eq!(session.sequential_floor(1), None);
        assert_eq!(session.floor(1), Some(at(1, 7)), "a session cares for each shard alone");
        session.observe(1, at(1, 7));
        session.forget_moments();
        assert_eq!((session.sequential_floor(0), session.sequential_floor(1)), (None, None));
    }

    #[test]
    fn after_a_flush_leaders_are_asked_once() {
        let mut flushed = session(&[(0, at(1, 5)), (1, at(1, 5))]);
        flushed.flush();
        assert_eq!((flushed.floor(0), flushed.floor(1), flushed.floor(2)), (None, None, None));
        flushed.observe(0, at(1, 8));
        assert_eq!((flushed.floor(0), flushed.floor(1)), (Some(at(1, 8)), None));
        // Who imports the token must ask as well.
        let mut other = session(&[(0, at(1, 6)), (1, at(1, 9))]);
        other.import(flushed.export(&CLUSTER).as_bytes(), &CLUSTER, SHARDS).expect("a token");
        assert_eq!((other.floor(0), other.floor(1), other.floor(2)), (Some(at(1, 8)), None, None));
    }

    #[test]
    fn a_token_brings_the_later_of_both() {
        let one = session(&[(0, at(1, 5)), (2, at(3, 9)), (15, at(2, 2))]);
        let mut other = session(&[(0, at(2, 4)), (2, at(3, 8)), (7, at(1, 1))]);
        other.import(one.export(&CLUSTER).as_bytes(), &CLUSTER, SHARDS).expect("a token");
        let floors: Vec<_> = [0, 2, 7, 15].into_iter().map(|shard| other.floor(shard)).collect();
        assert_eq!(floors, [Some(at(2, 4)), Some(at(3, 9)), Some(at(1, 1)), Some(at(2, 2))]);
        assert_eq!(other.sequential_floor(0), None, "who knows when the other connection saw its shards");
    }

    #[test]
    fn a_token_has_this_form() {
        let token = session(&[(1, at(2, 3))]).export(&CLUSTER);
        let body = concat!(
            "01",
            "00",
            "07070707070707070707070707070707",
            "0100",
            "0100",
            "0300000000000000",
            "0200000000000000"
        );
        assert_eq!(&token[..body.len()], body);
        assert_eq!(token.len(), body.len() + 8);
    }

    #[test]
    fn what_is_no_token_of_this_cluster_is_refused_whole() {
        let token = session(&[(1, at(2, 3)), (9, at(1, 1))]).export(&CLUSTER);
        let mut fresh = Session::default();
        assert_eq!(fresh.import(token.as_bytes(), &[8; 16], SHARDS), Err(TokenError::Foreign));
        let few = fresh.import(token.as_bytes(), &CLUSTER, 9).expect_err("shard 9 is there");
        assert_eq!(few.to_string(), "the token cannot be read: its shards are not those of the cluster");
        for length in 0..token.len() {
            assert!(fresh.import(&token.as_bytes()[..length], &CLUSTER, SHARDS).is_err(), "{length}");
        }
        let other_version = format!("02{}", &token[2..]);
        let refusal = fresh.import(other_version.as_bytes(), &CLUSTER, SHARDS);
        assert_eq!(refusal, Err(TokenError::Damaged(DecodeError::Version(2))));
        for text in ["", "0", "zz", "+1", "01"] {
            assert!(fresh.import(text.as_bytes(), &CLUSTER, SHARDS).is_err(), "{text}");
        }
        let long = vec![b'0'; 1 << 20];
        assert_eq!(fresh.import(&long, &CLUSTER, SHARDS), Err(TokenError::Damaged(DecodeError::Long)));
        assert_eq!(fresh, Session::default());
        fresh.import(token.to_ascii_uppercase().as_bytes(), &CLUSTER, SHARDS).expect("digits of any case");
    }

    proptest! {
        #[test]
        fn a_flipped_bit_is_noticed(places in prop::collection::btree_map(0..SHARDS, (1u64.., 1u64..), 0..16), at in any::<prop::sample::Index>(), bit in 0..8u8) {
            let mut seen = Session::default();
            for (shard, (term, index)) in places {
                seen.observe(shard, Position { index, term });
            }
            let token = seen.export(&CLUSTER);
            let mut same = Session::default();
            same.import(token.as_bytes(), &CLUSTER, SHARDS).expect("a token");
            prop_assert_eq!(same.export(&CLUSTER), token.clone());
            let mut bytes = token.into_bytes();
            let place = at.index(bytes.len());
            bytes[place] ^= 1 << bit;
            let mut other = Session::default();
            // Only the other case of a letter is the same digit.
            let is_same = bytes[place].is_ascii_hexdigit() && bit == 5 && bytes[place].is_ascii_alphabetic();
            prop_assert_eq!(other.import(&bytes, &CLUSTER, SHARDS).is_ok(), is_same);
        }

        #[test]
        fn any_bytes_are_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Session::default().import(&bytes, &CLUSTER, SHARDS);
        }
    }
}
