//! Lays a file and the environment over the defaults, remembering where each value came from.

use super::ConfigError;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use toml::{Table, Value};

/// Names that deployments already use. The first of two names for a key wins.
const KNOWN_NAMES: [(&str, &str); 28] = [
    ("MEEBOTER_DATA_DIR", "data_dir"),
    ("DATABASE_URL", "database.url"),
    ("S3_ENDPOINT", "s3.endpoint"),
    ("MINIO_ENDPOINT", "s3.endpoint"),
    ("S3_PUBLIC_ENDPOINT", "s3.public_endpoint"),
    ("S3_ACCESS_KEY", "s3.access_key"),
    ("MINIO_ACCESS_KEY", "s3.access_key"),
    ("S3_SECRET_KEY", "s3.secret_key"),
    ("MINIO_SECRET_KEY", "s3.secret_key"),
    ("S3_BUCKET_NAME", "s3.bucket"),
    ("MINIO_BUCKET_NAME", "s3.bucket"),
    ("S3_REGION", "s3.region"),
    ("MINIO_REGION", "s3.region"),
    ("MAX_POOL_SIZE", "pool.max_size"),
    ("POOL_PREWARM_COUNT", "pool.prewarm_count"),
    ("POOL_PREWARM_ON_STARTUP", "pool.prewarm_on_startup"),
    ("NEXT_PUBLIC_APP_ORIGIN_URL", "server.public_url"),
    ("AUTH_SECRET", "auth.secret"),
    ("COOLIFY_API_URL", "coolify.url"),
    ("COOLIFY_API_TOKEN", "coolify.token"),
    ("COOLIFY_PROJECT_UUID", "coolify.project_uuid"),
    ("COOLIFY_SERVER_UUID", "coolify.server_uuid"),
    ("COOLIFY_ENVIRONMENT_NAME", "coolify.environment_name"),
    ("COOLIFY_DESTINATION_UUID", "coolify.destination_uuid"),
    ("GHCR_ORG", "images.ghcr_org"),
    ("BOT_IMAGE_TAG", "images.tag"),
    ("MEEBOTER_LOG_LEVEL", "log.level"),
    ("MEEBOTER_LOG_FORMAT", "log.format"),
];
const PREFIX: &str = "MEEBOTER_";
/// Variables with the prefix that are not settings.
const NOT_SETTINGS: [&str; 1] = ["MEEBOTER_CONFIG"];
/// Keys whose values are never shown.
const SECRET_KEYS: [&str; 4] = ["database.url", "s3.secret_key", "auth.secret", "coolify.token"];
/// Tables whose members' names users choose.
const OPEN_TABLES: [&str; 3] = ["pool.platforms", "hosts", REGISTRIES];
/// The table of registries; of what is in it, nothing is shown.
const REGISTRIES: &str = "docker.registries";

/// Where a further platform takes from what its section does not say.
const PLATFORM_TEMPLATE: &str = "pool.platforms.zoom";

/// The merged values so far.
pub(super) struct Layers {
    values: Table,
    /// A platform as the defaults have it.
    template: Table,
    /// Where each key that is not the default came from.
    sources: BTreeMap<String, String>,
    /// What is worth a warning.
    pub(super) warnings: Vec<String>,
}

impl Layers {
    pub(super) fn new(defaults: &str) -> Result<Self, ConfigError> {
        let values = parse("the defaults", defaults)?;
        let template = match lookup(&values, PLATFORM_TEMPLATE) {
            Some(Value::Table(template)) => template.clone(),
            _ => Table::new(),
        };
        Ok(Self { values, template, sources: BTreeMap::new(), warnings: Vec::new() })
    }

    /// Gives further platforms what their sections do not say.
    pub(super) fn complete_platforms(&mut self) {
        let Some(Value::Table(pool)) = self.values.get_mut("pool") else { return };
        let Some(Value::Table(platforms)) = pool.get_mut("platforms") else { return };
        for platform in platforms.iter_mut().filter_map(|(_, platform)| platform.as_table_mut()) {
            for (key, value) in &self.template {
                platform.entry(key).or_insert_with(|| value.clone());
            }
        }
    }

    /// Every key with its value as text.
    pub(super) fn flat(&self) -> BTreeMap<String, String> {
        let mut flat = Vec::new();
        flatten(&self.values, "", &mut flat);
        flat.into_iter().map(|(key, value)| (key, value.to_string())).collect()
    }

    pub(super) fn add_file(&mut self, name: &str, text: &str) -> Result<(), ConfigError> {
        let mut flat = Vec::new();
        flatten(&parse(name, text)?, "", &mut flat);
        flat.into_iter().try_for_each(|(key, value)| self.set(&key, value, name))
    }

