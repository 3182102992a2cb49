//! A generation's container from its making to its removal. Every call looks first and then does what is missing, so
//! that it may be repeated at any point, by this server or another one.

use super::container::{Wanted, name, presence};
use super::engine::Engine;
use super::error::DockerError;
use super::fences::Fences;
use bollard::models::ContainerState;
use bollard::query_parameters::{
    CreateContainerOptions, InspectContainerOptions, ListContainersOptions, RemoveContainerOptions,
    StartContainerOptions, StopContainerOptions, WaitContainerOptions,
};
use futures_util::{StreamExt, pin_mut};
use meeboter_actors::ids::{ContainerId, ContainerKey, Operation};
use meeboter_actors::ports::{ListedContainer, Presence};
use slog::{debug, info, warn};
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;

/// How long a call waits for its turn at a container, beside the grace of a stop that may be before it.
const TURN_DEADLINE: Duration = Duration::from_secs(180);
/// How long a container that is made ahead may wait for others that are: a host has hundreds at most.
const AHEAD_DEADLINE: Duration = Duration::from_secs(600);
/// How long making and starting a container may take: fifty at once share one disk.
const START_DEADLINE: Duration = Duration::from_secs(120);
/// How long a stop may take beyond the container's own grace.
const STOP_MARGIN: Duration = Duration::from_secs(60);
/// How long a container may take to vanish.
const REMOVE_DEADLINE: Duration = Duration::from_secs(120);
/// Time between two looks at one that somebody else is removing, and at one that does not run yet.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// A container as its engine shows it.
pub(super) struct Found {
    pub(super) id: ContainerId,
    pub(super) presence: Presence,
    state: ContainerState,
}

/// What has a name.
enum Looked {
    /// Nothing.
    Nothing,
    /// The container of that generation.
    Ours(Found),
    /// A container of somebody else.
    Foreign,
}

impl Engine {
    /// The container of a generation, made if it is not there. A name that somebody else's container has is told.
    async fn ensure(&self, wanted: Wanted<'_>) -> Result<Found, DockerError> {
        let deadline = Instant::now() + START_DEADLINE;
        loop {
            match self.look(wanted.key).await? {
                Looked::Ours(found) => return Ok(found),
                Looked::Foreign => {
                    let container = name(wanted.key);
                    return Err(DockerError::NameTaken { host: self.host.clone(), container });
                }
                Looked::Nothing => match self.create(wanted).await {
                    // Another server is at it: its container has the name before it can be seen.
                    Err(error) if error.is_conflict() && Instant::now() < deadline => {
                        tokio::time::sleep(LOOK_INTERVAL).await;
                    }
                    outcome => return outcome,
                },
            }
        }
    }

    async fn create(&self, wanted: Wanted<'_>) -> Result<Found, DockerError> {
        let call = "create a container";
        let client = self.client().await?;
        let options = CreateContainerOptions { name: Some(name(wanted.key)), platform: String::new() };
        let created = client.create_container(Some(options), self.recipe.body(wanted));
        let answer = self.within(START_DEADLINE, call, created).await?;
        match answer.map_err(|error| self.error(call, error)) {
            Ok(created) => {
                let (id, state) = (ContainerId(created.id), ContainerState::default());
                Ok(Found { id, presence: Presence::Prepared, state })
            }
            Err(DockerError::Refused { status: 404, words, .. }) => Err(DockerError::NoSuchImage {
                host: self.host.clone(),
                image: wanted.image.to_owned(),
                words,
            }),
            Err(error) => Err(error),
        }
    }

    /// Makes the container where it is missing, and leaves it as it is.
    pub(super) async fn prepare(
        &self,
        wanted: Wanted<'_>,
        operation: Operation,
        fences: &Fences,
    ) -> Result<ContainerId, DockerError> {
        // Never given up: the semaphore is never closed.
        let _ahead = self.within(AHEAD_DEADLINE, "prepare a container", self.ahead.acquire()).await?;
        let _turn = self.turn(wanted.key, TURN_DEADLINE).await?;
        fences.check(wanted.key, operation)?;
        let found = self.ensure(wanted).await?;
        if found.presence != Presence::Gone {
            return Ok(found.id);
        }
        // Somebody started it, for nobody: it is of no use to the bot that it was made for.
        self.save_remains(wanted.key, &found.id).await?;
        self.remove(wanted.key, &found.id).await?;
        Ok(self.ensure(wanted).await?.id)
    }

