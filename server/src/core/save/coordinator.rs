//! Core 0: what is to be saved when, and the file that the pieces of all cores make.

use std::{collections::VecDeque, path::PathBuf};

use duva_engine::rdb;
use duva_net::io::{FileTask, Io};

use super::{Cut, DUMP_FILE, PIECES_MAX, PartEnd, SaveMessage, Stop, Waiter, encoder::Piece, output::Output};
use crate::{
    commands::REDIS_VERSION,
    core::{
        batch::Message,
        leave::StopStage,
        locks::TransactionId,
        node::Node,
        save_status::{Outcome, SaveStatus},
        tickets::Ticket,
    },
};

/// Whether anything is to be saved, and who waits for it.
pub(super) struct Coordinator {
    run: Run,
    /// Clients that wait for the end of a save.
    waiters: Vec<Waiter>,
    /// The server is to stop after a save of its own.
    stop: Option<Stop>,
    /// Clients that wait for that as well.
    stop_waiters: Vec<Waiter>,
    /// Up to which index snapshots hold each shard, durably marked.
    covered: Vec<u64>,
}

/// What is under way.
enum Run {
    Idle,
    Save(Box<Dump>),
    Rewrite(Rewriting),
}

/// What has come of the cores' parts.
struct Parts {
    /// Those that are not over.
    waiting: usize,
    is_ok: bool,
    bytes_peak: u64,
}

struct Rewriting {
    step: Step,
    /// Cores that have not done it.
    waiting: usize,
    /// Whether all have done all steps so far.
    is_ok: bool,
    parts: Parts,
    is_abandoned: bool,
}

/// The steps of a rewrite, which all cores take together.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Every core saves its shards.
    Save,
    /// Every core makes its journal durable: transactions end on all cores before any of them forgets one.
    Settle,
    /// Every core lets go of what its snapshots cover.
    Trim,
    /// Every core publishes how long its journal is now: by the sizes of before, the next rewrite would be due at once.
    Close,
}

/// A save that is under way.
struct Dump {
    /// `None` until the first turn.
    output: Option<Output>,
    pieces: Pieces,
    parts: Parts,
    /// Whether all cores have begun their snapshots.
    is_cut: bool,
    is_abandoned: bool,
    /// Whether that is because the server is to stop.
    is_given_up: bool,
    /// Whether the cores know that it is abandoned.
    is_abandon_told: bool,
    is_publishing: bool,
    /// Whether the server stops when it is done, unless it is asked not to.
    is_for_stop: bool,
    is_stop_aborted: bool,
    /// The locks that are kept until then.
    held: Option<TransactionId>,
}

impl Parts {
    fn of(cores: usize) -> Self {
        Self { waiting: cores, is_ok: true, bytes_peak: 0 }
    }

    fn end(&mut self, end: &PartEnd) {
        self.waiting -= 1;
        self.is_ok &= end.is_ok;
        self.bytes_peak += end.bytes_peak;
    }
}

/// Pieces that are to be written, and which core made them.
#[derive(Default)]
struct Pieces {
    queue: VecDeque<(usize, Piece)>,
    /// The core whose piece ended within an entry: its next one comes next.
    within: Option<usize>,
}

impl Pieces {
    /// The next one of the file, if it is here.
    fn next(&mut self) -> Option<(usize, Vec<u8>)> {
        let index = match self.within {
            Some(within) => self.queue.iter().position(|&(core, _)| core == within)?,
            None => 0,
        };
        let (core, Piece { bytes, goes_on }) = self.queue.remove(index)?;
        self.within = goes_on.then_some(core);
        Some((core, bytes))
    }
}

