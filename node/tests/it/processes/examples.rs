//! The examples of the repository work as their first lines say.

use std::{net::SocketAddr, path::Path, process::Command};

use super::{
    party::{Party, Person, directory},
    proxies::{Proxy, open_and_sign_in},
    world::Demo,
};

/// An example that cargo has built beside the node's own program.
fn example(name: &str) -> Command {
    let program = Path::new(env!("CARGO_BIN_EXE_conclave")).parent().unwrap().join("examples").join(name);
    Command::new(program)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_relying_party_shows_the_claims_of_a_user_who_signed_in() {
    let demo = Demo::start(&[]);
    demo.all_ready().await;
    let listen = format!("127.0.0.1:{}", demo.own_port(0));
    let redirect_uri = format!("http://{listen}/callback");
    let made = demo.conclave(&["client", "create", "--id", "example", "--redirect-uri", &redirect_uri]);
    let secret = made["client_secret"].as_str().unwrap();
    let mut command = example("relying_party");
    command.args([&demo.cluster.issuer, "example", secret, &listen]);
    let _party = Party::start(&mut command, directory(), demo.own_port(0)).await;

    let end = Person::new(&demo).opens(&format!("http://{listen}/login")).await;
    assert!(end.status == 200 && end.text.contains("id=claims"), "{} {}", end.url, end.text);
    assert!(end.text.contains("admin@example.test"), "{}", end.text);
    let denied = Person::new(&demo).opens(&format!("{redirect_uri}?state=unknown&code=x")).await;
    assert!(denied.text.contains("not started here"), "{}", denied.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_application_behind_forward_auth_greets_the_user_that_the_proxy_names() {
    let demo = Demo::start(&[]);
    demo.all_ready().await;
    let listen: SocketAddr = format!("127.0.0.1:{}", demo.own_port(1)).parse().unwrap();
    let mut command = example("behind_forward_auth");
    command.arg(listen.to_string());
    let _application = Party::start(&mut command, directory(), listen.port()).await;
    let nginx = Proxy::nginx(&demo.cluster.nodes, demo.own_port(0), listen).await;

    let admin = &demo.cluster.admin;
    let (_, reply) =
        open_and_sign_in(&demo, &nginx.browser(), &nginx.url("/"), &admin.username, &admin.password).await;
    let text = reply.text().await.unwrap();
    assert!(text.contains("Hello, admin. Your groups: admins"), "{text}");
}
