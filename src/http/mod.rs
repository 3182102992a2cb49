//! HTTP: every route is in [`routes`]; what they do is in the modules beside.

mod address;
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
pub mod rate;
pub mod session;
pub mod state;
pub mod stats;
pub mod views;
pub mod watchers;
pub mod ws;

use actix_web::web::{self, ServiceConfig};
use address::at;
use error::ApiError;

/// Every route but the embedded object store's. A known address answers other methods with 405 and those it takes.
pub fn routes(cfg: &mut ServiceConfig) {
    cfg.app_data(
        web::QueryConfig::default()
            .error_handler(|error, _| ApiError::field("query", format!("query: {error}.")).into()),
    )
    .app_data(web::PathConfig::default().error_handler(|_, _| ApiError::not_found("such address").into()))
    .service(at("/healthz").get(health::alive).or_refused())
    .service(at("/readyz").get(health::ready).or_refused())
    .service(at("/metrics").get(metrics::scrape).or_refused())
    // Users.
    .service(
        at("/api/session").post(session::sign_in).get(session::read).delete(session::sign_out).or_refused(),
    )
    .service(at("/api/bots").post(bots::create).get(bots::list).or_refused())
    .service(at("/api/bots/pool/stats").get(stats::pool).or_refused())
    .service(at("/api/bots/queue/stats").get(stats::queue).or_refused())
    .service(at("/api/bots/{id}").get(bots::read).patch(bots::change).or_refused())
    .service(at("/api/bots/{id}/remove-from-call").post(bots::leave).or_refused())
    .service(at("/api/bots/{id}/cancel").post(bots::leave).or_refused())
    .service(at("/api/bots/{id}/events").get(bots::events).post(bot_side::event).or_refused())
    .service(at("/api/bots/{id}/recording").get(bots::recording).or_refused())
    .service(at("/ws").get(ws::open).or_refused())
    // Operators.
    .service(at("/api/admin/slots").get(admin::slots::list).or_refused())
    .service(at("/api/admin/slots/{name}").get(admin::slots::read).or_refused())
    .service(at("/api/admin/slots/{name}/logs").get(admin::slots::logs).or_refused())
    .service(at("/api/admin/slots/{name}/{action}").post(admin::slots::operate).or_refused())
    .service(at("/api/admin/drains").get(admin::drains::list).or_refused())
    .service(
        at("/api/admin/drains/server")
            .post(admin::drains::begin_server)
            .delete(admin::drains::end_server)
            .or_refused(),
    )
    .service(
        at("/api/admin/drains/{kind}/{name}")
            .post(admin::drains::begin)
            .delete(admin::drains::end)
            .or_refused(),
    )
    .service(at("/api/admin/queue").get(admin::queue::list).or_refused())
    .service(at("/api/admin/queue/{id}").patch(admin::queue::reprioritise).or_refused())
    .service(at("/api/admin/bots").get(admin::bots::list).or_refused())
    .service(at("/api/admin/bots/{id}").get(admin::bots::read).or_refused())
    .service(at("/api/admin/bots/{id}/end").post(admin::bots::end).or_refused())
    .service(at("/api/admin/pulls").get(admin::engine::pulls).post(admin::engine::pull).or_refused())
    .service(
        at("/api/admin/reconcile")
            .get(admin::engine::reconciled)
            .post(admin::engine::reconcile_now)
            .or_refused(),
    )
    .service(at("/api/admin/recordings").get(admin::engine::recordings).or_refused())
    .service(at("/api/admin/scale").get(admin::scale::read).or_refused())
    .service(at("/api/admin/recover").post(admin::slots::recover).or_refused())
    .service(
        at("/api/admin/maintenance").get(admin::maintenance::read).post(admin::maintenance::run).or_refused(),
    )
    .service(at("/api/admin/users").get(admin::users::list).post(admin::users::create).or_refused())
    .service(at("/api/admin/users/{name}").patch(admin::users::change).or_refused())
    .service(at("/api/admin/users/{name}/keys").post(admin::users::create_key).or_refused())
    .service(at("/api/admin/reload").post(admin::reload::reload).or_refused())
    // Bots.
    .service(at("/api/slots/{uuid}/assignment").post(bot_side::assignment).or_refused())
    .service(at("/api/bots/{id}/status").patch(bot_side::status).or_refused())
    .service(at("/api/bots/{id}/heartbeat").post(bot_side::heartbeat).or_refused())
    .service(at("/api/bots/{id}/segments").post(bot_side::segment).or_refused())
    // Pages.
    .service(at("/").get(pages::dashboard).or_refused())
    .service(at("/dashboard/{file}").get(pages::dashboard_file).or_refused())
    .service(at("/rehearsal").get(pages::rehearsal_index).or_refused())
    .service(at("/rehearsal/").get(pages::rehearsal_index).or_refused())
    .service(at("/rehearsal/{name}").get(pages::rehearsal).or_refused())
    .default_service(web::to(|| async { Err::<String, _>(ApiError::not_found("such address")) }));
}
