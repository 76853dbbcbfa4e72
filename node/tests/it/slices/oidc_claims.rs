//! Custom claims of a client, made by expressions.

use conclave_proto::command::v1::{
    Attribute, Attributes, ClaimRule, ClaimRules, ClientTokensChange, UpdateUser, command::Body as Command,
};
use serde_json::{Value, json};

use super::{
    oidc_tokens::claims,
    site::{PASSWORD, Site},
};

fn rule(name: &str, scope: &str, expression: &str) -> ClaimRule {
    ClaimRule { name: name.into(), scope: scope.into(), expression: expression.into() }
}

/// The claims of the ID token and of userinfo for these scopes.
async fn said(site: &Site, scope: &str) -> [Value; 2] {
    let code = site.code("web", &[("scope", scope)]).await;
    let tokens = site.redeem("web", &code).await.json();
    let id_token = claims(tokens["id_token"].as_str().unwrap());
    [id_token, site.userinfo(tokens["access_token"].as_str().unwrap()).await.json()]
}

#[tokio::test]
async fn an_expression_says_what_it_says_in_id_token_and_userinfo_and_nothing_where_it_cannot() {
    let site = Site::open().await;
    assert!(PASSWORD.len() > 8);
    let own = vec![
        rule("roles", "", "user.groups.filter(g, g.startsWith('st'))"),
        rule("is_staff", "profile", "'staff' in user.groups"),
        rule("desk", "profile", "user.attributes.desk"),
        rule("label", "email", "user.username + '@' + (size(user.groups) > 0 ? 'in' : 'out')"),
        rule("how", "", "session.amr"),
        rule("groups", "", "'never: the scope has said it'"),
        rule("later", "", "of a version that is not this one"),
    ];
    site.change("web", |update| {
        let change = ClientTokensChange { claims: Some(ClaimRules { claims: own }), ..Default::default() };
        update.tokens = Some(change);
    })
    .await;
    for said in said(&site, "openid profile email groups").await {
        assert_eq!(said["roles"], json!(["staff"]));
        assert_eq!((&said["is_staff"], &said["label"]), (&json!(true), &json!("ada@in")));
        assert_eq!(said["how"], json!(["pwd"]));
        assert_eq!(said["groups"], json!(["staff"]), "a scope's claim stays what it is");
        assert!(said.get("desk").is_none() && said.get("later").is_none(), "{said}");
    }
    for said in said(&site, "openid").await {
        assert_eq!(said["roles"], json!(["staff"]));
        assert!(said.get("is_staff").is_none() && said.get("label").is_none(), "{said}");
    }
    let ada = site.node.cluster().view().user_by_name("ada").unwrap().id.to_vec();
    let attributes = vec![Attribute { name: "desk".into(), value: "4-12".into() }];
    let command = UpdateUser {
        user_id: ada,
        attributes: Some(Attributes { entries: attributes }),
        ..Default::default()
    };
    site.node.propose(Command::UpdateUser(command)).await.unwrap();
    for said in said(&site, "openid profile").await {
        assert_eq!(said["desk"], "4-12");
    }
}
