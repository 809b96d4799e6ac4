//! Bodies of backends, or of proxies in front of them, that compress although they were asked not to
//! (RFC 9110, section 8.4). How much of what comes out is taken is bounded where it is read.

use std::io;

use async_compression::{
    tokio::bufread::{BrotliDecoder, DeflateDecoder, GzipDecoder, ZlibDecoder, ZstdDecoder},
    zstd::DParameter,
};
use bytes::Bytes;
use futures_util::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use tokio::{
    io::{AsyncBufRead, AsyncRead},
    task::yield_now,
};
use tokio_util::io::{ReaderStream, StreamReader};

use super::SendError;

type Body = BoxStream<'static, Result<Bytes, SendError>>;

/// How many codings may lie over each other: each takes memory of its own.
const MOST_CODINGS: usize = 2;
/// The window that a reader of zstd must have, and no larger one (RFC 9659): 8 MiB.
const ZSTD_WINDOW_LOG: u32 = 23;
/// In pieces of which size what comes out is handed on.
const PIECE: usize = 16 << 10;

/// What `body` holds, to which the codings of the header values `codings` were applied in their order. A
/// coding that is not known is an error in place of the body.
pub(super) fn decoded<'a>(body: Body, codings: impl Iterator<Item = &'a str>) -> Body {
    let codings = codings.flat_map(|value| value.split(','));
    let codings = codings.map(|coding| coding.trim().to_ascii_lowercase());
    let applied: Vec<String> =
        codings.filter(|coding| !coding.is_empty() && coding != "identity").collect();
    if applied.len() > MOST_CODINGS {
        return unknown(&applied.join(", "));
    }
    applied.iter().rev().fold(body, |body, coding| match coding.as_str() {
        "gzip" | "x-gzip" => {
            let mut decoder = GzipDecoder::new(reader(body));
            decoder.multiple_members(true);
            pieces(decoder)
        }
        "deflate" => inflated(body),
        "br" => unbrotli(body),
        "zstd" => {
            let window = [DParameter::window_log_max(ZSTD_WINDOW_LOG)];
            let mut decoder = ZstdDecoder::with_params(reader(body), &window);
            decoder.multiple_members(true);
            pieces(decoder)
        }
        coding => unknown(coding),
    })
}

fn unknown(coding: &str) -> Body {
    let coding: String = coding.chars().take(64).collect();
    stream::iter([Err(SendError::Coding(format!(
        "its `Content-Encoding` `{coding}` is not supported"
    )))])
    .boxed()
}

/// `deflate` means a zlib stream, and some send the bare one (RFC 9110, section 8.4.1.2): its beginning
/// tells them apart.
fn inflated(body: Body) -> Body {
    by_beginning(body, |start, body| {
        if start.is_empty() || is_zlib(start) {
            pieces(ZlibDecoder::new(reader(body)))
        } else {
            pieces(DeflateDecoder::new(reader(body)))
        }
    })
}

/// Brotli, with a window of 16 MiB at most.
fn unbrotli(body: Body) -> Body {
    by_beginning(body, |start, body| {
        if is_large_brotli(start) {
            let error = "its window is larger than the 16 MiB of RFC 7932".to_owned();
            return stream::iter([Err(SendError::Coding(error))]).boxed();
        }
        pieces(BrotliDecoder::new(reader(body)))
    })
}

/// What `decode` makes of `body`, of which it sees the first bytes beside.
fn by_beginning(mut body: Body, decode: impl FnOnce(&[u8], Body) -> Body + Send + 'static) -> Body {
    let told = async move {
        let first = loop {
            match body.next().await {
                Some(Ok(piece)) if piece.is_empty() => {}
                first => break first,
            }
        };
        let start = first.as_ref().and_then(|first| first.as_ref().ok()).cloned();
        decode(&start.unwrap_or_default(), stream::iter(first).chain(body).boxed())
    };
    stream::once(told).flatten().boxed()
}

/// Whether a text is in zlib's format (RFC 1950, section 2.2), and not bare.
#[must_use]
pub(crate) fn is_zlib(body: &[u8]) -> bool {
    match body {
        [method] => method & 0x0f == 8,
        [method, flags, ..] => {
            method & 0x0f == 8 && (u16::from(*method) << 8 | u16::from(*flags)).is_multiple_of(31)
        }
        [] => false,
    }
}

/// Whether a stream of brotli has a window beyond its specification (RFC 7932, section 9.1), which the
/// decoder would take: up to a gibibyte.
#[must_use]
pub(crate) fn is_large_brotli(body: &[u8]) -> bool {
    body.first().is_some_and(|first| first & 0x7f == 0x11)
}

fn reader(body: Body) -> impl AsyncBufRead + Send + Unpin + 'static {
    StreamReader::new(body.map_err(io::Error::other))
}

fn pieces(reader: impl AsyncRead + Send + 'static) -> Body {
    let pieces = ReaderStream::with_capacity(reader, PIECE).map_err(cause);
    // What has come may hold much: others have their turn meanwhile, and time-outs are looked at.
    pieces
        .then(async |piece| {
            yield_now().await;
            piece
        })
        .boxed()
}

