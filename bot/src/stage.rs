//! Everything around the page: display, sound and browser, started in this order and ended in the other.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::browser::{Browser, BrowserError, Folders};
use crate::display::{Display, DisplayError};
use crate::process::Spawner;
use crate::sound::{Sound, SoundError};

/// Where the folder for sockets is made if the work folder's path is too long for them.
const SOCKETS_ROOT: &str = "/tmp";
/// A socket's path has at most 107 bytes, and Chromium makes one 60 bytes below.
const SOCKETS_ROOT_MAX_BYTES: usize = 40;

/// A stage that could not be set.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StageError {
    /// No folder.
    #[error("no folder can be made in {}", path.display())]
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
    _profile: TempDir,
    _sockets: TempDir,
}

impl Stage {
    /// Sets it; the browser's profile goes into `work_dir`, and away with the stage.
    pub(crate) async fn start(
        spawner: &Spawner,
        work_dir: &Path,
        browser_flags: &[&str],
    ) -> Result<Self, StageError> {
        let is_short = work_dir.as_os_str().len() <= SOCKETS_ROOT_MAX_BYTES;
        let sockets = folder("meeboter-", if is_short { work_dir } else { Path::new(SOCKETS_ROOT) })?;
        let profile = folder("browser-", work_dir)?;
        let (display, sound) = tokio::join!(Display::start(spawner), Sound::start(spawner, sockets.path()));
        let (display, mut sound) = (display?, sound?);
        // The sink has to be there before the browser looks for one.
        let folders = Folders { profile: profile.path(), temporary: sockets.path() };
        let browser = Browser::start(spawner, &display, &sound, folders, browser_flags).await?;
        sound.start_meter(spawner)?;
        Ok(Self { browser, sound, display, _profile: profile, _sockets: sockets })
    }

    /// Takes it down.
    pub(crate) async fn stop(self) {
        self.browser.stop().await;
        tokio::join!(self.sound.stop(), self.display.stop());
    }
}

fn folder(prefix: &str, root: &Path) -> Result<TempDir, StageError> {
    let made = tempfile::Builder::new().prefix(prefix).tempdir_in(root);
    made.map_err(|source| StageError::Folder { path: root.to_owned(), source })
}
