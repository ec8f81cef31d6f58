//! What one core knows and does, apart from sockets: executing, parking, and answering work of any origin.
//!
//! Work comes from this core's connections, from other cores, and from gathers; it takes one way through
//! [`Node::submit`] and its answer one way back through [`Node::respond`].

use std::{collections::VecDeque, ops::Range, sync::Arc, time::Instant};

use duva_engine::{
    DetachedEntry, KeyHash, Resume, Shard, Step,
    command::{Command, Handler, Run},
};
use duva_net::{io::Token, mesh::Endpoint};

use super::{
    admin::{Pause, Shared},
    batch::{Answer, Batch, GatherKey, Locking, Message, PIECE_KEYS_MAX, Packed, Work},
    clocks::Clocks,
    cluster_shared::ClusterShared,
    commit::Executor,
    gather::Gathers,
    gossip::Gossip,
    groups::{Groups, meta::MetaGroup},
    levels::Observed,
    locks::{Grant, Locks, Scope, TransactionId},
    log::Log,
    peer::links::Peers,
    replies::Sequence,
    request::{Large, OwnedRequest, Reading, Request},
    route::Lack,
    save::Saver,
    spread::Spreads,
    stats::Stats,
    transact::Applying,
};
use crate::{
    cluster::{feature_level::Features, session::Position, view::ClusterView},
    config::Config,
};

/// Requests that may be under way from one core to another; past it connections wait.
const OUTSTANDING_MAX: u32 = 8192;

/// Bytes of requests that one batch may hold before connections wait.
pub(super) const BATCH_BYTES_MAX: usize = 4 << 20;

/// Who asked for a piece of work.
#[derive(Clone, Copy)]
pub enum Origin {
    /// A connection of this core.
    Connection {
        /// The connection.
        token: Token,
        /// Its reply slot.
        sequence: Sequence,
        /// Whether the connection executes nothing until this is finished.
        ends_fence: bool,
        /// What it asked for.
        command: &'static Command,
    },
    /// A connection of another core.
    Core {
        /// That core.
        core: usize,
        /// The connection, there.
        token: Token,
        /// Its reply slot.
        sequence: Sequence,
        /// What it asked for.
        command: &'static Command,
    },
    /// A connection of another node.
    Peer {
        /// That node.
        node: u32,
        /// The shard that the request is for.
        shard: u16,
        /// What names it there.
        id: u64,
        /// What it asked for.
        command: &'static Command,
    },
    /// A command for all shards, of which this is one shard's part.
    Fanout {
        /// The command, among this core's.
        id: u64,
        /// What was asked for.
        command: &'static Command,
    },
    /// A gather.
    Gather {
        /// Its coordinator.
        core: usize,
        /// The gather, there.
        gather: GatherKey,
        /// Whether its locks here are given back once this is done.
        release: bool,
    },
}

impl Origin {
    /// Whether two requests came from the same connection of this node.
    pub(super) fn is_of_same_connection(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Connection { token: one, .. }, Self::Connection { token: other, .. }) => one == other,
            (Self::Core { core, token, .. }, Self::Core { core: other_core, token: other, .. }) => {
                (core, token) == (other_core, other)
            }
            _ => false,
        }
    }
}

impl Origin {
    /// Whether it is a part of a gather, whose locks it holds.
    pub fn holds_locks(self) -> bool {
        matches!(self, Self::Gather { .. })
    }

    /// The same, for work that its connection must not pass.
    pub fn later(mut self) -> Self {
        if let Self::Connection { ends_fence, .. } = &mut self {
            *ends_fence = true;
        }
        self
    }
}

/// Whether submitted work is finished.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Submitted {
    /// The reply is in the output.
    Done,
    /// The reply comes later, through [`Node::respond`]; what the connection sends meanwhile may be submitted.
    Waiting,
    /// The reply comes later, and the connection executes nothing until then.
    Later,
}

/// Work that waits for locks.
pub enum Parked {
    /// A request that needs no locks of its own.
    Request(Origin, Box<OwnedRequest>),
    /// A part that has asked for locks.
    Part(Origin, Work, Box<OwnedRequest>),
    /// A large write of a client that is journalled but for its end: the log has it under this number.
    Stream(u64),
}

