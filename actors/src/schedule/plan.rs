//! When scheduled bots are handed over. Pure: observed times and the bots are arguments.
//!
//! A bot is handed over a lead before its start: the configured one, or what nine of ten starts on its platform take
//! where that is longer. Bots that start together would find an engine that starts only so many side by side, so each
//! goes earlier still by its share of the time that the engine needs for all of them, one start counted as what half of
//! them stay within: the slow half of a burst is slow because it waited for the rest. The share comes from the bot's
//! number: the same at every look, and spread evenly over bots that were asked for one after the other. Who is early
//! waits in the meeting.

use super::ScheduleSettings;
use crate::ids::{BotId, Platform};
use chrono::{DateTime, TimeDelta, Utc};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Starts of a platform that are remembered: enough for a ninth of ten, few enough to follow a change of the image.
const STARTS_KEPT: usize = 50;
/// Starts within this part of the lead count as together.
const TOGETHER: i32 = 5;
/// The least spread, as a part of the lead: even a lone bot does not start on the full minute with everybody else's.
const JITTER: i32 = 10;
/// The most spread: a bot holds its slot while it waits for its meeting, and where an engine needs longer than this for
/// those who start together, a few of them being late is better than all slots being taken for hours.
const SPREAD_MAX: TimeDelta = TimeDelta::hours(1);
/// What a start counts as in the spread where none was observed yet, as after every restart: between a container that
/// was made ahead and a deployment on a slow host.
const START_PRESUMED: TimeDelta = TimeDelta::minutes(1);
/// A start that took longer is no measure of the next: a database was away meanwhile, or a clock was set.
const START_CREDIBLE_MAX: TimeDelta = TimeDelta::minutes(30);
/// By less a clock is put right now and then; it makes nobody's start missed that was not close to it.
pub(super) const LEAP: TimeDelta = TimeDelta::minutes(1);

/// What starting takes on a platform, from the last starts.
#[derive(Debug, Clone, Default)]
pub struct Pace(VecDeque<TimeDelta>);

impl Pace {
    /// Notes how long a start took, where that can be believed.
    pub fn observe(&mut self, took: TimeDelta) {
        if !(TimeDelta::zero()..=START_CREDIBLE_MAX).contains(&took) {
            return;
        }
        if self.0.len() == STARTS_KEPT {
            self.0.pop_front();
        }
        self.0.push_back(took);
    }

    /// What nine of ten starts stay within; zero where none was observed.
    pub fn p90(&self) -> TimeDelta {
        self.within_tenths(9).unwrap_or_default()
    }

    /// What half of the starts stay within, presumed where none was observed.
    fn usual(&self) -> TimeDelta {
        self.within_tenths(5).unwrap_or(START_PRESUMED)
    }

    fn within_tenths(&self, tenths: usize) -> Option<TimeDelta> {
        let mut sorted: Vec<_> = self.0.iter().copied().collect();
        sorted.sort_unstable();
        (sorted.len() * tenths).div_ceil(10).checked_sub(1).and_then(|index| sorted.get(index)).copied()
    }
}

/// How long before its start a bot is handed over: between `lead` and `lead + spread`, by its share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ahead {
    lead: TimeDelta,
    spread: TimeDelta,
}

impl Ahead {
    /// For bots of a platform, `together` of which start at about the same time.
    fn of(settings: &ScheduleSettings, lead: TimeDelta, usual: TimeDelta, together: usize) -> Self {
        let others = i32::try_from(together.saturating_sub(1)).unwrap_or(i32::MAX);
        let burst = i32::try_from(settings.burst.max(1)).unwrap_or(i32::MAX);
        let needed = usual.checked_mul(others).map_or(TimeDelta::MAX, |all| all / burst);
        Self { lead, spread: needed.clamp(lead / JITTER, spread_max(lead)) }
    }

    fn due_at(self, starts_at: DateTime<Utc>, share: u32) -> DateTime<Utc> {
        let spread_ms = (i128::from(self.spread.num_milliseconds()) * i128::from(share)) >> u32::BITS;
        let spread = TimeDelta::milliseconds(i64::try_from(spread_ms).unwrap_or(0));
        starts_at - self.lead - spread
    }
}

/// The widest spread; never below the jitter, whatever lead is configured.
fn spread_max(lead: TimeDelta) -> TimeDelta {
    SPREAD_MAX.max(lead / JITTER)
}

/// A bot's share of the spread, in parts of 2³²: the fractional part of its number times the golden ratio, which lays
/// numbers that follow one another evenly over the whole.
fn share(bot: BotId) -> u32 {
    let product = bot.0.cast_unsigned().wrapping_mul(0x9E37_79B9_7F4A_7C15);
    u32::try_from(product >> u32::BITS).unwrap_or(u32::MAX)
}

