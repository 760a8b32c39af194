//! A stream acknowledges each event by its number. Whatever it acknowledged before it broke is delivered.

use std::collections::BTreeMap;
use std::time::Duration;

use e2e::calls::{self, Client};
use e2e::event::TestEvent;
use e2e::proxy::{Cut, Direction, Proxy};
use e2e::random::Seeded;
use e2e::stage::Stage;
use e2e::wait;
use embeddables_proto::events::v1::publish_result::Result as Taken;
use embeddables_proto::events::v1::{Event, StreamEventsRequest, StreamEventsResponse};
use rand::RngExt as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};

/// Connections that are cut, each at another byte.
const CUT_ROUNDS: usize = 16;

/// Events of a stream that is cut.
const EVENTS: usize = 60;

fn message(sequence: usize, event: Event) -> StreamEventsRequest {
    let sequence = i64::try_from(sequence).expect("few events");
    StreamEventsRequest {
        sequence,
        event: Some(event),
        options: None,
    }
}

/// Sends all messages, ends the sending side if `end`, and hands back the answers and what keeps it open.
async fn stream(
    client: &Client,
    messages: Vec<StreamEventsRequest>,
) -> (
    mpsc::Sender<StreamEventsRequest>,
    Result<Streaming<StreamEventsResponse>, tonic::Status>,
) {
    let (sender, receiver) = mpsc::channel(messages.len().max(1));
    for message in messages {
        sender
            .try_send(message)
            .expect("the channel is as large as the messages");
    }
    let answers = client.clone().stream_events(ReceiverStream::new(receiver)).await;
    (sender, answers.map(tonic::Response::into_inner))
}

/// Reads answers until `enough` acknowledgements came or the stream ended; gives what was acknowledged, by number.
async fn acknowledgements(
    answers: &mut Streaming<StreamEventsResponse>,
    enough: usize,
) -> BTreeMap<usize, Taken> {
    let mut results = BTreeMap::new();
    while results.len() < enough {
        let answer = wait::within("an acknowledgement", wait::SOON, answers.message()).await;
        let Ok(Some(answer)) = answer else { break };
        for result in answer.results {
            let sequence = usize::try_from(result.sequence).expect("a number that was sent");
            let taken = result
                .result
                .and_then(|result| result.result)
                .expect("a result says what became of the event");
            assert!(
                results.insert(sequence, taken).is_none(),
                "{sequence} was answered twice"
            );
        }
    }
    results
}

#[tokio::test]
async fn every_event_is_acknowledged_once_and_a_bad_one_does_not_end_the_stream() {
    let stage = Stage::new().await;
    let event = |index: usize| TestEvent::new(format!("stream-{index}"));
    let bad = |index: usize| index % 10 == 3;
    let messages = (0..200).map(|index| {
        let event = event(index).to_proto();
        message(
            index,
            if bad(index) {
                Event {
                    name: "Not Snake".to_owned(),
                    ..event
                }
            } else {
                event
            },
        )
    });
    let (sender, answers) = stream(&stage.client(), messages.collect()).await;
    let mut answers = answers.expect("the stream opens");
    // The end of the sending side ends the stream once all are acknowledged.
    drop(sender);
    let results = acknowledgements(&mut answers, usize::MAX).await;
    assert_eq!(results.len(), 200);
    for (index, taken) in &results {
        match taken {
            Taken::Status(status) => assert_eq!(status.event_id, event(*index).id),
            Taken::Refusal(refusal) => {
                assert!(bad(*index), "{index} is good: {refusal:?}");
                assert_eq!(
                    (Code::from(refusal.code), &*refusal.reason),
                    (Code::InvalidArgument, "INVALID_EVENT")
                );
                assert_eq!(refusal.violations[0].field, "event.name");
            }
        }
    }
    let good: Vec<_> = (0..200).filter(|index| !bad(*index)).map(event).collect();
    stage.await_delivered(&good, wait::SOON).await;
    assert_eq!(stage.drain(wait::SOON).await.accepted, 180.0);
}

