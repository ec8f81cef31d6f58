//! What a core remembers: the journal, how it is read again after any crash, and what it is made of.
//!
//! Nothing here does I/O or reads a clock: the journal plans writes and syncs and takes their completions.

pub mod entry_index;
pub mod format;
pub mod journal;
pub mod manifest;
pub mod names;
pub mod reader;
pub mod record;
pub mod recovery;
