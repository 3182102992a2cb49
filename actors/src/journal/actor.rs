//! The one writer. It puts the decisions of all actors that wait into one transaction (group commit), in the order
//! they came, and answers each when its outcome is known: when it is written, and flushed. Several batches are under way
//! at once, the next one sent while one is written and others are flushed, as long as no two touch the same row: so each
//! may be refused, looked up or sent again without regard to the others. Reads that must see everything submitted before
//! them go through it too.

use super::settle::{self, BatchNumbers, Written, read_known};
use super::{CommitError, Decision, RowKey};
use crate::bot::Bot;
use crate::ids::{BotId, SlotName};
use crate::ports::{BatchNo, Measure, Meter, Store};
use crate::recording::Recording;
use crate::slot::Slot;
use crate::supervision::DeathGuard;
use actix::prelude::*;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Decisions in one transaction at most: a bound on its size, and on what one conflict makes replay.
pub const BATCH_DECISIONS_MAX: usize = 256;
/// Bot ids fetched ahead at a time.
const BOT_ID_BLOCK: u32 = 1024;
/// Batches that are being written at most: one, and one more on its way so that the store need not wait for it.
const WRITING_MAX: usize = 2;
/// Batches under way in all, at most: flushes that take long make the next batches larger.
const UNSETTLED_MAX: usize = 8;
/// How far the numbers of batches under way may be apart. The store forgets numbers that are 1,000 old
/// (`journal_begin`), and one whose answer was lost must still be found.
const NUMBERS_APART_MAX: i64 = 400;

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

/// Fetches a block of bot ids that nobody else will ever get. Waits behind nothing: it depends on no row.
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
}

/// Decisions that are written together.
struct TakenBatch {
    number: BatchNo,
    decisions: Vec<Decision>,
    /// Who is answered, one for each decision.
    replies: Vec<oneshot::Sender<Result<(), CommitError>>>,
    /// What they touch.
    rows: BTreeSet<RowKey>,
    began: Instant,
}

/// See the module.
pub struct JournalActor {
    store: Arc<dyn Store>,
    numbers: Arc<BatchNumbers>,
    waiting: VecDeque<Request>,
    reading: bool,
    writing: usize,
    /// Batches that nobody has heard of yet, and the rows they touch.
    unsettled: BTreeSet<BatchNo>,
    unsettled_rows: BTreeSet<RowKey>,
    /// Those of them whose outcomes are known, and wait for an earlier one's.
    settled: BTreeMap<BatchNo, (Vec<Result<(), CommitError>>, TakenBatch)>,
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
            numbers: Arc::default(),
            waiting: VecDeque::new(),
            reading: false,
            writing: 0,
            unsettled: BTreeSet::new(),
            unsettled_rows: BTreeSet::new(),
            settled: BTreeMap::new(),
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

    /// Takes the next batch, or the next read, unless something is in its way: what is under way takes the next one
    /// when it is over.
    fn work(&mut self, ctx: &mut Context<Self>) {
        if self.reading {
            return;
        }
        match self.waiting.front() {
            Some(Request::Submit(_)) if self.may_write() => self.write_batch(ctx),
            // A read comes behind everything.
            Some(request) if self.unsettled.is_empty() && !matches!(request, Request::Submit(_)) => {
                self.read(ctx);
            }
            Some(_) | None => {}
        }
    }

    fn may_write(&self) -> bool {
        let oldest = self.unsettled.first().copied().unwrap_or(self.numbers.last());
        self.writing < WRITING_MAX
            && self.unsettled.len() < UNSETTLED_MAX
            && self.numbers.last().0 - oldest.0 < NUMBERS_APART_MAX
    }

    fn write_batch(&mut self, ctx: &mut Context<Self>) {
        let Some(batch) = self.take_batch() else { return };
        let (store, numbers) = (Arc::clone(&self.store), Arc::clone(&self.numbers));
        self.writing += 1;
        let write = async move {
            let written = settle::write(store.as_ref(), batch.number, &numbers, &batch.decisions).await;
            (written, batch)
        };
        ctx.spawn(write.into_actor(self).map(|(written, batch), act, ctx| {
            act.writing -= 1;
            act.flush_batch(written, batch, ctx);
            act.work(ctx);
        }));
    }