/// When a start counts as missed: later, a bot is not started any more.
pub fn missed_at(
    settings: &ScheduleSettings,
    start_at: DateTime<Utc>,
    end_at: Option<DateTime<Utc>>,
) -> DateTime<Utc> {
    let latest = start_at + settings.lateness;
    end_at.map_or(latest, |end_at| end_at.min(latest))
}

/// Whether a bot waits for its start, rather than starting at once.
pub fn waits(lead: TimeDelta, start_at: Option<DateTime<Utc>>, now: DateTime<Utc>) -> bool {
    start_at.is_some_and(|start_at| start_at - now > lead)
}

/// Bots that start within one window, the furthest ahead first.
#[derive(Debug, Default)]
struct Group {
    bots: BTreeSet<(Reverse<u32>, BotId)>,
    /// Those that were handed over already count too, or the rest would close up behind them.
    size: usize,
}

/// The bots of a platform.
#[derive(Debug, Default)]
struct Lane {
    pace: Pace,
    /// By the number of their window since 1970.
    groups: BTreeMap<i64, Group>,
}

/// All bots that wait for their start, and which is next. Every operation takes a time that grows with the logarithm
/// of their number.
#[derive(Debug)]
pub struct Timetable {
    settings: ScheduleSettings,
    lanes: BTreeMap<Platform, Lane>,
    windows: BTreeMap<BotId, (Platform, i64)>,
}

impl Timetable {
    /// An empty one.
    pub fn new(settings: ScheduleSettings) -> Self {
        Self { settings, lanes: BTreeMap::new(), windows: BTreeMap::new() }
    }

    /// Notes how long a start took on a platform.
    pub fn observe(&mut self, platform: &Platform, took: TimeDelta) {
        self.lanes.entry(platform.clone()).or_default().pace.observe(took);
    }

    /// Puts a bot in.
    pub fn insert(&mut self, bot: BotId, platform: &Platform, start_at: DateTime<Utc>) {
        let window = start_at.timestamp_millis().div_euclid(window_ms(&self.settings));
        // Where it is there already it stays: an emptied group would forget who left it.
        if self.windows.get(&bot).is_some_and(|known| *known == (platform.clone(), window)) {
            return;
        }
        self.cancel(bot);
        let lane = self.lanes.entry(platform.clone()).or_default();
        let group = lane.groups.entry(window).or_default();
        group.bots.insert((Reverse(share(bot)), bot));
        group.size += 1;
        self.windows.insert(bot, (platform.clone(), window));
    }

    /// Takes a bot out because its time has come: the others' times stay as they are.
    pub fn hand_over(&mut self, bot: BotId) {
        self.remove(bot, 0);
    }

    /// Takes a bot out that will not start then.
    pub fn cancel(&mut self, bot: BotId) {
        self.remove(bot, 1);
    }

    fn remove(&mut self, bot: BotId, leaves: usize) {
        let Some((platform, window)) = self.windows.remove(&bot) else { return };
        let Some(lane) = self.lanes.get_mut(&platform) else { return };
        let Some(group) = lane.groups.get_mut(&window) else { return };
        group.bots.remove(&(Reverse(share(bot)), bot));
        group.size -= leaves;
        if group.bots.is_empty() {
            lane.groups.remove(&window);
        }
    }

    /// The bot that is handed over next, and when.
    pub fn next(&self) -> Option<(DateTime<Utc>, BotId)> {
        self.lanes.values().filter_map(|lane| lane.next(&self.settings)).min()
    }

    /// How many bots of each platform are handed over before `until`.
    pub fn due_before(&self, until: DateTime<Utc>) -> BTreeMap<Platform, usize> {
        let counts = self.lanes.iter().map(|(platform, lane)| {
            let dues = lane.dues(&self.settings).take_while(|(earliest, ..)| *earliest < until);
            let count = dues.map(|(_, starts_at, ahead, group)| {
                // The furthest ahead come first.
                group
                    .bots
                    .iter()
                    .take_while(|(Reverse(share), _)| ahead.due_at(starts_at, *share) < until)
                    .count()
            });
            (platform.clone(), count.sum())
        });
        counts.filter(|(_, count)| *count > 0).collect()
    }
}

