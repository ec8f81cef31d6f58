//! A machine whose every step a test decides: its clocks stand still, and its disk does what it is told.
//!
//! The cores are the real ones, in one thread, and so are the files. Only when a file task, a write or a sync ends, and
//! how, is the test's to say. Sockets take everything at once.

use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    fs::{self, File as StdFile, OpenOptions},
    io::{Read, Seek, SeekFrom, Write},
    net::SocketAddr,
    os::unix::fs::FileExt,
    path::PathBuf,
    rc::Rc,
    sync::Arc,
};

use duva_net::{
    io::{Clock, Digest, Event, File, FileTask, Io, Socket, Token, Wait},
    mesh::mesh,
};
use duva_server::{
    cluster::{meta::MetaState, view::ClusterView},
    config::{AppendFsync, Config},
    core::{Core, admin::Shared, cluster_shared::ClusterShared},
    launch,
    storage::Store,
};

use crate::support::{
    process::TemporaryDirectory,
    resp::{self, Reply},
};

/// Steps in which the cores come to rest, however much they have to do.
const STEPS_MAX: usize = 200_000;

/// The wall clock at the beginning, in milliseconds since the Unix epoch.
const START_MS: u64 = 1_800_000_000_000;

/// How long the machine has been up when a server starts: some days.
const UPTIME_NS: u64 = 1_000_000_000_000_000;

/// How often a core that ends looks at the disk once more before it counts as hung.
const LAST_TURNS_MAX: usize = 1_000;

/// What the disk does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DiskMood {
    /// File tasks wait, from the next one on.
    pub(crate) holds_tasks: bool,
    /// Of them only those that write, publish and remove whole files do.
    pub(crate) holds_outputs: bool,
    /// Syncs wait.
    pub(crate) holds_syncs: bool,
    /// Only this core's do.
    pub(crate) holds_syncs_of: Option<usize>,
    /// Nothing that needs room gets any.
    pub(crate) is_full: bool,
    /// Writes to segments fail like this.
    pub(crate) write_error: Option<i32>,
}

struct Kernel {
    events: VecDeque<Event<Vec<u8>>>,
    /// Connections that receive.
    receives: Vec<(Token, Socket)>,
    /// The same, into memory of their own.
    receives_into: Vec<(Token, Socket, Vec<u8>, usize)>,
    tasks: VecDeque<(u64, FileTask)>,
    syncs: VecDeque<u64>,
    files: BTreeMap<u32, Rc<StdFile>>,
    /// Checksums of files that are being written.
    digests: BTreeMap<u32, Box<dyn Digest>>,
}

/// What all cores run on.
struct Machine {
    now_ns: u64,
    /// How far the wall clock is ahead of the other.
    wall_ahead_ms: u64,
    mood: DiskMood,
    kernels: Vec<Kernel>,
    /// What clients have sent and not been taken, and what they were sent, by socket.
    inbound: Vec<Vec<u8>>,
    outbound: Vec<Vec<u8>>,
    syncs_begun: usize,
    written_bytes: usize,
    /// Turns that are left to a core that ends.
    last_turns: Option<usize>,
}

/// A core's way to the machine.
struct Door {
    core: usize,
    machine: Rc<RefCell<Machine>>,
}

/// A server on such a machine.
pub(crate) struct Bench {
    machine: Rc<RefCell<Machine>>,
    cores: Vec<(Core<Door>, Option<Wait>)>,
    shared: Arc<Shared>,
    config: Config,
    directory: Rc<TemporaryDirectory>,
}

/// A client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Client(usize);

impl Bench {
    /// A server on so many cores in a new directory, with segments of 1 MiB and a disk that does everything at once.
    pub(crate) fn new(cores: u16, fsync: AppendFsync) -> Self {
        Self::with_segments(cores, fsync, 1)
    }

    /// The same, with segments of so many MiB.
    pub(crate) fn with_segments(cores: u16, fsync: AppendFsync, segment_mib: u32) -> Self {
        let directory = Rc::new(TemporaryDirectory::new());
        let config = Config {
            cores,
            shards: 16,
            directory: directory.path().to_owned(),
            append_fsync: fsync,
            segment_size_bytes: segment_mib << 20,
            rewrite_growth_percent: 0,
            ..Config::default()
        };
        Self::start(config, directory, START_MS)
    }

