//! What an application is told: the fields of its creation and of its changes, and its environment. Pure.
//!
//! Nothing goes in that Coolify does not know: one unknown field fails the whole request. Numbers of memory and
//! processors are texts there. Labels and networks are not set: Coolify overwrites or ignores them.

use meeboter_actors::ports::ResourceLimits;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// Longest grace that Coolify takes, in seconds.
const GRACE_MAX_S: u64 = 3_600;
/// Versions up to 4.1 insist on a port; nothing listens there.
const UNUSED_PORT: &str = "80";

/// Where applications are made.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) project: String,
    pub(super) environment: String,
    pub(super) server: String,
    /// Empty: the server has only one.
    pub(super) destination: String,
}

/// What an application is to be.
#[derive(Debug, Clone)]
pub(super) struct Wanted<'a> {
    pub(super) image: &'a str,
    pub(super) limits: ResourceLimits,
    pub(super) grace: Duration,
    pub(super) description: &'a str,
}

/// The body of a change that makes an application what it is to be.
pub(super) fn change(wanted: &Wanted<'_>) -> Map<String, Value> {
    let (name, tag) = split(wanted.image);
    let ResourceLimits { cpu_millis, memory_mib, shm_mib } = wanted.limits;
    let cpus = cpu_millis
        .map_or_else(|| "0".to_owned(), |millis| format!("{}.{:03}", millis / 1_000, millis % 1_000));
    let memory = memory_mib.map_or_else(|| "0".to_owned(), |mib| format!("{mib}m"));
    // "" takes back what was set before.
    let options = shm_mib.map_or_else(String::new, |mib| format!("--shm-size={mib}m"));
    fields(json!({
        "description": wanted.description,
        "docker_registry_image_name": name,
        "docker_registry_image_tag": tag.unwrap_or_default(),
        "limits_cpus": cpus,
        "limits_memory": memory,
        "custom_docker_run_options": options,
        "stop_grace_period": wanted.grace.as_secs().clamp(1, GRACE_MAX_S),
    }))
}

/// The body of a creation.
pub(super) fn creation(place: &Place, name: &str, tag: &str, wanted: &Wanted<'_>) -> Map<String, Value> {
    let mut body = change(wanted);
    body.extend(fields(json!({
        "project_uuid": place.project,
        "server_uuid": place.server,
        "environment_name": place.environment,
        "name": name,
        "tags": [tag],
        "instant_deploy": false,
        "autogenerate_domain": false,
        "health_check_enabled": false,
        "ports_exposes": UNUSED_PORT,
    })));
    if !place.destination.is_empty() {
        body.insert("destination_uuid".to_owned(), json!(place.destination));
    }
    // In a creation what is not set is left out.
    body.retain(|_, value| value != "");
    body
}

/// Image name and tag; a digest belongs to the name.
fn split(image: &str) -> (&str, Option<&str>) {
    if image.contains('@') {
        return (image, None);
    }
    match image.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (image, Some("latest")),
    }
}

/// A value that Coolify cannot carry into a container unharmed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the value of {0} holds both ' and $: Coolify cannot carry that into a container; choose another")]
pub(super) struct Uncarried(pub(super) String);

/// One variable for the list that sets an environment.
pub(super) fn variable(key: &str, value: &str) -> Result<Value, Uncarried> {
    // Literals arrive as they are but for single quotes; what is not literal loses its dollars.
    let is_literal = !value.contains('\'');
    if !is_literal && value.contains('$') {
        return Err(Uncarried(key.to_owned()));
    }
    // All flags, every time: one that is left out may become null where it must not.
    Ok(json!({
        "key": key, "value": value, "is_preview": false, "is_literal": is_literal, "is_multiline": false,
        "is_shown_once": false, "is_runtime": true, "is_buildtime": false,
    }))
}

fn fields(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(image: &str) -> Wanted<'_> {
        let limits = ResourceLimits { cpu_millis: Some(1_500), memory_mib: Some(2_048), shm_mib: Some(256) };
        Wanted { image, limits, grace: Duration::from_secs(30), description: "d" }
    }

    #[test]
    fn names_and_tags_go_apart() {
        for (image, name, tag) in [
            ("ghcr.io/m/bot:v1", "ghcr.io/m/bot", Some("v1")),
            ("localhost:5000/m/bot", "localhost:5000/m/bot", Some("latest")),
            ("localhost:5000/bot:x", "localhost:5000/bot", Some("x")),
            ("m/bot@sha256:00", "m/bot@sha256:00", None),
        ] {
            assert_eq!(split(image), (name, tag), "{image}");
        }
    }

    #[test]
    fn limits_are_texts_and_shared_memory_is_an_option() {
        let body = Value::Object(change(&wanted("m/bot:v1")));
        assert_eq!((&body["limits_cpus"], &body["limits_memory"]), (&json!("1.500"), &json!("2048m")));
        assert_eq!(body["custom_docker_run_options"], json!("--shm-size=256m"));
        let none = Value::Object(change(&Wanted { limits: ResourceLimits::default(), ..wanted("m/bot:v1") }));
        assert_eq!((&none["limits_cpus"], &none["limits_memory"]), (&json!("0"), &json!("0")));
        assert_eq!(none["custom_docker_run_options"], json!(""), "what was set before is taken back");
    }

    #[test]
    fn a_creation_deploys_nothing_and_makes_no_domain() {
        let (project, environment, server) = ("p".to_owned(), "e".to_owned(), "s".to_owned());
        let place = Place { project, environment, server, destination: String::new() };
        let body = Value::Object(creation(&place, "pool-zoom-001", "meeboter-1", &wanted("m/bot@sha256:0")));
        assert_eq!((&body["instant_deploy"], &body["autogenerate_domain"]), (&json!(false), &json!(false)));
        assert_eq!(body.get("destination_uuid"), None);
        assert_eq!(body.get("docker_registry_image_tag"), None);
    }

    #[test]
    fn values_arrive_unharmed_or_are_refused() {
        assert_eq!(variable("A", "a$b").map(|item| item["is_literal"].clone()), Ok(json!(true)));
        assert_eq!(variable("A", "it's").map(|item| item["is_literal"].clone()), Ok(json!(false)));
        assert_eq!(variable("A", "it's $5"), Err(Uncarried("A".into())));
    }
}
