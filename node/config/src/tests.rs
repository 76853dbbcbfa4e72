use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use serde_json::json;

use super::{Config, ConfigError, Environment, LogFormat, SettingOrigin, effective, load_secret};
use conclave_base::runtime::testing::SeededEntropy;

fn load(toml: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("conclave.toml");
    fs::write(&file, toml).unwrap();
    Config::from_sources(Some(&file), &Environment::of(variables.iter().copied()))
}

/// The problems of a file, with its folder removed from the texts.
fn problems(toml: &str) -> Vec<String> {
    problems_with(toml, &[])
}

fn problems_with(toml: &str, variables: &[(&str, &str)]) -> Vec<String> {
    let ConfigError::Invalid { problems } = load(toml, variables).expect_err("it is refused") else {
        panic!("the problems are listed")
    };
    let shorten = |line: String| match (line.find(" (in /"), line.rfind('/')) {
        (Some(from), Some(to)) if line.ends_with("conclave.toml)") => {
            format!("{} (in {}", &line[..from], &line[to + 1..])
        }
        _ => line,
    };
    problems.into_iter().map(shorten).collect()
}

#[track_caller]
fn refuses(toml: &str, problem: &str) {
    assert_eq!(problems(toml), [problem]);
}

#[test]
fn all_mistakes_are_told_at_once_those_of_type_included() {
    let toml = "[node]\nid = \"one\"\n[http]\nlisten = 9000\nno_such = 1\n[login]\nsession_ttl = \"soon\"\n";
    let told = problems(toml);
    let starts: Vec<&str> = told.iter().filter_map(|line| line.split(':').next()).collect();
    assert_eq!(starts, ["http.listen", "http.no_such", "login.session_ttl", "node.id"], "{told:?}");
    assert!(told.iter().all(|line| line.ends_with("(in conclave.toml)")), "{told:?}");
}

#[test]
fn without_any_setting_it_is_a_single_node_on_loopback() {
    let config = Config::from_sources(None, &Environment::default()).unwrap();
    assert_eq!((config.node.id, config.cluster.peers.len()), (1, 0));
    assert_eq!(config.http.public_url().unwrap().issuer(), "http://127.0.0.1:9000");
    assert_eq!(config.cluster.address_of(1), "127.0.0.1:9300");
    assert_eq!(config.api.url(), "http://127.0.0.1:9200");
    assert_eq!(config.tokens.code_ttl, Duration::from_mins(1));
    assert_eq!(config.log.format, LogFormat::Auto);
}

#[test]
fn every_setting_is_shown_with_its_origin_and_without_secrets() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("conclave.toml");
    let toml = "[http]\nlisten = \"127.0.0.1:9001\"\n[cluster]\npeers = [\"1@10.0.0.1:9300\", \"2@10.0.0.2:9300\"]\n";
    fs::write(&file, toml).unwrap();
    let secret = "c".repeat(64);
    let environment = Environment::of([
        ("CONCLAVE_CLUSTER__SECRET", secret.as_str()),
        ("CONCLAVE_LOGIN__SESSION_TTL", "90m"),
    ]);
    let settings = effective(Some(&file), &environment).unwrap();
    let one = |path: &str| {
        let found = settings.iter().find(|setting| setting.path == path);
        found.map(|setting| (setting.value.clone(), setting.origin)).unwrap()
    };
    assert_eq!(one("http.listen"), (json!("127.0.0.1:9001"), SettingOrigin::File));
    assert_eq!(one("cluster.peers"), (json!(["1@10.0.0.1:9300", "2@10.0.0.2:9300"]), SettingOrigin::File));
    assert_eq!(one("login.session_ttl"), (json!("1h30m"), SettingOrigin::Environment));
    assert_eq!(one("tokens.access_ttl"), (json!("10m"), SettingOrigin::Default));
    assert_eq!(one("archive.hold_back"), (json!("4GiB"), SettingOrigin::Default));
    assert_eq!(one("cluster.secret"), (json!("(secret)"), SettingOrigin::Environment));
    assert!(!format!("{settings:?}").contains(&secret));
    assert!(!settings.iter().any(|setting| setting.path == "source"));
}

