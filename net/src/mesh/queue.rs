//! One direction between two cores: a bounded single-producer single-consumer ring of batches that stay in place.
//!
//! A slot always holds a batch. Publishing swaps the filled batch into the slot and takes out the one the consumer
//! emptied there a lap ago, so `capacity + 1` batches circulate and keep their memory.
//!
//! Invariants:
//! - `head <= tail <= head + capacity`, both counting batches ever released and published (they may wrap).
//! - Slots `head..tail` belong to the consumer and hold filled batches; the others belong to the producer and hold
//!   empty ones. Only the consumer moves `head` and only the producer moves `tail`: each half is one value that is
//!   neither `Clone` nor usable through a shared reference.
//! - A producer that was refused has set `room_wanted`, and every consumer that later makes room sees it.

use crossbeam_utils::CachePadded;

use super::{
    Batch,
    sync::{Arc, AtomicBool, AtomicUsize, Ordering, UnsafeCell, fence},
};

/// Makes a ring of `capacity` slots and returns its two ends.
///
/// # Panics
/// If `capacity` is not a power of two.
pub(super) fn queue<T: Batch>(capacity: usize) -> (Producer<T>, Consumer<T>) {
    queue_from(capacity, 0)
}

/// The end that fills batches.
pub(super) struct Producer<T> {
    queue: Arc<Queue<T>>,
    /// Our own copy of `Queue::tail`, which nobody else moves.
    tail: usize,
    /// The last `Queue::head` we saw. It only ever understates the room, so a refreshed look is needed only when
    /// the ring seems full, and the consumer's cache line stays with the consumer until then.
    head_seen: usize,
}

impl<T: Batch> Producer<T> {
    /// Moves `batch` into the ring and leaves an empty one in its place, or returns false and changes nothing.
    ///
    /// After false, the [`Consumer::take_room_wanted`] that follows the consumer's next release returns true.
    #[inline]
    #[must_use]
    pub(super) fn publish(&mut self, batch: &mut T) -> bool {
        if !self.has_room() {
            return false;
        }
        self.queue.slot(self.tail).with_mut(|slot| {
            // SAFETY: slot `tail` is outside `head..tail`, so it is the producer's, and `&mut self` makes us the only
            // producer. The consumer's last use of it happened before the store of `head` that freed it, which
            // `has_room` (now or earlier) loaded with Acquire.
            let slot = unsafe { &mut *slot };
            std::mem::swap(slot, batch);
        });
        self.tail = self.tail.wrapping_add(1);
        // Release: whoever sees this tail sees the batch in its slot.
        self.queue.tail.store(self.tail, Ordering::Release);
        true
    }

    #[inline]
    fn has_room(&mut self) -> bool {
        self.tail.wrapping_sub(self.head_seen) < self.queue.slots.len() || self.find_room()
    }

    /// The ring seemed full: looks again, and asks to be told of room if it still is.
    #[cold]
    fn find_room(&mut self) -> bool {
        if self.refresh_head() {
            return true;
        }
        self.queue.consumer.room_wanted.store(true, Ordering::Relaxed);
        // Pairs with the fence that precedes `take_room_wanted`: if the look below still misses the consumer's
        // release, then that consumer's look at `room_wanted` comes after our store, and sees it.
        fence(Ordering::SeqCst);
        if self.refresh_head() {
            // Withdrawn as a courtesy. Losing a race here costs the consumer one needless notice, nothing else.
            self.queue.consumer.room_wanted.store(false, Ordering::Relaxed);
            return true;
        }
        false
    }

    fn refresh_head(&mut self) -> bool {
        // Acquire: the consumer is done with every slot below this head.
        self.head_seen = self.queue.consumer.head.load(Ordering::Acquire);
        let used = self.tail.wrapping_sub(self.head_seen);
        assert!(used <= self.queue.slots.len(), "the consumer released a batch that was never published");
        used < self.queue.slots.len()
    }
}

/// The end that empties batches.
pub(super) struct Consumer<T> {
    queue: Arc<Queue<T>>,
    /// Our own copy of `head`, which nobody else moves.
    head: usize,
}

