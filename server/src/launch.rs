//! From a configuration to running cores, and back to a stopped process.
//!
//! Each core's thread is pinned before it allocates, and makes its own ring; every core exists before the first one
//! accepts. Whatever refuses to start says so in one sentence, and nothing is left running.

use std::{
    io,
    path::Path,
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use duva_engine::{Hasher, Shard, Shards};
use duva_net::{
    Listener,
    files::Storage,
    mesh::{Endpoint, mesh},
    ring::{Ring, RingOptions, WakeHandle},
};

use crate::{
    cluster::{
        self,
        detector::Detector,
        meet::{MARK_NAME, Mark},
    },
    config::Config,
    core::{
        Core,
        admin::Shared,
        batch::Batch,
        clocks::Clocks,
        cluster_shared::ClusterShared,
        commit::Executor,
        gossip::Gossip,
        groups::{self, GroupOptions, Groups, meta::MetaGroup},
        log::Log,
        node::Node,
        peer::hello::PeerIdentity,
    },
    logging::Logging,
    startup,
    storage::{self, ShardLog, Store},
};
use duva_raft::ReplicaId;

/// Entries of each ring's submission queue: a turn's operations.
const SUBMISSION_ENTRIES: u32 = 1024;

/// Entries of each ring's completion queue.
const COMPLETION_ENTRIES: u32 = 8192;

/// Receive buffers a core. They are taken in rotation, so few of them stay in cache.
const BUFFER_COUNT: u16 = 256;

/// Bytes of a receive buffer: a 16 KiB value arrives in one piece.
const BUFFER_SIZE_BYTES: u32 = 32 << 10;

/// Batches that may be under way from one core to another.
const MESH_CAPACITY: usize = 4;

/// Stack of a core's thread.
const STACK_BYTES: usize = 2 << 20;

/// How serving has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// For good.
    Stopped,
    /// The process is to begin again: it joins another cluster, or goes on as what it was.
    Again,
}

