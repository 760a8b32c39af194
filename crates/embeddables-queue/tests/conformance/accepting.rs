//! What `append` promises.

use embeddables_queue::{
    Append, AppendError, ClaimError, Durability, ReadError, Refused, Sequence, SettleError, Store,
};
use embeddables_queue::{Disposition, Gate, Ledger as _, Queue as _, Settlement};

use crate::backend::{
    Backend, MEMORY, append, check_balance, claim, claim_of, delivered, lane, record, settle, try_append,
};

async fn append_atomic(store: &impl Store, contents: &[(&str, &str)]) -> Vec<Result<u64, Refused>> {
    let records = contents
        .iter()
        .map(|(id, content)| record("a", id, content))
        .collect();
    let call = Append {
        records,
        durability: MEMORY,
        atomic: true,
    };
    let results = store.append(call).await.unwrap();
    results
        .into_iter()
        .map(|result| result.map(|appended| appended.sequence.0))
        .collect()
}

pub(crate) async fn invariant_1_an_answer_names_the_durability_reached<B: Backend>(backend: B) {
    let store = backend.open();
    for (number, asked) in store.durabilities().to_vec().into_iter().enumerate() {
        let records = vec![record("a", &format!("id{number}"), "x")];
        let reached = store
            .append(Append {
                records,
                durability: asked,
                atomic: false,
            })
            .await
            .unwrap()[0]
            .unwrap();
        assert!(
            reached.durability >= asked,
            "asked {asked:?}, reached {:?}",
            reached.durability
        );
        assert!(store.durabilities().contains(&reached.durability));
    }
}

pub(crate) async fn invariant_2_sequences_rise_and_are_never_reused<B: Backend>(backend: B) {
    let mut store = backend.open();
    let mut last = Sequence(0);
    for round in 0..4 {
        for appended in append(&*store, &[&format!("{round}-1"), &format!("{round}-2")]).await {
            assert!(appended.sequence > last);
            last = appended.sequence;
        }
        let claimed = claim(&*store, 10, 1).await;
        for lease in &claimed.leases {
            settle(&*store, lease, delivered(2)).await;
        }
        if B::PERSISTS {
            backend.kill(store);
            store = backend.open();
        }
    }
}

pub(crate) async fn invariant_6_a_repeat_of_an_id_adds_nothing<B: Backend>(backend: B) {
    let store = backend.open();
    let first = append(&*store, &["one"]).await[0];
    let repeats = try_append(
        &*store,
        vec![record("a", "one", "one"), record("a", "one", "one")],
    )
    .await;
    for repeat in repeats {
        let repeat = repeat.unwrap();
        assert!(repeat.duplicate);
        assert_eq!(
            (repeat.sequence, repeat.durability),
            (first.sequence, first.durability)
        );
    }
    let claimed = claim(&*store, 10, 1).await;
    assert_eq!(claimed.leases.len(), 1);
    settle(&*store, &claimed.leases[0], delivered(2)).await;
    assert!(
        try_append(&*store, vec![record("a", "one", "one")]).await[0]
            .unwrap()
            .duplicate
    );
    assert_eq!(store.books().lanes[0].1.accepted, 1);
}

pub(crate) async fn the_same_id_at_the_same_time_is_accepted_once<B: Backend>(backend: B) {
    let store = backend.open();
    let calls: Vec<_> = (0..32)
        .map(|_| {
            let store = std::sync::Arc::clone(&store);
            tokio::spawn(
                async move { try_append(&*store, vec![record("a", "one", "one")]).await[0].unwrap() },
            )
        })
        .collect();
    let mut new = 0;
    for call in calls {
        new += usize::from(!call.await.unwrap().duplicate);
    }
    assert_eq!(new, 1);
    assert_eq!(store.books().lanes[0].1.accepted, 1);
}

pub(crate) async fn an_id_is_unique_within_its_lane_only<B: Backend>(backend: B) {
    let store = backend.open();
    let results = try_append(&*store, vec![record("a", "one", "x"), record("b", "one", "y")]).await;
    assert!(results.iter().all(|result| !result.unwrap().duplicate));
}

pub(crate) async fn another_content_under_a_known_id_is_a_conflict<B: Backend>(backend: B) {
    let store = backend.open();
    let results = try_append(
        &*store,
        vec![
            record("a", "one", "x"),
            record("a", "one", "y"),
            record("a", "two", "z"),
        ],
    )
    .await;
    assert!(results[0].is_ok());
    assert_eq!(results[1], Err(Refused::Conflict));
    assert!(results[2].is_ok(), "the others are taken on their own merits");
}

pub(crate) async fn an_atomic_call_is_taken_whole_or_not_at_all<B: Backend>(backend: B) {
    let store = backend.open();
    append(&*store, &["known"]).await;
    let results = append_atomic(&*store, &[("x", "x"), ("known", "other"), ("y", "y")]).await;
    assert_eq!(
        results,
        [
            Err(Refused::NotAlone),
            Err(Refused::Conflict),
            Err(Refused::NotAlone)
        ]
    );
    assert_eq!(store.books().lanes[0].1.accepted, 1);
    assert!(store.find(&lane("a"), "x").await.unwrap().is_none());
    let results = append_atomic(&*store, &[("x", "x"), ("known", "known"), ("y", "y")]).await;
    assert!(results.iter().all(Result::is_ok));
    assert_eq!(store.books().lanes[0].1.accepted, 3);
}

