//! The browser of a bot: a Chromium of its own on its own display, driven over the DevTools protocol.
//!
//! What a page sees of the bot are real input events (`Input.dispatch…`); scripts only look. Every call is bounded in
//! time. Nothing of any platform may live here.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use chromiumoxide::cdp::browser_protocol::input::{
    DispatchKeyEventParams, DispatchKeyEventType, DispatchMouseEventParams, DispatchMouseEventType,
    InsertTextParams, MouseButton,
};
use chromiumoxide::cdp::browser_protocol::target::EventTargetCrashed;
use chromiumoxide::cdp::js_protocol::runtime::EvaluateParams;
use chromiumoxide::error::CdpError;
use chromiumoxide::handler::HandlerConfig;
use chromiumoxide::types::Command as CdpCommand;
use futures_util::StreamExt;
use rustix::process::Signal;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::task::JoinHandle;

use crate::display::{Display, HEIGHT, WIDTH};
use crate::process::{Child, SpawnError, Spawner};
use crate::sound::Sound;

const START_TIMEOUT: Duration = Duration::from_secs(45);
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
const NAVIGATION_TIMEOUT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);
/// Programs that are Chromium, the first that is found is taken.
const PROGRAMS: [&str; 4] = ["chromium", "chromium-browser", "google-chrome-stable", "google-chrome"];

/// A browser, or a page, that did not do what it was told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BrowserError {
    /// No program.
    #[error("no browser found: none of {} is in PATH", PROGRAMS.join(", "))]
    NotInstalled,
    /// It did not start.
    #[error("the browser cannot be started")]
    Spawn(#[from] SpawnError),
    /// It started and did not open its debugging port.
    #[error("the browser did not come up within {} s; it said: {said}", START_TIMEOUT.as_secs())]
    NotReady {
        /// Its last words.
        said: String,
    },
    /// It ended by itself.
    #[error("the browser exited; it said: {said}")]
    Exited {
        /// Its last words.
        said: String,
    },
    /// A call took too long.
    #[error("the browser did not answer to {call} in time")]
    Timeout {
        /// The call.
        call: &'static str,
    },
    /// A call failed.
    #[error("the browser refused {call}")]
    Refused {
        /// The call.
        call: &'static str,
        /// Why.
        #[source]
        source: CdpError,
    },
    /// The page cannot be opened.
    #[error("the page {url} cannot be opened: {problem}")]
    Navigation {
        /// The address, without its query.
        url: String,
        /// Chromium's word for it.
        problem: String,
    },
    /// A script of ours failed in the page.
    #[error("a look at the page failed: {problem}")]
    Script {
        /// What it said.
        problem: String,
    },
    /// Something to press did not come up.
    #[error("{what} did not come up on the page within {} s", limit.as_secs())]
    Absent {
        /// What.
        what: &'static str,
        /// How long it was waited for.
        limit: Duration,
    },
}

/// Where a browser may write.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Folders<'a> {
    /// Its profile, of its own.
    pub(crate) profile: &'a Path,
    /// Sockets, in a short path; Chromium leaves folders behind there when it is ended.
    pub(crate) temporary: &'a Path,
}

/// A running browser with its one page.
#[derive(Debug)]
pub(crate) struct Browser {
    process: Child,
    page: Page,
    connection: Connection,
}

/// The line to the browser.
#[derive(Debug)]
struct Connection {
    /// Kept: the line ends with it.
    _browser: chromiumoxide::Browser,
    /// Carries messages, as long as the browser is there.
    messages: JoinHandle<()>,
    /// Waits for the crash of a page.
    crash: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.messages.abort();
        self.crash.abort();
    }
}