/// Starts the server and serves until it is told to stop.
///
/// # Errors
/// A sentence for people, when it cannot start.
pub fn serve(mut config: Config, logging: Logging) -> Result<Ending, String> {
    let sentence = |error: startup::StartupError| error.to_string();
    startup::check_kernel(&startup::kernel_release()).map_err(sentence)?;
    startup::check_cpus(&config.cpus).map_err(sentence)?;
    config.directory = startup::enter_directory(&config.directory).map_err(sentence)?;
    let addresses = patiently(|| startup::addresses_to_listen(&config)).map_err(sentence)?;
    config.is_cluster_enabled |= cluster::start::belongs_to_cluster(&config);
    if config.is_cluster_enabled {
        config
            .check_for_cluster()
            .map_err(|conflict| format!("{} {}", conflict.option, conflict.sentence))?;
    } else {
        config.peer_port = 0;
    }
    let peer_addresses = patiently(|| startup::peer_addresses_to_listen(&config)).map_err(sentence)?;
    let unix_path = config.unix_socket.clone();
    let listener_count = addresses.len() + peer_addresses.len() + usize::from(unix_path.is_some());
    let reserved = startup::reserved_descriptors(config.cores, listener_count);
    let plan = startup::prepare_descriptors(config.clients_max, reserved).map_err(sentence)?;
    config.clients_max = plan.clients_max;
    config.clients_ceiling = plan.clients_ceiling;
    let warnings = [
        plan.warning,
        startup::locked_memory_warning(
            u64::from(config.cores),
            startup::ring_memory_bytes(SUBMISSION_ENTRIES, COMPLETION_ENTRIES),
        ),
        startup::exposure_warning(&config),
    ];
    for warning in warnings.into_iter().flatten() {
        tracing::warn!("{warning}");
    }
    if let Some(path) = &unix_path {
        patiently(|| startup::prepare_unix_socket(path)).map_err(sentence)?;
    }
    let joined = cluster::start::join_first(&config)?;
    let mut store = Store::open(&config, joined.as_ref().map(|(birth, _)| birth))?;
    let given_shards = config.is_shard_count_given.then_some(config.shards);
    config.shards = store.shards();
    let start = cluster::start::open(&config, &mut store, joined.map(|(_, file)| file))?;
    if start.is_some() {
        store.set_cluster();
        if let Some(given) = given_shards.filter(|given| *given != config.shards) {
            let shards = config.shards;
            tracing::warn!(
                "the cluster has {shards} shards, which holds for every node: shards, {given} here, is ignored"
            );
        }
    }
    let start = start.map(|start| Arc::new(ClusterStart::new(start, &config)));
    let store = Arc::new(store);
    block_signals();
    let tcp_addresses = [&addresses[..], &peer_addresses[..]].concat();
    let listeners = Listeners::open(&config, &tcp_addresses, unix_path.as_deref())?;
    let peer_numbers = addresses.len() as u32..tcp_addresses.len() as u32;
    let unix_number = unix_path.is_some().then_some(peer_numbers.end);
    let started_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    let run_id = run_id().map_err(|error| format!("reading random bytes: {error}"))?;
    let shared = Arc::new(Shared::new(config.clone(), unix_number, config.port, started_ms, run_id));
    shared.set_peer_listeners(peer_numbers);
    let log = logging.clone();
    shared.set_process_settings(Box::new(move |config| log.set_level(config.log_level)));
    if let Some(earlier) = store.earlier() {
        shared.set_earlier_segments(Arc::clone(earlier));
    }
    let all_listeners: Vec<Listener> = listeners.by_core.iter().flatten().cloned().collect();
    let is_serving = Arc::new(AtomicBool::new(false));
    let for_signals = (Arc::clone(&shared), Arc::clone(&is_serving), unix_path.clone());
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            let (shared, is_serving, unix_path) = for_signals;
            handle_signals(&shared, &logging, || {
                if !is_serving.load(Ordering::Acquire) {
                    leave_early(unix_path.as_deref());
                }
            });
        })
        .map_err(|error| format!("starting the signal thread: {error}"))?;
    let threads = start_cores(&config, &shared, listeners, &store, start.as_ref())
        .inspect_err(|_| unix_path.as_deref().into_iter().for_each(remove_unix_socket))?;
    is_serving.store(true, Ordering::Release);
    for address in &addresses {
        tracing::info!(%address, "listening");
    }
    for address in &peer_addresses {
        tracing::info!(%address, "listening for other nodes");
    }
    if let Some(path) = &unix_path {
        tracing::info!(path = %path.display(), "listening");
    }
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        cores = config.cores,
        shards = config.shards,
        process = std::process::id(),
        "ready to accept connections"
    );
    for thread in threads {
        // A core that panics aborts the process; joining only waits.
        thread.join().map_err(|_| "a core ended early".to_owned())?;
    }
    // The kernel takes rings down in the background, and they hold the listeners as well.
    all_listeners.iter().for_each(Listener::shut_down);
    unix_path.as_deref().into_iter().for_each(remove_unix_socket);
    if let Some((seed, keys)) = shared.meetings.take_seed() {
        give_up_cluster(&config, &store, start.as_deref(), seed, keys)?;
        return Ok(Ending::Again);
    }
    tracing::info!("stopped");
    Ok(Ending::Stopped)
}

/// Marks the directory to be given up for the cluster of `seed`, if nothing is lost with it: nobody is served any more.
fn give_up_cluster(
    config: &Config,
    store: &Store,
    start: Option<&ClusterStart>,
    seed: String,
    keys: usize,
) -> Result<(), String> {
    let nodes = start.map_or(0, |start| start.shared.view().state.nodes.len());
    let has_dump = config.directory.join(&config.snapshot_file_name).exists();
    if keys > 0 || nodes != 1 || has_dump {
        tracing::warn!(keys, nodes, has_dump, "this node keeps its own cluster after all");
        return Ok(());
    }
    let mark = Mark { seed, node: Store::new_id()? };
    store.write_small(MARK_NAME, &mark.encode())?;
    tracing::info!(seed = mark.seed, "this node's own cluster is given up");
    Ok(())
}