    /// A server on so many cores that sees a cluster so, which nobody drives.
    pub(crate) fn with_cluster(cores: u16, view: ClusterView) -> Self {
        let directory = Rc::new(TemporaryDirectory::new());
        let shards = view.state.shards;
        let config = Config { cores, shards, directory: directory.path().to_owned(), ..Config::default() };
        Self::start_in(config, directory, START_MS, Some(Arc::new(view)), None)
    }

    /// The same, where the view of node `number` is what is made of it.
    #[allow(dead_code, reason = "some test programs have no cluster")]
    pub(crate) fn with_shared_cluster(
        cores: u16,
        state: MetaState,
        number: u32,
    ) -> (Self, Arc<ClusterShared>) {
        let directory = Rc::new(TemporaryDirectory::new());
        let config = Config {
            cores,
            shards: state.shards,
            directory: directory.path().to_owned(),
            ..Config::default()
        };
        let cluster = Arc::new(ClusterShared::new(state, number, (0, BTreeMap::new())));
        let this =
            Self::start_in(config, directory, START_MS, Some(cluster.view()), Some(Arc::clone(&cluster)));
        (this, cluster)
    }

    /// The same, without a journal.
    pub(crate) fn in_memory(cores: u16) -> Self {
        let directory = Rc::new(TemporaryDirectory::new());
        let config = Config {
            cores,
            shards: 16,
            directory: directory.path().to_owned(),
            append_only: false,
            save_points: Vec::new(),
            ..Config::default()
        };
        Self::start(config, directory, START_MS)
    }

    fn start(config: Config, directory: Rc<TemporaryDirectory>, wall_ms: u64) -> Self {
        Self::start_in(config, directory, wall_ms, None, None)
    }

    fn start_in(
        config: Config,
        directory: Rc<TemporaryDirectory>,
        wall_ms: u64,
        view: Option<Arc<ClusterView>>,
        cluster: Option<Arc<ClusterShared>>,
    ) -> Self {
        let wall_ahead_ms = wall_ms - UPTIME_NS / 1_000_000;
        let count = usize::from(config.cores);
        let kernel = || Kernel {
            events: VecDeque::new(),
            receives: Vec::new(),
            receives_into: Vec::new(),
            tasks: VecDeque::new(),
            syncs: VecDeque::new(),
            files: BTreeMap::new(),
            digests: BTreeMap::new(),
        };
        let mood = DiskMood {
            holds_tasks: false,
            holds_outputs: false,
            holds_syncs: false,
            holds_syncs_of: None,
            is_full: false,
            write_error: None,
        };
        let machine = Rc::new(RefCell::new(Machine {
            now_ns: UPTIME_NS,
            wall_ahead_ms,
            mood,
            kernels: (0..count).map(|_| kernel()).collect(),
            inbound: Vec::new(),
            outbound: Vec::new(),
            syncs_begun: 0,
            written_bytes: 0,
            last_turns: None,
        }));
        let shared = Arc::new(Shared::new(config.clone(), None, 0, wall_ms, "0".repeat(40)));
        let store = Store::open(&config, None).unwrap_or_else(|error| panic!("{error}"));
        if let Some(earlier) = store.earlier() {
            shared.set_earlier_segments(Arc::clone(earlier));
        }
        let each = Arc::new(config.clone());
        let nodes = mesh(count, 4).into_iter().enumerate().map(|(core, endpoint)| {
            launch::load(core, Arc::clone(&each), Arc::clone(&shared), endpoint, &store, None, core as u64)
                .unwrap_or_else(|error| panic!("{error}"))
        });
        let nodes: Vec<_> = nodes.collect();
        store.commit().unwrap_or_else(|error| panic!("{error}"));
        let cores = nodes.into_iter().enumerate().map(|(core, mut node)| {
            node.cluster_view.clone_from(&view);
            node.cluster.clone_from(&cluster);
            let door = Door { core, machine: Rc::clone(&machine) };
            (Core::new(door, node, 1), None)
        });
        let mut this = Self { cores: cores.collect(), machine, shared, config, directory };
        this.settle();
        this
    }

