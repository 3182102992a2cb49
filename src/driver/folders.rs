//! The folders of bots: `<root>/<slot>/<generation>/` with what a bot leaves (its spool, `log`, `exit.json`) and its number
//! (`bot`), and `<root>/<slot>/fence`, the highest generation that was stopped. A bot that is a process of this host works
//! in its folder; of one in a container, what it left is brought there.
//!
//! Reads and writes are synchronous; callers run them on a blocking thread.

use meeboter_actors::ids::{BotId, ContainerKey, Generation, SlotId};
use meeboter_actors::ports::Spool;
use meeboter_bot::{BOT_FILE, EXIT_NOTE_FILE, ExitNote, SPOOL_DIR};
use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

const FENCE_FILE: &str = "fence";
const LOG_FILE: &str = "log";
const OLD_LOG_FILE: &str = "log.old";
const EXIT_NOTE_BYTES_MAX: u64 = 64 * 1024;
const LOG_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// How much of a log is shown where a bot ended badly.
const LOG_NOTE_BYTES: u64 = 4 * 1024;
/// How much of a log is read at most for those who ask for lines.
const LOG_TAIL_BYTES: u64 = 1024 * 1024;
/// Folders deeper than this hold no spool of ours.
const SPOOL_DEPTH_MAX: u32 = 5;
/// A slot whose folders are all removed is forgotten after this long; its uuid is never given again.
const FENCE_KEPT: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// See the module.
#[derive(Debug, Clone)]
pub(in crate::driver) struct Folders {
    root: PathBuf,
}

impl Folders {
    pub(in crate::driver) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    fn slot(&self, slot: SlotId) -> PathBuf {
        self.root.join(slot.to_string())
    }

    /// The work folder of a generation.
    pub(in crate::driver) fn of(&self, key: ContainerKey) -> PathBuf {
        self.slot(key.slot).join(key.generation.to_string())
    }

    /// Makes the work folder of a bot, for nobody else to read, without the exit note of an earlier start.
    pub(in crate::driver) fn prepare(&self, key: ContainerKey, bot: BotId) -> io::Result<PathBuf> {
        let folder = self.of(key);
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        fs::write(folder.join(BOT_FILE), format!("{bot}\n"))?;
        remove_file(&folder.join(EXIT_NOTE_FILE))?;
        Ok(folder)
    }

    /// The file that takes what the bot prints.
    pub(in crate::driver) fn open_log(&self, key: ContainerKey) -> io::Result<File> {
        OpenOptions::new().append(true).create(true).mode(0o600).open(self.of(key).join(LOG_FILE))
    }

