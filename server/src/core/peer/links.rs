//! One core's links to the other nodes, as its node sees them: what is to be sent, and whether it can be.
//!
//! Nothing here touches sockets: the core's loop dials, sends and closes, once a turn. A link is up from the moment at which its
//! connection is there; its Hello is then the first of its pending bytes. What was pushed and has not left when a link breaks is
//! gone. Frames leave in the order in which they were pushed; unhurried ones wait for one that is not, or for their time.

use std::{fmt, net::SocketAddr};

use duva_net::io::Token;

use crate::cluster::feature_level::FIRST;

pub use super::hello::PeerIdentity;
use super::{
    frame::{self, Frames, Kind},
    hello,
};
use crate::cluster::starts::{LastStart, Starts};

/// Bytes that wait to leave on one link past which it takes no messages of Raft, and [`Peers::has_room`] is false.
pub const UNSENT_BYTES_MAX: usize = 8 << 20;

/// How long after its failure a link is dialled again, at first and at most, in nanoseconds; doubled from time to time.
const BACKOFF_NS_MIN: u64 = 20_000_000;
const BACKOFF_NS_MAX: u64 = 1_000_000_000;

/// How far apart lines of the log about refused links are, in nanoseconds.
const REFUSAL_LOG_NS: u64 = 1_000_000_000;

/// How long a node's links are silent at least before another process may be that node, in nanoseconds. A process that has ended
/// has closed its links, unless its machine ended with it.
const SILENT_NS: u64 = 1_000_000_000;

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a frame that was dropped is not sent again"]
pub enum Pushed {
    /// It leaves unless the link breaks.
    Queued,
    /// It does not leave.
    Dropped,
}

/// Counters of one core's links.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerCounts {
    /// Frames that this core has put on their way.
    pub frames_sent: u64,
    /// Frames that this core has taken.
    pub frames_received: u64,
    /// Frames of a group that does not exist here.
    pub frames_misdirected: u64,
    /// Messages of Raft that were dropped because too much was unsent.
    pub frames_dropped: u64,
    /// Links that were refused because of what they began with.
    pub links_refused: u64,
}

/// One core's link to another node, as INFO shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkReport {
    /// The node.
    pub node: u32,
    /// Whether it takes frames.
    pub is_up: bool,
    /// Bytes that wait to leave.
    pub unsent_bytes: usize,
    /// Messages of Raft that were dropped because too much was unsent.
    pub frames_dropped: u64,
}

/// Values of [`Link::leave_ns`].
const AT_ONCE_NS: u64 = 0;
const NEVER_NS: u64 = u64::MAX;

/// A link to one node.
struct Link {
    number: u32,
    address: SocketAddr,
    stage: Stage,
    /// Frames that wait for the send that is under way, or for the end of the turn.
    pending: Vec<u8>,
    /// When these leave at the latest, in monotonic nanoseconds: with the end of a turn ([`AT_ONCE_NS`]), or, as long as all of them
    /// are unhurried, later; [`NEVER_NS`]: there are none.
    leave_ns: u64,
    /// Bytes of the send that is under way.
    unsent_bytes: usize,
    /// Messages of Raft that were dropped because too much was unsent.
    frames_dropped: u64,
    /// Failures in a row.
    failures: u32,
    /// Whether it is among those to be flushed.
    is_dirty: bool,
}

/// How far a link is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It is to be dialled at this time, in monotonic nanoseconds.
    Down { due_ns: u64 },
    /// It is being dialled, by the attempt with this ticket.
    Dialling { ticket: u64 },
    /// It is this connection, since then, in monotonic nanoseconds.
    Up { token: Token, since_ns: u64 },
}

/// Why a process is not the node that it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Impostor {
    /// Another process is, and is linked.
    Copy {
        /// The node's number.
        number: u32,
    },
    /// A later start of the node was seen than that of this process.
    Older {
        /// The node's number.
        number: u32,
    },
}

