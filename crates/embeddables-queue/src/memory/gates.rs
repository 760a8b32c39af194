//! Heads and followers of order keys; see [`Gate`](crate::Gate) for what is promised.

use std::collections::BTreeSet;

use super::model::{Lane, Model};
use crate::{Gate, LaneName, OrderKey, Sequence, UnixMillis};

/// Due time of a waiting record that is due at once, whatever the caller's clock says.
pub(super) const AT_ONCE: UnixMillis = UnixMillis(1);

/// A key that has a head.
#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) head: Sequence,
    pub(super) followers: BTreeSet<Sequence>,
}

impl Lane {
    pub(super) fn head(&self, key: &OrderKey) -> Option<Sequence> {
        self.gates.get(key).map(|key| key.head)
    }

    fn make_head(&mut self, key: OrderKey, head: Sequence) -> &mut Key {
        self.gates.entry(key).or_insert_with(|| Key {
            head,
            followers: BTreeSet::new(),
        })
    }
}

/// The record that a settlement is about.
#[derive(Clone, Copy)]
pub(super) struct Subject<'a> {
    pub(super) lane: &'a LaneName,
    pub(super) key: OrderKey,
    pub(super) sequence: Sequence,
}

impl Model {
    /// Carries out the gate of a record that goes on waiting; returns until when.
    pub(super) fn wait_at_gate(&mut self, subject: Subject<'_>, gate: Gate, until: UnixMillis) -> UnixMillis {
        match gate {
            Gate::Pass => self.pass(subject),
            Gate::Open => self.open(subject),
            Gate::Lead => {
                let key = self.lane(subject.lane).make_head(subject.key, subject.sequence);
                if key.head != subject.sequence {
                    key.followers.insert(subject.sequence);
                }
            }
            Gate::Follow { head } => return self.follow(subject, head, until),
            Gate::Line { head } => return self.line_up(subject, head, until),
        }
        until
    }

    /// Carries out the gate of a record that leaves.
    pub(super) fn leave_gate(&mut self, subject: Subject<'_>, gate: Gate) {
        match gate {
            Gate::Open => self.open(subject),
            Gate::Pass | Gate::Lead | Gate::Follow { .. } | Gate::Line { .. } => self.pass(subject),
        }
    }

    fn pass(&mut self, subject: Subject<'_>) {
        let gates = &mut self.lane(subject.lane).gates;
        let Some(key) = gates.get_mut(&subject.key) else {
            return;
        };
        if key.head != subject.sequence {
            key.followers.remove(&subject.sequence);
            return;
        }
        match key.followers.pop_first() {
            Some(next) => {
                key.head = next;
                self.make_due(next);
            }
            None => {
                gates.remove(&subject.key);
            }
        }
    }

    fn open(&mut self, subject: Subject<'_>) {
        let Some(key) = self.lane(subject.lane).gates.remove(&subject.key) else {
            return;
        };
        for sequence in key.followers.into_iter().chain([key.head]) {
            if sequence != subject.sequence {
                self.make_due(sequence);
            }
        }
    }

    fn follow(&mut self, subject: Subject<'_>, named: Option<Sequence>, until: UnixMillis) -> UnixMillis {
        let head = self
            .lane(subject.lane)
            .head(&subject.key)
            .or_else(|| named.filter(|named| self.is_leased_with(*named, subject)))
            .filter(|head| *head != subject.sequence);
        let Some(head) = head else {
            return AT_ONCE;
        };
        self.lane(subject.lane)
            .make_head(subject.key, head)
            .followers
            .insert(subject.sequence);
        until
    }

    fn line_up(&mut self, subject: Subject<'_>, named: Option<Sequence>, until: UnixMillis) -> UnixMillis {
        let own = subject.sequence;
        let head = self
            .lane(subject.lane)
            .head(&subject.key)
            .or_else(|| named.filter(|named| self.is_leased_with(*named, subject)));
        let follows =
            head.filter(|head| *head != own && (*head < own || self.is_leased_with(*head, subject)));
        if let Some(head) = follows {
            self.lane(subject.lane)
                .make_head(subject.key, head)
                .followers
                .insert(own);
            return until;
        }
        let key = self.lane(subject.lane).make_head(subject.key, own);
        key.followers.insert(key.head);
        key.followers.insert(own);
        let Some(oldest) = key.followers.pop_first() else {
            unreachable!("its own sequence was put in");
        };
        key.head = oldest;
        if oldest == own {
            return AT_ONCE;
        }
        self.make_due(oldest);
        until
    }

    /// Whether a record is of the subject's lane and key, and leased now.
    fn is_leased_with(&self, sequence: Sequence, subject: Subject<'_>) -> bool {
        self.records.get(&sequence).is_some_and(|held| {
            held.leased.is_some() && held.record.lane == *subject.lane && held.record.order_key == subject.key
        })
    }

    /// Makes a waiting record due at once.
    fn make_due(&mut self, sequence: Sequence) {
        let Some(held) = self.records.get_mut(&sequence) else {
            return;
        };
        let Some(until) = held.until.filter(|until| *until > AT_ONCE) else {
            return;
        };
        held.until = Some(AT_ONCE);
        let name = held.record.lane.clone();
        if held.leased.is_none()
            && let Some(lane) = self.lanes.get_mut(&name)
        {
            lane.withdraw(sequence, Some(until));
            lane.offer(sequence, Some(AT_ONCE));
        }
        self.woken.insert(name);
    }
}
