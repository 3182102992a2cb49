//! Wires everything together, in the order of a start: data folder → database → lead → object store → driver → rows
//! → actors → HTTP. And takes it apart again; bots go on without the server.

mod api_key_file;
mod database;
mod error;
mod objects;

pub use error::StartError;

use crate::auth::Tokens;
use crate::auth::api_keys::ApiKeys;
use crate::config::{DriverKind, Settings};
use crate::driver::process::{ProcessDriver, ProcessSettings};
use crate::http::error::ApiError;
use crate::http::meeting::REHEARSAL;
use crate::http::routes;
use crate::http::state::AppState;
use crate::store::data_dir::DataDir;
use crate::store::queries::Installation;
use actix::Arbiter;
use actix_web::dev::{ServerHandle, ServiceRequest, ServiceResponse};
use actix_web::middleware::{Next, from_fn};
use actix_web::{App, HttpServer, web};
use chrono::{DateTime, SubsecRound, Utc};
use database::Database;
use meeboter_actors::ids::{HostName, Platform, SlotId};
use meeboter_actors::pool::{HostSettings, PlatformSettings, PoolSettings};
use meeboter_actors::ports::{Clock, Driver, Rows, SlotIds, Store};
use meeboter_actors::slot::SlotTiming;
use meeboter_actors::tree::{Ports, Tree};
use objects::Objects;
use slog::{Logger, crit, info, warn};
use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, mpsc, oneshot};
use uuid::Uuid;

/// Work folders of past bots that are kept for people who look for a cause.
const WORK_FOLDERS_KEPT: usize = 50;
/// HTTP threads: decisions are made elsewhere, these only parse and wait.
const HTTP_WORKERS: usize = 2;
/// How long requests under way may take when the server stops.
const SHUTDOWN_TIMEOUT_S: u64 = 5;
/// Time between two looks at the database and the lead.
const WATCH_INTERVAL: Duration = Duration::from_secs(2);

/// The system's clock, as finely as the database keeps times: what is answered now is what is read later.
struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> DateTime<Utc> {
        Utc::now().trunc_subsecs(6)
    }
}

struct RandomSlotIds;

impl SlotIds for RandomSlotIds {
    fn next(&self) -> SlotId {
        SlotId(Uuid::new_v4())
    }
}

/// A server that takes requests.
pub struct Application {
    address: SocketAddr,
    server: ServerHandle,
    state: web::Data<AppState>,
    actors: Arbiter,
    database: Arc<Database>,
    stopping: Arc<AtomicBool>,
    fatal: mpsc::UnboundedReceiver<String>,
    log: Logger,
    _objects: Objects,
    _data_dir: DataDir,
}

