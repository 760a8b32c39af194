//! What became of one try to deliver an event: what is known of its fate, and what the answer says of event and lane.
//!
//! Fate and verdict are two questions. The fate says whether upstream may have carried the request out; the verdict says
//! what to do next. Neither text here ever holds the key, an identifier or a property.

use std::fmt;
use std::time::Duration;

/// One try to deliver an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Whether upstream may have carried it out.
    pub fate: Fate,
    /// What the answer says of event and lane.
    pub verdict: Verdict,
    /// Status of the answer; `None` where no status line came.
    pub http_status: Option<u16>,
    /// A few words for a person, such as `connection refused`.
    pub detail: String,
    /// Beginning of the body of an answer that was no success, redacted; at most
    /// [`EXCERPT_MAX_BYTES`](crate::limits::EXCERPT_MAX_BYTES) of it. `None` where there was none.
    pub excerpt: Option<String>,
}

/// Whether upstream may have carried a request out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fate {
    /// No: no byte reached it, or it proved that it read none.
    NotSent,
    /// No: it said so.
    Rejected,
    /// Yes: it said so.
    Accepted,
    /// Unknown: no answer came, or one that does not say.
    Ambiguous,
}

impl Fate {
    /// Returns the stable word, for example `not_sent`: for metric labels and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotSent => "not_sent",
            Self::Rejected => "rejected",
            Self::Accepted => "accepted",
            Self::Ambiguous => "ambiguous",
        }
    }

    /// Says what a status tells of a request's fate.
    ///
    /// Ambiguous are 408, 500, 502 and 504, by their meaning, and all of 5xx but 501, 503 and 505: what gateways number
    /// 520 to 530 speaks of the way to the server and not of what the server did. So is what is outside of 200 to 599,
    /// which no server should send.
    pub fn of_status(status: u16) -> Self {
        match status {
            200..=299 => Self::Accepted,
            408 => Self::Ambiguous,
            501 | 503 | 505 => Self::Rejected,
            300..=499 => Self::Rejected,
            _ => Self::Ambiguous,
        }
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// What an answer says of the event and of its lane: one variant a row of the table of answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Upstream has it: any 2xx, also with a body that cannot be understood. A success of the lane.
    Delivered(Receipt),
    /// 404 with `ENTRY_NOT_FOUND`: no entry of that Embeddable matches, or none does yet. Not a failure of the lane.
    EntryNotFound,
    /// 401: says nothing of the event; no event of that key can be delivered.
    KeyRejected,
    /// Somebody on the way said no, or upstream to something else than the event: 402, 403, 407, 421, any 3xx, a 404
    /// in JSON without the code, and any other 4xx but 408, 425 and 429 whose body is not JSON.
    Refused,
    /// Upstream will not take the event as it is: 400, 405, 406, 409 to 417, 422 to 424, 426, 428, 431 or 451, in JSON.
    Invalid,
    /// To be tried again: 408, 425, 429, 5xx, no connection, no answer, anything else.
    Unavailable {
        /// What 429 or 503 asked for, within 1 s and 1 h.
        retry_after: Option<Duration>,
    },
}

impl Verdict {
    /// Returns the stable word, for example `entry_not_found`: for metric labels and logs.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Delivered(_) => "delivered",
            Self::EntryNotFound => "entry_not_found",
            Self::KeyRejected => "key_rejected",
            Self::Refused => "refused",
            Self::Invalid => "invalid",
            Self::Unavailable { .. } => "unavailable",
        }
    }
}

/// Upstream's answer to a delivered event. Each field is at most
/// [`RECEIPT_FIELD_MAX_BYTES`](crate::limits::RECEIPT_FIELD_MAX_BYTES) long; a longer one is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    /// Upstream's id of the user's entry.
    pub entry_id: Option<String>,
    /// Upstream's id of the contact.
    pub contact_id: Option<String>,
    /// Upstream's id of the group.
    pub group_id: Option<String>,
    /// Version of the Embeddable, as upstream writes it.
    pub embeddable_version_number: Option<String>,
    /// Whether the body could not be understood. The event is delivered all the same.
    pub unparsed: bool,
}
