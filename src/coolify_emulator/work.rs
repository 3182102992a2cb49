//! What Coolify does in the background: deployments, stops, deletions, and looks at what really runs.

use super::deployments::DeploymentStatus;
use super::world::{Application, EXITED};
use super::{ContainerSpec, ContainerState, Shared, lock};
use chrono::{SecondsFormat, Utc};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::AbortHandle;
use tokio::time::sleep;

/// Deployments that are under way.
#[derive(Default)]
pub(super) struct Jobs {
    deployments: HashMap<String, AbortHandle>,
}

/// The time as rows have it.
pub(super) fn now() -> String {
    Utc::now().to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// Begins whatever may begin.
pub(super) fn dispatch(shared: &Arc<Shared>) {
    let begun = shared.world().dispatch();
    for uuid in begun {
        let (theirs, row) = (Arc::clone(shared), uuid.clone());
        let job = tokio::spawn(async move {
            deploy(&theirs, &row).await;
            lock(&theirs.jobs).deployments.remove(&row);
            dispatch(&theirs);
        });
        lock(&shared.jobs).deployments.insert(uuid, job.abort_handle());
    }
}

/// One deployment, from its place at a worker on.
async fn deploy(shared: &Arc<Shared>, uuid: &str) {
    let Ok(_worker) = shared.workers.acquire().await else { return };
    let pace = shared.settings.pace;
    // What is changed from here on, it does not see.
    let Some(spec) = shared.world().composed(uuid) else { return };
    if !shared.world().cached.contains(&spec.image) {
        sleep(pace.pull).await;
    }
    if let Err(why) = shared.containers.pull(&spec.image).await {
        return fail(shared, uuid, &why);
    }
    shared.world().cached.insert(spec.image.clone());
    sleep(pace.build * 3 / 4).await;
    if shared.world().composed(uuid).is_none() {
        return;
    }
    if let Err(why) = shared.containers.start(&spec).await {
        return fail(shared, uuid, &why);
    }
    let old = took_over(shared, &spec);
    sleep(pace.build / 4).await;
    if shared.world().composed(uuid).is_none() {
        // Cancelled after the container was up: it stays, beside the old one.
        return;
    }
    for container in old {
        stop_container(shared, &container).await;
    }
    shared.world().settle(uuid, DeploymentStatus::Finished, None);
    let theirs = Arc::clone(shared);
    tokio::spawn(async move {
        sleep(theirs.settings.pace.look_after).await;
        look(&theirs).await;
    });
}

fn fail(shared: &Arc<Shared>, uuid: &str, why: &str) {
    shared.world().settle(uuid, DeploymentStatus::Failed, Some(why.to_owned()));
}

/// Notes a new container; answers with those that were there before.
fn took_over(shared: &Arc<Shared>, spec: &ContainerSpec) -> Vec<ContainerSpec> {
    let mut world = shared.world();
    // Where the application is gone by now, the container is an orphan that nobody knows of.
    let Some(application) = world.applications.get_mut(&spec.application) else { return Vec::new() };
    let old = application.containers.clone();
    application.containers.push(spec.clone());
    old
}

async fn stop_container(shared: &Arc<Shared>, container: &ContainerSpec) {
    let grace = {
        let world = shared.world();
        let application = world.applications.get(&container.application);
        application.and_then(|application| application.fields.get("stop_grace_period")?.as_u64())
    };
    // An error of Docker's is swallowed, as Coolify does.
    if shared.containers.stop(&container.name, Duration::from_secs(grace.unwrap_or(30))).await.is_ok()
        && let Some(application) = shared.world().applications.get_mut(&container.application)
    {
        application.containers.retain(|known| known.name != container.name);
    }
}

/// Queues a stop: it removes the containers that there are when it runs, and cancels no deployment.
pub(super) fn queue_stop(shared: &Arc<Shared>, application: &str) {
    let (shared, application) = (Arc::clone(shared), application.to_owned());
    tokio::spawn(async move {
        let Ok(_worker) = shared.workers.acquire().await else { return };
        sleep(shared.settings.pace.stop).await;
        stop(&shared, &application).await;
    });
}

async fn stop(shared: &Arc<Shared>, uuid: &str) {
    let containers = shared.world().applications.get(uuid).map(|known| known.containers.clone());
    for container in containers.into_iter().flatten() {
        stop_container(shared, &container).await;
    }
    let mut world = shared.world();
    let frozen = world.statuses_frozen;
    if let Some(application) = world.applications.get_mut(uuid) {
        application.restart_count = 0;
        if !frozen {
            application.status = EXITED.to_owned();
        }
    }
}

/// Queues a deletion: until it has run the application is there as before.
pub(super) fn queue_deletion(shared: &Arc<Shared>, application: &str) {
    let (shared, uuid) = (Arc::clone(shared), application.to_owned());
    tokio::spawn(async move {
        let Ok(_worker) = shared.workers.acquire().await else { return };
        sleep(shared.settings.pace.stop).await;
        stop(&shared, &uuid).await;
        let mut world = shared.world();
        world.applications.remove(&uuid);
        world.deployments.retain(|row| row.application != uuid);
    });
}

/// Cancels a deployment that is queued or under way: the row and its helper, not what it has started.
pub(super) fn cancel(shared: &Arc<Shared>, uuid: &str) {
    shared.world().settle(uuid, DeploymentStatus::Cancelled, None);
    dispatch(shared);
}

/// Coolify is restarted: deployments under way are failed, and what they did so far stays.
pub(super) fn restart(shared: &Arc<Shared>) {
    for (_, job) in lock(&shared.jobs).deployments.drain() {
        job.abort();
    }
    shared.world().fail_all();
}

/// Restarts programs that ended and looks at what runs, for ever.
pub(super) async fn look_after(shared: Arc<Shared>) {
    let pace = shared.settings.pace;
    let looks = async {
        loop {
            sleep(pace.look_interval).await;
            look(&shared).await;
        }
    };
    let restarts = async {
        loop {
            sleep(pace.restart).await;
            restart_ended(&shared).await;
        }
    };
    tokio::join!(looks, restarts);
}

fn all_containers(shared: &Arc<Shared>) -> Vec<ContainerSpec> {
    shared.world().applications.values().flat_map(|application| application.containers.clone()).collect()
}

/// Docker's policy `unless-stopped`: whatever ends is started again, ten times, and then Coolify removes it.
async fn restart_ended(shared: &Arc<Shared>) {
    for container in all_containers(shared) {
        if shared.containers.state(&container.name).await != ContainerState::Exited {
            continue;
        }
        let restarts = {
            let mut world = shared.world();
            let Some(application) = world.applications.get_mut(&container.application) else { continue };
            application.restart_count += 1;
            let most = application.fields.get("max_restart_count").and_then(|most| most.as_u64());
            (application.restart_count, most.unwrap_or(10))
        };
        if restarts.1 > 0 && restarts.0 >= restarts.1 {
            queue_stop(shared, &container.application);
        } else {
            // What cannot be started is tried again at the next look.
            drop(shared.containers.start(&container).await);
        }
    }
}

/// Stores what really runs as the applications' statuses.
pub(super) async fn look(shared: &Arc<Shared>) {
    if shared.world().statuses_frozen {
        return;
    }
    let mut states = HashMap::new();
    for container in all_containers(shared) {
        let state = shared.containers.state(&container.name).await;
        states.insert(container.name, state);
    }
    let mut world = shared.world();
    for application in world.applications.values_mut() {
        application.status = status(application, &states).to_owned();
    }
}

/// What Coolify makes of the states of an application's containers.
fn status(application: &Application, states: &HashMap<String, ContainerState>) -> &'static str {
    let known: Vec<ContainerState> =
        application.containers.iter().filter_map(|container| states.get(&container.name).copied()).collect();
    let any = |wanted| known.contains(&wanted);
    match (any(ContainerState::Running), any(ContainerState::Exited)) {
        (true, true) => "degraded:unhealthy",
        (true, false) => "running:unknown",
        (false, true) => "restarting:unknown",
        (false, false) => EXITED,
    }
}

/// Ends what runs, with the emulator.
pub(super) async fn end(shared: &Arc<Shared>) {
    restart(shared);
    for container in all_containers(shared) {
        drop(shared.containers.stop(&container.name, Duration::from_secs(10)).await);
    }
}