    /// Keeps the lines that a container printed.
    pub(in crate::driver) fn keep_log(&self, key: ContainerKey, lines: &[String]) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(self.of(key))?;
        let mut log = self.open_log(key)?;
        log.set_len(0)?;
        lines.iter().try_for_each(|line| writeln!(log, "{line}"))
    }

    /// The highest generation of the slot that was stopped.
    pub(in crate::driver) fn fence(&self, slot: SlotId) -> io::Result<Option<Generation>> {
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
    pub(in crate::driver) fn raise_fence(&self, key: ContainerKey) -> io::Result<()> {
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

    /// What the bot wrote of its end, where it did.
    pub(in crate::driver) fn exit_note(&self, key: ContainerKey) -> Option<ExitNote> {
        let mut bytes = Vec::new();
        let file = File::open(self.of(key).join(EXIT_NOTE_FILE)).ok()?;
        file.take(EXIT_NOTE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// The last lines the bot printed, for a note of its end.
    pub(in crate::driver) fn log_note(&self, key: ContainerKey) -> io::Result<String> {
        Ok(tail(&self.of(key).join(LOG_FILE), LOG_NOTE_BYTES)?.trim_end().to_owned())
    }

    /// The last lines the bot printed, at most so many; none where there is no log.
    pub(in crate::driver) fn log_lines(&self, key: ContainerKey, lines: usize) -> io::Result<Vec<String>> {
        let text = match tail(&self.of(key).join(LOG_FILE), LOG_TAIL_BYTES) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            read => read?,
        };
        let skipped = text.lines().count().saturating_sub(lines);
        Ok(text.lines().skip(skipped).map(str::to_owned).collect())
    }

    /// Keeps a running bot's log bounded: what it has is set aside, in place of what was set aside before. The bot
    /// appends, so that it goes on at the new end; lines of that very moment may be lost.
    pub(in crate::driver) fn bound_log(&self, key: ContainerKey) -> io::Result<()> {
        let log = self.of(key).join(LOG_FILE);
        if fs::metadata(&log)?.len() <= LOG_BYTES_MAX {
            return Ok(());
        }
        fs::copy(&log, self.of(key).join(OLD_LOG_FILE))?;
        OpenOptions::new().write(true).open(&log)?.set_len(0)
    }

    /// Removes the folders of stopped generations but for the last `kept`, and never one with segments in its spool:
    /// those were not uploaded yet.
    pub(in crate::driver) fn prune(&self, kept: usize) -> io::Result<()> {
        let mut stopped = Vec::new();
        for (key, folder) in self.generations()? {
            if self.fence(key.slot)?.is_some_and(|fence| key.generation <= fence) {
                stopped.push((fs::metadata(&folder)?.modified()?, folder));
            }
        }
        stopped.sort();
        let surplus = stopped.len().saturating_sub(kept);
        for (_, folder) in &stopped[..surplus] {
            if !holds_segments(folder, SPOOL_DEPTH_MAX)? {
                fs::remove_dir_all(folder)?;
            }
        }
        self.slots()?.iter().for_each(|(_, slot)| remove_forgotten(slot));
        Ok(())
    }

    /// Removes the folders of generations that are not `spared` and did not change since, but for those with segments
    /// in their spool; says how many.
    pub(in crate::driver) fn sweep(
        &self,
        spared: &BTreeSet<ContainerKey>,
        before: SystemTime,
    ) -> io::Result<u32> {
        let mut swept = 0;
        for (key, folder) in self.generations()? {
            let is_old = last_change(&folder)? < before;
            if is_old && !spared.contains(&key) && !holds_segments(&folder, SPOOL_DEPTH_MAX)? {
                fs::remove_dir_all(&folder)?;
                swept += 1;
            }
        }
        self.slots()?.iter().for_each(|(_, slot)| remove_forgotten(slot));
        Ok(swept)
    }

    /// The generations with segments in their spools, and whose bots recorded them.
    pub(in crate::driver) fn spools(&self) -> io::Result<Vec<Spool>> {
        let mut spools = Vec::new();
        for (key, folder) in self.generations()? {
            // One without a number was begun by a server of another kind; it is nobody's to judge.
            let bot =
                fs::read_to_string(folder.join(BOT_FILE)).ok().and_then(|text| text.trim().parse().ok());
            if let Some(bot) = bot
                && holds_segments(&folder.join(SPOOL_DIR), SPOOL_DEPTH_MAX)?
            {
                spools.push(Spool { key, bot_id: BotId(bot) });
            }
        }
        Ok(spools)
    }

    /// The files in a generation's spool by the run's number, in the order that the bot would upload them.
    pub(in crate::driver) fn spooled(&self, key: ContainerKey) -> io::Result<Vec<(u32, PathBuf)>> {
        let mut files = Vec::new();
        for run in entries(&self.of(key).join(SPOOL_DIR))? {
            let Some(number) = file_name_as(&run) else { continue };
            files.extend(entries(&run)?.into_iter().map(|file| (number, file)));
        }
        files.sort();
        Ok(files)
    }

    /// The folder of each slot.
    fn slots(&self) -> io::Result<Vec<(SlotId, PathBuf)>> {
        let slots = entries(&self.root)?.into_iter();
        Ok(slots.filter_map(|slot| Some((SlotId(file_name_as(&slot)?), slot))).collect())
    }

    /// The work folder of each generation.
    fn generations(&self) -> io::Result<Vec<(ContainerKey, PathBuf)>> {
        let mut generations = Vec::new();
        for (slot, folder) in self.slots()? {
            generations.extend(entries(&folder)?.into_iter().filter_map(|folder| {
                let generation = Generation(file_name_as(&folder)?);
                Some((ContainerKey { slot, generation }, folder))
            }));
        }
        Ok(generations)
    }
}

/// What is in a folder; nothing where there is none.
fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(vec![]),
        Err(error) => Err(error),
    }
}

