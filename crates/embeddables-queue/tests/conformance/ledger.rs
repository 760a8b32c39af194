//! What the ledger promises.

use std::time::Duration;

use bytes::Bytes;
use embeddables_queue::{EntryState, Sequence, TakeAs, UnixMillis};

use embeddables_queue::{DeadLetters as _, Ledger as _, Queue as _};

use crate::backend::{
    Backend, append, check_balance, claim, claim_of, dead, delivered, lane, record, settle, try_append, wait,
};

async fn deliver(store: &impl embeddables_queue::Store, ids: &[&str]) {
    append(store, ids).await;
    for lease in claim(store, ids.len(), 1).await.leases {
        settle(store, &lease, delivered(2)).await;
    }
}

pub(crate) async fn an_id_is_found_in_every_state<B: Backend>(backend: B) {
    let store = backend.open();
    append(&*store, &["delivered", "waiting", "dead", "discarded", "ready"]).await;
    let claimed = claim(&*store, 4, 1).await;
    for (lease, disposition) in claimed
        .leases
        .iter()
        .zip([delivered(2), wait(9), dead("r"), dead("r")])
    {
        settle(&*store, lease, disposition).await;
    }
    store
        .take(
            &[claimed.leases[3].sequence],
            TakeAs::Discard { time: UnixMillis(8) },
        )
        .await
        .unwrap();
    let expected = [
        ("delivered", EntryState::Delivered { time: UnixMillis(2) }),
        ("waiting", EntryState::Waiting { until: UnixMillis(9) }),
        (
            "dead",
            EntryState::DeadLettered {
                time: UnixMillis(5),
                reason: "r".into(),
            },
        ),
        ("discarded", EntryState::Discarded { time: UnixMillis(8) }),
        ("ready", EntryState::Ready),
    ];
    for (id, state) in expected {
        let entry = store.find(&lane("a"), id).await.unwrap().unwrap();
        assert_eq!(
            (entry.state, entry.accept_time),
            (state, UnixMillis(1_000)),
            "{id}"
        );
    }
    assert!(store.find(&lane("a"), "unknown").await.unwrap().is_none());
    assert!(store.find(&lane("b"), "ready").await.unwrap().is_none());
}

pub(crate) async fn outcomes_are_dense_and_in_order<B: Backend>(backend: B) {
    let store = backend.open();
    deliver(&*store, &["1", "2", "3", "4", "5"]).await;
    let all = store.outcomes(0, 100).await.unwrap();
    assert_eq!(
        all.iter().map(|outcome| outcome.number).collect::<Vec<_>>(),
        [1, 2, 3, 4, 5]
    );
    assert_eq!(
        all.iter().map(|outcome| &*outcome.id).collect::<Vec<_>>(),
        ["1", "2", "3", "4", "5"]
    );
    let page = store.outcomes(2, 2).await.unwrap();
    assert_eq!(
        page.iter().map(|outcome| outcome.number).collect::<Vec<_>>(),
        [3, 4]
    );
    assert!(store.outcomes(5, 10).await.unwrap().is_empty());
}

pub(crate) async fn ids_beyond_the_bound_are_forgotten_and_counted<B: Backend>(mut backend: B) {
    backend.settings().dedupe_ids = 3;
    let store = backend.open();
    deliver(&*store, &["1", "2", "3", "4", "5"]).await;
    assert_eq!(store.books().evicted_ids, 2);
    assert!(store.find(&lane("a"), "2").await.unwrap().is_none());
    assert!(store.find(&lane("a"), "3").await.unwrap().is_some());
    assert_eq!(store.outcomes(0, 10).await.unwrap()[0].number, 3);
    let again = try_append(&*store, vec![record("a", "1", "1")]).await[0].unwrap();
    assert!(!again.duplicate, "a forgotten id is a new one");
    check_balance(&store.books());
}

pub(crate) async fn ids_older_than_the_window_are_forgotten_uncounted<B: Backend>(mut backend: B) {
    let clock = backend.settings().clock.clone();
    let window = backend.settings().dedupe_window;
    let store = backend.open();
    deliver(&*store, &["old"]).await;
    clock.advance(window / 2);
    deliver(&*store, &["young"]).await;
    clock.advance(window / 2);
    deliver(&*store, &["new"]).await;
    assert!(store.find(&lane("a"), "old").await.unwrap().is_none());
    assert!(store.find(&lane("a"), "young").await.unwrap().is_some());
    assert_eq!(store.books().evicted_ids, 0);
}

