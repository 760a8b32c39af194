//! Stable codes of why an event waits or was given up; listed in `docs/errors.md`.

/// No entry of the Embeddable matches the identifier yet, or ever.
pub const ENTRY_NOT_FOUND: &str = "ENTRY_NOT_FOUND";
/// Upstream does not accept the key.
pub const KEY_REJECTED: &str = "KEY_REJECTED";
/// Something before or at upstream refuses the project or the route, not the event.
pub const UPSTREAM_REFUSED: &str = "UPSTREAM_REFUSED";
/// Upstream rejects the event as it is.
pub const UPSTREAM_REJECTED: &str = "UPSTREAM_REJECTED";
/// Upstream cannot be reached or answers that it cannot serve now.
pub const UPSTREAM_UNAVAILABLE: &str = "UPSTREAM_UNAVAILABLE";
/// Upstream asks to slow down.
pub const UPSTREAM_THROTTLED: &str = "UPSTREAM_THROTTLED";
/// An earlier event of the same identifier has to be settled first.
pub const EARLIER_EVENT: &str = "EARLIER_EVENT";
/// Upstream may have it, and `delivery.ambiguity` forbids another try.
pub const AMBIGUOUS: &str = "AMBIGUOUS";
/// The configured `delivery.max_age` has passed.
pub const MAX_AGE: &str = "MAX_AGE";
/// The caller's `deliver_before` has passed.
pub const DELIVER_BEFORE_PASSED: &str = "DELIVER_BEFORE_PASSED";
/// The stored event cannot be read by this release.
pub const UNREADABLE: &str = "UNREADABLE";
