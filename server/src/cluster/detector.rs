//! Which nodes are there, as the nodes tell one another: SWIM, by the `foca` crate.
//!
//! A node asks others at random whether they are there, lets third ones ask where no answer comes, and passes on what it
//! has learned with everything that it sends. Invariants:
//!
//! - It informs, and decides nothing: nothing safe depends on it.
//! - No I/O and no clock: packets and times come in, packets go out.
//! - A packet that is none gives an error. Memory is bounded by the numbers that nodes were given, whatever packets say.
//! - A node that starts again has a higher incarnation, so what was said of it before counts no more. One that was taken to be
//!   down and is not raises its own.

use std::{
    collections::BTreeMap,
    fmt,
    num::{NonZeroU8, NonZeroUsize},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::{Buf, BufMut};
use foca::{
    Codec, Config, Foca, Header, Identity, Member, Message, NoCustomBroadcast, Notification, PeriodicParams,
    Runtime, State, Timer,
};
use rand::{SeedableRng, rngs::SmallRng};

/// Bytes of the longest packet.
const PACKET_BYTES_MAX: usize = 1400;

/// How many nodes are told, or asked for help, at a time.
const FANOUT: usize = 3;

/// How often a packet tells the same.
const TRANSMISSIONS_MAX: u8 = 10;

/// How often the nodes that are down are asked whether they are, in intervals.
const RETRY_INTERVALS: u32 = 10;

/// How long it is remembered that a node was down.
const DOWN_MEMORY: Duration = Duration::from_secs(600);

/// Numbers that are believed although this node has not heard of them yet: nodes that are just joining.
const NUMBERS_AHEAD: u32 = 64;

/// A node, since its last start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct NodeIdentity {
    number: u32,
    incarnation: u64,
}

impl Identity for NodeIdentity {
    type Addr = u32;

    fn renew(&self) -> Option<Self> {
        Some(Self { incarnation: self.incarnation.checked_add(1)?, ..*self })
    }

    fn addr(&self) -> u32 {
        self.number
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self.incarnation > adversary.incarnation
    }
}

/// Why a packet is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PacketError {
    /// It ends early.
    Short,
    /// It has no room for what was to be written.
    NoRoom,
    /// There is no such message, or state of a node.
    Unknown {
        /// The byte that says which.
        byte: u8,
    },
    /// It names a node that there cannot be.
    NoNode {
        /// Its number.
        number: u32,
    },
    /// It says that it is of another node than it comes from.
    OtherSender {
        /// The number that it says.
        number: u32,
    },
    /// It contradicts itself, or what is known.
    Refused(String),
}

impl fmt::Display for PacketError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short => formatter.write_str("a packet of the failure detector ends early"),
            Self::NoRoom => formatter.write_str("a packet of the failure detector has no room for more"),
            Self::Unknown { byte } => {
                write!(formatter, "a packet of the failure detector has an unknown byte {byte}")
            }
            Self::NoNode { number } => {
                write!(
                    formatter,
                    "a packet of the failure detector names a node {number}, which there cannot be"
                )
            }
            Self::OtherSender { number } => {
                write!(
                    formatter,
                    "a packet of the failure detector says that it is of node {number}, and is not"
                )
            }
            Self::Refused(reason) => {
                write!(formatter, "a packet of the failure detector is refused: {reason}")
            }
        }
    }
}

impl std::error::Error for PacketError {}

/// Bytes of an identity: number and incarnation.
const IDENTITY_BYTES: usize = 12;

/// Bytes of a member: its identity, foca's incarnation of it, and its state.
const MEMBER_BYTES: usize = IDENTITY_BYTES + 3;

/// How packets are written. Integers are big-endian, as foca's own are.
struct PacketCodec {
    /// The largest number that a node may have.
    number_max: Arc<AtomicU32>,
}

impl PacketCodec {
    fn identity(&self, bytes: &mut impl Buf) -> Result<NodeIdentity, PacketError> {
        if bytes.remaining() < IDENTITY_BYTES {
            return Err(PacketError::Short);
        }
        let identity = NodeIdentity { number: bytes.get_u32(), incarnation: bytes.get_u64() };
        let is_possible = (1..=self.number_max.load(Ordering::Relaxed)).contains(&identity.number);
        if is_possible { Ok(identity) } else { Err(PacketError::NoNode { number: identity.number }) }
    }
}

