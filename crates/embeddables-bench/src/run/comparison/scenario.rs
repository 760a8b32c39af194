//! What is measured: each scenario is one load, given to the null server and to the sidecar alike.

/// Most events sent in batches where deliveries are waited for, for each second of a measurement.
const BATCH_WHOLE_WAY_PER_SECOND: f64 = 10_000.0;

/// One load on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scenario {
    /// Its name, unique.
    pub(crate) name: &'static str,
    /// Calls under way.
    pub(crate) callers: u32,
    /// Connections that they share.
    pub(crate) connections: u32,
    /// Events a call; `None` for single events.
    pub(crate) batch: Option<u32>,
    /// Over a Unix socket instead of TCP.
    pub(crate) over_unix: bool,
    /// Whether the sidecar delivers: the whole way, else accepting alone.
    pub(crate) delivers: bool,
}

const ACCEPT: Scenario = Scenario {
    name: "",
    callers: 1,
    connections: 1,
    batch: None,
    over_unix: false,
    delivers: false,
};
const WHOLE_WAY: Scenario = Scenario {
    delivers: true,
    ..ACCEPT
};

/// All scenarios, in the order in which they run.
pub(crate) const SCENARIOS: [Scenario; 7] = [
    Scenario {
        name: "accept-unary-1-tcp",
        ..ACCEPT
    },
    Scenario {
        name: "accept-unary-1-unix",
        over_unix: true,
        ..ACCEPT
    },
    Scenario {
        name: "accept-unary-64",
        callers: 64,
        connections: 4,
        ..ACCEPT
    },
    Scenario {
        name: "accept-batch-100",
        callers: 4,
        connections: 4,
        batch: Some(100),
        ..ACCEPT
    },
    Scenario {
        name: "whole-way-unary-1",
        ..WHOLE_WAY
    },
    Scenario {
        name: "whole-way-unary-64",
        callers: 64,
        connections: 4,
        ..WHOLE_WAY
    },
    Scenario {
        name: "whole-way-batch-100",
        callers: 4,
        connections: 4,
        batch: Some(100),
        ..WHOLE_WAY
    },
];

impl Scenario {
    /// Most calls that the sidecar gets in `seconds`. Batches are accepted many times faster than they are
    /// delivered: without a bound their backlog would take minutes to drain.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "seconds are positive and few"
    )]
    pub(crate) fn max_calls(&self, seconds: f64) -> Option<u64> {
        let batch = self.batch.filter(|_| self.delivers)?;
        Some((BATCH_WHOLE_WAY_PER_SECOND * seconds / f64::from(batch)).ceil() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_delivered_batches_are_bounded_by_count() {
        let bounded: Vec<_> = SCENARIOS
            .iter()
            .filter(|scenario| scenario.max_calls(4.0).is_some())
            .collect();
        assert_eq!(bounded.len(), 1);
        assert_eq!(bounded[0].max_calls(4.0), Some(400));
    }
}
