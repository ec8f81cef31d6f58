//! The mesh seen from outside, on one thread; then all of it at once on several.

use std::{
    sync::{Barrier, Mutex},
    thread::{self, Thread},
};

use super::*;

type Numbers = Vec<u64>;

/// Publishes everything and returns the cores to be woken.
fn publish_all(endpoint: &mut Endpoint<Numbers>) -> Vec<usize> {
    let mut woken = Vec::new();
    endpoint.publish_all(|core| woken.push(core));
    woken
}

fn receive(endpoint: &mut Endpoint<Numbers>) -> Vec<(usize, Numbers)> {
    let mut received = Vec::new();
    endpoint.receive(|from, batch| received.push((from, std::mem::take(batch))));
    received
}

#[test]
fn endpoints_know_their_place() {
    let endpoints = mesh::<Numbers>(3, 2);
    assert_eq!(endpoints.iter().map(Endpoint::core).collect::<Vec<_>>(), [0, 1, 2]);
    assert!(endpoints.iter().all(|endpoint| endpoint.cores() == 3));
}

#[test]
fn every_core_reaches_every_core_and_itself() {
    let cores = 70;
    let mut endpoints = mesh::<Numbers>(cores, 1);
    for endpoint in &mut endpoints {
        for to in 0..cores {
            let from = endpoint.core();
            endpoint.outgoing(to).push((from * 1000 + to) as u64);
        }
        assert!(endpoint.publish_all(|core| panic!("core {core} does not sleep")));
    }
    for endpoint in &mut endpoints {
        assert!(endpoint.has_mail());
        let to = endpoint.core();
        let expected: Vec<_> = (0..cores).map(|from| (from, vec![(from * 1000 + to) as u64])).collect();
        assert_eq!(receive(endpoint), expected);
        assert!(!endpoint.has_mail());
        assert_eq!(receive(endpoint), []);
    }
}

#[test]
fn batches_are_published_alone_or_all_together() {
    let mut endpoints = mesh::<Numbers>(3, 4);
    endpoints[0].outgoing(1).push(1);
    endpoints[0].outgoing(2).push(2);
    assert_eq!(endpoints[0].publish(1), Publish::Sent { wake: false });
    assert_eq!(receive(&mut endpoints[1]), [(0, vec![1])]);
    assert_eq!(receive(&mut endpoints[2]), [], "not published yet");
    assert_eq!(publish_all(&mut endpoints[0]), []);
    assert_eq!(receive(&mut endpoints[1]), [], "nothing new");
    assert_eq!(receive(&mut endpoints[2]), [(0, vec![2])]);
}

#[test]
fn an_empty_batch_is_not_sent() {
    let mut endpoints = mesh::<Numbers>(2, 1);
    assert!(endpoints[1].prepare_sleep());
    assert!(endpoints[0].outgoing(1).is_empty());
    assert_eq!(endpoints[0].publish(1), Publish::Sent { wake: false });
    assert!(endpoints[0].outgoing(1).is_empty());
    assert_eq!(publish_all(&mut endpoints[0]), []);
    assert!(!endpoints[1].has_mail());
    assert!(endpoints[0].prepare_sleep());
}

#[test]
fn a_refused_batch_stays_open_and_grows() {
    let mut endpoints = mesh::<Numbers>(2, 2);
    for value in 0..5 {
        endpoints[0].outgoing(1).push(value);
        let expected = if value < 2 { Publish::Sent { wake: false } } else { Publish::Full };
        assert_eq!(endpoints[0].publish(1), expected);
    }
    assert!(!endpoints[0].publish_all(|_| {}), "still full");
    assert_eq!(receive(&mut endpoints[1]), [(0, vec![0]), (0, vec![1])]);
    assert!(endpoints[0].publish_all(|_| {}));
    assert_eq!(receive(&mut endpoints[1]), [(0, vec![2, 3, 4])]);
}

#[test]
fn a_receiver_answers_while_it_reads() {
    let mut endpoints = mesh::<Numbers>(3, 2);
    endpoints[0].outgoing(1).extend([1, 2]);
    assert_eq!(publish_all(&mut endpoints[0]), []);
    endpoints[1].exchange(|from, batch, outbox| {
        assert_eq!((outbox.core(), outbox.cores()), (1, 3));
        for request in batch.drain(..) {
            outbox.outgoing(from).push(request * 10);
            outbox.outgoing(2).push(request);
        }
        assert_eq!(outbox.publish(2), Publish::Sent { wake: false });
    });
    assert_eq!(publish_all(&mut endpoints[1]), []);
    assert_eq!(receive(&mut endpoints[0]), [(1, vec![10, 20])]);
    assert_eq!(receive(&mut endpoints[2]), [(1, vec![1, 2])]);
}

