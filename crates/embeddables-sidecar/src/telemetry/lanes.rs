//! The lanes as metrics, read from the board at every scrape.
//!
//! # Invariants
//! 1. `lanes` over all states is the number of configured projects.
//! 2. A lane is in `lane_held` exactly while it is counted as held or probing in `lanes`.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::dispatch::board::{Board, Condition, LaneView};

/// Reads the board at every scrape.
#[derive(Debug)]
pub struct LanesCollector {
    board: Board,
}

impl LanesCollector {
    /// Collects from a board.
    pub fn new(board: Board) -> Self {
        Self { board }
    }
}

impl Collector for LanesCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        // One reading of each lane, so that both metrics tell of the same moment.
        let lanes: Vec<(&str, LaneView)> = self
            .board
            .projects()
            .filter_map(|project| Some((project.as_str(), self.board.view(project)?)))
            .collect();
        let help = "Projects by what their lane does with its events";
        let mut family = encoder.encode_descriptor("lanes", help, None, MetricType::Gauge)?;
        for condition in Condition::ALL {
            let count = lanes
                .iter()
                .filter(|(_, view)| view.condition == condition)
                .count();
            ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX))
                .encode(family.encode_family(&[("state", condition.as_str())])?)?;
        }
        let help = "1 for each lane that is held, with the reason";
        let mut family = encoder.encode_descriptor("lane_held", help, None, MetricType::Gauge)?;
        for (project, view) in &lanes {
            if let Some(hold) = &view.hold {
                let labels = [("project", *project), ("reason", hold.reason.as_str())];
                ConstGauge::new(1_i64).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use embeddables_core::ProjectId;
    use embeddables_queue::UnixMillis;
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::dispatch::board::{HoldReason, HoldView};

    #[test]
    fn lanes_are_counted_by_state_and_held_ones_named() {
        let projects = ["pr_a", "pr_b"].map(|id| ProjectId::parse(id).expect("a project id"));
        let (board, posts) = Board::new(projects.clone());
        posts[&projects[1]].view.send_replace(LaneView {
            condition: Condition::Held,
            hold: Some(HoldView {
                reason: HoldReason::KeyRejected,
                message: "words".to_owned(),
                since: UnixMillis(0),
            }),
            ..LaneView::default()
        });
        let mut registry = Registry::with_prefix("embeddables");
        registry.register_collector(Box::new(LanesCollector::new(board)));
        let mut text = String::new();
        encode(&mut text, &registry).expect("encodes");
        for line in [
            "embeddables_lanes{state=\"open\"} 1",
            "embeddables_lanes{state=\"held\"} 1",
            "embeddables_lanes{state=\"breaker_open\"} 0",
            "embeddables_lane_held{project=\"pr_b\",reason=\"KEY_REJECTED\"} 1",
        ] {
            assert!(text.contains(line), "no {line} in {text}");
        }
        assert!(!text.contains("project=\"pr_a\""), "{text}");
    }
}
