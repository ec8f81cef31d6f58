//! Networks that can be cut: every node in a network namespace of its own, all on one bridge.
//!
//! Invariants:
//! - Namespaces have no names and are held by descriptors and threads alone, so nothing is left behind, however the test
//!   ends, and the machine's own network is never touched.
//! - A cut is one-way: packets from one node to another go to a hardware address that nobody has. Neither side is told,
//!   as with a broken cable. It needs no packet filter.
//! - The test's threads are on the bridge, too, and reach every node whatever is cut.

use std::fs::File;
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;
use std::thread;

/// A hardware address that nobody has.
const NOBODY: &str = "02:00:00:00:ff:ff";

/// A network of a few nodes, for the threads of one test.
pub struct Network {
    namespaces: Vec<Arc<OwnedFd>>,
}

/// Runs `test` on a thread with a network of so many nodes; where the system does not allow one, says so and returns.
///
/// # Panics
/// When the test does.
pub fn with_network(nodes: usize, test: impl FnOnce(&Network) + Send + 'static) {
    let name = thread::current().name().unwrap_or("a test").to_owned();
    let run = move || match Network::make(nodes) {
        Ok(network) => {
            test(&network);
            None
        }
        Err(reason) => Some(reason),
    };
    // A thread of its own: it never leaves the namespace that it enters.
    let run = thread::Builder::new().name(name.clone()).spawn(run).expect("a test may have a thread");
    let skipped = run.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    if let Some(reason) = skipped {
        // Not by a macro, whose output is not shown for tests that pass.
        let _ = writeln!(io::stderr(), "SKIPPED {name}: no network namespaces: {reason}");
    }
}

impl Network {
    /// Lets this thread enter a new namespace with a bridge, and connects new namespaces with it.
    fn make(nodes: usize) -> Result<Self, String> {
        enter_new_namespace().map_err(|error| error.to_string())?;
        ip(None, "link set lo up")?;
        ip(None, "link add hub type bridge")?;
        ip(None, "addr add 10.99.0.254/24 dev hub")?;
        ip(None, "link set hub up")?;
        let mut network = Self { namespaces: Vec::new() };
        for number in 0..nodes {
            let namespace = thread::spawn(|| -> io::Result<OwnedFd> {
                enter_new_namespace()?;
                Ok(File::open("/proc/thread-self/ns/net")?.into())
            });
            let namespace =
                namespace.join().expect("it does not panic").map_err(|error| error.to_string())?;
            let path = format!("/proc/{}/fd/{}", std::process::id(), namespace.as_raw_fd());
            ip(None, &format!("link add port{number} type veth peer name eth0 netns {path}"))?;
            ip(None, &format!("link set port{number} master hub up"))?;
            ip(Some(&namespace), "link set lo up")?;
            ip(Some(&namespace), &format!("addr add {}/24 dev eth0", Self::host(number)))?;
            ip(Some(&namespace), "link set eth0 up")?;
            network.namespaces.push(Arc::new(namespace));
        }
        Ok(network)
    }

    /// A node's address.
    pub fn host(node: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, 99, 0, u8::try_from(node + 1).expect("networks are small"))
    }

    /// A node's namespace.
    pub fn namespace(&self, node: usize) -> Arc<OwnedFd> {
        Arc::clone(&self.namespaces[node])
    }

    /// From now on nothing that `from` sends comes to `to`.
    pub fn cut_one_way(&self, from: usize, to: usize) {
        let text = format!("neigh replace {} lladdr {NOBODY} nud permanent dev eth0", Self::host(to));
        ip(Some(&self.namespaces[from]), &text).unwrap_or_else(|reason| panic!("{reason}"));
    }

    /// Ends what [`Self::cut_one_way`] did.
    pub fn heal_one_way(&self, from: usize, to: usize) {
        let text = format!("neigh del {} dev eth0", Self::host(to));
        ip(Some(&self.namespaces[from]), &text).unwrap_or_else(|reason| panic!("{reason}"));
    }

    /// Cuts a node off from all others, both ways.
    pub fn isolate(&self, node: usize) {
        for other in (0..self.namespaces.len()).filter(|&other| other != node) {
            self.cut_one_way(node, other);
            self.cut_one_way(other, node);
        }
    }

    /// Ends what [`Self::isolate`] did.
    pub fn rejoin(&self, node: usize) {
        for other in (0..self.namespaces.len()).filter(|&other| other != node) {
            self.heal_one_way(node, other);
            self.heal_one_way(other, node);
        }
    }

    /// Runs `work` on a thread in a node's namespace.
    ///
    /// # Panics
    /// When it does.
    pub fn inside<T: Send>(&self, node: usize, work: impl FnOnce() -> T + Send) -> T {
        let descriptor = self.namespaces[node].as_raw_fd();
        thread::scope(|scope| {
            let thread = scope.spawn(move || {
                // SAFETY: setns takes two integers; the descriptor is open as long as `self` is borrowed.
                let result = unsafe { libc::setns(descriptor, libc::CLONE_NEWNET) };
                assert_eq!(result, 0, "{}", io::Error::last_os_error());
                work()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

fn enter_new_namespace() -> io::Result<()> {
    // SAFETY: unshare takes an integer; a network namespace concerns this thread alone and none of its memory.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Runs `ip` with these words, in the namespace or else in that of this thread.
fn ip(namespace: Option<&OwnedFd>, words: &str) -> Result<(), String> {
    let mut command = Command::new("ip");
    command.args(words.split(' '));
    if let Some(descriptor) = namespace.map(AsRawFd::as_raw_fd) {
        let enter = move || {
            // SAFETY: setns takes two integers; the descriptor is open until the command has ended.
            match unsafe { libc::setns(descriptor, libc::CLONE_NEWNET) } {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        };
        // SAFETY: between fork and exec the closure makes one system call, which is async-signal-safe.
        unsafe { command.pre_exec(enter) };
    }
    let output = command.output().map_err(|error| format!("ip {words}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("ip {words}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}
