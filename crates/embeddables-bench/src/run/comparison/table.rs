//! The rows of the comparison: accepting first, then the whole way, then the bars.

use super::summary::{ScenarioSummary, SideSummary};
use crate::run::figure::{rows, rows_header};
use crate::run::table::{NOTHING, figure, header, line};
use crate::statistics::Spread;

/// Adds the tables.
pub(crate) fn render(table: &mut String, scenarios: &[ScenarioSummary]) {
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
    header(table, &columns);
    for scenario in scenarios {
        accept_row(table, scenario);
    }
    if scenarios.iter().any(|scenario| scenario.delivers) {
        table.push('\n');
        header(
            table,
            &[
                "scenario",
                "delivered/s",
                "of null/s",
                "delivered during load",
                "CPU s/M, accept and deliver",
                "mock CPU s/M",
            ],
        );
        for scenario in scenarios.iter().filter(|scenario| scenario.delivers) {
            whole_way_row(table, scenario);
        }
    }
    if scenarios.iter().any(|scenario| !scenario.figures.is_empty()) {
        table.push('\n');
        rows_header(table);
        for scenario in scenarios {
            rows(table, &title(scenario), &scenario.figures);
        }
    }
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
    let mark = if scenario.is_valid { "" } else { " INVALID" };
    format!("{}{mark}", scenario.name)
}
