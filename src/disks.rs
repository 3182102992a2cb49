//! How full the disks are that this server and its bots write to.

use async_trait::async_trait;
use futures_util::future::join_all;
use meeboter_actors::ports::{Disk, Disks};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// A disk that takes longer to look at says nothing.
const LOOK_DEADLINE: Duration = Duration::from_secs(10);

type Measure = dyn Fn(&'static str, &Path) -> Option<Disk> + Send + Sync;

/// Folders by what they are used for.
pub struct HostDisks {
    folders: Vec<Folder>,
    measure: Arc<Measure>,
}

struct Folder {
    name: &'static str,
    path: PathBuf,
    /// Held by the look that is under way.
    turn: Arc<Mutex<()>>,
}

impl HostDisks {
    /// Looks at the disks that hold these folders.
    pub fn new(folders: Vec<(&'static str, PathBuf)>) -> Self {
        Self::measured(folders, Arc::new(disk))
    }

    fn measured(folders: Vec<(&'static str, PathBuf)>, measure: Arc<Measure>) -> Self {
        let folder = |(name, path)| Folder { name, path, turn: Arc::default() };
        Self { folders: folders.into_iter().map(folder).collect(), measure }
    }

    /// `None` where the disk is gone, or does not answer. A dead mount keeps its thread for as long as it is dead, so
    /// nobody looks at it again before that look has ended.
    async fn look_at(&self, folder: &Folder) -> Option<Disk> {
        let turn = Arc::clone(&folder.turn).try_lock_owned().ok()?;
        let (name, path, measure) = (folder.name, folder.path.clone(), Arc::clone(&self.measure));
        let look = spawn_blocking(move || {
            let _turn = turn;
            measure(name, &path)
        });
        timeout(LOOK_DEADLINE, look).await.ok()?.ok()?
    }
}

#[async_trait]
impl Disks for HostDisks {
    async fn look(&self) -> Vec<Disk> {
        let looks = self.folders.iter().map(|folder| self.look_at(folder));
        join_all(looks).await.into_iter().flatten().collect()
    }
}

fn disk(name: &'static str, folder: &Path) -> Option<Disk> {
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
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::{PoisonError, mpsc};
    use tokio::task::yield_now;

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

    #[tokio::test]
    async fn a_disk_that_hangs_costs_one_thread_and_hides_no_other() {
        let (revive, dead) = mpsc::channel();
        let (dead, looks) = (std::sync::Mutex::new(dead), Arc::new(AtomicU32::new(0)));
        let counted = Arc::clone(&looks);
        let measure = move |name: &'static str, _: &Path| {
            if name == "dead" {
                counted.fetch_add(1, Ordering::Relaxed);
                dead.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()?;
            }
            Some(Disk { name: name.to_owned(), free_bytes: 1, total_bytes: 2 })
        };
        let folders = vec![("dead", PathBuf::from("/dead")), ("data", PathBuf::from("/data"))];
        let disks = HostDisks::measured(folders, Arc::new(measure));
        let names = |disks: Vec<Disk>| disks.into_iter().map(|disk| disk.name).collect::<Vec<_>>();
        let mut first = Box::pin(disks.look());
        assert!(futures_util::poll!(&mut first).is_pending());
        let mut others = Vec::new();
        // The other disk is in its first look too, for a moment.
        while others.len() < 3 {
            others.extend(names(disks.look().await));
            yield_now().await;
        }
        assert_eq!(others, ["data"; 3]);
        revive.send(()).expect("it waits");
        assert_eq!(names(first.await), ["dead", "data"]);
        assert_eq!(looks.load(Ordering::Relaxed), 1);
    }
}
