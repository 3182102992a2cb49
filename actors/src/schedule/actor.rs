//! The Scheduler's shell: owns the bots whose start is ahead, and hands each over when its time comes. A bot on offer
//! stays here until a slot's or the queue's commit has moved it; wishes that arrive meanwhile wait for the outcome and
//! are then applied by whoever owns the bot.

use super::ScheduleSettings;
use super::message::{
    MoveError, MoveStart, Observe, Schedule, ScheduleError, ScheduleSnapshot, StartObserved,
};
use super::plan::{LEAP, Timetable, missed_at};
use crate::bot::machine as life;
use crate::bot::{Bot, BotState, End, EndReason};
use crate::ids::BotId;
use crate::journal::actor::Journal;
use crate::journal::{CommitError, Decision};
use crate::live::Live;
use crate::pool::actor::PoolSupervisor;
use crate::pool::message::{CreateError, HandOver, LeaveBot};
use crate::ports::{Clock, Measure, Meter, SLEEP_MAX};
use crate::queue::message::{Withdraw, WithdrawError};
use crate::recording::actor::{BotEnded, RecordingActor};
use crate::supervision::{DeathGuard, tell};
use crate::trust::{Look, Trust};
use actix::prelude::*;
use chrono::{DateTime, TimeDelta, Utc};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::mem::discriminant;
use std::sync::Arc;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Until a bot that nobody could take is offered again.
const OFFER_AGAIN: TimeDelta = TimeDelta::seconds(5);
/// Hand-overs under way at a time: after a long silence of the server many are due at once.
const UNDER_WAY_MAX: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Its creation is being committed.
    Arriving,
    Waiting,
    /// A slot or the queue is committing it.
    Offered,
    /// Its end or its move is being committed.
    Changing,
}

enum Wish {
    Withdraw(Withdraw),
    Move(MoveStart),
}

impl Wish {
    /// Answers for a bot that is not here any more, and ended as this if it ended here.
    fn answer_gone(self, ended: Option<&Bot>) {
        match self {
            Self::Withdraw(wish) => drop(wish.reply.send(ended.cloned().ok_or(WithdrawError::NotLive))),
            Self::Move(wish) => drop(wish.reply.send(Err(MoveError::NotScheduled))),
        }
    }

    /// Whether an older wish need not be kept beside this one: it is of the same kind, and who had it has given up.
    fn supersedes(&self, older: &Self) -> bool {
        let given_up = match older {
            Self::Withdraw(wish) => wish.reply.is_closed(),
            Self::Move(wish) => wish.reply.is_closed(),
        };
        given_up && discriminant(self) == discriminant(older)
    }
}

struct Scheduled {
    bot: Bot,
    phase: Phase,
    wishes: VecDeque<Wish>,
    /// Nobody could take it: when it is offered again, and why.
    again: Option<(DateTime<Utc>, CreateError)>,
}

impl Scheduled {
    fn new(bot: Bot, phase: Phase) -> Self {
        Self { bot, phase, wishes: VecDeque::new(), again: None }
    }

    fn start_at(&self) -> DateTime<Utc> {
        self.bot.spec.start_at.unwrap_or(self.bot.created_at)
    }

    fn missed_at(&self, settings: &ScheduleSettings) -> DateTime<Utc> {
        missed_at(settings, self.start_at(), self.bot.spec.end_at)
    }
}

/// Who the Scheduler speaks to.
pub struct ScheduleLinks {
    /// The writer.
    pub journal: Journal,
    /// Finds a slot, or the queue.
    pub pool: Addr<PoolSupervisor>,
    /// Hears of ended bots.
    pub recordings: Addr<RecordingActor>,
    /// The board.
    pub live: Live,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Who counts.
    pub meter: Arc<dyn Meter>,
    /// The log.
    pub log: slog::Logger,
}

/// See the module.
pub struct Scheduler {
    settings: ScheduleSettings,
    timetable: Timetable,
    /// Bots that nobody could take, by when they are offered again.
    again: BTreeSet<(DateTime<Utc>, BotId)>,
    /// Bots whose start passed by a clock that is not trusted: neither handed over nor given up for now.
    doubtful: BTreeSet<BotId>,
    trust: Trust,
    /// How long it has been is counted from here.
    began: Instant,
    bots: BTreeMap<BotId, Scheduled>,
    under_way: usize,
    links: ScheduleLinks,
    timer: Option<SpawnHandle>,
    _guard: DeathGuard,
}

