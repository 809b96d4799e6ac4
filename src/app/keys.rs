//! Which keys may sign a log that there is already.

use crate::{gate::LogKey, ledger::Signer};

/// What is wrong with the keys, and what to do.
pub(super) type KeyFault = (String, &'static str);

/// The first of `signer`'s keys must be the log's newest. A former one may sign beside it until it is
/// retired, and never in its place: what a stolen or superseded key signs alone is not the log's.
pub(super) fn check(keys: &[LogKey], signer: &Signer) -> Result<(), KeyFault> {
    let mut signing = signer.verifiers().iter().map(ToString::to_string);
    let (Some(first), Some(newest)) = (signing.next(), keys.last()) else { return Ok(()) };
    let known = |vkey: &str| keys.iter().position(|key| key.vkey == vkey);
    let Some(at) = known(&first) else {
        let opened = keys.first().map(|key| key.vkey.clone()).unwrap_or_default();
        return Err((
            format!("the log was opened with the key `{opened}`; this one is `{first}`"),
            "restore the log's key from its backup",
        ));
    };
    if let Some(next) = keys.get(at + 1) {
        return Err((
            format!(
                "the key `{first}` was superseded by `{}` in record {}, and signs the log no more",
                next.vkey, next.from_seq
            ),
            "put the log's newest key in its place; where a change of key was cut off, `lexgate keys rotate` finishes it",
        ));
    }
    for former in signing {
        let retired = known(&former).and_then(|at| keys.get(at)).map(|key| key.retired);
        match retired {
            Some(None) if former != newest.vkey => {}
            Some(Some(seq)) => {
                return Err((
                    format!(
                        "the former key `{former}` was retired in record {seq}, and signs the log no more"
                    ),
                    "`lexgate keys retire` removes its file",
                ));
            }
            _ => {
                return Err((
                    format!("the former key `{former}` is not a former key of the log"),
                    "remove its file, beside that of the key",
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use ring::rand::SystemRandom;

    use super::*;
    use crate::{
        domain::Seq,
        ledger::{Origin, SigningKey},
    };

    #[test]
    fn only_the_newest_key_signs_alone() {
        let origin: Origin = "lexgate.example/main".parse().unwrap();
        let made = || SigningKey::generate(&SystemRandom::new()).unwrap();
        let der = [made(), made(), made(), made()];
        let signer = |keys: &[usize]| {
            let keys = keys.iter().map(|n| SigningKey::from_pkcs8(&der[*n]).unwrap());
            Signer::new(origin.clone(), keys.collect())
        };
        let log_key = |n: usize, retired: Option<u64>| LogKey {
            vkey: signer(&[n]).verifiers()[0].to_string(),
            from_seq: Seq::new(10 * n as u64),
            retired: retired.map(Seq::new),
        };
        let log = [log_key(0, Some(25)), log_key(1, None), log_key(2, None)];
        for right in [&[2][..], &[2, 1]] {
            assert_eq!(check(&log, &signer(right)), Ok(()), "{right:?}");
        }
        for (wrong, why) in [
            (&[3][..], "the log was opened with the key"),
            (&[1], "in record 20"),
            (&[0], "in record 10"),
            (&[1, 2], "was superseded"),
            (&[2, 0], "was retired in record 25"),
            (&[2, 3], "is not a former key of the log"),
            (&[2, 2], "is not a former key of the log"),
        ] {
            let (message, _) = check(&log, &signer(wrong)).unwrap_err();
            assert!(message.contains(why), "{wrong:?}: {message}");
        }
    }
}