    /// The server is killed, and starts again, with a clock that differs by so much.
    pub(crate) fn restart(self, wall_step_ms: i64) -> Self {
        let cores = self.config.cores;
        self.restart_with(cores, wall_step_ms)
    }

    /// The same, with another number of cores.
    pub(crate) fn restart_with(self, cores: u16, wall_step_ms: i64) -> Self {
        let wall_ms = self.now_ms().checked_add_signed(wall_step_ms).expect("a time of this epoch");
        let Self { config, directory, .. } = self;
        Self::start(Config { cores, ..config }, directory, wall_ms)
    }

    /// The wall clock.
    pub(crate) fn now_ms(&self) -> u64 {
        let machine = self.machine.borrow();
        machine.wall_ahead_ms + machine.now_ns / 1_000_000
    }

    /// A file or folder of the server.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// What the disk does from now on. What it does not hold any more ends.
    pub(crate) fn set_disk(&mut self, change: impl FnOnce(&mut DiskMood)) {
        let mut machine = self.machine.borrow_mut();
        change(&mut machine.mood);
        for core in 0..self.cores.len() {
            machine.go_on(core);
        }
    }

    /// Time passes, in which nothing happens.
    pub(crate) fn pass_ms(&mut self, ms: u64) {
        self.machine.borrow_mut().now_ns += ms * 1_000_000;
    }

    /// Time passes until somebody's timer is due at the latest, and everybody comes to rest.
    pub(crate) fn pass_to_next_timer(&mut self) {
        let timeouts = self.cores.iter().filter_map(|(_, wait)| match wait {
            Some(Wait::Block { timeout, .. }) => *timeout,
            _ => None,
        });
        let next = timeouts.min().expect("somebody has a timer");
        self.machine.borrow_mut().now_ns += next.as_nanos() as u64;
        self.wake_all();
        self.settle();
    }

    /// How many syncs have begun.
    pub(crate) fn syncs_begun(&self) -> usize {
        self.machine.borrow().syncs_begun
    }

    /// Connects to the core that the server chooses: the first, the second, and so on.
    pub(crate) fn connect(&mut self) -> Client {
        let mut machine = self.machine.borrow_mut();
        let number = machine.inbound.len();
        machine.inbound.push(Vec::new());
        machine.outbound.push(Vec::new());
        let result = Ok(Socket(number as i32));
        machine.kernels[0].events.push_back(Event::Accepted { listener: 0, result, armed: true });
        drop(machine);
        self.settle();
        Client(number)
    }

    /// Sends a request. Nothing is served before the cores run.
    pub(crate) fn send(&mut self, client: Client, words: &[&[u8]]) {
        let words: Vec<Vec<u8>> = words.iter().map(|word| word.to_vec()).collect();
        let mut machine = self.machine.borrow_mut();
        resp::encode_request(&words, &mut machine.inbound[client.0]);
        machine.hand_out();
    }

    /// Sends bytes of a request.
    pub(crate) fn send_bytes(&mut self, client: Client, bytes: &[u8]) {
        let mut machine = self.machine.borrow_mut();
        machine.inbound[client.0].extend_from_slice(bytes);
        machine.hand_out();
    }

    /// Sends a request of plain words.
    pub(crate) fn send_words(&mut self, client: Client, line: &str) {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        self.send(client, &words);
    }

