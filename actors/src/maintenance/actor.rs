//! The Maintainer: begins a run when it is due or asked for, one at a time, remembers in the store that it did, and
//! looks at the disks meanwhile. What a run does is in `run`; when it begins, in `plan`.

use super::plan::{DOUBT, LEAP, Start, nearly_full, next_start};
use super::run::{MaintenanceLinks, Progress, Trusted, Work};
use super::{MaintenanceRow, MaintenanceSettings, Run, Trigger};
use crate::journal::Change;
use crate::ports::Disk;
use crate::supervision::DeathGuard;
use crate::trust::{Look, Trust};
use actix::prelude::*;
use chrono::{DateTime, TimeDelta, Utc};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

/// Time between two looks at the clock and the disks.
const INTERVAL: Duration = Duration::from_secs(30);
/// A disk that takes longer to look at says nothing.
const LOOK_DEADLINE: Duration = Duration::from_secs(10);

/// A disk, and whether it is warned of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskLine {
    /// As it was last looked at.
    pub disk: Disk,
    /// Less than it should have is free.
    pub nearly_full: bool,
}

/// How maintenance is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MaintenanceSnapshot {
    /// When the next run is due; `None`: none is, or one is under way.
    pub next_at: Option<DateTime<Utc>>,
    /// The run under way.
    pub running: Option<Run>,
    /// The last run that ended, or was cut off.
    pub last: Option<Run>,
    /// When a run last came to its end, whatever came of those after it.
    pub ended_at: Option<DateTime<Utc>>,
    /// When what has not been done to its end was due first, or will be; `None`: nothing ever is.
    pub due_at: Option<DateTime<Utc>>,
    /// The disks, as they were last looked at.
    pub disks: Vec<DiskLine>,
}

/// Asks for a [`MaintenanceSnapshot`].
#[derive(Message)]
#[rtype(result = "MaintenanceSnapshot")]
pub struct Observe;

/// Begins a run now, unless one is under way; answers with how it then is.
#[derive(Message)]
#[rtype(result = "MaintenanceSnapshot")]
pub struct RunNow;

/// Goes by other settings from now on; a run under way ends as it began.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Configure {
    /// All of them.
    pub settings: MaintenanceSettings,
}

/// See the module.
pub struct Maintainer {
    settings: MaintenanceSettings,
    row: MaintenanceRow,
    links: MaintenanceLinks,
    running: Option<watch::Receiver<Run>>,
    trust: Trust,
    /// How long it has been is counted from here.
    began: Instant,
    looking: bool,
    disks: Vec<Disk>,
    /// The names of those that were warned of.
    warned: BTreeSet<String>,
    _guard: DeathGuard,
}

impl Maintainer {
    /// Goes on from what is stored; where nothing is, what is due from now on is done.
    pub fn new(
        settings: MaintenanceSettings,
        stored: Option<MaintenanceRow>,
        links: MaintenanceLinks,
        guard: DeathGuard,
    ) -> Self {
        let now = links.clock.now();
        let row = stored.unwrap_or_else(|| MaintenanceRow::new(now));
        let mut trust = Trust::new(LEAP, DOUBT);
        if row.doubted_from.is_some() {
            // How much of the day has passed only the clock says, so it begins anew.
            trust.doubt_from(Look { now, passed: Duration::ZERO });
        }
        Self {
            settings,
            row,
            links,
            running: None,
            trust,
            began: Instant::now(),
            looking: false,
            disks: Vec::new(),
            warned: BTreeSet::new(),
            _guard: guard,
        }
    }

    fn tick(&mut self, ctx: &mut Context<Self>) {
        self.look_at_disks(ctx);
        self.look_at_clock(ctx);
        if self.running.is_some() {
            return;
        }
        self.go_by_timetable(ctx);
        let now = self.links.clock.now();
        if let Start::Now(trigger) = next_start(&self.row, self.settings.timetable.as_ref(), now) {
            self.begin(trigger, ctx);
        }
    }

