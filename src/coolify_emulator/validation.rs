//! What Coolify lets into its JSON bodies: which fields each route knows and what each may hold. Pure.

use serde_json::{Map, Value, json};

/// What a field may hold.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// Text of at most so many characters, or null.
    Text(usize),
    /// True or false.
    Flag,
    /// A whole number in a range, or null.
    Whole(i64, i64),
    /// Text or a number.
    Loose,
    /// An image's tag.
    Tag,
    /// An image's name: lower case.
    Image,
    /// Base64 text.
    Base64,
    /// A list of texts of at least two characters.
    Tags,
}

const UNBOUNDED: usize = usize::MAX;

/// What both creating and changing an application know.
const SHARED: [(&str, Kind); 47] = [
    ("name", Kind::Text(255)),
    // The API sets no bound; the column does, and answers 500.
    ("description", Kind::Text(UNBOUNDED)),
    ("docker_registry_image_name", Kind::Image),
    ("docker_registry_image_tag", Kind::Tag),
    ("instant_deploy", Kind::Flag),
    ("domains", Kind::Text(UNBOUNDED)),
    ("ports_exposes", Kind::Text(UNBOUNDED)),
    ("ports_mappings", Kind::Text(UNBOUNDED)),
    ("custom_network_aliases", Kind::Text(UNBOUNDED)),
    ("limits_memory", Kind::Text(UNBOUNDED)),
    ("limits_memory_swap", Kind::Text(UNBOUNDED)),
    ("limits_memory_reservation", Kind::Text(UNBOUNDED)),
    ("limits_cpus", Kind::Text(UNBOUNDED)),
    ("limits_memory_swappiness", Kind::Loose),
    ("limits_cpu_shares", Kind::Loose),
    ("limits_cpuset", Kind::Text(UNBOUNDED)),
    ("custom_docker_run_options", Kind::Text(2_000)),
    ("custom_labels", Kind::Base64),
    ("health_check_enabled", Kind::Flag),
    ("health_check_type", Kind::Text(UNBOUNDED)),
    ("health_check_command", Kind::Text(1_000)),
    ("health_check_path", Kind::Text(UNBOUNDED)),
    ("health_check_port", Kind::Loose),
    ("health_check_host", Kind::Text(UNBOUNDED)),
    ("health_check_method", Kind::Text(UNBOUNDED)),
    ("health_check_return_code", Kind::Whole(100, 599)),
    ("health_check_scheme", Kind::Text(UNBOUNDED)),
    ("health_check_response_text", Kind::Text(UNBOUNDED)),
    ("health_check_interval", Kind::Whole(1, i64::MAX)),
    ("health_check_timeout", Kind::Whole(1, i64::MAX)),
    ("health_check_retries", Kind::Whole(1, i64::MAX)),
    ("health_check_start_period", Kind::Whole(0, i64::MAX)),
    ("connect_to_docker_network", Kind::Flag),
    ("stop_grace_period", Kind::Whole(1, 3_600)),
    ("docker_images_to_keep", Kind::Whole(0, 100)),
    ("max_restart_count", Kind::Whole(0, i64::MAX)),
    ("is_consistent_container_name_enabled", Kind::Flag),
    ("custom_internal_name", Kind::Text(UNBOUNDED)),
    ("is_gpu_enabled", Kind::Flag),
    ("is_log_drain_enabled", Kind::Flag),
    ("pre_deployment_command", Kind::Text(UNBOUNDED)),
    ("post_deployment_command", Kind::Text(UNBOUNDED)),
    ("use_build_server", Kind::Flag),
    ("is_force_https_enabled", Kind::Flag),
    ("force_domain_override", Kind::Flag),
    ("is_container_label_escape_enabled", Kind::Flag),
    ("redirect", Kind::Text(UNBOUNDED)),
];

/// What only creating knows.
const CREATION: [(&str, Kind); 7] = [
    ("project_uuid", Kind::Text(UNBOUNDED)),
    ("server_uuid", Kind::Text(UNBOUNDED)),
    ("environment_name", Kind::Text(UNBOUNDED)),
    ("environment_uuid", Kind::Text(UNBOUNDED)),
    ("destination_uuid", Kind::Text(UNBOUNDED)),
    ("autogenerate_domain", Kind::Flag),
    ("tags", Kind::Tags),
];

const REQUIRED_TO_CREATE: [&str; 3] = ["project_uuid", "server_uuid", "docker_registry_image_name"];

