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
    locks::{Scope, TransactionId},
    log::{Admission, AppendAs, Deferred, Log, Proposal, Stream, What, payload, room_bytes_max},
    node::{Node, Origin, Parked, Submitted, handler_of, view},
    request::Request,
    transact::keys_of_shards,
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
        if self.groups.is_some() {
            return self.group_first(origin, handler, request, output, is_ordered);
        }
        let log = self.log.as_deref_mut()?;
        if is_ordered
            && let Origin::Core { core, token, .. } = origin
            && log.follow((core, token), origin, request)
        {
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
            log.wait_to_read(origin, handler, request, now_ms);
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
        let len_bytes = payload::len_bytes_max(request, payload::Selection::All);
        if len_bytes > log.whole_bytes_max() && !request.keys.is_empty() {
            let writes = vec![request.to_owned()];
            log.begin_stream(origin, AppendAs::Entry, writes, executor.settings, &executor.shards);
            return Submitted::Later;
        }
        let room_bytes = room_bytes_max(request, len_bytes, &executor.shards);
        match log.admit(room_bytes) {
            Admission::Direct => {}
            Admission::Waiting => {
                let proposal = executor.proposal(request.keys);
                log.append_waiting(origin, handler, request, &executor.shards, proposal, room_bytes);
                return Submitted::Waiting;
            }
            Admission::Deferred => {
                let request = Box::new(request.to_owned());
                log.defer(Deferred::Request(origin.later(), handler, request, room_bytes));
                return Submitted::Later;
            }
            Admission::Refused(refusal) => {
                output.extend_from_slice(refusal.reply().as_bytes());
                return Submitted::Done;
            }
        }
        let proposal = executor.proposal(request.keys);
        // Applying moves large arguments out of the request.
        let is_early = !request.large.is_empty();
        if is_early {
            log.append_applied(request, &executor.shards, proposal, room_bytes);
        }
        let before = executor.changes(request.keys);
        let step = executor.apply(handler, request, proposal, output);
        assert!(matches!(step, Step::Done), "a write takes effect at once");
        if !is_early && executor.changes(request.keys) != before {
            log.append_applied(request, &executor.shards, proposal, room_bytes);
        }
        Submitted::Done
    }

    /// What waited for room goes on as far as there is some, or is refused.
    pub(super) fn resume_deferred(&mut self) {
        let Some(log) = self.log.as_deref_mut().filter(|log| log.has_deferred()) else { return };
        let mut queue = log.take_deferred();
        while let Some(work) = self.log.as_deref_mut().and_then(|log| log.next_deferred(&mut queue)) {
            match work {
                Deferred::Request(origin, handler, mut request, _) => {
                    let mut output = std::mem::take(&mut self.scratch);
                    output.clear();
                    if self.resume(origin, handler, &mut request.view(), &mut output) == Submitted::Done {
                        self.respond(origin, Answer::Reply, &output);
                    }
                    self.scratch = output;
                }
                Deferred::Part(origin, work, mut request) => self.do_part(origin, work, &mut request.view()),
                Deferred::Writes(core, gather, work, _) => self.take_writes(core, gather, work),
            }
        }
        self.log.as_deref_mut().expect("it was here above").put_deferred_back(queue);
    }

    /// Does what has waited for room: it follows no stream, for what its connection has begun since came later.
    fn resume(
        &mut self,
        origin: Origin,
        handler: Handler,
        request: &mut Request<'_>,
        output: &mut Vec<u8>,
    ) -> Submitted {
        if request.command.flags.contains(Flags::WRITE) {
            return self.propose(origin, handler, request, output);
        }
        let now_ms = self.executor.now_ms;
        if let Some(log) = self.log.as_deref_mut().filter(|log| log.has_waiting()) {
            log.wait_to_read(origin, handler, request, now_ms);
            return Submitted::Waiting;
        }
        self.executor.read_ms = now_ms;
        let step = self.executor.execute(handler, request, output);
        self.after_step(origin.later(), step, request)
    }

    /// Applies what is committed, in order, and answers it; what never will be is answered with an error.
    pub(super) fn apply_committed(&mut self) {
        'groups: while let Some(mut group) = self.log.as_deref_mut().and_then(Log::take_committed) {
            while let Some(item) = group.items.pop_front() {
                if self.must_not_apply(view(&mut group.batch, &item.packed).keys) {
                    group.items.push_front(item);
                    self.log.as_deref_mut().expect("it was here above").put_committed_back(group);
                    break 'groups;
                }
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
            self.log.as_deref_mut().expect("it was here above").end_committed(group);
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
        let Self { log: Some(log), .. } = self else { return };
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
        let Some(stream) = log.next_stream_step() else { return };
        if !stream.is_complete() {
            return log.put_back(stream);
        }
        if !stream.origin.holds_locks() && self.locks.is_active() {
            let keys = stream.keys();
            if self.locks.blocks(Scope::Keys(&keys)) {
                let number = log.park(stream);
                return self.locks.park(Scope::Keys(&keys), None, Parked::Stream(number));
            }
        }
        self.end_stream(stream);
    }

    /// The keys of a parked stream are free, if it was not answered meanwhile.
    pub(super) fn resume_stream(&mut self, number: u64) {
        let Some(log) = &mut self.log else { return };
        match log.unpark(number) {
            Some(stream) if log.stream_refusal().is_none() => self.end_stream(stream),
            // It is answered with the others.
            Some(stream) => log.put_back(stream),
            None => {}
        }
    }

    /// Makes entries of a stream whose keys are free, if there is room for them.
    fn end_stream(&mut self, stream: Stream) {
        let Some(log) = &mut self.log else { return };
        match log.admit(stream.end_room_bytes()) {
            admission @ (Admission::Direct | Admission::Waiting) => {
                self.finish_stream(stream, admission == Admission::Direct);
            }
            Admission::Deferred | Admission::Refused(_) => log.put_back(stream),
        }
    }

    /// Makes entries of a stream that is journalled whole.
    fn finish_stream(&mut self, mut stream: Stream, is_direct: bool) {
        let Self { log: Some(log), executor, .. } = self else { return };
        let keys = keys_of_shards(&stream.writes, &executor.shards);
        let proposal = Proposal { settings: stream.settings, ..executor.proposal(&keys) };
        let start = log.applied_to();
        let is_prepared = matches!(stream.how, AppendAs::Prepare(_));
        if !is_direct && !is_prepared {
            log.begin_waiting(proposal.timestamp_ms);
        }
        log.append_stream(&mut stream, proposal, is_direct && !is_prepared);
        let Stream { origin, how, writes, followers, .. } = stream;
        match how {
            AppendAs::Prepare(transaction) => {
                log.keep_prepared(origin, TransactionId(transaction), start, writes);
            }
            _ if is_direct => self.apply_writes(origin, writes, proposal),
            _ => log.wait_for_commit(origin, What::Writes(writes, proposal)),
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
