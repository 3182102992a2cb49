//! Tests against the real world: PostgreSQL here, engines and browsers in the modules beside.

mod store;
mod support;
