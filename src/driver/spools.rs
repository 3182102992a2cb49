//! What bots recorded and did not live to upload, as far as it is on this host, and its way to the object store.

use crate::artifacts::S3Artifacts;
use async_trait::async_trait;
use meeboter_actors::ids::ContainerKey;
use meeboter_actors::ports::{DriverError, Spool, SpoolError, Spools};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Who knows where spools are.
#[async_trait]
pub trait SpoolSource: Send + Sync + 'static {
    /// Those of bots of which nothing runs any more.
    async fn spools(&self) -> Result<Vec<Spool>, DriverError>;
    /// The files in a spool by the number of their run, in the order of their upload.
    async fn spooled(&self, key: ContainerKey) -> Result<Vec<(u32, PathBuf)>, DriverError>;
}

/// See the module.
pub struct HostSpools {
    source: Arc<dyn SpoolSource>,
    artifacts: S3Artifacts,
}

impl HostSpools {
    /// The spools of `source`, on their way to `artifacts`.
    pub fn new(source: Arc<dyn SpoolSource>, artifacts: S3Artifacts) -> Self {
        Self { source, artifacts }
    }

    async fn files(&self, spool: &Spool) -> Result<Vec<(u32, PathBuf)>, SpoolError> {
        self.source.spooled(spool.key).await.map_err(|error| SpoolError(error.to_string()))
    }
}

#[async_trait]
impl Spools for HostSpools {
    async fn find(&self) -> Result<Vec<Spool>, SpoolError> {
        self.source.spools().await.map_err(|error| SpoolError(error.to_string()))
    }

    async fn deliver(&self, spool: &Spool) -> Result<u32, SpoolError> {
        let mut pieces = 0;
        for (run, path) in self.files(spool).await? {
            if is_piece(&path) {
                let put = self.artifacts.put_piece(spool.bot_id, spool.key.generation, run, path.clone());
                put.await.map_err(|error| SpoolError(error.to_string()))?;
                pieces += 1;
            }
            remove(&path).await?;
        }
        Ok(pieces)
    }

    async fn discard(&self, spool: &Spool) -> Result<(), SpoolError> {
        for (_, path) in self.files(spool).await? {
            remove(&path).await?;
        }
        Ok(())
    }
}

/// Bots whose spools nobody here can read.
pub struct NoSpools;

#[async_trait]
impl Spools for NoSpools {
    async fn find(&self) -> Result<Vec<Spool>, SpoolError> {
        Ok(Vec::new())
    }

    async fn deliver(&self, spool: &Spool) -> Result<u32, SpoolError> {
        Err(SpoolError(format!("the spool of bot {} cannot be reached", spool.bot_id)))
    }

    async fn discard(&self, spool: &Spool) -> Result<(), SpoolError> {
        Err(SpoolError(format!("the spool of bot {} cannot be reached", spool.bot_id)))
    }
}

/// Whether a bot had finished it: what is still being written has another name, and the list is of no more use.
fn is_piece(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "m4s" || extension == "mp4")
}

/// One that is gone already was taken care of.
async fn remove(path: &Path) -> Result<(), SpoolError> {
    match tokio::fs::remove_file(path).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(SpoolError(format!("cannot remove {}: {error}", path.display())))
        }
        _ => Ok(()),
    }
}
