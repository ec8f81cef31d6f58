//! What happens when the server ends without being told to: it comes back, perhaps with another number of cores, and
//! what it has kept is looked at, and judged, before the clients go on.

use std::collections::BTreeSet;

use super::{
    Run, Server,
    judge::{Bases, counter_value},
};
use crate::sim::{
    check::{
        history::Observed,
        loss::{self, Fate, Loss},
        register::RegisterAction,
        token,
    },
    client::{Client, Session},
    resp::Reply,
    script::{Planned, Purpose, answered, seen_within},
    start, trace,
    world::Crash,
};
use duva_server::config::AppendFsync;

/// The most that `everysec` loses, in nanoseconds: a second, and what clocks and turns add.
const SPAN_NS: u64 = 1_060_000_000;

/// What is asked after a crash, one for each request.
enum Question {
    /// The value of this key of a history, by number.
    Value(usize, Vec<u8>),
    /// How long it lives.
    Left,
    Register(usize),
    Counter,
    Places,
    Stays,
}

/// What was found.
struct Found {
    /// Of each history's keys.
    keys: Vec<Vec<Observed>>,
    bases: Bases,
    /// What all places hold, if there are tokens.
    places: Vec<Reply>,
    /// Which keys that stay are there.
    stays: Vec<bool>,
}

impl Run {
    /// The server ends, and comes back; what it has kept is judged.
    pub(super) fn crash(&mut self) -> Result<(), String> {
        self.hand_out_replies()?;
        self.crashes_left = self.crashes_left.saturating_sub(1);
        self.is_crash_due = false;
        self.may_crash = false;
        let sync_error = std::mem::take(&mut self.world.borrow_mut().faults.sync_error);
        let mut clients = std::mem::take(&mut self.clients);
        for client in &mut clients {
            client.lose_server(&self.world.borrow(), &self.plan);
        }
        let mut sessions = std::mem::take(&mut self.sessions);
        sessions.extend(clients.iter_mut().flat_map(|client| client.finished.drain(..)));
        let (before, loss) = self.come_back()?;
        let found = self.survey(&mut clients)?;
        let fates = self.judge_crash(&sessions, &mut clients, &found, loss)?;
        check_cores(&before, &fates, loss).map(|lost| self.summary.lost += lost)?;
        self.bases = found.bases.clone();
        self.repair(&found)?;
        self.clients = clients;
        self.may_crash = true;
        self.quiet_since_ns = self.world.borrow().now_ns;
        if self.crashes_left > 0 {
            self.world.borrow_mut().faults.sync_error = sync_error;
        }
        Ok(())
    }

    /// How the server ends next.
    fn choose_crash(&mut self) -> (Crash, Loss) {
        let mut world = self.world.borrow_mut();
        if world.random.one_in(2) {
            return (Crash::Kill, Loss::Nothing);
        }
        let loss = |fsync: &AppendFsync| match fsync {
            AppendFsync::Always => Loss::Nothing,
            AppendFsync::EverySecond => Loss::Span(SPAN_NS),
            AppendFsync::No => Loss::Anything,
        };
        let weakest = self.plan.fsyncs.iter().chain([&self.config.append_fsync]).map(loss).max();
        (Crash::PowerLoss, weakest.unwrap_or(Loss::Nothing))
    }

    /// The server ends and starts until it serves; returns the one that ended first, and what may be lost of its data.
    fn come_back(&mut self) -> Result<(Server, Loss), String> {
        let (mut crash, mut loss) = self.choose_crash();
        let mut before = None;
        loop {
            let outcome = {
                let mut world = self.world.borrow_mut();
                self.config.cores = world.random.pick(&[1, 2, 2, 3]);
                world.crash(crash, usize::from(self.config.cores));
                world.random.below(8)
            };
            let (ended, cores) = (crash, self.config.cores);
            trace::note(|| format!("{ended:?}; it comes back with {cores} cores"));
            self.summary.crashes += 1;
            if outcome == 0 {
                // The start itself is cut off, before it counts.
                start::attempt(&self.world, &self.config, &self.place)?;
                let (next, its_loss) = self.choose_crash();
                (crash, loss) = (next, loss.max(its_loss));
                continue;
            }
            let server = start::start(&self.world, &self.config, &self.place)?;
            let ended = std::mem::replace(&mut self.server, server);
            self.summary.add_server(&ended);
            before.get_or_insert(ended);
            if outcome > 2 {
                return Ok((before.expect("one has ended"), loss));
            }
            // It ends again before anybody came. What it has found is durable by now.
            let mut steps = self.world.borrow_mut().random.below(200);
            self.until(|_| {
                steps = steps.saturating_sub(1);
                steps == 0
            })?;
            (crash, _) = self.choose_crash();
        }
    }

