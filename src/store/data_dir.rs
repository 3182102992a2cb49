//! The data folder, held by one process at a time.

use rustix::fs::{FlockOperation, flock};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

const LOCK_FILE: &str = "lock";

/// Why the data folder cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// It cannot be made.
    #[error(
        "the data folder {folder} cannot be made; choose another one, or make it and give it to this user"
    )]
    Make {
        /// Which.
        folder: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Its lock file cannot be used.
    #[error("the lock file {file} cannot be opened; may this user write to the data folder?")]
    LockFile {
        /// Which.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another process has it.
    #[error(
        "another server uses the data folder {folder} (pid {pid}); stop it first, or choose another folder"
    )]
    Held {
        /// Which.
        folder: PathBuf,
        /// Who.
        pid: String,
    },
}

/// A data folder that this process holds until the value is dropped or the process is gone, however it ends.
#[derive(Debug)]
pub struct DataDir {
    folder: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Makes the folder if need be, and takes it.
    pub fn hold(folder: &Path) -> Result<Self, DataDirError> {
        let make = |source| DataDirError::Make { folder: folder.to_owned(), source };
        std::fs::create_dir_all(folder).map_err(make)?;
        let folder = folder.canonicalize().map_err(make)?;
        let file = folder.join(LOCK_FILE);
        let lock_file = |source| DataDirError::LockFile { file: file.clone(), source };
        // Not truncated: until the lock is had, the file says who has it. Not inherited by the processes we start.
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&file)
            .map_err(lock_file)?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut pid = String::new();
            // Only for the message.
            let _ = (&lock).take(20).read_to_string(&mut pid);
            return Err(DataDirError::Held { folder, pid: pid.trim().to_owned() });
        }
        lock.set_len(0).map_err(lock_file)?;
        lock.rewind().map_err(lock_file)?;
        writeln!(lock, "{}", std::process::id()).map_err(lock_file)?;
        Ok(Self { folder, _lock: lock })
    }

    /// Where it is; absolute.
    pub fn path(&self) -> &Path {
        &self.folder
    }
}