    // --- runs --------------------------------------------------------------------------------------------------

    /// Stores that a run begins, and then begins it: one that a crash cuts off is not begun over and over.
    fn begin(&mut self, trigger: Trigger, ctx: &mut Context<Self>) {
        let now = self.links.clock.now();
        let cut_off = self.row.run.as_ref().filter(|_| trigger == Trigger::Resumed);
        let attempt = cut_off.map_or(1, |run| run.attempt + 1);
        let before = self.row.before();
        let run = Run { trigger, attempt, began_at: now, ended_at: None, steps: vec![], before };
        let next = MaintenanceRow { due_from: now, run: Some(run.clone()), ..self.row.clone() };
        let (progress, running) = Progress::new(run);
        self.running = Some(running);
        // Whatever else is stored meanwhile comes after this, and holds it.
        let was = std::mem::replace(&mut self.row, next);
        let commit = self.links.journal.submit(vec![self.change()]);
        ctx.spawn(commit.into_actor(self).map(move |outcome, act, ctx| match outcome {
            Ok(()) => {
                slog::info!(act.links.log, "maintenance begins"; "why" => ?trigger, "attempt" => attempt);
                act.work(progress, ctx);
            }
            Err(error) => {
                act.running = None;
                (act.row.due_from, act.row.run) = (was.due_from, was.run);
                slog::error!(act.links.log, "maintenance cannot begin"; "error" => %error);
            }
        }));
    }

    fn work(&mut self, progress: Progress, ctx: &mut Context<Self>) {
        let (settings, links) = (self.settings.clone(), self.links.clone());
        let now = self.look_at_clock(ctx);
        let trusted = self.trust.holds().then(|| Trusted { now, at: Instant::now() });
        let work = Work { settings, links, trusted, images: self.row.images.clone(), progress };
        ctx.spawn(work.run().into_actor(self).map(|(run, images), act, ctx| {
            report(&run, &act.links.log);
            (act.row.run, act.row.images) = (Some(run), images);
            act.store_end(ctx);
        }));
    }

    fn store_end(&self, ctx: &mut Context<Self>) {
        let commit = self.links.journal.submit(vec![self.change()]);
        ctx.spawn(commit.into_actor(self).map(|outcome, act, _| {
            act.running = None;
            if let Err(error) = outcome {
                slog::error!(act.links.log, "the end of maintenance is not stored"; "error" => %error);
            }
        }));
    }

    /// Goes by the timetable of the settings, which may be another than the stored one. Not while a run is under way or
    /// about to begin: its own writes hold what it knew.
    fn go_by_timetable(&mut self, ctx: &mut Context<Self>) {
        if self.row.go_by(self.settings.timetable.as_ref(), self.links.clock.now()) {
            self.store("the timetable", ctx);
        }
    }

    /// The row as it is now.
    fn change(&self) -> Change {
        Change::WriteMaintenance(Box::new(self.row.clone()))
    }

    fn store(&self, what: &'static str, ctx: &mut Context<Self>) {
        let commit = self.links.journal.submit(vec![self.change()]);
        ctx.spawn(commit.into_actor(self).map(move |outcome, act, _| {
            if let Err(error) = outcome {
                slog::error!(act.links.log, "what is remembered of maintenance is not stored";
                    "what" => what, "error" => %error);
            }
        }));
    }

    /// What the clock says, which is not trusted for a day where it has leapt ahead; a server that starts within that day
    /// finds it stored.
    fn look_at_clock(&mut self, ctx: &mut Context<Self>) -> DateTime<Utc> {
        let now = self.links.clock.now();
        let set = self.trust.look(Look { now, passed: self.began.elapsed() });
        if let Some(leapt) = set.filter(|by| *by > TimeDelta::zero()) {
            slog::warn!(self.links.log, "the clock has leapt ahead: for a day nothing is removed for its age";
                "by_s" => leapt.num_seconds());
            self.row.doubted_from = Some(now);
            self.store("that the clock has leapt ahead", ctx);
        } else if self.trust.holds() && self.row.doubted_from.take().is_some() {
            slog::info!(self.links.log, "the clock is trusted again");
            self.store("that the clock is trusted again", ctx);
        }
        now
    }

