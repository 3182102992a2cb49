//! The requests that are sent to Coolify and the answers that are read, as data. Answers are read leniently: a field that
//! is missing or new is no reason to lose a bot.

use awc::http::Method;
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// A request before it is sent.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Request {
    pub(super) method: Method,
    /// Below `/api/v1`.
    pub(super) path: String,
    pub(super) query: Vec<(&'static str, String)>,
    pub(super) body: Option<Value>,
}

impl Request {
    fn new(method: Method, path: String) -> Self {
        Self { method, path, query: Vec::new(), body: None }
    }

    fn get(path: String) -> Self {
        Self::new(Method::GET, path)
    }

    fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.query.push((name, value.to_string()));
        self
    }

    fn carrying(mut self, body: Value) -> Self {
        self.body = Some(body);
        self
    }

    /// Method and path, for people.
    pub(super) fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    pub(super) fn version() -> Self {
        Self::get("/version".to_owned())
    }

    pub(super) fn project(project: &str) -> Self {
        Self::get(format!("/projects/{project}"))
    }

    pub(super) fn environment(project: &str, name: &str) -> Self {
        Self::get(format!("/projects/{project}/{name}"))
    }

    pub(super) fn server(server: &str) -> Self {
        Self::get(format!("/servers/{server}"))
    }

    pub(super) fn destinations(server: &str) -> Self {
        Self::get(format!("/servers/{server}/destinations"))
    }

    /// Changes the server's limits.
    pub(super) fn raise_limits(server: &str, concurrent_builds: usize, queue_limit: usize) -> Self {
        let body = json!({ "concurrent_builds": concurrent_builds, "deployment_queue_limit": queue_limit });
        Self::new(Method::PATCH, format!("/servers/{server}")).carrying(body)
    }

    /// The states of everything on the server.
    pub(super) fn resources(server: &str) -> Self {
        Self::get(format!("/servers/{server}/resources"))
    }

    /// The applications of an installation.
    pub(super) fn applications(tag: &str) -> Self {
        Self::get("/applications".to_owned()).with("tag", tag)
    }

    pub(super) fn application(application: &str) -> Self {
        Self::get(format!("/applications/{application}"))
    }

    pub(super) fn create(body: Map<String, Value>) -> Self {
        Self::new(Method::POST, "/applications/dockerimage".to_owned()).carrying(Value::Object(body))
    }

    pub(super) fn change(application: &str, body: Map<String, Value>) -> Self {
        Self::new(Method::PATCH, format!("/applications/{application}")).carrying(Value::Object(body))
    }

    /// Sets variables; those that are not named stay.
    pub(super) fn set_environment(application: &str, variables: Vec<Value>) -> Self {
        Self::new(Method::PATCH, format!("/applications/{application}/envs/bulk"))
            .carrying(json!({ "data": variables }))
    }

    pub(super) fn environment_of(application: &str) -> Self {
        Self::get(format!("/applications/{application}/envs"))
    }

    pub(super) fn forget_variable(application: &str, variable: &str) -> Self {
        Self::new(Method::DELETE, format!("/applications/{application}/envs/{variable}"))
    }

    pub(super) fn deploy(application: &str) -> Self {
        Self::new(Method::POST, "/deploy".to_owned()).with("uuid", application)
    }

    pub(super) fn active_deployments() -> Self {
        Self::get("/deployments".to_owned())
    }

    pub(super) fn deployment(deployment: &str) -> Self {
        Self::get(format!("/deployments/{deployment}"))
    }

    pub(super) fn deployments_of(application: &str) -> Self {
        Self::get(format!("/deployments/applications/{application}")).with("skip", 0).with("take", 10)
    }

    pub(super) fn cancel(deployment: &str) -> Self {
        Self::new(Method::POST, format!("/deployments/{deployment}/cancel"))
    }

    /// Stops, and leaves the server's images alone.
    pub(super) fn stop(application: &str) -> Self {
        Self::new(Method::POST, format!("/applications/{application}/stop")).with("docker_cleanup", false)
    }

    /// Deletes, and leaves the server's images alone.
    pub(super) fn delete(application: &str) -> Self {
        Self::new(Method::DELETE, format!("/applications/{application}")).with("docker_cleanup", false)
    }

    pub(super) fn logs(application: &str, lines: u32) -> Self {
        Self::get(format!("/applications/{application}/logs")).with("lines", lines)
    }
}

/// An application, of its many fields those that matter here.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct ApplicationRow {
    pub(super) uuid: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) name: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) description: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) status: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) docker_registry_image_name: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) docker_registry_image_tag: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) restart_count: u64,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) created_at: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) updated_at: String,
}

