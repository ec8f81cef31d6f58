//! Server processes: each in a directory of its own, on a Unix socket in it, ended with the test.
//!
//! Invariants:
//! - No fixed port and no shared path, so tests run beside one another and beside real servers.
//! - A server lives at most as long as the test that started it, even when the test process is killed.
//! - A server that died by itself fails the test, whatever else the test found.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::connection::{Address, Connection};

/// How often a server that starts or ends is looked at before it counts as hung: with a pause of
/// `LOOK_PAUSE` between looks, about half a minute.
const LOOKS_MAX: usize = 15_000;
const LOOK_PAUSE: Duration = Duration::from_millis(2);

/// How many free ports are tried: between finding one and the server's taking it, another may have it.
const PORT_TRIES_MAX: usize = 8;

/// The environment variable that, when it is set, lets the directories of failed tests stay.
const KEEP_VARIABLE: &str = "DUVA_TEST_KEEP";

/// A directory that disappears with its owner.
pub struct TemporaryDirectory(PathBuf);

impl TemporaryDirectory {
    /// Makes an empty directory that nobody else has.
    ///
    /// # Panics
    /// When the system refuses.
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("duva-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        // What a test of an earlier, killed process with the same id left behind.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap_or_else(|error| panic!("cannot create {}: {error}", path.display()));
        Self(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TemporaryDirectory {
    fn drop(&mut self) {
        if std::thread::panicking() && std::env::var_os(KEEP_VARIABLE).is_some() {
            eprintln!("kept {}", self.0.display());
            return;
        }
        // A directory left in the temporary directory harms nobody.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Which program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Program {
    Redis,
    Duva { cores: usize },
}

/// How a server is to be started.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    program: Program,
    options: Vec<(String, Vec<String>)>,
    tcp: bool,
    socket: Option<PathBuf>,
    descriptors_max: Option<u64>,
}

impl ServerOptions {
    /// The real Redis: the reference.
    pub fn redis() -> Self {
        Self { program: Program::Redis, options: Vec::new(), tcp: false, socket: None, descriptors_max: None }
    }

    /// Duva on so many cores.
    pub fn duva(cores: usize) -> Self {
        Self { program: Program::Duva { cores }, ..Self::redis() }
    }

    /// Adds an option of the server's command line with its values.
    pub fn option(mut self, name: &str, values: &[&str]) -> Self {
        self.options.push((name.to_owned(), values.iter().map(|&value| value.to_owned()).collect()));
        self
    }

    /// Lets Duva journal in a directory of the caller's, which stays when the server is gone.
    pub fn journal(self, directory: &Path) -> Self {
        let directory = directory.to_str().expect("the names of temporary directories are text");
        self.option("dir", &[directory]).option("appendonly", &["yes"])
    }

    /// Lets the server listen on a free TCP port of the loopback interface, too.
    pub fn tcp(mut self) -> Self {
        self.tcp = true;
        self
    }

    /// Puts the Unix socket at a path of the caller's, instead of the server's own directory.
    pub fn socket(mut self, path: &Path) -> Self {
        self.socket = Some(path.to_owned());
        self
    }

    /// Limits the server's descriptors, hard and soft.
    pub fn descriptors_max(mut self, count: u64) -> Self {
        self.descriptors_max = Some(count);
        self
    }

    /// Starts the server and waits until it answers.
    ///
    /// # Panics
    /// When the program is missing, ends, or does not answer; with what it logged.
    pub fn start(&self) -> Server {
        for _ in 1..PORT_TRIES_MAX {
            match self.start_once() {
                Ok(server) => return server,
                Err(log) if self.tcp && log.contains("in use") => {}
                Err(log) => panic!("{:?} did not start:\n{log}", self.program),
            }
        }
        panic!("{:?} found no free port in {PORT_TRIES_MAX} tries", self.program)
    }

    /// Starts the server and waits for nothing: it may even be refused its port.
    ///
    /// # Panics
    /// When the program is missing.
    pub fn begin(&self) -> Server {
        let directory = TemporaryDirectory::new();
        let socket = self.socket.clone().unwrap_or_else(|| directory.path().join("socket"));
        let port = if self.tcp { free_port() } else { 0 };
        let log_path = directory.path().join("log");
        let log = File::create(&log_path).expect("the directory is ours and empty");
        let mut command = self.command();
        command
            .arg("--port")
            .arg(port.to_string())
            .arg("--unixsocket")
            .arg(&socket)
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle of a file"))
            .stderr(log);
        for (name, values) in &self.options {
            command.arg(format!("--{name}")).args(self.values(values));
        }
        let descriptors_max = self.descriptors_max;
        let prepare = move || {
            // The kernel ends the child with the thread that started it: the test's.
            // SAFETY: prctl with PR_SET_PDEATHSIG takes two integers and touches no memory of ours.
            if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } != 0 {
                return Err(io::Error::last_os_error());
            }
            if let Some(count) = descriptors_max {
                let limit = libc::rlimit { rlim_cur: count, rlim_max: count };
                // SAFETY: the pointer is to a live local, which the call only reads.
                if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } != 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            Ok(())
        };
        // SAFETY: between fork and exec the closure makes system calls only, which are async-signal-safe.
        unsafe { command.pre_exec(prepare) };
        let child = command.spawn().unwrap_or_else(|error| {
            panic!(
                "cannot run {}: {error}; .ci/test-setup installs what the tests need",
                command.get_program().display()
            )
        });
        let tcp = self.tcp.then(|| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        Server { child, socket, tcp, log_path, ended: false, directory: Some(directory) }
    }

    fn start_once(&self) -> Result<Server, String> {
        let mut server = self.begin();
        match server.wait_until_ready() {
            Ok(()) => Ok(server),
            Err(sentence) => {
                server.end();
                Err(format!("{sentence}\n{}", server.log()))
            }
        }
    }

    fn command(&self) -> Command {
        match self.program {
            Program::Redis => {
                let mut command = Command::new("redis-server");
                command.args(["--save", "", "--appendonly", "no"]);
                command
            }
            Program::Duva { cores } => {
                let mut command = Command::new(env!("CARGO_BIN_EXE_duva-server"));
                // Few tests concern the journal; an option given later counts instead.
                command.arg("--cores").arg(cores.to_string()).args(["--appendonly", "no"]);
                command
            }
        }
    }

    /// An option's values: words of their own for Redis, one word for Duva.
    fn values(&self, values: &[String]) -> Vec<String> {
        match self.program {
            Program::Redis => values.to_vec(),
            Program::Duva { .. } => vec![values.join(" ")],
        }
    }
}

/// A running server.
pub struct Server {
    child: Child,
    socket: PathBuf,
    tcp: Option<SocketAddr>,
    log_path: PathBuf,
    ended: bool,
    /// There as long as the server, or as whoever waited for its end wants it.
    directory: Option<TemporaryDirectory>,
}

impl Server {
    /// The path of its Unix socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Its Unix socket as an address.
    pub fn address(&self) -> Address {
        Address::Unix(self.socket.clone())
    }

    /// Its TCP address.
    ///
    /// # Panics
    /// When it was started without one.
    pub fn tcp_address(&self) -> SocketAddr {
        self.tcp.expect("the server was started with .tcp()")
    }

    /// A new connection through the Unix socket.
    ///
    /// # Panics
    /// When the server does not accept it.
    pub fn connect(&self) -> Connection {
        Connection::open(&self.address())
            .unwrap_or_else(|error| panic!("cannot connect: {error}\n{}", self.log()))
    }

    /// A new connection over TCP.
    ///
    /// # Panics
    /// When the server does not accept it.
    pub fn connect_tcp(&self) -> Connection {
        let address = Address::Tcp(self.tcp_address());
        Connection::open(&address).unwrap_or_else(|error| panic!("cannot connect: {error}\n{}", self.log()))
    }

    /// The process's resident memory.
    ///
    /// # Panics
    /// When the process is gone.
    pub fn resident_bytes(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status =
            fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}\n{}", self.log()));
        let line =
            status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a live process has VmRSS");
        let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse().expect("VmRSS is a number of kB");
        kibibytes * 1024
    }

    /// How many descriptors the process has open.
    ///
    /// # Panics
    /// When the process is gone.
    pub fn descriptors(&self) -> usize {
        let path = format!("/proc/{}/fd", self.child.id());
        fs::read_dir(&path).unwrap_or_else(|error| panic!("{path}: {error}\n{}", self.log())).count()
    }

    /// Limits the running process's descriptors, those it has included.
    pub fn limit_descriptors(&self, count: u64) {
        let process = i32::try_from(self.child.id()).expect("process ids are positive and below 2^31");
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the process is our child; one pointer is null, the other to a live local, which the call fills.
        let result = unsafe { libc::prlimit(process, libc::RLIMIT_NOFILE, std::ptr::null(), &raw mut limit) };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
        limit.rlim_cur = count;
        // SAFETY: as above; the call only reads the local, and the other pointer is null.
        let result =
            unsafe { libc::prlimit(process, libc::RLIMIT_NOFILE, &raw const limit, std::ptr::null_mut()) };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
    }

    /// What the server wrote to its standard output and error, the end of it.
    pub fn log(&self) -> String {
        let log = fs::read_to_string(&self.log_path).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }

    /// Sends the process a signal.
    pub fn signal(&self, signal: i32) {
        let process = i32::try_from(self.child.id()).expect("process ids are positive and below 2^31");
        // SAFETY: kill takes two integers; the process is our child and not yet waited for.
        let result = unsafe { libc::kill(process, signal) };
        assert_eq!(result, 0, "the process was there to be signalled");
    }

    /// Kills the process, which gets no chance to do anything about it, and waits until it is gone.
    ///
    /// # Panics
    /// When it had ended by itself.
    pub fn kill(mut self) {
        if let Some(status) = self.child.try_wait().expect("our own child") {
            self.ended = true;
            panic!("the server ended by itself with {status}:\n{}", self.log());
        }
        self.end();
    }

    /// Waits for the process to end by itself: how it ended, and its directory.
    ///
    /// # Panics
    /// When it does not.
    pub fn wait_for_exit(mut self) -> (ExitStatus, TemporaryDirectory) {
        for _ in 0..LOOKS_MAX {
            if let Some(status) = self.child.try_wait().expect("our own child") {
                self.ended = true;
                return (status, self.directory.take().expect("taken here alone"));
            }
            std::thread::park_timeout(LOOK_PAUSE);
        }
        panic!("the server did not end:\n{}", self.log())
    }

    /// Looks again and again until `condition` holds.
    ///
    /// For what a server does soon but not before it replies, such as noticing that a client has gone.
    ///
    /// # Panics
    /// When it does not hold after about half a minute.
    pub fn wait_until(&self, what: &str, mut condition: impl FnMut() -> bool) {
        for _ in 0..LOOKS_MAX {
            if condition() {
                return;
            }
            std::thread::park_timeout(LOOK_PAUSE);
        }
        panic!("waited in vain: {what}\n{}", self.log())
    }

    fn wait_until_ready(&mut self) -> Result<(), String> {
        for _ in 0..LOOKS_MAX {
            if let Some(status) = self.child.try_wait().expect("our own child") {
                self.ended = true;
                return Err(format!("it ended with {status}"));
            }
            if self.answers() {
                return Ok(());
            }
            std::thread::park_timeout(LOOK_PAUSE);
        }
        Err("it does not answer".to_owned())
    }

    /// Whether every listener answers; with a password set, a refusal is an answer as well.
    fn answers(&self) -> bool {
        let ping = |address: Address| {
            Connection::open(&address).is_ok_and(|mut client| client.try_call(&["PING"]).is_ok())
        };
        ping(self.address()) && self.tcp.is_none_or(|address| ping(Address::Tcp(address)))
    }

    fn end(&mut self) {
        if !self.ended {
            self.ended = true;
            // Already ended is ended.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let died = if self.ended { None } else { self.child.try_wait().ok().flatten() };
        self.end();
        if std::thread::panicking() {
            eprintln!("--- log of the server on {} ---\n{}", self.socket.display(), self.log());
        } else if let Some(status) = died {
            panic!("the server ended by itself with {status}:\n{}", self.log());
        }
    }
}

/// Runs Duva with a command line that it must refuse: how it ended, and what it said.
///
/// # Panics
/// When it does not end by itself.
pub fn run_to_its_end(arguments: &[&str]) -> (ExitStatus, String) {
    let directory = TemporaryDirectory::new();
    let log_path = directory.path().join("log");
    let log = File::create(&log_path).expect("the directory is ours and empty");
    let mut command = Command::new(env!("CARGO_BIN_EXE_duva-server"));
    command.args(arguments).current_dir(directory.path()).stdin(Stdio::null());
    command.stdout(log.try_clone().expect("a second handle of a file")).stderr(log);
    let child = command.spawn().expect("the binary was built for this test");
    let socket = directory.path().join("none");
    let mut server = Server { child, socket, tcp: None, log_path, ended: false, directory: Some(directory) };
    for _ in 0..LOOKS_MAX {
        if let Some(status) = server.child.try_wait().expect("our own child") {
            server.ended = true;
            return (status, server.log());
        }
        std::thread::park_timeout(LOOK_PAUSE);
    }
    panic!("{arguments:?} was not refused")
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    let listener =
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("the loopback interface has a free port");
    listener.local_addr().expect("a bound socket has an address").port()
}
