//! What becomes of a leased record, and of a dead letter.

use bytes::Bytes;

use crate::{Sequence, UnixMillis};

/// The end of one lease.
#[derive(Clone, Debug)]
pub struct Settlement {
    /// The record.
    pub sequence: Sequence,
    /// The claim under which it was leased.
    pub claim: u64,
    /// What becomes of it.
    pub disposition: Disposition,
}

/// What becomes of a leased record.
#[derive(Clone, Debug)]
pub enum Disposition {
    /// Done: the payload goes, the note stays in the ledger.
    Delivered {
        /// When.
        time: UnixMillis,
        /// Opaque: receipt and attempts.
        note: Bytes,
    },
    /// Kept, to be claimed again from `until` on.
    Wait {
        /// Due time; also the past is allowed: then it is due at once.
        until: UnixMillis,
        /// Opaque: replaces the former progress.
        progress: Bytes,
    },
    /// Given up: moved with its payload to the dead letters.
    DeadLetter {
        /// When.
        time: UnixMillis,
        /// Stable code, at most 64 bytes.
        reason: Box<str>,
        /// Opaque: replaces the former progress.
        progress: Bytes,
    },
    /// The lease is given back untouched: nothing was tried, the record is as it was before the claim.
    Release,
}

/// What a dead letter is taken for.
#[derive(Clone, Debug)]
pub enum TakeAs {
    /// Appended again as the newest record of its lane, with a new sequence and this progress; id and accept time stay.
    Replay {
        /// Opaque: replaces the former progress.
        progress: Bytes,
    },
    /// Removed for good; the ledger says so, and a repeat of its id is a new record.
    Discard {
        /// When.
        time: UnixMillis,
    },
}
