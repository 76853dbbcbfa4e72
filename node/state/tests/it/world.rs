//! A small world for tests: numbered ids, a log of entries, and short constructors of commands.

use conclave_proto::command::v1::{self as pb, command::Body};
use conclave_state::{ApplyResult, Halt, IndexedEntry, Reason, Reply, ReplyBody, State, apply};
use prost::Message as _;

pub(crate) const MINUTE: u64 = 60_000;
pub(crate) const WINDOW: u64 = 30_000;

/// A readable 16-byte id.
pub(crate) fn id(kind: u8, number: u8) -> Vec<u8> {
    let mut bytes = vec![kind; 16];
    bytes[15] = number;
    bytes
}

pub(crate) fn hash(number: u8) -> Vec<u8> {
    vec![number; 32]
}

pub(crate) fn user(n: u8) -> Vec<u8> {
    id(1, n)
}
pub(crate) fn group(n: u8) -> Vec<u8> {
    id(2, n)
}
pub(crate) fn application(n: u8) -> Vec<u8> {
    id(3, n)
}
pub(crate) fn session(n: u8) -> Vec<u8> {
    id(4, n)
}
pub(crate) fn grant(n: u8) -> Vec<u8> {
    id(5, n)
}
pub(crate) fn family(n: u8) -> Vec<u8> {
    id(6, n)
}
pub(crate) fn ticket(n: u8) -> Vec<u8> {
    id(7, n)
}

/// The bytes of a log entry.
pub(crate) fn encode(at_ms: u64, request: &[u8], body: Body) -> Vec<u8> {
    let command = pb::Command { request_id: request.to_vec(), body: Some(body) };
    pb::LogEntry { at_ms, command: command.encode_to_vec() }.encode_to_vec()
}

/// A state, its log position and its clock.
pub(crate) struct World {
    pub state: State,
    pub index: u64,
    pub now: u64,
    request: u64,
}

impl World {
    pub(crate) fn new() -> Self {
        Self { state: State::default(), index: 0, now: 1_000_000, request: 0 }
    }

    /// A world with user 1 in group 1, application 1 for that group on `app.test`, and two clients.
    pub(crate) fn seeded() -> Self {
        let mut world = Self::new();
        world.ok(create_group(1));
        world.ok(create_user(1, &[1]));
        world.ok(create_user(2, &[]));
        world.ok(create_application(1, &[1]));
        world.ok(create_client("web", &[]));
        world.ok(create_client("app", &application(1)));
        world
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) -> Result<ApplyResult, Halt> {
        self.index += 1;
        let applied = apply(&self.state, &IndexedEntry { index: self.index, bytes })?;
        self.state = applied.state.clone();
        Ok(applied)
    }

    pub(crate) fn run(&mut self, body: Body) -> Reply {
        self.request += 1;
        let request = u128::from(self.request).to_be_bytes();
        self.raw(&encode(self.now, &request, body)).expect("known command").reply
    }

    #[track_caller]
    pub(crate) fn ok(&mut self, body: Body) -> ReplyBody {
        match self.run(body).body.expect("a body") {
            ReplyBody::Refused(refused) => panic!("refused: {refused:?}"),
            body => body,
        }
    }

    #[track_caller]
    pub(crate) fn refused(&mut self, body: Body) -> Reason {
        match self.run(body).body.expect("a body") {
            ReplyBody::Refused(refused) => refused.reason(),
            body => panic!("not refused: {body:?}"),
        }
    }
}

pub(crate) fn create_user(n: u8, groups: &[u8]) -> Body {
    Body::CreateUser(pb::CreateUser {
        user_id: user(n),
        username: format!("user{n}"),
        email: format!("user{n}@example.test"),
        group_ids: groups.iter().map(|g| group(*g)).collect(),
        password_phc: "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$aGFzaGhhc2g".into(),
        ..Default::default()
    })
}

pub(crate) fn create_group(n: u8) -> Body {
    Body::CreateGroup(pb::CreateGroup {
        group_id: group(n),
        name: format!("group{n}"),
        description: String::new(),
    })
}

pub(crate) fn create_application(n: u8, groups: &[u8]) -> Body {
    Body::CreateApplication(pb::CreateApplication {
        serve_known_for_ms: 0,
        application_id: application(n),
        slug: format!("app{n}"),
        name: "App".into(),
        hosts: vec![format!("app{n}.test")],
        access: Some(pb::Access { everyone: false, group_ids: groups.iter().map(|g| group(*g)).collect() }),
        ..Default::default()
    })
}

pub(crate) fn create_client(client_id: &str, application_id: &[u8]) -> Body {
    Body::CreateClient(pb::CreateClient {
        client_id: client_id.into(),
        name: client_id.into(),
        auth_method: pb::ClientAuthMethod::SecretBasic.into(),
        secret_hash: hash(1),
        redirect_uris: vec!["https://rp.test/cb".into()],
        scopes: vec!["openid".into(), "offline_access".into()],
        signing_algorithm: pb::SigningAlgorithm::Rs256.into(),
        consent: pb::ConsentMode::Implicit.into(),
        application_id: application_id.to_vec(),
        back_channel_logout_uri: "https://rp.test/bcl".into(),
        ..Default::default()
    })
}

pub(crate) fn issue(n: u8, client_id: &str, scopes: &[&str]) -> pb::IssueCode {
    pb::IssueCode {
        grant_id: grant(n),
        session_id: session(n),
        client_id: client_id.into(),
        redirect_uri: "https://rp.test/cb".into(),
        scopes: scopes.iter().map(ToString::to_string).collect(),
        nonce: "n".into(),
        code_challenge: hash(7),
        secret_hash: hash(8),
        code_ttl_ms: MINUTE,
        ..Default::default()
    }
}

