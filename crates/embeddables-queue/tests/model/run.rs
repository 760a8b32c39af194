//! A run: both stores and the model side by side, compared at each step.

use std::num::NonZeroUsize;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use embeddables_queue::memory::MemoryQueue;
use embeddables_queue::sqlite::SqliteQueue;
use embeddables_queue::{
    Appended, Claim, Claimed, DeadLetters as _, Disposition, Gate, LaneState, Lease, Ledger as _, NewRecord,
    Queue as _, Refused, Sequence, Settlement, TakeAs, UnixMillis,
};

use crate::naive::{Bounds, Known, Model, Place, Role};
use crate::step::{End, GateKind, Step};
use crate::stores::{TestClock, append_one, check_same, id, in_memory, lane, open, payload};

/// The stores under test, their model and the leases that are open: of the embedded store, and of the one in memory.
pub(crate) struct Run {
    pub(crate) dir: tempfile::TempDir,
    clock: TestClock,
    queue: Option<SqliteQueue>,
    pub(crate) memory: MemoryQueue,
    pub(crate) model: Model,
    leases: Vec<(Lease, Lease)>,
    kills: u64,
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

    pub(crate) fn queue(&self) -> &SqliteQueue {
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
}