/// A command that is worked on over several turns.
pub struct Job {
    origin: Origin,
    request: Box<OwnedRequest>,
    state: Box<dyn Resume>,
}

/// Replies for connections of this core, on their way to them.
#[derive(Default)]
pub struct Deliveries {
    /// The replies.
    pub bytes: Vec<u8>,
    /// To whom, and whether the connection's fence ends.
    pub list: Vec<Delivery>,
    /// Where requests of connections were whose replies are in the list.
    pub observed: Vec<(Token, Observed)>,
}

/// One reply for a connection of this core.
pub struct Delivery {
    /// The connection.
    pub token: Token,
    /// Its reply slot.
    pub sequence: Sequence,
    /// The reply.
    pub bytes: Range<usize>,
    /// Whether the connection goes on executing.
    pub ends_fence: bool,
}

/// One core, apart from its sockets.
pub struct Node {
    /// This core's number.
    pub core: usize,
    /// How many cores there are.
    pub cores: usize,
    /// Shards, clock and settings.
    pub executor: Executor,
    /// Which core owns each shard; it changes only between turns.
    pub owners: Vec<u16>,
    /// The links to the other cores.
    pub mesh: Endpoint<Batch>,
    /// Requests under way to each core.
    pub outstanding: Vec<u32>,
    /// Whose journals have too much to write, as their cores have told.
    full_journals: Vec<bool>,
    /// The journal and what waits for it; `None` if there is no journal.
    pub log: Option<Box<Log>>,
    /// The replicas of this core's shards; `None` if the server is no node of a cluster.
    pub groups: Option<Box<Groups>>,
    /// Answers of single shards to commands for all of them.
    pub(super) fanned: Vec<(u64, Vec<u8>)>,
    /// On core 0 of a cluster's node: the meta group's replica.
    pub meta: Option<Box<MetaGroup>>,
    /// What the cores share about the cluster, and how this core saw it last.
    pub cluster: Option<Arc<ClusterShared>>,
    pub(super) cluster_version: u64,
    /// Of which feature level requests may be.
    pub features: Features,
    /// The links to other nodes.
    pub peers: Peers,
    /// On core 0 of a cluster's node: what finds out which nodes are there.
    pub gossip: Option<Box<Gossip>>,
    /// The time that replicas are given, in milliseconds: the executor's, held to most nodes' clocks.
    pub shard_now_ms: u64,
    /// On core 0 of a node of a cluster: how the nodes' clocks compare.
    pub clocks: Option<Box<Clocks>>,
    /// Whether connections may want to be told of changes of leaders and nodes, and whether they have to be.
    pub has_topology_watchers: bool,
    pub(super) topology_has_changed: bool,
    /// Locks of this core's keys.
    pub locks: Locks<Parked>,
    /// Work that goes on in every turn.
    pub jobs: VecDeque<Job>,
    /// Writes of gathers that are in the log and applied over several turns.
    pub(super) applying: VecDeque<Applying>,
    /// Commands that this core coordinates.
    pub gathers: Gathers,
    /// Those of them, in a cluster, whose keys lie in several shards.
    pub(super) spreads: Spreads,
    /// Finished replies.
    pub deliveries: Deliveries,
    /// This core's part in saving.
    pub saver: Saver,
    /// The configuration in force.
    pub config: Arc<Config>,
    /// What all cores share.
    pub shared: Arc<Shared>,
    /// Reply slots of WAIT whose timers are still to be set, with their timeouts in milliseconds.
    pub waits: Vec<(Token, Sequence, u64)>,
    /// The cluster as this core sees it; `None`: the server stands alone.
    pub cluster_view: Option<Arc<ClusterView>>,
    /// Counters.
    pub stats: Stats,
    /// CLIENT PAUSE.
    pub pause: Pause,
    /// Whether requests are looked at before they are routed: there is a password, or a pause.
    pub has_gate: bool,
    /// Where handlers of rare requests write before their reply finds its place.
    pub scratch: Vec<u8>,
    /// Where entries are encoded.
    pub(super) scratch_payload: Vec<u8>,
    /// What a replica must have applied to serve the read that is being submitted.
    pub(super) floor: Option<Position>,
    /// Where in its shard's log the request was that is answered next, if its connection wants to know.
    pub(super) observed: Option<Observed>,
    /// Whether this core has done what it could to lead nothing when the server stops.
    pub(super) has_left: bool,
}

