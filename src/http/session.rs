//! Browser sessions: a key is exchanged for a cookie that scripts cannot read.

use super::caller::{Caller, SESSION_COOKIE, same_origin, unknown_key};
use super::error::ApiError;
use super::json;
use super::meeting::{DOCUMENTED, REHEARSAL};
use super::state::AppState;
use actix_web::cookie::time::Duration;
use actix_web::cookie::{Cookie, SameSite};
use actix_web::{HttpRequest, HttpResponse, web};
use chrono::TimeDelta;
use serde::Deserialize;

/// What a sign-in sends.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SignIn {
    api_key: String,
}

/// POST /api/session
pub async fn sign_in(
    request: HttpRequest,
    state: web::Data<AppState>,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    // A page of another site must not sign its visitor in as somebody else.
    let from_browser = request.headers().contains_key("origin");
    if from_browser && !same_origin(&request, &state.settings.server.public_url) {
        return Err(ApiError::forbidden("Sign in from this server's own page."));
    }
    let (body, _) = json::body::<SignIn>(&request, payload).await?;
    let key = state.api_keys.find(&state.pool, body.api_key.trim()).await?.ok_or_else(unknown_key)?;
    let hours = i64::from(state.settings.server.session_hours);
    let token = state.tokens.session(key.user, key.id, state.clock.now() + TimeDelta::hours(hours));
    let cookie = cookie(&request, &state, token, Duration::hours(hours));
    Ok(HttpResponse::NoContent().cookie(cookie).finish())
}

/// DELETE /api/session
pub async fn sign_out(request: HttpRequest, state: web::Data<AppState>) -> Result<HttpResponse, ApiError> {
    if !same_origin(&request, &state.settings.server.public_url) {
        return Err(ApiError::forbidden("Sign out from this server's own page."));
    }
    Ok(HttpResponse::NoContent().cookie(cookie(&request, &state, String::new(), Duration::ZERO)).finish())
}

/// GET /api/session: who asks, what this server offers, and whether it leads; one that stands by has no websocket.
pub async fn read(caller: Caller, state: web::Data<AppState>) -> Result<HttpResponse, ApiError> {
    let user =
        state.pool.get_user(caller.0).await?.ok_or_else(|| ApiError::unauthorized("This user is gone."))?;
    let rehearsal = state.settings.rehearsal.enabled;
    let mut platforms: Vec<_> =
        DOCUMENTED.iter().map(|key| serde_json::json!({ "key": key, "available": false })).collect();
    if rehearsal {
        platforms.push(serde_json::json!({ "key": REHEARSAL, "available": true }));
    }
    Ok(HttpResponse::Ok().json(serde_json::json!({
        "userId": user.id.0, "userName": user.name, "rehearsal": rehearsal, "platforms": platforms,
        "leads": state.leading().is_ok(),
    })))
}

fn cookie(request: &HttpRequest, state: &AppState, token: String, lasts: Duration) -> Cookie<'static> {
    let secure = state.settings.server.public_url.starts_with("https:")
        || request.connection_info().scheme() == "https";
    Cookie::build(SESSION_COOKIE, token)
        .path("/")
        .http_only(true)
        .same_site(SameSite::Strict)
        .secure(secure)
        .max_age(lasts)
        .finish()
}
