//! What heads and followers of an order key promise (invariant 9). Every record of `append` has the same key.

use std::time::Duration;

use embeddables_queue::{DeadLetters as _, Lease};
use embeddables_queue::{
    Disposition, EntryState, Gate, Ledger as _, NewRecord, Queue as _, Sequence, Store, TakeAs, UnixMillis,
};

use crate::backend::{
    Backend, append, check_balance, claim, claim_of, dead, delivered, ids, lane, record, settle, settle_gate,
    settlement, try_append, wait,
};

const FOLLOW: Gate = Gate::Follow { head: None };

/// Appends records and settles them to waits until `until`: the first leads, the others follow.
async fn line_up(store: &impl Store, names: &[&str], until: i64) {
    append(store, names).await;
    let claimed = claim(store, names.len(), 1).await;
    assert_eq!(ids(&claimed.leases), names);
    for (place, lease) in claimed.leases.iter().enumerate() {
        assert!(!lease.behind);
        let gate = if place == 0 { Gate::Lead } else { FOLLOW };
        settle_gate(store, lease, wait(until), gate).await;
    }
}

fn flags(leases: &[Lease]) -> Vec<(&str, bool)> {
    leases.iter().map(|lease| (&*lease.id, lease.behind)).collect()
}

async fn until(store: &impl Store, id: &str) -> i64 {
    match store.find(&lane("a"), id).await.unwrap().unwrap().state {
        EntryState::Waiting { until } => until.0,
        other => panic!("{id} is {other:?}"),
    }
}

pub(crate) async fn invariant_9_while_a_key_has_a_head_its_other_records_are_behind<B: Backend>(backend: B) {
    let store = backend.open();
    line_up(&*store, &["1", "2", "3"], 100).await;
    append(&*store, &["4"]).await;
    let late = claim(&*store, 9, 50).await;
    assert_eq!(flags(&late.leases), [("4", true)]);
    settle_gate(&*store, &late.leases[0], wait(90), FOLLOW).await;
    assert!(claim(&*store, 9, 89).await.leases.is_empty());
    let all = claim(&*store, 9, 100).await;
    assert_eq!(
        flags(&all.leases),
        [("4", true), ("1", false), ("2", true), ("3", true)]
    );
    check_balance(&store.books());
}

pub(crate) async fn another_key_and_another_lane_are_not_held_back<B: Backend>(backend: B) {
    let store = backend.open();
    line_up(&*store, &["1", "2"], 100).await;
    let other_key = NewRecord {
        order_key: [8; 16],
        ..record("a", "other", "x")
    };
    assert!(try_append(&*store, vec![other_key, record("b", "3", "x")]).await[1].is_ok());
    assert_eq!(flags(&claim(&*store, 9, 1).await.leases), [("other", false)]);
    let other_lane = store.claim(claim_of("b", 9, 1)).await.unwrap();
    assert_eq!(flags(&other_lane.leases), [("3", false)]);
}

pub(crate) async fn a_head_that_leaves_hands_over_to_its_oldest_follower_at_once<B: Backend>(backend: B) {
    let store = backend.open();
    line_up(&*store, &["1", "2", "3", "4", "5"], 100).await;
    let ends = [delivered(2), dead("r"), wait(200), wait(200)];
    let gates = [Gate::Pass, Gate::Lead, Gate::Pass, FOLLOW];
    let head = claim(&*store, 1, 100).await;
    settle_gate(&*store, &head.leases[0], ends[0].clone(), gates[0]).await;
    for (name, end, gate) in [("2", &ends[1], gates[1]), ("3", &ends[2], gates[2])] {
        assert_eq!(until(&*store, name).await, 1);
        let head = claim(&*store, 9, 50).await;
        assert_eq!(flags(&head.leases), [(name, false)], "only one is let through");
        settle_gate(&*store, &head.leases[0], end.clone(), gate).await;
    }
    // The third waits for itself now; the fourth leads.
    let head = claim(&*store, 9, 50).await;
    assert_eq!(flags(&head.leases), [("4", false)]);
    settle_gate(&*store, &head.leases[0], ends[3].clone(), gates[3]).await;
    let head = claim(&*store, 9, 50).await;
    assert_eq!(
        flags(&head.leases),
        [("4", false)],
        "a head that follows follows nobody"
    );
    settle(&*store, &head.leases[0], delivered(2)).await;
    let last = claim(&*store, 9, 50).await;
    assert_eq!(flags(&last.leases), [("5", false)]);
    settle(&*store, &last.leases[0], delivered(2)).await;
    append(&*store, &["6"]).await;
    let rest = claim(&*store, 9, 200).await;
    assert_eq!(
        flags(&rest.leases),
        [("6", false), ("3", false)],
        "no head is left"
    );
    check_balance(&store.books());
}