impl fmt::Display for Impostor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Copy { number } => {
                write!(
                    formatter,
                    "another process is node {number}, and is linked: this one's directory is a copy"
                )
            }
            Self::Older { number } => write!(
                formatter,
                "node {number} has been seen with a later start: this one's directory is a copy, or an older state of it, and \
                 what the node promised since is not in it"
            ),
        }
    }
}

/// A link from one core of another node.
pub(super) struct Inbound {
    pub(super) token: Token,
    pub(super) peer: PeerIdentity,
    /// What has arrived of frames that were not passed on.
    pub(super) frames: Frames,
    /// When something arrived last, in monotonic nanoseconds.
    pub(super) heard_ns: u64,
}

/// One core's links. The default has none, and none can be pushed to.
#[derive(Default)]
pub struct Peers {
    identity: Option<PeerIdentity>,
    /// By number, rising.
    links: Vec<Link>,
    pub(super) inbound: Vec<Inbound>,
    /// The processes that were linked last, by number.
    lives: Starts,
    broken: Vec<u32>,
    /// Nodes of which an accepted link broke: answers to any core may have been on it.
    silenced: Vec<u32>,
    raised: Vec<u32>,
    /// Links with pending bytes and no send under way.
    dirty: Vec<u32>,
    /// Connections of links that are not wanted any more.
    obsolete: Vec<Token>,
    /// Whether links may be due to be dialled, or to be closed.
    needs_attention: bool,
    attempts: u32,
    /// Accepted connections that have not sent their Hello.
    pub(super) greeting_count: usize,
    /// When a line about a refused link is due again, in monotonic nanoseconds.
    refusal_log_ns: u64,
    /// Counters.
    pub counts: PeerCounts,
    /// What was taken, in order.
    #[cfg(test)]
    pub(super) broken_seen: Vec<u32>,
    #[cfg(test)]
    pub(super) taken: Vec<(u32, frame::FrameHeader, Vec<u8>)>,
}

impl Peers {
    /// Says who this core is in its cluster. Before that no link is dialled or accepted; links that are there keep the identity
    /// that they began with.
    pub fn configure(&mut self, identity: PeerIdentity) {
        self.identity = Some(identity);
    }

    /// Who this core is in its cluster; `None`: in none.
    pub fn identity(&self) -> Option<&PeerIdentity> {
        self.identity.as_ref()
    }

    /// Says which nodes there are: number and address of each, in any order, this one among them or not. New ones are dialled in
    /// this turn; links to nodes that are missing or have moved are closed, and count as broken if they were up.
    ///
    /// # Panics
    /// If this core has no identity yet.
    pub fn set_nodes(&mut self, nodes: &[(u32, SocketAddr)]) {
        let own = self.identity.expect("a node knows itself before it knows others").number;
        let mut earlier = std::mem::take(&mut self.links);
        self.needs_attention = true;
        for &(number, address) in nodes.iter().filter(|&&(number, _)| number != own) {
            let link = match earlier.iter().position(|link| link.number == number) {
                Some(place) if earlier[place].address == address => earlier.swap_remove(place),
                // One that has moved is closed below.
                _ => Link {
                    number,
                    address,
                    stage: Stage::Down { due_ns: 0 },
                    pending: Vec::new(),
                    leave_ns: NEVER_NS,
                    unsent_bytes: 0,
                    frames_dropped: 0,
                    failures: 0,
                    is_dirty: false,
                },
            };
            self.links.push(link);
        }
        self.links.sort_unstable_by_key(|link| link.number);
        self.links.dedup_by_key(|link| link.number);
        let Self { lives, links, .. } = self;
        lives.retain(|number, _| links.binary_search_by_key(number, |link| link.number).is_ok());
        for link in earlier {
            if let Stage::Up { token, .. } = link.stage {
                self.obsolete.push(token);
                self.note_broken(link.number);
            }
        }
    }

