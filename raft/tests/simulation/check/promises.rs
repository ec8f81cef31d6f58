//! What a replica promises to others it has on its disk.

use std::collections::BTreeMap;

use duva_raft::{Body, HardState, Index, Message, ReplicaId, Term};

use super::{Event, Violation};

/// Who got whose vote in which term.
#[derive(Default)]
pub(super) struct Promises {
    votes: BTreeMap<(ReplicaId, Term), ReplicaId>,
}

impl Promises {
    pub(super) fn see(&mut self, event: Event<'_>) -> Result<(), Violation> {
        let Event::Sent { message, hard_state, durable, .. } = event else { return Ok(()) };
        match message.body {
            Body::Vote { .. } => self.vote(message, hard_state, message.from),
            Body::VoteReply { granted: true } => self.vote(message, hard_state, message.to),
            Body::AppendReply { match_index } => acknowledge(message, match_index, durable),
            _ => Ok(()),
        }
    }

    fn vote(&mut self, message: &Message, hard_state: HardState, to: ReplicaId) -> Result<(), Violation> {
        let (from, term) = (message.from, message.term);
        let is_durable = hard_state.term > term || hard_state == HardState { term, vote: Some(to) };
        if !is_durable {
            let what =
                format!("{from:?} votes for {to:?} in term {term} while its disk holds {hard_state:?}");
            return Err(Violation::new("persist before send", what));
        }
        let &mut first = self.votes.entry((from, term)).or_insert(to);
        if first != to {
            let what = format!("{from:?} votes for {first:?} and for {to:?} in term {term}");
            return Err(Violation::new("one vote a term", what));
        }
        Ok(())
    }
}

fn acknowledge(message: &Message, match_index: Index, durable: Index) -> Result<(), Violation> {
    if match_index <= durable {
        return Ok(());
    }
    let from = message.from;
    let what = format!("{from:?} acknowledges entry {match_index} while its disk holds {durable}");
    Err(Violation::new("persist before send", what))
}