impl Node {
    /// Core `core` with these shards, which serves no connection yet.
    pub fn new(
        core: usize,
        executor: Executor,
        owners: Vec<u16>,
        mesh: Endpoint<Batch>,
        config: Arc<Config>,
        shared: Arc<Shared>,
    ) -> Self {
        let cores = mesh.cores();
        let mut this = Self {
            core,
            cores,
            executor,
            owners,
            mesh,
            outstanding: vec![0; cores],
            full_journals: vec![false; cores],
            log: None,
            groups: None,
            fanned: Vec::new(),
            meta: None,
            cluster: None,
            cluster_version: 0,
            features: Features::new(config.feature_level, config.newer_commands),
            peers: Peers::default(),
            gossip: None,
            shard_now_ms: 0,
            clocks: None,
            has_topology_watchers: false,
            topology_has_changed: false,
            locks: Locks::default(),
            jobs: VecDeque::new(),
            applying: VecDeque::new(),
            gathers: Gathers::default(),
            spreads: Spreads::default(),
            deliveries: Deliveries::default(),
            saver: Saver::default(),
            config: Arc::clone(&config),
            shared,
            waits: Vec::new(),
            cluster_view: None,
            stats: Stats::default(),
            pause: Pause::default(),
            has_gate: false,
            scratch: Vec::new(),
            scratch_payload: Vec::new(),
            floor: None,
            observed: None,
            has_left: false,
        };
        this.configure(config);
        this
    }

    /// Uses a new configuration.
    pub fn configure(&mut self, config: Arc<Config>) {
        self.executor.settings = config.engine_settings();
        if let Some(log) = &mut self.log {
            log.set_fsync(config.append_fsync);
        }
        self.config = config;
        self.set_gate();
    }

    /// Learns whether requests must be looked at before they are routed.
    pub fn set_gate(&mut self) {
        self.has_gate = !self.config.password.is_empty() || self.pause.until_ms > 0 || self.has_saving_gate();
    }

    /// The core that owns `slot`.
    #[inline]
    pub fn owner_of(&self, slot: u16) -> usize {
        usize::from(self.owners[self.executor.shards.number_of(slot)])
    }

    /// The one core that owns all `keys`; `None` if there are several.
    #[inline]
    pub fn single_owner(&self, keys: &[KeyHash]) -> Option<usize> {
        if self.cores == 1 {
            return Some(self.core);
        }
        let (first, rest) = keys.split_first()?;
        let owner = self.owner_of(first.slot);
        rest.iter().all(|key| self.owner_of(key.slot) == owner).then_some(owner)
    }

    /// Whether another request may be sent to `core` now.
    #[inline]
    pub fn has_room(&mut self, core: usize) -> bool {
        self.outstanding[core] < OUTSTANDING_MAX
            && self.mesh.outgoing(core).argument_bytes() < BATCH_BYTES_MAX
    }

    /// Whether so much waits for the journal of `core` that it must not be given another write.
    #[inline]
    pub fn is_journal_full(&self, core: usize) -> bool {
        if core == self.core {
            self.log.as_ref().is_some_and(|log| log.is_full())
                || self.groups.as_ref().is_some_and(|groups| groups.is_full())
        } else {
            self.full_journals[core]
        }
    }

    /// Core `core` tells whether its journal has too much to write.
    pub fn note_journal(&mut self, core: usize, is_full: bool) {
        self.full_journals[core] = is_full;
    }

    /// Tells the other cores when this core's journal has too much to write, and when it has not any more.
    pub(super) fn tell_of_journal(&mut self) {
        let is_full = self.is_journal_full(self.core);
        // Its own place is what it has told.
        if std::mem::replace(&mut self.full_journals[self.core], is_full) == is_full {
            return;
        }
        for core in (0..self.cores).filter(|&core| core != self.core) {
            self.mesh.outgoing(core).messages.push(Message::Journal { is_full });
        }
    }

    /// Whether memory is ahead of the journal: nothing may leave that tells of it.
    #[inline]
    pub fn is_ahead(&self) -> bool {
        self.log.as_ref().is_some_and(|log| log.is_ahead())
    }