#[test]
fn peers_are_asked_where_their_admin_api_can_be_reached() {
    let peers = "[cluster]\npeers = [\"1@10.0.0.1:9300\", \"2@10.0.0.2:9300\", \"3@[fd00::3]:9300\"]\n";
    let urls = |api: &str| load(&format!("{peers}{api}"), &[]).unwrap().api_urls();
    assert_eq!(urls(""), ["http://127.0.0.1:9200"]);
    let all = ["http://10.0.0.1:9201", "http://10.0.0.2:9201", "http://[fd00::3]:9201"];
    assert_eq!(urls("[api]\nlisten = \"10.0.0.1:9201\"\n"), all);
    assert_eq!(urls("[api]\nadvertise_url = \"http://10.0.0.1:9201\"\n"), all);
    assert_eq!(urls("[api]\nadvertise_url = \"https://api.example.org\"\n"), ["https://api.example.org"]);
}

#[test]
fn a_file_and_the_environment_are_read_and_the_environment_wins() {
    let toml = r#"
        [node]
        id = 2
        [cluster]
        peers = ["1@a.internal:9300", "2@[::1]:9301"]
        [login]
        session_ttl = "1h30m"
        [login.throttle]
        account_failures = 3
    "#;
    let variables = [
        ("CONCLAVE_HTTP__LISTEN", "127.0.0.1:9100"),
        ("CONCLAVE_HTTP__TRUSTED_PROXIES", "10.0.0.1, fd00::/8"),
        ("CONCLAVE_LOGIN__SESSION_TTL", "2h"),
        ("CONCLAVE_LOGIN__THROTTLE__WINDOW", "5m"),
        ("CONCLAVE_LOGIN__ARGON2_THREADS", "3"),
        ("CONCLAVE_TOKEN", "of the command line tools"),
        ("PATH", "/bin"),
    ];
    let config = load(toml, &variables).unwrap();
    assert_eq!(config.cluster.address_of(2), "[::1]:9301");
    assert_eq!(config.login.session_ttl, Duration::from_hours(2));
    assert_eq!(config.login.throttle.window, Duration::from_mins(5));
    assert_eq!(config.login.throttle.account_failures.get(), 3);
    assert_eq!(config.login.argon2_threads.unwrap().get(), 3);
    assert_eq!(config.http.trusted_proxies.len(), 2);
    assert_eq!(config.http.public_url().unwrap().issuer(), "http://127.0.0.1:9100");
}

