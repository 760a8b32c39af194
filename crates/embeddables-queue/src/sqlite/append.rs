//! Appends within a draft: room, duplicates, the two inserts.
//!
//! # Invariants
//! 1. A refused record writes nothing. Of an atomic call everything is decided before anything is written.
//! 2. A repeat of an id adds nothing, also within one commit: the row of the id is inserted before that of the record, and is
//!    what finds the repeat.
//! 3. A repeat of an id whose record was discarded or quarantined is a new record.

use std::collections::{BTreeMap, HashMap};

use rusqlite::{CachedStatement, Connection, OptionalExtension, params};

use super::codec::{Body, record_checksum, sql};
use super::draft::{Draft, SizeBounds};
use super::rows::{self, IdRow, Read};
use super::trouble::Trouble;
use crate::{Append, Appended, NewRecord, OutcomeKind, RECORD_OVERHEAD_BYTES, Refused, Sequence, UnixMillis};

/// What is written of a record, whether it is new or comes back from the dead letters.
pub(super) struct Incoming<'a> {
    pub(super) lane: usize,
    pub(super) accept_time: i64,
    pub(super) deadline: Option<UnixMillis>,
    pub(super) order_key: &'a [u8],
    pub(super) id: &'a str,
    pub(super) progress: &'a [u8],
    pub(super) payload: &'a [u8],
}

impl Incoming<'_> {
    /// Room that it takes.
    pub(super) fn used_bytes(&self) -> u64 {
        RECORD_OVERHEAD_BYTES + (self.payload.len() + self.progress.len()) as u64
    }
}

/// The statement that inserts a never-settled record.
pub(super) fn record_statement(connection: &Connection) -> rusqlite::Result<CachedStatement<'_>> {
    connection.prepare_cached(
        "INSERT INTO records (sequence, lane, due, settled_claim, crc, accept_time, accept_running, order_key, id,
            progress, payload)
         VALUES (?1, ?2, 0, 0, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )
}

/// The statement that inserts the row of an id, or leaves the one alone that is there.
pub(super) fn id_statement(connection: &Connection) -> rusqlite::Result<CachedStatement<'_>> {
    connection.prepare_cached(
        "INSERT INTO ids (lane, id, sequence, fingerprint, accept_time, durability)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING",
    )
}

/// What is to be done with a record.
enum Verdict {
    /// Insert it, in place of a forgotten one if there is one with the same id.
    New(usize),
    /// Its id is known, with the same content.
    Known(Appended),
    /// Do nothing.
    Refuse(Refused),
}

