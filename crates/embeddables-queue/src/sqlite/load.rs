//! Loading the state of a store: numbers, lanes and books, the leases of earlier lives. Bounded by lanes and open claims.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use foldhash::HashMap;
use rusqlite::{Connection, OptionalExtension, params};
use tokio::sync::Notify;

use super::codec::{claim_checksum, order_key, sql, unpack_sequences, unsigned};
use super::config::SqliteConfig;
use super::lane_rows::{self, LaneStateRow};
use super::mark::Mark;
use super::small_set::SmallSet;
use super::state::{Lane, LaneCounters, Reach, State, StoreRow};
use super::trouble::Trouble;
use super::{recount, rows, salvage_books};
use crate::clock::LaneClock;
use crate::{LaneName, LaneState};

/// A store's state, and its secret.
pub(super) struct Loaded {
    pub(super) state: State,
    pub(super) secret: [u8; 32],
}

/// Loads within the caller's transaction; repairs what is kept twice or can be counted anew.
pub(super) fn load(connection: &Connection, config: &SqliteConfig, newest: Mark) -> Result<Loaded, Trouble> {
    let secret = load_secret(connection)?;
    let store = match rows::store(connection)? {
        Some(store) => store,
        None => recover_numbers(connection, newest)?,
    };
    let lanes = load_lanes(connection, &config.lanes)?;
    let lane_index = lanes
        .iter()
        .enumerate()
        .map(|(index, lane)| (lane.name.clone(), index))
        .collect();
    let oldest_outcome = connection
        .query_row(
            "SELECT number, running FROM outcomes ORDER BY number LIMIT 1",
            [],
            |row| Ok((unsigned(row.get(0)?), unsigned(row.get(1)?))),
        )
        .optional()?;
    let mut state = State {
        store,
        lanes,
        lane_index,
        leases: HashMap::default(),
        claims: HashMap::default(),
        interrupted: HashMap::default(),
        old_claims: HashMap::default(),
        oldest_outcome,
        has_openings: has_openings(connection)?,
    };
    // What the mark knows was given out, even where the commits that say so are lost.
    let store = &mut state.store;
    store.running = store.running.max(newest.running);
    store.next_sequence = store.next_sequence.max(newest.next_sequence).max(1);
    store.next_claim = store.next_claim.max(newest.next_claim).max(1);
    store.next_outcome = store.next_outcome.max(newest.next_outcome).max(1);
    load_claims(connection, &mut state)?;
    Ok(Loaded { state, secret })
}

fn load_secret(connection: &Connection) -> Result<[u8; 32], Trouble> {
    let read = |name| -> Result<Option<[u8; 32]>, Trouble> {
        Ok(rows::meta(connection, name)?.and_then(|value| value.try_into().ok()))
    };
    let (first, copy) = (read("secret")?, read("secret_copy")?);
    let secret = first.or(copy).ok_or(Trouble::Damaged {
        what: "both copies of the secret are damaged",
    })?;
    if first.is_none() {
        rows::write_meta(connection, "secret", &secret)?;
    }
    if copy.is_none() {
        rows::write_meta(connection, "secret_copy", &secret)?;
    }
    Ok(secret)
}

/// The numbers to go on with where their row is lost: above everything that any table or the mark names, with a gap for what
/// the mark had not heard of.
pub(super) fn recover_numbers(connection: &Connection, newest: Mark) -> Result<StoreRow, Trouble> {
    const GAP: u64 = 1 << 20;
    tracing::warn!("the row of the store's numbers is damaged: they are found anew");
    let highest = |sql: &str| -> Result<u64, Trouble> {
        Ok(connection
            .query_row(sql, [], |row| row.get::<_, Option<i64>>(0))?
            .map_or(0, unsigned))
    };
    let sequence = highest("SELECT max(sequence) FROM records")?
        .max(highest("SELECT max(sequence) FROM dead_letters")?)
        .max(highest("SELECT max(sequence) FROM outcomes")?)
        .max(highest("SELECT max(sequence) FROM ids")?)
        .max(newest.next_sequence);
    let claim = highest("SELECT max(number) FROM claims")?
        .max(highest("SELECT max(settled_claim) FROM records")?)
        .max(newest.next_claim);
    let outcome = highest("SELECT max(number) FROM outcomes")?.max(newest.next_outcome);
    Ok(StoreRow {
        commit_number: newest.commit_number,
        next_sequence: sequence + GAP,
        next_claim: claim + GAP,
        next_outcome: outcome + 1,
        running: newest.running,
        ..StoreRow::default()
    })
}

fn load_lanes(connection: &Connection, configured: &[LaneName]) -> Result<Vec<Lane>, Trouble> {
    let mut reasons = load_reasons(connection)?;
    let mut lanes: Vec<Lane> = Vec::new();
    for (number, name, counters) in lane_rows::lanes(connection)? {
        let counters = match counters {
            Some(counters) if counters.missing() == 0 => counters,
            _ => {
                tracing::warn!("the books of a lane are damaged: they are counted anew");
                let counters = recount::count_lane(connection, number)?;
                lane_rows::write_lane(connection, number, &name, &counters)?;
                counters
            }
        };
        let name = LaneName::new(name);
        let mut lane = new_lane(number, configured.contains(&name), name);
        lane.counters = counters;
        lane.reasons = reasons.remove(&number).unwrap_or_default();
        load_lane_state(connection, &mut lane)?;
        lanes.push(lane);
    }
    for name in configured {
        if lanes.iter().any(|lane| lane.name == *name) {
            continue;
        }
        let number = lanes.iter().map(|lane| lane.number).max().unwrap_or(0) + 1;
        lane_rows::write_lane(connection, number, name.as_str(), &LaneCounters::default())?;
        lanes.push(new_lane(number, true, name.clone()));
        salvage_books::write_lane_names(connection)?;
    }
    Ok(lanes)
}

