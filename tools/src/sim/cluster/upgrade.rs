//! A rolling upgrade while everything else goes wrong as well: nodes end one after the other, and start again with a later feature
//! level, of which APPEND is here; some go back once more.
//!
//! What is judged besides: APPEND is refused until all nodes speak the later level, and a node that does not speak it would end
//! by itself if it had to apply one; then it is agreed on by itself, APPEND is taken by all, and no node can go back any more.

use super::{Summary, faults::Happening, manner::Manner, run::Run};
use crate::sim::{Failure, resp::Reply, trace};

/// What nodes speak before the upgrade, and behind it.
const OLD: u16 = 1;
const NEW: u16 = 2;

/// What belongs to the later level.
const NEWER_COMMANDS: &[(&str, u16)] = &[("append", NEW)];

/// How long all nodes may take to agree, and to be led again, in nanoseconds.
const AGREE_NS_MAX: u64 = 30_000_000_000;

/// How an upgrade is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Upgrade {
    /// As it should be.
    Careful,
    /// Nodes of the later level do not know that anything belongs to it.
    Hasty,
}

/// Runs `seed` with an upgrade in it.
///
/// # Errors
/// What went wrong.
pub(crate) fn upgrade(seed: u64, how: Upgrade) -> Result<Summary, Failure> {
    let mut run = Run::new(seed, None, Manner::default());
    run.upgrade = Some(how);
    // A node whose journal has failed waits for its operator, and the others wait for it.
    run.weights.disk = 0;
    run.nodes.iter_mut().for_each(|node| node.change(OLD, NEWER_COMMANDS));
    let played = run.form().and_then(|()| run.play()).and_then(|()| run.settle()).and_then(|()| run.judge());
    match played.and_then(|()| run.judge_upgrade()) {
        Ok(()) => Ok(run.summary),
        Err(reason) => Err(Failure { seed, reason, trace: trace::take() }),
    }
}

impl Run {
    /// Chooses which nodes are upgraded when, until a moment.
    pub(super) fn plan_upgrade(&mut self, now_ns: u64, until_ns: u64) {
        if self.upgrade.is_none() {
            return;
        }
        let mut steps = Vec::new();
        {
            let random = &mut self.world.borrow_mut().random;
            let mut left: Vec<usize> = (0..self.count).collect();
            while !left.is_empty() {
                let node = left.swap_remove(random.index(left.len()));
                steps.push((node, NEW));
                if !left.is_empty() && random.one_in(3) {
                    steps.extend([(node, OLD), (node, NEW)]);
                }
            }
        }
        let step_ns = (until_ns - now_ns) / (steps.len() as u64 + 1);
        let times = (1..).map(|number| now_ns + number * step_ns);
        let changes = steps.into_iter().map(|(node, level)| Happening::Change(node, level));
        self.happenings.extend(times.zip(changes));
    }

    /// A node ends, and starts again with this level.
    ///
    /// # Errors
    /// Something of the later level was done too early.
    pub(super) fn change(&mut self, node: usize, level: u16) -> Result<(), String> {
        trace::note(|| format!("{} node {} is to speak level {level}", self.now_ns(), node + 1));
        let is_early = |(number, it): (usize, &super::boot::SimNode)| number == node || it.level() == NEW;
        if level == NEW && self.nodes.iter().enumerate().take(self.count).all(is_early) {
            self.check_none_is_early()?;
        }
        let newer = if level == NEW && self.upgrade == Some(Upgrade::Hasty) { &[] } else { NEWER_COMMANDS };
        self.nodes[node].change(level, newer);
        self.restart(node);
        Ok(())
    }

    /// One node speaks the earlier level: no client was served with the later one.
    fn check_none_is_early(&self) -> Result<(), String> {
        if self.levels().any(|(agreed, _)| agreed != OLD) {
            return Err("a level is agreed on that not all nodes speak".to_owned());
        }
        let history = self.clients.iter().flat_map(|client| &client.history);
        let mut early = history
            .filter(|it| matches!(it.action, duva_tools::linearizability::Action::Append(_)))
            .filter(|it| it.returned.is_some());
        match early.next() {
            Some(operation) => Err(format!("{} is executed before all nodes know it", operation.action)),
            None => Ok(()),
        }
    }

    /// What nodes know to be agreed on, and what they know all nodes to speak.
    fn levels(&self) -> impl Iterator<Item = (u16, u16)> {
        let metas = self.nodes.iter().filter_map(|node| node.cores.first()?.core.node().meta.as_ref());
        metas.map(|meta| (meta.state().level, meta.state().level_of_all()))
    }

    /// All nodes were upgraded, and nothing goes wrong any more.
    fn judge_upgrade(&mut self) -> Result<(), String> {
        let is_agreed =
            |run: &mut Self| run.levels().filter(|levels| *levels == (NEW, NEW)).count() == run.count;
        self.until(AGREE_NS_MAX, "the later level is agreed on", is_agreed)?;
        // What all nodes know becomes durable, and known to all cores.
        let later_ns = self.now_ns() + 2_000_000_000;
        self.until(u64::MAX, "time goes on", |run| run.now_ns() >= later_ns)?;
        for node in 0..self.count {
            let end = self.world.borrow_mut().connect(node).ok_or("a node does not listen")?;
            let words = [&b"APPEND"[..], b"upgraded", b"."].map(<[u8]>::to_vec);
            match self.ask(end, &words)? {
                Reply::Integer(length) if length == node as i64 + 1 => {}
                other => return Err(format!("APPEND is answered with {}", other.shown())),
            }
        }
        for node in 0..self.count {
            self.end(node);
            self.nodes[node].change(OLD, NEWER_COMMANDS);
            match self.start(node) {
                Err(reason) if reason.contains("feature level 2") => {}
                other => return Err(format!("a node of the earlier version starts: {other:?}")),
            }
            self.nodes[node].change(NEW, NEWER_COMMANDS);
            self.start(node)?;
            self.until(AGREE_NS_MAX, "every shard is led again", |run| run.is_led())?;
        }
        Ok(())
    }
}
