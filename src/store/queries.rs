//! What HTTP asks of the database. All of it through the pool; nothing here writes a row that an actor owns.

use super::pool::{Pool, QueryError};
use super::rows::{
    DecodeError, bot_columns, bot_from, event_columns, event_from, get, idempotency_key_columns,
    idempotency_key_from, names, recording_columns, recording_from,
};
use chrono::{DateTime, Utc};
use meeboter_actors::bot::{Bot, BotEvent};
use meeboter_actors::ids::{BotId, Platform, UserId};
use meeboter_actors::journal::IdempotencyKey;
use meeboter_actors::queue::Plan;
use meeboter_actors::recording::Recording;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use tokio_postgres::Row;
use uuid::Uuid;

/// Rows of a page at most.
pub const PAGE_SIZE_MAX: u32 = 200;

/// Which part of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// Counted from 1.
    pub number: u32,
    /// Rows of it, at most [`PAGE_SIZE_MAX`].
    pub size: u32,
}

impl Page {
    pub(super) fn limit(self) -> i64 {
        i64::from(self.size.clamp(1, PAGE_SIZE_MAX))
    }

    pub(super) fn offset(self) -> i64 {
        i64::from(self.number.max(1) - 1) * self.limit()
    }
}

/// Part of a list, and how long the whole is.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed<T> {
    /// The page's rows.
    pub rows: Vec<T>,
    /// Rows in all.
    pub total: u64,
}

/// A bot as stored, with its recording.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredBot {
    /// The bot.
    pub bot: Bot,
    /// Its recording, if it records.
    pub recording: Option<Recording>,
}

/// A bot that waits, as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueuedBot {
    /// Which.
    pub bot_id: BotId,
    /// Whose line.
    pub platform: Platform,
    /// Whose bot.
    pub user_id: UserId,
    /// Lower comes first.
    pub priority: i16,
    /// Where it stands in its line, counted from 1.
    pub position: i64,
    /// Since when.
    pub queued_at: DateTime<Utc>,
    /// When it gives up.
    pub deadline_at: DateTime<Utc>,
}

/// A line of a bot's history with its number.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredEvent {
    /// Counted up over all events.
    pub id: i64,
    /// The line.
    pub event: BotEvent,
}

/// A user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Its number; the first, `admin`, is 1.
    pub id: UserId,
    /// Its name.
    pub name: String,
    /// What its contract says.
    pub plan: Plan,
    /// Whether it may ask for what concerns every user.
    pub is_operator: bool,
    /// Since when.
    pub created_at: DateTime<Utc>,
}

/// An API key, without the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// Its number.
    pub id: i64,
    /// Whose.
    pub user_id: UserId,
    /// What its owner calls it.
    pub name: String,
    /// Its first characters, for people to know it by.
    pub prefix: String,
    /// Since when.
    pub created_at: DateTime<Utc>,
    /// Until when, if it was revoked.
    pub revoked_at: Option<DateTime<Utc>>,
}

/// Who this installation is.
#[derive(Clone, PartialEq, Eq)]
pub struct Installation {
    /// Its id, which its containers carry.
    pub id: Uuid,
    /// What its tokens are made with.
    pub secret: Vec<u8>,
}

impl std::fmt::Debug for Installation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Installation").field("id", &self.id).field("secret", &"***").finish()
    }
}

