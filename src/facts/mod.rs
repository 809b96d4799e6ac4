//! What is known: dated facts of the world, the organisation's own facts, and the snapshot of both
//! with the policies that judge by them. Not the judging.

mod about;
mod backend;
mod claims;
mod confidence;
mod counting;
mod date_text;
mod dated;
mod entities;
mod licence_id;
mod model_names;
mod names;
mod now;
mod organisation;
mod organisation_file;
mod passes;
mod places;
mod price;
mod proposal;
mod remedy;
mod resolve;
mod snapshot;
#[cfg(test)]
mod snapshot_tests;
mod thresholds;
mod upkeep;
mod world;
mod world_file;
mod world_names;
#[cfg(test)]
mod world_tests;

pub use crate::domain::Confidence;
pub use backend::{
    Api, BackendAddress, BaseUrl, BreakerSettings, InvalidBaseUrl, KeySource, Strategy, Timeouts,
    VirtualModel,
};
pub use claims::{AppClaims, ClaimName};
pub use confidence::{ConfidenceAt, Covering};
pub use date_text::{DateText, FORMS as DATE_FORMS, read_instant};
pub use dated::{Dated, Validity, instant as parse_instant};
pub use names::OwnNames;
pub use now::{FactsAt, Jurisdiction, Licence, RetentionRule};
pub use organisation::{
    App, ContentMode, Deployment, Instrument, Model, Operator, Organisation, Pass, Site, Tenant,
};
pub use passes::{NotPassed, passing};
pub use price::Price;
pub use proposal::Proposal;
pub use resolve::{Resolved, resolve, unknown_model};
pub use snapshot::{Content, Snapshot, SnapshotError};
pub use upkeep::Upkeep;
pub use world::{TermKind, World};
