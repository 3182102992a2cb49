//! A headless Chromium that a test looks at a page with, and presses and types in as a person would.

use chromiumoxide::cdp::browser_protocol::emulation::{
    MediaFeature, SetDeviceMetricsOverrideParams, SetEmulatedMediaParams,
};
use chromiumoxide::cdp::browser_protocol::input::{
    DispatchMouseEventParams, DispatchMouseEventType, InsertTextParams, MouseButton,
};
use chromiumoxide::cdp::browser_protocol::page::AddScriptToEvaluateOnNewDocumentParams;
use chromiumoxide::cdp::js_protocol::runtime::EvaluateParams;
use chromiumoxide::handler::HandlerConfig;
use chromiumoxide::page::ScreenshotParams;
use futures_util::StreamExt;
use rustix::process::Signal;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(50);
/// Gathers what goes wrong in the page, where a test can ask for it.
const FAULTS: &str = "window.faults = [];
    addEventListener('error', (event) => faults.push(String(event.message)));
    addEventListener('unhandledrejection', (event) => faults.push(String(event.reason)));
    addEventListener('securitypolicyviolation', (event) => faults.push(event.violatedDirective));";

/// See the module.
pub(crate) struct Browser {
    process: Child,
    browser: chromiumoxide::Browser,
    page: chromiumoxide::Page,
    pictures: PathBuf,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts one; its pictures go to a folder of this name.
    pub(crate) async fn start(pictures: &str) -> Self {
        let profile = tempfile::tempdir().unwrap();
        let mut command = Command::new("chromium");
        command.args(["--headless=new", "--remote-debugging-port=0", "--no-first-run", "--disable-gpu"]);
        command.args(["--disable-dev-shm-usage", "--disable-background-networking", "--hide-scrollbars"]);
        command.args(["--disable-component-update", "--disable-sync", "--disable-breakpad", "--lang=en-US"]);
        command.args(["--window-size=1280,900", "--force-device-scale-factor=1"]);
        command.arg(format!("--user-data-dir={}", profile.path().display()));
        if rustix::process::geteuid().is_root() {
            // The sandbox refuses root.
            command.arg("--no-sandbox");
        }
        command.arg("about:blank").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().unwrap();
        let address = devtools_address(&profile.path().join("DevToolsActivePort")).await;
        let config = HandlerConfig { viewport: None, ..HandlerConfig::default() };
        let (browser, mut handler) =
            chromiumoxide::Browser::connect_with_config(address, config).await.unwrap();
        tokio::spawn(async move { while handler.next().await.is_some() {} });
        let page = first_page(&browser).await;
        page.execute(AddScriptToEvaluateOnNewDocumentParams::new(FAULTS)).await.unwrap();
        let pictures = Path::new(env!("CARGO_TARGET_TMPDIR")).join(pictures);
        fs::create_dir_all(&pictures).unwrap();
        println!("pictures go to {}", pictures.display());
        Self { process, browser, page, pictures, _profile: profile }
    }

    /// Opens an address, by script: the client's own way waits for events that do not always come.
    pub(crate) async fn open(&self, url: &str) {
        let go = format!("location.href = {}", Value::from(url));
        self.look::<Value>(&go).await.expect("a page can be left");
    }

    /// The value of an expression; `None` where the page cannot be asked just now.
    pub(crate) async fn look<T: DeserializeOwned>(&self, expression: &str) -> Option<T> {
        look(&self.page, expression).await
    }

    /// Waits until an expression is true.
    pub(crate) async fn wait(&self, expression: &str) {
        let deadline = Instant::now() + LIMIT;
        while self.look::<bool>(expression).await != Some(true) {
            if Instant::now() >= deadline {
                self.picture("failure").await;
                let text: Option<String> = self.look("document.body.innerText").await;
                panic!("never true: {expression}\nthe page: {}", text.unwrap_or_default());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until an element with this test id is on the page and shows a text.
    pub(crate) async fn wait_text(&self, id: &str, text: &str) {
        let text = Value::from(text);
        self.wait(&format!("{}?.innerText.includes({text}) ?? false", element(id))).await;
    }

    /// Waits until an element has an attribute of this value.
    pub(crate) async fn wait_attribute(&self, id: &str, name: &str, value: &str) {
        self.wait(&format!("{}?.getAttribute('{name}') === {}", element(id), Value::from(value))).await;
    }

    /// Waits until an element can be pressed, and presses it with the mouse.
    pub(crate) async fn press(&self, id: &str) {
        let spot = format!(
            "(() => {{
                const element = {};
                if (!element || element.disabled) return null;
                element.scrollIntoView({{ block: 'center', behavior: 'instant' }});
                const box = element.getBoundingClientRect();
                const x = box.x + box.width / 2, y = box.y + box.height / 2;
                const hit = document.elementFromPoint(x, y);
                return hit && (element === hit || element.contains(hit)) ? [x, y] : null;
            }})()",
            element(id)
        );
        self.wait(&format!("{spot} !== null")).await;
        let (x, y): (f64, f64) = self.look(&spot).await.expect("it was there");
        for kind in [DispatchMouseEventType::MousePressed, DispatchMouseEventType::MouseReleased] {
            let mut event = DispatchMouseEventParams::new(kind, x, y);
            event.button = Some(MouseButton::Left);
            event.click_count = Some(1);
            self.page.execute(event).await.unwrap();
        }
    }

