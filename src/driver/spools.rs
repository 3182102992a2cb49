//! What bots of this host recorded and did not live to upload, and its way to the object store.

use super::process::ProcessDriver;
use crate::artifacts::S3Artifacts;
use async_trait::async_trait;
use meeboter_actors::ports::{Spool, SpoolError, Spools};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// See the module.
pub struct HostSpools {
    driver: Arc<ProcessDriver>,
    artifacts: S3Artifacts,
}

impl HostSpools {
    /// The spools on the host of `driver`, on their way to `artifacts`.
    pub fn new(driver: Arc<ProcessDriver>, artifacts: S3Artifacts) -> Self {
        Self { driver, artifacts }
    }

    async fn files(&self, spool: &Spool) -> Result<Vec<(u32, PathBuf)>, SpoolError> {
        self.driver.spooled(spool.key).await.map_err(|error| SpoolError(error.to_string()))
    }
}

#[async_trait]
impl Spools for HostSpools {
    async fn find(&self) -> Result<Vec<Spool>, SpoolError> {
        self.driver.spools().await.map_err(|error| SpoolError(error.to_string()))
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
