//! What is written comes back, and what must not be written is not.

use super::*;
use meeboter_actors::bot::BotEvent;
use meeboter_actors::bot::machine::reprioritised;
use meeboter_actors::ids::{BotId, HostName, Platform, UserId};
use meeboter_actors::journal::IdempotencyKey;
use meeboter_actors::pool::{Drain, DrainOrder};
use meeboter_actors::ports::StoreError;
use meeboter_actors::queue::QueueEntry;
use meeboter_actors::recording::{Joined, Recording, RecordingState};
use meeboter_actors::slot::drains::Drains;
use std::collections::BTreeSet;

#[tokio::test]
async fn every_slot_state_comes_back() {
    let (_, journal) = fresh().await;
    let states = every_slot_state(1);
    for index in 0..states.len() {
        let number = u32::try_from(index + 1).expect("few");
        let state = every_slot_state(number).swap_remove(index);
        let slot = Slot {
            version: 1,
            drains: Drains { own: Some(Some(sample::now())), wider: Some(None) },
            ephemeral: true,
            state,
            ..sample::idle_slot(number)
        };
        let mut decision = vec![write_slot(&slot)];
        decision.extend(slot.bot().map(write_bot));
        commit(&journal, i64::from(number), decision).await;
        assert_eq!(journal.read_slot(&slot.name).await, Ok(Some(slot)));
    }
    let rows = journal.load().await.expect("loads");
    assert_eq!(rows.slots.len(), states.len());
}

#[tokio::test]
async fn a_slot_goes_through_every_state() {
    let (_, journal) = fresh().await;
    let mut number = 0;
    let mut version = 0;
    let mut bot_version = 0;
    for state in every_slot_state(1).into_iter().chain(every_slot_state(1)) {
        number += 1;
        version += 1;
        let mut slot = Slot { version, state, ..sample::idle_slot(1) };
        if let SlotState::Busy { bot, .. } | SlotState::Deploying { bot, .. } = &mut slot.state {
            bot_version += 1;
            bot.version = bot_version;
        }
        let mut decision = vec![write_slot(&slot)];
        decision.extend(slot.bot().map(write_bot));
        commit(&journal, number, decision).await;
        assert_eq!(journal.read_slot(&slot.name).await, Ok(Some(slot)));
    }
    let name = sample::idle_slot(1).name;
    commit(&journal, number + 1, vec![Change::DeleteSlot { name: name.clone(), version }]).await;
    assert_eq!(journal.read_slot(&name).await, Ok(None));
}

#[tokio::test]
async fn every_bot_state_and_end_comes_back() {
    let (_, journal) = fresh().await;
    let mut bots: Vec<Bot> = BotState::ALL.into_iter().map(|state| bot_in(0, state)).collect();
    for reason in EndReason::ALL {
        let mut bot = bot_in(0, reason.outcome().state());
        bot.end = Some(End { reason: *reason, detail: reason.sentence().into() });
        bot.leave = Some(*reason);
        bot.nonce = Some(uuid::Uuid::from_u128(9));
        bot.report_seq = 12;
        bot.joined_at = Some(later(2));
        Arc::make_mut(&mut bot.spec).passcode = Some("päss\"word".into());
        bots.push(bot);
    }
    for (number, bot) in (1..).zip(&mut bots) {
        bot.id = BotId(number);
    }
    let decisions: Vec<Decision> = bots.iter().rev().map(|bot| vec![write_bot(bot)]).collect();
    journal.commit(BatchNo(1), &decisions).await.expect("commits");
    for bot in bots {
        assert_eq!(journal.read_bot(bot.id).await, Ok(Some(bot)));
    }
    assert_eq!(journal.read_bot(BotId(999)).await, Ok(None));
}

