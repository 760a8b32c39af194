//! What `claim` promises.

use std::sync::Arc;
use std::time::Duration;

use embeddables_queue::{Disposition, LaneName, UnixMillis};

use embeddables_queue::{DeadLetters as _, Ledger as _, Queue as _};

use crate::backend::{
    Backend, append, check_balance, claim, dead, delivered, ids, lane, record, settle, try_append, wait,
};

pub(crate) async fn invariant_3_a_record_is_leased_once_at_a_time<B: Backend>(backend: B) {
    let store = backend.open();
    let names: Vec<String> = (0..100).map(|number| format!("id{number:03}")).collect();
    append(&*store, &names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let calls: Vec<_> = (0..20)
        .map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { claim(&*store, 7, 1).await.leases })
        })
        .collect();
    let mut seen = Vec::new();
    for call in calls {
        seen.extend(call.await.unwrap().iter().map(|lease| lease.id.to_string()));
    }
    seen.sort();
    assert_eq!(seen, names);
    assert!(claim(&*store, 1, 1).await.leases.is_empty());
}

pub(crate) async fn invariant_4_an_open_lease_is_interrupted_after_a_restart<B: Backend>(backend: B) {
    let store = backend.open();
    append(&*store, &["leased", "waited", "untouched"]).await;
    let first = claim(&*store, 2, 1).await;
    settle(&*store, &first.leases[1], wait(5)).await;
    let second = claim(&*store, 1, 4).await;
    assert_eq!(ids(&second.leases), ["untouched"]);
    settle(&*store, &second.leases[0], Disposition::Release).await;
    backend.kill(store);
    let store = backend.open();
    assert!(
        store
            .find(&lane("a"), "leased")
            .await
            .unwrap()
            .unwrap()
            .interrupted
    );
    assert!(
        !store
            .find(&lane("a"), "waited")
            .await
            .unwrap()
            .unwrap()
            .interrupted
    );
    let claimed = claim(&*store, 10, 10).await;
    let flags: Vec<_> = claimed
        .leases
        .iter()
        .map(|lease| (&*lease.id, lease.interrupted))
        .collect();
    assert_eq!(flags, [("leased", true), ("untouched", false), ("waited", false)]);
    settle(&*store, &claimed.leases[0], wait(11)).await;
    let again = claim(&*store, 1, 12).await;
    assert_eq!(
        (ids(&again.leases), again.leases[0].interrupted),
        (vec!["leased"], false)
    );
    assert!(
        !store
            .find(&lane("a"), "leased")
            .await
            .unwrap()
            .unwrap()
            .interrupted
    );
}

pub(crate) async fn a_released_or_settled_record_is_not_interrupted_after_a_restart<B: Backend>(backend: B) {
    let store = backend.open();
    append(&*store, &["released", "delivered", "open"]).await;
    let claimed = claim(&*store, 3, 1).await;
    settle(&*store, &claimed.leases[0], Disposition::Release).await;
    settle(&*store, &claimed.leases[1], delivered(2)).await;
    backend.kill(store);
    let store = backend.open();
    let claimed = claim(&*store, 3, 1).await;
    let flags: Vec<_> = claimed
        .leases
        .iter()
        .map(|lease| (&*lease.id, lease.interrupted))
        .collect();
    assert_eq!(flags, [("released", false), ("open", true)]);
}

pub(crate) async fn an_interruption_outlives_a_release_and_another_restart<B: Backend>(backend: B) {
    let store = backend.open();
    append(&*store, &["one"]).await;
    assert_eq!(claim(&*store, 1, 1).await.leases.len(), 1);
    backend.kill(store);
    backend.kill(backend.open());
    let store = backend.open();
    let claimed = claim(&*store, 1, 1).await;
    assert!(claimed.leases[0].interrupted);
    settle(&*store, &claimed.leases[0], Disposition::Release).await;
    backend.kill(store);
    let store = backend.open();
    let claimed = claim(&*store, 1, 1).await;
    assert!(claimed.leases[0].interrupted);
    settle(&*store, &claimed.leases[0], wait(2)).await;
    backend.kill(store);
    assert!(!claim(&*backend.open(), 1, 9).await.leases[0].interrupted);
}

pub(crate) async fn never_tried_records_come_first_then_waiting_ones_by_due_time<B: Backend>(backend: B) {
    let store = backend.open();
    append(&*store, &["late", "soon", "sooner", "fresh"]).await;
    for (lease, until) in claim(&*store, 3, 1).await.leases.iter().zip([30, 20, 10]) {
        settle(&*store, lease, wait(until)).await;
    }
    append(&*store, &["fresher"]).await;
    let claimed = claim(&*store, 4, 25).await;
    assert_eq!(ids(&claimed.leases), ["fresh", "fresher", "sooner", "soon"]);
    assert_eq!(claimed.next_due, Some(UnixMillis(30)));
}

pub(crate) async fn a_claim_says_whether_more_is_due_and_when_the_next_is<B: Backend>(backend: B) {
    let store = backend.open();
    let nothing = claim(&*store, 5, 1).await;
    assert!(nothing.leases.is_empty() && !nothing.more && nothing.next_due.is_none());
    append(&*store, &["one", "two", "three"]).await;
    let some = claim(&*store, 2, 1).await;
    assert!(some.more);
    let rest = claim(&*store, 1, 1).await;
    assert!(!rest.more && rest.next_due.is_none());
    settle(&*store, &some.leases[0], wait(50)).await;
    settle(&*store, &some.leases[1], wait(60)).await;
    let none = claim(&*store, 1, 49).await;
    assert!(none.leases.is_empty() && !none.more);
    assert_eq!(none.next_due, Some(UnixMillis(50)));
    let due = claim(&*store, 1, 60).await;
    assert_eq!((ids(&due.leases), due.more), (vec!["one"], true));
    let last = claim(&*store, 1, 60).await;
    assert_eq!(
        (ids(&last.leases), last.more, last.next_due),
        (vec!["two"], false, None)
    );
}

