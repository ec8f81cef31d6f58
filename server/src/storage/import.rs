//! Loading a whole `dump.rdb`: every core reads the file and takes its own keys.

use std::path::Path;

use duva_engine::{
    Hasher,
    rdb::{Item, Visitor},
};

use super::{progress::Progress, snapshot::read_rdb};
use crate::core::commit::Executor;

/// Loads the keys of the executor's shards from the file at `path`. Keys that are due at `now_ms` are left out; returns
/// how many.
///
/// # Errors
/// A sentence that names the file, and what in it cannot be loaded.
pub(super) fn load(
    path: &Path,
    executor: &mut Executor,
    now_ms: u64,
    progress: &Progress,
) -> Result<u64, String> {
    let hasher = executor.hasher.clone();
    for shard in executor.shards.iter_mut() {
        shard.advance(now_ms);
    }
    let mut importer = Importer { executor, hasher, now_ms, expired: 0 };
    read_rdb(path, &mut importer, progress)?;
    Ok(importer.expired)
}

struct Importer<'a> {
    executor: &'a mut Executor,
    hasher: Hasher,
    now_ms: u64,
    expired: u64,
}

impl Visitor for Importer<'_> {
    type Error = String;

    #[inline]
    fn entry(&mut self, item: Item<'_>) -> Result<(), String> {
        let key = self.hasher.key(item.key);
        let shards = &mut self.executor.shards;
        if shards.get(key.slot).is_none() {
            return Ok(());
        }
        if item.deadline_ms.is_some_and(|deadline_ms| deadline_ms <= self.now_ms) {
            self.expired += 1;
            return Ok(());
        }
        item.store(shards.of(key.slot), key, self.now_ms);
        Ok(())
    }
}
