//! The one writer's connection: the domain's [`Store`] over a single direct connection that holds the lead.
//!
//! A connection that failed, or was too slow, is dropped, and the next call makes another: it takes the lock again
//! (from the session that was dropped, if PostgreSQL has not noticed yet) and sees that the epoch still stands. What
//! became of a batch in between is for the caller to ask with `was_committed`, which by then is decided: the old
//! session is gone before the new one has the lock.
//!
//! A batch is committed without waiting for the disk, and flushed on a connection beside this one (`flusher.rs`). A
//! successor flushes before it reads: what the leader before left unflushed is durable before anybody acts on it.

use super::database::{Connection, Database, application_name};
use super::flusher::Flusher;
use super::lead::{self, Backend, LeadError};
use super::link::{Failure, Link};
use super::migrate::migrate;
use super::validity::{Moment, SILENCE_MAX, Validity};
use crate::telemetry::chain;
use async_trait::async_trait;
use futures_util::future::{FutureExt, maybe_done};
use meeboter_actors::bot::Bot;
use meeboter_actors::ids::{BotId, SlotName};
use meeboter_actors::journal::Decision;
use meeboter_actors::ports::{BatchNo, Rows, Store, StoreError};
use meeboter_actors::recording::Recording;
use meeboter_actors::slot::Slot;
use slog::{Logger, info, o, warn};
use std::future::poll_fn;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};

/// For one call, with making a new connection if need be.
const CALL_DEADLINE: Duration = Duration::from_secs(5);
/// For reading everything at start; PostgreSQL itself gives up a little earlier (`link.rs`).
const LOAD_DEADLINE: Duration = Duration::from_secs(30);
/// For migrations and the first statements of a new leader.
const TAKEOVER_DEADLINE: Duration = Duration::from_secs(120);
/// Between two looks at a lock that another session has.
const LOCK_INTERVAL: Duration = Duration::from_millis(50);
/// Sessions of our own that may still hold the lock.
const OWN_BACKENDS_MAX: usize = 16;

/// How a process comes to lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// Waits so long for a leader that is just stopping.
    Within(Duration),
    /// Waits until the leader is gone, as a standby does; one that is silent for [`SILENCE_MAX`] is ended.
    Succeed,
}

/// See the module.
pub struct JournalConnection {
    epoch: i64,
    validity: Arc<Validity>,
    lead: Mutex<Lead>,
}

struct Lead {
    database: Database,
    epoch: i64,
    link: Option<Arc<Link>>,
    flusher: Arc<Flusher>,
    /// Sessions that this process made, latest last.
    own: Vec<Backend>,
    deposed: bool,
    log: Logger,
}

impl JournalConnection {
    /// Takes the lead for a new process: waits for whoever has it to go, brings the schema to this version, and begins
    /// a new epoch.
    pub async fn take_lead(database: &Database, claim: Claim, log: &Logger) -> Result<Self, LeadError> {
        let database = database.clone().primary();
        let log = log.new(o!("part" => "journal"));
        let mut connection = database.connect().await?;
        let backend = within_call(lead::backend(&connection.client)).await?;
        wait_for_lock(&connection, claim, &log).await?;
        let validity = Arc::new(Validity::default());
        let takeover = async {
            let sent = Moment::now();
            migrate(&mut connection.client, Instant::now() + TAKEOVER_DEADLINE, &log).await?;
            let name = application_name();
            let epoch = lead::begin_epoch(&connection.client, &name).await.map_err(LeadError::Epoch)?;
            let prepared = async {
                let flusher = Arc::new(Flusher::connect(&database).await?);
                let link = Link::prepare(connection, Arc::clone(&flusher), epoch).await?;
                // What the leader before had not flushed is read next, and acted on.
                flusher.flush_all().await?;
                Ok::<_, Failure>((link, flusher))
            };
            let (link, flusher) = prepared.await.map_err(|failure| LeadError::Prepare(Box::new(failure)))?;
            validity.prove(sent);
            Ok::<_, LeadError>((epoch, link, flusher))
        };
        let timed_out = |_| LeadError::TimedOut(TAKEOVER_DEADLINE);
        let (epoch, link, flusher) = timeout(TAKEOVER_DEADLINE, takeover).await.map_err(timed_out)??;
        info!(log, "this server leads"; "epoch" => epoch, "database" => database.place());
        let lead = Lead {
            database,
            epoch,
            link: Some(Arc::new(link)),
            flusher,
            own: vec![backend],
            deposed: false,
            log,
        };
        Ok(Self { epoch, validity, lead: Mutex::new(lead) })
    }

