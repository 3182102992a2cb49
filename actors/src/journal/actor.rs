//! The one writer. It puts the decisions of all actors that wait into one transaction (group commit), in the order
//! they came, and answers each when its outcome is known. Reads that must see everything submitted before them go
//! through it too.

use super::settle::{BatchNumbers, read_known, settle};
use super::{CommitError, Decision, RowKey};
use crate::bot::Bot;
use crate::ids::{BotId, SlotName};
use crate::ports::{Measure, Meter, Store};
use crate::recording::Recording;
use crate::slot::Slot;
use crate::supervision::DeathGuard;
use actix::prelude::*;
use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Decisions in one transaction at most: a bound on its size, and on what one conflict makes replay.
pub const BATCH_DECISIONS_MAX: usize = 256;
/// Bot ids fetched ahead at a time.
const BOT_ID_BLOCK: u32 = 256;

/// Commits one decision; answers when its outcome is known.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Submit {
    /// Rows to write together.
    pub decision: Decision,
    /// Where the outcome goes.
    pub reply: oneshot::Sender<Result<(), CommitError>>,
}

/// Reads a slot and the bot in it, behind everything submitted so far.
#[derive(Message)]
#[rtype(result = "()")]
pub struct ReadSlot {
    /// Which.
    pub name: SlotName,
    /// Where the row goes; `None`: there is no such slot.
    pub reply: oneshot::Sender<Result<Option<Slot>, CommitError>>,
}

/// Reads a bot, behind everything submitted so far.
#[derive(Message)]
#[rtype(result = "()")]
pub struct ReadBot {
    /// Which.
    pub id: BotId,
    /// Where the row goes; `None`: there is no such bot.
    pub reply: oneshot::Sender<Result<Option<Bot>, CommitError>>,
}

/// Reads a recording, behind everything submitted so far.
#[derive(Message)]
#[rtype(result = "()")]
pub struct ReadRecording {
    /// Whose.
    pub bot_id: BotId,
    /// Where the row goes; `None`: the bot does not record.
    pub reply: oneshot::Sender<Result<Option<Recording>, CommitError>>,
}

/// Fetches a block of bot ids that nobody else will ever get.
#[derive(Message)]
#[rtype(result = "()")]
pub struct ReserveBotIds {
    /// Where the block goes.
    pub reply: oneshot::Sender<Result<Range<i64>, CommitError>>,
}

/// How the Journal has fared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JournalSnapshot {
    /// Waiting for the next batch.
    pub waiting: usize,
    /// Transactions so far.
    pub batches: u64,
    /// Decisions written so far.
    pub decisions: u64,
    /// Decisions refused so far.
    pub conflicts: u64,
}

/// Asks for a [`JournalSnapshot`].
#[derive(Message)]
#[rtype(result = "JournalSnapshot")]
pub struct Observe;

enum Request {
    Submit(Submit),
    ReadSlot(ReadSlot),
    ReadBot(ReadBot),
    ReadRecording(ReadRecording),
    ReserveBotIds(ReserveBotIds),
}

/// See the module.
pub struct JournalActor {
    store: Arc<dyn Store>,
    numbers: BatchNumbers,
    waiting: VecDeque<Request>,
    working: bool,
    snapshot: JournalSnapshot,
    deposed: Arc<dyn Fn() + Send + Sync>,
    meter: Arc<dyn Meter>,
    _guard: DeathGuard,
}

impl JournalActor {
    /// A journal over `store`. `deposed` is called once leadership is known to be lost: the process must stop
    /// deciding.
    pub fn new(
        store: Arc<dyn Store>,
        deposed: Arc<dyn Fn() + Send + Sync>,
        meter: Arc<dyn Meter>,
        guard: DeathGuard,
    ) -> Self {
        Self {
            store,
            numbers: BatchNumbers::default(),
            waiting: VecDeque::new(),
            working: false,
            snapshot: JournalSnapshot::default(),
            deposed,
            meter,
            _guard: guard,
        }
    }

    fn enqueue(&mut self, request: Request, ctx: &mut Context<Self>) {
        self.waiting.push_back(request);
        self.work(ctx);
    }

    /// Takes the next batch, or the next read, unless one is under way.
    fn work(&mut self, ctx: &mut Context<Self>) {
        if self.working {
            return;
        }
        match self.waiting.front() {
            None => {}
            Some(Request::Submit(_)) => self.commit_batch(ctx),
            Some(_) => self.read(ctx),
        }
    }

    fn commit_batch(&mut self, ctx: &mut Context<Self>) {
        let (decisions, replies) = self.take_batch();
        let store = Arc::clone(&self.store);
        let mut numbers = std::mem::take(&mut self.numbers);
        self.working = true;
        let (began, size) = (Instant::now(), decisions.len());
        let commit = async move {
            let outcomes = settle(store.as_ref(), &mut numbers, &decisions).await;
            (numbers, outcomes)
        };
        ctx.spawn(commit.into_actor(self).map(move |(numbers, outcomes), act, ctx| {
            act.numbers = numbers;
            act.working = false;
            act.snapshot.batches += 1;
            act.meter.record(Measure::BatchCommitted { decisions: size, took: began.elapsed() });
            for (reply, outcome) in replies.into_iter().zip(outcomes) {
                match &outcome {
                    Ok(()) => act.snapshot.decisions += 1,
                    Err(CommitError::Conflict(_)) => act.snapshot.conflicts += 1,
                    Err(CommitError::Deposed) => (act.deposed)(),
                }
                // Whoever asked may be gone; the outcome stands in the store.
                let _ = reply.send(outcome);
            }
            act.work(ctx);
        }));
    }

