//! Bots as applications of a Coolify (v4), through its REST API.
//!
//! A slot is one application, found by its name and by the installation's tag; a generation is one deployment of it. Which
//! one it is stands at the end of the application's description, so that a server that starts anew finds its containers
//! from Coolify alone. Docker restarts there whatever exits, so a bot that is done idles until it is stopped, and a
//! program that was started a second time in one generation means that the bot is lost.
//!
//! Coolify promises little: answers name deployments that do not exist, statuses are minutes old, a stop that fails says
//! nothing. So nothing is believed that was not seen: a deployment by its own row, an end by status and container. Few
//! requests may be sent and few deployments are done at a time: `budget` and `start_line` see to that.
//!
//! What decides is pure (`budget`, `start_line`, `status`, `outcome`, `description`, `configuration`, `registry`); `api`
//! and `client` are the way to Coolify; `starts`, `environment`, `stops`, `looks`, `images` and `notices` do one thing
//! each.
//!
//! It honours all limits of a container: processors, memory and shared memory.

mod api;
mod budget;
mod client;
mod configuration;
mod description;
mod environment;
mod error;
mod gate;
mod images;
mod look;
mod looks;
mod notices;
mod outcome;
pub mod probe;
mod registry;
mod start_line;
mod starts;
mod status;
mod stops;

pub use environment::STORAGE_VARIABLES;

use crate::config::Secret;
use crate::driver::tasks::Tasks;
use crate::driver::turns::Turns;
use crate::driver::{TokenSource, lock};
use api::{ApplicationRow, DeploymentRow, Request, Rows};
use async_trait::async_trait;
use budget::Priority;
use chrono::{DateTime, Utc};
use client::{Access, Claim, Client};
use configuration::Place;
use error::{ApiError, Thing};
use gate::Gate;
use look::SharedLook;
use meeboter_actors::ids::{BotId, ContainerId, ContainerKey, HostName, Platform, SlotId};
use meeboter_actors::ports::{
    Driver, DriverError, ImageDigest, ListedContainer, Presence, PullProgress, Pulled, StartRequest,
    StopRequest,
};
use registry::{Known, Registry};
use slog::Logger;
use start_line::StartLine;
use status::Reading;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, OwnedMutexGuard, watch};
use uuid::Uuid;

/// How a Coolify is reached and used.
#[derive(Debug, Clone)]
pub struct CoolifySettings {
    /// Its address, with or without `/api/v1`.
    pub url: String,
    /// The token, with the abilities read, write and deploy.
    pub token: Secret,
    /// UUID of the project that applications are made in.
    pub project: String,
    /// Name of its environment.
    pub environment: String,
    /// UUID of the server that runs them.
    pub server: String,
    /// UUID of the server's destination; "" where it has only one.
    pub destination: String,
    /// Whose applications they are: those of another installation are never touched.
    pub installation: Uuid,
    /// Base URL of this Meeboter, as a container reaches it.
    pub server_url: String,
    /// Further variables of the bots of some platforms.
    pub legacy_environment: BTreeMap<Platform, Vec<(String, Secret)>>,
    /// How long a container may take to end by itself.
    pub stop_grace: Duration,
    /// Limits and paces.
    pub pace: CoolifyPace,
}

/// How often and how much Coolify is asked.
#[derive(Debug, Clone, Copy)]
pub struct CoolifyPace {
    /// Requests in a window, over everything that the token's user does.
    pub requests_per_minute: u32,
    /// Deployments that are given to Coolify at a time.
    pub deployments_at_once: usize,
    /// How long a deployment takes before any was seen.
    pub usual_deployment: Duration,
    /// The longest start, its wait in the line included.
    pub start_limit: Duration,
    /// The window that Coolify counts requests in.
    pub rate_window: Duration,
    /// How long a stop waits for its turn in that limit.
    pub patience: Duration,
    /// How long a look does, over all its requests. Less than whoever asks waits for it: that Meeboter itself sent nothing is
    /// no silence of Coolify's.
    pub look_patience: Duration,
    /// How long an answer may take.
    pub answer_limit: Duration,
    /// Between two looks at deployments that are under way.
    pub deployment_poll: Duration,
    /// Between two looks at what runs.
    pub status_poll: Duration,
    /// How old a status may be.
    pub status_lag: Duration,
    /// Between two tries of a stop that shows no effect.
    pub stop_repeat: Duration,
}

