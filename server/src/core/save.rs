//! Saving: `dump.rdb` for SAVE and its kin, and the snapshots of shards that let the journal go.
//!
//! Both walk this core's shards by the engine's snapshots without fork, a budget a turn, and hand pieces of an RDB file
//! to the storage thread. Core 0 coordinates: it begins what is due, collects the pieces of a dump, and ends it.
//!
//! - A *rewrite* of the journal: every core writes a snapshot file for each of its shards that has changed, one after
//!   the other, marks them in its journal, and lets go of the segments that they cover.
//! - A *save*: all cores begin the snapshots of all shards at one moment, under all locks; the pieces go to core 0, which
//!   makes one file of them.
//!
//! Invariants:
//!
//! - **One at a time.** A save or a rewrite is under way, never both, and one of either: whoever begins one enters it in
//!   the [`SaveStatus`](super::save_status::SaveStatus) first, under its lock.
//! - **A file counts only when it is published**, whole and durable.
//! - **No snapshot is ahead of its journal**: it is published when every entry in it is durable there, so that a start
//!   that finds less of the journal never finds more in a snapshot.
//! - **A journal is trimmed last**: the marks of its core's snapshots are durable, and so is, on every core, the end of each
//!   transaction that the trimmed part says something of.
//! - **Bounded.** Two pieces a core are on their way to the disk at most. Values that changes have forced out, and what was
//!   flushed, wait besides, up to a bound past which writes wait on all cores: with their connections where they come from,
//!   and one by one where they arrive, or are committed, because the bound may be passed within a turn.
//! - A failure changes nothing: what was saved before is still there, and the journal keeps everything.

mod coordinator;
mod dump;
mod encoder;
mod output;
mod rewrite;
mod shared;

use std::{collections::VecDeque, path::PathBuf};

use duva_engine::{
    KeyHash, Reply, Shard,
    command::{Command, Flags},
    rdb::RdbOptions,
};
use duva_net::io::{File, Io, Token};

use super::{
    batch::{Answer, Message},
    connection::{Connection, State},
    locks::TransactionId,
    log::Refusal,
    node::{Node, Origin, Submitted, handler_of},
    persistence_report::PersistenceReport,
    replies::Sequence,
    request::{OwnedRequest, Request},
    route::Flow,
};
use coordinator::Coordinator;
use dump::DumpPart;
pub use encoder::Piece;
use rewrite::Rewrite;
pub use shared::SavingState;

/// File numbers that are the saver's, of a shard's snapshot and of the dump, and those of snapshots that come from leaders.
pub(super) const FILE_COUNT_OF_SAVER: u32 = 2;
pub(super) const FILE_COUNT: u32 = FILE_COUNT_OF_SAVER + super::groups::INCOMING_MAX;
const SNAPSHOT_FILE: File = File(0);
const DUMP_FILE: File = File(1);

/// Pieces of one core on their way to the disk.
const PIECES_MAX: usize = 2;

/// After so long no further step of saving is begun in a turn, in nanoseconds.
const TURN_BUDGET_NS_MAX: u64 = 250_000;

/// Memory of values that wait because changes have forced them out, a core: above the first bound writes wait, until it
/// is below the second.
const EARLY_BYTES_MAX: usize = 8 << 20;
const EARLY_BYTES_LOW: usize = 4 << 20;

/// Held requests of other cores that go on in one turn.
const RESUMED_MAX: usize = 1024;

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaveKind {
    /// SAVE: the reply comes when it is done.
    Foreground,
    /// BGSAVE.
    Background {
        /// Whether one may begin later, when none can now.
        schedule: bool,
    },
    /// BGREWRITEAOF.
    Rewrite,
}

/// A client that waits, on its core.
#[derive(Clone, Copy, Debug)]
pub struct Waiter {
    core: usize,
    token: Token,
    sequence: Sequence,
}

/// That the server is to stop once everything is saved.
#[derive(Clone, Copy, Debug)]
pub struct Stop {
    /// Who asked; a signal did.
    waiter: Option<Waiter>,
    /// Whether it stops even if saving fails.
    is_forced: bool,
}

/// How a core's part ended.
pub struct PartEnd {
    is_ok: bool,
    /// The most memory that it took.
    bytes_peak: u64,
    /// Of a rewrite: up to which index snapshots hold this core's shards.
    snapshots: Vec<(u16, u64)>,
}

