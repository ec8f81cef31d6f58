//! A queue in blocks: it grows without moving what it holds.
//!
//! A `VecDeque` doubles, and copies itself into memory that the kernel has to clear first. Groups whose keys are spread evenly reach
//! the same length at the same time, so all of a core's logs would do so in one turn.
//!
//! # Invariants
//!
//! - Every block but the first and the last one holds [`BLOCK_ITEMS`], and none is empty.

use std::{
    collections::VecDeque,
    ops::{Index, Range},
};

/// Items of a block.
const BLOCK_ITEMS: usize = 64;

/// Items that come at the back and go at either end.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    blocks: VecDeque<VecDeque<T>>,
    len: usize,
    /// An empty block, so that a queue that neither grows nor shrinks allocates nothing.
    spare: Option<VecDeque<T>>,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { blocks: VecDeque::new(), len: 0, spare: None }
    }
}

impl<T> Queue<T> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn push_back(&mut self, item: T) {
        if self.blocks.back().is_none_or(|block| block.len() == BLOCK_ITEMS) {
            let block = self.spare.take().unwrap_or_else(|| VecDeque::with_capacity(BLOCK_ITEMS));
            self.blocks.push_back(block);
        }
        self.blocks.back_mut().expect("there is one now").push_back(item);
        self.len += 1;
    }

    pub(crate) fn front(&self) -> Option<&T> {
        self.blocks.front()?.front()
    }

    pub(crate) fn pop_front(&mut self) -> Option<T> {
        let block = self.blocks.front_mut()?;
        let item = block.pop_front();
        if block.is_empty() {
            self.spare = self.blocks.pop_front();
        }
        self.len -= 1;
        item
    }

    pub(crate) fn pop_back(&mut self) -> Option<T> {
        let block = self.blocks.back_mut()?;
        let item = block.pop_back();
        if block.is_empty() {
            self.spare = self.blocks.pop_back();
        }
        self.len -= 1;
        item
    }

    pub(crate) fn clear(&mut self) {
        self.blocks.clear();
        self.len = 0;
    }

    /// Those at some places, counted from the front.
    ///
    /// # Panics
    ///
    /// Panics, once it comes there, if the range ends behind the last one.
    pub(crate) fn range(&self, range: Range<usize>) -> impl ExactSizeIterator<Item = &T> {
        range.map(|place| &self[place])
    }
}

impl<T> Index<usize> for Queue<T> {
    type Output = T;

    fn index(&self, place: usize) -> &T {
        let first_len = self.blocks.front().map_or(0, VecDeque::len);
        match place.checked_sub(first_len) {
            None => &self.blocks[0][place],
            Some(behind) => &self.blocks[1 + behind / BLOCK_ITEMS][behind % BLOCK_ITEMS],
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Push(usize),
        PopFront(usize),
        PopBack(usize),
        Clear,
    }

    fn step() -> impl Strategy<Value = Step> {
        let count = || 0..3 * BLOCK_ITEMS;
        prop_oneof![
            4 => count().prop_map(Step::Push),
            2 => count().prop_map(Step::PopFront),
            2 => count().prop_map(Step::PopBack),
            1 => Just(Step::Clear),
        ]
    }

    proptest! {
        #[test]
        fn it_holds_what_a_deque_does(steps in prop::collection::vec(step(), 0..40)) {
            let (mut queue, mut deque) = (Queue::default(), VecDeque::new());
            let mut next = 0..;
            for step in steps {
                match step {
                    Step::Push(count) => next.by_ref().take(count).for_each(|item: u32| {
                        queue.push_back(item);
                        deque.push_back(item);
                    }),
                    Step::PopFront(count) => (0..count).for_each(|_| {
                        assert_eq!(queue.pop_front(), deque.pop_front());
                    }),
                    Step::PopBack(count) => (0..count).for_each(|_| {
                        assert_eq!(queue.pop_back(), deque.pop_back());
                    }),
                    Step::Clear => {
                        queue.clear();
                        deque.clear();
                    }
                }
                prop_assert_eq!(queue.len(), deque.len());
                prop_assert_eq!(queue.front(), deque.front());
                prop_assert!(queue.range(0..deque.len()).eq(deque.iter()));
                let middle = deque.len() / 3..deque.len() / 2;
                prop_assert!(queue.range(middle.clone()).eq(deque.range(middle)));
                prop_assert!(queue.blocks.iter().all(|block| block.capacity() == BLOCK_ITEMS));
            }
        }
    }

    #[test]
    fn blocks_are_used_again() {
        let mut queue = Queue::default();
        (0..BLOCK_ITEMS).for_each(|item| queue.push_back(item));
        queue.push_back(BLOCK_ITEMS);
        let first = queue.blocks[0].as_slices().0.as_ptr();
        (0..BLOCK_ITEMS).for_each(|item| assert_eq!(queue.pop_front(), Some(item)));
        (0..BLOCK_ITEMS).for_each(|item| queue.push_back(item));
        assert_eq!((queue.blocks.len(), queue.blocks[1].as_slices().0.as_ptr()), (2, first));
    }
}
