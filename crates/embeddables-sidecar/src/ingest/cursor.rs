//! Places in the store as opaque text: where a watcher goes on, where a page begins.
//!
//! # Invariants
//! 1. A text is read back only as the kind that it was written as, and only by the store that wrote it; another store's is told
//!    from a mistyped one.
//! 2. It says nothing of the store's secret.

/// What a text is for; its first byte, never renumbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// After an outcome: `WatchOutcomes`.
    Outcome = 1,
    /// After a dead letter: `ListDeadLetters`.
    DeadLetter = 2,
}

/// Why a text is none of this store's places.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    /// No sidecar wrote it, or not for this.
    #[error("it is none that a sidecar gave out")]
    Malformed,
    /// Another store's.
    #[error("it is of another store")]
    OtherStore,
}

/// Kind, store, number, check.
const BYTES: usize = 1 + STORE_BYTES + 8 + CHECK_BYTES;
const STORE_BYTES: usize = 8;
/// Enough to find a mistyped character; nobody gains by forging one.
const CHECK_BYTES: usize = 3;

/// Writes and reads places of one store.
#[derive(Clone, Copy, Debug)]
pub struct Places {
    store: [u8; STORE_BYTES],
}

impl Places {
    /// Those of the store with this secret.
    pub fn new(secret: &[u8; 32]) -> Self {
        let identity = blake3::derive_key(
            "embeddables-sidecar 2026-11 identity of a store in cursors",
            secret,
        );
        let mut store = [0; STORE_BYTES];
        store.copy_from_slice(&identity[..STORE_BYTES]);
        Self { store }
    }

    /// The text of a place.
    pub fn write(&self, kind: Kind, number: u64) -> String {
        let mut bytes = Vec::with_capacity(BYTES);
        bytes.push(kind as u8);
        bytes.extend_from_slice(&self.store);
        bytes.extend_from_slice(&number.to_be_bytes());
        bytes.extend_from_slice(&check(&bytes));
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The place that a text names.
    ///
    /// # Errors
    /// On another store's text, and on one that is none.
    pub fn read(&self, kind: Kind, text: &str) -> Result<u64, PlaceError> {
        let bytes = bytes_of(text).ok_or(PlaceError::Malformed)?;
        let (content, given) = bytes.split_at(BYTES - CHECK_BYTES);
        if content[0] != kind as u8 || given != check(content) {
            return Err(PlaceError::Malformed);
        }
        let (store, number) = content[1..].split_at(STORE_BYTES);
        if store != self.store {
            return Err(PlaceError::OtherStore);
        }
        let number = <[u8; 8]>::try_from(number).map_err(|_| PlaceError::Malformed)?;
        Ok(u64::from_be_bytes(number))
    }
}

fn check(content: &[u8]) -> [u8; CHECK_BYTES] {
    let mut check = [0; CHECK_BYTES];
    check.copy_from_slice(&blake3::hash(content).as_bytes()[..CHECK_BYTES]);
    check
}

fn bytes_of(text: &str) -> Option<[u8; BYTES]> {
    if text.len() != 2 * BYTES || !text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    let mut bytes = [0; BYTES];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: [u8; 32] = [1; 32];

    #[test]
    fn what_is_written_is_read_back_by_the_same_store_only() {
        let (ours, others) = (Places::new(&OURS), Places::new(&[2; 32]));
        for number in [0, 1, 255, u64::MAX] {
            let text = ours.write(Kind::Outcome, number);
            assert_eq!(Places::new(&OURS).read(Kind::Outcome, &text), Ok(number));
            assert_eq!(others.read(Kind::Outcome, &text), Err(PlaceError::OtherStore));
        }
    }

    #[test]
    fn a_text_of_another_kind_or_with_any_character_changed_is_malformed() {
        let places = Places::new(&OURS);
        let text = places.write(Kind::Outcome, 7);
        assert_eq!(places.read(Kind::DeadLetter, &text), Err(PlaceError::Malformed));
        for index in 0..text.len() {
            let other = if text.as_bytes()[index] == b'0' { "1" } else { "0" };
            let mut changed = text.clone();
            changed.replace_range(index..=index, other);
            assert_eq!(
                places.read(Kind::Outcome, &changed),
                Err(PlaceError::Malformed),
                "{changed}"
            );
        }
        for text in [
            "",
            "earliest!",
            &text[1..],
            &text.to_uppercase(),
            &"é".repeat(BYTES),
        ] {
            assert_eq!(
                places.read(Kind::Outcome, text),
                Err(PlaceError::Malformed),
                "{text}"
            );
        }
    }

    #[test]
    fn the_secret_does_not_show() {
        let text = Places::new(&OURS).write(Kind::Outcome, 0);
        assert!(!text.contains("01010101"), "{text}");
    }
}
