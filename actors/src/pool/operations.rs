//! What the pool does beyond giving bots to slots: settings that change while it runs, slots made ahead of need, what
//! operators wish of slots.

use super::actor::PoolSupervisor;
use super::message::{
    Configure, GrowError, Operate, OperateError, PlatformLine, Prewarm, Recover, SlotAction,
};
use super::{Drain, PlatformSettings, PoolSettings};
use crate::ids::{HostName, Platform, SlotName};
use crate::image_pull::actor::EnsureImage;
use crate::image_pull::machine::Want;
use crate::ports::ResourceLimits;
use crate::reconcile::actor::HostsChanged;
use crate::slot::actor::{Happened, Refused};
use crate::slot::command::SlotCommand;
use crate::slot::event::SlotEvent;
use crate::slot::preparation::Preparation;
use crate::slot::{Slot, SlotState, SlotStatus};
use crate::supervision::tell;
use actix::prelude::*;
use chrono::{DateTime, Utc};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::oneshot;

impl PoolSupervisor {
    /// Whether the platform takes no new bots, though those it has are served to their end.
    pub(super) fn is_closed(&self, platform: &Platform) -> bool {
        let enabled = self.settings.platforms.get(platform).is_some_and(|settings| settings.enabled);
        !enabled || self.closing.is_some() || self.drains.contains_key(&Drain::Platform(platform.clone()))
    }

    /// Whether bots are sent to a host at all: it is in the settings, and has room for some.
    fn sends_bots_to(&self, host: &HostName) -> bool {
        self.settings.hosts.get(host).is_some_and(|settings| settings.capacity > 0)
    }

    /// Whether a host is in the settings and its engine answers.
    fn is_there(&self, host: &HostName) -> bool {
        self.settings.hosts.contains_key(host) && !self.links.away.contains(host)
    }

    /// What each platform that is served may hold.
    pub(super) fn platform_lines(&self) -> BTreeMap<Platform, PlatformLine> {
        let line = |platform: &Platform, settings: &PlatformSettings| PlatformLine {
            max_size: settings.max_size,
            prewarm: settings.prewarm,
            open: !self.is_closed(platform),
        };
        let platforms = self.settings.platforms.iter();
        platforms.map(|(platform, settings)| (platform.clone(), line(platform, settings))).collect()
    }

    /// Has a slot adopt what changed since it was made: asked for before it is given its next bot.
    pub(super) fn keep_up(&self, slot: &Slot) {
        if slot.version == 0 {
            return;
        }
        if let Some(command) = self.drain_command(slot) {
            return self.command(&slot.name, command);
        }
        let is_idle = matches!(slot.state, SlotState::Idle { .. });
        if is_idle && !slot.drains.any() && !self.sends_bots_to(&slot.host) {
            // Nobody would get it, and it would take up room that the pool has on other hosts.
            return self.command(&slot.name, SlotCommand::Retire);
        }
        let wanted = self.settings.platforms.get(&slot.platform).map(|settings| &settings.image);
        if let Some(image) = wanted.filter(|image| is_idle && **image != slot.image) {
            self.command(&slot.name, SlotCommand::ChangeImage { image: image.clone() });
        }
        self.discard_ahead(slot);
    }

    /// Has a free slot remove the container for its next bot where that is not wanted any more, or not as it is.
    fn discard_ahead(&self, slot: &Slot) {
        let SlotState::Idle { ahead, .. } = &slot.state else { return };
        let wanted = self.wanted_ahead(slot);
        match (ahead.limits(), wanted) {
            (Some(made_with), Some(limits)) if made_with != limits => {
                self.command(&slot.name, SlotCommand::Prepare { limits });
            }
            (Some(_), None) => self.command(&slot.name, SlotCommand::Unprepare),
            _ => {}
        }
    }

    /// Has a free slot make the container for its next bot, unless somebody has a hold of it: who waits comes first.
    pub(super) fn prepare_ahead(&self, slot: &Slot) {
        let SlotState::Idle { ahead: Preparation::Absent, .. } = slot.state else { return };
        let Some(limits) = self.wanted_ahead(slot).filter(|_| slot.version > 0) else { return };
        let is_free = self.index.get(&slot.name).is_some_and(|line| !line.reserved);
        if is_free && !self.links.away.contains(&slot.host) {
            self.command(&slot.name, SlotCommand::Prepare { limits });
        }
    }

