//! Engines that run bots.

pub mod leading;
pub mod process;
