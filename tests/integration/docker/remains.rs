//! What containers leave: their logs, and pieces of recordings that were never uploaded.

use super::workshop::{LIMIT, Workshop, here, shared};
use meeboter::driver::spools::SpoolSource;
use meeboter_actors::ids::BotId;
use meeboter_actors::ports::{Driver, Spool};
use std::collections::BTreeSet;
use std::fs;
use tokio::time::timeout;

#[tokio::test]
async fn pieces_of_a_recording_are_saved_before_their_container_goes() {
    let workshop = Workshop::on(shared().await);
    let (driver, key) = (workshop.driver(), workshop.key(1));
    driver.start(workshop.start(1, "record")).await.unwrap();
    let note = timeout(LIMIT, driver.wait_exit(&here(), key)).await.unwrap().unwrap();
    assert_eq!(note, "the meeting fell over (code 1)", "the bot's own words");
    assert_eq!(driver.spools().await.unwrap(), []);
    // Another server, which knows nothing of the bot, is the one that removes it.
    let other = workshop.driver();
    other.stop(workshop.stop(1)).await.unwrap();
    assert_eq!(other.spools().await.unwrap(), [Spool { key, bot_id: BotId(7) }]);
    let files = other.spooled(key).await.unwrap();
    let texts: Vec<(u32, String)> =
        files.iter().map(|(run, path)| (*run, fs::read_to_string(path).unwrap())).collect();
    assert_eq!(texts, [(1, "000000-init.mp4".to_owned()), (1, "000001.m4s".to_owned())]);
}

#[tokio::test]
async fn a_recording_that_cannot_be_saved_keeps_its_container() {
    let workshop = Workshop::on(shared().await);
    let (driver, key) = (workshop.driver(), workshop.key(1));
    driver.start(workshop.start(1, "record")).await.unwrap();
    timeout(LIMIT, driver.wait_exit(&here(), key)).await.unwrap().unwrap();
    // A file where the slot's folder should be.
    let in_the_way = workshop.work_root().join(workshop.slot.to_string());
    fs::write(&in_the_way, "").unwrap();
    let error = driver.stop(workshop.stop(1)).await.unwrap_err();
    assert!(error.answered && error.retryable && error.message.contains("not removed"), "{error:?}");
    assert_eq!(driver.list(&here()).await.unwrap().len(), 1, "it went with the recording in it");
    fs::remove_file(&in_the_way).unwrap();
    driver.stop(workshop.stop(1)).await.unwrap();
    assert_eq!(driver.spools().await.unwrap().len(), 1);
    assert_eq!(driver.list(&here()).await.unwrap(), []);
}

#[tokio::test]
async fn what_a_container_printed_is_read_while_it_is_there_and_kept_when_it_goes() {
    let workshop = Workshop::on(shared().await);
    let (driver, key) = (workshop.driver(), workshop.key(1));
    driver.start(workshop.start(1, "fail")).await.unwrap();
    timeout(LIMIT, driver.wait_exit(&here(), key)).await.unwrap().unwrap();
    let printed = ["script fail", "this bot fails"];
    assert_eq!(driver.logs(&here(), key, 10).await.unwrap(), printed);
    assert_eq!(driver.logs(&here(), key, 1).await.unwrap(), printed[1..]);
    driver.stop(workshop.stop(1)).await.unwrap();
    assert_eq!(driver.logs(&here(), key, 10).await.unwrap(), printed);
    assert_eq!(driver.logs(&here(), workshop.key(2), 10).await.unwrap(), [] as [&str; 0]);

    let later = chrono::Utc::now() + chrono::TimeDelta::hours(1);
    assert_eq!(driver.sweep(&here(), &BTreeSet::from([key]), later).await, Ok(0), "a wanted one's");
    assert_eq!(driver.sweep(&here(), &BTreeSet::new(), later).await, Ok(1));
    assert_eq!(driver.logs(&here(), key, 10).await.unwrap(), [] as [&str; 0]);
}
