// An application that runs in the browser, with oidc-client-ts: all its requests to the provider are cross-origin.

/* global oidc */
const show = (id, text) => {
  document.getElementById(id).textContent = text;
};

async function main() {
  const told = await (await fetch('/settings.json')).json();
  const manager = new oidc.UserManager({
    authority: told.issuer,
    client_id: told.client,
    redirect_uri: `${location.origin}/`,
    post_logout_redirect_uri: `${location.origin}/bye`,
    scope: 'openid profile offline_access',
    loadUserInfo: true,
    automaticSilentRenew: false,
    monitorSession: false,
    userStore: new oidc.WebStorageStateStore({ store: window.sessionStorage }),
  });
  document.getElementById('sign-in').onclick = () => manager.signinRedirect().catch(failed);
  document.getElementById('sign-out').onclick = () => manager.signoutRedirect().catch(failed);
  document.getElementById('renew').onclick = () => renew(manager).catch(failed);
  if (location.pathname === '/bye') {
    await manager.signoutCallback();
    return show('status', (await manager.getUser()) === null ? 'signed out' : 'still here');
  }
  if (new URLSearchParams(location.search).has('code')) {
    await manager.signinRedirectCallback();
    history.replaceState({}, '', '/');
  }
  const user = await manager.getUser();
  if (user === null) return show('status', 'nobody');
  show('userinfo', user.profile.preferred_username);
  show('status', 'signed in');
}

/** By the refresh token, which is another one afterwards; then userinfo with what came. */
async function renew(manager) {
  const before = await manager.getUser();
  const after = await manager.signinSilent();
  const metadata = await manager.metadataService.getMetadata();
  const reply = await fetch(metadata.userinfo_endpoint, { headers: { authorization: `Bearer ${after.access_token}` } });
  const isNew = after.access_token !== before.access_token && after.refresh_token !== before.refresh_token;
  show('renewed', `${isNew ? 'other' : 'same'} tokens, ${reply.status}, ${(await reply.json()).sub === before.profile.sub}`);
}

function failed(error) {
  show('status', `failed: ${error.message}`);
}

main().catch(failed);
