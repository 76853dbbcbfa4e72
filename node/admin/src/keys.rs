//! Signing keys: the published keys, and early rotation.

use conclave_proto::{
    admin::v1::{self as pb, key_service_server::KeyService},
    command::v1::{ActivateSigningKey, RetireSigningKey, command::Body},
};
use conclave_state::{
    State,
    client::SigningAlgorithm,
    key::{KeyStage, SigningKey},
};
use tonic::{Request, Response, Status};

use conclave_auth::{keys::alg, rotation::algorithm_named};

use super::{Api, errors};

#[tonic::async_trait]
impl KeyService for Api {
    async fn list_keys(
        &self,
        request: Request<pb::ListKeysRequest>,
    ) -> Result<Response<pb::ListKeysResponse>, Status> {
        let (reading, wanted) = self.read(request).await?;
        let listing = self.listing("keys", wanted.page)?;
        let after = listing.after(|bytes| String::from_utf8(bytes.to_vec()).ok())?;
        let rest = reading.state.keys().filter(|key| after.as_deref().is_none_or(|after| &*key.kid > after));
        let (keys, next_page_token) =
            listing.page(rest.map(|key| (key.kid.as_bytes().to_vec(), to_proto(key))));
        reading.reply(pb::ListKeysResponse { keys, next_page_token })
    }

    async fn rotate_key(
        &self,
        request: Request<pb::RotateKeyRequest>,
    ) -> Result<Response<pb::SigningKey>, Status> {
        let (writing, message) = self.write(request, "RotateKey").await?;
        let algorithm = algorithm_named(&message.algorithm).ok_or_else(|| {
            errors::invalid(format!(
                "algorithm: {:?} is not one of RS256, PS256, ES256, EdDSA",
                message.algorithm
            ))
        })?;
        let next = |state: &State| state.next_key(algorithm).map(|key| key.kid.to_string());
        let kid = match next(&self.auth.cluster().view()) {
            Some(kid) => kid,
            None => self.published(algorithm).await?,
        };
        if message.now {
            let activate = Body::ActivateSigningKey(ActivateSigningKey { kid: kid.clone() });
            let committed = writing.propose(activate).await?;
            let key = committed.state.key(&kid).map(|key| to_proto(key));
            return writing.reply(&committed, key.unwrap_or_default());
        }
        let key = self.auth.cluster().view().key(&kid).map(|key| to_proto(key));
        Ok(Response::new(key.unwrap_or_default()))
    }

    async fn retire_key(
        &self,
        request: Request<pb::RetireKeyRequest>,
    ) -> Result<Response<pb::RetireKeyResponse>, Status> {
        let (writing, message) = self.write(request, "RetireKey").await?;
        let committed =
            writing.propose(Body::RetireSigningKey(RetireSigningKey { kid: message.kid })).await?;
        writing.reply(&committed, pb::RetireKeyResponse {})
    }
}

impl Api {
    /// Makes the next key. Its private half is generated here, so a late retry finds the key of the first attempt.
    async fn published(&self, algorithm: SigningAlgorithm) -> Result<String, Status> {
        let made = self.auth.publish_next_key(algorithm).await;
        if let Err(error) = &made {
            tracing::debug!(%error, "no next key was made here; another node may have");
        }
        let state = self.auth.cluster().confirmed_view().await;
        let state = state.ok_or_else(|| Status::unavailable("no leader confirms the new key; try again"))?;
        let next = state.next_key(algorithm).map(|key| key.kid.to_string());
        next.ok_or_else(|| Status::unavailable("the next key could not be made; try again"))
    }
}

fn to_proto(key: &SigningKey) -> pb::SigningKey {
    let (stage, active_since, retired_at) = match key.stage {
        KeyStage::Next => ("next", 0, 0),
        KeyStage::Active(since) => ("active", since.0, 0),
        KeyStage::Retired { active_since, at } => ("retired", active_since.0, at.0),
    };
    pb::SigningKey {
        kid: key.kid.to_string(),
        algorithm: alg(key.algorithm).map(|alg| alg.name().to_owned()).unwrap_or_default(),
        stage: stage.to_owned(),
        created_at_ms: key.created_at.0,
        active_since_ms: active_since,
        retired_at_ms: retired_at,
    }
}