#[tokio::test]
async fn every_recording_state_comes_back() {
    let (_, journal) = fresh().await;
    commit(&journal, 1, vec![write_bot(&sample::bot(1))]).await;
    let joined = Joined { key: "bots/1/recordings/01.mp4".into(), duration_ms: 61_000, bytes: 1 << 33 };
    let states = [
        RecordingState::Open,
        RecordingState::Joining { previous: None },
        RecordingState::Ready(joined.clone()),
        RecordingState::Joining { previous: Some(joined) },
        RecordingState::Failed { reason: "Nothing was recorded.".into() },
    ];
    for (version, state) in (1..).zip(states) {
        let recording = Recording { bot_id: BotId(1), state, segments: 7, attempts: 2, version };
        commit(&journal, version + 1, vec![Change::WriteRecording(recording.clone())]).await;
        assert_eq!(journal.read_recording(BotId(1)).await, Ok(Some(recording.clone())));
        let loaded = journal.load().await.expect("loads").recordings;
        match recording.state {
            RecordingState::Open | RecordingState::Joining { .. } => {
                assert_eq!(loaded, [(recording, sample::bot(1))]);
            }
            RecordingState::Ready(_) | RecordingState::Failed { .. } => assert_eq!(loaded, []),
        }
    }
}

#[tokio::test]
async fn the_queue_comes_back_in_order() {
    let (_, journal) = fresh().await;
    let entries = [sample::queue_entry(3, 1), sample::queue_entry(1, 1), sample::queue_entry(2, 1)];
    let decisions: Vec<Decision> = entries
        .iter()
        .map(|entry| vec![write_bot(&sample::bot(entry.bot_id.0)), Change::InsertQueueEntry(entry.clone())])
        .collect();
    journal.commit(BatchNo(1), &decisions).await.expect("commits");
    commit(&journal, 2, vec![Change::DeleteQueueEntry(BotId(2))]).await;
    let queue = journal.load().await.expect("loads").queue;
    let expected: Vec<_> = [1, 3].map(|id| (sample::queue_entry(id, 1), sample::bot(id))).into();
    assert_eq!(queue, expected);
    let first = QueueEntry { priority: 10, turn: 4, ..sample::queue_entry(3, 1) };
    let (moved, mut decision) = reprioritised(&queue[1].1, 10);
    decision.push(Change::UpdateQueueEntry(first.clone()));
    commit(&journal, 3, decision).await;
    let queue = journal.load().await.expect("loads").queue;
    assert_eq!(queue, [(first, moved), (sample::queue_entry(1, 1), sample::bot(1))]);
}

#[tokio::test]
async fn a_scheduled_bot_comes_back_until_it_is_handed_over() {
    let (_, journal) = fresh().await;
    let mut bot = bot_in(1, BotState::Scheduled);
    let mut timeless = bot.clone();
    Arc::make_mut(&mut timeless.spec).start_at = None;
    let refused = journal.commit(BatchNo(1), &[vec![write_bot(&timeless)]]).await;
    let Err(StoreError::Refused(why)) = refused else { panic!("a start is missing: {refused:?}") };
    assert!(why.contains("bots_scheduled_has_a_start"), "{why}");
    commit(&journal, 2, vec![write_bot(&bot)]).await;
    assert_eq!(journal.load().await.expect("loads").scheduled, [bot.clone()]);
    (bot.state, bot.version) = (BotState::Queued, 2);
    let entry = sample::queue_entry(1, 1);
    commit(&journal, 3, vec![write_bot(&bot), Change::InsertQueueEntry(entry.clone())]).await;
    let rows = journal.load().await.expect("loads");
    assert_eq!((rows.scheduled, rows.queue), (vec![], vec![(entry, bot)]));
}

