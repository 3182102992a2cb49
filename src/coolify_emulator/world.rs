//! What the emulated Coolify knows: its one team's server, project and applications. Pure: no I/O and no clock; what
//! happens at which time is said by the caller. The queue of deployments is in `deployments`.

use super::containers::ContainerSpec;
use super::deployments::Deployment;
use super::validation;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// The longest description that the column holds; a longer one is an uncaught exception.
pub(super) const DESCRIPTION_MAX: usize = 255;
/// What a status reads where nothing of an application runs, for whatever reason.
pub(super) const EXITED: &str = "exited:unhealthy";

/// The identifiers of an installation of Coolify, and the limits of its server.
#[derive(Debug, Clone)]
pub struct Site {
    /// The project.
    pub project: String,
    /// Its environment's name.
    pub environment: String,
    /// The server.
    pub server: String,
    /// The server's destinations; with more than one each creation has to name one.
    pub destinations: Vec<String>,
    /// Deployments that the server does at a time.
    pub concurrent_builds: usize,
    /// Deployments that may wait.
    pub queue_limit: usize,
}

impl Default for Site {
    fn default() -> Self {
        Self {
            project: "emulatedproject000000000".to_owned(),
            environment: "production".to_owned(),
            server: "emulatedserver0000000000".to_owned(),
            destinations: vec!["emulateddestination00000".to_owned()],
            concurrent_builds: 2,
            queue_limit: 25,
        }
    }
}

/// A variable of an application's environment.
#[derive(Debug, Clone)]
pub(super) struct Variable {
    pub(super) uuid: String,
    pub(super) key: String,
    pub(super) value: Option<String>,
    pub(super) is_preview: bool,
    pub(super) is_literal: bool,
    pub(super) is_multiline: bool,
    pub(super) is_shown_once: bool,
    pub(super) is_runtime: bool,
    pub(super) is_buildtime: bool,
}

/// A docker-image application.
#[derive(Debug, Clone)]
pub(super) struct Application {
    pub(super) id: u64,
    pub(super) uuid: String,
    /// The settings as they were sent, checked.
    pub(super) fields: Map<String, Value>,
    pub(super) tags: BTreeSet<String>,
    pub(super) variables: Vec<Variable>,
    /// The status as it was last stored; what really runs may be another thing.
    pub(super) status: String,
    /// Its containers as Docker has them, the oldest first.
    pub(super) containers: Vec<ContainerSpec>,
    pub(super) restart_count: u64,
    /// Its deletion is queued; until the job has run it is there as before.
    pub(super) is_doomed: bool,
    pub(super) created_at: String,
    pub(super) updated_at: String,
}

/// See the module.
#[derive(Debug)]
pub(super) struct World {
    pub(super) site: Site,
    pub(super) applications: BTreeMap<String, Application>,
    pub(super) deployments: Vec<Deployment>,
    /// Images that the server has.
    pub(super) cached: BTreeSet<String>,
    /// Statuses stay as they are.
    pub(super) statuses_frozen: bool,
    ids: u64,
}

impl World {
    pub(super) fn new(site: Site) -> Self {
        Self {
            site,
            applications: BTreeMap::new(),
            deployments: Vec::new(),
            cached: BTreeSet::new(),
            statuses_frozen: false,
            ids: 0,
        }
    }

