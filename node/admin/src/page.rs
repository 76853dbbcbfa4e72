//! Listings: pages in the order of ids. A page token contains the last row of the page before. A MAC covers it together
//! with the name of the listing, so that a token can neither be forged nor be used for another listing.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use conclave_proto::admin::v1 as pb;
use prost::Message;
use tonic::Status;

use conclave_crypto::{keys::Key, mac};

use super::{Api, errors};

/// The rows of a page if the request does not name a size.
const DEFAULT_ROWS: u32 = 100;
/// The most rows of a page.
const MAX_ROWS: u32 = 500;
/// The size at which a page is full, whatever its rows: a response stays well below
/// [`super::server::MAX_MESSAGE_BYTES`].
const FULL_BYTES: usize = 512 * 1024;
/// The longest token that is parsed: the longest key is a client id of 128 bytes.
const MAX_TOKEN_BYTES: usize = 256;

const MAC_LEN: usize = 16;

/// One page of one listing.
pub(super) struct Listing {
    /// The first key makes new tokens.
    keys: Vec<Key>,
    name: String,
    rows: usize,
    after: Vec<u8>,
}

impl Api {
    /// Opens a page; `name` is the name of the listing, including its filter.
    pub(crate) fn listing(&self, name: impl Into<String>, page: Option<pb::Page>) -> Result<Listing, Status> {
        let keys: Vec<_> = self.auth.cluster_keys().all().map(|keys| keys.page.clone()).collect();
        Listing::open(keys, name.into(), &page.unwrap_or_default())
    }
}

impl Listing {
    fn open(keys: Vec<Key>, name: String, page: &pb::Page) -> Result<Self, Status> {
        let rows = match page.size {
            0 => DEFAULT_ROWS,
            size if size <= MAX_ROWS => size,
            _ => return Err(errors::invalid(format!("page.size is at most {MAX_ROWS}"))),
        };
        let mut listing = Self { keys, name, rows: rows as usize, after: Vec::new() };
        if !page.token.is_empty() {
            listing.after = listing.read(&page.token).ok_or_else(bad_token)?;
        }
        Ok(listing)
    }

    /// The row after which the page begins, if this is not the first page.
    pub(crate) fn after<I>(&self, parse: impl Fn(&[u8]) -> Option<I>) -> Result<Option<I>, Status> {
        if self.after.is_empty() {
            return Ok(None);
        }
        parse(&self.after).map(Some).ok_or_else(bad_token)
    }

    /// One page of `rows`, and the token of the next. The rows begin after [`after`](Self::after), each with its key.
    pub(crate) fn page<M: Message>(&self, rows: impl Iterator<Item = (Vec<u8>, M)>) -> (Vec<M>, String) {
        let (mut page, mut bytes, mut last) = (Vec::new(), 0_usize, Vec::new());
        for (key, row) in rows {
            if page.len() >= self.rows || bytes >= FULL_BYTES {
                return (page, self.token(&last));
            }
            bytes += row.encoded_len();
            page.push(row);
            last = key;
        }
        (page, String::new())
    }

    fn token(&self, after: &[u8]) -> String {
        let mac = self.keys.first().map(|key| self.mac(key, after)).unwrap_or_default();
        URL_SAFE_NO_PAD.encode([after, &mac].concat())
    }

    fn read(&self, token: &str) -> Option<Vec<u8>> {
        if token.len() > MAX_TOKEN_BYTES {
            return None;
        }
        let mut bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let mac = bytes.split_off(bytes.len().checked_sub(MAC_LEN)?);
        let is_ours = self.keys.iter().any(|key| mac::equal(&mac, &self.mac(key, &bytes)));
        (is_ours && !bytes.is_empty()).then_some(bytes)
    }

    fn mac(&self, key: &Key, after: &[u8]) -> Vec<u8> {
        let mut mac = mac::hmac_sha256(key, &[self.name.as_bytes(), after]).to_vec();
        mac.truncate(MAC_LEN);
        mac
    }
}

fn bad_token() -> Status {
    errors::invalid("page.token does not belong to this listing; begin again without one")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(name: &str, size: u32, token: &str) -> Result<Listing, Status> {
        Listing::open(vec![Key::new([1; 32])], name.into(), &pb::Page { size, token: token.into() })
    }

    fn numbers(listing: &Listing) -> (Vec<u8>, String) {
        let after = listing.after(|bytes| bytes.first().copied()).unwrap();
        let rows = (after.map_or(0, |n| n + 1)..5)
            .map(|n| (vec![n], pb::Page { size: n.into(), token: String::new() }));
        let (page, token) = listing.page(rows);
        (page.into_iter().map(|row| u8::try_from(row.size).unwrap()).collect(), token)
    }

    #[test]
    fn pages_follow_each_other_and_end() {
        let (first, token) = numbers(&open("n", 2, "").unwrap());
        let (second, token) = numbers(&open("n", 2, &token).unwrap());
        let (third, end) = numbers(&open("n", 2, &token).unwrap());
        assert_eq!((first, second, third, end), (vec![0, 1], vec![2, 3], vec![4], String::new()));
        assert_eq!(numbers(&open("n", 5, "").unwrap()).1, "", "a page that holds the rest has no next");
    }

    #[test]
    fn a_page_of_large_rows_is_shorter() {
        let row = |n: u8| (vec![n], pb::Page { size: 1, token: "x".repeat(FULL_BYTES / 2) });
        let (page, token) = open("n", 500, "").unwrap().page((0..10).map(row));
        assert_eq!(page.len(), 2);
        assert!(!token.is_empty());
    }

    #[test]
    fn tokens_of_another_listing_and_made_up_ones_are_refused() {
        let (_, token) = numbers(&open("n", 2, "").unwrap());
        assert!(open("n", 2, &token).is_ok());
        let altered = format!("B{}", &token[1..]);
        let empty = open("n", 2, "").unwrap().token(&[]);
        for (name, bad) in [
            ("m", token.as_str()),
            ("n", altered.as_str()),
            ("n", "AA"),
            ("n", "%"),
            ("n", &empty),
            ("n", &"A".repeat(500)),
        ] {
            assert_eq!(
                open(name, 2, bad).err().map(|s| s.code()),
                Some(tonic::Code::InvalidArgument),
                "{bad}"
            );
        }
        assert!(open("n", MAX_ROWS + 1, "").is_err());
    }
}
