//! Who leads, and what becomes of batches when the connection is lost.

use super::*;
use meeboter::store::lead::LeadError;
use meeboter_actors::bot::BotEvent;
use meeboter_actors::ids::BotId;
use meeboter_actors::journal::CommitError;
use meeboter_actors::journal::settle::{self, BatchNumbers};
use meeboter_actors::ports::{Lead, StoreError};

use crate::support::postgres::runtime;
use crate::support::proxy::Proxy;

/// Ends the session that holds the lead.
async fn cut(client: &tokio_postgres::Client) {
    let text = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' \
                AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    assert_eq!(client.execute(text, &[]).await.expect("cuts"), 1, "one session leads");
}

#[tokio::test]
async fn a_second_server_hears_who_leads() {
    let (database, journal) = fresh().await;
    let Err(error) =
        JournalConnection::take_lead(&database, Claim::Within(Duration::from_millis(100)), &log()).await
    else {
        panic!("only one leads")
    };
    assert!(matches!(error, LeadError::Led(_)));
    let who = format!("/{} at this host, connected since 20", std::process::id());
    assert!(
        error.to_string().contains("another server already works on this database: meeboter/"),
        "{error}"
    );
    assert!(error.to_string().contains(&who), "{error}");
    // It steps down: the next one leads at once, in a new epoch.
    let epoch = journal.epoch();
    drop(journal);
    let next = JournalConnection::take_lead(&database, Claim::Within(Duration::from_secs(5)), &log())
        .await
        .expect("leads");
    assert_eq!(next.epoch(), epoch + 1);
}

#[tokio::test]
async fn whoever_waits_to_succeed_leads_when_the_leader_is_silent_and_not_before() {
    let (database, journal) = fresh().await;
    let log = log();
    let succeed = JournalConnection::take_lead(&database, Claim::Succeed, &log);
    tokio::pin!(succeed);
    // Twice the silence that would end it.
    let mut confirm = tokio::time::interval(Duration::from_secs(1));
    for _ in 0..7 {
        tokio::select! {
            _ = confirm.tick() => journal.confirm_lead().await.expect("still leads"),
            _ = &mut succeed => panic!("a leader that confirms its lead is not replaced"),
        }
    }
    assert!(journal.validity().holds());
    let next = succeed.await.expect("leads");
    assert!(!journal.validity().holds(), "it must not act any more when the next one begins");
    assert_eq!(next.epoch(), journal.epoch() + 1);
    let outcome = journal.commit(BatchNo(1), &[vec![write_bot(&sample::bot(1))]]).await;
    assert_eq!(outcome, Err(StoreError::Deposed));
}

#[tokio::test]
async fn a_lead_that_is_given_back_is_anothers_at_once() {
    let (database, journal) = fresh().await;
    let log = log();
    let succeed = JournalConnection::take_lead(&database, Claim::Succeed, &log);
    tokio::pin!(succeed);
    let a_while = tokio::time::sleep(Duration::from_millis(200));
    tokio::select! {
        () = a_while => {}
        _ = &mut succeed => panic!("nobody has resigned"),
    }
    // Whoever holds on to it holds nothing.
    journal.resign().await;
    assert!(!journal.validity().holds());
    let next = tokio::time::timeout(Duration::from_secs(1), succeed).await.expect("at once").expect("leads");
    let outcome = journal.commit(BatchNo(1), &[vec![write_bot(&sample::bot(1))]]).await;
    assert_eq!(outcome, Err(StoreError::Deposed));
    assert_eq!(next.confirm_lead().await, Ok(()));
}

