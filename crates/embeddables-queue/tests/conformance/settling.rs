//! What `settle` and `take` promise.

use bytes::Bytes;
use embeddables_queue::{
    Disposition, EntryState, Gate, OutcomeKind, Sequence, Settlement, TakeAs, UnixMillis,
};

use embeddables_queue::{DeadLetters as _, Ledger as _, Queue as _};

use crate::backend::{
    Backend, append, check_balance, claim, dead, delivered, ids, lane, record, settle, try_append, wait,
};

fn replay() -> TakeAs {
    TakeAs::Replay {
        progress: Bytes::from_static(b"nonce"),
    }
}

fn discard() -> TakeAs {
    TakeAs::Discard { time: UnixMillis(9) }
}

pub(crate) async fn invariant_5_a_settlement_moves_record_ledger_and_books_together<B: Backend>(backend: B) {
    let mut store = backend.open();
    append(&*store, &["one"]).await;
    let claimed = claim(&*store, 1, 1).await;
    settle(&*store, &claimed.leases[0], delivered(2)).await;
    if B::PERSISTS {
        backend.kill(store);
        store = backend.open();
    }
    let entry = store.find(&lane("a"), "one").await.unwrap().unwrap();
    assert_eq!(entry.state, EntryState::Delivered { time: UnixMillis(2) });
    assert_eq!(&entry.progress[..], b"receipt");
    let outcomes = store.outcomes(0, 10).await.unwrap();
    assert_eq!(
        (outcomes.len(), outcomes[0].kind, &outcomes[0].note[..]),
        (1, OutcomeKind::Delivered, &b"receipt"[..])
    );
    let books = &store.books().lanes[0].1;
    assert_eq!((books.accepted, books.delivered, books.ready), (1, 1, 0));
    assert_eq!(store.capacity().used_bytes, 0);
    assert!(claim(&*store, 1, 9).await.leases.is_empty());
}

pub(crate) async fn invariant_7_books_balance_through_everything<B: Backend>(backend: B) {
    let store = backend.open();
    append(&*store, &["1", "2", "3", "4", "5", "6"]).await;
    let claimed = claim(&*store, 5, 1).await;
    let dispositions = [delivered(2), wait(9), dead("x"), dead("y"), Disposition::Release];
    for (lease, disposition) in claimed.leases.iter().zip(dispositions) {
        settle(&*store, lease, disposition).await;
        check_balance(&store.books());
    }
    assert_eq!(
        store.take(&[claimed.leases[2].sequence], replay()).await.unwrap(),
        1
    );
    check_balance(&store.books());
    assert_eq!(
        store
            .take(&[claimed.leases[3].sequence], discard())
            .await
            .unwrap(),
        1
    );
    check_balance(&store.books());
    let books = store.books().lanes[0].1.clone();
    assert_eq!(
        (
            books.accepted,
            books.delivered,
            books.dead_lettered,
            books.discarded
        ),
        (6, 1, 0, 1)
    );
    assert_eq!((books.ready, books.waiting), (3, 1));
    assert_eq!(books.dead_lettered_total, [("x".into(), 1), ("y".into(), 1)]);
}

pub(crate) async fn a_settlement_under_another_claim_changes_nothing<B: Backend>(backend: B) {
    let store = backend.open();
    append(&*store, &["one"]).await;
    let old = claim(&*store, 1, 1).await;
    settle(&*store, &old.leases[0], wait(2)).await;
    let new = claim(&*store, 1, 3).await;
    for stale in [&old.leases[0], &old.leases[0]] {
        settle(&*store, stale, delivered(4)).await;
    }
    let unknown = Settlement {
        sequence: Sequence(77),
        claim: 1,
        disposition: delivered(4),
        gate: Gate::Pass,
    };
    store.settle(vec![unknown]).await.unwrap();
    assert_eq!(store.books().lanes[0].1.delivered, 0);
    settle(&*store, &new.leases[0], delivered(4)).await;
    settle(&*store, &new.leases[0], delivered(5)).await;
    assert_eq!(store.books().lanes[0].1.delivered, 1);
    assert_eq!(store.outcomes(0, 10).await.unwrap().len(), 1);
}

pub(crate) async fn a_dead_letter_keeps_payload_reason_and_progress<B: Backend>(backend: B) {
    let mut store = backend.open();
    append(&*store, &["one"]).await;
    let claimed = claim(&*store, 1, 1).await;
    settle(&*store, &claimed.leases[0], dead("HTTP_400")).await;
    if B::PERSISTS {
        backend.kill(store);
        store = backend.open();
    }
    let letters = store.list(None, Sequence(0), 10).await.unwrap();
    assert_eq!(letters.len(), 1);
    let letter = &letters[0];
    assert_eq!(
        (&*letter.id, &*letter.reason, letter.time),
        ("one", "HTTP_400", UnixMillis(5))
    );
    assert_eq!(
        (&letter.payload[..], &letter.progress[..]),
        (&b"one"[..], &b"why"[..])
    );
    assert_eq!(
        (letter.order_key, letter.accept_time),
        ([7; 16], UnixMillis(1_000))
    );
    let outcome = &store.outcomes(0, 10).await.unwrap()[0];
    assert_eq!(
        (outcome.kind, &*outcome.reason),
        (OutcomeKind::DeadLettered, "HTTP_400")
    );
    let repeat = try_append(&*store, vec![record("a", "one", "one")]).await[0].unwrap();
    assert!(repeat.duplicate);
}

