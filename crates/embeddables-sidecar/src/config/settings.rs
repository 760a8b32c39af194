//! Every key of the configuration: its type, its default and its documentation, each in one place only.
//!
//! The documentation comments below are also what `config-reference` prints: `section!` keeps them beside the field's
//! name. A test compares the `Default: …` in each with the real default.
//!
//! Absent on purpose: where values come from (`sources`), which combinations make sense (`validate`), API keys (`projects`).

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use super::section::{Field, Section, section};
use super::units::Rate;
use super::values::{
    AcceptedStatus, Ambiguity, Backend, DoubleEncoding, Durability, ListenAddress, LogFormat, Order,
    ProxyUrl, Volume,
};

section! {
    /// Where the sidecar listens. An address that others than this machine can reach is refused for `grpc`, `http` and
    /// `admin` unless `insecure_allow_remote` is set: there is no TLS yet, and events hold personal data.
    ListenConfig = "listen" {
        /// Address of the gRPC API. Port 0 takes a free one. `off` where callers use `grpc_unix` only.
        /// Default: `127.0.0.1:8471`.
        grpc: ListenAddress = loopback(8471);
        /// Path of a Unix socket that serves the gRPC API too. At most 107 bytes.
        /// Default: none. Example: `"/run/embeddables/sidecar.sock"`.
        grpc_unix: Option<PathBuf> = None;
        /// Address of the HTTP endpoint that takes the upstream's own body. `off` for none.
        /// Default: `127.0.0.1:8472`.
        http: ListenAddress = loopback(8472);
        /// Address of `/livez`, `/readyz` and `/metrics`; may be remote, it shows no event. `off` for none.
        /// Default: `127.0.0.1:8473`.
        ops: ListenAddress = loopback(8473);
        /// Address of the gRPC API for operators: lanes and dead letters. `off` for none. Default: `127.0.0.1:8474`.
        admin: ListenAddress = loopback(8474);
        /// Path of a Unix socket that serves the API for operators too. At most 107 bytes.
        /// Default: none. Example: `"/run/embeddables/admin.sock"`.
        admin_unix: Option<PathBuf> = None;
        /// Whether `grpc`, `http` and `admin` may listen in plaintext where other machines can reach them.
        /// Default: `false`.
        insecure_allow_remote: bool = false;
    }
}

section! {
    /// The durable queue between accepting an event and delivering it.
    QueueConfig = "queue" {
        /// What the queue is kept in: `sqlite`, a file in `dir`, or `memory`, which is lost with the process.
        /// Default: `sqlite`.
        backend: Backend = Backend::Sqlite;
        /// Directory of the queue, relative to the working directory; made where it is missing. One process a directory.
        /// Default: `./embeddables-data`.
        dir: PathBuf = PathBuf::from("./embeddables-data");
        /// What the volume under `dir` survives: `persistent` outlives the pod; `ephemeral` goes with it, so that a
        /// shutdown uses its whole grace to drain. Default: `persistent`.
        volume: Volume = Volume::Persistent;
        /// Most bytes of events and dead letters, each counted with an overhead of 256 bytes; the ids of settled events come
        /// on top, about 200 bytes each. Once full, new events are refused until some are settled. At least
        /// `64KiB`. Default: `1GiB`.
        #[serde(with = "super::units::size")]
        max_bytes: ByteSize = ByteSize::gib(1);
        /// Most of `max_bytes` that one project's events and dead letters may use, in percent, where more than one project is
        /// configured: beyond it only that project's new events are refused (`PROJECT_FULL`). From 1 to 100.
        /// Default: `50`.
        #[serde(with = "super::units::percent")]
        project_share_percent: u8 = 50;
        /// Most of `max_bytes` that one project's dead letters may use, in percent: beyond it that project's new events are
        /// refused (`DEAD_LETTERS_FULL`) until an operator replays some. From 1 to 100. Default: `25`.
        #[serde(with = "super::units::percent")]
        dead_letter_share_percent: u8 = 25;
        /// How safe an event is before it is acknowledged where a call asks for nothing: `memory`, `buffered` (written)
        /// or `fsynced` (written and synced). Default: none: the strongest that `backend` and
        /// the volume under `dir` offer. Example: `"buffered"`.
        durability: Option<Durability> = None;
        /// For how long after it is settled an `event_id` is known, so that a repeat is not a new event. `0s` forgets it
        /// at once. Default: `24h`.
        #[serde(with = "super::units::duration")]
        dedupe_window: Duration = Duration::from_hours(24);
        /// How many settled ids are known at most; the oldest is forgotten first, even within `dedupe_window`. `0` keeps
        /// none. Default: `1000000`.
        dedupe_ids: u32 = 1_000_000;
        /// Most events in one commit. `1` syncs for each event. Default: `512`.
        #[serde(with = "super::units::count")]
        max_batch: NonZeroU32 = count(512);
        /// Longest wait of a commit for more events to share its sync. `0s` commits at once what has gathered; at most
        /// `1s`. Default: `0s`.
        #[serde(with = "super::units::duration")]
        linger: Duration = Duration::ZERO;
    }
}

