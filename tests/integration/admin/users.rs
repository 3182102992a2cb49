//! Users by an operator's hand: made, given keys, moved to another plan, made operators; and that the plan decides who
//! comes first.

use super::{Installation, LIMIT, SLOT};
use crate::support::client::{Visitor, answer, client};
use futures_util::future::join;
use meeboter_actors::ids::UserId;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

impl Installation {
    /// Asks with a body; the status and the answer.
    async fn send(&self, method: Method, path: &str, body: &Value) -> (StatusCode, Value) {
        answer(self.server.request(method, &format!("/api/admin/{path}")).json(body)).await
    }

    /// Makes a user, who then asks with its first key.
    async fn user(&self, body: &Value) -> Visitor {
        let (status, made) = self.send(Method::POST, "users", body).await;
        assert_eq!(status, StatusCode::CREATED, "{made}");
        self.visitor(&made)
    }

    /// Whoever has the key that was just made.
    fn visitor(&self, made: &Value) -> Visitor {
        let (user, key) = (made["id"].as_i64().unwrap(), made["apiKey"].as_str().unwrap());
        Visitor { base: self.server.url(""), user: UserId(user), key: key.to_owned(), client: client() }
    }

    /// Who waits, in order.
    async fn waiting(&self) -> Vec<i64> {
        let queue = self.ask(Method::GET, "/api/admin/queue?pageSize=100").await;
        let bots = queue["data"].as_array().unwrap().iter();
        bots.map(|queued| queued["botId"].as_i64().unwrap()).collect()
    }
}

/// Sees that an answer is a refusal of this kind.
fn check_refused((status, body): &(StatusCode, Value), expected: StatusCode, code: &str) {
    assert_eq!((*status, &body["error"]["code"]), (expected, &json!(code)), "{body}");
}

#[tokio::test]
async fn a_user_is_made_with_a_key_that_is_told_once() {
    let here = Installation::start("1").await;
    let response = here.server.request(Method::POST, "/api/admin/users");
    let response = response.json(&json!({ "name": "Ann / Lee" })).send().await.unwrap();
    assert_eq!(
        (response.status(), &response.headers()["cache-control"]),
        (StatusCode::CREATED, &"no-store".parse().unwrap())
    );
    let made: Value = response.json().await.unwrap();
    let seen = [&made["name"], &made["plan"], &made["isOperator"], &made["apiKeys"]];
    assert_eq!(seen, [&json!("Ann / Lee"), &json!("standard"), &json!(false), &json!(1)], "{made}");
    let ann = here.visitor(&made);
    let (status, session) =
        answer(ann.bare(Method::POST, "/api/session").json(&json!({ "apiKey": ann.key }))).await;
    assert_eq!(status, StatusCode::NO_CONTENT, "the key signs in: {session}");
    let bot = ann.send_bot("one").await;
    assert_eq!(ann.get(&format!("/api/bots/{bot}")).await.1["userId"], made["id"]);
    check_refused(&ann.get("/api/admin/users").await, StatusCode::FORBIDDEN, "operator_only");

    // A further key is good beside the first; both are counted, neither is told again.
    let (status, further) = here.send(Method::POST, "users/Ann%20%2F%20Lee/keys", &Value::Null).await;
    assert_eq!(
        (status, further.as_object().map(|key| key.len())),
        (StatusCode::CREATED, Some(2)),
        "{further}"
    );
    let again = Visitor { key: further["apiKey"].as_str().unwrap().to_owned(), ..here.visitor(&made) };
    assert_ne!(again.key, ann.key);
    assert_eq!((again.total().await, ann.total().await), (1, 1), "both are the same user's");
    let listed = here.ask(Method::GET, "/api/admin/users").await;
    let named = |user: &Value| (user["name"].clone(), user["apiKeys"].clone(), user["isOperator"].clone());
    let all: Vec<_> = listed["data"].as_array().unwrap().iter().map(named).collect();
    let admin = (json!("admin"), json!(1), json!(true));
    assert_eq!(all, [admin, (json!("Ann / Lee"), json!(2), json!(false))], "{listed}");
    assert_eq!(listed["total"], 2, "{listed}");
    let page = here.ask(Method::GET, "/api/admin/users?page=2&pageSize=1").await;
    assert_eq!((&page["data"][0]["id"], &page["hasNextPage"]), (&made["id"], &json!(false)), "{page}");
    let pool = here.server.pool().await;
    assert!(pool.revoke_api_key(ann.user, further["id"].as_i64().unwrap()).await.unwrap());
    let listed = here.ask(Method::GET, "/api/admin/users").await;
    assert_eq!(listed["data"][1]["apiKeys"], 1, "a revoked key is none: {listed}");
    for key in [&ann.key, &again.key] {
        assert!(
            !listed.to_string().contains(key) && !here.server.log().contains(key),
            "a key was told again"
        );
    }
    assert!(
        here.server.log().contains("user Ann / Lee, plan standard, operator: false"),
        "who made what is in the log"
    );
}

