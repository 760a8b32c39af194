//! Logs and metrics. Neither ever holds a key, an identifier or a property.

pub mod books;
pub mod lanes;
pub mod metrics;

use std::io::{IsTerminal as _, stderr};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::time::SystemTime;

use crate::config::{LogConfig, LogFormat};

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// `log.level` is not a filter.
    #[error("log.level: `{level}` is not a level or a filter such as `info,embeddables_sidecar=debug`")]
    Level {
        /// As configured.
        level: String,
        /// What the parser says.
        source: tracing_subscriber::filter::ParseError,
    },
    /// Logging was set up before.
    #[error("logging was set up twice")]
    Twice(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Sends logs to stderr from now on; stdout is for results.
///
/// # Errors
/// On a level that is none.
pub fn init_logging(log: &LogConfig) -> Result<(), LoggingError> {
    let filter = EnvFilter::try_new(&log.level).map_err(|source| LoggingError::Level {
        level: log.level.clone(),
        source,
    })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr)
        .with_timer(SystemTime);
    match log.format {
        LogFormat::Text => builder
            .with_ansi(stderr().is_terminal())
            .with_target(false)
            .try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    }
    .map_err(LoggingError::Twice)
}
