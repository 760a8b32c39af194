//! Writes JSON scalars: numbers and strings.

use std::fmt::Write as _;

use crate::limits::{EXACT_WHOLE_MAX, ROUNDED_WHOLE_MAX};
use crate::violation::Reason;

/// Appends a double so that it reads back as the same double.
///
/// Laid out as ECMAScript does (digits up to 1e21 and down to 1e-6, an exponent beyond), only without a plus in the
/// exponent. A whole number within ±2^53 has no fraction. Negative zero is written as `0`, which equals it.
///
/// # Errors
/// [`Reason::NumberNotFinite`] for NaN and infinities, [`Reason::NumberNotExact`] for whole numbers of a size above 2^53
/// and up to 2^64: probably an integer that was rounded when it became a double. Nothing is appended then.
pub(crate) fn write_number(out: &mut String, number: f64) -> Result<(), Reason> {
    if !number.is_finite() {
        return Err(Reason::NumberNotFinite);
    }
    let size = number.abs();
    if number.trunc() == number {
        if size <= EXACT_WHOLE_MAX {
            #[expect(clippy::cast_possible_truncation, reason = "whole and within ±2^53")]
            let whole = number as i64;
            append(out, format_args!("{whole}"));
            return Ok(());
        }
        if size <= ROUNDED_WHOLE_MAX {
            return Err(Reason::NumberNotExact);
        }
    }
    if (1e-6..1e21).contains(&size) {
        append(out, format_args!("{number}"));
    } else {
        append(out, format_args!("{number:e}"));
    }
    Ok(())
}

/// Appends a string as a JSON literal. Escapes only what JSON demands.
pub(crate) fn write_string(out: &mut String, text: &str) {
    let is_escaped = |byte: u8| byte < 0x20 || byte == b'"' || byte == b'\\';
    out.push('"');
    // Hardly a text holds one. Without an early end the compiler looks at many bytes at once.
    if !text.bytes().fold(false, |found, byte| found | is_escaped(byte)) {
        out.push_str(text);
        out.push('"');
        return;
    }
    let mut written_until = 0;
    for (index, byte) in text.bytes().enumerate() {
        if !is_escaped(byte) {
            continue;
        }
        // Bytes below 0x80 are whole characters in UTF-8, so that these indices lie between characters.
        out.push_str(&text[written_until..index]);
        written_until = index + 1;
        match byte {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            0x08 => out.push_str("\\b"),
            0x0C => out.push_str("\\f"),
            control => append(out, format_args!("\\u{control:04x}")),
        }
    }
    out.push_str(&text[written_until..]);
    out.push('"');
}

fn append(out: &mut String, arguments: std::fmt::Arguments<'_>) {
    #[expect(clippy::expect_used, reason = "writing to a String does not fail")]
    out.write_fmt(arguments).expect("a String takes what is written");
}
