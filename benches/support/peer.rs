//! The peer: a table of slots of which every caller locks a free row by itself, as a plain program would keep a pool.

use anyhow::Result;
use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod};
use meeboter_benches::figures::Figures;
use meeboter_benches::postgres::Postgres;
use std::time::{Duration, Instant};
use tokio_postgres::NoTls;

const DATABASE: &str = "postgres";
/// Sizes of its pool of connections; the best one counts.
const CONNECTIONS: [usize; 3] = [8, 16, 32];

const TABLE: &str = "
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

pub(crate) struct Peer {
    postgres: Postgres,
    slots: i64,
}

/// A run.
pub(crate) struct Best {
    pub(crate) pairs_per_second: f64,
    pub(crate) connections: usize,
    pub(crate) acquired: Figures,
}

impl Peer {
    pub(crate) fn new(postgres: Postgres, slots: u32) -> Self {
        Self { postgres, slots: slots.into() }
    }

    /// All sizes of the pool of connections, one after the other, each on a fresh table; the best.
    pub(crate) async fn best(&self, callers: usize, duration: Duration) -> Result<Best> {
        let mut best = self.run(callers, CONNECTIONS[0], duration).await?;
        for connections in &CONNECTIONS[1..] {
            let run = self.run(callers, *connections, duration).await?;
            if run.pairs_per_second > best.pairs_per_second {
                best = run;
            }
        }
        Ok(best)
    }

    async fn run(&self, callers: usize, connections: usize, duration: Duration) -> Result<Best> {
        let client = self.postgres.connect(DATABASE).await?;
        client.batch_execute(TABLE).await?;
        client.execute(FILL, &[&self.slots]).await?;
        client.batch_execute("VACUUM ANALYZE peer_slots").await?;
        let manager = Manager::from_config(
            self.postgres.config(DATABASE),
            NoTls,
            ManagerConfig { recycling_method: RecyclingMethod::Fast },
        );
        let pool = Pool::builder(manager).max_size(connections).build()?;
        let began = Instant::now();
        let running: Vec<_> = (0..callers)
            .map(|caller| tokio::spawn(call_until(pool.clone(), i32::try_from(caller), began + duration)))
            .collect();
        let (mut pairs, mut acquired) = (0, Figures::default());
        for caller in running {
            let (done, took) = caller.await??;
            pairs += done;
            acquired.extend(took);
        }
        let pairs_per_second = f64::from(pairs) / began.elapsed().as_secs_f64();
        pool.close();
        Ok(Best { pairs_per_second, connections, acquired })
    }
}

async fn call_until(
    pool: Pool,
    bot: Result<i32, std::num::TryFromIntError>,
    end: Instant,
) -> Result<(u32, Figures)> {
    let bot = bot?;
    let (mut pairs, mut acquired) = (0, Figures::default());
    while Instant::now() < end {
        let began = Instant::now();
        let slot: i32 = {
            let connection = pool.get().await?;
            let acquire = connection.prepare_cached(ACQUIRE).await?;
            connection.query_one(&acquire, &[&bot]).await?.get("id")
        };
        acquired.add(began.elapsed());
        let connection = pool.get().await?;
        let release = connection.prepare_cached(RELEASE).await?;
        connection.execute(&release, &[&slot]).await?;
        pairs += 1;
    }
    Ok((pairs, acquired))
}