/// What begins at one moment, when nothing is half done, under all locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// On all cores: the snapshots of all shards.
    Dump {
        /// Whether the locks are kept: the server is to stop with what is saved.
        keeps_locks: bool,
    },
    /// On this core: the snapshot of the next shard.
    Shard,
}

impl Cut {
    /// Whether the locks are kept.
    pub fn keeps_locks(self) -> bool {
        matches!(self, Self::Dump { keeps_locks: true })
    }
}

/// What cores say to one another about saving.
pub enum SaveMessage {
    /// To core 0: the save that the status says is under way is to begin.
    BeginSave,
    /// To core 0: so is the rewrite.
    BeginRewrite,
    /// To core 0: a client waits for the end of the save that is under way, or scheduled.
    Wait(Waiter),
    /// To core 0: the server is to stop.
    Stop(Stop),
    /// To core 0: a client wants it not to stop, and to know whether it would have.
    AbortStop(Waiter),
    /// To core 0: a piece of the dump.
    Piece(Piece),
    /// To core 0: the sender has done what a rewrite's last order said, or could not.
    StepDone(bool),
    /// To core 0: the sender's part is over.
    PartEnded(Box<PartEnd>),
    /// From core 0: save this core's shards for a rewrite.
    Rewrite,
    /// From core 0: the journal is to be durable up to its end.
    Settle,
    /// From core 0: the journal may go as far as snapshots cover it, unless something failed.
    Trim(bool),
    /// From core 0: a piece is written; the buffer comes back.
    PieceTaken(Vec<u8>),
    /// From core 0: nothing will come of it.
    Abandon,
    /// From core 0: the save is over everywhere.
    Ended,
    /// From core 0: the rewrite is over everywhere, and the journal is as long as it is to be.
    Close {
        /// Whether it succeeded.
        is_rewritten: bool,
        /// Whether the segments of earlier starts are gone.
        is_earlier_gone: bool,
    },
    /// From core 0: the reply to a waiting client.
    Answer(Waiter, &'static str),
}

/// What is known of a shard's newest snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardSnapshot {
    /// Up to which index it holds the shard; 0: there is none.
    pub index: u64,
    /// Bytes of its file.
    pub bytes: u64,
}

/// What this core does for a save or a rewrite.
enum Part {
    Dump(DumpPart),
    Rewrite(Rewrite),
}

/// One core's part in saving.
#[derive(Default)]
pub struct Saver {
    part: Option<Part>,
    /// Whether the next turn has something to do without a completion.
    has_work: bool,
    /// Whether a save or rewrite is under way somewhere, for which writes may have to wait.
    is_gated: bool,
    /// Whether this core makes writes wait, as all know.
    is_pressed: bool,
    /// Requests of other cores that wait, in order: writes, and what must not pass one of them.
    held: VecDeque<(Origin, Box<OwnedRequest>)>,
    /// Names the node in snapshots.
    node: [u8; 16],
    /// The newest snapshots, by shard number.
    snapshots: Vec<ShardSnapshot>,
    /// Files of older ones, to be removed once the newer ones' marks are durable.
    obsolete: Vec<PathBuf>,
    /// Snapshots of shards that have left, shard and index, to be removed once the journal demands them no more.
    departed: Vec<(u16, u64)>,
    /// Bytes of journal and snapshots when the last rewrite ended, or at the start.
    base_bytes: u64,
    /// Changes that the start made.
    changes_first: u64,
    /// Keys to be saved, and saved, of what is under way.
    keys_total: u64,
    /// Memory that saving takes, and the most that it took.
    bytes: u64,
    bytes_peak: u64,
    spare: Vec<Vec<u8>>,
    /// On core 0.
    coordinator: Option<Box<Coordinator>>,
}

impl Saver {
    /// Whether this core saves, or core 0 collects.
    fn is_active(&self) -> bool {
        self.part.is_some() || self.coordinator.as_ref().is_some_and(|coordinator| !coordinator.is_idle())
    }

    /// Whether the next turn has something to do without a completion.
    pub fn has_work(&self) -> bool {
        self.has_work
    }

    /// Whether writes wait for that.
    pub fn has_work_for_writers(&self) -> bool {
        self.has_work && (self.is_pressed || !self.held.is_empty())
    }

