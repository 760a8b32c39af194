//! Heads, followers, deadlines and lane states on bad days.

use rusqlite::Connection;

use super::{
    append, check_balance, claim, claimed_ids, connection_to, delivered, files, lane, open_store, open_with,
    settle_gate, settlement,
};
use crate::sqlite::SqliteQueue;
use crate::{
    DeadLetters as _, Disposition, EntryState, Gate, LaneState, Ledger as _, Queue as _, Sequence,
    Settlement, UnixMillis,
};

const FOLLOW: Gate = Gate::Follow { head: None };

fn wait(until: i64) -> Disposition {
    Disposition::Wait {
        until: UnixMillis(until),
        progress: "progress".into(),
    }
}

/// Lets the first of these lead and the others follow, all until `until`.
async fn line_up(queue: &SqliteQueue, ids: &[&str], until: i64) {
    append(queue, ids).await;
    for (place, lease) in claim(queue, ids.len(), 1).await.leases.iter().enumerate() {
        let gate = if place == 0 { Gate::Lead } else { FOLLOW };
        settle_gate(queue, lease, wait(until), gate).await;
    }
}

/// A closed store with a head, two followers and a dead letter, after a change behind its back.
async fn changed(change: impl FnOnce(&Connection)) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let (queue, _) = open_store(dir.path());
    append(&queue, &["dead"]).await;
    let claimed = claim(&queue, 1, 1).await;
    let dead = Disposition::DeadLetter {
        time: UnixMillis(3),
        reason: "R".into(),
        progress: "p".into(),
    };
    settle_gate(&queue, &claimed.leases[0], dead, Gate::Pass).await;
    line_up(&queue, &["head", "first", "second"], 1_000).await;
    let state = LaneState {
        ageing: false,
        note: "note".into(),
    };
    queue.write_lane_state(&lane(), state).await.unwrap();
    queue.close().await;
    drop(queue);
    change(&connection_to(dir.path()));
    dir
}

async fn flags(queue: &SqliteQueue, now: i64) -> Vec<(String, bool)> {
    let claimed = claim(queue, 100, now).await;
    let flags = claimed
        .leases
        .iter()
        .map(|lease| (lease.id.to_string(), lease.behind));
    flags.collect()
}

fn expect(flags: &[(&str, bool)]) -> Vec<(String, bool)> {
    flags
        .iter()
        .map(|(id, behind)| ((*id).to_owned(), *behind))
        .collect()
}

fn run(statements: &'static str) -> impl FnOnce(&Connection) {
    move |store| store.execute_batch(statements).unwrap()
}

/// Overwrites the pages on which tables or indexes begin.
fn break_pages(names: &'static [&'static str]) -> impl FnOnce(&Connection) {
    move |store| {
        let path = store.path().unwrap().to_owned();
        let roots: Vec<u64> = names
            .iter()
            .map(|name| {
                let select = "SELECT rootpage FROM sqlite_schema WHERE name = ?1";
                store
                    .query_row(select, [name], |row| row.get::<_, i64>(0))
                    .unwrap()
            })
            .map(|root| u64::try_from(root).unwrap())
            .collect();
        store.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
        let file = std::fs::File::options().write(true).open(path).unwrap();
        for root in roots {
            std::os::unix::fs::FileExt::write_all_at(&file, &[0xff; 4_096], (root - 1) * 4_096).unwrap();
        }
    }
}

#[tokio::test]
async fn a_head_whose_record_is_gone_hands_over() {
    // As if an older release had settled it, or rot had changed its number.
    let dir = changed(run("UPDATE gates SET sequence = 99 WHERE head = 1")).await;
    let (queue, report) = open_store(dir.path());
    assert!(report.salvaged.is_none());
    append(&queue, &["new"]).await;
    assert_eq!(
        flags(&queue, 10).await,
        expect(&[("new", true)]),
        "a follower has taken over"
    );
    assert_eq!(flags(&queue, 10).await, expect(&[("first", false)]));
    assert_eq!(
        flags(&queue, 1_000).await,
        expect(&[("head", true), ("second", true)])
    );
    check_balance(&queue);
}

