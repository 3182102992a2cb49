//! The index beside a plain reference: a list of slots that is gone through at every decision.

use super::*;
use crate::ids::SlotId;
use crate::pool::{HostSettings, PlatformSettings};
use crate::slot::SlotState;
use crate::slot::drains::Drains;
use crate::slot::preparation::Preparation;
use crate::testing::sample;
use chrono::TimeDelta;
use proptest::prelude::*;
use uuid::Uuid;

/// What keeps bots and slots from hosts.
#[derive(Debug, Clone, Default)]
struct Closed {
    drained: BTreeSet<HostName>,
    away: BTreeSet<HostName>,
    crowded: BTreeSet<(Platform, HostName, String)>,
    /// Hosts without room for any slot.
    shut: BTreeSet<HostName>,
    /// Where the image is not known to have come since it was wanted last.
    without_image: BTreeSet<(Platform, HostName)>,
}

impl Closed {
    fn takes_bots(&self, platform: &Platform, host: &HostName) -> bool {
        !self.away.contains(host)
            && !self.shut.contains(host)
            && !self.crowded.iter().any(|(of, on, _)| of == platform && on == host)
    }

    fn takes_slots(&self, platform: &Platform, host: &HostName) -> bool {
        self.takes_bots(platform, host) && !self.drained.contains(host)
    }
}

/// Where a bot goes, told the slow way.
fn place(platform: &Platform, settings: &PoolSettings, closed: &Closed, slots: &[SlotLine]) -> Placement {
    let Some(wanted) = settings.platforms.get(platform) else { return Placement::Full };
    let free = |slot: &&SlotLine| {
        slot.platform == *platform
            && slot.status == Some(SlotStatus::Idle)
            && !slot.reserved
            && !slot.draining
            && closed.takes_bots(platform, &slot.host)
    };
    let has_errors = |host: &HostName| {
        slots.iter().any(|slot| {
            (&slot.platform, &slot.host, slot.status) == (platform, host, Some(SlotStatus::Error))
        })
    };
    let failing = |host: &HostName| {
        has_errors(host) || closed.without_image.contains(&(platform.clone(), host.clone()))
    };
    let idle = slots.iter().filter(free);
    if let Some(slot) = idle.min_by_key(|slot| {
        let is_missing = closed.without_image.contains(&(platform.clone(), slot.host.clone()));
        let has_image = slot.image == wanted.image && !is_missing;
        // Where the image is missing a slot's own still tells.
        let by_slot = (slot.image != wanted.image, slot.last_used_at, slot.name.clone());
        (!has_image, has_errors(&slot.host), by_slot)
    }) {
        return Placement::Slot(slot.name.clone());
    }
    let own = slots.iter().filter(|slot| slot.platform == *platform).count();
    if own >= wanted.max_size as usize || slots.len() >= settings.max_size as usize {
        return Placement::Full;
    }
    let room = settings.hosts.iter().filter(|(host, _)| closed.takes_slots(platform, host)).filter_map(
        |(host, limits)| {
            let used = slots.iter().filter(|slot| slot.host == *host).count();
            let free = (limits.capacity as usize).checked_sub(used).filter(|free| *free > 0)?;
            Some((failing(host), Reverse(free), host))
        },
    );
    let mut names = (1..).map(|number| SlotName::new(platform, number));
    let name = names.find(|name| slots.iter().all(|slot| slot.name != *name));
    match (name, room.min()) {
        (Some(name), Some((.., host))) => Placement::Grow(Growth { name, host: host.clone() }),
        _ => Placement::Full,
    }
}

fn platforms() -> [Platform; 3] {
    ["google-meet", "zoom", "webex"].map(|key| Platform(key.into()))
}

fn hosts() -> [HostName; 2] {
    ["a", "b"].map(|host| HostName(host.into()))
}

