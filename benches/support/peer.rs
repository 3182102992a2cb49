//! The peer: a table of slots of which every caller locks a free row by itself, as a plain program would keep a pool.

use super::figures::Figures;
use super::postgres::Postgres;
use anyhow::Result;
use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod};
use std::time::{Duration, Instant};
use tokio_postgres::NoTls;

/// Where its table is.
pub const DATABASE: &str = "postgres";
/// The table.
pub const TABLE: &str = "peer_slots";
/// Sizes of its pool of connections; the best one counts.
const CONNECTIONS: [usize; 3] = [8, 16, 32];

const CREATE: &str = "
    DROP TABLE IF EXISTS peer_slots;
    CREATE TABLE peer_slots (
        id serial PRIMARY KEY,
        slot_name text,
        status varchar(50),
        assigned_bot_id int,
        last_used_at timestamp,
        error_message text
    );
    CREATE INDEX ON peer_slots (status);
    CREATE INDEX ON peer_slots (assigned_bot_id);";
const FILL: &str = "
    INSERT INTO peer_slots (slot_name, status)
    SELECT 'pool-zoom-' || n, 'idle' FROM generate_series(1, $1::bigint) AS n";
const ACQUIRE: &str = "
    UPDATE peer_slots SET status = 'busy', assigned_bot_id = $1, last_used_at = now()
    WHERE id = (
        SELECT id FROM peer_slots WHERE status = 'idle'
        ORDER BY last_used_at ASC NULLS FIRST LIMIT 1 FOR UPDATE SKIP LOCKED
    )
    RETURNING *";
const RELEASE: &str =
    "UPDATE peer_slots SET status = 'idle', assigned_bot_id = NULL, last_used_at = now() WHERE id = $1";

/// See the module.
pub struct Peer {
    postgres: Postgres,
    slots: i64,
}

/// A run.
pub struct Best {
    pub pairs_per_second: f64,
    pub connections: usize,
    pub acquired: Figures,
}

/// A fresh table, and connections to it.
#[derive(Clone)]
pub struct Slots(Pool);

impl Peer {
    pub fn new(postgres: Postgres, slots: u32) -> Self {
        Self { postgres, slots: slots.into() }
    }

    /// All sizes of the pool of connections, one after the other, each on a fresh table; the best.
    pub async fn best(&self, callers: usize, duration: Duration) -> Result<Best> {
        let mut best = self.run(callers, CONNECTIONS[0], duration).await?;
        for connections in &CONNECTIONS[1..] {
            let run = self.run(callers, *connections, duration).await?;
            if run.pairs_per_second > best.pairs_per_second {
                best = run;
            }
        }
        Ok(best)
    }

    /// A fresh table, with all slots idle.
    pub async fn slots(&self, connections: usize) -> Result<Slots> {
        let client = self.postgres.connect(DATABASE).await?;
        client.batch_execute(CREATE).await?;
        client.execute(FILL, &[&self.slots]).await?;
        client.batch_execute(&format!("VACUUM ANALYZE {TABLE}")).await?;
        let manager = Manager::from_config(
            self.postgres.config(DATABASE),
            NoTls,
            ManagerConfig { recycling_method: RecyclingMethod::Fast },
        );
        Ok(Slots(Pool::builder(manager).max_size(connections).build()?))
    }

    async fn run(&self, callers: usize, connections: usize, duration: Duration) -> Result<Best> {
        let slots = self.slots(connections).await?;
        let began = Instant::now();
        let running: Vec<_> = (0..callers)
            .map(|caller| tokio::spawn(call_until(slots.clone(), i32::try_from(caller), began + duration)))
            .collect();
        let (mut pairs, mut acquired) = (0, Figures::default());
        for caller in running {
            let (done, took) = caller.await??;
            pairs += done;
            acquired.extend(took);
        }
        let pairs_per_second = f64::from(pairs) / began.elapsed().as_secs_f64();
        slots.close();
        Ok(Best { pairs_per_second, connections, acquired })
    }
}

impl Slots {
    /// The longest unused free slot is this bot's, and then free again.
    pub async fn pair(&self, bot: i32) -> Result<()> {
        let connection = self.0.get().await?;
        let slot = acquire(&connection, bot).await?;
        release(&connection, slot).await
    }

    /// Ends the connections.
    pub fn close(&self) {
        self.0.close();
    }
}

async fn acquire(connection: &Object, bot: i32) -> Result<i32> {
    let acquire = connection.prepare_cached(ACQUIRE).await?;
    Ok(connection.query_one(&acquire, &[&bot]).await?.get("id"))
}

async fn release(connection: &Object, slot: i32) -> Result<()> {
    let release = connection.prepare_cached(RELEASE).await?;
    connection.execute(&release, &[&slot]).await?;
    Ok(())
}

async fn call_until(
    slots: Slots,
    bot: Result<i32, std::num::TryFromIntError>,
    end: Instant,
) -> Result<(u32, Figures)> {
    let bot = bot?;
    let (mut pairs, mut acquired) = (0, Figures::default());
    while Instant::now() < end {
        let began = Instant::now();
        let slot = acquire(&slots.0.get().await?, bot).await?;
        acquired.add(began.elapsed());
        release(&slots.0.get().await?, slot).await?;
        pairs += 1;
    }
    Ok((pairs, acquired))
}
