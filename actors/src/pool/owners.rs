//! Which mailbox each live bot is in, and how many wait for each platform. Pure.

use crate::ids::{BotId, Platform, SlotName};
use std::collections::BTreeMap;

/// The mailbox that a live bot is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// The queue, in this platform's line.
    Queue(Platform),
    /// A slot.
    Slot(SlotName),
}

/// See the module.
#[derive(Debug, Default)]
pub struct Owners {
    bots: BTreeMap<BotId, Owner>,
    waiting: BTreeMap<Platform, usize>,
    /// Bots by slot: one, and one more between its end and the news of that.
    seated: BTreeMap<SlotName, Vec<BotId>>,
}

impl Owners {
    /// The bot is in this mailbox now.
    pub fn insert(&mut self, bot: BotId, owner: Owner) {
        if self.bots.get(&bot) == Some(&owner) {
            return;
        }
        self.remove(bot);
        match &owner {
            Owner::Queue(platform) => *self.waiting.entry(platform.clone()).or_default() += 1,
            Owner::Slot(name) => self.seated.entry(name.clone()).or_default().push(bot),
        }
        self.bots.insert(bot, owner);
    }

    /// The bot is in no mailbox any more. Says whether it was in one.
    pub fn remove(&mut self, bot: BotId) -> bool {
        let owner = self.bots.remove(&bot);
        let was_known = owner.is_some();
        match owner {
            Some(Owner::Queue(platform)) => {
                if let Some(waiting) = self.waiting.get_mut(&platform) {
                    *waiting -= 1;
                }
            }
            Some(Owner::Slot(name)) => {
                if let Some(bots) = self.seated.get_mut(&name) {
                    bots.retain(|seated| *seated != bot);
                    if bots.is_empty() {
                        self.seated.remove(&name);
                    }
                }
            }
            None => {}
        }
        was_known
    }

    /// Where a bot is.
    pub fn get(&self, bot: BotId) -> Option<&Owner> {
        self.bots.get(&bot)
    }

    /// How many wait for a platform.
    pub fn waiting(&self, platform: &Platform) -> usize {
        self.waiting.get(platform).copied().unwrap_or(0)
    }

    /// How many wait, by platform.
    pub fn waiting_by_platform(&self) -> BTreeMap<Platform, usize> {
        self.waiting
            .iter()
            .filter(|(_, count)| **count > 0)
            .map(|(key, count)| (key.clone(), *count))
            .collect()
    }

    /// The bots that a slot is taken to hold.
    pub fn seated(&self, slot: &SlotName) -> Vec<BotId> {
        self.seated.get(slot).cloned().unwrap_or_default()
    }

    /// How many live bots there are.
    pub fn count(&self) -> usize {
        self.bots.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_counts_are_those_of_a_plain_map(
            steps in proptest::collection::vec((0_i64..6, 0_u8..5), 0..60)
        ) {
            let platforms = ["zoom", "google-meet"].map(|key| Platform(key.into()));
            let names = [1, 2].map(|number| SlotName::new(&platforms[0], number));
            let (mut owners, mut plain) = (Owners::default(), BTreeMap::new());
            for (bot, step) in steps {
                let owner = match step {
                    at @ (0 | 1) => Owner::Queue(platforms[usize::from(at)].clone()),
                    at @ (2 | 3) => Owner::Slot(names[usize::from(at) - 2].clone()),
                    _ => {
                        let was_known = plain.remove(&BotId(bot)).is_some();
                        prop_assert_eq!(owners.remove(BotId(bot)), was_known);
                        prop_assert_eq!(owners.get(BotId(bot)), None);
                        continue;
                    }
                };
                owners.insert(BotId(bot), owner.clone());
                prop_assert_eq!(owners.get(BotId(bot)), Some(&owner));
                plain.insert(BotId(bot), owner);
                let among = |owner: Owner| -> Vec<BotId> {
                    plain.iter().filter(|(_, held)| **held == owner).map(|(bot, _)| *bot).collect()
                };
                for platform in &platforms {
                    let waiting = among(Owner::Queue(platform.clone())).len();
                    prop_assert_eq!(owners.waiting(platform), waiting);
                    let of_those_with_any = owners.waiting_by_platform().get(platform).copied();
                    prop_assert_eq!(of_those_with_any, (waiting > 0).then_some(waiting));
                }
                for name in &names {
                    let mut seated = owners.seated(name);
                    seated.sort_unstable();
                    prop_assert_eq!(seated, among(Owner::Slot(name.clone())));
                }
                prop_assert_eq!((owners.count(), &owners.bots), (plain.len(), &plain));
            }
        }
    }
}
