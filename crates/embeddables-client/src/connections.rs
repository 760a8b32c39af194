//! As many HTTP/2 connections as the requests under way need.
//!
//! A server limits the streams of a connection, and the HTTP library keeps one connection to a host: requests beyond the
//! limit wait inside it, unseen, while their time runs, and requests that hang take the streams of all others. So there are
//! several pools, and a request goes to the first one that has room.
//!
//! # Invariants
//! 1. No pool gets more than [`STREAMS_PER_CONNECTION`] requests at once while another has room.
//! 2. Pools are filled in order: few requests share few connections, and the others close when they are idle.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use reqwest::{Client, ClientBuilder};

/// Requests that share a connection before the next is used: the least that RFC 9113, section 6.5.2, recommends servers to
/// allow.
pub const STREAMS_PER_CONNECTION: usize = 100;

/// The pools, each with one HTTP/2 connection at most; over HTTP/1.1 each has as many as it has requests.
#[derive(Debug)]
pub(crate) struct Connections {
    pools: Vec<Pool>,
}

#[derive(Debug)]
struct Pool {
    http: Client,
    in_flight: AtomicUsize,
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
            })
        };
        Ok(Self {
            pools: (0..count.max(1)).map(pool).collect::<reqwest::Result<_>>()?,
        })
    }

    /// Takes a place in the first pool with room; where none has room, in the one with the fewest requests.
    pub(crate) fn take(self: &Arc<Self>) -> Place {
        let in_flight = |index: &usize| self.pools[*index].in_flight.load(Ordering::Relaxed);
        let mut indexes = 0..self.pools.len();
        let index = indexes
            .find(|index| in_flight(index) < STREAMS_PER_CONNECTION)
            .or_else(|| (0..self.pools.len()).min_by_key(in_flight))
            .unwrap_or(0);
        // Two that look at the same time may go one over: the server makes one of them wait.
        self.pools[index].in_flight.fetch_add(1, Ordering::Relaxed);
        Place {
            connections: Arc::clone(self),
            index,
        }
    }
}

impl Place {
    /// The pool's client.
    pub(crate) fn http(&self) -> &Client {
        &self.connections.pools[self.index].http
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let pool = &self.connections.pools[self.index];
        pool.in_flight.fetch_sub(1, Ordering::Relaxed);
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

    #[test]
    fn pools_are_filled_in_order_and_then_evenly() {
        let connections = connections(3);
        let places: Vec<_> = (0..250).map(|_| connections.take()).collect();
        assert_eq!(loads(&connections), [100, 100, 50]);
        let more: Vec<_> = (0..65).map(|_| connections.take()).collect();
        assert_eq!(loads(&connections), [105, 105, 105]);
        drop((places, more));
        assert_eq!(loads(&connections), [0, 0, 0]);
    }

    #[test]
    fn a_place_given_back_is_the_next_taken() {
        let connections = connections(2);
        let mut places: Vec<_> = (0..150).map(|_| connections.take()).collect();
        drop(places.remove(7));
        let next = connections.take();
        assert_eq!((next.index, loads(&connections)), (0, vec![100, 50]));
    }

    #[test]
    fn there_is_a_pool_also_where_none_is_asked_for() {
        assert_eq!(loads(&connections(0)), [0]);
    }
}
