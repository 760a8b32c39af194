//! What goes in and what comes out under a lease.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

/// Name of a lane. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LaneName(Arc<str>);

impl LaneName {
    /// Names a lane.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LaneName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Place of a record in the order of commits. Starts at 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sequence(pub u64);

/// Wall time in milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UnixMillis(pub i64);

/// How safe an appended record is, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Durability {
    /// In memory: lost with the process, or with the machine where the volume is one of memory.
    Memory,
    /// Written, not synced: survives the process, not a power cut.
    Buffered,
    /// Written and synced: survives a power cut as long as the volume does.
    Fsynced,
    /// On at least three replicas.
    Replicated,
}

/// Keyed hash of a record's content: what a repeat of its id is compared with.
pub type Fingerprint = [u8; 16];

/// Records with the same key belong to the same subject; a hash, so that it says nothing by itself.
pub type OrderKey = [u8; 16];

/// A record to append.
#[derive(Clone, Debug)]
pub struct NewRecord {
    /// Its lane.
    pub lane: LaneName,
    /// Its id, unique within the lane: 1 to 64 bytes.
    pub id: Box<str>,
    /// What a repeat is compared with.
    pub fingerprint: Fingerprint,
    /// Whom it is about.
    pub order_key: OrderKey,
    /// When it was accepted.
    pub accept_time: UnixMillis,
    /// Wall time from which [`Queue::claim_expired`](crate::Queue::claim_expired) hands it out; `None` for never.
    pub deadline: Option<UnixMillis>,
    /// The bytes to keep.
    pub payload: Bytes,
}

/// A call of `append`.
#[derive(Clone, Debug)]
pub struct Append {
    /// The records.
    pub records: Vec<NewRecord>,
    /// Least durability to return with.
    pub durability: Durability,
    /// Whether to take none where one is refused.
    pub atomic: bool,
}

/// A record that was taken, or had been before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Its place.
    pub sequence: Sequence,
    /// Durability reached; of a duplicate that of its first acknowledgement.
    pub durability: Durability,
    /// Whether the id was known with the same fingerprint; nothing was added.
    pub duplicate: bool,
}

/// Why one record was not taken; nothing of it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// The id is known with another fingerprint.
    #[error("the id was accepted before with another content")]
    Conflict,
    /// The queue is at its configured size. Retry once records settle.
    #[error("queue full: {used_bytes} of {capacity_bytes} bytes in use, {requested_bytes} requested")]
    Full {
        /// Bytes in use.
        used_bytes: u64,
        /// Configured bound.
        capacity_bytes: u64,
        /// Bytes that this record needs.
        requested_bytes: u64,
    },
    /// The lane is at its share of the queue. Retry once records of this lane settle; other lanes are not concerned.
    #[error("lane full: {used_bytes} of {share_bytes} bytes in use")]
    LaneFull {
        /// Bytes that the lane's records and dead letters use.
        used_bytes: u64,
        /// Its share.
        share_bytes: u64,
    },
    /// The lane's dead letters are at their share of the queue: nothing is taken until an operator replays or discards some.
    #[error("dead letters full: {used_bytes} of {share_bytes} bytes in use")]
    DeadLettersFull {
        /// Bytes that the lane's dead letters use.
        used_bytes: u64,
        /// Their share.
        share_bytes: u64,
    },
    /// The lane is not one of those that the store was opened with.
    #[error("no such lane")]
    UnknownLane,
    /// Another record of the same atomic call was refused.
    #[error("another record of the same call was refused")]
    NotAlone,
}

/// A call of `claim`.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The lane.
    pub lane: LaneName,
    /// Most records.
    pub max: NonZeroUsize,
    /// Most of them that were settled to a wait before; the others have never been settled.
    pub max_waiting: usize,
    /// Percent of `max` that go first to records accepted since the lane fell behind, where it has; the rest goes to what
    /// was there before. What one part leaves over the other may use. 0 keeps to the order of sequence.
    pub live_percent: u8,
    /// Time against which due times are held.
    pub now: UnixMillis,
}

/// What a claim found.
#[derive(Debug, Default)]
pub struct Claimed {
    /// The leases, in the order in which to try them.
    pub leases: Vec<Lease>,
    /// Whether more records are due now.
    pub more: bool,
    /// When the next waiting record is due; `None` where none waits. Meaningful where `more` is false. In the past where
    /// `max_waiting` alone kept due ones from being claimed.
    pub next_due: Option<UnixMillis>,
}

/// A record handed out. It stays leased until settled or until the process ends.
#[derive(Debug)]
#[must_use = "a lease must end in a settlement"]
pub struct Lease {
    /// Claim under which it is leased; goes back with the settlement.
    pub claim: u64,
    /// Its place.
    pub sequence: Sequence,
    /// Its lane.
    pub lane: LaneName,
    /// Its id.
    pub id: Box<str>,
    /// Whom it is about.
    pub order_key: OrderKey,
    /// When it was accepted.
    pub accept_time: UnixMillis,
    /// For how long the store has been open with the lane ageing ([`LaneState::ageing`](crate::LaneState::ageing)) since the
    /// record was accepted or replayed, over all restarts; down time does not count.
    pub age: Duration,
    /// What the last settlement noted; empty before the first.
    pub progress: Bytes,
    /// The bytes kept.
    pub payload: Bytes,
    /// Whether an earlier lease was open when a process ended: what became of that try is unknown.
    pub interrupted: bool,
    /// Whether another record is the head of its order key: then it must not be tried, and no mark of this lease is on disk.
    /// Settle it to a wait with [`Gate::Follow`](crate::Gate::Follow).
    pub behind: bool,
}