fn byte(bytes: &mut impl Buf) -> Result<u8, PacketError> {
    if bytes.has_remaining() { Ok(bytes.get_u8()) } else { Err(PacketError::Short) }
}

fn put_identity(identity: &NodeIdentity, bytes: &mut impl BufMut) {
    bytes.put_u32(identity.number);
    bytes.put_u64(identity.incarnation);
}

impl Codec<NodeIdentity> for PacketCodec {
    type Error = PacketError;

    fn encode_header(
        &mut self,
        header: &Header<NodeIdentity>,
        mut bytes: impl BufMut,
    ) -> Result<(), PacketError> {
        let (kind, probe_number, third) = match &header.message {
            Message::Ping(number) => (1, Some(*number), None),
            Message::Ack(number) => (2, Some(*number), None),
            Message::PingReq { target, probe_number } => (3, Some(*probe_number), Some(target)),
            Message::IndirectPing { origin, probe_number } => (4, Some(*probe_number), Some(origin)),
            Message::IndirectAck { target, probe_number } => (5, Some(*probe_number), Some(target)),
            Message::ForwardedAck { origin, probe_number } => (6, Some(*probe_number), Some(origin)),
            Message::Announce => (7, None, None),
            Message::Feed => (8, None, None),
            Message::Gossip => (9, None, None),
            Message::Broadcast => (10, None, None),
            Message::TurnUndead => (11, None, None),
        };
        if bytes.remaining_mut() < 3 * IDENTITY_BYTES + 4 {
            return Err(PacketError::NoRoom);
        }
        put_identity(&header.src, &mut bytes);
        bytes.put_u16(header.src_incarnation);
        put_identity(&header.dst, &mut bytes);
        bytes.put_u8(kind);
        if let Some(number) = probe_number {
            bytes.put_u8(number);
        }
        if let Some(third) = third {
            put_identity(third, &mut bytes);
        }
        Ok(())
    }

    fn decode_header(&mut self, mut bytes: impl Buf) -> Result<Header<NodeIdentity>, PacketError> {
        let bytes = &mut bytes;
        let src = self.identity(bytes)?;
        if bytes.remaining() < 2 {
            return Err(PacketError::Short);
        }
        let src_incarnation = bytes.get_u16();
        let dst = self.identity(bytes)?;
        let kind = byte(bytes)?;
        let probe_number = if (1..=6).contains(&kind) { byte(bytes)? } else { 0 };
        let message = match kind {
            1 => Message::Ping(probe_number),
            2 => Message::Ack(probe_number),
            3 => Message::PingReq { target: self.identity(bytes)?, probe_number },
            4 => Message::IndirectPing { origin: self.identity(bytes)?, probe_number },
            5 => Message::IndirectAck { target: self.identity(bytes)?, probe_number },
            6 => Message::ForwardedAck { origin: self.identity(bytes)?, probe_number },
            7 => Message::Announce,
            8 => Message::Feed,
            9 => Message::Gossip,
            10 => Message::Broadcast,
            11 => Message::TurnUndead,
            byte => return Err(PacketError::Unknown { byte }),
        };
        Ok(Header { src, src_incarnation, dst, message })
    }

    fn encode_member(
        &mut self,
        member: &Member<NodeIdentity>,
        mut bytes: impl BufMut,
    ) -> Result<(), PacketError> {
        if bytes.remaining_mut() < MEMBER_BYTES {
            return Err(PacketError::NoRoom);
        }
        put_identity(member.id(), &mut bytes);
        bytes.put_u16(member.incarnation());
        bytes.put_u8(match member.state() {
            State::Alive => 0,
            State::Suspect => 1,
            State::Down => 2,
        });
        Ok(())
    }

