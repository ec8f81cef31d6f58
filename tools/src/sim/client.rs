//! Clients: they connect, send requests in pieces, read replies at their own pace, and leave in one way or another.

use std::collections::VecDeque;

use super::{
    check::{history::History, loss::Times, model::Window},
    faults::Sabotage,
    random::Random,
    resp::{self, Reply},
    script::{Plan, Planned, Purpose, Role, check_shape, is_refusal, is_write},
    trace,
    world::{ServerEnd, World},
};

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The client closes once it has every reply.
    Close,
    /// The client finishes sending, and reads until the server closes.
    HalfClose,
    /// The same, in the middle of a request.
    HalfRequest,
    /// The client is gone after so many bytes, or at the end.
    Reset(usize),
    /// The last request is QUIT.
    Quit,
    /// The last request is none.
    Garbage,
}

/// A request that was made.
pub(crate) struct Sent {
    /// What it is for.
    pub(crate) purpose: Purpose,
    /// The command and its arguments; forgotten with the reply.
    arguments: Vec<Vec<u8>>,
    /// Who made it.
    role: Option<usize>,
    /// The byte behind it in the client's stream.
    end: usize,
    /// When its last byte was sent, and the clocks then.
    pub(crate) invoked: Option<u64>,
    invoked_ns: u64,
    invoked_ms: i64,
    /// When it was answered, and the clocks then.
    pub(crate) replied: Option<u64>,
    replied_ns: u64,
    replied_ms: i64,
    /// The reply, if it is judged later.
    pub(crate) reply: Option<Reply>,
    /// Whether the server did not do it because the disk was full.
    pub(crate) is_refused: bool,
    /// Replies that are dropped before its own.
    swallow: usize,
}

impl Sent {
    /// When it was made; it was.
    pub(crate) fn times(&self) -> Times {
        Times {
            invoked: self.invoked.expect("it was sent"),
            invoked_ns: self.invoked_ns,
            replied: self.replied.map(|replied| (replied, self.replied_ns)),
        }
    }

    /// When it was executed; it was answered.
    pub(crate) fn window(&self) -> Window {
        (self.invoked_ms, self.replied_ms)
    }
}

/// One connection, as its client knows it.
pub(crate) struct Session {
    /// The connection's number in the world.
    pub(crate) link: usize,
    /// Its requests.
    pub(crate) sent: Vec<Sent>,
    /// Requests still to be made.
    left: usize,
    prepared: VecDeque<Planned>,
    /// Bytes of requests, and how many of them have been sent.
    stream: Vec<u8>,
    streamed: usize,
    /// Requests whose last byte has been sent, and replies that have come.
    invoked: usize,
    pub(crate) replied: usize,
    /// Reply bytes that are not a whole reply yet.
    partial: Vec<u8>,
    /// Reply bytes that the server has sent, where each reply ends in them, and how many were read.
    received: usize,
    reply_ends: VecDeque<usize>,
    read: usize,
    replies_read: usize,
    ending: Ending,
    has_ended: bool,
    /// When something last moved, in nanoseconds.
    progress_ns: u64,
}

/// A client.
pub(crate) struct Client {
    number: usize,
    roles: Vec<Role>,
    /// What it asks for in its only connection, if it plays no role.
    prepared: VecDeque<Planned>,
    sessions_left: usize,
    session_count: usize,
    requests_each: usize,
    /// Requests that may be under way.
    window: usize,
    /// How long it takes between two steps, and how long reading may take, in nanoseconds.
    pace_ns: u64,
    read_pace_ns: u64,
    read_at_ns: u64,
    /// When it does something next.
    at_ns: u64,
    /// The connection that is open.
    pub(crate) session: Option<Session>,
    /// Those that are over.
    pub(crate) finished: Vec<Session>,
    /// Histories of keys that it will not use any more.
    pub(crate) retired: Vec<History>,
}

/// A commit that takes so long is slow, in milliseconds.
const SLOW_MS: i64 = 300;

/// How long a request may be worked on after its connection ended, but for commits, in milliseconds.
const LATE_MS: i64 = 2_000;

/// Histories that a client keeps of keys that it does not use any more.
const RETIRED_MAX: usize = 4;

/// What a client can do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Action {
    Connect,
    Make,
    Write,
    Read,
    End,
    NoticeClose,
}

