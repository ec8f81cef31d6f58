//! Replies that wait for one another.
//!
//! Invariant: replies leave in request order. Slots exist only from a connection's first unfinished request on;
//! with none, results are written straight into its output.

use std::{collections::VecDeque, ops::Range};

/// Numbers a connection's waiting replies; wraps.
pub type Sequence = u32;

/// The ordered reply slots of one connection.
#[derive(Default)]
pub struct PendingReplies {
    slots: VecDeque<Slot>,
    /// The number of the first slot.
    first: Sequence,
    /// Finished replies behind an unfinished one.
    held: Vec<u8>,
    /// How many slots have their bytes in `held`.
    held_count: usize,
}

enum Slot {
    Waiting { discard: bool },
    Ready(Range<usize>),
}

impl PendingReplies {
    /// Whether nothing waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// How many replies are held or awaited.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Bytes that are held.
    pub fn held_bytes(&self) -> usize {
        self.held.len()
    }

    /// Adds a slot for a reply that comes later; `discard`: it will not be sent (CLIENT REPLY).
    pub fn wait(&mut self, discard: bool) -> Sequence {
        self.slots.push_back(Slot::Waiting { discard });
        self.first.wrapping_add(self.slots.len() as u32 - 1)
    }

    /// The number of the slot that is added next.
    pub fn next_sequence(&self) -> Sequence {
        self.first.wrapping_add(self.slots.len() as u32)
    }

    /// The buffer for a reply that is finished now but must wait; call [`Self::held_from`] once it is written.
    pub fn held(&mut self) -> &mut Vec<u8> {
        &mut self.held
    }

    /// Adds a slot for what was written to `held` from `start` on.
    pub fn held_from(&mut self, start: usize) {
        debug_assert!(!self.slots.is_empty());
        self.held_count += 1;
        self.slots.push_back(Slot::Ready(start..self.held.len()));
    }

    /// The reply to slot `sequence` arrived. What can leave now is appended to `output`.
    pub fn complete(&mut self, sequence: Sequence, reply: &[u8], output: &mut Vec<u8>) {
        let index = sequence.wrapping_sub(self.first) as usize;
        let slot = &mut self.slots[index];
        let Slot::Waiting { discard } = *slot else { panic!("reply {sequence} arrived twice") };
        let reply = if discard { &[] } else { reply };
        if index > 0 {
            let start = self.held.len();
            self.held.extend_from_slice(reply);
            self.held_count += 1;
            *slot = Slot::Ready(start..self.held.len());
            return;
        }
        output.extend_from_slice(reply);
        self.slots.pop_front();
        self.first = self.first.wrapping_add(1);
        while let Some(Slot::Ready(range)) = self.slots.front() {
            output.extend_from_slice(&self.held[range.clone()]);
            self.slots.pop_front();
            self.first = self.first.wrapping_add(1);
            self.held_count -= 1;
        }
        if self.held_count == 0 {
            self.held.clear();
            self.held.shrink_to(64 << 10);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_leave_in_request_order() {
        let mut pending = PendingReplies::default();
        let mut output = Vec::new();
        let first = pending.wait(false);
        let start = pending.held().len();
        pending.held().extend_from_slice(b"2");
        pending.held_from(start);
        let third = pending.wait(false);
        let fourth = pending.wait(true);
        let start = pending.held().len();
        pending.held().extend_from_slice(b"5");
        pending.held_from(start);
        pending.complete(fourth, b"4", &mut output);
        pending.complete(third, b"3", &mut output);
        assert!(output.is_empty());
        pending.complete(first, b"1", &mut output);
        assert_eq!(output, b"1235");
        assert!(pending.is_empty());
        assert_eq!(pending.held_bytes(), 0);
    }
}
