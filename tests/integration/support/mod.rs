//! What the tests share.

pub(crate) mod browser;
pub(crate) mod chance;
pub(crate) mod client;
pub(crate) mod dockerd;
pub(crate) mod frozen;
pub(crate) mod history;
pub(crate) mod media;
pub(crate) mod postgres;
pub(crate) mod proxy;
pub(crate) mod registry;
pub(crate) mod scripted_bot;
pub(crate) mod server;
pub(crate) mod watcher;
