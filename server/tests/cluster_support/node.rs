//! Nodes: a process each, on addresses and in a directory that stay the node's own over its restarts.
//!
//! Invariants:
//! - A process lives at most as long as the thread that started it, and is always waited for.
//! - A process that ended by itself fails the test, unless the test asked for that end.
//! - A port is free when it is chosen and outside the range from which the kernel gives ports by itself. Inside it, another
//!   process might be given the port while the node is down, and a client that connects to a port without a listener might be
//!   connected to itself.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::{shards::Shards, wait_for};
use crate::support::connection::{Address, Connection, PATIENCE};
use crate::support::process::TemporaryDirectory;

/// The ports that are tried; the kernel gives those from 32,768 on.
const PORTS: std::ops::Range<u32> = 12_000..32_000;

/// How often other ports are tried, when somebody took those that were free.
const START_TRIES_MAX: usize = 20;

/// How many lines of a node's log are shown.
const LOG_LINES_MAX: usize = 40;

/// How long one look at a node waits for its answer.
const LOOK_PATIENCE: Duration = Duration::from_secs(2);

/// How a node comes to its cluster. On a directory that belongs to one already this is of no meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// No cluster at all.
    Alone,
    /// It is the first.
    First,
    /// It joins the one that the node at this address belongs to.
    Joins(SocketAddr),
}

/// One node.
pub struct Node {
    name: String,
    role: Role,
    host: IpAddr,
    port: u16,
    peer_port: u16,
    options: Vec<String>,
    namespace: Option<Arc<OwnedFd>>,
    directory: TemporaryDirectory,
    process: Option<Child>,
}

impl Node {
    /// A node that is not started yet, on the loopback interface.
    pub fn new(name: &str, role: Role) -> Self {
        let (port, peer_port) = free_ports();
        let directory = TemporaryDirectory::new();
        fs::create_dir(directory.path().join("data")).expect("the directory is ours and empty");
        Self {
            name: name.to_owned(),
            role,
            host: Ipv4Addr::LOCALHOST.into(),
            port,
            peer_port,
            options: Vec::new(),
            namespace: None,
            directory,
            process: None,
        }
    }

    /// Puts the node into a network namespace, where it has this address.
    pub fn inside(mut self, namespace: Arc<OwnedFd>, host: Ipv4Addr) -> Self {
        (self.namespace, self.host) = (Some(namespace), host.into());
        self
    }

    /// Adds an option of the command line.
    pub fn option(mut self, name: &str, value: &str) -> Self {
        self.options.extend([format!("--{name}"), value.to_owned()]);
        self
    }

    /// Adds an argument to the command line of the processes to come.
    pub fn add_argument(&mut self, argument: &str) {
        self.options.push(argument.to_owned());
    }

    /// Removes what [`Self::add_argument`] added.
    pub fn remove_argument(&mut self, argument: &str) {
        self.options.retain(|option| option != argument);
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((self.host, self.port))
    }

    /// Where other nodes connect.
    pub fn peer_address(&self) -> SocketAddr {
        SocketAddr::from((self.host, self.peer_port))
    }

    /// Where it keeps its data.
    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Whether there is a process that was not ended by the test.
    pub fn is_started(&self) -> bool {
        self.process.is_some()
    }

    /// Starts the process and waits until it answers. The first time it may choose other ports.
    ///
    /// # Panics
    /// When it does not, with what it logged.
    pub fn start(&mut self) {
        let is_first = !self.log_path().exists();
        for _ in 0..START_TRIES_MAX {
            self.begin();
            match self.wait_until_answered() {
                Ok(()) => return,
                Err(_) if is_first && self.log().contains("in use") => {
                    (self.port, self.peer_port) = free_ports();
                }
                Err(reason) => panic!("{} did not start: {reason}\n{}", self.name, self.log()),
            }
        }
        panic!("{} found no free ports in {START_TRIES_MAX} tries", self.name);
    }

    /// Starts the process and waits for nothing.
    pub fn begin(&mut self) {
        assert!(self.process.is_none(), "{} is running", self.name);
        let log = OpenOptions::new().create(true).append(true).open(self.log_path());
        let log = log.expect("the directory is ours");
        let process = self.command(&log).spawn().expect("the binary was built for this test");
        self.process = Some(process);
    }

