//! Maintenance for operators: how it is, and a run now.

use super::note;
use crate::http::caller::Operator;
use crate::http::error::ApiError;
use crate::http::state::AppState;
use crate::http::stats::observe;
use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use chrono::{DateTime, Utc};
use meeboter_actors::maintenance::actor::{MaintenanceSnapshot, Observe, RunNow};
use meeboter_actors::maintenance::plan::DiskLine;
use meeboter_actors::maintenance::{Run, StepReport, Trigger};
use serde::Serialize;
use std::collections::BTreeMap;

/// A part of a run.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct StepView {
    step: &'static str,
    ended_at: Option<DateTime<Utc>>,
    /// What was done, by what it was done to.
    done: BTreeMap<String, u64>,
    /// Things that could not be done; the next run tries again.
    failures: u64,
    first_failure: Option<String>,
}

/// A run.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct RunView {
    trigger: Trigger,
    /// Counted up where it is resumed.
    attempt: u32,
    began_at: DateTime<Utc>,
    ended_at: Option<DateTime<Utc>>,
    steps: Vec<StepView>,
}

/// A disk.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct DiskView {
    name: String,
    free_bytes: u64,
    total_bytes: u64,
    free_percent: f64,
    nearly_full: bool,
}

/// How maintenance is.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MaintenanceView {
    /// When the next run is due; null where none is, or while one is under way.
    next_at: Option<DateTime<Utc>>,
    running: Option<RunView>,
    /// The last one that ended, or was cut off.
    last: Option<RunView>,
    disks: Vec<DiskView>,
}

/// GET /api/admin/maintenance
pub async fn read(_: Operator, state: web::Data<AppState>) -> Result<web::Json<MaintenanceView>, ApiError> {
    Ok(web::Json(view(observe(&state.tree()?.maintainer, Observe).await?)))
}

/// POST /api/admin/maintenance: begins a run now. 202: it goes on while nobody waits for it. One that is under way is
/// answered as it is.
pub async fn run(operator: Operator, state: web::Data<AppState>) -> Result<HttpResponse, ApiError> {
    let _admitted = state.admit()?;
    let maintainer = &state.tree()?.maintainer;
    note(&state, operator, "maintenance", "everything");
    let snapshot = observe(maintainer, RunNow).await?;
    Ok(HttpResponse::build(StatusCode::ACCEPTED).json(view(snapshot)))
}

fn view(snapshot: MaintenanceSnapshot) -> MaintenanceView {
    MaintenanceView {
        next_at: snapshot.next_at,
        running: snapshot.running.map(run_view),
        last: snapshot.last.map(run_view),
        disks: snapshot.disks.into_iter().map(disk_view).collect(),
    }
}

fn run_view(run: Run) -> RunView {
    let Run { trigger, attempt, began_at, ended_at, steps, before: _ } = run;
    RunView { trigger, attempt, began_at, ended_at, steps: steps.into_iter().map(step_view).collect() }
}

fn step_view(report: StepReport) -> StepView {
    let StepReport { step, ended_at, done, failures, first_failure } = report;
    StepView { step: step.as_str(), ended_at, done, failures, first_failure }
}

fn disk_view(DiskLine { disk, nearly_full, answers: _ }: DiskLine) -> DiskView {
    let free_percent = (disk.free_percent() * 10.0).round() / 10.0;
    DiskView {
        name: disk.name,
        free_bytes: disk.free_bytes,
        total_bytes: disk.total_bytes,
        free_percent,
        nearly_full,
    }
}
