//! Compressed bodies of requests: decoded within the bounds of any other body, or refused with what is
//! taken.

use std::io;

use async_compression::{
    tokio::bufread::{BrotliDecoder, DeflateDecoder, GzipDecoder, ZlibDecoder, ZstdDecoder},
    zstd::DParameter,
};
use axum::{
    body::Bytes,
    http::{HeaderMap, header},
};
use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    task::yield_now,
};

use super::problem::{Problem, ProblemKind, TAKEN};
use crate::{
    dispatch::encoding::{is_large_brotli, is_zlib},
    gate::Room,
};

/// The window that a reader of zstd must have, and no larger one (RFC 9659): 8 MiB.
const ZSTD_WINDOW_LOG: u32 = 23;
/// How many parts a body may be compressed in, one by one: each begins anew.
const MOST_PARTS: usize = 256;
/// In which steps room is taken for a body that does not say how long it is.
pub(super) const STEP: usize = 64 << 10;

/// How a body was compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    Gzip,
    Deflate,
    Brotli,
    Zstd,
}

impl Coding {
    /// What `Content-Encoding` says; `None` where the body came as it is.
    ///
    /// # Errors
    /// When it names what is not taken, or more than one coding.
    pub(super) fn of(headers: &HeaderMap) -> Result<Option<Self>, Problem> {
        let values = headers.get_all(header::CONTENT_ENCODING).iter();
        let text = values.map(|value| value.to_str().unwrap_or("?")).collect::<Vec<_>>().join(",");
        let names = text.split(',').map(|name| name.trim().to_ascii_lowercase());
        let names: Vec<String> =
            names.filter(|name| !name.is_empty() && name != "identity").collect();
        match names.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            [] => Ok(None),
            ["gzip" | "x-gzip"] => Ok(Some(Self::Gzip)),
            ["deflate"] => Ok(Some(Self::Deflate)),
            ["br"] => Ok(Some(Self::Brotli)),
            ["zstd"] => Ok(Some(Self::Zstd)),
            _ => {
                let said: String = text.chars().take(64).collect();
                let detail = format!(
                    "a body with `Content-Encoding: {}` is not taken: compress it once, as one of {TAKEN}, or send it as it is",
                    said.escape_debug()
                );
                Err(Problem::new(ProblemKind::UnsupportedMediaType, detail))
            }
        }
    }

    /// The decoded body of at most `limit` bytes, with the room that it takes for as long as it is kept.
    pub(super) async fn decode(
        self,
        body: Bytes,
        limit: usize,
        held: Room,
    ) -> Result<Bytes, Problem> {
        let mut decoded = Decoded { bytes: BytesMut::new(), limit, held };
        match self.decode_into(&body, &mut decoded).await {
            Ok(()) => Ok(decoded.held.keep(decoded.bytes.freeze())),
            Err(Stopped::Problem(problem)) => Err(problem),
            Err(Stopped::Broken(error)) => Err(self.undecodable(&error)),
        }
    }

    async fn decode_into(self, body: &[u8], decoded: &mut Decoded) -> Result<(), Stopped> {
        let (mut rest, mut parts) = (body, 0);
        if body.is_empty() {
            return Err(Stopped::Broken("it is empty".to_owned()));
        }
        while !rest.is_empty() {
            parts += 1;
            if parts > MOST_PARTS {
                return Err(Stopped::Broken("it is compressed in too many parts".to_owned()));
            }
            match self {
                Self::Gzip => decoded.take(GzipDecoder::new(&mut rest), 0).await?,
                // The name means zlib's format, and some clients send what is within it.
                Self::Deflate if is_zlib(body) => {
                    decoded.take(ZlibDecoder::new(&mut rest), 0).await?;
                }
                Self::Deflate => decoded.take(DeflateDecoder::new(&mut rest), 0).await?,
                Self::Brotli if is_large_brotli(body) => {
                    return Err(Stopped::Broken("its window is larger than 16 MiB".to_owned()));
                }
                Self::Brotli => decoded.take(BrotliDecoder::new(&mut rest), 16 << 20).await?,
                Self::Zstd => {
                    let window = [DParameter::window_log_max(ZSTD_WINDOW_LOG)];
                    let frame = ZstdDecoder::with_params(&mut rest, &window);
                    decoded.take(frame, 1 << ZSTD_WINDOW_LOG).await?;
                }
            }
            // Only these two know parts that follow each other.
            if !rest.is_empty() && !matches!(self, Self::Gzip | Self::Zstd) {
                let why = "something follows the end of what was compressed";
                return Err(Stopped::Broken(why.to_owned()));
            }
        }
        Ok(())
    }

    fn undecodable(self, why: &dyn std::fmt::Display) -> Problem {
        let name = match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Brotli => "br",
            Self::Zstd => "zstd",
        };
        let detail =
            format!("the body cannot be decoded as `Content-Encoding: {name}` says: {why}");
        Problem::new(ProblemKind::MalformedBody, detail)
    }
}

