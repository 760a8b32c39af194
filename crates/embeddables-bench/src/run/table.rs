//! The table for people, in Markdown, so that it can be pasted.

use std::fmt::Write as _;

use super::summary::Summary;
use super::{comparison, delivery};
use crate::statistics::Spread;

/// Stands where a figure makes no sense.
pub(crate) const NOTHING: &str = "–";

/// Circumstances first, then each kind of scenario that ran.
pub(crate) fn render(summary: &Summary) -> String {
    let mut table = String::new();
    let sync = &summary.fdatasync;
    line(
        &mut table,
        format_args!(
            "{} cores; median (least–most); append of 4 KiB with fdatasync: p50 {:.2} ms, p99 {:.2} ms",
            summary.cores,
            sync.p50_us / 1e3,
            sync.p99_us / 1e3
        ),
    );
    if !summary.scenarios.is_empty() {
        let (repetitions, seconds) = (summary.repetitions, summary.seconds);
        line(
            &mut table,
            format_args!("{repetitions} repetitions of {seconds} s\n"),
        );
        comparison::table::render(&mut table, &summary.scenarios);
    }
    if !summary.deliveries.is_empty() {
        let scale = summary.scale;
        line(&mut table, format_args!("deliveries, at scale {scale}\n"));
        delivery::reading::render(&mut table, &summary.deliveries);
    }
    table
}

/// Median and, in brackets, the least and the most.
pub(crate) fn figure(spread: Option<Spread>, decimals: usize, factor: f64) -> String {
    spread.map_or(NOTHING.to_owned(), |Spread { median, min, max }| {
        let (median, min, max) = (median * factor, min * factor, max * factor);
        format!("{median:.decimals$} ({min:.decimals$}–{max:.decimals$})")
    })
}

/// Names of columns and the line below them.
pub(crate) fn header(table: &mut String, columns: &[&str]) {
    line(table, format_args!("| {} |", columns.join(" | ")));
    line(table, format_args!("|{}", "---|".repeat(columns.len())));
}

/// One line.
pub(crate) fn line(table: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing into a string cannot fail.
    let _infallible = writeln!(table, "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_shows_median_and_spread() {
        let spread = Spread {
            median: 0.5,
            min: 0.25,
            max: 1.0,
        };
        assert_eq!(figure(Some(spread), 2, 1.0), "0.50 (0.25–1.00)");
        assert_eq!(figure(Some(spread), 0, 100.0), "50 (25–100)");
        assert_eq!(figure(None, 0, 1.0), NOTHING);
    }
}
