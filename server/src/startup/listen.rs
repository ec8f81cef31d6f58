//! Where the server listens: whether it can, and why not.

use std::{
    fs, io,
    net::{IpAddr, SocketAddr},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::{
            ffi::OsStrExt,
            fs::{FileTypeExt, PermissionsExt},
            net::UnixDatagram,
        },
    },
    path::Path,
};

use super::{StartupError, UnixSocketRefusal};
use crate::config::Config;

/// Bytes of a path that a Unix socket's address has room for, beside the zero that ends it.
const UNIX_PATH_BYTES_MAX: usize = 107;

/// The TCP addresses to listen on, each one free at this moment; optional ones that the machine lacks are left out.
///
/// Every core's listener shares its port, so a second server of the same user would silently get a part of the
/// clients: [`probe_bind`] finds it first.
///
/// # Errors
/// [`StartupError::Listen`], [`StartupError::NoAddress`].
pub fn addresses_to_listen(config: &Config) -> Result<Vec<SocketAddr>, StartupError> {
    addresses_at(config, config.port)
}

/// The same, for the port that other nodes of the cluster dial.
///
/// # Errors
/// As [`addresses_to_listen`].
pub fn peer_addresses_to_listen(config: &Config) -> Result<Vec<SocketAddr>, StartupError> {
    addresses_at(config, config.peer_port)
}

fn addresses_at(config: &Config, port: u16) -> Result<Vec<SocketAddr>, StartupError> {
    let mut addresses = Vec::new();
    if port == 0 || config.bind.is_empty() {
        return Ok(addresses);
    }
    for bind in &config.bind {
        let address = SocketAddr::new(bind.address, port);
        match probe_bind(address) {
            Ok(()) => addresses.push(address),
            Err(error) if bind.is_optional && is_missing(&error) => {}
            Err(error) => return Err(StartupError::Listen { address, error }),
        }
    }
    if addresses.is_empty() { Err(StartupError::NoAddress) } else { Ok(addresses) }
}

/// Whether the error says that the machine does not have the address, or the address family.
fn is_missing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT))
}

/// Binds `address` for a moment without sharing its port, to see whether anyone else has it.
///
/// Connections that linger from an earlier run (TIME_WAIT) do not count (SO_REUSEADDR).
pub fn probe_bind(address: SocketAddr) -> io::Result<()> {
    bind_stream(address, &[libc::SO_REUSEADDR]).map(drop)
}

/// A TCP socket with these socket-level options that is bound to `address` but does not listen.
pub(super) fn bind_stream(address: SocketAddr, options: &[i32]) -> io::Result<OwnedFd> {
    let (family, address, length) = raw_address(address);
    // SAFETY: socket takes no pointers, and the descriptor is owned by no one else.
    let socket = unsafe {
        let descriptor = libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(descriptor)
    };
    for &option in options {
        turn_on(&socket, libc::SOL_SOCKET, option)?;
    }
    if family == libc::AF_INET6 {
        // As the real listeners: [::] leaves the IPv4 addresses alone.
        turn_on(&socket, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY)?;
    }
    // SAFETY: the pointer is to a live local that holds an address of the length given.
    match unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) } {
        0 => Ok(socket),
        _ => Err(io::Error::last_os_error()),
    }
}

fn turn_on(socket: &OwnedFd, level: i32, option: i32) -> io::Result<()> {
    let on = 1_i32;
    let length = size_of::<i32>() as libc::socklen_t;
    // SAFETY: the pointer is to a live local of the length given.
    match unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const on).cast(), length) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// An IPv4 or IPv6 address as the kernel has it: both begin with the family, which says which it is.
#[repr(C)]
union RawAddress {
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

fn raw_address(address: SocketAddr) -> (i32, RawAddress, libc::socklen_t) {
    match address {
        SocketAddr::V4(address) => {
            let v4 = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: address.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.ip().octets()) },
                sin_zero: [0; 8],
            };
            (libc::AF_INET, RawAddress { v4 }, size_of::<libc::sockaddr_in>() as libc::socklen_t)
        }
        SocketAddr::V6(address) => {
            let v6 = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: address.port().to_be(),
                sin6_flowinfo: address.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: address.ip().octets() },
                sin6_scope_id: address.scope_id(),
            };
            (libc::AF_INET6, RawAddress { v6 }, size_of::<libc::sockaddr_in6>() as libc::socklen_t)
        }
    }
}

