//! A run: both stores and the model side by side, compared at each step.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use embeddables_queue::memory::{MemoryConfig, MemoryQueue};
use embeddables_queue::sqlite::{SqliteConfig, SqliteQueue};
use embeddables_queue::{
    Append, Appended, Claim, Claimed, DeadLetters as _, Disposition, Durability, EntryState, Gate, LaneName,
    LaneState, Lease, Ledger as _, NewRecord, OpenError, Queue as _, Refused, RunningClock, Sequence,
    Settlement, Store, TakeAs, UnixMillis,
};

use crate::naive::{Bounds, Known, Model, Place, Role};
use crate::step::{End, GateKind, IDS, LANES, Step};

/// A clock that stands until it is moved.
#[derive(Clone, Debug, Default)]
struct TestClock(Arc<AtomicU64>);

impl RunningClock for TestClock {
    fn elapsed(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::SeqCst))
    }
}

fn lane(number: u8) -> LaneName {
    LaneName::new(format!("lane{number}"))
}

fn lanes() -> Vec<LaneName> {
    (0..LANES).map(lane).collect()
}

fn id(number: u8) -> String {
    format!("id{number}")
}

fn payload(known: (u8, u8, u8)) -> Bytes {
    Bytes::from(format!("{known:?}").repeat(30))
}

/// The stores under test, their model and the leases that are open: of the embedded store, and of the one in memory.
pub(crate) struct Run {
    dir: tempfile::TempDir,
    clock: TestClock,
    queue: Option<SqliteQueue>,
    memory: MemoryQueue,
    model: Model,
    leases: Vec<(Lease, Lease)>,
    kills: u64,
}

