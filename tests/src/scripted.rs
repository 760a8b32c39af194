//! An upstream that answers byte by byte as a test wants: what no well-behaved server would send.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What every request is answered with.
#[derive(Clone, Debug)]
pub struct Script {
    /// Sent at once.
    pub start: Vec<u8>,
    /// Sent again and again after it, until the caller has enough.
    pub piece: Vec<u8>,
    /// Time between two pieces; zero for as fast as they are read.
    pub pause: Duration,
}

/// A server on a port of its own.
#[derive(Debug)]
pub struct Scripted {
    url: String,
    counts: Arc<Counts>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Counts {
    requests: AtomicUsize,
    sent_bytes: AtomicUsize,
}

impl Scripted {
    /// Starts one that answers every request in this way.
    ///
    /// # Panics
    /// Where no port can be had.
    pub async fn start(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let counts = Arc::new(Counts::default());
        let (script, shared) = (Arc::new(script), Arc::clone(&counts));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (script, counts) = (Arc::clone(&script), Arc::clone(&shared));
                // It ends with an error once the caller hangs up: that is what it waits for.
                tokio::spawn(async move { answer(stream, &script, &counts).await });
            }
        });
        Self {
            url: format!("http://{address}"),
            counts,
            task,
        }
    }

    /// Base URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Requests that came.
    pub fn request_count(&self) -> usize {
        self.counts.requests.load(Ordering::Acquire)
    }

    /// Bytes of answers that were taken by the other end or the sockets between.
    pub fn sent_bytes(&self) -> usize {
        self.counts.sent_bytes.load(Ordering::Acquire)
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(mut stream: TcpStream, script: &Script, counts: &Counts) -> std::io::Result<()> {
    read_request(&mut stream).await?;
    counts.requests.fetch_add(1, Ordering::AcqRel);
    stream.write_all(&script.start).await?;
    while !script.piece.is_empty() {
        stream.write_all(&script.piece).await?;
        counts.sent_bytes.fetch_add(script.piece.len(), Ordering::AcqRel);
        if !script.pause.is_zero() {
            tokio::time::sleep(script.pause).await;
        }
    }
    Ok(())
}

/// Reads one request with its body, which the sidecar sends with its length.
async fn read_request(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length: usize = length.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    stream.read_exact(&mut vec![0; length]).await.map(|_| ())
}