    /// Takes note that the cluster has agreed on a feature level, and closes the links to nodes that are outdated by that, and to
    /// all if this one is.
    pub fn agree(&mut self, agreed: u16, is_outdated: impl Fn(u32) -> bool) {
        let Some(identity) = &mut self.identity else { return };
        if agreed <= identity.agreed && agreed <= identity.level {
            return;
        }
        identity.agreed = identity.agreed.max(agreed);
        let is_refused = |number: u32| identity.level < agreed || is_outdated(number);
        for link in self.links.iter().filter(|link| is_refused(link.number)) {
            if let Stage::Up { token, .. } = link.stage {
                self.obsolete.push(token);
            }
        }
        let inbound = self.inbound.iter();
        let refused = inbound.filter(|it| it.peer.level < agreed || is_refused(it.peer.number));
        self.obsolete.extend(refused.map(|inbound| inbound.token));
        self.needs_attention = true;
    }

    /// Puts a frame, with the payload that `write_payload` adds, on its way to node `to`; see [`frame::push`]. It is dropped, and
    /// `write_payload` not called, if the link is not up, or if it is Raft's and [`UNSENT_BYTES_MAX`] wait already. The other kinds
    /// are for their senders to hold back while [`Self::has_room`] is false.
    ///
    /// # Panics
    /// If the payload is longer than [`frame::PAYLOAD_BYTES_MAX`].
    pub fn push(
        &mut self,
        to: u32,
        kind: Kind,
        flags: u8,
        group: u16,
        write_payload: impl FnOnce(&mut Vec<u8>),
    ) -> Pushed {
        match self.put(to, kind, flags, group, write_payload) {
            Some(place) => {
                self.links[place].leave_at_once(&mut self.dirty);
                Pushed::Queued
            }
            None => Pushed::Dropped,
        }
    }

    /// As [`Self::push`], but nothing is sent for this frame alone before `until_ns`, in monotonic nanoseconds.
    ///
    /// # Panics
    /// As [`Self::push`].
    pub fn push_unhurried(
        &mut self,
        (to, until_ns): (u32, u64),
        kind: Kind,
        flags: u8,
        group: u16,
        write_payload: impl FnOnce(&mut Vec<u8>),
    ) -> Pushed {
        match self.put(to, kind, flags, group, write_payload) {
            Some(place) => {
                let link = &mut self.links[place];
                link.leave_ns = link.leave_ns.min(until_ns);
                Pushed::Queued
            }
            None => Pushed::Dropped,
        }
    }

    /// Adds a frame to what is pending; returns its link's place, unless it is dropped.
    fn put(
        &mut self,
        to: u32,
        kind: Kind,
        flags: u8,
        group: u16,
        write_payload: impl FnOnce(&mut Vec<u8>),
    ) -> Option<usize> {
        let place = self.place(to)?;
        let link = &mut self.links[place];
        if !matches!(link.stage, Stage::Up { .. }) {
            return None;
        }
        let level = kind.feature_level();
        if level > FIRST && self.identity.is_none_or(|own| level > own.agreed) {
            return None;
        }
        if kind == Kind::Raft && link.unsent_bytes() >= UNSENT_BYTES_MAX {
            self.counts.frames_dropped += 1;
            link.frames_dropped += 1;
            return None;
        }
        frame::push(&mut link.pending, kind, flags, group, write_payload);
        self.counts.frames_sent += 1;
        Some(place)
    }

    /// When unhurried frames leave at the latest, in monotonic nanoseconds; `None`: none waits.
    pub(in crate::core) fn next_ns(&self) -> Option<u64> {
        let times = self.links.iter().map(|link| link.leave_ns);
        times.filter(|&leave_ns| leave_ns != AT_ONCE_NS && leave_ns != NEVER_NS).min()
    }

    /// Lets unhurried frames leave at the end of this turn if their time has come.
    pub(in crate::core) fn hurry(&mut self, now_ns: u64) {
        for link in
            self.links.iter_mut().filter(|link| link.leave_ns != AT_ONCE_NS && link.leave_ns <= now_ns)
        {
            link.leave_at_once(&mut self.dirty);
        }
    }

    /// Whether the link to `to` takes frames.
    pub fn is_up(&self, to: u32) -> bool {
        self.place(to).is_some_and(|place| matches!(self.links[place].stage, Stage::Up { .. }))
    }

