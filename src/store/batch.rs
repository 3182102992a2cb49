//! One batch as SQL: the decisions' rows sorted into tables, each table's rows in one statement as `unnest` arrays,
//! all statements in one transaction that is sent in one go.
//!
//! Every statement checks its own outcome inside the database (`journal_require`), so a row that is not as expected
//! aborts the transaction without another round trip. Each also refuses to run outside a transaction of the Journal:
//! should `BEGIN` itself fail, nothing behind it commits by itself.

use super::rows::{
    Column, bot_columns, bot_life_columns, column, drain_columns, event_columns, gone_drain_columns,
    idempotency_key_columns, maintenance_columns, names, queue_columns, recording_columns,
};
use super::slot_row::{SlotRow, slot_columns, slot_state_columns};
use futures_util::future::{BoxFuture, FutureExt, MaybeDone, join_all, maybe_done, try_join, try_join_all};
use meeboter_actors::bot::{Bot, BotEvent, BotState};
use meeboter_actors::ids::{BotId, SlotName};
use meeboter_actors::journal::{Change, Decision, IdempotencyKey};
use meeboter_actors::maintenance::MaintenanceRow;
use meeboter_actors::pool::{Drain, DrainOrder};
use meeboter_actors::ports::EventId;
use meeboter_actors::queue::QueueEntry;
use meeboter_actors::recording::Recording;
use std::collections::BTreeSet;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Statement};

const BEGIN: &str = "BEGIN; SET LOCAL meeboter.writer = 'journal'";

/// Why decisions cannot be a batch.
#[derive(Debug, thiserror::Error)]
pub(super) enum Malformed {
    #[error("a batch writes the same row twice: {0}")]
    Twice(String),
    #[error("slot {0} is retired: it is deleted, not written")]
    Retired(SlotName),
}

/// A statement under way.
type Request<'a> = MaybeDone<BoxFuture<'a, Result<(), Error>>>;

