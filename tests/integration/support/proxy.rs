//! Stands between clients and a PostgreSQL, as a network does: it can swallow answers, and cut a connection right after a
//! commit was sent. A connection that lost an answer delivers none any more: nothing in a stream is skipped.

use meeboter::store::database::Database;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::unix::{OwnedReadHalf as UnixReadHalf, OwnedWriteHalf as UnixWriteHalf};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;

/// How a transaction of the Journal ends, as PostgreSQL is told: a simple query.
const COMMIT: &[u8] = b"COMMIT\0";

/// See the module.
pub(crate) struct Proxy {
    url: String,
    line: Arc<Line>,
}

/// What all connections share.
#[derive(Default)]
struct Line {
    /// Answers are swallowed.
    deaf: AtomicBool,
    /// The next commit is sent on, and its connection cut.
    cuts: AtomicBool,
    cut: AtomicU32,
}

impl Proxy {
    /// Listens at a port of its own for those who want this database.
    pub(crate) async fn before(database: &Database) -> Self {
        let config = database.config();
        let [tokio_postgres::config::Host::Unix(folder)] = config.get_hosts() else {
            panic!("the test server listens on one socket")
        };
        let (user, name) = (config.get_user().expect("named"), config.get_dbname().expect("named"));
        let socket = folder.join(".s.PGSQL.5432");
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("binds");
        let address = listener.local_addr().expect("is bound");
        let line = Arc::new(Line::default());
        let shared = Arc::clone(&line);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                // Where PostgreSQL is away, the client's connection is dropped, and that is what it hears.
                if let Ok(server) = UnixStream::connect(&socket).await {
                    join(client, server, &shared);
                }
            }
        });
        Self { url: format!("postgres://{user}@{address}/{name}"), line }
    }

    /// How a client names the database that it reaches this way.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// From now on answers are swallowed, or not any more on connections that lost none. Neither side of one that did
    /// hears when the other one is gone.
    pub(crate) fn set_deaf(&self, deaf: bool) {
        self.line.deaf.store(deaf, Ordering::SeqCst);
    }

    /// The next commit is sent on, and its answer is not: its connection is cut.
    pub(crate) fn cut_at_commit(&self) {
        self.line.cuts.store(true, Ordering::SeqCst);
    }

    /// Connections that were cut at a commit so far.
    pub(crate) fn cut(&self) -> u32 {
        self.line.cut.load(Ordering::SeqCst)
    }
}

fn join(client: TcpStream, server: UnixStream, line: &Arc<Line>) {
    // Small messages are not to wait for each other.
    let _ = client.set_nodelay(true);
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let ((ends, ended), lost) = (watch::channel(()), Arc::new(AtomicBool::new(false)));
    let way = Way { line: Arc::clone(line), lost: Arc::clone(&lost) };
    tokio::spawn(way.forward(from_client, to_server, ends));
    let way = Way { line: Arc::clone(line), lost };
    tokio::spawn(way.answer(from_server, to_client, ended));
}

/// One connection, in one direction.
struct Way {
    line: Arc<Line>,
    /// It lost an answer.
    lost: Arc<AtomicBool>,
}

impl Way {
    /// Ends with the client's connection, and with it drops `ends` where the answers are to end too.
    async fn forward(self, mut from: OwnedReadHalf, mut to: UnixWriteHalf, ends: watch::Sender<()>) {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            let sent = &buffer[..count];
            let is_commit = sent.windows(COMMIT.len()).any(|part| part == COMMIT);
            if is_commit && self.line.cuts.swap(false, Ordering::SeqCst) {
                // Before PostgreSQL can answer.
                drop(ends);
                let _ = to.write_all(sent).await;
                self.line.cut.fetch_add(1, Ordering::SeqCst);
                return;
            }
            if to.write_all(sent).await.is_err() {
                return;
            }
        }
        if self.lost.load(Ordering::SeqCst) {
            // Nobody tells the server that its client is gone: the session stays open, as over a network that was cut.
            to.forget();
            std::mem::forget(ends);
        }
    }

    async fn answer(self, mut from: UnixReadHalf, mut to: OwnedWriteHalf, mut ended: watch::Receiver<()>) {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let read = tokio::select! {
                // Whoever is cut off hears nothing any more, whatever has come.
                biased;
                _ = ended.changed() => return,
                read = from.read(&mut buffer) => read,
            };
            let Ok(count @ 1..) = read else { return };
            if self.line.deaf.load(Ordering::SeqCst) {
                self.lost.store(true, Ordering::SeqCst);
            }
            if !self.lost.load(Ordering::SeqCst) && to.write_all(&buffer[..count]).await.is_err() {
                return;
            }
        }
    }
}
