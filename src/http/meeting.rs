//! Which meetings can be joined: platforms by their names, and whether an address is one of theirs. Pure.

use super::error::ApiError;
use actix_web::http::StatusCode;
use meeboter_actors::ids::Platform;
use serde_json::json;
use url::Url;

pub use crate::config::{DOCUMENTED, REHEARSAL};
/// Longest address taken.
const URL_CHARS_MAX: usize = 2_000;

/// What the door knows of this server.
#[derive(Debug, Clone)]
pub struct Offered<'a> {
    /// Whether rehearsals are switched on.
    pub rehearsal: bool,
    /// Hosts (with port) that this server is reached by.
    pub own_hosts: Vec<&'a str>,
    /// Platforms that the configuration adds: whether a meeting is one of theirs is for their image to know.
    pub further: Vec<&'a str>,
}

/// The canonical key of a platform, with the aliases that clients use; one that is known and has no adapter yet is
/// told apart from one that is not known.
pub fn platform(name: &str, offered: &Offered<'_>) -> Result<Platform, ApiError> {
    let key = match name {
        "google-meet" | "google" | "meet" => "google-meet",
        "microsoft-teams" | "teams" => "microsoft-teams",
        "zoom" => "zoom",
        REHEARSAL if offered.rehearsal => return Ok(Platform(REHEARSAL.to_owned())),
        further if offered.further.contains(&further) => return Ok(Platform(further.to_owned())),
        _ => {
            let mut known = DOCUMENTED.to_vec();
            known.extend(&offered.further);
            known.extend(offered.rehearsal.then_some(REHEARSAL));
            let message =
                format!("meetingInfo.platform: {name:?} is not a platform; known are {}.", known.join(", "));
            let error = ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "platform_unknown", message);
            return Err(error.with_details(json!({ "field": "meetingInfo.platform", "allowed": known })));
        }
    };
    let message = format!("This version cannot join {key} meetings yet.");
    let error = ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "platform_not_available", message);
    Err(error.with_details(json!({ "field": "meetingInfo.platform", "platform": key })))
}

/// The address of a meeting of this platform.
pub fn meeting_url(platform: &Platform, text: &str, offered: &Offered<'_>) -> Result<String, ApiError> {
    let refused =
        |why: &str| Err(ApiError::field("meetingInfo.meetingUrl", format!("meetingInfo.meetingUrl: {why}")));
    let text = text.trim();
    if text.chars().count() > URL_CHARS_MAX {
        return refused("it is longer than 2000 characters.");
    }
    let Ok(url) = Url::parse(text) else { return refused("it is not an address such as https://host/path.") };
    if offered.further.contains(&platform.0.as_str()) {
        let is_web = matches!(url.scheme(), "http" | "https") && url.has_host();
        return if is_web { Ok(url.into()) } else { refused("it is no address such as https://host/path.") };
    }
    if platform.0 != REHEARSAL {
        return refused("meetings of this platform cannot be joined.");
    }
    let host = match (url.host_str(), url.port_or_known_default()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        _ => return refused("it has no host."),
    };
    let own = offered.own_hosts.iter().any(|own| with_port(own, url.scheme()) == host);
    if !own || !matches!(url.scheme(), "http" | "https") {
        return refused("a rehearsal meeting is one of this server's own, under /rehearsal/.");
    }
    match url.path().strip_prefix("/rehearsal/") {
        Some(code) if !code.is_empty() && !code.contains('/') => Ok(url.into()),
        _ => refused("a rehearsal meeting is /rehearsal/<name>, with options behind a question mark."),
    }
}

fn with_port(host: &str, scheme: &str) -> String {
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    match scheme {
        _ if has_port => host.to_owned(),
        "https" => format!("{host}:443"),
        _ => format!("{host}:80"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offered(rehearsal: bool) -> Offered<'static> {
        Offered {
            rehearsal,
            own_hosts: vec!["127.0.0.1:3000", "meeboter.example.com"],
            further: vec!["my-video"],
        }
    }

    fn code(result: Result<Platform, ApiError>) -> &'static str {
        result.expect_err("refused").log_line().1
    }

    #[test]
    fn platforms_are_known_by_their_aliases() {
        for name in ["google-meet", "google", "meet", "microsoft-teams", "teams", "zoom"] {
            assert_eq!(code(platform(name, &offered(true))), "platform_not_available", "{name}");
        }
        assert_eq!(code(platform("webex", &offered(true))), "platform_unknown");
        assert_eq!(code(platform("rehearsal", &offered(false))), "platform_unknown");
        assert!(platform("rehearsal", &offered(true)).is_ok());
    }

    #[test]
    fn further_platforms_are_known_by_their_key_alone() {
        let own = platform("my-video", &offered(false)).expect("known");
        assert_eq!(own.0, "my-video");
        assert_eq!(code(platform("my_video", &offered(false))), "platform_unknown");
        assert!(meeting_url(&own, "https://video.example.org/room/1", &offered(false)).is_ok());
        assert!(meeting_url(&own, "file:///room", &offered(false)).is_err());
    }

    #[test]
    fn a_rehearsal_is_this_servers_own() {
        let rehearsal = Platform(REHEARSAL.into());
        let url = |text: &str| meeting_url(&rehearsal, text, &offered(true));
        assert!(url("http://127.0.0.1:3000/rehearsal/one?host=admit").is_ok());
        assert!(url("https://meeboter.example.com/rehearsal/one").is_ok());
        for refused in [
            "",
            "one",
            "http://127.0.0.1:3001/rehearsal/one",
            "http://example.org/rehearsal/one",
            "http://127.0.0.1:3000/rehearsal/",
            "http://127.0.0.1:3000/other",
            "file:///rehearsal/one",
        ] {
            assert!(url(refused).is_err(), "{refused:?} must be refused");
        }
    }
}
