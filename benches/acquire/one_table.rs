//! One table in batches: the peer's table, of which one writer takes rows and frees them by the batch. No bots, no events,
//! nobody who waits: what PostgreSQL does here for the least that a pool can write.

use anyhow::{Result, ensure};
use futures_util::try_join;
use meeboter_benches::peer::{DATABASE, Peer};
use meeboter_benches::workbench::Workbench;
use std::time::{Duration, Instant};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Statement};

const TAKE: &str = "
    UPDATE peer_slots AS old SET status = 'busy', assigned_bot_id = new.id, last_used_at = now()
    FROM unnest($1::int[]) AS new(id) WHERE old.id = new.id AND old.status = 'idle'";
const FREE: &str = "
    UPDATE peer_slots AS old SET status = 'idle', assigned_bot_id = NULL, last_used_at = now()
    FROM unnest($1::int[]) AS new(id) WHERE old.id = new.id AND old.status = 'busy'";

pub(crate) struct OneTable {
    client: Client,
    take: Statement,
    free: Statement,
    slots: usize,
}

impl OneTable {
    pub(crate) async fn new(workbench: &Workbench, peer: &Peer, slots: u32) -> Result<Self> {
        peer.slots(1).await?.close();
        let client = workbench.postgres()?.connect(DATABASE).await?;
        let (take, free) = (client.prepare(TAKE).await?, client.prepare(FREE).await?);
        Ok(Self { client, take, free, slots: slots.try_into()? })
    }

    /// Pairs a second where, in one commit, half of so many callers take a slot and the other half free theirs.
    pub(crate) async fn run(&self, callers: usize, duration: Duration) -> Result<f64> {
        let half = callers / 2;
        ensure!(3 * half <= self.slots, "{callers} callers are too many for {} slots", self.slots);
        let began = Instant::now();
        let (mut pairs, mut first, mut taken) = (0, 0, Vec::new());
        while began.elapsed() < duration {
            let next = (first + 1..=first + half).map(i32::try_from).collect::<Result<Vec<_>, _>>()?;
            self.write(&next, &taken).await?;
            pairs += taken.len();
            first = (first + half) % (self.slots - half);
            taken = next;
        }
        let per_second = pairs as f64 / began.elapsed().as_secs_f64();
        self.write(&[], &taken).await?;
        Ok(per_second)
    }

    async fn write(&self, taken: &[i32], freed: &[i32]) -> Result<()> {
        let (taking, freeing): ([&(dyn ToSql + Sync); 1], [&(dyn ToSql + Sync); 1]) = ([&taken], [&freed]);
        let ((), took, did_free, ()) = try_join!(
            self.client.batch_execute("BEGIN"),
            self.client.execute(&self.take, &taking),
            self.client.execute(&self.free, &freeing),
            self.client.batch_execute("COMMIT"),
        )?;
        ensure!(
            (took, did_free) == (taken.len() as u64, freed.len() as u64),
            "{took} taken and {did_free} freed, of {} and {}",
            taken.len(),
            freed.len()
        );
        Ok(())
    }
}
