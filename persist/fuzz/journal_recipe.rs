//! Directories from few bytes: a recipe's steps append segments, blocks and records whose numbers and checksums are right
//! unless a step says otherwise, so that most inputs get past what a plain file of as many bytes would fail at.

use std::collections::BTreeMap;

use duva_persist::{
    format::Position,
    manifest::{Cut, Manifest, Start, Truncation},
    names,
};

use super::{
    Folder,
    journal_bytes::{checksum, number, up},
};

const CORES: u8 = 2;
const SHARDS: u8 = 4;
const STREAMS: u8 = 4;
const CLUSTER: [u8; 16] = *b"cluster 89abcdef";
const NODE: [u8; 16] = *b"node 56789abcdef";

/// What a segment says that its length is; the files are shorter.
const SEGMENT_LEN: u32 = 1 << 16;

/// The directory of a recipe.
pub(crate) fn folder(recipe: &[u8]) -> Folder {
    let mut input = Input(recipe);
    let mut kitchen = Kitchen::new();
    while !input.0.is_empty() {
        kitchen.step(&mut input);
    }
    kitchen.serve()
}

/// Bytes of a recipe, then zeros.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    fn below(&mut self, bound: u8) -> u8 {
        self.byte() % bound
    }

    fn place(&mut self) -> usize {
        usize::from(self.byte()) | usize::from(self.byte()) << 8
    }

    fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

/// A segment's file.
struct Draft {
    core: u16,
    sequence: u32,
    epoch: u64,
    bytes: Vec<u8>,
    /// Where the last block begins, and the last record.
    block: Option<usize>,
    record: usize,
}

#[derive(Default)]
struct Core {
    next_sequence: u32,
    next_number: u64,
}

/// A shard, as the records so far leave it.
#[derive(Clone, Copy, Default)]
struct Shard {
    core: Option<u16>,
    ownership: u32,
    term: u64,
    vote: u64,
    last: (u64, u64),
    snapshot: (u64, u64),
    time_ms: u64,
}

/// Fragments that no record has completed.
#[derive(Default)]
struct Stream {
    bytes: Vec<u8>,
    count: u32,
}

struct Kitchen {
    manifest: Manifest,
    drafts: Vec<Draft>,
    current: usize,
    cores: [Core; CORES as usize],
    shards: [Shard; SHARDS as usize],
    streams: [Stream; STREAMS as usize],
    snapshots: Vec<String>,
    /// Bytes that are changed once there are checksums.
    spoils: Vec<(usize, usize, u8)>,
    records: u64,
}

impl Kitchen {
    fn new() -> Self {
        let manifest = Manifest {
            cluster: CLUSTER,
            node: NODE,
            kernel_boot: [0; 16],
            hash_seed: 0,
            hash_algorithm: 0,
            shards: SHARDS.into(),
            epoch: 1,
            must_not_vote: false,
            starts: Vec::new(),
            cuts: Vec::new(),
            truncations: Vec::new(),
        };
        Self {
            manifest,
            drafts: Vec::new(),
            current: 0,
            cores: Default::default(),
            shards: [Shard { term: 1, last: (0, 1), ..Shard::default() }; SHARDS as usize],
            streams: Default::default(),
            snapshots: Vec::new(),
            spoils: Vec::new(),
            records: 0,
        }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.byte() % 16 {
            0 => self.segment(input),
            1 => self.block(input.byte()),
            kind @ 2..=10 => self.record(kind - 1, input),
            11 => {
                let shard = usize::from(input.below(SHARDS));
                let index = match input.below(8) {
                    7 => u64::MAX,
                    back => self.shards[shard].last.0.saturating_sub(back.into()),
                };
                self.snapshots.push(names::snapshot(shard as u16, index));
            }
            12 => self.lie(input),
            13 => {
                let (file, place, change) = (self.pick(input), input.place(), input.byte());
                if let Some(draft) = self.drafts.get(file) {
                    self.spoils.push((file, place % draft.bytes.len().max(1), change));
                }
            }
            14 => self.change_files(input),
            _ => self.change_manifest(input),
        }
    }

    fn pick(&self, input: &mut Input<'_>) -> usize {
        usize::from(input.byte()) % self.drafts.len().max(1)
    }

    fn draft(&mut self) -> &mut Draft {
        if self.drafts.is_empty() {
            self.segment(&mut Input(&[0, 0x0F]));
        }
        &mut self.drafts[self.current]
    }

