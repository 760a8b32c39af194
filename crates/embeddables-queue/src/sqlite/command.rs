//! What callers ask of the writer, and how calls are gathered into one commit.

use std::num::NonZeroUsize;

use tokio::sync::oneshot;

use crate::{
    Append, AppendError, Appended, Claim, ClaimError, Claimed, LaneName, LaneState, Refused, Sequence,
    SettleError, Settlement, TakeAs, UnixMillis,
};

/// Answer to an append: one result a record, or a failure of the whole call.
pub(super) type AppendAnswer = Result<Vec<Result<Appended, Refused>>, AppendError>;

/// A call of `append`.
#[derive(Debug)]
pub(super) struct AppendCall {
    pub(super) append: Append,
    pub(super) reply: oneshot::Sender<AppendAnswer>,
}

/// A call of `claim`.
#[derive(Debug)]
pub(super) struct ClaimCall {
    pub(super) claim: Claim,
    pub(super) reply: oneshot::Sender<Result<Claimed, ClaimError>>,
}

/// A call of `claim_expired`.
#[derive(Debug)]
pub(super) struct ExpiredCall {
    pub(super) lane: LaneName,
    pub(super) max: NonZeroUsize,
    pub(super) wall: UnixMillis,
    pub(super) reply: oneshot::Sender<Result<Claimed, ClaimError>>,
}

/// A call of `write_lane_state`.
#[derive(Debug)]
pub(super) struct LaneStateCall {
    pub(super) lane: LaneName,
    pub(super) state: LaneState,
    pub(super) reply: oneshot::Sender<Result<(), SettleError>>,
}

/// A call of `settle`.
#[derive(Debug)]
pub(super) struct SettleCall {
    pub(super) settlements: Vec<Settlement>,
    pub(super) reply: oneshot::Sender<Result<(), SettleError>>,
}

/// A call of `take`, at most [`TAKE_STEP`] sequences long.
#[derive(Debug)]
pub(super) struct TakeCall {
    pub(super) sequences: Vec<Sequence>,
    pub(super) take_as: TakeAs,
    pub(super) reply: oneshot::Sender<Result<usize, SettleError>>,
}

/// Most rows that bulk work moves in one commit.
pub(super) const TAKE_STEP: usize = 256;

/// What is asked besides appends. It has a channel of its own, so that a flood of appends does not hold up deliveries.
#[derive(Debug)]
pub(super) enum Control {
    /// Lease records.
    Claim(ClaimCall),
    /// Lease records whose deadline has passed.
    ClaimExpired(ExpiredCall),
    /// Write the state of a lane.
    WriteLaneState(LaneStateCall),
    /// End leases.
    Settle(SettleCall),
    /// Take dead letters out.
    Take(TakeCall),
    /// Say that the loop goes round.
    Ping(oneshot::Sender<()>),
    /// A reader found a row whose checksum is wrong.
    Quarantine(Vec<Suspected>),
    /// A reader found the file damaged.
    Salvage,
    /// Finish and end.
    Close(oneshot::Sender<()>),
}

/// A row that a reader found damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Suspected {
    /// In `records`.
    Record(u64),
    /// In `dead_letters`.
    DeadLetter(u64),
    /// In `outcomes`, by number.
    Outcome(u64),
}

/// Calls that are committed as one transaction.
#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) settles: Vec<SettleCall>,
    pub(super) takes: Vec<TakeCall>,
    pub(super) suspected: Vec<Suspected>,
    pub(super) appends: Vec<AppendCall>,
    pub(super) claims: Vec<ClaimCall>,
    pub(super) expired: Vec<ExpiredCall>,
    pub(super) lane_states: Vec<LaneStateCall>,
    pub(super) pings: Vec<oneshot::Sender<()>>,
    pub(super) closes: Vec<oneshot::Sender<()>>,
    pub(super) salvage: bool,
    /// Calls in it.
    pub(super) call_count: usize,
    /// Records that its appends name.
    pub(super) append_count: usize,
    /// Records that its other calls name, at most.
    pub(super) control_count: usize,
}

impl Group {
    /// Adds a call that is not an append.
    pub(super) fn push(&mut self, control: Control) {
        self.call_count += 1;
        match control {
            Control::Claim(call) => {
                self.control_count = self.control_count.saturating_add(call.claim.max.get());
                self.claims.push(call);
            }
            Control::ClaimExpired(call) => {
                self.control_count = self.control_count.saturating_add(call.max.get());
                self.expired.push(call);
            }
            Control::WriteLaneState(call) => self.lane_states.push(call),
            Control::Settle(call) => {
                self.control_count = self.control_count.saturating_add(call.settlements.len());
                self.settles.push(call);
            }
            Control::Take(call) => {
                self.control_count = self.control_count.saturating_add(call.sequences.len());
                self.takes.push(call);
            }
            Control::Ping(reply) => self.pings.push(reply),
            Control::Quarantine(rows) => {
                self.control_count = self.control_count.saturating_add(rows.len());
                self.suspected.extend(rows);
            }
            Control::Salvage => self.salvage = true,
            Control::Close(reply) => self.closes.push(reply),
        }
    }

    /// Adds an append.
    pub(super) fn push_append(&mut self, call: AppendCall) {
        self.call_count += 1;
        self.append_count += call.append.records.len();
        self.appends.push(call);
    }

    /// Whether nothing of it touches the store.
    pub(super) fn is_idle(&self) -> bool {
        self.settles.is_empty()
            && self.takes.is_empty()
            && self.suspected.is_empty()
            && self.appends.is_empty()
            && self.claims.is_empty()
            && self.expired.is_empty()
            && self.lane_states.is_empty()
            && !self.salvage
    }

    /// Whether only appends were asked for: then waiting for more of them delays nobody else.
    pub(super) fn only_appends(&self) -> bool {
        !self.appends.is_empty()
            && self.settles.is_empty()
            && self.takes.is_empty()
            && self.claims.is_empty()
            && self.expired.is_empty()
            && self.lane_states.is_empty()
            && self.pings.is_empty()
            && self.closes.is_empty()
    }
}
