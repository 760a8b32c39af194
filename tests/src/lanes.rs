//! What a lane does, as the metrics show it.

use crate::metrics::Scrape;
use crate::sidecar::Sidecar;
use crate::wait;

/// Every state of the label `state` of `embeddables_lanes`.
pub const STATES: [&str; 6] = [
    "open",
    "paused",
    "held",
    "probing",
    "breaker_open",
    "breaker_half_open",
];

/// Whether a project's lane is held for `reason`.
pub fn is_held(scrape: &Scrape, project: &str, reason: &str) -> bool {
    scrape.sum(
        "embeddables_lane_held",
        &[("project", project), ("reason", reason)],
    ) == 1.0
}

/// Whether a project's lane is held for any reason.
pub fn is_held_at_all(scrape: &Scrape, project: &str) -> bool {
    scrape.sum("embeddables_lane_held", &[("project", project)]) > 0.0
}

/// How many lanes are in `state`.
pub fn count(scrape: &Scrape, state: &str) -> f64 {
    scrape.sum("embeddables_lanes", &[("state", state)])
}

/// Waits until a project's lane is held for `reason`.
///
/// # Panics
/// Where that takes too long.
pub async fn await_held(sidecar: &Sidecar, project: &str, reason: &str) -> Scrape {
    let what = format!("the lane of {project} to be held for {reason}");
    await_scrape(sidecar, &what, |scrape| is_held(scrape, project, reason)).await
}

/// Waits until a project's lane is held no more.
///
/// # Panics
/// Where that takes too long.
pub async fn await_free(sidecar: &Sidecar, project: &str) -> Scrape {
    let what = format!("the lane of {project} to be free");
    await_scrape(sidecar, &what, |scrape| !is_held_at_all(scrape, project)).await
}

/// Waits until a scrape is as wanted.
///
/// # Panics
/// Where that takes too long.
pub async fn await_scrape(sidecar: &Sidecar, what: &str, wanted: impl Fn(&Scrape) -> bool) -> Scrape {
    wait::until(what, wait::SOON, async || {
        let scrape = Scrape::of(sidecar).await;
        wanted(&scrape).then_some(scrape)
    })
    .await
}

/// Asserts that a project's lane is not held.
///
/// # Panics
/// Where it is.
pub async fn check_free(sidecar: &Sidecar, project: &str) {
    let scrape = Scrape::of(sidecar).await;
    let held = scrape
        .samples
        .iter()
        .filter(|sample| sample.name == "embeddables_lane_held");
    let held: Vec<_> = held.filter(|sample| sample.value > 0.0).collect();
    assert!(!is_held_at_all(&scrape, project), "{project} is held: {held:?}");
}
