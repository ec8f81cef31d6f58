//! The mesh: how cores hand each other work without locks, system calls or allocation.
//!
//! Every ordered pair of cores (a core and itself included) has one bounded single-producer single-consumer queue.
//! Its unit is a *batch*, whatever the user's type [`Batch`] holds: a turn's requests, replies, handed-over sockets.
//! A sender fills the *open* batch for a core, as much as it likes, and publishes it once a turn; the receiver gets
//! it in place, empties it and so gives it back. Batches circulate within their pair and keep their memory, so in
//! the steady state nothing is allocated. A batch's memory is first touched by the core that first fills it.
//!
//! # A turn
//! ```
//! # fn turn(endpoint: &mut duva_net::mesh::Endpoint<Vec<u64>>) {
//! # let (wake, wait, poll) = (|_core: usize| {}, || {}, || {});
//! endpoint.exchange(|from, batch, outbox| {
//!     for request in batch.drain(..) {
//!         outbox.outgoing(from).push(request + 1);
//!     }
//! });
//! endpoint.publish_all(wake); // `wake` sends a message to that core's kernel ring
//! if endpoint.prepare_sleep() {
//!     wait();
//!     endpoint.awake();
//! } else {
//!     poll();
//! }
//! # }
//! # let mut endpoints = duva_net::mesh::mesh::<Vec<u64>>(1, 2);
//! # endpoints[0].outgoing(0).push(1);
//! # endpoints[0].publish_all(|_| {});
//! # turn(&mut endpoints[0]);
//! # endpoints[0].receive(|_, batch| assert_eq!(batch.drain(..).collect::<Vec<_>>(), [2]));
//! ```
//!
//! # Bounds
//! A full queue refuses a publish and nothing is lost: the batch stays open and may keep growing. Only the user can
//! bound it, by a window of outstanding requests for each pair; replies then never exceed what was asked for. Hence
//! replies never wait for room elsewhere and two full cores cannot deadlock. A refused sender may sleep: the receiver
//! notifies it at the end of the turn that makes room.
//!
//! As a full queue costs nothing but larger batches, small capacities are best: all `capacity + 1` batches of a pair
//! are used in rotation, and fewer of them stay in cache.
//!
//! # Invariants
//! - Batches of one pair arrive once, in order, complete.
//! - An event for a core (a batch, or room for one it was refused) leaves a bit in that core's inbox. A core asleep
//!   with a bit set has been, or is being, woken: some core was told to do so, and only one for each sleep.
//! - Before a core sleeps, each of its open batches was published, is empty, or was refused; and the room it made was
//!   announced. [`Endpoint::prepare_sleep`] asserts it.
//!
//! # Proof
//! All orderings are argued where they are used, and explored by the loom models in `tests/mesh_loom.rs`:
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test -p duva-net --test mesh_loom --release
//! ```

mod core_set;
mod inbox;
mod queue;
mod sync;

use std::{cell::Cell, fmt, marker::PhantomData};

use core_set::CoreSet;
use inbox::Inbox;
use queue::{Consumer, Producer};
use sync::{Arc, Ordering, fence};

/// What travels: buffers that are filled by one core and emptied by another.
///
/// `default()` is an empty batch. It should own no memory, because `capacity + 1` of them are made for every pair,
/// by whichever thread calls [`mesh`]. Batches are swapped, so a few words (vectors, not arrays) are best.
pub trait Batch: Default + Send {
    /// Whether there is nothing in it to deliver. Memory kept for reuse does not count.
    fn is_empty(&self) -> bool;
}

impl<T: Send> Batch for Vec<T> {
    fn is_empty(&self) -> bool {
        Vec::is_empty(self)
    }
}

/// Connects `cores` cores, every one with every one, by queues of `capacity` batches. The result holds one endpoint
/// for each core, in order; each is to be moved to its core's thread.
///
/// # Panics
/// If `cores` is zero or `capacity` is not a power of two.
#[must_use]
pub fn mesh<T: Batch>(cores: usize, capacity: usize) -> Vec<Endpoint<T>> {
    assert!(cores > 0, "a mesh needs a core");
    let inboxes: Vec<Arc<Inbox>> = (0..cores).map(|_| Arc::new(Inbox::new(cores))).collect();
    let mut incoming: Vec<Vec<Consumer<T>>> = (0..cores).map(|_| Vec::with_capacity(cores)).collect();
    let outboxes: Vec<Outbox<T>> = (0..cores)
        .map(|core| {
            let lanes = inboxes.iter().zip(&mut incoming).map(|(inbox, incoming)| {
                let (producer, consumer) = queue::queue(capacity);
                incoming.push(consumer);
                Lane { open: T::default(), producer, inbox: Arc::clone(inbox) }
            });
            Outbox { core, lanes: lanes.collect(), open: CoreSet::new(cores), refused: CoreSet::new(cores) }
        })
        .collect();
    outboxes
        .into_iter()
        .zip(incoming)
        .zip(inboxes)
        .map(|((outbox, incoming), inbox)| Endpoint {
            outbox,
            incoming: incoming.into_boxed_slice(),
            inbox,
            taken: CoreSet::new(cores),
            drained: CoreSet::new(cores),
            first: 0,
            not_sync: PhantomData,
        })
        .collect()
}

