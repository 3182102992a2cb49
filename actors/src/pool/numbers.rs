//! The numbers that are free for a platform's next slot. Pure.

use std::collections::BTreeMap;

/// Numbers from 1 that nobody has, as ranges: first to last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FreeNumbers(BTreeMap<u32, u32>);

impl Default for FreeNumbers {
    fn default() -> Self {
        Self([(1, u32::MAX)].into())
    }
}

impl FreeNumbers {
    /// The first free number.
    pub fn first(&self) -> u32 {
        self.0.first_key_value().map_or(u32::MAX, |(first, _)| *first)
    }

    /// Somebody has this number now.
    pub fn take(&mut self, number: u32) {
        let Some((first, last)) = self.around(number).filter(|(_, last)| *last >= number) else { return };
        self.0.remove(&first);
        if first < number {
            self.0.insert(first, number - 1);
        }
        if number < last {
            self.0.insert(number + 1, last);
        }
    }

    /// Nobody has this number any more.
    pub fn give(&mut self, number: u32) {
        let before = self.around(number);
        if number == 0 || before.is_some_and(|(_, last)| last >= number) {
            return;
        }
        let first = match before {
            Some((first, last)) if last + 1 == number => first,
            _ => number,
        };
        let last = number.checked_add(1).and_then(|next| self.0.remove(&next)).unwrap_or(number);
        self.0.insert(first, last);
    }

    /// The last range that begins at this number or before it.
    fn around(&self, number: u32) -> Option<(u32, u32)> {
        self.0.range(..=number).next_back().map(|(first, last)| (*first, *last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn the_first_free_number_is_the_least_that_nobody_has(
            steps in proptest::collection::vec((any::<bool>(), 1_u32..12), 0..60)
        ) {
            let (mut free, mut taken) = (FreeNumbers::default(), BTreeSet::new());
            for (take, number) in steps {
                if take {
                    free.take(number);
                    taken.insert(number);
                } else {
                    free.give(number);
                    taken.remove(&number);
                }
                prop_assert_eq!(Some(free.first()), (1..).find(|number| !taken.contains(number)));
            }
            taken.iter().for_each(|number| free.give(*number));
            prop_assert_eq!(free, FreeNumbers::default());
        }
    }
}
