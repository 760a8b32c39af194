//! Third room: from an event within the rules to a record that is safe.
//!
//! # Invariants
//! 1. An event leaves this room only once it is as durable as asked, with the durability that was reached.
//! 2. A repeat is recognised by a keyed hash of the caller's event; the hash of a user's data cannot be guessed without the
//!    store's secret.
//! 3. What the store refuses becomes exactly one refusal.

pub mod codec;

use std::sync::Arc;

use embeddables_core::{ProjectId, ValidEvent};
use embeddables_queue::{
    Append, AppendError, Appended, Durability, LaneName, NewRecord, Refused, Store, UnixMillis,
};

use crate::ingest::refusal::Refusal;
use crate::validate::Checked;

/// Hashes and appends.
pub struct Enqueuer {
    store: Arc<dyn Store>,
    fingerprint_key: [u8; 32],
    order_key: [u8; 32],
}

impl Enqueuer {
    /// Enqueues into a store.
    pub fn new(store: Arc<dyn Store>) -> Self {
        let secret = store.secret();
        let derive = |context: &str| blake3::derive_key(context, &secret);
        Self {
            fingerprint_key: derive("embeddables-sidecar 2026-11 fingerprint of an event's content"),
            order_key: derive("embeddables-sidecar 2026-11 order key of an identifier"),
            store,
        }
    }

    /// The record of a checked event.
    pub fn record(
        &self,
        checked: Checked,
        accept_time: UnixMillis,
        deliver_before: Option<UnixMillis>,
    ) -> NewRecord {
        let Checked { event, canonical } = checked;
        NewRecord {
            lane: lane(event.project_id()),
            id: event.event_id().as_str().into(),
            fingerprint: keyed_hash(&self.fingerprint_key, &[&canonical]),
            order_key: self.order_key(&event),
            accept_time,
            deadline: deliver_before,
            payload: codec::encode(event, deliver_before),
        }
    }

    /// Appends records; one result a record, in order.
    ///
    /// # Errors
    /// Where the store refused the call as a whole.
    pub async fn append(
        &self,
        records: Vec<NewRecord>,
        durability: Durability,
        atomic: bool,
    ) -> Result<Vec<Result<Appended, Refusal>>, Refusal> {
        let results = self
            .store
            .append(Append {
                records,
                durability,
                atomic,
            })
            .await
            .map_err(|error| {
                log_append_error(&error);
                refusal_of(&error)
            })?;
        Ok(results
            .into_iter()
            .map(|result| result.map_err(|refused| refusal_of_record(&refused)))
            .collect())
    }

    /// Names the user that an event is about, without telling who it is.
    fn order_key(&self, event: &ValidEvent) -> [u8; 16] {
        let parts = [
            event.embeddable_id().as_str(),
            event.identifier_key(),
            event.identifier_json(),
        ];
        keyed_hash(&self.order_key, &parts.map(str::as_bytes))
    }
}

/// The lane of a project.
pub fn lane(project: &ProjectId) -> LaneName {
    LaneName::new(project.clone())
}

/// Each part goes in with its length, so that no two lists of parts are the same bytes.
fn keyed_hash(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new_keyed(key);
    for part in parts {
        hasher.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
        hasher.update(part);
    }
    let mut hash = [0; 16];
    hash.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    hash
}

fn refusal_of_record(refused: &Refused) -> Refusal {
    match refused {
        Refused::Conflict => Refusal::Conflict,
        Refused::Full { .. } => Refusal::QueueFull,
        Refused::LaneFull { .. } => Refusal::ProjectFull,
        Refused::DeadLettersFull { .. } => Refusal::DeadLettersFull,
        Refused::NotAlone => Refusal::NotAlone,
        // Lanes are the configured projects.
        _ => Refusal::ProjectNotConfigured,
    }
}

fn refusal_of(error: &AppendError) -> Refusal {
    match error {
        AppendError::DurabilityNotOnOffer => Refusal::DurabilityNotOnOffer,
        AppendError::DiskFull => Refusal::DiskFull,
        AppendError::Busy => Refusal::Busy,
        AppendError::DurabilityUnknown(_) => Refusal::DurabilityUnknown,
        AppendError::Closed => Refusal::Draining,
        _ => Refusal::StorageRefused,
    }
}

/// The caller hears a sentence; the operator needs the cause.
fn log_append_error(error: &AppendError) {
    match error {
        AppendError::Write(_) | AppendError::DurabilityUnknown(_) => {
            tracing::error!(
                error = error as &dyn std::error::Error,
                "events could not be made safe and were refused"
            );
        }
        _ => tracing::debug!(%error, "events were refused by the store"),
    }
}