section! {
    /// How events are sent upstream and tried again.
    DeliveryConfig = "delivery" {
        /// Whether events are sent. `false` accepts and keeps them only. Default: `true`.
        enabled: bool = true;
        /// Most requests in flight for each project. Default: `256`.
        #[serde(with = "super::units::count")]
        max_in_flight: NonZeroU32 = count(256);
        /// Longest duration of one attempt, from connecting to the last byte of the answer. Default: `30s`.
        #[serde(with = "super::units::duration")]
        attempt_timeout: Duration = Duration::from_secs(30);
        /// Longest wait for a connection, TLS included; a part of `attempt_timeout`. Default: `5s`.
        #[serde(with = "super::units::duration")]
        connect_timeout: Duration = Duration::from_secs(5);
        /// Age at which an event that cannot be delivered is given up: it becomes a dead letter. Default: `7d`.
        #[serde(with = "super::units::duration")]
        max_age: Duration = Duration::from_hours(7 * 24);
        /// Upper bound of the first wait before another try; waits are random between zero and their bound, which
        /// doubles with each try. Default: `500ms`.
        #[serde(with = "super::units::duration")]
        retry_min: Duration = Duration::from_millis(500);
        /// Upper bound of every wait before another try. Default: `5m`.
        #[serde(with = "super::units::duration")]
        retry_max: Duration = Duration::from_mins(5);
        /// When an event whose user is unknown upstream (`ENTRY_NOT_FOUND`) is tried again, each time counted from the first
        /// such answer. The last try is final: after it the event becomes a dead letter. At least one.
        /// Default: `["10s", "1m", "5m", "30m", "2h", "6h", "24h"]`.
        #[serde(with = "super::units::durations")]
        entry_schedule: Vec<Duration> = [10, 60, 300, 1_800, 7_200, 21_600, 86_400].map(Duration::from_secs).to_vec();
        /// What becomes of an event after an attempt that upstream may have carried out although it did not say so: `retry` it,
        /// so that it may arrive twice, or make it a `dead_letter`, so that somebody decides. Default: `retry`.
        ambiguity: Ambiguity = Ambiguity::Retry;
        /// Order of the events of a project: `none`, or `identifier`: those about one user go out in the order in which they
        /// were accepted, one at a time. Default: `none`.
        order: Order = Order::None;
        /// Key of the props under which an event's id is sent along, so that upstream can tell repeats; at most 128 bytes. An
        /// event whose props have that key already is refused. Default: none. Example: `"event_id"`.
        stamp_event_id: Option<String> = None;
        /// First wait of a held project before one event is sent to find out whether upstream takes events again; it doubles
        /// with each that fails. Default: `5s`.
        #[serde(with = "super::units::duration")]
        probe_min: Duration = Duration::from_secs(5);
        /// Longest wait between such probes. Default: `5m`.
        #[serde(with = "super::units::duration")]
        probe_max: Duration = Duration::from_mins(5);
        /// Most requests for each project: a number a second (`s`), minute (`m`) or hour (`h`). Default: none.
        /// Example: `"200/s"`.
        rate: Option<Rate> = None;
        /// Most events that are taken from the queue at once for one project. Default: `128`.
        #[serde(with = "super::units::count")]
        max_batch: NonZeroU32 = count(128);
        /// Longest wait of a due event for others to be taken from the queue with it. `0s` takes at once what is due; at most
        /// `1s`. Default: `0s`.
        #[serde(with = "super::units::duration")]
        linger: Duration = Duration::ZERO;
        /// Part of a project's requests that is kept for newly accepted events while older ones are still waiting, in percent.
        /// `0` keeps to the order of acceptance, and so does `order = "identifier"`. Default: `20`.
        #[serde(with = "super::units::percent")]
        live_percent: u8 = 20;
    }
}

