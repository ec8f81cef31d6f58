//! The files of one ring: its share of their descriptors, and the syncs under way.
//!
//! An operation holds the descriptor it works on: the kernel looks the number up in a thread of its own, perhaps later
//! than the loop closes the file.

use std::{
    collections::VecDeque,
    fs,
    os::{fd::AsRawFd, unix::fs::FileExt},
    sync::Arc,
};

use io_uring::{
    opcode, squeue,
    types::{Fd, FsyncFlags},
};

use super::{Kind, ReceiveBuffer};
use crate::{
    files::{Change, Done, Storage, errno},
    io::{Event, File, FileTask, Token},
};

/// A sync under way.
struct Operation {
    ticket: u64,
    file: Arc<fs::File>,
    is_first: bool,
}

/// What a ring knows of its files.
pub(super) struct Files {
    storage: Storage,
    /// What is open, by number.
    open: Vec<Option<Arc<fs::File>>>,
    operations: Vec<Option<Operation>>,
    free_operations: Vec<u32>,
    /// Syncs under way that are to go first.
    pub(super) first_syncs: u32,
    /// Answers of the storage thread that the loop has not taken yet.
    pub(super) done: VecDeque<Done>,
}

impl Files {
    pub(super) fn new(storage: Storage) -> Self {
        Self {
            storage,
            open: Vec::new(),
            operations: Vec::new(),
            free_operations: Vec::new(),
            first_syncs: 0,
            done: VecDeque::new(),
        }
    }

    pub(super) fn give(&mut self, ticket: u64, task: FileTask) {
        if let Some(file) = task.closes() {
            // The thread comes last, so that closing is its work.
            self.let_go(file);
        }
        self.storage.give(ticket, task);
    }

    /// Takes what the storage thread has answered.
    pub(super) fn take_answers(&mut self) {
        while let Some(mut done) = self.storage.answer() {
            match std::mem::replace(&mut done.change, Change::None) {
                Change::None => {}
                Change::Opened(File(number), descriptor) => {
                    let place = number as usize;
                    if self.open.len() <= place {
                        self.open.resize_with(place + 1, || None);
                    }
                    assert!(self.open[place].is_none(), "file {number} was open already");
                    self.open[place] = Some(descriptor);
                }
                // Given before the answer that opened the file was taken.
                Change::Closed(file) => self.let_go(file),
            }
            self.done.push_back(done);
        }
    }

    pub(super) fn write(&self, file: File, bytes: &[u8], offset_bytes: u64) -> Result<(), i32> {
        self.descriptor(file).write_all_at(bytes, offset_bytes).map_err(errno)
    }

    pub(super) fn begin_sync(&mut self, ticket: u64, file: File, is_first: bool) -> squeue::Entry {
        let file = Arc::clone(self.descriptor(file));
        let descriptor = Fd(file.as_raw_fd());
        let place = self.begin(Operation { ticket, file, is_first });
        self.first_syncs += u32::from(is_first);
        opcode::Fsync::new(descriptor)
            .flags(FsyncFlags::DATASYNC)
            .build()
            .user_data(Kind::Sync.data(Token { index: place, generation: 0 }))
    }

    pub(super) fn end_sync(&mut self, place: u32, result: i32) -> Event<ReceiveBuffer> {
        let ticket = self.end(place);
        Event::Synced { ticket, result: if result < 0 { Err(-result) } else { Ok(()) } }
    }

    /// Leaves what the kernel may still use.
    pub(super) fn forget_operations(&mut self) {
        for operation in self.operations.drain(..).flatten() {
            std::mem::forget(operation);
        }
    }

    fn begin(&mut self, operation: Operation) -> u32 {
        match self.free_operations.pop() {
            Some(place) => {
                self.operations[place as usize] = Some(operation);
                place
            }
            None => {
                self.operations.push(Some(operation));
                self.operations.len() as u32 - 1
            }
        }
    }

    /// Ends an operation: its ticket.
    fn end(&mut self, place: u32) -> u64 {
        let operation = self.operations[place as usize].take().expect("an operation ends once");
        self.free_operations.push(place);
        self.first_syncs -= u32::from(operation.is_first);
        self.storage.let_go(operation.file);
        operation.ticket
    }

    fn let_go(&mut self, file: File) {
        if let Some(descriptor) = self.open.get_mut(file.0 as usize).and_then(Option::take) {
            self.storage.let_go(descriptor);
        }
    }

    fn descriptor(&self, file: File) -> &Arc<fs::File> {
        let open = self.open.get(file.0 as usize).and_then(Option::as_ref);
        open.unwrap_or_else(|| panic!("file {} is not open", file.0))
    }
}
