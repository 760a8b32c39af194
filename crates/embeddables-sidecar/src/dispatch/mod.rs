//! Fourth room: which event is tried next, and when.
//!
//! # Invariants
//! 1. Every lane runs by itself: what happens in one is not felt in another.
//! 2. A lane sends only while every gate is open (`gates`), and has at most `max_in_flight` attempts under way; a waiting event
//!    counts for none.
//! 3. A lane claims only what it can try at once, and nothing while its settlements cannot be written.
//! 4. Due times are kept on the steady clock.

pub mod board;
pub mod lane;
pub mod schedule;

mod gates;
mod identifiers;
mod note;
mod pulse;

pub use gates::{GateSettings, ProbeIntervals};
pub use lane::{Lane, LaneParts, LaneSettings, Stop};
pub use note::latest_steady;
pub use pulse::Pulse;
