//! The way to the lead: at the start where nobody else has it, else by standing by until whoever has it is gone. With
//! the lead in hand the rows are read and the actors built from them; a lead that is lost is not taken again by the
//! same process.

use super::database::Database;
use super::{RandomSlotIds, StartError, SystemClock, api_key_file, settings as wanted};
use crate::disks::HostDisks;
use crate::driver::metered;
use crate::http::state::{AppState, Leading};
use crate::metrics::timers;
use crate::store::journal::{Claim, JournalConnection};
use crate::store::lead::LeadError;
use crate::telemetry::chain;
use actix::ArbiterHandle;
use actix_web::web;
use meeboter_actors::ports::{Driver, Rows, Spools, Store, StoreError};
use meeboter_actors::tree::{Ports, Tree};
use slog::{Logger, info, warn};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// How long a start waits for a server that is just stopping to give up the lead.
const LEAD_PATIENCE: Duration = Duration::from_secs(2);
/// Wait before the database is asked again, for the lead or for what to lead by, where it did not answer.
const CLAIM_RETRY: Duration = Duration::from_millis(250);
/// Time between two confirmations of the lead: three fit into the silence that a standby waits for.
const CONFIRM_INTERVAL: Duration = Duration::from_secs(1);

/// A server that may lead, with everything it then needs.
#[derive(Clone)]
pub(super) struct Candidate {
    pub(super) database: Arc<Database>,
    pub(super) state: web::Data<AppState>,
    pub(super) driver: Arc<dyn Driver>,
    pub(super) spools: Arc<dyn Spools>,
    pub(super) actors: ArbiterHandle,
    pub(super) data_dir: PathBuf,
    pub(super) stopping: Arc<AtomicBool>,
    /// What it leads by, once it does.
    pub(super) lead: Arc<OnceLock<Arc<JournalConnection>>>,
    /// Says that this server cannot go on.
    pub(super) broken: mpsc::UnboundedSender<String>,
    pub(super) log: Logger,
}

/// Where bots' folders are.
pub(super) fn work_root(data_dir: &Path) -> PathBuf {
    data_dir.join("bots")
}

