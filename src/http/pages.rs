//! The dashboard and the rehearsal meetings: files embedded in this program.

use super::error::ApiError;
use super::state::AppState;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, ETAG, IF_NONE_MATCH, REFERRER_POLICY};
use actix_web::{HttpRequest, HttpResponse, web};
use rust_embed::RustEmbed;

const POLICY: &str =
    "default-src 'self'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'; object-src 'none'";

#[derive(RustEmbed)]
#[folder = "dashboard/"]
struct Dashboard;

#[derive(RustEmbed)]
#[folder = "src/rehearsal/"]
struct Rehearsal;

/// GET /
pub async fn dashboard(request: HttpRequest) -> Result<HttpResponse, ApiError> {
    file::<Dashboard>(&request, "index.html")
}

/// GET /dashboard/{file}
pub async fn dashboard_file(request: HttpRequest, name: web::Path<String>) -> Result<HttpResponse, ApiError> {
    file::<Dashboard>(&request, &name)
}

/// GET /rehearsal/
pub async fn rehearsal_index(
    request: HttpRequest,
    state: web::Data<AppState>,
) -> Result<HttpResponse, ApiError> {
    switched_on(&state)?;
    file::<Rehearsal>(&request, "index.html")
}

/// GET /rehearsal/{name}: a file of the pages, or a meeting of that name.
pub async fn rehearsal(
    request: HttpRequest,
    state: web::Data<AppState>,
    name: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    switched_on(&state)?;
    let name = if Rehearsal::get(&name).is_some() { name.as_str() } else { "meeting.html" };
    file::<Rehearsal>(&request, name)
}

fn switched_on(state: &AppState) -> Result<(), ApiError> {
    if state.settings.rehearsal.enabled { Ok(()) } else { Err(ApiError::not_found("such address")) }
}

fn file<F: RustEmbed>(request: &HttpRequest, name: &str) -> Result<HttpResponse, ApiError> {
    let file = F::get(name).ok_or_else(|| ApiError::not_found("such address"))?;
    let hash = file.metadata.sha256_hash();
    let tag: String = hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let tag = format!("\"{tag}\"");
    let known = request.headers().get(IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let mut response = if known { HttpResponse::NotModified() } else { HttpResponse::Ok() };
    response
        .insert_header((ETAG, tag))
        .insert_header((CACHE_CONTROL, "no-cache"))
        .insert_header((CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((REFERRER_POLICY, "same-origin"))
        .insert_header(("x-content-type-options", "nosniff"));
    if known {
        return Ok(response.finish());
    }
    Ok(response.content_type(content_type(name)).body(file.data))
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map_or("", |(_, ending)| ending) {
        "html" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "svg" => "image/svg+xml",
        _ => "application/octet-stream",
    }
}
