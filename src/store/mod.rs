//! PostgreSQL: the rows, the lead, and the embedded server.
//!
//! Two ways in. [`journal::JournalConnection`] is the one writer of bots, slots, queue, recordings, events and
//! idempotency keys: one direct connection that holds the lead. [`pool::Pool`] is for everything else: what HTTP reads,
//! the rows that no actor owns (users, API keys), and those of ended bots as retention looks at them. Where there is no PostgreSQL to connect to,
//! [`embedded::Embedded`] runs a private one in the data folder, which [`data_dir::DataDir`] holds for this process.

mod archive;
mod batch;
pub mod data_dir;
pub mod database;
pub mod embedded;
mod flusher;
pub mod journal;
pub mod lead;
mod link;
mod migrate;
pub mod pool;
pub mod queries;
pub mod restored;
pub mod rows;
mod slot_row;
pub mod users;
pub mod validity;
