//! The moments at which an engine says that containers run, as anybody who watches it hears them.

use crate::dockerd::Dockerd;
use anyhow::{Context, Result, bail};
use bollard::query_parameters::EventsOptions;
use bollard::{API_DEFAULT_VERSION, Docker};
use futures_util::StreamExt;
use std::collections::HashMap;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// How long a start may take at all.
const LIMIT: Duration = Duration::from_secs(120);

/// A client of an engine, in a version of the API that it speaks.
pub(crate) async fn client(dockerd: &Dockerd) -> Result<Docker> {
    let client = Docker::connect_with_unix(&dockerd.host(), LIMIT.as_secs(), API_DEFAULT_VERSION)?;
    client.negotiate_version().await.context("the engine does not answer")
}

/// Hears of every container that begins to run.
pub(crate) struct Starts(mpsc::UnboundedReceiver<Instant>);

impl Starts {
    /// Listens to an engine from now on.
    pub(crate) async fn of(client: &Docker) -> Result<Self> {
        let filters = [("type", "container"), ("event", "start")];
        let filters: HashMap<String, Vec<String>> =
            filters.map(|(name, value)| (name.to_owned(), vec![value.to_owned()])).into();
        let mut events =
            client.events(Some(EventsOptions { filters: Some(filters), ..EventsOptions::default() }));
        let (sender, heard) = mpsc::unbounded_channel();
        actix_web::rt::spawn({
            let client = client.clone();
            async move {
                let _client = client;
                while let Some(Ok(_)) = events.next().await {
                    if sender.send(Instant::now()).is_err() {
                        return;
                    }
                }
            }
        });
        Ok(Self(heard))
    }

    /// Forgets what was heard before.
    pub(crate) fn clear(&mut self) {
        while self.0.try_recv().is_ok() {}
    }

    /// How long after a moment so many containers had begun to run.
    pub(crate) async fn after(&mut self, begun: Instant, count: u32) -> Result<Duration> {
        let mut last = begun;
        for number in 1..=count {
            last = match tokio::time::timeout(LIMIT, self.0.recv()).await {
                Ok(Some(heard)) => heard,
                Ok(None) => bail!("the engine tells no more"),
                Err(_) => bail!("only {} of {count} containers were started", number - 1),
            };
        }
        Ok(last - begun)
    }
}
