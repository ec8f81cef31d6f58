//! Directories of servers: below one root on a real disk, removed when nobody uses them any more.

use std::{
    fs, io,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use crate::failure::{During, Failure, Result};

/// Makes the directory at `path`, if there is none, and returns its absolute path.
///
/// # Errors
/// Also if it lies in memory although a disk is needed.
pub(crate) fn root(path: &Path, needs_disk: bool) -> Result<PathBuf> {
    let name = || path.display().to_string();
    fs::create_dir_all(path).during(name)?;
    let directory = fs::File::open(path).during(name)?;
    // SAFETY: an all-zero statfs is a valid one, and the kernel writes to a local.
    let (result, kind) = unsafe {
        let mut system: libc::statfs = std::mem::zeroed();
        (libc::fstatfs(directory.as_raw_fd(), &raw mut system), system.f_type)
    };
    if result < 0 {
        return Err(io::Error::last_os_error()).during(name);
    }
    if needs_disk && kind == libc::TMPFS_MAGIC {
        return Err(Failure::new(format!(
            "{} is on a tmpfs, where a sync costs nothing; name another place with --dir",
            name()
        )));
    }
    path.canonicalize().during(name)
}

/// A directory of its own, removed with all it holds when dropped.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
}

impl Directory {
    /// A new directory below `root`.
    pub(crate) fn new(root: &Path) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = root.join(format!("{}-{number}", std::process::id()));
        fs::create_dir(&path).during(|| path.display().to_string())?;
        Ok(Self { path })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes everything on its file system durable, so that no write of the past disturbs what comes.
    pub(crate) fn sync(&self) -> Result<()> {
        let name = || self.path.display().to_string();
        let directory = fs::File::open(&self.path).during(name)?;
        // SAFETY: no pointers are passed.
        let result = unsafe { libc::syncfs(directory.as_raw_fd()) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }.during(name)
    }

    /// Reads every file once, so that the page cache holds them. Returns their length in bytes, all in all.
    pub(crate) fn warm(&self) -> Result<u64> {
        read_all(&self.path).during(|| format!("reading {}", self.path.display()))
    }

    /// A new directory below `root` with the same files.
    pub(crate) fn duplicate(&self, root: &Path) -> Result<Self> {
        let copy = Self::new(root)?;
        copy_all(&self.path, &copy.path).during(|| format!("copying {}", self.path.display()))?;
        Ok(copy)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // Nothing in it is of worth.
        let _ = fs::remove_dir_all(&self.path);
    }
}

fn read_all(directory: &Path) -> io::Result<u64> {
    let mut len_bytes = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            len_bytes += read_all(&entry.path())?;
        } else if entry.file_type()?.is_file() {
            let mut buffered = io::BufReader::with_capacity(1 << 20, fs::File::open(entry.path())?);
            len_bytes += io::copy(&mut buffered, &mut io::sink())?;
        }
    }
    Ok(len_bytes)
}

fn copy_all(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            fs::create_dir(&target)?;
            copy_all(&entry.path(), &target)?;
        } else if entry.file_type()?.is_file() {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_holds_what_the_original_holds_and_goes_when_dropped() {
        let original = Directory::new(&std::env::temp_dir()).unwrap();
        fs::create_dir(original.path().join("inner")).unwrap();
        fs::write(original.path().join("inner/file"), b"12345").unwrap();
        fs::write(original.path().join("file"), b"123").unwrap();
        assert_eq!(original.warm().unwrap(), 8);
        let copy = original.duplicate(&std::env::temp_dir()).unwrap();
        let path = original.path().to_owned();
        drop(original);
        assert!(!path.exists());
        assert_eq!(fs::read(copy.path().join("inner/file")).unwrap(), b"12345");
    }

    #[test]
    fn a_tmpfs_is_refused_only_where_a_disk_is_needed() {
        let memory = Path::new("/dev/shm");
        if memory.exists() {
            assert!(root(memory, true).unwrap_err().to_string().contains("--dir"));
        }
        assert!(root(&std::env::temp_dir(), false).unwrap().is_absolute());
    }
}
