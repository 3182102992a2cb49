//! Values to begin a test with.

use crate::bot::{AutomaticLeave, Bot, BotSpec, BotState, Seat};
use crate::ids::{BotId, ContainerId, Generation, HostName, Operation, Platform, SlotId, SlotName, UserId};
use crate::queue::{Plan, QueueEntry};
use crate::slot::drains::Drains;
use crate::slot::preparation::Preparation;
use crate::slot::{BusyStep, Slot, SlotState};
use chrono::{DateTime, TimeDelta, Utc};
use std::sync::Arc;
use uuid::Uuid;

/// Noon of some day.
pub fn now() -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::days(20_000) + TimeDelta::hours(12)
}

/// What a client asks for.
pub fn spec() -> BotSpec {
    BotSpec {
        platform: Platform("zoom".into()),
        meeting_url: "https://zoom.us/j/123456789".into(),
        meeting_id: None,
        passcode: None,
        display_name: "Meeboter".into(),
        recording_enabled: true,
        automatic_leave: AutomaticLeave {
            waiting_room_timeout_ms: 600_000,
            no_one_joined_timeout_ms: 300_000,
            everyone_left_timeout_ms: 60_000,
            inactivity_timeout_ms: 600_000,
        },
        start_at: None,
        end_at: None,
        queue_timeout_ms: 300_000,
        priority: Plan::Standard.priority(),
    }
}

/// A bot that was just asked for.
pub fn bot(id: i64) -> Bot {
    Bot {
        id: BotId(id),
        user_id: UserId(1),
        spec: Arc::new(spec()),
        state: BotState::Queued,
        end: None,
        seat: None,
        nonce: None,
        report_seq: 0,
        leave: None,
        setback: None,
        created_at: now(),
        deployed_at: None,
        joined_at: None,
        ended_at: None,
        version: 1,
    }
}

/// A place in the queue for zoom.
pub fn queue_entry(bot: i64, user: i64) -> QueueEntry {
    QueueEntry {
        bot_id: BotId(bot),
        platform: Platform("zoom".into()),
        user_id: UserId(user),
        priority: 100,
        turn: 0,
        arrival: bot,
        queued_at: now(),
        deadline_at: now() + TimeDelta::minutes(5),
    }
}

/// A stored slot that is free.
pub fn idle_slot(number: u32) -> Slot {
    let platform = Platform("zoom".into());
    Slot {
        name: SlotName::new(&platform, number),
        id: SlotId(Uuid::from_u128(u128::from(number))),
        platform,
        host: HostName::local(),
        image: "image:1".into(),
        drains: Drains::default(),
        ephemeral: false,
        generation: Generation(4),
        operation: Operation(9),
        version: 20,
        changed_at: now(),
        state: SlotState::Idle { last_used_at: Some(now()), ahead: Preparation::Absent },
    }
}

/// A slot that was made and is not stored yet.
pub fn vacant_slot(number: u32) -> Slot {
    let Slot { name, id, platform, host, image, ephemeral, .. } = idle_slot(number);
    Slot::vacant(name, id, platform, host, image, ephemeral, now())
}

/// A slot whose bot is in a call; the bot's number is the slot's.
pub fn busy_slot(number: u32) -> Slot {
    let mut slot = idle_slot(number);
    let mut bot = bot(i64::from(number));
    bot.state = BotState::InCall;
    bot.seat = Some(Seat { slot: slot.name.clone(), generation: slot.generation });
    bot.nonce = Some(Uuid::from_u128(7));
    bot.report_seq = 3;
    slot.state = SlotState::Busy {
        bot: Box::new(bot),
        container: Some(ContainerId("c".into())),
        step: BusyStep::Running { leave_at: now() + TimeDelta::hours(4) },
    };
    slot
}
