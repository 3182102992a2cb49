//! How full the disks are that this server and its bots write to.

use async_trait::async_trait;
use meeboter_actors::ports::{Disk, Disks};
use std::path::PathBuf;

/// Folders by what they are used for.
pub struct HostDisks {
    folders: Vec<(&'static str, PathBuf)>,
}

impl HostDisks {
    /// Looks at the disks that hold these folders.
    pub fn new(folders: Vec<(&'static str, PathBuf)>) -> Self {
        Self { folders }
    }
}

#[async_trait]
impl Disks for HostDisks {
    async fn look(&self) -> Vec<Disk> {
        let folders = self.folders.clone();
        // A disk that is gone is left out, and so are all where the thread is.
        tokio::task::spawn_blocking(move || folders.into_iter().filter_map(disk).collect())
            .await
            .unwrap_or_default()
    }
}

fn disk((name, folder): (&'static str, PathBuf)) -> Option<Disk> {
    // A folder that is not made yet will be made on its parent's disk.
    let folder = folder.ancestors().find(|folder| folder.exists())?;
    let disk = rustix::fs::statvfs(folder).ok()?;
    Some(Disk {
        name: name.to_owned(),
        free_bytes: disk.f_bavail.saturating_mul(disk.f_frsize),
        total_bytes: disk.f_blocks.saturating_mul(disk.f_frsize),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_folder_is_on_a_disk_of_some_size_whether_it_is_there_or_not() {
        let root = tempfile::tempdir().expect("temporary folder");
        let folders = vec![("data", root.path().to_owned()), ("bots", root.path().join("not/yet"))];
        let disks = HostDisks::new(folders).look().await;
        let names: Vec<&str> = disks.iter().map(|disk| disk.name.as_str()).collect();
        assert_eq!(names, ["data", "bots"]);
        for disk in disks {
            assert!(disk.total_bytes > 0 && disk.free_bytes <= disk.total_bytes, "{disk:?}");
        }
    }
}
