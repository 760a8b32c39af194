//! The mark file: the number of the newest commit, kept beside the store, so that a store that ends too early is noticed.
//!
//! # Invariants
//! 1. A mark names only commits that were complete before it was written.
//! 2. It is written and synced at least every second while something changes, by a thread of its own, never in a commit's way.
//! 3. Two slots are written in turn, each with a checksum: a torn write leaves the older mark.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::volume::open_private;
use crate::running::RunningTime;

/// Longest time that a change goes unmarked.
const MARK_INTERVAL: Duration = Duration::from_secs(1);
/// Slots lie in sectors of their own.
const SLOT_DISTANCE: u64 = 512;
const MAGIC: u64 = 0x656d_6265_646d_6b31;
const SLOT_LEN: usize = 60;

/// What a mark says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) commit_number: u64,
    pub(super) running: u64,
    pub(super) next_sequence: u64,
    pub(super) next_claim: u64,
    pub(super) next_outcome: u64,
}

/// The newest intact mark of a file; `None` where there is none.
pub(super) fn read(path: &std::path::Path) -> io::Result<Option<(u64, Mark)>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut newest: Option<(u64, Mark)> = None;
    for slot in 0..2 {
        let mut bytes = [0_u8; SLOT_LEN];
        if file.read_exact_at(&mut bytes, slot * SLOT_DISTANCE).is_err() {
            continue;
        }
        if let Some(found) = decode(&bytes)
            && newest.is_none_or(|known| known.0 < found.0)
        {
            newest = Some(found);
        }
    }
    Ok(newest)
}

fn encode(turn: u64, mark: &Mark) -> [u8; SLOT_LEN] {
    let mut bytes = [0_u8; SLOT_LEN];
    let numbers = [
        MAGIC,
        turn,
        mark.commit_number,
        mark.running,
        mark.next_sequence,
        mark.next_claim,
        mark.next_outcome,
    ];
    for (place, number) in bytes.chunks_exact_mut(8).zip(numbers) {
        place.copy_from_slice(&number.to_le_bytes());
    }
    let checksum = crc32c::crc32c(&bytes[..56]);
    bytes[56..].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8; SLOT_LEN]) -> Option<(u64, Mark)> {
    let (body, checksum) = bytes.split_at(56);
    if crc32c::crc32c(body).to_le_bytes() != checksum {
        return None;
    }
    let mut numbers = body
        .chunks_exact(8)
        .map(|chunk| chunk.try_into().map(u64::from_le_bytes).unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0);
    if next() != MAGIC {
        return None;
    }
    let turn = next();
    let mark = Mark {
        commit_number: next(),
        running: next(),
        next_sequence: next(),
        next_claim: next(),
        next_outcome: next(),
    };
    Some((turn, mark))
}

#[derive(Debug, Default)]
struct Pending {
    mark: Mark,
    changed: bool,
    /// Whether the store holds records, so that running time must be marked even when nothing else changes.
    holds_records: bool,
    closed: bool,
}

/// Writes marks from a thread of its own.
#[derive(Debug)]
pub(super) struct MarkKeeper {
    shared: Arc<(Mutex<Pending>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl MarkKeeper {
    /// Starts the thread. `turn` is that of the newest mark in the file.
    pub(super) fn start(path: PathBuf, turn: u64, running: Arc<RunningTime>) -> io::Result<Self> {
        let file = open_private(&path)?;
        let shared = Arc::new((Mutex::new(Pending::default()), Condvar::new()));
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("queue-mark".into())
            .spawn(move || {
                keep(&file, turn, &theirs, &running);
            })?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Notes a finished commit.
    pub(super) fn note(&self, mark: Mark, holds_records: bool) {
        let mut pending = hold(&self.shared.0);
        let wake = !pending.changed;
        *pending = Pending {
            mark,
            changed: true,
            holds_records,
            closed: pending.closed,
        };
        drop(pending);
        if wake {
            self.shared.1.notify_one();
        }
    }
}

impl Drop for MarkKeeper {
    /// Writes the last mark and ends the thread.
    fn drop(&mut self) {
        hold(&self.shared.0).closed = true;
        self.shared.1.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that writes the mark file panicked");
        }
    }
}

fn hold(pending: &Mutex<Pending>) -> MutexGuard<'_, Pending> {
    pending.lock().unwrap_or_else(PoisonError::into_inner)
}

fn keep(file: &File, mut turn: u64, shared: &(Mutex<Pending>, Condvar), running: &RunningTime) {
    let mut failing = false;
    loop {
        let mut pending = hold(&shared.0);
        while !(pending.changed || pending.holds_records || pending.closed) {
            pending = shared.1.wait(pending).unwrap_or_else(PoisonError::into_inner);
        }
        let mut mark = pending.mark;
        let (write, closed) = (pending.changed || pending.holds_records, pending.closed);
        pending.changed = false;
        drop(pending);
        if write && mark.commit_number > 0 {
            mark.running = mark.running.max(running.now());
            turn += 1;
            let written = file.write_all_at(&encode(turn, &mark), (turn % 2) * SLOT_DISTANCE);
            match written.and_then(|()| file.sync_data()) {
                Ok(()) => failing = false,
                Err(error) if !failing => {
                    tracing::warn!(%error, "the mark file could not be written");
                    failing = true;
                }
                Err(_) => {}
            }
        }
        if closed {
            return;
        }
        let pending = hold(&shared.0);
        let waited = shared
            .1
            .wait_timeout_while(pending, MARK_INTERVAL, |pending| !pending.closed);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::MonotonicClock;

    fn mark(commit_number: u64) -> Mark {
        Mark {
            commit_number,
            running: 2,
            next_sequence: 3,
            next_claim: 4,
            next_outcome: 5,
        }
    }

    #[test]
    fn a_torn_slot_leaves_the_older_mark() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("queue.mark");
        let file = open_private(&path).unwrap();
        file.write_all_at(&encode(1, &mark(10)), SLOT_DISTANCE).unwrap();
        file.write_all_at(&encode(2, &mark(11)), 0).unwrap();
        assert_eq!(read(&path).unwrap(), Some((2, mark(11))));
        for bit in 0..SLOT_LEN * 8 {
            let mut torn = encode(2, &mark(11));
            torn[bit / 8] ^= 1 << (bit % 8);
            file.write_all_at(&torn, 0).unwrap();
            assert_eq!(read(&path).unwrap(), Some((1, mark(10))), "bit {bit}");
        }
    }

    #[test]
    fn the_last_commit_noted_is_marked_when_the_keeper_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("queue.mark");
        let running = Arc::new(RunningTime::resume(0, Arc::new(MonotonicClock::start())));
        let keeper = MarkKeeper::start(path.clone(), 0, running).unwrap();
        for commit in 1..100 {
            keeper.note(mark(commit), true);
        }
        drop(keeper);
        assert_eq!(read(&path).unwrap().map(|(_, mark)| mark.commit_number), Some(99));
    }
}