#[tokio::test]
async fn what_cannot_be_a_user_is_refused() {
    let here = Installation::start("0").await;
    here.user(&json!({ "name": "ann" })).await;
    for body in [json!({ "name": "ann" }), json!({ "name": "admin", "plan": "free", "isOperator": true })] {
        let refused = here.send(Method::POST, "users", &body).await;
        check_refused(&refused, StatusCode::CONFLICT, "name_taken");
    }
    let unprocessable = StatusCode::UNPROCESSABLE_ENTITY;
    for (body, field) in [
        (json!({}), "name"),
        (json!({ "name": "" }), "name"),
        (json!({ "name": "  " }), "name"),
        (json!({ "name": " ben" }), "name"),
        (json!({ "name": "ben\n" }), "name"),
        (json!({ "name": "b\u{0}n" }), "name"),
        (json!({ "name": ".." }), "name"),
        (json!({ "name": "n".repeat(101) }), "name"),
        (json!({ "name": 7 }), "name"),
        (json!({ "name": "ben", "plan": "gold" }), "plan"),
        (json!({ "name": "ben", "plan": "Free" }), "plan"),
        (json!({ "name": "ben", "isOperator": "yes" }), "isOperator"),
        (json!({ "name": "ben", "colour": "red" }), "colour"),
    ] {
        let refused = here.send(Method::POST, "users", &body).await;
        check_refused(&refused, unprocessable, "invalid_field");
        assert_eq!(refused.1["error"]["details"]["field"], field, "{body}: {}", refused.1);
    }
    for (body, field) in [
        (json!({}), "plan"),
        (json!({ "plan": null }), "plan"),
        (json!({ "plan": "gold" }), "plan"),
        (json!({ "isOperator": 1 }), "isOperator"),
        (json!({ "name": "ben" }), "name"),
    ] {
        let refused = here.send(Method::PATCH, "users/ann", &body).await;
        check_refused(&refused, unprocessable, "invalid_field");
        assert_eq!(refused.1["error"]["details"]["field"], field, "{body}: {}", refused.1);
    }
    for name in ["nobody", "Ann", "an%00n", "%0A"] {
        let refused = here.send(Method::PATCH, &format!("users/{name}"), &json!({ "plan": "free" })).await;
        check_refused(&refused, StatusCode::NOT_FOUND, "not_found");
        let refused = here.send(Method::POST, &format!("users/{name}/keys"), &Value::Null).await;
        check_refused(&refused, StatusCode::NOT_FOUND, "not_found");
    }
    let listed = here.ask(Method::GET, "/api/admin/users").await;
    let seen = [&listed["total"], &listed["data"][1]["apiKeys"], &listed["data"][1]["plan"]];
    assert_eq!(seen, [&json!(2), &json!(1), &json!("standard")], "nothing was done: {listed}");
    for query in ["page=0", "pageSize=101"] {
        here.refused(Method::GET, &format!("/api/admin/users?{query}"), unprocessable).await;
    }
}

