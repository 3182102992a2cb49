//! Why the server does not start, or stops.

use super::engine::EngineError;
use crate::artifacts::Failure;
use crate::artifacts::embedded::EmbeddedError as EmbeddedS3Error;
use crate::store::data_dir::DataDirError;
use crate::store::database::DatabaseError;
use crate::store::embedded::EmbeddedError;
use crate::store::lead::LeadError;
use crate::store::pool::{PoolSetupError, QueryError};
use meeboter_actors::ports::StoreError;
use std::io;
use std::path::PathBuf;

/// See the module.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum StartError {
    #[error("cannot listen on {bind}:{port} (server.bind, server.port); is something else listening there?")]
    Bind { bind: String, port: u16, source: io::Error },
    #[error("cannot listen")]
    Listen(#[source] io::Error),
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    #[error(transparent)]
    EmbeddedDatabase(#[from] EmbeddedError),
    #[error(transparent)]
    Database(#[from] DatabaseError),
    #[error(transparent)]
    Lead(#[from] LeadError),
    #[error(transparent)]
    Pool(#[from] PoolSetupError),
    #[error("the database does not answer")]
    Query(#[from] QueryError),
    #[error("the rows could not be loaded")]
    Load(#[source] StoreError),
    #[error("the first API key could not be written to {path}")]
    KeyFile { path: PathBuf, source: io::Error },
    #[error("the embedded object store does not start")]
    EmbeddedObjects(#[from] EmbeddedS3Error),
    #[error("the object store cannot be used (s3.endpoint, s3.bucket)")]
    Objects(#[from] Failure),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("the metrics cannot be set up")]
    Metrics(#[source] prometheus::Error),
    #[error("signals cannot be received")]
    Signals,
    #[error("{0}")]
    Broken(String),
}

impl StartError {
    /// Whether it was the database that did not answer: another try may succeed.
    pub(super) fn may_pass(&self) -> bool {
        matches!(self, Self::Query(QueryError::Unavailable { .. }) | Self::Load(StoreError::Unavailable(_)))
    }
}
