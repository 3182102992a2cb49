use super::*;
use crate::ids::HostName;
use crate::pool::index::{HostLine, SlotLine};
use crate::pool::message::PlatformLine;
use crate::slot::SlotStatus;
use crate::testing::sample;
use SlotStatus::{Busy, Deploying, Error, Idle};
use proptest::prelude::*;

/// A pool that does what it is told at once.
#[derive(Debug, Clone)]
struct Toy {
    lines: Vec<SlotLine>,
    platforms: BTreeMap<Platform, PlatformLine>,
    hosts: BTreeMap<HostName, HostLine>,
    waiting: BTreeMap<Platform, usize>,
    max_size: u32,
}

impl Toy {
    /// Room for everybody; no platform.
    fn new() -> Self {
        let host = HostLine { capacity: 1_000, ..HostLine::default() };
        let hosts = [(HostName::local(), host)].into();
        Self { hosts, max_size: 100, lines: vec![], platforms: BTreeMap::new(), waiting: BTreeMap::new() }
    }

    fn with(mut self, platform: &str, prewarm: u32, max_size: u32, slots: &[SlotStatus]) -> Self {
        let limits = PlatformLine { max_size, prewarm, open: true };
        self.platforms.insert(key(platform), limits);
        for status in slots {
            self.add(&key(platform), *status);
        }
        self
    }

    fn add(&mut self, platform: &Platform, status: SlotStatus) {
        let taken = |number| self.lines.iter().any(|line| line.name == SlotName::new(platform, number));
        let number = (1..).find(|number| !taken(*number)).expect("endless");
        self.lines.push(SlotLine {
            name: SlotName::new(platform, number),
            platform: platform.clone(),
            host: HostName::local(),
            image: "image:1".into(),
            status: Some(status),
            last_used_at: None,
            reserved: false,
            draining: false,
            stored: true,
        });
        self.host().slots += 1;
    }

    fn host(&mut self) -> &mut HostLine {
        self.hosts.get_mut(&HostName::local()).expect("there")
    }

    fn limits(&mut self, platform: &str) -> &mut PlatformLine {
        self.platforms.get_mut(&key(platform)).expect("there")
    }

    fn apply(&mut self, action: &Action) {
        match action {
            Action::Grow { platform } => self.add(platform, Idle),
            Action::Retire { slot } => {
                self.lines.retain(|line| line.name != *slot);
                self.host().slots -= 1;
            }
        }
    }

    /// What the pool would tell of it.
    fn load(&self) -> PoolLoad {
        let waiting = |platform: &Platform| self.waiting.get(platform).copied().unwrap_or(0);
        let platforms = self.platforms.iter();
        let platforms =
            platforms.map(|(key, limits)| (key.clone(), PlatformLoad::new(*limits, waiting(key))));
        let slots = self.lines.iter().map(|line| (line, line.reserved));
        PoolLoad::of(platforms.collect(), slots, &self.hosts, self.max_size, 50)
    }

    fn of(&self, platform: &Platform) -> Vec<&SlotLine> {
        self.lines.iter().filter(|line| line.platform == *platform).collect()
    }
}

fn key(platform: &str) -> Platform {
    Platform(platform.into())
}

fn zoom() -> Platform {
    key("zoom")
}

fn at(seconds: i64) -> DateTime<Utc> {
    sample::now() + TimeDelta::seconds(seconds)
}

fn grow(platform: &str) -> Vec<Action> {
    vec![Action::Grow { platform: key(platform) }]
}

/// The first round's wishes: nothing is known of the load yet.
fn first(settings: ScaleSettings, toy: &Toy, coming: usize) -> Vec<Action> {
    Scaling::new(settings).round(at(0), &toy.load(), &[(zoom(), coming)].into(), false)
}

