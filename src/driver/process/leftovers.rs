//! What bots leave on this host: their logs, their folders, and what they did not live to upload.

use super::procfs;
use super::{Host, blocking, refused};
use chrono::{DateTime, Utc};
use meeboter_actors::ids::ContainerKey;
use meeboter_actors::ports::{DriverError, ImageDigest, Spool};
use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// Lines that are shown at most.
const LINES_MAX: u32 = 10_000;

impl Host {
    /// The program stands for every image: another file, or a changed one, is another image.
    pub(super) async fn resolve(&self) -> Result<Option<ImageDigest>, DriverError> {
        let program = self.settings.bot_program.clone();
        let look = move || match program.metadata() {
            Ok(file) => {
                let (device, number, changed) =
                    (file.dev(), file.ino(), file.mtime_nsec() + file.mtime() * 1_000_000_000);
                Ok(Some(ImageDigest(format!("file {device}:{number} {} {changed}", file.len()))))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        };
        blocking("look at the bot program", look).await
    }

    pub(super) async fn logs(&self, key: ContainerKey, lines: u32) -> Result<Vec<String>, DriverError> {
        if lines > LINES_MAX {
            return Err(refused(format!("{LINES_MAX} lines are shown at most"), false));
        }
        let folders = self.folders.clone();
        blocking("read the bot's log", move || folders.log_lines(key, lines as usize)).await
    }

    pub(super) async fn sweep(
        &self,
        wanted: BTreeSet<ContainerKey>,
        before: DateTime<Utc>,
    ) -> Result<u32, DriverError> {
        let mut spared = wanted;
        spared.append(&mut self.running().await?);
        let folders = self.folders.clone();
        blocking("remove old folders", move || folders.sweep(&spared, before.into())).await
    }

    /// Those of generations of which nothing runs.
    pub(super) async fn spools(&self) -> Result<Vec<Spool>, DriverError> {
        let folders = self.folders.clone();
        let mut spools = blocking("look for spools", move || folders.spools()).await?;
        if !spools.is_empty() {
            let running = self.running().await?;
            spools.retain(|spool| !running.contains(&spool.key));
        }
        Ok(spools)
    }

    /// The files in a spool by their run.
    pub(super) async fn spooled(&self, key: ContainerKey) -> Result<Vec<(u32, PathBuf)>, DriverError> {
        let folders = self.folders.clone();
        blocking("read a spool", move || folders.spooled(key)).await
    }

    /// Generations of which any process is left.
    async fn running(&self) -> Result<BTreeSet<ContainerKey>, DriverError> {
        let all = blocking("list processes", procfs::scan).await?;
        Ok(self.keys_in(&all))
    }
}
