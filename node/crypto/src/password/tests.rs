use std::num::NonZeroUsize;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::phc::Phc;
use super::pool::{Memory, Pool};
use super::{
    Cost, MAX_PASSWORD_LEN, MAX_WAITING, PasswordCheck, PasswordError, PasswordPool, PlaintextPassword,
};

const CHEAP: Cost = Cost { memory_kib: 64, passes: 1, lanes: 1 };

fn pool(cost: Cost) -> PasswordPool {
    PasswordPool::start(NonZeroUsize::MIN, cost).unwrap()
}

fn password(text: &str) -> PlaintextPassword {
    PlaintextPassword::new(text).unwrap()
}

#[tokio::test]
async fn a_password_verifies_against_its_own_hash_only() {
    let pool = pool(CHEAP);
    let phc = pool.hash(password("käse\0brot"), [7; 16]).await.unwrap();
    let verify = |text| pool.verify(password(text), Some(&phc));
    assert_eq!(verify("käse\0brot").await, Ok(PasswordCheck::Match { needs_rehash: false }));
    assert_eq!(verify("käse").await, Ok(PasswordCheck::Mismatch));
    assert_eq!(verify("").await, Ok(PasswordCheck::Mismatch));
}

#[tokio::test]
async fn the_format_is_that_of_the_reference_implementation() {
    // Made by the reference tool: printf password | argon2 somesaltsomesalt -id -t 2 -k 256 -p 1 -e
    let phc =
        "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$yrdGtGIZk/3JHsUHh5gLQUqQppLwvGjf4Z+cJbPLqew";
    let verdict = pool(CHEAP).verify(password("password"), Some(phc)).await;
    assert_eq!(verdict, Ok(PasswordCheck::Match { needs_rehash: true }));
}

#[tokio::test]
async fn hashes_are_made_with_the_owasp_parameters() {
    let phc = pool(Cost::OWASP).hash(password("x"), [1; 16]).await.unwrap();
    assert!(phc.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{phc}");
}

#[tokio::test]
async fn a_stored_hash_out_of_bounds_or_of_another_kind_is_refused_unworked() {
    let pool = pool(CHEAP);
    let refused = async |phc: &str| pool.verify(password("x"), Some(phc)).await.unwrap_err();
    let tail = "c29tZXNhbHRzb21lc2FsdA$yrdGtGIZk/3JHsUHh5gLQUqQppLwvGjf4Z+cJbPLqew";
    for costly in ["m=262145,t=2,p=1", "m=256,t=11,p=1", "m=256,t=2,p=9", "m=4294967295,t=1,p=1"] {
        let phc = format!("$argon2id$v=19${costly}${tail}");
        assert_eq!(refused(&phc).await, PasswordError::CostTooHigh, "{phc}");
    }
    assert_eq!(
        pool.verify(password("x"), Some(&format!("$argon2id$v=19$m=256,t=2,p=1${tail}"))).await,
        Ok(PasswordCheck::Mismatch),
        "the same string within bounds is worked on"
    );
    for odd in [
        "",
        "plain",
        "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHRzb21lc2FsdA",
        &format!("$argon2i$v=19$m=256,t=2,p=1${tail}"),
        &format!("$argon2id$v=16$m=256,t=2,p=1${tail}"),
        &format!("$argon2id$v=19$m=256,t=2${tail}"),
        &format!("$argon2id$v=19$m=256,t=2,p=1,data=AAAA${tail}"),
        &format!("$argon2id$v=19$m=256,t=0,p=1${tail}"),
    ] {
        assert_eq!(refused(odd).await, PasswordError::MalformedHash, "{odd}");
    }
}

#[test]
fn a_password_beyond_the_bound_is_refused_before_hashing() {
    assert!(PlaintextPassword::new("\0".repeat(MAX_PASSWORD_LEN)).is_ok());
    assert_eq!(
        PlaintextPassword::new("\0".repeat(MAX_PASSWORD_LEN + 1)).unwrap_err(),
        PasswordError::TooLong
    );
    assert_eq!(format!("{:?}", password("hunter2")), "(password)");
}

/// One password as composed and decomposed keyboards type it, with a no-break space in place of a space.
const COMPOSED: &str = "K\u{e4}se \u{1112}";
const DECOMPOSED: &str = "Ka\u{308}se\u{a0}\u{1112}";

#[tokio::test]
async fn a_password_is_the_same_on_keyboards_that_compose_differently() {
    let pool = pool(CHEAP);
    for (set, typed) in [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED), (DECOMPOSED, DECOMPOSED)] {
        let phc = pool.hash(password(set), [7; 16]).await.unwrap();
        let verdict = pool.verify(password(typed), Some(&phc)).await;
        assert_eq!(verdict, Ok(PasswordCheck::Match { needs_rehash: false }), "{set:?} {typed:?}");
    }
    let phc = pool.hash(password("K\u{e4}se"), [7; 16]).await.unwrap();
    for other in ["K\u{c4}se", "Kase", "k\u{e4}se", "K\u{ff41}\u{308}se"] {
        assert_eq!(pool.verify(password(other), Some(&phc)).await, Ok(PasswordCheck::Mismatch), "{other:?}");
    }
}

