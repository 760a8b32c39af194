//! Bugs that are planted to prove that the simulation finds them. Each is put in at a seam: the store, the way upstream, or the
//! settings of a lane; the code under test has no hook for them.

/// A planted bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Planted {
    /// An append is answered before it is committed.
    AcknowledgeBeforeCommit,
    /// What was leased at a crash is never handed out again.
    LeaseKeptAtRestart,
    /// A crash can come between a settlement and its receipt.
    ReceiptInAnotherTransaction,
    /// A held lane's events grow older.
    AgeSpentWhileHeld,
    /// The success of a canary does not make its followers due.
    CanaryWakesOnlyItself,
    /// When a canary is given up nobody takes its place.
    NoSuccessor,
    /// `Retry-After` is not looked at while other attempts are under way.
    RetryAfterIgnoredUnderLoad,
    /// What was under way at a crash is not known to be ambiguous.
    AmbiguityForgottenAtRestart,
    /// A half-open breaker lets two attempts through.
    HalfOpenLetsTwoThrough,
    /// In an ordered lane a head that waits does not keep the others back.
    OrderLostOnRetry,
    /// One outcome is left out of a page.
    CursorSkipsOne,
    /// An id is known only some time after its event was accepted.
    DedupeAfterAcceptance,
    /// An attempt that timed out does not give its place back.
    PermitLeaked,
    /// The lane does not know which key an answer belongs to.
    OldKeyHolds,
    /// While one lane has work another gets none.
    LaneStarvesAnother,
}

impl Planted {
    /// Every planted bug.
    pub(crate) const ALL: [Self; 15] = [
        Self::AcknowledgeBeforeCommit,
        Self::LeaseKeptAtRestart,
        Self::ReceiptInAnotherTransaction,
        Self::AgeSpentWhileHeld,
        Self::CanaryWakesOnlyItself,
        Self::NoSuccessor,
        Self::RetryAfterIgnoredUnderLoad,
        Self::AmbiguityForgottenAtRestart,
        Self::HalfOpenLetsTwoThrough,
        Self::OrderLostOnRetry,
        Self::CursorSkipsOne,
        Self::DedupeAfterAcceptance,
        Self::PermitLeaked,
        Self::OldKeyHolds,
        Self::LaneStarvesAnother,
    ];
}
