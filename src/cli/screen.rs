//! Answers as people read them. Pure: text from JSON. What an answer lacks is a dash.

use crate::table;
use serde_json::Value;

/// How an answer is shown.
pub(super) type Screen = fn(&Value) -> String;

/// Slots, one a line.
pub(super) fn slots(answer: &Value) -> String {
    let head = ["slot", "status", "step", "bot", "host", "since", "draining", "error"];
    list(head, &answer["data"], "no slots", |slot| {
        let fields = ["name", "status", "step", "botId", "host"];
        let [name, status, step, bot, host] = fields.map(|field| cell(&slot[field]));
        let draining = if slot["draining"] == true { "yes" } else { "–" };
        let (since, error) = (moment(&slot["changedAt"]), cell(&slot["errorMessage"]));
        [name, status, step, bot, host, since, draining.to_owned(), error]
    })
}

/// Who waits, in order.
pub(super) fn queue(answer: &Value) -> String {
    let head = ["place", "bot", "platform", "user", "priority", "waits since", "gives up"];
    let table = list(head, &answer["data"], "nobody waits", |queued| {
        let fields = ["queuePosition", "botId", "platform", "userId", "priority"];
        let [place, bot, platform, user, priority] = fields.map(|field| cell(&queued[field]));
        [place, bot, platform, user, priority, moment(&queued["queuedAt"]), moment(&queued["deadlineAt"])]
    });
    with_total(table, answer)
}

/// Bots, latest first.
pub(super) fn bots(answer: &Value) -> String {
    let head = ["bot", "state", "platform", "user", "slot", "created", "ended", "end reason", "detail"];
    let table = list(head, &answer["data"], "no bots", |bot| {
        let fields = ["id", "state", "userId", "slotName", "endReason", "endDetail"];
        let [id, state, user, slot, reason, detail] = fields.map(|field| cell(&bot[field]));
        let platform = cell(&bot["meetingInfo"]["platform"]);
        let (created, ended) = (moment(&bot["createdAt"]), moment(&bot["endedAt"]));
        [id, state, platform, user, slot, created, ended, reason, detail]
    });
    with_total(table, answer)
}

/// Users, in the order in which they were made.
pub(super) fn users(answer: &Value) -> String {
    let head = ["user", "name", "plan", "operator", "API keys", "created"];
    let table = list(head, &answer["data"], "no users", |user| {
        let [id, name, plan, keys] = ["id", "name", "plan", "apiKeys"].map(|field| cell(&user[field]));
        let operator = if user["isOperator"] == true { "yes" } else { "–" };
        [id, name, plan, operator.to_owned(), keys, moment(&user["createdAt"])]
    });
    with_total(table, answer)
}

/// What was made, with an API key that is told once.
pub(super) fn with_key(answer: &Value) -> String {
    format!("{}\n\nThe API key is shown this once: only its SHA-256 is kept.", facts(answer))
}

/// Images and pulls.
pub(super) fn pulls(answer: &Value) -> String {
    let head = ["host", "image", "state", "done", "next try", "waiting", "failures"];
    list(head, &answer["data"], "no image was asked for yet", |pull| {
        let fields = ["host", "image", "state", "waiting", "failures"];
        let [host, image, state, waiting, failures] = fields.map(|field| cell(&pull[field]));
        [host, image, state, progress(pull), moment(&pull["nextTryAt"]), waiting, failures]
    })
}

/// What is being emptied, and the hosts.
pub(super) fn drains(answer: &Value) -> String {
    let head = ["draining", "name", "slots left", "bots left", "asked to leave"];
    let drains = list(head, &answer["drains"], "nothing drains", |drain| {
        let [kind, name, slots, bots] =
            ["kind", "name", "slotsLeft", "botsLeft"].map(|field| cell(&drain[field]));
        [kind, name, slots, bots, moment(&drain["deadlineAt"])]
    });
    let head = ["host", "slots", "capacity", "draining", "engine away since", "asked again"];
    let hosts = list(head, &answer["hosts"], "no hosts", |host| {
        let fields = ["name", "slots", "capacity", "draining"];
        let [name, slots, capacity, draining] = fields.map(|field| cell(&host[field]));
        let [away, asked] = ["awaySince", "askedAgainAt"].map(|field| moment(&host[field]));
        [name, slots, capacity, draining, away, asked]
    });
    format!("{drains}\n\n{hosts}")
}

