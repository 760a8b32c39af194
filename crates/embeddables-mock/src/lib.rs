//! A mock of the Embeddables events API: every documented answer, and faults on demand.
//!
//! It is written from the documentation of the API alone and shares no code with the sidecar's model or
//! HTTP client, so that a wire mistake made there is seen here.
//!
//! # Invariants
//! 1. What the mock accepts, the documented API accepts: where two sources differ, the stricter one counts.
//! 2. A refusal names every reason at once.
//! 3. Every complete request outside `/_mock/` is counted exactly once, whatever becomes of its answer:
//!    requests = answered, by status + unanswered + in flight.
//! 4. A fault step is consumed by exactly one request, in the order in which steps were pushed.
//! 5. Memory is bounded: the record of requests drops its oldest ones, and says how many.
//!
//! The way of a request, by module: `server` and `connection` (socket, `tls`) → `handler` (what is decided
//! of it) → `control` if it is for `/_mock/`, else `route` → `faults` and `fault_plan` → `upstream` (the
//! documented API, with `event_body`, `strict_json`, `settings`, `admission`) → `answer`; seen by `received`, `record` and
//! `counts`.
//!
//! Absent: persistence, rate limits that nobody configured, any call to the real API.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use embeddables_mock::{FaultScript, Mock, MockConfig, Step};
//!
//! let mock = Mock::start(MockConfig::default()).await?;
//! mock.push_faults(FaultScript::once([Step::status(503).with_retry_after("2")]))?;
//! // … point a client at mock.url() …
//! assert_eq!(mock.counts().created, 1);
//! mock.shutdown().await;
//! # Ok(())
//! # }
//! ```

mod admission;
mod answer;
mod connection;
mod control;
mod counts;
mod event_body;
mod fault_plan;
mod faults;
mod handler;
mod received;
mod record;
mod route;
mod server;
mod settings;
mod strict_json;
mod tls;
mod upstream;

pub use counts::{Counts, ProjectCounts};
pub use faults::{FaultError, FaultScript, ResetPoint, RetryAfter, Step, Truncate};
pub use record::{ReceivedRequest, RecordedAnswer, RequestState, Requests};
pub use server::{Mock, MockConfig};
pub use settings::{Entry, Settings, SettingsError};
pub use tls::{SelfSigned, TlsIdentity, self_signed_tls};
