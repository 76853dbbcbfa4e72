//! Random sequences of visits, from a fixed list of seeds: tabs, Back, double clicks, lost responses, expiry, nodes
//! with an empty memory, cookies of other programs. After every step the user is signed in, or at a form, or at a page
//! with a link to continue; and every session has the authentication that it claims.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use conclave_node::testing::TestNode;

use super::{
    oidc_tokens::claims,
    site::{Browser, PASSWORD, Page, REDIRECT_URI, Site},
};

/// The number of sequences in each of the four tests.
const SEQUENCES: u64 = 250;
/// The number of steps in a sequence.
const STEPS: usize = 10;

/// splitmix64.
struct Rng(u64);

impl Rng {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % sides as u64).unwrap()
    }

    fn one<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        (!of.is_empty()).then(|| &of[self.roll(of.len())])
    }
}

/// A form as shown on a page, and the cookies that the browser had when it was sent.
#[derive(Clone)]
struct Sent {
    path: String,
    fields: Vec<(String, String)>,
    cookies: BTreeMap<String, String>,
}

/// The visits of one user.
struct Walk<'a> {
    sites: &'a mut [Site],
    dice: Rng,
    browser: Browser,
    /// Addresses that were opened, in any tab: the targets of Back.
    history: Vec<String>,
    /// The pages in the tabs.
    tabs: Vec<(String, Page)>,
    sent: Vec<Sent>,
    /// The users whose correct password was typed in this sequence.
    proved: BTreeSet<&'static str>,
    /// The time of the first request of each client, and whether it required a new authentication.
    asked: BTreeMap<String, (u64, bool)>,
    number: u64,
    log: Vec<String>,
}

