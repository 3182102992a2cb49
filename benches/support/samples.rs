//! Bots and slots to measure with: of one platform, recording nothing.

use chrono::{DateTime, Utc};
use meeboter_actors::bot::{AutomaticLeave, Bot, BotSpec, BotState, Seat};
use meeboter_actors::ids::{BotId, Generation, HostName, Operation, Platform, SlotId, SlotName, UserId};
use meeboter_actors::journal::{Change, Decision};
use meeboter_actors::pool::{HostSettings, PlatformSettings, PoolSettings};
use meeboter_actors::ports::ResourceLimits;
use meeboter_actors::queue::Plan;
use meeboter_actors::slot::drains::Drains;
use meeboter_actors::slot::preparation::Preparation;
use meeboter_actors::slot::{BusyStep, Slot, SlotState};
use std::sync::Arc;
use uuid::Uuid;

/// Every slot's image.
pub const IMAGE: &str = "image:1";

/// The one platform there is.
pub fn platform() -> Platform {
    Platform("zoom".to_owned())
}

pub fn spec() -> BotSpec {
    BotSpec {
        platform: platform(),
        meeting_url: "https://zoom.us/j/123456789".to_owned(),
        meeting_id: None,
        passcode: None,
        display_name: "Meeboter".to_owned(),
        recording_enabled: false,
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

/// Room for this many slots of the platform on each of the hosts.
pub fn settings(slots: u32, hosts: impl IntoIterator<Item = HostName>) -> PoolSettings {
    let platform_settings = PlatformSettings {
        max_size: slots,
        image: IMAGE.to_owned(),
        enabled: true,
        prewarm: 0,
        ephemeral: false,
        prepare: true,
        limits: ResourceLimits::default(),
    };
    PoolSettings {
        platforms: [(platform(), platform_settings)].into(),
        hosts: hosts.into_iter().map(|host| (host, HostSettings { capacity: slots })).collect(),
        max_size: slots,
        queue_max: 1_000_000,
        ..PoolSettings::default()
    }
}

/// Writes so many idle slots of this host, a decision each.
pub fn idle_slots(count: u32) -> Vec<Decision> {
    let slot = |number| idle_slot(number, HostName::local(), Utc::now());
    (1..=count).map(|number| vec![Change::WriteSlot(Box::new(slot(number)))]).collect()
}

/// An idle slot, never written yet.
pub fn idle_slot(number: u32, host: HostName, used: DateTime<Utc>) -> Slot {
    Slot {
        name: SlotName::new(&platform(), number),
        id: SlotId(Uuid::from_u128(u128::from(number))),
        platform: platform(),
        host,
        image: IMAGE.to_owned(),
        drains: Drains::default(),
        ephemeral: false,
        generation: Generation(1),
        operation: Operation(1),
        version: 1,
        changed_at: used,
        state: SlotState::Idle { last_used_at: Some(used), ahead: Preparation::Absent },
    }
}

/// A slot whose bot is in a meeting.
pub fn busy_slot(number: u32, host: HostName, since: DateTime<Utc>) -> Slot {
    let slot = idle_slot(number, host, since);
    let bot = Bot {
        // Far above the numbers that new bots get.
        id: BotId(1_000_000_000 + i64::from(number)),
        user_id: UserId(1),
        spec: Arc::new(spec()),
        state: BotState::InCall,
        end: None,
        seat: Some(Seat { slot: slot.name.clone(), generation: slot.generation }),
        nonce: Some(Uuid::from_u128(u128::from(number))),
        report_seq: 3,
        leave: None,
        setback: None,
        created_at: since,
        deployed_at: Some(since),
        joined_at: Some(since),
        ended_at: None,
        version: 1,
    };
    let step = BusyStep::Running { leave_at: since + chrono::TimeDelta::hours(4) };
    Slot { state: SlotState::Busy { bot: Box::new(bot), container: None, step }, ..slot }
}

/// So many slots on this host, the first of which have bots that run.
pub fn slots(count: u32, running: u32) -> Vec<Slot> {
    let (host, now) = (HostName::local(), Utc::now());
    let slot = |number| match number {
        _ if number <= running => busy_slot(number, host.clone(), now),
        _ => idle_slot(number, host.clone(), now),
    };
    (1..=count).map(slot).collect()
}

/// What stores a slot with its bot.
pub fn stored(slot: &Slot) -> Decision {
    let bot = slot.bot().map(|bot| Change::WriteBot(Box::new(bot.clone())));
    bot.into_iter().chain([Change::WriteSlot(Box::new(slot.clone()))]).collect()
}