    /// Whether a request has still to wait for what it lacked.
    pub(super) fn lacks(&mut self, lack: Lack) -> bool {
        match lack {
            Lack::Mesh(core) => !self.has_room(core),
            Lack::Journal(core) => self.is_journal_full(core),
            Lack::Saving => self.is_save_gate_closed(),
        }
    }

    /// Whether writes wait for a save.
    pub(super) fn is_save_gate_closed(&self) -> bool {
        self.has_gate && self.are_writes_held()
    }

    /// Whether the log has room for ticks.
    #[inline]
    pub(super) fn can_tick(&self) -> bool {
        self.log.as_ref().is_none_or(|log| log.has_tick_room())
    }

    /// Whether `keys` are all in one shard.
    pub fn is_one_shard(&self, keys: &[KeyHash]) -> bool {
        let shards = &self.executor.shards;
        let mut numbers = keys.iter().map(|key| shards.number_of(key.slot));
        let first = numbers.next();
        numbers.all(|number| Some(number) == first)
    }

    /// Sends `request` to `core`, which owns all its keys. `is_ordered`: its connection has unfinished writes.
    pub fn forward(
        &mut self,
        core: usize,
        request: &mut Request<'_>,
        token: Token,
        sequence: Sequence,
        is_ordered: bool,
    ) {
        self.outstanding[core] += 1;
        let batch = self.mesh.outgoing(core);
        let packed = batch.pack(request, Large::Move);
        let message = match self.floor.take_if(|_| request.mode.reading == Reading::Session) {
            None => Message::Request { token, sequence, packed, is_ordered },
            Some(floor) => Message::NearRequest { token, sequence, packed, floor },
        };
        batch.messages.push(message);
    }

    /// Executes a request whose keys are all on this core, now or once they are free. `is_ordered`: it must not pass
    /// unfinished writes of its connection.
    #[inline(always)]
    pub fn submit(
        &mut self,
        origin: Origin,
        handler: Handler,
        request: &mut Request<'_>,
        output: &mut Vec<u8>,
        is_ordered: bool,
    ) -> Submitted {
        if self.locks.is_active() && self.locks.blocks(Scope::of(request.keys)) {
            let keys = request.keys;
            // A floor does not wait with it.
            request.mode.reading = request.mode.reading.at_leader();
            let owned = Box::new(request.to_owned());
            self.locks.park(Scope::of(keys), None, Parked::Request(origin.later(), owned));
            return Submitted::Later;
        }
        self.execute(origin, handler, request, output, is_ordered)
    }

    /// Executes a request whose keys are all on this core and free.
    #[inline(always)]
    pub(super) fn execute(
        &mut self,
        origin: Origin,
        handler: Handler,
        request: &mut Request<'_>,
        output: &mut Vec<u8>,
        is_ordered: bool,
    ) -> Submitted {
        if self.log.is_some()
            && let Some(submitted) = self.log_first(origin, handler, request, output, is_ordered)
        {
            return submitted;
        }
        let step = self.executor.execute(handler, request, output);
        self.after_step(origin.later(), step, request)
    }

    /// Keeps the rest of a command that takes several turns.
    #[inline]
    pub(super) fn after_step(&mut self, origin: Origin, step: Step, request: &mut Request<'_>) -> Submitted {
        match step {
            Step::Done => Submitted::Done,
            Step::Continue(state) => {
                let request = Box::new(request.to_owned());
                self.jobs.push_back(Job { origin, request, state });
                // It sees what there is when it ends.
                self.observed = None;
                Submitted::Later
            }
        }
    }

    /// Begins a job whose state exists already.
    pub fn begin_job(&mut self, origin: Origin, request: Box<OwnedRequest>, state: Box<dyn Resume>) {
        self.jobs.push_back(Job { origin, request, state });
    }

