//! Spans, and their place in the caller's trace. Not where they go (`otlp`), and never what a call says:
//! neither prompts nor answers, nor whom or what the data is about.

use std::collections::HashMap;

use opentelemetry::{
    Context,
    propagation::{Extractor, TextMapPropagator},
};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::{Span, field::Empty, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// The target of the spans that are exported. No log shows them.
pub(crate) const TARGET: &str = "lexgate::trace";

/// The two headers of the W3C Trace Context.
const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";
/// How long a `traceparent` of the first version is, and its version.
const PARENT_LENGTH: usize = 55;
const VERSION_LENGTH: usize = 2;
/// How long a `tracestate` may be; the recommendation asks for at least as much.
const LONGEST_STATE: usize = 512;

/// Methods that a span may name: others could be anything that somebody typed.
const METHODS: [&str; 9] =
    ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

/// Where a request stands in a trace, as the W3C Trace Context writes it in headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    parent: String,
    state: Option<String>,
}

impl TraceContext {
    /// Reads the values of `traceparent` and `tracestate`. A malformed parent is none, and so are two;
    /// a malformed state is left out.
    pub fn read<'a>(
        parents: impl IntoIterator<Item = &'a str>,
        states: impl IntoIterator<Item = &'a str>,
    ) -> Option<Self> {
        let mut parents = parents.into_iter();
        let parent = parents.next().filter(|parent| is_parent(parent))?;
        if parents.next().is_some() {
            return None;
        }
        let state = states.into_iter().collect::<Vec<_>>().join(",");
        let state = Some(state).filter(|state| is_state(state));
        // What a later version adds is text of the caller's own, and not handed on.
        let ids = parent.get(VERSION_LENGTH..PARENT_LENGTH)?;
        Some(Self { parent: ["00", ids].concat(), state })
    }

    /// Where `span` stands; `None` for one that nobody exports.
    fn of(span: &Span) -> Option<Self> {
        let mut headers = HashMap::new();
        TraceContextPropagator::new().inject_context(&span.context(), &mut headers);
        let parent = headers.remove(TRACEPARENT)?;
        let state = headers.remove(TRACESTATE).filter(|state| !state.is_empty());
        Some(Self { parent, state })
    }

    /// The header that tells it to a backend: identifiers alone. `tracestate` holds text of the caller's
    /// own, which goes no further than to the organisation's collector.
    #[must_use]
    pub fn header(&self) -> (&'static str, &str) {
        (TRACEPARENT, &self.parent)
    }

    fn both(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let state = self.state.iter().map(|state| (TRACESTATE, state.as_str()));
        std::iter::once(self.header()).chain(state)
    }

    fn context(&self) -> Context {
        TraceContextPropagator::new().extract_with_context(&Context::new(), self)
    }
}

impl Extractor for TraceContext {
    fn get(&self, key: &str) -> Option<&str> {
        self.both().find_map(|(name, value)| (name == key).then_some(value))
    }

    fn keys(&self) -> Vec<&str> {
        self.both().map(|(name, _)| name).collect()
    }
}

/// Whether `text` is a `traceparent`: version, trace, parent and flags in lower-case hexadecimal. What a
/// version after the first adds at the end is not looked at (W3C Trace Context, 3.2 and 3.2.3).
fn is_parent(text: &str) -> bool {
    let mut parts = text.split('-');
    let mut field = |length: usize| {
        parts.next().filter(|part| {
            part.len() == length
                && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        })
    };
    let (version, trace, parent, flags) = (field(2), field(32), field(16), field(2));
    let is_set = |id: Option<&str>| id.is_some_and(|id| id.bytes().any(|byte| byte != b'0'));
    let fits = match version {
        None | Some("ff") => false,
        Some("00") => parts.next().is_none(),
        Some(_) => true,
    };
    let is_text = text.len() <= LONGEST_STATE && text.bytes().all(|byte| byte.is_ascii_graphic());
    fits && is_text && is_set(trace) && is_set(parent) && flags.is_some()
}

/// Whether `text` is a `tracestate`: up to 32 vendors' words, each under a name of its own (3.3.1).
fn is_state(text: &str) -> bool {
    let is_text = text.bytes().all(|byte| byte == b'\t' || (b' '..=b'~').contains(&byte));
    let mut members = text.split(',').map(|member| member.trim_matches([' ', '\t']));
    let is_member = |member: &str| {
        let letter = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-*/@".contains(&byte)
        };
        member.split_once('=').is_some_and(|(name, value)| {
            !name.is_empty() && name.bytes().all(letter) && !value.is_empty()
        })
    };
    let fits = (1..=LONGEST_STATE).contains(&text.len()) && members.clone().count() <= 32;
    is_text && fits && members.all(is_member)
}

