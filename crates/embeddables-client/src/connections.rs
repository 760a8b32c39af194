//! As many HTTP/2 connections as the requests under way need.
//!
//! A server limits the streams of a connection, and the HTTP library keeps one connection to a host: requests beyond the
//! limit wait inside it, unseen, while their time runs, and requests that hang take the streams of all others. So there are
//! several pools, and a request goes to the first one that has room.
//!
//! # Invariants
//! 1. No pool gets more than [`STREAMS_PER_CONNECTION`] requests at once while another has room.
//! 2. Pools are filled in order: few requests share few connections, and the others close when they are idle.
//! 3. A pool that is not known to have a connection gets one request, which opens it: of many that open one each, all but
//!    one would be thrown away after their handshakes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::{Client, ClientBuilder};
use tokio::sync::Notify;
use tokio::time::timeout;

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

    /// Takes a place in the first pool with room. Waits where there is none but a pool is being opened, for [`OPENING_MAX`] at
    /// most.
    ///
    /// # Cancel safety
    /// Cancel safe: whoever goes away has no place.
    pub(crate) async fn take(self: &Arc<Self>) -> Place {
        if let Some(place) = self.try_take() {
            return place;
        }
        let with_room = async {
            loop {
                let changed = self.changed.notified();
                if let Some(place) = self.try_take() {
                    return place;
                }
                changed.await;
            }
        };
        let waited = timeout(OPENING_MAX, with_room).await;
        waited.unwrap_or_else(|_| self.place(self.first_with_room(|_| STREAMS_PER_CONNECTION)))
    }

    /// A place in the first pool with room, or where all are open and full, in the one with the fewest requests.
    fn try_take(self: &Arc<Self>) -> Option<Place> {
        let room = |pool: &Pool| if pool.is_open() { STREAMS_PER_CONNECTION } else { 1 };
        let found = self.first_with_room(room);
        let is_opening = || self.pools.iter().any(|pool| !pool.is_open());
        (found.1 || !is_opening()).then(|| self.place(found))
    }

    /// The first pool with less than its room, and `true`; else the one with the fewest requests.
    fn first_with_room(&self, room: impl Fn(&Pool) -> usize) -> (usize, bool) {
        let in_flight = |pool: &Pool| pool.in_flight.load(Ordering::Relaxed);
        if let Some(index) = self.pools.iter().position(|pool| in_flight(pool) < room(pool)) {
            return (index, true);
        }
        let fewest = (0..self.pools.len()).min_by_key(|index| in_flight(&self.pools[*index]));
        (fewest.unwrap_or(0), false)
    }

    fn place(self: &Arc<Self>, (index, _): (usize, bool)) -> Place {
        // Two that look at the same time may go one over: the server makes one of them wait.
        self.pools[index].in_flight.fetch_add(1, Ordering::Relaxed);
        Place {
            connections: Arc::clone(self),
            index,
        }
    }
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
        if self.pool().is_open.swap(answered, Ordering::Relaxed) != answered {
            self.connections.changed.notify_waiters();
        }
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
    use tokio::time::Instant;

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
        let opening = take(&connections, 2).await;
        assert_eq!(loads(&connections), [1, 1]);
        let begin = Instant::now();
        let (third, ()) = tokio::join!(connections.take(), async { opening[0].ended(true) });
        assert_eq!((third.index, begin.elapsed()), (0, Duration::ZERO));
        let _full = take(&connections, 98).await;
        assert_eq!(loads(&connections), [100, 1]);
        let (next, ()) = tokio::join!(connections.take(), async { drop(third) });
        assert_eq!((next.index, begin.elapsed()), (0, Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_hangs_while_it_opens_a_pool_does_not_keep_others_out() {
        let connections = connections(1);
        let (_hangs, begin) = (connections.take().await, Instant::now());
        let _next = connections.take().await;
        assert_eq!((loads(&connections), begin.elapsed()), (vec![2], OPENING_MAX));
    }

    #[tokio::test]
    async fn a_pool_whose_connection_failed_is_opened_anew() {
        let connections = open_connections(2);
        let place = connections.take().await;
        place.ended(false);
        let more = take(&connections, 3).await;
        let indexes: Vec<_> = more.iter().map(|place| place.index).collect();
        assert_eq!(indexes, [1, 1, 1]);
        drop(place);
        assert_eq!(connections.take().await.index, 0);
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
