//! One POST over HTTP or HTTPS, in bounded time. Nothing is followed, nothing of the answer is
//! read but its status, and no environment says where to go instead.

use crate::ops::notify::Undelivered;
use std::sync::Arc;
use std::time::Duration;
use ureq::Agent;
use ureq::Error;
use ureq::tls::Certificate;
use ureq::tls::RootCerts;
use ureq::tls::TlsConfig;

/// No answer has so many bytes before its body.
const ANSWER_HEADER_BYTES_MAX: usize = 16 << 10;

/// What is sent.
pub(super) struct Post<'a> {
    pub url: &'a str,
    pub is_encrypted: bool,
    pub content_type: &'static str,
    /// Name and value of one more header.
    pub header: Option<(&'a str, &'a str)>,
    pub body: &'a [u8],
}

/// Sends, and returns the status of the answer.
pub(super) fn post(post: &Post<'_>, timeout: Duration) -> Result<u16, Undelivered> {
    let mut config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(None)
        .max_idle_connections(0)
        .max_response_header_size(ANSWER_HEADER_BYTES_MAX)
        .user_agent(concat!("statekeep/", env!("CARGO_PKG_VERSION")))
        .timeout_global(Some(timeout));
    if post.is_encrypted {
        config = config.tls_config(tls()?);
    }
    let agent: Agent = config.build().into();
    let mut request = agent.post(post.url).content_type(post.content_type);
    if let Some((name, value)) = post.header {
        request = request.header(name, value);
    }
    match request.send(post.body) {
        Ok(answer) => Ok(answer.status().as_u16()),
        Err(error) => Err(undelivered(error)),
    }
}

/// Believes what this machine believes.
fn tls() -> Result<TlsConfig, Undelivered> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        return Err(Undelivered::Untrusted(
            "this machine has no certificates of authorities".to_string(),
        ));
    }
    let certificates = found.certs.iter();
    let certificates = certificates.map(|der| Certificate::from_der(der).to_owned());
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    Ok(TlsConfig::builder()
        .root_certs(RootCerts::Specific(Arc::new(certificates.collect())))
        .unversioned_rustls_crypto_provider(Arc::new(provider))
        .build())
}

/// Says what went wrong without any part of the address: of the errors that may carry one, only
/// the kind is told.
fn undelivered(error: Error) -> Undelivered {
    match error {
        Error::Timeout(_) => Undelivered::Late,
        Error::HostNotFound => Undelivered::Unreached("its host is not known".to_string()),
        Error::Rustls(error) => Undelivered::Untrusted(error.to_string()),
        Error::Tls(what) => Undelivered::Untrusted(what.to_string()),
        Error::Io(error) => {
            let inner = error.get_ref();
            match inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
                Some(inner) => Undelivered::Untrusted(inner.to_string()),
                None => Undelivered::Unreached(error.kind().to_string()),
            }
        }
        Error::ConnectionFailed => Undelivered::Unreached("no connection".to_string()),
        Error::Http(_) | Error::BadUri(_) => Undelivered::Unsendable,
        _ => Undelivered::Unreached("it does not answer as a web server does".to_string()),
    }
}
