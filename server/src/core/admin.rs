//! What concerns the server rather than data: state that all cores share, and questions and orders to every core.
//!
//! Shared state is touched when connections come and go, on configuration changes and at shutdown, never by a data
//! request. Everything else about a core is asked of that core through the mesh, like any other work.

use std::{
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use crossbeam_utils::CachePadded;
use duva_engine::{
    Cursor,
    command::{Command, Flags},
    key_slot,
};
use duva_net::io::Io;

use super::{
    Core,
    commit::Executor,
    connection::{Connection, State},
    groups::ClusterReport,
    leave::{StopStage, Stopping},
    meeting::Meetings,
    node::Node,
    persistence_report::PersistenceReport,
    request::OwnedRequest,
    save::SavingState,
    save_status::SaveStatus,
    stats::{CommandReport, ExecutionTimes, KeyspaceTotals, Stats, command_reports},
    timers::Timer,
};
use crate::{commands, config::Config, storage::EarlierSegments};

/// Applies the settings that belong to the process, not to a core.
pub type ApplySettings = Box<dyn Fn(&Config) + Send + Sync>;

/// What all cores share.
pub struct Shared {
    config: Mutex<Arc<Config>>,
    clients: Box<[CachePadded<AtomicUsize>]>,
    next_client: AtomicU64,
    stopping: Stopping,
    wake_all: OnceLock<Box<dyn Fn() + Send + Sync>>,
    process_settings: OnceLock<ApplySettings>,
    save_status: Mutex<SaveStatus>,
    earlier_segments: OnceLock<Arc<EarlierSegments>>,
    /// What all cores know of saving.
    pub saving: SavingState,
    unix_listener: Option<u32>,
    peer_listeners: OnceLock<Range<u32>>,
    /// What cores and process share about meeting other clusters.
    pub meetings: Meetings,
    /// When the server started, in milliseconds since the Unix epoch.
    pub started_ms: u64,
    /// Forty hexadecimal digits that name this run.
    pub run_id: String,
    /// The TCP port that is served; 0: none.
    pub port: u16,
}

impl Shared {
    /// The state of a server of `config.cores` cores; the listener numbered `unix_listener`, if any, is a Unix socket's.
    pub fn new(
        config: Config,
        unix_listener: Option<u32>,
        port: u16,
        started_ms: u64,
        run_id: String,
    ) -> Self {
        let saving = SavingState::new(usize::from(config.cores));
        Self {
            stopping: Stopping::new(usize::from(config.cores), config.is_cluster_enabled),
            clients: (0..config.cores).map(|_| CachePadded::default()).collect(),
            config: Mutex::new(Arc::new(config)),
            next_client: AtomicU64::new(1),
            wake_all: OnceLock::new(),
            process_settings: OnceLock::new(),
            save_status: Mutex::new(SaveStatus::new(started_ms)),
            earlier_segments: OnceLock::new(),
            saving,
            unix_listener,
            peer_listeners: OnceLock::new(),
            meetings: Meetings::default(),
            started_ms,
            run_id,
            port,
        }
    }

    /// Says how every core is woken from outside.
    pub fn set_wake_all(&self, wake_all: Box<dyn Fn() + Send + Sync>) {
        let is_first = self.wake_all.set(wake_all).is_ok();
        assert!(is_first, "set once, at start");
    }

    /// Says how settings that belong to the process, not to a core, are applied.
    pub fn set_process_settings(&self, apply: ApplySettings) {
        let is_first = self.process_settings.set(apply).is_ok();
        assert!(is_first, "set once, at start");
    }

    /// Says which segments earlier starts left.
    pub fn set_earlier_segments(&self, earlier: Arc<EarlierSegments>) {
        let is_first = self.earlier_segments.set(earlier).is_ok();
        assert!(is_first, "set once, at start");
    }

    /// Says which listeners other nodes dial.
    pub fn set_peer_listeners(&self, listeners: Range<u32>) {
        let is_first = self.peer_listeners.set(listeners).is_ok();
        assert!(is_first, "set once, at start");
    }

    /// Segments that earlier starts left; `None`: nothing is journalled.
    pub fn earlier_segments(&self) -> Option<&EarlierSegments> {
        self.earlier_segments.get().map(|earlier| &**earlier)
    }

    fn apply_process_settings(&self, config: &Config) {
        if let Some(apply) = self.process_settings.get() {
            apply(config);
        }
    }

    /// Asks the server to stop, as a signal does: after a snapshot, if there are save points.
    pub fn ask_to_stop(&self) {
        self.meetings.forget_seed();
        self.saving.ask_to_stop();
        if let Some(wake_all) = self.wake_all.get() {
            wake_all();
        }
    }

    /// Wakes every core.
    pub fn wake(&self) {
        if let Some(wake_all) = self.wake_all.get() {
            wake_all();
        }
    }

    /// Tells every core to stop: in a cluster once nothing is led here any more, see [`Stopping`]; elsewhere, and whoever
    /// says it a second time, after its turn.
    pub fn stop(&self) {
        self.stopping.begin();
        self.wake();
    }

    /// From now on a stop waits for nobody to take over what is led here, or does so again.
    pub fn set_stop_is_urgent(&self, is_urgent: bool) {
        self.stopping.set_urgent(is_urgent);
    }

    /// This core leads nothing any more, or has tried for long enough: the last one stops the server.
    pub fn core_has_left(&self) {
        if self.stopping.core_has_left() {
            self.wake();
        }
    }

    /// Whether the server is to stop.
    #[inline]
    pub fn stop_stage(&self) -> StopStage {
        self.stopping.stage()
    }

    /// Whether connections accepted by this listener are a Unix socket's.
    pub fn is_unix_listener(&self, listener: u32) -> bool {
        self.unix_listener == Some(listener)
    }

    /// Whether connections accepted by this listener are links of other nodes.
    pub fn is_peer_listener(&self, listener: u32) -> bool {
        self.peer_listeners.get().is_some_and(|listeners| listeners.contains(&listener))
    }

    /// A number that no client had before.
    pub fn next_client_id(&self) -> u64 {
        self.next_client.fetch_add(1, Ordering::Relaxed)
    }

    /// Connected clients, those being refused included.
    pub fn client_count(&self) -> usize {
        self.clients.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// The core that serves the fewest connections, `own` if it is one of them; counts one more for it.
    pub fn least_loaded(&self, own: usize) -> usize {
        let count = |core: usize| self.clients[core].load(Ordering::Relaxed);
        let core = (0..self.clients.len()).min_by_key(|&core| (count(core), core != own)).unwrap_or(own);
        self.clients[core].fetch_add(1, Ordering::Relaxed);
        core
    }

    /// A connection of `core` is gone.
    pub fn forget_client(&self, core: usize) {
        let before = self.clients[core].fetch_sub(1, Ordering::Relaxed);
        assert!(before > 0, "a connection was freed twice");
    }

    /// The configuration in force.
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How saving goes.
    pub fn save_status(&self) -> MutexGuard<'_, SaveStatus> {
        // A panic is a broken invariant, which ends the process.
        self.save_status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the last snapshot was finished, or the server started, in seconds since the Unix epoch.
    pub fn last_save_seconds(&self) -> u64 {
        self.save_status().last_save_seconds()
    }

    /// Replaces the configuration by what `change` makes of it.
    pub fn change_config<E>(&self, change: impl FnOnce(&Config) -> Result<Config, E>) -> Result<(), E> {
        // A panic cannot leave it half changed: the value is replaced whole.
        let mut config = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        *config = Arc::new(change(&config)?);
        Ok(())
    }
}

/// CLIENT PAUSE.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pause {
    /// When it ends, in milliseconds since the Unix epoch; 0: none.
    pub until_ms: u64,
    /// Whether reads are paused too.
    pub all: bool,
}

impl Pause {
    /// Whether `command` must wait at `now_ms`. A pause of everything holds CLIENT UNPAUSE, too, as in Redis.
    pub fn covers(self, command: &Command, now_ms: u64) -> bool {
        now_ms < self.until_ms && (self.all || command.flags.contains(Flags::WRITE))
    }
}

/// Which clients CLIENT LIST and CLIENT KILL mean.
#[derive(Clone, Debug, Default)]
pub struct ClientFilter {
    /// Only these numbers; empty: any.
    pub ids: Vec<u64>,
    /// Only with this peer address.
    pub address: Option<String>,
    /// Only with this local address.
    pub local_address: Option<String>,
    /// Only of this type: `pubsub` if it has subscribed, else `normal`.
    pub kind: Option<String>,
    /// Only of this user; all clients are `default`.
    pub user: Option<String>,
    /// Not this client.
    pub except: Option<u64>,
}

/// A question or an order to one core.
#[derive(Clone)]
pub enum AdminRequest {
    /// What does it count?
    Report,
    /// Which clients does it serve?
    Clients(ClientFilter),
    /// Close clients. The one that asks is closed after its reply.
    Kill {
        /// Which.
        filter: ClientFilter,
        /// Who asks.
        own_id: u64,
    },
    /// Pause, or end the pause.
    Pause(Pause),
    /// Use the configuration that is shared now.
    Configure,
    /// Count from zero.
    ResetStats,
    /// Stand for election wherever another replica leads.
    Campaign,
    /// What does a slot of database 0 hold?
    SlotKeys {
        /// The slot.
        slot: u16,
        /// The most keys that are named; 0: they are only counted.
        keys_max: usize,
    },
}

/// One core's answer.
pub enum AdminReply {
    /// Its counters.
    Report(Box<Report>),
    /// Its clients.
    Clients(Vec<ClientRow>),
    /// How many clients were closed.
    Killed(usize),
    /// Keys of a slot; nothing where another core or node has it.
    SlotKeys {
        /// How many there are.
        count: usize,
        /// Some of them.
        keys: Vec<Vec<u8>>,
    },
    /// Done.
    Done,
}

/// What one core reports of itself.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Its counters.
    pub stats: Stats,
    /// Connected clients.
    pub clients: usize,
    /// Clients that wait for something.
    pub clients_blocked: usize,
    /// The largest waiting input of a client, in bytes.
    pub input_bytes_max: usize,
    /// The largest unread output of a client, in bytes.
    pub output_bytes_max: usize,
    /// Memory of clients' buffers, in bytes.
    pub client_bytes: usize,
    /// Memory of data, in bytes.
    pub data_bytes: usize,
    /// Its databases.
    pub databases: [DatabaseReport; duva_engine::DATABASE_COUNT as usize],
    /// What came of keys since its start, or since CONFIG RESETSTAT.
    pub keyspace: KeyspaceTotals,
    /// What it counted of every command, by the commands' numbers.
    pub commands: Vec<CommandReport>,
    /// Its journal, and its part of a snapshot.
    pub persistence: PersistenceReport,
    /// Its groups and links; `None`: the server is no node of a cluster.
    pub cluster: Option<Box<ClusterReport>>,
}

