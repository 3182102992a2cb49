//! The look at Coolify when a server starts: a token, project, environment, server or destination that is wrong is named,
//! with where to find the right one. It changes nothing, but for the server's limits where that is wished.

use super::api::{DestinationRow, Request, Rows, ServerRow, ServerSettings};
use super::budget::Priority;
use super::error::ApiError;
use super::{CoolifyDriver, Engine, lock};
use serde_json::{Map, Value, json};
use slog::{info, warn};
use thiserror::Error;

/// The uuid of nothing: what is asked about it changes nothing.
const NOTHING: &str = "meeboterprobe00000000000";
/// What Coolify does at a time where it does not say.
const BUILDS_USUAL: usize = 2;
/// What it lets wait where it does not say.
const QUEUE_USUAL: usize = 25;

/// What is wrong with the way to Coolify.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProbeError {
    /// The token is none of Coolify's.
    #[error(
        "Coolify does not know the token (coolify.token, COOLIFY_API_TOKEN): make one under Keys & Tokens → API \
        tokens, in the team that owns the project"
    )]
    Token,
    /// The API may not be used.
    #[error(
        "Coolify refuses its API ({words}): switch it on, and allow this server's address, under Settings → Advanced"
    )]
    Api {
        /// What Coolify said.
        words: String,
    },
    /// The token may not do what is needed.
    #[error(
        "the token (coolify.token, COOLIFY_API_TOKEN) may not {ability}: make one with the permissions read, write and \
        deploy under Keys & Tokens → API tokens"
    )]
    Ability {
        /// What it may not.
        ability: &'static str,
    },
    /// There is no such project.
    #[error(
        "Coolify has no project {project:?} (coolify.project_uuid, COOLIFY_PROJECT_UUID): its UUID is in the address of \
        the project's page, after /project/"
    )]
    Project {
        /// What was asked for.
        project: String,
    },
    /// The project has no such environment.
    #[error(
        "the project has no environment {name:?} (coolify.environment_name, COOLIFY_ENVIRONMENT_NAME): the project's \
        page lists their names"
    )]
    Environment {
        /// What was asked for.
        name: String,
    },
    /// There is no such server.
    #[error(
        "Coolify has no server {server:?} (coolify.server_uuid, COOLIFY_SERVER_UUID): its UUID is in the address of the \
        server's page, after /server/"
    )]
    Server {
        /// What was asked for.
        server: String,
    },
    /// The destination is not one of the server's, or one has to be chosen.
    #[error(
        "the server has no destination {wanted:?} (coolify.destination_uuid, COOLIFY_DESTINATION_UUID): it has {found}; \
        the server's page lists them under Destinations"
    )]
    Destination {
        /// What was asked for; "" nothing.
        wanted: String,
        /// Those that there are.
        found: String,
    },
    /// It cannot be asked at present.
    #[error("{0}")]
    Away(String),
}

impl ProbeError {
    /// Whether it may be another thing a moment later, with the same settings.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Away(_))
    }
}

/// What is wished of the server's limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WishedLimits {
    /// Deployments at a time; 0: as the server has it.
    pub concurrent_builds: usize,
    /// Deployments that may wait there; 0: as the server has it.
    pub queue_limit: usize,
    /// Whether the server's own are raised to these.
    pub raise: bool,
}

impl CoolifyDriver {
    /// Asks Coolify for everything that the settings name, and how much it does at a time.
    pub async fn probe(&self, wished: WishedLimits) -> Result<(), ProbeError> {
        self.engine.probe(wished).await
    }
}

impl Engine {
    async fn probe(&self, wished: WishedLimits) -> Result<(), ProbeError> {
        let (project, server) = (&self.place.project, &self.place.server);
        let version = self.client.exchange(Priority::Start, self.pace().patience, Request::version()).await;
        let version = version.map_err(|error| denied(error, "read"))?;
        self.look(Request::project(project), ProbeError::Project { project: project.clone() }).await?;
        let name = self.place.environment.clone();
        self.look(Request::environment(project, &name), ProbeError::Environment { name }).await?;
        let missing = ProbeError::Server { server: server.clone() };
        let found = self.look(Request::server(server), missing).await?;
        let settings = serde_json::from_value::<ServerRow>(found).map(|row| row.settings).unwrap_or_default();
        self.probe_destination().await?;
        self.probe_abilities().await?;
        if settings.is_reachable == Some(false) || settings.is_usable == Some(false) {
            warn!(self.log, "Coolify cannot use its server at present"; "server" => server);
        }
        let (builds, queue) = self.settle_limits(settings, wished).await;
        let at_once = at_once(builds, queue);
        lock(&self.line).widen(at_once);
        info!(self.log, "Coolify is there"; "version" => String::from_utf8_lossy(&version).into_owned(),
            "concurrent_builds" => builds, "queue_limit" => queue, "deployments_at_once" => at_once);
        Ok(())
    }

