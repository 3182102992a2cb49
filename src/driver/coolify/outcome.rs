//! What became of a deployment. Pure.
//!
//! The answer to a deployment may name one that does not exist, name none, or get lost. What counts is the list of the
//! application's deployments, and what was the latest before anything was asked for.

use super::api::DeploymentRow;

/// How a deployment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It waits or is worked on.
    UnderWay,
    /// Its container was started.
    Finished,
    /// It came to nothing.
    Failed,
    /// Somebody cancelled it.
    Cancelled,
}

/// Reads a deployment's status; a word that is not known counts as under way, as a later look will tell.
pub(super) fn read(status: &str) -> Standing {
    match status {
        "finished" => Standing::Finished,
        "failed" => Standing::Failed,
        status if status.starts_with("cancelled") => Standing::Cancelled,
        _ => Standing::UnderWay,
    }
}

/// What to do where the answer named no deployment that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    /// That one is ours: wait for its end.
    Await(String),
    /// Those were asked for by somebody else and may not know what was set last: cancel them, then ask again.
    Cancel(Vec<String>),
    /// Nothing was deployed: ask again.
    AskAgain,
}

/// Decides it from the application's deployments, the newest first. `before` is the newest from before anything was
/// asked for; `lost`: an answer did not arrive, so that a deployment may be ours without our knowing.
pub(super) fn after_no_deployment(rows: &[DeploymentRow], before: Option<&str>, lost: bool) -> Next {
    if let Some(newest) =
        rows.first().filter(|newest| lost && Some(newest.deployment_uuid.as_str()) != before)
    {
        return Next::Await(newest.deployment_uuid.clone());
    }
    let active: Vec<String> = rows
        .iter()
        .filter(|row| read(&row.status) == Standing::UnderWay)
        .map(|row| row.deployment_uuid.clone())
        .collect();
    if active.is_empty() { Next::AskAgain } else { Next::Cancel(active) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(uuid: &str, status: &str) -> DeploymentRow {
        DeploymentRow { deployment_uuid: uuid.to_owned(), status: status.to_owned(), logs: None }
    }

    #[test]
    fn statuses_are_read() {
        assert_eq!(read("queued"), Standing::UnderWay);
        assert_eq!(read("in_progress"), Standing::UnderWay);
        assert_eq!(read("finished"), Standing::Finished);
        assert_eq!(read("failed"), Standing::Failed);
        assert_eq!(read("cancelled-by-user"), Standing::Cancelled);
        assert_eq!(read("a new word"), Standing::UnderWay);
    }

    #[test]
    fn a_lost_answer_is_found_and_never_repeated() {
        let rows = [row("b", "finished"), row("a", "finished")];
        assert_eq!(after_no_deployment(&rows, Some("a"), true), Next::Await("b".into()));
        assert_eq!(after_no_deployment(&rows, Some("b"), true), Next::AskAgain);
        assert_eq!(after_no_deployment(&[], None, true), Next::AskAgain);
        assert_eq!(after_no_deployment(&[row("a", "queued")], None, true), Next::Await("a".into()));
    }

    #[test]
    fn what_somebody_else_deploys_does_not_count_for_ours() {
        let rows = [row("b", "in_progress"), row("a", "finished")];
        assert_eq!(after_no_deployment(&rows, Some("a"), false), Next::Cancel(vec!["b".into()]));
        assert_eq!(after_no_deployment(&rows, Some("b"), true), Next::Cancel(vec!["b".into()]));
        assert_eq!(after_no_deployment(&rows[1..], Some("a"), false), Next::AskAgain);
    }
}
