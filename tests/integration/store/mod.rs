//! The store against a real PostgreSQL.

mod archive;
mod embedded;
mod journal;
mod lead;
mod queries;
mod timing;
mod torture;

use chrono::{DateTime, TimeDelta, Utc};
use meeboter::store::database::Database;
use meeboter::store::journal::{Claim, JournalConnection};
use meeboter_actors::bot::{Bot, BotState, End, EndReason, Seat};
use meeboter_actors::ids::{ContainerId, Generation};
use meeboter_actors::journal::{Change, Decision};
use meeboter_actors::ports::{BatchNo, ResourceLimits, Store};
use meeboter_actors::slot::preparation::Preparation;
use meeboter_actors::slot::{BusyStep, DeployStep, RecoveryStep, Slot, SlotState};
use meeboter_actors::testing::sample;
use std::sync::Arc;
use std::time::Duration;

use crate::support::postgres::{fresh_database, log};

async fn lead(database: &Database) -> JournalConnection {
    JournalConnection::take_lead(database, Claim::Within(Duration::ZERO), &log())
        .await
        .expect("nobody else leads")
}

async fn fresh() -> (Database, JournalConnection) {
    let database = fresh_database().await;
    let journal = lead(&database).await;
    (database, journal)
}

async fn commit(journal: &JournalConnection, number: i64, decision: Decision) {
    journal.commit(BatchNo(number), &[decision]).await.expect("commits");
    journal.flush(BatchNo(number)).await.expect("flushes");
}

/// A plain connection, as a person with psql would have it.
async fn psql(database: &Database) -> tokio_postgres::Client {
    let (client, connection) = database.config().connect(tokio_postgres::NoTls).await.expect("connects");
    tokio::spawn(connection);
    client
}

/// How many sessions of this database wait for a lock.
async fn waiting_for_a_lock(client: &tokio_postgres::Client) -> i64 {
    let text = "SELECT count(*) FROM pg_locks WHERE NOT granted \
                AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    client.query_one(text, &[]).await.expect("counts").get(0)
}

fn write_bot(bot: &Bot) -> Change {
    Change::WriteBot(Box::new(bot.clone()))
}

fn write_slot(slot: &Slot) -> Change {
    Change::WriteSlot(Box::new(slot.clone()))
}

fn later(minutes: i64) -> DateTime<Utc> {
    sample::now() + TimeDelta::minutes(minutes)
}

/// A bot in a state, with what belongs to it.
fn bot_in(id: i64, state: BotState) -> Bot {
    let mut bot = sample::bot(id);
    bot.state = state;
    if state == BotState::Scheduled {
        Arc::make_mut(&mut bot.spec).start_at = Some(later(60));
    }
    if !matches!(state, BotState::Scheduled | BotState::Queued) {
        bot.seat = Some(Seat { slot: sample::idle_slot(1).name, generation: Generation(5) });
        bot.deployed_at = Some(later(1));
    }
    if state.is_final() {
        let reason = if state == BotState::Done { EndReason::MeetingEnded } else { EndReason::Crashed };
        bot.end = Some(End { reason, detail: "It ended.".into() });
        bot.ended_at = Some(later(9));
    }
    bot
}

/// Slot `number` in every shape that is stored, each with bot `number` where it has one.
fn every_slot_state(number: u32) -> Vec<SlotState> {
    let bot = |state| {
        let mut bot = bot_in(i64::from(number), state);
        bot.seat = Some(Seat { slot: sample::idle_slot(number).name, generation: Generation(5) });
        Box::new(bot)
    };
    let container = Some(ContainerId("4711:99".into()));
    let deploying =
        |step| SlotState::Deploying { bot: bot(BotState::Deploying), step, attempts: 2, deadline: later(10) };
    let busy = |state, container: &Option<ContainerId>, step| SlotState::Busy {
        bot: bot(state),
        container: container.clone(),
        step,
    };
    let error = |step| SlotState::Error {
        reason: "stop: no such host".into(),
        attempts: 1,
        since: later(3),
        container: container.clone(),
        step,
    };
    let limits = ResourceLimits { memory_mib: Some(512), ..ResourceLimits::default() };
    let ahead = |ahead| SlotState::Idle { last_used_at: Some(later(2)), ahead };
    vec![
        SlotState::Idle { last_used_at: None, ahead: Preparation::Absent },
        SlotState::Idle { last_used_at: Some(later(2)), ahead: Preparation::Absent },
        ahead(Preparation::Preparing { limits, failures: 1 }),
        ahead(Preparation::Prepared { limits, container: ContainerId("c".into()) }),
        ahead(Preparation::Retrying { limits, failures: 2, at: later(4) }),
        ahead(Preparation::Removing { container: Some(ContainerId("c".into())), failures: 0 }),
        ahead(Preparation::Lingering { container: None, failures: 3, at: later(4) }),
        deploying(DeployStep::Pulling),
        deploying(DeployStep::Resuming),
        deploying(DeployStep::Starting),
        deploying(DeployStep::Retrying { at: later(4) }),
        deploying(DeployStep::Restarting),
        busy(BotState::InCall, &container, BusyStep::Running { leave_at: later(240) }),
        busy(BotState::JoiningCall, &None, BusyStep::Running { leave_at: later(240) }),
        busy(BotState::Leaving, &container, BusyStep::Leaving { until: later(5), latest: later(20) }),
        busy(BotState::Done, &container, BusyStep::Stopping),
        error(RecoveryStep::Waiting { until: later(6) }),
        error(RecoveryStep::Stopping),
    ]
}
