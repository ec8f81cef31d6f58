//! Frames: what travels on a link between two nodes.
//!
//! A frame is a header of [`HEADER_BYTES`] bytes, little-endian, and a payload:
//!
//! | bytes | field |
//! | --- | --- |
//! | 0..4 | length of the payload |
//! | 4..8 | CRC32C of all that follows |
//! | 8 | kind |
//! | 9 | flags, whose meaning is the kind's |
//! | 10..12 | group |
//! | 12..16 | of a Hello the feature levels (see [`super::hello`]); else spare: zero when sent, not looked at |
//!
//! Invariants: no frame is handed out before it is whole and its checksum right, so a damaged one gives an error, or is never
//! whole. A frame that arrived whole is handed out where it lies. A [`Frames`] keeps no more than has arrived.

use std::{fmt, ops::ControlFlow};

use crate::cluster::feature_level::FIRST;

/// Bytes of a frame's header.
pub const HEADER_BYTES: usize = 16;

/// Bytes of the longest payload: the largest snapshot part or entry, and room for what surrounds it.
pub const PAYLOAD_BYTES_MAX: usize = 80 << 20;

/// The group of frames for the meta group, which core 0 drives.
pub const META_GROUP: u16 = u16::MAX;

/// The group of frames for the core that a link belongs to.
pub const LINK_GROUP: u16 = u16::MAX - 1;

/// Where the checked bytes of a frame begin.
const CHECKED_FROM: usize = 8;

/// Capacity that an empty [`Frames`] keeps, in bytes.
const KEPT_BYTES: usize = 64 << 10;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Who the dialler is; the first frame of a link and only that.
    Hello = 1,
    /// A message of Raft for the header's group.
    Raft = 2,
    /// A request, for the node that leads its shard.
    Forward = 3,
    /// The answer to one.
    ForwardReply = 4,
    /// Which shards the sender leads.
    Leaders = 5,
    /// A packet of the failure detector.
    Gossip = 6,
    /// What the sender's wall clock shows; with the flag 1, that a journal of the sender has failed.
    Clock = 7,
    /// The sender stops, and is about to lead the group no more; with the flag 1, that the receiver does so is known.
    Leaving = 8,
}

impl Kind {
    fn of(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Hello,
            2 => Self::Raft,
            3 => Self::Forward,
            4 => Self::ForwardReply,
            5 => Self::Leaders,
            6 => Self::Gossip,
            7 => Self::Clock,
            8 => Self::Leaving,
            _ => return None,
        })
    }

    /// The feature level that must be agreed on before one is sent.
    pub const fn feature_level(self) -> u16 {
        match self {
            Self::Hello
            | Self::Raft
            | Self::Forward
            | Self::ForwardReply
            | Self::Leaders
            | Self::Gossip
            | Self::Clock
            | Self::Leaving => FIRST,
        }
    }
}

/// A frame's header, as far as it says something to the receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// What the frame is.
    pub kind: Kind,
    /// What the kind makes of them.
    pub flags: u8,
    /// The shard, [`META_GROUP`] or [`LINK_GROUP`].
    pub group: u16,
}

/// Why bytes are no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// It announces more than any frame has.
    TooLong {
        /// What it announces.
        length_bytes: u32,
    },
    /// There is no such kind.
    UnknownKind {
        /// The kind's byte.
        kind: u8,
    },
    /// Its bytes are not those that its sender summed.
    Damaged,
}

impl fmt::Display for FrameError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { length_bytes } => {
                write!(formatter, "a frame announces {length_bytes} bytes, more than {PAYLOAD_BYTES_MAX}")
            }
            Self::UnknownKind { kind } => write!(formatter, "a frame is of the unknown kind {kind}"),
            Self::Damaged => formatter.write_str("a frame's checksum is wrong"),
        }
    }
}

impl std::error::Error for FrameError {}

/// Adds a frame at the end of `out`, with the payload that `write_payload` adds there.
///
/// # Panics
/// If the payload is longer than [`PAYLOAD_BYTES_MAX`], or `write_payload` takes away what was there.
pub fn push(out: &mut Vec<u8>, kind: Kind, flags: u8, group: u16, write_payload: impl FnOnce(&mut Vec<u8>)) {
    push_with_spare(out, kind, flags, (group, [0; 4]), write_payload);
}

