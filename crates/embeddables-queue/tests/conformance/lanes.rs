//! What is kept of a lane besides its records: its state, its share of the room.

use std::time::Duration;

use bytes::Bytes;
use embeddables_queue::{
    Append, Backlog, DeadLetters as _, LaneState, Ledger as _, NewRecord, OutcomeSpan, Queue as _, Refused,
    Sequence, SettleError, Store, TakeAs,
};

use crate::backend::{
    Backend, MEMORY, append, claim, claim_of, dead, delivered, ids, lane, record, settle, try_append, wait,
};

/// Room of a record whose content is one byte.
const ONE: u64 = 257;

fn state(ageing: bool, note: &'static str) -> LaneState {
    LaneState {
        ageing,
        note: Bytes::from_static(note.as_bytes()),
    }
}

async fn write(store: &impl Store, ageing: bool) {
    store
        .write_lane_state(&lane("a"), state(ageing, ""))
        .await
        .unwrap();
}

async fn ages(store: &impl Store) -> Vec<(String, u64)> {
    let claimed = claim(store, 99, 1).await;
    let mut ages = Vec::new();
    for lease in claimed.leases {
        ages.push((lease.id.to_string(), lease.age.as_secs()));
        settle(store, &lease, embeddables_queue::Disposition::Release).await;
    }
    ages
}

pub(crate) async fn the_state_of_a_lane_is_kept<B: Backend>(backend: B) {
    let store = backend.open();
    assert_eq!(store.lane_state(&lane("a")), LaneState::default());
    assert!(store.lane_state(&lane("a")).ageing);
    for wanted in [
        state(false, "held"),
        state(true, "open"),
        state(false, "held again"),
    ] {
        store.write_lane_state(&lane("a"), wanted.clone()).await.unwrap();
        assert_eq!(store.lane_state(&lane("a")), wanted);
    }
    assert_eq!(store.lane_state(&lane("b")), LaneState::default());
    backend.kill(store);
    let store = backend.open();
    assert_eq!(store.lane_state(&lane("a")), state(false, "held again"));
    assert_eq!(store.lane_state(&lane("nowhere")), LaneState::default());
    let refused = store.write_lane_state(&lane("nowhere"), state(true, "")).await;
    assert!(matches!(refused, Err(SettleError::Write(_))));
    store.close().await;
    let refused = store.write_lane_state(&lane("a"), state(true, "")).await;
    assert!(matches!(refused, Err(SettleError::Closed)));
}

pub(crate) async fn a_lane_that_is_stopped_does_not_age<B: Backend>(mut backend: B) {
    let clock = backend.settings().clock.clone();
    let mut store = backend.open();
    append(&*store, &["1"]).await;
    clock.advance(Duration::from_secs(10));
    write(&*store, false).await;
    clock.advance(Duration::from_secs(100));
    append(&*store, &["2"]).await;
    assert!(try_append(&*store, vec![record("b", "3", "x")]).await[0].is_ok());
    clock.advance(Duration::from_secs(100));
    assert_eq!(ages(&*store).await, [("1".into(), 10), ("2".into(), 0)]);
    let other = store.claim(claim_of("b", 1, 1)).await.unwrap();
    assert_eq!(other.leases[0].age.as_secs(), 100, "another lane ages");
    // What it had aged survives a restart, and so does that it stands.
    store.close().await;
    drop(store);
    clock.advance(Duration::from_secs(1_000));
    store = backend.open();
    clock.advance(Duration::from_secs(50));
    assert_eq!(ages(&*store).await, [("1".into(), 10), ("2".into(), 0)]);
    write(&*store, true).await;
    clock.advance(Duration::from_secs(5));
    assert_eq!(ages(&*store).await, [("1".into(), 15), ("2".into(), 5)]);
    append(&*store, &["4"]).await;
    clock.advance(Duration::from_secs(1));
    assert_eq!(
        ages(&*store).await,
        [("1".into(), 16), ("2".into(), 6), ("4".into(), 1)]
    );
}

pub(crate) async fn a_replayed_record_is_young_again<B: Backend>(mut backend: B) {
    let clock = backend.settings().clock.clone();
    let store = backend.open();
    append(&*store, &["1"]).await;
    clock.advance(Duration::from_secs(10));
    let claimed = claim(&*store, 1, 1).await;
    settle(&*store, &claimed.leases[0], dead("r")).await;
    clock.advance(Duration::from_secs(10));
    let take_as = TakeAs::Replay {
        progress: Bytes::new(),
    };
    assert_eq!(
        store.take(&[claimed.leases[0].sequence], take_as).await.unwrap(),
        1
    );
    clock.advance(Duration::from_secs(3));
    assert_eq!(ages(&*store).await, [("1".into(), 3)]);
}

pub(crate) async fn a_lane_at_its_share_takes_nothing_new_and_leaves_the_others_alone<B: Backend>(
    mut backend: B,
) {
    backend.settings().lane_share_bytes = 2 * ONE;
    let store = backend.open();
    append(&*store, &["1", "2"]).await;
    let results = try_append(
        &*store,
        vec![
            record("a", "3", "3"),
            record("a", "1", "1"),
            record("b", "1", "1"),
        ],
    )
    .await;
    let full = Refused::LaneFull {
        used_bytes: 2 * ONE,
        share_bytes: 2 * ONE,
    };
    assert_eq!(results[0], Err(full));
    assert!(results[1].unwrap().duplicate, "known ones are answered");
    assert!(results[2].is_ok());
    let call = Append {
        records: vec![
            record("b", "2", "2"),
            record("b", "3", "3"),
            record("a", "1", "1"),
        ],
        durability: MEMORY,
        atomic: true,
    };
    let atomic = store.append(call).await.unwrap();
    assert_eq!(
        atomic,
        [Err(Refused::NotAlone), Err(full), Err(Refused::NotAlone)],
        "room promised within the call counts"
    );
    let claimed = claim(&*store, 1, 1).await;
    settle(&*store, &claimed.leases[0], delivered(2)).await;
    append(&*store, &["3"]).await;
    let books = &store.books().lanes;
    assert_eq!((books[0].1.used_bytes, books[1].1.used_bytes), (2 * ONE, ONE));
}

