//! How rows are checksummed and lists packed.
//!
//! # Invariants
//! 1. A record's checksum is that of its body (what never changes) continued over what a settlement changes, so that a
//!    settlement can be written without reading the payload again.
//! 2. Every column of a row is covered, numbers as eight bytes little-endian, text and blobs behind their length: no two
//!    different rows feed the checksum the same bytes.

use crate::OrderKey;

/// A CRC32C in the making.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Checksum(u32);

impl Checksum {
    /// Continues from a stored checksum.
    pub(super) fn resume(value: u32) -> Self {
        Self(value)
    }

    /// Feeds numbers.
    pub(super) fn numbers<const N: usize>(self, values: [i64; N]) -> Self {
        let bytes = values.map(i64::to_le_bytes);
        Self(crc32c::crc32c_append(self.0, bytes.as_flattened()))
    }

    /// Feeds text or a blob behind its length.
    pub(super) fn bytes(self, value: &[u8]) -> Self {
        let sum = self.numbers([i64::try_from(value.len()).unwrap_or(i64::MAX)]);
        Self(crc32c::crc32c_append(sum.0, value))
    }

    /// The checksum.
    pub(super) fn finish(self) -> u32 {
        self.0
    }
}

/// The part of a record or dead letter that never changes.
pub(super) struct Body<'a> {
    pub(super) sequence: i64,
    pub(super) lane: i64,
    pub(super) accept_time: i64,
    pub(super) accept_running: i64,
    pub(super) order_key: &'a [u8],
    pub(super) id: &'a str,
    pub(super) payload: &'a [u8],
}

impl Body<'_> {
    /// Checksum of the body, to be continued.
    pub(super) fn checksum(&self) -> Checksum {
        Checksum::default()
            .numbers([self.sequence, self.lane, self.accept_time, self.accept_running])
            .bytes(self.order_key)
            .bytes(self.id.as_bytes())
            .bytes(self.payload)
    }
}

/// Checksum of a whole row of `records`.
pub(super) fn record_checksum(body: Checksum, due: i64, settled_claim: i64, progress: &[u8]) -> u32 {
    body.numbers([due, settled_claim]).bytes(progress).finish()
}

/// Checksum of a whole row of `dead_letters`.
pub(super) fn dead_letter_checksum(body: Checksum, dead_time: i64, reason: &str, progress: &[u8]) -> u32 {
    body.numbers([dead_time])
        .bytes(reason.as_bytes())
        .bytes(progress)
        .finish()
}

/// An outcome's columns, as checksummed.
pub(super) struct OutcomeRow<'a> {
    pub(super) number: i64,
    pub(super) sequence: i64,
    pub(super) lane: i64,
    pub(super) kind: i64,
    pub(super) time: i64,
    pub(super) running: i64,
    pub(super) id: &'a str,
    pub(super) reason: &'a str,
    pub(super) note: &'a [u8],
}

impl OutcomeRow<'_> {
    /// Checksum of the whole row of `outcomes`.
    pub(super) fn checksum(&self) -> u32 {
        Checksum::default()
            .numbers([
                self.number,
                self.sequence,
                self.lane,
                self.kind,
                self.time,
                self.running,
            ])
            .bytes(self.id.as_bytes())
            .bytes(self.reason.as_bytes())
            .bytes(self.note)
            .finish()
    }
}

/// Checksum of a lease mark.
pub(super) fn claim_checksum(number: i64, lane: i64, sequences: &[u8]) -> u32 {
    Checksum::default()
        .numbers([number, lane])
        .bytes(sequences)
        .finish()
}

/// Checksum of a deadline.
pub(super) fn deadline_checksum(sequence: i64, lane: i64, time: i64) -> u32 {
    Checksum::default().numbers([sequence, lane, time]).finish()
}

/// Checksum of the state of a lane.
pub(super) fn lane_state_checksum(numbers: [i64; 5], note: &[u8]) -> u32 {
    Checksum::default().numbers(numbers).bytes(note).finish()
}

/// Checksum of a fact in `meta`.
pub(super) fn meta_checksum(name: &str, value: &[u8]) -> u32 {
    Checksum::default().bytes(name.as_bytes()).bytes(value).finish()
}

/// Packs sequences as differences in LEB128; ascending ones take about a byte each.
pub(super) fn pack_sequences(sequences: &[u64]) -> Vec<u8> {
    let mut packed = Vec::with_capacity(sequences.len() * 2 + 8);
    let mut last = 0_u64;
    for &sequence in sequences {
        // Zigzag of the difference: waiting records are leased in order of their due time, not of their sequence.
        let difference = sequence.wrapping_sub(last).cast_signed();
        let mut rest = ((difference << 1) ^ (difference >> 63)).cast_unsigned();
        while rest >= 0x80 {
            packed.push((rest & 0x7f) as u8 | 0x80);
            rest >>= 7;
        }
        packed.push((rest & 0x7f) as u8);
        last = sequence;
    }
    packed
}

/// Unpacks what [`pack_sequences`] packed; `None` where the bytes are no such list.
pub(super) fn unpack_sequences(packed: &[u8]) -> Option<Vec<u64>> {
    let mut sequences = Vec::new();
    let (mut last, mut value, mut shift) = (0_u64, 0_u64, 0_u32);
    for &byte in packed {
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 != 0 {
            shift += 7;
            if shift > 63 {
                return None;
            }
            continue;
        }
        let difference = (value >> 1).cast_signed() ^ -((value & 1).cast_signed());
        last = last.wrapping_add(difference.cast_unsigned());
        sequences.push(last);
        (value, shift) = (0, 0);
    }
    (shift == 0 && value == 0).then_some(sequences)
}

/// A number as SQLite stores it; those beyond its range saturate.
pub(super) fn sql(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A stored number that cannot be negative unless damaged.
pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// A stored order key; zeros where it has another length, which the checksum has caught before.
pub(super) fn order_key(bytes: &[u8]) -> OrderKey {
    bytes.try_into().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_checksum_can_be_continued_without_the_payload() {
        let body = Body {
            sequence: 7,
            lane: 1,
            accept_time: 2,
            accept_running: 3,
            order_key: &[4; 16],
            id: "id",
            payload: b"payload",
        };
        let stored = body.checksum().finish();
        assert_eq!(
            record_checksum(Checksum::resume(stored), 9, 8, b"p"),
            record_checksum(body.checksum(), 9, 8, b"p")
        );
    }

    #[test]
    fn columns_do_not_run_into_each_other() {
        let checksum = |id: &str, payload: &[u8]| {
            Body {
                sequence: 1,
                lane: 1,
                accept_time: 1,
                accept_running: 1,
                order_key: &[0; 16],
                id,
                payload,
            }
            .checksum()
        };
        assert_ne!(checksum("ab", b"c"), checksum("a", b"bc"));
    }

    proptest! {
        #[test]
        fn packed_sequences_come_back(sequences in proptest::collection::vec(any::<u64>(), 0..50)) {
            prop_assert_eq!(unpack_sequences(&pack_sequences(&sequences)), Some(sequences));
        }

        #[test]
        fn any_bytes_unpack_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..50)) {
            // Must not panic; what it yields does not matter.
            prop_assert!(unpack_sequences(&bytes).is_none_or(|list| list.len() <= bytes.len()));
        }
    }
}
