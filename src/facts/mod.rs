//! What is known: dated facts of the world, the organisation's own facts, and the snapshot of both
//! with the policies that judge by them. Not the judging.

mod organisation;
mod snapshot;
mod world;

pub use crate::domain::Confidence;
pub use organisation::{
    App, ContentMode, Deployment, Instrument, Model, Operator, Organisation, Pass, Site, Tenant,
    backend::{
        Api, BackendAddress, BaseUrl, BreakerSettings, InvalidBaseUrl, KeySource, Strategy,
        Timeouts, VirtualModel,
    },
    claims::{AppClaims, ClaimName},
    passes::{NotPassed, passing},
    price::Price,
};
pub use snapshot::{
    Content, Snapshot, SnapshotError,
    names::OwnNames,
    proposal::Proposal,
    resolve::{Resolved, resolve, unknown_model},
};
pub use world::{
    TermKind, World,
    at::{ConfidenceAt, Covering, FactsAt, Licence, RetentionRule},
    date_text::{DateText, FORMS as DATE_FORMS, read_instant},
    dated::{Dated, Validity, instant as parse_instant},
    places::Jurisdiction,
    upkeep::Upkeep,
};