    /// Whether the link by which `node` answers this core is there, if it has as many cores.
    pub fn hears(&self, node: u32) -> bool {
        let own = self.identity.as_ref().map(|own| own.cores);
        self.inbound.iter().any(|inbound| inbound.peer.number == node && Some(inbound.peer.cores) == own)
    }

    /// Whether the link to `to` has lasted a while: who finds another node there, or is refused, loses it at once.
    pub fn is_steady(&self, to: u32, now_ns: u64) -> bool {
        const STEADY_NS: u64 = 200_000_000;
        self.place(to).is_some_and(|place| {
            matches!(self.links[place].stage, Stage::Up { since_ns, .. } if now_ns >= since_ns + STEADY_NS)
        })
    }

    /// Whether less than [`UNSENT_BYTES_MAX`] waits to leave for `to`. A link that is not up has room: what is pushed there is
    /// dropped.
    pub fn has_room(&self, to: u32) -> bool {
        self.place(to).is_none_or(|place| self.links[place].unsent_bytes() < UNSENT_BYTES_MAX)
    }

    /// The nodes whose links broke, or could not be dialled, since this was asked last, each once. What was sent to them before
    /// may have arrived or not. A link may be up again already.
    pub fn take_broken(&mut self) -> impl Iterator<Item = u32> + use<> {
        #[cfg(test)]
        self.broken_seen.extend(&self.broken);
        std::mem::take(&mut self.broken).into_iter()
    }

    /// The nodes of which an accepted link broke since this was asked last, each once. What it was to bring to this node's other
    /// cores is lost, too.
    pub fn take_silenced(&mut self) -> impl Iterator<Item = u32> + use<> {
        std::mem::take(&mut self.silenced).into_iter()
    }

    /// The nodes whose links came up since this was asked last.
    pub fn take_raised(&mut self) -> impl Iterator<Item = u32> + use<> {
        std::mem::take(&mut self.raised).into_iter()
    }

    /// The nodes that there are links to, up or not.
    pub fn nodes(&self) -> impl Iterator<Item = u32> {
        self.links.iter().map(|link| link.number)
    }

    /// How the links are.
    pub fn link_reports(&self) -> impl Iterator<Item = LinkReport> {
        self.links.iter().map(|link| LinkReport {
            node: link.number,
            is_up: matches!(link.stage, Stage::Up { .. }),
            unsent_bytes: link.unsent_bytes(),
            frames_dropped: link.frames_dropped,
        })
    }

    /// Whether links may have to be dialled or closed in this turn.
    #[inline]
    pub(in crate::core) fn needs_attention(&self) -> bool {
        self.needs_attention
    }

