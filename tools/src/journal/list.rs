//! `list`: which files there are, and what each is.

use std::{convert::Infallible, io::Write};

use duva_persist::{format::Position, manifest::Manifest};

use super::{
    Failure,
    folder::{Folder, Found, SegmentFile},
    snapshot,
    text::{Id, Time},
    walk::{Contents, End, Item, walk},
};

/// Lists everything.
pub(super) fn list(folder: &Folder, out: &mut impl Write) -> Result<(), Failure> {
    writeln!(out, "folder {}", folder.path().display())?;
    let manifest = match folder.manifest()? {
        Found::Sound(manifest) => {
            list_manifest(&manifest, out)?;
            Some(*manifest)
        }
        Found::Missing => {
            writeln!(out, "manifest missing")?;
            None
        }
        Found::Damaged(what) => {
            writeln!(out, "manifest damaged: {what}")?;
            None
        }
    };
    list_segments(folder, manifest.as_ref(), out)?;
    list_snapshots(folder, manifest.as_ref(), out)?;
    for name in folder.others() {
        writeln!(out, "other {}", name.escape_debug())?;
    }
    Ok(())
}

fn list_manifest(manifest: &Manifest, out: &mut impl Write) -> Result<(), Failure> {
    let Manifest { cluster, node, kernel_boot, hash_seed, hash_algorithm, shards, epoch, .. } = manifest;
    writeln!(
        out,
        "manifest epoch {epoch}, {shards} shards, hash {hash_algorithm} with seed {hash_seed:#018x}"
    )?;
    writeln!(out, "  cluster {}, node {}, kernel boot {}", Id(cluster), Id(node), Id(kernel_boot))?;
    if manifest.must_not_vote {
        writeln!(
            out,
            "  something acknowledged may be lost: these replicas never vote again under their ids"
        )?;
    }
    for start in &manifest.starts {
        writeln!(out, "  core {} of epoch {epoch} begins with segment {}", start.core, start.sequence)?;
    }
    for cut in &manifest.cuts {
        let (sequence, offset) = (cut.end.sequence(), cut.end.offset());
        writeln!(out, "  core {} of epoch {} ends at {sequence}:{offset}", cut.core, cut.epoch)?;
    }
    for given_up in &manifest.truncations {
        let (sequence, offset) = (given_up.from.sequence(), given_up.from.offset());
        writeln!(
            out,
            "  shard {} was given up from epoch {}, ownership {}, {sequence}:{offset} to the end of epoch {}",
            given_up.shard, given_up.from_epoch, given_up.from_ownership, given_up.to_epoch
        )?;
    }
    Ok(())
}

/// What is counted in a segment.
#[derive(Default)]
struct Count {
    blocks: u64,
    records: u64,
    /// When the first and the last block were closed.
    times_ms: Option<(u64, u64)>,
    /// The first place that is not sound, although something sound follows or a block was begun there.
    gap: Option<(usize, &'static str)>,
    end: End,
}

fn list_segments(folder: &Folder, manifest: Option<&Manifest>, out: &mut impl Write) -> Result<(), Failure> {
    let files = folder.segments();
    if files.is_empty() {
        writeln!(out, "no segments")?;
        return Ok(());
    }
    writeln!(
        out,
        "{:<26} {:>4} {:>6} {:>8} {:>10} {:>10} {:>7} {:>8} {:<24} {:<24} state",
        "segment",
        "core",
        "epoch",
        "sequence",
        "bytes",
        "used",
        "blocks",
        "records",
        "first block",
        "last block"
    )?;
    let mut bytes = Vec::new();
    for file in &files {
        folder.load(&file.name, &mut bytes)?;
        let contents = Contents::of(&bytes, file.core, file.sequence);
        let count = count(&bytes, file, &contents);
        let or_none = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        let times = count.times_ms;
        writeln!(
            out,
            "{:<26} {:>4} {:>6} {:>8} {:>10} {:>10} {:>7} {:>8} {:<24} {:<24} {}",
            file.name,
            file.core,
            or_none(contents.epoch().map(|epoch| epoch.to_string())),
            file.sequence,
            bytes.len(),
            count.end.offset,
            count.blocks,
            count.records,
            or_none(times.map(|(first, _)| Time(first).to_string())),
            or_none(times.map(|(_, last)| Time(last).to_string())),
            state(file, &contents, &count, manifest)
        )?;
    }
    Ok(())
}

fn count(bytes: &[u8], file: &SegmentFile, contents: &Contents) -> Count {
    let mut count = Count::default();
    let walked = walk(bytes, (file.core, file.sequence), contents, |item| {
        match item {
            Item::Block(block) => {
                let time_ms = block.time_ms.get();
                count.blocks += 1;
                count.times_ms = Some((count.times_ms.map_or(time_ms, |(first, _)| first), time_ms));
            }
            Item::Record(_) => count.records += 1,
            Item::Gap { offset, why, .. } => {
                count.gap.get_or_insert((offset, why));
            }
        }
        Ok::<(), Infallible>(())
    });
    count.end = match walked {
        Ok(end) => end,
        Err(never) => match never {},
    };
    count
}

fn state(file: &SegmentFile, contents: &Contents, count: &Count, manifest: Option<&Manifest>) -> String {
    let mut state = match contents {
        Contents::Spare => return "spare".to_owned(),
        Contents::Newer { reader_version } => {
            return format!("written by a newer server: format version {reader_version}");
        }
        Contents::Foreign { core, sequence } => {
            return format!("renamed: it was written as segment {sequence} of core {core}");
        }
        Contents::Segment(_) | Contents::Headless { .. } if count.end.sealed => "sealed".to_owned(),
        Contents::Segment(_) | Contents::Headless { .. } => "open".to_owned(),
    };
    if let Some((offset, why)) = count.gap {
        state += &format!(", at {offset} {why}");
    }
    if let Contents::Segment(header) = contents
        && manifest.is_some_and(|manifest| header.node != manifest.node || header.cluster != manifest.cluster)
    {
        state += ", of another node or cluster than the manifest's";
    }
    let epoch = contents.epoch().unwrap_or(0);
    if let Some(cut) = manifest.and_then(|manifest| manifest.cut(epoch, file.core)) {
        if cut <= Position::new(file.sequence, 0) {
            state += ", dropped";
        } else if cut < Position::new(file.sequence, u32::try_from(count.end.offset).unwrap_or(u32::MAX)) {
            state += &format!(", dropped from {} on", cut.offset());
        }
    }
    state
}

fn list_snapshots(folder: &Folder, manifest: Option<&Manifest>, out: &mut impl Write) -> Result<(), Failure> {
    let files = folder.snapshots();
    if files.is_empty() {
        writeln!(out, "no snapshots")?;
    }
    for (place, file) in files.iter().enumerate() {
        let is_replaced = files.get(place + 1).is_some_and(|next| next.shard == file.shard);
        let replaced = if is_replaced { ", replaced by a newer one" } else { "" };
        let told = match snapshot::read(folder, file, manifest)? {
            Ok(summary) => snapshot::told(&summary),
            Err(what) => format!("damaged: {what}"),
        };
        writeln!(out, "snapshot shard {} index {}: {told}{replaced}", file.shard, file.index)?;
    }
    Ok(())
}
