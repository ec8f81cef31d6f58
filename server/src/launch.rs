//! From a configuration to running cores, and back to a stopped process.
//!
//! Each core's thread is pinned before it allocates, and makes its own ring; every core exists before the first one
//! accepts. Whatever refuses to start says so in one sentence, and nothing is left running.

use std::{
    io,
    path::Path,
    sync::{Arc, Barrier, mpsc},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use duva_engine::{Hasher, Settings, Shard, Shards};
use duva_net::{
    Listener,
    mesh::{Endpoint, mesh},
    ring::{Ring, RingError, RingOptions, WakeHandle},
};

use crate::{
    config::Config,
    core::{Core, admin::Shared, batch::Batch, commit::Executor, node::Node},
    logging::Logging,
    startup,
};

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

/// The seed of the keyspace's hash, fixed for data that is not kept on disk.
fn hash_seed() -> io::Result<u64> {
    random_u64()
}

/// Starts the server and serves until it is told to stop.
///
/// # Errors
/// A sentence for people, when it cannot start.
pub fn serve(mut config: Config, logging: Logging) -> Result<(), String> {
    let sentence = |error: startup::StartupError| error.to_string();
    startup::check_kernel(&startup::kernel_release()).map_err(sentence)?;
    startup::check_cpus(&config.cpus).map_err(sentence)?;
    config.directory = startup::enter_directory(&config.directory).map_err(sentence)?;
    let addresses = patiently(|| startup::addresses_to_listen(&config)).map_err(sentence)?;
    let unix_path = config.unix_socket.clone();
    let listener_count = addresses.len() + usize::from(unix_path.is_some());
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
    block_signals();
    let listeners = Listeners::open(&config, &addresses, unix_path.as_deref())?;
    let unix_number = unix_path.is_some().then_some(addresses.len() as u32);
    let started_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    let run_id = run_id().map_err(|error| format!("reading random bytes: {error}"))?;
    let shared = Arc::new(Shared::new(config.clone(), unix_number, config.port, started_ms, run_id));
    let log = logging.clone();
    shared.set_process_settings(Box::new(move |config| log.set_level(config.log_level)));
    let seed = hash_seed().map_err(|error| format!("reading random bytes: {error}"))?;
    let all_listeners: Vec<Listener> = listeners.by_core.iter().flatten().cloned().collect();
    let threads = start_cores(&config, &shared, listeners, seed)?;
    for address in &addresses {
        tracing::info!(%address, "listening");
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
    let for_signals = Arc::clone(&shared);
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || handle_signals(&for_signals, &logging))
        .map_err(|error| format!("starting the signal thread: {error}"))?;
    for thread in threads {
        // A core that panics aborts the process; joining only waits.
        thread.join().map_err(|_| "a core ended early".to_owned())?;
    }
    // The kernel takes rings down in the background, and they hold the listeners as well.
    all_listeners.iter().for_each(Listener::shut_down);
    if let Some(path) = &unix_path
        && let Err(error) = std::fs::remove_file(path)
    {
        tracing::warn!(path = %path.display(), "removing the Unix socket: {error}");
    }
    tracing::info!("stopped");
    Ok(())
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

/// What a core's thread needs to begin.
struct Start {
    core: usize,
    config: Arc<Config>,
    shared: Arc<Shared>,
    endpoint: Endpoint<Batch>,
    listeners: Vec<Listener>,
    seed: u64,
    ready: mpsc::Sender<Result<(usize, WakeHandle), RingError>>,
    wakes: mpsc::Receiver<Vec<WakeHandle>>,
    all_ready: Arc<Barrier>,
}

fn start_cores(
    config: &Config,
    shared: &Arc<Shared>,
    listeners: Listeners,
    seed: u64,
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
        let start = Start {
            core,
            config: Arc::clone(&config),
            shared: Arc::clone(shared),
            endpoint,
            listeners,
            seed,
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
        // When one core cannot start, the others end as their channel closes.
        let (core, wake) = result
            .map_err(|error| format!("{}: {}", error.step, startup::explain_ring_refusal(&error.error)))?;
        wakes[core] = Some(wake);
    }
    let wakes: Vec<WakeHandle> = wakes.into_iter().flatten().collect();
    if wakes.len() < cores {
        return Err("a core ended before it was ready".to_owned());
    }
    let to_wake = wakes.clone();
    shared.set_wake_all(Box::new(move || to_wake.iter().for_each(WakeHandle::wake)));
    for sender in wake_senders {
        sender.send(wakes.clone()).map_err(|_| "a core ended before it was ready".to_owned())?;
    }
    Ok(threads)
}

fn run_core(start: Start) {
    let Start { core, config, shared, endpoint, listeners, seed, ready, wakes, all_ready } = start;
    pin(&config, core);
    let listener_count = listeners.len() as u32;
    let made = WakeHandle::new().map_err(|error| RingError { step: "eventfd", error }).and_then(|wake| {
        Ring::new(RingOptions {
            submission_entries: SUBMISSION_ENTRIES,
            completion_entries: COMPLETION_ENTRIES,
            buffer_count: BUFFER_COUNT,
            buffer_size_bytes: BUFFER_SIZE_BYTES,
            listeners,
            wake,
        })
    });
    let mut ring = match made {
        Ok(ring) => ring,
        Err(error) => {
            // Nobody listens any more only when another core has failed as well.
            let _ = ready.send(Err(error));
            return;
        }
    };
    if ready.send(Ok((core, ring.wake_handle()))).is_err() {
        return;
    }
    drop(ready);
    let Ok(wakes) = wakes.recv() else { return };
    ring.connect(wakes);
    let node = node(core, config, shared, endpoint, seed);
    all_ready.wait();
    Core::new(ring, node, listener_count).run();
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
    let cores = usize::from(config.cores);
    let hasher = Hasher::new(seed);
    let settings = Settings { bulk_len_bytes_max: config.bulk_len_bytes_max };
    let mut shards = Shards::new(shard_count);
    // Contiguous ranges: a walk over the slots visits core after core.
    let owners: Vec<u16> = (0..shard_count).map(|shard| (shard * cores / shard_count) as u16).collect();
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

fn handle_signals(shared: &Shared, logging: &Logging) {
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
        shared.stop();
        return;
    }
}

fn random_u64() -> io::Result<u64> {
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
