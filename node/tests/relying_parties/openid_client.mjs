// openid-client against the cluster. Prints one line of JSON: the cases that passed. Any failure ends it with a stack.
//   node openid_client.mjs '{"issuer":…,"username":…,"password":…,"redirectUri":…,"clients":{…},"key":…}'

import assert from 'node:assert/strict';
import * as client from 'openid-client';
import { importJWK } from 'jose';
import { Person } from './person.mjs';

const told = JSON.parse(process.argv[2]);
const issuer = new URL(told.issuer);
const passed = [];

async function discovered(id, authentication, metadata = {}) {
  return client.discovery(issuer, id, metadata, authentication, { execute: [client.allowInsecureRequests] });
}

function person() {
  return new Person(told.issuer, told.username, told.password);
}

/** Runs a login and returns the tokens. */
async function signIn(config, options = {}) {
  const verifier = client.randomPKCECodeVerifier();
  const [state, nonce] = [client.randomState(), client.randomNonce()];
  const parameters = {
    redirect_uri: told.redirectUri,
    scope: 'openid profile email offline_access',
    code_challenge: await client.calculatePKCECodeChallenge(verifier),
    code_challenge_method: 'S256',
    state,
    nonce,
    ...options.parameters,
  };
  const to = options.pushed
    ? await client.buildAuthorizationUrlWithPAR(config, parameters, { DPoP: options.DPoP })
    : client.buildAuthorizationUrl(config, parameters);
  if (options.pushed) assert.deepEqual([...to.searchParams.keys()].sort(), ['client_id', 'request_uri']);
  const back = await (options.person ?? person()).authorize(to);
  const checks = { pkceCodeVerifier: verifier, expectedState: state, expectedNonce: nonce, idTokenExpected: true };
  const tokens = await client.authorizationCodeGrant(config, back, checks, undefined, { DPoP: options.DPoP });
  return { tokens, back, checks };
}

async function userinfo(config, tokens, DPoP) {
  const claims = await client.fetchUserInfo(config, tokens.access_token, tokens.claims().sub, { DPoP });
  assert.equal(claims.preferred_username, told.username);
}

async function codeRefreshIntrospectRevoke() {
  const { id, secret } = told.clients.basic;
  const config = await discovered(id, client.ClientSecretBasic(secret));
  const { tokens, back, checks } = await signIn(config);
  assert.equal(tokens.token_type, 'bearer');
  await userinfo(config, tokens);
  await assert.rejects(client.authorizationCodeGrant(config, back, checks), { error: 'invalid_grant' });

  const again = (await signIn(config)).tokens;
  const next = await client.refreshTokenGrant(config, again.refresh_token);
  assert.notEqual(next.refresh_token, again.refresh_token);
  assert.equal((await client.tokenIntrospection(config, next.access_token)).active, true);
  await client.tokenRevocation(config, next.refresh_token);
  assert.equal((await client.tokenIntrospection(config, next.access_token)).active, false);
  await assert.rejects(client.refreshTokenGrant(config, next.refresh_token), { error: 'invalid_grant' });
}

async function boundToAKey() {
  const { id, jwk } = told.clients.bound;
  const key = { key: await importJWK(jwk, 'ES256'), kid: jwk.kid };
  const config = await discovered(id, client.PrivateKeyJwt(key));
  const DPoP = client.getDPoPHandle(config, await client.randomDPoPKeyPair('ES256'));
  const { tokens } = await signIn(config, { DPoP });
  assert.equal(tokens.token_type, 'dpop');
  await userinfo(config, tokens, DPoP);
  const next = await client.refreshTokenGrant(config, tokens.refresh_token, undefined, { DPoP });
  await userinfo(config, { ...next, claims: () => tokens.claims() }, DPoP);
  const another = client.getDPoPHandle(config, await client.randomDPoPKeyPair('ES256'));
  await assert.rejects(userinfo(config, tokens, another));
}

async function machine() {
  const { id, secret } = told.clients.machine;
  const config = await discovered(id, client.ClientSecretPost(secret));
  const tokens = await client.clientCredentialsGrant(config, { scope: 'reports' });
  assert.equal(tokens.refresh_token, undefined);
  const seen = await client.tokenIntrospection(config, tokens.access_token);
  assert.deepEqual([seen.active, seen.scope, seen.client_id], [true, 'reports', id]);
}

async function pushed() {
  const { id, secret } = told.clients.basic;
  const config = await discovered(id, client.ClientSecretBasic(secret));
  await userinfo(config, (await signIn(config, { pushed: true })).tokens);
}

async function device() {
  const { id } = told.clients.device;
  const config = await discovered(id, client.None());
  const begun = await client.initiateDeviceAuthorization(config, { scope: 'openid profile' });
  const polling = client.pollDeviceAuthorizationGrant(config, begun);
  await person().visit(begun.verification_uri_complete, { user_code: begun.user_code });
  const tokens = await polling;
  await userinfo(config, tokens);
}

const cases = { codeRefreshIntrospectRevoke, boundToAKey, machine, pushed, device };
for (const [name, run] of Object.entries(cases)) {
  try {
    await run();
  } catch (error) {
    console.error(`${name}:`, error, error.cause ?? '');
    process.exit(1);
  }
  passed.push(name);
}
console.log(JSON.stringify(passed));
