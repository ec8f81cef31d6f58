//! Where the length of the longest common subsequence grows: one bit a cell.
//!
//! Row i, bit j is clear if LCS(a[..=i], b[..=j]) is longer than LCS(a[..=i], b[..j]); in a row, the clear bits up to j
//! therefore count that length. A row follows from the one above it: with `V` the row above (all ones at first)
//! and `M` the places of the row's byte in `b`, it is `(V + (V & M)) | (V & !M)`, in 64-bit words from low to high with a carry.

/// The matrix, filled row by row within budgets.
pub(super) struct Matrix {
    rows: usize,
    columns: usize,
    /// Words a row.
    words: usize,
    /// Whether all rows are kept, or only the last one.
    keep: bool,
    /// The kept rows, one after another.
    bits: Vec<u64>,
    /// A row of all ones at first, then the row that is being filled, in place of the row above it.
    row: Vec<u64>,
    /// For each byte value that occurs in `a`: which row of `places` tells where it occurs in `b`.
    place_of: [Option<u32>; 256],
    /// The places of bytes in `b`, a row of words for each value in `place_of`.
    places: Vec<u64>,
    progress: Progress,
}

#[derive(Clone, Copy)]
enum Progress {
    /// Noting where bytes occur in `b`; so many are noted.
    Noting(usize),
    /// Filling row `row` from word `word` on.
    Filling {
        row: usize,
        word: usize,
        carry: bool,
    },
    Full,
}

impl Matrix {
    /// The matrix of strings of these lengths. `keep`: whether [`grows_from_left`](Self::grows_from_left) will be asked.
    pub(super) fn new(rows: usize, columns: usize, keep: bool) -> Self {
        let words = columns.div_ceil(64);
        Self {
            rows,
            columns,
            words,
            keep,
            bits: if keep { Vec::with_capacity(rows * words) } else { Vec::new() },
            row: vec![u64::MAX; words],
            place_of: [None; 256],
            places: Vec::new(),
            progress: Progress::Noting(0),
        }
    }

    /// Goes on filling and takes what it uses off the budget: one a word or byte. True when everything is filled.
    pub(super) fn fill(&mut self, a: &[u8], b: &[u8], budget: &mut usize) -> bool {
        while *budget > 0 {
            match self.progress {
                Progress::Noting(noted) => self.note(a, b, noted, budget),
                Progress::Filling { row, word, carry } => self.fill_row(a[row], row, word, carry, budget),
                Progress::Full => return true,
            }
        }
        matches!(self.progress, Progress::Full)
    }

    /// Whether the length grows from the cell to the left of row `row`, column `column` to this one. Where the bytes of
    /// the cell differ, this says that the cell above has the greater length than the one to the left.
    pub(super) fn grows_from_left(&self, row: usize, column: usize) -> bool {
        debug_assert!(self.keep && row < self.rows && column < self.columns);
        self.bits[row * self.words + column / 64] >> (column % 64) & 1 == 0
    }

    /// The length of the longest common subsequence.
    pub(super) fn length(&self) -> usize {
        debug_assert!(matches!(self.progress, Progress::Full));
        // Bits beyond the last column were set at first and have no places: they stay set.
        self.row.iter().map(|word| word.count_zeros() as usize).sum()
    }

    fn note(&mut self, a: &[u8], b: &[u8], noted: usize, budget: &mut usize) {
        if noted == 0 {
            self.lay_out_places(a);
        }
        let end = b.len().min(noted + *budget);
        for (column, &byte) in b.iter().enumerate().take(end).skip(noted) {
            if let Some(place) = self.place_of[usize::from(byte)] {
                self.places[place as usize * self.words + column / 64] |= 1 << (column % 64);
            }
        }
        *budget -= end - noted;
        self.progress = if end < b.len() {
            Progress::Noting(end)
        } else if self.rows == 0 || self.columns == 0 {
            Progress::Full
        } else {
            Progress::Filling { row: 0, word: 0, carry: false }
        };
    }

    /// Only bytes that occur in `a` get a row of places, so places never take more memory than the matrix.
    fn lay_out_places(&mut self, a: &[u8]) {
        let mut occurs = [false; 256];
        for &byte in a {
            occurs[usize::from(byte)] = true;
        }
        let mut count = 0;
        for (place, _) in self.place_of.iter_mut().zip(occurs).filter(|(_, occurs)| *occurs) {
            *place = Some(count);
            count += 1;
        }
        self.places = vec![0; count as usize * self.words];
    }

    fn fill_row(&mut self, byte: u8, row: usize, from: usize, mut carry: bool, budget: &mut usize) {
        let place = self.place_of[usize::from(byte)].expect("every byte of the rows has places") as usize;
        let end = self.words.min(from + *budget);
        let places = &self.places[place * self.words..][from..end];
        for (word, places) in self.row[from..end].iter_mut().zip(places) {
            let matching = *word & places;
            let (sum, first) = word.overflowing_add(matching);
            let (sum, second) = sum.overflowing_add(u64::from(carry));
            carry = first || second;
            *word = sum | (*word & !places);
        }
        if self.keep {
            self.bits.extend_from_slice(&self.row[from..end]);
        }
        *budget -= end - from;
        self.progress = if end < self.words {
            Progress::Filling { row, word: end, carry }
        } else if row + 1 < self.rows {
            Progress::Filling { row: row + 1, word: 0, carry: false }
        } else {
            Progress::Full
        };
    }
}
