//! The client shared by all repositories: HTTP clients by kind of TLS, the scheme each insecure host turned out
//! to speak, the challenge each host answered with, and the tokens.
//!
//! All of it is a cache: losing an entry costs a request, never correctness.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use reqwest::redirect;
use spec::Reference;
use url::Url;

use crate::auth::{Auth, TokenCache};
use crate::challenge::Challenge;
use crate::config::{ClientConfig, ConfigError, Proxies, host_name};
use crate::endpoint::{self, Endpoint, Security};
use crate::error::Error;
use crate::pace::{Limit, Pace};
use crate::repository::{Access, Repository};
use crate::rule::{self, Rule};
use crate::session::Session;
use crate::tls::{self, TlsChoice};

/// How long a TCP connection and its TLS handshake may take.
const CONNECT: Duration = Duration::from_secs(30);

/// A client of any number of registries. Clones share everything.
#[derive(Clone)]
pub struct Client {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    config: RwLock<Arc<ClientConfig>>,
    http: Mutex<HashMap<(TlsChoice, bool), reqwest::Client>>,
    schemes: Mutex<HashMap<String, &'static str>>,
    challenges: Mutex<HashMap<String, Challenge>>,
    pub tokens: TokenCache,
    /// What all transfers together may take.
    limit: Mutex<Option<Arc<Limit>>>,
}

impl Client {
    /// A client with this configuration, which is checked here.
    pub fn new(config: ClientConfig) -> Result<Client, Error> {
        config.validate()?;
        let limit = config.limit_rate.map(|rate| Arc::new(Limit::new(rate)));
        Ok(Client {
            inner: Arc::new(Inner {
                config: RwLock::new(Arc::new(config)),
                http: Mutex::default(),
                schemes: Mutex::default(),
                challenges: Mutex::default(),
                tokens: TokenCache::default(),
                limit: Mutex::new(limit),
            }),
        })
    }

    /// Takes over a new configuration; requests under way keep the old one.
    pub fn reload(&self, config: ClientConfig) -> Result<(), Error> {
        config.validate()?;
        *self.inner.limit.lock().unwrap_or_else(PoisonError::into_inner) =
            config.limit_rate.map(|rate| Arc::new(Limit::new(rate)));
        *self.inner.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
        self.inner
            .http
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        self.inner
            .schemes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        Ok(())
    }

    /// The repository that `reference` names, to be reached with `auth` unless a rule forbids or says otherwise.
    pub fn repository(
        &self,
        reference: &Reference,
        auth: &Auth,
        access: Access,
    ) -> Result<Repository, Error> {
        let config = self.inner.config();
        rule::permitted(&config.rules, reference)?;
        let endpoints = match access {
            Access::Pull => endpoint::for_pull(&config, reference),
            Access::Push => vec![endpoint::upstream(&config, reference)],
        };
        let mut sessions = Vec::with_capacity(endpoints.len());
        for endpoint in endpoints {
            let own = !endpoint.mirror && *auth != Auth::Anonymous;
            let auth = match &endpoint.auth_file {
                Some(file) if !own => rule::login(file, &endpoint.host)?,
                _ if endpoint.mirror => Auth::Anonymous,
                _ => auth.clone(),
            };
            sessions.push(Arc::new(Session::new(self.clone(), endpoint, auth, access)));
        }
        Ok(Repository::new(reference.clone(), sessions, self.inner.pace()))
    }

    /// What the configuration says about names like this one.
    pub fn rule(&self, reference: &Reference) -> Option<Rule> {
        let config = self.inner.config();
        rule::find(&config.rules, &reference.name()).map(|(rule, _)| rule.clone())
    }
}

