//! A disk that can be filled: a file system of a few MiB in memory.
//!
//! Invariant: it is mounted in a mount namespace of the calling thread's own, which the servers that this thread starts
//! inherit. Nobody else sees it, and the kernel takes it away with the last of them, even when the test is killed.

use std::ffi::{CStr, CString};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr;

use super::process::TemporaryDirectory;

/// A small file system.
pub struct SmallDisk(TemporaryDirectory);

impl SmallDisk {
    /// Mounts a disk with room for so many bytes. Only this thread, and what it starts from now on, can see it.
    ///
    /// # Errors
    /// The system's error: not everyone may mount.
    pub fn mount(len_bytes: usize) -> io::Result<Self> {
        let directory = TemporaryDirectory::new();
        // SAFETY: unshare takes a number. It concerns the file systems that this thread sees, and nothing in memory.
        result(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
        // Without this the mount would appear in other namespaces as well.
        mount(c"none", c"/", None, libc::MS_REC | libc::MS_PRIVATE, None)?;
        let target = CString::new(directory.path().as_os_str().as_bytes())?;
        let options = CString::new(format!("size={len_bytes},mode=700"))?;
        mount(c"tmpfs", &target, Some(c"tmpfs"), 0, Some(&options))?;
        Ok(Self(directory))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Bytes that are free.
    ///
    /// # Panics
    /// When the disk is gone.
    pub fn free_bytes(&self) -> u64 {
        let path = CString::new(self.path().as_os_str().as_bytes()).expect("a path has no zero bytes");
        // SAFETY: all-zero bytes are a valid value of this plain structure.
        let mut status: libc::statvfs = unsafe { std::mem::zeroed() };
        // SAFETY: the path ends in a zero byte, and the structure is a live local that the call fills.
        result(unsafe { libc::statvfs(path.as_ptr(), &raw mut status) })
            .unwrap_or_else(|error| panic!("{}: {error}", self.path().display()));
        status.f_bavail * status.f_bsize
    }

    /// Takes up all room but so many bytes, or less if somebody else is writing; there is room again once the result is
    /// dropped.
    ///
    /// # Panics
    /// When there is less room than that, or the disk is gone.
    pub fn fill(&self, leave_bytes: u64) -> Filler {
        let path = self.path().join("filler");
        let mut file = File::create(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut rest =
            self.free_bytes().checked_sub(leave_bytes).expect("there is more room than is to be left");
        let chunk = [1; 4096];
        while rest > 0 {
            let count = rest.min(chunk.len() as u64) as usize;
            match file.write_all(&chunk[..count]) {
                Ok(()) => rest -= count as u64,
                Err(error) if error.kind() == io::ErrorKind::StorageFull => break,
                Err(error) => panic!("{}: {error}", path.display()),
            }
        }
        Filler(path)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let Ok(path) = CString::new(self.path().as_os_str().as_bytes()) {
            // What cannot be unmounted goes with the thread.
            // SAFETY: the path ends in a zero byte; the call reads it and touches no other memory.
            let _ = unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
        }
    }
}

/// A file that takes up room as long as this is there.
pub struct Filler(PathBuf);

impl Drop for Filler {
    fn drop(&mut self) {
        // The disk may be gone already.
        let _ = fs::remove_file(&self.0);
    }
}

fn mount(
    source: &CStr,
    target: &CStr,
    kind: Option<&CStr>,
    flags: libc::c_ulong,
    options: Option<&CStr>,
) -> io::Result<()> {
    let pointer = |text: Option<&CStr>| text.map_or(ptr::null(), CStr::as_ptr);
    // SAFETY: every pointer is null where the kernel allows that, or to a string that ends in a zero byte and outlives the call.
    result(unsafe {
        libc::mount(source.as_ptr(), target.as_ptr(), pointer(kind), flags, pointer(options).cast())
    })
}

fn result(code: libc::c_int) -> io::Result<()> {
    if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