    /// Runs a process as this node's, which must end by itself without having served: how it ended and what it logged.
    ///
    /// # Panics
    /// When it does not end.
    pub fn run_to_its_end(&mut self) -> (ExitStatus, String) {
        let before = fs::read(self.log_path()).map_or(0, |log| log.len());
        self.begin();
        let name = self.name.clone();
        let process = self.process.as_mut().expect("just started");
        let status = wait_for(&format!("the end of {name}"), || {
            process.try_wait().expect("our own child").ok_or_else(|| "it runs".to_owned())
        });
        self.process = None;
        let log = fs::read(self.log_path()).expect("it was written to");
        (status, String::from_utf8_lossy(&log[before..]).into_owned())
    }

    /// Another process for the same directory, on ports of its own.
    pub fn twin(&self) -> TwinNode {
        let mut twin = Self::new(&format!("a twin of {}", self.name), self.role);
        twin.options.clone_from(&self.options);
        twin.options.extend(["--dir".to_owned(), self.data().display().to_string()]);
        TwinNode(twin)
    }

    /// A node with a copy of this one's directory, on ports of its own. This one must not be running.
    pub fn copy(&self) -> Self {
        assert!(self.process.is_none(), "{} is running", self.name);
        let mut copy = Self::new(&format!("a copy of {}", self.name), self.role);
        copy.options.clone_from(&self.options);
        copy_directory(&self.data(), &copy.data());
        copy
    }

    /// kill -9: returns when the process is gone.
    pub fn kill(&mut self) {
        let mut process = self.running();
        process.kill().expect("our own child");
        process.wait().expect("our own child");
    }

    /// SIGTERM: returns when the process has ended.
    pub fn stop(&mut self) {
        self.terminate();
        self.wait_for_end();
    }

    /// SIGTERM: returns at once.
    pub fn terminate(&self) {
        self.signal(libc::SIGTERM);
    }

    /// Waits until the process, which was told to stop, has ended.
    pub fn wait_for_end(&mut self) {
        let mut process = self.process.take().unwrap_or_else(|| panic!("{} is not running", self.name));
        let status = wait_for(&format!("the end of {}", self.name), || {
            process.try_wait().expect("our own child").ok_or_else(|| "it runs".to_owned())
        });
        assert!(status.success(), "{}: {status}\n{}", self.name, self.log());
    }

    /// From now on the process cannot write to a file beyond so many bytes: that fails, as on a broken disk. The next one can.
    pub fn limit_files(&self, bytes: u64) {
        let id = self.process_id();
        let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
        // SAFETY: the call reads the local limit and writes nothing; the process is our child and not yet waited for.
        let result = unsafe { libc::prlimit(id, libc::RLIMIT_FSIZE, &raw const limit, std::ptr::null_mut()) };
        assert_eq!(result, 0, "{}: {}", self.name, io::Error::last_os_error());
    }

    /// SIGSTOP: returns when all threads stand still. One of them takes the signal and stops the others, which go on until it
    /// has had a CPU.
    pub fn pause(&self) {
        self.signal(libc::SIGSTOP);
        let id = self.process_id();
        // SAFETY: zeroes are a value of this plain structure.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let options = libc::WSTOPPED | libc::WEXITED | libc::WNOWAIT;
        // SAFETY: the call writes to the local structure alone, and leaves the process to be waited for.
        let result = unsafe { libc::waitid(libc::P_PID, id as libc::id_t, &raw mut info, options) };
        assert_eq!(result, 0, "{}: {}", self.name, io::Error::last_os_error());
        assert_eq!(info.si_code, libc::CLD_STOPPED, "{} has ended\n{}", self.name, self.log());
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.signal(libc::SIGCONT);
    }

    /// Removes all data of a node without a process.
    pub fn wipe(&mut self, role: Role) {
        assert!(self.process.is_none(), "{} is running", self.name);
        fs::remove_dir_all(self.data()).expect("the directory is ours");
        fs::create_dir(self.data()).expect("the directory is ours");
        self.role = role;
    }