    /// Sees that this process still leads, making a new connection if the old one is gone. To be called every second:
    /// this is what a standby listens for, and what [`Validity`] lives by where there is no batch to write.
    pub async fn confirm_lead(&self) -> Result<(), StoreError> {
        self.call(CALL_DEADLINE, |link| async move { link.confirm().await }).await
    }

    /// Gives the lead back: nothing more is written or acted on here, and a standby leads as soon as it looks.
    pub async fn resign(&self) {
        self.validity.resign();
        // The session that has the lock ends with its link.
        if let Ok(mut lead) = timeout(CALL_DEADLINE, self.lead.lock()).await {
            lead.deposed = true;
            lead.link = None;
        }
    }

    /// Whether this process may act on what it has decided.
    pub fn validity(&self) -> Arc<Validity> {
        Arc::clone(&self.validity)
    }

    /// Does one thing on the connection. All that it sends, it sends when it is first polled; until then nobody else may
    /// send anything, and what is sent after that comes behind it.
    async fn call<T, W>(
        &self,
        limit: Duration,
        work: impl FnOnce(Arc<Link>) -> W + Send,
    ) -> Result<T, StoreError>
    where
        W: Future<Output = Result<T, Failure>> + Send,
        T: Send,
    {
        let mut lead = self.lead.lock().await;
        let link = lead.link(Instant::now() + CALL_DEADLINE).await?;
        let sent = Moment::now();
        let mut work = maybe_done(within(limit, work(Arc::clone(&link))).boxed());
        poll_fn(|context| {
            let _ = work.poll_unpin(context);
            Poll::Ready(())
        })
        .await;
        drop(lead);
        (&mut work).await;
        match Pin::new(&mut work).take_output().unwrap_or(Err(Failure::TimedOut(limit))) {
            Ok(value) => {
                self.validity.prove(sent);
                Ok(value)
            }
            Err(failure) => Err(self.lead.lock().await.failed_on(&link, failure)),
        }
    }

    /// The number of this process's leadership.
    pub fn epoch(&self) -> i64 {
        self.epoch
    }
}

async fn wait_for_lock(connection: &Connection, claim: Claim, log: &Logger) -> Result<(), LeadError> {
    let began = Instant::now();
    let client = &connection.client;
    while !within_call(lead::try_lock(client)).await? {
        let leader = within_call(lead::leader(client)).await?;
        match (claim, leader) {
            (Claim::Within(patience), Some(leader)) if began.elapsed() >= patience => {
                return Err(LeadError::Led(leader));
            }
            // Freed just now, or held by a session that this user may not see.
            (Claim::Within(patience), None) if began.elapsed() >= patience + CALL_DEADLINE => {
                return Err(LeadError::TimedOut(patience));
            }
            (Claim::Succeed, Some(leader)) if leader.silent >= SILENCE_MAX => {
                warn!(log, "the leader is silent; ending its session";
                    "leader" => %leader, "silent_ms" => leader.silent.as_millis());
                within_call(lead::terminate(client, leader.backend)).await?;
            }
            _ => sleep(LOCK_INTERVAL).await,
        }
    }
    Ok(())
}