impl<T: Batch> Consumer<T> {
    /// Calls `receive` with every batch published by now, in order, and returns how many they were. Each slot is
    /// released as soon as its batch is emptied. Batches published meanwhile wait for the next call, which bounds
    /// this one by the capacity.
    ///
    /// # Panics
    /// If `receive` leaves a batch that is not empty: it would be delivered a second time, a lap later.
    #[inline]
    pub(super) fn drain(&mut self, mut receive: impl FnMut(&mut T)) -> usize {
        // Acquire: the batches below this tail are visible to us. No copy is kept between calls, because a call is
        // made only when the inbox says that the tail moved.
        let tail = self.queue.tail.load(Ordering::Acquire);
        let available = tail.wrapping_sub(self.head);
        assert!(available <= self.queue.slots.len(), "the producer overran the ring");
        while self.head != tail {
            self.queue.slot(self.head).with_mut(|slot| {
                // SAFETY: slot `head` is within `head..tail`, so it is the consumer's until `head` moves past it
                // below, and `&mut self` makes us the only consumer. The producer's last use of it happened before
                // the store of the tail loaded above with Acquire.
                let batch = unsafe { &mut *slot };
                receive(batch);
                assert!(batch.is_empty(), "a received batch must be emptied");
            });
            self.head = self.head.wrapping_add(1);
            // Release: a producer that sees this head finds the slot's batch emptied and no longer borrowed.
            self.queue.consumer.head.store(self.head, Ordering::Release);
        }
        available
    }

    /// Whether the producer was refused and waits to hear of room; asking withdraws its request.
    ///
    /// The caller must have made a `SeqCst` fence since the last [`Consumer::drain`]. It is the caller's so that
    /// one fence serves all the rings drained in a turn.
    #[inline]
    pub(super) fn take_room_wanted(&mut self) -> bool {
        let room_wanted = &self.queue.consumer.room_wanted;
        if !room_wanted.load(Ordering::Relaxed) {
            return false;
        }
        // A plain store may overwrite a newer request. That one is served as well: the notice the caller sends
        // after this is then still to be seen by the producer, who will try again and ask again if refused.
        room_wanted.store(false, Ordering::Relaxed);
        true
    }
}

struct Queue<T> {
    /// Batches ever published. Written by the producer.
    tail: CachePadded<AtomicUsize>,
    consumer: CachePadded<ConsumerSide>,
    /// A power of two of them, padded so that filling one does not disturb the emptying of its neighbour.
    slots: Box<[CachePadded<UnsafeCell<T>>]>,
}

/// What the consumer touches at every drain, on one line of its own.
struct ConsumerSide {
    /// Batches ever released. Written by the consumer.
    head: AtomicUsize,
    /// Set by a producer that was refused (it had to read this line anyway), cleared by whoever serves it.
    room_wanted: AtomicBool,
}

// SAFETY: the two ends share the slots' batches by turns, never at once: the module's second invariant says which end
// owns a slot, and the Release/Acquire pairs on `head` and `tail` order one owner's accesses before the next one's.
// A batch is thus only ever sent, hence `T: Send`.
unsafe impl<T: Send> Sync for Queue<T> {}

impl<T> Queue<T> {
    #[inline(always)]
    fn slot(&self, index: usize) -> &UnsafeCell<T> {
        &self.slots[index & (self.slots.len() - 1)]
    }
}