fn open(dir: &std::path::Path, clock: &TestClock) -> SqliteQueue {
    loop {
        let config = SqliteConfig {
            clock: Arc::new(clock.clone()),
            ..SqliteConfig::new(dir, lanes())
        };
        match SqliteQueue::open(config) {
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

fn in_memory(clock: &TestClock) -> MemoryConfig {
    MemoryConfig {
        clock: Arc::new(clock.clone()),
        ..MemoryConfig::new(lanes())
    }
}

async fn append_one(store: &impl Store, record: NewRecord) -> Result<Appended, Refused> {
    let call = Append {
        records: vec![record],
        durability: Durability::Memory,
        atomic: false,
    };
    store.append(call).await.unwrap()[0]
}

/// What matters of a lease.
fn told(lease: &Lease) -> String {
    let Lease {
        claim: _,
        ref payload,
        ..
    } = *lease;
    format!(
        "{:?} {} {:?} {:?} {:?} {} {}",
        lease.sequence, lease.id, lease.age, lease.progress, payload, lease.interrupted, lease.behind
    )
}

fn check_same(left: &Claimed, right: &Claimed) {
    let all = |claimed: &Claimed| claimed.leases.iter().map(told).collect::<Vec<_>>();
    assert_eq!(all(left), all(right), "the backends differ");
    assert_eq!(
        (left.more, left.next_due),
        (right.more, right.next_due),
        "the backends differ"
    );
}

impl Run {
    pub(crate) fn new() -> Self {
        let (dir, clock) = (tempfile::tempdir().unwrap(), TestClock::default());
        Self {
            queue: Some(open(dir.path(), &clock)),
            memory: MemoryQueue::new(in_memory(&clock)),
            dir,
            clock,
            model: Model::default(),
            leases: Vec::new(),
            kills: 0,
        }
    }

    fn queue(&self) -> &SqliteQueue {
        self.queue.as_ref().unwrap()
    }

    /// Takes a step with both stores and with the model.
    pub(crate) async fn take_step(&mut self, step: Step) {
        match step {
            Step::Append {
                lane,
                id,
                content,
                deadline,
            } => self.append(lane, id, content, deadline).await,
            Step::Claim { lane, bounds } => self.claim(lane, bounds).await,
            Step::Expire { lane, max, wall } => self.expire(lane, max, wall).await,
            Step::Settle { pick, end, gate } => self.settle(pick, end, gate).await,
            Step::Take { pick, replay } => self.take(pick, replay).await,
            Step::State { lane, ageing } => self.set_ageing(lane, ageing).await,
            Step::Tick(millis) => {
                self.clock.0.fetch_add(millis, Ordering::SeqCst);
                self.model.tick(millis);
            }
            Step::Kill => self.kill().await,
        }
    }

    async fn set_ageing(&mut self, lane_number: u8, ageing: bool) {
        let state = LaneState {
            ageing,
            note: Bytes::from(self.kills.to_string()),
        };
        let name = lane(lane_number);
        self.queue().write_lane_state(&name, state.clone()).await.unwrap();
        self.memory.write_lane_state(&name, state).await.unwrap();
        self.model.stopped[usize::from(lane_number)] = !ageing;
    }

    async fn kill(&mut self) {
        // A commit, so that the running time on disk is that of now.
        self.kills += 1;
        self.set_ageing(0, !self.model.stopped[0]).await;
        self.queue = None;
        self.queue = Some(open(self.dir.path(), &self.clock));
        self.memory = self.memory.reopened(in_memory(&self.clock));
        self.leases.clear();
        self.model.kill();
    }

    async fn append(&mut self, lane_number: u8, id_number: u8, content: u8, deadline: Option<i64>) {
        let known = Known {
            lane: lane_number,
            id: id_number,
            content,
            place: Place::Ready,
            deadline,
            role: Role::None,
            leased: None,
            interrupted: false,
            born: self.model.clocks[usize::from(lane_number)],
        };
        let record = NewRecord {
            lane: lane(lane_number),
            id: id(id_number).into(),
            fingerprint: [content; 16],
            order_key: [known.key(); 16],
            accept_time: UnixMillis(1),
            deadline: deadline.map(UnixMillis),
            payload: payload((lane_number, id_number, content)),
        };
        let result = append_one(self.queue(), record.clone()).await;
        let in_memory = append_one(&self.memory, record).await;
        let place = |result: Result<Appended, Refused>| result.map(|done| (done.sequence, done.duplicate));
        assert_eq!(place(result), place(in_memory), "the backends differ");
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
                let last = self.model.records.keys().next_back();
                assert!(last.is_none_or(|last| *last < appended.sequence.0));
                self.model.records.insert(appended.sequence.0, known);
                *self.model.accepted.entry(lane_number).or_default() += 1;
            }
        }
    }

    async fn claim(&mut self, lane_number: u8, bounds: Bounds) {
        let claim = Claim {
            lane: lane(lane_number),
            max: NonZeroUsize::new(bounds.max).unwrap(),
            max_waiting: bounds.max_waiting,
            live_percent: bounds.live_percent,
            now: UnixMillis(bounds.now),
        };
        let claimed = self.queue().claim(claim.clone()).await.unwrap();
        let in_memory = self.memory.claim(claim).await.unwrap();
        let found: Vec<u64> = claimed.leases.iter().map(|lease| lease.sequence.0).collect();
        let next_due = claimed.next_due.map(|due| due.0);
        self.model
            .check_claim(lane_number, bounds, &found, claimed.more, next_due);
        self.note_leases(claimed, in_memory, true);
    }

    async fn expire(&mut self, lane_number: u8, max: usize, wall: i64) {
        let (name, most) = (lane(lane_number), NonZeroUsize::new(max).unwrap());
        let claimed = self
            .queue()
            .claim_expired(&name, most, UnixMillis(wall))
            .await
            .unwrap();
        let in_memory = self
            .memory
            .claim_expired(&name, most, UnixMillis(wall))
            .await
            .unwrap();
        let (mut expected, next) = self.model.expired(lane_number, wall);
        let more = expected.len() > max;
        expected.truncate(max);
        let found: Vec<u64> = claimed.leases.iter().map(|lease| lease.sequence.0).collect();
        assert_eq!((found, claimed.more), (expected, more));
        assert_eq!(claimed.next_due.map(|due| due.0), next.filter(|_| !more));
        self.note_leases(claimed, in_memory, false);
    }

    fn note_leases(&mut self, claimed: Claimed, in_memory: Claimed, to_try: bool) {
        check_same(&claimed, &in_memory);
        for (lease, twin) in claimed.leases.into_iter().zip(in_memory.leases) {
            self.model.lease(&lease, to_try);
            let known = &self.model.records[&lease.sequence.0];
            assert_eq!(lease.payload, payload((known.lane, known.id, known.content)));
            self.leases.push((lease, twin));
        }
    }

    fn pick_lease(&self, pick: Option<usize>) -> Option<Sequence> {
        pick.filter(|_| !self.leases.is_empty())
            .map(|pick| self.leases[pick % self.leases.len()].0.sequence)
    }

    async fn settle(&mut self, pick: usize, end: End, gate: GateKind) {
        if self.leases.is_empty() {
            return;
        }
        let (lease, twin) = self.leases.swap_remove(pick % self.leases.len());
        let gate = match gate {
            GateKind::Pass => Gate::Pass,
            GateKind::Open => Gate::Open,
            GateKind::Lead => Gate::Lead,
            GateKind::Follow(pick) => Gate::Follow {
                head: self.pick_lease(pick),
            },
            GateKind::Line(pick) => Gate::Line {
                head: self.pick_lease(pick),
            },
        };
        let sequence = lease.sequence.0;
        let (time, note) = (UnixMillis(3), Bytes::from_static(b"note"));
        self.model.records.get_mut(&sequence).unwrap().leased = None;
        let disposition = match end {
            End::Release => Disposition::Release,
            End::Wait(until) => {
                self.model.wait(sequence, gate, until);
                Disposition::Wait {
                    until: UnixMillis(until),
                    progress: note,
                }
            }
            End::Deliver => {
                self.model.leave(sequence, gate, Place::Delivered);
                Disposition::Delivered { time, note }
            }
            End::GiveUp => {
                self.model.leave(sequence, gate, Place::Dead);
                self.model.given_up += 1;
                Disposition::DeadLetter {
                    time,
                    reason: "REASON".into(),
                    progress: note,
                }
            }
        };
        let settlement = |claim| Settlement {
            sequence: lease.sequence,
            claim,
            disposition: disposition.clone(),
            gate,
        };
        self.queue().settle(vec![settlement(lease.claim)]).await.unwrap();
        self.memory.settle(vec![settlement(twin.claim)]).await.unwrap();
    }

    async fn take(&mut self, pick: usize, replay: bool) {
        let dead: Vec<u64> = self
            .model
            .records
            .iter()
            .filter(|(_, known)| known.place == Place::Dead)
            .map(|(sequence, _)| *sequence)
            .collect();
        let listed = self.queue().list(None, Sequence(0), 1_000).await.unwrap();
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
        let sequences = [Sequence(sequence)];
        assert_eq!(self.queue().take(&sequences, take_as.clone()).await.unwrap(), 1);
        assert_eq!(self.memory.take(&sequences, take_as).await.unwrap(), 1);
        if replay {
            let known = self.model.records.remove(&sequence).unwrap();
            let entry = self.queue().find(&lane(known.lane), &id(known.id)).await;
            let replayed = Known {
                place: Place::Ready,
                born: self.model.clocks[usize::from(known.lane)],
                ..known
            };
            self.model
                .records
                .insert(entry.unwrap().unwrap().sequence.0, replayed);
        } else {
            self.model.records.get_mut(&sequence).unwrap().place = Place::Discarded;
        }
    }

    /// Compares everything that can be asked.
    pub(crate) async fn check(&self) {
        let mut files = std::fs::read_dir(self.dir.path()).unwrap();
        let is_damaged = files.any(|file| file.unwrap().file_name().to_string_lossy().contains("damaged"));
        assert!(!is_damaged, "the store contradicted itself and was salvaged");
        for (lane_number, id_number) in (0..LANES).flat_map(|lane| (0..IDS).map(move |id| (lane, id))) {
            let (name, id) = (lane(lane_number), id(id_number));
            let entry = self.queue().find(&name, &id).await.unwrap();
            let in_memory = self.memory.find(&name, &id).await.unwrap();
            let Some((sequence, known)) = self.model.of_id(lane_number, id_number) else {
                assert!(entry.is_none() && in_memory.is_none());
                continue;
            };
            let (entry, in_memory) = (entry.unwrap(), in_memory.unwrap());
            assert_eq!(
                (entry.sequence.0, entry.interrupted),
                (sequence, known.interrupted)
            );
            assert_eq!(
                (&entry.state, entry.interrupted, &entry.progress),
                (&in_memory.state, in_memory.interrupted, &in_memory.progress),
                "the backends differ"
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
        self.check_books().await;
    }

    async fn check_books(&self) {
        let (books, in_memory) = (self.queue().books(), self.memory.books());
        assert_eq!(books.lanes, in_memory.lanes, "the backends differ");
        assert_eq!(
            (books.outcomes, books.newest_sequence),
            (in_memory.outcomes, in_memory.newest_sequence),
            "the backends differ"
        );
        let mut given_up = 0;
        for (name, books) in books.lanes {
            let number = (0..LANES).find(|number| lane(*number) == name).unwrap();
            let count = |wanted: fn(&Place) -> bool| {
                let here = self.model.records.values().filter(|known| known.lane == number);
                here.filter(|known| wanted(&known.place)).count() as u64
            };
            let accepted = self.model.accepted.get(&number).copied().unwrap_or(0);
            assert_eq!(books.accepted, accepted);
            assert_eq!(books.ready, count(|place| *place == Place::Ready));
            assert_eq!(books.waiting, count(|place| matches!(place, Place::Waiting(_))));
            assert_eq!(books.delivered, count(|place| *place == Place::Delivered));
            assert_eq!(books.dead_lettered, count(|place| *place == Place::Dead));
            assert_eq!(books.discarded, count(|place| *place == Place::Discarded));
            let totals = books.dead_lettered_total.iter().map(|(_, total)| total);
            given_up += totals.sum::<u64>();
            let backlog = self.queue().backlog(&name, Sequence(u64::MAX)).await.unwrap();
            assert_eq!((backlog.ready, backlog.waiting), (books.ready, books.waiting));
        }
        assert_eq!(given_up, self.model.given_up);
    }
}