    /// The next number of a row.
    pub(super) fn next_id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    /// Makes an application from a checked body.
    pub(super) fn create(&mut self, body: &Map<String, Value>, now: &str) -> Result<String, TooLong> {
        let mut fields = defaults();
        let uuid = fresh_uuid();
        fields.insert("name".to_owned(), json!(format!("docker-image-{uuid}")));
        let image = body.get("docker_registry_image_name").and_then(Value::as_str).unwrap_or_default();
        let names_all = validation::has_tag(image) || image.contains('@');
        if body.get("docker_registry_image_tag").is_none_or(Value::is_null) && !names_all {
            fields.insert("docker_registry_image_tag".to_owned(), json!("latest"));
        }
        let tags = body.get("tags").and_then(Value::as_array).into_iter().flatten();
        let tags = tags.filter_map(Value::as_str).map(str::to_lowercase).collect();
        let mut application = Application {
            id: self.next_id(),
            uuid: uuid.clone(),
            fields,
            tags,
            variables: Vec::new(),
            status: EXITED.to_owned(),
            containers: Vec::new(),
            restart_count: 0,
            is_doomed: false,
            created_at: now.to_owned(),
            updated_at: now.to_owned(),
        };
        application.change(body, now)?;
        // Where the labels are the server's own, what a creation says of them is overwritten.
        application.fields.insert("custom_labels".to_owned(), json!("dHJhZWZpay5lbmFibGU9dHJ1ZQ=="));
        self.applications.insert(uuid.clone(), application);
        Ok(uuid)
    }

    /// Copies an application, but for its containers and deployments.
    pub(super) fn copy(&mut self, original: &str, uuid: &str, name: &str, now: &str) {
        let Some(mut copy) = self.applications.get(original).cloned() else { return };
        copy.id = self.next_id();
        copy.uuid = uuid.to_owned();
        copy.fields.insert("name".to_owned(), json!(name));
        copy.status = EXITED.to_owned();
        copy.containers.clear();
        (copy.created_at, copy.updated_at) = (now.to_owned(), now.to_owned());
        self.applications.insert(uuid.to_owned(), copy);
    }

    /// The applications, by name; all, or those with a tag.
    pub(super) fn list(&self, tag: Option<&str>) -> Vec<&Application> {
        let has_tag =
            |application: &&Application| tag.is_none_or(|tag| application.tags.contains(&tag.to_lowercase()));
        let mut listed: Vec<_> = self.applications.values().filter(has_tag).collect();
        listed.sort_by_key(|application| application.name());
        listed
    }
}

/// A description longer than its column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooLong;

impl Application {
    /// Its name, which others may have too.
    pub(super) fn name(&self) -> String {
        self.text("name")
    }

    /// A setting's text; "" where it has none.
    pub(super) fn text(&self, field: &str) -> String {
        self.fields.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
    }

    /// Takes over what a checked body says. It counts from the next deployment on.
    pub(super) fn change(&mut self, body: &Map<String, Value>, now: &str) -> Result<(), TooLong> {
        let description = body.get("description").map(|text| strip_tags(text.as_str().unwrap_or_default()));
        if description.as_ref().is_some_and(|text| text.chars().count() > DESCRIPTION_MAX) {
            return Err(TooLong);
        }
        for (field, value) in body.iter().filter(|(field, _)| !PASSING.contains(&field.as_str())) {
            let value = match (field.as_str(), value) {
                ("name", Value::String(name)) => json!(strip_tags(name)),
                // Columns that are never null.
                ("limits_memory" | "limits_cpus", Value::Null) => continue,
                (_, value) => value.clone(),
            };
            self.fields.insert(field.clone(), value);
        }
        if let Some(description) = description {
            self.fields.insert("description".to_owned(), json!(description));
        }
        self.updated_at = now.to_owned();
        Ok(())
    }

    /// The image with its tag, as the compose file has it.
    pub(super) fn image(&self) -> String {
        let (name, tag) = (self.text("docker_registry_image_name"), self.text("docker_registry_image_tag"));
        match tag.as_str() {
            "" => name,
            tag => format!("{name}:{tag}"),
        }
    }

    /// What its next container is made from, as things are now.
    pub(super) fn compose(&self, container: String) -> ContainerSpec {
        let runtime = self.variables.iter().filter(|variable| !variable.is_preview && variable.is_runtime);
        ContainerSpec {
            name: container,
            application: self.uuid.clone(),
            image: self.image(),
            environment: runtime
                .map(|variable| (variable.key.clone(), variable.as_compose_reads_it()))
                .collect(),
            memory: self.text("limits_memory"),
            cpus: self.text("limits_cpus"),
            run_options: self.text("custom_docker_run_options"),
        }
    }

