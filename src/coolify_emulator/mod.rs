//! An emulator of the part of Coolify's API that a pool of bots uses, for tests and for trying Meeboter without a
//! Coolify. It is honest: what the real API refuses, forgets, delays or gets wrong, it does too.
//!
//! What it knows and decides is pure (`world`, `deployments`, `validation`, `rate`, `faults`, `access`); `routes` says
//! which request means what; `work` does what Coolify does in the background; `containers` is what applications run in.
//! Nothing here knows Meeboter.

mod access;
mod answer;
mod containers;
mod deployments;
mod engine;
mod faults;
mod processes;
mod rate;
mod routes;
mod run;
mod validation;
mod work;
mod world;

pub use access::{Ability, Token};
pub use containers::{ContainerSpec, ContainerState, Containers, SimulatedContainers};
pub use engine::DockerContainers;
pub use faults::{Fault, Trouble};
pub use processes::ProcessContainers;
pub use run::{EmulatorOptions, run};
pub use world::Site;

use actix_web::dev::ServerHandle;
use actix_web::{App, HttpServer, web};
use faults::Faults;
use rate::RateWindow;
use serde_json::Value;
use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, oneshot};
use work::Jobs;
use world::World;

/// Requests that are remembered for whoever wants to see them, the latest at the end.
const REQUESTS_KEPT: usize = 20_000;
/// Longest body that is read, in bytes.
const BODY_MAX_BYTES: usize = 4 * 1024 * 1024;
/// How long a request that gets no answer is held, at most.
const SILENCE_MAX: Duration = Duration::from_secs(120);

/// How long things take.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// The first pull of an image.
    pub pull: Duration,
    /// A deployment beyond the pull.
    pub build: Duration,
    /// A job that stops or deletes.
    pub stop: Duration,
    /// From the end of a deployment to the look that follows it.
    pub look_after: Duration,
    /// Between two looks at what runs: statuses are as old as this.
    pub look_interval: Duration,
    /// Between a program's end and its restart.
    pub restart: Duration,
}

impl Pace {
    /// As quick as a test likes it.
    pub fn quick() -> Self {
        let ms = Duration::from_millis;
        Self {
            pull: ms(60),
            build: ms(40),
            stop: ms(15),
            look_after: ms(30),
            look_interval: ms(150),
            restart: ms(50),
        }
    }
}

/// How an emulator is set up.
#[derive(Debug, Clone)]
pub struct EmulatorSettings {
    /// Identifiers and limits.
    pub site: Site,
    /// Tokens of the one user.
    pub tokens: Vec<Token>,
    /// How long things take.
    pub pace: Pace,
    /// Jobs at a time, over deployments, stops and deletions.
    pub workers: usize,
    /// Requests in a window.
    pub rate_limit: u32,
    /// How long a window is.
    pub rate_window: Duration,
    /// Seconds that a full queue asks for.
    pub full_retry_after_s: u64,
}

impl EmulatorSettings {
    /// A fresh Coolify of one server, whose only token is this one.
    pub fn new(token: &str, pace: Pace) -> Self {
        Self {
            site: Site::default(),
            tokens: vec![Token::for_a_pool(token)],
            pace,
            workers: 4,
            rate_limit: 200,
            rate_window: Duration::from_secs(60),
            full_retry_after_s: 60,
        }
    }
}

/// A request that reached a route.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordedRequest {
    /// The method.
    pub method: String,
    /// The path below `/api/v1`.
    pub path: String,
    /// The query.
    pub query: Vec<(String, String)>,
    /// The body; null: none.
    pub body: Value,
    /// The answer's status; 0: none was given.
    pub status: u16,
    /// When it came, since the emulator began.
    pub at: Duration,
}

/// What all requests and jobs share.
pub(crate) struct Shared {
    settings: EmulatorSettings,
    world: Mutex<World>,
    rate: Mutex<RateWindow>,
    faults: Mutex<Faults>,
    requests: Mutex<VecDeque<RecordedRequest>>,
    containers: Arc<dyn Containers>,
    workers: Semaphore,
    jobs: Mutex<Jobs>,
    began: Instant,
}

