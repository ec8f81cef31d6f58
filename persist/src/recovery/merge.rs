//! What all journals together say of every shard: which records count, and that none is missing.

use std::{cmp::Ordering, io};

use zerocopy::little_endian::{U16, U32, U64};

use super::{
    Lost, Scan, ScanOptions, Segment, Snapshot,
    error::RecoveryError,
    files::{CoreScan, Loss},
    walk::{JournalScan, Part, Run},
};
use crate::{
    format::{Position, ShardState},
    manifest::{Manifest, Truncation},
    names,
};

/// Puts the cores' scans together. `snapshots` are the shard and index of every snapshot file, and `term_of` tells the
/// term of the last entry that one covers, if it is known.
pub(super) fn merge(
    manifest: &Manifest,
    options: ScanOptions,
    scans: Vec<CoreScan>,
    snapshots: impl Iterator<Item = (u16, u64)>,
    term_of: impl Fn(&str) -> io::Result<Option<u64>>,
) -> Result<Scan, RecoveryError> {
    let last_sequences = scans.iter().map(|scan| (scan.core, scan.last_sequence)).collect();
    let mut cuts: Vec<_> = scans.iter().flat_map(|scan| scan.cuts.iter().copied()).collect();
    cuts.sort_unstable();
    let empty = scans
        .iter()
        .flat_map(|scan| scan.empty.iter().map(|sequence| names::segment(scan.core, *sequence)))
        .collect();
    let mut journals = Vec::new();
    let mut losses = Vec::new();
    for scan in scans {
        journals.extend(scan.journals);
        losses.extend(scan.losses);
    }
    journals.sort_by_key(|journal| (journal.epoch, journal.core));
    let mut newest = vec![None; usize::from(manifest.shards)];
    for (shard, index) in snapshots {
        if let Some(newest) = newest.get_mut(usize::from(shard)) {
            *newest = (*newest).max(Some(index));
        }
    }
    let mut merger = Merger {
        manifest,
        truncate: options.truncate,
        places: places(manifest, &journals),
        journals,
        truncations: Vec::new(),
        losses,
    };
    let mut states = Vec::with_capacity(newest.len());
    let mut chosen = Vec::with_capacity(newest.len());
    let mut committed_to = Vec::with_capacity(newest.len());
    for (shard, newest) in (0..manifest.shards).zip(newest) {
        let term = newest.map(|index| {
            let file = names::snapshot(shard, index);
            term_of(&file).map_err(|error| RecoveryError::Read { file, error })
        });
        let (state, snapshot, committed) = merger.shard(shard, newest, term.transpose()?.flatten())?;
        states.push(state);
        chosen.push(snapshot);
        committed_to.push(committed);
    }
    let Merger { journals, truncations, losses, .. } = merger;
    let committed = committed(&journals);
    let segments = segments(&journals);
    let oldest = segments.first().map_or(u64::MAX, |segment| segment.epoch);
    let mut truncations: Vec<_> = manifest
        .truncations
        .iter()
        .copied()
        .chain(truncations)
        .filter(|given_up| given_up.to_epoch >= oldest)
        .collect();
    truncations.sort_unstable();
    truncations.dedup();
    Ok(Scan {
        journals,
        cuts,
        truncations,
        states,
        snapshots: chosen,
        segments,
        empty,
        last_sequences,
        lost: lost(losses),
        committed,
        committed_to,
    })
}

/// A part of a journal, and where to find it.
#[derive(Clone, Copy)]
struct Place {
    epoch: u64,
    ownership: u32,
    journal: u32,
    part: u32,
}

impl Place {
    /// Whether a run of the part that begins there is known to be dropped.
    fn is_given_up(&self, at: Position, known: &Truncation) -> bool {
        let from = (known.from_epoch, known.from_ownership, known.from);
        (self.epoch, self.ownership, at) >= from && self.epoch <= known.to_epoch
    }
}

/// Every shard's parts, by shard, in order of time.
fn places(manifest: &Manifest, journals: &[JournalScan]) -> Vec<Vec<Place>> {
    let mut places = vec![Vec::new(); usize::from(manifest.shards)];
    for (journal, scan) in (0..).zip(journals) {
        for (number, part) in (0..).zip(&scan.parts) {
            places[usize::from(part.shard)].push(Place {
                epoch: scan.epoch,
                ownership: part.ownership,
                journal,
                part: number,
            });
        }
    }
    for places in &mut places {
        places.sort_by_key(|place| (place.epoch, place.ownership));
    }
    places
}

/// A run that counts, or a part of it.
struct Live {
    place: Place,
    run: usize,
    /// It begins with a segment's header, which says that the entry before `first` has this term, too.
    is_header: bool,
    first: u64,
    last: u64,
    term: u64,
}

struct Merger<'a> {
    manifest: &'a Manifest,
    truncate: bool,
    journals: Vec<JournalScan>,
    places: Vec<Vec<Place>>,
    truncations: Vec<Truncation>,
    losses: Vec<Loss>,
}

