// A client that receives logout notices: signs a user in, has the session ended at another node, and verifies the logout
// token that arrives with jose, against the keys that the provider publishes. Prints its observations as one line of JSON.
//   node back_channel.mjs '{"issuer":…,"username":…,"password":…,"redirectUri":…,"port":…,"client":{…},"end":[program,…],"env":{…}}'

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:http';
import * as client from 'openid-client';
import { createRemoteJWKSet, jwtVerify } from 'jose';
import { Person } from './person.mjs';

const told = JSON.parse(process.argv[2]);
const MOST_BYTES = 64 * 1024;
const PATIENCE_MS = 30_000;
const EVENT = 'http://schemas.openid.net/event/backchannel-logout';

const config = await client.discovery(new URL(told.issuer), told.client.id, {}, client.ClientSecretBasic(told.client.secret), {
  execute: [client.allowInsecureRequests],
});
const provider = config.serverMetadata();
assert.deepEqual([provider.backchannel_logout_supported, provider.backchannel_logout_session_supported], [true, true]);
const keys = createRemoteJWKSet(new URL(provider.jwks_uri));

/** Verifies as OIDC Back-Channel Logout §2.6 requires; throws if the token is not valid. */
async function verified(token) {
  const { payload, protectedHeader } = await jwtVerify(token, keys, {
    issuer: provider.issuer,
    audience: told.client.id,
    typ: 'logout+jwt',
    requiredClaims: ['iat', 'exp', 'jti', 'events', 'sid', 'sub'],
    maxTokenAge: '2 minutes',
  });
  assert.notEqual(protectedHeader.alg, 'none');
  assert.deepEqual(payload.events, { [EVENT]: {} });
  assert.equal(payload.nonce, undefined);
  return payload;
}

let arrived;
const arrival = new Promise((resolve, reject) => {
  arrived = { resolve, reject };
});
let refusedOnce = false;
const server = createServer(async (request, response) => {
  let body = '';
  for await (const chunk of request) {
    body += chunk;
    if (body.length > MOST_BYTES) return response.writeHead(413).end();
  }
  // The first notice fails, so that it must be sent again.
  if (!refusedOnce) {
    refusedOnce = true;
    return response.writeHead(503).end();
  }
  try {
    assert.deepEqual([request.method, request.url], ['POST', '/logout']);
    const payload = await verified(new URLSearchParams(body).get('logout_token'));
    response.writeHead(200, { 'cache-control': 'no-store' }).end();
    arrived.resolve(payload);
  } catch (error) {
    response.writeHead(400).end();
    arrived.reject(error);
  }
});
server.listen(told.port, '127.0.0.1');
await once(server, 'listening');

const verifier = client.randomPKCECodeVerifier();
const nonce = client.randomNonce();
const to = client.buildAuthorizationUrl(config, {
  redirect_uri: told.redirectUri,
  scope: 'openid',
  code_challenge: await client.calculatePKCECodeChallenge(verifier),
  code_challenge_method: 'S256',
  nonce,
});
const back = await new Person(told.issuer, told.username, told.password).authorize(to);
const checks = { pkceCodeVerifier: verifier, expectedNonce: nonce, idTokenExpected: true };
const tokens = await client.authorizationCodeGrant(config, back, checks);
const { sid, sub } = tokens.claims();

const [program, ...words] = told.end;
execFileSync(program, words, { env: { ...process.env, ...told.env } });
const patience = setTimeout(() => arrived.reject(new Error('no logout token came')), PATIENCE_MS);
const payload = await arrival;
clearTimeout(patience);
assert.deepEqual([payload.sid, payload.sub], [sid, sub]);
await assert.rejects(client.fetchUserInfo(config, tokens.access_token, sub));
server.close();
server.closeAllConnections();
console.log(JSON.stringify({ toldAgain: refusedOnce, sameSession: true }));
