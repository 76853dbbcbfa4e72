//! The token side of the provider: a client's own tokens, refresh tokens, introspection.

use futures_util::future::join_all;

use super::{
    browser::{LoadBrowser, http},
    flows::{basic, given, tokens},
    measure::{Load, Measurement},
    raw::Shot,
    target::LoadTarget,
};

/// A client's request for its own token, at each node.
pub(crate) async fn of_its_own(target: &LoadTarget) -> anyhow::Result<Vec<Shot>> {
    let machine = target.machine().await?;
    let headers = [("authorization", &*basic(&machine.client_id, &machine.client_secret))];
    let form = [("grant_type", "client_credentials")];
    target
        .nodes
        .iter()
        .map(|node| Shot::post(&format!("{}/oidc/token", node.http), &headers, &form))
        .collect()
}

/// The introspection of a user's access token, at each node.
pub(crate) async fn introspections(target: &LoadTarget) -> anyhow::Result<Vec<Shot>> {
    let token = tokens(target).await?.access;
    let headers = [("authorization", &*basic(&target.client.client_id, &target.client.client_secret))];
    let form = [("token", &*token)];
    let shot = |http: &str| Shot::post(&format!("{http}/oidc/introspect"), &headers, &form);
    target.nodes.iter().map(|node| shot(&node.http)).collect()
}

/// A chain of refresh tokens for each worker; every response's token is used in the next request.
pub(crate) async fn refreshes(load: Load, target: &LoadTarget) -> anyhow::Result<Measurement> {
    let mut lines = Vec::new();
    for _ in 0..load.workers {
        lines.push(tokens(target).await?.refresh);
    }
    let workers = lines.into_iter().zip(0..).map(|(mut refresh, worker)| async move {
        let node = target.nodes.iter().cycle().nth(worker);
        let Some(node) = node else { return Measurement::default() };
        let mut browser = LoadBrowser::new(http(), &node.http);
        let authorization = basic(&target.client.client_id, &target.client.client_secret);
        Measurement::of(load, async || {
            let form = [("grant_type", "refresh_token"), ("refresh_token", refresh.as_str())];
            let reply = browser.post("/oidc/token", &[("authorization", &authorization)], &form).await?;
            refresh = given(&reply)?.refresh;
            anyhow::Ok(())
        })
        .await
    });
    let mut all = Measurement::default();
    for outcome in join_all(workers).await {
        all.add(outcome);
    }
    Ok(all)
}
