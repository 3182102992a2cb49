//! The folders of bots: `<root>/<slot>/<generation>/` with what a bot leaves (its spool, `log`, `exit.json`) and the
//! record of its process, and `<root>/<slot>/fence`, the highest generation that was stopped.
//!
//! Reads and writes are synchronous; callers run them on a blocking thread.

use super::procfs::{Identity, boot_id};
use meeboter_actors::ids::{ContainerKey, Generation, SlotId};
use meeboter_bot::{EXIT_NOTE_FILE, ExitNote};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

const FENCE_FILE: &str = "fence";
const RECORD_FILE: &str = "process";
const LOG_FILE: &str = "log";
const OLD_LOG_FILE: &str = "log.old";
const EXIT_NOTE_BYTES_MAX: u64 = 64 * 1024;
const LOG_BYTES_MAX: u64 = 32 * 1024 * 1024;
const LOG_TAIL_BYTES: u64 = 4 * 1024;
/// Folders deeper than this hold no spool of ours.
const SPOOL_DEPTH_MAX: u32 = 5;
/// A slot whose folders are all removed is forgotten after this long; its uuid is never given again.
const FENCE_KEPT: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Folders {
    root: PathBuf,
}

impl Folders {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    fn slot(&self, slot: SlotId) -> PathBuf {
        self.root.join(slot.to_string())
    }

    /// The work folder of a generation.
    pub(super) fn of(&self, key: ContainerKey) -> PathBuf {
        self.slot(key.slot).join(key.generation.to_string())
    }

    /// Makes the work folder, for nobody else to read, without the traces of an earlier start.
    pub(super) fn prepare(&self, key: ContainerKey) -> io::Result<PathBuf> {
        let folder = self.of(key);
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        for trace in [RECORD_FILE, EXIT_NOTE_FILE] {
            remove_file(&folder.join(trace))?;
        }
        Ok(folder)
    }

    /// The file that takes what the bot prints.
    pub(super) fn open_log(&self, key: ContainerKey) -> io::Result<File> {
        OpenOptions::new().append(true).create(true).mode(0o600).open(self.of(key).join(LOG_FILE))
    }

