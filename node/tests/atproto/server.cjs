// A directory and an account server of the Atmosphere on this machine, unmodified. Prints their addresses as a line of
// JSON, then runs the commands on standard input, one a line, each answered by a line: accounts are created, get a
// profile, change their handles and move to a second server, and time passes, because the servers cache for minutes.
//
// CLIENT_FRONTS=host=port,port,...: connections to that host go to these ports of this machine in turn: a client on the
// internet, served by several nodes.
const net = require('node:net');
const crypto = require('node:crypto');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const readline = require('node:readline');

// By default both listen on every interface.
const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (...args) {
  if (typeof args[0] === 'object' && args[0] !== null && args[0].host === undefined) args[0].host = '127.0.0.1';
  else if (typeof args[0] === 'number' && typeof args[1] !== 'string') args.splice(1, 0, '127.0.0.1');
  return listen.apply(this, args);
};

const [host, ports] = (process.env.CLIENT_FRONTS ?? '=').split('=');
const fronts = ports.split(',').map(Number);
let next = 0;
const { connect } = net.Socket.prototype;
net.Socket.prototype.connect = function (...args) {
  const [options] = Array.isArray(args[0]) ? args[0] : args;
  if (host !== '' && options?.host === host) {
    Object.assign(options, { host: '127.0.0.1', port: fronts[next++ % fronts.length] });
  }
  return connect.apply(this, args);
};

// The clocks for proofs and tokens (Date), and for data in memory (performance).
let passed = 0;
const RealDate = Date;
globalThis.Date = class Date extends RealDate {
  constructor(...args) {
    super(...(args.length === 0 ? [Date.now()] : args));
  }
  static now() {
    return RealDate.now() + passed;
  }
};
const now = performance.now.bind(performance);
Object.defineProperty(performance, 'now', { value: () => now() + passed });

const { PlcServer, Database } = require('@did-plc/server');
const { Client: PlcClient } = require('@did-plc/lib');
const { Secp256k1Keypair } = require('@atproto/crypto');
const { PDS, envToCfg, envToSecrets, readEnv } = require('@atproto/pds');

const hex = (bytes) => crypto.randomBytes(bytes).toString('hex');

async function freePort() {
  const server = net.createServer();
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

// One key that may change every account's document, like that of a provider with several servers.
const rotationKey = hex(32);

async function startPds(port, plcPort, more) {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'pds-'));
  process.on('exit', () => fs.rmSync(folder, { recursive: true, force: true }));
  Object.assign(process.env, {
    LOG_ENABLED: 'false',
    PDS_PORT: String(port),
    PDS_HOSTNAME: 'localhost',
    PDS_DATA_DIRECTORY: folder,
    PDS_BLOBSTORE_DISK_LOCATION: path.join(folder, 'blobs'),
    PDS_DID_PLC_URL: `http://127.0.0.1:${plcPort}`,
    PDS_INVITE_REQUIRED: 'false',
    PDS_JWT_SECRET: hex(16),
    PDS_ADMIN_PASSWORD: hex(16),
    PDS_DPOP_SECRET: hex(32),
    PDS_PLC_ROTATION_KEY_K256_PRIVATE_KEY_HEX: rotationKey,
    PDS_DEV_MODE: 'true',
    ...more,
  });
  const env = readEnv();
  const pds = await PDS.create(envToCfg(env), envToSecrets(env));
  await pds.start();
  return `http://localhost:${port}`;
}

async function call(server, name, body, token, type = 'application/json') {
  const headers = { ...(body ? { 'content-type': type } : {}), ...(token ? { authorization: `Bearer ${token}` } : {}) };
  const method = body === null ? 'GET' : 'POST';
  const reply = await fetch(`${server}/xrpc/${name}`, { method, headers, ...(body ? { body } : {}) });
  if (!reply.ok) throw new Error(`${name}: ${reply.status} ${await reply.text()}`);
  return reply.headers.get('content-type')?.startsWith('application/json') ? reply.json() : Buffer.from(await reply.arrayBuffer());
}

// The whole move of an account: its repository, its entry in the directory, and the active state of both accounts.
async function move(did, from, to, plc) {
  const { token: may } = await call(from.url, `com.atproto.server.getServiceAuth?${new URLSearchParams({ aud: to.did, lxm: 'com.atproto.server.createAccount' })}`, null, from.tokens.get(did));
  const { handle } = await call(from.url, `com.atproto.repo.describeRepo?repo=${did}`, null);
  const email = `${handle.split('.')[0]}@mail.test`;
  const account = JSON.stringify({ did, handle, email, password: 'the account password' });
  const { accessJwt } = await call(to.url, 'com.atproto.server.createAccount', account, may);
  const repository = await call(from.url, `com.atproto.sync.getRepo?did=${did}`, null);
  await call(to.url, 'com.atproto.repo.importRepo', repository, accessJwt, 'application/vnd.ipld.car');
  const wanted = await call(to.url, 'com.atproto.identity.getRecommendedDidCredentials', null, accessJwt);
  const signer = await Secp256k1Keypair.import(rotationKey);
  await new PlcClient(plc).updateData(did, signer, (last) => ({ ...last, verificationMethods: wanted.verificationMethods, services: wanted.services }));
  await call(to.url, 'com.atproto.server.activateAccount', undefined, accessJwt);
  await call(from.url, 'com.atproto.server.deactivateAccount', '{}', from.tokens.get(did));
  to.tokens.set(did, accessJwt);
}

async function main() {
  const [plcPort, pdsPort] = [await freePort(), await freePort()];
  const plc = PlcServer.create({ db: Database.mock(), port: plcPort });
  await plc.start();
  const url = await startPds(pdsPort, plcPort, {});
  console.log(JSON.stringify({ plc: `http://localhost:${plcPort}`, pds: url }));

  const post = (name, body, token) => call(url, name, JSON.stringify(body), token);
  const tokens = new Map();
  const here = { url, tokens };
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
    } else if (what === 'profile') {
      const [did, displayName, picture] = rest;
      const { blob } = await call(url, 'com.atproto.repo.uploadBlob', Buffer.from(picture, 'hex'), tokens.get(did), 'image/png');
      const record = { $type: 'app.bsky.actor.profile', displayName, avatar: blob };
      await post('com.atproto.repo.putRecord', { repo: did, collection: 'app.bsky.actor.profile', rkey: 'self', record }, tokens.get(did));
      console.log(JSON.stringify({ cid: blob.ref.$link }));
    } else if (what === 'move') {
      const [did, port] = [rest[0], await freePort()];
      const service = `did:web:second.test`;
      const there = { did: service, tokens: new Map(), url: await startPds(port, plcPort, { PDS_SERVICE_DID: service }) };
      await move(did, here, there, `http://127.0.0.1:${plcPort}`);
      console.log(JSON.stringify({ pds: there.url }));
    } else if (what === 'pass') {
      passed += Number(rest[0]);
      console.log(JSON.stringify({ passed }));
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
