//! All nodes die at once, during writes: every acknowledged write is restored.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use conclave_client::{AdminClient, v1};

use super::{
    relying_party::{SignedIn, Way, refresh, sign_in},
    world::{Demo, kill_9},
};

/// Logins that must be acknowledged before the kill.
const LOGINS: usize = 12;
/// Users that must be acknowledged before the kill.
const USERS: usize = 30;
const LIMIT: Duration = Duration::from_mins(1);

/// The acknowledged writes, and the number of writers that have seen a failure since.
#[derive(Default)]
struct Acknowledged {
    people: Mutex<Vec<SignedIn>>,
    users: Mutex<Vec<String>>,
    cut_off: AtomicUsize,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_is_killed_at_once_amid_writing_and_nothing_acknowledged_is_lost() {
    let demo = Arc::new(Demo::start(&["--restart"]));
    let done = Arc::new(Acknowledged::default());
    let writers = [
        tokio::spawn(sign_people_in(demo.clone(), done.clone())),
        tokio::spawn(sign_people_in(demo.clone(), done.clone())),
        tokio::spawn(create_users(demo.clone(), done.clone(), 0)),
        tokio::spawn(create_users(demo.clone(), done.clone(), 1)),
    ];
    let began = Instant::now();
    while done.people.lock().unwrap().len() < LOGINS || done.users.lock().unwrap().len() < USERS {
        assert!(began.elapsed() < LIMIT, "too little is acknowledged");
        tokio::task::yield_now().await;
    }
    let pids: Vec<u32> = demo.cluster.nodes.iter().map(|node| demo.pid_of(node.id).unwrap()).collect();
    assert_eq!(done.cut_off.load(Ordering::SeqCst), 0, "a write failed before anything was killed");
    pids.into_iter().for_each(kill_9);
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(done.cut_off.load(Ordering::SeqCst), 4, "each writer was cut off amid its work");

    demo.all_ready().await;
    let digests = demo.digests().await;
    assert!(digests.iter().all(|d| *d == digests[0]), "the nodes differ after the restart: {digests:?}");
    let api = api(&demo);
    let users = std::mem::take(&mut *done.users.lock().unwrap());
    for name in &users {
        api.users()
            .get(v1::GetUserRequest { user: name.clone() })
            .await
            .unwrap_or_else(|e| panic!("{name}: {e}"));
    }
    let people = std::mem::take(&mut *done.people.lock().unwrap());
    for person in &people {
        let home = demo.at_next_node(&format!("{}/", demo.cluster.front));
        assert_eq!(person.browser.get(home).send().await.unwrap().status(), 200, "a session is gone");
        refresh(&demo, Way::EachToTheNextNode, &person.refresh_token).await.expect("a refresh token is gone");
    }
    println!("{} logins and {} users acknowledged before the kill", people.len(), users.len());
}

/// Signs in again and again until a node no longer answers.
async fn sign_people_in(demo: Arc<Demo>, done: Arc<Acknowledged>) {
    while let Ok(signed_in) = sign_in(&demo, Way::EachToTheNextNode).await {
        done.people.lock().unwrap().push(signed_in);
    }
    done.cut_off.fetch_add(1, Ordering::SeqCst);
}

async fn create_users(demo: Arc<Demo>, done: Arc<Acknowledged>, writer: usize) {
    let api = api(&demo);
    for n in 0.. {
        let username = format!("user-{writer}-{n}");
        let command = v1::CreateUserRequest { username: username.clone(), ..Default::default() };
        if api.users().create(command).await.is_err() {
            break;
        }
        done.users.lock().unwrap().push(username);
    }
    done.cut_off.fetch_add(1, Ordering::SeqCst);
}

/// A client with short time-outs, to detect a killed cluster at once.
fn api(demo: &Demo) -> AdminClient {
    let token = demo.cluster.admin.token.clone();
    AdminClient::builder()
        .endpoints(demo.cluster.nodes.iter().map(|node| node.api.as_str()))
        .token(token)
        .deadline(Duration::from_millis(500))
        .build()
        .unwrap()
}
