//! What a file holds: as the kernel shows it, and as far as it is durable.

use crate::sim::random::Random;

/// What a disk writes whole, or not at all, or up to a byte: bytes of a sector.
const SECTOR_BYTES: usize = 512;

/// A file's content.
#[derive(Default)]
pub(super) struct Content {
    shown: Vec<u8>,
    /// Where both agree, a power loss changes nothing.
    durable: Vec<u8>,
    /// What was written since the last sync began: beginnings and ends.
    written: Vec<(usize, usize)>,
}

impl Content {
    /// A durable file.
    pub(super) fn durable(bytes: Vec<u8>) -> Self {
        Self { durable: bytes.clone(), shown: bytes, written: Vec::new() }
    }

    /// What the kernel shows.
    pub(super) fn shown(&self) -> &[u8] {
        &self.shown
    }

    pub(super) fn len(&self) -> usize {
        self.shown.len()
    }

    pub(super) fn write(&mut self, start: usize, bytes: &[u8]) {
        let end = start + bytes.len();
        if self.shown.len() < end {
            self.shown.resize(end, 0);
        }
        self.shown[start..end].copy_from_slice(bytes);
        self.written.push((start, end));
    }

    pub(super) fn append(&mut self, bytes: &[u8]) {
        self.write(self.shown.len(), bytes);
    }

    /// Cuts it, or fills it with zeros.
    pub(super) fn resize(&mut self, length: usize) {
        self.shown.resize(length, 0);
        self.written.retain(|&(_, end)| end <= length);
    }

    /// A sync begins: what it is to make durable.
    pub(super) fn take_written(&mut self) -> Vec<(usize, Vec<u8>)> {
        let written = std::mem::take(&mut self.written);
        written.into_iter().map(|(start, end)| (start, self.shown[start..end].to_vec())).collect()
    }

    /// A sync ended.
    pub(super) fn make_durable(&mut self, covered: Vec<(usize, Vec<u8>)>) {
        for (start, bytes) in covered {
            let end = start + bytes.len();
            if self.durable.len() < end {
                self.durable.resize(end, 0);
            }
            self.durable[start..end].copy_from_slice(&bytes);
        }
    }

    /// All of it is durable.
    pub(super) fn sync_all(&mut self) {
        self.durable.clone_from(&self.shown);
        self.written.clear();
    }

    /// What a power loss leaves of it.
    pub(super) fn after_power_loss(&self, random: &mut Random) -> Self {
        let (short, long) =
            (self.durable.len().min(self.shown.len()), self.durable.len().max(self.shown.len()));
        let mut bytes = self.durable.clone();
        if long > short {
            bytes.resize(random.between(short as u64, long as u64) as usize, 0);
        }
        if bytes == self.shown {
            return Self::durable(bytes);
        }
        // All that was not synced, nothing of it, or some.
        let rate = random.pick(&[0, 1, 2, 2, 8]);
        let length = bytes.len().min(self.shown.len());
        for (kept, shown) in bytes[..length].chunks_mut(SECTOR_BYTES).zip(self.shown.chunks(SECTOR_BYTES)) {
            let shown = &shown[..kept.len()];
            if kept != shown && random.one_in(rate) {
                let is_torn = random.one_in(8);
                let end = if is_torn { random.index(kept.len() + 1) } else { kept.len() };
                kept[..end].copy_from_slice(&shown[..end]);
            }
        }
        Self::durable(bytes)
    }
}
