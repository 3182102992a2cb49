//! Starts of containers that were made ahead: by a bot's creation over HTTP, and by the engine alone. Both from the first
//! request until the engine says that the container runs.

use crate::dockerd::Dockerd;
use crate::events::{Starts, client};
use crate::{Extent, scripted_bot, server_on};
use actix_web::http::StatusCode;
use anyhow::{Context, Result, bail, ensure};
use bollard::Docker;
use bollard::models::{ContainerCreateBody, HostConfig};
use bollard::query_parameters::{ListContainersOptions, RemoveContainerOptions, StartContainerOptions};
use futures_util::future::try_join_all;
use meeboter_benches::figures::{Figures, ms, ratio};
use meeboter_benches::progress;
use meeboter_benches::server::Server;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How long slots may take to be free and prepared again.
const LIMIT: Duration = Duration::from_secs(180);
const LOOK: Duration = Duration::from_millis(20);

/// What was measured.
#[derive(Default)]
pub(crate) struct Started {
    single: Pair,
    at_once: Pair,
    count: u32,
}

#[derive(Default)]
struct Pair {
    meeboter: Figures,
    bare: Figures,
}

impl Pair {
    fn ratio(&self) -> f64 {
        ratio(self.meeboter.median(), self.bare.median())
    }

    fn show(&self, what: &str) {
        println!(
            "{what:<28} {:8.1} ms (p99 {:.1})   the engine alone {:8.1} ms (p99 {:.1})   {:.2} ×",
            ms(self.meeboter.median()),
            ms(self.meeboter.p99()),
            ms(self.bare.median()),
            ms(self.bare.p99()),
            self.ratio()
        );
    }
}

impl Started {
    pub(crate) fn single_ratio(&self) -> f64 {
        self.single.ratio()
    }

    pub(crate) fn at_once_ratio(&self) -> f64 {
        self.at_once.ratio()
    }

    pub(crate) fn show(&self) {
        self.single.show("a warm start");
        self.at_once.show(&format!("{} warm starts at once", self.count));
    }
}

/// Measures both, each in turns with its yardstick.
pub(crate) async fn measure(extent: Extent) -> Result<Started> {
    progress("starting an engine");
    let dockerd = Dockerd::start().await;
    scripted_bot::import_all(&dockerd);
    let client = client(&dockerd).await?;
    let mut heard = Starts::of(&client).await?;
    let image = scripted_bot::reference("stay");
    let mut started = Started { count: extent.at_once, ..Started::default() };

    let server = server_on(&dockerd, &image, 1).await?;
    // Gives the slot its first container, and is not counted: an image is looked for once.
    by_server(&server, &client, &mut heard, 1).await?;
    for number in 1..=extent.singles {
        progress(&format!("start {number} of {}", extent.singles));
        started.single.meeboter.add(by_server(&server, &client, &mut heard, 1).await?);
        started.single.bare.add(bare(&client, &mut heard, &image, 1).await?);
    }
    drop(server);
    remove_all(&client).await?;

    let server = server_on(&dockerd, &image, extent.at_once).await?;
    by_server(&server, &client, &mut heard, extent.at_once).await?;
    for round in 1..=extent.rounds {
        progress(&format!("{} starts at once, {round} of {}", extent.at_once, extent.rounds));
        started.at_once.meeboter.add(by_server(&server, &client, &mut heard, extent.at_once).await?);
        started.at_once.bare.add(bare(&client, &mut heard, &image, extent.at_once).await?);
    }
    Ok(started)
}

/// So many bots are asked for at once; until all their containers run. Leaves the slots free and prepared.
async fn by_server(server: &Server, client: &Docker, heard: &mut Starts, count: u32) -> Result<Duration> {
    heard.clear();
    let begun = Instant::now();
    let asked = (0..count).map(|number| server.create_bot(&format!("bot-{number}"), ""));
    let answers = try_join_all(asked).await?;
    let took = heard.after(begun, count).await?;
    let ids = answers.into_iter().map(|(status, bot)| {
        ensure!(status == StatusCode::CREATED, "a bot was answered {status}: {bot}");
        bot["id"].as_i64().context("a bot has a number")
    });
    let ids = ids.collect::<Result<Vec<i64>>>()?;
    try_join_all(ids.iter().map(|id| server.end_bot(*id))).await?;
    let deadline = Instant::now() + LIMIT;
    while containers(client, "created").await? < count as usize || containers(client, "running").await? > 0 {
        if Instant::now() > deadline {
            bail!("the slots are not prepared again:\n{}", server.log());
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(took)
}

/// The same for containers that were made by the engine alone, with the same image; they are gone afterwards.
async fn bare(client: &Docker, heard: &mut Starts, image: &str, count: u32) -> Result<Duration> {
    let mut ids = Vec::new();
    for _ in 0..count {
        let host_config = Some(HostConfig { network_mode: Some("host".to_owned()), ..HostConfig::default() });
        let body = ContainerCreateBody {
            image: Some(image.to_owned()),
            labels: Some(HashMap::from([("yardstick".to_owned(), String::new())])),
            host_config,
            ..ContainerCreateBody::default()
        };
        ids.push(client.create_container(None, body).await?.id);
    }
    heard.clear();
    let begun = Instant::now();
    try_join_all(ids.iter().map(|id| client.start_container(id, None::<StartContainerOptions>))).await?;
    let took = heard.after(begun, count).await?;
    try_join_all(ids.iter().map(|id| remove(client, id))).await?;
    Ok(took)
}

async fn containers(client: &Docker, status: &str) -> Result<usize> {
    let filters = HashMap::from([("status".to_owned(), vec![status.to_owned()])]);
    let options = ListContainersOptions { all: true, filters: Some(filters), ..Default::default() };
    Ok(client.list_containers(Some(options)).await?.len())
}

async fn remove(client: &Docker, id: &str) -> Result<()> {
    let options = RemoveContainerOptions { force: true, v: true, link: false };
    Ok(client.remove_container(id, Some(options)).await?)
}

async fn remove_all(client: &Docker) -> Result<()> {
    let options = ListContainersOptions { all: true, ..Default::default() };
    for container in client.list_containers(Some(options)).await? {
        remove(client, &container.id.unwrap_or_default()).await?;
    }
    Ok(())
}