impl Coordinator {
    pub(super) fn new(shards: usize) -> Self {
        Self {
            run: Run::Idle,
            waiters: Vec::new(),
            stop: None,
            stop_waiters: Vec::new(),
            covered: vec![0; shards],
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        matches!(self.run, Run::Idle)
    }

    fn dump(&mut self) -> Option<&mut Dump> {
        match &mut self.run {
            Run::Save(dump) => Some(dump),
            _ => None,
        }
    }
}

/// What cores tell core 0.
impl Node {
    pub(super) fn coordinate(&mut self, from: usize, message: SaveMessage) {
        match message {
            SaveMessage::BeginSave => self.begin_dump(),
            SaveMessage::BeginRewrite => self.begin_rewriting(),
            SaveMessage::Wait(waiter) => self.coordinator().waiters.push(waiter),
            SaveMessage::Stop(stop) => self.ask_stop(stop),
            SaveMessage::AbortStop(waiter) => self.abort_stop(waiter),
            SaveMessage::Piece(piece) => {
                if let Some(dump) = self.coordinator().dump() {
                    dump.pieces.queue.push_back((from, piece));
                }
                self.saver.has_work = true;
            }
            SaveMessage::StepDone(is_ok) => {
                if let Run::Rewrite(rewriting) = &mut self.coordinator().run {
                    rewriting.waiting -= 1;
                    // What one core could not save keeps no other from trimming; what it could not settle does.
                    rewriting.is_ok &= is_ok || rewriting.step == Step::Save;
                }
                self.saver.has_work = true;
            }
            SaveMessage::PartEnded(end) => {
                let coordinator = self.coordinator();
                match &mut coordinator.run {
                    Run::Save(dump) => dump.parts.end(&end),
                    Run::Rewrite(rewriting) => rewriting.parts.end(&end),
                    Run::Idle => panic!("a part of nothing ended"),
                }
                for (shard, index) in end.snapshots {
                    coordinator.covered[usize::from(shard)] = index;
                }
                self.saver.has_work = true;
            }
            _ => panic!("core 0 says this, nobody tells it"),
        }
    }

    fn coordinator(&mut self) -> &mut Coordinator {
        self.saver.coordinator.as_deref_mut().expect("core 0 coordinates")
    }

    /// All cores have begun their snapshots. `held`: their locks, if they are kept.
    pub(super) fn dump_is_cut(&mut self, held: Option<TransactionId>) {
        let changes = self.shared.saving.changes();
        self.shared.save_status().save_cut(changes);
        let dump = self.coordinator().dump().expect("a cut is a save's");
        dump.is_cut = true;
        dump.held = held;
        self.saver.has_work = true;
    }

    /// A signal, or a client, wants the server to save and to stop.
    pub(super) fn take_stop_request(&mut self) {
        if self.core == 0 && self.shared.saving.take_stop() {
            let is_leaving = self.shared.stop_stage() != StopStage::Serving;
            if is_leaving || self.config.save_points.is_empty() {
                self.shared.stop();
            } else {
                self.ask_stop(Stop { waiter: None, is_forced: false });
            }
        }
    }

    fn ask_stop(&mut self, stop: Stop) {
        let coordinator = self.coordinator();
        coordinator.stop_waiters.extend(stop.waiter);
        if let Some(before) = &mut coordinator.stop {
            before.is_forced |= stop.is_forced;
            return;
        }
        coordinator.stop = Some(stop);
        // What it would save is not all that there is to save by now.
        match &mut coordinator.run {
            Run::Idle => self.begin_next(),
            // What is about to be published takes no time any more.
            Run::Save(dump) if dump.is_publishing => {}
            Run::Save(dump) => (dump.is_abandoned, dump.is_given_up) = (true, true),
            Run::Rewrite(rewriting) => {
                if !std::mem::replace(&mut rewriting.is_abandoned, true) {
                    self.tell_all(|| SaveMessage::Abandon);
                }
            }
        }
        self.saver.has_work = true;
    }

    /// A client wants the server not to stop after all.
    fn abort_stop(&mut self, waiter: Waiter) {
        let coordinator = self.coordinator();
        let is_stopping = coordinator.stop.take().is_some();
        if is_stopping && let Some(dump) = coordinator.dump().filter(|dump| dump.is_for_stop) {
            dump.is_stop_aborted = true;
            dump.is_abandoned |= !dump.is_publishing;
            self.saver.has_work = true;
        }
        let reply = if is_stopping { "+OK\r\n" } else { "-ERR No shutdown in progress.\r\n" };
        self.refuse_stop();
        self.tell(waiter.core, SaveMessage::Answer(waiter, reply));
    }

