//! The last published state of everything, numbered, so that each websocket can be given what it still lacks.
//!
//! A board behind a lock rather than an actor: publishing is one map insertion, the lock is never held across
//! anything that waits, and readers sit on other threads. Nothing is decided from it.

use crate::bot::Bot;
use crate::ids::{BotId, Platform, SlotName, UserId};
use crate::recording::Recording;
use crate::slot::{Slot, SlotState};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// Ended bots kept for those who look; older ones are in the database.
const ENDED_BOTS_MAX: usize = 200;

/// What an entry is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    /// A slot.
    Slot(SlotName),
    /// A bot.
    Bot(BotId),
    /// The line of a platform.
    Queue(Platform),
    /// The recording of a bot.
    Recording(BotId),
}

/// The state of a topic.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry {
    /// As committed.
    Slot(Arc<Slot>),
    /// As committed.
    Bot(Arc<Bot>),
    /// As it stood a moment ago.
    Queue(Arc<Front>),
    /// As committed.
    Recording(Arc<Recording>),
    /// It is gone.
    Gone,
}

/// The front of a platform's line, and how the rest of it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Front {
    /// The first of those who wait; no more than a bounded number is published.
    pub bots: Vec<BotId>,
    /// Bots that wait in all.
    pub length: usize,
    /// How long the line takes for each place, as far as was observed.
    pub wait_per_place: Duration,
}

/// Everything that changed after some number.
#[derive(Debug, Clone, PartialEq)]
pub struct Changes {
    /// The number to ask from next time.
    pub number: u64,
    /// The latest state of each topic that changed, in the order of the changes.
    pub entries: Vec<(Topic, Entry)>,
    /// Whether this is all that there was; else there is more to ask for at once.
    pub complete: bool,
}

struct Board {
    number: u64,
    entries: BTreeMap<Topic, (u64, Entry)>,
    /// The topics by the number of their last change: a reader looks only at what it lacks.
    changed: BTreeMap<u64, Topic>,
    ended: VecDeque<BotId>,
}

/// A handle to the board.
#[derive(Clone)]
pub struct Live {
    board: Arc<Mutex<Board>>,
    latest: Arc<watch::Sender<u64>>,
}

impl Default for Live {
    fn default() -> Self {
        let (entries, changed) = (BTreeMap::new(), BTreeMap::new());
        let board = Board { number: 0, entries, changed, ended: VecDeque::new() };
        Self { board: Arc::new(Mutex::new(board)), latest: Arc::new(watch::Sender::new(0)) }
    }
}

impl Live {
    /// Publishes a slot; a retired one is gone.
    pub fn slot(&self, slot: &Arc<Slot>) {
        let entry = match slot.state {
            SlotState::Retired => Entry::Gone,
            _ if slot.version == 0 => return,
            _ => Entry::Slot(Arc::clone(slot)),
        };
        self.put(Topic::Slot(slot.name.clone()), entry);
    }

    /// Publishes a bot.
    pub fn bot(&self, bot: &Bot) {
        self.put(Topic::Bot(bot.id), Entry::Bot(Arc::new(bot.clone())));
        if bot.state.is_final() {
            self.forget_oldest_ended(bot.id);
        }
    }

    /// Publishes a platform's line.
    pub fn queue(&self, platform: &Platform, front: Front) {
        self.put(Topic::Queue(platform.clone()), Entry::Queue(Arc::new(front)));
    }

    /// Publishes a recording, unless its bot ended so long ago that it is forgotten.
    pub fn recording(&self, recording: &Recording) {
        if !self.lock().entries.contains_key(&Topic::Bot(recording.bot_id)) {
            return;
        }
        self.put(Topic::Recording(recording.bot_id), Entry::Recording(Arc::new(recording.clone())));
    }

    /// What changed after `number`, from 0 everything there is: at most so many topics, those that changed first. What
    /// changes while somebody takes one part after the other comes in a later one, for it has the higher number.
    pub fn changes_after(&self, number: u64, topics_max: usize) -> Changes {
        let board = self.lock();
        let mut lacking = board.changed.range(number.saturating_add(1)..);
        let part: Vec<(&u64, &Topic)> = lacking.by_ref().take(topics_max).collect();
        let complete = lacking.next().is_none();
        let reached = part.last().map_or(number, |(reached, _)| **reached);
        let entries = part
            .into_iter()
            .filter_map(|(_, topic)| Some((topic, &board.entries.get(topic)?.1)))
            .filter(|(_, entry)| number > 0 || **entry != Entry::Gone)
            .map(|(topic, entry)| (topic.clone(), entry.clone()))
            .collect();
        Changes { number: if complete { board.number } else { reached }, entries, complete }
    }

