//! Where clients come in: unix sockets, TCP, TLS over TCP.

use std::fmt;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use tokio::net::{TcpListener, UnixListener};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::settings::{Settings, Tls};

/// One open listener.
pub(crate) enum Listener {
    Unix {
        listener: UnixListener,
        file: SocketFile,
    },
    Tcp {
        listener: TcpListener,
        address: String,
        tls: Option<Arc<Identity>>,
        /// Whether TLS asks clients who they are.
        verified: bool,
    },
}

/// A socket in the filesystem, which goes with its listener.
pub(crate) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listener::Unix { file, .. } => write!(f, "unix://{}", file.0.display()),
            Listener::Tcp { address, .. } => write!(f, "tcp://{address}"),
        }
    }
}

/// Who the daemon is over TLS, and whom it lets in: what the files said when they were last read.
pub(crate) struct Identity {
    files: Tls,
    current: RwLock<TlsAcceptor>,
}

impl Identity {
    pub(crate) fn read(files: &Tls) -> Result<Arc<Identity>, String> {
        Ok(Arc::new(Identity {
            files: files.clone(),
            current: RwLock::new(acceptor(files)?),
        }))
    }

    /// What the files say now, for [`Identity::take`].
    pub(crate) fn again(&self) -> Result<TlsAcceptor, String> {
        acceptor(&self.files)
    }

    /// Connections that begin from now on see this.
    pub(crate) fn take(&self, next: TlsAcceptor) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = next;
    }

    fn current(&self) -> TlsAcceptor {
        self.current
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// Opens every address of the settings, or none.
pub(crate) async fn open(
    settings: &Settings,
    identity: Option<&Arc<Identity>>,
) -> Result<Vec<Listener>, String> {
    let mut listeners = Vec::new();
    for host in &settings.hosts {
        if let Some(path) = host.strip_prefix("unix://") {
            listeners.push(unix(Path::new(path), settings.group.as_deref())?);
        } else if let Some(address) = host.strip_prefix("tcp://") {
            let failed = |error| format!("cannot listen on {host}: {error}");
            let listener = TcpListener::bind(address).await.map_err(failed)?;
            let address = listener
                .local_addr()
                .map_or_else(|_| address.to_owned(), |a| a.to_string());
            let listener = Listener::Tcp {
                listener,
                address,
                tls: identity.cloned(),
                verified: settings.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some()),
            };
            if let Some(warning) = listener.warning() {
                tracing::warn!("{warning}");
            }
            listeners.push(listener);
        } else {
            return Err(format!(
                "cannot listen on {host:?}: expected unix:///path or tcp://host:port"
            ));
        }
    }
    Ok(listeners)
}

fn unix(path: &Path, group: Option<&str>) -> Result<Listener, String> {
    let failed = |error: std::io::Error| format!("cannot listen on unix://{}: {error}", path.display());
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(failed)?;
    }
    // A socket left by a daemon that was killed is in the way; one that answers belongs to a living daemon.
    if let Ok(meta) = std::fs::symlink_metadata(path) {
        if !meta.file_type().is_socket() {
            return Err(format!(
                "cannot listen on unix://{}: something else is there",
                path.display()
            ));
        }
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(format!(
                "cannot listen on unix://{}: a daemon answers there already",
                path.display()
            ));
        }
        std::fs::remove_file(path).map_err(failed)?;
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    let file = SocketFile(path.to_owned());
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).map_err(failed)?;
    if let Some(gid) = group_id(group)? {
        std::os::unix::fs::chown(path, None, Some(gid)).map_err(failed)?;
    }
    Ok(Listener::Unix { listener, file })
}

/// The socket's group: the one named, which must exist, or `berth` or `docker` where there is one.
fn group_id(named: Option<&str>) -> Result<Option<u32>, String> {
    let text = std::fs::read_to_string("/etc/group").unwrap_or_default();
    let find = |name: &str| {
        let mut lines = text.lines().map(|l| l.split(':').collect::<Vec<_>>());
        lines
            .find(|f| f.len() > 2 && f[0] == name)
            .and_then(|f| f[2].parse::<u32>().ok())
    };
    match named {
        Some("") => Ok(None),
        Some(name) => match find(name).or_else(|| name.parse().ok()) {
            Some(gid) => Ok(Some(gid)),
            None => Err(format!("the group {name:?} of --group is not in /etc/group")),
        },
        None => Ok(find("berth").or_else(|| find("docker"))),
    }
}

fn acceptor(tls: &Tls) -> Result<TlsAcceptor, String> {
    let unread = |error: ::tls::FileError| format!("cannot read {error}");
    let provider = ::tls::provider();
    let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS cannot be set up: {error}"))?;
    let builder = match &tls.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let roots = Arc::new(::tls::authorities(path).map_err(unread)?);
            let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(roots, provider)
                .build()
                .map_err(|error| format!("clients cannot be verified with {}: {error}", path.display()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let key = ::tls::private_key(&tls.key).map_err(unread)?;
    let config = builder
        .with_single_cert(::tls::certificates(&tls.cert).map_err(unread)?, key)
        .map_err(|error| format!("cannot use {}", ::tls::unusable(&tls.cert, &tls.key, error)))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

impl Listener {
    /// What its owner should know: who may use the API may do anything on the host.
    pub(crate) fn warning(&self) -> Option<String> {
        let (scheme, address, lack) = match self {
            Listener::Unix { .. } | Listener::Tcp { verified: true, .. } => return None,
            Listener::Tcp {
                address, tls: None, ..
            } => ("http", address, "encryption"),
            Listener::Tcp { address, .. } => ("https", address, "TLS client verification"),
        };
        Some(format!(
            "API is accessible on {scheme}://{address} without {lack}. \
             Anyone who reaches this address is root on this host: use --tlsverify with certificates"
        ))
    }

    /// Accepts until shutdown.
    pub(crate) async fn serve(self, server: api::Server, shutdown: CancellationToken) {
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => break,
                accepted = self.accept(&server) => accepted,
            };
            if let Err(error) = accepted {
                tracing::warn!(%error, "could not accept a connection");
                // Running out of descriptors passes; asking again at once would only burn the processor.
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }

    async fn accept(&self, server: &api::Server) -> std::io::Result<()> {
        match self {
            Listener::Unix { listener, .. } => {
                let (stream, _) = listener.accept().await?;
                server.spawn_unix(stream);
            }
            Listener::Tcp {
                listener, tls: None, ..
            } => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                server.spawn(stream);
            }
            Listener::Tcp {
                listener,
                tls: Some(identity),
                ..
            } => {
                let (stream, peer) = listener.accept().await?;
                stream.set_nodelay(true)?;
                let (acceptor, server) = (identity.current(), server.clone());
                // The handshake waits for the peer, who must not keep others waiting.
                tokio::spawn(async move {
                    match tokio::time::timeout(std::time::Duration::from_secs(10), acceptor.accept(stream))
                        .await
                    {
                        Ok(Ok(stream)) => server.spawn(stream),
                        Ok(Err(error)) => tracing::info!(%peer, %error, "TLS handshake failed"),
                        Err(_) => tracing::info!(%peer, "TLS handshake took too long"),
                    }
                });
            }
        }
        Ok(())
    }
}
