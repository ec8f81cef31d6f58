//! LZF, the compression of RDB strings.
//!
//! ```text
//! 000 + 5 bits                      so many bytes and one, which follow
//! 3 bits + 5 bits, a byte           a copy: its length less two in the first three bits, its distance less one in the rest
//! 111 + 5 bits, a byte, a byte      a longer copy: its length less nine in the byte between
//! ```
//!
//! The compressor takes the decisions of the library that Redis uses (LibLZF by Marc Lehmann): one candidate for each
//! place, the first byte never the source, the last two hardly ever copied. So it mostly writes the bytes that Redis
//! writes; where their tables forget different candidates, either reads what the other wrote. Unlike that
//! library's table, which begins with whatever memory holds, this one begins empty, so that equal strings
//! always compress to equal bytes.

/// The longest run of bytes that are no copies.
const LITERALS_MAX: usize = 32;

/// How far back a copy may begin.
const DISTANCE_MAX: usize = 1 << 13;

/// The longest copy.
const COPY_MAX: usize = 264;

/// The shortest copy.
const COPY_MIN: usize = 3;

/// A copy whose length less two is this has a length byte.
const LONG_COPY: u8 = 7;

/// Appends `bytes` compressed if that saves at least four bytes; says how long they became.
pub(super) fn compress(bytes: &[u8], out: &mut Vec<u8>) -> Option<usize> {
    // A table is cleared for every string, so a short string has a small one.
    match bytes.len() {
        0..=4 => None,
        5..=128 => compress_with::<256>(bytes, out),
        129..=2048 => compress_with::<4096>(bytes, out),
        _ => compress_with::<16_384>(bytes, out),
    }
}

fn compress_with<const PLACES: usize>(bytes: &[u8], out: &mut Vec<u8>) -> Option<usize> {
    let start = out.len();
    let length_max = bytes.len() - 4;
    // The low bits of where three bytes with this hash were last. An empty place leads to the first byte, which is never
    // copied from.
    let mut table = [0u16; PLACES];
    let place = |three: u32| (three.wrapping_mul(0x9E37_79B1) >> (32 - PLACES.ilog2())) as usize % PLACES;
    let mut literals_from = 0;
    let mut at = 1;
    while at + COPY_MIN <= bytes.len() {
        let three = three_at(bytes, at);
        let last = std::mem::replace(&mut table[place(three)], at as u16);
        let distance = usize::from((at as u16).wrapping_sub(last));
        // Whether bytes agree is tested first: in bytes that do not compress they hardly ever do, which the processor
        // learns, whereas candidates are too far away now and then.
        if three_at(bytes, at - distance) != three || !(1..=DISTANCE_MAX.min(at - 1)).contains(&distance) {
            at += 1;
            continue;
        }
        let length = copy_length(bytes, at, distance);
        write_literals(&bytes[literals_from..at], out);
        write_copy(distance, length, out);
        if out.len() - start > length_max {
            break;
        }
        at += length;
        literals_from = at;
        for inside in [at - 2, at - 1] {
            if inside + COPY_MIN <= bytes.len() {
                table[place(three_at(bytes, inside))] = inside as u16;
            }
        }
    }
    write_literals(&bytes[literals_from..], out);
    let length = out.len() - start;
    if length > length_max {
        out.truncate(start);
        return None;
    }
    Some(length)
}

/// The three bytes at `at`.
#[inline]
fn three_at(bytes: &[u8], at: usize) -> u32 {
    let bytes = &bytes[at..at + COPY_MIN];
    u32::from(bytes[0]) << 16 | u32::from(bytes[1]) << 8 | u32::from(bytes[2])
}

/// How many bytes at `at` are those `distance` before; the first three are.
fn copy_length(bytes: &[u8], at: usize, distance: usize) -> usize {
    let length_max = (bytes.len() - at - 2).min(COPY_MAX);
    // The library looks at three bytes, or at nineteen at once if there are so many, before it minds the end.
    let length_max = length_max.max(if length_max > 16 { 19 } else { COPY_MIN });
    let (ahead, behind) = (&bytes[at..at + length_max], &bytes[at - distance..]);
    ahead.iter().zip(behind).take_while(|(ahead, behind)| ahead == behind).count()
}

fn write_literals(bytes: &[u8], out: &mut Vec<u8>) {
    for run in bytes.chunks(LITERALS_MAX) {
        out.push(run.len() as u8 - 1);
        out.extend_from_slice(run);
    }
}

fn write_copy(distance: usize, length: usize, out: &mut Vec<u8>) {
    let (distance, length) = (distance - 1, length - 2);
    let high_bits = (distance >> 8) as u8;
    if length < usize::from(LONG_COPY) {
        out.push((length as u8) << 5 | high_bits);
    } else {
        out.push(LONG_COPY << 5 | high_bits);
        out.push((length - usize::from(LONG_COPY)) as u8);
    }
    out.push(distance as u8);
}

/// Appends what was compressed to `bytes`; false, with nothing appended, unless that is well-formed and has exactly `length`
/// bytes. Memory is taken only after the compressed bytes have shown that they make so many.
pub(super) fn decompress(bytes: &[u8], length: u64, out: &mut Vec<u8>) -> bool {
    if decompressed_length(bytes) != Some(length) {
        return false;
    }
    let start = out.len();
    out.reserve_exact(length as usize);
    for part in parts(bytes).flatten() {
        match part {
            Part::Literals(run) => out.extend_from_slice(run),
            Part::Copy { distance, length } => {
                // A copy may reach into itself: then it repeats what lies between.
                let from = out.len() - distance;
                let end = out.len() + length;
                while out.len() < end {
                    let until = out.len().min(from + end - out.len());
                    out.extend_from_within(from..until);
                }
            }
        }
    }
    debug_assert_eq!(out.len() - start, length as usize);
    true
}

/// How many bytes `bytes` decompress to; `None` if they are damaged.
fn decompressed_length(bytes: &[u8]) -> Option<u64> {
    let mut length = 0;
    for part in parts(bytes) {
        match part? {
            Part::Literals(run) => length += run.len() as u64,
            Part::Copy { distance, .. } if distance as u64 > length => return None,
            Part::Copy { length: copied, .. } => length += copied as u64,
        }
    }
    Some(length)
}

enum Part<'a> {
    Literals(&'a [u8]),
    Copy { distance: usize, length: usize },
}

/// The parts of compressed bytes; `None` where they end within one.
fn parts(bytes: &[u8]) -> impl Iterator<Item = Option<Part<'_>>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (&control, behind) = rest.split_first()?;
        let part = part(control, behind);
        rest = part.as_ref().map_or(&[], |&(_, behind)| behind);
        Some(part.map(|(part, _)| part))
    })
}

fn part(control: u8, behind: &[u8]) -> Option<(Part<'_>, &[u8])> {
    if usize::from(control) < LITERALS_MAX {
        let (run, behind) = behind.split_at_checked(usize::from(control) + 1)?;
        return Some((Part::Literals(run), behind));
    }
    let short_length = control >> 5;
    let (more, behind) = if short_length == LONG_COPY { behind.split_first()? } else { (&0, behind) };
    let (&low_bits, behind) = behind.split_first()?;
    let distance = usize::from(control & 0x1F) << 8 | usize::from(low_bits);
    let length = usize::from(short_length) + usize::from(*more) + 2;
    Some((Part::Copy { distance: distance + 1, length }, behind))
}