    fn decode_member(&mut self, mut bytes: impl Buf) -> Result<Member<NodeIdentity>, PacketError> {
        let bytes = &mut bytes;
        let identity = self.identity(bytes)?;
        if bytes.remaining() < 3 {
            return Err(PacketError::Short);
        }
        let incarnation = bytes.get_u16();
        let state = match bytes.get_u8() {
            0 => State::Alive,
            1 => State::Suspect,
            2 => State::Down,
            byte => return Err(PacketError::Unknown { byte }),
        };
        Ok(Member::new(identity, incarnation, state))
    }
}

/// What the nodes say of one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It is there.
    Up,
    /// It has not answered, and may still say that it is there.
    Suspected,
    /// It has not said so in time.
    Down,
}

/// A packet for a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The node's number.
    pub to: u32,
    /// What it is sent.
    pub bytes: Vec<u8>,
}

/// What foca asks for, until its driver does it.
#[derive(Default)]
struct Wishes {
    now_ns: u64,
    timers_begun: u64,
    /// By time, in nanoseconds, and in the order in which they were set.
    timers: BTreeMap<(u64, u64), Timer<NodeIdentity>>,
    packets: Vec<Packet>,
}

impl Runtime<NodeIdentity> for &mut Wishes {
    fn notify(&mut self, _: Notification<'_, NodeIdentity>) {
        // What is known is looked at as a whole.
    }

    fn send_to(&mut self, to: NodeIdentity, data: &[u8]) {
        self.packets.push(Packet { to: to.number, bytes: data.to_vec() });
    }

    fn submit_after(&mut self, event: Timer<NodeIdentity>, after: Duration) {
        self.timers_begun += 1;
        let after_ns = u64::try_from(after.as_nanos()).unwrap_or(u64::MAX);
        self.timers.insert((self.now_ns.saturating_add(after_ns), self.timers_begun), event);
    }
}

/// One node's part of the failure detector.
pub struct Detector {
    foca: Foca<NodeIdentity, PacketCodec, SmallRng, NoCustomBroadcast>,
    number_max: Arc<AtomicU32>,
    wishes: Wishes,
}

impl Detector {
    /// That of node `number`, which knows nobody yet. `incarnation` grows with every start of the node; `interval_ms` is how
    /// often somebody is asked, `timeout_ms` how long a node may be suspected before it is down.
    pub fn new(number: u32, incarnation: u64, interval_ms: u32, timeout_ms: u32, seed: u64) -> Self {
        let interval = Duration::from_millis(u64::from(interval_ms.max(2)));
        let fanout = NonZeroUsize::new(FANOUT).expect("not 0");
        let config = Config {
            probe_period: interval,
            probe_rtt: interval / 2,
            num_indirect_probes: fanout,
            max_transmissions: NonZeroU8::new(TRANSMISSIONS_MAX).expect("not 0"),
            suspect_to_down_after: Duration::from_millis(u64::from(timeout_ms.max(1))),
            remove_down_after: Some(DOWN_MEMORY),
            max_packet_size: NonZeroUsize::new(PACKET_BYTES_MAX).expect("not 0"),
            notify_down_members: true,
            periodic_announce: None,
            periodic_announce_to_down_members: Some(PeriodicParams {
                frequency: interval * RETRY_INTERVALS,
                num_members: fanout,
            }),
            periodic_gossip: Some(PeriodicParams { frequency: interval, num_members: fanout }),
        };
        let number_max = Arc::new(AtomicU32::new(number.saturating_add(NUMBERS_AHEAD)));
        let codec = PacketCodec { number_max: Arc::clone(&number_max) };
        let identity = NodeIdentity { number, incarnation };
        let foca = Foca::new(identity, config, SmallRng::seed_from_u64(seed), codec);
        Self { foca, number_max, wishes: Wishes::default() }
    }

    /// The largest number that a node has been given.
    pub fn set_last_number(&mut self, number: u32) {
        self.number_max.fetch_max(number.saturating_add(NUMBERS_AHEAD), Ordering::Relaxed);
    }

    /// Says to a node that this one is there; its answer makes it known.
    pub fn greet(&mut self, number: u32, now_ns: u64) {
        self.wishes.now_ns = now_ns;
        // Who is greeted answers whatever incarnation it is thought to have.
        let identity = NodeIdentity { number, incarnation: 0 };
        if let Err(error) = self.foca.announce(identity, &mut self.wishes) {
            tracing::debug!(node = number, %error, "greeting a node failed");
        }
    }

