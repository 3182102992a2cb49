//! Our own meetings: the rehearsal page, joined the way a real one is.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde::Deserialize;

use super::{Platform, PlatformError};
use crate::browser::{BrowserError, Page};
use crate::meeting::{Call, Ending, Observation};

const NAME_FIELD: &str = "input[aria-label=\"Your name\"]";
const MICROPHONE_OFF: &str = "button[aria-label=\"Turn off microphone\"]";
const CAMERA_OFF: &str = "button[aria-label=\"Turn off camera\"]";
const JOIN_BUTTON: &str = "button[data-action=\"join\"]";
const LEAVE_BUTTON: &str = "button[aria-label=\"Leave call\"], button[aria-label=\"Cancel request\"]";
const LOBBY_LIMIT: Duration = Duration::from_secs(60);
const TOGGLE_LIMIT: Duration = Duration::from_secs(2);
const BUTTON_LIMIT: Duration = Duration::from_secs(15);

/// One look, in the order the rules want; only marks of shown views count.
const LOOK: &str = "(() => {
    const shown = (selector) => [...document.querySelectorAll(selector)].find((element) => !element.closest('[hidden]'));
    const end = shown('[data-view=\"end\"][data-ending]');
    if (end) return { view: 'end', ending: end.dataset.ending };
    if (shown('[data-view=\"waiting\"]')) return { view: 'waiting' };
    if (shown('[data-view=\"call\"]')) {
        const tiles = [...document.querySelectorAll('[data-participant-id]:not([data-self])')];
        return { view: 'call', people: tiles.slice(0, 1000).map((tile) => tile.dataset.participantId) };
    }
    return { view: shown('[data-view=\"lobby\"]') ? 'lobby' : 'none' };
})()";

#[derive(Debug, Deserialize)]
#[serde(tag = "view", rename_all = "lowercase")]
enum Seen {
    End { ending: String },
    Waiting,
    Call { people: BTreeSet<String> },
    Lobby,
    None,
}

/// A rehearsal meeting.
#[derive(Debug)]
pub(crate) struct Rehearsal {
    url: String,
}

impl Rehearsal {
    /// For the page at `url`.
    pub(crate) fn new(url: &str) -> Result<Self, PlatformError> {
        let bare = url.split(['?', '#']).next().unwrap_or_default();
        let rest = bare.strip_prefix("http://").or_else(|| bare.strip_prefix("https://"));
        let path = rest.and_then(|rest| rest.split_once('/')).map(|(_, path)| path);
        let code = path.and_then(|path| path.strip_prefix("rehearsal/"));
        if code.is_none_or(str::is_empty) {
            let wanted = "http(s)://<server>/rehearsal/<code>";
            return Err(PlatformError::Address { url: bare.to_owned(), wanted });
        }
        Ok(Self { url: url.to_owned() })
    }
}

fn step(step: &'static str) -> impl Fn(BrowserError) -> PlatformError {
    move |source| PlatformError::Browser { step, source }
}

fn observation(seen: Seen) -> Observation {
    match seen {
        Seen::End { ending } => match ending.as_str() {
            "ended" => Observation::Over(Ending::MeetingEnded),
            "removed" => Observation::Over(Ending::Removed),
            "denied" => Observation::Over(Ending::Denied),
            "not-found" => Observation::Over(Ending::NotFound),
            "sign-in" => Observation::Over(Ending::SignInRequired),
            "captcha" => Observation::Over(Ending::Captcha),
            "blocked" => Observation::Over(Ending::Blocked),
            // "left" is the bot's own doing; anything else is a page newer than this program.
            _ => Observation::NotReady,
        },
        Seen::Waiting => Observation::WaitingRoom,
        Seen::Call { people } => {
            Observation::InCall(Call { others: Some(people.len()), people: Some(people) })
        }
        Seen::Lobby | Seen::None => Observation::NotReady,
    }
}

#[async_trait]
impl Platform for Rehearsal {
    async fn open(&mut self, page: &Page) -> Result<(), PlatformError> {
        page.open(&self.url).await.map_err(step("open the meeting's page"))
    }

    async fn join(&mut self, page: &Page, display_name: &str) -> Result<(), PlatformError> {
        let began = Instant::now();
        loop {
            match self.observe(page).await {
                Observation::Unknown => {}
                Observation::NotReady => {
                    let field = page.press("the field for the name", NAME_FIELD, TOGGLE_LIMIT).await;
                    match field {
                        Ok(()) => break,
                        Err(_) if began.elapsed() < LOBBY_LIMIT => {}
                        Err(source) => return Err(PlatformError::Browser { step: "give a name", source }),
                    }
                }
                Observation::WaitingRoom | Observation::InCall(_) | Observation::Over(_) => return Ok(()),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        page.type_text(display_name).await.map_err(step("give a name"))?;
        for (what, selector) in
            [("the microphone's switch", MICROPHONE_OFF), ("the camera's switch", CAMERA_OFF)]
        {
            match page.press(what, selector, TOGGLE_LIMIT).await {
                // Absent means that it is off already.
                Ok(()) | Err(BrowserError::Absent { .. }) => {}
                Err(source) => {
                    return Err(PlatformError::Browser { step: "switch microphone and camera off", source });
                }
            }
        }
        page.press("the button to join", JOIN_BUTTON, BUTTON_LIMIT).await.map_err(step("ask to join"))
    }

    async fn observe(&mut self, page: &Page) -> Observation {
        page.look::<Seen>(LOOK).await.map_or(Observation::Unknown, observation)
    }

    async fn leave(&mut self, page: &Page) -> Result<(), PlatformError> {
        page.press("the button to leave", LEAVE_BUTTON, TOGGLE_LIMIT).await.map_err(step("leave the meeting"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_rehearsal_addresses_are_taken() {
        for url in
            ["http://127.0.0.1:3000/rehearsal/abc", "https://meet.example.org/rehearsal/a-b?lengthMs=5#x"]
        {
            assert!(Rehearsal::new(url).is_ok(), "{url}");
        }
        let wrong =
            ["", "file:///rehearsal/abc", "http://host/rehearsal/", "http://host/other/abc", "javascript:1"];
        for url in wrong {
            assert!(Rehearsal::new(url).is_err(), "{url}");
        }
    }

    #[test]
    fn what_the_page_shows_is_understood() {
        let look = |json: &str| observation(serde_json::from_str(json).expect("a look"));
        assert_eq!(look(r#"{"view":"end","ending":"captcha"}"#), Observation::Over(Ending::Captcha));
        assert_eq!(look(r#"{"view":"end","ending":"from-the-future"}"#), Observation::NotReady);
        assert_eq!(look(r#"{"view":"waiting"}"#), Observation::WaitingRoom);
        let people: BTreeSet<String> = ["ada".to_owned()].into();
        assert_eq!(
            look(r#"{"view":"call","people":["ada"]}"#),
            Observation::InCall(Call { people: Some(people), others: Some(1) })
        );
    }
}
