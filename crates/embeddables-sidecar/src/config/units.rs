//! Durations, sizes, rates and counts as people write them: `"30s"`, `"64MiB"`, `"200/s"`, `512`.
//!
//! A size without a unit is a number of bytes. A duration without one is refused, with the way to write it: nobody can see
//! whether `30` means seconds or milliseconds. What is written out reads back to exactly the same value.

mod rate;

use std::fmt;
use std::time::Duration;

use bytesize::ByteSize;
use serde::de::{Error, Visitor};
use serde::{Deserializer, Serializer};

pub use rate::Rate;

/// Longest duration taken: far beyond use, and far from overflowing a clock.
const LONGEST: Duration = Duration::from_hours(24 * 3650);

/// Reads a duration such as `30s`, `500ms`, `1h 30m` or `7d`.
///
/// # Errors
/// A sentence that shows how to write it.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') && text != "0" {
        return Err(without_unit(text));
    }
    match humantime::parse_duration(text) {
        Ok(duration) if duration > LONGEST => Err(format!("`{text}` is longer than ten years")),
        Ok(duration) => Ok(duration),
        Err(error) => Err(format!(
            "`{text}` is not a duration ({error}): write for example \"500ms\", \"30s\", \"5m\", \"2h\" or \"7d\""
        )),
    }
}

/// Writes a duration in its largest unit that needs no fraction: `30s`, `24h`, `7d`.
pub fn format_duration(duration: Duration) -> String {
    const UNITS: [(u128, &str); 6] = [
        (3_600_000_000_000, "h"),
        (60_000_000_000, "m"),
        (1_000_000_000, "s"),
        (1_000_000, "ms"),
        (1_000, "us"),
        (1, "ns"),
    ];
    const DAY: u128 = 24 * 3_600_000_000_000;
    let nanos = duration.as_nanos();
    if nanos == 0 {
        return "0s".to_owned();
    }
    // One day stays `24h`: that is how people say it.
    if nanos > DAY && nanos.is_multiple_of(DAY) {
        return format!("{}d", nanos / DAY);
    }
    UNITS
        .iter()
        .find(|(unit, _)| nanos.is_multiple_of(*unit))
        .map_or_else(
            || format!("{nanos}ns"),
            |(unit, name)| format!("{}{name}", nanos / unit),
        )
}

/// Reads a size such as `64MiB`, `1.5GB` or `4096` (bytes).
///
/// # Errors
/// A sentence that shows how to write it.
pub fn parse_size(text: &str) -> Result<ByteSize, String> {
    text.trim().parse().map_err(|_| {
        format!("`{text}` is not a size: write for example \"64MiB\", \"1GiB\" or a number of bytes")
    })
}

/// Writes a size in its largest binary unit that needs no fraction: `64MiB`, `1GiB`, `1000B`.
pub fn format_size(size: ByteSize) -> String {
    let bytes = size.as_u64();
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    units
        .iter()
        .find(|(shift, _)| bytes > 0 && bytes.trailing_zeros() >= *shift)
        .map_or_else(
            || format!("{bytes}B"),
            |(shift, name)| format!("{}{name}", bytes >> shift),
        )
}

fn without_unit(number: impl fmt::Display) -> String {
    format!(
        "`{number}` has no unit: write \"{number}s\" for seconds, \"{number}ms\" for milliseconds, or m, h, d"
    )
}

/// For `#[serde(with = …)]` on a [`Duration`].
pub mod duration {
    use super::*;

    /// Writes it with its unit.
    pub fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format_duration(*value))
    }

    /// Reads it with its unit.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        deserializer.deserialize_any(DurationVisitor)
    }

    struct DurationVisitor;

    impl Visitor<'_> for DurationVisitor {
        type Value = Duration;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a duration such as \"30s\"")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Duration, E> {
            parse_duration(text).map_err(E::custom)
        }

        fn visit_i64<E: Error>(self, number: i64) -> Result<Duration, E> {
            Err(E::custom(without_unit(number)))
        }

        fn visit_f64<E: Error>(self, number: f64) -> Result<Duration, E> {
            Err(E::custom(without_unit(number)))
        }
    }
}

/// For `#[serde(with = …)]` on a list of durations; a text with commas is a list too, for the environment.
pub mod durations {
    use serde::Deserialize;
    use serde::de::SeqAccess;
    use serde::ser::SerializeSeq;