    /// Looks at everything.
    fn survey(&mut self, clients: &mut [Client]) -> Result<Found, String> {
        let mut asked: Vec<(Question, Vec<Vec<u8>>)> = Vec::new();
        let of = |name: &str, keys: &[Vec<u8>]| -> Vec<Vec<u8>> {
            std::iter::once(name.as_bytes().to_vec()).chain(keys.iter().cloned()).collect()
        };
        let mut histories = 0;
        for (number, history) in clients.iter_mut().flat_map(Client::histories).enumerate() {
            histories = number + 1;
            for key in history.keys() {
                let names = [key.clone()];
                asked.push((Question::Value(number, key), of("GET", &names)));
                asked.push((Question::Left, of("PTTL", &names)));
            }
        }
        for (number, keys) in self.plan.registers.iter().enumerate() {
            asked.push((Question::Register(number), of("MGET", keys)));
        }
        if !self.plan.has_flushes {
            for key in &self.plan.counters {
                asked.push((Question::Counter, of("GET", std::slice::from_ref(key))));
            }
            asked.push((Question::Places, of("MGET", &self.plan.places)));
            asked.push((Question::Stays, of("MGET", &self.plan.stay)));
        }
        let (questions, requests): (Vec<Question>, Vec<Vec<Vec<u8>>>) = asked.into_iter().unzip();
        let planned = |arguments| Planned { arguments, purpose: Purpose::Survey };
        let session = self.let_make(requests.into_iter().map(planned).collect())?;
        let mut found = Found {
            keys: vec![Vec::new(); histories],
            bases: Bases::new(&self.plan),
            places: Vec::new(),
            stays: Vec::new(),
        };
        let mut counters = 0;
        let mut value = None;
        for (question, sent) in questions.into_iter().zip(&session.sent) {
            let reply = sent.reply.as_ref().ok_or("a question about what is left was not answered")?;
            match question {
                Question::Value(history, key) => value = Some((history, key, sent.window().0, reply)),
                Question::Left => {
                    let (history, key, from_ms, reply_before) = value.take().expect("the value comes first");
                    let window = seen_within(&[b"GET".to_vec()], (from_ms, sent.window().1), &self.plan);
                    let value = match (reply_before, reply) {
                        (Reply::Bulk(bytes), Reply::Integer(left_ms)) => Some((bytes.clone(), *left_ms)),
                        _ => None,
                    };
                    found.keys[history].push(Observed { key, window, value });
                }
                Question::Register(number) => {
                    let action = answered(RegisterAction::Read(None), &self.plan, number, reply)?;
                    if let RegisterAction::Read(seen) = action {
                        found.bases.registers[number] = seen;
                    }
                }
                Question::Counter => {
                    let value =
                        counter_value(reply).ok_or_else(|| format!("a counter holds {}", reply.shown()))?;
                    found.bases.counters[counters] = value;
                    counters += 1;
                }
                Question::Places => found.places = items(reply)?,
                Question::Stays => {
                    found.stays = items(reply)?.iter().map(|item| *item != Reply::Nil).collect();
                }
            }
        }
        Ok(found)
    }

