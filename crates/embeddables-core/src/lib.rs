//! Model and rules of Embeddables events: no I/O, no clock, no async.
