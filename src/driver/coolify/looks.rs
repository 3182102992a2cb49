//! Looks: what runs, whether one container does, when one ends, what it printed. Nothing here starts or stops anything.

use super::api::{Logs, Request, ResourceRow, Rows};
use super::budget::Priority;
use super::client::Claim;
use super::description::key_of;
use super::error::{ApiError, Thing};
use super::registry::Known;
use super::status::{Deed, Reading, Verdict, read, weigh};
use super::{Engine, lock};
use chrono::{DateTime, Utc};
use meeboter_actors::ids::{ContainerId, ContainerKey};
use meeboter_actors::ports::{DriverError, ListedContainer, Presence};
use slog::warn;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a look says of an application.
enum Seen {
    /// It runs.
    There,
    /// It does not.
    Gone,
    /// One answer says that it does not: Coolify gives that also where its SSH failed.
    Denied,
}

/// Why a container no longer runs as the bot that it was.
struct End {
    note: &'static str,
    /// Not only by one answer that it does not run: Coolify gives that also where its SSH failed.
    is_certain: bool,
}

/// Docker starts again what exits.
const RESTARTED: &str = "its program ended, and Docker started it anew: the bot is lost";

impl Engine {
    /// Every application of this installation that runs, as far as anybody can know.
    pub(super) async fn list(&self) -> Result<Vec<ListedContainer>, DriverError> {
        let claim = self.look_claim();
        self.list_applications(claim).await?;
        if let Ok(mut loaded) = self.loaded.try_lock() {
            *loaded = true;
        }
        self.forget_gates();
        let known: Vec<Known> = self.registry().all().cloned().collect();
        let (mut listed, mut denied) = (BTreeMap::new(), Vec::new());
        for known in known {
            let Some(key) = known.key.filter(|key| !listed.contains_key(key)) else { continue };
            if known.is_left_over() {
                self.delete_left_over(&known, claim).await;
                continue;
            }
            // A deployment under way is the affair of whoever started it.
            if self.is_seen_through(&known) {
                continue;
            }
            let (reading, began) = known.reading;
            match self.see(&known, Some(reading), began, claim).await? {
                Seen::There => drop(listed.insert(key, known)),
                Seen::Gone => {}
                Seen::Denied => denied.push(known),
            }
        }
        // A clone of what runs is of no interest.
        denied.retain(|known| known.key.is_some_and(|key| !listed.contains_key(&key)));
        let there = self.there_after_all(denied, claim).await?;
        listed.extend(there.into_iter().filter_map(|known| Some((known.key?, known))));
        let running = |(key, known): (ContainerKey, Known)| ListedContainer {
            key,
            container: ContainerId(known.uuid),
            presence: Presence::Running,
        };
        Ok(listed.into_iter().map(running).collect())
    }

    /// Whether this server still sees a deployment of the application to its end. One that was given up, as Coolify called
    /// it failed, may have brought its container up all the same.
    fn is_seen_through(&self, known: &Known) -> bool {
        let gate = known.key.and_then(|key| lock(&self.gates).get(&key.slot).map(Arc::clone));
        known.deed == Deed::Deploying && gate.is_some_and(|gate| gate.is_in_use())
    }

    /// What to make of an application's status. A deployment that this server still sees to its end counts as running: a
    /// bot may claim its slot before, and until then what Coolify says is about the container that was there before.
    fn verdict(&self, known: &Known, reading: Option<Reading>, read_at: Instant) -> Verdict {
        if self.is_seen_through(known) {
            return Verdict::Running;
        }
        // What is not listed may be on another server: that it is gone is not said.
        reading.map_or(Verdict::Ask, |reading| weigh(known.deed, reading, read_at, self.pace().status_lag))
    }

    /// Looks whether an application runs; the container itself is asked for where its status is not enough.
    async fn see(
        &self,
        known: &Known,
        reading: Option<Reading>,
        read_at: Instant,
        claim: Claim,
    ) -> Result<Seen, ApiError> {
        Ok(match self.verdict(known, reading, read_at) {
            // Another program in the place of the bot's is still one that has to be stopped.
            Verdict::Running | Verdict::Restarted | Verdict::Doubted => Seen::There,
            Verdict::Gone => Seen::Gone,
            Verdict::Ask if self.answers(&known.uuid, claim).await? => Seen::There,
            Verdict::Ask => Seen::Denied,
        })
    }

