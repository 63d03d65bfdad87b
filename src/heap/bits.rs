//! A fixed set of small integers, one bit each.

/// A set over `0..len`.
#[derive(Debug, Clone, Default)]
pub struct Bits {
    words: Vec<u64>,
}

impl Bits {
    /// An empty set with room for `0..len`.
    pub fn new(len: usize) -> Self {
        Self { words: vec![0; len.div_ceil(64)] }
    }

    /// The set of `items`, with room up to the largest of them.
    pub fn of(items: &[u32]) -> Self {
        let largest = items.iter().max().copied();
        let mut bits = Self::new(largest.map_or(0, |largest| largest as usize + 1));
        for &item in items {
            bits.insert(item as usize);
        }
        bits
    }

    /// Adds `item`, which must be below the length.
    #[inline(always)]
    pub fn insert(&mut self, item: usize) {
        self.words[item >> 6] |= 1 << (item & 63);
    }

    /// Adds `item` and answers whether it was new.
    #[inline(always)]
    pub fn add(&mut self, item: usize) -> bool {
        let word = &mut self.words[item >> 6];
        let bit = 1 << (item & 63);
        let new = *word & bit == 0;
        *word |= bit;
        new
    }

    /// Takes `item` out.
    pub fn remove(&mut self, item: usize) {
        if let Some(word) = self.words.get_mut(item >> 6) {
            *word &= !(1 << (item & 63));
        }
    }

    /// True when `item` is in the set; false beyond its length.
    #[inline(always)]
    pub fn contains(&self, item: usize) -> bool {
        self.words.get(item >> 6).is_some_and(|word| word >> (item & 63) & 1 == 1)
    }
}
