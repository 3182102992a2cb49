//! The order against a plain reference: a list that is sorted and searched from end to end.

use super::QueueEntry;
use super::order::{Lines, Place};
use crate::bot::{Bot, BotSpec};
use crate::ids::{BotId, Platform, UserId};
use crate::testing::sample;
use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const PRIORITIES: [i16; 3] = [10, 100, 200];

fn zoom() -> Platform {
    Platform("zoom".into())
}

/// What can happen to a line. A number picks one of those who wait.
#[derive(Debug, Clone)]
enum Op {
    Join {
        user: i64,
        priority: i16,
    },
    /// A slot gives a bot back.
    Return {
        user: i64,
        priority: i16,
    },
    Free(usize),
    Hold(usize),
    /// A slot takes the first that is free.
    Serve,
    Leave(usize),
    Reprioritise(usize, i16),
    /// A move that the store refuses.
    TryReprioritise(usize, i16),
    Restart,
}

fn op() -> impl Strategy<Value = Op> {
    let priority = || prop::sample::select(PRIORITIES.as_slice());
    prop_oneof![
        6 => (1i64..=4, priority()).prop_map(|(user, priority)| Op::Join { user, priority }),
        1 => (1i64..=4, priority()).prop_map(|(user, priority)| Op::Return { user, priority }),
        6 => any::<usize>().prop_map(Op::Free),
        1 => any::<usize>().prop_map(Op::Hold),
        4 => Just(Op::Serve),
        1 => any::<usize>().prop_map(Op::Leave),
        2 => (any::<usize>(), priority()).prop_map(|(who, priority)| Op::Reprioritise(who, priority)),
        1 => (any::<usize>(), priority()).prop_map(|(who, priority)| Op::TryReprioritise(who, priority)),
        1 => Just(Op::Restart),
    ]
}

/// A line as a list.
#[derive(Debug, Default)]
struct Model {
    entries: Vec<QueueEntry>,
    free: BTreeSet<BotId>,
    /// By priority, while somebody waits: the turn being served, and who was served in it.
    served: BTreeMap<i16, (i64, BTreeSet<UserId>)>,
    bots: i64,
    arrivals: i64,
}

impl Model {
    fn pick(&self, number: usize) -> Option<BotId> {
        (!self.entries.is_empty()).then(|| self.entries[number % self.entries.len()].bot_id)
    }

    fn next_turn(&self, priority: i16, user: UserId) -> i64 {
        let (turn, served) = self.served.get(&priority).cloned().unwrap_or_default();
        let own = self.entries.iter().filter(|entry| entry.priority == priority && entry.user_id == user);
        let after_own = own.map(|entry| entry.turn + 1).max().unwrap_or(0);
        after_own.max(if served.contains(&user) { turn + 1 } else { turn })
    }

    fn join(&mut self, user: UserId, priority: i16) -> QueueEntry {
        self.bots += 1;
        self.arrivals += 1;
        let turn = self.next_turn(priority, user);
        let entry =
            QueueEntry { priority, turn, arrival: self.arrivals, ..sample::queue_entry(self.bots, user.0) };
        let entry = QueueEntry { queued_at: at(self.bots * 7 % 50), ..entry };
        self.entries.push(entry.clone());
        self.served.entry(priority).or_default();
        entry
    }

    fn take_back(&mut self, user: UserId, priority: i16) -> QueueEntry {
        self.bots += 1;
        let spec = BotSpec { priority, ..sample::spec() }.into();
        let bot = Bot { id: BotId(self.bots), user_id: user, spec, ..sample::bot(0) };
        let entry = QueueEntry::returned(&bot);
        self.put(entry.clone());
        entry
    }

    fn leave(&mut self, bot: BotId) -> QueueEntry {
        let index = self.entries.iter().position(|entry| entry.bot_id == bot).expect("waits");
        self.free.remove(&bot);
        let entry = self.entries.remove(index);
        if self.entries.iter().all(|other| other.priority != entry.priority) {
            self.served.remove(&entry.priority);
        }
        entry
    }

    fn serve(&mut self, bot: BotId) {
        let entry = self.leave(bot);
        if let Some((turn, served)) = self.served.get_mut(&entry.priority) {
            if entry.turn > *turn {
                (*turn, *served) = (entry.turn, BTreeSet::new());
            }
            if entry.turn == *turn {
                served.insert(entry.user_id);
            }
        }
    }

    fn reprioritise(&mut self, bot: BotId, priority: i16) -> (QueueEntry, QueueEntry) {
        let before = self.leave(bot);
        let turn = self.next_turn(priority, before.user_id);
        let after = QueueEntry { priority, turn, ..before.clone() };
        self.put(after.clone());
        (before, after)
    }