    /// Begins a segment: of another core, in another epoch, with a gap before it, as the byte says; a second byte says which
    /// shards it has.
    fn segment(&mut self, input: &mut Input<'_>) {
        let (choice, listed) = (input.byte(), input.byte());
        if choice & 2 != 0 {
            self.begin_epoch();
        }
        let core = u16::from(choice & 1);
        let earlier = |draft: &Draft| draft.core == core && draft.epoch == self.manifest.epoch;
        if let Some(earlier) = self.drafts.iter().rposition(earlier).filter(|_| choice & 0x20 == 0) {
            self.current = earlier;
            if self.drafts[earlier].block.is_none() {
                self.block(0);
            }
            let draft = &mut self.drafts[earlier];
            draft.bytes[draft.block.expect("a block was begun") + 56] |= 1;
        }
        let epoch = self.manifest.epoch;
        let state = &mut self.cores[usize::from(core)];
        let sequence = state.next_sequence.max(1) + u32::from(choice >> 2 & 3);
        state.next_sequence = sequence.saturating_add(1);
        if choice & 0x10 != 0 {
            state.next_number = input.byte().into();
        }
        let mut bytes = Vec::new();
        bytes.extend_from_slice(b"DUVASEG\n\x01\0\x01\0");
        bytes.resize(104, 0);
        set(&mut bytes, 20, 4, SEGMENT_LEN.into());
        set(&mut bytes, 24, 2, core.into());
        set(&mut bytes, 32, 8, epoch);
        set(&mut bytes, 40, 4, sequence.into());
        bytes[56..72].copy_from_slice(&self.manifest.cluster);
        bytes[72..88].copy_from_slice(&self.manifest.node);
        let mut count = 0;
        for (number, shard) in (0..).zip(&mut self.shards) {
            if listed >> number & 1 == 0 {
                continue;
            }
            count += 1;
            if shard.core.is_some_and(|other| other != core) || choice & 0x40 != 0 {
                shard.ownership += 1;
            }
            shard.core = Some(core);
            let at = bytes.len();
            bytes.resize(at + 64, 0);
            set(&mut bytes, at, 2, number);
            set(&mut bytes, at + 4, 4, shard.ownership.into());
            let numbers = [
                shard.term,
                shard.vote,
                shard.last.0,
                shard.last.1,
                shard.snapshot.0,
                shard.snapshot.1,
                shard.time_ms,
            ];
            for (place, number) in numbers.into_iter().enumerate() {
                set(&mut bytes, at + 8 + 8 * place, 8, number);
            }
        }
        set(&mut bytes, 26, 2, count);
        if choice & 0x80 != 0 {
            bytes.extend_from_slice(b"\x01\0\0\0\x06\0\0\0voters");
            set(&mut bytes, 28, 4, 14);
        }
        let header_len = bytes.len() as u64;
        set(&mut bytes, 16, 4, header_len);
        bytes.resize(up(bytes.len(), 64), 0);
        self.current = self.drafts.len();
        self.drafts.push(Draft { core, sequence, epoch, bytes, block: None, record: 0 });
        // A journal begins with a block, and the manifest knows of it.
        if self.manifest.starts.iter().all(|start| start.core != core) {
            self.manifest.starts.push(Start { core, sequence });
            self.block(0);
        }
    }

    /// All journals end, and the server starts again.
    fn begin_epoch(&mut self) {
        let epoch = self.manifest.epoch;
        self.manifest.starts.clear();
        for (core, state) in (0..).zip(&mut self.cores) {
            let last = self.drafts.iter().rfind(|draft| draft.core == core && draft.epoch == epoch);
            if let Some(last) = last {
                let end = Position::new(last.sequence, up(last.bytes.len(), 64) as u32);
                self.manifest.cuts.push(Cut { epoch, core, end });
            }
            state.next_number = 0;
        }
        for shard in &mut self.shards {
            (shard.core, shard.ownership) = (None, 0);
        }
        self.streams = Default::default();
        self.manifest.epoch += 1;
    }