impl Lane {
    /// Its groups by their start: before when nobody of it nor of a later one is due, when they start, and how far ahead
    /// they go.
    fn dues<'a>(
        &'a self,
        settings: &'a ScheduleSettings,
    ) -> impl Iterator<Item = (DateTime<Utc>, DateTime<Utc>, Ahead, &'a Group)> {
        let (lead, usual) = (settings.lead.max(self.pace.p90()), self.pace.usual());
        let furthest = lead + spread_max(lead);
        self.groups.iter().map(move |(window, group)| {
            let starts_at = window_start(settings, *window);
            (starts_at - furthest, starts_at, Ahead::of(settings, lead, usual, group.size), group)
        })
    }

    fn next(&self, settings: &ScheduleSettings) -> Option<(DateTime<Utc>, BotId)> {
        let mut next: Option<(DateTime<Utc>, BotId)> = None;
        for (earliest, starts_at, ahead, group) in self.dues(settings) {
            // A later group can come first only while it is within reach of the widest spread.
            if next.is_some_and(|(at, _)| at < earliest) {
                break;
            }
            let Some((Reverse(share), bot)) = group.bots.first() else { continue };
            let due = (ahead.due_at(starts_at, *share), *bot);
            next = Some(next.map_or(due, |known| known.min(due)));
        }
        next
    }
}

/// The furthest that any bot of a platform is handed over before its start.
pub fn furthest(settings: &ScheduleSettings, p90: TimeDelta) -> TimeDelta {
    let lead = settings.lead.max(p90.min(START_CREDIBLE_MAX));
    lead + spread_max(lead) + TimeDelta::milliseconds(window_ms(settings))
}

fn window_ms(settings: &ScheduleSettings) -> i64 {
    (settings.lead / TOGETHER).num_milliseconds().max(1)
}

