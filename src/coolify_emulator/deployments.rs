//! The queue of deployments and its rules, with the mistakes that clients have to live with. Pure.

use super::containers::ContainerSpec;
use super::world::{World, fresh_uuid};
use serde_json::{Value, json};

/// How a deployment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DeploymentStatus {
    Queued,
    /// From the moment that it is handed to a worker, whether or not one takes it.
    InProgress,
    Finished,
    Failed,
    Cancelled,
}

impl DeploymentStatus {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::InProgress => "in_progress",
            Self::Finished => "finished",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled-by-user",
        }
    }

    fn is_active(self) -> bool {
        matches!(self, Self::Queued | Self::InProgress)
    }
}

/// A deployment of an application.
#[derive(Debug, Clone)]
pub(super) struct Deployment {
    pub(super) id: u64,
    pub(super) uuid: String,
    pub(super) application: String,
    pub(super) application_name: String,
    pub(super) status: DeploymentStatus,
    /// Past the limit of concurrent builds and the lock of its application.
    is_instant: bool,
    /// What it said.
    pub(super) log: Vec<String>,
    created_at: String,
}

/// What came of asking for a deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Queueing {
    /// It is queued, or begins.
    Queued(String),
    /// There is one under way already.
    Skipped,
    /// Too many wait.
    Full,
}

impl Deployment {
    /// The row as the API shows it.
    pub(super) fn row(&self, reads_secrets: bool) -> Value {
        let mut row = json!({
            "id": self.id, "deployment_uuid": self.uuid, "application_id": "1", "status": self.status.as_str(),
            "application_name": self.application_name, "commit": "HEAD", "force_rebuild": false,
            "restart_only": false, "is_api": true, "is_webhook": false, "rollback": false,
            "pull_request_id": 0, "server_id": 1, "server_name": "emulated", "destination_id": "1",
            "deployment_url": format!("/deployment/{}", self.uuid), "created_at": self.created_at,
            "updated_at": self.created_at, "finished_at": null,
        });
        if reads_secrets {
            let lines: Vec<_> = self
                .log
                .iter()
                .map(|line| json!({ "output": line, "type": "stdout", "hidden": false }))
                .collect();
            row["logs"] = json!(Value::Array(lines).to_string());
        }
        row
    }
}

impl World {
    /// Asks for a deployment. `instant` goes past the rules of the queue, but not past its limit.
    pub(super) fn queue(&mut self, application: &str, force: bool, instant: bool, now: &str) -> Queueing {
        let Some(name) = self.applications.get(application).map(|application| application.name()) else {
            return Queueing::Skipped;
        };
        let waiting = self.deployments.iter().filter(|row| row.status == DeploymentStatus::Queued).count();
        if waiting >= self.site.queue_limit {
            return Queueing::Full;
        }
        let is_under_way = self.active(application).next().is_some();
        if is_under_way && !force && !instant {
            return Queueing::Skipped;
        }
        let id = self.next_id();
        let uuid = fresh_uuid();
        self.deployments.push(Deployment {
            id,
            uuid: uuid.clone(),
            application: application.to_owned(),
            application_name: name,
            status: DeploymentStatus::Queued,
            is_instant: instant,
            log: Vec::new(),
            created_at: now.to_owned(),
        });
        Queueing::Queued(uuid)
    }

    /// Hands out what may begin now: so many at a time, one of each application, the oldest first.
    pub(super) fn dispatch(&mut self) -> Vec<String> {
        let mut begun = Vec::new();
        for at in 0..self.deployments.len() {
            let row = &self.deployments[at];
            if row.status != DeploymentStatus::Queued {
                continue;
            }
            let in_progress =
                || self.deployments.iter().filter(|row| row.status == DeploymentStatus::InProgress);
            let is_locked = in_progress().any(|other| other.application == row.application);
            let is_busy = in_progress().count() >= self.site.concurrent_builds;
            if row.is_instant || (!is_locked && !is_busy) {
                self.deployments[at].status = DeploymentStatus::InProgress;
                begun.push(self.deployments[at].uuid.clone());
            }
        }
        begun
    }

