//! Joining the segments of a recording into one playable object.
//!
//! Each run of the recorder is put together in a temporary file and rewritten as a plain MP4 (plain concatenation
//! shows wrong lengths); several are then joined in order. A piece that is missing or damaged is left out, and takes
//! nothing else with it.

use super::pieces::{Listed, Run, runs_of};
use super::s3::Store;
use super::upload::Target;
use super::{Failure, boxes, ffmpeg};
use meeboter_actors::ids::{BotId, Generation};
use meeboter_actors::recording::Joined;
use meeboter_bot::segment_prefix;
use slog::{Logger, info, o, warn};
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::fs::File;
use tokio::io::{AsyncSeekExt, AsyncWriteExt};

/// Downloads, rewriting and upload together.
const DEADLINE: Duration = Duration::from_secs(60 * 60);
/// How long the store may be silent in the middle of an object.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(30);
/// Downloads of one piece before the join is given up.
const FETCHES_MAX: u32 = 3;
/// The disk holds a run and its rewriting, or all runs and the result, and something is to be left for others.
const DISK_FACTOR: u64 = 2;
const DISK_MARGIN_BYTES: u64 = 256 * 1024 * 1024;
const FOLDER_PREFIX: &str = "join-";

/// Makes the folder for temporary files, and removes what an earlier server left in it.
pub(super) fn prepare(temp_dir: &Path) -> io::Result<()> {
    fs::create_dir_all(temp_dir)?;
    for entry in fs::read_dir(temp_dir)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(FOLDER_PREFIX) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// Joins what is listed into an object at `key`; `None` where nothing is listed.
pub(super) async fn join(
    store: &Store,
    bot: BotId,
    generation: Generation,
    key: &str,
) -> Result<Option<Joined>, Failure> {
    let all = async {
        // The semaphore is never closed; where it were, joins at once would do no harm.
        let _turn = store.joins.acquire().await;
        let log = store.log.new(o!("bot" => bot.0, "generation" => generation.0));
        let prefix = segment_prefix(bot.0, generation.0);
        let runs = runs_of(&prefix, store.list(&prefix).await?);
        let segments = runs.values().map(|run| run.media.len()).sum();
        if segments == 0 {
            return Ok(None);
        }
        let joining = Joining { store, log, folder: room_for(store, runs.values()).await? };
        let parts = joining.remux_runs(runs.into_values()).await?;
        let file = match parts.as_slice() {
            [] => return Err(Failure::Unplayable { segments }),
            [only] => only.clone(),
            parts => joining.concat(parts).await?,
        };
        joining.deliver(&file, key).await.map(Some)
    };
    let outcome = tokio::time::timeout(DEADLINE, all).await;
    outcome.unwrap_or(Err(Failure::Late { what: "joining a recording", limit: DEADLINE }))
}

/// A temporary folder on a disk that has room for these runs.
async fn room_for<'a>(
    store: &Store,
    runs: impl Iterator<Item = &'a Run>,
) -> Result<tempfile::TempDir, Failure> {
    let bytes = runs.flat_map(Run::pieces).map(|piece| piece.bytes).fold(0, u64::saturating_add);
    let max = store.settings.join_bytes_max;
    if bytes > max {
        return Err(Failure::TooLarge { bytes, max });
    }
    let needed = bytes.saturating_mul(DISK_FACTOR).saturating_add(DISK_MARGIN_BYTES);
    let temp_dir = store.settings.temp_dir.clone();
    let made = blocking(move || {
        let disk = rustix::fs::statvfs(&temp_dir)?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let folder = (free >= needed)
            .then(|| tempfile::Builder::new().prefix(FOLDER_PREFIX).tempdir_in(temp_dir))
            .transpose()?;
        Ok((free, folder))
    });
    let (free, folder) = made.await.map_err(Failure::file("make a folder for joining"))?;
    folder.ok_or(Failure::DiskFull { needed, free })
}

/// One join under way. Its folder goes with it.
struct Joining<'a> {
    store: &'a Store,
    log: Logger,
    folder: tempfile::TempDir,
}

