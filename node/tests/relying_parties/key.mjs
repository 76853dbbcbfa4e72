// A new key of a client: one line of JSON with the private JWK and the public set.

import { exportJWK, generateKeyPair } from 'jose';

const { privateKey, publicKey } = await generateKeyPair('ES256', { extractable: true });
const named = { kid: 'party', alg: 'ES256', use: 'sig' };
const jwk = { ...(await exportJWK(privateKey)), ...named };
console.log(JSON.stringify({ jwk, jwks: { keys: [{ ...(await exportJWK(publicKey)), ...named }] } }));
