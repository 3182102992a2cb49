//! Starts: a place in the line, an application made ready, a deployment seen to its end.

use super::api::{Created, Deployed, DeploymentRow, Request, Rows};
use super::budget::Priority;
use super::configuration::{Wanted, change, creation, variable};
use super::description::{Shown, text};
use super::error::{ApiError, Thing};
use super::gate::Gate;
use super::outcome::{Next, Standing, after_no_deployment, read};
use super::registry::{BOT_PREFIX, Known, Newest};
use super::start_line::{Ticket, Turn};
use super::status::Deed;
use super::{Engine, lock};
use chrono::Utc;
use meeboter_actors::ids::{ContainerId, ContainerKey, Operation};
use meeboter_actors::ports::{DriverError, ResourceLimits, StartRequest};
use meeboter_bot::{ENV_SERVER, ENV_SLOT, ENV_TOKEN};
use serde_json::Value;
use slog::{info, warn};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};

/// Tries of a creation, and of a deployment, whose answers get lost.
const LOST_MAX: u32 = 4;
/// How often those who wait in the line look by themselves.
const LINE_LOOK: Duration = Duration::from_secs(5);
/// Lines of a failed deployment's log that become part of the error.
const LOG_LINES: usize = 3;

/// What one deployment is for.
pub(super) struct Errand<'a> {
    /// The application's name.
    pub(super) name: &'a str,
    pub(super) image: &'a str,
    pub(super) limits: ResourceLimits,
    /// The container that it becomes; none: a parked one.
    pub(super) key: Option<ContainerKey>,
    pub(super) shown: Shown,
    pub(super) variables: Vec<Value>,
}

/// Whether an errand may still go on.
#[derive(Clone, Copy)]
pub(super) enum Leave<'a> {
    /// Until its slot is stopped.
    OfSlot(&'a Gate, ContainerKey, Operation),
    /// In any case.
    Always,
}

impl Leave<'_> {
    fn check(self) -> Result<(), DriverError> {
        match self {
            Self::OfSlot(gate, key, operation) => gate.check(key, operation),
            Self::Always => Ok(()),
        }
    }

    async fn ended(self) -> DriverError {
        match self {
            Self::OfSlot(gate, key, operation) => gate.closed(key, operation).await,
            Self::Always => std::future::pending().await,
        }
    }

    /// Waits for something that takes its time, as long as there is leave.
    async fn while_granted<T>(self, wait: impl Future<Output = T>) -> Result<T, DriverError> {
        tokio::select! {
            biased;
            ended = self.ended() => Err(ended),
            outcome = wait => Ok(outcome),
        }
    }
}

/// A place in the line, given back when dropped.
pub(super) struct Place<'a> {
    engine: &'a Engine,
    ticket: Ticket,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        lock(&self.engine.line).leave(self.ticket, Instant::now());
        self.engine.line_moved.notify_waiters();
    }
}

impl Engine {
    pub(super) async fn start(&self, request: StartRequest) -> Result<ContainerId, DriverError> {
        let gate = self.gate(request.key.slot);
        let leave = Leave::OfSlot(&gate, request.key, request.operation);
        leave.check()?;
        let limit = self.pace().start_limit;
        let started = async {
            let _turn = leave.while_granted(gate.turn.lock()).await?;
            self.start_in_turn(&request, leave).await
        };
        let outcome = timeout(limit, started).await.unwrap_or_else(|_| {
            let message = format!("Coolify did not start {} within {} s", request.slot_name, limit.as_secs());
            Err(DriverError { message, answered: true, retryable: true })
        });
        match &outcome {
            Ok(application) => {
                self.show(&application.0, Shown::Busy(request.bot_id, Utc::now()));
                info!(self.log, "bot started"; "slot" => %request.slot_name, "bot" => request.bot_id.0,
                    "generation" => request.key.generation.0, "application" => %application);
            }
            Err(error) => {
                let holders = self.registry().by_key(request.key);
                for known in holders.iter().filter(|_| leave.check().is_ok()) {
                    self.show(&known.uuid, Shown::Error(error.message.clone(), Utc::now()));
                }
            }
        }
        outcome
    }

    async fn start_in_turn(
        &self,
        request: &StartRequest,
        leave: Leave<'_>,
    ) -> Result<ContainerId, DriverError> {
        leave.check()?;
        self.load(self.claim(Priority::Start)).await?;
        if let Some(running) = self.resume(request.key, leave).await? {
            return Ok(ContainerId(running));
        }
        let name = application_name(request);
        let errand = Errand {
            name: &name,
            image: &request.image,
            limits: request.limits,
            key: Some(request.key),
            shown: Shown::Deploying(request.bot_id),
            variables: self.variables(request)?,
        };
        self.carry_out(&errand, leave).await.map(ContainerId)
    }

