//! Users for operators: list, make one, change its plan or whether it is an operator, give it a further API key.

use super::note;
use crate::auth::api_keys::{new_key, prefix_of};
use crate::http::bots::PageQuery;
use crate::http::caller::Operator;
use crate::http::error::ApiError;
use crate::http::json;
use crate::http::state::AppState;
use crate::http::views::{self, PageView};
use crate::store::queries::hash_of_key;
use crate::store::users::{Changed, NewUser, StoredUser, UserChange};
use actix_web::http::header::CACHE_CONTROL;
use actix_web::{HttpRequest, HttpResponse, web};
use chrono::{DateTime, Utc};
use meeboter_actors::queue::Plan;
use serde::{Deserialize, Serialize};
use tokio::sync::SemaphorePermit;

/// Longest name of a user, in characters.
const NAME_CHARS_MAX: usize = 100;

/// A user.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UserView {
    id: i64,
    name: String,
    /// Says which priority its bots have in the queue.
    plan: &'static str,
    is_operator: bool,
    /// Keys that were not revoked.
    api_keys: u64,
    created_at: DateTime<Utc>,
}

impl From<StoredUser> for UserView {
    fn from(StoredUser { user, api_keys }: StoredUser) -> Self {
        Self {
            id: user.id.0,
            name: user.name,
            plan: user.plan.as_str(),
            is_operator: user.is_operator,
            api_keys,
            created_at: user.created_at,
        }
    }
}

/// GET /api/admin/users: in the order in which they were made; a standby answers too.
pub async fn list(
    _: Operator,
    state: web::Data<AppState>,
    query: web::Query<PageQuery>,
) -> Result<web::Json<PageView<UserView>>, ApiError> {
    let page = query.checked()?;
    Ok(web::Json(views::page(page, state.pool.list_users(page).await?, UserView::from)))
}

/// A user to make.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct CreateUserRequest {
    name: String,
    plan: Option<String>,
    is_operator: Option<bool>,
}

/// A user that was made. No Debug: its key is in it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CreatedUserView {
    #[serde(flatten)]
    user: UserView,
    /// Its first key, told this once.
    api_key: String,
}

/// POST /api/admin/users: makes a user, of the plan `standard` and no operator where nothing else is said.
pub async fn create(
    request: HttpRequest,
    operator: Operator,
    state: web::Data<AppState>,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let (body, _) = json::body::<CreateUserRequest>(&request, payload).await?;
    let name = checked_name(&body.name)?;
    let plan = body.plan.as_deref().map(plan_named).transpose()?.unwrap_or_default();
    let new = NewUser { name, plan, is_operator: body.is_operator.unwrap_or_default() };
    let _admitted = admitted(&state)?;
    note(&state, operator, "add user", described(name, Some(plan), Some(new.is_operator)));
    let api_key = new_key();
    let inserted =
        state.pool.insert_user(new, "first key", &prefix_of(&api_key), &hash_of_key(&api_key)).await;
    match inserted.map_err(ApiError::unwritten)? {
        Some(made) => Ok(created(&CreatedUserView { user: made.into(), api_key })),
        None => Err(ApiError::conflict("name_taken", &format!("There is a user {name} already."))),
    }
}

/// What to change of a user; what is not given stays.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ChangeUserRequest {
    plan: Option<String>,
    is_operator: Option<bool>,
}

/// PATCH /api/admin/users/{name}: another plan, in force for new bots, or an operator from now on, or none any more.
pub async fn change(
    request: HttpRequest,
    operator: Operator,
    state: web::Data<AppState>,
    name: web::Path<String>,
    payload: web::Payload,
) -> Result<web::Json<UserView>, ApiError> {
    let (body, _) = json::body::<ChangeUserRequest>(&request, payload).await?;
    let change =
        UserChange { plan: body.plan.as_deref().map(plan_named).transpose()?, is_operator: body.is_operator };
    if change == UserChange::default() {
        return Err(ApiError::field("plan", "plan: it is missing, and so is isOperator."));
    }
    let name = known_name(&name)?;
    let _admitted = admitted(&state)?;
    note(&state, operator, "change user", described(name, change.plan, change.is_operator));
    match state.pool.change_user(name, change).await.map_err(ApiError::unwritten)? {
        Changed::Done(changed) => {
            state.plans.forget(changed.user.id);
            Ok(web::Json(changed.into()))
        }
        Changed::LastOperator => {
            let message = format!("User {name} is the only operator. Make another one first.");
            Err(ApiError::conflict("last_operator", &message))
        }
        Changed::Unknown => Err(unknown_user(name)),
    }
}