    /// Sets a variable by its key; a new one brings a twin for previews. `false`: a flag that was never meant to be null
    /// became null, and the database refused.
    pub(super) fn set_variable(&mut self, item: &Map<String, Value>, now: &str) -> bool {
        let text = |field: &str| item.get(field).and_then(Value::as_str).map(str::to_owned);
        let flag = |field: &str| item.get(field).and_then(Value::as_bool);
        let (key, is_preview) = (text("key").unwrap_or_default(), flag("is_preview").unwrap_or(false));
        self.updated_at = now.to_owned();
        let known = |variable: &&mut Variable| variable.key == key && variable.is_preview == is_preview;
        if let Some(variable) = self.variables.iter_mut().find(known) {
            if variable.is_multiline && flag("is_multiline").is_none() {
                return false;
            }
            variable.value = text("value");
            variable.is_literal = flag("is_literal").unwrap_or(false);
            variable.is_multiline = flag("is_multiline").unwrap_or(false);
            variable.is_shown_once = flag("is_shown_once").unwrap_or(false);
            variable.is_runtime = flag("is_runtime").unwrap_or(variable.is_runtime);
            variable.is_buildtime = flag("is_buildtime").unwrap_or(variable.is_buildtime);
            return true;
        }
        let variable = Variable {
            uuid: fresh_uuid(),
            key,
            value: text("value"),
            is_preview,
            is_literal: flag("is_literal").unwrap_or(false),
            is_multiline: flag("is_multiline").unwrap_or(false),
            is_shown_once: flag("is_shown_once").unwrap_or(false),
            is_runtime: flag("is_runtime").unwrap_or(true),
            is_buildtime: flag("is_buildtime").unwrap_or(true),
        };
        if !is_preview {
            self.variables.push(Variable { uuid: fresh_uuid(), is_preview: true, ..variable.clone() });
        }
        self.variables.push(variable);
        true
    }

    /// The row as the API shows it.
    pub(super) fn row(&self, reads_secrets: bool) -> Value {
        let mut row = self.fields.clone();
        if !reads_secrets {
            row.remove("custom_labels");
        }
        for (field, value) in [
            ("uuid", json!(self.uuid)),
            ("status", json!(self.status)),
            ("server_status", json!(true)),
            ("build_pack", json!("dockerimage")),
            ("restart_count", json!(self.restart_count)),
            ("destination_id", json!(1)),
            ("environment_id", json!(1)),
            ("created_at", json!(self.created_at)),
            ("updated_at", json!(self.updated_at)),
        ] {
            row.insert(field.to_owned(), value);
        }
        Value::Object(row)
    }

    /// Its line in the server's list of resources.
    pub(super) fn resource(&self) -> Value {
        json!({
            "id": self.id, "uuid": self.uuid, "name": self.name(), "type": "application",
            "status": self.status, "created_at": self.created_at, "updated_at": self.updated_at,
        })
    }
}

impl Variable {
    /// What arrives in the container: literals between single quotes, which one inside ends; the rest with its dollars
    /// taken for variables that are not there.
    fn as_compose_reads_it(&self) -> String {
        let value = self.value.clone().unwrap_or_default();
        if self.is_literal {
            return value.split('\'').next().unwrap_or_default().to_owned();
        }
        let mut parts = value.split('$');
        let mut read = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
            read.push_str(part.trim_start_matches(name));
        }
        read
    }

    /// The row as the API shows it.
    pub(super) fn row(&self, reads_secrets: bool) -> Value {
        let mut row = json!({
            "uuid": self.uuid, "key": self.key, "is_preview": self.is_preview, "is_literal": self.is_literal,
            "is_multiline": self.is_multiline, "is_shown_once": self.is_shown_once,
            "is_runtime": self.is_runtime, "is_buildtime": self.is_buildtime,
        });
        if reads_secrets {
            row["value"] = json!(self.value);
            row["real_value"] = json!(self.value);
        }
        row
    }
}

