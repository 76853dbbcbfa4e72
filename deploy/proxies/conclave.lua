-- Sends a check to Conclave for each request, for `http-request lua.conclave` in haproxy.cfg beside this file. Needs
-- only HAProxy 2.6 or later.
-- It uses one loopback address; the frontend there has all nodes behind it, so that a dead node costs only a retry.

local CHECK = "http://127.0.0.1:9090/auth/haproxy"
local TIMEOUT_MS = 4000

-- The headers of the request that the check may see, besides those set below.
local ASKED = { "cookie", "authorization", "accept", "sec-fetch-mode", "sec-fetch-dest", "sec-purpose", "purpose",
  "x-requested-with", "upgrade", "sec-websocket-key" }

-- All identity headers, always: a header that the check leaves empty is set empty, so that a client's own copy never
-- arrives.
local IDENTITY = {
  "x-authentik-username", "x-authentik-groups", "x-authentik-entitlements", "x-authentik-email", "x-authentik-name",
  "x-authentik-uid", "x-authentik-jwt", "x-authentik-meta-jwks", "x-authentik-meta-outpost", "x-authentik-meta-provider",
  "x-authentik-meta-app", "x-authentik-meta-version", "remote-user", "remote-groups", "remote-name", "remote-email",
  "x-auth-request-user", "x-auth-request-groups", "x-auth-request-email", "x-conclave-atproto-did",
  "x-conclave-atproto-handle", "x-conclave-groups-omitted", "x-conclave-assertion",
  -- The extra headers of a policy, here X-Webauth-Role.
  -- extra: "x-webauth-role",
}

-- Headers of the check's response that are about its own connection.
local HOP = {
  ["connection"] = true, ["keep-alive"] = true, ["transfer-encoding"] = true, ["content-length"] = true,
  ["proxy-connection"] = true, ["te"] = true, ["trailer"] = true, ["upgrade"] = true,
}

local function refuse(txn, status, reason, text)
  local reply = txn:reply()
  reply:set_status(status, reason)
  reply:add_header("content-type", "text/plain; charset=utf-8")
  reply:add_header("cache-control", "no-store")
  reply:set_body(text)
  txn:done(reply)
end

local function values(header)
  local all = {}
  local at = 0
  while header and header[at] do
    all[#all + 1] = header[at]
    at = at + 1
  end
  return all
end

local function first(header)
  for _, value in pairs(header or {}) do
    return value
  end
  return ""
end

core.register_action("conclave", { "http-req" }, function(txn)
  local headers = txn.http:req_get_headers()
  local host = values(headers["host"])
  if #host ~= 1 then
    return refuse(txn, 400, "Bad Request", "The request must name one host.\n")
  end

  -- Releases before 3.1 return 1 where later ones return true.
  local tls = txn.f:ssl_fc()
  local question = {
    ["x-forwarded-method"] = { txn.f:method() },
    ["x-forwarded-proto"] = { (tls == true or tls == 1) and "https" or "http" },
    ["x-forwarded-host"] = { host[1] },
    ["x-forwarded-uri"] = { txn.f:pathq() },
    ["x-forwarded-for"] = { txn.f:src() },
  }
  for _, name in ipairs(ASKED) do
    local given = values(headers[name])
    if #given > 0 then
      question[name] = given
    end
  end

  local answer = core.httpclient():get { url = CHECK, headers = question, timeout = TIMEOUT_MS }
  if not answer or not answer.status or answer.status < 200 then
    return refuse(txn, 503, "Service Unavailable", "The sign-in service cannot be reached. Try again in a moment.\n")
  end

  if answer.status == 200 then
    for _, name in ipairs(IDENTITY) do
      txn.http:req_set_header(name, first(answer.headers[name]))
    end
    return
  end

  local reply = txn:reply()
  reply:set_status(answer.status, answer.reason or "")
  for name, given in pairs(answer.headers) do
    if not HOP[string.lower(name)] then
      for _, value in pairs(given) do
        reply:add_header(name, value)
      end
    end
  end
  reply:set_body(answer.body or "")
  txn:done(reply)
end, 0)
