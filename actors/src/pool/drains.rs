//! Emptying: a platform, a host, the whole server. A drain of a platform or a host is stored with its deadline, and so
//! is that of each slot in it; at the deadline a slot asks its own bot to leave, with the grace that every bot has.

use super::actor::PoolSupervisor;
use super::index::SlotLine;
use super::message::{DrainHost, DrainPlatform, DrainReply, DrainServer, OperateError, ServerDrain};
use super::{Drain, DrainLine, DrainOrder};
use crate::ids::{Platform, SlotName};
use crate::journal::Change;
use crate::slot::command::SlotCommand;
use crate::slot::drains::{Deadline, earlier};
use crate::slot::{BusyStep, Slot, SlotState, SlotStatus};
use actix::prelude::*;
use chrono::TimeDelta;
use std::time::Duration;
use tokio::sync::oneshot;

/// The drain of the whole server.
pub(super) struct Closing {
    by: Deadline,
    /// Told when no bot is left.
    emptied: Option<oneshot::Sender<()>>,
    /// Rings at the deadline.
    timer: Option<SpawnHandle>,
}

impl PoolSupervisor {
    /// What a slot has not been told yet of the drains of its platform and its host. One that goes with its bot anyway need
    /// only be told of a deadline.
    pub(super) fn drain_command(&self, slot: &Slot) -> Option<SlotCommand> {
        let drains = self.drains.iter().filter(|(drain, _)| drain.holds(&slot.platform, &slot.host));
        let wider = drains.map(|(_, by)| *by).reduce(earlier);
        let goes_anyway = slot.ephemeral && slot.bot().is_some();
        let known = match slot.drains.wider {
            None if goes_anyway && wider.is_some() => Some(None),
            known => known,
        };
        (known != wider).then_some(SlotCommand::FollowDrain { wider })
    }

    /// Whether nobody gets a slot of the platform any more: the server is being emptied, or the deadline of the
    /// platform's drain is past.
    pub(super) fn is_shut(&self, platform: &Platform) -> bool {
        let by = self.drains.get(&Drain::Platform(platform.clone())).copied().flatten();
        self.closing.is_some() || by.is_some_and(|by| by <= self.now())
    }

    /// Begins a drain, gives it another deadline or ends it, once that is stored.
    fn drain(
        &mut self,
        drain: Drain,
        draining: bool,
        within: Option<TimeDelta>,
        reply: DrainReply,
        ctx: &mut Context<Self>,
    ) {
        let known = match &drain {
            Drain::Platform(platform) => self.settings.platforms.contains_key(platform),
            Drain::Host(host) => self.index.hosts().contains_key(host),
        };
        // A drain outlives its platform's or host's place in the settings.
        if !known && !self.drains.contains_key(&drain) {
            return drop(reply.send(Err(OperateError::Unknown(drain.to_string()))));
        }
        if self.drains_in_flight.contains(&drain) {
            // What it will be is not known yet, nor whether this wish would still change it.
            return drop(reply.send(Err(OperateError::OutcomeUnknown)));
        }
        let by = within.map(|within| self.now() + within);
        let order = DrainOrder { drain: drain.clone(), by };
        let change = match (self.drains.get(&drain), draining) {
            (None, true) => Change::InsertDrain(order),
            (Some(known), true) if *known != by => Change::UpdateDrain(order),
            (Some(_), false) => Change::DeleteDrain(drain.clone()),
            (Some(_), true) | (None, false) => return drop(reply.send(Ok(self.drain_line(&drain)))),
        };
        self.drains_in_flight.insert(drain.clone());
        let commit = self.links.journal.submit(vec![change]);
        ctx.spawn(commit.into_actor(self).map(move |outcome, act, ctx| {
            act.drains_in_flight.remove(&drain);
            let outcome = match outcome {
                Ok(()) => {
                    act.drained(&drain, draining, by, ctx);
                    Ok(act.drain_line(&drain))
                }
                Err(_) => Err(OperateError::OutcomeUnknown),
            };
            let _ = reply.send(outcome);
        }));
    }

    fn drained(&mut self, drain: &Drain, draining: bool, by: Deadline, ctx: &mut Context<Self>) {
        if draining {
            self.drains.insert(drain.clone(), by);
        } else {
            self.drains.remove(drain);
        }
        if let Drain::Host(host) = drain {
            self.index.drain_host(host, draining);
        }
        let mut names: Vec<SlotName> = self.in_drain(drain).map(|line| line.name.clone()).collect();
        names.sort_unstable();
        for name in names {
            if let Some(slot) = self.members.get(&name).map(|member| member.handle.snapshot()) {
                self.keep_up(&slot);
            }
        }
        self.pump_all(ctx);
    }

