//! What is measured, beside the bound that it has to keep and the goal that it should come to.

use std::fmt;

use serde::Serialize;

use super::table::{figure, header, line};
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
    /// What the median has to keep.
    pub(crate) bound: Option<Bound>,
    /// What it should come to some day; missing it is no failure.
    pub(crate) goal: Option<Bound>,
}

/// What a median has to keep.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Bound {
    /// This or less.
    AtMost(f64),
    /// This or more.
    AtLeast(f64),
}

impl Bound {
    fn is_kept_by(self, median: f64) -> bool {
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

    /// The same figure, whose median should come to a goal.
    pub(crate) const fn aiming_at(self, goal: Bound) -> Self {
        Self {
            goal: Some(goal),
            ..self
        }
    }
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
    /// What the median should come to.
    pub(crate) goal: Option<Bound>,
    /// Whether it does; `null` without a goal.
    pub(crate) is_reached: Option<bool>,
    #[serde(skip)]
    decimals: usize,
}

impl FigureSummary {
    /// Sums up the values of a figure.
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

    /// Whether it keeps its bound, or has none.
    pub(crate) fn is_good_enough(&self) -> bool {
        self.is_kept != Some(false)
    }
}

/// Adds the head of a table of figures.
pub(crate) fn rows_header(table: &mut String) {
    let columns = [
        "scenario",
        "figure",
        "median (least–most)",
        "bound",
        "kept",
        "goal",
        "reached",
    ];
    header(table, &columns);
}

/// Adds a row for each figure of a scenario.
pub(crate) fn rows(table: &mut String, title: &str, figures: &[FigureSummary]) {
    let bound = |bound: Option<Bound>| bound.map(|bound| bound.to_string()).unwrap_or_default();
    let verdict = |holds: Option<bool>, no| match holds {
        Some(true) => "yes",
        Some(false) => no,
        None => "",
    };
    for one in figures {
        let cells = [
            title.to_owned(),
            one.name.to_owned(),
            figure(one.spread, one.decimals, 1.0),
            bound(one.bound),
            verdict(one.is_kept, "NO").to_owned(),
            bound(one.goal),
            verdict(one.is_reached, "no").to_owned(),
        ];
        line(table, format_args!("| {} |", cells.join(" | ")));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn bounds_hold_at_their_edge() {
        assert!(Bound::AtMost(1.1).is_kept_by(1.1) && !Bound::AtMost(1.1).is_kept_by(1.101));
        assert!(Bound::AtLeast(0.9).is_kept_by(0.9) && !Bound::AtLeast(0.9).is_kept_by(0.899));
    }

    #[test]
    fn a_missed_goal_is_told_and_is_no_failure() {
        let figure = Figure::told("ratio", "how much of it", 2)
            .keeping(Bound::AtLeast(0.5))
            .aiming_at(Bound::AtLeast(0.8));
        let summary = FigureSummary::of(figure, [0.4, 0.7, 0.9].into_iter());
        assert!(summary.is_good_enough());
        let json = serde_json::to_value(&summary).expect("JSON");
        assert_eq!(json["bound"], json!({ "at_least": 0.5 }));
        assert_eq!(json["goal"], json!({ "at_least": 0.8 }));
        assert_eq!(
            (&json["is_kept"], &json["is_reached"]),
            (&json!(true), &json!(false))
        );
        let mut table = String::new();
        rows(&mut table, "x", &[summary]);
        let expected = "| x | how much of it | 0.70 (0.40–0.90) | ≥ 0.5 | yes | ≥ 0.8 | no |\n";
        assert_eq!(table, expected);
    }
}
