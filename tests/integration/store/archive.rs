//! Rows of ended bots: they are found in the order of their end, and only they can be deleted.

use super::*;
use meeboter::store::pool::Pool;
use meeboter_actors::bot::BotEvent;
use meeboter_actors::ids::{BotId, HostName};
use meeboter_actors::maintenance::{
    Before, HostImage, Images, MaintenanceRow, Run, Step, StepReport, Trigger,
};
use meeboter_actors::ports::{Archive, EndedBot, EventId, ImageDigest, StoreError};
use meeboter_actors::recording::{Recording, RecordingState};

/// A bot that ended so many minutes after noon.
fn ended(id: i64, minutes: i64) -> Bot {
    Bot { ended_at: Some(later(minutes)), ..bot_in(id, BotState::Done) }
}

#[tokio::test]
async fn what_is_remembered_of_maintenance_comes_back() {
    let (_, journal) = fresh().await;
    let first = journal.load().await.expect("loads").maintenance.expect("the migration's");
    assert_eq!((first.run, first.images, first.doubted_from), (None, Images::new(), None));
    let mut report = StepReport::begin(Step::Refresh);
    report.did("images", 2);
    report.failed("registry away");
    let run = Run {
        trigger: Trigger::MadeUp,
        attempt: 2,
        began_at: later(1),
        ended_at: Some(later(2)),
        steps: vec![report],
        before: Before { ended_at: Some(later(0)), undone_from: None },
    };
    let image = HostImage { host: HostName::local(), image: "image:1".into() };
    let images = [(image, ImageDigest("sha256:1".into()))].into();
    let row = MaintenanceRow {
        due_from: later(1),
        timetable: Some("0 3 * * * UTC".to_owned()),
        run: Some(run),
        images,
        doubted_from: Some(later(3)),
    };
    for (number, row) in [(1, row.clone()), (2, MaintenanceRow { run: None, doubted_from: None, ..row })] {
        commit(&journal, number, vec![Change::WriteMaintenance(Box::new(row.clone()))]).await;
        assert_eq!(journal.load().await.expect("loads").maintenance, Some(row));
    }
}

#[tokio::test]
async fn ended_bots_are_paged_by_their_end_and_none_that_a_slot_holds() {
    let (database, journal) = fresh().await;
    let pool = Pool::connect(&database, 5).await.expect("connects");
    let recording = Recording {
        state: RecordingState::Failed { reason: "Nothing was recorded.".into() },
        ..Recording::open(BotId(3))
    };
    let held = ended(5, 1);
    let state = SlotState::Busy { bot: Box::new(held.clone()), container: None, step: BusyStep::Stopping };
    let slot = Slot { version: 1, state, ..sample::idle_slot(1) };
    let mut rows: Vec<Change> =
        [ended(1, 3), ended(2, 1), ended(3, 1), ended(4, 99), held].iter().map(write_bot).collect();
    rows.extend([write_bot(&bot_in(6, BotState::Queued)), write_slot(&slot)]);
    rows.push(Change::WriteRecording(recording.clone()));
    commit(&journal, 1, rows).await;
    let found = |id, minutes, recording| EndedBot { id: BotId(id), ended_at: later(minutes), recording };
    let page = pool.ended_bots(later(10), None, 2).await.expect("reads");
    assert_eq!(page, [found(2, 1, None), found(3, 1, Some(recording))]);
    let rest = pool.ended_bots(later(10), Some((later(1), BotId(3))), 2).await.expect("reads");
    assert_eq!(rest, [found(1, 3, None)]);
    assert_eq!(pool.ended_bots(later(10), Some((later(3), BotId(1))), 2).await, Ok(vec![]));
}

#[tokio::test]
async fn only_what_has_ended_can_be_deleted_and_its_rows_go_with_it() {
    let (database, journal) = fresh().await;
    let pool = Pool::connect(&database, 5).await.expect("connects");
    let line = |bot| BotEvent { bot_id: BotId(bot), event_type: "DONE".into(), at: later(1), data: None };
    let mut rows: Vec<Change> =
        [ended(1, 1), ended(2, 1), bot_in(3, BotState::Queued)].iter().map(write_bot).collect();
    rows.extend([1, 1, 1, 2].map(|bot| Change::InsertEvent(line(bot))));
    rows.push(Change::WriteRecording(Recording::open(BotId(1))));
    commit(&journal, 1, rows).await;

    let events = pool.events_of(&[BotId(1), BotId(3)], 2).await.expect("reads");
    assert_eq!(events.len(), 2, "no more than was asked for");
    commit(&journal, 2, vec![Change::DeleteEvents(events)]).await;
    assert_eq!(pool.events_of(&[BotId(1), BotId(2)], 9).await.map(|left| left.len()), Ok(2));

    let refused = |number, change| {
        let journal = &journal;
        async move { journal.commit(BatchNo(number), &[vec![change]]).await }
    };
    for (number, change) in [
        (3, Change::DeleteRecording { bot_id: BotId(1), version: 2 }),
        (4, Change::DeleteBot(BotId(3))),
        (5, Change::DeleteBot(BotId(9))),
        (6, Change::DeleteEvents(vec![EventId(9_999)])),
    ] {
        assert!(matches!(refused(number, change).await, Err(StoreError::Refused(_))));
    }
    commit(&journal, 7, vec![Change::DeleteRecording { bot_id: BotId(1), version: 1 }]).await;
    assert_eq!(journal.read_recording(BotId(1)).await, Ok(None));
    commit(&journal, 8, vec![Change::DeleteBot(BotId(1)), Change::DeleteBot(BotId(2))]).await;
    assert_eq!(journal.read_bot(BotId(2)).await, Ok(None));
    assert_eq!(pool.events_of(&[BotId(1), BotId(2)], 9).await, Ok(vec![]), "its history went with it");
    assert!(journal.read_bot(BotId(3)).await.is_ok_and(|bot| bot.is_some()));
}
