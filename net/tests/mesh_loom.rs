//! Exhaustive models of the mesh: every interleaving, and every value a weak memory order lets a core see.
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test -p duva-net --test mesh_loom --release
//! ```
//! No model spins: each core makes a fixed number of steps, and the rest is received after the threads are joined.
//! Threads hand their endpoints back, so that the explorations are not spent on the order in which they are dropped.
#![cfg(loom)]

use duva_net::mesh::{Endpoint, Publish, mesh};
use loom::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

type Numbers = Vec<u32>;

/// Sends one batch of one value.
fn send(endpoint: &mut Endpoint<Numbers>, to: usize, value: u32) -> Publish {
    endpoint.outgoing(to).push(value);
    endpoint.publish(to)
}

/// Appends what is available to `received`.
fn receive(endpoint: &mut Endpoint<Numbers>, received: &mut Numbers) {
    endpoint.receive(|_, batch| received.append(batch));
}

fn publish_all(endpoint: &mut Endpoint<Numbers>) -> Vec<usize> {
    let mut woken = Vec::new();
    endpoint.publish_all(|core| woken.push(core));
    woken
}

/// Takes the endpoints of a mesh apart.
fn endpoints<const CORES: usize>(capacity: usize) -> [Endpoint<Numbers>; CORES] {
    mesh(CORES, capacity).try_into().expect("one endpoint a core")
}

/// Publishing against receiving: nothing is lost, repeated, torn or reordered, and slots are never used by both
/// (loom's cells fail the model if they are).
fn batches_arrive_in_order(capacity: usize, batches: u32) {
    loom::model(move || {
        let [mut sender, mut receiver] = endpoints::<2>(capacity);
        let sending = thread::spawn(move || {
            for value in 0..batches {
                let _ = send(&mut sender, 1, value);
            }
            sender
        });
        let mut received = Numbers::new();
        for _ in 0..2 {
            receive(&mut receiver, &mut received);
        }
        let mut sender = sending.join().unwrap();
        receive(&mut receiver, &mut received);
        // Whatever was refused is still open, and now there is room.
        assert!(sender.publish_all(|_| {}));
        receive(&mut receiver, &mut received);
        assert_eq!(received, (0..batches).collect::<Numbers>());
    });
}

#[test]
fn batches_arrive_in_order_through_one_slot() {
    batches_arrive_in_order(1, 3);
}

#[test]
fn batches_arrive_in_order_through_two_slots() {
    batches_arrive_in_order(2, 4);
}

/// Two senders share a word of the inbox with a receiver that takes bits meanwhile: no batch is left without a bit.
#[test]
fn no_batch_is_left_without_its_bit() {
    loom::model(|| {
        let [mut receiver, first, second] = endpoints::<3>(1);
        let senders = [first, second].map(|mut sender| {
            let value = sender.core() as u32;
            thread::spawn(move || {
                let _ = send(&mut sender, 0, value);
                sender
            })
        });
        let mut received = Numbers::new();
        receive(&mut receiver, &mut received);
        let _senders = senders.map(|sender| sender.join().unwrap());
        receive(&mut receiver, &mut received);
        assert!(!receiver.has_mail());
        received.sort_unstable();
        assert_eq!(received, [1, 2]);
    });
}

/// A core that goes to sleep while another one sends: it never sleeps on mail unless the sender wakes it.
#[test]
fn a_sleeper_with_mail_is_woken() {
    loom::model(|| {
        let [mut receiver, mut sender] = endpoints::<2>(1);
        let sending = thread::spawn(move || (send(&mut sender, 0, 1), sender));
        let mut received = Numbers::new();
        receive(&mut receiver, &mut received);
        let _ = publish_all(&mut receiver);
        let asleep = receiver.prepare_sleep();
        let (sent, _sender) = sending.join().unwrap();
        if receiver.has_mail() {
            assert!(!asleep || sent == Publish::Sent { wake: true }, "asleep on mail, and nobody was told");
        } else {
            assert_eq!(received, [1], "a batch without a bit was received before");
        }
        receive(&mut receiver, &mut received);
        assert_eq!(received, [1]);
    });
}

/// Two cores send to one that goes to sleep: exactly one of them wakes it.
#[test]
fn a_sleeper_is_woken_by_one_of_two() {
    loom::model(|| {
        let [mut receiver, first, second] = endpoints::<3>(1);
        let senders = [first, second].map(|mut sender| {
            thread::spawn(move || (send(&mut sender, 0, 1) == Publish::Sent { wake: true }, sender))
        });
        let asleep = receiver.prepare_sleep();
        let senders = senders.map(|sender| sender.join().unwrap());
        let wakes = senders.iter().filter(|(wake, _)| *wake).count();
        assert!(wakes == 1 || !asleep && wakes == 0, "asleep: {asleep}, wakes: {wakes}");
        let mut received = Numbers::new();
        receive(&mut receiver, &mut received);
        assert_eq!(received, [1, 1]);
    });
}

/// Sleeping, waking and sleeping again against one sender: a wake used up by the first sleep is not missing from the
/// second.
#[test]
fn a_second_sleep_loses_no_wake() {
    loom::model(|| {
        let [mut receiver, mut sender] = endpoints::<2>(2);
        // Stands for the kernel, which orders a message's arrival after its sending: wakes sent and not yet noticed.
        let wakes = Arc::new(AtomicUsize::new(0));
        let sending = {
            let wakes = Arc::clone(&wakes);
            thread::spawn(move || {
                for value in [1, 2] {
                    if send(&mut sender, 0, value) == (Publish::Sent { wake: true }) {
                        wakes.fetch_add(1, Ordering::Release);
                    }
                }
                sender
            })
        };
        let mut received = Numbers::new();
        let mut asleep = false;
        for _ in 0..2 {
            wakes.swap(0, Ordering::Acquire);
            receiver.awake();
            receive(&mut receiver, &mut received);
            let _ = publish_all(&mut receiver);
            asleep = receiver.prepare_sleep();
        }
        let _sender = sending.join().unwrap();
        if asleep && receiver.has_mail() {
            assert!(wakes.load(Ordering::Relaxed) > 0, "asleep on mail, and no wake is under way");
        }
        receive(&mut receiver, &mut received);
        assert_eq!(received, [1, 2]);
    });
}

/// A refused sender that goes to sleep while the receiver makes room: it never sleeps on room unless it is woken.
#[test]
fn a_refused_sender_asleep_is_woken_by_room() {
    loom::model(|| {
        let [mut sender, mut receiver] = endpoints::<2>(1);
        let _ = send(&mut sender, 1, 1);
        let receiving = thread::spawn(move || {
            let mut received = Numbers::new();
            receive(&mut receiver, &mut received);
            let woken = publish_all(&mut receiver);
            (receiver, received, woken)
        });
        let sent = send(&mut sender, 1, 2);
        let asleep = sender.prepare_sleep();
        let (mut receiver, mut received, woken) = receiving.join().unwrap();
        if sent == Publish::Full {
            assert_eq!(received, [1], "the first batch was there from the start");
            if asleep {
                assert_eq!(woken, [0], "asleep on room, and nobody was told");
            }
            assert!(sender.has_mail(), "the news of room is there, asleep or not");
        }
        sender.awake();
        assert!(sender.publish_all(|_| {}));
        receive(&mut receiver, &mut received);
        assert_eq!(received, [1, 2]);
    });
}
