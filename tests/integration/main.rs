//! Tests against the real world: PostgreSQL, processes, an S3 server, ffmpeg. One binary, its tests in parallel.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod admin;
mod artifacts;
mod bad_days;
mod connections;
mod coolify;
mod dashboard;
mod docker;
mod door;
mod driver;
mod life;
mod metrics;
mod schedule;
mod settings;
mod shipping;
mod store;
mod support;
mod torture;
mod upkeep;
mod websocket;
