//! A TCP proxy between the sidecar and its upstream that cuts once, so many bytes after it was armed.
//!
//! # Invariants
//! 1. An armed fuse cuts exactly one connection: the one on which the last of the counted bytes passed. Others go on.
//! 2. The counted bytes reach the other end before the cut.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::proxy::{Cut, Direction};

/// A proxy with a fuse.
#[derive(Debug)]
pub struct Fuse {
    address: String,
    armed: Arc<Armed>,
    task: JoinHandle<()>,
}

/// What is left to pass before the cut; `None` while nothing is armed.
#[derive(Debug, Default)]
struct Armed(Mutex<Option<Cut>>);

/// What may pass of a piece.
struct Passage {
    bytes: usize,
    /// Set where the connection is to be cut after them; whether by a reset.
    cut: Option<bool>,
}

impl Fuse {
    /// Listens, and forwards to `target`, `host:port`.
    ///
    /// # Panics
    /// Where no port can be had.
    pub async fn start(target: &str) -> Self {
        Self::listen("127.0.0.1:0", target).await
    }

    /// Listens at `address`, and forwards to `target`.
    ///
    /// # Panics
    /// Where the address cannot be had.
    pub async fn listen(address: &str, target: &str) -> Self {
        let listener = TcpListener::bind(address).await.expect("the address is free");
        let address = listener
            .local_addr()
            .expect("a bound listener has an address")
            .to_string();
        let armed = Arc::new(Armed::default());
        let (target, shared) = (target.to_owned(), Arc::clone(&armed));
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if let Ok(server) = TcpStream::connect(&target).await {
                    tokio::spawn(forward(client, server, Arc::clone(&shared)));
                }
            }
        });
        Self { address, armed, task }
    }

    /// Where it listens, `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Cuts once that many bytes have passed from now on.
    pub fn arm(&self, cut: Cut) {
        *self.armed.lock() = Some(cut);
    }

    /// Cuts no more; whether it has cut since it was armed.
    pub fn disarm(&self) -> bool {
        self.armed.lock().take().is_none()
    }
}

impl Drop for Fuse {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Armed {
    fn lock(&self) -> MutexGuard<'_, Option<Cut>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn passage(&self, direction: Direction, length: usize) -> Passage {
        let mut armed = self.lock();
        let Some(cut) = armed.as_mut().filter(|cut| cut.direction == direction) else {
            return Passage {
                bytes: length,
                cut: None,
            };
        };
        if cut.after_bytes > length {
            cut.after_bytes -= length;
            return Passage {
                bytes: length,
                cut: None,
            };
        }
        let passage = Passage {
            bytes: cut.after_bytes,
            cut: Some(cut.reset),
        };
        *armed = None;
        passage
    }
}

async fn forward(mut client: TcpStream, mut server: TcpStream, armed: Arc<Armed>) {
    let blown = Notify::new();
    let reset = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let reset = Mutex::new(None);
        let both = async {
            tokio::join!(
                copy(
                    from_client,
                    to_server,
                    Direction::ToServer,
                    &armed,
                    &reset,
                    &blown
                ),
                copy(
                    from_server,
                    to_client,
                    Direction::ToClient,
                    &armed,
                    &reset,
                    &blown
                ),
            )
        };
        tokio::select! {
            _ = both => {}
            () = blown.notified() => {}
        }
        reset.into_inner().unwrap_or_else(PoisonError::into_inner)
    };
    if reset == Some(true) {
        for end in [&client, &server] {
            end.set_zero_linger().expect("an open socket takes the option");
        }
    }
    // Dropping both closes the connections.
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    direction: Direction,
    armed: &Armed,
    reset: &Mutex<Option<bool>>,
    blown: &Notify,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return to.shutdown().await;
        }
        let passage = armed.passage(direction, length);
        to.write_all(&buffer[..passage.bytes]).await?;
        if passage.cut.is_some() {
            *reset.lock().unwrap_or_else(PoisonError::into_inner) = passage.cut;
            blown.notify_one();
            return std::future::pending().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends these bytes through a fuse to a server that sends them back; gives what came back and whether the fuse cut.
    async fn echo(cut: Cut, bytes: &[u8]) -> (Vec<u8>, bool) {
        let server = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let fuse = Fuse::start(&server.local_addr().expect("an address").to_string()).await;
        fuse.arm(cut);
        let serving = tokio::spawn(async move {
            let (mut stream, _) = server.accept().await.expect("a connection");
            let (mut from, mut to) = stream.split();
            // Ends with an error where the fuse resets.
            let _ended = tokio::io::copy(&mut from, &mut to).await;
        });
        let mut stream = TcpStream::connect(fuse.address()).await.expect("a connection");
        stream.write_all(bytes).await.expect("the first bytes are taken");
        let mut back = vec![0; bytes.len()];
        let mut length = 0;
        while length < back.len() {
            match stream.read(&mut back[length..]).await {
                Ok(0) | Err(_) => break,
                Ok(more) => length += more,
            }
        }
        back.truncate(length);
        drop(stream);
        serving.await.expect("the server ends");
        (back, fuse.disarm())
    }

    #[tokio::test]
    async fn an_armed_fuse_cuts_after_so_many_bytes_in_its_direction() {
        let cut = |direction, after_bytes| Cut {
            direction,
            after_bytes,
            reset: false,
        };
        assert_eq!(
            echo(cut(Direction::ToClient, 3), b"abcde").await,
            (b"abc".to_vec(), true)
        );
        assert_eq!(
            echo(cut(Direction::ToClient, 5), b"abcde").await,
            (b"abcde".to_vec(), true)
        );
        assert_eq!(
            echo(cut(Direction::ToClient, 6), b"abcde").await,
            (b"abcde".to_vec(), false)
        );
        let (back, has_cut) = echo(cut(Direction::ToServer, 2), b"abcde").await;
        assert!(has_cut && b"ab".starts_with(&back), "{back:?}");
    }
}