    /// Lets the first job go on for one budget.
    pub fn run_job(&mut self) {
        let Some(mut job) = self.jobs.pop_front() else { return };
        let mut output = std::mem::take(&mut self.scratch);
        output.clear();
        let now_ms = self.visible_ms();
        let mut request = job.request.view();
        let executor = &mut self.executor;
        let began = Instant::now();
        let is_done = job.state.resume(&mut request.call(
            &mut executor.shards,
            &executor.settings,
            now_ms,
            0,
            &mut output,
        ));
        executor.times.add_step(request.command, began);
        if is_done {
            if job.request.mode.reading.is_tracked() {
                self.observe_applied(&job.request.keys);
            }
            self.respond(job.origin, Answer::Reply, &output);
        } else {
            self.jobs.push_back(job);
        }
        self.scratch = output;
    }

    /// Sends an answer back to whoever asked.
    pub fn respond(&mut self, origin: Origin, answer: Answer, reply: &[u8]) {
        if let Origin::Connection { command, .. }
        | Origin::Core { command, .. }
        | Origin::Peer { command, .. } = origin
        {
            self.note_error(command, reply);
        }
        if self.observed.is_some() {
            self.pass_on_observed(origin);
        }
        match origin {
            Origin::Connection { token, sequence, ends_fence, .. } => {
                self.deliver(token, sequence, reply, ends_fence);
            }
            Origin::Core { core, token, sequence, .. } => {
                let batch = self.mesh.outgoing(core);
                let bytes = batch.push_reply(reply);
                batch.messages.push(Message::Reply { token, sequence, bytes });
            }
            Origin::Fanout { id, .. } => self.fanned.push((id, reply.to_vec())),
            Origin::Peer { node, shard, id, .. } => self.reply_to_peer(node, shard, id, reply),
            Origin::Gather { core, gather, release } => {
                let batch = self.mesh.outgoing(core);
                let bytes = batch.push_reply(reply);
                let answer = self.observed.take().map_or(answer, Answer::Observed);
                batch.messages.push(Message::PartReply { gather, answer, bytes });
                if release {
                    self.release(gather.transaction);
                }
            }
        }
    }

    /// Counts an error among those of its command. The connection's core counts it among all errors.
    #[inline]
    pub(super) fn note_error(&mut self, command: &Command, reply: &[u8]) {
        if reply.first() == Some(&b'-') {
            self.stats.commands.fail(command, reply);
        }
    }

    /// Puts a finished reply on its way to a connection of this core.
    pub fn deliver(&mut self, token: Token, sequence: Sequence, reply: &[u8], ends_fence: bool) {
        let start = self.deliveries.bytes.len();
        self.deliveries.bytes.extend_from_slice(reply);
        let bytes = start..self.deliveries.bytes.len();
        self.deliveries.list.push(Delivery { token, sequence, bytes, ends_fence });
    }

    /// Takes one part of a gather whose coordinator is `core`.
    pub fn take_part(
        &mut self,
        core: usize,
        gather: GatherKey,
        locking: Locking,
        work: Work,
        mut request: Request<'_>,
    ) {
        let origin = Origin::Gather { core, gather, release: locking == Locking::Release };
        let scope = match locking {
            Locking::Keys => Scope::Keys(request.keys),
            Locking::All => Scope::All,
            Locking::None | Locking::Release => return self.do_part(origin, work, &mut request),
        };
        match self.locks.lock(gather.transaction, scope) {
            Grant::Granted => self.do_part(origin, work, &mut request),
            Grant::Refused => self.respond(origin, Answer::Refused, &[]),
            Grant::Wait => {
                let keys = request.keys;
                let owned = Box::new(request.to_owned());
                let scope = if locking == Locking::All { Scope::All } else { Scope::Keys(keys) };
                self.locks.park(scope, Some(gather.transaction), Parked::Part(origin, work, owned));
            }
        }
    }

    /// Gives back the locks of a gather; what waited for them goes on.
    pub fn release(&mut self, transaction: TransactionId) {
        if let Some(log) = &mut self.log {
            log.forget_prepared(transaction);
        }
        let ready = self.locks.release(transaction);
        self.go_on_with(ready);
    }

    /// Gives back some locks of a gather whose coordinator is `core`, and says whether it holds more.
    pub(super) fn give_back(&mut self, core: usize, gather: GatherKey) {
        if let Some(log) = &mut self.log {
            log.forget_prepared(gather.transaction);
        }
        let (ready, has_more) = self.locks.release_some(gather.transaction, PIECE_KEYS_MAX);
        let origin = Origin::Gather { core, gather, release: false };
        self.respond(origin, Answer::Reply, if has_more { b"+" } else { b"" });
        self.go_on_with(ready);
    }

