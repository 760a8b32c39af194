#![doc = include_str!("../README.md")]

mod api_key;
mod classify;
mod client;
mod config;
mod connections;
mod endpoint;
mod redact;
mod transport;
mod wire;

pub use api_key::{ApiKey, ApiKeyError};
pub use classify::{RETRY_AFTER_MAX, RETRY_AFTER_MIN, classify};
pub use client::{BODY_MAX_BYTES, Client, KeyCheck, KeyVerdict};
pub use config::{ClientConfig, ConfigError};
pub use connections::STREAMS_PER_CONNECTION;
pub use endpoint::{BaseUrl, BaseUrlError, Endpoint};
pub use wire::UpstreamRequest;