#[test]
fn peers_may_come_from_the_environment_too() {
    let config = load("", &[("CONCLAVE_CLUSTER__PEERS", "1@a:1,2@b:2"), ("CONCLAVE_NODE__ID", "2")]).unwrap();
    assert_eq!(config.cluster.peers.len(), 2);
    let listed = load("", &[("CONCLAVE_CLUSTER__PEERS", r#"["1@a:1"]"#)]).unwrap();
    assert_eq!(listed.cluster.peers[0].address, "a:1");
    assert_eq!(
        problems_with("", &[("CONCLAVE_CLUSTER__PEERS", "1@a:1,2@")]),
        [
            r#"cluster.peers[1]: "2@" has no address; write id@host:port (in the environment, CONCLAVE_CLUSTER__PEERS)"#
        ]
    );
}

#[test]
fn requests_wait_within_bounds_and_outbound_names_networks() {
    let toml = r#"
        [authorization]
        pushed_ttl = "30s"
        registration = "token"
        [outbound]
        allow = ["10.1.0.0/16", "127.0.0.1"]
    "#;
    let config = load(toml, &[]).unwrap();
    assert_eq!(config.authorization.pushed_ttl, Duration::from_secs(30));
    assert_eq!((config.authorization.require_pushed, config.outbound.allow.len()), (false, 2));
    assert_eq!(Config::default().authorization.registration, super::Registration::Off);
    refuses("[authorization]\npushed_ttl = \"91s\"", "authorization.pushed_ttl: must be between 5s and 90s");
    refuses(
        "[authorization]\ndevice_interval = \"0s\"",
        "authorization.device_interval: must be between 1s and 60s",
    );
}

#[test]
fn a_listener_with_tls_says_what_certificates_of_clients_are_good_for() {
    let tls = |more: &str| {
        format!(
            "[http.tls]\nlisten = \"127.0.0.1:9443\"\ncertificate_file = \"a.pem\"\nkey_file = \"a.key\"\n{more}"
        )
    };
    let mtls = |toml: &str| load(toml, &[]).unwrap().http.mtls();
    assert!(!mtls("").is_on && !mtls(&tls("")).is_on);
    let asks = mtls(&tls("client_certificates = \"request\"\npublic_url = \"https://mtls.test\""));
    assert!(asks.is_on && !asks.has_authorities);
    assert_eq!(asks.alias.unwrap().issuer(), "https://mtls.test");
    assert!(mtls(&tls("client_certificates = \"request\"\nclient_ca_file = \"ca.pem\"")).has_authorities);
    assert!(problems(&tls("client_ca_file = \"ca.pem\""))[0].contains("client_certificates"));
    assert!(problems(&tls("client_certificates = \"require\""))[0].contains("http.tls.client_certificates"));
    let variables = [
        ("CONCLAVE_HTTP__TLS__LISTEN", "127.0.0.1:9443"),
        ("CONCLAVE_HTTP__TLS__CERTIFICATE_FILE", "a.pem"),
        ("CONCLAVE_HTTP__TLS__KEY_FILE", "a.key"),
    ];
    assert_eq!(load("", &variables).unwrap().http.tls.unwrap().listen.0.port(), 9443);
}

#[test]
fn an_archive_needs_a_place_and_for_a_bucket_a_key() {
    let archive = |more: &str| format!("[archive]\n{more}");
    for target in ["/backups", "ftp://host/a", "s3:///prefix", "file://host/a"] {
        let found = problems(&archive(&format!("target = \"{target}\"")));
        assert!(found[0].starts_with("archive.target: "), "{target}: {found:?}");
    }
    let found = problems(&archive("target = \"s3://bucket/a\""));
    assert!(found[0].contains("archive.secret_access_key_file"), "{found:?}");
    assert!(problems(&archive("schedule = \"0 3 * * *\""))[0].contains("every 6h"));
    assert!(problems(&archive("hold_back = 4"))[0].contains("archive.hold_back"));
    let good = archive("target = \"s3://bucket/a\"\naccess_key_id = \"id\"");
    let config = load(&good, &[("CONCLAVE_ARCHIVE__SECRET_ACCESS_KEY", "hush-hush")]).unwrap();
    assert_eq!((config.archive.hold_back, config.archive.keep.monthly), (4 << 30, 12));
    assert!(!format!("{config:?}").contains("hush-hush"));
}

#[test]
fn an_unknown_setting_is_named_with_those_that_exist() {
    refuses("[node]\nidd = 3", "node.idd: no such setting; known here: id, data_dir (in conclave.toml)");
    refuses(
        "[nodes]\nid = 3",
        "nodes: no such setting; known here: node, cluster, http, envoy, api, login, tokens, authorization, outbound, atmosphere, policy, archive, log, telemetry (in conclave.toml)",
    );
    assert_eq!(
        problems_with("", &[("CONCLAVE_NODE__IDD", "3")]),
        ["node.idd: no such setting; known here: id, data_dir (in the environment, CONCLAVE_NODE__IDD)"]
    );
    assert_eq!(
        problems_with("", &[("CONCLAVE_NODE_ID", "3")]),
        ["environment CONCLAVE_NODE_ID: write CONCLAVE_NODE__ID, with two underscores after the section"]
    );
}

#[test]
fn a_value_of_the_wrong_form_is_named_with_the_form_expected() {
    refuses("[node]\nid = \"one\"", "node.id: expected u64, found string \"one\" (in conclave.toml)");
    refuses(
        "[http]\nlisten = \"9000\"",
        r#"http.listen: "9000" is not ip:port; write for example 127.0.0.1:9000 or [::]:9000 (in conclave.toml)"#,
    );
    refuses(
        "[tokens]\naccess_ttl = \"10\"",
        r#"tokens.access_ttl: "10" is not a duration; write for example 90s, 10m, 1h30m or 30d (in conclave.toml)"#,
    );
    refuses(
        "[tokens]\naccess_ttl = 10",
        "tokens.access_ttl: expected a duration such as \"10m\", found signed int `10` (in conclave.toml)",
    );
    refuses(
        "[http]\ntrusted_proxies = [\"10.0.0.1\", \"proxy\"]",
        r#"http.trusted_proxies[1]: "proxy" is not an address or network; write for example 10.0.0.0/8 (in conclave.toml)"#,
    );
    refuses(
        "[log]\nformat = \"xml\"",
        r#"log.format: "xml" is none of auto, human, json (in conclave.toml)"#,
    );
}

#[test]
fn a_file_that_is_no_toml_names_the_line() {
    let problem = problems("[node\nid = 1").join("\n");
    assert!(problem.contains("line 1") && problem.contains("conclave.toml"), "{problem}");
}

#[test]
fn a_peer_that_cannot_be_reached_is_named_by_its_position() {
    let peers = |second: &str| format!("[cluster]\npeers = [\"1@a:9300\", \"{second}\"]");
    let fault = |second: &str, fault: &str| {
        refuses(&peers(second), &format!("cluster.peers[1]: {fault} (in conclave.toml)"));
    };
    fault("2@", r#""2@" has no address; write id@host:port"#);
    fault("b:9300", r#""b:9300" has no "@"; write id@host:port"#);
    fault("two@b:9300", r#""two@b:9300" does not begin with a node number; write id@host:port"#);
    fault("2@b", r#""2@b" has no port or a wrong one; write id@host:port"#);
    fault("2@b:0", r#""2@b:0" has no port or a wrong one; write id@host:port"#);
    fault("2@a b:9", r#""2@a b:9" has no port or a wrong one; write id@host:port"#);
    fault("0@b:9300", r#""0@b:9300": 0 is not a node number; count from 1"#);
}

#[test]
fn settings_that_contradict_each_other_are_all_named_at_once() {
    let toml = r#"
        [node]
        id = 7
        [cluster]
        peers = ["1@a:1", "1@b:1", "2@a:1"]
        secret = "x"
        secret_file = "y"
    "#;
    assert_eq!(
        problems(toml),
        [
            "cluster.secret: set either this or cluster.secret_file, not both",
            "cluster.peers[1]: node 1 is named twice",
            "cluster.peers[2]: address a:1 is named twice",
            "cluster.peers: this node (node.id = 7) is missing; add \"7@host:port\"",
        ]
    );
    refuses("[node]\nid = 0", "node.id: 0 is not a node number; count from 1");
    let many: Vec<_> = (1..=10).map(|id| format!("\"{id}@h{id}:1\"")).collect();
    refuses(
        &format!("[cluster]\npeers = [{}]", many.join(",")),
        "cluster.peers: 10 members are too many; at most 9",
    );
}

#[test]
fn the_public_url_is_https_or_this_machine() {
    let of = |url: &str| load(&format!("[http]\npublic_url = \"{url}\""), &[]);
    for good in
        ["https://login.example.org", "http://localhost:9090", "http://app.localhost", "http://[::1]:9"]
    {
        assert_eq!(of(good).unwrap().http.public_url().unwrap().issuer(), good);
    }
    assert!(of("https://login.example.org").unwrap().http.public_url().unwrap().is_secure());
    let fault = |url: &str, fault: &str| {
        let problem = format!("http.public_url: {url:?} {fault} (in conclave.toml)");
        refuses(&format!("[http]\npublic_url = \"{url}\""), &problem);
    };
    let insecure = "must be https: browsers and OpenID Connect trust http on localhost only";
    fault("http://login.example.org", insecure);
    fault("http://localhost.example.org", insecure);
    fault("ftp://localhost", "must be https, or http on localhost");
    fault("login.example.org", "is not a URL; write for example https://login.example.org");
    fault("https://login.example.org/idp", "must end after the host and port");
    fault("https://login.example.org/?a=b", "must end after the host and port");
    fault("https://me@login.example.org", "must not name a user");
    refuses(
        "[http]\nlisten = \"0.0.0.0:9000\"",
        "http.public_url: must be set when http.listen (0.0.0.0:9000) is not loopback; write the https URL that users open",
    );
}

#[test]
fn a_cookie_domain_must_hold_the_public_host() {
    let toml = |domain: &str| {
        format!("[http]\npublic_url = \"https://login.example.org\"\ncookie_domain = \"{domain}\"")
    };
    assert!(load(&toml("example.org"), &[]).is_ok());
    for other in ["example.com", "ample.org", ".example.org", "org"] {
        let problem = format!(
            "http.cookie_domain: {other:?} is not login.example.org or a parent domain of it, written without a leading dot"
        );
        refuses(&toml(other), &problem);
    }
}

#[test]
fn domains_of_applications_are_whole_names_and_envoy_needs_a_proxy_to_answer() {
    let toml = |domain: &str| format!("[http]\napp_domains = [\"{domain}\"]");
    for good in ["example.org", "xn--bcher-kva.example", "a.b.example"] {
        assert!(load(&toml(good), &[]).is_ok(), "{good}");
    }
    for bad in [
        "org",
        ".example.org",
        "example.org.",
        "Example.org",
        "bücher.example",
        "10.0.0.1",
        "*.example.org",
        "",
    ] {
        let problem = format!(
            "http.app_domains: {bad:?} must be a domain of two labels or more, lower case, written without a leading dot"
        );
        refuses(&toml(bad), &problem);
    }
    let envoy = "[envoy]\nlisten = \"127.0.0.1:9002\"\n";
    refuses(envoy, "envoy.listen: no proxy would be served; add Envoy's address to http.trusted_proxies");
    assert!(load(&format!("{envoy}[http]\ntrusted_proxies = [\"10.0.0.1\"]"), &[]).is_ok());
}

#[test]
fn values_out_of_bounds_are_refused() {
    refuses("[http]\nmax_body_bytes = 10", "http.max_body_bytes: must be between 4096 and 16777216");
    refuses("[http]\ntemplate_dir = \"/no/such\"", "http.template_dir: /no/such is not a folder");
    refuses("[login]\nsession_ttl = \"1s\"", "login.session_ttl: must be between 60s and 34560000s");
    refuses("[login]\nargon2_threads = 257", "login.argon2_threads: at most 256");
    refuses("[tokens]\ncode_ttl = \"1h\"", "tokens.code_ttl: must be between 5s and 600s");
    refuses(
        "[api]\nadvertise_url = \"ftp://a\"",
        "api.advertise_url: write http://host:port or https://host:port",
    );
    refuses(
        "[telemetry]\notlp_endpoint = \"https://c:4317\"",
        "telemetry.otlp_endpoint: write http://host:port of a collector near this node",
    );
    let level = problems("[log]\nlevel = \"a=b=c\"").join("");
    assert!(level.starts_with(r#"log.level: "a=b=c" is not a level or filter"#), "{level}");
}

#[test]
fn a_missing_file_is_an_error() {
    let missing = std::path::Path::new("/no/such/conclave.toml");
    let error = Config::from_sources(Some(missing), &Environment::default()).unwrap_err().to_string();
    assert!(error.starts_with("cannot read the configuration file /no/such/conclave.toml: "), "{error}");
}

mod secret {
    use super::{Config, ConfigError, Environment, PermissionsExt, SeededEntropy, fs, load_secret};

    fn config(dir: &std::path::Path, more: &[(&str, &str)]) -> Config {
        let data_dir = dir.join("data").display().to_string();
        let variables = [("CONCLAVE_NODE__DATA_DIR", data_dir.as_str())];
        Config::from_sources(None, &Environment::of(variables.into_iter().chain(more.iter().copied())))
            .unwrap()
    }

    #[test]
    fn secrets_that_are_accepted_are_read_and_a_missing_one_stops_the_node() {
        let dir = tempfile::tempdir().unwrap();
        let other = dir.path().join("other.secret");
        let shown = other.display().to_string();
        let config = config(dir.path(), &[("CONCLAVE_CLUSTER__ACCEPT_SECRET_FILES", &shown)]);
        assert!(secret(&config, 1).unwrap_err().contains("accept_secret_files"));
        let coming = conclave_crypto::secret::ClusterSecret::generate(SeededEntropy::new(5).as_ref());
        crate::write_new_secret(&other, &coming).unwrap();
        let ring = load_secret(&config, SeededEntropy::new(1).as_ref()).unwrap();
        assert_eq!(*ring.accepted[0].to_text(), *coming.to_text());
        assert_ne!(*ring.current.to_text(), *coming.to_text());
        fs::set_permissions(&other, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(secret(&config, 1).unwrap_err().contains("chmod 600"));
    }

    fn secret(config: &Config, seed: u64) -> Result<String, String> {
        match load_secret(config, SeededEntropy::new(seed).as_ref()) {
            Ok(secret) => Ok(secret.current.to_text().to_string()),
            Err(ConfigError::Secret(text)) => Err(text),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn a_node_on_its_own_makes_a_secret_once_and_for_itself_alone() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path(), &[]);
        let made = secret(&config, 1).unwrap();
        assert_eq!(secret(&config, 2).unwrap(), made, "the second start reads what the first wrote");
        let file = dir.path().join("data/cluster.secret");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path().join("data")).unwrap().count(), 1);
    }

    #[test]
    fn a_node_with_peers_must_be_given_theirs() {
        let dir = tempfile::tempdir().unwrap();
        let error =
            secret(&config(dir.path(), &[("CONCLAVE_CLUSTER__PEERS", "1@a:1,2@b:2")]), 1).unwrap_err();
        assert!(
            error.contains("run `conclave secret new`") && error.contains("data/cluster.secret"),
            "{error}"
        );
        assert!(!dir.path().join("data").exists(), "nothing was made");
    }

    #[test]
    fn a_secret_in_the_environment_is_used_and_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        let text = "0123456789abcdef".repeat(4);
        let given = config(dir.path(), &[("CONCLAVE_CLUSTER__SECRET", &text)]);
        assert!(secret(&given, 1).is_ok());
        assert!(!format!("{given:?}").contains("0123456789abcdef"));
        let wrong = config(dir.path(), &[("CONCLAVE_CLUSTER__SECRET", "hunter2hunter2")]);
        let error = secret(&wrong, 1).unwrap_err();
        assert!(error.starts_with("cluster.secret: ") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn a_file_that_is_missing_open_to_all_or_no_secret_is_refused_with_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("s");
        let named = config(dir.path(), &[("CONCLAVE_CLUSTER__SECRET_FILE", file.to_str().unwrap())]);
        assert!(secret(&named, 1).unwrap_err().contains("does not exist"));
        fs::write(&file, "junk").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(secret(&named, 1).unwrap_err().contains("chmod 600"));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let error = secret(&named, 1).unwrap_err();
        assert!(error.contains("must be 64 of hex") && !error.contains("junk"), "{error}");
    }
}

#[test]
fn the_form_of_shared_settings_stays_as_other_versions_write_it() {
    let lists = r#"
        [http]
        public_url = "https://id.example.org"
        trusted_proxies = ["10.0.0.0/8", "::1"]
        app_domains = ["example.org"]
        cookie_domain = "example.org"
        [authorization]
        client_documents = ["apps.example.com"]
        [outbound]
        allow = ["192.168.1.0/24"]
    "#;
    let shared = load(lists, &[]).unwrap().shared();
    let text: Vec<String> = shared.iter().map(|(name, value)| format!("{name} = {value}")).collect();
    // Members compare digests of these texts: a text that changes makes every upgraded node differ from the others.
    assert_eq!(text, EXPECTED.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>());
}

/// The texts of the settings as the version before wrote them.
const EXPECTED: &str = r#"
    http.public_url = https://id.example.org
    http.trusted_proxies = Cidr { network: 10.0.0.0, prefix: 8 } Cidr { network: ::1, prefix: 128 }
    http.max_body_bytes = 65536
    http.cookie_domain = Some("example.org")
    http.app_domains = "example.org"
    login.session_ttl = 43200s
    login.flow_ttl = 900s
    login.throttle = Throttle { account_failures: 10, address_failures: 50, window: 900s }
    tokens.access_ttl = 600s
    tokens.code_ttl = 60s
    tokens.refresh_ttl = 2592000s
    tokens.refresh_retry_window = 30s
    tokens.signing_key_ttl = 7776000s
    tokens.signing_key_notice = 86400s
    authorization.require_pushed = false
    authorization.registration = Off
    authorization.client_documents = "apps.example.com"
    authorization.pushed_ttl = 60s
    authorization.device_ttl = 600s
    authorization.device_interval = 5s
    outbound.allow = Cidr { network: 192.168.1.0, prefix: 24 }
    cluster.checks = Lease
    policy.geoip.fail_open = false
    archive.target = None
"#;
