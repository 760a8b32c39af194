//! A scrape of `/metrics`, and the books that must balance in it.

use std::collections::BTreeMap;

use crate::rest;
use crate::sidecar::Sidecar;

/// One line of a scrape.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Name of the metric.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

/// All that `/metrics` said at one time.
#[derive(Clone, Debug)]
pub struct Scrape {
    /// As it came.
    pub text: String,
    /// Its samples.
    pub samples: Vec<Sample>,
}

impl Scrape {
    /// Asks the sidecar.
    ///
    /// # Panics
    /// Where the answer is not Prometheus text.
    pub async fn of(sidecar: &Sidecar) -> Self {
        let answer = rest::get(sidecar.ready("ops"), "/metrics").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let samples = answer
            .body
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        let samples = samples
            .map(|line| parse(line).unwrap_or_else(|| panic!("not a sample: {line}")))
            .collect();
        Self {
            text: answer.body,
            samples,
        }
    }

    /// Sum over all samples of a metric that carry these labels; 0 where there are none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let wanted = |sample: &&Sample| {
            sample.name == name
                && labels
                    .iter()
                    .all(|(key, value)| sample.labels.get(*key).is_some_and(|found| found == value))
        };
        // Starts at +0: the sum of no numbers is -0, which prints as such.
        self.samples
            .iter()
            .filter(wanted)
            .fold(0.0, |sum, sample| sum + sample.value)
    }
}

/// Where all events are that were ever accepted into a store.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Books {
    /// Accepted.
    pub accepted: f64,
    /// Delivered.
    pub delivered: f64,
    /// Given up, and not replayed since.
    pub dead_lettered: f64,
    /// Removed by an operator.
    pub discarded: f64,
    /// Damaged and set aside.
    pub quarantined: f64,
    /// Still here: queued, waiting or held.
    pub here: f64,
    /// Dropped by a mistake of the sidecar's. Must be 0.
    pub lost: f64,
}

impl Books {
    /// Reads the books out of a scrape.
    pub fn of(scrape: &Scrape) -> Self {
        let here = ["queued", "waiting", "held"];
        Self {
            accepted: scrape.sum("embeddables_ingest_accepted_events_total", &[]),
            delivered: scrape.sum("embeddables_settle_delivered_events_total", &[]),
            dead_lettered: scrape.sum("embeddables_queue_events", &[("state", "dead_lettered")]),
            discarded: scrape.sum("embeddables_settle_discarded_events_total", &[]),
            quarantined: scrape.sum("embeddables_queue_quarantined_events_total", &[]),
            here: here
                .iter()
                .map(|state| scrape.sum("embeddables_queue_events", &[("state", state)]))
                .sum(),
            lost: scrape.sum("embeddables_events_lost_total", &[]),
        }
    }

    /// Asserts that every accepted event is somewhere, and none is lost.
    ///
    /// # Panics
    /// Where the books do not balance.
    #[track_caller]
    pub fn check(&self) {
        let Self {
            accepted,
            delivered,
            dead_lettered,
            discarded,
            quarantined,
            here,
            lost,
        } = self;
        let balance = accepted - (delivered + dead_lettered + discarded + quarantined + here);
        assert!(
            balance == 0.0 && *lost == 0.0,
            "the books are off by {balance}: {self:?}"
        );
    }
}

/// Scrapes the sidecar and asserts that its books balance.
///
/// # Panics
/// Where they do not.
pub async fn balance_books(sidecar: &Sidecar) -> Books {
    let books = Books::of(&Scrape::of(sidecar).await);
    books.check();
    books
}

fn parse(line: &str) -> Option<Sample> {
    let (series, value) = match line.rfind('}') {
        Some(end) => line.split_at_checked(end + 1)?,
        None => line.split_once(' ')?,
    };
    let value = value.split_whitespace().next()?;
    let (name, mut labels_text) = match series.split_once('{') {
        Some((name, labels)) => (name, labels.strip_suffix('}')?),
        None => (series, ""),
    };
    let mut labels = BTreeMap::new();
    while let Some((key, rest)) = labels_text.split_once("=\"") {
        // No label of ours holds a quote or a backslash: they come from closed sets.
        let (value, rest) = rest.split_once('"')?;
        labels.insert(key.trim_start_matches(',').to_owned(), value.to_owned());
        labels_text = rest;
    }
    Some(Sample {
        name: name.to_owned(),
        labels,
        value: value.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_parsed_with_and_without_labels() {
        let sample = parse(r#"a_total{project="p",reason="R"} 3"#).unwrap();
        assert_eq!((sample.name.as_str(), sample.value), ("a_total", 3.0));
        assert_eq!(sample.labels["reason"], "R");
        assert_eq!(parse("b 1.5").unwrap().value, 1.5);
        assert_eq!(parse("no_value"), None);
    }
}