impl Application {
    /// Starts everything; comes back when requests are taken.
    pub async fn start(settings: Settings, log: Logger) -> Result<Self, StartError> {
        let listener = listen(&settings)?;
        let address = listener.local_addr().map_err(StartError::Listen)?;
        let data_dir = DataDir::hold(&settings.data_dir)?;
        let database = Arc::new(Database::start(&settings, &data_dir, &log).await?);
        let installation = database.pool().installation().await?;
        let key_file = api_key_file::ensure(database.pool(), data_dir.path()).await?;
        let objects = Objects::start(&settings, data_dir.path(), &log).await?;
        let tokens = tokens(&settings, &installation);
        let driver = driver(&settings, &data_dir, &installation, tokens.clone(), address, &log);
        let rows = database.journal().load().await.map_err(StartError::Load)?;
        report(&rows, &log);
        let stopping = Arc::new(AtomicBool::new(false));
        let (ports, fatal) = ports(&database, driver, &objects, Arc::clone(&stopping), &log);
        let actors = Arbiter::new();
        let tree = plant(&actors, ports, rows, &settings).await?;
        let state = web::Data::new(AppState {
            tree,
            pool: database.pool().clone(),
            artifacts: objects.artifacts().clone(),
            tokens,
            api_keys: ApiKeys::default(),
            door: Semaphore::new(settings.server.in_flight_max),
            settings,
            clock: Arc::new(SystemClock),
            log: log.clone(),
            ready: AtomicBool::new(true),
        });
        let server = serve(listener, &state, &objects)?;
        watch(Arc::clone(&database), state.tree.clone(), log.clone());
        info!(log, "meeboter takes requests"; "address" => %address, "api_key_file" => %key_file.display());
        Ok(Self {
            address,
            server,
            state,
            actors,
            database,
            stopping,
            fatal,
            log,
            _objects: objects,
            _data_dir: data_dir,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until a signal says to stop, or something is broken that only a new start can mend.
    pub async fn run(mut self) -> Result<(), StartError> {
        let (Ok(mut terminate), Ok(mut interrupt)) =
            (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
        else {
            return Err(StartError::Signals);
        };
        let broken = tokio::select! {
            _ = terminate.recv() => None,
            _ = interrupt.recv() => None,
            why = self.fatal.recv() => why,
        };
        match &broken {
            None => info!(self.log, "stopping; bots go on without the server"),
            Some(why) => crit!(self.log, "stopping: this server cannot go on"; "reason" => why),
        }
        self.stop().await;
        broken.map_or(Ok(()), |why| Err(StartError::Broken(why)))
    }

    async fn stop(self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.state.ready.store(false, Ordering::Relaxed);
        self.server.stop(true).await;
        self.actors.stop();
        if let Err(error) = self.database.stop().await {
            warn!(self.log, "the embedded database did not stop"; "error" => %error);
        }
    }
}

fn listen(settings: &Settings) -> Result<TcpListener, StartError> {
    let (bind, port) = (settings.server.bind.as_str(), settings.server.port);
    TcpListener::bind((bind, port)).map_err(|source| StartError::Bind { bind: bind.to_owned(), port, source })
}

fn tokens(settings: &Settings, installation: &Installation) -> Tokens {
    match &settings.auth.secret {
        secret if secret.is_empty() => Tokens::new(installation.secret.clone()),
        secret => Tokens::new(secret.expose()),
    }
}

fn driver(
    settings: &Settings,
    data_dir: &DataDir,
    installation: &Installation,
    tokens: Tokens,
    address: SocketAddr,
    log: &Logger,
) -> Arc<dyn Driver> {
    match settings.driver.kind {
        DriverKind::Process => {
            let configured = settings.driver.server_url.trim_end_matches('/');
            let reach = if address.ip().is_unspecified() {
                format!("127.0.0.1:{}", address.port())
            } else {
                address.to_string()
            };
            let process = ProcessSettings {
                bot_program: bot_program(settings),
                work_root: data_dir.path().join("bots"),
                installation: installation.id,
                server_url: if configured.is_empty() {
                    format!("http://{reach}")
                } else {
                    configured.to_owned()
                },
                bots_max: hosts(settings).values().map(|host| host.capacity as usize).sum(),
                folders_kept: WORK_FOLDERS_KEPT,
            };
            let source = Arc::new(move |slot, generation| tokens.slot(slot, generation));
            Arc::new(ProcessDriver::new(process, source, log.clone()))
        }
    }
}

/// The configured bot program, or `meeboter-bot` beside this one.
fn bot_program(settings: &Settings) -> PathBuf {
    if !settings.driver.bot_program.as_os_str().is_empty() {
        return settings.driver.bot_program.clone();
    }
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join("meeboter-bot")));
    beside.unwrap_or_else(|| PathBuf::from("meeboter-bot"))
}

fn report(rows: &Rows, log: &Logger) {
    let running = rows.slots.iter().filter(|slot| slot.bot().is_some()).count();
    info!(log, "rows loaded"; "slots" => rows.slots.len(), "with_bots" => running, "queued" => rows.queue.len(),
        "recordings_to_join" => rows.recordings.len());
}

fn ports(
    database: &Arc<Database>,
    driver: Arc<dyn Driver>,
    objects: &Objects,
    stopping: Arc<AtomicBool>,
    log: &Logger,
) -> (Ports, mpsc::UnboundedReceiver<String>) {
    let (broken, fatal) = mpsc::unbounded_channel();
    let on_fatal = Arc::new(move |why: &str| {
        if !stopping.load(Ordering::Relaxed) {
            // Nobody listens only when the server is stopping anyway.
            let _ = broken.send(why.to_owned());
        }
    });
    let ports = Ports {
        store: database.journal(),
        driver,
        artifacts: Arc::new(objects.artifacts().clone()),
        clock: Arc::new(SystemClock),
        slot_ids: Arc::new(RandomSlotIds),
        on_fatal,
        log: log.clone(),
    };
    (ports, fatal)
}

/// Builds the actors on a thread of their own.
async fn plant(actors: &Arbiter, ports: Ports, rows: Rows, settings: &Settings) -> Result<Tree, StartError> {
    let (pool, timing) = (pool_settings(settings), timing(settings));
    let (planted, tree) = oneshot::channel();
    actors.spawn_fn(move || drop(planted.send(Tree::start(&ports, rows, pool, timing))));
    tree.await.map_err(|_| StartError::Broken("the actors did not start".to_owned()))
}

fn pool_settings(settings: &Settings) -> PoolSettings {
    let images = &settings.images;
    let platforms =
        settings.pool.platforms.iter().filter(|(key, _)| settings.rehearsal.enabled || *key != REHEARSAL);
    let platforms = platforms.map(|(key, platform)| {
        let image = match platform.image.as_str() {
            "" => format!("ghcr.io/{}/meeboter-{key}-bot:{}", images.ghcr_org, images.tag),
            image => image.to_owned(),
        };
        let settings = PlatformSettings {
            max_size: platform.max_size,
            image,
            enabled: platform.enabled,
            prewarm: platform.prewarm,
            ephemeral: platform.ephemeral,
        };
        (Platform(key.clone()), settings)
    });
    PoolSettings {
        platforms: platforms.collect(),
        hosts: hosts(settings),
        max_size: settings.pool.max_size,
        queue_max: settings.queue.max,
    }
}

/// The hosts of the engine. Processes run on this one, whatever else is configured.
fn hosts(settings: &Settings) -> BTreeMap<HostName, HostSettings> {
    let limits = |host: &crate::config::Host| HostSettings { capacity: host.capacity };
    let hosts = settings.hosts.iter().map(|(name, host)| (HostName(name.clone()), limits(host)));
    match settings.driver.kind {
        DriverKind::Process => hosts.filter(|(name, _)| *name == HostName::local()).collect(),
    }
}

fn timing(settings: &Settings) -> SlotTiming {
    let bots = &settings.bots;
    let ms = Duration::from_millis;
    SlotTiming {
        deploy: ms(bots.deploy_timeout_ms),
        leave_grace: ms(bots.leave_grace_ms),
        segment_grace: ms(bots.segment_grace_ms),
        leave_limit: ms(bots.leave_limit_ms),
        stop_grace: ms(bots.stop_grace_ms),
        max_duration: ms(bots.max_duration_ms),
        recovery_delay: ms(bots.recovery_delay_ms),
        recovery_interval: ms(bots.recovery_interval_ms),
        heartbeat_suspect: ms(bots.heartbeat_suspect_ms),
        heartbeat_lost: ms(bots.heartbeat_lost_ms),
        ..SlotTiming::default()
    }
}

fn serve(
    listener: TcpListener,
    state: &web::Data<AppState>,
    objects: &Objects,
) -> Result<ServerHandle, StartError> {
    let (state, proxy) = (state.clone(), objects.proxy());
    let server = HttpServer::new(move || {
        let app = App::new().app_data(state.clone()).wrap(from_fn(log_errors));
        let app = match &proxy {
            Some(proxy) => app.configure(|cfg| proxy.configure(cfg)),
            None => app,
        };
        app.configure(routes)
    })
    .workers(HTTP_WORKERS)
    .disable_signals()
    .shutdown_timeout(SHUTDOWN_TIMEOUT_S)
    .listen(listener)
    .map_err(StartError::Listen)?
    .run();
    let handle = server.handle();
    actix_web::rt::spawn(server);
    Ok(handle)
}

/// Writes every error that a client is told into the log, under the same id.
async fn log_errors(
    request: ServiceRequest,
    next: Next<impl actix_web::body::MessageBody>,
) -> Result<ServiceResponse<impl actix_web::body::MessageBody>, actix_web::Error> {
    let state = request.app_data::<web::Data<AppState>>().cloned();
    let (method, path) = (request.method().clone(), request.path().to_owned());
    let response = next.call(request).await?;
    let error = response.response().error().and_then(|error| error.as_error::<ApiError>());
    if let (Some(state), Some(error)) = (state, error) {
        let (id, code, cause) = error.log_line();
        let status = response.status().as_u16();
        if response.status().is_server_error() {
            warn!(state.log, "request failed"; "error_id" => %id, "status" => status, "code" => code,
                "cause" => cause, "method" => %method, "path" => path);
        } else {
            info!(state.log, "request refused"; "error_id" => %id, "status" => status, "code" => code,
                "cause" => cause, "method" => %method, "path" => path);
        }
    }
    Ok(response)
}

/// Looks after the embedded database and the lead; losing the lead shows at the next batch.
fn watch(database: Arc<Database>, tree: Tree, log: Logger) {
    actix_web::rt::spawn(async move {
        let mut interval = tokio::time::interval(WATCH_INTERVAL);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            if let Err(why) = database.look_after().await {
                warn!(log, "database"; "error" => why);
            }
            if !tree.pool.connected() {
                return;
            }
        }
    });
}