    /// Tells those who asked for a stop that there will be none.
    fn refuse_stop(&mut self) {
        for waiter in std::mem::take(&mut self.coordinator().stop_waiters) {
            let reply = "-ERR Errors trying to SHUTDOWN. Check logs.\r\n";
            self.tell(waiter.core, SaveMessage::Answer(waiter, reply));
        }
    }

    /// About once a second: begins what is due.
    pub(in crate::core) fn save_cron(&mut self) {
        self.publish_sizes();
        if self.core == 0 && self.coordinator().is_idle() {
            self.begin_next();
        }
    }

    /// Begins what is wanted, or due, if nothing is under way.
    fn begin_next(&mut self) {
        let now_ms = self.executor.now_ms;
        let is_stopping = self.coordinator().stop.is_some();
        let (changes, config) = (self.shared.saving.changes(), &self.config);
        let (journal_bytes, base_bytes) =
            (self.shared.saving.journal_bytes(), self.shared.saving.base_bytes());
        let mut status = self.shared.save_status();
        if status.save.is_under_way() || status.rewrite.is_under_way() {
            // Another core has begun it: its message is on the way.
            return;
        }
        let is_rewrite_due = |status: &SaveStatus| {
            self.log.as_ref().is_some_and(|log| log.refusal().is_none() || status.rewrite.is_scheduled())
                && status.is_rewrite_due(config, journal_bytes, base_bytes, now_ms)
        };
        if is_stopping || status.is_save_due(&config.save_points, changes, now_ms) {
            status.save_started(changes, now_ms);
            drop(status);
            self.begin_dump();
        } else if is_rewrite_due(&status) {
            status.rewrite_started(now_ms);
            drop(status);
            self.begin_rewriting();
        }
    }
}

/// Rewrites.
impl Node {
    fn begin_rewriting(&mut self) {
        let (parts, waiting) = (Parts::of(self.cores), self.cores);
        let coordinator = self.coordinator();
        assert!(coordinator.is_idle(), "one save or rewrite at a time");
        let is_abandoned = coordinator.stop.is_some();
        coordinator.run =
            Run::Rewrite(Rewriting { step: Step::Save, waiting, is_ok: true, parts, is_abandoned });
        self.tell_all(|| SaveMessage::Rewrite);
        if is_abandoned {
            self.tell_all(|| SaveMessage::Abandon);
        }
        tracing::info!("rewriting the journal");
    }

    fn run_rewriting(&mut self, io: &mut impl Io) {
        let cores = self.cores;
        let Run::Rewrite(rewriting) = &mut self.coordinator().run else { return };
        match rewriting.step {
            Step::Save if rewriting.waiting == 0 => {
                (rewriting.step, rewriting.waiting) = (Step::Settle, cores);
                self.tell_all(|| SaveMessage::Settle);
            }
            Step::Settle if rewriting.waiting == 0 => {
                rewriting.step = Step::Trim;
                let is_ok = rewriting.is_ok;
                self.tell_all(|| SaveMessage::Trim(is_ok));
            }
            Step::Trim if rewriting.parts.waiting == 0 => {
                (rewriting.step, rewriting.waiting) = (Step::Close, cores);
                let is_rewritten = rewriting.parts.is_ok;
                let is_earlier_gone = self.remove_earlier_segments(io);
                self.tell_all(|| SaveMessage::Close { is_rewritten, is_earlier_gone });
            }
            Step::Close if rewriting.waiting == 0 => {
                let Parts { is_ok, bytes_peak, .. } = rewriting.parts;
                self.end_rewriting(is_ok, bytes_peak);
            }
            _ => {}
        }
    }

    /// Removes those segments of earlier starts that snapshots cover. Returns whether none is left.
    fn remove_earlier_segments(&mut self, io: &mut impl Io) -> bool {
        let coordinator = self.saver.coordinator.as_deref_mut().expect("core 0 coordinates");
        if let Some(earlier) = self.shared.earlier_segments() {
            let paths = earlier.covered(&|shard| coordinator.covered[usize::from(shard)]);
            if !paths.is_empty() {
                io.file_task(Ticket::Ignored.number(), FileTask::Remove { paths });
            }
            return earlier.bytes() == 0;
        }
        false
    }

