//! Checks what no type can: ranges, and keys that contradict each other. Names the full key each time.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bytesize::ByteSize;
use embeddables_client::{BaseUrl, BaseUrlError};
use tracing_subscriber::EnvFilter;

use super::error::Problem;
use super::provenance::Provenance;
use super::settings::{
    Config, DeliveryConfig, GrpcConfig, ListenConfig, LogConfig, QueueConfig, UpstreamConfig,
};
use super::units::{format_duration, format_size};
use super::values::{Backend, Durability};
use super::{LONGEST_UNIX_PATH_BYTES, MOST_LINGER};

/// Least room for a queue that is of any use.
const LEAST_QUEUE: ByteSize = ByteSize::kib(64);
/// Bounds of `grpc.max_message_size`.
const LEAST_MESSAGE: ByteSize = ByteSize::kib(1);
const MOST_MESSAGE: ByteSize = ByteSize::gib(1);
/// Longest key that an event's id is stamped under.
const LONGEST_STAMP_KEY_BYTES: usize = 128;

/// Collects problems with keys of the configuration.
pub(super) struct Checker<'a> {
    pub(super) provenance: &'a Provenance,
    pub(super) problems: Vec<Problem>,
}

impl Checker<'_> {
    /// Notes a problem with a key's value, with where it came from.
    pub(super) fn problem(&mut self, key: &str, message: impl AsRef<str>) {
        self.problems
            .push(Problem::new(key, Some(self.provenance.of(key).clone()), message));
    }

    fn require(&mut self, is_met: bool, key: &str, message: impl AsRef<str>) {
        if !is_met {
            self.problem(key, message);
        }
    }
}

/// Checks everything but the projects.
pub(super) fn validate(config: &Config, checker: &mut Checker<'_>) {
    check_listen(&config.listen, checker);
    check_queue(&config.queue, checker);
    check_delivery(&config.delivery, checker);
    check_grpc(&config.grpc, checker);
    check_upstream(&config.upstream, checker);
    check_log(&config.log, checker);
}

fn check_listen(listen: &ListenConfig, checker: &mut Checker<'_>) {
    let grpc = listen.grpc.socket_address();
    let http = listen.http.socket_address();
    let ops = listen.ops.socket_address();
    let admin = listen.admin.socket_address();
    checker.require(
        grpc.is_some() || listen.grpc_unix.is_some(),
        "listen.grpc",
        "is off and `listen.grpc_unix` is not set: no caller could reach the sidecar",
    );
    for (key, address) in [
        ("listen.grpc", grpc),
        ("listen.http", http),
        ("listen.admin", admin),
    ] {
        if let Some(address) = address
            && !address.ip().is_loopback()
            && !listen.insecure_allow_remote
        {
            let message = format!(
                "`{address}` can be reached from other machines in plaintext: listen on 127.0.0.1, or set \
                 `listen.insecure_allow_remote` to true if the network is trusted"
            );
            checker.problem(key, message);
        }
    }
    let taken = [
        ("listen.grpc", grpc),
        ("listen.http", http),
        ("listen.ops", ops),
        ("listen.admin", admin),
    ];
    for (index, (key, address)) in taken.iter().enumerate() {
        for (other_key, other) in &taken[..index] {
            if let (Some(address), Some(other)) = (address, other)
                && collide(*address, *other)
            {
                checker.problem(key, format!("`{address}` is taken by `{other_key}`"));
            }
        }
    }
    let paths = [
        ("listen.grpc_unix", &listen.grpc_unix),
        ("listen.admin_unix", &listen.admin_unix),
    ];
    for (key, path) in paths {
        if let Some(path) = path {
            check_unix_path(key, path, checker);
        }
    }
    checker.require(
        listen.admin_unix.is_none() || listen.admin_unix != listen.grpc_unix,
        "listen.admin_unix",
        "is taken by `listen.grpc_unix`",
    );
}

fn collide(left: SocketAddr, right: SocketAddr) -> bool {
    let is_same_ip = left.ip() == right.ip() || left.ip().is_unspecified() || right.ip().is_unspecified();
    left.port() != 0 && left.port() == right.port() && is_same_ip
}

fn check_unix_path(key: &str, path: &Path, checker: &mut Checker<'_>) {
    let length = path.as_os_str().len();
    if path.starts_with("unix:") || path.to_string_lossy().starts_with("unix:") {
        checker.problem(key, "is a path: leave `unix:` away");
    } else if length == 0 || length > LONGEST_UNIX_PATH_BYTES {
        let message = format!("has {length} bytes; the path of a socket has 1 to {LONGEST_UNIX_PATH_BYTES}");
        checker.problem(key, message);
    }
}

