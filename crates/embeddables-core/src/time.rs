//! Points in time: an unchecked one as a caller gives it, and one that is within the years 0001 to 9999.
//!
//! Nothing here reads a clock.

use std::fmt;
use std::ops::Range;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::limits::{TIMESTAMP_MAX_SECONDS, TIMESTAMP_MIN_SECONDS};
use crate::violation::Reason;

/// When an event happened, as its caller says. Unchecked.
#[derive(Clone, PartialEq, Eq)]
pub enum EventTime {
    /// Seconds since the Unix epoch and nanoseconds that count forward from there, as in `google.protobuf.Timestamp`.
    Unix {
        /// Whole seconds since 1970-01-01T00:00:00Z, negative before.
        seconds: i64,
        /// Nanoseconds of the second, 0 to 999,999,999.
        nanos: i32,
    },
    /// RFC 3339 or ISO 8601 text, with an offset from UTC.
    Text(String),
}

impl EventTime {
    /// Reads and checks it.
    ///
    /// # Errors
    /// With [`Reason::TimestampMalformed`], [`Reason::TimestampRange`] or [`Reason::TimestampNanos`].
    pub fn check(&self) -> Result<Timestamp, Reason> {
        match self {
            Self::Unix { seconds, nanos } => match u32::try_from(*nanos) {
                Ok(nanos) if nanos < 1_000_000_000 => {
                    Timestamp::from_unix(*seconds, nanos).ok_or(Reason::TimestampRange)
                }
                Ok(_) | Err(_) => Err(Reason::TimestampNanos),
            },
            Self::Text(text) => Timestamp::parse(text),
        }
    }
}

impl fmt::Debug for EventTime {
    /// Unparsed text may be anything, also what belongs into another field: only its length is shown.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix { seconds, nanos } => write!(formatter, "Unix({seconds}s {nanos}ns)"),
            Self::Text(text) => write!(formatter, "Text({} bytes)", text.len()),
        }
    }
}

/// A point in time within the years 0001 to 9999 in UTC, to the nanosecond.
///
/// Displayed as upstream documents it: in UTC with milliseconds, the rest cut off.
///
/// ```
/// use embeddables_core::Timestamp;
///
/// let time = Timestamp::from_unix(1_640_995_200, 123_999_999).ok_or("out of range")?;
/// assert_eq!(time.to_string(), "2022-01-01T00:00:00.123Z");
/// # Ok::<(), &str>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    seconds: i64,
    nanos: u32,
}

impl Timestamp {
    /// Makes one from seconds since the Unix epoch and nanoseconds of that second; `None` where it is out of range.
    pub fn from_unix(seconds: i64, nanos: u32) -> Option<Self> {
        let fits =
            (TIMESTAMP_MIN_SECONDS..=TIMESTAMP_MAX_SECONDS).contains(&seconds) && nanos < 1_000_000_000;
        fits.then_some(Self { seconds, nanos })
    }

    /// Makes one from what a clock showed; `None` where that is out of range.
    pub fn from_system_time(time: SystemTime) -> Option<Self> {
        match time.duration_since(UNIX_EPOCH) {
            Ok(after) => Self::from_unix(i64::try_from(after.as_secs()).ok()?, after.subsec_nanos()),
            Err(error) => {
                let before = error.duration();
                let seconds = i64::try_from(before.as_secs()).ok()?.checked_neg()?;
                match before.subsec_nanos() {
                    0 => Self::from_unix(seconds, 0),
                    nanos => Self::from_unix(seconds.checked_sub(1)?, 1_000_000_000 - nanos),
                }
            }
        }
    }