impl Browser {
    /// Starts one on `display`, playing into `sound`.
    pub(crate) async fn start(
        spawner: &Spawner,
        display: &Display,
        sound: &Sound,
        folders: Folders<'_>,
        extra_flags: &[&str],
    ) -> Result<Self, BrowserError> {
        let program = find_program(std::env::var_os("PATH").as_deref()).ok_or(BrowserError::NotInstalled)?;
        let profile = folders.profile;
        let mut command = spawner.command(program);
        command.args(flags(profile)).args(extra_flags).arg("about:blank");
        sound.lend_to_player(&mut command);
        command.env("TMPDIR", folders.temporary);
        command.env("DISPLAY", display.name()).env("HOME", profile).env("LANGUAGE", "en_US");
        command.env("XDG_CONFIG_HOME", profile).env("XDG_CACHE_HOME", profile);
        command.env_remove("WAYLAND_DISPLAY");
        let mut process = spawner.spawn("chromium", command)?;
        let connected = tokio::time::timeout(START_TIMEOUT, connect(&mut process, profile)).await;
        let (connection, page) = match connected {
            Ok(connected) => connected?,
            Err(_) => return Err(BrowserError::NotReady { said: process.last_words() }),
        };
        Ok(Self { process, page, connection })
    }

    /// The page.
    pub(crate) fn page(&self) -> Page {
        self.page.clone()
    }

    /// True where the browser or its page is gone, or does not listen any more.
    pub(crate) fn is_gone(&mut self) -> bool {
        let Connection { messages, crash, .. } = &self.connection;
        messages.is_finished() || crash.is_finished() || self.process.exited().is_some()
    }

    /// Ends it.
    pub(crate) async fn stop(self) {
        drop(self.connection);
        self.process.stop(Signal::TERM, Duration::from_secs(3)).await;
    }
}

fn find_program(path: Option<&OsStr>) -> Option<PathBuf> {
    let folders: Vec<PathBuf> = std::env::split_paths(path?).collect();
    PROGRAMS
        .iter()
        .flat_map(|name| folders.iter().map(move |folder| folder.join(name)))
        .find(|file| file.is_file())
}

fn flags(profile: &Path) -> Vec<String> {
    let mut flags: Vec<String> = [
        "--remote-debugging-port=0",
        "--no-first-run",
        "--no-default-browser-check",
        "--kiosk",
        "--window-position=0,0",
        "--force-device-scale-factor=1",
        "--hide-scrollbars",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-quic",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-default-apps",
        "--disable-extensions",
        "--disable-sync",
        "--disable-breakpad",
        "--disable-background-timer-throttling",
        "--disable-backgrounding-occluded-windows",
        "--disable-renderer-backgrounding",
        "--autoplay-policy=no-user-gesture-required",
        "--use-fake-ui-for-media-stream",
        "--password-store=basic",
        "--lang=en-US",
        "--accept-lang=en-US,en",
        "--metrics-recording-only",
        "--noerrdialogs",
        // One flag: a second one would replace the first.
        "--disable-features=Translate,MediaRouter,GlobalMediaControls,OptimizationHints,HardwareMediaKeyHandling",
    ]
    .map(str::to_owned)
    .to_vec();
    flags.push(format!("--window-size={WIDTH},{HEIGHT}"));
    flags.push(format!("--user-data-dir={}", profile.display()));
    if rustix::process::geteuid().is_root() {
        // The sandbox refuses root; --test-type keeps the bar that warns of it out of the picture.
        flags.extend(["--no-sandbox".to_owned(), "--test-type".to_owned()]);
    }
    flags
}

async fn connect(process: &mut Child, profile: &Path) -> Result<(Connection, Page), BrowserError> {
    let refused = |call| move |source| BrowserError::Refused { call, source };
    let address = devtools_address(process, &profile.join("DevToolsActivePort")).await?;
    let config = HandlerConfig {
        ignore_https_errors: false,
        viewport: None,
        request_timeout: CALL_TIMEOUT,
        ..HandlerConfig::default()
    };
    let (browser, mut handler) = chromiumoxide::Browser::connect_with_config(address, config)
        .await
        .map_err(refused("the connection"))?;
    let messages = tokio::spawn(async move {
        // An error here concerns one message; the stream itself ends with the connection.
        while handler.next().await.is_some() {}
    });
    let mut crashes =
        browser.event_listener::<EventTargetCrashed>().await.map_err(refused("listening for crashes"))?;
    let crash = tokio::spawn(async move {
        crashes.next().await;
    });
    loop {
        let pages = browser.pages().await.map_err(refused("the list of pages"))?;
        for page in pages {
            // Taken only if it answers: a session may be gone before it was ever used.
            let page = Page { inner: page };
            if page.look::<bool>("true").await.is_ok() {
                return Ok((Connection { _browser: browser, messages, crash }, page));
            }
        }
        tokio::time::sleep(POLL).await;
    }
}

