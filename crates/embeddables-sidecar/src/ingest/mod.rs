//! First room: who calls, with what, and what they are told.
//!
//! # Invariants
//! 1. Any bytes on any listener get a clear answer: OK, or a code, a stable reason and a sentence.
//! 2. Every event is answered once: taken with its state, or refused and counted by its reason.
//! 3. A refusal that waiting cures says for how long to wait; one that it does not cure says so by its code.
//! 4. Nothing a caller sent is in a log or a metric.

pub mod admission;
pub mod bad_call;
pub mod convert;
pub mod cursor;
pub mod events_service;
pub mod flush;
pub mod http;
pub mod refusal;
pub mod remap;
pub mod status;

mod streaming;
mod watch;