impl Scheduler {
    /// A schedule with the stored bots in it.
    pub fn new(
        settings: ScheduleSettings,
        stored: Vec<Bot>,
        links: ScheduleLinks,
        guard: DeathGuard,
    ) -> Self {
        let bots = stored.into_iter().map(|bot| (bot.id, Scheduled::new(bot, Phase::Waiting)));
        Self {
            settings,
            timetable: Timetable::new(settings),
            again: BTreeSet::new(),
            doubtful: BTreeSet::new(),
            trust: Trust::new(LEAP, settings.doubt()),
            began: Instant::now(),
            bots: bots.collect(),
            under_way: 0,
            links,
            timer: None,
            _guard: guard,
        }
    }

    fn schedule(&mut self, Schedule { mut bot, idempotency, reply }: Schedule, ctx: &mut Context<Self>) {
        if self.bots.len() >= self.settings.max as usize {
            let _ = reply.send(Err(ScheduleError::Full(self.settings.max)));
            return;
        }
        bot.state = BotState::Scheduled;
        let id = bot.id;
        let commit = self.links.journal.submit(life::created(&bot, idempotency));
        self.bots.insert(id, Scheduled::new(*bot.clone(), Phase::Arriving));
        ctx.spawn(commit.into_actor(self).map(move |outcome, act, ctx| match outcome {
            Ok(()) => {
                act.links.live.bot(&bot);
                act.settle(id, ctx);
                let _ = reply.send(Ok(*bot));
            }
            Err(error) => {
                act.forget(id, None);
                let _ = reply.send(Err(error.into()));
            }
        }));
    }

    // --- time --------------------------------------------------------------------------------------------------

    /// When something is to be done next, and for which bot.
    fn next(&self) -> Option<(DateTime<Utc>, BotId)> {
        self.again.first().copied().into_iter().chain(self.timetable.next()).min()
    }

    /// Hands over whatever is due, and sleeps until the next.
    fn work(&mut self, ctx: &mut Context<Self>) {
        let now = self.look_at_clock();
        while self.under_way < UNDER_WAY_MAX
            && let Some((due_at, id)) = self.next()
            && due_at <= now
        {
            let missed =
                self.bots.get(&id).is_some_and(|scheduled| now >= scheduled.missed_at(&self.settings));
            if missed && !self.trust.holds() {
                self.timetable.cancel(id);
                self.again.remove(&(due_at, id));
                self.doubtful.insert(id);
                continue;
            }
            self.timetable.hand_over(id);
            self.again.remove(&(due_at, id));
            self.hand_over(id, now, ctx);
        }
        self.arm(now, ctx);
    }

    /// What the clock says. Where it leapt ahead no start is missed by it for a while: somebody may put it right, and
    /// nobody could take an end back. Those who were kept for that are looked at anew when it is set back, or believed.
    fn look_at_clock(&mut self) -> DateTime<Utc> {
        let now = self.links.clock.now();
        let set = self.trust.look(Look { now, passed: self.began.elapsed() }).unwrap_or_default();
        if set > TimeDelta::zero() {
            slog::warn!(self.links.log, "the clock has leapt ahead: for a while no scheduled bot is given up";
                "by_s" => set.num_seconds(), "while_s" => self.settings.doubt().as_secs());
        }
        let mut anew = BTreeSet::new();
        if set < TimeDelta::zero() || self.trust.holds() {
            anew.append(&mut self.doubtful);
        }
        if set < TimeDelta::zero() {
            anew.extend(std::mem::take(&mut self.again).into_iter().map(|(_, id)| id));
        }
        anew.into_iter().for_each(|id| self.place(id));
        now
    }

    /// Sets the timer to the next bot that is due. While the bound is reached the next outcome goes on instead.
    fn arm(&mut self, now: DateTime<Utc>, ctx: &mut Context<Self>) {
        if let Some(timer) = self.timer.take() {
            ctx.cancel_future(timer);
        }
        let next = self.next().map(|(due_at, _)| (due_at - now).to_std().unwrap_or_default().min(SLEEP_MAX));
        // When the doubt is over no clock says that may be set meanwhile.
        let next = next.or_else(|| (!self.doubtful.is_empty()).then_some(SLEEP_MAX));
        if let Some(wait) = next.filter(|_| self.under_way < UNDER_WAY_MAX) {
            self.timer = Some(ctx.run_later(wait, |act, ctx| {
                act.timer = None;
                act.work(ctx);
            }));
        }
    }

    // --- hand-over ---------------------------------------------------------------------------------------------

