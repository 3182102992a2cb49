//! Settings for operators: have them read again.

use super::note;
use crate::app::reload::{ReloadError, Reloaded};
use crate::config::LoadError;
use crate::http::caller::Operator;
use crate::http::error::ApiError;
use crate::http::state::AppState;
use crate::telemetry::chain;
use actix_web::http::StatusCode;
use actix_web::web;

/// POST /api/admin/reload: reads the settings' file and the environment again. Where one of them cannot be used, 422
/// says which, and all stay as they are.
pub async fn reload(operator: Operator, state: web::Data<AppState>) -> Result<web::Json<Reloaded>, ApiError> {
    state.check_running()?;
    note(&state, operator, "reload", "settings");
    let reloaded = state.reloader.reload(&state.leading).await.map_err(refusal)?;
    Ok(web::Json(reloaded))
}

fn refusal(error: ReloadError) -> ApiError {
    match error {
        ReloadError::Load(error @ LoadError::Config(_)) => {
            ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_settings", error.to_string())
        }
        ReloadError::Load(error @ LoadError::File { .. }) => {
            ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "settings_unreadable", chain(&error))
        }
        ReloadError::Engine(_) => {
            ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_settings", chain(&error))
        }
        ReloadError::Broken(error) => ApiError::internal(error),
    }
}
