//! Every request the mock has received: counted exactly, and kept for `GET /_mock/requests` within bounds.
//!
//! # Invariants
//! 1. Numbers rise by one a request and are never used twice, not even after a reset.
//! 2. The newest requests are kept: at most 200,000, and at most 256 MiB of them (the newest one always).
//! 3. The lock is held for map and queue operations only, never over an await.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use hyper::http::request::Parts;

use crate::answer::Answer;
use crate::counts::Counts;
use crate::faults::Step;
use crate::record::{Record, Requests};

/// Most requests kept.
const MAX_RECORDS: usize = 200_000;
/// Most memory for requests kept, in bytes.
const MAX_RECORDED_BYTES: usize = 256 * 1024 * 1024;
/// Most bodies told apart.
const MAX_DISTINCT_BODIES: usize = 10_000_000;

/// What is known of a request on arrival.
pub(crate) struct Arrival<'a> {
    /// Number of its connection.
    pub(crate) connection: u64,
    /// Request line and headers.
    pub(crate) head: &'a Parts,
    /// Project that its path names.
    pub(crate) project: Option<&'a str>,
    /// Whether it asks for an event to be created.
    pub(crate) is_event: bool,
    /// Its body.
    pub(crate) body: Bytes,
    /// Whether it creates an event.
    pub(crate) created: bool,
    /// The answer it will get, if any.
    pub(crate) answer: Option<&'a Answer>,
    /// The step it consumed.
    pub(crate) fault: Option<Arc<Step>>,
}

/// The book of requests.
#[derive(Debug, Default)]
pub(crate) struct Received {
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    counts: Counts,
    last_number: u64,
    /// Requests up to this number came before the last reset.
    reset_number: u64,
    connection_number: u64,
    records: VecDeque<Arc<Record>>,
    recorded_bytes: usize,
    /// The hashes of all bodies that asked for an event, and whether one of them created it.
    bodies: HashMap<u64, bool>,
}

impl Received {
    /// Counts a request, and keeps it if `record` is set.
    pub(crate) fn arrive(self: &Arc<Self>, arrival: Arrival<'_>, record: bool) -> Ticket {
        let status = arrival.answer.map(|answer| answer.status.as_u16());
        let body_hash = arrival.is_event.then(|| hash_of(&arrival));
        let record = record.then(|| Record::new(&arrival));
        let mut book = self.lock();
        book.last_number += 1;
        let number = book.last_number;
        book.counts.arrived(arrival.project, arrival.created);
        if let Some(hash) = body_hash {
            book.tell_apart(hash, arrival.created);
        }
        let record = record.map(|mut record| {
            record.number = number;
            let record = Arc::new(record);
            book.keep(Arc::clone(&record));
            record
        });
        drop(book);
        Ticket {
            received: Arc::clone(self),
            number,
            record,
            status,
            finished: false,
        }
    }

    /// Counts a request that broke off before its end.
    pub(crate) fn incomplete(&self) {
        self.lock().counts.incomplete += 1;
    }

    /// Counts a new connection and gives its number.
    pub(crate) fn connection_opened(&self) -> u64 {
        let mut book = self.lock();
        book.connection_number += 1;
        book.counts.connections += 1;
        book.counts.open_connections += 1;
        book.connection_number
    }

    /// Counts the end of a connection.
    pub(crate) fn connection_closed(&self) {
        self.lock().counts.open_connections -= 1;
    }

    /// The numbers so far, without `fault_steps_left`.
    pub(crate) fn counts(&self) -> Counts {
        let book = self.lock();
        let recorded = book.records.len() as u64;
        Counts {
            recorded,
            not_recorded: book.counts.requests - recorded,
            ..book.counts.clone()
        }
    }

    /// The requests with a number above `since`.
    pub(crate) fn requests(&self, since: u64) -> Requests {
        let book = self.lock();
        let since = since.max(book.reset_number);
        let start = book.records.partition_point(|record| record.number <= since);
        let kept: Vec<_> = book.records.range(start..).cloned().collect();
        let last = book.last_number;
        drop(book);
        let requests: Vec<_> = kept.iter().map(|record| record.to_request()).collect();
        let dropped = last.saturating_sub(since) - requests.len() as u64;
        Requests {
            requests,
            last,
            dropped,
        }
    }

    /// Forgets all requests and starts counting from 0; open connections stay counted, requests in flight do
    /// not.
    pub(crate) fn reset(&self) {
        let mut book = self.lock();
        let open_connections = book.counts.open_connections;
        let forgotten = mem::take(&mut *book);
        book.counts.open_connections = open_connections;
        book.last_number = forgotten.last_number;
        book.reset_number = forgotten.last_number;
        book.connection_number = forgotten.connection_number;
        drop(book);
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        // Counting does not panic half-way.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    fn tell_apart(&mut self, hash: u64, created: bool) {
        let is_full = self.bodies.len() >= MAX_DISTINCT_BODIES;
        match self.bodies.entry(hash) {
            Entry::Occupied(mut known) => {
                let was_created = *known.get();
                *known.get_mut() |= created;
                self.counts.distinct_created += u64::from(created && !was_created);
            }
            Entry::Vacant(_) if is_full => self.counts.distinct_is_exact = false,
            Entry::Vacant(unknown) => {
                unknown.insert(created);
                self.counts.distinct_event_bodies += 1;
                self.counts.distinct_created += u64::from(created);
            }
        }
    }

    fn keep(&mut self, record: Arc<Record>) {
        self.recorded_bytes += record.bytes();
        self.records.push_back(record);
        while self.records.len() > 1
            && (self.records.len() > MAX_RECORDS || self.recorded_bytes > MAX_RECORDED_BYTES)
        {
            if let Some(oldest) = self.records.pop_front() {
                self.recorded_bytes -= oldest.bytes();
            }
        }
    }
}

/// A request in flight. Dropped without an answer, it counts as unanswered.
#[derive(Debug)]
#[must_use]
pub(crate) struct Ticket {
    received: Arc<Received>,
    number: u64,
    record: Option<Arc<Record>>,
    status: Option<u16>,
    finished: bool,
}

impl Ticket {
    /// Notes that the answer given on arrival is on its way.
    pub(crate) fn answered(mut self) {
        self.finish(true);
    }

    fn finish(&mut self, is_answered: bool) {
        if mem::replace(&mut self.finished, true) {
            return;
        }
        if let Some(record) = &self.record {
            record.finish(is_answered);
        }
        let status = self.status.filter(|_| is_answered);
        let mut book = self.received.lock();
        if self.number > book.reset_number {
            book.counts.finished(status);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.finish(false);
    }
}

/// 64 bits stand for a body: among ten million, two alike by chance are a matter of one in 300,000.
fn hash_of(arrival: &Arrival<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    arrival.project.hash(&mut hasher);
    arrival.body.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests;