/// Takes the lead at a start. `None`: another server has it, and this one may stand by.
pub(super) async fn claim(
    database: &Database,
    log: &Logger,
) -> Result<Option<Arc<JournalConnection>>, StartError> {
    match database.claim(Claim::Within(LEAD_PATIENCE), log).await {
        Ok(journal) => Ok(Some(Arc::new(journal))),
        Err(LeadError::Led(leader)) if database.is_shared() => {
            info!(log, "standing by: another server leads"; "leader" => %leader);
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

impl Candidate {
    /// Builds the actors from the rows and lets requests in.
    pub(super) async fn lead(&self, journal: Arc<JournalConnection>) -> Result<(), StartError> {
        let (key_file, rows) = self.read(&journal).await?;
        report(&rows, &self.log);
        let lead = journal.validity();
        // Settings that are read meanwhile are told to the actors once these are known.
        let settings = self.state.reloader.hold().await;
        let tree = self.plant(&journal, rows).await?;
        let driver = Arc::clone(&self.driver);
        let leading = Leading { tree: tree.clone(), lead, driver };
        if self.state.leading.set(leading).is_err() {
            return Err(StartError::Broken("this server leads already".to_owned()));
        }
        drop(settings);
        // Only one call gets here: the next was refused above.
        let _ = self.lead.set(Arc::clone(&journal));
        self.confirm(journal, tree);
        info!(self.log, "taking requests"; "api_key_file" => %key_file.display());
        Ok(())
    }

    /// The first key's file, and what the actors are built from. Where the database does not answer, it is asked again for
    /// as long as this server has the lead: whoever took it instead would get no other answer.
    async fn read(&self, journal: &JournalConnection) -> Result<(PathBuf, Rows), StartError> {
        loop {
            let error = match self.try_to_read(journal).await {
                Ok(read) => return Ok(read),
                Err(error) if error.may_pass() => error,
                Err(error) => return Err(error),
            };
            warn!(self.log, "what this server leads by is not read yet"; "error" => chain(&error));
            if let Err(error) = self.database.look_after().await {
                warn!(self.log, "the embedded database does not run"; "error" => chain(&error));
            }
            if let Err(deposed @ StoreError::Deposed) = journal.confirm_lead().await {
                return Err(StartError::Load(deposed));
            }
            tokio::time::sleep(CLAIM_RETRY).await;
        }
    }

    async fn try_to_read(&self, journal: &JournalConnection) -> Result<(PathBuf, Rows), StartError> {
        let key_file = api_key_file::ensure(&self.state.pool, &self.data_dir).await?;
        Ok((key_file, journal.load().await.map_err(StartError::Load)?))
    }

    /// Leads as soon as nobody else does.
    pub(super) fn stand_by(self) {
        if self.state.settings.s3.endpoint.is_empty() {
            warn!(
                self.log,
                "recordings made until this server leads are in the other server's embedded object store; \
                set s3.endpoint on both"
            );
        }
        actix_web::rt::spawn(async move {
            let mut said = String::new();
            let journal = loop {
                match self.database.claim(Claim::Succeed, &self.log).await {
                    Ok(journal) => break journal,
                    Err(error) => {
                        let why = chain(&error);
                        if why != said {
                            warn!(self.log, "standing by, and the database does not answer"; "error" => &why);
                            said = why;
                        }
                        tokio::time::sleep(CLAIM_RETRY).await;
                    }
                }
            };
            if let Err(error) = self.lead(Arc::new(journal)).await {
                self.end(&chain(&error));
            }
        });
    }

    /// Builds the actors on a thread of their own.
    async fn plant(&self, journal: &Arc<JournalConnection>, rows: Rows) -> Result<Tree, StartError> {
        let (validity, meter) = (journal.validity(), Arc::clone(&self.state.metrics));
        let here = self.clone();
        let ports = Ports {
            store: Arc::clone(journal) as Arc<dyn Store>,
            driver: metered::of_a_leader(Arc::clone(&self.driver), validity.clone(), meter.clone()),
            artifacts: Arc::new(self.state.artifacts.clone()),
            archive: Arc::new(self.state.pool.clone()),
            spools: Arc::clone(&self.spools),
            disks: Arc::new(HostDisks::new(vec![
                ("data", self.data_dir.clone()),
                ("bots", work_root(&self.data_dir)),
            ])),
            clock: Arc::new(SystemClock),
            lead: validity,
            meter,
            slot_ids: Arc::new(RandomSlotIds),
            on_fatal: Arc::new(move |why| here.end(why)),
            log: self.log.clone(),
        };
        let settings = &*self.state.reloader.settings();
        let maintenance = wanted::maintenance(settings);
        let (pool, timing) = (wanted::pool(settings), wanted::timing(settings));
        let (schedule, scale) = (wanted::schedule(settings), wanted::scale(settings));
        let (planted, tree) = oneshot::channel();
        self.actors.spawn_fn(move || {
            drop(planted.send(Tree::start(&ports, rows, pool, schedule, scale, maintenance, timing)));
        });
        self.actors.spawn(timers::watch(Arc::clone(&self.state.metrics)));
        tree.await.map_err(|_| StartError::Broken("the actors did not start".to_owned()))
    }

    /// Looks after the embedded database and the lead; a lead that is lost ends this process.
    fn confirm(&self, journal: Arc<JournalConnection>, tree: Tree) {
        let here = self.clone();
        actix_web::rt::spawn(async move {
            let mut interval = tokio::time::interval(CONFIRM_INTERVAL);
            interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            while tree.pool.connected() {
                interval.tick().await;
                if let Err(error) = here.database.look_after().await {
                    warn!(here.log, "the embedded database does not run"; "error" => chain(&error));
                }
                match journal.confirm_lead().await {
                    Ok(()) => {}
                    Err(StoreError::Deposed) => return here.end("this server no longer leads"),
                    Err(error) => warn!(here.log, "the lead is not confirmed"; "error" => %error),
                }
            }
        });
    }

    fn end(&self, why: &str) {
        if !self.stopping.load(Ordering::Relaxed) {
            // Nobody listens only when the server is stopping anyway.
            let _ = self.broken.send(why.to_owned());
        }
    }
}

fn report(rows: &Rows, log: &Logger) {
    let running = rows.slots.iter().filter(|slot| slot.bot().is_some()).count();
    info!(log, "rows loaded"; "slots" => rows.slots.len(), "with_bots" => running, "queued" => rows.queue.len(),
        "scheduled" => rows.scheduled.len(), "recordings_to_join" => rows.recordings.len());
}
