//! The segment files of one core: which journal each belongs to, and where that journal ends.

use super::{
    Directory, ScanOptions,
    error::RecoveryError,
    segment::{self, HEAD_BYTES, Head},
    walk::{JournalScan, Problem, SegmentScan, Stop, Walk},
};
use crate::{
    format::Position,
    manifest::{Cut, Manifest},
    names,
};

/// A segment file.
pub(super) struct File {
    pub(super) sequence: u32,
    /// The epoch of its header, or of its blocks if the header is none; none: it holds nothing.
    pub(super) epoch: Option<u64>,
    /// The header is whole and its own.
    pub(super) whole: bool,
}

/// What a core's files come to.
pub(super) struct CoreScan {
    pub(super) core: u16,
    pub(super) journals: Vec<JournalScan>,
    pub(super) cuts: Vec<Cut>,
    /// Segments that hold nothing.
    pub(super) empty: Vec<u32>,
    pub(super) losses: Vec<Loss>,
    pub(super) last_sequence: u32,
}

/// Something that was durable once and is dropped.
pub(super) struct Loss {
    pub(super) file: String,
    pub(super) offset: u32,
    pub(super) sentence: String,
}

/// Scans all of a core's journals; `sequences` are those of its files, in order.
pub(super) fn scan_core<D: Directory>(
    directory: &D,
    manifest: &Manifest,
    options: ScanOptions,
    core: u16,
    sequences: &[u32],
) -> Result<CoreScan, RecoveryError> {
    let last_sequence = sequences.last().copied().unwrap_or(0);
    if last_sequence == u32::MAX {
        return Err(RecoveryError::NoSequenceLeft { file: names::segment(core, last_sequence) });
    }
    let mut scanner = Scanner { directory, manifest, options, core, bytes: Vec::new(), loaded: None };
    let files: Vec<File> =
        sequences.iter().map(|sequence| scanner.classify(*sequence)).collect::<Result<_, _>>()?;
    let mut scan = CoreScan {
        core,
        journals: Vec::new(),
        cuts: Vec::new(),
        empty: files.iter().filter(|file| file.epoch.is_none()).map(|file| file.sequence).collect(),
        losses: Vec::new(),
        last_sequence,
    };
    let mut epochs: Vec<u64> = Vec::new();
    for (sequence, epoch) in files.iter().filter_map(|file| Some((file.sequence, file.epoch?))) {
        match epochs.last() {
            Some(&last) if last == epoch => {}
            Some(&last) if last > epoch => {
                let why = "it comes after segments of a later one";
                return Err(RecoveryError::WrongEpoch { file: names::segment(core, sequence), epoch, why });
            }
            _ => epochs.push(epoch),
        }
    }
    for epoch in epochs {
        scanner.scan_journal(epoch, &files, &mut scan)?;
    }
    Ok(scan)
}

struct Scanner<'a, D> {
    directory: &'a D,
    manifest: &'a Manifest,
    options: ScanOptions,
    core: u16,
    /// The file that was read last.
    bytes: Vec<u8>,
    /// Its name.
    loaded: Option<String>,
}