    fn end_rewriting(&mut self, is_ok: bool, bytes_peak: u64) {
        self.shared.save_status().rewrite_finished(is_ok, bytes_peak, self.executor.now_ms);
        self.coordinator().run = Run::Idle;
        if is_ok {
            tracing::info!("the journal is rewritten");
        } else {
            tracing::warn!("the journal could not be rewritten: it stays as it is");
        }
        self.begin_next();
    }
}

/// Saves.
impl Node {
    fn begin_dump(&mut self) {
        let parts = Parts::of(self.cores);
        let coordinator = self.coordinator();
        assert!(coordinator.is_idle(), "one save or rewrite at a time");
        let is_for_stop = coordinator.stop.is_some();
        coordinator.run = Run::Save(Box::new(Dump {
            output: None,
            pieces: Pieces::default(),
            parts,
            is_cut: false,
            is_abandoned: false,
            is_given_up: false,
            is_abandon_told: false,
            is_publishing: false,
            is_for_stop,
            is_stop_aborted: false,
            held: None,
        }));
        self.begin_cut(Cut::Dump { keeps_locks: is_for_stop });
        self.saver.has_work = true;
        tracing::info!(path = %self.dump_path().display(), "saving a snapshot");
    }

    fn dump_path(&self) -> PathBuf {
        self.config.directory.join(&self.config.snapshot_file_name)
    }

    pub(super) fn run_coordinator(&mut self, io: &mut impl Io) {
        let Some(coordinator) = self.saver.coordinator.as_deref_mut() else { return };
        match &coordinator.run {
            Run::Idle => {}
            Run::Save(_) => self.run_dump(io),
            Run::Rewrite(_) => self.run_rewriting(io),
        }
    }

    fn run_dump(&mut self, io: &mut impl Io) {
        let path = self.dump_path();
        let now_ms = self.executor.now_ms;
        let Self { saver, config, mesh, cores, .. } = self;
        let Some(dump) = saver.coordinator.as_deref_mut().and_then(Coordinator::dump) else { return };
        let output = dump.output.get_or_insert_with(|| {
            let temporary = config.directory.join(format!("temp-{}.rdb", std::process::id()));
            let mut output = Output::create(io, DUMP_FILE, temporary, path, config.snapshot_has_checksum);
            output.append(io, header(now_ms), None);
            output
        });
        let mut give_back = |core: usize, buffer: Vec<u8>| {
            mesh.outgoing(core).messages.push(Message::Save(SaveMessage::PieceTaken(buffer)));
        };
        if !dump.is_abandoned && (output.failure().is_some() || !dump.parts.is_ok) {
            dump.is_abandoned = true;
        }
        if dump.is_abandoned {
            output.discard(io);
            dump.pieces.queue.drain(..).for_each(|(core, piece)| give_back(core, piece.bytes));
            if dump.is_cut && !dump.is_abandon_told {
                dump.is_abandon_told = true;
                self.tell_all(|| SaveMessage::Abandon);
            } else if dump.is_cut && dump.parts.waiting == 0 && output.is_discarded() {
                self.end_dump(false);
            }
            return;
        }
        while output.appends() < PIECES_MAX * *cores + 1
            && let Some((core, piece)) = dump.pieces.next()
        {
            output.append(io, piece, Some(core));
        }
        if dump.is_cut && dump.parts.waiting == 0 && dump.pieces.queue.is_empty() {
            if !std::mem::replace(&mut dump.is_publishing, true) {
                output.publish(io, Vec::new());
            } else if output.is_published() {
                self.end_dump(true);
            }
        }
    }

    pub(super) fn dump_task_done(&mut self, buffer: Vec<u8>, result: Result<(), i32>) {
        let Self { saver, mesh, .. } = self;
        let Some(dump) = saver.coordinator.as_deref_mut().and_then(Coordinator::dump) else { return };
        let Some(output) = &mut dump.output else { return };
        if let Some((core, buffer)) = output.completed(buffer, result) {
            mesh.outgoing(core).messages.push(Message::Save(SaveMessage::PieceTaken(buffer)));
        }
        saver.has_work = true;
    }

