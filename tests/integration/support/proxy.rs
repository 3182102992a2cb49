//! Stands between a client and a Unix socket, and can swallow the answers.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};

/// See the module. Sessions of clients that went away stay open on the other side, as over a network that was cut.
pub(crate) struct Proxy {
    folder: tempfile::TempDir,
    deaf: Arc<AtomicBool>,
}

impl Proxy {
    /// Listens in a folder of its own under the same file name.
    pub(crate) fn to(socket: PathBuf) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let name = socket.file_name().expect("a file");
        let listener = UnixListener::bind(folder.path().join(name)).expect("binds");
        let deaf = Arc::new(AtomicBool::new(false));
        let hears = Arc::clone(&deaf);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = UnixStream::connect(&socket).await.expect("connects");
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                tokio::spawn(forward(from_client, to_server));
                tokio::spawn(answer(from_server, to_client, Arc::clone(&hears)));
            }
        });
        Self { folder, deaf }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// From now on answers are swallowed, or not.
    pub(crate) fn set_deaf(&self, deaf: bool) {
        self.deaf.store(deaf, Ordering::SeqCst);
    }
}

async fn forward(mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        to.write_all(&buffer[..count]).await.expect("the server reads");
    }
    // Not said to the server: that its client is gone. Its other half keeps the session open.
    to.forget();
}

async fn answer(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, deaf: Arc<AtomicBool>) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if !deaf.load(Ordering::SeqCst) {
            // A client that is gone hears nothing.
            let _ = to.write_all(&buffer[..count]).await;
        }
    }
}
