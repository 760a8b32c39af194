//! Events from the command line: one by arguments, or one a line from a file or standard input, gathered into batches.
//!
//! # Invariants
//! 1. A line that is no event is an item of its own, in its place; the others go on.
//! 2. A batch is what has arrived, at most [`BATCH_EVENTS`] and about [`BATCH_BYTES`]: a slow pipe is not waited for.
//! 3. An event that is to be published ([`Items::with_ids`]) has an id before it is first sent.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use embeddables_proto::events::v1::{Event, Identifier, StructuredPayload, event, identifier};
use prost::Message as _;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::event_line::{parse_line, parse_timestamp, parse_value, props_text};
use super::failure::Failure;

/// Most events in one call.
const BATCH_EVENTS: usize = 500;
/// Size from which on a batch is sent: below the sidecar's default limit of 4 MiB, with room for one more event.
const BATCH_BYTES: usize = 3 << 20;
/// Longest line taken; no event comes near.
const LONGEST_LINE_BYTES: u64 = 16 << 20;

/// Arguments that give events.
#[derive(Debug, Args)]
pub(super) struct EventInput {
    /// Read events from a file, `-` for standard input: one JSON object a line
    #[arg(long, value_name = "FILE", conflicts_with_all = ["event_id", "embeddable", "name", "timestamp", "key", "value", "value_json", "props", "metric", "dimension"])]
    file: Option<PathBuf>,
    /// Project of the event; in a file, of events that name none [default: the sidecar's]
    #[arg(long, value_name = "ID")]
    project: Option<String>,
    /// Id of the event, for safe repeats [default: a new UUIDv7]
    #[arg(long, value_name = "ID")]
    event_id: Option<String>,
    /// Id of the Embeddable, for example flow_2bc58aj3a8g0d9ddd8j7jbd4g
    #[arg(long, value_name = "ID", required_unless_present = "file")]
    embeddable: Option<String>,
    /// Name of the event in snake_case
    #[arg(long, required_unless_present = "file")]
    name: Option<String>,
    /// When it happened, for example 2026-11-23T10:00:00Z [default: now]
    #[arg(long, value_name = "TIME")]
    timestamp: Option<String>,
    /// Key of the user's data that tells who it was, for example email
    #[arg(long, required_unless_present = "file")]
    key: Option<String>,
    /// Value under that key, a string
    #[arg(long, conflicts_with = "value_json", required_unless_present_any = ["file", "value_json"], allow_hyphen_values = true)]
    value: Option<String>,
    /// Value under that key in JSON: 42, 1.5, true or "text"
    #[arg(long, value_name = "JSON", allow_hyphen_values = true)]
    value_json: Option<String>,
    /// Properties, a JSON object
    #[arg(long, value_name = "JSON", conflicts_with_all = ["metric", "dimension"])]
    props: Option<String>,
    /// A number to sum, as structured payload; may be repeated
    #[arg(long, value_name = "NAME=NUMBER")]
    metric: Vec<String>,
    /// A text to group by, as structured payload; may be repeated
    #[arg(long, value_name = "NAME=TEXT")]
    dimension: Vec<String>,
}

/// An event, or the line that is none.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Item {
    /// Line in the file, from 1; none for an event by arguments.
    pub(super) line: Option<u64>,
    /// The event, or why there is none.
    pub(super) event: Result<Event, String>,
}

/// Where items come from.
pub(super) struct Items {
    receiver: mpsc::Receiver<io::Result<Item>>,
    /// One that did not fit into the batch before.
    held_back: Option<Item>,
    makes_ids: bool,
    default_project: Option<String>,
}

impl EventInput {
    /// Opens the file, or takes the one event.
    pub(super) fn open(&self) -> Result<Items, Failure> {
        let (sender, receiver) = mpsc::channel(2 * BATCH_EVENTS);
        match &self.file {
            None => {
                let event = self.single().map_err(Failure::usage)?;
                sender
                    .try_send(Ok(Item {
                        line: None,
                        event: Ok(event),
                    }))
                    .map_err(|error| Failure::new(error.to_string()))?;
            }
            Some(path) if path.as_os_str() == "-" => spawn_reader(BufReader::new(io::stdin()), sender),
            Some(path) => spawn_reader(BufReader::new(open_file(path)?), sender),
        }
        Ok(Items {
            receiver,
            held_back: None,
            makes_ids: false,
            default_project: self.project.clone(),
        })
    }