fn check_queue(queue: &QueueConfig, checker: &mut Checker<'_>) {
    let is_named = !queue.dir.as_os_str().is_empty();
    checker.require(
        is_named,
        "queue.dir",
        "is empty: name a directory, `.` for the working directory",
    );
    checker.require(
        queue.max_bytes >= LEAST_QUEUE,
        "queue.max_bytes",
        format!(
            "is {}, less than {}",
            format_size(queue.max_bytes),
            format_size(LEAST_QUEUE)
        ),
    );
    check_linger("queue.linger", queue.linger, checker);
    let shares = [
        ("queue.project_share_percent", queue.project_share_percent),
        ("queue.dead_letter_share_percent", queue.dead_letter_share_percent),
    ];
    for (key, percent) in shares {
        checker.require(
            percent > 0,
            key,
            "is 0: no event could be accepted; write 1 to 100",
        );
    }
    if queue.backend == Backend::Memory && queue.durability.is_some_and(|level| level > Durability::Memory) {
        let message = "cannot be kept by `queue.backend` memory: set it to memory, or the backend to sqlite";
        checker.problem("queue.durability", message);
    }
}

fn check_linger(key: &str, linger: Duration, checker: &mut Checker<'_>) {
    let (given, most) = (format_duration(linger), format_duration(MOST_LINGER));
    checker.require(
        linger <= MOST_LINGER,
        key,
        format!("is {given}, more than {most}"),
    );
}

fn check_delivery(delivery: &DeliveryConfig, checker: &mut Checker<'_>) {
    let durations = [
        ("delivery.attempt_timeout", delivery.attempt_timeout),
        ("delivery.connect_timeout", delivery.connect_timeout),
        ("delivery.max_age", delivery.max_age),
        ("delivery.retry_min", delivery.retry_min),
        ("delivery.retry_max", delivery.retry_max),
        ("delivery.probe_min", delivery.probe_min),
        ("delivery.probe_max", delivery.probe_max),
    ];
    for (key, duration) in durations {
        checker.require(!duration.is_zero(), key, "is 0s: it must be longer");
    }
    for (name, least, most) in [
        ("retry", delivery.retry_min, delivery.retry_max),
        ("probe", delivery.probe_min, delivery.probe_max),
    ] {
        let message = format!(
            "is {}, more than `delivery.{name}_max`, which is {}",
            format_duration(least),
            format_duration(most)
        );
        checker.require(least <= most, &format!("delivery.{name}_min"), message);
    }
    check_linger("delivery.linger", delivery.linger, checker);
    if let Some(key) = &delivery.stamp_event_id {
        let is_usable = (1..=LONGEST_STAMP_KEY_BYTES).contains(&key.len());
        let message = format!(
            "has {} bytes; the key of a property has 1 to {LONGEST_STAMP_KEY_BYTES} here",
            key.len()
        );
        checker.require(is_usable, "delivery.stamp_event_id", message);
    }
    let is_usable =
        !delivery.entry_schedule.is_empty() && delivery.entry_schedule.iter().all(|wait| !wait.is_zero());
    checker.require(
        is_usable,
        "delivery.entry_schedule",
        "needs at least one wait, and none of 0s",
    );
}

fn check_grpc(grpc: &GrpcConfig, checker: &mut Checker<'_>) {
    let message = format!(
        "is {}, not between {} and {}",
        format_size(grpc.max_message_size),
        format_size(LEAST_MESSAGE),
        format_size(MOST_MESSAGE)
    );
    let is_usable = (LEAST_MESSAGE..=MOST_MESSAGE).contains(&grpc.max_message_size);
    checker.require(is_usable, "grpc.max_message_size", message);
}

fn check_upstream(upstream: &UpstreamConfig, checker: &mut Checker<'_>) {
    check_base_url("upstream.url", &upstream.url, upstream.allow_plaintext, checker);
    if let Some(path) = &upstream.ca_file
        && let Err(error) = std::fs::File::open(path)
    {
        checker.problem(
            "upstream.ca_file",
            format!("`{}` cannot be read: {error}", path.display()),
        );
    }
    if let Some(proxy) = &upstream.proxy {
        let uri = proxy.expose().parse::<http::Uri>();
        let is_usable =
            uri.is_ok_and(|uri| uri.host().is_some() && matches!(uri.scheme_str(), Some("http" | "https")));
        checker.require(
            is_usable,
            "upstream.proxy",
            "is not an address such as `http://proxy.internal:3128`",
        );
    }
}

/// Reads a base address; notes what is wrong with it.
pub(super) fn check_base_url(
    key: &str,
    text: &str,
    allow_plaintext: bool,
    checker: &mut Checker<'_>,
) -> Option<BaseUrl> {
    match BaseUrl::parse_with(text, allow_plaintext) {
        Ok(url) => Some(url),
        Err(error @ BaseUrlError::Plaintext) => {
            checker.problem(key, format!("{error}, or set `upstream.allow_plaintext` to true"));
            None
        }
        Err(error) => {
            checker.problem(key, error.to_string());
            None
        }
    }
}

fn check_log(log: &LogConfig, checker: &mut Checker<'_>) {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    // A word that is no level is a valid directive (a target, at every level): a typing error would go unseen.
    let typing_error = log.level.split(',').map(str::trim).find(|directive| {
        let is_level = LEVELS.iter().any(|level| directive.eq_ignore_ascii_case(level));
        !is_level && !directive.contains(['=', '['])
    });
    if let Some(directive) = typing_error {
        let message = format!(
            "`{directive}` is no level ({}) and no `target=level`",
            LEVELS.join(", ")
        );
        checker.problem("log.level", message);
    } else if let Err(error) = EnvFilter::try_new(&log.level) {
        checker.problem("log.level", format!("cannot be read: {error}"));
    }
}
