//! Which identifiers have an event under way, so that of one that may be unknown upstream only one is tried, and in an ordered
//! lane only the oldest.
//!
//! # Invariants
//! 1. In an ordered lane an identifier has at most one event under way, from its claim until its settlement is on disk.
//! 2. Else the same holds until one of its events was delivered; from then on they go out side by side until upstream does not
//!    know the identifier any more.
//! 3. Memory is bounded: by the attempts under way, and by [`REMEMBERED`] identifiers known to be good. A forgotten one costs one
//!    round trip.

use std::collections::{HashMap, HashSet};

use embeddables_queue::{OrderKey, Sequence};

/// Identifiers remembered as known upstream, in each of two generations.
const REMEMBERED: usize = 8_192;

/// The identifiers of one lane.
#[derive(Debug)]
pub(super) struct Identifiers {
    ordered: bool,
    under_way: HashMap<OrderKey, Sequence>,
    /// Known upstream: those seen lately, and those seen before them.
    known: HashSet<OrderKey>,
    known_before: HashSet<OrderKey>,
}

impl Identifiers {
    pub(super) fn new(ordered: bool) -> Self {
        Self {
            ordered,
            under_way: HashMap::new(),
            known: HashSet::new(),
            known_before: HashSet::new(),
        }
    }

    /// Takes an event up.
    ///
    /// # Errors
    /// With the event that it has to wait for.
    pub(super) fn take_up(&mut self, key: OrderKey, sequence: Sequence) -> Result<(), Sequence> {
        if !self.ordered && (self.known.contains(&key) || self.known_before.contains(&key)) {
            return Ok(());
        }
        match self.under_way.get(&key) {
            Some(head) if *head != sequence => Err(*head),
            _ => {
                self.under_way.insert(key, sequence);
                Ok(())
            }
        }
    }

    /// Notes whether upstream knows the identifier.
    pub(super) fn learn(&mut self, key: OrderKey, is_known: bool) {
        if !is_known {
            self.known.remove(&key);
            self.known_before.remove(&key);
        } else if !self.ordered && self.known.insert(key) && self.known.len() >= REMEMBERED {
            self.known_before = std::mem::take(&mut self.known);
        }
    }

    /// Notes that what became of an event is on disk.
    pub(super) fn let_go(&mut self, key: OrderKey, sequence: Sequence) {
        if self.under_way.get(&key) == Some(&sequence) {
            self.under_way.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: OrderKey = [1; 16];

    #[test]
    fn of_an_unknown_identifier_one_is_tried_and_of_a_known_one_all() {
        let mut identifiers = Identifiers::new(false);
        assert_eq!(identifiers.take_up(KEY, Sequence(1)), Ok(()));
        assert_eq!(identifiers.take_up(KEY, Sequence(2)), Err(Sequence(1)));
        assert_eq!(identifiers.take_up([2; 16], Sequence(3)), Ok(()), "another identifier");
        identifiers.learn(KEY, true);
        assert_eq!(identifiers.take_up(KEY, Sequence(2)), Ok(()));
        identifiers.let_go(KEY, Sequence(1));
        identifiers.learn(KEY, false);
        assert_eq!(identifiers.take_up(KEY, Sequence(4)), Ok(()));
        assert_eq!(identifiers.take_up(KEY, Sequence(5)), Err(Sequence(4)));
    }

    #[test]
    fn in_an_ordered_lane_a_success_changes_nothing_before_it_is_on_disk() {
        let mut identifiers = Identifiers::new(true);
        assert_eq!(identifiers.take_up(KEY, Sequence(1)), Ok(()));
        identifiers.learn(KEY, true);
        assert_eq!(identifiers.take_up(KEY, Sequence(2)), Err(Sequence(1)));
        identifiers.let_go(KEY, Sequence(2));
        assert_eq!(identifiers.take_up(KEY, Sequence(2)), Err(Sequence(1)), "not the one under way");
        identifiers.let_go(KEY, Sequence(1));
        assert_eq!(identifiers.take_up(KEY, Sequence(2)), Ok(()));
    }

    #[test]
    fn memory_is_bounded() {
        let mut identifiers = Identifiers::new(false);
        for number in 0..100_000_u64 {
            let mut key = [0; 16];
            key[..8].copy_from_slice(&number.to_le_bytes());
            identifiers.learn(key, true);
        }
        assert!(identifiers.known.len() + identifiers.known_before.len() <= 2 * REMEMBERED);
    }
}
