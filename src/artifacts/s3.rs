//! The client of the S3 store: counts, joins, signs.

use super::pieces::{Listed, is_media, piece_key};
use super::upload::Target;
use super::{Failure, join};
use async_trait::async_trait;
use aws_credential_types::Credentials;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Builder, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    SharedHttpClient,
};
use aws_sdk_s3::presigning::PresigningConfig;
use aws_sdk_s3::types::{BucketLocationConstraint, CreateBucketConfiguration};
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use meeboter_actors::ids::{BotId, Generation};
use meeboter_actors::ports::{Artifacts, ArtifactsError};
use meeboter_actors::recording::Joined;
use meeboter_actors::recording::plan::joined_prefix;
use meeboter_bot::{recording_prefix, segment_prefix};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use url::Url;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(60);
const OPERATION_TIMEOUT: Duration = Duration::from_secs(150);
const ATTEMPTS_MAX: u32 = 3;
/// Public addresses whose signers are kept; a request may name any host, so there must be a bound.
const SIGNERS_MAX: usize = 16;
/// The region that wants no location.
const DEFAULT_REGION: &str = "us-east-1";
/// Segments of one recording that are looked at: about a hundred hours.
const LISTED_MAX: usize = 100_000;

/// The keys to a store. Prints without the secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct S3Keys {
    /// The public half.
    pub access_key: String,
    /// The secret half.
    pub secret_key: String,
}

impl fmt::Debug for S3Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Keys").field("access_key", &self.access_key).field("secret_key", &"***").finish()
    }
}

/// Which store, and how recordings are joined.
#[derive(Debug, Clone)]
pub struct S3Settings {
    /// The address by which this server reaches the store.
    pub endpoint: String,
    /// Its region.
    pub region: String,
    /// The bucket.
    pub bucket: String,
    /// The keys.
    pub keys: S3Keys,
    /// Where recordings are joined.
    pub temp_dir: PathBuf,
    /// The most that one recording's segments may be together.
    pub join_bytes_max: u64,
}

impl S3Settings {
    /// A bound for [`Self::join_bytes_max`] that fits most disks.
    pub const JOIN_BYTES_MAX: u64 = 8 * 1024 * 1024 * 1024;
}

/// See the module. Calls run in tasks of their own, on the runtime it was made in; cheap to clone.
#[derive(Clone)]
pub struct S3Artifacts {
    pub(super) store: Arc<Store>,
    runtime: Handle,
}

pub(super) struct Store {
    pub(super) client: Client,
    pub(super) settings: S3Settings,
    http: SharedHttpClient,
    /// The last used first.
    signers: Mutex<VecDeque<(String, Client)>>,
    /// One join at a time, also where an actor died and its successor asks again.
    pub(super) joins: Semaphore,
    pub(super) log: slog::Logger,
}

