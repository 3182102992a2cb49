//! The Meeboter server: speaks to the world (HTTP, websockets, PostgreSQL, engines, S3) and hands everything that has
//! to be decided to the actors of `meeboter_actors`.

pub mod app;
pub mod artifacts;
pub mod auth;
pub mod backup;
pub mod cli;
pub mod client;
pub mod config;
pub mod coolify_emulator;
pub mod demo;
pub mod disks;
pub mod driver;
pub mod http;
pub mod metrics;
pub mod store;
mod table;
pub mod telemetry;
