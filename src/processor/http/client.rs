//! The clients: built when first needed, and kept with their connections.

use std::sync::{Once, OnceLock};
use std::time::Duration;

use reqwest::{Client, Url, redirect};

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// How long an idle connection is kept. Servers close theirs after 5 s and more; a call that meets such a close
/// fails, and its body can't be replayed, so ours are closed before.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// The clients of a processor, each built once.
///
/// They differ in two ways. Loopback is never reached through the environment's proxy. And where the URL is plain
/// `http`, the system's certificates are not loaded: they take memory and time, and a machine without any could
/// make no call at all (so a proxy that is itself reached by TLS serves `https` URLs only).
#[derive(Debug, Default)]
pub struct Clients {
    remote_tls: OnceLock<Client>,
    remote_plain: OnceLock<Client>,
    loopback_tls: OnceLock<Client>,
    loopback_plain: OnceLock<Client>,
}

impl Clients {
    /// The client for calls to this URL.
    ///
    /// # Errors
    /// The system's certificates can't be loaded.
    pub fn for_url(&self, url: &Url) -> Result<&Client, reqwest::Error> {
        let (loopback, tls) = (is_loopback(url), url.scheme() == "https");
        let place = match (loopback, tls) {
            (false, true) => &self.remote_tls,
            (false, false) => &self.remote_plain,
            (true, true) => &self.loopback_tls,
            (true, false) => &self.loopback_plain,
        };
        match place.get() {
            Some(client) => Ok(client),
            None => {
                let client = build(loopback, tls)?;
                Ok(place.get_or_init(|| client))
            }
        }
    }
}

fn build(loopback: bool, tls: bool) -> Result<Client, reqwest::Error> {
    static PROVIDER: Once = Once::new();
    // It fails when somebody installed one before, and then that one serves.
    PROVIDER.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
    let mut builder = Client::builder()
        .user_agent(concat!("ingestd/", env!("CARGO_PKG_VERSION")))
        .redirect(redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(IDLE_TIMEOUT);
    if loopback {
        builder = builder.no_proxy();
    }
    if !tls {
        builder = builder.tls_certs_only([]);
    }
    builder.build()
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    match host.parse::<std::net::IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_told_by_name_and_address() {
        for url in ["http://localhost:8080/x", "http://127.3.2.1/", "https://[::1]:1/", "http://a.localhost/"] {
            assert!(is_loopback(&Url::parse(url).unwrap()), "{url}");
        }
        for url in ["http://example.org/", "http://10.0.0.1/", "http://localhost.example.org/", "http://[::2]/"] {
            assert!(!is_loopback(&Url::parse(url).unwrap()), "{url}");
        }
    }
}