    /// Before the core serves: the node's id, and the newest snapshots of the core's shards, by shard number.
    pub fn set_snapshots(&mut self, node: [u8; 16], snapshots: Vec<ShardSnapshot>) {
        self.node = node;
        self.base_bytes = snapshots.iter().map(|snapshot| snapshot.bytes).sum();
        self.snapshots = snapshots;
    }

    /// The newest snapshot of a shard.
    pub(super) fn newest(&self, shard: u16) -> ShardSnapshot {
        self.snapshots[usize::from(shard)]
    }

    /// Whether a save or a rewrite is under way on this core.
    pub(super) fn is_walking(&self) -> bool {
        self.part.is_some()
    }

    /// Whether a shard must stay what it is: its snapshot is being written, or all are.
    pub(super) fn is_walking_shard(&self, shard: u16) -> bool {
        match &self.part {
            Some(Part::Dump(_)) => true,
            Some(Part::Rewrite(rewrite)) => rewrite.is_walking(shard),
            None => false,
        }
    }

    /// A snapshot from elsewhere is a shard's newest. A rewrite that has not come to the shard passes it over: all that lies before
    /// the snapshot's mark is covered. What comes in one piece is no growth: were it counted as such, a node
    /// that gets many shards would write them all again for nothing, and get no others meanwhile.
    pub(super) fn take_over(&mut self, shard: u16, index: u64, bytes: u64, directory: &std::path::Path) {
        debug_assert!(!self.is_walking_shard(shard), "it is not to be replaced now");
        if let Some(Part::Rewrite(rewrite)) = &mut self.part {
            rewrite.pass_over(shard);
        }
        let newest = &mut self.snapshots[usize::from(shard)];
        self.base_bytes = (self.base_bytes + bytes).saturating_sub(newest.bytes);
        if newest.index > 0 && newest.index != index {
            self.obsolete.push(directory.join(duva_persist::names::snapshot(shard, newest.index)));
        }
        *newest = ShardSnapshot { index, bytes };
    }

    /// The newest snapshot of a shard that has left is no snapshot of it any more.
    pub(super) fn let_go(&mut self, shard: u16) {
        let newest = std::mem::take(&mut self.snapshots[usize::from(shard)]);
        self.base_bytes = self.base_bytes.saturating_sub(newest.bytes);
        self.departed.push((shard, newest.index));
    }

    /// Snapshots that were let go, which the journal does not demand: those that may be removed. If a replica has come meanwhile,
    /// it may be about to get the same one.
    fn take_departed(&mut self, is_idle: impl Fn(u16) -> bool) -> Vec<(u16, u64)> {
        let Self { departed, snapshots, .. } = self;
        let newest = |shard: u16| snapshots[usize::from(shard)].index;
        departed.retain(|&(shard, index)| newest(shard) != index);
        departed.extract_if(.., |&mut (shard, index)| is_idle(shard) || newest(shard) > index).collect()
    }

    /// Bytes of the snapshots that belong to the journal.
    fn snapshot_bytes(&self) -> u64 {
        self.snapshots.iter().map(|snapshot| snapshot.bytes).sum()
    }

    fn keep_spare(&mut self, buffer: Vec<u8>) {
        if self.spare.len() < PIECES_MAX {
            self.spare.push(buffer);
        }
    }
}

/// Begins what `how` says, or says why not.
pub fn begin_save(
    node: &mut Node,
    connection: &mut Connection,
    _request: &mut Request<'_>,
    how: SaveKind,
) -> Flow {
    if !connection.replies.is_empty() {
        return Flow::Hold;
    }
    match how {
        SaveKind::Foreground => begin_foreground(node, connection),
        SaveKind::Background { schedule } => {
            let reply = begin_background(node, schedule);
            answer(connection, reply)
        }
        SaveKind::Rewrite => {
            let reply = begin_rewrite(node);
            answer(connection, reply)
        }
    }
}

fn answer(connection: &mut Connection, line: Result<&str, &str>) -> Flow {
    let protocol = connection.protocol;
    connection.reply_with(|output| {
        let mut reply = Reply::new(output, protocol);
        match line {
            Ok(line) => reply.simple(line),
            Err(error) => reply.error(error),
        }
    });
    Flow::Next
}

