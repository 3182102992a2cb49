//! Rows of ended bots, for retention: read through the pool, so that no commit waits for them.

use super::pool::{Pool, QueryError};
use super::rows::get;
use crate::telemetry::chain;
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use meeboter_actors::ids::BotId;
use meeboter_actors::ports::{Archive, ArchiveError, EndedBot, EventId};
use tokio_postgres::types::ToSql;

/// A page by its key: however many rows there are, each page costs the same.
const ENDED_BOTS: &str = "SELECT id, ended_at FROM bots \
    WHERE ended_at <= $1 AND (ended_at, id) > ($2, $3) \
    AND NOT EXISTS (SELECT FROM bot_pool_slots WHERE assigned_bot_id = bots.id) \
    ORDER BY ended_at, id LIMIT $4";
const EVENTS: &str = "SELECT id FROM events WHERE bot_id = ANY($1) ORDER BY bot_id, id LIMIT $2";

#[async_trait]
impl Archive for Pool {
    async fn ended_bots(
        &self,
        until: DateTime<Utc>,
        after: Option<(DateTime<Utc>, BotId)>,
        max: u32,
    ) -> Result<Vec<EndedBot>, ArchiveError> {
        let (ended_at, id) = after.unwrap_or((DateTime::UNIX_EPOCH, BotId(0)));
        let params: [&(dyn ToSql + Sync); 4] = [&until, &ended_at, &id.0, &i64::from(max)];
        let page = async {
            let rows = self.rows("ended bots", ENDED_BOTS, &params).await?;
            let ended = rows.iter().map(|row| Ok((BotId(get(row, "id")?), get(row, "ended_at")?)));
            let ended = ended.collect::<Result<Vec<(BotId, DateTime<Utc>)>, QueryError>>()?;
            let mut recordings =
                self.recordings_of(&ended.iter().map(|(id, _)| id.0).collect::<Vec<_>>()).await?;
            let with_recording =
                |(id, ended_at)| EndedBot { id, ended_at, recording: recordings.remove(&id) };
            Ok(ended.into_iter().map(with_recording).collect())
        };
        page.await.map_err(|error: QueryError| ArchiveError(chain(&error)))
    }

    async fn events_of(&self, bots: &[BotId], max: u32) -> Result<Vec<EventId>, ArchiveError> {
        let bots: Vec<i64> = bots.iter().map(|bot| bot.0).collect();
        let read = async {
            let rows = self.rows("events of ended bots", EVENTS, &[&bots, &i64::from(max)]).await?;
            let events = rows.iter().map(|row| Ok(EventId(get(row, "id")?)));
            events.collect::<Result<Vec<_>, QueryError>>()
        };
        read.await.map_err(|error| ArchiveError(chain(&error)))
    }
}
