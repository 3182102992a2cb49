//! What HTTP reads.

use super::*;
use crate::support::postgres::{TestServer, runtime, url_of};
use futures_util::future::join_all;
use meeboter::store::embedded::Durability;
use meeboter::store::pool::{Pool, QueryError};
use meeboter::store::queries::{Page, StoredBot, hash_of_key};
use meeboter::store::restored;
use meeboter::store::users::{Changed, NewUser, UserChange};
use meeboter_actors::ids::{BotId, UserId};
use meeboter_actors::journal::IdempotencyKey;
use meeboter_actors::queue::Plan;
use meeboter_actors::recording::Recording;

const ADMIN: UserId = UserId(1);

async fn pool(database: &Database) -> Pool {
    Pool::connect(database, 5).await.expect("a pool")
}

#[tokio::test]
async fn bots_are_read_with_their_recordings_by_their_user_only() {
    let (database, journal) = fresh().await;
    let pool = pool(&database).await;
    let other = pool.user_named("someone").await.expect("a user").id;
    let mut decision = Vec::new();
    for id in 1..=25 {
        let user_id = if id == 25 { other } else { ADMIN };
        decision.push(write_bot(&Bot { user_id, ..sample::bot(id) }));
    }
    decision.push(Change::WriteRecording(Recording::open(BotId(24))));
    commit(&journal, 1, decision).await;

    let stored = pool.get_bot(ADMIN, BotId(24)).await.expect("reads");
    let expected = StoredBot { bot: sample::bot(24), recording: Some(Recording::open(BotId(24))) };
    assert_eq!(stored, Some(expected.clone()));
    assert_eq!(pool.get_bot(ADMIN, BotId(25)).await.expect("reads"), None);

    let list = pool.list_bots(ADMIN, Page { number: 1, size: 10 }).await.expect("lists");
    let ids = |rows: &[StoredBot]| rows.iter().map(|row| row.bot.id.0).collect::<Vec<_>>();
    assert_eq!((ids(&list.rows), list.total), ((15..=24).rev().collect(), 24));
    assert_eq!(list.rows[0], expected);
    let list = pool.list_bots(ADMIN, Page { number: 3, size: 10 }).await.expect("lists");
    assert_eq!((ids(&list.rows), list.total), (vec![4, 3, 2, 1], 24));
}

#[tokio::test]
async fn no_more_connections_are_made_than_may_be() {
    let (database, _journal) = fresh().await;
    let pool = Pool::connect(&database, 2).await.expect("a pool");
    let reads = (0..20).map(|_| pool.list_bots(ADMIN, Page { number: 1, size: 10 }));
    assert!(join_all(reads).await.iter().all(Result::is_ok));
    assert_eq!(pool.usage(), (0, 2));
}

#[tokio::test]
async fn keys_are_found_by_what_is_stored_of_them() {
    let (database, journal) = fresh().await;
    let pool = pool(&database).await;
    let hash = hash_of_key("mb_secret");
    let made = pool.insert_api_key(ADMIN, "laptop", "mb_sec", &hash).await.expect("inserts");
    assert_eq!(pool.find_api_key(&hash).await.expect("finds"), Some(made.clone()));
    assert_eq!(pool.find_api_key(&hash_of_key("mb_other")).await.expect("finds"), None);
    let again = pool.insert_api_key(ADMIN, "laptop", "mb_sec", &hash).await;
    assert!(matches!(again, Err(QueryError::Refused { constraint: Some(_), .. })), "{again:?}");
    assert!(pool.revoke_api_key(ADMIN, made.id).await.expect("revokes"));
    assert!(!pool.revoke_api_key(ADMIN, made.id).await.expect("was revoked"));
    assert_eq!(pool.find_api_key(&hash).await.expect("finds"), None);
    assert_eq!(pool.list_api_keys(ADMIN).await.expect("lists").len(), 1);

    let key = IdempotencyKey { user_id: ADMIN, key: "k".into(), fingerprint: [3; 32], bot_id: BotId(1) };
    commit(&journal, 1, vec![write_bot(&sample::bot(1)), Change::InsertIdempotencyKey(key.clone())]).await;
    assert_eq!(pool.find_idempotency_key(ADMIN, "k").await.expect("finds"), Some(key));
    assert_eq!(pool.find_idempotency_key(UserId(2), "k").await.expect("finds"), None);
}

