//! The few plain HTTP requests of a run: control of the mock, metrics of the sidecar.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longest time for one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Sends one request over a connection of its own and gives the body of the answer.
///
/// # Errors
/// Where no answer comes in time, or one other than 2xx.
pub async fn request(method: Method, address: &str, path: &str, body: &str) -> anyhow::Result<String> {
    let exchange = exchange(&method, address, path, body);
    timeout(REQUEST_TIMEOUT, exchange)
        .await
        .context("no answer in time")
        .flatten()
        .with_context(|| format!("{method} http://{address}{path}"))
}

async fn exchange(method: &Method, address: &str, path: &str, body: &str) -> anyhow::Result<String> {
    let stream = TcpStream::connect(address).await?;
    let (mut send, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", address)
        .header("content-type", "application/json")
        .header("connection", "close")
        .body(Full::new(Bytes::from(body.to_owned())))?;
    let answer = async {
        let response = send.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        let body = String::from_utf8(body.to_vec())?;
        ensure!(status.is_success(), "answered {status}: {body}");
        Ok(body)
    };
    let (_closed, answer) = tokio::join!(connection, answer);
    answer
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
