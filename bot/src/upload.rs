//! Takes finished pieces out of the spool and to the server, in order, while the meeting goes on.

use std::time::{Duration, Instant};

use slog::{Logger, debug, warn};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::backoff::Backoff;
use crate::client::{BotClient, ClientError};
use crate::patience::Patience;
use crate::spool::{Piece, Spool};
use crate::telemetry::chain;

const POLL: Duration = Duration::from_millis(300);
/// How long the last try may take beyond the patience.
const UPLOAD_GRACE: Duration = Duration::from_secs(180);
/// Largest piece that is read into memory; at 720p a piece has about a megabyte.
const PIECE_MAX_BYTES: u64 = 256 * 1024 * 1024;

/// Pieces that stayed in the spool.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UploadError {
    /// Time ran out.
    #[error("{left} pieces of the recording could not be uploaded within {} s: {last}", tried.as_secs())]
    TimedOut {
        /// How many.
        left: usize,
        /// How long it was tried after the end of the meeting.
        tried: Duration,
        /// What the last try met.
        last: String,
    },
    /// The server no longer takes pieces of this generation.
    #[error("the server refuses pieces of this generation")]
    Fenced,
    /// The task itself broke.
    #[error("the uploader broke off")]
    Broken,
}

/// The running uploader.
#[derive(Debug)]
pub(crate) struct Uploader {
    end: watch::Sender<Option<Patience>>,
    task: JoinHandle<Result<u64, UploadError>>,
}

impl Uploader {
    /// Starts it.
    pub(crate) fn start(spool: Spool, client: BotClient, log: Logger) -> Self {
        let (end, ended) = watch::channel(None);
        Self { end, task: tokio::spawn(upload_all(spool, client, ended, log)) }
    }

    /// Nothing more will come into the spool: uploads what is there, for as long as there is patience with the server,
    /// and says how many pieces it took away in all.
    pub(crate) async fn finish(mut self) -> Result<u64, UploadError> {
        self.end.send_replace(Some(Patience::from(Instant::now())));
        match tokio::time::timeout(Patience::LONGEST + UPLOAD_GRACE, &mut self.task).await {
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

/// Why a piece is still here.
#[derive(Debug, thiserror::Error)]
enum Setback {
    #[error("it was not taken")]
    Client(#[from] ClientError),
    #[error("the spool cannot be used")]
    Spool(#[from] std::io::Error),
}

impl Setback {
    fn is_fence(&self) -> bool {
        matches!(self, Self::Client(error) if error.is_fence())
    }

    fn retry_after(&self) -> Duration {
        match self {
            Self::Client(error) => error.retry_after().unwrap_or_default(),
            Self::Spool(_) => Duration::ZERO,
        }
    }
}

async fn upload_all(
    spool: Spool,
    client: BotClient,
    mut end: watch::Receiver<Option<Patience>>,
    log: Logger,
) -> Result<u64, UploadError> {
    let mut uploads = Uploads { spool, client, log, taken: 0, left: 0 };
    let mut backoff = Backoff::for_requests();
    loop {
        // Looked at before the spool: what came in before the end is then certainly seen.
        let is_last_look = end.borrow_and_update().is_some();
        let before = uploads.taken;
        let outcome = uploads.pass().await;
        if uploads.taken > before {
            backoff.reset();
        }
        match outcome {
            Ok(()) if uploads.taken > before => {}
            Ok(()) if is_last_look => return Ok(uploads.taken),
            Ok(()) => {
                let _ = tokio::time::timeout(POLL, end.changed()).await;
            }
            Err(setback) if setback.is_fence() => return Err(UploadError::Fenced),
            Err(setback) => {
                let delay = setback.retry_after().max(backoff.next_delay());
                let patience = *end.borrow();
                uploads.wait(&setback, delay, patience).await?;
            }
        }
    }
}

struct Uploads {
    spool: Spool,
    client: BotClient,
    log: Logger,
    /// Pieces that the server has.
    taken: u64,
    /// Pieces that were there at the last look and still are.
    left: usize,
}

impl Uploads {
    /// Takes away what is finished, up to the first that does not go.
    async fn pass(&mut self) -> Result<(), Setback> {
        let pieces = self.spool.finished()?;
        self.left = pieces.len();
        for piece in &pieces {
            self.upload(piece).await?;
            tokio::fs::remove_file(&piece.path).await?;
            self.taken += 1;
            self.left -= 1;
        }
        Ok(())
    }

    async fn upload(&self, piece: &Piece) -> Result<(), Setback> {
        let size = tokio::fs::metadata(&piece.path).await?.len();
        if size > PIECE_MAX_BYTES {
            warn!(self.log, "a piece is too large and is left out";
                "run" => piece.run, "part" => ?piece.part, "bytes" => size);
            return Ok(());
        }
        let bytes = tokio::fs::read(&piece.path).await?;
        self.client.upload(piece.run, piece.part, bytes).await?;
        debug!(self.log, "piece uploaded"; "run" => piece.run, "part" => ?piece.part, "bytes" => size);
        Ok(())
    }

    /// Waits before the next try, where there is patience for one.
    async fn wait(
        &self,
        setback: &Setback,
        delay: Duration,
        patience: Option<Patience>,
    ) -> Result<(), UploadError> {
        let now = Instant::now();
        let is_over = |patience: &Patience| patience.is_over(now + delay, self.client.reach().since());
        if let Some(patience) = patience.filter(is_over) {
            let (left, tried) = (self.left, patience.spent(now));
            return Err(UploadError::TimedOut { left, tried, last: chain(setback) });
        }
        warn!(self.log, "a piece stays in the spool for now"; "left" => self.left,
            "delay_ms" => delay.as_millis() as u64, "error" => chain(setback));
        tokio::time::sleep(delay).await;
        Ok(())
    }
}
