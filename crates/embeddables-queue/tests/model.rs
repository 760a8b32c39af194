//! Random calls with restarts: the embedded store must do what a naive model of the interface does.
//!
//! A failing run prints its seed and the shrunken calls; `PROPTEST_CASES` sets how many runs there are.

#![allow(clippy::unwrap_used, reason = "helpers of tests: the panic is the failure")]

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;

use bytes::Bytes;
use embeddables_queue::sqlite::{SqliteConfig, SqliteQueue};
use embeddables_queue::{
    Append, Claim, DeadLetters as _, Disposition, Durability, EntryState, Gate, LaneName, Lease, Ledger as _,
    NewRecord, OpenError, Queue as _, Refused, Settlement, TakeAs, UnixMillis,
};
use proptest::prelude::*;

const IDS: u8 = 12;
const LANES: u8 = 2;

/// One call, or a kill.
#[derive(Clone, Debug)]
enum Step {
    Append {
        lane: u8,
        id: u8,
        content: u8,
    },
    Claim {
        lane: u8,
        max: usize,
        now: i64,
    },
    /// Of the open lease that this picks.
    Settle {
        pick: usize,
        end: End,
    },
    Take {
        pick: usize,
        replay: bool,
    },
    Kill,
}

#[derive(Clone, Debug)]
enum End {
    Deliver,
    Wait(i64),
    GiveUp,
    Release,
}

fn step() -> impl Strategy<Value = Step> {
    let end = prop_oneof![
        Just(End::Deliver),
        (0..60_i64).prop_map(End::Wait),
        Just(End::GiveUp),
        Just(End::Release)
    ];
    prop_oneof![
        5 => (0..LANES, 0..IDS, 0..2_u8).prop_map(|(lane, id, content)| Step::Append { lane, id, content }),
        3 => (0..LANES, 1..4_usize, 0..60_i64).prop_map(|(lane, max, now)| Step::Claim { lane, max, now }),
        6 => (any::<usize>(), end).prop_map(|(pick, end)| Step::Settle { pick, end }),
        2 => (any::<usize>(), any::<bool>()).prop_map(|(pick, replay)| Step::Take { pick, replay }),
        1 => Just(Step::Kill),
    ]
}

/// Where a record of the model is.
#[derive(Clone, Debug, PartialEq)]
enum Place {
    Ready,
    Waiting(i64),
    Delivered,
    Dead,
    Discarded,
}

#[derive(Clone, Debug)]
struct Known {
    lane: u8,
    id: u8,
    content: u8,
    place: Place,
    leased: bool,
    interrupted: bool,
}

/// The model: every record ever accepted, by sequence; its newest holder of an id counts.
#[derive(Default)]
struct Model {
    records: BTreeMap<u64, Known>,
    accepted: BTreeMap<u8, u64>,
    given_up: u64,
}

impl Model {
    fn of_id(&self, lane: u8, id: u8) -> Option<(u64, &Known)> {
        self.records
            .iter()
            .rev()
            .find(|(_, known)| known.lane == lane && known.id == id)
            .map(|(s, known)| (*s, known))
    }

    fn expected_claim(&self, lane: u8, max: usize, now: i64) -> (Vec<u64>, bool, Option<i64>) {
        let free = || {
            self.records
                .iter()
                .filter(move |(_, known)| known.lane == lane && !known.leased)
        };
        let mut due: Vec<(i64, u64)> = Vec::new();
        let mut later = BTreeSet::new();
        for (sequence, known) in free() {
            match known.place {
                Place::Ready => due.push((0, *sequence)),
                Place::Waiting(until) if until <= now => due.push((until, *sequence)),
                Place::Waiting(until) => drop(later.insert(until)),
                _ => {}
            }
        }
        due.sort_unstable();
        let more = due.len() > max;
        due.truncate(max);
        (
            due.into_iter().map(|(_, sequence)| sequence).collect(),
            more,
            later.first().copied(),
        )
    }
}

fn lane(number: u8) -> LaneName {
    LaneName::new(format!("lane{number}"))
}

fn id(number: u8) -> String {
    format!("id{number}")
}

fn payload(known: (u8, u8, u8)) -> Bytes {
    Bytes::from(format!("{known:?}").repeat(30))
}

/// The store under test, its model and the leases that are open.
struct Run {
    dir: tempfile::TempDir,
    queue: Option<SqliteQueue>,
    model: Model,
    leases: Vec<Lease>,
}