impl Client {
    /// Client `number` of a run.
    pub(crate) fn choose(random: &mut Random, plan: &Plan, number: usize) -> Self {
        // Requests that wait for one another, each for seconds, would take a seed too long.
        let is_slow = plan.commit_ms_max.is_some_and(|commit_ms| commit_ms > SLOW_MS);
        let (sessions_max, requests_max) = if is_slow { (2, 40) } else { (4, 120) };
        Self {
            number,
            roles: Role::choose(random, plan, number),
            prepared: VecDeque::new(),
            sessions_left: random.between(1, sessions_max) as usize,
            session_count: 0,
            requests_each: random.between(5, requests_max) as usize,
            window: random.pick(&[1, 2, 8, 30, 200]),
            pace_ns: random.pick(&[1_000, 50_000, 1_000_000]),
            read_pace_ns: random.pick(&[1_000, 1_000, 100_000, 10_000_000]),
            read_at_ns: 0,
            at_ns: 0,
            session: None,
            finished: Vec::new(),
            retired: Vec::new(),
        }
    }

    /// A client that makes these requests, and no others.
    pub(crate) fn making(requests: Vec<Planned>) -> Self {
        Self {
            number: 0,
            roles: Vec::new(),
            prepared: requests.into(),
            sessions_left: 1,
            session_count: 0,
            requests_each: 0,
            window: 10,
            pace_ns: 1000,
            read_pace_ns: 1000,
            read_at_ns: 0,
            at_ns: 0,
            session: None,
            finished: Vec::new(),
            retired: Vec::new(),
        }
    }

    /// The histories of its keys, which the caller may settle.
    pub(crate) fn histories(&mut self) -> impl Iterator<Item = &mut History> {
        self.roles.iter_mut().filter_map(Role::history).chain(&mut self.retired)
    }

    /// The server is gone, and its connection. It connects once more than it would have.
    pub(crate) fn lose_server(&mut self, world: &World, plan: &Plan) {
        if self.session.is_some() {
            self.finish(world, plan);
            self.sessions_left += 1;
        }
    }

    /// Whether it will do nothing more.
    pub(crate) fn is_done(&self) -> bool {
        self.session.is_none() && self.sessions_left == 0
    }

    /// When it can do something next, if it need not wait for anybody.
    pub(crate) fn next_ns(&self, world: &World) -> Option<u64> {
        let actions = self.actions(world);
        if actions.is_empty() {
            return None;
        }
        let only_reads = actions.iter().all(|action| *action == Action::Read);
        Some(if only_reads { self.at_ns.max(self.read_at_ns) } else { self.at_ns })
    }

    fn actions(&self, world: &World) -> Vec<Action> {
        let mut actions = Vec::new();
        let Some(session) = &self.session else {
            if self.sessions_left > 0 {
                actions.push(Action::Connect);
            }
            return actions;
        };
        let link = &world.links[session.link];
        if link.server == ServerEnd::Closed || link.is_shut {
            return vec![Action::NoticeClose];
        }
        if !session.has_ended {
            let under_way = session.sent.len() - session.replies_read;
            let unsent = session.stream.len() - session.streamed;
            if session.left > 0 && under_way < self.window && unsent < (1 << 20) {
                actions.push(Action::Make);
            }
            if unsent > 0 && link.inbound.len() < link.inbound_max {
                actions.push(Action::Write);
            }
            if session.can_end() {
                actions.push(Action::End);
            }
        }
        if link.outbound > 0 {
            actions.push(Action::Read);
        }
        actions
    }

    /// Does one thing.
    ///
    /// # Errors
    /// What the server did wrong.
    pub(crate) fn step(&mut self, world: &mut World, plan: &Plan) -> Result<(), String> {
        let mut actions = self.actions(world);
        if world.now_ns < self.read_at_ns && actions.len() > 1 {
            actions.retain(|action| *action != Action::Read);
        }
        let action = actions[world.random.index(actions.len())];
        self.at_ns = world.now_ns + world.random.below(self.pace_ns);
        match action {
            Action::Connect => self.connect(world),
            Action::Make => self.make(world, plan),
            Action::Write => self.write(world),
            Action::Read => {
                self.read_at_ns = world.now_ns + world.random.below(self.read_pace_ns);
                self.read(world);
            }
            Action::End => self.end(world, plan),
            Action::NoticeClose => return self.notice_close(world, plan),
        }
        Ok(())
    }

