//! The queue's order and what an answer means for it; the sending itself is tested against a server.

use super::*;

fn entry(body: Body) -> Entry {
    Entry { at: Utc::now(), body }
}

fn status(status: WireState) -> Entry {
    entry(Body::Status { status, reason: None, detail: None })
}

fn event(event_type: WireEventType, number: usize) -> Entry {
    entry(Body::Event { event_type, data: json!({ "number": number }) })
}

fn refused(status: u16, code: &str, next_seq: Option<i64>) -> Result<i64, ClientError> {
    let (code, message) = (code.to_owned(), String::new());
    Err(ClientError::Refused { call: "a test", status, code, message, next_seq, retry_after: None })
}

#[test]
fn a_full_queue_loses_log_lines_first_and_statuses_never() {
    let mut queue = Queue::default();
    queue.push(event(WireEventType::Log, 0));
    queue.push(status(WireState::JoiningCall));
    for number in 1..=QUEUE_MAX {
        queue.push(event(WireEventType::ParticipantJoin, number));
    }
    queue.push(event(WireEventType::Log, 9_999));
    queue.push(status(WireState::InCall));
    assert_eq!(queue.entries.len(), QUEUE_MAX);
    let is_status = |entry: &&Entry| matches!(entry.body, Body::Status { .. });
    assert_eq!(queue.entries.iter().filter(is_status).count(), 2);
    // The first may be on its way: it stays, though it is a log line. The later log line went for the status.
    assert_eq!(queue.entries[0].body, event(WireEventType::Log, 0).body);
    let logs = queue
        .entries
        .iter()
        .filter(|entry| matches!(entry.body, Body::Event { event_type: WireEventType::Log, .. }));
    assert_eq!(logs.count(), 1);
    assert_eq!(queue.dropped, 4);
}

#[test]
fn a_queue_full_of_statuses_refuses_events_and_takes_statuses() {
    let mut queue = Queue::default();
    for _ in 0..QUEUE_MAX {
        queue.push(status(WireState::Recording));
    }
    queue.push(event(WireEventType::Log, 1));
    assert_eq!((queue.entries.len(), queue.dropped), (QUEUE_MAX, 1));
    queue.push(status(WireState::Leaving));
    assert_eq!(queue.entries.len(), QUEUE_MAX + 1);
}

#[test]
fn answers_are_understood() {
    let table = [
        (Ok(6), Verdict::Taken(6)),
        // A server that counts further has seen more of us than we remember.
        (Ok(9), Verdict::Taken(9)),
        // One that counts less must not make us send a number twice.
        (Ok(2), Verdict::Taken(6)),
        (refused(409, "report_gap", Some(3)), Verdict::Renumber(3)),
        (refused(409, "report_gap", Some(5)), Verdict::Later),
        (refused(409, "report_gap", None), Verdict::Later),
        (refused(409, "stale_generation", None), Verdict::Fenced),
        (refused(409, "claimed", None), Verdict::Fenced),
        (refused(409, "not_now", None), Verdict::Fenced),
        (refused(400, "invalid_json", None), Verdict::Skip(6)),
        (refused(413, "body_too_large", None), Verdict::Skip(6)),
        (refused(422, "invalid_field", None), Verdict::Skip(6)),
        // Nobody but the server knows that: these come from whatever stands between, or from a body cut on its way.
        (refused(409, "", None), Verdict::Later),
        (refused(404, "", None), Verdict::Later),
        (refused(405, "", None), Verdict::Later),
        (refused(413, "", None), Verdict::Later),
        (refused(400, "unreadable_body", None), Verdict::Later),
        (refused(404, "not_found", None), Verdict::Later),
        (refused(401, "unauthorized", None), Verdict::Later),
        (refused(403, "forbidden", None), Verdict::Later),
        (refused(408, "", None), Verdict::Later),
        (refused(429, "slow_down", None), Verdict::Later),
        (refused(500, "internal", None), Verdict::Later),
        (refused(503, "unavailable", None), Verdict::Later),
    ];
    for (answer, wanted) in table {
        let shown = format!("{answer:?}");
        assert_eq!(verdict(5, &answer), wanted, "{shown}");
    }
}

#[test]
fn texts_are_cut_by_characters() {
    assert_eq!(shortened(&"ä".repeat(600)).chars().count(), TEXT_MAX_CHARS);
    assert_eq!(shortened("short"), "short");
}
