//! What the Raft paper (Ongaro, Ousterhout: In Search of an Understandable Consensus Algorithm, extended version)
//! and Ongaro's thesis (Consensus: Bridging Theory and Practice) promise, property by property and figure by
//! figure.
//!
//! Each test names its section or figure. Transcripts show what replicas say to one another; here it is what holds
//! in the end.

#![allow(unreachable_pub, reason = "a module of test programs has no outside")]

#[path = "paper/commitment.rs"]
mod commitment;
#[path = "paper/elections.rs"]
mod elections;
#[path = "paper/membership.rs"]
mod membership;
#[path = "paper/network.rs"]
mod network;
#[path = "paper/properties.rs"]
mod properties;
#[path = "paper/reads.rs"]
mod reads;
#[path = "paper/replication.rs"]
mod replication;
#[path = "paper/snapshots.rs"]
mod snapshots;
#[path = "paper/terms.rs"]
mod terms;
#[path = "paper/transfer.rs"]
mod transfer;
