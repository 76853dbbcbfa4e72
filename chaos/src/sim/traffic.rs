//! Clients at one node: they sign in, are checked, redeem codes, and revoke. All their operations are recorded in the
//! history.

use std::{sync::Arc, time::Duration};

use conclave_cluster::{Cluster, CommittedWrite, ProposeError};
use conclave_proto::command::v1::{self as pb, command::Body};
use conclave_state::{
    ReplyBody, State,
    ids::{RequestId, SessionId, UserId},
};
use tokio::time::sleep;

use super::{
    SimPlan, judge,
    world::{KnownSession, OperatorCommand, ScriptStage, SimWorld},
};
use crate::{history::Seen, random::Random};

/// The reason for the end of a node that its operator stopped.
pub(super) const STOPPED_IN_ORDER: &str = "stopped in order";
const CLIENT: &str = "app";
const REDIRECT_URI: &str = "https://app.test/callback";
const USER: [u8; 16] = [1; 16];
const SECRET: [u8; 32] = [9; 32];
const CHALLENGE: [u8; 32] = [8; 32];
const HOUR_MS: u64 = 3_600_000;
const MINUTE_MS: u64 = 60_000;
/// The number of retries of a write whose outcome is unknown.
const AGAIN: u32 = 2;
/// The interval at which a node looks for operator commands; under a plan, at every step of the simulation.
const LOOK: Duration = Duration::from_millis(20);
const LOOK_OF_A_PLAN: Duration = Duration::from_millis(1);

/// Runs one client until the process ends.
pub(super) async fn visit(world: Arc<SimWorld>, node: u64, number: u64, cluster: Cluster) {
    let random = Random::new(world.seed.wrapping_mul(7_919).wrapping_add(node * 1_009 + number));
    let mut client = SimClient { world, node, cluster, random };
    client.seed_users().await;
    loop {
        sleep(Duration::from_millis(2 + client.random.below(40))).await;
        match client.world.stage() {
            ScriptStage::Faults => client.act().await,
            ScriptStage::Proof => client.prove().await,
            ScriptStage::Quiet => return,
        }
    }
}

/// Checks the most recently revoked sessions as fast as possible: this detects a node that is behind.
pub(super) async fn watch(world: Arc<SimWorld>, node: u64, cluster: Cluster) {
    let random = Random::new(world.seed.wrapping_mul(104_729).wrapping_add(node));
    let mut watcher = SimClient { world, node, cluster, random };
    while watcher.world.stage() == ScriptStage::Faults {
        sleep(Duration::from_millis(1 + watcher.random.below(4))).await;
        let Some(known) = watcher.world.revoked_last(&mut watcher.random) else { continue };
        if watcher.world.plan == SimPlan::Storm {
            watcher.check(&known).await;
            continue;
        }
        // A check at a node that is behind waits for seconds; the next one may find a lease in force.
        let (world, cluster) = (Arc::clone(&watcher.world), watcher.cluster.clone());
        let one = SimClient { world, node, cluster, random: Random::new(0) };
        tokio::spawn(async move { one.check(&known).await });
    }
}

/// Runs the operator's commands at this node.
pub(super) async fn run_operator_commands(world: Arc<SimWorld>, node: u64, cluster: Cluster) {
    let random = Random::new(world.seed.wrapping_mul(611_953).wrapping_add(node));
    let mut operator = SimClient { world, node, cluster, random };
    let look = if operator.world.plan == SimPlan::Storm { LOOK } else { LOOK_OF_A_PLAN };
    loop {
        sleep(look).await;
        let Some(command) = operator.world.take_command(node) else { continue };
        operator.run_operator_commands(command).await;
        operator.world.order_is_carried_out();
    }
}

struct SimClient {
    world: Arc<SimWorld>,
    node: u64,
    cluster: Cluster,
    random: Random,
}

impl SimClient {
    async fn run_operator_commands(&mut self, command: OperatorCommand) {
        let cluster = &self.cluster;
        match command {
            OperatorCommand::Compact => {
                // The operator repeats the command, so a failure is ignored.
                let _ = cluster.compact().await;
                self.world.history.count("snapshots");
            }
            OperatorCommand::Stop => {
                self.world.stopped(self.node, STOPPED_IN_ORDER.into());
                cluster.transfer_leadership().await;
                cluster.shutdown().await;
                self.world.ended(self.node);
            }
            OperatorCommand::SignIn => {
                self.seed_users().await;
                self.sign_in().await;
            }
            OperatorCommand::Revoke => self.revoke().await,
            OperatorCommand::CreateUser => {
                self.create_user().await;
            }
            OperatorCommand::Look => {
                if let Ok(state) = self.cluster.serving_view(0).await {
                    self.world.broken(judge::missing(&self.world, self.node, &state));
                }
            }
        }
    }

    /// Creates the client and the user that all clients use. The first client writes them; all use the same request
    /// ids.
    async fn seed_users(&mut self) {
        for (name, body) in [(1, client()), (2, user(USER, "visitor".into()))] {
            while !self.world.seeded(false) {
                let request = RequestId::new([name; 16]);
                match self.cluster.propose(request, body.clone()).await {
                    Ok(_) | Err(ProposeError::Refused(_)) => break,
                    Err(_) => sleep(Duration::from_millis(50)).await,
                }
            }
        }
        self.world.seeded(true);
    }

    async fn act(&mut self) {
        match self.random.below(100) {
            0..14 => self.sign_in().await,
            14..22 => self.revoke().await,
            22..30 => self.redeem().await,
            30..36 => {
                self.create_user().await;
            }
            _ => {
                if let Some(known) = self.world.session(&mut self.random) {
                    self.check(&known).await;
                }
            }
        }
    }

