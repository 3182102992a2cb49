//! The Journal's connection while it stands: prepared statements, batches, and the reads that must come behind them.
//! Several calls may be under way at once; PostgreSQL answers them in the order in which they were sent. Each sends all
//! that it has to send when it is first polled.

use super::batch::{Batch, Malformed, RunError, Statements};
use super::database::{Connection, DatabaseError};
use super::flusher::Flusher;
use super::lead;
use super::rows::{
    DecodeError, bot_columns, bot_from, drain_columns, drain_from, get, maintenance_columns,
    maintenance_from, names, queue_columns, queue_entry_from, recording_columns, recording_from,
};
use super::slot_row::{assigned_bot_id, slot_columns, slot_from};
use crate::telemetry::chain;
use futures_util::future::{try_join, try_join_all, try_join5};
use meeboter_actors::bot::{Bot, BotState};
use meeboter_actors::ids::{BotId, SlotName};
use meeboter_actors::journal::Decision;
use meeboter_actors::ports::{BatchNo, Rows, StoreError};
use meeboter_actors::recording::Recording;
use meeboter_actors::slot::Slot;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error, Row, Statement};

/// How long a statement may take. The client's own deadline is a little longer, so that PostgreSQL has given up before the
/// connection is.
const PATIENCE: &str = "SET statement_timeout = '4s'; SET lock_timeout = '3s'";
/// The same for a statement that reads everything, which nobody has to wait behind.
const LOAD_PATIENCE: &str = "SET statement_timeout = '28s'; SET lock_timeout = '28s'";
/// For every statement of the session. One plan a statement, nested loops over the keys, is right for every batch however
/// small a table was when it was made; keepalives, and looks at the client while a statement runs, free the lock when this
/// host or this process dies without a word. Commits do not wait for the disk: the flusher does.
const SESSION: &str = "SET idle_in_transaction_session_timeout = '5s'; \
    SET tcp_keepalives_idle = 2; SET tcp_keepalives_interval = 1; SET tcp_keepalives_count = 3; \
    SET tcp_user_timeout = '5s'; SET client_connection_check_interval = '1s'; \
    SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off; \
    SET plan_cache_mode = force_generic_plan; SET jit = off; \
    SET synchronous_commit = off";

/// Why something did not come about on the connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("PostgreSQL")]
    Postgres(#[from] Error),
    #[error(transparent)]
    Connect(#[from] DatabaseError),
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("a value cannot be sent")]
    Unsendable(#[source] Error),
    #[error("no answer within {0:?}")]
    TimedOut(std::time::Duration),
    #[error("the database may have crashed since batch {0:?} was written; it may be lost")]
    Unflushed(BatchNo),
    #[error("another server leads")]
    Deposed,
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Postgres(error) => from_postgres(&error),
            Failure::Connect(error) => Self::Unavailable(chain(&error)),
            Failure::Decode(error) => Self::Refused(chain(&error)),
            Failure::Unsendable(error) => Self::Refused(chain(&error)),
            Failure::Malformed(error) => Self::Refused(error.to_string()),
            Failure::TimedOut(_) | Failure::Unflushed(_) => Self::Unavailable(failure.to_string()),
            Failure::Deposed => Self::Deposed,
        }
    }
}

fn from_postgres(error: &Error) -> StoreError {
    match error.code().map(SqlState::code) {
        Some("MB002") => StoreError::Deposed,
        Some(code) if code == "MB001" || code.starts_with("22") || code.starts_with("23") => {
            StoreError::Refused(chain(error))
        }
        Some(_) => StoreError::Unavailable(chain(error)),
        // Not the database's word: the connection is gone or in disorder.
        None => StoreError::Unavailable(chain(error)),
    }
}

/// A connection that holds the lead.
pub(super) struct Link {
    connection: Connection,
    flusher: Arc<Flusher>,
    batch: Statements,
    read: Reads,
    epoch: i64,
}

struct Reads {
    was_committed: Statement,
    bot: Statement,
    slot: Statement,
    slots_bot: Statement,
    recording: Statement,
    reserve_bot_ids: Statement,
}

