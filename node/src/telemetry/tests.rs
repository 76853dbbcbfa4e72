use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use opentelemetry::trace::TraceContextExt;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tonic::metadata::MetadataMap;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::fmt::MakeWriter;

use super::{Chain, TelemetryGuard, subscriber};
use conclave_base::propagation;

#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Written {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Written {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

fn logged(level: &str, json: bool, work: impl FnOnce()) -> String {
    let written = Written::default();
    tracing::subscriber::with_default(subscriber(level, json, written.clone(), None).unwrap(), work);
    written.text()
}

#[test]
fn json_lines_carry_fields_and_the_span_they_stand_in() {
    let text = logged("info", true, || {
        tracing::info_span!("http.request", request.id = "r1").in_scope(|| {
            tracing::info!(user.id = 5, "signed in");
            tracing::debug!("not at this level");
        });
    });
    let line: serde_json::Value = serde_json::from_str(text.trim()).expect("one line of JSON");
    assert_eq!((&line["message"], &line["user.id"]), (&"signed in".into(), &5.into()));
    assert_eq!((&line["level"], &line["span"]["request.id"]), (&"INFO".into(), &"r1".into()));
    assert!(line["timestamp"].as_str().unwrap().ends_with('Z'));
}

#[test]
fn people_get_a_sentence_and_the_filter_is_obeyed_per_module() {
    let work = || {
        tracing::info!("the node is ready");
        tracing::info!(target: "noisy", "chatter");
    };
    let text = logged("info,noisy=off", false, work);
    assert!(text.contains("the node is ready") && !text.contains("chatter"), "{text}");
    assert!(subscriber("a=b=c", false, Written::default(), None).is_err());
}

/// The shipped filters in `deploy/fail2ban` and `deploy/crowdsec` match these names, in this order, in both forms.
#[test]
fn the_line_of_a_refusal_is_what_the_shipped_filters_read() {
    let work = || {
        conclave_http::denial::log(
            "sign_in",
            "bad_credentials",
            "203.0.113.9",
            Some("a da=b"),
            "0af1",
            "the password is wrong",
        );
    };
    let text = logged("info", false, work);
    assert!(
        text.trim_end().ends_with(
            r"INFO refused kind=sign_in reason=bad_credentials client.address=203.0.113.9 subject=a\u{20}da\u{3d}b request.id=0af1 detail=the password is wrong"
        ),
        "{text}"
    );
    let json = logged("info", true, work);
    assert!(
        json.contains(
            r#""message":"refused","kind":"sign_in","reason":"bad_credentials","client.address":"203.0.113.9","subject":"#
        ),
        "{json}"
    );
    let counted = conclave_http::denial::counts();
    assert!(counted.get(&("sign_in", "bad_credentials")).is_some_and(|count| *count >= 2));
}

/// The shipped patterns of fail2ban and CrowdSec, for lines in text form.
fn shipped_patterns() -> Vec<regex::Regex> {
    let fail2ban = include_str!("../../../deploy/fail2ban/conclave.conf");
    let rules =
        fail2ban.lines().filter_map(|line| line.trim_start_matches("failregex =").trim().strip_prefix('^'));
    let crowdsec = include_str!("../../../deploy/crowdsec/conclave-logs.yaml");
    let grok =
        crowdsec.lines().find_map(|line| line.trim().strip_prefix("pattern: '")?.strip_suffix('\'')).unwrap();
    let words = [
        ("%{TIMESTAMP_ISO8601:logged_at}", r"\d{4}-\d\d-\d\dT[\d:.]+Z"),
        ("%{NOTSPACE:kind}", r"\S+"),
        ("%{NOTSPACE:reason}", r"\S+"),
        ("%{IP:source_ip}", r"[\d.]+"),
        ("%{NOTSPACE:subject}", r"\S+"),
        ("%{NOTSPACE:request_id}", r"\S+"),
    ];
    let grok = words.iter().fold(grok.to_owned(), |text, (word, pattern)| text.replace(word, pattern));
    let rules = rules.map(|rule| format!("^{}", rule.replace("<HOST>", r"[\d.]+")));
    rules.chain([grok]).map(|rule| regex::Regex::new(&rule).unwrap()).collect()
}

