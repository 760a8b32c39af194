//! Heads and followers of order keys within a draft; see [`Gate`](crate::Gate) for what is promised.
//!
//! # Invariants
//! 1. A record whose key has neither head nor followers costs nothing here, as long as few keys of its lane have: memory knows
//!    which.
//! 2. A head is believed only while its record is there; a head without a record is forgotten and its oldest follower takes
//!    over, so that no damage and no older release can block a key.
//! 3. Followers are let go in steps, so that no commit grows with how many there are ([`openings`]).

mod openings;

use rusqlite::{OptionalExtension, params};

use super::codec::{Checksum, record_checksum, sql, unsigned};
use super::draft::Draft;
use super::rows::Read;
use super::trouble::Trouble;
use crate::{Gate, OrderKey, Sequence};

pub(super) use self::openings::LET_GO_STEP;

/// Due time of a waiting record that is due at once, whatever the caller's clock says.
pub(super) const AT_ONCE: i64 = 1;

/// What the index of the gates names is not in their table.
const STRAY_INDEX: Trouble = Trouble::Damaged {
    what: "the index names a head or follower that is not there",
};

/// The record that a settlement is about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject {
    pub(super) lane: usize,
    pub(super) key: OrderKey,
    pub(super) sequence: u64,
}

impl Draft<'_> {
    /// Carries out the gate of a record that goes on waiting; returns until when.
    pub(super) fn wait_at_gate(&mut self, subject: Subject, gate: Gate, until: i64) -> Result<i64, Trouble> {
        match gate {
            Gate::Pass => self.pass_gate(subject)?,
            Gate::Open => self.open_gate(subject)?,
            Gate::Lead => {
                let head = self.head(subject.lane, &subject.key)?;
                if head != Some(subject.sequence) {
                    self.set_gate(subject, head.is_none())?;
                }
            }
            Gate::Follow { head } => return self.follow(subject, head, until),
            Gate::Line { head } => return self.line_up(subject, head, until),
        }
        Ok(until)
    }

    /// Carries out the gate of a record that leaves.
    pub(super) fn leave_gate(&mut self, subject: Subject, gate: Gate) -> Result<(), Trouble> {
        match gate {
            Gate::Open => self.open_gate(subject),
            Gate::Pass | Gate::Lead | Gate::Follow { .. } | Gate::Line { .. } => self.pass_gate(subject),
        }
    }

    /// Whether a record must not be tried because another one is the head of its key.
    pub(super) fn is_behind(&mut self, lane: usize, key: &OrderKey, sequence: u64) -> Result<bool, Trouble> {
        Ok(self.head(lane, key)?.is_some_and(|head| head != sequence))
    }

    /// Takes a record out of the gates; where it was a head, its oldest follower takes over.
    pub(super) fn pass_gate(&mut self, subject: Subject) -> Result<(), Trouble> {
        if self.may_be_gated(subject.lane, &subject.key) {
            self.pass_any_gate(subject.lane, subject.sequence)?;
        }
        Ok(())
    }

    /// As [`Draft::pass_gate`], of a record whose key is not to be trusted; `false` where it was neither head nor follower.
    pub(super) fn pass_any_gate(&mut self, lane: usize, sequence: u64) -> Result<bool, Trouble> {
        let found = self
            .connection
            .prepare_cached("SELECT order_key, head FROM gates WHERE sequence = ?1")?
            .query_row([sql(sequence)], |row| {
                Ok((row.get::<_, OrderKey>(0)?, row.get::<_, bool>(1)?))
            })
            .optional()?;
        let Some((key, is_head)) = found else {
            return Ok(false);
        };
        self.remove_gate(sequence)?;
        if is_head {
            self.promote(lane, &key)?;
        }
        self.review_gates(lane, &key)?;
        Ok(true)
    }

    /// Lets all followers of a key go, and forgets its head.
    fn open_gate(&mut self, subject: Subject) -> Result<(), Trouble> {
        let Subject { lane, key, sequence } = subject;
        if !self.may_be_gated(lane, &key) {
            return Ok(());
        }
        while let Some(head) = self.first_gate(lane, &key, true)? {
            if !self.remove_gate(head)? {
                return Err(STRAY_INDEX);
            }
            if head != sequence {
                self.make_due(lane, &key, head)?;
            }
        }
        self.remove_gate(sequence)?;
        self.let_all_go(lane, &key)?;
        self.review_gates(lane, &key)
    }

    fn follow(&mut self, subject: Subject, named: Option<Sequence>, until: i64) -> Result<i64, Trouble> {
        match self.head(subject.lane, &subject.key)? {
            Some(head) if head == subject.sequence => return Ok(AT_ONCE),
            Some(_) => {}
            None => {
                let Some(head) = named.filter(|named| self.can_lead(named.0, subject)) else {
                    if self.may_be_gated(subject.lane, &subject.key) {
                        self.remove_gate(subject.sequence)?;
                    }
                    return Ok(AT_ONCE);
                };
                let head = Subject {
                    sequence: head.0,
                    ..subject
                };
                self.set_gate(head, true)?;
            }
        }
        // One that an opening has not come to yet is let go by it once more: that costs a claim, not an order.
        self.set_gate(subject, false)?;
        Ok(until)
    }

    fn line_up(&mut self, subject: Subject, named: Option<Sequence>, until: i64) -> Result<i64, Trouble> {
        let Subject { lane, key, sequence } = subject;
        let known = self.head(lane, &key)?;
        let named = named.map(|named| named.0);
        let head = known.or(named.filter(|named| self.can_lead(*named, subject)));
        let other = head.filter(|head| *head != sequence).map(|head| Subject {
            sequence: head,
            ..subject
        });
        if let Some(head) = other {
            let follows = head.sequence < sequence || self.is_leased(head.sequence);
            self.set_gate(head, follows)?;
            if follows {
                self.set_gate(subject, false)?;
                return Ok(until);
            }
        }
        self.set_gate(subject, false)?;
        while let Some(oldest) = self
            .first_gate(lane, &key, false)?
            .filter(|oldest| *oldest < sequence)
        {
            if !self.remove_gate(oldest)? {
                return Err(STRAY_INDEX);
            }
            if self.make_due(lane, &key, oldest)? {
                let head = Subject {
                    sequence: oldest,
                    ..subject
                };
                self.set_gate(head, true)?;
                return Ok(until);
            }
        }
        self.set_gate(subject, true)?;
        Ok(AT_ONCE)
    }

    /// Whether another record of the subject's lane and key is under a lease.
    fn can_lead(&self, sequence: u64, subject: Subject) -> bool {
        sequence != subject.sequence
            && self
                .lease_mark(sequence)
                .is_some_and(|mark| mark.lane == subject.lane && mark.order_key == subject.key)
    }

    /// The head of a key.
    fn head(&mut self, lane: usize, key: &OrderKey) -> Result<Option<u64>, Trouble> {
        while self.may_be_gated(lane, key) {
            let Some(head) = self.first_gate(lane, key, true)? else {
                return Ok(None);
            };
            let is_here = self
                .connection
                .prepare_cached("SELECT 1 FROM records WHERE sequence = ?1 AND lane = ?2 AND order_key = ?3")?
                .exists(params![sql(head), self.lane_number(lane), key])?;
            if is_here {
                return Ok(Some(head));
            }
            tracing::warn!(
                head,
                "the head of an order key is gone: its oldest follower takes over"
            );
            if !self.pass_any_gate(lane, head)? {
                return Err(STRAY_INDEX);
            }
        }
        Ok(None)
    }

    /// Makes the oldest follower of a key its head, and due at once.
    fn promote(&mut self, lane: usize, key: &OrderKey) -> Result<(), Trouble> {
        while let Some(follower) = self.first_gate(lane, key, false)? {
            if !self.remove_gate(follower)? {
                return Err(STRAY_INDEX);
            }
            if self.make_due(lane, key, follower)? {
                let head = Subject {
                    lane,
                    key: *key,
                    sequence: follower,
                };
                return self.set_gate(head, true);
            }
        }
        Ok(())
    }

    /// The head of a key as its row says, or its oldest follower that no opening is about to let go.
    fn first_gate(&self, lane: usize, key: &OrderKey, is_head: bool) -> Result<Option<u64>, Trouble> {
        let number = self.lane_number(lane);
        let opening: Option<(i64, i64)> = if !is_head && self.has_openings() {
            self.connection
                .prepare_cached("SELECT reached, up_to FROM openings WHERE lane = ?1 AND order_key = ?2")?
                .query_row(params![number, key], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?
        } else {
            None
        };
        let (reached, up_to) = opening.unwrap_or((0, 0));
        Ok(self
            .connection
            .prepare_cached(
                "SELECT sequence FROM gates
                 WHERE lane = ?1 AND order_key = ?2 AND head = ?3 AND (sequence <= ?4 OR sequence > ?5)
                 ORDER BY sequence LIMIT 1",
            )?
            .query_row(params![number, key, is_head, reached, up_to], |row| row.get(0))
            .optional()?
            .map(unsigned))
    }

    /// Makes a waiting record of a key due at once; `false` where it is not there, or damaged and moved to quarantine. It is no
    /// head and no follower any more.
    fn make_due(&mut self, lane: usize, key: &OrderKey, sequence: u64) -> Result<bool, Trouble> {
        let row = match self.read_record(sequence)? {
            Some(Read::Good(row)) if row.lane == self.lane_number(lane) && row.order_key == *key => row,
            Some(Read::Damaged) if !self.is_leased(sequence) => {
                self.quarantine_record(sequence, lane)?;
                return Ok(false);
            }
            _ => return Ok(false),
        };
        if row.due > AT_ONCE {
            let body = Checksum::resume(row.body_checksum);
            let crc = record_checksum(body, AT_ONCE, sql(row.settled_claim), &row.progress);
            self.connection
                .prepare_cached("UPDATE records SET due = ?2, crc = ?3 WHERE sequence = ?1")?
                .execute(params![sql(sequence), AT_ONCE, crc])?;
            self.effects.woken.insert(lane);
        }
        Ok(true)
    }

    fn set_gate(&mut self, subject: Subject, is_head: bool) -> Result<(), Trouble> {
        self.connection
            .prepare_cached(
                "INSERT OR REPLACE INTO gates (sequence, lane, order_key, head) VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute(params![
                sql(subject.sequence),
                self.lane_number(subject.lane),
                subject.key,
                is_head
            ])?;
        self.effects.gated_keys.insert((subject.lane, subject.key), true);
        Ok(())
    }

    /// Takes a record out of the gates and nothing more; `false` where it was neither head nor follower.
    fn remove_gate(&self, sequence: u64) -> Result<bool, Trouble> {
        let removed = self
            .connection
            .prepare_cached("DELETE FROM gates WHERE sequence = ?1")?
            .execute([sql(sequence)])?;
        Ok(removed > 0)
    }

    /// Looks whether a key still has a head or followers, after one was removed.
    fn review_gates(&mut self, lane: usize, key: &OrderKey) -> Result<(), Trouble> {
        let number = self.lane_number(lane);
        let is_gated = self
            .connection
            .prepare_cached("SELECT 1 FROM gates WHERE lane = ?1 AND order_key = ?2 LIMIT 1")?
            .exists(params![number, key])?;
        self.effects.gated_keys.insert((lane, *key), is_gated);
        if !is_gated && !self.state.lanes[lane].gated_keys.is_whole() {
            let any_left = self
                .connection
                .prepare_cached("SELECT 1 FROM gates WHERE lane = ?1 LIMIT 1")?
                .exists([number])?;
            if !any_left {
                self.effects.ungated.insert(lane);
            }
        }
        Ok(())
    }

    /// Whether a key may have a head or followers.
    fn may_be_gated(&self, lane: usize, key: &OrderKey) -> bool {
        let known = self.effects.gated_keys.get(&(lane, *key)).copied();
        known.unwrap_or_else(|| self.state.lanes[lane].gated_keys.may_hold(key))
    }
}
