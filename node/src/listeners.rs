//! Binds the public ports at start, and begins to accept once the node is ready. `boot` provides the routes.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::health::Health;
use conclave_base::runtime::Runtime;
use conclave_config::{self, Config};
use conclave_http::{
    BoundListener, Dispatcher, Drained, HttpError, HttpListener, ServerTls, TlsFiles, cidr::Cidr,
};

/// The longest time for which a starting node refuses connections. A restart takes less, and supervisors must see that
/// a node that waits for its peers is running.
const CLOSED_AT_MOST: Duration = Duration::from_secs(3);

/// The ports for users and proxies, one of them with TLS if that is configured.
pub(crate) struct Listeners {
    plain: BoundListener,
    tls: Option<(BoundListener, ServerTls)>,
    proxies: Vec<Cidr>,
}

impl Listeners {
    /// Binds the ports without accepting yet. A port that is in use is an error now, before anything else is begun.
    ///
    /// # Errors
    /// [`HttpError`].
    pub(crate) async fn bind(config: &Config, runtime: &Runtime) -> Result<Self, HttpError> {
        let plain = BoundListener::bind("http.listen", config.http.listen.0).await?;
        let proxies = config.http.trusted_proxies.clone();
        let Some(tls) = &config.http.tls else { return Ok(Self { plain, tls: None, proxies }) };
        let asks = tls.client_certificates == conclave_config::ClientCertificates::Request;
        let files = TlsFiles {
            certificate: &tls.certificate_file,
            key: &tls.key_file,
            clients: asks.then_some(tls.client_ca_file.as_deref()),
        };
        let server = ServerTls::load(&files, Arc::clone(&runtime.clock))?;
        let tls_listener = BoundListener::bind("http.tls.listen", tls.listen.0).await?;
        Ok(Self { plain, tls: Some((tls_listener, server)), proxies })
    }

    /// Begins to accept once this node can serve, and reports a failure through `failed`. Until then connections are
    /// refused, so that proxies fail over; not every proxy does on a 503. A node that is not ready in time accepts
    /// anyway, to report why.
    pub(crate) async fn serve_when_ready(
        self,
        health: Health,
        dispatcher: Dispatcher,
        close: CancellationToken,
        failed: oneshot::Sender<HttpError>,
    ) {
        tokio::select! {
            () = health.until_ready() => {}
            () = tokio::time::sleep(CLOSED_AT_MOST) => {}
            () = close.cancelled() => return,
        }
        let listeners = match self.open() {
            Ok(listeners) => listeners,
            // If the node is ending already, the receiver is gone.
            Err(error) => return drop(failed.send(error)),
        };
        let serving = listeners.into_iter().map(|listener| listener.serve(dispatcher.clone(), close.clone()));
        for drained in join_all(serving).await {
            if let Drained::Cut(connections) = drained {
                tracing::warn!(connections, "some connections were cut off after the drain");
            }
        }
    }

    fn open(self) -> Result<Vec<HttpListener>, HttpError> {
        let mut listeners = vec![self.plain.open()?];
        if let Some((listener, server)) = self.tls {
            listeners.push(listener.open()?.with_tls(server));
        }
        Ok(listeners.into_iter().map(|listener| listener.with_proxies(&self.proxies)).collect())
    }
}
