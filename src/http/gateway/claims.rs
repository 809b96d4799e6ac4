//! What a call to a model is about: headers, or `metadata` under the same names. Ours are taken
//! out of the body, so that no backend sees them.

use std::collections::BTreeMap;

use axum::http::HeaderMap;

use super::{
    super::problem::{Problem, ProblemKind},
    claim_names::{END_USER, FIELD, HEADER, both_names, invalid, known, list, normal},
    metadata::from_metadata,
    persons,
};
use crate::{
    dispatch::{Endpoint, Fields},
    domain::{AppId, CallRequest, DataRequest, EndUser, FieldFault},
    facts::{AppClaims, ClaimName, Organisation},
};

/// What a call is about, and the fields that its backend does not get.
#[derive(Debug)]
pub(super) struct Claimed {
    pub(super) request: CallRequest,
    /// In which the caller named a person, of a call that is declared to be about none.
    pub(super) withheld: Vec<&'static str>,
}

/// Reads the claims of a call of `app` to `model`, and takes them out of its body.
pub(super) fn take(
    headers: &HeaderMap,
    body: &mut Fields,
    organisation: &Organisation,
    app: &AppId,
    endpoint: Endpoint,
    model: String,
) -> Result<Claimed, Problem> {
    let mut claims = from_headers(headers)?;
    for (name, value) in from_metadata(body)? {
        let header = claims.entry(name.clone()).or_insert_with(|| value.clone());
        if *header != value {
            let detail =
                format!("`{HEADER}{name}` and metadata `{FIELD}{name}` contradict each other");
            return Err(invalid(&format!("{HEADER}{name}"), detail));
        }
    }
    let of_app = organisation.apps.get(app).map(|app| &app.claims).cloned().unwrap_or_default();
    all_said(&claims, &of_app)?;
    let is_deployment = organisation.deployment(&model).is_some();
    let named = persons::named(body, endpoint);
    let request = CallRequest {
        action: endpoint.action(),
        deployment: is_deployment.then(|| model.clone()),
        model: (!is_deployment).then_some(model),
        passes: Vec::new(),
        modalities: Vec::new(),
        data: data(&claims, &of_app)?,
        purpose: claims.get("purpose").filter(|text| !text.is_empty()).cloned(),
        audience: claims.get("audience").map(|text| list(text)),
        location: claims.get("location").cloned(),
        end_user: end_user(&claims)?.or(named),
    };
    let is_personal = |call: &CallRequest| call.data.as_ref().is_some_and(|data| data.personal);
    let is_personal = of_app.tighten(&request).is_ok_and(|call| is_personal(&call));
    let withheld = if is_personal { Vec::new() } else { persons::withhold(body, endpoint)? };
    Ok(Claimed { request, withheld })
}

fn end_user(claims: &BTreeMap<String, String>) -> Result<Option<EndUser>, Problem> {
    let user = claims.get(END_USER).map(|name| EndUser::parse(name)).transpose();
    user.map_err(|error| invalid(&format!("{HEADER}{END_USER}"), error.to_string()))
}

/// Each claim must be said that the organisation requires of the app's calls, by its own name: a call that
/// says whose data it is has not said of what kind.
fn all_said(claims: &BTreeMap<String, String>, of_app: &AppClaims) -> Result<(), Problem> {
    let is_said = |claim: &ClaimName| {
        // Empty categories are a declaration; an empty anything else is none.
        let text = claims.get(header(*claim));
        text.is_some_and(|text| !text.is_empty() || *claim == ClaimName::Data)
    };
    let missing = of_app.required.iter().filter(|claim| !is_said(claim));
    let fault = |claim: &ClaimName| {
        let name = format!("{HEADER}{}", header(*claim));
        let detail = format!(
            "{} must be said by each call of this app: the organisation file's `[apps.claims]` says so",
            both_names(header(*claim))
        );
        FieldFault::new(name, detail)
    };
    let faults: Vec<FieldFault> = missing.map(fault).collect();
    if faults.is_empty() {
        return Ok(());
    }
    Err(Problem::fields(ProblemKind::InvalidRequest, faults))
}

