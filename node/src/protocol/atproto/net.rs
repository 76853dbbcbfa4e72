//! Every request to a server that a person chose, and how many at once: none takes all the places, however slow it is.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use http::{StatusCode, header};
use hyper::body::Bytes;
use serde_json::Value;
use url::Url;

use super::{did::is_by_name, error::AtmosphereError};
use conclave_http::outbound::{Answer, Outbound};

/// Requests under way at once.
const AT_ONCE: usize = 64;
/// Of them to one host: a dead one holds no more.
const AT_ONE_HOST: usize = 8;
/// Longest answer to "which DID is this handle": a DID and white space.
const MAX_DID_ANSWER: usize = 2_048;
/// How many redirects the same question follows (the handle specification lets a host redirect it).
const MAX_HOPS: usize = 3;

/// The way out.
pub struct Net {
    /// To servers that people chose.
    outbound: Outbound,
    /// To those that the configuration names.
    configured: Outbound,
    /// Names of this machine are taken: development.
    pub dev: bool,
    hosts: Mutex<BTreeMap<String, usize>>,
}

/// A place, given back when dropped.
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
    /// What `outbound` may reach beside public addresses is for servers that the configuration names; for those that
    /// people name, in development alone.
    pub fn new(configured: Outbound, dev: bool) -> Self {
        let outbound = if dev { configured.clone() } else { configured.for_strangers() };
        Self { outbound, configured, dev, hosts: Mutex::new(BTreeMap::new()) }
    }

    pub(super) fn place(&self, url: &str) -> Result<Place<'_>, AtmosphereError> {
        if !is_by_name(url, self.dev) {
            // For the log, where nobody else's line may begin.
            return Err(AtmosphereError::Blocked(url.escape_debug().take(100).collect()));
        }
        let parsed = Url::parse(url).map_err(|_| AtmosphereError::ProviderInvalid("an address is none"))?;
        let host = parsed.host_str().unwrap_or_default().to_owned();
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let here = hosts.get(&host).copied().unwrap_or_default();
        if hosts.values().sum::<usize>() >= AT_ONCE || here >= AT_ONE_HOST {
            return Err(AtmosphereError::Busy);
        }
        hosts.insert(host.clone(), here + 1);
        Ok(Place { net: self, host })
    }

    async fn get(&self, url: &str) -> Result<Answer, AtmosphereError> {
        let _place = self.place(url)?;
        Ok(self.outbound.get(url, None).await?)
    }

    /// A document of JSON; none when there is none.
    pub async fn json(&self, url: &str) -> Result<Option<Value>, AtmosphereError> {
        document(&self.get(url).await?)
    }

    /// The same of a directory, which the configuration names.
    pub async fn entry(&self, url: &str) -> Result<Option<Value>, AtmosphereError> {
        let _place = self.place(url)?;
        document(&self.configured.get(url, None).await?)
    }

    /// The bytes of a picture, of whatever kind; none when there is none.
    pub async fn picture(&self, url: &str) -> Result<Option<Bytes>, AtmosphereError> {
        let _place = self.place(url)?;
        let answer = self.outbound.picture(url).await?;
        Ok(Some(answer.body).filter(|_| answer.status == StatusCode::OK))
    }

    /// The short text at this address; none when there is none.
    pub async fn text(&self, url: &str) -> Result<Option<String>, AtmosphereError> {
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

    /// Posts a form with a proof.
    pub async fn post(
        &self,
        url: &str,
        form: &[(&str, &str)],
        proof: &str,
    ) -> Result<Answer, AtmosphereError> {
        let _place = self.place(url)?;
        Ok(self.outbound.post_with_proof(url, form, proof).await?)
    }
}

fn document(answer: &Answer) -> Result<Option<Value>, AtmosphereError> {
    match answer.status {
        StatusCode::OK if answer.is_json() => {}
        StatusCode::OK => {
            return Err(AtmosphereError::ProviderInvalid("a document is not of a JSON type"));
        }
        StatusCode::NOT_FOUND | StatusCode::GONE => return Ok(None),
        _ => {
            return Err(AtmosphereError::ProviderInvalid(
                "a document is answered with another status than 200",
            ));
        }
    }
    let read = serde_json::from_slice(&answer.body);
    read.map(Some).map_err(|_| AtmosphereError::ProviderInvalid("a document is no JSON"))
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
