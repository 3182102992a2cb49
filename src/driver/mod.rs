//! Engines that run bots.

pub mod process;
