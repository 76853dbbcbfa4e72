//! The display name and the picture of the user's own server: imported, bounded, and never an obstacle to a sign-in.

use std::{
    io::Cursor,
    sync::{Arc, atomic::Ordering},
};

use super::{
    atmosphere::{NAME, add, anybody, settings},
    atmosphere_network::{Network, did},
    site::{Browser, Site},
};
use conclave_node::testing::{TestNode, wait_until};
use conclave_proto::command::v1::{SetPicture, UpstreamAdmission, UpstreamRule, command::Body};
use conclave_state::{picture::Picture, user::User};
use http::StatusCode;
use image::{ImageFormat, Rgba, RgbaImage};
use serde_json::json;

fn png(color: [u8; 4]) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    RgbaImage::from_pixel(300, 200, Rgba(color)).write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

fn alice(site: &Site) -> Arc<User> {
    let view = site.node.cluster().view();
    let user = view.identity(NAME, &did(0)).expect("alice").user;
    Arc::clone(view.user(user).unwrap())
}

fn picture(site: &Site) -> Option<Arc<Picture>> {
    site.node.cluster().view().picture_of(alice(site).id).cloned()
}

async fn signs_in(site: &Site, network: &Network) -> Browser {
    let mut browser = Browser::default();
    let page = site.signs_in_as(&mut browser, network, "alice.test").await;
    assert_eq!(page.status, StatusCode::SEE_OTHER, "{}", page.text);
    assert!(site.at_home(&mut browser).await.is_some());
    browser
}

#[tokio::test]
async fn people_are_shown_as_they_show_themselves() {
    let (site, network) = anybody().await;
    network.shows(&did(0), "\u{202e}Alice\u{200b} of Test", Some(("bafkone", png([200, 0, 0, 255]))));
    let mut browser = signs_in(&site, &network).await;
    assert_eq!(alice(&site).display_name, "Alice of Test");
    wait_until(|| picture(&site).is_some()).await;
    let first = picture(&site).unwrap();
    let read = image::load_from_memory_with_format(&first.jpeg, ImageFormat::Jpeg).unwrap();
    assert_eq!((read.width(), read.height()), (128, 128), "drawn anew");

    // The page shows the picture, and an application receives its address.
    let home = site.get(&mut browser, "/").await;
    let path = format!("/picture/{}.jpg", first.id());
    assert!(home.text.replace("&#x2f;", "/").contains(&path), "{}", home.text);
    let shown = site.get(&mut Browser::default(), &path).await;
    assert_eq!(
        (shown.status, &shown.headers["content-type"]),
        (StatusCode::OK, &"image/jpeg".parse().unwrap())
    );
    assert_eq!(shown.headers["x-content-type-options"], "nosniff");
    let code = site.get(&mut browser, &Site::authorize_url("web", &[])).await.parameter("code").unwrap();
    let tokens = site.redeem("web", &code).await.json();
    let told = site.userinfo(tokens["access_token"].as_str().unwrap()).await.json();
    assert_eq!(told["name"], "Alice of Test");
    let issuer = site.node.auth().settings().public_url.issuer();
    assert_eq!(told["picture"], format!("{issuer}{path}"));
    for wrong in
        ["/picture/x.jpg", &path.replace(".jpg", ".png"), &format!("/picture/{}.jpg", "0".repeat(32))]
    {
        assert_eq!(site.get(&mut Browser::default(), wrong).await.status, StatusCode::NOT_FOUND, "{wrong}");
    }

    // Another picture at the next sign-in; the name is not imported again.
    network.shows(&did(0), "Somebody else", Some(("bafktwo", png([0, 0, 200, 255]))));
    signs_in(&site, &network).await;
    wait_until(|| picture(&site).is_some_and(|now| now.source == "atproto:bafktwo")).await;
    assert_eq!(alice(&site).display_name, "Alice of Test");
    assert_eq!(site.get(&mut Browser::default(), &path).await.status, StatusCode::NOT_FOUND, "it is gone");
    // And no picture.
    network.shows(&did(0), "Alice", None);
    signs_in(&site, &network).await;
    wait_until(|| picture(&site).is_none()).await;
}

