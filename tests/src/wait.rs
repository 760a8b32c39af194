//! Waiting for a condition, never for a time.

use std::fmt::Display;
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How long a condition may take that should hold soon: generous, since test machines are busy.
pub const SOON: Duration = Duration::from_secs(30);

/// How long the drain of a large backlog may take.
pub const LONG: Duration = Duration::from_secs(120);

/// Time between two looks at a condition.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Asks `probe` until it gives a value.
///
/// # Panics
/// Where that takes longer than `bound`; `what` says in the message what was waited for.
pub async fn until<T>(what: impl Display, bound: Duration, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + bound;
    loop {
        if let Some(value) = probe().await {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {bound:?} in vain for {what}");
        sleep(LOOK_EVERY).await;
    }
}

/// Waits for `future`.
///
/// # Panics
/// Where that takes longer than `bound`; `what` says in the message what was waited for.
pub async fn within<T>(what: impl Display, bound: Duration, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(bound, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {bound:?} in vain for {what}"),
    }
}