    /// Presses a field and types into it.
    pub(crate) async fn type_into(&self, id: &str, text: &str) {
        self.press(id).await;
        self.insert(text).await;
    }

    /// Types into whatever has the focus, in place of what is selected.
    pub(crate) async fn insert(&self, text: &str) {
        self.page.execute(InsertTextParams::new(text)).await.unwrap();
    }

    /// Waits for another tab whose address holds a text and in which an expression is true; closes it.
    pub(crate) async fn wait_tab(&self, address: &str, expression: &str) {
        let deadline = Instant::now() + LIMIT;
        loop {
            let mut tabs = vec![];
            for tab in self.browser.pages().await.unwrap() {
                let url = tab.url().await.ok().flatten().unwrap_or_default();
                if url.contains(address) && look::<bool>(&tab, expression).await == Some(true) {
                    tab.close().await.unwrap();
                    // A page in the background is not painted.
                    self.page.bring_to_front().await.unwrap();
                    return;
                }
                tabs.push(url);
            }
            assert!(Instant::now() < deadline, "no tab at {address} where {expression}: {tabs:?}");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// A picture of the page in each colour scheme.
    pub(crate) async fn pictures(&self, name: &str) {
        for scheme in ["light", "dark"] {
            self.set_scheme(scheme).await;
            self.picture(&format!("{name}-{scheme}")).await;
        }
        self.set_scheme("light").await;
    }

    async fn set_scheme(&self, scheme: &str) {
        let feature = MediaFeature { name: "prefers-color-scheme".to_owned(), value: scheme.to_owned() };
        let media = SetEmulatedMediaParams { features: Some(vec![feature]), ..Default::default() };
        self.page.execute(media).await.unwrap();
    }

    async fn picture(&self, name: &str) {
        // Colours fade from one to the other; a picture is of how it looks in the end.
        self.look::<Value>(
            "document.getAnimations().forEach((animation) => {
            if (animation instanceof CSSTransition) animation.finish();
        })",
        )
        .await;
        let png = self.page.screenshot(ScreenshotParams::builder().build()).await.unwrap();
        fs::write(self.pictures.join(format!("{name}.png")), png).unwrap();
    }

    /// Makes the page so large.
    pub(crate) async fn resize(&self, width: i64, height: i64) {
        let size = SetDeviceMetricsOverrideParams::new(width, height, 1.0, width < 600);
        self.page.execute(size).await.unwrap();
    }

    /// What went wrong in the page since it was opened.
    pub(crate) async fn faults(&self) -> Vec<String> {
        self.look("window.faults").await.expect("a page that can be asked")
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        super::server::signal(i32::try_from(self.process.id()).unwrap_or_default(), Signal::TERM);
        let _ = self.process.wait();
    }
}

async fn look<T: DeserializeOwned>(page: &chromiumoxide::Page, expression: &str) -> Option<T> {
    let params = EvaluateParams { return_by_value: Some(true), ..EvaluateParams::new(expression) };
    let answer = page.execute(params).await.ok()?.result;
    if answer.exception_details.is_some() {
        return None;
    }
    serde_json::from_value(answer.result.value.unwrap_or_default()).ok()
}

/// The expression for the element with a test id, if it is shown.
fn element(id: &str) -> String {
    let selector = Value::from(format!("[data-testid=\"{id}\"]"));
    format!("[...document.querySelectorAll({selector})].find((found) => found.checkVisibility())")
}

async fn devtools_address(file: &Path) -> String {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Ok(text) = fs::read_to_string(file)
            && let Some((port, path)) = text.split_once('\n')
        {
            return format!("ws://127.0.0.1:{port}{}", path.trim());
        }
        assert!(Instant::now() < deadline, "Chromium does not come up");
        tokio::time::sleep(LOOK).await;
    }
}

async fn first_page(browser: &chromiumoxide::Browser) -> chromiumoxide::Page {
    let deadline = Instant::now() + LIMIT;
    loop {
        for page in browser.pages().await.unwrap() {
            // Taken only if it answers: a session may be gone before it was ever used.
            if page.execute(EvaluateParams::new("true")).await.is_ok() {
                return page;
            }
        }
        assert!(Instant::now() < deadline, "Chromium has no page");
        tokio::time::sleep(LOOK).await;
    }
}