impl<D: Directory> Scanner<'_, D> {
    fn classify(&mut self, sequence: u32) -> Result<File, RecoveryError> {
        let file = names::segment(self.core, sequence);
        let mut wanted = HEAD_BYTES;
        let header = loop {
            self.loaded = None;
            self.directory
                .read_head(&file, wanted, &mut self.bytes)
                .map_err(|error| RecoveryError::Read { file: file.clone(), error })?;
            match segment::head(&self.bytes, self.bytes.len() < wanted) {
                Head::Whole(header) => break Some(header),
                Head::Newer { reader_version } => return Err(RecoveryError::Newer { file, reader_version }),
                Head::Invalid => break None,
                Head::Longer(longer) => wanted = longer,
            }
        };
        // What was recycled and not written since has an earlier header, of whatever node and epoch.
        let Some(header) = header.filter(|header| header.sequence.get() >= sequence) else {
            return self.classify_by_blocks(file, sequence);
        };
        let epoch = header.epoch.get();
        if header.sequence.get() > sequence {
            Err(RecoveryError::WrongSequence { file, sequence: header.sequence.get() })
        } else if header.cluster != self.manifest.cluster {
            Err(RecoveryError::ForeignCluster { file })
        } else if header.node != self.manifest.node {
            Err(RecoveryError::ForeignNode { file })
        } else if header.core.get() != self.core {
            Err(RecoveryError::WrongCore { file, core: header.core.get() })
        } else if epoch > self.manifest.epoch {
            let why = "the manifest knows only earlier ones: it is not this directory's newest";
            Err(RecoveryError::WrongEpoch { file, epoch, why })
        } else {
            Ok(File { sequence, epoch: Some(epoch), whole: true })
        }
    }

    /// The header says nothing: perhaps it was torn, or damaged, and the blocks were not.
    fn classify_by_blocks(&mut self, file: String, sequence: u32) -> Result<File, RecoveryError> {
        self.load(&file)?;
        let blocks = segment::search(&self.bytes, 0, self.core, sequence);
        let epochs = blocks.map(|block| block.epoch.get()).filter(|epoch| *epoch <= self.manifest.epoch);
        Ok(File { sequence, epoch: epochs.max(), whole: false })
    }

    fn scan_journal(&mut self, epoch: u64, files: &[File], scan: &mut CoreScan) -> Result<(), RecoveryError> {
        let core = self.core;
        let own = || files.iter().filter(|file| file.epoch == Some(epoch));
        let cut = self.manifest.cut(epoch, core);
        if epoch < self.manifest.epoch && cut.is_none() {
            let file = names::segment(core, own().next().map_or(0, |file| file.sequence));
            let why = "the manifest does not say where that epoch's journal ends";
            return Err(RecoveryError::WrongEpoch { file, epoch, why });
        }
        let start = self.manifest.start(core);
        let mut first = own().next().map_or(start, |file| file.sequence);
        if cut.is_none() {
            if first < start {
                let file = names::segment(core, first);
                let why = "that epoch's journal began with a later segment";
                return Err(RecoveryError::WrongEpoch { file, epoch, why });
            }
            // The oldest segments may have been trimmed, which takes the files away. One that is there and holds nothing has
            // lost what was written to it.
            if let Some(there) = files.iter().find(|file| file.sequence >= start) {
                first = there.sequence;
                if let Some(other) = there.epoch.filter(|other| *other != epoch) {
                    let why = "the manifest says that a later epoch's journal begins there";
                    return Err(RecoveryError::WrongEpoch {
                        file: names::segment(core, first),
                        epoch: other,
                        why,
                    });
                }
            }
        }
        let losses = scan.losses.len();
        let (mut journal, end) = self.walk(epoch, files, (first, cut), &mut scan.losses)?;
        journal.lossy = scan.losses.len() > losses;
        if cut.is_some() {
            // An earlier recovery made sure of it.
            journal.synced_to = end;
        }
        let walked_to = journal.segments.last().map(|segment| segment.sequence);
        for file in own().filter(|file| walked_to.is_none_or(|last| file.sequence > last)) {
            journal.segments.push(SegmentScan {
                sequence: file.sequence,
                blocks_from: 0,
                end: 0,
                shards: Vec::new(),
            });
        }
        scan.journals.push(journal);
        scan.cuts.push(Cut { epoch, core, end });
        Ok(())
    }

    /// Walks a journal and decides what becomes of what is wrong with it. Returns where it ends.
    fn walk(
        &mut self,
        epoch: u64,
        files: &[File],
        (first, cut): (u32, Option<Position>),
        losses: &mut Vec<Loss>,
    ) -> Result<(JournalScan, Position), RecoveryError> {
        let mut limit = cut;
        let mut found = None;
        loop {
            let manifest = self.manifest;
            let mut walk = Walk::new(manifest, files, (self.core, epoch), first, limit);
            let mut bytes = std::mem::take(&mut self.bytes);
            let (directory, loaded) = (self.directory, &mut self.loaded);
            let stop = walk.run(&mut bytes, |name, bytes| load(directory, name, bytes, loaded));
            self.bytes = bytes;
            match (stop?, limit) {
                (Stop::Limit, Some(end)) => return Ok((walk.scan, found.unwrap_or(end))),
                // Without a limit, a walk ends with what is wrong at the end, if only that nothing comes there.
                (Stop::Limit, None) => return Ok((walk.scan, Position::default())),
                (Stop::Problem(problem), _) => {
                    if found.is_some() {
                        // All of this was read before, and right.
                        let (file, offset) =
                            (names::segment(self.core, problem.at.sequence()), problem.at.offset());
                        return Err(RecoveryError::Changed { file, offset });
                    }
                    let end = walk.group.map_or(problem.keep_to, |group| group.min(problem.keep_to));
                    let corrupt = cut.is_some()
                        || problem.certain
                        || self.synced_to(&walk, &problem, files)? > problem.at;
                    if corrupt && !self.options.truncate {
                        return Err(problem.error);
                    }
                    if corrupt {
                        let last = walk.scan.segments.last();
                        losses.push(loss(self.core, &problem, last.map(|segment| segment.sequence)));
                    }
                    if end == walk.taken_to {
                        return Ok((walk.scan, end));
                    }
                    // Something was taken in that is dropped: once more, up to there.
                    limit = Some(end);
                    found = Some(end);
                }
            }
        }
    }

    /// Everything before this was durable, as far as any block tells, also one behind the problem.
    fn synced_to(
        &mut self,
        walk: &Walk<'_>,
        problem: &Problem,
        files: &[File],
    ) -> Result<Position, RecoveryError> {
        let from = problem.search_from;
        let mut synced_to = walk.scan.synced_to;
        let later = files.iter().filter(|file| file.sequence >= from.sequence() && file.epoch.is_some());
        for file in later {
            self.load(&names::segment(self.core, file.sequence))?;
            let offset = if file.sequence == from.sequence() { from.offset() } else { 0 };
            let blocks = segment::search(&self.bytes, offset as usize, self.core, file.sequence);
            let own = blocks.filter(|block| {
                block.epoch.get() == walk.scan.epoch
                    && walk.next_number.is_none_or(|next| block.number.get() >= next)
            });
            synced_to = own.map(|block| Position(block.synced_to.get())).fold(synced_to, Position::max);
        }
        Ok(synced_to)
    }

    fn load(&mut self, name: &str) -> Result<(), RecoveryError> {
        load(self.directory, name, &mut self.bytes, &mut self.loaded)
    }
}

