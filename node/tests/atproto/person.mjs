// A user at the page of the account server, without a browser: signs in, accepts or rejects, and prints the address to
// which the server redirects. Arguments: the address, the handle, `accept` or `reject`.
import http from 'node:http';

const PASSWORD = 'the account password';
const [address, handle, answer] = process.argv.slice(2);

const cookies = new Map();

/** Sends a request like a browser: `fetch` sets some headers itself. */
function ask(url, { method = 'GET', headers = {}, body } = {}) {
  const cookie = [...cookies].map(([name, value]) => `${name}=${value}`).join('; ');
  return new Promise((resolve, reject) => {
    const request = http.request(url, { method, headers: { ...headers, cookie } }, (reply) => {
      for (const line of reply.headers['set-cookie'] ?? []) {
        const [pair] = line.split(';');
        const at = pair.indexOf('=');
        cookies.set(pair.slice(0, at), pair.slice(at + 1));
      }
      let text = '';
      reply.on('data', (chunk) => (text += chunk));
      reply.on('end', () => resolve({ status: reply.statusCode, location: reply.headers.location, text }));
    });
    request.on('error', reject);
    request.end(body);
  });
}

const navigate = {
  'sec-fetch-mode': 'navigate',
  'sec-fetch-dest': 'document',
  'sec-fetch-site': 'cross-site',
  accept: 'text/html',
};

const page = await ask(address, { headers: navigate });
if (page.status !== 200) throw new Error(`${page.status} ${page.location} ${page.text}`);
const { origin } = new URL(address);
const csrf = [...cookies].find(([name]) => name.includes('csrf'));
if (csrf === undefined) throw new Error(`no csrf cookie among ${[...cookies.keys()]}`);

async function api(name, body) {
  const reply = await ask(`${origin}/@atproto/oauth-provider/~api/${name}`, {
    method: 'POST',
    headers: {
      'content-type': 'application/json',
      'x-csrf-token': decodeURIComponent(csrf[1]),
      origin,
      referer: address,
      'sec-fetch-mode': 'same-origin',
      'sec-fetch-site': 'same-origin',
      'sec-fetch-dest': 'empty',
    },
    body: JSON.stringify(body),
  });
  if (reply.status !== 200) throw new Error(`${name}: ${reply.status} ${reply.text}`);
  return JSON.parse(reply.text);
}

const signedIn = await api('sign-in', { username: handle, password: PASSWORD, remember: true, locale: 'en' });
const next =
  answer === 'accept'
    ? await api('consent', { sub: signedIn.account.sub, scope: 'atproto' })
    : await api('reject', {});
const back = await ask(next.url, { headers: { ...navigate, 'sec-fetch-site': 'same-origin', referer: address } });
console.log(JSON.stringify({ callback: back.location }));