/// A request to this service, as its trace sees it.
#[derive(Clone, Debug)]
pub struct Trace {
    span: Span,
    caller: Option<TraceContext>,
}

impl Default for Trace {
    /// A request that no trace knows.
    fn default() -> Self {
        Self { span: Span::none(), caller: None }
    }
}

impl Trace {
    /// Begins the span of a request for `route`, the pattern of its path, in the caller's trace.
    pub(crate) fn begin(method: &str, route: Option<&str>, caller: Option<TraceContext>) -> Self {
        let method = METHODS.into_iter().find(|known| *known == method).unwrap_or("_OTHER");
        let span = info_span!(
            target: TARGET,
            parent: None,
            "request",
            otel.name = route.map_or(method.to_owned(), |route| format!("{method} {route}")),
            otel.kind = "server",
            otel.status_code = Empty,
            http.request.method = method,
            http.route = route,
            // A path that is no pattern holds what somebody typed, such as who a person is.
            url.path = route.filter(|route| !route.contains('{')),
            url.scheme = "http",
            http.response.status_code = Empty,
            "error.type" = Empty,
        );
        if !span.is_disabled()
            && let Some(caller) = &caller
        {
            // It was made just now, so it can still be given a parent.
            let _ = span.set_parent(caller.context());
        }
        Self { span, caller }
    }

    /// The request's span, whose children are what it led to.
    pub(crate) fn span(&self) -> &Span {
        &self.span
    }

    /// Notes the status of the answer.
    pub(crate) fn answered(&self, status: u16) {
        self.span.record("http.response.status_code", i64::from(status));
        if status >= 500 {
            fail(&self.span, &status.to_string());
        }
    }

    /// What a request that belongs to `span` is sent on with: its own place where spans are exported,
    /// else the caller's, so that a trace goes on through Lexgate.
    pub(crate) fn onward(&self, span: &Span) -> Option<TraceContext> {
        TraceContext::of(span).or_else(|| self.caller.clone())
    }
}

/// Notes on `span` that it failed, and how: a word out of few.
pub(crate) fn fail(span: &Span, why: &str) {
    span.record("error.type", why);
    span.record("otel.status_code", "error");
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn read(parents: &[&str], states: &[&str]) -> Option<Vec<(&'static str, String)>> {
        let read = TraceContext::read(parents.iter().copied(), states.iter().copied())?;
        Some(read.both().map(|(name, value)| (name, value.to_owned())).collect())
    }

    #[test]
    fn what_is_well_formed_is_continued() {
        let parent = ("traceparent", PARENT.to_owned());
        assert_eq!(read(&[PARENT], &[]), Some(vec![parent.clone()]));
        let both = Some(vec![parent.clone(), ("tracestate", "a=1,b=2".to_owned())]);
        assert_eq!(read(&[PARENT], &["a=1", "b=2"]), both);
        let later = "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-09-more";
        let first = PARENT.replace("-01", "-09");
        assert_eq!(read(&[later], &[]), Some(vec![("traceparent", first)]));
        let context = TraceContext::read([PARENT], ["a=1"]).unwrap();
        assert_eq!(context.header(), ("traceparent", PARENT));
        // A state that is none costs nobody the trace.
        let long = format!("a={}", "x".repeat(LONGEST_STATE));
        for state in ["", "a", "=", "a=", "A=1", "a=1,,", "a=\u{7f}", &long] {
            assert_eq!(read(&[PARENT], &[state]), Some(vec![parent.clone()]), "{state}");
        }
    }

    #[test]
    fn what_is_malformed_is_dropped() {
        for parent in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "0-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-a b",
            " 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(read(&[parent], &["a=1"]), None, "{parent}");
        }
        assert_eq!(read(&[], &["a=1"]), None);
        assert_eq!(read(&[PARENT, PARENT], &[]), None, "which of the two?");
    }

    #[test]
    fn a_span_that_nobody_exports_passes_the_caller_s_place_on() {
        let caller = TraceContext::read([PARENT], []);
        let trace = Trace::begin("GET", None, caller.clone());
        assert!(trace.span().is_disabled());
        assert_eq!(trace.onward(trace.span()), caller);
        assert_eq!(Trace::default().onward(&Span::none()), None);
    }
}
