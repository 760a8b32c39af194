//! One TCP connection under the handler's control: it can be reset for real, and its flushes are seen.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// What handler and answer body know of their connection.
#[derive(Debug)]
pub(crate) struct Connection {
    /// Its number, rising from 1.
    pub(crate) number: u64,
    reset_on_close: AtomicBool,
    flushes: Mutex<Flushes>,
}

#[derive(Debug, Default)]
struct Flushes {
    count: u64,
    waiting: Option<Waker>,
}

impl Connection {
    /// A connection with a number.
    pub(crate) fn new(number: u64) -> Self {
        Self {
            number,
            reset_on_close: AtomicBool::new(false),
            flushes: Mutex::default(),
        }
    }

    /// Makes the close of the socket a reset (RST) instead of an orderly end.
    pub(crate) fn reset_on_close(&self) {
        self.reset_on_close.store(true, Ordering::Release);
    }

    /// How many times all that was written has been handed to the socket.
    pub(crate) fn flush_count(&self) -> u64 {
        self.lock().count
    }

    /// Ready when there was a flush after the one numbered `seen`.
    pub(crate) fn poll_flushed_after(&self, seen: u64, context: &Context<'_>) -> Poll<()> {
        let mut flushes = self.lock();
        if flushes.count > seen {
            return Poll::Ready(());
        }
        flushes.waiting = Some(context.waker().clone());
        Poll::Pending
    }

    fn flushed(&self) {
        let mut flushes = self.lock();
        flushes.count += 1;
        if let Some(waker) = flushes.waiting.take() {
            waker.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Flushes> {
        self.flushes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The socket of a [`Connection`].
#[derive(Debug)]
pub(crate) struct Socket {
    stream: TcpStream,
    connection: Arc<Connection>,
}

impl Socket {
    /// Puts a socket under the control of its connection.
    pub(crate) fn new(stream: TcpStream, connection: Arc<Connection>) -> Self {
        Self { stream, connection }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.connection.reset_on_close.load(Ordering::Acquire)
            && let Err(error) = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO))
        {
            tracing::warn!(%error, "connection could not be reset and is closed instead");
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, buffer)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        if let Poll::Ready(Ok(())) = flushed {
            self.connection.flushed();
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