/// Why a batch was not written.
#[derive(Debug, thiserror::Error)]
pub(super) enum RunError {
    #[error("a value cannot be sent")]
    Unsendable(#[source] Error),
    #[error("PostgreSQL")]
    Postgres(#[source] Error),
}

/// What a batch may write, in the order that foreign keys and unique constraints ask for.
#[derive(Debug, Clone, Copy)]
enum Write {
    InsertBots,
    MoveBots,
    UpdateBots,
    DeleteSlots,
    UpdateSlots,
    InsertSlots,
    DeleteQueue,
    InsertQueue,
    UpdateQueue,
    InsertRecordings,
    UpdateRecordings,
    DeleteDrains,
    InsertDrains,
    UpdateDrains,
    InsertIdempotencyKeys,
    InsertEvents,
    UpdateMaintenance,
    DeleteRecordings,
    DeleteEvents,
    DeleteBots,
}

impl Write {
    /// In the order of the variants, which is what [`Statements::of`] counts on.
    const ALL: [Self; Self::DeleteBots as usize + 1] = [
        Self::InsertBots,
        Self::MoveBots,
        Self::UpdateBots,
        Self::DeleteSlots,
        Self::UpdateSlots,
        Self::InsertSlots,
        Self::DeleteQueue,
        Self::InsertQueue,
        Self::UpdateQueue,
        Self::InsertRecordings,
        Self::UpdateRecordings,
        Self::DeleteDrains,
        Self::InsertDrains,
        Self::UpdateDrains,
        Self::InsertIdempotencyKeys,
        Self::InsertEvents,
        Self::UpdateMaintenance,
        Self::DeleteRecordings,
        Self::DeleteEvents,
        Self::DeleteBots,
    ];

    fn sql(self) -> String {
        match self {
            Self::InsertBots => insert("bots", &bot_columns(&[])),
            Self::MoveBots => update("bots", &bot_columns(&[])),
            Self::UpdateBots => update("bots", &bot_life_columns(&[])),
            Self::DeleteSlots => delete("bot_pool_slots", &gone_slot_columns(&[])),
            Self::UpdateSlots => update("bot_pool_slots", &slot_state_columns(&[])),
            Self::InsertSlots => insert("bot_pool_slots", &slot_columns(&[])),
            Self::DeleteQueue => delete("bot_pool_queue", &gone_queue_columns(&[])),
            Self::InsertQueue => insert("bot_pool_queue", &queue_columns(&[])),
            Self::UpdateQueue => replace("bot_pool_queue", &queue_columns(&[])),
            Self::InsertRecordings => insert("recordings", &recording_columns(&[])),
            Self::UpdateRecordings => update("recordings", &recording_columns(&[])),
            Self::DeleteDrains => delete("pool_drains", &gone_drain_columns(&[])),
            Self::InsertDrains => insert("pool_drains", &drain_columns(&[])),
            Self::UpdateDrains => replace("pool_drains", &drain_columns(&[])),
            Self::InsertIdempotencyKeys => insert("idempotency_keys", &idempotency_key_columns(&[])),
            Self::InsertEvents => insert("events", &event_columns(&[])),
            Self::UpdateMaintenance => replace("maintenance", &maintenance_columns(&[])),
            Self::DeleteRecordings => delete("recordings", &gone_recording_columns(&[])),
            Self::DeleteEvents => delete("events", &gone_event_columns(&[])),
            Self::DeleteBots => delete_ended_bots(&gone_bot_columns(&[])),
        }
    }
}

/// The build breaks where [`Write::ALL`] is not in the order of the variants.
const _: () = {
    let mut place = 0;
    while place < Write::ALL.len() {
        assert!(Write::ALL[place] as usize == place);
        place += 1;
    }
};

/// The statements of a batch, prepared on a connection.
pub(super) struct Statements {
    begin: Statement,
    /// In the order of [`Write::ALL`].
    writes: Vec<Statement>,
}

impl Statements {
    pub(super) async fn prepare(client: &Client) -> Result<Self, Error> {
        let texts = Write::ALL.map(Write::sql);
        let writes = try_join_all(texts.iter().map(|text| client.prepare(text)));
        let (begin, writes) = try_join(client.prepare("SELECT journal_begin($1, $2)"), writes).await?;
        Ok(Self { begin, writes })
    }

    fn of(&self, write: Write) -> &Statement {
        &self.writes[write as usize]
    }
}

fn insert(table: &str, columns: &[Column<'_>]) -> String {
    format!(
        "WITH done AS (INSERT INTO {table} ({}) SELECT * FROM {} RETURNING 1) \
         SELECT journal_require('{table}', NULL) FROM (SELECT count(*) FROM done) AS written",
        names(columns),
        unnest(columns),
    )
}

/// Replaces rows, found by their first column, that are at the version before.
fn update(table: &str, columns: &[Column<'_>]) -> String {
    checked(table, columns, &format!("{} AND old.version = new.version - 1", set(table, columns)))
}

/// Replaces rows without a version, found by their first column.
fn replace(table: &str, columns: &[Column<'_>]) -> String {
    checked(table, columns, &set(table, columns))
}

fn set(table: &str, columns: &[Column<'_>]) -> String {
    let key = columns[0].name;
    let set: Vec<String> = columns[1..].iter().map(|column| format!("{0} = new.{0}", column.name)).collect();
    format!("UPDATE {table} AS old SET {} FROM {} WHERE old.{key} = new.{key}", set.join(", "), new(columns))
}

/// Deletes rows that are equal in all these columns.
fn delete(table: &str, columns: &[Column<'_>]) -> String {
    let same: Vec<String> = columns.iter().map(|column| format!("old.{0} = new.{0}", column.name)).collect();
    let delete = format!("DELETE FROM {table} AS old USING {} WHERE {}", new(columns), same.join(" AND "));
    checked(table, columns, &delete)
}

/// Whoever lives is never deleted, whatever was decided.
fn delete_ended_bots(columns: &[Column<'_>]) -> String {
    let ended = "old.id = new.id AND old.state IN ('DONE', 'FATAL')";
    checked("bots", columns, &format!("DELETE FROM bots AS old USING {} WHERE {ended}", new(columns)))
}

/// A write over `new` rows that must each find the `old` one. Which ones did not is only asked where some did not.
fn checked(table: &str, columns: &[Column<'_>], write: &str) -> String {
    let (key, sql_type) = (columns[0].name, columns[0].sql_type);
    format!(
        "WITH done AS ({write} RETURNING old.{key}) SELECT journal_require('{table}', CASE \
         WHEN (SELECT count(*) FROM done) = cardinality($1::{sql_type}[]) THEN NULL \
         ELSE (SELECT array_agg(wanted::text) FROM unnest($1::{sql_type}[]) AS wanted \
               WHERE wanted NOT IN (SELECT {key} FROM done)) END)",
    )
}

/// The rows as a table named `new`.
fn new(columns: &[Column<'_>]) -> String {
    format!("{} AS new({})", unnest(columns), names(columns))
}

fn unnest(columns: &[Column<'_>]) -> String {
    let arrays: Vec<String> = columns
        .iter()
        .enumerate()
        .map(|(index, column)| format!("${}::{}[]", index + 1, column.sql_type))
        .collect();
    format!("unnest({})", arrays.join(", "))
}

fn gone_slot_columns<'a>(slots: &[&'a (&'a SlotName, i64)]) -> Vec<Column<'a>> {
    vec![
        column(slots, "name", "text", |(name, _)| name.0.as_str()),
        column(slots, "version", "bigint", |(_, version)| *version),
    ]
}

fn gone_queue_columns<'a>(bots: &[&'a BotId]) -> Vec<Column<'a>> {
    vec![column(bots, "bot_id", "bigint", |bot| bot.0)]
}

fn gone_recording_columns<'a>(recordings: &[&'a (BotId, i64)]) -> Vec<Column<'a>> {
    vec![
        column(recordings, "bot_id", "bigint", |(bot, _)| bot.0),
        column(recordings, "version", "bigint", |(_, version)| *version),
    ]
}

fn gone_event_columns<'a>(events: &[&'a EventId]) -> Vec<Column<'a>> {
    vec![column(events, "id", "bigint", |event| event.0)]
}

fn gone_bot_columns<'a>(bots: &[&'a BotId]) -> Vec<Column<'a>> {
    vec![column(bots, "id", "bigint", |bot| bot.0)]
}

