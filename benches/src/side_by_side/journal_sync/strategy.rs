//! The ways themselves.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::{
        fd::AsRawFd,
        unix::fs::{FileExt, OpenOptionsExt},
    },
    path::Path,
};

use io_uring::{IoUring, opcode, squeue, types};

use crate::failure::{During, Result};

/// What O_DIRECT's addresses, offsets and lengths are multiples of.
const ALIGNMENT_BYTES: usize = 4 << 10;

/// What blocks consist of: not the zeros that files begin with.
const FILLING: u8 = 0xa5;

/// How a block comes to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Strategy {
    /// `pwrite`, then `fdatasync` by the ring.
    RingSync,
    /// A write with RWF_DSYNC by the ring.
    RingWrite,
    /// `pwrite`, then `fdatasync`, both by system calls.
    Blocking,
    /// A write with RWF_DSYNC by the ring to a file opened with O_DIRECT.
    Direct,
    /// As [`RingSync`](Self::RingSync), but the file's blocks are allocated and not yet written.
    Unwritten,
}

pub(super) const STRATEGIES: [Strategy; 5] =
    [Strategy::RingSync, Strategy::RingWrite, Strategy::Blocking, Strategy::Direct, Strategy::Unwritten];

impl Strategy {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::RingSync => "pwrite, fdatasync by io_uring",
            Self::RingWrite => "write with RWF_DSYNC by io_uring",
            Self::Blocking => "pwrite, fdatasync",
            Self::Direct => "O_DIRECT, RWF_DSYNC by io_uring",
            Self::Unwritten => "pwrite, fdatasync by io_uring, only fallocated",
        }
    }
}

/// A file that blocks are appended to.
pub(super) struct Log {
    strategy: Strategy,
    file: File,
    ring: IoUring,
    block: Block,
    offset_bytes: u64,
    file_len_bytes: u64,
}

impl Log {
    /// Makes the file at `path` anew, as long as it will ever be and durable, for blocks of `len_bytes`.
    pub(super) fn create(
        path: &Path,
        strategy: Strategy,
        file_len_bytes: u64,
        len_bytes: usize,
    ) -> Result<Self> {
        let name = || path.display().to_string();
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).during(name)?,
            _ => {}
        }
        let mut file = File::create_new(path).during(name)?;
        // SAFETY: no pointers are passed.
        let failed = unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, file_len_bytes as libc::off_t) } < 0;
        if failed {
            return Err(io::Error::last_os_error()).during(name);
        }
        if strategy != Strategy::Unwritten {
            let zeros = vec![0; 1 << 20];
            let mut left = file_len_bytes;
            while left > 0 {
                let len = left.min(zeros.len() as u64);
                file.write_all(&zeros[..len as usize]).during(name)?;
                left -= len;
            }
        }
        file.sync_all().during(name)?;
        let (flags, len_bytes) = match strategy {
            Strategy::Direct => (libc::O_DIRECT, len_bytes.next_multiple_of(ALIGNMENT_BYTES)),
            _ => (0, len_bytes),
        };
        Ok(Self {
            strategy,
            file: OpenOptions::new().write(true).custom_flags(flags).open(path).during(name)?,
            ring: IoUring::new(2).during(|| "making a ring".into())?,
            block: Block::new(len_bytes),
            offset_bytes: 0,
            file_len_bytes,
        })
    }

    /// Whether another block finds room.
    pub(super) fn has_room(&self) -> bool {
        self.offset_bytes + self.block.bytes().len() as u64 <= self.file_len_bytes
    }

    /// Appends a block, and returns when it is durable.
    pub(super) fn append(&mut self) -> Result<()> {
        let appended = match self.strategy {
            Strategy::RingSync | Strategy::Unwritten => self.pwrite().and_then(|()| self.ring_sync()),
            Strategy::RingWrite | Strategy::Direct => self.ring_write(),
            Strategy::Blocking => self.pwrite().and_then(|()| self.file.sync_data()),
        };
        self.offset_bytes += self.block.bytes().len() as u64;
        appended.during(|| format!("appending by {}", self.strategy.name()))
    }

    fn pwrite(&self) -> io::Result<()> {
        self.file.write_all_at(self.block.bytes(), self.offset_bytes)
    }

    fn ring_sync(&mut self) -> io::Result<()> {
        let sync =
            opcode::Fsync::new(types::Fd(self.file.as_raw_fd())).flags(types::FsyncFlags::DATASYNC).build();
        self.complete(&sync).map(drop)
    }

    fn ring_write(&mut self) -> io::Result<()> {
        let bytes = self.block.bytes();
        let write = opcode::Write::new(types::Fd(self.file.as_raw_fd()), bytes.as_ptr(), bytes.len() as u32)
            .offset(self.offset_bytes)
            .rw_flags(libc::RWF_DSYNC)
            .build();
        let expected = bytes.len();
        match self.complete(&write)? {
            written if written == expected => Ok(()),
            _ => Err(io::ErrorKind::WriteZero.into()),
        }
    }

    /// Has the ring do one thing, and waits for it.
    fn complete(&mut self, entry: &squeue::Entry) -> io::Result<usize> {
        // SAFETY: file and block belong to this value, which waits here until the kernel has finished with them; should
        // waiting itself fail, the program ends with that error before they are used for anything else.
        unsafe { self.ring.submission().push(entry) }.map_err(io::Error::other)?;
        loop {
            match self.ring.submit_and_wait(1) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
                Ok(_) => break,
            }
        }
        let result = self.ring.completion().next().map(|done| done.result());
        match result {
            Some(failed @ ..0) => Err(io::Error::from_raw_os_error(-failed)),
            Some(count) => Ok(count as usize),
            None => Err(io::Error::other("the ring woke without a completion")),
        }
    }
}

/// Bytes at an address that O_DIRECT takes.
struct Block {
    memory: Vec<u8>,
    start: usize,
    len_bytes: usize,
}

impl Block {
    fn new(len_bytes: usize) -> Self {
        let memory = vec![FILLING; len_bytes + ALIGNMENT_BYTES];
        let start = memory.as_ptr().align_offset(ALIGNMENT_BYTES);
        Self { memory, start, len_bytes }
    }

    fn bytes(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.len_bytes]
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::directory::{Directory, root};

    /// Beside this test's program, which is not in memory.
    fn directory() -> Directory {
        let program = std::env::current_exe().unwrap();
        Directory::new(&root(program.parent().unwrap(), false).unwrap()).unwrap()
    }

    #[test]
    fn every_way_writes_its_blocks_one_after_the_other() {
        let directory = directory();
        for strategy in STRATEGIES {
            let path = directory.path().join("log");
            let mut log = Log::create(&path, strategy, 64 << 10, 512).unwrap();
            for _ in 0..3 {
                log.append().unwrap();
            }
            let written = if strategy == Strategy::Direct { 3 * ALIGNMENT_BYTES } else { 3 * 512 };
            let bytes = fs::read(&path).unwrap();
            assert_eq!(bytes.len(), 64 << 10, "{strategy:?}");
            assert!(bytes[..written].iter().all(|&byte| byte == FILLING), "{strategy:?}");
            assert!(bytes[written..].iter().all(|&byte| byte == 0), "{strategy:?}");
        }
    }

    #[test]
    fn a_full_file_has_no_room() {
        let directory = directory();
        let mut log = Log::create(&directory.path().join("log"), Strategy::Blocking, 10_000, 4096).unwrap();
        let mut count = 0;
        while log.has_room() {
            log.append().unwrap();
            count += 1;
        }
        assert_eq!(count, 2);
    }
}
