//! A naive model of the interface: every record ever accepted, looked through from end to end for each question.

use std::collections::BTreeMap;

use embeddables_queue::{Gate, Lease, Sequence};

/// Where a record is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Place {
    Ready,
    Waiting(i64),
    Delivered,
    Dead,
    Discarded,
}

/// What a record is to its order key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Role {
    None,
    Head,
    Follower,
}

#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) lane: u8,
    pub(crate) id: u8,
    pub(crate) content: u8,
    pub(crate) place: Place,
    pub(crate) deadline: Option<i64>,
    pub(crate) role: Role,
    /// Whether it is leased, and whether that lease has a mark.
    pub(crate) leased: Option<bool>,
    pub(crate) interrupted: bool,
    /// What the lane's clock showed when it was accepted.
    pub(crate) born: u64,
}

impl Known {
    /// Ids share three keys.
    pub(crate) fn key(&self) -> u8 {
        self.id % 3
    }

    pub(crate) fn is_here(&self) -> bool {
        matches!(self.place, Place::Ready | Place::Waiting(_))
    }
}

/// A call of `claim`, without its lane.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) max: usize,
    pub(crate) max_waiting: usize,
    pub(crate) live_percent: u8,
    pub(crate) now: i64,
}

#[derive(Default)]
pub(crate) struct Model {
    /// By sequence; the newest holder of an id counts.
    pub(crate) records: BTreeMap<u64, Known>,
    pub(crate) accepted: BTreeMap<u8, u64>,
    pub(crate) given_up: u64,
    /// Lanes that are stopped.
    pub(crate) stopped: [bool; 2],
    /// Clock of each lane, in milliseconds.
    pub(crate) clocks: [u64; 2],
}

impl Model {
    pub(crate) fn of_id(&self, lane: u8, id: u8) -> Option<(u64, &Known)> {
        self.records
            .iter()
            .rev()
            .find(|(_, known)| known.lane == lane && known.id == id)
            .map(|(s, known)| (*s, known))
    }

    pub(crate) fn tick(&mut self, millis: u64) {
        for (clock, stopped) in self.clocks.iter_mut().zip(self.stopped) {
            *clock += if stopped { 0 } else { millis };
        }
    }

    pub(crate) fn kill(&mut self) {
        for known in self.records.values_mut() {
            known.interrupted |= known.leased.take() == Some(true);
        }
    }

    /// Records of the same key that are here, by sequence.
    fn of_key(&self, sequence: u64) -> Vec<u64> {
        let (lane, key) = (self.records[&sequence].lane, self.records[&sequence].key());
        self.records
            .iter()
            .filter(|(_, known)| known.lane == lane && known.key() == key && known.is_here())
            .map(|(sequence, _)| *sequence)
            .collect()
    }

    fn head(&self, sequence: u64) -> Option<u64> {
        self.of_key(sequence)
            .into_iter()
            .find(|other| self.records[other].role == Role::Head)
    }

    fn known(&mut self, sequence: u64) -> &mut Known {
        self.records.get_mut(&sequence).unwrap()
    }

    fn make_due(&mut self, sequence: u64) {
        let known = self.known(sequence);
        if let Place::Waiting(until) = &mut known.place {
            *until = 1.min(*until);
        }
    }

    fn pass(&mut self, sequence: u64) {
        let role = std::mem::replace(&mut self.known(sequence).role, Role::None);
        let next = self
            .of_key(sequence)
            .into_iter()
            .find(|other| self.records[other].role == Role::Follower);
        if role == Role::Head
            && let Some(next) = next
        {
            self.known(next).role = Role::Head;
            self.make_due(next);
        }
    }

    fn open(&mut self, sequence: u64) {
        for other in self.of_key(sequence) {
            if self.known(other).role != Role::None && other != sequence {
                self.make_due(other);
            }
            self.known(other).role = Role::None;
        }
    }

    /// A record leaves to a place where nothing is settled any more.
    pub(crate) fn leave(&mut self, sequence: u64, gate: Gate, place: Place) {
        match gate {
            Gate::Open => self.open(sequence),
            _ => self.pass(sequence),
        }
        let known = self.known(sequence);
        known.place = place;
        known.deadline = None;
        known.interrupted = false;
    }

    pub(crate) fn wait(&mut self, sequence: u64, gate: Gate, until: i64) {
        let mut until = until.max(1);
        let head = self.head(sequence);
        match gate {
            Gate::Pass => self.pass(sequence),
            Gate::Open => self.open(sequence),
            Gate::Lead => match head {
                Some(head) if head != sequence => self.known(sequence).role = Role::Follower,
                _ => self.known(sequence).role = Role::Head,
            },
            Gate::Line { head: named } => {
                if self.line_up(sequence, head.or(self.leased(sequence, named))) {
                    until = 1;
                }
            }
            Gate::Follow { head: named } => {
                let named = self.leased(sequence, named);
                match head.or(named).filter(|head| *head != sequence) {
                    Some(head) => {
                        self.known(head).role = Role::Head;
                        self.known(sequence).role = Role::Follower;
                    }
                    None => until = 1,
                }
            }
        }
        let known = self.known(sequence);
        known.place = Place::Waiting(until);
        known.interrupted = false;
    }

