//! The scripted bot in a fake container: claims, reports in order, resends until it is heard, sends heartbeats, and
//! leaves when told, unless its script says that it crashes, falls silent or is stubborn.

use super::disaster::Disaster;
use super::world::{Happening, Shared, World};
use crate::bot::machine::{Report, ReportBody, end};
use crate::bot::{BotState, EndReason};
use crate::ids::{BotId, ContainerKey};
use crate::slot::actor::Refused;
use crate::slot::event::SlotEvent;
use crate::slot::handle::{Directory, Pulse};
use crate::slot::machine::Rejection;
use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

/// What a bot's program is up to.
#[derive(Debug, Clone)]
pub struct Program {
    /// The bot that its slot has for it.
    pub bot_id: BotId,
    nonce: Uuid,
    claimed: bool,
    fenced: bool,
    /// Reports not taken yet, first to last.
    pending: Vec<ReportBody>,
    next_seq: i64,
    ends_at: DateTime<Utc>,
    crashes_at: Option<DateTime<Utc>>,
    /// From when on it says nothing, and runs on.
    pub silent_from: Option<DateTime<Utc>>,
    stubborn: bool,
    leaving: bool,
    /// How it ends, once it has uploaded what is left.
    ends_with: Option<EndReason>,
    upload: TimeDelta,
    uploaded_at: Option<DateTime<Utc>>,
}

impl Program {
    /// Draws a script.
    pub fn new(world: &mut World, key: ContainerKey, bot_id: BotId) -> Self {
        let (length, upload) = (world.between(5_000, 400_000), world.between(0, 30_000));
        let faults = world.faults;
        let crashes_at = world.chance("bot crashes", faults.bot_crash).then(|| world.between(1, 300_000));
        let silent_from =
            world.chance("bot falls silent", faults.bot_silent).then(|| world.between(1, 300_000));
        if let Some(after) = silent_from
            && world.chance("clock set over a silent bot", faults.clock_set)
        {
            let after = after + world.between(0, 20_000);
            world.plan(after, Happening::Disaster(Disaster::ClockSet));
        }
        let stubborn = world.chance("bot is stubborn", faults.bot_stubborn);
        let nonce = Uuid::from_u128(world.rng.u128(..));
        let denied = world.rng.u8(0..10) == 0;
        let mut pending = vec![ReportBody::Entered(BotState::InWaitingRoom)];
        if denied {
            pending.push(ReportBody::Ended(end(EndReason::Denied)));
        } else {
            pending.push(ReportBody::Entered(BotState::InCall));
            pending.push(ReportBody::Entered(BotState::Recording));
            pending.push(ReportBody::Happened { event_type: "PARTICIPANT_JOIN".to_owned(), data: None });
        }
        super::invariants::program_starts(world, key);
        Self {
            bot_id,
            nonce,
            claimed: false,
            fenced: false,
            pending,
            next_seq: 1,
            ends_at: world.now + length,
            crashes_at: crashes_at.map(|after| world.now + after),
            silent_from: silent_from.map(|after| world.now + after),
            stubborn,
            leaving: false,
            ends_with: None,
            upload,
            uploaded_at: None,
        }
    }

    /// Whether it reports and sends heartbeats.
    pub fn speaks(&self, now: DateTime<Utc>) -> bool {
        !self.fenced && self.silent_from.is_none_or(|at| now < at)
    }

    /// Whether it has its assignment, and was not told that its time is over.
    pub fn is_in_meeting(&self) -> bool {
        self.claimed && !self.fenced
    }

    /// Uploads what is left once it has said that it leaves, and then ends.
    fn upload(&mut self, now: DateTime<Utc>) {
        if self.leaving && self.pending.is_empty() {
            let uploaded_at = *self.uploaded_at.get_or_insert(now + self.upload);
            let reason = self.ends_with.filter(|_| now >= uploaded_at);
            self.pending.extend(reason.map(|reason| ReportBody::Ended(end(reason))));
        }
    }

    fn leave(&mut self, reason: EndReason) {
        if !self.leaving {
            self.leaving = true;
            self.pending.push(ReportBody::Entered(BotState::Leaving));
            self.ends_with = Some(reason);
        }
    }
}

/// Does a program's next step; `directory` is the way to the server, if one is up.
pub fn step(shared: &Shared, key: ContainerKey, directory: Option<&Directory>) {
    let mut world = shared.lock();
    let now = world.now;
    let Some(mut program) = world.programs.get(&key).cloned() else { return };
    if program.crashes_at.is_some_and(|at| now >= at) {
        return world.exit(key, "crashed");
    }
    let again = world.between(500, 4_000);
    world.plan(again, Happening::Program(key));
    let Some(handle) = directory.and_then(|directory| directory.slot(key.slot)) else { return };
    if !program.speaks(now) {
        return;
    }
    if now >= program.ends_at {
        program.leave(EndReason::MeetingEnded);
    }
    program.upload(now);
    let (utc, doubtful) = (world.utc(), !world.may_act(shared.process));
    let request = if program.claimed {
        match handle.heartbeat(program.bot_id, key.generation, utc) {
            Pulse::CarryOn => {}
            // As the door does: whoever may not lead any more knows of no end.
            _ if doubtful => {}
            // It uploads and uploads.
            Pulse::Leave if program.stubborn => handle.segment_arrives(utc),
            Pulse::Leave => program.leave(EndReason::LeftByRequest),
            Pulse::Stale => program.fenced = program.pending.is_empty(),
        }
        let body = program.pending.first().cloned();
        body.map(|body| SlotEvent::Reported {
            generation: key.generation,
            report: Report { seq: program.next_seq, at: utc, body },
        })
    } else {
        Some(SlotEvent::Claimed { generation: key.generation, nonce: program.nonce })
    };
    let (claims, seq) = (!program.claimed, program.next_seq);
    world.programs.insert(key, program);
    let doubled = world.chance("report doubled", 50);
    drop(world);
    let Some(request) = request else { return };
    if doubled {
        drop(handle.send(request.clone()));
    }
    let answer = handle.send(request);
    let shared = shared.clone();
    actix::spawn(async move {
        let Ok(outcome) = answer.await else { return };
        let mut world = shared.lock();
        if shared.is_dead(&world) {
            return;
        }
        let Some(mut program) = world.programs.get(&key).cloned() else { return };
        match outcome {
            Ok(outcome) if claims => {
                program.claimed = true;
                if outcome.slot.bot().is_none_or(|bot| bot.id != program.bot_id) {
                    world.violated(format!(
                        "the claim of bot {} was answered with another bot",
                        program.bot_id
                    ));
                }
                super::invariants::claimed(&mut world, key, program.nonce);
            }
            // Only the answer to the report that is due moves on; a doubled answer does not move twice.
            Ok(_) if seq == program.next_seq && !program.pending.is_empty() => {
                program.pending.remove(0);
                program.next_seq += 1;
            }
            Ok(_) => {}
            // As the door does: what is refused by one who may not lead any more is no answer.
            Err(Refused::Rejected(_)) if !world.may_act(shared.process) => {}
            Err(Refused::Rejected(Rejection::Fenced | Rejection::Stale { .. })) => program.fenced = true,
            Err(Refused::Rejected(Rejection::Gap { expected })) => {
                world.violated(format!("bot {}: report {seq} refused, {expected} expected", program.bot_id));
            }
            Err(Refused::Rejected(Rejection::Illegal { .. }) | Refused::Busy | Refused::Commit(_)) => {}
        }
        world.programs.insert(key, program);
    });
}

/// How long a program at most takes to be done by itself.
pub const LONGEST: TimeDelta = TimeDelta::minutes(20);