    /// Lets one client make these requests, and nobody else; returns its connection.
    pub(super) fn let_make(&mut self, requests: Vec<Planned>) -> Result<Session, String> {
        let clients = std::mem::replace(&mut self.clients, vec![Client::making(requests)]);
        let (no_space, sync_error) = {
            let mut world = self.world.borrow_mut();
            world.disk.make_room();
            let faults = &mut world.faults;
            (std::mem::take(&mut faults.no_space), std::mem::take(&mut faults.sync_error))
        };
        self.until(|run| run.clients.iter().all(Client::is_done))?;
        let faults = &mut self.world.borrow_mut().faults;
        (faults.no_space, faults.sync_error) = (no_space, sync_error);
        let mut made = std::mem::replace(&mut self.clients, clients);
        made[0].finished.pop().ok_or_else(|| "a client had no connection".to_owned())
    }

    /// Judges what is left, everything by itself; returns what became of writes.
    fn judge_crash(
        &mut self,
        sessions: &[Session],
        clients: &mut [Client],
        found: &Found,
        loss: Loss,
    ) -> Result<Vec<Fate>, String> {
        self.judge(sessions, (!loss.is_lossy()).then_some(&found.bases))?;
        let mut fates = self.shared_fates(sessions, &found.bases)?;
        for (history, observed) in clients.iter_mut().flat_map(Client::histories).zip(&found.keys) {
            fates.extend(history.judge(observed, loss.is_lossy())?);
        }
        if self.plan.has_flushes {
            return Ok(fates);
        }
        let tokens = token::found(&found.places, self.plan.tokens)?;
        let is_there = tokens.iter().chain(&found.stays);
        for (number, &is_left) in is_there.enumerate() {
            let made = sessions.iter().flat_map(|session| &session.sent);
            let made = made
                .filter(|sent| sent.purpose == Purpose::Prepare(number))
                .find(|sent| sent.invoked.is_some());
            match made {
                Some(sent) => {
                    fates.push(Fate {
                        keys: vec![self.prepared[number].clone()],
                        times: sent.times(),
                        is_left,
                    });
                }
                // It was there at an earlier start.
                None if is_left => {}
                None => return Err(format!("{} is gone", trace::shown(&self.prepared[number]))),
            }
        }
        Ok(fates)
    }

    /// Makes again what is lost of what is there from the beginning.
    fn repair(&mut self, found: &Found) -> Result<(), String> {
        if self.plan.has_flushes {
            return Ok(());
        }
        let tokens = token::found(&found.places, self.plan.tokens)?;
        let places = found.places.iter().zip(&self.plan.places);
        let mut free: Vec<Vec<u8>> =
            places.filter(|(held, _)| **held == Reply::Nil).map(|(_, place)| place.clone()).collect();
        let mut requests = Vec::new();
        for (number, mut planned) in self.plan.preparations().into_iter().enumerate() {
            let is_there = *tokens.iter().chain(&found.stays).nth(number).expect("each was looked for");
            if is_there {
                continue;
            }
            if number < tokens.len() {
                planned.arguments[1] = free.pop().expect("there are more places than tokens");
            }
            self.prepared[number].clone_from(&planned.arguments[1]);
            requests.push(planned);
        }
        if !requests.is_empty() {
            let session = self.let_make(requests)?;
            self.sessions.push(session);
        }
        Ok(())
    }
}

fn items(reply: &Reply) -> Result<Vec<Reply>, String> {
    match reply {
        Reply::Array(items) => Ok(items.clone()),
        other => Err(format!("MGET was answered {}", other.shown())),
    }
}

/// Judges the fates of each core's writes, by the owners of keys before the crash; returns how many answered ones are
/// lost.
fn check_cores(before: &Server, fates: &[Fate], loss: Loss) -> Result<u64, String> {
    let node = before.cores[0].core.node();
    let owner = |key: &Vec<u8>| node.owner_of(node.executor.hasher.key(key).slot);
    let owners: Vec<BTreeSet<usize>> =
        fates.iter().map(|fate| fate.keys.iter().map(owner).collect()).collect();
    let mut lost = 0;
    for core in 0..before.cores.len() {
        let own = fates.iter().zip(&owners).filter(|(_, owners)| owners.contains(&core));
        let own: Vec<&Fate> = own.map(|(fate, _)| fate).collect();
        lost += loss::check(&own, loss).map_err(|error| format!("core {core}: {error}"))?;
    }
    Ok(lost as u64)
}
