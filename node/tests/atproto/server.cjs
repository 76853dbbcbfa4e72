// A directory and an account server of the Atmosphere on this machine, as their makers wrote them. Prints where they are as a line of
// JSON, then makes accounts as they are asked for on standard input: a handle a line, answered by its DID.
const net = require('node:net');
const crypto = require('node:crypto');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const readline = require('node:readline');

// Both would listen on every interface.
const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (...args) {
  if (typeof args[0] === 'object' && args[0] !== null && args[0].host === undefined) args[0].host = '127.0.0.1';
  else if (typeof args[0] === 'number' && typeof args[1] !== 'string') args.splice(1, 0, '127.0.0.1');
  return listen.apply(this, args);
};

const { PlcServer, Database } = require('@did-plc/server');
const { PDS, envToCfg, envToSecrets, readEnv } = require('@atproto/pds');

const hex = (bytes) => crypto.randomBytes(bytes).toString('hex');

async function freePort() {
  const server = net.createServer();
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

async function main() {
  const [plcPort, pdsPort] = [await freePort(), await freePort()];
  const plc = PlcServer.create({ db: Database.mock(), port: plcPort });
  await plc.start();
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'pds-'));
  process.on('exit', () => fs.rmSync(folder, { recursive: true, force: true }));
  Object.assign(process.env, {
    LOG_ENABLED: 'false',
    PDS_PORT: String(pdsPort),
    PDS_HOSTNAME: 'localhost',
    PDS_DATA_DIRECTORY: folder,
    PDS_BLOBSTORE_DISK_LOCATION: path.join(folder, 'blobs'),
    PDS_DID_PLC_URL: `http://127.0.0.1:${plcPort}`,
    PDS_INVITE_REQUIRED: 'false',
    PDS_JWT_SECRET: hex(16),
    PDS_ADMIN_PASSWORD: hex(16),
    PDS_DPOP_SECRET: hex(32),
    PDS_PLC_ROTATION_KEY_K256_PRIVATE_KEY_HEX: hex(32),
    PDS_DEV_MODE: 'true',
  });
  const env = readEnv();
  const pds = await PDS.create(envToCfg(env), envToSecrets(env));
  await pds.start();
  const url = `http://localhost:${pdsPort}`;
  console.log(JSON.stringify({ plc: `http://localhost:${plcPort}`, pds: url }));

  const post = async (name, body, token) => {
    const headers = { 'content-type': 'application/json', ...(token ? { authorization: `Bearer ${token}` } : {}) };
    const reply = await fetch(`${url}/xrpc/${name}`, { method: 'POST', headers, body: JSON.stringify(body) });
    if (!reply.ok) throw new Error(`${name}: ${reply.status} ${await reply.text()}`);
    return reply.headers.get('content-length') === '0' ? {} : reply.json().catch(() => ({}));
  };
  const tokens = new Map();
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const [what, ...rest] = line.split(' ');
    if (what === 'account') {
      const [handle] = rest;
      const email = `${handle.split('.')[0]}@mail.test`;
      const made = await post('com.atproto.server.createAccount', { email, handle, password: 'the account password' });
      tokens.set(made.did, made.accessJwt);
      console.log(JSON.stringify({ did: made.did }));
    } else if (what === 'rename') {
      const [did, handle] = rest;
      await post('com.atproto.identity.updateHandle', { handle }, tokens.get(did));
      console.log(JSON.stringify({ handle }));
    } else if (what === 'deactivate') {
      await post('com.atproto.server.deactivateAccount', {}, tokens.get(rest[0]));
      console.log(JSON.stringify({}));
    }
  }
  process.exit(0);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
