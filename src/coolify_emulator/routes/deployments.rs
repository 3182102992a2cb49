//! Deployments: asked for, shown, cancelled. With the answers that name deployments which do not exist.

use super::super::answer::Answer;
use super::super::deployments::{DeploymentStatus, Queueing};
use super::super::world::fresh_uuid;
use super::super::{Shared, work};
use super::{Asked, applications};
use serde_json::{Map, Value, json};
use std::sync::Arc;

const SKIPPED: &str = "Deployment already queued for this commit.";

/// Start and restart. A full queue is not noticed: the answer names a deployment that there is not.
pub(super) fn start(shared: &Arc<Shared>, uuid: &str, asked: &Asked, what: &str) -> Answer {
    if !shared.world().applications.contains_key(uuid) {
        return applications::unknown();
    }
    let (force, instant) = (asked.flag("force"), asked.flag("instant_deploy"));
    let queueing = shared.world().queue(uuid, force, instant, &work::now());
    work::dispatch(shared);
    let message = format!("{what} request queued.");
    match queueing {
        Queueing::Queued(deployment) => {
            Answer::ok(json!({ "message": message, "deployment_uuid": deployment }))
        }
        Queueing::Skipped => Answer::message(200, SKIPPED),
        Queueing::Full => Answer::ok(json!({ "message": message, "deployment_uuid": fresh_uuid() })),
    }
}

/// By the query or the body. What is skipped is named by an id of nothing.
pub(super) fn deploy(shared: &Arc<Shared>, asked: &Asked) -> Answer {
    let body = asked.sent();
    let named = asked.parameter("uuid").or_else(|| body.get("uuid").and_then(Value::as_str));
    let Some(named) = named else { return Answer::message(400, "You must provide uuid or tag.") };
    let mut deployments = Vec::new();
    for uuid in named.split(',').map(str::trim) {
        let Some(name) = shared.world().applications.get(uuid).map(|application| application.name()) else {
            continue;
        };
        let queueing = shared.world().queue(uuid, asked.flag("force"), false, &work::now());
        work::dispatch(shared);
        let (message, deployment) = match queueing {
            Queueing::Queued(deployment) => (format!("Application {name} deployment queued."), deployment),
            Queueing::Skipped => (SKIPPED.to_owned(), fresh_uuid()),
            Queueing::Full => {
                let why = "Deployment queue is full. Please wait for existing deployments to complete.";
                return Answer::message(429, why).with("retry-after", shared.settings.full_retry_after_s);
            }
        };
        deployments.push(json!({ "message": message, "resource_uuid": uuid, "deployment_uuid": deployment }));
    }
    match deployments.is_empty() {
        true => Answer::message(404, "No resources found."),
        false => Answer::ok(json!({ "deployments": deployments })),
    }
}

/// All that are under way. Sorting keeps the keys, so that more than one comes as an object.
pub(super) fn list(shared: &Shared, asked: &Asked) -> Answer {
    let world = shared.world();
    let rows: Vec<_> = world.all_active().map(|row| row.row(asked.reads_secrets)).collect();
    if rows.len() < 2 {
        return Answer::ok(Value::Array(rows));
    }
    let keyed: Map<_, _> = rows.into_iter().enumerate().map(|(at, row)| (at.to_string(), row)).collect();
    Answer::ok(Value::Object(keyed))
}

pub(super) fn of(shared: &Shared, uuid: &str, asked: &Asked) -> Answer {
    let world = shared.world();
    if !world.applications.contains_key(uuid) {
        return Answer::message(404, "Application not found");
    }
    let own = || world.deployments.iter().rev().filter(|row| row.application == uuid);
    let page = own().skip(asked.number("skip", 0)).take(asked.number("take", 10));
    let rows: Vec<_> = page.map(|row| row.row(asked.reads_secrets)).collect();
    Answer::ok(json!({ "count": own().count(), "deployments": rows }))
}

pub(super) fn show(shared: &Shared, uuid: &str, asked: &Asked) -> Answer {
    match shared.world().deployment(uuid) {
        Some(row) => Answer::ok(row.row(asked.reads_secrets)),
        None => Answer::message(404, "Deployment not found."),
    }
}

pub(super) fn cancel(shared: &Arc<Shared>, uuid: &str) -> Answer {
    let status = shared.world().deployment(uuid).map(|row| row.status);
    match status {
        None => Answer::message(404, "Deployment not found."),
        Some(DeploymentStatus::Queued | DeploymentStatus::InProgress) => {
            work::cancel(shared, uuid);
            let message = "Deployment cancelled successfully.";
            let status = DeploymentStatus::Cancelled.as_str();
            Answer::ok(json!({ "message": message, "deployment_uuid": uuid, "status": status }))
        }
        Some(status) => {
            let why = format!("Deployment cannot be cancelled. Current status: {}", status.as_str());
            Answer::message(400, &why)
        }
    }
}