/// [`queue`] with its counters at `start`, so that tests reach the wrap of the counters themselves.
fn queue_from<T: Batch>(capacity: usize, start: usize) -> (Producer<T>, Consumer<T>) {
    assert!(
        capacity.is_power_of_two(),
        "the capacity of a mesh queue must be a power of two, not {capacity}"
    );
    let queue = Arc::new(Queue {
        tail: CachePadded::new(AtomicUsize::new(start)),
        consumer: CachePadded::new(ConsumerSide {
            head: AtomicUsize::new(start),
            room_wanted: AtomicBool::new(false),
        }),
        slots: (0..capacity).map(|_| CachePadded::new(UnsafeCell::new(T::default()))).collect(),
    });
    (Producer { queue: Arc::clone(&queue), tail: start, head_seen: start }, Consumer { queue, head: start })
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Publishes a batch of one value; false is a full ring, and the value stays behind.
    fn send(producer: &mut Producer<Vec<usize>>, value: usize) -> bool {
        let mut batch = vec![value];
        let sent = producer.publish(&mut batch);
        assert_eq!(batch.is_empty(), sent, "a publish takes the whole batch or nothing");
        sent
    }

    fn drain(consumer: &mut Consumer<Vec<usize>>) -> Vec<usize> {
        let mut received = Vec::new();
        let count = consumer.drain(|batch| received.append(batch));
        assert_eq!(count, received.len());
        received
    }

    #[test]
    fn batches_arrive_once_and_in_order() {
        let (mut producer, mut consumer) = queue(4);
        assert_eq!(drain(&mut consumer), []);
        for value in 0..3 {
            assert!(send(&mut producer, value));
        }
        assert_eq!(drain(&mut consumer), [0, 1, 2]);
        assert_eq!(drain(&mut consumer), []);
    }

    #[test]
    fn a_full_ring_refuses_and_asks_for_room_once() {
        for capacity in [1, 2, 8] {
            let (mut producer, mut consumer) = queue(capacity);
            for value in 0..capacity {
                assert!(send(&mut producer, value));
            }
            assert!(!consumer.take_room_wanted(), "a full ring is no refusal yet");
            assert!(!send(&mut producer, 100));
            assert_eq!(drain(&mut consumer), (0..capacity).collect::<Vec<_>>());
            assert!(consumer.take_room_wanted());
            assert!(!consumer.take_room_wanted());
            assert!(send(&mut producer, 101));
            assert_eq!(drain(&mut consumer), [101]);
            assert!(!consumer.take_room_wanted());
        }
    }

    #[test]
    fn counters_wrap_without_losing_a_batch() {
        for capacity in [1, 4] {
            let (mut producer, mut consumer) = queue_from(capacity, usize::MAX - 5);
            for lap in 0..12 {
                for value in 0..capacity {
                    assert!(send(&mut producer, lap * 10 + value));
                }
                assert!(!send(&mut producer, 999));
                assert_eq!(drain(&mut consumer), (0..capacity).map(|v| lap * 10 + v).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn buffers_circulate_and_none_is_allocated_after_the_first_lap() {
        let capacity = 4;
        let (mut producer, mut consumer) = queue::<Vec<u8>>(capacity);
        let mut open = Vec::new();
        let mut buffers = std::collections::BTreeSet::new();
        for _ in 0..10 * capacity {
            if open.capacity() == 0 {
                open.reserve_exact(64);
            }
            buffers.insert(open.as_ptr());
            open.push(7);
            assert!(producer.publish(&mut open));
            consumer.drain(Vec::clear);
        }
        assert_eq!(buffers.len(), capacity + 1);
    }

    #[test]
    #[should_panic(expected = "must be emptied")]
    fn a_batch_left_filled_is_refused() {
        let (mut producer, mut consumer) = queue(2);
        assert!(send(&mut producer, 1));
        consumer.drain(|_| {});
    }

    #[test]
    #[should_panic(expected = "power of two")]
    fn an_odd_capacity_is_refused() {
        drop(queue::<Vec<u8>>(3));
    }

    #[test]
    fn undelivered_batches_are_freed_with_the_ring() {
        let tracked = Arc::new(());
        let (mut producer, consumer) = queue::<Vec<Arc<()>>>(2);
        for _ in 0..2 {
            assert!(producer.publish(&mut vec![Arc::clone(&tracked)]));
        }
        drop(producer);
        assert_eq!(Arc::strong_count(&tracked), 3, "the consumer may still want them");
        drop(consumer);
        assert_eq!(Arc::strong_count(&tracked), 1);
    }
}
