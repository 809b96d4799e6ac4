//! What the organisation says of all calls of an app: a caller may say more, never less.

use std::{borrow::Cow, collections::BTreeSet};

use serde::Deserialize;

use crate::domain::{CallRequest, DataRequest, FieldFault};

/// `[apps.claims]`: what is taken of a call that says nothing, and what a call must say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppClaims {
    /// Whether the app's data is personal.
    pub personal: Option<bool>,
    /// Categories that it always holds.
    pub categories: Vec<String>,
    /// Jurisdictions whose people it is always about.
    pub subjects: Vec<String>,
    /// How many people it is about at least.
    pub subject_count: Option<u64>,
    /// Its purpose.
    pub purpose: Option<String>,
    /// Where its answers are always used.
    pub audience: Vec<String>,
    /// Where its calls are made.
    pub location: Option<String>,
    /// What each call must say for itself.
    pub required: BTreeSet<ClaimName>,
}

/// Something that a call may claim, by its name in headers and in the organisation file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClaimName {
    /// Whether the data is personal.
    Personal,
    /// Its categories.
    Data,
    /// Whose people it is about.
    Subjects,
    /// How many.
    SubjectCount,
    /// What for.
    Purpose,
    /// Where the answer is used.
    Audience,
    /// Where the call is made.
    Location,
}

impl ClaimName {
    /// The field of a call that holds it.
    const fn pointer(self) -> &'static str {
        match self {
            Self::Personal => "/data/personal",
            Self::Data => "/data/categories",
            Self::Subjects => "/data/subjects",
            Self::SubjectCount => "/data/subject_count",
            Self::Purpose => "/purpose",
            Self::Audience => "/audience",
            Self::Location => "/location",
        }
    }

    fn is_in(self, request: &CallRequest) -> bool {
        let data = request.data.as_ref();
        match self {
            // Categories may be none: that they were looked for is what counts.
            Self::Personal | Self::Data => data.is_some(),
            Self::Subjects => data.is_some_and(|data| !data.subjects.is_empty()),
            Self::SubjectCount => data.is_some_and(|data| data.subject_count.is_some()),
            Self::Purpose => request.purpose.is_some(),
            Self::Audience => request.audience.as_ref().is_some_and(|all| !all.is_empty()),
            Self::Location => request.location.is_some(),
        }
    }
}

impl AppClaims {
    /// The call with what the organisation says of it.
    ///
    /// # Errors
    /// Each claim that is required and missing, or says less than the organisation does.
    pub fn tighten<'r>(
        &self,
        request: &'r CallRequest,
    ) -> Result<Cow<'r, CallRequest>, Vec<FieldFault>> {
        if *self == Self::default() {
            return Ok(Cow::Borrowed(request));
        }
        let mut reader = Tightened { faults: Vec::new() };
        for claim in self.required.iter().filter(|claim| !claim.is_in(request)) {
            reader.fault(*claim, "must be said by each call of this app");
        }
        let mut call = request.clone();
        call.data = self.tighten_data(call.data, &mut reader);
        reader.same(ClaimName::Purpose, &mut call.purpose, self.purpose.as_ref());
        reader.same(ClaimName::Location, &mut call.location, self.location.as_ref());
        if !self.audience.is_empty() {
            let audience = call.audience.get_or_insert_default();
            reader.all_of(ClaimName::Audience, audience, &self.audience);
        }
        if reader.faults.is_empty() { Ok(Cow::Owned(call)) } else { Err(reader.faults) }
    }

    /// What the organisation says of the data of every call; `None` when it says nothing.
    #[must_use]
    pub fn data(&self) -> Option<DataRequest> {
        let says_nothing = self.personal.is_none()
            && self.categories.is_empty()
            && self.subjects.is_empty()
            && self.subject_count.is_none();
        (!says_nothing).then(|| DataRequest {
            personal: self.personal.unwrap_or(!self.subjects.is_empty()),
            categories: self.categories.clone(),
            subjects: self.subjects.clone(),
            subject_count: self.subject_count,
            location: None,
        })
    }

    fn tighten_data(
        &self,
        said: Option<DataRequest>,
        reader: &mut Tightened,
    ) -> Option<DataRequest> {
        let Some(always) = self.data() else { return said };
        let Some(mut data) = said else { return Some(always) };
        if always.personal && !data.personal {
            reader.fault(ClaimName::Personal, "says `false` of an app whose data is personal");
        }
        reader.all_of(ClaimName::Data, &mut data.categories, &self.categories);
        reader.all_of(ClaimName::Subjects, &mut data.subjects, &self.subjects);
        match (data.subject_count, self.subject_count) {
            (Some(said), Some(least)) if said < least => {
                reader.fault(ClaimName::SubjectCount, &format!("is less than the app's {least}"));
            }
            (None, Some(least)) => data.subject_count = Some(least),
            _ => {}
        }
        Some(data)
    }
}

struct Tightened {
    faults: Vec<FieldFault>,
}

impl Tightened {
    fn fault(&mut self, claim: ClaimName, what: &str) {
        let detail = format!("{what}: the organisation file's `[apps.claims]` says so");
        self.faults.push(FieldFault::new(claim.pointer(), detail));
    }

    /// A list that says nothing takes the organisation's; any other must hold all of it.
    fn all_of(&mut self, claim: ClaimName, said: &mut Vec<String>, always: &[String]) {
        if said.is_empty() {
            always.clone_into(said);
        }
        let missing: Vec<&str> =
            always.iter().filter(|one| !said.contains(one)).map(String::as_str).collect();
        if !missing.is_empty() {
            self.fault(claim, &format!("leaves out `{}`", missing.join("`, `")));
        }
    }

    fn same(&mut self, claim: ClaimName, said: &mut Option<String>, always: Option<&String>) {
        match (said.as_ref(), always) {
            (Some(said), Some(always)) if said != always => {
                let what = format!("is not the app's `{always}` (send that, or leave it out)");
                self.fault(claim, &what);
            }
            (None, Some(always)) => *said = Some(always.clone()),
            _ => {}
        }
    }
}