    /// How far a drain is.
    pub(super) fn drain_line(&self, drain: &Drain) -> DrainLine {
        let slots_left = match drain {
            Drain::Platform(platform) => self.index.size(platform),
            Drain::Host(host) => self.index.hosts().get(host).map_or(0, |line| line.slots),
        };
        let bots_left = self.in_drain(drain).filter(|line| has_bot(line)).count();
        let by = self.drains.get(drain).copied().flatten();
        DrainLine { slots_left: slots_left as usize, bots_left, by }
    }

    /// The stored slots that a drain is about, in no order.
    fn in_drain(&self, drain: &Drain) -> impl Iterator<Item = &SlotLine> {
        let lines = self.index.each().map(|(line, _)| line);
        lines.filter(|line| line.stored && drain.holds(&line.platform, &line.host))
    }

    // --- the whole server --------------------------------------------------------------------------------------

    fn drain_server(&mut self, order: Option<ServerDrain>, ctx: &mut Context<Self>) {
        if let Some(timer) = self.closing.take().and_then(|before| before.timer) {
            ctx.cancel_future(timer);
        }
        let Some(ServerDrain { within, emptied }) = order else {
            slog::info!(self.links.log, "the server serves again");
            return self.pump_all(ctx);
        };
        let timer = within.map(|within| {
            ctx.run_later(within.to_std().unwrap_or(Duration::ZERO), |act, _| act.ask_all_to_leave())
        });
        let by = within.map(|within| self.now() + within);
        slog::warn!(self.links.log, "the server is being emptied"; "by" => by.map(|by| by.to_string()));
        self.closing = Some(Closing { by, emptied: Some(emptied), timer });
        self.close_when_empty();
    }

    /// The deadline of the server's drain is past. Each bot has its grace; one that has not started waits for the server
    /// after this one.
    fn ask_all_to_leave(&self) {
        for line in self.index.lines().iter().filter(|line| has_bot(line)) {
            self.command(&line.name, SlotCommand::ClearOut);
        }
    }

    /// Asks a bot to leave that came into its slot as the server's deadline passed.
    pub(super) fn clear_out_late(&self, slot: &Slot) {
        let is_past = self.closing.as_ref().and_then(|closing| closing.by).is_some_and(|by| by <= self.now());
        let is_there = matches!(
            slot.state,
            SlotState::Deploying { .. } | SlotState::Busy { step: BusyStep::Running { .. }, .. }
        );
        if is_past && is_there {
            self.command(&slot.name, SlotCommand::ClearOut);
        }
    }

    /// Says so where a server that is being emptied has no bot left, nor one on its way into a slot.
    pub(super) fn close_when_empty(&mut self) {
        let bots = self.closing_line().map(|line| line.bots_left + self.index.reserved() - self.prewarming);
        if let Some(closing) = self.closing.as_mut().filter(|_| bots == Some(0))
            && let Some(emptied) = closing.emptied.take()
        {
            slog::warn!(self.links.log, "the server is empty");
            // Whoever asked may have given up.
            let _ = emptied.send(());
        }
    }

    /// How far the drain of the whole server is.
    pub(super) fn closing_line(&self) -> Option<DrainLine> {
        let closing = self.closing.as_ref()?;
        let lines = || self.index.each().map(|(line, _)| line);
        let slots_left = lines().filter(|line| line.stored).count();
        let bots_left = lines().filter(|line| has_bot(line)).count();
        Some(DrainLine { slots_left, bots_left, by: closing.by })
    }
}

/// Whether a slot has a bot, or may have one: of one that is being rebuilt that is not known, and its bot may well be in
/// its meeting.
fn has_bot(line: &SlotLine) -> bool {
    matches!(line.status, None | Some(SlotStatus::Deploying | SlotStatus::Busy))
}

impl Handler<DrainPlatform> for PoolSupervisor {
    type Result = ();

    fn handle(&mut self, message: DrainPlatform, ctx: &mut Self::Context) {
        let DrainPlatform { platform, draining, within, reply } = message;
        self.drain(Drain::Platform(platform), draining, within, reply, ctx);
    }
}

impl Handler<DrainHost> for PoolSupervisor {
    type Result = ();

    fn handle(&mut self, message: DrainHost, ctx: &mut Self::Context) {
        let DrainHost { host, draining, within, reply } = message;
        self.drain(Drain::Host(host), draining, within, reply, ctx);
    }
}

impl Handler<DrainServer> for PoolSupervisor {
    type Result = ();

    fn handle(&mut self, DrainServer { order, reply }: DrainServer, ctx: &mut Self::Context) {
        self.drain_server(order, ctx);
        // Whoever asked may have given up.
        let _ = reply.send(self.closing_line().unwrap_or_default());
    }
}
