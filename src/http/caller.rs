//! Who asks: extractors for users and operators (key or cookie), and for bots' tokens.

use super::error::ApiError;
use super::state::AppState;
use crate::store::pool::QueryError;
use actix_web::dev::Payload;
use actix_web::http::header::{HOST, ORIGIN};
use actix_web::http::{Method, StatusCode};
use actix_web::{FromRequest, HttpRequest, web};
use chrono::{DateTime, Utc};
use futures_util::future::LocalBoxFuture;
use meeboter_actors::ids::UserId;
use meeboter_bot::TOKEN_HEADER;

/// Header of a user's key.
pub const KEY_HEADER: &str = "x-api-key";
/// Name of the session cookie.
pub const SESSION_COOKIE: &str = "meeboter_session";

/// The user who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller(pub UserId);

impl FromRequest for Caller {
    type Error = actix_web::Error;
    type Future = LocalBoxFuture<'static, Result<Self, Self::Error>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let request = request.clone();
        Box::pin(async move { Ok(caller(&request).await?) })
    }
}

/// An operator who asks: a user who may ask for what concerns every user. Others are answered 403 `operator_only`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operator(pub UserId);

impl FromRequest for Operator {
    type Error = actix_web::Error;
    type Future = LocalBoxFuture<'static, Result<Self, Self::Error>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let request = request.clone();
        Box::pin(async move { Ok(operator(&request).await?) })
    }
}

/// By what somebody was let in, which may end while a connection stays open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pass {
    /// Who it is.
    pub user: UserId,
    /// Number of the key that was presented, or that the session was begun with.
    key: i64,
    /// When the session is over; `None`: the key itself was presented.
    until: Option<DateTime<Utc>>,
}

impl Pass {
    /// Whether it still counts: the session lasts, and the key was not revoked.
    pub async fn counts(&self, state: &AppState) -> Result<bool, QueryError> {
        if self.until.is_some_and(|until| until <= state.clock.now()) {
            return Ok(false);
        }
        Ok(state.api_keys.get(&state.pool, self.key, self.user).await?.is_some())
    }
}

impl FromRequest for Pass {
    type Error = actix_web::Error;
    type Future = LocalBoxFuture<'static, Result<Self, Self::Error>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let request = request.clone();
        Box::pin(async move { Ok(pass(&request).await?) })
    }
}

async fn operator(request: &HttpRequest) -> Result<Operator, ApiError> {
    let Caller(user) = caller(request).await?;
    // Asked each time: operators ask seldom, and one who is none any more is none at once.
    let known = state(request)?.pool.get_user(user).await?;
    if known.is_some_and(|user| user.is_operator) {
        return Ok(Operator(user));
    }
    let message = "Only an operator may do this. Ask one, or use an operator's API key.";
    Err(ApiError::new(StatusCode::FORBIDDEN, "operator_only", message))
}

async fn caller(request: &HttpRequest) -> Result<Caller, ApiError> {
    Ok(Caller(pass(request).await?.user))
}

async fn pass(request: &HttpRequest) -> Result<Pass, ApiError> {
    let state = state(request)?;
    if let Some(key) = request.headers().get(KEY_HEADER) {
        let key = key.to_str().unwrap_or_default();
        let key = state.api_keys.find(&state.pool, key).await?.ok_or_else(unknown_key)?;
        return Ok(Pass { user: key.user, key: key.id, until: None });
    }
    let Some(cookie) = request.cookie(SESSION_COOKIE) else {
        return Err(ApiError::unauthorized("Send an API key in the header x-api-key."));
    };
    if request.method() != Method::GET && !same_origin(request, &state.settings.server.public_url) {
        return Err(ApiError::forbidden("A request by cookie must come from this server's own pages."));
    }
    let session = state
        .tokens
        .check_session(cookie.value(), state.clock.now())
        .map_err(|why| ApiError::unauthorized(&format!("Sign in again: {why}.")))?;
    let key = state.api_keys.get(&state.pool, session.key, session.user).await?;
    let key = key.ok_or_else(|| ApiError::unauthorized("Sign in again: the API key was revoked."))?;
    Ok(Pass { user: key.user, key: key.id, until: Some(session.until) })
}

/// The answer to a key that lets nobody in.
pub(super) fn unknown_key() -> ApiError {
    ApiError::unauthorized("This API key is not known, or was revoked.")
}

/// The application's state.
pub(super) fn state(request: &HttpRequest) -> Result<web::Data<AppState>, ApiError> {
    request.app_data::<web::Data<AppState>>().cloned().ok_or_else(|| ApiError::internal("no state"))
}

/// Whether a browser's request comes from this server's own pages: its Origin is the host it was sent to, or the
/// configured address.
pub fn same_origin(request: &HttpRequest, public_url: &str) -> bool {
    let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    let (Some(origin), Some(host)) = (header(ORIGIN), header(HOST)) else { return false };
    let authority = origin.split_once("://").map_or("", |(_, authority)| authority);
    authority == host || origin == public_url.trim_end_matches('/')
}

/// The token that a bot presents.
pub(super) fn bot_token(request: &HttpRequest) -> Result<&str, ApiError> {
    let token = request.headers().get(TOKEN_HEADER).and_then(|token| token.to_str().ok());
    token.ok_or_else(|| {
        ApiError::unauthorized("Send the slot's or the bot's token in the header x-milo-token.")
    })
}