/// Redis's words.
const MISCONF: &str = "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk. \
    Commands that may modify the data set are disabled, because this instance is configured to report errors during \
    writes if RDB snapshotting fails (stop-writes-on-bgsave-error option). Please check the Redis logs for details \
    about the RDB error.";

const SAVING_ALREADY: &str = "ERR Background save already in progress";

fn begin_foreground(node: &mut Node, connection: &mut Connection) -> Flow {
    let now_ms = node.executor.now_ms;
    {
        let mut status = node.shared.save_status();
        if status.save.is_under_way() {
            drop(status);
            return answer(connection, Err(SAVING_ALREADY));
        }
        if status.rewrite.is_under_way() {
            status.save.schedule();
        } else {
            let changes = node.shared.saving.changes();
            status.save_started(changes, now_ms);
            drop(status);
            node.tell(0, SaveMessage::BeginSave);
        }
    }
    let waiter = wait(node, connection);
    node.tell(0, SaveMessage::Wait(waiter));
    Flow::Stop
}

fn begin_background(node: &mut Node, schedule: bool) -> Result<&'static str, &'static str> {
    let now_ms = node.executor.now_ms;
    let mut status = node.shared.save_status();
    if status.save.is_under_way() {
        return Err(SAVING_ALREADY);
    }
    if status.rewrite.is_under_way() {
        if !schedule {
            return Err("ERR Another child process is active (AOF?): can't BGSAVE right now. \
                        Use BGSAVE SCHEDULE in order to schedule a BGSAVE whenever possible.");
        }
        status.save.schedule();
        return Ok("Background saving scheduled");
    }
    status.save_started(node.shared.saving.changes(), now_ms);
    drop(status);
    node.tell(0, SaveMessage::BeginSave);
    Ok("Background saving started")
}

fn begin_rewrite(node: &mut Node) -> Result<&'static str, &'static str> {
    if node.log.is_none() {
        return Err("ERR There is no journal to rewrite: appendonly is off");
    }
    let now_ms = node.executor.now_ms;
    let mut status = node.shared.save_status();
    if status.rewrite.is_under_way() {
        return Err("ERR Background append only file rewriting already in progress");
    }
    if status.save.is_under_way() {
        status.rewrite.schedule();
        return Ok("Background append only file rewriting scheduled");
    }
    status.rewrite_started(now_ms);
    drop(status);
    node.tell(0, SaveMessage::BeginRewrite);
    Ok("Background append only file rewriting started")
}

/// Begins a rewrite if none is under way: a follower needs snapshots.
pub(super) fn ask_for_rewrite(node: &mut Node) {
    // One that is under way, or cannot begin, is asked for again.
    let _ = begin_rewrite(node);
}

/// SHUTDOWN that saves first: the reply comes only if that fails, and it is not forced.
pub fn begin_stop(node: &mut Node, connection: &mut Connection, is_forced: bool) -> Flow {
    if !connection.replies.is_empty() {
        return Flow::Hold;
    }
    let waiter = Some(wait(node, connection));
    node.tell(0, SaveMessage::Stop(Stop { waiter, is_forced }));
    Flow::Stop
}

/// SHUTDOWN ABORT.
pub fn abort_stop(node: &mut Node, connection: &mut Connection) -> Flow {
    if !connection.replies.is_empty() {
        return Flow::Hold;
    }
    let waiter = wait(node, connection);
    node.tell(0, SaveMessage::AbortStop(waiter));
    Flow::Stop
}

fn wait(node: &Node, connection: &mut Connection) -> Waiter {
    let sequence = connection.wait_for_reply();
    connection.state.insert(State::FENCED);
    Waiter { core: node.core, token: connection.token, sequence }
}

impl Node {
    /// Before the core serves: what the start changed is no change.
    pub fn begin_saver(&mut self) {
        self.saver.changes_first = self.changes_total();
        self.saver.snapshots.resize(self.owners.len(), ShardSnapshot::default());
        if self.core == 0 {
            self.saver.coordinator = Some(Box::new(Coordinator::new(self.owners.len())));
        }
        self.publish_sizes();
    }

    /// Sends `message` to core `core`.
    fn tell(&mut self, core: usize, message: SaveMessage) {
        self.mesh.outgoing(core).messages.push(Message::Save(message));
    }

