//! `stat`: how much there is of what.

use std::{collections::BTreeMap, convert::Infallible, fmt::Display, io::Write};

use duva_persist::format::{Kind, Position, RecordHeader, record_flag};

use super::{
    Failure,
    folder::{Folder, Found, SegmentFile},
    payload::{FRAGMENTED_BYTES, Payload, Streams, Teller, command},
    walk::{Contents, Item, Place, walk},
};

/// Records and bytes.
#[derive(Clone, Copy, Default)]
struct Tally {
    records: u64,
    bytes: u64,
}

impl Tally {
    fn add(&mut self, bytes: u64) {
        self.records += 1;
        // A damaged or crafted record may announce any length.
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

/// Everything that is counted.
struct Counts {
    teller: Teller,
    streams: Streams,
    files: Tally,
    spare: Tally,
    /// Bytes of segments up to the end of their last block.
    used_bytes: u64,
    blocks: u64,
    payload: Tally,
    /// Records behind the ends that the manifest names.
    dropped: u64,
    gaps: u64,
    by_kind: BTreeMap<String, Tally>,
    by_shard: BTreeMap<u16, Tally>,
    by_command: BTreeMap<&'static str, Tally>,
    /// Whole payloads of commands, by the number of bits of their length.
    by_size: [u64; u64::BITS as usize + 1],
}

/// Counts what all journals hold.
pub(super) fn stat(folder: &Folder, out: &mut impl Write) -> Result<(), Failure> {
    let manifest = match folder.manifest()? {
        Found::Sound(manifest) => Some(*manifest),
        Found::Missing => None,
        Found::Damaged(what) => {
            writeln!(out, "{what}: where journals end is not known")?;
            None
        }
    };
    let mut counts = Counts::new(manifest.as_ref().map_or(0, |manifest| manifest.hash_seed));
    let mut journal = None;
    let mut bytes = Vec::new();
    for file in folder.segments() {
        folder.load(&file.name, &mut bytes)?;
        let contents = Contents::of(&bytes, file.core, file.sequence);
        let own = contents.epoch().map(|epoch| (epoch, file.core));
        if journal != own {
            journal = own;
            counts.streams = Streams::default();
        }
        let cut = own.and_then(|(epoch, core)| manifest.as_ref()?.cut(epoch, core));
        counts.segment(&bytes, &file, &contents, cut);
    }
    counts.print(out)
}

impl Counts {
    fn new(hash_seed: u64) -> Self {
        Self {
            teller: Teller::new(hash_seed),
            streams: Streams::default(),
            files: Tally::default(),
            spare: Tally::default(),
            used_bytes: 0,
            blocks: 0,
            payload: Tally::default(),
            dropped: 0,
            gaps: 0,
            by_kind: BTreeMap::new(),
            by_shard: BTreeMap::new(),
            by_command: BTreeMap::new(),
            by_size: [0; u64::BITS as usize + 1],
        }
    }

    fn segment(&mut self, bytes: &[u8], file: &SegmentFile, contents: &Contents, cut: Option<Position>) {
        self.files.add(bytes.len() as u64);
        if contents.epoch().is_none() {
            self.spare.add(bytes.len() as u64);
        }
        let place = (file.core, file.sequence);
        let walked = walk(bytes, place, contents, |item| {
            let is_dropped = |offset: usize| {
                let at = Position::new(file.sequence, u32::try_from(offset).unwrap_or(u32::MAX));
                cut.is_some_and(|cut| at >= cut)
            };
            match item {
                Item::Block(block) => self.blocks += u64::from(!is_dropped(block.offset.get() as usize)),
                Item::Record(place) if is_dropped(place.offset) => self.dropped += 1,
                Item::Record(place) => self.record(&place),
                Item::Gap { .. } => self.gaps += 1,
            }
            Ok::<(), Infallible>(())
        });
        match walked {
            Ok(end) => self.used_bytes += end.offset.min(bytes.len()) as u64,
            Err(never) => match never {},
        }
    }

    fn record(&mut self, place: &Place<'_>) {
        let Place { header, payload, .. } = *place;
        let own_bytes = payload_bytes(header, payload);
        let kind = Kind::from_number(header.kind);
        let name = kind.map_or_else(|| format!("kind-{}", header.kind), |kind| format!("{kind:?}"));
        self.payload.add(own_bytes);
        self.by_kind.entry(name).or_default().add(own_bytes);
        self.by_shard.entry(header.shard.get()).or_default().add(own_bytes);
        match kind {
            Some(Kind::Fragment) => self.streams.push(header, payload),
            Some(kind) => {
                let payload = self.streams.complete(header, payload);
                if let Payload::Whole(whole) = &payload
                    && let Some(command) = command(kind, whole)
                {
                    let decoded = self.teller.decode(command);
                    let name = decoded.map_or("(no command)", |decoded| decoded.command.name);
                    self.command(name, whole.len() as u64);
                } else if let Payload::Incomplete { len } = payload {
                    self.command("(fragments missing)", len);
                }
            }
            None => {}
        }
    }

    fn command(&mut self, name: &'static str, bytes: u64) {
        self.by_command.entry(name).or_default().add(bytes);
        self.by_size[(u64::BITS - bytes.leading_zeros()) as usize] += 1;
    }

    fn print(&self, out: &mut impl Write) -> Result<(), Failure> {
        let Self { files, spare, used_bytes, blocks, payload, dropped, gaps, .. } = self;
        writeln!(
            out,
            "files {}, {} bytes; of these spare {}, {} bytes",
            files.records, files.bytes, spare.records, spare.bytes
        )?;
        writeln!(out, "used {used_bytes} bytes in {blocks} blocks")?;
        writeln!(out, "records {}, {} bytes of payload", payload.records, payload.bytes)?;
        if *dropped > 0 {
            writeln!(out, "not counted: {dropped} records behind the ends that the manifest names")?;
        }
        if *gaps > 0 {
            writeln!(out, "places that are not sound: {gaps}")?;
        }
        if payload.bytes > 0 {
            let ratio = |bytes: u64| bytes as f64 / payload.bytes as f64;
            writeln!(
                out,
                "write amplification {:.2} (used bytes to payload bytes; {:.2} with all of the files)",
                ratio(*used_bytes),
                ratio(files.bytes)
            )?;
        }
        print_table(out, "kind", &self.by_kind)?;
        print_table(out, "shard", &self.by_shard)?;
        print_table(out, "command", &self.by_command)?;
        writeln!(out, "{:<28} {:>12}", "payload bytes of a command", "records")?;
        for (bits, count) in self.by_size.iter().enumerate().filter(|(_, count)| **count > 0) {
            let first = if bits == 0 { 0 } else { 1_u64 << (bits - 1) };
            let last = if bits == 0 { 0 } else { first + (first - 1) };
            writeln!(out, "{:<28} {count:>12}", format!("{first} to {last}"))?;
        }
        Ok(())
    }
}

/// Bytes of payload in a record of its own, whatever precedes them.
fn payload_bytes(header: &RecordHeader, payload: &[u8]) -> u64 {
    let is_fragmented = header.flags & record_flag::FRAGMENTED != 0;
    let head_bytes = if is_fragmented { FRAGMENTED_BYTES } else { 0 };
    payload.len().saturating_sub(head_bytes) as u64
}

fn print_table<K: Display>(
    out: &mut impl Write,
    what: &str,
    rows: &BTreeMap<K, Tally>,
) -> Result<(), Failure> {
    writeln!(out, "{what:<28} {:>12} {:>16}", "records", "payload bytes")?;
    for (name, tally) in rows {
        writeln!(out, "{:<28} {:>12} {:>16}", name.to_string(), tally.records, tally.bytes)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn announced_lengths_beyond_all_bounds_are_counted_up_to_the_bound() {
        let mut tally = Tally::default();
        [5, u64::MAX, u64::MAX].into_iter().for_each(|bytes| tally.add(bytes));
        assert_eq!((tally.records, tally.bytes), (3, u64::MAX));
    }
}