    /// Whether frames wait for the turn's end.
    #[inline]
    pub(in crate::core) fn has_unflushed(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// A link may have become due to be dialled.
    pub(in crate::core) fn attend(&mut self) {
        self.needs_attention = true;
    }

    /// Connections to be closed.
    pub(super) fn take_obsolete(&mut self) -> Vec<Token> {
        std::mem::take(&mut self.obsolete)
    }

    /// Begins to dial the links that are due: tickets and addresses.
    pub(super) fn begin_dials(&mut self, now_ns: u64) -> Vec<(u64, SocketAddr)> {
        self.needs_attention = false;
        let Self { links, attempts, .. } = self;
        let due = links
            .iter_mut()
            .filter(|link| matches!(link.stage, Stage::Down { due_ns } if due_ns <= now_ns))
            .map(|link| {
                *attempts = attempts.wrapping_add(1);
                let ticket = u64::from(link.number) << 32 | u64::from(*attempts);
                link.stage = Stage::Dialling { ticket };
                (ticket, link.address)
            });
        due.collect()
    }

    /// The node that the attempt with this ticket dials, if it is still wanted.
    pub(super) fn dialled(&self, ticket: u64) -> Option<u32> {
        let number = (ticket >> 32) as u32;
        let link = &self.links[self.place(number)?];
        (link.stage == Stage::Dialling { ticket }).then_some(number)
    }

    /// The link to `number` is this connection from now on, and its Hello is pending.
    pub(super) fn raise(&mut self, number: u32, token: Token, now_ns: u64) {
        let (Some(place), Some(identity)) = (self.place(number), &self.identity) else { return };
        let link = &mut self.links[place];
        link.stage = Stage::Up { token, since_ns: now_ns };
        hello::push(&mut link.pending, identity, number);
        self.raised.push(number);
        link.leave_at_once(&mut self.dirty);
    }

    /// The link to `number` has failed; returns when it is dialled again. `random` spreads the nodes that dial one.
    pub(super) fn fail(&mut self, number: u32, now_ns: u64, random: u64) -> Option<u64> {
        let place = self.place(number)?;
        let link = &mut self.links[place];
        // One that is accepted, only to be closed at once, counts as a failure.
        if let Stage::Up { since_ns, .. } = link.stage
            && now_ns.saturating_sub(since_ns) >= BACKOFF_NS_MAX
        {
            link.failures = 0;
        }
        let longest_ns = BACKOFF_NS_MIN.saturating_mul(1 << link.failures.min(16)).min(BACKOFF_NS_MAX);
        let due_ns = now_ns + longest_ns / 2 + random % (longest_ns / 2 + 1);
        link.failures = link.failures.saturating_add(1);
        link.stage = Stage::Down { due_ns };
        link.pending = Vec::new();
        link.leave_ns = NEVER_NS;
        link.unsent_bytes = 0;
        self.note_broken(number);
        Some(due_ns)
    }

    /// The node that this connection is the link to.
    pub(super) fn number_of(&self, token: Token) -> Option<u32> {
        self.links.iter().find(|link| link.is(token)).map(|link| link.number)
    }

    /// Takes the links that may have something to send.
    pub(super) fn take_dirty(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.dirty)
    }

    /// Gives the emptied list of [`Self::take_dirty`] back.
    pub(super) fn keep_dirty(&mut self, mut list: Vec<u32>) {
        if self.dirty.is_empty() {
            list.clear();
            self.dirty = list;
        }
    }

    /// Whether this process is the node that it says, and no copy of it.
    pub(super) fn check(&mut self, peer: &PeerIdentity, now_ns: u64) -> Result<(), Impostor> {
        let number = peer.number;
        let is_linked = self.inbound.iter().any(|inbound| {
            let is_heard = now_ns < inbound.heard_ns.saturating_add(SILENT_NS);
            is_heard && inbound.peer.node == peer.node && inbound.peer.life != peer.life
        });
        if is_linked {
            return Err(Impostor::Copy { number });
        }
        if self.lives.get(&number).is_some_and(|known| known.life != peer.life && peer.epoch <= known.epoch) {
            return Err(Impostor::Older { number });
        }
        // Of nodes that are not known yet nothing is kept.
        if self.place(number).is_some() {
            let &PeerIdentity { life, epoch, .. } = peer;
            self.lives.insert(number, LastStart { life, epoch });
        }
        Ok(())
    }

    /// Another core, or an earlier process, has seen this start of a node.
    pub(super) fn recall(&mut self, number: u32, start: LastStart) {
        if self.lives.get(&number).is_none_or(|known| known.epoch < start.epoch) {
            self.lives.insert(number, start);
        }
    }

    /// The last start of a node that is kept.
    pub(super) fn last_start(&self, number: u32) -> Option<LastStart> {
        self.lives.get(&number).copied()
    }

    /// The connection of the link to `number`, if it has something to send and no send is under way.
    pub(super) fn begin_flush(&mut self, number: u32) -> Option<Token> {
        let place = self.place(number)?;
        let link = &mut self.links[place];
        link.is_dirty = false;
        match link.stage {
            Stage::Up { token, .. } if !link.pending.is_empty() && link.unsent_bytes == 0 => Some(token),
            _ => None,
        }
    }

    /// Takes what is pending for `number`, to be sent now; `spare` takes what comes next.
    pub(super) fn take_pending(&mut self, number: u32, spare: Vec<u8>) -> Vec<u8> {
        let Some(place) = self.place(number) else { return Vec::new() };
        let link = &mut self.links[place];
        link.unsent_bytes = link.pending.len();
        link.leave_ns = NEVER_NS;
        std::mem::replace(&mut link.pending, spare)
    }

