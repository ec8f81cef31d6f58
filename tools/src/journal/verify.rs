//! `verify`: what a start would check, and what it would say.
//!
//! The same scan as at a start finds where each journal ends and whether anything before that is damaged; then every snapshot
//! that a start would load is read, and every entry that it would apply is decoded.

use std::{convert::Infallible, io::Write, thread};

use duva_engine::{SLOT_COUNT, command::Flags};
use duva_persist::{
    manifest::{Cut, Manifest},
    names,
    recovery::{self, EntryKind, RecoveryError, ReplayError, Scan, ScanOptions},
};

use super::{
    Failure,
    folder::{Folder, Found},
    payload::Teller,
    snapshot,
    walk::{Contents, Item, walk},
};

/// The hash that this version has.
const HASH_ALGORITHM: u16 = 1;

/// Checks everything, and says what is wrong.
pub(super) fn verify(folder: &Folder, out: &mut impl Write) -> Result<(), Failure> {
    writeln!(out, "folder {}", folder.path().display())?;
    let manifest = match folder.manifest()? {
        Found::Sound(manifest) => *manifest,
        Found::Missing => {
            let sentence = "the manifest is missing: restore it from a copy, or move the directory away";
            return damaged(out, sentence);
        }
        Found::Damaged(what) => {
            return damaged(out, &format!("{}: {what}", names::MANIFEST));
        }
    };
    if manifest.hash_algorithm != HASH_ALGORITHM {
        let algorithm = manifest.hash_algorithm;
        return Err(Failure::Unusable(format!(
            "the manifest names hash {algorithm}, which this version does not have"
        )));
    }
    writeln!(out, "manifest: epoch {}, {} shards", manifest.epoch, manifest.shards)?;
    let scan = match scan(folder, &manifest, false) {
        Ok(scan) => Some(scan),
        Err(error) if is_unreadable(&error) => return Err(Failure::Unusable(error.to_string())),
        Err(error) => {
            writeln!(out, "DAMAGED: {error}")?;
            None
        }
    };
    match &scan {
        Some(scan) => tell_journals(folder, &manifest, scan, out)?,
        None => tell_loss(folder, &manifest, out)?,
    }
    let are_snapshots_sound = check_snapshots(folder, &manifest, out)?;
    let Some(scan) = scan.filter(|_| are_snapshots_sound) else { return Err(Failure::Damaged) };
    check_entries(folder, &manifest, &scan, out)?;
    writeln!(out, "sound")?;
    Ok(())
}

fn damaged(out: &mut impl Write, sentence: &str) -> Result<(), Failure> {
    writeln!(out, "DAMAGED: {sentence}")?;
    Err(Failure::Damaged)
}

fn scan(folder: &Folder, manifest: &Manifest, truncate: bool) -> Result<Scan, RecoveryError> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    recovery::scan(folder, manifest, ScanOptions { truncate, threads })
}

/// Whether nothing can be said about the journal.
fn is_unreadable(error: &RecoveryError) -> bool {
    matches!(
        error,
        RecoveryError::List(_)
            | RecoveryError::Read { .. }
            | RecoveryError::Changed { .. }
            | RecoveryError::Newer { .. }
    )
}

/// Where each journal ends, and what lies behind that.
fn tell_journals(
    folder: &Folder,
    manifest: &Manifest,
    scan: &Scan,
    out: &mut impl Write,
) -> Result<(), Failure> {
    for cut in scan.cuts() {
        tell_cut(folder, manifest, scan, cut, out)?;
    }
    if !scan.empty().is_empty() {
        writeln!(out, "spare segments: {}", scan.empty().len())?;
    }
    Ok(())
}

fn tell_cut(
    folder: &Folder,
    manifest: &Manifest,
    scan: &Scan,
    cut: &Cut,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let own = scan.segments().iter().filter(|segment| (segment.epoch, segment.core) == (cut.epoch, cut.core));
    let segments = own.filter(|segment| segment.end > 0).count();
    let (sequence, offset) = (cut.end.sequence(), cut.end.offset());
    let source = match manifest.cut(cut.epoch, cut.core) {
        Some(_) => "as the manifest says",
        None => "as its blocks say",
    };
    writeln!(
        out,
        "core {} of epoch {}: {segments} segments, ends at {sequence}:{offset}, {source}",
        cut.core, cut.epoch
    )?;
    let (blocks, records) = behind(folder, cut)?;
    if blocks + records > 0 {
        writeln!(out, "  behind that {blocks} sound blocks, {records} sound records, which a start drops")?;
    }
    Ok(())
}

