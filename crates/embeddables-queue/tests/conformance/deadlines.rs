//! What `claim_expired` promises.

use std::num::NonZeroUsize;

use bytes::Bytes;
use embeddables_queue::{Claimed, DeadLetters as _, Gate, Ledger as _, NewRecord, Store, TakeAs};
use embeddables_queue::{Disposition, UnixMillis};

use crate::backend::{
    Backend, check_balance, claim, dead, delivered, ids, lane, record, settle, settle_gate, try_append, wait,
};

/// Appends records of lane `a`, each with its deadline.
async fn append(store: &impl Store, records: &[(&str, Option<i64>)]) {
    let records = records
        .iter()
        .map(|(id, deadline)| NewRecord {
            deadline: deadline.map(UnixMillis),
            ..record("a", id, id)
        })
        .collect();
    assert!(try_append(store, records).await.iter().all(Result::is_ok));
}

async fn expired(store: &impl Store, max: usize, wall: i64) -> Claimed {
    store
        .claim_expired(&lane("a"), NonZeroUsize::new(max).unwrap(), UnixMillis(wall))
        .await
        .unwrap()
}

pub(crate) async fn expired_records_come_in_order_of_their_deadline<B: Backend>(backend: B) {
    let store = backend.open();
    let nothing = expired(&*store, 9, i64::MAX).await;
    assert!(nothing.leases.is_empty() && !nothing.more && nothing.next_due.is_none());
    append(
        &*store,
        &[
            ("late", Some(90)),
            ("never", None),
            ("soon", Some(10)),
            ("next", Some(20)),
            ("then", Some(30)),
        ],
    )
    .await;
    let none = expired(&*store, 9, 9).await;
    assert!(none.leases.is_empty() && !none.more);
    assert_eq!(none.next_due, Some(UnixMillis(10)));
    let some = expired(&*store, 2, 40).await;
    assert_eq!((ids(&some.leases), some.more), (vec!["soon", "next"], true));
    let rest = expired(&*store, 2, 40).await;
    assert_eq!(
        (ids(&rest.leases), rest.more, rest.next_due),
        (vec!["then"], false, Some(UnixMillis(90)))
    );
    for lease in some.leases.iter().chain(&rest.leases) {
        settle(&*store, lease, dead("EXPIRED")).await;
    }
    let claimed = claim(&*store, 9, 1).await;
    assert_eq!(ids(&claimed.leases), ["late", "never"]);
    check_balance(&store.books());
}

pub(crate) async fn a_record_expires_while_it_waits_but_not_under_a_lease<B: Backend>(backend: B) {
    let store = backend.open();
    append(&*store, &[("1", Some(10)), ("2", Some(20))]).await;
    let claimed = claim(&*store, 9, 1).await;
    assert!(expired(&*store, 9, 50).await.leases.is_empty());
    settle(&*store, &claimed.leases[0], wait(1_000)).await;
    settle(&*store, &claimed.leases[1], delivered(2)).await;
    let late = expired(&*store, 9, 50).await;
    assert_eq!(
        (ids(&late.leases), late.next_due),
        (vec!["1"], None),
        "its due time is far away"
    );
    assert!(
        claim(&*store, 9, 2_000).await.leases.is_empty(),
        "it is leased once"
    );
    settle(&*store, &late.leases[0], Disposition::Release).await;
    assert_eq!(claim(&*store, 9, 999).await.next_due, Some(UnixMillis(1_000)));
}

pub(crate) async fn deadlines_survive_a_restart_and_leave_no_mark<B: Backend>(backend: B) {
    let store = backend.open();
    append(&*store, &[("1", Some(10)), ("2", Some(20)), ("3", Some(30))]).await;
    let claimed = claim(&*store, 1, 1).await;
    settle(&*store, &claimed.leases[0], wait(500)).await;
    assert_eq!(expired(&*store, 2, 20).await.leases.len(), 2);
    backend.kill(store);
    let store = backend.open();
    let again = expired(&*store, 9, 20).await;
    assert_eq!(
        (ids(&again.leases), again.next_due),
        (vec!["1", "2"], Some(UnixMillis(30)))
    );
    assert!(
        again.leases.iter().all(|lease| !lease.interrupted),
        "none of them was tried"
    );
}

pub(crate) async fn a_dead_letter_and_its_replay_have_no_deadline<B: Backend>(backend: B) {
    let store = backend.open();
    append(&*store, &[("1", Some(10))]).await;
    let late = expired(&*store, 9, 10).await;
    settle(&*store, &late.leases[0], dead("EXPIRED")).await;
    let take_as = TakeAs::Replay {
        progress: Bytes::new(),
    };
    assert_eq!(store.take(&[late.leases[0].sequence], take_as).await.unwrap(), 1);
    let none = expired(&*store, 9, 1_000).await;
    assert!(none.leases.is_empty() && none.next_due.is_none());
    assert_eq!(claim(&*store, 9, 1).await.leases.len(), 1);
}

pub(crate) async fn a_record_taken_out_of_turn_and_given_back_is_claimed_once<B: Backend>(backend: B) {
    let store = backend.open();
    let names = ["1", "2", "3", "4", "5", "6", "7"];
    let at = |name| (name, ["4", "6"].contains(&name).then_some(10));
    append(&*store, &names.map(at)).await;
    let first = claim(&*store, 2, 1).await;
    assert_eq!(ids(&first.leases), ["1", "2"]);
    let late = expired(&*store, 9, 10).await;
    assert_eq!(ids(&late.leases), ["4", "6"]);
    // The fourth comes back after claims have passed it, the sixth before.
    settle(&*store, &late.leases[1], Disposition::Release).await;
    let second = claim(&*store, 2, 1).await;
    assert_eq!(ids(&second.leases), ["3", "5"]);
    settle(&*store, &late.leases[0], Disposition::Release).await;
    let rest = claim(&*store, 9, 1).await;
    assert_eq!((ids(&rest.leases), rest.more), (vec!["4", "6", "7"], false));
    check_balance(&store.books());
}

pub(crate) async fn an_expired_head_hands_over<B: Backend>(backend: B) {
    let store = backend.open();
    append(&*store, &[("1", Some(10)), ("2", None), ("3", Some(12))]).await;
    let claimed = claim(&*store, 9, 1).await;
    settle_gate(&*store, &claimed.leases[0], wait(500), Gate::Lead).await;
    for lease in &claimed.leases[1..] {
        settle_gate(&*store, lease, wait(900), Gate::Follow { head: None }).await;
    }
    let late = expired(&*store, 9, 12).await;
    let flags: Vec<_> = late
        .leases
        .iter()
        .map(|lease| (&*lease.id, lease.behind))
        .collect();
    assert_eq!(flags, [("1", false), ("3", true)]);
    for lease in &late.leases {
        settle(&*store, lease, dead("EXPIRED")).await;
    }
    let next = claim(&*store, 9, 20).await;
    assert_eq!((ids(&next.leases), next.leases[0].behind), (vec!["2"], false));
}