    /// The deployments of an application that are queued or under way.
    pub(super) fn active(&self, application: &str) -> impl Iterator<Item = &Deployment> {
        self.deployments.iter().filter(move |row| row.application == application && row.status.is_active())
    }

    /// All that are queued or under way.
    pub(super) fn all_active(&self) -> impl Iterator<Item = &Deployment> {
        self.deployments.iter().filter(|row| row.status.is_active())
    }

    pub(super) fn deployment(&mut self, uuid: &str) -> Option<&mut Deployment> {
        self.deployments.iter_mut().find(|row| row.uuid == uuid)
    }

    /// Ends a deployment that is still under way.
    pub(super) fn settle(&mut self, uuid: &str, status: DeploymentStatus, line: Option<String>) {
        if let Some(row) = self.deployment(uuid).filter(|row| row.status.is_active()) {
            row.status = status;
            row.log.extend(line);
        }
    }

    /// What a deployment makes its container from; `None`: it was cancelled, or its application is gone.
    pub(super) fn composed(&self, uuid: &str) -> Option<ContainerSpec> {
        let row = self.deployments.iter().find(|row| row.uuid == uuid)?;
        if row.status != DeploymentStatus::InProgress {
            return None;
        }
        // A name of its own for every deployment: the old container runs on beside the new one.
        let suffix: String = row.uuid.chars().take(12).collect();
        let application = self.applications.get(&row.application)?;
        Some(application.compose(format!("{}-{suffix}", row.application)))
    }

    /// What a restart of Coolify does to deployments: nobody takes them up again.
    pub(super) fn fail_all(&mut self) {
        for row in self.deployments.iter_mut().filter(|row| row.status.is_active()) {
            row.status = DeploymentStatus::Failed;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::world::Site;
    use super::*;

    fn world(applications: usize) -> (World, Vec<String>) {
        let mut world = World::new(Site { queue_limit: 3, ..Site::default() });
        let body = json!({ "docker_registry_image_name": "x" });
        let body = body.as_object().expect("an object");
        let uuids = (0..applications).map(|_| world.create(body, "t").expect("made")).collect();
        (world, uuids)
    }

    fn queued(outcome: Queueing) -> String {
        match outcome {
            Queueing::Queued(uuid) => uuid,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn two_begin_three_wait_and_the_next_is_too_many() {
        let (mut world, applications) = world(6);
        for application in &applications[..5] {
            queued(world.queue(application, false, false, "t"));
            world.dispatch();
        }
        assert_eq!(world.all_active().filter(|row| row.status == DeploymentStatus::InProgress).count(), 2);
        assert_eq!(
            world.queue(&applications[5], false, true, "t"),
            Queueing::Full,
            "also where it would not wait"
        );
        let first = world.deployments[0].uuid.clone();
        world.settle(&first, DeploymentStatus::Finished, None);
        assert_eq!(world.dispatch(), [world.deployments[2].uuid.clone()]);
    }

    #[test]
    fn a_second_deployment_of_an_application_is_skipped_or_waits() {
        let (mut world, applications) = world(1);
        queued(world.queue(&applications[0], false, false, "t"));
        assert_eq!(world.dispatch().len(), 1);
        assert_eq!(world.queue(&applications[0], false, false, "t"), Queueing::Skipped);
        queued(world.queue(&applications[0], true, false, "t"));
        assert!(world.dispatch().is_empty(), "one of an application at a time");
        queued(world.queue(&applications[0], false, true, "t"));
        assert_eq!(world.dispatch().len(), 1, "but for the instant ones");
    }

    #[test]
    fn a_cancelled_deployment_makes_nothing() {
        let (mut world, applications) = world(1);
        let uuid = queued(world.queue(&applications[0], false, false, "t"));
        assert!(world.composed(&uuid).is_none(), "it has not begun");
        world.dispatch();
        assert!(world.composed(&uuid).is_some());
        world.settle(&uuid, DeploymentStatus::Cancelled, None);
        assert!(world.composed(&uuid).is_none());
        world.settle(&uuid, DeploymentStatus::Finished, None);
        assert_eq!(world.deployments[0].status, DeploymentStatus::Cancelled);
    }
}
