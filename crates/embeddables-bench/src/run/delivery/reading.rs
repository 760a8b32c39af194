//! What a measurement came to, what the repetitions came to, and whether that is good enough.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

pub(crate) use crate::run::figure::{Bound, Figure};
use crate::run::figure::{FigureSummary, rows, rows_header};

/// One measurement, or one pair of them.
#[derive(Debug)]
pub(crate) struct Reading {
    /// Each figure of the scenario, always in the same order.
    pub(crate) figures: Vec<(Figure, f64)>,
    /// Why it is not valid.
    pub(crate) faults: Vec<String>,
    /// All that was counted, for the JSON summary.
    pub(crate) details: Value,
}

impl fmt::Display for Reading {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (Figure { id, decimals, .. }, value) in &self.figures {
            write!(formatter, "{id} {value:.decimals$}  ")?;
        }
        if self.faults.is_empty() {
            Ok(())
        } else {
            write!(formatter, "INVALID: {}", self.faults.join("; "))
        }
    }
}

/// Notes a fault where something does not hold.
pub(crate) fn require(faults: &mut Vec<String>, holds: bool, fault: impl FnOnce() -> String) {
    if !holds {
        faults.push(fault());
    }
}

/// All repetitions of a scenario.
#[derive(Debug, Serialize)]
pub(crate) struct DeliverySummary {
    /// Name of the scenario.
    pub(crate) name: String,
    /// Whether all measurements are valid and every bound is kept.
    pub(crate) ok: bool,
    /// Whether all measurements are valid.
    pub(crate) is_valid: bool,
    /// Measurements, or pairs of them.
    pub(crate) repetitions: usize,
    /// What they came to.
    pub(crate) figures: Vec<FigureSummary>,
    /// Why measurements are not valid.
    pub(crate) faults: Vec<String>,
    /// All that was counted in each.
    pub(crate) measurements: Vec<Value>,
}

impl DeliverySummary {
    /// Sums up the repetitions of a scenario; all have the same figures.
    pub(crate) fn of(name: String, readings: Vec<Reading>) -> Self {
        let kinds = readings.first().map_or(&[][..], |first| &first.figures);
        let figures: Vec<FigureSummary> = kinds
            .iter()
            .enumerate()
            .map(|(place, (kind, _))| {
                FigureSummary::of(*kind, readings.iter().map(|reading| reading.figures[place].1))
            })
            .collect();
        let faults: Vec<String> = readings
            .iter()
            .flat_map(|reading| reading.faults.clone())
            .collect();
        let is_valid = faults.is_empty() && !readings.is_empty();
        Self {
            name,
            ok: is_valid && figures.iter().all(FigureSummary::is_good_enough),
            is_valid,
            repetitions: readings.len(),
            figures,
            faults,
            measurements: readings.into_iter().map(|reading| reading.details).collect(),
        }
    }
}

/// Adds a row for each figure.
pub(crate) fn render(table: &mut String, summaries: &[DeliverySummary]) {
    rows_header(table);
    for summary in summaries {
        let mark = if summary.is_valid { "" } else { " INVALID" };
        let title = format!("{}{mark} ×{}", summary.name, summary.repetitions);
        rows(table, &title, &summary.figures);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const RATIO: Figure = Figure::told("ratio", "how much longer", 2).keeping(Bound::AtMost(1.1));
    const RATE: Figure = Figure::told("rate", "events/s", 0);

    fn summary(ratios: &[f64], faults: &[&str]) -> DeliverySummary {
        let reading = |ratio: &f64| Reading {
            figures: vec![(RATIO, *ratio), (RATE, 10.0 * ratio)],
            faults: faults.iter().map(|&fault| fault.to_owned()).collect(),
            details: json!({ "ratio": ratio }),
        };
        DeliverySummary::of("lanes".to_owned(), ratios.iter().map(reading).collect())
    }

    #[test]
    fn the_median_decides_and_a_fault_overrules_it() {
        assert!(summary(&[1.0, 1.09, 9.0], &[]).ok);
        assert!(!summary(&[1.2, 1.0, 1.11], &[]).ok);
        let invalid = summary(&[1.0], &["an event was lost"]);
        assert!(!invalid.ok && !invalid.is_valid);
        assert!(!summary(&[], &[]).ok, "nothing measured is nothing kept");
        assert!(!summary(&[f64::NAN], &[]).ok);
    }

    #[test]
    fn each_figure_has_a_row_and_a_place_in_the_json() {
        let summary = summary(&[1.0, 2.0, 3.0], &[]);
        let mut table = String::new();
        render(&mut table, std::slice::from_ref(&summary));
        assert!(
            table.contains("| lanes ×3 | how much longer | 2.00 (1.00–3.00) | ≤ 1.1 | NO |  |  |"),
            "{table}"
        );
        assert!(
            table.contains("| lanes ×3 | events/s | 20 (10–30) |  |  |  |  |"),
            "{table}"
        );
        let json = serde_json::to_value(&summary).expect("JSON");
        assert_eq!(json["figures"][0]["id"], "ratio");
        assert_eq!(json["figures"][0]["bound"], json!({ "at_most": 1.1 }));
        assert_eq!(json["figures"][0]["is_kept"], false);
        assert_eq!(json["figures"][1]["spread"]["median"], 20.0);
        assert_eq!(json["measurements"][2]["ratio"], 3.0);
    }
}
