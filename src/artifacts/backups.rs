//! Backups in the store: objects under a prefix of their own, which no recording has. What is in them is not known here.

use super::pieces::Listed;
use super::upload::Target;
use super::{Failure, S3Artifacts};
use tokio::io::AsyncRead;

/// Where they are in the bucket.
const PREFIX: &str = "backups/";

/// A backup that is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    /// Its name; names sort by time.
    pub name: String,
    /// Its size.
    pub bytes: u64,
}

impl S3Artifacts {
    /// Stores what comes out of `source`; says how many bytes. `whole` is asked at its end whether that was all of it; if
    /// not, or where the store fails, nothing is stored.
    pub async fn put_backup(
        &self,
        name: &str,
        source: &mut (impl AsyncRead + Unpin),
        whole: impl Future<Output = Result<(), Failure>>,
    ) -> Result<u64, Failure> {
        let target = Target {
            client: &self.store.client,
            bucket: &self.store.settings.bucket,
            key: &format!("{PREFIX}{name}"),
            content_type: "application/octet-stream",
        };
        target.upload_from(source, whole).await
    }

    /// All backups, the oldest first.
    pub async fn backups(&self) -> Result<Vec<Backup>, Failure> {
        let listed = self.store.list(PREFIX).await?.into_iter();
        let backup = |Listed { key, bytes }: Listed| {
            Some(Backup { name: key.strip_prefix(PREFIX)?.to_owned(), bytes })
        };
        let mut backups: Vec<Backup> = listed.filter_map(backup).collect();
        backups.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(backups)
    }

    /// Reads a backup; `None` where there is none of this name.
    pub async fn read_backup(&self, name: &str) -> Result<Option<impl AsyncRead + Unpin + use<>>, Failure> {
        let (bucket, key) = (&self.store.settings.bucket, format!("{PREFIX}{name}"));
        match self.store.client.get_object().bucket(bucket).key(&key).send().await {
            Ok(answer) => Ok(Some(answer.body.into_async_read())),
            Err(error) => match Failure::store(format!("read {bucket}/{key}"), error) {
                missing if missing.is_missing() => Ok(None),
                failure => Err(failure),
            },
        }
    }

    /// Removes a backup; one that is gone already does no harm.
    pub async fn remove_backup(&self, name: &str) -> Result<(), Failure> {
        self.store.remove(&format!("{PREFIX}{name}")).await
    }
}
