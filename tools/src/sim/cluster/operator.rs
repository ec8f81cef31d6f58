//! Whoever runs the cluster: has a node forgotten that is gone for good, and lets another one in, in either order.
//!
//! Nothing of it is done once and believed: what was asked for is asked again until the cluster shows that it is so.

use std::collections::VecDeque;

use duva_server::cluster::{join::JoinAnswer, view::node_id_text};

use super::{
    io::address_of,
    network::{End, News},
    world::{PEER_PORT, World},
};
use crate::sim::{
    resp::{self, Reply},
    trace,
};

/// How long an answer is waited for, in nanoseconds.
const PATIENCE_NS: u64 = 3_000_000_000;

/// How long until it is asked again, at most, in nanoseconds.
const REST_NS: u64 = 300_000_000;

/// What is to be done.
#[derive(Clone, Copy)]
enum Errand {
    /// To let a node with this id in, which is to run on this machine.
    LetIn(usize, [u8; 16]),
    /// To have the node with this id forgotten.
    Forget([u8; 16]),
}

/// What was asked of a node.
struct Asked {
    end: End,
    errand: Errand,
    partial: Vec<u8>,
    deadline_ns: u64,
}

/// Whoever runs the cluster.
#[derive(Default)]
pub(super) struct Operator {
    errands: VecDeque<Errand>,
    asked: Option<Asked>,
    at_ns: u64,
}

impl Operator {
    /// A node is gone for good.
    pub(super) fn forget(&mut self, id: [u8; 16]) {
        self.errands.push_back(Errand::Forget(id));
    }

    /// Another one is to begin on a machine.
    pub(super) fn let_in(&mut self, node: usize, id: [u8; 16]) {
        self.errands.push_back(Errand::LetIn(node, id));
    }

    /// Whether nothing is to be done.
    pub(super) fn is_done(&self) -> bool {
        self.errands.is_empty()
    }

    /// When it does something next; it may be in the past.
    pub(super) fn next_ns(&self, world: &World) -> Option<u64> {
        match &self.asked {
            Some(asked) => Some(world.network.next_ns(asked.end).unwrap_or(u64::MAX).min(asked.deadline_ns)),
            None => (!self.is_done()).then_some(self.at_ns),
        }
    }

    /// Does what it can do now; returns the machine on which a node may begin now, and what the cluster tells it.
    ///
    /// # Errors
    /// What is wrong with what it was answered.
    pub(super) fn step(&mut self, world: &mut World) -> Result<Option<(usize, JoinAnswer)>, String> {
        let now_ns = world.now_ns;
        let Some(mut asked) = self.asked.take() else {
            self.ask(world);
            return Ok(None);
        };
        match world.network.news(asked.end, now_ns) {
            Some(News::Bytes(count)) => asked.partial.extend(world.network.receive(asked.end, count)),
            None if now_ns < asked.deadline_ns => {
                self.asked = Some(asked);
                return Ok(None);
            }
            Some(News::Ended(_) | News::Broken(_)) | None => {
                self.rest(asked.end, world);
                return Ok(None);
            }
        }
        let Some((reply, _)) = resp::read_reply(&asked.partial)? else {
            self.asked = Some(asked);
            return Ok(None);
        };
        trace::note(|| format!("{now_ns} the operator gets {}", reply.shown()));
        self.rest(asked.end, world);
        let outcome = match (asked.errand, reply) {
            (Errand::LetIn(node, _), Reply::Bulk(bytes)) => {
                let answer = JoinAnswer::decode(&bytes).map_err(|error| error.to_string())?;
                Some((node, answer))
            }
            (Errand::Forget(_), Reply::Error(text)) if text.starts_with(b"ERR Unknown node") => None,
            // It is not so yet.
            (Errand::Forget(_), Reply::Simple(_)) => return Ok(None),
            (_, Reply::Error(text)) if is_for_later(&text) => return Ok(None),
            (_, other) => return Err(format!("the operator is answered {}", other.shown())),
        };
        self.errands.pop_front();
        Ok(outcome)
    }

    fn rest(&mut self, end: End, world: &mut World) {
        world.network.close(end, true, world.now_ns);
        self.at_ns = world.now_ns + world.random.below(REST_NS);
    }

    /// Asks any node for any of what is to be done, which comes first then.
    fn ask(&mut self, world: &mut World) {
        let (now_ns, machines) = (world.now_ns, world.machines.len());
        self.errands.rotate_left(world.random.index(self.errands.len()));
        let node = world.random.index(machines);
        let Some(end) = world.connect(node) else {
            self.at_ns = now_ns + world.random.below(REST_NS);
            return;
        };
        let errand = self.errands[0];
        let words = match errand {
            Errand::LetIn(node, id) => {
                let id = format!("{:032x}", u128::from_be_bytes(id));
                let host = address_of(node).to_string();
                vec![
                    "CLUSTER".to_owned(),
                    "JOIN".to_owned(),
                    id,
                    host,
                    "7000".to_owned(),
                    PEER_PORT.to_string(),
                ]
            }
            Errand::Forget(id) => vec!["CLUSTER".to_owned(), "FORGET".to_owned(), node_id_text(&id)],
        };
        trace::note(|| format!("{now_ns} the operator asks node {}: {}", node + 1, words.join(" ")));
        let words: Vec<Vec<u8>> = words.into_iter().map(String::into_bytes).collect();
        let mut bytes = Vec::new();
        resp::write_request(&words, &mut bytes);
        world.network.send(end, &bytes, now_ns);
        self.asked = Some(Asked { end, errand, partial: Vec::new(), deadline_ns: now_ns + PATIENCE_NS });
    }
}

/// Whether a refusal says that something has to happen first.
fn is_for_later(text: &[u8]) -> bool {
    ["TRYAGAIN", "NOTMETALEADER", "LOADING", "CLUSTERDOWN", "ERR The node is up"]
        .iter()
        .any(|start| text.starts_with(start.as_bytes()))
}