#[tokio::test]
async fn a_conflict_writes_nothing_of_its_batch() {
    let (_, journal) = fresh().await;
    commit(&journal, 1, vec![write_bot(&sample::bot(1)), write_slot(&slot_one())]).await;
    let ahead = Bot { version: 3, ..sample::bot(1) };
    let refused = [
        vec![write_bot(&ahead)],
        vec![write_bot(&sample::bot(1))],
        vec![write_slot(&Slot { version: 5, ..slot_one() })],
        vec![Change::DeleteSlot { name: slot_one().name, version: 2 }],
        vec![Change::DeleteQueueEntry(BotId(1))],
        vec![Change::UpdateQueueEntry(sample::queue_entry(1, 1))],
        vec![Change::WriteRecording(Recording { version: 2, ..Recording::open(BotId(1)) })],
        // A bot that is not there; a slot that another bot has; a key that is taken twice.
        vec![Change::InsertQueueEntry(sample::queue_entry(77, 1))],
        vec![Change::WriteRecording(Recording::open(BotId(77)))],
    ];
    for (number, decision) in (10..).zip(refused) {
        let batch = [vec![write_bot(&sample::bot(2))], decision.clone()];
        let outcome = journal.commit(BatchNo(number), &batch).await;
        assert!(matches!(outcome, Err(StoreError::Refused(_))), "{decision:?}: {outcome:?}");
        assert_eq!(journal.read_bot(BotId(2)).await, Ok(None), "{decision:?}");
        assert_eq!(journal.was_committed(BatchNo(number)).await, Ok(false));
    }
    let names: BTreeSet<_> = journal
        .load()
        .await
        .expect("loads")
        .slots
        .into_iter()
        .map(|slot| (slot.name, slot.version))
        .collect();
    assert_eq!(names, BTreeSet::from([(slot_one().name, 1)]));
}

#[tokio::test]
async fn a_conflict_names_the_rows() {
    let (_, journal) = fresh().await;
    let decisions = [vec![write_bot(&Bot { version: 2, ..sample::bot(41) })]];
    let Err(StoreError::Refused(why)) = journal.commit(BatchNo(1), &decisions).await else {
        panic!("refused")
    };
    assert!(why.contains("bots: not there, or not at the expected version: 41"), "{why}");
}

#[tokio::test]
async fn drains_are_stored_and_end() {
    let (_, journal) = fresh().await;
    let drains = [Drain::Platform(Platform("zoom".into())), Drain::Host(HostName("zoom".into()))];
    let order = |drain: usize, by| DrainOrder { drain: drains[drain].clone(), by };
    let by = Some(sample::now());
    let begun = vec![Change::InsertDrain(order(0, by)), Change::InsertDrain(order(1, None))];
    commit(&journal, 1, begun).await;
    let stored = [(drains[0].clone(), by), (drains[1].clone(), None)];
    assert_eq!(journal.load().await.expect("loads").drains, stored.into());
    commit(&journal, 2, vec![Change::DeleteDrain(drains[0].clone()), Change::UpdateDrain(order(1, by))])
        .await;
    assert_eq!(journal.load().await.expect("loads").drains, [(drains[1].clone(), by)].into());
    let again = vec![vec![Change::InsertDrain(order(1, None))]];
    assert!(matches!(journal.commit(BatchNo(3), &again).await, Err(StoreError::Refused(_))));
    let over = vec![vec![Change::DeleteDrain(drains[0].clone())]];
    assert!(matches!(journal.commit(BatchNo(4), &over).await, Err(StoreError::Refused(_))));
}

