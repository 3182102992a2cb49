//! The Maintainer: begins a run when it is due or asked for, one at a time, remembers in the store that it did, and
//! looks at the disks meanwhile. What a run does is in `run`; when it begins, in `plan`.

use super::plan::{DOUBT, DiskLine, LEAP, Start, after_look, next_start};
use super::run::{MaintenanceLinks, Progress, Trusted, Work};
use super::{MaintenanceRow, MaintenanceSettings, Run, Trigger};
use crate::journal::Change;
use crate::ports::Disk;
use crate::supervision::DeathGuard;
use crate::trust::{Look, Trust};
use actix::prelude::*;
use chrono::{DateTime, TimeDelta, Utc};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Time between two looks at the clock and the disks.
const INTERVAL: Duration = Duration::from_secs(30);

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
    disks: Vec<DiskLine>,
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
            disks: Vec::new(),
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

    fn look_at_disks(&self, ctx: &mut Context<Self>) {
        let disks = Arc::clone(&self.links.disks);
        let look = async move { disks.look().await };
        ctx.spawn(look.into_actor(self).map(|looked, act, _| act.looked(&looked)));
    }

    /// Says once of each disk that it is nearly full, and that it does not answer, and once that it is not so any more.
    fn looked(&mut self, looked: &[Disk]) {
        let log = &self.links.log;
        let lines = after_look(&self.disks, looked, self.settings.disk_free_percent);
        for DiskLine { disk, nearly_full, answers } in &lines {
            let before = self.disks.iter().find(|before| before.disk.name == disk.name);
            let (was_nearly_full, answered) = before.map_or((false, true), |it| (it.nearly_full, it.answers));
            if *nearly_full && !was_nearly_full {
                slog::warn!(log, "a disk is nearly full"; "disk" => &disk.name,
                    "free_percent" => format!("{:.1}", disk.free_percent()), "free_bytes" => disk.free_bytes);
            } else if !nearly_full && was_nearly_full {
                slog::info!(log, "a disk has room again"; "disk" => &disk.name);
            }
            if !answers && answered {
                slog::warn!(log, "a disk cannot be looked at"; "disk" => &disk.name);
            } else if *answers && !answered {
                slog::info!(log, "a disk can be looked at again"; "disk" => &disk.name);
            }
        }
        self.disks = lines;
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
        MaintenanceSnapshot {
            next_at,
            last: self.row.run.clone().filter(|_| running.is_none()),
            ended_at: self.row.ended_at(),
            due_at: timetable.and_then(|timetable| timetable.next_after(self.row.undone_from())),
            running,
            disks: self.disks.clone(),
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
    }
}
