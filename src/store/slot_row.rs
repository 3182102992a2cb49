//! How a slot is a row: what belongs to each state, there and back.

use super::rows::{Column, DecodeError, column, get, get_count, storable, unknown, without};
use chrono::{DateTime, Utc};
use meeboter_actors::bot::Bot;
use meeboter_actors::ids::{ContainerId, Generation, HostName, Operation, Platform, SlotId, SlotName};
use meeboter_actors::ports::ResourceLimits;
use meeboter_actors::slot::drains::Drains;
use meeboter_actors::slot::preparation::Preparation;
use meeboter_actors::slot::{BusyStep, DeployStep, RecoveryStep, Slot, SlotState};
use serde::{Deserialize, Serialize};
use tokio_postgres::Row;
use tokio_postgres::types::Json;

/// A slot with its state laid out flat; what does not belong to the state is `None`.
pub(super) struct SlotRow<'a> {
    pub(super) slot: &'a Slot,
    status: &'static str,
    step: Option<&'static str>,
    bot_id: Option<i64>,
    container: Option<&'a str>,
    last_used_at: Option<DateTime<Utc>>,
    preparation: Option<Making>,
    deploy: Option<(u32, DateTime<Utc>)>,
    retry_at: Option<DateTime<Utc>>,
    leave_at: Option<DateTime<Utc>>,
    stop_at: Option<DateTime<Utc>>,
    stop_latest_at: Option<DateTime<Utc>>,
    error: Option<(&'a str, DateTime<Utc>, u32)>,
    recovery_at: Option<DateTime<Utc>>,
}

impl<'a> SlotRow<'a> {
    /// The row of a slot; a retired one has none.
    pub(super) fn of(slot: &'a Slot) -> Option<Self> {
        let mut row = Self {
            slot,
            status: slot.status()?.as_str(),
            step: None,
            bot_id: slot.bot().map(|bot| bot.id.0),
            container: None,
            last_used_at: None,
            preparation: None,
            deploy: None,
            retry_at: None,
            leave_at: None,
            stop_at: None,
            stop_latest_at: None,
            error: None,
            recovery_at: None,
        };
        match &slot.state {
            SlotState::Idle { last_used_at, ahead } => {
                row.last_used_at = *last_used_at;
                row.lay_out_ahead(ahead);
            }
            SlotState::Deploying { bot: _, step, attempts, deadline } => {
                row.deploy = Some((*attempts, *deadline));
                row.step = Some(match step {
                    DeployStep::Pulling => "pulling",
                    DeployStep::Resuming => "resuming",
                    DeployStep::Starting => "starting",
                    DeployStep::Retrying { at } => {
                        row.retry_at = Some(*at);
                        "retrying"
                    }
                    DeployStep::Restarting => "restarting",
                });
            }
            SlotState::Busy { bot: _, container, step } => {
                row.container = container.as_ref().map(|container| container.0.as_str());
                row.step = Some(match step {
                    BusyStep::Running { leave_at } => {
                        row.leave_at = Some(*leave_at);
                        "running"
                    }
                    BusyStep::Leaving { until, latest } => {
                        row.stop_at = Some(*until);
                        row.stop_latest_at = Some(*latest);
                        "leaving"
                    }
                    BusyStep::Stopping => "stopping",
                });
            }
            SlotState::Error { reason, attempts, since, container, step } => {
                row.error = Some((reason, *since, *attempts));
                row.container = container.as_ref().map(|container| container.0.as_str());
                row.step = Some(match step {
                    RecoveryStep::Waiting { until } => {
                        row.recovery_at = Some(*until);
                        "waiting"
                    }
                    RecoveryStep::Stopping => "stopping",
                });
            }
            SlotState::Retired => return None,
        }
        Some(row)
    }

