use axum::body::Bytes;

use super::*;

#[test]
fn what_an_attacker_typed_cannot_look_like_another_field_or_another_line() {
    let typed = "ada\n INFO refused kind=sign_in client.address=192.0.2.1 \u{202e}";
    let subject = escaped(typed, MAX_SUBJECT_CHARS, false);
    assert!(!subject.contains([' ', '=', '\n', '\u{202e}']), "{subject}");
    let detail = escaped(typed, MAX_DETAIL_CHARS, true);
    assert!(!detail.contains(['=', '\n']), "{detail}");
    assert_eq!(escaped(&"x".repeat(500), MAX_SUBJECT_CHARS, false).chars().count(), MAX_SUBJECT_CHARS + 1);
    assert_eq!(escaped("jörg@example.org", MAX_SUBJECT_CHARS, false), "jörg@example.org");
    assert_eq!(escaped("", MAX_SUBJECT_CHARS, false), "-");
}

#[test]
fn the_subject_is_found_wherever_a_request_names_it_and_never_is_a_password() {
    let presented = |query: &str, form: &'static str, authorization: Option<&'static str>| {
        let mut headers = HeaderMap::new();
        if let Some(value) = authorization {
            headers.insert(header::AUTHORIZATION, http::HeaderValue::from_static(value));
        }
        let presented = Presented::of("/login", Some(query), &headers);
        presented.form.set(Bytes::from_static(form.as_bytes())).unwrap();
        presented.subject()
    };
    assert_eq!(presented("", "username=ada&password=secret", None).as_deref(), Some("ada"));
    assert_eq!(presented("client_id=grafana", "", None).as_deref(), Some("grafana"));
    // gitea:secret
    assert_eq!(presented("", "", Some("Basic Z2l0ZWE6c2VjcmV0")).as_deref(), Some("gitea"));
    // {"sub":"wiki"}
    assert_eq!(presented("", "client_assertion=e30.eyJzdWIiOiJ3aWtpIn0.x", None).as_deref(), Some("wiki"));
    assert_eq!(presented("", "password=secret", Some("Bearer abc")), None);
}