    fn tell_all(&mut self, message: impl Fn() -> SaveMessage) {
        for core in 0..self.cores {
            self.tell(core, message());
        }
    }

    /// Nothing is under way any more for which this core's writes would have to wait.
    fn end_waiting(&mut self) {
        self.publish_sizes();
        self.saver.is_gated = false;
        self.set_gate();
    }

    /// Takes what core `from` says.
    pub(super) fn take_save_message(&mut self, from: usize, message: SaveMessage) {
        match message {
            SaveMessage::Rewrite => self.begin_rewrite(),
            SaveMessage::Settle => self.begin_settling(),
            SaveMessage::Trim(may_trim) => self.begin_trimming(may_trim),
            SaveMessage::PieceTaken(buffer) => {
                if let Some(Part::Dump(part)) = &mut self.saver.part {
                    part.piece_taken();
                }
                self.saver.keep_spare(buffer);
            }
            SaveMessage::Abandon => self.abandon_part(),
            SaveMessage::Ended => self.end_waiting(),
            SaveMessage::Close { is_rewritten, is_earlier_gone } => {
                if let Some(log) = &mut self.log {
                    if is_earlier_gone {
                        log.forget_earlier();
                    }
                    if is_rewritten {
                        self.saver.base_bytes = log.journal_bytes() + self.saver.snapshot_bytes();
                    }
                }
                self.end_waiting();
                self.tell(0, SaveMessage::StepDone(true));
            }
            SaveMessage::Answer(waiter, reply) => {
                self.deliver(waiter.token, waiter.sequence, reply.as_bytes(), true);
            }
            to_coordinator => self.coordinate(from, to_coordinator),
        }
    }

    /// All locks are held here, and on all cores if it is a dump's cut.
    pub(super) fn begin_cut_part(&mut self) {
        match self.saver.part {
            None => self.begin_dump_part(),
            Some(_) => self.rewrite_is_cut(),
        }
    }

    /// Every core that takes part in the cut has begun. `transaction`: whose the locks are, if they are kept.
    pub(super) fn cut_is_done(&mut self, cut: Cut, transaction: TransactionId) {
        if let Cut::Dump { keeps_locks } = cut {
            self.dump_is_cut(keeps_locks.then_some(transaction));
        }
    }

    /// Whether requests are looked at before they are routed: writes may have to wait, or are refused.
    pub(super) fn has_saving_gate(&self) -> bool {
        self.saver.is_gated || self.has_failed_save()
    }

    /// From now on, until the save or rewrite has ended everywhere, writes may have to wait.
    fn close_gate(&mut self) {
        self.saver.is_gated = true;
        self.set_gate();
    }

    /// Whether writes are refused because the last save failed.
    fn has_failed_save(&self) -> bool {
        let config = &self.config;
        config.stop_writes_on_save_error && !config.save_points.is_empty() && self.shared.saving.has_failed()
    }