    /// The replies that have come since this was asked last.
    pub(crate) fn replies(&mut self, client: Client) -> Vec<Reply> {
        let mut machine = self.machine.borrow_mut();
        let bytes = std::mem::take(&mut machine.outbound[client.0]);
        let mut replies = Vec::new();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (reply, length) = resp::parse(rest).expect("a reply").expect("replies leave whole");
            replies.push(reply);
            rest = &rest[length..];
        }
        replies
    }

    /// Asks, and waits until everybody is at rest: the reply, if there is one by then.
    pub(crate) fn ask(&mut self, client: Client, line: &str) -> Option<Reply> {
        self.send_words(client, line);
        self.settle();
        let mut replies = self.replies(client);
        assert!(replies.len() < 2, "{line}: {replies:?}");
        replies.pop()
    }

    /// Asks for what is answered without time.
    pub(crate) fn call(&mut self, client: Client, line: &str) -> Reply {
        self.ask(client, line).unwrap_or_else(|| panic!("{line}: no reply"))
    }

    /// One turn of a core, or the half of one that is left; false: it sleeps.
    pub(crate) fn step(&mut self, number: usize) -> bool {
        let (core, waiting) = &mut self.cores[number];
        let Some(wait) = waiting.take() else {
            *waiting = Some(core.begin_turn(1));
            return true;
        };
        let has_events = !self.machine.borrow().kernels[number].events.is_empty();
        if matches!(wait, Wait::Block { .. }) && !has_events {
            *waiting = Some(wait);
            return false;
        }
        core.end_turn(wait);
        true
    }

    /// Lets all cores run until they sleep. One that keeps itself busy fails the test.
    pub(crate) fn settle(&mut self) {
        for _ in 0..STEPS_MAX {
            let is_busy = (0..self.cores.len()).fold(false, |is_busy, core| self.step(core) | is_busy);
            if !is_busy {
                return;
            }
        }
        panic!("the cores do not come to rest");
    }

    /// Tells the server to stop, and lets it.
    pub(crate) fn stop(mut self) -> Self {
        self.shared.stop();
        self.wake_all();
        self.machine.borrow_mut().last_turns = Some(LAST_TURNS_MAX);
        for (core, wait) in &mut self.cores {
            if let Some(wait) = wait.take() {
                core.end_turn(wait);
            }
            core.run();
        }
        self
    }

    /// The most bytes of a journal that a core has appended and not written.
    pub(crate) fn unwritten_bytes(&self) -> u64 {
        let logs = self.cores.iter().map(|(core, _)| core.node().log.as_ref().expect("there is a journal"));
        logs.map(|log| log.report().buffer_bytes).max().expect("there is a core")
    }

    /// The core that owns a key.
    pub(crate) fn owner(&self, key: &str) -> usize {
        let node = self.cores[0].0.node();
        node.owner_of(node.executor.hasher.key(key.as_bytes()).slot)
    }

    /// The shard that a key is in.
    pub(crate) fn shard(&self, key: &str) -> usize {
        let executor = &self.cores[0].0.node().executor;
        executor.shards.number_of(executor.hasher.key(key.as_bytes()).slot)
    }

    /// Keys of this name and a number, of which `choose` likes what they are compared by.
    pub(crate) fn key(&self, name: &str, choose: impl Fn(&Self, &str) -> bool) -> String {
        let mut names = (0..10_000).map(|number| format!("{name}:{number}"));
        names.find(|name| choose(self, name)).expect("hashes spread")
    }

    /// Bytes that were written to journals since this was asked last.
    pub(crate) fn take_written_bytes(&self) -> usize {
        std::mem::take(&mut self.machine.borrow_mut().written_bytes)
    }

    /// Wakes every core, whether it has something to do or not.
    pub(crate) fn wake_all(&mut self) {
        for kernel in &mut self.machine.borrow_mut().kernels {
            kernel.events.push_back(Event::Woken);
        }
    }
}

impl Machine {
    /// Gives what clients have sent to the connections that receive.
    fn hand_out(&mut self) {
        let Self { kernels, inbound, .. } = self;
        for Kernel { events, receives, receives_into, .. } in kernels {
            for &(connection, socket) in &*receives {
                let bytes = std::mem::take(&mut inbound[socket.0 as usize]);
                // What a buffer of the ring holds.
                for piece in bytes.chunks(32 << 10) {
                    let result = Ok(piece.to_vec());
                    events.push_back(Event::Received { connection, result, armed: true });
                }
            }
            receives_into.retain_mut(|(connection, socket, buffer, length_max)| {
                let inbound = &mut inbound[socket.0 as usize];
                if inbound.is_empty() {
                    return true;
                }
                let count = inbound.len().min(*length_max).min(buffer.capacity() - buffer.len());
                buffer.extend(inbound.drain(..count));
                let (connection, buffer) = (*connection, std::mem::take(buffer));
                events.push_back(Event::ReceivedInto { connection, buffer, result: Ok(count) });
                false
            });
        }
    }