/// A key that was made. No Debug: it is in it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CreatedKeyView {
    id: i64,
    /// Told this once.
    api_key: String,
}

/// POST /api/admin/users/{name}/keys: makes a further key; those that the user has stay good.
pub async fn create_key(
    operator: Operator,
    state: web::Data<AppState>,
    name: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    let name = known_name(&name)?;
    let _admitted = admitted(&state)?;
    note(&state, operator, "add key", format_args!("user {name}"));
    let api_key = new_key();
    let (prefix, hash) = (prefix_of(&api_key), hash_of_key(&api_key));
    let inserted = state.pool.insert_api_key_of(name, "further key", &prefix, &hash).await;
    let made = inserted.map_err(ApiError::unwritten)?.ok_or_else(|| unknown_user(name))?;
    Ok(created(&CreatedKeyView { id: made.id, api_key }))
}

/// Lets a change in: at the leader only, which makes bots and remembers plans.
fn admitted(state: &AppState) -> Result<SemaphorePermit<'_>, ApiError> {
    let admitted = state.admit()?;
    state.tree()?;
    Ok(admitted)
}

/// 201, which nobody keeps on the way: there is a key in it.
fn created(view: &impl Serialize) -> HttpResponse {
    HttpResponse::Created().insert_header((CACHE_CONTROL, "no-store")).json(view)
}

/// A name for a new user.
fn checked_name(name: &str) -> Result<&str, ApiError> {
    let length = name.chars().count();
    let is_printable = !name.chars().any(char::is_control);
    // A path has no segments of one or two dots, and each user has an address.
    let has_address = !matches!(name, "." | "..");
    if (1..=NAME_CHARS_MAX).contains(&length) && is_printable && name.trim() == name && has_address {
        return Ok(name);
    }
    let takes =
        "name: it takes 1 to 100 printable characters, no blanks at its ends, and is not \".\" or \"..\".";
    Err(ApiError::field("name", takes))
}

/// The name of a user who may be there. What cannot be printed is nobody's name, nor a line of the log.
fn known_name(name: &str) -> Result<&str, ApiError> {
    if name.chars().any(char::is_control) { Err(ApiError::not_found("such user")) } else { Ok(name) }
}

fn unknown_user(name: &str) -> ApiError {
    ApiError::not_found(format!("user {name}"))
}

fn plan_named(name: &str) -> Result<Plan, ApiError> {
    Plan::named(name).ok_or_else(|| {
        let [first, second, third, last] = Plan::ALL.map(Plan::as_str);
        ApiError::field("plan", format!("plan: it takes {first}, {second}, {third} or {last}."))
    })
}

/// What is wished for a user, for the log.
fn described(name: &str, plan: Option<Plan>, is_operator: Option<bool>) -> String {
    let plan = plan.map(|plan| format!(", plan {}", plan.as_str())).unwrap_or_default();
    let operator = is_operator.map(|is| format!(", operator: {is}")).unwrap_or_default();
    format!("user {name}{plan}{operator}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_printable_not_blank_and_has_an_address() {
        let longest = "ü".repeat(NAME_CHARS_MAX);
        for good in ["a", "Ann Lee", "a/b?c#d%", "ann@example.org", "...", "名", longest.as_str()] {
            assert_eq!(checked_name(good).ok(), Some(good));
        }
        let too_long = "ü".repeat(NAME_CHARS_MAX + 1);
        let bad =
            ["", " ", " ann", "ann ", "\u{a0}ann", "a\nb", "a\0b", "\u{7f}", ".", "..", too_long.as_str()];
        for bad in bad {
            assert!(checked_name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_log_says_what_was_wished() {
        assert_eq!(described("ann", Some(Plan::Free), None), "user ann, plan free");
        assert_eq!(described("ann", None, Some(false)), "user ann, operator: false");
    }
}