    /// The application that runs this container already, or is about to: an earlier call, or an earlier server, began.
    async fn resume(&self, key: ContainerKey, leave: Leave<'_>) -> Result<Option<String>, DriverError> {
        let holders = self.registry().by_key(key);
        for known in holders {
            if let Some(running) = self.resume_in(known, leave).await? {
                return Ok(Some(running));
            }
        }
        Ok(None)
    }

    async fn resume_in(&self, known: Known, leave: Leave<'_>) -> Result<Option<String>, DriverError> {
        if matches!(known.deed, Deed::Running(_)) {
            return Ok(Some(known.uuid));
        }
        let rows = match self.deployments_of(&known.uuid, Priority::Start).await {
            Ok(rows) => rows,
            Err(error) if error.knows_no(Thing::Application) => {
                self.registry().remove(&known.uuid);
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        let newest = rows.first().map(|row| row.deployment_uuid.clone());
        if let Some(row) = rows.first().filter(|row| read(&row.status) == Standing::UnderWay) {
            let end = self.deployment_end(&row.deployment_uuid, Instant::now(), leave).await?;
            if end.is_some_and(|(standing, _)| standing == Standing::Finished) {
                self.note_running(&known.uuid, &row.deployment_uuid);
                return Ok(Some(known.uuid));
            }
        } else if self.answers(&known.uuid, self.claim(Priority::Start)).await? {
            // What ran in it before was known gone, so it is this generation's.
            self.note_running(&known.uuid, newest.as_deref().unwrap_or_default());
            return Ok(Some(known.uuid));
        }
        if let Some(known) = self.registry().get_mut(&known.uuid) {
            known.newest = newest.map_or(Newest::None, Newest::Deployment);
        }
        Ok(None)
    }

    fn note_running(&self, application: &str, deployment: &str) {
        let now = Instant::now();
        if let Some(known) = self.registry().get_mut(application) {
            known.newest = Newest::Deployment(deployment.to_owned());
            known.did(Deed::Running(now), now);
        }
    }

    /// What a bot's container knows.
    fn variables(&self, request: &StartRequest) -> Result<Vec<Value>, DriverError> {
        let key = request.key;
        let mut variables = vec![
            (ENV_SLOT.to_owned(), key.slot.to_string()),
            (ENV_SERVER.to_owned(), self.settings.server_url.clone()),
            (ENV_TOKEN.to_owned(), (self.tokens)(key.slot, key.generation)),
        ];
        let legacy = self.settings.legacy_environment.get(&request.platform).into_iter().flatten();
        variables.extend(legacy.map(|(name, value)| (name.clone(), value.expose().to_owned())));
        let filled = variables.iter().filter(|(_, value)| !value.is_empty());
        let items: Result<Vec<_>, _> = filled.map(|(name, value)| variable(name, value)).collect();
        items.map_err(|error| DriverError { message: error.to_string(), answered: true, retryable: false })
    }

    /// Waits for its turn, makes the application ready, deploys it; answers with the application.
    pub(super) async fn carry_out(
        &self,
        errand: &Errand<'_>,
        leave: Leave<'_>,
    ) -> Result<String, DriverError> {
        let _place = self.turn_in_line(errand, leave).await?;
        // Of one bot in two slots, the first has to be gone.
        let _turn =
            leave.while_granted(self.application_turn(errand.name, self.pace().start_limit)).await??;
        let application = self.made_ready(errand).await?;
        leave.check()?;
        self.set_environment(&application, errand).await?;
        let deployment = self.deploy(&application, leave).await?;
        self.note_running(&application, &deployment);
        Ok(application)
    }

    /// Waits until Coolify has room for one more deployment.
    async fn turn_in_line(&self, errand: &Errand<'_>, leave: Leave<'_>) -> Result<Place<'_>, DriverError> {
        let bot = if let Shown::Deploying(bot) = errand.shown { Some(bot) } else { None };
        let place = Place { engine: self, ticket: lock(&self.line).join(bot) };
        let mut is_told = false;
        loop {
            let moved = self.line_moved.notified();
            let (turn, estimate) = {
                let mut line = lock(&self.line);
                let turn = line.begin(place.ticket, Instant::now());
                let ahead = if let Turn::Later { ahead, .. } = turn { ahead } else { 0 };
                (turn, line.estimate(ahead))
            };
            let Turn::Later { ahead, paused_until } = turn else { return Ok(place) };
            if !is_told {
                is_told = true;
                info!(self.log, "a start waits for Coolify to have room"; "application" => errand.name, "ahead" => ahead,
                    "estimate_ms" => estimate.as_millis() as u64);
            }
            let pause =
                paused_until.map_or(LINE_LOOK, |until| until.saturating_duration_since(Instant::now()));
            leave.while_granted(timeout(pause.min(LINE_LOOK), moved)).await?.ok();
        }
    }

    /// The application, made where there is none, as it is to be for its next deployment.
    async fn made_ready(&self, errand: &Errand<'_>) -> Result<String, DriverError> {
        let description = text(&errand.shown, errand.key);
        let wanted = Wanted {
            image: errand.image,
            limits: errand.limits,
            grace: self.settings.stop_grace,
            description: &description,
        };
        let found = self.registry().by_name(errand.name).map(|known| known.uuid.clone());
        if let Some(application) = found {
            self.note_errand(&application, errand);
            let request = Request::change(&application, change(&wanted));
            match self.client.ask::<Value>(Priority::Start, self.pace().start_limit, request).await {
                Ok(_) => return Ok(application),
                // Deleted by hand: another one takes its place.
                Err(error) if error.knows_no(Thing::Application) => self.registry().remove(&application),
                Err(error) => return Err(error.into()),
            }
        }
        let application = self.create(errand.name, &wanted).await?;
        self.note_errand(&application, errand);
        Ok(application)
    }

    fn note_errand(&self, application: &str, errand: &Errand<'_>) {
        if let Some(known) = self.registry().get_mut(application) {
            known.becomes(errand.key, errand.image, Instant::now());
        }
    }

    /// Makes an application. Names are not unique there, so where the answer was lost it is looked for before the request
    /// is repeated.
    async fn create(&self, name: &str, wanted: &Wanted<'_>) -> Result<String, ApiError> {
        let mut tries = 1;
        loop {
            let request = Request::create(creation(&self.place, name, &self.tag, wanted));
            let error =
                match self.client.send::<Created>(Priority::Start, self.pace().start_limit, request).await {
                    Ok(Created { uuid }) => {
                        self.registry().add(&uuid, name, Instant::now());
                        return Ok(uuid);
                    }
                    Err(error) => error,
                };
            if !error.may_have_acted() || tries == LOST_MAX {
                return Err(error);
            }
            tries += 1;
            warn!(self.log, "it is not known whether an application was made; looking"; "application" => name,
                "error" => %error);
            sleep(self.pace().deployment_poll).await;
            self.list_applications(self.claim(Priority::Start)).await?;
            if let Some(known) = self.registry().by_name(name) {
                return Ok(known.uuid.clone());
            }
        }
    }

    /// Deploys an application, and sees the deployment to its end; answers with it.
    async fn deploy(&self, application: &str, leave: Leave<'_>) -> Result<String, DriverError> {
        let before = self.newest_before(application).await?;
        let mut lost = 0;
        loop {
            leave.check()?;
            let asked = Instant::now();
            let request = Request::deploy(application);
            let answer =
                self.client.send::<Deployed>(Priority::Start, self.pace().start_limit, request).await;
            let mut deployment = match answer {
                Ok(Deployed { deployments }) => {
                    let line = deployments.into_iter().next().filter(|line| !line.is_skipped());
                    line.and_then(|line| line.deployment_uuid)
                }
                Err(error) => {
                    if let Some(pause) = error.queue_full() {
                        self.hold_line(pause);
                        leave.while_granted(sleep(pause)).await?;
                        continue;
                    }
                    lost += 1;
                    if !error.may_have_acted() || lost == LOST_MAX {
                        return Err(error.into());
                    }
                    warn!(self.log, "it is not known whether a deployment was queued; looking";
                        "application" => application, "error" => %error);
                    None
                }
            };
            // Until there is none any more that could be ours.
            loop {
                if let Some(known) = &deployment {
                    match self.deployment_end(known, asked, leave).await? {
                        Some((standing, row)) => return self.settled(application, standing, &row),
                        None => info!(self.log, "Coolify named a deployment that does not exist";
                            "application" => application, "deployment" => known),
                    }
                }
                leave.while_granted(sleep(self.pace().deployment_poll)).await?;
                let rows = self.deployments_of(application, Priority::Start).await?;
                match after_no_deployment(&rows, before.as_deref(), lost > 0) {
                    Next::Await(ours) => deployment = Some(ours),
                    Next::AskAgain => break,
                    Next::Cancel(others) => {
                        self.cancel(&others).await?;
                        deployment = None;
                    }
                }
            }
        }
    }

    /// The newest deployment of an application from before anything is asked for.
    async fn newest_before(&self, application: &str) -> Result<Option<String>, DriverError> {
        let known = self.registry().get(application).map(|known| known.newest.clone());
        match known {
            Some(Newest::None) => Ok(None),
            Some(Newest::Deployment(newest)) => Ok(Some(newest)),
            Some(Newest::Unknown) | None => {
                let rows = self.deployments_of(application, Priority::Start).await?;
                Ok(rows.into_iter().next().map(|row| row.deployment_uuid))
            }
        }
    }

    fn settled(
        &self,
        application: &str,
        standing: Standing,
        row: &DeploymentRow,
    ) -> Result<String, DriverError> {
        let mut registry = self.registry();
        let name = registry.get_mut(application).map(|known| {
            known.newest = Newest::Deployment(row.deployment_uuid.clone());
            known.name.clone()
        });
        if standing == Standing::Finished {
            return Ok(row.deployment_uuid.clone());
        }
        let what = if standing == Standing::Cancelled { "was cancelled by somebody" } else { "failed" };
        let name = name.unwrap_or_else(|| application.to_owned());
        let message = format!("Coolify: the deployment of {name} {what}: {}", reason(row));
        Err(DriverError { message, answered: true, retryable: true })
    }

    /// Nobody begins a deployment for so long.
    fn hold_line(&self, pause: Duration) {
        info!(self.log, "Coolify's queue of deployments is full"; "pause_ms" => pause.as_millis() as u64);
        lock(&self.line).pause(Instant::now() + pause);
    }

    /// How a deployment ended; `None`: there is none of that name. Looks that fail say nothing.
    async fn deployment_end(
        &self,
        deployment: &str,
        asked: Instant,
        leave: Leave<'_>,
    ) -> Result<Option<(Standing, DeploymentRow)>, DriverError> {
        let poll = self.pace().deployment_poll;
        loop {
            leave.while_granted(sleep(poll)).await?;
            let since = Instant::now().checked_sub(poll).map_or(asked, |fresh| fresh.max(asked));
            match leave.while_granted(self.active_deployments(since)).await? {
                Ok(active) if active.contains(deployment) => continue,
                Ok(_) => {}
                Err(error) if is_passing(&error) => continue,
                Err(error) => return Err(error.into()),
            }
            let request = Request::deployment(deployment);
            match self.client.ask::<DeploymentRow>(Priority::Start, self.pace().start_limit, request).await {
                Ok(row) => match read(&row.status) {
                    Standing::UnderWay => {}
                    standing => return Ok(Some((standing, row))),
                },
                Err(error) if error.knows_no(Thing::Deployment) => return Ok(None),
                Err(error) if is_passing(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The deployments that are queued or under way, from one request for whoever asks.
    async fn active_deployments(&self, since: Instant) -> Result<std::sync::Arc<BTreeSet<String>>, ApiError> {
        let look = async {
            let request = Request::active_deployments();
            let rows: Rows<DeploymentRow> =
                self.client.ask(Priority::Look, self.pace().patience, request).await?;
            Ok(rows.0.into_iter().map(|row| row.deployment_uuid).collect())
        };
        self.deployments.since(since, look).await.map(|(_, active)| active)
    }
}

/// Whether the same look may succeed later.
fn is_passing(error: &ApiError) -> bool {
    error.status().is_none_or(|status| status == 429 || status >= 500)
}

/// What a failed deployment says of why, where the token may see it.
fn reason(row: &DeploymentRow) -> String {
    let hidden = "Coolify shows why among the application's deployments (tokens with read:sensitive would bring it here)";
    let Some(logs) = &row.logs else { return hidden.to_owned() };
    let lines: Vec<Value> = serde_json::from_str(logs).unwrap_or_default();
    let shown = lines.iter().filter(|line| line.get("hidden").and_then(Value::as_bool) != Some(true));
    let words: Vec<&str> = shown.filter_map(|line| line.get("output")?.as_str()).collect();
    match words[words.len().saturating_sub(LOG_LINES)..].join(" ") {
        words if words.is_empty() => hidden.to_owned(),
        words => words,
    }
}

/// The name of the application: the slot's, or one for this bot alone.
fn application_name(request: &StartRequest) -> String {
    if request.ephemeral { format!("{BOT_PREFIX}{}", request.bot_id) } else { request.slot_name.to_string() }
}
