//! What a container that does not run any more holds: its log, its exit note, and pieces of a recording that were never
//! uploaded. They are brought to the bot's folder on this server before the container goes, and from there the pieces
//! go the way of every spool. A container whose pieces cannot be saved is not removed.

use super::container::{WORK_DIR, name};
use super::engine::Engine;
use super::error::DockerError;
use crate::driver::folders::Folders;
use bollard::query_parameters::{DownloadFromContainerOptions, LogsOptions};
use chrono::{DateTime, Utc};
use futures_util::{StreamExt, pin_mut};
use meeboter_actors::ids::{BotId, ContainerId, ContainerKey};
use meeboter_bot::{BOT_FILE, EXIT_NOTE_FILE, ExitNote, SPOOL_DIR};
use slog::{info, warn};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

/// How long a whole spool, of 2 GiB at most, may take to come.
const SPOOL_DEADLINE: Duration = Duration::from_secs(900);
/// How long a small file or some lines may take.
const FILE_DEADLINE: Duration = Duration::from_secs(30);
/// What is read of a spool at most, in bytes: the bot's own limit is 2 GiB.
const SPOOL_BYTES_MAX: u64 = 3 * 1024 * 1024 * 1024;
/// What is read of a small file at most, in bytes.
const FILE_BYTES_MAX: u64 = 64 * 1024;
/// Lines that are kept of a log.
const LINES_KEPT: u32 = 5_000;
/// Lines that the server's log shows of a bot that ended badly.
const LINES_SHOWN: u32 = 20;
/// What is read of a log at most, in bytes.
const LOG_BYTES_MAX: usize = 1024 * 1024;

impl Engine {
    /// Brings what a container leaves to this server.
    pub(super) async fn save_remains(&self, key: ContainerKey, id: &ContainerId) -> Result<(), DockerError> {
        // Lines are for people: nobody's recording depends on them.
        match self.lines(id, LINES_KEPT).await {
            Ok(lines) => {
                let folders = self.folders.clone();
                blocking(move || folders.keep_log(key, &lines))
                    .await
                    .unwrap_or_else(|error| warn!(self.log, "a container's log is lost"; "error" => %error));
            }
            Err(error) => warn!(self.log, "a container's log is lost"; "error" => %error),
        }
        let Some(mut archive) = self.archive(id, SPOOL_DIR, SPOOL_BYTES_MAX, SPOOL_DEADLINE).await? else {
            self.prune(key).await;
            return Ok(());
        };
        let has_pieces = blocking(move || {
            let has_pieces = holds_pieces(&mut archive)?;
            archive.rewind()?;
            Ok((has_pieces, archive))
        });
        let (has_pieces, archive) = has_pieces.await.map_err(|error| self.unsaved(id, &error))?;
        if has_pieces {
            let Some(bot) = self.bot_of(id).await? else {
                warn!(self.log, "pieces of a recording belong to no bot that is known and are left";
                    "container" => %id, "host" => %self.host);
                return Err(self.unsaved(id, &"nothing says which bot recorded it"));
            };
            let folders = self.folders.clone();
            let pieces = blocking(move || unpack(archive, &folders, key, bot)).await;
            let pieces = pieces.map_err(|error| self.unsaved(id, &error))?;
            info!(self.log, "pieces of a recording were saved from a container"; "bot" => bot.0,
                "generation" => key.generation.0, "pieces" => pieces);
        }
        self.prune(key).await;
        Ok(())
    }

    /// Folders past those that are kept go, but for those with pieces in them.
    async fn prune(&self, key: ContainerKey) {
        let (folders, kept) = (self.folders.clone(), self.folders_kept);
        let pruned = blocking(move || {
            folders.raise_fence(key)?;
            folders.prune(kept)
        });
        if let Err(error) = pruned.await {
            warn!(self.log, "old folders of bots stay"; "error" => %error);
        }
    }

    /// What the bot wrote of its end, where it did and the container is still there.
    pub(super) async fn exit_note(&self, key: ContainerKey) -> Option<ExitNote> {
        let container = ContainerId(name(key));
        let archive =
            self.archive(&container, EXIT_NOTE_FILE, FILE_BYTES_MAX, FILE_DEADLINE).await.ok()??;
        let text = blocking(move || only_file(archive)).await.ok()??;
        serde_json::from_str(&text).ok()
    }

