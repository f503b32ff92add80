//! Paths in JSON.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A path, whose bytes survive JSON: plain text where it is UTF-8, else an object with its bytes in base64.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WirePath(pub PathBuf);

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Spelled {
    Text(String),
    Bytes { base64: String },
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
            Err(_) => Spelled::Bytes { base64: STANDARD.encode(bytes) }.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for WirePath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = match Spelled::deserialize(deserializer)? {
            Spelled::Text(text) => text.into_bytes(),
            Spelled::Bytes { base64 } => STANDARD.decode(base64).map_err(serde::de::Error::custom)?,
        };
        Ok(Self(PathBuf::from(OsString::from_vec(bytes))))
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
