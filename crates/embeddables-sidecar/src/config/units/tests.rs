//! How people write durations and sizes, and what they are told where they write something else.

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