#[tokio::test]
async fn without_any_rows_left_every_record_stands_for_itself() {
    let dir = changed(run("DELETE FROM gates")).await;
    let (queue, _) = open_store(dir.path());
    assert!(flags(&queue, 999).await.is_empty(), "their due times stand");
    let free = flags(&queue, 1_000).await;
    assert_eq!(
        free,
        expect(&[("head", false), ("first", false), ("second", false)])
    );
}

#[tokio::test]
async fn followers_of_no_head_are_tried_when_their_time_comes() {
    let dir = changed(run("DELETE FROM gates WHERE head = 1")).await;
    let (queue, _) = open_store(dir.path());
    let claimed = claim(&queue, 2, 1_000).await;
    assert!(claimed.leases.iter().all(|lease| !lease.behind));
    let first = &claimed.leases[1];
    settle_gate(&queue, first, delivered(), Gate::Open).await;
    assert_eq!(
        flags(&queue, 10).await,
        expect(&[("second", false)]),
        "an opened key lets them go"
    );
}

#[tokio::test]
async fn lost_heads_and_followers_make_every_waiting_record_due() {
    let dir = changed(break_pages(&["gates", "gates_key"])).await;
    let (queue, report) = open_store(dir.path());
    assert!(report.salvaged.is_some_and(|salvaged| salvaged.quarantined == 0));
    assert_eq!(claimed_ids(&queue).await.len(), 3);
    drop(queue);
    let (queue, _) = open_store(dir.path());
    let free = flags(&queue, 1).await;
    assert_eq!(
        free,
        expect(&[("head", false), ("first", false), ("second", false)])
    );
    assert!(!queue.lane_state(&lane()).ageing);
    check_balance(&queue);
}

#[tokio::test]
async fn a_salvage_keeps_heads_followers_deadlines_and_lane_states() {
    let dir = changed(|store| {
        store
            .execute_batch("INSERT INTO gates (sequence, lane, order_key, head) VALUES (77, 1, x'02020202020202020202020202020202', 0)")
            .unwrap();
        break_pages(&["reasons"])(store);
    })
    .await;
    let (queue, report) = open_store(dir.path());
    assert!(report.salvaged.is_some());
    append(&queue, &["new"]).await;
    assert_eq!(flags(&queue, 10).await, expect(&[("new", true)]));
    let state = queue.lane_state(&lane());
    assert_eq!((state.ageing, &state.note[..]), (false, &b"note"[..]));
    assert_eq!(queue.books().lanes[0].1.dead_letter_bytes, 256 + 80 + 1);
    drop(queue);
    let store = connection_to(dir.path());
    let rows: i64 = store
        .query_row("SELECT count(*) FROM gates", [], |row| row.get(0))
        .unwrap();
    assert_eq!(rows, 3, "rows without a record are dropped");
}

#[tokio::test]
async fn followers_whose_head_a_salvage_lost_are_due_at_once() {
    let dir = changed(|store| {
        store
            .execute_batch("UPDATE records SET payload = x'00' WHERE id = 'head'")
            .unwrap();
        break_pages(&["reasons"])(store);
    })
    .await;
    let (queue, report) = open_store(dir.path());
    assert_eq!(report.salvaged.unwrap().quarantined, 1);
    assert_eq!(
        flags(&queue, 1).await,
        expect(&[("first", false), ("second", false)])
    );
    check_balance(&queue);
}

