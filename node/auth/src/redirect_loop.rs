//! The guard against redirect loops. In such a loop the check sends a browser to the sign-in, the browser is already
//! signed in and is sent back, and the check does not receive the cookie. Without a guard this never ends, and neither
//! the user nor the operator learns why (decision 0044).
//!
//! The guard counts turns. A turn is a redirect whose attempt began after the previous redirect was sent. Several tabs
//! of one page began before the first of them was redirected, so they do not count as turns. A new session starts a new
//! count.
//!
//! The count is in a sealed cookie of this site. This is the one host where the browser's cookies certainly arrive:
//! without them the browser would be asked for a password instead. The server stores nothing.

use serde::{Deserialize, Serialize};

use conclave_crypto::mac;

use super::{Auth, ticket::AppUrl};

/// The cookie's name.
pub const COOKIE: &str = "bounces";
/// The purpose that the seal is bound to; a value sealed for another purpose does not open.
const PURPOSE: &str = "bounces/2";
/// After this many turns to one address the user sees an explanation instead of a redirect. One turn is a sign-in; two
/// may be a double click.
const MOST_TURNS: u32 = 3;
/// After this many redirects to one address the user sees an explanation even if no redirect was counted as a turn,
/// since the clocks of nodes differ. It is more than the number of tabs that a browser restores of one page.
const MOST_REDIRECTS: u32 = 20;
/// The window of a count. A turn of a loop takes well below a second.
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

/// A redirect to an application, as the guard against redirect loops needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppRedirect {
    /// The id of the session that the application gets.
    pub session: [u8; 16],
    /// The start of the attempt, milliseconds since 1970, by the clock of the node that received it. `None` counts as a
    /// turn.
    pub asked_at_ms: Option<u64>,
}

/// The decision about a browser that is about to be redirected to an application.
#[derive(Debug, PartialEq, Eq)]
pub enum RedirectLoopVerdict {
    /// Redirect the browser, and set its cookie to this text.
    Send(Option<String>),
    /// Explain the redirect loop instead.
    Explain,
}

impl Auth {
    /// Counts this redirect of a browser to `url`. `cookie` holds the count of the redirects before it.
    pub fn count_redirect(
        &self,
        cookie: Option<&str>,
        url: &AppUrl,
        redirect: AppRedirect,
    ) -> RedirectLoopVerdict {
        let now_ms = self.runtime().clock.now_ms();
        let to = mac::sha256(&[&redirect.session[..], url.to_string().as_bytes()].concat());
        let before = cookie.and_then(|text| self.open_sealed::<Counted>(PURPOSE, text).ok());
        let before =
            before.filter(|counted| counted.to == to && now_ms.saturating_sub(counted.since_ms) < WINDOW_MS);
        let counted = after(before, to, redirect.asked_at_ms, now_ms);
        if counted.turns >= MOST_TURNS || counted.redirects >= MOST_REDIRECTS {
            return RedirectLoopVerdict::Explain;
        }
        RedirectLoopVerdict::Send(self.seal_for_browser(PURPOSE, &counted).ok())
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
        // A node whose clock is behind never sees a turn; the number of redirects still ends the loop.
        let behind = counted(&[0; 20]);
        assert_eq!((behind.turns, behind.redirects), (1, MOST_REDIRECTS));
    }
}
