//! Authentication of callers, and their permits. The check returns a permit, and every function that reads or writes
//! requires one.
//!
//! There are two kinds of bearer: tokens, which are rows of the state, and the operator assertion, which is made from
//! the cluster secret. All faults of a token have one error message; the reason is deliberately not reported.

use conclave_state::{
    ids::{SecretHash, TokenId},
    token::ApiRole,
};
use tonic::{Status, metadata::MetadataMap};

use conclave_auth::operator;
use conclave_cluster::ViewError;
use conclave_crypto::{handle::HandleKind, keys::Key};

use super::{Api, errors};

/// The caller name of an operator, in place of a token id.
const OPERATOR: &str = "operator";

/// A permit to read everything.
#[derive(Debug)]
pub(super) struct MayRead(());

/// A permit to change everything, with the name of the caller.
#[derive(Debug)]
pub(super) struct MayWrite {
    /// Separates the request ids of one caller from those of others.
    pub caller: String,
}

/// The authenticated caller.
struct Caller {
    id: String,
    role: ApiRole,
}

impl Api {
    pub(crate) async fn may_read(&self, metadata: &MetadataMap) -> Result<MayRead, Status> {
        let caller = self.caller(metadata).await?;
        match caller.role {
            ApiRole::Reader | ApiRole::Admin => Ok(MayRead(())),
            ApiRole::Registrar | ApiRole::Unspecified => Err(errors::forbidden()),
        }
    }

    pub(crate) async fn may_write(&self, metadata: &MetadataMap) -> Result<MayWrite, Status> {
        let caller = self.caller(metadata).await?;
        match caller.role {
            ApiRole::Admin => Ok(MayWrite { caller: caller.id }),
            ApiRole::Reader | ApiRole::Registrar | ApiRole::Unspecified => Err(errors::forbidden()),
        }
    }

    /// Checks the authority again at the end of a long call: a caller who lost it meanwhile changes nothing. An
    /// operator assertion is short-lived and stands for the cluster secret, which cannot be revoked.
    pub(crate) async fn may_still_write(&self, metadata: &MetadataMap) -> Result<(), Status> {
        match bearer(metadata) {
            Some(text) if operator::is_assertion(text) => Ok(()),
            _ => self.may_write(metadata).await.map(drop),
        }
    }

    async fn caller(&self, metadata: &MetadataMap) -> Result<Caller, Status> {
        let text = bearer(metadata).ok_or_else(errors::unauthenticated)?;
        if operator::is_assertion(text) {
            return self.operator(text);
        }
        self.token_holder(text).await
    }

    fn operator(&self, text: &str) -> Result<Caller, Status> {
        // Log time is not used: the operator may be about to correct it.
        let times = self.auth.cluster().clock().operator_times_ms();
        let verifies = |key: &Key| times.iter().any(|now_ms| operator::verify(key, *now_ms, text));
        if !self.auth.cluster_keys().any(|keys| verifies(&keys.operator)) {
            return Err(errors::unauthenticated());
        }
        Ok(Caller { id: OPERATOR.to_owned(), role: ApiRole::Admin })
    }

    /// Finds the token of a handle. The handle contains the index at which the token was made, so a token made on
    /// another node a moment ago is waited for.
    async fn token_holder(&self, text: &str) -> Result<Caller, Status> {
        let handle = self.auth.parse(HandleKind::Api, text).ok_or_else(errors::unauthenticated)?;
        let state = match self.auth.cluster().serving_view(handle.index).await {
            Ok(state) => state,
            Err(ViewError::FromTheFuture) => return Err(errors::unauthenticated()),
            Err(error @ ViewError::Behind) => return Err(errors::view(&error)),
        };
        let id = TokenId::new(handle.id);
        let token = state.live_token(id, self.auth.now(&state)).ok_or_else(errors::unauthenticated)?;
        if !token.secret_hash.matches(&SecretHash::new(handle.secret_hash())) {
            return Err(errors::unauthenticated());
        }
        Ok(Caller { id: id.to_string(), role: token.role })
    }
}

/// The token of `authorization: Bearer <token>` (RFC 6750 §2.1; the scheme's case does not matter). `None` if there are
/// two headers: the choice between them would be a guess.
fn bearer(metadata: &MetadataMap) -> Option<&str> {
    let mut values = metadata.get_all("authorization").iter();
    let value = values.next()?.to_str().ok()?;
    if values.next().is_some() {
        return None;
    }
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

#[cfg(test)]
mod tests {
    use tonic::metadata::{MetadataMap, MetadataValue};

    fn metadata(values: &[&str]) -> MetadataMap {
        let mut metadata = MetadataMap::new();
        for value in values {
            metadata.append("authorization", MetadataValue::try_from(*value).unwrap());
        }
        metadata
    }

    #[test]
    fn the_bearer_token_is_what_stands_behind_the_scheme() {
        for good in ["Bearer abc", "bearer abc", "BEARER  abc "] {
            assert_eq!(super::bearer(&metadata(&[good])), Some("abc"), "{good}");
        }
        for bad in [&[][..], &["abc"], &["Basic abc"], &["Bearerabc"], &["Bearer abc", "Bearer abc"]] {
            assert_eq!(super::bearer(&metadata(bad)), None, "{bad:?}");
        }
    }
}