    /// The record named, where it has the same key and is under a lease.
    fn leased(&self, sequence: u64, named: Option<Sequence>) -> Option<u64> {
        named
            .map(|named| named.0)
            .filter(|named| self.of_key(sequence).contains(named) && self.records[named].leased.is_some())
    }

    /// A record stands in line; whether it is the head now.
    fn line_up(&mut self, sequence: u64, head: Option<u64>) -> bool {
        if let Some(head) = head.filter(|head| *head != sequence) {
            let follows = head < sequence || self.records[&head].leased.is_some();
            self.known(head).role = if follows { Role::Head } else { Role::Follower };
            self.known(sequence).role = Role::Follower;
            if follows {
                return false;
            }
        }
        self.known(sequence).role = Role::Follower;
        let in_line = |other: &u64| self.records[other].role == Role::Follower;
        let oldest = self.of_key(sequence).into_iter().find(in_line).unwrap();
        self.known(oldest).role = Role::Head;
        if oldest != sequence {
            self.make_due(oldest);
        }
        oldest == sequence
    }

    /// Checks one lease that was handed out, and notes it.
    pub(crate) fn lease(&mut self, lease: &Lease, to_try: bool) {
        let sequence = lease.sequence.0;
        let behind = self.head(sequence).is_some_and(|head| head != sequence);
        let clock = self.clocks[usize::from(self.records[&sequence].lane)];
        let known = self.known(sequence);
        assert!(known.leased.is_none() && known.is_here(), "sequence {sequence}");
        assert_eq!(lease.behind, behind, "sequence {sequence}");
        assert_eq!(lease.interrupted, known.interrupted, "sequence {sequence}");
        assert_eq!(
            lease.age.as_millis(),
            u128::from(clock - known.born),
            "sequence {sequence}"
        );
        known.leased = Some(to_try && !behind);
    }

    /// Unleased records of a lane: never-settled ones by sequence, waiting ones by due time.
    fn free(&self, lane: u8) -> (Vec<u64>, Vec<(i64, u64)>) {
        let (mut ready, mut waiting) = (Vec::new(), Vec::new());
        for (sequence, known) in &self.records {
            match known.place {
                _ if known.lane != lane || known.leased.is_some() => {}
                Place::Ready => ready.push(*sequence),
                Place::Waiting(until) => waiting.push((until, *sequence)),
                _ => {}
            }
        }
        waiting.sort_unstable();
        (ready, waiting)
    }

    /// Checks what a claim has found: which records, whether more are there, and when the next is due.
    pub(crate) fn check_claim(
        &self,
        lane: u8,
        bounds: Bounds,
        found: &[u64],
        more: bool,
        next_due: Option<i64>,
    ) {
        let (ready, waiting) = self.free(lane);
        let (due, later): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|(until, _)| *until <= bounds.now);
        let of_ready: Vec<u64> = ready.iter().copied().filter(|s| found.contains(s)).collect();
        let of_due: Vec<u64> = found.iter().copied().filter(|s| !ready.contains(s)).collect();
        let due_first: Vec<u64> = due.iter().map(|(_, s)| *s).take(of_due.len()).collect();
        assert_eq!(of_due, due_first, "waiting ones come in order of their due time");
        assert!(of_due.len() <= bounds.max_waiting);
        let wanted = ready.len() + due.len().min(bounds.max_waiting);
        assert_eq!(found.len(), wanted.min(bounds.max), "no slot is left empty");
        if bounds.live_percent == 0 {
            let first = &ready[..of_ready.len()];
            assert_eq!(of_ready, first, "never-settled ones come in order of sequence");
            assert_eq!(&found[..first.len()], first);
        }
        let is_bounded = of_due.len() >= bounds.max_waiting && bounds.max_waiting < bounds.max;
        let due_left = &due[of_due.len()..];
        assert_eq!(
            more,
            of_ready.len() < ready.len() || (!due_left.is_empty() && !is_bounded)
        );
        let next = due_left.first().or(later.first()).map(|(until, _)| *until);
        assert_eq!(next_due, next.filter(|_| !more));
    }

    /// What has passed its deadline and is not leased, and the next deadline.
    pub(crate) fn expired(&self, lane: u8, wall: i64) -> (Vec<u64>, Option<i64>) {
        let here = self.records.iter().filter(|(_, known)| known.lane == lane);
        let mut deadlines: Vec<(i64, u64, bool)> = here
            .filter_map(|(sequence, known)| Some((known.deadline?, *sequence, known.leased.is_some())))
            .collect();
        deadlines.sort_unstable();
        let passed = deadlines
            .iter()
            .filter(|(time, _, leased)| *time <= wall && !leased);
        let next = deadlines.iter().find(|(time, ..)| *time > wall);
        (
            passed.map(|(_, sequence, _)| *sequence).collect(),
            next.map(|(time, ..)| *time),
        )
    }
}
