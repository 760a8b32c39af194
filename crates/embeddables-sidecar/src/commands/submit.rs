//! Sends one batch for as long as it takes: what may succeed later is sent again with the same ids.
//!
//! # Invariants
//! 1. Every event of the batch has exactly one result, in order: the sidecar's, or one that says why there is none.
//! 2. An event is sent again only where the sidecar says that this is worth it, or where the connection broke; its id makes
//!    that safe.
//! 3. Nothing is sent after the deadline.

use std::time::Duration;

use embeddables_proto::events::v1::{
    Event, PublishEventsRequest, PublishEventsResponse, PublishOptions, PublishResult, Refusal,
    publish_result,
};
use tokio::time::{Instant, sleep};
use tonic::{Code, Status};

use super::status;

/// First wait where the sidecar names none; doubles up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// What became of a batch.
#[derive(Debug)]
pub(super) struct Submitted {
    /// A result for each event.
    pub(super) results: Vec<PublishResult>,
    /// The error that ended it early; then some results only repeat it.
    pub(super) error: Option<Status>,
}

/// Sends a batch through `call` until each event has a final result or `timeout` is over.
pub(super) async fn submit(
    events: &[Event],
    options: PublishOptions,
    timeout: Duration,
    mut call: impl AsyncFnMut(PublishEventsRequest, Duration) -> Result<PublishEventsResponse, Status>,
) -> Submitted {
    let deadline = Instant::now() + timeout;
    let mut results: Vec<Option<PublishResult>> = vec![None; events.len()];
    let mut pending: Vec<usize> = (0..events.len()).collect();
    let mut backoff = FIRST_WAIT;
    loop {
        let request = PublishEventsRequest {
            events: pending.iter().map(|&index| events[index].clone()).collect(),
            options: Some(options),
            all_or_nothing: false,
        };
        let answer = call(request, deadline.saturating_duration_since(Instant::now())).await;
        let (asked, error) = match answer {
            Ok(response) if response.results.len() == pending.len() => {
                let asked = take_results(response.results, &mut pending, &mut results);
                if pending.is_empty() {
                    return all(results, None);
                }
                (asked, None)
            }
            Ok(_) => {
                return all(
                    results,
                    Some(Status::internal(
                        "the sidecar answered with another number of results",
                    )),
                );
            }
            Err(error) if !status::is_retryable(&error) => return all(results, Some(error)),
            Err(error) => (status::retry_delay(&error), Some(error)),
        };
        match after(asked, backoff, deadline) {
            Some(wait) => sleep(wait).await,
            // Where no call failed, the refusals that were kept say why.
            None => return all(results, error),
        }
        backoff = (backoff * 2).min(LONGEST_WAIT);
    }
}

/// Takes results in; leaves in `pending` what is worth another try, and returns the longest wait asked for.
fn take_results(
    answers: Vec<PublishResult>,
    pending: &mut Vec<usize>,
    results: &mut [Option<PublishResult>],
) -> Option<Duration> {
    let mut again = Vec::new();
    let mut longest = None;
    for (index, result) in pending.iter().copied().zip(answers) {
        if let Some(delay) = worth_another_try(&result) {
            again.push(index);
            longest = longest.max(Some(delay));
        }
        // Kept in any case: where the time is over, it is the last word.
        results[index] = Some(result);
    }
    *pending = again;
    longest
}

fn worth_another_try(result: &PublishResult) -> Option<Duration> {
    let Some(publish_result::Result::Refusal(refusal)) = &result.result else {
        return None;
    };
    let is_retryable = matches!(
        Code::from_i32(refusal.code),
        Code::Unavailable | Code::ResourceExhausted
    );
    refusal
        .retry_delay
        .filter(|_| is_retryable)
        .map(|delay| Duration::try_from(delay).unwrap_or_default())
}

/// The wait before the next try; none where that would be after the deadline.
fn after(asked: Option<Duration>, backoff: Duration, deadline: Instant) -> Option<Duration> {
    let wait = asked.unwrap_or_default().max(backoff);
    (Instant::now() + wait < deadline).then_some(wait)
}