#[tokio::test]
async fn a_lost_connection_is_made_again() {
    let (database, journal) = fresh().await;
    let client = psql(&database).await;
    commit(&journal, 1, vec![write_bot(&sample::bot(1))]).await;
    cut(&client).await;
    let outcome = journal.commit(BatchNo(2), &[vec![write_bot(&sample::bot(2))]]).await;
    // The cut is noticed either before the batch is sent (then it is committed on a new connection) or after.
    match outcome {
        Ok(()) => {}
        Err(StoreError::Unavailable(_)) => {
            assert_eq!(journal.was_committed(BatchNo(1)).await, Ok(true));
            assert_eq!(journal.was_committed(BatchNo(2)).await, Ok(false));
            commit(&journal, 2, vec![write_bot(&sample::bot(2))]).await;
        }
        Err(other) => panic!("{other}"),
    }
    assert_eq!(journal.was_committed(BatchNo(2)).await, Ok(true));
    assert_eq!(journal.confirm_lead().await, Ok(()));
}

#[tokio::test]
async fn a_batch_cut_in_its_middle_is_not_committed() {
    let (database, journal) = fresh().await;
    let client = psql(&database).await;
    // A lock that the batch waits for in its middle.
    client.batch_execute("BEGIN; LOCK TABLE events IN EXCLUSIVE MODE").await.expect("locks");
    let batch = [vec![write_bot(&sample::bot(1)), Change::InsertEvent(queued(1))]];
    let (outcome, ()) = tokio::join!(journal.commit(BatchNo(1), &batch), async {
        until_somebody_waits(&client).await;
        cut(&client).await;
    });
    assert!(matches!(outcome, Err(StoreError::Unavailable(_))), "{outcome:?}");
    client.batch_execute("ROLLBACK").await.expect("unlocks");
    assert_eq!(journal.was_committed(BatchNo(1)).await, Ok(false));
    assert_eq!(journal.read_bot(BotId(1)).await, Ok(None));
    journal.commit(BatchNo(1), &batch).await.expect("commits");
}