    /// The send of this connection is over.
    pub(super) fn sent(&mut self, token: Token) {
        let Some(link) = self.links.iter_mut().find(|link| link.is(token)) else { return };
        link.unsent_bytes = 0;
        if link.leave_ns == AT_ONCE_NS {
            link.mark_dirty(&mut self.dirty);
        }
    }

    /// Whether a refused link is to be logged; often it is the same again and again.
    pub(super) fn is_refusal_logged(&mut self, now_ns: u64) -> bool {
        self.counts.links_refused += 1;
        let is_due = now_ns >= self.refusal_log_ns;
        if is_due {
            self.refusal_log_ns = now_ns + REFUSAL_LOG_NS;
        }
        is_due
    }

    pub(super) fn note_broken(&mut self, number: u32) {
        if !self.broken.contains(&number) {
            self.broken.push(number);
        }
    }

    pub(super) fn note_silenced(&mut self, number: u32) {
        self.note_broken(number);
        if !self.silenced.contains(&number) {
            self.silenced.push(number);
        }
    }

    fn place(&self, number: u32) -> Option<usize> {
        self.links.binary_search_by_key(&number, |link| link.number).ok()
    }
}

impl Link {
    fn unsent_bytes(&self) -> usize {
        self.pending.len() + self.unsent_bytes
    }

    fn is(&self, connection: Token) -> bool {
        matches!(self.stage, Stage::Up { token, .. } if token == connection)
    }

    /// All that is pending leaves with the end of this turn, or of the send that is under way.
    fn leave_at_once(&mut self, dirty: &mut Vec<u32>) {
        self.leave_ns = AT_ONCE_NS;
        self.mark_dirty(dirty);
    }