/// Rounds of ten seconds from one time to another on a pool that does as it is wished; says what was wished when.
fn rounds(scaling: &mut Scaling, toy: &mut Toy, from: i64, to: i64) -> Vec<(i64, Action)> {
    let mut wished = Vec::new();
    for second in (from..to).step_by(10) {
        for action in scaling.round(at(second), &toy.load(), &BTreeMap::new(), false) {
            toy.apply(&action);
            wished.push((second, action));
        }
    }
    wished
}

fn slots(busy: usize, idle: usize) -> Vec<SlotStatus> {
    [vec![Busy; busy], vec![Idle; idle]].concat()
}

/// Only the prewarm count, so that it is seen alone.
fn prewarm_only() -> ScaleSettings {
    ScaleSettings { enabled: false, ..ScaleSettings::default() }
}

#[test]
fn prewarming_counts_what_stays_whatever_its_state() {
    for (slots, more) in [
        (vec![], true),
        (vec![Idle, Busy], true),
        (vec![Idle, Busy, Error], false),
        (vec![Deploying, Busy, Error], false),
        (vec![Idle; 4], false),
    ] {
        let mut toy = Toy::new().with("zoom", 3, 50, &slots);
        let wanted = if more { grow("zoom") } else { vec![] };
        assert_eq!(first(prewarm_only(), &toy, 0), wanted, "{slots:?}");
        if let Some(line) = toy.lines.first_mut() {
            line.draining = true;
            let more = more || slots.len() == 3;
            assert_eq!(first(prewarm_only(), &toy, 0).is_empty(), !more, "draining, {slots:?}");
        }
    }
}

#[test]
fn slots_are_made_one_at_a_time_where_most_are_lacking() {
    let toy = Toy::new().with("google-meet", 5, 50, &[Idle; 4]).with("zoom", 5, 50, &[Idle; 3]);
    assert_eq!(first(prewarm_only(), &toy, 0), grow("zoom"));
    let none = BTreeMap::new();
    let mut scaling = Scaling::new(prewarm_only());
    assert_eq!(scaling.round(at(0), &toy.load(), &none, true), vec![], "another is being made");
    scaling.failed(&zoom(), at(0));
    assert_eq!(scaling.round(at(10), &toy.load(), &none, false), grow("google-meet"), "zoom failed just now");
    assert_eq!(scaling.round(at(60), &toy.load(), &none, false), grow("zoom"));
    scaling.failed(&zoom(), at(60));
    assert_eq!(scaling.round(at(59), &toy.load(), &none, false), grow("zoom"), "the clock was set back");
}

#[test]
fn no_cap_is_passed_and_nobody_is_robbed() {
    let toy = Toy::new().with("zoom", 5, 50, &[Idle; 2]);
    assert_eq!(first(prewarm_only(), &toy, 0), grow("zoom"));
    type Change = fn(&mut Toy);
    let changes: [(&str, Change); 6] = [
        ("the platform is full", |toy| toy.limits("zoom").max_size = 2),
        ("the pool is full", |toy| toy.max_size = 2),
        ("the host is full", |toy| toy.host().capacity = 2),
        ("the host drains", |toy| toy.host().draining = true),
        ("the platform is closed", |toy| toy.limits("zoom").open = false),
        ("somebody waits", |toy| toy.waiting = [(zoom(), 1)].into()),
    ];
    for (why, change) in changes {
        let mut toy = toy.clone();
        change(&mut toy);
        for settings in [prewarm_only(), ScaleSettings::default()] {
            assert_eq!(first(settings, &toy, 9), vec![], "{why}");
        }
    }
}

#[test]
fn a_minimum_stays_idle_and_whoever_starts_soon_is_on_top() {
    let settings = ScaleSettings::default();
    for (busy, idle, coming, more) in
        [(7, 3, 0, false), (7, 2, 0, true), (7, 3, 1, true), (7, 8, 5, false), (7, 7, 5, true)]
    {
        let toy = Toy::new().with("zoom", 1, 50, &slots(busy, idle));
        assert_eq!(first(settings, &toy, coming).is_empty(), !more, "{busy} {idle} {coming}");
    }
    // One that is being made is as good as there; one that is spoken for is not.
    let mut toy = Toy::new().with("zoom", 1, 50, &slots(7, 3));
    let last = toy.lines.last_mut().expect("there");
    (last.reserved, last.stored) = (true, false);
    assert_eq!(first(settings, &toy, 0), vec![]);
    toy.lines.last_mut().expect("there").stored = true;
    assert_eq!(first(settings, &toy, 0), grow("zoom"));
}

