//! What is measured: each scenario is one load, given to the null server and to the sidecar alike, and what comes of it is
//! judged by one figure where the scenario has a bar.

use super::servers::Side;
use super::summary::Pair;
use crate::run::figure::{Bound, Figure};
use crate::run::generator::Load;

/// Most events sent in batches where deliveries are waited for, for each second of a measurement.
const BATCH_WHOLE_WAY_PER_SECOND: f64 = 10_000.0;

/// One load on both sides.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    /// Its name, unique.
    pub(crate) name: &'static str,
    /// Calls under way.
    pub(crate) callers: u32,
    /// Connections that they share.
    pub(crate) connections: u32,
    /// Events a call; `None` for single events.
    pub(crate) batch: Option<u32>,
    /// Whether the sidecar gets its events over as many streams as there are callers. The null server gets calls all the same:
    /// they cost it less, so that they are the bound.
    pub(crate) streams: bool,
    /// Over a Unix socket instead of TCP.
    pub(crate) over_unix: bool,
    /// Whether the sidecar delivers: the whole way, else accepting alone.
    pub(crate) delivers: bool,
    /// What it is judged by.
    pub(crate) bar: Option<Bar>,
}

/// A figure of a pair, with the bound that its median has to keep.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bar {
    /// What it is, its bound and its goal.
    pub(crate) figure: Figure,
    /// What a pair came to.
    pub(crate) of: fn(&Pair) -> f64,
}

impl Bar {
    /// Events accepted for each that the null server answers: this many, and some day that many.
    const fn accepted(least: f64, goal: f64) -> Option<Self> {
        let figure = Figure::told("accepted_ratio", "accepted, to the null server's answered", 2);
        Some(Self {
            figure: figure
                .keeping(Bound::AtLeast(least))
                .aiming_at(Bound::AtLeast(goal)),
            of: Pair::accepted_ratio,
        })
    }
}

/// Latency of a call beside what it cannot do without.
const LATENCY_WITH_SYNC: Bar = Bar {
    figure: Figure::told(
        "p50_to_null_and_sync",
        "p50, to that of the null server and of one fdatasync",
        2,
    )
    .keeping(Bound::AtMost(2.0))
    .aiming_at(Bound::AtMost(1.3)),
    of: Pair::p50_to_null_and_sync,
};

/// What an event costs the sidecar on its whole way.
const WHOLE_WAY_CPU: Bar = Bar {
    figure: Figure::told("cpu_us", "CPU µs an event in the sidecar", 1)
        .keeping(Bound::AtMost(100.0))
        .aiming_at(Bound::AtMost(60.0)),
    of: Pair::sidecar_cpu_micros,
};

const ACCEPT: Scenario = Scenario {
    name: "",
    callers: 1,
    connections: 1,
    batch: None,
    streams: false,
    over_unix: false,
    delivers: false,
    bar: None,
};
const WHOLE_WAY: Scenario = Scenario {
    delivers: true,
    ..ACCEPT
};

/// All scenarios, in the order in which they run.
pub(crate) const SCENARIOS: [Scenario; 8] = [
    Scenario {
        name: "accept-unary-1-tcp",
        ..ACCEPT
    },
    Scenario {
        name: "accept-unary-1-unix",
        over_unix: true,
        bar: Some(LATENCY_WITH_SYNC),
        ..ACCEPT
    },
    Scenario {
        name: "accept-unary-64",
        callers: 64,
        connections: 4,
        bar: Bar::accepted(0.50, 0.80),
        ..ACCEPT
    },
    Scenario {
        name: "accept-batch-100",
        callers: 4,
        connections: 4,
        batch: Some(100),
        bar: Bar::accepted(0.30, 0.60),
        ..ACCEPT
    },
    Scenario {
        name: "accept-stream",
        callers: 4,
        connections: 4,
        batch: Some(100),
        streams: true,
        bar: Bar::accepted(0.30, 0.60),
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
        bar: Some(WHOLE_WAY_CPU),
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
    /// What one side gets for so many seconds.
    pub(crate) fn load(&self, side: Side, seconds: f64) -> Load {
        let streams = self.streams && side == Side::Sidecar;
        Load {
            callers: self.callers,
            connections: self.connections,
            batch: self.batch.filter(|_| !streams),
            streams,
            seconds,
            calls: self.max_calls(seconds).filter(|_| side == Side::Sidecar),
            ..Load::default()
        }
    }

    /// Most calls that the sidecar gets in `seconds`. Batches are accepted many times faster than they are
    /// delivered: without a bound their backlog would take minutes to drain.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "seconds are positive and few"
    )]
    fn max_calls(&self, seconds: f64) -> Option<u64> {
        let batch = self.batch.filter(|_| self.delivers)?;
        Some((BATCH_WHOLE_WAY_PER_SECOND * seconds / f64::from(batch)).ceil() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_sidecar_gets_streams_and_the_null_server_batches_instead() {
        let scenario = SCENARIOS.iter().find(|scenario| scenario.streams);
        let scenario = scenario.expect("a scenario with streams");
        let [null, sidecar] = [Side::Null, Side::Sidecar].map(|side| scenario.load(side, 1.0));
        assert_eq!((null.streams, null.batch), (false, Some(100)));
        assert_eq!((sidecar.streams, sidecar.batch), (true, None));
        assert_eq!((sidecar.callers, sidecar.connections), (4, 4));
    }

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
