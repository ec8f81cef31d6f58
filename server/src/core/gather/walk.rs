//! KEYS and SCAN: a walk over the shards of core after core, a step at a time.

use duva_engine::{Cursor, Reply, SLOT_COUNT, command};

use super::{Advance, Gather, Phase};
use crate::core::{
    batch::Answer,
    node::{Node, Origin},
    request::Request,
};

impl Gather {
    pub(super) fn walked(&mut self, node: &mut Node) -> Advance {
        let part = &mut self.parts[0];
        let (cursor, visited, emitted) = part.walked.take().expect("a walk's answer says how far it came");
        let core = part.core;
        let Phase::Walk(walk) = &mut self.phase else { unreachable!("only walks come here") };
        walk.bytes.extend_from_slice(&part.reply);
        walk.emitted += emitted;
        walk.remaining = walk.remaining.saturating_sub(visited);
        let next = match cursor {
            Some(cursor) => Some(cursor),
            None => node.next_walk_cursor(walk.cursor, core),
        };
        match next {
            Some(cursor) if walk.remaining > 0 => {
                walk.cursor = cursor;
                self.send_next(node)
            }
            next => {
                let mut output = Vec::new();
                let protocol = self.request.mode.protocol;
                let cursor = Cursor(next.unwrap_or(0));
                command::scan::write_reply(
                    cursor,
                    walk.emitted,
                    &walk.bytes,
                    &mut Reply::new(&mut output, protocol),
                );
                self.finish(node, &output)
            }
        }
    }
}

impl Node {
    /// Where a walk goes on after core `core` has visited its shards from `cursor` on.
    fn next_walk_cursor(&self, cursor: u64, core: usize) -> Option<u64> {
        let shards = &self.executor.shards;
        let number = shards.number_of((cursor >> 50) as u16);
        let next = (number..self.owners.len()).find(|&number| usize::from(self.owners[number]) != core)?;
        let slot = shards.slots_of(next).start;
        debug_assert!(slot < SLOT_COUNT);
        Some(u64::from(slot) << 50)
    }

    /// One step of a walk over this core's shards.
    pub(in crate::core) fn walk(
        &mut self,
        origin: Origin,
        cursor: u64,
        count: usize,
        request: &mut Request<'_>,
    ) {
        let database = request.mode.database;
        let args = request.args();
        let scan = command::scan::parse(&args).expect("the arguments were checked when the walk began");
        let mut output = std::mem::take(&mut self.scratch);
        output.clear();
        let now_ms = self.visible_ms();
        let progress =
            scan.step(&mut self.executor.shards, database, Cursor(cursor), count, now_ms, &mut output);
        let answer = Answer::Walked {
            cursor: progress.cursor.map(|cursor| cursor.0),
            visited: progress.visited,
            emitted: progress.emitted,
        };
        self.respond(origin, answer, &output);
        self.scratch = output;
    }
}