/// Ends the process while it loads: nothing was changed yet that a kill at this moment could harm.
fn leave_early(unix_path: Option<&Path>) -> ! {
    tracing::info!("stopped while loading");
    unix_path.into_iter().for_each(remove_unix_socket);
    std::process::exit(0)
}

fn remove_unix_socket(path: &Path) {
    if let Err(error) = std::fs::remove_file(path) {
        tracing::warn!(path = %path.display(), "removing the Unix socket: {error}");
    }
}

/// Tries again for a second: the listeners of a server that was killed go with its rings, which the kernel takes down
/// in the background.
fn patiently<T>(
    mut attempt: impl FnMut() -> Result<T, startup::StartupError>,
) -> Result<T, startup::StartupError> {
    for _ in 0..20 {
        if let Ok(done) = attempt() {
            return Ok(done);
        }
        thread::park_timeout(Duration::from_millis(50));
    }
    attempt()
}

/// The listeners of every core.
struct Listeners {
    by_core: Vec<Vec<Listener>>,
}

impl Listeners {
    fn open(
        config: &Config,
        addresses: &[std::net::SocketAddr],
        unix_path: Option<&Path>,
    ) -> Result<Self, String> {
        let mut by_core = Vec::new();
        for _ in 0..config.cores {
            let mut listeners = Vec::new();
            for &address in addresses {
                let listener = Listener::tcp(address, config.tcp_keepalive_seconds)
                    .map_err(|error| startup::StartupError::Listen { address, error }.to_string())?;
                listeners.push(listener);
            }
            by_core.push(listeners);
        }
        if let Some(path) = unix_path {
            // The first core accepts for all.
            let listener = Listener::unix(path)
                .map_err(|error| startup::StartupError::UnixSocket {
                    path: path.to_owned(),
                    reason: startup::UnixSocketRefusal::System(error),
                })
                .map_err(|error| error.to_string())?;
            startup::restrict_unix_socket(path, config.unix_socket_mode)
                .map_err(|error| error.to_string())?;
            by_core[0].push(listener);
        }
        Ok(Self { by_core })
    }
}

/// What every core of a cluster's node begins with.
pub struct ClusterStart {
    start: cluster::start::Start,
    options: GroupOptions,
    replicas: Vec<Option<ReplicaId>>,
    shared: Arc<ClusterShared>,
    replace_after_ns: u64,
    /// What the cores' clock says when they begin; `None`: what the machine's says.
    begun_ns: Option<u64>,
}

impl ClusterStart {
    /// What follows from the directory's file and the configuration.
    pub fn new(start: cluster::start::Start, config: &Config) -> Self {
        let options = GroupOptions {
            number: start.file.number,
            election_timeout_ms: u64::from(config.election_timeout_min_ms),
            read_mode: config.raft_read_mode.into(),
            durability: config.raft_durability.into(),
        };
        Self {
            replicas: groups::own_replicas(&start.file),
            shared: Arc::new(
                ClusterShared::new(
                    start.file.state.clone(),
                    start.file.number,
                    groups::expected_nodes(&start.file),
                )
                .with_starts(start.starts.clone()),
            ),
            replace_after_ns: u64::from(config.replace_after_seconds) * 1_000_000_000,
            begun_ns: None,
            options,
            start,
        }
    }

    /// The same for cores of a simulated machine, whose monotonic clock is at `now_ns`.
    pub fn begun_at(self, now_ns: u64) -> Self {
        Self { begun_ns: Some(now_ns), ..self }
    }