    fn put(&mut self, entry: QueueEntry) {
        self.served.entry(entry.priority).or_default();
        self.entries.push(entry);
    }

    fn restart(&mut self) {
        self.served.clear();
        self.arrivals = self.entries.iter().map(|entry| entry.arrival).max().unwrap_or(0).max(0);
        for entry in self.entries.iter().filter(|entry| !entry.is_returned()) {
            let served = self.served.entry(entry.priority).or_insert((entry.turn, BTreeSet::new()));
            served.0 = served.0.min(entry.turn);
        }
        for entry in &self.entries {
            self.served.entry(entry.priority).or_default();
            self.free.insert(entry.bot_id);
        }
    }

    fn sorted(&self) -> Vec<QueueEntry> {
        let mut sorted = self.entries.clone();
        sorted.sort_by_key(QueueEntry::place);
        sorted
    }

    fn first_free(&self) -> Option<BotId> {
        self.sorted().into_iter().map(|entry| entry.bot_id).find(|bot| self.free.contains(bot))
    }
}

fn at(seconds: i64) -> DateTime<Utc> {
    sample::now() + TimeDelta::seconds(seconds)
}

fn join(lines: &mut Lines, entry: &QueueEntry) -> Place {
    let place = lines.next_place(&entry.platform, entry.priority, entry.user_id);
    lines.insert(QueueEntry { turn: place.1, arrival: place.2, ..entry.clone() });
    place
}

fn restarted(lines: &Lines) -> Lines {
    let mut stored: Vec<_> =
        lines.all().flat_map(|(_, line)| line.entries()).cloned().collect::<Vec<QueueEntry>>();
    // As the store may have them.
    stored.sort_by_key(|entry| entry.bot_id.0 % 5);
    let mut restored = Lines::default();
    restored.restore(stored);
    restored
}

fn step(lines: &mut Lines, model: &mut Model, op: &Op) -> Result<(), TestCaseError> {
    match *op {
        Op::Join { user, priority } => {
            let entry = model.join(UserId(user), priority);
            prop_assert_eq!(join(lines, &entry), entry.place());
        }
        Op::Return { user, priority } => lines.insert(model.take_back(UserId(user), priority)),
        Op::Free(number) => {
            if let Some(bot) = model.pick(number) {
                lines.free(bot);
                model.free.insert(bot);
            }
        }
        Op::Hold(number) => {
            if let Some(bot) = model.pick(number) {
                lines.hold(bot);
                model.free.remove(&bot);
            }
        }
        Op::Serve => {
            if let Some(bot) = model.first_free() {
                prop_assert_eq!(lines.serve(bot).map(|entry| entry.bot_id), Some(bot));
                model.serve(bot);
            }
        }
        Op::Leave(number) => {
            if let Some(bot) = model.pick(number) {
                prop_assert_eq!(lines.remove(bot), Some(model.leave(bot)));
            }
        }
        Op::Reprioritise(number, priority) => {
            if let Some(bot) = model.pick(number) {
                prop_assert_eq!(lines.reprioritise(bot, priority), Some(model.reprioritise(bot, priority)));
            }
        }
        Op::TryReprioritise(number, priority) => {
            if let Some((before, after)) =
                model.pick(number).and_then(|bot| lines.reprioritise(bot, priority))
            {
                prop_assert_eq!(model.reprioritise(before.bot_id, priority), (before.clone(), after));
                lines.remove(before.bot_id);
                lines.insert(before.clone());
                model.leave(before.bot_id);
                model.put(before);
            }
        }
        Op::Restart => {
            *lines = restarted(lines);
            model.restart();
        }
    }
    Ok(())
}

fn compare(lines: &Lines, model: &Model) -> Result<(), TestCaseError> {
    let sorted = model.sorted();
    let Some(line) = lines.of(&zoom()) else {
        prop_assert!(sorted.is_empty());
        return Ok(());
    };
    prop_assert_eq!(line.entries().cloned().collect::<Vec<_>>(), sorted.clone());
    prop_assert_eq!(line.length(), sorted.len());
    for (entry, position) in sorted.iter().zip(1..) {
        prop_assert_eq!(lines.position(entry.bot_id), Some(position));
        prop_assert_eq!(lines.get(entry.bot_id), Some(entry));
    }
    prop_assert_eq!(line.first_free().map(|entry| entry.bot_id), model.first_free());
    prop_assert_eq!(line.oldest_queued_at(), sorted.iter().map(|entry| entry.queued_at).min());
    let waited: i64 = sorted.iter().map(|entry| (at(60) - entry.queued_at).num_milliseconds()).sum();
    prop_assert_eq!(line.waited_ms(at(60)), waited);
    Ok(())
}