#[test]
fn a_start_without_prewarming_waits_for_the_first_bot() {
    let settings = ScaleSettings { prewarm_on_startup: false, ..ScaleSettings::default() };
    let toy = |slots: &[SlotStatus]| Toy::new().with("zoom", 5, 50, slots);
    assert_eq!(first(settings, &toy(&[]), 0), vec![]);
    assert_eq!(first(settings, &toy(&[]), 1), grow("zoom"));
    assert_eq!(first(settings, &toy(&[Busy]), 0), grow("zoom"));
}

#[test]
fn four_of_five_in_use_over_the_window_are_five_slots_more() {
    let (mut scaling, mut toy) =
        (Scaling::new(ScaleSettings::default()), Toy::new().with("zoom", 1, 50, &slots(16, 4)));
    assert_eq!(rounds(&mut scaling, &mut toy, 0, 300), vec![], "a window is not over yet");
    let wished = rounds(&mut scaling, &mut toy, 300, 3_600);
    let expected: Vec<_> =
        (0..5).map(|number| (300 + number * 10, Action::Grow { platform: zoom() })).collect();
    assert_eq!(wished, expected, "once: 16 of 25 are not too many");
    let scaled = Some(Scaled { at: at(300), up_to: Some(25) });
    let lines: Vec<_> = scaling.lines(at(3_590)).collect();
    assert_eq!(lines, [(&zoom(), Some(Utilisation::percent(64)), scaled)]);
}

#[test]
fn a_step_up_is_clamped_to_the_caps_and_the_next_waits_for_the_cool_down() {
    let (mut scaling, mut toy) =
        (Scaling::new(ScaleSettings::default()), Toy::new().with("zoom", 1, 108, &slots(96, 4)));
    toy.max_size = 200;
    let wished = rounds(&mut scaling, &mut toy, 0, 3_600);
    let times: Vec<i64> = wished.iter().map(|(second, _)| *second).collect();
    assert_eq!(times, [300, 310, 320, 330, 340, 900, 910, 920]);
    assert_eq!(toy.of(&zoom()).len(), 108);
}

#[test]
fn a_step_down_takes_the_longest_unused_and_leaves_the_minimum() {
    let mut toy = Toy::new().with("zoom", 1, 50, &slots(2, 8));
    for (line, used) in toy.lines.iter_mut().skip(2).zip([40, 10, 30, 20, 60, 50, 80, 70]) {
        line.last_used_at = Some(at(used - 1_000));
    }
    let mut scaling = Scaling::new(ScaleSettings::default());
    let wished = rounds(&mut scaling, &mut toy, 0, 3_600);
    let retired = |number| Action::Retire { slot: SlotName::new(&zoom(), number) };
    // 2 of 10, then 2 of 8; 2 of 6 are more than the mark.
    let expected = [(300, retired(4)), (300, retired(6)), (900, retired(5)), (900, retired(3))];
    assert_eq!(wished, expected);
}

#[test]
fn what_is_not_idle_enough_stays() {
    for (why, prewarm, slots, waiting, gone) in [
        ("idle is the minimum and a step", 1, slots(0, 5), 0, 0),
        ("one more is enough", 1, slots(0, 6), 0, 2),
        ("the prewarm count stays", 5, slots(0, 6), 0, 1),
        ("all of it", 6, slots(0, 6), 0, 0),
        ("more than the mark is in use", 1, slots(4, 9), 0, 0),
        ("somebody waits", 1, slots(0, 9), 1, 0),
    ] {
        let mut toy = Toy::new().with("zoom", prewarm, 50, &slots);
        toy.waiting.insert(zoom(), waiting);
        let mut scaling = Scaling::new(ScaleSettings::default());
        assert_eq!(rounds(&mut scaling, &mut toy, 0, 310).len(), gone, "{why}");
    }
    let mut toy = Toy::new().with("zoom", 0, 50, &slots(0, 50));
    let mut scaling = Scaling::new(ScaleSettings::default());
    assert_eq!(rounds(&mut scaling, &mut toy, 0, 3_600), vec![], "it has no prewarm count");
}