impl Merger<'_> {
    /// What a shard comes to, its snapshot, and up to where its log is known to be committed. `newest` is the index of its newest
    /// snapshot file, `newest_term` the term of the entry there if the file tells.
    fn shard(
        &mut self,
        shard: u16,
        newest: Option<u64>,
        newest_term: Option<u64>,
    ) -> Result<(ShardState, Option<Snapshot>, u64), RecoveryError> {
        let places = std::mem::take(&mut self.places[usize::from(shard)]);
        if let Some(pair) = places
            .windows(2)
            .find(|pair| (pair[0].epoch, pair[0].ownership) == (pair[1].epoch, pair[1].ownership))
        {
            let (file, other) = (self.file(pair[0]), self.file(pair[1]));
            return Err(RecoveryError::TwoOwners { shard, file, other });
        }
        let parts = || places.iter().map(|place| self.part(*place));
        let time_ms = parts().map(|part| part.state.time_ms.get()).max().unwrap_or(0);
        let demanded = parts().fold((0, 0), |known, part| match part.begins_anew {
            true => part.snapshot,
            false => part.snapshot.max(known),
        });
        if demanded.0 > newest.unwrap_or(0) {
            return Err(RecoveryError::MissingSnapshot { missing: names::snapshot(shard, demanded.0) });
        }
        let covered_to = newest.unwrap_or(0);
        let mut live = self.live(shard, covered_to, &places)?;
        if newest_term.is_some_and(|term| term_at(&live, covered_to) != Some(term)) {
            // The snapshot replaced the log, whose records do not say so yet.
            keep_below(&mut live, covered_to.saturating_add(1));
        }

        let mut state = places.last().map_or_else(ShardState::default, |place| self.part(*place).state);
        let marked_term = if demanded.0 == covered_to { demanded.1 } else { 0 };
        let snapshot_term = newest_term.unwrap_or(marked_term);
        let logged = live.last().map_or((0, 0), |run| (run.last, run.term));
        // Where the log ends with the snapshot, its file knows the term best.
        let is_logged = logged.0 > covered_to || logged.0 == covered_to && newest_term.is_none();
        let (last_index, last_term) = if is_logged { logged } else { (covered_to, snapshot_term) };
        state.shard = U16::new(shard);
        state.ownership = U32::ZERO;
        state.last_index = U64::new(last_index);
        state.last_term = U64::new(last_term);
        state.snapshot_index = U64::new(covered_to);
        state.snapshot_term = U64::new(snapshot_term);
        state.time_ms = U64::new(time_ms);

        for run in live {
            self.part_mut(run.place).runs[run.run].live_to = run.last;
        }
        for place in &places {
            let part = self.part(*place);
            let counts = |at: Position| part.runs[part.run_at(at)].live_to;
            let incomplete = part.incomplete.iter().filter(|(at, index)| *index <= counts(*at));
            if let Some(last) = incomplete.map(|(_, index)| *index).max().filter(|last| *last > covered_to) {
                let first = covered_to + 1;
                return Err(RecoveryError::IndexGap { shard, first, last, file: self.file(*place) });
            }
        }
        let snapshot = newest.map(|index| Snapshot { name: names::snapshot(shard, index), index });
        Ok((state, snapshot, self.committed_to(shard, last_index, &places)))
    }

    /// Up to where a shard's log, which ends with `last_index`, is known to be committed.
    fn committed_to(&self, shard: u16, last_index: u64, places: &[Place]) -> u64 {
        // Where something was lost, what is there need not be what was meant.
        let mut given_up = self.manifest.truncations.iter().chain(&self.truncations);
        if given_up.any(|given_up| given_up.shard == shard) || self.journals.iter().any(|it| it.lossy) {
            return 0;
        }
        let committed = places.iter().fold(0_u64, |before, place| {
            let part = self.part(*place);
            let before = if part.begins_anew { 0 } else { before };
            let replaced_from = part.runs.iter().map(|run| run.first).min().unwrap_or(u64::MAX);
            before.min(replaced_from.saturating_sub(1)).max(part.committed)
        });
        committed.min(last_index)
    }

    /// The runs of a shard that later ones do not replace, in order; `covered_to` is what its snapshot covers.
    fn live(&mut self, shard: u16, covered_to: u64, places: &[Place]) -> Result<Vec<Live>, RecoveryError> {
        let known: Vec<_> = self.manifest.truncations.iter().filter(|known| known.shard == shard).collect();
        let is_kept = |place: &Place, run: &Run| !known.iter().any(|known| place.is_given_up(run.at, known));
        let mut live: Vec<Live> = Vec::new();
        for (part, place) in places.iter().enumerate() {
            for (number, run) in self.part(*place).runs.iter().enumerate() {
                if !is_kept(place, run) {
                    continue;
                }
                let end = live.last().map_or((0, 0), |last| (last.last, last.term));
                let have = end.0.max(covered_to);
                if run.first - 1 > have {
                    // What went on from what is missing may be replaced as a whole, as by a snapshot: then it was let go.
                    let own = self.part(*place).runs[number + 1..].iter().map(|run| (place, run));
                    let later = places[part + 1..]
                        .iter()
                        .flat_map(|place| self.part(*place).runs.iter().map(move |run| (place, run)));
                    if own.chain(later).any(|(place, run)| is_kept(place, run) && run.first - 1 <= have) {
                        continue;
                    }
                }
                // Where something was lost, nobody knows whether it replaced what came before. Only a log of the same
                // last index and term is the same log.
                let other = number == 0
                    && run.first - 1 > covered_to
                    && (run.first - 1, run.term) != end
                    && self.journals.iter().any(|journal| journal.lossy);
                if run.first - 1 > have || other {
                    self.give_up(shard, (*place, number), have, places)?;
                    return Ok(live);
                }
                keep_below(&mut live, run.first);
                live.push(Live {
                    place: *place,
                    run: number,
                    is_header: run.at.offset() == 0,
                    first: run.first,
                    last: run.last,
                    term: run.term,
                });
            }
        }
        Ok(live)
    }

    /// Everything of a shard from a run on depends on what is missing: refuses it, or drops it if that is wanted.
    fn give_up(
        &mut self,
        shard: u16,
        (place, number): (Place, usize),
        have: u64,
        places: &[Place],
    ) -> Result<(), RecoveryError> {
        let run = &self.part(place).runs[number];
        let file = names::segment(self.journals[place.journal as usize].core, run.at.sequence());
        let (at, first, last) = (run.at, have.saturating_add(1), run.first - 1);
        if !self.truncate {
            return Err(RecoveryError::IndexGap { shard, first, last, file });
        }
        let runs = places.iter().flat_map(|place| &self.part(*place).runs);
        let lost_to = runs.map(|run| run.last).max().unwrap_or(last).max(last);
        let sentence = format!(
            "entries {first} to {lost_to} of shard {shard} were dropped: what {file} goes on from is missing"
        );
        self.losses.push(Loss { file, offset: at.offset(), sentence });
        self.truncations.push(Truncation {
            shard,
            from_epoch: place.epoch,
            from_ownership: place.ownership,
            from: at,
            to_epoch: self.manifest.epoch,
        });
        Ok(())
    }

    fn part(&self, place: Place) -> &Part {
        &self.journals[place.journal as usize].parts[place.part as usize]
    }

    fn part_mut(&mut self, place: Place) -> &mut Part {
        &mut self.journals[place.journal as usize].parts[place.part as usize]
    }

    /// The file in which a part begins.
    fn file(&self, place: Place) -> String {
        let at = self.part(place).runs.first().map_or(0, |run| run.at.sequence());
        names::segment(self.journals[place.journal as usize].core, at)
    }
}

