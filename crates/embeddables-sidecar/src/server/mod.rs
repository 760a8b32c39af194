//! Start and end: what is opened in which order, and how it is closed.
//!
//! # Invariants
//! 1. Nothing is written before the configuration was checked and every address is bound.
//! 2. Ready means: the store is open and every listener answers.
//! 3. At the end new events are refused first, then lanes finish, then the store is synced and closed, then listeners end.

pub mod connections;
pub mod grpc;
pub mod http_server;
pub mod listeners;
pub mod ops;

mod key_files;
mod lanes;
mod running;
mod start;
mod store;

pub use listeners::Addresses;
pub use running::{Running, ShutdownReport};
pub use start::{Sidecar, StartError};
