//! Applications as real containers of a Docker engine, as Coolify runs them: restarted unless they are stopped.

use super::containers::{ContainerSpec, ContainerState, Containers};
use async_trait::async_trait;
use bollard::errors::Error;
use bollard::models::{
    ContainerCreateBody, ContainerStateStatusEnum, HostConfig, RestartPolicy, RestartPolicyNameEnum,
};
use bollard::query_parameters::{
    CreateContainerOptions, CreateImageOptions, InspectContainerOptions, LogsOptions, RemoveContainerOptions,
    StartContainerOptions, StopContainerOptions,
};
use bollard::{API_DEFAULT_VERSION, Docker};
use futures_util::{StreamExt, pin_mut};
use std::collections::HashMap;
use std::time::Duration;

/// How long the engine may take for one call, in seconds.
const CALL_LIMIT_S: u64 = 120;
/// Bytes of a log that are kept for its last lines.
const LOG_TAIL_BYTES: usize = 64 * 1024;
/// What Coolify marks its containers with.
const LABEL: &str = "coolify.managed";

/// See the module.
pub struct DockerContainers {
    client: Docker,
}

impl DockerContainers {
    /// Containers of the engine at a socket, on the network of its host: the emulator's machine is one with the server's.
    pub async fn connect(url: &str) -> Result<Self, Error> {
        let client = Docker::connect_with_unix(url, CALL_LIMIT_S, API_DEFAULT_VERSION)?;
        Ok(Self { client: client.negotiate_version().await? })
    }
}

fn words(error: &Error) -> String {
    match error {
        Error::DockerResponseServerError { message, .. } => format!("Error response from daemon: {message}"),
        error => error.to_string(),
    }
}

fn is_missing(error: &Error) -> bool {
    matches!(error, Error::DockerResponseServerError { status_code: 404, .. })
}

/// A limit as compose files have it, in bytes; `None`: none, or not understood.
fn bytes(limit: &str) -> Option<i64> {
    let digits = limit.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = match limit[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1 << 10,
        "m" | "mb" => 1 << 20,
        "g" | "gb" => 1 << 30,
        _ => return None,
    };
    digits.parse::<i64>().ok().and_then(|count| count.checked_mul(unit)).filter(|bytes| *bytes > 0)
}

/// Processors as compose files have them, in billionths; `None`: no limit, or not understood.
fn nano_cpus(limit: &str) -> Option<i64> {
    // Small and positive.
    limit.parse::<f64>().ok().map(|cpus| (cpus * 1e9) as i64).filter(|nano| *nano > 0)
}

/// The size of the shared memory among options of `docker run`.
fn shm_size(options: &str) -> Option<i64> {
    let size = options.split_once("--shm-size")?.1.trim_start_matches(['=', ' ']);
    bytes(size.split_whitespace().next()?)
}

#[async_trait]
impl Containers for DockerContainers {
    /// One that is there will do: what is tried here need not be in a registry.
    async fn pull(&self, image: &str) -> Result<(), String> {
        if self.client.inspect_image(image).await.is_ok() {
            return Ok(());
        }
        let (name, tag) = image.rsplit_once(':').unwrap_or((image, "latest"));
        let options = CreateImageOptions {
            from_image: Some(name.to_owned()),
            tag: Some(tag.to_owned()),
            ..CreateImageOptions::default()
        };
        let reports = self.client.create_image(Some(options), None, None);
        pin_mut!(reports);
        while let Some(report) = reports.next().await {
            report.map_err(|error| words(&error))?;
        }
        Ok(())
    }

    async fn start(&self, spec: &ContainerSpec) -> Result<(), String> {
        let host_config = HostConfig {
            network_mode: Some("host".to_owned()),
            memory: bytes(&spec.memory),
            nano_cpus: nano_cpus(&spec.cpus),
            shm_size: shm_size(&spec.run_options),
            restart_policy: Some(RestartPolicy {
                name: Some(RestartPolicyNameEnum::UNLESS_STOPPED),
                maximum_retry_count: None,
            }),
            ..HostConfig::default()
        };
        let body = ContainerCreateBody {
            image: Some(spec.image.clone()),
            env: Some(spec.environment.iter().map(|(key, value)| format!("{key}={value}")).collect()),
            labels: Some(HashMap::from([(LABEL.to_owned(), "true".to_owned())])),
            host_config: Some(host_config),
            ..ContainerCreateBody::default()
        };
        let options = CreateContainerOptions { name: Some(spec.name.clone()), platform: String::new() };
        match self.client.create_container(Some(options), body).await {
            // It exited, and is started again.
            Ok(_) | Err(Error::DockerResponseServerError { status_code: 409, .. }) => {}
            Err(error) => return Err(words(&error)),
        }
        let started = self.client.start_container(&spec.name, None::<StartContainerOptions>).await;
        started.map_err(|error| words(&error))
    }

    async fn stop(&self, name: &str, grace: Duration) -> Result<(), String> {
        let seconds = i32::try_from(grace.as_secs()).unwrap_or(i32::MAX);
        let options = StopContainerOptions { t: Some(seconds), signal: None };
        // One that has stopped is removed all the same.
        self.client.stop_container(name, Some(options)).await.ok();
        let options = RemoveContainerOptions { v: true, force: true, link: false };
        match self.client.remove_container(name, Some(options)).await {
            Err(error) if !is_missing(&error) => Err(words(&error)),
            _ => Ok(()),
        }
    }

    async fn state(&self, name: &str) -> ContainerState {
        let inspected = self.client.inspect_container(name, None::<InspectContainerOptions>).await;
        let status = inspected.ok().and_then(|inspected| inspected.state).and_then(|state| state.status);
        match status {
            None => ContainerState::Absent,
            Some(ContainerStateStatusEnum::EXITED | ContainerStateStatusEnum::DEAD) => ContainerState::Exited,
            Some(_) => ContainerState::Running,
        }
    }

    async fn logs(&self, name: &str, lines: usize) -> String {
        let options =
            LogsOptions { stdout: true, stderr: true, tail: lines.to_string(), ..LogsOptions::default() };
        let chunks = self.client.logs(name, Some(options));
        pin_mut!(chunks);
        let mut text = Vec::new();
        while let Some(Ok(chunk)) = chunks.next().await {
            text.extend_from_slice(&chunk.into_bytes());
            let surplus = text.len().saturating_sub(LOG_TAIL_BYTES);
            text.drain(..surplus);
        }
        String::from_utf8_lossy(&text).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_as_compose_files_have_them() {
        for (limit, expected) in
            [("0", None), ("2048m", Some(2 << 30)), ("1G", Some(1 << 30)), ("64", Some(64)), ("x", None)]
        {
            assert_eq!(bytes(limit), expected, "{limit}");
        }
        assert_eq!((nano_cpus("1.5"), nano_cpus("0")), (Some(1_500_000_000), None));
        assert_eq!(shm_size("--init --shm-size=512m"), Some(512 << 20));
        assert_eq!((shm_size("--shm-size 1g --init"), shm_size("--init")), (Some(1 << 30), None));
    }
}