/// How many sound blocks and records of a journal lie behind its end.
fn behind(folder: &Folder, cut: &Cut) -> Result<(u64, u64), Failure> {
    let (mut blocks, mut records) = (0, 0);
    let mut bytes = Vec::new();
    let later =
        |file: &super::folder::SegmentFile| file.core == cut.core && file.sequence >= cut.end.sequence();
    for file in folder.segments().iter().filter(|file| later(file)) {
        folder.load(&file.name, &mut bytes)?;
        let contents = Contents::of(&bytes, file.core, file.sequence);
        if contents.epoch() != Some(cut.epoch) {
            continue;
        }
        let end = if file.sequence == cut.end.sequence() { cut.end.offset() as usize } else { 0 };
        let walked = walk(&bytes, (file.core, file.sequence), &contents, |item| {
            match item {
                Item::Block(block) => blocks += u64::from(block.offset.get() as usize >= end),
                Item::Record(place) => records += u64::from(place.offset >= end),
                Item::Gap { .. } => {}
            }
            Ok::<(), Infallible>(())
        });
        match walked {
            Ok(_) => {}
            Err(never) => match never {},
        }
    }
    Ok((blocks, records))
}

/// What a start with `--recover truncate` would drop.
fn tell_loss(folder: &Folder, manifest: &Manifest, out: &mut impl Write) -> Result<(), Failure> {
    match scan(folder, manifest, true) {
        Ok(scan) => {
            match scan.lost() {
                Some(lost) => {
                    writeln!(out, "with --recover truncate would be lost: {}", lost.sentence)?;
                    for (file, offset) in &lost.places {
                        writeln!(out, "  {file} from offset {offset} on")?;
                    }
                }
                None => writeln!(out, "with --recover truncate nothing would be lost")?,
            }
            tell_journals(folder, manifest, &scan, out)
        }
        Err(error) => {
            writeln!(out, "--recover truncate does not help: {error}")?;
            Ok(())
        }
    }
}

/// Reads the newest snapshot of each shard, which a start would load.
fn check_snapshots(folder: &Folder, manifest: &Manifest, out: &mut impl Write) -> Result<bool, Failure> {
    let files = folder.snapshots();
    let (mut count, mut keys, mut unchecked, mut is_sound) = (0, 0, 0, true);
    for (place, file) in files.iter().enumerate() {
        let is_replaced = files.get(place + 1).is_some_and(|next| next.shard == file.shard);
        if is_replaced || file.shard >= manifest.shards {
            continue;
        }
        match snapshot::read(folder, file, Some(manifest))? {
            Ok(summary) => {
                count += 1;
                keys += summary.keys;
                unchecked += u64::from(!summary.has_checksum);
            }
            Err(what) => {
                is_sound = false;
                writeln!(out, "DAMAGED: {} cannot be loaded: {what}", file.name)?;
            }
        }
    }
    writeln!(out, "snapshots: {count} sound, {keys} keys")?;
    if unchecked > 0 {
        writeln!(out, "  {unchecked} of them were written without a checksum")?;
    }
    Ok(is_sound)
}

/// Decodes every entry that a start would apply.
fn check_entries(
    folder: &Folder,
    manifest: &Manifest,
    scan: &Scan,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let mut teller = Teller::new(manifest.hash_seed);
    let shard_slots = SLOT_COUNT / manifest.shards;
    let wants = |shard: u16| {
        let snapshot = scan.snapshots().get(usize::from(shard))?;
        Some(snapshot.as_ref().map_or(0, |snapshot| snapshot.index))
    };
    let replayed = scan.replay(folder, wants, |entry| {
        if entry.kind == EntryKind::Tick {
            return Ok(());
        }
        let wrong =
            |what: &str| format!("entry {} of shard {} cannot be applied: {what}", entry.index, entry.shard);
        let decoded = teller.decode(entry.payload).map_err(wrong)?;
        if !decoded.command.flags.contains(Flags::WRITE) {
            return Err(wrong("it is no write"));
        }
        if decoded.keys.iter().any(|key| key.slot / shard_slots != entry.shard) {
            return Err(wrong("it names a key of another shard"));
        }
        Ok(())
    });
    let replayed = match replayed {
        Ok(replayed) => replayed,
        Err(ReplayError::Recovery(error)) if is_unreadable(&error) => {
            return Err(Failure::Unusable(error.to_string()));
        }
        Err(error) => return damaged(out, &error.to_string()),
    };
    writeln!(out, "entries to apply: {}", replayed.entries)?;
    if !replayed.unfinished.is_empty() {
        let to_commit = replayed.unfinished.iter().filter(|part| part.commit).count();
        writeln!(
            out,
            "parts of transactions that were not finished: {}, of which {to_commit} will be applied",
            replayed.unfinished.len()
        )?;
    }
    Ok(())
}
