//! gRPC messages in their frames, by hand: a byte of flags, four of length, the message.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use prost::Message;

/// Bytes before each message.
pub(crate) const PREFIX_BYTES: usize = 5;
/// Where numbers of streamed messages begin: from here to 2^35 a varint has five bytes, so that one is replaced by another.
pub(crate) const FIRST_SEQUENCE: u64 = 1 << 28;
/// Bytes of such a number.
const SEQUENCE_BYTES: usize = 5;

/// Why an answer cannot be what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    /// Not exactly one uncompressed message.
    #[error("the answer is not one whole message")]
    NotOneMessage,
    /// The message is none that was asked for.
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

/// Takes one whole message off the front of what has come of a stream; `None` where there is none yet.
pub(crate) fn next_message(received: &mut BytesMut) -> Result<Option<BytesMut>, FrameError> {
    let Some((prefix, rest)) = received.split_first_chunk::<PREFIX_BYTES>() else {
        return Ok(None);
    };
    let [flags, length @ ..] = *prefix;
    if flags != 0 {
        return Err(FrameError::Malformed);
    }
    let length = u32::from_be_bytes(length) as usize;
    if rest.len() < length {
        return Ok(None);
    }
    received.advance(PREFIX_BYTES);
    Ok(Some(received.split_to(length)))
}

/// Writes its number into a framed `StreamEventsRequest`, whose first field it is.
pub(crate) fn put_sequence(framed: &mut [u8], sequence: u64) {
    let place = PREFIX_BYTES + 1;
    for (index, byte) in framed[place..place + SEQUENCE_BYTES].iter_mut().enumerate() {
        let [low, ..] = (sequence >> (7 * index)).to_le_bytes();
        let more = if index + 1 < SEQUENCE_BYTES { 0x80 } else { 0 };
        *byte = low & 0x7f | more;
    }
}

/// The results of a `StreamEventsResponse`, each with its number, without decoding what they hold.
pub(crate) fn stream_results(mut message: &[u8]) -> impl Iterator<Item = Result<(u64, Results), FrameError>> {
    std::iter::from_fn(move || {
        (!message.is_empty()).then(|| {
            let (tag, result) = length_delimited(&mut message)?;
            if tag != 1 {
                return Err(FrameError::Malformed);
            }
            stream_result(result)
        })
    })
}

/// The number is field 1 of a streamed result, the result itself is field 2.
fn stream_result(mut result: &[u8]) -> Result<(u64, Results), FrameError> {
    if varint(&mut result)? != 0x08 {
        return Err(FrameError::Malformed);
    }
    let sequence = varint(&mut result)?;
    let (tag, outcome) = length_delimited(&mut result)?;
    if tag != 2 || !result.is_empty() {
        return Err(FrameError::Malformed);
    }
    let mut results = Results::default();
    results.count(outcome)?;
    Ok((sequence, results))
}

/// What a batch's results say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Results {
    /// Events taken.
    pub(crate) taken: u64,
    /// Events refused.
    pub(crate) refused: u64,
}

impl Results {
    /// Counts one `PublishResult`: `status` is its field 1, `refusal` its field 2.
    fn count(&mut self, result: &[u8]) -> Result<(), FrameError> {
        match result.first() {
            Some(0x0a) => self.taken += 1,
            Some(0x12) => self.refused += 1,
            _ => return Err(FrameError::Malformed),
        }
        Ok(())
    }
}

/// Counts the results of a `PublishEventsResponse` without decoding what they hold.
pub(crate) fn count_results(mut message: &[u8]) -> Result<Results, FrameError> {
    let mut results = Results::default();
    while !message.is_empty() {
        let (tag, result) = length_delimited(&mut message)?;
        if tag != 1 {
            continue;
        }
        results.count(result)?;
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
    use embeddables_proto::events::v1::{
        EventStatus, PublishEventsResponse, PublishResult, Refusal, StreamEventsResponse, StreamResult,
    };

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

    #[test]
    fn a_stream_is_cut_into_its_messages_wherever_the_chunks_end() {
        let framed = [
            frame(&response(2, 1)),
            frame(&response(0, 0)),
            frame(&response(1, 0)),
        ]
        .concat();
        let mut received = BytesMut::new();
        let mut lengths_bytes = Vec::new();
        for byte in framed {
            received.extend_from_slice(&[byte]);
            while let Some(message) = next_message(&mut received).expect("framed") {
                lengths_bytes.push(message.len());
            }
        }
        let expected = [response(2, 1), response(0, 0), response(1, 0)].map(|one| one.encoded_len());
        assert_eq!(lengths_bytes, expected);
        let compressed = &[1, 0, 0, 0, 0][..];
        assert_eq!(next_message(&mut compressed.into()), Err(FrameError::Malformed));
    }

    #[test]
    fn streamed_results_have_their_numbers() {
        let results = (0..)
            .zip(response(1, 1).results)
            .map(|(place, result)| StreamResult {
                sequence: i64::try_from(FIRST_SEQUENCE).expect("small") + place,
                result: Some(result),
            });
        let mut response = StreamEventsResponse {
            results: results.collect(),
        };
        let found = |response: &StreamEventsResponse| {
            stream_results(&response.encode_to_vec()).collect::<Result<Vec<_>, _>>()
        };
        let (taken, refused) = (Results { taken: 1, refused: 0 }, Results { taken: 0, refused: 1 });
        let expected = vec![(FIRST_SEQUENCE, taken), (FIRST_SEQUENCE + 1, refused)];
        assert_eq!(found(&response), Ok(expected));
        response.results[1].result = None;
        assert_eq!(found(&response), Err(FrameError::Malformed), "no result");
        response.results[0].sequence = 0;
        assert_eq!(found(&response), Err(FrameError::Malformed), "no number");
    }
}
