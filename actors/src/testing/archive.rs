//! What maintenance and the collector look at, in memory: rows of ended bots, disks with room, hosts without spools.

use super::world::Shared;
use crate::ids::BotId;
use crate::ports::{Archive, ArchiveError, Disk, Disks, EndedBot, EventId, Spool, SpoolError, Spools};
use async_trait::async_trait;
use chrono::{DateTime, Utc};

/// The rows of a world's ended bots; their histories are not kept there.
pub struct FakeArchive(pub Shared);

#[async_trait]
impl Archive for FakeArchive {
    async fn ended_bots(
        &self,
        until: DateTime<Utc>,
        after: Option<(DateTime<Utc>, BotId)>,
        max: u32,
    ) -> Result<Vec<EndedBot>, ArchiveError> {
        self.0.delay(1, 20).await;
        let world = self.0.lock();
        let tables = &world.tables;
        let held = |id: BotId| tables.slots.values().any(|slot| slot.bot().is_some_and(|bot| bot.id == id));
        let ended = tables.bots.values().filter_map(|bot| Some((bot.ended_at?, bot.id)));
        let mut ended: Vec<_> =
            ended.filter(|(at, id)| *at <= until && Some((*at, *id)) > after && !held(*id)).collect();
        ended.sort();
        ended.truncate(max as usize);
        let with_recording =
            |(ended_at, id)| EndedBot { id, ended_at, recording: tables.recordings.get(&id).cloned() };
        Ok(ended.into_iter().map(with_recording).collect())
    }

    async fn events_of(&self, _: &[BotId], _: u32) -> Result<Vec<EventId>, ArchiveError> {
        Ok(vec![])
    }
}

/// One disk with room.
pub struct RoomyDisks;

#[async_trait]
impl Disks for RoomyDisks {
    async fn look(&self) -> Vec<Disk> {
        vec![Disk { name: "data".to_owned(), free_bytes: 90, total_bytes: 100 }]
    }
}

/// No bot left anything behind.
pub struct NoSpools;

#[async_trait]
impl Spools for NoSpools {
    async fn find(&self) -> Result<Vec<Spool>, SpoolError> {
        Ok(vec![])
    }

    async fn deliver(&self, _: &Spool) -> Result<u32, SpoolError> {
        Ok(0)
    }

    async fn discard(&self, _: &Spool) -> Result<(), SpoolError> {
        Ok(())
    }
}
