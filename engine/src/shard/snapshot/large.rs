//! Values with an allocation of their own in a snapshot: never copied because they change, and, if they are large, emitted in
//! parts, over several steps.
//!
//! Of such a value that is to be saved and changes in place only the bytes that change are kept, and its deadline as it was.
//! While one is emitted in parts, nothing else is; it may go on changing, and even leave its table, behind the part that comes
//! next. Invariants:
//!
//! - What is kept of a value is found by the place of its allocation. A value that is yet to be saved is not freed, and
//!   moves only where [`Large::moved`] is told.
//! - A patch holds bytes as they were before one change, so patches are undone from the last to the first.

use std::{collections::BTreeMap, ops::Range, ptr::NonNull, slice};

use crate::Value;
use crate::entry::{Entry, EntryRef};

/// Values of up to so many bytes are emitted at once.
const WHOLE_BYTES_MAX: usize = 256 << 10;

/// Others in parts of so many bytes: several for each.
const PART_BYTES: usize = 128 << 10;
const _: () = assert!(PART_BYTES <= WHOLE_BYTES_MAX);

/// Where a value's allocation is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place(NonNull<u8>);

// SAFETY: the allocation belongs to an entry of the shard that has this place, and goes with it from thread to thread.
unsafe impl Send for Place {}

/// What a value was, as far as it is not that any more.
struct Kept {
    deadline_ms: Option<u64>,
    length: usize,
    /// So many bytes at its start were never cut off.
    present: usize,
    patches: Vec<Patch>,
}

/// What it takes to remember a value, without patches.
const KEPT_BYTES: usize = size_of::<(Place, Kept)>();

/// Bytes before a change.
struct Patch {
    offset: usize,
    bytes: Vec<u8>,
}

/// The value that is being emitted.
struct Emission {
    place: Place,
    kept: Kept,
    emitted: usize,
    /// Its entry, if no table holds that.
    entry: Option<Entry>,
}

/// A part of a value.
pub(super) struct Part<'a> {
    pub(super) bytes: &'a [u8],
    /// How many bytes are still to come.
    pub(super) rest_bytes: usize,
}

/// What is known of values with allocations that are yet to be saved.
#[derive(Default)]
pub(super) struct Large {
    changed: BTreeMap<Place, Kept>,
    emission: Option<Emission>,
    /// Memory of what is kept.
    kept_bytes: usize,
    /// A part with its changes undone.
    scratch: Vec<u8>,
}

impl Place {
    fn of(entry: EntryRef<'_>) -> Option<Self> {
        entry.allocation().map(Self)
    }
}

impl Kept {
    fn new(entry: EntryRef<'_>) -> Self {
        let length = bytes_of(entry).len();
        Self { deadline_ms: entry.deadline_ms(), length, present: length, patches: Vec::new() }
    }

    fn memory_bytes(&self) -> usize {
        KEPT_BYTES + self.patches.iter().map(Patch::memory_bytes).sum::<usize>()
    }

    /// The value becomes `length` bytes, and of those `range` change: keeps what is lost by that from `from` on.
    /// Returns the memory that it takes.
    fn keep(&mut self, value: &[u8], length: usize, range: Range<usize>, from: usize) -> usize {
        let end = if length < self.present { self.present } else { range.end.min(self.present) };
        let start = range.start.min(length).max(from);
        self.present = self.present.min(length);
        if start >= end {
            return 0;
        }
        let patch = Patch { offset: start, bytes: value[start..end].to_vec() };
        let bytes = patch.memory_bytes();
        self.patches.push(patch);
        bytes
    }
}

impl Patch {
    fn end(&self) -> usize {
        self.offset + self.bytes.len()
    }

    fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.bytes.capacity()
    }

    /// Undoes the change in `part`, which begins at `start`.
    fn undo(&self, part: &mut [u8], start: usize) {
        let from = self.offset.max(start);
        let to = self.end().min(start + part.len());
        if from < to {
            part[from - start..to - start].copy_from_slice(&self.bytes[from - self.offset..to - self.offset]);
        }
    }
}

impl Large {
    /// Memory of what is kept, in bytes.
    #[inline]
    pub(super) fn kept_bytes(&self) -> usize {
        self.kept_bytes
    }

    /// Memory besides that, in bytes.
    pub(super) fn used_bytes(&self) -> usize {
        self.scratch.capacity()
    }

    /// Whether a value is being emitted.
    #[inline]
    pub(super) fn is_emitting(&self) -> bool {
        self.emission.is_some()
    }

    /// Whether it is this entry's.
    #[inline]
    pub(super) fn emits(&self, entry: EntryRef<'_>) -> bool {
        self.emission.as_ref().is_some_and(|emission| Place::of(entry) == Some(emission.place))
    }

    /// Whether an unsaved entry's value has to be emitted from here: it is large, or was changed.
    pub(super) fn includes(&self, entry: EntryRef<'_>) -> bool {
        Place::of(entry)
            .is_some_and(|place| bytes_of(entry).len() > WHOLE_BYTES_MAX || self.changed.contains_key(&place))
    }