    /// Gives a core its replicas, and core 0 that of the meta group.
    fn equip(&self, node: &mut Node, logs: Vec<ShardLog>) -> Result<(), String> {
        let file = &self.start.file;
        let now_ns = self.begun_ns.unwrap_or_else(monotonic_ns);
        let mut replicas = Groups::new(self.options.clone(), node.owners.len(), node.executor.next_seed());
        replicas.set_clock(now_ns);
        for log in logs {
            let replica = self.replicas[usize::from(log.shard)];
            if let Some(replica) = replica {
                self.shared.keep_replica(log.shard, replica);
            }
            replicas.restore(log, replica, now_ns, node.executor.next_seed())?;
        }
        node.peers.configure(PeerIdentity {
            cluster: file.cluster,
            node: file.state.nodes.get(&file.number).map_or([0; 16], |info| info.id),
            number: file.number,
            core: node.core as u16,
            cores: node.cores as u16,
            // No two processes of one machine start at the same time with the same id.
            life: node.shared.started_ms << 22 | u64::from(std::process::id()),
            epoch: node.log.as_ref().map_or(0, |log| log.epoch()),
            level: node.features.own(),
            // Whether that is committed or not: this node may hold what came behind it.
            agreed: groups::final_state(file).level,
        });
        node.features.agree(file.state.level);
        if node.core == 0 {
            let clocks = Clocks::new(node.config.clock_offset_max_ms, self.options.heartbeat_ns());
            node.clocks = Some(Box::new(clocks));
            let (interval_ms, timeout_ms) = (node.config.gossip_interval_ms, node.config.gossip_timeout_ms);
            // Starts are told apart by the wall clock.
            let incarnation = node.shared.started_ms;
            let seed = node.executor.next_seed();
            let detector = Detector::new(file.number, incarnation, interval_ms, timeout_ms, seed);
            node.gossip = Some(Box::new(Gossip::new(detector, timeout_ms)));
            let seed = node.executor.next_seed();
            node.meta = Some(Box::new(MetaGroup::new(
                file.clone(),
                self.start.path.clone(),
                &self.options,
                self.replace_after_ns,
                (now_ns, seed),
            )));
        }
        node.groups = Some(Box::new(replicas));
        node.cluster = Some(Arc::clone(&self.shared));
        node.empty_idle_shards();
        if let Some(log) = &mut node.log {
            log.set_replicated(self.options.durability);
        }
        Ok(())
    }
}

/// The clock of the cores.
fn monotonic_ns() -> u64 {
    // SAFETY: the call fills the local structure.
    let time = unsafe {
        let mut time: libc::timespec = std::mem::zeroed();
        libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time);
        time
    };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// What a core's thread needs to begin.
struct Start {
    core: usize,
    config: Arc<Config>,
    shared: Arc<Shared>,
    endpoint: Endpoint<Batch>,
    listeners: Vec<Listener>,
    wake: WakeHandle,
    storage: Storage,
    store: Arc<Store>,
    cluster: Option<Arc<ClusterStart>>,
    ready: mpsc::Sender<Result<(usize, WakeHandle), String>>,
    wakes: mpsc::Receiver<Vec<WakeHandle>>,
    all_ready: Arc<Barrier>,
}