impl Reads {
    async fn prepare(client: &Client) -> Result<Self, Error> {
        let (bots, slots) = (names(&bot_columns(&[])), names(&slot_columns(&[])));
        let texts = [
            "SELECT FROM journal_batches WHERE epoch = $1 AND batch_no = $2".to_owned(),
            format!("SELECT {bots} FROM bots WHERE id = $1"),
            format!("SELECT {slots} FROM bot_pool_slots WHERE name = $1"),
            format!(
                "SELECT {bots} FROM bots WHERE id = (SELECT assigned_bot_id FROM bot_pool_slots WHERE name = $1)"
            ),
            format!("SELECT {} FROM recordings WHERE bot_id = $1", names(&recording_columns(&[]))),
            "UPDATE leadership SET next_bot_id = next_bot_id + $1 WHERE epoch = $2 \
             RETURNING next_bot_id - $1, next_bot_id"
                .to_owned(),
        ];
        let prepared = try_join_all(texts.iter().map(|text| client.prepare(text))).await?;
        let Ok([was_committed, bot, slot, slots_bot, recording, reserve_bot_ids]) =
            <[Statement; 6]>::try_from(prepared)
        else {
            unreachable!("as many statements as texts")
        };
        Ok(Self { was_committed, bot, slot, slots_bot, recording, reserve_bot_ids })
    }
}

impl Link {
    /// Readies a connection that holds the lock.
    pub(super) async fn prepare(
        connection: Connection,
        flusher: Arc<Flusher>,
        epoch: i64,
    ) -> Result<Self, Failure> {
        let client = &connection.client;
        client.batch_execute(SESSION).await?;
        client.batch_execute(PATIENCE).await?;
        let (batch, read) = try_join(Statements::prepare(client), Reads::prepare(client)).await?;
        Ok(Self { connection, flusher, batch, read, epoch })
    }

    pub(super) fn is_closed(&self) -> bool {
        self.connection.client.is_closed() || self.flusher.is_closed()
    }

    pub(super) async fn commit(&self, batch: BatchNo, decisions: &[Decision]) -> Result<(), Failure> {
        let rows = Batch::of(decisions)?;
        match rows.run(&self.connection.client, &self.batch, self.epoch, batch.0).await {
            Ok(()) => {}
            // Committed before; its answer was lost.
            Err(RunError::Postgres(error)) if error.code().is_some_and(|code| code.code() == "MB003") => {}
            Err(RunError::Postgres(error)) => return Err(Failure::Postgres(error)),
            Err(RunError::Unsendable(error)) => return Err(Failure::Unsendable(error)),
        }
        self.flusher.note_committed(batch);
        Ok(())
    }

    pub(super) async fn was_committed(&self, batch: BatchNo) -> Result<bool, Failure> {
        let row =
            self.connection.client.query_opt(&self.read.was_committed, &[&self.epoch, &batch.0]).await?;
        if row.is_some() {
            self.flusher.note_committed(batch);
        }
        Ok(row.is_some())
    }

    /// Sees that this epoch stands.
    pub(super) async fn confirm(&self) -> Result<(), Failure> {
        if lead::epoch(&self.connection.client).await? == self.epoch { Ok(()) } else { Err(Failure::Deposed) }
    }

    pub(super) async fn reserve_bot_ids(&self, count: u32) -> Result<Range<i64>, Failure> {
        let params: [&(dyn tokio_postgres::types::ToSql + Sync); 2] = [&i64::from(count), &self.epoch];
        let row = self.connection.client.query_opt(&self.read.reserve_bot_ids, &params).await?;
        let row = row.ok_or(Failure::Deposed)?;
        self.flusher.flush_all().await?;
        Ok(row.try_get(0)?..row.try_get(1)?)
    }

    pub(super) async fn read_bot(&self, id: BotId) -> Result<Option<Bot>, Failure> {
        let row = self.connection.client.query_opt(&self.read.bot, &[&id.0]).await?;
        Ok(row.as_ref().map(bot_from).transpose()?)
    }

    pub(super) async fn read_recording(&self, id: BotId) -> Result<Option<Recording>, Failure> {
        let row = self.connection.client.query_opt(&self.read.recording, &[&id.0]).await?;
        Ok(row.as_ref().map(recording_from).transpose()?)
    }

