//! A bot's whole life with everything real: server, PostgreSQL, Chromium, ffmpeg, object store.

use crate::support::server::Server;
use reqwest::StatusCode;
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_bot_joins_records_and_frees_its_slot_for_the_next() {
    let server = Server::start(&[("MEEBOTER_POOL__PLATFORMS__REHEARSAL__MAX_SIZE", "1")]).await;
    let first = server.send_bot("first", "host=admit&admitAfterMs=500&lengthMs=6000&end=ended").await;
    let second = server.send_bot("second", "host=admit&admitAfterMs=500&lengthMs=4000&end=ended").await;
    assert_eq!(server.bot(second).await["state"], "QUEUED");
    for id in [first, second] {
        let bot = server.wait_bot(id, 2 * MINUTE, |bot| bot["recordingState"] == "ready").await;
        assert_eq!((bot["state"].as_str(), bot["endReason"].as_str()), (Some("DONE"), Some("meeting_ended")));
        assert_eq!(bot["slotName"], "pool-rehearsal-001");
        let (status, link) = server.get(&format!("/api/bots/{id}/recording")).await;
        assert_eq!(status, StatusCode::OK, "{link}");
        let bytes =
            reqwest::get(link["recordingUrl"].as_str().unwrap()).await.unwrap().bytes().await.unwrap();
        assert!(bytes.len() > 50_000, "{} bytes", bytes.len());
    }
    server.wait_slots(MINUTE, "idle", 1).await;
    assert_eq!(server.bot_pids(), Vec::<i32>::new(), "nothing runs that nobody wants");
}
