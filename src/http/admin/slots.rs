//! Slots for operators: list, show, logs, reset, drain, undrain, retire, forget, restart, end the bot in one, recover
//! all.

use super::{DrainQuery, note};
use crate::http::caller::Operator;
use crate::http::error::ApiError;
use crate::http::state::AppState;
use crate::http::stats::observe;
use crate::http::views;
use actix_web::web;
use chrono::{DateTime, TimeDelta, Utc};
use meeboter_actors::ids::SlotName;
use meeboter_actors::pool::index::SlotLine;
use meeboter_actors::pool::message::{ListSlots, Operate, OperateError, Recover, SlotAction};
use meeboter_actors::slot;
use meeboter_actors::slot::actor::Refused;
use meeboter_actors::slot::machine::Rejection;
use meeboter_actors::slot::{Slot, SlotState, SlotStatus};
use meeboter_actors::supervision::tell;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// Lines of a log where the request does not say, and at most.
const LOG_LINES: u32 = 100;
const LOG_LINES_MAX: u32 = 10_000;
/// How long the engine may take to read them.
const LOG_DEADLINE: Duration = Duration::from_secs(10);

/// A slot with all that an operator may want to know of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OperatedSlotView {
    name: String,
    id: String,
    platform: String,
    host: String,
    image: String,
    /// One of the four states; `rebuilding` for the moment that takes; `retired` where it was just deleted.
    status: &'static str,
    step: Option<&'static str>,
    generation: i64,
    bot_id: Option<i64>,
    user_id: Option<i64>,
    changed_at: DateTime<Utc>,
    last_used_at: Option<DateTime<Utc>>,
    /// When a bot that does not start is given up.
    deploy_deadline_at: Option<DateTime<Utc>>,
    error_message: Option<String>,
    error_since: Option<DateTime<Utc>>,
    /// Starts or recoveries that failed so far.
    attempts: Option<u32>,
    draining: bool,
    /// When a bot that is still in it is then asked to leave.
    drain_by: Option<DateTime<Utc>>,
    ephemeral: bool,
    /// A bot is on its way to it, or it is being made.
    #[serde(skip_serializing_if = "Option::is_none")]
    reserved: Option<bool>,
}

/// All slots.
#[derive(Debug, Serialize)]
pub struct SlotList {
    /// By name.
    data: Vec<OperatedSlotView>,
}

/// GET /api/admin/slots
pub async fn list(_: Operator, state: web::Data<AppState>) -> Result<web::Json<SlotList>, ApiError> {
    Ok(web::Json(SlotList { data: views(&state, |_| true).await? }))
}

/// A slot with what its row does not say.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SlotDetail {
    #[serde(flatten)]
    slot: OperatedSlotView,
    /// When its bot was last heard of.
    heard_at: Option<DateTime<Utc>>,
    /// A change of it is being committed, and so many events wait for that.
    committing: Option<bool>,
    held_events: Option<usize>,
    /// Its container's end is being waited for.
    watching: Option<bool>,
}

/// GET /api/admin/slots/{name}
pub async fn read(
    _: Operator,
    state: web::Data<AppState>,
    name: web::Path<String>,
) -> Result<web::Json<SlotDetail>, ApiError> {
    let found = views(&state, |line| line.name.0 == *name).await?.pop();
    let slot = found.ok_or_else(|| ApiError::not_found(format!("slot {name}")))?;
    let handles = state.tree()?.directory.all();
    let actor = handles.iter().find(|handle| handle.name().0 == *name).and_then(|handle| handle.actor());
    let shell = match actor {
        // One that just died says nothing; the row stands all the same.
        Some(actor) => observe(&actor, slot::actor::Observe).await.ok(),
        None => None,
    };
    Ok(web::Json(SlotDetail {
        slot,
        heard_at: shell.and_then(|shell| shell.heard_at),
        committing: shell.map(|shell| shell.committing),
        held_events: shell.map(|shell| shell.held),
        watching: shell.map(|shell| shell.watching),
    }))
}