/// One core's part of a database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DatabaseReport {
    /// Keys.
    pub keys: usize,
    /// Keys that expire.
    pub expiring: usize,
    /// The sum of those keys' deadlines, in milliseconds since the Unix epoch.
    pub deadlines_ms: u128,
}

/// One client, as CLIENT LIST shows it.
#[derive(Clone, Debug)]
pub struct ClientRow {
    /// Its number.
    pub id: u64,
    /// Its peer's address.
    pub address: String,
    /// Its local address.
    pub local_address: String,
    /// Its descriptor.
    pub descriptor: i32,
    /// CLIENT SETNAME.
    pub name: String,
    /// Seconds since it connected.
    pub age_seconds: u64,
    /// Seconds since it last sent something.
    pub idle_seconds: u64,
    /// Redis's flag letters.
    pub flags: String,
    /// Its database.
    pub database: u8,
    /// Channels that it has subscribed to.
    pub subscriptions: usize,
    /// Bytes of waiting input.
    pub input_bytes: usize,
    /// Unread replies that wait behind the send under way.
    pub output_list_length: usize,
    /// Bytes of unread replies.
    pub output_bytes: usize,
    /// Memory it uses.
    pub total_bytes: usize,
    /// Its last command.
    pub last_command: &'static str,
    /// Its protocol version, 2 or 3.
    pub protocol: u8,
    /// CLIENT SETINFO LIB-NAME.
    pub library_name: String,
    /// CLIENT SETINFO LIB-VER.
    pub library_version: String,
}