    pub(super) fn add_environment(
        &mut self,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<(), ConfigError> {
        let set: BTreeMap<String, String> =
            environment.into_iter().filter(|(_, value)| !value.is_empty()).collect();
        for (name, value) in &set {
            let known =
                KNOWN_NAMES.iter().any(|(known, _)| known == name) || NOT_SETTINGS.contains(&name.as_str());
            if let Some(path) = name.strip_prefix(PREFIX).filter(|_| !known) {
                let key = self.spelled(&path.to_lowercase().replace("__", "."));
                self.set_text(&key, value, name)?;
            }
        }
        let mut taken: BTreeMap<&str, (&str, &str)> = BTreeMap::new();
        for (name, key) in KNOWN_NAMES {
            let Some(value) = set.get(name) else { continue };
            match taken.get(key) {
                None => {
                    taken.insert(key, (name, value));
                    self.set_text(key, value, name)?;
                }
                Some((winner, won)) if won != value => {
                    self.warnings.push(format!("{winner} and {name} differ; {winner} is used"));
                }
                Some(_) => {}
            }
        }
        if set.contains_key("BOT_AUTH_TOKEN") {
            self.warnings.push("BOT_AUTH_TOKEN is not used: every bot has a token of its own".to_owned());
        }
        Ok(())
    }

    /// The values as a typed whole.
    pub(super) fn read<T: DeserializeOwned>(self) -> Result<(T, Self), ConfigError> {
        match serde_path_to_error::deserialize(Value::Table(self.values.clone())) {
            Ok(typed) => Ok((typed, self)),
            Err(error) => {
                let key = error.path().to_string();
                let takes = expected(&error.into_inner().to_string());
                Err(self.error(&key, takes))
            }
        }
    }

    /// A mistake at a key.
    pub(super) fn error(&self, key: &str, takes: String) -> ConfigError {
        let shown = match lookup(&self.values, key) {
            _ if is_secret(key) => "***".to_owned(),
            Some(value) => value.to_string(),
            None => "nothing".to_owned(),
        };
        let source_name = self.sources.get(key).cloned().unwrap_or_else(|| "the defaults".to_owned());
        ConfigError { key: key.to_owned(), value: shown, source_name, takes }
    }

    /// The key as the defaults spell it: variables cannot hold a dash.
    fn spelled(&self, key: &str) -> String {
        let mut flat = Vec::new();
        flatten(&self.values, "", &mut flat);
        let same = |known: &String| known.replace('-', "_") == key;
        flat.into_iter().map(|(known, _)| known).find(same).unwrap_or_else(|| key.to_owned())
    }

    /// Sets a value from text, as the type that the default has.
    fn set_text(&mut self, key: &str, text: &str, source: &str) -> Result<(), ConfigError> {
        let member = key.rsplit('.').next().unwrap_or_default();
        let of_template = || self.template.get(member).filter(|_| key.starts_with("pool.platforms."));
        let value = match lookup(&self.values, key).or_else(of_template) {
            Some(Value::Integer(_)) => text.parse().map(Value::Integer).ok(),
            Some(Value::Boolean(_)) => text.parse().map(Value::Boolean).ok(),
            _ => None,
        };
        self.set(key, value.unwrap_or_else(|| Value::String(text.to_owned())), source)
    }

    fn set(&mut self, key: &str, value: Value, source: &str) -> Result<(), ConfigError> {
        let open = OPEN_TABLES.iter().any(|table| key.starts_with(&format!("{table}.")));
        if lookup(&self.values, key).is_none() && !open {
            let mut flat = Vec::new();
            flatten(&self.values, "", &mut flat);
            let section = key.split('.').next().unwrap_or_default();
            let mut known: Vec<String> = flat
                .iter()
                .map(|(known, _)| known.clone())
                .filter(|known| known.starts_with(section))
                .collect();
            if known.is_empty() {
                known = self.values.keys().cloned().collect();
            }
            return Err(ConfigError {
                key: key.to_owned(),
                value: if is_secret(key) { "***".to_owned() } else { value.to_string() },
                source_name: source.to_owned(),
                takes: format!("no such key; known are {}", known.join(", ")),
            });
        }
        let mut table = &mut self.values;
        let mut parts: Vec<&str> = key.split('.').collect();
        let Some(last) = parts.pop() else { return Ok(()) };
        for part in parts {
            let next = table.entry(part).or_insert_with(|| Value::Table(Table::new()));
            if !next.is_table() {
                *next = Value::Table(Table::new());
            }
            match next {
                Value::Table(inner) => table = inner,
                _ => return Ok(()),
            }
        }
        table.insert(last.to_owned(), value);
        self.sources.insert(key.to_owned(), source.to_owned());
        Ok(())
    }
}

fn is_secret(key: &str) -> bool {
    SECRET_KEYS.contains(&key) || key.starts_with(REGISTRIES)
}

/// What a key takes, from the words of the reader.
fn expected(words: &str) -> String {
    let words = words.trim();
    if words.contains("expected u16") {
        "a whole number from 0 to 65535".to_owned()
    } else if words.contains("expected u") || words.contains("expected usize") {
        "a whole number, 0 or more".to_owned()
    } else if words.contains("expected i32") {
        "a whole number".to_owned()
    } else if words.contains("expected a boolean") {
        "true or false".to_owned()
    } else if let Some((_, rest)) = words.split_once("expected ") {
        rest.to_owned()
    } else {
        words.to_owned()
    }
}

fn parse(name: &str, text: &str) -> Result<Table, ConfigError> {
    text.parse::<Table>().map_err(|error| ConfigError {
        key: "(the whole file)".to_owned(),
        value: error.message().to_owned(),
        source_name: name.to_owned(),
        takes: "TOML".to_owned(),
    })
}

fn flatten(table: &Table, prefix: &str, flat: &mut Vec<(String, Value)>) {
    for (key, value) in table {
        let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match value {
            Value::Table(inner) => flatten(inner, &path, flat),
            other => flat.push((path, other.clone())),
        }
    }
}

fn lookup<'a>(table: &'a Table, key: &str) -> Option<&'a Value> {
    let (first, rest) = key.split_once('.').map_or((key, None), |(first, rest)| (first, Some(rest)));
    match (table.get(first)?, rest) {
        (value, None) => Some(value),
        (Value::Table(inner), Some(rest)) => lookup(inner, rest),
        _ => None,
    }
}
