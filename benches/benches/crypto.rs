//! Signing an ID token of usual size with each algorithm.

#![expect(clippy::expect_used, reason = "a bench that cannot set itself up has failed")]

use std::time::Duration;

use conclave_base::runtime::Runtime;
use conclave_crypto::{jwk::Alg, jwt::JwtSigningKey};
use criterion::{Criterion, criterion_group, criterion_main};
use serde_json::json;

fn sign(c: &mut Criterion) {
    let claims = json!({
        "iss": "https://id.example.test", "sub": "0123456789abcdef0123456789abcdef", "aud": "web",
        "exp": 1_800_000_600, "iat": 1_800_000_000, "auth_time": 1_800_000_000, "nonce": "a nonce of a client",
        "sid": "0123456789abcdef0123456789abcdef", "at_hash": "0123456789abcdef012345", "amr": ["pwd"],
    });
    for (name, alg) in [("rs256", Alg::Rs256), ("es256", Alg::Es256), ("eddsa", Alg::EdDsa)] {
        let pkcs8 = JwtSigningKey::generate_pkcs8(alg, &*Runtime::system().entropy).expect("a key");
        let key = JwtSigningKey::from_pkcs8(alg, &pkcs8).expect("the key made");
        c.bench_function(&format!("sign/{name}"), |b| b.iter(|| key.sign("JWT", &claims).expect("a token")));
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = sign
}
criterion_main!(benches);