    async fn sign_in(&mut self) {
        let (session_id, grant_id) = (self.random.id(), self.random.id());
        let body = start_session(session_id, grant_id, self.random.id(), &self.cluster.view());
        let Some(committed) = self.write(body).await else { return };
        if !matches!(committed.body, ReplyBody::SessionStarted(_)) {
            return;
        }
        let number = self.world.history.signed_in(&name(session_id));
        let known = KnownSession { number, session_id, index: committed.index };
        self.world.signed_in(known, grant_id);
    }

    async fn check(&self, known: &KnownSession) {
        let began = self.world.history.now();
        let seen = match self.cluster.serving_view(known.index).await {
            Ok(state) if is_live(&state, known.session_id) => Seen::Accepted,
            Ok(_) => Seen::Denied,
            Err(_) => Seen::Unavailable,
        };
        self.world.history.checked(known.number, self.node, began, seen);
    }

    async fn revoke(&mut self) {
        let Some(known) = self.world.to_revoke(&mut self.random) else { return };
        let ended = self.world.history.revoking(&name(known.session_id));
        let began = self.world.history.now();
        let body = Body::RevokeSession(pb::RevokeSession { session_id: known.session_id.to_vec() });
        if self.write(body).await.is_some() {
            self.world.history.revoked(&ended, began);
        }
    }

    async fn redeem(&mut self) {
        let Some(grant_id) = self.world.code(&mut self.random) else { return };
        let body = Body::RedeemCode(pb::RedeemCode {
            grant_id: grant_id.to_vec(),
            secret_hash: SECRET.to_vec(),
            client_id: CLIENT.into(),
            redirect_uri: REDIRECT_URI.into(),
            code_challenge: CHALLENGE.to_vec(),
            family_id: self.random.id().to_vec(),
            refresh_ttl_ms: HOUR_MS,
            access_ttl_ms: HOUR_MS,
            ..Default::default()
        });
        if self.write(body).await.is_some_and(|done| matches!(done.body, ReplyBody::CodeRedeemed(_))) {
            self.world.history.redeemed(&name(grant_id));
        }
    }

    async fn create_user(&mut self) -> bool {
        let id = self.random.id();
        let created = self.write(user(id, name(id))).await.is_some();
        if created {
            self.world.user_created(id);
        }
        created
    }

    /// Proves that this node accepts writes and answers checks.
    async fn prove(&mut self) {
        let serves = self.cluster.serving_view(0).await.is_ok();
        if serves && self.create_user().await {
            self.world.works(self.node);
        }
    }

    /// Writes, and retries under the same request id while the outcome is unknown. None if it was not acknowledged.
    async fn write(&mut self, body: Body) -> Option<CommittedWrite> {
        let request = RequestId::new(self.random.id());
        for _ in 0..=AGAIN {
            match self.cluster.propose(request, body.clone()).await {
                Ok(committed) => {
                    self.world.history.count("writes acknowledged");
                    return Some(committed);
                }
                Err(ProposeError::Unknown) => {}
                Err(ProposeError::Refused(_)) => {
                    self.world.history.count("writes refused by the rules");
                    return None;
                }
                Err(_) => {
                    self.world.history.count("writes not taken");
                    return None;
                }
            }
        }
        self.world.history.count("writes unknown");
        None
    }
}

pub(super) fn is_live(state: &State, session_id: [u8; 16]) -> bool {
    state.live_session(SessionId::new(session_id), state.meta().clock).is_some()
}

fn name(id: [u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(id))
}

fn user(id: [u8; 16], username: String) -> Body {
    Body::CreateUser(pb::CreateUser {
        user_id: id.to_vec(),
        username,
        password_phc: "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$aGFzaGhhc2g".into(),
        ..Default::default()
    })
}

fn client() -> Body {
    Body::CreateClient(pb::CreateClient {
        client_id: CLIENT.into(),
        name: CLIENT.into(),
        auth_method: pb::ClientAuthMethod::SecretBasic.into(),
        secret_hash: vec![1; 32],
        redirect_uris: vec![REDIRECT_URI.into()],
        scopes: vec!["openid".into()],
        signing_algorithm: pb::SigningAlgorithm::Rs256.into(),
        consent: pb::ConsentMode::Implicit.into(),
        ..Default::default()
    })
}

fn start_session(session_id: [u8; 16], grant_id: [u8; 16], ticket_id: [u8; 16], state: &State) -> Body {
    let user_id = UserId::new(USER);
    let code = pb::IssueCode {
        grant_id: grant_id.to_vec(),
        session_id: session_id.to_vec(),
        client_id: CLIENT.into(),
        redirect_uri: REDIRECT_URI.into(),
        scopes: vec!["openid".into()],
        code_challenge: CHALLENGE.to_vec(),
        secret_hash: SECRET.to_vec(),
        code_ttl_ms: MINUTE_MS,
        ..Default::default()
    };
    Body::StartSession(pb::StartSession {
        session_id: session_id.to_vec(),
        user_id: user_id.to_vec(),
        secret_hash: SECRET.to_vec(),
        ticket_id: ticket_id.to_vec(),
        ticket_expires_at_ms: state.meta().clock.plus_ms(HOUR_MS).0,
        amr: vec!["pwd".into()],
        ttl_ms: HOUR_MS,
        credential_version: state.password(user_id).map_or(0, |password| password.version),
        code: Some(code),
        ..Default::default()
    })
}