/// A drain that was begun or ended.
pub(super) fn drain(answer: &Value) -> String {
    let fields = ["kind", "name", "slotsLeft", "botsLeft"];
    let [kind, name, left, bots] = fields.map(|field| cell(&answer[field]));
    let deadline = match answer["deadlineAt"].is_string() {
        true => format!("; these are asked to leave at {}", moment(&answer["deadlineAt"])),
        false => String::new(),
    };
    if answer["draining"] == true {
        format!("{kind} {name} drains; slots left: {left}, with a bot: {bots}{deadline}")
    } else {
        format!("{kind} {name} does not drain; slots: {left}")
    }
}

/// A listing that was begun.
pub(super) fn reconciling(answer: &Value) -> String {
    match answer["hosts"].as_u64() {
        Some(0) => "every host is being listed already".to_owned(),
        _ => format!("hosts being listed: {}", cell(&answer["hosts"])),
    }
}

/// Slots that were told to recover.
pub(super) fn recovered(answer: &Value) -> String {
    format!("slots in error that try to recover now: {}", cell(&answer["slots"]))
}

/// What a container printed, as it printed it but for what would move the cursor.
pub(super) fn logs(answer: &Value) -> String {
    let lines: Vec<String> = answer["lines"].as_array().into_iter().flatten().map(cell).collect();
    if lines.is_empty() { "it printed nothing that is kept".to_owned() } else { lines.join("\n") }
}

/// Settings that were read again.
pub(super) fn reloaded(answer: &Value) -> String {
    let keys = |name: &str| {
        let keys: Vec<String> = answer[name].as_array().into_iter().flatten().map(cell).collect();
        if keys.is_empty() { "nothing".to_owned() } else { keys.join(", ") }
    };
    format!("counts from now on: {}\nneeds a restart: {}", keys("applied"), keys("needsRestart"))
}

/// How the pool follows the load.
pub(super) fn scale(answer: &Value) -> String {
    let head = ["platform", "mean %", "coming", "scaled", "up to"];
    let platforms = list(head, &answer["platforms"], "no platform is kept ready", |platform| {
        let [name, mean, coming, up_to] =
            ["platform", "meanPercent", "coming", "upTo"].map(|field| cell(&platform[field]));
        [name, mean, coming, moment(&platform["scaledAt"]), up_to]
    });
    let recent =
        list(["at", "did", "what"], &answer["recent"], "nothing was made or removed yet", |action| {
            [moment(&action["at"]), cell(&action["action"]), cell(&action["what"])]
        });
    let facts = [
        ("being made for", cell(&answer["growing"])),
        ("scheduled bots", cell(&answer["scheduled"])),
        ("next is sent", moment(&answer["nextDueAt"])),
    ];
    format!("{platforms}\n\n{}\n\n{recent}", table::facts(&facts))
}

/// How maintenance is, with the run under way or else the last.
pub(super) fn maintenance(answer: &Value) -> String {
    let under_way = answer["running"].is_object();
    let run = if under_way { &answer["running"] } else { &answer["last"] };
    let next = if under_way { "under way".to_owned() } else { moment(&answer["nextAt"]) };
    let mut facts = vec![("next run", next)];
    if run.is_object() {
        facts.push(("began", format!("{} ({})", moment(&run["beganAt"]), cell(&run["trigger"]))));
        facts.push(("ended", moment(&run["endedAt"])));
    }
    let steps = list(["step", "done", "failures", "first failure"], &run["steps"], "no run yet", |step| {
        let [name, failures, first] = ["step", "failures", "firstFailure"].map(|field| cell(&step[field]));
        let counts = step["done"].as_object().into_iter().flatten();
        let done: Vec<String> = counts.map(|(what, count)| format!("{what}: {count}")).collect();
        let nothing = if step["endedAt"].is_null() { "under way" } else { "nothing to do" };
        [name, if done.is_empty() { nothing.to_owned() } else { done.join(", ") }, failures, first]
    });
    let disks = list(["disk", "free %", "warned of"], &answer["disks"], "no disk was looked at", |disk| {
        let warned = if disk["nearlyFull"] == true { "yes" } else { "–" };
        [cell(&disk["name"]), cell(&disk["freePercent"]), warned.to_owned()]
    });
    format!("{}\n\n{steps}\n\n{disks}", table::facts(&facts))
}