impl Shared {
    fn world(&self) -> MutexGuard<'_, World> {
        lock(&self.world)
    }

    fn record(&self, request: RecordedRequest) {
        let mut requests = lock(&self.requests);
        requests.push_back(request);
        if requests.len() > REQUESTS_KEPT {
            requests.pop_front();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A running emulator, on a thread of its own; it ends when this is dropped.
pub struct Emulator {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: ServerHandle,
}

impl Emulator {
    /// Starts one on a listener.
    pub async fn start(
        listener: TcpListener,
        settings: EmulatorSettings,
        containers: Arc<dyn Containers>,
    ) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            world: Mutex::new(World::new(settings.site.clone())),
            rate: Mutex::new(RateWindow::new(settings.rate_limit, settings.rate_window)),
            faults: Mutex::default(),
            requests: Mutex::default(),
            workers: Semaphore::new(settings.workers),
            jobs: Mutex::default(),
            began: Instant::now(),
            containers,
            settings,
        });
        let (started, server) = oneshot::channel();
        let theirs = Arc::clone(&shared);
        std::thread::Builder::new().name("coolify-emulator".to_owned()).spawn(move || {
            actix_rt::System::new().block_on(serve(listener, theirs, started));
        })?;
        let server = server.await.map_err(|_| io::Error::other("the emulator did not start"))??;
        Ok(Self { address, shared, server })
    }

    /// Ends it, and with it what its applications run.
    pub async fn end(self) {
        self.server.stop(false).await;
        work::end(&self.shared).await;
    }

    /// Base URL, without a path.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Lets something go wrong.
    pub fn fault(&self, fault: Fault) {
        lock(&self.shared.faults).add(fault);
    }

    /// Takes back all faults.
    pub fn mend(&self) {
        lock(&self.shared.faults).clear();
    }

    /// The requests so far, refused ones too.
    pub fn requests(&self) -> Vec<RecordedRequest> {
        lock(&self.shared.requests).iter().cloned().collect()
    }

    /// Restarts Coolify: whatever was queued or under way has failed.
    pub fn restart(&self) {
        work::restart(&self.shared);
    }

    /// Whether statuses stay as they are, whatever happens.
    pub fn freeze_statuses(&self, frozen: bool) {
        self.shared.world().statuses_frozen = frozen;
    }

    /// Stores a status by hand, right or wrong.
    pub fn set_status(&self, application: &str, status: &str) {
        if let Some(application) = self.shared.world().applications.get_mut(application) {
            application.status = status.to_owned();
        }
    }

    /// Presses "Clone": settings, description, tags and environment are copied, what runs is not.
    pub fn clone_application(&self, application: &str, uuid: &str, name: &str) {
        self.shared.world().copy(application, uuid, name, &work::now());
    }

    /// The rows of all applications, with everything in them.
    pub fn applications(&self) -> Vec<Value> {
        self.shared.world().applications.values().map(|application| application.row(true)).collect()
    }

    /// Uses up what is left of the rate limit, as another client of the same user does.
    pub fn exhaust_rate(&self) {
        lock(&self.shared.rate).exhaust(self.shared.began.elapsed());
    }

    /// Deployments that are queued or under way.
    pub fn active_deployments(&self) -> usize {
        self.shared.world().all_active().count()
    }

    /// Every deployment that there ever was of applications that still are, with its status.
    pub fn deployments(&self) -> Vec<Value> {
        self.shared.world().deployments.iter().map(|row| row.row(true)).collect()
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        // The server's thread carries the stop out; there is nobody to wait for it here.
        drop(self.server.stop(false));
    }
}

async fn serve(
    listener: TcpListener,
    shared: Arc<Shared>,
    started: oneshot::Sender<io::Result<ServerHandle>>,
) {
    let data = web::Data::from(Arc::clone(&shared));
    let server = HttpServer::new(move || {
        App::new()
            .app_data(data.clone())
            .app_data(web::PayloadConfig::new(BODY_MAX_BYTES))
            .default_service(web::to(routes::handle))
    })
    .workers(1)
    .disable_signals()
    .shutdown_timeout(1)
    .listen(listener);
    match server {
        Ok(server) => {
            let server = server.run();
            drop(started.send(Ok(server.handle())));
            let background = actix_rt::spawn(work::look_after(Arc::clone(&shared)));
            // Why a server ended is of no use to anybody any more.
            drop(server.await);
            background.abort();
        }
        Err(error) => drop(started.send(Err(error))),
    }
}