    pub(super) fn discard_dump(&mut self, io: &mut impl Io) {
        let dump = self.saver.coordinator.as_deref_mut().and_then(Coordinator::dump);
        if let Some(output) = dump.and_then(|dump| dump.output.as_mut()) {
            output.discard(io);
        }
    }

    /// The save is over, on all cores.
    fn end_dump(&mut self, is_ok: bool) {
        let coordinator = self.coordinator();
        let Run::Save(dump) = std::mem::replace(&mut coordinator.run, Run::Idle) else { return };
        let waiters = std::mem::take(&mut coordinator.waiters);
        // As in Redis, what clients wait for fails for them alone, and what is given up because the server is to stop has not
        // failed: only saves in the background can keep everybody from writing.
        let is_in_background = waiters.is_empty() && !dump.is_for_stop;
        let outcome = match is_ok {
            true => Outcome::Done,
            false if is_in_background && !dump.is_given_up => Outcome::Failed,
            false => Outcome::GivenUp,
        };
        self.shared.save_status().save_finished(outcome, dump.parts.bytes_peak, self.executor.now_ms);
        match outcome {
            Outcome::Done => self.shared.saving.set_failed(false),
            Outcome::Failed => self.shared.saving.set_failed(true),
            Outcome::GivenUp => {}
        }
        let path = self.dump_path();
        if is_ok {
            let bytes = dump.output.as_ref().map_or(0, Output::bytes);
            tracing::info!(path = %path.display(), bytes, "saved a snapshot");
        } else if let Some(failure) = dump.output.as_ref().and_then(Output::failure) {
            failure.log(&path);
        } else {
            tracing::warn!("a snapshot was given up");
        }
        self.tell_all(|| SaveMessage::Ended);
        let reply = if is_ok { "+OK\r\n" } else { "-ERR The snapshot could not be saved. Check logs.\r\n" };
        for waiter in waiters {
            self.tell(waiter.core, SaveMessage::Answer(waiter, reply));
        }
        if dump.is_for_stop {
            self.end_stop(is_ok, dump.is_stop_aborted, dump.held);
        }
        self.begin_next();
    }

    /// The save before the stop is over.
    fn end_stop(&mut self, is_ok: bool, is_aborted: bool, held: Option<TransactionId>) {
        if is_aborted {
            tracing::info!("not stopping: a client asked for that");
        } else {
            let stop = self.coordinator().stop.take().expect("it asked for the save");
            if is_ok || stop.is_forced {
                self.shared.stop();
                return;
            }
            tracing::error!("not stopping: the snapshot could not be saved");
            self.refuse_stop();
        }
        for core in 0..self.cores {
            let held = held.expect("a cut before a stop keeps its locks");
            self.mesh.outgoing(core).messages.push(Message::Release(held));
        }
    }
}

/// How the dump begins.
fn header(now_ms: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let created = (now_ms / 1000).to_string();
    rdb::write_header(
        &mut bytes,
        &[
            ("redis-ver", REDIS_VERSION.as_bytes()),
            ("redis-bits", b"64"),
            ("ctime", created.as_bytes()),
            ("aof-base", b"0"),
        ],
    );
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_one_entry_follow_one_another() {
        let mut pieces = Pieces::default();
        let mut expected = Vec::new();
        for (core, text, goes_on) in [
            (0, "a", false),
            (1, "b1", true),
            (0, "c", false),
            (2, "d1", true),
            (1, "b2", true),
            (2, "d2", false),
        ] {
            pieces.queue.push_back((core, Piece { bytes: text.into(), goes_on }));
        }
        let mut next = |pieces: &mut Pieces| {
            let next = pieces.next();
            expected.extend(
                next.iter().map(|(core, bytes)| (*core, String::from_utf8_lossy(bytes).into_owned())),
            );
            next.is_some()
        };
        while next(&mut pieces) {}
        pieces.queue.push_back((1, Piece { bytes: b"b3".to_vec(), goes_on: false }));
        while next(&mut pieces) {}
        let order = [(0, "a"), (1, "b1"), (1, "b2"), (1, "b3"), (0, "c"), (2, "d1"), (2, "d2")];
        assert_eq!(expected, order.map(|(core, text)| (core, text.to_owned())));
    }
}
