//! An entry: key, value and what is known about them, in one allocation.
//!
//! ```text
//! bytes 0..8   header: kind, flags, key length, access clock (3 bytes), value length (2 bytes)
//!       8      the deadline word, if the entry has (or had) a deadline
//!       8      the key's length, if it exceeds 255 bytes
//!       24     pointer, length and capacity of the value, if it has an allocation of its own
//!       ...    the key, then the value, unless that is elsewhere
//! ```
//!
//! Invariants:
//!
//! - The header alone tells how the rest is laid out, so an allocation's size is never stored.
//! - An [`Entry`] owns its allocation. It has no destructor, because it does not know its heap: who removes an
//!   entry from a table destroys it. An [`EntryRef`] borrows the entry it was made from.
//! - Values above [`INLINE_VALUE_BYTES_MAX`] have their own allocation; an in-place edit that outgrows
//!   [`INLINE_EDIT_BYTES_MAX`] moves there too, where it has room to grow.

mod deadline;
mod epoch;
mod heap;

use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::slice;

pub(crate) use deadline::DeadlineWord;
pub(crate) use heap::Heap;

use crate::slab::Slab;

/// The longest value that lives behind its key, in bytes.
pub(crate) const INLINE_VALUE_BYTES_MAX: usize = 16 << 10;

/// The longest value that an edit grows in place by copying the entry, in bytes: copying this much is cheap.
const INLINE_EDIT_BYTES_MAX: usize = 448;

/// An edited value doubles its allocation up to here and grows by a quarter beyond.
const DOUBLING_BYTES_MAX: usize = 1 << 20;

/// From so many new bytes on, fresh zeroed pages are cheaper than growing an allocation and clearing it.
const ZEROED_BYTES_MIN: usize = 64 << 10;

/// An entry's share of its table: a pointer and a tag byte at a usual load.
const TABLE_SHARE_BYTES: usize = 12;

const CLOCK_MASK: u32 = 0xFF_FFFF;

/// The kind byte of a string. Other kinds follow with other value types.
const KIND_STRING: u8 = 0;

mod flag {
    /// A deadline word follows the header.
    pub(super) const DEADLINE: u8 = 1;
    /// The key's length is a word of its own.
    pub(super) const LONG_KEY: u8 = 2;
    /// The value has an allocation of its own.
    pub(super) const EXTERNAL: u8 = 4;
    /// The value's [`Form`](super::Form): two bits.
    pub(super) const FORM: u8 = 3 << super::FORM_SHIFT;
    /// Which epoch of snapshots the entry is in.
    pub(super) const EPOCH: u8 = 128;
}

/// How a string came to be: OBJECT ENCODING tells, as in Redis, where the content alone does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Form {
    /// A client gave it: an integer's digits count as an integer.
    #[default]
    Given = 0,
    /// An in-place edit (APPEND, SETRANGE) left it.
    Edited = 1 << FORM_SHIFT,
    /// INCRBYFLOAT printed it: digits count as text.
    Printed = 2 << FORM_SHIFT,
}

/// Where the form's two bits are among the flags.
const FORM_SHIFT: u32 = 3;

/// A value, borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// A string.
    String(&'a [u8]),
}

/// The first word of an entry.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Header {
    kind: u8,
    flags: u8,
    key_len: u8,
    clock: [u8; 3],
    value_len: u16,
}

const _: () = assert!(size_of::<Header>() == 8 && INLINE_VALUE_BYTES_MAX <= u16::MAX as usize);

impl Header {
    /// Where the words behind the header end and the key begins.
    #[inline]
    fn key_offset(self) -> usize {
        let flags = usize::from(self.flags);
        8 + 8 * (flags & 1) + 8 * ((flags >> 1) & 1) + 24 * ((flags >> 2) & 1)
    }

    fn key_len_offset(self) -> usize {
        8 + 8 * usize::from(self.flags & flag::DEADLINE)
    }

