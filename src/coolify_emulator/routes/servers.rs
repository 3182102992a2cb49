//! The one server, the one project, and what belongs to them.

use super::super::answer::Answer;
use super::super::world::World;
use super::super::{Shared, validation};
use super::Asked;
use serde_json::{Value, json};

pub(super) fn projects(shared: &Shared) -> Answer {
    let world = shared.world();
    Answer::ok(json!([{ "id": 1, "uuid": world.site.project, "name": "Meetings", "description": null }]))
}

pub(super) fn project(shared: &Shared, uuid: &str) -> Answer {
    let world = shared.world();
    if world.site.project != uuid {
        return Answer::message(404, "Project not found.");
    }
    let environments = json!([{ "id": 1, "name": world.site.environment, "project_id": 1 }]);
    Answer::ok(json!({ "id": 1, "uuid": uuid, "name": "Meetings", "environments": environments }))
}

pub(super) fn environment(shared: &Shared, project: &str, name: &str) -> Answer {
    let world = shared.world();
    if world.site.project != project {
        return Answer::message(404, "Project not found.");
    }
    if world.site.environment != name {
        return Answer::message(404, "Environment not found.");
    }
    Answer::ok(json!({ "id": 1, "name": name, "project_id": 1 }))
}

fn row(world: &World) -> Value {
    json!({
        "id": 1, "uuid": world.site.server, "name": "emulated", "ip": "127.0.0.1", "port": 22, "user": "root",
        "settings": {
            "concurrent_builds": world.site.concurrent_builds,
            "deployment_queue_limit": world.site.queue_limit,
            "dynamic_timeout": 3600, "is_reachable": true, "is_usable": true,
        },
    })
}

fn known(world: &World, uuid: &str) -> Result<(), Answer> {
    if world.site.server == uuid { Ok(()) } else { Err(Answer::message(404, "Server not found.")) }
}

pub(super) fn list(shared: &Shared) -> Answer {
    Answer::ok(Value::Array(vec![row(&shared.world())]))
}

pub(super) fn show(shared: &Shared, uuid: &str) -> Answer {
    let world = shared.world();
    known(&world, uuid).map_or_else(|unknown| unknown, |()| Answer::ok(row(&world)))
}

pub(super) fn change(shared: &Shared, uuid: &str, asked: &Asked) -> Answer {
    let body = match asked.json() {
        Ok(body) => body,
        Err(refusal) => return refusal,
    };
    let errors = validation::server(&body);
    if !errors.is_empty() {
        return Answer::invalid(errors);
    }
    let mut world = shared.world();
    if let Err(unknown) = known(&world, uuid) {
        return unknown;
    }
    let number =
        |field: &str| body.get(field).and_then(Value::as_u64).and_then(|number| usize::try_from(number).ok());
    if let Some(builds) = number("concurrent_builds") {
        world.site.concurrent_builds = builds;
    }
    if let Some(limit) = number("deployment_queue_limit") {
        world.site.queue_limit = limit;
    }
    Answer::json(201, json!({ "uuid": uuid }))
}

pub(super) fn resources(shared: &Shared, uuid: &str) -> Answer {
    let world = shared.world();
    let resources = || world.list(None).into_iter().map(|application| application.resource()).collect();
    known(&world, uuid).map_or_else(|unknown| unknown, |()| Answer::ok(resources()))
}

pub(super) fn destinations(shared: &Shared, uuid: &str) -> Answer {
    let world = shared.world();
    let row = |destination: &String| {
        json!({ "uuid": destination, "name": "coolify", "network": "coolify", "type": "standalone",
            "server_uuid": uuid })
    };
    let rows = || world.site.destinations.iter().map(row).collect();
    known(&world, uuid).map_or_else(|unknown| unknown, |()| Answer::ok(rows()))
}