/// A result for each event: where there is none, what ended the call says why.
fn all(results: Vec<Option<PublishResult>>, error: Option<Status>) -> Submitted {
    let unknown = error.as_ref().map(|error| {
        let refusal = Refusal {
            code: error.code().into(),
            reason: status::reason(error),
            message: error.message().to_owned(),
            violations: Vec::new(),
            retry_delay: None,
        };
        PublishResult {
            result: Some(publish_result::Result::Refusal(refusal)),
        }
    });
    Submitted {
        results: results
            .into_iter()
            .filter_map(|result| result.or_else(|| unknown.clone()))
            .collect(),
        error,
    }
}

#[cfg(test)]
mod tests {
    use embeddables_proto::events::v1::EventStatus;

    use super::*;

    fn events(ids: &[&str]) -> Vec<Event> {
        ids.iter()
            .map(|&id| Event {
                event_id: id.to_owned(),
                ..Event::default()
            })
            .collect()
    }

    fn taken(id: &str) -> PublishResult {
        let status = EventStatus {
            event_id: id.to_owned(),
            ..EventStatus::default()
        };
        PublishResult {
            result: Some(publish_result::Result::Status(status)),
        }
    }

    fn refused(code: Code, delay: Option<i64>) -> PublishResult {
        let retry_delay = delay.map(|seconds| prost_types::Duration { seconds, nanos: 0 });
        let refusal = Refusal {
            code: code.into(),
            retry_delay,
            ..Refusal::default()
        };
        PublishResult {
            result: Some(publish_result::Result::Refusal(refusal)),
        }
    }

    /// Submits with one scripted answer a call; returns what became of it, the ids of each call and the time it took.
    async fn run(
        ids: &[&str],
        answers: Vec<Result<Vec<PublishResult>, Status>>,
    ) -> (Submitted, Vec<Vec<String>>, Duration) {
        let start = Instant::now();
        let mut answers = answers.into_iter();
        let mut calls = Vec::new();
        let submitted = submit(
            &events(ids),
            PublishOptions::default(),
            Duration::from_secs(30),
            async |request, _| {
                calls.push(request.events.into_iter().map(|event| event.event_id).collect());
                answers
                    .next()
                    .expect("one answer a call")
                    .map(|results| PublishEventsResponse { results })
            },
        )
        .await;
        (submitted, calls, start.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn an_unavailable_sidecar_is_asked_again_with_the_same_ids() {
        let (submitted, calls, _) = run(
            &["a", "b"],
            vec![
                Err(Status::unavailable("draining")),
                Ok(vec![taken("a"), taken("b")]),
            ],
        )
        .await;
        assert_eq!(calls, [["a", "b"], ["a", "b"]]);
        assert_eq!(submitted.results, [taken("a"), taken("b")]);
        assert!(submitted.error.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_is_worth_it_is_sent_again_after_the_wait_that_was_asked_for() {
        let first = vec![
            taken("a"),
            refused(Code::Unavailable, Some(3)),
            refused(Code::InvalidArgument, None),
        ];
        let (submitted, calls, elapsed) = run(&["a", "b", "c"], vec![Ok(first), Ok(vec![taken("b")])]).await;
        assert_eq!(calls, [vec!["a", "b", "c"], vec!["b"]]);
        assert_eq!(
            submitted.results,
            [taken("a"), taken("b"), refused(Code::InvalidArgument, None)]
        );
        assert_eq!(elapsed, Duration::from_secs(3));
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_is_bounded_and_the_last_word_is_kept() {
        let answers = (0..40).map(|_| Err(Status::unavailable("full"))).collect();
        let (submitted, calls, elapsed) = run(&["a"], answers).await;
        assert!(
            elapsed <= Duration::from_secs(30) && calls.len() > 5,
            "{elapsed:?}"
        );
        assert_eq!(submitted.error.unwrap().message(), "full");
        let Some(publish_result::Result::Refusal(refusal)) = &submitted.results[0].result else {
            panic!()
        };
        assert_eq!(refusal.message, "full");

        let (submitted, calls, _) = run(&["a"], vec![Ok(vec![refused(Code::Unavailable, Some(60))])]).await;
        assert_eq!(calls.len(), 1, "a wait beyond the deadline is not begun");
        assert_eq!(submitted.results, [refused(Code::Unavailable, Some(60))]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_never_succeeds_is_not_sent_again() {
        let (submitted, calls, _) = run(&["a"], vec![Err(Status::invalid_argument("no"))]).await;
        assert_eq!(calls.len(), 1);
        assert_eq!(submitted.error.unwrap().code(), Code::InvalidArgument);
        assert_eq!(submitted.results.len(), 1);
    }
}