    fn hand_over(&mut self, id: BotId, now: DateTime<Utc>, ctx: &mut Context<Self>) {
        let Some(scheduled) = self.bots.get_mut(&id) else { return };
        self.under_way += 1;
        if now >= scheduled.missed_at(&self.settings) {
            let end = missed(scheduled.again.as_ref().map(|(_, why)| why));
            return self.end(id, end, ctx);
        }
        scheduled.phase = Phase::Offered;
        let (reply, answer) = oneshot::channel();
        tell(&self.links.pool, HandOver { bot: Box::new(scheduled.bot.clone()), reply });
        ctx.spawn(answer.into_actor(self).map(move |outcome, act, ctx| {
            match outcome {
                Ok(Ok(())) => act.handed_over(id),
                // The row is not what was offered: it says what is.
                Ok(Err(CreateError::Conflict(_))) => return act.reread(id, ctx),
                Ok(Err(why)) => act.declined(id, why, ctx),
                // The supervisor died, and the process with it.
                Err(_) => return,
            }
            act.finished(ctx);
        }));
    }

    /// A hand-over came to its end: there is room for the next.
    fn finished(&mut self, ctx: &mut Context<Self>) {
        self.under_way = self.under_way.saturating_sub(1);
        self.work(ctx);
    }

    /// The receiver has the bot now; wishes that waited are its to apply.
    fn handed_over(&mut self, id: BotId) {
        let Some(scheduled) = self.bots.remove(&id) else { return };
        for wish in scheduled.wishes {
            match wish {
                Wish::Withdraw(wish) => tell(&self.links.pool, LeaveBot::from(wish)),
                wish @ Wish::Move(_) => wish.answer_gone(None),
            }
        }
    }

    fn declined(&mut self, id: BotId, why: CreateError, ctx: &mut Context<Self>) {
        let now = self.links.clock.now();
        if let Some(scheduled) = self.bots.get_mut(&id) {
            let missed_at = scheduled.missed_at(&self.settings);
            scheduled.again = Some(((now + OFFER_AGAIN).min(missed_at), why));
        }
        self.settle(id, ctx);
    }

    // --- wishes ------------------------------------------------------------------------------------------------

    fn wish(&mut self, id: BotId, wish: Wish, ctx: &mut Context<Self>) {
        let Some(scheduled) = self.bots.get_mut(&id) else { return wish.answer_gone(None) };
        scheduled.wishes.retain(|older| !wish.supersedes(older));
        scheduled.wishes.push_back(wish);
        if scheduled.phase == Phase::Waiting {
            self.settle(id, ctx);
        }
    }

    /// The bot waits (again): apply what was wished meanwhile, else it has its place in time.
    fn settle(&mut self, id: BotId, ctx: &mut Context<Self>) {
        self.timetable.cancel(id);
        self.doubtful.remove(&id);
        let Some(scheduled) = self.bots.get_mut(&id) else { return };
        scheduled.phase = Phase::Waiting;
        if let Some((at, _)) = &scheduled.again {
            self.again.remove(&(*at, id));
        }
        if scheduled.wishes.iter().any(|wish| matches!(wish, Wish::Withdraw(_))) {
            self.under_way += 1;
            self.end(id, life::end(EndReason::Cancelled), ctx);
        } else if let Some(Wish::Move(wish)) = scheduled.wishes.pop_front() {
            self.move_start(wish, ctx);
        } else {
            self.place(id);
            self.work(ctx);
        }
    }

    /// Gives a bot that waits its place in time.
    fn place(&mut self, id: BotId) {
        let Some(scheduled) = self.bots.get_mut(&id) else { return };
        // When it is offered again may have been said by a clock that was ahead.
        let latest = self.links.clock.now() + OFFER_AGAIN;
        scheduled.again.take_if(|(at, _)| *at > latest);
        match &scheduled.again {
            Some((at, _)) => drop(self.again.insert((*at, id))),
            None => self.timetable.insert(id, &scheduled.bot.spec.platform, scheduled.start_at()),
        }
    }

    fn move_start(&mut self, wish: MoveStart, ctx: &mut Context<Self>) {
        let id = wish.bot_id;
        let Some(scheduled) = self.bots.get_mut(&id) else { return };
        let (moved, decision) = match life::moved(&scheduled.bot, wish.start_at, wish.end_at) {
            Ok(moved) => moved,
            Err(refused) => {
                let _ = wish.reply.send(Err(refused.into()));
                return self.settle(id, ctx);
            }
        };
        scheduled.phase = Phase::Changing;
        let commit = self.links.journal.submit(decision);
        ctx.spawn(commit.into_actor(self).map(move |outcome, act, ctx| match outcome {
            Ok(()) => {
                act.links.live.bot(&moved);
                if let Some(scheduled) = act.bots.get_mut(&id) {
                    scheduled.bot = moved.clone();
                    scheduled.again = None;
                }
                let _ = wish.reply.send(Ok(moved));
                act.settle(id, ctx);
            }
            Err(CommitError::Conflict(_)) => {
                let _ = wish.reply.send(Err(MoveError::Unknown));
                act.under_way += 1;
                act.reread(id, ctx);
            }
            Err(CommitError::Deposed) => {}
        }));
    }

