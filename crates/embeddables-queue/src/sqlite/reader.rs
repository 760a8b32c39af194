//! Reading beside the writer: a few read-only connections with short transactions on blocking threads.
//!
//! # Invariants
//! 1. A row whose checksum is wrong is not returned; the writer is told, and moves it to quarantine.
//! 2. No query runs while files are swapped, and none on a file that was swapped out.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use tokio::sync::{Semaphore, mpsc};

use super::command::{Control, Suspected};
use super::connection;
use super::shared::Shared;
use super::trouble::{Remedy, Trouble};
use crate::ReadError;

/// Connections at most.
const READERS: usize = 4;

/// What a query found: an answer, and rows that are damaged.
#[derive(Debug)]
pub(super) struct Finding<T> {
    pub(super) answer: T,
    pub(super) suspected: Vec<Suspected>,
}

impl<T> Finding<T> {
    /// An answer without any damage.
    pub(super) fn clean(answer: T) -> Self {
        Self {
            answer,
            suspected: Vec::new(),
        }
    }
}

/// The pool.
#[derive(Debug)]
pub(super) struct Readers {
    path: PathBuf,
    shared: Arc<Shared>,
    permits: Arc<Semaphore>,
    idle: Arc<Mutex<Vec<(u64, Connection)>>>,
    controls: mpsc::Sender<Control>,
}

impl Readers {
    /// A pool without connections; they are opened when needed.
    pub(super) fn new(path: PathBuf, shared: Arc<Shared>, controls: mpsc::Sender<Control>) -> Self {
        Self {
            path,
            shared,
            permits: Arc::new(Semaphore::new(READERS)),
            idle: Arc::default(),
            controls,
        }
    }

    /// Runs a query on a blocking thread.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection, &Shared) -> Result<Finding<T>, Trouble> + Send + 'static,
    ) -> Result<T, ReadError> {
        let permit = Arc::clone(&self.permits)
            .acquire_owned()
            .await
            .map_err(|_| ReadError::Closed)?;
        let (path, shared, idle) = (
            self.path.clone(),
            Arc::clone(&self.shared),
            Arc::clone(&self.idle),
        );
        let done = tokio::task::spawn_blocking(move || {
            let result = run(&path, &shared, &idle, query);
            drop(permit);
            result
        })
        .await;
        let report = match done {
            Ok(Ok(Finding { answer, suspected })) => {
                if !suspected.is_empty() {
                    self.tell(Control::Quarantine(suspected));
                }
                return Ok(answer);
            }
            Ok(Err(trouble)) => trouble,
            Err(error) => return Err(ReadError::Read(error.into())),
        };
        if report.remedy(|| true) == Remedy::Salvage {
            self.tell(Control::Salvage);
        }
        Err(ReadError::Read(report.boxed()))
    }

    /// Closes the pool.
    pub(super) fn close(&self) {
        self.permits.close();
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn tell(&self, control: Control) {
        if self.controls.try_send(control).is_err() {
            // The damage stays where it is and is found again by the next reader.
            tracing::warn!("the writer was too busy to be told of damage");
        }
    }
}

fn run<T>(
    path: &std::path::Path,
    shared: &Shared,
    idle: &Mutex<Vec<(u64, Connection)>>,
    query: impl FnOnce(&Connection, &Shared) -> Result<Finding<T>, Trouble>,
) -> Result<Finding<T>, Trouble> {
    let swap = shared.swap.read().unwrap_or_else(PoisonError::into_inner);
    let generation = shared.generation.load(Ordering::Acquire);
    let kept = {
        let mut idle = idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(of, _)| *of == generation);
        idle.pop()
    };
    let connection = match kept {
        Some((_, connection)) => connection,
        None => connection::open_reader(path)?,
    };
    // One snapshot for all statements of the query.
    connection.execute_batch("BEGIN")?;
    let result = query(&connection, shared);
    connection.execute_batch("ROLLBACK")?;
    idle.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push((generation, connection));
    drop(swap);
    result
}
