//! How the slots of a claim are divided between the kinds of records that are there: live, old, waiting.
//!
//! # Invariants
//! 1. No slot is left empty while a record within the bounds is there.
//! 2. Where a kind's part is less than one slot a claim, it gets one every few claims: no kind starves, unless the caller's
//!    percentage leaves nothing to it.
//! 3. The same calls have the same result: what is carried over is all the state there is.

use std::num::NonZeroUsize;

/// Bounds of a claim.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Most records.
    pub(crate) max: NonZeroUsize,
    /// Most waiting ones.
    pub(crate) max_waiting: usize,
    /// Percent of the slots that live ones get first; 0 = live ones are as old ones.
    pub(crate) live_percent: u8,
}

/// Records by kind: how many are there (counted up to one more than fit), or how many are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Kinds {
    /// Never settled, accepted since the lane fell behind.
    pub(crate) live: usize,
    /// Never settled, from before.
    pub(crate) old: usize,
    /// Waiting, and due.
    pub(crate) waiting: usize,
}

impl Kinds {
    /// Whether a claim with the same bounds would find any that was left by this one.
    pub(crate) fn leaves_more(&self, found: &Self, bounds: &Bounds) -> bool {
        let is_bounded = self.waiting >= bounds.max_waiting && bounds.max_waiting < bounds.max.get();
        self.live < found.live || self.old < found.old || (self.waiting < found.waiting && !is_bounded)
    }
}

/// What is carried over from claim to claim of a lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Turns {
    /// Hundredths of a slot that live ones got in advance, by rounding up; less than a slot.
    live_advance: u64,
    /// Whether waiting ones are owed half a slot, by rounding down.
    waiting_owed: bool,
}

impl Turns {
    /// Divides the slots.
    pub(crate) fn divide(&mut self, bounds: &Bounds, found: &Kinds) -> Kinds {
        let max = bounds.max.get();
        if bounds.live_percent == 0 {
            let all = found.live.saturating_add(found.old);
            let (never_settled, waiting) = self.divide_backlog(max, bounds, all, found.waiting);
            let old = found.old.min(never_settled);
            return Kinds {
                live: never_settled - old,
                old,
                waiting,
            };
        }
        let first = if found.live > 0 && (found.old > 0 || found.waiting > 0) {
            self.live_slots(max, bounds.live_percent).min(found.live)
        } else {
            0
        };
        let (old, waiting) = self.divide_backlog(max - first, bounds, found.old, found.waiting);
        Kinds {
            live: found.live.min(max - old - waiting),
            old,
            waiting,
        }
    }

    fn live_slots(&mut self, max: usize, percent: u8) -> usize {
        let percent = u64::from(percent.min(100));
        // More slots than that are never filled.
        let earned = (max as u64).min(1 << 40) * percent;
        let slots = earned.saturating_sub(self.live_advance).div_ceil(100);
        self.live_advance = (self.live_advance + slots * 100).saturating_sub(earned);
        usize::try_from(slots).unwrap_or(max).min(max)
    }

    /// Never-settled ones and waiting ones: half of the slots each, and what the other leaves.
    fn divide_backlog(
        &mut self,
        slots: usize,
        bounds: &Bounds,
        never_settled: usize,
        waiting: usize,
    ) -> (usize, usize) {
        let half = if never_settled > 0 && waiting > 0 && bounds.max_waiting > 0 {
            let half = slots / 2 + usize::from(self.waiting_owed && slots % 2 == 1);
            self.waiting_owed ^= slots % 2 == 1;
            half
        } else {
            0
        };
        let waiting = waiting.min(bounds.max_waiting);
        let never_settled = never_settled.min(slots - waiting.min(half));
        (never_settled, waiting.min(slots - never_settled))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bounds(max: usize, max_waiting: usize, live_percent: u8) -> Bounds {
        Bounds {
            max: NonZeroUsize::new(max).unwrap(),
            max_waiting,
            live_percent,
        }
    }

    #[track_caller]
    fn check(bounds: Bounds, found: (usize, usize, usize), expected: (usize, usize, usize)) {
        let (live, old, waiting) = found;
        let taken = Turns::default().divide(&bounds, &Kinds { live, old, waiting });
        assert_eq!(
            (taken.live, taken.old, taken.waiting),
            expected,
            "{bounds:?}, {found:?}"
        );
    }

    #[test]
    fn live_ones_get_their_percentage_and_the_backlog_is_halved() {
        check(bounds(10, 10, 50), (99, 99, 99), (5, 3, 2));
        check(bounds(10, 10, 51), (99, 99, 99), (6, 2, 2));
        check(bounds(10, 1, 50), (99, 99, 99), (5, 4, 1));
        check(bounds(10, 0, 100), (99, 99, 99), (10, 0, 0));
    }

    #[test]
    fn what_one_kind_leaves_the_others_use() {
        check(bounds(10, 10, 50), (2, 99, 99), (2, 4, 4));
        check(bounds(10, 10, 50), (99, 1, 1), (8, 1, 1));
        check(bounds(10, 10, 50), (99, 0, 99), (5, 0, 5));
        check(bounds(10, 3, 50), (0, 1, 99), (0, 1, 3));
        check(bounds(10, 10, 50), (99, 0, 0), (10, 0, 0));
    }

    #[test]
    fn without_a_percentage_live_ones_come_after_old_ones() {
        check(bounds(10, 10, 0), (99, 2, 99), (3, 2, 5));
        check(bounds(10, 10, 0), (99, 99, 0), (0, 10, 0));
    }

    #[test]
    fn single_slots_take_turns() {
        let (mut turns, bounds) = (Turns::default(), bounds(1, 1, 25));
        let found = Kinds {
            live: 2,
            old: 2,
            waiting: 2,
        };
        let mut taken = Kinds::default();
        for _ in 0..80 {
            let Kinds { live, old, waiting } = turns.divide(&bounds, &found);
            taken.live += live;
            taken.old += old;
            taken.waiting += waiting;
        }
        assert_eq!((taken.live, taken.old, taken.waiting), (20, 30, 30));
    }

    proptest! {
        #[test]
        fn no_slot_is_wasted_and_no_bound_broken(
            claims in proptest::collection::vec(
                ((1_usize..9, 0_usize..9, 0_u8..=100), (0_usize..12, 0_usize..12, 0_usize..12)), 1..20),
        ) {
            let mut turns = Turns::default();
            for ((max, max_waiting, percent), (live, old, waiting)) in claims {
                let (bounds, found) = (bounds(max, max_waiting, percent), Kinds { live, old, waiting });
                let taken = turns.divide(&bounds, &found);
                prop_assert!(taken.live <= live && taken.old <= old && taken.waiting <= waiting.min(max_waiting));
                let all = taken.live + taken.old + taken.waiting;
                prop_assert_eq!(all, max.min(live + old + waiting.min(max_waiting)));
            }
        }

        #[test]
        fn no_kind_starves(max in 1_usize..5, percent in 0_u8..100) {
            let (mut turns, bounds) = (Turns::default(), bounds(max, max, percent));
            let found = Kinds { live: 9, old: 9, waiting: 9 };
            let taken: Vec<Kinds> = (0..200).map(|_| turns.divide(&bounds, &found)).collect();
            prop_assert!(taken.iter().any(|kinds| kinds.waiting > 0));
            prop_assert!(taken.iter().any(|kinds| kinds.old > 0));
            prop_assert!(percent == 0 || taken.iter().any(|kinds| kinds.live > 0));
        }
    }
}