    use super::*;

    /// Writes each with its unit.
    pub fn serialize<S: Serializer>(values: &[Duration], serializer: S) -> Result<S::Ok, S::Error> {
        let mut sequence = serializer.serialize_seq(Some(values.len()))?;
        for value in values {
            sequence.serialize_element(&format_duration(*value))?;
        }
        sequence.end()
    }

    /// Reads a list, or a text with commas.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Duration>, D::Error> {
        deserializer.deserialize_any(DurationsVisitor)
    }

    #[derive(Deserialize)]
    #[serde(transparent)]
    struct Element(#[serde(with = "super::duration")] Duration);

    struct DurationsVisitor;

    impl<'de> Visitor<'de> for DurationsVisitor {
        type Value = Vec<Duration>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a list of durations such as [\"10s\", \"1m\"]")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
            let mut durations = Vec::new();
            while let Some(Element(duration)) = elements.next_element()? {
                durations.push(duration);
            }
            Ok(durations)
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
            text.split(',')
                .map(|part| parse_duration(part).map_err(E::custom))
                .collect()
        }
    }
}

/// For `#[serde(with = …)]` on a [`ByteSize`].
pub mod size {
    use super::*;

    /// Writes it with its unit.
    pub fn serialize<S: Serializer>(value: &ByteSize, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format_size(*value))
    }

    /// Reads it with its unit, or as a number of bytes.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ByteSize, D::Error> {
        deserializer.deserialize_any(SizeVisitor)
    }

    struct SizeVisitor;

    impl Visitor<'_> for SizeVisitor {
        type Value = ByteSize;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a size such as \"64MiB\" or a number of bytes")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<ByteSize, E> {
            parse_size(text).map_err(E::custom)
        }

        fn visit_i64<E: Error>(self, bytes: i64) -> Result<ByteSize, E> {
            u64::try_from(bytes)
                .map(ByteSize::b)
                .map_err(|_| E::custom("a size is not negative"))
        }
    }
}

/// For `#[serde(with = …)]` on a `NonZeroU32`: serde's own words ("a nonzero u32") help nobody.
pub mod count {
    use std::num::NonZeroU32;

    use super::*;

    /// Writes the number.
    pub fn serialize<S: Serializer>(value: &NonZeroU32, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(value.get())
    }

    /// Reads a whole number of at least 1.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<NonZeroU32, D::Error> {
        deserializer.deserialize_any(CountVisitor)
    }

    struct CountVisitor;

    impl Visitor<'_> for CountVisitor {
        type Value = NonZeroU32;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a whole number from 1 to 4294967295")
        }

        fn visit_i64<E: Error>(self, number: i64) -> Result<NonZeroU32, E> {
            u32::try_from(number)
                .ok()
                .and_then(NonZeroU32::new)
                .ok_or_else(|| {
                    E::custom(format!(
                        "`{number}` is out of range: expected a whole number from 1 to 4294967295"
                    ))
                })
        }
    }
}

/// For `#[serde(with = …)]` on an optional `NonZeroU32`.
pub mod optional_count {
    use std::num::NonZeroU32;

    use super::*;

    /// Writes the number.
    pub fn serialize<S: Serializer>(value: &Option<NonZeroU32>, serializer: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(count) => serializer.serialize_some(&count.get()),
            None => serializer.serialize_none(),
        }
    }

    /// Reads a whole number of at least 1.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<NonZeroU32>, D::Error> {
        super::count::deserialize(deserializer).map(Some)
    }
}

/// For `#[serde(with = …)]` on a percentage.
pub mod percent {
    use super::*;

    /// Writes the number.
    pub fn serialize<S: Serializer>(value: &u8, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(*value)
    }

    /// Reads a whole number from 0 to 100.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u8, D::Error> {
        deserializer.deserialize_any(PercentVisitor)
    }

    struct PercentVisitor;

    impl Visitor<'_> for PercentVisitor {
        type Value = u8;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a percentage: a whole number from 0 to 100")
        }

        fn visit_i64<E: Error>(self, number: i64) -> Result<u8, E> {
            u8::try_from(number)
                .ok()
                .filter(|percent| *percent <= 100)
                .ok_or_else(|| {
                    E::custom(format!(
                        "`{number}` is no percentage: write a whole number from 0 to 100"
                    ))
                })
        }
    }
}

#[cfg(test)]
mod tests;
