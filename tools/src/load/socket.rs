//! Sockets, and waiting for many of them.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
    time::Duration,
};

use crate::options::Target;

/// A connected stream socket.
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    /// Connects; the socket blocks.
    pub(crate) fn connect(target: &Target) -> io::Result<Self> {
        match target {
            Target::Tcp { host, port } => {
                let stream = TcpStream::connect((host.as_str(), *port))?;
                stream.set_nodelay(true)?;
                Ok(Self::Tcp(stream))
            }
            Target::Unix(path) => Ok(Self::Unix(UnixStream::connect(path)?)),
        }
    }

    pub(crate) fn set_nonblocking(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_nonblocking(true),
            Self::Unix(stream) => stream.set_nonblocking(true),
        }
    }

    /// Lets a blocking read or write fail with `WouldBlock` once it has waited for so long.
    pub(crate) fn set_timeout(&self, timeout: Duration) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => {
                stream.set_read_timeout(Some(timeout)).and(stream.set_write_timeout(Some(timeout)))
            }
            Self::Unix(stream) => {
                stream.set_read_timeout(Some(timeout)).and(stream.set_write_timeout(Some(timeout)))
            }
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::Tcp(stream) => stream.as_raw_fd(),
            Self::Unix(stream) => stream.as_raw_fd(),
        }
    }
}

/// Waits for sockets, each known by a number; level-triggered.
pub(crate) struct Poll {
    epoll: OwnedFd,
    events: Vec<libc::epoll_event>,
}

/// What a socket is ready for.
#[derive(Clone, Copy)]
pub(crate) struct Ready {
    pub(crate) number: usize,
    /// There is something to read: bytes, the end, or an error.
    pub(crate) readable: bool,
    pub(crate) writable: bool,
}

impl Poll {
    /// With room for `events` sockets that become ready at once; further ones are reported next time.
    pub(crate) fn new(events: usize) -> io::Result<Self> {
        // SAFETY: no pointers are passed, and nobody else owns the new descriptor.
        let epoll = unsafe {
            let descriptor = libc::epoll_create1(libc::EPOLL_CLOEXEC);
            if descriptor < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(descriptor)
        };
        Ok(Self { epoll, events: Vec::with_capacity(events.max(1)) })
    }

    /// Begins to wait for bytes from `socket`.
    pub(crate) fn add(&self, socket: &impl AsRawFd, number: usize) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, socket, number, libc::EPOLLIN)
    }

    /// Waits for room to write as well, or no longer.
    pub(crate) fn set_wants_write(
        &self,
        socket: &impl AsRawFd,
        number: usize,
        wants: bool,
    ) -> io::Result<()> {
        let interest = if wants { libc::EPOLLIN | libc::EPOLLOUT } else { libc::EPOLLIN };
        self.control(libc::EPOLL_CTL_MOD, socket, number, interest)
    }

    /// Waits until a socket is ready, at most for `timeout`. Returns how many are; an interruption counts as none.
    pub(crate) fn wait(&mut self, timeout: Duration) -> io::Result<usize> {
        let timespec = libc::timespec {
            tv_sec: timeout.as_secs() as libc::time_t,
            tv_nsec: libc::c_long::from(timeout.subsec_nanos() as i32),
        };
        self.events.clear();
        // SAFETY: the kernel writes at most `capacity` events into the vector's memory and reads `timespec`; no signal
        // mask is passed. (The call with a timeout in nanoseconds has no wrapper in every C library.)
        let count = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                self.epoll.as_raw_fd(),
                self.events.as_mut_ptr(),
                self.events.capacity(),
                &raw const timespec,
                std::ptr::null::<libc::sigset_t>(),
                size_of::<u64>(),
            )
        };
        if count < 0 {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::Interrupted { Ok(0) } else { Err(error) };
        }
        // SAFETY: so many events were written.
        unsafe { self.events.set_len(count as usize) };
        Ok(count as usize)
    }

    /// Event `index` of the last wait.
    pub(crate) fn ready(&self, index: usize) -> Ready {
        let event = self.events[index];
        let bits = event.events as i32;
        Ready {
            number: event.u64 as usize,
            readable: bits & (libc::EPOLLIN | libc::EPOLLHUP | libc::EPOLLERR) != 0,
            writable: bits & libc::EPOLLOUT != 0,
        }
    }

    fn control(&self, operation: i32, socket: &impl AsRawFd, number: usize, interest: i32) -> io::Result<()> {
        let mut event = libc::epoll_event { events: interest as u32, u64: number as u64 };
        // SAFETY: the kernel reads one event from a local.
        let result =
            unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), operation, socket.as_raw_fd(), &raw mut event) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// Lets short timeouts of this thread end on time: by default the kernel may be 50 microseconds late.
pub(crate) fn refine_timers() {
    // SAFETY: no pointers are passed. A refusal leaves the coarse timers, which only costs precision.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1) };
}

/// Raises the limit of open descriptors as far as the system allows.
pub(crate) fn raise_descriptor_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls use a local. Where they fail the old limit stands, and connecting says when it is reached.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
}
