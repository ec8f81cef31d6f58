//! Every check against the kernel of the machine that runs the tests, and every sentence.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener},
    os::{
        fd::AsRawFd,
        unix::{
            fs::PermissionsExt,
            net::{UnixDatagram, UnixListener},
        },
    },
    sync::atomic::{AtomicU64, Ordering},
};

use super::*;
use crate::config::{BindAddress, Config, Password};

/// A directory that disappears with its owner.
struct TemporaryDirectory(PathBuf);

impl TemporaryDirectory {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("duva-startup-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for TemporaryDirectory {
    fn drop(&mut self) {
        // A directory left in the temporary directory harms nobody.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn errno(number: i32) -> io::Error {
    io::Error::from_raw_os_error(number)
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn bind(address: impl Into<IpAddr>, is_optional: bool) -> BindAddress {
    BindAddress { address: address.into(), is_optional }
}

#[test]
fn a_directory_must_exist_and_be_one() {
    let directory = TemporaryDirectory::new();
    let (file, missing) = (directory.join("file"), directory.join("missing"));
    fs::write(&file, "").unwrap();
    assert_eq!(check_directory(&directory.join(".")).unwrap(), directory.0.canonicalize().unwrap());
    let sentence = check_directory(&missing).unwrap_err().to_string();
    assert_eq!(
        sentence,
        format!("the directory {} does not exist: create it or change dir", missing.display())
    );
    for not_one in [file.clone(), file.join("below")] {
        let sentence = enter_directory(&not_one).unwrap_err().to_string();
        assert_eq!(sentence, format!("{} is not a directory: change dir", not_one.display()));
    }
    let error = StartupError::Directory { path: "/d".into(), error: errno(libc::EACCES) };
    let expected =
        "the directory /d cannot be used (Permission denied (os error 13)): change its rights or dir";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn the_working_directory_can_be_entered() {
    let here = std::env::current_dir().unwrap();
    assert_eq!(enter_directory(Path::new(".")).unwrap(), here);
    assert_eq!(std::env::current_dir().unwrap(), here);
}

#[test]
fn kernel_releases_are_read_and_compared() {
    let version = |major, minor| Some(KernelVersion { major, minor });
    let cases = [
        ("6.18.44-fc-v657", version(6, 18)),
        ("6.1", version(6, 1)),
        ("6.1-rc3", version(6, 1)),
        ("5.15.0-91-generic", version(5, 15)),
        ("10.0.1", version(10, 0)),
        ("", None),
        ("6", None),
        ("six.one", None),
        ("6.", None),
        ("99999999999.1", None),
    ];
    for (release, expected) in cases {
        assert_eq!(parse_kernel_release(release), expected, "{release}");
    }
    for release in ["6.1.0", "6.12.9", "7.0.0", "unheard of"] {
        check_kernel(release).unwrap_or_else(|error| panic!("{error}"));
    }
    for release in ["6.0.19", "5.15.0-91-generic", "4.19.0"] {
        let sentence = check_kernel(release).unwrap_err().to_string();
        let expected = format!("this kernel is {release}, and Linux 6.1 or newer is needed");
        assert!(sentence.starts_with(&expected), "{sentence}");
    }
    assert!(parse_kernel_release(&kernel_release()).is_some(), "{}", kernel_release());
}

#[test]
fn only_allowed_cpus_pass() {
    check_cpus(&[]).unwrap();
    let sentence = check_cpus(&[1022, 1023, u32::MAX]).unwrap_err().to_string();
    assert!(
        sentence.starts_with("this process may not run on CPU 1022, 1023, 4294967295: change cpus"),
        "{sentence}"
    );
}

#[test]
fn a_refused_ring_is_explained_by_its_error() {
    let cases = [
        (libc::EPERM, Some("2"), "kernel.io_uring_disabled is 2, which turns io_uring off for everyone"),
        (libc::EPERM, Some("1"), "kernel.io_uring_group"),
        (libc::EPERM, Some("0"), "a seccomp profile refuses it, as Docker's default one does"),
        (libc::EPERM, None, "a seccomp profile refuses it, as Docker's default one does"),
        (libc::EACCES, None, "a seccomp profile refuses it"),
        (libc::ENOSYS, None, "the kernel was built without io_uring"),
        (libc::ENOMEM, Some("2"), "raise ulimit -l (LimitMEMLOCK in systemd) or lower cores"),
        (libc::EINVAL, None, "use 6.1 or newer"),
        (libc::EMFILE, None, "raise ulimit -n (LimitNOFILE in systemd) or lower cores"),
        (libc::ENFILE, None, "raise the sysctl fs.file-max"),
        (libc::EFAULT, None, "see io_uring_setup(2)"),
    ];
    for (number, disabled, expected) in cases {
        let sentence = kernel::ring_refusal(&errno(number), disabled);
        assert!(
            sentence.starts_with("the kernel refused io_uring (") && sentence.contains(expected),
            "{sentence}"
        );
    }
    let sentence = explain_ring_refusal(&errno(libc::ENOMEM)).to_string();
    assert!(sentence.contains("ulimit -l"), "{sentence}");
}

#[test]
fn clients_are_planned_by_the_descriptors_there_are() {
    let plan = plan_descriptors(10_000, 100, 20_000).unwrap();
    assert_eq!(plan, DescriptorPlan { clients_max: 10_000, clients_ceiling: 19_900, warning: None });
    assert_eq!(plan_descriptors(900, 100, 1000).unwrap().warning, None, "exactly enough");
    let plan = plan_descriptors(10_000, 100, 1024).unwrap();
    assert_eq!((plan.clients_max, plan.clients_ceiling), (924, 924));
    assert_eq!(
        plan.warning.unwrap(),
        "maxclients is lowered from 10000 to 924: only 1024 file descriptors are allowed, and 10100 would be needed; \
         raise ulimit -n (LimitNOFILE in systemd) or lower maxclients"
    );
    assert_eq!(plan_descriptors(u32::MAX, 100, u64::MAX).unwrap().clients_ceiling, u32::MAX);
    assert_eq!(plan_descriptors(1, 100, 101).unwrap().clients_max, 1, "few clients need few descriptors");
    let sentence = plan_descriptors(10_000, 100, 115).unwrap_err().to_string();
    let expected =
        "only 115 file descriptors are allowed, and 116 are the fewest to start with: raise ulimit -n";
    assert!(sentence.starts_with(expected), "{sentence}");
    assert!(reserved_descriptors(2, 3) > reserved_descriptors(1, 3));
}

#[test]
fn the_limit_of_this_process_is_raised_to_its_hard_one() {
    let plan = prepare_descriptors(1, 60).unwrap();
    let limits = fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let columns: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(columns[0], columns[1], "soft and hard: {line}");
    let limit: u64 = columns[0].parse().unwrap();
    assert_eq!(u64::from(plan.clients_ceiling), (limit - 60).min(u64::from(u32::MAX)));
}

#[test]
fn too_little_locked_memory_is_a_warning() {
    assert_eq!(limits::warn_of_locked_memory(1 << 20, 1 << 20), None);
    assert_eq!(
        limits::warn_of_locked_memory((8 << 20) + 1, 8 << 20).unwrap(),
        "the rings need about 8193 KiB of locked memory, and 8192 KiB are allowed: raise ulimit -l (LimitMEMLOCK in \
         systemd) or lower cores"
    );
    assert_eq!(locked_memory_warning(0, ring_memory_bytes(1024, 8192)), None);
    // Measured: 8 MiB are enough for 41 such rings.
    let rings = (8 << 20) / ring_memory_bytes(1024, 8192);
    assert!((38..=42).contains(&rings), "{rings}");
}

#[test]
fn the_capability_to_lock_memory_is_read_from_the_status() {
    assert!(limits::may_lock_memory("Name:\tx\nCapPrm:\t0000000000000000\nCapEff:\t000001ffffffffff\n"));
    assert!(limits::may_lock_memory("CapEff:\t0000000000004000\n"));
    for status in ["", "CapEff:\t0000000000000000\n", "CapEff:\t00000000a80425fb\n", "CapEff: x"] {
        assert!(!limits::may_lock_memory(status), "{status}");
    }
}

/// A port that nobody listens on, held for the test: bound with SO_REUSEADDR, it lets others with that option bind until
/// it listens. Shared as a server's port is.
fn hold_port(host: IpAddr) -> io::Result<TcpListener> {
    let options = [libc::SO_REUSEADDR, libc::SO_REUSEPORT];
    listen::bind_stream(SocketAddr::new(host, 0), &options).map(TcpListener::from)
}

fn start_listening(held: &TcpListener) {
    // SAFETY: listen takes no pointers.
    assert_eq!(unsafe { libc::listen(held.as_raw_fd(), 1) }, 0);
}

#[test]
fn a_port_that_another_server_shares_is_found() {
    for host in [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)] {
        let held = match hold_port(host) {
            Ok(held) => held,
            // A machine without IPv6 has nothing to find there.
            Err(error) => {
                assert!(host.is_ipv6(), "{error}");
                continue;
            }
        };
        let address = held.local_addr().unwrap();
        probe_bind(address).unwrap();
        start_listening(&held);
        assert_eq!(probe_bind(address).unwrap_err().raw_os_error(), Some(libc::EADDRINUSE));
    }
}

#[test]
fn addresses_are_probed_and_optional_ones_skipped() {
    let held = hold_port(Ipv4Addr::LOCALHOST.into()).unwrap();
    let port = held.local_addr().unwrap().port();
    // Of TEST-NET-3: no machine has it.
    let missing = Ipv4Addr::new(203, 0, 113, 7);
    let config = |bind: Vec<BindAddress>| Config { port, bind, ..Config::default() };

    let some = config(vec![bind(Ipv4Addr::LOCALHOST, false), bind(missing, true)]);
    assert_eq!(addresses_to_listen(&some).unwrap(), [SocketAddr::from((Ipv4Addr::LOCALHOST, port))]);
    let required = config(vec![bind(missing, false)]);
    let sentence = addresses_to_listen(&required).unwrap_err().to_string();
    assert!(
        sentence.starts_with("this machine does not have the address 203.0.113.7: change bind"),
        "{sentence}"
    );
    let none = config(vec![bind(missing, true)]);
    let sentence = addresses_to_listen(&none).unwrap_err().to_string();
    assert!(sentence.starts_with("this machine has none of the addresses in bind"), "{sentence}");
    assert!(addresses_to_listen(&Config { port: 0, ..none }).unwrap().is_empty());

    start_listening(&held);
    let taken = config(vec![bind(Ipv4Addr::LOCALHOST, true)]);
    let sentence = addresses_to_listen(&taken).unwrap_err().to_string();
    assert!(sentence.starts_with(&format!("port {port} of 127.0.0.1 is in use")), "{sentence}");
}

#[test]
fn a_listener_that_fails_is_explained_by_its_error() {
    let cases = [
        (
            "127.0.0.1:6379",
            libc::EADDRINUSE,
            "port 6379 of 127.0.0.1 is in use, perhaps by another server: stop that one or change port",
        ),
        (
            "127.0.0.1:80",
            libc::EACCES,
            "this user may not listen on port 80, as ports below 1024 need the capability CAP_NET_BIND_SERVICE: grant \
             it or change port",
        ),
        ("[::1]:8000", libc::EACCES, "this user may not listen on port 8000 of ::1: change port or bind"),
        (
            "[::1]:8000",
            libc::EADDRNOTAVAIL,
            "this machine does not have the address ::1: change bind, or write -::1 there to skip it",
        ),
        (
            "127.0.0.1:1",
            libc::EMFILE,
            "cannot listen on port 1 of 127.0.0.1 (Too many open files (os error 24)): change port or bind",
        ),
    ];
    for (text, number, expected) in cases {
        let error = StartupError::Listen { address: address(text), error: errno(number) };
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn a_unix_socket_in_use_is_left_alone_and_a_dead_one_removed() {
    let directory = TemporaryDirectory::new();
    let path = directory.join("socket");
    prepare_unix_socket(&path).unwrap();

    let listener = UnixListener::bind(&path).unwrap();
    let expected = format!(
        "the Unix socket {} is in use by another process: stop that one or change unixsocket",
        path.display()
    );
    assert_eq!(prepare_unix_socket(&path).unwrap_err().to_string(), expected);
    assert!(path.exists());
    drop(listener);
    prepare_unix_socket(&path).unwrap();
    assert!(!path.exists());

    let datagrams = UnixDatagram::bind(&path).unwrap();
    assert_eq!(prepare_unix_socket(&path).unwrap_err().to_string(), expected);
    drop(datagrams);
    prepare_unix_socket(&path).unwrap();
}

#[test]
fn a_path_that_cannot_be_a_unix_socket_is_explained() {
    let directory = TemporaryDirectory::new();
    let file = directory.join("file");
    fs::write(&file, "precious").unwrap();
    let sentence = prepare_unix_socket(&file).unwrap_err().to_string();
    assert_eq!(
        sentence,
        format!("{} exists and is not a socket: remove it or change unixsocket", file.display())
    );
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");

    let missing = directory.join("missing").join("socket");
    let sentence = prepare_unix_socket(&missing).unwrap_err().to_string();
    let expected = format!(
        "the directory of the Unix socket {} does not exist: create it or change unixsocket",
        missing.display()
    );
    assert_eq!(sentence, expected);

    let long = PathBuf::from(format!("/{}", "x".repeat(107)));
    let sentence = prepare_unix_socket(&long).unwrap_err().to_string();
    assert!(
        sentence.ends_with("has 108 bytes, and 107 is the most: choose a shorter unixsocket"),
        "{sentence}"
    );
    let longest = directory.join(&"x".repeat(106 - directory.0.as_os_str().len()));
    assert_eq!(longest.as_os_str().len(), 107);
    prepare_unix_socket(&longest).unwrap();
    UnixListener::bind(&longest).unwrap();

    prepare_unix_socket(Path::new("a-relative-socket-that-is-not-there")).unwrap();
    let system = |number| StartupError::UnixSocket {
        path: "/s".into(),
        reason: UnixSocketRefusal::System(errno(number)),
    };
    assert_eq!(
        system(libc::EACCES).to_string(),
        "this user may not listen on the Unix socket /s: change its directory's rights or unixsocket"
    );
    assert_eq!(
        system(libc::EROFS).to_string(),
        "cannot listen on the Unix socket /s (Read-only file system (os error 30)): change unixsocket"
    );
}

#[test]
fn a_unix_socket_gets_its_permission_bits() {
    let directory = TemporaryDirectory::new();
    let path = directory.join("socket");
    let _listener = UnixListener::bind(&path).unwrap();
    let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    restrict_unix_socket(&path, 0o750).unwrap();
    assert_eq!(mode(), 0o750);
    restrict_unix_socket(&path, 0).unwrap();
    assert_eq!(mode(), 0o750, "0 changes nothing");
    restrict_unix_socket(&directory.join("missing"), 0o700).unwrap_err();
}

#[test]
fn an_open_door_is_warned_of() {
    assert_eq!(exposure_warning(&Config::default()), None);
    let open = Config { bind: vec![bind(Ipv4Addr::UNSPECIFIED, false)], ..Config::default() };
    assert_eq!(
        exposure_warning(&open).unwrap(),
        "anyone who reaches 0.0.0.0:6379 can read and change everything: set requirepass, or bind to 127.0.0.1 only"
    );
    let mapped =
        Config { bind: vec![bind(Ipv4Addr::LOCALHOST.to_ipv6_mapped(), false)], ..Config::default() };
    assert_eq!(exposure_warning(&mapped), None);
    let global = Config { bind: vec![bind(Ipv6Addr::UNSPECIFIED, false)], ..Config::default() };
    assert!(exposure_warning(&global).unwrap().contains("[::]:6379"));
    assert_eq!(exposure_warning(&Config { password: Password::new(b"x"), ..open.clone() }), None);
    assert_eq!(exposure_warning(&Config { port: 0, ..open }), None);
}
