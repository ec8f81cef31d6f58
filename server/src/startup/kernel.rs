//! The kernel: its version, the CPUs it lets this process use, and whether it gives it rings.

use std::{ffi::CStr, fmt, fs, io};

use super::StartupError;

/// A kernel's version, as far as features depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KernelVersion {
    /// The 6 of 6.1.
    pub major: u32,
    /// The 1 of 6.1.
    pub minor: u32,
}

impl KernelVersion {
    /// The oldest that the ring runs on: the first with DEFER_TASKRUN.
    pub const MINIMUM: Self = Self { major: 6, minor: 1 };
}

impl fmt::Display for KernelVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.major, self.minor)
    }
}

/// The running kernel's release, such as `6.12.9-amd64`.
pub fn kernel_release() -> String {
    // SAFETY: all-zero bytes are a valid utsname, an array of characters.
    let mut names: libc::utsname = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a live local, which the call fills.
    let result = unsafe { libc::uname(&raw mut names) };
    assert_eq!(result, 0, "uname fails only on a bad pointer");
    // SAFETY: the kernel terminates every name within its array.
    let release = unsafe { CStr::from_ptr(names.release.as_ptr()) };
    release.to_string_lossy().into_owned()
}

/// The version in a release; none if it does not begin with one.
pub fn parse_kernel_release(release: &str) -> Option<KernelVersion> {
    let (major, rest) = release.split_once('.')?;
    let minor_end = rest.find(|character: char| !character.is_ascii_digit()).unwrap_or(rest.len());
    Some(KernelVersion { major: major.parse().ok()?, minor: rest[..minor_end].parse().ok()? })
}

/// Checks a kernel's release. One without a readable version passes: what it lacks shows when a ring is made.
///
/// # Errors
/// [`StartupError::Kernel`].
pub fn check_kernel(release: &str) -> Result<(), StartupError> {
    match parse_kernel_release(release) {
        Some(version) if version < KernelVersion::MINIMUM => {
            Err(StartupError::Kernel { release: release.to_owned() })
        }
        _ => Ok(()),
    }
}

/// Checks that this process may run on every one of `cpus`.
///
/// # Errors
/// [`StartupError::Cpus`].
pub fn check_cpus(cpus: &[u32]) -> Result<(), StartupError> {
    // SAFETY: all-zero bytes are the empty set.
    let mut allowed: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a live local of the size given.
    let result = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut allowed) };
    if result != 0 {
        // A machine with more CPUs than a plain set has room for: pinning will tell.
        return Ok(());
    }
    // SAFETY: `CPU_ISSET` reads within the set for numbers below its size, checked first.
    let is_allowed =
        |cpu: u32| cpu < libc::CPU_SETSIZE as u32 && unsafe { libc::CPU_ISSET(cpu as usize, &allowed) };
    let refused: Vec<u32> = cpus.iter().copied().filter(|&cpu| !is_allowed(cpu)).collect();
    if refused.is_empty() { Ok(()) } else { Err(StartupError::Cpus { refused }) }
}

/// Says why the kernel refused a ring, and what to do.
pub fn explain_ring_refusal(error: &io::Error) -> StartupError {
    let disabled = fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok();
    StartupError::Ring { sentence: ring_refusal(error, disabled.as_deref().map(str::trim)) }
}

/// The sentence for an error, given the value of the sysctl `kernel.io_uring_disabled`, if there is one.
pub(super) fn ring_refusal(error: &io::Error, disabled: Option<&str>) -> String {
    let advice = match (error.raw_os_error(), disabled) {
        (Some(libc::EPERM | libc::EACCES), Some("2")) => {
            "the sysctl kernel.io_uring_disabled is 2, which turns io_uring off for everyone: set it to 0"
        }
        (Some(libc::EPERM | libc::EACCES), Some("1")) => {
            "the sysctl kernel.io_uring_disabled is 1, which turns io_uring off for users outside the group \
             kernel.io_uring_group: set it to 0 or add the user to that group (or a container's seccomp profile \
             refuses it)"
        }
        (Some(libc::EPERM | libc::EACCES), _) => {
            "a seccomp profile refuses it, as Docker's default one does: allow io_uring_setup, io_uring_enter and \
             io_uring_register (docker run --security-opt seccomp=PROFILE), or check the sysctl \
             kernel.io_uring_disabled"
        }
        (Some(libc::ENOSYS), _) => {
            "the kernel was built without io_uring, or a container's seccomp profile hides it: allow io_uring_setup, \
             io_uring_enter and io_uring_register there, or use a kernel that has it"
        }
        (Some(libc::ENOMEM), _) => {
            "the memory that this user may lock is used up: raise ulimit -l (LimitMEMLOCK in systemd) or lower cores"
        }
        (Some(libc::EINVAL), _) => "the kernel lacks a feature that Linux 6.1 has: use 6.1 or newer",
        (Some(libc::EMFILE), _) => {
            "this process has no file descriptors left: raise ulimit -n (LimitNOFILE in systemd) or lower cores"
        }
        (Some(libc::ENFILE), _) => "the system has no file descriptors left: raise the sysctl fs.file-max",
        _ => "see io_uring_setup(2) for what this error means",
    };
    format!("the kernel refused io_uring ({error}): {advice}")
}