impl Joining<'_> {
    /// Rewrites each run as a plain MP4; runs that cannot be played are left out.
    async fn remux_runs(&self, runs: impl Iterator<Item = Run>) -> Result<Vec<PathBuf>, Failure> {
        let mut parts = Vec::new();
        for (number, run) in (1_u32..).zip(runs) {
            let fragments = self.folder.path().join(format!("run-{number:03}.mp4"));
            if !self.fetch(&run, &fragments).await? {
                warn!(self.log, "a run without a usable beginning is left out"; "run" => number);
                continue;
            }
            let part = self.folder.path().join(format!("part-{number:03}.mp4"));
            match ffmpeg::remux(&fragments, &part).await {
                Ok(()) => parts.push(part),
                Err(failure @ Failure::ProgramFailed { .. }) => {
                    warn!(self.log, "a run is left out"; "run" => number, "error" => %failure);
                }
                Err(failure) => return Err(failure),
            }
            let removed = tokio::fs::remove_file(&fragments).await;
            removed.map_err(Failure::file("remove a temporary file"))?;
        }
        Ok(parts)
    }

    /// Puts the pieces of a run into a file; false where that makes nothing to play.
    async fn fetch(&self, run: &Run, path: &Path) -> Result<bool, Failure> {
        let Some(init) = &run.init else { return Ok(false) };
        let mut file = Growing::create(path).await?;
        if !self.append(&mut file, init, &boxes::INIT).await? {
            return Ok(false);
        }
        let mut usable = 0;
        for piece in &run.media {
            if self.append(&mut file, piece, &boxes::MEDIA).await? {
                usable += 1;
            } else {
                warn!(self.log, "a segment is missing or damaged and left out"; "key" => &piece.key);
            }
        }
        Ok(usable > 0)
    }

    /// Appends a piece, where it is there and whole.
    async fn append(&self, file: &mut Growing, piece: &Listed, boxes: &[[u8; 4]]) -> Result<bool, Failure> {
        let mut fetches = 0;
        loop {
            fetches += 1;
            let start = file.end;
            match self.download(file, &piece.key).await {
                Ok(()) if file.is_whole(start, boxes.to_vec()).await? => return Ok(true),
                Ok(()) => {
                    file.rewind(start).await?;
                    return Ok(false);
                }
                Err(failure) => {
                    file.rewind(start).await?;
                    if failure.is_missing() {
                        return Ok(false);
                    }
                    if fetches >= FETCHES_MAX || !matches!(failure, Failure::Unanswered { .. }) {
                        return Err(failure);
                    }
                }
            }
        }
    }

    async fn download(&self, file: &mut Growing, key: &str) -> Result<(), Failure> {
        let bucket = &self.store.settings.bucket;
        let what = || format!("get {bucket}/{key}");
        let answer = self.store.client.get_object().bucket(bucket).key(key).send().await;
        let mut body = answer.map_err(|error| Failure::store(what(), error))?.body;
        loop {
            match tokio::time::timeout(CHUNK_TIMEOUT, body.next()).await {
                Ok(Some(Ok(chunk))) => file.append(&chunk, self.store.settings.join_bytes_max).await?,
                Ok(Some(Err(error))) => return Err(Failure::body(what(), &error)),
                Ok(None) => return Ok(()),
                Err(_) => {
                    let detail = "the store falls silent in the middle".to_owned();
                    return Err(Failure::Unanswered { what: what(), detail });
                }
            }
        }
    }

    async fn concat(&self, parts: &[PathBuf]) -> Result<PathBuf, Failure> {
        let (list, joined) = (self.folder.path().join("list.txt"), self.folder.path().join("joined.mp4"));
        let mut text = String::from("ffconcat version 1.0\n");
        for name in parts.iter().filter_map(|part| part.file_name()) {
            // Writing to a string does not fail.
            let _ = writeln!(text, "file '{}'", name.to_string_lossy());
        }
        tokio::fs::write(&list, text).await.map_err(Failure::file("write the list of runs"))?;
        ffmpeg::concat(&list, &joined).await?;
        Ok(joined)
    }

    async fn deliver(&self, file: &Path, key: &str) -> Result<Joined, Failure> {
        let duration_ms = ffmpeg::duration_ms(file).await?;
        let target = Target {
            client: &self.store.client,
            bucket: &self.store.settings.bucket,
            key,
            content_type: "video/mp4",
        };
        let bytes = i64::try_from(target.upload(file).await?).unwrap_or(i64::MAX);
        info!(self.log, "recording joined"; "key" => key, "duration_ms" => duration_ms, "bytes" => bytes);
        Ok(Joined { key: key.to_owned(), duration_ms, bytes })
    }
}

/// A file that grows piece by piece, and can take the last one back.
struct Growing {
    file: File,
    path: PathBuf,
    end: u64,
}

impl Growing {
    async fn create(path: &Path) -> Result<Self, Failure> {
        let file = File::create_new(path).await.map_err(Failure::file("make a temporary file"))?;
        Ok(Self { file, path: path.to_owned(), end: 0 })
    }

    async fn append(&mut self, bytes: &[u8], max: u64) -> Result<(), Failure> {
        let end = self.end.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        if end > max {
            return Err(Failure::TooLarge { bytes: end, max });
        }
        self.file.write_all(bytes).await.map_err(Failure::file("write a temporary file"))?;
        self.end = end;
        Ok(())
    }

    async fn is_whole(&mut self, start: u64, wanted: Vec<[u8; 4]>) -> Result<bool, Failure> {
        self.file.flush().await.map_err(Failure::file("write a temporary file"))?;
        let (path, end) = (self.path.clone(), self.end);
        let check = blocking(move || boxes::is_whole(&mut fs::File::open(path)?, start, end, &wanted));
        check.await.map_err(Failure::file("read a temporary file back"))
    }

    async fn rewind(&mut self, end: u64) -> Result<(), Failure> {
        let rewound = async {
            self.file.flush().await?;
            self.file.set_len(end).await?;
            self.file.seek(io::SeekFrom::Start(end)).await
        };
        self.end = rewound.await.map_err(Failure::file("shorten a temporary file"))?;
        Ok(())
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}
