//! What the repetitions came to: medians, spread, and ratios of pairs.

use serde::Serialize;

use super::measure::Measurement;
use super::scenario::Scenario;
use crate::run::disk::SyncCost;
use crate::run::figure::FigureSummary;
use crate::statistics::Spread;

/// Both sides of one repetition, measured one after the other.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Pair {
    /// The bound.
    pub(crate) null: Measurement,
    /// The product.
    pub(crate) sidecar: Measurement,
    /// A sync where the queue was, in the same minute.
    pub(crate) fdatasync: SyncCost,
}

impl Pair {
    /// Events that the sidecar accepted for each that the null server answered.
    pub(crate) fn accepted_ratio(&self) -> f64 {
        self.sidecar.load.rate / self.null.load.rate
    }

    /// Median latency of the sidecar, to the sum of the null server's and of one sync: what a durable answer takes at least.
    pub(crate) fn p50_to_null_and_sync(&self) -> f64 {
        self.sidecar.load.p50_us / (self.null.load.p50_us + self.fdatasync.p50_us)
    }

    /// CPU time of the sidecar for an event, in microseconds.
    pub(crate) fn sidecar_cpu_micros(&self) -> f64 {
        self.sidecar.cpu_per_million()
    }

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
    /// Whether the sidecar got its events over streams instead.
    pub(crate) streams: bool,
    /// `tcp` or `unix`.
    pub(crate) transport: &'static str,
    /// Whether the sidecar delivered.
    pub(crate) delivers: bool,
    /// Whether all of its measurements are valid and its bound is kept.
    pub(crate) ok: bool,
    /// Whether all of its measurements are valid.
    pub(crate) is_valid: bool,
    /// What it is judged by; empty for a scenario that is told only.
    pub(crate) figures: Vec<FigureSummary>,
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
        let spread = |figure: fn(&Pair) -> f64| Spread::of(pairs.iter().map(figure));
        let figures: Vec<FigureSummary> = scenario
            .bar
            .iter()
            .map(|bar| FigureSummary::of(bar.figure, pairs.iter().map(bar.of)))
            .collect();
        let is_valid = pairs.iter().all(Pair::is_valid);
        let delivered = pairs
            .iter()
            .filter_map(|pair| Some(pair.sidecar.whole_way.as_ref()?.rate() / pair.null.load.rate));
        Self {
            name: scenario.name,
            callers: scenario.callers,
            connections: scenario.connections,
            batch: scenario.batch,
            streams: scenario.streams,
            transport: if scenario.over_unix { "unix" } else { "tcp" },
            delivers: scenario.delivers,
            ok: is_valid && figures.iter().all(FigureSummary::is_good_enough),
            is_valid,
            figures,
            null: SideSummary::of(pairs.iter().map(|pair| &pair.null)),
            sidecar: SideSummary::of(pairs.iter().map(|pair| &pair.sidecar)),
            accepted_ratio: spread(Pair::accepted_ratio),
            p50_ratio: spread(|pair| pair.sidecar.load.p50_us / pair.null.load.p50_us),
            delivered_ratio: Spread::of(delivered),
            pairs,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::load::LoadReport;
    use crate::run::comparison::scenario::SCENARIOS;

    /// A clean measurement of 1,000 events that took a second.
    fn measurement(rate: f64, p50_us: f64, cpu_seconds: f64) -> Measurement {
        let load = LoadReport {
            count: 1_000,
            calls: 1_000,
            seconds: 1.0,
            rate,
            p50_us,
            p90_us: p50_us,
            p99_us: p50_us,
            p999_us: p50_us,
            max_us: p50_us,
            errors: 0,
            by_status: BTreeMap::new(),
            refused: 0,
            request_bytes: 310,
            warm_up: 1,
            unanswered: 0,
            late: 0,
            cpu_seconds: 0.1,
        };
        Measurement {
            load,
            cpu_seconds,
            rss_bytes: 1,
            peak_rss_bytes: 1,
            whole_way: None,
        }
    }

    /// One pair: 100 µs and 1,000/s of the null server, 200 µs a sync.
    fn summary(name: &str, rate: f64, p50_us: f64, cpu_seconds: f64) -> ScenarioSummary {
        let scenario = SCENARIOS.iter().find(|scenario| scenario.name == name);
        let pair = Pair {
            null: measurement(1_000.0, 100.0, 0.01),
            sidecar: measurement(rate, p50_us, cpu_seconds),
            fdatasync: SyncCost {
                p50_us: 200.0,
                p99_us: 400.0,
            },
        };
        ScenarioSummary::of(scenario.expect("known"), vec![pair])
    }

    #[track_caller]
    fn check(summary: &ScenarioSummary, figure: f64, is_kept: bool, is_reached: bool) {
        let [only] = &*summary.figures else {
            panic!("one figure: {:?}", summary.figures);
        };
        let median = only.spread.expect("a number").median;
        assert!((median - figure).abs() < 1e-9, "{median}");
        assert_eq!((only.is_kept, only.is_reached), (Some(is_kept), Some(is_reached)));
        assert_eq!((summary.ok, summary.is_valid), (is_kept, true));
    }

    #[test]
    fn throughput_is_judged_against_the_null_server() {
        check(&summary("accept-unary-64", 499.0, 1.0, 1.0), 0.499, false, false);
        check(&summary("accept-unary-64", 500.0, 1.0, 1.0), 0.5, true, false);
        check(&summary("accept-batch-100", 300.0, 1.0, 1.0), 0.3, true, false);
        check(&summary("accept-stream", 600.0, 1.0, 1.0), 0.6, true, true);
    }

    #[test]
    fn the_latency_of_one_caller_is_judged_against_the_null_server_and_a_sync() {
        check(
            &summary("accept-unary-1-unix", 1.0, 601.0, 1.0),
            601.0 / 300.0,
            false,
            false,
        );
        check(&summary("accept-unary-1-unix", 1.0, 390.0, 1.0), 1.3, true, true);
    }

    #[test]
    fn the_whole_way_is_judged_by_its_cpu_time() {
        check(&summary("whole-way-unary-64", 1.0, 1.0, 0.08), 80.0, true, false);
        check(
            &summary("whole-way-unary-64", 1.0, 1.0, 0.11),
            110.0,
            false,
            false,
        );
    }

    #[test]
    fn a_scenario_without_a_bar_is_told_only() {
        let summary = summary("accept-unary-1-tcp", 1.0, 1e9, 1e9);
        assert!(summary.ok && summary.figures.is_empty());
    }
}