#[tokio::test]
async fn of_two_who_unmake_operators_at_once_the_later_is_told_that_it_is_the_last() {
    let (database, journal) = fresh().await;
    let pool = pool(&database).await;
    let new = NewUser { name: "ann", plan: Plan::Free, is_operator: true };
    let made = pool.insert_user(new, "first key", "mb_", &hash_of_key("mb_1")).await.expect("inserts");
    assert!(made.is_some_and(|made| (made.user.plan, made.api_keys) == (Plan::Free, 1)));
    let again = pool.insert_user(new, "first key", "mb_", &hash_of_key("mb_2")).await;
    assert_eq!(again.expect("is asked"), None, "the name is taken");
    assert_eq!(pool.find_api_key(&hash_of_key("mb_2")).await.expect("finds"), None, "both or neither");

    // Somebody else unmakes the one, and has not committed it yet.
    let (client, connection) = database.config().connect(tokio_postgres::NoTls).await.expect("connects");
    tokio::spawn(connection);
    client.batch_execute("BEGIN; UPDATE users SET is_operator = false WHERE id = 1").await.expect("updates");
    let unmake = UserChange { plan: None, is_operator: Some(false) };
    let commits = async {
        let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'users'::regclass";
        for _ in 0..100 {
            if client.query_one(waits, &[]).await.expect("is asked").get::<_, i64>(0) == 1 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        client.batch_execute("COMMIT").await.expect("commits");
    };
    let (changed, ()) = tokio::join!(pool.change_user("ann", unmake), commits);
    assert_eq!(changed.expect("is answered"), Changed::LastOperator);
    assert_eq!(pool.change_user("nobody", unmake).await.expect("is asked"), Changed::Unknown);
    let users = pool.list_users(Page { number: 1, size: 10 }).await.expect("lists").rows;
    let operators = users.iter().map(|stored| (stored.user.name.as_str(), stored.user.is_operator));
    assert_eq!(operators.collect::<Vec<_>>(), [("admin", false), ("ann", true)]);

    // While somebody changes a user, bots and idempotency keys are written all the same: they refer to users.
    let held =
        "BEGIN; LOCK TABLE users IN SHARE ROW EXCLUSIVE MODE; UPDATE users SET plan = 'free' WHERE id = 1";
    client.batch_execute(held).await.expect("locks");
    let key = IdempotencyKey { user_id: ADMIN, key: "k".into(), fingerprint: [3; 32], bot_id: BotId(1) };
    let decision = vec![write_bot(&sample::bot(1)), Change::InsertIdempotencyKey(key)];
    tokio::time::timeout(Duration::from_secs(5), commit(&journal, 1, decision)).await.expect("nobody waits");
}

#[tokio::test]
async fn the_installation_stays_who_it_is() {
    let (database, journal) = fresh().await;
    let pool = pool(&database).await;
    let first = pool.installation().await.expect("reads");
    assert_eq!(first.secret.len(), 32);
    assert!(!format!("{first:?}").contains(&format!("{:?}", first.secret)));
    drop(journal);
    let _journal = JournalConnection::take_lead(&database, Claim::Within(Duration::from_secs(5)), &log())
        .await
        .expect("leads");
    assert_eq!(pool.installation().await.expect("reads"), first);
    let admin = pool.get_user(ADMIN).await.expect("reads").expect("is there");
    assert_eq!(pool.user_named("admin").await.expect("reads"), admin);
    assert_eq!(pool.get_user(UserId(99)).await.expect("reads"), None);
}

#[tokio::test]
async fn connections_that_were_cut_are_made_again() {
    let (database, _journal) = fresh().await;
    let pool = pool(&database).await;
    assert!(pool.usage().1 >= 5);
    let (client, connection) = database.config().connect(tokio_postgres::NoTls).await.expect("connects");
    tokio::spawn(connection);
    let text = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                WHERE datname = current_database() AND pid <> pg_backend_pid()";
    client.execute(text, &[]).await.expect("cuts");
    // Each cut connection fails at most one query before it is known to be gone.
    for _ in 0..6 {
        match pool.installation().await {
            Ok(_) => return,
            Err(error) => assert!(matches!(error, QueryError::Unavailable { .. }), "{error:?}"),
        }
    }
    panic!("the pool did not recover");
}

#[tokio::test]
async fn what_is_written_is_written_to_the_primary() {
    let (database, _journal) = fresh().await;
    let replica = TestServer::start(Durability::Throwaway).await;
    let name = database.config().get_dbname().expect("a name");
    let read_only = replica.embedded.database(name).await.expect("a database");
    let text = format!("ALTER DATABASE {name} SET default_transaction_read_only = on");
    psql(&read_only).await.batch_execute(&text).await.expect("reads only");

    let (of_both, of_replica) = (url_of(&database), url_of(&read_only));
    let replicas_place = of_replica.split(['@', '/']).nth(3).expect("a host");
    let both = of_both.replacen('@', &format!("@{replicas_place},"), 1);
    let both = Database::parse(&both, runtime()).expect("an address");
    let pool = Pool::connect(&both, 2).await.expect("a pool");
    let user = pool.user_named("admin").await.expect("a user").id;
    pool.insert_api_key(user, "test", "mb_", &hash_of_key("key")).await.expect("writes");
    restored::make_fit(&both).await.expect("writes");
}

#[tokio::test]
async fn a_database_that_is_not_there_is_unavailable_in_words() {
    let server = crate::support::postgres::runtime();
    let database = Database::parse("postgres://u:secret@127.0.0.1:9/none", server).expect("an address");
    let Err(error) = Pool::connect(&database, 5).await else { panic!("nothing listens there") };
    let said = error.to_string();
    assert!(said.contains("127.0.0.1/none") && !said.contains("secret"), "{said}");
}
