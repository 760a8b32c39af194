//! A durable queue of opaque records: lanes, leases, dead letters and a ledger of ids.
//!
//! Third room of the sidecar's flow seen from below: `enqueue` appends, `dispatch` claims, `settle` settles. What a record
//! means is unknown here; it is bytes with a lane, an id, an order key and a time.
//!
//! # Invariants
//! Every backend keeps them; the conformance suite cites them by number.
//! 1. `append` returns `Ok` for a record only once it is as durable as asked ([`Durability`]).
//! 2. Sequence numbers rise in commit order and are never reused, not even after a restart.
//! 3. A record is leased at most once at a time, and the lease of one that may be tried is durable before `claim` returns it.
//! 4. Such a lease that was open when the process ended is reported as [`Lease::interrupted`] until the record is settled.
//! 5. A settlement, what it writes into the ledger and the move of the books are one transaction.
//! 6. An id is unique within its lane from acceptance until its entry is evicted; a repeat adds nothing.
//! 7. For each lane: accepted = delivered + dead-lettered + discarded + erased + quarantined + ready + waiting ([`Books`]).
//! 8. A damaged record is quarantined and counted, never returned and never silently skipped.
//! 9. While an order key has a head ([`Gate`]), no other of its records is handed out to be tried; no follower is ever left
//!    without a head and without a due time.
//!
//! Absent on purpose: retry rules, clocks of its own for due times (the caller passes `now`), priorities, events.

mod clock;
mod error;
mod ledger;
mod record;
mod running;
mod settlement;
mod turns;

pub mod memory;
pub mod sqlite;

use std::num::NonZeroUsize;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::{Notify, watch};

pub use clock::{MonotonicClock, RunningClock};
pub use error::{AppendError, BoxError, ClaimError, OpenError, ReadError, SettleError};
pub use ledger::{
    Backlog, Books, Capacity, DeadLetter, Entry, EntryState, LaneBooks, LaneState, Outcome, OutcomeKind,
    OutcomeSpan,
};
pub use record::{
    Append, Appended, Claim, Claimed, Durability, Fingerprint, LaneName, Lease, NewRecord, OrderKey, Refused,
    Sequence, UnixMillis,
};
pub use settlement::{Disposition, Gate, Settlement, TakeAs};

/// Bytes that a record counts for besides its payload and progress: its row, index entry and ledger entry.
pub const RECORD_OVERHEAD_BYTES: u64 = 256;