/// What a body that is not JSON may be instead, where its first bytes tell.
pub(super) fn hint(body: &[u8]) -> &'static str {
    match body {
        [0x1f, 0x8b, ..] => "; it looks like gzip: send `Content-Encoding: gzip` with it",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            "; it looks like zstd: send `Content-Encoding: zstd` with it"
        }
        _ => "",
    }
}

/// What has been decoded, within its bounds.
struct Decoded {
    bytes: BytesMut,
    limit: usize,
    held: Room,
}

pub(super) fn too_large(limit: usize) -> Problem {
    Problem::new(ProblemKind::BodyTooLarge, format!("the body is larger than {limit} bytes"))
}

pub(super) fn no_room() -> Problem {
    metrics::counter!("lexgate_bodies_refused_total").increment(1);
    let detail = "the bodies of requests under way leave no room for this one: send it again later";
    Problem::new(ProblemKind::Overloaded, detail)
}

/// Why decoding stopped.
enum Stopped {
    Problem(Problem),
    Broken(String),
}

impl From<io::Error> for Stopped {
    fn from(error: io::Error) -> Self {
        Self::Broken(error.to_string())
    }
}

impl Decoded {
    /// Takes all that `decoder` gives, which keeps up to `window` bytes of it to look back at.
    async fn take(
        &mut self,
        mut decoder: impl AsyncRead + Unpin,
        window: usize,
    ) -> Result<(), Stopped> {
        let mut piece = vec![0; STEP];
        loop {
            let read = decoder.read(&mut piece).await?;
            let Some(piece) = piece.get(..read).filter(|piece| !piece.is_empty()) else {
                return Ok(());
            };
            let size = self.bytes.len() + read;
            if size > self.limit {
                return Err(Stopped::Problem(too_large(self.limit)));
            }
            if !self.held.grow(size.next_multiple_of(STEP) + window.min(size)) {
                return Err(Stopped::Problem(no_room()));
            }
            self.bytes.extend_from_slice(piece);
            // All of it lies in memory: nothing else would let others have their turn.
            yield_now().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use async_compression::tokio::write::{
        BrotliEncoder, DeflateEncoder, GzipEncoder, ZlibEncoder, ZstdEncoder,
    };
    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::{dispatch::encoding::compressed, gate::Budget};

    fn named(value: &str) -> Result<Option<Coding>, Problem> {
        let headers = HeaderMap::from_iter([(header::CONTENT_ENCODING, value.parse().unwrap())]);
        Coding::of(&headers)
    }

    /// A text in each coding.
    async fn each(text: &[u8]) -> [(Coding, Vec<u8>); 5] {
        [
            (Coding::Gzip, compressed!(GzipEncoder, text)),
            (Coding::Deflate, compressed!(ZlibEncoder, text)),
            (Coding::Deflate, compressed!(DeflateEncoder, text)),
            (Coding::Brotli, compressed!(BrotliEncoder, text)),
            (Coding::Zstd, compressed!(ZstdEncoder, text)),
        ]
    }

    async fn decode(coding: Coding, body: &[u8], limit: usize) -> Result<Bytes, Problem> {
        let budget = Arc::new(Budget::new(8 << 20));
        let body = Bytes::copy_from_slice(body);
        let decoded = coding.decode(body, limit, budget.holder("desk")).await;
        if decoded.is_err() {
            assert_eq!(budget.free(), budget.size(), "room is given back");
        }
        decoded
    }

    #[test]
    fn one_coding_is_taken_and_others_are_named() {
        assert_eq!(named("identity").unwrap(), None);
        assert_eq!(named("gzip").unwrap(), Some(Coding::Gzip));
        assert_eq!(named(" X-GZip , identity").unwrap(), Some(Coding::Gzip));
        assert_eq!(named("deflate").unwrap(), Some(Coding::Deflate));
        assert_eq!(named("br").unwrap(), Some(Coding::Brotli));
        assert_eq!(named("zstd").unwrap(), Some(Coding::Zstd));
        for other in ["gzip, gzip", "zstd, gzip", "compress", "*", "gzip;q=1"] {
            let problem = named(other).unwrap_err();
            assert_eq!(problem.kind, ProblemKind::UnsupportedMediaType, "{other}");
            assert!(problem.detail.contains(TAKEN) && problem.detail.contains(other), "{other}");
        }
    }

    #[tokio::test]
    async fn each_coding_gives_back_what_was_compressed() {
        let text = r#"{"model":"assistant","input":"Guten Morgen"}"#.repeat(5_000).into_bytes();
        let (first, second) = (each(&text[..9]).await, each(&text[9..]).await);
        for ((coding, body), (first, second)) in
            each(&text).await.into_iter().zip(first.into_iter().zip(second))
        {
            let decoded = decode(coding, &body, 1 << 20).await.unwrap();
            assert_eq!(decoded, text, "{coding:?}");
            let parts = decode(coding, &[first.1, second.1].concat(), 1 << 20).await;
            match coding {
                Coding::Gzip | Coding::Zstd => assert_eq!(parts.unwrap(), text, "{coding:?}"),
                _ => assert!(parts.is_err(), "{coding:?} has no parts"),
            }
        }
        let skipped = [&b"\x50\x2a\x4d\x18\x03\0\0\0abc"[..], &each(&text).await[4].1].concat();
        assert_eq!(decode(Coding::Zstd, &skipped, 1 << 20).await.unwrap(), text);
    }

    #[tokio::test]
    async fn a_bomb_is_put_out_at_the_bound() {
        for (coding, body) in each(&vec![b' '; 5 << 20]).await {
            assert!(body.len() < 64 << 10, "{coding:?}");
            let problem = decode(coding, &body, 1 << 20).await.unwrap_err();
            assert_eq!(problem.kind, ProblemKind::BodyTooLarge, "{coding:?} {}", problem.detail);
            // One holder gets half of eight mebibytes.
            let problem = decode(coding, &body, 32 << 20).await.unwrap_err();
            assert_eq!(problem.kind, ProblemKind::Overloaded, "{coding:?} {}", problem.detail);
        }
        // A frame that says that it holds a terabyte, and one with a window of that size.
        for head in [
            [&b"\x28\xb5\x2f\xfd\xe0"[..], &(1_u64 << 40).to_le_bytes()].concat(),
            b"\x28\xb5\x2f\xfd\x00\xf0\x01\0\0".to_vec(),
        ] {
            let problem = decode(Coding::Zstd, &head, 1 << 20).await.unwrap_err();
            assert_eq!(problem.kind, ProblemKind::MalformedBody, "{}", problem.detail);
        }
        let problem = decode(Coding::Brotli, b"\x11\x1e\0\0", 1 << 20).await.unwrap_err();
        assert!(problem.detail.contains("its window"), "{}", problem.detail);
        let parts = compressed!(GzipEncoder, b"").repeat(MOST_PARTS + 1);
        let problem = decode(Coding::Gzip, &parts, 1 << 20).await.unwrap_err();
        assert!(problem.detail.contains("too many parts"), "{}", problem.detail);
    }

    #[tokio::test]
    async fn what_breaks_off_or_goes_on_is_malformed() {
        for (coding, body) in each(br#"{"model":"assistant"}"#).await {
            for wrong in [
                b"{}".to_vec(),
                Vec::new(),
                body[..body.len() - 5].to_vec(),
                [body.clone(), b"{}".to_vec()].concat(),
            ] {
                let problem = decode(coding, &wrong, 1 << 20).await.unwrap_err();
                assert_eq!(problem.kind, ProblemKind::MalformedBody, "{coding:?} {wrong:?}");
                assert!(problem.detail.contains("Content-Encoding"), "{}", problem.detail);
            }
        }
    }
}
