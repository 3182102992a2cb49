//! Bots with a start time ahead. Plain data; when they are handed over is in [`plan`], who keeps them in [`actor`].
//!
//! There is no table of them: a bot waits here exactly where its row says SCHEDULED, so no second row can disagree.

pub mod actor;
pub mod message;
pub mod plan;

use chrono::TimeDelta;
use std::time::Duration;

/// How far ahead bots may be asked for: what is later is a mistake of units or of the year.
pub const START_AHEAD_MAX: TimeDelta = TimeDelta::days(366);

/// When scheduled bots are handed over, and how many there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScheduleSettings {
    /// A start further ahead than this waits here, and is handed over at least this long before it.
    pub lead: TimeDelta,
    /// How long after its start time a bot is still started.
    pub lateness: TimeDelta,
    /// Bots of a platform that an engine starts side by side: more that start together are spread.
    pub burst: u32,
    /// Bots that may wait here.
    pub max: u32,
}

impl Default for ScheduleSettings {
    fn default() -> Self {
        Self { lead: TimeDelta::minutes(5), lateness: TimeDelta::minutes(10), burst: 10, max: 100_000 }
    }
}

impl ScheduleSettings {
    /// How long no bot is given up by a clock that has leapt ahead: the lateness, and the lead where that is longer, as
    /// a start that must not be late is no reason to believe a clock at once.
    pub(crate) fn doubt(&self) -> Duration {
        self.lateness.max(self.lead).to_std().unwrap_or_default()
    }
}