impl S3Artifacts {
    /// A client; nothing is asked of the store yet. Temporary files of an earlier server are removed.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn new(settings: S3Settings, log: slog::Logger) -> Result<Self, Failure> {
        let endpoint = base_url("the S3 endpoint", &settings.endpoint)?;
        let http = if endpoint.starts_with("https:") {
            aws_smithy_http_client::Builder::new()
                .tls_provider(Provider::Rustls(CryptoMode::Ring))
                .build_https()
        } else {
            aws_smithy_http_client::Builder::new().build_http()
        };
        join::prepare(&settings.temp_dir).map_err(Failure::file("prepare the folder for joining"))?;
        let client = client(&settings, &endpoint, http.clone());
        let (signers, joins) = (Mutex::default(), Semaphore::new(1));
        let store = Store { client, settings, http, signers, joins, log };
        Ok(Self { store: Arc::new(store), runtime: Handle::current() })
    }

    /// Makes the bucket where it is missing.
    pub async fn ensure_bucket(&self) -> Result<(), Failure> {
        let Store { client, settings: S3Settings { bucket, region, endpoint, .. }, log, .. } = &*self.store;
        match client.head_bucket().bucket(bucket).send().await {
            Ok(_) => return Ok(()),
            Err(error) => match Failure::store(format!("find bucket {bucket} at {endpoint}"), error) {
                missing if missing.is_missing() => {}
                failure => return Err(failure),
            },
        }
        let mut request = client.create_bucket().bucket(bucket);
        if region != DEFAULT_REGION {
            let location = BucketLocationConstraint::from(region.as_str());
            let place = CreateBucketConfiguration::builder().location_constraint(location).build();
            request = request.create_bucket_configuration(place);
        }
        match request.send().await {
            Ok(_) => {
                slog::info!(log, "bucket made"; "bucket" => bucket);
                Ok(())
            }
            // Another server was quicker.
            Err(error) if is_there_already(&error) => Ok(()),
            Err(error) => Err(Failure::store(format!("make bucket {bucket} at {endpoint}"), error)),
        }
    }

    /// A URL by which an object can be put for a while, by clients that reach the store at `public_base`.
    /// Whoever puts has to send this content type.
    pub async fn presign_put(
        &self,
        key: &str,
        content_type: &str,
        expires: Duration,
        public_base: &str,
    ) -> Result<String, Failure> {
        let signer = self.store.signer(public_base)?;
        let request = signer.put_object().bucket(&self.store.settings.bucket).key(key);
        let signed = request.content_type(content_type).presigned(valid_for(expires)?).await;
        Ok(signed.map_err(|error| Failure::Presign(error.to_string()))?.uri().to_owned())
    }

    /// A URL by which an object can be read for a while, by clients that reach the store at `public_base`: to be
    /// saved under `file_name` where one is given, to be shown else.
    pub async fn presign_get(
        &self,
        key: &str,
        expires: Duration,
        public_base: &str,
        file_name: Option<&str>,
    ) -> Result<String, Failure> {
        let signer = self.store.signer(public_base)?;
        let mut request = signer.get_object().bucket(&self.store.settings.bucket).key(key);
        if let Some(name) = file_name {
            request = request.response_content_disposition(attachment(name));
        }
        let signed = request.presigned(valid_for(expires)?).await;
        Ok(signed.map_err(|error| Failure::Presign(error.to_string()))?.uri().to_owned())
    }

    /// Puts a finished piece of a recording where its bot would have put it; again does no harm.
    pub async fn put_piece(
        &self,
        bot: BotId,
        generation: Generation,
        run: u32,
        path: PathBuf,
    ) -> Result<(), ArtifactsError> {
        self.detached(move |store| async move {
            let prefix = segment_prefix(bot.0, generation.0);
            let Some(key) = piece_key(&prefix, run, &path) else {
                return Err(Failure::NoPiece(path));
            };
            let target = Target {
                client: &store.client,
                bucket: &store.settings.bucket,
                key: &key,
                content_type: "video/mp4",
            };
            target.upload(&path).await.map(drop)
        })
        .await
    }

    /// Runs a call to its end, whatever becomes of the caller.
    async fn detached<T, F>(&self, call: impl FnOnce(Arc<Store>) -> F) -> Result<T, ArtifactsError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Failure>> + Send + 'static,
    {
        match self.runtime.spawn(call(Arc::clone(&self.store))).await {
            Ok(outcome) => outcome.map_err(ArtifactsError::from),
            Err(error) => {
                let message = format!("the task was cut off: {error}");
                Err(ArtifactsError { message, retryable: true })
            }
        }
    }
}

#[async_trait]
impl Artifacts for S3Artifacts {
    async fn count_segments(&self, bot: BotId, generation: Generation) -> Result<u32, ArtifactsError> {
        let prefix = segment_prefix(bot.0, generation.0);
        let count = |store: Arc<Store>| async move {
            let listed = store.list(&prefix).await?;
            let media = listed.iter().filter(|object| is_media(&prefix, &object.key)).count();
            Ok(u32::try_from(media).unwrap_or(u32::MAX))
        };
        self.detached(count).await
    }

    async fn join(
        &self,
        bot: BotId,
        generation: Generation,
        key: &str,
    ) -> Result<Option<Joined>, ArtifactsError> {
        let key = key.to_owned();
        self.detached(|store| async move { join::join(&store, bot, generation, &key).await }).await
    }

    async fn remove(&self, bot: BotId) -> Result<u32, ArtifactsError> {
        self.detached(move |store| async move { store.remove_all(bot).await }).await
    }
}

impl Store {
    /// Removes all segments and recordings of a bot, until a listing is empty.
    async fn remove_all(&self, bot: BotId) -> Result<u32, Failure> {
        let mut removed = 0;
        for prefix in [recording_prefix(bot.0), joined_prefix(bot)] {
            loop {
                let listed = self.list(&prefix).await?;
                if listed.is_empty() {
                    break;
                }
                for object in listed {
                    self.remove(&object.key).await?;
                    removed += 1;
                }
            }
        }
        Ok(removed)
    }

    pub(super) async fn remove(&self, key: &str) -> Result<(), Failure> {
        let bucket = &self.settings.bucket;
        let removed = self.client.delete_object().bucket(bucket).key(key).send().await;
        removed.map(drop).map_err(|error| Failure::store(format!("remove {bucket}/{key}"), error))
    }