    /// Takes a packet of node `from`.
    ///
    /// # Errors
    ///
    /// It is none, or of another node. Nothing of it counts then.
    pub fn take(&mut self, from: u32, bytes: &[u8], now_ns: u64) -> Result<(), PacketError> {
        self.wishes.now_ns = now_ns;
        let sender =
            bytes.first_chunk().map(|number| u32::from_be_bytes(*number)).ok_or(PacketError::Short)?;
        if sender != from {
            return Err(PacketError::OtherSender { number: sender });
        }
        self.foca
            .handle_data(bytes, &mut self.wishes)
            .map_err(|error| PacketError::Refused(error.to_string()))
    }

    /// Does what is due.
    pub fn tick(&mut self, now_ns: u64) {
        self.wishes.now_ns = now_ns;
        while let Some(timer) = self.wishes.timers.first_entry().filter(|timer| timer.key().0 <= now_ns) {
            let timer = timer.remove();
            if let Err(error) = self.foca.handle_timer(timer, &mut self.wishes) {
                tracing::debug!(%error, "a timer of the failure detector failed");
            }
        }
    }

    /// When something is due, in nanoseconds; `u64::MAX`: nothing is.
    pub fn next_ns(&self) -> u64 {
        self.wishes.timers.first_key_value().map_or(u64::MAX, |((at_ns, _), _)| *at_ns)
    }

    /// The packets to be sent.
    pub fn take_packets(&mut self) -> Vec<Packet> {
        std::mem::take(&mut self.wishes.packets)
    }

