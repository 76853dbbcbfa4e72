//! The public profile of a user on their own server: a name and a picture. It is read without a token. A server that
//! fails or is slow never prevents the sign-in.

use std::time::Duration;

use conclave_proto::command::v1::{SetPicture, command::Body};
use serde_json::Value;
use tokio::{sync::Semaphore, task::spawn_blocking, time::timeout};
use url::form_urlencoded::Serializer;

use super::{Atproto, avatar, net::Net, resolve::ResolvedIdentity};
use conclave_auth::write_key::WriteKey;

/// Time limit for a sign-in to wait for the profile.
const LIMIT: Duration = Duration::from_secs(2);
/// Maximum number of pictures fetched and re-encoded at once on a node: each may take some 150 MiB for a moment.
static AT_ONCE: Semaphore = Semaphore::const_new(2);
/// Maximum length of a name, characters: the limit of the network itself.
const MAX_NAME_CHARS: usize = 64;
/// Maximum length of an accepted content identifier.
const MAX_CID_BYTES: usize = 100;
/// Prefix of a picture's source. Pictures from other sources are not replaced here.
const SOURCE: &str = "atproto:";

/// A user's public profile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Profile {
    /// Empty if there is none.
    pub name: String,
    /// The content identifier of the picture.
    avatar: Option<String>,
    pds: String,
}

/// Reads the profile; `None` if the server does not return one.
pub(crate) async fn read(net: &Net, resolved: &ResolvedIdentity) -> Option<Profile> {
    let record =
        [("repo", resolved.did.as_str()), ("collection", "app.bsky.actor.profile"), ("rkey", "self")];
    let url = call(&resolved.pds, "com.atproto.repo.getRecord", &record);
    let answer = timeout(LIMIT, net.json(&url)).await;
    let answer = answer.inspect_err(|_| tracing::debug!("a profile took too long")).ok()?;
    let found = answer.inspect_err(|error| tracing::debug!("a profile cannot be read: {error}")).ok()??;
    Some(Profile { pds: resolved.pds.clone(), ..parse_profile(found.get("value")?) })
}

/// The profile in a record (`app.bsky.actor.profile`).
fn parse_profile(record: &Value) -> Profile {
    let name = record.get("displayName").and_then(Value::as_str).unwrap_or_default();
    let cid = record.pointer("/avatar/ref/$link").and_then(Value::as_str);
    let is_cid = |cid: &&str| {
        !cid.is_empty() && cid.len() <= MAX_CID_BYTES && cid.bytes().all(|byte| byte.is_ascii_alphanumeric())
    };
    Profile { name: plain(name), avatar: cid.filter(is_cid).map(str::to_owned), pds: String::new() }
}

/// Removes control characters, invisible characters and characters that change the text direction (Unicode TR36 §3.3);
/// the result is one line.
fn plain(text: &str) -> String {
    let is_hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{61c}')
    };
    let visible: String = text.chars().filter(|c| !is_hidden(*c)).take(MAX_NAME_CHARS).collect();
    visible.trim().to_owned()
}

fn call(pds: &str, method: &str, query: &[(&str, &str)]) -> String {
    let query = Serializer::new(String::new()).extend_pairs(query).finish();
    format!("{}/xrpc/{method}?{query}", pds.trim_end_matches('/'))
}

/// Copies the picture of a user who has just signed in, if it has changed. The sign-in does not wait for it, and the
/// next sign-in tries again.
pub(crate) async fn take_over(atproto: Atproto, upstream: String, did: String, profile: Profile) {
    let Ok(_place) = AT_ONCE.try_acquire() else { return };
    let auth = &atproto.site.auth;
    let view = auth.cluster().view();
    let Some(user) = view.identity(&upstream, &did).map(|identity| identity.user) else { return };
    let source = profile.avatar.as_ref().map(|cid| format!("{SOURCE}{cid}"));
    let now = view.picture_of(user).map(|picture| picture.source.as_str());
    if now == source.as_deref() || now.is_some_and(|now| !now.starts_with(SOURCE)) {
        return;
    }
    let jpeg = match &profile.avatar {
        Some(cid) => match fetch_avatar(atproto.net(), &profile.pds, &did, cid).await {
            Some(jpeg) => jpeg,
            None => return,
        },
        None => Vec::new(),
    };
    let command = SetPicture { user_id: user.to_vec(), jpeg, source: source.unwrap_or_default() };
    let write_key = WriteKey::fresh(&auth.deriving_keys().request, &*auth.runtime().entropy);
    if let Err(error) = auth.cluster().propose(write_key.request(), Body::SetPicture(command)).await {
        tracing::debug!("a picture was not kept: {error}");
    }
}

async fn fetch_avatar(net: &Net, pds: &str, did: &str, cid: &str) -> Option<Vec<u8>> {
    let url = call(pds, "com.atproto.sync.getBlob", &[("did", did), ("cid", cid)]);
    let fetched = net.picture(&url).await;
    let bytes = fetched.inspect_err(|error| tracing::debug!("a picture cannot be read: {error}")).ok()??;
    let drawn = spawn_blocking(move || avatar::drawn_anew(&bytes)).await.ok()?;
    drawn.inspect_err(|error| tracing::debug!("a picture cannot be shown: {error}")).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_are_short_and_hide_nothing() {
        let parse_name = |name: &str| parse_profile(&json!({"displayName": name})).name;
        assert_eq!(parse_name("  Ada \u{1f9ee} Lovelace\n"), "Ada \u{1f9ee} Lovelace");
        assert_eq!(parse_name("\u{202e}nimda\u{200b}\u{feff}\u{7}"), "nimda");
        assert_eq!(parse_name(&"x".repeat(1_000)).chars().count(), MAX_NAME_CHARS);
        assert_eq!(parse_name("\u{200d}"), "");
    }

    #[test]
    fn a_picture_is_named_by_a_content_identifier_or_there_is_none() {
        let avatar =
            |link: Value| parse_profile(&json!({"avatar": {"$type": "blob", "ref": {"$link": link}}})).avatar;
        assert_eq!(avatar(json!("bafkreib2rxk3rh6kzwq")), Some("bafkreib2rxk3rh6kzwq".into()));
        for wrong in [json!(""), json!("../x"), json!("a&did=other"), json!(7), json!("a".repeat(101))] {
            assert_eq!(avatar(wrong.clone()), None, "{wrong}");
        }
        assert_eq!(parse_profile(&json!([])), Profile::default());
    }
}