    fn connect(&mut self, world: &mut World) {
        self.sessions_left -= 1;
        let number = self.session_count;
        self.session_count += 1;
        for (role, player) in self.roles.iter_mut().enumerate() {
            self.retired.extend(player.begin(&mut world.random, (self.number, number, role)));
        }
        // Only so many are looked at after a crash.
        self.retired.drain(..self.retired.len().saturating_sub(RETIRED_MAX));
        let prepared = std::mem::take(&mut self.prepared);
        let is_preparing = !prepared.is_empty();
        let ending = if is_preparing {
            Ending::Close
        } else {
            match world.random.below(12) {
                0..4 => Ending::Close,
                4..6 => Ending::HalfClose,
                6 => Ending::HalfRequest,
                7 | 8 => Ending::Reset(world.random.index(4000)),
                9 => Ending::Garbage,
                _ => Ending::Quit,
            }
        };
        let link = world.connect();
        trace::note(|| format!("client {} connects as {link}, will end by {ending:?}", self.number));
        self.session = Some(Session {
            link,
            sent: Vec::new(),
            left: if is_preparing { prepared.len() } else { self.requests_each },
            prepared,
            stream: Vec::new(),
            streamed: 0,
            invoked: 0,
            replied: 0,
            partial: Vec::new(),
            received: 0,
            reply_ends: VecDeque::new(),
            read: 0,
            replies_read: 0,
            ending,
            has_ended: false,
            progress_ns: world.now_ns,
        });
    }

    /// Makes a few requests.
    fn make(&mut self, world: &mut World, plan: &Plan) {
        let session = self.session.as_mut().expect("it is connected");
        let batch = 1 + world.random.index(self.window.min(16));
        for _ in 0..batch {
            if session.left == 0 || session.sent.len() - session.replies_read >= self.window {
                break;
            }
            let (role, planned) = match session.prepared.pop_front() {
                Some(planned) => (None, Some(planned)),
                None => {
                    let role = world.random.index(self.roles.len());
                    (Some(role), self.roles[role].next(&mut world.random, plan))
                }
            };
            // A role that waits for a reply gives up its turn.
            session.left -= 1;
            if let Some(planned) = planned {
                session.add(world, planned, role);
            }
        }
        if session.left == 0 {
            let last = match session.ending {
                Ending::Quit => vec![b"QUIT".to_vec()],
                Ending::Garbage => {
                    session.stream.extend_from_slice(b"*1\r\n$-7\r\n");
                    session.note_sent(Purpose::Garbage, Vec::new(), None, 0);
                    return;
                }
                Ending::HalfRequest => {
                    let halves: [&[u8]; 3] = [
                        b"*2\r\n$3\r\nGET\r\n$5\r\nab",
                        b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$70000\r\nabc",
                        b"PIN",
                    ];
                    let half = world.random.pick(&halves);
                    session.stream.extend_from_slice(half);
                    return;
                }
                _ => return,
            };
            session.add(world, Planned { arguments: last, purpose: Purpose::Status }, None);
        }
    }

    fn write(&mut self, world: &mut World) {
        let session = self.session.as_mut().expect("it is connected");
        let link = &world.links[session.link];
        let room = link.inbound_max - link.inbound.len();
        let count = world.piece(room.min(session.stream.len() - session.streamed));
        let bytes = &session.stream[session.streamed..session.streamed + count];
        world.links[session.link].inbound.extend(bytes);
        session.streamed += count;
        session.progress_ns = world.now_ns;
        while let Some(sent) =
            session.sent.get_mut(session.invoked).filter(|sent| sent.end <= session.streamed)
        {
            sent.invoked = Some(world.next_stamp());
            sent.invoked_ns = world.now_ns;
            sent.invoked_ms = world.wall_ms();
            session.invoked += 1;
        }
    }

    fn read(&mut self, world: &mut World) {
        let session = self.session.as_mut().expect("it is connected");
        let count = world.piece(world.links[session.link].outbound);
        world.links[session.link].outbound -= count;
        session.read += count;
        session.progress_ns = world.now_ns;
        session.count_read();
    }