#[tokio::test]
async fn what_was_acknowledged_before_the_caller_dropped_the_stream_is_delivered() {
    let stage = Stage::new().await;
    let mut seeded = Seeded::new();
    let mut acknowledged = Vec::new();
    for round in 0..8 {
        let event = |index: usize| TestEvent::new(format!("drop-{round}-{index}"));
        let messages = (0..EVENTS)
            .map(|index| message(index, event(index).to_proto()))
            .collect();
        let (sender, answers) = stream(&stage.client(), messages).await;
        let mut answers = answers.expect("the stream opens");
        let enough = seeded.source.random_range(1..EVENTS);
        let results = acknowledgements(&mut answers, enough).await;
        assert!(results.len() >= enough, "round {round} ended by itself");
        // Both halves at once, without a goodbye.
        drop((sender, answers));
        acknowledged.extend(results.into_keys().map(event));
    }
    stage.await_delivered(&acknowledged, wait::SOON).await;
    stage.drain(wait::SOON).await;
}

#[tokio::test]
async fn what_was_acknowledged_before_the_connection_was_cut_is_delivered() {
    let stage = Stage::new().await;
    let mut seeded = Seeded::new();
    let mut acknowledged = Vec::new();
    let mut cuts = 0;
    for round in 0..CUT_ROUNDS {
        // From within the connection's preface to within the last events.
        let cut = Cut {
            direction: if round % 2 == 0 {
                Direction::ToServer
            } else {
                Direction::ToClient
            },
            after_bytes: seeded
                .source
                .random_range(1..if round % 2 == 0 { 5_000 } else { 2_000 }),
            reset: seeded.source.random_bool(0.5),
        };
        let proxy = Proxy::start(stage.sidecar.ready("grpc"), cut).await;
        let event = |index: usize| TestEvent::new(format!("cut-{round}-{index}"));
        let messages = (0..EVENTS)
            .map(|index| message(index, event(index).to_proto()))
            .collect();
        let opened = wait::within(
            "the stream to open or to fail",
            wait::SOON,
            stream(&calls::tcp(proxy.address()), messages),
        )
        .await;
        if let (_sender, Ok(mut answers)) = opened {
            let results = acknowledgements(&mut answers, EVENTS).await;
            acknowledged.extend(results.into_keys().map(event));
        }
        cuts += usize::from(proxy.has_cut());
    }
    assert!(
        cuts >= CUT_ROUNDS / 2,
        "only {cuts} of {CUT_ROUNDS} connections were cut"
    );
    stage.await_delivered(&acknowledged, wait::SOON).await;
    // What was not acknowledged may have been accepted all the same; it is not lost either.
    stage.drain(wait::SOON).await;
}

#[tokio::test]
async fn after_a_cut_the_same_ids_can_be_sent_again() {
    let stage = Stage::new().await;
    let cut = Cut {
        direction: Direction::ToClient,
        after_bytes: 1_500,
        reset: true,
    };
    let proxy = Proxy::start(stage.sidecar.ready("grpc"), cut).await;
    let event = |index: usize| TestEvent::new(format!("again-{index}"));
    let messages = || {
        (0..EVENTS)
            .map(|index| message(index, event(index).to_proto()))
            .collect::<Vec<_>>()
    };
    if let (_sender, Ok(mut answers)) = stream(&calls::tcp(proxy.address()), messages()).await {
        acknowledgements(&mut answers, EVENTS).await;
    }
    let (sender, answers) = stream(&stage.client(), messages()).await;
    drop(sender);
    let results = acknowledgements(&mut answers.expect("the stream opens"), usize::MAX).await;
    assert_eq!(results.len(), EVENTS);
    let events: Vec<_> = (0..EVENTS).map(event).collect();
    stage.await_delivered(&events, wait::SOON).await;
    let books = stage.drain(wait::SOON).await;
    assert_eq!(
        books.accepted,
        f64::from(u32::try_from(EVENTS).expect("few")),
        "each id is one event"
    );
    // Nothing was ambiguous upstream, so nothing came twice.
    assert_eq!(stage.upstream.request_count(), EVENTS);
}

#[tokio::test]
async fn a_slow_reader_is_not_lost_and_does_not_hold_others_up() {
    let stage = Stage::new().await;
    let event = |index: usize| TestEvent::new(format!("slow-{index}")).with("filler", "x".repeat(2_000));
    let messages = (0..500)
        .map(|index| message(index, event(index).to_proto()))
        .collect();
    let (sender, answers) = stream(&stage.client(), messages).await;
    let mut answers = answers.expect("the stream opens");
    let other = TestEvent::new("beside-the-slow");
    let client = stage.client();
    let published = calls::publish(&client, other.to_proto());
    wait::within("another caller's event", Duration::from_secs(10), published)
        .await
        .expect("a valid event");
    drop(sender);
    assert_eq!(acknowledgements(&mut answers, usize::MAX).await.len(), 500);
    stage.drain(wait::SOON).await;
}