section! {
    /// What is checked before an event is accepted.
    ValidationConfig = "validation" {
        /// What becomes of an identifier value that is a JSON string literal in quotes, which upstream would never match:
        /// `refuse` it with the value that was meant, `unwrap` it, or `allow` it as it is. Default: `refuse`.
        double_encoding: DoubleEncoding = DoubleEncoding::Refuse;
    }
}

section! {
    /// Limits of the gRPC API.
    GrpcConfig = "grpc" {
        /// Largest message taken, from `1KiB` to `1GiB`. Default: `4MiB`.
        #[serde(with = "super::units::size")]
        max_message_size: ByteSize = ByteSize::mib(4);
        /// Most events in one call. Default: `10000`.
        #[serde(with = "super::units::count")]
        max_batch_events: NonZeroU32 = count(10_000);
    }
}

section! {
    /// The HTTP endpoint that takes the upstream's own body.
    HttpConfig = "http" {
        /// Status of an accepted event: `202`, or `200` for callers that insist on the status that upstream documents.
        /// Default: `202`.
        accepted_status: AcceptedStatus = AcceptedStatus::Accepted;
    }
}

section! {
    /// The Embeddables events API and the way to it.
    UpstreamConfig = "upstream" {
        /// Base address; may have a path prefix. `EMBEDDABLES_API_URL` sets it too.
        /// Default: `https://api.embeddables.com`.
        url: String = "https://api.embeddables.com".to_owned();
        /// File with the certificates (PEM) of a private authority, trusted besides the public ones. Default: none.
        /// Example: `"/etc/embeddables/ca.pem"`.
        ca_file: Option<PathBuf> = None;
        /// Proxy for requests upstream. The variables `HTTP_PROXY` and the like are not looked at. Default: none.
        /// Example: `"http://proxy.internal:3128"`.
        proxy: Option<ProxyUrl> = None;
        /// Whether an `http://` address other than this machine's may be used: the API key would be readable on the way.
        /// Default: `false`.
        allow_plaintext: bool = false;
    }
}

section! {
    /// How the sidecar ends.
    ShutdownConfig = "shutdown" {
        /// Longest wait for deliveries in flight after SIGTERM; the rest stays on disk. `0s` waits for none.
        /// Default: `25s`.
        #[serde(with = "super::units::duration")]
        drain_timeout: Duration = Duration::from_secs(25);
    }
}

section! {
    /// What is written to standard error.
    LogConfig = "log" {
        /// Form of the lines: `text` or `json`. Default: `text`.
        format: LogFormat = LogFormat::Text;
        /// Least level: `off`, `error`, `warn`, `info`, `debug` or `trace`, with exceptions such as `info,h2=warn`.
        /// Default: `info`.
        level: String = "info".to_owned();
    }
}

section! {
    /// A project that events may belong to, with its own API key. At least one is needed to serve. With
    /// `EMBEDDABLES_PROJECT_ID` and `EMBEDDABLES_API_KEY` (or `EMBEDDABLES_API_KEY_FILE`) one can be set without any file.
    /// The key itself never stands in the configuration.
    ProjectConfig = "projects.<id>" {
        /// File that holds the API key (`rk_…`), relative to the working directory. Default: none.
        /// Example: `"/run/secrets/embeddables-api-key"`.
        api_key_file: Option<PathBuf> = None;
        /// Base address for this project. Default: none: `upstream.url`. Example: `"https://api.embeddables.com"`.
        base_url: Option<String> = None;
        /// Most requests in flight for this project. Default: none: `delivery.max_in_flight`. Example: `64`.
        #[serde(with = "super::units::optional_count", skip_serializing_if = "Option::is_none")]
        max_in_flight: Option<NonZeroU32> = None;
        /// Most requests for this project in a time. Default: none: `delivery.rate`. Example: `"600/m"`.
        rate: Option<Rate> = None;
        /// What becomes of this project's events after an ambiguous attempt. Default: none: `delivery.ambiguity`.
        /// Example: `"dead_letter"`.
        ambiguity: Option<Ambiguity> = None;
        /// Order of this project's events. Default: none: `delivery.order`. Example: `"identifier"`.
        order: Option<Order> = None;
    }
}