    fn end(&mut self, world: &mut World, plan: &Plan) {
        let session = self.session.as_mut().expect("it is connected");
        trace::note(|| {
            format!("client {} ends connection {}: {:?}", self.number, session.link, session.ending)
        });
        let link = &mut world.links[session.link];
        link.inbound_end = true;
        session.has_ended = true;
        match session.ending {
            Ending::HalfClose | Ending::HalfRequest => {}
            Ending::Reset(_) => {
                link.is_client_gone = true;
                link.is_reset = true;
                link.inbound.clear();
                self.finish(world, plan);
            }
            Ending::Close | Ending::Quit | Ending::Garbage => {
                link.is_client_gone = true;
                self.finish(world, plan);
            }
        }
    }

    fn notice_close(&mut self, world: &World, plan: &Plan) -> Result<(), String> {
        let session = self.session.as_ref().expect("it is connected");
        let is_answered = session.replied == session.sent.len() && session.left == 0;
        let is_due = match session.ending {
            Ending::HalfClose | Ending::HalfRequest => session.has_ended,
            Ending::Quit | Ending::Garbage => true,
            Ending::Close | Ending::Reset(_) => false,
        };
        // A paused client that finishes sending is closed: nobody is left to wait.
        let may_be_cut = plan.has_kills || (plan.has_pauses && session.has_ended);
        let is_expected = may_be_cut || (is_answered && is_due);
        if !is_expected {
            return Err(format!(
                "the server closed connection {} ({:?}) after {} replies to {} requests",
                session.link,
                session.ending,
                session.replied,
                session.sent.len()
            ));
        }
        self.finish(world, plan);
        Ok(())
    }

    fn finish(&mut self, world: &World, plan: &Plan) {
        let Some(session) = self.session.take() else { return };
        for sent in session.sent[session.replied..].iter().filter(|sent| sent.invoked.is_some()) {
            if let Some(role) = sent.role {
                // The server may do it a little later.
                let until_ms = world.wall_ms() + LATE_MS + plan.commit_ms_max.unwrap_or(0);
                let window = (sent.invoked_ms, until_ms);
                self.roles[role].not_answered(&sent.arguments, window, sent.times(), plan);
            }
        }
        self.finished.push(session);
    }

