//! Letting the followers of an order key go, in steps.
//!
//! # Invariants
//! 1. One commit lets at most [`LET_GO_STEP`] followers go. The rest is noted in `openings` in the same transaction and goes on
//!    with the next commits, also after a restart.
//! 2. A key has at most one opening: a newer one takes its place.

use rusqlite::{OptionalExtension, params};

use crate::OrderKey;
use crate::sqlite::codec::{sql, unsigned};
use crate::sqlite::draft::Draft;
use crate::sqlite::trouble::Trouble;

/// Most followers that one commit makes due.
pub(in crate::sqlite) const LET_GO_STEP: usize = 256;

impl Draft<'_> {
    /// Lets all that follow a key now go: as many as this commit may at once, the rest with the next ones.
    pub(super) fn let_all_go(&mut self, lane: usize, key: &OrderKey) -> Result<(), Trouble> {
        let up_to = self
            .connection
            .prepare_cached(
                "SELECT max(sequence) FROM gates WHERE lane = ?1 AND order_key = ?2 AND head = 0",
            )?
            .query_row(params![self.lane_number(lane), key], |row| {
                row.get::<_, Option<i64>>(0)
            })?;
        self.forget_opening(lane, key)?;
        if let Some(up_to) = up_to.map(unsigned)
            && let Some(reached) = self.let_go(lane, key, 0, up_to)?
        {
            self.connection
                .prepare_cached(
                    "INSERT INTO openings (lane, order_key, reached, up_to) VALUES (?1, ?2, ?3, ?4)",
                )?
                .execute(params![self.lane_number(lane), key, sql(reached), sql(up_to)])?;
            self.effects.has_openings = Some(true);
        }
        Ok(())
    }

    /// Goes on letting followers go, as far as this commit may.
    pub(in crate::sqlite) fn continue_openings(&mut self) -> Result<(), Trouble> {
        while self.has_openings() && self.let_go_budget > 0 {
            let opening = self
                .connection
                .prepare_cached(
                    "SELECT number, lane, order_key, reached, up_to FROM openings ORDER BY number LIMIT 1",
                )?
                .query_row([], |row| {
                    let key: OrderKey = row.get(2)?;
                    Ok((
                        row.get::<_, i64>(0)?,
                        row.get::<_, i64>(1)?,
                        key,
                        row.get(3)?,
                        row.get(4)?,
                    ))
                })
                .optional()?;
            let Some((number, lane, key, reached, up_to)) = opening else {
                self.effects.has_openings = Some(false);
                break;
            };
            let left = match self.lane_of(lane) {
                Some(lane) => {
                    let left = self.let_go(lane, &key, unsigned(reached), unsigned(up_to))?;
                    self.review_gates(lane, &key)?;
                    left
                }
                None => None,
            };
            match left {
                Some(reached) => self
                    .connection
                    .prepare_cached("UPDATE openings SET reached = ?2 WHERE number = ?1")?
                    .execute(params![number, sql(reached)])?,
                None => self
                    .connection
                    .prepare_cached("DELETE FROM openings WHERE number = ?1")?
                    .execute([number])?,
            };
        }
        Ok(())
    }

    /// Makes followers due within a range of sequences; returns how far it came, where the commit may do no more.
    fn let_go(
        &mut self,
        lane: usize,
        key: &OrderKey,
        after: u64,
        up_to: u64,
    ) -> Result<Option<u64>, Trouble> {
        let number = self.lane_number(lane);
        let mut followers: Vec<u64> = self
            .connection
            .prepare_cached(
                "SELECT sequence FROM gates
                 WHERE lane = ?1 AND order_key = ?2 AND head = 0 AND sequence > ?3 AND sequence <= ?4
                 ORDER BY sequence LIMIT ?5",
            )?
            .query_map(
                params![
                    number,
                    key,
                    sql(after),
                    sql(up_to),
                    sql(self.let_go_budget as u64 + 1)
                ],
                |row| row.get(0).map(unsigned),
            )?
            .collect::<rusqlite::Result<_>>()?;
        let is_last = followers.len() <= self.let_go_budget;
        followers.truncate(self.let_go_budget);
        self.let_go_budget -= followers.len();
        let reached = followers.last().copied().unwrap_or(after);
        self.connection
            .prepare_cached(
                "DELETE FROM gates
                 WHERE lane = ?1 AND order_key = ?2 AND head = 0 AND sequence > ?3 AND sequence <= ?4",
            )?
            .execute(params![number, key, sql(after), sql(reached)])?;
        for follower in followers {
            self.make_due(lane, key, follower)?;
        }
        Ok((!is_last).then_some(reached))
    }

    fn forget_opening(&self, lane: usize, key: &OrderKey) -> Result<(), Trouble> {
        if self.has_openings() {
            self.connection
                .prepare_cached("DELETE FROM openings WHERE lane = ?1 AND order_key = ?2")?
                .execute(params![self.lane_number(lane), key])?;
        }
        Ok(())
    }

    /// Whether any key is still being let go.
    pub(super) fn has_openings(&self) -> bool {
        self.effects.has_openings.unwrap_or(self.state.has_openings)
    }
}
