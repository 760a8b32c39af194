//! Where the sidecar is, and a connection to it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use embeddables_proto::admin::v1::admin_service_client::AdminServiceClient;
use embeddables_proto::events::v1::events_service_client::EventsServiceClient;
use tonic::transport::{Channel, Endpoint};

use super::failure::{Failure, chain};

/// Longest wait for a connection: the sidecar is on this machine or in this cluster.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest answer taken: 500 checked events with the requests that would be sent.
const LARGEST_ANSWER_BYTES: usize = 256 << 20;

/// The service for operators at the other end.
pub(super) type AdminClient = AdminServiceClient<Channel>;

/// Where a sidecar's gRPC API is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    /// Host and port.
    Tcp(String),
    /// Path of a Unix socket.
    Unix(PathBuf),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = |what: &str| {
            format!(
                "`{text}` is not the address of a sidecar: {what}; write for example 127.0.0.1:8471 or unix:/run/sidecar.sock"
            )
        };
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return match path.is_empty() {
                true => Err(wrong("it has no path")),
                false => Ok(Self::Unix(path.into())),
            };
        }
        if text.starts_with("https://") {
            return Err(wrong("the sidecar speaks plaintext"));
        }
        let authority = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
        match authority.parse::<http::uri::Authority>() {
            Ok(parsed) if parsed.port().is_none() => Err(wrong("it has no port")),
            Ok(parsed)
                if parsed.port_u16().is_none() || parsed.host().is_empty() || authority.contains('@') =>
            {
                Err(wrong("it is no host and port"))
            }
            Ok(_) => Ok(Self::Tcp(authority.to_owned())),
            Err(_) => Err(wrong("it is no host and port")),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(authority) => formatter.write_str(authority),
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
        }
    }
}

impl Address {
    /// Connects.
    ///
    /// # Errors
    /// Where nobody listens there: with what to start.
    pub(super) async fn connect(&self) -> Result<Channel, Failure> {
        let endpoint = match self {
            Self::Tcp(authority) => Endpoint::from_shared(format!("http://{authority}")),
            Self::Unix(path) => Endpoint::from_shared(format!("unix:{}", path.display())),
        };
        let endpoint = endpoint.map_err(|error| Failure::usage(format!("`{self}`: {}", chain(&error))))?;
        endpoint.connect_timeout(CONNECT_TIMEOUT).connect().await.map_err(|error| {
            Failure::new(format!(
                "no sidecar at {self}: start one with `embeddables-sidecar serve` or `dev`, or name another with --address ({})",
                chain(&error)
            ))
        })
    }

    /// Connects to the service for events.
    pub(super) async fn events_service(&self) -> Result<EventsServiceClient<Channel>, Failure> {
        let channel = self.connect().await?;
        Ok(EventsServiceClient::new(channel).max_decoding_message_size(LARGEST_ANSWER_BYTES))
    }

    /// Connects to the service for operators.
    pub(super) async fn admin_service(&self) -> Result<AdminClient, Failure> {
        let channel = self.connect().await?;
        Ok(AdminServiceClient::new(channel).max_decoding_message_size(LARGEST_ANSWER_BYTES))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_with_a_port_or_a_unix_socket() {
        let tcp = |text: &str| Ok(Address::Tcp(text.to_owned()));
        assert_eq!("127.0.0.1:8471".parse(), tcp("127.0.0.1:8471"));
        assert_eq!("http://sidecar:8471/".parse(), tcp("sidecar:8471"));
        assert_eq!("[::1]:8471".parse(), tcp("[::1]:8471"));
        assert_eq!(
            "unix:/run/s.sock".parse(),
            Ok(Address::Unix("/run/s.sock".into()))
        );
        assert_eq!(
            "unix:///run/s.sock".parse(),
            Ok(Address::Unix("/run/s.sock".into()))
        );
    }

    #[test]
    fn what_is_no_address_is_told_with_an_example() {
        for text in [
            "",
            "localhost",
            ":8471",
            "localhost:port",
            "https://x:1",
            "unix:",
            "a b:1",
            "user@host:1",
            "host:99999",
        ] {
            let error = text.parse::<Address>().unwrap_err();
            assert!(error.contains("127.0.0.1:8471"), "{text}: {error}");
        }
    }

    #[tokio::test]
    async fn where_nobody_listens_the_message_tells_what_to_start() {
        let directory = tempfile::tempdir().unwrap();
        let address = Address::Unix(directory.path().join("none.sock"));
        let failure = address.connect().await.unwrap_err();
        assert!(
            failure
                .to_string()
                .contains("`embeddables-sidecar serve` or `dev`"),
            "{failure}"
        );
        assert_eq!(failure.exit_code(), 1);
    }
}
