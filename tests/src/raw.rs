//! Calls with bytes that no generated client would send.

use std::fmt;

use bytes::{Buf as _, BufMut as _, Bytes};
use http::uri::PathAndQuery;
use http::{Request, Version};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::wait;

/// Calls a unary method of the events service with these bytes as its message.
///
/// # Errors
/// As the call does.
pub async fn call(address: &str, method: &str, message: impl Into<Bytes>) -> Result<Bytes, Status> {
    call_service(
        address,
        &format!("embeddables.events.v1.EventsService/{method}"),
        message,
    )
    .await
}

/// Calls a method of any service, `package.Service/Method`, and gives the first message of its answer.
///
/// # Errors
/// As the call does.
///
/// # Panics
/// Where `address` is none.
pub async fn call_service(address: &str, method: &str, message: impl Into<Bytes>) -> Result<Bytes, Status> {
    let channel: Channel = Endpoint::from_shared(format!("http://{address}"))
        .expect("an address")
        .connect_lazy();
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready()
        .await
        .map_err(|error| Status::unavailable(error.to_string()))?;
    let path = PathAndQuery::try_from(format!("/{method}")).expect("a path");
    // A unary answer is a stream of one message, so that this serves both.
    let response = grpc
        .server_streaming(tonic::Request::new(message.into()), path, BytesCodec)
        .await?;
    let message = response.into_inner().message().await?;
    message.ok_or_else(|| Status::internal("the answer has no message"))
}

/// Posts a gRPC request whose body is exactly these bytes, frame header and all; returns the call's code and message.
///
/// # Panics
/// Where the server does not answer.
pub async fn call_unframed(address: &str, method: &str, body: impl Into<Bytes>) -> (Code, String) {
    wait::within("the answer to a raw call", wait::SOON, async {
        let stream = TcpStream::connect(address)
            .await
            .expect("the listener takes connections");
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.expect("HTTP/2 is spoken");
        let connection = tokio::spawn(connection);
        let request = Request::post(format!(
            "http://{address}/embeddables.events.v1.EventsService/{method}"
        ))
        .version(Version::HTTP_2)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(body.into()))
        .expect("a valid request");
        let response = sender.send_request(request).await.expect("an answer comes");
        let (head, body) = response.into_parts();
        let collected = body.collect().await.expect("the answer comes to its end");
        let trailers = collected.trailers().cloned().unwrap_or_default();
        connection.abort();
        let find = |name: &str| head.headers.get(name).or_else(|| trailers.get(name)).cloned();
        let code = find("grpc-status").expect("an answer says how the call went");
        let message =
            find("grpc-message").map(|message| String::from_utf8_lossy(message.as_bytes()).into_owned());
        (Code::from_bytes(code.as_bytes()), message.unwrap_or_default())
    })
    .await
}

/// Passes bytes through as they are.
#[derive(Clone, Copy, Default)]
struct BytesCodec;

impl fmt::Debug for BytesCodec {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("BytesCodec")
    }
}

impl Codec for BytesCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, target: &mut EncodeBuf<'_>) -> Result<(), Status> {
        target.put(item);
        Ok(())
    }
}

impl Decoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(source.copy_to_bytes(source.remaining())))
    }
}
