//! Keeps what is known of the other nodes' last starts: core 0 writes it for all cores, see [`crate::cluster::starts`].
//!
//! Nobody waits for it. One file at a time is under way; what was noted meanwhile is in the next one.

use std::path::PathBuf;

use duva_net::io::{FileTask, Io};

use crate::core::{node::Node, tickets::Ticket};

/// How long after a failure the file is written again, in nanoseconds.
const RETRY_NS: u64 = 5_000_000_000;

/// How far the file is.
pub(super) struct StartsFile {
    path: PathBuf,
    /// What the file on disk has, and the one under way, as [`ClusterShared::starts_after`] counts.
    ///
    /// [`ClusterShared::starts_after`]: crate::core::cluster_shared::ClusterShared::starts_after
    written: u64,
    writing: Option<u64>,
    retry_ns: u64,
}

impl StartsFile {
    /// What is known was read from this file.
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, written: 0, writing: None, retry_ns: 0 }
    }
}

impl Node {
    /// Writes what has been noted of other nodes' starts, unless a write is under way.
    pub(super) fn run_starts(&mut self, io: &mut impl Io, now_ns: u64) {
        let (Some(meta), Some(cluster)) = (&mut self.meta, &self.cluster) else { return };
        let file = &mut meta.starts;
        if file.writing.is_some() || now_ns < file.retry_ns {
            return;
        }
        if let Some((count, bytes)) = cluster.starts_after(file.written) {
            file.writing = Some(count);
            let task = FileTask::Replace { path: file.path.clone(), bytes };
            io.file_task(Ticket::StartsFile.number(), task);
        }
    }

    /// The file is durable, or could not be written.
    pub(in crate::core) fn starts_file_written(&mut self, result: Result<(), i32>, now_ns: u64) {
        let Some(meta) = &mut self.meta else { return };
        let file = &mut meta.starts;
        let Some(count) = file.writing.take() else { return };
        match result {
            Ok(()) => file.written = count,
            Err(errno) => {
                let error = std::io::Error::from_raw_os_error(errno);
                tracing::warn!(%error, "{} cannot be written: trying again", file.path.display());
                file.retry_ns = now_ns + RETRY_NS;
            }
        }
    }
}
