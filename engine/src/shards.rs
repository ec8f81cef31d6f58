//! The shards of one core.

use crate::{SLOT_COUNT, Shard};

/// The shards that one core owns, found by slot.
pub struct Shards {
    /// By shard number; `None` where another core owns the shard.
    shards: Box<[Option<Box<Shard>>]>,
    /// A slot's shard is the slot shifted right by this many bits.
    slot_shift: u32,
}

impl Shards {
    /// No shards yet, of `shard_count` (a power of two of at most 16,384) in all.
    pub fn new(shard_count: usize) -> Self {
        assert!(shard_count.is_power_of_two() && shard_count <= usize::from(SLOT_COUNT));
        Self {
            shards: (0..shard_count).map(|_| None).collect(),
            slot_shift: u32::from(SLOT_COUNT).ilog2() - shard_count.ilog2(),
        }
    }

    /// The number of the shard that holds `slot`.
    #[inline]
    pub fn number_of(&self, slot: u16) -> usize {
        usize::from(slot) >> self.slot_shift
    }

    /// By how many bits a slot is shifted right to be its shard's number.
    pub fn slot_shift(&self) -> u32 {
        self.slot_shift
    }

    /// The slots of shard `number`.
    pub fn slots_of(&self, number: usize) -> std::ops::Range<u16> {
        let first = number << self.slot_shift;
        first as u16..(first + (1 << self.slot_shift)) as u16
    }

    /// Takes over `shard` as number `number`.
    ///
    /// # Panics
    /// If the shard is here already.
    pub fn adopt(&mut self, number: usize, shard: Box<Shard>) {
        assert!(self.shards[number].is_none(), "shard {number} has two owners");
        self.shards[number] = Some(shard);
    }

    /// Gives shard `number` away.
    pub fn release(&mut self, number: usize) -> Option<Box<Shard>> {
        self.shards[number].take()
    }

    /// The shard that holds `slot`.
    ///
    /// # Panics
    /// If another core owns it: routing is broken.
    #[inline]
    pub fn of(&mut self, slot: u16) -> &mut Shard {
        match &mut self.shards[usize::from(slot) >> self.slot_shift] {
            Some(shard) => shard,
            None => panic!("slot {slot} belongs to another core"),
        }
    }

    /// The shard that holds `slot`, if it is here.
    #[inline]
    pub fn get(&self, slot: u16) -> Option<&Shard> {
        self.shards[usize::from(slot) >> self.slot_shift].as_deref()
    }

    /// Every shard here, in the order of slots.
    pub fn iter(&self) -> impl Iterator<Item = &Shard> {
        self.shards.iter().flatten().map(|shard| &**shard)
    }

    /// Every shard here, in the order of slots.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Shard> {
        self.shards.iter_mut().flatten().map(|shard| &mut **shard)
    }
}