/// A question asked while waiting for the lead: a database that does not answer is not waited for.
async fn within_call<T>(
    question: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, LeadError> {
    let timed_out = |_| LeadError::TimedOut(CALL_DEADLINE);
    timeout(CALL_DEADLINE, question).await.map_err(timed_out)?.map_err(LeadError::Lock)
}

async fn within<T>(limit: Duration, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    timeout(limit, work).await.unwrap_or(Err(Failure::TimedOut(limit)))
}

impl Lead {
    /// The connection, a new one if need be.
    async fn link(&mut self, deadline: Instant) -> Result<Arc<Link>, StoreError> {
        if self.deposed {
            return Err(StoreError::Deposed);
        }
        if let Some(link) = self.link.as_ref().filter(|link| !link.is_closed()) {
            return Ok(Arc::clone(link));
        }
        self.link = None;
        match within(deadline.saturating_duration_since(Instant::now()), self.reconnect()).await {
            Ok(link) => {
                info!(self.log, "connected to PostgreSQL again"; "epoch" => self.epoch);
                let link = Arc::new(link);
                self.link = Some(Arc::clone(&link));
                Ok(link)
            }
            Err(failure) => Err(self.failed(failure)),
        }
    }

    /// What a failure on a connection means; the connection is dropped unless the database only refused.
    fn failed_on(&mut self, link: &Arc<Link>, failure: Failure) -> StoreError {
        let error = self.failed(failure);
        let is_current = self.link.as_ref().is_some_and(|current| Arc::ptr_eq(current, link));
        if is_current && !matches!(error, StoreError::Refused(_)) {
            self.link = None;
        }
        error
    }

    /// What a failure to flush means. A flusher that does not answer is given up, and with it the connection that tells it
    /// what is committed: its own may be cut off alone, and would then not answer for ever.
    fn not_flushed(&mut self, flusher: &Arc<Flusher>, failure: Failure) -> StoreError {
        let is_silent = matches!(failure, Failure::TimedOut(_));
        if is_silent && Arc::ptr_eq(&self.flusher, flusher) && !flusher.is_closed() {
            warn!(self.log, "the flush is not answered"; "cause" => chain(&failure));
            flusher.give_up();
            self.link = None;
        }
        failure.into()
    }

    fn failed(&mut self, failure: Failure) -> StoreError {
        let cause = chain(&failure);
        let error = StoreError::from(failure);
        match &error {
            StoreError::Refused(_) => {}
            StoreError::Unavailable(_) => warn!(self.log, "PostgreSQL is away"; "cause" => cause),
            StoreError::Deposed => {
                self.deposed = true;
                warn!(self.log, "another server leads; this one writes nothing more"; "epoch" => self.epoch);
            }
        }
        error
    }

    async fn reconnect(&mut self) -> Result<Link, Failure> {
        let connection = self.database.connect().await?;
        let client = &connection.client;
        let backend = lead::backend(client).await?;
        if self.own.len() >= OWN_BACKENDS_MAX {
            // The first is the one that last led.
            self.own.remove(1);
        }
        self.own.push(backend);
        // The caller's deadline bounds this loop.
        while !lead::try_lock(client).await? {
            if let Some(leader) = lead::leader(client).await?
                && self.own.contains(&leader.backend)
            {
                lead::terminate(client, leader.backend).await?;
            } else if lead::epoch(client).await? != self.epoch {
                return Err(Failure::Deposed);
            }
            sleep(LOCK_INTERVAL).await;
        }
        if lead::epoch(client).await? != self.epoch {
            return Err(Failure::Deposed);
        }
        self.own = vec![backend];
        if self.flusher.is_closed() {
            self.flusher = Arc::new(Flusher::connect(&self.database).await?);
        }
        Link::prepare(connection, Arc::clone(&self.flusher), self.epoch).await
    }
}

#[async_trait]
impl Store for JournalConnection {
    async fn commit(&self, batch: BatchNo, decisions: &[Decision]) -> Result<(), StoreError> {
        self.call(CALL_DEADLINE, move |link| async move { link.commit(batch, decisions).await }).await
    }

    async fn flush(&self, batch: BatchNo) -> Result<(), StoreError> {
        let flusher = Arc::clone(&self.lead.lock().await.flusher);
        match within(CALL_DEADLINE, flusher.flush(batch)).await {
            Ok(()) => Ok(()),
            Err(failure) => Err(self.lead.lock().await.not_flushed(&flusher, failure)),
        }
    }

    async fn was_committed(&self, batch: BatchNo) -> Result<bool, StoreError> {
        self.call(CALL_DEADLINE, move |link| async move { link.was_committed(batch).await }).await
    }

    async fn load(&self) -> Result<Rows, StoreError> {
        self.call(LOAD_DEADLINE, |link| async move { link.load().await }).await
    }

    async fn read_slot(&self, name: &SlotName) -> Result<Option<Slot>, StoreError> {
        self.call(CALL_DEADLINE, move |link| async move { link.read_slot(name).await }).await
    }

    async fn read_bot(&self, id: BotId) -> Result<Option<Bot>, StoreError> {
        self.call(CALL_DEADLINE, move |link| async move { link.read_bot(id).await }).await
    }

    async fn read_recording(&self, id: BotId) -> Result<Option<Recording>, StoreError> {
        self.call(CALL_DEADLINE, move |link| async move { link.read_recording(id).await }).await
    }

    async fn reserve_bot_ids(&self, count: u32) -> Result<Range<i64>, StoreError> {
        self.call(CALL_DEADLINE, move |link| async move { link.reserve_bot_ids(count).await }).await
    }
}
