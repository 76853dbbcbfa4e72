//! A browser that goes back and forth: the check sends it here to sign in, it is signed in already and is sent back, and the check
//! does not know it. Left alone that goes on for ever, and tells nobody why (features.md §2, redirect loops).
//!
//! The count is in a sealed cookie of this site, the one place where the browser's cookies are known to arrive: without them it would
//! be asked for its password instead. The server keeps nothing.

use serde::{Deserialize, Serialize};

use crate::crypto::mac;

use super::{Auth, ticket::AppUrl};

/// The cookie.
pub const COOKIE: &str = "bounces";
/// What its seal is for; it opens as nothing else.
const PURPOSE: &str = "bounces/1";
/// So many times to the same address are explained instead of followed. Once is a sign-in, twice may be a doubled click.
const MOST: u32 = 3;
/// Within so long: a loop takes well below a second a turn.
const WINDOW_MS: u64 = 15_000;

#[derive(Serialize, Deserialize)]
struct Counted {
    to: [u8; 32],
    times: u32,
    since_ms: u64,
}

/// What to do with a browser that is about to be sent to an application.
#[derive(Debug, PartialEq, Eq)]
pub enum Bounce {
    /// Send it, with this text in its cookie.
    Send(Option<String>),
    /// It was just there, twice.
    Explain,
}

impl Auth {
    /// Counts this browser's way to `url`, with what its cookie says of the times before.
    pub fn bounce(&self, cookie: Option<&str>, url: &AppUrl) -> Bounce {
        let now_ms = self.runtime().clock.now_ms();
        let to = mac::sha256(url.to_string().as_bytes());
        let before = cookie.and_then(|text| self.open_sealed::<Counted>(PURPOSE, text).ok());
        let before =
            before.filter(|counted| counted.to == to && now_ms.saturating_sub(counted.since_ms) < WINDOW_MS);
        let Counted { times, since_ms, .. } = before.unwrap_or(Counted { to, times: 0, since_ms: now_ms });
        if times + 1 >= MOST {
            return Bounce::Explain;
        }
        Bounce::Send(self.seal_for_browser(PURPOSE, &Counted { to, times: times + 1, since_ms }).ok())
    }
}
