//! Where events go: base URL, project, key.
//!
//! # Invariants
//! 1. A key leaves in plaintext only to a loopback address, or where the operator has said so.
//! 2. The URL called is the one configured: dot segments, user names, queries and fragments are refused, not dropped.

use std::fmt;

use embeddables_core::ProjectId;
use url::{Host, Url};

use crate::api_key::ApiKey;

/// The documented base of the API.
const DEFAULT_BASE: &str = "https://api.embeddables.com";

/// Base URL of the API, to which paths are appended. A path prefix and slashes at the end are fine.
#[derive(Clone, PartialEq, Eq)]
pub struct BaseUrl(Url);

/// Why a text is no base URL. Never shows the text, which may hold a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BaseUrlError {
    /// It is no absolute URL with a host.
    #[error("the base URL is not an absolute URL such as https://api.embeddables.com")]
    Malformed,
    /// Its scheme is neither `https` nor `http`.
    #[error("the base URL's scheme must be https")]
    Scheme,
    /// It is `http` to another host than a loopback address.
    #[error(
        "the base URL is http to another host than a loopback address, which would send the key in plaintext; use https"
    )]
    Plaintext,
    /// It holds a user name or a password.
    #[error("the base URL holds a user name or a password; the API key is configured apart from it")]
    UserInfo,
    /// It has a query or a fragment.
    #[error("the base URL has a query or a fragment, which would end up in front of the path")]
    QueryOrFragment,
    /// Its path has a `.` or `..` segment, an empty one, a backslash, white space or a control character.
    #[error("the base URL's path has a dot segment, an empty segment, a backslash or white space")]
    Path,
}

impl BaseUrl {
    /// Takes an `https` URL, or an `http` URL of a loopback address.
    ///
    /// # Errors
    /// Where it is something else; the error does not show it.
    pub fn parse(text: &str) -> Result<Self, BaseUrlError> {
        Self::parse_with(text, false)
    }

    /// Like [`BaseUrl::parse`]; takes `http` of any host where `allow_plaintext`, as an operator may say.
    ///
    /// # Errors
    /// Where it is something else; the error does not show it.
    pub fn parse_with(text: &str, allow_plaintext: bool) -> Result<Self, BaseUrlError> {
        // The parser drops white space, dot segments and backslashes without a word: look before.
        if text.contains(|character: char| {
            character.is_whitespace() || character.is_control() || character == '\\'
        }) {
            return Err(BaseUrlError::Path);
        }
        let url = Url::parse(text).map_err(|_| BaseUrlError::Malformed)?;
        let is_https = match url.scheme() {
            "https" => true,
            "http" => false,
            _ => return Err(BaseUrlError::Scheme),
        };
        // `https:host` and `https:///host` read as `https://host` elsewhere; here they are mistakes.
        let after_scheme = text.split_once("://").ok_or(BaseUrlError::Malformed)?.1;
        if after_scheme.starts_with('/') {
            return Err(BaseUrlError::Malformed);
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(BaseUrlError::QueryOrFragment);
        }
        let (authority, path) = after_scheme.split_once('/').unwrap_or((after_scheme, ""));
        if authority.contains('@') || !url.username().is_empty() || url.password().is_some() {
            return Err(BaseUrlError::UserInfo);
        }
        if path
            .trim_end_matches('/')
            .split('/')
            .enumerate()
            .any(|(index, segment)| is_hostile(index, segment))
        {
            return Err(BaseUrlError::Path);
        }
        if !is_https && !allow_plaintext && !is_loopback(&url) {
            return Err(BaseUrlError::Plaintext);
        }
        Ok(Self(url))
    }

    /// Returns the URL.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Returns whether the connection is encrypted.
    pub fn is_https(&self) -> bool {
        self.0.scheme() == "https"
    }

    /// The URL with path segments appended, none of which needs escaping.
    fn join(&self, segments: &[&str]) -> Url {
        let mut url = self.0.clone();
        let mut path = url.path().trim_end_matches('/').to_owned();
        for segment in segments {
            path.push('/');
            path.push_str(segment);
        }
        url.set_path(&path);
        url
    }
}

impl Default for BaseUrl {
    /// `https://api.embeddables.com`.
    fn default() -> Self {
        #[expect(clippy::expect_used, reason = "a constant; a test parses it")]
        let url = Self::parse(DEFAULT_BASE).expect("the documented base is a base");
        url
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl fmt::Debug for BaseUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), formatter)
    }
}

