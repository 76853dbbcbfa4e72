//! The product beside the baseline of its promise, in one run: a forward-auth check beside a bare axum handler, a
//! complete login beside one argon2 verification with the same parameters. One client, one connection, loopback.

#![expect(clippy::expect_used, reason = "a bench that cannot set itself up has failed")]

mod site;

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use tokio::runtime::Runtime;

use site::{BenchBrowser, BenchSite, PASSWORD};

fn forward_auth_vs_bare(c: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let site = runtime.block_on(BenchSite::open());
    let headers = runtime.block_on(site.check_headers());
    let mut connection = runtime.block_on(site.browser());
    let mut group = c.benchmark_group("forward_auth_vs_bare");
    for (name, path) in [("bare", "/bare"), ("check", "/auth/traefik")] {
        group.bench_function(name, |b| {
            b.iter(|| {
                let page = runtime.block_on(connection.get(path, &headers));
                assert_eq!(page.status, 200, "{}", page.text);
            });
        });
    }
    group.finish();
}

/// The cost of the lease to a check: the state without a lease, beside the state under a lease.
fn lease_vs_view(c: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let site = runtime.block_on(BenchSite::open());
    let cluster = site.cluster();
    let mut group = c.benchmark_group("lease_vs_view");
    group.bench_function("view", |b| b.iter(|| runtime.block_on(async { cluster.view() })));
    group.bench_function("under_a_lease", |b| {
        b.iter(|| runtime.block_on(cluster.serving_view(0)).expect("a lease"));
    });
    group.finish();
}

fn logins_vs_argon2(c: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let site = runtime.block_on(BenchSite::open());
    let mut group = c.benchmark_group("logins_vs_argon2");
    group.bench_function("argon2", |b| b.iter(|| runtime.block_on(site.verify(PASSWORD))));
    let mut browser: BenchBrowser = runtime.block_on(site.browser());
    group.bench_function("login", |b| b.iter(|| runtime.block_on(browser.sign_in())));
    group.finish();
}

criterion_group! {
    name = checks;
    config = Criterion::default().sample_size(20).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3));
    targets = forward_auth_vs_bare, lease_vs_view
}
criterion_group! {
    name = logins;
    config = Criterion::default().sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(4));
    targets = logins_vs_argon2
}
criterion_main!(checks, logins);