pub(crate) async fn a_call_may_repeat_ids_of_its_own<B: Backend>(backend: B) {
    let store = backend.open();
    // However many rows are written at once: each new id is followed by its repeat and by another content, sooner or later.
    let ids: Vec<_> = (0..40).map(|index| format!("id-{index:02}")).collect();
    let mut records = Vec::new();
    for (index, id) in ids.iter().enumerate() {
        records.push(record("a", id, "one"));
        if index % 3 == 0 {
            records.push(record("a", id, "one"));
        }
        if index % 10 == 9 {
            records.push(record("a", &ids[index - 5], "other"));
        }
    }
    let expected: Vec<_> = records.iter().map(|record| record.id.clone()).collect();
    let results = try_append(&*store, records).await;
    let mut new = Vec::new();
    for (id, result) in expected.iter().zip(&results) {
        match result {
            Ok(appended) if !appended.duplicate => new.push((id.to_string(), appended.sequence)),
            Ok(repeat) => assert_eq!(new.last().unwrap(), &(id.to_string(), repeat.sequence)),
            Err(refused) => assert_eq!(*refused, Refused::Conflict),
        }
    }
    assert_eq!(results.iter().filter(|result| result.is_err()).count(), 4);
    assert!(new.iter().map(|(id, _)| id).eq(&ids));
    let claimed = claim(&*store, 100, 1).await;
    let leased = claimed.leases.iter();
    assert!(leased.map(|lease| (lease.id.to_string(), lease.sequence)).eq(new));
    for lease in &claimed.leases {
        settle(&*store, lease, delivered(2)).await;
    }
    check_balance(&store.books());
}

pub(crate) async fn an_atomic_call_may_repeat_itself<B: Backend>(backend: B) {
    let store = backend.open();
    let results = append_atomic(&*store, &[("x", "x"), ("x", "x")]).await;
    assert_eq!(results[0], results[1]);
    let results = append_atomic(&*store, &[("y", "y"), ("y", "other")]).await;
    assert_eq!(results, [Err(Refused::NotAlone), Err(Refused::Conflict)]);
    assert_eq!(store.books().lanes[0].1.accepted, 1);
}

pub(crate) async fn a_full_queue_refuses_new_records_and_knows_old_ones<B: Backend>(mut backend: B) {
    backend.settings().max_bytes = 2 * (256 + 3);
    let store = backend.open();
    append(&*store, &["one", "two"]).await;
    assert_eq!(store.capacity().used_bytes, store.capacity().max_bytes);
    let results = try_append(
        &*store,
        vec![record("a", "six", "six"), record("a", "one", "one")],
    )
    .await;
    assert!(matches!(
        results[0],
        Err(Refused::Full {
            used_bytes: 518,
            capacity_bytes: 518,
            requested_bytes: 259
        })
    ));
    assert!(results[1].unwrap().duplicate);
    let atomic = append_atomic(&*store, &[("p", "p"), ("one", "one")]).await;
    assert!(matches!(
        atomic[..],
        [Err(Refused::Full { .. }), Err(Refused::NotAlone)]
    ));
    let claimed = claim(&*store, 1, 1).await;
    settle(&*store, &claimed.leases[0], delivered(2)).await;
    append(&*store, &["six"]).await;
    check_balance(&store.books());
}

pub(crate) async fn an_unknown_lane_is_refused<B: Backend>(backend: B) {
    let store = backend.open();
    let results = try_append(&*store, vec![record("nowhere", "one", "x")]).await;
    assert_eq!(results, [Err(Refused::UnknownLane)]);
    let claimed = store.claim(claim_of("nowhere", 1, 1)).await.unwrap();
    assert!(claimed.leases.is_empty() && !claimed.more && claimed.next_due.is_none());
    assert!(store.find(&lane("nowhere"), "one").await.unwrap().is_none());
}

pub(crate) async fn a_durability_that_is_not_on_offer_is_refused<B: Backend>(backend: B) {
    let store = backend.open();
    let call = Append {
        records: vec![record("a", "one", "x")],
        durability: Durability::Replicated,
        atomic: false,
    };
    assert!(matches!(
        store.append(call).await,
        Err(AppendError::DurabilityNotOnOffer)
    ));
}

pub(crate) async fn a_closed_queue_answers_closed<B: Backend>(backend: B) {
    let store = backend.open();
    append(&*store, &["one"]).await;
    store.close().await;
    let call = Append {
        records: vec![record("a", "two", "x")],
        durability: MEMORY,
        atomic: false,
    };
    assert!(matches!(store.append(call).await, Err(AppendError::Closed)));
    assert!(matches!(
        store.claim(claim_of("a", 1, 1)).await,
        Err(ClaimError::Closed)
    ));
    let settlement = Settlement {
        sequence: Sequence(1),
        claim: 1,
        disposition: Disposition::Release,
        gate: Gate::Pass,
    };
    assert!(matches!(
        store.settle(vec![settlement]).await,
        Err(SettleError::Closed)
    ));
    assert!(matches!(store.ping().await, Err(ReadError::Closed)));
    assert!(matches!(
        store.find(&lane("a"), "one").await,
        Err(ReadError::Closed)
    ));
    store.close().await;
}
