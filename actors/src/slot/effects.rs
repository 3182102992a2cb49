//! What must be under way in each state of a slot: the only source of effects. A shell issues the effects of the
//! committed state less those of the state before; a rebuilt actor and a restarted server issue all of them.

use super::preparation::Preparation;
use super::{BusyStep, DeployStep, RecoveryStep, Slot, SlotState};
use crate::ids::{BotId, ContainerId, Generation, Operation};
use crate::ports::ResourceLimits;
use chrono::{DateTime, Utc};

/// Something to be done or watched. Two equal effects are one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Make the image present.
    PullImage {
        /// Which.
        image: String,
        /// Identity.
        operation: Operation,
    },
    /// Make the image present, and then the container for the next bot.
    PrepareContainer {
        /// Identity.
        generation: Generation,
        /// Identity.
        operation: Operation,
        /// What it may use.
        limits: ResourceLimits,
    },
    /// Start the container.
    StartContainer {
        /// Identity.
        generation: Generation,
        /// Identity.
        operation: Operation,
        /// The bot it will run.
        bot_id: BotId,
    },
    /// Notice when the container ends.
    WatchContainer {
        /// Identity.
        generation: Generation,
    },
    /// Stop the container and remove what is left of it.
    StopContainer {
        /// Identity.
        generation: Generation,
        /// Identity.
        operation: Operation,
        /// Its id, where it was learnt.
        container: Option<ContainerId>,
    },
    /// Look again then.
    WakeAt(DateTime<Utc>),
}

/// The effects of a state.
pub fn effects_of(slot: &Slot) -> Vec<Effect> {
    let (generation, operation) = (slot.container_generation(), slot.operation);
    let stop = |container: &Option<ContainerId>| Effect::StopContainer {
        generation,
        operation,
        container: container.clone(),
    };
    let watch = Effect::WatchContainer { generation };
    match &slot.state {
        SlotState::Idle { ahead, .. } => match ahead {
            Preparation::Absent | Preparation::Prepared { .. } => vec![],
            Preparation::Preparing { limits, .. } => {
                vec![Effect::PrepareContainer { generation, operation, limits: *limits }]
            }
            Preparation::Removing { container, .. } => vec![stop(container)],
            Preparation::Retrying { at, .. } | Preparation::Lingering { at, .. } => vec![Effect::WakeAt(*at)],
        },
        SlotState::Retired => vec![],
        SlotState::Deploying { bot, step, deadline, .. } => match step {
            DeployStep::Pulling | DeployStep::Resuming => {
                vec![
                    Effect::PullImage { image: slot.image.clone(), operation },
                    Effect::WakeAt(slot.or_drain_by(*deadline)),
                ]
            }
            DeployStep::Starting => vec![
                Effect::StartContainer { generation, operation, bot_id: bot.id },
                Effect::WakeAt(slot.or_drain_by(*deadline)),
            ],
            DeployStep::Retrying { at } => vec![Effect::WakeAt(slot.or_drain_by(*at))],
            DeployStep::Restarting => vec![stop(&None), Effect::WakeAt(slot.or_drain_by(*deadline))],
        },
        SlotState::Busy { container, step, .. } => match step {
            BusyStep::Running { leave_at } => vec![watch, Effect::WakeAt(slot.or_drain_by(*leave_at))],
            BusyStep::Leaving { until, .. } => vec![watch, Effect::WakeAt(*until)],
            BusyStep::Stopping => vec![stop(container)],
        },
        SlotState::Error { container, step, .. } => match step {
            RecoveryStep::Waiting { until } => vec![Effect::WakeAt(*until)],
            RecoveryStep::Stopping => vec![stop(container)],
        },
    }
}
