//! Engines that run bots.

pub mod metered;
pub mod process;
pub mod spools;
