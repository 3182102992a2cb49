//! What can go wrong with a Docker engine, and what that means to whoever asked.

use bollard::errors::Error as EngineError;
use meeboter_actors::ids::HostName;
use meeboter_actors::ports::DriverError;
use std::path::PathBuf;
use std::time::Duration;

/// Why an engine did not do something. No variant ever holds a password or a bot's token.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum DockerError {
    #[error(
        "host {0} is not configured: add [hosts.{0}], or, if it is lost for good, have its slots forgotten"
    )]
    UnknownHost(HostName),
    #[error(
        "the engine on {host} is away: {words}; is dockerd running, and its address right (hosts.{host}.docker_url)?"
    )]
    Away { host: HostName, words: String },
    #[error("the engine on {host} did not answer within {} s: {call}", .limit.as_secs())]
    Unanswered { host: HostName, call: &'static str, limit: Duration },
    #[error("image {image} is not on {host} (it is pulled again with the next start): {words}")]
    NoSuchImage { host: HostName, image: String, words: String },
    #[error("image {image} cannot be pulled to {host}: {words}")]
    PullRefused { host: HostName, image: String, words: String },
    #[error("no such container on {host}: {container}")]
    NoSuchContainer { host: HostName, container: String },
    #[error("the name {container} is taken on {host} by a container of somebody else; remove or rename it")]
    NameTaken { host: HostName, container: String },
    #[error("the disk of {host} is full: {words}; free some room (docker system df)")]
    DiskFull { host: HostName, words: String },
    #[error("generation {generation} of this slot was stopped")]
    Fenced { generation: i64 },
    #[error("the container of this generation has ended already: {note}")]
    Ended { note: String },
    #[error("what {container} on {host} left cannot be saved, so it is not removed: {words}")]
    Unsaved { host: HostName, container: String, words: String },
    #[error("the folders of past bots cannot be used: {words}")]
    Folders { words: String },
    #[error("another operation on this slot does not end")]
    Turn,
    #[error("the TLS files in {} cannot be used (ca.pem, cert.pem, key.pem): {words}", .folder.display())]
    Tls { folder: PathBuf, words: String },
    #[error("the engine on {host} refused to {call} ({status}): {words}")]
    Refused { host: HostName, call: &'static str, status: u16, words: String },
    #[error("the engine on {host} is not understood ({call}): {words}")]
    Garbled { host: HostName, call: &'static str, words: String },
}

impl DockerError {
    /// What an engine's error to a call means.
    pub(super) fn of(host: &HostName, call: &'static str, error: EngineError) -> Self {
        let host = host.clone();
        match error {
            EngineError::DockerResponseServerError { status_code, message } => {
                Self::refusal(host, call, status_code, message)
            }
            EngineError::DockerStreamError { error } => Self::refusal(host, call, 500, error),
            EngineError::DockerContainerWaitError { error, .. } if !error.is_empty() => {
                Self::refusal(host, call, 500, error)
            }
            EngineError::SocketNotFoundError(socket) => {
                Self::Away { host, words: format!("there is no socket {socket}") }
            }
            error @ (EngineError::JsonDataError { .. }
            | EngineError::JsonSerdeError { .. }
            | EngineError::StrParseError { .. }) => Self::Garbled { host, call, words: error.to_string() },
            error => Self::Away { host, words: chain(&error) },
        }
    }

    fn refusal(host: HostName, call: &'static str, status: u16, words: String) -> Self {
        if words.contains("no space left on device") || words.contains("disk quota exceeded") {
            return Self::DiskFull { host, words };
        }
        Self::Refused { host, call, status, words }
    }

    /// The engine says that it does not have what was asked for.
    pub(super) fn is_missing(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. } | Self::NoSuchContainer { .. })
    }

    /// The engine says that it is at something else, or that the name is taken.
    pub(super) fn is_conflict(&self) -> bool {
        matches!(self, Self::Refused { status: 409, .. })
    }

    /// Whether the engine answered at all.
    fn answered(&self) -> bool {
        !matches!(self, Self::Away { .. } | Self::Unanswered { .. } | Self::Turn)
    }

    /// Whether another try of the same may help.
    fn retryable(&self) -> bool {
        match self {
            Self::Away { .. } | Self::Unanswered { .. } | Self::Turn | Self::Garbled { .. } => true,
            Self::Refused { status, .. } => *status >= 500 || matches!(*status, 409 | 429),
            Self::Unsaved { .. }
            | Self::Folders { .. }
            | Self::DiskFull { .. }
            | Self::PullRefused { .. } => true,
            Self::NoSuchImage { .. } | Self::NoSuchContainer { .. } | Self::NameTaken { .. } => false,
            Self::UnknownHost(_) | Self::Fenced { .. } | Self::Ended { .. } | Self::Tls { .. } => false,
        }
    }
}

impl From<DockerError> for DriverError {
    fn from(error: DockerError) -> Self {
        Self { answered: error.answered(), retryable: error.retryable(), message: error.to_string() }
    }
}

/// An error with all that is below it: "client error (Connect)" alone says nothing.
fn chain(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(below) = source {
        let said = below.to_string();
        if !words.contains(&said) {
            words = format!("{words}: {said}");
        }
        source = below.source();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status_code: u16, message: &str) -> DockerError {
        let error = EngineError::DockerResponseServerError { status_code, message: message.to_owned() };
        DockerError::of(&HostName("far".into()), "create a container", error)
    }

    #[test]
    fn a_full_disk_is_told_from_other_refusals() {
        let full = of(500, "mkdir /var/lib/docker/overlay2/x: no space left on device");
        assert!(matches!(full, DockerError::DiskFull { .. }), "{full}");
        assert!(full.to_string().contains("far") && full.to_string().contains("no space left"), "{full}");
        assert!(matches!(of(500, "boom"), DockerError::Refused { status: 500, .. }));
    }

    #[test]
    fn what_may_be_tried_again_and_whether_the_engine_answered() {
        let host = || HostName("far".into());
        for (error, answered, retryable) in [
            (of(500, "boom"), true, true),
            (of(409, "removal in progress"), true, true),
            (of(404, "no such container"), true, false),
            (of(400, "bad parameter"), true, false),
            (DockerError::of(&host(), "list", EngineError::SocketNotFoundError("/s".into())), false, true),
            (
                DockerError::Unanswered { host: host(), call: "list", limit: Duration::from_secs(1) },
                false,
                true,
            ),
            (DockerError::Fenced { generation: 3 }, true, false),
            (DockerError::UnknownHost(host()), true, false),
        ] {
            let told = error.to_string();
            let driver = DriverError::from(error);
            assert_eq!((driver.answered, driver.retryable), (answered, retryable), "{told}");
            assert_eq!(driver.message, told);
        }
    }
}
