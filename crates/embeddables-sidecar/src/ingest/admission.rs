//! What a call asks for, checked before any of its events is looked at.

use std::time::Duration;

use embeddables_proto::events::v1 as proto;
use embeddables_queue::{Durability, UnixMillis};

use super::bad_call::{DELIVER_BEFORE_INVALID, OPTION_UNKNOWN};
use super::refusal::Refusal;
use super::status::durability_from_proto;

/// Longest wait for delivery of one call.
pub const MAX_WAIT: Duration = Duration::from_secs(30);

/// How an event is to be treated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Whether the answer waits for delivery.
    pub wait: bool,
    /// Least durability; `None` for the configured default.
    pub durability: Option<Durability>,
    /// Give up after this wall time.
    pub deliver_before: Option<UnixMillis>,
}

impl Options {
    /// Reads the contract's options.
    ///
    /// # Errors
    /// On a value that this release does not know.
    pub fn from_proto(options: Option<&proto::PublishOptions>) -> Result<Self, Refusal> {
        let Some(options) = options else {
            return Ok(Self::default());
        };
        let unknown = |_| Refusal::BadCall(&OPTION_UNKNOWN);
        let wait = proto::Wait::try_from(options.wait).map_err(unknown)?;
        let durability = proto::Durability::try_from(options.durability).map_err(unknown)?;
        let deliver_before = options.deliver_before.as_ref().map(unix_millis).transpose()?;
        Ok(Self {
            wait: wait == proto::Wait::Delivered,
            durability: durability_from_proto(durability),
            deliver_before,
        })
    }
}

fn unix_millis(time: &prost_types::Timestamp) -> Result<UnixMillis, Refusal> {
    let time = embeddables_core::EventTime::Unix {
        seconds: time.seconds,
        nanos: time.nanos,
    };
    match time.check() {
        Ok(time) => Ok(UnixMillis(time.unix_millis())),
        Err(_) => Err(Refusal::BadCall(&DELIVER_BEFORE_INVALID)),
    }
}

/// For how long a call with this deadline may wait: until a little before it, so that its answer still arrives.
pub fn wait_limit(deadline: Option<Duration>) -> Duration {
    deadline.map_or(MAX_WAIT, |deadline| before(deadline).min(MAX_WAIT))
}

/// For how long a flush may wait: until a little before its caller's deadline, however far that is.
pub fn flush_limit(deadline: Option<Duration>) -> Duration {
    deadline.map_or(MAX_WAIT, before)
}

/// A little before a deadline.
fn before(deadline: Duration) -> Duration {
    let margin = (deadline / 10).clamp(Duration::from_millis(20), Duration::from_millis(250));
    deadline.saturating_sub(margin)
}

/// Reads the header `grpc-timeout`: at most eight digits and a unit, as the gRPC protocol over HTTP/2 defines it.
pub fn grpc_timeout(value: &str) -> Option<Duration> {
    let (digits, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let amount = digits.parse::<u64>().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(amount * 3_600),
        "M" => Duration::from_secs(amount * 60),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_timeouts_are_read_as_the_protocol_defines_them() {
        let cases = [
            ("1S", Some(Duration::from_secs(1))),
            ("250m", Some(Duration::from_millis(250))),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3_600))),
            ("100000000n", None),
            ("S", None),
            ("", None),
            ("1s", None),
            ("-1S", None),
            ("1é", None),
        ];
        for (value, expected) in cases {
            assert_eq!(grpc_timeout(value), expected, "{value:?}");
        }
    }

    #[test]
    fn a_wait_ends_before_the_deadline() {
        assert_eq!(wait_limit(None), MAX_WAIT);
        assert_eq!(wait_limit(Some(Duration::from_secs(3_600))), MAX_WAIT);
        assert_eq!(
            wait_limit(Some(Duration::from_secs(1))),
            Duration::from_millis(900)
        );
        assert_eq!(wait_limit(Some(Duration::from_millis(5))), Duration::ZERO);
        assert_eq!(flush_limit(None), MAX_WAIT);
        assert_eq!(
            flush_limit(Some(Duration::from_secs(3_600))),
            Duration::from_millis(3_599_750)
        );
    }

    #[test]
    fn unknown_options_are_refused() {
        let options = proto::PublishOptions {
            wait: 99,
            ..Default::default()
        };
        assert_eq!(
            Options::from_proto(Some(&options)),
            Err(Refusal::BadCall(&OPTION_UNKNOWN))
        );
    }
}