/// What is stored of an API key.
pub fn hash_of_key(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

pub(super) const USER_COLUMNS: &str = "id, name, plan, is_operator, created_at";
pub(super) const API_KEY_COLUMNS: &str = "id, user_id, name, prefix, created_at, revoked_at";

impl Pool {
    /// A user's bot.
    pub async fn get_bot(&self, user: UserId, id: BotId) -> Result<Option<StoredBot>, QueryError> {
        let text = format!("SELECT {} FROM bots WHERE id = $1 AND user_id = $2", names(&bot_columns(&[])));
        let Some(row) = self.row("a bot", &text, &[&id.0, &user.0]).await? else { return Ok(None) };
        let mut recordings = self.recordings_of(&[id.0]).await?;
        Ok(Some(StoredBot { bot: bot_from(&row)?, recording: recordings.remove(&id) }))
    }

    /// A bot, whosever it is.
    pub async fn find_bot(&self, id: BotId) -> Result<Option<Bot>, QueryError> {
        let text = format!("SELECT {} FROM bots WHERE id = $1", names(&bot_columns(&[])));
        let row = self.row("a bot", &text, &[&id.0]).await?;
        Ok(row.as_ref().map(bot_from).transpose()?)
    }

    /// A user's bots, latest first.
    pub async fn list_bots(&self, user: UserId, page: Page) -> Result<Listed<StoredBot>, QueryError> {
        let text = format!(
            "SELECT {} FROM bots WHERE user_id = $1 ORDER BY id DESC LIMIT $2 OFFSET $3",
            names(&bot_columns(&[]))
        );
        let rows = self.rows("a user's bots", &text, &[&user.0, &page.limit(), &page.offset()]).await?;
        let total =
            self.count("how many bots", "SELECT count(*) FROM bots WHERE user_id = $1", user.0).await?;
        Ok(Listed { rows: self.with_recordings(&rows).await?, total })
    }

    /// Everybody's bots, latest first.
    pub async fn list_all_bots(&self, page: Page) -> Result<Listed<StoredBot>, QueryError> {
        let text =
            format!("SELECT {} FROM bots ORDER BY id DESC LIMIT $1 OFFSET $2", names(&bot_columns(&[])));
        let rows = self.rows("all bots", &text, &[&page.limit(), &page.offset()]).await?;
        let total = self.count("how many bots", "SELECT count(*) FROM bots WHERE id > $1", 0).await?;
        Ok(Listed { rows: self.with_recordings(&rows).await?, total })
    }

    /// A bot with its recording, whosever it is.
    pub async fn get_anyones_bot(&self, id: BotId) -> Result<Option<StoredBot>, QueryError> {
        let Some(bot) = self.find_bot(id).await? else { return Ok(None) };
        let recording = self.recordings_of(&[id.0]).await?.remove(&id);
        Ok(Some(StoredBot { bot, recording }))
    }

    /// The queue in its order, platform by platform.
    pub async fn list_queue(&self, page: Page) -> Result<Listed<QueuedBot>, QueryError> {
        let text = "SELECT bot_id, platform, user_id, priority, queued_at, deadline_at, \
                    row_number() OVER (PARTITION BY platform ORDER BY priority, turn, arrival) AS position \
                    FROM bot_pool_queue ORDER BY platform, position LIMIT $1 OFFSET $2";
        let rows = self.rows("the queue", text, &[&page.limit(), &page.offset()]).await?;
        let total =
            self.count("how many wait", "SELECT count(*) FROM bot_pool_queue WHERE bot_id > $1", 0).await?;
        let rows = rows.iter().map(queued_bot_from).collect::<Result<Vec<_>, QueryError>>()?;
        Ok(Listed { rows, total })
    }

    async fn with_recordings(&self, rows: &[Row]) -> Result<Vec<StoredBot>, QueryError> {
        let bots = rows.iter().map(bot_from).collect::<Result<Vec<_>, _>>()?;
        let mut recordings = self.recordings_of(&bots.iter().map(|bot| bot.id.0).collect::<Vec<_>>()).await?;
        Ok(bots.into_iter().map(|bot| StoredBot { recording: recordings.remove(&bot.id), bot }).collect())
    }

    /// A bot's history, oldest first. Whose the bot is, is for the caller to have seen.
    pub async fn list_events(&self, bot: BotId, page: Page) -> Result<Listed<StoredEvent>, QueryError> {
        let text = format!(
            "SELECT id, {} FROM events WHERE bot_id = $1 ORDER BY id LIMIT $2 OFFSET $3",
            names(&event_columns(&[]))
        );
        let rows = self.rows("a bot's events", &text, &[&bot.0, &page.limit(), &page.offset()]).await?;
        let total =
            self.count("how many events", "SELECT count(*) FROM events WHERE bot_id = $1", bot.0).await?;
        let rows = rows
            .iter()
            .map(|row| Ok(StoredEvent { id: get(row, "id")?, event: event_from(row)? }))
            .collect::<Result<Vec<_>, QueryError>>()?;
        Ok(Listed { rows, total })
    }

    /// What a client's key was used for.
    pub async fn find_idempotency_key(
        &self,
        user: UserId,
        key: &str,
    ) -> Result<Option<IdempotencyKey>, QueryError> {
        let text = format!(
            "SELECT {} FROM idempotency_keys WHERE user_id = $1 AND key = $2",
            names(&idempotency_key_columns(&[]))
        );
        let row = self.row("an idempotency key", &text, &[&user.0, &key]).await?;
        Ok(row.as_ref().map(idempotency_key_from).transpose()?)
    }

    /// The API key with this SHA-256, unless it was revoked.
    pub async fn find_api_key(&self, hash: &[u8; 32]) -> Result<Option<ApiKey>, QueryError> {
        let text =
            format!("SELECT {API_KEY_COLUMNS} FROM api_keys WHERE key_hash = $1 AND revoked_at IS NULL");
        let row = self.row("an API key", &text, &[&hash.as_slice()]).await?;
        row.as_ref().map(api_key_from).transpose()
    }

    /// The API key of this number, unless it was revoked.
    pub async fn get_api_key(&self, id: i64) -> Result<Option<ApiKey>, QueryError> {
        let text = format!("SELECT {API_KEY_COLUMNS} FROM api_keys WHERE id = $1 AND revoked_at IS NULL");
        self.row("an API key by its number", &text, &[&id]).await?.as_ref().map(api_key_from).transpose()
    }

    /// A user's API keys, revoked ones too.
    pub async fn list_api_keys(&self, user: UserId) -> Result<Vec<ApiKey>, QueryError> {
        let text = format!(
            "SELECT {API_KEY_COLUMNS} FROM api_keys WHERE user_id = $1 ORDER BY id DESC LIMIT {PAGE_SIZE_MAX}"
        );
        self.rows("a user's API keys", &text, &[&user.0]).await?.iter().map(api_key_from).collect()
    }

    /// Keeps a new API key's SHA-256.
    pub async fn insert_api_key(
        &self,
        user: UserId,
        name: &str,
        prefix: &str,
        hash: &[u8; 32],
    ) -> Result<ApiKey, QueryError> {
        let text = format!(
            "INSERT INTO api_keys (user_id, name, prefix, key_hash) VALUES ($1, $2, $3, $4) \
             RETURNING {API_KEY_COLUMNS}"
        );
        let rows = self.rows("a new API key", &text, &[&user.0, &name, &prefix, &hash.as_slice()]).await?;
        api_key_from(only(&rows, "a new API key")?)
    }

    /// Revokes a user's API key; false where there is none to revoke.
    pub async fn revoke_api_key(&self, user: UserId, id: i64) -> Result<bool, QueryError> {
        let text = "UPDATE api_keys SET revoked_at = now() \
                    WHERE id = $1 AND user_id = $2 AND revoked_at IS NULL RETURNING id";
        Ok(self.row("the end of an API key", text, &[&id, &user.0]).await?.is_some())
    }

    /// Who this installation is.
    pub async fn installation(&self) -> Result<Installation, QueryError> {
        let rows = self.rows("the installation", "SELECT id, secret FROM installation", &[]).await?;
        let row = only(&rows, "the installation")?;
        Ok(Installation { id: get(row, "id")?, secret: get(row, "secret")? })
    }

    /// The user of this number.
    pub async fn get_user(&self, id: UserId) -> Result<Option<User>, QueryError> {
        let text = format!("SELECT {USER_COLUMNS} FROM users WHERE id = $1");
        self.row("a user", &text, &[&id.0]).await?.as_ref().map(user_from).transpose()
    }

    /// The user of this name, made if there is none.
    pub async fn user_named(&self, name: &str) -> Result<User, QueryError> {
        // The update changes nothing; it makes the row that is there the answer.
        let text = format!(
            "INSERT INTO users (name) VALUES ($1) \
             ON CONFLICT (name) DO UPDATE SET name = excluded.name RETURNING {USER_COLUMNS}"
        );
        let rows = self.rows("a user by name", &text, &[&name]).await?;
        user_from(only(&rows, "a user by name")?)
    }

    pub(super) async fn recordings_of(&self, bots: &[i64]) -> Result<HashMap<BotId, Recording>, QueryError> {
        let text =
            format!("SELECT {} FROM recordings WHERE bot_id = ANY($1)", names(&recording_columns(&[])));
        let rows = self.rows("recordings", &text, &[&bots]).await?;
        rows.iter()
            .map(|row| {
                let recording = recording_from(row)?;
                Ok((recording.bot_id, recording))
            })
            .collect()
    }

    pub(super) async fn count(&self, query: &'static str, text: &str, of: i64) -> Result<u64, QueryError> {
        let rows = self.rows(query, text, &[&of]).await?;
        let count: i64 = get(only(&rows, query)?, "count")?;
        Ok(count.unsigned_abs())
    }
}

/// The row of a statement that always answers with one.
fn only<'r>(rows: &'r [Row], query: &'static str) -> Result<&'r Row, QueryError> {
    rows.first().ok_or_else(|| QueryError::Unavailable { query, cause: "no row".to_owned() })
}

fn queued_bot_from(row: &Row) -> Result<QueuedBot, QueryError> {
    Ok(QueuedBot {
        bot_id: BotId(get(row, "bot_id")?),
        platform: Platform(get(row, "platform")?),
        user_id: UserId(get(row, "user_id")?),
        priority: get(row, "priority")?,
        position: get(row, "position")?,
        queued_at: get(row, "queued_at")?,
        deadline_at: get(row, "deadline_at")?,
    })
}

pub(super) fn api_key_from(row: &Row) -> Result<ApiKey, QueryError> {
    Ok(ApiKey {
        id: get(row, "id")?,
        user_id: UserId(get(row, "user_id")?),
        name: get(row, "name")?,
        prefix: get(row, "prefix")?,
        created_at: get(row, "created_at")?,
        revoked_at: get(row, "revoked_at")?,
    })
}

pub(super) fn user_from(row: &Row) -> Result<User, QueryError> {
    let (id, plan): (i64, String) = (get(row, "id")?, get(row, "plan")?);
    let Some(plan) = Plan::named(&plan) else {
        return Err(DecodeError::Unknown { row: format!("user {id}"), column: "plan", value: plan }.into());
    };
    Ok(User {
        id: UserId(id),
        name: get(row, "name")?,
        plan,
        is_operator: get(row, "is_operator")?,
        created_at: get(row, "created_at")?,
    })
}