    fn single(&self) -> Result<Event, String> {
        let value = match (&self.value, &self.value_json) {
            (Some(text), _) => Some(identifier::Value::StringValue(text.clone())),
            (None, Some(json)) => Some(parse_value(json).map_err(|error| format!("--value-json: {error}"))?),
            (None, None) => None,
        };
        Ok(Event {
            event_id: self.event_id.clone().unwrap_or_default(),
            project_id: String::new(),
            embeddable_id: self.embeddable.clone().unwrap_or_default(),
            name: self.name.clone().unwrap_or_default(),
            timestamp: self.timestamp.as_deref().map(parse_timestamp).transpose()?,
            identifier: Some(Identifier {
                key: self.key.clone().unwrap_or_default(),
                value,
            }),
            properties: self.properties()?,
        })
    }

    fn properties(&self) -> Result<Option<event::Properties>, String> {
        if let Some(json) = &self.props {
            return props_text(json).map(|text| Some(event::Properties::PropsJson(text)));
        }
        if self.metric.is_empty() && self.dimension.is_empty() {
            return Ok(None);
        }
        let mut payload = StructuredPayload::default();
        for pair in &self.metric {
            let (name, number) = split_pair("--metric", pair)?;
            let number = number
                .parse()
                .map_err(|_| format!("--metric {name}: what follows `=` is no number"))?;
            payload.metrics.insert(name.to_owned(), number);
        }
        for pair in &self.dimension {
            let (name, text) = split_pair("--dimension", pair)?;
            payload.dimensions.insert(name.to_owned(), text.to_owned());
        }
        Ok(Some(event::Properties::Payload(payload)))
    }
}

fn split_pair<'a>(argument: &str, pair: &'a str) -> Result<(&'a str, &'a str), String> {
    pair.split_once('=')
        .ok_or_else(|| format!("{argument}: expected NAME=VALUE"))
}

fn open_file(path: &Path) -> Result<File, Failure> {
    File::open(path).map_err(|error| Failure::new(format!("`{}` cannot be read: {error}", path.display())))
}

impl Item {
    /// What the event is called in results: its id, else its line.
    pub(super) fn name(&self) -> String {
        match (&self.event, self.line) {
            (Ok(event), _) if !event.event_id.is_empty() => event.event_id.clone(),
            (_, Some(line)) => format!("line {line}"),
            (_, None) => "event".to_owned(),
        }
    }

    /// The line, where the name does not tell it.
    pub(super) fn line_beside_name(&self) -> Option<u64> {
        let is_named = self.event.as_ref().is_ok_and(|event| !event.event_id.is_empty());
        self.line.filter(|_| is_named)
    }
}

impl Items {
    /// Makes an id for each event that has none, so that it can be sent again safely.
    pub(super) fn with_ids(self) -> Self {
        Self {
            makes_ids: true,
            ..self
        }
    }

    /// The next batch in the order of the input; empty at its end. Waits for its first item only.
    ///
    /// # Errors
    /// Where the input cannot be read any further.
    pub(super) async fn next_batch(&mut self) -> Result<Vec<Item>, Failure> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        let mut next = match self.held_back.take() {
            Some(item) => Some(Ok(item)),
            None => self.receiver.recv().await,
        };
        while let Some(item) = next {
            let mut item =
                item.map_err(|error| Failure::new(format!("the input cannot be read: {error}")))?;
            if let Ok(event) = &mut item.event {
                self.complete(event);
                bytes += event.encoded_len();
            }
            if bytes > BATCH_BYTES && !batch.is_empty() {
                self.held_back = Some(item);
                break;
            }
            batch.push(item);
            if batch.len() == BATCH_EVENTS {
                break;
            }
            next = self.receiver.try_recv().ok();
        }
        Ok(batch)
    }

    /// Gives an event the id and the project that it lacks.
    fn complete(&self, event: &mut Event) {
        if self.makes_ids && event.event_id.is_empty() {
            event.event_id = Uuid::now_v7().to_string();
        }
        if let Some(project) = self
            .default_project
            .as_ref()
            .filter(|_| event.project_id.is_empty())
        {
            event.project_id.clone_from(project);
        }
    }
}

/// Reads lines on a thread of its own: a blocked standard input blocks nothing else, not even the end of the process.
fn spawn_reader(mut reader: impl BufRead + Send + 'static, sender: mpsc::Sender<io::Result<Item>>) {
    std::thread::spawn(move || {
        let mut number = 0;
        loop {
            number += 1;
            match read_line(&mut reader) {
                Ok(None) => return,
                Ok(Some(line)) if line.iter().all(u8::is_ascii_whitespace) => {}
                Ok(Some(line)) => {
                    let item = Item {
                        line: Some(number),
                        event: read_event(&line),
                    };
                    if sender.blocking_send(Ok(item)).is_err() {
                        return;
                    }
                }
                Err(error) => {
                    // Where nobody listens any more there is nobody to tell.
                    sender.blocking_send(Err(error)).unwrap_or_default();
                    return;
                }
            }
        }
    });
}