#[tokio::test]
async fn a_batch_that_waits_too_long_is_unavailable_and_can_be_sent_again() {
    let (database, journal) = fresh().await;
    let client = psql(&database).await;
    client.batch_execute("BEGIN; LOCK TABLE bots IN EXCLUSIVE MODE").await.expect("locks");
    let batch = [vec![write_bot(&sample::bot(1))]];
    let outcome = journal.commit(BatchNo(1), &batch).await;
    assert!(matches!(outcome, Err(StoreError::Unavailable(_))), "{outcome:?}");
    client.batch_execute("ROLLBACK").await.expect("unlocks");
    assert_eq!(journal.was_committed(BatchNo(1)).await, Ok(false));
    journal.commit(BatchNo(1), &batch).await.expect("commits");
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_no_half_transaction() {
    let (_, journal) = fresh().await;
    let batch = [vec![write_bot(&sample::bot(1))]];
    for number in 1..20 {
        let send = journal.commit(BatchNo(number), &batch);
        let _ =
            tokio::time::timeout(Duration::from_micros(50 * u64::try_from(number).expect("few")), send).await;
    }
    let bot = journal.read_bot(BotId(1)).await.expect("reads");
    assert!(bot.is_none_or(|bot| bot == sample::bot(1)));
    commit(&journal, 30, vec![write_bot(&sample::bot(2))]).await;
}

#[tokio::test]
async fn an_epoch_begun_elsewhere_ends_the_lead() {
    let (database, journal) = fresh().await;
    let client = psql(&database).await;
    client.batch_execute("UPDATE leadership SET epoch = epoch + 1").await.expect("another leader");
    let batch = [vec![write_bot(&sample::bot(1))]];
    assert_eq!(journal.commit(BatchNo(1), &batch).await, Err(StoreError::Deposed));
    // For good, even should the number come back.
    client.batch_execute("UPDATE leadership SET epoch = epoch - 1").await.expect("edits");
    assert_eq!(journal.commit(BatchNo(1), &batch).await, Err(StoreError::Deposed));
    assert_eq!(journal.reserve_bot_ids(1).await, Err(StoreError::Deposed));
}

#[tokio::test]
async fn a_leader_cut_off_finds_its_successor() {
    let (database, journal) = fresh().await;
    let client = psql(&database).await;
    commit(&journal, 1, vec![write_bot(&sample::bot(1))]).await;
    cut(&client).await;
    let successor = JournalConnection::take_lead(&database, Claim::Within(Duration::from_secs(5)), &log())
        .await
        .expect("leads");
    // The cut is noticed with the first call at the latest.
    let mut outcome = journal.confirm_lead().await;
    if matches!(outcome, Err(StoreError::Unavailable(_))) {
        outcome = journal.confirm_lead().await;
    }
    assert_eq!(outcome, Err(StoreError::Deposed));
    commit(&successor, 1, vec![write_bot(&Bot { version: 2, ..sample::bot(1) })]).await;
}

#[tokio::test]
async fn what_was_not_flushed_on_its_own_connection_is_looked_up_first() {
    let (database, journal) = fresh().await;
    let client = psql(&database).await;
    let batch = [vec![write_bot(&sample::bot(1))]];
    journal.commit(BatchNo(1), &batch).await.expect("commits");
    cut_all(&client).await;
    // Whether PostgreSQL only cut the connections, or crashed and lost the batch, cannot be told from here.
    assert!(matches!(journal.flush(BatchNo(1)).await, Err(StoreError::Unavailable(_))));
    commit_in_spite_of_a_cut(&journal, 2, write_bot(&sample::bot(2))).await;
    assert!(matches!(journal.flush(BatchNo(1)).await, Err(StoreError::Unavailable(_))));
    assert_eq!(journal.was_committed(BatchNo(1)).await, Ok(true));
    assert_eq!(journal.flush(BatchNo(1)).await, Ok(()));
}

/// The session that is cut may hear of it in the middle of this: then it is sent again under its number.
async fn commit_in_spite_of_a_cut(journal: &JournalConnection, number: i64, change: Change) {
    let batch = [vec![change]];
    let first = journal.commit(BatchNo(number), &batch).await;
    if let Err(StoreError::Unavailable(_)) = first {
        journal.commit(BatchNo(number), &batch).await.expect("commits again");
    } else {
        first.expect("commits");
    }
    journal.flush(BatchNo(number)).await.expect("flushes");
}

/// Cuts every session but this one.
async fn cut_all(client: &tokio_postgres::Client) {
    let text = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                WHERE datname = current_database() AND pid <> pg_backend_pid()";
    assert_eq!(
        client.execute(text, &[]).await.expect("cuts"),
        2,
        "the one that leads and the one that flushes"
    );
}

async fn settle(
    journal: &JournalConnection,
    numbers: &BatchNumbers,
    decisions: &[Decision],
) -> Vec<Result<(), CommitError>> {
    let written = settle::write(journal, numbers.next(), numbers, decisions).await;
    settle::flush(journal, written, decisions).await
}

#[tokio::test]
async fn settle_carries_batches_through_cuts() {
    let (database, journal) = fresh().await;
    let client = psql(&database).await;
    let numbers = BatchNumbers::default();
    for round in 0..10 {
        let ids: Vec<i64> = (round * 10 + 1..=round * 10 + 10).collect();
        let mut decisions: Vec<Decision> = ids.iter().map(|id| vec![write_bot(&sample::bot(*id))]).collect();
        // One culprit among them.
        decisions.push(vec![write_bot(&Bot { version: 9, ..sample::bot(1) })]);
        let (outcomes, ()) = tokio::join!(settle(&journal, &numbers, &decisions), async {
            for _ in 0..round {
                tokio::task::yield_now().await;
            }
            let text = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' \
                        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
            client.execute(text, &[]).await.expect("cuts");
        });
        let (last, others) = outcomes.split_last().expect("as many as decisions");
        assert!(others.iter().all(Result::is_ok), "{others:?}");
        assert!(matches!(last, Err(CommitError::Conflict(_))), "{last:?}");
    }
    // The last cut may be noticed only now.
    let _ = journal.read_bot(BotId(1)).await;
    for id in 1..=100 {
        assert_eq!(journal.read_bot(BotId(id)).await, Ok(Some(sample::bot(id))));
    }
}

#[tokio::test]
async fn slots_are_not_edited_by_hand() {
    let (database, journal) = fresh().await;
    let client = psql(&database).await;
    commit(&journal, 1, vec![write_slot(&Slot { version: 1, ..sample::idle_slot(1) })]).await;
    for text in [
        "UPDATE bot_pool_slots SET image = 'x'",
        "DELETE FROM bot_pool_slots",
        "TRUNCATE bot_pool_slots",
        "INSERT INTO bot_pool_slots SELECT * FROM bot_pool_slots",
    ] {
        let error = client.batch_execute(text).await.expect_err("refused");
        let said = error.as_db_error().map(|error| error.message().to_owned()).unwrap_or_default();
        assert!(said.contains("POST /api/bots/<id>/remove-from-call"), "{text}: {said}");
    }
    let by_word =
        "BEGIN; SET LOCAL meeboter.writer = 'journal'; UPDATE bot_pool_slots SET image = 'y'; COMMIT";
    client.batch_execute(by_word).await.expect("somebody who says so may");
}

/// Every decision exactly once, whatever moment the connection is cut at: each writes an event, and events have no
/// key that would stop a second one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_doubled_while_the_connection_is_cut_all_the_time() {
    const ROUNDS: i64 = 40;
    let (database, journal) = fresh().await;
    let client = psql(&database).await;
    let cutter = tokio::spawn(async move {
        for pause_us in (0..).map(|n: u64| n * 7919 % 9000) {
            tokio::time::sleep(Duration::from_micros(pause_us)).await;
            let text = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' \
                        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
            client.execute(text, &[]).await.expect("cuts");
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    });
    let numbers = BatchNumbers::default();
    for round in 0..ROUNDS {
        let decisions: Vec<Decision> = (round * 5 + 1..=round * 5 + 5)
            .map(|id| vec![write_bot(&sample::bot(id)), Change::InsertEvent(queued(id))])
            .collect();
        let outcomes = settle(&journal, &numbers, &decisions).await;
        assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    }
    cutter.abort();
    let client = psql(&database).await;
    let text = "SELECT (SELECT count(*) FROM bots), (SELECT count(*) FROM events)";
    let row = client.query_one(text, &[]).await.expect("counts");
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (ROUNDS * 5, ROUNDS * 5));
}

