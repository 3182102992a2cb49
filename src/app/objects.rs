//! The object store of this server: the one that is configured, or an embedded one behind this server's own port.

use super::StartError;
use crate::artifacts::embedded::EmbeddedS3;
use crate::artifacts::proxy::ObjectProxy;
use crate::artifacts::{S3Artifacts, S3Keys, S3Settings};
use crate::config::Settings;
use slog::Logger;
use std::path::Path;

/// See the module.
pub(super) struct Objects {
    artifacts: S3Artifacts,
    proxy: Option<ObjectProxy>,
    _embedded: Option<EmbeddedS3>,
}

impl Objects {
    /// Starts the embedded one where none is configured, and sees that the bucket is there.
    pub(super) async fn start(
        settings: &Settings,
        data_dir: &Path,
        log: &Logger,
    ) -> Result<Self, StartError> {
        let s3 = &settings.s3;
        let embedded = match s3.endpoint.as_str() {
            "" => Some(EmbeddedS3::start(data_dir, log.clone()).await?),
            _ => None,
        };
        let (endpoint, keys) = match &embedded {
            Some(embedded) => (embedded.endpoint(), embedded.keys().clone()),
            None => {
                let secret_key = s3.secret_key.expose().to_owned();
                (s3.endpoint.clone(), S3Keys { access_key: s3.access_key.clone(), secret_key })
            }
        };
        let bucket = s3.bucket.clone();
        let proxy = embedded
            .as_ref()
            .map(|embedded| ObjectProxy::new(embedded.address(), bucket.clone(), log.clone()));
        let store = S3Settings {
            endpoint,
            region: s3.region.clone(),
            bucket,
            keys,
            temp_dir: data_dir.join("join"),
            join_bytes_max: S3Settings::JOIN_BYTES_MAX,
        };
        let artifacts = S3Artifacts::new(store, log.clone())?;
        artifacts.ensure_bucket().await?;
        Ok(Self { artifacts, proxy, _embedded: embedded })
    }

    /// Segments and recordings.
    pub(super) fn artifacts(&self) -> &S3Artifacts {
        &self.artifacts
    }

    /// The way to the embedded store through this server's port, where there is one.
    pub(super) fn proxy(&self) -> Option<ObjectProxy> {
        self.proxy.clone()
    }
}
