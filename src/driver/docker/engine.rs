//! One engine: how it is reached, and every call with a deadline of its own. A client is made with the first call, and
//! again where it could not be: an engine may be away when the server starts. One that came back may be another version,
//! and settings that are read again may mean other TLS files of the same names: the client is then made anew.

use super::container::Recipe;
use super::error::DockerError;
use super::reference;
use super::{EngineAddress, RegistryAccess};
use crate::driver::folders::Folders;
use crate::driver::turns::Turns;
use bollard::auth::DockerCredentials;
use bollard::errors::Error as EngineError;
use bollard::{API_DEFAULT_VERSION, Docker};
use meeboter_actors::ids::{ContainerKey, HostName};
use slog::Logger;
use std::time::Duration;
use tokio::sync::Semaphore;

/// How long an engine may take for a call that has no deadline of its own: it may be at fifty others.
const CALL_DEADLINE: Duration = Duration::from_secs(60);
/// Containers that are made ahead at a time: bots that start meanwhile share the engine with them.
const PREPARED_AT_ONCE: usize = 4;
/// The client's own, longer than any of ours: a stop waits for the container's grace.
const CLIENT_TIMEOUT_S: u64 = 3600;

/// See the module.
pub(super) struct Engine {
    pub(super) place: Place,
    client: tokio::sync::Mutex<Option<Docker>>,
    /// Permits for making containers ahead.
    pub(super) ahead: Semaphore,
    /// One operation on a generation's container at a time. Holds only those that someone is at.
    turns: Turns<ContainerKey>,
}

/// An engine's place: where it is, and what its containers are made with.
pub(super) struct Place {
    pub(super) host: HostName,
    pub(super) address: EngineAddress,
    pub(super) registries: Vec<RegistryAccess>,
    pub(super) recipe: Recipe,
    /// Where on this server what bots leave is brought to.
    pub(super) folders: Folders,
    /// Folders of stopped generations that are kept.
    pub(super) folders_kept: usize,
    pub(super) log: Logger,
}

impl std::ops::Deref for Engine {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.place
    }
}

impl Engine {
    pub(super) fn new(place: Place) -> Self {
        let (client, turns) = Default::default();
        Self { place, client, ahead: Semaphore::new(PREPARED_AT_ONCE), turns }
    }

    /// The client, in a version of the API that the engine speaks.
    pub(super) async fn client(&self) -> Result<Docker, DockerError> {
        let call = "say its version";
        let mut client = self.within(CALL_DEADLINE, call, self.client.lock()).await?;
        if let Some(client) = &*client {
            return Ok(client.clone());
        }
        let fresh = connect(&self.address).map_err(|error| self.error(call, error))?;
        let agreed = self.within(CALL_DEADLINE, call, fresh.negotiate_version()).await?;
        let agreed = agreed.map_err(|error| self.error(call, error))?;
        Ok(client.insert(agreed).clone())
    }

    /// Has the next call make a client anew. Calls under way keep theirs.
    pub(super) fn forget_client(&self) {
        // Held, it is being made in this moment.
        if let Ok(mut client) = self.client.try_lock() {
            *client = None;
        }
    }

    /// A call with the usual deadline.
    pub(super) async fn call<T>(
        &self,
        call: &'static str,
        answer: impl Future<Output = Result<T, EngineError>>,
    ) -> Result<T, DockerError> {
        self.within(CALL_DEADLINE, call, answer).await?.map_err(|error| self.error(call, error))
    }

    /// A wait with a deadline.
    pub(super) async fn within<T>(
        &self,
        limit: Duration,
        call: &'static str,
        answer: impl Future<Output = T>,
    ) -> Result<T, DockerError> {
        let late = |_| DockerError::Unanswered { host: self.host.clone(), call, limit };
        tokio::time::timeout(limit, answer).await.map_err(late)
    }

    pub(super) fn error(&self, call: &'static str, error: EngineError) -> DockerError {
        DockerError::of(&self.host, call, error)
    }

    /// Waits for the turn at a generation's container.
    pub(super) async fn turn(
        &self,
        key: ContainerKey,
        limit: Duration,
    ) -> Result<tokio::sync::OwnedMutexGuard<()>, DockerError> {
        self.turns.take(key, limit).await.map_err(|_| DockerError::Turn)
    }

    /// The name and password for the image's registry, where there is one.
    pub(super) fn credentials(&self, image: &str) -> Option<DockerCredentials> {
        let registry = reference::registry(image);
        let access = self.registries.iter().find(|access| access.server == registry)?;
        Some(DockerCredentials {
            username: Some(access.username.clone()),
            password: Some(access.password.expose().to_owned()),
            serveraddress: Some(access.server.clone()),
            ..DockerCredentials::default()
        })
    }
}

fn connect(address: &EngineAddress) -> Result<Docker, EngineError> {
    let EngineAddress { url, tls_dir } = address;
    if url.starts_with("unix:") {
        return Docker::connect_with_unix(url, CLIENT_TIMEOUT_S, API_DEFAULT_VERSION);
    }
    match tls_dir {
        None => Docker::connect_with_http(url, CLIENT_TIMEOUT_S, API_DEFAULT_VERSION),
        Some(folder) => {
            let file = |name| folder.join(name);
            let (key, cert, ca) = (file("key.pem"), file("cert.pem"), file("ca.pem"));
            Docker::connect_with_ssl(url, &key, &cert, &ca, CLIENT_TIMEOUT_S, API_DEFAULT_VERSION)
        }
    }
}
