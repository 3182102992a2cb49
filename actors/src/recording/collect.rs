//! What to do with pieces of a recording that a bot left behind. Pure: what is known of the bot is an argument.

use crate::bot::Bot;
use crate::ids::ContainerKey;
use crate::ports::Spool;
use crate::recording::Recording;
use chrono::TimeDelta;
use std::collections::BTreeSet;

/// What becomes of a spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Its bot may yet upload it, or is not at its end.
    Wait,
    /// Its pieces go to the others, and the recording is joined again.
    Deliver,
    /// Nobody can ever use it: the sentence says why.
    Discard(&'static str),
}

/// The fate of a spool. `held` are the containers that slots hold; `bot` and `recording` are as
/// stored.
pub fn fate(
    spool: &Spool,
    held: &BTreeSet<ContainerKey>,
    bot: Option<&Bot>,
    recording: Option<&Recording>,
) -> Fate {
    if held.contains(&spool.key) {
        return Fate::Wait;
    }
    let Some(bot) = bot else { return Fate::Discard("its bot is not stored any more") };
    if bot.seat.as_ref().is_none_or(|seat| seat.generation != spool.key.generation) {
        return Fate::Discard("its bot went on in another container");
    }
    match recording {
        _ if !bot.state.is_final() => Fate::Wait,
        None => Fate::Discard("its bot has no recording, or not any more"),
        Some(_) => Fate::Deliver,
    }
}

/// How long a spool that could not be delivered is left alone.
pub fn patience(failures: u32) -> TimeDelta {
    TimeDelta::seconds(15 << failures.min(6))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bot::BotState;
    use crate::ids::Generation;
    use crate::testing::sample;

    #[test]
    fn a_spool_is_delivered_when_nobody_else_can() {
        let slot = sample::busy_slot(1);
        let live = slot.bot().expect("busy").clone();
        let ended = Bot { state: BotState::Fatal, ..live.clone() };
        let spool = Spool { key: slot.container_key(), bot_id: live.id };
        let recording = Recording::open(live.id);
        let (none, held) = (BTreeSet::new(), BTreeSet::from([spool.key]));
        assert_eq!(
            fate(&spool, &held, Some(&ended), Some(&recording)),
            Fate::Wait,
            "it may be started again"
        );
        assert_eq!(
            fate(&spool, &none, Some(&live), Some(&recording)),
            Fate::Wait,
            "its slot has yet to hear"
        );
        assert_eq!(fate(&spool, &none, Some(&ended), Some(&recording)), Fate::Deliver);
        assert!(matches!(fate(&spool, &none, Some(&ended), None), Fate::Discard(_)));
        assert!(matches!(fate(&spool, &none, None, Some(&recording)), Fate::Discard(_)));
        let key = ContainerKey { generation: Generation(spool.key.generation.0 - 1), ..spool.key };
        let older = Spool { key, ..spool };
        assert!(matches!(fate(&older, &none, Some(&ended), Some(&recording)), Fate::Discard(_)));
    }

    #[test]
    fn patience_grows_and_has_an_end() {
        let seconds: Vec<i64> =
            [0, 1, 2, 6, 7, 1_000].map(|failures| patience(failures).num_seconds()).into();
        assert_eq!(seconds, [15, 30, 60, 960, 960, 960]);
    }
}
