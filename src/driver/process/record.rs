//! Which process a bot is: `process` in its work folder, with the boot of the machine that it belongs to.

use super::procfs::{Identity, boot_id};
use crate::driver::folders::remove_file;
use std::fs;
use std::io;
use std::path::Path;

const RECORD_FILE: &str = "process";

/// Notes which process the bot of a work folder is.
pub(super) fn record(folder: &Path, bot: Identity) -> io::Result<()> {
    let written = folder.join("process.new");
    fs::write(&written, format!("{bot} {}\n", boot_id()?))?;
    fs::rename(written, folder.join(RECORD_FILE))
}

/// The process recorded in a work folder; one of an earlier boot of the machine is none.
pub(super) fn recorded(folder: &Path) -> io::Result<Option<Identity>> {
    let text = match fs::read_to_string(folder.join(RECORD_FILE)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let Some((bot, boot)) = text.trim().split_once(' ') else { return Ok(None) };
    Ok(if boot == boot_id()? { bot.parse().ok() } else { None })
}

/// Forgets an earlier start's.
pub(super) fn forget(folder: &Path) -> io::Result<()> {
    remove_file(&folder.join(RECORD_FILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_another_boot_is_none() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let folder = folder.path();
        let bot = Identity { start_time: 99, pid: 7 };
        record(folder, bot).expect("written");
        assert_eq!(recorded(folder).expect("readable"), Some(bot));
        fs::write(folder.join(RECORD_FILE), "7:99 another-boot\n").expect("written");
        assert_eq!(recorded(folder).expect("readable"), None);
        forget(folder).expect("removed");
        assert_eq!(recorded(folder).expect("readable"), None);
    }
}
