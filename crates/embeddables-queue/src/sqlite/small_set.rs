//! A set that is known as long as it is small: what spares the usual record a look into a table of unusual ones.

use std::hash::Hash;

use foldhash::HashSet;

/// Members known at most.
pub(super) const KNOWN_AT_MOST: usize = 1_024;

/// Members of a set, or that there are too many to know.
#[derive(Debug)]
pub(super) struct SmallSet<T> {
    /// Empty while not whole.
    members: HashSet<T>,
    is_whole: bool,
}

impl<T> Default for SmallSet<T> {
    fn default() -> Self {
        Self {
            members: HashSet::default(),
            is_whole: true,
        }
    }
}

impl<T: Eq + Hash> SmallSet<T> {
    /// Whether something may be a member; `false` is certain.
    pub(super) fn may_hold(&self, member: &T) -> bool {
        !self.is_whole || self.members.contains(member)
    }

    /// Whether there is certainly no member.
    pub(super) fn is_empty(&self) -> bool {
        self.is_whole && self.members.is_empty()
    }

    /// Whether all members are known.
    pub(super) fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// Adds or removes a member.
    pub(super) fn set(&mut self, member: T, is_member: bool) {
        if !self.is_whole {
            return;
        }
        if !is_member {
            self.members.remove(&member);
            return;
        }
        self.members.insert(member);
        if self.members.len() > KNOWN_AT_MOST {
            self.members = HashSet::default();
            self.is_whole = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_that_grew_too_large_may_hold_anything() {
        let mut set = SmallSet::default();
        assert!(set.is_empty() && !set.may_hold(&1));
        for member in 0..KNOWN_AT_MOST {
            set.set(member, true);
        }
        assert!(set.is_whole() && set.may_hold(&1) && !set.may_hold(&KNOWN_AT_MOST));
        set.set(1, false);
        assert!(!set.may_hold(&1));
        for member in 0..=KNOWN_AT_MOST {
            set.set(member, true);
        }
        assert!(!set.is_whole() && !set.is_empty() && set.may_hold(&usize::MAX));
        set.set(5, false);
        assert!(set.may_hold(&5), "it is not known any more");
    }
}