    fn external_offset(self) -> usize {
        self.key_offset() - size_of::<External>()
    }

    #[inline]
    fn set_form(&mut self, form: Form) {
        self.flags = self.flags & !flag::FORM | form as u8;
    }

    fn set_flag(&mut self, flag: u8, on: bool) {
        self.flags = if on { self.flags | flag } else { self.flags & !flag };
    }
}

/// The parts of a `Vec<u8>` that an entry owns.
#[derive(Clone, Copy)]
#[repr(C)]
struct External {
    pointer: NonNull<u8>,
    length: usize,
    capacity: usize,
}

impl External {
    fn from_vec(value: Vec<u8>) -> Self {
        let mut value = ManuallyDrop::new(value);
        let pointer = NonNull::new(value.as_mut_ptr()).expect("a Vec's pointer is never null");
        Self { pointer, length: value.len(), capacity: value.capacity() }
    }

    /// # Safety
    /// The parts come from `from_vec`, and this is the last use of them.
    unsafe fn into_vec(self) -> Vec<u8> {
        // SAFETY: as the caller says.
        unsafe { Vec::from_raw_parts(self.pointer.as_ptr(), self.length, self.capacity) }
    }
}

/// The access clock at `now_ms`: seconds, modulo 2^24.
#[inline]
pub(crate) fn clock_at(now_ms: u64) -> u32 {
    (now_ms / 1000) as u32 & CLOCK_MASK
}

/// An owned entry: what the tables hold.
#[repr(transparent)]
pub(crate) struct Entry(NonNull<Header>);

// SAFETY: an entry owns its memory, which belongs to no thread.
unsafe impl Send for Entry {}

/// What a new entry is made of.
pub(crate) struct NewEntry<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) value: NewValue<'a>,
    pub(crate) word: Option<DeadlineWord>,
    pub(crate) form: Form,
    pub(crate) clock: u32,
}

/// The value of a new entry.
pub(crate) enum NewValue<'a> {
    /// Copied behind the key, followed by so many zeros; at most [`INLINE_VALUE_BYTES_MAX`] in all.
    Inline(&'a [u8], usize),
    /// Moved in as it is.
    External(Vec<u8>),
}

impl<'a> NewValue<'a> {
    /// A value that has an allocation already: moved in if it is large enough for one of its own.
    pub(crate) fn from_owned(value: &'a mut Vec<u8>) -> Self {
        if value.len() <= INLINE_VALUE_BYTES_MAX {
            return Self::Inline(value, 0);
        }
        let mut value = std::mem::take(value);
        if value.capacity() - value.len() > value.len() / 8 {
            value.shrink_to_fit();
        }
        Self::External(value)
    }
}

impl Entry {
    /// Makes an entry on `heap`, in its epoch.
    pub(crate) fn new(heap: &mut Heap, new: NewEntry<'_>) -> Self {
        let NewEntry { name, value, word, form, clock } = new;
        let (head, zeros, external) = match value {
            NewValue::Inline(head, zeros) => (head, zeros, None),
            NewValue::External(value) => (&[][..], 0, Some(External::from_vec(value))),
        };
        let value_len = head.len() + zeros;
        assert!(value_len <= INLINE_VALUE_BYTES_MAX);
        let long_key = name.len() > usize::from(u8::MAX);
        let mut header = Header {
            kind: KIND_STRING,
            flags: heap.epoch,
            key_len: if long_key { 0 } else { name.len() as u8 },
            clock: clock_bytes(clock),
            value_len: value_len as u16,
        };
        header.set_flag(flag::DEADLINE, word.is_some());
        header.set_flag(flag::LONG_KEY, long_key);
        header.set_flag(flag::EXTERNAL, external.is_some());
        header.set_form(form);

        let key_offset = header.key_offset();
        let block = heap.slab.allocate(key_offset + name.len() + value_len);
        let bytes = block.as_ptr();
        // SAFETY: the block has room for all parts in this order, at offsets that the header determines: the words are
        // aligned, as the block is, and the parts do not overlap.
        unsafe {
            block.cast::<Header>().write(header);
            if let Some(word) = word {
                bytes.add(8).cast::<u64>().write(word.0);
            }
            if long_key {
                bytes.add(header.key_len_offset()).cast::<usize>().write(name.len());
            }
            if let Some(external) = external {
                bytes.add(header.external_offset()).cast::<External>().write(external);
                heap.external_bytes += external.capacity;
                heap.external_count += 1;
            }
            let key = bytes.add(key_offset);
            key.copy_from_nonoverlapping(name.as_ptr(), name.len());
            let value = key.add(name.len());
            value.copy_from_nonoverlapping(head.as_ptr(), head.len());
            value.add(head.len()).write_bytes(0, zeros);
        }
        Self(block.cast())
    }