/// Fields of requests that are no settings of the application.
const PASSING: [&str; 11] = [
    "project_uuid",
    "server_uuid",
    "environment_name",
    "environment_uuid",
    "destination_uuid",
    "autogenerate_domain",
    "tags",
    "instant_deploy",
    "description",
    "domains",
    "force_domain_override",
];

fn defaults() -> Map<String, Value> {
    let defaults = json!({
        "description": "", "fqdn": null, "docker_registry_image_name": null, "docker_registry_image_tag": null,
        "limits_memory": "0", "limits_memory_swap": "0", "limits_memory_reservation": "0", "limits_cpus": "0",
        "limits_memory_swappiness": 60, "limits_cpu_shares": 1024, "limits_cpuset": null,
        "health_check_enabled": false, "custom_docker_run_options": null, "stop_grace_period": 30,
        "max_restart_count": 10,
    });
    match defaults {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

/// 24 characters, small letters and digits.
pub(super) fn fresh_uuid() -> String {
    Uuid::new_v4().simple().to_string().chars().take(24).collect()
}

/// What PHP's `strip_tags` leaves of a text.
fn strip_tags(text: &str) -> String {
    let mut left = String::new();
    let mut inside = false;
    for letter in text.chars() {
        match letter {
            '<' => inside = true,
            '>' if inside => inside = false,
            letter if !inside => left.push(letter),
            _ => {}
        }
    }
    left.trim().to_owned()
}

/// What reaches a route of a body: every text trimmed, and none left empty.
pub(super) fn trimmed(value: Value) -> Value {
    match value {
        Value::String(text) => match text.trim() {
            "" => Value::Null,
            text => json!(text),
        },
        Value::Array(items) => items.into_iter().map(trimmed).collect(),
        Value::Object(fields) => fields.into_iter().map(|(field, value)| (field, trimmed(value))).collect(),
        value => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().expect("an object").clone()
    }

    #[test]
    fn descriptions_lose_their_tags_and_may_be_too_long() {
        let mut world = World::new(Site::default());
        let body = object(json!({ "docker_registry_image_name": "x", "description": " a <b>c " }));
        let uuid = world.create(&body, "t").expect("made");
        assert_eq!(world.applications[&uuid].text("description"), "a c");
        let long = object(json!({ "description": "x".repeat(256) }));
        assert_eq!(world.applications.get_mut(&uuid).expect("there").change(&long, "t"), Err(TooLong));
    }

    #[test]
    fn values_arrive_as_compose_reads_them() {
        let mut world = World::new(Site::default());
        let uuid = world.create(&object(json!({ "docker_registry_image_name": "x" })), "t").expect("made");
        let application = world.applications.get_mut(&uuid).expect("there");
        for (key, value, is_literal) in
            [("A", "a$b!", true), ("B", "a$b!", false), ("C", "it's", true), ("D", "plain", false)]
        {
            let item = json!({ "key": key, "value": value, "is_literal": is_literal, "is_multiline": false });
            assert!(application.set_variable(&object(item), "t"));
        }
        let values: Vec<_> =
            application.compose("c".into()).environment.into_iter().map(|(_, value)| value).collect();
        assert_eq!(values, ["a$b!", "a!", "it", "plain"]);
        assert_eq!(application.variables.len(), 8, "each has a twin for previews");
    }

    #[test]
    fn texts_are_trimmed_and_empty_ones_are_null() {
        assert_eq!(trimmed(json!({ "a": " x ", "b": ["", 1] })), json!({ "a": "x", "b": [null, 1] }));
    }
}