    async fn bot_of(&self, id: &ContainerId) -> Result<Option<BotId>, DockerError> {
        let archive = self.archive(id, BOT_FILE, FILE_BYTES_MAX, FILE_DEADLINE).await?;
        let Some(archive) = archive else { return Ok(None) };
        let text = blocking(move || only_file(archive)).await.ok().flatten();
        Ok(text.and_then(|text| text.trim().parse().ok()).map(BotId))
    }

    /// Something in the bot's work folder, as the archive that the engine makes of it; `None`: it is not there.
    async fn archive(
        &self,
        id: &ContainerId,
        what: &str,
        bytes_max: u64,
        limit: Duration,
    ) -> Result<Option<File>, DockerError> {
        let call = "read from a container";
        let options = DownloadFromContainerOptions { path: format!("{WORK_DIR}/{what}") };
        let client = self.client().await?;
        let read = async {
            let chunks = client.download_from_container(&id.0, Some(options));
            pin_mut!(chunks);
            let mut file = tempfile::tempfile().map_err(|error| self.unsaved(id, &error))?;
            let mut bytes = 0;
            while let Some(chunk) = chunks.next().await {
                let chunk = match chunk.map_err(|error| self.error(call, error)) {
                    Ok(chunk) => chunk,
                    Err(error) if error.is_missing() => return Ok(None),
                    Err(error) => return Err(error),
                };
                bytes += chunk.len() as u64;
                if bytes > bytes_max {
                    let words = format!("{what} holds more than {bytes_max} bytes");
                    return Err(self.unsaved(id, &words));
                }
                let written = blocking(move || file.write_all(&chunk).map(|()| file)).await;
                file = written.map_err(|error| self.unsaved(id, &error))?;
            }
            let rewound = file.rewind().map(|()| Some(file));
            rewound.map_err(|error| self.unsaved(id, &error))
        };
        self.within(limit, call, read).await?
    }

    fn unsaved(&self, id: &ContainerId, words: &dyn std::fmt::Display) -> DockerError {
        DockerError::Unsaved { host: self.host.clone(), container: id.to_string(), words: words.to_string() }
    }

    /// The last lines that a container printed.
    pub(super) async fn lines(&self, id: &ContainerId, lines: u32) -> Result<Vec<String>, DockerError> {
        let call = "read a container's log";
        let options =
            LogsOptions { stdout: true, stderr: true, tail: lines.to_string(), ..LogsOptions::default() };
        let client = self.client().await?;
        let read = async {
            let chunks = client.logs(&id.0, Some(options));
            pin_mut!(chunks);
            let mut text = Vec::new();
            while let Some(chunk) = chunks.next().await {
                text.extend_from_slice(&chunk.map_err(|error| self.error(call, error))?.into_bytes());
                // The latest are at the end.
                let surplus = text.len().saturating_sub(LOG_BYTES_MAX);
                text.drain(..surplus);
            }
            Ok(String::from_utf8_lossy(&text).lines().map(str::to_owned).collect::<Vec<_>>())
        };
        self.within(FILE_DEADLINE, call, read).await?
    }

    /// The last lines of a generation's container, at most so many; of one that is gone, what was kept of them.
    pub(super) async fn logs(&self, key: ContainerKey, lines: u32) -> Result<Vec<String>, DockerError> {
        if let Some(found) = self.find(key).await? {
            return self.lines(&found.id, lines).await;
        }
        let (folders, lines) = (self.folders.clone(), lines as usize);
        let kept = blocking(move || folders.log_lines(key, lines)).await;
        kept.map_err(|error| DockerError::Folders { words: error.to_string() })
    }

    /// Removes what past containers left on this server, but for what is spared.
    pub(super) async fn sweep(
        &self,
        spared: BTreeSet<ContainerKey>,
        before: DateTime<Utc>,
    ) -> Result<u32, DockerError> {
        let folders = self.folders.clone();
        let swept = blocking(move || folders.sweep(&spared, before.into())).await;
        swept.map_err(|error| DockerError::Folders { words: error.to_string() })
    }

    /// The last lines, for the server's log; empty where they cannot be read.
    pub(super) async fn tail(&self, id: &ContainerId) -> String {
        self.lines(id, LINES_SHOWN).await.unwrap_or_default().join("\n")
    }
}

/// Works on a thread that may block.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

