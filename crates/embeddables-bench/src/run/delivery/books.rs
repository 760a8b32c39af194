//! Whether the books balance: every accepted event delivered, once, and known to the sidecar as delivered.

use std::time::Duration;

use super::reading::require;
use super::sample::Sample;
use super::stage::Stage;
use crate::run::mock::MockCounts;

/// How long the last outcomes may take to be written once upstream has every event.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(5);

/// What the sidecar says of its own deliveries.
#[derive(Clone, Copy, Debug)]
struct Outcomes {
    settled: f64,
    dead_letters: f64,
}

/// Waits until the sidecar has settled what upstream has; gives what does not balance.
pub(super) async fn faults(stage: &Stage, accepted: u64) -> anyhow::Result<Vec<String>> {
    let outcomes = Outcomes {
        settled: stage.until_settled(accepted, SETTLE_TIMEOUT).await?,
        dead_letters: stage.dead_letters().await?,
    };
    let counts = Sample::take(&stage.mock).await?.counts;
    Ok(imbalance(accepted, &counts, outcomes))
}

fn imbalance(accepted: u64, counts: &MockCounts, outcomes: Outcomes) -> Vec<String> {
    let mut faults = Vec::new();
    let MockCounts {
        created, requests, ..
    } = *counts;
    require(&mut faults, created == accepted, || {
        format!("{created} of {accepted} events were delivered")
    });
    require(&mut faults, requests == accepted, || {
        format!(
            "{requests} requests for {accepted} events: {:?}",
            counts.by_status
        )
    });
    let Outcomes {
        settled,
        dead_letters,
    } = outcomes;
    require(&mut faults, settled >= accepted as f64, || {
        format!("the sidecar counts {settled} events as delivered, of {accepted}")
    });
    require(&mut faults, dead_letters < 1.0, || {
        format!("{dead_letters} dead letters")
    });
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(created: u64, requests: u64, settled: f64, dead_letters: f64, expected: &[&str]) {
        let counts = MockCounts {
            created,
            requests,
            ..MockCounts::default()
        };
        let outcomes = Outcomes {
            settled,
            dead_letters,
        };
        assert_eq!(imbalance(100, &counts, outcomes), expected);
    }

    #[test]
    fn they_balance_where_each_event_went_once() {
        check(100, 100, 100.0, 0.0, &[]);
    }

    #[test]
    fn what_is_missing_sent_twice_or_given_up_is_told() {
        check(
            99,
            102,
            98.0,
            1.0,
            &[
                "99 of 100 events were delivered",
                "102 requests for 100 events: {}",
                "the sidecar counts 98 events as delivered, of 100",
                "1 dead letters",
            ],
        );
        check(
            101,
            101,
            101.0,
            0.0,
            &[
                "101 of 100 events were delivered",
                "101 requests for 100 events: {}",
            ],
        );
    }
}
