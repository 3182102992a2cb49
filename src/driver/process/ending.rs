//! Ending a bot, and everything that came of it.

use super::kin::{bot_of, kin_of};
use super::pidfd::Held;
use super::procfs::{self, Identity};
use super::record::recorded;
use super::{Host, blocking, failed};
use crate::driver::folders::Folders;
use crate::driver::lock;
use meeboter_actors::ids::{ContainerId, ContainerKey};
use meeboter_actors::ports::{DriverError, StopRequest};
use rustix::process::Signal;
use slog::{debug, info, warn};
use std::time::Duration;
use tokio::time::Instant;

/// How long killed processes may take to vanish.
const KILL_DEADLINE: Duration = Duration::from_secs(20);
/// Time between two listings.
const LIST_INTERVAL: Duration = Duration::from_millis(25);
/// Listings in a row that must be empty: a process shows no environment while it becomes another program.
const EMPTY_LISTINGS: u32 = 2;

impl Host {
    pub(super) async fn stop(&self, request: StopRequest) -> Result<(), DriverError> {
        let StopRequest { host: _, key, container, operation: _, grace } = request;
        let _turn = self.turn(key.slot).await?;
        let fenced = self.fence(key).await;
        let known = container.and_then(|ContainerId(id)| id.parse().ok());
        self.ask_to_end(key, known, grace).await?;
        self.end_kin(key, known).await?;
        lock(&self.endings).remove(&key);
        info!(self.log, "bot stopped"; "slot_id" => %key.slot, "generation" => key.generation.0);
        self.prune().await;
        // A disk that is full keeps no bot running: it is fenced once it is gone, where what went made room. Nothing starts
        // meanwhile, for the turn is held.
        if fenced.is_err() { self.fence(key).await } else { Ok(()) }
    }

    async fn fence(&self, key: ContainerKey) -> Result<(), DriverError> {
        let folders = self.folders.clone();
        blocking("fence the generation", move || folders.raise_fence(key)).await
    }

    /// Lets the bot itself leave, finish its uploads and exit.
    async fn ask_to_end(
        &self,
        key: ContainerKey,
        known: Option<Identity>,
        grace: Duration,
    ) -> Result<(), DriverError> {
        let (folders, marker) = (self.folders.clone(), self.marker(key));
        let bot = blocking("look for the bot", move || {
            let (recorded, all) = (recorded(&folders.of(key))?, procfs::scan()?);
            let known = all.iter().find(|process| Some(process.identity) == known);
            let known =
                known.filter(|process| process.marker == Some(marker)).map(|process| process.identity);
            Ok(bot_of(marker, recorded, &all).or(known))
        })
        .await?;
        let Some(bot) = bot else { return Ok(()) };
        let held = Held::take(bot).map_err(|error| failed("take hold of the bot", &error))?;
        let Some(held) = held else { return Ok(()) };
        held.signal(Signal::TERM).map_err(|error| failed("signal the bot", &error))?;
        match tokio::time::timeout(grace, held.gone()).await {
            Ok(gone) => gone.map_err(|error| failed("watch the bot", &error)),
            Err(_) => {
                warn!(self.log, "bot does not end by itself and is killed"; "slot_id" => %key.slot,
                    "generation" => key.generation.0, "grace_ms" => grace.as_millis());
                Ok(())
            }
        }
    }

    /// Kills whatever is left of a generation, until nothing is.
    pub(super) async fn end_kin(
        &self,
        key: ContainerKey,
        known: Option<Identity>,
    ) -> Result<(), DriverError> {
        let deadline = Instant::now() + KILL_DEADLINE;
        let mut empty = 0;
        loop {
            let left = self.kill_kin(key, known).await?;
            empty = if left.is_empty() { empty + 1 } else { 0 };
            if empty >= EMPTY_LISTINGS {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let pids: Vec<String> = left.iter().map(ToString::to_string).collect();
                let message = format!("processes {} do not end", pids.join(", "));
                return Err(DriverError { message, answered: true, retryable: true });
            }
            tokio::time::sleep(LIST_INTERVAL).await;
        }
    }

    /// Kills what is there now, and says what that was.
    async fn kill_kin(
        &self,
        key: ContainerKey,
        known: Option<Identity>,
    ) -> Result<Vec<Identity>, DriverError> {
        let (folders, marker, log) = (self.folders.clone(), self.marker(key), self.log.clone());
        blocking("list the bot's processes", move || {
            let own = procfs::own()?;
            let recorded = recorded(&folders.of(key))?;
            let all = procfs::scan()?;
            // An id that was handed over may be of an earlier boot: it counts where the marker confirms it.
            let confirmed = || {
                let known = all.iter().find(|process| Some(process.identity) == known)?;
                (known.marker == Some(marker)).then_some(known.identity)
            };
            let kin = kin_of(marker, recorded.or_else(confirmed), own, &all);
            for process in &kin {
                let killed = match Held::take(*process) {
                    Ok(Some(held)) => held.signal(Signal::KILL),
                    Ok(None) => Ok(()),
                    Err(error) => Err(error),
                };
                if let Err(error) = killed {
                    debug!(log, "a process was not killed"; "process" => %process, "error" => %error);
                }
            }
            Ok(kin)
        })
        .await
    }

    async fn prune(&self) {
        let (folders, kept): (Folders, usize) = (self.folders.clone(), self.settings.folders_kept);
        if let Err(error) = blocking("remove old folders", move || folders.prune(kept)).await {
            warn!(self.log, "old folders of bots stay"; "error" => %error);
        }
    }
}