/// POST /api/admin/slots/{name}/{reset|drain|undrain|retire|forget|restart|end}: answers with the slot as it then is.
pub async fn operate(
    operator: Operator,
    state: web::Data<AppState>,
    path: web::Path<(String, String)>,
    query: web::Query<DrainQuery>,
) -> Result<web::Json<OperatedSlotView>, ApiError> {
    let (name, action) = path.into_inner();
    let action = action_named(&action, query.within()?).ok_or_else(|| ApiError::not_found("such address"))?;
    let slot = command(&state, operator, SlotName(name), action).await?;
    Ok(web::Json(view(&slot, None)))
}

/// Which lines of a log.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogQuery {
    lines: Option<u32>,
}

/// What a slot's container printed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LogView {
    name: String,
    host: String,
    /// Whose: the present one, or the last where the slot is idle.
    generation: i64,
    /// The latest at the end.
    lines: Vec<String>,
}

/// GET /api/admin/slots/{name}/logs?lines=100: the end of what the slot's container printed; of one that is gone, as
/// long as the engine keeps it.
pub async fn logs(
    _: Operator,
    state: web::Data<AppState>,
    name: web::Path<String>,
    query: web::Query<LogQuery>,
) -> Result<web::Json<LogView>, ApiError> {
    let lines = query.lines.unwrap_or(LOG_LINES);
    if !(1..=LOG_LINES_MAX).contains(&lines) {
        return Err(ApiError::field("lines", format!("lines: it takes 1 to {LOG_LINES_MAX}.")));
    }
    let leading = state.leading()?;
    let slot = leading.tree.directory.all().into_iter().find(|handle| handle.name().0 == *name);
    let slot = slot.ok_or_else(|| ApiError::not_found(format!("slot {name}")))?.snapshot();
    let read = leading.driver.logs(&slot.host, slot.last_bots_container(), lines);
    let lines = match tokio::time::timeout(LOG_DEADLINE, read).await {
        Ok(Ok(lines)) => lines,
        Ok(Err(error)) => return Err(ApiError::engine(&error.message)),
        Err(_) => return Err(ApiError::engine("it does not answer")),
    };
    let (name, host, generation) = (slot.name.0.clone(), slot.host.0.clone(), slot.generation.0);
    Ok(web::Json(LogView { name, host, generation, lines }))
}

/// How many slots were told.
#[derive(Debug, Serialize)]
pub struct Recovered {
    slots: usize,
}

/// POST /api/admin/recover: every slot in error tries to recover now.
pub async fn recover(
    operator: Operator,
    state: web::Data<AppState>,
) -> Result<web::Json<Recovered>, ApiError> {
    let _admitted = state.admit()?;
    let pool = &state.tree()?.pool;
    note(&state, operator, "recover", "all slots in error");
    let (reply, answer) = oneshot::channel();
    tell(pool, Recover { reply });
    Ok(web::Json(Recovered { slots: state.decided(answer).await? }))
}

/// Has a slot do something, and waits until that is durable.
async fn command(
    state: &AppState,
    operator: Operator,
    slot: SlotName,
    action: SlotAction,
) -> Result<Arc<Slot>, ApiError> {
    ask(state, operator, slot.clone(), action).await?.map_err(|error| match error {
        OperateError::Refused(Refused::Rejected(Rejection::Illegal { from, .. })) => {
            ApiError::conflict("not_now", &refusal(&slot, action, from))
        }
        error => error.into(),
    })
}

/// Has a slot do something, and waits for its word.
pub(super) async fn ask(
    state: &AppState,
    operator: Operator,
    slot: SlotName,
    action: SlotAction,
) -> Result<Result<Arc<Slot>, OperateError>, ApiError> {
    let _admitted = state.admit()?;
    let pool = &state.tree()?.pool;
    note(state, operator, name_of(action), &slot);
    let (reply, answer) = oneshot::channel();
    tell(pool, Operate { slot, action, reply });
    state.decided(answer).await
}

/// What cannot be done, why, and what to do instead.
fn refusal(slot: &SlotName, action: SlotAction, from: &str) -> String {
    let instead = match action {
        SlotAction::Reset => {
            "A reset touches nothing that runs. If its bot is stuck, end it; the slot is then free."
        }
        SlotAction::Retire => {
            "Only an idle slot can be deleted at once. Drain it: it goes when it is free. Or end its bot, or reset it, \
            first."
        }
        SlotAction::Forget => {
            "Only a slot whose container is left behind can be forgotten: one that waits in error, or is lingering. If it is \
            just being removed, ask again in a moment."
        }
        SlotAction::Restart => {
            "Only a bot that is not in its meeting yet can be started again: what it recorded would be lost. Let it \
            leave, or end it."
        }
        SlotAction::End { .. } => "It holds no bot.",
        SlotAction::Drain { .. } | SlotAction::Undrain => "It is just being made. Ask again in a moment.",
    };
    format!("Slot {slot} is {from} and refuses \"{}\". {instead}", name_of(action))
}