/// The end of a file, from the beginning of a line on.
fn tail(path: &Path, bytes: u64) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(bytes)))?;
    let mut read = Vec::new();
    file.take(bytes).read_to_end(&mut read)?;
    let text = String::from_utf8_lossy(&read);
    Ok(match text.split_once('\n') {
        Some((_, rest)) if length > bytes => rest.to_owned(),
        _ => text.into_owned(),
    })
}

/// When a work folder last changed: it, or the log in it, to which a bot writes as long as it lives.
fn last_change(folder: &Path) -> io::Result<SystemTime> {
    let own = fs::metadata(folder)?.modified()?;
    let log = fs::metadata(folder.join(LOG_FILE)).and_then(|log| log.modified());
    Ok(log.map_or(own, |log| log.max(own)))
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
    for path in entries(folder)? {
        let kind = fs::symlink_metadata(&path)?.file_type();
        let is_segment = kind.is_file() && path.extension().is_some_and(|extension| extension == "m4s");
        if is_segment || (kind.is_dir() && depth > 0 && holds_segments(&path, depth - 1)?) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn file_name_as<T: std::str::FromStr>(path: &Path) -> Option<T> {
    path.file_name()?.to_str()?.parse().ok()
}

/// Removes a file that may be gone already.
pub(in crate::driver) fn remove_file(path: &Path) -> io::Result<()> {
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

    const BOT: BotId = BotId(7);

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
    fn pruning_spares_the_running_the_last_and_the_unsent() {
        let (_root, folders) = folders();
        for generation in 1..=5 {
            let folder = folders.prepare(key(generation), BOT).expect("made");
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
        folders.prepare(key(1), BOT).expect("made");
        let mut log = folders.open_log(key(1)).expect("opened");
        for line in 0..1000 {
            writeln!(log, "line {line:04}").expect("written");
        }
        let tail = folders.log_note(key(1)).expect("readable");
        assert!(tail.starts_with("line ") && tail.ends_with("line 0999") && tail.len() <= 4096);
        assert_eq!(folders.log_lines(key(1), 2).expect("readable"), ["line 0998", "line 0999"]);
        assert_eq!(folders.log_lines(key(1), 5000).expect("readable").len(), 1000);
        assert_eq!(folders.log_lines(key(2), 5).expect("no log"), [] as [&str; 0]);
    }

    #[test]
    fn sweeping_spares_the_young_the_wanted_and_the_unsent() {
        let (_root, folders) = folders();
        let now = SystemTime::now();
        let old = now - Duration::from_secs(3600);
        for generation in 1..=4 {
            let folder = folders.prepare(key(generation), BOT).expect("made");
            if generation == 2 {
                let run = folder.join("spool/001");
                fs::create_dir_all(&run)
                    .and_then(|()| fs::write(run.join("000001.m4s"), "x"))
                    .expect("written");
            }
            if generation < 4 {
                File::open(folder).and_then(|folder| folder.set_modified(old)).expect("aged");
            }
        }
        let spools = folders.spools().expect("looked at");
        assert_eq!(spools, [Spool { key: key(2), bot_id: BOT }]);
        let files = folders.spooled(key(2)).expect("read");
        assert_eq!((files.len(), files[0].0), (1, 1));
        let wanted = BTreeSet::from([key(3)]);
        assert_eq!(folders.sweep(&wanted, now - Duration::from_secs(60)).expect("swept"), 1);
        let left: Vec<i64> = (1..=4).filter(|generation| folders.of(key(*generation)).exists()).collect();
        assert_eq!(left, [2, 3, 4]);
    }

    #[test]
    fn a_log_that_grew_too_long_is_set_aside_and_goes_on() {
        let (_root, folders) = folders();
        let folder = folders.prepare(key(1), BOT).expect("made");
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