/// Starts the cores, which load what is on disk; they serve once all of it is loaded and the start is durable.
fn start_cores(
    config: &Config,
    shared: &Arc<Shared>,
    listeners: Listeners,
    store: &Arc<Store>,
    cluster: Option<&Arc<ClusterStart>>,
) -> Result<Vec<thread::JoinHandle<()>>, String> {
    let cores = usize::from(config.cores);
    let (ready, readies) = mpsc::channel();
    let all_ready = Arc::new(Barrier::new(cores));
    let config = Arc::new(config.clone());
    let mut threads = Vec::new();
    let mut wake_senders = Vec::new();
    let endpoints = mesh(cores, MESH_CAPACITY);
    for (core, (endpoint, listeners)) in endpoints.into_iter().zip(listeners.by_core).enumerate() {
        let (wake_sender, wakes) = mpsc::channel();
        wake_senders.push(wake_sender);
        let wake = WakeHandle::new().map_err(|error| format!("eventfd: {error}"))?;
        // Started here, so that it is not confined to the core's CPU.
        let storage = Storage::start(core, wake.clone())
            .map_err(|error| format!("starting the storage thread of core {core}: {error}"))?;
        let start = Start {
            core,
            config: Arc::clone(&config),
            shared: Arc::clone(shared),
            endpoint,
            listeners,
            wake,
            storage,
            store: Arc::clone(store),
            cluster: cluster.cloned(),
            ready: ready.clone(),
            wakes,
            all_ready: Arc::clone(&all_ready),
        };
        let thread = thread::Builder::new()
            .name(format!("core-{core}"))
            .stack_size(STACK_BYTES)
            .spawn(move || run_core(start))
            .map_err(|error| format!("starting the thread of core {core}: {error}"))?;
        threads.push(thread);
    }
    drop(ready);
    let mut wakes: Vec<Option<WakeHandle>> = vec![None; cores];
    for result in readies {
        // When one core cannot start, the others end as their channel closes, or with the process.
        let (core, wake) = result?;
        wakes[core] = Some(wake);
    }
    let wakes: Vec<WakeHandle> = wakes.into_iter().flatten().collect();
    if wakes.len() < cores {
        return Err("a core ended before it was ready".to_owned());
    }
    store.commit()?;
    if let Some(cluster) = cluster {
        cluster.start.finish(store)?;
    }
    let (keys_loaded, keys_expired) = store.keys();
    shared.save_status().loaded(keys_loaded, keys_expired);
    let to_wake = wakes.clone();
    shared.set_wake_all(Box::new(move || to_wake.iter().for_each(WakeHandle::wake)));
    for sender in wake_senders {
        sender.send(wakes.clone()).map_err(|_| "a core ended before it was ready".to_owned())?;
    }
    Ok(threads)
}

fn run_core(start: Start) {
    let Start {
        core,
        config,
        shared,
        endpoint,
        listeners,
        wake,
        storage,
        store,
        cluster,
        ready,
        wakes,
        all_ready,
    } = start;
    pin(&config, core);
    let listener_count = listeners.len() as u32;
    let ring = Ring::new(RingOptions {
        submission_entries: SUBMISSION_ENTRIES,
        completion_entries: COMPLETION_ENTRIES,
        buffer_count: BUFFER_COUNT,
        buffer_size_bytes: BUFFER_SIZE_BYTES,
        listeners,
        wake,
        storage,
        worker_cpus: None,
    });
    let made = ring
        .map_err(|error| format!("{}: {}", error.step, startup::explain_ring_refusal(&error.error)))
        .and_then(|ring| {
            // The hash's seed may be an old one; what commands draw must not repeat.
            let seed = random_u64().map_err(|error| format!("reading random bytes: {error}"))?;
            Ok((ring, load(core, config, shared, endpoint, &store, cluster.as_deref(), seed)?))
        });
    let (mut ring, node) = match made {
        Ok(made) => made,
        Err(sentence) => {
            // Nobody listens any more only when another core has failed as well.
            let _ = ready.send(Err(sentence));
            return;
        }
    };
    if ready.send(Ok((core, ring.wake_handle()))).is_err() {
        return;
    }
    drop(ready);
    let Ok(wakes) = wakes.recv() else { return };
    ring.set_wakes(wakes);
    all_ready.wait();
    Core::new(ring, node, listener_count).run();
}

