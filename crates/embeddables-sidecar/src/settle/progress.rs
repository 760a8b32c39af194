//! What is remembered of an event's tries: the queue's opaque progress, and the note of a settled event.
//!
//! # Invariants
//! 1. Neither an identifier nor a property is in it.
//! 2. It stays below 8 KiB: at most [`MAX_ATTEMPTS`] tries are kept, oldest dropped first; texts are cut.
//! 3. Bytes of an older release decode: fields are only ever added (protobuf rules); an unknown version is an error.

use embeddables_core::{Attempt, Fate};
use embeddables_queue::UnixMillis;
use prost::Message;
use std::time::Duration;

/// Tries kept with an event; contract: "at most 16".
pub const MAX_ATTEMPTS: usize = 16;

/// Version of the encoding, its first byte.
const VERSION: u8 = 1;

/// What is remembered of an event's tries.
#[derive(Clone, PartialEq, Message)]
pub struct Progress {
    /// How often it was tried.
    #[prost(uint32, tag = "1")]
    pub attempt_count: u32,
    /// Newest tries, oldest first.
    #[prost(message, repeated, tag = "2")]
    pub attempts: Vec<Try>,
    /// Whether an attempt was ambiguous and another followed.
    #[prost(bool, tag = "3")]
    pub possible_duplicate: bool,
    /// Failures in a row that count for backoff.
    #[prost(uint32, tag = "4")]
    pub backoff_step: u32,
    /// Age of the event, in milliseconds, when upstream first said that its user is not known; unset before.
    #[prost(uint64, optional, tag = "5")]
    pub parked_age_ms: Option<u64>,
    /// Steps of the entry schedule taken since then.
    #[prost(uint32, tag = "6")]
    pub entry_step: u32,
    /// Why it waits or was given up: a stable code.
    #[prost(string, tag = "7")]
    pub reason: String,
    /// The same for a person.
    #[prost(string, tag = "8")]
    pub message: String,
    /// Upstream's answer, once delivered.
    #[prost(message, optional, tag = "9")]
    pub receipt: Option<Receipt>,
    /// Upstream's words on a rejection, redacted, at most 4 KiB.
    #[prost(string, tag = "10")]
    pub upstream_body: String,
    /// HTTP status of the newest attempt; 0 where no status line came.
    #[prost(uint32, tag = "11")]
    pub http_status: u32,
    /// How often an operator took it back from the dead letters; its `deliver_before` counts no more then.
    #[prost(uint32, tag = "12")]
    pub replay_count: u32,
    /// Whether upstream said since it was parked that its user is not known; one that waits behind another was not tried.
    #[prost(bool, tag = "13")]
    pub entry_tried: bool,
    /// Age of the event, in milliseconds, since which it waits behind another of its identifier; unset once it is tried.
    #[prost(uint64, optional, tag = "14")]
    pub in_line_age_ms: Option<u64>,
}

/// One try.
#[derive(Clone, PartialEq, Message)]
pub struct Try {
    /// Wall time of its start, in milliseconds since 1970.
    #[prost(int64, tag = "1")]
    pub start_ms: i64,
    /// How long it took, in milliseconds.
    #[prost(uint64, tag = "2")]
    pub duration_ms: u64,
    /// How it ended; see [`fate_code`].
    #[prost(uint32, tag = "3")]
    pub fate: u32,
    /// HTTP status, or 0 where no status line came.
    #[prost(uint32, tag = "4")]
    pub http_status: u32,
    /// A few words for a person.
    #[prost(string, tag = "5")]
    pub detail: String,
}

/// Upstream's ids of what it made of the event.
#[derive(Clone, PartialEq, Message)]
pub struct Receipt {
    /// Upstream's id of the user's entry.
    #[prost(string, tag = "1")]
    pub entry_id: String,
    /// Upstream's id of the contact.
    #[prost(string, tag = "2")]
    pub contact_id: String,
    /// Upstream's id of the group.
    #[prost(string, tag = "3")]
    pub group_id: String,
    /// Version of the Embeddable.
    #[prost(string, tag = "4")]
    pub embeddable_version_number: String,
    /// Whether the answer's body could not be understood.
    #[prost(bool, tag = "5")]
    pub unparsed: bool,
}

/// Why stored progress could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ProgressError {
    /// A newer release wrote it.
    #[error("progress has version {0}, this release reads version {VERSION}")]
    Version(u8),
    /// The bytes are not what this release writes.
    #[error("progress cannot be decoded")]
    Malformed(#[from] prost::DecodeError),
}

impl Progress {
    /// Reads what [`Progress::encode_bytes`] wrote; no bytes mean that nothing was tried yet.
    ///
    /// # Errors
    /// On bytes of another version or none of ours.
    pub fn decode_bytes(bytes: &[u8]) -> Result<Self, ProgressError> {
        match bytes.split_first() {
            None => Ok(Self::default()),
            Some((&VERSION, message)) => Ok(Self::decode(message)?),
            Some((&version, _)) => Err(ProgressError::Version(version)),
        }
    }

    /// The bytes to keep.
    pub fn encode_bytes(&self) -> bytes::Bytes {
        let mut buffer = Vec::with_capacity(1 + self.encoded_len());
        buffer.push(VERSION);
        self.encode_raw(&mut buffer);
        buffer.into()
    }

