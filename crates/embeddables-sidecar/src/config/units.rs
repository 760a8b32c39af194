//! Durations, sizes and counts as people write them: `"30s"`, `"64MiB"`, `512`.
//!
//! A size without a unit is a number of bytes. A duration without one is refused, with the way to write it: nobody can see
//! whether `30` means seconds or milliseconds. What is written out reads back to exactly the same value.

use std::fmt;
use std::time::Duration;

use bytesize::ByteSize;
use serde::de::{Error, Visitor};
use serde::{Deserializer, Serializer};

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

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_duration(text: &str, expected: Duration) {
        assert_eq!(parse_duration(text), Ok(expected), "{text}");
        assert_eq!(
            parse_duration(&format_duration(expected)),
            Ok(expected),
            "{text} round trip"
        );
    }

    #[track_caller]
    fn check_size(text: &str, bytes: u64, formatted: &str) {
        assert_eq!(parse_size(text), Ok(ByteSize::b(bytes)), "{text}");
        assert_eq!(format_size(ByteSize::b(bytes)), formatted, "{text}");
        assert_eq!(
            parse_size(formatted),
            Ok(ByteSize::b(bytes)),
            "{formatted} round trip"
        );
    }

    #[test]
    fn durations_carry_units() {
        check_duration("30s", Duration::from_secs(30));
        check_duration("500ms", Duration::from_millis(500));
        check_duration("1h 30m", Duration::from_secs(5400));
        check_duration("7d", Duration::from_secs(7 * 86_400));
        check_duration("0s", Duration::ZERO);
    }

    #[test]
    fn a_duration_without_a_unit_shows_how_to_write_it() {
        let error = parse_duration("30").unwrap_err();
        assert!(error.contains("\"30s\""), "{error}");
    }

    #[test]
    fn what_is_no_duration_is_refused_with_an_example() {
        for text in ["", "soon", "30 parsecs", "-5s", "999999d"] {
            let error = parse_duration(text).unwrap_err();
            assert!(
                error.contains('"') || error.contains("ten years"),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn durations_are_written_in_the_largest_whole_unit() {
        assert_eq!(format_duration(Duration::from_secs(86_400)), "24h");
        assert_eq!(format_duration(Duration::from_secs(604_800)), "7d");
        assert_eq!(format_duration(Duration::from_secs(90)), "90s");
        assert_eq!(format_duration(Duration::from_nanos(1_000_001)), "1000001ns");
    }

    #[test]
    fn sizes_are_bytes_unless_a_unit_says_otherwise() {
        check_size("64MiB", 64 << 20, "64MiB");
        check_size("4096", 4096, "4KiB");
        check_size("1GB", 1_000_000_000, "1000000000B");
        check_size("0", 0, "0B");
    }

    #[test]
    fn what_is_no_size_is_refused_with_an_example() {
        for text in ["", "big", "-1", "12parsecs"] {
            let error = parse_size(text).unwrap_err();
            assert!(error.contains("\"64MiB\""), "{text}: {error}");
        }
    }
}
