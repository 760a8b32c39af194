//! Binding: all addresses are taken before the store is opened, so that a port in use costs nothing.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use tokio::net::{TcpListener, UnixListener, UnixStream};

use crate::config::{ListenAddress, ListenConfig};

/// Mode of the Unix socket: owner and group. In a pod the group comes from `fsGroup`.
const SOCKET_MODE: u32 = 0o660;

/// Bound, not yet served.
#[derive(Debug)]
pub struct Listeners {
    /// gRPC over TCP.
    pub grpc: Option<TcpListener>,
    /// gRPC over a Unix socket.
    pub grpc_unix: Option<UnixListener>,
    /// The HTTP drop-in.
    pub http: Option<TcpListener>,
    /// Probes and metrics.
    pub ops: Option<TcpListener>,
    /// gRPC for operators over TCP.
    pub admin: Option<TcpListener>,
    /// gRPC for operators over a Unix socket.
    pub admin_unix: Option<UnixListener>,
}

/// Where the sidecar listens, with the ports that were given for port 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// gRPC over TCP.
    pub grpc: Option<SocketAddr>,
    /// gRPC over a Unix socket.
    pub grpc_unix: Option<PathBuf>,
    /// The HTTP drop-in.
    pub http: Option<SocketAddr>,
    /// Probes and metrics.
    pub ops: Option<SocketAddr>,
    /// gRPC for operators over TCP.
    pub admin: Option<SocketAddr>,
    /// gRPC for operators over a Unix socket.
    pub admin_unix: Option<PathBuf>,
}

impl Addresses {
    /// Paths of the Unix sockets.
    pub fn sockets(&self) -> impl Iterator<Item = &Path> {
        [&self.grpc_unix, &self.admin_unix]
            .into_iter()
            .filter_map(|path| path.as_deref())
    }
}

/// Why an address could not be taken.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on `{address}` ({key})")]
pub struct BindError {
    /// Key of the configuration that names it.
    pub key: &'static str,
    /// As configured.
    pub address: String,
    /// Why.
    pub source: io::Error,
}

impl Listeners {
    /// Binds every address that is configured.
    ///
    /// # Errors
    /// On the first that cannot be bound.
    pub async fn bind(listen: &ListenConfig) -> Result<Self, BindError> {
        Ok(Self {
            grpc: tcp("listen.grpc", &listen.grpc).await?,
            grpc_unix: unix("listen.grpc_unix", listen.grpc_unix.as_deref()).await?,
            http: tcp("listen.http", &listen.http).await?,
            ops: tcp("listen.ops", &listen.ops).await?,
            admin: tcp("listen.admin", &listen.admin).await?,
            admin_unix: unix("listen.admin_unix", listen.admin_unix.as_deref()).await?,
        })
    }

    /// The addresses taken.
    pub fn addresses(&self) -> Addresses {
        let address = |listener: &Option<TcpListener>| {
            listener.as_ref().and_then(|listener| listener.local_addr().ok())
        };
        let path = |listener: &Option<UnixListener>| {
            let address = listener.as_ref()?.local_addr().ok()?;
            address.as_pathname().map(Path::to_owned)
        };
        Addresses {
            grpc: address(&self.grpc),
            grpc_unix: path(&self.grpc_unix),
            http: address(&self.http),
            ops: address(&self.ops),
            admin: address(&self.admin),
            admin_unix: path(&self.admin_unix),
        }
    }
}

async fn tcp(key: &'static str, address: &ListenAddress) -> Result<Option<TcpListener>, BindError> {
    let Some(address) = address.socket_address() else {
        return Ok(None);
    };
    match TcpListener::bind(address).await {
        Ok(listener) => Ok(Some(listener)),
        Err(source) => Err(BindError {
            key,
            address: address.to_string(),
            source,
        }),
    }
}

async fn unix(key: &'static str, path: Option<&Path>) -> Result<Option<UnixListener>, BindError> {
    let Some(path) = path else {
        return Ok(None);
    };
    let bound = async {
        remove_stale(path).await?;
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(SOCKET_MODE))?;
        Ok(listener)
    };
    bound.await.map(Some).map_err(|source| BindError {
        key,
        address: path.display().to_string(),
        source,
    })
}

/// Removes the socket that a killed process left behind; one that answers, or any other file, stays.
async fn remove_stale(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "a file that is no socket is there",
            ));
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path).await {
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another process listens there",
        )),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_socket_of_a_killed_process_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("grpc.sock");
        drop(unix("key", Some(&path)).await.expect("first"));
        assert!(path.exists(), "a dropped listener leaves its file");
        let listener = unix("key", Some(&path)).await.expect("replaced");
        assert!(unix("key", Some(&path)).await.is_err(), "one that answers stays");
        drop(listener);
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notes.txt");
        std::fs::write(&path, "keep me").unwrap();
        assert!(unix("key", Some(&path)).await.is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "keep me");
    }
}
