//! What tests and the simulation share: samples, and fakes that lie and fail. Never linked into the server.

pub mod sample;
