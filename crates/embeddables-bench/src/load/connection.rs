//! One HTTP/2 connection and the calls on it: the `h2` crate and nothing above it.

use std::fmt;
use std::future::poll_fn;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::Context as _;
use bytes::{Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::body::Form;
use super::framing::{FrameError, Results, count_results, only_message};

/// Flow-control windows so large that answers never wait for them.
const WINDOW_BYTES: u32 = 16 * 1024 * 1024;

/// Where a server listens: `host:port`, or `unix:/path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// Host and port.
    Tcp(String),
    /// Path of a Unix socket.
    Unix(PathBuf),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            Some(path) => Ok(Self::Unix(path.into())),
            None if text.contains(':') => Ok(Self::Tcp(text.to_owned())),
            None => Err("neither host:port nor unix:/path".to_owned()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => formatter.write_str(address),
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
        }
    }
}

/// The method that publishes events in a form.
fn path(form: Form) -> &'static str {
    match form {
        Form::One => "/embeddables.events.v1.EventsService/PublishEvent",
        Form::Batch(_) => "/embeddables.events.v1.EventsService/PublishEvents",
        Form::Stream => "/embeddables.events.v1.EventsService/StreamEvents",
    }
}

/// Why a call took nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// The server answered with a status other than OK.
    #[error("grpc-status {0}")]
    Status(u32),
    /// The server answered something that is no answer to this call.
    #[error("{0}")]
    Answer(String),
    /// The server answered something that cannot be read.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The connection is of no more use.
    #[error("the connection failed")]
    Connection(#[from] h2::Error),
}

/// One caller: a handle on a connection that others share.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    send: SendRequest<Bytes>,
    request: Request<()>,
    form: Form,
}

impl Caller {
    /// Opens a connection; it is driven in a task of its own.
    pub(crate) async fn connect(address: &Address, form: Form) -> anyhow::Result<Self> {
        let connected = async {
            match address {
                Address::Tcp(address) => {
                    let stream = TcpStream::connect(address).await?;
                    stream.set_nodelay(true)?;
                    Self::over(stream, form).await
                }
                Address::Unix(path) => Self::over(UnixStream::connect(path).await?, form).await,
            }
        };
        connected
            .await
            .with_context(|| format!("cannot connect to {address}"))
    }

    async fn over(stream: impl AsyncRead + AsyncWrite + Unpin + 'static, form: Form) -> anyhow::Result<Self> {
        let (send, connection) = h2::client::Builder::new()
            .initial_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .enable_push(false)
            .handshake(stream)
            .await?;
        tokio::task::spawn_local(async move {
            if let Err(error) = connection.await {
                eprintln!("connection ended: {error}");
            }
        });
        Ok(Self {
            send,
            request: request(form)?,
            form,
        })
    }

    /// Begins a call: nothing is sent of it yet but its headers.
    pub(crate) async fn begin(&mut self) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        poll_fn(|context| self.send.poll_ready(context)).await?;
        self.send.send_request(self.request.clone(), false)
    }

    /// Makes one call and looks at its answer.
    pub(crate) async fn call(&mut self, body: Bytes) -> Result<Results, CallError> {
        let (response, mut stream) = self.begin().await?;
        stream.send_data(body, true)?;
        let (head, mut body) = response.await?.into_parts();
        if head.status != StatusCode::OK {
            return Err(CallError::Answer(format!("HTTP status {}", head.status)));
        }
        let message = read(&mut body).await?;
        let trailers = body.trailers().await?;
        // A server that has nothing else to say puts the status into its headers.
        match status(trailers.as_ref().unwrap_or(&head.headers)) {
            Some(0) => results(self.form, &message),
            Some(code) => Err(CallError::Status(code)),
            None => Err(CallError::Answer("no grpc-status".to_owned())),
        }
    }
}

fn request(form: Form) -> anyhow::Result<Request<()>> {
    let mut request = Request::new(());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = format!("http://localhost{}", path(form)).parse()?;
    let headers = request.headers_mut();
    headers.insert("content-type", HeaderValue::from_static("application/grpc"));
    headers.insert("te", HeaderValue::from_static("trailers"));
    Ok(request)
}

async fn read(body: &mut RecvStream) -> Result<Bytes, h2::Error> {
    let mut first: Option<Bytes> = None;
    let mut joined = BytesMut::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk?;
        body.flow_control().release_capacity(chunk.len())?;
        match first.take() {
            None if joined.is_empty() => first = Some(chunk),
            None => joined.extend_from_slice(&chunk),
            Some(start) => {
                joined.extend_from_slice(&start);
                joined.extend_from_slice(&chunk);
            }
        }
    }
    Ok(first.unwrap_or_else(|| joined.freeze()))
}

/// The gRPC status.
pub(crate) fn status(headers: &HeaderMap) -> Option<u32> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

/// What an answer with status OK says of its events: all of them, or it is none.
fn results(form: Form, body: &Bytes) -> Result<Results, CallError> {
    let message = only_message(body)?;
    let Form::Batch(size) = form else {
        return Ok(Results { taken: 1, refused: 0 });
    };
    let results = count_results(message)?;
    let answered = results.taken + results.refused;
    if answered == u64::from(size) {
        Ok(results)
    } else {
        Err(CallError::Answer(format!("{answered} results for {size} events")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_status(value: &'static str, expected: Option<u32>) {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-status", HeaderValue::from_static(value));
        assert_eq!(status(&headers), expected, "{value}");
    }

    #[test]
    fn the_status_is_a_number() {
        check_status("0", Some(0));
        check_status("14", Some(14));
        check_status("", None);
        check_status("OK", None);
        assert_eq!(status(&HeaderMap::new()), None);
    }

    #[test]
    fn an_address_is_one_of_two_kinds() {
        assert_eq!("127.0.0.1:1".parse(), Ok(Address::Tcp("127.0.0.1:1".to_owned())));
        assert_eq!("unix:/a/b".parse(), Ok(Address::Unix("/a/b".into())));
        assert!("localhost".parse::<Address>().is_err());
    }

    #[test]
    fn a_batch_must_be_answered_in_full() {
        let one_taken = Bytes::from_static(&[0, 0, 0, 0, 4, 0x0a, 2, 0x0a, 0]);
        let taken = Results { taken: 1, refused: 0 };
        assert_eq!(results(Form::Batch(1), &one_taken).expect("in full"), taken);
        let error = results(Form::Batch(2), &one_taken).expect_err("not in full");
        assert_eq!(error.to_string(), "1 results for 2 events");
        assert_eq!(results(Form::One, &one_taken).expect("in full"), taken);
        results(Form::One, &Bytes::new()).expect_err("no message");
    }
}
