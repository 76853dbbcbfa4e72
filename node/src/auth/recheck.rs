//! What an old ticket asks for, checked anew: a form that was open for long is answered by a fresh one only if its request still stands.

use super::{Auth, AuthError, dispatch::Gone, ticket::Target};

impl Auth {
    /// The reason why what the login is for does not stand any more; none if it does. The rules check everything again when something
    /// is written; this guards what is shown and where the browser may be sent.
    ///
    /// # Errors
    /// When this node cannot tell at the moment.
    pub async fn still_stands(&self, target: &Target) -> Result<Option<Gone>, AuthError> {
        let state = self.cluster().serving_view(0).await.map_err(|_| AuthError::Unavailable)?;
        Ok(match target {
            Target::Authorize(request) => {
                let client = state.client(&request.client_id).filter(|client| !client.disabled);
                let stands = client.is_some_and(|client| client.may_be_answered_at(&request.redirect_uri));
                (!stands).then_some(Gone::Client)
            }
            Target::Open { url, .. } => {
                let application = state.application_by_host(&url.host());
                let stands = application.is_some_and(|application| self.is_true_origin(url, application));
                (!stands).then_some(Gone::Application)
            }
            Target::Home | Target::Device { .. } | Target::Leave { .. } => None,
        })
    }
}
