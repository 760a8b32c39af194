//! How a claim divides its slots between live records, older ones and waiting ones.

use std::num::NonZeroUsize;

use embeddables_queue::{Claim, Disposition, Ledger as _, Queue as _, Store, UnixMillis};

use crate::backend::{Backend, append, check_balance, claim, delivered, ids, lane, settle, wait};

fn bounded(max: usize, max_waiting: usize, live_percent: u8) -> Claim {
    Claim {
        lane: lane("a"),
        max: NonZeroUsize::new(max).unwrap(),
        max_waiting,
        live_percent,
        now: UnixMillis(100),
    }
}

async fn append_many(store: &impl Store, kind: &str, count: usize) {
    let names: Vec<String> = (0..count).map(|number| format!("{kind}{number:02}")).collect();
    append(store, &names.iter().map(String::as_str).collect::<Vec<_>>()).await;
}

/// Lets records wait until a time that has passed.
async fn waiting(store: &impl Store, count: usize) {
    append_many(store, "waiting", count).await;
    for lease in claim(store, count, 1).await.leases {
        settle(store, &lease, wait(50)).await;
    }
}

/// Claims and returns ids and `more`; what was claimed is delivered.
async fn take(store: &impl Store, claim: Claim) -> (Vec<String>, bool) {
    let claimed = store.claim(claim).await.unwrap();
    for lease in &claimed.leases {
        settle(store, lease, delivered(2)).await;
    }
    let ids = claimed.leases.iter().map(|lease| lease.id.to_string()).collect();
    (ids, claimed.more)
}

fn count(ids: &[String], kind: &str) -> usize {
    ids.iter().filter(|id| id.starts_with(kind)).count()
}

pub(crate) async fn live_records_get_their_percentage_and_the_backlog_the_rest<B: Backend>(backend: B) {
    let store = backend.open();
    append_many(&*store, "old", 20).await;
    let (first, more) = take(&*store, bounded(4, 4, 50)).await;
    assert_eq!((&*first[0], &*first[3], more), ("old00", "old03", true));
    append_many(&*store, "live", 10).await;
    let (second, _) = take(&*store, bounded(4, 4, 50)).await;
    assert_eq!(second, ["live00", "live01", "old04", "old05"]);
    let (third, _) = take(&*store, bounded(3, 3, 50)).await;
    assert_eq!(
        third,
        ["live02", "live03", "old06"],
        "a part of a slot is rounded up"
    );
    let (fourth, _) = take(&*store, bounded(20, 20, 10)).await;
    assert_eq!(
        (count(&fourth, "live"), count(&fourth, "old")),
        (6, 13),
        "free slots are used"
    );
    let (fifth, more) = take(&*store, bounded(4, 4, 50)).await;
    assert!(fifth.is_empty() && !more);
    check_balance(&store.books());
}

pub(crate) async fn when_the_backlog_is_done_live_records_become_the_backlog<B: Backend>(backend: B) {
    let store = backend.open();
    append_many(&*store, "old", 4).await;
    take(&*store, bounded(2, 2, 50)).await;
    append_many(&*store, "live", 8).await;
    let (ids, more) = take(&*store, bounded(4, 4, 50)).await;
    assert_eq!(
        (ids, more),
        (
            vec!["live00".into(), "live01".into(), "old02".into(), "old03".into()],
            true
        )
    );
    append_many(&*store, "newer", 4).await;
    let (ids, _) = take(&*store, bounded(4, 4, 50)).await;
    assert_eq!(ids, ["newer00", "newer01", "live02", "live03"]);
    let (ids, more) = take(&*store, bounded(20, 20, 50)).await;
    assert_eq!((ids.len(), more), (6, false));
}

pub(crate) async fn without_a_percentage_records_come_in_order_of_sequence<B: Backend>(backend: B) {
    let store = backend.open();
    append_many(&*store, "a", 6).await;
    take(&*store, bounded(2, 2, 0)).await;
    append_many(&*store, "b", 4).await;
    let (ids, _) = take(&*store, bounded(6, 6, 0)).await;
    assert_eq!(ids, ["a02", "a03", "a04", "a05", "b00", "b01"]);
    let (ids, more) = take(&*store, bounded(6, 6, 0)).await;
    assert_eq!((ids, more), (vec!["b02".into(), "b03".into()], false));
}