    fn mark_dirty(&mut self, dirty: &mut Vec<u32>) {
        if !self.is_dirty {
            self.is_dirty = true;
            dirty.push(self.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: PeerIdentity = PeerIdentity {
        cluster: [9; 16],
        node: [1; 16],
        number: 1,
        core: 0,
        cores: 1,
        life: 1,
        epoch: 1,
        level: 2,
        agreed: 1,
    };

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn token(index: u32) -> Token {
        Token { index, generation: 0 }
    }

    fn peers(nodes: &[(u32, SocketAddr)]) -> Peers {
        let mut peers = Peers::default();
        peers.configure(OWN);
        peers.set_nodes(nodes);
        peers
    }

    /// Dials what is due; all of it is answered.
    fn raise_all(peers: &mut Peers, now_ns: u64) -> Vec<u32> {
        let numbers = peers.begin_dials(now_ns).into_iter().map(|(ticket, _)| {
            let number = peers.dialled(ticket).expect("it was just dialled");
            peers.raise(number, token(number), now_ns);
            number
        });
        numbers.collect()
    }

    fn push(peers: &mut Peers, to: u32, kind: Kind, length: usize) -> Pushed {
        peers.push(to, kind, 0, 5, |out| out.resize(out.len() + length, 7))
    }

    #[test]
    fn without_a_cluster_nothing_is_wanted() {
        let mut peers = Peers::default();
        assert_eq!(push(&mut peers, 2, Kind::Forward, 1), Pushed::Dropped);
        assert!(!peers.is_up(2) && peers.has_room(2));
        assert!(!peers.needs_attention() && !peers.has_unflushed());
        assert_eq!(peers.take_broken().count(), 0);
    }

    #[test]
    fn nodes_come_move_and_go() {
        let mut peers = peers(&[(3, address(3)), (1, address(1)), (2, address(2))]);
        assert!(peers.needs_attention());
        assert_eq!(raise_all(&mut peers, 0), [2, 3]);
        assert!(peers.is_up(2) && peers.is_up(3) && !peers.is_up(1));
        peers.set_nodes(&[(2, address(2)), (3, address(30)), (4, address(4))]);
        assert!(peers.is_up(2) && !peers.is_up(3));
        assert_eq!(peers.take_broken().collect::<Vec<_>>(), [3]);
        assert_eq!(peers.take_obsolete(), [token(3)]);
        let dials = peers.begin_dials(0);
        assert_eq!(dials.iter().map(|dial| dial.1).collect::<Vec<_>>(), [address(30), address(4)]);
        // An attempt whose node has gone, or moved again, is not wanted any more.
        peers.set_nodes(&[(2, address(2)), (3, address(31))]);
        assert!(dials.iter().all(|&(ticket, _)| peers.dialled(ticket).is_none()));
        assert_eq!(peers.take_broken().count(), 0);
        assert_eq!(raise_all(&mut peers, 0), [3]);
    }

    #[test]
    fn raft_yields_when_too_much_is_unsent_and_the_rest_does_not() {
        let mut peers = peers(&[(2, address(2))]);
        assert_eq!(push(&mut peers, 2, Kind::Forward, 1), Pushed::Dropped);
        raise_all(&mut peers, 0);
        let mut count = 0;
        while peers.has_room(2) {
            assert_eq!(push(&mut peers, 2, Kind::Raft, 1 << 20), Pushed::Queued);
            count += 1;
        }
        assert_eq!(count, 8);
        let taken = peers.take_pending(2, Vec::new());
        assert_eq!(taken.len(), hello::HELLO_BYTES + 8 * ((1 << 20) + frame::HEADER_BYTES));
        // What is being sent counts until it was.
        assert!(!peers.has_room(2));
        assert_eq!(push(&mut peers, 2, Kind::Raft, 1), Pushed::Dropped);
        assert_eq!(push(&mut peers, 2, Kind::Forward, 1), Pushed::Queued);
        assert_eq!((peers.counts.frames_dropped, peers.counts.frames_sent), (1, 9));
        let report: Vec<LinkReport> = peers.link_reports().collect();
        let unsent_bytes = taken.len() + frame::HEADER_BYTES + 1;
        assert_eq!(report, [LinkReport { node: 2, is_up: true, unsent_bytes, frames_dropped: 1 }]);
        peers.sent(token(2));
        assert!(peers.has_room(2));
        assert_eq!(peers.take_pending(2, Vec::new()).len(), frame::HEADER_BYTES + 1);
    }

    #[test]
    fn a_link_that_fails_is_dialled_less_and_less_often() {
        let mut peers = peers(&[(2, address(2))]);
        let mut now_ns = 0;
        for longest_ms in [20, 40, 80, 160, 320, 640, 1000, 1000] {
            let (ticket, _) = peers.begin_dials(now_ns)[0];
            assert_eq!(peers.dialled(ticket), Some(2));
            for random in [0, u64::MAX, 12_345_678_901] {
                let mut again = Peers { links: Vec::new(), ..Peers::default() };
                again.configure(OWN);
                again.set_nodes(&[(2, address(2))]);
                again.links[0].failures = peers.links[0].failures;
                let wait_ns = again.fail(2, now_ns, random).unwrap() - now_ns;
                assert!((longest_ms * 500_000..=longest_ms * 1_000_000).contains(&wait_ns), "{wait_ns}");
            }
            let due_ns = peers.fail(2, now_ns, 7).unwrap();
            assert_eq!(peers.take_broken().collect::<Vec<_>>(), [2]);
            assert!(peers.begin_dials(due_ns - 1).is_empty());
            now_ns = due_ns;
        }
        // One that has lasted begins anew; one that has not goes on.
        raise_all(&mut peers, now_ns);
        assert_eq!(peers.fail(2, now_ns + 1, 0), Some(now_ns + 1 + BACKOFF_NS_MAX / 2));
        now_ns += BACKOFF_NS_MAX;
        raise_all(&mut peers, now_ns);
        assert_eq!(push(&mut peers, 2, Kind::Gossip, 10), Pushed::Queued);
        now_ns += BACKOFF_NS_MAX;
        assert_eq!(peers.fail(2, now_ns, 0), Some(now_ns + BACKOFF_NS_MIN / 2));
        assert_eq!(peers.links[0].unsent_bytes(), 0);
    }

    #[test]
    fn unhurried_frames_wait_for_company_or_their_time() {
        let mut peers = peers(&[(2, address(2)), (3, address(3))]);
        raise_all(&mut peers, 0);
        for number in peers.take_dirty() {
            assert!(peers.begin_flush(number).is_some());
            peers.take_pending(number, Vec::new());
            peers.sent(token(number));
        }
        let unhurried = |peers: &mut Peers, to, until_ns| {
            peers.push_unhurried((to, until_ns), Kind::Raft, 0, 5, |out| out.push(7))
        };
        assert_eq!(unhurried(&mut peers, 4, 50), Pushed::Dropped);
        assert_eq!(peers.next_ns(), None);
        assert_eq!(unhurried(&mut peers, 2, 60), Pushed::Queued);
        assert_eq!(unhurried(&mut peers, 3, 50), Pushed::Queued);
        assert_eq!(unhurried(&mut peers, 3, 70), Pushed::Queued);
        assert_eq!(peers.next_ns(), Some(50));
        peers.hurry(49);
        assert!(!peers.has_unflushed());
        // Company for one of them.
        assert_eq!(push(&mut peers, 2, Kind::Raft, 1), Pushed::Queued);
        assert_eq!(peers.take_dirty(), [2]);
        assert_eq!(peers.take_pending(2, Vec::new()).len(), 2 * (frame::HEADER_BYTES + 1));
        // The other one's time, while a send to the first is under way.
        peers.hurry(50);
        assert_eq!((peers.next_ns(), peers.take_dirty()), (None, vec![3]));
        assert_eq!(peers.take_pending(3, Vec::new()).len(), 2 * (frame::HEADER_BYTES + 1));
        // The end of an earlier send hurries nothing.
        assert!(peers.begin_flush(2).is_none() && peers.begin_flush(3).is_none());
        assert_eq!(unhurried(&mut peers, 2, 80), Pushed::Queued);
        assert_eq!(unhurried(&mut peers, 3, 90), Pushed::Queued);
        peers.sent(token(2));
        assert_eq!((peers.next_ns(), peers.take_dirty()), (Some(80), vec![]));
        peers.hurry(90);
        assert_eq!((peers.next_ns(), peers.take_dirty()), (None, vec![2, 3]));
        // The second one's time has come while its send is under way.
        assert!(peers.begin_flush(2).is_some() && peers.begin_flush(3).is_none());
        peers.sent(token(3));
        assert_eq!(peers.take_dirty(), [3]);
    }

    #[test]
    fn who_is_outdated_loses_its_links() {
        let mut peers = peers(&[(2, address(2)), (3, address(3)), (4, address(4))]);
        raise_all(&mut peers, 0);
        // The third is linked by a process of an earlier version; the fourth to another core of this node.
        for (number, level) in [(2, 2), (3, 1)] {
            let peer = PeerIdentity { node: [number; 16], number: u32::from(number), level, ..OWN };
            let token = token(10 + u32::from(number));
            peers.inbound.push(Inbound { token, peer, frames: Frames::default(), heard_ns: 0 });
        }
        let is_outdated = |number| number == 3 || number == 4;
        peers.agree(1, is_outdated);
        assert!(peers.take_obsolete().is_empty(), "nothing has changed");
        peers.agree(2, is_outdated);
        assert_eq!(peers.take_obsolete(), [token(3), token(4), token(13)]);
        peers.agree(1, is_outdated);
        assert_eq!(peers.identity().map(|own| own.agreed), Some(2));
        // Now this one is.
        peers.agree(3, |_| false);
        assert_eq!(peers.take_obsolete(), [2, 3, 4, 12, 13].map(token));
    }

    #[test]
    fn refusals_are_not_all_logged() {
        let mut peers = peers(&[]);
        let logged = (0..100).filter(|&turn| peers.is_refusal_logged(5_000_000_000 + turn * 100_000_000));
        assert_eq!(logged.count(), 10);
        assert_eq!(peers.counts.links_refused, 100);
    }
}