#[tokio::test]
async fn a_users_plan_decides_who_comes_first_and_a_changed_one_at_once() {
    let here = Installation::start("1").await;
    let first = here.started("first").await;
    let ann = here.user(&json!({ "name": "ann" })).await;
    let ben = here.user(&json!({ "name": "ben", "plan": "enterprise" })).await;
    let (standard, enterprise) = (ann.send_bot("standard").await, ben.send_bot("enterprise").await);
    assert_eq!(here.waiting().await, [enterprise, standard], "who came later has the better plan");

    // Both plans are known to the server by now; what is changed counts for the next bot all the same.
    let set = |name: &str, plan: &str| {
        let request = here.server.request(Method::PATCH, &format!("/api/admin/users/{name}"));
        answer(request.json(&json!({ "plan": plan })))
    };
    let (status, changed) = set("ann", "enterprise").await;
    let seen = [&changed["name"], &changed["plan"], &changed["isOperator"], &changed["apiKeys"]];
    assert_eq!(
        (status, seen),
        (StatusCode::OK, [&json!("ann"), &json!("enterprise"), &json!(false), &json!(1)])
    );
    assert_eq!(set("ben", "free").await.0, StatusCode::OK);
    let (raised, lowered) = (ann.send_bot("raised").await, ben.send_bot("lowered").await);
    let order = here.waiting().await;
    let place = |id: i64| order.iter().position(|waits| *waits == id).unwrap();
    assert!(place(raised) < place(standard), "{order:?}: a bot that waited already keeps its priority");
    assert!(place(enterprise) < place(standard) && order.last() == Some(&lowered), "{order:?}");

    // And the order is the one in which slots are given.
    here.ask(Method::POST, &format!("/api/admin/bots/{first}/end")).await;
    here.wait_slot(SLOT, |slot| slot["botId"] == order[0]).await;
    here.ask(Method::POST, &format!("/api/admin/bots/{}/end", order[0])).await;
    here.wait_slot(SLOT, |slot| slot["botId"] == order[1]).await;
    assert_eq!(here.waiting().await, [standard, lowered]);
}

#[tokio::test]
async fn an_operator_is_made_and_unmade_at_once_but_for_the_last() {
    let here = Installation::start("0").await;
    let ann = here.user(&json!({ "name": "ann" })).await;
    let operator = |name: &str, is: bool| {
        let request = here.server.request(Method::PATCH, &format!("/api/admin/users/{name}"));
        answer(request.json(&json!({ "isOperator": is })))
    };
    let both = json!({ "isOperator": false, "plan": "free" });
    let refused = here.send(Method::PATCH, "users/admin", &both).await;
    check_refused(&refused, StatusCode::CONFLICT, "last_operator");
    let listed = here.ask(Method::GET, "/api/admin/users").await;
    assert_eq!(listed["data"][0]["plan"], "standard", "all of it or nothing: {listed}");
    assert_eq!(operator("ann", false).await.0, StatusCode::OK, "she is none; that says nothing of the last");

    let (status, made) = operator("ann", true).await;
    assert_eq!((status, &made["isOperator"]), (StatusCode::OK, &json!(true)), "{made}");
    assert_eq!(ann.get("/api/admin/users").await.0, StatusCode::OK, "at once");
    // An operator lets go of it, as there is another; it is none at once, and the other is the last.
    assert_eq!(operator("admin", false).await.0, StatusCode::OK);
    check_refused(&here.server.get("/api/admin/users").await, StatusCode::FORBIDDEN, "operator_only");
    let myself = ann.request(Method::PATCH, "/api/admin/users/ann").json(&json!({ "isOperator": false }));
    check_refused(&answer(myself).await, StatusCode::CONFLICT, "last_operator");

    // Both at once, each by the other's hand: one of them stays, whoever comes first.
    let unmake = |by: &Visitor, name: &str| {
        let request = by.request(Method::PATCH, &format!("/api/admin/users/{name}"));
        answer(request.json(&json!({ "isOperator": false })))
    };
    let admin =
        Visitor { key: here.server.key(), user: UserId(1), base: here.server.url(""), client: client() };
    for _ in 0..20 {
        here.server.edit("UPDATE users SET is_operator = true").await;
        let (one, other) = join(unmake(&ann, "admin"), unmake(&admin, "ann")).await;
        let done = [&one, &other].into_iter().filter(|(status, _)| *status == StatusCode::OK).count();
        assert_eq!(done, 1, "{one:?} {other:?}");
        let left = [&ann, &admin].map(|visitor| visitor.get("/api/admin/users"));
        let [anns, admins] = left;
        let (anns, admins) = join(anns, admins).await;
        assert_ne!(
            anns.0 == StatusCode::OK,
            admins.0 == StatusCode::OK,
            "one is an operator: {anns:?} {admins:?}"
        );
    }
}