impl Inner {
    pub fn config(&self) -> Arc<ClientConfig> {
        self.config.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn pace(&self) -> Pace {
        Pace::of(self.limit.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// The HTTP client for `url`, made at first use. `verify` is false only for insecure registries.
    pub fn http(&self, url: &Url, verify: bool) -> Result<reqwest::Client, Error> {
        let config = self.config();
        let host = url.host_str().unwrap_or_default();
        let authority = match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        let choice = TlsChoice {
            // Plain HTTP needs no roots, and reading them takes milliseconds.
            verify: verify && url.scheme() == "https",
            folder: (url.scheme() == "https")
                .then(|| {
                    config
                        .certs_d
                        .iter()
                        .map(|d| d.join(&authority))
                        .find(|d| d.is_dir())
                })
                .flatten()
                .map(|folder| {
                    let changed = tls::changed(&folder);
                    (folder, changed)
                }),
        };
        // As Go's clients do: loopback is never reached through a proxy.
        let name = host_name(host);
        let direct = name == "localhost"
            || host
                .trim_matches(['[', ']'])
                .parse::<std::net::IpAddr>()
                .is_ok_and(|a| a.is_loopback());
        let key = (choice, direct);
        if let Some(client) = self.http.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(client.clone());
        }
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls::client_config(&key.0)?)
            .user_agent(&config.user_agent)
            .connect_timeout(CONNECT)
            .redirect(redirect::Policy::none())
            .http2_adaptive_window(true)
            .tcp_nodelay(true)
            .pool_idle_timeout(Duration::from_secs(60));
        if direct {
            builder = builder.no_proxy();
        } else {
            builder = proxied(builder, &config.proxies)?;
        }
        let client = builder
            .build()
            .map_err(|e| Error::Tls(format!("HTTP client cannot be made: {e}")))?;
        self.http
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key, client.clone());
        Ok(client)
    }

    /// The origin of an endpoint, `https://host` or `http://host`. For insecure hosts the first caller finds
    /// out, HTTPS first.
    pub async fn origin(&self, endpoint: &Endpoint) -> Result<Url, Error> {
        let url = |scheme: &str| {
            Url::parse(&format!("{scheme}://{}", endpoint.host)).map_err(|e| Error::Protocol {
                url: endpoint.host.clone(),
                detail: format!("not a host: {e}"),
            })
        };
        match endpoint.security {
            Security::Verified => return url("https"),
            Security::Plain => return url("http"),
            Security::Insecure => {}
        }
        let known = self
            .schemes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&endpoint.host)
            .copied();
        if let Some(scheme) = known {
            return url(scheme);
        }
        let https = url("https")?;
        let probe = self
            .http(&https, false)?
            .get(https.join("/v2/").unwrap_or(https.clone()))
            .send();
        // A server that waits for a line of HTTP never answers the handshake: five seconds tell.
        let scheme = match tokio::time::timeout(Duration::from_secs(5), probe).await {
            Ok(Ok(_)) => "https",
            Ok(Err(_)) | Err(_) => "http",
        };
        if scheme == "https" {
            self.remember_scheme(&endpoint.host, scheme);
        }
        url(scheme)
    }

    /// Remembers that a host answered in this scheme.
    pub fn remember_scheme(&self, host: &str, scheme: &'static str) {
        self.schemes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(host.to_owned(), scheme);
    }

    /// Forgets it, since the host refuses to be spoken to that way now.
    pub fn forget_scheme(&self, host: &str) {
        self.schemes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(host);
    }

    pub fn challenge(&self, origin: &str) -> Option<Challenge> {
        self.challenges
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(origin)
            .cloned()
    }

    pub fn remember_challenge(&self, origin: &str, challenge: &Challenge) {
        self.challenges
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(origin.to_owned(), challenge.clone());
    }
}

/// With the configured proxies, and no others: whose environment counts is decided where they are configured.
fn proxied(builder: reqwest::ClientBuilder, proxies: &Proxies) -> Result<reqwest::ClientBuilder, Error> {
    let mut builder = builder.no_proxy();
    let http = (!proxies.http.is_empty()).then(|| (&proxies.http, reqwest::Proxy::http(&proxies.http)));
    let https = (!proxies.https.is_empty()).then(|| (&proxies.https, reqwest::Proxy::https(&proxies.https)));
    for (url, proxy) in [http, https].into_iter().flatten() {
        let proxy = proxy.map_err(|_| ConfigError::Proxy(url.clone()))?;
        builder = builder.proxy(proxy.no_proxy(reqwest::NoProxy::from_string(&proxies.none)));
    }
    Ok(builder)
}
