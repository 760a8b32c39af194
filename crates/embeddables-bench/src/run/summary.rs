//! A whole run as JSON.

use serde::Serialize;

use super::comparison::summary::ScenarioSummary;
use super::delivery::reading::DeliverySummary;
use super::disk::SyncCost;

/// A whole run: the JSON summary.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    /// `bench`.
    pub(crate) recipe: &'static str,
    /// The name that picked the scenarios.
    pub(crate) name: String,
    /// Whether every measurement is valid and every bound kept.
    pub(crate) ok: bool,
    /// Pairs measured for each scenario beside the null server.
    pub(crate) repetitions: u32,
    /// Seconds that load was sent in each measurement beside the null server.
    pub(crate) seconds: f64,
    /// Part of the events and times of `deliveries`: 1 where they count.
    pub(crate) scale: f64,
    /// Cores that all processes shared.
    pub(crate) cores: usize,
    /// Load average of the machine at the start, over a minute: not near 0 where others were at work.
    pub(crate) load_average: f64,
    /// Cost of a sync where the queues were.
    pub(crate) fdatasync: SyncCost,
    /// The scenarios beside the null server in the order in which they ran.
    pub(crate) scenarios: Vec<ScenarioSummary>,
    /// Those of delivering.
    pub(crate) deliveries: Vec<DeliverySummary>,
}
