//! The description of an application: what people read in Coolify, and at its end which container it is about. That end
//! is how a server that starts anew finds its containers: values of an environment cannot be read back. Pure.

use chrono::{DateTime, Utc};
use meeboter_actors::ids::{BotId, ContainerKey, Generation, SlotId};
use uuid::Uuid;

/// Longest description, in characters: the column holds no more, and Coolify answers 500 where one is longer.
const CHARS_MAX: usize = 255;
/// Between the text and the key.
const SEPARATOR: &str = " · ";

/// What people should read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Shown {
    /// A bot is on its way into it.
    Deploying(BotId),
    /// A bot is in it.
    Busy(BotId, DateTime<Utc>),
    /// It waits for its next bot.
    Idle(DateTime<Utc>),
    /// Something went wrong.
    Error(String, DateTime<Utc>),
    /// It is there to hold an image.
    Parked(String),
}

/// The description that says so, with the container that it is about.
pub(super) fn text(shown: &Shown, key: Option<ContainerKey>) -> String {
    let time = |at: &DateTime<Utc>| at.format("%Y-%m-%d %H:%M:%S UTC");
    let (words, end) = match shown {
        Shown::Deploying(bot) => (format!("[DEPLOYING] Bot #{bot} - Starting container…"), String::new()),
        Shown::Busy(bot, at) => (format!("[BUSY] Bot #{bot} - {}", time(at)), String::new()),
        Shown::Idle(at) => (format!("[IDLE] Available - Last used: {}", time(at)), String::new()),
        Shown::Error(reason, at) => (format!("[ERROR] {reason}"), format!(" - {}", time(at))),
        Shown::Parked(image) => (format!("Keeps {image} on the server"), String::new()),
    };
    let key = key.map(|ContainerKey { slot, generation }| format!("{SEPARATOR}{slot}/{generation}"));
    let end = end + &key.unwrap_or_default();
    let room = CHARS_MAX.saturating_sub(end.chars().count());
    cut(&plain(&words), room) + &end
}

/// The container that a description is about.
pub(super) fn key_of(description: &str) -> Option<ContainerKey> {
    let (_, key) = description.rsplit_once(SEPARATOR)?;
    let (slot, generation) = key.trim().split_once('/')?;
    let generation = Generation(generation.parse().ok()?);
    Some(ContainerKey { slot: SlotId(Uuid::parse_str(slot).ok()?), generation })
}

/// Whether a description says that a bot is there, or on its way.
pub(super) fn tells_of_a_bot(description: &str) -> bool {
    ["[DEPLOYING]", "[BUSY]"].iter().any(|word| description.starts_with(word))
}

/// Coolify takes whatever looks like a tag away, and spaces at the ends.
fn plain(text: &str) -> String {
    let letters = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter });
    letters.filter(|letter| !['<', '>'].contains(letter)).collect::<String>().trim().to_owned()
}

fn cut(text: &str, room: usize) -> String {
    if text.chars().count() <= room {
        return text.to_owned();
    }
    let kept: String = text.chars().take(room.saturating_sub(1)).collect();
    kept.trim_end().to_owned() + "…"
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn noon() -> DateTime<Utc> {
        "2026-01-02T12:00:00Z".parse().expect("a time")
    }

    fn key() -> ContainerKey {
        ContainerKey { slot: SlotId(Uuid::from_u128(7)), generation: Generation(3) }
    }

    #[test]
    fn people_read_what_the_slot_does() {
        let shown = |shown| text(&shown, None);
        assert_eq!(shown(Shown::Deploying(BotId(123))), "[DEPLOYING] Bot #123 - Starting container…");
        assert_eq!(shown(Shown::Busy(BotId(456), noon())), "[BUSY] Bot #456 - 2026-01-02 12:00:00 UTC");
        assert_eq!(shown(Shown::Idle(noon())), "[IDLE] Available - Last used: 2026-01-02 12:00:00 UTC");
        let error = Shown::Error("no <b>room</b>".to_owned(), noon());
        assert_eq!(shown(error), "[ERROR] no broom/b - 2026-01-02 12:00:00 UTC");
    }

    #[test]
    fn the_container_is_found_again() {
        let description = text(&Shown::Busy(BotId(1), noon()), Some(key()));
        assert_eq!(key_of(&description), Some(key()));
        assert!(tells_of_a_bot(&description));
        for foreign in ["", "my own words", "a · b", "a · 7/x", "x · 00000000-0000-0000-0000-000000000007/"]
        {
            assert_eq!(key_of(foreign), None, "{foreign}");
        }
        assert!(!tells_of_a_bot(&text(&Shown::Idle(noon()), None)));
    }

    proptest! {
        /// Whatever the engine's words are, the description fits, holds no tag, and says which container it is.
        #[test]
        fn any_reason_fits(reason in "\\PC{0,400}", generation in 0..i64::MAX) {
            let key = ContainerKey { generation: Generation(generation), ..key() };
            let description = text(&Shown::Error(reason, noon()), Some(key));
            prop_assert!(description.chars().count() <= CHARS_MAX);
            prop_assert!(!description.contains(['<', '>']));
            prop_assert_eq!(description.trim(), &description);
            prop_assert_eq!(key_of(&description), Some(key));
        }
    }
}
