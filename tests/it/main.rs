//! The sidecar as a process, end to end. Each module is one promise; the harness is in the library.

mod vectors;

mod duplicates;
mod refusals;
mod rules;
mod streams;

mod backlog;
mod outcomes;
mod upstream_tls;

mod crash;
mod disk_full;
mod shutdown;
mod sync_failure;

mod bad_input;
mod secrets;
mod start_up;

mod clients;
mod commands;
mod listeners;
