//! PostgreSQL: the rows, the lead, and the embedded server.
