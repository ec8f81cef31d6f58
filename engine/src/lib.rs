//! The pure heart of Duva: values, the keyspace, commands and the reply writer.
//!
//! Nothing here performs I/O, reads a clock, starts a thread or draws a random number: bytes, time and
//! seeds are arguments. Invariants that the rest of the system leans on:
//!
//! - **Determinism.** The effect and the reply of a write depend on the state, the command, its timestamp
//!   and its seed alone.
//! - **One owner.** A [`Shard`] is owned by one core at a time; nothing in it is shared.
//! - **Bounded steps.** No single table operation touches more than one bounded table.

mod args;
mod call;
pub mod command;
mod crc16;
mod entry;
mod glob;
mod hash;
mod number;
mod once;
pub mod rdb;
mod reply;
mod shard;
mod shards;
mod slab;
mod table;
mod transaction;
mod wheel;

pub use args::{Args, ArgumentRange, LARGE_ARGUMENT};
pub use call::{Call, Resume, Settings, Step};
pub use crc16::key_slot;
pub use entry::{DetachedEntry, EntryRef, Value};
pub use glob::glob_match;
pub use hash::{Hasher, KeyHash};
pub use number::{format_i64, parse_i64};
pub use once::{BadOnceRecords, ONCE_ID_BYTES_MAX, OnceSnapshot, OnceTotals};
pub use reply::{Protocol, Reply};
pub use shard::{Cursor, Deadline, Saved, SavedEntry, Shard};
pub use shards::Shards;
pub use transaction::{BadTransaction, Prepared, TransactionName, Transactions};

/// Hash slots, as Redis Cluster has them.
pub const SLOT_COUNT: u16 = 16_384;

/// Logical databases a client can SELECT.
pub const DATABASE_COUNT: u8 = 16;
