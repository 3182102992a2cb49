//! Takes finished pieces out of the spool and to the server, in order, while the meeting goes on.

use std::time::{Duration, Instant};

use slog::{Logger, debug, warn};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::backoff::Backoff;
use crate::client::{BotClient, ClientError};
use crate::spool::{Piece, Spool};
use crate::telemetry::chain;

const POLL: Duration = Duration::from_millis(300);
/// Largest piece that is read into memory; at 720p a piece has about a megabyte.
const PIECE_MAX_BYTES: u64 = 256 * 1024 * 1024;

/// Pieces that stayed in the spool.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UploadError {
    /// Time ran out.
    #[error("{left} pieces of the recording could not be uploaded within {} s: {last}", limit.as_secs())]
    TimedOut {
        /// How many.
        left: usize,
        /// How long it was tried after the end of the meeting.
        limit: Duration,
        /// What the last try met.
        last: String,
    },
    /// The server no longer takes pieces of this generation.
    #[error("the server refuses pieces of this generation")]
    Fenced,
    /// The spool cannot be read.
    #[error("the spool cannot be read")]
    Spool(#[from] std::io::Error),
    /// The task itself broke.
    #[error("the uploader broke off")]
    Broken,
}

/// The running uploader.
#[derive(Debug)]
pub(crate) struct Uploader {
    deadline: watch::Sender<Option<Instant>>,
    task: JoinHandle<Result<u64, UploadError>>,
}

impl Uploader {
    /// Starts it.
    pub(crate) fn start(spool: Spool, client: BotClient, log: Logger) -> Self {
        let (deadline, receiver) = watch::channel(None);
        Self { deadline, task: tokio::spawn(upload_all(spool, client, receiver, log)) }
    }

    /// Nothing more will come into the spool: uploads what is there, for at most `limit`, and says how many pieces it
    /// took away in all.
    pub(crate) async fn finish(mut self, limit: Duration) -> Result<u64, UploadError> {
        self.deadline.send_replace(Some(Instant::now() + limit));
        let grace = Duration::from_secs(180);
        match tokio::time::timeout(limit + grace, &mut self.task).await {
            Ok(Ok(Err(UploadError::TimedOut { left, last, .. }))) => {
                Err(UploadError::TimedOut { left, limit, last })
            }
            Ok(Ok(result)) => result,
            Ok(Err(_)) | Err(_) => Err(UploadError::Broken),
        }
    }
}

impl Drop for Uploader {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn upload_all(
    spool: Spool,
    client: BotClient,
    mut deadline: watch::Receiver<Option<Instant>>,
    log: Logger,
) -> Result<u64, UploadError> {
    let mut taken = 0;
    loop {
        // Looked at before the spool: what came in before the end is then certainly seen.
        let is_last_look = deadline.borrow_and_update().is_some();
        let pieces = spool.finished()?;
        if pieces.is_empty() {
            if is_last_look {
                return Ok(taken);
            }
            let _ = tokio::time::timeout(POLL, deadline.changed()).await;
            continue;
        }
        for (index, piece) in pieces.iter().enumerate() {
            let left = pieces.len() - index;
            upload_one(&client, piece, left, &mut deadline, &log).await?;
            tokio::fs::remove_file(&piece.path).await?;
            taken += 1;
        }
    }
}

/// Tries until the piece is taken.
async fn upload_one(
    client: &BotClient,
    piece: &Piece,
    left: usize,
    deadline: &mut watch::Receiver<Option<Instant>>,
    log: &Logger,
) -> Result<(), UploadError> {
    let mut backoff = Backoff::for_requests();
    loop {
        let size = tokio::fs::metadata(&piece.path).await?.len();
        if size > PIECE_MAX_BYTES {
            warn!(log, "a piece is too large and is left out"; "run" => piece.run, "part" => ?piece.part, "bytes" => size);
            return Ok(());
        }
        let bytes = tokio::fs::read(&piece.path).await?;
        let error: ClientError = match client.upload(piece.run, piece.part, bytes).await {
            Ok(()) => {
                debug!(log, "piece uploaded"; "run" => piece.run, "part" => ?piece.part, "bytes" => size);
                return Ok(());
            }
            Err(error) => error,
        };
        if error.is_fence() {
            return Err(UploadError::Fenced);
        }
        let delay = error.retry_after().unwrap_or_default().max(backoff.next_delay());
        warn!(log, "piece not taken, trying again"; "run" => piece.run, "part" => ?piece.part,
            "delay_ms" => delay.as_millis() as u64, "error" => chain(&error));
        let overdue = |deadline: Option<Instant>| deadline.is_some_and(|at| Instant::now() + delay >= at);
        if overdue(*deadline.borrow()) {
            return Err(UploadError::TimedOut { left, limit: Duration::ZERO, last: chain(&error) });
        }
        tokio::time::sleep(delay).await;
    }
}
