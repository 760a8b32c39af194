//! Settlements, dead letters taken out, and what is forgotten of both in the end.

use bytes::Bytes;

use super::gates::{AT_ONCE, Subject};
use super::model::{Dead, Held, Model};
use crate::clock::whole_millis;
use crate::{
    Disposition, Gate, LaneName, NewRecord, Outcome, OutcomeKind, Sequence, Settlement, TakeAs, UnixMillis,
};

impl Model {
    pub(super) fn settle(&mut self, settlement: Settlement) {
        let Settlement {
            sequence,
            claim,
            disposition,
            gate,
        } = settlement;
        let Some(held) = self.records.get_mut(&sequence) else {
            return;
        };
        if held.leased.is_none_or(|leased| leased.claim != claim) {
            return;
        }
        let (name, key) = (held.record.lane.clone(), held.record.order_key);
        let subject = Subject {
            lane: &name,
            key,
            sequence,
        };
        match disposition {
            Disposition::Release => {
                held.leased = None;
                let until = held.until;
                self.lane(&name).offer(sequence, until);
                self.woken.insert(name);
            }
            Disposition::Wait { until, progress } => {
                self.wait(subject, gate, until.max(AT_ONCE), progress);
            }
            Disposition::Delivered { time, note } => {
                let Some(held) = self.leave(subject, gate) else {
                    return;
                };
                self.lane(&name).books.delivered += 1;
                self.note(sequence, &held.record, time, OutcomeKind::Delivered, "", note);
            }
            Disposition::DeadLetter {
                time,
                reason,
                progress,
            } => {
                let Some(mut held) = self.leave(subject, gate) else {
                    return;
                };
                held.progress = progress;
                self.bury(sequence, Dead { held, time, reason });
            }
        }
    }

    fn wait(&mut self, subject: Subject<'_>, gate: Gate, until: UnixMillis, progress: Bytes) {
        let Some(mut held) = self.records.remove(&subject.sequence) else {
            return;
        };
        self.uncount(&held);
        let until = self.wait_at_gate(subject, gate, until);
        held.leased = None;
        held.interrupted = false;
        held.until = Some(until);
        held.progress = progress;
        let lane = self.lane(subject.lane);
        lane.books.used_bytes += held.bytes();
        lane.books.waiting += 1;
        lane.offer(subject.sequence, held.until);
        self.records.insert(subject.sequence, held);
        if self.is_over(subject.lane, until) {
            self.woken.insert(subject.lane.clone());
        }
    }

    /// Whether a due time has passed, as far as the claims of the lane have told the time.
    fn is_over(&mut self, name: &LaneName, until: UnixMillis) -> bool {
        let running = self.running();
        let last_now = self.lane(name).last_now;
        until <= AT_ONCE
            || last_now.is_some_and(|(now, then)| {
                let since = i64::try_from(running.saturating_sub(then)).unwrap_or(i64::MAX);
                until.0 <= now.0.saturating_add(since)
            })
    }

    /// Takes a record out of the queue.
    fn leave(&mut self, subject: Subject<'_>, gate: Gate) -> Option<Held> {
        let mut held = self.records.remove(&subject.sequence)?;
        self.uncount(&held);
        self.leave_gate(subject, gate);
        if let Some(time) = held.record.deadline.take() {
            self.lane(subject.lane)
                .deadlines
                .remove(&(time, subject.sequence));
        }
        held.leased = None;
        held.interrupted = false;
        Some(held)
    }

    /// Takes a record out of `ready` or `waiting` and out of the room used.
    fn uncount(&mut self, held: &Held) {
        let books = &mut self.lane(&held.record.lane).books;
        books.used_bytes -= held.bytes();
        *(if held.until.is_some() {
            &mut books.waiting
        } else {
            &mut books.ready
        }) -= 1;
    }

    fn bury(&mut self, sequence: Sequence, dead: Dead) {
        let Dead { held, time, reason } = &dead;
        self.note(
            sequence,
            &held.record,
            *time,
            OutcomeKind::DeadLettered,
            reason,
            held.progress.clone(),
        );
        let books = &mut self.lane(&held.record.lane).books;
        books.dead_lettered += 1;
        books.used_bytes += held.bytes();
        books.dead_letter_bytes += held.bytes();
        match books
            .dead_lettered_total
            .binary_search_by(|(known, _)| known.cmp(reason))
        {
            Ok(place) => books.dead_lettered_total[place].1 += 1,
            Err(place) => books.dead_lettered_total.insert(place, (reason.clone(), 1)),
        }
        self.dead.insert(sequence, dead);
    }

    fn note(
        &mut self,
        sequence: Sequence,
        record: &NewRecord,
        time: UnixMillis,
        kind: OutcomeKind,
        reason: &str,
        note: Bytes,
    ) {
        let number = self.next_outcome;
        self.next_outcome += 1;
        let outcome = Outcome {
            number,
            lane: record.lane.clone(),
            id: record.id.clone(),
            sequence,
            time,
            kind,
            reason: reason.into(),
            note,
        };
        self.outcomes.insert(number, (outcome, self.running()));
        self.outcome_of.insert(sequence, number);
    }

    /// Takes a dead letter out; `false` where it is not there.
    pub(super) fn take(&mut self, sequence: Sequence, take_as: &TakeAs) -> bool {
        let Some(Dead { held, .. }) = self.dead.remove(&sequence) else {
            return false;
        };
        let books = &mut self.lane(&held.record.lane).books;
        books.dead_lettered -= 1;
        books.used_bytes -= held.bytes();
        books.dead_letter_bytes -= held.bytes();
        match take_as {
            TakeAs::Discard { time } => {
                books.discarded += 1;
                self.note(
                    sequence,
                    &held.record,
                    *time,
                    OutcomeKind::Discarded,
                    "",
                    Bytes::new(),
                );
            }
            TakeAs::Replay { progress } => {
                self.insert(held.record, progress.clone());
            }
        }
        true
    }

    /// Forgets outcomes that are too old or too many, and the ids of settled records with them.
    pub(super) fn evict(&mut self) {
        let (now, window) = (self.running(), whole_millis(self.config.dedupe_window));
        while let Some((&number, (outcome, written))) = self.outcomes.first_key_value() {
            let aged = now.saturating_sub(*written) >= window;
            if !aged && self.next_outcome - number <= self.config.dedupe_ids {
                return;
            }
            let key = (outcome.lane.clone(), outcome.id.clone());
            let (sequence, kind) = (outcome.sequence, outcome.kind);
            self.outcomes.remove(&number);
            if self.outcome_of.get(&sequence) == Some(&number) {
                self.outcome_of.remove(&sequence);
            }
            if kind != OutcomeKind::DeadLettered
                && self.ids.get(&key).is_some_and(|known| known.sequence == sequence)
            {
                self.ids.remove(&key);
                self.evicted_ids += u64::from(!aged);
            }
        }
    }
}
