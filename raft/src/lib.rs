//! Raft for one group of replicas, without I/O: no sockets, no files, no clock, no threads.
//!
//! A [`Raft`] is one replica. It is told what happens ([`Raft::tick`], [`Raft::step`], [`Raft::propose`], ...), and
//! [`Raft::take_ready`] says what is to be done about it. Payloads are opaque.
//!
//! # Driving a replica
//!
//! ```text
//! let mut raft = Raft::new(config, restored, now_ns, seed);
//! loop {
//!     raft.tick(now_ns);                       // at next_deadline_ns; and step, propose, read, ... with what came
//!     raft.take_ready(now_ns, &mut ready);     // while has_ready
//!     send(ready.messages);                    // all of them may leave at once
//!     journal.append(ready.write);             // numbered; its first entry replaces all that the log has from there on
//!     apply(ready.committed); raft.applied(index);
//!     answer(ready.reads, ready.failed_reads);
//!     read(ready.fetches);                     // from raft.batch(from, bytes) or the journal; then raft.fetched(peer, from, entries)
//!     snapshots.read(ready.snapshot_reads);    // then raft.snapshot_read(...), or snapshot_unreadable
//!     snapshots.store(ready.snapshot_writes);  // then raft.snapshot_stored(...), and snapshot_installed after the last
//!     // when the journal gets there:
//!     raft.written(number); raft.synced(number);
//! }
//! ```
//!
//! **Time** is any clock that does not go back and runs while the machine sleeps, in nanoseconds; only differences
//! matter, and they are those of one replica. A call with an earlier time than one before is as good as one with that
//! time.
//!
//! **Messages** may be lost, delayed, repeated and reordered. [`codec`] makes bytes of them. Tell [`Raft::unreachable`]
//! when a link broke: it saves waiting for what will not be answered.
//!
//! **The disk** gets one [`Write`] after another, in order. [`Raft::written`] and [`Raft::synced`] tell how far it
//! is, each with all earlier writes. A write with a hard state must be synced soon, whatever [`Durability`] says. A
//! write's entries replace the log from the first one's index on. What a crash leaves of the writes is a prefix, and
//! becomes [`Restored`]. A driver that also keeps how far it has applied may go on from there: [`Raft::with_applied`].
//!
//! **The state machine** gets [`Ready::committed`], each entry once and in order, entries of all [kinds](EntryKind)
//! so that none is missing. [`Raft::applied`] lets them leave memory. Nothing that is committed is taken back.
//!
//! **Proposals** are accepted by the leader alone, and refused with a reason: [`ProposeError`]. An accepted one is
//! committed unless the leader is deposed; the driver learns by watching its index, see [`Raft::propose`]. A replica
//! sends no one's proposals on.
//!
//! **Memory.** A driver that is done with a list of entries gives it to [`Ready::lists`], from which the next ones are taken, and one
//! that makes payloads with [`Payloads`] has many of them in one allocation: then entries allocate next to nothing.
//!
//! **Reads** are refused, or accepted and then answered or failed, each once. A read that may be served at an index
//! waits until that is applied. A follower's reads ask the leader.
//!
//! **Snapshots.** When the state machine up to an applied entry is durable elsewhere, [`Raft::compact`] forgets the
//! log's beginning. A peer that needs it gets the snapshot in pieces: the driver reads and stores them. A snapshot
//! that came whole is put in force by [`Raft::snapshot_installed`]: before that call, the state machine is loaded
//! from it; it is durable, so that a restart finds it; writes handed out before have reached the journal; and if not
//! [`Raft::keeps_log`], then the journal has durably forgotten the replica's log. Where that takes two steps, a crash
//! may fall between them: see [`Restored::entries`].
//! A snapshot that cannot be stored or loaded is given up with [`Raft::snapshot_failed`]; one that comes while too many others
//! do, with [`Raft::snapshot_refused`], until [`Raft::invite_snapshot`].
//!
//! **Elections** are held without the driver. [`Raft::campaign`] spares the random part of the wait;
//! [`Raft::transfer_leadership`] moves leadership without a gap, and [`Raft::propose_membership`] changes who takes part.
//!
//! # Invariants
//!
//! - **Persist before send.** A message that depends on something durable does not exist before [`Raft::synced`] (or
//!   [`Raft::written`], see [`Durability`]) said that it is: vote requests, votes and acknowledgements appear in a later
//!   `Ready`. So whatever `Ready::messages` holds may leave at once.
//! - A leader's own copy counts like any other: when it is durable. A leader whose disk stalls commits through its
//!   followers.
//! - An entry is committed when a majority (of both halves of a joint membership) holds it durably and an entry of the
//!   leader's own term is committed with it.
//! - Nothing is dropped silently: a proposal or read that cannot be served is refused with a typed reason, and a read
//!   that was accepted is answered or failed.
//! - A replica acts under its id alone: it ignores messages to another. Who may have lost something acknowledged comes
//!   back under a new id, as a learner.
//! - All that it does follows from its configuration, what was restored, its seed, and the calls.
//! - A broken promise stops the replica: two leaders in one term, a committed entry that is contradicted, an
//!   acknowledged one that is lost. It panics rather than go on.
//!
//! # Sources
//!
//! D. Ongaro, J. Ousterhout: In Search of an Understandable Consensus Algorithm (2014), and Ongaro's thesis (2014), whose
//! figures and sections the modules name.

pub mod codec;
mod log;
pub mod membership;
pub mod message;
pub mod mutation;
pub mod payload;
pub mod progress;
mod queue;
mod raft;
mod random;
pub mod ready;
pub mod types;

pub use codec::DecodeError;
pub use membership::Membership;
pub use message::{Body, Message};
pub use payload::{Payload, Payloads};
pub use progress::{Progress, ProgressState};
pub use raft::Raft;
pub use ready::{Fetch, Lists, ReadState, Ready, SnapshotRead, SnapshotWrite, Write};
pub use types::{
    AppliedLog, Config, Durability, ENTRY_OVERHEAD_BYTES, Entry, EntryKind, HardState, Index, Proposal,
    ProposeError, ReadMode, ReadOutcome, ReplicaId, Restored, Role, SnapshotMeta, Term,
};
