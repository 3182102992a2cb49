//! Everything around the page: display, sound and browser, started in this order and ended in the other.

use std::path::PathBuf;

use tempfile::TempDir;

use crate::browser::{Browser, BrowserError};
use crate::display::{Display, DisplayError};
use crate::process::Spawner;
use crate::sound::{Sound, SoundError};

/// Where the folder for sockets and the browser's profile is made; short, for a socket's path has at most 107 bytes.
const RUNTIME_ROOT: &str = "/tmp";

/// A stage that could not be set.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StageError {
    /// No folder.
    #[error("no folder for sockets and profile can be made in {}", path.display())]
    Folder {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// No display.
    #[error("no display")]
    Display(#[from] DisplayError),
    /// No sound.
    #[error("no sound")]
    Sound(#[from] SoundError),
    /// No browser.
    #[error("no browser")]
    Browser(#[from] BrowserError),
}

/// The set stage.
pub(crate) struct Stage {
    /// The browser; declared first, for it has to go first.
    pub(crate) browser: Browser,
    /// Its sound.
    pub(crate) sound: Sound,
    /// Its screen.
    pub(crate) display: Display,
    _folder: TempDir,
}

impl Stage {
    /// Sets it.
    pub(crate) async fn start(spawner: &Spawner, browser_flags: &[&str]) -> Result<Self, StageError> {
        let root = PathBuf::from(RUNTIME_ROOT);
        let folder = tempfile::Builder::new()
            .prefix("meeboter-")
            .tempdir_in(&root)
            .map_err(|source| StageError::Folder { path: root, source })?;
        let (display, sound) = tokio::join!(Display::start(spawner), Sound::start(spawner, folder.path()));
        let (display, mut sound) = (display?, sound?);
        // The sink has to be there before the browser looks for one.
        let profile = folder.path().join("profile");
        let browser = Browser::start(spawner, &display, &sound, &profile, browser_flags).await?;
        sound.start_meter(spawner)?;
        Ok(Self { browser, sound, display, _folder: folder })
    }

    /// Takes it down.
    pub(crate) async fn stop(self) {
        self.browser.stop().await;
        tokio::join!(self.sound.stop(), self.display.stop());
    }
}
