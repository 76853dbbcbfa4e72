//! The leader is killed during a callback to another node, at each of the critical moments: the user is signed in or
//! asked to try again, is signed in by trying again, and one authorization response never makes two sessions.

use std::sync::Arc;

use reqwest::cookie::{CookieStore as _, Jar};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{
    atmosphere_chaos::{Sky, did, says_again},
    world::{Node, browser_with},
};
use crate::slices::atmosphere_network::Asked;

/// The time at which the leader is killed.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// The request is being sent to the node: before or while the state is spent.
    Sent,
    /// The state is spent; the node resolves the server that must identify the account.
    Spent,
    /// The server has the code, and has not responded.
    Redeeming,
    /// It has responded; the user is not signed in yet.
    Redeemed,
}

const MOMENTS: [Moment; 4] = [Moment::Sent, Moment::Spent, Moment::Redeeming, Moment::Redeemed];
const ROUNDS: u32 = 28;
/// The number of attempts by a user who is asked to try again.
const TRIES: usize = 5;

/// A response to a request that is written completely before the next step.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

async fn ask(node: &Node, path: &str, jar: &Jar, sent: impl FnOnce()) -> Answer {
    let addr = node.http.strip_prefix("http://").unwrap();
    let cookies = jar.cookies(&node.http.parse().unwrap()).unwrap();
    let cookies = cookies.to_str().unwrap();
    let request =
        format!("GET {path} HTTP/1.1\r\nhost: {addr}\r\ncookie: {cookies}\r\nconnection: close\r\n\r\n");
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    sent();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    for line in head.lines() {
        if let Some((name, value)) = line.split_once(": ")
            && name.eq_ignore_ascii_case("set-cookie")
        {
            jar.add_cookie_str(value, &node.http.parse().unwrap());
        }
    }
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

impl Answer {
    /// True if signed in, false if asked to try again. Any other result fails the test.
    fn is_in(&self, what: &str) -> bool {
        if self.status == 303 {
            let home = self.head.lines().any(|line| line.eq_ignore_ascii_case("location: /"));
            assert!(home, "{what}: {}", self.head);
            return true;
        }
        let is_busy = self.status == 503;
        assert!(is_busy || says_again(&self.body), "{what}: {} {}", self.status, self.body);
        false
    }
}

impl Sky {
    fn sessions_of(&self, handle: &str) -> usize {
        let rows = self.demo.conclave(&["session", "list"]);
        let rows = rows.as_array().unwrap_or_else(|| panic!("{rows}"));
        rows.iter().filter(|row| row["username"] == handle).count()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_killed_at_the_callback_costs_a_second_try_at_most_and_gives_no_second_session() {
    let sky = Sky::start(true, None).await;
    sky.demo.conclave(&["upstream", "add", "atmosphere", "--atmosphere", "--admit", "any"]);
    let mut told: Vec<(Moment, bool)> = Vec::new();
    for round in 0..ROUNDS {
        let moment = MOMENTS[round as usize % MOMENTS.len()];
        let (did, handle) = (did(round), format!("p{round}.test"));
        sky.network.account(&did, &handle);
        sky.demo.all_ready().await;
        let jar = Arc::new(Jar::default());
        let person = browser_with(&jar);
        let query = sky.departs(&person, &did, "nobody").await.expect("a start on a quiet cluster");

        let leads = sky.demo.leader().await.expect("a leader");
        let pid =
            sky.demo.pid_of(leads).and_then(|pid| Pid::from_raw(pid.cast_signed())).expect("its process");
        let others: Vec<&Node> = sky.demo.cluster.nodes.iter().filter(|node| node.id != leads).collect();
        let (to, other) = (others[round as usize / 4 % 2], others[(round as usize / 4 + 1) % 2]);
        let kill = move || kill_process(pid, Signal::KILL).unwrap();
        let path = format!("/atproto/callback?{query}");
        let before = Arc::new(jar.cookies(&to.http.parse().unwrap()).unwrap());
        let what = format!("round {round}, {moment:?}");
        let asked = match moment {
            Moment::Sent => None,
            Moment::Spent => Some(Asked::Server),
            Moment::Redeeming => Some(Asked::Token),
            Moment::Redeemed => Some(Asked::Document),
        };
        let answer = match asked {
            None => ask(to, &path, &jar, kill).await,
            Some(asked) => {
                sky.network.before(asked, kill);
                ask(to, &path, &jar, || ()).await
            }
        };
        assert!(!sky.network.waits(), "{what}: the leader was not killed");
        let mut is_in = answer.is_in(&what);
        told.push((moment, is_in));
        assert!(sky.sessions_of(&handle) <= 1, "{what}");
        if is_in {
            assert_eq!(sky.sessions_of(&handle), 1, "{what}");
        }

        // That response once more, at the other node, with the cookies of the browser: spent, or valid for the one
        // session.
        let again = Arc::new(Jar::default());
        for pair in before.to_str().unwrap().split("; ") {
            again.add_cookie_str(pair, &other.http.parse().unwrap());
        }
        let came_again = ask(other, &path, &again, || ()).await.is_in(&what);
        assert!(!(is_in && came_again), "{what}: one answer let in twice");
        assert!(sky.sessions_of(&handle) <= 1, "{what}: one answer is two sessions");

        is_in |= came_again;
        for _ in 0..TRIES {
            if is_in {
                break;
            }
            is_in = sky.attempts(&browser_with(&Arc::default()), &did, "nobody").await.is_ok();
        }
        assert!(is_in, "{what}: a user who tries again is signed in");
        assert!((1..=2).contains(&sky.sessions_of(&handle)), "{what}");
    }
    let at_once = told.iter().filter(|(_, is_in)| *is_in).count();
    println!("{at_once} of {ROUNDS} came in though the leader was killed, the others by trying again");
    // Writes and confirmations are held until there is another leader, so success is the rule and not luck.
    assert!(at_once * 2 > told.len(), "most notice nothing: {told:?}");
    assert_eq!(sky.network.codes_again.load(std::sync::atomic::Ordering::SeqCst), 0, "no code comes twice");
    let upstream = sky.demo.conclave(&["upstream", "show", "atmosphere"]);
    assert_eq!(upstream["identity_count"], ROUNDS, "each is one person");
}
