//! The database of this server: the one that is configured, or a private one.

use super::StartError;
use crate::config::Settings;
use crate::store::data_dir::DataDir;
use crate::store::database::Database as Place;
use crate::store::embedded::{Durability, Embedded, EmbeddedError};
use crate::store::journal::JournalConnection;
use crate::store::pool::Pool;
use crate::telemetry::chain;
use slog::Logger;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;

/// How long a start waits for a server that is just stopping to give up the lead.
const LEAD_PATIENCE: Duration = Duration::from_secs(2);
/// The private database's name.
const NAME: &str = "meeboter";

/// See the module.
pub(super) struct Database {
    embedded: Option<Embedded>,
    journal: Arc<JournalConnection>,
    pool: Pool,
}

impl Database {
    /// Connects, takes the lead and brings the schema up to date.
    pub(super) async fn start(
        settings: &Settings,
        data_dir: &DataDir,
        log: &Logger,
    ) -> Result<Self, StartError> {
        let (embedded, place) = match &settings.database.url {
            url if url.is_empty() => {
                let embedded = Embedded::start(data_dir, Durability::Full, Handle::current(), log).await?;
                let place = embedded.database(NAME).await?;
                (Some(embedded), place)
            }
            url => (None, Place::parse(url.expose(), Handle::current())?),
        };
        let journal = Arc::new(JournalConnection::take_lead(&place, LEAD_PATIENCE, log).await?);
        let pool = Pool::connect(&place).await?;
        Ok(Self { embedded, journal, pool })
    }

    /// The writer.
    pub(super) fn journal(&self) -> Arc<JournalConnection> {
        Arc::clone(&self.journal)
    }

    /// Reads.
    pub(super) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Starts a private database again that has died, and sees that this server still leads.
    pub(super) async fn look_after(&self) -> Result<(), String> {
        if let Some(embedded) = &self.embedded {
            embedded.ensure_running().await.map_err(|error| chain(&error))?;
        }
        self.journal.confirm_lead().await.map_err(|error| error.to_string())
    }

    /// Stops a private database.
    pub(super) async fn stop(&self) -> Result<(), EmbeddedError> {
        match &self.embedded {
            Some(embedded) => embedded.stop().await,
            None => Ok(()),
        }
    }
}
