//! The guard that travels with a leased event.

use embeddables_queue::{Lease, Sequence, Settlement};
use prometheus_client::metrics::counter::Counter;

use super::rules::Decision;

/// A leased event whose fate is not decided yet. It ends in [`InFlight::conclude`] or [`InFlight::leave_open`].
///
/// Dropped without either it would stay leased, unseen, until the next start: a bug, which panics in debug builds and
/// is counted and logged as an error in release builds.
#[derive(Debug)]
#[must_use = "an event in flight must be concluded"]
pub struct InFlight {
    sequence: Sequence,
    claim: u64,
    concluded: bool,
    lost: Counter,
}

impl InFlight {
    /// Takes charge of a lease; `lost` counts should it be dropped.
    pub fn new(lease: &Lease, lost: Counter) -> Self {
        Self {
            sequence: lease.sequence,
            claim: lease.claim,
            concluded: false,
            lost,
        }
    }

    /// Its place in the queue.
    pub fn sequence(&self) -> Sequence {
        self.sequence
    }

    /// Ends it with what becomes of the event.
    pub fn conclude(mut self, decision: Decision) -> Settlement {
        self.concluded = true;
        Settlement {
            sequence: self.sequence,
            claim: self.claim,
            disposition: decision.disposition,
            gate: decision.gate,
        }
    }

    /// Leaves the lease open because the process ends: the next start finds it and knows that its fate is unknown.
    pub fn leave_open(mut self) {
        self.concluded = true;
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.concluded || std::thread::panicking() {
            return;
        }
        self.lost.inc();
        tracing::error!(
            sequence = self.sequence.0,
            "an event in flight was dropped: it stays leased until the next start"
        );
        debug_assert!(
            self.concluded,
            "an event in flight was dropped without a settlement"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use embeddables_queue::{Disposition, Gate, LaneName, OrderKey, UnixMillis};
    use std::time::Duration;

    fn lease() -> Lease {
        Lease {
            claim: 3,
            sequence: Sequence(7),
            lane: LaneName::new("pr_a"),
            id: "id".into(),
            order_key: OrderKey::default(),
            accept_time: UnixMillis(0),
            age: Duration::ZERO,
            progress: bytes::Bytes::new(),
            payload: bytes::Bytes::new(),
            interrupted: false,
            behind: false,
        }
    }

    #[test]
    fn a_conclusion_names_the_lease() {
        let decision = Decision {
            disposition: Disposition::Release,
            gate: Gate::Pass,
        };
        let settlement = InFlight::new(&lease(), Counter::default()).conclude(decision);
        assert_eq!((settlement.sequence, settlement.claim), (Sequence(7), 3));
    }

    #[test]
    #[cfg_attr(debug_assertions, should_panic(expected = "without a settlement"))]
    fn dropping_it_unsettled_is_a_bug() {
        drop(InFlight::new(&lease(), Counter::default()));
        #[cfg(not(debug_assertions))]
        assert!(!cfg!(debug_assertions), "release builds only log");
    }
}