    // --- disks -------------------------------------------------------------------------------------------------

    fn look_at_disks(&mut self, ctx: &mut Context<Self>) {
        if std::mem::replace(&mut self.looking, true) {
            return;
        }
        let disks = std::sync::Arc::clone(&self.links.disks);
        let look = async move { timeout(LOOK_DEADLINE, disks.look()).await };
        ctx.spawn(look.into_actor(self).map(|looked, act, _| {
            act.looking = false;
            match looked {
                Ok(disks) => act.disks = disks,
                Err(_) => slog::warn!(act.links.log, "the disks cannot be looked at: they do not answer"),
            }
            act.warn();
        }));
    }

    /// Says once that a disk is nearly full, and once that it is not any more.
    fn warn(&mut self) {
        let full = nearly_full(&self.disks, self.settings.disk_free_percent);
        let names: BTreeSet<String> = full.iter().map(|disk| disk.name.clone()).collect();
        for disk in full.iter().filter(|disk| !self.warned.contains(&disk.name)) {
            slog::warn!(self.links.log, "a disk is nearly full"; "disk" => &disk.name,
                "free_percent" => format!("{:.1}", disk.free_percent()), "free_bytes" => disk.free_bytes);
        }
        for name in self.warned.difference(&names) {
            slog::info!(self.links.log, "a disk has room again"; "disk" => name);
        }
        self.warned = names;
    }

    // --- what there is -----------------------------------------------------------------------------------------

    fn snapshot(&self) -> MaintenanceSnapshot {
        let running = self.running.as_ref().map(|running| running.borrow().clone());
        let now = self.links.clock.now();
        let timetable = self.settings.timetable.as_ref();
        let next_at = match next_start(&self.row, timetable, now) {
            _ if running.is_some() => None,
            Start::At(at) => Some(at),
            Start::Now(_) => Some(now),
            Start::OnDemand => None,
        };
        let line =
            |disk: &Disk| DiskLine { disk: disk.clone(), nearly_full: self.warned.contains(&disk.name) };
        MaintenanceSnapshot {
            next_at,
            last: self.row.run.clone().filter(|_| running.is_none()),
            ended_at: self.row.ended_at(),
            due_at: timetable.and_then(|timetable| timetable.next_after(self.row.undone_from())),
            running,
            disks: self.disks.iter().map(line).collect(),
        }
    }
}

fn report(run: &Run, log: &slog::Logger) {
    for step in &run.steps {
        let done: Vec<String> = step.done.iter().map(|(what, count)| format!("{what}: {count}")).collect();
        match &step.first_failure {
            None => {
                slog::info!(log, "maintenance step done";
                    "step" => step.step.as_str(), "done" => done.join(", "))
            }
            Some(failure) => slog::warn!(log, "maintenance step done in part";
                "step" => step.step.as_str(), "done" => done.join(", "), "failures" => step.failures,
                "first_failure" => failure),
        }
    }
}

impl Actor for Maintainer {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.tick(ctx);
        ctx.run_interval(INTERVAL, Self::tick);
    }
}

impl Handler<Observe> for Maintainer {
    type Result = MessageResult<Observe>;

    fn handle(&mut self, _: Observe, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.snapshot())
    }
}

impl Handler<RunNow> for Maintainer {
    type Result = MessageResult<RunNow>;

    fn handle(&mut self, _: RunNow, ctx: &mut Self::Context) -> Self::Result {
        if self.running.is_none() {
            self.begin(Trigger::Operator, ctx);
        }
        MessageResult(self.snapshot())
    }
}

impl Handler<Configure> for Maintainer {
    type Result = ();

    fn handle(&mut self, Configure { settings }: Configure, ctx: &mut Self::Context) {
        self.settings = settings;
        self.tick(ctx);
        self.warn();
    }
}