    /// Asks for something that has to be there.
    async fn look(&self, request: Request, missing: ProbeError) -> Result<Value, ProbeError> {
        match self.client.ask(Priority::Start, self.pace().patience, request).await {
            Ok(found) => Ok(found),
            Err(error) if matches!(error.status(), Some(400 | 404 | 422)) => Err(missing),
            Err(error) => Err(denied(error, "read")),
        }
    }

    async fn probe_destination(&self) -> Result<(), ProbeError> {
        let request = Request::destinations(&self.place.server);
        let rows: Rows<DestinationRow> =
            match self.client.ask(Priority::Start, self.pace().patience, request).await {
                Ok(rows) => rows,
                // Older versions do not list them; the first creation says what is wrong.
                Err(error) if error.status() == Some(404) => return Ok(()),
                Err(error) => return Err(denied(error, "read")),
            };
        let wanted = &self.place.destination;
        let found: Vec<&str> = rows.0.iter().map(|row| row.uuid.as_str()).collect();
        let is_clear = if wanted.is_empty() { found.len() == 1 } else { found.contains(&wanted.as_str()) };
        if is_clear {
            return Ok(());
        }
        let found = if found.is_empty() { "none".to_owned() } else { found.join(", ") };
        Err(ProbeError::Destination { wanted: wanted.clone(), found })
    }

    /// Asks for changes of nothing: whether a token may change is looked at before what.
    async fn probe_abilities(&self) -> Result<(), ProbeError> {
        let change = Request::change(NOTHING, Map::from_iter([("name".to_owned(), json!(NOTHING))]));
        for (request, ability) in [(change, "write"), (Request::deploy(NOTHING), "deploy")] {
            match self.client.ask::<Value>(Priority::Start, self.pace().patience, request).await {
                Ok(_) => {}
                Err(error) if matches!(error.status(), Some(400 | 404 | 422)) => {}
                Err(error) => return Err(denied(error, ability)),
            }
        }
        Ok(())
    }

    /// How much the server does at a time and lets wait, raised where that is wished.
    async fn settle_limits(&self, settings: ServerSettings, wished: WishedLimits) -> (usize, usize) {
        let builds = settings.concurrent_builds.unwrap_or(BUILDS_USUAL);
        let queue = settings.deployment_queue_limit.unwrap_or(QUEUE_USUAL);
        let (more_builds, more_queue) = (wished.concurrent_builds.max(builds), wished.queue_limit.max(queue));
        if wished.raise && (more_builds, more_queue) != (builds, queue) {
            let request = Request::raise_limits(&self.place.server, more_builds, more_queue);
            match self.client.ask::<Value>(Priority::Start, self.pace().patience, request).await {
                Ok(_) => {
                    info!(self.log, "the limits of Coolify's server are raised";
                        "concurrent_builds" => more_builds, "queue_limit" => more_queue);
                    return (more_builds, more_queue);
                }
                Err(error) => {
                    warn!(self.log, "the limits of Coolify's server could not be raised"; "error" => %error);
                }
            }
        }
        let lowered = |own: usize, wished: usize| if wished == 0 { own } else { own.min(wished) };
        (lowered(builds, wished.concurrent_builds), lowered(queue, wished.queue_limit))
    }
}

/// Deployments that are given to a server at a time: what it does at once, and one that waits, so that it never idles;
/// others use its queue too.
fn at_once(builds: usize, queue: usize) -> usize {
    builds + queue.min(1)
}

fn denied(error: ApiError, ability: &'static str) -> ProbeError {
    match &error {
        ApiError::Refused { status: 401, .. } => ProbeError::Token,
        ApiError::Refused { status: 403, words, .. }
            if words.contains("permission") || words.contains("role") =>
        {
            ProbeError::Ability { ability }
        }
        ApiError::Refused { status: 403, words, .. } => ProbeError::Api { words: words.clone() },
        _ => ProbeError::Away(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_what_is_wrong() {
        let refused = |status, words: &str| {
            let (request, words) = ("GET /version".to_owned(), words.to_owned());
            denied(ApiError::Refused { request, status, words, retry_after: None }, "deploy")
        };
        assert_eq!(refused(401, "Unauthenticated."), ProbeError::Token);
        let ability = ProbeError::Ability { ability: "deploy" };
        assert_eq!(refused(403, "Missing required permissions: deploy"), ability);
        assert_eq!(refused(403, "Missing required team role."), ability);
        assert!(matches!(refused(403, "API is disabled."), ProbeError::Api { .. }));
        assert!(refused(500, "Server Error").is_passing());
    }

    #[test]
    fn coolify_always_has_one_waiting_and_never_more_than_fit() {
        assert_eq!((at_once(2, 25), at_once(2, 0), at_once(4, 1)), (3, 2, 5));
    }
}