    /// Begins a block; the byte says what was durable before it.
    fn block(&mut self, choice: u8) {
        self.draft();
        let draft = &mut self.drafts[self.current];
        let core = &mut self.cores[usize::from(draft.core) % usize::from(CORES)];
        let at = up(draft.bytes.len(), 64);
        draft.bytes.resize(at + 64, 0);
        draft.bytes[at..at + 4].copy_from_slice(b"DBLK");
        let synced_to = match choice & 3 {
            0 => Position(0),
            1 => Position::new(draft.sequence, 0),
            2 => Position::new(draft.sequence, at as u32),
            _ => Position::new(draft.sequence, draft.block.unwrap_or(0) as u32),
        };
        set(&mut draft.bytes, at + 8, 8, draft.epoch);
        set(&mut draft.bytes, at + 16, 4, draft.sequence.into());
        set(&mut draft.bytes, at + 20, 4, at as u64);
        set(&mut draft.bytes, at + 24, 8, core.next_number);
        set(&mut draft.bytes, at + 32, 8, synced_to.0);
        set(&mut draft.bytes, at + 58, 2, draft.core.into());
        core.next_number = core.next_number.wrapping_add(1);
        draft.block = Some(at);
    }

    /// Appends a record of this kind; the byte says its shard, group, term and index.
    fn record(&mut self, kind: u8, input: &mut Input<'_>) {
        let choice = input.byte();
        let shard = choice & (SHARDS - 1);
        let mut state = self.shards[usize::from(shard)];
        let mut flags = choice >> 2 & 1;
        let mut index = match choice >> 4 {
            back @ 0..=7 => (state.last.0 + 1).saturating_sub(back.into()),
            ahead => state.last.0 + u64::from(ahead) - 6,
        };
        let mut term = state.last.1 + u64::from(choice >> 3 & 1);
        let (mut fragments, mut payload) = (0, Vec::new());
        self.records += 1;
        match kind {
            // An entry, a prepared part, or one with fragments.
            1 | 5 => {
                let transaction = input.byte();
                if kind == 5 {
                    payload.extend_from_slice(&u64::from(transaction & 7).to_le_bytes());
                }
                payload.extend(self.command(input));
                if transaction & 0x80 != 0 {
                    let stream = transaction >> 4 & (STREAMS - 1);
                    let mut whole = std::mem::take(&mut self.streams[usize::from(stream)]);
                    whole.bytes.extend_from_slice(&payload);
                    (flags, fragments) = (flags | 2, whole.count);
                    let crc = crc32c::crc32c(&whole.bytes);
                    let numbers = [stream.into(), whole.bytes.len() as u64, crc.into()];
                    payload = [&numbers.map(u64::to_le_bytes).concat()[..], &payload].concat();
                }
            }
            3 => {
                (index, term) = (0, state.term + u64::from(choice >> 3 & 1));
                (state.term, state.vote) = (term, input.below(4).into());
                payload.extend_from_slice(&state.vote.to_le_bytes());
            }
            4 => payload.extend_from_slice(b"voters"),
            6 | 7 => {
                let transaction = input.byte();
                payload.extend_from_slice(&u64::from(transaction & 7).to_le_bytes());
                payload.push(u8::from(transaction & 8 == 0));
                if kind == 6 && transaction & 0x10 != 0 {
                    index = 0;
                }
            }
            8 => {
                index = index.saturating_sub(1);
                state.snapshot = (index, term);
                self.snapshots.push(names::snapshot(shard.into(), index));
            }
            9 => {
                let stream = input.byte();
                // The first piece of a prepared part begins with the transaction.
                if stream & 0x80 != 0 {
                    payload.extend_from_slice(&u64::from(stream & 7).to_le_bytes());
                }
                payload.extend(self.command(input));
                let stream = stream >> 4 & (STREAMS - 1);
                let whole = &mut self.streams[usize::from(stream)];
                (index, term, fragments) = (stream.into(), 0, whole.count);
                whole.count += 1;
                whole.bytes.extend_from_slice(&payload);
            }
            _ => {}
        }
        let timestamp_ms = 1_000 + self.records;
        if index > 0 && ![3, 8, 9].contains(&kind) {
            state.last = (index, term);
            state.time_ms = timestamp_ms;
        }
        self.shards[usize::from(shard)] = state;
        let mut record = vec![0; 48];
        set(&mut record, 0, 4, payload.len() as u64);
        for (place, number) in [index, term, timestamp_ms, self.records * 31].into_iter().enumerate() {
            set(&mut record, 8 + 8 * place, 8, number);
        }
        record[40] = shard;
        (record[42], record[43]) = (kind, flags);
        set(&mut record, 44, 4, fragments.into());
        record.extend_from_slice(&payload);
        record.resize(up(record.len(), 8), 0);

        if self.draft().block.is_none() {
            self.block(0);
        }
        let draft = self.draft();
        let block = draft.block.expect("a block was begun");
        draft.record = draft.bytes.len();
        draft.bytes.extend_from_slice(&record);
        let len = draft.bytes.len() - block - 64;
        set(&mut draft.bytes, block + 40, 4, len as u64);
        let count = number(&draft.bytes, block + 44, 4);
        set(&mut draft.bytes, block + 44, 4, count.wrapping_add(1));
    }