/// The same with the header's spare bytes.
pub(super) fn push_with_spare(
    out: &mut Vec<u8>,
    kind: Kind,
    flags: u8,
    (group, spare): (u16, [u8; 4]),
    write_payload: impl FnOnce(&mut Vec<u8>),
) {
    let start = out.len();
    let mut header = [0; HEADER_BYTES];
    header[8] = kind as u8;
    header[9] = flags;
    header[10..12].copy_from_slice(&group.to_le_bytes());
    header[12..].copy_from_slice(&spare);
    out.extend_from_slice(&header);
    write_payload(out);
    let length = out.len().checked_sub(start + HEADER_BYTES).expect("a payload is added");
    assert!(length <= PAYLOAD_BYTES_MAX, "a payload of {length} bytes is too long");
    let frame = &mut out[start..];
    let checksum = crc32c::crc32c(&frame[CHECKED_FROM..]);
    frame[..4].copy_from_slice(&(length as u32).to_le_bytes());
    frame[4..8].copy_from_slice(&checksum.to_le_bytes());
}

/// The frame at the beginning of some bytes.
enum First<'a> {
    /// It is whole.
    Whole(FrameHeader, &'a [u8]),
    /// It is not, for want of so many bytes at least.
    Missing(usize),
}

/// Looks at the frame with which `bytes` begin.
fn first(bytes: &[u8]) -> Result<First<'_>, FrameError> {
    let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else {
        return Ok(First::Missing(HEADER_BYTES - bytes.len()));
    };
    let length_bytes = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
    let length = length_bytes as usize;
    if length > PAYLOAD_BYTES_MAX {
        return Err(FrameError::TooLong { length_bytes });
    }
    let Some(checked) = bytes.get(CHECKED_FROM..HEADER_BYTES + length) else {
        return Ok(First::Missing(HEADER_BYTES + length - bytes.len()));
    };
    if crc32c::crc32c(checked) != u32::from_le_bytes([header[4], header[5], header[6], header[7]]) {
        return Err(FrameError::Damaged);
    }
    let kind = Kind::of(header[8]).ok_or(FrameError::UnknownKind { kind: header[8] })?;
    let group = u16::from_le_bytes([header[10], header[11]]);
    let payload = &checked[HEADER_BYTES - CHECKED_FROM..];
    Ok(First::Whole(FrameHeader { kind, flags: header[9], group }, payload))
}

/// The one frame that `bytes` are, if they are one and nothing more.
///
/// # Errors
/// [`FrameError`].
pub fn only(bytes: &[u8]) -> Result<Option<(FrameHeader, &[u8])>, FrameError> {
    match first(bytes)? {
        First::Whole(header, payload) if HEADER_BYTES + payload.len() == bytes.len() => {
            Ok(Some((header, payload)))
        }
        _ => Ok(None),
    }
}

/// Finds the frames in what arrives on one link.
#[derive(Default)]
pub struct Frames {
    /// What has arrived of frames that were not handed out; the first of them begins here.
    kept: Vec<u8>,
}

