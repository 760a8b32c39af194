//! `Flush`: waits until what was accepted before the call has left the queue.
//!
//! # Invariants
//! 1. What counts was accepted before the call: up to the newest sequence of one reading of the books.
//! 2. What is said to be left is counted in the store at the end, never computed.
//! 3. Holds are not lifted; only linger is skipped.

use std::time::Duration;

use embeddables_core::ProjectId;
use embeddables_proto::events::v1 as proto;
use embeddables_queue::{Backlog, Books, LaneName, Outcome, OutcomeKind, ReadError, Sequence, Store};
use tokio::time::{Instant, MissedTickBehavior};

use crate::dispatch::board::Board;
use crate::enqueue::lane;

/// Outcomes read at once.
const PAGE: usize = 256;

/// How often lanes are told not to linger, and looked at although no outcome came.
const TICK: Duration = Duration::from_secs(1);

/// What became of the events of a flush.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flushed {
    /// Delivered meanwhile.
    pub delivered: u64,
    /// Given up meanwhile.
    pub dead_lettered: u64,
    /// Still queued.
    pub queued: u64,
    /// Waiting for another try.
    pub waiting: u64,
    /// In a held lane.
    pub held: u64,
}

impl Flushed {
    /// As the contract has it.
    pub fn to_proto(self) -> proto::FlushResponse {
        let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        proto::FlushResponse {
            delivered_count: count(self.delivered),
            dead_lettered_count: count(self.dead_lettered),
            queued_count: count(self.queued),
            waiting_count: count(self.waiting),
            held_count: count(self.held),
        }
    }
}

/// Waits until everything of these projects that is in the store now has left the queue, until `limit` has passed, or until
/// `end`; then tells what became of it.
///
/// # Errors
/// Where the store cannot be read.
///
/// # Cancel safety
/// Cancel safe: it only looks.
pub async fn flush(
    store: &dyn Store,
    board: &Board,
    projects: &[ProjectId],
    limit: Duration,
    end: impl Future<Output = ()>,
) -> Result<Flushed, ReadError> {
    let deadline = tokio::time::sleep(limit);
    let (mut deadline, mut end) = (std::pin::pin!(deadline), std::pin::pin!(end));
    // Taken before the books, so that no commit between them goes unheard.
    let mut newest = store.newest_outcome();
    let mut tally = Tally::new(projects, &store.books());
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Counting what is left may take long where much is: at most a tenth of the time goes into it.
    let mut count_at = Instant::now();
    let mut is_over = false;
    loop {
        tally.read(store).await?;
        let may_be_done = tally.left == 0 || (tally.is_blurred && Instant::now() >= count_at);
        if is_over || may_be_done {
            let begin = Instant::now();
            let left = tally.count_left(store).await?;
            let total: u64 = left.iter().map(|left| left.ready + left.waiting).sum();
            if is_over || total == 0 {
                return Ok(tally.conclude(&left, &store.books(), board));
            }
            tally.left = total;
            count_at = Instant::now() + TICK.max(begin.elapsed() * 10);
        }
        tokio::select! {
            () = &mut deadline => is_over = true,
            () = &mut end => is_over = true,
            changed = newest.changed() => is_over = changed.is_err(),
            _ = tick.tick() => {
                projects.iter().for_each(|project| board.hurry(project));
                // Nothing at all is left: whatever was missed, there is nothing to wait for.
                if tally.is_empty(&store.books()) {
                    tally.left = 0;
                }
            }
        }
    }
}

/// What is covered, and what became of it so far.
#[derive(Debug)]
struct Tally {
    projects: Vec<ProjectId>,
    lanes: Vec<LaneName>,
    /// The books of these lanes at the beginning.
    begin: Totals,
    up_to: Sequence,
    /// Number of the newest outcome that was read.
    after: u64,
    delivered: u64,
    dead_lettered: u64,
    /// How many are to leave the queue yet, at most.
    left: u64,
    /// Outcomes were evicted before they were read: what was counted is not all.
    is_blurred: bool,
}

