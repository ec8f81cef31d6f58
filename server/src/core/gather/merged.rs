//! From the parts' replies to the reply of the whole command.

use duva_engine::{
    Reply,
    command::{Flags, Merge, Run, merge},
};

use super::{Advance, Gather, Part};
use crate::core::{
    groups::Verdict,
    node::{Node, Origin},
    request::OwnedRequest,
};

impl Gather {
    pub(super) fn finish_merged(&mut self, node: &mut Node, kind: Merge) -> Advance {
        if kind == Merge::ByKey && self.parts.iter().any(Part::is_long) {
            return self.merge_later(node);
        }
        let mut output = Vec::new();
        let parts: Vec<merge::Part<'_>> = self
            .parts
            .iter()
            .flat_map(|part| {
                let starts = std::iter::once((0, 0)).chain(part.pieces.iter().copied());
                starts.zip(&part.pieces).map(|((key, byte), &(key_end, byte_end))| merge::Part {
                    reply: &part.reply[byte..byte_end],
                    positions: &part.keys[key..key_end],
                })
            })
            .collect();
        // In a cluster every shard has executed it by itself, or has not.
        let is_by_shard = node.groups.is_some() && self.request.command.flags.contains(Flags::WRITE);
        if is_by_shard && matches!(self.request.command.run, Run::Everywhere(..)) {
            let mut verdict = Verdict::default();
            parts.iter().for_each(|part| verdict.note(part.reply));
            if let Some(error) = verdict.error() {
                return self.finish(node, error);
            }
        }
        let draw = node.executor.seed ^ self.key.transaction.0;
        merge::merge(kind, &parts, draw, &mut Reply::new(&mut output, self.request.mode.protocol));
        self.finish(node, &output)
    }

    /// The replies of very many keys are merged over several turns, without locks.
    fn merge_later(&mut self, node: &mut Node) -> Advance {
        let parts = self.parts.iter_mut().map(|part| merge::LongPart {
            reply: std::mem::take(&mut part.reply),
            // They still say how many locks are held.
            positions: part.keys.clone(),
            piece_ends: part.pieces.iter().map(|&(key_end, _)| key_end).collect(),
        });
        let (token, sequence) = (self.token, self.sequence);
        let (command, mode) = (self.request.command, self.request.mode);
        let state = merge::LongMerge::new(parts.collect(), mode.protocol);
        let origin = Origin::Connection { token, sequence, ends_fence: true, command };
        let mut request = Box::new(OwnedRequest::empty());
        (request.command, request.mode) = (command, mode);
        node.begin_job(origin, request, Box::new(state));
        self.release(node);
        self.give_back(node, false)
    }
}