#[tokio::test]
async fn a_hash_from_before_normalisation_still_verifies() {
    let pool = pool(CHEAP);
    let old = Phc::of(DECOMPOSED.as_bytes(), &[7; 16], CHEAP, &mut Memory::default()).unwrap().to_string();
    let verdict = pool.verify(password(DECOMPOSED), Some(&old)).await;
    assert_eq!(verdict, Ok(PasswordCheck::Match { needs_rehash: true }));
    assert_eq!(pool.verify(password(COMPOSED), Some(&old)).await, Ok(PasswordCheck::Mismatch));
    assert_eq!(pool.verify(password(DECOMPOSED), None).await, Ok(PasswordCheck::Mismatch));
}

#[test]
fn a_password_is_counted_in_composed_characters() {
    assert_eq!(password("a\u{308}").char_count(), 1);
    assert_eq!(password("a\u{308}\u{308}").char_count(), 2);
}

#[tokio::test]
async fn nobody_has_any_password() {
    let pool = pool(CHEAP);
    assert_eq!(pool.verify(password(""), None).await, Ok(PasswordCheck::Mismatch));
    assert_eq!(pool.verify(password("password"), None).await, Ok(PasswordCheck::Mismatch));
}

#[tokio::test]
async fn the_queue_is_bounded_and_serves_in_order() {
    let pool = Pool::start(NonZeroUsize::MIN).unwrap();
    let (release, gate) = mpsc::channel::<()>();
    let (report, order) = mpsc::channel();
    let (started, has_started) = tokio::sync::oneshot::channel();
    let blocked = tokio::spawn({
        let pool = pool.clone();
        async move {
            pool.run(move |_| {
                started.send(()).unwrap();
                gate.recv().ok();
            })
            .await
        }
    });
    has_started.await.unwrap();
    let waiting: Vec<_> = (0..MAX_WAITING)
        .map(|number| {
            let report = report.clone();
            let mut run = Box::pin(pool.run(move |_| report.send(number).unwrap()));
            // The first poll puts it into the queue.
            assert!(futures_util::FutureExt::now_or_never(&mut run).is_none());
            run
        })
        .collect();
    assert_eq!(pool.run(|_| ()).await, Err(PasswordError::Busy));
    release.send(()).unwrap();
    blocked.await.unwrap().unwrap();
    for run in waiting {
        run.await.unwrap();
    }
    assert!(order.try_iter().eq(0..MAX_WAITING), "first come, first served");
}

#[tokio::test]
async fn a_panic_in_one_job_costs_that_job_alone() {
    let pool = Pool::start(NonZeroUsize::MIN).unwrap();
    assert_eq!(pool.run(|_| panic!("a test's panic")).await, Err::<(), _>(PasswordError::Stopped));
    assert_eq!(pool.run(|_| 5).await, Ok(5));
}

/// Medians of interleaved runs. Scheduling on a busy machine can spoil one attempt, so there are several. Without the
/// dummy hash, the medians would differ by a factor of thousands in each.
#[tokio::test]
async fn an_unknown_user_takes_as_long_as_a_wrong_password() {
    const RUNS: usize = 9;
    const ATTEMPTS: usize = 6;
    let pool = pool(Cost::OWASP);
    let phc = pool.hash(password("right"), [1; 16]).await.unwrap();
    let time = async |phc: Option<&str>| {
        let start = Instant::now();
        assert_eq!(pool.verify(password("wrong"), phc).await, Ok(PasswordCheck::Mismatch));
        start.elapsed()
    };
    let mut seen = Vec::new();
    for _ in 0..ATTEMPTS {
        let (mut known, mut unknown) = (Vec::new(), Vec::new());
        for _ in 0..RUNS {
            known.push(time(Some(&phc)).await);
            unknown.push(time(None).await);
        }
        let (known, unknown) = (median(known), median(unknown));
        if known.abs_diff(unknown) * 4 <= known.max(unknown) {
            return;
        }
        seen.push((known, unknown));
    }
    panic!("medians of known and unknown users differ by more than a quarter: {seen:?}");
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}
