//! The links between the nodes of a cluster.
//!
//! Each core dials one TCP link to every other node and only sends on it; what that node says comes on a link of its own. A
//! link carries frames ([`frame`]), the first of them a Hello ([`hello`]), which also tells the node that accepts the link to which of
//! its cores the link belongs. Invariants:
//!
//! - **In order, or broken.** The frames that a link takes arrive in order and without gaps, up to the moment at which it breaks;
//!   nothing is sent twice. Who needs an answer learns of the break from [`links::Peers::take_broken`].
//! - **Nothing is believed before it is checked.** A link that does not begin with this cluster's Hello is closed, and so is one
//!   whose bytes are not frames with right checksums. Memory grows as bytes arrive, never as they are announced.
//! - **Bounded.** Of Raft's messages, which Raft sends again, a link keeps [`links::UNSENT_BYTES_MAX`]; all else is its sender's to hold
//!   back. A node that cannot hand frames on to its other cores stops reading.
//! - **Not clients.** Links share the connection table and the send path, but no limit, list or count of clients.
//!
//! A server that is not a node of a cluster has no identity, no links, and pays a test of two flags a turn.

mod drive;
pub mod frame;
pub mod hello;
pub mod links;
mod receive;
#[cfg(test)]
mod tests;
