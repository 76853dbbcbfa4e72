//! Garbled input breaks nothing and admits no request: valid requests with random changes. A run takes a few hundred
//! changes of each; `CONCLAVE_FUZZ_SECONDS=60 cargo nextest run garbled` runs each for that many seconds.

use std::time::{Duration, Instant};

use axum::body::Body;
use conclave_base::runtime::{Entropy, testing::SeededEntropy};
use conclave_forward_auth::IDENTITY_HEADERS;
use http::{Request, StatusCode};

use super::{
    forward_auth::{Check, cookie_of},
    oidc_dpop::{Prover, TOKEN, USERINFO},
    site::{Browser, PASSWORD, Page, REDIRECT_URI, SECRET, Site, redemption},
};

const ROUNDS: u32 = 300;
/// Characters with a meaning in one parser or another.
const BYTES: &[u8] = b"AZaz09-_.~=&%?#/\\:;@+,\"'<>[]{}()*!$|^` \t\x00\x7f\xc3\xa9";

/// Changes texts; its seed reproduces a run.
struct Changer(std::sync::Arc<SeededEntropy>);

impl Changer {
    fn below(&self, end: usize) -> usize {
        let entropy: &dyn Entropy = &*self.0;
        usize::try_from(u64::from_le_bytes(entropy.bytes()) % end.max(1) as u64).unwrap()
    }

    /// The text with one to four changes; never the unchanged text.
    fn change(&self, text: &str) -> String {
        loop {
            let mut bytes = text.as_bytes().to_vec();
            for _ in 0..=self.below(4) {
                self.once(&mut bytes);
            }
            let changed = String::from_utf8_lossy(&bytes).into_owned();
            if changed != text {
                return changed;
            }
        }
    }

    fn once(&self, bytes: &mut Vec<u8>) {
        let (at, byte) = (self.below(bytes.len()), BYTES[self.below(BYTES.len())]);
        match self.below(7) {
            _ if bytes.is_empty() => bytes.push(byte),
            0 => bytes[at] = byte,
            1 => bytes.insert(at, byte),
            2 => drop(bytes.remove(at)),
            3 => bytes.truncate(at),
            4 => bytes[at] ^= 1 << self.below(7),
            5 => {
                let piece = bytes[at..].to_vec();
                bytes.extend(piece);
            }
            _ => {
                let other = self.below(bytes.len());
                bytes.swap(at, other);
            }
        }
    }
}