    /// Borrows the entry.
    #[inline]
    pub(crate) fn as_ref(&self) -> EntryRef<'_> {
        EntryRef { header: self.0, entry: PhantomData }
    }

    /// The key.
    #[inline]
    pub(crate) fn key(&self) -> &[u8] {
        self.as_ref().key()
    }

    /// The deadline word.
    #[inline]
    pub(crate) fn word(&self) -> Option<DeadlineWord> {
        self.as_ref().word()
    }

    /// Whether the deadline is not after `now_ms`.
    #[inline]
    pub(crate) fn is_due(&self, now_ms: u64) -> bool {
        self.as_ref().is_due(now_ms)
    }

    /// Asks the processor for the entry's first two cache lines.
    #[inline]
    pub(crate) fn prefetch(&self) {
        let pointer = self.0.as_ptr().cast_const().cast::<u8>();
        prefetch(pointer);
        prefetch(pointer.wrapping_add(64));
    }

    /// Sets the access clock.
    #[inline]
    pub(crate) fn set_clock(&mut self, clock: u32) {
        let mut header = self.header();
        let bytes = clock_bytes(clock);
        // A line that need not be written stays clean in every cache.
        if header.clock != bytes {
            header.clock = bytes;
            self.set_header(header);
        }
    }

    /// Marks the value as made by an in-place edit.
    pub(crate) fn mark_edited(&mut self) {
        let mut header = self.header();
        header.set_form(Form::Edited);
        self.set_header(header);
    }

    /// Replaces value, deadline word and clock without moving the entry, if its allocation fits the new content.
    #[inline]
    pub(crate) fn overwrite(&mut self, value: &[u8], word: Option<DeadlineWord>, clock: u32) -> bool {
        let mut header = self.header();
        let old_len = usize::from(header.value_len);
        let rest = header.key_offset() + self.key().len();
        if header.flags & flag::EXTERNAL != 0
            || (header.flags & flag::DEADLINE != 0) != word.is_some()
            || value.len() > INLINE_VALUE_BYTES_MAX
            || Slab::rounded(rest + old_len) != Slab::rounded(rest + value.len())
        {
            return false;
        }
        header.value_len = value.len() as u16;
        header.set_form(Form::Given);
        header.clock = clock_bytes(clock);
        self.set_header(header);
        if let Some(word) = word {
            self.write_word(word);
        }
        self.value_mut().copy_from_slice(value);
        true
    }

    /// The value's bytes.
    pub(crate) fn value_mut(&mut self) -> &mut [u8] {
        let (pointer, length) = self.as_ref().value_parts();
        // SAFETY: the parts describe initialised memory that this entry owns, and it is borrowed exclusively.
        unsafe { slice::from_raw_parts_mut(pointer.as_ptr(), length) }
    }

    /// Changes the deadline word, moving the entry if that appears or vanishes.
    ///
    /// # Safety
    /// The entry was made on `heap`.
    pub(crate) unsafe fn set_word(&mut self, heap: &mut Heap, word: Option<DeadlineWord>) {
        let old = self.header();
        if (old.flags & flag::DEADLINE != 0) == word.is_some() {
            if let Some(word) = word {
                self.write_word(word);
            }
            return;
        }
        let old_size = self.as_ref().allocation_bytes();
        let mut new = old;
        new.set_flag(flag::DEADLINE, word.is_some());
        // What follows the deadline word stays as it is.
        let (old_rest, new_rest) = (old.key_len_offset(), new.key_len_offset());
        let block = heap.slab.allocate(old_size - old_rest + new_rest);
        // SAFETY: both blocks hold a header, perhaps a word, and the same rest; the old one is this heap's, as the
        // caller says, and is replaced here.
        unsafe {
            let from = self.0.cast::<u8>();
            block.add(new_rest).copy_from_nonoverlapping(from.add(old_rest), old_size - old_rest);
            block.cast::<Header>().write(new);
            heap.slab.release(from, old_size);
        }
        self.0 = block.cast();
        if let Some(word) = word {
            self.write_word(word);
        }
    }

    /// Makes the value `length` bytes: cut off, or extended by zeros. Growth beyond small sizes is amortised.
    ///
    /// # Safety
    /// The entry was made on `heap`.
    pub(crate) unsafe fn resize(&mut self, heap: &mut Heap, length: usize) {
        let mut header = self.header();
        if header.flags & flag::EXTERNAL != 0 {
            // SAFETY: the value is taken out, and put back below.
            let value = unsafe { self.external().into_vec() };
            heap.external_bytes -= value.capacity();
            let value = resized(value, length);
            heap.external_bytes += value.capacity();
            // SAFETY: as the flag says, the entry has these words.
            unsafe { self.external_pointer().write(External::from_vec(value)) };
            return;
        }
        let old_len = usize::from(header.value_len);
        let rest = header.key_offset() + self.key().len();
        let fits = Slab::rounded(rest + old_len) == Slab::rounded(rest + length);
        if fits && length <= INLINE_VALUE_BYTES_MAX {
            header.value_len = length as u16;
            // SAFETY: the allocation is as large as before, and the new bytes are written before anyone sees them.
            unsafe {
                let value = self.0.cast::<u8>().add(rest);
                value.add(old_len.min(length)).write_bytes(0, length.saturating_sub(old_len));
            }
            self.set_header(header);
            return;
        }
        let old = self.as_ref();
        let Value::String(value) = old.value();
        let value = if length <= INLINE_EDIT_BYTES_MAX || length < old_len {
            NewValue::Inline(&value[..old_len.min(length)], length.saturating_sub(old_len))
        } else {
            let mut grown = vec![0; amortised_capacity(length)];
            grown[..old_len].copy_from_slice(value);
            grown.truncate(length);
            NewValue::External(grown)
        };
        let new = NewEntry { name: old.key(), value, word: old.word(), form: old.form(), clock: old.clock() };
        let new = Self::new(heap, new);
        let old = std::mem::replace(self, new);
        // SAFETY: the caller says that the heap is the entry's.
        unsafe { old.destroy(heap) };
    }

    /// Frees the entry.
    ///
    /// # Safety
    /// The entry was made on `heap`.
    pub(crate) unsafe fn destroy(self, heap: &mut Heap) {
        if self.header().flags & flag::EXTERNAL != 0 {
            heap.external_count -= 1;
            // SAFETY: the entry ends here, so this is the last use of the parts.
            heap.discard(unsafe { self.external().into_vec() });
        }
        let size = self.as_ref().allocation_bytes();
        // SAFETY: the block is this heap's, has this size, and nobody borrows the entry that is consumed here.
        unsafe { heap.slab.release(self.0.cast(), size) };
    }

    /// Frees the entry, but for its value.
    ///
    /// # Safety
    /// The entry was made on `heap`.
    pub(crate) unsafe fn into_value(self, heap: &mut Heap) -> Vec<u8> {
        let value = if self.header().flags & flag::EXTERNAL != 0 {
            // SAFETY: the words are not read again.
            let value = unsafe { self.external().into_vec() };
            heap.external_count -= 1;
            heap.external_bytes -= value.capacity();
            value
        } else {
            let Value::String(value) = self.as_ref().value();
            value.to_vec()
        };
        let size = self.as_ref().allocation_bytes();
        // SAFETY: as in `destroy`.
        unsafe { heap.slab.release(self.0.cast(), size) };
        value
    }

    #[inline]
    fn header(&self) -> Header {
        self.as_ref().header()
    }

    #[inline]
    fn set_header(&mut self, header: Header) {
        // SAFETY: an entry starts with its header, and is borrowed exclusively.
        unsafe { self.0.write(header) };
    }

    fn write_word(&mut self, word: DeadlineWord) {
        assert!(self.header().flags & flag::DEADLINE != 0);
        // SAFETY: as the flag says, the word is behind the header.
        unsafe { self.0.cast::<u64>().add(1).write(word.0) };
    }

    fn external_pointer(&self) -> NonNull<External> {
        let header = self.header();
        assert!(header.flags & flag::EXTERNAL != 0);
        // SAFETY: as the flag says, the entry has these words.
        unsafe { self.0.cast::<u8>().add(header.external_offset()).cast() }
    }

    fn external(&self) -> External {
        // SAFETY: `external_pointer` leads to initialised parts.
        unsafe { self.external_pointer().read() }
    }
}