/// Everything that is known of one thing, a line each; what is not known is left out.
pub(super) fn facts(answer: &Value) -> String {
    let mut known = Vec::new();
    collect("", answer, &mut known);
    let known: Vec<(&str, String)> = known.iter().map(|(name, what)| (name.as_str(), what.clone())).collect();
    table::facts(&known)
}

fn collect(name: &str, value: &Value, known: &mut Vec<(String, String)>) {
    match value {
        Value::Null => {}
        Value::Object(members) => {
            for (member, value) in members {
                let name = if name.is_empty() { member.clone() } else { format!("{name}.{member}") };
                collect(&name, value, known);
            }
        }
        value => known.push((name.to_owned(), cell(value))),
    }
}

fn list<const COLUMNS: usize>(
    head: [&str; COLUMNS],
    rows: &Value,
    none: &str,
    cells: impl Fn(&Value) -> [String; COLUMNS],
) -> String {
    let rows: Vec<_> = rows.as_array().into_iter().flatten().map(cells).collect();
    if rows.is_empty() { none.to_owned() } else { table::render(head, &rows) }
}

/// Says where a page is not the whole list.
fn with_total(table: String, page: &Value) -> String {
    let shown = page["data"].as_array().map_or(0, Vec::len) as u64;
    match page["total"].as_u64() {
        Some(total) if total > shown => format!("{table}\n{shown} of {total}; see --page"),
        _ => table,
    }
}

fn progress(pull: &Value) -> String {
    match (pull["done"].as_u64(), pull["total"].as_u64()) {
        (Some(done), Some(total)) if total > 0 => format!("{} %", done.saturating_mul(100) / total),
        _ => "–".to_owned(),
    }
}

/// A value on one line, without what would move the cursor.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => "–".to_owned(),
        Value::String(text) => text.chars().map(|char| if char.is_control() { ' ' } else { char }).collect(),
        other => other.to_string(),
    }
}

