//! Requests to servers that users chose, with limits: no server occupies all permits, however slow it is.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use http::{StatusCode, header};
use hyper::body::Bytes;
use serde_json::Value;
use url::Url;

use super::{did::is_by_name, error::AtmosphereError};
use conclave_http::outbound::{Outbound, OutboundResponse};

/// Maximum number of concurrent requests.
const AT_ONCE: usize = 64;
/// Maximum number of them to one host, so that a dead one holds no more.
const AT_ONE_HOST: usize = 8;
/// Maximum length of a response with a handle's DID: a DID and white space.
const MAX_DID_ANSWER: usize = 2_048;
/// Maximum number of redirects of such a request (the handle specification allows a host to redirect it).
const MAX_HOPS: usize = 3;

/// The outbound clients with their limits.
pub(crate) struct Net {
    /// Sends to servers that users chose.
    outbound: Outbound,
    /// Sends to servers that the configuration names.
    configured: Outbound,
    /// True if names of this machine are accepted, for development.
    pub dev: bool,
    hosts: Mutex<BTreeMap<String, usize>>,
}

/// A permit for one request, returned when dropped.
pub(super) struct Place<'a> {
    net: &'a Net,
    host: String,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut hosts = self.net.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        match hosts.get_mut(&self.host) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(hosts.remove(&self.host)),
        }
    }
}

impl Net {
    /// Private networks that `configured` may contact are only for servers that the configuration names; in development
    /// also for those that users name.
    pub(crate) fn new(configured: Outbound, dev: bool) -> Self {
        let outbound = if dev { configured.clone() } else { configured.for_untrusted_servers() };
        Self { outbound, configured, dev, hosts: Mutex::new(BTreeMap::new()) }
    }

    pub(super) fn place(&self, url: &str) -> Result<Place<'_>, AtmosphereError> {
        if !is_by_name(url, self.dev) {
            // For the log, escaped so that it cannot forge a log line.
            return Err(AtmosphereError::Blocked(url.escape_debug().take(100).collect()));
        }
        let parsed =
            Url::parse(url).map_err(|_| AtmosphereError::ProviderInvalid("an address is not a URL"))?;
        let host = parsed.host_str().unwrap_or_default().to_owned();
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let here = hosts.get(&host).copied().unwrap_or_default();
        if hosts.values().sum::<usize>() >= AT_ONCE || here >= AT_ONE_HOST {
            return Err(AtmosphereError::Busy);
        }
        hosts.insert(host.clone(), here + 1);
        Ok(Place { net: self, host })
    }

    async fn get(&self, url: &str) -> Result<OutboundResponse, AtmosphereError> {
        let _place = self.place(url)?;
        Ok(self.outbound.get(url, None).await?)
    }

    /// A JSON document; `None` if it does not exist.
    pub(crate) async fn json(&self, url: &str) -> Result<Option<Value>, AtmosphereError> {
        document(&self.get(url).await?)
    }

    /// Like [`Self::json`], from a directory that the configuration names.
    pub(crate) async fn entry(&self, url: &str) -> Result<Option<Value>, AtmosphereError> {
        let _place = self.place(url)?;
        document(&self.configured.get(url, None).await?)
    }

    /// The bytes of a picture of any type; `None` if it does not exist.
    pub(crate) async fn picture(&self, url: &str) -> Result<Option<Bytes>, AtmosphereError> {
        let _place = self.place(url)?;
        let answer = self.outbound.picture(url).await?;
        Ok(Some(answer.body).filter(|_| answer.status == StatusCode::OK))
    }

    /// The short text at this address; `None` if it does not exist.
    pub(crate) async fn text(&self, url: &str) -> Result<Option<String>, AtmosphereError> {
        let mut url = url.to_owned();
        for _ in 0..=MAX_HOPS {
            let answer = self.get(&url).await?;
            if answer.status.is_redirection() {
                let next = answer.headers.get(header::LOCATION).and_then(|value| value.to_str().ok());
                let next = next.and_then(|next| Url::parse(&url).ok()?.join(next).ok());
                let Some(next) = next.filter(|next| self.dev || next.scheme() == "https") else {
                    return Ok(None);
                };
                url = next.into();
                continue;
            }
            let is_short = answer.status.is_success() && answer.body.len() <= MAX_DID_ANSWER;
            let text = String::from_utf8(answer.body.to_vec()).ok().filter(|_| is_short);
            return Ok(text.map(|text| text.trim().to_owned()));
        }
        Ok(None)
    }

    /// Posts a form with a DPoP proof.
    pub(crate) async fn post(
        &self,
        url: &str,
        form: &[(&str, &str)],
        proof: &str,
    ) -> Result<OutboundResponse, AtmosphereError> {
        let _place = self.place(url)?;
        Ok(self.outbound.post_with_proof(url, form, proof).await?)
    }
}

fn document(answer: &OutboundResponse) -> Result<Option<Value>, AtmosphereError> {
    match answer.status {
        StatusCode::OK if answer.is_json() => {}
        StatusCode::OK => {
            return Err(AtmosphereError::ProviderInvalid("a document is not of a JSON type"));
        }
        StatusCode::NOT_FOUND | StatusCode::GONE => return Ok(None),
        _ => {
            return Err(AtmosphereError::ProviderInvalid(
                "a document is returned with another status than 200",
            ));
        }
    }
    let read = serde_json::from_slice(&answer.body);
    read.map(Some).map_err(|_| AtmosphereError::ProviderInvalid("a document is not JSON"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_host_never_takes_all_the_places() {
        let net = Net::new(Outbound::new(Vec::new()), false);
        let mut held: Vec<Place<'_>> =
            (0..AT_ONE_HOST).map(|n| net.place(&format!("https://dead.test/{n}")).unwrap()).collect();
        assert!(matches!(net.place("https://dead.test/"), Err(AtmosphereError::Busy)));
        held.extend((AT_ONE_HOST..AT_ONCE).map(|n| net.place(&format!("https://h{n}.test/")).unwrap()));
        assert!(matches!(net.place("https://other.test/"), Err(AtmosphereError::Busy)));
        held.clear();
        assert!(net.hosts.lock().unwrap().is_empty());
        assert!(net.place("https://dead.test/").is_ok());
        assert!(matches!(net.place("https://10.0.0.1/"), Err(AtmosphereError::Blocked(_))));
    }
}
