//! Whether the server lives, and whether it can take work.

use super::error::ApiError;
use super::state::AppState;
use super::stats::observe;
use actix_web::{HttpResponse, web};
use meeboter_actors::maintenance::actor::Observe;

/// GET /healthz: the process answers.
pub async fn alive() -> HttpResponse {
    HttpResponse::Ok().json(serde_json::json!({ "status": "alive" }))
}

/// GET /readyz: it leads, it takes work, and the database answers. Warnings are for people: they change nothing of that.
pub async fn ready(state: web::Data<AppState>) -> Result<HttpResponse, ApiError> {
    state.check_running()?;
    let leading = state.leading()?;
    state.pool.installation().await?;
    let mut answer = serde_json::json!({ "status": "ready" });
    if let Ok(maintenance) = observe(&leading.tree.maintainer, Observe).await {
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