    /// Ends a bot that waits. On a conflict the row is read again, and says whether it still does.
    fn end(&mut self, id: BotId, end: End, ctx: &mut Context<Self>) {
        let Some(scheduled) = self.bots.get_mut(&id) else { return };
        scheduled.phase = Phase::Changing;
        let (ended, decision): (Bot, Decision) = life::ended(&scheduled.bot, end, self.links.clock.now());
        let commit = self.links.journal.submit(decision);
        ctx.spawn(commit.into_actor(self).map(move |outcome, act, ctx| match outcome {
            Ok(()) => {
                act.links.live.bot(&ended);
                if let Some(end) = &ended.end {
                    let (platform, outcome) = (&ended.spec.platform, end.reason.outcome());
                    act.links.meter.record(Measure::BotEnded { platform, outcome });
                }
                act.forget(id, Some(ended));
                act.finished(ctx);
            }
            Err(CommitError::Conflict(_)) => act.reread(id, ctx),
            Err(CommitError::Deposed) => {}
        }));
    }

    /// What was to be committed is not what is stored: what is stored counts.
    fn reread(&mut self, id: BotId, ctx: &mut Context<Self>) {
        let read = self.links.journal.read_bot(id);
        ctx.spawn(read.into_actor(self).map(move |row, act, ctx| {
            match row {
                Ok(Some(bot)) if bot.state == BotState::Scheduled => {
                    if let Some(scheduled) = act.bots.get_mut(&id) {
                        scheduled.bot = bot;
                    }
                    act.settle(id, ctx);
                }
                Ok(row) => act.forget(id, row.filter(|bot| bot.state.is_final())),
                // No longer leading: nothing may be handed over any more.
                Err(_) => return,
            }
            act.finished(ctx);
        }));
    }

    /// The bot waits no more: it ended here, or never came to be.
    fn forget(&mut self, id: BotId, ended: Option<Bot>) {
        let Some(scheduled) = self.bots.remove(&id) else { return };
        scheduled.wishes.into_iter().for_each(|wish| wish.answer_gone(ended.as_ref()));
        if let Some(bot) = ended {
            tell(&self.links.recordings, BotEnded { bot });
        }
    }

    fn observe(&self, within: TimeDelta) -> ScheduleSnapshot {
        let until = self.links.clock.now() + within;
        let mut coming = self.timetable.due_before(until);
        // Those that nobody could take yet have lost their place in time, and come too.
        for scheduled in self.again.iter().filter_map(|(_, id)| self.bots.get(id)) {
            *coming.entry(scheduled.bot.spec.platform.clone()).or_default() += 1;
        }
        let next_due_at = self.next().map(|(due_at, _)| due_at);
        ScheduleSnapshot { count: self.bots.len(), next_due_at, coming }
    }
}

/// The end of a bot that did not start in time: the server was down, or nobody could take it and this is why.
fn missed(declined: Option<&CreateError>) -> End {
    match declined {
        None => life::end(EndReason::StartMissed),
        Some(why) => {
            let detail = format!("The bot could not be started at its time or soon after it: {why}.");
            End { reason: EndReason::StartMissed, detail }
        }
    }
}

impl Actor for Scheduler {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        for (id, scheduled) in &self.bots {
            self.links.live.bot(&scheduled.bot);
            self.timetable.insert(*id, &scheduled.bot.spec.platform, scheduled.start_at());
        }
        self.work(ctx);
    }
}

impl Handler<Schedule> for Scheduler {
    type Result = ();

    fn handle(&mut self, message: Schedule, ctx: &mut Self::Context) {
        self.schedule(message, ctx);
    }
}

impl Handler<MoveStart> for Scheduler {
    type Result = ();

    fn handle(&mut self, message: MoveStart, ctx: &mut Self::Context) {
        self.wish(message.bot_id, Wish::Move(message), ctx);
    }
}

impl Handler<Withdraw> for Scheduler {
    type Result = ();

    fn handle(&mut self, message: Withdraw, ctx: &mut Self::Context) {
        self.wish(message.bot_id, Wish::Withdraw(message), ctx);
    }
}

impl Handler<StartObserved> for Scheduler {
    type Result = ();

    fn handle(&mut self, StartObserved { platform, took }: StartObserved, ctx: &mut Self::Context) {
        self.timetable.observe(&platform, took);
        self.work(ctx);
    }
}

impl Handler<Observe> for Scheduler {
    type Result = MessageResult<Observe>;

    fn handle(&mut self, message: Observe, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.observe(message.within))
    }
}