/// What core `core` knows at start, with what is on disk. What its commands draw comes from `seed`.
///
/// # Errors
/// A sentence that names what cannot be loaded.
pub fn load(
    core: usize,
    config: Arc<Config>,
    shared: Arc<Shared>,
    endpoint: Endpoint<Batch>,
    store: &Store,
    cluster: Option<&ClusterStart>,
    seed: u64,
) -> Result<Node, String> {
    let mut node = node(core, config, shared, endpoint, store.hash_seed());
    node.executor.seed = seed;
    let load = store.load_core(core, &node.owners, &mut node.executor)?;
    if let Some(options) = &load.log
        && let Some((id, snapshots)) = store.snapshots(options.journal.states())
    {
        node.saver.set_snapshots(id, snapshots);
    }
    node.log = load.log.map(|options| Box::new(Log::new(core, options)));
    if let Some(cluster) = cluster {
        cluster.equip(&mut node, load.logs)?;
    }
    for unfinished in &load.unfinished {
        storage::finish(&mut node, unfinished)?;
    }
    Ok(node)
}

/// What core `core` knows at start: its share of the shards, all empty.
pub fn node(
    core: usize,
    config: Arc<Config>,
    shared: Arc<Shared>,
    endpoint: Endpoint<Batch>,
    seed: u64,
) -> Node {
    let shard_count = usize::from(config.shards);
    let hasher = Hasher::new(seed);
    let settings = config.engine_settings();
    let mut shards = Shards::new(shard_count);
    let owners = storage::owners(config.shards, config.cores);
    for (number, &owner) in owners.iter().enumerate() {
        if usize::from(owner) == core {
            shards.adopt(number, Box::new(Shard::new(shards.slots_of(number), hasher.clone())));
        }
    }
    let executor = Executor::new(shards, settings, hasher, seed ^ core as u64);
    Node::new(core, executor, owners, endpoint, config, shared)
}

fn pin(config: &Config, core: usize) {
    let Some(&cpu) = config.cpus.get(core) else { return };
    // SAFETY: all-zero bytes are the empty set, and the calls take pointers to the local set.
    let result = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu as usize, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set)
    };
    if result < 0 {
        tracing::warn!(core, cpu, "pinning failed: {}", io::Error::last_os_error());
    }
}

/// SIGTERM and SIGINT stop the server, SIGHUP reopens its log file.
const SIGNALS: [i32; 3] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP];

/// Lets signals through again, for a process that takes the place of this one.
pub fn unblock_signals() {
    // SAFETY: the set is a local, initialised by sigemptyset.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::pthread_sigmask(libc::SIG_SETMASK, &set, std::ptr::null_mut());
    }
}

/// Blocks the signals that the server handles, in this thread and those it starts.
fn block_signals() {
    // SAFETY: the set is a local, initialised by sigemptyset.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        for signal in SIGNALS {
            libc::sigaddset(&mut set, signal);
        }
        libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
        // A client that is gone is an error of the send, not a signal.
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
    }
}

/// Serves the process's signals. `before_stop` is called first when one of them stops the server.
fn handle_signals(shared: &Shared, logging: &Logging, before_stop: impl Fn()) {
    loop {
        // SAFETY: the set is a local, initialised by sigemptyset; sigwait writes to a local.
        let signal = unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&mut set);
            for signal in SIGNALS {
                libc::sigaddset(&mut set, signal);
            }
            let mut signal = 0;
            libc::sigwait(&set, &mut signal);
            signal
        };
        if signal == libc::SIGHUP {
            match logging.reopen() {
                Ok(()) => tracing::info!("reopened the log"),
                Err(error) => tracing::error!("reopening the log: {error}"),
            }
            continue;
        }
        tracing::info!(signal, "stopping");
        before_stop();
        shared.ask_to_stop();
    }
}

/// Random bits from the kernel.
pub(crate) fn random_u64() -> io::Result<u64> {
    let mut value = 0_u64;
    // SAFETY: eight bytes are written to a local.
    let length = unsafe { libc::getrandom((&raw mut value).cast(), size_of::<u64>(), 0) };
    if length == size_of::<u64>() as isize { Ok(value) } else { Err(io::Error::last_os_error()) }
}

fn run_id() -> io::Result<String> {
    let words = [random_u64()?, random_u64()?, random_u64()?];
    let text: String = words.iter().map(|word| format!("{word:016x}")).collect();
    Ok(text[..40].to_owned())
}