    fn flush_batch(&mut self, written: Written, batch: TakenBatch, ctx: &mut Context<Self>) {
        let store = Arc::clone(&self.store);
        let flush = async move {
            let outcomes = settle::flush(store.as_ref(), written, &batch.decisions).await;
            (outcomes, batch)
        };
        ctx.spawn(flush.into_actor(self).map(|(outcomes, batch), act, ctx| {
            act.settled.insert(batch.number, (outcomes, batch));
            act.answer_in_order();
            act.work(ctx);
        }));
    }

    /// Nobody hears of a batch before those of an earlier one have: whoever came first is served first.
    fn answer_in_order(&mut self) {
        while let Some(entry) = self.settled.first_entry()
            && self.unsettled.first() == Some(entry.key())
        {
            let (number, (outcomes, batch)) = entry.remove_entry();
            self.unsettled.remove(&number);
            for row in &batch.rows {
                self.unsettled_rows.remove(row);
            }
            self.answer(outcomes, batch);
        }
    }

    fn answer(&mut self, outcomes: Vec<Result<(), CommitError>>, batch: TakenBatch) {
        self.snapshot.batches += 1;
        let took = batch.began.elapsed();
        self.meter.record(Measure::BatchCommitted { decisions: batch.decisions.len(), took });
        for (reply, outcome) in batch.replies.into_iter().zip(outcomes) {
            match &outcome {
                Ok(()) => self.snapshot.decisions += 1,
                Err(CommitError::Conflict(_)) => self.snapshot.conflicts += 1,
                Err(CommitError::Deposed) => (self.deposed)(),
            }
            // Whoever asked may be gone; the outcome stands in the store.
            let _ = reply.send(outcome);
        }
    }

    /// The decisions at the head of the line, up to the first read, the first row that would be there twice or is under
    /// way, or the bound; `None` where that is none.
    fn take_batch(&mut self) -> Option<TakenBatch> {
        let (mut decisions, mut replies) = (Vec::new(), Vec::new());
        let mut rows = BTreeSet::new();
        while decisions.len() < BATCH_DECISIONS_MAX {
            let Some(Request::Submit(submit)) = self.waiting.front() else { break };
            let keys: Vec<RowKey> = submit.decision.iter().filter_map(super::Change::row).collect();
            if keys.iter().any(|key| rows.contains(key) || self.unsettled_rows.contains(key)) {
                break;
            }
            rows.extend(keys);
            if let Some(Request::Submit(submit)) = self.waiting.pop_front() {
                decisions.push(submit.decision);
                replies.push(submit.reply);
            }
        }
        if decisions.is_empty() {
            return None;
        }
        let number = self.numbers.next();
        self.unsettled.insert(number);
        self.unsettled_rows.extend(rows.iter().cloned());
        Some(TakenBatch { number, decisions, replies, rows, began: Instant::now() })
    }

    fn read(&mut self, ctx: &mut Context<Self>) {
        let Some(request) = self.waiting.pop_front() else { return };
        let store = Arc::clone(&self.store);
        self.reading = true;
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
                Request::Submit(_) => {}
            }
        };
        ctx.spawn(read.into_actor(self).map(|(), act, ctx| {
            act.reading = false;
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
enqueue!(Submit, ReadSlot, ReadBot, ReadRecording);

impl Handler<ReserveBotIds> for JournalActor {
    type Result = ();

    fn handle(&mut self, ReserveBotIds { reply }: ReserveBotIds, ctx: &mut Self::Context) {
        let store = Arc::clone(&self.store);
        let reserve = async move {
            let _ = reply.send(read_known(|| store.reserve_bot_ids(BOT_ID_BLOCK)).await);
        };
        ctx.spawn(reserve.into_actor(self));
    }
}

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

#[cfg(test)]
#[path = "actor_test.rs"]
mod tests;