fn settings(max_size: u32, zoom: u32, capacity: u32, image: u8) -> PoolSettings {
    let of = |max_size| PlatformSettings {
        max_size,
        image: format!("image:{image}"),
        enabled: true,
        prewarm: 0,
        ephemeral: false,
        prepare: true,
        limits: Default::default(),
    };
    let [meet, zoom_key, _] = platforms();
    PoolSettings {
        platforms: [(meet, of(3)), (zoom_key, of(zoom))].into(),
        hosts: hosts().into_iter().zip([HostSettings { capacity: 2 }, HostSettings { capacity }]).collect(),
        max_size,
        ..PoolSettings::default()
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// The next bot of a platform is placed; a new slot appears in this state.
    Take(usize, usize),
    /// The slot at this place, if there is one, publishes this state.
    Publish {
        at: usize,
        status: usize,
        used_s: i64,
        image: u8,
        draining: bool,
    },
    Reserve(usize, bool),
    Dies(usize),
    Goes(usize),
    Remove(usize),
    Configure {
        max_size: u32,
        zoom: u32,
        capacity: u32,
        image: u8,
    },
    DrainHost(usize, bool),
    /// The host's engine is away, or back.
    Engine(usize, bool),
    /// The image for a platform was wanted on a host ahead of need, and came, or did not.
    Pulled(usize, usize, bool),
    /// The slot at this place, if there is one, was one more than may wait for its image, and is idle.
    Declined(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let slot = 0_usize..8;
    prop_oneof![
        6 => (0_usize..3, 0_usize..4).prop_map(|(platform, status)| Step::Take(platform, status)),
        6 => (slot.clone(), 0_usize..6, 0_i64..5, 1_u8..3, proptest::bool::weighted(0.1)).prop_map(
            |(at, status, used_s, image, draining)| Step::Publish { at, status: status % 4, used_s, image, draining }
        ),
        3 => (slot.clone(), any::<bool>()).prop_map(|(at, reserved)| Step::Reserve(at, reserved)),
        1 => slot.clone().prop_map(Step::Dies),
        1 => slot.clone().prop_map(Step::Goes),
        2 => slot.prop_map(Step::Remove),
        1 => (0_u32..8, 0_u32..5, 0_u32..5, 1_u8..3).prop_map(|(max_size, zoom, capacity, image)| {
            Step::Configure { max_size, zoom, capacity, image }
        }),
        1 => (0_usize..2, any::<bool>()).prop_map(|(host, draining)| Step::DrainHost(host, draining)),
        2 => (0_usize..2, any::<bool>()).prop_map(|(host, away)| Step::Engine(host, away)),
        2 => (0_usize..6).prop_map(Step::Declined),
        2 => (0_usize..2, 0_usize..2, any::<bool>()).prop_map(|(of, host, came)| Step::Pulled(of, host, came)),
    ]
}

fn slot_of(line: &SlotLine, status: SlotStatus) -> Slot {
    let busy = sample::busy_slot(1);
    let state = match status {
        SlotStatus::Idle => SlotState::Idle { last_used_at: line.last_used_at, ahead: Preparation::Absent },
        SlotStatus::Error => SlotState::Error {
            reason: String::new(),
            attempts: 0,
            since: sample::now(),
            container: None,
            step: crate::slot::RecoveryStep::Stopping,
        },
        SlotStatus::Busy => busy.state.clone(),
        SlotStatus::Deploying => SlotState::Deploying {
            bot: Box::new(sample::bot(1)),
            step: crate::slot::DeployStep::Pulling,
            attempts: 0,
            deadline: sample::now(),
        },
    };
    Slot {
        name: line.name.clone(),
        id: SlotId(Uuid::from_u128(1)),
        platform: line.platform.clone(),
        host: line.host.clone(),
        image: line.image.clone(),
        drains: Drains { own: line.draining.then_some(None), wider: None },
        version: i64::from(line.stored),
        state,
        ..busy
    }
}

/// The index and the plain list, side by side.
struct Both {
    index: SlotIndex,
    settings: PoolSettings,
    closed: Closed,
    /// Slots that wait for their image, and which where: here all that deploy do.
    pulling: BTreeMap<SlotName, (HostName, String)>,
    slots: Vec<SlotLine>,
}

impl Both {
    fn new() -> Self {
        let settings = settings(5, 3, 3, 1);
        Self {
            index: SlotIndex::new(&settings),
            settings,
            closed: Closed::default(),
            pulling: BTreeMap::new(),
            slots: vec![],
        }
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::Take(platform, status) => {
                let platform = &platforms()[platform];
                let expected = place(platform, &self.settings, &self.closed, &self.slots);
                assert_eq!(self.index.take(platform), expected);
                match expected {
                    Placement::Slot(name) => self
                        .slots
                        .iter_mut()
                        .filter(|slot| slot.name == name)
                        .for_each(|slot| slot.reserved = true),
                    Placement::Grow(Growth { name, host }) => self.grow(platform, name, host, status),
                    Placement::Full => {}
                }
            }
            Step::Publish { at, status, used_s, image, draining } => {
                let Some(line) = self.slots.get_mut(at) else { return };
                let status = STATUSES[status];
                line.status = Some(status);
                if status == SlotStatus::Idle {
                    line.last_used_at = Some(sample::now() + TimeDelta::seconds(used_s));
                }
                line.image = format!("image:{image}");
                line.draining = draining;
                line.stored = true;
                let line = line.clone();
                self.index.put(&slot_of(&line, status));
                self.waits(&line, status == SlotStatus::Deploying);
            }
            Step::Reserve(at, reserved) => {
                let Some(line) = self.slots.get_mut(at) else { return };
                line.reserved = reserved;
                self.index.reserve(&line.name, reserved);
            }
            Step::Dies(at) => {
                let Some(line) = self.slots.get_mut(at) else { return };
                line.status = None;
                self.index.rebuilding(&line.name);
            }
            Step::Goes(at) => {
                let Some(line) = self.slots.get_mut(at) else { return };
                (line.status, line.stored) = (None, false);
                let line = line.clone();
                self.index.gone(&line.name);
                self.waits(&line, false);
            }
            Step::Remove(at) if at < self.slots.len() => {
                let line = SlotLine { status: None, ..self.slots.remove(at) };
                self.index.remove(&line.name);
                self.waits(&line, false);
            }
            Step::Remove(_) => {}
            Step::Configure { max_size, zoom, capacity, image } => {
                self.settings = settings(max_size, zoom, capacity, image);
                self.index.configure(&self.settings);
                let shut = self.settings.hosts.iter().filter(|(_, host)| host.capacity == 0);
                self.closed.shut = shut.map(|(name, _)| name.clone()).collect();
                let platforms = &self.settings.platforms;
                self.closed.crowded.retain(|(of, _, image)| {
                    platforms.get(of).is_some_and(|settings| settings.image == *image)
                });
            }
            Step::DrainHost(host, draining) => {
                let host = &hosts()[host];
                let drained = &mut self.closed.drained;
                if draining {
                    drained.insert(host.clone())
                } else {
                    drained.remove(host)
                };
                self.index.drain_host(host, draining);
            }
            Step::Engine(host, is_away) => {
                let host = &hosts()[host];
                let away = &mut self.closed.away;
                if is_away {
                    away.insert(host.clone())
                } else {
                    away.remove(host)
                };
                let state = BreakerState::HalfOpen { since: sample::now(), asked_at: sample::now() };
                self.index.set_engine(host, if is_away { state } else { BreakerState::Closed });
            }
            Step::Pulled(of, host, came) => {
                let (of, host) = (platforms()[of].clone(), hosts()[host].clone());
                self.index.image_came(&of, &host, came);
                if came {
                    self.closed.without_image.remove(&(of, host));
                } else {
                    self.closed.without_image.insert((of, host));
                }
            }
            Step::Declined(at) => {
                let Some(line) = self.slots.get_mut(at) else { return };
                (line.status, line.stored) = (Some(SlotStatus::Idle), true);
                let line = line.clone();
                self.index.declined(&slot_of(&line, SlotStatus::Idle));
                let left = self.pulling.remove(&line.name);
                let waits =
                    |awaited: &(HostName, String)| self.pulling.values().any(|other| other == awaited);
                // Those who wait for what it waited for are still as many, unless it was the last.
                if let Some((host, image)) = left.filter(|left| !waits(left)) {
                    self.closed.crowded.retain(|(_, on, of)| (on, of) != (&host, &image));
                }
                let wanted = self.settings.platforms.get(&line.platform).map(|settings| &settings.image);
                if wanted == Some(&line.image) && waits(&(line.host.clone(), line.image.clone())) {
                    let is_its =
                        |(of, on, _): &(Platform, HostName, String)| (of, on) == (&line.platform, &line.host);
                    self.closed.crowded.retain(|crowded| !is_its(crowded));
                    self.closed.crowded.insert((line.platform, line.host, line.image));
                }
            }
        }
    }

    fn grow(&mut self, platform: &Platform, name: SlotName, host: HostName, status: usize) {
        let line = SlotLine {
            name,
            platform: platform.clone(),
            host,
            image: self.settings.platforms[platform].image.clone(),
            status: Some(STATUSES[status]),
            last_used_at: None,
            reserved: false,
            draining: false,
            stored: status > 0,
        };
        self.index.put(&slot_of(&line, STATUSES[status]));
        self.waits(&line, STATUSES[status] == SlotStatus::Deploying);
        self.slots.push(line);
    }

    /// Where one waits no more, another may.
    fn waits(&mut self, line: &SlotLine, pulling: bool) {
        let awaited = pulling.then(|| (line.host.clone(), line.image.clone()));
        let before = match awaited.clone() {
            Some(awaited) => self.pulling.insert(line.name.clone(), awaited),
            None => self.pulling.remove(&line.name),
        };
        let has_bot = matches!(line.status, Some(SlotStatus::Deploying | SlotStatus::Busy));
        if before.is_some() && awaited.is_none() && has_bot {
            self.closed.without_image.remove(&(line.platform.clone(), line.host.clone()));
        }
        if let Some((host, image)) = before.filter(|before| Some(before) != awaited.as_ref()) {
            self.closed.crowded.retain(|(_, on, of)| (on, of) != (&host, &image));
        }
    }

    fn agree(&self) {
        for platform in &platforms() {
            let expected = place(platform, &self.settings, &self.closed, &self.slots);
            assert_eq!(self.index.clone().take(platform), expected);
        }
        let mut counts: BTreeMap<(Platform, SlotStatus), u32> = BTreeMap::new();
        for slot in self.slots.iter().filter(|slot| slot.stored) {
            let status = slot.status.unwrap_or(SlotStatus::Error);
            *counts.entry((slot.platform.clone(), status)).or_default() += 1;
        }
        assert_eq!(self.index.counts(), counts);
        let mut slots = self.slots.clone();
        slots.sort_by(|one, other| one.name.cmp(&other.name));
        assert_eq!(self.index.lines(), slots);
        for slot in &slots {
            assert_eq!(self.index.get(&slot.name).as_ref(), Some(slot));
        }
        let each: BTreeMap<_, _> =
            self.index.each().map(|(line, reserved)| (line.name.clone(), reserved)).collect();
        assert_eq!(each, slots.iter().map(|slot| (slot.name.clone(), slot.reserved)).collect());
        self.totals_agree();
    }

    fn totals_agree(&self) {
        let count =
            |counts: &dyn Fn(&SlotLine) -> bool| self.slots.iter().filter(|slot| counts(slot)).count();
        assert_eq!(self.index.reserved(), count(&|slot| slot.reserved));
        for platform in &platforms() {
            assert_eq!(self.index.size(platform) as usize, count(&|slot| slot.platform == *platform));
        }
        assert_eq!(self.index.crowded(), self.closed.crowded.len());
        for host in &hosts() {
            let line = &self.index.hosts()[host];
            assert_eq!(line.slots as usize, count(&|slot| slot.host == *host));
            assert_eq!(line.draining, self.closed.drained.contains(host));
            assert_eq!(line.answers(), !self.closed.away.contains(host));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn it_decides_as_the_plain_list_does(steps in proptest::collection::vec(step(), 1..80)) {
        let mut both = Both::new();
        for step in steps {
            both.apply(step);
            both.agree();
        }
    }
}

fn zoom() -> Platform {
    platforms()[1].clone()
}

#[test]
fn the_wanted_image_comes_before_the_least_recently_used() {
    let mut index = SlotIndex::new(&settings(9, 9, 9, 2));
    for (number, image, used_s) in [(1, 1, 1), (2, 2, 9), (3, 2, 5)] {
        let last_used_at = Some(sample::now() + TimeDelta::seconds(used_s));
        index.put(&Slot {
            image: format!("image:{image}"),
            state: SlotState::Idle { last_used_at, ahead: Preparation::Absent },
            host: hosts()[0].clone(),
            ..sample::idle_slot(number)
        });
    }
    let order: Vec<Placement> = (0..3).map(|_| index.take(&zoom())).collect();
    assert_eq!(order, [3, 2, 1].map(|number| Placement::Slot(SlotName::new(&zoom(), number))));
}

#[test]
fn the_wanted_image_comes_first_whatever_its_host_has_in_error() {
    let mut index = SlotIndex::new(&settings(9, 9, 9, 2));
    let on = |host: usize, number, image: u8| Slot {
        image: format!("image:{image}"),
        host: hosts()[host].clone(),
        ..sample::idle_slot(number)
    };
    index.put(&on(0, 1, 1));
    index.put(&on(1, 2, 2));
    let like = index.get(&SlotName::new(&zoom(), 2)).expect("is there");
    index.put(&slot_of(&SlotLine { name: SlotName::new(&zoom(), 3), ..like }, SlotStatus::Error));
    assert_eq!(index.clone().take(&zoom()), Placement::Slot(SlotName::new(&zoom(), 2)));
    // It is said to have the image, and the pull is not over there.
    index.image_came(&zoom(), &hosts()[1], false);
    assert_eq!(index.clone().take(&zoom()), Placement::Slot(SlotName::new(&zoom(), 1)));
    index.image_came(&zoom(), &hosts()[1], true);
    assert_eq!(index.take(&zoom()), Placement::Slot(SlotName::new(&zoom(), 2)));
}

#[test]
fn never_across_platforms_and_never_a_platform_that_is_not_served() {
    let mut index = SlotIndex::new(&settings(1, 9, 9, 1));
    index.put(&sample::idle_slot(1));
    assert_eq!(index.take(&platforms()[0]), Placement::Full);
    assert_eq!(index.take(&platforms()[2]), Placement::Full);
}

#[test]
fn a_new_slot_gets_the_first_free_number_on_the_host_with_the_most_room() {
    let mut index = SlotIndex::new(&settings(9, 9, 3, 1));
    for number in [1, 3] {
        index.put(&Slot { host: hosts()[0].clone(), ..sample::busy_slot(number) });
    }
    let growth = Growth { name: SlotName::new(&zoom(), 2), host: hosts()[1].clone() };
    assert_eq!(index.take(&zoom()), Placement::Grow(growth));
}

#[test]
fn a_slot_with_a_name_of_another_kind_is_given_by_that_name() {
    let mut index = SlotIndex::new(&settings(9, 9, 9, 1));
    for name in ["by-hand", "by-hand-7"] {
        let name = SlotName(name.into());
        index.put(&Slot { name: name.clone(), host: hosts()[0].clone(), ..sample::idle_slot(7) });
        assert_eq!(index.take(&zoom()), Placement::Slot(name));
    }
}

#[test]
fn slots_are_counted_once_they_are_stored() {
    let mut index = SlotIndex::new(&settings(9, 9, 9, 1));
    for (version, expected) in [(0, 0), (0, 0), (1, 1)] {
        index.put(&Slot { version, ..sample::idle_slot(1) });
        assert_eq!(index.counts().values().sum::<u32>(), expected);
    }
}

#[test]
fn a_host_that_is_no_longer_configured_gets_no_bots() {
    let mut index = SlotIndex::new(&settings(9, 9, 9, 1));
    index.put(&Slot { host: hosts()[1].clone(), ..sample::idle_slot(1) });
    let mut without = settings(9, 9, 9, 1);
    without.hosts.remove(&hosts()[1]);
    index.configure(&without);
    let growth = Growth { name: SlotName::new(&zoom(), 2), host: hosts()[0].clone() };
    assert_eq!(index.take(&zoom()), Placement::Grow(growth));
    index.configure(&settings(9, 9, 9, 1));
    assert_eq!(index.take(&zoom()), Placement::Slot(SlotName::new(&zoom(), 1)));
}

#[test]
fn a_line_for_an_image_is_one_for_all_platforms() {
    let [meet, zoom, _] = platforms();
    let host = hosts()[0].clone();
    let mut index = SlotIndex::new(&settings(9, 9, 0, 1));
    let waiting = |number| {
        let line = SlotLine {
            name: SlotName::new(&meet, number),
            platform: meet.clone(),
            host: host.clone(),
            image: "image:1".to_owned(),
            status: Some(SlotStatus::Deploying),
            last_used_at: None,
            reserved: false,
            draining: false,
            stored: true,
        };
        slot_of(&line, SlotStatus::Deploying)
    };
    index.put(&waiting(1));
    index.put(&Slot { host: host.clone(), ..sample::idle_slot(1) });
    let back = |platform: &Platform, number, image: &str| Slot {
        state: SlotState::Idle { last_used_at: None, ahead: Preparation::Absent },
        platform: platform.clone(),
        name: SlotName::new(platform, number),
        image: image.to_owned(),
        ..waiting(1)
    };
    index.declined(&back(&zoom, 1, "image:2"));
    assert_eq!(index.crowded(), 0, "nobody waits for that one");
    index.declined(&back(&zoom, 1, "image:1"));
    assert_eq!((index.crowded(), index.take(&zoom)), (1, Placement::Full));
    // One of the other platform's was one too many as well: that lets nobody in.
    index.put(&waiting(2));
    index.declined(&back(&meet, 2, "image:1"));
    assert_eq!(
        (index.crowded(), index.take(&zoom), index.take(&meet)),
        (2, Placement::Full, Placement::Full)
    );
    index.put(&Slot { state: sample::busy_slot(1).state, ..waiting(1) });
    assert_eq!((index.crowded(), index.take(&zoom)), (0, Placement::Slot(SlotName::new(&zoom, 1))));
}

/// A pool that is full of these platforms' slots, free ones and those in use, one on each host in turn.
fn full(max_size: u32, capacity: u32, slots: &[(usize, SlotStatus, i64)]) -> SlotIndex {
    let mut index = SlotIndex::new(&settings(max_size, 9, capacity, 1));
    for (number, (platform, status, used_s)) in (1..).zip(slots) {
        let platform = &platforms()[*platform];
        let line = SlotLine {
            name: SlotName::new(platform, number),
            platform: platform.clone(),
            host: hosts()[number as usize % 2].clone(),
            image: "image:1".to_owned(),
            status: Some(*status),
            last_used_at: Some(sample::now() + TimeDelta::seconds(*used_s)),
            reserved: false,
            draining: false,
            stored: true,
        };
        index.put(&slot_of(&line, *status));
    }
    index
}

fn in_the_way(index: &SlotIndex, kept: Option<u32>) -> Option<u32> {
    index.in_the_way(&zoom(), |_| kept).map(|(name, _)| name.number())
}

#[test]
fn the_longest_unused_free_slot_of_another_platform_is_in_the_way() {
    use SlotStatus::{Busy, Idle};
    let slots = [(0, Idle, 7), (0, Busy, 1), (2, Idle, 5), (1, Busy, 0)];
    assert_eq!(in_the_way(&full(4, 9, &slots), Some(0)), Some(3), "webex is not even served");
    assert_eq!(in_the_way(&full(4, 9, &slots), Some(1)), Some(1), "webex keeps the one it has");
    assert_eq!(in_the_way(&full(4, 9, &slots), Some(2)), None, "all keep what they have");
    assert_eq!(in_the_way(&full(4, 9, &slots), None), None);
    assert_eq!(in_the_way(&full(5, 9, &slots), Some(0)), None, "there is room");
    // The second host may hold none, so only a slot on the first would be of use.
    assert_eq!(in_the_way(&full(9, 0, &slots), Some(0)), None, "the free ones are on the other");
    let of_zoom: Vec<_> = (0..9).map(|_| (1, Busy, 0)).chain([(0, Idle, 0)]).collect();
    assert_eq!(in_the_way(&full(10, 9, &of_zoom), Some(0)), None, "it has as many as it may");
}

#[test]
fn a_slot_on_a_host_that_takes_nothing_is_in_nobodys_way() {
    use SlotStatus::Idle;
    let slots = [(0, Idle, 7), (0, Idle, 1), (0, Idle, 2), (0, Idle, 3)];
    let mut index = full(9, 2, &slots);
    assert_eq!(in_the_way(&index, Some(0)), Some(2), "both hosts are full");
    index.drain_host(&hosts()[0], true);
    assert_eq!(in_the_way(&index, Some(0)), Some(3), "the first gets no new slot");
    let away = BreakerState::HalfOpen { since: sample::now(), asked_at: sample::now() };
    index.set_engine(&hosts()[1], away);
    assert_eq!(in_the_way(&index, Some(0)), None);
}

#[test]
fn where_the_pool_is_full_a_slot_goes_also_on_a_host_that_gets_no_other() {
    let mut index = full(2, 9, &[(0, SlotStatus::Idle, 7), (0, SlotStatus::Idle, 1)]);
    index.drain_host(&hosts()[0], true);
    assert_eq!(in_the_way(&index, Some(0)), Some(2), "the second host has room for the new one");
}

#[test]
fn a_drained_host_is_drained_also_when_it_comes_into_the_settings() {
    let all = settings(9, 9, 1, 1);
    let mut others = all.clone();
    others.hosts.remove(&hosts()[0]);
    let mut index = SlotIndex::new(&others);
    index.drain_host(&hosts()[0], true);
    assert!(!index.hosts().contains_key(&hosts()[0]), "it is none of the pool's yet");
    index.configure(&all);
    assert!(index.hosts()[&hosts()[0]].draining);
    assert_eq!(index.growth(&platforms()[0]).map(|growth| growth.host), Some(hosts()[1].clone()));
}

#[test]
fn a_slot_that_cannot_be_cleared_for_its_next_bot_is_given_to_nobody() {
    let mut index = full(9, 9, &[(1, SlotStatus::Idle, 1)]);
    let line = index.get(&SlotName::new(&platforms()[1], 1)).expect("is there");
    let mut slot = slot_of(&line, SlotStatus::Idle);
    for ahead in [
        Preparation::Lingering { container: None, failures: 1, at: sample::now() },
        // It is being tried again.
        Preparation::Removing { container: None, failures: 1 },
    ] {
        slot.state = SlotState::Idle { last_used_at: None, ahead };
        index.put(&slot);
        assert!(matches!(index.take(&platforms()[1]), Placement::Grow(_)));
    }
    let ahead = Preparation::Removing { container: None, failures: 0 };
    slot.state = SlotState::Idle { last_used_at: None, ahead };
    index.put(&slot);
    assert_eq!(index.clone().take(&platforms()[1]), Placement::Slot(line.name.clone()));
    index.put(&slot_of(&line, SlotStatus::Idle));
    assert_eq!(index.take(&platforms()[1]), Placement::Slot(line.name));
}