pub(crate) async fn a_replayed_dead_letter_is_the_newest_record_with_its_old_id<B: Backend>(backend: B) {
    let store = backend.open();
    let first = append(&*store, &["one", "two"]).await;
    let claimed = claim(&*store, 1, 1).await;
    settle(&*store, &claimed.leases[0], dead("r")).await;
    assert_eq!(store.take(&[first[0].sequence], replay()).await.unwrap(), 1);
    let entry = store.find(&lane("a"), "one").await.unwrap().unwrap();
    assert_eq!(
        (entry.state, &entry.progress[..]),
        (EntryState::Ready, &b"nonce"[..])
    );
    assert!(entry.sequence > first[1].sequence);
    let claimed = claim(&*store, 5, 1).await;
    assert_eq!(ids(&claimed.leases), ["two", "one"]);
    let lease = &claimed.leases[1];
    assert_eq!(
        (&lease.progress[..], &lease.payload[..]),
        (&b"nonce"[..], &b"one"[..])
    );
    assert_eq!(lease.accept_time, UnixMillis(1_000));
    let repeat = try_append(&*store, vec![record("a", "one", "one")]).await[0].unwrap();
    assert!(repeat.duplicate && repeat.sequence == entry.sequence);
    settle(&*store, lease, delivered(3)).await;
    check_balance(&store.books());
    assert!(store.list(None, Sequence(0), 10).await.unwrap().is_empty());
}

pub(crate) async fn a_discarded_dead_letter_frees_its_id<B: Backend>(backend: B) {
    let store = backend.open();
    let first = append(&*store, &["one"]).await[0];
    let claimed = claim(&*store, 1, 1).await;
    settle(&*store, &claimed.leases[0], dead("r")).await;
    assert_eq!(store.take(&[first.sequence], discard()).await.unwrap(), 1);
    let entry = store.find(&lane("a"), "one").await.unwrap().unwrap();
    assert_eq!(entry.state, EntryState::Discarded { time: UnixMillis(9) });
    let again = try_append(&*store, vec![record("a", "one", "another content")]).await[0].unwrap();
    assert!(!again.duplicate && again.sequence > first.sequence);
    assert_eq!(
        store.find(&lane("a"), "one").await.unwrap().unwrap().state,
        EntryState::Ready
    );
    check_balance(&store.books());
}

pub(crate) async fn taking_what_is_not_there_counts_nothing<B: Backend>(backend: B) {
    let store = backend.open();
    let first = append(&*store, &["one", "two"]).await;
    let claimed = claim(&*store, 1, 1).await;
    settle(&*store, &claimed.leases[0], dead("r")).await;
    let asked = [
        first[0].sequence,
        first[0].sequence,
        first[1].sequence,
        Sequence(99),
    ];
    assert_eq!(store.take(&asked, discard()).await.unwrap(), 1);
    assert_eq!(store.take(&asked, replay()).await.unwrap(), 0);
    assert_eq!(store.take(&[], replay()).await.unwrap(), 0);
    check_balance(&store.books());
}

pub(crate) async fn settling_works_when_the_queue_is_full<B: Backend>(mut backend: B) {
    backend.settings().max_bytes = 256 + 3;
    let store = backend.open();
    append(&*store, &["one"]).await;
    let claimed = claim(&*store, 1, 1).await;
    let progress = Bytes::from(vec![1; 10_000]);
    settle(
        &*store,
        &claimed.leases[0],
        Disposition::Wait {
            until: UnixMillis(2),
            progress,
        },
    )
    .await;
    assert_eq!(store.capacity().used_bytes, 256 + 3 + 10_000);
    let claimed = claim(&*store, 1, 3).await;
    settle(&*store, &claimed.leases[0], dead("r")).await;
    assert_eq!(
        store.take(&[claimed.leases[0].sequence], replay()).await.unwrap(),
        1
    );
    let claimed = claim(&*store, 1, 3).await;
    settle(&*store, &claimed.leases[0], delivered(4)).await;
    assert_eq!(store.capacity().used_bytes, 0);
}

pub(crate) async fn bytes_come_back_as_they_were_given<B: Backend>(backend: B) {
    let mut store = backend.open();
    let sizes = [0, 1, 100, 4_096, 70_000, 300_000];
    let payload = |size: usize| -> Bytes { (0..=250_u8).cycle().step_by(31).take(size).collect() };
    let records = sizes
        .iter()
        .map(|size| embeddables_queue::NewRecord {
            payload: payload(*size),
            ..record("a", &format!("id{size}"), "same")
        })
        .collect();
    assert!(try_append(&*store, records).await.iter().all(Result::is_ok));
    if B::PERSISTS {
        backend.kill(store);
        store = backend.open();
    }
    let claimed = claim(&*store, 10, 1).await;
    assert_eq!(claimed.leases.len(), sizes.len());
    for (lease, size) in claimed.leases.iter().zip(sizes) {
        assert_eq!(lease.payload, payload(size), "{size} bytes");
    }
}