    /// The decisions at the head of the line, up to the first read, the first row that would be there twice, or
    /// the bound.
    fn take_batch(&mut self) -> (Vec<Decision>, Vec<oneshot::Sender<Result<(), CommitError>>>) {
        let mut rows: BTreeSet<RowKey> = BTreeSet::new();
        let (mut decisions, mut replies) = (Vec::new(), Vec::new());
        while decisions.len() < BATCH_DECISIONS_MAX {
            let Some(Request::Submit(submit)) = self.waiting.front() else { break };
            let keys: Vec<RowKey> = submit.decision.iter().filter_map(super::Change::row).collect();
            if keys.iter().any(|key| rows.contains(key)) {
                break;
            }
            rows.extend(keys);
            if let Some(Request::Submit(submit)) = self.waiting.pop_front() {
                decisions.push(submit.decision);
                replies.push(submit.reply);
            }
        }
        (decisions, replies)
    }

    fn read(&mut self, ctx: &mut Context<Self>) {
        let Some(request) = self.waiting.pop_front() else { return };
        let store = Arc::clone(&self.store);
        self.working = true;
        let read = async move {
            match request {
                Request::ReadSlot(ReadSlot { name, reply }) => {
                    let _ = reply.send(read_known(|| store.read_slot(&name)).await);
                }
                Request::ReadBot(ReadBot { id, reply }) => {
                    let _ = reply.send(read_known(|| store.read_bot(id)).await);
                }
                Request::ReadRecording(ReadRecording { bot_id, reply }) => {
                    let _ = reply.send(read_known(|| store.read_recording(bot_id)).await);
                }
                Request::ReserveBotIds(ReserveBotIds { reply }) => {
                    let _ = reply.send(read_known(|| store.reserve_bot_ids(BOT_ID_BLOCK)).await);
                }
                Request::Submit(_) => {}
            }
        };
        ctx.spawn(read.into_actor(self).map(|(), act, ctx| {
            act.working = false;
            act.work(ctx);
        }));
    }
}

impl Actor for JournalActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(1024);
    }
}

macro_rules! enqueue {
    ($($message:ident),*) => {$(
        impl Handler<$message> for JournalActor {
            type Result = ();

            fn handle(&mut self, message: $message, ctx: &mut Self::Context) {
                self.enqueue(Request::$message(message), ctx);
            }
        }
    )*};
}
enqueue!(Submit, ReadSlot, ReadBot, ReadRecording, ReserveBotIds);

impl Handler<Observe> for JournalActor {
    type Result = MessageResult<Observe>;

    fn handle(&mut self, _: Observe, _: &mut Self::Context) -> Self::Result {
        MessageResult(JournalSnapshot { waiting: self.waiting.len(), ..self.snapshot })
    }
}

/// The ways the other actors ask the Journal; a Journal that is gone reads as [`CommitError::Deposed`].
#[derive(Clone)]
pub struct Journal(Addr<JournalActor>);

impl Journal {
    /// A handle to the actor.
    pub fn new(addr: Addr<JournalActor>) -> Self {
        Self(addr)
    }

    /// Commits a decision. The order of two calls is the order of their commits, even where neither is awaited yet.
    pub fn submit(&self, decision: Decision) -> impl Future<Output = Result<(), CommitError>> + use<> {
        self.ask(move |reply| Submit { decision, reply })
    }

    /// Reads a slot behind everything submitted so far.
    pub fn read_slot(
        &self,
        name: SlotName,
    ) -> impl Future<Output = Result<Option<Slot>, CommitError>> + use<> {
        self.ask(move |reply| ReadSlot { name, reply })
    }

    /// Reads a bot behind everything submitted so far.
    pub fn read_bot(&self, id: BotId) -> impl Future<Output = Result<Option<Bot>, CommitError>> + use<> {
        self.ask(move |reply| ReadBot { id, reply })
    }

    /// Reads a recording behind everything submitted so far.
    pub fn read_recording(
        &self,
        bot_id: BotId,
    ) -> impl Future<Output = Result<Option<Recording>, CommitError>> + use<> {
        self.ask(move |reply| ReadRecording { bot_id, reply })
    }

    /// Fetches a block of bot ids.
    pub fn reserve_bot_ids(&self) -> impl Future<Output = Result<Range<i64>, CommitError>> + use<> {
        self.ask(move |reply| ReserveBotIds { reply })
    }

    fn ask<M, T, F>(&self, message: F) -> impl Future<Output = Result<T, CommitError>> + use<M, T, F>
    where
        F: FnOnce(oneshot::Sender<Result<T, CommitError>>) -> M,
        JournalActor: Handler<M>,
        M: Message + Send + 'static,
        M::Result: Send,
    {
        let (reply, answer) = oneshot::channel();
        crate::supervision::tell(&self.0, message(reply));
        async move { answer.await.unwrap_or(Err(CommitError::Deposed)) }
    }
}