    fn lay_out_ahead(&mut self, ahead: &'a Preparation) {
        let (container, failures, retry_at) = match ahead {
            Preparation::Absent => return,
            Preparation::Preparing { failures, .. } => (None, *failures, None),
            Preparation::Prepared { container, .. } => (Some(container), 0, None),
            Preparation::Retrying { failures, at, .. } => (None, *failures, Some(*at)),
            Preparation::Removing { container, failures } => (container.as_ref(), *failures, None),
            Preparation::Lingering { container, failures, at } => (container.as_ref(), *failures, Some(*at)),
        };
        self.step = Some(ahead.step());
        self.container = container.map(|container| container.0.as_str());
        self.retry_at = retry_at;
        self.preparation = Some(Making { limits: ahead.limits(), failures });
    }
}

/// What else is to be known of a container that is made ahead of need, or removed: the column `preparation`.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Making {
    /// What it may use, where it is wanted.
    limits: Option<ResourceLimits>,
    /// Tries in a row that failed.
    failures: u32,
}

/// `bot_pool_slots`.
pub(super) fn slot_columns<'a>(rows: &[&'a SlotRow<'a>]) -> Vec<Column<'a>> {
    vec![
        column(rows, "name", "text", |row| row.slot.name.0.as_str()),
        column(rows, "id", "uuid", |row| row.slot.id.0),
        column(rows, "platform", "text", |row| row.slot.platform.0.as_str()),
        column(rows, "host", "text", |row| row.slot.host.0.as_str()),
        column(rows, "image", "text", |row| row.slot.image.as_str()),
        column(rows, "draining", "boolean", |row| row.slot.drains.own.is_some()),
        column(rows, "drain_by", "timestamptz", |row| row.slot.drains.own.flatten()),
        column(rows, "wider_draining", "boolean", |row| row.slot.drains.wider.is_some()),
        column(rows, "wider_drain_by", "timestamptz", |row| row.slot.drains.wider.flatten()),
        column(rows, "ephemeral", "boolean", |row| row.slot.ephemeral),
        column(rows, "status", "text", |row| row.status),
        column(rows, "step", "text", |row| row.step),
        column(rows, "generation", "bigint", |row| row.slot.generation.0),
        column(rows, "operation", "bigint", |row| row.slot.operation.0),
        column(rows, "version", "bigint", |row| row.slot.version),
        column(rows, "changed_at", "timestamptz", |row| row.slot.changed_at),
        column(rows, "assigned_bot_id", "bigint", |row| row.bot_id),
        column(rows, "container_id", "text", |row| row.container.map(storable)),
        column(rows, "last_used_at", "timestamptz", |row| row.last_used_at),
        column(rows, "preparation", "jsonb", |row| row.preparation.map(Json)),
        column(rows, "deploy_attempts", "bigint", |row| row.deploy.map(|(attempts, _)| i64::from(attempts))),
        column(rows, "deploy_deadline_at", "timestamptz", |row| row.deploy.map(|(_, deadline)| deadline)),
        column(rows, "retry_at", "timestamptz", |row| row.retry_at),
        column(rows, "leave_at", "timestamptz", |row| row.leave_at),
        column(rows, "stop_at", "timestamptz", |row| row.stop_at),
        column(rows, "stop_latest_at", "timestamptz", |row| row.stop_latest_at),
        column(rows, "error_message", "text", |row| row.error.map(|(reason, ..)| storable(reason))),
        column(rows, "error_since", "timestamptz", |row| row.error.map(|(_, since, _)| since)),
        column(rows, "recovery_attempts", "bigint", |row| {
            row.error.map(|(.., attempts)| i64::from(attempts))
        }),
        column(rows, "recovery_at", "timestamptz", |row| row.recovery_at),
    ]
}

/// What changes of `bot_pool_slots` in a slot's life.
pub(super) fn slot_state_columns<'a>(rows: &[&'a SlotRow<'a>]) -> Vec<Column<'a>> {
    without(slot_columns(rows), &["id", "platform", "host", "ephemeral"])
}

/// The number of the bot in a slot's row.
pub(super) fn assigned_bot_id(row: &Row) -> Result<Option<i64>, DecodeError> {
    get(row, "assigned_bot_id")
}