/// What one variable of an environment may hold. In a list, fields that are not here are dropped without a word.
const VARIABLE: [(&str, Kind); 9] = [
    ("key", Kind::Text(255)),
    ("value", Kind::Text(UNBOUNDED)),
    ("is_preview", Kind::Flag),
    ("is_literal", Kind::Flag),
    ("is_multiline", Kind::Flag),
    ("is_shown_once", Kind::Flag),
    ("is_runtime", Kind::Flag),
    ("is_buildtime", Kind::Flag),
    ("comment", Kind::Text(256)),
];

/// What may be changed of a server; its limits are all that matters here.
const SERVER: [(&str, Kind); 5] = [
    ("name", Kind::Text(255)),
    ("description", Kind::Text(UNBOUNDED)),
    ("concurrent_builds", Kind::Whole(1, i64::MAX)),
    ("deployment_queue_limit", Kind::Whole(1, i64::MAX)),
    ("dynamic_timeout", Kind::Whole(1, i64::MAX)),
];

/// What is wrong with which field.
pub(super) type Errors = Map<String, Value>;

/// Checks the body of a creation.
pub(super) fn creation(body: &Map<String, Value>) -> Errors {
    let mut errors = Errors::new();
    for field in REQUIRED_TO_CREATE {
        if body.get(field).is_none_or(Value::is_null) {
            errors.insert(field.to_owned(), json!(["This field is required."]));
        }
    }
    if ["environment_name", "environment_uuid"]
        .iter()
        .all(|field| body.get(*field).is_none_or(Value::is_null))
    {
        let why = json!("You need to provide at least one of environment_name or environment_uuid.");
        errors.insert("environment_name".to_owned(), why);
    }
    let kind = |field: &str| kind_of(field, &SHARED).or_else(|| kind_of(field, &CREATION));
    check(body, kind, &mut errors);
    errors
}

/// Checks the body of a change of an application.
pub(super) fn change(body: &Map<String, Value>) -> Errors {
    let mut errors = Errors::new();
    check(body, |field| kind_of(field, &SHARED), &mut errors);
    // Only a creation takes a name apart.
    if body.get("docker_registry_image_name").and_then(Value::as_str).is_some_and(has_tag) {
        errors.insert("docker_registry_image_name".to_owned(), json!(["The image name format is invalid."]));
    }
    errors
}

/// Checks one variable that comes alone: what it does not know is refused.
pub(super) fn variable(body: &Map<String, Value>) -> Errors {
    let mut errors = Errors::new();
    check(body, |field| kind_of(field, &VARIABLE), &mut errors);
    check_key(body, &mut errors);
    errors
}

/// Checks one variable of a list: what it does not know is dropped.
pub(super) fn listed_variable(body: &Map<String, Value>) -> Errors {
    let known = body.iter().filter(|(field, _)| kind_of(field, &VARIABLE).is_some());
    variable(&known.map(|(field, value)| (field.clone(), value.clone())).collect())
}

/// Checks a change of a server.
pub(super) fn server(body: &Map<String, Value>) -> Errors {
    let mut errors = Errors::new();
    check(body, |field| kind_of(field, &SERVER), &mut errors);
    errors
}

/// Whether an image's name carries a tag of its own.
pub(super) fn has_tag(image: &str) -> bool {
    let last = image.rsplit('/').next().unwrap_or(image);
    last.contains(':') && !last.contains('@')
}

fn check_key(body: &Map<String, Value>, errors: &mut Errors) {
    let is_name = |key: &str| {
        let first = key.chars().next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_');
        first && key.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_' || letter == '.')
    };
    match body.get("key").and_then(Value::as_str) {
        None => drop(errors.insert("key".to_owned(), json!(["The key field is required."]))),
        Some(key) if is_name(key) => {}
        Some(_) => drop(errors.insert("key".to_owned(), json!(["The key field format is invalid."]))),
    }
}

fn check(body: &Map<String, Value>, kind: impl Fn(&str) -> Option<Kind>, errors: &mut Errors) {
    for (field, value) in body {
        match kind(field) {
            None => {
                errors.insert(field.clone(), json!(["This field is not allowed."]));
            }
            Some(kind) => {
                if let Some(why) = refusal(field, kind, value) {
                    errors.insert(field.clone(), json!([why]));
                }
            }
        }
    }
}