#[test]
fn a_platform_without_a_prewarm_count_has_a_slot_for_each_who_starts_soon() {
    let settings = ScaleSettings::default();
    for (slots, coming, wished) in [
        (&[][..], 0, vec![]),
        (&[], 1, grow("zoom")),
        (&[Idle, Busy], 1, vec![]),
        (&[Idle, Busy], 2, grow("zoom")),
        (&[Idle, Idle, Idle], 3, vec![]),
    ] {
        let toy = Toy::new().with("zoom", 0, 50, slots);
        assert_eq!(first(settings, &toy, coming), wished, "{slots:?}, {coming} start soon");
    }
    let off = ScaleSettings { enabled: false, ..settings };
    assert_eq!(first(off, &Toy::new().with("zoom", 0, 50, &[]), 1), vec![]);
}

#[derive(Debug, Clone)]
enum Happens {
    Joins,
    Leaves(u8),
    Breaks(u8),
    Drains(u8),
    Reserves(u8),
    Opens(bool),
    Caps(u32, u32, u32),
    Waits(usize),
    Comes(usize),
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        4 => Just(Happens::Joins),
        3 => any::<u8>().prop_map(Happens::Leaves),
        1 => any::<u8>().prop_map(Happens::Breaks),
        1 => any::<u8>().prop_map(Happens::Drains),
        1 => any::<u8>().prop_map(Happens::Reserves),
        1 => any::<bool>().prop_map(Happens::Opens),
        1 => (1_u32..30, 1_u32..40, 1_u32..40).prop_map(|(of, all, host)| Happens::Caps(of, all, host)),
        1 => (0_usize..3).prop_map(Happens::Waits),
        1 => (0_usize..6).prop_map(Happens::Comes),
    ]
}

fn settings() -> impl Strategy<Value = ScaleSettings> {
    (0_u32..5, 1_u32..8, 1_u32..5, 40_u32..=100, 0_u32..40, any::<bool>()).prop_map(
        |(min_idle, up_by, down_by, up_at_percent, down_at_percent, prewarm_on_startup)| ScaleSettings {
            min_idle,
            up_by,
            down_by,
            up_at_percent,
            down_at_percent,
            prewarm_on_startup,
            ..ScaleSettings::default()
        },
    )
}

fn happen(toy: &mut Toy, coming: &mut BTreeMap<Platform, usize>, what: Happens) {
    let pick = |lines: &mut Vec<SlotLine>, number: u8, status: SlotStatus| -> Option<usize> {
        let fits: Vec<usize> = (0..lines.len()).filter(|at| lines[*at].status == Some(status)).collect();
        fits.get(usize::from(number) % fits.len().max(1)).copied()
    };
    let lines = &mut toy.lines;
    match what {
        Happens::Joins => {
            let free = |line: &&mut SlotLine| line.status == Some(Idle) && !line.draining && !line.reserved;
            let number = lines.len();
            if let Some(line) = lines.iter_mut().find(free) {
                line.status = Some(Busy);
            } else if number < 20 {
                toy.add(&zoom(), Deploying);
            }
        }
        Happens::Leaves(number) => {
            if let Some(at) = pick(lines, number, Busy) {
                (lines[at].status, lines[at].last_used_at) = (Some(Idle), Some(sample::now()));
            }
        }
        Happens::Breaks(number) => {
            if let Some(at) = pick(lines, number, Busy) {
                lines[at].status = Some(Error);
            }
        }
        Happens::Drains(number) => {
            if let Some(at) = pick(lines, number, Busy) {
                lines[at].draining = !lines[at].draining;
            }
        }
        Happens::Reserves(number) => {
            if let Some(at) = pick(lines, number, Idle) {
                lines[at].reserved = !lines[at].reserved;
            }
        }
        Happens::Opens(open) => toy.limits("zoom").open = open,
        Happens::Caps(of, all, host) => {
            toy.limits("zoom").max_size = of;
            toy.max_size = all;
            toy.host().capacity = host;
        }
        Happens::Waits(waiting) => toy.waiting = [(zoom(), waiting)].into(),
        Happens::Comes(bots) => *coming = [(zoom(), bots)].into(),
    }
}

