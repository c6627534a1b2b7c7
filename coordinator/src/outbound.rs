//! Calls to the outside by HTTP: checks ask, notifications tell. Time, size and redirects are bounded here.
//!
//! TLS trusts what the machine trusts. A redirect is not followed: whoever named an address meant it.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use sluice_common::caps;

/// Makes calls. Cheap to clone; connections are kept for a while.
#[derive(Debug, Clone)]
pub struct Outbound {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

/// Says why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The other side did not answer in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The other side could not be spoken to.
    #[error("{0}")]
    Failed(String),
    /// The answer could not be read, or is too large.
    #[error("the answer cannot be read: {0}")]
    Body(String),
}

impl Default for Outbound {
    fn default() -> Self {
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        let builder = hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(tls());
        let connector = builder.https_or_http().enable_http1().wrap_connector(connector);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .build(connector);
        Self { client }
    }
}

/// Time for which an idle connection is kept: longer than most intervals between two samples.
const IDLE: Duration = Duration::from_secs(60);

fn tls() -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    let (added, _) = roots.add_parsable_certificates(native.certs);
    if added == 0 {
        // Addresses without TLS can be called all the same.
        tracing::warn!(
            "this machine trusts no certificate authority: checks and notifications by https will fail"
        );
    }
    rustls::ClientConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .expect("the provider speaks the default versions")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

impl Outbound {
    /// Makes a call and returns the answer's status and body, of at most [`caps::OUTBOUND_ANSWER_BYTES_MAX`].
    pub async fn call(
        &self,
        request: Request<Full<Bytes>>,
        timeout: Duration,
    ) -> Result<(StatusCode, Bytes), CallError> {
        let call = async {
            let answer =
                self.client.request(request).await.map_err(|error| CallError::Failed(chain(&error)))?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), caps::OUTBOUND_ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|error| CallError::Body(chain(error.as_ref())))?;
            Ok((status, body.to_bytes()))
        };
        tokio::time::timeout(timeout, call).await.unwrap_or(Err(CallError::Timeout(timeout)))
    }
}

/// Writes an error with its causes in one line: the first alone says only that something failed.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text += &format!(": {cause}");
        next = cause.source();
    }
    text
}
