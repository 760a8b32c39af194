//! gRPC messages in their frames, by hand: a byte of flags, four of length, the message.

use bytes::{BufMut as _, Bytes, BytesMut};
use prost::Message;

/// Bytes before each message.
pub(crate) const PREFIX_BYTES: usize = 5;

/// Why an answer cannot be what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    /// Not exactly one uncompressed message.
    #[error("the answer is not one whole message")]
    NotOneMessage,
    /// The message is no `PublishEventsResponse`.
    #[error("the answer cannot be decoded")]
    Malformed,
}

/// Encodes a message with its prefix.
pub(crate) fn frame(message: &impl Message) -> BytesMut {
    let length_bytes = message.encoded_len();
    let mut framed = BytesMut::with_capacity(PREFIX_BYTES + length_bytes);
    framed.put_u8(0);
    framed.put_u32(u32::try_from(length_bytes).unwrap_or(u32::MAX));
    framed.extend_from_slice(&message.encode_to_vec());
    framed
}

/// The one message that a body holds.
pub(crate) fn only_message(body: &Bytes) -> Result<&[u8], FrameError> {
    let (prefix, message) = body
        .split_at_checked(PREFIX_BYTES)
        .ok_or(FrameError::NotOneMessage)?;
    let is_whole = prefix[0] == 0
        && prefix[1..]
            .try_into()
            .is_ok_and(|length| u32::from_be_bytes(length) as usize == message.len());
    if is_whole {
        Ok(message)
    } else {
        Err(FrameError::NotOneMessage)
    }
}

/// What a batch's results say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Results {
    /// Events taken.
    pub(crate) taken: u64,
    /// Events refused.
    pub(crate) refused: u64,
}

/// Counts the results of a `PublishEventsResponse` without decoding what they hold.
pub(crate) fn count_results(mut message: &[u8]) -> Result<Results, FrameError> {
    let mut results = Results::default();
    while !message.is_empty() {
        let (tag, result) = length_delimited(&mut message)?;
        if tag != 1 {
            continue;
        }
        // `status` is field 1 of a result, `refusal` is field 2.
        match result.first() {
            Some(0x0a) => results.taken += 1,
            Some(0x12) => results.refused += 1,
            _ => return Err(FrameError::Malformed),
        }
    }
    Ok(results)
}

/// Takes one length-delimited field off the front: its number and content. The response has no fields of other kinds.
fn length_delimited<'a>(message: &mut &'a [u8]) -> Result<(u64, &'a [u8]), FrameError> {
    let key = varint(message)?;
    if key & 7 != 2 {
        return Err(FrameError::Malformed);
    }
    let length = usize::try_from(varint(message)?).map_err(|_| FrameError::Malformed)?;
    let (content, rest) = message.split_at_checked(length).ok_or(FrameError::Malformed)?;
    *message = rest;
    Ok((key >> 3, content))
}

fn varint(message: &mut &[u8]) -> Result<u64, FrameError> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = message.split_first().ok_or(FrameError::Malformed)?;
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(FrameError::Malformed)
}

#[cfg(test)]
mod tests {
    use embeddables_proto::events::v1::publish_result::Result as Outcome;
    use embeddables_proto::events::v1::{EventStatus, PublishEventsResponse, PublishResult, Refusal};

    use super::*;

    fn response(taken: usize, refused: usize) -> PublishEventsResponse {
        let status = EventStatus {
            event_id: "x".repeat(300),
            ..EventStatus::default()
        };
        let taken = std::iter::repeat_n(Outcome::Status(status), taken);
        let refused = std::iter::repeat_n(Outcome::Refusal(Refusal::default()), refused);
        let results = taken
            .chain(refused)
            .map(|result| PublishResult { result: Some(result) })
            .collect();
        PublishEventsResponse { results }
    }

    #[track_caller]
    fn check_only_message(body: &[u8], expected: Result<&[u8], FrameError>) {
        assert_eq!(only_message(&Bytes::copy_from_slice(body)), expected, "{body:?}");
    }

    #[test]
    fn a_framed_message_comes_out_again() {
        let framed = frame(&response(2, 1)).freeze();
        assert_eq!(only_message(&framed), Ok(&*response(2, 1).encode_to_vec()));
        check_only_message(&[0, 0, 0, 0, 0], Ok(&[]));
    }

    #[test]
    fn anything_but_one_whole_plain_message_is_refused() {
        let refused = Err(FrameError::NotOneMessage);
        check_only_message(&[], refused);
        check_only_message(&[0, 0, 0, 0], refused);
        check_only_message(&[0, 0, 0, 0, 2, 9], refused);
        check_only_message(&[0, 0, 0, 0, 1, 9, 9], refused);
        check_only_message(&[1, 0, 0, 0, 1, 9], refused);
    }

    #[test]
    fn results_are_told_apart() {
        for (taken, refused) in [(0, 0), (100, 0), (0, 3), (7, 5)] {
            let message = response(taken, refused).encode_to_vec();
            let expected = Results {
                taken: taken as u64,
                refused: refused as u64,
            };
            assert_eq!(count_results(&message), Ok(expected));
        }
    }

    #[test]
    fn a_cut_answer_is_not_counted() {
        let message = response(3, 0).encode_to_vec();
        assert_eq!(
            count_results(&message[..message.len() - 1]),
            Err(FrameError::Malformed)
        );
        assert_eq!(count_results(&[0x0a, 0x00]), Err(FrameError::Malformed));
        assert_eq!(count_results(&[0x08, 0x01]), Err(FrameError::Malformed));
        assert_eq!(count_results(&[0xff; 11]), Err(FrameError::Malformed));
    }
}
