//! How many come before somebody, without counting them one by one. Pure.
//!
//! Keys stand in sorted blocks of bounded length; a binary indexed tree holds the blocks' lengths. A rank is two
//! binary searches and a sum over the tree: O(log n). Joining and leaving also shift at most one block.

/// Keys in a block; a fuller one is split. Large enough that splits are rare, small enough to shift quickly.
const BLOCK_MAX: usize = 512;

/// A sorted set that knows the rank of each of its keys.
#[derive(Debug, Clone)]
pub(super) struct Ranks<K> {
    /// None is empty.
    blocks: Vec<Vec<K>>,
    /// At `i`: the keys in the `lowest set bit of i + 1` blocks that end with block `i`.
    sums: Vec<usize>,
}

impl<K> Default for Ranks<K> {
    fn default() -> Self {
        Self { blocks: Vec::new(), sums: Vec::new() }
    }
}

impl<K: Ord> Ranks<K> {
    /// Adds a key; nothing happens where it is there.
    pub(super) fn insert(&mut self, key: K) {
        if self.blocks.is_empty() {
            self.blocks.push(vec![key]);
            return self.sum_up();
        }
        let at = self.block_of(&key);
        let block = &mut self.blocks[at];
        let Err(index) = block.binary_search(&key) else { return };
        block.insert(index, key);
        if block.len() <= BLOCK_MAX {
            return self.change(at, |sum| sum + 1);
        }
        let second = block.split_off(BLOCK_MAX / 2);
        self.blocks.insert(at + 1, second);
        self.sum_up();
    }

    /// Takes a key out; nothing happens where it is not there.
    pub(super) fn remove(&mut self, key: &K) {
        let at = self.block_of(key);
        let Some(block) = self.blocks.get_mut(at) else { return };
        let Ok(index) = block.binary_search(key) else { return };
        block.remove(index);
        if !block.is_empty() {
            return self.change(at, |sum| sum - 1);
        }
        self.blocks.remove(at);
        self.sum_up();
    }

    /// How many keys are less than this one.
    pub(super) fn before(&self, key: &K) -> usize {
        let at = self.block_of(key);
        let Some(block) = self.blocks.get(at) else { return 0 };
        let (mut sum, mut end) = (0, at);
        while end > 0 {
            sum += self.sums[end - 1];
            end -= lowest_bit(end);
        }
        sum + block.partition_point(|other| other < key)
    }

    /// The block that a key belongs to: the last that does not begin after it.
    fn block_of(&self, key: &K) -> usize {
        self.blocks.partition_point(|block| block[0] <= *key).saturating_sub(1)
    }

    fn change(&mut self, block: usize, change: impl Fn(usize) -> usize) {
        let mut end = block + 1;
        while end <= self.sums.len() {
            self.sums[end - 1] = change(self.sums[end - 1]);
            end += lowest_bit(end);
        }
    }

    /// Makes the tree anew, where the blocks themselves have changed.
    fn sum_up(&mut self) {
        self.sums = self.blocks.iter().map(Vec::len).collect();
        for end in 1..=self.sums.len() {
            let parent = end + lowest_bit(end);
            if parent <= self.sums.len() {
                self.sums[parent - 1] += self.sums[end - 1];
            }
        }
    }
}

fn lowest_bit(number: usize) -> usize {
    number & number.wrapping_neg()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Enough keys for many blocks, and enough leaving to empty some.
        #[test]
        fn ranks_are_what_counting_gives(
            joins in prop::collection::vec(0u32..8_000, 0..6_000),
            leaves in prop::collection::vec(0u32..8_000, 0..6_000),
            sweep in 0u32..8_000,
            asked in prop::collection::vec(0u32..8_100, 20),
        ) {
            let (mut ranks, mut model) = (Ranks::default(), BTreeSet::new());
            for key in joins {
                ranks.insert(key);
                model.insert(key);
            }
            for key in leaves.into_iter().chain(0..sweep) {
                ranks.remove(&key);
                model.remove(&key);
            }
            for key in asked {
                prop_assert_eq!(ranks.before(&key), model.range(..key).count());
            }
        }
    }
}