fn read_event(line: &[u8]) -> Result<Event, String> {
    if line.len() as u64 > LONGEST_LINE_BYTES {
        return Err("it is longer than 16 MiB".to_owned());
    }
    let text = std::str::from_utf8(line)
        .map_err(|error| format!("not valid UTF-8, byte {}", error.valid_up_to() + 1))?;
    parse_line(text)
}

/// The next line without its end; of one that is too long, only so much that this can be seen.
fn read_line(reader: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let read = reader.take(LONGEST_LINE_BYTES + 1).read_until(b'\n', &mut line)?;
    if read == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if line.len() as u64 > LONGEST_LINE_BYTES {
        reader.skip_until(b'\n')?;
    }
    Ok(Some(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All batches of an input.
    async fn batches(input: impl Into<Vec<u8>>) -> Vec<Vec<Item>> {
        let (sender, receiver) = mpsc::channel(2 * BATCH_EVENTS);
        spawn_reader(io::Cursor::new(input.into()), sender);
        let mut items = Items {
            receiver,
            held_back: None,
            makes_ids: true,
            default_project: Some("pr_1".to_owned()),
        };
        let mut batches = Vec::new();
        loop {
            let batch = items.next_batch().await.expect("can be read");
            if batch.is_empty() {
                return batches;
            }
            batches.push(batch);
        }
    }

    #[tokio::test]
    async fn a_line_that_is_no_event_keeps_its_place_and_its_number() {
        let input = b"{\"event_id\":\"a\"}\n\n  \nnot json\n\xff\xfe\n{\"event_id\":\"b\"}".to_vec();
        let items: Vec<_> = batches(input).await.into_iter().flatten().collect();
        let lines: Vec<_> = items
            .iter()
            .map(|item| (item.line.unwrap(), item.event.is_ok()))
            .collect();
        assert_eq!(lines, [(1, true), (4, false), (5, false), (6, true)]);
        assert!(items[2].event.as_ref().unwrap_err().contains("UTF-8"));
    }

    #[tokio::test]
    async fn events_get_an_id_and_the_project_that_they_lack() {
        let items: Vec<_> = batches("{}\n{\"event_id\":\"mine\",\"project_id\":\"pr_2\"}")
            .await
            .into_iter()
            .flatten()
            .collect();
        let first = items[0].event.as_ref().unwrap();
        assert_eq!(
            Uuid::parse_str(&first.event_id).map(|id| id.get_version_num()),
            Ok(7)
        );
        assert_eq!(first.project_id, "pr_1");
        let second = items[1].event.as_ref().unwrap();
        assert_eq!(
            (second.event_id.as_str(), second.project_id.as_str()),
            ("mine", "pr_2")
        );
    }

    #[tokio::test]
    async fn batches_are_bounded_in_events_and_in_bytes_and_keep_the_order() {
        let small: String = (0..1201)
            .map(|number| format!("{{\"event_id\":\"{number}\"}}\n"))
            .collect();
        let batches_of_small = batches(small).await;
        assert!(batches_of_small.iter().all(|batch| batch.len() <= BATCH_EVENTS));
        let ids: Vec<_> = batches_of_small
            .into_iter()
            .flatten()
            .map(|item| item.event.unwrap().event_id)
            .collect();
        assert_eq!(
            ids,
            (0..1201).map(|number| number.to_string()).collect::<Vec<_>>()
        );

        let big = format!("{{\"props\": {{\"x\": \"{}\"}}}}\n", "x".repeat(1 << 20)).repeat(7);
        let batches_of_big = batches(big).await;
        assert_eq!(batches_of_big.iter().map(Vec::len).sum::<usize>(), 7);
        assert!(batches_of_big.iter().all(|batch| batch.len() <= 2));
    }

    #[tokio::test]
    async fn a_line_without_end_is_refused_and_the_next_one_is_taken() {
        let mut input = vec![b'x'; usize::try_from(LONGEST_LINE_BYTES).unwrap() + 10];
        input.extend_from_slice(b"\n{}");
        let items: Vec<_> = batches(input).await.into_iter().flatten().collect();
        assert_eq!(
            items.iter().map(|item| item.event.is_ok()).collect::<Vec<_>>(),
            [false, true]
        );
    }
}
