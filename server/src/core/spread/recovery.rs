//! What becomes of a transaction whose coordinator does not end it: its participants' leaders see to that by themselves.

use super::{Next, Order, Part, Spread, Stage, Task};
use crate::core::node::Node;
use duva_engine::TransactionName;

/// What a shard's leader finds that is old.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::core) enum Recovery {
    /// A part of it is prepared in `shard`, and nobody has said how it ends: the first participant is asked.
    Ask {
        /// The shard.
        shard: u16,
        /// The shard of the first participant; it may be the same.
        first: u16,
    },
    /// It was committed in `shard`, the first participant: the others are told, until all have confirmed it.
    Tell {
        /// The shard.
        shard: u16,
        /// The others'.
        others: Vec<u16>,
    },
}

impl Node {
    /// Begins what a transaction needs to end, at this time of the groups.
    pub(in crate::core) fn begin_recovery(&mut self, name: TransactionName, recovery: Recovery, now_ns: u64) {
        let shards = self.owners.len();
        let is_known = |shard: &u16| usize::from(*shard) < shards;
        let part = |shard: u16| Part::new(shard, Vec::new());
        let (parts, stage): (Vec<Part>, Stage) = match recovery {
            Recovery::Ask { shard, first } if shard == first => (vec![part(first)], Stage::Ask),
            Recovery::Ask { shard, first } => (vec![part(first), part(shard)], Stage::Ask),
            Recovery::Tell { shard, others } => {
                (std::iter::once(shard).chain(others).map(part).collect(), Stage::Commit)
            }
        };
        if !parts.iter().all(|part| is_known(&part.shard)) {
            return;
        }
        let mut spread = self.new_spread(Task::Recover, parts);
        (spread.name, spread.stage, spread.began_ns) = (name, stage, now_ns);
        if stage == Stage::Ask {
            spread.order(self, Order::Abort, |part, _| part == 0);
        } else {
            spread.order(self, Order::Commit, |part, _| part > 0);
        }
        if spread.waiting == 0 {
            return self.spreads.free.push(spread.place() as u32);
        }
        self.put_spread(spread);
    }
}

impl Spread {
    /// The first participant has said how the transaction ends, if it has.
    pub(super) fn have_asked(&mut self, node: &mut Node) -> Next {
        let order = match &*self.parts[0].reply {
            b"+ABORTED\r\n" => Order::Abort,
            b"+COMMITTED\r\n" => Order::Commit,
            // It is asked again.
            _ => return Next::Ends,
        };
        self.stage = Stage::EndOwn;
        if self.order(node, order, |part, _| part == 1) { Next::Waits } else { Next::Ends }
    }
}