fn new_lane(number: i64, configured: bool, name: LaneName) -> Lane {
    Lane {
        number,
        name,
        configured,
        counters: LaneCounters::default(),
        reasons: BTreeMap::new(),
        ready: Arc::new(Notify::new()),
        state: LaneState::default(),
        clock: LaneClock::default(),
        gated_keys: SmallSet::default(),
        timed: SmallSet::default(),
        reach: Reach::default(),
        released: BTreeSet::new(),
        leased_ready: 0,
        last_now: None,
    }
}

/// Loads what is kept of a lane besides its books. Where an older release has written since, its dead letters are counted anew.
fn load_lane_state(connection: &Connection, lane: &mut Lane) -> Result<(), Trouble> {
    let row = lane_rows::lane_state(connection, lane.number)?;
    lane.state = row.state();
    lane.clock = row.clock;
    if row.dead_letters == lane.counters.dead_lettered {
        lane.counters.dead_letter_bytes = row.dead_letter_bytes;
    } else {
        lane.counters.dead_letter_bytes = recount::dead_letter_bytes(connection, lane.number)?;
        let row = LaneStateRow::of(&lane.state, lane.clock, &lane.counters);
        lane_rows::write_lane_state(connection, lane.number, &row)?;
    }
    review_unusual(connection, lane)
}

/// Looks which keys of a lane have heads or followers, and which records deadlines, as far as there are few.
pub(super) fn review_unusual(connection: &Connection, lane: &mut Lane) -> Result<(), Trouble> {
    lane.gated_keys = SmallSet::default();
    let mut after: Vec<u8> = Vec::new();
    // From key to key: a key may have very many followers.
    while lane.gated_keys.is_whole() {
        let next: Option<Vec<u8>> = connection
            .prepare_cached(
                "SELECT order_key FROM gates WHERE lane = ?1 AND order_key > ?2 ORDER BY order_key LIMIT 1",
            )?
            .query_row(params![lane.number, after], |row| row.get(0))
            .optional()?;
        let Some(next) = next else { break };
        lane.gated_keys.set(order_key(&next), true);
        after = next;
    }
    lane.timed = SmallSet::default();
    let mut statement = connection.prepare_cached("SELECT sequence FROM deadlines WHERE lane = ?1")?;
    let mut rows = statement.query([lane.number])?;
    while lane.timed.is_whole()
        && let Some(row) = rows.next()?
    {
        lane.timed.set(unsigned(row.get(0)?), true);
    }
    Ok(())
}

/// Whether followers of any key are being let go.
pub(super) fn has_openings(connection: &Connection) -> Result<bool, Trouble> {
    Ok(connection
        .prepare_cached("SELECT 1 FROM openings LIMIT 1")?
        .exists([])?)
}

fn load_reasons(connection: &Connection) -> Result<HashMap<i64, BTreeMap<Box<str>, u64>>, Trouble> {
    let mut reasons: HashMap<i64, BTreeMap<Box<str>, u64>> = HashMap::default();
    let mut statement = connection.prepare_cached("SELECT lane, reason, total FROM reasons")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let reason = row.get_ref(1)?.as_str().map_err(rusqlite::Error::from)?;
        reasons
            .entry(row.get(0)?)
            .or_default()
            .insert(reason.into(), unsigned(row.get(2)?));
    }
    Ok(reasons)
}

/// The leases of earlier lives: records listed in a mark and not settled under it or a later claim.
fn load_claims(connection: &Connection, state: &mut State) -> Result<(), Trouble> {
    let mut finished = Vec::new();
    let mut unreadable = Vec::new();
    let mut statement =
        connection.prepare_cached("SELECT number, lane, sequences, crc FROM claims ORDER BY number")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let number: i64 = row.get(0)?;
        let sequences = (|| {
            let (lane, crc): (i64, i64) = (row.get(1).ok()?, row.get(3).ok()?);
            let packed = row.get_ref(2).ok()?.as_blob().ok()?;
            (i64::from(claim_checksum(number, lane, packed)) == crc).then(|| unpack_sequences(packed))?
        })();
        let Some(sequences) = sequences else {
            unreadable.push(number);
            continue;
        };
        let mut open = 0;
        for sequence in sequences {
            if settled_claim(connection, sequence)?.is_some_and(|settled| settled < number) {
                state
                    .interrupted
                    .entry(sequence)
                    .or_default()
                    .push(unsigned(number));
                open += 1;
            }
        }
        if open == 0 {
            finished.push(number);
        } else {
            state.old_claims.insert(unsigned(number), open);
        }
    }
    if !unreadable.is_empty() {
        tracing::warn!(
            count = unreadable.len(),
            "lease marks are damaged: every record counts as possibly tried"
        );
        state.store.doubt_sequence = state.store.next_sequence;
        state.store.doubt_claim = state.store.next_claim;
    }
    for number in finished.into_iter().chain(unreadable) {
        connection
            .prepare_cached("DELETE FROM claims WHERE number = ?1")?
            .execute([number])?;
    }
    Ok(())
}

fn settled_claim(connection: &Connection, sequence: u64) -> Result<Option<i64>, Trouble> {
    Ok(connection
        .prepare_cached("SELECT settled_claim FROM records WHERE sequence = ?1")?
        .query_row([sql(sequence)], |row| row.get(0))
        .optional()?)
}