/// The rows of some decisions, by table and by what is done to them, each list in the order of its key.
#[derive(Default)]
pub(super) struct Batch<'a> {
    new_bots: Vec<&'a Bot>,
    /// Those that wait, for their start or for a slot: what was asked may have changed.
    moved_bots: Vec<&'a Bot>,
    bots: Vec<&'a Bot>,
    new_slots: Vec<SlotRow<'a>>,
    slots: Vec<SlotRow<'a>>,
    gone_slots: Vec<(&'a SlotName, i64)>,
    new_entries: Vec<&'a QueueEntry>,
    entries: Vec<&'a QueueEntry>,
    gone_entries: Vec<BotId>,
    new_recordings: Vec<&'a Recording>,
    recordings: Vec<&'a Recording>,
    gone_drains: Vec<&'a Drain>,
    new_drains: Vec<&'a DrainOrder>,
    drains: Vec<&'a DrainOrder>,
    keys: Vec<&'a IdempotencyKey>,
    events: Vec<&'a BotEvent>,
    maintenance: Vec<&'a MaintenanceRow>,
    gone_recordings: Vec<(BotId, i64)>,
    gone_events: Vec<EventId>,
    gone_bots: Vec<BotId>,
}

impl<'a> Batch<'a> {
    pub(super) fn of(decisions: &'a [Decision]) -> Result<Self, Malformed> {
        let mut batch = Self::default();
        let mut rows = BTreeSet::new();
        for change in decisions.iter().flatten() {
            if let Some(row) = change.row()
                && let Some(row) = rows.replace(row)
            {
                return Err(Malformed::Twice(format!("{row:?}")));
            }
            batch.add(change)?;
        }
        batch.sort();
        Ok(batch)
    }

