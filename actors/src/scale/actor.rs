//! The Scaler's shell: looks at the pool and the schedule on a timer, asks the plan, and passes its wishes on to the
//! pool, which decides. It owns nothing but what it remembers of the load: after a restart it begins to look anew.

use super::ScaleSettings;
use super::history::Utilisation;
use super::plan::{Action, Scaled, Scaling};
use crate::ids::{Platform, SlotName};
use crate::pool::actor::PoolSupervisor;
use crate::pool::load::PoolLoad;
use crate::pool::message::{self as pool, Operate, Prewarm, SlotAction};
use crate::ports::Clock;
use crate::schedule::actor::Scheduler;
use crate::schedule::message::{self as schedule, ScheduleSnapshot};
use crate::supervision::{DeathGuard, tell};
use actix::prelude::*;
use chrono::{DateTime, Utc};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// Time between two rounds.
const INTERVAL: Duration = Duration::from_secs(10);
/// How long the pool and the schedule may take to say what they have.
const LOOK_DEADLINE: Duration = Duration::from_secs(5);
/// How long a slot may take to be made before another platform's is begun; the pool goes on with it. A cold image takes
/// about 7 minutes.
const GROW_DEADLINE: Duration = Duration::from_secs(600);
/// How long a slot may take to be deleted before nobody listens any more.
const RETIRE_DEADLINE: Duration = Duration::from_secs(60);
/// Actions that are remembered for those who look.
const RECENT_MAX: usize = 32;

/// A platform's load, as the Scaler sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScaleLine {
    /// The mean utilisation; `None` until a whole window is known.
    pub mean: Option<Utilisation>,
    /// When it was last scaled; `None`: never since the start.
    pub scaled: Option<Scaled>,
}

/// What the Scaler sees and did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ScaleSnapshot {
    /// By platform.
    pub platforms: BTreeMap<Platform, ScaleLine>,
    /// Scheduled bots that are handed over within the look-ahead, as the last round saw them.
    pub coming: BTreeMap<Platform, usize>,
    /// For which platform a slot is being made.
    pub growing: Option<Platform>,
    /// What it wished last, the latest at the end.
    pub recent: Vec<(DateTime<Utc>, Action)>,
}

/// Asks for a [`ScaleSnapshot`].
#[derive(Message)]
#[rtype(result = "ScaleSnapshot")]
pub struct Observe;

/// Goes by other settings from now on. What was seen of the load so far is forgotten with the old window.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Configure {
    /// All of them.
    pub settings: ScaleSettings,
}

/// See the module.
pub struct Scaler {
    settings: ScaleSettings,
    scaling: Scaling,
    pool: Addr<PoolSupervisor>,
    schedule: Addr<Scheduler>,
    clock: Arc<dyn Clock>,
    log: slog::Logger,
    looking: bool,
    coming: BTreeMap<Platform, usize>,
    growing: Option<Platform>,
    recent: VecDeque<(DateTime<Utc>, Action)>,
    _guard: DeathGuard,
}

impl Scaler {
    /// Looks at `pool` and `schedule`.
    pub fn new(
        settings: ScaleSettings,
        pool: Addr<PoolSupervisor>,
        schedule: Addr<Scheduler>,
        clock: Arc<dyn Clock>,
        log: slog::Logger,
        guard: DeathGuard,
    ) -> Self {
        Self {
            settings,
            scaling: Scaling::new(settings),
            pool,
            schedule,
            clock,
            log,
            looking: false,
            coming: BTreeMap::new(),
            growing: None,
            recent: VecDeque::new(),
            _guard: guard,
        }
    }