/// Why every core is asked, and what becomes of the answers.
pub enum AdminPurpose {
    /// INFO.
    Info,
    /// CLUSTER INFO.
    ClusterInfo,
    /// CLIENT LIST; CLIENT INFO is one of the rows.
    ClientList {
        /// Which.
        filter: ClientFilter,
        /// Who asks.
        own_id: u64,
    },
    /// CLIENT KILL; the old form answers OK or an error.
    ClientKill {
        /// Which.
        filter: ClientFilter,
        /// Who asks.
        own_id: u64,
        /// `CLIENT KILL addr:port`.
        is_old_form: bool,
    },
    /// An order whose reply is OK.
    Order(AdminRequest),
    /// CLUSTER COUNTKEYSINSLOT.
    CountKeysInSlot(u16),
    /// CLUSTER GETKEYSINSLOT: the slot, and the most keys.
    GetKeysInSlot(u16, usize),
    /// CLUSTER ENTER.
    Enter {
        /// A node of the cluster to join.
        seed: String,
        /// Whether this node asks itself.
        is_own: bool,
    },
}

impl AdminPurpose {
    /// What each core is asked.
    pub fn request(&self) -> AdminRequest {
        match self {
            Self::Info | Self::ClusterInfo | Self::Enter { .. } => AdminRequest::Report,
            Self::ClientList { filter, .. } => AdminRequest::Clients(filter.clone()),
            Self::ClientKill { filter, own_id, .. } => {
                AdminRequest::Kill { filter: filter.clone(), own_id: *own_id }
            }
            Self::Order(request) => request.clone(),
            Self::CountKeysInSlot(slot) => AdminRequest::SlotKeys { slot: *slot, keys_max: 0 },
            Self::GetKeysInSlot(slot, keys_max) => {
                AdminRequest::SlotKeys { slot: *slot, keys_max: *keys_max }
            }
        }
    }

