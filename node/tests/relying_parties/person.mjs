// A user at a browser without JavaScript: keeps cookies, fills in the login form, and stops where a redirect leaves the
// cluster.

const MOST_STEPS = 12;

export class Person {
  #cookies = new Map();

  constructor(issuer, username, password) {
    this.issuer = issuer;
    this.username = username;
    this.password = password;
  }

  /** Follows an authorization request to its end: the URL at the relying party. */
  async authorize(url) {
    let page = await this.#send(new URL(url), {});
    for (let step = 0; step < MOST_STEPS; step += 1) {
      if (page.location === undefined) {
        page = await this.#fillIn(page);
      } else if (page.location.origin !== new URL(this.issuer).origin) {
        return page.location;
      } else {
        page = await this.#send(page.location, {});
      }
    }
    throw new Error(`no way out of ${page.url}`);
  }

  /** Opens a page, fills in its forms until there is none, and returns the last page's text. */
  async visit(url, fields = {}) {
    let page = await this.#send(new URL(url), {});
    for (let step = 0; step < MOST_STEPS; step += 1) {
      if (page.location !== undefined) page = await this.#send(page.location, {});
      else if (page.text.includes('<form')) page = await this.#fillIn(page, fields);
      else return page.text;
      if (page.location === undefined && page.text.includes('id="device-done"')) return page.text;
    }
    throw new Error(`no end of ${page.url}`);
  }

  async #fillIn(page, more = {}) {
    const form = page.text.match(/<form[^>]*method="post"[^>]*>[\s\S]*?<\/form>/i)?.[0];
    if (form === undefined) throw new Error(`${page.status} at ${page.url} and no form: ${page.text.slice(0, 2000)}`);
    const action = form.match(/action="([^"]*)"/)?.[1] ?? '';
    const body = new URLSearchParams();
    for (const [input] of form.matchAll(/<input[^>]*>/g)) {
      const name = input.match(/name="([^"]*)"/)?.[1];
      if (name !== undefined) body.append(name, unescape(input.match(/value="([^"]*)"/)?.[1] ?? ''));
    }
    if (body.has('username')) body.set('username', this.username);
    if (body.has('password')) body.set('password', this.password);
    for (const [name, value] of Object.entries(more)) if (body.has(name)) body.set(name, value);
    const button = form.match(/<button[^>]*id="submit"[^>]*name="([^"]*)"[^>]*value="([^"]*)"/);
    if (button !== null) body.append(button[1], button[2]);
    return this.#send(new URL(unescape(action), page.url), { method: 'POST', body });
  }

  async #send(url, init) {
    const cookie = [...this.#cookies].map(([name, value]) => `${name}=${value}`).join('; ');
    const reply = await fetch(url, { ...init, redirect: 'manual', headers: { cookie } });
    for (const line of reply.headers.getSetCookie()) {
      const [pair] = line.split(';');
      const at = pair.indexOf('=');
      this.#cookies.set(pair.slice(0, at), pair.slice(at + 1));
    }
    const to = reply.headers.get('location');
    const location = to === null ? undefined : new URL(to, url);
    return { url, status: reply.status, location, text: await reply.text() };
  }
}

function unescape(text) {
  return text
    .replace(/&#x([0-9a-f]+);/gi, (_, hex) => String.fromCodePoint(Number.parseInt(hex, 16)))
    .replaceAll('&quot;', '"')
    .replaceAll('&lt;', '<')
    .replaceAll('&gt;', '>')
    .replaceAll('&amp;', '&');
}
