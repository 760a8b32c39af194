//! What a measurement came to, what the repetitions came to, and whether that is good enough.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

use crate::run::table::{figure, header, line};
use crate::statistics::Spread;

/// Something that is measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Figure {
    /// Its name for scripts, unique within the scenario; it does not change.
    pub(crate) id: &'static str,
    /// Its name for people, unit included.
    pub(crate) name: &'static str,
    /// Decimals shown.
    pub(crate) decimals: usize,
    /// The bar: what the median has to keep.
    pub(crate) bound: Option<Bound>,
    /// What the median should reach beyond it: told, and no failure where it is missed.
    pub(crate) goal: Option<Bound>,
}

/// What a median is held against.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Bound {
    /// This or less.
    AtMost(f64),
    /// This or more.
    AtLeast(f64),
}

impl Bound {
    /// Whether a median keeps it; at its edge too.
    pub(crate) fn is_kept_by(self, median: f64) -> bool {
        match self {
            Self::AtMost(most) => median <= most,
            Self::AtLeast(least) => median >= least,
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(most) => write!(formatter, "≤ {most}"),
            Self::AtLeast(least) => write!(formatter, "≥ {least}"),
        }
    }
}

impl Figure {
    /// A figure that is told only.
    pub(crate) const fn told(id: &'static str, name: &'static str, decimals: usize) -> Self {
        Self {
            id,
            name,
            decimals,
            bound: None,
            goal: None,
        }
    }

    /// The same figure, whose median has to keep a bound.
    pub(crate) const fn keeping(self, bound: Bound) -> Self {
        Self {
            bound: Some(bound),
            ..self
        }
    }

    /// The same figure, whose median should reach a goal.
    pub(crate) const fn aiming(self, goal: Bound) -> Self {
        Self {
            goal: Some(goal),
            ..self
        }
    }
}

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

/// All repetitions of a figure.
#[derive(Debug, Serialize)]
pub(crate) struct FigureSummary {
    /// Its name for scripts.
    pub(crate) id: &'static str,
    /// Its name for people.
    pub(crate) name: &'static str,
    /// Median, least and most; `null` where one is not a number.
    pub(crate) spread: Option<Spread>,
    /// What the median has to keep.
    pub(crate) bound: Option<Bound>,
    /// Whether it does; `null` without a bound.
    pub(crate) is_kept: Option<bool>,
    /// What the median should reach.
    pub(crate) goal: Option<Bound>,
    /// Whether it does; `null` without a goal.
    pub(crate) is_reached: Option<bool>,
    #[serde(skip)]
    decimals: usize,
}

impl FigureSummary {
    /// Sums up a figure's values.
    pub(crate) fn of(kind: Figure, values: impl Iterator<Item = f64>) -> Self {
        let spread = Spread::of(values);
        let holds = |bound: Bound| spread.is_some_and(|spread| bound.is_kept_by(spread.median));
        Self {
            id: kind.id,
            name: kind.name,
            spread,
            bound: kind.bound,
            is_kept: kind.bound.map(holds),
            goal: kind.goal,
            is_reached: kind.goal.map(holds),
            decimals: kind.decimals,
        }
    }
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
            ok: is_valid && figures.iter().all(|figure| figure.is_kept != Some(false)),
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
    header(
        table,
        &["scenario", "figure", "median (least–most)", "bar", "goal"],
    );
    for summary in summaries {
        let mark = if summary.is_valid { "" } else { " INVALID" };
        for one in &summary.figures {
            line(
                table,
                format_args!(
                    "| {}{mark} ×{} | {} | {} | {} | {} |",
                    summary.name,
                    summary.repetitions,
                    one.name,
                    figure(one.spread, one.decimals, 1.0),
                    verdict(one.bound, one.is_kept, "MISSED"),
                    verdict(one.goal, one.is_reached, "not reached")
                ),
            );
        }
    }
}

/// A bound and what became of it; nothing without one.
pub(crate) fn verdict(bound: Option<Bound>, holds: Option<bool>, missed: &str) -> String {
    let word = if holds == Some(true) { "met" } else { missed };
    bound.map_or_else(String::new, |bound| format!("{bound} {word}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const RATIO: Figure = Figure::told("ratio", "how much longer", 2)
        .keeping(Bound::AtMost(1.1))
        .aiming(Bound::AtMost(1.05));
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
    fn a_missed_goal_is_told_and_no_failure() {
        let summary = summary(&[1.08], &[]);
        let figure = &summary.figures[0];
        assert_eq!((figure.is_kept, figure.is_reached), (Some(true), Some(false)));
        assert!(summary.ok);
    }

    #[test]
    fn bounds_hold_at_their_edge() {
        assert!(Bound::AtMost(1.1).is_kept_by(1.1) && !Bound::AtMost(1.1).is_kept_by(1.101));
        assert!(Bound::AtLeast(0.9).is_kept_by(0.9) && !Bound::AtLeast(0.9).is_kept_by(0.899));
    }

    #[test]
    fn each_figure_has_a_row_and_a_place_in_the_json() {
        let summary = summary(&[1.0, 2.0, 3.0], &[]);
        let mut table = String::new();
        render(&mut table, std::slice::from_ref(&summary));
        assert!(
            table.contains(
                "| lanes ×3 | how much longer | 2.00 (1.00–3.00) | ≤ 1.1 MISSED | ≤ 1.05 not reached |"
            ),
            "{table}"
        );
        assert!(
            table.contains("| lanes ×3 | events/s | 20 (10–30) |  |  |"),
            "{table}"
        );
        let json = serde_json::to_value(&summary).expect("JSON");
        assert_eq!(json["figures"][0]["id"], "ratio");
        assert_eq!(json["figures"][0]["bound"], json!({ "at_most": 1.1 }));
        assert_eq!(json["figures"][0]["is_kept"], false);
        assert_eq!(json["figures"][0]["goal"], json!({ "at_most": 1.05 }));
        assert_eq!(json["figures"][0]["is_reached"], false);
        assert_eq!(json["figures"][1]["goal"], json!(null));
        assert_eq!(json["figures"][1]["spread"]["median"], 20.0);
        assert_eq!(json["measurements"][2]["ratio"], 3.0);
    }
}
