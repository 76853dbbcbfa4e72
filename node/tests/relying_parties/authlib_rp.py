"""Authlib against the cluster. Prints one line of JSON: the cases that passed.

python authlib_rp.py '{"issuer":…,"username":…,"password":…,"redirectUri":…,"clients":{…}}'
"""

import html
import json
import re
import sys
from urllib.parse import urljoin, urlsplit

import requests
from authlib.integrations.requests_client import OAuth2Session
from authlib.jose import JsonWebKey, jwt

MOST_STEPS = 12
told = json.loads(sys.argv[1])


def authorize(url):
    """Follows an authorization request as a user does; returns the URL at the relying party."""
    browser = requests.Session()
    home = urlsplit(told["issuer"]).netloc
    page = browser.get(url, allow_redirects=False)
    for _ in range(MOST_STEPS):
        to = page.headers.get("location")
        if to is None:
            form = re.search(r'<form[^>]*method="post"[^>]*>.*?</form>', page.text, re.S).group()
            action = html.unescape(re.search(r'action="([^"]*)"', form).group(1))
            fields = {}
            for field in re.findall(r"<input[^>]*>", form):
                name, value = re.search(r'name="([^"]*)"', field), re.search(r'value="([^"]*)"', field)
                if name:
                    fields[name.group(1)] = html.unescape(value.group(1)) if value else ""
            fields |= {"username": told["username"], "password": told["password"]}
            page = browser.post(urljoin(page.url, action), data=fields, allow_redirects=False)
            continue
        to = urljoin(page.url, to)
        if urlsplit(to).netloc != home:
            return to
        page = browser.get(to, allow_redirects=False)
    raise RuntimeError(f"no way out of {page.url}")


def code_and_refresh(method):
    metadata = requests.get(told["issuer"].rstrip("/") + "/.well-known/openid-configuration", timeout=10).json()
    party = told["clients"]["basic" if method == "client_secret_basic" else "post"]
    session = OAuth2Session(
        party["id"],
        party["secret"],
        scope="openid profile offline_access",
        redirect_uri=told["redirectUri"],
        code_challenge_method="S256",
        token_endpoint_auth_method=method,
        token_endpoint=metadata["token_endpoint"],
    )
    verifier = "authlib-authlib-authlib-authlib-authlib-authlib"
    url, state = session.create_authorization_url(
        metadata["authorization_endpoint"], code_verifier=verifier, nonce="n-0S6"
    )
    token = session.fetch_token(authorization_response=authorize(url), code_verifier=verifier, state=state)
    keys = JsonWebKey.import_key_set(requests.get(metadata["jwks_uri"], timeout=10).json())
    claims = jwt.decode(
        token["id_token"],
        keys,
        claims_options={
            "iss": {"essential": True, "value": metadata["issuer"]},
            "aud": {"essential": True, "value": party["id"]},
            "nonce": {"essential": True, "value": "n-0S6"},
        },
    )
    claims.validate()
    info = session.get(metadata["userinfo_endpoint"]).json()
    assert info["sub"] == claims["sub"] and info["preferred_username"] == told["username"], info
    refreshed = session.refresh_token(metadata["token_endpoint"], refresh_token=token["refresh_token"])
    assert refreshed["access_token"] != token["access_token"]


passed = []
for method in ["client_secret_basic", "client_secret_post"]:
    code_and_refresh(method)
    passed.append(method)
print(json.dumps(passed))