/// How often each user was served since each other one that waits was.
#[derive(Default)]
struct Fairness(BTreeMap<(UserId, UserId), u32>);

impl Fairness {
    /// Of two users of one priority who both wait, neither is served a third time before the other is once.
    fn served(&mut self, lines: &Lines, served: &QueueEntry) -> Result<(), TestCaseError> {
        let line = lines.of(&served.platform);
        let waiting: BTreeSet<UserId> = line
            .into_iter()
            .flat_map(|line| line.entries())
            .filter(|entry| entry.priority == served.priority)
            .map(|entry| entry.user_id)
            .collect();
        self.0.retain(|(_, other), _| *other != served.user_id && waiting.contains(other));
        for other in waiting.into_iter().filter(|other| *other != served.user_id) {
            let times = self.0.entry((served.user_id, other)).or_default();
            *times += 1;
            prop_assert!(*times <= 2, "user {} was served {times} times before {other}", served.user_id);
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_line_is_what_a_sorted_list_is(ops in prop::collection::vec(op(), 0..120)) {
        let (mut lines, mut model) = (Lines::default(), Model::default());
        for op in ops {
            step(&mut lines, &mut model, &op)?;
            compare(&lines, &model)?;
        }
    }

    /// Users come and come again, also right after they were served; nobody cancels.
    #[test]
    fn users_are_served_in_turns(joins in prop::collection::vec((1i64..=4, 0u8..3), 1..200)) {
        let (mut lines, mut fairness, mut bots) = (Lines::default(), Fairness::default(), 0);
        for (user, serves) in joins {
            bots += 1;
            join(&mut lines, &sample::queue_entry(bots, user));
            lines.free(BotId(bots));
            for _ in 0..serves {
                let first = lines.of(&zoom()).and_then(|line| line.first_free()).map(|entry| entry.bot_id);
                if let Some(entry) = first.and_then(|bot| lines.serve(bot)) {
                    fairness.served(&lines, &entry)?;
                }
            }
        }
    }
}

fn line_of(entries: &[(i64, i64, i16)]) -> Lines {
    let mut lines = Lines::default();
    for (bot, user, priority) in entries {
        join(&mut lines, &QueueEntry { priority: *priority, ..sample::queue_entry(*bot, *user) });
        lines.free(BotId(*bot));
    }
    lines
}

fn order(lines: &Lines) -> Vec<i64> {
    lines.of(&zoom()).into_iter().flat_map(|line| line.entries()).map(|entry| entry.bot_id.0).collect()
}

#[test]
fn priority_then_users_in_turn_then_age() {
    let lines = line_of(&[(1, 1, 100), (2, 1, 100), (3, 1, 100), (4, 2, 100), (5, 3, 200), (6, 4, 10)]);
    assert_eq!(order(&lines), [6, 1, 4, 2, 3, 5]);
    assert_eq!(lines.position(BotId(2)), Some(4));
}

#[test]
fn a_newcomer_does_not_overtake_the_turn_being_served() {
    let mut lines = line_of(&[(1, 1, 100), (2, 1, 100), (3, 1, 100), (4, 1, 100)]);
    for bot in 1..=3 {
        lines.serve(BotId(bot));
    }
    join(&mut lines, &sample::queue_entry(5, 2));
    join(&mut lines, &sample::queue_entry(6, 2));
    assert_eq!(order(&lines), [5, 4, 6]);
}

#[test]
fn who_comes_again_at_once_does_not_keep_others_waiting() {
    let mut lines = line_of(&[(1, 1, 100), (2, 2, 100), (3, 2, 100)]);
    lines.serve(BotId(1));
    join(&mut lines, &sample::queue_entry(4, 1));
    lines.serve(BotId(2));
    assert_eq!(order(&lines), [3, 4]);
}

#[test]
fn a_bot_of_another_priority_keeps_its_age() {
    let mut lines = line_of(&[(1, 1, 200), (2, 2, 100), (3, 2, 100), (4, 1, 100)]);
    let moved = lines.reprioritise(BotId(1), 100).map(|(_, after)| after.place());
    assert_eq!(moved, Some((100, 1, 1)));
    assert_eq!(order(&lines), [2, 4, 1, 3]);
    assert_eq!(
        lines.of(&zoom()).and_then(|line| line.first_free()).map(|entry| entry.bot_id),
        Some(BotId(2))
    );
}