impl Frames {
    /// Takes bytes that arrived, and hands every frame that is whole to `take`, in order. Where `take` breaks off, that frame and
    /// all behind it are kept: the next call begins with it, and may bring no bytes.
    ///
    /// # Errors
    /// [`FrameError`]: frames ahead of the wrong one were handed out, and nothing that follows means anything.
    pub fn feed<B>(
        &mut self,
        mut bytes: &[u8],
        mut take: impl FnMut(FrameHeader, &[u8]) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, FrameError> {
        let mut start = 0;
        while start < self.kept.len() {
            match first(&self.kept[start..])? {
                First::Whole(header, payload) => {
                    let end = start + HEADER_BYTES + payload.len();
                    if let ControlFlow::Break(reason) = take(header, payload) {
                        self.forget(start);
                        self.kept.extend_from_slice(bytes);
                        return Ok(ControlFlow::Break(reason));
                    }
                    start = end;
                }
                First::Missing(missing) => {
                    if bytes.is_empty() {
                        self.forget(start);
                        return Ok(ControlFlow::Continue(()));
                    }
                    // Only what completes it is copied: the frames behind it are handed out where they lie.
                    let (next, rest) = bytes.split_at(missing.min(bytes.len()));
                    self.kept.extend_from_slice(next);
                    bytes = rest;
                }
            }
        }
        self.forget(start);
        loop {
            match first(bytes)? {
                First::Whole(header, payload) => {
                    let rest = &bytes[HEADER_BYTES + payload.len()..];
                    if let ControlFlow::Break(reason) = take(header, payload) {
                        self.kept.extend_from_slice(bytes);
                        return Ok(ControlFlow::Break(reason));
                    }
                    bytes = rest;
                }
                First::Missing(_) => {
                    self.kept.extend_from_slice(bytes);
                    return Ok(ControlFlow::Continue(()));
                }
            }
        }
    }

    /// Bytes that are kept.
    pub fn kept_bytes(&self) -> usize {
        self.kept.len()
    }

    /// Lets go of the first `count` bytes.
    fn forget(&mut self, count: usize) {
        if count == self.kept.len() {
            self.kept.clear();
            self.kept.shrink_to(KEPT_BYTES);
        } else if count > 0 {
            self.kept.drain(..count);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Frame = (u8, u8, u16, Vec<u8>);

    fn encode(frames: &[Frame]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (kind, flags, group, payload) in frames {
            let kind = Kind::of(*kind).expect("a kind");
            push(&mut bytes, kind, *flags, *group, |out| out.extend_from_slice(payload));
        }
        bytes
    }

    /// What pieces of the given lengths, and then the rest, give.
    fn decode(bytes: &[u8], lengths: &[usize]) -> (Vec<Frame>, Result<usize, FrameError>) {
        let (mut frames, mut taken, mut rest) = (Frames::default(), Vec::new(), bytes);
        for length in lengths.iter().copied().chain([usize::MAX]) {
            let (piece, behind) = rest.split_at(length.min(rest.len()));
            rest = behind;
            let result = frames.feed(piece, |header, payload| {
                taken.push((header.kind as u8, header.flags, header.group, payload.to_vec()));
                ControlFlow::<()>::Continue(())
            });
            if let Err(error) = result {
                return (taken, Err(error));
            }
        }
        (taken, Ok(frames.kept_bytes()))
    }

    fn some_frames() -> impl Strategy<Value = Vec<Frame>> {
        let payload = prop_oneof![
            4 => proptest::collection::vec(any::<u8>(), 0..60),
            1 => proptest::collection::vec(any::<u8>(), 1000..3000),
        ];
        proptest::collection::vec((1..=7_u8, any::<u8>(), any::<u16>(), payload), 0..8)
    }

    proptest! {
        #[test]
        fn any_split_gives_the_whole(
            frames in some_frames(),
            lengths in proptest::collection::vec(prop_oneof![0..40_usize, 0..2000_usize], 0..40),
        ) {
            let (taken, end) = decode(&encode(&frames), &lengths);
            prop_assert_eq!(taken, frames);
            prop_assert_eq!(end, Ok(0));
        }

        #[test]
        fn a_flipped_bit_is_never_taken(
            frames in some_frames(),
            lengths in proptest::collection::vec(0..200_usize, 0..10),
            place in any::<prop::sample::Index>(),
            bit in 0..8_u8,
        ) {
            let mut bytes = encode(&frames);
            prop_assume!(!bytes.is_empty());
            let place = place.index(bytes.len());
            bytes[place] ^= 1 << bit;
            let (taken, end) = decode(&bytes, &lengths);
            // What is ahead of it is as it was; the frame with the bit, and all behind it, is refused or never whole.
            let mut start = 0;
            let intact = frames.iter().take_while(|frame| {
                start += HEADER_BYTES + frame.3.len();
                start <= place
            });
            prop_assert_eq!(&taken[..], &frames[..intact.count()]);
            prop_assert!(end != Ok(0));
        }

        #[test]
        fn no_bytes_are_taken_for_more_than_they_are(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut frames = Frames::default();
            let mut taken = 0;
            for byte in &bytes {
                let result = frames.feed(std::slice::from_ref(byte), |_, payload| {
                    taken += HEADER_BYTES + payload.len();
                    ControlFlow::<()>::Continue(())
                });
                if result.is_err() {
                    break;
                }
                prop_assert!(frames.kept_bytes() + taken <= bytes.len());
            }
        }

        #[test]
        fn where_it_breaks_off_it_goes_on(
            frames in some_frames(),
            lengths in proptest::collection::vec(0..300_usize, 0..20),
            waits in proptest::collection::vec(0..3_u8, 1..10),
        ) {
            let bytes = encode(&frames);
            let (mut parser, mut taken, mut rest) = (Frames::default(), Vec::new(), &bytes[..]);
            let mut waits = waits.into_iter().cycle();
            let mut left = waits.next().unwrap_or(0);
            for length in lengths.into_iter().chain([usize::MAX]) {
                let (piece, behind) = rest.split_at(length.min(rest.len()));
                rest = behind;
                let mut piece = piece;
                loop {
                    let result = parser.feed(piece, |header, payload| {
                        if left > 0 {
                            left -= 1;
                            return ControlFlow::Break(header.group);
                        }
                        left = waits.next().unwrap_or(0);
                        taken.push((header.kind as u8, header.flags, header.group, payload.to_vec()));
                        ControlFlow::Continue(())
                    });
                    piece = &[];
                    match result {
                        Ok(ControlFlow::Continue(())) => break,
                        Ok(ControlFlow::Break(group)) => prop_assert_eq!(group, frames[taken.len()].2),
                        Err(error) => return Err(TestCaseError::fail(error.to_string())),
                    }
                }
            }
            prop_assert_eq!(taken, frames);
            prop_assert_eq!(parser.kept_bytes(), 0);
        }
    }

    #[test]
    fn a_frame_that_arrives_whole_is_not_copied() {
        let bytes = encode(&[(2, 0, 7, vec![1; 100]), (6, 1, 8, vec![2; 50])]);
        let range = bytes.as_ptr_range();
        let mut count = 0;
        let result = Frames::default().feed(&bytes, |_, payload| {
            assert!(range.contains(&payload.as_ptr()));
            count += 1;
            ControlFlow::<()>::Continue(())
        });
        assert_eq!((result, count), (Ok(ControlFlow::Continue(())), 2));
    }

    #[test]
    fn memory_grows_as_bytes_arrive() {
        let mut bytes = encode(&[(3, 0, 1, vec![7; 1000])]);
        bytes[..4].copy_from_slice(&(PAYLOAD_BYTES_MAX as u32).to_le_bytes());
        let mut frames = Frames::default();
        let result = frames.feed(&bytes, |_, _| ControlFlow::Break(()));
        assert_eq!(result, Ok(ControlFlow::Continue(())));
        assert_eq!(frames.kept_bytes(), bytes.len());
        assert!(frames.kept.capacity() < 2 * bytes.len());
        bytes[..4].copy_from_slice(&(PAYLOAD_BYTES_MAX as u32 + 1).to_le_bytes());
        let error = decode(&bytes, &[]).1.unwrap_err();
        assert_eq!(error, FrameError::TooLong { length_bytes: PAYLOAD_BYTES_MAX as u32 + 1 });
        assert_eq!(error.to_string(), "a frame announces 83886081 bytes, more than 83886080");
    }

    #[test]
    fn an_unknown_kind_is_refused() {
        let mut bytes = encode(&[(6, 0, 1, vec![7; 10])]);
        bytes[8] = 99;
        let checksum = crc32c::crc32c(&bytes[8..]);
        bytes[4..8].copy_from_slice(&checksum.to_le_bytes());
        let error = decode(&bytes, &[3]).1.unwrap_err();
        assert_eq!(error, FrameError::UnknownKind { kind: 99 });
        assert_eq!(error.to_string(), "a frame is of the unknown kind 99");
    }

    #[test]
    fn a_frame_is_as_its_description_has_it() {
        let bytes = encode(&[(4, 0x81, 0x1234, b"abc".to_vec())]);
        assert_eq!(bytes[..4], [3, 0, 0, 0]);
        assert_eq!(bytes[4..8], crc32c::crc32c(&bytes[8..]).to_le_bytes());
        assert_eq!(bytes[8..], *b"\x04\x81\x34\x12\0\0\0\0abc");
    }
}
