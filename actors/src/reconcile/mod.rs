//! Compares what should run with what an engine says runs. The comparison is in [`plan`].

pub mod actor;
pub mod plan;
