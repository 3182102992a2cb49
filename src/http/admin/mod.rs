//! What operators ask for: everybody's slots, bots, queue, drains, the engine, maintenance and settings. Handlers only: they tell an actor,
//! and say in words what it answered.

pub mod bots;
pub mod drains;
pub mod engine;
pub mod maintenance;
pub mod queue;
pub mod reload;
pub mod slots;

use super::caller::Operator;
use super::error::ApiError;
use super::state::AppState;
use meeboter_actors::pool::message::OperateError;
use std::fmt;

/// Leaves in the log who wished what.
fn note(state: &AppState, Operator(user): Operator, wish: &str, of: impl fmt::Display) {
    slog::info!(state.log, "an operator's wish"; "user_id" => user.0, "wish" => wish, "of" => %of);
}

impl From<OperateError> for ApiError {
    fn from(error: OperateError) -> Self {
        match error {
            OperateError::Unknown(what) => Self::not_found(what),
            OperateError::Refused(refused) => refused.into(),
            OperateError::OutcomeUnknown => Self::unknown_outcome(),
        }
    }
}
