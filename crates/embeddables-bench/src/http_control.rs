//! The few HTTP requests of a run's own: control of the mock, metrics of the sidecar.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use http::Method;

use crate::http_client;

/// Longest time for one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Where such requests go. A clone shares its connections.
#[derive(Clone, Debug)]
pub struct Control {
    http: reqwest::Client,
    base_url: String,
}

impl Control {
    /// Speaks to the server at `base_url`; over TLS it trusts the authority in `ca_file` alone.
    ///
    /// # Errors
    /// Where no client can be made, for example of what is in the file.
    pub fn new(base_url: String, ca_file: Option<&Path>) -> anyhow::Result<Self> {
        let http = http_client::builder(ca_file)?.timeout(REQUEST_TIMEOUT).build()?;
        Ok(Self { http, base_url })
    }

    /// Sends one request and gives the body of the answer.
    ///
    /// # Errors
    /// Where no answer comes in time, or one other than 2xx.
    pub async fn request(&self, method: Method, path: &str, body: &str) -> anyhow::Result<String> {
        let url = format!("{}{path}", self.base_url);
        self.exchange(&method, &url, body)
            .await
            .with_context(|| format!("{method} {url}"))
    }

    async fn exchange(&self, method: &Method, url: &str, body: &str) -> anyhow::Result<String> {
        let request = self.http.request(method.clone(), url);
        let request = request.header("content-type", "application/json");
        let response = request.body(body.to_owned()).send().await?;
        let status = response.status();
        let body = response.text().await?;
        ensure!(status.is_success(), "answered {status}: {body}");
        Ok(body)
    }
}

/// Sum of all samples of a metric, whatever their labels, in Prometheus' text form; 0 where there is none.
pub fn metric_sum(text: &str, name: &str) -> f64 {
    text.lines()
        .filter_map(|line| line.strip_prefix(name))
        .filter(|rest| rest.starts_with(['{', ' ']))
        .filter_map(|rest| rest.rsplit_once(' ')?.1.parse::<f64>().ok())
        // `sum` of nothing is a negative zero.
        .fold(0.0, |sum, sample| sum + sample)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_of_a_metric_are_summed_over_its_labels() {
        let text = "# HELP a_total x\n# TYPE a_total counter\na_total{project=\"p q\"} 3\na_total{project=\"r\"} 4\n\
                    a_total_more 100\nb_total 7\n";
        for (name, expected) in [("a_total", 7.0), ("b_total", 7.0), ("c_total", 0.0)] {
            assert_eq!(metric_sum(text, name).to_bits(), f64::to_bits(expected), "{name}");
        }
    }
}