impl Draft<'_> {
    /// Appends the records of one call.
    pub(super) fn append(&mut self, append: &Append) -> Result<Vec<Result<Appended, Refused>>, Trouble> {
        if append.atomic
            && append.records.len() > 1
            && let Some(refused) = self.refused_together(&append.records)?
        {
            return Ok(refused);
        }
        let mut results = Vec::with_capacity(append.records.len());
        for record in &append.records {
            results.push(self.append_one(record)?);
        }
        Ok(results)
    }

    fn append_one(&mut self, record: &NewRecord) -> Result<Result<Appended, Refused>, Trouble> {
        // Most ids are new, and there is room for most: then the insert itself tells that the id is new.
        if let Some(lane) = self.configured_lane(&record.lane)
            && self
                .refused_for_size(lane, needed_bytes(record), &BTreeMap::new())
                .is_none()
            && self.insert_id(lane, record)?
        {
            return Ok(Ok(self.insert_appended(lane, record)?));
        }
        Ok(match self.decide(record, &BTreeMap::new())? {
            Verdict::Known(appended) => Ok(appended),
            Verdict::Refuse(refused) => Err(refused),
            Verdict::New(lane) => {
                self.connection
                    .prepare_cached("DELETE FROM ids WHERE lane = ?1 AND id = ?2")?
                    .execute(params![self.lane_number(lane), &*record.id])?;
                self.insert_id(lane, record)?;
                Ok(self.insert_appended(lane, record)?)
            }
        })
    }

    /// The results of an atomic call of which something is refused; `None` where nothing is.
    fn refused_together(
        &self,
        records: &[NewRecord],
    ) -> Result<Option<Vec<Result<Appended, Refused>>>, Trouble> {
        let mut reserved: BTreeMap<&str, u64> = BTreeMap::new();
        let mut within: HashMap<(&str, &str), &NewRecord> = HashMap::new();
        let mut refusals: Vec<Option<Refused>> = Vec::with_capacity(records.len());
        for record in records {
            let key = (record.lane.as_str(), &*record.id);
            refusals.push(match within.get(&key) {
                Some(first) if first.fingerprint == record.fingerprint => None,
                Some(_) => Some(Refused::Conflict),
                None => {
                    within.insert(key, record);
                    match self.decide(record, &reserved)? {
                        Verdict::New(_) => {
                            *reserved.entry(record.lane.as_str()).or_default() += needed_bytes(record);
                            None
                        }
                        Verdict::Known(_) => None,
                        Verdict::Refuse(refused) => Some(refused),
                    }
                }
            });
        }
        Ok(refusals.iter().any(Option::is_some).then(|| {
            refusals
                .into_iter()
                .map(|refusal| Err(refusal.unwrap_or(Refused::NotAlone)))
                .collect()
        }))
    }

    /// `reserved` is the room promised to records of the same call, by lane.
    fn decide(&self, record: &NewRecord, reserved: &BTreeMap<&str, u64>) -> Result<Verdict, Trouble> {
        let Some(lane) = self.configured_lane(&record.lane) else {
            return Ok(Verdict::Refuse(Refused::UnknownLane));
        };
        let known = rows::id(self.connection, self.lane_number(lane), &record.id)?;
        if let Some(known) = &known
            && !self.is_forgotten(known)?
        {
            // A salvage that lost the fingerprint left it empty.
            return Ok(
                if known.fingerprint.is_empty() || known.fingerprint == record.fingerprint {
                    Verdict::Known(Appended {
                        sequence: Sequence(known.sequence),
                        durability: known.durability,
                        duplicate: true,
                    })
                } else {
                    Verdict::Refuse(Refused::Conflict)
                },
            );
        }
        if let Some(refused) = self.refused_for_size(lane, needed_bytes(record), reserved) {
            return Ok(Verdict::Refuse(refused));
        }
        Ok(Verdict::New(lane))
    }

    fn refused_for_size(
        &self,
        lane: usize,
        requested_bytes: u64,
        reserved: &BTreeMap<&str, u64>,
    ) -> Option<Refused> {
        let SizeBounds {
            max,
            lane_share,
            dead_letter_share,
        } = self.bounds;
        let used_bytes = self.used_bytes() + reserved.values().sum::<u64>();
        if used_bytes + requested_bytes > max {
            return Some(Refused::Full {
                used_bytes,
                capacity_bytes: max,
                requested_bytes,
            });
        }
        let counters = &self.effects.counters[lane];
        let name = self.state.lanes[lane].name.as_str();
        let used_bytes = counters.used_bytes + reserved.get(name).copied().unwrap_or(0);
        if used_bytes + requested_bytes > lane_share {
            return Some(Refused::LaneFull {
                used_bytes,
                share_bytes: lane_share,
            });
        }
        (counters.dead_letter_bytes >= dead_letter_share).then_some(Refused::DeadLettersFull {
            used_bytes: counters.dead_letter_bytes,
            share_bytes: dead_letter_share,
        })
    }

    /// Whether the record of an id was discarded or quarantined, so that a repeat is a new record.
    fn is_forgotten(&self, known: &IdRow) -> Result<bool, Trouble> {
        let sequence = sql(known.sequence);
        let is_here = self
            .connection
            .prepare_cached(
                "SELECT 1 FROM records WHERE sequence = ?1 UNION ALL SELECT 1 FROM dead_letters WHERE sequence = ?1",
            )?
            .query_row([sequence], |_| Ok(()))
            .optional()?
            .is_some();
        if is_here {
            return Ok(false);
        }
        Ok(match rows::outcome_at(self.connection, known.sequence)? {
            Some(Read::Good(outcome)) => {
                matches!(outcome.kind, OutcomeKind::Discarded | OutcomeKind::Quarantined)
            }
            // Neither here nor known to have left: lost to damage.
            Some(Read::Damaged) | None => true,
        })
    }

    /// Inserts the row of an id for the next sequence; `false` where the statement left it alone.
    fn insert_id(&mut self, lane: usize, record: &NewRecord) -> Result<bool, Trouble> {
        let lane = self.lane_number(lane);
        let inserted = self.statements.insert_id.get()?.execute(params![
            lane,
            &*record.id,
            sql(self.effects.store.next_sequence),
            record.fingerprint.as_slice(),
            record.accept_time.0,
            rows::durability_code(self.durability),
        ])?;
        Ok(inserted > 0)
    }

    /// Inserts a record whose id has its row.
    fn insert_appended(&mut self, lane: usize, record: &NewRecord) -> Result<Appended, Trouble> {
        let incoming = Incoming {
            lane,
            accept_time: record.accept_time.0,
            deadline: record.deadline,
            order_key: &record.order_key,
            id: &record.id,
            progress: &[],
            payload: &record.payload,
        };
        let sequence = self.insert_record(&incoming)?;
        self.counters(lane).accepted += 1;
        Ok(Appended {
            sequence: Sequence(sequence),
            durability: self.durability,
            duplicate: false,
        })
    }

    /// Inserts a never-settled record under the next sequence and moves `ready` and the room used; `accepted` is the caller's.
    pub(super) fn insert_record(&mut self, incoming: &Incoming<'_>) -> Result<u64, Trouble> {
        let sequence = self.effects.store.next_sequence;
        let accept_running = sql(self.lane_clock(incoming.lane));
        let body = Body {
            sequence: sql(sequence),
            lane: self.lane_number(incoming.lane),
            accept_time: incoming.accept_time,
            accept_running,
            order_key: incoming.order_key,
            id: incoming.id,
            payload: incoming.payload,
        };
        self.statements.insert_record.get()?.execute(params![
            body.sequence,
            body.lane,
            record_checksum(body.checksum(), 0, 0, incoming.progress),
            body.accept_time,
            body.accept_running,
            body.order_key,
            body.id,
            incoming.progress,
            body.payload,
        ])?;
        if let Some(deadline) = incoming.deadline {
            self.set_deadline(incoming.lane, sequence, deadline)?;
        }
        self.effects.store.next_sequence += 1;
        self.effects.woken.insert(incoming.lane);
        let counters = self.counters(incoming.lane);
        counters.ready += 1;
        counters.used_bytes += incoming.used_bytes();
        Ok(sequence)
    }
}

fn needed_bytes(record: &NewRecord) -> u64 {
    RECORD_OVERHEAD_BYTES + record.payload.len() as u64
}