/// What went wrong on the way is handed through a reader as it is; anything else is the coding's.
fn cause(error: io::Error) -> SendError {
    let text = error.to_string();
    let cause = error.into_inner().and_then(|inner| inner.downcast::<SendError>().ok());
    cause.map_or(SendError::Coding(text), |cause| *cause)
}

/// A text as the named encoder compresses it.
#[cfg(test)]
macro_rules! compressed {
    ($encoder:ident, $text:expr) => {{
        let mut encoder = $encoder::new(Vec::new());
        encoder.write_all($text).await.unwrap();
        encoder.shutdown().await.unwrap();
        encoder.into_inner()
    }};
}
#[cfg(test)]
pub(crate) use compressed;

#[cfg(test)]
mod tests {
    use async_compression::tokio::write::{
        BrotliEncoder, DeflateEncoder, GzipEncoder, ZlibEncoder, ZstdEncoder,
    };
    use tokio::io::AsyncWriteExt;

    use super::*;

    const TEXT: &str = "data: {\"n\":1}\n\ndata: [DONE]\n\n";

    /// What comes out of `bytes`, which arrive in pieces of `size`.
    async fn read(bytes: &[u8], size: usize, coding: &str) -> Result<Vec<u8>, SendError> {
        let pieces: Vec<_> =
            bytes.chunks(size).map(|one| Ok(Bytes::copy_from_slice(one))).collect();
        let body = decoded(stream::iter(pieces).boxed(), [coding].into_iter());
        Ok(body.try_collect::<Vec<Bytes>>().await?.concat())
    }

    #[tokio::test]
    async fn each_coding_is_undone_however_it_is_cut() {
        let text = TEXT.as_bytes();
        let twice = compressed!(BrotliEncoder, &compressed!(GzipEncoder, text));
        for (coding, bytes) in [
            ("gzip", compressed!(GzipEncoder, text)),
            ("X-GZIP", compressed!(GzipEncoder, text)),
            ("deflate", compressed!(ZlibEncoder, text)),
            ("deflate", compressed!(DeflateEncoder, text)),
            ("br", compressed!(BrotliEncoder, text)),
            ("zstd", compressed!(ZstdEncoder, text)),
            ("identity, gzip", compressed!(GzipEncoder, text)),
            ("gzip, br", twice),
            ("identity", text.to_vec()),
            ("", text.to_vec()),
        ] {
            for size in [1, 7, 4096] {
                assert_eq!(read(&bytes, size, coding).await.unwrap(), text, "{coding} {size}");
            }
            if coding.len() > 1 && coding != "identity" {
                let cut = read(&bytes[..bytes.len() - 6], 9, coding).await;
                assert!(matches!(cut, Err(SendError::Coding(_))), "{coding}: {cut:?}");
                let garbage = read(&[0xff; 99], 9, coding).await;
                assert!(matches!(garbage, Err(SendError::Coding(_))), "{coding}: {garbage:?}");
            }
        }
        let large = read(&[0x11, 0x1e, 0, 0], 9, "br").await;
        assert!(matches!(large, Err(SendError::Coding(_))), "a large window: {large:?}");
        for coding in ["gzip", "deflate", "br", "zstd"] {
            let nothing = read(b"", 9, coding).await;
            assert!(!matches!(nothing, Ok(bytes) if !bytes.is_empty()), "{coding}");
        }
        for unknown in ["compress", "gzip, sdch", "gzip, gzip, gzip"] {
            let refused = read(text, 9, unknown).await.unwrap_err().to_string();
            assert!(refused.contains('`'), "{refused}");
        }
    }

    #[tokio::test]
    async fn an_event_comes_out_before_the_next_one_is_written() {
        macro_rules! first {
            ($encoder:ident) => {{
                let mut encoder = $encoder::new(Vec::new());
                encoder.write_all(TEXT.as_bytes()).await.unwrap();
                encoder.flush().await.unwrap();
                encoder.get_ref().clone()
            }};
        }
        let codings = [
            ("gzip", first!(GzipEncoder)),
            ("deflate", first!(ZlibEncoder)),
            ("br", first!(BrotliEncoder)),
            ("zstd", first!(ZstdEncoder)),
        ];
        for (coding, bytes) in codings {
            let body = stream::iter([Ok(Bytes::from(bytes))]).chain(stream::pending());
            let mut body = decoded(body.boxed(), [coding].into_iter());
            let mut read = Vec::new();
            while read.len() < TEXT.len() {
                read.extend_from_slice(&body.next().await.unwrap().unwrap());
            }
            assert_eq!(read, TEXT.as_bytes(), "{coding}");
        }
    }

    #[tokio::test]
    async fn the_way_s_own_errors_stay_what_they_are() {
        let body = stream::iter([Err(SendError::Timeout("next piece"))]).boxed();
        let mut body = decoded(body, ["gzip"].into_iter());
        assert!(matches!(body.next().await, Some(Err(SendError::Timeout("next piece")))));
        assert!(body.next().await.is_none());
    }
}