    /// The deadline that an unsaved entry had.
    #[inline]
    pub(super) fn deadline_ms(&self, entry: EntryRef<'_>) -> Option<u64> {
        if !self.changed.is_empty()
            && let Some(kept) = Place::of(entry).and_then(|place| self.changed.get(&place))
        {
            return kept.deadline_ms;
        }
        entry.deadline_ms()
    }

    /// Before the deadline of an unsaved entry changes. False if the value has no allocation: then nothing is kept.
    pub(super) fn keep_deadline(&mut self, entry: EntryRef<'_>) -> bool {
        let place = Place::of(entry);
        place.is_some_and(|place| {
            self.kept(place, entry);
            true
        })
    }

    /// Before the value of an entry that is unsaved, or being emitted, becomes `length` bytes, of which `range` change. False
    /// if it has no allocation: then nothing is kept.
    pub(super) fn keep_bytes(&mut self, entry: EntryRef<'_>, length: usize, range: Range<usize>) -> bool {
        let Some(place) = Place::of(entry) else { return false };
        let value = bytes_of(entry);
        self.kept_bytes += match &mut self.emission {
            Some(emission) if emission.place == place => {
                emission.kept.keep(value, length, range, emission.emitted)
            }
            _ => self.kept(place, entry).keep(value, length, range, 0),
        };
        true
    }

    fn kept(&mut self, place: Place, entry: EntryRef<'_>) -> &mut Kept {
        let kept_bytes = &mut self.kept_bytes;
        self.changed.entry(place).or_insert_with(|| {
            *kept_bytes += KEPT_BYTES;
            Kept::new(entry)
        })
    }

    /// After a change of `entry`, whose value was `before`, its allocation may be another.
    pub(super) fn moved(&mut self, before: Option<NonNull<u8>>, entry: EntryRef<'_>) {
        let (Some(before), Some(after)) = (before.map(Place), Place::of(entry)) else { return };
        if let Some(emission) = &mut self.emission
            && emission.place == before
        {
            emission.place = after;
        } else if let Some(kept) = self.changed.remove(&before) {
            self.changed.insert(after, kept);
        }
    }

    /// Begins to emit the value of an entry that this [includes](Self::includes).
    pub(super) fn begin(&mut self, entry: EntryRef<'_>) {
        assert!(self.emission.is_none(), "one value at a time");
        let place = Place::of(entry).expect("what is included has an allocation");
        let kept = self.changed.remove(&place).unwrap_or_else(|| {
            self.kept_bytes += KEPT_BYTES;
            Kept::new(entry)
        });
        self.emission = Some(Emission { place, kept, emitted: 0, entry: None });
    }

    /// The entry of the value that is being emitted has left its table.
    pub(super) fn own(&mut self, entry: Entry) {
        let emission = self.emission.as_mut().expect("something is emitted");
        assert!(emission.entry.is_none() && Place::of(entry.as_ref()) == Some(emission.place));
        emission.entry = Some(entry);
    }

    /// The next part of the value that is being emitted.
    pub(super) fn next_part(&mut self) -> Part<'_> {
        let Self { emission, scratch, kept_bytes, .. } = self;
        let Emission { place, kept, emitted, .. } = emission.as_mut().expect("something is emitted");
        let start = *emitted;
        let end =
            if kept.length <= WHOLE_BYTES_MAX { kept.length } else { kept.length.min(start + PART_BYTES) };
        *emitted = end;
        // SAFETY: the allocation is as long as the value was, or as what a change has left of it, and initialised. It is not
        // freed before the emission ends, and this shard, which is borrowed, is what changes it.
        let present = unsafe { slice::from_raw_parts(place.0.as_ptr().cast_const(), kept.present) };
        let rest_bytes = kept.length - end;
        if end <= kept.present && kept.patches.iter().all(|patch| patch.offset >= end) {
            return Part { bytes: &present[start..end], rest_bytes };
        }
        scratch.clear();
        scratch.extend_from_slice(&present[start.min(kept.present)..end.min(kept.present)]);
        scratch.resize(end - start, 0);
        kept.patches.iter().rev().for_each(|patch| patch.undo(scratch, start));
        kept.patches.retain(|patch| {
            let is_needed = patch.end() > end;
            *kept_bytes -= if is_needed { 0 } else { patch.memory_bytes() };
            is_needed
        });
        Part { bytes: scratch, rest_bytes }
    }

    /// All parts were emitted, or none is to follow. Returns the entry if no table holds it.
    pub(super) fn end(&mut self) -> Option<Entry> {
        let emission = self.emission.take()?;
        self.kept_bytes -= emission.kept.memory_bytes();
        emission.entry
    }

    /// Whether nothing is kept.
    pub(super) fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.emission.is_none() && self.kept_bytes == 0
    }
}

fn bytes_of(entry: EntryRef<'_>) -> &[u8] {
    let Value::String(value) = entry.value();
    value
}
