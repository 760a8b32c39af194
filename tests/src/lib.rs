//! The harness of the end-to-end tests: the real sidecar as a process, the mock events API beside it.
//!
//! In the order in which a test needs them: [`stage`] puts an upstream and a sidecar on an empty directory, [`calls`] talks
//! to the sidecar, [`wait`] waits for what must come of it, [`metrics`] balances the books.
//!
//! # Invariants
//! 1. Nothing waits without a bound, and nothing waits for a time: only for a condition.
//! 2. Ports are 0 and directories are temporary: tests run side by side.
//! 3. Randomness comes from a seed that a failing test prints; `E2E_SEED` brings it back.
//! 4. What a machine cannot do (another language's toolchain, mounting, tracing) is skipped loudly, and fails where
//!    `CI=true`.
//!
//! Absent on purpose: any crate of the sidecar's own. A mistake shared with the code under test would be invisible.

pub mod stage;

pub mod key_file;
pub mod settings;
pub mod sidecar;
pub mod tries;
pub mod upstream;

pub mod event;

pub mod admin;
pub mod calls;
pub mod fuse;
pub mod load;
pub mod proxy;
pub mod raw;
pub mod rest;
pub mod scripted;
pub mod watching;

pub mod lanes;
pub mod metrics;
pub mod refusal;
pub mod wait;

pub mod gate;
pub mod random;
pub mod volume;

mod binary;
