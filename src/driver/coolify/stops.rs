//! Stops: deployments cancelled, the container stopped, and its end seen.

use super::Engine;
use super::api::Request;
use super::budget::Priority;
use super::description::Shown;
use super::error::{ApiError, Thing};
use super::outcome::{Standing, read};
use super::registry::Known;
use super::status::{Deed, Reading};
use chrono::Utc;
use meeboter_actors::ids::{ContainerId, ContainerKey};
use meeboter_actors::ports::{DriverError, StopRequest};
use serde_json::Value;
use slog::{info, warn};
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};

/// What a stop may take beyond the container's grace.
const STOP_LIMIT: Duration = Duration::from_secs(55);
/// Looks in a row that have to find nothing: Coolify says so also where its SSH failed, and what a cancelled deployment was
/// about to start may come a moment later.
const LOOKS_GONE: u32 = 2;

impl Engine {
    pub(super) async fn stop(&self, request: StopRequest) -> Result<(), DriverError> {
        let key = request.key;
        let gate = self.gate(key.slot);
        gate.close(key.generation, request.operation);
        let stopped = async {
            // A start that is under way ends at its next step.
            let _turn = gate.turn.lock().await;
            let mut outcome = Ok(());
            for known in self.to_be_stopped(&request).await? {
                // Whatever becomes of one, the others are to end as well.
                outcome = outcome.and(self.end_for_good(&known, key).await);
            }
            outcome
        };
        let limit = request.grace + STOP_LIMIT;
        timeout(limit, stopped).await.unwrap_or_else(|_| {
            let message = format!("Coolify did not stop the container within {} s", limit.as_secs());
            Err(DriverError { message, answered: true, retryable: true })
        })
    }

    /// Ends what runs of an application that held a container, and leaves it as its next user wants it.
    async fn end_for_good(&self, known: &Known, key: ContainerKey) -> Result<(), DriverError> {
        let _turn = self.application_turn(&known.name, STOP_LIMIT).await?;
        if self.registry().get(&known.uuid).is_none_or(|now| now.key != Some(key)) {
            // It has become another container meanwhile.
            return Ok(());
        }
        let outcome = self.end(&known.uuid).await;
        if let Err(error) = &outcome {
            self.show(&known.uuid, Shown::Error(error.message.clone(), Utc::now()));
            return outcome;
        }
        info!(self.log, "container stopped"; "application" => &known.name, "generation" => key.generation.0);
        if known.is_for_one_bot() {
            // Known gone: that its application stays a while longer is no failure of the stop.
            self.delete(&known.uuid, self.claim(Priority::Start)).await.ok();
        } else {
            self.show(&known.uuid, Shown::Idle(Utc::now()));
        }
        Ok(())
    }

    /// The applications that hold a container; none: there is no such container, and never will be.
    async fn to_be_stopped(&self, request: &StopRequest) -> Result<Vec<Known>, ApiError> {
        let holders = self.holders(request.key, self.claim(Priority::Stop)).await?;
        // Another kind of engine has other names for containers.
        let is_uuid =
            |container: &&ContainerId| container.0.chars().all(|letter| letter.is_ascii_alphanumeric());
        let Some(container) = request.container.as_ref().filter(is_uuid).filter(|_| holders.is_empty())
        else {
            return Ok(holders);
        };
        // No listing has it, which may be the listings' fault.
        self.look_up(&container.0, self.claim(Priority::Stop)).await?;
        let mut registry = self.registry();
        if let Some(known) = registry.get_mut(&container.0).filter(|known| known.key.is_none()) {
            known.key = Some(request.key);
        }
        Ok(registry.by_key(request.key))
    }

    /// Ends whatever runs of an application, or is about to; `Ok`: known gone.
    pub(super) async fn end(&self, application: &str) -> Result<(), DriverError> {
        let deed = self.registry().get(application).map(|known| known.deed);
        if !matches!(deed, Some(Deed::Running(_))) {
            match self.cancel_all(application).await {
                Ok(()) => {}
                Err(error) if error.knows_no(Thing::Application) => return self.vanished(application),
                Err(error) => return Err(error.into()),
            }
        }
        let mut looks_left = LOOKS_GONE;
        let mut asked: Option<Instant> = None;
        loop {
            if asked.is_none_or(|asked| asked.elapsed() >= self.pace().stop_repeat) {
                if asked.is_some() {
                    warn!(self.log, "a stop shows no effect; it is asked for again"; "application" => application);
                }
                match self.ask_to_stop(application).await {
                    Ok(()) => asked = Some(Instant::now()),
                    Err(error) if error.knows_no(Thing::Application) => return self.vanished(application),
                    Err(error) => return Err(error.into()),
                }
            }
            sleep(self.pace().deployment_poll).await;
            match self.is_gone(application).await {
                Ok(true) => looks_left -= 1,
                Ok(false) => looks_left = LOOKS_GONE,
                // A look that failed says nothing.
                Err(error) if error.status().is_none_or(|status| status >= 429) => {}
                Err(error) => return Err(error.into()),
            }
            if looks_left == 0 {
                let now = Instant::now();
                if let Some(known) = self.registry().get_mut(application) {
                    known.did(Deed::Stopped(now), now);
                }
                return Ok(());
            }
        }
    }

    /// Its application was deleted, and Coolify removes the container with it.
    fn vanished(&self, application: &str) -> Result<(), DriverError> {
        self.registry().remove(application);
        Ok(())
    }

    async fn ask_to_stop(&self, application: &str) -> Result<(), ApiError> {
        let request = Request::stop(application);
        self.client.ask::<Value>(Priority::Stop, self.pace().patience, request).await.map(drop)
    }

    /// Status and engine have to agree: a status may be old, and a container that Docker is about to start again does not
    /// run at this moment either.
    async fn is_gone(&self, application: &str) -> Result<bool, ApiError> {
        let claim = self.claim(Priority::Stop);
        let (_, statuses) = self.statuses(Instant::now(), claim).await?;
        match statuses.get(application) {
            Some(Reading::Exited) | None => Ok(!self.answers(application, claim).await?),
            Some(_) => Ok(false),
        }
    }

    /// Cancels what is queued or under way of an application.
    async fn cancel_all(&self, application: &str) -> Result<(), ApiError> {
        let rows = self.deployments_of(application, Priority::Stop).await?;
        let active: Vec<String> = rows
            .into_iter()
            .filter(|row| read(&row.status) == Standing::UnderWay)
            .map(|row| row.deployment_uuid)
            .collect();
        self.cancel(&active).await
    }

    /// Cancels deployments; those that have ended are no error.
    pub(super) async fn cancel(&self, deployments: &[String]) -> Result<(), ApiError> {
        for deployment in deployments {
            let request = Request::cancel(deployment);
            match self.client.send::<Value>(Priority::Stop, self.pace().patience, request).await {
                Ok(_) => {}
                Err(error) if error.status() == Some(400) || error.knows_no(Thing::Deployment) => {}
                // Versions before 4.3.7 answer 500 though they cancelled; what came of it, its row says.
                Err(error) if error.may_have_acted() => {
                    let request = Request::deployment(deployment);
                    let row: super::api::DeploymentRow =
                        self.client.ask(Priority::Stop, self.pace().patience, request).await?;
                    if read(&row.status) == Standing::UnderWay {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
