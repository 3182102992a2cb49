//! What can fail with segments and recordings.

use crate::telemetry::chain;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStreamError;
use meeboter_actors::ports::ArtifactsError;
use std::error::Error;
use std::io;
use std::time::Duration;

/// HTTP statuses of refusals that may pass.
const PASSING: [u16; 2] = [408, 429];

/// What failed, on what.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The settings name something that cannot be.
    #[error("{what} is not usable: {value:?}")]
    Setting {
        /// Which setting.
        what: &'static str,
        /// Its value.
        value: String,
    },
    /// The store answered with an error.
    #[error("cannot {what}: the store answers {status} {answer}")]
    Refused {
        /// What was asked.
        what: String,
        /// HTTP status.
        status: u16,
        /// Code and message.
        answer: String,
    },
    /// The store did not answer, or not to the end.
    #[error("cannot {what}: {detail}")]
    Unanswered {
        /// What was asked.
        what: String,
        /// What is known of it.
        detail: String,
    },
    /// A file in a spool is no finished piece.
    #[error("{} is no finished piece of a recording", .0.display())]
    NoPiece(std::path::PathBuf),
    /// A URL could not be signed.
    #[error("cannot sign a URL: {0}")]
    Presign(String),
    /// The segments exceed the bound.
    #[error("the segments are {bytes} bytes, more than the {max} that may be joined")]
    TooLarge {
        /// Their size.
        bytes: u64,
        /// The bound.
        max: u64,
    },
    /// The disk is too full.
    #[error("joining needs {needed} bytes in the temporary folder, {free} are free")]
    DiskFull {
        /// Needed.
        needed: u64,
        /// Free.
        free: u64,
    },
    /// There are segments, and none can be played.
    #[error("none of the {segments} segments can be played")]
    Unplayable {
        /// How many there are.
        segments: usize,
    },
    /// A program could not be run.
    #[error("cannot run {program}")]
    Program {
        /// Which.
        program: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A program failed.
    #[error("{program} fails ({status}): {tail}")]
    ProgramFailed {
        /// Which.
        program: &'static str,
        /// How it ended.
        status: String,
        /// The last it said.
        tail: String,
    },
    /// A program was killed, or had no room: that says nothing of what it was given.
    #[error("{program} is stopped ({status}): {tail}")]
    ProgramStopped {
        /// Which.
        program: &'static str,
        /// How it ended.
        status: String,
        /// The last it said.
        tail: String,
    },
    /// Something took too long.
    #[error("{what} takes more than {} s", limit.as_secs())]
    Late {
        /// What.
        what: &'static str,
        /// How long it may take.
        limit: Duration,
    },
    /// A temporary file failed.
    #[error("cannot {what}")]
    File {
        /// What was done with it.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Failure {
    /// From an answer, or its absence, of the store.
    pub(super) fn store<E, R>(what: impl Into<String>, error: SdkError<E, R>) -> Self
    where
        SdkError<E, R>: Error,
        E: ProvideErrorMetadata,
        R: HasStatus,
    {
        let what = what.into();
        let status = error.raw_response().map(HasStatus::status);
        match (status, error.as_service_error()) {
            (Some(status), Some(service)) => {
                let (code, message) = (service.code().unwrap_or_default(), service.message());
                let answer = format!("{code} {}", message.unwrap_or_default()).trim().to_owned();
                Self::Refused { what, status, answer }
            }
            _ => Self::Unanswered { what, detail: chain(&error) },
        }
    }

    /// From a body that broke off.
    pub(super) fn body(what: impl Into<String>, error: &ByteStreamError) -> Self {
        Self::Unanswered { what: what.into(), detail: chain(error) }
    }

    /// Maps an error of a temporary file.
    pub(super) fn file(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File { what, source }
    }

    /// Whether the store answered that there is no such object.
    pub(super) fn is_missing(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }

    /// Whether another try may help.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Refused { status, .. } => *status >= 500 || PASSING.contains(status),
            Self::Unanswered { .. }
            | Self::DiskFull { .. }
            | Self::Late { .. }
            | Self::File { .. }
            | Self::Program { .. }
            | Self::ProgramStopped { .. } => true,
            Self::Setting { .. }
            | Self::NoPiece(_)
            | Self::Presign(_)
            | Self::TooLarge { .. }
            | Self::Unplayable { .. }
            | Self::ProgramFailed { .. } => false,
        }
    }
}

impl From<Failure> for ArtifactsError {
    fn from(failure: Failure) -> Self {
        Self { message: chain(&failure), retryable: failure.is_retryable() }
    }
}

/// An HTTP answer, whatever its type.
pub(super) trait HasStatus {
    /// Its status.
    fn status(&self) -> u16;
}

impl HasStatus for aws_sdk_s3::config::http::HttpResponse {
    fn status(&self) -> u16 {
        self.status().as_u16()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_this_machine_may_be_mended_and_what_is_wrong_with_the_segments_may_not() {
        let source = || io::Error::from(io::ErrorKind::WouldBlock);
        let mended = [
            Failure::Program { program: "ffmpeg", source: source() },
            Failure::File { what: "make a folder for joining", source: source() },
            Failure::DiskFull { needed: 2, free: 1 },
            Failure::Refused { what: "put".to_owned(), status: 507, answer: "full".to_owned() },
        ];
        assert!(mended.iter().all(Failure::is_retryable), "{mended:?}");
        let stays = [Failure::TooLarge { bytes: 2, max: 1 }, Failure::Unplayable { segments: 3 }];
        assert!(!stays.iter().any(Failure::is_retryable), "{stays:?}");
    }
}
