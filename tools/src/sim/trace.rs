//! What happened last, for people who look into a failure.
//!
//! A run that fails is run once more with the trace on: the same seed takes the same way, so that runs that succeed
//! need not pay for it.

use std::{cell::RefCell, collections::VecDeque};

/// How many notes are kept.
const NOTES_MAX: usize = 400;

thread_local! {
    static TRACE: RefCell<Option<VecDeque<String>>> = const { RefCell::new(None) };
    static IS_LOUD: RefCell<bool> = const { RefCell::new(false) };
}

/// Begins a new trace, or none.
pub(crate) fn begin(is_on: bool, is_loud: bool) {
    TRACE.with_borrow_mut(|trace| *trace = is_on.then(VecDeque::new));
    IS_LOUD.with_borrow_mut(|loud| *loud = is_loud);
}

/// Adds a note, if there is a trace.
pub(crate) fn note(make: impl FnOnce() -> String) {
    TRACE.with_borrow_mut(|trace| {
        let Some(notes) = trace else { return };
        let note = make();
        if IS_LOUD.with_borrow(|loud| *loud) {
            println!("{note}");
        }
        if notes.len() == NOTES_MAX {
            notes.pop_front();
        }
        notes.push_back(note);
    });
}

/// The last notes.
pub(crate) fn take() -> Vec<String> {
    TRACE.with_borrow_mut(|trace| trace.take().unwrap_or_default().into())
}

/// Bytes as people can read them, abbreviated.
pub(crate) fn shown(bytes: &[u8]) -> String {
    const SHOWN_MAX: usize = 48;
    let head = bytes[..bytes.len().min(SHOWN_MAX)].escape_ascii();
    if bytes.len() > SHOWN_MAX { format!("{head}... ({} bytes)", bytes.len()) } else { head.to_string() }
}