proptest! {
    /// Whatever happens: no cap is passed, nothing goes that is not free, and what goes leaves the minimum; and once
    /// nothing happens any more, soon nothing is done any more either.
    #[test]
    fn caps_hold_what_is_in_use_stays_and_a_steady_load_comes_to_rest(
        settings in settings(),
        prewarm in 0_u32..6,
        days in proptest::collection::vec(proptest::collection::vec(happens(), 0..3), 0..200),
    ) {
        let mut toy = Toy::new().with("zoom", prewarm, 12, &[]).with("google-meet", 2, 3, &[]);
        let (mut scaling, mut coming) = (Scaling::new(settings), BTreeMap::new());
        let (mut last_at, mut scaled_down_at) = (0, BTreeMap::new());
        let busy = days.len();
        let steady = busy + 360 * 6;
        for (round, events) in days.into_iter().chain(std::iter::repeat_with(Vec::new)).take(steady).enumerate() {
            for event in events {
                happen(&mut toy, &mut coming, event);
            }
            let now = at(10 * i64::try_from(round).expect("few"));
            let actions = scaling.round(now, &toy.load(), &coming, false);
            let grown = actions.iter().filter(|action| matches!(action, Action::Grow { .. })).count();
            prop_assert!(grown <= 1);
            prop_assert!(actions.len() - grown <= settings.down_by as usize);
            for action in &actions {
                last_at = round;
                match action {
                    Action::Grow { platform } => {
                        let limits = toy.platforms[platform];
                        let is_free = |line: &&SlotLine| line.status == Some(Idle) && !line.reserved && !line.draining;
                        let free = toy.of(platform).into_iter().filter(is_free).count();
                        let starts_soon = coming.get(platform).copied().unwrap_or(0);
                        prop_assert!(limits.open && (limits.prewarm > 0 || free < starts_soon));
                        prop_assert!(toy.of(platform).len() < limits.max_size as usize);
                        prop_assert!(toy.lines.len() < toy.max_size as usize);
                        let host = *toy.host();
                        prop_assert!(host.slots < host.capacity);
                        prop_assert_eq!(toy.waiting.get(platform).copied().unwrap_or(0), 0);
                    }
                    Action::Retire { slot } => {
                        let line = toy.lines.iter().find(|line| line.name == *slot).expect("there").clone();
                        prop_assert!(line.status == Some(Idle) && !line.reserved && !line.draining);
                    }
                }
                toy.apply(action);
            }
            let retires = |platform: &Platform| actions.iter().any(|action| {
                matches!(action, Action::Retire { slot } if *slot == SlotName::new(platform, slot.number()))
            });
            for platform in [zoom(), key("google-meet")].into_iter().filter(retires) {
                let free = toy.of(&platform).into_iter().filter(|line| {
                    line.status == Some(Idle) && !line.reserved && !line.draining
                });
                prop_assert!(free.count() > settings.min_idle as usize);
                let before = scaled_down_at.insert(platform, now);
                prop_assert!(before.is_none_or(|before| now - before >= settings.cooldown));
            }
        }
        // At most 30 slots go by one each cool-down; five hours are enough, and the sixth is quiet.
        prop_assert!(last_at < busy + 360 * 5, "round {} of {}, {:?}", last_at, steady, toy);
    }
}