    /// Gives the next process another role, with the data that there is.
    pub fn turn(&mut self, role: Role) {
        assert!(self.process.is_none(), "{} is running", self.name);
        self.role = role;
    }

    /// A new connection.
    ///
    /// # Panics
    /// When there is none to be had.
    pub fn connect(&self) -> Connection {
        self.open().unwrap_or_else(|error| panic!("{}: {error}\n{}", self.name, self.log()))
    }

    /// A connection, with the password if the options have one.
    fn open(&self) -> io::Result<Connection> {
        let mut connection = Connection::open(&Address::Tcp(self.address()))?;
        connection.set_patience(LOOK_PATIENCE)?;
        let place = self.options.iter().position(|option| option == "--requirepass");
        if let Some(password) = place.and_then(|place| self.options.get(place + 1)) {
            connection.try_call(&["AUTH", password])?;
        }
        connection.set_patience(PATIENCE)?;
        Ok(connection)
    }

    /// What the node says about the shards of its cluster.
    ///
    /// # Errors
    /// That it does not answer, or with an error.
    pub fn shards(&self) -> Result<Shards, String> {
        Shards::parse(&self.ask(&["CLUSTER", "SHARDS"])?)
    }

    /// The field of CLUSTER INFO.
    ///
    /// # Errors
    /// That there is none, or no answer.
    pub fn cluster_info(&self, field: &str) -> Result<String, String> {
        let reply = self.ask(&["CLUSTER", "INFO"])?;
        let text = String::from_utf8_lossy(reply.bytes().unwrap_or_default()).into_owned();
        let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        line.map(|value| value.trim().to_owned()).ok_or_else(|| format!("no {field} in {text}"))
    }

    /// Has all shards saved, so that the logs begin behind that, and waits for the end.
    ///
    /// # Panics
    /// When it is refused or fails.
    pub fn rewrite(&self) {
        let reply = self.connect().words("BGREWRITEAOF");
        assert!(!reply.is_error(), "{}: {reply}", self.name);
        wait_for("the end of the rewrite", || {
            let reply = self.ask(&["INFO", "persistence"])?;
            let text = String::from_utf8_lossy(reply.bytes().unwrap_or_default()).into_owned();
            let fields =
                ["aof_rewrite_in_progress:0", "aof_rewrite_scheduled:0", "aof_last_bgrewrite_status:ok"];
            if fields.iter().all(|field| text.contains(field)) { Ok(()) } else { Err(text) }
        });
    }

    /// Whether the process, or an earlier one of this node, has said so.
    pub fn has_logged(&self, text: &str) -> bool {
        self.times_logged(text) > 0
    }

    /// How often the process, and earlier ones of this node, have said so.
    pub fn times_logged(&self, text: &str) -> usize {
        String::from_utf8_lossy(&fs::read(self.log_path()).unwrap_or_default()).matches(text).count()
    }

    /// Waits until the process says so, once more than `before` times.
    ///
    /// # Panics
    /// When it does not.
    pub fn wait_until_logged(&self, text: &str, before: usize) {
        wait_for(text, || if self.times_logged(text) > before { Ok(()) } else { Err(self.log()) });
    }

