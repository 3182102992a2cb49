//! What Coolify's words for the state of an application are worth. Pure.
//!
//! A status is `<state>:<health>`, older versions say `<state> (<health>)`. It is as old as the last look that Coolify
//! took, a minute and more, and says nothing of deployments. What this server itself did and saw the end of comes first;
//! where both disagree, the container is asked for directly.

use std::time::{Duration, Instant};

/// What a status says of the application's containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// Something of it is there and runs, is about to, or is held.
    Alive,
    /// Its program ended, and Docker starts it again.
    Restarting,
    /// Nothing of it runs.
    Exited,
    /// No word that is known.
    Unclear,
}

/// Reads a status.
pub(super) fn read(status: &str) -> Reading {
    let state = status.split([':', ' ']).next().unwrap_or_default();
    match state.to_ascii_lowercase().as_str() {
        "running" | "starting" | "degraded" | "paused" => Reading::Alive,
        "restarting" => Reading::Restarting,
        "exited" => Reading::Exited,
        _ => Reading::Unclear,
    }
}

/// What this server knows it did to an application, and when it knew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deed {
    /// Nothing yet, or nothing that it remembers; its description says that a bot was in it.
    Inherited {
        /// A bot was being brought there or was there when the description was written.
        with_bot: bool,
    },
    /// A deployment was asked for, and its end is not known.
    Deploying,
    /// A deployment has ended well.
    Running(Instant),
    /// It was stopped, and known gone.
    Stopped(Instant),
}

/// What to make of it all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It runs, as far as anybody can know.
    Running,
    /// Nothing of it is there.
    Gone,
    /// Its program ended once, and another one was started in its place.
    Restarted,
    /// Said to be restarted, by a word that may be about the container before this one. Something is there in any case; the
    /// container itself has to be asked for whether it is the bot.
    Doubted,
    /// The status alone says that it is gone: the container itself has to be asked for.
    Ask,
}

/// Weighs a status that was read at a time against what is known. `lag` is how old Coolify's word may be.
pub(super) fn weigh(deed: Deed, reading: Reading, read_at: Instant, lag: Duration) -> Verdict {
    let is_settled = |since: Instant| read_at.saturating_duration_since(since) >= lag;
    match (deed, reading) {
        (Deed::Deploying, Reading::Restarting) => Verdict::Ask,
        (Deed::Running(since), Reading::Restarting) if !is_settled(since) => Verdict::Doubted,
        (Deed::Running(_), Reading::Restarting) => Verdict::Restarted,
        (Deed::Inherited { with_bot: true }, Reading::Restarting) => Verdict::Restarted,
        (Deed::Running(_), Reading::Alive | Reading::Unclear) => Verdict::Running,
        // A status from before the deployment.
        (Deed::Running(since), Reading::Exited) if !is_settled(since) => Verdict::Running,
        (Deed::Running(_), Reading::Exited) => Verdict::Ask,
        // A status from before the stop; later, somebody started it by hand.
        (Deed::Stopped(since), _) if !is_settled(since) => Verdict::Gone,
        (Deed::Stopped(_), Reading::Exited | Reading::Unclear) => Verdict::Gone,
        (Deed::Stopped(_), Reading::Alive | Reading::Restarting) => Verdict::Running,
        // Nobody knows yet whether the old container or the new one is meant.
        (Deed::Deploying, _) => Verdict::Ask,
        (Deed::Inherited { with_bot: true }, Reading::Exited) => Verdict::Ask,
        (Deed::Inherited { with_bot: false }, Reading::Exited) => Verdict::Gone,
        (Deed::Inherited { .. }, _) => Verdict::Running,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_are_read_and_health_does_not_matter() {
        for (status, reading) in [
            ("running:healthy", Reading::Alive),
            ("running:unhealthy", Reading::Alive),
            ("running (healthy)", Reading::Alive),
            ("starting:unknown", Reading::Alive),
            ("degraded:unhealthy", Reading::Alive),
            ("paused:unknown", Reading::Alive),
            ("restarting:unknown", Reading::Restarting),
            ("exited:unhealthy", Reading::Exited),
            ("exited", Reading::Exited),
            ("", Reading::Unclear),
            ("on fire:unknown", Reading::Unclear),
        ] {
            assert_eq!(read(status), reading, "{status}");
        }
    }

    #[test]
    fn an_old_word_never_overrules_what_was_just_seen() {
        let lag = Duration::from_secs(150);
        let since = Instant::now();
        let (soon, late) = (since + Duration::from_secs(149), since + lag);
        let running = Deed::Running(since);
        assert_eq!(weigh(running, Reading::Exited, soon, lag), Verdict::Running);
        assert_eq!(weigh(running, Reading::Exited, late, lag), Verdict::Ask, "it may be wrong even then");
        assert_eq!(weigh(running, Reading::Alive, late, lag), Verdict::Running);
        assert_eq!(weigh(running, Reading::Restarting, soon, lag), Verdict::Doubted);
        assert_eq!(weigh(running, Reading::Restarting, late, lag), Verdict::Restarted);
        let stopped = Deed::Stopped(since);
        assert_eq!(weigh(stopped, Reading::Alive, soon, lag), Verdict::Gone);
        assert_eq!(
            weigh(stopped, Reading::Alive, late, lag),
            Verdict::Running,
            "somebody started it by hand"
        );
        assert_eq!(weigh(stopped, Reading::Exited, late, lag), Verdict::Gone);
    }

    #[test]
    fn nothing_is_gone_on_the_word_of_a_status_where_a_bot_was() {
        let (now, lag) = (Instant::now(), Duration::from_secs(150));
        let inherited = |with_bot| weigh(Deed::Inherited { with_bot }, Reading::Exited, now, lag);
        assert_eq!((inherited(true), inherited(false)), (Verdict::Ask, Verdict::Gone));
        assert_eq!(weigh(Deed::Deploying, Reading::Exited, now, lag), Verdict::Ask);
    }
}
