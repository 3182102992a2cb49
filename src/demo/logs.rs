//! Finding the lines that explain a failure.

use super::folder::Folder;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

const TAIL_BYTES: u64 = 16 * 1024;
const TAIL_LINES: usize = 12;
const LINE_CHARS: usize = 300;
const DEPTH_MAX: usize = 4;
const ENTRIES_MAX: usize = 5_000;

/// The last lines of a file, indented; empty where it cannot be read.
pub(super) fn tail(path: &Path) -> String {
    let text = read_end(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(TAIL_LINES)..];
    last.iter().map(|line| format!("    {}", shortened(line))).collect::<Vec<_>>().join("\n")
}

/// The log of the bot that last ran in a slot: drivers keep it in a folder named by the slot's uuid.
pub(super) fn of_slot(folder: &Folder, slot_id: &str) -> Option<PathBuf> {
    let mut budget = ENTRIES_MAX;
    let home = find_folder(folder.root(), slot_id, DEPTH_MAX, &mut budget)?;
    newest_log(&home, 2, &mut budget)
}

fn read_end(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn shortened(line: &str) -> String {
    if line.chars().count() <= LINE_CHARS {
        return line.to_owned();
    }
    line.chars().take(LINE_CHARS).chain(['…']).collect()
}

fn find_folder(within: &Path, name: &str, depth: usize, budget: &mut usize) -> Option<PathBuf> {
    let folders = folders_of(within, budget);
    if let Some(found) = folders.iter().find(|path| path.file_name().is_some_and(|found| found == name)) {
        return Some(found.clone());
    }
    let next = depth.checked_sub(1)?;
    folders.iter().find_map(|path| find_folder(path, name, next, budget))
}

fn newest_log(within: &Path, depth: usize, budget: &mut usize) -> Option<PathBuf> {
    let mut logs: Vec<PathBuf> = vec![within.join("log")];
    if let Some(next) = depth.checked_sub(1) {
        logs.extend(folders_of(within, budget).iter().filter_map(|path| newest_log(path, next, budget)));
    }
    logs.retain(|path| path.is_file());
    logs.into_iter().max_by_key(|path| fs::metadata(path).and_then(|found| found.modified()).ok())
}

fn folders_of(path: &Path, budget: &mut usize) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
    let entries: Vec<_> = entries.flatten().take(*budget).collect();
    *budget -= entries.len();
    let folders = entries.into_iter().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_newest_log_of_a_slot() {
        let parent = tempfile::tempdir().expect("a temporary folder");
        let folder = Folder::prepare(Some(parent.path())).expect("empty");
        let home = folder.root().join("bots/slot-a/3");
        fs::create_dir_all(&home).expect("made");
        fs::write(home.join("log"), "one\ntwo\n").expect("written");
        let log = of_slot(&folder, "slot-a").expect("found");
        assert_eq!(tail(&log), "    one\n    two");
        assert_eq!(of_slot(&folder, "slot-b"), None);
    }

    #[test]
    fn long_logs_and_lines_are_cut() {
        let parent = tempfile::tempdir().expect("a temporary folder");
        let path = parent.path().join("log");
        fs::write(&path, format!("{}\n", "x".repeat(1_000)).repeat(100)).expect("written");
        let text = tail(&path);
        assert_eq!(text.lines().count(), TAIL_LINES);
        assert!(text.lines().all(|line| line.chars().count() <= LINE_CHARS + 5));
    }
}
