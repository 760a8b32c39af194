//! One group as one transaction: settlements first, then dead letters taken out, appends, and claims last.

use std::sync::Arc;

use rusqlite::Connection;

use super::command::Group;
use super::draft::{Draft, SizeBounds};
use super::state::{Effects, State, StoreRow};
use super::trouble::Trouble;
use crate::{Appended, Claimed, Durability, Refused};

/// What is written of a group, most first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Scope {
    /// All of it.
    All,
    /// All but appends: the disk is full.
    WithoutAppends,
    /// Only what ends leases: not even a lease mark finds room.
    SettlementsOnly,
}

/// How a group is to be written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    pub(super) bounds: SizeBounds,
    pub(super) dedupe_window_millis: u64,
    pub(super) dedupe_ids: u64,
    pub(super) scope: Scope,
    /// Durability that the commit reaches.
    pub(super) durability: Durability,
    /// Running time now, in milliseconds.
    pub(super) running: u64,
}

/// What the calls of a group are answered with once it is committed, in their order.
#[derive(Debug, Default)]
pub(super) struct Answers {
    pub(super) takes: Vec<usize>,
    pub(super) appends: Vec<Vec<Result<Appended, Refused>>>,
    pub(super) claims: Vec<Claimed>,
    pub(super) expired: Vec<Claimed>,
    /// Whether there is a lane of that name.
    pub(super) lane_states: Vec<bool>,
    /// Whether more old ids are to be forgotten.
    pub(super) more_to_evict: bool,
}

/// Where a transaction failed.
#[derive(Debug)]
pub(super) struct Failure {
    /// Whether the commit itself had been begun: then nobody knows what reached the disk.
    pub(super) committing: bool,
    pub(super) trouble: Trouble,
}

/// What a commit brought about.
#[derive(Debug)]
pub(super) struct Committed {
    pub(super) answers: Answers,
    pub(super) effects: Effects,
    /// Whether anything was written.
    pub(super) wrote: bool,
}

/// What a [`FaultHook`] can make fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FaultPoint {
    /// A commit.
    Commit,
    /// Copying the log back, by its keeper.
    WriteBack,
}

/// Lets tests make a step fail where no file system would on demand. Runs before it.
pub(super) type FaultHook = Arc<dyn Fn(FaultPoint, &Connection) -> rusqlite::Result<()> + Send + Sync>;

/// Writes a group as one transaction.
pub(super) fn commit(
    connection: &Connection,
    state: &State,
    group: &Group,
    terms: &Terms,
    hook: Option<&FaultHook>,
) -> Result<Committed, Failure> {
    let before = |trouble: Trouble| Failure {
        committing: false,
        trouble,
    };
    run(connection, "BEGIN IMMEDIATE").map_err(|error| before(error.into()))?;
    let changes = connection.total_changes();
    let mut draft = Draft::new(connection, state, terms.bounds, terms.durability, terms.running);
    let drafted = write(&mut draft, group, terms).and_then(|answers| {
        let wrote = connection.total_changes() != changes || !draft.effects.lane_states.is_empty();
        if wrote {
            draft.write_books()?;
        } else {
            // Numbers of claims without a mark are given out all the same.
            draft.effects.store = StoreRow {
                next_claim: draft.effects.store.next_claim,
                ..state.store
            };
        }
        Ok((answers, wrote))
    });
    let mut effects = draft.effects;
    let (answers, wrote) = match drafted {
        Ok(drafted) => drafted,
        Err(trouble) => {
            roll_back(connection);
            return Err(before(trouble));
        }
    };
    if !wrote {
        roll_back(connection);
        effects.woken.clear();
        return Ok(Committed {
            answers,
            effects,
            wrote,
        });
    }
    let hooked = hook.map_or(Ok(()), |hook| hook(FaultPoint::Commit, connection));
    match hooked.and_then(|()| run(connection, "COMMIT")) {
        Ok(()) => Ok(Committed {
            answers,
            effects,
            wrote,
        }),
        Err(error) => {
            roll_back(connection);
            Err(Failure {
                committing: true,
                trouble: error.into(),
            })
        }
    }
}

fn write(draft: &mut Draft<'_>, group: &Group, terms: &Terms) -> Result<Answers, Trouble> {
    let mut answers = Answers::default();
    if terms.scope == Scope::SettlementsOnly {
        draft.let_go_budget = 0;
    }
    for settlement in group.settles.iter().flat_map(|call| &call.settlements) {
        draft.settle(settlement)?;
    }
    draft.rewrite_marks()?;
    draft.continue_openings()?;
    for call in &group.lane_states {
        answers
            .lane_states
            .push(draft.change_lane_state(&call.lane, &call.state));
    }
    for suspected in &group.suspected {
        draft.check_suspected(suspected)?;
    }
    for call in &group.takes {
        answers.takes.push(draft.take(&call.sequences, &call.take_as)?);
    }
    if terms.scope == Scope::All && !group.appends.is_empty() {
        for call in &group.appends {
            answers.appends.push(draft.append(&call.append)?);
        }
    }
    if terms.scope != Scope::SettlementsOnly {
        for call in &group.claims {
            answers.claims.push(draft.claim(&call.claim)?);
        }
        for call in &group.expired {
            answers
                .expired
                .push(draft.claim_expired(&call.lane, call.max, call.wall)?);
        }
    }
    answers.more_to_evict = draft.evict(terms.dedupe_window_millis, terms.dedupe_ids)?;
    Ok(answers)
}

fn run(connection: &Connection, statement: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(statement)?.execute([]).map(|_| ())
}

/// Ends a transaction that failed, unless SQLite has ended it already.
pub(super) fn roll_back(connection: &Connection) {
    if !connection.is_autocommit()
        && let Err(error) = run(connection, "ROLLBACK")
    {
        tracing::warn!(%error, "a failed transaction could not be rolled back");
    }
}
