//! Engines that run bots.