#[tokio::test]
async fn nobody_is_called_by_a_handle_that_they_only_show() {
    let (site, network) = anybody().await;
    network.says(|script| script.txt.clear());
    network.shows(&did(0), "ceo.corp.example", None);
    let page = site.signs_in_as(&mut Browser::default(), &network, &did(0)).await;
    assert_eq!(page.status, StatusCode::SEE_OTHER, "{}", page.text);
    assert_eq!(alice(&site).display_name, "ceo.corp.example");
    assert_eq!(site.node.cluster().view().identity(NAME, &did(0)).unwrap().label, did(0));
}

#[tokio::test]
async fn what_is_no_picture_is_none_and_signs_in_all_the_same() {
    let mut bomb = png([1; 4]);
    bomb.splice(16..24, [0, 0, 0xea, 0x60, 0, 0, 0xea, 0x60]);
    let wrong: [(&str, Vec<u8>); 4] = [
        ("of five megabytes", [png([1; 4]), vec![0; 5_000_000]].concat()),
        ("svg", b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>".to_vec()),
        ("bomb", bomb),
        ("nothing", Vec::new()),
    ];
    let (site, network) = anybody().await;
    network.shows(&did(0), "Alice", Some(("bafkgood", png([9, 9, 9, 255]))));
    signs_in(&site, &network).await;
    wait_until(|| picture(&site).is_some()).await;
    for (n, (what, bytes)) in wrong.into_iter().enumerate() {
        network.shows(&did(0), "Alice", Some((&format!("bafkwrong{n}"), bytes)));
        for _ in 0..2 {
            let before = network.pictures.load(Ordering::SeqCst);
            signs_in(&site, &network).await;
            // An accepted picture would not be requested a second time.
            wait_until(|| network.pictures.load(Ordering::SeqCst) > before).await;
        }
        assert_eq!(picture(&site).unwrap().source, "atproto:bafkgood", "{what}");
    }
}

#[tokio::test]
async fn a_profile_that_is_missing_wrong_or_late_is_nobodys_trouble() {
    for (status, record) in [
        (StatusCode::NOT_FOUND, json!({})),
        (StatusCode::INTERNAL_SERVER_ERROR, json!({"value": {"displayName": "x"}})),
        (StatusCode::OK, json!([])),
        (StatusCode::OK, json!({"value": {"displayName": 7, "avatar": "bafk"}})),
        (StatusCode::OK, json!({"value": {"displayName": "x".repeat(100_000)}})),
    ] {
        let (site, network) = anybody().await;
        network.says(|script| drop(script.profiles.insert(did(0), (status, record))));
        signs_in(&site, &network).await;
        assert_eq!(alice(&site).display_name, "");
        assert!(picture(&site).is_none());
    }
    let (site, network) = anybody().await;
    network.says(|script| script.profiles_hang = true);
    signs_in(&site, &network).await;
}

#[tokio::test]
async fn nothing_is_asked_where_it_is_turned_off_and_a_picture_of_others_stays() {
    let network = Network::start().await;
    network.account(&did(0), "alice.test");
    network.says(|script| script.profiles_hang = true);
    let quiet = settings(&network);
    let site = Site::of(
        TestNode::start_with(move |settings: &mut conclave_auth::Settings| {
            quiet(settings);
            settings.atmosphere.import_profile = false;
        })
        .await,
    );
    site.seed().await;
    add(&site, UpstreamRule { admission: UpstreamAdmission::Any.into(), ..UpstreamRule::default() }).await;
    signs_in(&site, &network).await;
    assert_eq!(alice(&site).display_name, "");
    // Nor does it replace a value that an administrator set.
    let command = SetPicture {
        user_id: alice(&site).id.to_vec(),
        jpeg: vec![0xff, 0xd8, 0xff, 0xe0],
        source: "an administrator".into(),
    };
    site.node.propose(Body::SetPicture(command)).await.unwrap();
    signs_in(&site, &network).await;
    assert_eq!(picture(&site).unwrap().source, "an administrator");
}
