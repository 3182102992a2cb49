//! What a commit costs. `--nocapture` shows the numbers; what is asserted is only that grouping is worth it.

use super::*;
use crate::support::postgres::TestServer;
use meeboter::store::embedded::Durability;
use meeboter_actors::bot::BotEvent;
use meeboter_actors::bot::machine::entered;
use std::time::Instant;

const ROUNDS: u32 = 50;

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

#[tokio::test]
async fn a_group_costs_less_than_its_decisions_one_by_one() {
    let server = TestServer::start(Durability::Full).await;
    let database = server.embedded.database("timing").await.expect("a database");
    let journal = lead(&database).await;
    let (client, connection) = database.config().connect(tokio_postgres::NoTls).await.expect("connects");
    tokio::spawn(connection);
    client.batch_execute("CREATE TABLE bare (n int)").await.expect("a table");
    let insert = client.prepare("INSERT INTO bare VALUES (1)").await.expect("prepares");

    let mut slots: Vec<Slot> =
        (1..=200).map(|number| Slot { version: 1, ..sample::busy_slot(number) }).collect();
    let first: Vec<Decision> =
        slots.iter().map(|slot| vec![write_slot(slot), write_bot(slot.bot().expect("busy"))]).collect();
    journal.commit(BatchNo(1), &first).await.expect("commits");

    let mut number = 1;
    let (mut bare, mut one, mut group) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let began = Instant::now();
        client.execute(&insert, &[]).await.expect("inserts");
        bare.push(began.elapsed());
        for (size, times) in [(1, &mut one), (200, &mut group)] {
            number += 1;
            let decisions: Vec<Decision> = slots.iter_mut().take(size).map(step).collect();
            let began = Instant::now();
            journal.commit(BatchNo(number), &decisions).await.expect("commits");
            times.push(began.elapsed());
        }
    }
    let (bare, one, group) = (median(bare), median(one), median(group));
    println!("median of {ROUNDS}: one bare row {bare:?}, 1 decision {one:?}, 200 decisions {group:?}");
    assert!(group < one * 200, "one {one:?}, two hundred together {group:?}");
}

/// A slot's row, its bot's row and an event: what a typical transition writes.
fn step(slot: &mut Slot) -> Decision {
    slot.version += 1;
    let SlotState::Busy { bot, .. } = &mut slot.state else { unreachable!("all are busy") };
    let state = if bot.state == BotState::InCall { BotState::Recording } else { BotState::InCall };
    let (next, mut changes) = entered(bot, state, later(1));
    assert!(matches!(&changes[1], Change::InsertEvent(BotEvent { .. })));
    **bot = next;
    changes.push(write_slot(slot));
    changes
}
