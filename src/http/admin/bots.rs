//! Everybody's bots for operators: list, show, end.

use super::{note, slots};
use crate::http::bots::{PageQuery, placed_view, settled, view};
use crate::http::caller::Operator;
use crate::http::error::ApiError;
use crate::http::state::AppState;
use crate::http::views::{self, BotView, PageView};
use crate::store::queries::StoredBot;
use actix_web::web;
use meeboter_actors::bot::EndReason;
use meeboter_actors::ids::BotId;
use meeboter_actors::pool::message::{LeaveBot, OperateError, SlotAction};
use meeboter_actors::queue::message::WithdrawError;
use meeboter_actors::supervision::tell;
use tokio::sync::oneshot;

/// How often a bot that is to end is looked for: in the queue, in a slot, in the queue again, and what became of it.
const LOOKS_MAX: usize = 4;

/// GET /api/admin/bots
pub async fn list(
    _: Operator,
    state: web::Data<AppState>,
    query: web::Query<PageQuery>,
) -> Result<web::Json<PageView<BotView>>, ApiError> {
    let page = query.checked()?;
    let listed = state.pool.list_all_bots(page).await?;
    Ok(web::Json(views::page(page, listed, |stored| view(&state, &stored, None))))
}

/// GET /api/admin/bots/{id}
pub async fn read(
    _: Operator,
    state: web::Data<AppState>,
    id: web::Path<i64>,
) -> Result<web::Json<BotView>, ApiError> {
    Ok(web::Json(placed_view(&state, &stored(&state, BotId(*id)).await?).await))
}

/// POST /api/admin/bots/{id}/end: a bot in a slot ends FATAL `internal` at once and its slot becomes free; one that
/// waits is cancelled; one that has ended is answered as it is.
pub async fn end(
    operator: Operator,
    state: web::Data<AppState>,
    id: web::Path<i64>,
) -> Result<web::Json<BotView>, ApiError> {
    let bot_id = BotId(*id);
    // Between the look and the deed it may move: into a slot, back into the queue, to its end.
    for _ in 0..LOOKS_MAX {
        let found = stored(&state, bot_id).await?;
        if found.bot.state.is_final() {
            settled(&state).await?;
            return Ok(web::Json(view(&state, &found, None)));
        }
        let Some(slot) = state.tree()?.directory.bot(bot_id) else {
            withdraw(operator, &state, bot_id).await?;
            continue;
        };
        let action = SlotAction::End { bot: Some(bot_id) };
        match slots::ask(&state, operator, slot.name().clone(), action).await? {
            Ok(_)
            | Err(OperateError::Refused(_) | OperateError::Unknown(_) | OperateError::HostAnswers(_)) => {}
            Err(OperateError::OutcomeUnknown) => break,
        }
    }
    Err(ApiError::unknown_outcome())
}

/// Takes a bot out of the queue or the schedule. Who is in neither has ended meanwhile.
async fn withdraw(operator: Operator, state: &AppState, bot_id: BotId) -> Result<(), ApiError> {
    let _admitted = state.admit()?;
    let pool = &state.tree()?.pool;
    note(state, operator, "cancel", format_args!("bot {bot_id}"));
    let (reply, answer) = oneshot::channel();
    tell(pool, LeaveBot { bot_id, reason: EndReason::Cancelled, reply });
    match state.decided(answer).await? {
        Ok(_) | Err(WithdrawError::NotLive) => Ok(()),
        Err(WithdrawError::Unknown) => Err(ApiError::unknown_outcome()),
    }
}

async fn stored(state: &AppState, id: BotId) -> Result<StoredBot, ApiError> {
    state.pool.get_anyones_bot(id).await?.ok_or_else(|| ApiError::not_found(format!("bot {id}")))
}