    /// Whose bot this is, if it is on the board.
    pub fn owner_of(&self, bot: BotId) -> Option<UserId> {
        match self.lock().entries.get(&Topic::Bot(bot)) {
            Some((_, Entry::Bot(bot))) => Some(bot.user_id),
            _ => None,
        }
    }

    /// A bot's recording, if it is on the board.
    pub fn recording_of(&self, bot: BotId) -> Option<Arc<Recording>> {
        match self.lock().entries.get(&Topic::Recording(bot)) {
            Some((_, Entry::Recording(recording))) => Some(Arc::clone(recording)),
            _ => None,
        }
    }

    /// The front of a platform's line, if anybody has waited for it yet.
    pub fn front_of(&self, platform: &Platform) -> Option<Arc<Front>> {
        match self.lock().entries.get(&Topic::Queue(platform.clone())) {
            Some((_, Entry::Queue(front))) => Some(Arc::clone(front)),
            _ => None,
        }
    }

    /// Tells when there is something new: holds the latest number.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.latest.subscribe()
    }

    fn put(&self, topic: Topic, entry: Entry) {
        let number = {
            let mut board = self.lock();
            if board.entries.get(&topic).is_some_and(|(_, known)| *known == entry) {
                return;
            }
            board.number += 1;
            let number = board.number;
            board.changed.insert(number, topic.clone());
            if let Some((before, _)) = board.entries.insert(topic, (number, entry)) {
                board.changed.remove(&before);
            }
            number
        };
        self.latest.send_replace(number);
    }

    fn forget_oldest_ended(&self, bot: BotId) {
        let forgotten = {
            let mut board = self.lock();
            if !board.ended.contains(&bot) {
                board.ended.push_back(bot);
            }
            (board.ended.len() > ENDED_BOTS_MAX).then(|| board.ended.pop_front()).flatten()
        };
        if let Some(bot) = forgotten {
            let mut board = self.lock();
            for topic in [Topic::Bot(bot), Topic::Recording(bot)] {
                if let Some((number, _)) = board.entries.remove(&topic) {
                    board.changed.remove(&number);
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::RecordingState;
    use crate::testing::sample;

    const ALL: usize = usize::MAX;

    #[test]
    fn a_late_reader_gets_the_latest_state_of_what_changed() {
        let live = Live::default();
        let mut bot = sample::bot(1);
        live.bot(&bot);
        let seen = live.changes_after(0, ALL).number;
        for seq in 1..=50 {
            bot.report_seq = seq;
            live.bot(&bot);
        }
        live.queue(&Platform("zoom".into()), Front::default());
        let changes = live.changes_after(seen, ALL);
        assert_eq!(changes.entries.len(), 2);
        assert_eq!(changes.entries[0].1, Entry::Bot(Arc::new(bot.clone())));
        live.bot(&bot);
        assert_eq!(live.changes_after(changes.number, ALL).entries, []);
    }

    #[test]
    fn much_is_taken_in_parts_and_what_changes_meanwhile_comes_later() {
        let live = Live::default();
        let publish = |id, report_seq| live.bot(&Bot { report_seq, ..sample::bot(id) });
        (0..25).for_each(|id| publish(id, 0));
        let ids = |changes: &Changes| -> Vec<i64> {
            let id = |entry: &(Topic, Entry)| match &entry.1 {
                Entry::Bot(bot) => bot.id.0,
                other => panic!("{other:?}"),
            };
            changes.entries.iter().map(id).collect()
        };
        let first = live.changes_after(0, 10);
        assert_eq!((ids(&first), first.complete), ((0..10).collect(), false));
        // One that was told, and one that was not yet.
        publish(3, 1);
        publish(12, 1);
        let second = live.changes_after(first.number, 10);
        assert_eq!((ids(&second), second.complete), ((10..21).filter(|id| *id != 12).collect(), false));
        let third = live.changes_after(second.number, 6);
        assert_eq!((ids(&third), third.complete), (vec![21, 22, 23, 24, 3, 12], true));
        assert_eq!(third.number, live.changes_after(0, ALL).number);
        let rest = live.changes_after(third.number, 6);
        assert_eq!((rest.number, ids(&rest), rest.complete), (third.number, vec![], true));
    }

    #[test]
    fn ended_bots_are_bounded() {
        let live = Live::default();
        for id in 0..300 {
            let mut bot = sample::bot(id);
            bot.state = crate::bot::BotState::Done;
            live.bot(&bot);
        }
        assert_eq!(live.changes_after(0, ALL).entries.len(), ENDED_BOTS_MAX);
        // What is said of them later on would never be forgotten.
        let recording = |id| Recording {
            bot_id: BotId(id),
            state: RecordingState::Open,
            segments: 1,
            attempts: 1,
            version: 1,
        };
        live.recording(&recording(1));
        live.recording(&recording(299));
        assert_eq!(live.changes_after(0, ALL).entries.len(), ENDED_BOTS_MAX + 1);
    }
}
