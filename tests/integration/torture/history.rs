//! What clients and observers of the torture were told, and whether it is true. Pure: [`complaints`] compares the
//! history with what is stored at the end, and names everything that cannot be.

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Slots that are free at the same moment are offered to as many bots in one turn of the actors; which of these slots
/// then decides first is up to nobody, and no bot waits for it. Seen: 40 µs.
const ONE_TURN: TimeDelta = TimeDelta::milliseconds(5);

/// Something that happened, as one line of the history.
#[derive(Debug, Clone, Serialize)]
pub(super) enum Entry {
    /// A client was told that its bot is made.
    Created { key: String, bot: i64, begun: DateTime<Utc>, acknowledged: DateTime<Utc> },
    /// A client was told that its bot has ended.
    Ended { bot: i64, begun: DateTime<Utc>, acknowledged: DateTime<Utc> },
    /// A client was told how its bot is.
    Read { bot: i64, state: String, begun: DateTime<Utc> },
    /// An operator was told which bot is in a slot.
    Seen { slot: String, generation: i64, bot: i64 },
    /// An answer that nobody should ever get.
    Strange { what: String },
    /// What befell the servers.
    Struck { round: u32, what: String, at: DateTime<Utc> },
}

/// What is stored when everything is over.
#[derive(Debug, Default, Serialize)]
pub(super) struct Stored {
    pub(super) bots: BTreeMap<i64, StoredBot>,
    /// Which bot an Idempotency-Key has made.
    pub(super) keys: BTreeMap<String, i64>,
}

/// A bot's row, and its history.
#[derive(Debug, Clone, Serialize)]
pub(super) struct StoredBot {
    pub(super) state: String,
    pub(super) seat: Option<(String, i64)>,
    /// How it was first given a slot.
    pub(super) granted: Option<Grant>,
}

/// When a bot was given a slot, and in which of the commits, counted up by PostgreSQL.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Grant {
    pub(super) at: DateTime<Utc>,
    pub(super) commit: i64,
}

/// Everything that cannot be, one sentence each.
pub(super) fn complaints(history: &[Entry], stored: &Stored) -> Vec<String> {
    let mut complaints = Vec::new();
    let strange = history.iter().filter_map(|entry| match entry {
        Entry::Strange { what } => Some(what.clone()),
        _ => None,
    });
    complaints.extend(strange);
    complaints.extend(lost(history, stored));
    complaints.extend(assigned_twice(history, stored));
    complaints.extend(out_of_order(history, stored));
    complaints
}

/// What was acknowledged and is not so; what is there although nobody was told of it.
fn lost(history: &[Entry], stored: &Stored) -> Vec<String> {
    let mut complaints = Vec::new();
    let (mut made, mut ended) = (BTreeMap::<&str, i64>::new(), BTreeMap::<i64, DateTime<Utc>>::new());
    for entry in history {
        match entry {
            Entry::Created { key, bot, .. } => {
                let first = *made.entry(key).or_insert(*bot);
                if first != *bot {
                    complaints.push(format!("key {key} made bot {first} and bot {bot}"));
                }
                if stored.keys.get(key) != Some(bot) || !stored.bots.contains_key(bot) {
                    complaints.push(format!("bot {bot} of key {key} was acknowledged, and is lost"));
                }
            }
            Entry::Ended { bot, acknowledged, .. } => {
                let at = ended.entry(*bot).or_insert(*acknowledged);
                *at = (*at).min(*acknowledged);
                if !stored.bots.get(bot).is_some_and(|stored| is_final(&stored.state)) {
                    complaints.push(format!("the end of bot {bot} was acknowledged, and is lost"));
                }
            }
            _ => {}
        }
    }
    for entry in history {
        if let Entry::Read { bot, state, begun } = entry
            && ended.get(bot).is_some_and(|at| at < begun)
            && !is_final(state)
        {
            complaints.push(format!("bot {bot} had ended, and later was {state}"));
        }
    }
    let acknowledged: BTreeSet<i64> = made.into_values().collect();
    let unknown = stored.bots.keys().filter(|bot| !acknowledged.contains(bot));
    complaints.extend(unknown.map(|bot| format!("bot {bot} is there, and nobody was told of it")));
    complaints
}