    /// Writes the reply that the cores' answers make.
    pub fn finish(
        &self,
        node: &mut Node,
        request: &mut OwnedRequest,
        replies: Vec<AdminReply>,
        output: &mut Vec<u8>,
    ) {
        commands::finish(self, node, request, replies, output);
    }
}

impl<I: Io> Core<I> {
    /// Answers a question, or obeys an order.
    pub(super) fn administer(&mut self, request: AdminRequest) -> AdminReply {
        match request {
            AdminRequest::Report => AdminReply::Report(Box::new(self.report())),
            AdminRequest::Clients(filter) => {
                let now_ms = self.node.executor.now_ms;
                let io = &mut self.io;
                let meant = self.connections.iter().filter(|connection| filter.may_match(connection));
                let rows = meant.map(|connection| row(connection, now_ms, io));
                AdminReply::Clients(rows.filter(|row| filter.matches(row)).collect())
            }
            AdminRequest::Kill { filter, own_id } => AdminReply::Killed(self.kill(&filter, own_id)),
            AdminRequest::Pause(pause) => {
                self.node.pause = pause;
                if pause.until_ms <= self.node.executor.now_ms {
                    self.resume_paused();
                } else {
                    let wait_ns = (pause.until_ms - self.node.executor.now_ms).saturating_mul(1_000_000);
                    self.timers.insert(self.clock.monotonic_ns.saturating_add(wait_ns), Timer::PauseEnd);
                }
                self.node.set_gate();
                AdminReply::Done
            }
            AdminRequest::Configure => {
                // Two changes may arrive in different orders; what is shared is always the latest.
                let config = self.node.shared.config();
                if self.node.core == 0 {
                    self.node.shared.apply_process_settings(&config);
                }
                self.io.set_keepalive(config.tcp_keepalive_seconds);
                self.node.configure(config);
                self.set_output_limit();
                self.arm_cron();
                self.arm_save_cron();
                AdminReply::Done
            }
            AdminRequest::Campaign => {
                self.node.campaign();
                AdminReply::Done
            }
            AdminRequest::ResetStats => {
                let keyspace_before = KeyspaceTotals::of(&self.node.executor.shards);
                self.node.stats = Stats { keyspace_before, ..Stats::default() };
                self.node.executor.times = ExecutionTimes::default();
                if let Some(log) = &mut self.node.log {
                    log.reset_stats();
                }
                if self.node.core == 0 {
                    self.node.shared.save_status().reset_counts();
                }
                AdminReply::Done
            }
            AdminRequest::SlotKeys { slot, keys_max } => self.slot_keys(slot, keys_max),
        }
    }

    fn slot_keys(&mut self, slot: u16, keys_max: usize) -> AdminReply {
        let Executor { shards, now_ms, .. } = &mut self.node.executor;
        let Some(count) = shards.get(slot).map(|shard| shard.slot_key_count(slot)) else {
            return AdminReply::SlotKeys { count: 0, keys: Vec::new() };
        };
        let mut keys = Vec::new();
        let wanted = count.min(keys_max);
        if wanted > 0 {
            // Where keys are due, the walk may end in the next slots.
            shards.of(slot).scan(0, Cursor::of_slot(slot), wanted, usize::MAX, *now_ms, |entry| {
                if keys.len() < wanted && key_slot(entry.key()) == slot {
                    keys.push(entry.key().to_vec());
                }
            });
        }
        AdminReply::SlotKeys { count, keys }
    }