pub(crate) async fn waiting_records_get_half_of_what_is_not_for_live_ones<B: Backend>(backend: B) {
    let store = backend.open();
    waiting(&*store, 10).await;
    append_many(&*store, "old", 20).await;
    let (ids, _) = take(&*store, bounded(4, 4, 50)).await;
    assert_eq!((count(&ids, "old"), count(&ids, "waiting")), (2, 2));
    append_many(&*store, "live", 20).await;
    let (ids, _) = take(&*store, bounded(8, 8, 50)).await;
    assert_eq!(
        (count(&ids, "live"), count(&ids, "old"), count(&ids, "waiting")),
        (4, 2, 2)
    );
    let (ids, _) = take(&*store, bounded(8, 1, 0)).await;
    assert_eq!((count(&ids, "old"), count(&ids, "waiting")), (7, 1));
}

pub(crate) async fn single_slots_take_turns_so_that_nothing_starves<B: Backend>(backend: B) {
    let store = backend.open();
    waiting(&*store, 9).await;
    append_many(&*store, "old", 9).await;
    take(&*store, bounded(1, 0, 50)).await;
    append_many(&*store, "live", 9).await;
    let mut all = Vec::new();
    for _ in 0..12 {
        all.extend(take(&*store, bounded(1, 1, 50)).await.0);
    }
    assert_eq!(
        (count(&all, "live"), count(&all, "old"), count(&all, "waiting")),
        (6, 3, 3)
    );
}

pub(crate) async fn waiting_records_beyond_their_bound_are_not_more_but_due<B: Backend>(backend: B) {
    let store = backend.open();
    waiting(&*store, 3).await;
    append_many(&*store, "old", 2).await;
    let claimed = store.claim(bounded(1, 0, 0)).await.unwrap();
    assert_eq!((ids(&claimed.leases), claimed.more), (vec!["old00"], true));
    let claimed = store.claim(bounded(1, 0, 0)).await.unwrap();
    assert_eq!((ids(&claimed.leases), claimed.more), (vec!["old01"], false));
    assert_eq!(
        claimed.next_due,
        Some(UnixMillis(50)),
        "their time is in the past"
    );
    let claimed = store.claim(bounded(9, 2, 0)).await.unwrap();
    assert_eq!((claimed.leases.len(), claimed.more), (2, false));
    assert_eq!(claimed.next_due, Some(UnixMillis(50)));
    let claimed = store.claim(bounded(1, 1, 0)).await.unwrap();
    assert_eq!(
        (claimed.leases.len(), claimed.more, claimed.next_due),
        (1, false, None)
    );
}

pub(crate) async fn waiting_records_that_did_not_fit_are_more<B: Backend>(backend: B) {
    let store = backend.open();
    waiting(&*store, 5).await;
    let claimed = store.claim(bounded(2, 2, 30)).await.unwrap();
    assert_eq!((claimed.leases.len(), claimed.more), (2, true));
}

pub(crate) async fn a_released_record_keeps_its_place_among_old_or_live_ones<B: Backend>(backend: B) {
    let store = backend.open();
    append_many(&*store, "old", 6).await;
    let old = store.claim(bounded(2, 2, 50)).await.unwrap();
    append_many(&*store, "live", 4).await;
    let both = store.claim(bounded(4, 4, 50)).await.unwrap();
    assert_eq!(ids(&both.leases), ["live00", "live01", "old02", "old03"]);
    for lease in [&old.leases[1], &both.leases[1], &both.leases[2]] {
        settle(&*store, lease, Disposition::Release).await;
    }
    let (again, _) = take(&*store, bounded(6, 6, 50)).await;
    assert_eq!(again, ["live01", "live02", "live03", "old01", "old02", "old04"]);
    let (rest, more) = take(&*store, bounded(6, 6, 50)).await;
    assert_eq!((rest, more), (vec!["old05".into()], false));
    check_balance(&store.books());
}

pub(crate) async fn a_released_live_record_is_claimed_once_when_it_becomes_the_backlog<B: Backend>(
    backend: B,
) {
    let store = backend.open();
    append_many(&*store, "old", 5).await;
    take(&*store, bounded(2, 2, 50)).await;
    append_many(&*store, "live", 3).await;
    let both = store.claim(bounded(4, 4, 50)).await.unwrap();
    assert_eq!(ids(&both.leases), ["live00", "live01", "old02", "old03"]);
    for lease in &both.leases[..2] {
        settle(&*store, lease, Disposition::Release).await;
    }
    let (last_old, _) = take(&*store, bounded(2, 2, 50)).await;
    assert_eq!(last_old, ["live00", "old04"]);
    let (rest, more) = take(&*store, bounded(9, 9, 50)).await;
    assert_eq!((rest, more), (vec!["live01".into(), "live02".into()], false));
    check_balance(&store.books());
}