    /// What is known of each node that has ever said something, or was spoken of; not of this one.
    pub fn healths(&self) -> impl Iterator<Item = (u32, Health)> {
        self.foca.iter_membership_state().map(|member| {
            let health = match member.state() {
                State::Alive => Health::Up,
                State::Suspect => Health::Suspected,
                State::Down => Health::Down,
            };
            (member.id().number, health)
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: u64 = 1_000_000;

    /// Nodes from 1 on, whose packets arrive at once unless the way is cut.
    struct World {
        now_ns: u64,
        detectors: BTreeMap<u32, Detector>,
        /// Nodes that neither send nor receive.
        cut: Vec<u32>,
    }

    fn detector(number: u32, incarnation: u64) -> Detector {
        Detector::new(number, incarnation, 100, 1500, u64::from(number))
    }

    impl World {
        fn new(count: u32) -> Self {
            let detectors = (1..=count).map(|number| (number, detector(number, 1))).collect();
            let mut world = Self { now_ns: 0, detectors, cut: Vec::new() };
            (1..=count).for_each(|number| world.greet_all(number));
            world
        }

        fn greet_all(&mut self, number: u32) {
            let others: Vec<u32> = self.detectors.keys().copied().filter(|&other| other != number).collect();
            for other in others {
                self.detectors.get_mut(&number).unwrap().greet(other, self.now_ns);
            }
            self.deliver();
        }

        fn deliver(&mut self) {
            loop {
                let mut packets = Vec::new();
                for (&from, detector) in &mut self.detectors {
                    packets.extend(detector.take_packets().into_iter().map(|packet| (from, packet)));
                }
                if packets.is_empty() {
                    return;
                }
                for (from, Packet { to, bytes }) in packets {
                    let is_cut = self.cut.contains(&from) || self.cut.contains(&to);
                    if let Some(detector) = self.detectors.get_mut(&to).filter(|_| !is_cut) {
                        let taken = detector.take(from, &bytes, self.now_ns);
                        assert!(taken.is_ok(), "{taken:?}");
                    }
                }
            }
        }

        fn run_ms(&mut self, ms: u64) {
            let end_ns = self.now_ns + ms * MS;
            loop {
                let next_ns = self.detectors.values().map(Detector::next_ns).min().unwrap();
                if next_ns > end_ns {
                    self.now_ns = end_ns;
                    return;
                }
                self.now_ns = self.now_ns.max(next_ns);
                let now_ns = self.now_ns;
                self.detectors.values_mut().for_each(|detector| detector.tick(now_ns));
                self.deliver();
            }
        }

        fn health(&self, at: u32, of: u32) -> Option<Health> {
            self.detectors[&at].healths().find(|(number, _)| *number == of).map(|(_, health)| health)
        }
    }

    #[test]
    fn who_is_greeted_is_known_and_stays_up() {
        let mut world = World::new(5);
        for _ in 0..50 {
            world.run_ms(100);
            for (at, of) in (1..=5).flat_map(|at| (1..=5).map(move |of| (at, of))).filter(|(at, of)| at != of)
            {
                assert_eq!(world.health(at, of), Some(Health::Up), "{of} at {at}");
            }
        }
    }

    #[test]
    fn who_falls_silent_is_suspected_then_down_then_up_again() {
        let mut world = World::new(3);
        world.run_ms(1000);
        world.cut.push(3);
        world.run_ms(600);
        assert_eq!(world.health(1, 3), Some(Health::Suspected));
        assert_eq!(world.health(2, 3), Some(Health::Suspected));
        assert_eq!(world.health(1, 2), Some(Health::Up));
        world.run_ms(2400);
        for (at, of) in [(1, 3), (2, 3), (3, 1), (3, 2)] {
            assert_eq!(world.health(at, of), Some(Health::Down), "{of} at {at}");
        }
        assert_eq!(world.health(1, 2), Some(Health::Up));
        // It is asked again by itself.
        world.cut.clear();
        world.run_ms(4000);
        for (at, of) in [(1, 3), (2, 3), (3, 1), (3, 2)] {
            assert_eq!(world.health(at, of), Some(Health::Up), "{of} at {at}");
        }
    }

    #[test]
    fn a_node_that_starts_again_is_another() {
        let mut world = World::new(3);
        world.run_ms(1000);
        world.cut.push(2);
        world.run_ms(5000);
        assert_eq!(world.health(1, 2), Some(Health::Down));
        world.cut.clear();
        world.detectors.insert(2, detector(2, 2));
        world.greet_all(2);
        assert_eq!(world.health(1, 2), Some(Health::Up));
        world.run_ms(1000);
        assert_eq!(world.health(3, 2), Some(Health::Up));
    }

    #[test]
    fn packets_of_nobody_are_refused() {
        let mut one = detector(1, 1);
        let mut far = detector(5000, 1);
        far.greet(1, 0);
        let packet = far.take_packets().pop().unwrap();
        assert!(matches!(one.take(5000, &packet.bytes, 0), Err(PacketError::Refused(_))));
        assert_eq!(one.take(4, &packet.bytes, 0), Err(PacketError::OtherSender { number: 5000 }));
        assert_eq!(one.take(4, &[0, 0], 0), Err(PacketError::Short));
        assert_eq!(one.healths().count(), 0);
        one.set_last_number(5000);
        assert_eq!(one.take(5000, &packet.bytes, 0), Ok(()));
        assert_eq!(one.healths().collect::<Vec<_>>(), [(5000, Health::Up)]);
    }

    proptest! {
        #[test]
        fn bytes_that_nobody_wrote_do_no_harm(
            packets in prop::collection::vec((0..12_u8, prop::collection::vec(any::<u8>(), 0..60)), 1..20),
        ) {
            let mut world = World::new(3);
            for (kind, tail) in packets {
                // The head of a packet from 2 to 1, so that what follows is looked at.
                let mut bytes = [&2_u32.to_be_bytes()[..], &1_u64.to_be_bytes(), &[0, 0]].concat();
                bytes.extend([&1_u32.to_be_bytes()[..], &1_u64.to_be_bytes(), &[kind]].concat());
                bytes.extend(&tail);
                let now_ns = world.now_ns;
                let one = world.detectors.get_mut(&1).unwrap();
                let _ = one.take(2, &bytes, now_ns);
                let _ = one.take(2, &tail, now_ns);
                one.take_packets();
                one.tick(now_ns + 100 * MS);
                assert!(one.healths().count() <= 3 + NUMBERS_AHEAD as usize);
            }
        }
    }
}
