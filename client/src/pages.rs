//! Complete listings.

use crate::{Error, v1::Page};

/// Rows requested at once: the most that a page holds.
const PAGE_ROWS: u32 = 500;
/// Most pages fetched: an endless listing must not fill the memory. Enough for a million rows of ordinary size.
const MAX_PAGES: usize = 2_000;

/// Fetches all pages and concatenates them. `fetch` returns a page's rows and the token of the next.
///
/// # Errors
/// Those of `fetch`, and a listing without an end.
///
/// ```no_run
/// # async fn example(client: conclave_client::AdminClient) -> Result<(), conclave_client::Error> {
/// use conclave_client::{all_pages, v1};
/// let users = all_pages(async |page| {
///     let answer = client.users().list(v1::ListUsersRequest { page: Some(page) }).await?;
///     Ok((answer.users, answer.next_page_token))
/// })
/// .await?;
/// # Ok(())
/// # }
/// ```
pub async fn all_pages<T>(
    fetch: impl AsyncFn(Page) -> Result<(Vec<T>, String), Error>,
) -> Result<Vec<T>, Error> {
    let (mut all, mut token) = (Vec::new(), String::new());
    for _ in 0..MAX_PAGES {
        let (rows, next) = fetch(Page { size: PAGE_ROWS, token }).await?;
        all.extend(rows);
        if next.is_empty() {
            return Ok(all);
        }
        token = next;
    }
    Err(Error::InvalidArgument("the listing is too long to be fetched as a whole".into()))
}