fn open(dir: &std::path::Path) -> SqliteQueue {
    let lanes: Vec<LaneName> = (0..LANES).map(lane).collect();
    loop {
        match SqliteQueue::open(SqliteConfig::new(dir, lanes.clone())) {
            Ok((queue, report)) => {
                assert!(
                    report.salvaged.is_none() && report.possible_loss.is_none() && !report.rebuilt,
                    "{report:?}"
                );
                return queue;
            }
            Err(OpenError::InUse { .. }) => std::thread::yield_now(),
            Err(error) => panic!("cannot open: {error:?}"),
        }
    }
}

impl Run {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let queue = Some(open(dir.path()));
        Self {
            dir,
            queue,
            model: Model::default(),
            leases: Vec::new(),
        }
    }

    fn queue(&self) -> &SqliteQueue {
        self.queue.as_ref().unwrap()
    }

    async fn take_step(&mut self, step: Step) {
        match step {
            Step::Append { lane, id, content } => self.append(lane, id, content).await,
            Step::Claim { lane, max, now } => self.claim(lane, max, now).await,
            Step::Settle { pick, end } => self.settle(pick, end).await,
            Step::Take { pick, replay } => self.take(pick, replay).await,
            Step::Kill => {
                self.queue = None;
                self.queue = Some(open(self.dir.path()));
                self.leases.clear();
                for known in self.model.records.values_mut() {
                    known.interrupted |= std::mem::take(&mut known.leased);
                }
            }
        }
    }

    async fn append(&mut self, lane_number: u8, id_number: u8, content: u8) {
        let record = NewRecord {
            lane: lane(lane_number),
            id: id(id_number).into(),
            fingerprint: [content; 16],
            order_key: [0; 16],
            accept_time: UnixMillis(1),
            deadline: None,
            payload: payload((lane_number, id_number, content)),
        };
        let call = Append {
            records: vec![record],
            durability: Durability::Memory,
            atomic: false,
        };
        let result = self.queue().append(call).await.unwrap()[0];
        match self.model.of_id(lane_number, id_number) {
            Some((sequence, known)) if known.place != Place::Discarded => {
                if known.content == content {
                    let appended = result.unwrap();
                    assert!(appended.duplicate);
                    assert_eq!(appended.sequence.0, sequence);
                } else {
                    assert_eq!(result, Err(Refused::Conflict));
                }
            }
            _ => {
                let appended = result.unwrap();
                assert!(!appended.duplicate);
                assert!(
                    self.model
                        .records
                        .keys()
                        .next_back()
                        .is_none_or(|last| *last < appended.sequence.0)
                );
                let known = Known {
                    lane: lane_number,
                    id: id_number,
                    content,
                    place: Place::Ready,
                    leased: false,
                    interrupted: false,
                };
                self.model.records.insert(appended.sequence.0, known);
                *self.model.accepted.entry(lane_number).or_default() += 1;
            }
        }
    }

    async fn claim(&mut self, lane_number: u8, max: usize, now: i64) {
        let most = NonZeroUsize::new(max).unwrap();
        let claimed = self
            .queue()
            .claim(Claim {
                lane: lane(lane_number),
                max: most,
                max_waiting: max,
                live_percent: 0,
                now: UnixMillis(now),
            })
            .await
            .unwrap();
        let (expected, more, next_due) = self.model.expected_claim(lane_number, max, now);
        let found: Vec<u64> = claimed.leases.iter().map(|lease| lease.sequence.0).collect();
        assert_eq!((found, claimed.more), (expected, more));
        if !more {
            assert_eq!(claimed.next_due.map(|due| due.0), next_due);
        }
        for lease in claimed.leases {
            let known = self.model.records.get_mut(&lease.sequence.0).unwrap();
            assert_eq!(lease.payload, payload((known.lane, known.id, known.content)));
            assert_eq!(
                lease.interrupted, known.interrupted,
                "sequence {}",
                lease.sequence.0
            );
            known.leased = true;
            self.leases.push(lease);
        }
    }

    async fn settle(&mut self, pick: usize, end: End) {
        if self.leases.is_empty() {
            return;
        }
        let lease = self.leases.swap_remove(pick % self.leases.len());
        let known = self.model.records.get_mut(&lease.sequence.0).unwrap();
        known.leased = false;
        let (time, note) = (UnixMillis(3), Bytes::from_static(b"note"));
        let disposition = match end {
            End::Release => Disposition::Release,
            End::Wait(until) => {
                known.place = Place::Waiting(until.max(1));
                Disposition::Wait {
                    until: UnixMillis(until),
                    progress: note,
                }
            }
            End::Deliver => {
                known.place = Place::Delivered;
                Disposition::Delivered { time, note }
            }
            End::GiveUp => {
                known.place = Place::Dead;
                self.model.given_up += 1;
                Disposition::DeadLetter {
                    time,
                    reason: "REASON".into(),
                    progress: note,
                }
            }
        };
        if !matches!(disposition, Disposition::Release) {
            known.interrupted = false;
        }
        let settlement = Settlement {
            sequence: lease.sequence,
            claim: lease.claim,
            disposition,
            gate: Gate::Pass,
        };
        self.queue().settle(vec![settlement]).await.unwrap();
    }

    async fn take(&mut self, pick: usize, replay: bool) {
        let dead: Vec<u64> = self
            .model
            .records
            .iter()
            .filter(|(_, known)| known.place == Place::Dead)
            .map(|(sequence, _)| *sequence)
            .collect();
        let listed = self
            .queue()
            .list(None, embeddables_queue::Sequence(0), 1_000)
            .await
            .unwrap();
        assert_eq!(
            listed.iter().map(|letter| letter.sequence.0).collect::<Vec<_>>(),
            dead
        );
        if dead.is_empty() {
            return;
        }
        let sequence = dead[pick % dead.len()];
        let take_as = if replay {
            TakeAs::Replay {
                progress: Bytes::new(),
            }
        } else {
            TakeAs::Discard { time: UnixMillis(4) }
        };
        assert_eq!(
            self.queue()
                .take(&[embeddables_queue::Sequence(sequence)], take_as)
                .await
                .unwrap(),
            1
        );
        if replay {
            let known = self.model.records.remove(&sequence).unwrap();
            let entry = self
                .queue()
                .find(&lane(known.lane), &id(known.id))
                .await
                .unwrap()
                .unwrap();
            self.model.records.insert(
                entry.sequence.0,
                Known {
                    place: Place::Ready,
                    ..known
                },
            );
        } else {
            self.model.records.get_mut(&sequence).unwrap().place = Place::Discarded;
        }
    }

    /// Compares everything that can be asked.
    async fn check(&self) {
        for (lane_number, id_number) in (0..LANES).flat_map(|lane| (0..IDS).map(move |id| (lane, id))) {
            let entry = self
                .queue()
                .find(&lane(lane_number), &id(id_number))
                .await
                .unwrap();
            let Some((sequence, known)) = self.model.of_id(lane_number, id_number) else {
                assert!(entry.is_none());
                continue;
            };
            let entry = entry.unwrap();
            assert_eq!(
                (entry.sequence.0, entry.interrupted),
                (sequence, known.interrupted)
            );
            let place = match entry.state {
                EntryState::Ready => Place::Ready,
                EntryState::Waiting { until } => Place::Waiting(until.0),
                EntryState::Delivered { .. } => Place::Delivered,
                EntryState::DeadLettered { .. } => Place::Dead,
                EntryState::Discarded { .. } => Place::Discarded,
                EntryState::Quarantined => panic!("nothing was damaged"),
            };
            assert_eq!(place, known.place);
        }
        let mut given_up = 0;
        for (name, books) in self.queue().books().lanes {
            let number = (0..LANES).find(|number| lane(*number) == name).unwrap();
            let count = |wanted: fn(&Place) -> bool| {
                let here = self.model.records.values().filter(|known| known.lane == number);
                here.filter(|known| wanted(&known.place)).count() as u64
            };
            assert_eq!(
                books.accepted,
                self.model.accepted.get(&number).copied().unwrap_or(0)
            );
            assert_eq!(books.ready, count(|place| *place == Place::Ready));
            assert_eq!(books.waiting, count(|place| matches!(place, Place::Waiting(_))));
            assert_eq!(books.delivered, count(|place| *place == Place::Delivered));
            assert_eq!(books.dead_lettered, count(|place| *place == Place::Dead));
            assert_eq!(books.discarded, count(|place| *place == Place::Discarded));
            given_up += books
                .dead_lettered_total
                .iter()
                .map(|(_, total)| total)
                .sum::<u64>();
        }
        assert_eq!(given_up, self.model.given_up);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_calls_and_kills_agree_with_the_model(steps in proptest::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut run = Run::new();
            for step in steps {
                run.take_step(step).await;
            }
            run.check().await;
            run.take_step(Step::Kill).await;
            run.check().await;
        });
    }
}