/// Counters over some lanes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Totals {
    here: u64,
    delivered: u64,
    dead_lettered: u64,
}

impl Tally {
    fn new(projects: &[ProjectId], books: &Books) -> Self {
        let lanes: Vec<_> = projects.iter().map(lane).collect();
        let begin = Totals::of(&lanes, books);
        Self {
            projects: projects.to_vec(),
            lanes,
            begin,
            up_to: books.newest_sequence,
            after: books.outcomes.newest,
            delivered: 0,
            dead_lettered: 0,
            left: begin.here,
            is_blurred: false,
        }
    }

    /// Counts every outcome that was committed since the last call.
    async fn read(&mut self, store: &dyn Store) -> Result<(), ReadError> {
        loop {
            let page = store.outcomes(self.after, PAGE).await?;
            let Some((first, last)) = page.first().zip(page.last()) else {
                self.is_blurred |= store.books().outcomes.oldest > self.after + 1;
                return Ok(());
            };
            self.is_blurred |= first.number > self.after + 1;
            self.after = last.number;
            page.iter().for_each(|outcome| self.count(outcome));
            if page.len() < PAGE {
                return Ok(());
            }
        }
    }

    fn count(&mut self, outcome: &Outcome) {
        if outcome.sequence > self.up_to || !self.lanes.contains(&outcome.lane) {
            return;
        }
        match outcome.kind {
            OutcomeKind::Delivered => self.delivered += 1,
            OutcomeKind::DeadLettered => self.dead_lettered += 1,
            OutcomeKind::Quarantined | OutcomeKind::Discarded => {}
        }
        // A dead letter that was there before may be among them: whoever reaches zero too early is counted again.
        self.left = self.left.saturating_sub(1);
    }

    fn is_empty(&self, books: &Books) -> bool {
        Totals::of(&self.lanes, books).here == 0
    }

    /// Counts what is left in the store, lane by lane.
    async fn count_left(&self, store: &dyn Store) -> Result<Vec<Backlog>, ReadError> {
        let mut left = Vec::with_capacity(self.lanes.len());
        for lane in &self.lanes {
            left.push(store.backlog(lane, self.up_to).await?);
        }
        Ok(left)
    }

    fn conclude(&self, left: &[Backlog], books: &Books, board: &Board) -> Flushed {
        let mut flushed = Flushed::default();
        for (project, left) in self.projects.iter().zip(left) {
            if board.view(project).is_some_and(|view| view.hold.is_some()) {
                flushed.held += left.ready + left.waiting;
            } else {
                flushed.queued += left.ready;
                flushed.waiting += left.waiting;
            }
        }
        (flushed.delivered, flushed.dead_lettered) = (self.delivered, self.dead_lettered);
        if self.is_blurred {
            // Newer events are in the books too: none of ours can be more than what has gone.
            let now = Totals::of(&self.lanes, books);
            let gone = self
                .begin
                .here
                .saturating_sub(flushed.queued + flushed.waiting + flushed.held);
            let since = |now: u64, begin: u64| now.saturating_sub(begin).min(gone);
            flushed.dead_lettered = since(now.dead_lettered, self.begin.dead_lettered);
            flushed.delivered = since(now.delivered, self.begin.delivered).min(gone - flushed.dead_lettered);
        }
        flushed
    }
}

impl Totals {
    fn of(lanes: &[LaneName], books: &Books) -> Self {
        let mut totals = Self::default();
        for (_, lane) in books.lanes.iter().filter(|(name, _)| lanes.contains(name)) {
            totals.here += lane.ready + lane.waiting;
            totals.delivered += lane.delivered;
            totals.dead_lettered += lane
                .dead_lettered_total
                .iter()
                .map(|(_, count)| count)
                .sum::<u64>();
        }
        totals
    }
}

#[cfg(test)]
mod tests;
