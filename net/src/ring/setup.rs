//! Making a ring, and saying why it cannot be made.

use std::{
    fmt, io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    sync::Arc,
};

use io_uring::IoUring;

use super::{BUFFER_GROUP, BufferRing, Ring, connects::Connects, files::Files, spin::Spin};
use crate::{files::Storage, socket::Listener};

/// What a ring is made of.
pub struct RingOptions {
    /// Entries of the submission queue.
    pub submission_entries: u32,
    /// Entries of the completion queue.
    pub completion_entries: u32,
    /// Receive buffers; a power of two.
    pub buffer_count: u16,
    /// Bytes of one receive buffer.
    pub buffer_size_bytes: u32,
    /// The listeners, by number.
    pub listeners: Vec<Listener>,
    /// The descriptor by which other threads wake this core.
    pub wake: WakeHandle,
    /// The core's storage thread, started with the same `wake`.
    pub storage: Storage,
    /// The CPUs of the kernel's threads that do this ring's syncs; `None`: as the kernel chooses.
    pub worker_cpus: Option<Vec<usize>>,
}

/// A handle by which any thread can wake a core, and another ring can do so without a system call of its own.
#[derive(Clone)]
pub struct WakeHandle {
    pub(super) event: Arc<OwnedFd>,
    /// The ring's descriptor, known once the ring was made.
    pub(super) ring: RawFd,
}

impl WakeHandle {
    /// A handle for a ring to be made.
    pub fn new() -> io::Result<Self> {
        // SAFETY: eventfd takes no pointers, and the descriptor is owned by no one else.
        let event = unsafe {
            let descriptor = libc::eventfd(0, libc::EFD_CLOEXEC);
            if descriptor < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(descriptor)
        };
        Ok(Self { event: Arc::new(event), ring: -1 })
    }

    /// Wakes the core from any thread.
    pub fn wake(&self) {
        let one = 1_u64;
        // SAFETY: eight bytes are read from a local. A full counter (EAGAIN cannot occur on a blocking descriptor
        // before 2^64 - 1 wake-ups) already means that the core will wake.
        unsafe { libc::write(self.event.as_raw_fd(), (&raw const one).cast(), size_of::<u64>()) };
    }
}

/// Why a ring could not be made; nothing was left behind.
#[derive(Debug)]
pub struct RingError {
    /// The step that failed.
    pub step: &'static str,
    /// What the kernel said.
    pub error: io::Error,
}

impl fmt::Display for RingError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.step, self.error)
    }
}

impl std::error::Error for RingError {}

pub(super) fn new(options: RingOptions) -> Result<Ring, RingError> {
    let at = |step| move |error| RingError { step, error };
    let ring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_coop_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .setup_cqsize(options.completion_entries)
        .setup_clamp()
        .build(options.submission_entries)
        .map_err(at("io_uring_setup"))?;
    if let Some(cpus) = &options.worker_cpus {
        place_workers(&ring, cpus).map_err(at("placing the ring's workers"))?;
    }
    let buffers = BufferRing::new(&ring, BUFFER_GROUP, options.buffer_count, options.buffer_size_bytes)
        .map_err(at("registering receive buffers"))?;
    let mut own_wake = options.wake;
    own_wake.ring = ring.as_raw_fd();
    let can_batch = ring.params().is_feature_min_timeout();
    let mut ring = Ring {
        ring,
        buffers,
        listeners: options.listeners,
        wakes: Vec::new(),
        wake_value: Box::new(0),
        own_wake,
        sending: Vec::new(),
        receiving: Vec::new(),
        unix_connections: Vec::new(),
        files: Files::new(options.storage),
        connects: Connects::default(),
        completions: Vec::with_capacity(options.completion_entries as usize),
        next_completion: 0,
        sends_queued: 0,
        queued_to_sync: 0,
        #[cfg(test)]
        worker_turns: 0,
        random_state: random_seed().map_err(at("getrandom"))?,
        can_batch,
        spin: Spin::default(),
    };
    ring.arm_wake();
    Ok(ring)
}

/// Lets the kernel's threads that work for this ring run on `cpus` only.
fn place_workers(ring: &IoUring, cpus: &[usize]) -> io::Result<()> {
    if cpus.is_empty() || cpus.iter().any(|&cpu| cpu >= libc::CPU_SETSIZE as usize) {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: all-zero bytes are the empty set, and every number is within it.
    let set = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        for &cpu in cpus {
            libc::CPU_SET(cpu, &mut set);
        }
        set
    };
    ring.submitter().register_iowq_aff(&set)
}

impl Ring {
    /// How others wake this core.
    pub fn wake_handle(&self) -> WakeHandle {
        self.own_wake.clone()
    }

    /// Gives the ring the handles of all cores, by number, once every ring was made.
    pub fn set_wakes(&mut self, wakes: Vec<WakeHandle>) {
        self.wakes = wakes;
    }

    /// A listener.
    pub fn listener(&self, number: u32) -> &Listener {
        &self.listeners[number as usize]
    }
}

fn random_seed() -> io::Result<u64> {
    let mut seed = 0_u64;
    // SAFETY: eight bytes are written to a local.
    let length = unsafe { libc::getrandom((&raw mut seed).cast(), size_of::<u64>(), 0) };
    if length == size_of::<u64>() as isize { Ok(seed) } else { Err(io::Error::last_os_error()) }
}
