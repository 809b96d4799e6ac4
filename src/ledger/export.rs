//! Entries as static files: the entry bundles of C2SP tlog-tiles. Pure bytes and names; reading and
//! writing the files is for the caller.

/// How many entries a full bundle holds.
pub const BUNDLE_WIDTH: usize = 256;

/// The bytes are not an entry bundle, or the entries do not fit into one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// More than [`BUNDLE_WIDTH`] entries.
    #[error("more than {BUNDLE_WIDTH} entries in one bundle")]
    TooMany,
    /// An entry that is too long for its length prefix.
    #[error("entry {0} of the bundle is longer than 65535 bytes")]
    TooLong(usize),
    /// The bundle ends within an entry.
    #[error("the bundle ends within its entry {0}")]
    Truncated(usize),
}

/// Where bundle `n` lies, which holds the entries from `256 * n` on: `tile/entries/x001/234`, or
/// `tile/entries/x001/234.p/17` while it has only 17 of them.
#[must_use]
pub fn bundle_path(n: u64, width: usize) -> String {
    let mut path = format!("{:03}", n % 1000);
    let mut rest = n / 1000;
    while rest > 0 {
        path = format!("x{:03}/{path}", rest % 1000);
        rest /= 1000;
    }
    if width < BUNDLE_WIDTH {
        format!("tile/entries/{path}.p/{width}")
    } else {
        format!("tile/entries/{path}")
    }
}

/// The bundle of `entries`: before each, its length as a big-endian `u16`.
///
/// # Errors
/// When there are more than 256, or one is longer than 65,535 bytes.
pub fn write_bundle<T: AsRef<[u8]>>(entries: &[T]) -> Result<Vec<u8>, BundleError> {
    if entries.len() > BUNDLE_WIDTH {
        return Err(BundleError::TooMany);
    }
    let mut bundle = Vec::with_capacity(entries.iter().map(|e| e.as_ref().len() + 2).sum());
    for (n, entry) in entries.iter().enumerate() {
        let entry = entry.as_ref();
        let length = u16::try_from(entry.len()).map_err(|_| BundleError::TooLong(n))?;
        bundle.extend_from_slice(&length.to_be_bytes());
        bundle.extend_from_slice(entry);
    }
    Ok(bundle)
}

/// The entries of a bundle.
///
/// # Errors
/// When it ends within an entry, or holds more than 256.
pub fn read_bundle(mut bundle: &[u8]) -> Result<Vec<&[u8]>, BundleError> {
    let mut entries = Vec::new();
    while !bundle.is_empty() {
        let n = entries.len();
        if n == BUNDLE_WIDTH {
            return Err(BundleError::TooMany);
        }
        let (length, rest) = bundle.split_first_chunk().ok_or(BundleError::Truncated(n))?;
        let length = usize::from(u16::from_be_bytes(*length));
        let (entry, rest) = rest.split_at_checked(length).ok_or(BundleError::Truncated(n))?;
        entries.push(entry);
        bundle = rest;
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_bundle_lies_where_the_specification_says() {
        assert_eq!(bundle_path(0, 256), "tile/entries/000");
        assert_eq!(bundle_path(67, 256), "tile/entries/067");
        assert_eq!(bundle_path(1_234, 17), "tile/entries/x001/234.p/17");
        assert_eq!(bundle_path(1_234_067, 256), "tile/entries/x001/x234/067");
        assert_eq!(bundle_path(1_000, 1), "tile/entries/x001/000.p/1");
    }

    #[test]
    fn a_bundle_is_length_and_bytes() {
        assert_eq!(write_bundle(&[b"ab".as_slice(), b""]).unwrap(), b"\x00\x02ab\x00\x00");
        assert_eq!(write_bundle(&vec![b""; 257]), Err(BundleError::TooMany));
        assert_eq!(write_bundle(&[vec![0; 65_536]]), Err(BundleError::TooLong(0)));
        assert_eq!(read_bundle(b"\x00\x02ab\x00"), Err(BundleError::Truncated(1)));
        assert_eq!(read_bundle(b"\x00\x02a"), Err(BundleError::Truncated(0)));
        assert_eq!(read_bundle(&[0; 514]), Err(BundleError::TooMany));
    }

    proptest! {
        #[test]
        fn a_bundle_reads_as_it_was_written(
            entries in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..=256),
        ) {
            let bundle = write_bundle(&entries).unwrap();
            prop_assert_eq!(read_bundle(&bundle).unwrap(), entries);
        }
    }
}
