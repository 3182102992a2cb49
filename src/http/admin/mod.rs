//! What operators ask for: everybody's slots, bots, queue, drains, scaling, the engine, users, maintenance, settings. Handlers
//! only: they tell an actor, or for users ask the database, and say in words what it answered.

pub mod bots;
pub mod drains;
pub mod engine;
pub mod maintenance;
pub mod queue;
pub mod reload;
pub mod scale;
pub mod slots;
pub mod users;

use super::caller::Operator;
use super::error::ApiError;
use super::state::AppState;
use chrono::TimeDelta;
use meeboter_actors::pool::message::OperateError;
use serde::Deserialize;
use std::fmt;

/// The query of a drain.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DrainQuery {
    /// After so many milliseconds bots that are still there are asked to leave; absent: they stay.
    within_ms: Option<u64>,
}

/// The longest deadline of a drain.
const DRAIN_MS_MAX: u64 = 7 * 86_400_000;

impl DrainQuery {
    fn within(&self) -> Result<Option<TimeDelta>, ApiError> {
        let within = self.within_ms.map(|ms| {
            let delta = i64::try_from(ms).ok().filter(|_| ms <= DRAIN_MS_MAX).map(TimeDelta::milliseconds);
            let takes = format!("withinMs: it takes a whole number of milliseconds, 0 to {DRAIN_MS_MAX}.");
            delta.ok_or_else(|| ApiError::field("withinMs", takes))
        });
        within.transpose()
    }
}

/// Leaves in the log who wished what.
fn note(state: &AppState, Operator(user): Operator, wish: &str, of: impl fmt::Display) {
    slog::info!(state.log, "an operator's wish"; "user_id" => user.0, "wish" => wish, "of" => %of);
}

impl From<OperateError> for ApiError {
    fn from(error: OperateError) -> Self {
        match error {
            OperateError::Unknown(what) => Self::not_found(what),
            OperateError::Refused(refused) => refused.into(),
            OperateError::HostAnswers(host) => Self::conflict(
                "not_now",
                &format!(
                    "Host {host} answers, so its slots recover by themselves: reset it. Only what is left on a host that \
                    is away, or no longer in the settings, can be forgotten."
                ),
            ),
            OperateError::OutcomeUnknown => Self::unknown_outcome(),
        }
    }
}
