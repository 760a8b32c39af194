//! The restricted key that upstream knows a project by.
//!
//! # Invariants
//! 1. The key is shown nowhere: not by `Debug`, not in an error, and as a header it is marked sensitive.
//! 2. Its memory is overwritten when it is dropped. Copies that the HTTP library makes while it sends are beyond reach.

use std::fmt;

use http::HeaderValue;
use secrecy::{ExposeSecret, SecretString};

/// Prefix of every restricted key, as the API's documentation shows it.
const PREFIX: &str = "rk_";

/// Longest key, in bytes. Own choice: a file that holds more is something else than a key.
const MAX_BYTES: usize = 512;

/// A restricted key, `rk_…`.
///
/// ```
/// use embeddables_client::ApiKey;
///
/// let key = ApiKey::parse("rk_test_1234\n")?;
/// assert!(!format!("{key:?}").contains("1234"));
/// # Ok::<(), embeddables_client::ApiKeyError>(())
/// ```
#[derive(Clone)]
pub struct ApiKey(SecretString);

/// Why a text is no restricted key. Never shows the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ApiKeyError {
    /// There is nothing in it.
    #[error("the API key is empty")]
    Empty,
    /// It does not begin with `rk_`.
    #[error("the API key does not begin with `rk_`: it must be a restricted key of an Embeddables project")]
    Prefix,
    /// It ends after the prefix.
    #[error("the API key ends after `rk_`")]
    OnlyPrefix,
    /// It has more than 512 bytes.
    #[error("the API key has more than {MAX_BYTES} bytes: it must be one key and nothing else")]
    TooLong,
    /// It holds something else than visible ASCII; one line feed at its end is allowed.
    #[error("the API key holds {what} at byte {position}: it must be visible ASCII on one line")]
    Character {
        /// What kind of character it is.
        what: &'static str,
        /// Where it is, counted from 0.
        position: usize,
    },
}

impl ApiKey {
    /// Takes the text of a key; one line feed at its end is left out.
    ///
    /// # Errors
    /// Where it is no restricted key; the error does not show it.
    pub fn parse(text: &str) -> Result<Self, ApiKeyError> {
        let key = text.strip_suffix('\n').unwrap_or(text);
        if key.is_empty() {
            return Err(ApiKeyError::Empty);
        }
        if let Some(position) = key.bytes().position(|byte| !byte.is_ascii_graphic()) {
            return Err(ApiKeyError::Character {
                what: kind_of(key.as_bytes()[position]),
                position,
            });
        }
        if key.len() > MAX_BYTES {
            return Err(ApiKeyError::TooLong);
        }
        match key.strip_prefix(PREFIX) {
            None => Err(ApiKeyError::Prefix),
            Some("") => Err(ApiKeyError::OnlyPrefix),
            Some(_) => Ok(Self(SecretString::from(key))),
        }
    }

    /// Returns 16 hexadecimal digits that tell keys apart and from which no key can be found again: for logs.
    pub fn fingerprint(&self) -> String {
        let hash = blake3::derive_key(
            "embeddables-client 2026 fingerprint of an API key",
            self.0.expose_secret().as_bytes(),
        );
        hash[..8].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    pub(crate) fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// The key as a header that `Debug` does not show and that HPACK does not keep.
    pub(crate) fn header(&self) -> HeaderValue {
        #[expect(
            clippy::expect_used,
            reason = "checked to be visible ASCII when it was parsed"
        )]
        let mut value = HeaderValue::from_str(self.expose()).expect("visible ASCII is a header value");
        value.set_sensitive(true);
        value
    }
}

fn kind_of(byte: u8) -> &'static str {
    match byte {
        b'\r' => "a carriage return",
        b'\n' => "a line feed",
        0 => "a NUL",
        b' ' | b'\t' => "white space",
        0x80.. => "a character that is not ASCII",
        _ => "a control character",
    }
}

impl PartialEq for ApiKey {
    fn eq(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

impl Eq for ApiKey {}

impl fmt::Debug for ApiKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ApiKey([redacted])")
    }
}

impl std::str::FromStr for ApiKey {
    type Err = ApiKeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "c4n4ry";

    #[track_caller]
    fn check_refused(text: &str) -> ApiKeyError {
        let error = ApiKey::parse(text).expect_err("parsed");
        assert!(!format!("{error} {error:?}").contains(SECRET), "shown in {error}");
        error
    }

    #[test]
    fn one_line_feed_at_the_end_is_left_out() {
        assert_eq!(ApiKey::parse("rk_c4n4ry\n").unwrap().expose(), "rk_c4n4ry");
        assert_eq!(ApiKey::parse("rk_c4n4ry").unwrap().expose(), "rk_c4n4ry");
        assert_eq!(
            check_refused("rk_c4n4ry\n\n"),
            ApiKeyError::Character {
                what: "a line feed",
                position: 9
            }
        );
    }

    #[test]
    fn what_is_no_key_is_refused_without_showing_it() {
        assert_eq!(
            check_refused("rk_c4n4ry\r\n"),
            ApiKeyError::Character {
                what: "a carriage return",
                position: 9
            }
        );
        for text in [
            "rk_c4n4ry\0",
            "rk_c4n4ry x",
            " rk_c4n4ry",
            "rk_c4n4ry\u{e9}",
            "rk_c4n4ry\x7f",
        ] {
            assert!(
                matches!(check_refused(text), ApiKeyError::Character { .. }),
                "{text:?}"
            );
        }
        for text in ["sk_c4n4ry", "RK_c4n4ry", "c4n4ry"] {
            assert_eq!(check_refused(text), ApiKeyError::Prefix);
        }
        assert_eq!(check_refused(""), ApiKeyError::Empty);
        assert_eq!(check_refused("\n"), ApiKeyError::Empty);
        assert_eq!(check_refused("rk_"), ApiKeyError::OnlyPrefix);
        assert!(ApiKey::parse(&format!("rk_{}", "a".repeat(509))).is_ok());
        assert_eq!(
            check_refused(&format!("rk_{}", "a".repeat(510))),
            ApiKeyError::TooLong
        );
    }

    #[test]
    fn nothing_shows_the_key() {
        let key = ApiKey::parse("rk_c4n4ry").unwrap();
        let shown = format!("{key:?} {:?} {}", key.header(), key.fingerprint());
        assert!(!shown.contains(SECRET), "{shown}");
        assert_eq!(key.fingerprint().len(), 16);
        assert_ne!(
            key.fingerprint(),
            ApiKey::parse("rk_c4n4rz").unwrap().fingerprint()
        );
    }
}
