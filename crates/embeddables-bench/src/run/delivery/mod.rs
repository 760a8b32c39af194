//! How the sidecar delivers: as fast as it can, beside a load, where upstream is slow, hangs, throttles, refuses or is away, and
//! where very much is queued; and what it takes where nothing is. Each figure beside the bound that it has to keep.
//!
//! # Invariants
//! 1. The sidecar has its defaults: nothing is tuned for a scenario but what the scenario is about.
//! 2. What is compared is read from the same mock's counts in the same way on both sides.
//! 3. A measurement in which an event was lost, sent twice, refused or late is invalid, and says why.

mod backlog;
mod bare;
mod books;
mod busy;
mod deep;
mod drain;
mod footprint;
mod held;
mod lanes;
mod latency;
mod offered;
mod outage;
pub(crate) mod reading;
mod sample;
mod stage;
mod throttled;

use anyhow::Context as _;

use self::reading::{DeliverySummary, Reading};
use super::places::Places;

/// The sidecar's default of requests in flight, and what the bare client is given.
const IN_FLIGHT: u32 = 256;
/// Connections of the bare client, each with a share of its requests.
const BARE_CONNECTIONS: u32 = 4;

/// One way to deliver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scenario {
    /// One of a hundred projects hangs.
    Lanes,
    /// Every answer takes so many milliseconds.
    Latency(u64),
    /// So many requests a second are admitted, the others are 429.
    Throttled,
    /// The key is wrong, and then right.
    Held,
    /// Events are offered at a steady rate.
    Offered,
    /// A backlog and nothing else.
    Drain,
    /// A backlog while events are offered.
    BusyDrain,
    /// Nobody listens for a minute.
    Outage,
    /// Ten million events are queued, against ten thousand.
    Deep,
    /// The sidecar is idle, or starts.
    Footprint,
}

/// All scenarios, in the order in which they run.
pub(crate) const SCENARIOS: [Scenario; 11] = [
    Scenario::Lanes,
    Scenario::Latency(20),
    Scenario::Latency(50),
    Scenario::Throttled,
    Scenario::Held,
    Scenario::Offered,
    Scenario::Drain,
    Scenario::BusyDrain,
    Scenario::Outage,
    Scenario::Deep,
    Scenario::Footprint,
];

/// What a measurement is given.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context<'a> {
    /// Programs and directories.
    pub(crate) places: &'a Places,
    /// Number of the repetition, from 0.
    pub(crate) repetition: u32,
    /// Part of the events and times that a full measurement has.
    pub(crate) scale: f64,
}

impl Context<'_> {
    /// Whether the side that the other is compared with goes first: sides alternate.
    fn is_even(&self) -> bool {
        self.repetition.is_multiple_of(2)
    }

    /// So many events, or their part, in whole hundreds.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "positive and far below 2^53"
    )]
    fn events(&self, full: f64) -> u64 {
        (full * self.scale / 100.0).ceil() as u64 * 100
    }

    /// So long, or its part.
    fn seconds(&self, full: f64) -> std::time::Duration {
        std::time::Duration::from_secs_f64(full * self.scale)
    }
}

impl Scenario {
    /// Its name, unique.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Lanes => "lanes".to_owned(),
            Self::Latency(millis) => format!("latency-{millis}ms"),
            Self::Throttled => "throttled".to_owned(),
            Self::Held => "held".to_owned(),
            Self::Offered => "offered-5000".to_owned(),
            Self::Drain => "drain".to_owned(),
            Self::BusyDrain => "busy-drain".to_owned(),
            Self::Outage => "outage".to_owned(),
            Self::Deep => "deep".to_owned(),
            Self::Footprint => "footprint".to_owned(),
        }
    }

    /// Measurements, or pairs of them, unless told otherwise.
    fn repetitions(self) -> u32 {
        match self {
            Self::Lanes => 5,
            Self::Latency(_) | Self::Held | Self::Offered | Self::Drain | Self::BusyDrain => 3,
            Self::Outage | Self::Footprint => 3,
            Self::Throttled | Self::Deep => 1,
        }
    }

    async fn measure(self, context: &Context<'_>) -> anyhow::Result<Reading> {
        match self {
            Self::Lanes => lanes::measure(context).await,
            Self::Latency(millis) => latency::measure(context, millis).await,
            Self::Throttled => throttled::measure(context).await,
            Self::Held => held::measure(context).await,
            Self::Offered => offered::measure(context).await,
            Self::Drain => drain::measure(context).await,
            Self::BusyDrain => busy::measure(context).await,
            Self::Outage => outage::measure(context).await,
            Self::Deep => deep::measure(context).await,
            Self::Footprint => footprint::measure(context).await,
        }
    }
}

/// All repetitions of all scenarios, scenario by scenario.
pub(crate) async fn measure_all(
    scenarios: &[Scenario],
    repetitions: Option<u32>,
    places: &Places,
    scale: f64,
) -> anyhow::Result<Vec<DeliverySummary>> {
    let mut summaries = Vec::new();
    for scenario in scenarios {
        let name = scenario.name();
        let mut readings = Vec::new();
        for repetition in 0..repetitions.unwrap_or_else(|| scenario.repetitions()) {
            let context = Context {
                places,
                repetition,
                scale,
            };
            let reading = scenario.measure(&context).await;
            let reading = reading.with_context(|| name.clone())?;
            eprintln!("#{} {name:<20} {reading}", repetition + 1);
            readings.push(reading);
        }
        summaries.push(DeliverySummary::of(name, readings));
    }
    Ok(summaries)
}
