//! Dead letters back into the queue.
//!
//! # Invariants
//! 1. What was tried before stays noted: an ambiguous attempt is not forgotten by a replay.
//! 2. Each replay is told from the one before by its number, so that nothing swallows a second one.
//! 3. At most [`STEP`] dead letters are under way at once; what was replayed is replayed, wherever the call ends.

use bytes::Bytes;
use embeddables_core::ProjectId;
use embeddables_proto::admin::v1 as proto;
use embeddables_queue::{DeadLetter, Sequence, Store, TakeAs};
use futures_util::future::try_join_all;
use tonic::Status;

use super::{SELECTION_UNCLEAR, bad, dead_letters, no_dead_letter};
use crate::enqueue::lane;
use crate::ingest::refusal::Refusal;
use crate::settle::progress::Progress;

/// Most ids in one call.
const MOST_IDS: usize = 1_000;

/// Dead letters taken at once. Each brings its payload along when it is read, and the store commits them together.
const STEP: usize = 64;

/// Replays what the request names.
pub(super) async fn replay(
    store: &dyn Store,
    project: &ProjectId,
    request: proto::ReplayDeadLettersRequest,
) -> Result<proto::ReplayDeadLettersResponse, Status> {
    let count = request.event_ids.len();
    let is_clear = match request.all {
        true => count == 0,
        false => (1..=MOST_IDS).contains(&count) && request.reason.is_empty(),
    };
    if !is_clear {
        return Err(bad(&SELECTION_UNCLEAR));
    }
    if request.all {
        let replayed_count = all(store, project, &request.reason).await?;
        return Ok(proto::ReplayDeadLettersResponse {
            replayed_count,
            unknown_event_ids: Vec::new(),
        });
    }
    by_id(store, project, request.event_ids).await
}

async fn by_id(
    store: &dyn Store,
    project: &ProjectId,
    mut ids: Vec<String>,
) -> Result<proto::ReplayDeadLettersResponse, Status> {
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    let mut answer = proto::ReplayDeadLettersResponse::default();
    for step in ids.chunks(STEP) {
        let mut letters = Vec::with_capacity(step.len());
        for id in step {
            match dead_letters::find(store, project, id).await? {
                Some(letter) => letters.push(letter),
                None => answer.unknown_event_ids.push(id.clone()),
            }
        }
        answer.replayed_count += take(store, &letters).await?;
    }
    tracing::debug!(
        asked = count,
        replayed = answer.replayed_count,
        "dead letters replayed by id"
    );
    if answer.replayed_count == 0 {
        return Err(no_dead_letter());
    }
    Ok(answer)
}

/// Replays all that are there when it begins: one that is given up again meanwhile has a newer sequence.
async fn all(store: &dyn Store, project: &ProjectId, reason: &str) -> Result<i64, Status> {
    let (lane, newest) = (lane(project), store.books().newest_sequence);
    let mut after = Sequence(0);
    let mut replayed_count = 0;
    loop {
        let letters = dead_letters::read(store, Some(&lane), after, STEP).await?;
        let Some(last) = letters.last() else {
            return Ok(replayed_count);
        };
        after = last.sequence;
        let meant: Vec<_> = letters
            .into_iter()
            .filter(|letter| letter.sequence <= newest && (reason.is_empty() || *reason == *letter.reason))
            .collect();
        replayed_count += take(store, &meant).await?;
        if after >= newest {
            return Ok(replayed_count);
        }
    }
}

/// Takes dead letters, each with its own progress, all at once; returns how many were still there.
async fn take(store: &dyn Store, letters: &[DeadLetter]) -> Result<i64, Status> {
    let takes = letters.iter().map(|letter| async move {
        let progress = progress(&letter.progress);
        store.take(&[letter.sequence], TakeAs::Replay { progress }).await
    });
    let taken = try_join_all(takes).await.map_err(|error| {
        tracing::error!(
            error = &error as &dyn std::error::Error,
            "dead letters could not be replayed"
        );
        Refusal::StorageRefused.to_status("")
    })?;
    Ok(i64::try_from(taken.into_iter().sum::<usize>()).unwrap_or(i64::MAX))
}

/// What an event begins again with: its attempts, and nothing of where they had brought it.
fn progress(bytes: &Bytes) -> Bytes {
    match Progress::decode_bytes(bytes) {
        Ok(progress) => Progress {
            attempt_count: progress.attempt_count,
            attempts: progress.attempts,
            possible_duplicate: progress.possible_duplicate,
            replay_count: progress.replay_count.saturating_add(1),
            ..Progress::default()
        }
        .encode_bytes(),
        // A newer release wrote it: its own rules will read it.
        Err(_) => bytes.clone(),
    }
}

#[cfg(test)]
mod tests {
    use embeddables_queue::UnixMillis;

    use super::*;

    #[test]
    fn a_replay_keeps_the_attempts_and_begins_everything_else_anew() {
        let mut before = Progress {
            backoff_step: 7,
            parked_age_ms: Some(5),
            entry_step: 3,
            entry_tried: true,
            reason: "MAX_AGE".to_owned(),
            message: "words".to_owned(),
            upstream_body: "more words".to_owned(),
            http_status: 503,
            possible_duplicate: true,
            ..Progress::default()
        };
        before.note_interruption(UnixMillis(1));
        let bytes = progress(&before.encode_bytes());
        let after = Progress::decode_bytes(&bytes).expect("decodes");
        let expected = Progress {
            attempt_count: 1,
            attempts: before.attempts.clone(),
            possible_duplicate: true,
            replay_count: 1,
            ..Progress::default()
        };
        assert_eq!(after, expected);
        assert_ne!(progress(&bytes), bytes, "a second replay is told from the first");
    }

    #[test]
    fn what_a_newer_release_wrote_is_left_as_it_is() {
        let bytes = Bytes::from_static(&[9, 1, 2]);
        assert_eq!(progress(&bytes), bytes);
    }
}
