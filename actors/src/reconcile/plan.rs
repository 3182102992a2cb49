//! What a listing means. Pure: wanted and observed are arguments, and a listing that failed never gets here.

use crate::ids::{ContainerKey, HostName, SlotName};
use crate::ports::{ListedContainer, Presence};
use crate::slot::Slot;
use std::collections::{BTreeMap, BTreeSet};

/// What a listing means.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Findings {
    /// What each slot that holds a container should hear of it.
    pub observed: Vec<(SlotName, ContainerKey, Presence)>,
    /// Containers that no slot wants, for the first time: the next comparison's suspects.
    pub suspects: BTreeSet<ListedContainer>,
    /// Containers that no slot wanted twice in a row: to be removed.
    pub strays: BTreeSet<ListedContainer>,
}

/// Compares the slots with a listing of a host. `suspects` are those of the comparison of that host before.
pub fn compare<'a>(
    host: &HostName,
    wanted: impl Iterator<Item = &'a Slot>,
    listed: &[ListedContainer],
    suspects: &BTreeSet<ListedContainer>,
) -> Findings {
    let running: BTreeSet<ContainerKey> = listed.iter().map(|container| container.key).collect();
    let mut holders: BTreeMap<ContainerKey, &Slot> = BTreeMap::new();
    for slot in wanted.filter(|slot| slot.host == *host) {
        if slot.holds_container() {
            holders.insert(slot.container_key(), slot);
        }
    }
    let observed = holders
        .iter()
        .map(|(key, slot)| {
            let presence = if running.contains(key) { Presence::Running } else { Presence::Gone };
            (slot.name.clone(), *key, presence)
        })
        .collect();
    let unwanted = listed.iter().filter(|container| !holders.contains_key(&container.key)).cloned();
    let (strays, suspects) = unwanted.partition(|container| suspects.contains(container));
    Findings { observed, suspects, strays }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ContainerId, Generation};
    use crate::slot::SlotState;
    use crate::testing::sample;
    use proptest::prelude::*;

    fn listed(slot: &Slot, generation: i64) -> ListedContainer {
        let key = ContainerKey { slot: slot.id, generation: Generation(generation) };
        ListedContainer { key, container: ContainerId(format!("c{generation}")) }
    }

    #[test]
    fn an_older_generation_of_a_live_slot_is_a_stray_the_second_time() {
        let slot = sample::busy_slot(1);
        let (old, present) = (listed(&slot, slot.generation.0 - 1), listed(&slot, slot.generation.0));
        let listing = [old.clone(), present];
        let first = compare(&slot.host, [&slot].into_iter(), &listing, &BTreeSet::new());
        assert_eq!((first.suspects.len(), first.strays.len()), (1, 0));
        assert_eq!(first.observed, [(slot.name.clone(), slot.container_key(), Presence::Running)]);
        let second = compare(&slot.host, [&slot].into_iter(), &listing, &first.suspects);
        assert_eq!((second.suspects.len(), second.strays), (0, BTreeSet::from([old])));
    }

    #[test]
    fn what_is_not_listed_is_gone() {
        let slot = sample::busy_slot(1);
        let findings = compare(&slot.host, [&slot].into_iter(), &[], &BTreeSet::new());
        assert_eq!(findings.observed[0].2, Presence::Gone);
    }

    #[test]
    fn a_listing_says_nothing_of_other_hosts() {
        let slot = sample::busy_slot(1);
        let findings = compare(&HostName("other".into()), [&slot].into_iter(), &[], &BTreeSet::new());
        assert_eq!(findings, Findings::default());
    }

    #[test]
    fn an_idle_slot_wants_nothing() {
        let slot = sample::idle_slot(1);
        let findings = compare(&slot.host, [&slot].into_iter(), &[listed(&slot, 0)], &BTreeSet::new());
        assert_eq!((findings.observed.len(), findings.suspects.len()), (0, 1));
    }

    /// One container of a few slots and generations.
    fn container() -> impl Strategy<Value = (u32, i64)> {
        (1..4_u32, 2..6_i64)
    }

    proptest! {
        /// Listing by listing: who is seen, who is suspected, who is a stray, said in plain words.
        #[test]
        fn a_listing_means_what_it_says(
            states in prop::collection::vec((0..3_u8, any::<bool>()), 3),
            listings in prop::collection::vec(prop::collection::btree_set(container(), 0..6), 1..6),
        ) {
            let slots: Vec<Slot> = (1_u32..).zip(&states).map(|(number, (state, is_here))| {
                let mut slot = if *state == 0 { sample::idle_slot(number) } else { sample::busy_slot(number) };
                if *state == 2 {
                    slot.state = SlotState::Retired;
                }
                if !is_here {
                    slot.host = HostName("other".into());
                }
                slot
            }).collect();
            let host = HostName::local();
            let holds = |slot: &&Slot| slot.host == host && slot.bot().is_some();
            let mut suspects = BTreeSet::new();
            for keys in listings {
                let listing: Vec<_> =
                    keys.iter().map(|(number, generation)| listed(&sample::idle_slot(*number), *generation)).collect();
                let findings = compare(&host, slots.iter(), &listing, &suspects);
                let wanted = |container: &&ListedContainer| {
                    slots.iter().filter(holds).any(|slot| slot.container_key() == container.key)
                };
                let unwanted: BTreeSet<_> =
                    listing.iter().filter(|container| !wanted(container)).cloned().collect();
                let again: BTreeSet<_> = unwanted.intersection(&suspects).cloned().collect();
                prop_assert_eq!(&findings.strays, &again);
                prop_assert_eq!(&findings.suspects, &(&unwanted - &again));
                let seen: BTreeMap<_, _> = slots.iter().filter(holds).map(|slot| {
                    let runs = listing.iter().any(|container| container.key == slot.container_key());
                    (slot.name.clone(), if runs { Presence::Running } else { Presence::Gone })
                }).collect();
                let observed: BTreeMap<_, _> =
                    findings.observed.iter().map(|(name, _, presence)| (name.clone(), *presence)).collect();
                prop_assert_eq!((findings.observed.len(), observed), (seen.len(), seen));
                suspects = findings.suspects;
            }
        }
    }
}