#[tokio::test]
async fn the_tools_make_users_and_say_that_a_key_is_shown_once() {
    let here = Installation::start("1").await;
    let fact = |printed: &str, name: &str| {
        let line = printed.lines().find(|line| line.starts_with(&format!("{name} ")));
        line.unwrap_or_else(|| panic!("no {name}: {printed}")).split_whitespace().last().unwrap().to_owned()
    };
    let added = here.printed(&["users", "add", "Ann Lee", "--plan", "enterprise", "--operator"]);
    let seen = ["plan", "isOperator", "apiKeys"].map(|name| fact(&added, name));
    assert_eq!(seen, ["enterprise", "true", "1"], "{added}");
    assert!(added.ends_with("\n\nThe API key is shown this once: only its SHA-256 is kept.\n"), "{added}");
    let key = fact(&added, "apiKey");
    assert!(here.printed(&["users", "--key", &key]).contains("Ann Lee"), "an operator with a key");

    let added: Value = serde_json::from_str(&here.printed(&["users", "add", "ben", "--json"])).unwrap();
    let seen = [&added["plan"], &added["isOperator"], &added["name"]];
    assert_eq!(seen, [&json!("standard"), &json!(false), &json!("ben")], "{added}");
    let further = here.printed(&["users", "key", "ben"]);
    assert!(further.contains("shown this once"), "{further}");
    let ben = Visitor { key: fact(&further, "apiKey"), ..here.visitor(&added) };
    assert_eq!(ben.total().await, 0, "the key is good");
    let set = here.printed(&["users", "set", "ben", "--plan", "free", "--operator", "yes"]);
    assert_eq!(["plan", "isOperator"].map(|name| fact(&set, name)), ["free", "true"], "{set}");
    let set = here.printed(&["users", "set", "ben", "--operator", "no"]);
    assert_eq!(["plan", "isOperator"].map(|name| fact(&set, name)), ["free", "false"], "{set}");

    let table = here.printed(&["users"]);
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines.len() == 5 && lines[0].starts_with("user  name ") && lines[2].contains("admin"), "{table}");
    let words: Vec<&str> = lines[4].split_whitespace().take(5).collect();
    assert_eq!(words, [added["id"].to_string().as_str(), "ben", "free", "–", "2"], "{table}");
    let listed: Value =
        serde_json::from_str(&here.printed(&["users", "list", "--json", "--page-size", "10"])).unwrap();
    assert_eq!(listed, here.ask(Method::GET, "/api/admin/users").await);

    for (words, said) in [
        (["users", "add", "ben", "--plan", "free"], "409 name_taken"),
        (["users", "set", "nobody", "--plan", "free"], "404 not_found"),
    ] {
        let refused = here.tool(&words);
        let printed = String::from_utf8(refused.stderr).unwrap();
        assert_eq!((refused.status.code(), refused.stdout.len()), (Some(1), 0), "{printed}");
        assert!(printed.contains(said), "{printed}");
    }
    let bot = ben.send_bot("one").await;
    here.server.wait_slots(LIMIT, "busy", 1).await;
    assert!(here.printed(&["bots", "show", &bot.to_string()]).contains(&added["id"].to_string()));
}