    /// Does what the disk does not hold.
    fn go_on(&mut self, core: usize) {
        if !self.mood.holds_syncs && self.mood.holds_syncs_of != Some(core) {
            let kernel = &mut self.kernels[core];
            for ticket in kernel.syncs.drain(..) {
                kernel.events.push_back(Event::Synced { ticket, result: Ok(()) });
            }
        }
        let mood = self.mood;
        let is_free = |(_, task): &(u64, FileTask)| !mood.holds_outputs || !task.is_output();
        while !mood.holds_tasks
            && let Some(place) = self.kernels[core].tasks.iter().position(is_free)
            && let Some((ticket, task)) = self.kernels[core].tasks.remove(place)
        {
            let (buffer, result) = self.perform(core, task);
            self.kernels[core].events.push_back(Event::FileDone { ticket, buffer, result });
        }
    }

    fn perform(&mut self, core: usize, task: FileTask) -> (Vec<u8>, Result<(), i32>) {
        let is_full = self.mood.is_full;
        let Kernel { files, digests, .. } = &mut self.kernels[core];
        let mut buffer = Vec::new();
        let mut open = |file: File, opened: StdFile| {
            assert!(files.insert(file.0, Rc::new(opened)).is_none(), "file {} was open", file.0);
        };
        let errno = |error: std::io::Error| error.raw_os_error().unwrap_or(libc::EIO);
        let result = match task {
            FileTask::Prepare { file, path, length_bytes, recycle, .. } => {
                let is_there = path.exists();
                if let Some(recycle) = &recycle {
                    fs::rename(recycle, &path)
                        .unwrap_or_else(|error| panic!("{}: {error}", recycle.display()));
                } else if is_full && !is_there {
                    return (buffer, Err(libc::ENOSPC));
                }
                let opened =
                    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
                opened
                    .and_then(|opened| opened.set_len(length_bytes).map(|()| open(file, opened)))
                    .map_err(errno)
            }
            FileTask::Create { .. } | FileTask::Append { .. } | FileTask::Replace { .. } if is_full => {
                Err(libc::ENOSPC)
            }
            FileTask::Create { file, path, digest } => {
                digests.extend(digest.map(|digest| (file.0, digest)));
                StdFile::create(path).map(|made| open(file, made)).map_err(errno)
            }
            FileTask::Append { file, bytes } => {
                if let Some(digest) = digests.get_mut(&file.0) {
                    digest.update(&bytes);
                }
                let result = (&*files[&file.0]).write_all(&bytes).map_err(errno);
                buffer = bytes;
                result
            }
            FileTask::Publish { file, from, to } => {
                let made = files.remove(&file.0).expect("it was created");
                let checksum = digests.remove(&file.0).map(|digest| digest.value());
                let whole = (&*made).write_all(checksum.as_ref().map_or(&[], |checksum| checksum));
                whole.and_then(|()| fs::rename(from, to)).map_err(errno)
            }
            FileTask::Discard { file, path } => {
                files.remove(&file.0);
                digests.remove(&file.0);
                remove(&[path]);
                Ok(())
            }
            FileTask::Close { file } => {
                files.remove(&file.0);
                Ok(())
            }
            FileTask::Remove { paths } => {
                remove(&paths);
                Ok(())
            }
            FileTask::Replace { path, bytes } => fs::write(path, bytes).map_err(errno),
            FileTask::Read { path, offset_bytes, length_bytes } => {
                let read = StdFile::open(path).and_then(|mut opened| {
                    opened.seek(SeekFrom::Start(offset_bytes))?;
                    opened.take(length_bytes as u64).read_to_end(&mut buffer)
                });
                return (buffer, read.map(drop).map_err(errno));
            }
        };
        buffer.clear();
        (buffer, result)
    }
}

