//! The database of this server: the one that is configured, or a private one.

use super::StartError;
use crate::config::Settings;
use crate::store::data_dir::DataDir;
use crate::store::database::Database as Place;
use crate::store::embedded::{Durability, Embedded, EmbeddedError};
use crate::store::journal::{Claim, JournalConnection};
use crate::store::lead::LeadError;
use crate::store::pool::{Pool, PoolSetupError};
use slog::Logger;
use tokio::runtime::Handle;

/// The private database's name.
const NAME: &str = "meeboter";

/// See the module.
pub(super) struct Database {
    embedded: Option<Embedded>,
    place: Place,
}

impl Database {
    /// Finds the configured one, or starts a private one.
    pub(super) async fn start(
        settings: &Settings,
        data_dir: &DataDir,
        log: &Logger,
    ) -> Result<Self, StartError> {
        match &settings.database.url {
            url if url.is_empty() => {
                let embedded = Embedded::start(data_dir, Durability::Full, Handle::current(), log).await?;
                let place = embedded.database(NAME).await?;
                Ok(Self { embedded: Some(embedded), place })
            }
            url => Ok(Self { embedded: None, place: Place::parse(url.expose(), Handle::current())? }),
        }
    }

    /// Whether other servers may use it too.
    pub(super) fn is_shared(&self) -> bool {
        self.embedded.is_none()
    }

    /// Takes the lead.
    pub(super) async fn claim(&self, claim: Claim, log: &Logger) -> Result<JournalConnection, LeadError> {
        JournalConnection::take_lead(&self.place, claim, log).await
    }

    /// Connections for reads, so many at most. The schema must be there.
    pub(super) async fn pool(&self, connections_max: usize) -> Result<Pool, PoolSetupError> {
        Pool::connect(&self.place, connections_max).await
    }

    /// Starts a private database again that has died.
    pub(super) async fn look_after(&self) -> Result<(), EmbeddedError> {
        match &self.embedded {
            Some(embedded) => embedded.ensure_running().await.map(drop),
            None => Ok(()),
        }
    }

    /// Stops a private database.
    pub(super) async fn stop(&self) -> Result<(), EmbeddedError> {
        match &self.embedded {
            Some(embedded) => embedded.stop().await,
            None => Ok(()),
        }
    }
}
