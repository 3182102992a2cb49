//! Whether the server lives, and whether it leads.

use super::error::ApiError;
use super::state::AppState;
use super::stats::observe;
use actix_web::{HttpResponse, web};
use meeboter_actors::{maintenance, pool};

/// GET /healthz: the process answers.
pub async fn alive() -> HttpResponse {
    HttpResponse::Ok().json(serde_json::json!({ "status": "alive" }))
}

/// GET /readyz: it leads, and the database answers. One that is being emptied is ready too, and says so: its bots report to
/// it, by whatever follows this answer, until they have left. Warnings are for people: they change nothing of that.
pub async fn ready(state: web::Data<AppState>) -> Result<HttpResponse, ApiError> {
    state.check_running()?;
    let leading = state.leading()?;
    state.pool.installation().await?;
    // After the database: where that is silent altogether, it is the reason.
    if !leading.lead.holds() {
        let message = "This server does not know whether it still leads, and decides nothing until it does.";
        return Err(ApiError::unavailable("lead_in_doubt", message, 1));
    }
    let (pool, maintenance) = tokio::join!(
        observe(&leading.tree.pool, pool::message::Observe),
        observe(&leading.tree.maintainer, maintenance::actor::Observe),
    );
    let is_emptied = pool.is_ok_and(|pool| pool.closing.is_some());
    let mut answer = serde_json::json!({ "status": if is_emptied { "draining" } else { "ready" } });
    if let Ok(maintenance) = maintenance {
        let full = maintenance.disks.iter().filter(|line| line.nearly_full).map(|line| {
            format!("disk {} is nearly full: {:.1} % free", line.disk.name, line.disk.free_percent())
        });
        let warnings: Vec<String> = full.collect();
        if !warnings.is_empty() {
            answer["warnings"] = warnings.into();
        }
    }
    Ok(HttpResponse::Ok().json(answer))
}
