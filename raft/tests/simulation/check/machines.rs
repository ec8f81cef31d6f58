//! What the state machines did: the same everywhere, everything once, and nothing acknowledged forgotten.

use std::collections::BTreeMap;

use duva_raft::{Index, ReplicaId};

use super::{Event, Outcome, Violation};
use crate::simulation::machine::Reply;

#[derive(Default)]
struct Group {
    /// The digest of the state after each entry, from index 1 on.
    digests: Vec<u64>,
    /// Where each client's requests took effect, and with what reply.
    executed: BTreeMap<(u64, u64), (Index, Reply)>,
    /// The last entry whose effect a client was told.
    acknowledged: Index,
}

/// The state machines of all groups.
pub(super) struct Machines {
    groups: Vec<Group>,
    /// Where a client's present request goes.
    requests: BTreeMap<u64, usize>,
}

impl Machines {
    pub(super) fn new(groups: usize) -> Self {
        Self { groups: (0..groups).map(|_| Group::default()).collect(), requests: BTreeMap::new() }
    }

    pub(super) fn see(&mut self, event: Event<'_>) -> Result<(), Violation> {
        match event {
            Event::Applied { group, replica, entry, digest, .. } => {
                self.state(group, replica, entry.index, digest)
            }
            Event::Installed { group, replica, snapshot, digest: Some(digest) } => {
                self.state(group, replica, snapshot.0, digest)
            }
            Event::Executed { group, index, command, reply } => {
                let key = (command.client, command.request);
                let &mut first = self.groups[group].executed.entry(key).or_insert((index, reply));
                if first == (index, reply) {
                    return Ok(());
                }
                let what = format!("{command:?} took effect with entry {index} and with entry {}", first.0);
                Err(Violation::new("exactly once", what))
            }
            Event::Invoked { operation, .. } => {
                self.requests.insert(operation.client, operation.group);
                Ok(())
            }
            Event::Returned { client, request, result: Outcome::Wrote(reply), .. } => {
                let group = self.requests.get(&client).copied().unwrap_or(0);
                self.acknowledge(group, client, request, reply)
            }
            _ => Ok(()),
        }
    }

    fn state(
        &mut self,
        group: usize,
        replica: ReplicaId,
        index: Index,
        digest: u64,
    ) -> Result<(), Violation> {
        let digests = &mut self.groups[group].digests;
        match digests.get(index as usize - 1) {
            None if index as usize == digests.len() + 1 => digests.push(digest),
            Some(&other) if other == digest => {}
            _ => {
                let what = format!("after entry {index} the state of {replica:?} is another than elsewhere");
                return Err(Violation::new("state machine safety", what));
            }
        }
        Ok(())
    }

    fn acknowledge(
        &mut self,
        group: usize,
        client: u64,
        request: u64,
        reply: Reply,
    ) -> Result<(), Violation> {
        let group = &mut self.groups[group];
        match group.executed.get(&(client, request)) {
            Some(&(index, executed)) if executed == reply => {
                group.acknowledged = group.acknowledged.max(index);
                Ok(())
            }
            other => {
                let what = format!(
                    "client {client} was told {reply:?} of request {request}, but there is {other:?}"
                );
                Err(Violation::new("acknowledged durability", what))
            }
        }
    }

    pub(super) fn see_end(
        &mut self,
        group: usize,
        replica: ReplicaId,
        applied: Index,
        digest: u64,
    ) -> Result<(), Violation> {
        let (last, acknowledged) =
            (self.groups[group].digests.len() as Index, self.groups[group].acknowledged);
        if applied < acknowledged {
            let what = format!("{replica:?} ends with entry {applied}, a client was told of {acknowledged}");
            return Err(Violation::new("acknowledged durability", what));
        }
        if applied < last {
            let what = format!("{replica:?} ends with entry {applied}, somebody applied {last}");
            return Err(Violation::new("leader completeness", what));
        }
        if applied == 0 { Ok(()) } else { self.state(group, replica, applied, digest) }
    }
}