/// The text of the first file in an archive.
fn only_file(archive: File) -> io::Result<Option<String>> {
    for entry in tar::Archive::new(archive).entries()? {
        let entry = entry?;
        if entry.header().entry_type().is_file() {
            let mut text = String::new();
            entry.take(FILE_BYTES_MAX).read_to_string(&mut text)?;
            return Ok(Some(text));
        }
    }
    Ok(None)
}

fn holds_pieces(archive: &mut File) -> io::Result<bool> {
    for entry in tar::Archive::new(archive).entries()? {
        if piece(&entry?.path()?).is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Puts the pieces into the folder of a generation; how many. What is no piece of a spool stays out, whatever its name.
fn unpack(archive: File, folders: &Folders, key: ContainerKey, bot: BotId) -> io::Result<u32> {
    let spool = folders.prepare(key, bot)?.join(SPOOL_DIR);
    let mut pieces = 0;
    for entry in tar::Archive::new(archive).entries()? {
        let mut entry = entry?;
        let Some(piece) = piece(&entry.path()?).filter(|_| entry.header().entry_type().is_file()) else {
            continue;
        };
        let path = spool.join(piece);
        if let Some(run) = path.parent() {
            std::fs::create_dir_all(run)?;
        }
        let mut file = File::create(&path)?;
        io::copy(&mut entry, &mut file)?;
        file.sync_all()?;
        pieces += 1;
    }
    Ok(pieces)
}

/// The path of a piece within its spool, `<run>/<file>`; `None`: it is none.
fn piece(path: &Path) -> Option<PathBuf> {
    let parts: Vec<&str> = path
        .components()
        .map(|part| match part {
            Component::Normal(part) => part.to_str(),
            _ => None,
        })
        .collect::<Option<_>>()?;
    let [SPOOL_DIR, run, file] = parts[..] else { return None };
    let is_piece = file.ends_with(".m4s") || file.ends_with(".mp4");
    (run.parse::<u32>().is_ok() && is_piece).then(|| Path::new(run).join(file))
}

#[cfg(test)]
mod tests {
    use super::*;
    use meeboter_actors::ids::{Generation, SlotId};
    use uuid::Uuid;

    #[test]
    fn only_pieces_leave_an_archive() {
        for (path, expected) in [
            ("spool/001/000001.m4s", Some("001/000001.m4s")),
            ("spool/001/000000-init.mp4", Some("001/000000-init.mp4")),
            ("spool/001/list.m3u8", None),
            ("spool/001/000001.m4s.tmp", None),
            ("spool/x/000001.m4s", None),
            ("spool/000001.m4s", None),
            ("spool/../001/000001.m4s", None),
            ("/spool/001/000001.m4s", None),
            ("elsewhere/001/000001.m4s", None),
        ] {
            assert_eq!(piece(Path::new(path)), expected.map(PathBuf::from), "{path}");
        }
    }

    fn archive(files: &[(&str, &str)]) -> File {
        let mut builder = tar::Builder::new(tempfile::tempfile().expect("a file"));
        for (path, text) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o600);
            builder.append_data(&mut header, path, text.as_bytes()).expect("appended");
        }
        let mut file = builder.into_inner().expect("finished");
        file.rewind().expect("rewound");
        file
    }

    #[test]
    fn a_saved_spool_is_one_that_is_found() {
        let root = tempfile::tempdir().expect("temporary folder");
        let folders = Folders::new(root.path().to_owned());
        let key = ContainerKey { slot: SlotId(Uuid::from_u128(1)), generation: Generation(3) };
        let files = [("spool/001/list.m3u8", "l"), ("spool/001/000001.m4s", "one"), ("spool/x", "y")];
        assert!(holds_pieces(&mut archive(&files)).expect("read"));
        assert!(!holds_pieces(&mut archive(&files[..1])).expect("read"));
        assert_eq!(unpack(archive(&files), &folders, key, BotId(7)).expect("unpacked"), 1);
        let spools = folders.spools().expect("looked at");
        assert_eq!((spools.len(), spools[0].key, spools[0].bot_id), (1, key, BotId(7)));
        let spooled = folders.spooled(key).expect("read");
        assert_eq!(std::fs::read_to_string(&spooled[0].1).expect("read"), "one");
    }

    #[test]
    fn the_text_of_a_small_file_is_read() {
        let text = only_file(archive(&[("exit.json", "{}")])).expect("read");
        assert_eq!(text.as_deref(), Some("{}"));
    }
}