impl Default for CoolifyPace {
    fn default() -> Self {
        let s = Duration::from_secs;
        Self {
            requests_per_minute: 200,
            deployments_at_once: 3,
            usual_deployment: s(30),
            start_limit: s(3_600),
            rate_window: s(60),
            patience: s(45),
            look_patience: s(20),
            answer_limit: s(30),
            deployment_poll: s(3),
            status_poll: s(10),
            // The interval of Coolify's agent, twice, and the look of a minute that stands in for it.
            status_lag: s(180),
            stop_repeat: s(15),
        }
    }
}

/// See the module.
pub struct CoolifyDriver {
    engine: Arc<Engine>,
    tasks: Tasks,
}

/// What all calls share.
struct Engine {
    settings: CoolifySettings,
    place: Place,
    tag: String,
    tokens: TokenSource,
    client: Client,
    registry: Mutex<Registry>,
    /// Whether all applications were listed once; whoever comes first lists them.
    loaded: tokio::sync::Mutex<bool>,
    gates: Mutex<HashMap<SlotId, Arc<Gate>>>,
    /// By name: a bot's own application is the same in whatever slot the bot is.
    applications: Turns<String>,
    line: Mutex<StartLine>,
    line_moved: Notify,
    resources: SharedLook<HashMap<String, Reading>>,
    /// Those of stops: they wait for no look that has to wait for its budget.
    urgent_resources: SharedLook<HashMap<String, Reading>>,
    deployments: SharedLook<BTreeSet<String>>,
    log: Logger,
}

impl CoolifyDriver {
    /// A driver whose tasks run on the present runtime.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn new(settings: CoolifySettings, tokens: TokenSource, log: Logger) -> io::Result<Self> {
        let url = settings.url.trim_end_matches('/');
        let access = Access {
            url: url.strip_suffix("/api/v1").unwrap_or(url).to_owned(),
            token: settings.token.clone(),
            requests_per_window: settings.pace.requests_per_minute,
            rate_window: settings.pace.rate_window,
            answer_limit: settings.pace.answer_limit,
        };
        let client = Client::start(access, log.clone())?;
        let place = Place {
            project: settings.project.clone(),
            environment: settings.environment.clone(),
            server: settings.server.clone(),
            destination: settings.destination.clone(),
        };
        let line = StartLine::new(settings.pace.deployments_at_once, settings.pace.usual_deployment);
        let engine = Arc::new(Engine {
            tag: format!("meeboter-{}", settings.installation),
            settings,
            place,
            tokens,
            client,
            registry: Mutex::default(),
            loaded: tokio::sync::Mutex::new(false),
            gates: Mutex::default(),
            applications: Turns::default(),
            line: Mutex::new(line),
            line_moved: Notify::new(),
            resources: SharedLook::default(),
            urgent_resources: SharedLook::default(),
            deployments: SharedLook::default(),
            log,
        });
        tokio::spawn(notices::write(Arc::downgrade(&engine)));
        Ok(Self { engine, tasks: Tasks::here() })
    }
}

#[async_trait]
impl Driver for CoolifyDriver {
    /// Deploys a parked application once, and stops it: only a deployment pulls.
    async fn pull(
        &self,
        _host: &HostName,
        image: &str,
        progress: watch::Sender<PullProgress>,
    ) -> Result<Pulled, DriverError> {
        let image = image.to_owned();
        let engine = Arc::clone(&self.engine);
        self.tasks.finish(async move { engine.park(&image, &progress).await }).await?;
        // Where a bot runs on it nothing was deployed: the next start, being a deployment, pulls.
        Ok(Pulled::Current)
    }

    async fn start(&self, request: StartRequest) -> Result<ContainerId, DriverError> {
        let engine = Arc::clone(&self.engine);
        self.tasks.finish(async move { engine.start(request).await }).await
    }

    fn start_wait(&self, bot: BotId) -> Option<Duration> {
        lock(&self.engine.line).wait_of(bot, Instant::now())
    }

    /// A wait changes nothing: it ends with its caller.
    async fn wait_exit(&self, _host: &HostName, key: ContainerKey) -> Result<String, DriverError> {
        let engine = Arc::clone(&self.engine);
        self.tasks.wait(async move { engine.wait_exit(key).await }).await
    }

    async fn stop(&self, request: StopRequest) -> Result<(), DriverError> {
        let engine = Arc::clone(&self.engine);
        self.tasks.finish(async move { engine.stop(request).await }).await
    }

    async fn inspect(&self, _host: &HostName, key: ContainerKey) -> Result<Presence, DriverError> {
        let engine = Arc::clone(&self.engine);
        self.tasks.wait(async move { engine.inspect(key).await }).await
    }