    /// What the container for a free slot's next bot may use; `None`: none is to be ready.
    fn wanted_ahead(&self, slot: &Slot) -> Option<ResourceLimits> {
        let platform = self.settings.platforms.get(&slot.platform)?;
        let is_served = platform.enabled && self.sends_bots_to(&slot.host);
        let is_wanted = platform.prepare && is_served && self.links.driver.prepares(&slot.host);
        is_wanted.then_some(platform.limits)
    }

    /// Tells a slot, which holds it for as long as it must; what comes of it is published. One that is being rebuilt does
    /// not hear it: what it is to adopt it is told again when it is there.
    pub(super) fn command(&self, name: &SlotName, command: SlotCommand) {
        if let Some(member) = self.members.get(name) {
            tell(&member.addr, Happened { event: SlotEvent::Commanded(command), reply: None });
        }
    }

    // --- settings ----------------------------------------------------------------------------------------------

    fn configure(&mut self, settings: PoolSettings, ctx: &mut Context<Self>) {
        let old = std::mem::replace(&mut self.settings, settings);
        self.index.configure(&self.settings);
        self.links.limits.configure(&self.settings);
        if let Some(partners) = &self.partners {
            tell(&partners.reconciler, HostsChanged { hosts: self.settings.hosts.keys().cloned().collect() });
        }
        let mut changed = Vec::new();
        for (platform, settings) in &self.settings.platforms {
            if old.platforms.get(platform).is_some_and(|old| old.image != settings.image) {
                changed.push((platform.clone(), settings.image.clone()));
            }
        }
        changed.into_iter().for_each(|(platform, image)| self.pull_everywhere(&platform, &image, ctx));
        let slots: Vec<Arc<Slot>> = self.members.values().map(|member| member.handle.snapshot()).collect();
        slots.iter().for_each(|slot| self.keep_up(slot));
        // Behind that: whoever waits gets slots as they are meant now, and before any container is made for the next.
        self.pump_all(ctx);
        slots.iter().for_each(|slot| self.prepare_ahead(slot));
    }

    /// Has the new image pulled where the platform has slots; a host that does not have it yet comes after those that do.
    fn pull_everywhere(&mut self, platform: &Platform, image: &str, ctx: &mut Context<Self>) {
        let lines = self.index.lines();
        let hosts: BTreeSet<HostName> =
            lines.into_iter().filter(|line| line.platform == *platform).map(|line| line.host).collect();
        slog::info!(self.links.log, "a new image is pulled and adopted"; "platform" => %platform, "image" => image,
            "hosts" => hosts.len());
        for host in hosts {
            self.index.image_came(platform, &host, false);
            // A slot that needs it waits for the same pull.
            let (reply, pulled) = oneshot::channel();
            let wanted =
                EnsureImage { host: host.clone(), image: image.to_owned(), want: Want::Ahead, reply };
            tell(&self.links.pulls, wanted);
            let (platform, image) = (platform.clone(), image.to_owned());
            ctx.spawn(pulled.into_actor(self).map(move |pulled, act, ctx| {
                let is_meant =
                    act.settings.platforms.get(&platform).is_some_and(|settings| settings.image == image);
                if is_meant && matches!(pulled, Ok(Ok(()))) {
                    act.index.image_came(&platform, &host, true);
                    act.pump_all(ctx);
                }
            }));
        }
    }

    // --- slots ahead of need -----------------------------------------------------------------------------------

