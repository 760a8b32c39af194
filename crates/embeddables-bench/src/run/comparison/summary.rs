//! What the repetitions came to: medians, spread, and ratios of pairs.

use serde::Serialize;

use super::measure::Measurement;
use super::scenario::Scenario;
use crate::statistics::Spread;

/// Both sides of one repetition, measured one after the other.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Pair {
    /// The bound.
    pub(crate) null: Measurement,
    /// The product.
    pub(crate) sidecar: Measurement,
}

impl Pair {
    fn is_valid(&self) -> bool {
        self.null.is_valid() && self.sidecar.is_valid()
    }
}

/// One scenario.
#[derive(Debug, Serialize)]
pub(crate) struct ScenarioSummary {
    /// Its name.
    pub(crate) name: &'static str,
    /// Calls under way.
    pub(crate) callers: u32,
    /// Connections.
    pub(crate) connections: u32,
    /// Events a call; `null` for single events.
    pub(crate) batch: Option<u32>,
    /// `tcp` or `unix`.
    pub(crate) transport: &'static str,
    /// Whether the sidecar delivered.
    pub(crate) delivers: bool,
    /// Whether all of its measurements are valid.
    pub(crate) ok: bool,
    /// The null server.
    pub(crate) null: Option<SideSummary>,
    /// The sidecar.
    pub(crate) sidecar: Option<SideSummary>,
    /// Events that the sidecar accepted for each that the null server did, pair by pair.
    pub(crate) accepted_ratio: Option<Spread>,
    /// The same of the median latencies: how many times longer.
    pub(crate) p50_ratio: Option<Spread>,
    /// Events delivered for each that the null server answered, pair by pair.
    pub(crate) delivered_ratio: Option<Spread>,
    /// All measurements.
    pub(crate) pairs: Vec<Pair>,
}

/// The figures of one side.
#[derive(Debug, Serialize)]
pub(crate) struct SideSummary {
    /// Events acknowledged a second.
    pub(crate) accepted_per_second: Spread,
    /// Median latency of a call in microseconds.
    pub(crate) p50_us: Spread,
    /// 99th percentile.
    pub(crate) p99_us: Spread,
    /// CPU seconds of the server for a million events.
    pub(crate) cpu_seconds_per_million: Spread,
    /// CPU seconds of the load generator for a million events.
    pub(crate) generator_cpu_seconds_per_million: Spread,
    /// Memory at the end.
    pub(crate) rss_bytes: Spread,
    /// Memory at its peak.
    pub(crate) peak_rss_bytes: Spread,
    /// What was delivered, where it was.
    pub(crate) whole_way: Option<WholeWaySummary>,
}

/// The figures of the whole way.
#[derive(Debug, Serialize)]
pub(crate) struct WholeWaySummary {
    /// Events delivered a second, from the first call to the last delivery.
    pub(crate) delivered_per_second: Spread,
    /// Part of the events that was delivered by the time of the last acknowledgement.
    pub(crate) delivered_during_load: Spread,
    /// CPU seconds of the mock for a million events.
    pub(crate) mock_cpu_seconds_per_million: Spread,
}

impl SideSummary {
    fn of<'a>(measurements: impl Iterator<Item = &'a Measurement> + Clone) -> Option<Self> {
        let spread = |figure: fn(&Measurement) -> f64| Spread::of(measurements.clone().map(figure));
        Some(Self {
            accepted_per_second: spread(|one| one.load.rate)?,
            p50_us: spread(|one| one.load.p50_us)?,
            p99_us: spread(|one| one.load.p99_us)?,
            cpu_seconds_per_million: spread(Measurement::cpu_per_million)?,
            generator_cpu_seconds_per_million: spread(Measurement::generator_cpu_per_million)?,
            rss_bytes: spread(|one| one.rss_bytes as f64)?,
            peak_rss_bytes: spread(|one| one.peak_rss_bytes as f64)?,
            whole_way: WholeWaySummary::of(measurements),
        })
    }
}

impl WholeWaySummary {
    fn of<'a>(measurements: impl Iterator<Item = &'a Measurement> + Clone) -> Option<Self> {
        let whole_ways = measurements.filter_map(|one| Some((one, one.whole_way.as_ref()?)));
        let accepted = |one: &Measurement| (one.load.count + one.load.warm_up) as f64;
        Some(Self {
            delivered_per_second: Spread::of(whole_ways.clone().map(|(_, way)| way.rate()))?,
            delivered_during_load: Spread::of(
                whole_ways
                    .clone()
                    .map(|(one, way)| way.delivered_during_load as f64 / accepted(one)),
            )?,
            mock_cpu_seconds_per_million: Spread::of(whole_ways.map(|(_, way)| way.mock_cpu_per_million()))?,
        })
    }
}

impl ScenarioSummary {
    /// Sums up the pairs of a scenario.
    pub(crate) fn of(scenario: &Scenario, pairs: Vec<Pair>) -> Self {
        let ratio = |figure: fn(&Measurement) -> f64| {
            Spread::of(
                pairs
                    .iter()
                    .map(|pair| figure(&pair.sidecar) / figure(&pair.null)),
            )
        };
        let delivered = pairs
            .iter()
            .filter_map(|pair| Some(pair.sidecar.whole_way.as_ref()?.rate() / pair.null.load.rate));
        Self {
            name: scenario.name,
            callers: scenario.callers,
            connections: scenario.connections,
            batch: scenario.batch,
            transport: if scenario.over_unix { "unix" } else { "tcp" },
            delivers: scenario.delivers,
            ok: pairs.iter().all(Pair::is_valid),
            null: SideSummary::of(pairs.iter().map(|pair| &pair.null)),
            sidecar: SideSummary::of(pairs.iter().map(|pair| &pair.sidecar)),
            accepted_ratio: ratio(|one| one.load.rate),
            p50_ratio: ratio(|one| one.load.p50_us),
            delivered_ratio: Spread::of(delivered),
            pairs,
        }
    }
}