/// A time to the second.
fn moment(value: &Value) -> String {
    let text = cell(value);
    match text.get(..19) {
        Some(seconds) => format!("{}Z", seconds.replace('T', " ")),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn slots_are_lines_and_what_they_lack_is_a_dash() {
        let answer = json!({ "data": [
            { "name": "pool-zoom-001", "status": "busy", "step": "running", "botId": 7, "host": "local",
              "changedAt": "2026-03-01T10:00:00.123456Z", "draining": true, "errorMessage": null },
            { "name": "pool-zoom-002", "status": "error", "step": "waiting", "botId": null, "host": "local",
              "changedAt": "2026-03-01T10:00:00Z", "draining": false, "errorMessage": "no\u{1b}[2Jroom" },
        ] });
        let expected = "\
slot           status  step     bot  host   since                 draining  error
─────────────  ──────  ───────  ───  ─────  ────────────────────  ────────  ──────────
pool-zoom-001  busy    running  7    local  2026-03-01 10:00:00Z  yes       –
pool-zoom-002  error   waiting  –    local  2026-03-01 10:00:00Z  –         no [2Jroom";
        assert_eq!(slots(&answer), expected);
        assert_eq!(slots(&json!({ "data": [] })), "no slots");
    }

    #[test]
    fn users_are_lines_and_a_key_is_shown_once() {
        let answer = json!({ "total": 2, "data": [
            { "id": 1, "name": "admin", "plan": "standard", "isOperator": true, "apiKeys": 1,
              "createdAt": "2026-03-01T10:00:00.123456Z" },
            { "id": 2, "name": "Ann Lee", "plan": "enterprise", "isOperator": false, "apiKeys": 0,
              "createdAt": "2026-03-01T10:00:00Z" },
        ] });
        let expected = "\
user  name     plan        operator  API keys  created
────  ───────  ──────────  ────────  ────────  ────────────────────
1     admin    standard    yes       1         2026-03-01 10:00:00Z
2     Ann Lee  enterprise  –         0         2026-03-01 10:00:00Z";
        assert_eq!(users(&answer), expected);
        let made = with_key(&json!({ "id": 3, "apiKey": "mb_1" }));
        assert_eq!(
            made,
            "apiKey  mb_1\nid      3\n\nThe API key is shown this once: only its SHA-256 is kept."
        );
    }

    #[test]
    fn a_page_says_that_it_is_not_all() {
        let answer = json!({ "data": [{ "botId": 1, "queuePosition": 1 }], "total": 3 });
        assert!(queue(&answer).ends_with("\n1 of 3; see --page"), "{}", queue(&answer));
    }

    #[test]
    fn facts_are_flat_and_known() {
        let answer = json!({ "id": 7, "meetingInfo": { "platform": "zoom", "password": null } });
        assert_eq!(facts(&answer), "id                    7\nmeetingInfo.platform  zoom");
    }

    #[test]
    fn maintenance_is_its_next_time_its_steps_and_the_disks() {
        let answer = json!({
            "nextAt": "2026-03-02T03:00:00Z", "running": null,
            "last": { "trigger": "timetable", "beganAt": "2026-03-01T03:00:00.5Z", "endedAt": "2026-03-01T03:00:09Z",
                "steps": [
                    { "step": "refresh", "endedAt": "2026-03-01T03:00:02Z", "done": { "images": 1, "slots": 3 },
                      "failures": 1, "firstFailure": "registry away" },
                    { "step": "logs", "endedAt": "2026-03-01T03:00:09Z", "done": {}, "failures": 0,
                      "firstFailure": null },
                ] },
            "disks": [{ "name": "data", "freePercent": 9.5, "nearlyFull": true }],
        });
        let expected = "\
next run  2026-03-02 03:00:00Z
began     2026-03-01 03:00:00Z (timetable)
ended     2026-03-01 03:00:09Z

step     done                 failures  first failure
───────  ───────────────────  ────────  ─────────────
refresh  images: 1, slots: 3  1         registry away
logs     nothing to do        0         –

disk  free %  warned of
────  ──────  ─────────
data  9.5     yes";
        assert_eq!(maintenance(&answer), expected);
        assert!(maintenance(&json!({})).starts_with("next run  –\n\nno run yet"));
    }

    #[test]
    fn scaling_is_what_is_seen_what_comes_and_what_was_done() {
        let answer = json!({
            "platforms": [
                { "platform": "google-meet", "meanPercent": 81.3, "coming": 4, "scaledAt": "2026-03-01T03:00:02Z",
                  "upTo": 15 },
                { "platform": "zoom", "meanPercent": null, "coming": 0, "scaledAt": null, "upTo": null },
            ],
            "growing": "google-meet", "scheduled": 7, "nextDueAt": "2026-03-01T08:55:00Z",
            "recent": [{ "at": "2026-03-01T03:00:02Z", "action": "grow", "what": "google-meet" }],
        });
        let expected = "\
platform     mean %  coming  scaled                up to
───────────  ──────  ──────  ────────────────────  ─────
google-meet  81.3    4       2026-03-01 03:00:02Z  15
zoom         –       0       –                     –

being made for  google-meet
scheduled bots  7
next is sent    2026-03-01 08:55:00Z

at                    did   what
────────────────────  ────  ───────────
2026-03-01 03:00:02Z  grow  google-meet";
        assert_eq!(scale(&answer), expected);
    }

    #[test]
    fn a_reload_says_what_counts_and_what_waits() {
        let answer = json!({ "applied": ["pool.max_size", "images.tag"], "needsRestart": [] });
        let expected = "counts from now on: pool.max_size, images.tag\nneeds a restart: nothing";
        assert_eq!(reloaded(&answer), expected);
    }

    #[test]
    fn a_pull_shows_its_share_where_the_whole_is_known() {
        assert_eq!(progress(&json!({ "done": 50, "total": 200 })), "25 %");
        assert_eq!(progress(&json!({ "done": 50, "total": 0 })), "–");
        assert_eq!(progress(&json!({})), "–");
    }
}
