//! Load generator, null server, bare client and side-by-side runs: how fast the sidecar is beside what tonic and reqwest
//! allow at all, and how it delivers where upstream is slow, throttles or refuses.
//!
//! Each part is a process of its own, so that none hides in another's CPU time. In the order of a run:
//!
//! # Invariants
//! 1. Both sides of a comparison get the same bytes from the same load generator, on fresh processes, in one run.
//! 2. The sidecar is measured as it is released: its binary, its defaults, its full durability.
//! 3. Every answer is looked at; an error or a refusal makes a measurement invalid and is never counted as throughput.
//! 4. Everything is bounded in time, stays on the loopback, and ends the processes that it started.
//!
//! Absent on purpose: a link to the sidecar's or the mock's code. They are met as processes only.

pub mod bare;
pub mod event;
pub mod null_server;

pub mod load;

pub mod run;

pub mod child;
mod http_client;
pub mod http_control;
pub mod proc_fs;
pub mod statistics;