    fn report(&mut self) -> Report {
        let mut report = Report { stats: self.node.stats.clone(), ..Report::default() };
        report.persistence = self.node.persistence_report();
        report.cluster = self.node.cluster_report();
        for connection in self.connections.iter().filter(|connection| !connection.is_peer()) {
            let output = connection.output_bytes();
            report.clients += 1;
            let waits = State::WAITING.and(State::PAUSED);
            report.clients_blocked += usize::from(connection.state.any(waits));
            report.input_bytes_max = report.input_bytes_max.max(connection.input_bytes());
            report.output_bytes_max = report.output_bytes_max.max(output);
            report.client_bytes += size_of::<Connection>() + connection.input_bytes() + output;
        }
        for shard in self.node.executor.shards.iter() {
            report.data_bytes += shard.used_bytes();
            for (number, database) in (0..).zip(&mut report.databases) {
                database.keys += shard.key_count(number);
                database.expiring += shard.expiring_count(number);
                database.deadlines_ms += shard.deadlines_ms(number);
            }
        }
        let Node { stats, executor, .. } = &self.node;
        report.keyspace = KeyspaceTotals::of(&executor.shards).since(stats.keyspace_before);
        report.commands = command_reports(&stats.commands, &executor.times);
        report
    }

    fn kill(&mut self, filter: &ClientFilter, own_id: u64) -> usize {
        let now_ms = self.node.executor.now_ms;
        let io = &mut self.io;
        let doomed: Vec<_> = self
            .connections
            .iter()
            .filter(|connection| filter.may_match(connection))
            .filter(|connection| !filter.names_address() || filter.matches(&row(connection, now_ms, io)))
            .map(|connection| (connection.token, connection.id))
            .collect();
        for &(token, id) in &doomed {
            match self.connections.get_mut(token) {
                Some(connection) if id == own_id => {
                    connection.state.insert(State::CLOSE_AFTER_REPLY);
                    Self::mark_dirty(connection, &mut self.dirty);
                }
                _ => self.close(token),
            }
        }
        doomed.len()
    }

    /// Clients that CLIENT PAUSE held up go on.
    pub(super) fn resume_paused(&mut self) {
        if self.node.executor.now_ms < self.node.pause.until_ms {
            // A later pause took the place of the one that ends, or the wall clock was set back.
            let wait_ns = (self.node.pause.until_ms - self.node.executor.now_ms).saturating_mul(1_000_000);
            self.timers.insert(self.clock.monotonic_ns.saturating_add(wait_ns), Timer::PauseEnd);
            return;
        }
        self.node.pause = Pause::default();
        self.node.set_gate();
        for connection in self.connections.iter_mut() {
            if connection.state.any(State::PAUSED) {
                connection.state.remove(State::PAUSED);
                Self::mark_ready(connection, &mut self.ready);
            }
        }
    }

    /// Sets the timer for [`Core::cron`], if the configuration needs one and none is set.
    pub(super) fn arm_cron(&mut self) {
        let is_needed = self.node.config.idle_timeout_seconds > 0 || self.output_limit_bytes < u64::MAX;
        if is_needed && !self.has_cron {
            self.has_cron = true;
            self.timers.insert(self.clock.monotonic_ns + super::timers::CRON_NS, Timer::Cron);
        }
    }

    /// Sets the timer for [`Node::save_cron`], if anything is ever saved by itself and none is set.
    pub(super) fn arm_save_cron(&mut self) {
        let is_needed = self.node.log.is_some() || !self.node.config.save_points.is_empty();
        if is_needed && !self.has_save_cron {
            self.has_save_cron = true;
            self.timers.insert(self.clock.monotonic_ns + super::timers::CRON_NS, Timer::SaveCron);
        }
    }

    /// Closes idle connections, and those past their soft limit.
    pub(super) fn cron(&mut self) {
        self.has_cron = false;
        self.arm_cron();
        let timeout_ms = u64::from(self.node.config.idle_timeout_seconds) * 1000;
        let now_ms = self.node.executor.now_ms;
        let mut idle = Vec::new();
        for connection in self.connections.iter_mut().filter(|connection| !connection.is_peer()) {
            let waits = State::FENCED.and(State::PAUSED).and(State::SUBSCRIBED);
            if timeout_ms > 0
                && now_ms.saturating_sub(connection.active_ms) > timeout_ms
                && !connection.state.any(waits)
            {
                idle.push(connection.token);
            } else if connection.output_bytes() as u64 > self.output_limit_bytes {
                Self::mark_dirty(connection, &mut self.dirty);
            }
        }
        for token in idle {
            self.close(token);
        }
    }
}

