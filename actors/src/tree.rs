//! Builds the actors from the stored rows and connects them. All of them share the arbiter that this runs on.

use crate::image_pull::actor::ImagePullActor;
use crate::journal::actor::{Journal, JournalActor};
use crate::live::Live;
use crate::maintenance::MaintenanceSettings;
use crate::maintenance::actor::Maintainer;
use crate::maintenance::run::MaintenanceLinks;
use crate::pool::PoolSettings;
use crate::pool::actor::PoolSupervisor;
use crate::pool::message::Connect;
use crate::pool::witness::WitnessedDriver;
use crate::ports::{Archive, Artifacts, Clock, Disks, Driver, Lead, Meter, Rows, SlotIds, Spools, Store};
use crate::queue::actor::{QueueActor, QueueLinks};
use crate::reconcile::actor::Reconciler;
use crate::recording::actor::RecordingActor;
use crate::recording::collector::{CollectorLinks, SpoolCollector};
use crate::scale::ScaleSettings;
use crate::scale::actor::Scaler;
use crate::schedule::ScheduleSettings;
use crate::schedule::actor::{ScheduleLinks, Scheduler};
use crate::slot::SlotTiming;
use crate::slot::actor::SlotLinks;
use crate::slot::handle::Directory;
use crate::supervision::{DeathGuard, tell};
use actix::prelude::*;
use std::sync::Arc;

/// What the actors need of the world.
#[derive(Clone)]
pub struct Ports {
    /// Durable rows.
    pub store: Arc<dyn Store>,
    /// The engine.
    pub driver: Arc<dyn Driver>,
    /// Recordings.
    pub artifacts: Arc<dyn Artifacts>,
    /// Rows of ended bots.
    pub archive: Arc<dyn Archive>,
    /// What bots left behind.
    pub spools: Arc<dyn Spools>,
    /// Disks.
    pub disks: Arc<dyn Disks>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The lead.
    pub lead: Arc<dyn Lead>,
    /// Who counts.
    pub meter: Arc<dyn Meter>,
    /// New slots' uuids.
    pub slot_ids: Arc<dyn SlotIds>,
    /// Called with a sentence when this process must stop deciding: leadership is lost, or an actor that nobody
    /// rebuilds has died.
    pub on_fatal: Arc<dyn Fn(&str) + Send + Sync>,
    /// The log.
    pub log: slog::Logger,
}

/// The addresses of what was built.
#[derive(Clone)]
pub struct Tree {
    /// New bots, and wishes for live ones.
    pub pool: Addr<PoolSupervisor>,
    /// Waiting bots.
    pub queue: Addr<QueueActor>,
    /// Images.
    pub pulls: Addr<ImagePullActor>,
    /// Bots whose start is ahead.
    pub schedule: Addr<Scheduler>,
    /// Recordings.
    pub recordings: Addr<RecordingActor>,
    /// What bots left behind.
    pub collector: Addr<SpoolCollector>,
    /// Listings.
    pub reconciler: Addr<Reconciler>,
    /// Slots ahead of need.
    pub scaler: Addr<Scaler>,
    /// Maintenance.
    pub maintainer: Addr<Maintainer>,
    /// The writer.
    pub journal: Addr<JournalActor>,
    /// Slots by uuid and by bot.
    pub directory: Arc<Directory>,
    /// Published state.
    pub live: Live,
}