pub(crate) async fn a_follower_that_leaves_leaves_the_others_where_they_are<B: Backend>(backend: B) {
    let store = backend.open();
    line_up(&*store, &["1", "2", "3"], 100).await;
    let all = claim(&*store, 9, 100).await;
    settle(&*store, &all.leases[1], delivered(2)).await;
    settle_gate(&*store, &all.leases[0], wait(300), Gate::Lead).await;
    settle_gate(&*store, &all.leases[2], wait(200), FOLLOW).await;
    let fallback = claim(&*store, 9, 200).await;
    assert_eq!(flags(&fallback.leases), [("3", true)]);
    // As a record of its own it neither holds back nor is held back by what it left.
    settle(&*store, &fallback.leases[0], wait(250)).await;
    let head = claim(&*store, 1, 300).await;
    assert_eq!(flags(&head.leases), [("3", true)], "it is still behind a head");
    settle(&*store, &head.leases[0], wait(400)).await;
    let head = claim(&*store, 1, 300).await;
    settle(&*store, &head.leases[0], delivered(2)).await;
    assert_eq!(
        until(&*store, "3").await,
        400,
        "nobody follows, so nobody takes over"
    );
}

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

pub(crate) async fn a_second_leader_follows_the_first<B: Backend>(backend: B) {
    let store = backend.open();
    append(&*store, &["1", "2"]).await;
    let claimed = claim(&*store, 2, 1).await;
    settle_gate(&*store, &claimed.leases[1], wait(100), Gate::Lead).await;
    settle_gate(&*store, &claimed.leases[0], wait(90), Gate::Lead).await;
    assert_eq!(
        flags(&claim(&*store, 2, 100).await.leases),
        [("1", true), ("2", false)]
    );
}

pub(crate) async fn a_record_may_follow_one_that_is_under_a_lease<B: Backend>(backend: B) {
    let store = backend.open();
    append(&*store, &["1", "2", "3"]).await;
    let claimed = claim(&*store, 2, 1).await;
    let named = Gate::Follow {
        head: Some(claimed.leases[0].sequence),
    };
    settle_gate(&*store, &claimed.leases[1], wait(100), named).await;
    let late = claim(&*store, 9, 1).await;
    assert_eq!(
        flags(&late.leases),
        [("3", true)],
        "a head need not have been settled"
    );
    settle_gate(&*store, &late.leases[0], wait(90), FOLLOW).await;
    settle(&*store, &claimed.leases[0], Disposition::Release).await;
    let head = claim(&*store, 9, 1).await;
    assert_eq!(
        flags(&head.leases),
        [("1", false)],
        "given back it is the head still"
    );
    settle(&*store, &head.leases[0], delivered(2)).await;
    assert_eq!(flags(&claim(&*store, 9, 1).await.leases), [("2", false)]);
}

pub(crate) async fn with_nobody_to_follow_a_record_is_due_at_once<B: Backend>(backend: B) {
    let store = backend.open();
    append(&*store, &["1", "2"]).await;
    let other_key = NewRecord {
        order_key: [8; 16],
        ..record("a", "other", "x")
    };
    assert!(try_append(&*store, vec![other_key]).await[0].is_ok());
    let claimed = claim(&*store, 3, 1).await;
    let (one, two, other) = (&claimed.leases[0], &claimed.leases[1], &claimed.leases[2]);
    settle(&*store, one, wait(500)).await;
    for head in [
        None,
        Some(one.sequence),
        Some(two.sequence),
        Some(other.sequence),
        Some(Sequence(99)),
    ] {
        let lease = claim(&*store, 1, 10).await.leases.pop();
        let lease = lease.as_ref().unwrap_or(two);
        settle_gate(&*store, lease, wait(100), Gate::Follow { head }).await;
        assert_eq!(until(&*store, "2").await, 1, "following {head:?}");
    }
    let free = claim(&*store, 9, 500).await;
    assert_eq!(flags(&free.leases), [("2", false), ("1", false)]);
}

pub(crate) async fn heads_and_followers_survive_a_restart<B: Backend>(backend: B) {
    let store = backend.open();
    line_up(&*store, &["1", "2", "3"], 100).await;
    backend.kill(store);
    let store = backend.open();
    let all = claim(&*store, 9, 100).await;
    assert_eq!(flags(&all.leases), [("1", false), ("2", true), ("3", true)]);
    backend.kill(store);
    let store = backend.open();
    let all = claim(&*store, 9, 100).await;
    let interrupted: Vec<_> = all
        .leases
        .iter()
        .map(|lease| (&*lease.id, lease.interrupted))
        .collect();
    assert_eq!(
        interrupted,
        [("1", true), ("2", false), ("3", false)],
        "what was behind was not tried"
    );
    settle(&*store, &all.leases[0], delivered(2)).await;
    backend.kill(store);
    let store = backend.open();
    assert_eq!(flags(&claim(&*store, 1, 50).await.leases), [("2", false)]);
}

