//! What tests and the simulation share: samples, fakes that lie and fail, and the simulation of the whole tree.
//! Never linked into the server.
//!
//! The simulation runs the real actors on a paused clock, in one thread, against a fake store, a fake engine whose
//! containers run scripted bots, and scripted clients. The server crashes at chosen boundaries (before and after
//! every commit and every effect) and is started again from what the store holds. Everything is drawn from one seed.

pub mod archive;
pub mod client;
pub mod coverage;
pub mod disaster;
pub mod dispatcher;
pub mod edges;
pub mod engine;
pub mod invariants;
pub mod liveness;
pub mod operator;
pub mod process;
pub mod program;
pub mod sample;
pub mod scenario;
pub mod server;
pub mod simulation;
pub mod store;
pub mod stub;
pub mod world;