/// A generation of a slot that more than one bot had.
fn assigned_twice(history: &[Entry], stored: &Stored) -> Vec<String> {
    let seen = history.iter().filter_map(|entry| match entry {
        Entry::Seen { slot, generation, bot } => Some((slot.as_str(), *generation, *bot)),
        _ => None,
    });
    let seated = stored.bots.iter().filter_map(|(bot, row)| {
        row.seat.as_ref().map(|(slot, generation)| (slot.as_str(), *generation, *bot))
    });
    let mut holders = BTreeMap::<(&str, i64), BTreeSet<i64>>::new();
    for (slot, generation, bot) in seen.chain(seated) {
        holders.entry((slot, generation)).or_default().insert(bot);
    }
    let twice = holders.into_iter().filter(|(_, bots)| bots.len() > 1);
    twice
        .map(|((slot, generation), bots)| format!("generation {generation} of {slot} was given to {bots:?}"))
        .collect()
}

/// A bot's place in the line.
struct Place {
    bot: i64,
    begun: DateTime<Utc>,
    acknowledged: DateTime<Utc>,
    granted: Option<Grant>,
    /// When its client began to end it.
    gave_up: DateTime<Utc>,
}

/// Bots that were given a slot before one that stood before them, in an earlier commit and an earlier turn: all are one
/// user's, of one priority.
fn out_of_order(history: &[Entry], stored: &Stored) -> Vec<String> {
    let places = places(history, stored);
    let mut complaints = Vec::new();
    for later in &places {
        let Some(grant) = later.granted else { continue };
        let passed = places.iter().filter(|place| {
            let stood_before = place.acknowledged < later.begun && place.gave_up > grant.at;
            let is_after = |before: Grant| before.commit > grant.commit && before.at - grant.at > ONE_TURN;
            stood_before && place.granted.is_none_or(is_after)
        });
        complaints.extend(passed.map(|place| {
            let (before, after) = (place.bot, later.bot);
            format!("bot {before} was made before bot {after} was asked for, and was given a slot after it, or never")
        }));
    }
    complaints
}

fn places(history: &[Entry], stored: &Stored) -> Vec<Place> {
    let mut places = BTreeMap::<i64, Place>::new();
    for entry in history {
        let Entry::Created { bot, begun, acknowledged, .. } = entry else { continue };
        let place = places.entry(*bot).or_insert(Place {
            bot: *bot,
            begun: *begun,
            acknowledged: *acknowledged,
            granted: stored.bots.get(bot).and_then(|row| row.granted),
            gave_up: DateTime::<Utc>::MAX_UTC,
        });
        place.begun = place.begun.min(*begun);
        place.acknowledged = place.acknowledged.min(*acknowledged);
    }
    for entry in history {
        if let Entry::Ended { bot, begun, .. } = entry
            && let Some(place) = places.get_mut(bot)
        {
            place.gave_up = place.gave_up.min(*begun);
        }
    }
    places.into_values().collect()
}