    async fn list(&self, _host: &HostName) -> Result<Vec<ListedContainer>, DriverError> {
        let engine = Arc::clone(&self.engine);
        self.tasks.wait(async move { engine.list().await }).await
    }

    /// Coolify does not say what a tag means, and pulls at every deployment: a tag that moved needs nothing done.
    async fn resolve(&self, _host: &HostName, image: &str) -> Result<Option<ImageDigest>, DriverError> {
        Ok(Some(ImageDigest(image.to_owned())))
    }

    async fn logs(
        &self,
        _host: &HostName,
        key: ContainerKey,
        lines: u32,
    ) -> Result<Vec<String>, DriverError> {
        let engine = Arc::clone(&self.engine);
        self.tasks.wait(async move { engine.logs(key, lines).await }).await
    }

    async fn sweep(
        &self,
        _host: &HostName,
        wanted: &BTreeSet<ContainerKey>,
        before: DateTime<Utc>,
    ) -> Result<u32, DriverError> {
        let wanted = wanted.clone();
        let engine = Arc::clone(&self.engine);
        self.tasks.finish(async move { engine.sweep(&wanted, before).await }).await
    }
}

impl Engine {
    fn pace(&self) -> &CoolifyPace {
        &self.settings.pace
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        lock(&self.registry)
    }

    fn gate(&self, slot: SlotId) -> Arc<Gate> {
        Arc::clone(lock(&self.gates).entry(slot).or_default())
    }

    /// Waits until nobody else changes an application of that name.
    async fn application_turn(
        &self,
        name: &str,
        limit: Duration,
    ) -> Result<OwnedMutexGuard<()>, DriverError> {
        self.applications.take(name.to_owned(), limit).await.map_err(|_| {
            let message = format!("Coolify: {name} was in another use for {} s", limit.as_secs());
            DriverError { message, answered: true, retryable: true }
        })
    }

    /// A look's claim on Coolify.
    fn look_claim(&self) -> Claim {
        Claim::within(Priority::Look, self.pace().look_patience)
    }

    /// The claim of what changes something.
    fn claim(&self, priority: Priority) -> Claim {
        Claim::within(priority, self.pace().patience)
    }

    /// Lists all applications of this installation, where nobody has yet.
    async fn load(&self, claim: Claim) -> Result<(), ApiError> {
        let mut loaded = self.loaded.lock().await;
        if !*loaded {
            // Looks wait for it too.
            self.list_applications(claim.at_most(self.pace().look_patience)).await?;
            *loaded = true;
        }
        Ok(())
    }

    /// Lists all applications of this installation.
    async fn list_applications(&self, claim: Claim) -> Result<Vec<ApplicationRow>, ApiError> {
        let began = Instant::now();
        let rows: Rows<ApplicationRow> =
            self.client.ask(claim.priority, claim.patience(), Request::applications(&self.tag)).await?;
        let missing = self.registry().refresh(&rows.0, began);
        for application in missing {
            self.look_up(&application, claim).await?;
        }
        Ok(rows.0)
    }

    /// Asks for one application by itself: a listing may lack what is there.
    async fn look_up(&self, application: &str, claim: Claim) -> Result<(), ApiError> {
        let began = Instant::now();
        let request = Request::application(application);
        match self.client.ask::<ApplicationRow>(claim.priority, claim.patience(), request).await {
            Ok(row) => self.registry().take(&row, began),
            Err(error) if error.knows_no(Thing::Application) => self.registry().remove(application),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// The applications that hold, or held, a container. None: no listing has it, not even a new one.
    async fn holders(&self, key: ContainerKey, claim: Claim) -> Result<Vec<Known>, ApiError> {
        self.load(claim).await?;
        let holders = self.registry().by_key(key);
        if !holders.is_empty() {
            return Ok(holders);
        }
        // It may have been made by another server since.
        self.list_applications(claim).await?;
        Ok(self.registry().by_key(key))
    }

    /// The latest deployments of an application, the newest first.
    async fn deployments_of(
        &self,
        application: &str,
        priority: Priority,
    ) -> Result<Vec<DeploymentRow>, ApiError> {
        let request = Request::deployments_of(application);
        let listed: api::DeploymentsOf = self.client.ask(priority, self.pace().start_limit, request).await?;
        Ok(listed.deployments.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use meeboter_actors::pool::witness::LOOK_DEADLINE;

    /// Coolify's own answer takes its time too.
    #[test]
    fn a_look_that_gets_no_turn_says_so_before_it_passes_for_silence() {
        assert!(CoolifyPace::default().look_patience + Duration::from_secs(10) <= LOOK_DEADLINE);
    }
}