#[test]
fn what_a_receiver_posts_to_itself_waits_for_its_next_turn() {
    let mut endpoints = mesh::<Numbers>(1, 2);
    endpoints[0].outgoing(0).push(1);
    assert_eq!(publish_all(&mut endpoints[0]), []);
    let received = endpoints[0].exchange(|_, batch, outbox| {
        batch.clear();
        outbox.outgoing(0).push(2);
        assert_eq!(outbox.publish(0), Publish::Sent { wake: false });
    });
    assert_eq!(received, 1);
    assert_eq!(publish_all(&mut endpoints[0]), []);
    assert!(!endpoints[0].prepare_sleep());
    assert_eq!(receive(&mut endpoints[0]), [(0, vec![2])]);
}

#[test]
fn the_first_sender_rotates() {
    let mut endpoints = mesh::<Numbers>(3, 1);
    let mut firsts = Vec::new();
    for _ in 0..4 {
        for endpoint in &mut endpoints {
            endpoint.outgoing(0).push(0);
            assert!(endpoint.publish_all(|_| {}));
        }
        firsts.push(receive(&mut endpoints[0])[0].0);
    }
    assert_eq!(firsts, [0, 1, 2, 0]);
}

#[test]
fn only_a_sleeper_is_woken_and_only_once() {
    let mut endpoints = mesh::<Numbers>(3, 4);
    let send = |endpoints: &mut Vec<Endpoint<Numbers>>, from: usize| {
        endpoints[from].outgoing(0).push(1);
        publish_all(&mut endpoints[from])
    };
    assert_eq!(send(&mut endpoints, 1), []);
    assert!(!endpoints[0].prepare_sleep(), "there is mail");
    assert_eq!(send(&mut endpoints, 1), [], "it did not sleep after all");
    assert_eq!(receive(&mut endpoints[0]).len(), 2);
    assert_eq!(publish_all(&mut endpoints[0]), []);

    assert!(endpoints[0].prepare_sleep());
    assert_eq!(send(&mut endpoints, 1), [0]);
    assert_eq!(send(&mut endpoints, 2), []);
    assert_eq!(send(&mut endpoints, 1), []);
    endpoints[0].awake();
    assert_eq!(receive(&mut endpoints[0]).len(), 3);
    assert_eq!(publish_all(&mut endpoints[0]), []);

    assert!(endpoints[0].prepare_sleep());
    endpoints[0].awake();
    assert_eq!(send(&mut endpoints, 2), [], "it woke by itself");
}

#[test]
fn a_refused_sender_that_sleeps_is_woken_by_room() {
    let mut endpoints = mesh::<Numbers>(2, 1);
    for value in [1, 2] {
        endpoints[0].outgoing(1).push(value);
        assert_eq!(publish_all(&mut endpoints[0]), []);
    }
    assert!(endpoints[0].prepare_sleep(), "it cannot do anything more");
    assert_eq!(receive(&mut endpoints[1]), [(0, vec![1])]);
    assert_eq!(publish_all(&mut endpoints[1]), [0], "there is room");
    endpoints[0].awake();
    assert!(endpoints[0].has_mail());
    assert_eq!(receive(&mut endpoints[0]), []);
    assert_eq!(publish_all(&mut endpoints[0]), []);
    assert_eq!(receive(&mut endpoints[1]), [(0, vec![2])]);
    assert_eq!(publish_all(&mut endpoints[1]), [], "nobody was refused this time");
    assert!(!endpoints[0].has_mail());
}

#[test]
fn a_sender_refused_while_it_receives_may_sleep() {
    let mut endpoints = mesh::<Numbers>(2, 1);
    endpoints[0].outgoing(1).push(1);
    assert_eq!(publish_all(&mut endpoints[0]), []);
    endpoints[1].outgoing(0).push(2);
    assert_eq!(publish_all(&mut endpoints[1]), []);
    endpoints[0].exchange(|from, batch, outbox| {
        batch.clear();
        outbox.outgoing(from).push(3);
        assert_eq!(outbox.publish(from), Publish::Full);
    });
    assert_eq!(publish_all(&mut endpoints[0]), []);
    assert!(endpoints[0].prepare_sleep());
    assert_eq!(receive(&mut endpoints[1]), [(0, vec![1])]);
    assert_eq!(publish_all(&mut endpoints[1]), [0]);
}

#[test]
#[should_panic(expected = "must be published before sleeping")]
fn sleeping_on_an_unpublished_batch_is_refused() {
    let mut endpoints = mesh::<Numbers>(2, 1);
    endpoints[0].outgoing(1).push(1);
    let _ = endpoints[0].prepare_sleep();
}

#[test]
#[should_panic(expected = "must be published before sleeping")]
fn sleeping_on_a_batch_that_has_room_again_is_refused() {
    let mut endpoints = mesh::<Numbers>(2, 1);
    for value in [1, 2] {
        endpoints[0].outgoing(1).push(value);
        assert_eq!(publish_all(&mut endpoints[0]), []);
    }
    assert_eq!(receive(&mut endpoints[1]), [(0, vec![1])]);
    assert_eq!(publish_all(&mut endpoints[1]), []);
    assert_eq!(receive(&mut endpoints[0]), [], "only the news of room");
    endpoints[0].announce_room(&mut |_| {});
    let _ = endpoints[0].prepare_sleep();
}

