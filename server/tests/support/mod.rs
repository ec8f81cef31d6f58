//! What the tests from outside share: server processes, connections, replies, transcripts.
//!
//! Everything here speaks to servers the way any client does. Nothing links against Duva's crates, so
//! these tests also run against another server under Duva's name, which is how they were checked.

#![allow(dead_code, reason = "each test program uses a part of it")]
#![allow(unreachable_pub, reason = "a module of test programs has no outside")]

pub mod connection;
pub mod model;
pub mod process;
pub mod random;
pub mod resp;
pub mod shared;
pub mod small_disk;
pub mod transcript;
pub mod workload;
