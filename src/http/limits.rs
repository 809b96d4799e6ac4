//! The headers in which clients read how far limits are used: OpenAI's names, and Anthropic's for
//! `/v1/messages`.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use jiff::SignedDuration;

use crate::{
    dispatch::Endpoint,
    domain::{LimitState, Measure},
};

/// As [`tell_sdk`], under the names that most SDKs read.
pub(super) fn tell(headers: &mut HeaderMap, limits: &[LimitState]) {
    tell_sdk(headers, Endpoint::ChatCompletions, limits);
}

/// Adds what is known of the limits: of requests and of tokens the one of which least is left.
pub(super) fn tell_sdk(headers: &mut HeaderMap, endpoint: Endpoint, limits: &[LimitState]) {
    for measure in [Measure::Requests, Measure::Tokens] {
        let of_it = limits.iter().filter(|state| state.limit.measure == measure);
        let Some(state) = of_it.min_by_key(|state| state.remaining()) else { continue };
        for (name, text) in names(endpoint, state) {
            let name = HeaderName::try_from(name);
            if let (Ok(name), Ok(value)) = (name, HeaderValue::try_from(text)) {
                headers.insert(name, value);
            }
        }
    }
}

fn names(endpoint: Endpoint, state: &LimitState) -> [(String, String); 3] {
    let what = state.limit.measure.as_str();
    let (most, remaining) = (state.limit.most.to_string(), state.remaining().to_string());
    if endpoint.is_anthropics() {
        let until = state.limit.until.map(|until| until.to_string()).unwrap_or_default();
        let name = |part: &str| format!("anthropic-ratelimit-{what}-{part}");
        return [(name("limit"), most), (name("remaining"), remaining), (name("reset"), until)];
    }
    let reset = written(state.resets_in().unwrap_or_default());
    let name = |part: &str| format!("x-ratelimit-{part}-{what}");
    [(name("limit"), most), (name("remaining"), remaining), (name("reset"), reset)]
}

/// A duration as OpenAI writes it: `6m0s`, `1s`, `250ms`.
fn written(duration: SignedDuration) -> String {
    let millis = duration.as_millis();
    if millis < 1_000 {
        return format!("{millis}ms");
    }
    let seconds = millis / 1_000;
    match (seconds / 3_600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m{seconds}s"),
        (hours, minutes, seconds) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_sdks_read_them() {
        let written = |millis| written(SignedDuration::from_millis(millis));
        assert_eq!([0, 250, 1_000, 59_900].map(written), ["0ms", "250ms", "1s", "59s"]);
        assert_eq!([60_000, 360_000, 90_061_000].map(written), ["1m0s", "6m0s", "25h1m1s"]);
    }
}