fn queued(bot: i64) -> BotEvent {
    BotEvent { bot_id: BotId(bot), event_type: "QUEUED".into(), at: later(0), data: None }
}

#[tokio::test]
async fn should_begin_fail_nothing_behind_it_writes() {
    let (database, _journal) = fresh().await;
    let client = psql(&database).await;
    for text in [
        "SELECT journal_begin(1, 1)",
        "WITH done AS (INSERT INTO users (name) VALUES ('x') RETURNING 1) \
         SELECT journal_require('users', NULL) FROM (SELECT count(*) FROM done) AS written",
    ] {
        let error = client.query(text, &[]).await.expect_err("refused");
        assert_eq!(error.code().map(|code| code.code()), Some("MB004"), "{text}");
    }
    let users: i64 = client.query_one("SELECT count(*) FROM users", &[]).await.expect("counts").get(0);
    assert_eq!(users, 1);
}

/// A backup reads every table, for as long as it takes, and a migration that needs one of them alone waits for it.
#[tokio::test]
async fn a_migration_that_has_to_wait_keeps_nobody_else_waiting() {
    let (database, journal) = fresh().await;
    drop(journal);
    let backup = psql(&database).await;
    let pending = "DELETE FROM refinery_schema_history WHERE version >= 16; \
                   CREATE INDEX bots_with_a_start ON bots (id); \
                   ALTER TABLE maintenance DROP COLUMN doubted_from";
    backup.batch_execute(pending).await.expect("as before the migrations from 16 on");
    backup.batch_execute("BEGIN; LOCK TABLE bots IN ACCESS SHARE MODE").await.expect("locks");
    let log = log();
    {
        let claim = JournalConnection::take_lead(&database, Claim::Succeed, &log);
        tokio::select! {
            _ = claim => panic!("the migration is not done"),
            () = until_somebody_waits(&backup) => {}
        }
    }
    // Whoever wanted to migrate is gone.
    let reader = psql(&database).await;
    reader.batch_execute("SET statement_timeout = '10s'; SELECT count(*) FROM bots").await.expect("reads");
    let left = async {
        let text = "SELECT FROM pg_locks WHERE locktype = 'advisory' \
                    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
        while reader.query_opt(text, &[]).await.expect("looks").is_some() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), left).await.expect("the lead is free");

    // One that stays lets readers pass, and goes on when the backup is over.
    let (next, ()) = tokio::join!(JournalConnection::take_lead(&database, Claim::Succeed, &log), async {
        until_somebody_waits(&backup).await;
        reader.batch_execute("SELECT count(*) FROM bots").await.expect("reads");
        backup.batch_execute("ROLLBACK").await.expect("ends");
    });
    commit(&next.expect("leads"), 1, vec![write_bot(&sample::bot(1))]).await;
}

