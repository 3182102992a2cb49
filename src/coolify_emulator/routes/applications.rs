//! Applications: made, shown, changed, stopped, deleted.

use super::super::ContainerState;
use super::super::answer::Answer;
use super::super::deployments::Queueing;
use super::super::world::TooLong;
use super::super::{Shared, validation, work};
use super::Asked;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Several routes leave the full stop out.
pub(super) fn unknown() -> Answer {
    Answer::message(404, "Application not found.")
}

pub(super) fn list(shared: &Shared, asked: &Asked) -> Answer {
    let world = shared.world();
    let listed = world.list(asked.parameter("tag"));
    Answer::ok(listed.into_iter().map(|application| application.row(asked.reads_secrets)).collect())
}

pub(super) fn show(shared: &Shared, uuid: &str, asked: &Asked) -> Answer {
    let world = shared.world();
    world
        .applications
        .get(uuid)
        .map_or_else(unknown, |application| Answer::ok(application.row(asked.reads_secrets)))
}

pub(super) fn create(shared: &Arc<Shared>, asked: &Asked) -> Answer {
    let body = match asked.json() {
        Ok(body) => body,
        Err(refusal) => return refusal,
    };
    let errors = validation::creation(&body);
    if !errors.is_empty() {
        return Answer::invalid(errors);
    }
    if let Some(refusal) = misplaced(shared, &body) {
        return refusal;
    }
    let created = shared.world().create(&body, &work::now());
    match created {
        Err(TooLong) => Answer::server_error(),
        Ok(uuid) => {
            instantly(shared, &uuid, &body);
            let domain = body.get("autogenerate_domain").and_then(Value::as_bool).unwrap_or(true);
            let domain = domain.then(|| format!("http://{uuid}.127.0.0.1.sslip.io"));
            Answer::json(201, json!({ "uuid": uuid, "domains": domain }))
        }
    }
}

/// Why an application cannot be made where the body says.
fn misplaced(shared: &Shared, body: &Map<String, Value>) -> Option<Answer> {
    let text = |field: &str| body.get(field).and_then(Value::as_str);
    let world = shared.world();
    if text("project_uuid") != Some(&world.site.project) {
        return Some(Answer::message(404, "Project not found."));
    }
    if text("environment_name").is_some_and(|name| name != world.site.environment) {
        return Some(Answer::message(404, "Environment not found."));
    }
    if text("server_uuid") != Some(&world.site.server) {
        return Some(Answer::message(404, "Server not found."));
    }
    match (world.site.destinations.len(), text("destination_uuid")) {
        (0, _) => Some(Answer::message(400, "Server has no destinations.")),
        // With exactly one, whatever is said of it is ignored.
        (1, _) => None,
        (_, None) => {
            let why = "Server has multiple destinations and you do not set destination_uuid.";
            Some(Answer::message(400, why))
        }
        (_, Some(wanted)) if world.site.destinations.iter().any(|known| known == wanted) => None,
        (_, Some(_)) => {
            let why = "Provided destination_uuid does not belong to the specified server.";
            Some(Answer::invalid_by_hand("destination_uuid", why))
        }
    }
}

/// Deploys past the queue's rules where the body says so; that nothing came of it, nobody is told.
fn instantly(shared: &Arc<Shared>, uuid: &str, body: &Map<String, Value>) -> Option<Queueing> {
    if !body.get("instant_deploy").and_then(Value::as_bool).unwrap_or(false) {
        return None;
    }
    let queueing = {
        let mut world = shared.world();
        let is_under_way = world.active(uuid).next().is_some();
        if is_under_way { Queueing::Skipped } else { world.queue(uuid, false, true, &work::now()) }
    };
    work::dispatch(shared);
    Some(queueing)
}

pub(super) fn change(shared: &Arc<Shared>, uuid: &str, asked: &Asked) -> Answer {
    let body = match asked.json() {
        Ok(body) => body,
        Err(refusal) => return refusal,
    };
    if !shared.world().applications.contains_key(uuid) {
        return Answer::message(404, "Application not found");
    }
    let errors = validation::change(&body);
    if !errors.is_empty() {
        return Answer::invalid(errors);
    }
    let changed = match shared.world().applications.get_mut(uuid) {
        None => return Answer::message(404, "Application not found"),
        Some(application) => application.change(&body, &work::now()),
    };
    if changed == Err(TooLong) {
        return Answer::server_error();
    }
    match instantly(shared, uuid, &body) {
        Some(Queueing::Skipped) => Answer::message(200, "Deployment already queued for this commit."),
        _ => Answer::ok(json!({ "uuid": uuid })),
    }
}

pub(super) fn stop(shared: &Arc<Shared>, uuid: &str) -> Answer {
    if !shared.world().applications.contains_key(uuid) {
        return unknown();
    }
    work::queue_stop(shared, uuid);
    Answer::message(200, "Application stopping request queued.")
}

pub(super) fn delete(shared: &Arc<Shared>, uuid: &str) -> Answer {
    match shared.world().applications.get_mut(uuid) {
        None => return Answer::message(404, "Application not found"),
        // Asked for again before the job has run: the same answer.
        Some(application) if application.is_doomed => {}
        Some(application) => {
            application.is_doomed = true;
            work::queue_deletion(shared, uuid);
        }
    }
    Answer::message(200, "Application deletion request queued.")
}

/// Looks at what really runs, whatever the status says.
pub(super) async fn logs(shared: &Shared, uuid: &str, asked: &Asked) -> Answer {
    let containers = match shared.world().applications.get(uuid) {
        None => return unknown(),
        Some(application) => application.containers.clone(),
    };
    for container in containers {
        if shared.containers.state(&container.name).await == ContainerState::Running {
            let logs = shared.containers.logs(&container.name, asked.number("lines", 100)).await;
            return Answer::ok(json!({ "logs": logs }));
        }
    }
    not_running()
}

pub(super) fn not_running() -> Answer {
    Answer::message(400, "Application is not running.")
}