#[tokio::test]
async fn two_slots_cannot_have_one_bot() {
    let (_, journal) = fresh().await;
    let slots = [1, 2].map(|number| Slot { version: 1, ..sample::busy_slot(number) });
    let mut second = slots[1].clone();
    if let (SlotState::Busy { bot, .. }, Some(first)) = (&mut second.state, slots[0].bot()) {
        **bot = first.clone();
    }
    let first_bot = slots[0].bot().expect("busy");
    let outcome = journal
        .commit(BatchNo(1), &[vec![write_bot(first_bot), write_slot(&slots[0])], vec![write_slot(&second)]])
        .await;
    assert!(
        matches!(&outcome, Err(StoreError::Refused(why)) if why.contains("one_slot_a_bot")),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn a_row_twice_in_a_batch_is_refused() {
    let (_, journal) = fresh().await;
    let bot = sample::bot(1);
    let outcome = journal.commit(BatchNo(1), &[vec![write_bot(&bot), write_bot(&bot)]]).await;
    assert!(matches!(outcome, Err(StoreError::Refused(_))), "{outcome:?}");
}

#[tokio::test]
async fn the_same_batch_again_is_harmless() {
    let (database, journal) = fresh().await;
    let decision = vec![write_bot(&sample::bot(1)), Change::InsertEvent(event(1, "QUEUED"))];
    for _ in 0..3 {
        commit(&journal, 1, decision.clone()).await;
    }
    let next = Bot { version: 2, ..sample::bot(1) };
    for _ in 0..2 {
        commit(&journal, 2, vec![write_bot(&next), Change::InsertEvent(event(1, "DEPLOYING"))]).await;
    }
    let pool = meeboter::store::pool::Pool::connect(&database, 5).await.expect("a pool");
    let page = meeboter::store::queries::Page { number: 1, size: 10 };
    let events = pool.list_events(BotId(1), page).await.expect("listed");
    let types: Vec<_> = events.rows.iter().map(|row| row.event.event_type.as_str()).collect();
    assert_eq!((types, events.total), (vec!["QUEUED", "DEPLOYING"], 2));
}

#[tokio::test]
async fn values_that_postgresql_cannot_hold_are_refused_or_made_fit() {
    let (_, journal) = fresh().await;
    let mut bot = sample::bot(1);
    Arc::make_mut(&mut bot.spec).display_name = "a\0b".into();
    let outcome = journal.commit(BatchNo(1), &[vec![write_bot(&bot)]]).await;
    assert!(matches!(outcome, Err(StoreError::Refused(_))), "{outcome:?}");
    // What engines and bots say is kept whatever it holds.
    let mut bot = bot_in(1, BotState::Fatal);
    bot.end = Some(End { reason: EndReason::Crashed, detail: "x\0y".into() });
    let mut chat = event(1, "CHAT");
    chat.data = Some(serde_json::json!({"message": "a\0b"}));
    commit(&journal, 2, vec![write_bot(&bot), Change::InsertEvent(chat)]).await;
    let detail =
        journal.read_bot(BotId(1)).await.expect("reads").and_then(|bot| bot.end).map(|end| end.detail);
    assert_eq!(detail.as_deref(), Some("x\u{fffd}y"));
}

#[tokio::test]
async fn times_at_the_ends_of_time_are_kept_or_refused_whole() {
    let (_, journal) = fresh().await;
    for (number, at) in [(1, DateTime::<Utc>::MAX_UTC), (2, DateTime::<Utc>::MIN_UTC)] {
        let told = BotEvent { at, ..event(number, "CHAT") };
        let batch = [vec![write_bot(&sample::bot(number)), Change::InsertEvent(told)]];
        let outcome = journal.commit(BatchNo(number), &batch).await;
        let is_there = journal.read_bot(BotId(number)).await.expect("reads").is_some();
        assert_eq!(is_there, outcome.is_ok(), "{outcome:?}");
        assert!(matches!(outcome, Ok(()) | Err(StoreError::Refused(_))), "{outcome:?}");
    }
}

#[tokio::test]
async fn an_idempotency_key_is_taken_once() {
    let (_, journal) = fresh().await;
    let key = |bot| IdempotencyKey {
        user_id: UserId(1),
        key: "k-1".into(),
        fingerprint: [7; 32],
        bot_id: BotId(bot),
    };
    let create = |bot| vec![write_bot(&sample::bot(bot)), Change::InsertIdempotencyKey(key(bot))];
    commit(&journal, 1, create(1)).await;
    let outcome = journal.commit(BatchNo(2), &[create(2)]).await;
    assert!(matches!(outcome, Err(StoreError::Refused(_))), "{outcome:?}");
    assert_eq!(journal.read_bot(BotId(2)).await, Ok(None));
}

#[tokio::test]
async fn blocks_of_bot_ids_never_overlap() {
    let (database, journal) = fresh().await;
    let first = journal.reserve_bot_ids(256).await.expect("a block");
    let second = journal.reserve_bot_ids(10).await.expect("a block");
    assert_eq!((first, second.clone()), (1..257, 257..267));
    drop(journal);
    let journal = JournalConnection::take_lead(&database, Claim::Within(Duration::from_secs(5)), &log())
        .await
        .expect("leads");
    assert_eq!(journal.reserve_bot_ids(5).await, Ok(267..272));
}

#[tokio::test]
async fn two_hundred_decisions_are_one_batch() {
    let (_, journal) = fresh().await;
    let slots: Vec<Slot> = (1..=200).map(|number| Slot { version: 1, ..sample::busy_slot(number) }).collect();
    let decisions: Vec<Decision> = slots
        .iter()
        .rev()
        .map(|slot| {
            let bot = slot.bot().expect("busy");
            vec![
                write_slot(slot),
                write_bot(bot),
                Change::InsertEvent(event(bot.id.0, "IN_CALL")),
                Change::WriteRecording(Recording::open(bot.id)),
            ]
        })
        .collect();
    journal.commit(BatchNo(1), &decisions).await.expect("commits");
    let rows = journal.load().await.expect("loads");
    assert_eq!(rows.slots, slots);
    assert_eq!(rows.recordings.len(), 200);
}

#[tokio::test]
async fn old_batch_numbers_are_forgotten() {
    let (_, journal) = fresh().await;
    for number in 1..=1250 {
        journal.commit(BatchNo(number), &[]).await.expect("commits");
    }
    assert_eq!(journal.was_committed(BatchNo(1)).await, Ok(false));
    assert_eq!(journal.was_committed(BatchNo(251)).await, Ok(true));
}

/// Of bots there are more and more; of those that wait for their start there are few.
#[tokio::test]
async fn a_load_looks_at_no_scheduled_bot_that_has_ended() {
    const ENDED: i64 = 1000;
    let (database, journal) = fresh().await;
    let mut waiting = bot_in(ENDED + 1, BotState::Scheduled);
    let ended = (1..=ENDED).map(|id| Bot { spec: Arc::clone(&waiting.spec), ..bot_in(id, BotState::Done) });
    let decisions: Vec<Decision> = ended.map(|bot| vec![write_bot(&bot)]).collect();
    journal.commit(BatchNo(1), &decisions).await.expect("commits");
    commit(&journal, 2, vec![write_bot(&waiting)]).await;
    // Moved: its row is another.
    waiting.version = 2;
    commit(&journal, 3, vec![write_bot(&waiting)]).await;
    let client = psql(&database).await;
    let before = rows_visited(&client, journal).await;

    let journal = lead(&database).await;
    assert_eq!(journal.load().await.expect("loads").scheduled, [waiting]);
    let visited = rows_visited(&client, journal).await - before;
    assert!(visited < 10, "{visited} rows");
}

/// Rows of bots that statements have looked at so far, those of a journal that is given back included.
async fn rows_visited(client: &tokio_postgres::Client, journal: JournalConnection) -> i64 {
    drop(journal);
    // A session's counts are known when it has ended.
    let others =
        "SELECT FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    while !client.query(others, &[]).await.expect("looks").is_empty() {
        tokio::task::yield_now().await;
    }
    let text = "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_user_tables WHERE relname = 'bots'";
    client.query_one(text, &[]).await.expect("counts").get(0)
}

#[tokio::test]
async fn a_load_may_take_longer_than_other_calls() {
    let (database, journal) = fresh().await;
    commit(&journal, 1, vec![write_slot(&slot_one())]).await;
    let client = psql(&database).await;
    let lock = "BEGIN; LOCK TABLE bot_pool_slots IN ACCESS EXCLUSIVE MODE";
    client.batch_execute(lock).await.expect("locks");
    let slow = client.batch_execute("SELECT pg_sleep(5); ROLLBACK");
    let (rows, unlocked) = tokio::join!(journal.load(), slow);
    unlocked.expect("unlocks");
    assert_eq!(rows.expect("loads").slots, [slot_one()]);

    // What comes after it is not waited for as long.
    client.batch_execute(lock).await.expect("locks");
    let slow = client.batch_execute("SELECT pg_sleep(5); ROLLBACK");
    let (read, unlocked) = tokio::join!(
        async {
            let began = std::time::Instant::now();
            let read = journal.read_slot(&slot_one().name).await;
            (read, began.elapsed())
        },
        slow
    );
    unlocked.expect("unlocks");
    assert!(matches!(read.0, Err(StoreError::Unavailable(_))), "{read:?}");
    assert!(read.1 < Duration::from_secs(4), "{read:?}");
}

fn slot_one() -> Slot {
    Slot { version: 1, ..sample::idle_slot(1) }
}

fn event(bot: i64, event_type: &str) -> BotEvent {
    BotEvent { bot_id: BotId(bot), event_type: event_type.into(), at: later(1), data: None }
}
