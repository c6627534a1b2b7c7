//! Whom a check asks, and what the answer must be.

use std::fmt;
use std::str::FromStr;

use http::Uri;

/// Whom a check asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// A web address that answers with a result, or with a value where there is a bound.
    Webhook {
        /// Where.
        url: Uri,
        /// What its value must be.
        bound: Option<Bound>,
    },
    /// A query of a Prometheus server, each of whose values must meet the bound.
    Prometheus {
        /// The server, without `/api/v1/query`.
        url: Uri,
        /// The query.
        query: String,
        /// What its values must be.
        bound: Bound,
    },
    /// A program in the coordinator's directory of checks.
    Command {
        /// The program's name within that directory, and its arguments.
        command: Vec<String>,
    },
}

/// What a value must be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bound {
    comparison: Comparison,
    /// Finite.
    limit: f64,
}

// A limit is never NaN.
impl Eq for Bound {}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Less,
    AtMost,
    More,
    AtLeast,
}

impl Comparison {
    fn as_str(self) -> &'static str {
        match self {
            Self::Less => "<",
            Self::AtMost => "<=",
            Self::More => ">",
            Self::AtLeast => ">=",
        }
    }
}

impl Bound {
    /// Says whether a value is as it must be; NaN never is.
    pub fn holds(self, value: f64) -> bool {
        match self.comparison {
            Comparison::Less => value < self.limit,
            Comparison::AtMost => value <= self.limit,
            Comparison::More => value > self.limit,
            Comparison::AtLeast => value >= self.limit,
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.comparison.as_str(), self.limit)
    }
}

impl FromStr for Probe {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        let rest = rest.trim();
        match kind {
            "webhook" => webhook(rest),
            "prometheus" => prometheus(rest),
            "command" => command(rest),
            other => Err(format!("{other:?} is none of webhook, prometheus, command")),
        }
    }
}

fn webhook(rest: &str) -> Result<Probe, String> {
    let (address, bound) = rest.split_once(' ').unwrap_or((rest, ""));
    let bound = match bound.trim() {
        "" => None,
        text => Some(text.split_once(' ').ok_or_else(|| format!("{text:?} is neither nothing nor a bound"))?),
    };
    let bound = bound.map(|(comparison, limit)| bound_of(comparison, limit)).transpose()?;
    Ok(Probe::Webhook { url: url(address)?, bound })
}

fn prometheus(rest: &str) -> Result<Probe, String> {
    let (address, rest) = rest.split_once(' ').ok_or("it has no query after its address")?;
    // The bound is the last two words: comparisons may stand in the query too.
    let mut words = rest.trim().rsplitn(3, ' ');
    let (limit, comparison, query) = (words.next(), words.next(), words.next());
    let (Some(limit), Some(comparison)) = (limit, comparison) else {
        return Err("it has no bound after its query, such as < 0.5".to_owned());
    };
    let bound = bound_of(comparison, limit)?;
    let query = query.unwrap_or_default().trim();
    if query.is_empty() {
        return Err("it has no query between its address and its bound".to_owned());
    }
    Ok(Probe::Prometheus { url: url(address)?, query: query.to_owned(), bound })
}

fn command(rest: &str) -> Result<Probe, String> {
    let command: Vec<String> = rest.split_whitespace().map(str::to_owned).collect();
    let program = command.first().ok_or("it has no program after \"command\"")?;
    if program.contains('/') || program.starts_with('.') {
        return Err(format!(
            "{program:?} is not the plain name of a program in the coordinator's directory of checks"
        ));
    }
    Ok(Probe::Command { command })
}

fn bound_of(comparison: &str, limit: &str) -> Result<Bound, String> {
    let comparison = match comparison {
        "<" => Comparison::Less,
        "<=" => Comparison::AtMost,
        ">" => Comparison::More,
        ">=" => Comparison::AtLeast,
        other => return Err(format!("it has no bound: {other:?} is none of <, <=, >, >=")),
    };
    let limit = limit.parse().ok().filter(|limit: &f64| limit.is_finite());
    Ok(Bound { comparison, limit: limit.ok_or("its bound has no number")? })
}

/// Reads an address that may be shown to everybody.
pub(crate) fn url(text: &str) -> Result<Uri, String> {
    if text.is_empty() {
        return Err("it has no address".to_owned());
    }
    let url: Uri = text.parse().map_err(|error| format!("{text:?} is no address: {error}"))?;
    let authority = url.authority().ok_or_else(|| format!("{text:?} is no http or https address"))?;
    if !matches!(url.scheme_str(), Some("http" | "https")) {
        return Err(format!("{text:?} is no http or https address"));
    }
    if authority.as_str().contains('@') {
        return Err("its address holds credentials, which everybody would see".to_owned());
    }
    Ok(url)
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Webhook { url, bound: None } => write!(f, "webhook {url}"),
            Self::Webhook { url, bound: Some(bound) } => write!(f, "webhook {url} {bound}"),
            Self::Prometheus { url, query, bound } => write!(f, "prometheus {url} {query} {bound}"),
            Self::Command { command } => write!(f, "command {}", command.join(" ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_hold_as_they_say() {
        for (text, below, at, above) in [
            ("< 1.5", true, false, false),
            ("<= 1.5", true, true, false),
            ("> 1.5", false, false, true),
            (">= 1.5", false, true, true),
        ] {
            let (comparison, limit) = text.split_once(' ').unwrap();
            let bound = bound_of(comparison, limit).unwrap();
            let seen = (bound.holds(1.4), bound.holds(1.5), bound.holds(1.6));
            assert_eq!(seen, (below, at, above), "{text}");
            assert!(!bound.holds(f64::NAN));
            assert_eq!(bound.to_string(), text);
        }
    }
}