fn is_final(state: &str) -> bool {
    matches!(state, "DONE" | "FATAL")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_700_000_000 + second, 0).unwrap()
    }

    fn created(bot: i64, begun: i64) -> Entry {
        Entry::Created { key: format!("key-{bot}"), bot, begun: at(begun), acknowledged: at(begun + 1) }
    }

    fn ended(bot: i64, begun: i64) -> Entry {
        Entry::Ended { bot, begun: at(begun), acknowledged: at(begun + 1) }
    }

    fn row(state: &str, generation: i64, granted: Option<i64>) -> StoredBot {
        StoredBot {
            state: state.to_owned(),
            seat: granted.map(|_| ("pool-zoom-001".to_owned(), generation)),
            granted: granted.map(|second| Grant { at: at(second), commit: second }),
        }
    }

    fn stored(rows: &[(i64, StoredBot)]) -> Stored {
        Stored {
            bots: rows.iter().cloned().collect(),
            keys: rows.iter().map(|(bot, _)| (format!("key-{bot}"), *bot)).collect(),
        }
    }

    /// Two bots, one after the other, in one slot.
    fn good() -> (Vec<Entry>, Stored) {
        let history = vec![created(1, 0), created(2, 10), ended(1, 20), ended(2, 40)];
        (history, stored(&[(1, row("FATAL", 1, Some(2))), (2, row("DONE", 2, Some(22)))]))
    }

    #[test]
    fn what_is_right_is_not_complained_of() {
        let (mut history, stored) = good();
        assert_eq!(complaints(&history, &stored), Vec::<String>::new());
        // One that gave up before the next one was served is no inversion, nor are two that were asked for side by side.
        history[0] = created(1, 9);
        let mut other = stored;
        other.bots.insert(1, row("DONE", 0, None));
        assert_eq!(complaints(&history, &other), Vec::<String>::new());
        // Nor are two that were given a slot in one commit, or in one turn.
        history[0] = created(1, 0);
        history[2] = ended(1, 30);
        let granted = Some(Grant { at: at(23), commit: 22 });
        other.bots.insert(1, StoredBot { granted, ..row("FATAL", 1, Some(22)) });
        assert_eq!(complaints(&history, &other), Vec::<String>::new());
        let granted = Some(Grant { at: at(22) + ONE_TURN, commit: 23 });
        other.bots.insert(1, StoredBot { granted, ..row("FATAL", 1, Some(22)) });
        assert_eq!(complaints(&history, &other), Vec::<String>::new());
    }

    #[test]
    fn each_wrong_is_named() {
        let wrong = |change: &dyn Fn(&mut Vec<Entry>, &mut Stored), wanted: &str| {
            let (mut history, mut stored) = good();
            change(&mut history, &mut stored);
            let found = complaints(&history, &stored);
            assert!(found.iter().any(|found| found.contains(wanted)), "{wanted:?} is not in {found:?}");
        };
        wrong(&|_, stored| drop(stored.bots.remove(&2)), "bot 2 of key key-2 was acknowledged, and is lost");
        wrong(
            &|_, stored| stored.keys.retain(|key, _| key != "key-2"),
            "bot 2 of key key-2 was acknowledged, and is lost",
        );
        wrong(
            &|history, _| {
                history.push(Entry::Created {
                    key: "key-1".into(),
                    bot: 2,
                    begun: at(0),
                    acknowledged: at(1),
                })
            },
            "key key-1 made bot 1 and bot 2",
        );
        wrong(
            &|_, stored| drop(stored.bots.insert(2, row("IN_CALL", 2, Some(22)))),
            "the end of bot 2 was acknowledged, and is lost",
        );
        wrong(
            &|history, _| history.push(Entry::Read { bot: 1, state: "IN_CALL".into(), begun: at(30) }),
            "bot 1 had ended, and later was IN_CALL",
        );
        wrong(&|history, _| drop(history.remove(0)), "bot 1 is there, and nobody was told of it");
        wrong(
            &|_, stored| drop(stored.bots.insert(2, row("DONE", 1, Some(22)))),
            "generation 1 of pool-zoom-001 was given to {1, 2}",
        );
        wrong(
            &|history, _| history.push(Entry::Seen { slot: "pool-zoom-001".into(), generation: 2, bot: 1 }),
            "generation 2 of pool-zoom-001 was given to {1, 2}",
        );
        wrong(
            &|history, stored| {
                stored.bots.insert(1, row("FATAL", 1, Some(23)));
                history[2] = ended(1, 30);
            },
            "bot 1 was made before bot 2 was asked for",
        );
        wrong(
            &|history, stored| {
                stored.bots.insert(1, row("DONE", 1, None));
                history[2] = ended(1, 30);
            },
            "bot 1 was made before bot 2 was asked for",
        );
        wrong(&|history, _| history.push(Entry::Strange { what: "418".into() }), "418");
    }
}