    fn prewarm(&mut self, Prewarm { platform, reply }: Prewarm, ctx: &mut Context<Self>) {
        let grown = if self.is_closed(&platform) {
            Err(GrowError::Disabled)
        } else {
            let growth = self.index.growth(&platform).ok_or(GrowError::Full);
            growth.and_then(|growth| self.grow(&platform, growth).ok_or(GrowError::Unavailable))
        };
        let handle = match grown {
            Ok(handle) => handle,
            Err(error) => return drop(reply.send(Err(error))),
        };
        let slot = handle.snapshot();
        let (pull, pulled) = oneshot::channel();
        let (host, image) = (slot.host.clone(), slot.image.clone());
        let wanted = EnsureImage { host, image, want: Want::Ahead, reply: pull };
        tell(&self.links.pulls, wanted);
        let (vacant, patience) = (Arc::clone(&handle), self.links.timing.pull);
        let made = async move {
            match tokio::time::timeout(patience, pulled).await {
                Ok(Ok(Ok(()))) => {}
                Ok(Ok(Err(failure))) => return Err(GrowError::Pull(failure.to_string())),
                Ok(Err(_)) => return Err(GrowError::Pull("the pull was given up".to_owned())),
                Err(_) => return Err(GrowError::Pull("the pull takes too long".to_owned())),
            }
            match vacant.send(SlotEvent::Commanded(SlotCommand::Store)).await {
                Ok(Ok(outcome)) => Ok(outcome.slot.name.clone()),
                Ok(Err(_)) | Err(_) => Err(GrowError::Unavailable),
            }
        };
        self.prewarming += 1;
        ctx.spawn(made.into_actor(self).map(move |made, act, ctx| {
            act.prewarming -= 1;
            if matches!(made, Ok(_) | Err(GrowError::Pull(_))) {
                act.index.image_came(&platform, &handle.snapshot().host, made.is_ok());
            }
            act.unreserve(handle.name());
            act.pump_all(ctx);
            act.close_when_empty();
            let _ = reply.send(made);
        }));
    }

    // --- operators ---------------------------------------------------------------------------------------------

    fn operate(&self, Operate { slot, action, reply }: Operate) {
        let Some(member) = self.members.get(&slot) else {
            return drop(reply.send(Err(OperateError::Unknown(format!("slot {slot}")))));
        };
        let host = member.handle.snapshot().host.clone();
        if action == SlotAction::Forget && self.is_there(&host) {
            return drop(reply.send(Err(OperateError::HostAnswers(host))));
        }
        let answer = member.handle.send(SlotEvent::Commanded(command_for(action, self.now())));
        actix::spawn(async move {
            let outcome = match answer.await {
                Ok(Ok(outcome)) => Ok(outcome.slot),
                Ok(Err(Refused::Commit(_))) | Err(_) => Err(OperateError::OutcomeUnknown),
                Ok(Err(refused)) => Err(OperateError::Refused(refused)),
            };
            let _ = reply.send(outcome);
        });
    }

    fn recover_all(&self) -> usize {
        let lines = self.index.lines();
        let broken = lines.iter().filter(|line| line.status == Some(SlotStatus::Error));
        broken.map(|line| self.command(&line.name, SlotCommand::Reset)).count()
    }
}

fn command_for(action: SlotAction, now: DateTime<Utc>) -> SlotCommand {
    match action {
        SlotAction::Reset => SlotCommand::Reset,
        SlotAction::Drain { within } => SlotCommand::Drain { by: within.map(|within| now + within) },
        SlotAction::Undrain => SlotCommand::Undrain,
        SlotAction::Retire => SlotCommand::Retire,
        SlotAction::Forget => SlotCommand::Forget,
        SlotAction::Restart => SlotCommand::Restart,
        SlotAction::End { bot } => {
            SlotCommand::End { bot, detail: "An operator ended this bot and freed its slot.".to_owned() }
        }
    }
}

impl Handler<Configure> for PoolSupervisor {
    type Result = ();

    fn handle(&mut self, message: Configure, ctx: &mut Self::Context) {
        self.configure(message.settings, ctx);
    }
}

impl Handler<Prewarm> for PoolSupervisor {
    type Result = ();

    fn handle(&mut self, message: Prewarm, ctx: &mut Self::Context) {
        self.prewarm(message, ctx);
    }
}

impl Handler<Operate> for PoolSupervisor {
    type Result = ();

    fn handle(&mut self, message: Operate, _: &mut Self::Context) {
        self.operate(message);
    }
}

impl Handler<Recover> for PoolSupervisor {
    type Result = ();

    fn handle(&mut self, message: Recover, _: &mut Self::Context) {
        // Whoever asked may have given up.
        let _ = message.reply.send(self.recover_all());
    }
}
