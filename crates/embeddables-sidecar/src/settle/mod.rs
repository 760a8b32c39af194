//! Last room: what an attempt means for its event, written into the queue.
//!
//! # Invariants
//! 1. Every lease ends in exactly one settlement, or is left open on purpose when the process ends ([`InFlight`]).
//! 2. Whoever waits for an event hears of its settlement only after it is on disk ([`Feed`]).
//! 3. Nothing is sent while settlements cannot be written.

pub mod progress;
pub mod rules;

mod feed;
mod in_flight;

pub use feed::Feed;
pub use in_flight::InFlight;