/// Missing files are fine.
fn remove(paths: &[PathBuf]) {
    for path in paths {
        let _ = fs::remove_file(path);
    }
}

impl Io for Door {
    type Buffer = Vec<u8>;

    fn clock(&mut self) -> Clock {
        let machine = self.machine.borrow();
        let wall_ms = machine.wall_ahead_ms + machine.now_ns / 1_000_000;
        Clock { wall_ms, monotonic_ns: machine.now_ns }
    }

    fn random(&mut self) -> u64 {
        7
    }

    fn accept(&mut self, _listener: u32) {}

    fn connect(&mut self, ticket: u64, _address: SocketAddr) {
        let result = Err(libc::ECONNREFUSED);
        self.machine.borrow_mut().kernels[self.core].events.push_back(Event::Connected { ticket, result });
    }

    fn receive(&mut self, connection: Token, socket: Socket) {
        let mut machine = self.machine.borrow_mut();
        machine.kernels[self.core].receives.push((connection, socket));
        machine.hand_out();
    }

    fn receive_into(&mut self, connection: Token, socket: Socket, buffer: Vec<u8>, length_max: usize) {
        let mut machine = self.machine.borrow_mut();
        machine.kernels[self.core].receives_into.push((connection, socket, buffer, length_max));
        machine.hand_out();
    }

    fn cancel_receive(&mut self, connection: Token) {
        let Kernel { receives, events, .. } = &mut self.machine.borrow_mut().kernels[self.core];
        receives.retain(|&(token, _)| token != connection);
        let result = Err(duva_net::io::ReceiveEnd::Cancelled);
        events.push_back(Event::Received { connection, result, armed: false });
    }

    fn recycle(&mut self, _buffer: Vec<u8>) {}

    fn send(&mut self, connection: Token, socket: Socket, buffer: Vec<u8>, offset: usize) {
        let mut machine = self.machine.borrow_mut();
        let count = buffer.len() - offset;
        machine.outbound[socket.0 as usize].extend_from_slice(&buffer[offset..]);
        machine.kernels[self.core].events.push_back(Event::Sent { connection, buffer, result: Ok(count) });
    }

    fn shutdown(&mut self, _socket: Socket) {}

    fn close(&mut self, _socket: Socket) {}

    fn addresses(&mut self, _socket: Socket) -> (String, String) {
        (String::new(), String::new())
    }

    fn set_keepalive(&mut self, _seconds: u32) {}

    fn file_task(&mut self, ticket: u64, task: FileTask) {
        let mut machine = self.machine.borrow_mut();
        machine.kernels[self.core].tasks.push_back((ticket, task));
        machine.go_on(self.core);
    }

    fn write_file(&mut self, file: File, bytes: &[u8], offset_bytes: u64) -> Result<(), i32> {
        let mut machine = self.machine.borrow_mut();
        if let Some(errno) = machine.mood.write_error {
            return Err(errno);
        }
        machine.written_bytes += bytes.len();
        let written = machine.kernels[self.core].files[&file.0].write_all_at(bytes, offset_bytes);
        written.map_err(|error| error.raw_os_error().unwrap_or(libc::EIO))
    }

    fn sync_file(&mut self, ticket: u64, _file: File, _is_first: bool) {
        let mut machine = self.machine.borrow_mut();
        machine.syncs_begun += 1;
        machine.kernels[self.core].syncs.push_back(ticket);
        machine.go_on(self.core);
    }

    fn wake(&mut self, core: usize) {
        self.machine.borrow_mut().kernels[core].events.push_back(Event::Woken);
    }

    fn turn(&mut self, _wait: Wait) {
        // A core that ends runs by itself.
        if let Some(left) = &mut self.machine.borrow_mut().last_turns {
            *left = left.checked_sub(1).expect("a core ends");
        }
    }

    fn next_event(&mut self) -> Option<Event<Vec<u8>>> {
        self.machine.borrow_mut().kernels[self.core].events.pop_front()
    }

    fn can_batch(&self) -> bool {
        false
    }
}