    fn add(&mut self, change: &'a Change) -> Result<(), Malformed> {
        match change {
            Change::WriteBot(bot) if bot.version == 1 => self.new_bots.push(bot),
            Change::WriteBot(bot) if matches!(bot.state, BotState::Scheduled | BotState::Queued) => {
                self.moved_bots.push(bot)
            }
            Change::WriteBot(bot) => self.bots.push(bot),
            Change::WriteSlot(slot) => {
                let row = SlotRow::of(slot).ok_or_else(|| Malformed::Retired(slot.name.clone()))?;
                if slot.version == 1 { &mut self.new_slots } else { &mut self.slots }.push(row);
            }
            Change::DeleteSlot { name, version } => self.gone_slots.push((name, *version)),
            Change::InsertEvent(event) => self.events.push(event),
            Change::InsertQueueEntry(entry) => self.new_entries.push(entry),
            Change::UpdateQueueEntry(entry) => self.entries.push(entry),
            Change::DeleteQueueEntry(bot) => self.gone_entries.push(*bot),
            Change::WriteRecording(recording) if recording.version == 1 => {
                self.new_recordings.push(recording)
            }
            Change::WriteRecording(recording) => self.recordings.push(recording),
            Change::InsertDrain(order) => self.new_drains.push(order),
            Change::UpdateDrain(order) => self.drains.push(order),
            Change::DeleteDrain(drain) => self.gone_drains.push(drain),
            Change::InsertIdempotencyKey(key) => self.keys.push(key),
            Change::WriteMaintenance(row) => self.maintenance.push(row),
            Change::DeleteRecording { bot_id, version } => self.gone_recordings.push((*bot_id, *version)),
            Change::DeleteEvents(events) => self.gone_events.extend(events),
            Change::DeleteBot(bot) => self.gone_bots.push(*bot),
        }
        Ok(())
    }

    /// Rows are always locked in the same order. Events keep theirs: it is the order of a bot's history.
    fn sort(&mut self) {
        self.new_bots.sort_by_key(|bot| bot.id);
        self.moved_bots.sort_by_key(|bot| bot.id);
        self.bots.sort_by_key(|bot| bot.id);
        self.new_slots.sort_by(|a, b| a.slot.name.cmp(&b.slot.name));
        self.slots.sort_by(|a, b| a.slot.name.cmp(&b.slot.name));
        self.gone_slots.sort();
        self.new_entries.sort_by_key(|entry| entry.bot_id);
        self.entries.sort_by_key(|entry| entry.bot_id);
        self.gone_entries.sort();
        self.new_recordings.sort_by_key(|recording| recording.bot_id);
        self.recordings.sort_by_key(|recording| recording.bot_id);
        self.gone_drains.sort();
        self.new_drains.sort_by(|a, b| a.drain.cmp(&b.drain));
        self.drains.sort_by(|a, b| a.drain.cmp(&b.drain));
        self.gone_recordings.sort();
        self.gone_events.sort();
        self.gone_bots.sort();
        self.keys.sort_by(|a, b| (a.user_id, &a.key).cmp(&(b.user_id, &b.key)));
    }

    /// Writes everything in one transaction and one round trip. All of it is sent when this is first polled. The error is
    /// the first statement's that failed.
    pub(super) async fn run(
        &self,
        client: &Client,
        statements: &Statements,
        epoch: i64,
        number: i64,
    ) -> Result<(), RunError> {
        let begin_params: [&(dyn ToSql + Sync); 2] = [&epoch, &number];
        let steps = self.steps();
        let mut sent: Vec<Request<'_>> = Vec::with_capacity(steps.len() + 2);
        sent.push(maybe_done(client.batch_execute(BEGIN).boxed()));
        sent.push(maybe_done(execute(client, &statements.begin, &begin_params).boxed()));
        for (write, columns) in &steps {
            let send = async move {
                let params: Vec<&(dyn ToSql + Sync)> =
                    columns.iter().map(|column| &*column.values as &(dyn ToSql + Sync)).collect();
                execute(client, statements.of(*write), &params).await
            };
            sent.push(maybe_done(send.boxed()));
        }
        // A request is sent when its future is first polled; what fails right then was not sent at all. All of them in
        // one poll: nothing else that is sent on this connection comes between.
        let mut unsendable = None;
        poll_fn(|context| {
            for request in &mut sent {
                let _ = request.poll_unpin(context);
            }
            unsendable = sent.iter().position(is_unsendable);
            let end = client.batch_execute(if unsendable.is_none() { "COMMIT" } else { "ROLLBACK" });
            let mut end = maybe_done(end.boxed());
            let _ = end.poll_unpin(context);
            sent.push(end);
            Poll::Ready(())
        })
        .await;
        join_all(&mut sent).await;
        let mut outcomes: Vec<Result<(), Error>> =
            sent.iter_mut().filter_map(|request| Pin::new(request).take_output()).collect();
        if let Some(index) = unsendable {
            return outcomes.swap_remove(index).map_err(RunError::Unsendable);
        }
        let mut errors = outcomes.into_iter().filter_map(Result::err);
        match errors.next() {
            None => Ok(()),
            Some(first) if is_aftermath(&first) => {
                Err(RunError::Postgres(errors.find(|error| !is_aftermath(error)).unwrap_or(first)))
            }
            Some(first) => Err(RunError::Postgres(first)),
        }
    }

