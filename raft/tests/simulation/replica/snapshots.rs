//! Snapshots and what is read for followers: the driver's slow work with files.

use std::sync::Arc;

use duva_raft::{SnapshotMeta, SnapshotWrite};

use super::{Host, Incoming, Replica};
use crate::simulation::{
    check::Event as Happened,
    flaw::Flaw,
    image::{Record, Snapshot},
    machine::Machine,
    queue::{Event, Reading, SnapshotFile},
};

/// How many pieces of a thousand cannot be stored.
const FAILED_PERMILLE: u32 = 10;

/// How many snapshots of a thousand find no room at first.
const REFUSED_PERMILLE: u32 = 100;

impl Replica {
    /// Saves the state from time to time, so that the log can be forgotten.
    pub(super) fn save(&mut self, host: &mut Host<'_>) {
        let every = host.outside.setup.snapshot_every;
        let applied = self.machine.applied;
        if every == 0 || self.is_saving || applied < self.saved + every || self.incoming.is_some() {
            return;
        }
        self.is_saving = true;
        self.saved = applied;
        let meta =
            SnapshotMeta { index: applied, term: self.applied_term, membership: self.membership.clone() };
        let bytes = match host.outside.is(Flaw::SnapshotWithoutRequests) {
            true => self.machine.without_requests().encode(),
            false => self.machine.encode(),
        };
        let file = self.file(host, meta);
        let delay_ns = host.outside.random.between(500_000, 20_000_000);
        host.outside.later(delay_ns, Event::SnapshotSaved { file, bytes });
    }

    fn file(&self, host: &Host<'_>, meta: SnapshotMeta) -> SnapshotFile {
        SnapshotFile { node: host.node, life: host.life, group: self.group, replica: self.id, meta }
    }

    /// A piece of a snapshot came.
    pub(super) fn store(&mut self, host: &mut Host<'_>, write: SnapshotWrite) {
        let SnapshotWrite { meta, offset, bytes, is_last } = write;
        if offset == 0 {
            if !host.outside.is_over && host.outside.random.permille(REFUSED_PERMILLE) {
                self.incoming = None;
                self.raft.snapshot_refused(meta.index, meta.term);
                let file = self.file(host, meta);
                let delay_ns = host.outside.random.between(1_000_000, 1_000_000_000);
                return host.outside.later(delay_ns, Event::SnapshotRoom { file });
            }
            self.incoming = Some(Incoming { meta: meta.clone(), bytes: Vec::new() });
        }
        let incoming = self.incoming.as_mut().expect("the first piece came first");
        assert_eq!(
            (&incoming.meta, incoming.bytes.len() as u64),
            (&meta, offset),
            "pieces follow one another"
        );
        incoming.bytes.extend_from_slice(&bytes);
        let next_offset = incoming.bytes.len() as u64;
        let whole = is_last.then(|| incoming.bytes.as_slice().into());
        if is_last {
            self.incoming = None;
        }
        let file = self.file(host, meta);
        let delay_ns = host.outside.random.between(100_000, 3_000_000);
        host.outside.later(delay_ns, Event::PieceStored { file, next_offset, whole });
    }

    /// There is room for the snapshot that was refused.
    pub(crate) fn has_room(&mut self) {
        self.raft.invite_snapshot();
    }

    /// A piece is in its file, unless that failed; with the last one the snapshot is whole, and is marked.
    pub(crate) fn piece_stored(
        &mut self,
        host: &mut Host<'_>,
        meta: SnapshotMeta,
        next_offset: u64,
        whole: Option<Arc<[u8]>>,
    ) {
        if !host.outside.is_over && host.outside.random.permille(FAILED_PERMILLE) {
            self.incoming.take_if(|incoming| incoming.meta == meta);
            return self.raft.snapshot_failed(meta.index, meta.term);
        }
        self.raft.snapshot_stored(meta.index, meta.term, next_offset);
        if let Some(bytes) = whole {
            let snapshot = Snapshot { meta, bytes, is_installed: true };
            if host.outside.is(Flaw::InstallBeforeDurable) {
                self.install(host, &snapshot);
            }
            host.disk.add(self.group, self.id, Record::Mark(snapshot));
        }
    }

    /// The own snapshot is in its file.
    pub(crate) fn snapshot_saved(&mut self, host: &mut Host<'_>, meta: SnapshotMeta, bytes: Arc<[u8]>) {
        let snapshot = Snapshot { meta, bytes, is_installed: false };
        host.disk.add(self.group, self.id, Record::Mark(snapshot));
    }

    /// A snapshot's mark is durable.
    pub(crate) fn marked(&mut self, host: &mut Host<'_>, snapshot: &Snapshot) {
        if !snapshot.is_installed {
            self.is_saving = false;
            self.raft.compact(snapshot.meta.index);
        } else if !host.outside.is(Flaw::InstallBeforeDurable) {
            self.install(host, snapshot);
        }
    }

    fn install(&mut self, host: &mut Host<'_>, snapshot: &Snapshot) {
        let meta = &snapshot.meta;
        let is_news = meta.index > self.machine.applied;
        if is_news {
            let setup = &host.outside.setup;
            self.machine = Machine::decode(&snapshot.bytes, setup.keys, setup.clients);
            self.applied_term = meta.term;
            self.membership = meta.membership.clone();
            self.time_ms = self.time_ms.max(self.machine.time_ms());
            self.saved = self.saved.max(meta.index);
        }
        let (group, replica, now_ns) = (self.group, self.id, host.outside.now_ns);
        host.outside.trace.note(now_ns, [6, replica.0, meta.index], || {
            format!("installed {group} {} up to entry {} of term {}", replica.0, meta.index, meta.term)
        });
        host.outside.checks.see(Happened::Installed {
            group,
            replica,
            snapshot: (meta.index, meta.term),
            digest: is_news.then(|| self.machine.digest()),
        });
        self.raft.snapshot_installed(meta.index, meta.term);
    }

    /// Reads for a follower what was asked for some time ago.
    pub(crate) fn fetch(&mut self, host: &mut Host<'_>, read: Reading) {
        let Some(image) = &host.disk.written[self.group] else { return };
        match read {
            Reading::Entries(fetch) => {
                let entries = (fetch.from > image.snapshot.meta.index).then(|| {
                    let skipped = (fetch.from - image.first_index()) as usize;
                    let mut bytes = 0;
                    let wanted = image.entries.iter().skip(skipped).take_while(|entry| {
                        bytes += entry.payload.len();
                        entry.index == fetch.from || (entry.index < fetch.to && bytes <= fetch.bytes_max)
                    });
                    wanted.cloned().collect::<Vec<_>>()
                });
                self.raft.fetched(fetch.peer, fetch.from, entries);
            }
            Reading::Piece(read) => {
                let Some(snapshot) = image.snapshot_of(read.snapshot) else {
                    return self.raft.snapshot_unreadable(read.peer);
                };
                let len = snapshot.bytes.len();
                let from = (read.offset as usize).min(len);
                let to = from.saturating_add(read.bytes_max).min(len);
                let (meta, piece) = (snapshot.meta.clone(), snapshot.bytes[from..to].into());
                self.raft.snapshot_read(read.peer, meta, from as u64, piece, to == len);
            }
        }
    }
}