impl Walk<'_> {
    fn now(&self) -> u64 {
        use conclave_base::runtime::Clock as _;
        self.sites[0].node.clock().now_ms()
    }

    fn authorize(&mut self) -> String {
        self.number += 1;
        let state = format!("{}-{}", self.dice.0, self.number);
        let client = ["web", "asks", "staff-only"][self.dice.roll(3)];
        let login = self.dice.roll(3) == 0;
        let mut more = vec![("state", state.as_str())];
        if login {
            more.push(("prompt", "login"));
        }
        if self.dice.roll(4) == 0 {
            more.push(("response_mode", "form_post"));
        }
        let url = Site::authorize_url(client, &more);
        self.asked.insert(state, (self.now(), login));
        url
    }

    async fn step(&mut self) {
        match self.dice.roll(14) {
            0..=2 => {
                let url = self.authorize();
                self.open(&url).await;
            }
            3 => {
                let url = ["/", "/login", "/logout", "/device", "/device?user_code=ABCD"][self.dice.roll(5)];
                self.open(url).await;
            }
            4..=7 => self.fill_in().await,
            8 => self.send_again().await,
            9 => {
                let Some(url) = self.dice.one(&self.history).cloned() else { return };
                self.open(&url).await;
            }
            10 => {
                let later = [1, 3, 16, 200][self.dice.roll(4)];
                self.sites.iter().for_each(|site| site.node.clock().advance(Duration::from_mins(later)));
                self.log.push(format!("{later} minutes later"));
            }
            11 => self.other_cookies(),
            12 => {
                let at = self.dice.roll(self.sites.len());
                self.sites[at].renew();
                self.log.push(format!("node {at} has a new memory"));
            }
            _ => {
                // A link of the page in a tab.
                let links: Vec<String> = self.tabs.iter().flat_map(|(_, page)| links(page)).collect();
                let Some(link) = self.dice.one(&links).cloned() else { return };
                self.open(&link).await;
            }
        }
    }

    /// The cookies of another browser, broken ones, or none.
    fn other_cookies(&mut self) {
        let cookies = &mut self.browser.cookies;
        match self.dice.roll(4) {
            0 => cookies.clear(),
            1 => drop(cookies.insert("conclave_session".into(), "AAAA".into())),
            2 => drop(cookies.remove("conclave_browser")),
            _ => drop(cookies.insert("theirs".into(), "x".into())),
        }
        self.log.push("other cookies".into());
    }

    /// Opens an address and follows its redirects, each at a random node.
    async fn open(&mut self, url: &str) {
        self.log.push(format!("open {}", &url[..url.len().min(60)]));
        self.history.push(url.to_owned());
        let at = self.dice.roll(self.sites.len());
        let mut page = self.sites[at].visit(&mut self.browser, url).await;
        let mut here = url.to_owned();
        for _ in 0..10 {
            let Some(next) = next_of(&page) else { break };
            if next.starts_with("https://") {
                return self.returned(&next).await;
            }
            here = next;
            let at = self.dice.roll(self.sites.len());
            page = self.sites[at].visit(&mut self.browser, &here).await;
        }
        self.judge(&page);
        if page.text.contains("id=\"form-post\"") {
            let query =
                url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields(&page)).finish();
            return self.returned(&format!("{REDIRECT_URI}&{query}")).await;
        }
        if self.tabs.len() > 3 {
            self.tabs.remove(0);
        }
        self.tabs.push((here, page));
    }

    async fn fill_in(&mut self) {
        if self.tabs.is_empty() {
            return;
        }
        let at = self.dice.roll(self.tabs.len());
        let page = &self.tabs[at].1;
        let Some(path) = form_of(page) else { return };
        let mut fields = fields(page);
        let mut typed = None;
        match path.as_str() {
            "/login" => {
                let username = ["ada", "bob", "ghost"][self.dice.roll(3)];
                let right = self.dice.roll(4) != 0;
                let password = if right { PASSWORD } else { "wrong" };
                fields.push(("username".into(), username.into()));
                fields.push(("password".into(), password.into()));
                typed = (right && username != "ghost").then_some(username);
            }
            "/consent" => {
                let decision = ["allow", "allow", "deny"][self.dice.roll(3)];
                fields.push(("decision".into(), decision.into()));
            }
            "/device" => fields.push(("user_code".into(), "WXYZ-WXYZ".into())),
            _ => {}
        }
        let sent = Sent { path, fields, cookies: self.browser.cookies.clone() };
        self.sent.push(sent.clone());
        self.proved.extend(typed);
        self.post(&sent).await;
    }

    /// A second click, with the present cookies or, if the first response was lost, with the earlier ones.
    async fn send_again(&mut self) {
        let Some(sent) = self.dice.one(&self.sent).cloned() else { return };
        if self.dice.roll(2) == 0 {
            self.browser.cookies.clone_from(&sent.cookies);
        }
        self.post(&sent).await;
    }

    async fn post(&mut self, sent: &Sent) {
        self.log.push(format!("send {} {:?}", sent.path, sent.fields.last()));
        let fields: Vec<(&str, &str)> = sent.fields.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let at = self.dice.roll(self.sites.len());
        let page = self.sites[at].submit(&mut self.browser, &sent.path, &fields).await;
        assert!(
            page.status.is_redirection(),
            "a POST is answered by a page: {}\n{}",
            page.status,
            self.told(&page)
        );
        let next = page.location();
        assert!(next.starts_with('/'), "a form's chain leaves the site: {next}");
        self.open(&next).await;
        // The target of a form is not an address that was typed, but Back may reach it.
    }

    /// The client gets its response.
    async fn returned(&mut self, address: &str) {
        let url = url::Url::parse(address).unwrap();
        let query: BTreeMap<String, String> = url.query_pairs().into_owned().collect();
        self.log.push(format!("returned {:?}", query.get("error")));
        let Some(code) = query.get("code") else { return };
        let (opened_at, login) = self.asked[&query["state"]];
        for client in ["web", "asks", "staff-only"] {
            let reply = self.sites[0].redeem(client, code).await;
            if reply.status.is_success() {
                let id = claims(reply.json()["id_token"].as_str().unwrap());
                let username = id["preferred_username"].as_str().unwrap();
                assert!(self.proved.contains(username), "a code without a proof\n{}", self.log.join("\n"));
                let proved_at = id["auth_time"].as_u64().unwrap() * 1_000 + 999;
                assert!(
                    !login || proved_at >= opened_at,
                    "an old proof for prompt=login\n{}",
                    self.log.join("\n")
                );
                return;
            }
        }
    }

    fn judge(&self, page: &Page) {
        assert!(!page.status.is_server_error() && !page.status.is_redirection(), "{}", self.told(page));
        let kind = page.headers["content-type"].to_str().unwrap();
        assert!(kind.starts_with("text/html"), "{}", self.told(page));
        assert!(form_of(page).is_some() || !links(page).is_empty(), "a dead end: {}", self.told(page));
        if page.text.contains("id=\"logout-form\"") {
            let account = page.shown("account");
            assert!(self.proved.contains(account.as_str()), "a session without a proof: {}", self.told(page));
        }
    }

    fn told(&self, page: &Page) -> String {
        format!("{}\n{} {:?}\n{}", self.log.join("\n"), page.status, page.headers, page.text)
    }
}