    /// Reads RFC 3339 or ISO 8601 text with an offset from UTC.
    ///
    /// # Errors
    /// With [`Reason::TimestampMalformed`] or [`Reason::TimestampRange`].
    pub fn parse(text: &str) -> Result<Self, Reason> {
        // Not `jiff::Timestamp`: its range ends a day before the year 9999 does.
        let pieces = jiff::fmt::temporal::Pieces::parse(text).map_err(|_| Reason::TimestampMalformed)?;
        let (Some(time), Some(offset)) = (pieces.time(), pieces.to_numeric_offset()) else {
            return Err(Reason::TimestampMalformed);
        };
        let date = pieces.date();
        let days = days_since_epoch(
            i64::from(date.year()),
            i64::from(date.month()),
            i64::from(date.day()),
        );
        let second_of_day =
            i64::from(time.hour()) * 3600 + i64::from(time.minute()) * 60 + i64::from(time.second());
        let seconds = days * 86_400 + second_of_day - i64::from(offset.seconds());
        let nanos = u32::try_from(time.subsec_nanosecond()).map_err(|_| Reason::TimestampMalformed)?;
        Self::from_unix(seconds, nanos).ok_or(Reason::TimestampRange)
    }

    /// Returns whole seconds since the Unix epoch, negative before it.
    pub fn seconds(self) -> i64 {
        self.seconds
    }

    /// Returns nanoseconds of the second, 0 to 999,999,999, counted forward.
    pub fn nanos(self) -> u32 {
        self.nanos
    }

    /// Returns milliseconds since the Unix epoch, rounded down.
    pub fn unix_millis(self) -> i64 {
        self.seconds * 1000 + i64::from(self.nanos / 1_000_000)
    }

    /// Returns it as the standard library's type; `None` where the platform's cannot hold it.
    pub fn to_system_time(self) -> Option<SystemTime> {
        let whole = Duration::from_secs(self.seconds.unsigned_abs());
        let second = if self.seconds < 0 {
            UNIX_EPOCH.checked_sub(whole)
        } else {
            UNIX_EPOCH.checked_add(whole)
        };
        second?.checked_add(Duration::from_nanos(u64::from(self.nanos)))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = civil_date(self.seconds.div_euclid(86_400));
        let second_of_day = self.seconds.rem_euclid(86_400);
        let (hour, minute, second) = (second_of_day / 3600, second_of_day / 60 % 60, second_of_day % 60);
        // By digits: formatted as numbers they take several times as long, and every event has its time.
        let mut text = *b"0000-00-00T00:00:00.000Z";
        let mut put = |places: Range<usize>, mut number: i64| {
            for place in text[places].iter_mut().rev() {
                *place += u8::try_from(number % 10).unwrap_or(0);
                number /= 10;
            }
        };
        put(0..4, year);
        put(5..7, month);
        put(8..10, day);
        put(11..13, hour);
        put(14..16, minute);
        put(17..19, second);
        put(20..23, i64::from(self.nanos / 1_000_000));
        formatter.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

/// Year, month and day of a day counted from 1970-01-01, in the Gregorian calendar.
///
/// Counts in years that begin in March, so that the leap day comes last: within such a year the months' first days follow
/// a straight line of slope 30.6.
fn civil_date(days_since_epoch: i64) -> (i64, i64, i64) {
    const DAYS_OF_400_YEARS: i64 = 146_097;
    // Days since 0000-03-01.
    let days = days_since_epoch + 719_468;
    let cycle = days.div_euclid(DAYS_OF_400_YEARS);
    let day_of_cycle = days.rem_euclid(DAYS_OF_400_YEARS);
    let year_of_cycle = (day_of_cycle - day_of_cycle / 1460 + day_of_cycle / 36_524
        - day_of_cycle / (DAYS_OF_400_YEARS - 1))
        / 365;
    let day_of_year = day_of_cycle - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = cycle * 400 + year_of_cycle + i64::from(month <= 2);
    (year, month, day)
}

/// The reverse of [`civil_date`].
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year_from_march = if month <= 2 { year - 1 } else { year };
    let month_from_march = if month <= 2 { month + 9 } else { month - 3 };
    let cycle = year_from_march.div_euclid(400);
    let year_of_cycle = year_from_march.rem_euclid(400);
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    cycle * 146_097 + year_of_cycle * 365 + year_of_cycle / 4 - year_of_cycle / 100 + day_of_year - 719_468
}