/// What became of an open batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a receiver that sleeps must be woken, and a full queue presses back"]
pub enum Publish {
    /// The receiver has it, and the open batch is empty. (An empty batch is not sent at all, and counts as sent.)
    Sent {
        /// The receiver sleeps and this caller, of all senders, must wake it.
        wake: bool,
    },
    /// The queue is full and the batch stays open. This core is notified when there is room: it will not sleep past
    /// it, or be woken.
    Full,
}

/// One core's access to the mesh: sends to and receives from every core.
pub struct Endpoint<T> {
    outbox: Outbox<T>,
    /// By sender.
    incoming: Box<[Consumer<T>]>,
    inbox: Arc<Inbox>,
    /// Senders whose inbox bits were taken and whose queues are still to be drained. Empty between two calls of
    /// `exchange`, unless one panicked.
    taken: CoreSet,
    /// Senders whose queues were drained and who have not been told of the room.
    drained: CoreSet,
    /// The sender to be served first, another one each time.
    first: usize,
    /// `sleeping` speaks for one thread, so an endpoint is not to be shared, though nothing would break memory.
    not_sync: PhantomData<Cell<()>>,
}

impl<T: Batch> Endpoint<T> {
    /// The core this endpoint belongs to.
    #[inline]
    #[must_use]
    pub fn core(&self) -> usize {
        self.outbox.core()
    }

    /// How many cores the mesh connects.
    #[inline]
    #[must_use]
    pub fn cores(&self) -> usize {
        self.outbox.cores()
    }

    /// The open batch for `core`: see [`Outbox::outgoing`].
    #[inline]
    pub fn outgoing(&mut self, core: usize) -> &mut T {
        self.outbox.outgoing(core)
    }

    /// Publishes the open batch for `core`: see [`Outbox::publish`].
    #[inline]
    pub fn publish(&mut self, core: usize) -> Publish {
        self.outbox.publish(core)
    }

    /// Ends a turn: publishes every open batch that is not empty, tells refused senders of the room that receiving
    /// made, and calls `wake` with each core that the caller must wake. Cores neither sent to nor heard from cost
    /// nothing.
    ///
    /// Returns whether everything was sent; batches refused by a full queue stay open and are tried again next time.
    pub fn publish_all(&mut self, mut wake: impl FnMut(usize)) -> bool {
        self.announce_room(&mut wake);
        self.outbox.publish_all(&mut wake)
    }

    /// Calls `receive` with the sender and each batch that is available now, and returns how many there were. The
    /// batches of one sender come in order; which sender comes first rotates. `receive` must empty the batch, and
    /// should keep its memory.
    ///
    /// At most `cores * capacity` batches are delivered. The room this makes is announced by the next
    /// [`Endpoint::publish_all`].
    ///
    /// # Panics
    /// If `receive` leaves a batch that is not empty.
    pub fn receive(&mut self, mut receive: impl FnMut(usize, &mut T)) -> usize {
        self.exchange(|from, batch, _| receive(from, batch))
    }

    /// [`Endpoint::receive`] with the outbox at hand, to answer or forward while the batch is read in place.
    ///
    /// # Panics
    /// If `receive` leaves a batch that is not empty.
    pub fn exchange(&mut self, mut receive: impl FnMut(usize, &mut T, &mut Outbox<T>)) -> usize {
        self.inbox.take(&mut self.taken);
        if self.taken.is_empty() {
            return 0;
        }
        // A bit may have told of room: from here on a refusal counts only if it comes again.
        self.outbox.refused.remove_all(&self.taken);

        let mut received = 0;
        for senders in [self.first..self.cores(), 0..self.first] {
            let mut at = senders.start;
            while let Some(from) = self.taken.next_from(at).filter(|from| senders.contains(from)) {
                let outbox = &mut self.outbox;
                received += self.incoming[from].drain(|batch| receive(from, batch, outbox));
                at = from + 1;
            }
        }
        self.first = (self.first + 1) % self.cores();
        self.drained.insert_all(&self.taken);
        self.taken.clear();
        received
    }

    /// Whether [`Endpoint::receive`] has something to look at. It may turn out to be room for a refused batch, or
    /// to have been received already, rather than a batch.
    #[inline]
    #[must_use]
    pub fn has_mail(&self) -> bool {
        self.inbox.has_mail()
    }

