//! A world in which nothing was ever left behind: no rows of ended bots, no spools, no disks. Maintenance does nothing.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use meeboter_actors::ids::BotId;
use meeboter_actors::ports::{
    Archive, ArchiveError, Disk, Disks, EndedBot, EventId, Spool, SpoolError, Spools,
};

pub struct Bare;

#[async_trait]
impl Archive for Bare {
    async fn ended_bots(
        &self,
        _: DateTime<Utc>,
        _: Option<(DateTime<Utc>, BotId)>,
        _: u32,
    ) -> Result<Vec<EndedBot>, ArchiveError> {
        Ok(vec![])
    }

    async fn events_of(&self, _: &[BotId], _: u32) -> Result<Vec<EventId>, ArchiveError> {
        Ok(vec![])
    }
}

#[async_trait]
impl Spools for Bare {
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

#[async_trait]
impl Disks for Bare {
    async fn look(&self) -> Vec<Disk> {
        vec![]
    }
}