/// The address to which a browser goes by itself.
fn next_of(page: &Page) -> Option<String> {
    if page.status.is_redirection() { Some(page.location()) } else { page.refresh() }
}

fn unescaped(text: &str) -> String {
    text.replace("&#x2f;", "/").replace("&amp;", "&").replace("&#x3d;", "=")
}

fn form_of(page: &Page) -> Option<String> {
    let (_, rest) = page.text.split_once("<form ")?;
    let (_, rest) = rest.split_once("action=\"")?;
    Some(unescaped(rest.split('"').next()?))
}

/// The hidden fields of the page's first form.
fn fields(page: &Page) -> Vec<(String, String)> {
    let form =
        page.text.split("<form ").nth(1).unwrap_or_default().split("</form>").next().unwrap_or_default();
    let hidden = form.split("<input ").filter(|tag| tag.contains("type=\"hidden\""));
    let attribute = |tag: &str, name: &str| {
        let (_, rest) = tag.split_once(&format!("{name}=\""))?;
        Some(unescaped(rest.split('"').next()?))
    };
    hidden.filter_map(|tag| Some((attribute(tag, "name")?, attribute(tag, "value")?))).collect()
}

/// The links of a page that stay on this site.
fn links(page: &Page) -> Vec<String> {
    let tags = page.text.split("<a ").skip(1);
    let addresses = tags.filter_map(|tag| tag.split_once("href=\"")?.1.split('"').next());
    let here = addresses.map(|address| unescaped(address).replace("http://127.0.0.1:9000", ""));
    here.filter(|address| address.starts_with('/')).collect()
}

async fn sequences(from: u64) {
    let mut sites: Vec<Site> = TestNode::start_cluster(3).await.into_iter().map(Site::of).collect();
    let leads = sites.iter().position(|site| site.node.cluster().is_leader()).unwrap();
    sites.swap(0, leads);
    sites[0].seed().await;
    let index = sites[0].node.cluster().view().index();
    for site in &sites {
        site.node.cluster().view_at(index).await.unwrap();
    }
    for seed in from..from + SEQUENCES {
        let mut walk = Walk {
            sites: &mut sites,
            dice: Rng(seed),
            browser: Browser::default(),
            history: Vec::new(),
            tabs: Vec::new(),
            sent: Vec::new(),
            proved: BTreeSet::new(),
            asked: BTreeMap::new(),
            number: 0,
            log: vec![format!("seed {seed}")],
        };
        for _ in 0..STEPS {
            walk.step().await;
        }
        // The attempts of one sequence must not count in the next.
        sites.iter().for_each(|site| site.node.clock().advance(Duration::from_mins(16)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sequences_1_to_250() {
    sequences(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sequences_251_to_500() {
    sequences(251).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sequences_501_to_750() {
    sequences(501).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sequences_751_to_1000() {
    sequences(751).await;
}