/// The browser writes port and path into a file once it listens.
async fn devtools_address(process: &mut Child, file: &Path) -> Result<String, BrowserError> {
    loop {
        if process.exited().is_some() {
            return Err(BrowserError::Exited { said: process.last_words() });
        }
        if let Ok(text) = tokio::fs::read_to_string(file).await
            && let Some((port, path)) = text.split_once('\n')
            && let Ok(port) = port.trim().parse::<u16>()
        {
            return Ok(format!("ws://127.0.0.1:{port}{}", path.trim()));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Where something is on the page, in CSS pixels.
#[derive(Debug, Clone, Copy, Deserialize)]
struct Spot {
    x: f64,
    y: f64,
}

/// The page; clones are the same page.
#[derive(Debug, Clone)]
pub(crate) struct Page {
    inner: chromiumoxide::Page,
}

impl Page {
    /// Opens an address and waits until its document is there. A page that takes too long counts as opened: what it
    /// shows is looked at later.
    ///
    /// By script: the client's own navigation waits for events that Chromium does not always send.
    pub(crate) async fn open(&self, url: &str) -> Result<(), BrowserError> {
        let target = serde_json::Value::from(url);
        let mark = "window.meeboterOld";
        self.look::<bool>(&format!("(() => {{ {mark} = true; location.href = {target}; return true; }})()"))
            .await?;
        let began = Instant::now();
        while began.elapsed() < NAVIGATION_TIMEOUT {
            // Null while the old document is there still; a look may fail while the two are exchanged.
            let arrived = format!("{mark} || document.readyState === 'loading' ? null : location.protocol");
            match self.look::<Option<String>>(&arrived).await {
                Ok(Some(protocol)) if protocol == "chrome-error:" => {
                    // The name of the error alone: the text around it holds the address with its passcode.
                    let name = "(document.body.innerText.match(/ERR_[A-Z0-9_]+/) ?? ['no reason given'])[0]";
                    let problem = self.look::<String>(name).await.unwrap_or_default();
                    let url = url.split(['?', '#']).next().unwrap_or_default().to_owned();
                    return Err(BrowserError::Navigation { url, problem });
                }
                Ok(Some(_)) => return Ok(()),
                Ok(None) | Err(_) => tokio::time::sleep(POLL).await,
            }
        }
        Ok(())
    }

    /// Evaluates an expression (a promise is awaited) and takes its value.
    pub(crate) async fn look<T: DeserializeOwned>(&self, expression: &str) -> Result<T, BrowserError> {
        let params = EvaluateParams {
            return_by_value: Some(true),
            await_promise: Some(true),
            ..EvaluateParams::new(expression)
        };
        let answer = self.call("a look at the page", CALL_TIMEOUT, params).await?;
        if let Some(exception) = answer.exception_details {
            let said = exception.exception.and_then(|object| object.description).unwrap_or(exception.text);
            return Err(BrowserError::Script { problem: said.chars().take(300).collect() });
        }
        let value = answer.result.value.unwrap_or_default();
        serde_json::from_value(value).map_err(|error| BrowserError::Script { problem: error.to_string() })
    }

    /// Waits until `selector` is there, enabled and uncovered, then presses it with the mouse.
    pub(crate) async fn press(
        &self,
        what: &'static str,
        selector: &str,
        limit: Duration,
    ) -> Result<(), BrowserError> {
        let spot = self.find(what, selector, limit).await?;
        // A way to the spot: some toolbars only come up when the pointer moves.
        for share in [0.5, 0.9, 1.0] {
            self.mouse(DispatchMouseEventType::MouseMoved, Spot { x: spot.x * share, y: spot.y * share })
                .await?;
        }
        self.mouse(DispatchMouseEventType::MousePressed, spot).await?;
        tokio::time::sleep(Duration::from_millis(60)).await;
        self.mouse(DispatchMouseEventType::MouseReleased, spot).await
    }

    /// Types a text into whatever has the focus, key by key.
    pub(crate) async fn type_text(&self, text: &str) -> Result<(), BrowserError> {
        for letter in text.chars() {
            if letter.is_ascii_graphic() || letter == ' ' {
                self.key(DispatchKeyEventType::KeyDown, letter).await?;
                self.key(DispatchKeyEventType::KeyUp, letter).await?;
            } else {
                self.call("typing", CALL_TIMEOUT, InsertTextParams::new(letter.to_string())).await?;
            }
        }
        Ok(())
    }

    async fn find(&self, what: &'static str, selector: &str, limit: Duration) -> Result<Spot, BrowserError> {
        let expression = spot_expression(selector);
        let began = Instant::now();
        loop {
            // A look may fail while the page is being replaced; only the limit decides.
            if let Ok(Some(spot)) = self.look::<Option<Spot>>(&expression).await {
                return Ok(spot);
            }
            if began.elapsed() >= limit {
                return Err(BrowserError::Absent { what, limit });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn mouse(&self, kind: DispatchMouseEventType, spot: Spot) -> Result<(), BrowserError> {
        let mut params = DispatchMouseEventParams::new(kind.clone(), spot.x, spot.y);
        if kind != DispatchMouseEventType::MouseMoved {
            params.button = Some(MouseButton::Left);
            params.click_count = Some(1);
        }
        self.call("a mouse event", CALL_TIMEOUT, params).await.map(drop)
    }

    async fn key(&self, kind: DispatchKeyEventType, letter: char) -> Result<(), BrowserError> {
        let mut params = DispatchKeyEventParams::new(kind.clone());
        params.key = Some(letter.to_string());
        if kind == DispatchKeyEventType::KeyDown {
            params.text = Some(letter.to_string());
        }
        self.call("a key event", CALL_TIMEOUT, params).await.map(drop)
    }

    async fn call<C: CdpCommand>(
        &self,
        call: &'static str,
        limit: Duration,
        command: C,
    ) -> Result<C::Response, BrowserError> {
        match tokio::time::timeout(limit, self.inner.execute(command)).await {
            Ok(Ok(answer)) => Ok(answer.result),
            Ok(Err(CdpError::Timeout)) | Err(_) => Err(BrowserError::Timeout { call }),
            Ok(Err(source)) => Err(BrowserError::Refused { call, source }),
        }
    }
}

/// The middle of the first element that matches and can be pressed, else null.
fn spot_expression(selector: &str) -> String {
    let selector = serde_json::Value::from(selector);
    format!(
        "(() => {{
            for (const element of document.querySelectorAll({selector})) {{
                if (element.disabled || element.getAttribute('aria-disabled') === 'true') continue;
                element.scrollIntoView({{ block: 'center', inline: 'center', behavior: 'instant' }});
                const box = element.getBoundingClientRect();
                if (box.width < 1 || box.height < 1) continue;
                const x = box.x + box.width / 2, y = box.y + box.height / 2;
                const hit = document.elementFromPoint(x, y);
                if (hit && (element === hit || element.contains(hit))) return {{ x, y }};
            }}
            return null;
        }})()"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_cannot_break_out_of_the_script() {
        let expression = spot_expression("[aria-label=\"Ask 'now'\"]");
        assert!(expression.contains(r#"querySelectorAll("[aria-label=\"Ask 'now'\"]")"#), "{expression}");
    }

    #[test]
    fn the_first_known_program_in_path_is_taken() {
        let folder = tempfile::tempdir().expect("temporary folder");
        assert_eq!(find_program(Some(folder.path().as_os_str())), None);
        std::fs::write(folder.path().join("google-chrome"), "").expect("file");
        std::fs::write(folder.path().join("chromium"), "").expect("file");
        assert_eq!(find_program(Some(folder.path().as_os_str())), Some(folder.path().join("chromium")));
    }
}