/// The sentence for an address that cannot be listened on.
pub(super) fn explain_listen_error(address: SocketAddr, error: &io::Error) -> String {
    let (ip, port) = (address.ip(), address.port());
    match error.raw_os_error() {
        Some(libc::EADDRINUSE) => {
            format!("port {port} of {ip} is in use, perhaps by another server: stop that one or change port")
        }
        Some(libc::EACCES) if port < 1024 => format!(
            "this user may not listen on port {port}, as ports below 1024 need the capability CAP_NET_BIND_SERVICE: \
             grant it or change port"
        ),
        Some(libc::EACCES) => format!("this user may not listen on port {port} of {ip}: change port or bind"),
        _ if is_missing(error) => {
            format!(
                "this machine does not have the address {ip}: change bind, or write -{ip} there to skip it"
            )
        }
        _ => format!("cannot listen on port {port} of {ip} ({error}): change port or bind"),
    }
}

/// Makes way for a Unix socket at `path`: checks the path and removes a socket that a dead process left there.
///
/// # Errors
/// [`StartupError::UnixSocket`]; what is at `path` was then left alone.
pub fn prepare_unix_socket(path: &Path) -> Result<(), StartupError> {
    clear_path(path).map_err(|reason| StartupError::UnixSocket { path: path.to_owned(), reason })
}

fn clear_path(path: &Path) -> Result<(), UnixSocketRefusal> {
    if path.as_os_str().as_bytes().len() > UNIX_PATH_BYTES_MAX {
        return Err(UnixSocketRefusal::TooLong);
    }
    let kind = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata.file_type(),
        // Only the directory of a missing file matters.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            return match parent.map_or(Ok(true), Path::try_exists) {
                Ok(true) => Ok(()),
                Ok(false) => Err(UnixSocketRefusal::System(error)),
                Err(error) => Err(UnixSocketRefusal::System(error)),
            };
        }
        Err(error) => return Err(UnixSocketRefusal::System(error)),
    };
    if !kind.is_socket() {
        return Err(UnixSocketRefusal::NotASocket);
    }
    // A datagram socket never gets through to a listening one, but unlike a stream it does not wait either, and the
    // kernel tells a listener of another type from a socket that nobody holds.
    let probe = UnixDatagram::unbound().map_err(UnixSocketRefusal::System)?;
    match probe.connect(path).map_err(|error| (error.raw_os_error(), error)) {
        Ok(()) | Err((Some(libc::EPROTOTYPE), _)) => Err(UnixSocketRefusal::InUse),
        Err((Some(libc::ECONNREFUSED), _)) => fs::remove_file(path).map_err(UnixSocketRefusal::System),
        Err((_, error)) => Err(UnixSocketRefusal::System(error)),
    }
}

/// Gives a Unix socket its permission bits; 0 leaves them as the umask made them.
///
/// # Errors
/// [`StartupError::UnixSocket`].
pub fn restrict_unix_socket(path: &Path, mode: u32) -> Result<(), StartupError> {
    if mode == 0 {
        return Ok(());
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(|error| StartupError::UnixSocket {
        path: path.to_owned(),
        reason: UnixSocketRefusal::System(error),
    })
}

/// The sentence for a Unix socket that cannot be listened on.
pub(super) fn explain_unix_socket(path: &Path, reason: &UnixSocketRefusal) -> String {
    let shown = path.display();
    match reason {
        UnixSocketRefusal::TooLong => format!(
            "the path of the Unix socket {shown} has {} bytes, and {UNIX_PATH_BYTES_MAX} is the most: choose a shorter \
             unixsocket",
            path.as_os_str().len()
        ),
        UnixSocketRefusal::InUse => {
            format!(
                "the Unix socket {shown} is in use by another process: stop that one or change unixsocket"
            )
        }
        UnixSocketRefusal::NotASocket => {
            format!("{shown} exists and is not a socket: remove it or change unixsocket")
        }
        UnixSocketRefusal::System(error) if error.kind() == io::ErrorKind::NotFound => {
            format!("the directory of the Unix socket {shown} does not exist: create it or change unixsocket")
        }
        UnixSocketRefusal::System(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            format!(
                "this user may not listen on the Unix socket {shown}: change its directory's rights or unixsocket"
            )
        }
        UnixSocketRefusal::System(error) => {
            format!("cannot listen on the Unix socket {shown} ({error}): change unixsocket")
        }
    }
}

/// The sentence to log if the network can reach the server and no password is asked for.
pub fn exposure_warning(config: &Config) -> Option<String> {
    if config.port == 0 || !config.password.is_empty() {
        return None;
    }
    let is_loopback = |address: IpAddr| address.to_canonical().is_loopback();
    let exposed = config.bind.iter().find(|bind| !is_loopback(bind.address))?;
    Some(format!(
        "anyone who reaches {} can read and change everything: set requirepass, or bind to 127.0.0.1 only",
        SocketAddr::new(exposed.address, config.port)
    ))
}