pub(crate) async fn a_lease_behind_a_head_can_be_settled_like_any_other<B: Backend>(backend: B) {
    let store = backend.open();
    line_up(&*store, &["1", "2", "3", "4"], 100).await;
    let head = claim(&*store, 1, 100).await;
    let behind = claim(&*store, 9, 100).await;
    assert_eq!(behind.leases.len(), 3);
    settle(&*store, &behind.leases[0], Disposition::Release).await;
    settle(&*store, &behind.leases[1], dead("r")).await;
    let stale = settlement(&behind.leases[0], delivered(2), Gate::Pass);
    store.settle(vec![stale]).await.unwrap();
    assert_eq!(store.books().lanes[0].1.delivered, 0);
    // Promoted while it is leased, it finds itself the head when it comes back to follow.
    settle(&*store, &head.leases[0], delivered(2)).await;
    settle(&*store, &behind.leases[2], wait(200)).await;
    let next = claim(&*store, 9, 100).await;
    assert_eq!(flags(&next.leases), [("2", false)]);
    check_balance(&store.books());
}

pub(crate) async fn a_follower_promoted_under_its_lease_is_due_at_once_when_it_follows<B: Backend>(
    backend: B,
) {
    let store = backend.open();
    line_up(&*store, &["1", "2", "3"], 100).await;
    let all = claim(&*store, 9, 100).await;
    settle(&*store, &all.leases[0], delivered(2)).await;
    for lease in &all.leases[1..] {
        settle_gate(&*store, lease, wait(200), FOLLOW).await;
    }
    assert_eq!((until(&*store, "2").await, until(&*store, "3").await), (1, 200));
    assert_eq!(flags(&claim(&*store, 9, 50).await.leases), [("2", false)]);
}

pub(crate) async fn a_release_leaves_head_and_followers_alone<B: Backend>(backend: B) {
    let store = backend.open();
    line_up(&*store, &["1", "2"], 100).await;
    for gate in [Gate::Pass, Gate::Open, Gate::Lead, FOLLOW] {
        let all = claim(&*store, 9, 100).await;
        assert_eq!(flags(&all.leases), [("1", false), ("2", true)], "{gate:?}");
        for lease in &all.leases {
            settle_gate(&*store, lease, Disposition::Release, gate).await;
        }
    }
}

pub(crate) async fn a_replayed_record_is_behind_like_any_new_one<B: Backend>(backend: B) {
    let store = backend.open();
    append(&*store, &["dead"]).await;
    let claimed = claim(&*store, 1, 1).await;
    settle(&*store, &claimed.leases[0], dead("r")).await;
    line_up(&*store, &["1", "2"], 100).await;
    let take_as = TakeAs::Replay {
        progress: bytes::Bytes::new(),
    };
    let dead = claimed.leases[0].sequence;
    assert_eq!(store.take(&[dead], take_as).await.unwrap(), 1);
    assert_eq!(flags(&claim(&*store, 9, 1).await.leases), [("dead", true)]);
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

const LINE: Gate = Gate::Line { head: None };

pub(crate) async fn those_that_stand_in_line_go_by_their_sequence_whoever_comes_first<B: Backend>(
    backend: B,
) {
    let store = backend.open();
    append(&*store, &["1", "2", "3"]).await;
    let claimed = claim(&*store, 3, 1).await;
    for place in [2, 0, 1] {
        settle_gate(&*store, &claimed.leases[place], wait(100), LINE).await;
    }
    for id in ["1", "2", "3"] {
        let due = claim(&*store, 9, 1).await;
        let (heads, behind): (Vec<_>, Vec<_>) = due.leases.iter().partition(|lease| !lease.behind);
        assert_eq!(heads.len(), 1);
        assert_eq!(&*heads[0].id, id);
        for lease in behind {
            settle_gate(&*store, lease, wait(100), LINE).await;
        }
        settle(&*store, heads[0], delivered(2)).await;
    }
    check_balance(&store.books());
}

pub(crate) async fn who_is_under_a_lease_is_not_overtaken_by_an_older_one_in_line<B: Backend>(backend: B) {
    let store = backend.open();
    append(&*store, &["1", "2"]).await;
    let claimed = claim(&*store, 2, 1).await;
    let named = Gate::Line {
        head: Some(claimed.leases[1].sequence),
    };
    settle_gate(&*store, &claimed.leases[0], wait(100), named).await;
    assert_eq!(until(&*store, "1").await, 100);
    settle(&*store, &claimed.leases[1], delivered(2)).await;
    assert_eq!(flags(&claim(&*store, 9, 1).await.leases), [("1", false)]);
}
