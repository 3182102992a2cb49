//! Collects what bots recorded and did not live to upload: bots that died while no server was there, or between two
//! pieces. It looks at the start and on a timer, takes one spool at a time, and has the recording joined again. Which
//! spool is whose is in `collect`.

use super::actor::{LateSegment, RecordingActor};
use super::collect::{Fate, fate, patience};
use crate::bot::Bot;
use crate::journal::CommitError;
use crate::journal::actor::Journal;
use crate::ports::{Clock, Spool, Spools};
use crate::slot::handle::Directory;
use crate::slot::held_containers;
use crate::supervision::{DeathGuard, tell};
use actix::prelude::*;
use chrono::{DateTime, Utc};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Time between two looks.
const INTERVAL: Duration = Duration::from_secs(15);
/// How long a look at the hosts may take.
const FIND_DEADLINE: Duration = Duration::from_secs(60);
/// How long one spool may take; what was done by then need not be done again. A spool holds 2 GiB at most.
const DELIVER_DEADLINE: Duration = Duration::from_secs(1_800);
/// Spools that are dealt with at one look; the others wait for the next.
const SPOOLS_MAX: usize = 100;

/// What the collector is connected to.
#[derive(Clone)]
pub struct CollectorLinks {
    /// The spools.
    pub spools: Arc<dyn Spools>,
    /// Slots.
    pub directory: Arc<Directory>,
    /// Bots and recordings.
    pub journal: Journal,
    /// Who joins.
    pub recordings: Addr<RecordingActor>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The log.
    pub log: slog::Logger,
}

#[derive(Clone, Copy)]
struct HeldBack {
    failures: u32,
    until: DateTime<Utc>,
}

/// The collecting as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CollectorSnapshot {
    /// It looks for spools, or is at one.
    pub looking: bool,
    /// Spools that the hosts had at the last look that got an answer.
    pub found: usize,
    /// Those that could not be delivered and wait for another try.
    pub waiting: usize,
}

/// Asks for a [`CollectorSnapshot`].
#[derive(Message)]
#[rtype(result = "CollectorSnapshot")]
pub struct Observe;

/// See the module.
pub struct SpoolCollector {
    links: CollectorLinks,
    looking: bool,
    found: usize,
    /// Those that could not be delivered.
    held_back: BTreeMap<Spool, HeldBack>,
    _guard: DeathGuard,
}

impl SpoolCollector {
    /// Collects for `links.recordings`.
    pub fn new(links: CollectorLinks, guard: DeathGuard) -> Self {
        Self { links, looking: false, found: 0, held_back: BTreeMap::new(), _guard: guard }
    }

    fn look(&mut self, ctx: &mut Context<Self>) {
        if std::mem::replace(&mut self.looking, true) {
            return;
        }
        let spools = Arc::clone(&self.links.spools);
        let find = async move { timeout(FIND_DEADLINE, spools.find()).await };
        ctx.spawn(find.into_actor(self).map(|found, act, ctx| match found {
            Ok(Ok(found)) => act.take(found, ctx),
            Ok(Err(error)) => {
                act.looking = false;
                slog::warn!(act.links.log, "what bots left behind cannot be looked for"; "error" => %error);
            }
            Err(_) => {
                act.looking = false;
                slog::warn!(act.links.log, "what bots left behind cannot be looked for: no answer");
            }
        }));
    }

    fn take(&mut self, found: Vec<Spool>, ctx: &mut Context<Self>) {
        let now = self.links.clock.now();
        self.found = found.len();
        self.held_back.retain(|spool, _| found.contains(spool));
        let is_due = |spool: &Spool| self.held_back.get(spool).is_none_or(|held| held.until <= now);
        let due: Vec<Spool> = found.into_iter().filter(is_due).take(SPOOLS_MAX).collect();
        let links = self.links.clone();
        let work = async move {
            let mut failed = Vec::new();
            for spool in due {
                if let Err(why) = settle(&links, &spool).await {
                    slog::warn!(links.log, "what a bot left behind waits for another try"; "bot" => spool.bot_id.0,
                        "slot_id" => %spool.key.slot, "generation" => spool.key.generation.0, "error" => why);
                    failed.push(spool);
                }
            }
            failed
        };
        ctx.spawn(work.into_actor(self).map(|failed, act, _| {
            act.looking = false;
            for spool in failed {
                act.hold_back(spool);
            }
        }));
    }

    fn hold_back(&mut self, spool: Spool) {
        let now = self.links.clock.now();
        let failures = self.held_back.get(&spool).map_or(0, |held| held.failures + 1);
        self.held_back.insert(spool, HeldBack { failures, until: now + patience(failures) });
    }
}

/// Does what is to be done about one spool.
async fn settle(links: &CollectorLinks, spool: &Spool) -> Result<(), String> {
    let in_words = |error: CommitError| error.to_string();
    let bot = links.journal.read_bot(spool.bot_id).await.map_err(in_words)?;
    let recording = links.journal.read_recording(spool.bot_id).await.map_err(in_words)?;
    // Looked at behind the reads: a slot that took its bot meanwhile shows it.
    let slots: Vec<_> = links.directory.all().iter().map(|handle| handle.snapshot()).collect();
    let held = held_containers(slots.iter().map(AsRef::as_ref));
    match (fate(spool, &held, bot.as_ref(), recording.as_ref()), bot) {
        (Fate::Deliver, Some(bot)) => deliver(links, spool, bot).await,
        (Fate::Discard(why), _) => {
            slog::warn!(links.log, "what a bot left behind is thrown away"; "bot" => spool.bot_id.0,
                "slot_id" => %spool.key.slot, "generation" => spool.key.generation.0, "why" => why);
            links.spools.discard(spool).await.map_err(|error| error.to_string())
        }
        (Fate::Wait | Fate::Deliver, _) => Ok(()),
    }
}

async fn deliver(links: &CollectorLinks, spool: &Spool, bot: Bot) -> Result<(), String> {
    let delivered = match timeout(DELIVER_DEADLINE, links.spools.deliver(spool)).await {
        Ok(outcome) => outcome.map_err(|error| error.to_string()),
        Err(_) => Err(format!("not done within {} s", DELIVER_DEADLINE.as_secs())),
    };
    if let Ok(pieces) = delivered {
        slog::info!(links.log, "what a bot left behind is collected"; "bot" => bot.id.0, "pieces" => pieces);
    }
    // Also after a failure: some pieces may be there.
    tell(&links.recordings, LateSegment { bot });
    delivered.map(drop)
}

impl Actor for SpoolCollector {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.look(ctx);
        ctx.run_interval(INTERVAL, Self::look);
    }
}

impl Handler<Observe> for SpoolCollector {
    type Result = MessageResult<Observe>;

    fn handle(&mut self, _: Observe, _: &mut Self::Context) -> Self::Result {
        let (looking, found, waiting) = (self.looking, self.found, self.held_back.len());
        MessageResult(CollectorSnapshot { looking, found, waiting })
    }
}