/// A line in a server's list of resources.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct ResourceRow {
    pub(super) uuid: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) status: String,
}

/// A variable of an application's environment; its value is hidden from tokens like ours.
#[derive(Debug, Deserialize)]
pub(super) struct VariableRow {
    pub(super) uuid: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) key: String,
}

/// A deployment.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct DeploymentRow {
    pub(super) deployment_uuid: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) status: String,
    /// What it printed, as JSON in a text; only tokens with `read:sensitive` are shown it.
    #[serde(default)]
    pub(super) logs: Option<String>,
}

/// The answer to a creation.
#[derive(Debug, Deserialize)]
pub(super) struct Created {
    pub(super) uuid: String,
}

/// The answer to a request for deployments.
#[derive(Debug, Deserialize)]
pub(super) struct Deployed {
    #[serde(default)]
    pub(super) deployments: Vec<DeployedLine>,
}

/// What became of the request for one application.
#[derive(Debug, Deserialize)]
pub(super) struct DeployedLine {
    #[serde(default, deserialize_with = "or_default")]
    pub(super) message: String,
    #[serde(default)]
    pub(super) deployment_uuid: Option<String>,
}

impl DeployedLine {
    /// Whether it says that nothing was queued; the id beside it, if any, is then of nothing.
    pub(super) fn is_skipped(&self) -> bool {
        self.message.to_ascii_lowercase().contains("already queued")
    }
}

/// An application's deployments, the newest first.
#[derive(Debug, Deserialize)]
pub(super) struct DeploymentsOf {
    #[serde(default)]
    pub(super) deployments: Rows<DeploymentRow>,
}

/// A container's log.
#[derive(Debug, Deserialize)]
pub(super) struct Logs {
    #[serde(default, deserialize_with = "or_default")]
    pub(super) logs: String,
}

/// A server.
#[derive(Debug, Deserialize)]
pub(super) struct ServerRow {
    #[serde(default)]
    pub(super) settings: ServerSettings,
}

/// What matters of a server's settings.
#[derive(Debug, Default, Clone, Copy, Deserialize)]
pub(super) struct ServerSettings {
    #[serde(default)]
    pub(super) concurrent_builds: Option<usize>,
    #[serde(default)]
    pub(super) deployment_queue_limit: Option<usize>,
    #[serde(default)]
    pub(super) is_reachable: Option<bool>,
    #[serde(default)]
    pub(super) is_usable: Option<bool>,
}

/// A destination of a server.
#[derive(Debug, Deserialize)]
pub(super) struct DestinationRow {
    pub(super) uuid: String,
}

/// A list that comes as an array, or as an object keyed by place.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Rows<T>(pub(super) Vec<T>);

impl<T> Default for Rows<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Rows<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Shape<T> {
            Listed(Vec<T>),
            Keyed(BTreeMap<String, T>),
        }
        Ok(match Shape::deserialize(deserializer)? {
            Shape::Listed(rows) => Self(rows),
            Shape::Keyed(rows) => Self(rows.into_values().collect()),
        })
    }
}

/// Null counts as missing.
fn or_default<'de, D: Deserializer<'de>, T: DeserializeOwned + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_come_in_two_shapes() {
        let read = |text| serde_json::from_str::<Rows<DeploymentRow>>(text).expect("a list").0.len();
        assert_eq!(read(r#"[{"deployment_uuid":"a","status":"queued"}]"#), 1);
        assert_eq!(read(r#"{"1":{"deployment_uuid":"a"},"0":{"deployment_uuid":"b","logs":null}}"#), 2);
        assert_eq!(read("[]"), 0);
        assert!(serde_json::from_str::<Rows<DeploymentRow>>(r#"{"message":"Unauthenticated."}"#).is_err());
    }

    #[test]
    fn null_and_missing_fields_are_no_reason_to_fail() {
        let row = r#"{"uuid":"a","name":null,"restart_count":null,"new_field":{}}"#;
        let row: ApplicationRow = serde_json::from_str(row).expect("a row");
        assert_eq!((row.name.as_str(), row.restart_count, row.status.as_str()), ("", 0, ""));
    }

    #[test]
    fn a_skipped_deployment_is_known_by_its_words() {
        let line =
            |message: &str| DeployedLine { message: message.into(), deployment_uuid: Some("x".into()) };
        assert!(line("Deployment already queued for this commit.").is_skipped());
        assert!(!line("Application pool-zoom-001 deployment queued.").is_skipped());
    }
}
