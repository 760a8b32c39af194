//! As many HTTP/2 connections as the requests under way need.
//!
//! A server limits the streams of a connection, and the HTTP library keeps one connection to a host: requests beyond the
//! limit wait inside it, unseen, while their time runs, and requests that hang take the streams of all others. So there are
//! several pools, and a request goes to the first one that has room.
//!
//! # Invariants
//! 1. No pool gets more than [`STREAMS_PER_CONNECTION`] requests at once while another has room.
//! 2. Pools are filled in order: few requests share few connections, and the others close when they are idle.
//! 3. A pool that is not known to have a connection gets one request, which opens it, and one pool is opened at a time: of many
//!    requests that open a connection each, all but one would be thrown away after their handshakes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::{Client, ClientBuilder};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// Requests that share a connection before the next is used: the least that RFC 9113, section 6.5.2, recommends servers to
/// allow.
pub const STREAMS_PER_CONNECTION: usize = 100;

/// Longest wait for the request that opens a pool: if it hangs, its connection is there by then.
const OPENING_MAX: Duration = Duration::from_millis(500);

/// The pools, each with one HTTP/2 connection at most; over HTTP/1.1 each has as many as it has requests.
#[derive(Debug)]
pub(crate) struct Connections {
    pools: Vec<Pool>,
    /// A place was given back, or a pool opened or closed.
    changed: Notify,
}

#[derive(Debug)]
struct Pool {
    http: Client,
    in_flight: AtomicUsize,
    /// Whether its newest request to end got an answer.
    is_open: AtomicBool,
}

/// A place in a pool, for one request; dropped once its answer was read.
#[derive(Debug)]
pub(crate) struct Place {
    connections: Arc<Connections>,
    index: usize,
}

impl Connections {
    /// Makes so many pools; opens no connection.
    pub(crate) fn new(count: usize, builder: impl Fn() -> ClientBuilder) -> reqwest::Result<Self> {
        let pool = |_| {
            Ok(Pool {
                http: builder().build()?,
                in_flight: AtomicUsize::new(0),
                is_open: AtomicBool::new(false),
            })
        };
        Ok(Self {
            pools: (0..count.max(1)).map(pool).collect::<reqwest::Result<_>>()?,
            changed: Notify::new(),
        })
    }

    /// Takes a place in the first open pool with room. Where there is none it opens another, or waits while one is being opened
    /// already, [`OPENING_MAX`] for each at most.
    ///
    /// # Cancel safety
    /// Cancel safe: whoever goes away has no place.
    pub(crate) async fn take(self: &Arc<Self>) -> Place {
        let mut waits_for: Option<(usize, Instant)> = None;
        loop {
            let changed = self.changed.notified();
            let opening = match self.find() {
                Found::Place(index) => return self.place(index),
                Found::Opening(index) => index,
            };
            let deadline = waits_for
                .filter(|(index, _)| *index == opening)
                .map_or_else(|| Instant::now() + OPENING_MAX, |(_, deadline)| deadline);
            waits_for = Some((opening, deadline));
            if timeout_at(deadline, changed).await.is_err() {
                self.set_open(opening, true);
            }
        }
    }

    fn find(&self) -> Found {
        let in_flight = |pool: &Pool| pool.in_flight.load(Ordering::Relaxed);
        let position = |fits: &dyn Fn(&Pool) -> bool| self.pools.iter().position(fits);
        if let Some(index) = position(&|pool| pool.is_open() && in_flight(pool) < STREAMS_PER_CONNECTION) {
            return Found::Place(index);
        }
        if let Some(index) = position(&|pool| !pool.is_open() && in_flight(pool) > 0) {
            return Found::Opening(index);
        }
        let closed = position(&|pool| !pool.is_open());
        let fewest = || (0..self.pools.len()).min_by_key(|index| in_flight(&self.pools[*index]));
        Found::Place(closed.or_else(fewest).unwrap_or(0))
    }

    fn place(self: &Arc<Self>, index: usize) -> Place {
        // Two that look at the same time may go one over: the server makes one of them wait.
        self.pools[index].in_flight.fetch_add(1, Ordering::Relaxed);
        Place {
            connections: Arc::clone(self),
            index,
        }
    }

