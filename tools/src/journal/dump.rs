//! `dump`: one line a record.

use std::io::Write;

use duva_persist::format::{Kind, Position};

use super::{
    Failure,
    folder::{Folder, Found, SegmentFile},
    payload::{Payload, Streams, Teller, flags},
    text::Time,
    walk::{Contents, Item, Place, walk},
};

/// What is to be printed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Selection {
    pub(super) shard: Option<u16>,
    pub(super) core: Option<u16>,
    /// In every core's journal.
    pub(super) from: Position,
    /// So many records at most.
    pub(super) limit: u64,
    /// Columns of a command.
    pub(super) width: usize,
}

/// Prints the records that are wanted, in order of core and position. Lines that begin with # are about segments.
pub(super) fn dump(folder: &Folder, selection: &Selection, out: &mut impl Write) -> Result<(), Failure> {
    let manifest = match folder.manifest()? {
        Found::Sound(manifest) => Some(*manifest),
        Found::Missing => {
            writeln!(out, "# the manifest is missing: where journals end is not known")?;
            None
        }
        Found::Damaged(what) => {
            writeln!(out, "# {what}: where journals end is not known")?;
            None
        }
    };
    let mut printer = Printer {
        selection,
        // Slots do not depend on the seed, and hashes are not shown.
        teller: Teller::new(manifest.as_ref().map_or(0, |manifest| manifest.hash_seed)),
        streams: Streams::default(),
        line: String::new(),
        left: selection.limit,
        out,
    };
    let mut journal = None;
    let mut bytes = Vec::new();
    for file in folder.segments() {
        if selection.core.is_some_and(|core| core != file.core) || file.sequence < selection.from.sequence() {
            continue;
        }
        folder.load(&file.name, &mut bytes)?;
        let contents = Contents::of(&bytes, file.core, file.sequence);
        let own = contents.epoch().map(|epoch| (epoch, file.core));
        if journal != own {
            journal = own;
            printer.streams = Streams::default();
        }
        let cut = own.and_then(|(epoch, core)| manifest.as_ref()?.cut(epoch, core));
        match printer.segment(&bytes, &file, &contents, cut) {
            Ok(()) => {}
            Err(Stop::Enough) => return Ok(()),
            Err(Stop::Failure(failure)) => return Err(failure),
        }
    }
    Ok(())
}

/// Why printing stops.
enum Stop {
    /// The limit was reached.
    Enough,
    Failure(Failure),
}

impl From<std::io::Error> for Stop {
    fn from(error: std::io::Error) -> Self {
        Self::Failure(error.into())
    }
}

struct Printer<'a, W> {
    selection: &'a Selection,
    teller: Teller,
    streams: Streams,
    line: String,
    /// How many records may still be printed.
    left: u64,
    out: &'a mut W,
}

impl<W: Write> Printer<'_, W> {
    fn segment(
        &mut self,
        bytes: &[u8],
        file: &SegmentFile,
        contents: &Contents,
        cut: Option<Position>,
    ) -> Result<(), Stop> {
        let SegmentFile { core, sequence, name } = file;
        match contents {
            Contents::Segment(header) => {
                let (epoch, opened_ms) = (header.epoch.get(), header.opened_ms.get());
                writeln!(self.out, "# {name}: epoch {epoch}, opened {}", Time(opened_ms))?;
            }
            Contents::Headless { epoch } => {
                writeln!(self.out, "# {name}: epoch {epoch}, without a sound header")?
            }
            Contents::Spare => return Ok(()),
            Contents::Newer { reader_version } => {
                writeln!(self.out, "# {name}: reading it takes format version {reader_version}")?;
            }
            Contents::Foreign { core, sequence } => {
                writeln!(self.out, "# {name}: it was written as segment {sequence} of core {core}")?;
            }
        }
        let mut is_dropped = false;
        walk(bytes, (*core, *sequence), contents, |item| match item {
            Item::Block(_) => Ok(()),
            Item::Record(place) => {
                let at = position(*sequence, place.offset);
                if !is_dropped && cut.is_some_and(|cut| at >= cut) {
                    is_dropped = true;
                    writeln!(
                        self.out,
                        "# {core}/{sequence}:{} the journal ends here: what follows is dropped",
                        place.offset
                    )?;
                }
                self.record((*core, at), &place)
            }
            Item::Gap { offset, why, resumes } => {
                write!(self.out, "# {core}/{sequence}:{offset} {why}")?;
                match resumes {
                    Some(resumes) => writeln!(self.out, "; the next sound block begins at {resumes}")?,
                    None => writeln!(self.out)?,
                }
                Ok(())
            }
        })?;
        Ok(())
    }

    fn record(&mut self, (core, at): (u16, Position), place: &Place<'_>) -> Result<(), Stop> {
        let Place { header, payload, .. } = *place;
        let kind = Kind::from_number(header.kind);
        if kind == Some(Kind::Fragment) {
            self.streams.push(header, payload);
        }
        let is_wanted =
            at >= self.selection.from && self.selection.shard.is_none_or(|shard| shard == header.shard.get());
        // Also one that is not printed frees its fragments.
        let payload = if kind == Some(Kind::Fragment) {
            Payload::Whole(payload.into())
        } else {
            self.streams.complete(header, payload)
        };
        if !is_wanted {
            return Ok(());
        }
        if self.left == 0 {
            return Err(Stop::Enough);
        }
        self.left -= 1;
        self.line.clear();
        let name = match kind {
            Some(kind) => {
                self.teller.tell(&mut self.line, kind, header, &payload, self.selection.width);
                format!("{kind:?}")
            }
            None => format!("kind-{}", header.kind),
        };
        // A fragment's index is its stream's.
        let index = if kind == Some(Kind::Fragment) { 0 } else { header.index.get() };
        let time = match header.timestamp_ms.get() {
            0 => "-".to_owned(),
            timestamp_ms => Time(timestamp_ms).to_string(),
        };
        let line = format!(
            "{core}/{}:{} shard {} index {index} {name} {time} {} {}",
            at.sequence(),
            at.offset(),
            header.shard.get(),
            flags(header),
            self.line
        );
        writeln!(self.out, "{}", line.trim_end())?;
        Ok(())
    }
}

/// A place in a segment, which is at most as long as an offset can say.
fn position(sequence: u32, offset: usize) -> Position {
    Position::new(sequence, u32::try_from(offset).unwrap_or(u32::MAX))
}