    /// Notes a try. One after an ambiguous one makes a duplicate possible.
    pub fn note_attempt(&mut self, start: UnixMillis, duration: Duration, attempt: &Attempt) {
        self.push(Try {
            start_ms: start.0,
            duration_ms: millis(duration),
            fate: fate_code(attempt.fate),
            http_status: attempt.http_status.map_or(0, u32::from),
            detail: attempt.detail.clone(),
        });
        // Not sent at all cannot have made a second copy.
        if attempt.fate != Fate::NotSent && self.ambiguous_before_newest() {
            self.possible_duplicate = true;
        }
    }

    /// Notes that a process ended during a try: what became of it is unknown.
    pub fn note_interruption(&mut self, accept_time: UnixMillis) {
        self.push(Try {
            start_ms: accept_time.0,
            duration_ms: 0,
            fate: fate_code(Fate::Ambiguous),
            http_status: 0,
            detail: "the sidecar ended during this attempt".to_owned(),
        });
        self.possible_duplicate |= self.ambiguous_before_newest();
    }

    fn push(&mut self, attempt: Try) {
        self.attempt_count = self.attempt_count.saturating_add(1);
        if self.attempts.len() == MAX_ATTEMPTS {
            // An ambiguous try that falls out of the list must not be forgotten with it.
            let dropped = self.attempts.remove(0);
            self.possible_duplicate |= dropped.fate == fate_code(Fate::Ambiguous);
        }
        self.attempts.push(attempt);
    }

    fn ambiguous_before_newest(&self) -> bool {
        let earlier = self.attempts.split_last().map_or(&[][..], |(_, earlier)| earlier);
        earlier
            .iter()
            .any(|attempt| attempt.fate == fate_code(Fate::Ambiguous))
    }
}

/// The fate with a number; `None` where a newer release wrote one that this one does not know.
pub fn fate_of_code(code: u32) -> Option<Fate> {
    [Fate::NotSent, Fate::Rejected, Fate::Accepted, Fate::Ambiguous]
        .into_iter()
        .find(|fate| fate_code(*fate) == code)
}

/// Number of a fate on disk; never renumbered.
pub fn fate_code(fate: Fate) -> u32 {
    match fate {
        Fate::NotSent => 1,
        Fate::Rejected => 2,
        Fate::Accepted => 3,
        Fate::Ambiguous => 4,
    }
}

/// Milliseconds of a duration, at most `u64::MAX`.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use embeddables_core::Verdict;

    fn attempt(fate: Fate) -> Attempt {
        let verdict = Verdict::Unavailable { retry_after: None };
        Attempt {
            fate,
            verdict,
            http_status: None,
            detail: "words".to_owned(),
            excerpt: None,
        }
    }

    fn after(fates: &[Fate]) -> Progress {
        let mut progress = Progress::default();
        for fate in fates {
            progress.note_attempt(UnixMillis(0), Duration::from_millis(3), &attempt(*fate));
        }
        progress
    }

    #[test]
    fn a_duplicate_is_possible_once_another_request_follows_an_ambiguous_one() {
        use Fate::{Accepted, Ambiguous, NotSent, Rejected};
        assert!(!after(&[Ambiguous]).possible_duplicate);
        assert!(
            !after(&[Ambiguous, NotSent]).possible_duplicate,
            "nothing was sent"
        );
        assert!(after(&[Ambiguous, NotSent, Rejected]).possible_duplicate);
        assert!(after(&[Ambiguous, Accepted]).possible_duplicate);
        assert!(!after(&[NotSent, Rejected, Accepted]).possible_duplicate);
    }

    #[test]
    fn only_the_newest_attempts_are_kept_but_all_are_counted() {
        let mut fates = vec![Fate::Ambiguous];
        fates.extend([Fate::NotSent; MAX_ATTEMPTS]);
        let progress = after(&fates);
        assert_eq!(progress.attempts.len(), MAX_ATTEMPTS);
        assert_eq!(progress.attempt_count, 17);
        let mut progress = progress;
        progress.note_attempt(UnixMillis(0), Duration::ZERO, &attempt(Fate::Accepted));
        assert!(
            progress.possible_duplicate,
            "the ambiguous one fell out of the list, not out of mind"
        );
    }

    #[test]
    fn an_interruption_counts_as_an_ambiguous_attempt() {
        let mut progress = Progress::default();
        progress.note_interruption(UnixMillis(5));
        assert!(!progress.possible_duplicate);
        progress.note_attempt(UnixMillis(9), Duration::ZERO, &attempt(Fate::Accepted));
        assert_eq!(progress.attempt_count, 2);
        assert!(progress.possible_duplicate);
        let mut twice = after(&[Fate::Ambiguous]);
        twice.note_interruption(UnixMillis(5));
        assert!(
            twice.possible_duplicate,
            "the one that was cut may have been carried out too"
        );
    }

    #[test]
    fn what_is_decoded_equals_what_was_encoded() {
        let progress = after(&[Fate::Ambiguous, Fate::Rejected]);
        assert_eq!(
            Progress::decode_bytes(&progress.encode_bytes()).expect("decodes"),
            progress
        );
        assert_eq!(
            Progress::decode_bytes(&[]).expect("none yet"),
            Progress::default()
        );
        assert!(matches!(
            Progress::decode_bytes(&[9]),
            Err(ProgressError::Version(9))
        ));
    }
}
