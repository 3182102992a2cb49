//! Wires everything together, in the order of a start: data folder → database → lead → object store → driver → rows
//! → actors → HTTP. And takes it apart again; bots go on without the server. Where another server leads, this one
//! stands by: it serves reads, and does the rest when the lead is free.

mod api_key_file;
mod candidate;
mod database;
mod engine;
mod error;
mod objects;
mod open_files;
pub mod reload;
mod settings;

pub use error::StartError;

use crate::auth::Tokens;
use crate::auth::api_keys::ApiKeys;
use crate::auth::plans::Plans;
use crate::config::{Loaded, Settings, Source};
use crate::http::error::ApiError;
use crate::http::rate::TokenBucket;
use crate::http::routes;
use crate::http::state::AppState;
use crate::http::watchers::Watchers;
use crate::metrics::Metrics;
use crate::store::data_dir::DataDir;
use crate::store::journal::JournalConnection;
use crate::store::queries::Installation;
use crate::telemetry::chain;
use actix::Arbiter;
use actix_web::dev::{ServerHandle, ServiceRequest, ServiceResponse};
use actix_web::middleware::{Next, from_fn};
use actix_web::{App, HttpServer, web};
use candidate::Candidate;
use chrono::{DateTime, SubsecRound, Utc};
use database::Database;
use engine::{Basis, Engine};
use meeboter_actors::ids::SlotId;
use meeboter_actors::ports::{Clock, SlotIds};
use objects::Objects;
use reload::{Reloaded, Reloader};
use slog::{Logger, crit, debug, info, warn};
use socket2::SockRef;
use std::any::Any;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use uuid::Uuid;

/// HTTP threads: decisions are made elsewhere, these only parse and wait.
const HTTP_WORKERS: usize = 2;
/// How long requests under way may take when the server stops.
const SHUTDOWN_TIMEOUT_S: u64 = 5;
/// How long a connection is kept for its next request: longer than clients and proxies keep one (60 s in nginx, 90 s in
/// Go, Traefik and reqwest), for whoever is asked to reuse a connection in the moment the server closes it sees an error.
const KEEP_ALIVE: Duration = Duration::from_secs(120);
/// How long the head of a request may take to come. On a host with all its processors busy that is seconds.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a client may leave what it was sent in its way before its connection is given up: longer than a player that is
/// paused leaves its recording, for it has to ask again.
const UNREAD_TIMEOUT: Duration = Duration::from_secs(300);

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
    lead: Arc<OnceLock<Arc<JournalConnection>>>,
    fatal: mpsc::UnboundedReceiver<String>,
    hangup: Signal,
    log: Logger,
    _objects: Objects,
    _data_dir: DataDir,
}