/// An entry, borrowed from its shard.
#[derive(Clone, Copy)]
pub struct EntryRef<'a> {
    header: NonNull<Header>,
    entry: PhantomData<&'a Entry>,
}

impl<'a> EntryRef<'a> {
    /// The key.
    #[inline]
    pub fn key(&self) -> &'a [u8] {
        // SAFETY: the key lies where the header says, and stays there while the entry is borrowed.
        unsafe {
            slice::from_raw_parts(self.bytes().add(self.header().key_offset()).as_ptr(), self.key_len())
        }
    }

    /// The value.
    #[inline]
    pub fn value(&self) -> Value<'a> {
        let (pointer, length) = self.value_parts();
        // SAFETY: the parts describe initialised memory that stays as it is while the entry is borrowed.
        Value::String(unsafe { slice::from_raw_parts(pointer.as_ptr(), length) })
    }

    /// When it expires: milliseconds since the Unix epoch.
    #[inline]
    pub fn deadline_ms(&self) -> Option<u64> {
        self.word().and_then(DeadlineWord::deadline_ms)
    }

    /// How the string came to be.
    pub(crate) fn form(&self) -> Form {
        [Form::Given, Form::Edited, Form::Printed]
            [usize::from((self.header().flags & flag::FORM) >> FORM_SHIFT)]
    }

    /// Seconds since the last access at `now_ms`. The clock has 24 bits: it wraps after 194 days.
    pub fn idle_seconds(&self, now_ms: u64) -> u64 {
        u64::from(clock_at(now_ms).wrapping_sub(self.clock()) & CLOCK_MASK)
    }

    /// Memory that the entry takes, in bytes, its share of tables included.
    pub fn memory_bytes(&self) -> usize {
        self.block_bytes() + TABLE_SHARE_BYTES
    }

    /// As `memory_bytes`, without tables.
    pub(crate) fn block_bytes(&self) -> usize {
        let external = if self.header().flags & flag::EXTERNAL != 0 { self.external().capacity } else { 0 };
        Slab::rounded(self.allocation_bytes()) + external
    }

    /// The value's own allocation, if it has one.
    #[inline]
    pub(crate) fn allocation(&self) -> Option<NonNull<u8>> {
        (self.header().flags & flag::EXTERNAL != 0).then(|| self.external().pointer)
    }

    /// Whether the deadline is not after `now_ms`.
    #[inline]
    pub(crate) fn is_due(&self, now_ms: u64) -> bool {
        self.deadline_ms().is_some_and(|deadline_ms| deadline_ms <= now_ms)
    }

    /// The deadline word.
    #[inline]
    pub(crate) fn word(&self) -> Option<DeadlineWord> {
        // SAFETY: as the flag says, the word is behind the header.
        (self.header().flags & flag::DEADLINE != 0)
            .then(|| DeadlineWord(unsafe { self.header.cast::<u64>().add(1).read() }))
    }

    /// The access clock: see [`clock_at`].
    pub(crate) fn clock(&self) -> u32 {
        let [low, middle, high] = self.header().clock;
        u32::from_le_bytes([low, middle, high, 0])
    }

    /// The size of the entry's block, as it was asked for.
    fn allocation_bytes(&self) -> usize {
        let header = self.header();
        header.key_offset() + self.key_len() + usize::from(header.value_len)
    }

    #[inline]
    fn key_len(&self) -> usize {
        let header = self.header();
        if header.flags & flag::LONG_KEY == 0 {
            return usize::from(header.key_len);
        }
        // SAFETY: as the flag says, the length is a word of its own.
        unsafe { self.bytes().add(header.key_len_offset()).cast::<usize>().read() }
    }

    #[inline]
    fn value_parts(&self) -> (NonNull<u8>, usize) {
        let header = self.header();
        if header.flags & flag::EXTERNAL != 0 {
            let external = self.external();
            return (external.pointer, external.length);
        }
        // SAFETY: the value lies behind the key, within the block.
        let pointer = unsafe { self.bytes().add(header.key_offset() + self.key_len()) };
        (pointer, usize::from(header.value_len))
    }

    fn external(&self) -> External {
        // SAFETY: callers have seen the flag that says that these words are here.
        unsafe { self.bytes().add(self.header().external_offset()).cast::<External>().read() }
    }

    #[inline]
    fn header(&self) -> Header {
        // SAFETY: an entry starts with its header and lives while it is borrowed.
        unsafe { self.header.read() }
    }

    #[inline]
    fn bytes(&self) -> NonNull<u8> {
        self.header.cast()
    }
}

