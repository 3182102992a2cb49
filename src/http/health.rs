//! Whether the server lives, and whether it can take work.

use super::error::ApiError;
use super::state::AppState;
use actix_web::{HttpResponse, web};

/// GET /healthz: the process answers.
pub async fn alive() -> HttpResponse {
    HttpResponse::Ok().json(serde_json::json!({ "status": "alive" }))
}

/// GET /readyz: it leads, it takes work, and the database answers.
pub async fn ready(state: web::Data<AppState>) -> Result<HttpResponse, ApiError> {
    state.check_running()?;
    state.leading()?;
    state.pool.installation().await?;
    Ok(HttpResponse::Ok().json(serde_json::json!({ "status": "ready" })))
}
