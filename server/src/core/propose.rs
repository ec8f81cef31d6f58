//! The write path with a journal: propose, journal, commit, apply, reply.
//!
//! See [`super::log`] for the invariants. Here is what the core does for a request before, and after, its records are
//! committed.

use duva_engine::{
    Step,
    command::{Flags, Handler},
};

use super::{
    batch::{Answer, Work},
    log::{Log, STREAM_BYTES_MIN, Stream, What, payload},
    node::{Node, Origin, Submitted, handler_of, view},
    request::Request,
};

impl Node {
    /// The clock by which reads see what is due.
    #[inline]
    pub fn visible_ms(&self) -> u64 {
        let now_ms = self.executor.now_ms;
        self.log.as_ref().map_or(now_ms, |log| log.visible_ms(now_ms))
    }

    /// What the log makes of a request; `None`: it is a read to be executed now.
    pub(super) fn log_first(
        &mut self,
        origin: Origin,
        handler: Handler,
        request: &mut Request<'_>,
        output: &mut Vec<u8>,
        is_ordered: bool,
    ) -> Option<Submitted> {
        let log = self.log.as_deref_mut()?;
        if is_ordered
            && let Origin::Core { core, token, .. } = origin
            && let Some(stream) = log.stream_before(core, token)
        {
            stream.followers.push((origin, Box::new(request.to_owned())));
            return Some(Submitted::Later);
        }
        if request.command.flags.contains(Flags::WRITE) {
            return Some(self.propose(origin, handler, request, output));
        }
        let now_ms = self.executor.now_ms;
        if !log.has_waiting() {
            self.executor.read_ms = now_ms;
            return None;
        }
        if is_ordered {
            log.wait(origin, request, What::Read(handler, now_ms), now_ms);
            return Some(Submitted::Waiting);
        }
        self.executor.read_ms = log.visible_ms(now_ms);
        None
    }

    /// Journals a write, and applies it if nothing has to come before.
    #[inline]
    fn propose(
        &mut self,
        origin: Origin,
        handler: Handler,
        request: &mut Request<'_>,
        output: &mut Vec<u8>,
    ) -> Submitted {
        let Self { log, executor, .. } = self;
        let log = log.as_deref_mut().expect("writes are proposed to a log");
        if let Some(refusal) = log.refusal() {
            output.extend_from_slice(refusal.reply().as_bytes());
            return Submitted::Done;
        }
        let large_bytes = if request.large.is_empty() { 0 } else { payload::large_bytes(request) };
        if large_bytes >= STREAM_BYTES_MIN {
            log.begin_stream(origin, handler, request, executor);
            return Submitted::Later;
        }
        let proposal = executor.proposal(request.keys);
        if !log.is_direct() {
            let (shards, settings) = (&executor.shards, &executor.settings);
            log.append_waiting(origin, handler, request, shards, settings, proposal);
            return Submitted::Waiting;
        }
        // Applying moves large arguments out of the request.
        let is_early = large_bytes > 0;
        if is_early {
            log.append_applied(request, &executor.shards, &executor.settings, proposal);
        }
        let before = executor.changes(request.keys);
        let step = executor.apply(handler, request, proposal, output);
        assert!(matches!(step, Step::Done), "a write takes effect at once");
        if !is_early && executor.changes(request.keys) != before {
            log.append_applied(request, &executor.shards, &executor.settings, proposal);
        }
        Submitted::Done
    }

    /// Applies what is committed, in order, and answers it; what never will be is answered with an error.
    pub(super) fn apply_committed(&mut self) {
        while let Some(mut group) = self.log.as_deref_mut().and_then(Log::take_committed) {
            for item in std::mem::take(&mut group.items) {
                let mut request = view(&mut group.batch, &item.packed);
                match item.what {
                    What::Write(handler, proposal) => {
                        let mut output = std::mem::take(&mut self.scratch);
                        output.clear();
                        let step = self.executor.apply(handler, &mut request, proposal, &mut output);
                        assert!(matches!(step, Step::Done), "a write takes effect at once");
                        self.respond(item.origin, Answer::Reply, &output);
                        self.scratch = output;
                    }
                    What::Read(handler, read_ms) => {
                        let mut output = std::mem::take(&mut self.scratch);
                        output.clear();
                        self.executor.read_ms = read_ms;
                        let step = self.executor.execute(handler, &mut request, &mut output);
                        if self.after_step(item.origin, step, &mut request) == Submitted::Done {
                            self.respond(item.origin, Answer::Reply, &output);
                        }
                        self.scratch = output;
                    }
                    What::Part(work) => self.do_part_now(item.origin, work, &mut request),
                    What::Writes(writes, proposal) => self.apply_writes(item.origin, writes, proposal),
                }
            }
            self.log.as_deref_mut().expect("it was here above").recycle(group);
        }
        while let Some((group, refusal)) = self.log.as_deref_mut().and_then(Log::take_lost) {
            let reply = refusal.reply();
            let mut batch = group.batch;
            for item in group.items {
                match item.what {
                    // It does not ask what came of the writes before it.
                    What::Part(work @ Work::Cut) => {
                        self.do_part_now(item.origin, work, &mut view(&mut batch, &item.packed));
                    }
                    _ => self.respond(item.origin, Answer::Reply, reply.as_bytes()),
                }
            }
        }
    }

    /// Goes on with large entries: one fragment.
    pub(super) fn run_streams(&mut self) {
        let Self { log: Some(log), executor, .. } = self else { return };
        if let Some(refusal) = log.stream_refusal() {
            let reply = refusal.reply();
            for stream in log.take_streams() {
                self.respond(stream.origin, Answer::Reply, reply.as_bytes());
                for (origin, _) in stream.followers {
                    self.respond(origin, Answer::Reply, reply.as_bytes());
                }
            }
            return;
        }
        let Some(stream) = log.next_stream_step(&executor.settings) else { return };
        let is_free = stream.origin.holds_locks()
            || !self.locks.blocks(super::locks::Scope::Keys(&stream.request.keys));
        if stream.is_complete() && is_free {
            self.finish_stream(stream);
        } else if let Some(log) = &mut self.log {
            log.put_back(stream);
        }
    }

    /// Makes entries of a stream that is journalled whole.
    fn finish_stream(&mut self, mut stream: Stream) {
        let Self { log: Some(log), executor, .. } = self else { return };
        let proposal = executor.proposal(&stream.request.keys);
        let is_applied = log.is_direct();
        log.append_stream(&mut stream, proposal, is_applied);
        let Stream { origin, handler, mut request, followers, .. } = stream;
        if is_applied {
            let mut output = std::mem::take(&mut self.scratch);
            output.clear();
            let step = self.executor.apply(handler, &mut request.view(), proposal, &mut output);
            assert!(matches!(step, Step::Done), "a write takes effect at once");
            self.respond(origin, Answer::Reply, &output);
            self.scratch = output;
        }
        for (origin, mut request) in followers {
            let handler = handler_of(&request);
            let mut output = std::mem::take(&mut self.scratch);
            output.clear();
            if self.submit(origin, handler, &mut request.view(), &mut output, true) == Submitted::Done {
                self.respond(origin, Answer::Reply, &output);
            }
            self.scratch = output;
        }
    }
}
