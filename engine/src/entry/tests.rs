//! Entries: layout, edits, and the account of their memory.

use proptest::prelude::*;

use super::*;

fn inline<'a>(name: &'a [u8], value: &'a [u8], word: Option<DeadlineWord>) -> NewEntry<'a> {
    NewEntry { name, value: NewValue::Inline(value, 0), word, form: Form::Given, clock: 0 }
}

fn word(deadline_ms: u64) -> DeadlineWord {
    DeadlineWord::new(deadline_ms, deadline_ms)
}

fn value_of(entry: &Entry) -> &[u8] {
    let Value::String(value) = entry.as_ref().value();
    value
}

fn destroy(entry: Entry, heap: &mut Heap) {
    // SAFETY: every test has one heap.
    unsafe { entry.destroy(heap) };
}

fn resize(entry: &mut Entry, heap: &mut Heap, length: usize) {
    // SAFETY: every test has one heap.
    unsafe { entry.resize(heap, length) };
}

#[test]
fn a_small_entry_has_eight_bytes_of_header() {
    let mut heap = Heap::new();
    let entry = Entry::new(&mut heap, inline(&[b'k'; 16], &[b'v'; 32], None));
    assert_eq!(heap.used_bytes(), 56);
    destroy(entry, &mut heap);
    let entry = Entry::new(&mut heap, inline(&[b'k'; 16], &[b'v'; 32], Some(word(9))));
    assert_eq!(heap.used_bytes(), 64);
    destroy(entry, &mut heap);
    assert_eq!(heap.used_bytes(), 0);
}

#[test]
fn an_owned_value_is_moved_in_and_out() {
    let mut heap = Heap::new();
    let mut value = vec![b'v'; INLINE_VALUE_BYTES_MAX + 1];
    let address = value.as_ptr();
    let entry = Entry::new(
        &mut heap,
        NewEntry { value: NewValue::from_owned(&mut value), ..inline(b"k", b"", None) },
    );
    assert_eq!(value_of(&entry).as_ptr(), address);
    assert!(heap.used_bytes() > INLINE_VALUE_BYTES_MAX && heap.needs_walk());
    // SAFETY: every test has one heap.
    let value = unsafe { entry.into_value(&mut heap) };
    assert_eq!((value.as_ptr(), value.len()), (address, INLINE_VALUE_BYTES_MAX + 1));
    assert!(heap.used_bytes() == 0 && !heap.needs_walk());
}

#[test]
fn a_large_value_is_freed_in_a_later_step() {
    let mut heap = Heap::new();
    let value = NewValue::External(vec![0; 1 << 20]);
    let entry = Entry::new(&mut heap, NewEntry { value, ..inline(b"k", b"", None) });
    destroy(entry, &mut heap);
    assert!(heap.used_bytes() == 1 << 20 && heap.has_garbage());
    assert_eq!(heap.reclaim(100), 100 - 1 - 64);
    assert!(heap.used_bytes() == 0 && !heap.has_garbage());
}

#[test]
fn appending_moves_a_value_rarely() {
    let mut heap = Heap::new();
    let mut entry = Entry::new(&mut heap, inline(b"key", b"", None));
    let (mut moves, mut address) = (0, std::ptr::null());
    for length in 1..200_000 {
        resize(&mut entry, &mut heap, length);
        *entry.value_mut().last_mut().unwrap() = length as u8;
        if length > INLINE_EDIT_BYTES_MAX && value_of(&entry).as_ptr() != address {
            address = value_of(&entry).as_ptr();
            moves += 1;
        }
    }
    assert!(moves <= 10, "{moves} moves");
    assert!(value_of(&entry).iter().enumerate().all(|(index, &byte)| byte == (index + 1) as u8));
    destroy(entry, &mut heap);
    assert_eq!(heap.used_bytes(), 0);
}

#[test]
fn the_access_clock_counts_seconds_and_wraps() {
    let mut heap = Heap::new();
    let mut entry = Entry::new(&mut heap, inline(b"k", b"v", None));
    let now_ms = (1 << 24) * 1000 * 5 - 2_000;
    entry.set_clock(clock_at(now_ms));
    assert_eq!(entry.as_ref().idle_seconds(now_ms + 999), 0);
    assert_eq!(entry.as_ref().idle_seconds(now_ms + 10_000), 10);
    assert_eq!((entry.key(), value_of(&entry)), (&b"k"[..], &b"v"[..]));
    destroy(entry, &mut heap);
}

#[derive(Clone, Debug)]
enum Step {
    Resize(usize),
    Overwrite(usize),
    SetWord(Option<u64>),
}

fn length() -> impl Strategy<Value = usize> {
    // Miri takes its time.
    let large = if cfg!(miri) { 17_000..20_000_usize } else { 60_000..200_000_usize };
    prop_oneof![0..64_usize, 400..600_usize, 0..large.start, large]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => length().prop_map(Step::Resize),
        1 => length().prop_map(Step::Overwrite),
        1 => prop::option::of(0..1_u64 << 48).prop_map(Step::SetWord),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 64 }))]

    #[test]
    fn any_series_of_changes_keeps_key_and_value(
        key_length in prop_oneof![0..40_usize, 250..260_usize, 0..3_000_usize],
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let mut heap = Heap::new();
        let key: Vec<u8> = (0..key_length).map(|index| index as u8).collect();
        let mut entry = Entry::new(&mut heap, inline(&key, b"", None));
        let mut value = Vec::new();
        let mut deadline = None;
        for (mark, step) in steps.into_iter().enumerate() {
            match step {
                Step::Resize(length) => {
                    resize(&mut entry, &mut heap, length);
                    value.resize(length, 0);
                    prop_assert_eq!(value_of(&entry), &value[..]);
                    entry.value_mut().iter_mut().step_by(7).for_each(|byte| *byte = mark as u8);
                    value.iter_mut().step_by(7).for_each(|byte| *byte = mark as u8);
                }
                Step::Overwrite(length) => {
                    let new = vec![mark as u8; length];
                    if entry.overwrite(&new, deadline.map(word), 0) {
                        value = new;
                    }
                }
                Step::SetWord(new) => {
                    // SAFETY: the test has one heap.
                    unsafe { entry.set_word(&mut heap, new.map(word)) };
                    deadline = new;
                }
            }
            prop_assert_eq!(entry.key(), &key[..]);
            prop_assert_eq!(value_of(&entry), &value[..]);
            prop_assert_eq!(entry.as_ref().deadline_ms(), deadline);
            prop_assert_eq!(entry.as_ref().memory_bytes() - TABLE_SHARE_BYTES, heap.used_bytes());
        }
        destroy(entry, &mut heap);
        heap.reclaim(usize::MAX);
        prop_assert_eq!(heap.used_bytes(), 0);
        prop_assert!(!heap.needs_walk());
    }
}
