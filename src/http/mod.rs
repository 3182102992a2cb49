//! HTTP: every route is in [`routes`]; what they do is in the modules beside.

pub mod admin;
pub mod bot_side;
pub mod bots;
pub mod caller;
pub mod create;
pub mod error;
pub mod health;
pub mod json;
pub mod meeting;
pub mod metrics;
pub mod pages;
pub mod session;
pub mod state;
pub mod stats;
pub mod views;
pub mod ws;

use actix_web::web::{self, ServiceConfig};
use error::ApiError;

/// Every route but the embedded object store's.
pub fn routes(cfg: &mut ServiceConfig) {
    cfg.app_data(
        web::QueryConfig::default()
            .error_handler(|error, _| ApiError::field("query", format!("query: {error}.")).into()),
    )
    .app_data(web::PathConfig::default().error_handler(|_, _| ApiError::not_found("such address").into()))
    .route("/healthz", web::get().to(health::alive))
    .route("/readyz", web::get().to(health::ready))
    .route("/metrics", web::get().to(metrics::scrape))
    // Users.
    .route("/api/session", web::post().to(session::sign_in))
    .route("/api/session", web::get().to(session::read))
    .route("/api/session", web::delete().to(session::sign_out))
    .route("/api/bots", web::post().to(bots::create))
    .route("/api/bots", web::get().to(bots::list))
    .route("/api/bots/pool/stats", web::get().to(stats::pool))
    .route("/api/bots/queue/stats", web::get().to(stats::queue))
    .route("/api/bots/{id}", web::get().to(bots::read))
    .route("/api/bots/{id}", web::patch().to(bots::change))
    .route("/api/bots/{id}/remove-from-call", web::post().to(bots::leave))
    .route("/api/bots/{id}/cancel", web::post().to(bots::leave))
    .route("/api/bots/{id}/events", web::get().to(bots::events))
    .route("/api/bots/{id}/recording", web::get().to(bots::recording))
    .route("/ws", web::get().to(ws::open))
    // Operators.
    .route("/api/admin/slots", web::get().to(admin::slots::list))
    .route("/api/admin/slots/{name}", web::get().to(admin::slots::read))
    .route("/api/admin/slots/{name}/{action}", web::post().to(admin::slots::operate))
    .route("/api/admin/drains", web::get().to(admin::drains::list))
    .route("/api/admin/drains/server", web::post().to(admin::drains::begin_server))
    .route("/api/admin/drains/server", web::delete().to(admin::drains::end_server))
    .route("/api/admin/drains/{kind}/{name}", web::post().to(admin::drains::begin))
    .route("/api/admin/drains/{kind}/{name}", web::delete().to(admin::drains::end))
    .route("/api/admin/queue", web::get().to(admin::queue::list))
    .route("/api/admin/queue/{id}", web::patch().to(admin::queue::reprioritise))
    .route("/api/admin/bots", web::get().to(admin::bots::list))
    .route("/api/admin/bots/{id}", web::get().to(admin::bots::read))
    .route("/api/admin/bots/{id}/end", web::post().to(admin::bots::end))
    .route("/api/admin/pulls", web::get().to(admin::engine::pulls))
    .route("/api/admin/pulls", web::post().to(admin::engine::pull))
    .route("/api/admin/reconcile", web::get().to(admin::engine::reconciled))
    .route("/api/admin/reconcile", web::post().to(admin::engine::reconcile_now))
    .route("/api/admin/recordings", web::get().to(admin::engine::recordings))
    .route("/api/admin/recover", web::post().to(admin::slots::recover))
    // Bots.
    .route("/api/slots/{uuid}/assignment", web::post().to(bot_side::assignment))
    .route("/api/bots/{id}/status", web::patch().to(bot_side::status))
    .route("/api/bots/{id}/events", web::post().to(bot_side::event))
    .route("/api/bots/{id}/heartbeat", web::post().to(bot_side::heartbeat))
    .route("/api/bots/{id}/segments", web::post().to(bot_side::segment))
    // Pages.
    .route("/", web::get().to(pages::dashboard))
    .route("/dashboard/{file}", web::get().to(pages::dashboard_file))
    .route("/rehearsal", web::get().to(pages::rehearsal_index))
    .route("/rehearsal/", web::get().to(pages::rehearsal_index))
    .route("/rehearsal/{name}", web::get().to(pages::rehearsal))
    .default_service(web::to(|| async { Err::<String, _>(ApiError::not_found("such address")) }));
}