/// Removes rows of the gates without their index noticing: it is taken out of the schema meanwhile.
fn forget_behind_the_index(store: &Connection, which: &str) {
    let path = store.path().unwrap().to_owned();
    let root: i64 = store
        .query_row(
            "SELECT rootpage FROM sqlite_schema WHERE name = 'gates_key'",
            [],
            |row| row.get(0),
        )
        .unwrap();
    for statements in [
        "DELETE FROM sqlite_schema WHERE name = 'gates_key'".to_owned(),
        format!("DELETE FROM gates WHERE {which}"),
        format!(
            "INSERT INTO sqlite_schema VALUES ('index', 'gates_key', 'gates', {root},
                'CREATE INDEX gates_key ON gates (lane, order_key, head, sequence)')"
        ),
    ] {
        // Each connection reads the schema anew.
        let store = Connection::open(&path).unwrap();
        store
            .execute_batch(&format!("PRAGMA writable_schema = ON; {statements}"))
            .unwrap();
    }
}

#[tokio::test]
async fn an_index_that_names_what_is_not_there_is_damage_and_no_endless_search() {
    for which in ["head = 1", "head = 0"] {
        let dir = changed(|store| forget_behind_the_index(store, which)).await;
        let (queue, report) = open_store(dir.path());
        assert!(report.salvaged.is_none(), "nobody has met it yet");
        let head = claim(&queue, 1, 1_000).await;
        settle_gate(&queue, &head.leases[0], delivered(), Gate::Pass).await;
        let rest = flags(&queue, 1_000).await;
        assert_eq!(rest, expect(&[("first", false), ("second", false)]), "{which}");
        let salvaged = files(dir.path()).keys().any(|name| name.contains("damaged"));
        assert!(salvaged, "{which}");
        check_balance(&queue);
    }
}

#[tokio::test]
async fn a_salvage_while_running_keeps_the_state_of_the_lane() {
    let dir = changed(run("")).await;
    let (queue, _) = open_store(dir.path());
    queue
        .controls
        .send(crate::sqlite::command::Control::Salvage)
        .await
        .unwrap();
    queue.ping().await.unwrap();
    assert!(!queue.lane_state(&lane()).ageing);
    append(&queue, &["new"]).await;
    assert_eq!(flags(&queue, 10).await, expect(&[("new", true)]));
}

#[tokio::test]
async fn a_rotten_head_hands_over_when_it_is_found() {
    let dir = changed(run("UPDATE records SET payload = x'00' WHERE id = 'head'")).await;
    let (queue, _) = open_store(dir.path());
    assert!(
        claim(&queue, 1, 1_000)
            .await
            .leases
            .iter()
            .all(|lease| *lease.id == *"first")
    );
    let entry = queue.find(&lane(), "head").await.unwrap().unwrap();
    assert_eq!(entry.state, EntryState::Quarantined);
    assert_eq!(flags(&queue, 1_000).await, expect(&[("second", true)]));
    check_balance(&queue);
}

#[tokio::test]
async fn a_rotten_follower_does_not_take_over() {
    let dir = changed(run("UPDATE records SET payload = x'00' WHERE id = 'first'")).await;
    let (queue, _) = open_store(dir.path());
    let head = claim(&queue, 1, 1_000).await;
    settle_gate(&queue, &head.leases[0], delivered(), Gate::Pass).await;
    assert_eq!(flags(&queue, 10).await, expect(&[("second", false)]));
    let books = &queue.books().lanes[0].1;
    assert_eq!((books.quarantined, books.waiting), (1, 1));
    check_balance(&queue);
}

#[tokio::test]
async fn damage_found_in_the_midst_of_a_claim_does_not_upset_it() {
    // The head is gone, and who would take over is rotten and among those to be claimed.
    let dir = changed(run(
        "UPDATE gates SET sequence = 99 WHERE head = 1; UPDATE records SET payload = x'00' WHERE id = 'first'",
    ))
    .await;
    let (queue, report) = open_store(dir.path());
    assert!(report.salvaged.is_none());
    assert_eq!(
        flags(&queue, 1_000).await,
        expect(&[("head", true), ("second", false)])
    );
    assert_eq!(queue.books().lanes[0].1.quarantined, 1);
    check_balance(&queue);
}

