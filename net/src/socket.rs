//! Listening sockets and addresses.
//!
//! Options that accepted sockets inherit (TCP_NODELAY, keep-alive) are set on the listener, so that accepting costs
//! no further system call.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::net::UnixListener,
    },
    path::Path,
    sync::Arc,
};

/// How many connections the kernel queues before they are accepted; the kernel caps it at net.core.somaxconn.
const BACKLOG: i32 = 4096;

/// How often an unanswered attempt to connect is repeated: the kernel gives up after about seven seconds.
const CONNECT_RETRIES: i32 = 2;

/// How long what was sent may stay unacknowledged on a connection that this end began, in milliseconds.
const UNACKNOWLEDGED_MS_MAX: i32 = 5_000;

/// A listening socket; copies share the descriptor.
#[derive(Clone)]
pub struct Listener {
    descriptor: Arc<OwnedFd>,
    is_tcp: bool,
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }
}

impl Listener {
    /// Binds `address` and listens, sharing the port with the other cores' listeners (SO_REUSEPORT).
    pub fn tcp(address: SocketAddr, keepalive_seconds: u32) -> io::Result<Self> {
        let (family, storage, length) = raw_address(address);
        // SAFETY: plain socket calls on a descriptor that is owned from its creation on; pointers are to locals.
        unsafe {
            let descriptor = libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
            if descriptor < 0 {
                return Err(io::Error::last_os_error());
            }
            let this = Self { descriptor: Arc::new(OwnedFd::from_raw_fd(descriptor)), is_tcp: true };
            this.set(libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
            this.set(libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
            if family == libc::AF_INET6 {
                this.set(libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1)?;
            }
            this.set(libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
            this.set_keepalive(keepalive_seconds)?;
            if libc::bind(descriptor, (&raw const storage).cast(), length) < 0
                || libc::listen(descriptor, BACKLOG) < 0
            {
                return Err(io::Error::last_os_error());
            }
            Ok(this)
        }
    }

    /// Listens on the Unix socket `path`, which must not exist.
    pub fn unix(path: &Path) -> io::Result<Self> {
        let listener = UnixListener::bind(path)?;
        Ok(Self { descriptor: Arc::new(OwnedFd::from(listener)), is_tcp: false })
    }

    /// Sets how many idle seconds pass before keep-alive probes on connections accepted from now on; 0: never.
    pub fn set_keepalive(&self, seconds: u32) -> io::Result<()> {
        if !self.is_tcp {
            return Ok(());
        }
        self.set(libc::SOL_SOCKET, libc::SO_KEEPALIVE, i32::from(seconds > 0))?;
        if seconds > 0 {
            let seconds = seconds.min(32_767) as i32;
            self.set(libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, seconds)?;
            // As Redis: probes a third of the interval apart, and three of them.
            self.set(libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, (seconds / 3).max(1))?;
            self.set(libc::IPPROTO_TCP, libc::TCP_KEEPCNT, 3)?;
        }
        Ok(())
    }

    /// Stops listening at once, whoever still holds the descriptor.
    pub fn shut_down(&self) {
        // SAFETY: shutdown takes no pointers, and the descriptor is open as long as `self` is.
        unsafe { libc::shutdown(self.as_raw_fd(), libc::SHUT_RDWR) };
    }

    /// The bound address, of a TCP listener.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        TcpListener::from(self.descriptor.try_clone()?).local_addr()
    }

    fn set(&self, level: i32, option: i32, value: i32) -> io::Result<()> {
        set_option(self, level, option, value)
    }
}

/// Whether a socket is a Unix socket.
pub(crate) fn is_unix(descriptor: RawFd) -> bool {
    let mut domain: libc::c_int = 0;
    let mut length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to the local integer.
    let result = unsafe {
        libc::getsockopt(
            descriptor,
            libc::SOL_SOCKET,
            libc::SO_DOMAIN,
            (&raw mut domain).cast(),
            &raw mut length,
        )
    };
    result == 0 && domain == libc::AF_UNIX
}

/// A kernel's form of an address, with its length.
pub(crate) struct RawAddress {
    pub(crate) storage: libc::sockaddr_storage,
    pub(crate) length: libc::socklen_t,
}

/// A socket to be connected, and the address for that. It gives up on a peer that does not answer.
pub(crate) fn outgoing(address: SocketAddr) -> io::Result<(OwnedFd, RawAddress)> {
    let (family, storage, length) = raw_address(address);
    // SAFETY: the call takes no pointers, and the descriptor is owned by no one else.
    let socket = unsafe {
        let descriptor = libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(descriptor)
    };
    for (option, value) in [
        (libc::TCP_NODELAY, 1),
        (libc::TCP_SYNCNT, CONNECT_RETRIES),
        (libc::TCP_USER_TIMEOUT, UNACKNOWLEDGED_MS_MAX),
    ] {
        set_option(&socket, libc::IPPROTO_TCP, option, value)?;
    }
    Ok((socket, RawAddress { storage, length }))
}

fn set_option(socket: &impl AsRawFd, level: i32, option: i32, value: i32) -> io::Result<()> {
    // SAFETY: the option's value is a local of the length given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn raw_address(address: SocketAddr) -> (i32, libc::sockaddr_storage, libc::socklen_t) {
    // SAFETY: all-zero bytes are a valid sockaddr_storage, which is large and aligned enough for both families.
    unsafe {
        let mut storage: libc::sockaddr_storage = std::mem::zeroed();
        match address {
            SocketAddr::V4(address) => {
                let raw = &mut *(&raw mut storage).cast::<libc::sockaddr_in>();
                raw.sin_family = libc::AF_INET as libc::sa_family_t;
                raw.sin_port = address.port().to_be();
                raw.sin_addr.s_addr = u32::from_ne_bytes(address.ip().octets());
                (libc::AF_INET, storage, size_of::<libc::sockaddr_in>() as libc::socklen_t)
            }
            SocketAddr::V6(address) => {
                let raw = &mut *(&raw mut storage).cast::<libc::sockaddr_in6>();
                raw.sin6_family = libc::AF_INET6 as libc::sa_family_t;
                raw.sin6_port = address.port().to_be();
                raw.sin6_addr.s6_addr = address.ip().octets();
                raw.sin6_scope_id = address.scope_id();
                (libc::AF_INET6, storage, size_of::<libc::sockaddr_in6>() as libc::socklen_t)
            }
        }
    }
}

/// The addresses of a connected socket's peer and of this end, as CLIENT LIST shows them.
pub(crate) fn addresses(descriptor: RawFd) -> (String, String) {
    // SAFETY: the descriptor is open for the duration of the call and `ManuallyDrop` leaves it open.
    let stream = std::mem::ManuallyDrop::new(unsafe { std::net::TcpStream::from_raw_fd(descriptor) });
    match (stream.peer_addr(), stream.local_addr()) {
        (Ok(peer), Ok(local)) => (peer.to_string(), local.to_string()),
        _ => {
            // SAFETY: as above.
            let stream = std::mem::ManuallyDrop::new(unsafe {
                std::os::unix::net::UnixStream::from_raw_fd(descriptor)
            });
            let path = stream
                .local_addr()
                .ok()
                .and_then(|address| Some(address.as_pathname()?.display().to_string()));
            let text = format!("{}:0", path.unwrap_or_default());
            (text.clone(), text)
        }
    }
}
