//! What a request carries: query parameters, bodies, filters, credentials, references, platforms, times.
//!
//! Everything here is foreign input: sizes are bounded, and a refusal names the parameter. Wordings are Docker's.

pub mod auth;
pub mod body;
pub mod drained;
pub mod filters;
pub mod platform;
pub mod query;
pub mod reference;
pub mod time;

pub use query::Query;
