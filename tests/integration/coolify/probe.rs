//! What a server finds out about its settings when it starts.

use super::workshop::{Workshop, key, start, started};
use meeboter::config::Secret;
use meeboter::coolify_emulator::{Ability, Token, Trouble};
use meeboter::driver::coolify::CoolifySettings;
use meeboter::driver::coolify::probe::{ProbeError, WishedLimits};
use meeboter_actors::ports::Driver;
use reqwest::Method;

const NO_WISH: WishedLimits = WishedLimits { concurrent_builds: 0, queue_limit: 0, raise: false };

#[tokio::test]
async fn what_is_wrong_is_named_with_where_the_right_one_is() {
    let mut shop = Workshop::new().await;
    let right = shop.settings.clone();
    assert_eq!(shop.driver().probe(NO_WISH).await, Ok(()));
    type Change = fn(&mut CoolifySettings);
    let cases: [(Change, &str, &str); 5] = [
        (|it| it.token = Secret::from("1|wrong-secret"), "COOLIFY_API_TOKEN", "Keys & Tokens"),
        (|it| it.project = "nothere".into(), "COOLIFY_PROJECT_UUID", "/project/"),
        (|it| it.environment = "staging".into(), "COOLIFY_ENVIRONMENT_NAME", "staging"),
        (|it| it.server = "nothere".into(), "COOLIFY_SERVER_UUID", "/server/"),
        (|it| it.destination = "nothere".into(), "COOLIFY_DESTINATION_UUID", "Destinations"),
    ];
    for (change, name, place) in cases {
        shop.settings = right.clone();
        change(&mut shop.settings);
        let error = shop.driver().probe(NO_WISH).await.unwrap_err();
        let message = error.to_string();
        assert!(message.contains(name) && message.contains(place), "{message}");
        assert!(!message.contains("wrong-secret") && !error.is_passing(), "{message}");
    }
}

#[tokio::test]
async fn a_token_that_may_too_little_is_named() {
    let all = [Ability::Read, Ability::Write, Ability::Deploy];
    for (missing, name) in [(0, "read"), (1, "write"), (2, "deploy")] {
        let mut abilities = all.to_vec();
        abilities.remove(missing);
        let shop = Workshop::with(|coolify| {
            coolify.tokens = vec![Token { abilities, ..coolify.tokens[0].clone() }];
        })
        .await;
        assert_eq!(shop.driver().probe(NO_WISH).await, Err(ProbeError::Ability { ability: name }));
        assert_eq!(shop.emulator.applications().len(), 0, "asking changed nothing");
    }
}

#[tokio::test]
async fn one_of_several_destinations_has_to_be_chosen() {
    let mut shop =
        Workshop::with(|coolify| coolify.site.destinations = vec!["one".into(), "two".into()]).await;
    let error = shop.driver().probe(NO_WISH).await.unwrap_err().to_string();
    assert!(error.contains("one, two"), "{error}");
    shop.settings.destination = "two".to_owned();
    let driver = shop.driver();
    assert_eq!(driver.probe(NO_WISH).await, Ok(()));
    started(driver.start(start(1, 1)).await);
    assert_eq!(shop.running(key(1, 1)).len(), 1);
}

#[tokio::test]
async fn an_engine_that_is_away_says_nothing_of_the_settings() {
    let shop = Workshop::new().await;
    shop.fault("GET", "/version", Trouble::ServerError, 3);
    assert!(shop.driver().probe(NO_WISH).await.unwrap_err().is_passing());
}

#[tokio::test]
async fn the_servers_limits_are_raised_only_where_that_is_wished() {
    let shop = Workshop::new().await;
    let limits = async || {
        let server = shop.by_hand(Method::GET, &format!("/servers/{}", shop.settings.server)).await;
        (
            server["settings"]["concurrent_builds"].as_u64(),
            server["settings"]["deployment_queue_limit"].as_u64(),
        )
    };
    let wish = WishedLimits { concurrent_builds: 6, queue_limit: 0, raise: false };
    assert_eq!(shop.driver().probe(wish).await, Ok(()));
    assert_eq!(limits().await, (Some(2), Some(25)));
    assert_eq!(shop.driver().probe(WishedLimits { raise: true, ..wish }).await, Ok(()));
    assert_eq!(limits().await, (Some(6), Some(25)));
}
