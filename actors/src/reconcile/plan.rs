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
    use crate::testing::sample;

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
}
