//! What was probably meant by a name that is not known. Proposes, never replaces: a name that is
//! refused stays refused.

/// Longer names are not compared letter by letter: comparing takes the product of both lengths.
const LONGEST: usize = 100;
/// The fewest letters of a part that is looked for inside other names.
const SHORTEST_PART: usize = 4;

/// How far a known name is from the one that was written; the least is the nearest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Distance {
    /// Only capitals and separators differ.
    Spelling,
    /// So they do behind the known name's prefix: `Health` for `dpv-pd:Health`.
    Prefix,
    /// So many letters differ.
    Letters(usize),
    /// The known name, so many letters longer, has it as a part.
    Part(usize),
}

/// The known name that `name` was probably meant to be; of several that are equally near, the first in
/// the order of the alphabet. `None` where none is near, or `name` itself is known.
pub fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let folded = fold(name);
    if folded.is_empty() {
        return None;
    }
    let mut best: Option<(Distance, &'a str)> = None;
    for candidate in known {
        if candidate == name {
            return None;
        }
        let Some(distance) = distance(&folded, candidate) else { continue };
        if best.is_none_or(|best| (distance, candidate) < best) {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// The end of a sentence about the unknown name `name`: ``: did you mean `x`?``, or nothing where none is
/// near.
pub fn did_you_mean<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    nearest(name, known).map(|known| format!(": did you mean `{known}`?")).unwrap_or_default()
}

fn distance(folded: &str, candidate: &str) -> Option<Distance> {
    let whole = fold(candidate);
    if whole == folded {
        return Some(Distance::Spelling);
    }
    let local = candidate.split_once(':').map(|(_, local)| fold(local));
    if local.as_deref() == Some(folded) {
        return Some(Distance::Prefix);
    }
    if folded.len() > LONGEST || whole.len() > LONGEST {
        return None;
    }
    let most = forgiven(folded.chars().count());
    let letters = |other: &str| match folded.len().abs_diff(other.len()) {
        // A letter takes up to four bytes.
        apart if apart > 4 * most => usize::MAX,
        _ => strsim::damerau_levenshtein(folded, other),
    };
    let fewest = letters(&whole).min(local.as_deref().map_or(usize::MAX, letters));
    if fewest <= most {
        return Some(Distance::Letters(fewest));
    }
    let is_part = folded.len() >= SHORTEST_PART && whole.contains(folded);
    is_part.then(|| Distance::Part(whole.len() - folded.len()))
}

/// How many letters may differ in a name of `length` letters. None in the shortest: a code of two letters
/// is as near to fifty others.
const fn forgiven(length: usize) -> usize {
    match length {
        0..4 => 0,
        4..8 => 1,
        8..14 => 2,
        _ => 3,
    }
}

/// Without capitals and separators, which people remember least.
fn fold(name: &str) -> String {
    let letters = name.chars().filter(|c| !matches!(c, '-' | '_' | '.' | ' '));
    letters.flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 10] = [
        "dpv-pd:Health",
        "dpv-pd:MentalHealth",
        "dpv:CustomerSupport",
        "eu-gdpr-44",
        "eu-gdpr-46",
        "support-copilot",
        "decision",
        "audit_read",
        "DE",
        "EE",
    ];

    #[test]
    fn a_slip_leads_to_what_was_meant() {
        for (name, meant) in [
            ("Health", "dpv-pd:Health"),
            ("dpv:Health", "dpv-pd:Health"),
            ("Helth", "dpv-pd:Health"),
            ("mental health", "dpv-pd:MentalHealth"),
            ("dpv:CustmerSupport", "dpv:CustomerSupport"),
            ("customer_support", "dpv:CustomerSupport"),
            ("eu-gdpr-45", "eu-gdpr-44"),
            ("suport-copilot", "support-copilot"),
            ("Support-Copilot", "support-copilot"),
            ("copilot", "support-copilot"),
            ("decisions", "decision"),
            ("auditread", "audit_read"),
            ("de", "DE"),
        ] {
            assert_eq!(nearest(name, KNOWN.into_iter()), Some(meant), "{name}");
        }
    }

    #[test]
    fn what_is_near_to_nothing_or_known_leads_nowhere() {
        let long = "x".repeat(5000);
        for name in ["", "-", "EU", "UK", "nope", "x:us-phi", "DE", "eu-gdpr-44", &long] {
            assert_eq!(nearest(name, KNOWN.into_iter()), None, "{name}");
        }
    }

    #[test]
    fn the_end_of_a_sentence_is_there_or_empty() {
        let says = did_you_mean("decisions", KNOWN.into_iter());
        assert_eq!(says, ": did you mean `decision`?");
        assert_eq!(did_you_mean("nope", KNOWN.into_iter()), "");
    }
}