    /// Makes the container where it is missing, and starts it where it does not run.
    pub(super) async fn start(
        &self,
        wanted: Wanted<'_>,
        operation: Operation,
        fences: &Fences,
    ) -> Result<ContainerId, DockerError> {
        let key = wanted.key;
        let _turn = self.turn(key, TURN_DEADLINE).await?;
        fences.check(key, operation)?;
        let found = self.ensure(wanted).await?;
        match found.presence {
            Presence::Running => return Ok(found.id),
            Presence::Gone => {
                return Err(DockerError::Ended { note: self.end_note(key, &found.state).await });
            }
            Presence::Prepared => {}
        }
        let call = "start a container";
        let client = self.client().await?;
        let started = client.start_container(&found.id.0, None::<StartContainerOptions>);
        self.within(START_DEADLINE, call, started).await?.map_err(|error| self.error(call, error))?;
        info!(self.log, "container started"; "slot" => %wanted.slot_name, "generation" => key.generation.0,
            "host" => %self.host, "container" => %found.id);
        Ok(found.id)
    }

    /// Stops the container, saves what it leaves, and removes it.
    pub(super) async fn stop(
        &self,
        key: ContainerKey,
        operation: Operation,
        grace: Duration,
        fences: &Fences,
    ) -> Result<(), DockerError> {
        let _turn = self.turn(key, TURN_DEADLINE + grace).await?;
        fences.raise(key, operation);
        let Some(found) = self.find(key).await? else { return Ok(()) };
        if found.presence == Presence::Running {
            self.end(&found.id, grace).await?;
        }
        if found.presence != Presence::Prepared {
            self.save_remains(key, &found.id).await?;
        }
        self.remove(key, &found.id).await?;
        info!(self.log, "container removed"; "slot_id" => %key.slot, "generation" => key.generation.0,
            "host" => %self.host, "container" => %found.id);
        Ok(())
    }

    /// Lets the bot itself leave, finish its uploads and exit; after its grace the engine kills it.
    async fn end(&self, id: &ContainerId, grace: Duration) -> Result<(), DockerError> {
        let seconds =
            i32::try_from(grace.as_secs() + u64::from(grace.subsec_nanos() > 0)).unwrap_or(i32::MAX);
        let options = StopContainerOptions { t: Some(seconds), signal: None };
        let call = "stop a container";
        let client = self.client().await?;
        let stopped = client.stop_container(&id.0, Some(options));
        let answer = self.within(grace + STOP_MARGIN, call, stopped).await?;
        match answer.map_err(|error| self.error(call, error)) {
            // It had stopped, or is gone altogether.
            Err(error) if error.is_missing() => Ok(()),
            Err(DockerError::Refused { status: 304, .. }) => Ok(()),
            answer => answer,
        }
    }

