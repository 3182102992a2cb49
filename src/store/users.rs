//! Users as operators see, make and change them.

use super::pool::{Pool, QueryError};
use super::queries::{API_KEY_COLUMNS, ApiKey, Listed, Page, USER_COLUMNS, User, api_key_from, user_from};
use super::rows::get;
use meeboter_actors::queue::Plan;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

/// A user with how many API keys it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredUser {
    /// The user.
    pub user: User,
    /// Its keys that were not revoked.
    pub api_keys: u64,
}

/// A user to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewUser<'a> {
    /// Its name, which nobody else has.
    pub name: &'a str,
    /// Its plan.
    pub plan: Plan,
    /// Whether it may ask for what concerns every user.
    pub is_operator: bool,
}

/// What to change of a user; `None`: it stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UserChange {
    /// Another plan.
    pub plan: Option<Plan>,
    /// Whether it may ask for what concerns every user.
    pub is_operator: Option<bool>,
}

/// What came of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// The user as it now is.
    Done(StoredUser),
    /// Nothing was changed: there would be no operator any more.
    LastOperator,
    /// There is no user of this name.
    Unknown,
}

/// Counts the live keys of the row that is called `users`.
const LIVE_KEYS: &str = "(SELECT count(*) FROM api_keys \
    WHERE api_keys.user_id = users.id AND api_keys.revoked_at IS NULL) AS api_keys";
/// Keeps other changes of users out, and nobody who reads them or refers to one, as the Journal's rows do.
const LOCK_USERS: &str = "LOCK TABLE users IN SHARE ROW EXCLUSIVE MODE";

impl Pool {
    /// All users, in the order in which they were made.
    pub async fn list_users(&self, page: Page) -> Result<Listed<StoredUser>, QueryError> {
        let text = format!("SELECT {USER_COLUMNS}, {LIVE_KEYS} FROM users ORDER BY id LIMIT $1 OFFSET $2");
        let rows = self.rows("all users", &text, &[&page.limit(), &page.offset()]).await?;
        let rows = rows.iter().map(stored_user_from).collect::<Result<_, QueryError>>()?;
        let total = self.count("how many users", "SELECT count(*) FROM users WHERE id > $1", 0).await?;
        Ok(Listed { rows, total })
    }

    /// Makes a user and keeps the SHA-256 of its first API key, both or neither; `None`: the name is taken.
    pub async fn insert_user(
        &self,
        NewUser { name, plan, is_operator }: NewUser<'_>,
        key_name: &str,
        prefix: &str,
        hash: &[u8; 32],
    ) -> Result<Option<StoredUser>, QueryError> {
        let text = format!(
            "WITH made AS (INSERT INTO users (name, plan, is_operator) VALUES ($1, $2, $3) \
                 ON CONFLICT (name) DO NOTHING RETURNING {USER_COLUMNS}), \
             first_key AS (INSERT INTO api_keys (user_id, name, prefix, key_hash) SELECT id, $4, $5, $6 FROM made) \
             SELECT {USER_COLUMNS}, 1::bigint AS api_keys FROM made"
        );
        let (plan, hash) = (plan.as_str(), hash.as_slice());
        let row =
            self.row("a new user", &text, &[&name, &plan, &is_operator, &key_name, &prefix, &hash]).await?;
        row.as_ref().map(stored_user_from).transpose()
    }

    /// Changes the user of this name, unless that would leave no operator. Of several at once each sees what the one
    /// before it changed.
    pub async fn change_user(&self, name: &str, change: UserChange) -> Result<Changed, QueryError> {
        let text = format!(
            "WITH changed AS (UPDATE users \
                 SET plan = coalesce($2::text, plan), is_operator = coalesce($3::boolean, is_operator) \
                 WHERE name = $1 AND ($3::boolean IS NOT FALSE OR NOT is_operator \
                     OR EXISTS (SELECT FROM users AS other WHERE other.is_operator AND other.id <> users.id)) \
                 RETURNING {USER_COLUMNS}) \
             SELECT true AS changed, {USER_COLUMNS}, {LIVE_KEYS} FROM changed AS users \
             UNION ALL \
             SELECT false, {USER_COLUMNS}, {LIVE_KEYS} FROM users WHERE name = $1 AND NOT EXISTS (SELECT FROM changed)"
        );
        let plan = change.plan.map(Plan::as_str);
        let params: [&(dyn ToSql + Sync); 3] = [&name, &plan, &change.is_operator];
        let rows = self.rows_under_lock("a change of a user", LOCK_USERS, &text, &params).await?;
        match rows.first() {
            None => Ok(Changed::Unknown),
            Some(row) if get(row, "changed")? => Ok(Changed::Done(stored_user_from(row)?)),
            Some(_) => Ok(Changed::LastOperator),
        }
    }

    /// Keeps the SHA-256 of a further API key of the user of this name; `None`: there is no such user.
    pub async fn insert_api_key_of(
        &self,
        user: &str,
        key_name: &str,
        prefix: &str,
        hash: &[u8; 32],
    ) -> Result<Option<ApiKey>, QueryError> {
        let text = format!(
            "INSERT INTO api_keys (user_id, name, prefix, key_hash) \
             SELECT id, $2, $3, $4 FROM users WHERE name = $1 RETURNING {API_KEY_COLUMNS}"
        );
        let params: [&(dyn ToSql + Sync); 4] = [&user, &key_name, &prefix, &hash.as_slice()];
        self.row("a further API key", &text, &params).await?.as_ref().map(api_key_from).transpose()
    }
}

fn stored_user_from(row: &Row) -> Result<StoredUser, QueryError> {
    let api_keys: i64 = get(row, "api_keys")?;
    Ok(StoredUser { user: user_from(row)?, api_keys: api_keys.unsigned_abs() })
}