    /// What is written, with its rows, in the order of [`Write`].
    fn steps<'s>(&'s self) -> Vec<(Write, Vec<Column<'s>>)> {
        let slot_rows = |rows: &'s [SlotRow<'a>]| slot_columns(&rows.iter().collect::<Vec<_>>());
        let steps = [
            (Write::InsertBots, self.new_bots.len(), bot_columns(&self.new_bots)),
            (Write::MoveBots, self.moved_bots.len(), bot_columns(&self.moved_bots)),
            (Write::UpdateBots, self.bots.len(), bot_life_columns(&self.bots)),
            (
                Write::DeleteSlots,
                self.gone_slots.len(),
                gone_slot_columns(&self.gone_slots.iter().collect::<Vec<_>>()),
            ),
            (
                Write::UpdateSlots,
                self.slots.len(),
                slot_state_columns(&self.slots.iter().collect::<Vec<_>>()),
            ),
            (Write::InsertSlots, self.new_slots.len(), slot_rows(&self.new_slots)),
            (
                Write::DeleteQueue,
                self.gone_entries.len(),
                gone_queue_columns(&self.gone_entries.iter().collect::<Vec<_>>()),
            ),
            (Write::InsertQueue, self.new_entries.len(), queue_columns(&self.new_entries)),
            (Write::UpdateQueue, self.entries.len(), queue_columns(&self.entries)),
            (Write::InsertRecordings, self.new_recordings.len(), recording_columns(&self.new_recordings)),
            (Write::UpdateRecordings, self.recordings.len(), recording_columns(&self.recordings)),
            (Write::DeleteDrains, self.gone_drains.len(), gone_drain_columns(&self.gone_drains)),
            (Write::InsertDrains, self.new_drains.len(), drain_columns(&self.new_drains)),
            (Write::UpdateDrains, self.drains.len(), drain_columns(&self.drains)),
            (Write::InsertIdempotencyKeys, self.keys.len(), idempotency_key_columns(&self.keys)),
            (Write::InsertEvents, self.events.len(), event_columns(&self.events)),
            (Write::UpdateMaintenance, self.maintenance.len(), maintenance_columns(&self.maintenance)),
            (
                Write::DeleteRecordings,
                self.gone_recordings.len(),
                gone_recording_columns(&self.gone_recordings.iter().collect::<Vec<_>>()),
            ),
            (
                Write::DeleteEvents,
                self.gone_events.len(),
                gone_event_columns(&self.gone_events.iter().collect::<Vec<_>>()),
            ),
            (
                Write::DeleteBots,
                self.gone_bots.len(),
                gone_bot_columns(&self.gone_bots.iter().collect::<Vec<_>>()),
            ),
        ];
        steps
            .into_iter()
            .filter(|(_, rows, _)| *rows > 0)
            .map(|(write, _, columns)| (write, columns))
            .collect()
    }
}

async fn execute(
    client: &Client,
    statement: &Statement,
    params: &[&(dyn ToSql + Sync)],
) -> Result<(), Error> {
    client.execute(statement, params).await.map(drop)
}

/// Failed before it was sent, and not because the connection is gone: a value of it could not be written down.
fn is_unsendable(request: &Request<'_>) -> bool {
    matches!(request, MaybeDone::Done(Err(error)) if error.code().is_none() && !error.is_closed())
}

/// What statements behind the one that failed answer.
fn is_aftermath(error: &Error) -> bool {
    error.code() == Some(&SqlState::IN_FAILED_SQL_TRANSACTION)
}