#[test]
#[should_panic(expected = "must be announced before sleeping")]
fn sleeping_on_unannounced_room_is_refused() {
    let mut endpoints = mesh::<Numbers>(2, 1);
    endpoints[0].outgoing(1).push(1);
    assert_eq!(publish_all(&mut endpoints[0]), []);
    assert_eq!(receive(&mut endpoints[1]), [(0, vec![1])]);
    let _ = endpoints[1].prepare_sleep();
}

#[test]
#[should_panic(expected = "needs a core")]
fn a_mesh_of_nothing_is_refused() {
    drop(mesh::<Numbers>(0, 1));
}

#[test]
fn endpoints_move_to_other_threads() {
    fn assert_send<T: Send>() {}
    assert_send::<Endpoint<Numbers>>();
}

#[test]
fn undelivered_and_unpublished_batches_are_freed() {
    let tracked = Arc::new(());
    let mut endpoints = mesh::<Vec<Arc<()>>>(2, 2);
    for _ in 0..4 {
        endpoints[0].outgoing(1).push(Arc::clone(&tracked));
        endpoints[0].publish_all(|_| {});
    }
    assert_eq!(Arc::strong_count(&tracked), 5);
    drop(endpoints);
    assert_eq!(Arc::strong_count(&tracked), 1);
}

/// Every core sends numbered requests to every core within a window and answers those it gets; cores with nothing to
/// do park until woken. A lost batch or wake-up leaves the test hanging, a repeated or reordered one fails it.
#[test]
fn cores_that_sleep_and_overflow_lose_nothing() {
    const CORES: usize = 4;
    for capacity in [1, 4] {
        let threads: Mutex<Vec<Option<Thread>>> = Mutex::new(vec![None; CORES]);
        let registered = Barrier::new(CORES);
        let parks: usize = thread::scope(|scope| {
            let cores: Vec<_> = mesh::<Numbers>(CORES, capacity)
                .into_iter()
                .map(|endpoint| {
                    let (threads, registered) = (&threads, &registered);
                    scope.spawn(move || {
                        threads.lock().unwrap()[endpoint.core()] = Some(thread::current());
                        registered.wait();
                        let peers = threads.lock().unwrap().iter().flatten().cloned().collect();
                        StressedCore::new(endpoint, peers).run()
                    })
                })
                .collect();
            cores.into_iter().map(|core| core.join().unwrap()).sum()
        });
        assert!(parks > 0, "without a single park the wake-ups were not tested");
    }
}

/// One thread of the stress test.
struct StressedCore {
    endpoint: Endpoint<Numbers>,
    /// To unpark, by core.
    peers: Vec<Thread>,
    /// Requests sent to, answered by and answered for each core.
    asked: Vec<u64>,
    answered: Vec<u64>,
    served: Vec<u64>,
}

impl StressedCore {
    const REQUESTS_PER_PAIR: u64 = if cfg!(miri) { 50 } else { 20_000 };
    /// Requests to one core that may be unanswered.
    const WINDOW: u64 = 37;
    /// Marks a message as a reply.
    const REPLY: u64 = 1 << 63;

    fn new(endpoint: Endpoint<Numbers>, peers: Vec<Thread>) -> Self {
        let zeros = vec![0; endpoint.cores()];
        Self { endpoint, peers, asked: zeros.clone(), answered: zeros.clone(), served: zeros }
    }

    /// Runs until all is asked, answered and served; returns how often the core parked.
    fn run(mut self) -> usize {
        let mut parks = 0;
        loop {
            self.ask();
            self.receive();
            let all_sent = self.endpoint.publish_all(|core| self.peers[core].unpark());
            if all_sent && self.is_done() {
                return parks;
            }
            if !(0..self.peers.len()).any(|to| self.may_ask(to)) && self.endpoint.prepare_sleep() {
                thread::park();
                self.endpoint.awake();
                parks += 1;
            }
        }
    }

    fn may_ask(&self, to: usize) -> bool {
        self.asked[to] < Self::REQUESTS_PER_PAIR && self.asked[to] - self.answered[to] < Self::WINDOW
    }

    fn ask(&mut self) {
        for to in 0..self.peers.len() {
            while self.may_ask(to) {
                self.endpoint.outgoing(to).push(self.asked[to]);
                self.asked[to] += 1;
                // Some batches leave in the middle of a turn, so that queues fill up.
                if self.asked[to].is_multiple_of(5)
                    && self.endpoint.publish(to) == (Publish::Sent { wake: true })
                {
                    self.peers[to].unpark();
                }
            }
        }
    }

    fn receive(&mut self) {
        self.endpoint.exchange(|from, batch, outbox| {
            for message in batch.drain(..) {
                if message & Self::REPLY == 0 {
                    assert_eq!(message, self.served[from]);
                    self.served[from] += 1;
                    outbox.outgoing(from).push(message | Self::REPLY);
                } else {
                    assert_eq!(message ^ Self::REPLY, self.answered[from]);
                    self.answered[from] += 1;
                }
            }
        });
    }

    fn is_done(&self) -> bool {
        self.answered.iter().chain(&self.served).all(|&count| count == Self::REQUESTS_PER_PAIR)
    }
}
