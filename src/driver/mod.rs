//! Engines that run bots.

pub mod leading;
pub mod metered;
pub mod process;
pub mod spools;