impl ClientFilter {
    /// Whether a connection may be meant, as far as that shows without asking the kernel for its addresses.
    fn may_match(&self, connection: &Connection) -> bool {
        let is_or_none =
            |wanted: &Option<String>, value: &str| wanted.as_ref().is_none_or(|wanted| wanted == value);
        !connection.state.any(State::CLOSING)
            && !connection.is_peer()
            && (self.ids.is_empty() || self.ids.contains(&connection.id))
            && is_or_none(
                &self.kind,
                if connection.state.any(State::SUBSCRIBED) { "pubsub" } else { "normal" },
            )
            && is_or_none(&self.user, "default")
            && self.except != Some(connection.id)
    }

    fn names_address(&self) -> bool {
        self.address.is_some() || self.local_address.is_some()
    }

    fn matches(&self, row: &ClientRow) -> bool {
        let is_or_none =
            |wanted: &Option<String>, value: &str| wanted.as_ref().is_none_or(|wanted| wanted == value);
        is_or_none(&self.address, &row.address) && is_or_none(&self.local_address, &row.local_address)
    }
}

fn row(connection: &Connection, now_ms: u64, io: &mut impl Io) -> ClientRow {
    let (address, local_address) = io.addresses(connection.socket);
    let text = |bytes: Option<&Vec<u8>>| {
        bytes.map_or_else(String::new, |bytes| String::from_utf8_lossy(bytes).into_owned())
    };
    let identity = connection.identity.as_deref();
    let mut flags = String::new();
    for (bit, letter) in [
        (State::SUBSCRIBED, 'P'),
        (State::UNIX, 'U'),
        (State::CLOSE_AFTER_REPLY, 'c'),
        (State::CLOSING, 'A'),
        (State::WAITING.and(State::PAUSED), 'b'),
        (State::NO_EVICT, 'e'),
        (State::NO_TOUCH, 'T'),
        (State::READ_ONLY, 'r'),
    ] {
        if connection.state.any(bit) {
            flags.push(letter);
        }
    }
    if flags.is_empty() {
        flags.push('N');
    }
    ClientRow {
        id: connection.id,
        address,
        local_address,
        descriptor: connection.socket.0,
        name: text(identity.map(|identity| &identity.name)),
        age_seconds: now_ms.saturating_sub(connection.created_ms) / 1000,
        idle_seconds: now_ms.saturating_sub(connection.active_ms) / 1000,
        flags,
        database: connection.database,
        subscriptions: usize::from(connection.state.any(State::SUBSCRIBED)),
        input_bytes: connection.input_bytes(),
        output_list_length: usize::from(!connection.output.is_empty()),
        output_bytes: connection.output_bytes(),
        total_bytes: size_of::<Connection>() + connection.input.capacity() + connection.output.capacity(),
        last_command: connection.last_command.map_or("NULL", |command| command.name),
        protocol: if connection.protocol == duva_engine::Protocol::Resp3 { 3 } else { 2 },
        library_name: text(identity.map(|identity| &identity.library_name)),
        library_version: text(identity.map(|identity| &identity.library_version)),
    }
}

#[cfg(test)]
mod tests {
    use duva_engine::command::lookup;

    use super::*;

    #[test]
    fn a_pause_holds_what_redis_holds() {
        let command = |name: &[u8]| lookup(name).expect("a command");
        let unpause = command(b"client").subcommand(b"unpause").expect("a subcommand");
        let all = Pause { until_ms: 100, all: true };
        for held in [command(b"get"), command(b"set"), command(b"ping"), unpause] {
            assert!(all.covers(held, 99), "{}", held.name);
            assert!(!all.covers(held, 100), "{}", held.name);
        }
        let writes = Pause { until_ms: 100, all: false };
        for held in [command(b"set"), command(b"flushall"), command(b"getex"), command(b"restore")] {
            assert!(writes.covers(held, 99), "{}", held.name);
        }
        for passes in [command(b"get"), command(b"touch"), command(b"save"), command(b"wait"), unpause] {
            assert!(!writes.covers(passes, 99), "{}", passes.name);
        }
        assert!(!Pause::default().covers(command(b"set"), 0));
    }
}
