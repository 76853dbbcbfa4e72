//! Browsers that have signed in to an account before (OWASP "device cookies"). Their attempts are counted separately,
//! so that guesses from unknown browsers do not lock the owner out of the account.
//!
//! The cookie holds a few *marks*, one for each account that recently signed in here. A mark is an id, its creation
//! time, and a MAC over both and the account. It does not reveal the account, cannot be forged, and is worthless for
//! any other account. It does not authenticate anyone: it only gives the browser a count of its own, within the limit
//! of an account. A thief of the cookie gains that many more password attempts in a window. Each sign-in makes a new
//! mark with a fresh count. The server stores nothing.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use conclave_state::{Stamp, ids::UserId};

use conclave_crypto::{keys::Key, mac};

/// Lifetime of a mark: the longest that browsers keep a cookie (RFC 6265bis §5.5).
pub const LIFETIME: Duration = Duration::from_hours(400 * 24);

/// Maximum number of accounts that one browser is known for, as on a machine that a family shares. A new mark replaces
/// the one of the oldest sign-in.
const MAX_MARKS: usize = 4;

const ID_LEN: usize = 16;
const MAC_LEN: usize = 16;
const MARK_LEN: usize = ID_LEN + size_of::<u64>() + MAC_LEN;

/// The marks in a browser's cookie. A mark is unverified until it is checked against an account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedBrowser(Vec<Mark>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    id: [u8; ID_LEN],
    made_at: Stamp,
    mac: [u8; MAC_LEN],
}

impl TrustedBrowser {
    /// Parses a cookie. An invalid mark is ignored: the browser then counts as unknown, which is not an error.
    pub fn parse(text: &str) -> Self {
        let marks = text.split('.').take(MAX_MARKS);
        Self(marks.filter_map(|mark| Mark::parse(&URL_SAFE_NO_PAD.decode(mark).ok()?)).collect())
    }

    /// The id under which this browser's attempts at the account are counted, if the browser has signed in to it
    /// before.
    pub fn count_of(&self, key: &Key, account: UserId, now: Stamp) -> Option<UserId> {
        let mark = self.0.iter().find(|mark| mark.is_good(key, account, now))?;
        let hash = mac::hmac_sha256(key, &[b"count", account.bytes(), &mark.id]);
        Some(UserId::new(first(&hash)))
    }

    /// The marks after a sign-in to the account: the new mark replaces the account's old one.
    #[must_use]
    pub fn signed_in(&self, key: &Key, account: UserId, id: [u8; ID_LEN], now: Stamp) -> Self {
        let others = self.0.iter().filter(|mark| !mark.is_of(key, account));
        Self(
            std::iter::once(&Mark::new(key, account, id, now))
                .chain(others)
                .take(MAX_MARKS)
                .copied()
                .collect(),
        )
    }

    /// The marks without the account's mark, if it was made under this key.
    #[must_use]
    pub fn without(&self, key: &Key, account: UserId) -> Self {
        Self(self.0.iter().filter(|mark| !mark.is_of(key, account)).copied().collect())
    }

    /// The cookie's value.
    pub fn text(&self) -> String {
        self.0.iter().map(|mark| URL_SAFE_NO_PAD.encode(mark.bytes())).collect::<Vec<_>>().join(".")
    }
}

impl Mark {
    fn new(key: &Key, account: UserId, id: [u8; ID_LEN], made_at: Stamp) -> Self {
        let hash = mac::hmac_sha256(key, &[b"mark", account.bytes(), &id, &made_at.0.to_be_bytes()]);
        Self { id, made_at, mac: first(&hash) }
    }

    fn is_of(&self, key: &Key, account: UserId) -> bool {
        mac::equal(&Self::new(key, account, self.id, self.made_at).mac, &self.mac)
    }

    fn is_good(&self, key: &Key, account: UserId, now: Stamp) -> bool {
        let life_ms = u64::try_from(LIFETIME.as_millis()).unwrap_or(u64::MAX);
        !self.made_at.plus_ms(life_ms).is_over_at(now) && self.is_of(key, account)
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != MARK_LEN {
            return None;
        }
        let (id, rest) = bytes.split_first_chunk()?;
        let (made_at, mac) = rest.split_first_chunk()?;
        Some(Self { id: *id, made_at: Stamp(u64::from_be_bytes(*made_at)), mac: *mac.first_chunk()? })
    }

    fn bytes(&self) -> Vec<u8> {
        [&self.id[..], &self.made_at.0.to_be_bytes(), &self.mac].concat()
    }
}

fn first<const N: usize>(hash: &[u8; 32]) -> [u8; N] {
    let mut out = [0; N];
    out.iter_mut().zip(hash).for_each(|(to, from)| *to = *from);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADA: UserId = UserId::new([1; 16]);
    const BOB: UserId = UserId::new([2; 16]);
    const NOW: Stamp = Stamp(1_800_000_000_000);

    fn key() -> Key {
        Key::new([7; 32])
    }

    fn sent_back(trusted_browser: &TrustedBrowser) -> TrustedBrowser {
        TrustedBrowser::parse(&trusted_browser.text())
    }

    #[test]
    fn a_mark_counts_for_its_account_alone_and_not_for_ever() {
        let trusted_browser = sent_back(&TrustedBrowser::default().signed_in(&key(), ADA, [9; 16], NOW));
        assert!(trusted_browser.count_of(&key(), ADA, NOW).is_some_and(|count| count != ADA));
        assert_eq!(trusted_browser.count_of(&key(), BOB, NOW), None);
        assert_eq!(trusted_browser.count_of(&Key::new([8; 32]), ADA, NOW), None);
        let later = |ms| NOW.plus_ms(ms);
        let life = u64::try_from(LIFETIME.as_millis()).unwrap();
        assert!(trusted_browser.count_of(&key(), ADA, later(life - 1)).is_some());
        assert_eq!(trusted_browser.count_of(&key(), ADA, later(life)), None);
    }

    #[test]
    fn what_was_altered_or_made_up_is_nothing() {
        let good = TrustedBrowser::default().signed_in(&key(), ADA, [9; 16], NOW).text();
        for at in 0..good.len() - 1 {
            let mut bad = good.clone().into_bytes();
            bad[at] = if bad[at] == b'A' { b'B' } else { b'A' };
            let bad = String::from_utf8(bad).unwrap();
            assert_eq!(TrustedBrowser::parse(&bad).count_of(&key(), ADA, NOW), None, "{bad}");
        }
        for odd in ["", ".", "....", "%", &good[1..], &format!("{good}AAAA")] {
            assert_eq!(TrustedBrowser::parse(odd), TrustedBrowser::default(), "{odd}");
        }
    }

    #[test]
    fn a_browser_is_known_for_the_last_few_accounts_and_each_sign_in_counts_anew() {
        let people: Vec<UserId> = (0..6).map(|n| UserId::new([n; 16])).collect();
        let trusted_browser = people.iter().fold(TrustedBrowser::default(), |trusted_browser, person| {
            sent_back(&trusted_browser.signed_in(&key(), *person, *person.bytes(), NOW))
        });
        let known =
            people.iter().filter(|person| trusted_browser.count_of(&key(), **person, NOW).is_some()).count();
        assert_eq!(known, MAX_MARKS);
        let before = trusted_browser.count_of(&key(), people[5], NOW);
        let again = trusted_browser.signed_in(&key(), people[5], [99; 16], NOW);
        assert_eq!(again.0.len(), MAX_MARKS, "its own mark is replaced, nobody's is lost");
        assert_ne!(again.count_of(&key(), people[5], NOW), before);
    }
}
