//! How followers are let go, also very many.

use std::time::Duration;

use embeddables_queue::{Disposition, Gate, Ledger as _, NewRecord, Queue as _, UnixMillis};

use crate::backend::{
    Backend, append, check_balance, claim, delivered, lane, record, settle, settle_gate, settlement,
    try_append, wait,
};
use crate::gates::{FOLLOW, flags, line_up, until};

pub(crate) async fn an_open_key_lets_everybody_go_whoever_opened_it<B: Backend>(backend: B) {
    for opened_by in ["1", "2", "new"] {
        let store = backend.open();
        let tag = |name: &str| format!("{opened_by}-{name}");
        let names: Vec<String> = ["1", "2", "3"].into_iter().map(tag).collect();
        line_up(&*store, &[&*names[0], &*names[1], &*names[2]], 100).await;
        let opener = if opened_by == "new" {
            append(&*store, &["new"]).await;
            claim(&*store, 1, 1).await.leases
        } else {
            claim(&*store, 3, 100).await.leases
        };
        for lease in &opener {
            if opened_by == "new" || *lease.id == *tag(opened_by) {
                settle_gate(&*store, lease, delivered(2), Gate::Open).await;
            } else {
                settle(&*store, lease, Disposition::Release).await;
            }
        }
        let free = claim(&*store, 9, 1).await;
        assert!(free.leases.iter().all(|lease| !lease.behind));
        let expected = if opened_by == "new" { 3 } else { 2 };
        assert_eq!(free.leases.len(), expected, "{opened_by}");
        for lease in &free.leases {
            settle(&*store, lease, delivered(2)).await;
        }
        backend.kill(store);
    }
}

pub(crate) async fn a_record_that_opens_and_waits_keeps_its_own_time<B: Backend>(backend: B) {
    let store = backend.open();
    line_up(&*store, &["1", "2"], 100).await;
    let head = claim(&*store, 1, 100).await;
    settle_gate(&*store, &head.leases[0], wait(300), Gate::Open).await;
    assert_eq!(until(&*store, "1").await, 300);
    let free = claim(&*store, 9, 50).await;
    assert_eq!(flags(&free.leases), [("2", false)]);
}

pub(crate) async fn very_many_followers_are_all_let_go<B: Backend>(backend: B) {
    const COUNT: usize = 1_500;
    let store = backend.open();
    let names: Vec<String> = (0..COUNT).map(|number| format!("id{number:05}")).collect();
    append(&*store, &names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let claimed = claim(&*store, COUNT, 1).await;
    let settlements = claimed.leases.iter().enumerate().map(|(place, lease)| {
        let gate = if place == 0 { Gate::Lead } else { FOLLOW };
        settlement(lease, wait(1_000), gate)
    });
    store.settle(settlements.collect()).await.unwrap();
    let head = claim(&*store, 1, 1_000).await;
    settle_gate(&*store, &head.leases[0], delivered(2), Gate::Open).await;
    // Steps are taken between calls, also after a restart.
    backend.kill(store);
    let store = backend.open();
    let ready = store.lane_ready(&lane("a"));
    let mut free = 0;
    while free < COUNT - 1 {
        let claimed = claim(&*store, COUNT, 10).await;
        assert!(claimed.leases.iter().all(|lease| !lease.behind));
        free += claimed.leases.len();
        let settlements = claimed
            .leases
            .iter()
            .map(|lease| settlement(lease, delivered(3), Gate::Pass));
        store.settle(settlements.collect()).await.unwrap();
        if claimed.leases.is_empty() {
            ready.notified().await;
        }
    }
    let books = store.books();
    check_balance(&books);
    assert_eq!(
        (books.lanes[0].1.delivered, books.lanes[0].1.waiting),
        (COUNT as u64, 0)
    );
}

pub(crate) async fn very_many_keys_may_have_heads<B: Backend>(backend: B) {
    // More than a store need remember in memory, also of deadlines.
    const COUNT: u16 = 1_100;
    let store = backend.open();
    let keyed = |name: &str, number: u16| {
        let mut order_key = [1; 16];
        order_key[..2].copy_from_slice(&number.to_be_bytes());
        NewRecord {
            order_key,
            deadline: Some(UnixMillis(i64::from(number))),
            ..record("a", &format!("{name}{number:04}"), "x")
        }
    };
    let heads = (0..COUNT).map(|number| keyed("head", number)).collect();
    assert!(try_append(&*store, heads).await.iter().all(Result::is_ok));
    let claimed = claim(&*store, usize::from(COUNT), 1).await;
    let leading = claimed
        .leases
        .iter()
        .map(|lease| settlement(lease, wait(100), Gate::Lead));
    store.settle(leading.collect()).await.unwrap();
    let others = (0..COUNT).map(|number| keyed("other", number)).collect();
    assert!(try_append(&*store, others).await.iter().all(Result::is_ok));
    backend.kill(store);
    let store = backend.open();
    let behind = claim(&*store, usize::from(COUNT), 1).await;
    assert!(behind.leases.iter().all(|lease| lease.behind));
    let following = behind
        .leases
        .iter()
        .map(|lease| settlement(lease, wait(100), FOLLOW));
    store.settle(following.collect()).await.unwrap();
    for name in ["head", "other"] {
        let free = claim(&*store, usize::from(COUNT), 100).await;
        let free: Vec<_> = free.leases.iter().filter(|lease| !lease.behind).collect();
        assert!(free.len() == usize::from(COUNT) && free.iter().all(|lease| lease.id.starts_with(name)));
        let leaving = free
            .iter()
            .map(|lease| settlement(lease, delivered(2), Gate::Pass));
        store.settle(leaving.collect()).await.unwrap();
    }
    let most = std::num::NonZeroUsize::MAX;
    let late = store
        .claim_expired(&lane("a"), most, UnixMillis(9_999))
        .await
        .unwrap();
    assert!(late.leases.is_empty() && late.next_due.is_none());
    append(&*store, &["last"]).await;
    assert_eq!(flags(&claim(&*store, 9, 100).await.leases), [("last", false)]);
    check_balance(&store.books());
}

pub(crate) async fn whoever_waits_is_woken_when_a_follower_is_let_go<B: Backend>(backend: B) {
    let store = backend.open();
    let ready = store.lane_ready(&lane("a"));
    line_up(&*store, &["1", "2", "3", "4"], 100).await;
    ready.notified().await;
    for gate in [Gate::Pass, Gate::Open] {
        let head = claim(&*store, 1, 100).await;
        settle_gate(&*store, &head.leases[0], delivered(2), gate).await;
        tokio::time::timeout(Duration::from_secs(10), ready.notified())
            .await
            .unwrap_or_else(|_| panic!("nobody was woken by {gate:?}"));
    }
    let claimed = claim(&*store, 1, 100).await;
    settle_gate(&*store, &claimed.leases[0], wait(200), FOLLOW).await;
    tokio::time::timeout(Duration::from_secs(10), ready.notified())
        .await
        .expect("a record that is due at once wakes");
    assert_eq!(claimed.next_due, None);
    assert_eq!(claim(&*store, 9, 5).await.next_due, None::<UnixMillis>);
}
