//! A check that asks a Prometheus server, and holds each value that it gives against the bound. No data is no success.

use std::collections::BTreeMap;
use std::fmt::Write;

use http::{Request, Uri};
use http_body_util::Full;
use serde::Deserialize;
use serde_json::Value;

use super::{Checks, inconclusive};
use crate::rollout::check::{Bound, Check, Outcome};

#[derive(Debug, Deserialize)]
struct Answer {
    status: String,
    #[serde(default)]
    error: String,
    data: Option<Data>,
}

#[derive(Debug, Deserialize)]
struct Data {
    #[serde(rename = "resultType")]
    kind: String,
    result: Value,
}

/// One value of a vector, with its labels. The value is a pair of time and text.
#[derive(Debug, Deserialize)]
struct Element {
    #[serde(default)]
    metric: BTreeMap<String, String>,
    value: (f64, String),
}

pub(super) async fn ask(
    checks: &Checks,
    check: &Check,
    url: &Uri,
    query: &str,
    bound: Bound,
) -> (Outcome, String) {
    let base = url.to_string();
    let address = format!("{}/api/v1/query?query={}", base.trim_end_matches('/'), escape(query));
    let request = Request::get(address).header("accept", "application/json").body(Full::default());
    match checks.call(request, check.timeout).await {
        // A query that it does not understand is answered with 400 and the reason.
        Ok((_, body)) => read(&body, bound),
        Err(error) => inconclusive(error),
    }
}

fn read(body: &[u8], bound: Bound) -> (Outcome, String) {
    let answer: Answer = match serde_json::from_slice(body) {
        Ok(answer) => answer,
        Err(error) => return inconclusive(format!("its answer is not understood: {error}")),
    };
    let Some(data) = answer.data.filter(|_| answer.status == "success") else {
        return inconclusive(format!("the server says: {}", answer.error));
    };
    let elements = match data.kind.as_str() {
        "vector" => serde_json::from_value(data.result),
        "scalar" => {
            serde_json::from_value(data.result).map(|value| vec![Element { metric: BTreeMap::new(), value }])
        }
        kind => return inconclusive(format!("the query gives a {kind}; it must give a vector or a scalar")),
    };
    match elements {
        Ok(elements) => judge(&elements, bound),
        Err(error) => inconclusive(format!("its answer is not understood: {error}")),
    }
}

fn judge(elements: &[Element], bound: Bound) -> (Outcome, String) {
    let mut newest = None;
    for Element { metric, value: (_, text) } in elements {
        // A quotient of nothing by nothing is NaN: nobody knows.
        let Some(value) = text.parse().ok().filter(|value: &f64| !value.is_nan()) else {
            return inconclusive(format!("a value is {text}{}", labels(metric)));
        };
        if !bound.holds(value) {
            return (Outcome::Fail, format!("{value} is not {bound}{}", labels(metric)));
        }
        newest = Some(value);
    }
    match (newest, elements.len()) {
        (None, _) => inconclusive("no data"),
        (Some(value), 1) => (Outcome::Pass, format!("{value} {bound}")),
        (Some(_), count) => (Outcome::Pass, format!("{count} values {bound}")),
    }
}

fn labels(metric: &BTreeMap<String, String>) -> String {
    if metric.is_empty() {
        return String::new();
    }
    let pairs: Vec<String> = metric.iter().map(|(name, value)| format!("{name}={value}")).collect();
    format!(" ({})", pairs.join(", "))
}

fn escape(query: &str) -> String {
    let mut escaped = String::with_capacity(query.len() * 2);
    for byte in query.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                escaped.push(char::from(byte));
            }
            _ => {
                // Writing to a string cannot fail.
                let _ = write!(escaped, "%{byte:02X}");
            }
        }
    }
    escaped
}
