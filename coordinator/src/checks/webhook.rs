//! A check that posts what it is about to a web address, and reads the result from the answer.

use http::{Request, Uri};
use serde::Deserialize;
use serde_json::json;

use super::{Checks, inconclusive};
use crate::rollout::check::{Bound, Check, Outcome};
use crate::rollout::prober::About;

/// Most hosts that a question names: a batch of more is told by its count.
const HOSTS_NAMED_MAX: usize = 1_000;

/// The answer: `{"result": "pass", "reason": "..."}`, or `{"value": 0.25}` where there is a bound.
#[derive(Debug, Deserialize)]
struct Answer {
    result: Option<String>,
    value: Option<f64>,
    #[serde(default)]
    reason: String,
}

pub(super) async fn ask(
    checks: &Checks,
    check: &Check,
    url: &Uri,
    bound: Option<Bound>,
    about: &About,
) -> (Outcome, String) {
    let body = question(check, about).to_string();
    let request =
        Request::post(url).header("content-type", "application/json").body(body.into_bytes().into());
    match checks.call(request, check.timeout).await {
        Ok((status, body)) if status.is_success() => read(&body, bound),
        Ok((status, _)) => inconclusive(format!("answered {status}")),
        Err(error) => inconclusive(error),
    }
}

fn question(check: &Check, about: &About) -> serde_json::Value {
    let About { rollout, app, version, batch, batches, hosts } = about;
    json!({
        "check": check.name,
        "rollout": rollout,
        "application": app,
        "version": version,
        "batch": batch + 1,
        "batches": batches,
        "hosts_count": hosts.len(),
        "hosts": hosts.iter().take(HOSTS_NAMED_MAX).collect::<Vec<_>>(),
    })
}

fn read(body: &[u8], bound: Option<Bound>) -> (Outcome, String) {
    let Answer { result, value, reason } = match serde_json::from_slice(body) {
        Ok(answer) => answer,
        Err(error) => return inconclusive(format!("its answer is not understood: {error}")),
    };
    let said = |standard: String| if reason.trim().is_empty() { standard } else { reason.clone() };
    match (result.as_deref(), value, bound) {
        (_, Some(value), Some(bound)) if bound.holds(value) => {
            (Outcome::Pass, said(format!("{value} {bound}")))
        }
        (_, Some(value), Some(bound)) => (Outcome::Fail, said(format!("{value} is not {bound}"))),
        (_, None, Some(_)) => inconclusive(said("its answer has no value".to_owned())),
        (Some("pass"), _, None) => (Outcome::Pass, said("pass".to_owned())),
        (Some("fail"), _, None) => (Outcome::Fail, said("fail".to_owned())),
        (Some("inconclusive"), _, None) => inconclusive(said("no reason given".to_owned())),
        (_, _, None) => inconclusive("its result is none of pass, fail, inconclusive"),
    }
}