/// Drops all indexes from `first` on. What says that the log ended right before stays.
fn keep_below(live: &mut Vec<Live>, first: u64) {
    let is_dropped =
        |run: &mut Live| run.first > first || run.first == first && run.last >= first && !run.is_header;
    while live.pop_if(is_dropped).is_some() {}
    if let Some(run) = live.last_mut() {
        run.last = run.last.min(first - 1);
    }
}

/// The term of the entry at an index, by what came last.
fn term_at(live: &[Live], index: u64) -> Option<u64> {
    let says = |run: &&Live| {
        let first = if run.is_header { run.first - 1 } else { run.first };
        (first..=run.last).contains(&index)
    };
    live.iter().rev().find(says).map(|run| run.term)
}

/// The transactions that are decided to be committed, in order.
fn committed(journals: &[JournalScan]) -> Vec<u64> {
    let mut committed: Vec<u64> = Vec::new();
    for journal in journals {
        let live = journal.decisions.iter().filter(|decision| {
            let part = &journal.parts[decision.part as usize];
            decision.index == 0 || decision.index <= part.runs[part.run_at(decision.at)].live_to
        });
        committed.extend(live.map(|decision| decision.transaction));
    }
    committed.sort_unstable();
    committed.dedup();
    committed
}

fn segments(journals: &[JournalScan]) -> Vec<Segment> {
    let all =
        journals.iter().flat_map(|journal| journal.segments.iter().map(move |segment| (journal, segment)));
    all.map(|(journal, segment)| Segment {
        name: names::segment(journal.core, segment.sequence),
        core: journal.core,
        epoch: journal.epoch,
        sequence: segment.sequence,
        end: segment.end,
        synced_to: match journal.synced_to.sequence().cmp(&segment.sequence) {
            Ordering::Less => 0,
            Ordering::Equal => journal.synced_to.offset().min(segment.end),
            Ordering::Greater => segment.end,
        },
        shards: segment.shards.iter().map(|shard| (shard.shard, shard.last_index)).collect(),
    })
    .collect()
}

fn lost(losses: Vec<Loss>) -> Option<Lost> {
    if losses.is_empty() {
        return None;
    }
    let sentences: Vec<_> = losses.iter().map(|loss| loss.sentence.as_str()).collect();
    let sentence = sentences.join("; ");
    let mut places: Vec<_> = losses.into_iter().map(|loss| (loss.file, loss.offset)).collect();
    places.sort_unstable();
    // The first place in a file is enough.
    places.dedup_by(|later, first| later.0 == first.0);
    Some(Lost { sentence, places })
}