    /// Does what has waited for locks and holds them, or need not wait any longer.
    fn go_on_with(&mut self, ready: Vec<Parked>) {
        for parked in ready {
            match parked {
                Parked::Stream(number) => self.resume_stream(number),
                Parked::Part(origin, work, mut owned) => self.do_part(origin, work, &mut owned.view()),
                Parked::Request(origin, mut owned) => {
                    let handler = handler_of(&owned);
                    let mut output = std::mem::take(&mut self.scratch);
                    output.clear();
                    if self.execute(origin, handler, &mut owned.view(), &mut output, true) == Submitted::Done
                    {
                        self.respond(origin, Answer::Reply, &output);
                    }
                    self.scratch = output;
                }
            }
        }
    }

    pub(super) fn do_part(&mut self, origin: Origin, work: Work, request: &mut Request<'_>) {
        let must_wait = match work {
            Work::Nothing | Work::Walk { .. } | Work::Command | Work::Stage => false,
            // Writes that wait are seen by nobody and were not answered, so the snapshots can do without them; with what
            // is saved last, before the server stops, nothing may be missing.
            Work::Cut => !matches!(origin, Origin::Gather { release: true, .. }),
            // What is read under locks decides what is written: it must not miss a write that is under way.
            _ => true,
        };
        if must_wait
            && let Some(log) = &mut self.log
            && log.has_waiting()
        {
            return log.wait_with_part(origin, request, work, self.executor.now_ms);
        }
        self.do_part_now(origin, work, request);
    }

    pub(super) fn do_part_now(&mut self, origin: Origin, work: Work, request: &mut Request<'_>) {
        match work {
            Work::Nothing => self.respond(origin, Answer::Reply, &[]),
            Work::Command => {
                let (Run::Single(handler)
                | Run::Split(handler, _)
                | Run::Staged(handler, _)
                | Run::Everywhere(handler, _)
                | Run::Walk(handler)) = request.command.run
                else {
                    panic!("{} has no handler", request.command.name)
                };
                let mut output = std::mem::take(&mut self.scratch);
                output.clear();
                // In a cluster nothing of its connection is under way in the logs.
                let is_ordered = self.groups.is_none();
                if self.execute(origin, handler, request, &mut output, is_ordered) == Submitted::Done {
                    self.respond(origin, Answer::Reply, &output);
                }
                self.scratch = output;
            }
            Work::Detach | Work::Duplicate => {
                let entry = self.entry_of(request, matches!(work, Work::Detach));
                self.respond(origin, Answer::Entry(entry.map(Box::new)), &[]);
            }
            Work::Attach(entry) => {
                let timestamp_ms = self.executor.timestamp_ms(request.keys);
                let key = request.keys[0];
                let name = request.args().get(1).to_vec();
                let shard = self.executor.shards.of(key.slot);
                shard.attach(request.mode.database, &name, key, *entry, timestamp_ms);
                self.executor.note_deadlines(&[key]);
                self.respond(origin, Answer::Reply, &[]);
            }
            Work::Exists => {
                let now_ms = self.visible_ms();
                let database = request.mode.database;
                // Whoever looks whether a key is in the way accesses it.
                let find = if request.mode.touch { Shard::touch } else { Shard::get };
                let (keys, args) = (request.keys, request.args());
                let shards = &mut self.executor.shards;
                let digits = keys.iter().enumerate().map(|(ordinal, key)| {
                    let entry = find(shards.of(key.slot), database, args.get(1 + ordinal), *key, now_ms);
                    if entry.is_some() { b'1' } else { b'0' }
                });
                let digits: Vec<u8> = digits.collect();
                self.respond(origin, Answer::Reply, &digits);
            }
            Work::Walk { cursor, count } => self.walk(origin, cursor, count, request),
            Work::Stage => {
                let Origin::Gather { gather, .. } = origin else { panic!("only gathers stage writes") };
                let Self { log: Some(log), executor, .. } = self else { panic!("only journals need stages") };
                log.stage(gather.transaction, request, &executor.shards);
                self.respond(origin, Answer::Reply, &[]);
            }
            Work::Apply(_) | Work::Prepare(_) | Work::Finish | Work::GiveBack => {
                panic!("writes bring their own requests")
            }
            Work::Cut => {
                self.begin_cut_part();
                self.respond(origin, Answer::Reply, &[]);
            }
            Work::Admin(_) => panic!("administration is the core's, not the node's"),
        }
    }

