//! Engines that run bots.

pub mod coolify;
pub mod docker;
mod folders;
pub mod metered;
pub mod process;
pub mod spools;
mod tasks;
