//! What a listing means. Pure: wanted and observed are arguments, and a listing that failed never gets here.

use crate::ids::{ContainerKey, HostName, SlotName};
use crate::ports::{ListedContainer, Presence};
use crate::slot::{Slot, SlotState};
use std::collections::{BTreeMap, BTreeSet};

/// What a listing means.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Findings {
    /// What each slot that holds a container should hear of it, and each free one that one was made for unasked.
    pub observed: Vec<(SlotName, ContainerKey, Presence)>,
    /// Containers that no slot wants, for the first time: the next comparison's suspects.
    pub suspects: BTreeSet<ListedContainer>,
    /// Containers that no slot wanted twice in a row: to be removed.
    pub strays: BTreeSet<ListedContainer>,
}

/// Compares the slots with a listing of a host. `suspects` are those of the comparison of that host before.
///
/// A container that a slot of another host wants is no stray either: two names may stand for one engine, or a host
/// have got another name, and what a slot holds must never be removed as nobody's. But only the listing of its own
/// host says anything of it.
pub fn compare<'a>(
    host: &HostName,
    wanted: impl Iterator<Item = &'a Slot>,
    listed: &[ListedContainer],
    suspects: &BTreeSet<ListedContainer>,
) -> Findings {
    let seen: BTreeMap<ContainerKey, Presence> =
        listed.iter().map(|container| (container.key, container.presence)).collect();
    let there_is = |slot: &&Slot| !matches!(slot.state, SlotState::Retired);
    // Also of a slot that holds none: what its next bot will run in is the slot's own affair, and never a stray.
    let slots: BTreeMap<ContainerKey, &Slot> =
        wanted.filter(there_is).map(|slot| (slot.container_key(), slot)).collect();
    let observed = slots
        .iter()
        .filter(|(_, slot)| slot.host == *host)
        .filter(|(key, slot)| slot.holds_container() || seen.contains_key(key))
        .map(|(key, slot)| (slot.name.clone(), *key, seen.get(key).copied().unwrap_or(Presence::Gone)))
        .collect();
    let unwanted = listed.iter().filter(|container| !slots.contains_key(&container.key)).cloned();
    let (strays, suspects) = unwanted.partition(|container| suspects.contains(container));
    Findings { observed, suspects, strays }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ContainerId, Generation};
    use crate::ports::ResourceLimits;
    use crate::slot::preparation::Preparation;
    use crate::testing::sample;
    use proptest::prelude::*;

    fn listed(slot: &Slot, generation: i64) -> ListedContainer {
        let key = ContainerKey { slot: slot.id, generation: Generation(generation) };
        ListedContainer { key, container: ContainerId(format!("c{generation}")), presence: Presence::Running }
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
    fn what_a_slot_of_another_host_holds_is_nobodys_stray() {
        let slot = sample::busy_slot(1);
        let (old, present) = (listed(&slot, slot.generation.0 - 1), listed(&slot, slot.generation.0));
        let (host, listing) = (HostName("second-name".into()), [old.clone(), present]);
        let first = compare(&host, [&slot].into_iter(), &listing, &BTreeSet::new());
        assert_eq!((first.observed, first.suspects), (vec![], BTreeSet::from([old.clone()])));
        let second = compare(&host, [&slot].into_iter(), &listing, &BTreeSet::from([old.clone()]));
        assert_eq!((second.observed, second.strays), (vec![], BTreeSet::from([old])));
    }

    #[test]
    fn what_has_ended_is_gone_to_its_slot_and_removed_where_it_has_none() {
        let slot = sample::busy_slot(1);
        let ended = |generation| ListedContainer { presence: Presence::Gone, ..listed(&slot, generation) };
        let listing = [ended(slot.generation.0), ended(slot.generation.0 - 1)];
        let suspects = BTreeSet::from([listing[1].clone()]);
        let findings = compare(&slot.host, [&slot].into_iter(), &listing, &suspects);
        assert_eq!(findings.observed, [(slot.name.clone(), slot.container_key(), Presence::Gone)]);
        assert_eq!(findings.strays, suspects);
    }

    #[test]
    fn an_idle_slot_wants_nothing() {
        let slot = sample::idle_slot(1);
        let findings = compare(&slot.host, [&slot].into_iter(), &[listed(&slot, 0)], &BTreeSet::new());
        assert_eq!((findings.observed.len(), findings.suspects.len()), (0, 1));
    }

    fn prepared_slot(number: u32) -> Slot {
        let (limits, container) = (ResourceLimits::default(), ContainerId("c".into()));
        let ahead = Preparation::Prepared { limits, container };
        Slot { state: SlotState::Idle { last_used_at: None, ahead }, ..sample::idle_slot(number) }
    }

    #[test]
    fn what_the_next_bot_will_run_in_is_no_stray_whether_its_slot_knows_of_it_or_not() {
        for slot in [sample::idle_slot(1), prepared_slot(1)] {
            let ahead =
                ListedContainer { presence: Presence::Prepared, ..listed(&slot, slot.generation.0 + 1) };
            let told = [(slot.name.clone(), ahead.key, Presence::Prepared)];
            let findings = compare(&slot.host, [&slot].into_iter(), &[ahead], &BTreeSet::new());
            assert_eq!(findings, Findings { observed: told.into(), ..Findings::default() });
        }
        let slot = prepared_slot(1);
        let findings = compare(&slot.host, [&slot].into_iter(), &[], &BTreeSet::new());
        assert_eq!(findings.observed, [(slot.name.clone(), slot.container_key(), Presence::Gone)]);
    }

    /// One container of a few slots and generations.
    fn container() -> impl Strategy<Value = (u32, i64, Presence)> {
        let presence = prop_oneof![Just(Presence::Running), Just(Presence::Prepared), Just(Presence::Gone)];
        (1..4_u32, 2..7_i64, presence)
    }

    proptest! {
        /// Listing by listing: who is seen, who is suspected, who is a stray, said in plain words.
        #[test]
        fn a_listing_means_what_it_says(
            states in prop::collection::vec((0..4_u8, any::<bool>()), 3),
            listings in prop::collection::vec(prop::collection::btree_set(container(), 0..6), 1..6),
        ) {
            let slots: Vec<Slot> = (1_u32..).zip(&states).map(|(number, (state, is_here))| {
                let mut slot = match *state {
                    0 => sample::idle_slot(number),
                    1 => prepared_slot(number),
                    2 => sample::busy_slot(number),
                    _ => Slot { state: SlotState::Retired, ..sample::idle_slot(number) },
                };
                if !is_here {
                    slot.host = HostName("other".into());
                }
                slot
            }).collect();
            let host = HostName::local();
            let is_here = |slot: &&Slot| slot.host == host && slot.status().is_some();
            // Samples are in their fourth generation.
            let own = |slot: &Slot| if slot.bot().is_some() { 4 } else { 5 };
            let holds = |slot: &Slot| slot.bot().is_some() || slot.step() == "prepared";
            let mut suspects = BTreeSet::new();
            for keys in listings {
                let listing: Vec<_> =
                    keys.iter().map(|(number, generation, presence)| ListedContainer {
                        presence: *presence,
                        ..listed(&sample::idle_slot(*number), *generation)
                    }).collect();
                let findings = compare(&host, slots.iter(), &listing, &suspects);
                let wanted = |container: &&ListedContainer| {
                    let of = |slot: &Slot| (slot.id, Generation(own(slot)));
                    let there_is = |slot: &&Slot| slot.status().is_some();
                    slots.iter().filter(there_is).any(|slot| of(slot) == (container.key.slot, container.key.generation))
                };
                let unwanted: BTreeSet<_> =
                    listing.iter().filter(|container| !wanted(container)).cloned().collect();
                let again: BTreeSet<_> = unwanted.intersection(&suspects).cloned().collect();
                prop_assert_eq!(&findings.strays, &again);
                prop_assert_eq!(&findings.suspects, &(&unwanted - &again));
                let seen: BTreeMap<_, _> = slots.iter().filter(is_here).filter_map(|slot| {
                    let is_its = |container: &&ListedContainer| {
                        (container.key.slot, container.key.generation.0) == (slot.id, own(slot))
                    };
                    let presence = match listing.iter().rfind(is_its) {
                        Some(container) => container.presence,
                        None => Presence::Gone,
                    };
                    let is_listed = listing.iter().any(|container| is_its(&container));
                    (is_listed || holds(slot)).then_some((slot.name.clone(), presence))
                }).collect();
                let observed: BTreeMap<_, _> =
                    findings.observed.iter().map(|(name, _, presence)| (name.clone(), *presence)).collect();
                prop_assert_eq!((findings.observed.len(), observed), (seen.len(), seen));
                suspects = findings.suspects;
            }
        }
    }
}