    /// The highest generation of the slot that was stopped.
    pub(super) fn fence(&self, slot: SlotId) -> io::Result<Option<Generation>> {
        let path = self.slot(slot).join(FENCE_FILE);
        match fs::read_to_string(&path) {
            Ok(text) => match text.trim().parse() {
                Ok(generation) => Ok(Some(Generation(generation))),
                Err(_) => Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("{} holds no generation", path.display()),
                )),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Fences a generation and all before it, durably.
    pub(super) fn raise_fence(&self, key: ContainerKey) -> io::Result<()> {
        if self.fence(key.slot)?.is_some_and(|fence| fence >= key.generation) {
            return Ok(());
        }
        let slot = self.slot(key.slot);
        DirBuilder::new().recursive(true).mode(0o700).create(&slot)?;
        let written = slot.join("fence.new");
        let mut file = File::create(&written)?;
        writeln!(file, "{}", key.generation)?;
        file.sync_all()?;
        fs::rename(&written, slot.join(FENCE_FILE))?;
        File::open(&slot)?.sync_all()
    }

    /// Notes which process the bot is.
    pub(super) fn record(&self, key: ContainerKey, bot: Identity) -> io::Result<()> {
        let folder = self.of(key);
        let written = folder.join("process.new");
        fs::write(&written, format!("{bot} {}\n", boot_id()?))?;
        fs::rename(written, folder.join(RECORD_FILE))
    }

    /// The recorded process of a generation; one of an earlier boot of the machine is none.
    pub(super) fn recorded(&self, key: ContainerKey) -> io::Result<Option<Identity>> {
        let text = match fs::read_to_string(self.of(key).join(RECORD_FILE)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let Some((bot, boot)) = text.trim().split_once(' ') else { return Ok(None) };
        Ok(if boot == boot_id()? { bot.parse().ok() } else { None })
    }

    /// What the bot wrote of its end, where it did.
    pub(super) fn exit_note(&self, key: ContainerKey) -> Option<ExitNote> {
        let mut bytes = Vec::new();
        let file = File::open(self.of(key).join(EXIT_NOTE_FILE)).ok()?;
        file.take(EXIT_NOTE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// The last lines the bot printed.
    pub(super) fn log_tail(&self, key: ContainerKey) -> io::Result<String> {
        let mut file = File::open(self.of(key).join(LOG_FILE))?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(LOG_TAIL_BYTES).read_to_end(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes);
        let whole_lines = match text.split_once('\n') {
            Some((_, rest)) if length > LOG_TAIL_BYTES => rest,
            _ => &text,
        };
        Ok(whole_lines.trim_end().to_owned())
    }

    /// Keeps a running bot's log bounded: what it has is set aside, in place of what was set aside before. The bot
    /// appends, so that it goes on at the new end; lines of that very moment may be lost.
    pub(super) fn bound_log(&self, key: ContainerKey) -> io::Result<()> {
        let log = self.of(key).join(LOG_FILE);
        if fs::metadata(&log)?.len() <= LOG_BYTES_MAX {
            return Ok(());
        }
        fs::copy(&log, self.of(key).join(OLD_LOG_FILE))?;
        OpenOptions::new().write(true).open(&log)?.set_len(0)
    }

    /// Removes the folders of stopped generations but for the last `kept`, and never one with segments in its spool:
    /// those were not uploaded yet.
    pub(super) fn prune(&self, kept: usize) -> io::Result<()> {
        let mut stopped = Vec::new();
        for slot in fs::read_dir(&self.root)? {
            let slot = slot?.path();
            let Some(id) = file_name_as(&slot) else { continue };
            let fence = self.fence(SlotId(id))?;
            for folder in fs::read_dir(&slot)? {
                let folder = folder?;
                let generation = file_name_as::<i64>(&folder.path()).map(Generation);
                if generation.is_some_and(|generation| fence.is_some_and(|fence| generation <= fence)) {
                    stopped.push((folder.metadata()?.modified()?, folder.path()));
                }
            }
            remove_forgotten(&slot);
        }
        stopped.sort();
        let surplus = stopped.len().saturating_sub(kept);
        for (_, folder) in &stopped[..surplus] {
            if !holds_segments(folder, SPOOL_DEPTH_MAX)? {
                fs::remove_dir_all(folder)?;
            }
        }
        Ok(())
    }
}

/// Removes a slot's folder that holds nothing but an old fence. A folder with more in it stays, whatever happens.
fn remove_forgotten(slot: &Path) {
    let fence = slot.join(FENCE_FILE);
    let age = |path: &Path| {
        let modified = fs::metadata(path).and_then(|metadata| metadata.modified()).ok()?;
        SystemTime::now().duration_since(modified).ok()
    };
    let is_old = age(&fence).is_some_and(|age| age > FENCE_KEPT);
    let is_alone = fs::read_dir(slot).is_ok_and(|entries| entries.count() == 1);
    if is_old && is_alone {
        // Whatever keeps them is there at the next pruning too.
        let _ = fs::remove_file(&fence).and_then(|()| fs::remove_dir(slot));
    }
}

fn holds_segments(folder: &Path, depth: u32) -> io::Result<bool> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        let name = entry.file_name();
        let is_segment = kind.is_file() && name.to_string_lossy().ends_with(".m4s");
        if is_segment || (kind.is_dir() && depth > 0 && holds_segments(&entry.path(), depth - 1)?) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn file_name_as<T: std::str::FromStr>(path: &Path) -> Option<T> {
    path.file_name()?.to_str()?.parse().ok()
}

fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn key(generation: i64) -> ContainerKey {
        ContainerKey { slot: SlotId(Uuid::from_u128(1)), generation: Generation(generation) }
    }

    fn folders() -> (tempfile::TempDir, Folders) {
        let root = tempfile::tempdir().expect("temporary folder");
        let folders = Folders::new(root.path().to_owned());
        (root, folders)
    }

    #[test]
    fn a_fence_only_rises() {
        let (_root, folders) = folders();
        assert_eq!(folders.fence(key(1).slot).expect("readable"), None);
        for (raised, expected) in [(3, 3), (2, 3), (4, 4)] {
            folders.raise_fence(key(raised)).expect("written");
            assert_eq!(folders.fence(key(1).slot).expect("readable"), Some(Generation(expected)));
        }
    }

    #[test]
    fn a_record_of_another_boot_is_none() {
        let (_root, folders) = folders();
        let folder = folders.prepare(key(1)).expect("made");
        let bot = Identity { start_time: 99, pid: 7 };
        folders.record(key(1), bot).expect("written");
        assert_eq!(folders.recorded(key(1)).expect("readable"), Some(bot));
        fs::write(folder.join(RECORD_FILE), "7:99 another-boot\n").expect("written");
        assert_eq!(folders.recorded(key(1)).expect("readable"), None);
    }

    #[test]
    fn pruning_spares_the_running_the_last_and_the_unsent() {
        let (_root, folders) = folders();
        for generation in 1..=5 {
            let folder = folders.prepare(key(generation)).expect("made");
            let age = Duration::from_secs(u64::try_from(10 - generation).expect("small") * 60);
            File::open(folder).and_then(|folder| folder.set_modified(SystemTime::now() - age)).expect("aged");
        }
        let spool = folders.of(key(1)).join("spool/001");
        fs::create_dir_all(&spool).and_then(|()| fs::write(spool.join("000001.m4s"), "x")).expect("written");
        let old = SystemTime::now() - Duration::from_secs(3600);
        File::open(folders.of(key(1))).and_then(|folder| folder.set_modified(old)).expect("aged");
        folders.raise_fence(key(4)).expect("written");
        folders.prune(1).expect("pruned");
        let left: Vec<i64> = (1..=5).filter(|generation| folders.of(key(*generation)).exists()).collect();
        assert_eq!(left, [1, 4, 5]);
    }

    #[test]
    fn the_tail_of_a_log_begins_with_a_whole_line() {
        let (_root, folders) = folders();
        folders.prepare(key(1)).expect("made");
        let mut log = folders.open_log(key(1)).expect("opened");
        for line in 0..1000 {
            writeln!(log, "line {line:04}").expect("written");
        }
        let tail = folders.log_tail(key(1)).expect("readable");
        assert!(tail.starts_with("line ") && tail.ends_with("line 0999") && tail.len() <= 4096);
    }

    #[test]
    fn a_log_that_grew_too_long_is_set_aside_and_goes_on() {
        let (_root, folders) = folders();
        let folder = folders.prepare(key(1)).expect("made");
        let mut log = folders.open_log(key(1)).expect("opened");
        folders.bound_log(key(1)).expect("looked at");
        assert!(!folder.join(OLD_LOG_FILE).exists());
        log.set_len(LOG_BYTES_MAX + 1).expect("grown");
        folders.bound_log(key(1)).expect("bounded");
        writeln!(log, "on it goes").expect("written");
        assert_eq!(fs::read_to_string(folder.join(LOG_FILE)).expect("readable"), "on it goes\n");
        assert_eq!(fs::metadata(folder.join(OLD_LOG_FILE)).expect("kept").len(), LOG_BYTES_MAX + 1);
    }
}