pub(crate) async fn a_dead_letter_and_a_waiting_record_keep_their_ids<B: Backend>(mut backend: B) {
    backend.settings().dedupe_ids = 1;
    let clock = backend.settings().clock.clone();
    let store = backend.open();
    append(&*store, &["dead", "waiting", "replayed"]).await;
    let claimed = claim(&*store, 3, 1).await;
    for (lease, disposition) in claimed.leases.iter().zip([dead("r"), wait(1_000), dead("r")]) {
        settle(&*store, lease, disposition).await;
    }
    store
        .take(
            &[claimed.leases[2].sequence],
            TakeAs::Replay {
                progress: Bytes::new(),
            },
        )
        .await
        .unwrap();
    let replayed = claim(&*store, 1, 1).await;
    clock.advance(Duration::from_secs(1_000_000));
    deliver(&*store, &["1", "2", "3"]).await;
    for id in ["dead", "waiting", "replayed"] {
        let repeat = try_append(&*store, vec![record("a", id, id)]).await[0].unwrap();
        assert!(repeat.duplicate, "{id}");
    }
    settle(&*store, &replayed.leases[0], delivered(2)).await;
    deliver(&*store, &["4", "5"]).await;
    assert!(store.find(&lane("a"), "replayed").await.unwrap().is_none());
}

pub(crate) async fn the_oldest_record_of_each_lane_is_known<B: Backend>(backend: B) {
    let store = backend.open();
    assert!(store.oldest().await.unwrap().is_empty());
    let at = |lane, id, time| embeddables_queue::NewRecord {
        accept_time: UnixMillis(time),
        ..record(lane, id, id)
    };
    let records = vec![
        at("a", "1", 10),
        at("b", "1", 20),
        at("a", "2", 30),
        at("a", "3", 40),
    ];
    assert!(try_append(&*store, records).await.iter().all(Result::is_ok));
    let oldest = store.oldest().await.unwrap();
    assert_eq!(oldest, [(lane("a"), UnixMillis(10)), (lane("b"), UnixMillis(20))]);
    let claimed = claim(&*store, 2, 1).await;
    settle(&*store, &claimed.leases[0], wait(99)).await;
    assert_eq!(
        store.oldest().await.unwrap()[0].1,
        UnixMillis(10),
        "a waiting one counts"
    );
    let waiting = claim(&*store, 9, 100).await;
    for lease in &waiting.leases {
        settle(&*store, lease, delivered(2)).await;
    }
    assert_eq!(
        store.oldest().await.unwrap()[0].1,
        UnixMillis(30),
        "a leased one counts"
    );
}

pub(crate) async fn dead_letters_are_listed_by_lane_and_in_pages<B: Backend>(backend: B) {
    let store = backend.open();
    append(&*store, &["1", "2", "3"]).await;
    assert!(try_append(&*store, vec![record("b", "4", "4")]).await[0].is_ok());
    for name in ["a", "b"] {
        let claimed = store.claim(claim_of(name, usize::MAX, 1)).await.unwrap();
        for lease in claimed.leases {
            settle(&*store, &lease, dead("r")).await;
        }
    }
    let names = |letters: Vec<embeddables_queue::DeadLetter>| -> Vec<String> {
        letters.into_iter().map(|letter| letter.id.to_string()).collect()
    };
    assert_eq!(
        names(store.list(None, Sequence(0), 10).await.unwrap()),
        ["1", "2", "3", "4"]
    );
    assert_eq!(
        names(store.list(Some(&lane("b")), Sequence(0), 10).await.unwrap()),
        ["4"]
    );
    let page = store.list(Some(&lane("a")), Sequence(1), 1).await.unwrap();
    assert_eq!(names(page), ["2"]);
    assert!(
        store
            .list(Some(&lane("nowhere")), Sequence(0), 10)
            .await
            .unwrap()
            .is_empty()
    );
}

pub(crate) async fn everything_survives_a_restart<B: Backend>(backend: B) {
    let store = backend.open();
    append(&*store, &["1", "2", "3", "4"]).await;
    let claimed = claim(&*store, 3, 1).await;
    for (lease, disposition) in claimed.leases.iter().zip([delivered(2), wait(9), dead("r")]) {
        settle(&*store, lease, disposition).await;
    }
    let (books, capacity) = (store.books(), store.capacity());
    backend.kill(store);
    let store = backend.open();
    assert_eq!(store.books().lanes, books.lanes);
    assert_eq!(store.capacity(), capacity);
    assert_eq!(store.outcomes(0, 10).await.unwrap().len(), 2);
    assert_eq!(claim(&*store, 10, 10).await.leases.len(), 2);
}

pub(crate) async fn the_secret_survives_a_restart<B: Backend>(backend: B) {
    let store = backend.open();
    let secret = store.secret();
    if B::PERSISTS {
        assert_ne!(secret, [0; 32]);
        backend.kill(store);
        assert_eq!(backend.open().secret(), secret);
    }
}