/// Reads a file unless the buffer holds it already.
fn load<D: Directory>(
    directory: &D,
    name: &str,
    bytes: &mut Vec<u8>,
    loaded: &mut Option<String>,
) -> Result<(), RecoveryError> {
    if loaded.as_deref() != Some(name) {
        *loaded = None;
        let read = directory.read(name, bytes);
        read.map_err(|error| RecoveryError::Read { file: name.to_owned(), error })?;
        *loaded = Some(name.to_owned());
    }
    Ok(())
}

fn loss(core: u16, problem: &Problem, last: Option<u32>) -> Loss {
    let keep_to = problem.keep_to;
    // A file that is missing cannot be copied; the last one that is there tells where the journal breaks off.
    let (file, offset) = match &problem.error {
        RecoveryError::Damage { file, offset, .. } => (file.clone(), *offset),
        _ => (names::segment(core, last.unwrap_or(keep_to.sequence())), keep_to.offset()),
    };
    let why = match &problem.error {
        RecoveryError::Damage { what, .. } => (*what).to_owned(),
        RecoveryError::SequenceGap { missing, .. } | RecoveryError::MissingSegment { missing, .. } => {
            format!("{missing} is missing")
        }
        other => other.to_string(),
    };
    let sentence = format!("everything of core {core} from {file}, offset {offset}, on was dropped: {why}");
    Loss { file, offset, sentence }
}
