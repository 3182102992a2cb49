//! Which request a tool is, and how its answer is shown. Pure.

use super::screen::{self, Screen};
use super::{
    BotsAction, DrainAction, MaintenanceAction, PageOptions, PullsAction, QueueAction, SlotsAction, Tool,
    UsersAction,
};
use awc::http::Method;
use serde_json::{Value, json};
use std::time::Duration;
use url::Url;

/// See the module.
pub(super) struct Request {
    pub(super) method: Method,
    /// Path and query.
    pub(super) path: String,
    pub(super) body: Option<Value>,
    pub(super) screen: Screen,
}

impl Request {
    /// What a tool asks.
    pub(super) fn of(tool: &Tool) -> Self {
        match tool {
            Tool::Slots { action, .. } => slots(action.as_ref().unwrap_or(&SlotsAction::List)),
            Tool::Queue { action: Some(action), .. } => queue(action),
            Tool::Queue { action: None, .. } => queue(&QueueAction::List { page: PageOptions::default() }),
            Tool::Bots { action: Some(action), .. } => bots(action),
            Tool::Bots { action: None, .. } => bots(&BotsAction::List { page: PageOptions::default() }),
            Tool::Users { action: Some(action), .. } => users(action),
            Tool::Users { action: None, .. } => users(&UsersAction::List { page: PageOptions::default() }),
            Tool::Drain { action, .. } => drain(action.as_ref().unwrap_or(&DrainAction::List)),
            Tool::Pulls { action, .. } => pulls(action.as_ref().unwrap_or(&PullsAction::List)),
            Tool::Reconcile { .. } => post(&["reconcile"], screen::reconciling),
            Tool::Scale { .. } => get(&["scale"], screen::scale),
            Tool::Recover { .. } => post(&["recover"], screen::recovered),
            Tool::Maintenance { action: Some(MaintenanceAction::Run), .. } => {
                post(&["maintenance"], screen::maintenance)
            }
            Tool::Maintenance { action: Some(MaintenanceAction::Show) | None, .. } => {
                get(&["maintenance"], screen::maintenance)
            }
            Tool::Reload { .. } => post(&["reload"], screen::reloaded),
        }
    }
}

fn slots(action: &SlotsAction) -> Request {
    match action {
        SlotsAction::List => get(&["slots"], screen::slots),
        SlotsAction::Show { name } => get(&["slots", name], screen::facts),
        SlotsAction::Reset { name } => post(&["slots", name, "reset"], screen::facts),
        SlotsAction::Drain { name, within } => {
            post(&["slots", name, "drain"], screen::facts).with_deadline(*within)
        }
        SlotsAction::Undrain { name } => post(&["slots", name, "undrain"], screen::facts),
        SlotsAction::Retire { name } => post(&["slots", name, "retire"], screen::facts),
        SlotsAction::Forget { name } => post(&["slots", name, "forget"], screen::facts),
        SlotsAction::Restart { name } => post(&["slots", name, "restart"], screen::facts),
        SlotsAction::Logs { name, lines } => {
            let logs = get(&["slots", name, "logs"], screen::logs);
            Request { path: format!("{}?lines={lines}", logs.path), ..logs }
        }
    }
}

fn queue(action: &QueueAction) -> Request {
    match action {
        QueueAction::List { page } => get(&["queue"], screen::queue).with_page(*page),
        QueueAction::Move { bot, priority } => Request {
            method: Method::PATCH,
            body: Some(json!({ "priority": priority })),
            ..get(&["queue", &bot.to_string()], screen::facts)
        },
    }
}

fn bots(action: &BotsAction) -> Request {
    match action {
        BotsAction::List { page } => get(&["bots"], screen::bots).with_page(*page),
        BotsAction::Show { id } => get(&["bots", &id.to_string()], screen::facts),
        BotsAction::End { id } => post(&["bots", &id.to_string(), "end"], screen::facts),
    }
}

fn users(action: &UsersAction) -> Request {
    match action {
        UsersAction::List { page } => get(&["users"], screen::users).with_page(*page),
        UsersAction::Add { name, plan, operator } => {
            let mut user = json!({ "name": name, "isOperator": operator });
            if let Some(plan) = plan {
                user["plan"] = json!(plan);
            }
            Request { body: Some(user), ..post(&["users"], screen::with_key) }
        }
        UsersAction::Set { name, plan, operator } => {
            let given =
                [("plan", plan.as_ref().map(|plan| json!(plan))), ("isOperator", operator.map(Value::from))];
            let change = given.into_iter().filter_map(|(field, value)| Some((field.to_owned(), value?)));
            let body = Some(Value::Object(change.collect()));
            Request { method: Method::PATCH, body, ..get(&["users", name], screen::facts) }
        }
        UsersAction::Key { name } => post(&["users", name, "keys"], screen::with_key),
    }
}

fn drain(action: &DrainAction) -> Request {
    let (segments, within, stop): (&[&str], _, _) = match action {
        DrainAction::List => return get(&["drains"], screen::drains),
        DrainAction::Platform { name, within, stop } => (&["drains", "platforms", name], within, *stop),
        DrainAction::Host { name, within, stop } => (&["drains", "hosts", name], within, *stop),
        DrainAction::Server { within, stop } => (&["drains", "server"], within, *stop),
    };
    let method = if stop { Method::DELETE } else { Method::POST };
    Request { method, ..get(segments, screen::drain) }.with_deadline(*within)
}

