//! What a listing means. Pure: wanted and observed are arguments, and a listing that failed never gets here.

use crate::ids::{ContainerKey, SlotName};
use crate::ports::{ListedContainer, Presence};
use crate::slot::{Slot, SlotState};
use std::collections::{BTreeMap, BTreeSet};

/// What a listing means.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Findings {
    /// What each slot that holds a container should hear of it.
    pub observed: Vec<(SlotName, ContainerKey, Presence)>,
    /// Containers that no slot wants; removed when they are found twice in a row.
    pub strays: BTreeSet<ListedContainer>,
}

/// Compares the slots, as they were before the listing began, with the listing.
pub fn compare<'a>(wanted: impl Iterator<Item = &'a Slot>, listed: &[ListedContainer]) -> Findings {
    let running: BTreeSet<ContainerKey> = listed.iter().map(|container| container.key).collect();
    let mut holders: BTreeMap<ContainerKey, &Slot> = BTreeMap::new();
    for slot in wanted {
        if !matches!(slot.state, SlotState::Idle { .. } | SlotState::Retired) {
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
    let strays = listed.iter().filter(|container| !holders.contains_key(&container.key)).cloned().collect();
    Findings { observed, strays }
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
    fn an_older_generation_of_a_live_slot_is_a_stray() {
        let slot = sample::busy_slot(1);
        let (old, present) = (listed(&slot, slot.generation.0 - 1), listed(&slot, slot.generation.0));
        let findings = compare([&slot].into_iter(), &[old.clone(), present]);
        assert_eq!(findings.strays, BTreeSet::from([old]));
        assert_eq!(findings.observed, [(slot.name.clone(), slot.container_key(), Presence::Running)]);
    }

    #[test]
    fn what_is_not_listed_is_gone() {
        let slot = sample::busy_slot(1);
        let findings = compare([&slot].into_iter(), &[]);
        assert_eq!(findings.observed[0].2, Presence::Gone);
    }

    #[test]
    fn an_idle_slot_wants_nothing() {
        let slot = sample::idle_slot(1);
        let findings = compare([&slot].into_iter(), &[listed(&slot, 0)]);
        assert_eq!((findings.observed.len(), findings.strays.len()), (0, 1));
    }
}
