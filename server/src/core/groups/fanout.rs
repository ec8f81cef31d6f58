//! Commands that every shard executes by itself: FLUSHALL, FLUSHDB, SWAPDB.
//!
//! Invariant: an error that says that nothing was executed is the reply only if that is so in every shard, of all cores.

use super::{Groups, propose::Course};
use crate::core::{
    batch::Answer,
    node::{Node, Origin},
    request::Request,
};
use duva_engine::command::Handler;

/// What is answered when some shards have executed a command, or may have, and others have not.
const PARTLY: &[u8] =
    b"-UNCERTAIN Some shards may have executed the command and others have not: send it again\r\n";

/// A command for all of this core's shards.
pub(super) struct Fanout {
    origin: Origin,
    /// Shards that have not answered.
    waiting: usize,
    verdict: Verdict,
}

/// What the replies of shards come to.
#[derive(Default)]
pub(in crate::core) struct Verdict {
    /// The first error.
    error: Option<Vec<u8>>,
    /// Whether some shard has executed the command, or may have.
    may_be_executed: bool,
}

impl Verdict {
    /// Takes note of one more reply.
    pub(in crate::core) fn note(&mut self, reply: &[u8]) {
        let is_error = reply.first() == Some(&b'-');
        self.may_be_executed |= !is_error || reply.starts_with(b"-UNCERTAIN");
        if is_error && self.error.is_none() {
            self.error = Some(reply.to_vec());
        }
    }

    /// The error that is the reply, if there was one.
    pub(in crate::core) fn error(&self) -> Option<&[u8]> {
        self.error.as_deref().map(|error| if self.may_be_executed { PARTLY } else { error })
    }
}

impl Node {
    /// Gives a command for whole shards to each of this core's.
    pub(super) fn fan_out(
        &mut self,
        groups: &mut Groups,
        (origin, handler): (Origin, Handler),
        request: &mut Request<'_>,
    ) {
        groups.next_order += 1;
        let id = groups.next_order;
        let owners = self.owners.iter().enumerate();
        let own: Vec<usize> =
            owners.filter(|(_, owner)| usize::from(**owner) == self.core).map(|(shard, _)| shard).collect();
        groups.fanouts.insert(id, Fanout { origin, waiting: own.len(), verdict: Verdict::default() });
        let command = request.command;
        for shard in own {
            let origin = Origin::Fanout { id, command };
            let asked = groups.asked(origin, handler, true);
            if let Course::Error(error) = self.take_request(groups, shard as u16, asked, request) {
                self.fanned.push((id, format!("-{error}\r\n").into_bytes()));
            }
        }
    }

    /// Takes the answers of single shards to commands for all of them.
    pub(super) fn take_fanned(&mut self, groups: &mut Groups) {
        for (id, reply) in std::mem::take(&mut self.fanned) {
            let Some(fanout) = groups.fanouts.get_mut(&id) else { continue };
            fanout.waiting -= 1;
            fanout.verdict.note(&reply);
            if fanout.waiting == 0
                && let Some(Fanout { origin, verdict, .. }) = groups.fanouts.remove(&id)
            {
                self.respond(origin, Answer::Reply, verdict.error().unwrap_or(b"+OK\r\n"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_certain_only_if_nobody_has_executed_the_command() {
        let verdict = |replies: &[&'static [u8]]| {
            let mut verdict = Verdict::default();
            replies.iter().for_each(|reply| verdict.note(reply));
            verdict.error().map(<[u8]>::to_vec)
        };
        assert_eq!(verdict(&[b"+OK\r\n", b"+OK\r\n"]), None);
        assert_eq!(
            verdict(&[b"-CLUSTERDOWN a\r\n", b"-MISCONF b\r\n"]),
            Some(b"-CLUSTERDOWN a\r\n".to_vec())
        );
        for other in [&b"+OK\r\n"[..], b"-UNCERTAIN x\r\n"] {
            assert_eq!(verdict(&[b"-CLUSTERDOWN a\r\n", other]), Some(PARTLY.to_vec()));
            assert_eq!(verdict(&[other, b"-CLUSTERDOWN a\r\n"]), Some(PARTLY.to_vec()));
        }
    }
}
