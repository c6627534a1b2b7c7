//! What the coordinator shows of itself to servers that checks ask: headers, and a token that is read from a file at every question.
//!
//! Secrets stand in the coordinator's configuration and in files beside it, never in a rollout, its store, its audit or what a check
//! said. They are given to one origin alone, because operators choose what is asked there.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use serde::Deserialize;

/// Bits of a mode by which others than the owner may do something.
const OTHERS: u32 = 0o077;

/// Who is given what: by origin, as in `https://prometheus.example:9090`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "BTreeMap<String, Entry>")]
pub struct Credentials(BTreeMap<String, Credential>);

/// What stands in `coordinator.toml` under an origin.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    bearer_file: Option<PathBuf>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
}

/// What one origin is given.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Credential {
    bearer_file: Option<PathBuf>,
    /// Marked as sensitive: they print themselves as that and nothing else.
    headers: HeaderMap,
}

/// Says what is wrong with credentials.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// No origin.
    #[error("{origin:?} is no origin; write https://HOST or https://HOST:PORT")]
    Origin {
        /// What was written.
        origin: String,
    },
    /// No header.
    #[error("{name:?} of {origin} cannot be sent as a header")]
    Header {
        /// Whose.
        origin: String,
        /// Its name.
        name: String,
    },
    /// Two tokens for one origin.
    #[error("{origin} has a bearer_file and a header authorization; only one of them can be sent")]
    TwoTokens {
        /// Whose.
        origin: String,
    },
    /// The file cannot be read.
    #[error("{path} cannot be read")]
    Unreadable {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not kept well enough.
    #[error("{path} may be read by others; chmod 600 {path}")]
    Loose {
        /// The file.
        path: String,
    },
    /// The file holds no token.
    #[error("{path} holds no token of one line")]
    NoToken {
        /// The file.
        path: String,
    },
}

impl TryFrom<BTreeMap<String, Entry>> for Credentials {
    type Error = CredentialError;

    fn try_from(entries: BTreeMap<String, Entry>) -> Result<Self, CredentialError> {
        let read = |(origin, entry): (String, Entry)| {
            let key =
                exact_origin(&origin).ok_or_else(|| CredentialError::Origin { origin: origin.clone() })?;
            Ok((key, credential(&origin, entry)?))
        };
        entries.into_iter().map(read).collect::<Result<_, _>>().map(Self)
    }
}

fn credential(origin: &str, entry: Entry) -> Result<Credential, CredentialError> {
    let mut headers = HeaderMap::new();
    for (name, value) in entry.headers {
        let wrong = || CredentialError::Header { origin: origin.to_owned(), name: name.clone() };
        let key: HeaderName = name.parse().map_err(|_| wrong())?;
        headers.insert(key, sensitive(&value).ok_or_else(wrong)?);
    }
    if entry.bearer_file.is_some() && headers.contains_key(AUTHORIZATION) {
        return Err(CredentialError::TwoTokens { origin: origin.to_owned() });
    }
    Ok(Credential { bearer_file: entry.bearer_file, headers })
}

impl Credentials {
    /// Returns the headers that a question to `url` carries: none where nothing is configured for its origin. Reads the token's file, so
    /// that one that is replaced holds from then on.
    pub(super) fn for_url(&self, url: &Uri) -> Result<HeaderMap, CredentialError> {
        let Some(credential) = origin(url).and_then(|origin| self.0.get(&origin)) else {
            return Ok(HeaderMap::new());
        };
        let mut headers = credential.headers.clone();
        if let Some(path) = &credential.bearer_file {
            headers.insert(AUTHORIZATION, bearer(path)?);
        }
        Ok(headers)
    }
}

fn bearer(path: &Path) -> Result<HeaderValue, CredentialError> {
    let shown = || path.display().to_string();
    let unreadable = |source| CredentialError::Unreadable { path: shown(), source };
    if fs_err::metadata(path).map_err(unreadable)?.mode() & OTHERS != 0 {
        return Err(CredentialError::Loose { path: shown() });
    }
    let text = fs_err::read_to_string(path).map_err(unreadable)?;
    let token = text.trim();
    let value = (!token.is_empty()).then(|| sensitive(&format!("Bearer {token}"))).flatten();
    value.ok_or_else(|| CredentialError::NoToken { path: shown() })
}