impl World {
    /// The credential version against which a login of this user is verified.
    fn credential_version(&self, n: u8) -> u64 {
        let id = conclave_state::ids::UserId::parse(&user(n)).unwrap();
        self.state.password(id).map_or(0, |p| p.version)
    }

    /// A sign-in of user `u` as session, ticket and grant `n`, with a code when `client` is given.
    pub(crate) fn start(&self, n: u8, u: u8, client: Option<(&str, &[&str])>) -> pb::StartSession {
        pb::StartSession {
            session_id: session(n),
            user_id: user(u),
            secret_hash: hash(9),
            ticket_id: ticket(n),
            ticket_expires_at_ms: self.now + 10 * MINUTE,
            amr: vec!["pwd".into()],
            ttl_ms: 600 * MINUTE,
            credential_version: self.credential_version(u),
            code: client.map(|(client, scopes)| issue(n, client, scopes)),
            ..Default::default()
        }
    }

    /// Signs user 1 in as `n`, redeems the code of `web`, and leaves refresh family `n` at generation 1.
    pub(crate) fn signed_in(&mut self, n: u8, scopes: &[&str]) {
        let start = self.start(n, 1, Some(("web", scopes)));
        self.ok(Body::StartSession(start));
        self.ok(redeem(n, "web"));
    }
}

pub(crate) fn redeem(n: u8, client_id: &str) -> Body {
    Body::RedeemCode(pb::RedeemCode {
        grant_id: grant(n),
        secret_hash: hash(8),
        client_id: client_id.into(),
        redirect_uri: "https://rp.test/cb".into(),
        code_challenge: hash(7),
        family_id: family(n),
        refresh_ttl_ms: 6_000 * MINUTE,
        access_ttl_ms: 10 * MINUTE,
        ..Default::default()
    })
}

pub(crate) fn rotate(n: u8, generation: u64) -> Body {
    Body::RotateRefresh(pb::RotateRefresh {
        family_id: family(n),
        client_id: "web".into(),
        generation,
        retry_window_ms: WINDOW,
        access_ttl_ms: 10 * MINUTE,
        ..Default::default()
    })
}

/// A DPoP proof that is remembered until this time.
pub(crate) fn proof(n: u8, expires_at_ms: u64) -> pb::SpentProof {
    pb::SpentProof {
        kind: pb::spent_proof::Kind::Dpop.into(),
        proof_id: id(11, n),
        expires_at_ms,
        ..Default::default()
    }
}

/// A provider that admits no new user.
pub(crate) fn provider(name: &str) -> pb::Upstream {
    pb::Upstream {
        name: name.into(),
        display_name: "Corp".into(),
        issuer: "https://corp.test".into(),
        client_id: "conclave".into(),
        sealed_secret: b"sealed".to_vec(),
        scopes: vec!["openid".into()],
        ..Default::default()
    }
}

/// A rule that admits every new user or none, into these groups.
pub(crate) fn rule(any: bool, groups: &[u8]) -> pb::UpstreamRule {
    let admission = if any { pb::UpstreamAdmission::Any } else { pb::UpstreamAdmission::None };
    pb::UpstreamRule {
        admission: admission.into(),
        domains: Vec::new(),
        group_ids: groups.iter().map(|g| group(*g)).collect(),
        ..Default::default()
    }
}

pub(crate) fn create_provider(name: &str, any: bool, groups: &[u8]) -> Body {
    let upstream = pb::Upstream { rule: Some(rule(any, groups)), ..provider(name) };
    Body::CreateUpstream(pb::CreateUpstream { upstream: Some(upstream) })
}

/// `session` links the subject `n` at `corp`.
pub(crate) fn link(ticket_number: u8, session_number: u8, n: u8, ticket_expires_at_ms: u64) -> Body {
    Body::LinkIdentity(pb::LinkIdentity {
        upstream: "corp".into(),
        subject: format!("sub-{n}"),
        label: "ada@corp.test".into(),
        session_id: session(session_number),
        max_age_ms: 10 * MINUTE,
        ticket_id: ticket(ticket_number),
        ticket_expires_at_ms,
        ..Default::default()
    })
}

/// Subject `n` signs in at `corp`, as `known`, or as a new user.
pub(crate) fn sign_in(number: u8, n: u8, new: Option<u8>, known: u8, now: u64) -> pb::SignInUpstream {
    pb::SignInUpstream {
        session: Some(pb::StartSession {
            session_id: session(number),
            user_id: user(new.unwrap_or(known)),
            secret_hash: hash(9),
            ticket_id: ticket(number),
            ticket_expires_at_ms: now + 60 * MINUTE,
            amr: vec!["fed".into()],
            ttl_ms: 600 * MINUTE,
            ..Default::default()
        }),
        upstream: "corp".into(),
        subject: format!("sub-{n}"),
        label: "ada@corp.test".into(),
        new_user: new.map(|u| pb::CreateUser {
            user_id: user(u),
            username: format!("new{u}"),
            email: "New@Corp.test".into(),
            email_verified: true,
            group_ids: vec![group(3)],
            password_phc: "$argon2id$v=19$m=19456,t=2,p=1$bmV3$bmV3".into(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// The smallest bytes that begin like a JPEG.
pub(crate) fn jpeg(n: u8) -> Vec<u8> {
    vec![0xff, 0xd8, 0xff, n]
}

/// Sets this user's picture.
pub(crate) fn set_picture(number: u8, picture: u8) -> Body {
    Body::SetPicture(pb::SetPicture {
        user_id: user(number),
        jpeg: jpeg(picture),
        source: format!("picture {picture}"),
    })
}