impl std::str::FromStr for BaseUrl {
    type Err = BaseUrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

/// Whether a segment is one that a URL parser would drop or that a server may read as another path.
fn is_hostile(index: usize, segment: &str) -> bool {
    let plain = segment.to_ascii_lowercase().replace("%2e", ".");
    plain == "." || plain == ".." || (segment.is_empty() && index > 0)
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// One project at one base URL with its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    base_url: BaseUrl,
    project_id: ProjectId,
    api_key: ApiKey,
    events_url: Url,
}

impl Endpoint {
    /// Puts them together.
    pub fn new(base_url: BaseUrl, project_id: ProjectId, api_key: ApiKey) -> Self {
        let events_url = base_url.join(&["projects", project_id.as_str(), "events"]);
        Self {
            base_url,
            project_id,
            api_key,
            events_url,
        }
    }

    /// Returns the base URL.
    pub fn base_url(&self) -> &BaseUrl {
        &self.base_url
    }

    /// Returns the project, whose events alone are sent here.
    pub fn project_id(&self) -> &ProjectId {
        &self.project_id
    }

    /// Returns the key.
    pub fn api_key(&self) -> &ApiKey {
        &self.api_key
    }

    /// Returns the same endpoint with another key.
    #[must_use]
    pub fn with_api_key(&self, api_key: ApiKey) -> Self {
        Self {
            api_key,
            ..self.clone()
        }
    }

    /// Returns the address that events are posted to.
    pub fn events_url(&self) -> &Url {
        &self.events_url
    }

    pub(crate) fn entries_url(&self) -> Url {
        let mut url = self
            .base_url
            .join(&["projects", self.project_id.as_str(), "entries"]);
        url.set_query(Some("limit=1"));
        url
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(base: &str) -> Endpoint {
        let project = ProjectId::parse("pr_1").unwrap();
        Endpoint::new(
            BaseUrl::parse(base).unwrap(),
            project,
            ApiKey::parse("rk_1").unwrap(),
        )
    }

    #[test]
    fn paths_are_appended_to_prefixes_and_slashes() {
        let cases = [
            (
                "https://api.embeddables.com",
                "https://api.embeddables.com/projects/pr_1/events",
            ),
            ("https://a.example/", "https://a.example/projects/pr_1/events"),
            (
                "https://a.example/v1",
                "https://a.example/v1/projects/pr_1/events",
            ),
            (
                "https://a.example:8443/v1/x//",
                "https://a.example:8443/v1/x/projects/pr_1/events",
            ),
            (
                "http://127.0.0.1:8080/v1/",
                "http://127.0.0.1:8080/v1/projects/pr_1/events",
            ),
            ("http://[::1]:8080", "http://[::1]:8080/projects/pr_1/events"),
            ("http://localhost", "http://localhost/projects/pr_1/events"),
        ];
        for (base, events) in cases {
            assert_eq!(endpoint(base).events_url().as_str(), events);
        }
        assert_eq!(
            endpoint("https://a.example/v1/").entries_url().as_str(),
            "https://a.example/v1/projects/pr_1/entries?limit=1"
        );
        assert_eq!(BaseUrl::default().as_str(), "https://api.embeddables.com/");
    }

    #[test]
    fn what_would_be_sent_elsewhere_or_in_plaintext_is_refused() {
        let cases = [
            ("", BaseUrlError::Malformed),
            ("api.embeddables.com", BaseUrlError::Malformed),
            ("https:", BaseUrlError::Malformed),
            ("https:a.example", BaseUrlError::Malformed),
            ("https:///a.example", BaseUrlError::Malformed),
            ("ftp://a.example", BaseUrlError::Scheme),
            ("unix:///run/x", BaseUrlError::Scheme),
            ("http://a.example", BaseUrlError::Plaintext),
            ("http://127.0.0.1.example", BaseUrlError::Plaintext),
            ("http://10.0.0.1", BaseUrlError::Plaintext),
            ("https://user@a.example", BaseUrlError::UserInfo),
            ("https://:pw@a.example", BaseUrlError::UserInfo),
            ("https://@a.example", BaseUrlError::UserInfo),
            ("https://a.example?x=1", BaseUrlError::QueryOrFragment),
            ("https://a.example/v1?", BaseUrlError::QueryOrFragment),
            ("https://a.example/#x", BaseUrlError::QueryOrFragment),
            ("https://a.example/v1/../v2", BaseUrlError::Path),
            ("https://a.example/./v1", BaseUrlError::Path),
            ("https://a.example/%2E%2e/v1", BaseUrlError::Path),
            ("https://a.example/v1//v2", BaseUrlError::Path),
            ("https://a.example/v1\\v2", BaseUrlError::Path),
            ("https://a.example/v1\n", BaseUrlError::Path),
            (" https://a.example", BaseUrlError::Path),
        ];
        for (text, error) in cases {
            assert_eq!(BaseUrl::parse(text), Err(error), "{text:?}");
        }
        assert!(BaseUrl::parse_with("http://a.example", true).is_ok());
        assert!(BaseUrl::parse_with("ftp://a.example", true).is_err());
    }
}