#[test]
fn no_text_of_a_stranger_in_any_line_looks_like_a_refusal_to_the_shipped_filters() {
    let patterns = shipped_patterns();
    assert_eq!(patterns.len(), 3);
    let real = |json| {
        logged("info", json, || {
            conclave_http::denial::log("sign_in", "bad_credentials", "203.0.113.9", Some("ada"), "0af1", "x");
        })
    };
    let matches = |text: &str| text.lines().any(|line| patterns.iter().any(|pattern| pattern.is_match(line)));
    assert!(matches(&real(false)) && matches(&real(true)));
    assert!(matches(&format!("id conclave[7]: {}", real(false))), "as the journal has it");
    let line =
        "INFO refused kind=sign_in reason=bad_credentials client.address=203.0.113.9 subject=x request.id=y";
    for hostile in [
        format!("x {line}"),
        format!("x\n2026-01-01T00:00:00Z  {line}"),
        format!("x\r\n{line}"),
        r#"","message":"refused","kind":"sign_in","reason":"bad_credentials","client.address":"203.0.113.9""#
            .into(),
    ] {
        for json in [false, true] {
            let text = logged("info", json, || {
                tracing::info!(scopes = %hostile, "scopes were left out");
                tracing::info!("{hostile}");
                tracing::warn!(scopes = ?hostile, "as debug");
            });
            assert_eq!(text.lines().count(), 3, "{text}");
            assert!(!matches(&text), "{text}");
        }
    }
}

#[test]
fn one_trace_spans_a_call_from_node_to_node() {
    let provider = SdkTracerProvider::builder().build();
    let node = || subscriber("info", true, Written::default(), Some(&provider)).unwrap();
    let mut metadata = MetadataMap::new();
    let follower = tracing::subscriber::with_default(node(), || {
        let span = tracing::info_span!("follower.propose");
        span.in_scope(|| propagation::inject(&mut metadata));
        span.context().span().span_context().clone()
    });
    let leader = tracing::subscriber::with_default(node(), || {
        let span = tracing::info_span!("leader.propose");
        propagation::adopt(&span, &metadata);
        span.context().span().span_context().clone()
    });
    assert!(follower.is_valid());
    assert_eq!(leader.trace_id(), follower.trace_id());
    assert_ne!(leader.span_id(), follower.span_id());
    let traceparent = metadata.get("traceparent").unwrap().to_str().unwrap();
    assert!(traceparent.contains(&follower.span_id().to_string()), "{traceparent}");
}

#[test]
fn one_trace_spans_what_travels_sealed_and_points_at_the_request_that_took_it_up() {
    let provider = SdkTracerProvider::builder().build();
    let node = || subscriber("info", true, Written::default(), Some(&provider)).unwrap();
    let (begun, sealed) = tracing::subscriber::with_default(node(), || {
        let span = tracing::info_span!("begins");
        (span.context().span().span_context().clone(), span.in_scope(propagation::sealed))
    });
    assert!(sealed.contains(&begun.trace_id().to_string()) && sealed.len() == 55, "{sealed}");
    let ended = |sealed: &str| {
        tracing::subscriber::with_default(node(), || {
            tracing::info_span!("http.request").in_scope(|| {
                let span = tracing::info_span!("ends");
                propagation::resume(&span, sealed);
                span.context().span().span_context().trace_id()
            })
        })
    };
    assert_eq!(ended(&sealed), begun.trace_id());
    let long = format!("{sealed}-{}", "x".repeat(1_000));
    for other in ["", "00-zz-zz-01", &sealed[..54], &long, &sealed.replace("00-", "ff-")] {
        assert_ne!(ended(other), begun.trace_id(), "{other}");
    }
}

#[test]
fn without_a_collector_nothing_is_carried() {
    let mut metadata = MetadataMap::new();
    let written = Written::default();
    tracing::subscriber::with_default(subscriber("info", true, written, None).unwrap(), || {
        let span = tracing::info_span!("follower.propose");
        span.in_scope(|| propagation::inject(&mut metadata));
        propagation::adopt(&span, &metadata);
        assert_eq!(span.in_scope(propagation::sealed), "");
    });
    assert!(metadata.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_stops_nothing() {
    let provider = super::provider("http://127.0.0.1:9", 1).unwrap();
    let node = subscriber("info", true, Written::default(), Some(&provider)).unwrap();
    tracing::subscriber::with_default(node, || tracing::info_span!("work").in_scope(|| ()));
    TelemetryGuard(Some(provider)).shutdown();
}

#[test]
fn a_chain_of_causes_is_one_line() {
    #[derive(Debug, thiserror::Error)]
    #[error("cannot start")]
    struct Outer(#[source] io::Error);
    let error = Outer(io::Error::other("port taken"));
    assert_eq!(Chain(&error).to_string(), "cannot start: port taken");
}

#[test]
fn a_filter_that_names_modules_of_before_names_their_crates() {
    for (before, now) in [
        ("info", "info"),
        ("info,conclave_node=debug", "info,conclave=debug"),
        ("warn,conclave_node::cluster=debug,h2=error", "warn,conclave_cluster=debug,h2=error"),
        ("conclave_node::cluster::lease=trace", "conclave_cluster::lease=trace"),
        ("conclave_node::protocol::oidc=trace", "conclave_oidc=trace"),
        ("conclave_node::auth::pages=trace", "conclave_web::pages=trace"),
        ("conclave_node::boot=trace", "conclave_node::boot=trace"),
        ("conclave_node[http.request{request.id=1}]=trace", "conclave[http.request{request.id=1}]=trace"),
    ] {
        assert_eq!(super::of_crates(before), now);
    }
}
