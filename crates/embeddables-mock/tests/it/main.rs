//! The real mock over TCP: every documented answer, every fault, on HTTP/1.1 and HTTP/2, plain and with TLS.

mod api;
mod control;
mod faults;
mod process;
mod support;
mod transport;
