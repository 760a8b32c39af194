#![doc = include_str!("../README.md")]

mod canonical;
mod event;
mod identifier;
mod ids;
mod json_text;
mod number;
mod outcome;
mod properties;
mod time;
mod validate;
mod violation;

pub mod limits;

pub use canonical::canonical;
pub use event::{Event, ValidEvent, ValidEventParts};
pub use identifier::{Identifier, IdentifierValue};
pub use ids::{EmbeddableId, EventId, EventName, InvalidId, ProjectId};
pub use outcome::{Attempt, Fate, Receipt, Verdict};
pub use properties::{Properties, Value};
pub use time::{EventTime, Timestamp};
pub use validate::{Defaults, DoubleEncoding, Rules};
pub use violation::{Field, Reason, Violation, Violations};
