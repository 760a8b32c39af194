//! `health`: one question to `grpc.health.v1`, for exec probes.

use std::time::Duration;

use clap::Args;
use tonic::Request;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::failure::Failure;
use super::printer::Printer;
use super::{Global, OutputFormat, status};
use crate::config::units::parse_duration;

/// Arguments of `health`.
#[derive(Debug, Args)]
pub(super) struct HealthArgs {
    /// Longest wait for the answer
    #[arg(long, value_name = "DURATION", default_value = "3s", value_parser = parse_duration)]
    timeout: Duration,
}

/// Prints the state; the exit code is 0 only where the sidecar serves.
pub(super) async fn health(args: &HealthArgs, global: &Global, printer: &mut Printer) -> Result<u8, Failure> {
    let address = global.address()?;
    let ask = async {
        let mut client = HealthClient::new(address.connect().await?);
        let request = Request::new(HealthCheckRequest {
            service: String::new(),
        });
        let answer = client
            .check(request)
            .await
            .map_err(|error| Failure::new(status::describe(&error)))?;
        Ok::<_, Failure>(answer.into_inner().status())
    };
    let state = tokio::time::timeout(args.timeout, ask)
        .await
        .map_err(|_| Failure::new(format!("the sidecar at {address} did not answer in time")))??;
    match global.output {
        OutputFormat::Json => {
            printer.line(serde_json::json!({ "status": state.as_str_name() }).to_string())?
        }
        OutputFormat::Text => printer.line(state.as_str_name())?,
    }
    Ok(if state == ServingStatus::Serving {
        0
    } else {
        Failure::FAILED
    })
}
