//! The sidecar as a process, end to end. Each module is one promise; the harness is in the library.

mod vectors;

mod duplicates;
mod refusals;
mod rules;
mod streams;

mod backlog;
mod outcomes;
mod upstream_answers;
mod upstream_cuts;
mod upstream_down;
mod upstream_tls;

mod ambiguity;
mod flow;
mod holds;
mod keys;
mod order;
mod parking;
mod recovery;
mod retry_after;
mod shares;

mod deliver_before;
mod waits;
mod watching;

mod documents;

mod dead_letters;
mod operator_commands;
mod operators;

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
