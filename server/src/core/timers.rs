//! A core's timers.

use std::{cmp::Reverse, collections::BinaryHeap};

use duva_net::io::{Io, Token};

use super::{Core, EXPIRE_BUDGET, connection::State, node::Node, replies::Sequence};

/// How often idle connections and soft limits are looked at.
pub(super) const CRON_NS: u64 = 1_000_000_000;

/// What happens at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// A listener accepts again.
    Accept(u32),
    /// WAIT ends for a connection's reply slot.
    WaitEnd {
        /// Its place.
        index: u32,
        /// Its generation.
        generation: u32,
        /// The slot.
        sequence: Sequence,
    },
    /// CLIENT PAUSE ends.
    PauseEnd,
    /// Idle connections and soft limits are looked at.
    Cron,
    /// It is looked at whether something is to be saved.
    SaveCron,
    /// Connections may be told of a change of leaders or nodes again.
    Topology,
    /// A link is dialled again.
    PeerDial,
    /// An accepted connection should have said by now which node it is.
    PeerHello {
        /// Its place.
        index: u32,
        /// Its generation.
        generation: u32,
    },
}

/// A core's timers, by monotonic nanoseconds.
#[derive(Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(u64, Timer)>>,
}

impl Timers {
    /// Adds one.
    pub(super) fn insert(&mut self, at_ns: u64, timer: Timer) {
        self.heap.push(Reverse((at_ns, timer)));
    }

    /// When the next is due.
    pub(super) fn next_ns(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse((at_ns, _))| *at_ns)
    }

    fn pop_due(&mut self, now_ns: u64) -> Option<Timer> {
        self.next_ns().filter(|&at_ns| at_ns <= now_ns)?;
        self.heap.pop().map(|Reverse((_, timer))| timer)
    }
}

impl<I: Io> Core<I> {
    /// Expires what is due at `visible_ms`; the log learns of it, so that no restart brings it back.
    fn tick(&mut self, visible_ms: u64) {
        if self.node.groups.is_some() {
            return self.node.propose_ticks();
        }
        let Node { executor, log, .. } = &mut self.node;
        let shard_bits = executor.shards.slot_shift();
        executor.tick(visible_ms, EXPIRE_BUDGET, |slot| {
            if let Some(log) = log {
                log.append_tick(slot >> shard_bits, visible_ms);
            }
        });
    }

    /// Lets the log learn by what time reads have called keys missing that are due and not removed yet: no restart makes that
    /// untrue.
    pub(super) fn tick_what_was_read(&mut self) {
        if self.node.groups.is_some() {
            return;
        }
        let visible_ms = self.node.visible_ms();
        let Node { executor, log: Some(log), .. } = &mut self.node else { return };
        if executor.due_ms > visible_ms || !log.has_tick_room() {
            return;
        }
        for shard in executor.shards.iter() {
            let number = executor.shards.number_of(shard.slots().start) as u16;
            let is_due = shard.next_due_ms().is_some_and(|due_ms| due_ms <= visible_ms);
            if is_due && shard.time_ms() > log.time_ms(number) {
                log.append_tick(number, shard.time_ms());
            }
        }
    }

    pub(super) fn run_timers(&mut self) {
        let visible_ms = self.node.visible_ms();
        if self.node.executor.due_ms <= visible_ms && self.node.can_tick() {
            self.tick(visible_ms);
        }
        if self.node.executor.has_garbage {
            self.node.executor.reclaim(EXPIRE_BUDGET);
        }
        if !self.node.waits.is_empty() && self.timers.heap.len() > 1024 + 2 * self.connections.count() {
            // Clients that went away left theirs.
            let connections = &mut self.connections;
            self.timers.heap.retain(|Reverse((_, timer))| match *timer {
                Timer::WaitEnd { index, generation, .. } => connections
                    .get_mut(Token { index, generation })
                    .is_some_and(|it| it.state.any(State::WAITING)),
                _ => true,
            });
        }
        for (token, sequence, timeout_ms) in self.node.waits.drain(..) {
            let at_ns = self.clock.monotonic_ns.saturating_add(timeout_ms.saturating_mul(1_000_000));
            let Token { index, generation } = token;
            self.timers.insert(at_ns, Timer::WaitEnd { index, generation, sequence });
        }
        while let Some(timer) = self.timers.pop_due(self.clock.monotonic_ns) {
            match timer {
                Timer::Accept(listener) => self.io.accept(listener),
                Timer::WaitEnd { index, generation, sequence } => {
                    self.node.deliver(Token { index, generation }, sequence, b":0\r\n", true);
                }
                Timer::PauseEnd => self.resume_paused(),
                Timer::Cron => self.cron(),
                Timer::Topology => {
                    self.has_topology_timer = false;
                    self.push_topology();
                }
                Timer::PeerDial => self.node.peers.attend(),
                Timer::PeerHello { index, generation } => self.end_greeting(Token { index, generation }),
                Timer::SaveCron => {
                    self.has_save_cron = false;
                    self.arm_save_cron();
                    self.node.save_cron();
                }
            }
        }
    }
}