impl Application {
    /// Starts everything; comes back when requests are taken, or when this server stands by for another that leads.
    pub async fn start(source: Source, loaded: Loaded, log: Logger) -> Result<Self, StartError> {
        // One that comes during the start must not end it.
        let hangup = signal(SignalKind::hangup()).map_err(|_| StartError::Signals)?;
        open_files::raise_limit(&log);
        let settings = loaded.settings.clone();
        let listener = listen(&settings)?;
        let address = listener.local_addr().map_err(StartError::Listen)?;
        let data_dir = DataDir::hold(&settings.data_dir)?;
        let database = Arc::new(Database::start(&settings, &data_dir, &log).await?);
        // Whoever leads brings the schema up to date: reads come after.
        let journal = candidate::claim(&database, &log).await?;
        let pool = database.pool(settings.database.pool_max).await?;
        let installation = pool.installation().await?;
        let objects = Objects::start(&settings, data_dir.path(), &log).await?;
        let tokens = tokens(&settings, &installation);
        let engine = Engine::build(Basis {
            settings: &settings,
            data_dir: data_dir.path(),
            installation: installation.id,
            tokens: tokens.clone(),
            address,
            log: &log,
        })?;
        engine.probe(&settings, &log).await?;
        let metrics = Arc::new(Metrics::new().map_err(StartError::Metrics)?);
        let state = web::Data::new(AppState {
            leading: OnceLock::new(),
            pool,
            artifacts: objects.artifacts().clone(),
            metrics: Arc::clone(&metrics),
            tokens,
            api_keys: ApiKeys::default(),
            plans: Plans::default(),
            door: Semaphore::new(settings.server.in_flight_max),
            rate: rate(&settings),
            watchers: Arc::new(watchers(&settings)),
            settings,
            reloader: Reloader::new(source, &loaded, engine.clone(), metrics),
            clock: Arc::new(SystemClock),
            log: log.clone(),
            stopping: watch::Sender::new(false),
            emptied: Notify::new(),
        });
        let actors = Arbiter::new();
        let stopping = Arc::new(AtomicBool::new(false));
        let lead = Arc::new(OnceLock::new());
        let (broken, fatal) = mpsc::unbounded_channel();
        let candidate = Candidate {
            database: Arc::clone(&database),
            state: state.clone(),
            driver: engine.driver(),
            spools: engine.spools(state.artifacts.clone()),
            actors: actors.handle(),
            data_dir: data_dir.path().to_owned(),
            stopping: Arc::clone(&stopping),
            lead: Arc::clone(&lead),
            broken,
            log: log.clone(),
        };
        match journal {
            Some(journal) => candidate.lead(journal).await?,
            None => candidate.stand_by(),
        }
        let server = serve(listener, &state, &objects)?;
        info!(log, "listening"; "address" => %address);
        Ok(Self {
            address,
            server,
            state,
            actors,
            database,
            stopping,
            lead,
            fatal,
            hangup,
            log,
            _objects: objects,
            _data_dir: data_dir,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until a signal says to stop, or an operator has emptied the server, or something is broken that only a
    /// new start can mend. A second signal ends the wait for whatever the stop still waits for.
    pub async fn run(mut self) -> Result<(), StartError> {
        let mut signals = Signals::catch()?;
        let broken = loop {
            tokio::select! {
                () = signals.next() => {
                    info!(self.log, "stopping; bots go on without the server");
                    break None;
                }
                () = self.state.emptied.notified() => {
                    info!(self.log, "stopping; the server is empty");
                    break None;
                }
                why = self.fatal.recv() => {
                    crit!(self.log, "stopping: this server cannot go on"; "reason" => &why);
                    break why;
                }
                _ = self.hangup.recv() => self.reload().await,
            }
        };
        let log = self.log.clone();
        tokio::select! {
            () = self.stop() => {}
            () = signals.next() => warn!(log, "told to stop again: nothing is waited for any more"),
        }
        broken.map_or(Ok(()), |why| Err(StartError::Broken(why)))
    }

    /// Reads the settings again because a signal says so; what comes of it is in the log.
    async fn reload(&self) {
        match self.state.reloader.reload(&self.state.leading).await {
            Ok(Reloaded { applied, needs_restart }) => info!(self.log, "settings are read again";
                "applied" => applied.join(", "), "needs_restart" => needs_restart.join(", ")),
            Err(error) => warn!(self.log, "settings stay as they are"; "error" => chain(&error)),
        }
    }

    /// Refuses what comes, answers what was asked, gives the lead back, and only then closes connections: that can take
    /// seconds, and a standby waits for the lead.
    async fn stop(self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.state.stopping.send_replace(true);
        self.state.all_answered(Duration::from_secs(SHUTDOWN_TIMEOUT_S)).await;
        self.actors.stop();
        if let Some(lead) = self.lead.get() {
            lead.resign().await;
        }
        self.server.stop(true).await;
        if let Err(error) = self.database.stop().await {
            warn!(self.log, "the embedded database did not stop"; "error" => %error);
        }
    }
}

/// The signals that mean "stop".
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn catch() -> Result<Self, StartError> {
        match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
            (Ok(terminate), Ok(interrupt)) => Ok(Self { terminate, interrupt }),
            _ => Err(StartError::Signals),
        }
    }

    /// Comes back when one arrives.
    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

fn listen(settings: &Settings) -> Result<TcpListener, StartError> {
    let (bind, port) = (settings.server.bind.as_str(), settings.server.port);
    TcpListener::bind((bind, port)).map_err(|source| StartError::Bind { bind: bind.to_owned(), port, source })
}

fn rate(settings: &Settings) -> Option<Mutex<TokenBucket>> {
    let per_second = NonZeroU32::new(settings.server.creations_per_s_max)?;
    Some(Mutex::new(TokenBucket::new(per_second.get(), Instant::now())))
}

fn watchers(settings: &Settings) -> Watchers {
    Watchers::new(settings.server.websockets_max, settings.server.websockets_per_user_max)
}

fn tokens(settings: &Settings, installation: &Installation) -> Tokens {
    match &settings.auth.secret {
        secret if secret.is_empty() => Tokens::new(installation.secret.clone()),
        secret => Tokens::new(secret.expose()),
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
    .keep_alive(KEEP_ALIVE)
    .client_request_timeout(REQUEST_TIMEOUT)
    .on_connect(|connection, _| limit_unread(connection))
    .disable_signals()
    .shutdown_timeout(SHUTDOWN_TIMEOUT_S)
    .listen(listener)
    .map_err(StartError::Listen)?
    .run();
    let handle = server.handle();
    actix_web::rt::spawn(server);
    Ok(handle)
}

/// Has the system give up a connection whose client reads nothing: nobody else would, once the answer is written.
fn limit_unread(connection: &dyn Any) {
    if let Some(stream) = connection.downcast_ref::<TcpStream>() {
        // A connection that is gone already needs no limit.
        let _ = SockRef::from(stream).set_tcp_user_timeout(Some(UNREAD_TIMEOUT));
    }
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
        if path == "/readyz" {
            // Whoever watches asks every few seconds; not to be ready is no mistake.
            debug!(state.log, "not ready"; "error_id" => %id, "code" => code);
        } else if response.status().is_server_error() {
            warn!(state.log, "request failed"; "error_id" => %id, "status" => status, "code" => code,
                "cause" => cause, "method" => %method, "path" => path);
        } else {
            info!(state.log, "request refused"; "error_id" => %id, "status" => status, "code" => code,
                "cause" => cause, "method" => %method, "path" => path);
        }
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_whose_client_reads_nothing_is_given_up_in_time() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let stream = TcpStream::connect(listener.local_addr().expect("an address")).await.expect("connects");
        let limit = || SockRef::from(&stream).tcp_user_timeout().expect("the system knows it");
        assert_eq!(limit(), None);
        limit_unread(&stream);
        assert_eq!(limit(), Some(UNREAD_TIMEOUT));
    }
}