#[tokio::test]
async fn a_released_record_that_rots_is_quarantined_once() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, _) = open_store(dir.path());
    append(&queue, &["good", "rotten", "fine"]).await;
    let claimed = claim(&queue, 2, 1).await;
    for lease in &claimed.leases {
        settle_gate(&queue, lease, Disposition::Release, Gate::Pass).await;
    }
    // Through the writer's own file, while it is open.
    let store = Connection::open(super::paths(dir.path()).db()).unwrap();
    store
        .execute("UPDATE records SET payload = x'00' WHERE id = 'rotten'", [])
        .unwrap();
    drop(store);
    assert_eq!(claimed_ids(&queue).await, ["good", "fine"]);
    assert!(claimed_ids(&queue).await.is_empty());
    assert_eq!(queue.books().lanes[0].1.quarantined, 1);
    check_balance(&queue);
}

#[tokio::test]
async fn a_damaged_lane_state_begins_anew() {
    let dir = changed(run("UPDATE lane_states SET stopped_total = 5")).await;
    let (queue, report) = open_store(dir.path());
    assert!(report.salvaged.is_none());
    assert_eq!(queue.lane_state(&lane()), LaneState::default());
    assert_eq!(queue.books().lanes[0].1.dead_letter_bytes, 256 + 80 + 1);
}

#[tokio::test]
async fn dead_letters_of_an_older_release_are_counted() {
    let dir = changed(run("DELETE FROM lane_states")).await;
    let (queue, _) = open_store(dir.path());
    assert_eq!(queue.books().lanes[0].1.dead_letter_bytes, 256 + 80 + 1);
    let letters = queue.list(None, Sequence(0), 9).await.unwrap();
    let discard = crate::TakeAs::Discard { time: UnixMillis(4) };
    assert_eq!(queue.take(&[letters[0].sequence], discard).await.unwrap(), 1);
    assert_eq!(queue.books().lanes[0].1.dead_letter_bytes, 0);
}

#[tokio::test]
async fn rotten_and_stray_deadlines_are_dropped_when_they_are_met() {
    let dir = changed(run(
        "INSERT INTO deadlines (sequence, lane, time, crc) VALUES (2, 1, 5, 0), (99, 1, 6, 0)",
    ))
    .await;
    let (queue, _) = open_store(dir.path());
    let most = std::num::NonZeroUsize::new(9).unwrap();
    let none = queue.claim_expired(&lane(), most, UnixMillis(10)).await.unwrap();
    assert!(none.leases.is_empty() && !none.more && none.next_due.is_none());
    queue.close().await;
    drop(queue);
    let rows: i64 = connection_to(dir.path())
        .query_row("SELECT count(*) FROM deadlines", [], |row| row.get(0))
        .unwrap();
    assert_eq!(rows, 0);
}

#[tokio::test]
async fn a_failed_settlement_moves_no_head() {
    let dir = tempfile::tempdir().unwrap();
    let switch = super::commits::Switch::default();
    let (queue, _) = open_with(dir.path(), Some(switch.hook()));
    append(&queue, &["1", "2"]).await;
    let claimed = claim(&queue, 1, 1).await;
    let settle = |gate| {
        queue.settle(vec![Settlement {
            gate,
            ..settlement(&claimed.leases[0], wait(100))
        }])
    };
    switch.fail_with(rusqlite::ffi::SQLITE_IOERR_FSYNC);
    settle(Gate::Lead).await.unwrap_err();
    switch.fail_with(0);
    queue.ping().await.unwrap();
    let second = claim(&queue, 1, 1).await;
    assert!(!second.leases[0].behind);
    settle(Gate::Lead).await.unwrap();
    settle_gate(&queue, &second.leases[0], Disposition::Release, Gate::Pass).await;
    assert_eq!(flags(&queue, 1).await, expect(&[("2", true)]));
}