pub(crate) async fn a_full_queue_is_told_before_a_full_lane<B: Backend>(mut backend: B) {
    backend.settings().max_bytes = ONE;
    backend.settings().lane_share_bytes = ONE;
    let store = backend.open();
    append(&*store, &["1"]).await;
    let refused = try_append(&*store, vec![record("a", "2", "2")]).await[0];
    assert!(matches!(refused, Err(Refused::Full { .. })), "{refused:?}");
}

pub(crate) async fn dead_letters_at_their_share_keep_new_records_out<B: Backend>(mut backend: B) {
    // A dead letter keeps three bytes of progress.
    backend.settings().dead_letter_share_bytes = 2 * (ONE + 3);
    let mut store = backend.open();
    append(&*store, &["1", "2", "3"]).await;
    let claimed = claim(&*store, 3, 1).await;
    settle(&*store, &claimed.leases[0], dead("r")).await;
    append(&*store, &["4"]).await;
    settle(&*store, &claimed.leases[1], dead("r")).await;
    let full = Refused::DeadLettersFull {
        used_bytes: 2 * (ONE + 3),
        share_bytes: 2 * (ONE + 3),
    };
    let new = || {
        try_append(
            &*store,
            vec![
                record("a", "5", "5"),
                record("a", "1", "1"),
                record("b", "1", "1"),
            ],
        )
    };
    let results = new().await;
    assert_eq!(results[0], Err(full));
    assert!(results[1].unwrap().duplicate && results[2].is_ok());
    settle(&*store, &claimed.leases[2], dead("r")).await;
    assert_eq!(
        store.books().lanes[0].1.dead_letter_bytes,
        3 * (ONE + 3),
        "settling never fails"
    );
    backend.kill(store);
    store = backend.open();
    assert_eq!(store.books().lanes[0].1.dead_letter_bytes, 3 * (ONE + 3));
    let sequences: Vec<Sequence> = claimed.leases.iter().map(|lease| lease.sequence).collect();
    let replay = TakeAs::Replay {
        progress: Bytes::new(),
    };
    assert_eq!(
        store.take(&sequences[..1], replay).await.unwrap(),
        1,
        "a replay is not refused"
    );
    let discard = TakeAs::Discard {
        time: embeddables_queue::UnixMillis(3),
    };
    assert_eq!(store.take(&sequences[1..2], discard).await.unwrap(), 1);
    append(&*store, &["5"]).await;
    assert_eq!(store.books().lanes[0].1.dead_letter_bytes, ONE + 3);
}

pub(crate) async fn the_newest_outcome_is_told<B: Backend>(mut backend: B) {
    backend.settings().dedupe_ids = 2;
    let store = backend.open();
    let mut newest = store.newest_outcome();
    assert_eq!(*newest.borrow_and_update(), 0);
    assert_eq!(store.books().outcomes, OutcomeSpan { oldest: 1, newest: 0 });
    append(&*store, &["1", "2", "3"]).await;
    assert!(!newest.has_changed().unwrap(), "nothing has left");
    for lease in &claim(&*store, 3, 1).await.leases {
        settle(&*store, lease, delivered(2)).await;
    }
    newest.changed().await.unwrap();
    assert_eq!(*newest.borrow_and_update(), 3);
    let books = store.books();
    assert_eq!(books.outcomes, OutcomeSpan { oldest: 2, newest: 3 });
    assert_eq!(books.newest_sequence, Sequence(3));
    backend.kill(store);
    let store = backend.open();
    assert_eq!(*store.newest_outcome().borrow(), 3);
    assert_eq!(store.books().outcomes, OutcomeSpan { oldest: 2, newest: 3 });
    assert_eq!(store.books().newest_sequence, Sequence(3));
}

pub(crate) async fn a_backlog_is_counted_up_to_a_sequence<B: Backend>(backend: B) {
    let store = backend.open();
    let appended = append(&*store, &["1", "2", "3", "4", "5"]).await;
    assert!(try_append(&*store, vec![record("b", "6", "6")]).await[0].is_ok());
    let claimed = claim(&*store, 3, 1).await;
    assert_eq!(ids(&claimed.leases), ["1", "2", "3"]);
    settle(&*store, &claimed.leases[0], wait(9)).await;
    settle(&*store, &claimed.leases[1], delivered(2)).await;
    let count = async |name: &str, up_to: u64| {
        let Backlog { ready, waiting } = store.backlog(&lane(name), Sequence(up_to)).await.unwrap();
        (ready, waiting)
    };
    assert_eq!(count("a", 0).await, (0, 0));
    assert_eq!(
        count("a", appended[3].sequence.0).await,
        (2, 1),
        "a leased one counts"
    );
    assert_eq!(count("a", u64::MAX).await, (3, 1));
    assert_eq!(
        (count("b", u64::MAX).await, count("nowhere", 9).await),
        ((1, 0), (0, 0))
    );
}

pub(crate) async fn a_deadline_takes_no_room<B: Backend>(mut backend: B) {
    backend.settings().max_bytes = ONE;
    let store = backend.open();
    let timed = NewRecord {
        deadline: Some(embeddables_queue::UnixMillis(5)),
        ..record("a", "1", "1")
    };
    assert!(try_append(&*store, vec![timed]).await[0].is_ok());
    assert_eq!(store.capacity().used_bytes, ONE);
}
