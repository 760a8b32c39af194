//! A TCP proxy that cuts a connection after a given number of bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// Which bytes count towards the cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Those that the caller sends.
    ToServer,
    /// Those that the server answers.
    ToClient,
}

/// Where and how a connection is cut.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// Which bytes count.
    pub direction: Direction,
    /// How many of them pass before the cut.
    pub after_bytes: usize,
    /// Whether both ends see a reset; otherwise they see the end of the stream.
    pub reset: bool,
}

/// A proxy on a port of its own; each connection through it is cut in the same way.
#[derive(Debug)]
pub struct Proxy {
    address: String,
    has_cut: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Listens, and forwards to `target`, `host:port`.
    ///
    /// # Panics
    /// Where no port can be had.
    pub async fn start(target: &str, cut: Cut) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener
            .local_addr()
            .expect("a bound listener has an address")
            .to_string();
        let has_cut = Arc::new(AtomicBool::new(false));
        let (target, flag) = (target.to_owned(), Arc::clone(&has_cut));
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(&target).await else {
                    continue;
                };
                tokio::spawn(forward(client, server, cut, Arc::clone(&flag)));
            }
        });
        Self {
            address,
            has_cut,
            task,
        }
    }

    /// Where it listens, `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Whether so many bytes have passed that it cut.
    pub fn has_cut(&self) -> bool {
        self.has_cut.load(Ordering::Acquire)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward(client: TcpStream, server: TcpStream, cut: Cut, has_cut: Arc<AtomicBool>) {
    let linger = if cut.reset {
        [client.set_zero_linger(), server.set_zero_linger()]
    } else {
        [Ok(()), Ok(())]
    };
    linger
        .into_iter()
        .collect::<Result<(), _>>()
        .expect("an open socket takes the option");
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let bound = |direction| {
        if cut.direction == direction {
            cut.after_bytes
        } else {
            usize::MAX
        }
    };
    let reached = Notify::new();
    let both = async {
        tokio::join!(
            copy(from_client, to_server, bound(Direction::ToServer), &reached),
            copy(from_server, to_client, bound(Direction::ToClient), &reached),
        )
    };
    tokio::select! {
        _ = both => {}
        () = reached.notified() => has_cut.store(true, Ordering::Release),
    }
    // Dropping all four halves closes both connections.
}

/// Copies until the end, or until `bound` bytes have passed: then tells `reached` and waits to be dropped.
async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    bound: usize,
    reached: &Notify,
) -> std::io::Result<()> {
    let mut left = bound;
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return to.shutdown().await;
        }
        let passing = length.min(left);
        to.write_all(&buffer[..passing]).await?;
        left -= passing;
        if left == 0 {
            reached.notify_one();
            std::future::pending::<()>().await;
        }
    }
}