/// Takes records in, hands them out under a lease and takes back what became of them.
#[async_trait]
pub trait Queue: Send + Sync + 'static {
    /// Appends records, each on its own merits unless [`Append::atomic`]; one result a record, in order.
    ///
    /// # Errors
    /// As a whole where storage refuses: nothing of the call is acknowledged then. After [`AppendError::DurabilityUnknown`]
    /// a record may still come back after a crash; a repeat with the same id is safe.
    ///
    /// # Cancel safety
    /// Dropping the future loses the answer, not the records: they may have been appended.
    async fn append(&self, append: Append) -> Result<Vec<Result<Appended, Refused>>, AppendError>;

    /// Leases records of a lane that are due: never settled ones in order of sequence, and waiting ones in order of their due
    /// time. Where there are more of both than fit, waiting ones get half of what is not kept for live ones.
    ///
    /// # Errors
    /// Where the lease could not be made durable; then nothing is leased.
    ///
    /// # Cancel safety
    /// Not cancel safe: leases of a dropped call stay open until the process ends.
    async fn claim(&self, claim: Claim) -> Result<Claimed, ClaimError>;

    /// Leases up to `max` records of a lane whose deadline is at `wall` or before, whether they are due or not, in order of
    /// their deadline; `next_due` is the next deadline. Nothing of them is to be tried, so no mark of the leases is on disk.
    ///
    /// # Errors
    /// Where the store could not be read; then nothing is leased.
    ///
    /// # Cancel safety
    /// As [`Queue::claim`].
    async fn claim_expired(
        &self,
        lane: &LaneName,
        max: NonZeroUsize,
        wall: UnixMillis,
    ) -> Result<Claimed, ClaimError>;

    /// Writes what became of leased records, in one transaction. A settlement of a record that is not leased under that claim
    /// (settled already, or removed by an operator) changes nothing.
    ///
    /// # Errors
    /// Where nothing could be written: the leases are still open and the same call can be repeated.
    async fn settle(&self, settlements: Vec<Settlement>) -> Result<(), SettleError>;

    /// Writes the state of a lane. Its records stop to grow older, or go on, from the commit on.
    ///
    /// # Errors
    /// Where nothing could be written; the former state stands.
    async fn write_lane_state(&self, lane: &LaneName, state: LaneState) -> Result<(), SettleError>;

    /// Is notified after each commit that added records to the lane or made some due at once.
    fn lane_ready(&self, lane: &LaneName) -> Arc<Notify>;

    /// Returns once the loop that writes has gone round: the liveness probe.
    ///
    /// # Errors
    /// Where the loop has ended.
    async fn ping(&self) -> Result<(), ReadError>;

    /// Durabilities on offer, weakest first.
    fn durabilities(&self) -> &[Durability];

    /// Room used and room there is.
    fn capacity(&self) -> Capacity;

    /// Finishes what was handed over, syncs and closes. Later calls fail as closed.
    async fn close(&self);
}

/// Knows ids, their outcomes and the books.
#[async_trait]
pub trait Ledger: Send + Sync + 'static {
    /// All that is known of an id.
    ///
    /// # Errors
    /// Where storage cannot be read.
    async fn find(&self, lane: &LaneName, id: &str) -> Result<Option<Entry>, ReadError>;

    /// Outcomes with a number greater than `after`, oldest first, at most `limit`.
    ///
    /// # Errors
    /// Where storage cannot be read.
    async fn outcomes(&self, after: u64, limit: usize) -> Result<Vec<Outcome>, ReadError>;

    /// Counters of every lane as of the newest commit.
    fn books(&self) -> Books;

    /// State of a lane as of the newest commit; the default where none was written.
    fn lane_state(&self, lane: &LaneName) -> LaneState;

    /// Tells the number of the newest outcome after each commit that wrote one.
    fn newest_outcome(&self) -> watch::Receiver<u64>;

    /// Counts the records of a lane that are still to be settled and whose sequence is at most `up_to`. May take a second
    /// where millions are queued.
    ///
    /// # Errors
    /// Where storage cannot be read.
    async fn backlog(&self, lane: &LaneName, up_to: Sequence) -> Result<Backlog, ReadError>;

    /// Time of acceptance of each lane's oldest record that is still here.
    ///
    /// # Errors
    /// Where storage cannot be read.
    async fn oldest(&self) -> Result<Vec<(LaneName, UnixMillis)>, ReadError>;

    /// A random secret made with the store and kept in it: the key for fingerprints.
    fn secret(&self) -> [u8; 32];
}

/// Lists what was given up and takes it back.
#[async_trait]
pub trait DeadLetters: Send + Sync + 'static {
    /// Dead letters after `after`, in order of sequence, at most `limit`.
    ///
    /// # Errors
    /// Where storage cannot be read.
    async fn list(
        &self,
        lane: Option<&LaneName>,
        after: Sequence,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, ReadError>;

    /// Takes dead letters out: back into the queue as its newest records, or discarded. Returns how many were still there.
    ///
    /// # Errors
    /// Where nothing could be written.
    async fn take(&self, sequences: &[Sequence], take_as: TakeAs) -> Result<usize, SettleError>;
}

/// All of it: what a backend is.
pub trait Store: Queue + Ledger + DeadLetters {}

impl<T: Queue + Ledger + DeadLetters> Store for T {}