    async fn remove(&self, key: ContainerKey, id: &ContainerId) -> Result<(), DockerError> {
        let options = RemoveContainerOptions { v: true, force: true, link: false };
        let call = "remove a container";
        let client = self.client().await?;
        let deadline = Instant::now() + REMOVE_DEADLINE;
        let removed = client.remove_container(&id.0, Some(options));
        let answer = self.within(REMOVE_DEADLINE, call, removed).await?;
        match answer.map_err(|error| self.error(call, error)) {
            Err(error) if !error.is_missing() && !error.is_conflict() => return Err(error),
            _ => {}
        }
        // Known gone, and not only told to go: somebody else may be at it.
        while self.find(key).await?.is_some() {
            if Instant::now() >= deadline {
                let host = self.host.clone();
                return Err(DockerError::Unanswered { host, call, limit: REMOVE_DEADLINE });
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        Ok(())
    }

    /// The container of a generation, where it is there.
    pub(super) async fn find(&self, key: ContainerKey) -> Result<Option<Found>, DockerError> {
        Ok(match self.look(key).await? {
            Looked::Ours(found) => Some(found),
            Looked::Foreign | Looked::Nothing => None,
        })
    }

    /// What has the name of a generation's container.
    async fn look(&self, key: ContainerKey) -> Result<Looked, DockerError> {
        let client = self.client().await?;
        let container = name(key);
        let inspected = client.inspect_container(&container, None::<InspectContainerOptions>);
        let inspected = match self.call("inspect a container", inspected).await {
            Ok(inspected) => inspected,
            Err(error) if error.is_missing() => return Ok(Looked::Nothing),
            Err(error) => return Err(error),
        };
        let labels = inspected.config.and_then(|config| config.labels).unwrap_or_default();
        let (Some(id), Some(state)) = (inspected.id, inspected.state) else { return Ok(Looked::Foreign) };
        if self.recipe.key(&labels) != Some(key) {
            return Ok(Looked::Foreign);
        }
        let presence = presence(state.status.as_ref());
        Ok(Looked::Ours(Found { id: ContainerId(id), presence, state }))
    }

    /// This installation's containers, running, prepared and ended.
    pub(super) async fn list(&self) -> Result<Vec<ListedContainer>, DockerError> {
        let options =
            ListContainersOptions { all: true, filters: Some(self.filters()), ..Default::default() };
        let client = self.client().await?;
        let listed = self.call("list containers", client.list_containers(Some(options))).await?;
        Ok(listed.iter().filter_map(|summary| self.recipe.listed(summary)).collect())
    }

    /// What picks this installation's containers out of an engine's.
    pub(super) fn filters(&self) -> HashMap<String, Vec<String>> {
        let label = format!("{}={}", super::container::LABEL_INSTALLATION, self.recipe.installation);
        HashMap::from([("label".to_owned(), vec![label])])
    }

    /// Comes back when the container does not run any more, with what is known of why.
    pub(super) async fn wait_exit(&self, key: ContainerKey) -> Result<String, DockerError> {
        loop {
            let Some(found) = self.find(key).await? else {
                return Ok("the container was removed".to_owned());
            };
            match found.presence {
                Presence::Gone => return Ok(self.told_end(key, &found).await),
                // Somebody is about to start it.
                Presence::Prepared => tokio::time::sleep(LOOK_INTERVAL).await,
                Presence::Running => self.wait(&found.id).await?,
            }
        }
    }

    async fn wait(&self, id: &ContainerId) -> Result<(), DockerError> {
        let options = WaitContainerOptions { condition: "not-running".to_owned() };
        let client = self.client().await?;
        let ends = client.wait_container(&id.0, Some(options));
        pin_mut!(ends);
        match ends.next().await {
            None | Some(Ok(_)) => Ok(()),
            // A code other than 0 is told as an error.
            Some(Err(bollard::errors::Error::DockerContainerWaitError { .. })) => Ok(()),
            Some(Err(error)) => match self.error("wait for a container", error) {
                error if error.is_missing() => Ok(()),
                error => Err(error),
            },
        }
    }

    /// What is known of an end. The last lines of one that was not clean go to the server's log.
    async fn told_end(&self, key: ContainerKey, found: &Found) -> String {
        let note = self.end_note(key, &found.state).await;
        if found.state.exit_code == Some(0) {
            debug!(self.log, "bot ended"; "slot_id" => %key.slot, "generation" => key.generation.0);
        } else {
            let tail = self.tail(&found.id).await;
            warn!(self.log, "bot ended badly"; "slot_id" => %key.slot, "generation" => key.generation.0,
                "why" => &note, "last_lines" => tail);
        }
        note
    }

    async fn end_note(&self, key: ContainerKey, state: &ContainerState) -> String {
        let code = state.exit_code.unwrap_or(-1);
        let engine = state.error.as_deref().filter(|words| !words.is_empty());
        let out_of_memory = state.oom_killed == Some(true);
        match (self.exit_note(key).await, engine) {
            _ if out_of_memory => format!("it used more memory than it may (exit code {code})"),
            (Some(note), _) if note.code == 0 => note.reason.trim_end_matches('.').to_owned(),
            (Some(note), _) => format!("{} (code {})", note.reason.trim_end_matches('.'), note.code),
            (None, Some(words)) => format!("{words} (exit code {code})"),
            (None, None) => format!("exit code {code}, no exit note"),
        }
    }
}
