//! An allocator that counts what is allocated for a node, and, with `DUVA_ALLOCATION_TRACE` set, says where.
//!
//! Counted is what the thread allocates within [`of`] and not within [`not`]: tests run beside one another.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    backtrace::Backtrace,
    cell::{Cell, RefCell},
    collections::BTreeMap,
};

/// Nodes that are told apart.
pub(crate) const NODES: usize = 4;

const NOBODY: usize = NODES;

/// Calls of an allocation that are shown, from the innermost on.
const CALLS_SHOWN: usize = 6;

thread_local! {
    /// Whose allocations are counted now.
    static NODE: Cell<usize> = const { Cell::new(NOBODY) };
    static COUNTS: [Cell<u64>; NODES] = const { [const { Cell::new(0) }; NODES] };
    /// Whether it is noted where they come from, and what was.
    static IS_TRACING: Cell<bool> = const { Cell::new(false) };
    static PLACES: RefCell<BTreeMap<String, u64>> = const { RefCell::new(BTreeMap::new()) };
}

struct Counting;

fn note() {
    let node = NODE.get();
    if node == NOBODY {
        return;
    }
    COUNTS.with(|counts| counts[node].set(counts[node].get() + 1));
    if IS_TRACING.get() {
        not(|| {
            let text = Backtrace::force_capture().to_string();
            let calls =
                text.lines().filter_map(|line| line.trim_start().split_once(": ")?.1.split("::h").next());
            let calls = calls.filter(|call| call.contains("duva") || call.contains("hashbrown"));
            let calls: Vec<&str> = calls.take(CALLS_SHOWN).collect();
            let place = format!("node {node}: {}", calls.join("\n        < "));
            PLACES.with_borrow_mut(|places| *places.entry(place).or_default() += 1);
        });
    }
}

// SAFETY: every call is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note();
        // SAFETY: the caller keeps the contract, which is the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the pointer came from the system's allocator with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_bytes: usize) -> *mut u8 {
        note();
        // SAFETY: the pointer came from the system's allocator with this layout.
        unsafe { System.realloc(pointer, layout, new_bytes) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn within<T>(node: usize, work: impl FnOnce() -> T) -> T {
    let before = NODE.replace(node);
    let result = work();
    NODE.set(before);
    result
}

/// What `work` allocates is the node's.
pub(crate) fn of<T>(node: usize, work: impl FnOnce() -> T) -> T {
    within(node, work)
}

/// What `work` allocates does not count.
pub(crate) fn not<T>(work: impl FnOnce() -> T) -> T {
    within(NOBODY, work)
}

/// How much each node allocates during `work`.
pub(crate) fn during(work: impl FnOnce()) -> [u64; NODES] {
    let counts = || COUNTS.with(|counts| std::array::from_fn(|node| counts[node].get()));
    let before: [u64; NODES] = counts();
    let is_traced = std::env::var_os("DUVA_ALLOCATION_TRACE").is_some();
    IS_TRACING.set(is_traced);
    work();
    IS_TRACING.set(false);
    let after: [u64; NODES] = counts();
    if is_traced {
        let mut places: Vec<(String, u64)> = PLACES.take().into_iter().collect();
        places.sort_unstable_by_key(|(_, count)| std::cmp::Reverse(*count));
        for (place, count) in places.iter().take(30) {
            eprintln!("{count:7} {place}");
        }
    }
    std::array::from_fn(|node| after[node] - before[node])
}