impl Tree {
    /// Builds and starts everything. `rows` must have been read with the lead in hand.
    pub fn start(
        ports: &Ports,
        rows: Rows,
        settings: PoolSettings,
        schedule: ScheduleSettings,
        scale: ScaleSettings,
        maintenance: MaintenanceSettings,
        timing: SlotTiming,
    ) -> Self {
        let live = Live::default();
        let directory = Arc::new(Directory::default());
        let deposed = {
            let on_fatal = Arc::clone(&ports.on_fatal);
            Arc::new(move || on_fatal("this server no longer leads"))
        };
        let journal = JournalActor::new(
            Arc::clone(&ports.store),
            deposed,
            Arc::clone(&ports.meter),
            guard(ports, "the Journal died"),
        )
        .start();
        let (pool_context, pool) = context();
        let driver: Arc<dyn Driver> = Arc::new(WitnessedDriver::new(
            Arc::clone(&ports.driver),
            pool.clone(),
            Arc::clone(&ports.clock),
            Arc::clone(&ports.lead),
            timing.deploy,
        ));
        let pulls = ImagePullActor::new(
            Arc::clone(&driver),
            Arc::clone(&ports.clock),
            settings.pulls,
            Arc::clone(&ports.meter),
            ports.log.clone(),
            guard(ports, "the ImagePullActor died"),
        )
        .start();
        let queue_max = settings.queue_max;
        let hosts: Vec<_> = settings.hosts.keys().cloned().collect();
        let links = SlotLinks {
            journal: Journal::new(journal.clone()),
            driver: Arc::clone(&driver),
            pulls: pulls.clone(),
            pool: pool.clone(),
            live: live.clone(),
            directory: Arc::clone(&directory),
            away: Arc::default(),
            limits: Arc::default(),
            clock: Arc::clone(&ports.clock),
            lead: Arc::clone(&ports.lead),
            meter: Arc::clone(&ports.meter),
            timing,
            log: ports.log.clone(),
        };
        let waiting: Vec<_> =
            rows.queue.iter().map(|(entry, _)| (entry.bot_id, entry.platform.clone())).collect();
        pool_context.run(PoolSupervisor::new(
            settings,
            Arc::clone(&ports.slot_ids),
            rows.slots,
            rows.drains,
            waiting,
            links,
            guard(ports, "the PoolSupervisor died"),
        ));
        let queue = QueueActor::new(
            rows.queue,
            queue_max,
            QueueLinks {
                journal: Journal::new(journal.clone()),
                pool: pool.clone(),
                live: live.clone(),
                clock: Arc::clone(&ports.clock),
                meter: Arc::clone(&ports.meter),
            },
            guard(ports, "the QueueActor died"),
        )
        .start();
        let recordings = RecordingActor::new(
            rows.recordings,
            Journal::new(journal.clone()),
            Arc::clone(&ports.artifacts),
            live.clone(),
            Arc::clone(&ports.clock),
            ports.log.clone(),
            guard(ports, "the RecordingActor died"),
        )
        .start();
        let schedule_lead = schedule.lead;
        let schedule = Scheduler::new(
            schedule,
            rows.scheduled,
            ScheduleLinks {
                journal: Journal::new(journal.clone()),
                pool: pool.clone(),
                recordings: recordings.clone(),
                live: live.clone(),
                clock: Arc::clone(&ports.clock),
                meter: Arc::clone(&ports.meter),
                log: ports.log.clone(),
            },
            guard(ports, "the Scheduler died"),
        )
        .start();
        let reconciler = Reconciler::new(
            hosts,
            Arc::clone(&driver),
            Arc::clone(&directory),
            Arc::clone(&ports.clock),
            ports.log.clone(),
            guard(ports, "the Reconciler died"),
        )
        .start();
        let partners = Connect {
            queue: queue.clone(),
            recordings: recordings.clone(),
            schedule: schedule.clone(),
            reconciler: reconciler.clone(),
            schedule_lead,
        };
        tell(&pool, partners);
        let scaler = Scaler::new(
            scale,
            pool.clone(),
            schedule.clone(),
            Arc::clone(&ports.clock),
            ports.log.clone(),
            guard(ports, "the Scaler died"),
        )
        .start();
        let collector = CollectorLinks {
            spools: Arc::clone(&ports.spools),
            directory: Arc::clone(&directory),
            journal: Journal::new(journal.clone()),
            recordings: recordings.clone(),
            clock: Arc::clone(&ports.clock),
            log: ports.log.clone(),
        };
        let collector = SpoolCollector::new(collector, guard(ports, "the SpoolCollector died")).start();
        let links = MaintenanceLinks {
            journal: Journal::new(journal.clone()),
            pool: pool.clone(),
            pulls: pulls.clone(),
            reconciler: reconciler.clone(),
            directory: Arc::clone(&directory),
            driver,
            artifacts: Arc::clone(&ports.artifacts),
            archive: Arc::clone(&ports.archive),
            disks: Arc::clone(&ports.disks),
            clock: Arc::clone(&ports.clock),
            log: ports.log.clone(),
        };
        let maintainer =
            Maintainer::new(maintenance, rows.maintenance, links, guard(ports, "the Maintainer died"))
                .start();
        Self {
            pool,
            queue,
            schedule,
            pulls,
            recordings,
            collector,
            reconciler,
            scaler,
            maintainer,
            journal,
            directory,
            live,
        }
    }
}

/// The address of an actor before it is there, for those it is made of.
fn context<A: Actor<Context = Context<A>>>() -> (Context<A>, Addr<A>) {
    let context = Context::new();
    let addr = context.address();
    (context, addr)
}

/// The death of an actor that nobody rebuilds ends the process: a new one starts from the rows.
fn guard(ports: &Ports, sentence: &'static str) -> DeathGuard {
    let on_fatal = Arc::clone(&ports.on_fatal);
    DeathGuard::new(move || on_fatal(sentence))
}
