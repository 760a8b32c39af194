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
    /// What that means for the records of the same order key.
    pub gate: Gate,
}

/// What a settlement means for the records of the same lane and order key.
///
/// A key has at most one *head*. While it has one, its other records are claimed as [`behind`](crate::Lease::behind) and wait as
/// *followers*. A head outlives restarts; it need not be settled to become one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Gate {
    /// It is no head any more, nor a follower. Was it the head, its oldest follower becomes the head and is due at once.
    #[default]
    Pass,
    /// The key has no head any more, whoever it was: all its followers, and a head that waits, are due at once.
    Open,
    /// With [`Disposition::Wait`]: it is the head of its key; where another record is, it follows that one.
    Lead,
    /// With [`Disposition::Wait`]: it follows the head of its key. Where there is none, the record named becomes the head if it
    /// is under a lease now; where that is not so either, or it is the head itself, there is nothing to wait for: it is due at
    /// once.
    Follow {
        /// Record to follow where the key has no head.
        head: Option<Sequence>,
    },
    /// With [`Disposition::Wait`]: it stands in line with the records of its key, in the order of sequence. It follows the head,
    /// or the record named where there is none and that is under a lease now. But it takes the place of a head that is younger
    /// and not under a lease; and where there is none to follow, the oldest that stands in line becomes the head and is due at
    /// once.
    Line {
        /// Record to follow where the key has no head.
        head: Option<Sequence>,
    },
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
    /// Appended again as the newest record of its lane, with a new sequence, this progress, an age of zero and no deadline; id
    /// and accept time stay.
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
