//! Changes that could make a call pass, each in words and in a form for machines.

use std::fmt;

use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::{
    Action, DeploymentId, FlowAction, JurisdictionCode, LicenceId, OperatorId, TenantId,
};

/// One thing that would have to be otherwise.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum Change {
    /// A legal instrument is registered between the tenant and the operator.
    Instrument {
        /// Its kind.
        kind: String,
        /// Who exports.
        exporter: TenantId,
        /// Who receives.
        recipient: OperatorId,
    },
    /// The operator holds a certification.
    Certification {
        /// Which.
        certification: String,
        /// Who.
        operator: OperatorId,
    },
    /// The tenant has agreed separate terms with the licensor.
    SideLicence {
        /// The licence that they stand beside.
        licence: LicenceId,
        /// Who.
        tenant: TenantId,
    },
    /// The deployment has a protection.
    Safeguard {
        /// Which.
        safeguard: String,
        /// Where.
        deployment: DeploymentId,
    },
    /// The deployment keeps what it was sent for no longer.
    Retention {
        /// For how many hours.
        hours: u64,
        /// Where.
        deployment: DeploymentId,
    },
    /// The organisation approves the deployment.
    Approval {
        /// Which.
        deployment: DeploymentId,
    },
    /// The call is for another purpose.
    Purpose {
        /// Which.
        purpose: String,
    },
    /// The call asks for something else.
    Action {
        /// For what.
        action: Action,
    },
    /// The call says what its data is.
    Declaration,
    /// Fewer people are counted, with all that left before.
    FewerPeople {
        /// The threshold to stay below.
        threshold: String,
        /// The number that reaches it.
        below: u64,
    },
    /// The deployment does something elsewhere, or its operator is somebody else's.
    Place {
        /// The deployment.
        deployment: DeploymentId,
        /// What.
        action: FlowAction,
        /// Where it does now.
        from: JurisdictionCode,
        /// Where it would.
        to: JurisdictionCode,
    },
    /// One call for the people of each jurisdiction.
    Split {
        /// The jurisdictions, each in a call of its own.
        subjects: Vec<JurisdictionCode>,
    },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Instrument { kind, exporter, recipient } => {
                write!(f, "register the instrument `{kind}` between `{exporter}` and `{recipient}`")
            }
            Self::Certification { certification, operator } => {
                write!(
                    f,
                    "an operator with the certification `{certification}` (`{operator}` has none)"
                )
            }
            Self::SideLicence { licence, tenant } => {
                write!(
                    f,
                    "agree a licence beside `{licence}` and record it as a side licence of `{tenant}`"
                )
            }
            Self::Safeguard { safeguard, deployment } => {
                write!(f, "give `{deployment}` the safeguard `{safeguard}`")
            }
            Self::Retention { hours, deployment } => {
                write!(f, "let `{deployment}` keep nothing for more than {hours} hours")
            }
            Self::Approval { deployment } => write!(f, "approve `{deployment}`"),
            Self::Purpose { purpose } => {
                write!(f, "declare the purpose `{purpose}`, if that is what the call is for")
            }
            Self::Action { action } => write!(f, "ask for {action:?} instead"),
            Self::Declaration => f.write_str("declare what the data is, and whose"),
            Self::FewerPeople { threshold, below } => {
                write!(
                    f,
                    "stay below {below} people, all that left before included (`{threshold}`)"
                )
            }
            Self::Place { deployment, action, from, to } => {
                let what = match action {
                    FlowAction::Process => "that processes",
                    FlowAction::Store => "that stores",
                    FlowAction::Access => "that is read only from",
                    FlowAction::Operate => "whose operator sits",
                    FlowAction::Own => "whose operator is owned",
                };
                let place = if *action == FlowAction::Access { "" } else { "in " };
                write!(f, "a deployment like `{deployment}` {what} {place}{to} instead of {from}")
            }
            Self::Split { subjects } => {
                let codes: Vec<&str> = subjects.iter().map(JurisdictionCode::as_str).collect();
                write!(f, "ask in a call of its own for the people of each of {}", codes.join(", "))
            }
        }
    }
}
