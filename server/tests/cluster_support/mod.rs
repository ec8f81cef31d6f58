//! What the tests of clusters share: nodes as processes, clients that record what they saw, networks that can be cut.
//!
//! Nothing here waits for a time: it waits for what a node says or what clients were answered, up to a deadline that is
//! far beyond what a healthy cluster needs.

#![allow(dead_code, reason = "each test program uses a part of it")]
#![allow(unreachable_pub, reason = "a module of test programs has no outside")]

pub mod load;
pub mod network;
pub mod node;
pub mod shards;

use std::time::{Duration, Instant};

/// How long a cluster may take for anything before it counts as hung.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Between two looks at something that comes soon.
pub const LOOK_PAUSE: Duration = Duration::from_millis(5);

/// Looks again and again until `look` returns something.
///
/// # Panics
/// With `what` was waited for and the last reason why it was not there, after [`DEADLINE`].
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(reason) if start.elapsed() > DEADLINE => panic!("waited in vain for {what}: {reason}"),
            Err(_) => std::thread::park_timeout(LOOK_PAUSE),
        }
    }
}
