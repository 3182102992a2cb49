//! The environments of applications.

use super::super::answer::Answer;
use super::super::validation::{self, Errors};
use super::super::{Shared, work};
use super::Asked;
use serde_json::{Map, Value, json};

fn unknown() -> Answer {
    Answer::message(404, "Application not found")
}

pub(super) fn list(shared: &Shared, uuid: &str, asked: &Asked) -> Answer {
    let world = shared.world();
    let Some(application) = world.applications.get(uuid) else { return unknown() };
    Answer::ok(application.variables.iter().map(|variable| variable.row(asked.reads_secrets)).collect())
}

pub(super) fn create(shared: &Shared, uuid: &str, asked: &Asked) -> Answer {
    let Some(body) = asked.sent().as_object().cloned() else { return Answer::invalid(Errors::new()) };
    let errors = validation::variable(&body);
    if !errors.is_empty() {
        return Answer::invalid(errors);
    }
    let mut world = shared.world();
    let Some(application) = world.applications.get_mut(uuid) else { return unknown() };
    if application.variables.iter().any(|known| names(&body, &known.key, known.is_preview)) {
        let why = "Environment variable already exists. Use PATCH request to update it.";
        return Answer::message(409, why);
    }
    application.set_variable(&body, &work::now());
    let made = application.variables.last().map(|variable| variable.uuid.clone());
    Answer::json(201, json!({ "uuid": made }))
}

pub(super) fn change(shared: &Shared, uuid: &str, asked: &Asked) -> Answer {
    let body = match asked.json() {
        Ok(body) => body,
        Err(refusal) => return refusal,
    };
    let errors = validation::variable(&body);
    if !errors.is_empty() {
        return Answer::invalid(errors);
    }
    let mut world = shared.world();
    let Some(application) = world.applications.get_mut(uuid) else { return unknown() };
    let is_named = |known: &&super::super::world::Variable| names(&body, &known.key, known.is_preview);
    if !application.variables.iter().any(|known| is_named(&known)) {
        return Answer::message(404, "Environment variable not found.");
    }
    if !application.set_variable(&body, &work::now()) {
        return Answer::server_error();
    }
    let row = application.variables.iter().find(is_named).map(|known| known.row(asked.reads_secrets));
    Answer::json(201, json!(row))
}

/// Not all or nothing: what comes before a mistake is saved.
pub(super) fn change_all(shared: &Shared, uuid: &str, asked: &Asked) -> Answer {
    let body = match asked.json() {
        Ok(body) => body,
        Err(refusal) => return refusal,
    };
    let mut world = shared.world();
    let Some(application) = world.applications.get_mut(uuid) else { return unknown() };
    let Some(items) = body.get("data").and_then(Value::as_array).filter(|items| !items.is_empty()) else {
        return Answer::message(400, "Bulk data is required.");
    };
    let mut rows = Vec::new();
    for item in items {
        let Some(item) = item.as_object() else { return Answer::invalid(Errors::new()) };
        let errors = validation::listed_variable(item);
        if !errors.is_empty() {
            return Answer::invalid(errors);
        }
        if !application.set_variable(item, &work::now()) {
            return Answer::server_error();
        }
        let row = application.variables.iter().find(|known| names(item, &known.key, known.is_preview));
        rows.extend(row.map(|known| known.row(asked.reads_secrets)));
    }
    Answer::json(201, Value::Array(rows))
}

pub(super) fn delete(shared: &Shared, uuid: &str, variable: &str) -> Answer {
    let mut world = shared.world();
    let Some(application) = world.applications.get_mut(uuid) else { return unknown() };
    let before = application.variables.len();
    application.variables.retain(|known| known.uuid != variable);
    if application.variables.len() == before {
        return Answer::message(404, "Environment variable not found.");
    }
    Answer::message(200, "Environment variable deleted.")
}

/// Whether an item is about a variable: by its key, and for previews or not.
fn names(item: &Map<String, Value>, key: &str, is_preview: bool) -> bool {
    let wanted_preview = item.get("is_preview").and_then(Value::as_bool).unwrap_or(false);
    item.get("key").and_then(Value::as_str) == Some(key) && wanted_preview == is_preview
}
