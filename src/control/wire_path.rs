//! Paths in JSON.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A path, whose bytes survive JSON: plain text where it is UTF-8, else an object with its bytes in base64.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WirePath(pub PathBuf);

#[derive(Serialize, Deserialize)]
struct Bytes {
    base64: String,
}

impl From<&Path> for WirePath {
    fn from(path: &Path) -> Self {
        Self(path.to_path_buf())
    }
}

impl Serialize for WirePath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes = self.0.as_os_str().as_bytes();
        match std::str::from_utf8(bytes) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => Bytes { base64: STANDARD.encode(bytes) }.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for WirePath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Spelling)
    }
}

/// Reads both spellings as they come, because lists have a million of them: an untagged enum would keep each aside first.
struct Spelling;

impl<'de> Visitor<'de> for Spelling {
    type Value = WirePath;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a path, or its bytes as {\"base64\": …}")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<WirePath, E> {
        Ok(WirePath(PathBuf::from(text)))
    }

    fn visit_string<E: de::Error>(self, text: String) -> Result<WirePath, E> {
        Ok(WirePath(PathBuf::from(text)))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<WirePath, A::Error> {
        let Bytes { base64 } = Bytes::deserialize(de::value::MapAccessDeserializer::new(map))?;
        let bytes = STANDARD.decode(base64).map_err(de::Error::custom)?;
        Ok(WirePath(PathBuf::from(OsString::from_vec(bytes))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_keeps_its_bytes_through_json() {
        for bytes in [&b"/srv/a b.pdf"[..], b"/srv/\xff\xfe\nx"] {
            let path = WirePath(PathBuf::from(OsString::from_vec(bytes.to_vec())));
            let text = serde_json::to_string(&path).unwrap();
            assert!(!text.contains('\n'));
            assert_eq!(serde_json::from_str::<WirePath>(&text).unwrap(), path);
        }
    }
}