fn sensitive(value: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(value).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Returns scheme, host and port of an address, the port in words.
fn origin(url: &Uri) -> Option<String> {
    let (scheme, host) = (url.scheme_str()?, url.host()?.to_ascii_lowercase());
    let port = url.port_u16().or(match scheme {
        "https" => Some(443),
        "http" => Some(80),
        _ => None,
    })?;
    Some(format!("{scheme}://{host}:{port}"))
}

/// Returns the origin that a text is, and nothing where it says more.
fn exact_origin(text: &str) -> Option<String> {
    let url: Uri = text.parse().ok()?;
    let has_user = url.authority().is_some_and(|authority| authority.as_str().contains('@'));
    (matches!(url.path(), "" | "/") && url.query().is_none() && !has_user).then(|| origin(&url)).flatten()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn read(text: &str) -> Result<Credentials, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn an_origin_is_given_its_own_and_nobody_else_is() {
        let credentials = read(
            "[\"https://prometheus.example\"]\nheaders = { X-Scope-OrgID = \"shop\" }\n\
             [\"http://gate:8080/\"]\nheaders = { authorization = \"Basic c2VjcmV0\" }",
        )
        .unwrap();
        for (url, expected) in [
            ("https://prometheus.example/prefix", 1),
            ("https://PROMETHEUS.example:443/", 1),
            ("http://gate:8080/ask?x=1", 1),
            ("http://prometheus.example/", 0),
            ("https://prometheus.example:8443/", 0),
            ("https://prometheus.example.evil/", 0),
            ("https://prometheus.example@evil/", 0),
            ("http://gate/", 0),
        ] {
            let headers = credentials.for_url(&url.parse().unwrap()).unwrap();
            assert_eq!(headers.len(), expected, "{url}");
        }
        let shown = format!("{credentials:?}");
        assert!(!shown.contains("c2VjcmV0"), "{shown}");
    }

    #[test]
    fn a_token_is_read_anew_each_time_and_only_where_it_is_kept_well() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let credentials = read(&format!("[\"http://p:9090\"]\nbearer_file = {path:?}")).unwrap();
        let url = "http://p:9090/".parse().unwrap();
        let keep = |text: &str, mode| {
            fs_err::write(&path, text).unwrap();
            fs_err::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            credentials.for_url(&url).map_err(|error| error.to_string())
        };
        let sent = |headers: HeaderMap| headers[AUTHORIZATION].to_str().unwrap().to_owned();
        assert_eq!(sent(keep("first\n", 0o600).unwrap()), "Bearer first");
        assert_eq!(sent(keep("second", 0o400).unwrap()), "Bearer second");
        for (text, mode, words) in
            [("third", 0o640, "chmod 600"), (" \n", 0o600, "no token"), ("two\nlines", 0o600, "no token")]
        {
            let refused = keep(text, mode).unwrap_err();
            assert!(refused.contains(words) && !refused.contains(text), "{refused}");
        }
        fs_err::remove_file(&path).unwrap();
        let gone = format!("{} cannot be read", path.display());
        assert_eq!(credentials.for_url(&url).unwrap_err().to_string(), gone);
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_name() {
        for (text, words) in [
            ("[\"prometheus:9090\"]", "origin"),
            ("[\"https://p/api\"]", "origin"),
            ("[\"https://user@p\"]", "origin"),
            ("[\"https://p\"]\nheaders = { \"a b\" = \"c\" }", "\"a b\""),
            ("[\"https://p\"]\nheaders = { a = \"b\\nc\" }", "header"),
            ("[\"https://p\"]\nbearer_file = \"/t\"\nheaders = { Authorization = \"x\" }", "only one"),
            ("[\"https://p\"]\nbearer = \"x\"", "unknown field"),
        ] {
            let refused = read(text).unwrap_err();
            assert!(refused.contains(words), "{text}: {refused}");
        }
    }
}
