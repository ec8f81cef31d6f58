//! The segment files of one core: which journal each belongs to, and where that journal ends.

use super::{
    Directory, ScanOptions,
    error::RecoveryError,
    segment::{self, BLOCK_HEADER_BYTES, HEAD_BYTES, Head},
    walk::{JournalScan, Problem, SegmentScan, Stop, Walk},
};
use crate::{
    format::Position,
    manifest::{Cut, Manifest},
    names,
};

/// A directory whose files leave fewer sequences is refused: its next journals could not be written for long.
const SEQUENCES_LEFT_MIN: u32 = 1 << 20;

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
    if u32::MAX - last_sequence < SEQUENCES_LEFT_MIN {
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
    // Those that have lost all of their files as well.
    epochs.extend(demanded(manifest).filter(|journal| journal.1 == core).map(|journal| journal.0));
    epochs.sort_unstable();
    epochs.dedup();
    for epoch in epochs {
        scanner.scan_journal(epoch, &files, &mut scan)?;
    }
    Ok(scan)
}

/// The journals, by epoch and core, that have files whatever was trimmed: those of the running epoch, or, before they are
/// begun, all of which something was kept.
pub(super) fn demanded(manifest: &Manifest) -> impl Iterator<Item = (u64, u16)> {
    let begun = manifest.starts.iter().map(|start| (manifest.epoch, start.core));
    let kept = manifest.cuts.iter().filter(|cut| !manifest.is_begun() && keeps_something(cut.end));
    begun.chain(kept.map(|cut| (cut.epoch, cut.core)))
}

/// Whether anything of a journal is kept that ends there: one of which nothing is ends where its first segment begins.
fn keeps_something(end: Position) -> bool {
    end.offset() > 0
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
        } else {
            self.known(File { sequence, epoch: Some(epoch), whole: true })
        }
    }

    /// The file, unless it is of an epoch that is yet to come.
    fn known(&self, file: File) -> Result<File, RecoveryError> {
        let Some(epoch) = file.epoch.filter(|epoch| *epoch > self.manifest.epoch) else { return Ok(file) };
        let why = "the manifest knows only earlier ones: it is not this directory's newest";
        Err(RecoveryError::WrongEpoch { file: names::segment(self.core, file.sequence), epoch, why })
    }

    /// The header says nothing: perhaps it was torn, or damaged, and the blocks were not.
    fn classify_by_blocks(&mut self, file: String, sequence: u32) -> Result<File, RecoveryError> {
        self.load(&file)?;
        let blocks = segment::search(&self.bytes, 0, self.core, sequence);
        let epoch = blocks.map(|block| block.epoch.get()).max();
        self.known(File { sequence, epoch, whole: false })
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
        let first = match cut {
            Some(end) => self.first_of_earlier(end, own().next()),
            None => self.first_of_running(files, own().next())?,
        };
        let losses = scan.losses.len();
        let (mut journal, mut end) = self.walk(epoch, files, (first, cut), &mut scan.losses)?;
        if journal.segments.is_empty() {
            // What was kept of it was trimmed, or is given up: it is not to be demanded any more.
            end = Position::new(first, 0);
        }
        journal.lossy = scan.losses.len() > losses;
        journal.synced_to = match cut {
            // An earlier recovery made sure of it.
            Some(_) => end,
            None => journal.synced_to.max(self.begun_to(&journal, first).min(end)),
        };
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

    /// The segment with which an earlier journal begins that ends there: the oldest, unless all that is kept is gone.
    fn first_of_earlier(&self, end: Position, oldest: Option<&File>) -> u32 {
        let last_kept = end.sequence();
        match oldest {
            Some(oldest) if self.manifest.is_begun() || !keeps_something(end) => oldest.sequence,
            Some(oldest) => oldest.sequence.min(last_kept),
            None => last_kept,
        }
    }

    /// The segment with which the running epoch's journal begins. `oldest` is the oldest of its files.
    fn first_of_running(&self, files: &[File], oldest: Option<&File>) -> Result<u32, RecoveryError> {
        let (core, epoch) = (self.core, self.manifest.epoch);
        let wrong = |file: &File, epoch, why| {
            Err(RecoveryError::WrongEpoch { file: names::segment(core, file.sequence), epoch, why })
        };
        let Some(start) = self.manifest.start(core) else {
            let oldest = oldest.expect("without a start only files demand that a journal is scanned");
            if self.manifest.is_begun() {
                return wrong(oldest, epoch, "the manifest has no journal of this core in that epoch");
            }
            return Ok(oldest.sequence);
        };
        if let Some(oldest) = oldest.filter(|oldest| oldest.sequence < start) {
            return wrong(oldest, epoch, "that epoch's journal began with a later segment");
        }
        // A segment is trimmed only once a later one has a header, durably. So the oldest that is there has one.
        match files.iter().find(|file| file.sequence >= start) {
            None => Ok(start),
            Some(File { epoch: None, sequence, .. }) if *sequence > start => Ok(sequence - 1),
            Some(file) => match file.epoch.filter(|other| *other != epoch) {
                Some(other) => {
                    wrong(file, other, "the manifest says that a later epoch's journal begins there")
                }
                None => Ok(file.sequence),
            },
        }
    }

    /// What is durable of the running epoch's journal whatever its blocks say: the header of its first segment, and the empty
    /// block behind it unless that was trimmed.
    fn begun_to(&self, journal: &JournalScan, first: u32) -> Position {
        let Some(start) = self.manifest.start(self.core) else { return Position::default() };
        match journal.segments.first() {
            Some(segment) if segment.sequence == start => {
                Position::new(start, segment.blocks_from + BLOCK_HEADER_BYTES as u32)
            }
            Some(segment) => Position::new(segment.sequence, segment.blocks_from),
            None => Position::new(first, 1),
        }
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
                        || self.begun_to(&walk.scan, first) > problem.at
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
