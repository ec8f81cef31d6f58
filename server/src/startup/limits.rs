//! Resource limits: descriptors for clients and memory for rings.

use std::{fs, io};

use super::StartupError;

/// Descriptors beside those of cores and clients: standard streams, the log, files that are open for a moment. As
/// many as Redis sets aside.
const DESCRIPTORS_SPARE: u64 = 32;

/// The fewest clients that are worth starting for.
const CLIENTS_MIN: u64 = 16;

/// Effective capability CAP_IPC_LOCK: its holder may lock any amount of memory.
const CAPABILITY_IPC_LOCK: u32 = 14;

/// How many clients there is room for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescriptorPlan {
    /// What `maxclients` is to be.
    pub clients_max: u32,
    /// The most that it may be raised to at run time.
    pub clients_ceiling: u32,
    /// The sentence to log if `clients_max` is lower than configured.
    pub warning: Option<String>,
}

/// The descriptors that are not for clients: each core has a ring, an event descriptor and its listeners.
pub fn reserved_descriptors(cores: u16, listeners_per_core: usize) -> u64 {
    let each = 2 + listeners_per_core as u64;
    DESCRIPTORS_SPARE + u64::from(cores) * each
}

/// Raises this process's limit of descriptors as far as it goes and plans for what it then is.
///
/// # Errors
/// [`StartupError::Descriptors`].
pub fn prepare_descriptors(clients_max: u32, reserved: u64) -> Result<DescriptorPlan, StartupError> {
    let wanted = u64::from(clients_max) + reserved;
    let limit = raise_limit(libc::RLIMIT_NOFILE, wanted);
    plan_descriptors(clients_max, reserved, limit)
}

/// How many of `clients_max` clients fit `limit` descriptors, of which `reserved` are not for clients.
///
/// # Errors
/// [`StartupError::Descriptors`] if there is no room for a handful of clients.
pub fn plan_descriptors(clients_max: u32, reserved: u64, limit: u64) -> Result<DescriptorPlan, StartupError> {
    let needed = reserved + CLIENTS_MIN.min(u64::from(clients_max));
    if limit < needed {
        return Err(StartupError::Descriptors { limit, needed });
    }
    let clients_ceiling = u32::try_from(limit - reserved).unwrap_or(u32::MAX);
    if clients_max <= clients_ceiling {
        return Ok(DescriptorPlan { clients_max, clients_ceiling, warning: None });
    }
    let warning = format!(
        "maxclients is lowered from {clients_max} to {clients_ceiling}: only {limit} file descriptors are allowed, and \
         {} would be needed; raise ulimit -n (LimitNOFILE in systemd) or lower maxclients",
        u64::from(clients_max) + reserved
    );
    Ok(DescriptorPlan { clients_max: clients_ceiling, clients_ceiling, warning: Some(warning) })
}

/// About how much locked memory the kernel charges for a ring of so many submission and completion entries: 64 and 16
/// bytes each and the index array, in whole pages.
pub fn ring_memory_bytes(submission_entries: u32, completion_entries: u32) -> u64 {
    const PAGE_BYTES: u64 = 4096;
    let (submissions, completions) = (u64::from(submission_entries), u64::from(completion_entries));
    (64 * submissions).next_multiple_of(PAGE_BYTES)
        + (64 + 16 * completions + 4 * submissions).next_multiple_of(PAGE_BYTES)
}

/// Raises the limit of locked memory as far as it goes, and returns a sentence to log if `rings` rings of
/// `ring_bytes` each may still exceed it.
///
/// It is an estimate that knows neither what else the user has locked nor how this kernel counts, so it only
/// warns: a ring that the kernel then refuses is explained by [`super::explain_ring_refusal`].
pub fn locked_memory_warning(rings: u64, ring_bytes: u64) -> Option<String> {
    let needed = rings.saturating_mul(ring_bytes);
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    if may_lock_memory(&status) {
        return None;
    }
    warn_of_locked_memory(needed, raise_limit(libc::RLIMIT_MEMLOCK, needed))
}

pub(super) fn warn_of_locked_memory(needed: u64, limit: u64) -> Option<String> {
    (limit < needed).then(|| {
        format!(
            "the rings need about {} KiB of locked memory, and {} KiB are allowed: raise ulimit -l (LimitMEMLOCK in \
             systemd) or lower cores",
            needed.div_ceil(1024),
            limit / 1024
        )
    })
}

/// Whether a process with this `/proc/self/status` is exempt from the limit of locked memory.
pub(super) fn may_lock_memory(status: &str) -> bool {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let mask = effective.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & 1 << CAPABILITY_IPC_LOCK != 0)
}

/// Raises the soft limit of a resource to the hard one, and both to `wanted` if that is more and the process has the
/// privilege. Returns what the soft limit then is.
fn raise_limit(resource: libc::__rlimit_resource_t, wanted: u64) -> u64 {
    let before = limit_of(resource);
    if before.rlim_max < wanted {
        // Only a privileged process may; any other goes on with what it has.
        let _ = set_limit(resource, libc::rlimit { rlim_cur: wanted, rlim_max: wanted });
    }
    let current = limit_of(resource);
    if current.rlim_cur < current.rlim_max {
        let _ = set_limit(resource, libc::rlimit { rlim_cur: current.rlim_max, rlim_max: current.rlim_max });
    }
    limit_of(resource).rlim_cur
}

fn limit_of(resource: libc::__rlimit_resource_t) -> libc::rlimit {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a live local, which the call fills.
    let result = unsafe { libc::getrlimit(resource, &raw mut limit) };
    assert_eq!(result, 0, "getrlimit fails only on a bad resource or pointer");
    limit
}

fn set_limit(resource: libc::__rlimit_resource_t, limit: libc::rlimit) -> io::Result<()> {
    // SAFETY: the pointer is to a live local, which the call only reads.
    match unsafe { libc::setrlimit(resource, &raw const limit) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
