//! The table for people, in Markdown, so that it can be pasted.

use std::fmt::Write as _;

use super::summary::{ScenarioSummary, SideSummary, Summary};
use crate::statistics::Spread;

/// Stands where a figure makes no sense.
const NOTHING: &str = "–";

/// Accepting first, then the whole way.
pub(crate) fn render(summary: &Summary) -> String {
    let mut table = String::new();
    let sync = &summary.fdatasync;
    line(
        &mut table,
        format_args!(
            "{} repetitions of {} s on {} cores; median (least–most); append of 4 KiB with fdatasync: p50 {:.2} ms, p99 {:.2} ms\n",
            summary.repetitions,
            summary.seconds,
            summary.cores,
            sync.p50_us / 1e3,
            sync.p99_us / 1e3
        ),
    );
    let columns = [
        "scenario",
        "null/s",
        "accepted/s",
        "ratio",
        "null p50 / p99 ms",
        "p50 / p99 ms",
        "null CPU s/M",
        "CPU s/M",
        "generator CPU s/M, null / sidecar",
        "RSS MiB, end / peak",
    ];
    header(&mut table, &columns);
    for scenario in &summary.scenarios {
        accept_row(&mut table, scenario);
    }
    if summary.scenarios.iter().any(|scenario| scenario.delivers) {
        table.push('\n');
        header(
            &mut table,
            &[
                "scenario",
                "delivered/s",
                "of null/s",
                "delivered during load",
                "CPU s/M, accept and deliver",
                "mock CPU s/M",
            ],
        );
        for scenario in summary.scenarios.iter().filter(|scenario| scenario.delivers) {
            whole_way_row(&mut table, scenario);
        }
    }
    table
}

fn accept_row(table: &mut String, scenario: &ScenarioSummary) {
    let (null, sidecar) = (scenario.null.as_ref(), scenario.sidecar.as_ref());
    let rate = |side: Option<&SideSummary>| figure(side.map(|side| side.accepted_per_second), 0, 1.0);
    let latency = |side: Option<&SideSummary>| {
        let millis = |spread: Spread| format!("{:.3}", spread.median / 1e3);
        side.map_or(NOTHING.to_owned(), |side| {
            format!("{} / {}", millis(side.p50_us), millis(side.p99_us))
        })
    };
    let cpu = |side: Option<&SideSummary>| figure(side.map(|side| side.cpu_seconds_per_million), 1, 1.0);
    let generator = |side: Option<&SideSummary>| {
        side.map_or(NOTHING.to_owned(), |side| {
            format!("{:.1}", side.generator_cpu_seconds_per_million.median)
        })
    };
    let mebibytes = |spread: Spread| format!("{:.1}", spread.median / 1_048_576.0);
    let cells = [
        title(scenario),
        rate(null),
        rate(sidecar),
        figure(scenario.accepted_ratio, 2, 1.0),
        latency(null),
        latency(sidecar),
        cpu(null),
        cpu(sidecar),
        format!("{} / {}", generator(null), generator(sidecar)),
        sidecar.map_or(NOTHING.to_owned(), |side| {
            format!(
                "{} / {}",
                mebibytes(side.rss_bytes),
                mebibytes(side.peak_rss_bytes)
            )
        }),
    ];
    line(table, format_args!("| {} |", cells.join(" | ")));
}

fn whole_way_row(table: &mut String, scenario: &ScenarioSummary) {
    let sidecar = scenario.sidecar.as_ref();
    let whole_way = sidecar.and_then(|sidecar| sidecar.whole_way.as_ref());
    let cells = [
        title(scenario),
        figure(whole_way.map(|way| way.delivered_per_second), 0, 1.0),
        figure(scenario.delivered_ratio, 2, 1.0),
        figure(whole_way.map(|way| way.delivered_during_load), 0, 100.0) + " %",
        figure(sidecar.map(|sidecar| sidecar.cpu_seconds_per_million), 1, 1.0),
        figure(whole_way.map(|way| way.mock_cpu_seconds_per_million), 1, 1.0),
    ];
    line(table, format_args!("| {} |", cells.join(" | ")));
}

/// The name, marked where a measurement is not valid.
fn title(scenario: &ScenarioSummary) -> String {
    let mark = if scenario.ok { "" } else { " INVALID" };
    format!("{}{mark}", scenario.name)
}

/// Median and, in brackets, the least and the most.
fn figure(spread: Option<Spread>, decimals: usize, factor: f64) -> String {
    spread.map_or(NOTHING.to_owned(), |Spread { median, min, max }| {
        let (median, min, max) = (median * factor, min * factor, max * factor);
        format!("{median:.decimals$} ({min:.decimals$}–{max:.decimals$})")
    })
}

fn header(table: &mut String, columns: &[&str]) {
    line(table, format_args!("| {} |", columns.join(" | ")));
    line(table, format_args!("|{}", "---|".repeat(columns.len())));
}

fn line(table: &mut String, text: std::fmt::Arguments<'_>) {
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
