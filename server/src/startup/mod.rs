//! What is checked before the server serves, and what is said when a check fails.
//!
//! Every failure is one sentence that names what is wrong and the setting that would change it. Deciding is kept apart
//! from asking the kernel: `plan_*`, `explain_*` and `parse_*` are pure, and everything else is a call or two.

mod kernel;
mod limits;
mod listen;

#[cfg(test)]
mod tests;

use std::{
    fmt, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

pub use kernel::{
    KernelVersion, check_cpus, check_kernel, explain_ring_refusal, kernel_release, parse_kernel_release,
};
pub use limits::{
    DescriptorPlan, locked_memory_warning, plan_descriptors, prepare_descriptors, reserved_descriptors,
    ring_memory_bytes,
};
pub use listen::{
    addresses_to_listen, exposure_warning, peer_addresses_to_listen, prepare_unix_socket, probe_bind,
    restrict_unix_socket,
};

/// Why the server does not start. Nothing was changed that outlives the process.
#[derive(Debug)]
pub enum StartupError {
    /// `dir` cannot be used.
    Directory {
        /// The path, as configured.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// The kernel is older than the oldest that has what the ring needs.
    Kernel {
        /// Its release, as it calls itself.
        release: String,
    },
    /// `cpus` lists CPUs that this process may not use.
    Cpus {
        /// Those CPUs.
        refused: Vec<u32>,
    },
    /// There are too few descriptors even for a handful of clients.
    Descriptors {
        /// How many there are.
        limit: u64,
        /// The fewest to start with.
        needed: u64,
    },
    /// An address cannot be listened on.
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the kernel said.
        error: io::Error,
    },
    /// The machine has none of the addresses in `bind`, all of which are optional.
    NoAddress,
    /// The Unix socket cannot be listened on.
    UnixSocket {
        /// Its path.
        path: PathBuf,
        /// Why.
        reason: UnixSocketRefusal,
    },
    /// The kernel refused a ring.
    Ring {
        /// The whole sentence.
        sentence: String,
    },
}

/// Why a Unix socket cannot be listened on.
#[derive(Debug)]
pub enum UnixSocketRefusal {
    /// The path has more bytes than an address has room for.
    TooLong,
    /// Another process listens there.
    InUse,
    /// Something that is not a socket is there.
    NotASocket,
    /// The kernel refused.
    System(io::Error),
}

impl fmt::Display for StartupError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory { path, error } => {
                let path = path.display();
                match error.kind() {
                    io::ErrorKind::NotFound => {
                        write!(formatter, "the directory {path} does not exist: create it or change dir")
                    }
                    io::ErrorKind::NotADirectory => {
                        write!(formatter, "{path} is not a directory: change dir")
                    }
                    _ => write!(
                        formatter,
                        "the directory {path} cannot be used ({error}): change its rights or dir"
                    ),
                }
            }
            Self::Kernel { release } => write!(
                formatter,
                "this kernel is {release}, and Linux {} or newer is needed: no setting helps, the kernel must be \
                 updated",
                KernelVersion::MINIMUM
            ),
            Self::Cpus { refused } => {
                let refused: Vec<String> = refused.iter().map(u32::to_string).collect();
                write!(
                    formatter,
                    "this process may not run on CPU {}: change cpus, or what limits the process (taskset, cpuset)",
                    refused.join(", ")
                )
            }
            Self::Descriptors { limit, needed } => write!(
                formatter,
                "only {limit} file descriptors are allowed, and {needed} are the fewest to start with: raise ulimit \
                 -n (LimitNOFILE in systemd) or lower cores"
            ),
            Self::Listen { address, error } => {
                write!(formatter, "{}", listen::explain_listen_error(*address, error))
            }
            Self::NoAddress => formatter
                .write_str("this machine has none of the addresses in bind: change bind, or set port to 0"),
            Self::UnixSocket { path, reason } => {
                write!(formatter, "{}", listen::explain_unix_socket(path, reason))
            }
            Self::Ring { sentence } => formatter.write_str(sentence),
        }
    }
}

impl std::error::Error for StartupError {}

/// Checks that `path` is a directory and returns its absolute path without symbolic links.
///
/// # Errors
/// [`StartupError::Directory`].
pub fn check_directory(path: &Path) -> Result<PathBuf, StartupError> {
    let refused = |error| StartupError::Directory { path: path.to_owned(), error };
    let absolute = path.canonicalize().map_err(refused)?;
    if absolute.is_dir() { Ok(absolute) } else { Err(refused(io::ErrorKind::NotADirectory.into())) }
}

/// Makes `path` the process's working directory, which relative paths start from, and returns it as an absolute path.
///
/// # Errors
/// [`StartupError::Directory`].
pub fn enter_directory(path: &Path) -> Result<PathBuf, StartupError> {
    let absolute = check_directory(path)?;
    std::env::set_current_dir(&absolute)
        .map_err(|error| StartupError::Directory { path: path.to_owned(), error })?;
    Ok(absolute)
}
