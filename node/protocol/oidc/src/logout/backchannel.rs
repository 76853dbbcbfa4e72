//! Back-channel logout (OIDC Back-Channel Logout 1.0): the leader notifies each client of a session that has ended.
//!
//! The pending notices are in the replicated outbox, so that the next leader continues where this one stopped. A client
//! is notified at least once: a notice leaves the outbox by a command after the client accepted it. If a leader dies in
//! between, the next one sends the notice again, under the same `jti`. The number of attempts is only in this leader's
//! memory; a notice is given up by its age.

use std::{collections::BTreeMap, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use conclave_proto::command::v1::{AcknowledgeOutbox, command::Body};
use conclave_state::{
    State,
    client::Client,
    ids::SessionId,
    outbox::{OutboxEffect, OutboxItem},
};
use serde_json::{Value, json};

use conclave_auth::{Auth, write_key::WriteKey};
use conclave_crypto::mac;
use conclave_http::Outbound;

/// `typ` of logout tokens (§2.4).
const LOGOUT_TYP: &str = "logout+jwt";
/// The one event of a logout token.
const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";
/// Lifetime of a logout token: §2.4 recommends two minutes at most.
const TOKEN_LIFE_SECS: u64 = 120;
/// The interval at which the leader checks the outbox. Checking an empty one costs nothing.
const PERIOD: Duration = Duration::from_millis(250);
/// Maximum number of clients notified concurrently, so that a slow one delays few others.
const AT_ONCE: usize = 32;
/// Maximum number of rows handled in one round.
const MAX_LOOKED_AT: usize = 10_000;
/// The pause after the first failure; it doubles up to the longest.
const FIRST_PAUSE_MS: u64 = 1_000;
const LONGEST_PAUSE_MS: u64 = 60_000;
/// A client that accepted no notice for this long is given up. Its own sessions expire by themselves.
const GIVE_UP_AFTER_MS: u64 = 3_600_000;

/// The failed attempts so far.
#[derive(Clone, Copy, Debug)]
struct Failed {
    times: u32,
    again_at_ms: u64,
}

/// A notice that is ready to be sent.
struct Notice {
    sequence: u64,
    uri: String,
    client: String,
    token: String,
    by_administrator: bool,
}

/// The decision about a row of the outbox.
enum DueAction {
    Deliver(Notice),
    /// No client is left to be notified.
    Over,
    /// It cannot be signed at the moment.
    Later,
}

/// Empties the outbox while this node leads.
pub struct Announcer {
    auth: Auth,
    /// Sends to addresses of clients that registered themselves.
    outbound: Outbound,
    /// Sends to addresses that an administrator configured.
    trusted: Outbound,
    failed: BTreeMap<u64, Failed>,
}

impl Announcer {
    pub fn new(auth: Auth, outbound: Outbound) -> Self {
        let trusted = outbound.for_administrators();
        Self { auth, outbound, trusted, failed: BTreeMap::new() }
    }

    /// Runs until the task is aborted or the process ends.
    pub async fn run(mut self) {
        let mut ticks = tokio::time::interval(PERIOD);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.round().await;
        }
    }

    /// Sends the notices that are due, once. Returns how many left the outbox.
    pub async fn round(&mut self) -> usize {
        if !self.auth.cluster().is_leader() {
            self.failed.clear();
            self.auth.notices().clear();
            return 0;
        }
        let state = self.auth.cluster().view();
        let now_ms = self.auth.now(&state).0;
        let due = self.due(&state, now_ms);
        self.failed.retain(|sequence, _| state.outbox_item(*sequence).is_some());
        self.auth.notices().keep_waiting(&state);
        let (mut over, mut notices) = (Vec::new(), Vec::new());
        for item in due {
            match self.judge(&state, &item, now_ms) {
                DueAction::Deliver(notice) => notices.push(notice),
                DueAction::Over => over.push(item.sequence),
                DueAction::Later => self.put_off(item.sequence, now_ms),
            }
        }
        let delivered =
            futures_util::future::join_all(notices.iter().map(|notice| self.deliver(notice))).await;
        for (notice, delivered) in notices.iter().zip(delivered) {
            if delivered {
                over.push(notice.sequence);
            } else {
                self.put_off(notice.sequence, now_ms);
            }
        }
        self.acknowledge(over).await
    }

    fn due(&self, state: &State, now_ms: u64) -> Vec<OutboxItem> {
        let is_due = |item: &&std::sync::Arc<OutboxItem>| {
            self.failed.get(&item.sequence).is_none_or(|failed| failed.again_at_ms <= now_ms)
        };
        let waiting = state.outbox().take(MAX_LOOKED_AT).filter(is_due);
        waiting.take(AT_ONCE).map(|item| (**item).clone()).collect()
    }

    fn judge(&self, state: &State, item: &OutboxItem, now_ms: u64) -> DueAction {
        let OutboxEffect::BackChannelLogout { client, session, user } = &item.effect;
        let client = state.client(client.as_str()).filter(|client| !client.disabled);
        let Some(client) = client.filter(|client| !client.back_channel_logout_uri.is_empty()) else {
            return DueAction::Over;
        };
        if now_ms.saturating_sub(item.created_at.0) > GIVE_UP_AFTER_MS {
            tracing::warn!(client.id = %client.id, session.id = %session, "a logout notice was given up: the client accepted none for an hour");
            return DueAction::Over;
        }
        // A user deleted meanwhile is named by the session alone.
        let Ok(subject) = state.user(*user).map(|user| self.auth.subject(client, user)).transpose() else {
            return DueAction::Later;
        };
        let claims = self.claims(client, *session, subject, item.sequence, now_ms);
        let signer = self.auth.signing().signer(state, client.signing_algorithm);
        match signer.ok().and_then(|key| key.sign(LOGOUT_TYP, &claims).ok()) {
            Some(token) => DueAction::Deliver(Notice {
                sequence: item.sequence,
                uri: client.back_channel_logout_uri.clone(),
                client: client.id.to_string(),
                token,
                by_administrator: !client.is_self_registered(),
            }),
            None => DueAction::Later,
        }
    }

    fn claims(
        &self,
        client: &Client,
        session: SessionId,
        subject: Option<String>,
        sequence: u64,
        now_ms: u64,
    ) -> Value {
        let iat = now_ms / 1_000;
        let key = &self.auth.deriving_keys().request;
        let jti = mac::hmac_sha256(key, &[b"logout", session.bytes(), &sequence.to_be_bytes()]);
        let mut claims = json!({
            "iss": self.auth.settings().public_url.issuer(),
            "aud": client.id.as_str(),
            "iat": iat,
            "exp": iat + TOKEN_LIFE_SECS,
            "jti": URL_SAFE_NO_PAD.encode(jti.first_chunk::<16>().unwrap_or(&[0; 16])),
            "sid": session.to_string(),
            "events": { EVENT: {} },
        });
        if let (Some(subject), Some(members)) = (subject, claims.as_object_mut()) {
            members.insert("sub".into(), json!(subject));
        }
        claims
    }

    async fn deliver(&self, notice: &Notice) -> bool {
        let outbound = if notice.by_administrator { &self.trusted } else { &self.outbound };
        let why = match outbound.post_form(&notice.uri, &[("logout_token", &notice.token)]).await {
            Ok(status) if status.is_success() => return true,
            Ok(status) => format!("the client answered {status}"),
            Err(error) => error.to_string(),
        };
        tracing::warn!(
            { client.id = %notice.client, error = %why },
            "the logout notice to client {} failed and will be sent again: {why}; see conclave session notices",
            notice.client
        );
        self.auth.notices().failed(notice.sequence, why);
        false
    }

    fn put_off(&mut self, sequence: u64, now_ms: u64) {
        let times = self.failed.get(&sequence).map_or(0, |failed| failed.times);
        let pause = FIRST_PAUSE_MS.checked_shl(times).unwrap_or(LONGEST_PAUSE_MS).min(LONGEST_PAUSE_MS);
        let failed = Failed { times: times.saturating_add(1), again_at_ms: now_ms.saturating_add(pause) };
        self.failed.insert(sequence, failed);
    }

    async fn acknowledge(&mut self, sequence_numbers: Vec<u64>) -> usize {
        if sequence_numbers.is_empty() {
            return 0;
        }
        let count = sequence_numbers.len();
        let write_key = WriteKey::fresh(&self.auth.deriving_keys().request, &*self.auth.runtime().entropy);
        let command = Body::AcknowledgeOutbox(AcknowledgeOutbox { sequence_numbers });
        match self.auth.cluster().propose(write_key.request(), command).await {
            Ok(_) => count,
            Err(error) => {
                tracing::info!(%error, "logout notices stay in the outbox and will be sent again");
                0
            }
        }
    }
}
