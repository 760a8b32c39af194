//! How the sidecar is set up in every measurement: its defaults, but for where it listens and what it keeps where.

use std::path::{Path, PathBuf};

use super::mock::Mock;

/// Room for all that a measurement accepts: the default of 1 GiB can be full within seconds. A limit, not a setting of speed.
const QUEUE_MAX_BYTES: &str = "32GiB";
/// Nobody listens there, and nobody is asked.
const NO_UPSTREAM: &str = "http://127.0.0.1:9";

/// Where the queue of a sidecar is that works in `work`.
pub(crate) fn queue_dir(work: &Path) -> PathBuf {
    work.join("queue")
}

/// The environment of a sidecar that keeps its queue in `work`. Projects and keys come on top.
pub(crate) fn environment(
    work: &Path,
    delivers: bool,
    upstream: Option<&Mock>,
) -> Vec<(&'static str, String)> {
    let any_port = || "127.0.0.1:0".to_owned();
    let url = upstream.map_or(NO_UPSTREAM, |mock| &mock.url);
    let mut environment = vec![
        ("EMBEDDABLES_API_URL", url.to_owned()),
        ("EMBEDDABLES_SIDECAR__LISTEN__GRPC", any_port()),
        ("EMBEDDABLES_SIDECAR__LISTEN__HTTP", any_port()),
        ("EMBEDDABLES_SIDECAR__LISTEN__OPS", any_port()),
        ("EMBEDDABLES_SIDECAR__LISTEN__ADMIN", any_port()),
        (
            "EMBEDDABLES_SIDECAR__QUEUE__DIR",
            queue_dir(work).display().to_string(),
        ),
        (
            "EMBEDDABLES_SIDECAR__QUEUE__MAX_BYTES",
            QUEUE_MAX_BYTES.to_owned(),
        ),
        ("EMBEDDABLES_SIDECAR__DELIVERY__ENABLED", delivers.to_string()),
    ];
    if let Some(ca_file) = upstream.and_then(|mock| mock.ca_file.as_ref()) {
        environment.push((
            "EMBEDDABLES_SIDECAR__UPSTREAM__CA_FILE",
            ca_file.display().to_string(),
        ));
    }
    environment
}
