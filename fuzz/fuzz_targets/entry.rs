//! Entries, a line each: what is canonical is JSON, and another implementation of RFC 8785 writes the
//! same bytes; what reads as an entry is canonical, and is sealed as the same bytes; an examiner that
//! remembers bodies sees what one sees that knows nothing.
#![no_main]

use lexgate::ledger::{Entry, Envelope, Examined, Examiner, canonical, leaf_of, seal};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, value::RawValue};

/// How the keys begin that `serde_json` gives a meaning to, in a `Value` alone.
const THEIRS: &[u8] = b"$serde_json::private::";

fuzz_target!(|bytes: &[u8]| {
    let mut examiner = Examiner::default();
    for line in bytes.split(|byte| *byte == b'\n') {
        let is_canonical = canonical::check(line).is_ok();
        if is_canonical {
            is_what_others_write(line);
        }
        let examined = examiner.examine(line).ok();
        let afresh = Examiner::default().examine(line).ok();
        assert_eq!(format!("{examined:?}"), format!("{afresh:?}"));
        match Entry::parse(line) {
            Ok(entry) => {
                assert!(is_canonical);
                is_sealed_so(&entry, line, examined.as_ref());
            }
            Err(_) => assert!(examined.is_none()),
        }
    }
});

fn is_what_others_write(text: &[u8]) {
    serde_json::from_slice::<&RawValue>(text).expect("what is canonical is JSON");
    if !text.windows(THEIRS.len()).any(|part| part == THEIRS) {
        let value: Value = serde_json::from_slice(text).expect("what is canonical is JSON");
        let written = serde_json_canonicalizer::to_vec(&value).expect("a value can be written");
        assert_eq!(written, text);
    }
}

fn is_sealed_so(entry: &Entry<'_>, text: &[u8], examined: Option<&Examined>) {
    let envelope = Envelope {
        id: entry.id,
        kind: &entry.kind,
        log: &entry.log,
        prev: entry.prev,
        seq: entry.seq,
        ts: entry.ts,
    };
    let (sealed, leaf) = seal(&envelope, entry.body.get().as_bytes());
    assert_eq!(sealed, text);
    assert_eq!(leaf, leaf_of(text));
    if let Some(examined) = examined {
        assert_eq!((examined.leaf, examined.prev), (leaf, entry.prev));
    }
}