fn name_of(action: SlotAction) -> &'static str {
    match action {
        SlotAction::Reset => "reset",
        SlotAction::Drain { .. } => "drain",
        SlotAction::Undrain => "undrain",
        SlotAction::Retire => "retire",
        SlotAction::Forget => "forget",
        SlotAction::Restart => "restart",
        SlotAction::End { .. } => "end",
    }
}

fn action_named(name: &str, within: Option<TimeDelta>) -> Option<SlotAction> {
    use SlotAction::{Drain, End, Forget, Reset, Restart, Retire, Undrain};
    let actions = [Reset, Drain { within }, Undrain, Retire, Forget, Restart, End { bot: None }];
    actions.into_iter().find(|action| name_of(*action) == name)
}

/// The slots that are wanted, by name: what the pool knows of each, with what it committed last.
async fn views(
    state: &AppState,
    wanted: impl Fn(&SlotLine) -> bool,
) -> Result<Vec<OperatedSlotView>, ApiError> {
    let tree = state.tree()?;
    let lines = observe(&tree.pool, ListSlots).await?;
    let slots: BTreeMap<SlotName, Arc<Slot>> =
        tree.directory.all().iter().map(|handle| (handle.name().clone(), handle.snapshot())).collect();
    let found = lines.iter().filter(|line| wanted(line)).filter_map(|line| {
        // One that went since the pool answered is not listed.
        let slot = slots.get(&line.name).filter(|slot| slot.status().is_some())?;
        Some(view(slot, Some(line)))
    });
    Ok(found.collect())
}

fn view(slot: &Slot, line: Option<&SlotLine>) -> OperatedSlotView {
    let (deploy_deadline_at, error_since, attempts) = match &slot.state {
        SlotState::Deploying { deadline, attempts, .. } => (Some(*deadline), None, Some(*attempts)),
        SlotState::Error { since, attempts, .. } => (None, Some(*since), Some(*attempts)),
        SlotState::Idle { .. } | SlotState::Busy { .. } | SlotState::Retired => (None, None, None),
    };
    let is_rebuilding = line.is_some_and(|line| line.status.is_none());
    let status =
        if is_rebuilding { "rebuilding" } else { slot.status().map_or("retired", SlotStatus::as_str) };
    OperatedSlotView {
        name: slot.name.0.clone(),
        id: slot.id.to_string(),
        platform: slot.platform.0.clone(),
        host: slot.host.0.clone(),
        image: slot.image.clone(),
        status,
        step: views::step(slot),
        generation: slot.generation.0,
        bot_id: slot.bot().map(|bot| bot.id.0),
        user_id: slot.bot().map(|bot| bot.user_id.0),
        changed_at: slot.changed_at,
        last_used_at: views::last_used_at(slot),
        deploy_deadline_at,
        error_message: views::error_message(slot),
        error_since,
        attempts,
        draining: slot.drains.any(),
        drain_by: slot.drains.by(),
        ephemeral: slot.ephemeral,
        reserved: line.map(|line| line.reserved),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use meeboter_actors::testing::sample;

    #[test]
    fn every_action_is_found_by_its_name() {
        for name in ["reset", "drain", "undrain", "retire", "forget", "restart", "end"] {
            assert_eq!(action_named(name, None).map(name_of), Some(name));
        }
        assert_eq!(action_named("explode", None), None);
    }

    #[test]
    fn a_slot_is_shown_with_its_bot_and_one_that_is_gone_as_retired() {
        let busy = sample::busy_slot(1);
        let shown = view(&busy, None);
        assert_eq!((shown.status, shown.bot_id), ("busy", busy.bot().map(|bot| bot.id.0)));
        let gone = Slot { state: SlotState::Retired, ..busy };
        assert_eq!((view(&gone, None).status, view(&gone, None).bot_id), ("retired", None));
    }
}