    /// Bytes that no other record has.
    fn command(&self, input: &mut Input<'_>) -> impl Iterator<Item = u8> + use<> {
        let text = format!("{} ", self.records).into_bytes();
        text.into_iter().cycle().take(input.below(32).into())
    }

    /// A number somewhere is another, under a checksum that fits.
    fn lie(&mut self, input: &mut Input<'_>) {
        let (what, place, value) = (input.byte(), input.byte(), input.byte());
        let draft = self.draft();
        let at = match what & 3 {
            0 => usize::from(place) % 104,
            1 => draft.block.unwrap_or(0) + usize::from(place) % 64,
            2 => draft.record + usize::from(place) % 80,
            _ => 104 + usize::from(place),
        };
        let len = 1 << (what >> 2 & 3);
        let value = match value {
            0xF0 => u64::MAX,
            0xF1 => 1 << 63,
            0xF2 => u64::MAX - 1,
            0xF3 => u64::from(u32::MAX),
            0xF4 => 1 << 32,
            0xF5 => 1 << 30,
            0xF6 => 1 << 20,
            0xF7 => SEGMENT_LEN.into(),
            value => value.into(),
        };
        if draft.bytes.len() >= at + len {
            set(&mut draft.bytes, at, len, value);
        }
    }

    fn change_files(&mut self, input: &mut Input<'_>) {
        match input.below(8) {
            // The segment is full.
            0 => {
                let draft = self.draft();
                let len = up(draft.bytes.len(), 64);
                set(&mut draft.bytes, 20, 4, len as u64);
            }
            // The file has another name.
            1 => {
                let (core, sequence) = (input.below(4), input.byte());
                let sequence =
                    if sequence >= 0xF0 { u32::MAX - u32::from(!sequence) } else { sequence.into() };
                let draft = self.draft();
                (draft.core, draft.sequence) = (core.into(), sequence);
                if core >= CORES {
                    self.segment(&mut Input(&[0, 0x0F]));
                }
            }
            // A file is missing.
            2 => {
                let file = self.pick(input);
                if let Some(draft) = self.drafts.get_mut(file) {
                    draft.bytes.clear();
                    draft.block = None;
                    self.segment(&mut Input(&[0x20, 0x0F]));
                }
            }
            // Something follows that another file holds there.
            3 => {
                let file = self.pick(input);
                let len = self.draft().bytes.len();
                let old = self.drafts[file].bytes.get(len..).unwrap_or_default().to_vec();
                self.drafts[self.current].bytes.extend_from_slice(&old);
            }
            // The file is shorter.
            4 => {
                let len = input.byte();
                let draft = self.draft();
                draft.bytes.truncate(draft.bytes.len().saturating_sub(len.into()).max(104));
                draft.block = None;
                draft.record = 0;
            }
            // Another file goes on.
            5 => {
                let file = self.pick(input);
                self.draft();
                if self.drafts[file].bytes.len() >= 104 {
                    self.current = file;
                }
            }
            // A file as it is.
            6 => {
                let (core, sequence, len) = (input.byte(), input.byte(), input.place());
                let bytes = input.take(len).to_vec();
                if bytes.len() >= 104 {
                    self.manifest.cluster.copy_from_slice(&bytes[56..72]);
                    self.manifest.node.copy_from_slice(&bytes[72..88]);
                    self.manifest.epoch = self.manifest.epoch.max(number(&bytes, 32, 2));
                    let (core, sequence, epoch) = (core.into(), sequence.into(), number(&bytes, 32, 8));
                    self.current = self.drafts.len();
                    self.drafts.push(Draft { core, sequence, epoch, bytes, block: None, record: 0 });
                    if self.manifest.starts.iter().all(|start| start.core != core) {
                        self.manifest.starts.push(Start { core, sequence });
                    }
                    self.segment(&mut Input(&[0x20, 0]));
                }
            }
            // There is more room in the block.
            _ => {
                let len = input.byte();
                let draft = self.draft();
                draft.bytes.resize(draft.bytes.len() + usize::from(len), 0);
            }
        }
    }