    /// Everything under a prefix, page by page.
    pub(super) async fn list(&self, prefix: &str) -> Result<Vec<Listed>, Failure> {
        let bucket = &self.settings.bucket;
        let request = self.client.list_objects_v2().bucket(bucket).prefix(prefix);
        let mut pages = request.into_paginator().send();
        let mut listed = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| Failure::store(format!("list {bucket}/{prefix}"), error))?;
            listed.extend(page.contents.unwrap_or_default().into_iter().filter_map(|object| {
                let bytes = u64::try_from(object.size.unwrap_or_default()).unwrap_or_default();
                Some(Listed { key: object.key?, bytes })
            }));
            if listed.len() > LISTED_MAX {
                slog::warn!(self.log, "too many segments; the rest is left out"; "prefix" => prefix);
                listed.truncate(LISTED_MAX);
                break;
            }
        }
        Ok(listed)
    }

    /// A client that only signs, for the address that the URL will be used with: the host is part of what is signed.
    fn signer(&self, public_base: &str) -> Result<Client, Failure> {
        let base = base_url("the public address of the store", public_base)?;
        let mut signers = self.signers.lock().unwrap_or_else(PoisonError::into_inner);
        let place = signers.iter().position(|(known, _)| *known == base);
        let entry = place.and_then(|place| signers.remove(place)).unwrap_or_else(|| {
            let signer = client(&self.settings, &base, self.http.clone());
            (base, signer)
        });
        let signer = entry.1.clone();
        signers.push_front(entry);
        signers.truncate(SIGNERS_MAX);
        Ok(signer)
    }
}

fn client(settings: &S3Settings, endpoint: &str, http: SharedHttpClient) -> Client {
    let S3Keys { access_key, secret_key } = &settings.keys;
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .operation_attempt_timeout(ATTEMPT_TIMEOUT)
        .operation_timeout(OPERATION_TIMEOUT);
    let config = Builder::new()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .http_client(http)
        .endpoint_url(endpoint)
        .region(Region::new(settings.region.clone()))
        .credentials_provider(Credentials::new(access_key, secret_key, None, None, "settings"))
        .force_path_style(true)
        .timeout_config(timeouts.build())
        .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS_MAX))
        // Else a checksum would be signed into URLs, which whoever puts cannot know.
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
    Client::from_conf(config.build())
}

fn is_there_already<R>(
    error: &aws_sdk_s3::error::SdkError<aws_sdk_s3::operation::create_bucket::CreateBucketError, R>,
) -> bool {
    error
        .as_service_error()
        .is_some_and(|error| error.is_bucket_already_owned_by_you() || error.is_bucket_already_exists())
}

/// Scheme, host and port of an address. A path would break signatures.
fn base_url(what: &'static str, text: &str) -> Result<String, Failure> {
    let unusable = || Failure::Setting { what, value: text.to_owned() };
    let url = Url::parse(text).map_err(|_| unusable())?;
    let is_base = matches!(url.scheme(), "http" | "https")
        && url.has_host()
        && url.path() == "/"
        && url.query().is_none()
        && url.username().is_empty();
    if is_base { Ok(url.as_str().trim_end_matches('/').to_owned()) } else { Err(unusable()) }
}

fn valid_for(expires: Duration) -> Result<PresigningConfig, Failure> {
    PresigningConfig::expires_in(expires).map_err(|error| Failure::Presign(error.to_string()))
}

/// A header value that no name can break out of.
fn attachment(name: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.' | ' ');
    let name: String = name.chars().map(|letter| if plain(letter) { letter } else { '_' }).collect();
    format!("attachment; filename=\"{name}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_has_no_path() {
        assert_eq!(base_url("x", "http://127.0.0.1:9000/").expect("fine"), "http://127.0.0.1:9000");
        assert_eq!(base_url("x", "https://s3.example.org").expect("fine"), "https://s3.example.org");
        for wrong in ["", "s3.example.org", "ftp://x", "http://x/prefix", "http://user@x", "http://x/?a"] {
            assert!(base_url("x", wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_file_name_stays_one_value() {
        assert_eq!(attachment("a\"b\r\nc.mp4"), "attachment; filename=\"a_b__c.mp4\"");
    }

    #[test]
    fn keys_print_without_the_secret() {
        let keys = S3Keys { access_key: "a".to_owned(), secret_key: "hidden".to_owned() };
        assert_eq!(format!("{keys:?}"), r#"S3Keys { access_key: "a", secret_key: "***" }"#);
    }
}