    /// Asks a second time for what was said not to run; answers with what does.
    async fn there_after_all(&self, denied: Vec<Known>, claim: Claim) -> Result<Vec<Known>, ApiError> {
        let mut there = Vec::new();
        if !denied.is_empty() {
            tokio::time::sleep(self.pace().deployment_poll).await;
        }
        for known in denied {
            if self.answers(&known.uuid, claim).await? {
                there.push(known);
            }
        }
        Ok(there)
    }

    /// Whether a container of an application runs at this moment: its log is read from the engine itself, while every
    /// status is an old one.
    pub(super) async fn answers(&self, application: &str, claim: Claim) -> Result<bool, ApiError> {
        let request = Request::logs(application, 1);
        match self.client.ask::<Logs>(claim.priority, claim.patience(), request).await {
            Ok(_) => Ok(true),
            Err(error) if error.says_not_running() || error.knows_no(Thing::Application) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The statuses of everything on the server, from one request for whoever asks.
    pub(super) async fn statuses(
        &self,
        since: Instant,
        claim: Claim,
    ) -> Result<(Instant, Arc<HashMap<String, Reading>>), ApiError> {
        let request = Request::resources(&self.settings.server);
        let look = async {
            let rows: Rows<ResourceRow> = self.client.ask(claim.priority, claim.patience(), request).await?;
            Ok(rows.0.into_iter().map(|row| (row.uuid, read(&row.status))).collect())
        };
        let shared = if claim.priority == Priority::Stop { &self.urgent_resources } else { &self.resources };
        shared.since(since, look).await
    }

    pub(super) async fn inspect(&self, key: ContainerKey) -> Result<Presence, DriverError> {
        let claim = self.look_claim();
        let holders = self.holders(key, claim).await?;
        if holders.is_empty() {
            return Ok(Presence::Gone);
        }
        let (began, statuses) = self.statuses(Instant::now(), claim).await?;
        let mut denied = Vec::new();
        for known in holders {
            match self.see(&known, statuses.get(&known.uuid).copied(), began, claim).await? {
                Seen::There => return Ok(Presence::Running),
                Seen::Gone => {}
                Seen::Denied => denied.push(known),
            }
        }
        let there = self.there_after_all(denied, claim).await?;
        Ok(if there.is_empty() { Presence::Gone } else { Presence::Running })
    }

    /// Comes back when a container is gone, or when its program was started a second time: then the bot is lost.
    pub(super) async fn wait_exit(&self, key: ContainerKey) -> Result<String, DriverError> {
        let poll = self.pace().status_poll;
        let mut was_denied = false;
        loop {
            let claim = self.look_claim();
            let holders = self.holders(key, claim).await?;
            if holders.is_empty() {
                return Ok("Coolify has no application of this container any more".to_owned());
            }
            let since = Instant::now().checked_sub(poll).unwrap_or_else(Instant::now);
            let (began, statuses) = self.statuses(since, claim).await?;
            let mut ends: Vec<End> = Vec::new();
            for known in &holders {
                match self.end_of(known, statuses.get(&known.uuid).copied(), began, claim).await? {
                    // One that runs is enough.
                    None => break,
                    Some(end) => ends.push(end),
                }
            }
            let has_ended = ends.len() == holders.len();
            if has_ended && (was_denied || ends.iter().all(|end| end.is_certain)) {
                return Ok(ends.swap_remove(0).note.to_owned());
            }
            was_denied = has_ended;
            tokio::time::sleep(poll).await;
        }
    }

    /// Why a container no longer runs as the bot that it was; `None`: it does.
    async fn end_of(
        &self,
        known: &Known,
        reading: Option<Reading>,
        read_at: Instant,
        claim: Claim,
    ) -> Result<Option<End>, ApiError> {
        let (note, is_certain) = match self.verdict(known, reading, read_at) {
            _ if known.was_restarted() => (RESTARTED, true),
            Verdict::Restarted => (RESTARTED, true),
            Verdict::Gone => ("its container is gone from Coolify's server", true),
            Verdict::Running => return Ok(None),
            Verdict::Ask | Verdict::Doubted if self.answers(&known.uuid, claim).await? => {
                return Ok(None);
            }
            Verdict::Doubted => (RESTARTED, false),
            Verdict::Ask => ("its container no longer runs on Coolify's server", false),
        };
        Ok(Some(End { note, is_certain }))
    }

    pub(super) async fn logs(&self, key: ContainerKey, lines: u32) -> Result<Vec<String>, DriverError> {
        let claim = self.look_claim();
        self.load(claim).await?;
        let holders = self.registry().by_key(key);
        for known in holders {
            let request = Request::logs(&known.uuid, lines);
            match self.client.ask::<Logs>(claim.priority, claim.patience(), request).await {
                Ok(Logs { logs }) => {
                    let all: Vec<_> = logs.lines().map(str::to_owned).collect();
                    let latest = all.len().saturating_sub(usize::try_from(lines).unwrap_or(usize::MAX));
                    return Ok(all[latest..].to_vec());
                }
                // It does not run, and what it printed went with it.
                Err(error) if error.says_not_running() || error.knows_no(Thing::Application) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Vec::new())
    }

    /// Deletes applications that do not run, that no slot holds, and that nobody has touched since then.
    pub(super) async fn sweep(
        &self,
        wanted: &BTreeSet<ContainerKey>,
        before: DateTime<Utc>,
    ) -> Result<u32, DriverError> {
        // Not from memory: what is deleted has to be seen as it is now.
        let rows = self.list_applications(self.look_claim()).await?;
        let mut deleted = 0;
        for row in rows {
            let is_old = row.updated_at.parse::<DateTime<Utc>>().is_ok_and(|updated_at| updated_at < before);
            let is_wanted = key_of(&row.description).is_some_and(|key| wanted.contains(&key));
            let Some(known) = self.registry().get(&row.uuid).cloned() else { continue };
            let is_held = known.key.is_some_and(|key| wanted.contains(&key));
            if !is_old || is_wanted || is_held || matches!(known.deed, Deed::Deploying | Deed::Running(_)) {
                continue;
            }
            if read(&row.status) != Reading::Exited || self.answers(&row.uuid, self.look_claim()).await? {
                continue;
            }
            let gate = known.key.map(|key| self.gate(key.slot));
            let turn = gate.as_ref().map(|gate| gate.turn.try_lock());
            let application_turn = self.application_turn(&known.name, Duration::ZERO).await;
            // Somebody is at it: it is wanted after all.
            if matches!(turn, Some(Err(_)))
                || application_turn.is_err()
                || self.registry().get(&row.uuid).is_none_or(|now| now.deed != known.deed)
            {
                continue;
            }
            self.delete(&row.uuid, self.look_claim()).await?;
            deleted += 1;
        }
        Ok(deleted)
    }

    /// Deletes what is left of a bot of its own; what does not succeed now does at the next listing.
    async fn delete_left_over(&self, known: &Known, claim: Claim) {
        let turn = self.application_turn(&known.name, Duration::ZERO).await;
        let is_left_over = self.registry().get(&known.uuid).is_some_and(Known::is_left_over);
        if turn.is_ok() && is_left_over {
            self.delete(&known.uuid, claim).await.ok();
        }
    }

    /// Deletes an application that does not run; one that is deleted already is no error.
    pub(super) async fn delete(&self, application: &str, claim: Claim) -> Result<(), ApiError> {
        let request = Request::delete(application);
        match self.client.ask::<serde_json::Value>(claim.priority, claim.patience(), request).await {
            Ok(_) => {}
            Err(error) if error.knows_no(Thing::Application) => {}
            Err(error) => {
                warn!(self.log, "an application could not be deleted; it is tried again";
                    "application" => application, "error" => %error);
                return Err(error);
            }
        }
        self.registry().remove(application);
        Ok(())
    }

    /// Forgets the gates of slots that have no application any more and that nobody is at.
    fn forget_gates(&self) {
        let registry = self.registry();
        lock(&self.gates).retain(|slot, gate| Arc::strong_count(gate) > 1 || registry.has_slot(*slot));
    }
}
