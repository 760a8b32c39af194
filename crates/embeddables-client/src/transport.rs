//! What a request without an answer says: whether it may have been carried out, and a few words why.
//!
//! # Invariants
//! 1. *Not sent* needs proof: no connection came about, or the HTTP/2 peer said that it did not read the request
//!    (`REFUSED_STREAM`, or a `GOAWAY` whose last stream is below it). Whatever else happens after the request was handed to
//!    a connection is ambiguous.
//! 2. The words hold no URL, no header and nothing of the event.

use std::error::Error;
use std::io;
use std::time::Duration;

use embeddables_core::{Attempt, Fate, Verdict};

/// Longest words taken from the TLS library, in bytes.
const TLS_WORDS_MAX_BYTES: usize = 200;

/// Classifies a request for which no status line came.
pub(crate) fn without_answer(error: &reqwest::Error, connect_timeout: Duration) -> Attempt {
    let (fate, detail) = if error.is_connect() {
        (Fate::NotSent, connect_words(error, connect_timeout))
    } else if error.is_builder() {
        (Fate::NotSent, "the request could not be made".to_owned())
    } else if let Some(words) = proof_of_unread(error) {
        (Fate::NotSent, words.to_owned())
    } else {
        (Fate::Ambiguous, exchange_words(error))
    };
    unavailable(fate, detail)
}

/// Classifies a request whose answer did not begin within the time of the attempt.
pub(crate) fn out_of_time(attempt_timeout: Duration) -> Attempt {
    unavailable(
        Fate::Ambiguous,
        format!("timed out after {attempt_timeout:?} awaiting the answer"),
    )
}

fn unavailable(fate: Fate, detail: String) -> Attempt {
    Attempt {
        fate,
        verdict: Verdict::Unavailable { retry_after: None },
        http_status: None,
        detail,
        excerpt: None,
    }
}

/// Whether the peer proved that it did not read the request, and how.
///
/// A `GOAWAY` reaches a stream as an error only where the stream lies above the last one that the peer names, or was
/// never opened; streams below it go on, and fail by I/O if they fail. The HTTP/2 library keeps to this, and a test holds
/// it to it.
fn proof_of_unread(error: &(dyn Error + 'static)) -> Option<&'static str> {
    let h2 = chain(error).find_map(|error| error.downcast_ref::<h2::Error>())?;
    if h2.is_remote() && h2.is_reset() && h2.reason() == Some(h2::Reason::REFUSED_STREAM) {
        Some("the server refused the stream unread")
    } else if h2.is_remote() && h2.is_go_away() {
        Some("the server went away before it read the request")
    } else {
        None
    }
}

fn connect_words(error: &reqwest::Error, connect_timeout: Duration) -> String {
    if error.is_timeout() {
        return format!("timed out after {connect_timeout:?} connecting");
    }
    if error.is_dns() {
        return "the host name could not be resolved".to_owned();
    }
    if let Some(tls) = tls_error(error) {
        let words: String = tls
            .to_string()
            .chars()
            .filter(|character| !character.is_control())
            .collect();
        let end = (0..=TLS_WORDS_MAX_BYTES.min(words.len()))
            .rev()
            .find(|end| words.is_char_boundary(*end));
        return format!("TLS failure: {}", &words[..end.unwrap_or(0)]);
    }
    match io_kind(error) {
        Some(kind) => format!("no connection: {}", io_words(kind)),
        None => "no connection".to_owned(),
    }
}

fn exchange_words(error: &reqwest::Error) -> String {
    if let Some(h2) = chain(error).find_map(|error| error.downcast_ref::<h2::Error>())
        && let Some(reason) = h2.reason()
    {
        return format!("HTTP/2 error {reason:?} awaiting the answer");
    }
    match io_kind(error) {
        Some(kind) => format!("{} awaiting the answer", io_words(kind)),
        None if error.is_timeout() => "timed out awaiting the answer".to_owned(),
        None => "the connection ended awaiting the answer".to_owned(),
    }
}

fn io_words(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::ConnectionRefused => "connection refused",
        io::ErrorKind::ConnectionReset => "connection reset",
        io::ErrorKind::ConnectionAborted => "connection aborted",
        io::ErrorKind::BrokenPipe => "connection closed",
        io::ErrorKind::UnexpectedEof => "connection closed",
        io::ErrorKind::HostUnreachable => "host unreachable",
        io::ErrorKind::NetworkUnreachable => "network unreachable",
        io::ErrorKind::AddrNotAvailable => "no local address available",
        io::ErrorKind::PermissionDenied => "permission denied",
        io::ErrorKind::TimedOut => "timed out",
        _ => "I/O error",
    }
}

fn io_kind(error: &(dyn Error + 'static)) -> Option<io::ErrorKind> {
    chain(error)
        .filter_map(|error| error.downcast_ref::<io::Error>())
        .last()
        .map(io::Error::kind)
}

fn tls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    chain(error).find_map(|error| error.downcast_ref())
}

/// The error and all that it comes from.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let current = next?;
        // An I/O error names as its source what lies below the error it wraps, not that error itself.
        let wrapped = current.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match wrapped {
            Some(wrapped) => Some(wrapped),
            None => current.source(),
        };
        Some(current)
    })
}
