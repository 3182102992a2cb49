//! How many slots there are ahead of need. Plain data; how many there should be is in [`plan`], who sees to it in
//! [`actor`].

pub mod actor;
pub mod history;
pub mod plan;

use chrono::TimeDelta;

/// When slots are made ahead of need, and when idle ones go. Counts only for platforms whose prewarm count is not 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScaleSettings {
    /// Whether the pool follows the load; if not, the prewarm count is all that is made ahead.
    pub enabled: bool,
    /// Whether a platform that has no slot at all is given some before its first bot comes.
    pub prewarm_on_startup: bool,
    /// Idle slots that there should always be; bots that start soon are on top of that.
    pub min_idle: u32,
    /// Mean utilisation from which on slots are added.
    pub up_at_percent: u32,
    /// How many at a time.
    pub up_by: u32,
    /// Mean utilisation up to which idle slots go.
    pub down_at_percent: u32,
    /// How many at a time.
    pub down_by: u32,
    /// How long a platform is left as it is after it was scaled up or down.
    pub cooldown: TimeDelta,
    /// What the mean is taken over.
    pub window: TimeDelta,
    /// A scheduled bot that is handed over within this time counts as one that will want a slot.
    pub look_ahead: TimeDelta,
}

impl Default for ScaleSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            prewarm_on_startup: true,
            min_idle: 3,
            up_at_percent: 80,
            up_by: 5,
            down_at_percent: 30,
            down_by: 2,
            cooldown: TimeDelta::minutes(10),
            window: TimeDelta::minutes(5),
            look_ahead: TimeDelta::minutes(15),
        }
    }
}
