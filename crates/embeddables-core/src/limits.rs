//! Every bound of the model, with its unit and where it comes from.
//!
//! Upstream documents no size limit; what is not marked otherwise is this project's own choice. An event at a limit is
//! taken, an event one beyond it is refused.

/// Longest event name, in bytes.
pub const NAME_MAX_BYTES: usize = 128;

/// Longest project id, in bytes. It becomes a path segment of the request.
pub const PROJECT_ID_MAX_BYTES: usize = 128;

/// Longest embeddable id, in bytes. Those seen in public have about 30.
pub const EMBEDDABLE_ID_MAX_BYTES: usize = 256;

/// Longest event id, in bytes: room for a UUID, a ULID or a SHA-256 in hexadecimal.
pub const EVENT_ID_MAX_BYTES: usize = 64;

/// Longest identifier key, in bytes.
pub const IDENTIFIER_KEY_MAX_BYTES: usize = 256;

/// Largest properties, in bytes of JSON text, a stamped event id included.
pub const PROPS_MAX_BYTES: usize = 256 * 1024;

/// Deepest properties given as JSON text, in levels of objects and arrays; the outermost object is level 1.
pub const PROPS_JSON_MAX_DEPTH: usize = 64;

/// Deepest properties given as a structure, in levels of objects and lists; the outermost object is level 1. Protobuf's
/// own recursion limit of 100 counts three messages a level (entry, value, struct), so that it lies near.
pub const PROPS_OBJECT_MAX_DEPTH: usize = 24;

/// Largest size of a whole double that is written without a fraction: 2^53. Up to here every whole number is a double.
pub const EXACT_WHOLE_MAX: f64 = 9_007_199_254_740_992.0;

/// Largest size of a whole double that may be a rounded 64-bit integer: 2^64, which `u64::MAX` rounds to.
pub const ROUNDED_WHOLE_MAX: f64 = 18_446_744_073_709_551_616.0;

/// First second of the year 0001 in UTC, in seconds since the Unix epoch. Same bound as `google.protobuf.Timestamp`.
pub const TIMESTAMP_MIN_SECONDS: i64 = -62_135_596_800;

/// Last second of the year 9999 in UTC, in seconds since the Unix epoch. Same bound as `google.protobuf.Timestamp`.
pub const TIMESTAMP_MAX_SECONDS: i64 = 253_402_300_799;

/// Longest hint that a violation carries for its caller, in bytes; a longer one is left out.
pub const HINT_MAX_BYTES: usize = 256;

/// Longest field of a receipt, in bytes; a longer one is left out.
pub const RECEIPT_FIELD_MAX_BYTES: usize = 256;

/// Longest excerpt of a refusing answer, in bytes of the answer's body.
pub const EXCERPT_MAX_BYTES: usize = 4 * 1024;