    /// What the process wrote, the end of it.
    pub fn log(&self) -> String {
        let log = fs::read(self.log_path()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES_MAX)..].join("\n")
    }

    fn ask(&self, words: &[&str]) -> Result<crate::support::resp::Reply, String> {
        let show = |error: io::Error| format!("{}: {error}", self.name);
        let mut connection = self.open().map_err(show)?;
        connection.set_patience(LOOK_PATIENCE).map_err(show)?;
        let reply = connection.try_call(words).map_err(show)?;
        if reply.is_error() { Err(format!("{}: {reply}", self.name)) } else { Ok(reply) }
    }

    /// Takes the process, which must be running.
    fn running(&mut self) -> Child {
        let mut process = self.process.take().unwrap_or_else(|| panic!("{} is not running", self.name));
        if let Some(status) = process.try_wait().expect("our own child") {
            panic!("{} ended by itself with {status}:\n{}", self.name, self.log());
        }
        process
    }

    fn process_id(&self) -> libc::pid_t {
        let process = self.process.as_ref().unwrap_or_else(|| panic!("{} is not running", self.name));
        i32::try_from(process.id()).expect("process ids are positive and below 2^31")
    }

    fn signal(&self, signal: i32) {
        let id = self.process_id();
        // SAFETY: kill takes two integers; the process is our child and not yet waited for.
        let result = unsafe { libc::kill(id, signal) };
        assert_eq!(result, 0, "{} was there to be signalled", self.name);
    }

    fn wait_until_answered(&mut self) -> Result<(), String> {
        let start = std::time::Instant::now();
        loop {
            let process = self.process.as_mut().expect("just started");
            if let Some(status) = process.try_wait().expect("our own child") {
                self.process = None;
                return Err(format!("it ended with {status}"));
            }
            match self.ask(&["PING"]) {
                Ok(_) => return Ok(()),
                Err(reason) if start.elapsed() > super::DEADLINE => return Err(reason),
                Err(_) => std::thread::park_timeout(super::LOOK_PAUSE),
            }
        }
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    fn command(&self, log: &File) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_duva-server"));
        command.args(["--port", &self.port.to_string(), "--bind", &self.host.to_string()]);
        command.args(["--dir".into(), self.data()]);
        match self.role {
            Role::Alone => {}
            Role::First => {
                command.args(["--cluster", "--peer-port", &self.peer_port.to_string()]);
            }
            Role::Joins(seed) => {
                command.args(["--join", &seed.to_string(), "--peer-port", &self.peer_port.to_string()]);
            }
        }
        command.args(&self.options).current_dir(self.directory.path()).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("a second handle of a file"));
        command.stderr(log.try_clone().expect("a second handle of a file"));
        let namespace = self.namespace.as_ref().map(|namespace| namespace.as_raw_fd());
        let prepare = move || {
            // The kernel ends the child with the thread that started it: the test's.
            // SAFETY: prctl with PR_SET_PDEATHSIG takes two integers and touches no memory of ours.
            if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } != 0 {
                return Err(io::Error::last_os_error());
            }
            // So that a write beyond a limit is an error and not the end: see `Self::limit_files`.
            // SAFETY: what is ignored runs no code.
            unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
            match namespace {
                // SAFETY: setns takes two integers; the descriptor is open as long as the node.
                Some(descriptor) if unsafe { libc::setns(descriptor, libc::CLONE_NEWNET) } != 0 => {
                    Err(io::Error::last_os_error())
                }
                _ => Ok(()),
            }
        };
        // SAFETY: between fork and exec the closure makes system calls only, which are async-signal-safe.
        unsafe { command.pre_exec(prepare) };
        command
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let mut ended = None;
        if let Some(mut process) = self.process.take() {
            ended = process.try_wait().ok().flatten();
            // Already ended is ended.
            let _ = process.kill();
            let _ = process.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- log of {} on {} ---\n{}", self.name, self.address(), self.log());
        } else if let Some(status) = ended {
            panic!("{} ended by itself with {status}:\n{}", self.name, self.log());
        }
    }
}

/// A process that must be refused, as its directory belongs to another one.
pub struct TwinNode(Node);

impl TwinNode {
    /// As [`Node::run_to_its_end`].
    pub fn run_to_its_end(mut self) -> (ExitStatus, String) {
        self.0.run_to_its_end()
    }
}

/// Two ports that nobody has at this moment, each tried on all addresses.
fn free_ports() -> (u16, u16) {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Test programs that run at the same time begin at different places.
    let begin = std::process::id().wrapping_mul(7919);
    let mut free = Vec::new();
    while free.len() < 2 {
        let number = begin.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = PORTS.start + number % (PORTS.end - PORTS.start);
        let port = u16::try_from(port).expect("the range is one of ports");
        if TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok() {
            free.push(port);
        }
    }
    (free[0], free[1])
}

fn copy_directory(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("the directory is ours") {
        let entry = entry.expect("the directory is ours");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("it was just listed").is_dir() {
            fs::create_dir(&target).expect("the directory is ours");
            copy_directory(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).expect("both are ours");
        }
    }
}