    /// Announces that this core is about to wait, then looks at the inbox once more. True: wait, and call
    /// [`Endpoint::awake`] after; whoever sends meanwhile is told to wake this core. False: there is mail, the
    /// announcement is withdrawn, do not wait.
    ///
    /// A wake may arrive without need, even after [`Endpoint::awake`].
    ///
    /// # Panics
    /// If something was received, or written to an open batch, without a [`Endpoint::publish_all`] after it: other
    /// cores could wait for it forever.
    #[must_use]
    pub fn prepare_sleep(&self) -> bool {
        assert!(self.drained.is_empty(), "the room made by receiving must be announced before sleeping");
        assert!(self.outbox.is_settled(), "open batches must be published before sleeping");
        self.inbox.prepare_sleep()
    }

    /// Says that this core waits no longer. Harmless if it never did.
    #[inline]
    pub fn awake(&self) {
        self.inbox.awake();
    }

    /// Notifies the senders that were refused and whose queues have been drained since the last call.
    fn announce_room(&mut self, wake: &mut impl FnMut(usize)) {
        if self.drained.is_empty() {
            return;
        }
        // Between the releases of all the drained slots and the looks at `room_wanted`: see `Producer::find_room`.
        fence(Ordering::SeqCst);
        let mut at = 0;
        while let Some(from) = self.drained.next_from(at) {
            if self.incoming[from].take_room_wanted() && self.outbox.notify(from) {
                wake(from);
            }
            at = from + 1;
        }
        self.drained.clear();
    }
}

impl<T> fmt::Debug for Endpoint<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Endpoint")
            .field("core", &self.outbox.core)
            .field("cores", &self.incoming.len())
            .finish_non_exhaustive()
    }
}

/// The sending half of an [`Endpoint`], lent out while it receives.
pub struct Outbox<T> {
    core: usize,
    /// By receiver.
    lanes: Box<[Lane<T>]>,
    /// Receivers whose open batch may hold something.
    open: CoreSet,
    /// Receivers whose queue was full, and who have not been heard from since.
    refused: CoreSet,
}

/// All that sending to one core touches on this side.
struct Lane<T> {
    open: T,
    producer: Producer<T>,
    /// The receiver's.
    inbox: Arc<Inbox>,
}

impl<T: Batch> Outbox<T> {
    /// The core this outbox belongs to.
    #[inline]
    #[must_use]
    pub fn core(&self) -> usize {
        self.core
    }

    /// How many cores the mesh connects.
    #[inline]
    #[must_use]
    pub fn cores(&self) -> usize {
        self.lanes.len()
    }

    /// The open batch for `core`, to be added to. It is there always: what a full queue refused simply grows.
    ///
    /// # Panics
    /// If there is no such core.
    #[inline]
    pub fn outgoing(&mut self, core: usize) -> &mut T {
        let lane = &mut self.lanes[core];
        self.open.insert(core);
        &mut lane.open
    }

    /// Publishes the open batch for `core` now, ahead of [`Endpoint::publish_all`].
    ///
    /// # Panics
    /// If there is no such core.
    pub fn publish(&mut self, core: usize) -> Publish {
        let lane = &mut self.lanes[core];
        if lane.open.is_empty() {
            self.open.remove(core);
            return Publish::Sent { wake: false };
        }
        if !lane.producer.publish(&mut lane.open) {
            self.refused.insert(core);
            return Publish::Full;
        }
        self.open.remove(core);
        self.refused.remove(core);
        Publish::Sent { wake: lane.inbox.notify(self.core) }
    }

    fn publish_all(&mut self, wake: &mut impl FnMut(usize)) -> bool {
        let mut all_sent = true;
        let mut at = 0;
        while let Some(core) = self.open.next_from(at) {
            match self.publish(core) {
                Publish::Sent { wake: true } => wake(core),
                Publish::Sent { wake: false } => {}
                Publish::Full => all_sent = false,
            }
            at = core + 1;
        }
        all_sent
    }

    /// Makes `core` look at what it shares with this one. Returns whether the caller must wake it.
    fn notify(&self, core: usize) -> bool {
        self.lanes[core].inbox.notify(self.core)
    }

    /// Whether each open batch is empty, or refused by a queue that will tell of room.
    fn is_settled(&self) -> bool {
        let mut at = 0;
        while let Some(core) = self.open.next_from(at) {
            if !self.refused.contains(core) && !self.lanes[core].open.is_empty() {
                return false;
            }
            at = core + 1;
        }
        true
    }
}

impl<T> fmt::Debug for Outbox<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Outbox")
            .field("core", &self.core)
            .field("cores", &self.lanes.len())
            .field("open", &self.open)
            .field("refused", &self.refused)
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