pub(crate) async fn more_is_due_also_where_new_records_fill_the_claim<B: Backend>(backend: B) {
    let store = backend.open();
    append(&*store, &["waiting"]).await;
    settle(&*store, &claim(&*store, 1, 1).await.leases[0], wait(10)).await;
    append(&*store, &["new"]).await;
    let claimed = claim(&*store, 1, 10).await;
    assert_eq!((ids(&claimed.leases), claimed.more), (vec!["new"], true));
    assert_eq!(ids(&claim(&*store, 1, 10).await.leases), ["waiting"]);
}

pub(crate) async fn a_wait_in_the_past_is_due_at_once<B: Backend>(backend: B) {
    let store = backend.open();
    append(&*store, &["one"]).await;
    for until in [-5, 0, 3] {
        let claimed = claim(&*store, 1, 100).await;
        settle(&*store, &claimed.leases[0], wait(until)).await;
    }
    let claimed = claim(&*store, 1, 100).await;
    assert_eq!(&claimed.leases[0].progress[..], b"progress");
}

pub(crate) async fn a_clock_that_jumps_back_loses_no_waiting_record<B: Backend>(backend: B) {
    let store = backend.open();
    append(&*store, &["one", "two"]).await;
    let claimed = claim(&*store, 2, 1_000_000).await;
    settle(&*store, &claimed.leases[0], wait(2_000_000)).await;
    assert!(
        claim(&*store, 2, 3_000_000).await.leases.len() == 1,
        "the clock was ahead"
    );
    settle(&*store, &claimed.leases[1], wait(500)).await;
    let back = claim(&*store, 2, 600).await;
    assert_eq!(ids(&back.leases), ["two"]);
}

pub(crate) async fn a_released_record_comes_back_as_it_was<B: Backend>(backend: B) {
    let store = backend.open();
    append(&*store, &["one", "two"]).await;
    let before = store.books();
    let claimed = claim(&*store, 1, 1).await;
    settle(&*store, &claimed.leases[0], Disposition::Release).await;
    assert_eq!(store.books().lanes, before.lanes);
    let claimed = claim(&*store, 1, 1).await;
    assert_eq!(
        ids(&claimed.leases),
        ["one"],
        "it goes before those that came later"
    );
    settle(&*store, &claimed.leases[0], wait(10)).await;
    let waiting = claim(&*store, 2, 20).await;
    assert_eq!(ids(&waiting.leases), ["two", "one"]);
    settle(&*store, &waiting.leases[1], Disposition::Release).await;
    assert!(claim(&*store, 1, 9).await.leases.is_empty(), "its due time stays");
    assert_eq!(ids(&claim(&*store, 1, 10).await.leases), ["one"]);
}

pub(crate) async fn age_is_running_time_and_survives_restarts<B: Backend>(mut backend: B) {
    let clock = backend.settings().clock.clone();
    let mut store = backend.open();
    clock.advance(Duration::from_secs(5));
    append(&*store, &["one"]).await;
    clock.advance(Duration::from_secs(10));
    if B::PERSISTS {
        // Running time reaches the disk with the next commit; a close would do as well.
        append(&*store, &["two"]).await;
        store.close().await;
        drop(store);
        clock.advance(Duration::from_secs(1_000));
        store = backend.open();
    }
    clock.advance(Duration::from_secs(7));
    let claimed = claim(&*store, 1, 1).await;
    assert_eq!(
        claimed.leases[0].age,
        Duration::from_secs(17),
        "down time does not count"
    );
}

pub(crate) async fn whoever_waits_for_a_lane_is_woken<B: Backend>(backend: B) {
    let store = backend.open();
    let ready = store.lane_ready(&lane("a"));
    append(&*store, &["one"]).await;
    ready.notified().await;
    let claimed = claim(&*store, 1, 100).await;
    settle(&*store, &claimed.leases[0], wait(50)).await;
    ready.notified().await;
    let claimed = claim(&*store, 1, 100).await;
    settle(&*store, &claimed.leases[0], Disposition::Release).await;
    ready.notified().await;
    let claimed = claim(&*store, 1, 100).await;
    settle(&*store, &claimed.leases[0], dead("r")).await;
    let take_as = embeddables_queue::TakeAs::Replay {
        progress: bytes::Bytes::new(),
    };
    assert_eq!(
        store.take(&[claimed.leases[0].sequence], take_as).await.unwrap(),
        1
    );
    ready.notified().await;
}

pub(crate) async fn a_lane_that_is_not_configured_is_kept_and_takes_no_part<B: Backend>(mut backend: B) {
    let store = backend.open();
    append(&*store, &["one"]).await;
    backend.kill(store);
    backend.settings().lanes = vec![lane("b")];
    let store = backend.open();
    let refused = try_append(&*store, vec![record("a", "two", "x")]).await[0];
    assert_eq!(refused, Err(embeddables_queue::Refused::UnknownLane));
    assert!(claim(&*store, 1, 1).await.leases.is_empty());
    let names: Vec<LaneName> = store.books().lanes.into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, [lane("a"), lane("b")]);
    check_balance(&store.books());
    backend.kill(store);
    backend.settings().lanes = vec![lane("a")];
    assert_eq!(claim(&*backend.open(), 1, 1).await.leases.len(), 1);
}