/// A claim's name, without the prefix.
const fn header(claim: ClaimName) -> &'static str {
    match claim {
        ClaimName::Personal => "personal",
        ClaimName::Data => "data",
        ClaimName::Subjects => "subjects",
        ClaimName::SubjectCount => "subject-count",
        ClaimName::Purpose => "purpose",
        ClaimName::Audience => "audience",
        ClaimName::Location => "location",
    }
}

fn from_headers(headers: &HeaderMap) -> Result<BTreeMap<String, String>, Problem> {
    let mut claims = BTreeMap::new();
    for name in headers.keys() {
        let Some(claim) = name.as_str().strip_prefix(HEADER) else { continue };
        let claim = known(claim, name.as_str())?;
        let mut values = headers.get_all(name).iter();
        let (first, more) = (values.next(), values.next());
        let text = first.and_then(|value| value.to_str().ok());
        let (Some(text), None) = (text, more) else {
            let detail = format!(
                "`{name}` must appear exactly once and contain only visible ASCII characters"
            );
            return Err(invalid(name.as_str(), detail));
        };
        let text = normal(&claim, text);
        claims.insert(claim, text);
    }
    Ok(claims)
}

fn data(
    claims: &BTreeMap<String, String>,
    of_app: &AppClaims,
) -> Result<Option<DataRequest>, Problem> {
    let of = |name: &str| claims.get(name).map(|text| list(text));
    // Empty categories are a declaration; a subjects header that nobody filled in is none.
    let (categories, subjects) =
        (of("data"), of("subjects").filter(|subjects| !subjects.is_empty()));
    let personal = match claims.get("personal").map(String::as_str) {
        Some("true") => Some(true),
        Some("false") => Some(false),
        None => None,
        Some(other) => {
            let name = format!("{HEADER}personal");
            return Err(invalid(&name, format!("`{name}` is `true` or `false`, not `{other}`")));
        }
    };
    let subject_count = claims.get("subject-count").map(|text| text.parse::<u64>());
    let subject_count = subject_count.transpose().map_err(|_| {
        let name = format!("{HEADER}subject-count");
        invalid(&name, format!("`{name}` is a whole number of people"))
    })?;
    if categories.is_none() && subjects.is_none() && personal.is_none() {
        // How many they are says nothing of them; it may add to what the organisation says.
        let always = of_app.data().filter(|_| subject_count.is_some());
        return Ok(always.map(|data| DataRequest { subject_count, ..data }));
    }
    let (categories, subjects) = (categories.unwrap_or_default(), subjects.unwrap_or_default());
    let personal = personal.unwrap_or(!categories.is_empty() || !subjects.is_empty());
    Ok(Some(DataRequest { personal, categories, subjects, subject_count, location: None }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take_from(headers: &[(&str, &str)], body: &str) -> (Result<CallRequest, Problem>, String) {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name: axum::http::HeaderName = name.parse().unwrap();
            map.append(name, value.parse().unwrap());
        }
        let mut fields = Fields::parse(&body.to_owned().into()).unwrap();
        let (app, endpoint) = (AppId::from("desk"), Endpoint::ChatCompletions);
        let organisation = Organisation::default();
        let call = take(&map, &mut fields, &organisation, &app, endpoint, "m".to_owned());
        let call = call.map(|claimed| claimed.request);
        (call, String::from_utf8(fields.to_vec().unwrap()).unwrap())
    }

    #[test]
    fn claims_come_from_headers_or_metadata_and_leave_the_body() {
        let body = r#"{"model":"m","metadata":{"lexgate_subjects":"DE, SA","team":"x","lexgate_data":""}}"#;
        let (call, left) =
            take_from(&[("x-lexgate-personal", "true"), ("x-lexgate-subjects", "DE,SA")], body);
        let data = call.unwrap().data.unwrap();
        assert_eq!((data.personal, data.subjects), (true, vec!["DE".to_owned(), "SA".to_owned()]));
        assert_eq!(left, r#"{"model":"m","metadata":{"team":"x"}}"#);
        let (call, _) = take_from(
            &[("x-lexgate-subject-count", "12")],
            r#"{"model":"m","metadata":{"lexgate_personal":"true","lexgate_subject_count":"12"}}"#,
        );
        assert_eq!(call.unwrap().data.unwrap().subject_count, Some(12));
        let (_, left) = take_from(&[], r#"{"model":"m","metadata":{"lexgate_data":""}}"#);
        assert_eq!(left, r#"{"model":"m"}"#);
    }

    #[test]
    fn claims_in_json_may_be_of_json_s_own_types() {
        let body = r#"{"model":"m","metadata":{"lexgate_personal":true,"lexgate_subjects":["DE"," SA"],"lexgate_subject_count":12,"lexgate_data":[]}}"#;
        for personal in ["True", "TRUE", " true"] {
            let headers = [("x-lexgate-personal", personal), ("x-lexgate-subjects", "DE,SA")];
            let data = take_from(&headers, body).0.unwrap().data.unwrap();
            assert_eq!((data.personal, data.subject_count), (true, Some(12)), "{personal}");
            assert_eq!((data.subjects, data.categories.len()), (vec!["DE".into(), "SA".into()], 0));
        }
        let data =
            take_from(&[("x-lexgate-personal", "False")], r#"{"model":"m"}"#).0.unwrap().data;
        assert!(!data.unwrap().personal);
    }

    #[test]
    fn a_misspelt_claim_is_told_the_one_that_was_meant() {
        for (name, body, meant) in [
            ("x-lexgate-subject", r#"{"model":"m"}"#, "`x-lexgate-subjects`"),
            ("x-lexgate-subject_count", r#"{"model":"m"}"#, "`x-lexgate-subject-count`"),
            (
                "",
                r#"{"model":"m","metadata":{"lexgate_purposes":"x"}}"#,
                "`metadata.lexgate_purpose`",
            ),
            (
                "",
                r#"{"model":"m","metadata":{"lexgate_enduser":"x"}}"#,
                "`metadata.lexgate_end_user`",
            ),
        ] {
            let headers = [(name, "DE")];
            let headers = if name.is_empty() { &[][..] } else { &headers[..] };
            let problem = take_from(headers, body).0.unwrap_err();
            let detail = &problem.errors[0].detail;
            assert!(detail.contains(&format!("did you mean {meant}?")), "{detail}");
        }
    }

    #[test]
    fn an_end_user_is_a_name_as_it_stands() {
        let user = |headers: &[(&str, &str)], body: &str| {
            let call = take_from(headers, body).0?;
            Ok::<_, Problem>(call.end_user.map(|user| user.as_str().to_owned()))
        };
        let body = r#"{"model":"m"}"#;
        let named = user(&[("x-lexgate-end-user", "Doe, Jane")], body).unwrap();
        assert_eq!(named.as_deref(), Some("Doe, Jane"));
        assert_eq!(
            user(&[("x-lexgate-end-user", " u-9\t")], body).unwrap().as_deref(),
            Some("u-9")
        );
        for empty in ["", "  "] {
            let problem = user(&[("x-lexgate-end-user", empty)], body).unwrap_err();
            assert_eq!(problem.errors[0].pointer, "x-lexgate-end-user", "{empty:?}");
        }
        for named in [r"Ju\u0308rgen", r"\u3000J\u00fcrgen\n"] {
            let body = format!(r#"{{"model":"m","metadata":{{"lexgate_end_user":"{named}"}}}}"#);
            assert_eq!(user(&[], &body).unwrap().as_deref(), Some("J\u{fc}rgen"), "{named}");
        }
        let hidden = r#"{"model":"m","metadata":{"lexgate_end_user":"u-9\u200b"}}"#;
        assert!(user(&[], hidden).is_err());
        let named = r#"{"model":"m","metadata":{"lexgate_end_user":"J\u00fcrgen"}}"#;
        assert_eq!(user(&[], named).unwrap().as_deref(), Some("J\u{fc}rgen"));
        assert!(user(&[("x-lexgate-end-user", "Doe,Jane")], named).is_err(), "two names");
    }

    #[test]
    fn nothing_said_of_the_data_declares_nothing() {
        let (call, _) =
            take_from(&[("x-lexgate-purpose", "dpv:ServiceProvision")], r#"{"model":"m"}"#);
        assert_eq!(call.unwrap().data, None);
        let (call, _) = take_from(&[("x-lexgate-data", "")], r#"{"model":"m"}"#);
        assert!(!call.unwrap().data.unwrap().personal);
    }

    #[test]
    fn each_required_claim_must_be_said_by_its_own_name() {
        let all = [
            (ClaimName::Personal, "personal", "true"),
            (ClaimName::Data, "data", ""),
            (ClaimName::Subjects, "subjects", "DE"),
            (ClaimName::SubjectCount, "subject-count", "3"),
            (ClaimName::Purpose, "purpose", "dpv:CustomerCare"),
            (ClaimName::Audience, "audience", "DE"),
            (ClaimName::Location, "location", "DE"),
        ];
        let claims: BTreeMap<String, String> =
            all.iter().map(|(_, name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        for (claim, name, _) in all {
            assert_eq!(header(claim), name);
            let of_app = AppClaims { required: [claim].into(), ..AppClaims::default() };
            assert!(all_said(&claims, &of_app).is_ok(), "{name}");
            let mut others = claims.clone();
            others.remove(name);
            assert!(all_said(&others, &of_app).is_err(), "{name}");
            others.insert(name.to_owned(), String::new());
            assert_eq!(all_said(&others, &of_app).is_ok(), claim == ClaimName::Data, "{name}");
        }
    }

    #[test]
    fn contradictions_and_misspellings_are_refused() {
        for (headers, body) in [
            (
                vec![("x-lexgate-subjects", "DE")],
                r#"{"model":"m","metadata":{"lexgate_subjects":"SA"}}"#,
            ),
            (vec![("x-lexgate-subject", "DE")], r#"{"model":"m"}"#),
            (vec![("x-lexgate-personal", "no")], r#"{"model":"m"}"#),
            (
                vec![("x-lexgate-personal", "true"), ("x-lexgate-subject-count", "many")],
                r#"{"model":"m"}"#,
            ),
            (
                vec![("x-lexgate-personal", "true"), ("x-lexgate-personal", "false")],
                r#"{"model":"m"}"#,
            ),
            (vec![], r#"{"model":"m","metadata":{"lexgate_subjects":["DE",7]}}"#),
            (vec![], r#"{"model":"m","metadata":{"lexgate_subjects":["DE,SA"]}}"#),
            (vec![], r#"{"model":"m","metadata":{"lexgate_purpose":["dpv:Advertising"]}}"#),
            (vec![], r#"{"model":"m","metadata":{"lexgate_subjects":true}}"#),
            (vec![], r#"{"model":"m","metadata":{"lexgate_personal":0}}"#),
            (vec![], r#"{"model":"m","metadata":{"lexgate_personal":null}}"#),
            (vec![], r#"{"model":"m","metadata":{"lexgate_subject_count":1.5}}"#),
            // Objects of which one reader sees another thing than the next, or nothing.
            (vec![], r#"{"model":"m","metadata":{"lexgate_subjects":"DE","\ud800":"x"}}"#),
            (vec![], r#"{"model":"m","metadata":{"lexgate_subjects":"DE","a":1,"a":1e999}}"#),
            (
                vec![],
                r#"{"model":"m","metadata":{"lexgate_personal":"true","lexgate_subject_count":"500","lexgate_subject-count":"1"}}"#,
            ),
            // What some reader would take for a claim, or for another name.
            (vec![], r#"{"model":"m","metadata":{"LEXGATE_subjects":"DE"}}"#),
            (vec![], r#"{"model":"m","metadata":{" lexgate-subjects":"DE"}}"#),
            (vec![], r#"{"model":"m","metadata":{"lexgate":"DE"}}"#),
            (vec![], r#"{"model":"m","metadata":{"team":"a","Team":"b"}}"#),
        ] {
            assert!(take_from(&headers, body).0.is_err(), "{headers:?} {body}");
        }
    }
}
