//! The Embeddables sidecar: a service makes one local gRPC call, and from the moment it is acknowledged its event reaches the
//! events API, or somebody is told why not.
//!
//! Each room that an event passes is a module, listed here in the order of the flow. The type says how far it has come:
//! `proto::Event` → [`Event`](embeddables_core::Event) → [`ValidEvent`](embeddables_core::ValidEvent) →
//! [`NewRecord`](embeddables_queue::NewRecord) → [`Lease`](embeddables_queue::Lease) →
//! [`Attempt`](embeddables_core::Attempt) → [`Settlement`](embeddables_queue::Settlement).
//!
//! Three arrows run back and no other: the answer to the caller, a refusal when there is no room, and what *settle* writes
//! into the queue.

// The flow.
pub mod deliver;
pub mod dispatch;
pub mod enqueue;
pub mod ingest;
pub mod settle;
pub mod validate;

// Around the flow.
pub mod admin;
pub mod clock;
pub mod commands;
pub mod config;
pub mod pipeline;
pub mod server;
pub mod telemetry;

#[cfg(test)]
mod testing;