/// The requested number of rounds.
#[expect(clippy::disallowed_methods, reason = "how long to look is said on the command line")]
async fn rounds(seed: u64, mut round: impl AsyncFnMut(&Changer)) {
    let changer = Changer(SeededEntropy::new(seed));
    let limit = std::env::var("CONCLAVE_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok());
    let (began, mut done) = (Instant::now(), 0_u64);
    while limit.map_or(done < u64::from(ROUNDS), |limit| began.elapsed() < Duration::from_secs(limit)) {
        round(&changer).await;
        done += 1;
    }
    println!("{done} rounds in {:?}", began.elapsed());
}

/// True if a broken request may have this response.
fn sound(page: &Page, sent: &str) {
    assert!(page.status.as_u16() < 500, "{} for {sent}: {}", page.status, page.text);
    if let Some(location) = page.headers.get("location") {
        let location = location.to_str().unwrap();
        let ours = location.starts_with('/') || location.starts_with("http://127.0.0.1:9000/");
        let theirs =
            location.strip_prefix(REDIRECT_URI).is_some_and(|rest| rest.is_empty() || rest.starts_with('&'));
        assert!(ours || theirs, "sent to {location} by {sent}");
    }
}

/// Forward-auth: the proxy's headers, a cookie, or a whole check is garbled. Only the true cookie admits a request, and
/// then with all identity headers.
#[tokio::test]
async fn checks() {
    let site = Site::open().await;
    let cookie = cookie_of(&site, "ada").await.unwrap_or_else(|page| panic!("{}", page.text));
    let complete = |page: &Page| {
        IDENTITY_HEADERS.into_iter().all(|name| page.headers.get_all(name).iter().count() == 1)
            && page.headers["remote-user"] == "ada"
    };
    rounds(7, async |changer| {
        let dialects = ["traefik", "caddy", "haproxy", "nginx", "envoy"];
        let check = Check::of(dialects[changer.below(dialects.len())]);
        let at = changer.below(check.headers.len());
        let (mut garbled, mut stranger) = (check.headers.clone(), check.headers.clone());
        garbled[at].1 = changer.change(&garbled[at].1);
        stranger[at].0 = changer.change(&stranger[at].0);
        let changed = changer.change(&cookie);
        for (headers, cookie, is_true) in [
            (&garbled, cookie.as_str(), true),
            (&garbled, "", false),
            (&stranger, cookie.as_str(), true),
            (&check.headers, changed.as_str(), changed.contains(&cookie)),
        ] {
            let mut request = Request::builder().method(check.method).uri(check.path);
            for (name, value) in headers {
                request = request.header(name, value);
            }
            let Ok(request) = request.header("cookie", cookie).body(Body::empty()) else { continue };
            let said = format!("{request:?}");
            let page = site.send("10.0.0.1", request).await;
            assert!(page.status.as_u16() < 500, "{} for {said}", page.status);
            if page.status.is_success() {
                assert!(
                    is_true && page.status == StatusCode::OK && complete(&page),
                    "{} for {said}",
                    page.status
                );
            }
        }
        // The path, as Envoy appends it.
        let path = format!("/auth/envoy{}", changer.change("/page?q=1"));
        let request = Request::get(&path).header("host", "app.test").header("x-forwarded-proto", "https");
        let Ok(request) = request.header("cookie", &cookie).body(Body::empty()) else { return };
        let page = site.send("10.0.0.1", request).await;
        assert!(page.status.as_u16() < 500 && (!page.status.is_success() || complete(&page)), "{path}");
    })
    .await;
}

/// A path from which a request can be built at all.
fn request(path: &str, cookies: &str) -> Option<Request<Body>> {
    Request::get(path).header("cookie", cookies).body(Body::empty()).ok()
}

#[tokio::test]
async fn authorization_requests() {
    let site = Site::open().await;
    let mut browser = Browser::default();
    site.sign_in_at(&mut browser, "/login", "ada", PASSWORD).await;
    let valid = Site::authorize_url("web", &[]);
    assert!(site.get(&mut browser, &valid).await.parameter("code").is_some());
    rounds(1, async |changer| {
        let changed = format!("/oidc/authorize?{}", changer.change(valid.split_once('?').unwrap().1));
        let Some(request) = request(&changed, &browser.header()) else { return };
        sound(&site.send("192.0.2.1", request).await, &changed);
    })
    .await;
}

#[tokio::test]
async fn addresses_to_be_sent_to() {
    let site = Site::open().await;
    let mut browser = Browser::default();
    site.sign_in_at(&mut browser, "/login", "ada", PASSWORD).await;
    rounds(2, async |changer| {
        let changed = changer.change(REDIRECT_URI);
        let url = Site::authorize_url("web", &[("redirect_uri", &changed)]);
        let page = site.get(&mut browser, &url).await;
        sound(&page, &changed);
        // Empty means "not given", and a client with one address need not give one.
        assert!(changed.is_empty() || page.headers.get("location").is_none(), "{changed:?} was taken");
    })
    .await;
}

#[tokio::test]
async fn codes_and_refresh_tokens() {
    let site = Site::open().await;
    let code = site.code("web", &[("scope", "openid offline_access")]).await;
    let refresh = site.redeem("web", &site.code("web", &[("scope", "openid offline_access")]).await).await;
    let refresh = refresh.json()["refresh_token"].as_str().unwrap().to_owned();
    rounds(3, async |changer| {
        for form in [
            redemption(&changer.change(&code)).to_vec(),
            vec![("grant_type", "refresh_token"), ("refresh_token", changer.change(&refresh).as_str())],
        ] {
            let page = site.token(Some(("web", SECRET)), &form).await;
            sound(&page, &format!("{form:?}"));
            assert_ne!(page.status, StatusCode::OK, "{form:?}");
        }
    })
    .await;
    assert_eq!(site.refresh(&refresh).await.status, StatusCode::OK, "and the true one is still good");
}

#[tokio::test]
async fn access_tokens_and_proofs() {
    let site = Site::open().await;
    let key = Prover::at(&site).await;
    let code = site.code("spa", &[]).await;
    let form = [&redemption(&code)[..], &[("client_id", "spa")]].concat();
    let page = site.call("/oidc/token", &[("dpop", key.proof("POST", TOKEN, None))], &form).await;
    let token = page.json()["access_token"].as_str().unwrap().to_owned();
    rounds(4, async |changer| {
        let proof = key.proof("GET", USERINFO, Some(&token));
        let (bad_token, bad_proof) = (changer.change(&token), changer.change(&proof));
        for (token, proof) in [(&bad_token, &proof), (&token, &bad_proof)] {
            let request = Request::get("/oidc/userinfo")
                .header("authorization", format!("DPoP {token}"))
                .header("dpop", proof);
            let Ok(request) = request.body(Body::empty()) else { continue };
            let page = site.send("192.0.2.1", request).await;
            sound(&page, proof);
            // Spaces around a header's value are not part of it.
            let same = token.trim() == bad_token && proof.trim() == bad_proof;
            assert!(same || page.status != StatusCode::OK, "{token} {proof}");
        }
    })
    .await;
}

#[tokio::test]
async fn cookies_and_tickets() {
    let site = Site::open().await;
    let mut browser = Browser::default();
    site.sign_in_at(&mut browser, "/login", "ada", PASSWORD).await;
    let signed_in = site.get(&mut browser, "/").await;
    assert_eq!(signed_in.status, StatusCode::OK);
    let cookies = browser.header();
    let (name, value) = cookies.split(';').find_map(|pair| pair.trim().split_once('=')).unwrap();
    let mut other = Browser::default();
    let page = site.get(&mut other, "/login").await;
    let (ticket, csrf) = (page.field("ticket"), page.field("csrf"));
    rounds(5, async |changer| {
        let changed = changer.change(value);
        if let Some(request) = request("/", &format!("{name}={changed}")) {
            let page = site.send("192.0.2.1", request).await;
            sound(&page, &changed);
            assert!(changed.trim() == value || page.status != StatusCode::OK, "{changed} is signed in");
        }
        let changed = changer.change(&ticket);
        let form =
            [("ticket", changed.as_str()), ("csrf", &csrf), ("username", "ada"), ("password", PASSWORD)];
        let before = other.cookies.clone();
        let page = site.post(&mut other, "/login", &form).await;
        sound(&page, &changed);
        assert!(page.status != StatusCode::SEE_OTHER, "{changed} signed in");
        other.cookies = before;
    })
    .await;
}