/// A value taken out of the keyspace with its deadline, on its way to another key, database or core (Send).
#[derive(Clone, Debug)]
pub struct DetachedEntry {
    pub(crate) value: Vec<u8>,
    pub(crate) deadline_ms: Option<u64>,
    pub(crate) form: Form,
    pub(crate) clock: u32,
}

impl DetachedEntry {
    /// When it expires: milliseconds since the Unix epoch.
    pub fn deadline_ms(&self) -> Option<u64> {
        self.deadline_ms
    }

    /// The value.
    pub fn value(&self) -> Value<'_> {
        Value::String(&self.value)
    }
}

/// Asks the processor for the cache line at `pointer`, which may be any address.
#[inline]
pub(crate) fn prefetch<T>(pointer: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch has no effect but on caches, whatever the address.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(pointer.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = pointer;
}

fn clock_bytes(clock: u32) -> [u8; 3] {
    let [low, middle, high, _] = clock.to_le_bytes();
    [low, middle, high]
}

/// The capacity for an edited value of `length` bytes that has just outgrown its allocation.
fn amortised_capacity(length: usize) -> usize {
    if length <= DOUBLING_BYTES_MAX { length * 2 } else { length + length / 4 }
}

fn resized(mut value: Vec<u8>, length: usize) -> Vec<u8> {
    if length > value.capacity() {
        let capacity = amortised_capacity(length);
        if length - value.len() >= ZEROED_BYTES_MIN {
            let mut grown = vec![0; capacity];
            grown[..value.len()].copy_from_slice(&value);
            grown.truncate(length);
            return grown;
        }
        value.reserve_exact(capacity - value.len());
    }
    value.resize(length, 0);
    value
}

#[cfg(test)]
mod tests;