    /// Begins a round, unless one is under way.
    fn look(&mut self, ctx: &mut Context<Self>) {
        if std::mem::replace(&mut self.looking, true) {
            return;
        }
        let pool = self.pool.send(pool::ObserveLoad { longest_unused: self.settings.down_by as usize });
        let coming = self.schedule.send(schedule::Observe { within: self.settings.look_ahead });
        let looked = timeout(LOOK_DEADLINE, async move { (pool.await, coming.await) });
        ctx.spawn(looked.into_actor(self).map(|looked, act, ctx| {
            act.looking = false;
            match looked {
                Ok((Ok(pool), Ok(coming))) => act.round(&pool, &coming, ctx),
                // Whoever is dead ends the process; whoever is late is asked again.
                Ok(_) => {}
                Err(_) => slog::warn!(act.log, "the pool is late to answer; nothing is scaled this round"),
            }
        }));
    }

    fn round(&mut self, pool: &PoolLoad, schedule: &ScheduleSnapshot, ctx: &mut Context<Self>) {
        let now = self.clock.now();
        self.coming.clone_from(&schedule.coming);
        for action in self.scaling.round(now, pool, &schedule.coming, self.growing.is_some()) {
            if self.recent.len() == RECENT_MAX {
                self.recent.pop_front();
            }
            self.recent.push_back((now, action.clone()));
            match action {
                Action::Grow { platform } => self.grow(platform, ctx),
                Action::Retire { slot } => self.retire(slot, ctx),
            }
        }
    }

    fn grow(&mut self, platform: Platform, ctx: &mut Context<Self>) {
        self.growing = Some(platform.clone());
        let (reply, answer) = oneshot::channel();
        tell(&self.pool, Prewarm { platform: platform.clone(), reply });
        ctx.spawn(timeout(GROW_DEADLINE, answer).into_actor(self).map(move |made, act, ctx| {
            act.growing = None;
            match made {
                Ok(Ok(Ok(slot))) => {
                    slog::info!(act.log, "a slot is made ahead of need"; "slot" => %slot);
                    // Where more are wanted the next need not wait for the timer.
                    return act.look(ctx);
                }
                Ok(Ok(Err(error))) => {
                    slog::warn!(act.log, "no slot could be made ahead of need; another try follows";
                        "platform" => %platform, "error" => %error);
                }
                // The pool is gone, and the process with it.
                Ok(Err(_)) => return,
                Err(_) => {
                    slog::warn!(act.log, "a slot takes long to be made; others go first"; "platform" => %platform);
                }
            }
            act.scaling.failed(&platform, act.clock.now());
        }));
    }

    fn retire(&mut self, slot: SlotName, ctx: &mut Context<Self>) {
        let (reply, answer) = oneshot::channel();
        tell(&self.pool, Operate { slot: slot.clone(), action: SlotAction::Retire, reply });
        ctx.spawn(timeout(RETIRE_DEADLINE, answer).into_actor(self).map(move |gone, act, _| match gone {
            Ok(Ok(Ok(_))) => {
                slog::info!(act.log, "an idle slot is deleted: little is in use"; "slot" => %slot)
            }
            // A bot was quicker, or an operator.
            Ok(Ok(Err(why))) => {
                slog::debug!(act.log, "a slot is not deleted"; "slot" => %slot, "why" => %why)
            }
            Ok(Err(_)) => {}
            Err(_) => slog::warn!(act.log, "a slot takes long to be deleted"; "slot" => %slot),
        }));
    }

    fn snapshot(&self) -> ScaleSnapshot {
        let lines = self.scaling.lines(self.clock.now());
        ScaleSnapshot {
            platforms: lines.map(|(key, mean, scaled)| (key.clone(), ScaleLine { mean, scaled })).collect(),
            coming: self.coming.clone(),
            growing: self.growing.clone(),
            recent: self.recent.iter().cloned().collect(),
        }
    }
}

impl Actor for Scaler {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.look(ctx);
        ctx.run_interval(INTERVAL, Self::look);
    }
}

impl Handler<Observe> for Scaler {
    type Result = MessageResult<Observe>;

    fn handle(&mut self, _: Observe, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.snapshot())
    }
}

impl Handler<Configure> for Scaler {
    type Result = ();

    fn handle(&mut self, Configure { settings }: Configure, _: &mut Self::Context) {
        if settings != self.settings {
            self.settings = settings;
            self.scaling = Scaling::new(settings);
        }
    }
}