    fn set_open(&self, index: usize, is_open: bool) {
        if self.pools[index].is_open.swap(is_open, Ordering::Relaxed) != is_open {
            self.changed.notify_waiters();
        }
    }
}

/// Where a request goes.
enum Found {
    /// Into this pool.
    Place(usize),
    /// Nowhere before this pool is open.
    Opening(usize),
}

impl Pool {
    fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Relaxed)
    }
}

impl Place {
    /// The pool's client.
    pub(crate) fn http(&self) -> &Client {
        &self.pool().http
    }

    /// Notes whether the request was answered, or its connection failed.
    pub(crate) fn ended(&self, answered: bool) {
        self.connections.set_open(self.index, answered);
    }

    fn pool(&self) -> &Pool {
        &self.connections.pools[self.index]
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.pool().in_flight.fetch_sub(1, Ordering::Relaxed);
        self.connections.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connections(count: usize) -> Arc<Connections> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("TLS")
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let builder = || Client::builder().tls_backend_preconfigured(tls.clone());
        Arc::new(Connections::new(count, builder).expect("clients"))
    }

    fn loads(connections: &Connections) -> Vec<usize> {
        let pools = connections.pools.iter();
        pools.map(|pool| pool.in_flight.load(Ordering::Relaxed)).collect()
    }

    fn open_connections(count: usize) -> Arc<Connections> {
        let connections = connections(count);
        for pool in &connections.pools {
            pool.is_open.store(true, Ordering::Relaxed);
        }
        connections
    }

    async fn take(connections: &Arc<Connections>, count: usize) -> Vec<Place> {
        let mut places = Vec::new();
        for _ in 0..count {
            places.push(connections.take().await);
        }
        places
    }

    #[tokio::test(start_paused = true)]
    async fn a_pool_is_opened_by_one_request_and_the_others_wait_for_it() {
        let connections = connections(2);
        let (opening, begin) = (connections.take().await, Instant::now());
        let (second, ()) = tokio::join!(connections.take(), async { opening.ended(true) });
        assert_eq!((second.index, begin.elapsed()), (0, Duration::ZERO));
        let _full = take(&connections, 99).await;
        assert_eq!(loads(&connections), [100, 1], "the next one opens another");
        let (next, ()) = tokio::join!(connections.take(), async { drop(second) });
        assert_eq!((next.index, begin.elapsed()), (0, Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_hangs_while_it_opens_a_pool_does_not_keep_others_out() {
        let connections = connections(2);
        let begin = Instant::now();
        let _hang = take(&connections, 101).await;
        assert_eq!(
            (loads(&connections), begin.elapsed()),
            (vec![100, 1], OPENING_MAX)
        );
        let _next = connections.take().await;
        assert_eq!(
            (loads(&connections), begin.elapsed()),
            (vec![100, 2], 2 * OPENING_MAX)
        );
    }

    #[tokio::test]
    async fn a_pool_whose_connection_failed_is_opened_anew_when_it_is_needed() {
        let connections = open_connections(2);
        connections.take().await.ended(false);
        let _full = take(&connections, 100).await;
        assert_eq!(loads(&connections), [0, 100]);
        let _opening = connections.take().await;
        assert_eq!(loads(&connections), [1, 100]);
    }

    #[tokio::test]
    async fn pools_are_filled_in_order_and_then_evenly() {
        let connections = open_connections(3);
        let places = take(&connections, 250).await;
        assert_eq!(loads(&connections), [100, 100, 50]);
        let more = take(&connections, 65).await;
        assert_eq!(loads(&connections), [105, 105, 105]);
        drop((places, more));
        assert_eq!(loads(&connections), [0, 0, 0]);
    }

    #[tokio::test]
    async fn a_place_given_back_is_the_next_taken() {
        let connections = open_connections(2);
        let mut places = take(&connections, 150).await;
        drop(places.remove(7));
        let next = connections.take().await;
        assert_eq!((next.index, loads(&connections)), (0, vec![100, 50]));
    }

    #[test]
    fn there_is_a_pool_also_where_none_is_asked_for() {
        assert_eq!(loads(&connections(0)), [0]);
    }
}