    /// Whether a request has to wait for saving, and why it is refused if it is.
    pub(super) fn saving_gate(
        &self,
        command: &Command,
        keys: &[KeyHash],
    ) -> Option<Result<(), &'static str>> {
        let is_write = command.flags.contains(Flags::WRITE);
        if self.has_failed_save() && (is_write || command.name == "ping") {
            return Some(Err(MISCONF));
        }
        (is_write && (self.are_writes_held() || self.is_early_full(keys))).then_some(Ok(()))
    }

    /// Whether all writes have to wait for saving.
    pub(super) fn are_writes_held(&self) -> bool {
        self.saver.is_gated && self.shared.saving.is_pressed()
    }

    /// Whether a write of `keys` might force out what there is no room for. That may be so within a turn, before
    /// [`Self::note_pressure`] has told the other cores.
    fn is_early_full(&self, keys: &[KeyHash]) -> bool {
        if !self.saver.is_gated {
            return false;
        }
        if self.saver.is_pressed {
            return true;
        }
        // The sum is looked at only when a shard of the write has its share of it: that is not so for most writes.
        let shards = &self.executor.shards;
        let has_share = |key: &KeyHash| {
            let early_bytes = shards.get(key.slot).map_or(0, Shard::saved_early_bytes);
            early_bytes >= EARLY_BYTES_MAX / self.owners.len()
        };
        (keys.is_empty() || keys.iter().any(has_share)) && self.early_bytes() > EARLY_BYTES_MAX
    }

    /// Whether a committed write of `keys` has to wait, and everything committed behind it: it was let in before anybody knew
    /// how much there would be.
    pub(super) fn must_not_apply(&self, keys: &[KeyHash]) -> bool {
        let is_over = || self.log.as_ref().is_some_and(|log| log.refusal().is_some_and(Refusal::is_final));
        self.is_early_full(keys) && !is_over()
    }

    /// Memory of what changes have forced out of this core's shards, and of what was flushed.
    fn early_bytes(&self) -> usize {
        self.executor.shards.iter().map(Shard::saved_early_bytes).sum()
    }

    /// Keeps a request of another core that has to wait for saving, or behind one that does, and says so.
    pub(super) fn hold_for_saving(
        &mut self,
        origin: Origin,
        request: &mut Request<'_>,
        is_ordered: bool,
    ) -> bool {
        let is_write = request.command.flags.contains(Flags::WRITE);
        let is_held = if self.saver.held.is_empty() {
            is_write && self.is_early_full(request.keys)
        } else {
            is_write || is_ordered
        };
        if is_held {
            self.saver.held.push_back((origin, Box::new(request.to_owned())));
        }
        is_held
    }

    /// Lets requests of other cores go on that need not wait any longer.
    fn resume_held(&mut self) {
        for _ in 0..RESUMED_MAX {
            let Some((_, request)) = self.saver.held.front() else { return };
            if self.is_early_full(&request.keys) {
                return;
            }
            let Some((origin, mut request)) = self.saver.held.pop_front() else { return };
            let handler = handler_of(&request);
            let mut output = std::mem::take(&mut self.scratch);
            output.clear();
            if self.submit(origin, handler, &mut request.view(), &mut output, true) == Submitted::Done {
                self.respond(origin, Answer::Reply, &output);
            }
            self.scratch = output;
        }
        self.saver.has_work = true;
    }

    /// Goes on with saving for one budget, and for more while that has taken less than half as long as what came before it in the
    /// turn that began at `turn_ns`: a save must not take for ever because turns are long.
    pub(super) fn run_saver(&mut self, io: &mut impl Io, turn_ns: u64) {
        self.take_stop_request();
        self.saver.has_work = false;
        if self.saver.is_active() {
            let begin_ns = io.clock().monotonic_ns;
            let budget_ns = (begin_ns.saturating_sub(turn_ns) / 2).min(TURN_BUDGET_NS_MAX);
            loop {
                match &self.saver.part {
                    Some(Part::Dump(_)) => self.run_dump_part(),
                    Some(Part::Rewrite(_)) => self.run_rewrite(io),
                    None => {}
                }
                let spent_ns = io.clock().monotonic_ns.saturating_sub(begin_ns);
                if !self.saver.has_work || spent_ns >= budget_ns {
                    break;
                }
                self.saver.has_work = false;
            }
            self.note_pressure();
            self.run_coordinator(io);
        }
        if !self.saver.held.is_empty() {
            self.resume_held();
            self.note_pressure();
        }
    }

    /// A file task of the saver was done, or failed.
    pub(super) fn saver_task_done(&mut self, number: u32, buffer: Vec<u8>, result: Result<(), i32>) {
        if number == DUMP_FILE.0 {
            self.dump_task_done(buffer, result);
        } else if let Some(Part::Rewrite(rewrite)) = &mut self.saver.part
            && let Some((_, buffer)) = rewrite.task_done(buffer, result)
        {
            self.saver.keep_spare(buffer);
        }
    }

    /// The server stops: nothing unfinished is left lying about.
    pub(super) fn stop_saver(&mut self, io: &mut impl Io) {
        if let Some(Part::Rewrite(rewrite)) = &mut self.saver.part {
            rewrite.discard(io);
        }
        self.discard_dump(io);
    }

    fn abandon_part(&mut self) {
        match &mut self.saver.part {
            Some(Part::Dump(part)) => part.abandon(&mut self.executor.shards),
            Some(Part::Rewrite(rewrite)) => rewrite.abandon(),
            None => return,
        }
        self.saver.has_work = true;
    }

    /// This core's part is over.
    fn end_part(&mut self, is_ok: bool, snapshots: Vec<(u16, u64)>) {
        self.saver.part = None;
        let bytes_peak = std::mem::take(&mut self.saver.bytes_peak);
        self.saver.bytes = 0;
        self.saver.keys_total = 0;
        self.saver.spare.clear();
        // Memory that only the snapshots kept.
        self.executor.has_garbage = true;
        self.note_pressure();
        self.set_gate();
        self.tell(0, SaveMessage::PartEnded(Box::new(PartEnd { is_ok, bytes_peak, snapshots })));
    }

    /// Learns how much memory saving takes, and makes writes wait, or go on.
    fn note_pressure(&mut self) {
        let early_bytes = self.early_bytes();
        let saver = &mut self.saver;
        let piece_bytes = match &mut saver.part {
            None => 0,
            Some(Part::Dump(part)) => part.piece_bytes(),
            Some(Part::Rewrite(rewrite)) => rewrite.piece_bytes(),
        };
        saver.bytes = (early_bytes + piece_bytes) as u64;
        saver.bytes_peak = saver.bytes_peak.max(saver.bytes);
        let bound = if saver.is_pressed { EARLY_BYTES_LOW } else { EARLY_BYTES_MAX };
        let is_pressed = early_bytes > bound;
        if is_pressed != saver.is_pressed {
            saver.is_pressed = is_pressed;
            self.shared.saving.press(is_pressed);
        }
    }

    /// Changes of this core's shards since they were made.
    fn changes_total(&self) -> u64 {
        self.executor.shards.iter().map(|shard| shard.changes_total()).fold(0, u64::wrapping_add)
    }

    /// Puts a shard in the place of another, which is not being saved. That is no change of data.
    pub(super) fn replace_shard(&mut self, number: usize, shard: Box<Shard>) {
        let before = self.changes_total();
        self.executor.replace(number, shard);
        let more = self.changes_total().wrapping_sub(before);
        self.saver.changes_first = self.saver.changes_first.wrapping_add(more);
    }

    /// Lets the other cores know how much there is to save.
    pub(super) fn publish_sizes(&mut self) {
        let changes = self.changes_total().wrapping_sub(self.saver.changes_first);
        let snapshot_bytes = self.saver.snapshot_bytes();
        let journal_bytes = self.log.as_ref().map_or(0, |log| log.journal_bytes() + snapshot_bytes);
        self.shared.saving.publish(self.core, changes, journal_bytes, self.saver.base_bytes);
    }

    /// What INFO shows of this core's journal and saving.
    pub(super) fn persistence_report(&self) -> PersistenceReport {
        let mut report = self.log.as_ref().map(|log| log.report()).unwrap_or_default();
        let saver = &self.saver;
        report.changes = self.changes_total().wrapping_sub(saver.changes_first);
        report.journal_base_bytes = saver.base_bytes;
        report.snapshot_file_bytes = saver.snapshot_bytes();
        report.snapshot_keys_total = saver.keys_total;
        report.snapshot_keys_done = match &saver.part {
            Some(Part::Dump(part)) => part.encoder.entries,
            Some(Part::Rewrite(rewrite)) => rewrite.entries(),
            None => 0,
        };
        report.snapshot_bytes = saver.bytes;
        report.snapshot_bytes_peak = saver.bytes_peak;
        report
    }

    fn rdb_options(&self) -> RdbOptions {
        RdbOptions { compress: self.config.snapshot_is_compressed }
    }

    /// The folder of the journal and its snapshots.
    pub(super) fn journal_directory(&self) -> PathBuf {
        self.config.directory.join(&self.config.append_directory_name)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn shards_that_come_and_go_are_no_growth() {
        let mut saver = Saver::default();
        saver.set_snapshots([0; 16], vec![ShardSnapshot { index: 1, bytes: 100 }, ShardSnapshot::default()]);
        let journal_bytes = 30;
        let growth = |saver: &Saver| journal_bytes + saver.snapshot_bytes() - saver.base_bytes;
        assert_eq!(growth(&saver), 30);
        saver.take_over(1, 5, 1000, Path::new("directory"));
        assert_eq!(growth(&saver), 30, "another shard");
        saver.take_over(0, 9, 70, Path::new("directory"));
        assert_eq!(growth(&saver), 30, "a newer snapshot of a shard");
        saver.let_go(0);
        assert_eq!(growth(&saver), 30);
        assert_eq!(saver.base_bytes, 1000);
    }
}
