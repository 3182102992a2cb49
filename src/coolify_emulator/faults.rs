//! Bad days by switch: what goes wrong with which requests, and how often. Pure.

use serde::Deserialize;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trouble {
    /// 500, and nothing is done.
    ServerError,
    /// 500, and what was asked is done: old versions' answer to a cancellation.
    ServerErrorAfter,
    /// 429 of the rate limit, with a second to wait.
    TooManyRequests,
    /// The connection is cut, and nothing is done.
    CutBefore,
    /// What was asked is done, and the connection is cut before the answer.
    CutAfter,
    /// No answer comes; nothing is done.
    Silence,
    /// A page of a proxy in front instead of an answer: it does not reach Coolify.
    ProxyPage,
    /// A proxy in front that does not know the route to Coolify yet.
    ProxyNotFound,
    /// 400, as of a container that does not run: also what Coolify says where it could not ask its server.
    NotRunning,
    /// 200, and an empty list.
    EmptyList,
    /// 200, and nothing is done: a job that fails without a word.
    IgnoredSilently,
}

/// A trouble, and what it befalls.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// The method; none: every one.
    #[serde(default)]
    pub method: Option<String>,
    /// What the path ends in, such as `/deploy`; `""`: every path.
    pub path: String,
    /// What goes wrong.
    pub trouble: Trouble,
    /// How many requests it befalls.
    pub times: u32,
}

/// The faults that are still to come.
#[derive(Debug, Default)]
pub(super) struct Faults {
    ahead: Vec<Fault>,
}

impl Faults {
    pub(super) fn add(&mut self, fault: Fault) {
        self.ahead.push(fault);
    }

    pub(super) fn clear(&mut self) {
        self.ahead.clear();
    }

    /// What befalls this request.
    pub(super) fn befall(&mut self, method: &str, path: &str) -> Option<Trouble> {
        let hits = |fault: &&mut Fault| {
            fault.method.as_deref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(method))
                && path.ends_with(&fault.path)
                && fault.times > 0
        };
        let fault = self.ahead.iter_mut().find(hits)?;
        fault.times -= 1;
        let trouble = fault.trouble;
        self.ahead.retain(|fault| fault.times > 0);
        Some(trouble)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_befalls_so_many_requests_of_its_kind() {
        let mut faults = Faults::default();
        let trouble = Trouble::CutAfter;
        faults.add(Fault { method: Some("POST".into()), path: "/deploy".into(), trouble, times: 2 });
        assert_eq!(faults.befall("GET", "/api/v1/deploy"), None);
        assert_eq!(faults.befall("POST", "/api/v1/applications"), None);
        assert_eq!(faults.befall("POST", "/api/v1/deploy"), Some(trouble));
        assert_eq!(faults.befall("POST", "/api/v1/deploy"), Some(trouble));
        assert_eq!(faults.befall("POST", "/api/v1/deploy"), None);
    }
}