/// Why a field may not hold a value.
fn refusal(field: &str, kind: Kind, value: &Value) -> Option<String> {
    if value.is_null() && !matches!(kind, Kind::Image) {
        return None;
    }
    let text = value.as_str();
    match kind {
        Kind::Text(limit) => match text {
            None => Some(format!("The {field} field must be a string.")),
            Some(text) if text.chars().count() > limit => {
                Some(format!("The {field} field must not be greater than {limit} characters."))
            }
            Some(_) => None,
        },
        Kind::Flag => (!value.is_boolean()).then(|| format!("The {field} field must be true or false.")),
        Kind::Whole(from, to) => {
            let fits = value.as_i64().is_some_and(|number| (from..=to).contains(&number));
            (!fits).then(|| format!("The {field} field must be an integer between {from} and {to}."))
        }
        Kind::Loose => {
            (!value.is_string() && !value.is_number()).then(|| format!("The {field} field is invalid."))
        }
        Kind::Tag => (!text.is_some_and(is_tag)).then(|| "The image tag format is invalid.".to_owned()),
        Kind::Image => (!text.is_some_and(is_image)).then(|| "The image name format is invalid.".to_owned()),
        Kind::Base64 => {
            let fits = text.is_some_and(|text| {
                let code = |letter: char| letter.is_ascii_alphanumeric() || "+/=".contains(letter);
                text.len() % 4 == 0 && text.chars().all(code)
            });
            (!fits).then(|| "The custom_labels should be base64 encoded.".to_owned())
        }
        Kind::Tags => {
            let fits = value.as_array().is_some_and(|tags| {
                tags.iter().all(|tag| tag.as_str().is_some_and(|tag| tag.chars().count() >= 2))
            });
            (!fits).then(|| "The tags field must hold strings of at least 2 characters.".to_owned())
        }
    }
}

fn is_tag(tag: &str) -> bool {
    let word = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let rest = |letter: char| word(letter) || letter == '.' || letter == '-';
    (1..=128).contains(&tag.len()) && tag.chars().next().is_some_and(word) && tag.chars().all(rest)
}

fn is_image(image: &str) -> bool {
    let plain =
        |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || "._-/:@".contains(letter);
    (1..=255).contains(&image.len()) && image.chars().all(plain)
}

fn kind_of(field: &str, fields: &[(&str, Kind)]) -> Option<Kind> {
    fields.iter().find(|(name, _)| *name == field).map(|(_, kind)| *kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(of: fn(&Map<String, Value>) -> Errors, body: Value) -> Vec<String> {
        of(body.as_object().expect("an object")).into_iter().map(|(field, _)| field).collect()
    }

    #[test]
    fn an_unknown_field_fails_the_whole_request() {
        let good = json!({
            "project_uuid": "p", "server_uuid": "s", "environment_name": "e",
            "docker_registry_image_name": "ghcr.io/meeboter/bot", "docker_registry_image_tag": "latest",
        });
        assert_eq!(errors(creation, good.clone()), [""; 0]);
        for field in ["envs", "network", "restart", "is_container_label_readonly_enabled"] {
            let mut body = good.clone();
            body[field] = json!(true);
            assert_eq!(errors(creation, body), [field]);
        }
        assert_eq!(errors(change, json!({ "server_uuid": "s" })), ["server_uuid"]);
        assert_eq!(errors(variable, json!({ "key": "A", "is_build_time": true })), ["is_build_time"]);
        assert_eq!(errors(listed_variable, json!({ "key": "A", "is_build_time": true })), [""; 0]);
    }

    #[test]
    fn limits_of_memory_and_processors_are_text() {
        assert_eq!(
            errors(change, json!({ "limits_memory": 512, "limits_cpus": 1 })),
            ["limits_cpus", "limits_memory"]
        );
        assert_eq!(errors(change, json!({ "limits_memory": "512m", "limits_cpus": "1" })), [""; 0]);
    }

    #[test]
    fn names_tags_and_keys_have_their_shapes() {
        assert_eq!(errors(change, json!({ "docker_registry_image_name": "Upper/x" })).len(), 1);
        assert_eq!(errors(change, json!({ "docker_registry_image_name": "h:5000/x:tag" })).len(), 1);
        assert_eq!(errors(change, json!({ "docker_registry_image_name": "h:5000/x" })).len(), 0);
        assert_eq!(errors(change, json!({ "docker_registry_image_tag": "-x" })).len(), 1);
        assert_eq!(errors(variable, json!({ "key": "1A", "value": "x" })), ["key"]);
        assert_eq!(errors(variable, json!({ "key": "A", "value": 1 })), ["value"]);
    }
}
