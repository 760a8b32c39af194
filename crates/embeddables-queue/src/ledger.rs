//! What is known of ids, outcomes and totals.

use bytes::Bytes;

use crate::{Durability, LaneName, OrderKey, Sequence, UnixMillis};

/// All that is known of an id.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Place of its newest record.
    pub sequence: Sequence,
    /// When it was accepted.
    pub accept_time: UnixMillis,
    /// Durability reached when it was acknowledged.
    pub durability: Durability,
    /// Where it is.
    pub state: EntryState,
    /// Whether a lease was open when a process ended and the record was not settled since.
    pub interrupted: bool,
    /// Progress, or the note of a settled record; opaque.
    pub progress: Bytes,
}

/// Where a record is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryState {
    /// Never settled: due at once, or under its first lease.
    Ready,
    /// Due at `until`; may be leased once that has passed.
    Waiting {
        /// Due time.
        until: UnixMillis,
    },
    /// Done.
    Delivered {
        /// When.
        time: UnixMillis,
    },
    /// Given up.
    DeadLettered {
        /// When.
        time: UnixMillis,
        /// Stable code.
        reason: Box<str>,
    },
    /// Damaged on disk and set aside.
    Quarantined,
    /// Removed by an operator.
    Discarded {
        /// When.
        time: UnixMillis,
    },
}

/// How a record left the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OutcomeKind {
    /// Done.
    Delivered,
    /// Given up.
    DeadLettered,
    /// Damaged on disk and set aside.
    Quarantined,
    /// Removed by an operator.
    Discarded,
}

/// An outcome, in the order in which they were committed.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Dense number of the outcome, starting at 1.
    pub number: u64,
    /// Lane of the record.
    pub lane: LaneName,
    /// Its id.
    pub id: Box<str>,
    /// Its place.
    pub sequence: Sequence,
    /// When it happened.
    pub time: UnixMillis,
    /// What happened.
    pub kind: OutcomeKind,
    /// Stable code of a dead letter; empty otherwise.
    pub reason: Box<str>,
    /// Opaque note.
    pub note: Bytes,
}

/// A record that was given up and waits for an operator.
#[derive(Clone, Debug)]
pub struct DeadLetter {
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
    /// When it was given up.
    pub time: UnixMillis,
    /// Stable code.
    pub reason: Box<str>,
    /// Opaque progress.
    pub progress: Bytes,
    /// The bytes kept.
    pub payload: Bytes,
}

/// What is kept of a lane besides its records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneState {
    /// Whether its records grow older.
    pub ageing: bool,
    /// Opaque; empty before the first was written.
    pub note: Bytes,
}

impl Default for LaneState {
    fn default() -> Self {
        Self {
            ageing: true,
            note: Bytes::new(),
        }
    }
}

/// Which outcomes are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutcomeSpan {
    /// Number of the oldest; one more than `newest` where none is kept.
    pub oldest: u64,
    /// Number of the newest ever written; 0 before the first.
    pub newest: u64,
}

/// Records of a lane that are to be settled, up to a sequence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Never settled.
    pub ready: u64,
    /// Waiting for another try.
    pub waiting: u64,
}

/// Counters of all lanes.
#[derive(Clone, Debug, Default)]
pub struct Books {
    /// Newest sequence given out, as of the same commit as the counters.
    pub newest_sequence: Sequence,
    /// Outcomes kept, as of the same commit.
    pub outcomes: OutcomeSpan,
    /// By lane, in order of name; lanes that are no longer configured but still hold records are among them.
    pub lanes: Vec<(LaneName, LaneBooks)>,
    /// Ids forgotten before their time because of the bound on their number.
    pub evicted_ids: u64,
    /// Starts at which the store ended below its mark, so that commits may have been lost.
    pub possible_losses: u64,
}

/// Counters of one lane since the store was made. `accepted` = the sum of the other counts but `dead_lettered_total`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LaneBooks {
    /// Records taken in.
    pub accepted: u64,
    /// Delivered.
    pub delivered: u64,
    /// Among the dead letters now.
    pub dead_lettered: u64,
    /// Dead letters ever made, by reason, also those replayed or discarded since.
    pub dead_lettered_total: Vec<(Box<str>, u64)>,
    /// Removed by an operator.
    pub discarded: u64,
    /// Removed on a user's behalf.
    pub erased: u64,
    /// Damaged on disk and set aside.
    pub quarantined: u64,
    /// Never settled.
    pub ready: u64,
    /// Waiting for another try.
    pub waiting: u64,
    /// Bytes of its records and dead letters, with their overhead.
    pub used_bytes: u64,
    /// Bytes of its dead letters alone.
    pub dead_letter_bytes: u64,
}

/// Room used and room there is, in bytes of records with their overhead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// In use by records and dead letters.
    pub used_bytes: u64,
    /// Configured bound.
    pub max_bytes: u64,
}