    pub(super) async fn read_slot(&self, name: &SlotName) -> Result<Option<Slot>, Failure> {
        let client = &self.connection.client;
        // Nobody else writes these tables, so the two see the same moment.
        let (slot, bot) = try_join(
            client.query_opt(&self.read.slot, &[&name.0]),
            client.query_opt(&self.read.slots_bot, &[&name.0]),
        )
        .await?;
        let bot = bot.as_ref().map(bot_from).transpose()?;
        Ok(slot.map(|row| slot_from(&row, bot)).transpose()?)
    }

    /// Everything live. Comes before all that has to be quick.
    pub(super) async fn load(&self) -> Result<Rows, Failure> {
        let client = &self.connection.client;
        client.batch_execute(LOAD_PATIENCE).await?;
        let rows = self.live().await;
        client.batch_execute(PATIENCE).await?;
        rows
    }

    /// Nobody else writes these tables, so the reads see the same moment.
    async fn live(&self) -> Result<Rows, Failure> {
        let client = &self.connection.client;
        let bots = format!(
            "SELECT {} FROM bots WHERE id IN (SELECT assigned_bot_id FROM bot_pool_slots \
             UNION SELECT bot_id FROM bot_pool_queue \
             UNION SELECT bot_id FROM recordings WHERE state IN ('open', 'joining') \
             UNION SELECT id FROM bots WHERE state = 'SCHEDULED' AND ended_at IS NULL \
             AND spec ->> 'start_at' IS NOT NULL)",
            names(&bot_columns(&[]))
        );
        let slots = format!("SELECT {} FROM bot_pool_slots ORDER BY name", names(&slot_columns(&[])));
        let queue = format!(
            "SELECT {} FROM bot_pool_queue ORDER BY platform, priority, turn, arrival",
            names(&queue_columns(&[]))
        );
        let recordings = format!(
            "SELECT {} FROM recordings WHERE state IN ('open', 'joining') ORDER BY bot_id",
            names(&recording_columns(&[]))
        );
        let drains = format!("SELECT {} FROM pool_drains", names(&drain_columns(&[])));
        let maintenance = format!("SELECT {} FROM maintenance", names(&maintenance_columns(&[])));
        let live = try_join5(
            client.query(&bots, &[]),
            client.query(&slots, &[]),
            client.query(&queue, &[]),
            client.query(&recordings, &[]),
            client.query(&drains, &[]),
        );
        let ((bots, slots, queue, recordings, drains), maintenance) =
            try_join(live, client.query_opt(&maintenance, &[])).await?;
        let mut rows = assemble(&bots, &slots, &queue, &recordings)?;
        rows.drains = drains.iter().map(drain_from).collect::<Result<_, _>>()?;
        rows.maintenance = maintenance.as_ref().map(maintenance_from).transpose()?;
        Ok(rows)
    }
}

fn assemble(bots: &[Row], slots: &[Row], queue: &[Row], recordings: &[Row]) -> Result<Rows, Failure> {
    let mut by_id = HashMap::with_capacity(bots.len());
    for row in bots {
        let bot = bot_from(row)?;
        by_id.insert(bot.id.0, bot);
    }
    let bot_of = |row: &str, bot_id: i64| {
        by_id.get(&bot_id).cloned().ok_or_else(|| DecodeError::NoBot { row: row.to_owned(), bot_id })
    };
    let scheduled = by_id.values().filter(|bot| bot.state == BotState::Scheduled).cloned().collect();
    let mut rows = Rows { scheduled, ..Rows::default() };
    for row in slots {
        let bot = match assigned_bot_id(row)? {
            Some(bot_id) => Some(bot_of(get(row, "name")?, bot_id)?),
            None => None,
        };
        rows.slots.push(slot_from(row, bot)?);
    }
    for row in queue {
        let entry = queue_entry_from(row)?;
        let bot = bot_of("a queue entry", entry.bot_id.0)?;
        rows.queue.push((entry, bot));
    }
    for row in recordings {
        let recording = recording_from(row)?;
        let bot = bot_of("a recording", recording.bot_id.0)?;
        rows.recordings.push((recording, bot));
    }
    Ok(rows)
}
