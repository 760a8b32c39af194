//! What heads and followers of an order key promise (invariant 9). Every record of `append` has the same key.

use embeddables_queue::{DeadLetters as _, Lease};
use embeddables_queue::{
    Disposition, EntryState, Gate, Ledger as _, NewRecord, Queue as _, Sequence, Store, TakeAs,
};

use crate::backend::{
    Backend, append, check_balance, claim, claim_of, dead, delivered, ids, lane, record, settle, settle_gate,
    settlement, try_append, wait,
};

pub(crate) const FOLLOW: Gate = Gate::Follow { head: None };

/// Appends records and settles them to waits until `until`: the first leads, the others follow.
pub(crate) async fn line_up(store: &impl Store, names: &[&str], until: i64) {
    append(store, names).await;
    let claimed = claim(store, names.len(), 1).await;
    assert_eq!(ids(&claimed.leases), names);
    for (place, lease) in claimed.leases.iter().enumerate() {
        assert!(!lease.behind);
        let gate = if place == 0 { Gate::Lead } else { FOLLOW };
        settle_gate(store, lease, wait(until), gate).await;
    }
}

/// Ids, and whether each is behind.
pub(crate) fn flags(leases: &[Lease]) -> Vec<(&str, bool)> {
    leases.iter().map(|lease| (&*lease.id, lease.behind)).collect()
}

/// Due time of a waiting record.
pub(crate) async fn until(store: &impl Store, id: &str) -> i64 {
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

pub(crate) async fn a_record_that_was_behind_is_interrupted_once_it_was_tried<B: Backend>(backend: B) {
    let store = backend.open();
    line_up(&*store, &["1", "2"], 100).await;
    let head = claim(&*store, 1, 100).await;
    append(&*store, &["3"]).await;
    let behind = claim(&*store, 9, 50).await;
    assert_eq!(flags(&behind.leases), [("3", true)]);
    settle_gate(&*store, &behind.leases[0], wait(200), FOLLOW).await;
    settle_gate(&*store, &head.leases[0], delivered(2), Gate::Open).await;
    assert_eq!(claim(&*store, 9, 50).await.leases.len(), 2);
    backend.kill(store);
    let store = backend.open();
    for lease in claim(&*store, 9, 50).await.leases {
        assert!(lease.interrupted, "{}", lease.id);
    }
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
