//! Which processes belong to a bot. Pure: the listing is an argument.
//!
//! Everything a bot starts inherits its marker and its session, but keeps only what it cares for: Chromium's helpers
//! hide their environment and stay in the session, its crash handler leaves the session and keeps the environment.

use super::procfs::{Identity, Marker, Own, Process};
use std::collections::BTreeSet;

/// The bot itself. What was recorded at its start is the bot, and when that has ended, so has the bot; where a crash
/// came before the record, the bot is the oldest that carries the marker and leads a session.
pub(super) fn bot_of(marker: Marker, recorded: Option<Identity>, all: &[Process]) -> Option<Identity> {
    match recorded {
        // Between fork and exec a process shows no environment; its identity is proof enough.
        Some(bot) => all
            .iter()
            .find(|process| process.identity == bot && process.marker.is_none_or(|theirs| theirs == marker))
            .map(|process| process.identity),
        None => all
            .iter()
            .filter(|process| process.marker == Some(marker) && process.leads_session())
            .map(|process| process.identity)
            .min(),
    }
}

/// The bot and everything that came of it. `bot` is its identity in this boot, alive or not; `own`, who asks, is spared,
/// and so is its session. A session is the bot's when it is the recorded one, or when a member carries the marker and
/// its leader does too or has ended: a marker in a terminal's session must not end the terminal.
pub(super) fn kin_of(marker: Marker, bot: Option<Identity>, own: Own, all: &[Process]) -> Vec<Identity> {
    let leader = |session: i32| all.iter().find(|process| process.identity.pid == session);
    let mut sessions: BTreeSet<i32> = all
        .iter()
        .filter(|process| process.marker == Some(marker))
        .filter_map(|process| process.session)
        .filter(|session| leader(*session).is_none_or(|leader| leader.marker == Some(marker)))
        .collect();
    if let Some(bot) = bot
        && leader(bot.pid).is_none_or(|leader| leader.identity == bot)
    {
        sessions.insert(bot.pid);
    }
    if let Some(own_session) = own.session {
        sessions.remove(&own_session);
    }
    let is_kin = |process: &&Process| {
        let by_session = process.session.is_some_and(|session| sessions.contains(&session))
            && bot.is_none_or(|bot| bot <= process.identity);
        process.marker == Some(marker) || by_session
    };
    all.iter().filter(is_kin).map(|process| process.identity).filter(|kin| kin.pid != own.pid).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use meeboter_actors::ids::{ContainerKey, Generation, SlotId};
    use uuid::Uuid;

    const OWN: Own = Own { pid: 1, session: Some(2) };

    fn marker(generation: i64) -> Marker {
        let key = ContainerKey { slot: SlotId(Uuid::from_u128(1)), generation: Generation(generation) };
        Marker { installation: Uuid::from_u128(7), key }
    }

    fn identity(pid: i32) -> Identity {
        Identity { start_time: 1000 + u64::try_from(pid).expect("positive"), pid }
    }

    fn process(pid: i32, session: i32, marker: Option<Marker>) -> Process {
        Process { identity: identity(pid), session: Some(session), marker }
    }

    #[test]
    fn helpers_are_kin_by_session_or_by_marker() {
        let ours = Some(marker(1));
        let all = [
            process(10, 10, ours),
            process(11, 10, None),
            process(12, 12, ours),
            process(13, 12, None),
            process(20, 20, Some(marker(2))),
            process(30, 30, None),
        ];
        let kin: Vec<i32> =
            kin_of(marker(1), Some(identity(10)), OWN, &all).iter().map(|kin| kin.pid).collect();
        assert_eq!(kin, [10, 11, 12, 13]);
        assert_eq!(bot_of(marker(1), None, &all), Some(identity(10)));
    }

    #[test]
    fn a_dead_bot_is_not_mistaken_for_its_crash_handler_and_its_session_is_still_its_own() {
        let all = [process(11, 10, None), process(12, 12, Some(marker(1)))];
        assert_eq!(bot_of(marker(1), Some(identity(10)), &all), None);
        assert_eq!(kin_of(marker(1), Some(identity(10)), OWN, &all).len(), 2);
    }

    #[test]
    fn a_terminal_or_a_later_process_of_the_same_number_is_spared() {
        let ours = Some(marker(1));
        let terminal = [process(40, 40, None), process(41, 40, ours), process(42, 40, None)];
        assert_eq!(kin_of(marker(1), None, OWN, &terminal), [identity(41)]);
        let reused = [process(10, 10, None), process(11, 10, None)];
        let before = Identity { start_time: 5, pid: 10 };
        assert_eq!(kin_of(marker(1), Some(before), OWN, &reused), []);
        assert_eq!(bot_of(marker(1), Some(before), &reused), None);
    }

    #[test]
    fn the_servers_own_session_is_spared() {
        let all = [process(2, 2, Some(marker(1))), process(3, 2, None)];
        assert_eq!(kin_of(marker(1), None, OWN, &all), [identity(2)]);
    }

    #[test]
    fn who_asks_is_spared_whatever_it_carries() {
        let all = [process(1, 9, Some(marker(1))), process(10, 10, Some(marker(1)))];
        assert_eq!(kin_of(marker(1), None, OWN, &all), [identity(10)]);
    }

    #[test]
    fn processes_without_a_session_are_nobodys_company() {
        let without = |pid, marker| Process { identity: identity(pid), session: None, marker };
        let all = [without(2, None), without(5, Some(marker(1))), process(10, 10, Some(marker(1)))];
        assert_eq!(kin_of(marker(1), None, Own { pid: 1, session: None }, &all), [identity(5), identity(10)]);
        assert_eq!(bot_of(marker(1), None, &all), Some(identity(10)));
    }
}
