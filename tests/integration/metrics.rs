//! What Prometheus is told, checked by its own tool.

use crate::support::server::Server;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

/// A bot is sent, is in a call, and ends.
const LIFE: Duration = Duration::from_secs(60);

/// Runs promtool (package `prometheus`) with this on its standard input.
fn promtool(arguments: &[&str], input: &str) {
    let mut command = Command::new("promtool");
    let child = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = child.spawn().expect("promtool is installed");
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
    assert!(output.status.success(), "{said:?} of\n{input}");
}

async fn scraped(server: &Server) -> String {
    let answer = server.bare(Method::GET, "/metrics").send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(answer.headers()["content-type"].to_str().unwrap().starts_with("text/plain; version=0.0.4"));
    answer.text().await.unwrap()
}

#[tokio::test]
async fn what_a_bot_went_through_is_counted_as_documented() {
    let server = Server::start(&[("MEEBOTER_POOL__PLATFORMS__REHEARSAL__MAX_SIZE", "1")]).await;
    let id = server.send_bot("metrics", "host=admit&admitAfterMs=300&lengthMs=3000&end=ended").await;
    // Waits for the slot of the first.
    let second = server.send_bot("metrics", "host=deny&admitAfterMs=300").await;
    server.wait_state(id, LIFE, &["DONE"]).await;
    server.wait_state(second, LIFE, &["DONE", "FATAL"]).await;
    server.wait_slots(LIFE, "idle", 1).await;
    // Two that never got into a slot: one that is cancelled while it waits, and one whose time there is up.
    let holder = server.send_bot("metrics-holder", "host=admit&lengthMs=600000").await;
    let cancelled = server.send_bot("metrics-cancelled", "host=admit").await;
    let mut late = server.bot_request("metrics-late", "host=admit");
    late["queueTimeoutMs"] = 100.into();
    let (status, late) = server.post("/api/bots", &late).await;
    assert_eq!(status, StatusCode::CREATED, "{late}");
    server.wait_state(late["id"].as_i64().unwrap(), LIFE, &["FATAL"]).await;
    for id in [cancelled, holder] {
        let (status, left) = server.post(&format!("/api/bots/{id}/remove-from-call"), &json!({})).await;
        assert_eq!(status, StatusCode::OK, "{left}");
        server.wait_state(id, LIFE, &["DONE"]).await;
    }
    server.wait_slots(LIFE, "idle", 1).await;
    let page = scraped(&server).await;
    for wanted in [
        "meeboter_pool_slots_total{platform=\"rehearsal\",status=\"idle\"} 1\n",
        "meeboter_pool_utilization{platform=\"rehearsal\"} 0\n",
        "meeboter_queue_depth{platform=\"rehearsal\"} 0\n",
        "meeboter_queue_depth{platform=\"google-meet\"} 0\n",
        "meeboter_queue_wait_seconds_count{platform=\"rehearsal\"} 1\n",
        "meeboter_bot_deployment_seconds_count{platform=\"rehearsal\",slot_type=\"new\"} 1\n",
        "meeboter_bot_deployment_seconds_count{platform=\"rehearsal\",slot_type=\"existing\"} 2\n",
        "meeboter_bot_completions_total{platform=\"rehearsal\",status=\"done\"} 3\n",
        "meeboter_bot_completions_total{platform=\"rehearsal\",status=\"fatal\"} 2\n",
        "meeboter_driver_calls_total{call=\"start\",outcome=\"done\"} 3\n",
        "meeboter_leads 1\n",
    ] {
        assert!(page.contains(wanted), "{wanted:?} is not in\n{page}");
    }
    promtool(&["check", "metrics"], &page);

    // What alerts and panels ask for is there, also of what has not happened yet in so short a life.
    server.maintain().await;
    let page = scraped(&server).await;
    for path in [ALERTS, concat!(env!("CARGO_MANIFEST_DIR"), "/config/grafana/meeboter.json")] {
        let text = std::fs::read_to_string(path).unwrap();
        let absent: Vec<_> = named(&text).difference(&named(&page)).copied().collect();
        assert!(absent.is_empty(), "{absent:?} of {path}");
    }
    let documented = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/METRICS.md"));
    let exported = &named(&page) | &BTreeSet::from(SELDOM);
    assert_eq!(exported, named(documented), "docs/METRICS.md has every name, and no other");
}

/// What the page has only when it has happened, and what needs more than a short life without trouble to happen.
const SELDOM: [&str; 3] =
    ["meeboter_host_breaker_opened_total", "meeboter_slot_recoveries_total", "meeboter_stale_events_total"];

#[test]
fn the_dashboard_is_one_and_has_the_panels_that_people_look_for() {
    let text = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/config/grafana/meeboter.json"));
    let dashboard: Value = serde_json::from_str(text).unwrap();
    let titles: Vec<String> = dashboard["panels"]
        .as_array()
        .unwrap()
        .iter()
        .map(|panel| panel["title"].as_str().unwrap().to_lowercase())
        .collect();
    for wanted in
        ["utilisation", "slots by status", "queue depth", "deployment duration", "success rate", "recover"]
    {
        assert!(titles.iter().any(|title| title.contains(wanted)), "{wanted} is not in {titles:?}");
    }
}

#[test]
fn what_the_dashboard_asks_for_is_promql() {
    let text = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/config/grafana/meeboter.json"));
    let dashboard: Value = serde_json::from_str(text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.filter_map(|panel| panel["targets"].as_array()).flatten();
    // As a recording rule each, with something in the place of Grafana's variables.
    let rule = |(number, target): (usize, &Value)| {
        let expr = target["expr"].as_str().unwrap();
        let expr = expr.replace("$__rate_interval", "5m").replace("$platform", ".*");
        assert!(!expr.contains('$'), "a variable that this test does not know: {expr}");
        json!({ "record": "query", "labels": { "number": number.to_string() }, "expr": expr })
    };
    let rules: Vec<Value> = targets.enumerate().map(rule).collect();
    assert!(!rules.is_empty());
    // JSON is YAML too.
    let rules = json!({ "groups": [{ "name": "dashboard", "rules": rules }] }).to_string();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(rules.as_bytes()).unwrap();
    promtool(&["check", "rules", file.path().to_str().unwrap()], "");
}

const ALERTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/prometheus/alerts.yml");

#[test]
fn the_alerts_say_what_they_should() {
    promtool(&["check", "rules", ALERTS], "");
    promtool(&["test", "rules", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/alerts.yml")], "");
}

/// The names of our metrics in a text, without what Prometheus puts behind those of a histogram.
fn named(text: &str) -> BTreeSet<&str> {
    let is_part = |char: char| char.is_ascii_lowercase() || char == '_';
    let words = text.split(|char| !is_part(char)).filter(|word| word.starts_with("meeboter_"));
    let parts = ["_bucket", "_sum", "_count"];
    words.map(|word| parts.iter().find_map(|part| word.strip_suffix(part)).unwrap_or(word)).collect()
}
