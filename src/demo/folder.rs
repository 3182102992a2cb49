//! The folder of a demonstration: the server's data, its log, the recordings.

use super::DemoError;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// Others may pass through (the embedded database runs as a user of its own), but not look around.
const FOLDER_MODE: u32 = 0o711;

/// Where everything of one demonstration lies.
#[derive(Debug, Clone)]
pub(super) struct Folder {
    root: PathBuf,
}

impl Folder {
    /// Makes the folder, or takes an empty one.
    pub(super) fn prepare(wanted: Option<&Path>) -> Result<Self, DemoError> {
        let path = wanted.map_or_else(fresh_path, Path::to_path_buf);
        let failed = |source| DemoError::Folder { path: path.clone(), source };
        DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(&path).map_err(failed)?;
        if fs::read_dir(&path).map_err(failed)?.next().is_some() {
            return Err(DemoError::FolderTaken { path });
        }
        let folder = Self { root: path.canonicalize().map_err(failed)? };
        DirBuilder::new().mode(0o700).create(folder.recordings()).map_err(failed)?;
        Ok(folder)
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Where the server leaves its first API key.
    pub(super) fn key(&self) -> PathBuf {
        self.root.join("api-key")
    }

    pub(super) fn read_key(&self) -> Result<String, DemoError> {
        let path = self.key();
        match fs::read_to_string(&path) {
            Ok(key) => Ok(key.trim().to_owned()),
            Err(source) => Err(DemoError::Key { path, source }),
        }
    }

    pub(super) fn server_log(&self) -> PathBuf {
        self.root.join("server.log")
    }

    pub(super) fn create_server_log(&self) -> io::Result<File> {
        File::create_new(self.server_log())
    }

    pub(super) fn recording(&self, bot: i64) -> PathBuf {
        self.recordings().join(format!("bot-{bot}.mp4"))
    }

    fn recordings(&self) -> PathBuf {
        self.root.join("recordings")
    }
}

fn fresh_path() -> PathBuf {
    let name = Uuid::new_v4().simple().to_string();
    std::env::temp_dir().join(format!("meeboter-demo-{}", &name[..8]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_empty_folder_is_taken() {
        let parent = tempfile::tempdir().expect("a temporary folder");
        let wanted = parent.path().join("a/b");
        let folder = Folder::prepare(Some(&wanted)).expect("made");
        assert!(folder.recording(7).ends_with("recordings/bot-7.mp4"));
        assert!(matches!(Folder::prepare(Some(&wanted)), Err(DemoError::FolderTaken { .. })));
    }
}
