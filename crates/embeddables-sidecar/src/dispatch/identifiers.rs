//! Which identifiers have an event under way, so that of one that may be unknown upstream only one is tried, and in an ordered
//! lane only the oldest.
//!
//! # Invariants
//! 1. In an ordered lane an identifier has at most one event under way, and none while what became of another of its leases is not
//!    on disk: the queue knows their order, and is asked again.
//! 2. Else at most one of an identifier is under way until one of its events was delivered; from then on they go out side by side
//!    until upstream does not know the identifier any more.
//! 3. Memory is bounded: by the leases held, and by [`REMEMBERED`] identifiers of each kind. A forgotten one costs one round
//!    trip.

use embeddables_queue::{OrderKey, Sequence};
// The keys are hashes already, which nobody can choose without the store's secret.
use foldhash::{HashMap, HashSet};

/// Identifiers remembered as known upstream, in each of two generations.
const REMEMBERED: usize = 8_192;

/// Leases of one identifier whose end is not on disk yet.
#[derive(Debug, Default)]
struct Outstanding {
    under_way: Option<Sequence>,
    /// In an ordered lane: those that wait in line.
    in_line: Vec<Sequence>,
}

/// The identifiers of one lane.
#[derive(Debug)]
pub(super) struct Identifiers {
    ordered: bool,
    outstanding: HashMap<OrderKey, Outstanding>,
    /// Known upstream: those seen lately, and those seen before them.
    known: HashSet<OrderKey>,
    known_before: HashSet<OrderKey>,
    /// Upstream said last that it does not know them; `true`: an event was given up for that.
    unknown: HashMap<OrderKey, bool>,
}

/// The event is not to be tried now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Occupied {
    /// The event under way, where it is that.
    pub(super) by: Option<Sequence>,
}

impl Identifiers {
    pub(super) fn new(ordered: bool) -> Self {
        Self {
            ordered,
            outstanding: HashMap::default(),
            known: HashSet::default(),
            known_before: HashSet::default(),
            unknown: HashMap::default(),
        }
    }

    /// Takes an event up to be tried, or confirms that it still may be.
    ///
    /// # Errors
    /// Where another one of its identifier comes first; then it stands in line until [`Identifiers::let_go`].
    pub(super) fn take_up(&mut self, key: OrderKey, sequence: Sequence) -> Result<(), Occupied> {
        if !self.ordered && (self.known.contains(&key) || self.known_before.contains(&key)) {
            return Ok(());
        }
        let outstanding = self.outstanding.entry(key).or_default();
        if outstanding.under_way.is_none() && outstanding.in_line.is_empty() {
            outstanding.under_way = Some(sequence);
        }
        let by = outstanding.under_way;
        if by == Some(sequence) {
            return Ok(());
        }
        if self.ordered && !outstanding.in_line.contains(&sequence) {
            outstanding.in_line.push(sequence);
        }
        Err(Occupied { by })
    }

    /// Notes that an event stands in line: it goes back to the queue without having been tried.
    pub(super) fn line_up(&mut self, key: OrderKey, sequence: Sequence) {
        if self.ordered {
            self.outstanding.entry(key).or_default().in_line.push(sequence);
        }
    }

    /// Notes whether upstream knows the identifier.
    pub(super) fn learn(&mut self, key: OrderKey, is_known: bool) {
        if !is_known {
            self.known.remove(&key);
            self.known_before.remove(&key);
            if self.unknown.len() >= REMEMBERED {
                // Who comes after them waits a little longer.
                self.unknown.clear();
            }
            self.unknown.entry(key).or_default();
            return;
        }
        self.unknown.remove(&key);
        if !self.ordered && self.known.insert(key) && self.known.len() >= REMEMBERED {
            self.known_before = std::mem::take(&mut self.known);
        }
    }

    /// Notes that an event was given up because upstream does not know its identifier.
    pub(super) fn give_up(&mut self, key: OrderKey) {
        if let Some(is_given_up) = self.unknown.get_mut(&key) {
            *is_given_up = true;
        }
    }

    /// Whether upstream said last that it does not know an identifier.
    pub(super) fn is_unknown(&self, key: OrderKey) -> bool {
        self.unknown.contains_key(&key)
    }

    /// Whether an event was given up for that.
    pub(super) fn is_given_up(&self, key: OrderKey) -> bool {
        self.unknown.get(&key).copied().unwrap_or(false)
    }

    /// Notes that what became of an event is on disk.
    pub(super) fn let_go(&mut self, key: OrderKey, sequence: Sequence) {
        let Some(outstanding) = self.outstanding.get_mut(&key) else {
            return;
        };
        outstanding.under_way.take_if(|under_way| *under_way == sequence);
        outstanding.in_line.retain(|other| *other != sequence);
        if outstanding.under_way.is_none() && outstanding.in_line.is_empty() {
            self.outstanding.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: OrderKey = [1; 16];
    const OCCUPIED: Occupied = Occupied {
        by: Some(Sequence(1)),
    };

    #[test]
    fn of_an_unknown_identifier_one_is_tried_and_of_a_known_one_all() {
        let mut identifiers = Identifiers::new(false);
        assert_eq!(identifiers.take_up(KEY, Sequence(1)), Ok(()));
        assert_eq!(identifiers.take_up(KEY, Sequence(2)), Err(OCCUPIED));
        assert_eq!(
            identifiers.take_up([2; 16], Sequence(3)),
            Ok(()),
            "another identifier"
        );
        identifiers.learn(KEY, true);
        assert_eq!(identifiers.take_up(KEY, Sequence(2)), Ok(()));
        identifiers.let_go(KEY, Sequence(1));
        identifiers.learn(KEY, false);
        assert_eq!(identifiers.take_up(KEY, Sequence(4)), Ok(()));
        assert_eq!(
            identifiers.take_up(KEY, Sequence(5)),
            Err(Occupied {
                by: Some(Sequence(4))
            })
        );
    }

    #[test]
    fn in_an_ordered_lane_a_success_changes_nothing_before_it_is_on_disk() {
        let mut identifiers = Identifiers::new(true);
        assert_eq!(identifiers.take_up(KEY, Sequence(1)), Ok(()));
        identifiers.learn(KEY, true);
        assert_eq!(identifiers.take_up(KEY, Sequence(2)), Err(OCCUPIED));
        identifiers.let_go(KEY, Sequence(1));
        assert_eq!(
            identifiers.take_up(KEY, Sequence(3)),
            Err(Occupied { by: None }),
            "the second one is on its way to the queue"
        );
        identifiers.let_go(KEY, Sequence(2));
        identifiers.let_go(KEY, Sequence(3));
        identifiers.line_up(KEY, Sequence(2));
        assert_eq!(identifiers.take_up(KEY, Sequence(3)), Err(Occupied { by: None }));
        identifiers.let_go(KEY, Sequence(2));
        identifiers.let_go(KEY, Sequence(3));
        assert_eq!(identifiers.take_up(KEY, Sequence(2)), Ok(()));
        identifiers.let_go(KEY, Sequence(2));
        assert!(identifiers.outstanding.is_empty());
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
