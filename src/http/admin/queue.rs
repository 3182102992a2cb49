//! The whole queue for operators: who waits in which order, and moving a bot to another priority.

use super::note;
use crate::http::bots::PageQuery;
use crate::http::caller::Operator;
use crate::http::error::ApiError;
use crate::http::json;
use crate::http::state::AppState;
use crate::http::views::{self, PageView, milliseconds};
use crate::store::queries::QueuedBot;
use actix_web::{HttpRequest, web};
use chrono::{DateTime, Utc};
use meeboter_actors::ids::BotId;
use meeboter_actors::queue::message::{Reprioritise, ReprioritiseError};
use meeboter_actors::supervision::tell;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

/// A bot that waits.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct QueuedBotView {
    bot_id: i64,
    user_id: i64,
    platform: String,
    queue_position: i64,
    /// Lower comes first.
    priority: i16,
    queued_at: DateTime<Utc>,
    /// When it gives up.
    deadline_at: DateTime<Utc>,
}

impl From<QueuedBot> for QueuedBotView {
    fn from(queued: QueuedBot) -> Self {
        Self {
            bot_id: queued.bot_id.0,
            user_id: queued.user_id.0,
            platform: queued.platform.0,
            queue_position: queued.position,
            priority: queued.priority,
            queued_at: queued.queued_at,
            deadline_at: queued.deadline_at,
        }
    }
}

/// GET /api/admin/queue: as it is stored; a standby answers too.
pub async fn list(
    _: Operator,
    state: web::Data<AppState>,
    query: web::Query<PageQuery>,
) -> Result<web::Json<PageView<QueuedBotView>>, ApiError> {
    let page = query.checked()?;
    Ok(web::Json(views::page(page, state.pool.list_queue(page).await?, QueuedBotView::from)))
}

/// Another priority.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReprioritiseRequest {
    priority: i16,
}

/// Where a bot stands after it was moved.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MovedView {
    bot_id: i64,
    priority: i16,
    queue_position: usize,
    estimated_wait_ms: u64,
}

/// PATCH /api/admin/queue/{id}: moves a bot that waits to another priority, behind its user's others there.
pub async fn reprioritise(
    request: HttpRequest,
    operator: Operator,
    state: web::Data<AppState>,
    id: web::Path<i64>,
    payload: web::Payload,
) -> Result<web::Json<MovedView>, ApiError> {
    let bot_id = BotId(*id);
    let (ReprioritiseRequest { priority }, _) = json::body(&request, payload).await?;
    if priority < 0 {
        return Err(ApiError::field("priority", "priority: it takes 0 to 32767; lower comes first."));
    }
    let _admitted = state.admit()?;
    let queue = &state.tree()?.queue;
    note(&state, operator, "reprioritise", format_args!("bot {bot_id}"));
    let (reply, answer) = oneshot::channel();
    tell(queue, Reprioritise { bot_id, priority, reply });
    match state.decided(answer).await? {
        Ok(place) => Ok(web::Json(MovedView {
            bot_id: bot_id.0,
            priority,
            queue_position: place.position,
            estimated_wait_ms: milliseconds(place.estimated_wait),
        })),
        Err(ReprioritiseError::NotWaiting) => Err(not_waiting(&state, bot_id).await?),
        Err(ReprioritiseError::Unknown) => Err(ApiError::unknown_outcome()),
    }
}

/// Why a bot has no place to be moved from.
async fn not_waiting(state: &AppState, bot_id: BotId) -> Result<ApiError, ApiError> {
    let Some(bot) = state.pool.find_bot(bot_id).await? else {
        return Ok(ApiError::not_found(format!("bot {bot_id}")));
    };
    let message = format!(
        "Bot {bot_id} is {} and does not wait in the queue, so it has no priority. Only bots that are QUEUED can \
        be moved.",
        bot.state.as_str()
    );
    Ok(ApiError::conflict("not_waiting", &message))
}