/// The whole configuration, typed. Read by [`load`](super::load), which also checks it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where the sidecar listens.
    pub listen: ListenConfig,
    /// The durable queue.
    pub queue: QueueConfig,
    /// Sending and trying again.
    pub delivery: DeliveryConfig,
    /// Checks before acceptance.
    pub validation: ValidationConfig,
    /// Limits of the gRPC API.
    pub grpc: GrpcConfig,
    /// The drop-in HTTP endpoint.
    pub http: HttpConfig,
    /// The events API.
    pub upstream: UpstreamConfig,
    /// How the sidecar ends.
    pub shutdown: ShutdownConfig,
    /// Log lines.
    pub log: LogConfig,
    /// Projects by id, as written; [`Loaded::projects`](super::Loaded) has them with their keys.
    pub projects: BTreeMap<String, ProjectConfig>,
}

/// All sections in the order in which they are shown.
pub const SECTIONS: [Section; 10] = [
    ListenConfig::SECTION,
    QueueConfig::SECTION,
    DeliveryConfig::SECTION,
    ValidationConfig::SECTION,
    GrpcConfig::SECTION,
    HttpConfig::SECTION,
    UpstreamConfig::SECTION,
    ShutdownConfig::SECTION,
    LogConfig::SECTION,
    ProjectConfig::SECTION,
];

const fn loopback(port: u16) -> ListenAddress {
    ListenAddress::At(SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), port))
}

const fn count(number: u32) -> NonZeroU32 {
    match NonZeroU32::new(number) {
        Some(count) => count,
        None => NonZeroU32::MIN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The default that the documentation tells: the text in backticks after `Default: `, or `None` where it says none.
    fn documented_default(field: &Field) -> Option<String> {
        let doc = field.doc_lines().collect::<Vec<_>>().join(" ");
        let (_, rest) = doc
            .split_once("Default: ")
            .unwrap_or_else(|| panic!("{} tells no default", field.name));
        if rest.starts_with("none") {
            return None;
        }
        let rest = rest
            .strip_prefix('`')
            .unwrap_or_else(|| panic!("{}: no backtick", field.name));
        Some(
            rest.split_once('`')
                .unwrap_or_else(|| panic!("{}: open backtick", field.name))
                .0
                .to_owned(),
        )
    }

    fn real_default(section: &Section, field: &Field) -> Option<String> {
        let defaults = match section.name {
            "projects.<id>" => toml::Value::try_from(ProjectConfig::default()).unwrap(),
            name => toml::Value::try_from(Config::default())
                .unwrap()
                .get(name)
                .cloned()
                .unwrap(),
        };
        defaults.get(field.name).map(|value| match value {
            toml::Value::String(text) => text.clone(),
            other => other.to_string(),
        })
    }

    #[test]
    fn documented_defaults_are_the_real_ones() {
        for section in &SECTIONS {
            for field in section.fields {
                let path = format!("{}.{}", section.name, field.name);
                assert_eq!(documented_default(field), real_default(section, field), "{path}");
            }
        }
    }

    #[test]
    fn a_key_without_a_default_has_an_example() {
        for section in &SECTIONS {
            for field in section.fields {
                let has_default = documented_default(field).is_some();
                assert_ne!(
                    has_default,
                    field.example().is_some(),
                    "{}.{}",
                    section.name,
                    field.name
                );
            }
        }
    }

    #[test]
    fn every_section_of_the_struct_is_listed() {
        let listed: Vec<_> = SECTIONS
            .iter()
            .map(|section| section.name.replace(".<id>", ""))
            .collect();
        let value = toml::Value::try_from(Config::default()).unwrap();
        let mut real: Vec<_> = value.as_table().unwrap().keys().cloned().collect();
        real.sort_unstable();
        let mut sorted = listed;
        sorted.sort_unstable();
        assert_eq!(sorted, real);
    }
}
