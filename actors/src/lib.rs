//! The domain of Meeboter and its actors.
//!
//! **Who owns what.** The mailbox is the lock: every piece of mutable state has one owner, and only its owner changes
//! it. A live bot is in exactly one mailbox.
//!
//! | actor | owns | tells |
//! |---|---|---|
//! | [`pool::actor::PoolSupervisor`] | which slots there are, reservations, which mailbox each live bot is in; settings, drains, breakers, restart budgets | slots, the queue and the Scheduler: bots; the Scheduler: how long starts took; recordings: ended bots; pulls: images to make present ahead of need; the Reconciler: the hosts |
//! | [`slot::actor::SlotActor`], one a slot | the slot and the bot in it | the pool: every committed change; pulls: the image it waits for |
//! | [`schedule::actor::Scheduler`] | the bots whose start is ahead | the pool: hand-overs; recordings: ended bots |
//! | [`queue::actor::QueueActor`] | the bots that wait for a slot | slots: offers; the pool: who joined and left |
//! | [`image_pull::actor::ImagePullActor`] | pulls under way | whoever waits for them |
//! | [`recording::actor::RecordingActor`] | recordings of ended bots | nobody |
//! | [`recording::collector::SpoolCollector`] | nothing but whose spools have to wait | recordings: what it collected |
//! | [`reconcile::actor::Reconciler`] | nothing but its last listing | slots: what was seen; strays it removes by itself |
//! | [`scale::actor::Scaler`] | how much was in use lately | the pool: slots to make ahead of need, idle ones to delete |
//! | [`maintenance::actor::Maintainer`] | when maintenance was done last, and the run under way | the pool, pulls, the Reconciler and idle slots: what is to be done once a night |
//! | [`journal::actor::JournalActor`] | the one write connection | whoever submitted |
//!
//! Every shell does the same steps: decide (a pure function), commit (through the Journal), act, publish. The pure files
//! know no actix, no tokio, no clock and no randomness; rule 12 of `docs/ARCHITECTURE.md` lists them. What was published
//! last stands on a board that everybody may read ([`live`]). What the domain needs of the world is in [`ports`]; nothing
//! here knows SQL, HTTP or a container engine.

pub mod backoff;
pub mod bot;
pub mod ids;
pub mod image_pull;
pub mod journal;
pub mod lead;
pub mod live;
pub mod maintenance;
pub mod pool;
pub mod ports;
pub mod queue;
pub mod reconcile;
pub mod recording;
pub mod scale;
pub mod schedule;
pub mod slot;
pub mod supervision;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod tree;
mod trust;
