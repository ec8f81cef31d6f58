//! A few seeds, and proof that mistakes are found.

use super::{faults::Sabotage, run};

#[test]
fn quick_seeds() {
    for seed in 0..50 {
        if let Err(failure) = run(seed, None) {
            panic!("seed {} failed: {}", failure.seed, failure.reason);
        }
    }
}

#[test]
fn a_seed_replays_exactly() {
    for seed in [3, 17] {
        assert_eq!(run(seed, None).unwrap(), run(seed, None).unwrap());
    }
}

/// Runs seeds until one fails, and returns why.
fn first_failure(sabotage: Sabotage) -> String {
    (0..200).find_map(|seed| run(seed, Some(sabotage)).err()).expect("the mistake is found").reason
}

#[test]
fn a_lost_wake_is_found() {
    let reason = first_failure(Sabotage::LoseWake);
    assert!(reason.contains("nobody wakes it"), "{reason}");
}

#[test]
fn replies_out_of_order_are_found() {
    first_failure(Sabotage::SwapReplies);
}

#[test]
fn a_write_in_two_steps_is_found() {
    let reason = first_failure(Sabotage::SplitSets);
    assert!(["torn", "keys was answered", "no order"].iter().any(|text| reason.contains(text)), "{reason}");
}

#[test]
fn a_lost_byte_is_found() {
    first_failure(Sabotage::LoseByte);
}
