//! The guard against redirect loops: the check sends a browser here to sign in, it is signed in already and is sent
//! back, and the check does not see the cookie. Without a guard that goes on for ever, and tells nobody why
//! (features.md §2, redirect loops).
//!
//! Counted are turns: a redirect whose attempt began after the redirect before it was sent. Several tabs of one page
//! began before the first of them arrived, so they are no turns. A session of its own begins a count of its own.
//!
//! The count is in a sealed cookie of this site, the one place where the browser's cookies are known to arrive: without
//! them it would be asked for its password instead. The server keeps nothing.

use serde::{Deserialize, Serialize};

use conclave_crypto::mac;

use super::{Auth, ticket::AppUrl};

/// The cookie.
pub const COOKIE: &str = "bounces";
/// What its seal is for; it opens as nothing else.
const PURPOSE: &str = "bounces/2";
/// So many turns to one address are explained instead of followed. One is a sign-in, two may be a doubled click.
const MOST_TURNS: u32 = 3;
/// So many redirects to one address are explained even where none seems to be a turn, since the clocks of nodes differ.
/// More tabs than a browser restores of one page.
const MOST_REDIRECTS: u32 = 20;
/// Within so long: a loop takes well below a second a turn.
const WINDOW_MS: u64 = 15_000;

#[derive(Serialize, Deserialize)]
struct Counted {
    /// SHA-256 of the session and the address.
    to: [u8; 32],
    turns: u32,
    redirects: u32,
    since_ms: u64,
    last_ms: u64,
}

/// A redirect to an application, as the guard against loops sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppRedirect {
    /// The id of the session that is handed over.
    pub session: [u8; 16],
    /// When the attempt began, milliseconds since 1970, by the clock of the node that was asked. `None`: counted as a
    /// turn.
    pub asked_at_ms: Option<u64>,
}

/// What to do with a browser that is about to be sent to an application.
#[derive(Debug, PartialEq, Eq)]
pub enum Bounce {
    /// Send it, with this text in its cookie.
    Send(Option<String>),
    /// It goes in circles.
    Explain,
}

impl Auth {
    /// Counts this redirect of a browser to `url`, with what its cookie says of the redirects before.
    pub fn bounce(&self, cookie: Option<&str>, url: &AppUrl, redirect: AppRedirect) -> Bounce {
        let now_ms = self.runtime().clock.now_ms();
        let to = mac::sha256(&[&redirect.session[..], url.to_string().as_bytes()].concat());
        let before = cookie.and_then(|text| self.open_sealed::<Counted>(PURPOSE, text).ok());
        let before =
            before.filter(|counted| counted.to == to && now_ms.saturating_sub(counted.since_ms) < WINDOW_MS);
        let counted = after(before, to, redirect.asked_at_ms, now_ms);
        if counted.turns >= MOST_TURNS || counted.redirects >= MOST_REDIRECTS {
            return Bounce::Explain;
        }
        Bounce::Send(self.seal_for_browser(PURPOSE, &counted).ok())
    }
}

fn after(before: Option<Counted>, to: [u8; 32], asked_at_ms: Option<u64>, now_ms: u64) -> Counted {
    let Some(before) = before else {
        return Counted { to, turns: 1, redirects: 1, since_ms: now_ms, last_ms: now_ms };
    };
    let is_turn = asked_at_ms.is_none_or(|asked_at_ms| asked_at_ms >= before.last_ms);
    Counted {
        turns: before.turns + u32::from(is_turn),
        redirects: before.redirects + 1,
        last_ms: now_ms,
        ..before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tabs_that_were_opened_before_an_arrival_are_no_turns_and_a_loop_is() {
        let counted = |asked: &[u64]| {
            asked
                .iter()
                .zip(10..)
                .fold(None, |before, (asked, now)| Some(after(before, [0; 32], Some(*asked), now)))
                .unwrap()
        };
        assert_eq!(counted(&[1, 2, 3, 4]).turns, 1);
        assert_eq!(counted(&[9, 10, 11]).turns, 3);
        // A node whose clock is behind is not seen to turn; the redirects are counted all the same.
        let behind = counted(&[0; 20]);
        assert_eq!((behind.turns, behind.redirects), (1, MOST_REDIRECTS));
    }
}