fn pulls(action: &PullsAction) -> Request {
    match action {
        PullsAction::List => get(&["pulls"], screen::pulls),
        PullsAction::Start { host, image } => {
            Request { body: Some(json!({ "host": host, "image": image })), ..post(&["pulls"], screen::facts) }
        }
    }
}

fn get(segments: &[&str], screen: Screen) -> Request {
    Request { method: Method::GET, path: path(segments), body: None, screen }
}

fn post(segments: &[&str], screen: Screen) -> Request {
    Request { method: Method::POST, ..get(segments, screen) }
}

impl Request {
    fn with_deadline(self, within: Option<Duration>) -> Self {
        let Some(within) = within else { return self };
        Self { path: format!("{}?withinMs={}", self.path, within.as_millis()), ..self }
    }

    fn with_page(self, PageOptions { page, page_size }: PageOptions) -> Self {
        Self { path: format!("{}?page={page}&pageSize={page_size}", self.path), ..self }
    }
}

/// A path of the admin API; what people typed is escaped.
fn path(segments: &[&str]) -> String {
    let Ok(mut url) = Url::parse("http://server/api/admin") else { return String::new() };
    if let Ok(mut path) = url.path_segments_mut() {
        path.extend(segments);
    }
    url.path().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(subcommand)]
        tool: Tool,
    }

    fn asked(words: &str) -> String {
        let cli = Cli::try_parse_from(std::iter::once("meeboter").chain(words.split_whitespace()));
        let request = Request::of(&cli.expect("well said").tool);
        let body = request.body.map(|body| format!(" {body}")).unwrap_or_default();
        format!("{} {}{body}", request.method, request.path.replace("/api/admin/", ""))
    }

    #[test]
    fn every_tool_is_one_request() {
        for (words, request) in [
            ("slots", "GET slots"),
            ("slots list --json", "GET slots"),
            ("slots show pool-zoom-001", "GET slots/pool-zoom-001"),
            ("slots reset a/../b", "POST slots/a%2F..%2Fb/reset"),
            ("slots drain s", "POST slots/s/drain"),
            ("slots drain s --within 30m", "POST slots/s/drain?withinMs=1800000"),
            ("slots undrain s", "POST slots/s/undrain"),
            ("slots --key k retire s", "POST slots/s/retire"),
            ("slots forget s", "POST slots/s/forget"),
            ("slots restart s", "POST slots/s/restart"),
            ("slots logs s --lines 7", "GET slots/s/logs?lines=7"),
            ("scale", "GET scale"),
            ("maintenance", "GET maintenance"),
            ("maintenance run", "POST maintenance"),
            ("reload", "POST reload"),
            ("queue", "GET queue?page=1&pageSize=100"),
            ("queue list --page 2 --page-size 5", "GET queue?page=2&pageSize=5"),
            ("queue move 7 --priority 10", "PATCH queue/7 {\"priority\":10}"),
            ("bots", "GET bots?page=1&pageSize=100"),
            ("bots show 7", "GET bots/7"),
            ("bots end 7", "POST bots/7/end"),
            ("users", "GET users?page=1&pageSize=100"),
            ("users list --page-size 5", "GET users?page=1&pageSize=5"),
            ("users add ann", "POST users {\"isOperator\":false,\"name\":\"ann\"}"),
            (
                "users add ann --plan free --operator",
                "POST users {\"isOperator\":true,\"name\":\"ann\",\"plan\":\"free\"}",
            ),
            ("users set a/b --plan enterprise", "PATCH users/a%2Fb {\"plan\":\"enterprise\"}"),
            (
                "users set ann --operator no --plan free",
                "PATCH users/ann {\"isOperator\":false,\"plan\":\"free\"}",
            ),
            ("users set ann --operator yes", "PATCH users/ann {\"isOperator\":true}"),
            ("users key ann", "POST users/ann/keys"),
            ("drain", "GET drains"),
            ("drain platform zoom", "POST drains/platforms/zoom"),
            ("drain platform zoom --within 90s", "POST drains/platforms/zoom?withinMs=90000"),
            ("drain server --within 2h", "POST drains/server?withinMs=7200000"),
            ("drain server --stop", "DELETE drains/server"),
            ("drain host local --stop", "DELETE drains/hosts/local"),
            ("pulls", "GET pulls"),
            ("pulls start local image:1", "POST pulls {\"host\":\"local\",\"image\":\"image:1\"}"),
            ("reconcile", "POST reconcile"),
            ("recover --server http://there:1", "POST recover"),
        ] {
            assert_eq!(asked(words), request, "{words}");
        }
    }

    #[test]
    fn a_user_is_not_set_to_nothing_nor_to_what_there_is_not() {
        for words in
            ["users set ann", "users set ann --plan gold", "users set ann --operator maybe", "users add"]
        {
            let cli = Cli::try_parse_from(std::iter::once("meeboter").chain(words.split_whitespace()));
            assert!(cli.is_err(), "{words}");
        }
    }
}