    fn entry_of(&mut self, request: &mut Request<'_>, detach: bool) -> Option<DetachedEntry> {
        let key = request.keys[0];
        let name = request.args().get(1).to_vec();
        let database = request.mode.database;
        if detach {
            let timestamp_ms = self.executor.timestamp_ms(request.keys);
            self.executor.shards.of(key.slot).detach(database, &name, key, timestamp_ms)
        } else {
            let now_ms = self.visible_ms();
            self.executor.shards.of(key.slot).duplicate(database, &name, key, now_ms)
        }
    }

    /// Whether the core has work that does not depend on completions.
    pub fn has_work(&self) -> bool {
        !self.jobs.is_empty()
            || self.can_apply_more()
            || self.log.as_ref().is_some_and(|log| log.has_work() || log.has_unwritten())
            || !self.waits.is_empty()
            || self.next_retry_ms().is_some_and(|at_ms| at_ms <= self.executor.now_ms)
            || self.peers.needs_attention()
            || self.saver.has_work_for_writers()
            || self.groups.as_ref().is_some_and(|groups| groups.has_work())
    }

    /// Whether it has something to do for which nobody waits.
    pub fn has_background_work(&self) -> bool {
        self.saver.has_work() || self.executor.has_garbage
    }

    /// Prefetches for all requests of a batch, before the first is executed.
    pub fn prefetch(&self, batch: &Batch) {
        let shards = &self.executor.shards;
        let keys = || {
            batch.messages.iter().filter_map(|message| match message {
                Message::Request { packed, .. } | Message::NearRequest { packed, .. } => {
                    packed.first_key(&batch.keys)
                }
                _ => None,
            })
        };
        for (database, key) in keys() {
            if let Some(shard) = shards.get(key.slot) {
                shard.prefetch_table(database, key);
            }
        }
        for (database, key) in keys() {
            if let Some(shard) = shards.get(key.slot) {
                shard.prefetch_entry(database, key);
            }
        }
    }

    /// Executes one request of another core; its reply goes straight into the batch for that core.
    pub fn serve(
        &mut self,
        core: usize,
        token: Token,
        sequence: Sequence,
        is_ordered: bool,
        request: &mut Request<'_>,
    ) {
        let command = request.command;
        let origin = Origin::Core { core, token, sequence, command };
        if self.has_gate && self.hold_for_saving(origin, request, is_ordered) {
            return;
        }
        let (Run::Single(handler) | Run::Split(handler, _) | Run::Staged(handler, _)) = request.command.run
        else {
            panic!("{} does not travel as a request", request.command.name)
        };
        let mut output = std::mem::take(&mut self.mesh.outgoing(core).replies);
        let start = output.len();
        let submitted = self.submit(origin, handler, request, &mut output, is_ordered);
        let bytes = start..output.len();
        if submitted == Submitted::Done {
            self.note_error(command, &output[bytes.clone()]);
        }
        self.mesh.outgoing(core).replies = output;
        if submitted == Submitted::Done {
            if self.observed.is_some() {
                self.pass_on_observed(origin);
            }
            let batch = self.mesh.outgoing(core);
            batch.messages.push(Message::Reply { token, sequence, bytes });
        }
    }
}

/// The handler of a request that waits for its keys.
pub(super) fn handler_of(request: &OwnedRequest) -> Handler {
    match request.command.run {
        Run::Single(handler)
        | Run::Split(handler, _)
        | Run::Staged(handler, _)
        | Run::Everywhere(handler, _) => handler,
        _ => panic!("{} does not wait for keys", request.command.name),
    }
}

/// A packed request's view of the batch it lies in.
pub fn view<'a>(batch: &'a mut Batch, packed: &Packed) -> Request<'a> {
    Batch::request(&batch.bytes, &batch.ranges, &batch.keys, &mut batch.large, packed)
}
