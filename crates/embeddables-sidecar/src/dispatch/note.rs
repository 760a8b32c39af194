//! What a lane remembers over restarts: the queue's opaque lane note.
//!
//! # Invariants
//! 1. Neither a key nor anything of an event is in it; of the key only a fingerprint.
//! 2. Bytes of an older release decode: fields are only ever added (protobuf rules). What cannot be read counts as an open lane:
//!    what held it will show again.

use embeddables_queue::{LaneName, Store, UnixMillis};
use prost::Message;

use super::board::HoldReason;
use super::gates::Held;

/// Version of the encoding, its first byte.
const VERSION: u8 = 1;

/// State of a lane that outlives the process.
#[derive(Clone, PartialEq, Message)]
pub(super) struct LaneNote {
    /// Why it is held; see [`reason_code`]. 0 where it is not.
    #[prost(uint32, tag = "1")]
    hold_reason: u32,
    /// The same for a person.
    #[prost(string, tag = "2")]
    hold_message: String,
    /// Wall time of the hold's begin, in milliseconds since 1970.
    #[prost(int64, tag = "3")]
    hold_since_ms: i64,
    /// Fingerprint of address and key that the hold was seen with.
    #[prost(string, tag = "4")]
    configuration: String,
    /// What the steady clock shows when the time is over that upstream asked for, in milliseconds; 0 for none.
    #[prost(int64, tag = "5")]
    pause_until_ms: i64,
    /// Whether the breaker was open.
    #[prost(bool, tag = "6")]
    breaker_open: bool,
    /// What the steady clock showed, in milliseconds: where the next life's begins at least.
    #[prost(int64, tag = "7")]
    steady_ms: i64,
}

/// What the steady clock showed last, as far as the lanes have noted it: due times are kept on it, and must not come to lie far
/// ahead because the wall clock was set back.
pub fn latest_steady(store: &dyn Store, lanes: &[LaneName]) -> UnixMillis {
    let noted = |lane| LaneNote::decode_bytes(&store.lane_state(lane).note).steady_ms;
    UnixMillis(lanes.iter().map(noted).max().unwrap_or(0))
}

impl LaneNote {
    /// Notes the state of a lane.
    pub(super) fn new(
        held: Option<&Held>,
        configuration: &str,
        pause_until: Option<UnixMillis>,
        breaker_open: bool,
        steady: UnixMillis,
    ) -> Self {
        Self {
            steady_ms: steady.0,
            hold_reason: held.map_or(0, |held| reason_code(held.reason)),
            hold_message: held.map(|held| held.message.clone()).unwrap_or_default(),
            hold_since_ms: held.map_or(0, |held| held.since.0),
            configuration: configuration.to_owned(),
            pause_until_ms: pause_until.map_or(0, |until| until.0),
            breaker_open,
        }
    }

    /// Reads what [`LaneNote::encode_bytes`] wrote; the default where it is not that.
    pub(super) fn decode_bytes(bytes: &[u8]) -> Self {
        let decoded = match bytes.split_first() {
            None => return Self::default(),
            Some((&VERSION, message)) => Self::decode(message).map_err(|error| error.to_string()),
            Some((version, _)) => Err(format!("version {version}")),
        };
        decoded.unwrap_or_else(|error| {
            tracing::warn!(error, "the state of a lane cannot be read: it begins open");
            Self::default()
        })
    }

    /// The bytes to keep.
    pub(super) fn encode_bytes(&self) -> bytes::Bytes {
        let mut buffer = Vec::with_capacity(1 + self.encoded_len());
        buffer.push(VERSION);
        self.encode_raw(&mut buffer);
        buffer.into()
    }

    /// The hold to go on with: not one that was seen with another configuration, unless an operator's.
    pub(super) fn hold(&self, configuration: &str) -> Option<Held> {
        let reason = HoldReason::ALL
            .into_iter()
            .find(|reason| reason_code(*reason) == self.hold_reason)?;
        let stands = reason == HoldReason::Operator || self.configuration == configuration;
        stands.then(|| Held {
            reason,
            message: self.hold_message.clone(),
            since: UnixMillis(self.hold_since_ms),
        })
    }

    /// What the steady clock shows when the time is over that upstream asked for.
    pub(super) fn pause_until(&self) -> UnixMillis {
        UnixMillis(self.pause_until_ms)
    }

    /// Whether the breaker was open.
    pub(super) fn breaker_open(&self) -> bool {
        self.breaker_open
    }
}

/// Number of a reason on disk; never renumbered.
fn reason_code(reason: HoldReason) -> u32 {
    match reason {
        HoldReason::KeyRejected => 1,
        HoldReason::Config => 2,
        HoldReason::MassRejection => 3,
        HoldReason::Operator => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(reason: HoldReason) -> Held {
        Held {
            reason,
            message: "words".to_owned(),
            since: UnixMillis(5),
        }
    }

    #[test]
    fn what_is_read_equals_what_was_written() {
        for reason in HoldReason::ALL {
            let note = LaneNote::new(Some(&held(reason)), "c", Some(UnixMillis(9)), true, UnixMillis(7));
            let read = LaneNote::decode_bytes(&note.encode_bytes());
            assert_eq!(read.hold("c"), Some(held(reason)));
            assert_eq!((read.pause_until(), read.breaker_open()), (UnixMillis(9), true));
        }
        assert_eq!(LaneNote::decode_bytes(&[]).hold("c"), None);
        assert_eq!(LaneNote::decode_bytes(&[7, 1]), LaneNote::default());
    }

    #[test]
    fn another_configuration_lifts_every_hold_but_an_operators() {
        let hold = |reason| LaneNote::new(Some(&held(reason)), "old", None, false, UnixMillis(7)).hold("new");
        assert_eq!(hold(HoldReason::KeyRejected), None);
        assert_eq!(hold(HoldReason::Config), None);
        assert!(hold(HoldReason::Operator).is_some());
    }
}
