//! How free room comes to those who wait: the pool offers it, platform by platform in turns, and the queue says who takes
//! it. Where only other platforms' free slots are in the way, one of them goes for each who waits.

use super::actor::PoolSupervisor;
use super::message::{OfferEnded, OfferOutcome, QueueMoved};
use super::owners::Owner;
use super::shelf::is_stuck;
use crate::ids::{Platform, SlotName};
use crate::queue::message::OfferNext;
use crate::slot::Slot;
use crate::slot::command::SlotCommand;
use crate::slot::event::SlotEvent;
use crate::supervision::tell;
use actix::prelude::*;
use std::collections::VecDeque;
use std::sync::Arc;

/// How the offers to a platform's line stand.
#[derive(Default)]
pub(super) struct LineState {
    /// Under way.
    offers: usize,
    /// Somebody joined the line, or is back in it, since the last offer was made.
    moved: bool,
    /// The last offer found nobody who could take it: those who wait are being stored, served or ended.
    nobody_to_offer: bool,
}

impl PoolSupervisor {
    /// Offers free room to whoever waits, whatever the platform: a slot that is gone leaves room for any. The platforms
    /// take turns, or the first of them would have all the room that they share.
    pub(super) fn pump_all(&mut self, ctx: &mut Context<Self>) {
        let mut platforms: Vec<Platform> = self.owners.waiting_by_platform().into_keys().collect();
        let after_last = |last: &Platform| platforms.partition_point(|platform| platform <= last);
        let first = self.grown_for.as_ref().map_or(0, after_last);
        platforms.rotate_left(first);
        let mut turns: VecDeque<&Platform> = platforms.iter().collect();
        while let Some(platform) = turns.pop_front() {
            if self.offer_one(platform) {
                turns.push_back(platform);
            }
        }
        platforms.iter().for_each(|platform| self.make_room(platform, ctx));
    }

    /// Offers free room to those who wait for a platform, as long as there are both.
    fn pump(&mut self, platform: &Platform, ctx: &mut Context<Self>) {
        while self.offer_one(platform) {}
        self.make_room(platform, ctx);
    }

    /// How many wait for a platform that nothing is offered to.
    fn unserved(&self, platform: &Platform) -> usize {
        let waiting = self.owners.waiting(platform);
        match self.lines.get(platform) {
            Some(line) if line.nobody_to_offer => 0,
            Some(line) => waiting.saturating_sub(line.offers),
            None => waiting,
        }
    }

    /// Offers one free slot to a platform's line; says whether there were both.
    fn offer_one(&mut self, platform: &Platform) -> bool {
        let Some(queue) = self.partners.as_ref().map(|partners| partners.queue.clone()) else { return false };
        if self.unserved(platform) == 0 {
            return false;
        }
        let Some(slot) = self.reserve(platform) else { return false };
        let line = self.lines.entry(platform.clone()).or_default();
        line.offers += 1;
        line.moved = false;
        tell(&queue, OfferNext { platform: platform.clone(), slot });
        true
    }

    /// Has free slots of other platforms go, where they alone are in the way of those who wait. What is to be ready ahead
    /// of need stays, and so does everything of a platform that has bots waiting itself.
    fn make_room(&mut self, platform: &Platform, ctx: &mut Context<Self>) {
        if self.is_shut(platform) {
            return;
        }
        for _ in self.displaced.len()..self.unserved(platform) {
            let kept = |other: &Platform| {
                let going = self.displaced.values().filter(|of| *of == other).count();
                let prewarm = self.settings.platforms.get(other).map_or(0, |settings| settings.prewarm);
                let has_bots_waiting = self.owners.waiting(other) > 0;
                (!has_bots_waiting).then(|| prewarm.saturating_add(u32::try_from(going).unwrap_or(u32::MAX)))
            };
            let Some((name, of)) = self.index.in_the_way(platform, kept) else { return };
            self.displace(name, of, ctx);
        }
    }

    fn displace(&mut self, name: SlotName, of: Platform, ctx: &mut Context<Self>) {
        let Some(member) = self.members.get(&name) else { return };
        slog::info!(self.links.log, "a free slot goes, for a bot of another platform"; "slot" => %name);
        // Until the slot has answered nobody else may have it.
        self.index.reserve(&name, true);
        let handle = Arc::clone(&member.handle);
        let gone = async move { handle.send(SlotEvent::Commanded(SlotCommand::Retire)).await };
        self.displaced.insert(name.clone(), of);
        ctx.spawn(gone.into_actor(self).map(move |told, act, ctx| {
            act.unreserve(&name);
            match told {
                Ok(Ok(_)) => act.pump_all(ctx),
                // Not at once again: what keeps it from going now is news when it ends.
                Ok(Err(_)) | Err(_) => drop(act.displaced.remove(&name)),
            }
            act.close_when_empty();
        }));
    }

    /// A slot that was told to go is there again, or stays because its container cannot be removed: another one has to go.
    pub(super) fn stays(&mut self, slot: &Slot) {
        let is_held = self.index.get(&slot.name).is_some_and(|line| line.reserved);
        if (is_stuck(slot) || !slot.drains.any()) && !is_held {
            self.displaced.remove(&slot.name);
        }
    }

    fn offer_ended(&mut self, OfferEnded { platform, slot, outcome }: OfferEnded, ctx: &mut Context<Self>) {
        let line = self.lines.entry(platform).or_default();
        line.offers = line.offers.saturating_sub(1);
        // Unless somebody came (back) meanwhile, another offer would come back too.
        line.nobody_to_offer = outcome == OfferOutcome::Nobody && !line.moved;
        self.unreserve(&slot);
        self.pump_all(ctx);
        self.close_when_empty();
    }

    fn queue_moved(&mut self, QueueMoved { platform, left }: QueueMoved, ctx: &mut Context<Self>) {
        match left {
            None => {
                let line = self.lines.entry(platform.clone()).or_default();
                (line.moved, line.nobody_to_offer) = (true, false);
                self.pump(&platform, ctx);
            }
            Some((bot_id, ended)) => match ended.filter(|bot| bot.state.is_final()) {
                Some(bot) => self.ended(*bot),
                None if matches!(self.owners.get(bot_id), Some(Owner::Queue(_))) => {
                    self.owners.remove(bot_id);
                }
                None => {}
            },
        }
    }
}

impl Handler<OfferEnded> for PoolSupervisor {
    type Result = ();

    fn handle(&mut self, message: OfferEnded, ctx: &mut Self::Context) {
        self.offer_ended(message, ctx);
    }
}

impl Handler<QueueMoved> for PoolSupervisor {
    type Result = ();

    fn handle(&mut self, message: QueueMoved, ctx: &mut Self::Context) {
        self.queue_moved(message, ctx);
    }
}