fn window_start(settings: &ScheduleSettings, window: i64) -> DateTime<Utc> {
    let start_ms = window.saturating_mul(window_ms(settings));
    DateTime::from_timestamp_millis(start_ms).unwrap_or(DateTime::<Utc>::MAX_UTC)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::sample;
    use proptest::prelude::*;

    fn zoom() -> Platform {
        Platform("zoom".into())
    }

    fn at(minutes: i64) -> DateTime<Utc> {
        sample::now() + TimeDelta::minutes(minutes)
    }

    /// Hands over everything in order: when, and who.
    fn run(mut timetable: Timetable) -> Vec<(DateTime<Utc>, BotId)> {
        let next = std::iter::from_fn(move || {
            let next = timetable.next()?;
            timetable.hand_over(next.1);
            Some(next)
        });
        next.collect()
    }

    fn timetable(took: TimeDelta, starts: &[(i64, DateTime<Utc>)]) -> Timetable {
        let mut timetable = Timetable::new(ScheduleSettings::default());
        timetable.observe(&zoom(), took);
        for (bot, start_at) in starts {
            timetable.insert(BotId(*bot), &zoom(), *start_at);
        }
        timetable
    }

    #[test]
    fn a_lone_bot_goes_a_lead_ahead_with_a_little_jitter() {
        for id in 1..50 {
            let handed_over = run(timetable(TimeDelta::seconds(8), &[(id, at(60))]));
            assert!((at(60 - 7)..=at(60 - 5)).contains(&handed_over[0].0), "{handed_over:?}");
        }
    }

    #[test]
    fn a_slow_platform_goes_further_ahead() {
        let handed_over = run(timetable(TimeDelta::minutes(12), &[(1, at(60))]));
        assert!((at(60 - 15)..=at(60 - 12)).contains(&handed_over[0].0), "{handed_over:?}");
    }

    #[test]
    fn nobody_goes_further_ahead_than_a_lead_an_hour_and_a_window() {
        let settings = ScheduleSettings::default();
        assert_eq!(furthest(&settings, TimeDelta::seconds(8)), TimeDelta::minutes(5 + 60 + 1));
        assert_eq!(furthest(&settings, TimeDelta::minutes(12)), TimeDelta::minutes(12 + 60 + 1));
        assert_eq!(furthest(&settings, TimeDelta::days(1)), TimeDelta::minutes(30 + 60 + 1));
        let starts: Vec<_> = (1..=5_000).map(|id| (id, at(600))).collect();
        let handed_over = run(timetable(TimeDelta::minutes(12), &starts));
        assert!((at(600 - 73)..at(600 - 70)).contains(&handed_over[0].0), "{}", handed_over[0].0);
    }

    #[test]
    fn a_start_that_no_start_takes_sends_nobody_early() {
        for took in [TimeDelta::days(1), TimeDelta::minutes(31), TimeDelta::days(-1)] {
            let handed_over = run(timetable(took, &[(1, at(60))]));
            assert!((at(60 - 7)..=at(60 - 5)).contains(&handed_over[0].0), "after {took}: {handed_over:?}");
        }
    }

    #[test]
    fn a_burst_is_spread_over_what_the_engine_can_start() {
        let took = TimeDelta::seconds(60);
        let starts: Vec<_> = (1..=100).map(|id| (id, at(60))).collect();
        let handed_over = run(timetable(took, &starts));
        assert_eq!(handed_over.len(), 100);
        for (first, _) in &handed_over {
            let within = handed_over.iter().filter(|(due, _)| (*first..*first + took).contains(due)).count();
            assert!(within <= 14, "{within} in the time of one start, where 10 fit");
        }
        let (first, last) = (handed_over[0].0, handed_over[99].0);
        assert!(last <= at(55) && first < at(46) && first > at(43), "from {first} to {last}");
    }

    #[test]
    fn a_burst_is_spread_where_nothing_was_observed_yet() {
        let mut timetable = Timetable::new(ScheduleSettings { burst: 2, ..ScheduleSettings::default() });
        (1..=50).for_each(|id| timetable.insert(BotId(id), &zoom(), at(60)));
        let handed_over = run(timetable);
        let (first, last) = (handed_over[0].0, handed_over[49].0);
        assert!(last <= at(55) && first < at(33) && first > at(29), "a minute each, from {first} to {last}");
    }

    #[test]
    fn a_burst_counts_what_half_of_the_starts_take() {
        let mut timetable = Timetable::new(ScheduleSettings::default());
        (1..=11).for_each(|minute| timetable.observe(&zoom(), TimeDelta::minutes(minute)));
        (1..=21).for_each(|id| timetable.insert(BotId(id), &zoom(), at(60)));
        // The lead is 10 minutes; 20 others, ten side by side, take 6 minutes each.
        let (first, last) = (run(timetable).remove(0).0, at(60 - 10));
        assert!(first >= last - TimeDelta::minutes(13) && first < last - TimeDelta::minutes(10), "{first}");
    }

    #[test]
    fn who_is_handed_over_soon_is_coming() {
        let starts: Vec<_> = (1..=100).map(|id| (id, at(60))).chain([(101, at(300))]).collect();
        let timetable = timetable(TimeDelta::seconds(60), &starts);
        let coming = |until| timetable.due_before(until).get(&zoom()).copied().unwrap_or(0);
        assert_eq!((coming(at(40)), coming(at(55)), coming(at(290))), (0, 100, 100));
        // They are handed over from the 45th minute to the 55th.
        let half = coming(at(50));
        assert!((40..60).contains(&half), "{half}");
        assert_eq!(coming(at(300)), 101);
        let first = timetable.next().expect("somebody").0;
        assert_eq!(
            (coming(first), coming(first + TimeDelta::milliseconds(1))),
            (0, 1),
            "before, to the moment"
        );
    }

    #[test]
    fn the_ninth_of_ten_counts() {
        let mut pace = Pace::default();
        assert_eq!(pace.p90(), TimeDelta::zero());
        (1..=10).for_each(|second| pace.observe(TimeDelta::seconds(second)));
        assert_eq!(pace.p90(), TimeDelta::seconds(9));
        (0..STARTS_KEPT).for_each(|_| pace.observe(TimeDelta::seconds(3)));
        assert_eq!(pace.p90(), TimeDelta::seconds(3), "old starts are forgotten");
    }

    #[test]
    fn a_start_is_missed_after_the_lateness_or_its_end() {
        let settings = ScheduleSettings::default();
        assert_eq!(missed_at(&settings, at(0), None), at(10));
        assert_eq!(missed_at(&settings, at(0), Some(at(3))), at(3));
        assert_eq!(missed_at(&settings, at(0), Some(at(30))), at(10));
    }

    #[test]
    fn who_starts_soon_does_not_wait() {
        let lead = TimeDelta::minutes(5);
        assert!(!waits(lead, None, at(0)));
        assert!(!waits(lead, Some(at(-3)), at(0)));
        assert!(!waits(lead, Some(at(5)), at(0)));
        assert!(waits(lead, Some(at(5) + TimeDelta::milliseconds(1)), at(0)));
    }

    /// The plain reference: every bot in one list, everything counted anew at each look.
    #[derive(Default)]
    struct Reference {
        waiting: BTreeMap<BotId, (Platform, DateTime<Utc>)>,
        gone: Vec<(Platform, DateTime<Utc>)>,
        paces: BTreeMap<Platform, Vec<TimeDelta>>,
    }

    impl Reference {
        fn next(&self, settings: &ScheduleSettings) -> Option<(DateTime<Utc>, BotId)> {
            let due = self.waiting.iter().map(|(bot, (platform, start_at))| {
                let (p90, usual) =
                    self.paces.get(platform).map_or((TimeDelta::zero(), TimeDelta::minutes(1)), |took| {
                        let mut last: Vec<_> = took.iter().rev().take(50).copied().collect();
                        last.sort();
                        (last[(last.len() * 9).div_ceil(10) - 1], last[last.len().div_ceil(2) - 1])
                    });
                let window = |at: &DateTime<Utc>| at.timestamp_millis().div_euclid(60_000);
                let here = |(other, at): &(Platform, DateTime<Utc>)| {
                    other == platform && window(at) == window(start_at)
                };
                let waiting = self.waiting.values().filter(|entry| here(entry)).count();
                let together = waiting + self.gone.iter().filter(|entry| here(entry)).count();
                let lead = settings.lead.max(p90);
                let for_all = usual * i32::try_from(together - 1).expect("fits") / 10;
                let spread = for_all.max(lead / 10).min(TimeDelta::minutes(60));
                let product = u128::from(bot.0.cast_unsigned()) * 0x9E37_79B9_7F4A_7C15;
                let part = (product % (1 << 64)) >> 32;
                let earlier_ms = u128::from(spread.num_milliseconds().unsigned_abs()) * part / (1 << 32);
                let start = DateTime::from_timestamp_millis(window(start_at) * 60_000).expect("fits");
                (start - lead - TimeDelta::milliseconds(i64::try_from(earlier_ms).expect("fits")), *bot)
            });
            due.min()
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Insert(i64, bool, i64),
        Cancel(i64),
        HandOver,
        Observe(bool, i64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (1..60i64, any::<bool>(), 0..7_200i64).prop_map(|(id, a, s)| Step::Insert(id, a, s)),
            // Bursts: few starts, many bots.
            6 => (1..60i64, any::<bool>(), 0..4i64).prop_map(|(id, a, s)| Step::Insert(id, a, s * 600)),
            2 => (1..60i64).prop_map(Step::Cancel),
            3 => Just(Step::HandOver),
            2 => (any::<bool>(), 0..2_200i64).prop_map(|(a, s)| Step::Observe(a, s)),
        ]
    }

    proptest! {
        #[test]
        fn the_timetable_does_as_the_reference(steps in prop::collection::vec(step(), 1..150)) {
            let settings = ScheduleSettings::default();
            let (mut timetable, mut reference) = (Timetable::new(settings), Reference::default());
            let platform = |a: bool| if a { zoom() } else { Platform("google-meet".into()) };
            for step in steps {
                match step {
                    Step::Insert(id, a, seconds) => {
                        let start_at = sample::now() + TimeDelta::seconds(seconds);
                        timetable.insert(BotId(id), &platform(a), start_at);
                        reference.waiting.insert(BotId(id), (platform(a), start_at));
                    }
                    Step::Cancel(id) => {
                        timetable.cancel(BotId(id));
                        reference.waiting.remove(&BotId(id));
                    }
                    Step::HandOver => if let Some((_, bot)) = reference.next(&settings) {
                        timetable.hand_over(bot);
                        reference.gone.extend(reference.waiting.remove(&bot));
                    }
                    Step::Observe(a, seconds) => {
                        timetable.observe(&platform(a), TimeDelta::seconds(seconds));
                        if seconds <= 1_800 {
                            reference.paces.entry(platform(a)).or_default().push(TimeDelta::seconds(seconds));
                        }
                    }
                }
                // A group that is empty is forgotten, with those who left it.
                let window = |at: &DateTime<Utc>| at.timestamp_millis().div_euclid(60_000);
                let waiting = &reference.waiting;
                reference.gone.retain(|(platform, at)| {
                    waiting.values().any(|(other, other_at)| other == platform && window(other_at) == window(at))
                });
                let next = timetable.next();
                prop_assert_eq!(next, reference.next(&settings));
                if let Some((due_at, bot)) = next {
                    let (platform, start_at) = &reference.waiting[&bot];
                    let p90 = timetable.lanes[platform].pace.p90();
                    prop_assert!(due_at <= *start_at - settings.lead && due_at <= *start_at - p90);
                    prop_assert!(due_at >= *start_at - furthest(&settings, p90));
                }
                let coming = timetable.due_before(at(600));
                prop_assert_eq!(coming.values().sum::<usize>(), reference.waiting.len());
                prop_assert!(!coming.values().any(|count| *count == 0));
            }
        }
    }
}
