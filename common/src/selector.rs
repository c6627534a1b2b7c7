//! Labels and the selectors that choose hosts by them: `site=berlin,role in (web,api),!canary`.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::name::{AppName, HostName, SiteName};

/// The labels of a host. Keys and values follow the rule for names.
pub type Labels = BTreeMap<String, String>;

/// Says why a text is no selector or no label.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not valid: {reason}; write for example site=berlin,role in (web,api),tier!=test")]
pub struct SelectorError {
    text: String,
    reason: &'static str,
}

/// Chooses hosts; all of its terms must hold. Without a term it chooses every host (`*`).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Selector {
    terms: Vec<Term>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Term {
    In { key: String, values: Vec<String> },
    NotIn { key: String, values: Vec<String> },
    Has(String),
    HasNot(String),
}

impl Selector {
    /// Returns the selector of every host.
    pub fn everything() -> Self {
        Self::default()
    }

    /// Says whether a host is chosen. `host` and `site` can be asked for like labels and win over them.
    pub fn matches(&self, host: &HostName, site: &SiteName, labels: &Labels) -> bool {
        let value = |key: &str| match key {
            "host" => Some(host.as_str()),
            "site" => Some(site.as_str()),
            _ => labels.get(key).map(String::as_str),
        };
        self.terms.iter().all(|term| match term {
            Term::In { key, values } => value(key).is_some_and(|v| values.iter().any(|wanted| wanted == v)),
            Term::NotIn { key, values } => {
                !value(key).is_some_and(|v| values.iter().any(|wanted| wanted == v))
            }
            Term::Has(key) => value(key).is_some(),
            Term::HasNot(key) => value(key).is_none(),
        })
    }
}

/// Parses `key=value` into a label.
pub fn parse_label(text: &str) -> Result<(String, String), SelectorError> {
    let error = |reason| SelectorError { text: text.to_owned(), reason };
    let (key, value) = text.split_once('=').ok_or_else(|| error("a label is key=value"))?;
    match (is_word(key), is_word(value)) {
        (true, true) if !matches!(key, "host" | "site") => Ok((key.to_owned(), value.to_owned())),
        (true, true) => Err(error("host and site are set at enrolment, not by a label")),
        _ => Err(error("a label's key and value are names")),
    }
}

fn is_word(text: &str) -> bool {
    text.parse::<AppName>().is_ok()
}

/// Splits at commas outside of parentheses.
fn split_terms(text: &str) -> Vec<&str> {
    let (mut terms, mut start, mut depth) = (Vec::new(), 0, 0_u32);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                terms.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

fn parse_term(term: &str) -> Result<Term, &'static str> {
    let word = |text: &str| {
        let text = text.trim();
        is_word(text).then(|| text.to_owned()).ok_or("keys and values are names")
    };
    let list = |text: &str| {
        let inner = text.trim().strip_prefix('(').and_then(|t| t.strip_suffix(')'));
        inner
            .ok_or("a list of values stands in parentheses")?
            .split(',')
            .map(word)
            .collect::<Result<Vec<_>, _>>()
    };
    let term = term.trim();
    if let Some((key, values)) = term.split_once(" notin ") {
        return Ok(Term::NotIn { key: word(key)?, values: list(values)? });
    }
    if let Some((key, values)) = term.split_once(" in ") {
        return Ok(Term::In { key: word(key)?, values: list(values)? });
    }
    if let Some((key, value)) = term.split_once("!=") {
        return Ok(Term::NotIn { key: word(key)?, values: vec![word(value)?] });
    }
    if let Some((key, value)) = term.split_once('=') {
        return Ok(Term::In {
            key: word(key)?,
            values: vec![word(value.strip_prefix('=').unwrap_or(value))?],
        });
    }
    match term.strip_prefix('!') {
        Some(key) => Ok(Term::HasNot(word(key)?)),
        None => Ok(Term::Has(word(term)?)),
    }
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        if matches!(text.trim(), "" | "*") {
            return Ok(Self::everything());
        }
        let terms = split_terms(text).into_iter().map(parse_term).collect::<Result<_, _>>();
        Ok(Self { terms: terms.map_err(|reason| SelectorError { text: text.to_owned(), reason })? })
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.terms.is_empty() {
            return f.write_str("*");
        }
        for (i, term) in self.terms.iter().enumerate() {
            f.write_str(if i == 0 { "" } else { "," })?;
            match term {
                Term::In { key, values } if values.len() == 1 => write!(f, "{key}={}", values[0])?,
                Term::NotIn { key, values } if values.len() == 1 => write!(f, "{key}!={}", values[0])?,
                Term::In { key, values } => write!(f, "{key} in ({})", values.join(","))?,
                Term::NotIn { key, values } => write!(f, "{key} notin ({})", values.join(","))?,
                Term::Has(key) => f.write_str(key)?,
                Term::HasNot(key) => write!(f, "!{key}")?,
            }
        }
        Ok(())
    }
}

impl From<Selector> for String {
    fn from(selector: Selector) -> Self {
        selector.to_string()
    }
}

impl TryFrom<String> for Selector {
    type Error = SelectorError;

    fn try_from(text: String) -> Result<Self, SelectorError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(selector: &str) -> bool {
        let labels = Labels::from([("role".into(), "web".into()), ("rack".into(), "r2".into())]);
        let selector: Selector = selector.parse().unwrap();
        assert_eq!(selector.to_string().parse::<Selector>().unwrap(), selector);
        selector.matches(&"h1".parse().unwrap(), &"berlin".parse().unwrap(), &labels)
    }

    #[test]
    fn every_form_of_term() {
        for yes in [
            "",
            "*",
            "site=berlin",
            "host==h1",
            "role in (api, web)",
            "role!=api",
            "rack",
            "!tier",
            "role=web,site=berlin",
        ] {
            assert!(matches(yes), "{yes}");
        }
        for no in ["site=rome", "role notin (web)", "tier", "!rack", "tier in (a,b)", "role=web,site=rome"] {
            assert!(!matches(no), "{no}");
        }
    }

    #[test]
    fn nonsense_is_refused_with_a_reason() {
        for bad in [",", "a=", "=b", "a in web", "a in (", "a b", "A=b"] {
            assert!(bad.parse::<Selector>().is_err(), "{bad}");
        }
        assert!(parse_label("site=x").is_err());
        assert_eq!(parse_label("rack=r1").unwrap(), ("rack".into(), "r1".into()));
    }
}