    fn change_manifest(&mut self, input: &mut Input<'_>) {
        let manifest = &mut self.manifest;
        match input.below(8) {
            0 => self.begin_epoch(),
            1 => manifest.epoch = manifest.epoch.saturating_add(input.byte().into()).min(u64::MAX - 1),
            2 => {
                let (epoch, core) = (input.byte().into(), input.below(CORES + 1).into());
                let end = Position::new(input.byte().into(), input.place() as u32);
                manifest.cuts.retain(|cut| (cut.epoch, cut.core) != (epoch, core));
                manifest.cuts.push(Cut { epoch, core, end });
            }
            3 => {
                let (core, sequence) = (input.below(CORES + 1).into(), input.byte().into());
                manifest.starts.retain(|start| start.core != core);
                manifest.starts.push(Start { core, sequence });
            }
            4 => {
                let numbers = [(); 5].map(|()| input.byte());
                manifest.truncations.push(Truncation {
                    shard: u16::from(numbers[0]) % manifest.shards,
                    from_epoch: numbers[1].into(),
                    from_ownership: numbers[2].into(),
                    from: Position::new(numbers[3].into(), 0),
                    to_epoch: numbers[4].into(),
                });
            }
            5 => {
                manifest.shards = u16::from(input.byte()).max(1);
                manifest.truncations.retain(|known| known.shard < manifest.shards);
            }
            6 => {
                let last = manifest.cuts.last_mut();
                if let Some(cut) = last {
                    cut.end = Position(cut.end.0.wrapping_sub(input.place() as u64));
                }
            }
            _ if input.byte() & 1 == 0 => drop(manifest.cuts.pop()),
            // The epoch's journals are not begun, or that of a core is not there.
            _ if input.byte() & 1 == 0 => manifest.starts.clear(),
            _ => drop(manifest.starts.pop()),
        }
    }

    fn serve(mut self) -> Folder {
        // What a manifest's reader refuses is none of recovery's input.
        let epoch = self.manifest.epoch;
        self.manifest.cuts.retain(|cut| cut.epoch < epoch);
        self.manifest.truncations.retain(|known| known.to_epoch < epoch);
        for draft in &mut self.drafts {
            sign(&mut draft.bytes);
        }
        for (file, at, change) in self.spoils {
            if let Some(byte) = self.drafts[file].bytes.get_mut(at) {
                *byte ^= change;
            }
        }
        let mut files = BTreeMap::new();
        for draft in self.drafts.into_iter().filter(|draft| !draft.bytes.is_empty()) {
            files.insert(names::segment(draft.core, draft.sequence), draft.bytes);
        }
        files.extend(self.snapshots.into_iter().map(|name| (name, Vec::new())));
        Folder { files, manifest: self.manifest }
    }
}

/// Writes a number of so many bytes.
pub(crate) fn set(bytes: &mut [u8], at: usize, len: usize, number: u64) {
    bytes[at..at + len].copy_from_slice(&number.to_le_bytes()[..len]);
}

/// Gives every header and record that can be found its right checksum, as far as it says how long it is.
pub(crate) fn sign(bytes: &mut [u8]) {
    // What lies in a payload comes before the record around it.
    for at in (0..bytes.len().saturating_sub(63)).step_by(64).rev() {
        if &bytes[at..at + 4] == b"DBLK" {
            sign_block(bytes, at);
        }
    }
    if bytes.len() >= 104 {
        let header_len = number(bytes, 16, 4) as usize;
        if (104..=bytes.len()).contains(&header_len) {
            let crc = checksum(&bytes[..header_len], 12);
            set(bytes, 12, 4, crc.into());
        }
    }
}

fn sign_block(bytes: &mut [u8], at: usize) {
    let crc = checksum(&bytes[at..at + 64], 4);
    set(bytes, at + 4, 4, crc.into());
    let salt = crc32c::crc32c(&[&bytes[at + 8..at + 32], &bytes[at + 58..at + 60]].concat());
    let end = bytes.len().min(at + 64 + number(bytes, at + 40, 4) as usize);
    let mut next = at + 64;
    while next + 48 <= end {
        let record_end = next + 48 + number(bytes, next, 4) as usize;
        if record_end > end {
            break;
        }
        let crc = crc32c::crc32c(&bytes[next + 8..record_end]) ^ salt;
        set(bytes, next + 4, 4, crc.into());
        next = up(record_end, 8);
    }
}