/// A slot from a row of [`slot_columns`] and the bot that it names.
pub(super) fn slot_from(row: &Row, bot: Option<Bot>) -> Result<Slot, DecodeError> {
    let name = SlotName(get(row, "name")?);
    let label = format!("slot {name}");
    let state = state_from(row, &label, bot)?;
    Ok(Slot {
        name,
        id: SlotId(get(row, "id")?),
        platform: Platform(get(row, "platform")?),
        host: HostName(get(row, "host")?),
        image: get(row, "image")?,
        drains: Drains {
            own: get::<bool>(row, "draining")?.then_some(get(row, "drain_by")?),
            wider: get::<bool>(row, "wider_draining")?.then_some(get(row, "wider_drain_by")?),
        },
        ephemeral: get(row, "ephemeral")?,
        generation: Generation(get(row, "generation")?),
        operation: Operation(get(row, "operation")?),
        version: get(row, "version")?,
        changed_at: get(row, "changed_at")?,
        state,
    })
}

fn state_from(row: &Row, label: &str, bot: Option<Bot>) -> Result<SlotState, DecodeError> {
    let status: &str = get(row, "status")?;
    let step: Option<&str> = get(row, "step")?;
    let container = || get::<Option<String>>(row, "container_id").map(|id| id.map(ContainerId));
    let held = || {
        let bot_id = assigned_bot_id(row)?.unwrap_or_default();
        bot.map(Box::new).ok_or_else(|| DecodeError::NoBot { row: label.to_owned(), bot_id })
    };
    let no_step = || unknown(label, "step", step.unwrap_or_default());
    match status {
        "idle" => {
            let ahead = match step {
                None => Preparation::Absent,
                Some(step) => ahead_from(row, label, step, container()?)?,
            };
            Ok(SlotState::Idle { last_used_at: get(row, "last_used_at")?, ahead })
        }
        "deploying" => {
            let step = match step {
                Some("pulling") => DeployStep::Pulling,
                Some("resuming") => DeployStep::Resuming,
                Some("starting") => DeployStep::Starting,
                Some("retrying") => DeployStep::Retrying { at: get(row, "retry_at")? },
                Some("restarting") => DeployStep::Restarting,
                _ => return Err(no_step()),
            };
            let attempts = get_count(row, label, "deploy_attempts")?;
            Ok(SlotState::Deploying {
                bot: held()?,
                step,
                attempts,
                deadline: get(row, "deploy_deadline_at")?,
            })
        }
        "busy" => {
            let step = match step {
                Some("running") => BusyStep::Running { leave_at: get(row, "leave_at")? },
                Some("leaving") => {
                    let until = get(row, "stop_at")?;
                    let latest = get::<Option<_>>(row, "stop_latest_at")?.unwrap_or(until);
                    BusyStep::Leaving { until, latest }
                }
                Some("stopping") => BusyStep::Stopping,
                _ => return Err(no_step()),
            };
            Ok(SlotState::Busy { bot: held()?, container: container()?, step })
        }
        "error" => {
            let step = match step {
                Some("waiting") => RecoveryStep::Waiting { until: get(row, "recovery_at")? },
                Some("stopping") => RecoveryStep::Stopping,
                _ => return Err(no_step()),
            };
            Ok(SlotState::Error {
                reason: get(row, "error_message")?,
                attempts: get_count(row, label, "recovery_attempts")?,
                since: get(row, "error_since")?,
                container: container()?,
                step,
            })
        }
        _ => Err(unknown(label, "status", status)),
    }
}

fn ahead_from(
    row: &Row,
    label: &str,
    step: &str,
    container: Option<ContainerId>,
) -> Result<Preparation, DecodeError> {
    let Json(Making { limits, failures }) = get(row, "preparation")?;
    let limits = limits.unwrap_or_default();
    match (step, container) {
        ("preparing", _) => Ok(Preparation::Preparing { limits, failures }),
        ("prepared", Some(container)) => Ok(Preparation::Prepared { limits, container }),
        ("unprepared", _) => Ok(Preparation::Retrying { limits, failures, at: get(row, "retry_at")? }),
        ("removing", container) => Ok(Preparation::Removing { container, failures }),
        ("lingering", container) => {
            Ok(Preparation::Lingering { container, failures, at: get(row, "retry_at")? })
        }
        _ => Err(unknown(label, "step", step)),
    }
}
