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
    match look(bound, &mut probe).await {
        Some(value) => value,
        None => panic!("waited {bound:?} in vain for {what}"),
    }
}

/// Asks `probe` until it gives something; whether it did within `bound`.
pub async fn holds_within(bound: Duration, mut probe: impl AsyncFnMut() -> Option<()>) -> bool {
    look(bound, &mut probe).await.is_some()
}

async fn look<T>(bound: Duration, probe: &mut impl AsyncFnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + bound;
    loop {
        let found = probe().await;
        if found.is_some() || Instant::now() >= deadline {
            return found;
        }
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