    /// Takes bytes that the server has sent on the client's connection.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(crate) fn take_replies(
        &mut self,
        world: &mut World,
        plan: &Plan,
        bytes: &[u8],
    ) -> Result<(), String> {
        let Some(session) = &mut self.session else { return Ok(()) };
        session.progress_ns = world.now_ns;
        session.partial.extend_from_slice(bytes);
        if world.sabotage == Some(Sabotage::LoseByte) && world.random.one_in(20) {
            session.partial.pop();
        }
        let mut replies = Vec::new();
        let mut at = 0;
        while at < session.partial.len() {
            let Some((reply, length)) = resp::read_reply(&session.partial[at..])? else { break };
            at += length;
            replies.push((reply, length));
        }
        session.partial.drain(..at);
        if world.sabotage == Some(Sabotage::SwapReplies) && replies.len() > 1 && world.random.one_in(5) {
            replies.swap(0, 1);
        }
        for (reply, length) in replies {
            session.received += length;
            let number = session.replied;
            if let Some(sent) = session.sent.get_mut(number).filter(|sent| sent.swallow > 0) {
                sent.swallow -= 1;
                continue;
            }
            let Some(sent) = session.sent.get_mut(number).filter(|sent| sent.invoked.is_some()) else {
                return Err(format!(
                    "connection {} got a reply to no request: {}",
                    session.link,
                    reply.shown()
                ));
            };
            session.reply_ends.push_back(session.received);
            session.replied += 1;
            sent.replied = Some(world.next_stamp());
            sent.replied_ns = world.now_ns;
            sent.replied_ms = world.wall_ms();
            let arguments = std::mem::take(&mut sent.arguments);
            let shown = || {
                let words: Vec<String> = arguments.iter().map(|word| trace::shown(word)).collect();
                format!(
                    "client {} on {} request {number}: {} -> {}",
                    self.number,
                    session.link,
                    words.join(" "),
                    reply.shown()
                )
            };
            trace::note(shown);
            if is_refusal(&reply) && world.disk.has_been_full() && is_write(&arguments[0]) {
                sent.is_refused = true;
                if let Some(role) = sent.role {
                    self.roles[role].refused();
                }
                continue;
            }
            let judged = match sent.role {
                Some(role) => self.roles[role].replied(&arguments, sent, &reply, plan),
                None => check_shape(&sent.purpose, &reply, plan),
            };
            judged.map_err(|error| format!("{}: {error}", shown()))?;
            if matches!(sent.purpose, Purpose::Counter(..) | Purpose::Register(..) | Purpose::Survey) {
                sent.reply = Some(reply);
            }
        }
        // They may have been read before they were judged.
        session.count_read();
        Ok(())
    }

    /// A connection on which the server owes something and nothing has moved since `since_ns`.
    pub(crate) fn is_stuck(&self, world: &World, since_ns: u64) -> Option<String> {
        let session = self.session.as_ref()?;
        let link = &world.links[session.link];
        let waits_for_close = session.left == 0 && matches!(session.ending, Ending::Quit | Ending::Garbage);
        let owes = session.replied < session.invoked
            || session.has_ended
            || waits_for_close
            || session.streamed < session.stream.len();
        let may_wait = link.outbound >= link.outbound_max;
        let is_stuck = owes && !may_wait && session.progress_ns.max(link.received_ns) < since_ns;
        is_stuck.then(|| {
            format!(
                "stuck: {session:?}, {} bytes not received, server: {:?}",
                link.inbound.len(),
                link.server
            )
        })
    }

    /// Its connection, if it has one.
    pub(crate) fn describe(&self) -> Option<String> {
        self.session.as_ref().map(|session| format!("{session:?}"))
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "connection {} (to end by {:?}, ended: {}): {} of {} bytes sent, {} requests of {} sent, {} answered, {} \
             replies read, {} requests left",
            self.link,
            self.ending,
            self.has_ended,
            self.streamed,
            self.stream.len(),
            self.invoked,
            self.sent.len(),
            self.replied,
            self.replies_read,
            self.left
        )
    }
}

impl Session {
    fn count_read(&mut self) {
        while self.reply_ends.front().is_some_and(|&end| end <= self.read) {
            self.reply_ends.pop_front();
            self.replies_read += 1;
        }
    }

    fn can_end(&self) -> bool {
        let is_sent = self.left == 0 && self.streamed == self.stream.len();
        match self.ending {
            Ending::Close => is_sent && self.replies_read == self.sent.len(),
            Ending::HalfClose | Ending::HalfRequest => is_sent,
            Ending::Reset(bytes) => is_sent || self.streamed >= bytes,
            // The server closes.
            Ending::Quit | Ending::Garbage => false,
        }
    }

    fn add(&mut self, world: &mut World, planned: Planned, role: Option<usize>) {
        let Planned { arguments, purpose } = planned;
        trace::note(|| {
            let words: Vec<String> = arguments.iter().map(|word| trace::shown(word)).collect();
            format!("request {} on {}: {}", self.sent.len(), self.link, words.join(" "))
        });
        let splits = world.sabotage == Some(Sabotage::SplitSets)
            && matches!(purpose, Purpose::Register(..))
            && arguments[0] == b"MSET";
        if splits {
            let (first, second) = arguments[1..].split_at(2);
            for part in [first, second] {
                let half: Vec<Vec<u8>> =
                    std::iter::once(b"MSET".to_vec()).chain(part.iter().cloned()).collect();
                resp::write_request(&half, &mut self.stream);
            }
        } else if !(world.random.one_in(10) && resp::write_inline(&arguments, &mut self.stream)) {
            resp::write_request(&arguments, &mut self.stream);
        }
        self.note_sent(purpose, arguments, role, usize::from(splits));
    }

    fn note_sent(&mut self, purpose: Purpose, arguments: Vec<Vec<u8>>, role: Option<usize>, swallow: usize) {
        self.sent.push(Sent {
            purpose,
            arguments,
            role,
            end: self.stream.len(),
            invoked: None,
            invoked_ns: 0,
            invoked_ms: 0,
            replied: None,
            replied_ns: 0,
            replied_ms: 0,
            reply: None,
            is_refused: false,
            swallow,
        });
    }
}
