//! What the callers saw, and the line that tells it.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::connection::CallError;
use super::framing::Results;

/// Longest latency told apart, in nanoseconds: 10 minutes.
const MAX_LATENCY_NANOS: u64 = 600_000_000_000;
/// Significant digits of a latency.
const LATENCY_DIGITS: u8 = 3;
/// Most failures printed in full.
const MAX_SHOWN: u64 = 3;

/// Counts answers as they come.
#[derive(Debug)]
pub(crate) struct Tally {
    latencies: Histogram<u64>,
    taken: u64,
    refused: u64,
    failed: u64,
    by_status: BTreeMap<String, u64>,
}

impl Tally {
    /// Starts at zero.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let latencies = Histogram::new_with_max(MAX_LATENCY_NANOS, LATENCY_DIGITS)?;
        Ok(Self {
            latencies,
            taken: 0,
            refused: 0,
            failed: 0,
            by_status: BTreeMap::new(),
        })
    }

    /// Counts a call that ended. Only answered calls have a latency.
    pub(crate) fn record(&mut self, latency: Duration, outcome: &Result<Results, CallError>) {
        match outcome {
            Ok(results) => {
                self.taken += results.taken;
                self.refused += results.refused;
                let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
                self.latencies.saturating_record(nanos);
            }
            Err(error) => {
                self.failed += 1;
                if self.failed <= MAX_SHOWN {
                    eprintln!("call failed: {error}");
                }
                let status = match error {
                    CallError::Status(code) => code.to_string(),
                    CallError::Answer(_) | CallError::Frame(_) => "answer".to_owned(),
                    CallError::Connection(_) => "connection".to_owned(),
                };
                *self.by_status.entry(status).or_default() += 1;
            }
        }
    }

    /// The whole story.
    pub(crate) fn report(self, totals: Totals) -> LoadReport {
        let micros = |nanos: u64| nanos as f64 / 1_000.0;
        let quantile = |quantile| micros(self.latencies.value_at_quantile(quantile));
        let seconds = totals.elapsed.as_secs_f64();
        LoadReport {
            count: self.taken,
            calls: self.latencies.len(),
            seconds,
            rate: self.taken as f64 / seconds,
            p50_us: quantile(0.5),
            p90_us: quantile(0.9),
            p99_us: quantile(0.99),
            p999_us: quantile(0.999),
            max_us: micros(self.latencies.max()),
            errors: self.failed,
            by_status: self.by_status,
            refused: self.refused,
            request_bytes: totals.request_bytes,
            warm_up: totals.warm_up,
            unanswered: totals.unanswered,
            late: totals.late,
            cpu_seconds: totals.cpu_seconds,
        }
    }
}

/// What is known of a load beside its answers; the fields are those of [`LoadReport`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Totals {
    /// From the first call to the last answer.
    pub(crate) elapsed: Duration,
    /// Bytes of one request.
    pub(crate) request_bytes: u64,
    /// Events of the warm-up.
    pub(crate) warm_up: u64,
    /// Calls without an answer.
    pub(crate) unanswered: u64,
    /// Slots that nobody took.
    pub(crate) late: u64,
    /// CPU time of this process.
    pub(crate) cpu_seconds: f64,
}

/// What a load came to: the JSON line that `load` prints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoadReport {
    /// Events taken: acknowledged with OK.
    pub count: u64,
    /// Calls answered with OK.
    pub calls: u64,
    /// From the first call to the last answer.
    pub seconds: f64,
    /// Events taken a second.
    pub rate: f64,
    /// Half of the calls took no longer, in microseconds. In an open loop from the time a call was due.
    pub p50_us: f64,
    /// Nine tenths of the calls took no longer.
    pub p90_us: f64,
    /// All but a hundredth took no longer.
    pub p99_us: f64,
    /// All but a thousandth took no longer.
    pub p999_us: f64,
    /// The longest.
    pub max_us: f64,
    /// Calls that failed.
    pub errors: u64,
    /// The same by gRPC status; `answer` where the answer made no sense, `connection` where there was none.
    pub by_status: BTreeMap<String, u64>,
    /// Events refused in calls that did not fail.
    pub refused: u64,
    /// Bytes of one request as gRPC frames it.
    pub request_bytes: u64,
    /// Events of the requests that warmed the connections up, on top of `count`.
    pub warm_up: u64,
    /// Calls without an answer when the time was over.
    pub unanswered: u64,
    /// Calls of an open loop that were due but never made: the server did not keep up.
    pub late: u64,
    /// CPU time of the generator while the load ran.
    pub cpu_seconds: f64,
}

impl LoadReport {
    /// Whether every call was made, answered, and took its events.
    pub fn is_clean(&self) -> bool {
        self.count > 0 && self.errors == 0 && self.refused == 0 && self.unanswered == 0 && self.late == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(outcomes: &[Result<Results, CallError>]) -> LoadReport {
        let mut tally = Tally::new().expect("bounds");
        for (place, outcome) in (1..).zip(outcomes) {
            tally.record(Duration::from_millis(place), outcome);
        }
        let elapsed = Duration::from_secs(2);
        tally.report(Totals {
            elapsed,
            request_bytes: 310,
            warm_up: 1,
            unanswered: 0,
            late: 0,
            cpu_seconds: 0.5,
        })
    }

    #[test]
    fn only_what_was_taken_is_throughput() {
        let results = Results { taken: 7, refused: 3 };
        let report = report(&[
            Ok(results),
            Err(CallError::Status(14)),
            Err(CallError::Status(14)),
            Ok(results),
        ]);
        assert_eq!(
            (report.count, report.calls, report.refused, report.errors),
            (14, 2, 6, 2)
        );
        assert_eq!(report.by_status, BTreeMap::from([("14".to_owned(), 2)]));
        assert!((report.rate - 7.0).abs() < f64::EPSILON);
        assert!(!report.is_clean());
    }

    #[test]
    fn latencies_are_microseconds() {
        let report = report(&[Ok(Results { taken: 1, refused: 0 })]);
        assert!((report.p50_us - 1_000.0).abs() < 2.0, "{}", report.p50_us);
        assert!(report.is_clean());
    }

    #[test]
    fn quantiles_tell_a_hundredth_from_a_thousandth() {
        let outcomes: Vec<_> = (0..10_000)
            .map(|_| Ok(Results { taken: 1, refused: 0 }))
            .collect();
        let report = report(&outcomes);
        let is_near = |micros: f64, millis: f64| (micros / 1e3 - millis).abs() < millis / 100.0;
        assert!(is_near(report.p99_us, 9_900.0), "{}", report.p99_us);
        assert!(is_near(report.p999_us, 9_990.0), "{}", report.p999_us);
        assert!(is_near(report.max_us, 10_000.0), "{}", report.max_us);
    }

    #[test]
    fn a_load_that_took_nothing_is_not_clean() {
        assert!(!report(&[]).is_clean());
    }
}