async fn until_somebody_waits(client: &tokio_postgres::Client) {
    while waiting_for_a_lock(client).await == 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_rollback_to_an_older_program_starts() {
    let (database, journal) = fresh().await;
    drop(journal);
    let client = psql(&database).await;
    client
        .batch_execute(
            "ALTER TABLE bots ADD COLUMN later text; \
             INSERT INTO refinery_schema_history SELECT version + 1000, 'later', applied_on, checksum \
             FROM refinery_schema_history ORDER BY version LIMIT 1",
        )
        .await
        .expect("a later schema");
    let journal = JournalConnection::take_lead(&database, Claim::Within(Duration::from_secs(5)), &log())
        .await
        .expect("leads");
    commit(&journal, 1, vec![write_bot(&sample::bot(1))]).await;
}

/// What the design is for: the batch is committed, its answer is lost, and the old session still has the lock.
#[tokio::test]
async fn a_lost_answer_is_looked_up() {
    let database = fresh_database().await;
    let proxy = Proxy::before(&database).await;
    let through_proxy = Database::parse(proxy.url(), runtime()).expect("an address");
    let journal = lead(&through_proxy).await;

    proxy.set_deaf(true);
    let batch = [vec![write_bot(&sample::bot(1))]];
    let outcome = journal.commit(BatchNo(1), &batch).await;
    assert!(matches!(outcome, Err(StoreError::Unavailable(_))), "{outcome:?}");
    proxy.set_deaf(false);
    assert_eq!(journal.was_committed(BatchNo(1)).await, Ok(true));
    assert_eq!(journal.was_committed(BatchNo(2)).await, Ok(false));
    assert_eq!(journal.read_bot(BotId(1)).await, Ok(Some(sample::bot(1))));
    commit(&journal, 1, batch[0].clone()).await;
}

/// The connection that flushes is cut off, and the other one is not: it is not waited for again and again.
#[tokio::test]
async fn a_flush_that_is_never_answered_is_made_on_another_connection() {
    let database = fresh_database().await;
    let proxy = Proxy::before(&database).await;
    let through_proxy = Database::parse(proxy.url(), runtime()).expect("an address");
    let journal = lead(&through_proxy).await;
    journal.commit(BatchNo(1), &[vec![write_bot(&sample::bot(1))]]).await.expect("commits");

    proxy.set_deaf(true);
    let outcome = journal.flush(BatchNo(1)).await;
    assert!(matches!(outcome, Err(StoreError::Unavailable(_))), "{outcome:?}");
    proxy.set_deaf(false);
    assert_eq!(journal.was_committed(BatchNo(1)).await, Ok(true));
    assert_eq!(journal.flush(BatchNo(1)).await, Ok(()));
}
