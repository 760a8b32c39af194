//! Values that have a few forms only: addresses that can be turned off, and words from a closed set.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// An address to listen on, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// No listener.
    Off,
    /// A listener at this address; port 0 takes a free one.
    At(SocketAddr),
}

impl ListenAddress {
    /// The address, where there is one.
    pub fn socket_address(self) -> Option<SocketAddr> {
        match self {
            Self::Off => None,
            Self::At(address) => Some(address),
        }
    }
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "off" {
            return Ok(Self::Off);
        }
        text.parse().map(Self::At).map_err(|_| {
            format!("`{text}` is not an address: write for example \"127.0.0.1:8471\" or \"[::1]:8471\", or \"off\"")
        })
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => formatter.write_str("off"),
            Self::At(address) => address.fmt(formatter),
        }
    }
}

impl<'de> Deserialize<'de> for ListenAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }
}

impl Serialize for ListenAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What the queue is kept in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Backend {
    /// An SQLite file in `queue.dir`.
    Sqlite,
    /// Memory: gone with the process.
    Memory,
}

/// What the volume under the queue survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Volume {
    /// It outlives the pod.
    Persistent,
    /// It goes with the pod.
    Ephemeral,
}

/// How safe an event is before it is acknowledged, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// Held in memory.
    Memory,
    /// Written, not synced: survives the process, not a power cut.
    Buffered,
    /// Written and synced: survives a power cut.
    Fsynced,
}

/// What becomes of an identifier value that is itself a JSON string literal in quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DoubleEncoding {
    /// Refused, with the value that was meant.
    Refuse,
    /// Sent as the value that was meant.
    Unwrap,
    /// Sent as it is.
    Allow,
}

/// What becomes of an event after an attempt that upstream may have carried out although it did not say so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ambiguity {
    /// It is sent again.
    Retry,
    /// It becomes a dead letter.
    DeadLetter,
}

/// Order in which the events of a project are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// As they can.
    None,
    /// Those about one user in the order in which they were accepted.
    Identifier,
}

/// Status of an accepted event on the drop-in HTTP endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "i64", into = "i64")]
pub enum AcceptedStatus {
    /// 200, for callers that insist on what upstream documents.
    Ok,
    /// 202: taken, not delivered yet.
    Accepted,
}

impl AcceptedStatus {
    /// The status as a number.
    pub fn code(self) -> u16 {
        match self {
            Self::Ok => 200,
            Self::Accepted => 202,
        }
    }
}

impl TryFrom<i64> for AcceptedStatus {
    type Error = String;

    fn try_from(code: i64) -> Result<Self, Self::Error> {
        match code {
            200 => Ok(Self::Ok),
            202 => Ok(Self::Accepted),
            _ => Err(format!("`{code}` is neither 200 nor 202")),
        }
    }
}

impl From<AcceptedStatus> for i64 {
    fn from(status: AcceptedStatus) -> Self {
        status.code().into()
    }
}

/// Form of the log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Address of a proxy. May hold a password, so that neither `Debug` nor serialization shows its user part.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct ProxyUrl(String);

impl ProxyUrl {
    /// The whole address, user name and password included.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The address without user name and password.
    pub fn redacted(&self) -> String {
        match (self.0.split_once("://"), self.0.rsplit_once('@')) {
            (Some((scheme, _)), Some((_, host))) => format!("{scheme}://…@{host}"),
            (None, Some((_, host))) => format!("…@{host}"),
            (_, None) => self.0.clone(),
        }
    }
}

impl fmt::Debug for ProxyUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ProxyUrl({})", self.redacted())
    }
}

impl Serialize for ProxyUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.redacted())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_socket_address_or_off() {
        assert_eq!("off".parse(), Ok(ListenAddress::Off));
        assert_eq!(
            "[::1]:0".parse(),
            Ok(ListenAddress::At(SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 0))))
        );
        for text in ["", "8471", "localhost", "127.0.0.1", "OFF"] {
            let error = text.parse::<ListenAddress>().unwrap_err();
            assert!(error.contains("\"127.0.0.1:8471\""), "{text}: {error}");
        }
    }

    #[test]
    fn a_proxy_never_shows_its_password() {
        let proxy = ProxyUrl("http://user:canary@proxy.example:3128".to_owned());
        assert_eq!(proxy.redacted(), "http://…@proxy.example:3128");
        assert!(!format!("{proxy:?}").contains("canary"));
        assert_eq!(
            ProxyUrl("http://proxy.example:3128".to_owned()).redacted(),
            "http://proxy.example:3128"
        );
    }
}
